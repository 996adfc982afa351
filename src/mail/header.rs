//! The header as offsets into the original bytes, and the few facts the queue takes from it.
//!
//! Nothing here alters or copies a message: a [`Field`] is two ranges. Accept, the SMTP session and the DSN writer call it.
//! Clauses: RFC 5322 section 2.2 (fields and folding), RFC 6477 (MMHS precedence), RFC 6758 (MT-Priority).

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Mailbox, MtPriority, Precedence};

/// A header longer than this is not scanned further; what lies beyond counts as body.
pub const MAX_HEADER_BYTES: usize = 1 << 20;
/// Addresses taken from all To or all Cc fields of one message.
const MAX_ADDRESSES: usize = 10_000;
/// A structured value longer than this is treated as malformed.
const MAX_VALUE_BYTES: usize = 1000;
/// Nested comments deeper than this are malformed.
const MAX_COMMENT_DEPTH: usize = 16;

/// One header field, by offsets into the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// Its name as written, without white space before the colon.
    pub name: &'a str,
    /// The whole field: name to the CRLF of its last line, included.
    pub raw: Range<usize>,
    /// What follows the colon, folding kept, without the last CRLF.
    pub value: Range<usize>,
}

impl Field<'_> {
    /// Whether this is the field `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Iterator over the fields of a message; see [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    body: &'a [u8],
    at: usize,
}

/// The header fields of `body` in order. A line that is no field is passed over with its continuation lines, so that one
/// broken line does not hide what stands below it; the empty line, or [`MAX_HEADER_BYTES`], ends the header.
pub fn fields(body: &[u8]) -> Fields<'_> {
    Fields { body: &body[..body.len().min(MAX_HEADER_BYTES)], at: 0 }
}

/// Offset of the body proper: just behind the empty line, or the end when there is none.
pub fn header_end(body: &[u8]) -> usize {
    let mut at = 0;
    while at < body.len() {
        let end = line_end(body, at);
        if body[at..end] == *b"\r\n" {
            return end;
        }
        at = end;
    }
    body.len()
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let start = self.at;
            if start >= self.body.len() || self.body[start..].starts_with(b"\r\n") {
                return None;
            }
            let mut end = line_end(self.body, start);
            while matches!(self.body.get(end), Some(b' ' | b'\t')) {
                end = line_end(self.body, end);
            }
            self.at = end;
            if let Some(field) = field_at(self.body, start, end) {
                return Some(field);
            }
        }
    }
}

/// The value of the only field called `name`; `None` when there is none or more than one.
fn only<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut found = fields(body).filter(|f| f.is(name));
    let field = found.next()?;
    found.next().is_none().then(|| &body[field.value])
}

/// The message's id with its angle brackets, from the first Message-ID field that holds one.
pub fn message_id(body: &[u8]) -> Option<String> {
    let field = fields(body).find(|f| f.is("Message-ID"))?;
    let value = String::from_utf8_lossy(&body[field.value]);
    let from = value.find('<')?;
    let to = from + value[from..].find('>')?;
    let id: String = value[from..=to].chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    (id.len() > 2 && id.len() <= MAX_VALUE_BYTES).then_some(id)
}

/// A number of RFC 6477: 0..=5 named levels, 6..=15 more of NATO's, 16..=31 national.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MmhsPrecedence(u8);

impl MmhsPrecedence {
    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The level of service: NATO numbers above 5 are served as the top level, national ones as ROUTINE.
    pub const fn level(self) -> Precedence {
        match Precedence::from_rank(self.0) {
            Some(level) => level,
            None if self.0 <= 15 => Precedence::Override,
            None => Precedence::Routine,
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let text = bare(value)?;
        if let Some(level) = Precedence::parse(&text) {
            return Some(Self(level.rank()));
        }
        let digits = text.as_bytes();
        let strict = match digits {
            [_] => true,
            [first, _] => *first != b'0',
            _ => false,
        };
        if !strict || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        text.parse().ok().filter(|n| *n <= 31).map(Self)
    }
}

/// MMHS-Primary-Precedence: what To recipients get. Absent, twice or malformed is `None`.
pub fn mmhs_primary_precedence(body: &[u8]) -> Option<MmhsPrecedence> {
    MmhsPrecedence::parse(only(body, "MMHS-Primary-Precedence")?)
}

/// MMHS-Copy-Precedence: what all others get. Absent, twice or malformed is `None`.
pub fn mmhs_copy_precedence(body: &[u8]) -> Option<MmhsPrecedence> {
    MmhsPrecedence::parse(only(body, "MMHS-Copy-Precedence")?)
}

/// The MT-Priority field, when there is exactly one and it is valid.
pub fn mt_priority_field(body: &[u8]) -> Option<MtPriority> {
    MtPriority::parse(&bare(only(body, "MT-Priority")?)?)
}

/// Received fields, for the loop limit.
pub fn received_count(body: &[u8]) -> usize {
    fields(body).filter(|f| f.is("Received")).count()
}

/// Whether a field `name` says just `value`, in any case.
pub fn is_marked(body: &[u8], name: &str, value: &str) -> bool {
    fields(body).any(|f| f.is(name) && body[f.value].trim_ascii().eq_ignore_ascii_case(value.as_bytes()))
}

/// The form in which [`recipients_in`] lists an address: local part kept, domain in lower case.
pub fn canonical(address: &Mailbox) -> String {
    match address.as_str().rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => address.as_str().to_string(),
    }
}

