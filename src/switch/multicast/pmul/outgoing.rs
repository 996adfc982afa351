//! From jobs of one message to one payload for the MULE peers of a group, and from their acknowledgements to outcomes.
//!
//! The payload is frozen like any other (A1): stored with its transfers in one commit, and with each of them what the message on the
//! net must keep over restarts. After one the station asks what has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::bearer::Transfer;
use crate::bearer::pmul::{Destination, NodeId, Outgoing, SubmitError, Way};
use crate::codec::mule;
use crate::mail::{
    BearerId, BodyRef, Cut, Envelope, Hop, MessageId, PeerName, Precedence, Reliance, Status, TransferId,
};
use crate::queue::outcome::Event;
use crate::queue::schedule::{Allowance, Job};
use crate::queue::{Batch, Change, CommitError, MessageRecord, StoreCall, TransferRecord};
use crate::time::{Duration, Now};

use super::{Frozen, Pending, Pmul, Send, number_of, numbered};
use crate::switch::air::link_key;
use crate::switch::intake::UNPROTECTED;
use crate::switch::settle::{AirNote, BEYOND, Step};
use crate::switch::{MuleEncode, Switch, Work};

/// Messages of one level or above to one peer at once.
const JOBS: usize = 16;
/// Messages on their way that a station has to take for each peer: so many of every level, and those that wait for word in silence.
pub(super) const MOST_SENDING: usize = JOBS * 6 + 240;
/// Recipients in one payload: what MULE carries.
const RECIPIENTS: usize = mule::bsmtp::MAX_RECIPIENTS;
/// Why a transfer is given up whose pieces would be others now.
const RECUT: &str = "frozen for PDUs of another length than max_pdu says now";

/// Store key of what belongs to a transfer of this node, relative to the bearer.
fn transfer_key(id: &TransferId) -> Vec<u8> {
    let mut key = vec![b't'];
    key.extend(id.epoch.to_be_bytes());
    key.extend(id.counter.to_be_bytes());
    key.extend(id.origin.0.as_bytes());
    key
}

pub(super) fn transfer_of_key(key: &[u8]) -> Option<TransferId> {
    let rest = key.strip_prefix(b"t")?;
    let (epoch, rest) = rest.split_first_chunk::<4>()?;
    let (counter, origin) = rest.split_first_chunk::<4>()?;
    let origin = PeerName::from(core::str::from_utf8(origin).ok()?);
    Some(TransferId { origin, epoch: u32::from_be_bytes(*epoch), counter: u32::from_be_bytes(*counter) })
}

/// Store key of the last sequence number towards a node.
fn sequence_key(node: NodeId) -> Vec<u8> {
    let mut key = vec![b'n'];
    key.extend(node.0.to_be_bytes());
    key
}

pub(super) fn sequence_of(key: &[u8], value: &[u8]) -> Option<(NodeId, u32)> {
    let node: [u8; 4] = key.strip_prefix(b"n")?.try_into().ok()?;
    Some((NodeId(u32::from_be_bytes(node)), u32::from_be_bytes(value.try_into().ok()?)))
}

/// Store key of the dynamic group of a message, relative to the bearer.
fn group_key(number: u32) -> Vec<u8> {
    let mut key = vec![b'g'];
    key.extend(number.to_be_bytes());
    key
}

pub(super) fn group_of(key: &[u8], value: &[u8]) -> Option<(u32, Ipv4Addr, u32)> {
    let number: [u8; 4] = key.strip_prefix(b"g")?.try_into().ok()?;
    let (group, expiry) = value.split_first_chunk::<4>()?;
    let expiry = u32::from_be_bytes(expiry.try_into().ok()?);
    Some((u32::from_be_bytes(number), Ipv4Addr::from(*group), expiry))
}

/// Whether a message of this level must not wait until a group is granted.
fn cannot_wait(level: Precedence) -> bool {
    level >= Precedence::Flash
}

/// How a message of a level comes by its group, when these groups were agreed for its receivers; `None`: none was for that one. Who keeps
/// silence joins nothing.
fn way(m: &Pmul, level: Precedence, to: &[(Option<Ipv4Addr>, bool)]) -> Way {
    let agreed: BTreeSet<Ipv4Addr> = to.iter().filter_map(|(group, _)| *group).collect();
    let all = to.iter().all(|(group, _)| group.is_some());
    let agreed: Vec<Ipv4Addr> = agreed.into_iter().collect();
    let Some(dynamic) = &m.plan.dynamic else { return Way::Agreed(agreed) };
    let silent = to.iter().any(|(_, silent)| *silent);
    match (all, agreed.len()) {
        (true, _) if cannot_wait(level) || silent => Way::Agreed(agreed),
        (true, 1) if !dynamic.always => Way::Agreed(agreed),
        (true, _) => Way::Asked(agreed),
        (false, _) if cannot_wait(level) => Way::AtOnce,
        (false, _) => Way::Asked(Vec::new()),
    }
}

