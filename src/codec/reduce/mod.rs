//! Reduction by policy: a copy of a message without what a narrow bearer need not carry, and never without saying so.
//!
//! The switch's encoder calls [`reduce`] where a rule of the profile applies to the bearer a payload is made for (docs/profile/reduce.md).
//! A pure function: header fields, HTML alternatives and large attachments are cut out by their ranges, every other byte stays as it
//! was; a picture may be replaced by one with fewer pixels. The copy says in a field of its own what is missing, and a note stands where an attachment was; [`fetch`] later makes a message
//! of such a part. Signed and encrypted mail is left alone unless the rule says otherwise, and so is mail whose structure is not beyond
//! doubt ([`mime`]).

mod fetch;
mod mime;
mod scale;

use std::fmt;
use std::ops::Range;

use data_encoding::BASE64;

use crate::mail::{MessageId, header};

pub use fetch::{Original, asked, fetch};
use mime::Part;

/// The field that says what was left out.
pub const FIELD: &str = "X-Aldis-Reduced";
/// Received fields that stay: this node's and the one below.
const RECEIVED_KEPT: usize = 2;
/// Longest file name that is shown.
const MAX_NAME: usize = 120;
/// Parts that are listed by their numbers.
const MAX_LISTED: usize = 12;
/// Bytes of pictures of one message that are looked at.
const MOST_IMAGE_BYTES: usize = 64 << 20;

/// Fields that `vanity` stands for: programs' names, threads' indices, what filters noted. Signatures are among them because they are
/// worth nothing on a reduced message; signed mail gets here only where the rule says so.
pub const VANITY: &[&str] = &[
    "X-*",
    "ARC-*",
    "Authentication-Results",
    "Autocrypt",
    "Accept-Language",
    "Content-Language",
    "Delivered-To",
    "DKIM-Signature",
    "Face",
    "Feedback-ID",
    "List-*",
    "Organization",
    "Received-SPF",
    "Thread-Index",
    "Thread-Topic",
    "User-Agent",
];

/// Fields that are never taken: without them a reader, a reply or a program of the next hop goes wrong.
const ESSENTIAL: &[&str] = &[
    FIELD,
    "Auto-Submitted",
    "Bcc",
    "Cc",
    "Content-Disposition",
    "Content-Transfer-Encoding",
    "Content-Type",
    "Date",
    "From",
    "Importance",
    "In-Reply-To",
    "Message-ID",
    "MIME-Version",
    "MMHS-*",
    "MT-Priority",
    "Received",
    "References",
    "Reply-To",
    "Sender",
    "Sensitivity",
    "SIO-*",
    "Subject",
    "To",
    "X-Priority",
];

/// What may be left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    /// Received fields but the newest two.
    pub trace: bool,
    /// Fields of these names; `*` at the end stands for anything.
    pub fields: Vec<String>,
    /// HTML beside the same as plain text.
    pub html: bool,
    /// Attachments of more bytes than this are held back.
    pub attachments_over: Option<u64>,
    /// Pictures with a side of more pixels than this are scaled down.
    pub images_over: Option<u32>,
    /// Also where a signature breaks by it.
    pub signed: bool,
}

impl Rule {
    /// Whether it does anything.
    pub fn is_empty(&self) -> bool {
        !self.trace
            && self.fields.is_empty()
            && !self.html
            && self.attachments_over.is_none()
            && self.images_over.is_none()
    }
}

/// Whether a name of a field is one that a rule may name; `*` at its end stands for anything.
pub fn may_strip(name: &str) -> bool {
    let stem = name.strip_suffix('*').unwrap_or(name);
    let plain = !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_graphic() && b != b':' && b != b'*');
    plain && !matches_any(name, ESSENTIAL)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(stem) => name.get(..stem.len()).is_some_and(|start| start.eq_ignore_ascii_case(stem)),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

fn matches_any(name: &str, patterns: &[impl AsRef<str>]) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_ref(), name))
}

/// An attachment that was held back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its number in the original.
    pub number: usize,
    /// Its name, if it has one, fit to be shown.
    pub name: Option<String>,
    /// Type and subtype.
    pub media: String,
    /// Its bytes, without transfer encoding.
    pub bytes: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref().map(|n| format!("\"{n}\", ")).unwrap_or_default();
        write!(f, "part {}: {name}{}, {} bytes", self.number, self.media, self.bytes)
    }
}

