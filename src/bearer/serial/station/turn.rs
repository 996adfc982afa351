//! Turns: when to key, what for and for how long; and what follows when nobody answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::Waveform;
use super::super::burst::{Belief, Layout};
use super::super::frame::{BRIEF_OVERHEAD, BRIEF_STANDINGS, CONTROL_OVERHEAD, MINIMAL_FRAME, Standing, Stations};
use super::super::outgoing::{Outgoing, Role};
use super::super::peer::{Peer, back_off};
use super::{ASKED_IN_VAIN, Pending, Phase, Plan, Station, Transmission};
use crate::bearer::{Event, ModemAction};
use crate::emcon::Purpose;
use crate::mail::{Precedence, TransferId};
use crate::time::{Duration, Instant};

/// Unreadable answers of the only peer in a row until a station waits before it speaks again: nobody else can have it wait in vain.
const AT_ONCE: u32 = 8;
/// Items for one of several stations: hello, order, a poll of one transfer, quality.
const WORDS_TO_ONE: usize = 7 + 4 + 4 + 2;

impl Station {
    pub(super) fn plan(&mut self, now: Instant) -> Option<Plan> {
        let clear = !self.listening() && (self.carrier.is_none() || self.carrier_stuck);
        if !matches!(self.phase, Phase::Quiet) || !clear || self.counter + 16 > self.counter_limit {
            return None;
        }
        if self.settle.is_some_and(|t| now < t) && self.pending.values().any(Pending::matters) {
            return None;
        }
        let reporting = self.reporting(now);
        let own_turn = self.await_until.is_none() && self.hold.is_none_or(|t| t <= now);
        if reporting.is_empty() && !own_turn {
            return None;
        }
        let speakable: Vec<&Outgoing> = self.outgoing.values().filter(|t| self.eligible(t, now)).collect();
        let top = speakable.iter().map(|t| t.transfer.precedence).max();
        if self.until_asked.is_some_and(|t| now < t) && top.is_none_or(|t| t <= Precedence::Routine) {
            return None;
        }
        let cancels = !self.probe_blocked && self.peers.values().any(|p| p.cancelling() && ready(p.not_before, now));
        let purpose = match (top, reporting.is_empty()) {
            (Some(top), _) => Purpose::Traffic(top),
            (None, false) => Purpose::Report(self.report_rank(&reporting)),
            (None, true) if cancels => Purpose::Probe,
            (None, true) => return None,
        };
        let chosen = self.choose_waveform(&speakable, &reporting, top);
        if let (Some(a), Some(choice)) = (&mut self.adapt, chosen)
            && a.choice != choice
        {
            a.choice = choice;
            self.air = a.palette.air(choice).clone();
        }
        // At the rate that was chosen for all.
        let speakable = self.speakable(now);
        let mut units = 0;
        let (loss, layout) = self.lay_out(&speakable);
        let ids: BTreeSet<TransferId> = speakable.iter().map(|t| t.transfer.id.clone()).collect();
        let groups = self.groups(&ids);
        let alone = |t: &&&Outgoing| !t.unsure && !groups.contains_key(&t.transfer.id) && !self.is_silent(t.station);
        for t in speakable.iter().filter(alone) {
            units += layout.units_of(u64::from(t.missing()) * t.geometry.symbol_bytes() as u64);
        }
        let controls: BTreeSet<u8> = speakable
            .iter()
            .filter(|t| !groups.contains_key(&t.transfer.id) && self.must_greet(t))
            .map(|t| t.station)
            .chain(reporting.iter().copied())
            .collect();
        let most = self.air.most_blocks(self.cap(top, &speakable, &reporting));
        let together = self.group_bytes(&layout, &groups) + self.window_bytes(&speakable, &layout);
        let blocks = if units == 0 {
            match self.air.blocks(self.words(&reporting, &speakable) as u64) {
                words if together == 0 => words,
                words => self.air.blocks(together).max(words).min(most),
            }
        } else {
            let units = units + (speakable.len() as u64 - 1) * 6 / layout.unit as u64 + controls.len() as u64 * 4;
            let units = usize::try_from(units).unwrap_or(usize::MAX).min(1 << 20);
            let beliefs = self.beliefs(&speakable, loss);
            let plans = self.bursts.entry(chosen.unwrap_or(0)).or_default();
            let alone = plans.blocks_for(&self.air, &layout, units, &beliefs, most);
            if together == 0 { alone } else { self.air.blocks(self.air.capacity(alone) + together).min(most) }
        };
        let top = top.unwrap_or_else(|| self.report_rank(&reporting));
        Some(Plan { purpose, top, blocks })
    }

