//! Receipts as digest, at the node that reports: reports that a peer can build itself go as a few bytes (`docs/codec.md`, "Receipts").
//!
//! A report that becomes due is put aside while nothing could leave towards its peer anyway (it is being heard, or its answer is awaited);
//! then all that were put aside at one precedence are frozen as one digest. Above ROUTINE nothing is put aside.
//!
//! A digest is the transfer of its first report. The commit that freezes it marks every report in it, and the commit of the peer's word
//! on it marks them again; after each, the reports follow ([`Step::Follow`]) one by one, and after a start as well. So a report
//! is in one transfer at a time, and goes as it is only where the peer has refused its digest or is known not to read one. Where a
//! digest was given up with nothing known of it, its reports go in another: the peer knows what it was told (`awaited`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::receipts::{self, Digest, Told};
use crate::mail::{
    Hop, LinkKey, MessageId, Outcome, PeerName, Precedence, Receipt, RecipientState, Reliance, Source, Status,
    TransferId,
};
use crate::ops;
use crate::queue::outcome::Event;
use crate::queue::schedule::Job;
use crate::queue::{Batch, Change, MessageRecord, MessageState, TransferRecord};
use crate::security;
use crate::time::{Duration, Now};

use super::intake::REFUSED_UNDECODABLE;
use super::settle::{AirNote, BEYOND, Step};
use super::{Pending, Switch};

/// Reports to one peer that are under way without a transfer of their own, at most; more wait in the queue.
const MOST_ALONG: usize = 8 * receipts::MOST;
/// Receipts that wait for no others, and how long fewer do: two of the longest transmissions and what is between them.
const ENOUGH: usize = 24;
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Attempts until a report that a digest may have brought goes as it is to a peer that does not say what it reads.
const ATTEMPTS_FOR_WORD: u32 = 8;
/// What the names of marks begin with.
const PREFIX: &str = "digest/";

/// Reports on their way as receipts.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// Put aside until something can leave.
    aside: BTreeMap<PeerName, Vec<Job>>,
    /// Digests that are being made durable, and those not all of whose reports have followed.
    forming: BTreeMap<TransferId, Forming>,
    marks: BTreeMap<MessageId, Mark>,
}

/// A digest in the making: what it is like, and the jobs of all its reports but the first.
#[derive(Debug)]
struct Forming {
    hop: Hop,
    precedence: Precedence,
    jobs: Vec<Job>,
    /// It is durable: it counts by its transfer from here on.
    frozen: bool,
}

/// What is known of a report that went, or was to go, in a digest. Stored as a setting until the report is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Mark {
    /// The last digest it was in.
    digest: TransferId,
    word: Word,
}

/// The peer's word on a digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Word {
    /// None yet, or none ever where the digest is no more.
    None,
    Accepted,
    Refused,
}

/// How a report goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Digest,
    Verbatim,
    /// The peer may have it from a digest, and has not said since whether it reads another.
    Unknown,
}

impl Receipts {
    pub(super) fn open(settings: &[(String, Vec<u8>)]) -> Self {
        let mut receipts = Self::default();
        settings.iter().for_each(|(name, value)| receipts.stored(name, Some(value)));
        receipts
    }

    /// A setting is durable, or gone.
    pub(super) fn stored(&mut self, name: &str, value: Option<&[u8]>) {
        let Some(message) = name.strip_prefix(PREFIX).and_then(MessageId::parse) else { return };
        match value.map(postcard::from_bytes) {
            Some(Ok(mark)) => _ = self.marks.insert(message, mark),
            Some(Err(_)) => {}
            None => {
                self.marks.remove(&message);
                self.forming.values_mut().for_each(|f| f.jobs.retain(|job| job.message != message));
                self.forming.retain(|_, f| !f.frozen || !f.jobs.is_empty());
            }
        }
    }

    /// The reports in a digest, the first included.
    fn in_digest(&self, id: &TransferId) -> impl Iterator<Item = MessageId> {
        self.marks.iter().filter(move |(_, mark)| mark.digest == *id).map(|(message, _)| *message)
    }

    /// How much is kept here.
    pub(super) fn size(&self) -> usize {
        let jobs: usize = self.aside.values().chain(self.forming.values().map(|f| &f.jobs)).map(Vec::len).sum();
        jobs + self.marks.len()
    }

