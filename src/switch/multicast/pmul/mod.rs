//! Bearers that speak P_MUL: each a [`Station`] under the gate, and what the switch must know to turn its words into outcomes.
//!
//! One message on the net is one payload for all MULE peers of one group: the transfers that share a `lead`. Its number comes from the
//! lead's counter and the store's epoch, so no start uses one twice. What goes out stands in `outgoing`, what comes in in `incoming`.

mod incoming;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use crate::bearer::pmul::{self, Leave, MessageKey, Next, NodeId, Outgoing, Pacer, Port, Station};
use crate::codec::mule;
use crate::config::Plan;
use crate::config::plan::{MulePeerPlan, NetPlan, PmulPlan};
use crate::emcon::Purpose;
use crate::mail::{BearerId, MtPriority, PeerName, Precedence, TransferId};
use crate::queue::schedule::Job;
use crate::queue::{Batch, MessageRecord, TransferRecord};
use crate::time::{Duration, Instant, Now};

use super::super::{Switch, WorkResult};
use super::{Net, Stored};

/// Accepted messages that are known again after a restart; the store knows all of them.
const MOST_ACCEPTED: usize = 8192;

/// One bearer with its station.
#[derive(Debug)]
pub(super) struct Pmul {
    pub(super) net: Net,
    plan: PmulPlan,
    pub(super) station: Station,
    /// Messages that are with the station, by number.
    pub(super) sends: BTreeMap<u32, Send>,
    /// Messages whose destinations are still being collected.
    fresh: BTreeMap<u32, Outgoing>,
    /// What was stored with each transfer.
    frozen: BTreeMap<TransferId, Frozen>,
    /// The last Message_Sequence_Number towards each node.
    sequences: BTreeMap<NodeId, u32>,
    /// Accepted messages, as far as they are stored for the next start.
    accepted: BTreeMap<MessageKey, incoming::Known>,
    /// When each peer was last heard.
    pub(super) heard: BTreeMap<PeerName, Instant>,
    /// Transfers that have gone to silent peers.
    pub(super) blind: BTreeSet<TransferId>,
    /// When undecodable payloads were last kept for the operator, and how many since.
    kept: (Instant, u32),
}

/// A message of ours on the air.
#[derive(Debug)]
pub(super) struct Send {
    level: Precedence,
    bytes: u64,
    pub(super) air: Duration,
    keyed: bool,
}

/// What is stored with a transfer, and must be the same after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
struct Frozen {
    /// Expiry_Time: with another one it would be another message.
    expiry: u32,
    sequence: u32,
    /// Into what the payload is cut.
    max_pdu: u32,
    priority: u8,
}

/// What a ticket was for.
#[derive(Debug)]
pub(in crate::switch) enum Pending {
    /// A body is being read for jobs that share a payload.
    Body { jobs: Vec<Job> },
    /// A payload is being made.
    Encoded { jobs: Vec<Job>, ids: Vec<TransferId>, bearer: BearerId },
    /// A frozen payload is being read again after a restart.
    Thaw { bearer: BearerId, number: u32 },
    /// A payload is being opened.
    Decode { bearer: BearerId, heard: incoming::Heard },
    /// A message, or the fact that there is none to keep, is being made durable.
    Accept { bearer: BearerId, message: MessageKey, known: incoming::Known, records: Vec<MessageRecord>, ids: Batch },
    /// The group of a message is being stored, or forgotten.
    Group,
}

/// The number on the net of the payload that a transfer belongs to.
pub(super) fn number_of(transfer: &TransferRecord) -> u32 {
    numbered(transfer.id.epoch, transfer.lead.unwrap_or(transfer.id.counter))
}

/// Counters of one epoch are a row of numbers; where it begins is the epoch's, which is random (A2).
fn numbered(epoch: u32, counter: u32) -> u32 {
    let z = u64::from(epoch).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z >> 32) as u32).wrapping_add(counter)
}

