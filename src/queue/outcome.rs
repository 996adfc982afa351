//! What happens to a message after it was accepted: attempts, results, deadlines and the operator's hand.
//!
//! The switch calls [`settle`] with results, [`wake`] when a message's [`next_wake`] has come, and the operator's actions; each
//! takes a record by reference and gives the new one with the changes to commit, so that a failed commit leaves the old one standing.
//! A report that is due must become durable with its cause: load the subject, [`build`](super::dsn::build) it,
//! [`accept`](super::accept()) it, and commit both batches as one. Implements the state table of [`crate::queue`]; link-rules A4,
//! A5, A7, B6; RFC 2852 and RFC 3461 (which event is reported).

use std::collections::BTreeSet;
use std::fmt;

use super::accept::{Policy, lifetime, state_of};
use super::dsn::{self, Action, Cause, Line, Report};
use super::record::{MessageRecord, MessageState, TrackEntry};
use super::store::Change;
use crate::mail::{BearerId, BodyRef, ByMode, MessageId, Notify, Outcome, Precedence, RecipientState, Source, Status};
use crate::time::{Now, Wall};

/// What an operator sees as the reason of mail held back by MINIMIZE; [`minimize`] releases only that.
pub const MINIMIZE: &str = "MINIMIZE: below the precedence now in force";

/// Something that happened to one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Its payload was frozen and handed to a bearer: due -> on air. Counts as an attempt.
    Frozen {
        /// Which bearer.
        bearer: BearerId,
    },
    /// The transfer was given up without a result (other key, other epoch, operator): on air -> due, at once.
    Withdrawn {
        /// Why.
        why: String,
    },
    /// The next hop took it. From unconfirmed this is the late confirmation, the only way out of a final outcome.
    Delivered {
        /// Who took it.
        by: String,
        /// The next hop will send further reports.
        dsn_passed_on: bool,
        /// In the mailbox, not a relay.
        is_final: bool,
    },
    /// A temporary failure: tried again after the wait of its level.
    Deferred {
        /// The other side's words.
        diagnostic: String,
    },
    /// A permanent failure.
    Failed {
        /// Why.
        status: Status,
        /// Who said so.
        remote: Option<String>,
        /// The other side's words, or ours.
        diagnostic: String,
    },
    /// Its life ended unsent.
    Expired,
    /// Its life ended after it was on the air, and nobody confirmed.
    Unconfirmed,
    /// An operator cancelled it.
    Cancelled,
    /// An operator or MINIMIZE holds it: due -> held.
    Held {
        /// What the operator is told.
        why: String,
    },
    /// Released: held -> due, at once.
    Released,
}

/// Whether the table allows `event` for a recipient in this state.
pub const fn allows(from: &RecipientState, event: &Event) -> bool {
    match from {
        RecipientState::Due { .. } => match event {
            Event::Frozen { .. }
            | Event::Delivered { .. }
            | Event::Deferred { .. }
            | Event::Failed { .. }
            | Event::Expired
            | Event::Cancelled
            | Event::Held { .. } => true,
            Event::Withdrawn { .. } | Event::Unconfirmed | Event::Released => false,
        },
        RecipientState::OnAir { .. } => match event {
            Event::Withdrawn { .. }
            | Event::Delivered { .. }
            | Event::Deferred { .. }
            | Event::Failed { .. }
            | Event::Expired
            | Event::Unconfirmed
            | Event::Cancelled => true,
            Event::Frozen { .. } | Event::Held { .. } | Event::Released => false,
        },
        RecipientState::Held { .. } => match event {
            Event::Released | Event::Expired | Event::Cancelled => true,
            Event::Frozen { .. }
            | Event::Withdrawn { .. }
            | Event::Delivered { .. }
            | Event::Deferred { .. }
            | Event::Failed { .. }
            | Event::Unconfirmed
            | Event::Held { .. } => false,
        },
        RecipientState::Final { outcome: Outcome::Unconfirmed, .. } => matches!(event, Event::Delivered { .. }),
        RecipientState::Final { .. } => false,
    }
}

/// A transition the table does not have: a fault of the caller, never of a peer. Nothing changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IllegalTransition {
    /// The message.
    pub message: MessageId,
    /// The recipient, by index.
    pub recipient: u32,
    /// What was tried; with the state it met.
    pub attempt: String,
}

impl fmt::Display for IllegalTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} recipient {}: {}", self.message, self.recipient, self.attempt)
    }
}

impl std::error::Error for IllegalTransition {}

