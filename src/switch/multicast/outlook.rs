//! What operators ask of such a bearer: its machine's counts, what an order would put on the air, when a message may arrive.

use crate::emcon::{Gate, Purpose};
use crate::mail::{BearerId, Hop, PeerName, Precedence, Status};
use crate::ops::document::{MulticastStatus, Prediction};
use crate::queue::TransferRecord;
use crate::queue::schedule::ToGo;
use crate::smtp::Reply;
use crate::time::{Duration, Instant, Now, Wall};

use super::super::Switch;
use super::super::predict::tenths;
use super::Net;
use super::pmul::number_of;

impl Switch {
    /// Whether the bearer that reaches a peer over an IP network will take a message of this level and size, in words when it will not
    /// (D5, B6).
    pub(in super::super) fn over_multicast(
        &self,
        now: Now,
        net: &Net,
        peer: &PeerName,
        level: Precedence,
        size: Option<u64>,
    ) -> Option<Reply> {
        if let Some(refused) = self.minimized(now, &net.plan.id, peer, level) {
            return Some(refused);
        }
        let size = size.filter(|size| !self.may_shrink(&net.plan.id, *size, level))?;
        let excess = net.plan.carries(level, size / 3).err()?;
        let text = format!("too big for the link to {peer}: {excess}");
        Some(Reply::new(552, Status(5, 3, 4), text))
    }

    /// The machines as the status shows them.
    pub(in super::super) fn multicast_status(&self) -> Vec<MulticastStatus> {
        let own = |net: &Net| net.counts.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect::<Vec<_>>();
        let pmul = self.nets.pmul.iter().map(|(name, m)| MulticastStatus {
            bearer: name.to_string(),
            up: m.net.up,
            sending: m.sends.len() as u64,
            known: m.station.known_messages() as u64,
            held_bytes: m.station.held_bytes() as u64,
            counts: m.station.counts().iter().map(|(what, n)| (what.to_owned(), n)).chain(own(&m.net)).collect(),
        });
        let aldis = self.nets.aldis.iter().map(|(name, a)| MulticastStatus {
            bearer: name.to_string(),
            up: a.net.up,
            sending: a.station.carried() as u64,
            known: a.station.known() as u64,
            held_bytes: a.station.held().1 as u64,
            counts: a.station.counts().iter().map(|(what, n)| (what.to_owned(), n)).chain(own(&a.net)).collect(),
        });
        pmul.chain(aldis).collect()
    }

    /// When a peer was last heard on a net.
    pub(in super::super) fn heard_on_net(&self, peer: &PeerName) -> Option<Instant> {
        let mules = self.nets.pmul.values().filter_map(|m| m.heard.get(peer).copied());
        mules.chain(self.nets.stations().filter_map(|s| s.heard(peer))).max()
    }

    /// Transfers that have gone to a silent peer and wait for word of it.
    pub(in super::super) fn sent_on_net(&self, peer: &PeerName) -> usize {
        let mule = self.mule_to(peer).map_or(0, |(_, m)| {
            m.blind.iter().filter(|id| self.transfers.get(id).is_some_and(|t| is_to(t, peer))).count()
        });
        mule.max(self.nets.stations().map(|s| s.sent_blind(peer)).max().unwrap_or(0))
    }

    /// Octets and seconds that a payload of so many octets takes, sent once; whether `gate` lets it out.
    pub(in super::super) fn passage_on_net(
        &self,
        now: Now,
        gate: &Gate,
        peer: &PeerName,
        level: Precedence,
        payload_bytes: u64,
    ) -> Option<NetPassage> {
        let net = self.nets.to(peer)?;
        let name = &net.plan.id;
        let lowest = self.lowest_on(now, gate, name);
        let open = lowest.is_some_and(|lowest| level >= lowest)
            && gate.allows(now, name, Purpose::Traffic(level), net.plan.datagram_air()).is_ok();
        let air = net.plan.airtime(payload_bytes);
        Some(NetPassage { bearer: name.clone(), open, air, arrives: air + self.one_way(name) })
    }

