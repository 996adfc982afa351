//! The envelope of MULE as text: what follows `MAIL FROM:` on the first line, what follows each `RCPT TO:` on one more, an empty line.
//!
//! Parameters this program knows become fields (SIZE, BODY, RET, ENVID, MT-PRIORITY, BY; NOTIFY, ORCPT); others are kept byte for byte.
//! Lines end in CR LF; an envelope that ends every line in a bare LF is read too. Bounded: lines, recipients. No text that is
//! read can carry a line end or a parameter of its own into an SMTP command.

use core::fmt;

use crate::mail::{BodyKind, ByMode, DeliverBy, Envelope, Mailbox, MtPriority, Notify, Recipient, Ret, ReversePath};
use crate::time::{Duration, Wall};

/// Octets of a line, its end not counted.
pub const MAX_LINE: usize = 8192;
/// Recipients of a letter.
pub const MAX_RECIPIENTS: usize = 1000;
/// RFC 2852: seconds left, not yet a deadline.
pub type By = (i64, ByMode, bool);

/// One recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addressee {
    /// Where to, with NOTIFY and ORCPT.
    pub recipient: Recipient,
    /// Parameters this program does not know, as they stood.
    pub other: Vec<String>,
}

/// An envelope as MULE carries it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// Return path.
    pub from: ReversePath,
    /// SIZE, advisory.
    pub size: Option<u64>,
    /// BODY; `None` where it was not given.
    pub body: Option<BodyKind>,
    /// RET
    pub ret: Option<Ret>,
    /// ENVID, xtext byte for byte.
    pub envid: Option<String>,
    /// MT-PRIORITY
    pub mt_priority: Option<MtPriority>,
    /// BY: seconds left, mode, trace.
    pub by: Option<By>,
    /// SMTPUTF8, which is carried by agreement.
    pub smtputf8: bool,
    /// Parameters this program does not know, as they stood.
    pub other: Vec<String>,
    /// At least one.
    pub recipients: Vec<Addressee>,
}

/// Why a letter cannot be written or read. Lines count from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BsmtpError {
    /// The envelope does not end.
    Unfinished,
    /// A line longer than [`MAX_LINE`].
    LongLine(usize),
    /// Not UTF-8, or with a control character.
    Octets(usize),
    /// No `<path>`, or one that is no address.
    Path(usize),
    /// A parameter that is malformed, given twice, or with a value it cannot have.
    Parameter {
        /// Where.
        line: usize,
        /// Which.
        keyword: String,
    },
    /// Nobody is to have it.
    NoRecipient,
    /// More recipients than [`MAX_RECIPIENTS`].
    TooManyRecipients,
    /// REQUIRETLS: there is no TLS here.
    RequireTls,
    /// BY with mode R has passed.
    TooLate,
}

impl BsmtpError {
    /// The name of its counter.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unfinished => "envelope_unfinished",
            Self::LongLine(_) => "long_line",
            Self::Octets(_) => "bad_octets",
            Self::Path(_) => "bad_path",
            Self::Parameter { .. } => "bad_parameter",
            Self::NoRecipient => "no_recipient",
            Self::TooManyRecipients => "too_many_recipients",
            Self::RequireTls => "requiretls",
            Self::TooLate => "too_late",
        }
    }
}

impl fmt::Display for BsmtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("the envelope does not end"),
            Self::LongLine(line) => write!(f, "line {line} is longer than {MAX_LINE} octets"),
            Self::Octets(line) => write!(f, "line {line} has a control character or is not UTF-8"),
            Self::Path(line) => write!(f, "line {line} has no <path> or one that is no address"),
            Self::Parameter { line, keyword } => write!(f, "line {line}: {keyword} is malformed or given twice"),
            Self::NoRecipient => f.write_str("no recipient"),
            Self::TooManyRecipients => write!(f, "more than {MAX_RECIPIENTS} recipients"),
            Self::RequireTls => f.write_str("REQUIRETLS cannot be kept: P_MUL has no TLS"),
            Self::TooLate => f.write_str("the deadline of BY has passed"),
        }
    }
}