/// What surrounds a result: the rules, and what the history shall say.
#[derive(Clone, PartialEq, Debug)]
pub struct Context<'a> {
    /// The rules of this node.
    pub policy: &'a Policy,
    /// Transfers of this message that stay in the store after the batch; a body is dropped only when there are none.
    pub live_transfers: usize,
    /// The bearer, for the history.
    pub bearer: Option<BearerId>,
    /// Bytes on the air so far, for the history.
    pub bytes_on_air: u64,
    /// Seconds of own emission so far, for the history.
    pub air_s: f64,
}

impl<'a> Context<'a> {
    /// A result that has nothing to do with the air.
    pub const fn plain(policy: &'a Policy) -> Self {
        Self { policy, live_transfers: 0, bearer: None, bytes_on_air: 0, air_s: 0.0 }
    }
}

/// What a call changed.
#[must_use]
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    /// The message as it is once the changes are durable.
    pub record: MessageRecord,
    /// To commit: the record, lines of history, and a body nothing refers to any more.
    pub changes: Vec<Change>,
    /// What the sender must be told, all recipients of this call in one report.
    pub report: Option<Report>,
    /// Recipients, by index, whose failure nobody can be told because the sender is `<>`: log them.
    pub unreportable: Vec<u32>,
}

/// Applies results, each to one recipient by index. All or nothing.
pub fn settle(
    now: Now,
    context: &Context<'_>,
    record: &MessageRecord,
    events: &[(u32, Event)],
) -> Result<Applied, IllegalTransition> {
    let mut work = Work::new(now, context, record);
    for (index, event) in events {
        work.apply(*index, event)?;
    }
    Ok(work.finish())
}

/// When [`wake`] next has work for this message; `None` when it is done.
pub fn next_wake(policy: &Policy, record: &MessageRecord) -> Option<Wall> {
    let mut wake = None::<Wall>;
    for r in record.recipients.iter().filter(|r| !r.state.is_final()) {
        let at = if r.delay_reported { record.envelope.expires } else { warn_at(policy, record) };
        let at = at.min(record.envelope.expires);
        wake = Some(wake.map_or(at, |w| w.min(at)));
    }
    wake
}

/// Acts on the clock: dates a message that was accepted without one, reports a delay once, and ends what has outlived itself.
/// `keyed` tells whether any of the message's payload has left the antenna: then a recipient on the air ends unconfirmed, not
/// expired. Without a set clock nothing happens (A7). `None` when there is nothing to do.
pub fn wake(now: Now, context: &Context<'_>, record: &MessageRecord, keyed: bool) -> Option<Applied> {
    if !now.set || record.recipients.iter().all(|r| r.state.is_final()) {
        return None;
    }
    let mut work = Work::new(now, context, record);
    let mut acted = false;
    if record.envelope.expires == Wall::NEVER {
        work.date();
        acted = true;
    }
    let expired = now.wall >= work.record.envelope.expires;
    let late = now.wall >= warn_at(context.policy, &work.record);
    for index in 0..work.record.recipients.len() {
        let Some(r) = work.record.recipients.get(index) else { continue };
        let event = match &r.state {
            RecipientState::Final { .. } => continue,
            RecipientState::OnAir { .. } if keyed => Event::Unconfirmed,
            RecipientState::OnAir { .. } | RecipientState::Due { .. } | RecipientState::Held { .. } => Event::Expired,
        };
        let delay_due = late && !r.delay_reported;
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if expired {
            acted |= work.apply(index, &event).is_ok();
        } else if delay_due {
            work.delayed(index);
            acted = true;
        }
    }
    acted.then(|| work.finish())
}

/// An operator holds what is due; what is on the air stays there.
pub fn hold(now: Now, policy: &Policy, record: &MessageRecord, why: &str) -> Option<Applied> {
    act(now, policy, record, &Event::Held { why: why.to_string() }, |state| matches!(state, RecipientState::Due { .. }))
}

/// An operator releases what is held.
pub fn release(now: Now, policy: &Policy, record: &MessageRecord) -> Option<Applied> {
    act(now, policy, record, &Event::Released, |state| matches!(state, RecipientState::Held { .. }))
}

/// An operator cancels whatever is not final. The switch withdraws the transfers; `live_transfers` counts those that stay.
pub fn cancel(now: Now, context: &Context<'_>, record: &MessageRecord) -> Option<Applied> {
    act_in(now, context, record, &Event::Cancelled, |state| !state.is_final())
}

