//! The store as it was at one moment: for the console, the CLI and `track`, on their own threads while the writer writes.

use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable};

use super::long::Long;
use super::record::{MessageRecord, MessageState, TrackEntry};
use super::store::{CommitError, StoreCall, StoreResult};
use super::table::{self, Tally};
use crate::mail::{BodyRef, MessageId};
use crate::time::Wall;

/// Where snapshots come from; cheap to clone, for any thread.
#[derive(Clone, Debug)]
pub struct Snapshots(Arc<Long>);

impl Snapshots {
    pub(super) fn new(shared: Arc<Long>) -> Self {
        Self(shared)
    }

    /// The store as it is now, which has it committed. Fails while the store is closed or being reopened.
    pub fn take(&self) -> Result<Snapshot, CommitError> {
        let Some(read) = self.0.read().map_err(failed)? else {
            return Err(CommitError::Failed("the store is closed".into()));
        };
        Ok(Snapshot { read: Arc::new(read) })
    }
}

/// The store at one moment. Drop it soon: pages it can see are not reused while it lives, so the file grows.
#[derive(Clone)]
pub struct Snapshot {
    read: Arc<ReadTransaction>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    /// One message.
    pub fn load(&self, id: MessageId) -> Result<Option<Box<MessageRecord>>, CommitError> {
        load(&self.read.open_table(table::MESSAGE).map_err(failed)?, id)
    }

    /// A body, whole or a part (`from`, `length`).
    pub fn read(&self, body: BodyRef, from: u64, length: u64) -> Result<Arc<[u8]>, CommitError> {
        let bodies = self.read.open_table(table::BODY).map_err(failed)?;
        read(&bodies, &self.read.open_table(table::CHUNK).map_err(failed)?, body, from, length)
    }

    /// Messages that are not done and satisfy `keep`, highest precedence first, then in order of acceptance; at most
    /// `limit`. One that cannot be read is left out: it is the writer's to set aside.
    pub fn list(
        &self,
        limit: usize,
        mut keep: impl FnMut(&MessageRecord) -> bool,
    ) -> Result<Vec<MessageRecord>, CommitError> {
        let mut found = Vec::new();
        self.walk(None, |record| {
            if keep(&record) {
                found.push(record);
            }
            found.len() < limit
        })?;
        Ok(found)
    }

    /// Messages in one state (not [`MessageState::Done`]), in the order of [`Self::list`]: what a switch resumes.
    pub fn in_state(&self, state: MessageState, limit: usize) -> Result<Vec<MessageRecord>, CommitError> {
        let mut found = Vec::new();
        self.walk(Some(table::state_byte(state)), |record| {
            found.push(record);
            found.len() < limit
        })?;
        Ok(found)
    }

    fn walk(&self, state: Option<u8>, mut more: impl FnMut(MessageRecord) -> bool) -> Result<(), CommitError> {
        let message = self.read.open_table(table::MESSAGE).map_err(failed)?;
        let live = self.read.open_table(table::LIVE).map_err(failed)?;
        for entry in live.iter().map_err(failed)? {
            let (key, found) = entry.map_err(failed)?;
            if state.is_some_and(|state| state != found.value()) {
                continue;
            }
            let Some(row) = message.get(key.value().2).map_err(failed)? else { continue };
            let Ok(record) = table::decode(row.value()) else { continue };
            if !more(record) {
                break;
            }
        }
        Ok(())
    }

    /// A message's history, oldest line first, also when the message is done or dropped. A line that cannot be read is
    /// left out.
    pub fn track(&self, id: MessageId) -> Result<Vec<TrackEntry>, CommitError> {
        let track = self.read.open_table(table::TRACK).map_err(failed)?;
        let mut lines = Vec::new();
        for entry in track.range((id.0, 0)..=(id.0, u32::MAX)).map_err(failed)? {
            lines.extend(table::decode(entry.map_err(failed)?.1.value()));
        }
        Ok(lines)
    }

