//! One message, one change at a time: every step reads the record as it stands, makes the next one, and waits for its commit.
//!
//! A report that a step causes becomes durable in the same batch as the step. A commit that fails leaves the old record standing;
//! the step is tried again while the store is being reopened, so an outcome once known is not forgotten while the node runs.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bearer::Transfer;
use crate::mail::{BearerId, Hop, MessageId, Outcome, PeerName, Precedence, RecipientState, Source, Terms, TransferId};
use crate::ops;
use crate::queue::accept::Authority;
use crate::queue::dsn::{self, Returned};
use crate::queue::expand::{self, Entered};
use crate::queue::outcome::{self, Applied, Context, Event};
use crate::queue::{
    Batch, Change, CommitError, Ids, MessageRecord, MessageState, StoreCall, TrackEntry, TransferRecord,
};
use crate::time::{Duration, Instant, Now};

use super::fetch::Granted;
use super::{Omission, Output, Pending, RequestId, StoreState, Switch, Work, context, future, late, receipts, renewal};

/// Something that changes one message.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Results for recipients, by index.
    Events {
        events: Vec<(u32, Event)>,
        air: AirNote,
        /// The transfer that ended with them.
        ended: Option<TransferId>,
        /// The hop whose job ended with them.
        job: Option<Hop>,
        /// The part of another message that was asked for with this one: it becomes durable with the answer.
        sends: Option<Box<Granted>>,
    },
    /// A payload was made: freeze it, then hand it to its station. `text` is what is kept of the message once both ends hold it.
    Freeze {
        transfers: Vec<(TransferRecord, PeerName)>,
        payload: Arc<[u8]>,
        text: Arc<[u8]>,
        /// What the payload lacks of the message, if a rule took something.
        omission: Option<Omission>,
    },
    /// Lifetimes and delay reports.
    Wake,
    /// The release its sender asked for has come.
    LetGo,
    /// A report goes the way of the digest that it went in, as its mark says.
    Follow,
    /// An operator's hand.
    Operator { action: Action, reply: RequestId, author: String },
}

/// What an operator may do to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Hold(String),
    Release,
    Cancel,
    Expedite(Option<Precedence>),
}

/// What a result says about the air.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct AirNote {
    pub(super) bearer: Option<BearerId>,
    pub(super) bytes: u64,
    pub(super) air_s: f64,
    /// The far side refused it, for this reason, and it is to be coded anew.
    pub(super) refused: Option<u8>,
}

/// Steps of one message; the first is under way.
#[derive(Debug, Default)]
pub(super) struct Steps {
    queue: VecDeque<Step>,
    /// When a failed step is tried again.
    pub(super) retry_at: Option<Instant>,
}

/// A step whose next record is known and not yet durable.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) applied: Applied,
    pub(super) step: Step,
    extra: Vec<Change>,
}

pub(super) const RETRY_COMMIT: Duration = Duration::from_secs(5);

impl Switch {
    /// Queues a step and starts it if nothing else is under way for this message.
    pub(super) fn step(&mut self, now: Now, message: MessageId, step: Step) {
        let steps = self.steps.entry(message).or_default();
        steps.queue.push_back(step);
        if steps.queue.len() == 1 {
            self.begin_step(now, message);
        }
    }

    /// Tries again what could not be made durable.
    pub(super) fn retry_steps(&mut self, now: Now) {
        let due: Vec<MessageId> =
            self.steps.iter().filter(|(_, s)| s.retry_at.is_some_and(|at| at <= now.at)).map(|(id, _)| *id).collect();
        for message in due {
            if let Some(steps) = self.steps.get_mut(&message) {
                steps.retry_at = None;
            }
            self.begin_step(now, message);
        }
    }

    fn begin_step(&mut self, now: Now, message: MessageId) {
        match self.active.record(message).cloned() {
            Some(record) => self.run_step(now, &record),
            None => self.work(Work::Store(StoreCall::Load(message)), Pending::LoadForStep { message }),
        }
    }

    /// A record that was not in memory came from the store.
    pub(super) fn step_loaded(&mut self, now: Now, message: MessageId, loaded: Option<Box<MessageRecord>>) {
        match loaded {
            Some(record) => self.run_step(now, &record),
            None => {
                let steps = self.steps.remove(&message).unwrap_or_default();
                for step in steps.queue {
                    self.refuse_step(&step, "no such message");
                }
                self.forget_mark(message);
                self.forget_future(message);
            }
        }
    }