impl Switch {
    /// What may go to a MULE peer now. P_MUL says when a message expires: nothing is sent before the clock is set.
    pub(in crate::switch) fn towards_mule(&self, now: Now, peer: &PeerName) -> Option<Allowance> {
        let (name, m) = self.mule_to(peer).filter(|_| now.set)?;
        let lowest = self.lowest_on(now, &self.gate, name)?;
        let waiting = m.blind.iter().filter(|id| self.is_to(id, peer)).count().min(240);
        Some(Allowance { jobs: JOBS + waiting, lowest, recipients: RECIPIENTS })
    }

    fn is_to(&self, id: &TransferId, peer: &PeerName) -> bool {
        self.transfers.get(id).is_some_and(|t| matches!(&t.hop, Hop::Peer(p) if p == peer))
    }

    /// The hops that can take the same payload as this one from the same datagrams.
    pub(in crate::switch) fn mules_along(&self, hop: &Hop) -> Vec<Hop> {
        let Hop::Peer(peer) = hop else { return Vec::new() };
        let Some((_, m)) = self.mule_to(peer) else { return Vec::new() };
        // One group can be made for all of them.
        let same = |p: &&PeerName| m.plan.dynamic.is_some() || self.agreed_for(m, p) == self.agreed_for(m, peer);
        m.net.plan.peers.iter().filter(same).map(|p| Hop::Peer(p.clone())).collect()
    }

    /// The group that was agreed for a peer of a bearer.
    fn agreed_for(&self, m: &Pmul, peer: &PeerName) -> Option<Ipv4Addr> {
        self.mule(peer).and_then(|mule| m.plan.agreed(mule))
    }

    /// Which of these jobs of one message share a group: those with an agreed one go by it where they must not wait, or would not hear of
    /// another; and all do where one group was agreed for all.
    fn by_group(&self, jobs: Vec<Job>) -> Vec<Vec<Job>> {
        let of = |job: &Job| match &job.hop {
            Hop::Peer(peer) => self.mule_to(peer).map(|(_, m)| (m, self.agreed_for(m, peer), self.is_silent(peer))),
            _ => None,
        };
        let dynamic = jobs.first().and_then(of).and_then(|(m, ..)| m.plan.dynamic.as_ref());
        let Some(dynamic) = dynamic else { return vec![jobs] };
        let agreed = |job: &Job| of(job).and_then(|(_, group, _)| group);
        let first = jobs.first().and_then(agreed);
        if !dynamic.always && first.is_some() && jobs.iter().all(|job| agreed(job) == first) {
            return vec![jobs];
        }
        let mut parts: BTreeMap<Option<Ipv4Addr>, Vec<Job>> = BTreeMap::new();
        for job in jobs {
            let silent = of(&job).is_some_and(|(.., silent)| silent);
            let group = agreed(&job).filter(|_| silent || cannot_wait(job.precedence));
            parts.entry(group).or_default().push(job);
        }
        parts.into_values().collect()
    }

    /// Starts jobs of one message for peers that may share a group.
    pub(in crate::switch) fn start_mule(&mut self, now: Now, jobs: Vec<Job>) {
        for part in self.by_group(jobs) {
            self.start_mule_part(now, part);
        }
    }

    fn start_mule_part(&mut self, now: Now, jobs: Vec<Job>) {
        // An edit for some recipients gave them other bytes.
        let mut by_body: BTreeMap<BodyRef, Vec<Job>> = BTreeMap::new();
        for job in jobs {
            let body = self.active.record(job.message).and_then(|record| {
                let first = usize::try_from(*job.recipients.first()?).ok()?;
                record.recipients.get(first).map(|r| r.body)
            });
            match body {
                Some(body) => by_body.entry(body).or_default().push(job),
                None => self.job_failed(now, &job, "its body is not known here"),
            }
        }
        for (body, jobs) in by_body {
            self.mule_work(Work::Store(StoreCall::Read(body, 0, u64::MAX)), Pending::Body { jobs });
        }
    }