impl Letter {
    /// The letter of an envelope, at the moment it is sent.
    pub fn of(envelope: &Envelope, size: u64, now: Wall) -> Result<Self, BsmtpError> {
        if envelope.require_tls {
            return Err(BsmtpError::RequireTls);
        }
        let by =
            envelope.deliver_by.map(|by| (by.deadline.0.saturating_sub(now.0).div_euclid(1000), by.mode, by.trace));
        if by.is_some_and(|(seconds, mode, _)| mode == ByMode::Return && seconds <= 0) {
            return Err(BsmtpError::TooLate);
        }
        let addressee = |recipient: &Recipient| Addressee { recipient: recipient.clone(), other: Vec::new() };
        Ok(Self {
            from: envelope.from.clone(),
            size: Some(size),
            body: (envelope.body != BodyKind::SevenBit).then_some(envelope.body),
            ret: envelope.ret,
            envid: envelope.envid.clone(),
            mt_priority: envelope.mt_priority,
            by: by.map(|(seconds, mode, trace)| (seconds.clamp(-MAX_BY, MAX_BY), mode, trace)),
            smtputf8: envelope.smtputf8,
            other: Vec::new(),
            recipients: envelope.recipients.iter().map(addressee).collect(),
        })
    }

    /// The envelope of a letter that arrived now and is worth nothing after `expires`. What is in `other` is left behind.
    pub fn envelope(&self, now: Wall, expires: Wall) -> Envelope {
        let deadline = |seconds: i64| match u64::try_from(seconds) {
            Ok(left) => now.plus(Duration::from_secs(left)),
            Err(_) => Wall(now.0.saturating_add(seconds.saturating_mul(1000))),
        };
        Envelope {
            from: self.from.clone(),
            recipients: self.recipients.iter().map(|a| a.recipient.clone()).collect(),
            envid: self.envid.clone(),
            ret: self.ret,
            mt_priority: self.mt_priority,
            body: self.body.unwrap_or_default(),
            smtputf8: self.smtputf8,
            require_tls: false,
            deliver_by: self.by.map(|(seconds, mode, trace)| DeliverBy { deadline: deadline(seconds), mode, trace }),
            expires,
            auth: None,
        }
    }

    /// The text, its empty line included.
    pub fn write(&self) -> Result<Vec<u8>, BsmtpError> {
        match self.recipients.len() {
            0 => return Err(BsmtpError::NoRecipient),
            1..=MAX_RECIPIENTS => {}
            _ => return Err(BsmtpError::TooManyRecipients),
        }
        let mut text = format!("<{}>", self.from.as_ref().map_or("", Mailbox::as_str));
        let mut put = |keyword: &str, value: Option<String>| {
            if let Some(value) = value {
                text.push_str(&format!(" {keyword}={value}"));
            }
        };
        put("SIZE", self.size.map(|size| size.to_string()));
        put("BODY", self.body.map(|body| body_word(body).to_owned()));
        put("RET", self.ret.map(|ret| if ret == Ret::Full { "FULL" } else { "HDRS" }.to_owned()));
        put("ENVID", self.envid.clone());
        put("MT-PRIORITY", self.mt_priority.map(|priority| priority.to_string()));
        put(
            "BY",
            self.by.map(|(seconds, mode, trace)| {
                format!("{seconds};{}{}", if mode == ByMode::Return { "R" } else { "N" }, if trace { "T" } else { "" })
            }),
        );
        if self.smtputf8 {
            text.push_str(" SMTPUTF8");
        }
        self.other.iter().for_each(|other| text.push_str(&format!(" {other}")));
        for Addressee { recipient, other } in &self.recipients {
            text.push_str(&format!("\r\n<{}>", recipient.address));
            if let Some(notify) = recipient.notify {
                text.push_str(&format!(" NOTIFY={}", notify.words()));
            }
            if let Some(orcpt) = &recipient.orcpt {
                text.push_str(&format!(" ORCPT={orcpt}"));
            }
            other.iter().for_each(|other| text.push_str(&format!(" {other}")));
        }
        text.push_str("\r\n\r\n");
        // What is written must be readable: fields of this type are anybody's to fill.
        match Self::read(text.as_bytes()) {
            Ok((read, length)) if length == text.len() && read == *self => Ok(text.into_bytes()),
            Ok(_) => Err(BsmtpError::Parameter { line: 1, keyword: "a parameter".to_owned() }),
            Err(error) => Err(error),
        }
    }

