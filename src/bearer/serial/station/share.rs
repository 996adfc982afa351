//! One node, several bearers: what its stations tell one another by way of the switch, and how a transfer goes on over another one.
//!
//! Symbols belong to no bearer (link-rules C3). What one station has committed of a peer's transfer the others take for held, so that
//! every report speaks of the whole, and one transfer becomes whole from what came over all of them. On the way out each station
//! knows its [`Role`] for a transfer; whoever takes it over begins with symbols that have not left, for what the peer still lacks.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::super::incoming::{Ending, Key, Partial, Stage};
use super::super::outgoing::{Headway, Outgoing, OutgoingRecord, Role};
use super::compose::SHARE_BYTES;
use super::{Phase, Station};
use crate::bearer::fec::Geometry;
use crate::bearer::{Event, Holding, Share, Transfer, WaveformName};
use crate::mail::{PeerName, Precedence, TransferId};
use crate::time::{Duration, Instant};

/// What a station knows of the way to a peer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Outlook {
    /// The modem or its port is away, does not key, or tells of a carrier that never ends.
    pub broken: bool,
    /// Turns in a row that the peer did not answer, or not so that it could be read.
    pub unanswered: u32,
    /// Estimated share of cells lost on the way there.
    pub loss: f64,
    /// The peer has said that it knows no more of this node's past than the store does.
    pub agrees: bool,
}

impl Station {
    /// What is known of the way to a peer; `None` when it is no peer of this link.
    pub fn outlook(&self, peer: &PeerName) -> Option<Outlook> {
        let (station, p) = self.peers.iter().find(|(_, p)| p.name == *peer)?;
        let broken = matches!(self.phase, Phase::Down) || self.unkeyable || self.carrier_stuck;
        // An answer that cannot be read is worth half of one.
        let unanswered = p.attempts + p.garbled.div_ceil(2);
        let reach = self.adapt.as_ref().and_then(|a| Some((a, a.reaches.get(station)?)));
        let loss = reach.map_or_else(|| p.loss(), |(a, r)| r.loss(&a.palette, r.present()));
        Some(Outlook { broken, unanswered, loss, agrees: p.agrees })
    }

    /// Bytes of symbols that go before the last of `bytes` at `level`, the transfer's own aside: all of what stands higher, and of equals
    /// what their turns bring. What several peers take from the same symbols counts once.
    pub fn ahead(&self, level: Precedence, bytes: u64, but: Option<&TransferId>) -> u64 {
        let me = but.and_then(|id| self.outgoing.get(id));
        // What is new has its first share before those who have had one.
        let turn = me.map_or(0, |t| t.turn);
        let own = me.and_then(Outgoing::group);
        let before = |t: &Outgoing| {
            let missing = u64::from(t.missing()) * t.geometry.symbol_bytes() as u64;
            let first = (t.turn, Some(&t.transfer.id)) < (turn, but) || but.is_none() && t.turn == turn;
            waits(t.transfer.precedence, missing, level, bytes, first)
        };
        let (mut groups, mut sum) = (BTreeMap::new(), 0);
        for t in self
            .outgoing
            .values()
            .filter(|t| t.role == Role::Carry && Some(&t.transfer.id) != but && self.to_be_sent(t))
        {
            match t.group() {
                Some(group) if Some(group) == own => {}
                Some(group) => {
                    let most: &mut u64 = groups.entry(group).or_default();
                    *most = before(t).max(*most);
                }
                None => sum += before(t),
            }
        }
        let queued = self.queued.iter().filter(|t| Some(&t.id) != but);
        let queued = queued.map(|t| waits(t.precedence, t.payload.len() as u64, level, bytes, false));
        sum + groups.values().sum::<u64>() + queued.sum::<u64>()
    }

    /// The waveform that traffic to a peer has now.
    pub fn spoken_to(&self, peer: &PeerName) -> &WaveformName {
        let station = self.peers.iter().find(|(_, p)| p.name == *peer).map(|(station, _)| station);
        let adapt = self.adapt.as_ref();
        let known = adapt.and_then(|a| Some(a.palette.choice(a.reaches.get(station?)?.present())));
        known.map_or(&self.config.named, |choice| &choice.name)
    }

    /// How long what is handed in now waits before this station can key for it, as far as is known: its own rank on an idle link, a whole
    /// turnaround where somebody speaks or is to answer.
    pub fn begins_after(&self, now: Instant) -> Duration {
        if self.is_keying() {
            return Duration::ZERO;
        }
        if self.carrier.is_some() || self.hearing.is_some() || self.await_until.is_some() {
            return self.air.waveform().turnaround;
        }
        self.hold.map_or(Duration::ZERO, |at| at.since(now))
    }

