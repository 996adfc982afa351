//! Receipts as digest: reports that a peer can build itself cross the air as a few bytes (`docs/codec.md`, "Receipts").
//!
//! At the node that sends mail: when a message that asks for receipts is frozen for a peer, what a report needs of it (envelope,
//! header, dates) is kept as a setting in the same commit. A digest names transfers; the reports are built from what was kept and
//! enter the queue in one commit with the digest's duplicate key and a note of the recipients they tell of, so a receipt that comes
//! twice, by whatever transfers, is told once. What is not known here any more is refused, and comes as reports.
//!
//! At the node that reports: all such reports that wait for a peer go in one transfer. It is the transfer of the first of them; the
//! jobs of the others stay under way without being frozen, so that a crash or a withdrawn transfer finds them due. A refusal sends
//! them all as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bearer::Verdict;
use crate::codec::receipts::{self, Digest, Told};
use crate::mail::{
    BearerId, Envelope, Hop, LinkKey, MessageId, PeerName, Precedence, Receipt, Reliance, Source, TransferId, header,
};
use crate::ops;
use crate::queue::dsn::{self, Action, Cause, Line, Report, Teller};
use crate::queue::outcome::Event;
use crate::queue::schedule::Job;
use crate::queue::{
    Batch, Change, Condition, LONGEST_LIFE, MessageRecord, SeenKey, TrackEntry, TransferRecord, UNDATED,
};
use crate::security;
use crate::time::{Duration, Now, Wall};

use super::settle::{AirNote, Step};
use super::{Pending, Switch};

/// Reason number in reports to the sending station: a digest speaks of a message that is not known here.
const REFUSED_UNKNOWN_MESSAGE: u8 = 5;
/// Messages of which receipts are awaited at most; beyond, the one that would go first goes at once.
const MOST_AWAITED: usize = 4096;
/// Most bytes of a message's header that are kept for them.
const MOST_HEADER_BYTES: usize = 4096;
/// What the names of such settings begin with.
const PREFIX: &str = "receipts/";
/// Digests are remembered as long as any message lives, and this much longer.
const SEEN_MARGIN: Duration = Duration::from_secs(86_400);

/// What is known of receipts, awaited and on their way.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    awaited: BTreeMap<String, Awaited>,
    /// Jobs whose receipts travel in a transfer of another message.
    along: BTreeMap<TransferId, Vec<Job>>,
    /// Reports that a peer would not build.
    verbatim: BTreeSet<MessageId>,
    /// A digest is being made durable.
    storing: bool,
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
    /// Recipients that were told of.
    told: BTreeSet<u32>,
    until: Wall,
}

impl Receipts {
    pub(super) fn open(settings: &[(String, Vec<u8>)]) -> Self {
        let mut receipts = Self::default();
        settings.iter().for_each(|(name, value)| receipts.stored(name, Some(value)));
        receipts
    }

    /// A setting is durable, or gone.
    fn stored(&mut self, name: &str, value: Option<&[u8]>) {
        match value.map(postcard::from_bytes::<Awaited>) {
            _ if !is_key(name) => {}
            Some(Ok(awaited)) => _ = self.awaited.insert(name.to_owned(), awaited),
            Some(Err(_)) => {}
            None => _ = self.awaited.remove(name),
        }
    }
}

