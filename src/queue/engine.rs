//! Executes [`StoreCall`]s on one redb file behind [`Disk`], synchronously: a writer thread's whole work (`node/`), or
//! inline (the simulator).
//!
//! Promises, each shown by `tests/store_power.rs`:
//! - nothing is reported done before it is on the disk: in the log (one sync; [`super::journal`]), or, where it does not fit there, in a commit
//!   (two syncs: data, then the root that points to it), which then covers the log too;
//! - batches that come together share that, yet each is applied whole or not at all, and a refused one disturbs no other;
//! - no room is an answer, not a failure: nothing changed and the engine goes on;
//! - after any other failure the engine answers `Failed` to everything until [`Engine::reopen`]: what reached the disk
//!   is then read back, never guessed.
//!
//! Link-rules A2 and C1 rest on [`Opened::epoch`]: it changes when the file is new or a copy of the one written before, and when the
//! record of the numbers used under it cannot be read.

use std::io;
use std::sync::Arc;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::apply::{Claim, Damaged, Refusal, Writer};
use super::backend::{Backend, Fault, Faults, is_no_room};
use super::disk::Disk;
use super::gather::Gathering;
use super::ids::{self, Counters};
use super::journal::{Draft, Journal};
use super::long::Long;
use super::record::{MessageRecord, TransferRecord};
use super::snapshot::{self, Snapshot, Snapshots};
use super::staged::Staged;
use super::store::{Batch, Change, CommitError, Health, Opened, StoreCall, StoreResult};
use super::table::{self, Tally};
use crate::mail::MessageId;

/// The store's file in its disk's root.
pub const STORE_FILE: &str = "store.redb";
/// A store being made; it gets its name when it is whole.
const NEW_FILE: &str = "store.redb.new";
/// A store file found empty, which no version of this program leaves behind.
const EMPTY_FILE: &str = "store.redb.empty";

/// Calls that share one transaction at most.
const GROUP_CALLS: usize = 256;
/// Bytes of bodies that share one transaction at most; a single batch may hold more.
const GROUP_BYTES: usize = 4 << 20;
/// Messages whose records are checked one by one at opening; in a deeper queue a damaged one is found when its turn comes.
const CHECKED_AT_OPENING: usize = 20_000;

/// How an [`Engine`] is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Memory for pages of the file, read and written.
    pub cache_bytes: usize,
    /// Below this much free space no new mail is taken in; outcomes still pass.
    pub floor_bytes: u64,
    /// A random number for the store's epoch, should a new one be needed.
    pub fresh_epoch: u32,
    /// Every commit says which pages are free, so that opening after a crash takes no look at them all.
    pub quick_repair: bool,
    /// Length of the log, which is filled when it is made; 0: no log, every group of calls is a commit.
    pub log_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, floor_bytes: 64 << 20, fresh_epoch: 0, quick_repair: true, log_bytes: 256 << 10 }
    }
}

/// Why a store could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk failed.
    Disk(io::Error),
    /// The file was written by a later version of this program.
    NewerFormat {
        /// Its format.
        found: u32,
        /// The highest format this version knows.
        known: u32,
    },
    /// The file is not a store, or so damaged that it cannot be opened.
    Damaged(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk(e) => write!(f, "{STORE_FILE}: {e}"),
            Self::NewerFormat { found, known } => write!(
                f,
                "{STORE_FILE} has format {found}, written by a later version; this one knows formats up to {known}"
            ),
            Self::Damaged(why) => write!(f, "{STORE_FILE} cannot be opened: {why}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk(e) => Some(e),
            Self::NewerFormat { .. } | Self::Damaged(_) => None,
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(e: io::Error) -> Self {
        Self::Disk(e)
    }
}

/// What stopped a transaction.
#[derive(Debug)]
pub(super) enum Trouble {
    /// redb said so; `Faults` knows what the disk said first.
    Store(redb::Error),
    /// A record that cannot be written or a rule of the store that is broken; never the disk.
    Record(String),
}

macro_rules! trouble_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Trouble {
            fn from(e: $error) -> Self {
                Self::Store(e.into())
            }
        })*
    };
}
trouble_from!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError, redb::DatabaseError);

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(e) => e.fmt(f),
            Self::Record(why) => f.write_str(why),
        }
    }
}

