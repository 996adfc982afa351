//! Where the parts of a message stand: a tree of byte ranges, found strictly.
//!
//! [`super`] cuts by these ranges, so a message whose structure could be read in two ways has none: boundary lines that are not closed,
//! come again behind the end or do not stand between whole line ends, two Content-Type fields in one header, more than 512 parts or 16
//! levels. Attached messages are not entered. Everything is bounded by the size of the message times its depth.

use std::ops::Range;

use mail_parser::{MessageParser, MimeHeaders};

use crate::mail::header;

/// Multiparts within one another.
const MAX_DEPTH: usize = 16;
/// Parts of one message, multiparts included.
const MAX_PARTS: usize = 512;
/// Longest header of a part.
const MAX_HEADER: usize = 64 * 1024;
/// Longest boundary (RFC 2046 allows 70).
const MAX_BOUNDARY: usize = 200;

/// One part, or the message itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// From the line that begins it to the next one of its multipart; the whole message for the message itself.
    pub span: Range<usize>,
    /// Header, empty line and content, without the line end before the next boundary.
    pub whole: Range<usize>,
    /// Its content.
    pub content: Range<usize>,
    /// Type and subtype in lower case.
    pub media: String,
    /// Its file name, decoded.
    pub name: Option<String>,
    /// It calls itself an attachment.
    pub attached: bool,
    /// Others may refer to it.
    pub has_id: bool,
    /// Its content is in base64.
    pub base64: bool,
    /// What it consists of, if it is a multipart.
    pub parts: Vec<Part>,
    /// Its number among the parts that are no multiparts, from 1, in the order they stand in; 0 for a multipart.
    pub number: usize,
}

impl Part {
    /// Whether it consists of others.
    pub fn is_multipart(&self) -> bool {
        self.number == 0
    }

    /// The parts below it that are no multiparts, or it alone if it is none.
    pub fn leaves(&self) -> Vec<&Part> {
        match self.is_multipart() {
            true => self.parts.iter().flat_map(Self::leaves).collect(),
            false => vec![self],
        }
    }

    /// It and all below it.
    pub fn all(&self) -> Vec<&Part> {
        std::iter::once(self).chain(self.parts.iter().flat_map(Self::all)).collect()
    }

    /// Bytes of what it holds, without its transfer encoding.
    pub fn size(&self, message: &[u8]) -> u64 {
        let content = &message[self.content.clone()];
        let bytes = match self.base64 {
            true => content.iter().filter(|b| !b.is_ascii_whitespace() && **b != b'=').count() * 3 / 4,
            false => content.len(),
        };
        bytes as u64
    }
}

/// The message as a tree; `None` where its structure is not beyond doubt.
pub(super) fn read(message: &[u8]) -> Option<Part> {
    let mut reader = Reader { message, parts: 0, leaves: 0 };
    reader.part(0..message.len(), 0..message.len(), 0)
}

struct Reader<'m> {
    message: &'m [u8],
    parts: usize,
    leaves: usize,
}

impl Reader<'_> {
    fn part(&mut self, span: Range<usize>, whole: Range<usize>, depth: usize) -> Option<Part> {
        self.parts += 1;
        if self.parts > MAX_PARTS || depth > MAX_DEPTH {
            return None;
        }
        let bytes = &self.message[whole.clone()];
        let head = &bytes[..header::header_end(bytes)];
        if depth > 0 && head.len() > MAX_HEADER {
            return None;
        }
        let facts = Facts::read(head)?;
        let content = whole.start + head.len()..whole.end;
        let mut part = Part {
            span,
            whole,
            content,
            media: facts.media,
            name: facts.name,
            attached: facts.attached,
            has_id: facts.has_id,
            base64: facts.base64,
            parts: Vec::new(),
            number: 0,
        };
        match facts.boundary {
            Some(boundary) => part.parts = self.parts(&part.content, &boundary, depth)?,
            None => {
                self.leaves += 1;
                part.number = self.leaves;
            }
        }
        Some(part)
    }

    fn parts(&mut self, content: &Range<usize>, boundary: &str, depth: usize) -> Option<Vec<Part>> {
        let lines = delimiters(self.message, content, boundary)?;
        let (last, all) = lines.split_last()?;
        if !last.closes || all.is_empty() || all.iter().any(|line| line.closes) {
            return None;
        }
        let mut parts = Vec::new();
        for (line, next) in lines.iter().zip(&lines[1..]) {
            // The line end before a boundary belongs to the boundary.
            let end = next.at.start.saturating_sub(2).max(line.at.end);
            parts.push(self.part(line.at.start..next.at.start, line.at.end..end, depth + 1)?);
        }
        Some(parts)
    }
}

struct Delimiter {
    at: Range<usize>,
    closes: bool,
}

/// The boundary lines of one multipart; `None` where one does not stand between whole line ends.
fn delimiters(message: &[u8], content: &Range<usize>, boundary: &str) -> Option<Vec<Delimiter>> {
    let mut found = Vec::new();
    let mut start = content.start;
    while start < content.end {
        let rest = &message[start..content.end];
        let end = rest.iter().position(|b| *b == b'\n').map_or(content.end, |n| start + n + 1);
        let line = &message[start..end];
        let own = line.strip_prefix(b"--").and_then(|l| l.strip_prefix(boundary.as_bytes()));
        if let Some(tail) = own {
            let (closes, tail) = tail.strip_prefix(b"--").map_or((false, tail), |tail| (true, tail));
            if tail.iter().all(u8::is_ascii_whitespace) {
                let begins = start == content.start || message[..start].ends_with(b"\r\n");
                let ends = line.ends_with(b"\r\n") || closes && end == content.end && !line.ends_with(b"\n");
                if !begins || !ends || found.len() > MAX_PARTS {
                    return None;
                }
                found.push(Delimiter { at: start..end, closes });
            }
        }
        start = end;
    }
    Some(found)
}