/// A picture that goes with fewer pixels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Smaller {
    /// Its number in the original.
    pub number: usize,
    /// Its bytes there, and in the copy.
    pub bytes: (u64, u64),
    /// Width and height in the copy.
    pub size: (u32, u32),
}

impl fmt::Display for Smaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, bytes: (from, to), size: (width, height) } = self;
        write!(f, "part {number}: a picture scaled to {width}x{height}, {from} to {to} bytes")
    }
}

/// What was left out, in words for operators.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Omitted {
    /// Header fields.
    pub fields: usize,
    /// HTML alternatives and the pictures they show, by their numbers in the original.
    pub html: Vec<usize>,
    /// Attachments held back.
    pub held: Vec<Held>,
    /// Pictures with fewer pixels.
    pub smaller: Vec<Smaller>,
}

impl fmt::Display for Omitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        match self.fields {
            0 => {}
            1 => words.push("1 header field".to_owned()),
            n => words.push(format!("{n} header fields")),
        }
        if !self.html.is_empty() {
            words.push(format!("HTML ({})", numbered(&self.html)));
        }
        words.extend(self.held.iter().take(MAX_LISTED).map(|held| format!("{held} held back")));
        if let Some(more) = self.held.len().checked_sub(MAX_LISTED).filter(|n| *n > 0) {
            words.push(format!("{more} more parts held back"));
        }
        words.extend(self.smaller.iter().take(MAX_LISTED).map(ToString::to_string));
        if let Some(more) = self.smaller.len().checked_sub(MAX_LISTED).filter(|n| *n > 0) {
            words.push(format!("{more} more pictures scaled"));
        }
        f.write_str(&words.join("; "))
    }
}

/// Parts by their numbers, as many as are listed.
fn numbered(numbers: &[usize]) -> String {
    let listed: Vec<String> = numbers.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    let more = if numbers.len() > MAX_LISTED { " ..." } else { "" };
    format!("part{} {}{more}", if numbers.len() == 1 { "" } else { "s" }, listed.join(" "))
}

/// A reduced copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reduced {
    /// The message as it goes on the air.
    pub message: Vec<u8>,
    /// What it lacks.
    pub omitted: Omitted,
}

/// Who reduces, for the words that go with the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reducer {
    /// Name of this node in mail.
    pub host: String,
    /// The message's id here.
    pub id: MessageId,
    /// Domain of the address to which whoever wants a part writes; `None`: only an operator sends it.
    pub ask_at: Option<String>,
}

/// The copy of a message that a rule makes; `None` where nothing is to be left out, or nothing may be.
pub fn reduce(message: &[u8], rule: &Rule, by: &Reducer) -> Option<Reduced> {
    let tree = mime::read(message)?;
    if !rule.signed && is_sealed(message, &tree) {
        return None;
    }
    let mut cut = Cut { message, by, edits: Vec::new(), omitted: Omitted::default() };
    cut.fields(rule);
    if rule.html {
        cut.html(&tree, &mut false);
    }
    if let Some(longest) = rule.images_over {
        cut.images(&tree, longest, rule.attachments_over);
    }
    if let Some(limit) = rule.attachments_over {
        cut.attachments(&tree, limit);
    }
    let Cut { mut edits, omitted, .. } = cut;
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = omitted_field(message.len(), &omitted, by).into_bytes();
    let mut at = 0;
    for (range, text) in edits {
        out.extend_from_slice(message.get(at..range.start)?);
        out.extend_from_slice(&text);
        at = range.end;
    }
    out.extend_from_slice(&message[at..]);
    // What another reader may see otherwise, and what would not be smaller, goes whole.
    let expected = tree.leaves().len().checked_sub(omitted.html.len())?;
    let sound = mime::read(&out).is_some_and(|t| t.leaves().len() == expected);
    (sound && out.len() < message.len()).then_some(Reduced { message: out, omitted })
}