    /// Peers a report would be said to if silence ended now.
    pub fn reports_owed(&self) -> usize {
        self.peers.values().filter(|p| p.owed || p.unasked).count()
    }

    /// What this station does for a transfer.
    pub fn role(&self, id: &TransferId) -> Option<Role> {
        self.outgoing.get(id).map(|t| t.role)
    }

    /// A transfer that is held here.
    pub fn transfer(&self, id: &TransferId) -> Option<&Transfer> {
        self.outgoing.get(id).map(|t| &t.transfer)
    }

    /// Bytes and share of key-down time that a transfer has cost here.
    pub fn spent(&self, id: &TransferId) -> (u64, Duration) {
        self.outgoing.get(id).map_or_else(Default::default, |t| (t.bytes, t.air))
    }

    /// How far a transfer has come here, before a restart too.
    pub fn headway(&self, id: &TransferId) -> Option<Headway> {
        let left = |r: &OutgoingRecord| Headway {
            row: r.reserved,
            sent: r.reserved > 0,
            sure: r.reserved == 0,
            epoch: r.peer_epoch,
            lack: r.lack.clone(),
        };
        self.outgoing.get(id).map(Outgoing::headway).or_else(|| self.left_over.get(id).map(left))
    }

    /// Symbols a transfer needs at the far side, and those it still lacks there, as far as is known here.
    pub fn missing(&self, id: &TransferId) -> Option<(u32, u32)> {
        self.outgoing.get(id).map(|t| (t.geometry.count(), t.missing()))
    }

    /// Whether the question is open if a number was used before.
    pub fn doubts(&self, id: &TransferId) -> bool {
        self.outgoing.get(id).is_none_or(|t| t.unsent && t.unsure)
    }

    /// Takes part in carrying a transfer, from where others have brought it.
    pub fn take_part(&mut self, now: Instant, transfer: Transfer, role: Role, from: &Headway) {
        let id = transfer.id.clone();
        let peer = self.peers.iter().find(|(_, p)| p.name == transfer.to).map(|(s, p)| (*s, p.not_before));
        if !self.outgoing.contains_key(&id) {
            self.send(now, transfer);
            if let Some((station, waits)) = peer.filter(|_| role != Role::Carry)
                && let Some(p) = self.peers.get_mut(&station)
            {
                // Only what is carried is worth another try at once.
                p.not_before = waits;
            }
        }
        let silent = self.outgoing.get(&id).is_some_and(|t| self.is_silent(t.station));
        let Some(t) = self.outgoing.get_mut(&id) else { return };
        t.role = role;
        t.go_on(from);
        match role {
            _ if silent => t.unsure = false,
            Role::Carry => t.unsure |= from.sent && !from.sure,
            Role::Ask => t.unsure = true,
            Role::Rest => {}
        }
        if role != Role::Carry {
            // Another bearer sends it: what the peer knows of it is no sign of an old store.
            t.unsent = false;
        }
        self.reserve_rows(&id);
    }

    /// Another bearer carries this transfer too: that the peer knows of it is no sign of an old store.
    pub fn carried_elsewhere(&mut self, id: &TransferId) {
        if let Some(t) = self.outgoing.get_mut(id) {
            t.unsent = false;
        }
    }

    /// What the far side said over another bearer.
    pub fn learn(&mut self, id: &TransferId, epoch: u32, lack: &[u8]) {
        if let Some(t) = self.outgoing.get_mut(id) {
            t.learn(epoch, lack);
        }
    }

    /// Stops a transfer that another bearer has brought to its end. Nothing is said on the air; what is stored of it stays until it is
    /// cancelled.
    pub fn withdraw(&mut self, now: Instant, id: &TransferId) {
        self.queued.retain(|t| t.id != *id);
        if self.outgoing.contains_key(id) {
            self.close(id);
            self.next_queued(now);
        }
    }

    /// A transfer number was given out, on whichever bearer.
    pub fn given_out(&mut self, id: &TransferId) {
        if id.epoch == self.config.epoch {
            self.highest = self.highest.max(id.counter);
        }
    }

    /// Everything that is held of transfers of stations that other bearers reach too.
    pub fn held(&self) -> Vec<Share> {
        let shared = |key: &Key| key.1 != 0 && self.config.siblings.contains(&key.0);
        let share = |key: &Key, holding| Share { station: key.0, epoch: key.1, counter: key.2, holding };
        let finished = self.finished.iter().filter(|(k, _)| shared(k)).map(|(k, e)| share(k, (*e).into()));
        let partials = self.partials.iter().filter(|(k, _)| shared(k)).map(|(k, p)| {
            let symbols = p.symbols.iter().filter(|(_, (_, committed))| *committed);
            let symbols = symbols.map(|(q, (bytes, _))| (*q, bytes.clone())).collect();
            share(k, Holding::Symbols { geometry: p.geometry, symbols })
        });
        finished.chain(partials).collect()
    }