/// An operator gives a message another level of service, and what is due another try at once. The number it carries on
/// (MT-PRIORITY) stays as it came.
pub fn expedite(now: Now, policy: &Policy, record: &MessageRecord, level: Precedence) -> Option<Applied> {
    let waits = |state: &RecipientState| matches!(state, RecipientState::Due { next_at } if *next_at > now.wall);
    if record.state == MessageState::Done
        || (record.precedence == level && !record.recipients.iter().any(|r| waits(&r.state)))
    {
        return None;
    }
    let context = Context::plain(policy);
    let mut work = Work::new(now, &context, record);
    work.record.precedence = level;
    for r in work.record.recipients.iter_mut().filter(|r| waits(&r.state)) {
        r.state = RecipientState::Due { next_at: now.wall };
    }
    work.track("expedited", None, Some(level.to_string()));
    Some(work.finish())
}

/// MINIMIZE (B6) for the recipients, by index, whose hop it concerns: below `minimum` what is due is held; at or above it, or
/// without a minimum, what MINIMIZE held goes on. What an operator holds stays held.
pub fn minimize(
    now: Now,
    policy: &Policy,
    record: &MessageRecord,
    recipients: &[u32],
    minimum: Option<Precedence>,
) -> Option<Applied> {
    let barred = minimum.is_some_and(|m| record.precedence < m);
    let events: Vec<_> = recipients
        .iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter_map(|i| {
            let state = &record.recipients.get(usize::try_from(*i).ok()?)?.state;
            match state {
                RecipientState::Due { .. } if barred => Some((*i, Event::Held { why: MINIMIZE.to_string() })),
                RecipientState::Held { why } if !barred && why == MINIMIZE => Some((*i, Event::Released)),
                RecipientState::Due { .. }
                | RecipientState::OnAir { .. }
                | RecipientState::Held { .. }
                | RecipientState::Final { .. } => None,
            }
        })
        .collect();
    if events.is_empty() {
        return None;
    }
    settle(now, &Context::plain(policy), record, &events).ok()
}

/// What drops a finished message whose keeping time has passed. Without a set clock nothing is purged (A7).
pub fn purge(now: Now, policy: &Policy, record: &MessageRecord) -> Option<Vec<Change>> {
    if !now.set || record.state != MessageState::Done {
        return None;
    }
    let mut last = record.accepted;
    for r in &record.recipients {
        let RecipientState::Final { at, .. } = &r.state else { return None };
        last = last.max(*at);
    }
    (now.wall >= last.plus(policy.keep_done)).then(|| vec![Change::DropMessage(record.id)])
}

/// The bodies of a finished message; for the batch that drops its last transfer. Empty while the message is not done.
pub fn unneeded_bodies(record: &MessageRecord) -> Vec<Change> {
    if record.state != MessageState::Done {
        return Vec::new();
    }
    let refs: BTreeSet<BodyRef> = record.recipients.iter().map(|r| r.body).collect();
    refs.into_iter().map(Change::DropBody).collect()
}

fn act(
    now: Now,
    policy: &Policy,
    record: &MessageRecord,
    event: &Event,
    concerns: impl Fn(&RecipientState) -> bool,
) -> Option<Applied> {
    act_in(now, &Context::plain(policy), record, event, concerns)
}

fn act_in(
    now: Now,
    context: &Context<'_>,
    record: &MessageRecord,
    event: &Event,
    concerns: impl Fn(&RecipientState) -> bool,
) -> Option<Applied> {
    let events: Vec<_> = (0_u32..)
        .zip(&record.recipients)
        .filter(|(_, r)| concerns(&r.state))
        .map(|(index, _)| (index, event.clone()))
        .collect();
    if events.is_empty() {
        return None;
    }
    settle(now, context, record, &events).ok()
}

/// When the delay of a message is reported: at the deadline the sender named with by-mode N, else at the age of its level.
fn warn_at(policy: &Policy, record: &MessageRecord) -> Wall {
    match record.envelope.deliver_by {
        Some(by) if by.mode == ByMode::Notify => by.deadline,
        Some(_) | None => record.accepted.plus(policy.retry.level(record.precedence).warn),
    }
}

struct Work<'a> {
    now: Now,
    context: &'a Context<'a>,
    record: MessageRecord,
    was_done: bool,
    tracks: Vec<Change>,
    lines: Vec<Line>,
    unreportable: Vec<u32>,
}

impl<'a> Work<'a> {
    fn new(now: Now, context: &'a Context<'a>, record: &MessageRecord) -> Self {
        Self {
            now,
            context,
            record: record.clone(),
            was_done: record.state == MessageState::Done,
            tracks: Vec::new(),
            lines: Vec::new(),
            unreportable: Vec::new(),
        }
    }