    /// The messages `name` stands for, oldest first: an id as printed, a Message-ID with or without brackets, or an
    /// ENVID as it was given.
    pub fn find(&self, name: &str) -> Result<Vec<MessageId>, CommitError> {
        let mut ids = Vec::new();
        let prefix = table::name_prefix(name);
        let names = self.read.open_table(table::NAME).map_err(failed)?;
        let last = [prefix.as_slice(), &[0xFF; 8]].concat();
        for entry in names.range(prefix.as_slice()..=last.as_slice()).map_err(failed)? {
            let key = entry.map_err(failed)?.0;
            // Names hold no NUL, so a key of this length with this prefix is the name and an id.
            if let Some(id) = key.value().strip_prefix(prefix.as_slice()).and_then(|id| id.try_into().ok()) {
                ids.push(MessageId(u64::from_be_bytes(id)));
            }
        }
        if let Some(id) = MessageId::parse(name)
            && (self.load(id)?.is_some() || !self.track(id)?.is_empty())
        {
            ids.push(id);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Messages that are not done, by precedence rank: how many, and the earliest acceptance.
    pub fn depth(&self) -> Result<[(u64, Option<Wall>); 6], CommitError> {
        let meta = self.read.open_table(table::META).map_err(failed)?;
        let live = self.read.open_table(table::LIVE).map_err(failed)?;
        let row = meta.get("tally").map_err(failed)?;
        let tally: Tally = row.and_then(|row| table::decode(row.value()).ok()).unwrap_or_default();
        let mut depth = [(0, None); 6];
        for (rank, (slot, count)) in (0u8..).zip(depth.iter_mut().zip(tally.depth)) {
            let urgency = 5u8.saturating_sub(rank);
            let oldest = live.range((urgency, i64::MIN, 0)..=(urgency, i64::MAX, u64::MAX)).map_err(failed)?.next();
            let oldest = oldest.transpose().map_err(failed)?.map(|(key, _)| Wall(key.value().1));
            *slot = (count, oldest);
        }
        Ok(depth)
    }

    pub(super) fn answer(&self, call: &StoreCall) -> StoreResult {
        match call {
            StoreCall::Load(id) => StoreResult::Loaded(self.load(*id)),
            StoreCall::Read(body, from, length) => StoreResult::Read(self.read(*body, *from, *length)),
            StoreCall::Commit(_) => StoreResult::Committed(Err(read_only())),
            StoreCall::Claim { .. } | StoreCall::Take { .. } => StoreResult::Claimed(Err(read_only())),
            StoreCall::Look { .. } => StoreResult::Looked(Err(read_only())),
            StoreCall::Ended { .. } => StoreResult::Ended(Err(read_only())),
        }
    }
}

fn read_only() -> CommitError {
    CommitError::Failed("a snapshot takes no changes".into())
}

fn failed(error: impl std::fmt::Display) -> CommitError {
    CommitError::Failed(error.to_string())
}

/// One message out of a table of either kind of transaction.
pub(super) fn load(
    message: &impl ReadableTable<u64, &'static [u8]>,
    id: MessageId,
) -> Result<Option<Box<MessageRecord>>, CommitError> {
    let Some(row) = message.get(id.0).map_err(failed)? else { return Ok(None) };
    let record = table::decode(row.value()).map_err(|why| failed(format!("{}: {why}", table::message_words(id))))?;
    Ok(Some(Box::new(record)))
}

/// Part of a body out of tables of either kind of transaction; every chunk it touches is checked.
pub(super) fn read(
    bodies: &impl ReadableTable<u64, (u64, u32)>,
    chunks: &impl ReadableTable<(u64, u32), &'static [u8]>,
    body: BodyRef,
    from: u64,
    length: u64,
) -> Result<Arc<[u8]>, CommitError> {
    let missing = || failed(format!("body {} is not stored", body.0));
    let damaged = || failed(format!("body {} is damaged", body.0));
    let total = bodies.get(body.0).map_err(failed)?.ok_or_else(missing)?.value().0;
    let end = from.saturating_add(length).min(total);
    if from >= end {
        return Ok(Arc::from([]));
    }
    // The row in which `from` stands begins at its unit or before.
    let [first, last] = [from, end - 1].map(table::unit_of);
    let before = chunks.range((body.0, 0)..=(body.0, first)).map_err(failed)?.next_back();
    let (key, _) = before.ok_or_else(damaged)?.map_err(failed)?;
    let mut at = table::unit_start(key.value().1);
    let mut out = Vec::new();
    for entry in chunks.range(key.value()..=(body.0, last)).map_err(failed)? {
        let (key, row) = entry.map_err(failed)?;
        let unit = key.value().1;
        let data = table::chunk_data(body, unit, row.value()).ok_or_else(damaged)?;
        if table::unit_start(unit) != at {
            return Err(damaged());
        }
        let [skip, stop] = [from, end].map(|byte| byte.saturating_sub(at).min(data.len() as u64) as usize);
        out.extend_from_slice(data.get(skip..stop).ok_or_else(damaged)?);
        at += data.len() as u64;
    }
    if out.len() as u64 != end - from {
        return Err(damaged());
    }
    Ok(out.into())
}