    /// Bytes of the control frames of a transmission that carries nothing else.
    pub(super) fn words(&self, reporting: &BTreeSet<u8>, speakable: &[&Outgoing]) -> usize {
        let mut bytes = 0;
        for (number, p) in &self.peers {
            let asked =
                speakable.iter().filter(|t| t.station == *number && t.unsure && !self.shared(t)).count().min(12);
            let cancels = if self.probe_blocked || !p.cancelling() { 0 } else { p.cancels.len().min(12) };
            let reports = reporting.contains(number);
            bytes += match (reports.then(|| self.brief_standings(*number)).flatten(), asked + cancels) {
                (Some(standings), 0) => BRIEF_OVERHEAD + standings.iter().map(|(_, s)| s.bytes()).sum::<usize>(),
                (None, 0) if !reports => 0,
                _ if reports => CONTROL_OVERHEAD + MINIMAL_FRAME + 48,
                (_, said) => CONTROL_OVERHEAD + 7 + 4 + 2 * said,
            };
        }
        let shared = speakable.iter().filter(|t| t.unsure && self.shared(t)).count().min(12);
        if shared > 0 {
            bytes += CONTROL_OVERHEAD + 13 + 6 * shared;
        }
        bytes.max(BRIEF_OVERHEAD + 3)
    }

    /// What a brief report to a station would say; `None` when it must hear more: our epoch, or what is known of its past, or a larger number.
    pub(super) fn brief_standings(&self, station: u8) -> Option<Vec<(u16, Standing)>> {
        let p = self.peers.get(&station)?;
        let acquainted = (p.took || p.record.knows == self.config.epoch) && p.record.epoch != 0 && !p.polled;
        let counted = p.heard <= u8::MAX.into();
        if !acquainted || !counted || self.counter + 1 >= self.counter_limit {
            return None;
        }
        let standings: Vec<_> = p.answer.iter().map(|s| (*s, self.standing(station, *s))).collect();
        let most = BRIEF_STANDINGS - usize::from(self.quality_for(station).is_some());
        (standings.iter().map(|(_, s)| s.bytes()).sum::<usize>() <= most).then_some(standings)
    }

    /// The loss these transfers are to expect, and how their frames are best laid out for it.
    pub(super) fn lay_out(&self, transfers: &[&Outgoing]) -> (f64, Layout) {
        let loss = transfers.iter().map(|t| self.loss_to(t.station)).fold(0.0, f64::max);
        let symbol = transfers.iter().map(|t| t.geometry.symbol_bytes()).max().unwrap_or(self.air.cut().unit());
        match !transfers.is_empty() && transfers.iter().all(|t| self.is_silent(t.station)) {
            true => (loss, self.blind_layout(transfers, loss, symbol)),
            false => (loss, self.air.layout_between(loss, &self.beliefs(transfers, loss), symbol)),
        }
    }

    /// What is believed of the cells these transfers go in: `loss`, unless they go to one of whom too little is known.
    fn beliefs(&self, transfers: &[&Outgoing], loss: f64) -> Vec<Belief> {
        let stations: BTreeSet<u8> = transfers.iter().map(|t| t.station).collect();
        let stranger = match stations.first() {
            Some(station) if stations.len() == 1 && self.adapt.is_none() && !self.is_silent(*station) => {
                self.peers.get(station).and_then(Peer::beliefs)
            }
            _ => None,
        };
        stranger.map_or_else(|| vec![(loss, 1.0)], |beliefs| beliefs.to_vec())
    }

