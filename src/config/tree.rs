//! TOML text as a tree in which every value remembers where it was written, and `--set` applied to it.
//!
//! Profiles and modem sheets are both read through it, so a problem in either names its line.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// Where a value was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// In a file.
    File {
        /// The file as it was named.
        file: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// On the command line: the value as it was typed.
    Set(Arc<str>),
    /// Nowhere: the built-in default.
    Default,
}

impl Origin {
    /// File, line and column as a problem states them; line 0 where there is none.
    pub fn place(&self) -> (String, usize, usize) {
        match self {
            Self::File { file, line, column } => (file.to_string(), *line, *column),
            Self::Set(_) => ("--set".into(), 0, 0),
            Self::Default => ("default".into(), 0, 0),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { file, line, .. } => write!(f, "{file}:{line}"),
            Self::Set(_) => f.write_str("--set"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct Entry {
    pub value: Value,
    pub origin: Origin,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Integer(i64),
    Float(String),
    Bool(bool),
    Date(String),
    List(Vec<Entry>),
    Table(BTreeMap<String, Entry>),
}

impl Value {
    /// What kind of value this is, for a problem's words.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Bool(_) => "a boolean",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

/// Parses a whole document; every syntax error is reported.
pub fn parse(file: &str, text: &str) -> Result<Entry, Vec<Problem>> {
    let file: Arc<str> = file.into();
    let lines = Lines::new(file.clone(), text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .into_iter()
            .map(|e| {
                let origin = lines.origin(e.span().map_or(0, |s| s.start));
                Problem::new(&origin, "", format!("not TOML: {}", e.message().trim()), "")
            })
            .collect());
    }
    Ok(Entry { value: lines.table(table.get_ref()), origin: Origin::File { file, line: 1, column: 1 } })
}

/// Finds line and column of a byte offset.
struct Lines<'t> {
    file: Arc<str>,
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(file: Arc<str>, text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { file, text, starts }
    }

    fn origin(&self, offset: usize) -> Origin {
        let line = self.starts.partition_point(|s| *s <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(1, |head| head.chars().count() + 1);
        Origin::File { file: self.file.clone(), line, column }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let fields = table.iter().map(|(key, value)| {
            let mut entry = self.entry(value);
            // A table's own span may begin elsewhere; what an operator looks for is the key.
            entry.origin = self.origin(match &entry.value {
                Value::Table(_) => key.span().start,
                Value::List(items) if items.iter().any(|i| matches!(i.value, Value::Table(_))) => key.span().start,
                _ => value.span().start,
            });
            (key.get_ref().to_string(), entry)
        });
        Value::Table(fields.collect())
    }

    fn entry(&self, value: &Spanned<DeValue<'_>>) -> Entry {
        let origin = self.origin(value.span().start);
        let value = match value.get_ref() {
            DeValue::String(s) => Value::Text(s.to_string()),
            DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
                Ok(i) => Value::Integer(i),
                Err(_) => Value::Float(i.to_string()),
            },
            DeValue::Float(x) => Value::Float(x.to_string()),
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::Datetime(d) => Value::Date(d.to_string()),
            DeValue::Array(items) => Value::List(items.iter().map(|i| self.entry(i)).collect()),
            DeValue::Table(table) => self.table(table),
        };
        Entry { value, origin }
    }
}

/// Puts one `--set KEY=VALUE` into the tree. A table of an array is addressed by its name (a route by what it matches,
/// quoted when it holds dots), or by its place from 0.
pub fn set(root: &mut Entry, assignment: &str) -> Result<(), Problem> {
    let fail = |key: &str, problem: String, allowed: &str| {
        Err(Problem::new(&Origin::Set(assignment.into()), key, problem, allowed))
    };
    let Some((path, text)) = split_assignment(assignment) else {
        return fail(assignment, "not of the form KEY=VALUE".into(), "for example listener.relay.address=127.0.0.1:0");
    };
    let key = path.join(".");
    let origin = Origin::Set(text.into());
    let mut at = root;
    for segment in &path {
        // A scalar in the way is replaced: keying = "lines" becomes keying.socket = "...".
        if !matches!(at.value, Value::Table(_) | Value::List(_)) {
            at.value = Value::Table(BTreeMap::new());
            at.origin = origin.clone();
        }
        at = match &mut at.value {
            Value::Table(fields) => fields
                .entry(segment.clone())
                .or_insert_with(|| Entry { value: Value::Table(BTreeMap::new()), origin: origin.clone() }),
            Value::List(items) => {
                let names: Vec<String> = items.iter().filter_map(name_of).collect();
                let place = items
                    .iter()
                    .position(|i| name_of(i).as_deref() == Some(segment))
                    .or_else(|| segment.parse().ok().filter(|i| *i < items.len()));
                match place.and_then(|i| items.get_mut(i)) {
                    Some(item) => item,
                    None => return fail(&key, format!("nothing here is named {segment:?}"), &names.join(", ")),
                }
            }
            _ => return fail(&key, "no table".into(), ""),
        };
    }
    at.value = typed(text);
    at.origin = origin.clone();
    stamp(&mut at.value, &origin);
    Ok(())
}

/// The name under which an element of an array of tables is addressed.
pub fn name_of(entry: &Entry) -> Option<String> {
    let Value::Table(fields) = &entry.value else { return None };
    ["name", "match", "id", "address"].iter().find_map(|k| match &fields.get(*k)?.value {
        Value::Text(t) => Some(t.clone()),
        Value::Integer(i) => Some(i.to_string()),
        _ => None,
    })
}

/// A typed value where the text is TOML, else the text itself: `2400bps` needs no quotes on a command line.
pub fn typed(text: &str) -> Value {
    match DeValue::parse(text) {
        Ok(value) => Lines::new("--set".into(), text).entry(&value).value,
        Err(_) => Value::Text(text.into()),
    }
}

fn stamp(value: &mut Value, origin: &Origin) {
    let children: Box<dyn Iterator<Item = &mut Entry>> = match value {
        Value::List(items) => Box::new(items.iter_mut()),
        Value::Table(fields) => Box::new(fields.values_mut()),
        Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Date(_) => return,
    };
    for child in children {
        child.origin = origin.clone();
        stamp(&mut child.value, origin);
    }
}

fn split_assignment(text: &str) -> Option<(Vec<String>, &str)> {
    let mut path = vec![String::new()];
    let mut quoted = false;
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => path.push(String::new()),
            '=' if !quoted => {
                return path.iter().all(|s| !s.is_empty()).then(|| (path, text.get(i + 1..).unwrap_or("")));
            }
            _ => path.last_mut()?.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'e>(entry: &'e Entry, path: &[&str]) -> &'e Entry {
        path.iter().fold(entry, |e, segment| match &e.value {
            Value::Table(fields) => &fields[*segment],
            Value::List(items) => {
                items.iter().find(|i| name_of(i).as_deref() == Some(*segment)).expect("an element of that name")
            }
            _ => panic!("no table at {segment}"),
        })
    }

    const TEXT: &str = "[node]\nname = \"a\"\n\n[[route]]\nmatch = \"*.test\"\nto = \"hold\"\n";

    #[test]
    fn every_value_knows_its_line_and_column() {
        let tree = parse("x.toml", TEXT).expect("TOML");
        let origin = |path: &[&str]| at(&tree, path).origin.place();
        assert_eq!(origin(&["node", "name"]), ("x.toml".into(), 2, 8));
        assert_eq!(origin(&["route", "*.test", "to"]), ("x.toml".into(), 6, 6));
        assert_eq!(origin(&["node"]), ("x.toml".into(), 1, 2));
    }

    #[test]
    fn all_syntax_errors_are_reported_with_their_lines() {
        let problems = parse("x.toml", "[node]\nname = \nok = 1\n[[route]\n").expect_err("broken");
        assert!(problems.iter().any(|p| p.line == 2), "{problems:?}");
        assert!(problems.iter().any(|p| p.line == 4), "{problems:?}");
    }

    #[test]
    fn set_reaches_tables_of_arrays_by_name_and_remembers_itself() {
        let mut tree = parse("x.toml", TEXT).expect("TOML");
        set(&mut tree, "route.\"*.test\".to=smtp:127.0.0.1:2626").expect("reached");
        set(&mut tree, "limits.sessions=7").expect("made");
        let to = at(&tree, &["route", "*.test", "to"]);
        assert!(matches!(&to.value, Value::Text(t) if t == "smtp:127.0.0.1:2626"));
        assert_eq!(to.origin.to_string(), "--set");
        assert!(matches!(at(&tree, &["limits", "sessions"]).value, Value::Integer(7)));
    }

    #[test]
    fn set_names_what_there_is_when_the_name_is_wrong() {
        let mut tree = parse("x.toml", TEXT).expect("TOML");
        let problem = set(&mut tree, "route.other.to=hold").expect_err("no such route");
        assert_eq!(problem.allowed, "*.test");
        assert!(set(&mut tree, "no assignment").is_err());
        assert!(set(&mut tree, "a..b=1").is_err());
    }
}
