//! Batches and claims inside one redb write transaction.
//!
//! [`Writer::check`] says whether a batch may be applied and touches nothing; after it, only the disk can fail, and that
//! ends the whole transaction. So a refused batch never disturbs the others that share the transaction.

use std::collections::BTreeSet;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::engine::Trouble;
use super::record::{Lease, MessageRecord, TransferRecord};
use super::store::{Batch, Change, Condition, Place, SeenKey, UNDATED};
use super::table::{self, Derived, Tally};
use crate::mail::{BodyRef, MessageId, Precedence};
use crate::time::Wall;

type Bytes = &'static [u8];

/// Why a batch is not applied; nothing has been touched.
pub(super) enum Refusal {
    /// The condition of this index does not hold.
    Conflict(usize),
    /// It would take in mail below the floor of free space.
    Full,
    /// The caller broke a rule of the store.
    Fault(String),
}

/// A table that opens at its first use: opening costs, and most transactions touch a few tables only.
pub(super) struct Lazy<'t, K: redb::Key + 'static, V: redb::Value + 'static> {
    transaction: &'t WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'t, K, V>>,
}

impl<'t, K: redb::Key + 'static, V: redb::Value + 'static> Lazy<'t, K, V> {
    fn new(transaction: &'t WriteTransaction, definition: TableDefinition<'static, K, V>) -> Self {
        Self { transaction, definition, table: None }
    }

    pub(super) fn open(&mut self) -> Result<&mut Table<'t, K, V>, Trouble> {
        Ok(match &mut self.table {
            Some(table) => table,
            empty => empty.insert(self.transaction.open_table(self.definition)?),
        })
    }
}

/// The tables of a write transaction.
pub(super) struct Writer<'t> {
    pub(super) message: Lazy<'t, u64, Bytes>,
    due: Lazy<'t, (u8, i64, u64), Bytes>,
    live: Lazy<'t, (u8, i64, u64), u8>,
    end: Lazy<'t, (i64, u64), ()>,
    past: Lazy<'t, (i64, u64), Bytes>,
    name: Lazy<'t, Bytes, ()>,
    track: Lazy<'t, (u64, u32), Bytes>,
    seen: Lazy<'t, Bytes, i64>,
    seen_end: Lazy<'t, (i64, Bytes), ()>,
    pub(super) body: Lazy<'t, u64, (u64, u32)>,
    pub(super) chunk: Lazy<'t, (u64, u32), Bytes>,
    transfer: Lazy<'t, Bytes, Bytes>,
    link: Lazy<'t, Bytes, Bytes>,
    setting: Lazy<'t, &'static str, Bytes>,
    aside: Lazy<'t, &'static str, Bytes>,
    meta: Lazy<'t, &'static str, Bytes>,
    pub(super) tally: Tally,
    /// Whether anything was written.
    pub(super) touched: bool,
    /// Whether a row was set aside.
    pub(super) aside_used: bool,
    /// The epoch the store was given.
    pub(super) epoch: Option<u32>,
}

