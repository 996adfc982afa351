//! The tables of the store's file and the form of their rows. `docs/store.md` draws them.
//!
//! Keys are of fixed byte order. Every record value is sealed: a version byte, a CRC-32 over version and content, then
//! the content in postcard. The CRC is there because redb does not check pages it trusts, and a record that rotted on
//! flash must be told from one that was written so.

use crc32fast::Hasher;
use redb::TableDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::record::{Lease, MessageRecord, MessageState};
use crate::mail::{BodyRef, MessageId, Precedence, RecipientState, TransferId};
use crate::time::Wall;

/// Version of the tables and what is beside them. A store with a higher one is refused. Format 1 had no log, the records of 2's did not name the one
/// before, and in 3 every row of a body was one unit.
pub(super) const FORMAT: u32 = 4;
/// Version of the records.
const RECORD: u8 = 1;
/// Unit of the rows of a body: with its key and CRC it fills one 4096-byte page of redb, which gives a larger value a whole power of two of pages.
const UNIT: u64 = 4000;
/// Units in one row at most: a page of 64 KiB.
const MOST_UNITS: u64 = 16;
/// Longest name kept in the index; a longer one is found by this much of it.
const NAME_BYTES: usize = 255;

type Bytes = &'static [u8];

/// Name -> format, epoch, identity (little-endian integers) and the tally (sealed).
pub(super) const META: TableDefinition<&str, Bytes> = TableDefinition::new("meta");
/// Message id -> sealed [`MessageRecord`].
pub(super) const MESSAGE: TableDefinition<u64, Bytes> = TableDefinition::new("message");
/// (urgency, due, id) -> lease. Only schedulable messages. Urgency 0 goes first.
pub(super) const DUE: TableDefinition<(u8, i64, u64), Bytes> = TableDefinition::new("due");
/// (urgency, accepted, id) -> state. Every message that is not done.
pub(super) const LIVE: TableDefinition<(u8, i64, u64), u8> = TableDefinition::new("live");
/// (end of its life, id) -> (). Every message that is not done.
pub(super) const END: TableDefinition<(i64, u64), ()> = TableDefinition::new("end");
/// (when it ended, id) -> names of a dropped message. What purging looks at.
pub(super) const PAST: TableDefinition<(i64, u64), Bytes> = TableDefinition::new("past");
/// Name, NUL, id -> (). Message-IDs and ENVIDs.
pub(super) const NAME: TableDefinition<Bytes, ()> = TableDefinition::new("name");
/// (message id, line) -> sealed track entry.
pub(super) const TRACK: TableDefinition<(u64, u32), Bytes> = TableDefinition::new("track");
/// Seen key -> remembered until.
pub(super) const SEEN: TableDefinition<Bytes, i64> = TableDefinition::new("seen");
/// (remembered until, seen key) -> ().
pub(super) const SEEN_END: TableDefinition<(i64, Bytes), ()> = TableDefinition::new("seen_end");
/// Body ref -> (length, messages and transfers that use it).
pub(super) const BODY: TableDefinition<u64, (u64, u32)> = TableDefinition::new("body");
/// (body ref, unit at which it begins) -> CRC-32, bytes; see [`chunks`].
pub(super) const CHUNK: TableDefinition<(u64, u32), Bytes> = TableDefinition::new("chunk");
/// Transfer id -> sealed transfer record.
pub(super) const TRANSFER: TableDefinition<Bytes, Bytes> = TableDefinition::new("transfer");
/// Bearer's key -> sealed bytes.
pub(super) const LINK: TableDefinition<Bytes, Bytes> = TableDefinition::new("link");
/// Name -> sealed bytes.
pub(super) const SETTING: TableDefinition<&str, Bytes> = TableDefinition::new("setting");
/// What a damaged row was -> its bytes as found.
pub(super) const ASIDE: TableDefinition<&str, Bytes> = TableDefinition::new("aside");

/// What a transaction leaves beside its rows: written with them, so never wrong after a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Counts transactions: tells after a reopening whether the last one landed.
    pub(super) sequence: u64,
    pub(super) next_message: u64,
    pub(super) next_body: u64,
    /// Messages not done, by precedence rank.
    pub(super) depth: [u64; 6],
}

/// Wraps a record's content.
pub(super) fn seal(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 5);
    out.push(RECORD);
    out.extend_from_slice(&seal_crc(content).to_le_bytes());
    out.extend_from_slice(content);
    out
}