impl From<Trouble> for OpenError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Store(redb::Error::Io(e)) if e.kind() != io::ErrorKind::InvalidData => Self::Disk(e),
            Trouble::Store(redb::Error::PreviousIo) => Self::Disk(io::Error::other("the disk failed before")),
            Trouble::Store(e) => Self::Damaged(e.to_string()),
            Trouble::Record(why) => Self::Damaged(why),
        }
    }
}

/// The store of one node; see the module header.
#[derive(Debug)]
pub struct Engine {
    disk: Arc<dyn Disk>,
    options: Options,
    shared: Arc<Long>,
    faults: Arc<Faults>,
    /// `None`: every group is a commit.
    journal: Option<Journal>,
    epoch: u32,
    tally: Tally,
    /// Commits of the long transaction when the log was last begun.
    commits: u64,
    /// Sequence of the last group that was found when the store was opened.
    found: u64,
    /// Why every call is refused until the next reopening.
    failed: Option<String>,
}

impl Engine {
    /// Opens the store on `disk`, making it when there is none.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, Opened), OpenError> {
        let mut engine = Self {
            disk,
            options,
            shared: Arc::default(),
            faults: Arc::default(),
            journal: None,
            epoch: 0,
            tally: Tally::default(),
            commits: 0,
            found: 0,
            failed: None,
        };
        let opened = engine.reopen()?;
        Ok((engine, opened))
    }

    /// Closes the file and opens it again, forgetting an earlier failure. What was reported failed may turn out to have
    /// happened: the caller starts from what is returned, as after a restart. Snapshots taken before stop answering.
    pub fn reopen(&mut self) -> Result<Opened, OpenError> {
        self.failed = Some("the store is being reopened".into());
        let result = self.open_file();
        match &result {
            Ok(_) => self.failed = None,
            Err(e) => {
                self.failed = Some(e.to_string());
                self.shared.close(false);
            }
        }
        result
    }

    /// Executes `calls` in order and answers each, in the same order. Takes what is waiting: commits that come in one
    /// call share transactions and a sync, which is where the throughput is.
    pub fn execute(&mut self, calls: Vec<StoreCall>) -> Vec<StoreResult> {
        let results = self.stage(calls).settle().results;
        self.notice();
        results
    }

    /// The same without the sync, which another thread may do while this one goes on: later calls see what earlier ones did, and what is staged
    /// is to be settled in the order it was made.
    pub fn stage(&mut self, calls: Vec<StoreCall>) -> Staged {
        let mut staged = Staged::default();
        let mut rest = calls.as_slice();
        while !rest.is_empty() {
            self.notice();
            let (group, later) = rest.split_at(group_len(rest));
            self.execute_group(group, &mut staged);
            rest = later;
        }
        staged
    }

    /// Learns of a sync that failed elsewhere.
    fn notice(&mut self) {
        if self.failed.is_none()
            && let Some(why) = self.journal.as_ref().and_then(Journal::failure)
        {
            self.failed = Some(why.to_owned());
            self.shared.forget();
        }
    }

    /// How the store is. Six short lookups and a question to the file system.
    pub fn health(&self) -> Health {
        let free_bytes = self.disk.free_bytes().unwrap_or(0);
        let depth = self.snapshot().and_then(|snapshot| snapshot.depth());
        let failed = self.failure().is_some() || depth.is_err();
        let public_text = match (failed, free_bytes < self.options.floor_bytes) {
            (true, _) => "mail store unavailable, try again later",
            (false, true) => "insufficient system storage, try again later",
            (false, false) => "",
        };
        Health {
            healthy: public_text.is_empty(),
            public_text: public_text.into(),
            free_bytes,
            depth: depth.unwrap_or_default(),
        }
    }

    /// Why everything is refused until [`Self::reopen`]; for the log, not for SMTP.
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref().or_else(|| self.journal.as_ref()?.failure())
    }

    /// A handle from which other threads take snapshots while this engine writes.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots::new(self.shared.clone())
    }

    /// The store as it is now; see [`Snapshots::take`].
    pub fn snapshot(&self) -> Result<Snapshot, CommitError> {
        match self.failure() {
            Some(why) => Err(CommitError::Failed(why.to_owned())),
            None => self.snapshots().take(),
        }
    }

    fn execute_group(&mut self, group: &[StoreCall], staged: &mut Staged) {
        let done = staged.len();
        if self.failed.is_none() {
            if !self.shared.is_behind() {
                self.faults.clear();
            }
            let Err(trouble) = self.attempt(group, staged) else { return };
            if self.recover(trouble) && staged.len() == done + group.len() {
                // The disk had room for the commit after all and only said no to something later.
                return;
            }
        }
        staged.truncate(done);
        if let Some(why) = self.failed.clone() {
            staged.extend(group.iter().map(|call| answer(call, CommitError::Failed(why.clone()))));
        } else if let [call] = group {
            staged.push(match call {
                StoreCall::Commit(_)
                | StoreCall::Claim { .. }
                | StoreCall::Look { .. }
                | StoreCall::Take { .. }
                | StoreCall::Ended { .. } => answer(call, CommitError::Full),
                StoreCall::Load(_) | StoreCall::Read(..) => answer(call, CommitError::Failed("no room".into())),
            });
        } else {
            // Something in the group does not fit. The rest, outcomes above all, must not suffer for it.
            let (first, second) = group.split_at(group.len() / 2);
            self.execute_group(first, staged);
            self.execute_group(second, staged);
        }
    }

    /// Executes a group whole: in the log, or as a commit. On an error whatever was pushed to `staged` is void, unless the group turns out to
    /// have landed.
    fn attempt(&mut self, group: &[StoreCall], staged: &mut Staged) -> Result<(), Trouble> {
        let reads = group.iter().all(|call| matches!(call, StoreCall::Load(_) | StoreCall::Read(..)));
        if reads && !self.shared.is_open() {
            let snapshot = self.snapshots().take().map_err(|e| Trouble::Record(e.to_string()))?;
            staged.extend(group.iter().map(|call| snapshot.answer(call)));
            return if self.faults.worst() == Fault::None { Ok(()) } else { Err(Trouble::Record(self.faults.words())) };
        }
        let options = self.options;
        let (transaction, commits) = self.shared.take(|database| begin(database, &options))?;
        if commits != self.commits {
            // A reader had everything committed.
            self.commits = commits;
            self.journal.iter_mut().for_each(Journal::restart);
        }
        let done = self.within(&transaction, group, staged);
        let result = match done {
            Ok(Some(done)) => self.promise(transaction, done, staged),
            Ok(None) => self.shared.keep(transaction),
            Err(trouble) => {
                drop(transaction);
                Err(trouble)
            }
        };
        if result.is_err() {
            self.shared.lost();
        }
        result
    }

    /// Does a group's work in the transaction; `None` where it changed nothing.
    fn within(
        &mut self,
        transaction: &WriteTransaction,
        group: &[StoreCall],
        staged: &mut Staged,
    ) -> Result<Option<Done>, Trouble> {
        let mut writer = Writer::open(transaction, self.tally);
        let free = self.disk.free_bytes().unwrap_or(0);
        let mut draft = self.draft(free);
        let mut taken = 0;
        for call in group {
            let result = match call {
                StoreCall::Commit(batch) => {
                    let tight = |bytes: u64| free.saturating_sub(taken + bytes) < self.options.floor_bytes;
                    StoreResult::Committed(match writer.check(batch, tight)? {
                        Ok(()) => {
                            writer.apply(batch)?;
                            note(&mut draft, batch.changes.iter())?;
                            taken += bytes_of(call) as u64;
                            Ok(())
                        }
                        Err(Refusal::Conflict(index)) => Err(CommitError::Conflict(index)),
                        Err(Refusal::Full) => Err(CommitError::Full),
                        Err(Refusal::Fault(why)) => Err(CommitError::Failed(why)),
                    })
                }
                StoreCall::Claim { owner, now, beyond, until, classes, limit, except } => {
                    let claim =
                        Claim { owner, now: *now, beyond: *beyond, until: *until, classes, limit: *limit, except };
                    let records = writer.claim(&claim)?;
                    for record in &records {
                        note(&mut draft, [&Change::Message(Box::new(record.clone()))].into_iter())?;
                    }
                    StoreResult::Claimed(Ok(records))
                }
                StoreCall::Look { owner, now, beyond, after, limit, except } => {
                    StoreResult::Looked(Ok(writer.look((owner, *now, *beyond), *after, *limit, except)?))
                }
                StoreCall::Take { owner, now, beyond, until, ids } => {
                    let (classes, limit, except) = (&[][..], ids.len(), &[][..]);
                    let claim = Claim { owner, now: *now, beyond: *beyond, until: *until, classes, limit, except };
                    let records = writer.take(&claim, ids)?;
                    for record in &records {
                        note(&mut draft, [&Change::Message(Box::new(record.clone()))].into_iter())?;
                    }
                    StoreResult::Claimed(Ok(records))
                }
                StoreCall::Ended { now, limit, except } => StoreResult::Ended(Ok(writer.ended(*now, *limit, except)?)),
                StoreCall::Load(id) => StoreResult::Loaded(snapshot::load(writer.message.open()?, *id)),
                StoreCall::Read(body, from, length) => {
                    StoreResult::Read(snapshot::read(writer.body.open()?, writer.chunk.open()?, *body, *from, *length))
                }
            };
            staged.push(result);
        }
        if self.faults.worst() == Fault::Failed {
            return Err(Trouble::Record(self.faults.words()));
        }
        if !writer.touched {
            return Ok(None);
        }
        // A log does not repeat what was set aside, and its records name one epoch.
        let epoch = writer.epoch;
        let draft = draft.filter(|_| !writer.aside_used && epoch.is_none());
        Ok(Some(Done { tally: writer.finish()?, draft, epoch }))
    }

    /// Writes a group down, or commits it. From here on it may land even when an error comes back.
    fn promise(&mut self, transaction: WriteTransaction, done: Done, staged: &mut Staged) -> Result<(), Trouble> {
        let before = std::mem::replace(&mut self.tally, done.tally);
        let result = match (&mut self.journal, done.draft) {
            (Some(journal), Some(draft)) if journal.fits(&draft) => journal
                .append(draft, self.epoch, done.tally.sequence)
                .map_err(|e| Trouble::Store(redb::Error::Io(e)))
                .and_then(|log| {
                    staged.owe(log);
                    self.shared.keep(transaction)
                }),
            _ => self.shared.commit(transaction),
        };
        match result {
            Ok(()) => self.epoch = done.epoch.unwrap_or(self.epoch),
            Err(_) => self.tally = before,
        }
        result
    }

    /// Where a group's changes are written down, if the log may be used: what it promises must find room in the database.
    fn draft(&mut self, free: u64) -> Option<Draft> {
        let margin = self.options.floor_bytes.saturating_add(self.options.log_bytes.saturating_mul(4));
        self.journal.as_mut().filter(|_| free >= margin).map(Journal::draft)
    }

    /// After a failed transaction: reopens when there was merely no room, else refuses everything from now on.
    /// True when the transaction turns out to have landed.
    fn recover(&mut self, trouble: Trouble) -> bool {
        let no_room = match (self.faults.worst(), &trouble) {
            (Fault::NoRoom, _) => true,
            (Fault::None, Trouble::Store(redb::Error::Io(e))) => is_no_room(e),
            (Fault::None | Fault::Failed, _) => false,
        };
        if !no_room {
            let said = self.faults.words();
            self.failed = Some(if said.is_empty() { trouble.to_string() } else { format!("{trouble} ({said})") });
            return false;
        }
        let tried = self.tally.sequence + 1;
        // A failed reopening leaves the engine failed, which is the answer.
        self.reopen().is_ok() && self.found == tried
    }

    fn open_file(&mut self) -> Result<Opened, OpenError> {
        self.journal = None;
        self.shared.close(false);
        self.faults.clear();
        let mut opened = Opened::default();
        self.prepare(&mut opened)?;
        let database = self.database(STORE_FILE)?;
        let format = self.check_format(&database)?;
        let strange = self.recover_log(&database)?;
        let mut damaged = Vec::new();
        self.tally = survey(&database, &mut opened, &mut damaged).map_err(OpenError::from)?;
        self.found = self.tally.sequence;
        self.settle(&database, &mut opened, &damaged, Before { format, strange })?;
        self.epoch = opened.epoch;
        if self.options.log_bytes > 0 {
            let started = Journal::start(&*self.disk, self.options.log_bytes, &self.faults);
            // A log that finds no room is done without.
            self.journal = started.map(Some).or_else(|e| if is_no_room(&e) { Ok(None) } else { Err(e) })?;
        }
        (opened.next_message, opened.next_body) = (self.tally.next_message, self.tally.next_body);
        self.shared.open(database);
        Ok(opened)
    }

    /// Does again what the log has beyond the last commit, and commits it. Says so when the log is another store's, which is put out of the way.
    fn recover_log(&mut self, database: &Database) -> Result<Option<String>, OpenError> {
        let records = Journal::read(&*self.disk, &self.faults)?;
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(None) };
        let (tally, epoch) = {
            let read = database.begin_read().map_err(Trouble::from)?;
            let meta = read.open_table(table::META).map_err(Trouble::from)?;
            (read_tally(&meta)?, number(&meta, "epoch")?)
        };
        if last.sequence <= tally.sequence {
            return Ok(None);
        }
        if first.sequence > tally.sequence + 1 || epoch != Some(u64::from(first.epoch)) {
            return Journal::set_aside(&*self.disk).map(Some).map_err(OpenError::from);
        }
        let transaction = begin(database, &self.options)?;
        let mut tally = tally;
        let covered = tally.sequence;
        for record in records.into_iter().filter(|record| record.sequence > covered) {
            let mut writer = Writer::open(&transaction, tally);
            writer.apply(&Batch { conditions: Vec::new(), changes: record.changes })?;
            tally = writer.finish()?;
        }
        transaction.commit().map_err(Trouble::from)?;
        Ok(None)
    }

    /// Makes sure that there is a whole store file.
    fn prepare(&self, opened: &mut Opened) -> Result<(), OpenError> {
        let names = self.disk.list("")?;
        let has = |name: &str| names.iter().any(|n| n == name);
        if has(NEW_FILE) {
            self.disk.remove(NEW_FILE)?;
        }
        if has(STORE_FILE) {
            if self.disk.open(STORE_FILE, false)?.len()? > 0 {
                return Ok(());
            }
            self.disk.rename(STORE_FILE, EMPTY_FILE)?;
            opened.damaged.push(format!("{STORE_FILE} was empty and is now {EMPTY_FILE}; a new store was made"));
        }
        let database = self.database(NEW_FILE)?;
        let transaction = begin(&database, &self.options)?;
        let mut writer = Writer::open(&transaction, Tally::default());
        writer.make_tables()?;
        writer.put_meta("format", &table::FORMAT.to_le_bytes())?;
        writer.finish()?;
        transaction.commit().map_err(Trouble::from)?;
        drop(database);
        self.disk.rename(NEW_FILE, STORE_FILE)?;
        self.disk.sync_dir("")?;
        Ok(())
    }

    fn database(&self, name: &str) -> Result<Database, OpenError> {
        let file = self.disk.open(name, name == NEW_FILE)?;
        // Half of the pages in memory are at most such as have yet to be written.
        let backend = Gathering::new(Backend::new(file, self.faults.clone()), self.options.cache_bytes / 2);
        let mut builder = Builder::new();
        builder.set_cache_size(self.options.cache_bytes);
        builder.create_with_backend(backend).map_err(|e| OpenError::from(Trouble::from(e)))
    }

    fn check_format(&self, database: &Database) -> Result<u64, OpenError> {
        let read = database.begin_read().map_err(Trouble::from)?;
        let meta = match read.open_table(table::META) {
            Ok(meta) => meta,
            Err(redb::TableError::Storage(e)) => return Err(Trouble::from(e).into()),
            Err(e) => return Err(OpenError::Damaged(e.to_string())),
        };
        match number(&meta, "format")? {
            Some(format) if (1..=u64::from(table::FORMAT)).contains(&format) => Ok(format),
            Some(format) if format > u64::from(table::FORMAT) => {
                Err(OpenError::NewerFormat { found: u32::try_from(format).unwrap_or(u32::MAX), known: table::FORMAT })
            }
            other => Err(OpenError::Damaged(format!("format {other:?} is not known"))),
        }
    }

    /// Gives the store its epoch and moves damaged rows aside, in one transaction, if there is anything to do.
    fn settle(
        &mut self,
        database: &Database,
        opened: &mut Opened,
        damaged: &[Damaged],
        Before { format, strange }: Before,
    ) -> Result<(), OpenError> {
        let identity = self.disk.identity(STORE_FILE)?;
        let (epoch, known) = {
            let read = database.begin_read().map_err(Trouble::from)?;
            let meta = read.open_table(table::META).map_err(Trouble::from)?;
            (number(&meta, "epoch")?, number(&meta, "identity")?)
        };
        let used = Counters::stored(&opened.settings);
        let old = epoch.and_then(|epoch| u32::try_from(epoch).ok());
        let doubt = match old {
            Some(_) if strange.is_some() => {
                Some("the log beside the store is another store's, or the store is an older one")
            }
            Some(_) if known != Some(identity) => {
                Some("the store's file is not the one written before but a copy put back")
            }
            Some(_) if used.is_none() => Some("the record of the numbers already used could not be read"),
            Some(_) | None => None,
        };
        opened.renewed = doubt.map(str::to_owned);
        opened.fresh = old.is_none() || doubt.is_some();
        opened.epoch = match old {
            Some(epoch) if !opened.fresh => epoch,
            old => ids::another_epoch(old, self.options.fresh_epoch),
        };
        opened.damaged.extend(strange);
        // Versions that know no log must not open what may have one.
        let renamed = self.options.log_bytes > 0 && format != u64::from(table::FORMAT);
        if !opened.fresh && damaged.is_empty() && !renamed {
            return Ok(());
        }
        let transaction = begin(database, &self.options)?;
        let mut writer = Writer::open(&transaction, self.tally);
        for row in damaged {
            writer.set_row_aside(row)?;
        }
        if opened.fresh {
            // What the store holds counts in any case; see `Ids::open`.
            let none = Counters { message: 1, body: 1, epoch: opened.epoch, transfer: 0 };
            let (name, value) = used.unwrap_or(none).in_epoch(opened.epoch).setting();
            opened.settings.retain(|(n, _)| *n != name);
            opened.settings.push((name.clone(), value.clone()));
            let changes = vec![Change::Epoch(opened.epoch), Change::Setting(name, Some(value))];
            writer.apply(&Batch { conditions: Vec::new(), changes })?;
            writer.put_meta("identity", &identity.to_le_bytes())?;
        }
        if renamed {
            writer.put_meta("format", &table::FORMAT.to_le_bytes())?;
        }
        self.tally = writer.finish()?;
        transaction.commit().map_err(Trouble::from)?;
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Readers may outlive the writer; the file must not stay open behind the next one's back.
        self.shared.close(self.failure().is_none());
    }
}