impl<'t> Writer<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, tally: Tally) -> Self {
        Self {
            message: Lazy::new(transaction, table::MESSAGE),
            due: Lazy::new(transaction, table::DUE),
            live: Lazy::new(transaction, table::LIVE),
            end: Lazy::new(transaction, table::END),
            past: Lazy::new(transaction, table::PAST),
            name: Lazy::new(transaction, table::NAME),
            track: Lazy::new(transaction, table::TRACK),
            seen: Lazy::new(transaction, table::SEEN),
            seen_end: Lazy::new(transaction, table::SEEN_END),
            body: Lazy::new(transaction, table::BODY),
            chunk: Lazy::new(transaction, table::CHUNK),
            transfer: Lazy::new(transaction, table::TRANSFER),
            link: Lazy::new(transaction, table::LINK),
            setting: Lazy::new(transaction, table::SETTING),
            aside: Lazy::new(transaction, table::ASIDE),
            meta: Lazy::new(transaction, table::META),
            tally,
            touched: false,
            aside_used: false,
            epoch: None,
        }
    }

    /// Makes every table, so that readers find them.
    pub(super) fn make_tables(&mut self) -> Result<(), Trouble> {
        self.message.open()?;
        self.due.open()?;
        self.live.open()?;
        self.body.open()?;
        self.chunk.open()?;
        self.meta.open()?;
        self.end.open()?;
        self.past.open()?;
        self.name.open()?;
        self.track.open()?;
        self.seen.open()?;
        self.seen_end.open()?;
        self.transfer.open()?;
        self.link.open()?;
        self.setting.open()?;
        self.aside.open()?;
        Ok(())
    }

    /// Whether `batch` may be applied. `tight` says that free space is below the floor: then no new mail comes in, but
    /// outcomes, reports, frozen payloads and our own DSNs still pass, because they are how the queue drains.
    pub(super) fn check(&mut self, batch: &Batch, tight: impl Fn(u64) -> bool) -> Result<Result<(), Refusal>, Trouble> {
        for (index, condition) in batch.conditions.iter().enumerate() {
            if !self.holds(condition)? {
                return Ok(Err(Refusal::Conflict(index)));
            }
        }
        let mut fresh = BTreeSet::new();
        let mut gone = BTreeSet::new();
        let (mut bytes, mut mail) = (0, false);
        for change in &batch.changes {
            match change {
                Change::Body(body, data) => {
                    let stored = self.body.open()?.get(body.0)?.is_some() && !gone.contains(body);
                    if stored || !fresh.insert(*body) {
                        return Ok(Err(Refusal::Fault(format!("body {} is already stored", body.0))));
                    }
                    bytes += data.len() as u64;
                }
                Change::DropBody(body) => {
                    gone.insert(*body);
                    fresh.remove(body);
                }
                Change::Message(record) => {
                    let ours = record.source.is_own();
                    mail |= !ours && self.message.open()?.get(record.id.0)?.is_none();
                }
                Change::DropMessage(_)
                | Change::Seen(..)
                | Change::Transfer(_)
                | Change::DropTransfer(_)
                | Change::Link(..)
                | Change::Setting(..)
                | Change::Epoch(_)
                | Change::Track(..)
                | Change::Purge { .. } => {}
            }
        }
        if mail && bytes > 0 && tight(bytes) {
            return Ok(Err(Refusal::Full));
        }
        Ok(Ok(()))
    }

    fn holds(&mut self, condition: &Condition) -> Result<bool, Trouble> {
        match condition {
            // An expired key is one that purging removed: while the clock is not set nothing expires (link-rules A7).
            Condition::SeenAbsent(SeenKey::Transfer(id)) => {
                Ok(self.seen.open()?.get(table::transfer_key(id).as_slice())?.is_none())
            }
            Condition::LeaseMine { id, owner } => {
                let Some(row) = self.message.open()?.get(id.0)? else { return Ok(false) };
                let record = table::decode::<MessageRecord>(row.value());
                Ok(record.is_ok_and(|r| r.lease.is_some_and(|lease| lease.owner == *owner)))
            }
        }
    }

    /// Applies a batch that [`Self::check`] let pass. An error ends the transaction.
    pub(super) fn apply(&mut self, batch: &Batch) -> Result<(), Trouble> {
        self.touched |= !batch.changes.is_empty();
        for change in &batch.changes {
            match change {
                Change::Body(body, data) => self.put_body(*body, data)?,
                Change::DropBody(body) => self.drop_body(*body)?,
                Change::Message(record) => self.put_message(record)?,
                Change::DropMessage(id) => self.drop_message(*id)?,
                Change::Seen(SeenKey::Transfer(id), until) => self.put_seen(&table::transfer_key(id), *until)?,
                Change::Transfer(record) => self.put_transfer(record)?,
                Change::DropTransfer(id) => self.drop_transfer(&table::transfer_key(id))?,
                Change::Link(key, Some(value)) => {
                    self.link.open()?.insert(key.as_slice(), table::seal(value).as_slice())?;
                }
                Change::Link(key, None) => {
                    self.link.open()?.remove(key.as_slice())?;
                }
                Change::Setting(name, Some(value)) => {
                    self.setting.open()?.insert(name.as_str(), table::seal(value).as_slice())?;
                }
                Change::Setting(name, None) => {
                    self.setting.open()?.remove(name.as_str())?;
                }
                Change::Epoch(epoch) => {
                    self.epoch = Some(*epoch);
                    self.put_meta("epoch", &epoch.to_le_bytes())?;
                }
                Change::Track(id, entry) => {
                    self.add_track(id.0, entry.at, &table::encode(entry).map_err(Trouble::Record)?)?;
                }
                Change::Purge { done_before, seen_before, undated_until, limit } => {
                    self.purge(*done_before, *limit)?;
                    self.purge_seen(*seen_before, *undated_until, *limit)?;
                }
            }
        }
        Ok(())
    }

    /// Leases due messages to `owner`; see `StoreCall::Claim`. The work done depends on how many are taken and how many
    /// are in hand, not on how many wait.
    pub(super) fn claim(&mut self, want: &Claim<'_>) -> Result<Vec<MessageRecord>, Trouble> {
        let except: BTreeSet<u64> = want.except.iter().map(|id| id.0).collect();
        let mut taken = Vec::new();
        for class in want.classes {
            let rank = table::urgency(*class);
            let mut from = (rank, i64::MIN, 0);
            while taken.len() < want.limit {
                let Some(key) = self.next_due(from, want, &except)? else { break };
                from = (key.0, key.1, key.2.saturating_add(1));
                if let Some(record) = self.lease(key, want)? {
                    taken.push(record);
                }
            }
        }
        Ok(taken)
    }

    /// Due messages, and where to go on; see `StoreCall::Look`. The work done depends on `limit` alone.
    pub(super) fn look(
        &mut self,
        (owner, now, beyond): (&str, Wall, Wall),
        after: Option<Place>,
        limit: usize,
        except: &[MessageId],
    ) -> Result<(Vec<MessageRecord>, Option<Place>), Trouble> {
        let except: BTreeSet<u64> = except.iter().map(|id| id.0).collect();
        let start = after.map_or((0, i64::MIN, 0), |Place((rank, at, id))| (rank, at, id.saturating_add(1)));
        let (mut found, mut seen) = (Vec::new(), 0);
        for rank in start.0..=table::urgency(Precedence::Deferred) {
            let from = if rank == start.0 { start } else { (rank, i64::MIN, 0) };
            let late = from.max((rank, beyond.0.saturating_add(1), 0));
            for (low, high) in [(from, (rank, now.0, u64::MAX)), (late, (rank, i64::MAX, u64::MAX))] {
                if low > high {
                    continue;
                }
                for entry in self.due.open()?.range(low..=high)? {
                    let (key, lease) = entry?;
                    let key = key.value();
                    seen += 1;
                    if !except.contains(&key.2) && table::lease_free(lease.value(), owner, now) {
                        let row = self.message.open()?.get(key.2)?.map(|row| row.value().to_vec()).unwrap_or_default();
                        // A claim moves one that cannot be read aside.
                        found.extend(table::decode::<MessageRecord>(&row).ok());
                    }
                    if seen >= limit {
                        return Ok((found, Some(Place(key))));
                    }
                }
            }
        }
        Ok((found, None))
    }

    /// Leases these messages, as far as they are due and free; see `StoreCall::Take`.
    pub(super) fn take(&mut self, want: &Claim<'_>, ids: &[MessageId]) -> Result<Vec<MessageRecord>, Trouble> {
        let mut taken = Vec::new();
        for id in ids {
            let row = self.message.open()?.get(id.0)?.map(|row| row.value().to_vec()).unwrap_or_default();
            let Ok(record) = table::decode::<MessageRecord>(&row) else { continue };
            let due = record.due().is_some_and(|at| at <= want.now || at > want.beyond);
            let Some(key) = Derived::of(&record).due.filter(|_| due) else { continue };
            let lease = self.due.open()?.get(key)?.map(|row| row.value().to_vec());
            if lease.is_some_and(|row| table::lease_free(&row, want.owner, want.now)) {
                taken.extend(self.lease(key, want)?);
            }
        }
        Ok(taken)
    }

    /// Messages whose life is over; see `StoreCall::Ended`.
    pub(super) fn ended(&mut self, now: Wall, limit: usize, except: &[MessageId]) -> Result<Vec<MessageId>, Trouble> {
        let except: BTreeSet<u64> = except.iter().map(|id| id.0).collect();
        let mut found = Vec::new();
        for entry in self.end.open()?.range(..=(now.0, u64::MAX))? {
            let id = entry?.0.value().1;
            if !except.contains(&id) {
                found.push(MessageId(id));
            }
            if found.len() >= limit {
                break;
            }
        }
        // One that cannot be read would be found for ever.
        let mut readable = Vec::with_capacity(found.len());
        for id in found {
            let row = self.message.open()?.get(id.0)?.map(|row| row.value().to_vec()).unwrap_or_default();
            match table::decode::<MessageRecord>(&row) {
                Ok(_) => readable.push(id),
                Err(_) => self.set_aside(id)?,
            }
        }
        Ok(readable)
    }

    fn next_due(
        &mut self,
        from: (u8, i64, u64),
        want: &Claim<'_>,
        except: &BTreeSet<u64>,
    ) -> Result<Option<(u8, i64, u64)>, Trouble> {
        let beyond = (from.0, want.beyond.0.saturating_add(1), 0);
        for (low, high) in [(from, (from.0, want.now.0, u64::MAX)), (from.max(beyond), (from.0, i64::MAX, u64::MAX))] {
            if low > high {
                continue;
            }
            for entry in self.due.open()?.range(low..=high)? {
                let (key, lease) = entry?;
                let key = key.value();
                if !except.contains(&key.2) && table::lease_free(lease.value(), want.owner, want.now) {
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    fn lease(&mut self, key: (u8, i64, u64), want: &Claim<'_>) -> Result<Option<MessageRecord>, Trouble> {
        let row = self.message.open()?.get(key.2)?.map(|row| row.value().to_vec()).unwrap_or_default();
        let Ok(mut record) = table::decode::<MessageRecord>(&row) else {
            self.set_aside(MessageId(key.2))?;
            return Ok(None);
        };
        let lease = Lease { owner: want.owner.to_owned(), until: want.until };
        self.due.open()?.insert(key, table::lease_row(Some(&lease)).as_slice())?;
        record.lease = Some(lease);
        self.message.open()?.insert(key.2, table::encode(&record).map_err(Trouble::Record)?.as_slice())?;
        self.touched = true;
        Ok(Some(record))
    }

    /// Moves a message whose record cannot be read to where an operator finds it. Its body stays.
    pub(super) fn set_aside(&mut self, id: MessageId) -> Result<(), Trouble> {
        (self.touched, self.aside_used) = (true, true);
        let row = self.message.open()?.remove(id.0)?.map(|row| row.value().to_vec()).unwrap_or_default();
        self.aside.open()?.insert(table::message_words(id).as_str(), row.as_slice())?;
        // The record no longer says which keys are its own: look for them. Rare enough to be slow.
        self.due.open()?.retain(|key, _| key.2 != id.0)?;
        let mut rank = None;
        self.live.open()?.retain(|key, _| {
            if key.2 == id.0 {
                rank = Some(5u8.saturating_sub(key.0));
            }
            key.2 != id.0
        })?;
        self.end.open()?.retain(|key, _| key.1 != id.0)?;
        self.past.open()?.retain(|key, _| key.1 != id.0)?;
        if let Some(rank) = rank {
            self.count(rank, -1);
        }
        Ok(())
    }

    /// Moves any other row that cannot be read.
    pub(super) fn set_row_aside(&mut self, row: &Damaged) -> Result<(), Trouble> {
        (self.touched, self.aside_used) = (true, true);
        let bytes = match row {
            Damaged::Message(id) => return self.set_aside(*id),
            Damaged::Transfer(key) => self.transfer.open()?.remove(key.as_slice())?.map(|v| v.value().to_vec()),
            Damaged::Link(key) => self.link.open()?.remove(key.as_slice())?.map(|v| v.value().to_vec()),
            Damaged::Setting(name) => self.setting.open()?.remove(name.as_str())?.map(|v| v.value().to_vec()),
        };
        self.aside.open()?.insert(row.words().as_str(), bytes.unwrap_or_default().as_slice())?;
        Ok(())
    }

    /// Writes what goes with every transaction.
    pub(super) fn finish(mut self) -> Result<Tally, Trouble> {
        self.tally.sequence += 1;
        let row = table::encode(&self.tally).map_err(Trouble::Record)?;
        self.meta.open()?.insert("tally", row.as_slice())?;
        Ok(self.tally)
    }

    pub(super) fn put_meta(&mut self, name: &str, value: &[u8]) -> Result<(), Trouble> {
        self.touched = true;
        self.meta.open()?.insert(name, value)?;
        Ok(())
    }

    fn put_body(&mut self, body: BodyRef, data: &[u8]) -> Result<(), Trouble> {
        for (unit, part) in table::chunks(data) {
            self.chunk.open()?.insert((body.0, unit), table::chunk_row(body, unit, part).as_slice())?;
        }
        self.body.open()?.insert(body.0, (data.len() as u64, 0))?;
        self.tally.next_body = self.tally.next_body.max(body.0.saturating_add(1));
        Ok(())
    }

    fn drop_body(&mut self, body: BodyRef) -> Result<(), Trouble> {
        if self.body.open()?.remove(body.0)?.is_some() {
            self.chunk.open()?.retain_in((body.0, 0)..=(body.0, u32::MAX), |_, _| false)?;
        }
        Ok(())
    }

    /// Counts who uses a body. A body that loses its last user through purging goes with it; elsewhere the caller drops.
    fn use_body(&mut self, body: BodyRef, by: i32) -> Result<u32, Trouble> {
        let Some((length, users)) = self.body.open()?.get(body.0)?.map(|row| row.value()) else { return Ok(u32::MAX) };
        let users = users.saturating_add_signed(by);
        self.body.open()?.insert(body.0, (length, users))?;
        Ok(users)
    }

    fn put_message(&mut self, record: &MessageRecord) -> Result<(), Trouble> {
        let row = table::encode(record).map_err(Trouble::Record)?;
        let old = self.message.open()?.insert(record.id.0, row.as_slice())?.map(|old| old.value().to_vec());
        let old = match old.map(|old| table::decode::<MessageRecord>(&old)) {
            Some(Ok(old)) => Some(Derived::of(&old)),
            Some(Err(_)) => {
                // What stood there cannot be read: clear its keys, then write the new one again.
                self.set_aside(record.id)?;
                self.message.open()?.insert(record.id.0, row.as_slice())?;
                None
            }
            None => None,
        };
        self.tally.next_message = self.tally.next_message.max(record.id.0.saturating_add(1));
        self.derive(old.as_ref(), Some(&Derived::of(record)))
    }

    fn drop_message(&mut self, id: MessageId) -> Result<(), Trouble> {
        let Some(row) = self.message.open()?.remove(id.0)?.map(|row| row.value().to_vec()) else { return Ok(()) };
        let Ok(record) = table::decode::<MessageRecord>(&row) else {
            self.message.open()?.insert(id.0, row.as_slice())?;
            return self.set_aside(id);
        };
        let old = Derived::of(&record);
        let last = self.last_track(id.0)?.map_or(record.accepted, |(_, at)| at);
        let ended = old.past.map_or(last, |(at, _)| Wall(at));
        // Its track and names stay until purged, so that `track` still finds it.
        let kept = Derived { past: None, names: old.names.clone(), ..nothing() };
        self.derive(Some(&old), Some(&kept))?;
        let names = postcard::to_stdvec(&old.names).map_err(|e| Trouble::Record(e.to_string()))?;
        self.past.open()?.insert((ended.0, id.0), names.as_slice())?;
        Ok(())
    }

    /// Replaces the rows that follow from a message by those of its new form.
    fn derive(&mut self, old: Option<&Derived>, new: Option<&Derived>) -> Result<(), Trouble> {
        let none = nothing();
        let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
        if old.due != new.due
            && let Some(key) = old.due
        {
            self.due.open()?.remove(key)?;
        }
        if let Some(key) = new.due
            && (old.due != new.due || old.lease != new.lease)
        {
            self.due.open()?.insert(key, new.lease.as_slice())?;
        }
        if (old.live, old.state) != (new.live, new.state) {
            if let Some(key) = old.live {
                self.live.open()?.remove(key)?;
                self.count(5u8.saturating_sub(key.0), -1);
            }
            if let Some(key) = new.live {
                self.live.open()?.insert(key, new.state)?;
                self.count(5u8.saturating_sub(key.0), 1);
            }
        }
        if old.end != new.end {
            if let Some(key) = old.end {
                self.end.open()?.remove(key)?;
            }
            if let Some(key) = new.end {
                self.end.open()?.insert(key, ())?;
            }
        }
        if old.past != new.past {
            if let Some(key) = old.past {
                self.past.open()?.remove(key)?;
            }
            if let Some(key) = new.past {
                self.past.open()?.insert(key, [].as_slice())?;
            }
        }
        for name in old.names.iter().filter(|name| !new.names.contains(name)) {
            self.name.open()?.remove(name.as_slice())?;
        }
        for name in new.names.iter().filter(|name| !old.names.contains(name)) {
            self.name.open()?.insert(name.as_slice(), ())?;
        }
        for body in old.bodies.iter().filter(|body| !new.bodies.contains(body)) {
            self.use_body(*body, -1)?;
        }
        for body in new.bodies.iter().filter(|body| !old.bodies.contains(body)) {
            self.use_body(*body, 1)?;
        }
        Ok(())
    }

    fn count(&mut self, rank: u8, by: i64) {
        if let Some(depth) = self.tally.depth.get_mut(usize::from(rank)) {
            *depth = depth.saturating_add_signed(by);
        }
    }

    fn put_seen(&mut self, key: &[u8], until: Wall) -> Result<(), Trouble> {
        if let Some(old) = self.seen.open()?.insert(key, until.0)?.map(|old| old.value()) {
            self.seen_end.open()?.remove((old, key))?;
        }
        self.seen_end.open()?.insert((until.0, key), ())?;
        Ok(())
    }

    fn put_transfer(&mut self, record: &TransferRecord) -> Result<(), Trouble> {
        let row = table::encode(record).map_err(Trouble::Record)?;
        let key = table::transfer_key(&record.id);
        let old = self.transfer.open()?.insert(key.as_slice(), row.as_slice())?.map(|old| old.value().to_vec());
        let old = old.and_then(|old| table::decode::<TransferRecord>(&old).ok()).map(|old| old.payload);
        if old != Some(record.payload) {
            self.use_body(record.payload, 1)?;
            if let Some(old) = old {
                self.use_body(old, -1)?;
            }
        }
        Ok(())
    }

    fn drop_transfer(&mut self, key: &[u8]) -> Result<(), Trouble> {
        let old = self.transfer.open()?.remove(key)?.map(|old| old.value().to_vec());
        if let Some(old) = old.and_then(|old| table::decode::<TransferRecord>(&old).ok()) {
            self.use_body(old.payload, -1)?;
        }
        Ok(())
    }

    fn add_track(&mut self, id: u64, at: Wall, row: &[u8]) -> Result<(), Trouble> {
        let line = self.last_track(id)?.map_or(0, |(line, _)| line.saturating_add(1));
        self.track.open()?.insert((id, line), row)?;
        if line == 0 && self.message.open()?.get(id)?.is_none() {
            // A history without a message would never be purged.
            self.past.open()?.insert((at.0, id), [].as_slice())?;
        }
        Ok(())
    }

    fn last_track(&mut self, id: u64) -> Result<Option<(u32, Wall)>, Trouble> {
        let Some(entry) = self.track.open()?.range((id, 0)..=(id, u32::MAX))?.next_back() else { return Ok(None) };
        let (key, row) = entry?;
        let at = table::decode::<super::record::TrackEntry>(row.value()).map_or(Wall(i64::MIN), |entry| entry.at);
        Ok(Some((key.value().1, at)))
    }

    fn purge(&mut self, before: Wall, limit: u32) -> Result<(), Trouble> {
        let mut ended = Vec::new();
        for entry in self.past.open()?.range(..(before.0, 0))?.take(limit as usize) {
            let (key, names) = entry?;
            ended.push((key.value(), names.value().to_vec()));
        }
        for (key, names) in ended {
            self.purge_one(before, key, &names)?;
        }
        Ok(())
    }

    fn purge_one(&mut self, before: Wall, key: (i64, u64), names: &[u8]) -> Result<(), Trouble> {
        let id = key.1;
        self.past.open()?.remove(key)?;
        let row = self.message.open()?.get(id)?.map(|row| row.value().to_vec());
        if let Some(row) = row {
            let Ok(record) = table::decode::<MessageRecord>(&row) else { return self.set_aside(MessageId(id)) };
            let old = Derived::of(&record);
            if old.past != Some(key) {
                return Ok(());
            }
            self.message.open()?.remove(id)?;
            self.derive(Some(&Derived { past: None, ..old }), None)?;
            for body in record.recipients.iter().map(|r| r.body) {
                if self.body.open()?.get(body.0)?.is_some_and(|row| row.value().1 == 0) {
                    self.drop_body(body)?;
                }
            }
        } else {
            if let Some((_, at)) = self.last_track(id)?
                && at >= before
            {
                self.past.open()?.insert((at.0, id), names)?;
                return Ok(());
            }
            for name in postcard::from_bytes::<Vec<Vec<u8>>>(names).unwrap_or_default() {
                self.name.open()?.remove(name.as_slice())?;
            }
        }
        self.track.open()?.retain_in((id, 0)..=(id, u32::MAX), |_, _| false)?;
        Ok(())
    }

    fn purge_seen(&mut self, before: Wall, undated_until: Wall, limit: u32) -> Result<(), Trouble> {
        let mut ended = Vec::new();
        for entry in self.seen_end.open()?.range(..(before.0, [].as_slice()))?.take(limit as usize) {
            let (key, _) = entry?;
            let (until, key) = key.value();
            ended.push((until, key.to_vec()));
        }
        for (until, key) in ended {
            if until == UNDATED.0 {
                self.put_seen(&key, undated_until)?;
                continue;
            }
            self.seen_end.open()?.remove((until, key.as_slice()))?;
            self.seen.open()?.remove(key.as_slice())?;
        }
        Ok(())
    }
}

fn nothing() -> Derived {
    Derived {
        due: None,
        lease: Vec::new(),
        live: None,
        end: None,
        state: 3,
        past: None,
        names: Vec::new(),
        bodies: Vec::new(),
    }
}

/// The arguments of a claim.
pub(super) struct Claim<'a> {
    pub(super) owner: &'a str,
    pub(super) now: Wall,
    pub(super) beyond: Wall,
    pub(super) until: Wall,
    pub(super) classes: &'a [Precedence],
    pub(super) limit: usize,
    pub(super) except: &'a [MessageId],
}

/// A row that cannot be read.
pub(super) enum Damaged {
    Message(MessageId),
    Transfer(Vec<u8>),
    Link(Vec<u8>),
    Setting(String),
}

impl Damaged {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Message(id) => table::message_words(*id),
            Self::Transfer(key) => format!("transfer {}", key.escape_ascii()),
            Self::Link(key) => format!("bearer state {}", key.escape_ascii()),
            Self::Setting(name) => format!("setting {name}"),
        }
    }
}
