//! An envelope and the message it belongs to as one stream, in which the envelope does not say again what the header says.
//!
//! Addresses that stand in the header are numbers, and the message's end is counted from when its uppermost trace field, or it itself, is dated. What
//! is put apart again is what was joined, whatever the bytes; `docs/codec.md` has the layout.

use std::ops::Range;

use super::{
    DecodeError, Input, MAX_BYTES, MAX_HOPS, MAX_NODE_BYTES, MAX_RECIPIENTS, MAX_SERVED, MAX_TEXT_BYTES, ORCPT_TEXT,
    TextField, VERSION, VERSION_SHARED, decode, encode, put_address, put_details,
};
use crate::codec::varint;
use crate::mail::Mailbox;
use crate::mail::header::{Field, fields};

/// First bytes of a stream: no envelope; one whose layout is not known here, in full. Otherwise it is the envelope's version.
const NONE: u8 = 0;
const VERBATIM: u8 = 3;
/// Most addresses of a header that have numbers.
const MAX_NUMBERED: usize = 255;

/// What a stream is longer at most than envelope, body and the length of the envelope.
pub const OVERHEAD: usize = 1;

/// Envelope and body as one stream.
pub fn join(envelope: &[u8], body: &[u8]) -> Vec<u8> {
    let with = |mut head: Vec<u8>| {
        head.extend_from_slice(body);
        head
    };
    if envelope.is_empty() {
        return with(vec![NONE]);
    }
    let condensed = condense(envelope, body).map(with);
    let back = |stream: &Vec<u8>| part(stream).is_ok_and(|(again, rest)| again == envelope && rest == body);
    condensed.filter(back).unwrap_or_else(|| {
        let mut head = vec![VERBATIM];
        varint::put(&mut head, envelope.len() as u64);
        head.extend_from_slice(envelope);
        with(head)
    })
}

/// Envelope and body of a stream.
pub fn part(stream: &[u8]) -> Result<(Vec<u8>, &[u8]), DecodeError> {
    let (first, mut rest) = stream.split_first().ok_or(DecodeError::Short)?;
    match *first {
        NONE => Ok((Vec::new(), rest)),
        VERSION | VERSION_SHARED => expand(stream),
        VERBATIM => {
            let length = varint::take(&mut rest).and_then(|n| usize::try_from(n).ok());
            let (envelope, body) = length.and_then(|n| rest.split_at_checked(n)).ok_or(DecodeError::Short)?;
            Ok((envelope.to_vec(), body))
        }
        version => Err(DecodeError::Version(version)),
    }
}

/// The envelope in short, if it is one that comes back from that.
fn condense(envelope: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    // What decodes has one form only; the rest of this relies on it.
    let air = decode(envelope).ok().filter(|air| encode(air).is_ok_and(|again| again == envelope))?;
    let head = Head::read(&mut Input(envelope)).ok()?;
    let mut out = envelope[..head.expiry.start].to_vec();
    head.put_expiry(&mut out, |minutes| minutes.wrapping_sub(dated(body)));
    out.extend_from_slice(&envelope[head.expiry.end..head.end]);
    let mut numbers = Numbers::of(body);
    match &air.envelope.from {
        None => out.push(0),
        Some(from) => numbers.put(&mut out, from.as_str()),
    }
    varint::put(&mut out, air.envelope.recipients.len() as u64);
    for recipient in &air.envelope.recipients {
        numbers.put(&mut out, recipient.address.as_str());
        if head.detailed {
            put_details(&mut out, recipient).ok()?;
        }
    }
    Some(out)
}