    /// Takes what another bearer of this node holds, as if it were held here.
    pub fn adopt(&mut self, now: Instant, share: Share) {
        let Share { station, epoch, counter, holding } = share;
        let Some(peer) = self.peers.get_mut(&station) else { return };
        let (present, new) = peer.record.acquaint(epoch, counter);
        if new {
            self.new_epoch(station, epoch);
        }
        if !present {
            return;
        }
        if let Some(peer) = self.peers.get(&station) {
            // Our next report names that epoch, and what answers it may be brief.
            self.ring.heard_from(station, epoch, peer.record.control_seen);
        }
        let key = (station, epoch, counter);
        match holding {
            Holding::Epoch => {}
            Holding::Symbols { geometry, symbols } => self.adopt_symbols(now, key, geometry, symbols),
            Holding::Accepted => self.adopt_ending(key, Ending::Accepted),
            Holding::Refused(reason) => self.adopt_ending(key, Ending::Refused(reason)),
            Holding::Dropped => _ = self.discard(key),
        }
    }

    fn adopt_symbols(&mut self, now: Instant, key: Key, geometry: Geometry, symbols: Vec<(u16, Vec<u8>)>) {
        let other = self.partials.get(&key).is_some_and(|p| p.geometry != geometry);
        if other || self.finished.contains_key(&key) {
            return;
        }
        if !self.partials.contains_key(&key) && !self.make_room(now, key, geometry) {
            return;
        }
        let partial = self.partials.entry(key).or_insert_with(|| Partial::new(geometry, now));
        partial.touched = now;
        for (q, bytes) in symbols {
            partial.take(q, bytes, true);
        }
        if partial.stage == Stage::Filling && partial.is_whole() {
            self.gather(key);
        }
    }

    fn adopt_ending(&mut self, key: Key, ending: Ending) {
        if matches!(self.partials.get(&key).map(|p| &p.stage), Some(Stage::Ending(..))) {
            // Its own end is on the way into the store.
            return;
        }
        self.discard(key);
        if !self.finished.contains_key(&key) {
            self.finish(key, ending);
        }
    }

    /// Tells the other bearers what is committed here.
    pub(super) fn share_symbols(&mut self, key: Key, numbers: &[u16]) {
        if !self.config.siblings.contains(&key.0) {
            return;
        }
        let Some(p) = self.partials.get(&key) else { return };
        let symbols = numbers.iter().filter_map(|q| p.symbols.get(q).map(|(bytes, _)| (*q, bytes.clone()))).collect();
        let geometry = p.geometry;
        self.share(key, Holding::Symbols { geometry, symbols });
    }

    pub(super) fn share(&mut self, key: Key, holding: Holding) {
        // A transfer without its sender's epoch has no name that another station would know.
        if key.1 != 0 && self.config.siblings.contains(&key.0) {
            let share = Share { station: key.0, epoch: key.1, counter: key.2, holding };
            self.events.push_back(Event::Shared(share));
        }
    }
}

/// Of so many bytes at a level, those that go before the last of `own_bytes` at `own`; equals take turns, and `first` has the next one.
pub fn waits(level: Precedence, bytes: u64, own: Precedence, own_bytes: u64, first: bool) -> u64 {
    let share = SHARE_BYTES as u64;
    match level.cmp(&own) {
        Ordering::Less => 0,
        Ordering::Equal => {
            bytes.min((own_bytes.div_ceil(share) - u64::from(!first && own_bytes > 0)).saturating_mul(share))
        }
        Ordering::Greater => bytes,
    }
}

impl From<Ending> for Holding {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Accepted => Self::Accepted,
            Ending::Refused(reason) => Self::Refused(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_higher_goes_first_and_equals_take_turns() {
        use Precedence::{Deferred, Flash, Routine};
        for (level, bytes, own_bytes, first, before) in [
            (Flash, 9000, 100, false, 9000),
            (Deferred, 9000, 100, true, 0),
            (Routine, 9000, 100, true, 2048),
            (Routine, 9000, 100, false, 0),
            (Routine, 9000, 5000, true, 3 * 2048),
            (Routine, 9000, 5000, false, 2 * 2048),
            (Routine, 700, 5000, false, 700),
            (Routine, 700, 0, false, 0),
            (Routine, 700, u64::MAX, true, 700),
        ] {
            assert_eq!(waits(level, bytes, Routine, own_bytes, first), before, "{level} {bytes} {own_bytes} {first}");
        }
    }
}
