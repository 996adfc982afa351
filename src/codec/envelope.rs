//! The envelope on the air (link-rules A9): everything about a message that is not its bytes, in a few dozen bytes.
//!
//! The switch encodes one per transfer, with only the recipients that transfer serves, and puts it in front of the body
//! in [`super::payload`]; the far switch decodes it and offers the message to its queue. `docs/codec.md` has the byte table.
//!
//! Promises: what decodes is what was encoded, save that times are carried in coarser units ([`carried`]); any other bytes are an
//! error, never a panic; no text that decodes can carry a line end or a parameter of its own into an SMTP command.

pub mod beside;

use core::fmt;

use super::varint;
use crate::mail::{
    BodyKind, ByMode, DeliverBy, Envelope, Mailbox, MtPriority, Notify, PeerName, Precedence, Recipient, Ret,
};
use crate::time::Wall;

/// Most recipients one transfer serves; a longer list goes as several transfers.
pub const MAX_RECIPIENTS: usize = 1000;
/// Longest encoded envelope.
pub const MAX_BYTES: usize = 64 * 1024;
/// Longest address, ENVID or ORCPT.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Most nodes a message may have passed.
pub const MAX_HOPS: usize = 32;
/// Longest node name.
pub const MAX_NODE_BYTES: usize = 64;

/// An envelope all of whose recipients are the receiver's.
const VERSION: u8 = 1;
/// The same for several receivers: after the nodes passed it says whose the recipients are.
const VERSION_SHARED: u8 = 2;
/// Most receivers one payload is for: the stations of a net.
pub const MAX_SERVED: usize = 255;

/// 2020-01-01T00:00:00Z in milliseconds: times count from here, so that they stay short.
const ERA_MS: i64 = 1_577_836_800_000;
const MINUTE_MS: i64 = 60_000;
const SECOND_MS: i64 = 1_000;

/// What crosses the air beside the body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AirEnvelope {
    /// The envelope, recipients limited to those this transfer serves.
    pub envelope: Envelope,
    /// Level of service.
    pub precedence: Precedence,
    /// The nodes the message has passed, first to last, the sender included: a node that finds its own name drops the message (A8).
    pub hops: Vec<PeerName>,
    /// Which node takes how many of the recipients, in their order; empty when all are the receiver's.
    pub serves: Vec<(PeerName, u32)>,
}

impl AirEnvelope {
    /// The recipients that a node takes; `None` when the payload is not for it.
    pub fn served(&self, node: &PeerName) -> Option<&[Recipient]> {
        if self.serves.is_empty() {
            return Some(&self.envelope.recipients);
        }
        let mut rest = self.envelope.recipients.as_slice();
        for (name, count) in &self.serves {
            let (these, others) = rest.split_at_checked(usize::try_from(*count).ok()?)?;
            if name == node {
                return Some(these);
            }
            rest = others;
        }
        None
    }
}

/// Why an envelope cannot be put on the air.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EncodeError {
    /// No recipient at all.
    NoRecipients,
    /// More than [`MAX_RECIPIENTS`], or more than [`MAX_BYTES`] in all: serve fewer recipients with one transfer.
    TooMany,
    /// More than [`MAX_HOPS`] nodes passed: the message loops.
    TooManyHops,
    /// A text is too long or holds what SMTP could not carry on.
    Text(TextField),
}

/// Why received bytes are not an envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Another version, written by a newer node.
    Version(u8),
    /// Cut short.
    Short,
    /// Longer than [`MAX_BYTES`], or bytes after its end.
    Long,
    /// A flag without meaning in this version.
    Flags,
    /// A number outside its range: which.
    Range(&'static str),
    /// A text is too long, not UTF-8, or holds what SMTP could not carry on.
    Text(TextField),
}

/// Which text an error is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextField {
    /// Return path or recipient.
    Address,
    /// ENVID.
    Envid,
    /// ORCPT.
    Orcpt,
    /// A node's name.
    Node,
}

