//! From due messages to work, and from the work's results to steps of the message.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bearer::Transfer;
use crate::codec::envelope::AirEnvelope;
use crate::config::plan::BearerPlan;
use crate::mail::{
    BearerId, BodyKind, Cut, Envelope, Hop, LOCAL_MAILBOX, LinkKey, MessageId, PeerName, Precedence, Recipient, Source,
    Status, TransferId, original_recipient_line,
};
use crate::ops;
use crate::queue::maildir::DeliverError;
use crate::queue::outcome::Event;
use crate::queue::schedule::{Allowance, Job, Offered};
use crate::queue::{
    Batch, Change, CommitError, LONGEST_LIFE, MessageRecord, Place, Reason, StoreCall, StoreResult, TransferRecord,
};
use crate::route::Direction;
use crate::smtp;
use crate::smtp::client::RecipientResult;
use crate::time::{Duration, Now};

use super::awaited::Arrived;
use super::form::Attempt;
use super::intake::UNPROTECTED;
use super::settle::{AirNote, BEYOND, Step};
use super::{
    CLAIM_EVERY, Coded, Encode, Fault, Forward, Forwarded, LEASE, LOOK_EVERY, Local, LocalMailbox, Note, Pending,
    Switch, Work, WorkResult, group,
};

/// Live transfers per peer of one precedence or above: more where so many of them would not fill the longest transmission, and no more than
/// a report can speak of.
const TRANSFERS_PER_PEER: usize = 16;
const MOST_TRANSFERS_PER_PEER: usize = 48;
/// What a transfer is taken to bring to a transmission.
const TRANSFER_BYTES: u64 = 4096;
/// Recipients in one SMTP transaction (RFC 5321 4.5.3.1.10) and in one Maildir delivery.
const RECIPIENTS: usize = 100;
/// Local deliveries at once.
const LOCAL_DELIVERIES: usize = 16;
/// Messages on their way to one next hop at once, over fewer connections: while the outcome of some becomes durable, others are sent.
const PER_NEXT_HOP: usize = 16;
/// Parts made at once of messages that went reduced, for peers that asked.
const FETCHES: usize = 2;
/// Messages leased by one claim.
const CLAIM: usize = 256;
/// Messages looked at by one look, and leased of them.
const LOOK: usize = 1024;
const TAKE: usize = 64;
/// Finished messages purged by one batch.
const PURGE: u32 = 500;

impl Switch {
    /// Starts every job that has a place to go.
    pub(super) fn dispatch(&mut self, now: Now) {
        let renewing = self.renewal.is_some();
        loop {
            let deliveries = self.plan.limits.deliveries;
            let peers = match renewing {
                true => BTreeMap::new(),
                false => {
                    let aldis =
                        self.plan.peers.iter().filter_map(|p| Some((p.name.clone(), self.towards(now, &p.name)?)));
                    let mules = self.plan.mules.iter();
                    aldis
                        .chain(mules.filter_map(|m| Some((m.name.clone(), self.towards_mule(now, &m.name)?))))
                        .collect()
                }
            };
            let mx = self.towards_mx();
            let allowance = |hop: &Hop| match hop {
                Hop::Local => {
                    Some(Allowance { jobs: LOCAL_DELIVERIES, lowest: Precedence::Deferred, recipients: RECIPIENTS })
                }
                Hop::Smtp(_) | Hop::Lmtp(_) => {
                    let jobs = PER_NEXT_HOP.min(deliveries);
                    Some(Allowance { jobs, lowest: Precedence::Deferred, recipients: RECIPIENTS })
                }
                Hop::Smarthost(name) => {
                    let jobs = PER_NEXT_HOP.min(deliveries);
                    let recipients = self.plan.smarthost(name).map_or(RECIPIENTS, |s| s.manner.recipients);
                    Some(Allowance { jobs, lowest: Precedence::Deferred, recipients })
                }
                Hop::Mx(_) => mx,
                Hop::Peer(peer) => peers.get(peer).copied(),
                Hop::Fetch => Some(Allowance { jobs: FETCHES, lowest: Precedence::Deferred, recipients: 1 }),
                Hop::Hold => None,
            };
            let Some(job) = self.active.next(now, allowance) else { return };
            let as_mule = self.goes_mule(&job.hop);
            // A payload for several peers is written alike for all of them.
            let apart = self.plan.directory.rewrites.tell_places_apart(Direction::Out);
            let together = match self.aldis_along(&job.hop) {
                _ if apart => Vec::new(),
                Some(along) => along,
                None if as_mule => self.mules_along(&job.hop),
                None => group::of(&self.plan, self.bearers.values().map(|b| &b.plan), &job.hop),
            };
            let others = self.active.along(now, &job, |hop| allowance(hop).filter(|_| together.contains(hop)));
            match others.is_empty() {
                _ if job.hop == Hop::Fetch => self.fetch_for(now, job),
                _ if as_mule => self.start_mule(now, [vec![job], others].concat()),
                true if self.goes_as_receipts(&job) => self.put_aside(job),
                true => self.start(now, job),
                false => self.start_group(now, [vec![job], others].concat()),
            }
        }
    }

