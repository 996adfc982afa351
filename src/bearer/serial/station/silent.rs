//! Peers that keep silence: what goes to them goes blind (docs/blind.md).
//!
//! The switch says which peers are silent ([`Station::believe`]); what is heard overrides nobody's word and is shown beside it. Towards
//! a silent peer nothing is ever in doubt: no polls, no waiting, no cancels. A transfer gets its windows, each with fresh symbols and
//! enough of them to make a receiver whole that heard none before, and is then kept until there is word of it. A report at any time is
//! taken as ever; what it says is lacking is sent in windows of its own. When the silence is over, what has left since is in doubt as usual.

use std::collections::{BTreeMap, BTreeSet};

use super::super::blind::{self, Policy};
use super::super::burst::Layout;
use super::super::outgoing::{Outgoing, Role};
use super::keep::{encode, outgoing_key};
use super::turn::ready;
use super::{Pending, Station, Transmission};
use crate::bearer::Event;
use crate::mail::{PeerName, TransferId};
use crate::time::{Duration, Instant};

/// Share of what may fail that words to several, or to one who does not know this node's epoch, may take.
const WORDS: f64 = 0.1;

impl Station {
    /// Says whether a peer keeps silence.
    pub fn believe(&mut self, now: Instant, peer: &PeerName, silent: bool) {
        let Some((station, p)) = self.peers.iter_mut().find(|(_, p)| p.name == *peer) else { return };
        if p.silent == silent {
            return;
        }
        let (station, agrees) = (*station, p.agrees);
        (p.silent, p.spoke, p.not_before) = (silent, None, None);
        p.attempts = 0;
        if silent {
            self.awaited.remove(&station);
            if self.awaited.is_empty() {
                self.await_until = None;
            }
        } else {
            // Reports first: whoever leaves silence has its slot before anything is asked.
            self.hold_for(now, self.slot() * (self.everyone().count() + 1));
        }
        for t in self.outgoing.values_mut().filter(|t| t.station == station) {
            t.unsure = !silent && if t.unsent { !agrees } else { t.unspoken() };
            t.not_before = None;
        }
    }

    /// Whether a peer keeps silence.
    pub(super) fn is_silent(&self, station: u8) -> bool {
        self.peers.get(&station).is_some_and(|p| p.silent)
    }

    /// Transfers to a peer that have had a window and now wait for the next, or for word.
    pub fn sent_blind(&self, peer: &PeerName) -> usize {
        let Some(station) = self.peers.iter().find(|(_, p)| p.name == *peer && p.silent).map(|(s, _)| *s) else {
            return 0;
        };
        self.outgoing.values().filter(|t| t.station == station && t.record.windows > 0).count()
    }

    /// When a peer was last heard although it is taken for silent.
    pub fn heard_in_silence(&self, peer: &PeerName) -> Option<Instant> {
        self.peers.values().find(|p| p.name == *peer)?.spoke
    }

    fn policy(&self, t: &Outgoing) -> Policy {
        self.config.blind.get(&t.transfer.precedence).copied().unwrap_or_default()
    }

    /// Whether there is a window left to send a silent peer's transfer in.
    pub(super) fn has_window(&self, t: &Outgoing) -> bool {
        t.record.windows < self.policy(t).windows
    }

    /// Whether a silent peer's transfer goes in a window that may be open now.
    pub(super) fn in_window(&self, t: &Outgoing, now: Instant) -> bool {
        t.role == Role::Carry
            && t.missing() > 0
            && t.symbols.is_some()
            && t.next_bytes().is_some()
            && ready(t.not_before, now)
            && self.has_window(t)
    }

    /// Chance that may remain that one receiver of this transfer does not get it; and of that the part that words may take.
    fn failure(&self, t: &Outgoing) -> (f64, f64) {
        let receivers = self.siblings(&t.transfer.id).into_iter().filter_map(|id| self.outgoing.get(&id));
        let receivers = receivers.filter(|o| self.is_silent(o.station)).count().max(1);
        let failure = (1.0 - self.policy(t).target) / receivers as f64;
        if self.must_greet(t) { (failure * (1.0 - WORDS), failure * WORDS) } else { (failure, 0.0) }
    }

    /// Symbols of a silent peer's transfer that this window still needs.
    pub(super) fn window_needs(&self, t: &Outgoing, layout: &Layout) -> u32 {
        let each = super::group::frame_symbols(layout, t);
        blind::symbols(&t.lack, each, layout.loss, self.failure(t).0).saturating_sub(t.sent)
    }