    fn apply(&mut self, index: u32, event: &Event) -> Result<(), IllegalTransition> {
        let (message, precedence, at) = (self.record.id, self.record.precedence, self.now.wall);
        let checking = self.record.state == MessageState::Checking;
        let illegal = |attempt: String| IllegalTransition { message, recipient: index, attempt };
        let Some(r) = usize::try_from(index).ok().and_then(|i| self.record.recipients.get_mut(i)) else {
            return Err(illegal("no such recipient".to_string()));
        };
        let unchecked = checking && !matches!(event, Event::Cancelled | Event::Held { .. } | Event::Expired);
        if unchecked || !allows(&r.state, event) {
            let state = if checking { "checking".to_string() } else { format!("{:?}", r.state) };
            return Err(illegal(format!("{event:?} in state {state}")));
        }
        let was_due = matches!(r.state, RecipientState::Due { .. });
        let was_relayed = matches!(
            r.state,
            RecipientState::OnAir { .. } | RecipientState::Final { outcome: Outcome::Unconfirmed, .. }
        );
        let finish = |outcome| RecipientState::Final { outcome, at };
        let mut attempted = false;
        let (state, word, detail) = match event {
            Event::Frozen { bearer } => {
                attempted = true;
                (RecipientState::OnAir { bearer: bearer.clone() }, "frozen", None)
            }
            Event::Withdrawn { why } => (RecipientState::Due { next_at: at }, "withdrawn", Some(why.clone())),
            Event::Delivered { by, dsn_passed_on, is_final } => {
                attempted = was_due;
                let outcome = Outcome::Delivered { by: by.clone(), dsn_passed_on: *dsn_passed_on, is_final: *is_final };
                (finish(outcome), if was_relayed { "confirmed" } else { "delivered" }, Some(by.clone()))
            }
            Event::Deferred { diagnostic } => {
                attempted = was_due;
                let attempts = r.attempts.saturating_add(u32::from(was_due));
                r.last_error = Some(diagnostic.clone());
                let next_at = at.plus(self.context.policy.retry.wait(precedence, attempts, message));
                (RecipientState::Due { next_at }, "deferred", Some(diagnostic.clone()))
            }
            Event::Failed { status, diagnostic, .. } => {
                attempted = was_due;
                let outcome = Outcome::Failed { status: *status, diagnostic: diagnostic.clone() };
                (finish(outcome), "failed", Some(format!("{status} {diagnostic}")))
            }
            Event::Expired => (finish(Outcome::Expired), "expired", None),
            Event::Unconfirmed => (finish(Outcome::Unconfirmed), "unconfirmed", None),
            Event::Cancelled => (finish(Outcome::Cancelled), "cancelled", None),
            Event::Held { why } => (RecipientState::Held { why: why.clone() }, "held", Some(why.clone())),
            Event::Released => (RecipientState::Due { next_at: at }, "released", None),
        };
        r.state = state;
        r.attempts = r.attempts.saturating_add(u32::from(attempted));
        self.track(word, Some(index), detail);
        self.report(index, event);
        Ok(())
    }

    /// Tells the sender once that this recipient has to wait.
    fn delayed(&mut self, index: u32) {
        let Some(r) = usize::try_from(index).ok().and_then(|i| self.record.recipients.get_mut(i)) else { return };
        r.delay_reported = true;
        let by_time = self.record.envelope.deliver_by.is_some_and(|by| by.mode == ByMode::Notify);
        let (status, words) = match &r.state {
            _ if by_time => (Status(4, 4, 7), Some("the deliver-by time has passed".to_string())),
            RecipientState::OnAir { .. } => (Status(4, 4, 1), Some("no acknowledgement yet".to_string())),
            RecipientState::Due { .. } | RecipientState::Held { .. } | RecipientState::Final { .. } => {
                (Status(4, 4, 1), r.last_error.clone())
            }
        };
        self.track("delay reported", Some(index), None);
        self.line(index, Action::Delayed, Cause::Waiting, status, None, words, None);
    }

