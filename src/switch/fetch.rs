//! A part that was held back goes after its message: an operator asks for it by its number, or whoever got the reduced copy, by mail.
//!
//! The original is kept as long as its record. The part becomes a message of its own from the same sender and at the same level, and
//! enters by the same door as everything ([`accept`](crate::queue::accept())); that, and the line in the history of the original, are one
//! commit. For an operator it goes to all who got the reduced copy.
//!
//! Who asks by mail writes to the address that the note in the copy names. That mail is a message like any other, and its recipient is this
//! node: what it asks for becomes durable with its end, so a request that power interrupts is granted once. It is believed from the
//! neighbour that the copy went to alone, and grants the part to the one recipient that asks. Asked for twice a part goes twice.

use std::sync::Arc;

use crate::codec::reduce;
use crate::config::Plan;
use crate::mail::{Envelope, Hop, Mailbox, MessageId, Precedence, Recipient, Source, Status, Submission, Terms};
use crate::ops::{self, Event, Response};
use crate::queue::accept::Authority;
use crate::queue::expand;
use crate::queue::outcome;
use crate::queue::schedule::Job;
use crate::queue::{Batch, Change, CommitError, MessageRecord, StoreCall, TrackEntry};
use crate::time::{Now, Wall};

use super::settle::{AirNote, Step};
use super::{Fetch, Output, Pending, RequestId, StoreState, Switch, Work};

/// A part somebody wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) message: MessageId,
    pub(super) part: u32,
    pub(super) by: By,
}

/// Who wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// An operator here.
    Operator { reply: RequestId, author: String },
    /// A recipient of the reduced copy, with the message that this job serves.
    Mail { job: Job, requester: Mailbox },
}

/// A part that goes to whoever asked for it by mail.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    submission: Submission,
    of: MessageId,
    part: u32,
    requester: Mailbox,
}

/// This node as the next hop of a request.
const HERE: Hop = Hop::Fetch;

/// The message and the part of it that mail to this address asks for.
pub(super) fn asked_part(plan: &Plan, to: &Mailbox) -> Option<(MessageId, u32)> {
    let here = to.domain().eq_ignore_ascii_case(plan.node.postmaster.domain());
    let asked = reduce::asked(to.local()).filter(|_| here)?;
    plan.reduce.iter().any(|r| r.fetch_by_mail).then_some(asked)
}

impl Switch {
    /// Where an address leads: to what its route says, or to this node, if it asks for a part.
    pub(super) fn hop(&self, to: &Mailbox) -> Option<Hop> {
        match asked_part(&self.plan, to) {
            Some(_) => Some(HERE),
            None => self.plan.directory.hop(to),
        }
    }

    /// A message asks for a part of another.
    pub(super) fn fetch_for(&mut self, now: Now, job: Job) {
        let Some(record) = self.active.record(job.message) else { return };
        let index = job.recipients.first().and_then(|i| usize::try_from(*i).ok());
        let to = index.and_then(|i| record.envelope.recipients.get(i)).map(|r| &r.address);
        match (to.and_then(|to| asked_part(&self.plan, to)), record.envelope.from.clone()) {
            (Some((message, part)), Some(requester)) => {
                self.fetch(now, Wanted { message, part, by: By::Mail { job, requester } });
            }
            _ => {
                let failed = failed("only who got a reduced message may ask for its parts");
                self.job_result(now, &job, vec![failed], AirNote::default(), None);
            }
        }
    }

    /// Looks for the message a part is wanted of.
    pub(super) fn fetch(&mut self, now: Now, wanted: Wanted) {
        match self.active.record(wanted.message).cloned() {
            Some(record) => self.fetch_from(now, wanted, Some(Box::new(record))),
            None => {
                let call = StoreCall::Load(wanted.message);
                self.work(Work::Store(call), Pending::FetchRecord { wanted });
            }
        }
    }

    fn fetch_refused(&mut self, now: Now, wanted: &Wanted, why: impl Into<String>) {
        match &wanted.by {
            By::Operator { reply, .. } => {
                self.outputs.push_back(Output::Reply { id: *reply, response: Response::refused(why) });
            }
            By::Mail { job, .. } => {
                self.job_result(now, job, vec![failed(why)], AirNote::default(), None);
            }
        }
    }

