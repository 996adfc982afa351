//! Command lines of SMTP: strict in form, generous in case. [`parse`] turns one line into a [`Command`] or into the reply that refuses it.
//!
//! RFC 5321 4.1, with the parameters of RFC 1870, 2852, 3030, 3461, 3885, 4865, 4954, 6152, 6531 and 6710. The server calls it for every line;
//! the client uses [`mailbox`] and [`is_xtext`] so that nothing a distant node put into an envelope can become a command.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Reply;
use crate::mail::{
    BodyKind, ByMode, Mailbox, MtPriority, Notify, Release, ReleaseAsked, Ret, ReversePath, Status, Tracking,
};
use crate::time::Wall;

/// Octets of a path, angle brackets included (RFC 5321 4.5.3.1.3). Long local parts are common in bounce addresses,
/// so only the whole is bounded.
const MAX_PATH: usize = 256;
const MAX_DOMAIN: usize = 255;
const MAX_ENVID: usize = 100;
const MAX_ORCPT: usize = 500;

/// What of the optional grammar is announced, so that the rest can be refused with 555.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grammar {
    /// SMTPUTF8 holds in the transaction under way: RCPT may carry UTF-8.
    pub utf8: bool,
    /// DELIVERBY is announced, with this least number of seconds for mode R.
    pub deliver_by: Option<u32>,
    /// LMTP: sessions open with LHLO and nothing else (RFC 2033 4.1).
    pub lmtp: bool,
    /// REQUIRETLS is announced: TLS is on.
    pub require_tls: bool,
    /// FUTURERELEASE is announced.
    pub future_release: bool,
    /// MTRK is announced.
    pub mtrk: bool,
}

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// EHLO, or LHLO where LMTP is spoken, with the client's name.
    Ehlo(String),
    /// HELO with the client's name.
    Helo(String),
    /// MAIL
    Mail(Box<Mail>),
    /// RCPT
    Rcpt(Box<Rcpt>),
    /// DATA
    Data,
    /// BDAT
    Bdat {
        /// Octets that follow.
        size: u64,
        /// The message ends with them.
        last: bool,
    },
    /// BURL
    Burl {
        /// The URL, unread.
        url: String,
        /// The message ends with what it stands for.
        last: bool,
    },
    /// AUTH
    Auth {
        /// The mechanism in upper case.
        mechanism: String,
        /// Initial response as it stands, `=` for an empty one.
        initial: Option<String>,
    },
    /// STARTTLS
    StartTls,
    /// RSET
    Rset,
    /// NOOP
    Noop,
    /// QUIT
    Quit,
    /// VRFY
    Vrfy,
    /// EXPN
    Expn,
    /// HELP
    Help,
}

/// MAIL FROM and its parameters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mail {
    /// The return path.
    pub from: ReversePath,
    /// SIZE
    pub size: Option<u64>,
    /// BODY
    pub body: BodyKind,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// REQUIRETLS
    pub require_tls: bool,
    /// RET
    pub ret: Option<Ret>,
    /// ENVID, xtext as given.
    pub envid: Option<String>,
    /// MT-PRIORITY
    pub mt_priority: Option<MtPriority>,
    /// BY
    pub by: Option<By>,
    /// HOLDFOR or HOLDUNTIL
    pub hold: Option<ReleaseAsked>,
    /// The release that follows from it; set by the session.
    pub release: Option<Release>,
    /// MTRK
    pub tracking: Option<Tracking>,
    /// AUTH, xtext as given (RFC 4954 5).
    pub auth: Option<String>,
}

/// RFC 2852 BY: seconds from the command, not yet a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct By {
    /// Seconds left; negative is possible with mode N.
    pub seconds: i64,
    /// What to do at the deadline.
    pub mode: ByMode,
    /// T: report each relay.
    pub trace: bool,
}

/// RCPT TO and its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rcpt {
    /// The recipient; a bare `postmaster` has no domain.
    pub to: Mailbox,
    /// NOTIFY
    pub notify: Option<Notify>,
    /// ORCPT as given.
    pub orcpt: Option<String>,
}