    /// What may go to a peer over any of its bearers now.
    pub(super) fn towards(&self, now: Now, peer: &PeerName) -> Option<Allowance> {
        if let Some(net) = self.nets.aldis_to(peer) {
            return self.towards_aldis(now, net, peer);
        }
        let lowest = self.bearers_to(peer).filter_map(|(name, _)| self.lowest_on(now, &self.gate, name)).min()?;
        let recipients = self.bearers_to(peer).map(|(_, b)| recipients_within(b.plan.max_payload_bytes)).min()?;
        let jobs = self.bearers_to(peer).map(|(_, b)| transfers_of(&b.plan)).max()? + self.waiting_for_word(peer);
        let jobs = jobs + self.receipts_along(peer);
        Some(Allowance { jobs, lowest, recipients })
    }

    /// What may go to one more domain, or to one that has mail on its way already. Domains are as many as addresses name, so that there
    /// is a bound over all of them together, and the same once more for urgent mail.
    fn towards_mx(&self) -> Option<Allowance> {
        let most = self.plan.limits.deliveries.max(PER_NEXT_HOP);
        let lowest = match self.active.in_flight_where(|hop| matches!(hop, Hop::Mx(_))) {
            n if n < most => Precedence::Deferred,
            n if n < most * 2 => Precedence::Flash,
            _ => return None,
        };
        let jobs = PER_NEXT_HOP.min(self.plan.limits.deliveries);
        Some(Allowance { jobs, lowest, recipients: self.plan.mx.manner.recipients })
    }

    pub(super) fn start(&mut self, now: Now, job: Job) {
        let body = self.active.record(job.message).and_then(|record| {
            let first = usize::try_from(*job.recipients.first()?).ok()?;
            record.recipients.get(first).map(|r| r.body)
        });
        match body {
            Some(body) => self.work(Work::Store(StoreCall::Read(body, 0, u64::MAX)), Pending::Body { job }),
            None => self.job_failed(now, &job, "its body is not known here"),
        }
    }