    fn report(&mut self, index: u32, event: &Event) {
        let now = Some(self.now.wall);
        match event {
            Event::Delivered { by, is_final: true, .. } => {
                let remote = Some(by.clone());
                self.line(index, Action::Delivered, Cause::Taken, Status(2, 1, 5), remote, None, now);
            }
            Event::Delivered { by, dsn_passed_on, is_final: false } => {
                let trace = self.record.envelope.deliver_by.is_some_and(|d| d.trace);
                if !*dsn_passed_on || trace {
                    let remote = Some(by.clone());
                    self.line(index, Action::Relayed, Cause::Taken, Status(2, 4, 0), remote, None, now);
                }
            }
            Event::Failed { status, remote, diagnostic } => {
                let words = Some(diagnostic.clone());
                self.line(index, Action::Failed, Cause::Refused, *status, remote.clone(), words, now);
            }
            Event::Expired => {
                let words = self.last_error(index);
                self.line(index, Action::Failed, Cause::Expired, Status(5, 4, 7), None, words, None);
            }
            Event::Unconfirmed => {
                let words = Some("no acknowledgement, may have been delivered".to_string());
                self.line(index, Action::Failed, Cause::Unconfirmed, Status(5, 4, 7), None, words, None);
            }
            Event::Cancelled => {
                let words = Some("cancelled by an operator".to_string());
                self.line(index, Action::Failed, Cause::Cancelled, Status(5, 7, 1), None, words, None);
            }
            Event::Frozen { .. }
            | Event::Withdrawn { .. }
            | Event::Deferred { .. }
            | Event::Held { .. }
            | Event::Released => {}
        }
    }

    fn last_error(&self, index: u32) -> Option<String> {
        usize::try_from(index).ok().and_then(|i| self.record.recipients.get(i)).and_then(|r| r.last_error.clone())
    }

    #[expect(clippy::too_many_arguments, reason = "one argument per field of a report's line")]
    fn line(
        &mut self,
        index: u32,
        action: Action,
        cause: Cause,
        status: Status,
        remote: Option<String>,
        diagnostic: Option<String>,
        last_attempt: Option<Wall>,
    ) {
        let Some(to) = usize::try_from(index).ok().and_then(|i| self.record.envelope.recipients.get(i)) else { return };
        let traced = action == Action::Relayed && self.record.envelope.deliver_by.is_some_and(|d| d.trace);
        let wanted = dsn::wants(to.notify, action) || (traced && to.notify != Some(Notify::NEVER));
        if !wanted {
            return;
        }
        if self.record.envelope.from.is_none() {
            if action == Action::Failed {
                self.unreportable.push(index);
            }
            return;
        }
        self.lines.push(Line {
            address: to.address.clone(),
            orcpt: to.orcpt.clone(),
            action,
            cause,
            status,
            remote,
            diagnostic,
            last_attempt,
            retry_until: (action == Action::Delayed).then_some(self.record.envelope.expires),
        });
    }

    /// Gives a message that was accepted without a clock its dates: life and deadlines run from now.
    fn date(&mut self) {
        let (now, record) = (self.now.wall, &mut self.record);
        if !matches!(record.source, Source::Bearer { .. })
            && let Some(by) = &mut record.envelope.deliver_by
        {
            by.deadline = Wall(by.deadline.0.saturating_sub(record.accepted.0).saturating_add(now.0));
        }
        record.accepted = now;
        // Where it goes is not known here, so it gets the longer life, that of mail over the air.
        record.envelope.expires = lifetime(self.context.policy, record.precedence, true, &record.envelope, now);
        for r in &mut record.recipients {
            if matches!(r.state, RecipientState::Due { .. }) {
                r.state = RecipientState::Due { next_at: now };
            }
        }
        self.track("dated", None, None);
    }

    fn track(&mut self, word: &str, recipient: Option<u32>, detail: Option<String>) {
        let recipient = recipient
            .and_then(|i| self.record.envelope.recipients.get(usize::try_from(i).ok()?))
            .map(|r| r.address.to_string());
        let entry = TrackEntry {
            at: self.now.wall,
            event: word.to_string(),
            recipient,
            bearer: self.context.bearer.as_ref().map(ToString::to_string),
            bytes_on_air: self.context.bytes_on_air,
            air_s: self.context.air_s,
            detail,
        };
        self.tracks.push(Change::Track(self.record.id, entry));
    }

    fn finish(mut self) -> Applied {
        let state = state_of(&self.record);
        if self.record.state != MessageState::Checking || state == MessageState::Done {
            self.record.state = state;
        }
        let mut changes = vec![Change::Message(Box::new(self.record.clone()))];
        changes.append(&mut self.tracks);
        if !self.was_done && self.context.live_transfers == 0 {
            changes.extend(unneeded_bodies(&self.record));
        }
        let report = Report::about(&self.record, self.lines);
        Applied { record: self.record, changes, report, unreportable: self.unreportable }
    }
}
