//! What happens to a message after it was accepted: attempts, results, deadlines and the operator's hand.
//!
//! The switch calls [`settle`] or [`absorb`] with results, [`wake`] when a message's [`next_wake`] has come, and the operator's actions; each
//! takes a record by reference and gives the new one with the changes to commit, so that a failed commit leaves the old one standing.
//! A report that is due must become durable with its cause: load the subject, [`build`](super::dsn::build) it,
//! [`accept`](super::accept()) it, and commit both batches as one. Implements the state table of [`crate::queue`]; link-rules A4,
//! A5, A7, B6; RFC 2852 and RFC 3461 (which event is reported).

use std::collections::BTreeSet;
use std::fmt;

use super::accept::{Policy, lifetime, state_of};
use super::dsn::{self, Action, Cause, Line, Report};
use super::reason::Reason;
use super::record::{MessageRecord, MessageState, RecipientRecord, TrackEntry};
use super::store::Change;
use crate::mail::{
    BearerId, BodyRef, ByMode, MessageId, Notify, Outcome, Precedence, RecipientState, Release, Source, Status,
};
use crate::time::{Now, Wall};

/// Most bytes kept of another system's words.
const MAX_WORDS_BYTES: usize = 1000;

/// What an operator sees as the reason of mail held back by MINIMIZE; [`minimize`] releases only that.
pub const MINIMIZE: &str = "MINIMIZE: below the precedence now in force";

/// What an operator reads of a recipient whose copy went to a silent peer: its last words, until there are others.
pub const SENT: &str = "sent, not confirmed: the peer keeps silence";

/// Whether a recipient's copy went to a silent peer, and there is no word of it.
pub fn is_sent(recipient: &RecipientRecord) -> bool {
    matches!(recipient.state, RecipientState::OnAir { .. }) && recipient.last_error.as_ref() == Some(&SENT.into())
}

