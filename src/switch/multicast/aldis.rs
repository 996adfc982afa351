//! Bearers in Aldis mode: each a [`Station`] under the gate. Payloads are made, frozen, judged and confirmed as on a serial bearer; one that
//! is for several peers of the group goes to the station once, under the number of its first transfer.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::bearer::Transfer;
use crate::bearer::multicast::{Config, Outgoing, PeerConfig, Station};
use crate::codec::repertoire::Repertoire;
use crate::config::Plan;
use crate::config::plan::{MulticastPlan, PeerPlan};
use crate::emcon::Purpose;
use crate::mail::{BearerId, Hop, MessageId, PeerName, Precedence, TransferId};
use crate::queue::schedule::Allowance;
use crate::queue::{Ids, Opened, TransferRecord};
use crate::time::Now;

use super::super::silence::{MOST_UNCONFIRMED, policies};
use super::super::{MAX_PARTIAL_BYTES, MAX_PARTIALS, Switch};
use super::{Net, Stored};

/// Payloads of one level or above to one peer at once.
const JOBS: usize = 16;
/// Finished transfers of others that are remembered: what is said of them again is answered, and not stored again.
const MAX_FINISHED: usize = 4096;

/// One bearer with its station.
#[derive(Debug)]
pub(super) struct Aldis {
    pub(super) net: Net,
    pub(super) station: Station,
    /// Payloads of which something has left since the start.
    left: BTreeSet<u32>,
}

/// The number on the net of the payload that a transfer belongs to.
fn lead_of(transfer: &TransferRecord) -> u32 {
    transfer.lead.unwrap_or(transfer.id.counter)
}

impl Aldis {
    pub(super) fn open(
        now: Now,
        plan: &Plan,
        own: &MulticastPlan,
        net: Net,
        opened: &Opened,
        ids: &Ids,
        stored: Stored,
    ) -> Self {
        let peer = |p: &PeerPlan| PeerConfig {
            name: p.name.clone(),
            station: p.station,
            protection: p.protection,
            keys: p.keys.clone(),
            assumed_loss: p.assumed_loss,
        };
        let config = Config {
            name: plan.node.name.clone(),
            station: own.station,
            epoch: opened.epoch,
            fresh: opened.fresh,
            highest: ids.highest_transfer(),
            // A payload for several names no earlier message, so nobody keeps any for it.
            reads: Repertoire::own(false).bits(),
            group: own.group(),
            peers: plan.peers.iter().filter(|p| own.net.peers.contains(&p.name)).map(peer).collect(),
            blind: policies(plan),
            rate: own.net.rate,
            delay: own.delay,
            max_datagram: own.net.max_datagram,
            max_partials: MAX_PARTIALS,
            max_partial_bytes: MAX_PARTIAL_BYTES,
            max_finished: MAX_FINISHED,
        };
        let mut station = Station::new(now.at, config, stored);
        let frozen = opened.transfers.iter().filter(|t| t.bearer == own.net.id && t.id.epoch == opened.epoch);
        let frozen: BTreeSet<u32> = frozen.map(lead_of).collect();
        station.keep_only(|lead| frozen.contains(&lead));
        Self { net, station, left: BTreeSet::new() }
    }
}

impl Switch {
    /// What may go to a peer over its bearer in Aldis mode now.
    pub(in super::super) fn towards_aldis(&self, now: Now, net: &Net, peer: &PeerName) -> Option<Allowance> {
        let lowest = self.lowest_on(now, &self.gate, &net.plan.id)?;
        let recipients = super::super::dispatch::recipients_within(net.plan.max_payload_bytes);
        let jobs = JOBS + self.waiting_for_word(peer) + self.receipts_along(peer);
        Some(Allowance { jobs, lowest, recipients })
    }

    /// Transfers to a silent peer that have gone and wait for word of it.
    pub(in super::super) fn waiting_on_aldis(&self, peer: &PeerName) -> usize {
        self.nets.stations().map(|s| s.sent_blind(peer)).max().unwrap_or(0).min(MOST_UNCONFIRMED)
    }

    /// Hands a frozen payload to its station; the second and further transfers of one payload join the first.
    pub(in super::super) fn put_on_aldis(
        &mut self,
        now: Now,
        name: &BearerId,
        record: &TransferRecord,
        send: Transfer,
    ) {
        if let Some(known) = self.transfers.get_mut(&record.id) {
            known.bearer = name.clone();
        }
        let Some(a) = self.nets.aldis.get_mut(name) else { return };
        let Transfer { id, to, precedence, payload, cut, lead } = send;
        let lead = lead.unwrap_or(id.counter);
        // Of this one nothing has left yet.
        a.left.remove(&lead);
        a.station.send(now.at, Outgoing { lead, precedence, payload, cut, to: vec![(to, id)] });
    }

