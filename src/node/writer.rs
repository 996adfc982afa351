//! The store's thread: one writer, group commit, no timer. It takes what is queued, executes it together, completes, repeats.
//!
//! A store that failed stays failed: what of the last commits reached the disk is known only when the file is read again, and
//! everything above was built on what it held before. So the node ends, and its next start goes on from the disk. The one thing
//! that must outlive the end is silence: orders in force that could not be persisted are written before the process may go.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::queue::{Batch, Engine, StoreCall, StoreResult};
use crate::switch::{Input, Ticket, WorkResult};

/// Most calls taken into one commit.
const GROUP: usize = 256;
/// How long after a failed attempt the orders in force are written again.
const AGAIN: core::time::Duration = core::time::Duration::from_secs(2);

/// The orders of silence in force when the switch ended; empty before that.
pub type LastWords = Arc<Mutex<Option<Batch>>>;

/// Runs until the switch closes its queue; everything queued by then is executed. The first failure of the store is told to `failed`.
pub fn run(
    mut engine: Engine,
    calls: &Receiver<(Ticket, StoreCall)>,
    to: &Sender<Input>,
    failed: &watch::Sender<Option<String>>,
    last: &LastWords,
) {
    while let Ok(first) = calls.recv() {
        let mut tickets = vec![first.0];
        let mut group = vec![first.1];
        while group.len() < GROUP {
            let Ok((ticket, call)) = calls.try_recv() else { break };
            tickets.push(ticket);
            group.push(call);
        }
        let results = engine.execute(group);
        if let Some(why) = engine.failure() {
            failed.send_if_modified(|told| told.is_none() && told.replace(why.to_owned()).is_none());
        }
        for (ticket, result) in tickets.into_iter().zip(results) {
            // Whoever still asks gets an answer; the switch may have ended before its last results.
            let _ = to.send(Input::Done { ticket, result: WorkResult::Store(result) });
        }
    }
    if engine.failure().is_some()
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

fn keep(engine: &mut Engine, batch: &Batch) -> Result<(), String> {
    engine.reopen().map_err(|e| e.to_string())?;
    match engine.execute(vec![StoreCall::Commit(batch.clone())]).pop() {
        Some(StoreResult::Committed(Ok(()))) => Ok(()),
        Some(StoreResult::Committed(Err(error))) => Err(error.to_string()),
        _ => Err("the store gave no answer".into()),
    }
}
