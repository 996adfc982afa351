//! Hearing: frames in, symbols filed, reports applied, reports made.

use std::collections::BTreeSet;

use super::super::frame::{
    Address, CONTROL_OVERHEAD, Chunk, Deframer, Found, Frame, Item, MOST_HEARD, Overheard, REPORT_FIXED, Report,
    Standing, Stations,
};
use super::super::incoming::{Ending, Key, Partial, Stage};
use super::super::keys::Context;
use super::super::outgoing::{OutgoingRecord, short};
use super::super::peer::Admission;
use super::super::rate::Readings;
use super::keep::{batch_key, encode, outgoing_key, peer_key, reach_key};
use super::{ANSWERS, Hearing, Pending, Phase, SETTLE, Station, UNSEALED_FRAMES, UNSEALED_TURNS};
use crate::bearer::{Event, Holding};
use crate::mail::{Precedence, TransferId};
use crate::time::{Duration, Instant};

impl Station {
    pub(super) fn hear(&mut self, now: Instant) -> &mut Hearing {
        let after = self.asked_at.map(|at| now.since(at));
        self.hearing.get_or_insert_with(|| Hearing {
            deframer: Deframer::default(),
            since: now,
            last: now,
            sense: now,
            from: BTreeSet::new(),
            spoke: BTreeSet::new(),
            speakers: Stations::NONE,
            foreign: false,
            goes_on: false,
            asked: Stations::NONE,
            order: None,
            follow: None,
            unsealed: Vec::new(),
            readings: Readings::default(),
            after,
        })
    }

    pub(super) fn received(&mut self, now: Instant, bytes: &[u8]) {
        if matches!(self.phase, Phase::Keyed(_) | Phase::Down) {
            return;
        }
        let h = self.hear(now);
        h.last = now;
        h.deframer.push(bytes);
        let before = self.counts.frames;
        self.drain_frames(now);
        if self.counts.frames > before {
            self.carrier_tells = self.carrier.is_some() && !self.carrier_stuck;
        }
        self.commit_symbols();
    }

    /// Whether somebody is speaking, as far as this station can tell.
    pub(super) fn listening(&self) -> bool {
        let Some(h) = &self.hearing else { return false };
        (self.carrier.is_some() && !self.carrier_stuck) || !self.carrier_tells || h.made_sense()
    }

    /// Bytes without a carrier have ceased, or have gone on for longer than any frame without making one.
    pub(super) fn fell_silent(&mut self, now: Instant) {
        if let Some(h) = &mut self.hearing
            && !h.made_sense()
            && h.last < now
            && self.noise_at().is_some_and(|t| t <= now)
        {
            self.carrier_tells = true;
            return;
        }
        if self.listening() {
            return self.heard(now);
        }
        if let Some(h) = &mut self.hearing {
            h.deframer.finish();
        }
        self.drain_frames(now);
        match self.listening() {
            true => self.heard(now),
            false => self.hearing = None,
        }
    }

    /// A transmission is over.
    pub(super) fn heard(&mut self, now: Instant) {
        let Some(h) = &mut self.hearing else { return };
        h.deframer.finish();
        self.drain_frames(now);
        self.commit_symbols();
        let Some(h) = self.hearing.take() else { return };
        if let (Some(from), 1) = (h.from.first(), h.from.len()) {
            let after = h.after.filter(|_| self.awaited.contains(from));
            self.note_reception(now, *from, h.since, h.readings.quality(), after);
        }
        for from in h.from.difference(&h.spoke) {
            // Who does not know our epoch says hello in every transmission.
            if let Some(p) = self.peers.get_mut(from) {
                p.took |= p.told;
            }
        }
        self.judge_seals(&h);
        // What was said to all asks those whom the order names.
        if h.order.is_some_and(|order| order.has(self.config.station)) {
            for from in &h.from {
                if let Some(p) = self.peers.get_mut(from) {
                    p.owed |= std::mem::take(&mut p.unasked);
                }
            }
        }
        self.settle = Some(now + SETTLE);
        self.joining = Some(now + self.config.waveform.turnaround / 2);
        let unreadable = !h.made_sense();
        let answered = unreadable && self.peers.len() == 1 && !self.awaited.is_empty();
        if unreadable {
            let awaited = &self.awaited;
            self.peers.iter_mut().filter(|(s, _)| awaited.contains(s)).for_each(|(_, p)| p.spoke_garbled = true);
        }
        // Whoever spoke is there: what it did not answer is asked again in our next transmission, without back-off.
        self.awaited.retain(|s| !h.from.contains(s));
        self.take_slot(now, &h);
        self.told_to_wait(now, &h);
        // Somebody took the gap: its word counts, and what it does not speak of is asked about.
        self.end_chain();
        if self.awaited.is_empty() {
            self.await_until = None;
        } else if self.await_round(now) {
            // The next ones have their slots still to come.
        } else if let Some(until) = self.await_until {
            // The answer was lost, or somebody else spoke: no point in waiting for long.
            self.await_until = Some(until.min(now + Duration::from_secs(1)));
        }
        if h.from.is_empty() && !self.is_net() && !answered {
            let spread = self.config.waveform.turnaround.as_millis().max(1) as u64;
            let wait = Duration::from_millis(self.draw() % spread) + self.rank_delay();
            self.hold_for(now, wait);
        }
    }