    pub(super) fn pump_aldis(&mut self, now: Now, name: &BearerId) {
        if let Some(a) =
            self.nets.aldis.get_mut(name).filter(|a| a.station.next_timeout().is_some_and(|at| at <= now.at))
        {
            a.station.handle_timeout(now.at);
        }
        loop {
            let sent = self.send_aldis(now, name);
            let told = self.hear_aldis(now, name);
            if !sent && !told {
                break;
            }
        }
        self.wake_aldis(now, name);
    }

    fn hear_aldis(&mut self, now: Now, name: &BearerId) -> bool {
        let mut told = false;
        while let Some(event) = self.nets.station_mut(name).and_then(Station::poll_event) {
            told = true;
            self.bearer_event(now, name, event);
        }
        told
    }

    fn send_aldis(&mut self, now: Now, name: &BearerId) -> bool {
        let (works, lowest) = (self.works(name), self.lowest_for(now, name, Purpose::Traffic));
        let Some(a) = self.nets.aldis.get_mut(name) else { return false };
        let airtime = a.net.plan.datagram_air();
        let gate = &self.gate;
        a.station.carry_from(lowest);
        let purpose = a.station.next_purpose(now.at, |p| works && gate.allows(now, name, p, airtime).is_ok());
        let Some(purpose) = purpose else {
            // What would leave if nothing were forbidden is told of once.
            a.station.carry_from(Some(Precedence::Deferred));
            let barred = a.station.wants(now.at, |_| true).filter(|_| works && !a.net.silence_told);
            a.station.carry_from(lowest);
            if let Some(purpose) = barred {
                self.barred(now, name, purpose);
            }
            return false;
        };
        let Ok(permit) = self.gate.permit(now, name, purpose, airtime) else { return false };
        let Some(transmit) = a.station.poll_permitted(now.at, purpose) else { return false };
        // Reports too go to the group: nobody needs to know an address.
        let group = a.net.plan.groups.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let to = SocketAddrV4::new(group, a.net.plan.ports.first().copied().unwrap_or(0));
        let (output, ..) = a.net.send(permit, to, purpose, transmit.bytes);
        self.outputs.push_back(output);
        if let Some(lead) = transmit.about {
            self.left_on_aldis(now, name, lead);
        }
        true
    }

    fn wake_aldis(&mut self, now: Now, name: &BearerId) {
        let works = self.works(name);
        let Some(a) = self.nets.aldis.get_mut(name) else { return };
        let (airtime, gate) = (a.net.plan.datagram_air(), &self.gate);
        let sends = a.station.next_send(|p| works && gate.allows(now, name, p, airtime).is_ok());
        a.net.wake = sends.into_iter().chain(a.station.next_timeout()).min();
    }

    /// Symbols of a payload have left.
    fn left_on_aldis(&mut self, now: Now, name: &BearerId, lead: u32) {
        let Some(a) = self.nets.aldis.get_mut(name) else { return };
        if !a.left.insert(lead) {
            return;
        }
        let of = |t: &&TransferRecord| t.bearer == *name && t.id.epoch == self.epoch && lead_of(t) == lead;
        let fresh = self.transfers.values().filter(of).filter(|t| !self.keyed_transfers.contains(&t.id));
        let (ids, mut messages): (Vec<TransferId>, Vec<MessageId>) = fresh.map(|t| (t.id.clone(), t.message)).unzip();
        messages.dedup();
        self.keyed_transfers.extend(ids);
        for message in messages {
            self.track(now, message, "keyed", None, Some(name), None);
        }
    }

    /// A transfer has ended.
    pub(in super::super) fn aldis_over(&mut self, transfer: &TransferRecord) {
        let lead = lead_of(transfer);
        let same =
            |t: &TransferRecord| t.bearer == transfer.bearer && t.id.epoch == transfer.id.epoch && lead_of(t) == lead;
        let last = !self.transfers.values().any(same);
        let current = transfer.id.epoch == self.epoch;
        self.nets.stations_mut().for_each(|station| station.cancel(&transfer.id));
        if let Some(a) = self.nets.aldis.get_mut(&transfer.bearer).filter(|_| last && current) {
            a.left.remove(&lead);
            a.station.keep_only(|left| left != lead);
        }
    }

    /// The hops that can take the same payload as this one: the others of its group.
    pub(in super::super) fn aldis_along(&self, hop: &Hop) -> Option<Vec<Hop>> {
        let Hop::Peer(peer) = hop else { return None };
        let net = self.nets.aldis_to(peer)?;
        Some(net.plan.peers.iter().map(|p| Hop::Peer(p.clone())).collect())
    }
}
