//! The store's threads, with group commit and no timer. One takes what is queued, does it together and writes it to the log; the other syncs the
//! log and completes. While a sync runs the next calls are done, and whatever was written meanwhile shares the sync after it.
//!
//! A store that failed stays failed: what of the last commits reached the disk is known only when the file is read again, and
//! everything above was built on what it held before. So the node ends, and its next start goes on from the disk. The one thing
//! that must outlive the end is silence: orders in force that could not be persisted are written before the process may go.

use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::guarded;
use crate::queue::{Batch, Engine, Staged, StoreCall, StoreResult};
use crate::switch::{Input, Ticket, WorkResult};

/// Most calls taken into one commit.
const GROUP: usize = 256;
/// Groups that may wait for one sync; with so many the writing waits too.
const STAGED: usize = 16;
/// How long after a failed attempt the orders in force are written again.
const AGAIN: core::time::Duration = core::time::Duration::from_secs(2);

/// The orders of silence in force when the switch ended; empty before that.
pub type LastWords = Arc<Mutex<Option<Batch>>>;

/// What nobody may hear of before it is settled.
type Owed = (Vec<Ticket>, Staged);
/// The first failure of the store, once there is one.
type Failure = watch::Sender<Option<String>>;

/// Runs until the switch closes its queue; everything queued by then is executed. The first failure of the store is told to `failed`.
pub fn run(
    mut engine: Engine,
    calls: &Receiver<(Ticket, StoreCall)>,
    to: &Sender<Input>,
    failed: &Failure,
    last: &LastWords,
) {
    // What follows comes after the last sync: only then is known whether the store failed.
    let worked = std::thread::scope(|scope| {
        let (staged, owed) = sync_channel(STAGED);
        let settle = guarded(move || settle(&owed, to, failed));
        match std::thread::Builder::new().name("aldis-sync".into()).spawn_scoped(scope, settle) {
            Ok(_) => write(&mut engine, calls, to, &staged, failed),
            Err(error) => {
                tell(failed, &format!("the thread that syncs the store cannot be started: {error}"));
                calls.iter().for_each(drop);
                return false;
            }
        }
        true
    });
    if (engine.failure().is_some() || !worked)
        && let Some(batch) = last.lock().unwrap_or_else(PoisonError::into_inner).take()
    {
        while let Err(why) = keep(&mut engine, &batch) {
            tracing::error!(%why, "the orders of silence in force cannot be stored; the node stays, silent, until they are");
            #[expect(
                clippy::disallowed_methods,
                reason = "the thread's last work; nobody waits for it but the end of the process"
            )]
            std::thread::sleep(AGAIN);
        }
    }
}

fn write(
    engine: &mut Engine,
    calls: &Receiver<(Ticket, StoreCall)>,
    to: &Sender<Input>,
    staged: &SyncSender<Owed>,
    failed: &Failure,
) {
    while let Ok(first) = calls.recv() {
        let mut tickets = vec![first.0];
        let mut group = vec![first.1];
        while group.len() < GROUP {
            let Ok((ticket, call)) = calls.try_recv() else { break };
            tickets.push(ticket);
            group.push(call);
        }
        let mut done = engine.stage(group);
        if let Some(why) = engine.failure() {
            tell(failed, why);
        }
        answer(to, done.take_read(&mut tickets));
        if !done.is_empty() && staged.send((tickets, done)).is_err() {
            return;
        }
    }
}

fn settle(owed: &Receiver<Owed>, to: &Sender<Input>, failed: &Failure) {
    while let Ok((mut tickets, mut staged)) = owed.recv() {
        while let Ok((more, later)) = owed.try_recv() {
            tickets.extend(more);
            staged.append(later);
        }
        let settled = staged.settle();
        if let Some(why) = &settled.failure {
            tell(failed, why);
        }
        answer(to, tickets.into_iter().zip(settled.results));
    }
}

fn answer(to: &Sender<Input>, results: impl IntoIterator<Item = (Ticket, StoreResult)>) {
    for (ticket, result) in results {
        // Whoever still asks gets an answer; the switch may have ended before its last results.
        let _ = to.send(Input::Done { ticket, result: WorkResult::Store(result) });
    }
}

fn tell(failed: &Failure, why: &str) {
    failed.send_if_modified(|told| told.is_none() && told.replace(why.to_owned()).is_none());
}

fn keep(engine: &mut Engine, batch: &Batch) -> Result<(), String> {
    engine.reopen().map_err(|e| e.to_string())?;
    match engine.execute(vec![StoreCall::Commit(batch.clone())]).pop() {
        Some(StoreResult::Committed(Ok(()))) => Ok(()),
        Some(StoreResult::Committed(Err(error))) => Err(error.to_string()),
        _ => Err("the store gave no answer".into()),
    }
}