/// The content of a sealed record, or what is wrong with it.
pub(super) fn unseal(row: &[u8]) -> Result<&[u8], String> {
    let Some((&[version, a, b, c, d], content)) = row.split_first_chunk::<5>() else {
        return Err("cut short".into());
    };
    if seal_crc_of(version, content) != u32::from_le_bytes([a, b, c, d]) {
        return Err("checksum does not match".into());
    }
    if version != RECORD {
        return Err(format!("record version {version} is not known"));
    }
    Ok(content)
}

/// CRC-32 as everywhere in the store.
pub(super) fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

fn seal_crc(content: &[u8]) -> u32 {
    seal_crc_of(RECORD, content)
}

fn seal_crc_of(version: u8, content: &[u8]) -> u32 {
    let mut digest = Hasher::new();
    digest.update(&[version]);
    digest.update(content);
    digest.finalize()
}

/// A record as a row.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, String> {
    postcard::to_stdvec(record).map(|content| seal(&content)).map_err(|e| e.to_string())
}

/// A row as a record.
pub(super) fn decode<T: DeserializeOwned>(row: &[u8]) -> Result<T, String> {
    postcard::from_bytes(unseal(row)?).map_err(|e| e.to_string())
}

/// The unit in which a byte of a body stands.
pub(super) fn unit_of(offset: u64) -> u32 {
    u32::try_from(offset / UNIT).unwrap_or(u32::MAX)
}

/// Where a unit begins.
pub(super) fn unit_start(unit: u32) -> u64 {
    u64::from(unit) * UNIT
}

/// A body in rows, each with the unit at which it begins. A row has a power of two of units, the greatest there are enough left for (the last
/// unit need not be full), so that no page is more than a unit short of full.
pub(super) fn chunks(mut data: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut unit = 0;
    std::iter::from_fn(move || {
        let left = (data.len() as u64).div_ceil(UNIT).min(MOST_UNITS);
        let units = 1 << left.checked_ilog2()?;
        let (row, rest) = data.split_at(data.len().min(usize::try_from(units * UNIT).unwrap_or(usize::MAX)));
        let begins = unit;
        (data, unit) = (rest, unit + units as u32);
        Some((begins, row))
    })
}

/// A chunk as a row; the CRC covers its place too, so that a chunk cannot pass for another.
pub(super) fn chunk_row(body: BodyRef, index: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 4);
    out.extend_from_slice(&chunk_crc(body, index, data).to_le_bytes());
    out.extend_from_slice(data);
    out
}

/// The bytes of a chunk row, or `None` when they are not what was written.
pub(super) fn chunk_data(body: BodyRef, index: u32, row: &[u8]) -> Option<&[u8]> {
    let (crc, data) = row.split_first_chunk::<4>()?;
    (chunk_crc(body, index, data) == u32::from_le_bytes(*crc)).then_some(data)
}

fn chunk_crc(body: BodyRef, index: u32, data: &[u8]) -> u32 {
    let mut digest = Hasher::new();
    digest.update(&body.0.to_le_bytes());
    digest.update(&index.to_le_bytes());
    digest.update(data);
    digest.finalize()
}

/// Key part that sorts the highest precedence first.
pub(super) const fn urgency(precedence: Precedence) -> u8 {
    5 - precedence.rank()
}

/// Origin, NUL, epoch, counter.
pub(super) fn transfer_key(id: &TransferId) -> Vec<u8> {
    let mut key = id.origin.0.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&id.epoch.to_be_bytes());
    key.extend_from_slice(&id.counter.to_be_bytes());
    key
}

/// What is looked up in the name index for `name`; angle brackets do not matter.
pub(super) fn name_prefix(name: &str) -> Vec<u8> {
    let name = name.trim();
    let name = name.strip_prefix('<').and_then(|n| n.strip_suffix('>')).unwrap_or(name);
    let mut key: Vec<u8> = name.bytes().filter(|b| *b != 0).take(NAME_BYTES).collect();
    key.push(0);
    key
}

pub(super) fn name_key(name: &str, id: u64) -> Vec<u8> {
    let mut key = name_prefix(name);
    key.extend_from_slice(&id.to_be_bytes());
    key
}

pub(super) const fn state_byte(state: MessageState) -> u8 {
    match state {
        MessageState::Checking => 0,
        MessageState::Queued => 1,
        MessageState::Held => 2,
        MessageState::Done => 3,
    }
}

/// A lease beside the due key, so that picking work never loads a message another owner holds.
pub(super) fn lease_row(lease: Option<&Lease>) -> Vec<u8> {
    let Some(lease) = lease else { return Vec::new() };
    let mut row = lease.until.0.to_le_bytes().to_vec();
    row.extend_from_slice(lease.owner.as_bytes());
    row
}

