//! Feeding: cells, filled at the last moment with what matters most.

use std::collections::{BTreeMap, BTreeSet};

use super::super::burst::{Layout, with_parity};
use super::super::frame::{
    Address, CHUNK_OVERHEAD, Chunk, FRAME_CHUNKS, FRAME_OVERHEAD, Frame, Item, MINIMAL_FRAME, REPORT_FIXED, Stations,
};
use super::super::keys::Context;
use super::super::outgoing::{Outgoing, Role};
use super::super::peer::Peer;
use super::turn::ready;
use super::{Phase, Station, Transmission};
use crate::bearer::ModemAction;
use crate::mail::{Cut, Precedence, TransferId};
use crate::time::Instant;

/// What a transfer is served before the next of its precedence has its turn: a whole text. Less at a time, and at low rates the report on
/// a transmission has to speak of so many transfers that it takes several blocks; more, and a long message keeps short ones waiting.
pub(super) const SHARE_BYTES: usize = 2048;

impl Station {
    pub(super) fn feed(&mut self, now: Instant) -> Option<Vec<u8>> {
        // The transmission is taken out so that the rest of the station can be asked while it is filled.
        let Phase::Keyed(mut tx) = std::mem::replace(&mut self.phase, Phase::Quiet) else { return None };
        if !tx.composed {
            self.compose(now, &mut tx);
        }
        let total = self.air.capacity(tx.blocks);
        let upto = total.min(self.air.stream_bytes(tx.blocks_fed + 1));
        let mut dry = false;
        while tx.made < upto && !dry {
            dry = !self.fill(now, &mut tx, total);
        }
        let wanted = usize::try_from(upto - tx.out).unwrap_or(usize::MAX).min(tx.carry.len());
        let bytes: Vec<u8> = tx.carry.drain(..wanted).collect();
        tx.out += bytes.len() as u64;
        tx.blocks_fed += 1;
        if tx.out >= total || dry && tx.carry.is_empty() || tx.blocks_fed >= tx.blocks {
            tx.ended = true;
            self.actions.push_back(ModemAction::Unkey);
        }
        self.phase = Phase::Keyed(tx);
        let active: Vec<TransferId> = self.outgoing.keys().cloned().collect();
        active.iter().for_each(|id| self.reserve_rows(id));
        self.reserve_counters();
        Some(bytes)
    }

