//! Addresses in the header of a message, changed in place: nothing but their own bytes is touched.
//!
//! Display names, comments, groups, folding and every field that holds no address stay octet for octet. What cannot be read with
//! certainty (RFC 5322's obsolete forms with blanks inside an address, unbalanced quotes) stays as it is.

use std::ops::Range;

use crate::mail::{Mailbox, header};

/// Fields that hold addresses (RFC 5322 3.6.2, 3.6.3, 3.6.6).
const FIELDS: [&str; 12] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Resent-Reply-To",
];
/// Longest line without its end (RFC 5322 2.1.1).
const LONGEST_LINE: usize = 998;

/// Whether a header's addresses are vouched for: changing them breaks a signature, or parts the sender from its certificate.
pub fn is_signed(body: &[u8]) -> bool {
    let kinds: [&[u8]; 3] = [b"multipart/signed", b"application/pkcs7-mime", b"application/x-pkcs7-mime"];
    header::fields(body).any(|field| {
        let value = body[field.value.clone()].trim_ascii_start();
        let kind = |k: &[u8]| value.get(..k.len()).is_some_and(|v| v.eq_ignore_ascii_case(k));
        field.is("DKIM-Signature") || (field.is("Content-Type") && kinds.into_iter().any(kind))
    })
}

/// The message with what `map` says in place of its header's addresses, and how many; `None` when nothing changes.
pub fn rewritten(body: &[u8], map: &mut dyn FnMut(&Mailbox) -> Option<Mailbox>) -> Option<(Vec<u8>, usize)> {
    let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    let mut changed = 0;
    for field in header::fields(body).filter(|f| FIELDS.iter().any(|name| f.is(name))) {
        let (start, value) = (field.value.start, &body[field.value.clone()]);
        let mut own = Vec::new();
        let mut count = 0;
        for span in addresses(value).unwrap_or_default() {
            let text = |range: &Range<usize>| std::str::from_utf8(&value[range.clone()]).ok();
            let (Some(local), Some(domain)) = (text(&span.local), text(&span.domain)) else { continue };
            let Some(to) = map(&Mailbox::new(format!("{local}@{domain}"))) else { continue };
            for (range, new) in [(span.local, to.local()), (span.domain, to.domain())] {
                if value[range.clone()] != *new.as_bytes() {
                    own.push((start + range.start..start + range.end, new.as_bytes().to_vec()));
                }
            }
            count += 1;
        }
        if lines_fit(body, &field.raw, &own) {
            edits.append(&mut own);
            changed += count;
        }
    }
    (!edits.is_empty()).then(|| (edited(body, 0..body.len(), &edits), changed))
}

/// Where the parts of an address stand.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Span {
    local: Range<usize>,
    domain: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// An atom, or a quoted string.
    Word,
    Literal,
    Special(u8),
}

/// The addresses of a structured value, in order; `None` when it is not one.
fn addresses(value: &[u8]) -> Option<Vec<Span>> {
    let mut found = Vec::new();
    let mut present: Vec<(Kind, Range<usize>)> = Vec::new();
    let (mut inside, mut had_angle) = (false, false);
    let mut at = 0;
    while at < value.len() {
        let Some((kind, range)) = token(value, &mut at)? else { continue };
        match kind {
            Kind::Special(b'<') if inside || had_angle => return None,
            Kind::Special(b'<') => {
                (inside, had_angle) = (true, true);
                present.clear();
            }
            Kind::Special(b'>') if !inside => return None,
            Kind::Special(b'>') => {
                found.extend(address(&present));
                present.clear();
                inside = false;
            }
            // The name of a group, or a source route: neither is an address.
            Kind::Special(b':') => present.clear(),
            Kind::Special(b',') if inside => {}
            Kind::Special(b',' | b';') if inside => return None,
            Kind::Special(b',' | b';') => {
                found.extend(address(&present).filter(|_| !had_angle));
                present.clear();
                had_angle = false;
            }
            Kind::Word | Kind::Literal | Kind::Special(_) => present.push((kind, range)),
        }
    }
    if inside {
        return None;
    }
    found.extend(address(&present).filter(|_| !had_angle));
    Some(found)
}