    /// The store would not: an operator is told, a request waits for its next attempt.
    fn fetch_failed(&mut self, now: Now, wanted: &Wanted, why: String) {
        match &wanted.by {
            By::Operator { .. } => self.fetch_refused(now, wanted, why),
            By::Mail { job, .. } => self.job_failed(now, job, &why),
        }
    }

    /// Recipients, by index, who get the part.
    fn fetchers(&self, wanted: &Wanted, record: &MessageRecord) -> Vec<u32> {
        let reduced = record.reduced.iter().copied();
        let By::Mail { job, requester } = &wanted.by else { return reduced.collect() };
        let Some(Source::Bearer { peer, .. }) = self.active.record(job.message).map(|r| &r.source) else {
            return Vec::new();
        };
        let asks = |i: &u32| {
            let recipient = usize::try_from(*i).ok().and_then(|i| record.envelope.recipients.get(i));
            recipient.is_some_and(|r| {
                let same = r.address.local() == requester.local()
                    && r.address.domain().eq_ignore_ascii_case(requester.domain());
                same && self.hop(&self.resolve(&r.address)) == Some(Hop::Peer(peer.clone()))
            })
        };
        reduced.filter(asks).take(1).collect()
    }

    pub(super) fn fetch_from(&mut self, now: Now, wanted: Wanted, record: Option<Box<MessageRecord>>) {
        let by_mail = matches!(wanted.by, By::Mail { .. });
        // Whoever may not ask does not learn what there is.
        let refusal = format!("no part {} of a message {} is kept here for you", wanted.part, wanted.message);
        let Some(record) = record else {
            let why = if by_mail { refusal } else { format!("no message {} at this node", wanted.message) };
            return self.fetch_refused(now, &wanted, why);
        };
        let first = self.fetchers(&wanted, &record).first().and_then(|i| usize::try_from(*i).ok());
        match first.and_then(|i| record.recipients.get(i)).map(|r| r.body) {
            Some(body) => {
                self.work(Work::Store(StoreCall::Read(body, 0, u64::MAX)), Pending::FetchBody { wanted, record });
            }
            None if by_mail => self.fetch_refused(now, &wanted, refusal),
            None => self.fetch_refused(now, &wanted, "nothing was held back of this message"),
        }
    }