    /// Decides what this transmission is meant to carry and writes its control frames.
    pub(super) fn compose(&mut self, now: Instant, tx: &mut Transmission) {
        tx.composed = true;
        let reporting = self.reporting(now);
        for s in &reporting {
            if let Some(p) = self.peers.get_mut(s) {
                p.not_before = None;
            }
        }
        let speakable = self.speakable(now);
        (_, tx.layout) = self.lay_out(&speakable);
        let speakable: BTreeSet<TransferId> = speakable.iter().map(|t| t.transfer.id.clone()).collect();
        let mut greet: BTreeSet<u8> = reporting.clone();
        let mut polls: BTreeMap<u8, Vec<u16>> = BTreeMap::new();
        let groups = self.groups(&speakable);
        for (id, t) in &mut self.outgoing {
            t.owed.fill(0);
            if !speakable.contains(id) {
                continue;
            }
            if groups.contains_key(id) {
                continue;
            }
            if t.unsure {
                polls.entry(t.station).or_default().push(t.short());
            }
        }
        for id in speakable.iter().filter(|id| !groups.contains_key(*id)) {
            self.owe_alone(id, &tx.layout);
        }
        self.owe_groups(tx, &groups);
        let alone = speakable.iter().filter(|id| !groups.contains_key(*id)).filter_map(|id| self.outgoing.get(id));
        greet.extend(alone.filter(|t| self.must_greet(t)).map(|t| t.station));
        if !self.probe_blocked {
            greet
                .extend(self.peers.iter().filter(|(_, p)| p.cancelling() && ready(p.not_before, now)).map(|(s, _)| *s));
        }
        let waiting = self.waiting().map_or(0, |p| p.rank() + 1);
        let order = Some(self.order(&speakable, &greet)).filter(|asked| asked.count() > 1).unwrap_or_default();
        tx.order = order;
        // One frame that names the order is heard by all.
        if groups.is_empty() {
            greet.extend(order.lowest().filter(|_| !greet.iter().any(|s| order.has(*s))));
        } else {
            self.call(tx, waiting, &groups, &speakable, &greet);
        }
        let mut follow = if reporting.is_empty() { None } else { self.follow() };
        for station in greet {
            let words = groups.is_empty() && order.has(station)
                || follow.is_some()
                || polls.contains_key(&station)
                || self.outgoing.values().any(|t| {
                    t.station == station
                        && speakable.contains(&t.transfer.id)
                        && !groups.contains_key(&t.transfer.id)
                        && self.must_greet(t)
                })
                || !self.probe_blocked && self.peers.get(&station).is_some_and(Peer::cancelling);
            if !words
                && reporting.contains(&station)
                && let Some(frame) = self.brief(station, waiting)
            {
                tx.lead.push_back((0, frame.clone()));
                tx.lead.push_back((1, frame.clone()));
                tx.copies.push(frame);
                continue;
            }
            let mut items = vec![self.hello(waiting)];
            let mut asks = false;
            if let Some(shorts) = polls.remove(&station) {
                self.counts.polls += 1;
                asks = true;
                items.push(Item::Poll(shorts.into_iter().take(12).collect()));
            }
            if let Some(p) = self.peers.get_mut(&station)
                && p.cancelling()
            {
                asks = true;
                items.push(Item::Cancel(p.cancels.keys().copied().take(12).collect()));
                p.cancels.values_mut().take(12).for_each(|told| *told = told.saturating_add(1));
                p.cancels.retain(|_, told| *told < 4);
            }
            let (told, ask) = (self.quality_for(station), self.asks(station));
            items.extend(told.map(|byte| Item::Quality(Some(byte))));
            items.extend(ask.then_some(Item::Quality(None)));
            if let (Some(_), Some(p)) = (told, self.peers.get_mut(&station)) {
                p.incoming = None;
            }
            if reporting.contains(&station) {
                let used: usize = items.iter().map(item_bytes).sum();
                items.push(Item::Report(self.report(station, used)));
            }
            if asks {
                tx.expects.insert(station);
            }
            let order = if groups.is_empty() { order } else { Stations::NONE };
            if order != Stations::NONE {
                items.push(Item::Order(order));
            }
            if reporting.contains(&station) {
                items.extend(follow.take().map(Item::Follow));
            }
            // Whoever does not know our epoch can make nothing of a whole transmission whose greeting is lost.
            let stranger = self.peers.get(&station).is_some_and(|p| p.record.knows != self.config.epoch);
            let important = asks || order != Stations::NONE || reporting.contains(&station);
            let least = if stranger { 3 } else { 1 + u32::from(important) };
            let Some(frame) = self.control(station, items) else { continue };
            let copies = self.copies_to(station, &speakable, &tx.layout).max(least);
            tx.lead.extend((0..copies).map(|n| (u64::from(n), frame.clone())));
            tx.copies.push(frame);
        }
        // Copies make sure that words are heard, and are no reason to key: a transmission that has no room beside them goes without.
        let owes = self.outgoing.values().any(|t| t.outstanding() > 0);
        let said: usize = tx.lead.iter().map(|(_, control)| control.len()).sum();
        let cells = tx.lead.iter().map(|(cell, _)| cell + 1).max().unwrap_or(0);
        let symbols = self.largest_waiting(now).map_or(0, |n| (n + FRAME_OVERHEAD) as u64);
        let beside = cells * u64::from(self.air.waveform().frame_bytes) + symbols <= self.air.capacity(tx.blocks);
        if owes && (said as u64 > self.air.capacity(tx.blocks) / 2 || !beside) {
            tx.lead.retain(|(cell, _)| *cell == 0);
        }
        tx.lead.make_contiguous().sort_by_key(|(cell, _)| *cell);
        // Each has its room, or what is asked and answered here would never be said: a poll with a full report may be longer than the
        // shortest transmission at a low rate, and words for a whole net longer than the longest one. Nor may they leave nothing to be asked for.
        let stride = if tx.layout.packed { u64::MAX } else { tx.layout.stride.max(MINIMAL_FRAME) as u64 };
        let after = |end: u64, length: u64| {
            let left = stride - end % stride;
            if length > left { end + left + length } else { end + length }
        };
        let words = tx.lead.iter().filter(|(cell, _)| *cell == 0);
        let end = words.fold(0, |end, (_, control)| after(end, control.len() as u64));
        tx.blocks = tx.blocks.max(self.air.blocks(end));
        let owing = self.outgoing.values().filter(|t| t.outstanding() > 0);
        if let Some(symbol) = owing.filter_map(Outgoing::next_bytes).max() {
            let needed = after(end, (FRAME_OVERHEAD + symbol) as u64);
            if self.air.capacity(tx.blocks) < needed {
                tx.blocks = tx.blocks.max(self.air.blocks(needed));
            }
        }
        tx.goes_on = self.goes_on(now, tx, &speakable, !reporting.is_empty());
    }