/// Whether a setting of this name is kept here.
pub(super) fn is_key(name: &str) -> bool {
    name.starts_with(PREFIX)
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
        let life = if envelope.expires == Wall::NEVER { now.wall.plus(LONGEST_LIFE) } else { envelope.expires };
        let end = header::fields(body).map(|f| f.raw.end).take_while(|at| *at <= MOST_HEADER_BYTES).last();
        let mut head = body.get(..end.unwrap_or(0)).unwrap_or_default().to_vec();
        head.extend_from_slice(b"\r\n");
        let awaited = Awaited {
            message: record.id,
            envelope,
            precedence: record.precedence,
            accepted: record.accepted,
            size_bytes: record.size_bytes,
            source: record.source.clone(),
            places: job.recipients.clone(),
            header: head,
            told: BTreeSet::new(),
            until: life.plus(self.plan.limits.keep_done),
        };
        self.receipts.awaited.insert(key(peer, number.epoch, number.counter), awaited);
    }

    /// What is to be stored with frozen transfers.
    pub(super) fn awaited_changes(&self, transfers: &[(TransferRecord, PeerName)]) -> Vec<Change> {
        let name = |(t, peer): &(TransferRecord, PeerName)| key(peer, t.id.epoch, t.lead.unwrap_or(t.id.counter));
        let stored = |name: String| {
            let value = postcard::to_stdvec(self.receipts.awaited.get(&name)?).ok()?;
            Some(Change::Setting(name, Some(value)))
        };
        transfers.iter().map(name).filter_map(stored).collect()
    }

    /// Forgets of whom no receipt can come any more, and what is too much.
    pub(super) fn purge_awaited(&mut self, now: Now) {
        let awaited = &self.receipts.awaited;
        let mut order: Vec<(Wall, &String)> = awaited.iter().map(|(name, a)| (a.until, name)).collect();
        order.sort();
        let excess = order.len().saturating_sub(MOST_AWAITED);
        let over = order.iter().enumerate().filter(|(i, (until, _))| *i < excess || *until <= now.wall);
        let over: Vec<String> = over.map(|(_, (_, name))| (*name).clone()).collect();
        if !over.is_empty() {
            over.iter().for_each(|name| _ = self.receipts.awaited.remove(name));
            let changes = over.into_iter().map(|name| Change::Setting(name, None)).collect();
            self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
        }
    }

    /// A digest was opened.
    pub(super) fn receipts_opened(
        &mut self,
        now: Now,
        bearer: &BearerId,
        ticket: u64,
        from: &PeerName,
        id: &TransferId,
        digest: &Digest,
    ) {
        if self.receipts.storing {
            return self.settle(now, bearer, ticket, Verdict::Later);
        }
        let mut reports: BTreeMap<(u32, Wall), Vec<Receipt>> = BTreeMap::new();
        let mut changed: BTreeMap<u32, Awaited> = BTreeMap::new();
        for Told { counter, receipt } in &digest.told {
            let name = key(from, digest.epoch, *counter);
            let place = usize::try_from(receipt.recipient).unwrap_or(usize::MAX);
            let known = changed.get(counter).or_else(|| self.receipts.awaited.get(&name));
            let Some(known) = known.filter(|a| a.envelope.recipients.len() > place) else {
                tracing::info!(peer = %from, transfer = %id, "receipts of a message not known here: asked for as reports");
                return self.settle(now, bearer, ticket, Verdict::Refused(REFUSED_UNKNOWN_MESSAGE));
            };
            if !known.told.contains(&receipt.recipient) {
                let mut known = known.clone();
                known.told.insert(receipt.recipient);
                changed.insert(*counter, known);
                reports.entry((*counter, receipt.at)).or_default().push(*receipt);
            }
        }
        let until = if now.set { now.wall.plus(LONGEST_LIFE).plus(SEEN_MARGIN) } else { UNDATED };
        let seen = SeenKey::Transfer(id.clone());
        let mut batch =
            Batch { conditions: vec![Condition::SeenAbsent(seen.clone())], changes: vec![Change::Seen(seen, until)] };
        let mut records = Vec::new();
        for ((counter, at), receipts) in reports {
            let Some(awaited) = changed.get(&counter) else { continue };
            let told = Now { wall: at, ..now };
            let report = report(from, counter, awaited, &receipts);
            let submission = dsn::build(told, &self.reporter, &report, &awaited.header);
            let Some(own) = self.accept_own(now, submission) else { continue };
            batch.append(own.batch);
            batch.changes.push(Change::Track(awaited.message, track(now, bearer, from, own.record.id)));
            self.event(ops::Event::ReportQueued { message: own.record.id, about: awaited.message });
            records.push(own.record);
        }
        let mut ids = self.ids_in(&batch);
        for (counter, awaited) in &changed {
            if let Ok(value) = postcard::to_stdvec(awaited) {
                let change = Change::Setting(key(from, digest.epoch, *counter), Some(value));
                ids.changes.push(change.clone());
                batch.changes.push(change);
            }
        }
        self.receipts.storing = true;
        self.commit(batch, Pending::AcceptReceipts { bearer: bearer.clone(), ticket, records, ids });
    }

    /// The commit of a digest came back.
    pub(super) fn receipts_stored(&mut self, stored: Option<&Batch>) {
        self.receipts.storing = false;
        self.awaited_stored(stored.map_or(&[], |batch| &batch.changes));
    }

    /// Settings became durable.
    pub(super) fn awaited_stored(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Setting(name, value) = change {
                self.receipts.stored(name, value.as_deref());
            }
        }
    }

    /// How many jobs towards a peer are under way without a transfer of their own.
    pub(super) fn receipts_along(&self, peer: &PeerName) -> usize {
        let towards = |jobs: &&Vec<Job>| jobs.first().is_some_and(|job| job.hop == Hop::Peer(peer.clone()));
        self.receipts.along.values().filter(towards).map(Vec::len).sum()
    }

    /// The store epoch under which a report's subject crossed the air, where the report goes as receipts.
    pub(super) fn goes_as_receipts(&self, job: &Job) -> Option<u32> {
        let Source::Receipts { peer, transfer, receipts } = &self.active.record(job.message)?.source else {
            return None;
        };
        let back = job.hop == Hop::Peer(peer.clone()) && receipts.len() <= receipts::MOST;
        let read = self.repertoire_for(peer, job.message).reads_receipts();
        (back && read && !self.receipts.verbatim.contains(&job.message)).then_some(transfer.epoch)
    }

    /// How many receipts a report says.
    fn receipts_in(&self, message: MessageId) -> usize {
        match self.active.record(message).map(|r| &r.source) {
            Some(Source::Receipts { receipts, .. }) => receipts.len(),
            _ => 0,
        }
    }

    /// Freezes reports to one peer, of one precedence and epoch, as one digest. One that waits unkeyed is made anew with them.
    pub(super) fn start_receipts(&mut self, now: Now, mut jobs: Vec<Job>) {
        let Some(first) = jobs.first().cloned() else { return };
        let Hop::Peer(peer) = first.hop.clone() else { return };
        let waiting = self.receipts.along.iter().find(|(id, along)| {
            let transfer = self.transfers.get(id);
            let same = transfer.is_some_and(|t| t.hop == first.hop && t.precedence == first.precedence);
            same && !self.keyed_transfers.contains(id) && along.len() + 1 < receipts::MOST
        });
        if let Some(id) = waiting.map(|(id, _)| id.clone())
            && let Some(transfer) = self.transfers.get(&id).cloned()
        {
            if !self.is_ending(&transfer) {
                self.withdraw(now, &transfer, "more receipts go with it");
            }
            self.receipts.along.entry(id).or_default().append(&mut jobs);
            return;
        }
        // No more than one payload holds: the rest waits for its turn.
        let mut room = receipts::MOST;
        let fits = |switch: &Self, job: &Job, room: &mut usize| {
            let count = switch.receipts_in(job.message);
            let fits = count <= *room;
            *room -= if fits { count } else { 0 };
            fits
        };
        let (jobs, rest): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| fits(self, job, &mut room));
        rest.iter().for_each(|job| self.put_back(now, job));
        let Some(plan) = self.plan.peers.iter().find(|p| p.name == peer) else { return };
        let protection = plan.protection;
        let link_key = plan.keys.first().cloned().unwrap_or(LinkKey { id: 0, secret: [0; 32] });
        let Some(counter) = self.ids.transfer().filter(|_| self.renewal.is_none()) else {
            return jobs.iter().for_each(|job| self.put_back(now, job));
        };
        let id = TransferId { origin: self.plan.node.name.clone(), epoch: self.epoch, counter };
        let mut digest = Digest { epoch: 0, told: Vec::new() };
        for job in &jobs {
            if let Some(Source::Receipts { transfer, receipts, .. }) =
                self.active.record(job.message).map(|r| &r.source)
            {
                digest.epoch = transfer.epoch;
                digest.told.extend(receipts.iter().map(|r| Told { counter: transfer.counter, receipt: *r }));
            }
        }
        // Some tens of bytes: sealed here rather than by a worker.
        let payload: Arc<[u8]> = security::seal(protection, &link_key, &id, receipts::encode(&digest)).into();
        let bearer = match self.bearer_for(now, &peer, first.precedence, payload.len() as u64, first.message) {
            Ok(bearer) => bearer,
            Err((why, _)) => return jobs.iter().for_each(|job| self.job_failed(now, job, &why)),
        };
        let cut = self.cut_for(&bearer);
        let transfer = TransferRecord {
            id: id.clone(),
            bearer,
            message: first.message,
            recipients: first.recipients.clone(),
            hop: first.hop.clone(),
            payload: self.ids.body(),
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            precedence: first.precedence,
            lead: None,
            cut,
            reliance: Reliance::Word,
        };
        self.receipts.along.insert(id, jobs.into_iter().skip(1).collect());
        let text = Arc::default();
        self.step(now, first.message, Step::Freeze { transfers: vec![(transfer, peer)], payload, text });
    }

    /// The peer accepted a digest: so it did the receipts of other messages in it.
    pub(super) fn receipts_confirmed(&mut self, now: Now, transfer: &TransferRecord, event: &Event) {
        for job in self.receipts.along.remove(&transfer.id).unwrap_or_default() {
            let air = AirNote { bearer: Some(transfer.bearer.clone()), ..AirNote::default() };
            self.job_result(now, &job, vec![event.clone(); job.recipients.len()], air, None);
        }
    }

    /// A transfer is no more: receipts of other messages in it wait for another.
    pub(super) fn receipts_back(&mut self, now: Now, id: &TransferId) {
        for job in self.receipts.along.remove(id).unwrap_or_default() {
            self.put_back(now, &job);
        }
    }

    /// What a peer refused was a digest: all its reports go as they are. False where it was not.
    pub(super) fn receipts_refused(&mut self, now: Now, transfer: &TransferRecord) -> bool {
        let Hop::Peer(peer) = &transfer.hop else { return false };
        let message = transfer.message;
        let source = self.active.record(message).map(|r: &MessageRecord| &r.source);
        if !matches!(source, Some(Source::Receipts { .. })) || self.receipts.verbatim.contains(&message) {
            return false;
        }
        let why = "the peer does not build these reports; they go as they are";
        self.event(ops::Event::TransferCodedAnew {
            message,
            peer: peer.clone(),
            transfer: transfer.id.to_string(),
            why: why.into(),
        });
        let active = &self.active;
        self.receipts.verbatim.retain(|id| active.record(*id).is_some());
        let along = self.receipts.along.get(&transfer.id).into_iter().flatten();
        self.receipts.verbatim.extend(along.map(|job| job.message).chain([message]));
        self.withdraw(now, transfer, why);
        true
    }
}

