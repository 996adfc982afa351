//! A part that was held back goes after its message: an operator asks for it by its number.
//!
//! The original is kept as long as its record. The part becomes a message of its own to whoever got the reduced copy, from the same
//! sender and at the same level, and enters by the same door as everything ([`accept`](crate::queue::accept())); that, and the line in the
//! history of the original, are one commit. Asked for twice it goes twice.

use std::sync::Arc;

use crate::mail::Precedence;
use crate::mail::{Envelope, MessageId, Recipient, Source, Submission};
use crate::ops::{self, Event, Response};
use crate::queue::accept::{self, Authority};
use crate::queue::{Batch, Change, CommitError, MessageRecord, StoreCall, TrackEntry};
use crate::time::{Now, Wall};

use super::{Fetch, Output, Pending, RequestId, StoreState, Switch, Work};

/// A part somebody wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) message: MessageId,
    pub(super) part: u32,
    pub(super) reply: RequestId,
    pub(super) author: String,
}

impl Switch {
    /// Looks for the message a part is wanted of.
    pub(super) fn fetch(&mut self, wanted: Wanted) {
        match self.active.record(wanted.message).cloned() {
            Some(record) => self.fetch_from(wanted, Some(Box::new(record))),
            None => {
                let call = StoreCall::Load(wanted.message);
                self.work(Work::Store(call), Pending::FetchRecord { wanted });
            }
        }
    }

    fn fetch_refused(&mut self, wanted: &Wanted, why: impl Into<String>) {
        self.outputs.push_back(Output::Reply { id: wanted.reply, response: Response::refused(why) });
    }

    pub(super) fn fetch_from(&mut self, wanted: Wanted, record: Option<Box<MessageRecord>>) {
        let Some(record) = record else {
            let why = format!("no message {} at this node", wanted.message);
            return self.fetch_refused(&wanted, why);
        };
        let reduced = record.reduced.iter().find_map(|i| record.recipients.get(usize::try_from(*i).ok()?));
        match reduced.map(|r| r.body) {
            Some(body) => {
                self.work(Work::Store(StoreCall::Read(body, 0, u64::MAX)), Pending::FetchBody { wanted, record });
            }
            None => self.fetch_refused(&wanted, "nothing was held back of this message"),
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
            Err(error) => return self.fetch_refused(&wanted, format!("the original could not be read: {error}")),
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
            Err(why) => return self.fetch_refused(&wanted, why),
        };
        let of = |i: &u32| record.envelope.recipients.get(usize::try_from(*i).ok()?);
        let recipients: Vec<Recipient> =
            record.reduced.iter().filter_map(of).map(|r| Recipient::plain(r.address.clone())).collect();
        let envelope = Envelope {
            recipients,
            envid: None,
            ret: None,
            deliver_by: None,
            expires: Wall::NEVER,
            ..record.envelope.clone()
        };
        let decisions = self.decisions(&envelope, None);
        let subject = body.clone();
        let submission = Submission { envelope, precedence: record.precedence, source: Source::Switch, body };
        let authority = Authority { trusted: true, ceiling: Precedence::Override };
        let accepted = accept::accept(now, &self.policy, authority, &mut self.ids, submission, decisions);
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(why) => return self.fetch_refused(&wanted, why.to_string()),
        };
        let line = TrackEntry {
            at: now.wall,
            event: "fetched".into(),
            recipient: None,
            bearer: None,
            bytes_on_air: 0,
            air_s: 0.0,
            detail: Some(format!("part {} goes as {}, wanted by {}", wanted.part, accepted.id, wanted.author)),
        };
        let (mut batch, records) = self.with_report(now, accepted, &subject);
        batch.changes.push(Change::Track(record.id, line));
        let ids = self.ids_in(&batch);
        self.commit(batch, Pending::Fetched { wanted, records, ids });
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
            return self.fetch_refused(wanted, format!("the part was not sent: {error}"));
        }
        self.ids.committed(ids);
        self.store = StoreState::Healthy;
        if let Some(first) = records.first() {
            let (message, author) = (first.id, wanted.author.clone());
            self.event(Event::PartFetched { message, of: wanted.message, part: wanted.part, author });
            let response = ops::read::action("fetch", first);
            self.outputs.push_back(Output::Reply { id: wanted.reply, response });
        }
        self.accepted(now, records);
    }
}