/// Whether `owner` may take a message with this lease at `now`.
pub(super) fn lease_free(row: &[u8], owner: &str, now: Wall) -> bool {
    let Some((until, holder)) = row.split_first_chunk::<8>() else { return true };
    holder == owner.as_bytes() || i64::from_le_bytes(*until) < now.0
}

/// Every row that follows from a message.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Derived {
    pub(super) due: Option<(u8, i64, u64)>,
    pub(super) lease: Vec<u8>,
    pub(super) live: Option<(u8, i64, u64)>,
    pub(super) end: Option<(i64, u64)>,
    pub(super) state: u8,
    pub(super) past: Option<(i64, u64)>,
    pub(super) names: Vec<Vec<u8>>,
    pub(super) bodies: Vec<BodyRef>,
}

impl Derived {
    pub(super) fn of(record: &MessageRecord) -> Self {
        let (id, rank) = (record.id.0, urgency(record.precedence));
        let done = record.state == MessageState::Done;
        let ended = record.recipients.iter().filter_map(|r| match r.state {
            RecipientState::Final { at, .. } => Some(at),
            RecipientState::Due { .. } | RecipientState::OnAir { .. } | RecipientState::Held { .. } => None,
        });
        let mut bodies: Vec<BodyRef> = record.recipients.iter().map(|r| r.body).collect();
        bodies.sort_unstable();
        bodies.dedup();
        // One that was accepted without a clock has no end yet: it is looked at as soon as there is a clock to give it one.
        let dated = record.envelope.expires != Wall::NEVER;
        let end = if dated { record.envelope.expires } else { record.accepted };
        let names = [&record.message_id, &record.envelope.envid];
        Self {
            due: record.due().map(|at| (rank, at.0, id)),
            lease: lease_row(record.lease.as_ref()),
            live: (!done).then_some((rank, record.accepted.0, id)),
            end: (!done).then_some((end.0, id)),
            state: state_byte(record.state),
            past: done.then(|| (ended.max().unwrap_or(record.accepted).0, id)),
            names: names.into_iter().flatten().map(|name| name_key(name, id)).collect(),
            bodies,
        }
    }
}

/// What a damaged message is called in words and in the `aside` table.
pub(super) fn message_words(id: MessageId) -> String {
    format!("message {id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_record_tells_every_flipped_bit() {
        let row = seal(b"the content of a record");
        assert_eq!(unseal(&row), Ok(&b"the content of a record"[..]));
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&bad).is_err(), "bit {bit}");
        }
        assert!(unseal(&row[..4]).is_err());
    }

    #[test]
    fn a_chunk_cannot_pass_for_another() {
        let row = chunk_row(BodyRef(7), 3, b"data");
        assert_eq!(chunk_data(BodyRef(7), 3, &row), Some(&b"data"[..]));
        assert_eq!(chunk_data(BodyRef(7), 2, &row), None);
        assert_eq!(chunk_data(BodyRef(8), 3, &row), None);
    }

    #[test]
    fn rows_fill_their_pages() {
        let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        for length in (0..9).chain(3999..4002).chain(7999..8002).chain([10_700, 64_001, 140_000, 300_000]) {
            let data = &data[..length];
            let rows: Vec<_> = chunks(data).collect();
            assert_eq!(rows.iter().flat_map(|(_, row)| *row).copied().collect::<Vec<_>>(), data);
            let mut at = 0;
            for (unit, row) in rows {
                assert_eq!((unit_start(unit), unit_of(at)), (at, unit), "{length}");
                // What redb needs beside it: a header of 4 bytes, the end of the value (4) and the key (12).
                let page = (row.len() + 4 + 20).next_multiple_of(4096).next_power_of_two();
                assert!(page <= 65_536 && page - row.len() < 4096 + 1600, "{length}: {} in {page}", row.len());
                at += row.len() as u64;
            }
        }
        assert_eq!(
            chunks(&data[..10_700]).map(|(unit, row)| (unit, row.len())).collect::<Vec<_>>(),
            [(0, 8000), (2, 2700)]
        );
    }

    #[test]
    fn a_lease_is_free_for_its_owner_and_after_its_end() {
        let row = lease_row(Some(&Lease { owner: "a".into(), until: Wall(100) }));
        assert!(lease_free(&row, "a", Wall(0)));
        assert!(!lease_free(&row, "b", Wall(100)));
        assert!(lease_free(&row, "b", Wall(101)));
        assert!(lease_free(&[], "b", Wall(0)));
    }

    #[test]
    fn angle_brackets_do_not_matter_to_names() {
        assert_eq!(name_prefix(" <a@b> "), name_prefix("a@b"));
        assert_ne!(name_prefix("<a@b"), name_prefix("a@b"));
        assert_eq!(name_prefix(&"x".repeat(1000)).len(), 256);
    }
}