/// Undoes [`condense`] at the beginning of a stream; the rest of it is the body.
fn expand(stream: &[u8]) -> Result<(Vec<u8>, &[u8]), DecodeError> {
    let mut input = Input(stream);
    let head = Head::read(&mut input)?;
    // What the numbers mean is read in the body, and where that begins is known behind them.
    let from = Code::read(&mut input)?;
    let count = input.count(MAX_RECIPIENTS, "recipients")?;
    let mut recipients = Vec::with_capacity(count.min(stream.len()));
    for _ in 0..count {
        let code = Code::read(&mut input)?;
        let rest = input.0;
        if head.detailed {
            input.skip_details()?;
        }
        recipients.push((code, &rest[..rest.len() - input.0.len()]));
    }
    let body = input.0;
    let mut numbers = Numbers::of(body);
    let mut out = stream[..head.expiry.start].to_vec();
    head.put_expiry(&mut out, |minutes| minutes.wrapping_add(dated(body)));
    out.extend_from_slice(&stream[head.expiry.end..head.end]);
    let mut domains = Vec::new();
    let mut put = |out: &mut Vec<u8>, code: Code<'_>| -> Result<(), DecodeError> {
        match numbers.address(code)? {
            None => out.push(0),
            Some(address) => {
                put_address(out, &mut domains, &address).map_err(|_| DecodeError::Text(TextField::Address))?;
            }
        }
        Ok(())
    };
    put(&mut out, from)?;
    varint::put(&mut out, count as u64);
    for (code, details) in recipients {
        put(&mut out, code)?;
        out.extend_from_slice(details);
        if out.len() > MAX_BYTES {
            return Err(DecodeError::Long);
        }
    }
    Ok((out, body))
}

/// The part of an envelope before its addresses.
struct Head {
    /// Minutes of the expiry, and where they stand: nowhere if it has none.
    minutes: Option<i64>,
    expiry: Range<usize>,
    /// Where the addresses begin.
    end: usize,
    /// Recipients have details.
    detailed: bool,
}

impl Head {
    /// Reads over it.
    fn read(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let whole = input.0.len();
        let version = input.byte()?;
        let _first = input.byte()?;
        let second = input.byte()?;
        let start = whole - input.0.len();
        let minutes = if second & 1 << 4 != 0 { Some(varint::unzigzag(input.number()?)) } else { None };
        let expiry = start..whole - input.0.len();
        if second >> 1 & 3 == super::flag::PRIORITY_EXACT {
            input.byte()?;
        }
        if second & 1 << 3 != 0 {
            input.byte()?;
            input.number()?;
        }
        if second & 1 << 5 != 0 {
            for _ in 0..input.count(MAX_HOPS, "hops")? {
                input.text(MAX_NODE_BYTES, TextField::Node)?;
            }
        }
        if version == VERSION_SHARED {
            for _ in 0..input.count(MAX_SERVED, "nodes served")? {
                input.text(MAX_NODE_BYTES, TextField::Node)?;
                input.number()?;
            }
        }
        if second & 1 != 0 {
            input.text(MAX_TEXT_BYTES, TextField::Envid)?;
        }
        Ok(Self { minutes, expiry, end: whole - input.0.len(), detailed: second & 1 << 6 != 0 })
    }

    /// Writes the expiry, counted otherwise.
    fn put_expiry(&self, out: &mut Vec<u8>, counted: impl FnOnce(i64) -> i64) {
        if let Some(minutes) = self.minutes {
            varint::put(out, varint::zigzag(counted(minutes)));
        }
    }
}

impl Input<'_> {
    /// Reads over what a recipient has beside its address.
    fn skip_details(&mut self) -> Result<(), DecodeError> {
        if self.byte()? >> 4 == ORCPT_TEXT {
            self.text(MAX_TEXT_BYTES, TextField::Orcpt)?;
        }
        Ok(())
    }
}

/// An address as it stands in a stream: 0 none, an odd number how far on it is in the header's list, an even one the length of a text.
enum Code<'a> {
    None,
    Onward(u64),
    Text(&'a str),
}

impl<'a> Code<'a> {
    fn read(input: &mut Input<'a>) -> Result<Self, DecodeError> {
        Ok(match input.number()? {
            0 => Self::None,
            onward if onward % 2 == 1 => Self::Onward(onward / 2),
            length => Self::Text(input.text_of(length / 2 - 1, MAX_TEXT_BYTES, TextField::Address)?),
        })
    }
}

/// The addresses that stand in a header, those of From, To, Cc and Bcc first, each once.
struct Numbers<'a> {
    addresses: Vec<&'a str>,
    /// The number that comes next if the envelope names them in this order.
    next: usize,
}