/// The times of an envelope as the far side will see them: expiry rounded up to the minute (never a shorter life than asked for),
/// a BY deadline rounded down to the second (never a later one).
pub fn carried(envelope: &Envelope) -> Envelope {
    let mut envelope = envelope.clone();
    envelope.expires = expiry_minutes(envelope.expires).and_then(|m| wall(m, MINUTE_MS)).unwrap_or(Wall::NEVER);
    if let Some(by) = &mut envelope.deliver_by {
        by.deadline = wall(deadline_seconds(by.deadline), SECOND_MS).unwrap_or(by.deadline);
    }
    envelope
}

/// Encodes an envelope.
pub fn encode(air: &AirEnvelope) -> Result<Vec<u8>, EncodeError> {
    let AirEnvelope { envelope, precedence, hops, serves } = air;
    if envelope.recipients.is_empty() {
        return Err(EncodeError::NoRecipients);
    }
    if envelope.recipients.len() > MAX_RECIPIENTS {
        return Err(EncodeError::TooMany);
    }
    if hops.len() > MAX_HOPS {
        return Err(EncodeError::TooManyHops);
    }
    if serves.len() > MAX_SERVED {
        return Err(EncodeError::TooMany);
    }
    let expiry = expiry_minutes(envelope.expires);
    let priority = match envelope.mt_priority {
        None => flag::PRIORITY_NONE,
        Some(value) if value == precedence.mt_priority() => flag::PRIORITY_OF_LEVEL,
        Some(_) => flag::PRIORITY_EXACT,
    };
    let detailed = envelope.recipients.iter().any(|r| r.notify.is_some() || r.orcpt.is_some());

    let mut out = vec![if serves.is_empty() { VERSION } else { VERSION_SHARED }];
    out.push(
        precedence.rank()
            | body_code(envelope.body) << 3
            | u8::from(envelope.smtputf8) << 5
            | match envelope.ret {
                None => 0,
                Some(Ret::Full) => 1,
                Some(Ret::Headers) => 2,
            } << 6,
    );
    out.push(
        u8::from(envelope.envid.is_some())
            | priority << 1
            | u8::from(envelope.deliver_by.is_some()) << 3
            | u8::from(expiry.is_some()) << 4
            | u8::from(!hops.is_empty()) << 5
            | u8::from(detailed) << 6
            | u8::from(envelope.require_tls) << 7,
    );
    if let Some(minutes) = expiry {
        varint::put(&mut out, varint::zigzag(minutes));
    }
    if let (flag::PRIORITY_EXACT, Some(value)) = (priority, envelope.mt_priority) {
        out.push((value.get() + 9) as u8);
    }
    if let Some(by) = envelope.deliver_by {
        out.push(u8::from(by.mode == ByMode::Notify) | u8::from(by.trace) << 1);
        varint::put(&mut out, varint::zigzag(deadline_seconds(by.deadline)));
    }
    if !hops.is_empty() {
        varint::put(&mut out, hops.len() as u64);
        for hop in hops {
            if !node_is_sound(&hop.0) {
                return Err(EncodeError::Text(TextField::Node));
            }
            put_text(&mut out, &hop.0);
        }
    }
    if !serves.is_empty() {
        varint::put(&mut out, serves.len() as u64);
        for (node, count) in serves {
            if !node_is_sound(&node.0) {
                return Err(EncodeError::Text(TextField::Node));
            }
            put_text(&mut out, &node.0);
            varint::put(&mut out, u64::from(*count));
        }
    }
    if let Some(envid) = &envelope.envid {
        if !parameter_is_sound(envid) {
            return Err(EncodeError::Text(TextField::Envid));
        }
        put_text(&mut out, envid);
    }
    let mut domains = Vec::new();
    match &envelope.from {
        None => out.push(0),
        Some(from) => put_address(&mut out, &mut domains, from)?,
    }
    varint::put(&mut out, envelope.recipients.len() as u64);
    for recipient in &envelope.recipients {
        put_address(&mut out, &mut domains, &recipient.address)?;
        if detailed {
            put_details(&mut out, recipient)?;
        }
    }
    if out.len() > MAX_BYTES { Err(EncodeError::TooMany) } else { Ok(out) }
}