/// The field on top of a reduced copy.
fn omitted_field(bytes: usize, omitted: &Omitted, by: &Reducer) -> String {
    let mut words = vec![format!("{FIELD}: {} at {}, {bytes} bytes; without", by.id, by.host)];
    if omitted.fields > 0 {
        words.push(format!("{} fields", omitted.fields));
    }
    if !omitted.html.is_empty() {
        words.push(format!("HTML {}", numbered(&omitted.html)));
    }
    if !omitted.held.is_empty() {
        let numbers: Vec<usize> = omitted.held.iter().map(|h| h.number).collect();
        words.push(numbered(&numbers));
    }
    if !omitted.smaller.is_empty() {
        let numbers: Vec<usize> = omitted.smaller.iter().map(|s| s.number).collect();
        words.push(format!("pixels of {}", numbered(&numbers)));
        if let Some(domain) = &by.ask_at {
            words.push(format!("whole by mail to {}", fetch::address(by.id, numbers[0], domain)));
        }
    }
    let (first, rest) = words.split_at(1);
    format!("{}\r\n\t{}\r\n", first.concat(), rest.join(", "))
}

/// Whether a signature or a cipher covers what would be cut.
fn is_sealed(message: &[u8], tree: &Part) -> bool {
    const FIELDS: &[&str] = &["DKIM-Signature", "ARC-Message-Signature", "ARC-Seal"];
    let media = |part: &&Part| {
        let kind = part.media.as_str();
        let sort = ["application/pkcs7-", "application/x-pkcs7-", "application/pgp-"];
        ["multipart/signed", "multipart/encrypted"].contains(&kind) || sort.iter().any(|s| kind.starts_with(s))
    };
    let armoured = |part: &&Part| {
        let lines = message[part.content.clone()].split(|b| *b == b'\n');
        part.media.starts_with("text/") && lines.into_iter().any(|line| line.starts_with(b"-----BEGIN PGP "))
    };
    header::fields(message).any(|f| FIELDS.iter().any(|name| f.is(name)))
        || tree.all().iter().any(media)
        || tree.leaves().iter().any(armoured)
}

struct Cut<'m> {
    message: &'m [u8],
    by: &'m Reducer,
    edits: Vec<(Range<usize>, Vec<u8>)>,
    omitted: Omitted,
}

impl Cut<'_> {
    fn fields(&mut self, rule: &Rule) {
        // Whoever counts Received fields to see that mail goes round still can: they are cut once on the way, not at every turn.
        let cut_before = header::fields(self.message).any(|f| f.is(FIELD));
        let mut received = 0;
        for field in header::fields(self.message) {
            let cut = if field.is("Received") {
                received += 1;
                rule.trace && !cut_before && received > RECEIVED_KEPT
            } else {
                matches_any(field.name, &rule.fields) && !matches_any(field.name, ESSENTIAL)
            };
            if cut {
                self.edits.push((field.raw, Vec::new()));
                self.omitted.fields += 1;
            }
        }
    }

    /// Takes HTML from alternatives that say the same as plain text; `gone` tells whether something was taken.
    fn html(&mut self, part: &Part, gone: &mut bool) {
        if part.media == "multipart/alternative" {
            let says_something =
                |p: &&Part| p.media == "text/plain" && !self.message[p.content.clone()].trim_ascii().is_empty();
            if !part.parts.iter().any(|p| says_something(&p)) {
                return;
            }
            for html in part.parts.iter().filter(|p| is_html(p)) {
                self.leave_out(html);
                *gone = true;
            }
            return;
        }
        let mut below = false;
        part.parts.iter().for_each(|p| self.html(p, &mut below));
        // What only the HTML showed.
        if below && part.media == "multipart/related" {
            let shown: Vec<&Part> = part.parts.iter().skip(1).filter(|p| p.has_id && !p.attached).collect();
            shown.into_iter().for_each(|p| self.leave_out(p));
        }
        *gone |= below;
    }

    fn leave_out(&mut self, part: &Part) {
        self.edits.push((part.span.clone(), Vec::new()));
        self.omitted.html.extend(part.leaves().iter().map(|p| p.number));
    }

    /// Scales pictures, where they are then no reason to be held back.
    fn images(&mut self, tree: &Part, longest: u32, limit: Option<u64>) {
        let mut work = MOST_IMAGE_BYTES;
        for part in tree.leaves() {
            if !part.media.starts_with("image/") || !part.base64 || self.omitted.html.contains(&part.number) {
                continue;
            }
            let Some(left) = work.checked_sub(part.content.len()) else { return };
            work = left;
            let text: Vec<u8> =
                self.message[part.content.clone()].iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            let Ok(file) = BASE64.decode(&text) else { continue };
            let Some(scaled) = scale::scale(&file, &part.media, longest) else { continue };
            if limit.is_some_and(|limit| scaled.bytes.len() as u64 > limit) {
                continue;
            }
            let lines: Vec<String> = scaled.bytes.chunks(57).map(|line| BASE64.encode(line)).collect();
            self.edits.push((part.content.clone(), lines.join("\r\n").into_bytes()));
            self.omitted.smaller.push(Smaller {
                number: part.number,
                bytes: (file.len() as u64, scaled.bytes.len() as u64),
                size: scaled.size,
            });
        }
    }

    fn attachments(&mut self, tree: &Part, limit: u64) {
        if !tree.is_multipart() {
            return;
        }
        for part in tree.leaves() {
            let attached = part.attached || part.name.is_some() || !part.media.starts_with("text/");
            let bytes = part.size(self.message);
            let is_smaller = self.omitted.smaller.iter().any(|s| s.number == part.number);
            if !attached || bytes <= limit || is_smaller || self.omitted.html.contains(&part.number) {
                continue;
            }
            let held = Held {
                number: part.number,
                name: part.name.as_deref().map(shown).filter(|n| !n.is_empty()),
                media: shown(&part.media),
                bytes,
            };
            self.edits.push((part.whole.clone(), note(&held, self.by).into_bytes()));
            self.omitted.held.push(held);
        }
    }
}