/// Reads one command line, without its CRLF.
pub fn parse(line: &[u8], grammar: Grammar) -> Result<Command, Reply> {
    if line.iter().any(|b| b.is_ascii_control()) {
        return Err(Reply::new(500, Status(5, 5, 2), "control character in command"));
    }
    let Ok(line) = core::str::from_utf8(line) else {
        return Err(Reply::new(500, Status(5, 5, 2), "command is not UTF-8"));
    };
    let line = line.trim_end_matches(' ');
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let verb = verb.to_ascii_uppercase();
    // Only paths may hold UTF-8, and only once SMTPUTF8 was given (RFC 6531 3.4, 3.7.4).
    if !rest.is_ascii() && !matches!(verb.as_str(), "MAIL" | "RCPT" | "VRFY" | "EXPN") {
        return Err(Reply::new(501, Status(5, 5, 2), "UTF-8 is not allowed here"));
    }
    match verb.as_str() {
        "LHLO" if grammar.lmtp => hello(rest).map(Command::Ehlo),
        "EHLO" | "HELO" if grammar.lmtp => Err(Reply::new(500, Status(5, 5, 1), "this is LMTP, say LHLO")),
        "EHLO" => hello(rest).map(Command::Ehlo),
        "HELO" => hello(rest).map(Command::Helo),
        "MAIL" => mail(rest, grammar).map(|m| Command::Mail(Box::new(m))),
        "RCPT" => rcpt(rest, grammar).map(|r| Command::Rcpt(Box::new(r))),
        "DATA" => alone(rest, Command::Data),
        "BDAT" => bdat(rest),
        "BURL" => burl(rest),
        "AUTH" => auth(rest),
        "STARTTLS" => alone(rest, Command::StartTls),
        "RSET" => alone(rest, Command::Rset),
        "QUIT" => alone(rest, Command::Quit),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" if !rest.is_empty() => Ok(Command::Vrfy),
        "EXPN" if !rest.is_empty() => Ok(Command::Expn),
        "VRFY" | "EXPN" => Err(Reply::new(501, Status(5, 5, 4), "who?")),
        "ETRN" | "ATRN" | "TURN" | "SEND" | "SOML" | "SAML" | "LHLO" => {
            Err(Reply::new(502, Status(5, 5, 1), "command not implemented"))
        }
        _ => Err(Reply::new(500, Status(5, 5, 2), "command not recognised")),
    }
}

fn alone(rest: &str, command: Command) -> Result<Command, Reply> {
    if rest.is_empty() { Ok(command) } else { Err(Reply::new(501, Status(5, 5, 4), "no parameters allowed")) }
}

fn hello(rest: &str) -> Result<String, Reply> {
    if domain(rest, false) {
        return Ok(rest.to_owned());
    }
    Err(Reply::new(501, Status(5, 5, 4), "name is neither a domain nor an address literal"))
}

fn bdat(rest: &str) -> Result<Command, Reply> {
    let refuse = || Reply::new(501, Status(5, 5, 4), "BDAT size [LAST]");
    let (size, last) = match rest.split_once(' ') {
        None => (rest, false),
        Some((size, word)) if word.eq_ignore_ascii_case("LAST") => (size, true),
        Some(_) => return Err(refuse()),
    };
    if size.is_empty() || !size.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    // More digits than a u64 holds is a size like any other, only one nobody can send.
    Ok(Command::Bdat { size: size.parse().unwrap_or(u64::MAX), last })
}

fn burl(rest: &str) -> Result<Command, Reply> {
    let (url, last) = match rest.split_once(' ') {
        None => (rest, false),
        Some((url, word)) if word.eq_ignore_ascii_case("LAST") => (url, true),
        Some(_) => ("", false),
    };
    if url.is_empty() {
        return Err(Reply::new(501, Status(5, 5, 4), "BURL url [LAST]"));
    }
    Ok(Command::Burl { url: url.to_owned(), last })
}

fn auth(rest: &str) -> Result<Command, Reply> {
    let (mechanism, initial) = match rest.split_once(' ') {
        None => (rest, None),
        Some((mechanism, initial)) => (mechanism, Some(initial)),
    };
    let sane = !mechanism.is_empty() && mechanism.len() <= 20 && mechanism.bytes().all(|b| b.is_ascii_graphic());
    if !sane || initial.is_some_and(|i| i.is_empty() || i.contains(' ')) {
        return Err(Reply::new(501, Status(5, 5, 4), "AUTH mechanism [initial-response]"));
    }
    Ok(Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial: initial.map(str::to_owned) })
}

