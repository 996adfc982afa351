//! Chains: several transmissions before an answer. Where the next one will be full of symbols that never left, whatever a report says of
//! this one, the report can wait, and what an answer costs is saved.
//!
//! The frames of such a transmission say that their sender goes on. Behind it a gap is left in which whoever has something more urgent than
//! ROUTINE takes the frequency, its report with it; else the sender keys again, and asks at the latest with the [`LONGEST`]. Whoever was
//! told so keeps its report until it is asked, and gives it unasked when nothing follows the gap ([`Station::told_to_wait`]).
//!
//! Called when a transmission is composed and when one is over. Between a chain's transmissions its transfers count as if everything had
//! arrived, so nothing is sent that could turn out to be too much; whatever ends a chain puts all of them in doubt again.

use std::collections::BTreeSet;

use super::super::frame::BRIEF_OVERHEAD;
use super::super::outgoing::{Outgoing, Role};
use super::super::peer::Peer;
use super::{Hearing, Phase, RANK_SPREAD, SETTLE, Station, Transmission};
use crate::mail::{Precedence, TransferId};
use crate::time::{Duration, Instant};

/// Transmissions until an answer is asked for, at most.
const LONGEST: u32 = 3;
/// Symbol frames of a chain at most: a report counts no further than 255, and says so of none that has more.
const MOST_FRAMES: usize = 254;
/// Standings of the brief report that an answer is taken for.
const STANDINGS: usize = 8;

/// Transmissions that have left and were not asked about.
#[derive(Debug)]
pub(super) struct Chain {
    station: u8,
    sent: u32,
    carried: BTreeSet<TransferId>,
    /// The next one must have been asked for by then.
    until: Instant,
}

impl Station {
    /// Whether a transmission that was just composed goes on without an answer.
    pub(super) fn goes_on(
        &self,
        now: Instant,
        tx: &Transmission,
        speakable: &BTreeSet<TransferId>,
        reports: bool,
    ) -> bool {
        let carried: Vec<&Outgoing> = speakable.iter().filter_map(|id| self.outgoing.get(id)).collect();
        let Some(station) = carried.first().map(|t| t.station) else { return false };
        let Some(peer) = self.peers.get(&station) else { return false };
        // Nothing but symbols, to the only peer there is, which has nothing to say itself; and the gap must be heard into. Where rates are
        // chosen, and where other bearers bring word of the same transfers, every report is wanted at once.
        let alone = !self.is_net() && self.adapt.is_none() && !self.config.siblings.contains(&station);
        let plain = !reports && tx.lead.is_empty() && tx.expects.is_empty() && carried.iter().all(|t| !t.unsure);
        let calm = self.waits_only_routine() && peer.waiting == Some(None) && !peer.silent;
        let audible = self.carrier_tells && !self.carrier_stuck;
        if !(alone && plain && calm && audible) {
            return false;
        }
        let full = self.air.most_blocks(self.config.max_transmission_routine);
        let fresh = |t: &&Outgoing| t.role == Role::Carry && t.counts_what_left();
        let units = |t: &Outgoing| t.missing().min(t.unused()) as usize * t.geometry.symbol_bytes() / tx.layout.unit;
        let waiting: usize = carried.into_iter().filter(fresh).map(units).sum();
        let frames = (self.air.capacity(full) as usize).div_ceil(tx.layout.stride) + 1;
        let (before, frames_before) = self.chain.as_ref().map_or((0, 0), |c| (c.sent, peer.sent_frames as usize));
        tx.blocks == full
            && waiting >= 2 * self.air.units(full, &tx.layout)
            && before + 2 <= LONGEST
            && frames_before + 2 * frames <= MOST_FRAMES
            && self.pays(now, peer, self.air.transmission(full))
    }

