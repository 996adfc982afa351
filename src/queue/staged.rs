//! What is done and written to the log, and not durable yet: nobody may hear of it before [`Staged::settle`].
//!
//! Several threads' work fits between: while one sync runs, the engine goes on with the next calls, and the sync after it covers them all.

use std::sync::Arc;

use super::journal::LogFile;
use super::store::{CommitError, StoreResult};

/// Answers that are owed a sync.
#[derive(Debug, Default)]
#[must_use = "nothing of it is durable before it is settled"]
pub struct Staged {
    results: Vec<StoreResult>,
    logs: Vec<Arc<LogFile>>,
}

/// Answers that may be told.
#[derive(Debug)]
pub struct Settled {
    /// One for each call, in their order.
    pub results: Vec<StoreResult>,
    /// Why nothing is known of any of them; all say so.
    pub failure: Option<String>,
}

impl Staged {
    pub(super) fn push(&mut self, result: StoreResult) {
        self.results.push(result);
    }

    pub(super) fn extend(&mut self, results: impl Iterator<Item = StoreResult>) {
        self.results.extend(results);
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.results.truncate(length);
    }

    /// This file must be synced before the answers hold.
    pub(super) fn owe(&mut self, log: Arc<LogFile>) {
        if !self.logs.iter().any(|known| Arc::ptr_eq(known, &log)) {
            self.logs.push(log);
        }
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// Adds what was staged later; one sync does for both.
    pub fn append(&mut self, later: Self) {
        self.results.extend(later.results);
        later.logs.into_iter().for_each(|log| self.owe(log));
    }

    /// Takes out, with their `tickets` (one for each answer), those that need no sync: parts of bodies. A body never changes, and whoever names
    /// one was told before that it is stored.
    pub fn take_read<T>(&mut self, tickets: &mut Vec<T>) -> Vec<(T, StoreResult)> {
        if !self.results.iter().any(|result| matches!(result, StoreResult::Read(_))) {
            return Vec::new();
        }
        let all = std::mem::take(tickets).into_iter().zip(std::mem::take(&mut self.results));
        let (read, owed): (Vec<_>, Vec<_>) = all.partition(|(_, result)| matches!(result, StoreResult::Read(_)));
        (*tickets, self.results) = owed.into_iter().unzip();
        read
    }

    /// Makes all of it durable.
    pub fn settle(self) -> Settled {
        let Self { mut results, logs } = self;
        let failure = logs.iter().find_map(|log| log.sync().err());
        if let Some(why) = &failure {
            results.iter_mut().for_each(|result| *result = failed(result, why));
        }
        Settled { results, failure }
    }
}

/// The answer to the same call where the store failed.
fn failed(result: &StoreResult, why: &str) -> StoreResult {
    let error = CommitError::Failed(why.to_owned());
    match result {
        StoreResult::Committed(_) => StoreResult::Committed(Err(error)),
        StoreResult::Claimed(_) => StoreResult::Claimed(Err(error)),
        StoreResult::Looked(_) => StoreResult::Looked(Err(error)),
        StoreResult::Ended(_) => StoreResult::Ended(Err(error)),
        StoreResult::Loaded(_) => StoreResult::Loaded(Err(error)),
        StoreResult::Read(_) => StoreResult::Read(Err(error)),
    }
}