fn mail(rest: &str, grammar: Grammar) -> Result<Mail, Reply> {
    let Some(rest) = strip_prefix_any_case(rest, "FROM:") else {
        return Err(Reply::new(501, Status(5, 5, 4), "MAIL FROM:<path> [parameters]"));
    };
    let bad_path = || Reply::new(501, Status(5, 1, 7), "bad sender address syntax");
    let (path, params) = split_path(rest).ok_or_else(bad_path)?;
    let mut out = Mail::default();
    let mut seen = Vec::new();
    for (keyword, value) in parameters(params)? {
        if seen.contains(&keyword) {
            let detail = if keyword == "MT-PRIORITY" { 2 } else { 4 };
            return Err(Reply::new(501, Status(5, 5, detail), format!("{keyword} given twice")));
        }
        mail_parameter(&mut out, &keyword, value, grammar)?;
        seen.push(keyword);
    }
    if out.tracking.is_some() && !out.envid.as_deref().is_some_and(names_message) {
        return Err(Reply::new(501, Status(5, 5, 4), "MTRK needs ENVID=local@host"));
    }
    if !path.is_empty() {
        if !path.is_ascii() && !out.smtputf8 {
            return Err(Reply::new(553, Status(5, 6, 7), "UTF-8 address without SMTPUTF8"));
        }
        out.from = Some(mailbox(path, out.smtputf8).ok_or_else(bad_path)?);
    }
    Ok(out)
}

fn mail_parameter(out: &mut Mail, keyword: &str, value: Option<&str>, grammar: Grammar) -> Result<(), Reply> {
    let bad = |what: &str| Reply::new(501, Status(5, 5, 4), format!("bad value of {what}"));
    match keyword {
        "SIZE" => {
            let digits = value.filter(|v| (1..=20).contains(&v.len()) && v.bytes().all(|b| b.is_ascii_digit()));
            out.size = Some(digits.ok_or_else(|| bad("SIZE"))?.parse().unwrap_or(u64::MAX));
        }
        "BODY" => {
            let value = value.unwrap_or_default();
            out.body = if value.eq_ignore_ascii_case("7BIT") {
                BodyKind::SevenBit
            } else if value.eq_ignore_ascii_case("8BITMIME") {
                BodyKind::EightBitMime
            } else if value.eq_ignore_ascii_case("BINARYMIME") {
                BodyKind::BinaryMime
            } else {
                return Err(bad("BODY"));
            };
        }
        "SMTPUTF8" if value.is_none() => out.smtputf8 = true,
        "SMTPUTF8" => return Err(bad("SMTPUTF8")),
        "REQUIRETLS" if grammar.require_tls && value.is_none() => out.require_tls = true,
        "REQUIRETLS" if grammar.require_tls => return Err(bad("REQUIRETLS")),
        "RET" => {
            let value = value.unwrap_or_default();
            out.ret = Some(if value.eq_ignore_ascii_case("FULL") {
                Ret::Full
            } else if value.eq_ignore_ascii_case("HDRS") {
                Ret::Headers
            } else {
                return Err(bad("RET"));
            });
        }
        "ENVID" => {
            let value = value.filter(|v| v.len() <= MAX_ENVID && is_xtext(v)).ok_or_else(|| bad("ENVID"))?;
            out.envid = Some(value.to_owned());
        }
        "MT-PRIORITY" => {
            let refuse = || Reply::new(501, Status(5, 5, 2), "MT-PRIORITY is -9 to 9");
            out.mt_priority = Some(value.and_then(MtPriority::parse).ok_or_else(refuse)?);
        }
        // RFC 4954 5: taken from anybody; whom it is believed of, the session knows.
        "AUTH" => {
            let value = value.filter(|v| v.len() <= MAX_ORCPT && is_xtext(v)).ok_or_else(|| bad("AUTH"))?;
            out.auth = Some(value.to_owned());
        }
        "HOLDFOR" | "HOLDUNTIL" if grammar.future_release => {
            if out.hold.is_some() {
                return Err(Reply::new(501, Status(5, 5, 4), "HOLDFOR or HOLDUNTIL, not both"));
            }
            let value = value.unwrap_or_default();
            let hold = if keyword == "HOLDFOR" { hold_for(value) } else { hold_until(value) };
            out.hold = Some(hold.ok_or_else(|| bad(keyword))?);
        }
        "MTRK" if grammar.mtrk => {
            out.tracking = Some(value.and_then(tracking).ok_or_else(|| bad(keyword))?);
        }
        "BY" if grammar.deliver_by.is_some() => {
            out.by = Some(by(value.unwrap_or_default(), grammar.deliver_by.unwrap_or(0))?);
        }
        _ => return Err(unknown(keyword)),
    }
    Ok(())
}