fn begin(database: &Database, options: &Options) -> Result<WriteTransaction, Trouble> {
    // Durability is Immediate by default; quick repair makes it two syncs, and opening after a crash instant.
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(options.quick_repair);
    Ok(transaction)
}

/// Reads everything an opening returns and lists the rows that cannot be read.
fn survey(database: &Database, opened: &mut Opened, damaged: &mut Vec<Damaged>) -> Result<Tally, Trouble> {
    let read = database.begin_read()?;
    for entry in read.open_table(table::ASIDE)?.iter()? {
        opened.damaged.push(format!("{} could not be read and was set aside", entry?.0.value()));
    }
    let before = damaged.len();
    for entry in read.open_table(table::SETTING)?.iter()? {
        let (name, row) = entry?;
        match table::unseal(row.value()) {
            Ok(value) => opened.settings.push((name.value().to_owned(), value.to_vec())),
            Err(_) => damaged.push(Damaged::Setting(name.value().to_owned())),
        }
    }
    for entry in read.open_table(table::LINK)?.iter()? {
        let (key, row) = entry?;
        match table::unseal(row.value()) {
            Ok(value) => opened.links.push((key.value().to_vec(), value.to_vec())),
            Err(_) => damaged.push(Damaged::Link(key.value().to_vec())),
        }
    }
    for entry in read.open_table(table::TRANSFER)?.iter()? {
        let (key, row) = entry?;
        match table::decode::<TransferRecord>(row.value()) {
            Ok(record) => opened.transfers.push(record),
            Err(_) => damaged.push(Damaged::Transfer(key.value().to_vec())),
        }
    }
    let message = read.open_table(table::MESSAGE)?;
    for entry in read.open_table(table::LIVE)?.iter()?.take(CHECKED_AT_OPENING) {
        let id = entry?.0.value().2;
        let row = message.get(id)?;
        if row.is_none_or(|row| table::decode::<MessageRecord>(row.value()).is_err()) {
            damaged.push(Damaged::Message(MessageId(id)));
        }
    }
    let words = damaged[before..].iter().map(|row| format!("{} could not be read and was set aside", row.words()));
    opened.damaged.extend(words);
    read_tally(&read.open_table(table::META)?)
}