    /// The job of a report whose digest is no more.
    fn give_up(&mut self, digest: &TransferId, message: MessageId) -> Option<Job> {
        let forming = self.forming.get_mut(digest)?;
        let at = forming.jobs.iter().position(|job| job.message == message)?;
        let job = forming.jobs.swap_remove(at);
        if forming.jobs.is_empty() {
            self.forming.remove(digest);
        }
        Some(job)
    }
}

/// Whether a setting of this name is kept here.
pub(super) fn is_key(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn mark(message: MessageId, digest: &TransferId, word: Word) -> Option<Change> {
    let value = postcard::to_stdvec(&Mark { digest: digest.clone(), word }).ok()?;
    Some(Change::Setting(key(message), Some(value)))
}

fn key(message: MessageId) -> String {
    format!("{PREFIX}{message}")
}

impl Switch {
    /// Whether a job is a report that its peer can build itself.
    pub(super) fn goes_as_receipts(&self, job: &Job) -> bool {
        self.way(job) != Way::Verbatim
    }

    fn way(&self, job: &Job) -> Way {
        let Some((peer, _, told)) = self.receipts_of(job.message) else { return Way::Verbatim };
        if job.hop != Hop::Peer(peer.clone()) || told.len() > receipts::MOST {
            return Way::Verbatim;
        }
        let wanted = self.plan.peers.iter().any(|p| p.name == *peer && p.takes_receipts);
        let reads = wanted && self.repertoire_for(peer, job.message).reads_receipts();
        match self.receipts.marks.get(&job.message).map(|mark| mark.word) {
            Some(Word::Refused) => Way::Verbatim,
            _ if reads => Way::Digest,
            Some(Word::None | Word::Accepted) if !self.has_said_what_it_reads(peer) && !self.has_waited(job) => {
                Way::Unknown
            }
            Some(Word::None | Word::Accepted) | None => Way::Verbatim,
        }
    }

    /// Whether a job has waited long enough for its peer's word on what it reads.
    fn has_waited(&self, job: &Job) -> bool {
        self.active.record(job.message).is_none_or(|r| r.recipients.iter().all(|r| r.attempts >= ATTEMPTS_FOR_WORD))
    }

    fn receipts_of(&self, message: MessageId) -> Option<(&PeerName, &TransferId, &[Receipt])> {
        match &self.active.record(message)?.source {
            Source::Receipts { peer, transfer, receipts } => Some((peer, transfer, receipts)),
            Source::Smtp { .. } | Source::Bearer { .. } | Source::Switch => None,
        }
    }

    /// Puts a report aside until [`tell_peers`](Self::tell_peers) finds that it can leave.
    pub(super) fn put_aside(&mut self, job: Job) {
        if let Hop::Peer(peer) = &job.hop {
            self.receipts.aside.entry(peer.clone()).or_default().push(job);
        }
    }

    /// How many jobs towards a peer are under way without a transfer of their own.
    pub(super) fn receipts_along(&self, peer: &PeerName) -> usize {
        let hop = Hop::Peer(peer.clone());
        let along = |(message, mark): &(&MessageId, &Mark)| {
            self.transfers.get(&mark.digest).is_some_and(|t| t.hop == hop && t.message != **message)
        };
        let unfrozen = self.receipts.forming.values().filter(|f| f.hop == hop && !f.frozen);
        let forming: usize = unfrozen.map(|f| f.jobs.len()).sum();
        let aside = self.receipts.aside.get(peer).map_or(0, Vec::len);
        (aside + forming + self.receipts.marks.iter().filter(along).count()).min(MOST_ALONG)
    }

    /// The precedence of a job's message as it is now.
    fn level_of(&self, job: &Job) -> Precedence {
        self.active.record(job.message).map_or(job.precedence, |record| record.precedence)
    }

    /// Freezes what was put aside and could leave now.
    pub(super) fn tell_peers(&mut self, now: Now) {
        if self.renewal.is_some() {
            return;
        }
        let peers: Vec<PeerName> = self.receipts.aside.keys().cloned().collect();
        for peer in peers {
            let waits = self.bearers_to(&peer).any(|(_, b)| b.station.is_listening());
            let mut aside = self.receipts.aside.get(&peer).into_iter().flatten();
            if waits && !aside.any(|job| self.level_of(job) > Precedence::Routine) {
                continue;
            }
            let lowest = self.towards(now, &peer).map(|allowance| allowance.lowest);
            let mut together: BTreeMap<_, Vec<Job>> = BTreeMap::new();
            for job in self.receipts.aside.remove(&peer).unwrap_or_default() {
                let Some(record) = self.active.record(job.message) else { continue };
                let due = |i: &u32| {
                    let state = usize::try_from(*i).ok().and_then(|i| record.recipients.get(i)).map(|r| &r.state);
                    matches!(state, Some(RecipientState::Due { .. }))
                };
                if !job.recipients.iter().all(due) || lowest.is_none_or(|lowest| record.precedence < lowest) {
                    // Held or ended meanwhile, or not to go now: an order or MINIMIZE came between.
                    self.put_back(now, &job);
                    continue;
                }
                let precedence = record.precedence;
                let job = Job { precedence, ..job };
                if waits && job.precedence <= Precedence::Routine {
                    self.put_aside(job);
                    continue;
                }
                match self.way(&job) {
                    Way::Digest => {
                        let epoch = self.receipts_of(job.message).map(|(_, transfer, _)| transfer.epoch);
                        let alike = (Reverse(job.precedence), epoch, self.asks_protection(job.message));
                        together.entry(alike).or_default().push(job);
                    }
                    Way::Verbatim => self.start(now, job),
                    Way::Unknown => self.job_failed(now, &job, "the peer may have it, and has not said what it reads"),
                }
            }
            for ((Reverse(precedence), ..), jobs) in together {
                let wait = self.digest_waits(&peer, precedence) || self.more_will_come(now, &peer, &jobs);
                if precedence <= Precedence::Routine && wait {
                    // They go with others: a digest costs more than the receipts in it do.
                    jobs.into_iter().for_each(|job| self.put_aside(job));
                } else {
                    self.start_digests(now, &peer, jobs);
                }
            }
        }
    }

    /// Whether reports are few and young, and the peer has not said all that it has.
    fn more_will_come(&self, now: Now, peer: &PeerName, jobs: &[Job]) -> bool {
        let told: usize =
            jobs.iter().filter_map(|job| self.receipts_of(job.message)).map(|(.., told)| told.len()).sum();
        let young =
            |job: &Job| self.active.record(job.message).is_some_and(|r| now.wall < r.accepted.plus(LONGEST_WAIT));
        let begun = self.bearers_to(peer).any(|(_, b)| b.station.has_part_of(peer))
            || self.nets.stations().any(|station| station.has_part_of(peer));
        told < ENOUGH && jobs.iter().all(young) && begun
    }

    /// Whether a digest to a peer has not left yet.
    fn digest_waits(&self, peer: &PeerName, precedence: Precedence) -> bool {
        let hop = Hop::Peer(peer.clone());
        let unkeyed = self.transfers.values().filter(|t| !self.keyed_transfers.contains(&t.id));
        let mut unkeyed = unkeyed.filter(|t| t.hop == hop && t.precedence == precedence);
        let unfrozen = |f: &Forming| f.hop == hop && f.precedence == precedence && !f.frozen;
        unkeyed.any(|t| self.receipts.in_digest(&t.id).next().is_some()) || self.receipts.forming.values().any(unfrozen)
    }

    /// Freezes reports of one precedence to one peer about messages of one of its epochs, as many together as a digest holds.
    fn start_digests(&mut self, now: Now, peer: &PeerName, jobs: Vec<Job>) {
        let (mut digest, mut room) = (Vec::new(), receipts::MOST);
        for job in jobs {
            let count = self.receipts_of(job.message).map_or(0, |(.., told)| told.len());
            if count > room {
                self.start_digest(now, peer, std::mem::take(&mut digest));
                room = receipts::MOST;
            }
            room -= count;
            digest.push(job);
        }
        self.start_digest(now, peer, digest);
    }

    fn start_digest(&mut self, now: Now, peer: &PeerName, mut jobs: Vec<Job>) {
        let failed =
            |switch: &mut Self, jobs: &[Job], why: &str| jobs.iter().for_each(|j| switch.job_failed(now, j, why));
        let Some(first) = jobs.first().cloned() else { return };
        let Some(plan) = self.plan.peers.iter().find(|p| p.name == *peer) else {
            return failed(self, &jobs, &format!("{peer} is not a peer of this node"));
        };
        let protection = plan.protection;
        let link_key = plan.keys.first().cloned().unwrap_or(LinkKey { id: 0, secret: [0; 32] });
        let Some(counter) = self.ids.transfer() else {
            return failed(self, &jobs, "this store's epoch has no transfer numbers left");
        };
        let id = TransferId { origin: self.plan.node.name.clone(), epoch: self.epoch, counter };
        let mut digest = Digest { epoch: 0, told: Vec::new() };
        for (_, transfer, told) in jobs.iter().filter_map(|job| self.receipts_of(job.message)) {
            digest.epoch = transfer.epoch;
            digest.told.extend(told.iter().map(|r| Told { counter: transfer.counter, receipt: r.clone() }));
        }
        // Some tens of bytes: made here rather than by a worker.
        let payload: Arc<[u8]> = security::seal(protection, &link_key, &id, receipts::encode(&digest)).into();
        let bearer = match self.bearer_for(now, peer, first.precedence, payload.len() as u64, first.message, |_| true) {
            Ok(bearer) => bearer,
            Err((diagnostic, hold)) => {
                let excess = match hold {
                    true => Event::Held { why: format!("{BEYOND}{diagnostic}") },
                    false => Event::Failed { status: Status(5, 3, 4), remote: None, diagnostic },
                };
                let result = |job: &Job| vec![excess.clone(); job.recipients.len()];
                return jobs.iter().for_each(|j| self.job_result(now, j, result(j), AirNote::default(), None));
            }
        };
        let cut = self.cut_for(&bearer);
        let transfer = TransferRecord {
            id: id.clone(),
            bearer,
            message: first.message,
            recipients: first.recipients,
            hop: first.hop,
            payload: self.ids.body(),
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            precedence: first.precedence,
            lead: None,
            cut,
            reliance: Reliance::Nothing,
        };
        let (hop, precedence) = (transfer.hop.clone(), transfer.precedence);
        self.receipts.forming.insert(id, Forming { hop, precedence, jobs: jobs.split_off(1), frozen: false });
        let text = Arc::default();
        self.step(
            now,
            first.message,
            Step::Freeze { transfers: vec![(transfer, peer.clone())], payload, text, omission: None },
        );
    }

    /// What is to be stored with a step of one report about all that are in its digest.
    pub(super) fn receipt_changes(&self, record: &MessageRecord, step: &Step) -> Vec<Change> {
        let mut changes = Vec::new();
        match step {
            Step::Freeze { transfers, .. } => {
                for (transfer, _) in transfers {
                    let forming = self.receipts.forming.get(&transfer.id);
                    let all = forming.map(|f| f.jobs.iter().map(|job| job.message).chain([record.id]));
                    changes.extend(all.into_iter().flatten().filter_map(|m| mark(m, &transfer.id, Word::None)));
                }
            }
            Step::Events { events, air, ended: Some(id), .. } => {
                let accepted = events.iter().any(|(_, event)| matches!(event, Event::Delivered { .. }));
                let word = if accepted { Some(Word::Accepted) } else { air.refused.map(|_| Word::Refused) };
                let all = word.map(|word| self.receipts.in_digest(id).filter_map(move |m| mark(m, id, word)));
                changes.extend(all.into_iter().flatten());
            }
            Step::Events { .. } | Step::Wake | Step::LetGo | Step::Operator { .. } | Step::Follow => {}
        }
        if self.receipts.marks.contains_key(&record.id) && !self.is_awaited(record) {
            changes.push(Change::Setting(key(record.id), None));
        }
        changes
    }

    /// Whether anything may still come of a report's digest: it is not done, or it ended unconfirmed and the digest may be confirmed.
    fn is_awaited(&self, record: &MessageRecord) -> bool {
        let digest = self.receipts.marks.get(&record.id).map(|mark| &mark.digest);
        let known = digest.is_some_and(|id| match self.transfers.get(id) {
            Some(transfer) => transfer.message != record.id,
            None => self.late.contains_key(id),
        });
        let unconfirmed =
            |state: &RecipientState| matches!(state, RecipientState::Final { outcome: Outcome::Unconfirmed, .. });
        record.state != MessageState::Done || known && record.recipients.iter().any(|r| unconfirmed(&r.state))
    }

    /// The digest that carries a report, where it is under way.
    pub(super) fn digest_of(&self, message: MessageId) -> Option<&TransferId> {
        let mark = self.receipts.marks.get(&message).filter(|mark| mark.word == Word::None)?;
        self.transfers.contains_key(&mark.digest).then_some(&mark.digest)
    }

    /// Whether something of the digest that carries a report may have left.
    pub(super) fn digest_keyed(&self, message: MessageId) -> bool {
        self.digest_of(message).is_some_and(|digest| self.keyed_transfers.contains(digest))
    }

    /// Something about a digest is durable: its reports follow.
    pub(super) fn digest_settled(&mut self, now: Now, id: &TransferId) {
        if let Some(forming) = self.receipts.forming.get_mut(id) {
            forming.frozen = true;
        }
        self.receipts.forming.retain(|_, f| !f.frozen || !f.jobs.is_empty());
        let reports: Vec<MessageId> = self.receipts.in_digest(id).collect();
        reports.into_iter().for_each(|message| self.step(now, message, Step::Follow));
    }

    /// All reports follow their marks: after a start, and now and then for the marks of what is no more.
    pub(super) fn follow_digests(&mut self, now: Now) {
        let marked: Vec<MessageId> = self.receipts.marks.keys().copied().collect();
        marked.into_iter().for_each(|message| self.step(now, message, Step::Follow));
    }

    /// A digest could not be frozen: its reports wait for another.
    pub(super) fn digest_dissolved(&mut self, now: Now, id: &TransferId) {
        let forming = self.receipts.forming.remove(id);
        forming.into_iter().flat_map(|f| f.jobs).for_each(|job| self.put_back(now, &job));
    }

    /// What a report does by its mark; `None` where it stands as it should.
    pub(super) fn followed(&mut self, now: Now, record: &MessageRecord) -> Option<Step> {
        let Mark { digest, word } = self.receipts.marks.get(&record.id)?.clone();
        let Source::Receipts { peer, .. } = &record.source else { return None };
        if self.transfers.values().any(|t| t.message == record.id) {
            // It has a transfer of its own: it is the first of its digest, or goes as it is.
            return None;
        }
        let transfer = self.transfers.get(&digest);
        let event = |state: &RecipientState| match (word, state) {
            (Word::Accepted, RecipientState::Final { outcome, .. }) if *outcome != Outcome::Unconfirmed => None,
            (Word::Accepted, _) => {
                let by = peer.to_string();
                Some(Event::Delivered { by, dsn_passed_on: true, time_passed_on: true, is_final: false })
            }
            (Word::None, RecipientState::Due { .. }) => {
                Some(Event::Frozen { bearer: transfer?.bearer.clone(), reduced: None })
            }
            (Word::None, RecipientState::OnAir { .. }) if transfer.is_some() => None,
            (Word::None | Word::Refused, RecipientState::OnAir { .. }) => {
                Some(Event::Withdrawn { why: "the digest it went in is no more".to_owned() })
            }
            (Word::None | Word::Refused, _) => None,
        };
        let events: Vec<(u32, Event)> =
            (0..).zip(&record.recipients).filter_map(|(i, r)| Some((i, event(&r.state)?))).collect();
        let flies = word == Word::None && transfer.is_some();
        let bearer = transfer.map(|t| t.bearer.clone());
        let hop = Hop::Peer(peer.clone());
        let job = if flies { None } else { self.receipts.give_up(&digest, record.id) };
        if !events.is_empty() {
            let air = AirNote { bearer, ..AirNote::default() };
            return Some(Step::Events { events, air, ended: None, job: (!flies).then_some(hop), sends: None });
        }
        // Its digest went before it could follow.
        job.iter().for_each(|job| self.put_back(now, job));
        if !self.is_awaited(record) {
            self.forget_mark(record.id);
        }
        None
    }

    /// A report is no more, or its mark says nothing more.
    pub(super) fn forget_mark(&mut self, message: MessageId) {
        self.receipts.forming.values_mut().for_each(|f| f.jobs.retain(|job| job.message != message));
        if self.receipts.marks.remove(&message).is_some() {
            let changes = vec![Change::Setting(key(message), None)];
            self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
        }
    }

    /// What a peer refused was a digest: its reports go as they are. False where it was none.
    pub(super) fn digest_refused(&mut self, now: Now, transfer: &TransferRecord, reason: u8) -> bool {
        let Hop::Peer(peer) = &transfer.hop else { return false };
        if self.receipts.in_digest(&transfer.id).next().is_none() {
            return false;
        }
        if reason == REFUSED_UNDECODABLE {
            self.doubt_reading(peer);
        }
        let why = "the peer does not build these reports; they go as they are";
        self.event(ops::Event::TransferCodedAnew {
            message: transfer.message,
            peer: peer.clone(),
            transfer: transfer.id.to_string(),
            why: why.into(),
        });
        let events = transfer.recipients.iter().map(|i| (*i, Event::Withdrawn { why: why.into() })).collect();
        let air = AirNote { bearer: Some(transfer.bearer.clone()), refused: Some(reason), ..AirNote::default() };
        let (ended, job) = (Some(transfer.id.clone()), Some(transfer.hop.clone()));
        self.step(now, transfer.message, Step::Events { events, air, ended, job, sends: None });
        true
    }
}