/// The addresses of every `name` field (To, Cc), each as [`canonical`] prints it. Display names, comments and group names
/// are passed over; what cannot be read is left out.
pub fn recipients_in(body: &[u8], name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for field in fields(body).filter(|f| f.is(name)) {
        addresses(&String::from_utf8_lossy(&body[field.value]), &mut found);
    }
    found
}

fn addresses(text: &str, found: &mut BTreeSet<String>) {
    let (mut plain, mut angle) = (String::new(), None::<String>);
    let (mut inside, mut quoted, mut escaped, mut depth) = (false, false, false, 0_usize);
    for c in text.chars().chain([',']) {
        if found.len() >= MAX_ADDRESSES {
            return;
        }
        let take = if escaped {
            escaped = false;
            depth == 0
        } else if quoted || depth > 0 {
            match c {
                '\\' => escaped = true,
                '"' if quoted => quoted = false,
                '(' if depth > 0 => depth += 1,
                ')' if depth > 0 => depth -= 1,
                _ => {}
            }
            quoted || (depth == 0 && c != ')')
        } else {
            match c {
                '"' => quoted = true,
                '(' => depth = 1,
                '<' => (inside, angle) = (true, Some(String::new())),
                '>' => inside = false,
                ':' if !inside => plain.clear(),
                ',' | ';' if !inside => {
                    let address = angle.take().unwrap_or_else(|| std::mem::take(&mut plain));
                    plain.clear();
                    if address.contains('@') {
                        found.insert(canonical(&Mailbox::new(address)));
                    }
                }
                _ => {}
            }
            !c.is_whitespace() && depth == 0 && (!matches!(c, '<' | '>' | ',' | ';' | ':') || (inside && c != '<'))
        };
        if take {
            match &mut angle {
                Some(a) if inside => a.push(c),
                Some(_) => {}
                None => plain.push(c),
            }
        }
    }
}

/// A structured value without comments, folding and outer white space.
fn bare(value: &[u8]) -> Option<String> {
    if value.len() > MAX_VALUE_BYTES {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    let (mut out, mut depth, mut escaped) = (String::new(), 0_usize, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if depth > 0 => escaped = true,
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            '\r' | '\n' => {}
            _ if depth == 0 => out.push(c),
            _ => {}
        }
        if depth > MAX_COMMENT_DEPTH {
            return None;
        }
    }
    (depth == 0).then(|| out.trim_matches([' ', '\t']).to_string())
}

/// Offset behind the CRLF of the line that starts at `at`, or the end.
fn line_end(body: &[u8], at: usize) -> usize {
    let mut from = at;
    while let Some(lf) = body[from..].iter().position(|b| *b == b'\n') {
        let lf = from + lf;
        if lf > at && body[lf - 1] == b'\r' {
            return lf + 1;
        }
        from = lf + 1;
    }
    body.len()
}

