//! 8-bit mail for a next hop without 8BITMIME (RFC 6152 3), binary mail for one without BINARYMIME (RFC 3030 3): parts are re-encoded
//! in place, everything else keeps its bytes.
//!
//! Signed mail is never touched: it would arrive broken. What cannot be turned bounces with 5.6.3. Called by the client, and for
//! binary mail by delivery into a Maildir.

use core::fmt::Write as _;
use core::ops::Range;

use mail_parser::{Message, MessageParser, MessagePart, MimeHeaders, PartType};

use super::header;

/// Why a message stays 8-bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CannotConvert {
    /// A signature covers its bytes.
    Signed,
    /// 8-bit octets stand where no encoding reaches: header fields, preambles, malformed structure.
    NotInParts,
}

impl CannotConvert {
    /// Words for a DSN.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Signed => "signed mail, which the next hop would need in another encoding",
            Self::NotInParts => "the next hop would need this mail in another encoding, which it cannot be given",
        }
    }
}

/// Parts are nested no deeper than this in what we convert.
const MAX_DEPTH: usize = 16;

/// Octets of a line of mail that is not binary, its end not counted (RFC 5322 2.1.1).
const LONGEST_LINE: usize = 998;

/// What may go through as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Room {
    /// Octets above 127.
    eight_bit: bool,
    /// Anything at all: NUL, bare CR and LF, long lines.
    binary: bool,
}

impl Room {
    fn has_for(self, content: &[u8]) -> bool {
        (self.eight_bit || content.is_ascii()) && (self.binary || !is_binary(content, LONGEST_LINE))
    }
}

/// The message with every 8-bit part in quoted-printable (text) or base64 (anything else). All octets are below 128.
pub fn convert(message: &[u8]) -> Result<Vec<u8>, CannotConvert> {
    // Lines of such mail were looked at when it came.
    convert_for(message, Room { eight_bit: false, binary: true })
}

/// The message with every part that no mail of lines may hold in quoted-printable (text) or base64 (anything else), and nothing
/// called binary any more. Without `eight_bit` all octets are below 128, as by [`convert`].
pub fn without_binary(message: &[u8], eight_bit: bool) -> Result<Vec<u8>, CannotConvert> {
    convert_for(message, Room { eight_bit, binary: false })
}

/// Whether `content` holds a NUL, a CR or LF that is no line end, or a line longer than `longest`.
fn is_binary(content: &[u8], longest: usize) -> bool {
    let mut rest = content;
    loop {
        let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n' | 0)).unwrap_or(rest.len());
        match rest.get(end..) {
            _ if end > longest => return true,
            None | Some([]) => return false,
            Some([b'\r', b'\n', after @ ..]) => rest = after,
            Some(_) => return true,
        }
    }
}

fn convert_for(message: &[u8], room: Room) -> Result<Vec<u8>, CannotConvert> {
    if header::fields(message).any(|f| f.is("DKIM-Signature")) {
        return Err(CannotConvert::Signed);
    }
    let parsed = MessageParser::new().parse(message).ok_or(CannotConvert::NotInParts)?;
    let mut edits = Edits { message, room, signed_until: 0, list: Vec::new() };
    edits.message(&parsed, 0)?;
    let out = edits.apply()?;
    // Whatever the parser made of a malformed message: not one octet leaves that must not. A long line outside all parts may.
    let clean = (room.eight_bit || out.is_ascii()) && (room.binary || !is_binary(&out, usize::MAX));
    if clean { Ok(out) } else { Err(CannotConvert::NotInParts) }
}

/// Replacements of byte ranges, in rising order when applied.
struct Edits<'a> {
    message: &'a [u8],
    room: Room,
    /// Where the outermost signed part ends.
    signed_until: usize,
    list: Vec<(Range<usize>, Vec<u8>)>,
}