    /// All who are asked for an answer by a transmission with these transfers and control frames.
    pub(super) fn order(&self, speakable: &BTreeSet<TransferId>, greet: &BTreeSet<u8>) -> Stations {
        let carried = speakable.iter().filter_map(|id| self.outgoing.get(id)).map(|t| t.station);
        let cancelled = |s: &u8| self.peers.get(s).is_some_and(Peer::cancelling);
        let asked = carried.chain(greet.iter().copied().filter(cancelled));
        asked.filter(|s| !self.is_silent(*s)).collect()
    }

    /// Makes the next piece of the stream; false when there is nothing left to put into it.
    pub(super) fn fill(&mut self, now: Instant, tx: &mut Transmission, total: u64) -> bool {
        let stride = tx.layout.stride.max(MINIMAL_FRAME);
        let left = usize::try_from(total - tx.made).unwrap_or(usize::MAX);
        let cell = stride - tx.made as usize % stride;
        // A hole that was not left idle belongs to the frame that begins in it.
        let cell = if cell < MINIMAL_FRAME { cell + stride } else { cell };
        // What is too little for another frame goes to the last one.
        let room = if tx.layout.packed || left < cell + MINIMAL_FRAME { left } else { cell };
        // Words that are longer than a stride take several; they would wait for ever, and everything after them.
        let words = tx.lead.front().filter(|(from, _)| *from <= tx.pieces).map_or(0, |(_, control)| control.len());
        let room = room.max((cell + words.saturating_sub(cell).next_multiple_of(stride)).min(left));
        let mut bytes: Vec<u8> = Vec::with_capacity(stride);
        while let Some((from, control)) = tx.lead.front() {
            if *from > tx.pieces || bytes.len() + control.len() > room {
                break;
            }
            bytes.extend(control);
            tx.lead.pop_front();
        }
        if tx.layout.packed {
            // A symbol longer than planned for still goes; it is the frame that counts then.
            let most = stride.max(self.largest_waiting(now).map_or(0, |n| n + FRAME_OVERHEAD));
            bytes.extend(self.symbols(now, tx, bytes.len(), most.min(room - bytes.len())).unwrap_or_default());
        } else {
            // Beside control frames the rest of a cell may be too small for anything; alone, a frame fills its stride.
            while let Some(symbols) = self.symbols(now, tx, bytes.len(), room - bytes.len()) {
                bytes.extend(symbols);
            }
        }
        if bytes.is_empty() && !tx.layout.packed {
            // A symbol larger than a stride (of a long message beside a short one) takes several.
            let whole = self.largest_waiting(now).map_or(0, |n| n + FRAME_OVERHEAD).next_multiple_of(stride);
            if whole > room && whole <= left {
                bytes.extend(self.symbols(now, tx, 0, whole).unwrap_or_default());
            }
        }
        let mut nothing = bytes.is_empty();
        while !tx.copies.is_empty() && (!tx.layout.packed || nothing) {
            let copy = &tx.copies[tx.next_copy % tx.copies.len()];
            if bytes.len() + copy.len() > room {
                break;
            }
            bytes.extend(copy);
            tx.next_copy += 1;
            nothing = false;
        }
        if nothing {
            return false;
        }
        let end = tx.made + bytes.len() as u64;
        let aligned = end.next_multiple_of(stride as u64).max(tx.made + room as u64);
        if !tx.layout.packed && aligned < total && self.may_idle(tx, end, aligned) {
            bytes.resize(usize::try_from(aligned - tx.made).unwrap_or(bytes.len()), 0);
        }
        tx.pieces += 1;
        tx.made += bytes.len() as u64;
        tx.carry.extend(bytes);
        tx.made < total
    }