impl<'a> Numbers<'a> {
    fn of(body: &'a [u8]) -> Self {
        const ORDER: [&str; 9] =
            ["From", "To", "Cc", "Bcc", "Sender", "Reply-To", "Resent-From", "Resent-To", "Resent-Cc"];
        let rank = |field: &Field<'_>| ORDER.iter().position(|name| field.is(name));
        let mut ranked: Vec<_> = fields(body).filter_map(|field| Some((rank(&field)?, field.value))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let mut addresses: Vec<&str> = Vec::new();
        for (_, value) in ranked {
            for address in addresses_in(&body[value]) {
                if addresses.len() < MAX_NUMBERED && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self { addresses, next: 0 }
    }

    fn put(&mut self, out: &mut Vec<u8>, address: &str) {
        let count = self.addresses.len();
        match self.addresses.iter().position(|known| *known == address) {
            Some(number) => {
                let onward = (number + count - self.next) % count;
                self.next = (number + 1) % count;
                varint::put(out, 1 + 2 * onward as u64);
            }
            None => {
                varint::put(out, 2 + 2 * address.len() as u64);
                out.extend_from_slice(address.as_bytes());
            }
        }
    }

    fn address(&mut self, code: Code<'_>) -> Result<Option<Mailbox>, DecodeError> {
        match code {
            Code::None => Ok(None),
            Code::Text(text) => Ok(Some(Mailbox::new(text))),
            Code::Onward(onward) => {
                let count = self.addresses.len();
                let onward = usize::try_from(onward).ok().filter(|onward| *onward < count);
                let number = (self.next + onward.ok_or(DecodeError::Range("address"))?) % count;
                self.next = (number + 1) % count;
                Ok(Some(Mailbox::new(self.addresses[number])))
            }
        }
    }
}

/// What looks like an address in a field's value.
fn addresses_in(value: &[u8]) -> impl Iterator<Item = &str> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~.@".contains(byte);
    value
        .split(move |byte| !is_part(byte))
        .filter(|word| word.len() <= MAX_TEXT_BYTES && word.iter().filter(|b| **b == b'@').count() == 1)
        .filter_map(|word| core::str::from_utf8(word).ok())
}

/// The minute, counted as an envelope counts them and rounded up, in which the message came in, as the uppermost trace field has it; without one
/// when it was written; 0 where neither can be read.
fn dated(body: &[u8]) -> i64 {
    let date = |name: &str| {
        let field = fields(body).find(|field| field.is(name))?;
        let value = core::str::from_utf8(&body[field.value]).ok()?;
        minute_of(value.rsplit_once(';').map_or(value, |(_, date)| date))
    };
    date("Received").or_else(|| date("Date")).unwrap_or_default()
}

/// The minute of a date as RFC 5322 3.3 writes it, without the obsolete forms.
fn minute_of(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = date.rsplit_once(',').map_or(date, |(_, rest)| rest);
    let mut words = date.split_ascii_whitespace();
    let number = |text: &str, most: i64| text.parse().ok().filter(|n: &i64| (0..=most).contains(n));
    let day = number(words.next()?, 31)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let year = number(words.next()?, 9999)?;
    let mut clock = words.next()?.split(':');
    let (hours, minutes) = (number(clock.next()?, 23)?, number(clock.next()?, 59)?);
    let seconds = clock.next().map_or(Some(0), |seconds| number(seconds, 60))?;
    let zone = words.next()?;
    let (sign, zone) = zone.split_at_checked(1)?;
    let zone = number(zone, 9999)?;
    let east = (zone / 100 * 60 + zone % 100) * if sign == "-" { -1 } else { 1 };
    // Days since 1 March of year 0, the leap day being the last of a year.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1;
    const ERA: i64 = 365 * 2019 + 2019 / 4 - 2019 / 100 + 2019 / 400 + (153 * 10 + 2) / 5;
    Some((days - ERA) * 1440 + hours * 60 + minutes + i64::from(seconds > 0) - east)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::AirEnvelope;
    use super::*;
    use crate::mail::{Envelope, Notify, Precedence, Recipient};
    use crate::time::Wall;

    const MAIL: &[u8] = b"Received: from a.example (a.example [192.0.2.1])\r\n\tby ship.example with ESMTP id 7\r\n\tfor <late@shore.example>; \
        Mon, 23 Nov 2026 11:15:30 +0100\r\nDate: Sun, 22 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@ship.example>\r\n\
        To: Cook <cook@shore.example>,\r\n mate@shore.example\r\nCc: \"J@ck\" <jack+log@base.example>\r\n\
        From: Ops <ops@ship.example>\r\n\r\nTo: nobody@body.example\r\n";

    fn envelope(from: Option<&str>, to: &[&str], expires: &str) -> AirEnvelope {
        AirEnvelope {
            envelope: Envelope::plain(
                from.map(Mailbox::new),
                to.iter().map(|to| Recipient::plain(Mailbox::new(*to))).collect(),
                Wall::parse_rfc3339(expires).expect("a time"),
            ),
            precedence: Precedence::Routine,
            hops: vec!["ship".into()],
            serves: Vec::new(),
        }
    }

    /// The envelope's part of the stream, which comes back.
    fn head(air: &AirEnvelope, body: &[u8]) -> Vec<u8> {
        let coded = encode(air).expect("within bounds");
        let stream = join(&coded, body);
        assert_eq!(part(&stream), Ok((coded, body)));
        stream[..stream.len() - body.len()].to_vec()
    }

    #[test]
    fn addresses_of_the_header_are_numbers_and_the_expiry_counts_from_its_uppermost_date() {
        let to = ["cook@shore.example", "mate@shore.example", "jack+log@base.example"];
        let air = envelope(Some("ops@ship.example"), &to, "2026-11-28T10:16:00Z");
        // Version, flags, five days in minutes, one hop, and four addresses in the header's order.
        assert_eq!(head(&air, MAIL), [&[1, 1, 0x30, 0xc0, 0x70, 1, 4][..], b"ship", &[1, 3, 1, 1, 3]].concat());
        // The third and fifth; what is no address counts where it looks like one.
        let air = envelope(None, &to[1..], "2026-11-28T10:16:00Z");
        assert_eq!(head(&air, MAIL)[11..], [0, 2, 5, 3]);
    }

    #[test]
    fn what_the_header_does_not_say_is_said() {
        let air = envelope(Some("bounce@other.example"), &["late@shore.example"], "2026-11-28T10:16:00Z");
        assert!(head(&air, MAIL).ends_with(b"late@shore.example"), "trace fields count for nothing");
        assert!(head(&air, b"no header at all").ends_with(b"late@shore.example"));
        let mut air = envelope(Some("ops@ship.example"), &["cook@shore.example"], "1999-01-01T00:00:00Z");
        air.envelope.envid = Some("QQ1".into());
        air.envelope.recipients[0].orcpt = Some("rfc822;cook@shore.example".into());
        air.envelope.recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
        assert!(head(&air, MAIL).len() < 24);
        air.envelope.recipients.push(Recipient {
            orcpt: Some("rfc822;mate@shore.example".into()),
            ..Recipient::plain(Mailbox::new("stranger@shore.example"))
        });
        air.serves = vec![("shore".into(), 1), ("base".into(), 1)];
        head(&air, MAIL);
    }

    #[test]
    fn minutes_are_those_of_an_envelope() {
        assert_eq!(minute_of(" Wed, 1 Jan 2020 00:00:00 +0000"), Some(0));
        assert_eq!(minute_of("29 Feb 2024 23:59:01 -0030"), Some(2_190_270));
        for wrong in
            ["", "Mon, 32 Jan 2020 00:00 +0000", "1 Jan 2020 24:00 +0000", "1 Jan 2020 10 +0000", "1 Jän 2020 1:1 +0"]
        {
            assert_eq!(minute_of(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_joined_comes_apart(
            envelope in proptest::collection::vec(any::<u8>(), 0..40),
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "((From|To|Date|Received): ?[a-c@<>, ;0-9\r\n]{0,40}\r\n){0,6}\r\n".prop_map(String::into_bytes),
            ],
        ) {
            let stream = join(&envelope, &body);
            prop_assert_eq!(part(&stream), Ok((envelope, body.as_slice())));
        }

        #[test]
        fn invented_streams_never_panic_and_stay_within_bounds(
            first in 0..4u8,
            rest in proptest::collection::vec(prop_oneof![any::<u8>(), Just(1u8)], 0..300),
        ) {
            let stream = [&[first][..], &rest, b"To: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@example\r\n\r\n"].concat();
            if let Ok((envelope, _)) = part(&stream) {
                prop_assert!(envelope.len() <= MAX_BYTES + 2 * MAX_TEXT_BYTES);
            }
        }
    }
}