fn read_tally(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Tally, Trouble> {
    let Some(row) = meta.get("tally")? else { return Err(Trouble::Record("the tally is missing".into())) };
    table::decode(row.value()).map_err(|e| Trouble::Record(format!("the tally: {e}")))
}

/// What an opening found.
struct Before {
    format: u64,
    /// A log that belongs to another store.
    strange: Option<String>,
}

/// What a group came to, before it is durable.
struct Done {
    tally: Tally,
    /// What the log would say; `None` where it cannot.
    draft: Option<Draft>,
    /// The store's new epoch.
    epoch: Option<u32>,
}

/// Writes changes down, until there are too many of them for any log.
fn note<'a>(draft: &mut Option<Draft>, changes: impl Iterator<Item = &'a Change>) -> Result<(), Trouble> {
    for change in changes {
        if let Some(open) = draft {
            open.add(change).map_err(Trouble::Record)?;
            if open.is_full() {
                *draft = None;
            }
        }
    }
    Ok(())
}

fn number(meta: &impl ReadableTable<&'static str, &'static [u8]>, name: &str) -> Result<Option<u64>, Trouble> {
    let Some(row) = meta.get(name)? else { return Ok(None) };
    let mut bytes = [0; 8];
    let Some(place) = bytes.get_mut(..row.value().len()) else { return Ok(None) };
    place.copy_from_slice(row.value());
    Ok(Some(u64::from_le_bytes(bytes)))
}

fn bytes_of(call: &StoreCall) -> usize {
    let StoreCall::Commit(batch) = call else { return 0 };
    batch.changes.iter().map(|change| if let Change::Body(_, data) = change { data.len() } else { 0 }).sum()
}

fn group_len(calls: &[StoreCall]) -> usize {
    let mut bytes = 0;
    let fits = calls.iter().take(GROUP_CALLS).take_while(|call| {
        bytes += bytes_of(call);
        bytes <= GROUP_BYTES
    });
    fits.count().max(1)
}

fn answer(call: &StoreCall, error: CommitError) -> StoreResult {
    match call {
        StoreCall::Commit(_) => StoreResult::Committed(Err(error)),
        StoreCall::Claim { .. } | StoreCall::Take { .. } => StoreResult::Claimed(Err(error)),
        StoreCall::Look { .. } => StoreResult::Looked(Err(error)),
        StoreCall::Ended { .. } => StoreResult::Ended(Err(error)),
        StoreCall::Load(_) => StoreResult::Loaded(Err(error)),
        StoreCall::Read(..) => StoreResult::Read(Err(error)),
    }
}