/// RFC 3885 3.1: a SHA-1 hash in base64, with or without its padding, and perhaps seconds.
fn tracking(value: &str) -> Option<Tracking> {
    let (certifier, seconds) = match value.split_once(':') {
        None => (value, None),
        Some((certifier, seconds)) => (certifier, Some(seconds)),
    };
    let certifier = certifier.strip_suffix('=').unwrap_or(certifier);
    let hash = data_encoding::BASE64_NOPAD.decode(certifier.as_bytes()).ok()?;
    let seconds = match seconds {
        None => None,
        Some(text) => {
            let sound = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            Some(text.parse().ok().filter(|_| sound)?)
        }
    };
    (hash.len() == 20).then(|| Tracking { certifier: certifier.to_owned(), seconds })
}

/// RFC 3885 3.1: whether an ENVID is unique in the world, `local@host`.
fn names_message(envid: &str) -> bool {
    let text = xtext_decode(envid).and_then(|octets| String::from_utf8(octets).ok()).unwrap_or_default();
    text.rsplit_once('@').is_some_and(|(local, host)| !local.is_empty() && host.is_ascii() && domain(host, false))
}

/// RFC 4865 4.2: 1 to 999999999 seconds.
fn hold_for(value: &str) -> Option<ReleaseAsked> {
    let sound = (1..=9).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|seconds| sound && *seconds > 0).map(ReleaseAsked::For)
}

/// RFC 4865 4.2: a date-time of RFC 3339 in UTC.
fn hold_until(value: &str) -> Option<ReleaseAsked> {
    let sound = value.len() <= 40 && value.ends_with('Z');
    Wall::parse_rfc3339(value).filter(|_| sound).map(ReleaseAsked::Until)
}

fn by(value: &str, least: u32) -> Result<By, Reply> {
    let refuse = || Reply::new(501, Status(5, 5, 4), "BY=seconds;R|N[T]");
    let (time, flags) = value.split_once(';').ok_or_else(refuse)?;
    let (negative, digits) = match time.as_bytes() {
        [b'-', ..] => (true, time.get(1..).unwrap_or_default()),
        [b'+', ..] => (false, time.get(1..).unwrap_or_default()),
        _ => (false, time),
    };
    if !(1..=9).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    let seconds: i64 = digits.parse().map_err(|_| refuse())?;
    let seconds = if negative { -seconds } else { seconds };
    let (mode, trace) = match flags.to_ascii_uppercase().as_str() {
        "R" => (ByMode::Return, false),
        "RT" => (ByMode::Return, true),
        "N" => (ByMode::Notify, false),
        "NT" => (ByMode::Notify, true),
        _ => return Err(refuse()),
    };
    if mode == ByMode::Return {
        if seconds <= 0 {
            return Err(refuse());
        }
        if seconds < i64::from(least) {
            return Err(Reply::new(555, Status(5, 5, 4), format!("BY less than {least} seconds cannot be kept")));
        }
    }
    Ok(By { seconds, mode, trace })
}

fn rcpt(rest: &str, grammar: Grammar) -> Result<Rcpt, Reply> {
    let Some(rest) = strip_prefix_any_case(rest, "TO:") else {
        return Err(Reply::new(501, Status(5, 5, 4), "RCPT TO:<path> [parameters]"));
    };
    let bad_path = || Reply::new(501, Status(5, 1, 3), "bad recipient address syntax");
    let (path, params) = split_path(rest).ok_or_else(bad_path)?;
    if !path.is_ascii() && !grammar.utf8 {
        return Err(Reply::new(553, Status(5, 6, 7), "UTF-8 address without SMTPUTF8"));
    }
    let to = if path.eq_ignore_ascii_case("postmaster") {
        Mailbox::new(path)
    } else {
        mailbox(path, grammar.utf8).ok_or_else(bad_path)?
    };
    let mut out = Rcpt { to, notify: None, orcpt: None };
    for (keyword, value) in parameters(params)? {
        let bad = || Reply::new(501, Status(5, 5, 4), format!("bad or second {keyword}"));
        match keyword.as_str() {
            "NOTIFY" if out.notify.is_none() => {
                out.notify = Some(value.and_then(Notify::parse).ok_or_else(bad)?);
            }
            "ORCPT" if out.orcpt.is_none() => {
                out.orcpt = Some(value.filter(|v| is_orcpt(v, grammar.utf8)).ok_or_else(bad)?.to_owned());
            }
            "NOTIFY" | "ORCPT" => return Err(bad()),
            _ => return Err(unknown(&keyword)),
        }
    }
    Ok(out)
}

