//! Groups: one payload for several peers that hear the same transmission.
//!
//! The jobs of one message towards peers of one bearer that share a key become one envelope, one encoding and one seal. Each peer
//! still has a transfer of its own, with its own recipients, outcome and custody; they are frozen by one commit, share the stored
//! payload and name its number on the air, their `lead`. The envelope says which node takes which recipients. Peers with keys of
//! their own are served one by one.

use std::sync::Arc;

use crate::codec::envelope::{AirEnvelope, MAX_RECIPIENTS, MAX_SERVED};
use crate::config::plan::{BearerPlan, Plan};
use crate::mail::{BearerId, Envelope, Hop, LinkKey, PeerName, Source, Status, TransferId};
use crate::queue::outcome::Event;
use crate::queue::schedule::Job;
use crate::queue::{CommitError, StoreCall, TransferRecord};
use crate::time::Now;

use super::intake::UNPROTECTED;
use super::settle::{AirNote, BEYOND, Step};
use super::{Coded, Encode, Pending, Switch, Work};

/// The hops that can take a payload sealed for this one: peers of the same bearer and no other, protected alike, by the same key.
pub(super) fn of<'a>(plan: &Plan, bearers: impl Iterator<Item = &'a BearerPlan> + Clone, hop: &Hop) -> Vec<Hop> {
    let like = |name: &PeerName| {
        let peer = plan.peers.iter().find(|p| p.name == *name)?;
        Some((peer.protection, peer.keys.first()))
    };
    let Hop::Peer(peer) = hop else { return Vec::new() };
    // Where several bearers reach a peer, each message to it is on its own: it may go over any of them.
    let only = |peer: &PeerName| {
        let mut reaching = bearers.clone().filter(|b| b.peers.contains(peer));
        reaching.next().filter(|_| reaching.next().is_none())
    };
    let Some(bearer) = only(peer) else { return Vec::new() };
    let along = bearer.peers.iter().filter(|p| like(p) == like(peer) && only(p).is_some());
    along.map(|p| Hop::Peer(p.clone())).collect()
}

impl Switch {
    /// Starts jobs of one message that may share a payload.
    pub(super) fn start_group(&mut self, now: Now, mut jobs: Vec<Job>) {
        let body_of = |switch: &Self, job: &Job| {
            let record = switch.active.record(job.message)?;
            record.recipients.get(usize::try_from(*job.recipients.first()?).ok()?).map(|r| r.body)
        };
        let body = jobs.first().and_then(|job| body_of(self, job));
        // An edit for some recipients gave them other bytes.
        let (same, others): (Vec<Job>, Vec<Job>) = jobs.drain(..).partition(|job| body_of(self, job) == body);
        let mut recipients = 0;
        let fits = |job: &&Job| {
            recipients += job.recipients.len();
            recipients <= MAX_RECIPIENTS
        };
        let rest = same.iter().take(MAX_SERVED).take_while(fits).count().max(1);
        let (same, more) = same.split_at(rest);
        for job in others.iter().chain(more) {
            self.start(now, job.clone());
        }
        match (same, body) {
            ([_, _, ..], Some(body)) => {
                let pending = Pending::GroupBody { jobs: same.to_vec() };
                self.work(Work::Store(StoreCall::Read(body, 0, u64::MAX)), pending);
            }
            (few, _) => few.iter().for_each(|job| self.start(now, job.clone())),
        }
    }

