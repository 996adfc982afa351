//! Receipts as digest, at the node that sent the mail: what reports will need is kept, and reports are built of what a peer tells
//! (`docs/codec.md`, "Receipts").
//!
//! When a message that asks for receipts is frozen for a peer, what a report needs of it (envelope, header, dates) is kept as a
//! setting in the same commit. A digest names transfers; the reports are built from what was kept and enter the queue in one commit
//! with the digest's duplicate key and a note of the recipients they tell of, so a receipt that comes twice, by whatever transfers,
//! is told once. A digest that speaks of what is not known here any more is refused, and its reports come as they are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::bearer::Verdict;
use crate::codec::receipts::{Digest, Told};
use crate::mail::{BearerId, Envelope, Mailbox, MessageId, PeerName, Precedence, Receipt, Source, TransferId, header};
use crate::ops;
use crate::queue::dsn::{self, Action, Line, Report, Teller};
use crate::queue::schedule::Job;
use crate::queue::{Batch, Change, Condition, LONGEST_LIFE, SeenKey, TrackEntry, TransferRecord, UNDATED};
use crate::time::{Duration, Now, Wall};

use super::{Pending, Switch};

/// Reason number in reports to the sending station: a digest speaks of a message that is not known here.
const REFUSED_UNKNOWN_MESSAGE: u8 = 5;
/// Messages of which receipts are awaited at most; beyond, the one that would go first goes.
const MOST_AWAITED: usize = 4096;
/// Most bytes of a message's header that are kept for them.
const MOST_HEADER_BYTES: usize = 4096;
/// What the names of such settings begin with.
const PREFIX: &str = "receipts/";
/// Digests are remembered as long as any message lives, and this much longer.
const SEEN_MARGIN: Duration = Duration::from_secs(86_400);

/// The messages of which peers may tell, and digests that came.
#[derive(Debug, Default)]
pub(super) struct Awaiting {
    messages: BTreeMap<String, Awaited>,
    /// Digests that wait for the one being made durable.
    arrived: VecDeque<Arrived>,
    storing: bool,
}

/// A digest that was opened.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) bearer: BearerId,
    pub(super) ticket: u64,
    pub(super) from: PeerName,
    pub(super) id: TransferId,
    pub(super) digest: Digest,
}

/// A message of which a peer may tell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Awaited {
    message: MessageId,
    /// As it crossed the air: its recipients are those the peer took.
    envelope: Envelope,
    precedence: Precedence,
    accepted: Wall,
    size_bytes: u64,
    /// Where it came from, and which of its recipients these are there.
    source: Source,
    places: Vec<u32>,
    header: Vec<u8>,
    /// Recipients that were told of, by their places there.
    told: BTreeSet<u32>,
    /// Until when it is kept; [`UNDATED`] while civil time is not known.
    until: Wall,
}

impl Awaited {
    /// The recipient a receipt speaks of, as the message has it here, where its sender wants to hear of it.
    fn place(&self, receipt: &Receipt) -> Option<u32> {
        let at = usize::try_from(receipt.recipient).ok()?;
        let wanted = self.envelope.recipients.get(at).is_some_and(|r| dsn::wants(r.notify, Action::Delivered));
        self.places.get(at).copied().filter(|_| wanted)
    }
}

impl Awaiting {
    pub(super) fn open(settings: &[(String, Vec<u8>)]) -> Self {
        let mut awaiting = Self::default();
        settings.iter().for_each(|(name, value)| awaiting.stored(name, Some(value)));
        awaiting
    }

    /// A setting is durable, or gone.
    fn stored(&mut self, name: &str, value: Option<&[u8]>) {
        match value.map(postcard::from_bytes::<Awaited>) {
            _ if !name.starts_with(PREFIX) => {}
            Some(Ok(awaited)) => _ = self.messages.insert(name.to_owned(), awaited),
            Some(Err(_)) => {}
            None => _ = self.messages.remove(name),
        }
    }

    /// Whether a recipient of a message was told of, by whatever transfer it went.
    fn is_told(&self, message: MessageId, place: u32) -> bool {
        self.messages.values().any(|a| a.message == message && a.told.contains(&place))
    }
}

fn key(peer: &PeerName, epoch: u32, counter: u32) -> String {
    format!("{PREFIX}{peer}/{epoch:08x}.{counter:08x}")
}