    /// Whether what an answer costs is more than what is to be feared from going without it: that the peer has ceased to hear, and the next
    /// transmission is for nothing. A peer that was heard without a break for a time H is lost in a further time x with chance x / (H + x).
    fn pays(&self, now: Instant, peer: &Peer, transmission: Duration) -> bool {
        let Some(heard_at) = peer.heard_at else { return false };
        let answer = self.air.transmission(self.air.blocks((BRIEF_OVERHEAD + STANDINGS) as u64));
        let saved = (self.config.waveform.turnaround * 2 + answer).saturating_sub(self.gap()).as_secs_f64();
        let unheard = (now.since(heard_at) + transmission).as_secs_f64();
        peer.heard_for.as_secs_f64() * saved > unheard * (transmission + self.gap()).as_secs_f64()
    }

    /// Whether nothing above ROUTINE has turned up here.
    pub(super) fn waits_only_routine(&self) -> bool {
        self.waiting().is_none_or(|p| p <= Precedence::Routine)
    }

    /// Left free after a transmission that goes on: whoever has something urgent may take so long to key and to be noticed.
    fn gap(&self) -> Duration {
        self.config.waveform.turnaround.max(SETTLE) + RANK_SPREAD
    }

    /// A transmission that goes on is over: its symbols are taken to have arrived, and the next is due after the gap.
    pub(super) fn add_to_chain(&mut self, now: Instant, tx: &Transmission) {
        let Some(station) = tx.frames.keys().next().copied() else { return };
        let until = now + self.gap() + self.config.waveform.turnaround + SETTLE;
        let chain = self.chain.get_or_insert_with(|| Chain { station, sent: 0, carried: BTreeSet::new(), until });
        (chain.until, chain.sent) = (until, chain.sent + 1);
        chain.carried.extend(tx.shares.keys().cloned());
        for id in &chain.carried {
            if let Some(t) = self.outgoing.get_mut(id) {
                // What is whole if all has arrived waits for the report.
                t.unsure = t.suppose(1.0) == 0;
            }
        }
        self.hold_for(now, self.gap());
    }

    /// Whether a transfer waits for the report at the end of a chain: it is not asked about before.
    pub(super) fn waits_for_chain(&self, t: &Outgoing) -> bool {
        t.unsure && self.chain.as_ref().is_some_and(|c| c.carried.contains(&t.transfer.id))
    }

    /// The chain is at its end, because its last transmission asks or because something came between: what it carried is in doubt.
    pub(super) fn end_chain(&mut self) {
        let Some(chain) = self.chain.take() else { return };
        for t in chain.carried.iter() {
            if let Some(t) = self.outgoing.get_mut(t) {
                t.doubt();
                t.unsure = true;
            }
        }
    }

    /// The same where nobody will say how many of its frames were heard.
    pub(super) fn break_chain(&mut self) {
        if let Some(peer) = self.chain.as_ref().and_then(|c| self.peers.get_mut(&c.station)) {
            peer.sent_frames = 0;
        }
        self.end_chain();
    }

    /// The next transmission of a chain did not come about in time.
    pub(super) fn watch_chain(&mut self, now: Instant) {
        if self.chain_over().is_some_and(|t| t <= now) {
            self.break_chain();
        }
    }

    /// When that is, while nobody speaks.
    pub(crate) fn chain_over(&self) -> Option<Instant> {
        let idle = matches!(self.phase, Phase::Quiet | Phase::Down)
            && !self.listening()
            && (self.carrier.is_none() || self.carrier_stuck);
        self.chain.as_ref().filter(|_| idle).map(|c| c.until)
    }

    /// A transmission was heard: does its sender go on, so that no answer is wanted yet?
    pub(super) fn told_to_wait(&mut self, now: Instant, h: &Hearing) {
        let waits = h.goes_on && !h.asked.has(self.config.station);
        for from in &h.from {
            if let Some(p) = self.peers.get_mut(from) {
                p.goes_on = waits;
            }
        }
        // Without carrier detect the next transmission is noticed by its first bytes.
        let notice = match self.carrier_tells {
            true => Duration::ZERO,
            false => self.slowest().preamble + self.longest_block(),
        };
        let patience = self.gap() + self.config.waveform.turnaround + SETTLE + notice;
        self.until_asked = waits.then(|| now + patience);
    }
}
