//! Receipts as digest: what reports of this switch tell a peer that holds the reported messages itself.
//!
//! The switch sends this instead of the reports where the peer can build them again (`docs/codec.md`, "Receipts"). It is a payload
//! with a codec of its own: no envelope, no body. Pure functions of their inputs; [`decode`] trusts nothing.

use super::payload::DecodeError;
use super::varint;
use crate::mail::{LOCAL_MAILBOX, Receipt, Status, Taken};

/// Receipts in one payload at most.
pub const MOST: usize = 64;
/// The payload's first byte: codec 7, no dictionary.
const FIRST_BYTE: u8 = 7 << 5;
/// Receipts of one run at most.
const LONGEST_RUN: usize = 8;
/// Names by number: the two that need no spelling, then those that were spelled, in their order.
const LOCAL: u64 = 0;
const NOBODY: u64 = 1;
const SPELLED: u64 = 2;

/// One receipt, and of which transfer of the peer it speaks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Told {
    /// The counter under which the reported message crossed the air.
    pub counter: u32,
    /// What it says.
    pub receipt: Receipt,
}

/// Receipts for one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// The peer's store epoch under which their messages crossed the air.
    pub epoch: u32,
    /// In order.
    pub told: Vec<Told>,
}

/// Whether a payload is such a digest.
pub fn is_digest(payload: &[u8]) -> bool {
    payload.first() == Some(&FIRST_BYTE)
}

/// Codes at most [`MOST`] receipts that [can be told](Taken::can_be_told); times are cut to the minute.
pub fn encode(digest: &Digest) -> Vec<u8> {
    let mut told: Vec<&Told> = digest.told.iter().take(MOST).collect();
    told.sort();
    let minute = |t: &Told| Receipt::minute(t.receipt.at).unwrap_or(0);
    let latest = told.iter().map(|t| minute(t)).max().unwrap_or(0);
    let mut out = vec![FIRST_BYTE];
    out.extend(digest.epoch.to_be_bytes());
    out.extend(&latest.to_be_bytes()[1..]);
    let (mut names, mut taken, mut before) = (Vec::new(), &Taken::locally(), 0_u32);
    let mut rest = told.as_slice();
    while let Some((first, more)) = rest.split_first() {
        let follows = |(t, n): &(&&Told, u32)| {
            let same = (t.receipt.recipient, &t.receipt.taken) == (first.receipt.recipient, &first.receipt.taken);
            first.counter.checked_add(*n) == Some(t.counter) && same && minute(t) == minute(first)
        };
        let count = 1 + more.iter().take(LONGEST_RUN - 1).zip(1..).take_while(follows).count();
        let recipient = first.receipt.recipient;
        let other = *taken != first.receipt.taken;
        let plain = recipient == 0 && !other;
        varint::put(&mut out, u64::from(first.counter - before) << 1 | u64::from(!plain));
        if !plain {
            varint::put(&mut out, u64::from(recipient) << 1 | u64::from(other));
        }
        if other {
            taken = &first.receipt.taken;
            put_taken(&mut out, &mut names, taken);
        }
        varint::put(&mut out, u64::from(latest - minute(first)) << 3 | (count - 1) as u64);
        before = first.counter + (count - 1) as u32;
        rest = &rest[count..];
    }
    out
}

fn put_taken<'a>(out: &mut Vec<u8>, names: &mut Vec<&'a str>, taken: &'a Taken) {
    let (number, new) = match taken.by.as_deref() {
        Some(LOCAL_MAILBOX) => (LOCAL, None),
        None => (NOBODY, None),
        Some(name) => match names.iter().position(|known| *known == name) {
            Some(at) => (SPELLED + at as u64, None),
            None => (SPELLED + names.len() as u64, Some(name)),
        },
    };
    let usual = usual(taken.relayed) == taken.status;
    varint::put(out, number << 2 | u64::from(!usual) << 1 | u64::from(taken.relayed));
    if let Some(name) = new {
        names.push(name);
        varint::put(out, name.len() as u64);
        out.extend(name.as_bytes());
    }
    if !usual {
        varint::put(out, u64::from(taken.status.1));
        varint::put(out, u64::from(taken.status.2));
    }
}

