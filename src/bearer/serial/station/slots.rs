//! Slots: who answers when, after a transmission that asks several stations, and after silence ends for several at once.
//!
//! Those who are asked answer in the order of their station numbers, one slot each: a report and a turnaround (link-rules E4). Slots
//! count from the end of the transmission heard last, never from clocks: an answer that is heard moves the rest up at once, and one
//! that is missing costs its slot. Whoever is not asked keeps still until the last slot is over, and then leaves the first word to
//! those who were speaking. Stations that leave silence do the same among all they know of the net, without being asked.

use super::super::frame::Stations;
use super::{ACCESS_SLOT, Hearing, RANK_SPREAD, Station};
use crate::time::{Duration, Instant};

/// Answers still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Round {
    /// Who has not had its slot.
    pub(super) open: Stations,
    /// When the last of them must have begun.
    over: Option<Instant>,
    /// This station speaks in it because it has left silence, and says so.
    leaving: bool,
}

impl Round {
    /// Those up to the highest of `speakers` have had their slots; where it is not known who spoke, the next one has.
    fn heard(&mut self, speakers: Stations) {
        let spoke = Stations(self.open.0 & speakers.0).highest().or_else(|| self.open.lowest());
        self.open = spoke.map_or(Stations::NONE, |s| self.open.above(s));
    }

    /// Who speaks before a station does; all, where it has no slot.
    fn before(&self, station: u8) -> u32 {
        if self.open.has(station) { self.open.below(station).count() } else { self.open.count() }
    }
}

impl Station {
    /// What one answer takes: T_ack. All must count alike, whatever each has chosen to answer with.
    pub(super) fn slot(&self) -> Duration {
        self.slot_air() + self.config.waveform.turnaround
    }

    /// Carrier that fits into a slot.
    pub(super) fn slot_air(&self) -> Duration {
        self.adapt.as_ref().map_or_else(|| self.air.report(), |a| a.palette.longest_report())
    }

    /// Whether this station answers in a round in which others have their slots behind it.
    pub(super) fn answers_before_others(&self) -> bool {
        self.round.open.above(self.config.station) != Stations::NONE && self.round.open.has(self.config.station)
    }

    /// Whether more than two share the frequency, as far as this station knows.
    pub(super) fn is_net(&self) -> bool {
        self.peers.len() > 1
    }

    /// All this station knows of.
    pub(super) fn everyone(&self) -> Stations {
        self.peers.keys().copied().collect()
    }

    /// Lower stations go first on an idle link, far enough apart that each hears the one before.
    pub(super) fn rank_delay(&self) -> Duration {
        let below = self.everyone().below(self.config.station).count();
        if self.is_net() { ACCESS_SLOT * below } else { RANK_SPREAD * below }
    }

    /// How long after a carrier this station leaves the frequency to others when it was not spoken to: first to those who were, then
    /// in turn, so that whoever spoke last waits longest.
    fn deference(&self, speaker: Option<u8>) -> Duration {
        let rank = |s: u8| s.wrapping_sub(speaker.unwrap_or(15)).wrapping_sub(1) & 0xF;
        let own = rank(self.config.station);
        let before = self.peers.keys().filter(|s| rank(**s) < own).count() as u32;
        self.config.waveform.turnaround + ACCESS_SLOT * (before + 1)
    }

    /// A transmission of this station's has ended that asks these to answer.
    pub(super) fn begin_round(&mut self, now: Instant, asked: Stations) {
        self.round = Round { open: asked, ..Round::default() };
        self.await_round(now);
    }

    /// A transmission of this station's has ended that asks nobody: its slot is over.
    pub(super) fn spoke_in_round(&mut self) {
        let own = self.config.station;
        if self.round.open.has(own) {
            self.round.heard(Stations::one(own));
        }
    }

    /// Waits for those who have yet to answer; false when there are none.
    pub(super) fn await_round(&mut self, now: Instant) -> bool {
        let Some(after) = self.round.open.without(Stations::one(self.config.station)).count().checked_sub(1) else {
            return false;
        };
        let until = now + self.answer_within(self.round.open) + self.slot() * after;
        self.round.over = Some(until);
        self.await_until = Some(until);
        true
    }

    /// Somebody's transmission is over: whose turn is it now?
    pub(super) fn take_slot(&mut self, now: Instant, h: &Hearing) {
        let own = self.config.station;
        if self.round.over.is_some_and(|t| t < h.since) {
            self.round = Round::default();
        }
        self.round.heard(h.speakers);
        // The order says it all, where it was heard; frames to stations it does not name are answered in the same order.
        let asked = h.order.unwrap_or_default().and(h.asked);
        if asked.has(own) {
            self.round.leaving = false;
        }
        let mut before = self.round.before(own);
        match (self.round.leaving, h.follow) {
            // An exchange between others takes its time before the reports that follow silence go on.
            (true, _) => before += asked.count(),
            (false, Some(follow)) => {
                self.expect_followers();
                self.round.open = self.round.open.and(follow).without(Stations::one(own));
                before = self.round.before(own);
            }
            (false, None) => {
                self.round.open = self.round.open.and(asked);
                before = self.round.before(own);
            }
        }
        let rest = self.round.open.without(Stations::one(own)).count();
        self.round.over = Some(now + self.slot() * (rest + before + 1));
        // Whoever was not spoken to lets those go on who were.
        let deference = match self.is_net() && h.from.is_empty() {
            true => self.deference(h.speakers.highest()),
            false => Duration::ZERO,
        };
        let patience = if self.round.open.has(own) { Duration::ZERO } else { deference };
        self.report_at = Some(now + self.slot() * before + patience).filter(|t| *t > now);
        self.hold_for(now, self.slot() * rest + deference);
    }

    /// A station that left silence named those who may speak after it. Once they have, whoever is still missed is asked at once: it may
    /// have spoken unheard.
    fn expect_followers(&mut self) {
        for (station, p) in &mut self.peers {
            if self.outgoing.values().any(|t| t.station == *station) {
                p.not_before = None;
            }
        }
    }

    /// Silence ended: what was heard in it is reported without being asked for, in a slot by rank, before anything else is said.
    pub(super) fn leave_silence(&mut self, now: Instant) {
        for p in self.peers.values_mut() {
            p.owed |= std::mem::take(&mut p.unasked);
        }
        if !self.is_net() || !self.peers.values().any(|p| p.owed) {
            if self.hold.is_none() {
                self.hold_for(now, self.rank_delay());
            }
            return;
        }
        let open = self.everyone().and(Stations::one(self.config.station));
        let over = Some(now + self.slot() * open.count());
        self.round = Round { open, over, leaving: true };
        self.report_at = Some(now + self.slot() * self.round.before(self.config.station)).filter(|t| *t > now);
        self.hold_for(now, self.slot() * open.count());
    }

    /// Who may speak after this station, when it is about to report because it has left silence.
    pub(super) fn follow(&mut self) -> Option<Stations> {
        let own = self.config.station;
        std::mem::take(&mut self.round.leaving).then(|| self.round.open.above(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_passed_over_has_lost_its_slot() {
        let mut round = Round { open: [2, 4, 7, 9].into_iter().collect(), ..Round::default() };
        round.heard(Stations::one(4));
        assert_eq!(round.open, [7, 9].into_iter().collect());
        round.heard(Stations::NONE);
        assert_eq!(round.open, Stations::one(9), "garbage was somebody's answer");
        round.heard(Stations::one(9));
        assert_eq!(round.open, Stations::NONE);
    }
}