    fn one_way(&self, name: &BearerId) -> Duration {
        let aldis = self.plan.multicast.iter().find(|m| m.net.id == *name).map(|m| m.delay);
        let pmul = || self.plan.pmul.iter().find(|p| p.net.id == *name).map(|p| p.timers.round_trip / 2);
        aldis.or_else(pmul).unwrap_or_default()
    }

    /// Reports owed on a net in Aldis mode that an order under this gate would let out, and their time.
    pub(in super::super) fn reports_on_net(&self, now: Now, gate: &Gate, name: &BearerId) -> (u64, Duration) {
        let Some(station) = self.nets.station(name) else { return (0, Duration::ZERO) };
        let owed = station.reports_owed();
        let report = Purpose::Report(Precedence::Override);
        match gate.allows(now, name, report, Duration::ZERO) {
            Ok(()) => (owed as u64, station.report_air().saturating_mul(u32::try_from(owed).unwrap_or(u32::MAX))),
            Err(_) => (0, Duration::ZERO),
        }
    }

    /// What is to be expected of a frozen payload.
    pub(in super::super) fn predict_on_net(
        &self,
        now: Now,
        transfer: &TransferRecord,
        peer: &PeerName,
    ) -> Option<Prediction> {
        let record = self.active.record(transfer.message)?;
        let passage = self.passage_on_net(now, &self.gate, peer, record.precedence, transfer.payload_bytes.into())?;
        let to = |i: &u32| record.envelope.recipients.get(usize::try_from(*i).ok()?).map(|r| r.address.to_string());
        let mule = self.mule_to(peer).and_then(|(_, m)| m.sends.get(&number_of(transfer)));
        let missing = self.nets.stations().find_map(|s| s.missing(&transfer.id));
        let sent = match missing {
            Some((need, missing)) => {
                let share = f64::from(need.saturating_sub(missing)) / f64::from(need.max(1));
                Duration::from_secs_f64(passage.air.as_secs_f64() * share)
            }
            None => mule.map_or(Duration::ZERO, |s| s.air),
        };
        let left = passage.arrives.saturating_sub(sent);
        Some(passage.told(now, transfer.recipients.iter().filter_map(to).collect(), peer, left))
    }

    /// What is to be expected of a message that is not frozen yet.
    pub(in super::super) fn predict_to_come_on_net(
        &self,
        now: Now,
        w: &ToGo<'_>,
        peer: &PeerName,
    ) -> Option<Prediction> {
        let load = self.load_to_come(w.record, peer);
        let passage = self.passage_on_net(now, &self.gate, peer, load.level, load.payload_bytes)?;
        let recipients = w.recipients().map(|r| r.address.to_string()).collect();
        let left = passage.arrives;
        Some(passage.told(now, recipients, peer, left))
    }
}

fn is_to(transfer: &TransferRecord, peer: &PeerName) -> bool {
    matches!(&transfer.hop, Hop::Peer(p) if p == peer)
}

/// What a payload would take.
pub(in super::super) struct NetPassage {
    pub(in super::super) bearer: BearerId,
    pub(in super::super) open: bool,
    pub(in super::super) air: Duration,
    arrives: Duration,
}

impl NetPassage {
    fn told(self, now: Now, recipients: Vec<String>, peer: &PeerName, left: Duration) -> Prediction {
        let why = match self.open {
            true => format!("{} would take {:.0} s when nothing is lost", self.bearer, left.as_secs_f64()),
            false => "held by order".to_owned(),
        };
        Prediction {
            recipients,
            peer: peer.to_string(),
            bearer: Some(self.bearer.to_string()),
            air_s: tenths(self.air.as_secs_f64()),
            delivered_at: self.open.then(|| now.wall.plus(left)).map(Wall::rfc3339),
            why,
        }
    }
}