impl Edits<'_> {
    fn message(&mut self, message: &Message<'_>, depth: usize) -> Result<(), CannotConvert> {
        if depth > MAX_DEPTH {
            return Err(CannotConvert::NotInParts);
        }
        for part in &message.parts {
            self.part(part, depth)?;
        }
        Ok(())
    }

    fn part(&mut self, part: &MessagePart<'_>, depth: usize) -> Result<(), CannotConvert> {
        let (start, body, end) = (part.offset_header as usize, part.offset_body as usize, part.offset_end as usize);
        let (Some(head), Some(content)) = (self.message.get(start..body), self.message.get(body..end)) else {
            return Err(CannotConvert::NotInParts);
        };
        let called = |name: &str| {
            header::fields(head)
                .filter(|f| f.is("Content-Transfer-Encoding"))
                .any(|f| f.value.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
        };
        let is = |kind: &str, names: &[&str]| {
            part.content_type().is_some_and(|t| {
                let named = |s: &str| names.iter().any(|name| s.eq_ignore_ascii_case(name));
                t.c_type.eq_ignore_ascii_case(kind) && t.subtype().is_some_and(named)
            })
        };
        let misnamed = !self.room.binary && called("binary");
        let fits = self.room.has_for(content);
        let covered = start < self.signed_until;
        if is("multipart", &["signed"]) {
            self.signed_until = self.signed_until.max(end);
        }
        if head.is_ascii() && fits && !misnamed {
            // What is inside may still be called binary.
            return match &part.body {
                PartType::Message(inner) if !self.room.binary => self.message(inner, depth + 1),
                _ => Ok(()),
            };
        }
        if !(head.is_ascii() || self.room.eight_bit && fits) {
            return Err(CannotConvert::NotInParts);
        }
        let sealed = is("application", &["pkcs7-mime", "x-pkcs7-mime"])
            && part
                .content_type()
                .and_then(|t| t.attribute("smime-type"))
                .is_some_and(|t| t.eq_ignore_ascii_case("signed-data"));
        if sealed || covered || is("multipart", &["signed"]) && !fits {
            return Err(CannotConvert::Signed);
        }
        if fits {
            // Only the name is wrong, or the header has octets that may pass.
            if misnamed {
                self.encoding(start..body, if content.is_ascii() { "7bit" } else { "8bit" });
            }
            return match &part.body {
                PartType::Message(inner) => self.message(inner, depth + 1),
                PartType::Multipart(_)
                | PartType::Text(_)
                | PartType::Html(_)
                | PartType::Binary(_)
                | PartType::InlineBinary(_) => Ok(()),
            };
        }
        // 8-bit octets inside an encoding that has none: encoding them again would change what the part says.
        let foreign = header::fields(head).filter(|f| f.is("Content-Transfer-Encoding")).any(|f| {
            let value = f.value.trim_ascii().to_ascii_lowercase();
            !matches!(&value[..], b"" | b"7bit" | b"8bit" | b"binary")
        });
        if foreign {
            return Err(CannotConvert::NotInParts);
        }
        match &part.body {
            PartType::Multipart(_) => {
                self.encoding(start..body, if self.room.eight_bit { "8bit" } else { "7bit" });
                Ok(())
            }
            PartType::Message(inner) => {
                self.encoding(start..body, if self.room.eight_bit { "8bit" } else { "7bit" });
                self.message(inner, depth + 1)
            }
            PartType::Text(_) | PartType::Html(_) => {
                let text = quoted_printable(content);
                self.list.push((body..end, text));
                self.encoding(start..body, "quoted-printable");
                Ok(())
            }
            PartType::Binary(_) | PartType::InlineBinary(_) => {
                self.list.push((body..end, base64_lines(content)));
                self.encoding(start..body, "base64");
                Ok(())
            }
        }
    }

    /// Sets Content-Transfer-Encoding in the header section `head`. A message without MIME fields gets them (RFC 1428).
    fn encoding(&mut self, head: Range<usize>, name: &str) {
        let base = head.start;
        let section = self.message.get(head.clone()).unwrap_or_default();
        let mut blank = 0;
        let mut found = false;
        let (mut mime, mut kind) = (false, false);
        let field = format!("Content-Transfer-Encoding: {name}\r\n");
        for f in header::fields(section) {
            blank = f.range.end;
            mime |= f.is("MIME-Version");
            kind |= f.is("Content-Type");
            if f.is("Content-Transfer-Encoding") {
                let new = if found { Vec::new() } else { field.clone().into_bytes() };
                self.list.push((base + f.range.start..base + f.range.end, new));
                found = true;
            }
        }
        if found || matches!(name, "7bit" | "8bit") {
            return;
        }
        let mut added = String::new();
        if base == 0 && !mime {
            added.push_str("MIME-Version: 1.0\r\n");
        }
        if base == 0 && !kind {
            added.push_str("Content-Type: text/plain; charset=unknown-8bit\r\n");
        }
        added.push_str(&field);
        if section.is_empty() {
            // No header and no blank line: the new fields need one behind them.
            added.push_str("\r\n");
        }
        self.list.push((base + blank..base + blank, added.into_bytes()));
    }

    fn apply(mut self) -> Result<Vec<u8>, CannotConvert> {
        self.list.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = Vec::with_capacity(self.message.len() * 5 / 4);
        let mut from = 0;
        for (range, new) in self.list {
            if range.start < from {
                return Err(CannotConvert::NotInParts);
            }
            out.extend_from_slice(self.message.get(from..range.start).unwrap_or_default());
            out.extend_from_slice(&new);
            from = range.end;
        }
        out.extend_from_slice(self.message.get(from..).unwrap_or_default());
        Ok(out)
    }
}