    pub(super) fn drain_frames(&mut self, now: Instant) {
        let Some(mut h) = self.hearing.take() else { return };
        while let Some(found) = h.deframer.poll(&self.ring) {
            if !matches!(found, Found::Unsealed(_)) {
                h.sense = now;
            }
            match found {
                Found::Frame(frame) => {
                    self.counts.frames += 1;
                    let address = frame.address();
                    let from = address.from;
                    let first = h.from.insert(from);
                    h.speakers = h.speakers.and(Stations::one(from));
                    if let Some(p) = self.peers.get_mut(&from) {
                        p.alive();
                        if p.silent {
                            p.spoke = Some(now);
                        }
                        p.heard_at = Some(now);
                        if first {
                            p.inbound.begins();
                        }
                        if first && !p.goes_on {
                            // Between its transmission and the answer others may have had their slots.
                            p.heard = 0;
                        }
                    }
                    match frame {
                        Frame::Symbols { goes_on, more_waits, chunks, .. } => {
                            let to_all = address.to == from;
                            if let Some(p) = self.peers.get_mut(&from).filter(|_| !to_all) {
                                p.more_waits = more_waits;
                            }
                            h.goes_on |= goes_on;
                            if !to_all && !goes_on {
                                h.asked = h.asked.and(Stations::one(self.config.station));
                            }
                            self.file(now, from, chunks, to_all);
                        }
                        Frame::Control { epoch, counter, items, .. } => {
                            h.spoke.insert(from);
                            let to_all = address.to == from;
                            for item in &items {
                                match item {
                                    Item::Poll(_) | Item::Cancel(_) if to_all => {}
                                    Item::Poll(_) | Item::Cancel(_) => {
                                        h.asked = h.asked.and(Stations::one(self.config.station));
                                    }
                                    Item::Order(stations) => h.order = Some(*stations),
                                    Item::Follow(stations) => h.follow = Some(*stations),
                                    Item::Hello { .. } | Item::Report(_) | Item::Group(_) | Item::Quality(_) => {}
                                }
                            }
                            self.listen(now, from, epoch, counter, self.ours(items, to_all));
                        }
                        Frame::Brief { context, waiting, heard, standings, quality, .. } => {
                            let epoch = self.config.epoch;
                            let report = Report { epoch, heard: heard.into(), standings, ..Report::default() };
                            self.take_brief(now, from, context, waiting, report, quality);
                        }
                    }
                }
                Found::Foreign(Overheard { address, asks, order }) => {
                    h.speakers = h.speakers.and(Stations::one(address.from));
                    h.foreign = true;
                    if asks && address.to != address.from {
                        h.asked = h.asked.and(Stations::one(address.to));
                    }
                    h.order = h.order.or(order);
                }
                Found::Unsealed(address) => {
                    self.counts.unsealed += 1;
                    h.speakers = h.speakers.and(Stations::one(address.from));
                    if h.unsealed.len() < ANSWERS {
                        h.unsealed.push(address);
                    }
                }
            }
        }
        self.hearing = Some(h);
    }

