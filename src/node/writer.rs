//! The store's thread: one writer, group commit, no timer. It takes what is queued, executes it together, completes, repeats.

use std::sync::mpsc::{Receiver, Sender};

use crate::queue::{Engine, StoreCall};
use crate::switch::{Input, Ticket, WorkResult};

/// Most calls taken into one commit.
const GROUP: usize = 256;

/// Runs until the switch closes its queue; everything queued by then is executed.
pub fn run(mut engine: Engine, calls: &Receiver<(Ticket, StoreCall)>, to: &Sender<Input>) {
    while let Ok(first) = calls.recv() {
        let mut tickets = vec![first.0];
        let mut group = vec![first.1];
        while group.len() < GROUP {
            let Ok((ticket, call)) = calls.try_recv() else { break };
            tickets.push(ticket);
            group.push(call);
        }
        for (ticket, result) in tickets.into_iter().zip(engine.execute(group)) {
            if to.send(Input::Done { ticket, result: WorkResult::Store(result) }).is_err() {
                return;
            }
        }
    }
}
