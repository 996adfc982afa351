//! What each section of a message costs, and what it would have cost otherwise.
//!
//! `aldis codec explain` prints this. The payload explained is the very one that [`payload::encode`] makes. Text is coded as one: the cost of
//! a section of it is what the payload of everything up to its end is longer than that up to its beginning.

use super::parts::{self, Allowance, Mark, Outline};
use super::payload::{self, Options};

/// Sections of a text that are told apart; the last takes the rest.
const MAX_SECTIONS: usize = 24;

/// A payload taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// How it is coded.
    pub coding: String,
    /// What the message costs in one piece, by coding, the payload's own left out.
    pub otherwise: Vec<Cost>,
    /// What the payload consists of; their sum is its length.
    pub sections: Vec<Section>,
}

/// A coding and its length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cost {
    /// In words.
    pub coding: String,
    /// In bytes.
    pub bytes: usize,
}

/// A part of a message and of its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// What it is.
    pub name: String,
    /// Its bytes before it is coded, without transfer encoding.
    pub bytes: usize,
    /// Its bytes in the payload.
    pub coded_bytes: usize,
    /// How it is coded; empty where it says how others are.
    pub coding: String,
    /// What it costs otherwise, the shortest first; of text nothing, as it is coded as one.
    pub otherwise: Vec<Cost>,
}

/// Explains the payload of an envelope and a body.
pub fn explain(envelope: &[u8], body: &[u8], options: &Options<'_>) -> Explained {
    let coded = payload::encode(envelope, body, options);
    let first = coded.first().copied().unwrap_or_default();
    let outline = coded.get(1..).filter(|_| payload::is_pieces(first)).and_then(|coded| parts::outline(body, coded));
    let mut sections = Vec::new();
    match &outline {
        None => text_sections(envelope, body, &[], &coded, options, &mut sections),
        Some(Outline { text, marks, parts, coded_text }) => {
            text_sections(envelope, text, marks, coded_text, options, &mut sections);
            let names =
                marks.iter().filter(|(_, _, mark)| *mark == Mark::Part).map(|(start, ..)| kind_of(&text[..*start]));
            for (number, ((content, part), kind)) in parts.iter().zip(names).enumerate() {
                let first = part.first().copied().unwrap_or_default();
                let mut coding = payload::coding(first);
                if let Some((streams, pictures)) =
                    payload::is_file(first).then(|| parts::count_pieces(&part[1..])).flatten()
                {
                    coding = format!("{coding}: {streams} deflate streams, {pictures} pictures");
                }
                let otherwise = costs(&[], content, options, &coding);
                let name = format!("part {}{kind}", number + 1);
                sections.push(Section { name, bytes: content.len(), coded_bytes: part.len(), coding, otherwise });
            }
            let rest = coded.len() - sections.iter().map(|s| s.coded_bytes).sum::<usize>();
            sections.push(Section {
                name: "how the pieces fit".into(),
                bytes: 0,
                coded_bytes: rest,
                coding: String::new(),
                otherwise: Vec::new(),
            });
        }
    }
    let coding = payload::coding(first);
    let otherwise = costs(envelope, body, options, &coding);
    Explained { payload_bytes: coded.len(), coding, otherwise, sections }
}

/// What bytes cost in one piece, the shortest first.
fn costs(envelope: &[u8], body: &[u8], options: &Options<'_>, chosen: &str) -> Vec<Cost> {
    let mut costs: Vec<Cost> = Vec::new();
    payload::encode_observed(envelope, body, options, &mut Allowance::whole(), &mut |first, bytes| {
        costs.push(Cost { coding: payload::coding(first), bytes });
    });
    if let Some(bytes) = parts::deflated_bytes(body) {
        costs.push(Cost { coding: "deflate, as MULE".into(), bytes });
    }
    costs.retain(|cost| cost.coding != chosen);
    costs.sort_by_key(|cost| cost.bytes);
    costs
}