fn field_at(body: &[u8], start: usize, end: usize) -> Option<Field<'_>> {
    let line = &body[start..end];
    let colon = line.iter().position(|b| *b == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?.trim_end_matches([' ', '\t']);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let close = if line.ends_with(b"\r\n") { end - 2 } else { end };
    Some(Field { name, raw: start..end, value: (start + colon + 1).min(close)..close })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(lines: &str) -> Vec<u8> {
        format!("{}\r\n\r\nText\r\n", lines.replace('\n', "\r\n")).into_bytes()
    }

    #[test]
    fn fields_cover_the_header_byte_for_byte() {
        let body = with("Subject: one\n two\nX-Empty:\nnot a field\n but folded\nFrom : a@b");
        let all: Vec<_> = fields(&body).collect();
        let names: Vec<_> = all.iter().map(|f| f.name).collect();
        assert_eq!(names, ["Subject", "X-Empty", "From"]);
        assert_eq!(&body[all[0].raw.clone()], b"Subject: one\r\n two\r\n");
        assert_eq!(&body[all[0].value.clone()], b" one\r\n two");
        assert_eq!(&body[all[1].value.clone()], b"");
        assert_eq!(&body[all[2].value.clone()], b" a@b");
        assert_eq!(&body[header_end(&body)..], b"Text\r\n");
    }

    #[test]
    fn odd_ends_do_not_confuse_the_scanner() {
        assert_eq!(fields(b"").count(), 0);
        assert_eq!(fields(b"\r\nSubject: x\r\n").count(), 0);
        assert_eq!(fields(b"Subject: x").count(), 1);
        assert_eq!(fields(b"Subject:").next().map(|f| f.value), Some(8..8));
        assert_eq!(fields(b":\r\n").count(), 0);
        assert_eq!(header_end(b"Subject: x"), 10);
        assert_eq!(header_end(b"\r\nText"), 2);
        // A bare line feed does not end a line, so nothing can be slipped in behind one.
        assert_eq!(fields(b"Subject: x\nMT-Priority: 6\r\n\r\n").count(), 1);
    }

    #[test]
    fn message_id_is_found_unfolded() {
        assert_eq!(message_id(&with("Message-Id:\n <a.1@ship.example> (x)")).as_deref(), Some("<a.1@ship.example>"));
        assert_eq!(message_id(&with("Message-ID: nothing")), None);
        assert_eq!(message_id(&with("Subject: <a@b>")), None);
    }

    #[test]
    fn mmhs_precedence_vectors() {
        let primary = |v: &str| mmhs_primary_precedence(&with(&format!("mmhs-primary-precedence:{v}")));
        for (value, number) in [
            (" 0 (Deferred)", Some(0)),
            (" FLASH", Some(4)),
            (" 7", Some(7)),
            (" 04", None),
            (" urgent", None),
            (" 2 (flash)", Some(2)),
            ("\n\t(a (nested) note) Immediate", Some(3)),
            (" 31", Some(31)),
            (" 32", None),
            (" 4 4", None),
            (" 4 (open", None),
            ("", None),
        ] {
            assert_eq!(primary(value).map(MmhsPrecedence::get), number, "{value:?}");
        }
        assert_eq!(mmhs_copy_precedence(&with("MMHS-Copy-Precedence: 2 (flash)")).map(MmhsPrecedence::get), Some(2));
        let twice = with("MMHS-Primary-Precedence: 4\nMMHS-Primary-Precedence: 4");
        assert_eq!(mmhs_primary_precedence(&twice), None);
    }

    #[test]
    fn mmhs_numbers_beyond_the_named_ones_have_a_level() {
        for (number, level) in [
            (3, Precedence::Immediate),
            (6, Precedence::Override),
            (15, Precedence::Override),
            (16, Precedence::Routine),
        ] {
            assert_eq!(MmhsPrecedence(number).level(), level);
        }
    }

    #[test]
    fn mt_priority_field_counts_only_once_and_valid() {
        let of = |lines: &str| mt_priority_field(&with(lines)).map(MtPriority::get);
        assert_eq!(of("MT-Priority: -3 (low)"), Some(-3));
        assert_eq!(of("mt-priority: 6"), Some(6));
        assert_eq!(of("MT-Priority: +3"), None);
        assert_eq!(of("MT-Priority: 3\nMT-Priority: 3"), None);
        assert_eq!(of("X: 1"), None);
    }

    #[test]
    fn recipients_are_read_from_all_forms_of_address_lists() {
        let body = with(
            "To: REDBASE COMMAND <cdr@REDBASE.example>, plain@x.example (note, <no@x>),\n \"q, s\"@x.example\nCc: Group: a@y.example, B <b@y.example>;, \"Last, First\" <c@y.example>",
        );
        let to: Vec<_> = recipients_in(&body, "To").into_iter().collect();
        assert_eq!(to, ["\"q, s\"@x.example", "cdr@redbase.example", "plain@x.example"].map(String::from));
        let cc: Vec<_> = recipients_in(&body, "cc").into_iter().collect();
        assert_eq!(cc, ["a@y.example", "b@y.example", "c@y.example"].map(String::from));
    }

    #[test]
    fn received_fields_are_counted() {
        assert_eq!(received_count(&with("Received: a\nReceived: b\n folded\nSubject: Received: c")), 2);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_scan_without_panic_and_in_bounds(body in proptest::collection::vec(proptest::sample::select(b"a:<>@,;\"\\()\r\n \t\xc3".to_vec()), 0..200)) {
            let mut last = 0;
            for f in fields(&body) {
                assert!(f.raw.start >= last && f.raw.end <= body.len());
                assert!(f.value.start > f.raw.start && f.value.end <= f.raw.end);
                last = f.raw.end;
            }
            recipients_in(&body, "a");
            message_id(&body);
            assert!(header_end(&body) <= body.len());
        }
    }
}