    pub(super) fn body_read(&mut self, now: Now, job: Job, body: Result<Arc<[u8]>, CommitError>) {
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.job_failed(now, &job, &format!("its body could not be read: {error}")),
        };
        let Some(record) = self.active.record(job.message) else { return };
        let envelope = limited(record, &job);
        let tracking = record.tracking.as_ref().and_then(|t| t.parameter(now.wall.since(record.accepted)));
        if !self.may_take(&job.hop, job.message, &envelope) {
            // Accepted under a profile that protected this way.
            let (status, why) = UNPROTECTED;
            let failed = Event::Failed { status, remote: None, diagnostic: why.to_owned() };
            return self.job_result(now, &job, vec![failed; job.recipients.len()], AirNote::default(), None);
        }
        let body = self.handed_to(now, job.message, &job.hop, body);
        let envelope = self.envelope_to(&job.hop, envelope);
        match &job.hop {
            Hop::Local => {
                let mailbox = |r: &Recipient| LocalMailbox {
                    name: self.mailbox(&r.address),
                    delivered_to: r.address.to_string(),
                    original: original_recipient_line(r).unwrap_or_default(),
                };
                let local = Local {
                    mailboxes: envelope.recipients.iter().map(mailbox).collect(),
                    unique: format!("{}.{:08x}.{}", job.message, self.epoch, self.plan.node.name),
                    binary: envelope.body == BodyKind::BinaryMime,
                    return_path: envelope.from.map(|m| m.to_string()).unwrap_or_default(),
                    body,
                };
                self.work(Work::Maildir(Box::new(local)), Pending::Delivery { job });
            }
            Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) => {
                if let Some(result) = self.larger_than_goes(&job.hop, body.len()) {
                    return self.job_result(now, &job, vec![result; job.recipients.len()], AirNote::default(), None);
                }
                let (hop, precedence) = (job.hop.clone(), job.precedence);
                let tls_optional = smtp::client::tls_is_optional(&envelope, &body);
                let forward = Forward { hop, precedence, envelope, tracking, body, tls_optional };
                self.work(Work::Forward(Box::new(forward)), Pending::Delivery { job });
            }
            Hop::Peer(peer) => {
                let peer = peer.clone();
                self.encode(now, job, peer, Attempt { body, tried: Vec::new() });
            }
            Hop::Hold => self.job_failed(now, &job, "its route says hold"),
            Hop::Fetch => self.fetch_for(now, job),
        }
    }

    /// What becomes of a message that is larger than its next hop takes, by the profile: nobody is asked.
    fn larger_than_goes(&self, hop: &Hop, bytes: usize) -> Option<Event> {
        let Hop::Smarthost(name) = hop else { return None };
        let most = self.plan.smarthost(name)?.most_bytes.filter(|most| bytes as u64 > *most)?;
        let diagnostic = format!("larger than the {most} octets that go to {name}");
        Some(Event::Failed { status: Status(5, 3, 4), remote: None, diagnostic })
    }

    /// Makes the payload in the next form that was not tried; nothing where there is none.
    fn encode(&mut self, now: Now, job: Job, peer: PeerName, mut attempt: Attempt) {
        if self.renewal.is_some() {
            return self.put_back(now, &job);
        }
        let Some(record) = self.active.record(job.message) else { return };
        let form = self.next_form(now, record, &peer, job.precedence, &attempt.tried);
        attempt.tried.push(form.flatten());
        let mut hops = match &record.source {
            Source::Bearer { hops, .. } => hops.clone(),
            Source::Smtp { .. } | Source::Switch | Source::Receipts { .. } => Vec::new(),
        };
        hops.push(self.plan.node.name.clone());
        let (envelope, body) = (self.envelope_to(&job.hop, limited(record, &job)), attempt.body.clone());
        let envelope = AirEnvelope { envelope, precedence: job.precedence, hops, serves: Vec::new() };
        let reduction = self.reduction(form.flatten(), job.message);
        let Some(plan) = self.plan.peers.iter().find(|p| p.name == peer) else {
            return self.job_failed(now, &job, &format!("{peer} is not a peer of this node"));
        };
        let protection = plan.protection;
        // Without protection there may be no key, and none is used.
        let key = plan.keys.first().cloned().unwrap_or(LinkKey { id: 0, secret: [0; 32] });
        let Some(counter) = self.ids.transfer() else {
            return self.job_failed(now, &job, "this store's epoch has no transfer numbers left");
        };
        let id = TransferId { origin: self.plan.node.name.clone(), epoch: self.epoch, counter };
        self.await_receipts(now, &peer, &id, &job, &body);
        let repertoire = self.repertoire_for(&peer, job.message);
        let known = if repertoire.has_history() { self.known_for(&peer) } else { Vec::new() };
        let (keeps_text, site) = (self.keeps_text_of(&peer), self.site_for(now, &peer, job.message, repertoire));
        let id_of = id.clone();
        let encode = Encode { envelope, body, id, protection, key, repertoire, known, keeps_text, reduction, site };
        self.work(Work::Encode(Box::new(encode)), Pending::Encoded { job, id: id_of, peer, attempt });
    }

    pub(super) fn encoded(
        &mut self,
        now: Now,
        job: Job,
        id: TransferId,
        peer: PeerName,
        attempt: Attempt,
        coded: Result<Box<Coded>, String>,
    ) {
        if self.renewal.is_some() || id.epoch != self.epoch {
            return self.put_back(now, &job);
        }
        let Coded { payload, reliance, text, omission } = match coded {
            Ok(coded) => *coded,
            Err(why) => return self.job_failed(now, &job, &format!("it cannot be encoded for the air: {why}")),
        };
        let payload: Arc<[u8]> = payload.into();
        let Some(record) = self.active.record(job.message) else { return };
        let accepted = omission.as_ref().map_or(record.size_bytes, |o| o.to_bytes);
        self.coding.learn(accepted, payload.len() as u64);
        let made = attempt.tried.last().copied().flatten();
        let suits = |bearer: &BearerId| {
            let form = self.form_on(bearer, &record.envelope, record.size_bytes, job.precedence);
            form == made || form.is_none() && omission.is_none()
        };
        let bytes = payload.len() as u64;
        let bearer = match self.bearer_for(now, &peer, job.precedence, bytes, job.message, suits) {
            Ok(bearer) => bearer,
            Err(_) if self.next_form(now, record, &peer, job.precedence, &attempt.tried).is_some() => {
                return self.encode(now, job, peer, attempt);
            }
            Err((diagnostic, hold)) => {
                let excess = match hold {
                    true => Event::Held { why: format!("{BEYOND}{diagnostic}") },
                    false => Event::Failed { status: Status(5, 3, 4), remote: None, diagnostic },
                };
                return self.job_result(now, &job, vec![excess; job.recipients.len()], AirNote::default(), None);
            }
        };
        let cut = self.cut_for(&bearer);
        let transfer = TransferRecord {
            id,
            bearer,
            message: job.message,
            recipients: job.recipients.clone(),
            hop: job.hop.clone(),
            payload: self.ids.body(),
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            precedence: job.precedence,
            lead: None,
            cut,
            reliance,
        };
        self.step(now, job.message, Step::Freeze { transfers: vec![(transfer, peer)], payload, text, omission });
    }

    /// Into what a payload is cut that this bearer is the first to carry: whatever fills its frames, where its waveform is fixed.
    pub(super) fn cut_for(&self, bearer: &BearerId) -> Cut {
        if let Some(station) = self.nets.station(bearer) {
            return station.cut();
        }
        let fixed = self.bearers.get(bearer).filter(|b| b.plan.choices.is_empty());
        fixed.map_or(Cut::default(), |b| b.station.cut())
    }

    /// Frozen payloads of before a restart go back to their stations, except where the store has left the epoch they name.
    pub(super) fn thaw(&mut self, now: Now, renewed: Option<&str>) {
        let refrozen = self.withdraw_stale(now);
        if let Some(why) = renewed {
            self.tell_renewed(why, refrozen);
        }
        self.thaw_mule();
        let current = self.transfers.values().filter(|t| t.id.epoch == self.epoch);
        let current = current.filter(|t| !self.goes_mule(&t.hop));
        let frozen: Vec<_> = current.map(|t| (t.id.clone(), t.hop.clone(), t.payload)).collect();
        for (id, hop, payload) in frozen {
            let Hop::Peer(peer) = hop else { continue };
            self.work(Work::Store(StoreCall::Read(payload, 0, u64::MAX)), Pending::Thaw { id, peer });
        }
    }

    pub(super) fn thawed(&mut self, now: Now, id: TransferId, peer: PeerName, payload: Result<Arc<[u8]>, CommitError>) {
        let Some(transfer) = self.transfers.get(&id).cloned() else { return };
        if self.renewal.is_some() || id.epoch != self.epoch {
            return;
        }
        let record = self.active.record(transfer.message);
        let exposed = record.is_some_and(|r| !self.may_take(&transfer.hop, transfer.message, &r.envelope));
        if exposed {
            return self.withdraw(now, &transfer, UNPROTECTED.1);
        }
        match payload {
            Ok(payload) => {
                let (lead, cut) = (transfer.lead, transfer.cut);
                let send = Transfer { id, to: peer, precedence: transfer.precedence, payload, cut, lead };
                self.put_on_air(now, &transfer, send);
            }
            Err(error) => {
                let why = format!("its frozen payload could not be read again: {error}");
                self.withdraw(now, &transfer, &why);
            }
        }
    }

    /// Gives a transfer up; the message is frozen anew under another id.
    pub(super) fn withdraw(&mut self, now: Now, transfer: &TransferRecord, why: &str) {
        let withdrawn = |i: &u32| (*i, Event::Withdrawn { why: why.to_owned() });
        let events = transfer.recipients.iter().map(withdrawn).collect();
        let step = Step::Events {
            events,
            air: AirNote { bearer: Some(transfer.bearer.clone()), ..AirNote::default() },
            ended: Some(transfer.id.clone()),
            job: Some(transfer.hop.clone()),
            sends: None,
        };
        self.step(now, transfer.message, step);
    }

    pub(super) fn transfer_confirmed(&mut self, now: Now, by: &BearerId, id: &TransferId, bytes: u64, air: Duration) {
        let late = || self.late.get(id).map(|late| late.transfer.clone());
        let known = self.transfers.get(id).cloned().or_else(late);
        let Some(transfer) = known.filter(|t| !self.is_ending(t)) else { return };
        let Hop::Peer(peer) = &transfer.hop else { return };
        // The peer is an Aldis node: it took the NOTIFY of every recipient with the envelope and reports from there.
        let taker = peer.to_string();
        let delivered = Event::Delivered { by: taker, dsn_passed_on: true, time_passed_on: true, is_final: false };
        let events = transfer.recipients.iter().map(|i| (*i, delivered.clone())).collect();
        let air = AirNote { bearer: Some(by.clone()), bytes, air_s: air.as_secs_f64(), refused: None };
        let step = Step::Events { events, air, ended: Some(id.clone()), job: Some(transfer.hop.clone()), sends: None };
        self.step(now, transfer.message, step);
    }

    pub(super) fn transfer_refused(&mut self, now: Now, id: &TransferId, reason: u8) {
        let Some(transfer) = self.transfers.get(id).filter(|t| !self.is_ending(t)).cloned() else { return };
        if self.digest_refused(now, &transfer, reason) || self.code_anew(now, &transfer, reason) {
            return;
        }
        let (status, diagnostic) = match reason {
            2 => (Status(5, 4, 6), "routing loop: the message has passed that node before".to_owned()),
            3 => (Status(5, 4, 4), "the peer goes by another name than it is called here".to_owned()),
            _ => (Status(5, 6, 0), format!("the peer cannot take this payload (reason {reason})")),
        };
        let remote = match &transfer.hop {
            Hop::Peer(peer) => Some(peer.to_string()),
            Hop::Local | Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Hold | Hop::Fetch => None,
        };
        let failed = Event::Failed { status, remote, diagnostic };
        let events = transfer.recipients.iter().map(|i| (*i, failed.clone())).collect();
        let air = AirNote { bearer: Some(transfer.bearer.clone()), ..AirNote::default() };
        let step = Step::Events { events, air, ended: Some(id.clone()), job: Some(transfer.hop.clone()), sends: None };
        self.step(now, transfer.message, step);
    }

    /// What was noticed of a domain whose hosts the DNS names.
    fn tell_of_domain(&mut self, hop: &Hop, note: &Note) {
        let Hop::Mx(domain) = hop else { return };
        let domain = domain.clone();
        self.event(match note.clone() {
            Note::Policy { domain, policy } => return self.keep_policy(&domain, &policy),
            Note::Bounded { what, count } => {
                ops::Event::MxBounded { domain, what: what.to_owned(), count: count as u64 }
            }
            Note::Untrue { host, why } => ops::Event::MtaStsTesting { domain, host, why },
            Note::NoPolicy { why } => ops::Event::MtaStsFailed { domain, why },
        });
    }

    /// A delivery came back.
    pub(super) fn delivered(&mut self, now: Now, job: Job, result: WorkResult) {
        let events = match result {
            WorkResult::Maildir(results) => results.into_iter().map(maildir_event).collect(),
            WorkResult::Forwarded(forwarded) => {
                for Fault { host, why } in &forwarded.faults {
                    let (next_hop, host, why) = (job.hop.to_string(), host.clone(), why.clone());
                    self.event(ops::Event::NextHopFailed { next_hop, host, why });
                }
                for note in &forwarded.notes {
                    self.tell_of_domain(&job.hop, note);
                }
                forward_events(&job, *forwarded)
            }
            WorkResult::Store(_)
            | WorkResult::Encoded(_)
            | WorkResult::Decoded(_)
            | WorkResult::Receipts(_)
            | WorkResult::Job(_)
            | WorkResult::Mule(_)
            | WorkResult::MuleOpened(_)
            | WorkResult::Fetched(_)
            | WorkResult::Vetted(_)
            | WorkResult::Dropped => Vec::new(),
        };
        self.job_result(now, &job, events, AirNote::default(), None);
    }

    /// A job that cannot run now waits for its turn again, as if it had not been started.
    pub(super) fn put_back(&mut self, now: Now, job: &Job) {
        if let Some(record) = self.active.record(job.message).cloned()
            && let Some(back) = self.active.finish(now, job.message, &job.hop, record)
        {
            self.write_back(*back);
        }
    }

    /// Something on our side kept a job from running: tried again later.
    pub(super) fn job_failed(&mut self, now: Now, job: &Job, why: &str) {
        tracing::warn!(message = %job.message, why, "a delivery could not be started");
        self.job_result(now, job, Vec::new(), AirNote::default(), Some(why));
    }

    /// Turns per-recipient results into a step. A recipient without a result is deferred.
    pub(super) fn job_result(&mut self, now: Now, job: &Job, results: Vec<Event>, air: AirNote, why: Option<&str>) {
        let mut results = results.into_iter();
        let missing = || Event::Deferred { diagnostic: why.unwrap_or("no result for this recipient").into() };
        let events = job.recipients.iter().map(|i| (*i, results.next().unwrap_or_else(missing))).collect();
        self.step(now, job.message, Step::Events { events, air, ended: None, job: Some(job.hop.clone()), sends: None });
    }

    /// Puts a message into the active set, with the hops its routes say now.
    pub(super) fn offer(&mut self, now: Now, record: MessageRecord) {
        let hops = self.hops_of(&record);
        let leased = record.lease.is_some();
        match self.active.offer(now, record, hops) {
            Offered::Taken => {}
            Offered::TakenFor(back) => self.write_back(*back),
            Offered::Refused(back) if leased => self.write_back(*back),
            // It stands in the store as it is.
            Offered::Refused(_) => self.more_stored = true,
        }
    }

    /// A message that left the active set waits in the store; its lease is free.
    pub(super) fn write_back(&mut self, record: MessageRecord) {
        self.more_stored = true;
        let batch = Batch { conditions: Vec::new(), changes: vec![Change::Message(Box::new(record))] };
        self.commit(batch, Pending::Aside);
    }

    /// Asks the store for what found no room in memory, once there is room for a good part of a claim.
    pub(super) fn refill(&mut self, now: Now) {
        let part = (self.plan.limits.active_messages / 4).clamp(1, CLAIM);
        if self.more_stored && !self.claiming && self.active.room() >= part {
            self.claim(now);
        }
    }

    /// Asks the store for due messages that are not in memory.
    pub(super) fn claim(&mut self, now: Now) {
        self.next_claim = now.at + CLAIM_EVERY;
        let limit = self.active.room().min(CLAIM);
        if self.claiming {
            return;
        }
        self.claiming = true;
        if limit == 0 {
            return self.look(now);
        }
        self.looked_until = None;
        // What finds no room from here on may come to the store behind this claim.
        self.more_stored = false;
        let call = StoreCall::Claim {
            owner: self.owner.clone(),
            now: now.wall,
            beyond: now.wall.plus(self.policy.retry.longest_wait()),
            until: now.wall.plus(LEASE),
            classes: Precedence::DESCENDING.to_vec(),
            limit,
            except: self.active.ids(),
        };
        self.work(Work::Store(call), Pending::Claim { limit });
    }

    /// Looks, where memory is full, whether the store has due messages that go before what fills it: of a higher precedence, or for a
    /// hop that does not wait behind a crowd. A claim would only bring what stands first.
    fn look(&mut self, now: Now) {
        let call = StoreCall::Look {
            owner: self.owner.clone(),
            now: now.wall,
            beyond: now.wall.plus(self.policy.retry.longest_wait()),
            after: self.looked_until,
            limit: LOOK,
            except: self.active.ids(),
        };
        self.work(Work::Store(call), Pending::Look);
    }

    fn looked(&mut self, now: Now, looked: Result<(Vec<MessageRecord>, Option<Place>), CommitError>) {
        self.claiming = false;
        let (records, place) = match looked {
            Ok(looked) => looked,
            Err(error) => return self.commit_failed(&error),
        };
        self.looked_until = place;
        if place.is_some() {
            self.next_claim = now.at + LOOK_EVERY;
        }
        let mut ids = Vec::new();
        for record in records.iter().filter(|record| !self.steps.contains_key(&record.id)) {
            let hops = self.hops_of(record);
            if ids.len() < TAKE && self.active.wants(now, record, &hops) {
                ids.push(record.id);
            }
        }
        if ids.is_empty() {
            return;
        }
        self.claiming = true;
        let call = StoreCall::Take {
            owner: self.owner.clone(),
            now: now.wall,
            beyond: now.wall.plus(self.policy.retry.longest_wait()),
            until: now.wall.plus(LEASE),
            ids,
        };
        self.work(Work::Store(call), Pending::Claim { limit: usize::MAX });
    }

    /// The hop of each recipient, as the routes say now.
    fn hops_of(&self, record: &MessageRecord) -> Vec<Option<Hop>> {
        record.envelope.recipients.iter().map(|r| self.hop(&self.resolve(&r.address))).collect()
    }

    pub(super) fn claimed(&mut self, now: Now, limit: usize, claimed: Result<Vec<MessageRecord>, CommitError>) {
        self.claiming = false;
        match claimed {
            Ok(records) => {
                let more = records.len() >= limit;
                self.more_stored |= more;
                for record in records {
                    // A step under way will bring a newer record.
                    if !self.steps.contains_key(&record.id) {
                        self.offer(now, record);
                    }
                }
                if more && self.active.room() > 0 {
                    self.claim(now);
                } else if more {
                    self.next_claim = now.at + LOOK_EVERY;
                }
            }
            Err(error) => self.commit_failed(&error),
        }
    }

    /// Asks the store whose life is over among what is not in memory: held mail, and what is due later or had no room.
    pub(super) fn look_for_ended(&mut self, now: Now) {
        if self.ending || !now.set {
            return;
        }
        self.ending = true;
        let call = StoreCall::Ended { now: now.wall, limit: CLAIM, except: self.active.ids() };
        self.work(Work::Store(call), Pending::Ended);
    }

    fn ended(&mut self, now: Now, ended: Result<Vec<MessageId>, CommitError>) {
        self.ending = false;
        match ended {
            Ok(ended) => {
                for message in ended {
                    if !self.steps.contains_key(&message) {
                        self.step(now, message, Step::Wake);
                    }
                }
            }
            Err(error) => self.commit_failed(&error),
        }
    }

    /// Lifetimes, delay reports and, rarely, the purge.
    pub(super) fn sweep(&mut self, now: Now) {
        while let Some(message) = self.active.poll_wake(now) {
            self.step(now, message, Step::Wake);
        }
        if now.set && self.next_purge <= now.at {
            self.next_purge = now.at + super::PURGE_EVERY;
            let keep = i64::try_from(self.plan.limits.keep_done.as_millis()).unwrap_or(i64::MAX);
            let done_before = crate::time::Wall(now.wall.0.saturating_sub(keep));
            self.purge_late(now);
            self.purge_policies(now);
            self.purge_awaited(now);
            self.follow_digests(now);
            // Longer than any message lives, by a margin that makes the keeping time of done ones twice as long.
            let undated_until = now.wall.plus(LONGEST_LIFE).plus(self.plan.limits.keep_done);
            let purge = Change::Purge { done_before, seen_before: now.wall, undated_until, limit: PURGE };
            self.commit(Batch { conditions: Vec::new(), changes: vec![purge] }, Pending::Aside);
        }
    }

    /// Routes a result to whatever waited for it.
    pub(super) fn done(&mut self, now: Now, pending: Pending, result: WorkResult) {
        let dropped = || CommitError::Failed("the node is stopping".into());
        let committed = |result| match result {
            WorkResult::Store(StoreResult::Committed(result)) => result,
            _ => Err(dropped()),
        };
        let read = |result| match result {
            WorkResult::Store(StoreResult::Read(result)) => result,
            _ => Err(dropped()),
        };
        match pending {
            Pending::Accept { promise, records, ids } => {
                self.accept_stored(now, promise, records, &ids, committed(result));
            }
            Pending::AcceptAir { bearer, ticket, records, ids } => {
                self.accept_air_stored(now, &bearer, ticket, records, &ids, committed(result));
            }
            Pending::AcceptReceipts { bearer, ticket, records, ids } => {
                let stored = committed(result);
                self.digest_stored(now, stored.is_ok().then_some(&ids));
                self.accept_air_stored(now, &bearer, ticket, records, &ids, stored);
            }
            Pending::Decode { bearer, ticket, from, id } => match result {
                WorkResult::Decoded(opened) => self.payload_opened(now, &bearer, ticket, from, id, opened),
                WorkResult::Receipts(digest) => {
                    self.digest_opened(now, Arrived { bearer, ticket, from, id, digest });
                }
                _ => self.settle(now, &bearer, ticket, crate::bearer::Verdict::Later),
            },
            Pending::Claim { limit } => match result {
                WorkResult::Store(StoreResult::Claimed(claimed)) => self.claimed(now, limit, claimed),
                _ => self.claiming = false,
            },
            Pending::Look => match result {
                WorkResult::Store(StoreResult::Looked(looked)) => self.looked(now, looked),
                _ => self.claiming = false,
            },
            Pending::Ended => match result {
                WorkResult::Store(StoreResult::Ended(ended)) => self.ended(now, ended),
                _ => self.ending = false,
            },
            Pending::Body { job } => self.body_read(now, job, read(result)),
            Pending::Encoded { job, id, peer, attempt } => {
                let coded = match result {
                    WorkResult::Encoded(coded) => coded,
                    _ => Err("the node is stopping".into()),
                };
                self.encoded(now, job, id, peer, attempt, coded);
            }
            Pending::GroupBody { jobs } => self.group_body_read(now, jobs, read(result)),
            Pending::GroupEncoded { jobs, ids, bearer } => {
                let coded = match result {
                    WorkResult::Encoded(coded) => coded,
                    _ => Err("the node is stopping".into()),
                };
                self.group_encoded(now, jobs, ids, bearer, coded);
            }
            Pending::Thaw { id, peer } => self.thawed(now, id, peer, read(result)),
            Pending::Delivery { job } => self.delivered(now, job, result),
            Pending::LoadForStep { message } => match result {
                WorkResult::Store(StoreResult::Loaded(Ok(record))) => self.step_loaded(now, message, record),
                _ => self.step_loaded(now, message, None),
            },
            Pending::ReportBody { settled } => {
                // A report whose subject cannot be read still goes out, without its third part.
                let subject = read(result).unwrap_or_else(|_| Arc::from([]));
                self.commit_step(now, settled, &subject);
            }
            Pending::Step { settled, own, ids } => {
                self.step_stored(now, settled, own, ids, committed(result));
            }
            Pending::LinkStored { bearer, ticket } => {
                let stored = committed(result);
                if let Err(error) = &stored {
                    self.commit_failed(error);
                }
                self.link_stored(now, &bearer, ticket, stored.is_ok());
            }
            Pending::LinkJob { bearer, ticket } => {
                if let WorkResult::Job(done) = result {
                    self.link_job_done(now, &bearer, ticket, done);
                }
            }
            Pending::Order { bearer, order, tightened, reply, carrier_off } => {
                let stored = committed(result);
                self.order_settled(now, &bearer, order, tightened, reply, carrier_off, stored);
            }
            Pending::Pmul(pending) => self.mule_done(now, pending, result),
            Pending::Renewal => self.renewal_stored(now, committed(result)),
            Pending::Minimize { orders, reply } => self.minimize_stored(orders, reply, committed(result)),
            Pending::Mark { peer, mark, reply } => {
                let response = self.mark_stored(now, peer, mark, committed(result));
                self.outputs.push_back(super::Output::Reply { id: reply, response });
            }
            Pending::Vet { prepared, since } => self.vetted(now, *prepared, since, result),
            Pending::FetchRecord { wanted } => match result {
                WorkResult::Store(StoreResult::Loaded(Ok(record))) => self.fetch_from(now, wanted, record),
                _ => self.fetch_from(now, wanted, None),
            },
            Pending::FetchBody { wanted, record } => self.fetch_body(now, wanted, record, read(result)),
            Pending::FetchPart { wanted, record } => {
                let part = match result {
                    WorkResult::Fetched(part) => part,
                    _ => Err("the node is stopping".into()),
                };
                self.fetched(now, wanted, &record, part);
            }
            Pending::Fetched { wanted, records, ids } => {
                self.fetch_stored(now, &wanted, records, &ids, committed(result));
            }
            Pending::Aside => {
                if let Err(error) = committed(result) {
                    self.commit_failed(&error);
                }
            }
        }
    }
}