const fn usual(relayed: bool) -> Status {
    if relayed { Taken::RELAYED } else { Taken::DELIVERED }
}

/// Reads a digest.
pub fn decode(payload: &[u8]) -> Result<Digest, DecodeError> {
    read(payload).ok_or(DecodeError::Corrupt("not a digest of receipts"))
}

fn read(payload: &[u8]) -> Option<Digest> {
    let rest = payload.strip_prefix(&[FIRST_BYTE])?;
    let (epoch, rest) = rest.split_first_chunk::<4>()?;
    let ([high, middle, low], mut rest) = rest.split_first_chunk::<3>()?;
    let latest = u32::from_be_bytes([0, *high, *middle, *low]);
    let (mut names, mut taken, mut before) = (Vec::new(), Taken::locally(), 0_u32);
    let mut told = Vec::new();
    while !rest.is_empty() {
        let head = varint::take(&mut rest)?;
        let first = before.checked_add(u32::try_from(head >> 1).ok()?)?;
        let mut recipient = 0;
        if head & 1 == 1 {
            let which = varint::take(&mut rest)?;
            recipient = u32::try_from(which >> 1).ok()?;
            if which & 1 == 1 {
                taken = take_taken(&mut rest, &mut names)?;
            }
        }
        let tail = varint::take(&mut rest)?;
        let at = Receipt::time(latest.checked_sub(u32::try_from(tail >> 3).ok()?)?);
        before = first.checked_add((tail & 7) as u32)?;
        if told.len() + (tail & 7) as usize >= MOST {
            return None;
        }
        let receipt = Receipt { recipient, taken: taken.clone(), at };
        told.extend((first..=before).map(|counter| Told { counter, receipt: receipt.clone() }));
    }
    told.sort();
    (!told.is_empty()).then_some(Digest { epoch: u32::from_be_bytes(*epoch), told })
}