    pub(super) fn group_body_read(&mut self, now: Now, jobs: Vec<Job>, body: Result<Arc<[u8]>, CommitError>) {
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.group_failed(now, &jobs, &format!("its body could not be read: {error}")),
        };
        let Some(first) = jobs.first().cloned() else { return };
        let Some(record) = self.active.record(first.message) else { return };
        let of = |i: &u32| record.envelope.recipients.get(usize::try_from(*i).ok()?).cloned();
        let recipients = jobs.iter().flat_map(|job| &job.recipients).filter_map(of).collect();
        let envelope = Envelope { recipients, ..record.envelope.clone() };
        if jobs.iter().any(|job| !self.may_take(&job.hop, job.message, &envelope)) {
            // Accepted under a profile that protected this way; all go by the same bearer.
            let (status, why) = UNPROTECTED;
            let failed = Event::Failed { status, remote: None, diagnostic: why.to_owned() };
            return self.group_result(now, &jobs, &failed);
        }
        if self.renewal.is_some() {
            return jobs.iter().for_each(|job| self.put_back(now, job));
        }
        let mut hops = match &record.source {
            Source::Bearer { hops, .. } => hops.clone(),
            Source::Smtp { .. } | Source::Switch | Source::Receipts { .. } => Vec::new(),
        };
        hops.push(self.plan.node.name.clone());
        let envelope = self.envelope_to(&first.hop, envelope);
        let peers: Vec<PeerName> = jobs.iter().filter_map(peer_of).cloned().collect();
        let count = |job: &Job| u32::try_from(job.recipients.len()).unwrap_or(u32::MAX);
        let serves = peers.iter().cloned().zip(jobs.iter().map(count)).collect();
        let air = AirEnvelope { envelope, precedence: first.precedence, hops, serves };
        let over_net = |peer: &PeerName| self.nets.aldis_to(peer).map(|net| net.plan.id.clone());
        let serial = |peer: &PeerName| self.bearers_to(peer).next().map(|(name, _)| name.clone());
        let bearer = peers.first().and_then(|peer| over_net(peer).or_else(|| serial(peer)));
        let plan = self.plan.peers.iter().find(|p| Some(&p.name) == peers.first());
        let (Some(bearer), Some(plan)) = (bearer, plan) else {
            return self.group_failed(now, &jobs, "no bearer reaches these peers");
        };
        let protection = plan.protection;
        let key = plan.keys.first().cloned().unwrap_or(LinkKey { id: 0, secret: [0; 32] });
        let (origin, epoch) = (self.plan.node.name.clone(), self.epoch);
        let counters: Option<Vec<u32>> = jobs.iter().map(|_| self.ids.transfer()).collect();
        let Some(counters) = counters else {
            return self.group_failed(now, &jobs, "this store's epoch has no transfer numbers left");
        };
        let id = |counter| TransferId { origin: origin.clone(), epoch, counter };
        let ids: Vec<TransferId> = counters.into_iter().map(id).collect();
        let Some(lead) = ids.first().cloned() else { return };
        let repertoire = self.repertoire_for_all(jobs.iter().filter_map(peer_of), first.message);
        let form = self.active.record(first.message);
        let form = form.and_then(|r| self.form_on(&bearer, &r.envelope, r.size_bytes, first.precedence));
        let reduction = self.reduction(form, first.message);
        let body = self.handed_to(now, first.message, &first.hop, body);
        let (known, keeps_text) = (Vec::new(), peers.first().is_some_and(|peer| self.keeps_text_of(peer)));
        for (job, peer) in jobs.iter().zip(&peers) {
            self.await_receipts(now, peer, &lead, job, &body);
        }
        let encode = Encode {
            envelope: air,
            body,
            id: lead,
            protection,
            key,
            repertoire,
            known,
            keeps_text,
            reduction,
            site: None,
        };
        self.work(Work::Encode(Box::new(encode)), Pending::GroupEncoded { jobs, ids, bearer });
    }

    pub(super) fn group_encoded(
        &mut self,
        now: Now,
        jobs: Vec<Job>,
        ids: Vec<TransferId>,
        bearer: BearerId,
        coded: Result<Box<Coded>, String>,
    ) {
        let (Some(first), Some(lead)) = (jobs.first(), ids.first().cloned()) else { return };
        if self.renewal.is_some() || lead.epoch != self.epoch {
            return jobs.iter().for_each(|job| self.put_back(now, job));
        }
        let Coded { payload, reliance, text, omission } = match coded {
            Ok(coded) => *coded,
            Err(why) => {
                return self.group_failed(now, &jobs, &format!("it cannot be encoded for the air: {why}"));
            }
        };
        let payload: Arc<[u8]> = payload.into();
        let whole = self.active.record(first.message).map_or(0, |r| r.size_bytes);
        let accepted = omission.as_ref().map_or(whole, |o| o.to_bytes);
        self.coding.learn(accepted, payload.len() as u64);
        let (bytes, level) = (payload.len() as u64, first.precedence);
        let (carried, hold) = match (self.bearers.get(&bearer), self.nets.get(&bearer)) {
            (Some(b), _) => (b.plan.carries(level, bytes), b.plan.hold_excess),
            (None, Some(net)) => (net.plan.carries(level, bytes), net.plan.hold_excess),
            (None, None) => (Ok(()), false),
        };
        if let (Err(diagnostic), false) = (carried, self.beyond.contains(&first.message)) {
            let excess = match hold {
                true => Event::Held { why: format!("{BEYOND}{diagnostic}") },
                false => Event::Failed { status: Status(5, 3, 4), remote: None, diagnostic },
            };
            return self.group_result(now, &jobs, &excess);
        }
        let (body, message, cut) = (self.ids.body(), first.message, self.cut_for(&bearer));
        let transfers = jobs.iter().zip(ids).filter_map(|(job, id)| {
            let record = TransferRecord {
                id,
                bearer: bearer.clone(),
                message,
                recipients: job.recipients.clone(),
                hop: job.hop.clone(),
                payload: body,
                payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                precedence: job.precedence,
                lead: Some(lead.counter),
                cut,
                reliance,
            };
            Some((record, peer_of(job)?.clone()))
        });
        let transfers = transfers.collect();
        self.step(now, message, Step::Freeze { transfers, payload, text, omission });
    }

    fn group_failed(&mut self, now: Now, jobs: &[Job], why: &str) {
        jobs.iter().for_each(|job| self.job_failed(now, job, why));
    }

    fn group_result(&mut self, now: Now, jobs: &[Job], result: &Event) {
        for job in jobs {
            self.job_result(now, job, vec![result.clone(); job.recipients.len()], AirNote::default(), None);
        }
    }
}

fn peer_of(job: &Job) -> Option<&PeerName> {
    match &job.hop {
        Hop::Peer(peer) => Some(peer),
        Hop::Local | Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Hold | Hop::Fetch => None,
    }
}