    /// Judges the seals of a transmission that is over: one that holds frames of a peer and not a single one of them fits speaks of
    /// keys when it is not the only one.
    pub(super) fn judge_seals(&mut self, h: &Hearing) {
        let stations: BTreeSet<u8> = h.unsealed.iter().map(|a| a.from).filter(|s| !h.from.contains(s)).collect();
        for station in stations {
            let frames: Vec<&Address> = h.unsealed.iter().filter(|a| a.from == station).collect();
            let (Some(address), true) = (frames.first(), frames.len() >= UNSEALED_FRAMES) else { continue };
            let holds = self.ring.holds(**address);
            let Some(p) = self.peers.get_mut(&station) else { continue };
            p.unsealed_turns += 1;
            if p.unsealed_turns == UNSEALED_TURNS {
                let what = if holds { "do not authenticate under" } else { "name a key this station lacks:" };
                self.events.push_back(Event::Alarm(format!(
                    "frames from {} {what} key {}: wrong key, or forgery",
                    p.name, address.key
                )));
            }
        }
    }

    pub(super) fn file(&mut self, now: Instant, from: u8, chunks: Vec<Chunk>, to_all: bool) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.heard = (peer.heard + 1).min(MOST_HEARD);
        peer.answered = false;
        match to_all {
            true => peer.unasked = true,
            false => peer.owed = true,
        }
        let rank = peer.waiting.flatten().map_or(0, |p| p.rank() + 1);
        let cell_bytes = self.air.waveform().frame_bytes;
        for chunk in chunks {
            let Some(peer) = self.peers.get_mut(&from) else { return };
            peer.inbound.hear(&chunk, cell_bytes);
            if to_all && peer.aside.contains(&chunk.short) {
                continue;
            }
            let (epoch, counter) = peer.record.expand(chunk.short);
            if epoch != 0 {
                peer.record.transfer_seen = peer.record.transfer_seen.max(counter);
            }
            if peer.answer.len() < ANSWERS {
                peer.answer.insert(chunk.short);
            }
            let key = (from, epoch, counter);
            if self.finished.contains_key(&key) {
                continue;
            }
            if self.partials.get(&key).is_some_and(|p| p.geometry != chunk.geometry) {
                // Another payload under the same short id: the sender has long forgotten the old one.
                self.drop_partial(key);
            }
            if !self.partials.contains_key(&key) && !self.make_room(now, key, chunk.geometry) {
                continue;
            }
            let partial = self.partials.entry(key).or_insert_with(|| Partial::new(chunk.geometry, now));
            (partial.touched, partial.rank) = (now, rank);
            for (i, symbol) in chunk.symbols.into_iter().enumerate() {
                partial.take(chunk.first + i as u16, symbol, false);
            }
            // Without the sender's epoch it has no name to be opened and remembered under; a hello will bring it.
            if epoch != 0 && partial.stage == Stage::Filling && partial.is_whole() {
                self.gather(key);
            }
        }
    }

    /// Whether a word of this epoch and counter is new.
    pub(super) fn admit(&mut self, from: u8, epoch: u32, counter: u32) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else { return false };
        match peer.record.admit(epoch, counter) {
            Admission::Replay => {
                // Copies inside one transmission are normal; an old backup on the other side looks the same, and our report tells it.
                self.counts.replays += 1;
                if peer.record.control_seen.saturating_sub(counter) > 64 {
                    (peer.owed, peer.polled) = (true, true);
                }
                return false;
            }
            Admission::NewEpoch => {
                self.new_epoch(from, epoch);
                self.share((from, epoch, 0), Holding::Epoch);
            }
            Admission::Fresh => {}
        }
        if let Some(peer) = self.peers.get(&from) {
            self.ring.heard_from(from, epoch, peer.record.control_seen);
        }
        true
    }

    /// A report in few bytes: it names no epochs because its seal holds only between these two.
    pub(super) fn take_brief(
        &mut self,
        now: Instant,
        from: u8,
        context: Context,
        waiting: u8,
        report: Report,
        quality: Option<u8>,
    ) {
        if !self.admit(from, context.epoch, context.counter) {
            return;
        }
        if quality.is_some() {
            self.take_quality(now, from, quality);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.waiting = Some(waiting.checked_sub(1).and_then(Precedence::from_rank));
        }
        self.take_report(now, from, context.epoch, context.counter, report, false);
    }

    pub(super) fn listen(&mut self, now: Instant, from: u8, epoch: u32, counter: u32, items: Vec<Item>) {
        if !self.admit(from, epoch, counter) {
            return;
        }
        for item in items {
            let Some(peer) = self.peers.get_mut(&from) else { return };
            match item {
                Item::Hello { waiting, reads, counter } => {
                    peer.record.reads = reads;
                    peer.waiting = Some(waiting.checked_sub(1).and_then(Precedence::from_rank));
                    peer.record.transfer_seen = peer.record.transfer_seen.max(counter);
                }
                Item::Poll(shorts) => {
                    self.note_question(from);
                    let Some(peer) = self.peers.get_mut(&from) else { return };
                    (peer.owed, peer.polled) = (true, true);
                    peer.answer.extend(shorts.into_iter().take(ANSWERS));
                }
                Item::Cancel(shorts) => {
                    peer.owed = true;
                    for short in shorts {
                        let Some(peer) = self.peers.get_mut(&from) else { return };
                        peer.answer.insert(short);
                        let (epoch, counter) = peer.record.expand(short);
                        self.drop_partial((from, epoch, counter));
                    }
                }
                Item::Report(report) => self.take_report(now, from, epoch, counter, report, true),
                Item::Quality(quality) => self.take_quality(now, from, quality),
                // Heard with the whole transmission: they are about its end.
                Item::Order(_) | Item::Follow(_) => {}
                Item::Group(groups) => self.sort_out(from, groups),
            }
        }
    }

    /// A peer speaks under an epoch never heard before: its store is new, or it speaks for the first time.
    pub(super) fn new_epoch(&mut self, from: u8, epoch: u32) {
        if let Some(p) = self.peers.get_mut(&from) {
            (p.told, p.took) = (false, false);
        }
        let old: Vec<Key> = self.partials.keys().filter(|k| k.0 == from && k.1 != 0 && k.1 != epoch).copied().collect();
        for key in old {
            self.counts.evicted += 1;
            self.drop_partial(key);
        }
        // What was filed under short ids finds its full name now; its batches are written again under it.
        let nameless: Vec<Key> = self.partials.keys().filter(|k| k.0 == from && k.1 == 0).copied().collect();
        for key in nameless {
            let Some((epoch, counter)) = self.peers.get(&from).map(|p| p.record.expand(key.2 as u16)) else { continue };
            let filling = self.partials.get(&key).is_some_and(|p| p.stage == Stage::Filling);
            if epoch == 0 || !filling || self.partials.contains_key(&(from, epoch, counter)) {
                continue;
            }
            let Some(mut partial) = self.partials.remove(&key) else { continue };
            let puts = (0..partial.batches).map(|n| (batch_key(key, n), None)).collect();
            partial.batches = 0;
            partial.symbols.values_mut().for_each(|(_, committed)| *committed = false);
            self.forget(puts);
            let whole = partial.is_whole();
            self.partials.insert((from, epoch, counter), partial);
            if whole {
                self.gather((from, epoch, counter));
            }
        }
    }

    /// A report is committed before it steers anything (A3).
    pub(super) fn take_report(
        &mut self,
        now: Instant,
        station: u8,
        epoch: u32,
        sequence: u32,
        mut report: Report,
        full: bool,
    ) {
        let Some(peer) = self.peers.get_mut(&station) else { return };
        if report.epoch == self.config.epoch {
            peer.record.knows = report.epoch;
            let unsent =
                |short: u16| self.outgoing.values().any(|t| t.station == station && t.unsent && t.short() == short);
            let known = |(short, standing): &(u16, Standing)| *standing != Standing::Unknown && unsent(*short);
            let ahead = report.transfer_seen > self.highest || report.control_seen > self.counter_limit;
            if ahead || report.standings.iter().any(known) {
                // It speaks of what this store has lost. Nothing it says of these ids is about what they stand for here.
                if !std::mem::replace(&mut self.suspended, true) {
                    self.events.push_back(Event::EpochUsed { peer: peer.name.clone() });
                }
                return;
            }
            // A brief one does not say what it knows of this node's past.
            peer.agrees |= full;
        } else if report.epoch != 0 && report.epoch & 0xF == self.config.epoch & 0xF {
            // Its short ids stood for transfers of a former epoch.
            report.standings.clear();
            report.more = true;
        }
        if peer.sent_frames > 0 {
            let (sent, heard) = (peer.sent_frames.min(MOST_HEARD.into()), u32::from(report.heard));
            let well = heard * 2 >= sent;
            if std::mem::take(&mut peer.sent_before_others) {
                peer.keeps_slot = !well;
            }
            // Where most was lost the way is not what it was; of a chain, whole transmissions were, which says nothing of single cells.
            if well || !peer.sent_chained {
                peer.record.learn(sent, heard, peer.sent_cells);
            }
            peer.heard_for = if well { peer.heard_for + peer.sent_air } else { Duration::ZERO };
            (peer.sent_frames, peer.sent_air) = (0, Duration::ZERO);
        }
        let record = encode(&peer.record);
        self.learn_arrivals(now, station, report.heard);
        let mut puts = vec![(peer_key(station), record)];
        puts.extend(self.learnt(station).map(|learnt| (reach_key(station), encode(&learnt))));
        for t in self.outgoing.values().filter(|t| t.station == station) {
            let Some((_, Standing::Lacks(lack))) = report.standings.iter().find(|(s, _)| *s == t.short()) else {
                continue;
            };
            let record = OutgoingRecord {
                peer_epoch: epoch,
                report: sequence,
                lack: lack.clone(),
                reserved: t.record.reserved.max(t.asked_rows),
                ..OutgoingRecord::default()
            };
            puts.push((outgoing_key(&t.transfer.id), encode(&record)));
        }
        puts.extend(self.late_puts(station, &report));
        let ticket = self.ticket(Pending::Report { station, epoch, sequence, report });
        self.events.push_back(Event::Persist { ticket, puts });
    }

    pub(super) fn apply(&mut self, now: Instant, station: u8, epoch: u32, sequence: u32, report: Report) {
        self.confirm_late(station, &report);
        let ids: Vec<TransferId> =
            self.outgoing.values().filter(|t| t.station == station).map(|t| t.transfer.id.clone()).collect();
        if let Some(p) = self.peers.get_mut(&station) {
            for (short, standing) in &report.standings {
                if !matches!(standing, Standing::Lacks(_)) {
                    p.cancels.remove(short);
                }
            }
        }
        for id in ids {
            let silent = self.is_silent(station);
            let Some(t) = self.outgoing.get_mut(&id) else { continue };
            if t.record.peer_epoch != 0 && t.record.peer_epoch != epoch {
                t.forget_reports();
            } else if t.record.peer_epoch == epoch && sequence <= t.record.report {
                continue;
            }
            (t.record.peer_epoch, t.record.report) = (epoch, sequence);
            let standing = report.standings.iter().find(|(s, _)| *s == t.short()).map(|(_, standing)| standing);
            match standing {
                Some(Standing::Lacks(lack)) if lack.len() == t.lack.len() => {
                    t.record.lack = lack.clone();
                    t.recount();
                    t.unsure = false;
                    t.not_before = None;
                    let need = t.geometry.count();
                    let have = need - t.missing();
                    if have == need {
                        // Whole there; the verdict is still out. Ask again, not too soon.
                        t.unsure = !silent;
                        t.not_before = Some(now + self.air.turn() + Duration::from_secs(5));
                    }
                    let (bytes_on_air, air) = (t.bytes, t.air);
                    if self.config.siblings.contains(&station) {
                        self.events.push_back(Event::Lacks { id: id.clone(), epoch, lack: lack.clone() });
                    }
                    self.events.push_back(Event::Progress { id: id.clone(), have, need, bytes_on_air, air });
                    self.reserve_rows(&id);
                }
                Some(Standing::Accepted) => {
                    let (bytes_on_air, air) = (t.bytes, t.air);
                    self.events.push_back(Event::Confirmed { id: id.clone(), bytes_on_air, air });
                    self.close(&id);
                }
                Some(Standing::Refused(reason)) => {
                    self.events.push_back(Event::Refused { id: id.clone(), reason: *reason });
                    self.close(&id);
                }
                Some(Standing::Unknown | Standing::Lacks(_)) => t.forget_reports(),
                None if !report.more => {
                    // Not spoken of. What lacks nothing by the last word still waits for its verdict, which may have been lost with
                    // the far process: it is asked for again, or it would wait for ever. Whether a new number is free is still open.
                    t.doubt();
                    // A peer that was started anew in silence no longer knows what it has to speak of: it is asked by name.
                    let open = t.unsent || t.record.windows > 0;
                    t.unsure = !silent && (t.missing() == 0 || open && t.unsure);
                    if t.missing() == 0 {
                        t.not_before = Some(now + self.air.turn() + Duration::from_secs(5));
                    }
                }
                None => {}
            }
        }
        self.settle_unheard(now, station);
        self.next_queued(now);
    }

    /// The far side has the last word on a transfer. What is stored of it stays until the switch has made the outcome durable and
    /// cancels: a restart in between must ask, not send it all again.
    pub(super) fn close(&mut self, id: &TransferId) {
        if let Some(t) = self.outgoing.remove(id) {
            self.left_over.insert(id.clone(), t.record);
        }
    }

    /// Takes up transfers that waited for a short id to become free.
    pub(super) fn next_queued(&mut self, now: Instant) {
        for transfer in std::mem::take(&mut self.queued) {
            self.send(now, transfer);
        }
    }

    pub(super) fn report(&mut self, station: u8, used: usize) -> Report {
        let room = (self.air.waveform().frame_bytes as usize).saturating_sub(CONTROL_OVERHEAD).min(255);
        let mut room = room.saturating_sub(used + REPORT_FIXED).max(24);
        let mut report = Report::default();
        let Some(peer) = self.peers.get_mut(&station) else { return report };
        let mut shorts: Vec<u16> = std::mem::take(&mut peer.answer).into_iter().collect();
        if std::mem::take(&mut peer.polled) {
            peer.answered = true;
            let known = self
                .partials
                .keys()
                .filter(|k| k.0 == station)
                .map(|k| short(k.1, k.2) | if k.1 == 0 { k.2 as u16 } else { 0 });
            let more: Vec<u16> = known.filter(|s| !shorts.contains(s)).take(8).collect();
            shorts.extend(more);
        }
        (peer.owed, peer.unasked, peer.told, peer.goes_on) = (false, false, true, false);
        report.epoch = peer.record.epoch;
        report.transfer_seen = peer.record.transfer_seen;
        report.control_seen = peer.record.control_seen;
        report.heard = peer.heard;
        let standings: Vec<(u16, Standing)> = shorts.into_iter().map(|s| (s, self.standing(station, s))).collect();
        for (short, standing) in standings {
            match room.checked_sub(standing.bytes()) {
                Some(rest) => {
                    room = rest;
                    report.standings.push((short, standing));
                }
                None => report.more = true,
            }
        }
        report
    }

    pub(super) fn standing(&self, station: u8, short: u16) -> Standing {
        let Some(peer) = self.peers.get(&station) else { return Standing::Unknown };
        let (epoch, counter) = peer.record.expand(short);
        let keys = [(station, epoch, counter), (station, 0, u32::from(short))];
        for key in keys {
            match self.finished.get(&key) {
                Some(Ending::Accepted) => return Standing::Accepted,
                Some(Ending::Refused(reason)) => return Standing::Refused(*reason),
                None => {}
            }
            if let Some(p) = self.partials.get(&key) {
                return p.standing();
            }
        }
        Standing::Unknown
    }

    /// The next report to that peer speaks of this transfer, soon.
    pub(super) fn answer(&mut self, key: Key) {
        if let Some(p) = self.peers.get_mut(&key.0) {
            p.answer.insert(if key.1 == 0 { key.2 as u16 } else { short(key.1, key.2) });
            p.owed = true;
        }
    }

    pub(super) fn peer_name(&self, station: u8) -> String {
        self.peers.get(&station).map_or_else(|| station.to_string(), |p| p.name.to_string())
    }
}