/// The level a P_MUL priority stands for.
fn level_of(priority: u8) -> Precedence {
    mule::mt_priority(priority).precedence()
}

/// The least urgent P_MUL priority that stands for this level or above.
fn least_urgent(lowest: Precedence) -> u8 {
    if lowest == Precedence::Deferred {
        return u8::MAX;
    }
    (0..=15).rev().find(|p| level_of(*p) >= lowest).unwrap_or(0)
}

impl Pmul {
    pub(super) fn open(now: Now, plan: &Plan, p: &PmulPlan, net: Net, stored: Stored, seed: u64) -> Self {
        let peers = plan.mules.iter().filter(|m| p.net.peers.contains(&m.name));
        let peer = |m: &MulePeerPlan| {
            let addresses = m.addresses.clone();
            (m.node, pmul::Peer { addresses, ranges: m.ranges, entry_source: m.entry_source, group: p.agreed(m) })
        };
        let max_pdu = p.net.max_datagram;
        let config = pmul::Config {
            node: p.node,
            checksum: p.checksum,
            max_pdu,
            timers: p.timers.clone(),
            limits: pmul::Limits { sending: outgoing::MOST_SENDING * p.net.peers.len().max(1), ..Default::default() },
            peers: peers.map(peer).collect(),
            dynamic: p.dynamic.as_ref().map(|dynamic| dynamic.machine.clone()),
            seed,
        };
        let mut pmul = Self {
            station: Station::new(config, Pacer::new(p.net.rate, max_pdu as u64 + NetPlan::HEADERS)),
            net,
            plan: p.clone(),
            sends: BTreeMap::new(),
            fresh: BTreeMap::new(),
            frozen: BTreeMap::new(),
            sequences: BTreeMap::new(),
            accepted: BTreeMap::new(),
            heard: BTreeMap::new(),
            blind: BTreeSet::new(),
            kept: (now.at, 0),
        };
        for (key, value) in stored {
            pmul.restore(now, &key, &value);
        }
        pmul
    }

    /// When everything handed out so far has left at the rate.
    pub(super) fn spent_until(&self) -> Instant {
        self.station.spent_until()
    }

    fn restore(&mut self, now: Now, key: &[u8], value: &[u8]) {
        if let Some(id) = outgoing::transfer_of_key(key) {
            if let Ok(frozen) = postcard::from_bytes(value) {
                self.frozen.insert(id, frozen);
            }
        } else if let Some((node, last)) = outgoing::sequence_of(key, value) {
            self.sequences.insert(node, last);
        } else if let Some((message, known)) = incoming::accepted_of(key, value) {
            self.station.restore_accepted(now, message, (known.expiry, known.priority), known.owed);
            self.accepted.insert(message, known);
        } else if let Some((number, group, expiry)) = outgoing::group_of(key, value) {
            self.station.restore_group(number, group, expiry);
        }
    }
}

impl Switch {
    /// The bearer that reaches a MULE peer.
    pub(super) fn mule_to(&self, peer: &PeerName) -> Option<(&BearerId, &Pmul)> {
        self.nets.pmul.iter().find(|(_, m)| m.net.plan.peers.contains(peer))
    }

    fn mule(&self, peer: &PeerName) -> Option<&MulePeerPlan> {
        self.plan.mules.iter().find(|m| m.name == *peer)
    }

    /// A datagram came in.
    pub(super) fn mule_datagram(&mut self, now: Now, name: &BearerId, from: Ipv4Addr, bytes: &[u8]) {
        let peer = self.plan.mules.iter().find(|m| m.addresses.contains(&from)).map(|m| m.name.clone());
        let Some(m) = self.nets.pmul.get_mut(name) else { return };
        if let Some(peer) = peer.filter(|p| m.net.plan.peers.contains(p)) {
            m.heard.insert(peer, now.at);
        }
        m.station.handle_datagram(now, from, bytes);
    }

