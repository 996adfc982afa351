//! Where a message carries bodies in a transfer encoding.
//!
//! [`super`] calls [`places`] on the message and, at the far end, on what is left of it once these bodies are decoded or taken out. Both
//! yield the same places in the same order, because nothing but the boundary lines of enclosing multiparts ends a body, whatever
//! stands in it. That is why no escape is needed in the text and no position is sent.

/// Multiparts within one another that are followed; what is deeper is text.
const MAX_DEPTH: usize = 16;
/// Bodies found at most; what comes after is text.
pub(super) const MAX_PLACES: usize = 512;
/// Longest field value looked at.
const MAX_VALUE: usize = 1024;

/// How a part's header says its body is coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    Base64,
    QuotedPrintable,
    /// Not coded, and no text either (RFC 3030).
    Binary,
}

/// A coded body: `start..end` holds it and the line end before the next boundary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub start: usize,
    pub end: usize,
    pub coding: Coding,
}

/// The coded bodies of a message, in order.
pub(super) fn places(message: &[u8]) -> Vec<Place> {
    let mut found = Vec::new();
    let mut boundaries: Vec<Vec<u8>> = Vec::new();
    let mut at = 0;
    while found.len() < MAX_PLACES {
        let header = Header::read(message, at, &boundaries);
        let body = header.end;
        match header.kind {
            // The embedded message's header follows at once.
            Kind::Message if header.coding.is_none() && body > at && body < message.len() => {
                at = body;
                continue;
            }
            Kind::Multipart(boundary) if boundaries.len() < MAX_DEPTH => boundaries.push(boundary),
            _ => {}
        }
        let end = delimiter(message, body, &boundaries);
        if let Some(coding) = header.coding {
            found.push(Place { start: body, end: end.as_ref().map_or(message.len(), |d| d.start), coding });
        }
        // Past closed multiparts and their epilogues to the next part's header.
        let Some(mut line) = end else { break };
        loop {
            boundaries.truncate(line.depth + usize::from(!line.closes));
            if !line.closes {
                break;
            }
            match delimiter(message, line.end, &boundaries) {
                Some(next) => line = next,
                None => return found,
            }
        }
        at = line.end;
    }
    found
}

enum Kind {
    Leaf,
    Message,
    Multipart(Vec<u8>),
}

struct Header {
    kind: Kind,
    coding: Option<Coding>,
    /// Where the body begins.
    end: usize,
}

impl Header {
    fn read(message: &[u8], from: usize, boundaries: &[Vec<u8>]) -> Self {
        let (mut content_type, mut encoding) = (Vec::new(), Vec::new());
        let mut at = from;
        let mut field: Option<&mut Vec<u8>> = None;
        while at < message.len() {
            let end = line_end(message, at);
            let line = trimmed(&message[at..end]);
            if matches(line, boundaries).is_some() {
                break;
            }
            at = end;
            if line.is_empty() {
                break;
            }
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                if let Some(value) = &mut field
                    && value.len() + line.len() <= MAX_VALUE
                {
                    value.extend_from_slice(line);
                }
                continue;
            }
            let named = |name: &[u8]| match line.split_at_checked(name.len()) {
                Some((start, value)) if start.eq_ignore_ascii_case(name) => {
                    Some(value.get(..MAX_VALUE).unwrap_or(value))
                }
                _ => None,
            };
            field = if let Some(value) = named(b"content-type:") {
                content_type = value.to_vec();
                Some(&mut content_type)
            } else if let Some(value) = named(b"content-transfer-encoding:") {
                encoding = value.to_vec();
                Some(&mut encoding)
            } else {
                None
            };
        }
        let content_type = content_type.trim_ascii();
        let kind = if starts_with(content_type, b"multipart/") {
            boundary(content_type).map_or(Kind::Leaf, Kind::Multipart)
        } else if starts_with(content_type, b"message/rfc822") {
            Kind::Message
        } else {
            Kind::Leaf
        };
        let text =
            content_type.is_empty() || starts_with(content_type, b"text/") || starts_with(content_type, b"message/");
        let coding = match encoding.trim_ascii() {
            _ if matches!(kind, Kind::Multipart(_)) => None,
            e if e.eq_ignore_ascii_case(b"base64") => Some(Coding::Base64),
            e if e.eq_ignore_ascii_case(b"quoted-printable") => Some(Coding::QuotedPrintable),
            e if e.eq_ignore_ascii_case(b"binary") && !text => Some(Coding::Binary),
            _ => None,
        };
        Self { kind, coding, end: at }
    }
}