    /// Reads the text in front of a content, and how long it is.
    pub fn read(text: &[u8]) -> Result<(Self, usize), BsmtpError> {
        let mut lines = Lines::over(text);
        let (path, words) = path_and_words(lines.next()?, 1)?;
        let mut letter = Self {
            from: address(path, 1)?,
            size: None,
            body: None,
            ret: None,
            envid: None,
            mt_priority: None,
            by: None,
            smtputf8: false,
            other: Vec::new(),
            recipients: Vec::new(),
        };
        for_each_word(words, 1, |keyword, value, word| letter.take(keyword, value, word))?;
        loop {
            let line = lines.next()?;
            if line.is_empty() {
                break;
            }
            if letter.recipients.len() == MAX_RECIPIENTS {
                return Err(BsmtpError::TooManyRecipients);
            }
            letter.recipients.push(Addressee::read(line, lines.number)?);
        }
        if letter.recipients.is_empty() {
            return Err(BsmtpError::NoRecipient);
        }
        Ok((letter, lines.at))
    }

    /// Takes a parameter of the first line; `None` where its value cannot be.
    fn take(&mut self, keyword: &str, value: Option<&str>, word: &str) -> Option<()> {
        match keyword {
            "SIZE" => self.size = Some(digits(value?, 20)?.parse().ok()?),
            "BODY" => {
                let word = value?.to_ascii_uppercase();
                self.body = Some(match word.as_str() {
                    "7BIT" => BodyKind::SevenBit,
                    "8BITMIME" => BodyKind::EightBitMime,
                    // RFC 8494 has the second in one place.
                    "BINARYMIME" | "BINARY" => BodyKind::BinaryMime,
                    _ => return None,
                });
            }
            "RET" if value?.eq_ignore_ascii_case("FULL") => self.ret = Some(Ret::Full),
            "RET" if value?.eq_ignore_ascii_case("HDRS") => self.ret = Some(Ret::Headers),
            "RET" => return None,
            "ENVID" => self.envid = Some(value?.to_owned()),
            "MT-PRIORITY" => self.mt_priority = Some(MtPriority::parse(value?)?),
            "BY" => self.by = Some(by(value?)?),
            "SMTPUTF8" if value.is_none() => self.smtputf8 = true,
            "SMTPUTF8" => return None,
            _ => self.other.push(word.to_owned()),
        }
        Some(())
    }
}

impl Addressee {
    fn read(line: &str, number: usize) -> Result<Self, BsmtpError> {
        let (path, words) = path_and_words(line, number)?;
        let to = address(path, number)?.ok_or(BsmtpError::Path(number))?;
        let mut out = Self { recipient: Recipient::plain(to), other: Vec::new() };
        for_each_word(words, number, |keyword, value, word| {
            match keyword {
                "NOTIFY" => out.recipient.notify = Some(Notify::parse(value?)?),
                "ORCPT" => {
                    let value = value?;
                    out.recipient.orcpt =
                        value.split_once(';').is_some_and(|(kind, _)| !kind.is_empty()).then(|| value.to_owned());
                    out.recipient.orcpt.as_ref()?;
                }
                _ => out.other.push(word.to_owned()),
            }
            Some(())
        })?;
        Ok(out)
    }
}

/// Seconds of BY as nine digits can say them.
const MAX_BY: i64 = 999_999_999;

const fn body_word(body: BodyKind) -> &'static str {
    match body {
        BodyKind::SevenBit => "7BIT",
        BodyKind::EightBitMime => "8BITMIME",
        BodyKind::BinaryMime => "BINARYMIME",
    }
}