    fn refuse_step(&mut self, step: &Step, why: &str) {
        if let Step::Operator { reply, .. } = step {
            self.outputs.push_back(Output::Reply { id: *reply, response: ops::Response::refused(why) });
        }
    }

    /// Whether a word that ends this transfer is on its way to the store: another bearer may bring it again.
    pub(super) fn is_ending(&self, transfer: &TransferRecord) -> bool {
        let ends = |step: &Step| matches!(step, Step::Events { ended: Some(id), .. } if *id == transfer.id);
        self.steps.get(&transfer.message).is_some_and(|steps| steps.queue.iter().any(ends))
    }

    fn run_step(&mut self, now: Now, record: &MessageRecord) {
        let Some(step) = self.steps.get(&record.id).and_then(|s| s.queue.front()).cloned() else { return };
        let step = match step {
            Step::Follow => match self.followed(now, record) {
                Some(step) => step,
                None => return self.end_step(now, record.id),
            },
            Step::Events { .. } | Step::Freeze { .. } | Step::Wake | Step::LetGo | Step::Operator { .. } => step,
        };
        match self.next_record(now, record, &step) {
            Ok(Some((mut applied, mut extra))) => {
                let untold = std::mem::take(&mut applied.unreportable);
                if let Some(report) = dsn::Report::for_postmaster(&applied.record, &self.reporter, untold) {
                    applied.report = Some(report);
                }
                if applied.record.state != MessageState::Queued && self.beyond.contains(&record.id) {
                    extra.push(Change::Setting(beyond_key(record.id), None));
                }
                extra.extend(self.future_over(&applied.record));
                extra.extend(self.context_changes(&applied.record, &step, &extra));
                extra.extend(self.mule_changes(&applied.record, &step, &extra));
                extra.extend(self.receipt_changes(&applied.record, &step));
                let settled = Box::new(Settled { applied, step, extra });
                match &settled.applied.report {
                    Some(report) => {
                        let body = record.recipients.first().map(|r| r.body);
                        let length = match report.returns(&self.reporter) {
                            Returned::Full => u64::MAX,
                            Returned::Headers => REPORT_HEADER_BYTES,
                        };
                        match body {
                            Some(body) => {
                                let pending = Pending::ReportBody { settled };
                                self.work(Work::Store(StoreCall::Read(body, 0, length)), pending);
                            }
                            None => self.commit_step(now, settled, &[]),
                        }
                    }
                    None => self.commit_step(now, settled, &[]),
                }
            }
            Ok(None) => {
                if matches!(step, Step::LetGo) {
                    self.forget_future(record.id);
                }
                self.refuse_step(&step, "nothing to change: the message is not in a state for that");
                self.give_back_job(now, &step, record.clone());
                self.end_step(now, record.id);
            }
            Err(why) => {
                self.refuse_step(&step, &why);
                tracing::warn!(%why, "a result no longer fits its message");
                self.give_back_job(now, &step, record.clone());
                self.end_step(now, record.id);
            }
        }
    }