/// RFC 2045 6.7 for text: line ends stay, lines are at most 76 characters.
fn quoted_printable(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() * 5 / 4);
    let mut column = 0;
    let mut i = 0;
    while let Some(b) = content.get(i) {
        let rest = content.get(i + 1..).unwrap_or_default();
        if *b == b'\r' && rest.first() == Some(&b'\n') {
            out.extend_from_slice(b"\r\n");
            column = 0;
            i += 2;
            continue;
        }
        let at_line_end = rest.is_empty() || rest.starts_with(b"\r\n");
        let plain = match b {
            b' ' | b'\t' => !at_line_end,
            b'=' => false,
            _ => b.is_ascii_graphic(),
        };
        let width = if plain { 1 } else { 3 };
        if column + width > if at_line_end { 76 } else { 75 } {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if plain {
            out.push(*b);
        } else {
            let mut hex = String::with_capacity(3);
            let _ = write!(hex, "={b:02X}");
            out.extend_from_slice(hex.as_bytes());
        }
        column += width;
        i += 1;
    }
    out
}

fn base64_lines(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() * 3 / 2);
    for line in content.chunks(57) {
        out.extend_from_slice(data_encoding::BASE64.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &[u8]) -> String {
        let out = convert(message).expect("converts");
        assert!(out.is_ascii());
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn text_becomes_quoted_printable_and_keeps_its_meaning() {
        let m = "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ncafé = 1 \r\n";
        assert_eq!(
            text(m.as_bytes()),
            "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\ncaf=C3=A9 =3D 1=20\r\n"
        );
    }

    #[test]
    fn plain_mail_without_mime_fields_is_labelled() {
        assert_eq!(
            text("Subject: s\r\n\r\ncafé\r\n".as_bytes()),
            "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\ncaf=C3=A9\r\n"
        );
    }

    #[test]
    fn each_part_is_converted_in_its_place() {
        let m = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
                 --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nü\r\n\
                 --b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\nÿÿ\r\n\
                 --b\r\nContent-Type: text/plain\r\n\r\nuntouched = here\r\n\
                 --b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\nContent-Transfer-Encoding: 8bit\r\n\r\nö\r\n\
                 --b--\r\n";
        let out = text(m.as_bytes());
        assert!(out.contains("boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n"), "{out}");
        assert!(out.contains("quoted-printable\r\n\r\n=C3=BC\r\n--b"), "{out}");
        assert!(out.contains("octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nw7/Dvw==\r\n"), "{out}");
        assert!(out.contains("untouched = here"), "{out}");
        assert!(out.contains("Subject: in\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=B6"), "{out}");
        let again = MessageParser::new().parse(out.as_bytes()).expect("parses");
        assert_eq!(again.parts.len(), 5, "{out}");
    }

    #[test]
    fn signed_and_hopeless_messages_stay_as_they_are() {
        for (m, why) in [
            ("DKIM-Signature: v=1\r\n\r\né\r\n", CannotConvert::Signed),
            (
                "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\né\r\n--b--\r\n",
                CannotConvert::Signed,
            ),
            ("Subject: é\r\n\r\nx\r\n", CannotConvert::NotInParts),
            ("Content-Transfer-Encoding: base64\r\n\r\né\r\n", CannotConvert::NotInParts),
            (
                "Content-Type: multipart/mixed; boundary=b\r\n\r\npréamble\r\n--b\r\n\r\nx\r\n--b--\r\n",
                CannotConvert::NotInParts,
            ),
        ] {
            assert_eq!(convert(m.as_bytes()), Err(why), "{m}");
        }
    }

    const PHOTO: &[u8] = b"\x89PNG\r\n\x1a\n\0\0 \n.\r\n\rMAIL FROM:<x@y>\r\n.\r\n\xff";

    fn with_photo(kind: &str) -> Vec<u8> {
        let mut m = format!(
            "MIME-Version: 1.0\r\nContent-Type: {kind}; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n\
             --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: binary\r\n\r\nMalmö\r\n\
             --b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        )
        .into_bytes();
        m.extend_from_slice(PHOTO);
        m.extend_from_slice(b"\r\n--b--\r\n");
        m
    }

    #[test]
    fn binary_parts_become_base64_and_the_rest_stays() {
        let eight = without_binary(&with_photo("multipart/mixed"), true).expect("converts");
        let shown = String::from_utf8(eight.clone()).expect("text");
        assert!(!is_binary(&eight, LONGEST_LINE) && !shown.contains("binary"), "{shown}");
        assert!(shown.contains("boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n"), "{shown}");
        assert!(shown.contains("utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nMalmö\r\n--b"), "{shown}");
        let seven = without_binary(&with_photo("multipart/mixed"), false).expect("converts");
        let shown = String::from_utf8(seven.clone()).expect("text");
        assert!(seven.is_ascii() && shown.contains("quoted-printable\r\n\r\nMalm=C3=B6\r\n--b"), "{shown}");
        for out in [eight, seven] {
            let parsed = MessageParser::new().parse(&out[..]).expect("parses");
            let [_, text, photo] = &parsed.parts[..] else { panic!("{:?}", parsed.parts) };
            assert_eq!((text.contents(), photo.contents()), ("Malmö".as_bytes(), PHOTO));
        }
    }

    #[test]
    fn a_message_of_one_binary_part_and_text_with_long_lines_are_turned_too() {
        for (kind, content) in [
            ("image/png", PHOTO.to_vec()),
            ("text/plain; charset=utf-8", [b"long ".repeat(300), b"\nx\r\n".to_vec()].concat()),
        ] {
            let head = format!(
                "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            );
            let out = without_binary(&[head.as_bytes(), &content].concat(), true).expect("converts");
            assert!(!is_binary(&out, LONGEST_LINE), "{}", String::from_utf8_lossy(&out));
            let parsed = MessageParser::new().parse(&out[..]).expect("parses");
            assert_eq!(parsed.parts[0].contents(), content);
        }
        let nested =
            b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\nContent-Transfer-Encoding: binary\r\n\r\nx\r\n";
        let out = without_binary(nested, true).expect("converts");
        assert!(out.ends_with(b"\r\nContent-Transfer-Encoding: 7bit\r\n\r\nx\r\n"));
        let plain = b"Subject: s\r\n\r\nnothing binary about it\r\n";
        assert_eq!(without_binary(plain, true).as_deref(), Ok(&plain[..]));
    }

    #[test]
    fn signed_binary_mail_stays_as_it_is() {
        let signed = with_photo("multipart/signed");
        let dkim = [b"DKIM-Signature: v=1\r\n".to_vec(), with_photo("multipart/mixed")].concat();
        let opaque = b"Content-Type: application/pkcs7-mime; smime-type=signed-data\r\nContent-Transfer-Encoding: binary\r\n\r\n0\0\0";
        let inside = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\nx\r\n--b--\r\n";
        for m in [&signed[..], &dkim, opaque, inside.as_bytes()] {
            assert_eq!(without_binary(m, true), Err(CannotConvert::Signed), "{}", String::from_utf8_lossy(m));
        }
        assert_eq!(
            without_binary(b"Subject: s\r\nContent-Transfer-Encoding: base64\r\n\r\n\0", true),
            Err(CannotConvert::NotInParts)
        );
    }

    #[test]
    fn quoted_printable_lines_stay_short() {
        let out = quoted_printable("é".repeat(200).as_bytes());
        assert!(out.split(|b| *b == b'\n').all(|l| l.len() <= 77));
        let exact = quoted_printable(&[b'x'; 76]);
        assert_eq!(exact, [b'x'; 76]);
        assert!(quoted_printable(&[b'x'; 77]).starts_with(&[&[b'x'; 75][..], b"=\r\n"].concat()));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_in_only_seven_bits_come_out(
            lines in proptest::collection::vec(proptest::prop_oneof![
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
                proptest::sample::select(vec![
                    b"Content-Type: multipart/mixed; boundary=b".to_vec(), b"--b".to_vec(), b"--b--".to_vec(), b"".to_vec(),
                    b"Content-Type: message/rfc822".to_vec(), b"Content-Type: text/plain".to_vec(), "\u{e9}".into(),
                    b"Content-Transfer-Encoding: 8bit".to_vec(), b"Content-Transfer-Encoding: base64".to_vec(),
                ]),
            ], 0..30),
        ) {
            let message = lines.join(&b"\r\n"[..]);
            if let Ok(out) = convert(&message) {
                proptest::prop_assert!(out.is_ascii());
            }
            for eight_bit in [false, true] {
                if let Ok(out) = without_binary(&message, eight_bit) {
                    proptest::prop_assert!((eight_bit || out.is_ascii()) && !is_binary(&out, usize::MAX));
                }
            }
        }
    }
}