    /// Whether bytes `from` to `to` of the stream may be left idle: no block has more of that than a minimal frame (link-rules D1). Where
    /// short ends of messages meet in a block the next frame begins early, and shares a cell with the one before it; what whole frames leave
    /// of their cells is never worth that.
    fn may_idle(&self, tx: &mut Transmission, from: u64, to: u64) -> bool {
        let small = to - from <= FRAME_OVERHEAD as u64;
        let (mut idle, mut at) = (tx.idle, from);
        while at < to {
            let (block, end) = self.air.block_of(at);
            let end = to.min(end);
            idle = (block, end - at + if idle.0 == block { idle.1 } else { 0 });
            if idle.1 > MINIMAL_FRAME as u64 && !small {
                return false;
            }
            at = end;
        }
        tx.idle = idle;
        true
    }

    /// One frame of symbols in at most `room` bytes, `behind` others of the piece that is being made: by precedence while something is owed,
    /// then whatever helps.
    pub(super) fn symbols(
        &mut self,
        now: Instant,
        tx: &mut Transmission,
        behind: usize,
        room: usize,
    ) -> Option<Vec<u8>> {
        let begins = tx.made + behind as u64;
        let mut room = room.checked_sub(FRAME_OVERHEAD)?;
        let mut beside = None;
        let mut hearers = Stations::NONE;
        let (mut chunks, mut sure): (Vec<Chunk>, Vec<TransferId>) = (Vec::new(), Vec::new());
        while chunks.len() < FRAME_CHUNKS {
            let Some(id) = self.choose(now, beside, room) else { break };
            let others = self.choose_owed(now, beside, &id);
            let Some(frame) = self.outgoing.get(&id).map(|t| self.frame_of(t)) else { break };
            let served = id.clone();
            let silent = self.outgoing.get(&id).is_some_and(|t| self.is_silent(t.station));
            let Some(t) = self.outgoing.get_mut(&id) else { break };
            let owed = t.outstanding();
            let limit = others && owed > 0;
            let before = t.rows().to_vec();
            let Some(chunk) = t.take(room, limit) else { break };
            self.turn += 1;
            #[cfg(feature = "mutations")]
            let chunk = mutated(chunk, self.turn);
            if !t.unsure {
                sure.push(id.clone());
            }
            t.unsure = !silent;
            let bytes: usize = chunk.symbols.iter().map(Vec::len).sum();
            t.served += bytes;
            if t.served >= SHARE_BYTES || t.outstanding() == 0 {
                (t.turn, t.served) = (self.turn, 0);
            }
            let overhead = if chunks.is_empty() { FRAME_OVERHEAD } else { CHUNK_OVERHEAD };
            let meant = usize::try_from(owed).unwrap_or(usize::MAX);
            let beyond: usize = chunk.symbols.iter().skip(meant).map(Vec::len).sum();
            tx.fill += (beyond + if owed == 0 { overhead } else { 0 }) as u64;
            *tx.shares.entry(id).or_default() += (bytes + overhead) as u64;
            self.counts.repeats += u64::from(t.repeats > 0);
            beside = Some(frame);
            hearers = hearers.and(self.shared_out(&served, &before));
            chunks.push(chunk);
            let Some(rest) = room.checked_sub(bytes + CHUNK_OVERHEAD) else { break };
            room = rest;
            if tx.layout.packed && room * FRAME_OVERHEAD < tx.layout.stride * CHUNK_OVERHEAD {
                // Another transfer here would cost more than the share of a frame that it saves.
                break;
            }
        }
        let (to, _) = beside?;
        tx.goes_on &= self.waits_only_routine();
        if to == self.config.station {
            for asked in (0..16).filter(|s| hearers.has(*s) && tx.expects.contains(s)) {
                *tx.frames.entry(asked).or_default() += 1;
            }
        } else {
            *tx.frames.entry(to).or_default() += 1;
            if !self.is_silent(to) && !tx.goes_on {
                tx.expects.insert(to);
            }
        }
        let (key, seal) = self.seal_for(to)?;
        let address = Address { from: self.config.station, to, key };
        let more_waits = self.outgoing.values().any(|t| t.station == to && t.unsent && self.speaking(t, now));
        let frame = Frame::Symbols { address, goes_on: tx.goes_on, more_waits, chunks }.emit(seal);
        for id in sure {
            tx.sure.entry(id).or_insert(begins + frame.len() as u64);
        }
        Some(frame)
    }