    pub(super) fn pump_mule(&mut self, now: Now, name: &BearerId) {
        self.submit_fresh(now, name);
        if let Some(m) = self.nets.pmul.get_mut(name).filter(|m| m.net.wake.is_some_and(|at| at <= now.at)) {
            m.station.handle_timeout(now);
        }
        loop {
            let sent = self.send_one(now, name);
            let told = self.hear_station(now, name);
            if !sent && !told {
                break;
            }
        }
        self.plan_wake(now, name);
    }

    /// What the orders let out: acknowledgements down to a priority, messages from a level on.
    fn limits(&self, now: Now, name: &BearerId) -> (Option<u8>, Option<Precedence>) {
        if !self.works(name) {
            return (None, None);
        }
        let answers = self.lowest_for(now, name, Purpose::Report).map(least_urgent);
        (answers, self.lowest_for(now, name, Purpose::Traffic))
    }

    fn send_one(&mut self, now: Now, name: &BearerId) -> bool {
        let (answers, lowest) = self.limits(now, name);
        let Some(m) = self.nets.pmul.get_mut(name) else { return false };
        let Pmul { station, sends, plan, net, .. } = m;
        let level = |number: u32| sends.get(&number).map_or(Precedence::Routine, |s| s.level);
        let leave = Leave { answers, messages: |number| lowest.is_some_and(|lowest| level(number) >= lowest) };
        let of = |next: Next| match next {
            Next::Answer(priority) => Purpose::Report(level_of(priority)),
            Next::Message(number) => Purpose::Traffic(level(number)),
        };
        match station.next(now, &leave) {
            Some((at, _)) if at > now.at => false,
            Some((_, next)) => {
                let purpose = of(next);
                let airtime = net.plan.datagram_air();
                let Ok(permit) = self.gate.permit(now, name, purpose, airtime) else { return false };
                let Some(transmit) = station.poll_permitted(now, &leave) else { return false };
                let port = match transmit.port {
                    Port::Data => plan.data_port,
                    Port::Ack => plan.ack_port,
                    Port::Control => plan.dynamic.as_ref().map_or(0, |dynamic| dynamic.request_port),
                    Port::Announce => plan.dynamic.as_ref().map_or(0, |dynamic| dynamic.announce_port),
                };
                let to = SocketAddrV4::new(transmit.to, port);
                let (output, bytes, air) = net.send(permit, to, purpose, transmit.bytes);
                self.outputs.push_back(output);
                if let Some(number) = transmit.about {
                    self.has_left(now, name, number, bytes, air);
                }
                true
            }
            None => {
                let all = Leave { answers: Some(u8::MAX), messages: |_| true };
                if let Some((_, next)) = station.next(now, &all).filter(|(at, _)| *at <= now.at) {
                    let purpose = of(next);
                    self.barred(now, name, purpose);
                }
                false
            }
        }
    }

    fn plan_wake(&mut self, now: Now, name: &BearerId) {
        let (answers, lowest) = self.limits(now, name);
        let Some(m) = self.nets.pmul.get_mut(name) else { return };
        let level = |number: u32| m.sends.get(&number).map_or(Precedence::Routine, |s| s.level);
        let leave = Leave { answers, messages: |number| lowest.is_some_and(|lowest| level(number) >= lowest) };
        let sends = m.station.next(now, &leave).map(|(at, _)| at);
        m.net.wake = sends.into_iter().chain(m.station.next_deadline(now)).min();
    }