/// The next token from `at` on; nothing for white space and comments, `None` when the value is malformed.
#[expect(clippy::option_option, reason = "malformed and nothing to see are different things")]
fn token(value: &[u8], at: &mut usize) -> Option<Option<(Kind, Range<usize>)>> {
    let start = *at;
    let first = *value.get(start)?;
    let special =
        |b: u8| matches!(b, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b':' | b';' | b'@' | b'\\' | b',' | b'.' | b'"');
    match first {
        b' ' | b'\t' | b'\r' | b'\n' => {
            *at += 1;
            Some(None)
        }
        b'(' => {
            let mut depth = 0_usize;
            while let Some(b) = value.get(*at) {
                *at += 1;
                match b {
                    b'\\' => *at += 1,
                    b'(' => depth += 1,
                    b')' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return Some(None);
                }
            }
            None
        }
        b'"' => {
            *at = closed(value, start, b'"')?;
            Some(Some((Kind::Word, start..*at)))
        }
        b'[' => {
            *at = closed(value, start, b']')?;
            Some(Some((Kind::Literal, start..*at)))
        }
        b')' | b']' | b'\\' | 0..=31 | 127 => None,
        b if special(b) => {
            *at += 1;
            Some(Some((Kind::Special(b), start..*at)))
        }
        _ => {
            let ends = |b: &u8| special(*b) || matches!(*b, 0..=32 | 127);
            let length = value[start..].iter().position(ends).unwrap_or(value.len() - start);
            *at += length;
            Some(Some((Kind::Word, start..*at)))
        }
    }
}