fn take_taken(rest: &mut &[u8], names: &mut Vec<String>) -> Option<Taken> {
    let head = varint::take(rest)?;
    let relayed = head & 1 == 1;
    let by = match head >> 2 {
        LOCAL => Some(LOCAL_MAILBOX.to_owned()),
        NOBODY => None,
        spelled => {
            let at = usize::try_from(spelled - SPELLED).ok()?;
            if at == names.len() {
                let length = usize::try_from(varint::take(rest)?).ok()?;
                let (name, tail) = rest.split_at_checked(length)?;
                names.push(core::str::from_utf8(name).ok()?.to_owned());
                *rest = tail;
            }
            Some(names.get(at)?.clone())
        }
    };
    let mut status = usual(relayed);
    if head & 2 == 2 {
        let mut number = || varint::take(rest).and_then(|n| u16::try_from(n).ok());
        status = Status(2, number()?, number()?);
    }
    Some(Taken { relayed, status, by }).filter(Taken::can_be_told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(counter: u32, recipient: u32, minute: u32) -> Told {
        Told { counter, receipt: Receipt { recipient, taken: Taken::locally(), at: Receipt::time(minute) } }
    }

    fn digest(told: Vec<Told>) -> Digest {
        Digest { epoch: 7, told }
    }

    #[test]
    fn twenty_plain_receipts_cost_half_a_byte_each_and_one_alone_ten_bytes() {
        // Two minutes of mail that came in a row: 8 bytes for all, then runs of two bytes.
        let digest = digest((0..20).map(|i| told(40 + i, 0, 3_600_000 + i / 10)).collect());
        let bytes = encode(&digest);
        assert_eq!(bytes.len(), 8 + 4 * 2);
        assert_eq!(decode(&bytes), Ok(digest));
        assert_eq!(encode(&super::Digest { epoch: 7, told: vec![told(40, 0, 3_600_000)] }).len(), 8 + 2);
    }

    #[test]
    fn what_a_server_took_costs_its_name_once() {
        let by = Some("mail.shore.example".to_owned());
        let relayed = Taken { relayed: true, status: Taken::RELAYED, by };
        let all = (0..16).map(|i| {
            let receipt = Receipt { recipient: 0, taken: relayed.clone(), at: Receipt::time(9) };
            Told { counter: 1 + i, receipt }
        });
        let digest = digest(all.collect());
        let bytes = encode(&digest);
        assert_eq!(bytes.len(), 8 + (1 + 1 + 1 + 1 + 18 + 1) + 2);
        assert_eq!(decode(&bytes), Ok(digest));
    }

    #[test]
    fn a_digest_of_failures_of_nothing_or_of_too_much_is_refused() {
        assert!(decode(&encode(&digest(Vec::new()))).is_err());
        let one = encode(&digest(vec![told(1, 0, 5)]));
        assert!(decode(&one).is_ok());
        assert!(decode(&[&one[..], &[2, 7].repeat(7)].concat()).is_ok(), "57 receipts");
        assert!(decode(&[&one[..], &[2, 7].repeat(8)].concat()).is_err(), "65");
        assert!(decode(&[&one[..], &[2, 6 << 3]].concat()).is_err(), "before the first minute");
        let mut failed = told(1, 0, 5);
        failed.receipt.taken.status = Status(5, 1, 1);
        let of_success = decode(&encode(&digest(vec![failed]))).expect("the class is not coded");
        assert_eq!(of_success.told[0].receipt.taken.status, Status(2, 1, 1));
    }

    #[test]
    fn the_wire_form_does_not_change() {
        let other = Taken { relayed: true, status: Status(2, 5, 0), by: Some("mx".to_owned()) };
        let mut last = told(300, 2, 1000);
        last.receipt.taken = other;
        let bytes = encode(&digest(vec![told(9, 0, 999), told(10, 0, 999), told(10, 1, 1000), last]));
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "e0000000070003e81209010200c504050b026d78050000");
    }

    fn any_taken() -> impl Strategy<Value = Taken> {
        let by = prop_oneof![
            Just(None),
            Just(Some(LOCAL_MAILBOX.to_owned())),
            "[!-~]{1,20}".prop_map(Some),
            Just(Some("mx".to_owned()))
        ];
        let status = prop_oneof![
            Just(Taken::DELIVERED),
            Just(Taken::RELAYED),
            (0..1000u16, 0..1000u16).prop_map(|(subject, detail)| Status(2, subject, detail))
        ];
        (any::<bool>(), status, by).prop_map(|(relayed, status, by)| Taken { relayed, status, by })
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_is_read(
            epoch in any::<u32>(),
            all in proptest::collection::vec(
                (prop_oneof![0..40u32, any::<u32>()], 0..4u32, any_taken(), prop_oneof![0..9u32, 0..1u32 << 24]),
                1..=MOST,
            ),
        ) {
            let mut told: Vec<Told> = all
                .into_iter()
                .map(|(counter, recipient, taken, minute)| {
                    Told { counter, receipt: Receipt { recipient, taken, at: Receipt::time(minute) } }
                })
                .collect();
            told.sort();
            let digest = Digest { epoch, told };
            prop_assert_eq!(decode(&encode(&digest)), Ok(digest));
        }

        #[test]
        fn any_bytes_are_an_error_or_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(digest) = decode(&[&[FIRST_BYTE], &bytes[..]].concat()) {
                prop_assert!(digest.told.len() <= MOST);
                prop_assert_eq!(decode(&encode(&digest)), Ok(digest));
            }
        }

        #[test]
        fn a_damaged_digest_is_an_error_or_within_bounds(at in 8..40usize, byte in any::<u8>(), cut in 0..40usize) {
            let mut bytes = encode(&digest((0..40).map(|i| told(i * 3, i % 3, 100 + i)).collect()));
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut);
            if let Ok(digest) = decode(&bytes) {
                prop_assert!(digest.told.len() <= MOST);
                prop_assert_eq!(decode(&encode(&digest)), Ok(digest));
            }
        }
    }
}