    pub(super) fn mule_work(&mut self, work: Work, pending: Pending) {
        self.work(work, crate::switch::Pending::Pmul(pending));
    }

    pub(super) fn mule_body_read(&mut self, now: Now, jobs: Vec<Job>, body: Result<Arc<[u8]>, CommitError>) {
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.mule_failed(now, &jobs, &format!("its body could not be read: {error}")),
        };
        let Some(first) = jobs.first().cloned() else { return };
        let Some(record) = self.active.record(first.message) else { return };
        let of = |i: &u32| record.envelope.recipients.get(usize::try_from(*i).ok()?).cloned();
        let recipients = jobs.iter().flat_map(|job| &job.recipients).filter_map(of).collect();
        let mut envelope = Envelope { recipients, ..record.envelope.clone() };
        if jobs.iter().any(|job| !self.may_take(&job.hop, job.message, &envelope)) {
            let (status, why) = UNPROTECTED;
            let failed = Event::Failed { status, remote: None, diagnostic: why.to_owned() };
            return self.mule_result(now, &jobs, &failed);
        }
        // What may go all the same is a report, and no missing protection may cost one (RFC 8689 5).
        envelope.require_tls = false;
        let envelope = self.envelope_to(&first.hop, envelope);
        if self.renewal.is_some() {
            return jobs.iter().for_each(|job| self.put_back(now, job));
        }
        let Hop::Peer(peer) = &first.hop else { return };
        let Some((bearer, tagging)) = self.mule_to(peer).map(|(name, m)| (name.clone(), m.plan.tagging)) else {
            return self.mule_failed(now, &jobs, "no bearer reaches these peers");
        };
        let counters: Option<Vec<u32>> = jobs.iter().map(|_| self.ids.transfer()).collect();
        let Some(counters) = counters else {
            return self.mule_failed(now, &jobs, "this store's epoch has no transfer numbers left");
        };
        let (origin, epoch) = (self.plan.node.name.clone(), self.epoch);
        let id = |counter| TransferId { origin: origin.clone(), epoch, counter };
        let ids = counters.into_iter().map(id).collect();
        let body = self.handed_to(now, first.message, &first.hop, body);
        let encode = MuleEncode { envelope, body, tagging, now: now.wall };
        self.mule_work(Work::MuleEncode(Box::new(encode)), Pending::Encoded { jobs, ids, bearer });
    }

    pub(super) fn mule_encoded(
        &mut self,
        now: Now,
        jobs: Vec<Job>,
        ids: Vec<TransferId>,
        bearer: BearerId,
        coded: Result<Arc<[u8]>, String>,
    ) {
        let (Some(first), Some(lead)) = (jobs.first(), ids.first().cloned()) else { return };
        if self.renewal.is_some() || lead.epoch != self.epoch {
            return jobs.iter().for_each(|job| self.put_back(now, job));
        }
        let payload = match coded {
            Ok(payload) => payload,
            Err(why) => return self.mule_failed(now, &jobs, &format!("MULE cannot carry it: {why}")),
        };
        let Some(m) = self.nets.pmul.get(&bearer) else { return };
        let carried = m.net.plan.carries(first.precedence, payload.len() as u64);
        if let (Err(diagnostic), false) = (carried, self.beyond.contains(&first.message)) {
            let excess = match m.net.plan.hold_excess {
                true => Event::Held { why: format!("{BEYOND}{diagnostic}") },
                false => Event::Failed { status: Status(5, 3, 4), remote: None, diagnostic },
            };
            return self.mule_result(now, &jobs, &excess);
        }
        let (body, message) = (self.ids.body(), first.message);
        let transfers = jobs.iter().zip(ids).filter_map(|(job, id)| {
            let Hop::Peer(peer) = &job.hop else { return None };
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
                cut: Cut::default(),
                reliance: Reliance::Nothing,
            };
            Some((record, peer.clone()))
        });
        let transfers = transfers.collect();
        self.step(now, message, Step::Freeze { transfers, payload, text: Arc::default(), omission: None });
    }

    fn mule_failed(&mut self, now: Now, jobs: &[Job], why: &str) {
        jobs.iter().for_each(|job| self.job_failed(now, job, why));
    }

    fn mule_result(&mut self, now: Now, jobs: &[Job], result: &Event) {
        for job in jobs {
            self.job_result(now, job, vec![result.clone(); job.recipients.len()], AirNote::default(), None);
        }
    }

    /// What a step changes besides of what such bearers store: with a transfer its expiry and its number in the row, gone with it.
    pub(in crate::switch) fn mule_changes(
        &mut self,
        record: &MessageRecord,
        step: &Step,
        extra: &[Change],
    ) -> Vec<Change> {
        let dropped = extra.iter().filter_map(|change| match change {
            Change::DropTransfer(id) => self.transfers.get(id),
            _ => None,
        });
        let dropped = dropped.filter(|t| self.nets.pmul.contains_key(&t.bearer));
        let mut changes: Vec<Change> =
            dropped.map(|t| Change::Link(link_key(&t.bearer, &transfer_key(&t.id)), None)).collect();
        let Step::Freeze { transfers, .. } = step else { return changes };
        let expiry = u32::try_from(record.envelope.expires.seconds().clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX);
        for (transfer, peer) in transfers {
            let node = self.plan.mules.iter().find(|m| m.name == *peer).map(|m| m.node);
            let (Some(node), Some(m)) = (node, self.nets.pmul.get_mut(&transfer.bearer)) else { continue };
            let last = m.sequences.entry(node).or_default();
            *last = last.wrapping_add(1);
            let frozen = Frozen {
                expiry,
                sequence: *last,
                max_pdu: u32::try_from(m.net.plan.max_datagram).unwrap_or(u32::MAX),
                priority: mule::pmul_priority(record.envelope.mt_priority),
            };
            let at = |key: Vec<u8>, value: Vec<u8>| Change::Link(link_key(&transfer.bearer, &key), Some(value));
            changes.push(at(transfer_key(&transfer.id), postcard::to_stdvec(&frozen).expect("plain numbers")));
            changes.push(at(sequence_key(node), last.to_be_bytes().to_vec()));
            m.frozen.insert(transfer.id.clone(), frozen);
        }
        changes
    }

    /// Takes a frozen transfer; the message leaves when all that came with it are there.
    pub(in crate::switch) fn put_on_mule(&mut self, now: Now, transfer: &TransferRecord, send: Transfer) {
        self.collect(now, transfer, send.payload, false);
    }

    fn collect(&mut self, now: Now, transfer: &TransferRecord, payload: Arc<[u8]>, resumed: bool) {
        let Hop::Peer(peer) = &transfer.hop else { return };
        let mule = self.mule(peer).map(|m| m.node);
        let Some(m) = self.nets.pmul.get_mut(&transfer.bearer) else { return };
        let known = m.frozen.get(&transfer.id).copied().zip(mule).filter(|_| m.net.plan.peers.contains(peer));
        let Some((frozen, node)) = known else {
            return self.withdraw(now, transfer, "its peer, or what was stored with it, is no longer known here");
        };
        if frozen.max_pdu as usize != m.net.plan.max_datagram {
            return self.withdraw(now, transfer, RECUT);
        }
        let number = number_of(transfer);
        let fresh = m.fresh.entry(number).or_insert_with(|| Outgoing {
            number,
            priority: frozen.priority,
            expiry: frozen.expiry,
            // Chosen when it is known to whom all it goes.
            way: Way::Agreed(Vec::new()),
            destinations: Vec::new(),
            payload,
            resumed,
        });
        fresh.destinations.push(Destination { node, sequence: frozen.sequence });
    }

    /// Hands what was collected to the station.
    pub(super) fn submit_fresh(&mut self, now: Now, name: &BearerId) {
        let Some(m) = self.nets.pmul.get_mut(name).filter(|m| !m.fresh.is_empty()) else { return };
        for (number, mut out) in std::mem::take(&mut m.fresh) {
            let of = self.transfers.values().filter(|t| t.bearer == *name && number_of(t) == number);
            let of: Vec<TransferRecord> = of.cloned().collect();
            let level = of.iter().map(|t| t.precedence).max().unwrap_or(Precedence::Routine);
            out.priority = raised(level, out.priority);
            out.way = self.way_of(name, level, &out.destinations);
            let Some(m) = self.nets.pmul.get_mut(name) else { return };
            match m.station.submit(now, out) {
                Ok(()) => {
                    m.sends.insert(number, Send { level, bytes: 0, air: Duration::ZERO, keyed: false });
                }
                // Its message's life ends at the same moment.
                Err(SubmitError::Expired) => {}
                Err(error) => {
                    let why = format!("the station did not take it: {error:?}");
                    of.iter().for_each(|t| self.withdraw(now, t, &why));
                }
            }
        }
    }

    /// Frozen payloads of before a restart are read again, each once.
    pub(in crate::switch) fn thaw_mule(&mut self) {
        let current = self.transfers.values().filter(|t| t.id.epoch == self.epoch);
        let ours = current.filter(|t| self.nets.pmul.contains_key(&t.bearer));
        let payloads: BTreeMap<(BearerId, u32), BodyRef> =
            ours.map(|t| ((t.bearer.clone(), number_of(t)), t.payload)).collect();
        for ((bearer, number), payload) in payloads {
            let pending = Pending::Thaw { bearer, number };
            self.mule_work(Work::Store(StoreCall::Read(payload, 0, u64::MAX)), pending);
        }
    }

    pub(super) fn mule_thawed(
        &mut self,
        now: Now,
        name: &BearerId,
        number: u32,
        payload: Result<Arc<[u8]>, CommitError>,
    ) {
        if self.renewal.is_some() {
            return;
        }
        for transfer in self.transfers_numbered(name, number) {
            match &payload {
                Ok(payload) => self.collect(now, &transfer, payload.clone(), true),
                Err(error) => {
                    let why = format!("its frozen payload could not be read again: {error}");
                    self.withdraw(now, &transfer, &why);
                }
            }
        }
    }

    fn transfers_numbered(&self, name: &BearerId, number: u32) -> Vec<TransferRecord> {
        let of = |t: &&TransferRecord| t.bearer == *name && t.id.epoch == self.epoch && number_of(t) == number;
        self.transfers.values().filter(of).cloned().collect()
    }

    fn way_of(&self, name: &BearerId, level: Precedence, to: &[Destination]) -> Way {
        let Some(m) = self.nets.pmul.get(name) else { return Way::Agreed(Vec::new()) };
        let peer = |d: &Destination| self.plan.mules.iter().find(|mule| mule.node == d.node);
        let to = to.iter().filter_map(peer).map(|mule| (m.plan.agreed(mule), self.is_silent(&mule.name)));
        way(m, level, &to.collect::<Vec<_>>())
    }

    /// Stores which group a message has, so that it is released after a restart; or that it has none any more.
    pub(super) fn keep_group(&mut self, name: &BearerId, number: u32, group: Option<(Ipv4Addr, u32)>) {
        let value = group.map(|(group, expiry)| [group.octets(), expiry.to_be_bytes()].concat());
        let changes = vec![Change::Link(link_key(name, &group_key(number)), value)];
        self.commit(Batch { conditions: Vec::new(), changes }, crate::switch::Pending::Pmul(Pending::Group));
    }

    /// A part of a message has left.
    pub(super) fn has_left(&mut self, now: Now, name: &BearerId, number: u32, bytes: u64, air: Duration) {
        let Some(send) = self.nets.pmul.get_mut(name).and_then(|m| m.sends.get_mut(&number)) else { return };
        send.bytes += bytes;
        send.air += air;
        if std::mem::replace(&mut send.keyed, true) {
            return;
        }
        let transfers = self.transfers_numbered(name, number);
        let mut messages: Vec<MessageId> = transfers.iter().map(|t| t.message).collect();
        messages.dedup();
        self.keyed_transfers.extend(transfers.into_iter().map(|t| t.id));
        for message in messages {
            self.track(now, message, "keyed", None, Some(name), None);
        }
    }

    /// A node has acknowledged everything, be it late.
    pub(super) fn mule_confirmed(&mut self, now: Now, name: &BearerId, number: u32, node: NodeId) {
        let peer = self.plan.mules.iter().find(|m| m.node == node).map(|m| m.name.clone());
        let Some(peer) = peer else { return };
        let all = self.transfers.values().chain(self.late.values().map(|late| &late.transfer));
        let is = |t: &&TransferRecord| {
            t.bearer == *name && number_of(t) == number && matches!(&t.hop, Hop::Peer(p) if *p == peer)
        };
        let mut all = all.filter(is);
        let Some(id) = all.next().map(|t| t.id.clone()) else { return };
        let spent = self.nets.pmul.get(name).and_then(|m| m.sends.get(&number)).map(|s| (s.bytes, s.air));
        let (bytes, air) = spent.unwrap_or_default();
        self.transfer_confirmed(now, name, &id, bytes, air);
    }

    pub(super) fn mule_sent_blind(&mut self, now: Now, name: &BearerId, number: u32, window: u32, of: u32) {
        let Some(m) = self.nets.pmul.get(name) else { return };
        let (bytes, air) = m.sends.get(&number).map(|s| (s.bytes, s.air)).unwrap_or_default();
        for transfer in self.transfers_numbered(name, number) {
            let Hop::Peer(peer) = &transfer.hop else { continue };
            if !self.is_silent(peer) {
                continue;
            }
            if let Some(m) = self.nets.pmul.get_mut(name) {
                m.blind.insert(transfer.id.clone());
            }
            self.sent_blind(now, name, &transfer.id, window, of, window > 1, bytes, air);
        }
    }

    /// A transfer has ended; with the last of a payload nothing more of it is sent.
    pub(in crate::switch) fn mule_over(&mut self, transfer: &TransferRecord) {
        let number = number_of(transfer);
        let last = self.transfers_numbered(&transfer.bearer, number).is_empty();
        let Some(m) = self.nets.pmul.get_mut(&transfer.bearer) else { return };
        m.frozen.remove(&transfer.id);
        m.blind.remove(&transfer.id);
        if last || transfer.id.epoch != self.epoch {
            m.fresh.remove(&number);
            // Who was still open may yet say that it has it: the station listens on.
            let _ = m.station.cancel(number);
        }
    }

    /// A message has another level.
    pub(in crate::switch) fn expedite_mule(&mut self, now: Now, id: &TransferId, level: Precedence) {
        let Some(transfer) = self.transfers.get(id) else { return };
        let number = number_of(transfer);
        let Some(m) = self.nets.pmul.get_mut(&transfer.bearer) else { return };
        let before = m.frozen.get(id).map(|f| f.priority);
        if let Some(send) = m.sends.get_mut(&number) {
            send.level = level;
        }
        if let Some(before) = before {
            m.station.set_priority(number, raised(level, before));
            if cannot_wait(level) {
                m.station.hurry(now, number);
            }
        }
    }

    /// After a start: what ended unconfirmed is listened for.
    pub(in crate::switch) fn listen_mule(&mut self) {
        let mut open: BTreeMap<(BearerId, u32), (u32, Vec<NodeId>)> = BTreeMap::new();
        for late in self.late.values() {
            let t = &late.transfer;
            let Hop::Peer(peer) = &t.hop else { continue };
            let Some(node) = self.mule(peer).map(|m| m.node) else { continue };
            let number = numbered(t.id.epoch, t.lead.unwrap_or(t.id.counter));
            let until = u32::try_from(late.until().seconds()).unwrap_or(u32::MAX);
            open.entry((t.bearer.clone(), number)).or_insert((until, Vec::new())).1.push(node);
        }
        for ((bearer, number), (until, nodes)) in open {
            if let Some(m) = self.nets.pmul.get_mut(&bearer) {
                m.station.restore_unconfirmed(number, until, nodes);
            }
        }
    }

    /// Tells the stations whether a peer keeps silence.
    pub(in crate::switch) fn believe_mule(&mut self, now: Now, peer: &PeerName, silent: bool) {
        let Some(node) = self.mule(peer).map(|m| m.node) else { return };
        for m in self.nets.pmul.values_mut().filter(|m| m.net.plan.peers.contains(peer)) {
            m.station.set_silent(now, node, silent);
            // What it still lacks is asked for, or no longer.
            m.net.wake = Some(now.at);
        }
    }
}

/// The P_MUL priority of a message at a level: the number it carries counts, and an operator's hand raises it.
fn raised(level: Precedence, carried: u8) -> u8 {
    mule::pmul_priority(Some(level.mt_priority())).min(carried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_keys_come_back() {
        let id = TransferId { origin: "ship".into(), epoch: 0xdead_beef, counter: 77 };
        assert_eq!(transfer_of_key(&transfer_key(&id)), Some(id));
        assert_eq!(transfer_of_key(&sequence_key(NodeId(5))), None);
        assert_eq!(sequence_of(&sequence_key(NodeId(5)), &9_u32.to_be_bytes()), Some((NodeId(5), 9)));
        assert_eq!(transfer_of_key(b"t\x01"), None);
        let (number, group, expiry) = (0xdead_beef, Ipv4Addr::new(239, 2, 3, 4), 0x6b36_ec80_u32);
        let value = [group.octets(), expiry.to_be_bytes()].concat();
        assert_eq!(group_of(&group_key(number), &value), Some((number, group, expiry)));
        assert_eq!(group_of(&group_key(number), b"short"), None);
    }
}