    /// Estimated share of cells lost towards a station.
    pub(super) fn loss_to(&self, station: u8) -> f64 {
        let foretold = self.adapt.as_ref().and_then(|a| Some(a.reaches.get(&station)?.loss(&a.palette, a.choice)));
        let silent = self.config.peers.iter().find(|p| p.station == station && self.is_silent(station));
        let assumed = silent.map(|p| p.assumed_loss);
        // What is assumed of it stands in for what is believed of others before they were heard.
        let measured = |p: &Peer| assumed.map_or_else(|| p.loss(), |a| p.loss_given(a));
        let known = foretold.unwrap_or_else(|| self.peers.get(&station).map_or(0.05, measured));
        assumed.map_or(known, |assumed| known.max(assumed))
    }

    /// Stations a report is owed to and may be said to now.
    pub(super) fn reporting(&self, now: Instant) -> BTreeSet<u8> {
        if self.report_blocked || self.report_at.is_some_and(|t| now < t) {
            return BTreeSet::new();
        }
        self.peers.iter().filter(|(_, p)| p.owed).map(|(s, _)| *s).collect()
    }

    /// What one transmission speaks of: everything eligible, unless words to so many stations would take more than half of the longest
    /// transmission. Then some have to wait, and whoever waits is not named in its order either, so that no slot is kept for nothing.
    pub(super) fn speakable(&self, now: Instant) -> Vec<&Outgoing> {
        let mut speakable: Vec<&Outgoing> = self.outgoing.values().filter(|t| self.eligible(t, now)).collect();
        let room = self.air.capacity(self.air.most_blocks(self.config.max_transmission)) / 2;
        let most = usize::try_from(room).unwrap_or(usize::MAX) / (CONTROL_OVERHEAD + WORDS_TO_ONE);
        let mut alone: Vec<&Outgoing> = speakable.iter().copied().filter(|t| !self.shared(t)).collect();
        alone.sort_by_key(|t| (std::cmp::Reverse(t.transfer.precedence), t.turn));
        let mut stations = BTreeSet::new();
        for t in alone {
            if stations.len() < most.max(1) {
                stations.insert(t.station);
            }
        }
        speakable.retain(|t| self.shared(t) || stations.contains(&t.station));
        speakable
    }

    /// Whether there is something of this transfer to say or to ask.
    pub(super) fn eligible(&self, t: &Outgoing, now: Instant) -> bool {
        let Some(peer) = self.peers.get(&t.station) else { return false };
        let answering = peer.owed && !self.report_blocked;
        let due = match peer.silent {
            true => self.in_window(t, now),
            false => {
                !self.waits_for_chain(t)
                    && (t.unsure && t.role != Role::Rest || t.missing() > 0 && t.role == Role::Carry)
                    && (t.next_bytes().is_some() || t.unsure)
                    && t.symbols.is_some()
            }
        };
        due && self.lowest.is_some_and(|l| t.transfer.precedence >= l)
            && self.blocked.is_none_or(|b| t.transfer.precedence > b)
            && ready(t.not_before, now)
            && (answering || ready(peer.not_before, now) && !self.awaited.contains(&t.station))
    }

    /// Whether the peer must hear our epoch, or how urgent this is.
    pub(super) fn must_greet(&self, t: &Outgoing) -> bool {
        t.unsure
            || t.transfer.precedence >= Precedence::Immediate
            || self.peers.get(&t.station).is_none_or(|p| p.record.knows != self.config.epoch)
    }

    /// 127.5 s only when both ways are known to hold ROUTINE alone (D4).
    pub(super) fn cap(&self, top: Option<Precedence>, speakable: &[&Outgoing], reporting: &BTreeSet<u8>) -> Duration {
        let calm = |s: &u8| {
            self.peers
                .get(s)
                .is_some_and(|p| p.silent || matches!(p.waiting, Some(w) if w.is_none_or(|w| w <= Precedence::Routine)))
        };
        let all_calm = speakable.iter().map(|t| &t.station).chain(reporting).all(calm);
        let most = match top.is_none_or(|t| t <= Precedence::Routine) && all_calm {
            true => self.config.max_transmission_routine,
            false => self.config.max_transmission,
        };
        let keeps = |t: &&Outgoing| self.peers.get(&t.station).is_some_and(|p| p.keeps_slot);
        let most = match self.answers_before_others() && speakable.iter().any(keeps) {
            true => most.min(self.slot_air()),
            false => most,
        };
        self.trial(speakable.iter().map(|t| t.station)).map_or(most, |trial| most.min(trial))
    }