/// The report that a peer made, from what is known here.
fn report(from: &PeerName, counter: u32, awaited: &Awaited, receipts: &[Receipt]) -> Report {
    let envelope = &awaited.envelope;
    let index = |receipt: &Receipt| usize::try_from(receipt.recipient).unwrap_or(usize::MAX);
    let lines = receipts.iter().filter_map(|receipt| {
        let recipient = envelope.recipients.get(index(receipt))?;
        Some(Line {
            address: recipient.address.clone(),
            orcpt: recipient.orcpt.clone(),
            action: Action::Delivered,
            cause: Cause::Taken,
            status: receipt.status,
            remote: Some(dsn::LOCAL_MAILBOX.to_owned()),
            diagnostic: None,
            last_attempt: Some(receipt.at),
            retry_until: None,
        })
    });
    let onward = receipts.iter().filter_map(|r| Some(Receipt { recipient: *awaited.places.get(index(r))?, ..*r }));
    let source = match &awaited.source {
        Source::Bearer { peer, transfer, .. } => {
            Source::Receipts { peer: peer.clone(), transfer: transfer.clone(), receipts: onward.collect() }
        }
        Source::Smtp { .. } | Source::Switch | Source::Receipts { .. } => Source::Switch,
    };
    let first = receipts.first().map_or(0, |r| r.recipient);
    Report {
        message: awaited.message,
        to: envelope.from.clone().unwrap_or_else(|| crate::mail::Mailbox::new("")),
        envid: envelope.envid.clone(),
        ret: envelope.ret,
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        require_tls: envelope.require_tls,
        precedence: awaited.precedence,
        mt_priority: envelope.mt_priority,
        deliver_by: envelope.deliver_by,
        arrival: awaited.accepted,
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