/// Something that happened to one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Its payload was frozen and handed to a bearer: due -> on air. Counts as an attempt.
    Frozen {
        /// Which bearer.
        bearer: BearerId,
        /// What was left out of it, in words; `None`: it is whole.
        reduced: Option<String>,
    },
    /// The transfer was given up without a result (other key, other epoch, operator): on air -> due, at once.
    Withdrawn {
        /// Why.
        why: String,
    },
    /// It was sent to a peer that keeps silence: on air, and nothing to wait for but word of it.
    Sent {
        /// Which window, in words.
        words: String,
    },
    /// The next hop took it. From unconfirmed this is the late confirmation, the only way out of a final outcome.
    Delivered {
        /// Who took it.
        by: String,
        /// The next hop will send further reports.
        dsn_passed_on: bool,
        /// The next hop knows the deliver-by time, and tells when it passes.
        time_passed_on: bool,
        /// In the mailbox, not a relay.
        is_final: bool,
    },
    /// A temporary failure: tried again after the wait of its level.
    Deferred {
        /// Why, in the other side's words or ours.
        diagnostic: Reason,
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
            Event::Withdrawn { .. } | Event::Sent { .. } | Event::Unconfirmed | Event::Released => false,
        },
        RecipientState::OnAir { .. } => match event {
            Event::Withdrawn { .. }
            | Event::Sent { .. }
            | Event::Delivered { .. }
            | Event::Deferred { .. }
            | Event::Failed { .. }
            | Event::Expired
            | Event::Unconfirmed
            | Event::Cancelled => true,
            Event::Frozen { .. } | Event::Held { .. } | Event::Released => false,
        },
        // Results of an attempt that was under way when the hold came are true all the same.
        RecipientState::Held { .. } => match event {
            Event::Delivered { .. }
            | Event::Deferred { .. }
            | Event::Failed { .. }
            | Event::Released
            | Event::Expired
            | Event::Cancelled => true,
            Event::Frozen { .. }
            | Event::Withdrawn { .. }
            | Event::Sent { .. }
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
    /// Failures the sender cannot be told because it is `<>`: for the postmaster ([`Report::for_postmaster`]).
    pub unreportable: Vec<Line>,
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

/// Applies results from outside, which may come when the message has moved on (an operator cancelled it, a radio repeats
/// itself): what the table allows is applied, the rest leaves a line in the history and changes nothing.
pub fn absorb(now: Now, context: &Context<'_>, record: &MessageRecord, events: &[(u32, Event)]) -> Applied {
    let mut work = Work::new(now, context, record);
    for (index, event) in events {
        if let Err(refused) = work.apply(*index, event) {
            work.track("too late", Some(*index), Some(refused.attempt));
        }
    }
    work.finish()
}

/// When [`wake`] next has work for this message; `None` when it is done.
pub fn next_wake(policy: &Policy, record: &MessageRecord) -> Option<Wall> {
    let mut wake = None::<Wall>;
    for (index, _) in record.recipients.iter().enumerate().filter(|(_, r)| !r.state.is_final()) {
        let at = if tells_of_delay(record, index) { warn_at(policy, record) } else { record.envelope.expires };
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
        let delay_due = late && tells_of_delay(&work.record, index);
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

/// What a recipient waits for whose sender wanted it so (RFC 4865).
pub fn until_release(release: Release) -> String {
    format!("until {}, as its sender asked", release.at.rfc3339_seconds())
}

/// The release a sender asked for has come, says the caller: what waits for it, and for nothing else, goes on.
pub fn let_go(now: Now, policy: &Policy, record: &MessageRecord) -> Option<Applied> {
    let why = until_release(record.release?);
    act(now, policy, record, &Event::Released, |state| matches!(state, RecipientState::Held { why: w } if *w == why))
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

/// The bodies of a finished message; for the batch that drops its last transfer. Empty while the message is not done, and where a
/// reduced copy went out: then the original stays until the record is purged.
pub fn unneeded_bodies(record: &MessageRecord) -> Vec<Change> {
    if record.state != MessageState::Done || !record.reduced.is_empty() {
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

/// Whether the sender is still to be told when a recipient has to wait for long. What was sent in silence is not late, word of it comes
/// when the silence ends: only whoever asked to hear of a delay hears of one.
fn tells_of_delay(record: &MessageRecord, index: usize) -> bool {
    let Some(r) = record.recipients.get(index) else { return false };
    let to = record.envelope.recipients.get(index);
    let asked = to.is_some_and(|to| to.notify.is_some_and(|n| n.delay))
        || record.envelope.deliver_by.is_some_and(|by| by.mode == ByMode::Notify);
    !r.delay_reported && (asked || !is_sent(r))
}

/// When the delay of a message is reported: at the deadline the sender named with by-mode N, else at the age of its level.
fn warn_at(policy: &Policy, record: &MessageRecord) -> Wall {
    match record.envelope.deliver_by {
        Some(by) if by.mode == ByMode::Notify => by.deadline,
        Some(_) | None => record.begun().plus(policy.retry.level(record.precedence).warn),
    }
}

fn clip(words: &str) -> String {
    let end = (0..=words.len().min(MAX_WORDS_BYTES)).rev().find(|at| words.is_char_boundary(*at));
    words.get(..end.unwrap_or(0)).unwrap_or_default().to_string()
}

struct Work<'a> {
    now: Now,
    context: &'a Context<'a>,
    record: MessageRecord,
    was_done: bool,
    tracks: Vec<Change>,
    lines: Vec<Line>,
    unreportable: Vec<Line>,
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
        // On the air the attempt was counted when the payload was frozen.
        let was_on_air = matches!(r.state, RecipientState::OnAir { .. } | RecipientState::Final { .. });
        let finish = |outcome| RecipientState::Final { outcome, at };
        let mut attempted = false;
        let (state, word, detail) = match event {
            Event::Frozen { bearer, .. } => {
                attempted = true;
                (RecipientState::OnAir { bearer: bearer.clone() }, "frozen", None)
            }
            Event::Withdrawn { why } => (RecipientState::Due { next_at: at }, "withdrawn", Some(why.clone())),
            Event::Sent { words } => {
                r.last_error = Some(SENT.into());
                (r.state.clone(), "sent-blind", Some(words.clone()))
            }
            Event::Delivered { by, dsn_passed_on, is_final, .. } => {
                attempted = !was_on_air;
                let outcome = Outcome::Delivered { by: by.clone(), dsn_passed_on: *dsn_passed_on, is_final: *is_final };
                (finish(outcome), if was_on_air { "confirmed" } else { "delivered" }, Some(by.clone()))
            }
            Event::Deferred { diagnostic } => {
                attempted = !was_on_air;
                let attempts = r.attempts.saturating_add(u32::from(!was_on_air));
                let diagnostic = diagnostic.clipped(MAX_WORDS_BYTES);
                r.last_error = Some(diagnostic.clone());
                let next_at = at.plus(self.context.policy.retry.wait(precedence, attempts, message));
                let state = match &r.state {
                    RecipientState::Held { why } => RecipientState::Held { why: why.clone() },
                    RecipientState::Due { .. } | RecipientState::OnAir { .. } | RecipientState::Final { .. } => {
                        RecipientState::Due { next_at }
                    }
                };
                (state, "deferred", Some(diagnostic.to_string()))
            }
            Event::Failed { status, diagnostic, .. } => {
                attempted = !was_on_air;
                let diagnostic = clip(diagnostic);
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
        if let Event::Frozen { reduced: Some(words), .. } = event {
            self.track("reduced", Some(index), Some(words.clone()));
            if !self.record.reduced.contains(&index) {
                self.record.reduced.push(index);
            }
        }
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
                let security = r.last_error.as_ref().and_then(|why| why.security(4));
                (security.unwrap_or(Status(4, 4, 1)), r.last_error.as_ref().map(ToString::to_string))
            }
        };
        self.track("delay reported", Some(index), None);
        self.line(index, Action::Delayed, Cause::Waiting, status, None, words, None, false);
    }

    fn report(&mut self, index: u32, event: &Event) {
        let now = Some(self.now.wall);
        match event {
            Event::Delivered { by, is_final: true, .. } => {
                let remote = Some(by.clone());
                self.line(index, Action::Delivered, Cause::Taken, Status(2, 1, 5), remote, None, now, false);
            }
            Event::Delivered { by, dsn_passed_on, time_passed_on, is_final: false } => {
                let told = self.time_tells_of_relay(*time_passed_on);
                if !*dsn_passed_on || told {
                    let remote = Some(by.clone());
                    self.line(index, Action::Relayed, Cause::Taken, Status(2, 4, 0), remote, None, now, told);
                }
            }
            Event::Failed { status, remote, diagnostic } => {
                let words = Some(diagnostic.clone());
                self.line(index, Action::Failed, Cause::Refused, *status, remote.clone(), words, now, false);
            }
            Event::Expired => {
                let why = self.last_error(index);
                let status = why.as_ref().and_then(|why| why.security(5)).unwrap_or(Status(5, 4, 7));
                let words = why.map(|why| why.to_string());
                self.line(index, Action::Failed, Cause::Expired, status, None, words, None, false);
            }
            Event::Unconfirmed => {
                let words = Some("no acknowledgement, may have been delivered".to_string());
                self.line(index, Action::Failed, Cause::Unconfirmed, Status(5, 4, 7), None, words, None, false);
            }
            Event::Cancelled => {
                let words = Some("cancelled by an operator".to_string());
                self.line(index, Action::Failed, Cause::Cancelled, Status(5, 7, 1), None, words, None, false);
            }
            Event::Frozen { .. }
            | Event::Withdrawn { .. }
            | Event::Sent { .. }
            | Event::Deferred { .. }
            | Event::Held { .. }
            | Event::Released => {}
        }
    }

    /// Whether a deliver-by time asks for a report of a relay, whatever NOTIFY says but NEVER: the sender wants to hear of each one, or
    /// hears here for the last time of a message that is in time and was to be told of when it no longer is (RFC 2852 4).
    fn time_tells_of_relay(&self, time_passed_on: bool) -> bool {
        let Some(by) = self.record.envelope.deliver_by else { return false };
        by.trace || by.mode == ByMode::Notify && !time_passed_on && self.now.wall < by.deadline
    }

    fn last_error(&self, index: u32) -> Option<Reason> {
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
        told: bool,
    ) {
        let Some(to) = usize::try_from(index).ok().and_then(|i| self.record.envelope.recipients.get(i)) else { return };
        if !dsn::wants(to.notify, action) && (!told || to.notify == Some(Notify::NEVER)) {
            return;
        }
        let lines = match (&self.record.envelope.from, action) {
            (Some(_), _) => &mut self.lines,
            (None, Action::Failed) => &mut self.unreportable,
            (None, _) => return,
        };
        lines.push(Line {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{DeliverBy, Envelope, LOCAL_MAILBOX, Mailbox, PeerName, Receipt, Recipient, Taken, TransferId};
    use crate::queue::record::RecipientRecord;
    use crate::queue::retry::Table;
    use crate::time::{Duration, Instant};

    #[test]
    fn a4_the_state_table_is_exactly_this() {
        // Events in the order of `events()`: frozen withdrawn sent delivered deferred failed expired unconfirmed cancelled held released
        for (state, row) in [
            (due(T0), "f..ddxx.xh."),
            (RecipientState::OnAir { bearer: "hf1".into() }, ".wsddxxxx.."),
            (RecipientState::Held { why: "x".into() }, "...ddxx.x.r"),
            (last(Outcome::Unconfirmed), "...d......."),
            (last(Outcome::Expired), "..........."),
            (last(Outcome::Cancelled), "..........."),
            (last(Outcome::Failed { status: Status(5, 0, 0), diagnostic: String::new() }), "..........."),
            (last(Outcome::Delivered { by: String::new(), dsn_passed_on: false, is_final: true }), "..........."),
        ] {
            for (event, mark) in events().into_iter().zip(row.chars()) {
                assert_eq!(allows(&state, &event), mark != '.', "{event:?} in {state:?}");
                let mut r = record(1);
                r.recipients[0].state = state.clone();
                let result = settle(now(0), &Context::plain(&policy()), &r, &[(0, event.clone())]);
                assert_eq!(result.is_ok(), mark != '.', "{event:?} in {state:?}");
            }
        }
    }

    #[test]
    fn what_was_sent_in_silence_is_not_late_but_for_who_asked_and_still_ends_unconfirmed() {
        for asked in [false, true] {
            let mut r = record(1);
            r.envelope.recipients[0].notify = asked.then_some(Notify { delay: true, ..Notify::NEVER });
            let r = apply(0, &r, 0, Event::Frozen { bearer: "hf1".into(), reduced: None }).record;
            let r = apply(1, &r, 0, Event::Sent { words: "window 1 of 2".into() }).record;
            assert!(is_sent(&r.recipients[0]));
            let warn = POLICY.retry.level(r.precedence).warn.as_secs();
            let woken = wake(now(warn + 1), &Context::plain(&POLICY), &r, true);
            assert_eq!(woken.is_some_and(|a| a.report.is_some()), asked);
            let ends = r.envelope.expires;
            assert!(asked || next_wake(&POLICY, &r) == Some(ends), "it still ends");
            let at = Now { wall: ends, ..now(0) };
            let ended = wake(at, &Context::plain(&POLICY), &r, true).expect("its life is over").record;
            assert!(matches!(ended.recipients[0].state, RecipientState::Final { outcome: Outcome::Unconfirmed, .. }));
        }
    }

    #[test]
    fn one_illegal_event_leaves_all_unapplied() {
        let r = record(2);
        let error = settle(now(0), &Context::plain(&policy()), &r, &[(0, Event::Expired), (1, Event::Released)]);
        assert_eq!(error.map_err(|e| e.recipient).err(), Some(1));
        assert!(settle(now(0), &Context::plain(&policy()), &r, &[(2, Event::Expired)]).is_err());
    }

    #[test]
    fn what_comes_too_late_is_written_down_and_changes_nothing() {
        let gone = cancel(now(0), &Context::plain(&POLICY), &record(1)).expect("cancelled").record;
        let late = absorb(now(1), &Context::plain(&POLICY), &gone, &[(0, delivered(false, false)), (9, failed())]);
        assert_eq!((&late.record, &late.report), (&gone, &None));
        assert_eq!(
            late.changes.iter().filter(|c| matches!(c, Change::Track(_, t) if t.event == "too late")).count(),
            2
        );
    }

    #[test]
    fn a_hold_does_not_hide_the_result_of_the_attempt_under_way() {
        let held = hold(now(0), &POLICY, &record(2), "wait").expect("held").record;
        let events = [(0, delivered(false, false)), (1, Event::Deferred { diagnostic: "451".into() })];
        let after = settle(now(1), &Context::plain(&POLICY), &held, &events).expect("legal").record;
        assert!(after.recipients[0].state.is_final());
        assert_eq!(after.recipients[1].state, RecipientState::Held { why: "wait".into() });
        assert_eq!(after.state, MessageState::Held);
    }

    #[test]
    fn a_temporary_failure_waits_by_the_table_and_counts_attempts() {
        let mut r = record(1);
        r.precedence = Precedence::Immediate;
        let mut at = 0;
        for (attempt, wait) in [(1, 60), (2, 120), (3, 240), (4, 300), (5, 300)] {
            r = apply(at, &r, 0, Event::Deferred { diagnostic: "451 later".into() }).record;
            assert_eq!(r.recipients[0].attempts, attempt);
            at += wait;
            assert_eq!(r.recipients[0].state, due(T0.plus(Duration::from_secs(at))));
        }
        assert_eq!(r.recipients[0].last_error, Some("451 later".into()));
        assert_eq!(r.state, MessageState::Queued);
    }

    #[test]
    fn what_could_not_go_unprotected_says_so_at_the_end_of_its_life() {
        for (diagnostic, words, status) in [
            (Reason::new(Status(4, 7, 10), "TLS is required".into()), "4.7.10 TLS is required", Status(5, 7, 10)),
            (Reason::new(Status(4, 7, 5), "its certificate".into()), "4.7.5 its certificate", Status(5, 7, 5)),
            ("451 4.7.1 says the peer".into(), "451 4.7.1 says the peer", Status(5, 4, 7)),
            ("connection lost".into(), "connection lost", Status(5, 4, 7)),
        ] {
            let r = apply(0, &record(1), 0, Event::Deferred { diagnostic }).record;
            let ended = apply(9, &r, 0, Event::Expired);
            let line = &ended.report.expect("a report").lines[0];
            assert_eq!((line.status, line.diagnostic.as_deref()), (status, Some(words)), "{words}");
        }
    }

    #[test]
    fn long_words_are_clipped_at_a_letter() {
        let diagnostic = format!("a{}", "ä".repeat(5000)).into();
        let r = apply(0, &record(1), 0, Event::Deferred { diagnostic }).record;
        assert_eq!(r.recipients[0].last_error.as_ref().map(|why| why.to_string().len()), Some(999));
    }

    #[test]
    fn a_transfer_counts_as_one_attempt() {
        let r = apply(0, &record(1), 0, Event::Frozen { bearer: "hf1".into(), reduced: None }).record;
        let r = apply(9, &r, 0, Event::Deferred { diagnostic: "peer has no room".into() }).record;
        assert_eq!(r.recipients[0].attempts, 1);
    }

    #[test]
    fn the_last_outcome_ends_the_message_and_drops_its_body() {
        let r = record(2);
        let first = apply(0, &r, 0, delivered(false, true));
        assert_eq!(first.record.state, MessageState::Queued);
        assert!(!drops_body(&first));
        let second = apply(1, &first.record, 1, failed());
        assert_eq!(second.record.state, MessageState::Done);
        assert!(drops_body(&second));
        let context = Context { live_transfers: 1, ..Context::plain(&POLICY) };
        let kept = settle(now(1), &context, &first.record, &[(1, failed())]).expect("legal");
        assert!(!drops_body(&kept), "a transfer still refers to the message");
        assert_eq!(unneeded_bodies(&kept.record), [Change::DropBody(BodyRef(9))]);
        assert_eq!(unneeded_bodies(&first.record), []);
    }

    #[test]
    fn a4_a_late_confirmation_is_kept_and_drops_nothing_twice() {
        let r = apply(0, &record(1), 0, Event::Frozen { bearer: "hf1".into(), reduced: None }).record;
        let r = apply(1, &r, 0, Event::Unconfirmed).record;
        assert_eq!(r.state, MessageState::Done);
        let late = apply(2, &r, 0, delivered(true, false));
        assert!(matches!(
            late.record.recipients[0].state,
            RecipientState::Final { outcome: Outcome::Delivered { .. }, .. }
        ));
        assert!(!drops_body(&late));
        assert!(late.changes.iter().any(|c| matches!(c, Change::Track(_, t) if t.event == "confirmed")));
        assert!(settle(now(3), &Context::plain(&POLICY), &late.record, &[(0, delivered(true, false))]).is_err());
    }

    #[test]
    fn reports_follow_notify_and_carry_all_recipients_at_once() {
        let n = |success, failure| Some(Notify { success, failure, delay: false });
        let mut r = record(4);
        r.envelope.recipients[1].notify = n(true, false);
        r.envelope.recipients[2].notify = n(false, true);
        r.envelope.recipients[3].notify = Some(Notify::NEVER);
        let all = |event: &Event| {
            let events: Vec<_> = (0..4).map(|i| (i, event.clone())).collect();
            let applied = settle(now(0), &Context::plain(&POLICY), &r, &events).expect("legal");
            applied
                .report
                .map_or(vec![], |r| r.lines.iter().map(|l| (l.address.local().to_string(), l.action)).collect())
        };
        let lines = |who: &[&str], action| who.iter().map(|w| ((*w).to_string(), action)).collect::<Vec<_>>();
        assert_eq!(all(&failed()), lines(&["r0", "r2"], Action::Failed));
        assert_eq!(all(&delivered(false, true)), lines(&["r1"], Action::Delivered));
        assert_eq!(all(&delivered(false, false)), lines(&["r1"], Action::Relayed));
        assert_eq!(all(&delivered(true, false)), [], "the next hop reports");
        assert_eq!(all(&Event::Deferred { diagnostic: "451".into() }), []);
    }

    #[test]
    fn the_trace_flag_asks_for_a_relayed_report_at_every_hop() {
        let mut r = record(2);
        r.envelope.recipients[1].notify = Some(Notify::NEVER);
        r.envelope.deliver_by = Some(DeliverBy { deadline: T0.plus(HOUR), mode: ByMode::Notify, trace: true });
        let events = [(0, delivered(true, false)), (1, delivered(true, false))];
        let report = settle(now(0), &Context::plain(&POLICY), &r, &events).expect("legal").report.expect("a report");
        assert_eq!(report.lines.iter().map(|l| l.action).collect::<Vec<_>>(), [Action::Relayed]);
    }

    #[test]
    fn a_sender_hears_of_a_relay_to_a_hop_that_will_not_tell_when_it_is_late() {
        let success = Notify { success: true, ..Notify::NEVER };
        for (mode, time_passed_on, seconds, told) in [
            (ByMode::Notify, false, 0, true),
            (ByMode::Notify, true, 0, false),
            // Its time has passed: that is told as a delay.
            (ByMode::Notify, false, 3600, false),
            (ByMode::Return, false, 0, false),
        ] {
            for dsn_passed_on in [true, false] {
                let mut r = record(4);
                r.envelope.recipients[1].notify = Some(Notify::NEVER);
                r.envelope.recipients[2].notify = Some(Notify { failure: true, ..Notify::NEVER });
                r.envelope.recipients[3].notify = Some(success);
                r.envelope.deliver_by = Some(DeliverBy { deadline: T0.plus(HOUR), mode, trace: false });
                let taken =
                    Event::Delivered { by: "mx.example".into(), dsn_passed_on, time_passed_on, is_final: false };
                let events: Vec<_> = (0..4).map(|i| (i, taken.clone())).collect();
                let report = settle(now(seconds), &Context::plain(&POLICY), &r, &events).expect("legal").report;
                let lines = report.map_or(Vec::new(), |r| r.lines);
                let who: Vec<_> = lines.iter().map(|l| l.address.local()).collect();
                let want: &[&str] = match (told, dsn_passed_on) {
                    (true, _) => &["r0", "r2", "r3"],
                    (false, false) => &["r3"],
                    (false, true) => &[],
                };
                assert_eq!(who, want, "{mode:?} {time_passed_on} {seconds} {dsn_passed_on}");
                assert!(lines.iter().all(|l| l.action == Action::Relayed && l.status == Status(2, 4, 0)));
            }
        }
    }

    #[test]
    fn nobody_reports_to_the_null_sender() {
        let mut r = record(4);
        r.envelope.from = None;
        r.envelope.recipients[2].notify = Some(Notify { success: true, failure: true, delay: true });
        r.envelope.recipients[3].notify = Some(Notify::NEVER);
        let events = [(0, failed()), (1, Event::Expired), (2, delivered(false, false)), (3, failed())];
        let applied = settle(now(0), &Context::plain(&POLICY), &r, &events).expect("ok");
        assert_eq!(applied.report, None);
        let who: Vec<_> = applied.unreportable.iter().map(|line| (line.address.local(), line.status)).collect();
        assert_eq!(who, [("r0", Status(5, 1, 1)), ("r1", Status(5, 4, 7))], "NEVER is never");
        let late = wake(now(4 * 3600), &Context::plain(&POLICY), &record(1), false).expect("a delay");
        assert!(late.unreportable.is_empty());
    }

    #[test]
    fn delay_is_reported_once_and_expiry_ends_it() {
        let r = record(2);
        let context = Context::plain(&POLICY);
        assert_eq!(next_wake(&POLICY, &r), Some(T0.plus(4 * HOUR)));
        assert!(wake(now(4 * 3600 - 1), &context, &r, false).is_none());
        let late = wake(now(4 * 3600), &context, &r, false).expect("the delay");
        let report = late.report.expect("a report");
        assert_eq!(report.lines.len(), 2);
        assert!(report.lines.iter().all(|l| l.action == Action::Delayed && l.status == Status(4, 4, 1)));
        assert_eq!(report.lines[0].retry_until, Some(r.envelope.expires));
        assert!(wake(now(5 * 3600), &context, &late.record, false).is_none(), "once is enough");
        assert_eq!(next_wake(&POLICY, &late.record), Some(r.envelope.expires));
        let end = wake(now(5 * 86_400), &context, &late.record, false).expect("the end");
        assert_eq!(end.record.state, MessageState::Done);
        assert_eq!(end.report.expect("a report").lines[0].status, Status(5, 4, 7));
        assert!(wake(now(6 * 86_400), &context, &end.record, false).is_none());
        assert_eq!(next_wake(&POLICY, &end.record), None);
    }

    #[test]
    fn what_was_on_the_air_ends_unconfirmed_and_says_so() {
        let r = apply(0, &record(1), 0, Event::Frozen { bearer: "hf1".into(), reduced: None }).record;
        let end = wake(now(5 * 86_400), &Context::plain(&POLICY), &r, true).expect("the end");
        assert_eq!(
            end.record.recipients[0].state,
            RecipientState::Final { outcome: Outcome::Unconfirmed, at: now(5 * 86_400).wall }
        );
        let line = &end.report.expect("a report").lines[0];
        assert_eq!((line.action, line.cause, line.status), (Action::Failed, Cause::Unconfirmed, Status(5, 4, 7)));
        let never_keyed = wake(now(5 * 86_400), &Context::plain(&POLICY), &r, false).expect("the end");
        assert!(matches!(
            never_keyed.record.recipients[0].state,
            RecipientState::Final { outcome: Outcome::Expired, .. }
        ));
    }

    #[test]
    fn a_deadline_that_notifies_reports_and_goes_on() {
        let mut r = record(1);
        r.envelope.deliver_by = Some(DeliverBy { deadline: T0.plus(HOUR), mode: ByMode::Notify, trace: false });
        let late = wake(now(3600), &Context::plain(&POLICY), &r, false).expect("the deadline");
        assert_eq!(late.report.expect("a report").lines[0].status, Status(4, 4, 7));
        assert_eq!(late.record.state, MessageState::Queued);
    }

    #[test]
    fn a7_nothing_ends_while_the_clock_is_not_set() {
        let unset = Now { set: false, ..now(100 * 86_400) };
        assert!(wake(unset, &Context::plain(&POLICY), &record(1), false).is_none());
        let done = apply(0, &record(1), 0, failed()).record;
        assert_eq!(purge(unset, &POLICY, &done), None);
        assert_eq!(purge(now(6 * 86_400), &POLICY, &done), None, "kept for track");
        assert_eq!(purge(now(7 * 86_400), &POLICY, &done), Some(vec![Change::DropMessage(MessageId(3))]));
        assert_eq!(purge(now(100 * 86_400), &POLICY, &record(1)), None, "never while it waits");
    }

    #[test]
    fn a_box_that_boots_in_1970_dates_its_mail_when_gps_comes() {
        let boot = Wall::from_seconds(60);
        let mut r = record(1);
        r.accepted = boot;
        r.recipients[0].state = due(boot);
        r.envelope.expires = Wall::NEVER;
        r.envelope.deliver_by = Some(DeliverBy { deadline: boot.plus(2 * HOUR), mode: ByMode::Return, trace: false });
        let dated = wake(now(0), &Context::plain(&POLICY), &r, false).expect("dated");
        assert_eq!(dated.record.accepted, T0);
        assert_eq!(dated.record.envelope.expires, T0.plus(2 * HOUR));
        assert_eq!(dated.record.state, MessageState::Queued);
        assert_eq!(dated.report, None, "no delay is claimed from a clock that was wrong");
    }

    #[test]
    fn the_operator_holds_releases_expedites_and_cancels() {
        let held = hold(now(0), &POLICY, &record(2), "ask the captain").expect("held").record;
        assert_eq!(held.state, MessageState::Held);
        assert!(hold(now(0), &POLICY, &held, "again").is_none());
        let free = release(now(5), &POLICY, &held).expect("released").record;
        assert_eq!((free.state, &free.recipients[0].state), (MessageState::Queued, &due(now(5).wall)));

        let waiting = apply(0, &record(1), 0, Event::Deferred { diagnostic: "451".into() }).record;
        let fast = expedite(now(5), &POLICY, &waiting, Precedence::Flash).expect("expedited").record;
        assert_eq!((fast.precedence, &fast.recipients[0].state), (Precedence::Flash, &due(now(5).wall)));
        assert!(expedite(now(5), &POLICY, &fast, Precedence::Flash).is_none());

        let gone = cancel(now(9), &Context::plain(&POLICY), &held).expect("cancelled");
        assert_eq!(gone.record.state, MessageState::Done);
        assert!(drops_body(&gone));
        assert!(cancel(now(9), &Context::plain(&POLICY), &gone.record).is_none());
        assert!(expedite(now(9), &POLICY, &gone.record, Precedence::Flash).is_none());
    }

    #[test]
    fn b6_minimize_holds_what_is_below_and_releases_only_its_own() {
        let r = record(3);
        let level = Some(Precedence::Immediate);
        let held = minimize(now(0), &POLICY, &r, &[0, 1, 1, 7], level).expect("held").record;
        assert!(matches!(&held.recipients[1].state, RecipientState::Held { why } if why == MINIMIZE));
        assert_eq!(held.recipients[2].state, due(T0), "another hop is not concerned");
        assert!(minimize(now(0), &POLICY, &held, &[0, 1], level).is_none());
        let operator = hold(now(1), &POLICY, &held, "ask the captain").expect("held").record;
        let free = minimize(now(2), &POLICY, &operator, &[0, 1, 2], None).expect("released").record;
        assert_eq!(free.recipients[0].state, due(now(2).wall));
        assert!(matches!(&free.recipients[2].state, RecipientState::Held { why } if why != MINIMIZE));
        let raised = expedite(now(3), &POLICY, &held, Precedence::Flash).expect("raised").record;
        let free = minimize(now(3), &POLICY, &raised, &[0, 1], level).expect("released").record;
        assert_eq!(free.recipients[0].state, due(now(3).wall));
    }

    #[test]
    fn mail_under_check_waits() {
        let mut r = record(1);
        r.state = MessageState::Checking;
        assert!(settle(now(0), &Context::plain(&POLICY), &r, &[(0, delivered(false, true))]).is_err());
        let gone = cancel(now(0), &Context::plain(&POLICY), &r).expect("cancelled").record;
        assert_eq!(gone.state, MessageState::Done);
    }

    const T0: Wall = Wall::from_seconds(1_795_431_600);
    const HOUR: Duration = Duration::from_secs(3600);
    static POLICY: std::sync::LazyLock<Policy> = std::sync::LazyLock::new(policy);

    fn policy() -> Policy {
        Policy { retry: Table::shipped(), default: Precedence::Routine, mmhs: true, keep_done: 7 * 24 * HOUR }
    }

    fn now(seconds: u64) -> Now {
        Now { at: Instant::ZERO, wall: T0.plus(Duration::from_secs(seconds)), set: true }
    }

    fn due(next_at: Wall) -> RecipientState {
        RecipientState::Due { next_at }
    }

    fn last(outcome: Outcome) -> RecipientState {
        RecipientState::Final { outcome, at: T0 }
    }

    fn delivered(dsn_passed_on: bool, is_final: bool) -> Event {
        Event::Delivered { by: "mx.example".into(), dsn_passed_on, time_passed_on: dsn_passed_on, is_final }
    }

    fn failed() -> Event {
        Event::Failed { status: Status(5, 1, 1), remote: None, diagnostic: "550 no".into() }
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Frozen { bearer: "hf1".into(), reduced: None },
            Event::Withdrawn { why: String::new() },
            Event::Sent { words: String::new() },
            delivered(false, true),
            Event::Deferred { diagnostic: "".into() },
            failed(),
            Event::Expired,
            Event::Unconfirmed,
            Event::Cancelled,
            Event::Held { why: String::new() },
            Event::Released,
        ]
    }

    #[test]
    fn what_a_neighbour_can_build_of_a_receipt_is_told_as_one_and_nothing_else_is() {
        let success = Some(Notify { success: true, failure: true, delay: true });
        let transfer = TransferId { origin: PeerName::from("ship"), epoch: 7, counter: 9 };
        let source = Source::Bearer { peer: PeerName::from("ship"), transfer: transfer.clone(), hops: Vec::new() };
        let mut over_air = MessageRecord { source, accepted: Receipt::time(5), ..record(4) };
        over_air.envelope.recipients.iter_mut().take(3).for_each(|r| r.notify = success);
        // The same address twice: each stands for itself.
        over_air.envelope.recipients[2].address = over_air.envelope.recipients[1].address.clone();
        let now = Now { wall: Wall(Receipt::time(6).0 + 59_999), ..now(0) };
        let told = |events: &[(u32, Event)]| {
            let applied = settle(now, &Context::plain(&POLICY), &over_air, events).expect("legal");
            applied.report.map(|report| report.source)
        };
        let taken = |by: &str, is_final| Event::Delivered {
            by: by.into(),
            dsn_passed_on: false,
            time_passed_on: false,
            is_final,
        };
        let receipt = |recipient, relayed, by: &str| {
            let status = if relayed { Taken::RELAYED } else { Taken::DELIVERED };
            Receipt { recipient, taken: Taken { relayed, status, by: Some(by.into()) }, at: Receipt::time(6) }
        };
        let receipts =
            |receipts| Some(Source::Receipts { peer: PeerName::from("ship"), transfer: transfer.clone(), receipts });
        assert_eq!(
            told(&[(0, taken(LOCAL_MAILBOX, true)), (1, taken("mx.example", false)), (2, taken("mx.example", false))]),
            receipts(vec![
                receipt(0, false, LOCAL_MAILBOX),
                receipt(1, true, "mx.example"),
                receipt(2, true, "mx.example")
            ])
        );
        assert_eq!(told(&[(3, taken(LOCAL_MAILBOX, true))]), None, "nobody asked");
        assert_eq!(told(&[(0, taken("two words", false))]), Some(Source::Switch));
        let failed = Event::Failed { status: Status(5, 1, 1), remote: None, diagnostic: "no".into() };
        assert_eq!(told(&[(0, failed.clone())]), Some(Source::Switch));
        assert_eq!(told(&[(0, failed), (1, taken(LOCAL_MAILBOX, true))]), Some(Source::Switch), "all of it or nothing");
        let from_here = record(1);
        let applied = apply(1, &from_here, 0, Event::Cancelled);
        assert_eq!(applied.report.map(|report| report.source), Some(Source::Switch));
    }

    fn apply(seconds: u64, record: &MessageRecord, index: u32, event: Event) -> Applied {
        settle(now(seconds), &Context::plain(&POLICY), record, &[(index, event)]).expect("legal")
    }

    fn drops_body(applied: &Applied) -> bool {
        applied.changes.contains(&Change::DropBody(BodyRef(9)))
    }

    fn record(recipients: usize) -> MessageRecord {
        MessageRecord {
            id: MessageId(3),
            parent: None,
            envelope: Envelope::plain(
                Some(Mailbox::new("ops@ship.example")),
                (0..recipients).map(|i| Recipient::plain(Mailbox::new(format!("r{i}@x.example")))).collect(),
                T0.plus(5 * 24 * HOUR),
            ),
            precedence: Precedence::Routine,
            source: Source::Smtp { listener: "relay".into(), address: None, user: None },
            state: MessageState::Queued,
            recipients: (0..recipients)
                .map(|_| RecipientRecord {
                    state: due(T0),
                    body: BodyRef(9),
                    attempts: 0,
                    last_error: None,
                    delay_reported: false,
                })
                .collect(),
            message_id: None,
            size_bytes: 10,
            accepted: T0,
            lease: None,
            reduced: Vec::new(),
            release: None,
            tracking: None,
            expanded: false,
        }
    }
}
