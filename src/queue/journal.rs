//! The log beside the store: what was promised since the store's last commit, in a file that was filled beforehand.
//!
//! A commit of redb is two syncs and writes every page it touched. So groups of calls are done in one long transaction, which is committed now
//! and then, and each group's changes are appended here and synced once: the file does not grow, so a sync is the data and nothing else. After a
//! power cut redb holds its last commit, as it always does, and [`Journal::read`] gives back what was promised on top of it.
//!
//! A record begins on a page of its own, so that no write touches a page in which something promised stands:
//!
//! ```text
//! "ALDK" | length of the rest | CRC-32 of the rest | epoch of the store | sequence | CRC-32 of the record before | changes, each: length | postcard
//! ```
//!
//! Sequences are those of [`Tally`](super::table::Tally). The log starts again at 0 only once a commit that covers all of it is durable;
//! records of before are told from newer ones by their sequence, which is not the next.
//!
//! Records are written while others are being synced. So a power cut may leave one whole that stands behind one that is not; nobody was
//! promised either. It must not come back behind whatever takes the lost one's place and sequence later: hence the CRC of the record before,
//! which is that of the very one it followed (0 at the start). Records of store format 2, "ALDJ", were synced one by one and lack it.

use std::io;
use std::sync::{Arc, OnceLock};

use redb::StorageBackend;

use super::backend::{Backend, Faults};
use super::disk::Disk;
use super::store::Change;
use super::table;

/// The log's file in its disk's root.
pub const LOG_FILE: &str = "store.log";
/// A log that belongs to another store.
const STRANGE_FILE: &str = "store.log.aside";
const MAGIC: [u8; 4] = *b"ALDK";
/// Records that do not say what they follow.
const MAGIC_2: [u8; 4] = *b"ALDJ";
const PAGE: u64 = 4096;
/// Magic, length, CRC.
const HEAD: usize = 12;
/// Epoch, sequence and the CRC of the record before, after the head.
const PLACE: usize = 16;

/// What one record says.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) epoch: u32,
    pub(super) sequence: u64,
    pub(super) changes: Vec<Change>,
    /// CRC of the record it follows, if it says so.
    follows: Option<u32>,
    crc: u32,
}

/// A record being written: changes are added as they are made.
#[derive(Debug)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    most: u64,
}

impl Draft {
    /// Whether it has become too long.
    pub(super) fn is_full(&self) -> bool {
        self.len() > self.most
    }

    pub(super) fn add(&mut self, change: &Change) -> Result<(), String> {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        let out = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(change, out).map_err(|e| e.to_string())?;
        let length = u32::try_from(self.bytes.len() - at - 4).map_err(|e| e.to_string())?;
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The record's pages, and its CRC.
    fn finish(mut self, epoch: u32, sequence: u64, follows: u32) -> (Vec<u8>, u32) {
        let rest = u32::try_from(self.bytes.len() - HEAD).unwrap_or(u32::MAX);
        let place = [epoch.to_le_bytes().as_slice(), &sequence.to_le_bytes(), &follows.to_le_bytes()].concat();
        self.bytes.splice(HEAD..HEAD + PLACE, place);
        let crc = table::crc(self.bytes.get(HEAD..).unwrap_or_default());
        self.bytes.splice(..HEAD, [MAGIC, rest.to_le_bytes(), crc.to_le_bytes()].concat());
        let whole = self.bytes.len().next_multiple_of(PAGE as usize);
        self.bytes.resize(whole, 0);
        (self.bytes, crc)
    }
}

/// The log's file. One thread writes it while another may make durable what was written before.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Backend,
    failed: OnceLock<String>,
}

impl LogFile {
    /// Makes durable what was written before this call. After one failure nothing is known of the file, and every later call fails too.
    pub(super) fn sync(&self) -> Result<(), String> {
        if let Some(why) = self.failed.get() {
            return Err(why.clone());
        }
        self.file.sync_data().map_err(|e| self.failed.get_or_init(|| format!("{LOG_FILE}: sync: {e}")).clone())
    }
}

/// The open log.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<LogFile>,
    length: u64,
    at: u64,
    /// CRC of the last record, 0 at the start.
    last: u32,
    /// Memory of the last record, for the next.
    spare: Vec<u8>,
}