/// Decodes an envelope; the bytes must be one envelope exactly.
pub fn decode(bytes: &[u8]) -> Result<AirEnvelope, DecodeError> {
    if bytes.len() > MAX_BYTES {
        return Err(DecodeError::Long);
    }
    let mut input = Input(bytes);
    let version = input.byte()?;
    if version != VERSION && version != VERSION_SHARED {
        return Err(DecodeError::Version(version));
    }
    let first = input.byte()?;
    let second = input.byte()?;
    let precedence = Precedence::from_rank(first & 7).ok_or(DecodeError::Range("precedence"))?;
    let body = match first >> 3 & 3 {
        0 => BodyKind::SevenBit,
        1 => BodyKind::EightBitMime,
        2 => BodyKind::BinaryMime,
        _ => return Err(DecodeError::Flags),
    };
    let ret = match first >> 6 {
        0 => None,
        1 => Some(Ret::Full),
        2 => Some(Ret::Headers),
        _ => return Err(DecodeError::Flags),
    };
    let detailed = second & 1 << 6 != 0;
    let expires = if second & 1 << 4 != 0 { input.time(MINUTE_MS)? } else { Wall::NEVER };
    let mt_priority = match second >> 1 & 3 {
        flag::PRIORITY_NONE => None,
        flag::PRIORITY_OF_LEVEL => Some(precedence.mt_priority()),
        flag::PRIORITY_EXACT => {
            let value = i8::try_from(input.byte()?).ok().and_then(|v| MtPriority::new(v - 9));
            Some(value.ok_or(DecodeError::Range("priority"))?)
        }
        _ => return Err(DecodeError::Flags),
    };
    let deliver_by = if second & 1 << 3 != 0 {
        let by = input.byte()?;
        if by > 3 {
            return Err(DecodeError::Flags);
        }
        Some(DeliverBy {
            deadline: input.time(SECOND_MS)?,
            mode: if by & 1 != 0 { ByMode::Notify } else { ByMode::Return },
            trace: by & 2 != 0,
        })
    } else {
        None
    };
    let mut hops = Vec::new();
    if second & 1 << 5 != 0 {
        for _ in 0..input.count(MAX_HOPS, "hops")? {
            let node = input.text(MAX_NODE_BYTES, TextField::Node)?;
            if !node_is_sound(node) {
                return Err(DecodeError::Text(TextField::Node));
            }
            hops.push(PeerName::from(node));
        }
    }
    let mut serves = Vec::new();
    if version == VERSION_SHARED {
        for _ in 0..input.count(MAX_SERVED, "nodes served")? {
            let node = input.text(MAX_NODE_BYTES, TextField::Node)?;
            if !node_is_sound(node) {
                return Err(DecodeError::Text(TextField::Node));
            }
            let node = PeerName::from(node);
            serves.push((node, input.count(MAX_RECIPIENTS, "recipients")? as u32));
        }
        if serves.is_empty() {
            return Err(DecodeError::Range("nodes served"));
        }
    }
    let envid = if second & 1 != 0 {
        let envid = input.text(MAX_TEXT_BYTES, TextField::Envid)?;
        if !parameter_is_sound(envid) {
            return Err(DecodeError::Text(TextField::Envid));
        }
        Some(envid.to_owned())
    } else {
        None
    };
    let mut domains = Vec::new();
    let from = input.address(&mut domains)?;
    let count = input.count(MAX_RECIPIENTS, "recipients")?;
    let mut recipients = Vec::with_capacity(count.min(input.0.len()));
    for _ in 0..count {
        let address = input.address(&mut domains)?.ok_or(DecodeError::Text(TextField::Address))?;
        recipients.push(if detailed { input.details(address)? } else { Recipient::plain(address) });
    }
    if !input.0.is_empty() {
        return Err(DecodeError::Long);
    }
    if !serves.is_empty() && serves.iter().map(|(_, n)| *n as usize).sum::<usize>() != recipients.len() {
        return Err(DecodeError::Range("recipients served"));
    }
    let envelope = Envelope {
        from,
        recipients,
        envid,
        ret,
        mt_priority,
        body,
        smtputf8: first & 1 << 5 != 0,
        require_tls: second & 1 << 7 != 0,
        deliver_by,
        expires,
        auth: None,
    };
    Ok(AirEnvelope { envelope, precedence, hops, serves })
}