/// HTML, alone or with what it shows.
fn is_html(part: &Part) -> bool {
    match part.media.as_str() {
        "text/html" => true,
        "multipart/related" => part.parts.first().is_some_and(is_html),
        _ => false,
    }
}

/// Somebody's words, fit to stand in a line: ASCII without control characters, not too long.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && c != '"' || c == ' ' { c } else { '_' };
    text.trim().chars().take(MAX_NAME).map(plain).collect()
}

/// What stands where an attachment was.
fn note(held: &Held, by: &Reducer) -> String {
    let (host, id, number) = (&by.host, by.id, held.number);
    let ask = match &by.ask_at {
        Some(domain) => format!("Write to {} to have it.", fetch::address(id, number, domain)),
        None => format!("An operator there sends it: aldis queue fetch {id} {number}"),
    };
    format!("Content-Type: text/plain\r\n\r\n[Held back at {host}, {held}.\r\n{ask}]")
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use proptest::prelude::*;

    use super::*;
    use crate::time::Wall;

    fn by() -> Reducer {
        Reducer { host: "mail.ship.example".into(), id: MessageId(26), ask_at: None }
    }

    fn everything() -> Rule {
        let fields = VANITY.iter().map(ToString::to_string).collect();
        Rule { trace: true, fields, html: true, attachments_over: Some(1000), images_over: None, signed: false }
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("text")
    }

    fn lines(bytes: &[u8]) -> String {
        let lines: Vec<String> = bytes.chunks(57).map(|line| BASE64.encode(line)).collect();
        lines.join("\r\n")
    }

    /// As a common mail program writes it: HTML with a picture beside plain text, and a document.
    fn mail(head: &str) -> String {
        let (picture, document) = (lines(&[7; 900]), lines(&[9; 3000]));
        format!(
            "Received: one\r\nReceived: two\r\n\tfolded\r\nReceived: three\r\n{head}From: a@x.example\r\nTo: b@y.example\r\n\
             Subject: chart\r\nMessage-ID: <1@x.example>\r\nX-Mailer: Program\r\nThread-Index: AbC\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=\"m\"\r\n\r\n--m\r\nContent-Type: multipart/alternative; boundary=\"a\"\r\n\r\n\
             --a\r\nContent-Type: text/plain\r\n\r\nThe chart is attached.\r\n\r\n--a\r\nContent-Type: multipart/related; boundary=r\r\n\r\n\
             --r\r\nContent-Type: text/html\r\n\r\n<p>The chart is attached.</p>\r\n--r\r\nContent-Type: image/png\r\n\
             Content-ID: <p>\r\nContent-Transfer-Encoding: base64\r\n\r\n{picture}\r\n--r--\r\n--a--\r\n--m\r\n\
             Content-Type: application/pdf; name=\"ch\u{e5}rt.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment\r\n\r\n{document}\r\n--m--\r\n"
        )
    }

    #[test]
    fn what_a_rule_names_is_cut_and_every_other_byte_stays() {
        let original = mail("");
        let reduced = reduce(original.as_bytes(), &everything(), &by()).expect("reduced");
        let copy = text(&reduced.message);
        let expected = format!(
            "X-Aldis-Reduced: 0000001A at mail.ship.example, {} bytes; without\r\n\t3 fields, HTML parts 2 3, part 4\r\n\
             Received: one\r\nReceived: two\r\n\tfolded\r\nFrom: a@x.example\r\nTo: b@y.example\r\nSubject: chart\r\n\
             Message-ID: <1@x.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"m\"\r\n\r\n--m\r\n\
             Content-Type: multipart/alternative; boundary=\"a\"\r\n\r\n--a\r\nContent-Type: text/plain\r\n\r\n\
             The chart is attached.\r\n\r\n--a--\r\n--m\r\nContent-Type: text/plain\r\n\r\n\
             [Held back at mail.ship.example, part 4: \"ch_rt.pdf\", application/pdf, 3000 bytes.\r\n\
             An operator there sends it: aldis queue fetch 0000001A 4]\r\n--m--\r\n",
            original.len()
        );
        assert_eq!(copy, expected);
        assert_eq!(
            reduced.omitted.to_string(),
            "3 header fields; HTML (parts 2 3); part 4: \"ch_rt.pdf\", application/pdf, 3000 bytes held back"
        );
    }

    #[test]
    fn the_note_names_the_address_that_asks_for_the_part() {
        let by = Reducer { ask_at: Some("ship.example".into()), ..by() };
        let copy = reduce(mail("").as_bytes(), &everything(), &by).expect("reduced").message;
        assert!(
            text(&copy).contains("3000 bytes.\r\nWrite to fetch+0000001A.4@ship.example to have it.]"),
            "{}",
            text(&copy)
        );
        for local in ["fetch+0000001A.4", "Fetch+1a.4"] {
            assert_eq!(asked(local), Some((MessageId(26), 4)));
        }
        for local in [
            "fetch",
            "fetch+",
            "fetch+1A",
            "fetch+.4",
            "fetch+1A.",
            "fetch+1A.4.5",
            "fetch+1A.-1",
            "\u{e5}etch+1A.4",
            "etch+1A.4",
        ] {
            assert_eq!(asked(local), None, "{local}");
        }
    }

    #[test]
    fn a_large_picture_goes_with_fewer_pixels_and_can_be_had_whole() {
        let picture = scale::tests::picture(900, 600, image::ImageFormat::Jpeg);
        let original = mail("").replace("application/pdf", "image/jpeg").replace(&lines(&[9; 3000]), &lines(&picture));
        let rule = Rule { images_over: Some(300), ..Rule::default() };
        let by = Reducer { ask_at: Some("ship.example".into()), ..by() };
        let reduced = reduce(original.as_bytes(), &rule, &by).expect("reduced");
        let copy = text(&reduced.message);
        let at = original.find(&lines(&picture)).expect("there");
        let body = &copy[copy.find("Received: one").expect("there")..];
        assert!(body.starts_with(&original[..at]) && body.ends_with("\r\n--m--\r\n"), "every other byte stays");
        assert!(
            copy.starts_with("X-Aldis-Reduced: ")
                && copy.contains("pixels of part 4, whole by mail to fetch+0000001A.4@ship.example")
        );
        let [smaller] = reduced.omitted.smaller.try_into().expect("one");
        assert_eq!((smaller.number, smaller.size, smaller.bytes.0), (4, (300, 200), picture.len() as u64));
        let of = Original { message: original.as_bytes(), sender: "s@x", message_id: "m", at: Wall(0) };
        assert!(text(&fetch(&of, 4).expect("a part")).contains(&lines(&picture)));
        // What is small enough once it is scaled is not held back; what is not, is.
        let both = |limit| reduce(original.as_bytes(), &Rule { attachments_over: Some(limit), ..rule.clone() }, &by);
        let small = both(smaller.bytes.1).expect("reduced").omitted;
        assert_eq!((small.held.len(), small.smaller.len()), (0, 1));
        let large = both(smaller.bytes.1 - 1).expect("reduced").omitted;
        assert_eq!((large.held.last().map(|h| h.number), large.smaller.len()), (Some(4), 0));
    }

    #[test]
    fn each_action_is_taken_alone() {
        let original = mail("");
        let with = |rule: Rule| reduce(original.as_bytes(), &rule, &by()).map(|r| r.omitted);
        assert_eq!(with(Rule::default()), None);
        assert_eq!(with(Rule { attachments_over: Some(3000), ..Rule::default() }), None);
        let omitted = with(Rule { html: true, ..Rule::default() }).expect("reduced");
        assert_eq!((omitted.fields, omitted.html, omitted.held), (0, vec![2, 3], vec![]));
        let omitted = with(Rule { attachments_over: Some(899), ..Rule::default() }).expect("reduced");
        assert_eq!(omitted.held.iter().map(|h| h.number).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn the_trace_is_cut_once_so_that_a_loop_is_still_counted() {
        let rule = Rule { trace: true, ..Rule::default() };
        let long = mail(&"Received: from somewhere far away by somebody\r\n".repeat(5));
        let once = reduce(long.as_bytes(), &rule, &by()).expect("reduced").message;
        assert_eq!(header::received_count(&once), RECEIVED_KEPT);
        let again = [b"Received: x\r\n".repeat(20), once].concat();
        assert_eq!(reduce(&again, &rule, &by()), None);
    }

    #[test]
    fn signed_and_encrypted_mail_is_left_alone_unless_the_rule_says_otherwise() {
        let sealed = [
            mail("DKIM-Signature: v=1; b=x\r\n"),
            mail("ARC-Seal: i=1\r\n"),
            mail("").replace("multipart/mixed", "multipart/signed"),
            mail("").replace("application/pdf", "application/pkcs7-mime"),
            mail("").replace("application/pdf", "application/x-pkcs7-signature"),
            mail("").replace("The chart is attached.\r\n", "-----BEGIN PGP MESSAGE-----\r\n"),
        ];
        for message in sealed {
            assert_eq!(reduce(message.as_bytes(), &everything(), &by()), None, "{message}");
            let rule = Rule { signed: true, ..everything() };
            let copy = reduce(message.as_bytes(), &rule, &by()).expect("reduced").message;
            assert!(!text(&copy).contains("DKIM-Signature") && !text(&copy).contains("ARC-Seal"));
        }
    }

    #[test]
    fn html_stays_where_no_plain_text_says_the_same() {
        let rule = Rule { html: true, ..Rule::default() };
        let empty = mail("").replace("The chart is attached.\r\n", " \r\n");
        assert_eq!(reduce(empty.as_bytes(), &rule, &by()), None);
        let alone = "Content-Type: text/html\r\n\r\n<p>long enough to be worth the field on top</p>\r\n";
        assert_eq!(reduce(alone.as_bytes(), &rule, &by()), None);
        // Pictures that the HTML alone showed go with it; what is attached stays.
        let picture = |disposition: &str| {
            format!("--r\r\nContent-Type: image/png\r\nContent-ID: <p>\r\n{disposition}\r\n{}\r\n", "y".repeat(200))
        };
        let outer = format!(
            "Content-Type: multipart/related; boundary=r\r\n\r\n--r\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
             --a\r\n\r\nplain\r\n--a\r\nContent-Type: text/html\r\n\r\n<img>\r\n--a--\r\n{}{}--r--\r\n",
            picture(""),
            picture("Content-Disposition: attachment\r\n")
        );
        assert_eq!(reduce(outer.as_bytes(), &rule, &by()).expect("reduced").omitted.html, [2, 3]);
    }

    #[test]
    fn essential_fields_cannot_be_named() {
        for name in ["Subject", "message-id", "Content-Type", "MMHS-Extended-Authorisation-Info", "a b", "*", "", "x:"]
        {
            assert!(!may_strip(name), "{name}");
        }
        assert!(VANITY.iter().all(|name| may_strip(name)));
        let rule = Rule { fields: vec!["X-*".into()], ..Rule::default() };
        let message = format!("X-Priority: 1\r\nX-Aldis-Reduced: y\r\nX-Junk: {}\r\n\r\nz\r\n", "j".repeat(100));
        let copy = reduce(message.as_bytes(), &rule, &by()).expect("reduced").message;
        assert!(text(&copy).ends_with("X-Priority: 1\r\nX-Aldis-Reduced: y\r\n\r\nz\r\n"));
    }

    #[test]
    fn a_part_is_fetched_as_it_was_in_a_message_of_its_own() {
        let original = mail("MMHS-Primary-Precedence: 2\r\n");
        let of = Original {
            message: original.as_bytes(),
            sender: "postmaster@ship.example",
            message_id: "2B@ship.example",
            at: Wall::parse_rfc3339("2026-11-29T10:15:00Z").expect("a time"),
        };
        let part = fetch(&of, 4).expect("a part");
        assert_eq!(
            text(&part),
            format!(
                "Sender: <postmaster@ship.example>\r\nDate: Sun, 29 Nov 2026 10:15:00 +0000\r\nMessage-ID: <2B@ship.example>\r\n\
                 In-Reply-To: <1@x.example>\r\nReferences: <1@x.example>\r\nSubject: [part 4 of 4] chart\r\n\
                 MMHS-Primary-Precedence: 2\r\nFrom: a@x.example\r\nTo: b@y.example\r\nMIME-Version: 1.0\r\n\
                 Content-Type: application/pdf; name=\"ch\u{e5}rt.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\
                 Content-Disposition: attachment\r\n\r\n{}\r\n",
                lines(&[9; 3000])
            )
        );
        // It is one part, so no rule holds it back again.
        assert_eq!(reduce(&part, &everything(), &by()), None);
        assert!(fetch(&of, 5).is_err_and(|why| why.contains("1 to 4")) && fetch(&of, 0).is_err());
        assert!(fetch(&Original { message: b"Subject: x\r\n\r\ny\r\n", ..of }, 1).is_err());
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::sample::select(
                [
                    "Content-Type: multipart/mixed; boundary=b",
                    "Content-Type: multipart/alternative; boundary=\"c\"",
                    "Content-Type: text/html",
                    "Content-Type: application/pdf; name=x",
                    "Content-Disposition: attachment",
                    "Received: x",
                    "X-A: 1",
                    "--b",
                    "--c",
                    "--b--",
                    "--c--",
                    "",
                    "",
                    "plain",
                ]
                .map(|line| line.as_bytes().to_vec())
                .to_vec()
            ),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_in_what_goes_out_says_so_and_is_smaller(lines in proptest::collection::vec(piece(), 0..60)) {
            let message = lines.join(&b"\r\n"[..]);
            let rule = Rule { attachments_over: Some(0), ..everything() };
            if let Some(reduced) = reduce(&message, &rule, &by()) {
                prop_assert!(reduced.message.len() < message.len());
                prop_assert!(reduced.message.starts_with(FIELD.as_bytes()));
                prop_assert!(reduced.omitted != Omitted::default());
                for held in &reduced.omitted.held {
                    let at = Wall(0);
                    let of = Original { message: &message, sender: "s@x", message_id: "m", at };
                    prop_assert!(fetch(&of, held.number).is_ok());
                }
            }
        }

        #[test]
        fn the_text_and_every_small_part_arrive_as_they_were(
            words in "[a-z \r\n]{1,200}",
            small in proptest::collection::vec(any::<u8>(), 1..500),
            large in proptest::collection::vec(any::<u8>(), 1001..4000),
        ) {
            let message = mail("").replace("The chart is attached.\r\n", &format!("x{words}y\r\n"))
                .replace(&lines(&[7; 900]), &lines(&small)).replace(&lines(&[9; 3000]), &lines(&large));
            let rule = Rule { attachments_over: Some(1000), ..Rule::default() };
            let copy = reduce(message.as_bytes(), &rule, &by()).expect("reduced").message;
            let (kept, gone) = (lines(&small), lines(&large));
            let said = format!("x{words}y\r\n");
            prop_assert!(text(&copy).contains(&said) && text(&copy).contains(&kept));
            prop_assert!(!text(&copy).contains(&gone));
        }
    }
}