fn text_sections(
    envelope: &[u8],
    text: &[u8],
    marks: &[(usize, usize, Mark)],
    coded: &[u8],
    options: &Options<'_>,
    sections: &mut Vec<Section>,
) {
    let coding = payload::coding(coded.first().copied().unwrap_or_default());
    let mut before = 0;
    let mut section = |name: &str, bytes: usize, upto: usize| {
        // The whole is known: the last section ends where the payload does.
        let cost = match upto == text.len() {
            true => coded.len(),
            false => payload::encode_text(envelope, &text[..upto], options, &mut Allowance::whole()).len(),
        };
        if bytes > 0 || cost > before {
            // A longer text may cost less where another codec takes over.
            let coded_bytes = cost.saturating_sub(before);
            sections.push(Section {
                name: name.into(),
                bytes,
                coded_bytes,
                coding: coding.clone(),
                otherwise: Vec::new(),
            });
            before = before.max(cost);
        }
    };
    if text.is_empty() {
        section("envelope", envelope.len(), 0);
        return;
    }
    section("envelope", envelope.len(), 0);
    let end = |line_end: &[u8]| text.windows(line_end.len()).position(|w| w == line_end).map(|at| at + line_end.len());
    let mut at = end(b"\r\n\r\n").into_iter().chain(end(b"\n\n")).min().unwrap_or(0);
    section("header", at, at);
    for (start, end, mark) in marks.iter().take((MAX_SECTIONS - 2) / 2) {
        let name = match mark {
            Mark::Base64 => "text, was base64",
            Mark::Quoted => "text, was quoted-printable",
            Mark::Verbatim | Mark::Part => continue,
        };
        if *start > at {
            section("text and part headers", start - at, *start);
        }
        section(&format!("{name}{}", kind_of(&text[..*start])), end - start, *end);
        at = *end;
    }
    if text.len() > at {
        section("text and part headers", text.len() - at, text.len());
    }
}

/// The Content-Type in the last lines of `before`, in brackets.
fn kind_of(before: &[u8]) -> String {
    let name = b"content-type:";
    let lines: Vec<&[u8]> = before.rsplit(|b| *b == b'\n').take(32).collect();
    let value = lines.iter().find_map(|line| match line.split_at_checked(name.len()) {
        Some((field, value)) if field.eq_ignore_ascii_case(name) => Some(value),
        _ => None,
    });
    let kind: String = value
        .unwrap_or_default()
        .iter()
        .take(80)
        .map(|b| char::from(*b))
        .take_while(|c| *c != ';')
        .filter(char::is_ascii_graphic)
        .collect();
    if kind.is_empty() { kind } else { format!(" ({kind})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_of_a_payload_add_up_to_it() {
        let pieces = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\
            Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe an alle, die diese Nachricht lesen k=C3=B6nnen\r\n--b\r\n\
            Content-Type: application/x-thing; name=t\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            x7Jt9yPfqJb1QmW3o5u8xW0Fz0b2y1mXw0cVQ6v1kq0J3n5o2sTj4g8hZr9eYdUa\r\n--b--\r\n";
        for (body, expected) in [
            (
                &pieces[..],
                [
                    "envelope",
                    "header",
                    "text and part headers",
                    "text, was quoted-printable (text/plain)",
                    "text and part headers",
                    "part 1 (application/x-thing)",
                    "how the pieces fit",
                ]
                .as_slice(),
            ),
            (b"Subject: x\r\n\r\nWords and more words.\r\n", &["envelope", "header", "text and part headers"]),
            (b"", &["envelope"]),
        ] {
            let explained = explain(b"an envelope", body, &Options::default());
            assert_eq!(explained.payload_bytes, payload::encode(b"an envelope", body, &Options::default()).len());
            assert_eq!(explained.sections.iter().map(|s| s.coded_bytes).sum::<usize>(), explained.payload_bytes);
            let names: Vec<&str> = explained.sections.iter().map(|s| s.name.as_str()).collect();
            assert_eq!(names, expected);
            assert!(explained.otherwise.iter().any(|cost| cost.coding == "deflate, as MULE"));
            assert!(explained.otherwise.iter().all(|cost| cost.coding != explained.coding));
        }
    }
}