/// The envelope with only the recipients a job serves.
pub(super) fn limited(record: &MessageRecord, job: &Job) -> Envelope {
    let of = |i: &u32| record.envelope.recipients.get(usize::try_from(*i).ok()?).cloned();
    Envelope { recipients: job.recipients.iter().filter_map(of).collect(), ..record.envelope.clone() }
}

/// Transfers a bearer has use for at once.
fn transfers_of(plan: &BearerPlan) -> usize {
    if !plan.choices.is_empty() {
        return TRANSFERS_PER_PEER;
    }
    let longest = u64::from(plan.waveform.rate.0) / 8 * plan.max_transmission_routine.as_secs();
    usize::try_from(longest / TRANSFER_BYTES).unwrap_or(usize::MAX).clamp(TRANSFERS_PER_PEER, MOST_TRANSFERS_PER_PEER)
}

/// Recipients that one payload of at most so many bytes is for.
pub(super) fn recipients_within(payload_bytes: u64) -> usize {
    // An address costs up to a thousand bytes; half a payload is for the message.
    let fit = usize::try_from(payload_bytes / 2000).unwrap_or(usize::MAX).max(1);
    fit.min(crate::codec::envelope::MAX_RECIPIENTS)
}

fn maildir_event(result: Result<(), DeliverError>) -> Event {
    match result {
        Ok(()) => {
            let by = LOCAL_MAILBOX.into();
            Event::Delivered { by, dsn_passed_on: false, time_passed_on: false, is_final: true }
        }
        Err(error) if error.is_permanent() => {
            Event::Failed { status: error.status(), remote: None, diagnostic: error.to_string() }
        }
        Err(error) => Event::Deferred { diagnostic: error.to_string().into() },
    }
}

fn forward_events(job: &Job, forwarded: Forwarded) -> Vec<Event> {
    let Forwarded { report, by, .. } = forwarded;
    let lmtp = matches!(job.hop, Hop::Lmtp(_));
    let remote = (!by.is_empty()).then(|| by.clone());
    let (dsn_passed_on, time_passed_on) = (report.dsn && !lmtp, report.deliver_by);
    let event = |result: RecipientResult| match result {
        RecipientResult::Delivered { .. } => {
            Event::Delivered { by: by.clone(), dsn_passed_on, time_passed_on, is_final: lmtp }
        }
        RecipientResult::Temporary { status, text } => Event::Deferred { diagnostic: reason(status, text) },
        RecipientResult::Permanent { status, text } => {
            Event::Failed { status, remote: remote.clone(), diagnostic: text }
        }
    };
    report.results.into_iter().map(event).collect()
}

/// A matter of security keeps its number where the words are ours; those of a peer begin with the number of its reply.
fn reason(status: Status, text: String) -> Reason {
    let of_peer = text.starts_with(|c: char| c.is_ascii_digit());
    if of_peer { text.into() } else { Reason::new(status, text) }
}