/// Values of the two priority bits.
mod flag {
    pub(super) const PRIORITY_NONE: u8 = 0;
    pub(super) const PRIORITY_OF_LEVEL: u8 = 1;
    pub(super) const PRIORITY_EXACT: u8 = 2;
}

/// Values of the two ORCPT bits of a recipient's flag byte.
const ORCPT_NONE: u8 = 0;
const ORCPT_SAME: u8 = 1;
const ORCPT_TEXT: u8 = 2;

const fn body_code(body: BodyKind) -> u8 {
    match body {
        BodyKind::SevenBit => 0,
        BodyKind::EightBitMime => 1,
        BodyKind::BinaryMime => 2,
    }
}

/// Minutes since the era, rounded up; `None` for never.
fn expiry_minutes(expires: Wall) -> Option<i64> {
    if expires == Wall::NEVER {
        return None;
    }
    let ms = expires.0.saturating_sub(ERA_MS);
    let minutes = ms.div_euclid(MINUTE_MS) + i64::from(ms.rem_euclid(MINUTE_MS) != 0);
    wall(minutes, MINUTE_MS).map(|_| minutes)
}

/// Seconds since the era, rounded down.
fn deadline_seconds(deadline: Wall) -> i64 {
    deadline.0.saturating_sub(ERA_MS).div_euclid(SECOND_MS).max(i64::MIN / SECOND_MS)
}

fn wall(units: i64, unit_ms: i64) -> Option<Wall> {
    units.checked_mul(unit_ms)?.checked_add(ERA_MS).map(Wall)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Head `1 + 2 * length + reference`, then the text; with the reference bit the text is a local part and the number of an earlier domain follows.
fn put_address(out: &mut Vec<u8>, domains: &mut Vec<String>, address: &Mailbox) -> Result<(), EncodeError> {
    if !address_is_sound(address.as_str()) {
        return Err(EncodeError::Text(TextField::Address));
    }
    let earlier = domains.iter().position(|d| d == address.domain());
    let text = if earlier.is_some() { address.local() } else { address.as_str() };
    varint::put(out, 1 + 2 * text.len() as u64 + u64::from(earlier.is_some()));
    out.extend_from_slice(text.as_bytes());
    match earlier {
        Some(number) => varint::put(out, number as u64),
        None if address.domain().is_empty() => {}
        None => domains.push(address.domain().to_owned()),
    }
    Ok(())
}

/// One flag byte (NOTIFY given, SUCCESS, FAILURE, DELAY, two bits of ORCPT), then the ORCPT where it cannot be derived.
fn put_details(out: &mut Vec<u8>, recipient: &Recipient) -> Result<(), EncodeError> {
    let notify = recipient
        .notify
        .map_or(0, |n| 1 | u8::from(n.success) << 1 | u8::from(n.failure) << 2 | u8::from(n.delay) << 3);
    let Some(orcpt) = &recipient.orcpt else {
        out.push(notify);
        return Ok(());
    };
    if !parameter_is_sound(orcpt) {
        return Err(EncodeError::Text(TextField::Orcpt));
    }
    if orcpt_of(&recipient.address).is_some_and(|same| same == *orcpt) {
        out.push(notify | ORCPT_SAME << 4);
    } else {
        out.push(notify | ORCPT_TEXT << 4);
        put_text(out, orcpt);
    }
    Ok(())
}

/// The ORCPT a client gives when it names the recipient itself (RFC 3461): `rfc822;` and the address in xtext.
fn orcpt_of(address: &Mailbox) -> Option<String> {
    let mut text = String::from("rfc822;");
    for byte in address.as_str().bytes() {
        match byte {
            b'+' | b'=' => text.push_str(if byte == b'+' { "+2B" } else { "+3D" }),
            0x21..=0x7e => text.push(byte as char),
            _ => return None,
        }
    }
    Some(text)
}

/// Not empty, bounded, no control characters; no space or angle bracket outside quotes: nothing that could end an SMTP path early.
fn address_is_sound(text: &str) -> bool {
    if text.is_empty() || text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        return false;
    }
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' | '<' | '>' if !quoted => return false,
            _ => {}
        }
    }
    !quoted && !escaped
}