    /// What transfers have in common that share a frame: where it goes, and the cut.
    fn frame_of(&self, t: &Outgoing) -> (u8, Cut) {
        (self.destination(t), t.geometry.cut())
    }

    /// Which transfer's symbols go next, in one frame with others of `beside` if there are any.
    pub(super) fn choose(&self, now: Instant, beside: Option<(u8, Cut)>, room: usize) -> Option<TransferId> {
        let fits = |t: &&Outgoing| {
            beside.is_none_or(|b| b == self.frame_of(t))
                && self.speaking(t, now)
                && t.next_bytes().is_some_and(|n| n <= room)
        };
        let order = |t: &&Outgoing| {
            let owed = t.outstanding() > 0;
            #[cfg(feature = "mutations")]
            if crate::mutation::is(crate::mutation::Mutation::IgnorePrecedence) {
                return (!owed, std::cmp::Reverse(Precedence::Routine), t.turn);
            }
            (!owed, std::cmp::Reverse(t.transfer.precedence), t.turn)
        };
        self.outgoing.values().filter(fits).min_by_key(order).map(|t| t.transfer.id.clone())
    }

    pub(super) fn choose_owed(&self, now: Instant, beside: Option<(u8, Cut)>, but: &TransferId) -> bool {
        self.outgoing.values().any(|t| {
            t.transfer.id != *but
                && beside.is_none_or(|b| b == self.frame_of(t))
                && t.outstanding() > 0
                && self.speaking(t, now)
                && t.next_bytes().is_some()
        })
    }

    /// While keyed, symbols of everything incomplete may fly: also of what was just asked about, unless the question is whether its
    /// number is free.
    pub(super) fn speaking(&self, t: &Outgoing, now: Instant) -> bool {
        let Some(peer) = self.peers.get(&t.station) else { return false };
        t.role == Role::Carry
            && (!peer.silent || self.in_window(t, now))
            && !(t.unsent && t.unsure)
            && self.blocked.is_none_or(|b| t.transfer.precedence > b)
            && ready(t.not_before, now)
            && (peer.owed || ready(peer.not_before, now))
            && t.missing() > 0
    }

    pub(super) fn largest_waiting(&self, now: Instant) -> Option<usize> {
        self.outgoing.values().filter(|t| self.speaking(t, now)).filter_map(Outgoing::next_bytes).max()
    }

    /// Something new became ready while keyed: it rides along, and the transmission grows for it as far as the cap lets it.
    pub(super) fn extend(&mut self, id: &TransferId) {
        let Phase::Keyed(tx) = &self.phase else { return };
        let Some(t) = self.outgoing.get(id) else { return };
        if tx.ended
            || t.role != Role::Carry
            || t.unsure
            || t.outstanding() > 0
            || t.symbols.is_none()
            || t.next_bytes().is_none()
        {
            return;
        }
        if !tx.composed {
            let need = self.air.blocks((t.missing() as usize * (t.geometry.symbol_bytes() + 2)) as u64 + 300);
            if let Phase::Keyed(tx) = &mut self.phase {
                tx.blocks = tx.blocks.max(need.min(tx.most));
            }
            return;
        }
        let layout = tx.layout;
        self.owe_alone(id, &layout);
        let owed = self.outstanding_bytes();
        let bytes = owed * layout.stride as u64 / layout.symbol_bytes as u64 + MINIMAL_FRAME as u64;
        if let Phase::Keyed(tx) = &mut self.phase {
            let need = self.air.blocks(tx.made + bytes);
            tx.blocks = tx.blocks.max(need.min(tx.most));
        }
    }