    /// The layout that brings these transfers to their silent receivers in the fewest bytes.
    pub(super) fn blind_layout(&self, transfers: &[&Outgoing], loss: f64, symbol: usize) -> Layout {
        let cost = |layout: &Layout| {
            let frames = |t: &&Outgoing| {
                let each = super::group::frame_symbols(layout, t);
                u64::from(blind::symbols(&t.lack, each, layout.loss, self.failure(t).0).div_ceil(each))
            };
            transfers.iter().map(frames).sum::<u64>() * layout.stride as u64
        };
        self.air.layouts(loss, symbol).into_iter().min_by_key(cost).unwrap_or_else(|| self.air.layout(loss, symbol))
    }

    /// Bytes that the windows of these transfers need, those of a group once, with the words that go along.
    pub(super) fn window_bytes(&self, transfers: &[&Outgoing], layout: &Layout) -> u64 {
        let mut alone = 0;
        let mut groups = BTreeMap::new();
        for t in transfers.iter().filter(|t| self.is_silent(t.station)) {
            let each = super::group::frame_symbols(layout, t);
            let words = self.copies(t, layout);
            // A word takes the place of a symbol or two in its frame.
            let displaced = if words > 0 { words * 2 } else { 0 };
            let frames = u64::from((self.window_needs(t, layout) + displaced).div_ceil(each));
            match t.group().filter(|_| self.shared(t)) {
                Some(lead) => {
                    let most: &mut u64 = groups.entry(lead).or_default();
                    *most = (*most).max(frames);
                }
                None => alone += frames,
            }
        }
        (alone + groups.values().sum::<u64>()) * layout.stride as u64
    }

    /// Whether something of a transfer still waits for its turn: what went to a silent peer in all its windows only waits for word.
    pub(super) fn to_be_sent(&self, t: &Outgoing) -> bool {
        !self.is_silent(t.station) || self.has_window(t)
    }

    /// How many copies of what is said to one station a transmission carries for the sake of its silent transfers.
    pub(super) fn copies_to(&self, station: u8, speakable: &BTreeSet<TransferId>, layout: &Layout) -> u32 {
        let its = speakable.iter().filter_map(|id| self.outgoing.get(id)).filter(|t| t.station == station);
        its.map(|t| self.copies(t, layout)).max().unwrap_or(0)
    }

    /// How many copies of the words about a transfer a transmission to silent peers carries; 0 where none are needed.
    pub(super) fn copies(&self, t: &Outgoing, layout: &Layout) -> u32 {
        match (self.is_silent(t.station), self.failure(t).1) {
            (true, failure) if failure > 0.0 => blind::copies(layout.loss, failure),
            _ => 0,
        }
    }

    /// A transmission is out: a window in which all that was meant to leave has left is over.
    pub(super) fn close_windows(&mut self, now: Instant, tx: &Transmission) {
        let mut puts = Vec::new();
        let ids: Vec<TransferId> = self.outgoing.keys().cloned().collect();
        for id in ids {
            let Some(t) = self.outgoing.get(&id).filter(|t| self.is_silent(t.station) && t.sent > t.record.sent) else {
                continue;
            };
            let over = self.window_needs(t, &tx.layout) == 0;
            let Policy { windows: of, interval, .. } = self.policy(t);
            let Some(t) = self.outgoing.get_mut(&id) else { continue };
            if over {
                t.record.windows += 1;
                t.sent = 0;
                t.not_before = Some(now + interval);
                let (window, repeated) = (t.record.windows, t.repeats > 0);
                let (bytes_on_air, air) = (t.bytes, t.air);
                self.events.push_back(Event::SentBlind { id: id.clone(), window, of, repeated, bytes_on_air, air });
            }
            t.record.sent = t.sent;
            puts.push((outgoing_key(&id), encode(&t.record)));
        }
        if !puts.is_empty() {
            let ticket = self.ticket(Pending::Forget);
            self.events.push_back(Event::Persist { ticket, puts });
        }
    }

    /// A silent peer's transfer as it is taken up: nothing of it is in doubt, and after a restart its next window is an interval away.
    pub(super) fn take_up_blind(&mut self, now: Instant, id: &TransferId) {
        let Some(t) = self.outgoing.get(id).filter(|t| self.is_silent(t.station)) else { return };
        let interval = self.policy(t).interval;
        let Some(t) = self.outgoing.get_mut(id) else { return };
        t.unsure = false;
        if t.record.windows > 0 && t.record.sent == 0 {
            t.not_before = Some(now + interval);
        }
    }

    /// After a transmission to silent peers the frequency is left alone for a moment where one of them was heard nevertheless: it may
    /// answer.
    pub(super) fn leave_room(&mut self, now: Instant, tx: &Transmission) {
        let addressed = tx.shares.keys().filter_map(|id| self.outgoing.get(id)).map(|t| t.station);
        let spoke = addressed.filter_map(|s| self.peers.get(&s)).any(|p| p.silent && p.spoke.is_some());
        if spoke {
            self.hold_for(now, self.config.waveform.turnaround + Duration::from_secs(3));
        }
    }
}
