//! Reads typed values out of a tree, noting every problem and every effective value on the way instead of stopping.

use std::collections::{BTreeMap, BTreeSet};

use super::schema::{Fallback, Section};
use super::tree::{self, Entry, Origin, Value};
use super::{Effective, Problem};

/// What reading one profile has found out so far.
#[derive(Debug, Default)]
pub struct Reader {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    pub effective: Vec<Effective>,
    origins: BTreeMap<String, Origin>,
    /// Which keys were asked for, by table: a test compares it with the schema.
    pub asked: BTreeSet<(&'static str, &'static str)>,
}

impl Reader {
    /// Opens a table for reading; tells unknown keys at once. `entry` is `None` for an absent optional table.
    pub fn scope(&mut self, section: &'static Section, path: &str, entry: Option<&Entry>) -> Scope<'_> {
        let origin = entry.map_or(Origin::Default, |e| e.origin.clone());
        let fields = match entry.map(|e| &e.value) {
            Some(Value::Table(fields)) => fields.clone(),
            Some(other) => {
                self.problem_at(&origin, path, format!("is {}, not a table", other.kind()), "");
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        let names: Vec<&str> = section.keys.iter().map(|k| k.name).collect();
        for (name, field) in &fields {
            if !names.contains(&name.as_str()) {
                self.problem_at(&field.origin, &join(path, name), "unknown key", &names.join(", "));
            }
        }
        if let Some(entry) = entry {
            self.origins.insert(path.into(), entry.origin.clone());
        }
        Scope { reader: self, section, path: path.into(), fields, origin }
    }

    /// Notes a problem where `key` was written (or should have been).
    pub fn problem(&mut self, key: &str, problem: impl Into<String>, allowed: &str) {
        let origin = self.origin(key);
        self.problem_at(&origin, key, problem, allowed);
    }

    /// Notes something that is allowed but that an operator should know.
    pub fn warn(&mut self, key: &str, problem: impl Into<String>, better: &str) {
        let origin = self.origin(key);
        self.warnings.push(Problem::new(&origin, key, problem, better));
    }

    pub fn problem_at(&mut self, origin: &Origin, key: &str, problem: impl Into<String>, allowed: &str) {
        self.problems.push(Problem::new(origin, key, problem, allowed));
    }

    /// Notes a value that comes from somewhere else than the profile's own text.
    pub fn note(&mut self, key: String, value: String, origin: &Origin, sheet: bool) {
        self.effective.push(Effective::new(key, value, origin, sheet));
    }

    /// Where a key, or the nearest table around it, was written.
    fn origin(&self, key: &str) -> Origin {
        let mut at = key;
        loop {
            match self.origins.get(at) {
                Some(origin) if *origin != Origin::Default => return origin.clone(),
                _ => match at.rsplit_once('.') {
                    Some((head, _)) => at = head,
                    None => return Origin::Default,
                },
            }
        }
    }
}

/// One table being read.
pub struct Scope<'r> {
    pub reader: &'r mut Reader,
    section: &'static Section,
    pub path: String,
    fields: BTreeMap<String, Entry>,
    origin: Origin,
}

impl Scope<'_> {
    /// The full path of a key of this table.
    pub fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether the key was written.
    pub fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// What was written under a key.
    pub fn raw(&mut self, key: &'static str) -> Option<Entry> {
        self.reader.asked.insert((self.section.name, key));
        let entry = self.fields.get(key).cloned();
        if let Some(entry) = &entry {
            let path = self.at(key);
            self.reader.origins.insert(path, entry.origin.clone());
        }
        entry
    }

    /// Reads a required key, or one with a fixed default.
    pub fn field<T>(&mut self, key: &'static str, read: impl FnOnce(&Entry) -> Result<T, String>) -> Option<T> {
        match self.section.key(key).map(|k| k.fallback) {
            Some(Fallback::Is(text)) => self.read(key, Some(tree::typed(text)), read),
            _ => self.read(key, None, read),
        }
    }

    /// Reads a key whose default follows from other keys.
    pub fn field_or<T>(
        &mut self,
        key: &'static str,
        derived: impl Into<Value>,
        read: impl FnOnce(&Entry) -> Result<T, String>,
    ) -> Option<T> {
        self.read(key, Some(derived.into()), read)
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        default: Option<Value>,
        read: impl FnOnce(&Entry) -> Result<T, String>,
    ) -> Option<T> {
        let path = self.at(key);
        let form = self.section.key(key).map_or("", |k| k.form);
        let written = self.raw(key);
        let entry = match (written, default) {
            (Some(entry), _) => entry,
            (None, Some(value)) => Entry { value, origin: Origin::Default },
            (None, None) => {
                self.reader.problem_at(&self.origin, &path, "missing", form);
                return None;
            }
        };
        match read(&entry) {
            Ok(value) => {
                let secret = self.section.key(key).is_some_and(|k| k.secret);
                let shown = if secret { "(secret)".into() } else { show(&entry.value) };
                self.reader.note(path, shown, &entry.origin, false);
                Some(value)
            }
            Err(why) => {
                self.reader.problem_at(&entry.origin, &path, why, form);
                None
            }
        }
    }
}

/// A string; on a command line anything is one.
pub fn text(entry: &Entry) -> Result<String, String> {
    match (&entry.value, &entry.origin) {
        (Value::Text(text), _) => Ok(text.clone()),
        (Value::List(_) | Value::Table(_), _) => Err(format!("is {}, not a string", entry.value.kind())),
        (_, Origin::Set(raw)) => Ok(raw.to_string()),
        (other, _) => Err(format!("is {}, not a string", other.kind())),
    }
}

/// A string that means something.
pub fn parsed<T>(parse: impl Fn(&str) -> Option<T>) -> impl Fn(&Entry) -> Result<T, String> {
    move |entry| {
        let text = text(entry)?;
        parse(&text).ok_or_else(|| format!("{text:?} is not one"))
    }
}

/// An integer between two bounds.
pub fn integer(low: i64, high: i64) -> impl Fn(&Entry) -> Result<i64, String> {
    move |entry| match &entry.value {
        Value::Integer(i) if (low..=high).contains(i) => Ok(*i),
        Value::Integer(i) => Err(format!("{i} is out of range")),
        other => Err(format!("is {}, not an integer", other.kind())),
    }
}

/// True or false.
pub fn boolean(entry: &Entry) -> Result<bool, String> {
    match &entry.value {
        Value::Bool(b) => Ok(*b),
        other => Err(format!("is {}, not true or false", other.kind())),
    }
}

/// A list of strings that each mean something.
pub fn list<T>(parse: impl Fn(&str) -> Option<T>) -> impl Fn(&Entry) -> Result<Vec<T>, String> {
    let one = parsed(parse);
    move |entry| match &entry.value {
        Value::List(items) => items.iter().map(&one).collect(),
        other => Err(format!("is {}, not a list", other.kind())),
    }
}

/// A value as it would be written in a profile.
fn show(value: &Value) -> String {
    match value {
        Value::Text(t) => t.clone(),
        Value::Integer(i) => i.to_string(),
        Value::Float(t) | Value::Date(t) => t.clone(),
        Value::Bool(b) => b.to_string(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|i| show(&i.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(fields) => {
            let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k} = {}", show(&v.value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}

pub fn join(path: &str, key: &str) -> String {
    let key = if key.contains('.') { format!("{key:?}") } else { key.into() };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