/// Whether `value` is `type;xtext` as ORCPT wants it (RFC 3461 4.2, RFC 6533 3).
pub fn is_orcpt(value: &str, utf8: bool) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let raw_utf8 = utf8 && kind.eq_ignore_ascii_case("utf-8") && !address.is_empty();
    !kind.is_empty()
        && value.len() <= MAX_ORCPT
        && kind.bytes().all(is_atext)
        && (is_xtext(address) || raw_utf8 && address.chars().all(|c| !c.is_ascii() || is_xchar(c as u8)))
}

fn unknown(keyword: &str) -> Reply {
    Reply::new(555, Status(5, 5, 4), format!("{keyword} parameter not recognised"))
}

/// Splits `KEY[=value] …`, keywords in upper case.
fn parameters(text: &str) -> Result<Vec<(String, Option<&str>)>, Reply> {
    let mut out = Vec::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            None => (word, None),
            Some((keyword, value)) => (keyword, Some(value)),
        };
        let well_formed = keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && keyword.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if !well_formed {
            return Err(Reply::new(501, Status(5, 5, 4), "malformed parameter"));
        }
        out.push((keyword.to_ascii_uppercase(), value));
    }
    Ok(out)
}

fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| text.get(prefix.len()..))?
}

/// Splits `<path> parameters` into the path without brackets and source route, and the rest.
fn split_path(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('<')?;
    let mut quoted = false;
    let mut escaped = false;
    let end = inner.bytes().position(|b| {
        if escaped {
            escaped = false;
        } else if quoted && b == b'\\' {
            escaped = true;
        } else if b == b'"' {
            quoted = !quoted;
        }
        b == b'>' && !quoted
    })?;
    let (path, rest) = (inner.get(..end)?, inner.get(end + 1..)?);
    if path.len() + 2 > MAX_PATH || !(rest.is_empty() || rest.starts_with(' ')) {
        return None;
    }
    Some((strip_route(path)?, rest))
}

/// Drops a source route `@a,@b:` (RFC 5321 4.1.1.3: must be accepted, should be ignored).
fn strip_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let (route, path) = path.split_once(':')?;
    let sound = route.split(',').all(|hop| hop.strip_prefix('@').is_some_and(|d| domain(d, true)));
    (sound && !path.is_empty()).then_some(path)
}

/// Reads `local@domain`; UTF-8 only when `utf8`.
pub fn mailbox(text: &str, utf8: bool) -> Option<Mailbox> {
    if !utf8 && !text.is_ascii() || text.len() + 2 > MAX_PATH || text.bytes().any(|b| b.is_ascii_control()) {
        return None;
    }
    let local_end = if text.starts_with('"') { quoted_end(text)? } else { text.find('@')? };
    let (local, rest) = (text.get(..local_end)?, text.get(local_end..)?);
    let sound = local.starts_with('"') || dot_string(local);
    (sound && domain(rest.strip_prefix('@')?, utf8)).then(|| Mailbox::new(text))
}

/// The offset just past the closing quote.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(i + 1),
            _ => {}
        }
    }
    None
}

fn dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(|b| is_atext(b) || !b.is_ascii()))
}

const fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'/'
                | b'='
                | b'?'
                | b'^'
                | b'_'
                | b'`'
                | b'{'
                | b'|'
                | b'}'
                | b'~'
        )
}

/// Whether `text` is a domain or an address literal. Underscores are let through: they occur in real host names.
fn domain(text: &str, utf8: bool) -> bool {
    if text.is_empty() || text.len() > MAX_DOMAIN {
        return false;
    }
    if let Some(literal) = text.strip_prefix('[') {
        let Some(literal) = literal.strip_suffix(']') else { return false };
        let v6 = literal.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).and_then(|_| literal.get(5..));
        return match v6 {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => literal.parse::<Ipv4Addr>().is_ok(),
        };
    }
    text.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || utf8 && !b.is_ascii())
    })
}

const fn is_xchar(b: u8) -> bool {
    b >= 33 && b <= 126 && b != b'+' && b != b'='
}

/// Whether `text` is non-empty xtext (RFC 3461 4): printable ASCII, with `+HH` for the rest.
pub fn is_xtext(text: &str) -> bool {
    !text.is_empty() && xtext_decode(text).is_some()
}

/// Decodes xtext; hex digits are taken in either case. `None` when malformed.
pub fn xtext_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'+' {
            let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
            out.push(digit(bytes.next()?)? << 4 | digit(bytes.next()?)?);
        } else if is_xchar(b) {
            out.push(b);
        } else {
            return None;
        }
    }
    Some(out)
}