fn by(value: &str) -> Option<By> {
    let (time, flags) = value.split_once(';')?;
    let (negative, number) = match time.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, time.strip_prefix('+').unwrap_or(time)),
    };
    let seconds: i64 = digits(number, 9)?.parse().ok()?;
    let (mode, trace) = match flags.to_ascii_uppercase().as_str() {
        "R" => (ByMode::Return, false),
        "RT" => (ByMode::Return, true),
        "N" => (ByMode::Notify, false),
        "NT" => (ByMode::Notify, true),
        _ => return None,
    };
    let seconds = if negative { -seconds } else { seconds };
    (mode == ByMode::Notify || seconds > 0).then_some((seconds, mode, trace))
}

fn digits(text: &str, most: usize) -> Option<&str> {
    ((1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

/// What is in the brackets, and what is behind them.
fn path_and_words(line: &str, number: usize) -> Result<(&str, &str), BsmtpError> {
    let inner = line.strip_prefix('<').ok_or(BsmtpError::Path(number))?;
    let (mut quoted, mut escaped) = (false, false);
    let end = inner.bytes().position(|b| {
        if escaped {
            escaped = false;
        } else if quoted && b == b'\\' {
            escaped = true;
        } else if b == b'"' {
            quoted = !quoted;
        }
        b == b'>' && !quoted
    });
    let (path, rest) = inner.split_at(end.ok_or(BsmtpError::Path(number))?);
    let rest = &rest[1..];
    if rest.is_empty() || rest.starts_with(' ') { Ok((path, rest)) } else { Err(BsmtpError::Path(number)) }
}

/// The address of a path without its source route; `None` is the null path.
fn address(path: &str, number: usize) -> Result<ReversePath, BsmtpError> {
    let path = match path.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, address)) => address,
        None => path,
    };
    if path.is_empty() {
        return Ok(None);
    }
    let (mut quoted, mut escaped) = (false, false);
    for c in path.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' | '<' | '>' if !quoted => return Err(BsmtpError::Path(number)),
            _ => {}
        }
    }
    let mailbox = Mailbox::new(path);
    let whole = !mailbox.local().is_empty() && !mailbox.domain().is_empty() || path.eq_ignore_ascii_case("postmaster");
    if whole && !quoted { Ok(Some(mailbox)) } else { Err(BsmtpError::Path(number)) }
}

/// Hands each `KEY[=value]` to `take`, which knows it or keeps it; a second one of a kind is refused.
fn for_each_word(
    words: &str,
    line: usize,
    mut take: impl FnMut(&str, Option<&str>, &str) -> Option<()>,
) -> Result<(), BsmtpError> {
    let mut seen: Vec<String> = Vec::new();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
            None => (word.to_ascii_uppercase(), None),
        };
        let refuse = |keyword: &str| BsmtpError::Parameter { line, keyword: keyword.chars().take(40).collect() };
        let sound = keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && keyword.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && value != Some("");
        if !sound || seen.contains(&keyword) {
            return Err(refuse(&keyword));
        }
        if keyword == "REQUIRETLS" {
            return Err(BsmtpError::RequireTls);
        }
        take(&keyword, value, word).ok_or_else(|| refuse(&keyword))?;
        seen.push(keyword);
    }
    Ok(())
}

/// The lines of an envelope, which all end the same way.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    number: usize,
    bare: bool,
}

impl<'a> Lines<'a> {
    fn over(text: &'a [u8]) -> Self {
        let first = text.iter().position(|b| *b == b'\n');
        let bare = first.is_some_and(|at| at == 0 || text[at - 1] != b'\r');
        Self { text, at: 0, number: 0, bare }
    }