    pub(super) fn report_rank(&self, reporting: &BTreeSet<u8>) -> Precedence {
        let stated = reporting.iter().filter_map(|s| self.peers.get(s)?.waiting?);
        stated.max().unwrap_or(Precedence::Routine)
    }

    pub(super) fn keyed(&mut self, now: Instant) {
        let Phase::Asked { plan, .. } = std::mem::replace(&mut self.phase, Phase::Quiet) else {
            // A key that nobody asked for, or that comes after it was given up.
            self.events.push_back(Event::Alarm("the modem keyed without leave".into()));
            self.actions.push_back(ModemAction::Abort);
            return;
        };
        self.counts.transmissions += 1;
        self.unkeyable = false;
        (self.settle, self.joining, self.report_at, self.await_until, self.hearing) = (None, None, None, None, None);
        self.awaited.clear();
        self.until_asked = None;
        let speakable = self.speakable(now);
        let most = self.air.most_blocks(self.cap(Some(plan.top), &speakable, &self.reporting(now))).max(plan.blocks);
        let transfers = speakable.iter().map(|t| t.transfer.id.clone()).collect();
        let (_, layout) = self.lay_out(&speakable);
        self.events.push_back(Event::Keyed { at: now, precedence: plan.top, transfers });
        self.phase = Phase::Keyed(Box::new(Transmission {
            keyed: now,
            most,
            blocks: plan.blocks,
            plan,
            blocks_fed: 0,
            pieces: 0,
            made: 0,
            out: 0,
            carry: Vec::new(),
            idle: (0, 0),
            fill: 0,
            composed: false,
            lead: VecDeque::new(),
            copies: Vec::new(),
            next_copy: 0,
            layout,
            frames: BTreeMap::new(),
            shares: BTreeMap::new(),
            sure: BTreeMap::new(),
            expects: BTreeSet::new(),
            order: Stations::NONE,
            goes_on: false,
            before_others: self.answers_before_others(),
            ended: false,
            alarmed: false,
        }));
    }

    pub(super) fn unkeyed(&mut self, now: Instant) {
        let Phase::Keyed(tx) = std::mem::replace(&mut self.phase, Phase::Quiet) else { return };
        self.account(now, &tx);
        self.note_sent(now, &tx);
        self.close_windows(now, &tx);
        let going_on = tx.frames.keys().copied().filter(|_| tx.goes_on);
        let chained = self.chain.is_some();
        for station in tx.expects.iter().copied().chain(going_on) {
            if let Some(p) = self.peers.get_mut(&station) {
                let before = if chained { f64::from(p.sent_frames) } else { 0.0 };
                let frames = tx.frames.get(&station).copied().unwrap_or(0);
                let cells = p.sent_cells * before + tx.layout.cells * f64::from(frames);
                p.sent_chained = before > 0.0;
                p.sent_frames = before as u32 + frames;
                p.sent_cells = if p.sent_frames > 0 { cells / f64::from(p.sent_frames) } else { tx.layout.cells };
                p.sent_before_others = tx.before_others && frames > 0;
                p.sent_air += now.since(tx.keyed);
            }
        }
        if tx.goes_on && tx.expects.is_empty() {
            return self.add_to_chain(now, &tx);
        }
        self.end_chain();
        if tx.expects.is_empty() {
            self.spoke_in_round();
            // Whoever was reported to goes on, if it has more: let it.
            let w = &self.config.waveform;
            let more = self.peers.values().any(|p| !p.silent && !matches!(p.waiting, Some(None)));
            if more || !self.partials.is_empty() {
                self.hold_for(now, w.turnaround + Duration::from_secs(3));
            }
            self.leave_room(now, &tx);
        } else {
            // Whoever the order names keeps to it, even where there was no room to ask all of them.
            self.begin_round(now, tx.expects.iter().copied().collect::<Stations>().and(tx.order));
            self.awaited = tx.expects;
        }
    }