    fn hear_station(&mut self, now: Now, name: &BearerId) -> bool {
        let mut told = false;
        while let Some(event) = self.nets.pmul.get_mut(name).and_then(|m| m.station.poll_event()) {
            told = true;
            match event {
                pmul::Event::Confirmed { number, node, .. } => self.mule_confirmed(now, name, number, node),
                pmul::Event::SentBlind { number, window, of } => self.mule_sent_blind(now, name, number, window, of),
                pmul::Event::Done { number, .. } => {
                    if let Some(m) = self.nets.pmul.get_mut(name) {
                        m.sends.remove(&number);
                    }
                }
                pmul::Event::Whole { message, expiry, priority, payload } => {
                    self.mule_whole(name, incoming::Heard { message, expiry, priority, payload });
                }
                // The message's own life ends at the same moment: `outcome::wake` says what became of it.
                pmul::Event::Unconfirmed { .. } => {}
                pmul::Event::GroupTaken { number, group, expiry } => {
                    self.keep_group(name, number, Some((group, expiry)));
                }
                pmul::Event::GroupReleased { number } => self.keep_group(name, number, None),
                pmul::Event::Discarded { .. } => self.count(name, "discarded"),
                pmul::Event::Expired { .. } => self.count(name, "expired_unfinished"),
            }
        }
        told
    }

    fn count(&mut self, name: &BearerId, what: &'static str) {
        if let Some(m) = self.nets.pmul.get_mut(name) {
            m.net.count(what, 1);
        }
    }

    /// Work for such a bearer came back.
    pub(in crate::switch) fn mule_done(&mut self, now: Now, pending: Pending, result: WorkResult) {
        use crate::queue::{CommitError, StoreResult};
        let stopping = || CommitError::Failed("the node is stopping".into());
        let read = |result| match result {
            WorkResult::Store(StoreResult::Read(result)) => result,
            _ => Err(stopping()),
        };
        match pending {
            Pending::Body { jobs } => self.mule_body_read(now, jobs, read(result)),
            Pending::Encoded { jobs, ids, bearer } => {
                let coded: Result<Vec<u8>, String> = match result {
                    WorkResult::Mule(coded) => coded,
                    _ => Err("the node is stopping".into()),
                };
                self.mule_encoded(now, jobs, ids, bearer, coded.map(Arc::from));
            }
            Pending::Thaw { bearer, number } => self.mule_thawed(now, &bearer, number, read(result)),
            Pending::Decode { bearer, heard } => match result {
                WorkResult::MuleOpened(opened) => self.mule_opened(now, &bearer, heard, opened),
                _ => self.mule_settle(now, &bearer, heard.message, pmul::Verdict::Later),
            },
            Pending::Accept { bearer, message, known, records, ids } => {
                let stored = match result {
                    WorkResult::Store(StoreResult::Committed(result)) => result,
                    _ => Err(stopping()),
                };
                self.mule_stored(now, &bearer, (message, known), records, &ids, stored);
            }
            // Without it a group is not released after a restart; its receivers leave by themselves.
            Pending::Group => {
                if let WorkResult::Store(StoreResult::Committed(Err(error))) = result {
                    self.commit_failed(&error);
                }
            }
        }
    }
}

/// The number a level carries on where none was stated.
fn stated(priority: u8) -> Option<MtPriority> {
    // RFC 8494 has 6 both for 0 and for nothing.
    (priority != mule::pmul_priority(None)).then(|| mule::mt_priority(priority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_and_levels_fit_each_other() {
        for level in Precedence::DESCENDING {
            let least = least_urgent(level);
            assert!(level_of(least) >= level, "{level}");
            assert!(least == u8::MAX || level_of(least + 1) < level, "{level}");
            assert!(mule::pmul_priority(Some(level.mt_priority())) <= least, "{level}");
        }
        assert_eq!((stated(6), stated(2).map(MtPriority::get)), (None, Some(4)));
    }

    #[test]
    fn a2_two_epochs_give_numbers_far_apart_and_one_epoch_a_row() {
        assert_eq!(numbered(7, 5), numbered(7, 4).wrapping_add(1));
        let starts: BTreeSet<u32> = (0..10_000).map(|epoch| numbered(epoch, 0) >> 12).collect();
        assert!(starts.len() > 9_900, "{}", starts.len());
    }
}