fn starts_with(value: &[u8], start: &[u8]) -> bool {
    value.get(..start.len()).is_some_and(|v| v.eq_ignore_ascii_case(start))
}

/// The boundary parameter of a Content-Type, quoted or not.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let name = b"boundary=";
    let at = content_type.windows(name.len()).position(|w| w.eq_ignore_ascii_case(name))? + name.len();
    let value = &content_type[at..];
    let value = match value.strip_prefix(b"\"") {
        Some(quoted) => quoted.split(|b| *b == b'"').next()?,
        None => value.split(|b| b.is_ascii_whitespace() || *b == b';').next()?,
    };
    (!value.is_empty()).then(|| value.to_vec())
}

/// The end of the line that begins at `at`, its line feed included.
fn line_end(message: &[u8], at: usize) -> usize {
    message[at..].iter().position(|b| *b == b'\n').map_or(message.len(), |n| at + n + 1)
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

struct Delimiter {
    start: usize,
    end: usize,
    /// Which boundary.
    depth: usize,
    closes: bool,
}

/// Which boundary a line is, the innermost first, and whether it closes the multipart.
fn matches(line: &[u8], boundaries: &[Vec<u8>]) -> Option<(usize, bool)> {
    let line = line.strip_prefix(b"--")?;
    boundaries
        .iter()
        .enumerate()
        .rev()
        .find_map(|(depth, boundary)| Some((depth, line.strip_prefix(boundary.as_slice())?.starts_with(b"--"))))
}

/// The first boundary line at or after `from`, which begins a line.
fn delimiter(message: &[u8], from: usize, boundaries: &[Vec<u8>]) -> Option<Delimiter> {
    if boundaries.is_empty() {
        return None;
    }
    let mut start = from;
    while start < message.len() {
        let end = line_end(message, start);
        if let Some((depth, closes)) = matches(&message[start..end], boundaries) {
            return Some(Delimiter { start, end, depth, closes });
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(message: &str) -> Vec<(&str, Coding)> {
        places(message.as_bytes()).iter().map(|p| (&message[p.start..p.end], p.coding)).collect()
    }

    #[test]
    fn coded_bodies_are_found_in_nested_multiparts_and_in_embedded_messages() {
        let message = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"out er\"\r\n\r\npreamble\r\n--out er\r\n\
            Content-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\ncontent-transfer-ENCODING: Quoted-Printable\r\n\r\na=20\r\n\
            --in\r\n\r\nplain\r\n--in--\r\nepilogue\r\n--out er\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\
            Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\n\r\n--out er\r\nContent-Type: image/png\r\n\
            Content-Transfer-Encoding:\r\n binary\r\n\r\nxyz\r\n--out er--\r\n";
        assert_eq!(
            bodies(message),
            [("a=20\r\n", Coding::QuotedPrintable), ("QUJD\r\n\r\n", Coding::Base64), ("xyz\r\n", Coding::Binary)]
        );
    }

    #[test]
    fn a_body_of_the_message_itself_ends_with_it() {
        assert_eq!(bodies("Content-Transfer-Encoding: base64\n\nQUJD\n"), [("QUJD\n", Coding::Base64)]);
        assert_eq!(bodies("Content-Transfer-Encoding: base64\n"), [("", Coding::Base64)]);
        assert_eq!(bodies("Content-Transfer-Encoding: 7bit\n\nQUJD\n"), []);
    }

    #[test]
    fn what_is_no_mail_or_never_ends_is_no_trouble() {
        for text in [
            "",
            "\n",
            "--",
            "Content-Type: multipart/mixed; boundary=\"",
            "Content-Type: multipart/mixed; boundary=a\n\n--a\n--a\n--a",
        ] {
            assert_eq!(bodies(text), []);
        }
        let messages = "Content-Type: message/rfc822\n\n".repeat(10_000);
        assert_eq!(bodies(&messages), []);
        let parts = "Content-Transfer-Encoding: base64\n\n--b\n".repeat(10_000);
        assert_eq!(bodies(&format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n{parts}")).len(), MAX_PLACES);
    }
}