impl Switch {
    /// A payload is being made: what receipts of it will need is ready when it is frozen.
    pub(super) fn await_receipts(&mut self, now: Now, peer: &PeerName, number: &TransferId, job: &Job, body: &[u8]) {
        let Some(record) = self.active.record(job.message) else { return };
        let envelope = super::dispatch::limited(record, job);
        let asked = envelope.recipients.iter().any(|r| dsn::wants(r.notify, Action::Delivered));
        if !asked || envelope.from.is_none() {
            return;
        }
        let end = header::fields(body).map(|f| f.raw.end).take_while(|at| *at <= MOST_HEADER_BYTES).last();
        let mut head = body.get(..end.unwrap_or(0)).unwrap_or_default().to_vec();
        head.extend_from_slice(b"\r\n");
        let awaited = Awaited {
            message: record.id,
            until: if now.set { self.awaited_until(now, envelope.expires) } else { UNDATED },
            envelope,
            precedence: record.precedence,
            accepted: record.accepted,
            size_bytes: record.size_bytes,
            // Whoever handed it over counts other recipients.
            source: if record.expanded { Source::Switch } else { record.source.clone() },
            places: job.recipients.clone(),
            header: head,
            told: BTreeSet::new(),
        };
        self.awaited.messages.insert(key(peer, number.epoch, number.counter), awaited);
    }

    fn awaited_until(&self, now: Now, expires: Wall) -> Wall {
        expires.min(now.wall.plus(LONGEST_LIFE)).plus(self.plan.limits.keep_done)
    }

    /// What is to be stored with frozen transfers.
    pub(super) fn awaited_changes(&self, transfers: &[(TransferRecord, PeerName)]) -> Vec<Change> {
        let name = |(t, peer): &(TransferRecord, PeerName)| key(peer, t.id.epoch, t.lead.unwrap_or(t.id.counter));
        let stored = |name: String| {
            let value = postcard::to_stdvec(self.awaited.messages.get(&name)?).ok()?;
            Some(Change::Setting(name, Some(value)))
        };
        transfers.iter().map(name).filter_map(stored).collect()
    }

    /// Forgets of whom no receipt can come any more, and what is too much. What was kept without a clock is dated.
    pub(super) fn purge_awaited(&mut self, now: Now) {
        if self.awaited.storing {
            // What is being stored is not seen yet; the next round finds it.
            return;
        }
        let mut changes = Vec::new();
        let undated = self.awaited.messages.iter().filter(|(_, a)| a.until == UNDATED).map(|(name, _)| name.clone());
        for name in undated.collect::<Vec<_>>() {
            let until = self.awaited_until(now, Wall::NEVER);
            let Some(awaited) = self.awaited.messages.get_mut(&name) else { continue };
            awaited.until = until;
            changes.extend(postcard::to_stdvec(awaited).ok().map(|value| Change::Setting(name, Some(value))));
        }
        let mut order: Vec<(Wall, &String)> = self.awaited.messages.iter().map(|(name, a)| (a.until, name)).collect();
        order.sort();
        let excess = order.len().saturating_sub(MOST_AWAITED);
        let over = order.iter().enumerate().filter(|(i, (until, _))| *i < excess || *until <= now.wall);
        let over: Vec<String> = over.map(|(_, (_, name))| (*name).clone()).collect();
        over.iter().for_each(|name| _ = self.awaited.messages.remove(name));
        changes.extend(over.into_iter().map(|name| Change::Setting(name, None)));
        if !changes.is_empty() {
            self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
        }
    }

    /// A digest was opened. One at a time is made durable: the next is read against what it leaves.
    pub(super) fn digest_opened(&mut self, now: Now, arrived: Arrived) {
        self.awaited.arrived.push_back(arrived);
        self.next_digest(now);
    }

    /// The commit of a digest came back: what it stored, where it succeeded.
    pub(super) fn digest_stored(&mut self, now: Now, stored: Option<&Batch>) {
        self.awaited.storing = false;
        for change in stored.into_iter().flat_map(|batch| &batch.changes) {
            if let Change::Setting(name, value) = change {
                self.awaited.stored(name, value.as_deref());
            }
        }
        self.next_digest(now);
    }

    fn next_digest(&mut self, now: Now) {
        while !self.awaited.storing
            && let Some(arrived) = self.awaited.arrived.pop_front()
        {
            self.take_digest(now, arrived);
        }
    }