impl Journal {
    /// Every whole record from the start of the log on whose sequence follows the one before it, when there is a log.
    pub(super) fn read(disk: &dyn Disk, faults: &Arc<Faults>) -> io::Result<Vec<Record>> {
        if !disk.list("")?.iter().any(|name| name == LOG_FILE) {
            return Ok(Vec::new());
        }
        let file = Backend::new(disk.open(LOG_FILE, false)?, faults.clone());
        let length = file.len()?;
        let mut records: Vec<Record> = Vec::new();
        let mut at = 0;
        while let Some((record, next)) = read_one(&file, at, length)? {
            let next_of = |last: &Record| record.sequence == last.sequence + 1 && record.epoch == last.epoch;
            let before = records.last().map_or(0, |last| last.crc);
            if records.last().is_some_and(|last| !next_of(last)) || record.follows.is_some_and(|crc| crc != before) {
                break;
            }
            records.push(record);
            at = next;
        }
        Ok(records)
    }

    /// An empty log of `length` bytes, filled, for a store that holds all there was in an earlier one.
    pub(super) fn start(disk: &dyn Disk, length: u64, faults: &Arc<Faults>) -> io::Result<Self> {
        let there = disk.list("")?.iter().any(|name| name == LOG_FILE);
        let file = Backend::new(disk.open(LOG_FILE, true)?, faults.clone());
        if !there || file.len()? != length {
            file.set_len(0)?;
            let zeros = vec![0; PAGE as usize * 64];
            let mut at = 0;
            while at < length {
                let part = zeros.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
                file.write(at, zeros.get(..part).unwrap_or_default())?;
                at += part as u64;
            }
            file.sync_data()?;
            disk.sync_dir("")?;
        }
        Ok(Self {
            file: Arc::new(LogFile { file, failed: OnceLock::new() }),
            length,
            at: 0,
            last: 0,
            spare: Vec::new(),
        })
    }

    /// Puts a log that belongs to another store out of the way.
    pub(super) fn set_aside(disk: &dyn Disk) -> io::Result<String> {
        disk.rename(LOG_FILE, STRANGE_FILE)?;
        disk.sync_dir("")?;
        Ok(format!("{LOG_FILE} continues another store than this one and is now {STRANGE_FILE}"))
    }

    /// A new record. One that takes more than a quarter of the log is better committed at once.
    pub(super) fn draft(&mut self) -> Draft {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes.resize(HEAD + PLACE, 0);
        Draft { bytes, most: self.length / 4 }
    }

    /// Whether a record fits behind the last one.
    pub(super) fn fits(&self, draft: &Draft) -> bool {
        !draft.is_full() && self.at + draft.len().next_multiple_of(PAGE) <= self.length
    }

    /// Appends a record. It is durable after a sync of what is returned.
    pub(super) fn append(&mut self, draft: Draft, epoch: u32, sequence: u64) -> io::Result<Arc<LogFile>> {
        let (bytes, crc) = draft.finish(epoch, sequence, self.last);
        self.file.file.write(self.at, &bytes)?;
        (self.at, self.last) = (self.at + bytes.len() as u64, crc);
        self.spare = bytes;
        Ok(self.file.clone())
    }

    /// Why what was appended may not be durable.
    pub(super) fn failure(&self) -> Option<&str> {
        self.file.failed.get().map(String::as_str)
    }

    /// Starts again at the beginning. All that stands in it must be durable in the store.
    pub(super) fn restart(&mut self) {
        (self.at, self.last) = (0, 0);
    }
}

/// The record at `at` and where the next one would stand; `None` where there is no whole one.
fn read_one(file: &Backend, at: u64, length: u64) -> io::Result<Option<(Record, u64)>> {
    let mut head = [0; HEAD];
    if at + HEAD as u64 > length {
        return Ok(None);
    }
    file.read(at, &mut head)?;
    let ([magic, size, crc], []) = head.as_chunks::<4>() else { return Ok(None) };
    let (size, crc) = (u64::from(u32::from_le_bytes(*size)), u32::from_le_bytes(*crc));
    if ![MAGIC, MAGIC_2].contains(magic) || at + HEAD as u64 + size > length {
        return Ok(None);
    }
    let mut rest = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read(at + HEAD as u64, &mut rest)?;
    if table::crc(&rest) != crc {
        return Ok(None);
    }
    let next = (at + HEAD as u64 + size).next_multiple_of(PAGE);
    Ok(parse(&rest, crc, *magic == MAGIC).map(|record| (record, next)))
}

fn parse(rest: &[u8], crc: u32, linked: bool) -> Option<Record> {
    let (epoch, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, mut rest) = rest.split_first_chunk::<8>()?;
    let mut follows = None;
    if linked {
        let (before, more) = rest.split_first_chunk::<4>()?;
        (follows, rest) = (Some(u32::from_le_bytes(*before)), more);
    }
    let mut changes = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (change, more) = more.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        changes.push(postcard::from_bytes(change).ok()?);
        rest = more;
    }
    rest.is_empty().then(|| Record {
        epoch: u32::from_le_bytes(*epoch),
        sequence: u64::from_le_bytes(*sequence),
        changes,
        follows,
        crc,
    })
}