    /// The transmission under way ended without being known to have been heard.
    pub(super) fn break_off(&mut self, now: Instant) {
        if let Phase::Keyed(tx) = std::mem::replace(&mut self.phase, Phase::Quiet) {
            self.account(now, &tx);
            if now < tx.keyed + self.air.transmission(1) {
                // Not a block of it can have been heard: its symbols are as good as unsent, and need no asking about.
                for id in tx.sure.keys() {
                    self.outgoing.get_mut(id).into_iter().for_each(|t| t.unsure = false);
                }
            }
            for s in &tx.expects {
                if let Some(p) = self.peers.get_mut(s) {
                    p.sent_frames = 0;
                }
            }
            // Of a window that was broken off nobody knows what was heard: what it carried does not count.
            self.outgoing.values_mut().for_each(|t| t.sent = t.record.sent);
        }
        self.break_chain();
        (self.await_until, self.settle) = (None, None);
        self.awaited.clear();
    }

    pub(super) fn account(&mut self, now: Instant, tx: &Transmission) {
        let air = now.since(tx.keyed);
        let total = tx.out.max(tx.shares.values().sum()).max(1);
        for (id, bytes) in &tx.shares {
            let silent = self.outgoing.get(id).is_some_and(|t| self.is_silent(t.station));
            if let Some(t) = self.outgoing.get_mut(id) {
                t.bytes += bytes;
                t.air += Duration::from_nanos((air.as_nanos() * u128::from(*bytes) / u128::from(total)) as u64);
                // Without a whole frame of it nothing of it was said.
                t.unsure = !silent && tx.sure.get(id).is_none_or(|end| tx.out >= *end);
            }
        }
        self.events.push_back(Event::Unkeyed { air, bytes: tx.out, fill: tx.fill });
    }

    /// Those who should have answered did not: ask them again, later each time.
    pub(super) fn unanswered(&mut self, now: Instant) {
        self.await_until = None;
        // One draw for all: those who missed their slots are asked together.
        let chance = self.draw();
        for station in std::mem::take(&mut self.awaited) {
            self.counts.unanswered += 1;
            self.note_silence(station);
            let only = self.peers.len() == 1;
            let Some(p) = self.peers.get_mut(&station) else { continue };
            let garbled = p.spoke_garbled;
            p.keeps_slot |= std::mem::take(&mut p.sent_before_others);
            let told = p.failed();
            #[cfg(feature = "mutations")]
            if crate::mutation::is(crate::mutation::Mutation::GiveUp) {
                p.not_before = Some(now + Duration::from_secs(30 * 86_400));
                continue;
            }
            let in_vain = p.attempts == ASKED_IN_VAIN && !p.agrees;
            if in_vain {
                // Mail for one who keeps radio silence must not wait for its word.
                self.outgoing.values_mut().filter(|t| t.station == station && t.unsent).for_each(|t| t.unsure = false);
            }
            let tries = if in_vain { 1 } else { p.failures() };
            let slot = self.config.waveform.turnaround + Duration::from_secs(2);
            if !(garbled && only && p.garbled < AT_ONCE) {
                p.not_before = Some(now + back_off(tries, self.config.station > station, slot, chance));
            }
            if let Some(told) = told {
                self.events.push_back(Event::Alarm(format!("{} {told}", p.name)));
            }
            if garbled {
                self.go_on(station);
            }
        }
    }

    /// An answer came and could not be read, so this station was heard. Where much more than a question costs is surely still missing
    /// there, that goes at once, as if what was last sent had fared as usual; the next answer says how it did.
    fn go_on(&mut self, station: u8) {
        let loss = self.loss_to(station);
        let (rate, question) = (self.config.waveform.rate, self.air.turn());
        for t in self.outgoing.values_mut().filter(|t| t.station == station && t.unsure) {
            let layout = self.air.layout(loss, t.geometry.symbol_bytes());
            let missing = t.suppose(1.0 - layout.loss);
            if rate.airtime(u64::from(missing) * t.geometry.symbol_bytes() as u64) >= question {
                t.unsure = false;
            } else {
                t.doubt();
            }
        }
    }