    fn next(&mut self) -> Result<&'a str, BsmtpError> {
        self.number += 1;
        let rest = &self.text[self.at..];
        let window = &rest[..rest.len().min(MAX_LINE + 2)];
        let Some(end) = window.iter().position(|b| *b == b'\n') else {
            let long = rest.len() > MAX_LINE + 1;
            return Err(if long { BsmtpError::LongLine(self.number) } else { BsmtpError::Unfinished });
        };
        self.at += end + 1;
        let line = if self.bare { &window[..end] } else { window[..end].strip_suffix(b"\r").unwrap_or(b"\n") };
        if line.len() > MAX_LINE {
            return Err(BsmtpError::LongLine(self.number));
        }
        let line = core::str::from_utf8(line).ok().filter(|line| !line.chars().any(char::is_control));
        line.ok_or(BsmtpError::Octets(self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Letter, BsmtpError> {
        Letter::read(text.as_bytes()).map(|(letter, _)| letter)
    }

    #[test]
    fn every_parameter_is_read_and_written_as_it_stood() {
        let text = "<a@x.example> SIZE=120 BODY=8BITMIME RET=HDRS ENVID=q+2B1 MT-PRIORITY=-2 BY=3600;RT SMTPUTF8 AUTH=<> \
            SUBMITTER=b@x\r\n<b@y> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@y RRVS=2014-04-03T23:01:00Z;C\r\n<\"c d>\"@z>\r\n\r\n";
        let (letter, length) = Letter::read(format!("{text}Subject: t\r\n\r\nhi").as_bytes()).expect("read");
        assert_eq!(length, text.len());
        assert_eq!(
            (letter.size, letter.body, letter.ret),
            (Some(120), Some(BodyKind::EightBitMime), Some(Ret::Headers))
        );
        assert_eq!(letter.by, Some((3600, ByMode::Return, true)));
        assert_eq!(letter.other, ["AUTH=<>", "SUBMITTER=b@x"]);
        assert_eq!(letter.recipients[0].other, ["RRVS=2014-04-03T23:01:00Z;C"]);
        assert_eq!(letter.recipients[1].recipient.address.as_str(), "\"c d>\"@z");
        assert_eq!(String::from_utf8(letter.write().expect("written")).as_deref(), Ok(text));
    }

    #[test]
    fn an_envelope_comes_back_but_for_what_mule_cannot_carry() {
        let now = Wall::from_seconds(1_800_000_000);
        let mut envelope = read("<> MT-PRIORITY=4 BODY=BINARYMIME BY=-5;N\r\n<b@y> NOTIFY=NEVER\r\n\r\n")
            .expect("read")
            .envelope(now, Wall::NEVER);
        assert_eq!(envelope.deliver_by.map(|by| by.deadline), Some(Wall::from_seconds(1_799_999_995)));
        assert_eq!(envelope.recipients[0].notify, Some(Notify::NEVER));
        let letter = Letter::of(&envelope, 10, now).expect("carried");
        assert_eq!(letter.envelope(now, Wall::NEVER), envelope);
        let later = Letter::of(&envelope, 10, now.plus(Duration::from_secs(60))).expect("carried");
        assert_eq!(later.by, Some((-65, ByMode::Notify, false)));
        envelope.deliver_by =
            Some(DeliverBy { deadline: now.plus(Duration::from_secs(5)), mode: ByMode::Return, trace: false });
        let too_late = Letter::of(&envelope, 10, now.plus(Duration::from_secs(5)));
        assert_eq!(too_late, Err(BsmtpError::TooLate));
        envelope.require_tls = true;
        assert_eq!(Letter::of(&envelope, 10, now), Err(BsmtpError::RequireTls));
    }

    #[test]
    fn bare_line_feeds_are_read_where_every_line_has_one() {
        assert_eq!(read("<a@x>\n<b@y>\n\nSubject: t\r\n\r\n").map(|l| l.recipients.len()), Ok(1));
        assert_eq!(read("<a@x>\r\n<b@y>\n\r\n"), Err(BsmtpError::Octets(2)));
        assert_eq!(read("<a@x>\n<b@y>\r\n\n"), Err(BsmtpError::Octets(2)));
        assert_eq!(
            read("<a@x> BODY=BINARY\r\n<@r,@s:b@y>\r\n\r\n")
                .map(|l| (l.body, l.recipients[0].recipient.address.clone())),
            Ok((Some(BodyKind::BinaryMime), Mailbox::new("b@y")))
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let parameter = |line, keyword: &str| BsmtpError::Parameter { line, keyword: keyword.to_owned() };
        for (text, error) in [
            ("", BsmtpError::Unfinished),
            ("<a@x>\r\n<b@y>\r\n", BsmtpError::Unfinished),
            ("<a@x>\r\n\r\n", BsmtpError::NoRecipient),
            ("MAIL FROM:<a@x>\r\n<b@y>\r\n\r\n", BsmtpError::Path(1)),
            ("<a@x>SIZE=1\r\n<b@y>\r\n\r\n", BsmtpError::Path(1)),
            ("<a@x\r\n<b@y>\r\n\r\n", BsmtpError::Path(1)),
            ("<a>\r\n<b@y>\r\n\r\n", BsmtpError::Path(1)),
            ("<a@x>\r\n<>\r\n\r\n", BsmtpError::Path(2)),
            ("<a@x>\r\n<b c@y>\r\n\r\n", BsmtpError::Path(2)),
            ("<a@x>\r\n<b\t@y>\r\n\r\n", BsmtpError::Octets(2)),
            ("<a@x> SIZE=1 SIZE=1\r\n<b@y>\r\n\r\n", parameter(1, "SIZE")),
            ("<a@x> size=-1\r\n<b@y>\r\n\r\n", parameter(1, "SIZE")),
            ("<a@x> BODY=9BIT\r\n<b@y>\r\n\r\n", parameter(1, "BODY")),
            ("<a@x> RET=\r\n<b@y>\r\n\r\n", parameter(1, "RET")),
            ("<a@x> RET\r\n<b@y>\r\n\r\n", parameter(1, "RET")),
            ("<a@x> MT-PRIORITY=10\r\n<b@y>\r\n\r\n", parameter(1, "MT-PRIORITY")),
            ("<a@x> BY=0;R\r\n<b@y>\r\n\r\n", parameter(1, "BY")),
            ("<a@x> BY=5\r\n<b@y>\r\n\r\n", parameter(1, "BY")),
            ("<a@x> X_Y=5\r\n<b@y>\r\n\r\n", parameter(1, "X_Y")),
            ("<a@x>\r\n<b@y> NOTIFY=NEVER,SUCCESS\r\n\r\n", parameter(2, "NOTIFY")),
            ("<a@x>\r\n<b@y> ORCPT=b@y\r\n\r\n", parameter(2, "ORCPT")),
            ("<a@x> REQUIRETLS\r\n<b@y>\r\n\r\n", BsmtpError::RequireTls),
        ] {
            assert_eq!(read(text), Err(error.clone()), "{text:?}");
            assert!(!error.to_string().is_empty() && !error.name().contains(' '));
        }
        assert_eq!(read(&format!("<a@x> A={}\r\n<b@y>\r\n\r\n", "x".repeat(MAX_LINE))), Err(BsmtpError::LongLine(1)));
        assert_eq!(Letter::read(b"<a@x>\r\n<\xff@y>\r\n\r\n"), Err(BsmtpError::Octets(2)));
        let crowd = "<b@y>\r\n".repeat(MAX_RECIPIENTS + 1);
        assert_eq!(read(&format!("<a@x>\r\n{crowd}\r\n")), Err(BsmtpError::TooManyRecipients));
    }

    #[test]
    fn a_field_that_would_become_a_line_of_its_own_is_not_written() {
        let mut letter = read("<a@x>\r\n<b@y>\r\n\r\n").expect("read");
        letter.envid = Some("x\r\n<mallory@z>".to_owned());
        assert!(letter.write().is_err());
        letter.envid = Some("x SIZE=3".to_owned());
        assert!(letter.write().is_err());
        letter.envid = None;
        letter.recipients[0].recipient.address = Mailbox::new("b@y> NOTIFY=NEVER");
        assert!(letter.write().is_err());
    }
}
