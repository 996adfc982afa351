//! The header section of a message as byte ranges: found, counted and cut without ever rebuilding what was not meant to change.

use core::ops::Range;

/// One header field, folded lines included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// Where it stands in the message, its final line end included.
    pub range: Range<usize>,
    /// Its name as written.
    pub name: &'a [u8],
    /// What follows the colon, line ends included.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether the field is called `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Walks the fields of `message` from the top; ends at the blank line, at the end, or at the first line that is no field.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { message, at: 0 }
}

/// Where the header section ends: the offset of the blank line, or of the first line that is no field.
pub fn end(message: &[u8]) -> usize {
    let mut walk = fields(message);
    while walk.next().is_some() {}
    walk.at
}

/// Where the body begins: just past the blank line, if there is one.
pub fn body_start(message: &[u8]) -> usize {
    let end = end(message);
    if message.get(end..).is_some_and(|rest| rest.starts_with(b"\r\n")) { end + 2 } else { end }
}

/// The message without the fields `drop` names.
pub fn without<'a>(message: &'a [u8], mut drop: impl FnMut(&Field<'_>) -> bool) -> std::borrow::Cow<'a, [u8]> {
    let cuts: Vec<Range<usize>> = fields(message).filter(|f| drop(f)).map(|f| f.range).collect();
    if cuts.is_empty() {
        return message.into();
    }
    let mut out = Vec::with_capacity(message.len());
    let mut from = 0;
    for cut in cuts {
        out.extend_from_slice(message.get(from..cut.start).unwrap_or_default());
        from = cut.end;
    }
    out.extend_from_slice(message.get(from..).unwrap_or_default());
    out.into()
}

/// Iterator of [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let rest = self.message.get(self.at..)?;
        let first = line_length(rest);
        let colon = rest.get(..first)?.iter().position(|b| *b == b':')?;
        let name = rest.get(..colon)?.trim_ascii_end();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut length = first;
        while let Some(b' ' | b'\t') = rest.get(length) {
            length += line_length(rest.get(length..)?);
        }
        let start = self.at;
        self.at += length;
        Some(Field { range: start..start + length, name, value: rest.get(colon + 1..length)? })
    }
}

/// Octets of the first line, its LF included.
fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"Subject: a\r\n b\r\nTo : x\r\nBCC: y\r\n\r\nNot: header\r\n";

    #[test]
    fn fields_keep_their_folds_and_stop_at_the_blank_line() {
        let all: Vec<_> = fields(MESSAGE).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].value, b" a\r\n b\r\n");
        assert!(all[1].is("to") && all[2].is("bcc"));
        assert_eq!(&MESSAGE[body_start(MESSAGE)..], b"Not: header\r\n");
    }

    #[test]
    fn a_cut_field_leaves_the_rest_untouched() {
        let cut = without(MESSAGE, |f| f.is("Bcc"));
        assert_eq!(&*cut, b"Subject: a\r\n b\r\nTo : x\r\n\r\nNot: header\r\n");
    }

    #[test]
    fn messages_without_a_header_have_no_fields() {
        for m in [&b""[..], b"\r\n", b"no header here\r\n", b": x\r\n", b" lead\r\nSubject: x\r\n", b"Subject"] {
            assert_eq!(fields(m).count(), 0, "{m:?}");
            assert_eq!(end(m), 0);
        }
        assert_eq!(fields(b"Subject: x").count(), 1);
    }
}
