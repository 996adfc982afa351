//! Receipts as digest: what a report of this switch tells a peer that holds the reported message itself.
//!
//! The switch sends this instead of the reports where the peer can build them again (`docs/codec.md`, "Receipts"). It is a payload
//! with a codec of its own: no envelope, no body. Pure functions of their inputs; [`decode`] trusts nothing.

use super::payload::DecodeError;
use super::varint;
use crate::mail::{Receipt, Status};
use crate::time::Wall;

/// Receipts in one payload at most.
pub const MOST: usize = 64;
/// The payload's first byte: codec 7, no dictionary.
const FIRST_BYTE: u8 = 7 << 5;
/// Minutes count from 2020-01-01T00:00:00Z, as in envelopes.
const EPOCH_MS: i64 = Receipt::EPOCH_MS;
const MINUTE_MS: i64 = 60_000;
/// What a final delivery says (RFC 3463); others are spelled out.
const DELIVERED: Status = Status(2, 1, 5);

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
    /// In the order of their counters.
    pub told: Vec<Told>,
}

/// Whether a payload is such a digest.
pub fn is_digest(payload: &[u8]) -> bool {
    payload.first() == Some(&FIRST_BYTE)
}

/// Codes at most [`MOST`] receipts; times are cut to the minute.
pub fn encode(digest: &Digest) -> Vec<u8> {
    let mut told: Vec<&Told> = digest.told.iter().take(MOST).collect();
    told.sort();
    let minutes = |t: &Told| u64::try_from((t.receipt.at.0 - EPOCH_MS).max(0) / MINUTE_MS).unwrap_or(0);
    let latest = told.iter().map(|t| minutes(t)).max().unwrap_or(0);
    let mut out = vec![FIRST_BYTE];
    out.extend(digest.epoch.to_be_bytes());
    varint::put(&mut out, latest);
    let mut before = 0;
    for t in told {
        let Receipt { recipient, status, .. } = t.receipt;
        let plain = recipient == 0 && status == DELIVERED;
        varint::put(&mut out, u64::from(t.counter - before) << 1 | u64::from(!plain));
        before = t.counter;
        if !plain {
            varint::put(&mut out, u64::from(recipient) << 1 | u64::from(status != DELIVERED));
        }
        if status != DELIVERED {
            out.push(status.0);
            varint::put(&mut out, u64::from(status.1));
            varint::put(&mut out, u64::from(status.2));
        }
        varint::put(&mut out, latest - minutes(t));
    }
    out
}

/// Reads a digest.
pub fn decode(payload: &[u8]) -> Result<Digest, DecodeError> {
    let corrupt = DecodeError::Corrupt("not a digest of receipts");
    read(payload).ok_or(corrupt)
}

fn read(payload: &[u8]) -> Option<Digest> {
    let rest = payload.strip_prefix(&[FIRST_BYTE])?;
    let (epoch, mut rest) = rest.split_first_chunk::<4>()?;
    let latest = varint::take(&mut rest).filter(|minutes| u32::try_from(*minutes).is_ok())?;
    let mut told = Vec::new();
    let mut before = 0_u32;
    while !rest.is_empty() {
        if told.len() == MOST {
            return None;
        }
        let head = varint::take(&mut rest)?;
        before = before.checked_add(u32::try_from(head >> 1).ok()?)?;
        let (mut recipient, mut status) = (0, DELIVERED);
        if head & 1 == 1 {
            let details = varint::take(&mut rest)?;
            recipient = u32::try_from(details >> 1).ok()?;
            if details & 1 == 1 {
                let (&class, tail) = rest.split_first()?;
                rest = tail;
                let mut number = || varint::take(&mut rest).and_then(|n| u16::try_from(n).ok()).filter(|n| *n < 1000);
                status = Status(class, number()?, number()?);
            }
        }
        // Only successes are told so: what a failure says beside its code would be lost.
        if status.0 != 2 {
            return None;
        }
        let minutes = latest.checked_sub(varint::take(&mut rest)?)?;
        let at = Wall(EPOCH_MS + i64::try_from(minutes).ok()? * MINUTE_MS);
        told.push(Told { counter: before, receipt: Receipt { recipient, status, at } });
    }
    (!told.is_empty()).then_some(Digest { epoch: u32::from_be_bytes(*epoch), told })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(counter: u32, recipient: u32, minutes: i64) -> Told {
        let at = Wall(EPOCH_MS + minutes * MINUTE_MS);
        Told { counter, receipt: Receipt { recipient, status: DELIVERED, at } }
    }

    #[test]
    fn twenty_plain_receipts_cost_two_bytes_each_and_nine_together() {
        let digest = Digest { epoch: 7, told: (0..20).map(|i| told(40 + i, 0, 3_600_000)).collect() };
        let bytes = encode(&digest);
        assert_eq!(bytes.len(), 9 + 20 * 2);
        assert_eq!(decode(&bytes), Ok(digest));
    }

    #[test]
    fn a_digest_that_speaks_of_failures_or_of_nothing_is_refused() {
        let mut failed = told(1, 0, 5);
        failed.receipt.status = Status(5, 1, 1);
        assert!(decode(&encode(&Digest { epoch: 1, told: vec![failed] })).is_err());
        assert!(decode(&encode(&Digest { epoch: 1, told: Vec::new() })).is_err());
        let many = [&encode(&Digest { epoch: 1, told: vec![told(1, 0, 5)] })[..], &[2, 0].repeat(MOST)].concat();
        assert!(decode(&many).is_err(), "more than a payload holds");
    }

    #[test]
    fn a_time_is_cut_to_its_minute() {
        let at = Wall(EPOCH_MS + 3 * MINUTE_MS + 59_999);
        assert_eq!(Receipt::minute(at), Some(Wall(EPOCH_MS + 3 * MINUTE_MS)));
        assert_eq!(Receipt::minute(Wall(EPOCH_MS - 1)), None);
        assert_eq!(Receipt::minute(Wall::NEVER), None);
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_is_read(
            epoch in any::<u32>(),
            mut all in proptest::collection::vec((any::<u32>(), 0..1000u32, 0..1000u16, 0..1000u16, 0..=i64::from(u32::MAX)), 1..=MOST),
        ) {
            all.sort();
            let mut told: Vec<Told> = all
                .into_iter()
                .map(|(counter, recipient, subject, detail, minutes)| {
                    let at = Wall(EPOCH_MS + minutes * MINUTE_MS);
                    Told { counter, receipt: Receipt { recipient, status: Status(2, subject, detail), at } }
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
    }
}