/// An esmtp-value: bounded, no space and no control characters.
fn parameter_is_sound(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES && !text.chars().any(|c| c.is_control() || c == ' ')
}

fn node_is_sound(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NODE_BYTES && !text.chars().any(char::is_control)
}

/// What is left to decode.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.0.split_first().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        varint::take(&mut self.0).ok_or(DecodeError::Short)
    }

    fn time(&mut self, unit_ms: i64) -> Result<Wall, DecodeError> {
        wall(varint::unzigzag(self.number()?), unit_ms).ok_or(DecodeError::Range("time"))
    }

    /// A count of at least one.
    fn count(&mut self, most: usize, what: &'static str) -> Result<usize, DecodeError> {
        match usize::try_from(self.number()?) {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(DecodeError::Range(what)),
        }
    }

    fn text(&mut self, most: usize, field: TextField) -> Result<&'a str, DecodeError> {
        let length = self.number()?;
        self.text_of(length, most, field)
    }

    fn text_of(&mut self, length: u64, most: usize, field: TextField) -> Result<&'a str, DecodeError> {
        let length = usize::try_from(length).ok().filter(|n| *n <= most).ok_or(DecodeError::Text(field))?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.0 = rest;
        core::str::from_utf8(text).map_err(|_| DecodeError::Text(field))
    }

    /// An address, or `None` for the null path.
    fn address(&mut self, domains: &mut Vec<&'a str>) -> Result<Option<Mailbox>, DecodeError> {
        let Some(head) = self.number()?.checked_sub(1) else { return Ok(None) };
        let text = self.text_of(head >> 1, MAX_TEXT_BYTES, TextField::Address)?;
        let address = if head & 1 == 0 {
            if let Some((_, domain)) = text.rsplit_once('@').filter(|(_, domain)| !domain.is_empty()) {
                domains.push(domain);
            }
            text.to_owned()
        } else {
            let number = self.number()?;
            let domain = usize::try_from(number).ok().and_then(|n| domains.get(n));
            format!("{text}@{}", domain.ok_or(DecodeError::Range("domain"))?)
        };
        if !address_is_sound(&address) {
            return Err(DecodeError::Text(TextField::Address));
        }
        Ok(Some(Mailbox::new(address)))
    }

    fn details(&mut self, address: Mailbox) -> Result<Recipient, DecodeError> {
        let flags = self.byte()?;
        let notify = match flags & 0x0f {
            0 => None,
            bits if bits & 1 == 1 => {
                Some(Notify { success: bits & 2 != 0, failure: bits & 4 != 0, delay: bits & 8 != 0 })
            }
            _ => return Err(DecodeError::Flags),
        };
        let orcpt = match flags >> 4 {
            ORCPT_NONE => None,
            ORCPT_SAME => Some(orcpt_of(&address).ok_or(DecodeError::Text(TextField::Orcpt))?),
            ORCPT_TEXT => {
                let text = self.text(MAX_TEXT_BYTES, TextField::Orcpt)?;
                if !parameter_is_sound(text) {
                    return Err(DecodeError::Text(TextField::Orcpt));
                }
                Some(text.to_owned())
            }
            _ => return Err(DecodeError::Flags),
        };
        Ok(Recipient { address, notify, orcpt })
    }
}