/// What a part's header says of it.
struct Facts {
    media: String,
    name: Option<String>,
    attached: bool,
    has_id: bool,
    base64: bool,
    boundary: Option<String>,
}

impl Facts {
    fn read(head: &[u8]) -> Option<Self> {
        let times = |name: &str| header::fields(head).filter(|f| f.is(name)).count();
        if times("Content-Type") > 1 || times("Content-Transfer-Encoding") > 1 || times("Content-Disposition") > 1 {
            return None;
        }
        let plain = "text/plain".to_owned();
        let mut facts =
            Self { media: plain, name: None, attached: false, has_id: false, base64: false, boundary: None };
        let Some(parsed) = MessageParser::new().parse_headers(head) else { return Some(facts) };
        let part = parsed.parts.first()?;
        if let Some(kind) = part.content_type() {
            facts.media = format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("")).to_ascii_lowercase();
            facts.boundary = kind.attribute("boundary").map(str::to_owned);
        } else if times("Content-Type") > 0 {
            return None;
        }
        // Only a multipart has parts, and one without a boundary has none that could be found.
        match facts.media.starts_with("multipart/") {
            true => facts.boundary = Some(facts.boundary.filter(|b| !b.is_empty() && b.len() <= MAX_BOUNDARY)?),
            false => facts.boundary = None,
        }
        facts.name = part.attachment_name().map(str::to_owned);
        facts.attached = part.content_disposition().is_some_and(|d| d.ctype().eq_ignore_ascii_case("attachment"));
        facts.has_id = part.content_id().is_some();
        facts.base64 = part.content_transfer_encoding().is_some_and(|e| e.eq_ignore_ascii_case("base64"));
        Some(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(part: &Part) -> String {
        match part.is_multipart() {
            true => format!("{}({})", part.media, part.parts.iter().map(shape).collect::<Vec<_>>().join(" ")),
            false => format!("{}:{}", part.number, part.media),
        }
    }

    const NESTED: &str = "Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\npreamble\r\n--b\r\n\
        Content-Type: multipart/alternative;\r\n boundary=bb\r\n\r\n--bb\r\n\r\nplain\r\n--bb\r\nContent-Type: TEXT/HTML\r\n\r\n\
        <p>\r\n--bb--\r\n\r\n--b  \r\nContent-Type: application/pdf; name*=utf-8''%C3%A5.pdf\r\n\
        Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\nQUJDRA==\r\n\r\n--b\r\n\
        Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny\r\n--b--\r\nepilogue\r\n";

    #[test]
    fn the_tree_is_found_with_the_ranges_of_its_parts() {
        let tree = read(NESTED.as_bytes()).expect("sound");
        assert_eq!(
            shape(&tree),
            "multipart/mixed(multipart/alternative(1:text/plain 2:text/html) 3:application/pdf 4:message/rfc822)"
        );
        let leaves = tree.leaves();
        let text: Vec<&str> = leaves.iter().map(|l| &NESTED[l.content.clone()]).collect();
        assert_eq!(text, ["plain", "<p>", "QUJDRA==\r\n", "Subject: x\r\n\r\ny"]);
        assert_eq!(leaves[2].name.as_deref(), Some("\u{e5}.pdf"));
        assert!(leaves[2].attached && leaves[2].base64 && leaves[2].size(NESTED.as_bytes()) == 4);
        assert!(NESTED[leaves[1].span.clone()].starts_with("--bb\r\nContent-Type: TEXT"));
        assert!(NESTED[leaves[1].span.end..].starts_with("--bb--"));
    }

    #[test]
    fn what_is_no_multipart_is_one_part() {
        for text in ["", "\r\n", "no header", "Subject: x\r\n\r\nbody\r\n", "Content-Type: image/png\r\n\r\n--b\r\n"] {
            let tree = read(text.as_bytes()).expect("one part");
            assert_eq!((tree.number, tree.leaves().len(), tree.whole.clone()), (1, 1, 0..text.len()), "{text:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_has_no_structure() {
        let of = |kind: &str, body: &str| read(format!("Content-Type: {kind}\r\n\r\n{body}").as_bytes());
        let mixed = "multipart/mixed; boundary=b";
        assert!(of(mixed, "--b\r\n\r\nx\r\n--b--").is_some());
        for body in [
            "",
            "--b--\r\n",
            "--b\r\n\r\nx\r\n",
            "--b\r\n\r\nx\n--b--\r\n",
            "--b\n\r\nx\r\n--b--\r\n",
            "--b\r\n\r\nx\r\n--b--\r\n--b\r\n\r\ny\r\n",
            "--b\r\n\r\nx\r\n--b--\r\n--b--\r\n",
            "--b\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx\r\n--b--\r\n",
            "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--b--\r\n",
        ] {
            assert_eq!(of(mixed, body), None, "{body:?}");
        }
        assert_eq!(of("multipart/mixed", "--b\r\n\r\nx\r\n--b--\r\n"), None);
        let parts = "--b\r\n\r\nx\r\n".repeat(MAX_PARTS + 1);
        assert_eq!(of(mixed, &format!("{parts}--b--\r\n")), None);
        let mut deep = "\r\nx".to_owned();
        for level in (0..MAX_DEPTH + 2).rev() {
            let inner = format!("--l{level}\r\n{deep}\r\n--l{level}--\r\n");
            deep = format!("Content-Type: multipart/mixed; boundary=l{level}\r\n\r\n{inner}");
        }
        assert_eq!(read(deep.as_bytes()), None);
    }
}