/// Behind the end of what begins at `start`.
fn closed(value: &[u8], start: usize, end: u8) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match *value.get(at)? {
            b'\\' => at += 2,
            b if b == end => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The address these tokens are, if they are one without anything between.
fn address(tokens: &[(Kind, Range<usize>)]) -> Option<Span> {
    let sign = tokens.iter().position(|(kind, _)| *kind == Kind::Special(b'@'))?;
    let (local, domain) = (&tokens[..sign], tokens.get(sign + 1..)?);
    let dotted = |part: &[(Kind, Range<usize>)]| {
        let kinds = part.iter().enumerate().all(|(i, (kind, _))| match kind {
            Kind::Word => i % 2 == 0,
            Kind::Special(b'.') => i % 2 == 1,
            Kind::Literal | Kind::Special(_) => false,
        });
        kinds && part.len() % 2 == 1
    };
    let close = |part: &[(Kind, Range<usize>)]| part.windows(2).all(|pair| pair[0].1.end == pair[1].1.start);
    let literal = matches!(domain, [(Kind::Literal, _)]);
    if !dotted(local) || !(dotted(domain) || literal) || !close(local) || !close(domain) {
        return None;
    }
    let range = |part: &[(Kind, Range<usize>)]| Some(part.first()?.1.start..part.last()?.1.end);
    Some(Span { local: range(local)?, domain: range(domain)? })
}

fn edited(body: &[u8], within: Range<usize>, edits: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(within.len() + 64);
    let mut at = within.start;
    for (range, new) in edits {
        out.extend_from_slice(&body[at..range.start]);
        out.extend_from_slice(new);
        at = range.end;
    }
    out.extend_from_slice(&body[at..within.end]);
    out
}

fn lines_fit(body: &[u8], raw: &Range<usize>, edits: &[(Range<usize>, Vec<u8>)]) -> bool {
    let line = |line: &[u8]| line.trim_ascii_end().len() <= LONGEST_LINE;
    edits.is_empty() || edited(body, raw.clone(), edits).split(|b| *b == b'\n').all(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swap(from: &'static str, to: &'static str) -> impl FnMut(&Mailbox) -> Option<Mailbox> {
        move |a| a.domain().eq_ignore_ascii_case(from).then(|| Mailbox::new(format!("{}@{to}", a.local())))
    }

    fn message(lines: &str) -> Vec<u8> {
        format!("{}\r\n\r\nTo: body@a.example\r\n", lines.replace('\n', "\r\n")).into_bytes()
    }

    #[test]
    fn only_the_bytes_of_addresses_change() {
        for (before, after, count) in [
            ("From: jack@a.example", "From: jack@bb.example", 1),
            ("to:<jack@A.Example>", "to:<jack@bb.example>", 1),
            (
                "To: \"Smith, Jack <x@a.example>\" <jack@a.example>",
                "To: \"Smith, Jack <x@a.example>\" <jack@bb.example>",
                1,
            ),
            (
                "Cc: a@a.example (me, a@a.example),\n\tB. B <b@a.example>,c@c.example",
                "Cc: a@bb.example (me, a@a.example),\n\tB. B <b@bb.example>,c@c.example",
                2,
            ),
            (
                "To: Crew a: x@a.example, \"y z\"@a.example; , w@a.example",
                "To: Crew a: x@bb.example, \"y z\"@bb.example; , w@bb.example",
                3,
            ),
            (
                "Resent-To: =?utf-8?q?J=40a.example?= <j@a.example>",
                "Resent-To: =?utf-8?q?J=40a.example?= <j@bb.example>",
                1,
            ),
            ("Sender: <@x.example,@y.example:j@a.example>", "Sender: <@x.example,@y.example:j@bb.example>", 1),
            ("From: søren <søren@a.example>", "From: søren <søren@bb.example>", 1),
            ("Reply-To: j @ a.example", "Reply-To: j @ bb.example", 1),
        ] {
            let (got, n) =
                rewritten(&message(before), &mut swap("a.example", "bb.example")).unwrap_or_else(|| panic!("{before}"));
            assert_eq!(
                (String::from_utf8_lossy(&got).into_owned(), n),
                (String::from_utf8_lossy(&message(after)).into_owned(), count)
            );
        }
    }

    #[test]
    fn what_holds_no_certain_address_stays() {
        for header in [
            "Subject: jack@a.example",
            "Message-ID: <1@a.example>",
            "From: jack@a.example.org",
            "From: a. example@a .example",
            "To: \"open <j@a.example>",
            "To: (open j@a.example",
            "To: <j@a.example",
            "To: j@a.example>",
            "To: x y@a.example",
            "To: a@a@a.example",
            "To: back\\slash@a.example",
            "List-Post: <mailto:l@a.example>",
        ] {
            assert_eq!(rewritten(&message(header), &mut swap("a.example", "bb.example")), None, "{header}");
        }
        let long = format!("To: {}@a.example", "x".repeat(990 - 4 - 10));
        assert_eq!(rewritten(&message(&long), &mut swap("a.example", "much.longer.example")), None);
    }

    #[test]
    fn both_parts_of_an_address_change_where_a_rule_says_so() {
        let mut map = |a: &Mailbox| (a.as_str() == "jack@a.example").then(|| Mailbox::new("j.smith@b.example"));
        let (got, n) = rewritten(&message("From: J <jack@a.example>\nTo: x@a.example"), &mut map).expect("changed");
        assert_eq!((got, n), (message("From: J <j.smith@b.example>\nTo: x@a.example"), 1));
    }

    #[test]
    fn signed_mail_is_known_by_its_header() {
        for signed in
            ["DKIM-Signature: v=1", "Content-type: Multipart/Signed; x=y", "Content-Type:\n application/pkcs7-mime"]
        {
            assert!(is_signed(&message(signed)), "{signed}");
        }
        assert!(!is_signed(&message("Content-Type: multipart/mixed\nX-DKIM-Signature: 1")));
    }

    proptest::proptest! {
        /// Whatever stands in the header: bytes outside of addresses stay, and inverse rules give the message back.
        #[test]
        fn in_and_out_by_inverse_rules_is_the_same_message(
            names in proptest::collection::vec(proptest::sample::select(vec!["From", "To", "Cc", "Subject", "Resent-To", "X-To"]), 1..4),
            values in proptest::collection::vec("([ ,;:<>@.\"()\\\\a-c]|a@a\\.b|\r\n |<c@a\\.b>|\"x\" |é){0,24}", 4),
        ) {
            let header: String = names.iter().zip(&values).map(|(n, v)| format!("{n}:{v}\r\n")).collect();
            let message = format!("{header}\r\nTo: c@a.b\r\n").into_bytes();
            let there = rewritten(&message, &mut swap("a.b", "inner.test"));
            if let Some((there, n)) = there {
                let added = n * ("inner.test".len() - "a.b".len());
                assert_eq!(there.len(), message.len() + added);
                assert_eq!(String::from_utf8_lossy(&there).replace("inner.test", "a.b").into_bytes(), message);
                let (back, m) = rewritten(&there, &mut swap("inner.test", "a.b")).expect("changed");
                assert_eq!((back, m), (message, n));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::sample::select(b"To: <>@,;\"\\()[]\r\n a.b\xc3\x00".to_vec()), 0..300)) {
            let body = [b"To: ".as_slice(), &bytes].concat();
            let _ = rewritten(&body, &mut swap("a.b", "c.d"));
            let _ = is_signed(&body);
        }
    }
}