    fn take_digest(&mut self, now: Now, arrived: Arrived) {
        let Arrived { bearer, ticket, from, id, digest } = arrived;
        let mut reports: BTreeMap<(u32, Wall), Vec<Receipt>> = BTreeMap::new();
        let mut changed: BTreeMap<u32, Awaited> = BTreeMap::new();
        for Told { counter, receipt } in digest.told {
            let known = self.awaited.messages.get(&key(&from, digest.epoch, counter));
            let at = usize::try_from(receipt.recipient).unwrap_or(usize::MAX);
            let Some(known) = known.filter(|a| a.envelope.recipients.len() > at) else {
                tracing::info!(peer = %from, transfer = %id, "receipts of a message not known here: refused, to come as reports");
                return self.settle(now, &bearer, ticket, Verdict::Refused(REFUSED_UNKNOWN_MESSAGE));
            };
            let Some(place) = known.place(&receipt) else { continue };
            let told = self.awaited.is_told(known.message, place)
                || changed.values().any(|a| a.message == known.message && a.told.contains(&place));
            if !told {
                changed.entry(counter).or_insert_with(|| known.clone()).told.insert(place);
                reports.entry((counter, receipt.at)).or_default().push(receipt);
            }
        }
        let until = if now.set { now.wall.plus(LONGEST_LIFE).plus(SEEN_MARGIN) } else { UNDATED };
        let seen = SeenKey::Transfer(id);
        let mut batch =
            Batch { conditions: vec![Condition::SeenAbsent(seen.clone())], changes: vec![Change::Seen(seen, until)] };
        let mut records = Vec::new();
        for ((counter, at), receipts) in reports {
            let Some(awaited) = changed.get(&counter) else { continue };
            let report = report(&from, counter, awaited, &receipts);
            let submission = dsn::build(Now { wall: at, ..now }, &self.reporter, &report, &awaited.header);
            let Some(own) = self.accept_own(now, submission) else { continue };
            batch.append(own.batch);
            if let Some(first) = own.records.first() {
                batch.changes.push(Change::Track(awaited.message, track(now, &bearer, &from, first.id)));
                self.event(ops::Event::ReportQueued { message: first.id, about: awaited.message });
            }
            records.extend(own.records);
        }
        let mut ids = self.ids_in(&batch);
        for (counter, awaited) in &changed {
            if let Ok(value) = postcard::to_stdvec(awaited) {
                let change = Change::Setting(key(&from, digest.epoch, *counter), Some(value));
                ids.changes.push(change.clone());
                batch.changes.push(change);
            }
        }
        self.awaited.storing = true;
        self.commit(batch, Pending::AcceptReceipts { bearer, ticket, records, ids });
    }
}

/// The report that a peer made, from what is known here.
fn report(from: &PeerName, counter: u32, awaited: &Awaited, receipts: &[Receipt]) -> Report {
    let envelope = &awaited.envelope;
    let index = |receipt: &Receipt| usize::try_from(receipt.recipient).unwrap_or(usize::MAX);
    let lines = receipts.iter().filter_map(|r| Some(Line::taken(envelope.recipients.get(index(r))?, r)));
    let source = match &awaited.source {
        Source::Bearer { peer, transfer, .. } => {
            let place = |r: &Receipt| Some(Receipt { recipient: *awaited.places.get(index(r))?, ..r.clone() });
            let receipts = receipts.iter().filter_map(place).collect();
            Source::Receipts { peer: peer.clone(), transfer: transfer.clone(), receipts }
        }
        Source::Smtp { .. } | Source::Switch | Source::Receipts { .. } => Source::Switch,
    };
    let first = receipts.first().map_or(0, |r| r.recipient);
    Report {
        message: awaited.message,
        to: envelope.from.clone().unwrap_or_else(|| Mailbox::new("")),
        for_postmaster: false,
        received_from: None,
        envid: envelope.envid.clone(),
        ret: envelope.ret,
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        require_tls: envelope.require_tls,
        precedence: awaited.precedence,
        mt_priority: envelope.mt_priority,
        deliver_by: envelope.deliver_by,
        arrival: awaited.accepted,
        release: None,
        size_bytes: awaited.size_bytes,
        lines: lines.collect(),
        source,
        teller: Some(Teller { peer: from.clone(), reference: format!("{counter:x}.{first:x}.{from}") }),
    }
}

fn track(now: Now, bearer: &BearerId, from: &PeerName, report: MessageId) -> TrackEntry {
    TrackEntry {
        at: now.wall,
        event: "receipt".to_owned(),
        recipient: None,
        bearer: Some(bearer.to_string()),
        bytes_on_air: 0,
        air_s: 0.0,
        detail: Some(format!("{from} says it is delivered; report {report}")),
    }
}