/// Encodes octets as xtext, hex digits in upper case.
pub fn xtext_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for b in bytes {
        if is_xchar(*b) {
            out.push(*b as char);
        } else {
            out.push_str(&format!("+{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Grammar = Grammar {
        utf8: false,
        deliver_by: Some(0),
        lmtp: false,
        require_tls: false,
        future_release: false,
        mtrk: false,
    };

    fn code(line: &str) -> (u16, String) {
        match parse(line.as_bytes(), ALL) {
            Ok(_) => (250, String::new()),
            Err(reply) => (reply.code, reply.enhanced.map(|s| s.to_string()).unwrap_or_default()),
        }
    }

    fn parse_mail(line: &str) -> Mail {
        match parse(line.as_bytes(), ALL) {
            Ok(Command::Mail(m)) => *m,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn parse_rcpt(line: &str, utf8: bool) -> Result<Rcpt, Reply> {
        match parse(line.as_bytes(), Grammar { utf8, ..ALL })? {
            Command::Rcpt(r) => Ok(*r),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn verbs_are_known_in_any_case() {
        assert_eq!(parse(b"ehlo [127.0.0.1]", ALL), Ok(Command::Ehlo("[127.0.0.1]".into())));
        assert_eq!(parse(b"EHLO [IPv6:::1]", ALL), Ok(Command::Ehlo("[IPv6:::1]".into())));
        assert_eq!(parse(b"bDaT 12 last", ALL), Ok(Command::Bdat { size: 12, last: true }));
        assert_eq!(parse(b"NOOP anything at all", ALL), Ok(Command::Noop));
        assert_eq!(parse(b"QUIT  ", ALL), Ok(Command::Quit));
        assert_eq!(
            parse(b"AUTH plain =", ALL),
            Ok(Command::Auth { mechanism: "PLAIN".into(), initial: Some("=".into()) })
        );
        let mail = parse_mail("mAiL fRoM:<a@x.example> body=8bitmime size=12 ret=hdrs envid=q+2b");
        assert_eq!((mail.body, mail.size, mail.ret), (BodyKind::EightBitMime, Some(12), Some(Ret::Headers)));
        assert_eq!(mail.envid.as_deref(), Some("q+2b"));
    }

    #[test]
    fn refusals_carry_the_codes_of_the_profile() {
        for (line, want, status) in [
            ("", 500, "5.5.2"),
            ("FROBNICATE now", 500, "5.5.2"),
            ("EHLO", 501, "5.5.4"),
            ("EHLO a b", 501, "5.5.4"),
            ("EHLO -x.example", 501, "5.5.4"),
            ("STARTTLS now", 501, "5.5.4"),
            ("DATA x", 501, "5.5.4"),
            ("VRFY", 501, "5.5.4"),
            ("ETRN x", 502, "5.5.1"),
            ("AUTH", 501, "5.5.4"),
            ("MAIL", 501, "5.5.4"),
            ("MAIL FROM:", 501, "5.1.7"),
            ("MAIL <a@x.example>", 501, "5.5.4"),
            ("MAIL FROM: <a@x.example>", 501, "5.1.7"),
            ("MAIL FROM:a@x.example", 501, "5.1.7"),
            ("MAIL FROM:<a@x.example", 501, "5.1.7"),
            ("MAIL FROM:<a@x.example>>", 501, "5.1.7"),
            ("MAIL FROM:<a@@x.example>", 501, "5.1.7"),
            ("MAIL FROM:<a b@x.example>", 501, "5.1.7"),
            ("MAIL FROM:<a@x.example>SIZE=1", 501, "5.1.7"),
            ("MAIL FROM:<a@x..example>", 501, "5.1.7"),
            ("MAIL FROM:<a@[1.2.3]>", 501, "5.1.7"),
            ("MAIL FROM:<postmaster>", 501, "5.1.7"),
            ("MAIL FROM:<tést@x.example>", 553, "5.6.7"),
            ("MAIL FROM:<a@x.example> FOO=bar", 555, "5.5.4"),
            ("MAIL FROM:<a@x.example> REQUIRETLS", 555, "5.5.4"),
            ("MAIL FROM:<a@x.example> HOLDFOR=60", 555, "5.5.4"),
            ("MAIL FROM:<a@x.example> BODY=BINARYMIME", 250, ""),
            ("MAIL FROM:<a@x.example> BODY=9BIT", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> BODY", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> SMTPUTF8=1", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> SIZE=abc", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> SIZE=", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> SIZE=-1", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> SIZE=99999999999999999999999999", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> RET=SOME", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> RET=FULL RET=HDRS", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> ENVID=", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> ENVID=bad+zz", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> ENVID=a ENVID=b", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> MT-PRIORITY=+3", 501, "5.5.2"),
            ("MAIL FROM:<a@x.example> MT-PRIORITY=00", 501, "5.5.2"),
            ("MAIL FROM:<a@x.example> MT-PRIORITY=10", 501, "5.5.2"),
            ("MAIL FROM:<a@x.example> MT-PRIORITY=", 501, "5.5.2"),
            ("MAIL FROM:<a@x.example> MT-PRIORITY", 501, "5.5.2"),
            ("MAIL FROM:<a@x.example> MT-PRIORITY=3 MT-PRIORITY=4", 501, "5.5.2"),
            ("MAIL FROM:<a@x.example> BY=0;R", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> BY=10", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> BY=10;X", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> BY=9999999999;R", 501, "5.5.4"),
            ("MAIL FROM:<a@x.example> BY=-5;N", 250, ""),
            ("MAIL FROM:<a@x.example> BY=120;RT", 250, ""),
            ("MAIL FROM:<a@x.example> AUTH=<>", 250, ""),
            ("MAIL FROM:<>", 250, ""),
            ("RCPT TO:<>", 501, "5.1.3"),
            ("RCPT TO:<x%elsewhere.example>", 501, "5.1.3"),
            ("RCPT TO:<\"x@elsewhere.example\">", 501, "5.1.3"),
            ("RCPT TO:<x@elsewhere.example@x.example>", 501, "5.1.3"),
            ("RCPT TO:<b@x.example> NOTIFY=NEVER,SUCCESS", 501, "5.5.4"),
            ("RCPT TO:<b@x.example> NOTIFY=", 501, "5.5.4"),
            ("RCPT TO:<b@x.example> NOTIFY=MAYBE", 501, "5.5.4"),
            ("RCPT TO:<b@x.example> NOTIFY=NEVER NOTIFY=NEVER", 501, "5.5.4"),
            ("RCPT TO:<b@x.example> ORCPT=rfc822;a+2", 501, "5.5.4"),
            ("RCPT TO:<b@x.example> ORCPT=nosemicolon", 501, "5.5.4"),
            ("RCPT TO:<b@x.example> FOO=bar", 555, "5.5.4"),
            ("BDAT", 501, "5.5.4"),
            ("BDAT -1", 501, "5.5.4"),
            ("BDAT 0x10", 501, "5.5.4"),
            ("BDAT 10 FIRST", 501, "5.5.4"),
            ("BDAT 1 LAST LAST", 501, "5.5.4"),
            ("NOOP\rMAIL FROM:<a@x.example>", 500, "5.5.2"),
            ("MAIL FROM:<a\0b@x.example>", 500, "5.5.2"),
        ] {
            assert_eq!(code(line), (want, status.to_owned()), "{line:?}");
        }
        let long = format!("MAIL FROM:<{}@x.example>", "a".repeat(3000));
        assert_eq!(code(&long).0, 501);
    }

    #[test]
    fn by_below_the_announced_minimum_is_refused() {
        let grammar = Grammar { deliver_by: Some(60), ..ALL };
        let reply = parse(b"MAIL FROM:<a@x.example> BY=59;R", grammar).expect_err("too soon");
        assert_eq!((reply.code, reply.status()), (555, Status(5, 5, 4)));
        assert!(parse(b"MAIL FROM:<a@x.example> BY=59;N", grammar).is_ok());
        let reply = parse(b"MAIL FROM:<a@x.example> BY=90;R", Grammar::default()).expect_err("not offered");
        assert_eq!(reply.code, 555);
    }

    #[test]
    fn a_release_is_asked_for_once_and_in_form() {
        let grammar = Grammar { future_release: true, ..ALL };
        let hold = |more: &str| match parse(format!("MAIL FROM:<a@x.example> {more}").as_bytes(), grammar) {
            Ok(Command::Mail(mail)) => Ok(mail.hold),
            Ok(other) => panic!("{other:?}"),
            Err(reply) => Err((reply.code, reply.status())),
        };
        assert_eq!(hold("HOLDFOR=60"), Ok(Some(ReleaseAsked::For(60))));
        assert_eq!(hold("holdfor=999999999"), Ok(Some(ReleaseAsked::For(999_999_999))));
        let at = Wall::parse_rfc3339("2030-01-01T00:00:00Z").expect("valid");
        assert_eq!(hold("HOLDUNTIL=2030-01-01T00:00:00Z"), Ok(Some(ReleaseAsked::Until(at))));
        for bad in [
            "HOLDFOR",
            "HOLDFOR=",
            "HOLDFOR=0",
            "HOLDFOR=-1",
            "HOLDFOR=+1",
            "HOLDFOR=1000000000",
            "HOLDFOR=1m",
            "HOLDUNTIL=2030-01-01T00:00:00+01:00",
            "HOLDUNTIL=2030-01-01",
            "HOLDUNTIL=",
            "HOLDFOR=1 HOLDFOR=1",
            "HOLDFOR=60 HOLDUNTIL=2030-01-01T00:00:00Z",
        ] {
            assert_eq!(hold(bad), Err((501, Status(5, 5, 4))), "{bad}");
        }
    }

    #[test]
    fn tracking_needs_a_hash_and_a_name_to_ask_for() {
        let grammar = Grammar { mtrk: true, ..ALL };
        let track = |more: &str| match parse(format!("MAIL FROM:<a@x.example> {more}").as_bytes(), grammar) {
            Ok(Command::Mail(mail)) => Ok(mail.tracking.map(|t| (t.certifier, t.seconds))),
            Ok(other) => panic!("{other:?}"),
            Err(reply) => Err((reply.code, reply.status())),
        };
        // The hash of the octets 0 to 15, as the profile has it; padded by who does not know better.
        let hash = "VheLhqV/rCKJmplkGFwsyW59pYk";
        for (value, seconds) in [("", None), ("=", None), (":86400", Some(86_400)), ("=:1", Some(1)), (":0", Some(0))] {
            let got = track(&format!("MTRK={hash}{value} ENVID=q1@x.example"));
            assert_eq!(got, Ok(Some((hash.to_owned(), seconds))), "{value}");
        }
        for bad in [
            format!("MTRK={hash}"),
            format!("MTRK={hash} ENVID=q1"),
            format!("MTRK={hash} ENVID=@x.example"),
            format!("MTRK={hash} ENVID=q1@-x"),
            format!("MTRK={hash}: ENVID=q1@x.example"),
            format!("MTRK={hash}:1234567890 ENVID=q1@x.example"),
            format!("MTRK={hash}:+1 ENVID=q1@x.example"),
            format!("MTRK={hash}== ENVID=q1@x.example"),
            format!("MTRK={hash} MTRK={hash} ENVID=q1@x.example"),
            "MTRK=Vhe ENVID=q1@x.example".into(),
            "MTRK=%%% ENVID=q1@x.example".into(),
            "MTRK ENVID=q1@x.example".into(),
        ] {
            assert_eq!(track(&bad), Err((501, Status(5, 5, 4))), "{bad}");
        }
        assert_eq!(code(&format!("MAIL FROM:<a@x.example> MTRK={hash} ENVID=q1@x.example")), (555, "5.5.4".into()));
    }

    #[test]
    fn paths_of_every_kind_are_read() {
        for (path, want) in [
            ("<Postmaster>", "Postmaster"),
            ("<b@x.example>", "b@x.example"),
            ("<@a.example,@b.example:b@x.example>", "b@x.example"),
            ("<\"quo ted\\\"q\"@x.example>", "\"quo ted\\\"q\"@x.example"),
            ("<\"a>b\"@[192.0.2.1]>", "\"a>b\"@[192.0.2.1]"),
        ] {
            let rcpt = parse_rcpt(&format!("RCPT TO:{path}"), false).unwrap_or_else(|e| panic!("{path}: {e:?}"));
            assert_eq!(rcpt.to.as_str(), want);
        }
        assert!(parse_rcpt("RCPT TO:<你好@x.example>", false).is_err());
        let rcpt = parse_rcpt("RCPT TO:<你好@bücher.example> ORCPT=utf-8;你好@x", true).expect("utf-8");
        assert_eq!(rcpt.to.local(), "你好");
        let rcpt =
            parse_rcpt("RCPT TO:<b@x.example> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bb+3Dc@x", false).expect("dsn");
        assert_eq!(rcpt.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(rcpt.orcpt.as_deref(), Some("rfc822;a+2Bb+3Dc@x"));
    }

    #[test]
    fn xtext_vectors() {
        assert_eq!(xtext_encode(b"a+b=c@x"), "a+2Bb+3Dc@x");
        assert_eq!(xtext_decode("a+2bb+3Dc@x").as_deref(), Some(&b"a+b=c@x"[..]));
        for bad in ["+", "+2", "a=b", "+2G", "a b", "é"] {
            assert_eq!(xtext_decode(bad), None, "{bad}");
        }
    }
}
