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
use super::{Multicast, number_of};

impl Switch {
    /// Whether a MULE peer's bearer will take a message of this level and size, in words when it will not (D5, B6).
    pub(in super::super) fn over_multicast(
        &self,
        now: Now,
        peer: &PeerName,
        level: Precedence,
        size: Option<u64>,
    ) -> Option<Reply> {
        let (name, m) = self.multicast_to(peer)?;
        if let Some(refused) = self.minimized(now, name, peer, level) {
            return Some(refused);
        }
        let excess = m.plan.carries(level, size? / 3).err()?;
        let text = format!("too big for the link to {peer}: {excess}");
        Some(Reply::new(552, Status(5, 3, 4), text))
    }

    /// The machines as the status shows them.
    pub(in super::super) fn multicast_status(&self) -> Vec<MulticastStatus> {
        let shown = |(name, m): (&BearerId, &Multicast)| {
            let own = m.counts.iter().map(|(what, n)| ((*what).to_owned(), *n));
            MulticastStatus {
                bearer: name.to_string(),
                up: m.up,
                sending: m.sends.len() as u64,
                known: m.station.known_messages() as u64,
                held_bytes: m.station.held_bytes() as u64,
                counts: m.station.counts().iter().map(|(what, n)| (what.to_owned(), n)).chain(own).collect(),
            }
        };
        self.multicast.iter().map(shown).collect()
    }

    /// When a peer was last heard on a net.
    pub(in super::super) fn heard_on_net(&self, peer: &PeerName) -> Option<Instant> {
        self.multicast.values().filter_map(|m| m.heard.get(peer)).max().copied()
    }

    /// Transfers that have gone to a silent peer and wait for word of it.
    pub(in super::super) fn sent_on_net(&self, peer: &PeerName) -> usize {
        let Some((_, m)) = self.multicast_to(peer) else { return 0 };
        m.blind.iter().filter(|id| self.transfers.get(id).is_some_and(|t| is_to(t, peer))).count()
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
        let (name, m) = self.multicast_to(peer)?;
        let lowest = self.lowest_on(now, gate, name);
        let open = lowest.is_some_and(|lowest| level >= lowest)
            && gate.allows(now, name, Purpose::Traffic(level), Self::airtime(m)).is_ok();
        let air = m.plan.airtime(payload_bytes);
        Some(NetPassage { bearer: name.clone(), open, air, arrives: air + m.plan.timers.round_trip / 2 })
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
        let (_, m) = self.multicast_to(peer)?;
        let to = |i: &u32| record.envelope.recipients.get(usize::try_from(*i).ok()?).map(|r| r.address.to_string());
        let sent = m.sends.get(&number_of(transfer)).map_or(Duration::ZERO, |s| s.air);
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
