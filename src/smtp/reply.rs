//! SMTP replies: a code, an enhanced status (RFC 2034) and lines of text. The server emits them, the client reads them.

use crate::mail::Status;

/// Lines one reply may have before its sender is taken for broken.
pub const MAX_LINES: usize = 512;
/// Octets of one reply line, CRLF included (RFC 5321 4.5.3.1.5); what we never exceed.
const EMIT_LINE: usize = 512;
/// Octets of one reply line we still read from others.
const READ_LINE: usize = 4096;

/// One reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The enhanced status, which stands at the head of every line.
    pub enhanced: Option<Status>,
    /// The text, one entry per line.
    pub lines: Vec<String>,
}

impl Reply {
    /// A one-line reply with an enhanced status.
    pub fn new(code: u16, enhanced: Status, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![text.into()] }
    }

    /// A one-line reply without an enhanced status: greetings, EHLO, 334 and 354.
    pub fn bare(code: u16, text: impl Into<String>) -> Self {
        Self { code, enhanced: None, lines: vec![text.into()] }
    }

    /// 2xx.
    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4xx.
    pub const fn is_temporary(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx.
    pub const fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The enhanced status, or the class of the code with `.0.0`.
    pub fn status(&self) -> Status {
        self.enhanced.unwrap_or(Status(u8::try_from(self.code / 100).unwrap_or(5), 0, 0))
    }

    /// All on one line, as a DSN's Diagnostic-Code wants it: `550 5.1.1 no such user`.
    pub fn one_line(&self) -> String {
        let mut out = self.code.to_string();
        if let Some(status) = self.enhanced {
            out.push_str(&format!(" {status}"));
        }
        for line in self.lines.iter().filter(|l| !l.is_empty()) {
            out.push(' ');
            out.push_str(line);
        }
        out
    }

    /// Writes the reply as it goes on the wire. Text may come from a peer or an operator: whatever is not printable
    /// ASCII becomes `?`, and a line is cut where RFC 5321 would no longer allow it.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let prefix = self.enhanced.map(|s| format!("{s} ")).unwrap_or_default();
        let shown = self.lines.len().clamp(1, MAX_LINES);
        for i in 0..shown {
            let text = self.lines.get(i).map_or("", String::as_str);
            let start = out.len();
            out.extend_from_slice(format!("{:03}", self.code).as_bytes());
            out.push(if i + 1 == shown { b' ' } else { b'-' });
            out.extend_from_slice(prefix.as_bytes());
            out.extend(text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c as u8 } else { b'?' }));
            out.truncate(start + EMIT_LINE - 2);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The reply as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.emit(&mut out);
        out
    }
}

/// Why a peer's bytes are no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyError {
    /// No code, an odd separator, or codes that differ between lines.
    Malformed,
    /// A line or the whole reply is longer than anybody needs.
    TooLong,
}

/// Puts replies together from bytes as they come.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Vec<u8>,
    lines: Vec<Vec<u8>>,
    code: Option<u16>,
}

impl Reader {
    /// Takes bytes from the front of `input` and returns the first reply that becomes whole, leaving the rest in `input`.
    /// A line may end in CRLF or a bare LF: what a hop answers carries no message, so nothing can be smuggled in it.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        while let Some(end) = input.iter().position(|b| *b == b'\n') {
            let (line, rest) = input.split_at(end);
            *input = rest.get(1..).unwrap_or_default();
            if self.partial.len() + line.len() > READ_LINE {
                return Err(ReplyError::TooLong);
            }
            self.partial.extend_from_slice(line);
            let mut line = core::mem::take(&mut self.partial);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if self.line(&line)? {
                return Ok(Some(self.finish()));
            }
        }
        if self.partial.len() + input.len() > READ_LINE {
            return Err(ReplyError::TooLong);
        }
        self.partial.extend_from_slice(input);
        *input = &[];
        Ok(None)
    }

    /// Whether bytes of an unfinished reply are held.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.lines.is_empty()
    }

    /// Takes one line; true when it was the last of its reply.
    fn line(&mut self, line: &[u8]) -> Result<bool, ReplyError> {
        let code = match line {
            [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(ReplyError::Malformed),
        };
        if self.code.is_some_and(|first| first != code) {
            return Err(ReplyError::Malformed);
        }
        let more = match line.get(3) {
            None | Some(b' ') => false,
            Some(b'-') => true,
            Some(_) => return Err(ReplyError::Malformed),
        };
        if self.lines.len() >= MAX_LINES {
            return Err(ReplyError::TooLong);
        }
        self.code = Some(code);
        self.lines.push(line.get(4..).unwrap_or_default().to_vec());
        Ok(!more)
    }

    fn finish(&mut self) -> Reply {
        let code = self.code.take().unwrap_or(500);
        let raw = core::mem::take(&mut self.lines);
        let texts: Vec<String> = raw.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        let enhanced = texts.first().and_then(|t| split_status(t, code)).map(|(status, _)| status);
        let lines = match enhanced {
            Some(_) => {
                texts.iter().map(|t| split_status(t, code).map_or(t.as_str(), |(_, rest)| rest).to_owned()).collect()
            }
            None => texts,
        };
        Reply { code, enhanced, lines }
    }
}

