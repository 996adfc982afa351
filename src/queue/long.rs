//! The transaction that stays open from one group of calls to the next, and the database below it, shared with the readers.
//!
//! What is in it is promised by the log alone. It is committed when the log is full, when the store is closed, and when somebody wants to see the
//! store: a snapshot shows what is committed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::engine::Trouble;

/// Shared by an engine and its readers.
#[derive(Debug, Default)]
pub(super) struct Long {
    state: Mutex<State>,
    back: Condvar,
}

#[derive(Default)]
struct State {
    database: Option<Database>,
    transaction: Option<WriteTransaction>,
    /// The engine works with the transaction now.
    away: bool,
    /// Somebody waits for a commit.
    wanted: bool,
    commits: u64,
    /// Why a reader's commit failed: for the engine.
    trouble: Option<Trouble>,
    /// The transaction was dropped: the database lacks what only the log has.
    behind: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

impl Long {
    /// The transaction, open since an earlier group or begun now by `begin`, and the number of commits so far. To be given back by
    /// [`Self::keep`], [`Self::commit`] or [`Self::lost`].
    pub(super) fn take(
        &self,
        begin: impl FnOnce(&Database) -> Result<WriteTransaction, Trouble>,
    ) -> Result<(WriteTransaction, u64), Trouble> {
        let mut state = self.lock();
        if let Some(trouble) = state.trouble.take() {
            return Err(trouble);
        }
        let transaction = match (state.transaction.take(), &state.database) {
            (Some(transaction), _) => transaction,
            (None, Some(database)) => begin(database)?,
            (None, None) => return Err(Trouble::Record("the store is closed".into())),
        };
        state.away = true;
        Ok((transaction, state.commits))
    }

    /// Whether a transaction is open: then a snapshot does not show all that was promised.
    pub(super) fn is_open(&self) -> bool {
        self.lock().transaction.is_some()
    }

    /// Whether the database lacks something that was promised, because a transaction failed.
    pub(super) fn is_behind(&self) -> bool {
        self.lock().behind
    }

    /// Gives the transaction back, to go on with it; commits it when somebody waits for that.
    pub(super) fn keep(&self, transaction: WriteTransaction) -> Result<(), Trouble> {
        let mut state = self.lock();
        if state.wanted {
            drop(state);
            return self.commit(transaction);
        }
        state.transaction = Some(transaction);
        state.away = false;
        self.back.notify_all();
        Ok(())
    }

    /// Commits the transaction.
    pub(super) fn commit(&self, transaction: WriteTransaction) -> Result<(), Trouble> {
        let result = transaction.commit().map_err(Trouble::from);
        let mut state = self.lock();
        state.commits += u64::from(result.is_ok());
        state.wanted = false;
        state.away = false;
        self.back.notify_all();
        result
    }

    /// The transaction was dropped by an error.
    pub(super) fn lost(&self) {
        let mut state = self.lock();
        state.wanted = false;
        state.away = false;
        state.behind = true;
        self.back.notify_all();
    }

    /// Drops the open transaction: the log could not be made to promise what is in it.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.behind = true;
        drop(state.transaction.take());
    }

    pub(super) fn open(&self, database: Database) {
        let mut state = self.lock();
        *state = State { database: Some(database), commits: state.commits + 1, ..State::default() };
    }

    /// Closes the database. What is open is committed when `keep` says so and forgotten otherwise; the log has it.
    pub(super) fn close(&self, keep: bool) {
        let mut state = self.lock();
        let transaction = state.transaction.take();
        if let Some(transaction) = transaction.filter(|_| keep) {
            // A commit that fails is found half done by the next opening, like any other, and the log says what it was to hold.
            let _ = transaction.commit();
        }
        *state = State { commits: state.commits, ..State::default() };
        self.back.notify_all();
    }

    /// A view of everything promised so far, which is committed for that; `None` while the store is closed or lacks something.
    pub(super) fn read(&self) -> Result<Option<ReadTransaction>, Trouble> {
        let mut state = self.lock();
        let before = state.commits;
        while state.away && state.commits == before {
            state.wanted = true;
            state = self.back.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.commits == before
            && let Some(transaction) = state.transaction.take()
        {
            match transaction.commit() {
                Ok(()) => state.commits += 1,
                Err(error) => {
                    let words = error.to_string();
                    state.trouble = Some(error.into());
                    state.behind = true;
                    return Err(Trouble::Record(words));
                }
            }
        }
        let Some(database) = state.database.as_ref().filter(|_| !state.behind) else { return Ok(None) };
        Ok(Some(database.begin_read()?))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