    pub(super) fn watch_carrier(&mut self, now: Instant) {
        if let Some(since) = self.carrier.filter(|_| !self.carrier_stuck)
            && since + self.config.carrier_stuck_after <= now
        {
            self.carrier_stuck = true;
            self.events.push_back(Event::Alarm("carrier detect is stuck on; going on as if it were off".into()));
        }
        if self.silence_at().is_some_and(|t| t <= now) {
            self.fell_silent(now);
        }
    }

    /// Without a usable carrier line, a transmission is over when nothing came for two blocks.
    pub(super) fn silence_at(&self) -> Option<Instant> {
        let h = self.hearing.as_ref().filter(|_| self.carrier.is_none() || self.carrier_stuck)?;
        let ceased = h.last + self.longest_block() * 2 + Duration::from_secs(1);
        Some(self.noise_at().map_or(ceased, |t| t.min(ceased)))
    }

    /// Until when another frame must have been whole, where bytes come without a carrier and it is not known that this is noise: noise
    /// that never ceases now and then looks like a frame.
    pub(super) fn noise_at(&self) -> Option<Instant> {
        let h = self.hearing.as_ref().filter(|h| !self.carrier_tells || h.made_sense())?;
        let w = self.slowest();
        let frame = w.rate.airtime(u64::from(w.frame_bytes));
        Some(h.sense + (frame + self.longest_block()) * 3)
    }

    pub(super) fn watch_modem(&mut self, now: Instant) {
        match &self.phase {
            Phase::Asked { since, .. } if self.key_due(*since).is_some_and(|t| t <= now) => {
                self.events.push_back(Event::Alarm("the modem does not key".into()));
                self.actions.push_back(ModemAction::Abort);
                self.phase = Phase::Quiet;
                self.unkeyable = true;
                self.hold_for(now, Duration::from_secs(30));
            }
            Phase::Keyed(tx) if tx.ended && self.unkey_limit(tx) <= now => {
                let again = tx.alarmed;
                self.actions.push_back(ModemAction::Abort);
                if again {
                    self.break_off(now);
                    self.hold_for(now, Duration::from_secs(30));
                } else {
                    self.events.push_back(Event::Alarm("the key is stuck down".into()));
                    if let Phase::Keyed(tx) = &mut self.phase {
                        tx.alarmed = true;
                    }
                }
            }
            Phase::Down | Phase::Quiet | Phase::Asked { .. } | Phase::Keyed(_) => {}
        }
    }

    /// When a key asked for at `since` is overdue. A modem holds it back while it receives.
    pub(super) fn key_due(&self, since: Instant) -> Option<Instant> {
        let receives = self.carrier.is_some() && !self.carrier_stuck;
        (!receives).then(|| since + self.config.waveform.turnaround + Duration::from_secs(15))
    }

    pub(super) fn unkey_limit(&self, tx: &Transmission) -> Instant {
        let end = tx.keyed + self.air.transmission(self.air.blocks(tx.out)) + self.air.waveform().block * 2;
        end + Duration::from_secs(if tx.alarmed { 20 } else { 10 })
    }

    pub(super) fn hold_for(&mut self, now: Instant, d: Duration) {
        if d > Duration::ZERO {
            self.hold = self.hold.max(Some(now + d));
        }
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.chance ^ self.chance >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

pub(super) fn ready(at: Option<Instant>, now: Instant) -> bool {
    at.is_none_or(|t| t <= now)
}

/// When the next block has to be fed: one block time before its own start.
pub(super) fn feed_due(tx: &Transmission, w: &Waveform) -> Instant {
    let ahead = w.preamble + w.block * u32::try_from(tx.blocks_fed).unwrap_or(u32::MAX);
    tx.keyed + ahead.saturating_sub(w.block)
}