    pub(super) fn fetch_body(
        &mut self,
        now: Now,
        wanted: Wanted,
        record: Box<MessageRecord>,
        body: Result<Arc<[u8]>, CommitError>,
    ) {
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.fetch_failed(now, &wanted, format!("the original could not be read: {error}")),
        };
        let (part, host) = (wanted.part, &self.plan.node.hostname);
        let message_id = format!("{:x}.{}.{part}@{host}", now.wall.0, wanted.message);
        let sender = self.plan.node.postmaster.to_string();
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        let fetch = Fetch { body, part, sender, message_id, at: now.wall };
        self.work(Work::Fetch(Box::new(fetch)), Pending::FetchPart { wanted, record });
    }

    pub(super) fn fetched(&mut self, now: Now, wanted: Wanted, record: &MessageRecord, part: Result<Vec<u8>, String>) {
        let body: Arc<[u8]> = match part {
            Ok(part) => part.into(),
            Err(why) => return self.fetch_refused(now, &wanted, why),
        };
        let of = |i: u32| record.envelope.recipients.get(usize::try_from(i).ok()?);
        let recipients: Vec<Recipient> = self
            .fetchers(&wanted, record)
            .into_iter()
            .filter_map(of)
            .map(|r| Recipient::plain(r.address.clone()))
            .collect();
        let envelope = Envelope {
            recipients,
            envid: None,
            ret: None,
            deliver_by: None,
            expires: Wall::NEVER,
            ..record.envelope.clone()
        };
        let submission = Submission { envelope, precedence: record.precedence, source: Source::Switch, body };
        match &wanted.by {
            By::Operator { .. } => self.fetch_for_operator(now, wanted, submission),
            By::Mail { job, requester } => {
                let (of, part, requester) = (record.id, wanted.part, requester.clone());
                let events = job.recipients.iter().map(|i| (*i, done())).collect();
                let sends = Some(Box::new(Granted { submission, of, part, requester }));
                let step = Step::Events { events, air: AirNote::default(), ended: None, job: Some(HERE), sends };
                self.step(now, job.message, step);
            }
        }
    }

    fn fetch_for_operator(&mut self, now: Now, wanted: Wanted, submission: Submission) {
        let By::Operator { author, .. } = &wanted.by else { return };
        let mut batch = Batch::default();
        let records = match self.part_accepted(now, submission, wanted.message, wanted.part, author, &mut batch) {
            Ok(records) => records,
            Err(why) => return self.fetch_refused(now, &wanted, why),
        };
        let ids = self.ids_in(&batch);
        self.commit(batch, Pending::Fetched { wanted, records, ids });
    }

    /// The part as a message, with what it adds to a commit.
    fn part_accepted(
        &mut self,
        now: Now,
        submission: Submission,
        of: MessageId,
        part: u32,
        author: &str,
        batch: &mut Batch,
    ) -> Result<Vec<MessageRecord>, String> {
        // Its recipients are whom the aliases led to, when the original was taken.
        let expansion = self.as_they_stand(&submission.envelope);
        let subject = submission.body.clone();
        let authority = Authority { trusted: true, ceiling: Precedence::Override };
        let terms = Terms::default();
        let entered = expand::accept_all(now, &self.policy, authority, &mut self.ids, submission, expansion, &terms)
            .map_err(|why| why.to_string())?;
        let goes_as = entered.records.iter().map(|r| r.id.to_string()).collect::<Vec<_>>().join(", ");
        let line = TrackEntry {
            at: now.wall,
            event: "fetched".into(),
            recipient: None,
            bearer: None,
            bytes_on_air: 0,
            air_s: 0.0,
            detail: Some(format!("part {part} goes as {goes_as}, wanted by {author}")),
        };
        let (own, records) = self.with_reports(now, entered, &subject);
        batch.append(own);
        batch.changes.push(Change::Track(of, line));
        Ok(records)
    }

    /// Adds the part that was asked for to the commit that ends its request.
    pub(super) fn grant(&mut self, now: Now, granted: &Granted, batch: &mut Batch) -> Vec<MessageRecord> {
        let (submission, author) = (granted.submission.clone(), granted.requester.to_string());
        match self.part_accepted(now, submission, granted.of, granted.part, &author, batch) {
            Ok(records) => records,
            Err(why) => {
                tracing::warn!(%why, of = %granted.of, "a part was not sent");
                Vec::new()
            }
        }
    }

    /// That commit came back.
    pub(super) fn granted(&mut self, now: Now, granted: &Granted, records: Vec<MessageRecord>) {
        if let Some(first) = records.first() {
            let (message, of, part, author) = (first.id, granted.of, granted.part, granted.requester.to_string());
            self.event(Event::PartFetched { message, of, part, author });
        }
        self.accepted(now, records);
    }

    pub(super) fn fetch_stored(
        &mut self,
        now: Now,
        wanted: &Wanted,
        records: Vec<MessageRecord>,
        ids: &Batch,
        stored: Result<(), CommitError>,
    ) {
        if let Err(error) = stored {
            self.commit_failed(&error);
            return self.fetch_failed(now, wanted, format!("the part was not sent: {error}"));
        }
        self.ids.committed(ids);
        self.store = StoreState::Healthy;
        if let (Some(first), By::Operator { reply, author }) = (records.first(), &wanted.by) {
            let (message, author) = (first.id, author.clone());
            self.event(Event::PartFetched { message, of: wanted.message, part: wanted.part, author });
            let response = ops::read::action("fetch", first);
            self.outputs.push_back(Output::Reply { id: *reply, response });
        }
        self.accepted(now, records);
    }
}

/// A request that was granted.
fn done() -> outcome::Event {
    outcome::Event::Delivered { by: "this node".into(), dsn_passed_on: false, time_passed_on: false, is_final: true }
}

/// One that was not.
fn failed(why: impl Into<String>) -> outcome::Event {
    outcome::Event::Failed { status: Status(5, 7, 1), remote: None, diagnostic: why.into() }
}