/// Splits `5.1.1 text`; the class must fit the code (RFC 2034).
fn split_status(text: &str, code: u16) -> Option<(Status, &str)> {
    let (head, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut parts = head.split('.');
    let mut number = |max: usize| {
        let part = parts.next()?;
        (!part.is_empty() && part.len() <= max && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())?
    };
    let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
    (parts.next().is_none() && class == code / 100 && matches!(class, 2 | 4 | 5))
        .then(|| (Status(u8::try_from(class).unwrap_or(5), subject, detail), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<Reply>, ReplyError> {
        let (mut reader, mut input, mut out) = (Reader::default(), bytes, Vec::new());
        while let Some(reply) = reader.read(&mut input)? {
            out.push(reply);
        }
        Ok(out)
    }

    #[test]
    fn a_reply_survives_emission_and_reading() {
        let reply = Reply { code: 550, enhanced: Some(Status(5, 1, 1)), lines: vec!["no".into(), "such user".into()] };
        let wire = reply.to_bytes();
        assert_eq!(wire, b"550-5.1.1 no\r\n550 5.1.1 such user\r\n");
        assert_eq!(read_all(&wire), Ok(vec![reply.clone()]));
        assert_eq!(reply.one_line(), "550 5.1.1 no such user");
    }

    #[test]
    fn a_reply_may_come_in_any_pieces() {
        let wire = b"250-host\r\n250-SIZE 10\r\n250 DSN\r\n220 go\r\n";
        let whole = read_all(wire).expect("replies");
        assert_eq!(whole.len(), 2);
        for cut in 0..wire.len() {
            let mut reader = Reader::default();
            let mut out = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                let mut input = part;
                while let Some(r) = reader.read(&mut input).expect("reply") {
                    out.push(r);
                }
            }
            assert_eq!(out, whole, "cut at {cut}");
        }
    }

    #[test]
    fn emission_never_breaks_a_line_rule() {
        let reply = Reply::new(554, Status(5, 0, 0), format!("bad\r\n250 ok {}é", "x".repeat(2000)));
        let wire = reply.to_bytes();
        assert_eq!(wire.len(), 512);
        assert_eq!(wire.iter().filter(|b| **b == b'\n').count(), 1);
        assert!(wire.starts_with(b"554 5.0.0 bad??250 ok x"));
    }

    #[test]
    fn nonsense_and_endless_replies_are_errors() {
        assert_eq!(read_all(b"hello\r\n"), Err(ReplyError::Malformed));
        assert_eq!(read_all(b"250-a\r\n251 b\r\n"), Err(ReplyError::Malformed));
        assert_eq!(read_all(b"2500 x\r\n"), Err(ReplyError::Malformed));
        assert_eq!(read_all(&b"250-a\r\n".repeat(600)), Err(ReplyError::TooLong));
        assert_eq!(read_all(&[b'2'; 5000]), Err(ReplyError::TooLong));
    }

    #[test]
    fn an_enhanced_status_of_another_class_is_text() {
        let replies = read_all(b"250 5.1.1 odd\r\n451 4.7.1 wait\r\n354\r\n").expect("replies");
        assert_eq!(replies[0].enhanced, None);
        assert_eq!(replies[1].enhanced, Some(Status(4, 7, 1)));
        assert_eq!(replies[2].status(), Status(3, 0, 0));
    }
}