impl fmt::Display for TextField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "address",
            Self::Envid => "ENVID",
            Self::Orcpt => "ORCPT",
            Self::Node => "node name",
        })
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecipients => f.write_str("the envelope names no recipient"),
            Self::TooMany => f.write_str("the envelope names too many recipients for one transfer"),
            Self::TooManyHops => f.write_str("the message has passed too many nodes"),
            Self::Text(field) => write!(f, "the envelope's {field} is too long or cannot be carried"),
        }
    }
}

impl std::error::Error for EncodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "the envelope has version {version}, which this node does not know"),
            Self::Short => f.write_str("the envelope is cut short"),
            Self::Long => f.write_str("the envelope is too long"),
            Self::Flags => f.write_str("the envelope has flags this node does not know"),
            Self::Range(what) => write!(f, "the envelope's {what} value is out of range"),
            Self::Text(field) => write!(f, "the envelope's {field} is not sound"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(from: &str, to: &[&str]) -> AirEnvelope {
        AirEnvelope {
            envelope: Envelope::plain(
                (!from.is_empty()).then(|| Mailbox::new(from)),
                to.iter().map(|a| Recipient::plain(Mailbox::new(*a))).collect(),
                Wall::parse_rfc3339("2026-11-28T10:15:00Z").expect("valid"),
            ),
            precedence: Precedence::Routine,
            hops: Vec::new(),
            serves: Vec::new(),
        }
    }

    fn full() -> AirEnvelope {
        let mut air =
            plain("ops@blueship.example", &["cdr@redbase.example", "info+x@redbase.example", "a@blueship.example"]);
        let e = &mut air.envelope;
        e.recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
        e.recipients[0].orcpt = Some("rfc822;cdr@redbase.example".into());
        e.recipients[1].notify = Some(Notify::NEVER);
        e.recipients[1].orcpt = Some("rfc822;info+2Bx@redbase.example".into());
        e.recipients[2].orcpt = Some("x400;/C=NO/A=+20/".into());
        e.envid = Some("BS-000123".into());
        e.ret = Some(Ret::Headers);
        e.mt_priority = MtPriority::new(3);
        e.body = BodyKind::EightBitMime;
        e.smtputf8 = true;
        e.require_tls = true;
        e.deliver_by = Some(DeliverBy {
            deadline: Wall::parse_rfc3339("2026-11-23T14:15:07Z").expect("valid"),
            mode: ByMode::Notify,
            trace: true,
        });
        air.precedence = Precedence::Flash;
        air.hops = vec!["ship".into(), "shore".into()];
        air
    }

    #[test]
    fn a9_every_parameter_crosses_exactly() {
        let air = full();
        assert_eq!(decode(&encode(&air).expect("encodes")), Ok(air));
    }

    #[test]
    fn of_a_shared_envelope_each_node_takes_its_own_recipients() {
        let mut air = full();
        air.serves = vec![("redbase".into(), 2), ("blueship".into(), 1)];
        let far = decode(&encode(&air).expect("encodes")).expect("decodes");
        assert_eq!(far, air);
        assert_eq!(far.served(&"redbase".into()), Some(&air.envelope.recipients[..2]));
        assert_eq!(far.served(&"blueship".into()), Some(&air.envelope.recipients[2..]));
        assert_eq!(far.served(&"tanker".into()), None, "it is not for everybody who hears it");
        air.serves[0].1 = 3;
        assert_eq!(decode(&encode(&air).expect("encodes")), Err(DecodeError::Range("recipients served")));
    }

    #[test]
    fn a_plain_envelope_costs_ten_bytes_beyond_its_two_addresses() {
        let air = plain("ops@blueship.example", &["cdr@redbase.example"]);
        let bytes = encode(&air).expect("encodes");
        assert_eq!(bytes.len(), "ops@blueship.examplecdr@redbase.example".len() + 10);
        let mut asks = air;
        asks.envelope.require_tls = true;
        assert_eq!(encode(&asks).expect("encodes").len(), bytes.len(), "REQUIRETLS costs nothing");
        let air = plain("ops@blueship.example", &["cdr@blueship.example"]);
        assert_eq!(encode(&air).expect("encodes").len(), "ops@blueship.examplecdr".len() + 11);
    }

    #[test]
    fn an_orcpt_that_repeats_the_address_costs_nothing_but_its_flag() {
        let mut air = plain("", &["cdr@redbase.example"]);
        let before = encode(&air).expect("encodes").len();
        air.envelope.recipients[0].orcpt = Some("rfc822;cdr@redbase.example".into());
        assert_eq!(encode(&air).expect("encodes").len(), before + 1);
    }

    #[test]
    fn expiry_is_never_shortened_and_a_deadline_never_extended() {
        let mut air = full();
        air.envelope.expires = Wall(air.envelope.expires.0 + 1);
        if let Some(by) = &mut air.envelope.deliver_by {
            by.deadline = Wall(by.deadline.0 + 999);
        }
        let far = decode(&encode(&air).expect("encodes")).expect("decodes").envelope;
        assert_eq!(far, carried(&air.envelope));
        assert_eq!(far.expires, Wall::parse_rfc3339("2026-11-28T10:16:00Z").expect("valid"));
        assert_eq!(far.deliver_by.map(|b| b.deadline), Wall::parse_rfc3339("2026-11-23T14:15:07Z"));
        air.envelope.expires = Wall::NEVER;
        assert_eq!(decode(&encode(&air).expect("encodes")).expect("decodes").envelope.expires, Wall::NEVER);
    }

    #[test]
    fn text_that_could_steer_an_smtp_command_is_refused_on_both_sides() {
        for bad in ["a@b\r\nRCPT TO:<x@y>", "a b@c", "a@b> NOTIFY=NEVER", "\"a@b", "", "a@b\u{85}"] {
            let mut air = plain("ops@blueship.example", &["cdr@redbase.example"]);
            air.envelope.recipients[0].address = Mailbox::new(bad);
            assert_eq!(encode(&air), Err(EncodeError::Text(TextField::Address)), "{bad:?}");
        }
        let mut air = plain("o@b", &["c@d"]);
        air.envelope.envid = Some("A B".into());
        assert_eq!(encode(&air), Err(EncodeError::Text(TextField::Envid)));
        // The same on the wire: the sender's check may be missing there.
        let mut bytes = encode(&plain("o@b", &["c@d"])).expect("encodes");
        let at = bytes.iter().position(|b| *b == b'o').expect("there");
        bytes[at] = b'\n';
        assert_eq!(decode(&bytes), Err(DecodeError::Text(TextField::Address)));
        // Quoted local parts pass.
        let air = plain("\"a <b>\"@c", &["\"x\\\"y\"@c"]);
        assert_eq!(decode(&encode(&air).expect("encodes")), Ok(air));
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        assert_eq!(encode(&plain("a@b", &[])), Err(EncodeError::NoRecipients));
        let many: Vec<String> = (0..=MAX_RECIPIENTS).map(|i| format!("u{i}@b")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(encode(&plain("a@b", &many)), Err(EncodeError::TooMany));
        let air = plain("a@b", &many[..MAX_RECIPIENTS]);
        assert_eq!(decode(&encode(&air).expect("encodes")), Ok(air));
        let long = "x".repeat(200);
        let long: Vec<String> = (0..MAX_RECIPIENTS).map(|i| format!("{long}{i}@b")).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        assert_eq!(encode(&plain("a@b", &long)), Err(EncodeError::TooMany), "more than 64 KiB");
        let mut air = plain("a@b", &["c@d"]);
        air.hops = vec!["n".into(); MAX_HOPS + 1];
        assert_eq!(encode(&air), Err(EncodeError::TooManyHops));
        assert_eq!(decode(&vec![VERSION; MAX_BYTES + 1]), Err(DecodeError::Long));
        // A thousand recipients claimed, none there.
        assert_eq!(decode(&[VERSION, 1, 0, 0, 0xe8, 0x07]), Err(DecodeError::Short));
        assert_eq!(decode(&[VERSION, 1, 0, 0, 0xe9, 0x07]), Err(DecodeError::Range("recipients")));
        assert_eq!(decode(&[3]), Err(DecodeError::Version(3)));
    }

    #[test]
    fn every_cut_and_every_trailing_byte_is_an_error() {
        let bytes = encode(&full()).expect("encodes");
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode(&[bytes, vec![0]].concat()), Err(DecodeError::Long));
    }

    fn address() -> impl Strategy<Value = Mailbox> {
        prop_oneof![
            "[a-zé+=.]{1,12}@[a-c]{1,2}\\.example".prop_map(Mailbox::new),
            "\"[ -!#-\\[\\]-~]{0,8}\"@[a-c]".prop_map(Mailbox::new),
            Just(Mailbox::new("postmaster")),
            "[a-z]{1,4}@".prop_map(Mailbox::new),
        ]
    }

    fn instant() -> impl Strategy<Value = i64> {
        prop_oneof![
            any::<i64>(),
            Just(i64::MIN),
            Just(i64::MAX),
            Just(i64::MAX - 1),
            1_700_000_000_000i64..1_900_000_000_000
        ]
    }

    fn recipient() -> impl Strategy<Value = Recipient> {
        let notify = proptest::option::of(any::<(bool, bool, bool)>())
            .prop_map(|n| n.map(|(success, failure, delay)| Notify { success, failure, delay }));
        (address(), notify, proptest::option::of("[!-~é]{0,20}"), any::<bool>()).prop_map(
            |(address, notify, orcpt, same)| {
                let orcpt = if same { orcpt_of(&address) } else { orcpt };
                Recipient { address, notify, orcpt }
            },
        )
    }

    prop_compose! {
        fn any_air()(
            from in proptest::option::of(address()),
            recipients in proptest::collection::vec(recipient(), 1..20),
            envid in proptest::option::of("[!-~]{0,100}"),
            ret in prop_oneof![Just(None), Just(Some(Ret::Full)), Just(Some(Ret::Headers))],
            priority in proptest::option::of(-9i8..=9),
            body in prop_oneof![Just(BodyKind::SevenBit), Just(BodyKind::EightBitMime), Just(BodyKind::BinaryMime)],
            (smtputf8, require_tls) in any::<(bool, bool)>(),
            by in proptest::option::of((instant(), any::<bool>(), any::<bool>())),
            expires in instant(),
            level in 0u8..6,
            hops in proptest::collection::vec("[a-z0-9-]{1,16}", 0..6),
        ) -> AirEnvelope {
            AirEnvelope {
                envelope: Envelope {
                    from,
                    recipients,
                    envid,
                    ret,
                    mt_priority: priority.and_then(MtPriority::new),
                    body,
                    smtputf8,
                    require_tls,
                    deliver_by: by.map(|(deadline, notify, trace)| DeliverBy {
                        deadline: Wall(deadline),
                        mode: if notify { ByMode::Notify } else { ByMode::Return },
                        trace,
                    }),
                    expires: Wall(expires),
                    auth: None,
                },
                precedence: Precedence::from_rank(level).expect("in range"),
                hops: hops.iter().map(|h| PeerName::from(h.as_str())).collect(),
                serves: Vec::new(),
            }
        }
    }

    proptest! {
        #[test]
        fn any_envelope_decodes_to_what_is_carried(air in any_air()) {
            let far = decode(&encode(&air).expect("encodes")).expect("decodes");
            prop_assert_eq!(&far.envelope, &carried(&air.envelope));
            prop_assert_eq!((far.precedence, far.hops), (air.precedence, air.hops));
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_what_encodes_again(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(air) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(&air).expect("encodes")), Ok(air));
            }
        }

        #[test]
        fn damaged_envelopes_never_panic(air in any_air(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let mut bytes = encode(&air).expect("encodes");
            let at = at.index(bytes.len());
            bytes[at] = with;
            if let Ok(air) = decode(&bytes) {
                prop_assert!(encode(&air).is_ok());
            }
        }
    }
}