    fn next_record(
        &self,
        now: Now,
        record: &MessageRecord,
        step: &Step,
    ) -> Result<Option<(Applied, Vec<Change>)>, String> {
        let transfers = |except: Option<&TransferId>| {
            self.transfers.values().filter(|t| t.message == record.id && Some(&t.id) != except).collect::<Vec<_>>()
        };
        let plain = Context::plain(&self.policy);
        Ok(match step {
            Step::Events { events, air, ended, .. } => {
                let context = Context {
                    live_transfers: transfers(ended.as_ref()).len(),
                    bearer: air.bearer.clone(),
                    bytes_on_air: air.bytes,
                    air_s: air.air_s,
                    ..plain
                };
                let mut extra = Vec::new();
                if let Some(id) = ended.as_ref().filter(|id| self.late.contains_key(id)) {
                    extra.push(Change::Setting(late::key(id), None));
                }
                if let Some(transfer) = ended.as_ref().and_then(|id| self.transfers.get(id)) {
                    extra.push(Change::DropTransfer(transfer.id.clone()));
                    // The payload of a group goes with the last of its transfers.
                    if !transfers(Some(&transfer.id)).iter().any(|t| t.payload == transfer.payload) {
                        extra.push(Change::DropBody(transfer.payload));
                    }
                }
                // What came too late to matter (cancelled meanwhile) is a line of history, not an error.
                Some((outcome::absorb(now, &context, record, events), extra))
            }
            Step::Freeze { transfers, payload, omission, .. } => {
                let Some((first, _)) = transfers.first() else { return Ok(None) };
                let bearer = first.bearer.clone();
                let recipients = transfers.iter().flat_map(|(t, _)| &t.recipients);
                let reduced = omission
                    .as_ref()
                    .map(|o| format!("{} bytes to {}, without {}", o.from_bytes, o.to_bytes, o.without));
                let frozen = Event::Frozen { bearer: bearer.clone(), reduced };
                let events: Vec<_> = recipients.map(|i| (*i, frozen.clone())).collect();
                let context = Context { live_transfers: transfers.len(), bearer: Some(bearer), ..plain };
                let applied = outcome::settle(now, &context, record, &events).map_err(|e| e.to_string())?;
                let mut extra = vec![Change::Body(first.payload, payload.clone())];
                extra.extend(transfers.iter().map(|(t, _)| at_level(t, record.precedence)));
                extra.extend(self.awaited_changes(transfers));
                Some((applied, extra))
            }
            Step::Wake => {
                let live = transfers(None);
                let keyed = live.iter().any(|t| self.keyed_transfers.contains(&t.id)) || self.digest_keyed(record.id);
                let context = Context { live_transfers: 0, ..plain };
                outcome::wake(now, &context, record, keyed).map(|applied| {
                    let mut changes = Vec::new();
                    if applied.record.state == MessageState::Done {
                        changes = drop_transfers(&live);
                        changes.extend(self.remember_late(now, &live));
                    }
                    (applied, changes)
                })
            }
            Step::Follow => None,
            Step::LetGo => outcome::let_go(now, &self.policy, record).map(|a| (a, Vec::new())),
            Step::Operator { action, .. } => match action {
                Action::Hold(why) => outcome::hold(now, &self.policy, record, why).map(|a| (a, Vec::new())),
                Action::Release => outcome::release(now, &self.policy, record).map(|a| (a, let_go(now, record))),
                Action::Expedite(level) => {
                    let level = level.unwrap_or(record.precedence);
                    let raised = transfers(None).iter().map(|t| at_level(t, level)).collect();
                    outcome::expedite(now, &self.policy, record, level).map(|a| (a, raised))
                }
                Action::Cancel => {
                    let live = transfers(None);
                    outcome::cancel(now, &plain, record).map(|a| (a, drop_transfers(&live)))
                }
            },
        })
    }

    pub(super) fn commit_step(&mut self, now: Now, settled: Box<Settled>, subject: &[u8]) {
        let mut batch = Batch { conditions: Vec::new(), changes: settled.applied.changes.clone() };
        batch.changes.extend(settled.extra.iter().cloned());
        let mut own = Vec::new();
        if let Some(due) = &settled.applied.report {
            let submission = dsn::build(now, &self.reporter, due, subject);
            if let Some(entered) = self.accept_own(now, submission) {
                batch.append(entered.batch);
                own.extend(entered.records);
            }
        } else {
            batch.changes.extend(self.ids.cover());
        }
        if let Step::Events { sends: Some(granted), .. } = &settled.step {
            own.extend(self.grant(now, granted, &mut batch));
        }
        let ids = self.ids_in(&batch);
        self.commit(batch, Pending::Step { settled, own, ids });
    }

    /// What this node has to say, as messages to whom it is for; `None` where it is for nobody.
    pub(super) fn accept_own(&mut self, now: Now, submission: crate::mail::Submission) -> Option<Entered> {
        let expansion = self.expand(&submission.envelope, &submission.body, None);
        let authority = Authority { trusted: true, ceiling: Precedence::Override };
        let terms = Terms::default();
        expand::accept_all(now, &self.policy, authority, &mut self.ids, submission, expansion, &terms).ok()
    }