    /// Means to send of a transfer what is missing, or what its window needs.
    fn owe_alone(&mut self, id: &TransferId, layout: &Layout) {
        let Some(t) = self.outgoing.get(id).filter(|t| !t.unsure) else { return };
        let total = match self.is_silent(t.station) {
            true => self.window_needs(t, layout),
            // Another transmission follows in any case, and mends what this one loses for nothing: no guess at it goes ahead.
            false if self.fills_transmission(t) => t.missing(),
            false => with_parity(t.missing(), layout.loss),
        };
        if let Some(t) = self.outgoing.get_mut(id) {
            t.owe(total);
        }
    }

    /// Whether there is more mail of this precedence for its station than the longest transmission carries.
    fn fills_transmission(&self, t: &Outgoing) -> bool {
        let (station, precedence) = (t.station, t.transfer.precedence);
        let beside =
            |o: &&Outgoing| o.station == station && o.transfer.precedence == precedence && o.role == Role::Carry;
        let missing = |o: &Outgoing| u64::from(o.missing()) * o.geometry.symbol_bytes() as u64;
        let waiting: u64 = self.outgoing.values().filter(beside).map(missing).sum();
        waiting > self.air.capacity(self.air.most_blocks(self.config.max_transmission_routine))
    }

    pub(super) fn control(&mut self, to: u8, items: Vec<Item>) -> Option<Vec<u8>> {
        if self.counter >= self.counter_limit {
            return None;
        }
        self.counter += 1;
        let (key, seal) = self.seal_for(to)?;
        let address = Address { from: self.config.station, to, key };
        Some(Frame::Control { address, epoch: self.config.epoch, counter: self.counter, items }.emit(seal))
    }

    /// The report owed to a station, if few bytes can say it.
    pub(super) fn brief(&mut self, to: u8, waiting: u8) -> Option<Vec<u8>> {
        let standings = self.brief_standings(to)?;
        let heard = u8::try_from(self.peers.get(&to)?.heard).ok()?;
        let quality = self.quality_for(to);
        self.counter += 1;
        let counter = self.counter;
        let p = self.peers.get_mut(&to)?;
        p.answer.clear();
        (p.owed, p.unasked, p.incoming, p.goes_on) = (false, false, None, false);
        let context = Context { epoch: self.config.epoch, far: p.record.epoch, counter };
        let (key, seal) = self.ring.sending(to)?;
        let address = Address { from: self.config.station, to, key };
        Some(Frame::Brief { address, context, waiting, heard, standings, quality }.emit(seal))
    }

    /// Highest precedence that still has something to say.
    pub(super) fn waiting(&self) -> Option<Precedence> {
        let carried = |t: &&Outgoing| t.role == Role::Carry && t.missing() > 0 && self.to_be_sent(t);
        self.outgoing.values().filter(carried).map(|t| t.transfer.precedence).max()
    }
}

/// A deliberate fault: one bit of a chunk now and then.
#[cfg(feature = "mutations")]
pub(super) fn mutated(mut chunk: Chunk, turn: u64) -> Chunk {
    if turn.is_multiple_of(100)
        && crate::mutation::is(crate::mutation::Mutation::FlipBit)
        && let Some(byte) = chunk.symbols.first_mut().and_then(|s| s.first_mut())
    {
        *byte ^= 1;
    }
    chunk
}

pub(super) fn item_bytes(item: &Item) -> usize {
    match item {
        Item::Hello { .. } => 7,
        Item::Quality(quality) => 2 + usize::from(quality.is_some()),
        Item::Order(_) | Item::Follow(_) => 4,
        Item::Group(groups) => 2 + 4 * groups.len(),
        Item::Poll(shorts) | Item::Cancel(shorts) => 2 + 2 * shorts.len(),
        Item::Report(report) => REPORT_FIXED + report.standings.iter().map(|(_, s)| s.bytes()).sum::<usize>(),
    }
}
