//! Carries out what the switch puts out, and brings results back as inputs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedSender;

use super::check::Checker;
use super::clock::Clock;
use super::control::Pending;
use super::forward::Forwarder;
use super::listen::Sessions;
use super::modem::Order;
use crate::mail::BearerId;
use crate::ops::Event;
use crate::queue::{RealDisk, StoreCall};
use crate::switch::{Input, Output, Ticket, Work, WorkResult, work};

/// Everything the switch's outputs go to.
pub struct Executor {
    /// Back to the switch.
    pub to: Sender<Input>,
    /// The writer thread.
    pub calls: Sender<(Ticket, StoreCall)>,
    /// The modem drivers.
    pub modems: BTreeMap<BearerId, UnboundedSender<Order>>,
    /// SMTP sessions that wait for answers.
    pub sessions: Arc<Sessions>,
    /// Control clients that wait for replies.
    pub pending: Arc<Pending>,
    /// Control clients that watch.
    pub events: broadcast::Sender<Arc<str>>,
    /// Where tasks and the pool run.
    pub runtime: tokio::runtime::Handle,
    /// Root of the Maildirs.
    pub maildirs: PathBuf,
    /// Onward connections.
    pub forwards: Forwarder,
    /// Checks of mail that comes in.
    pub checker: Checker,
    /// For event times.
    pub clock: Clock,
}

impl Executor {
    /// Carries out one output. Never waits.
    pub fn execute(&self, output: Output) {
        match output {
            Output::Answer { session, ask, answer } => self.sessions.answer(session, ask, answer),
            Output::Work { ticket, work } => self.work(ticket, work),
            Output::Emit(emission) => self.order(&emission.bearer().clone(), Order::Emit(emission)),
            Output::Act { bearer, action } => self.order(&bearer, Order::Act(action)),
            Output::Reply { id, response } => self.pending.reply(id, response),
            Output::Event(event) => self.event(&event),
        }
    }

    fn order(&self, bearer: &BearerId, order: Order) {
        if let Some(modem) = self.modems.get(bearer) {
            // A driver that ended has already dropped its key.
            let _ = modem.send(order);
        }
    }

    fn work(&self, ticket: Ticket, work: Work) {
        match work {
            Work::Store(call) => {
                if self.calls.send((ticket, call)).is_err() {
                    let _ = self.to.send(Input::Done { ticket, result: WorkResult::Dropped });
                }
            }
            Work::Forward(forward) => {
                let (to, forwards) = (self.to.clone(), self.forwards.clone());
                self.runtime.spawn(async move {
                    let result = WorkResult::Forwarded(Box::new(forwards.deliver(*forward).await));
                    let _ = to.send(Input::Done { ticket, result });
                });
            }
            Work::Maildir(local) => {
                let root = self.maildirs.clone();
                self.pool(ticket, move || match RealDisk::shared(&root) {
                    Ok(disk) => work::maildir(&disk, &local),
                    Err(error) => work::maildir_unavailable(&local, &error.to_string()),
                });
            }
            Work::Encode(encode) => self.pool(ticket, move || work::encode(&encode)),
            Work::Decode(decode) => self.pool(ticket, move || work::decode(&decode)),
            Work::MuleEncode(encode) => self.pool(ticket, move || work::mule_encode(&encode)),
            Work::MuleDecode(decode) => self.pool(ticket, move || work::mule_decode(&decode)),
            Work::Job(job) => self.pool(ticket, move || work::job(job)),
            Work::Fetch(fetch) => self.pool(ticket, move || work::fetch(&fetch)),
            Work::Vet(vet) => {
                let (to, checker) = (self.to.clone(), self.checker.clone());
                self.runtime.spawn(async move {
                    let result = WorkResult::Vetted(Box::new(checker.vet(*vet).await));
                    let _ = to.send(Input::Done { ticket, result });
                });
            }
        }
    }

    fn pool(&self, ticket: Ticket, body: impl FnOnce() -> WorkResult + Send + 'static) {
        let to = self.to.clone();
        self.runtime.spawn_blocking(move || {
            let _ = to.send(Input::Done { ticket, result: body() });
        });
    }

    fn event(&self, event: &Event) {
        event.log();
        if self.events.receiver_count() > 0 {
            let line: Arc<str> = event.json(self.clock.now().wall).to_string().into();
            let _ = self.events.send(line);
        }
    }
}