    /// A step's commit came back.
    pub(super) fn step_stored(
        &mut self,
        now: Now,
        settled: Box<Settled>,
        own: Vec<MessageRecord>,
        ids: Batch,
        stored: Result<(), CommitError>,
    ) {
        let id = settled.applied.record.id;
        if let Err(error) = stored {
            self.commit_failed(&error);
            if let Some(steps) = self.steps.get_mut(&id) {
                steps.retry_at = Some(now.at + RETRY_COMMIT);
            }
            return;
        }
        self.ids.committed(&ids);
        self.store = StoreState::Healthy;
        let Settled { applied, step, extra } = *settled;
        let (mut over, mut freed) = (Vec::new(), Vec::new());
        for change in &extra {
            match change {
                Change::DropTransfer(id) => {
                    freed.extend(self.transfers.get(id).map(|t| t.hop.clone()));
                    self.forget_transfer(now, id);
                    over.push(id.clone());
                }
                Change::Transfer(stored) => {
                    if let Some(known) = self.transfers.get_mut(&stored.id) {
                        known.precedence = stored.precedence;
                    }
                }
                Change::Setting(name, value) if late::is_key(name) => self.late_stored(value.as_deref(), name),
                Change::Setting(name, value) if context::is_key(name) => self.contexts.stored(name, value.as_deref()),
                Change::Setting(name, value) if future::is_key(name) => self.futures.stored(name, value.as_deref()),
                Change::Setting(name, value) if receipts::is_key(name) => self.receipts.stored(name, value.as_deref()),
                Change::Setting(name, value) => match (beyond_id(name), value) {
                    (Some(id), Some(_)) => _ = self.beyond.insert(id),
                    (Some(id), None) => _ = self.beyond.remove(&id),
                    (None, _) => {}
                },
                _ => {}
            }
        }
        self.tell(&applied, &step);
        let record = applied.record;
        let level = record.precedence;
        match self.step_job(&step) {
            Some(hop) => {
                if let Some(back) = self.active.finish(now, id, &hop, record.clone()) {
                    self.write_back(*back);
                }
            }
            None if self.active.record(id).is_some() => self.active.update(now, record.clone()),
            None if record.state == MessageState::Queued => self.offer(now, record.clone()),
            None => {}
        }
        if record.state == MessageState::Done && matches!(step, Step::Wake | Step::Operator { .. }) {
            // It ended with jobs under way that nothing will give back.
            if let Source::Receipts { peer, .. } = &record.source {
                freed.push(Hop::Peer(peer.clone()));
            }
            for hop in freed {
                if let Some(back) = self.active.finish(now, id, &hop, record.clone()) {
                    self.write_back(*back);
                }
            }
        }
        let (reports, parts): (Vec<_>, Vec<_>) = own.into_iter().partition(|record| record.envelope.from.is_none());
        for report in reports {
            self.event(ops::Event::ReportQueued { message: report.id, about: id });
            self.offer(now, report);
        }
        if let Step::Events { sends: Some(granted), .. } = &step {
            self.granted(now, granted, parts);
        }
        if let Step::Events { ended: Some(id), .. } = &step
            && !over.contains(id)
        {
            over.push(id.clone());
        }
        over.iter().for_each(|id| self.digest_settled(now, id));
        match step {
            Step::Freeze { transfers, payload, omission, .. } => {
                if let (Some(Omission { from_bytes, to_bytes, without }), Some((first, _))) =
                    (omission, transfers.first())
                {
                    let bearer = first.bearer.clone();
                    self.event(ops::Event::MessageReduced { message: id, bearer, from_bytes, to_bytes, without });
                }
                for (mut transfer, peer) in transfers {
                    // It may have been expedited while the payload was made.
                    transfer.precedence = level;
                    self.event(ops::Event::TransferFrozen {
                        message: id,
                        transfer: transfer.id.to_string(),
                        bearer: transfer.bearer.clone(),
                        payload_bytes: u64::from(transfer.payload_bytes),
                    });
                    self.transfers.insert(transfer.id.clone(), transfer.clone());
                    self.digest_settled(now, &transfer.id);
                    if transfer.id.epoch != self.epoch {
                        // The epoch ended while this was being stored.
                        self.withdraw(now, &transfer, renewal::STALE);
                    } else if self.renewal.is_none() {
                        let TransferRecord { id, precedence, lead, cut, .. } = transfer.clone();
                        let send = Transfer { id, to: peer, precedence, payload: payload.clone(), cut, lead };
                        self.put_on_air(now, &transfer, send);
                    }
                }
            }
            Step::Operator { action, reply, author } => {
                let name = match &action {
                    Action::Hold(why) => {
                        self.event(ops::Event::MessageHeld { message: id, why: why.clone() });
                        "hold"
                    }
                    Action::Release => {
                        self.event(ops::Event::MessageReleased { message: id, author });
                        "release"
                    }
                    Action::Cancel => {
                        self.event(ops::Event::MessageCancelled { message: id, author });
                        "cancel"
                    }
                    Action::Expedite(_) => {
                        self.event(ops::Event::MessageExpedited { message: id, precedence: record.precedence, author });
                        self.expedite_transfers(now, id, record.precedence);
                        "expedite"
                    }
                };
                let response = ops::read::action(name, &record);
                self.outputs.push_back(Output::Reply { id: reply, response });
            }
            Step::LetGo => self.event(ops::Event::MessageReleased { message: id, author: "its sender".into() }),
            Step::Events { .. } | Step::Wake | Step::Follow => {}
        }
        self.end_step(now, id);
    }

    /// The hop whose job a step ends once it is done. A frozen payload keeps its job until its transfer ends.
    fn step_job(&self, step: &Step) -> Option<Hop> {
        match step {
            Step::Events { job, .. } => job.clone(),
            Step::Freeze { .. } | Step::Wake | Step::LetGo | Step::Follow | Step::Operator { .. } => None,
        }
    }

    /// A step that cannot be taken still ends the job it came from.
    fn give_back_job(&mut self, now: Now, step: &Step, record: MessageRecord) {
        let hops: Vec<Hop> = match step {
            Step::Events { job, .. } => job.iter().cloned().collect(),
            Step::Freeze { transfers, .. } => {
                transfers.iter().for_each(|(t, _)| self.digest_dissolved(now, &t.id));
                transfers.iter().map(|(t, _)| t.hop.clone()).collect()
            }
            Step::Wake | Step::LetGo | Step::Follow | Step::Operator { .. } => Vec::new(),
        };
        for hop in hops {
            if let Some(back) = self.active.finish(now, record.id, &hop, record.clone()) {
                self.write_back(*back);
            }
        }
    }

    fn end_step(&mut self, now: Now, message: MessageId) {
        if let Some(steps) = self.steps.get_mut(&message) {
            steps.queue.pop_front();
            if steps.queue.is_empty() {
                self.steps.remove(&message);
            } else {
                self.begin_step(now, message);
            }
        }
    }

    fn expedite_transfers(&mut self, now: Now, message: MessageId, level: Precedence) {
        let own = self.transfers.values().filter(|t| t.message == message).map(|t| &t.id);
        let ids: Vec<TransferId> = own.chain(self.digest_of(message)).cloned().collect();
        for id in &ids {
            self.expedite_mule(now, id, level);
            self.nets.stations_mut().for_each(|station| station.expedite(id, level));
            self.bearers.values_mut().for_each(|bearer| bearer.station.expedite(now.at, id, level));
        }
    }

    fn forget_transfer(&mut self, now: Now, id: &TransferId) {
        self.keyed_transfers.remove(id);
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::KeepTransfer) {
            return;
        }
        self.choice_over(id);
        let Some(transfer) = self.transfers.remove(id) else { return };
        self.mule_over(&transfer);
        self.aldis_over(&transfer);
        for (name, bearer) in &mut self.bearers {
            if *name != transfer.bearer {
                // One word to the far side is enough.
                bearer.station.withdraw(now.at, id);
            }
            bearer.station.cancel(now.at, id);
        }
    }

    /// Events for what a step's results said.
    fn tell(&mut self, applied: &Applied, step: &Step) {
        let message = applied.record.id;
        let address = |index: u32| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            applied.record.envelope.recipients.get(index).map(|r| r.address.to_string()).unwrap_or_default()
        };
        let Step::Events { events, air, ended, .. } = step else {
            if matches!(step, Step::Wake) {
                self.tell_ended(applied, address);
            }
            return;
        };
        let confirmed = events.iter().any(|(_, e)| matches!(e, Event::Delivered { .. }));
        if let (true, Some(_), Some(bearer)) = (confirmed, ended, &air.bearer) {
            let (bearer, bytes_on_air, air_s) = (bearer.clone(), air.bytes, air.air_s);
            self.event(ops::Event::TransferConfirmed { message, bearer, bytes_on_air, air_s });
        }
        for (index, event) in events {
            let recipient = address(*index);
            let told = match event {
                Event::Delivered { by, .. } => ops::Event::MessageDelivered {
                    message,
                    recipient,
                    by: by.clone(),
                    bearer: air.bearer.clone(),
                    bytes_on_air: air.bytes,
                    air_s: air.air_s,
                },
                Event::Failed { status, diagnostic, .. } => ops::Event::MessageFailed {
                    message,
                    recipient,
                    status: status.to_string(),
                    diagnostic: diagnostic.clone(),
                },
                Event::Deferred { diagnostic } => {
                    ops::Event::MessageDeferred { message, recipient, diagnostic: diagnostic.to_string() }
                }
                Event::Held { why } => ops::Event::MessageHeld { message, why: why.clone() },
                Event::Frozen { .. }
                | Event::Withdrawn { .. }
                | Event::Sent { .. }
                | Event::Expired
                | Event::Unconfirmed
                | Event::Cancelled
                | Event::Released => continue,
            };
            self.event(told);
        }
    }

    /// Events for recipients whose life ended.
    fn tell_ended(&mut self, applied: &Applied, address: impl Fn(u32) -> String) {
        let message = applied.record.id;
        for (index, recipient) in (0_u32..).zip(&applied.record.recipients) {
            let RecipientState::Final { outcome, .. } = &recipient.state else { continue };
            let told = match outcome {
                Outcome::Expired => ops::Event::MessageExpired { message, recipient: address(index) },
                Outcome::Unconfirmed => ops::Event::MessageUnconfirmed { message, recipient: address(index) },
                Outcome::Delivered { .. } | Outcome::Failed { .. } | Outcome::Cancelled => continue,
            };
            self.event(told);
        }
    }

    /// Notes what a failed commit says about the store.
    pub(super) fn commit_failed(&mut self, error: &CommitError) {
        let state = match error {
            CommitError::Conflict(_) => return,
            CommitError::Full => StoreState::Full,
            CommitError::Failed(why) => StoreState::Failed(why.clone()),
        };
        if self.store != state {
            self.event(ops::Event::StoreFailed { why: error.to_string() });
            self.store = state;
        }
    }

    /// Only what tells the allocator of ids that its reservation is durable.
    pub(super) fn ids_in(&self, batch: &Batch) -> Batch {
        let setting = |c: &&Change| matches!(c, Change::Setting(name, _) if name == Ids::SETTING);
        Batch { conditions: Vec::new(), changes: batch.changes.iter().filter(setting).cloned().collect() }
    }
}

/// Enough of a body to hold its header.
const REPORT_HEADER_BYTES: u64 = 64 * 1024;

/// What the reason of a hold begins with when the message is beyond what its bearer carries.
pub(super) const BEYOND: &str = "beyond what the bearer carries: ";

/// Name of the setting that lets a message go beyond what its bearer carries.
fn beyond_key(message: MessageId) -> String {
    format!("beyond/{message}")
}

/// The message such a setting is about.
pub(super) fn beyond_id(setting: &str) -> Option<MessageId> {
    setting.strip_prefix("beyond/").and_then(MessageId::parse)
}

/// What an operator's release of a held message brings with it: where a bearer's bound held it, the bound no longer applies to it.
fn let_go(now: Now, record: &MessageRecord) -> Vec<Change> {
    let why = record.recipients.iter().find_map(|r| match &r.state {
        RecipientState::Held { why } => why.strip_prefix(BEYOND),
        RecipientState::Due { .. } | RecipientState::OnAir { .. } | RecipientState::Final { .. } => None,
    });
    let Some(why) = why else { return Vec::new() };
    let line = TrackEntry {
        at: now.wall,
        event: "unbounded".into(),
        recipient: None,
        bearer: None,
        bytes_on_air: 0,
        air_s: 0.0,
        detail: Some(format!("sent all the same, by an operator's decision: {why}")),
    };
    vec![Change::Setting(beyond_key(record.id), Some(Vec::new())), Change::Track(record.id, line)]
}

/// A transfer with its message's precedence: after a restart it goes on with that.
fn at_level(transfer: &TransferRecord, precedence: Precedence) -> Change {
    Change::Transfer(Box::new(TransferRecord { precedence, ..transfer.clone() }))
}

fn drop_transfers(live: &[&TransferRecord]) -> Vec<Change> {
    live.iter().flat_map(|t| [Change::DropTransfer(t.id.clone()), Change::DropBody(t.payload)]).collect()
}
