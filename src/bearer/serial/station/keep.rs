//! Custody: what is committed, judged and finished, and what a restart brings back.

use std::collections::BTreeSet;

use super::super::incoming::{Ending, Key, Partial, Stage, read_batch, write_batch};
use super::super::outgoing::{OutgoingRecord, Role};
use super::{COMMIT_AHEAD, COUNTERS, FINISHED, Pending, REFUSED_TOO_LARGE, Station, late};
use crate::bearer::fec::Geometry;
use crate::bearer::{Event, Holding, Job};
use crate::mail::TransferId;
use crate::time::Instant;

impl Station {
    pub(super) fn gather(&mut self, key: Key) {
        let Some(p) = self.partials.get_mut(&key) else { return };
        p.stage = Stage::Gathering;
        let symbols = p.symbols.iter().map(|(q, (bytes, _))| (*q, bytes.clone())).collect();
        let geometry = p.geometry;
        let ticket = self.ticket(Pending::Gather(key));
        self.events.push_back(Event::Job { ticket, job: Job::Gather { geometry, symbols } });
    }

    /// Hands a whole payload to the switch.
    pub(super) fn offer(&mut self, key: Key) {
        let Some(p) = self.partials.get_mut(&key) else { return };
        let payload = match &p.stage {
            Stage::Judged(payload) | Stage::Later(payload, _) => payload.clone(),
            Stage::Filling | Stage::Gathering | Stage::Ending(..) => return,
        };
        p.stage = Stage::Judged(payload.clone());
        let Some(from) = self.peers.get(&key.0).map(|p| p.name.clone()) else { return };
        let (epoch, counter) = if key.1 == 0 { (key.2 >> 12, key.2 & 0xFFF) } else { (key.1, key.2) };
        let id = TransferId { origin: from.clone(), epoch, counter };
        let ticket = self.ticket(Pending::Judge(key));
        self.events.push_back(Event::Whole { ticket, from, id, payload });
    }

    /// Commits how a transfer ended, and drops its symbols in the same breath; only then is it reported.
    pub(super) fn end(&mut self, key: Key, ending: Ending) {
        let Some(p) = self.partials.get_mut(&key) else { return };
        p.stage = Stage::Ending(ending, true);
        let mut puts: Vec<_> = (0..p.batches).map(|n| (batch_key(key, n), None)).collect();
        let value = match ending {
            Ending::Accepted => vec![0],
            Ending::Refused(reason) => vec![1, reason],
        };
        puts.push((finished_key(key), Some(value)));
        let ticket = self.ticket(Pending::Ending(key, ending));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    pub(super) fn ended(&mut self, key: Key, ending: Ending, ok: bool) {
        if !ok {
            if let Some(p) = self.partials.get_mut(&key) {
                p.stage = Stage::Ending(ending, false);
            }
            return;
        }
        self.partials.remove(&key);
        self.finish(key, ending);
        self.answer(key);
        self.share(key, ending.into());
    }

    /// Remembers how a transfer ended, and forgets the oldest such memory.
    pub(super) fn finish(&mut self, key: Key, ending: Ending) {
        self.remember(key, ending);
        if self.finished.len() > FINISHED
            && let Some(oldest) = self.finished_order.pop_front()
        {
            self.finished.remove(&oldest);
            self.forget(vec![(finished_key(oldest), None)]);
        }
    }

    pub(super) fn remember(&mut self, key: Key, ending: Ending) {
        if self.finished.insert(key, ending).is_none() {
            self.finished_order.push_back(key);
        }
    }

    pub(super) fn drop_partial(&mut self, key: Key) {
        if self.discard(key) {
            self.share(key, Holding::Dropped);
        }
    }

    /// Drops what is held here; false when nothing is.
    pub(super) fn discard(&mut self, key: Key) -> bool {
        let Some(p) = self.partials.remove(&key) else { return false };
        let puts = (0..p.batches).map(|n| (batch_key(key, n), None)).collect();
        self.forget(puts);
        true
    }

    /// Makes room for a new partial: the least precedence goes first, and of those the one not heard for longest.
    pub(super) fn make_room(&mut self, now: Instant, key: Key, geometry: Geometry) -> bool {
        let need = geometry.coded() as usize;
        if need > self.config.max_partial_bytes || self.config.max_partials == 0 {
            self.remember(key, Ending::Refused(REFUSED_TOO_LARGE));
            return false;
        }
        loop {
            let held: usize = self.partials.values().map(|p| p.geometry.coded() as usize).sum();
            if self.partials.len() < self.config.max_partials && held + need <= self.config.max_partial_bytes {
                return true;
            }
            let victim = self
                .partials
                .iter()
                .filter(|(_, p)| p.stage == Stage::Filling && p.touched < now)
                .min_by_key(|(k, p)| (p.rank, p.touched, **k))
                .map(|(k, _)| *k);
            let Some(victim) = victim else { return false };
            self.counts.evicted += 1;
            self.drop_partial(victim);
        }
    }

    /// Commits what has come in, one commit at a time: what arrives meanwhile goes into the next.
    pub(super) fn commit_symbols(&mut self) {
        if self.committing {
            return;
        }
        let (mut puts, mut batches) = (Vec::new(), Vec::new());
        for (key, p) in &mut self.partials {
            let fresh: Vec<u16> = p.symbols.iter().filter(|(_, (_, committed))| !committed).map(|(q, _)| *q).collect();
            if fresh.is_empty() || matches!(p.stage, Stage::Ending(..)) {
                continue;
            }
            let symbols = fresh.iter().filter_map(|q| p.symbols.get(q).map(|(bytes, _)| (*q, &bytes[..])));
            puts.push((batch_key(*key, p.batches), Some(write_batch(p.geometry, symbols))));
            p.batches += 1;
            batches.push((*key, fresh));
        }
        if puts.is_empty() {
            return;
        }
        for station in batches.iter().map(|(k, _)| k.0).collect::<BTreeSet<u8>>() {
            if let Some(p) = self.peers.get(&station) {
                puts.push((peer_key(station), encode(&p.record)));
            }
        }
        self.committing = true;
        let ticket = self.ticket(Pending::Symbols(batches));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    pub(super) fn reserve_counters(&mut self) {
        if self.counter_reserving || self.counter + COUNTERS / 4 < self.counter_limit {
            return;
        }
        self.counter_reserving = true;
        let limit = self.counter_limit.max(self.counter).saturating_add(COUNTERS);
        let ticket = self.ticket(Pending::Counter(limit));
        let puts = vec![(b"c".to_vec(), Some(limit.to_be_bytes().to_vec()))];
        self.events.push_back(Event::Persist { ticket, puts });
    }

    /// Keeps the committed cursor ahead of what the next transmission may use, so that no restart sends a symbol twice.
    pub(super) fn reserve_rows(&mut self, id: &TransferId) {
        let Some(t) = self.outgoing.get_mut(id) else { return };
        // Far enough ahead that filling blocks never waits for the store, and no further: what is reserved and unsent is lost to a restart.
        let block = self.air.waveform().block.as_millis().max(1);
        let blocks = (COMMIT_AHEAD.as_millis().div_ceil(block) as u64).max(2);
        let bytes = self.air.stream_bytes(blocks) + u64::from(self.air.waveform().frame_bytes);
        let ahead = (bytes / t.geometry.symbol_bytes() as u64 / u64::from(t.geometry.blocks())) as u32 + 2;
        if t.reserving || t.record.reserved >= t.next_row() + ahead || t.missing() == 0 || t.role != Role::Carry {
            return;
        }
        let rows = t.next_row() + ahead + ahead / 4;
        let mut puts = Vec::new();
        for id in self.siblings(id) {
            let Some(t) = self.outgoing.get_mut(&id) else { continue };
            t.reserving = true;
            t.asked_rows = rows;
            let record = OutgoingRecord { reserved: rows.max(t.record.reserved), ..t.record.clone() };
            puts.push((outgoing_key(&id), encode(&record)));
        }
        let ticket = self.ticket(Pending::Rows(id.clone(), rows));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    pub(super) fn retry_commits(&mut self, _now: Instant) {
        self.events.push_back(Event::Alarm("the store refused a commit of the link; trying again".into()));
        self.reserve_counters();
        self.commit_symbols();
        let ids: Vec<TransferId> = self.outgoing.keys().cloned().collect();
        ids.iter().for_each(|id| self.reserve_rows(id));
        let failed: Vec<(Key, Ending)> = self
            .partials
            .iter()
            .filter_map(|(k, p)| match p.stage {
                Stage::Ending(ending, false) => Some((*k, ending)),
                Stage::Filling | Stage::Gathering | Stage::Judged(_) | Stage::Later(..) | Stage::Ending(..) => None,
            })
            .collect();
        failed.into_iter().for_each(|(key, ending)| self.end(key, ending));
    }

    pub(super) fn forget(&mut self, puts: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        if !puts.is_empty() {
            let ticket = self.ticket(Pending::Forget);
            self.events.push_back(Event::Persist { ticket, puts });
        }
    }

    pub(super) fn ticket(&mut self, pending: Pending) -> u64 {
        self.ticket += 1;
        self.pending.insert(self.ticket, pending);
        self.ticket
    }

    pub(super) fn restore(&mut self, now: Instant, restored: Vec<(Vec<u8>, Vec<u8>)>) {
        for (key, value) in restored {
            if self.restore_one(now, &key, &value).is_none() {
                self.events.push_back(Event::Alarm("an unreadable record of the link was left aside".into()));
            }
        }
        let whole: Vec<Key> = self.partials.iter().filter(|(k, p)| k.1 != 0 && p.is_whole()).map(|(k, _)| *k).collect();
        whole.into_iter().for_each(|key| self.gather(key));
    }

    pub(super) fn restore_one(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Option<()> {
        let (kind, rest) = key.split_first()?;
        let word = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        match kind {
            b'c' => {
                self.counter_limit = u32::from_be_bytes(value.try_into().ok()?);
                self.counter = self.counter_limit;
                #[cfg(feature = "mutations")]
                if crate::mutation::is(crate::mutation::Mutation::ReuseCounter) {
                    self.counter = 0;
                }
            }
            b'p' => {
                if let Some(p) = self.peers.get_mut(rest.first()?) {
                    p.record = postcard::from_bytes(value).ok()?;
                }
            }
            b'r' => self.remember_reach(*rest.first()?, postcard::from_bytes(value).ok()?),
            b't' => {
                let id = TransferId { origin: self.config.name.clone(), epoch: word(0)?, counter: word(4)? };
                self.left_over.insert(id, OutgoingRecord::read(value)?);
            }
            b'l' => {
                let id = TransferId { origin: self.config.name.clone(), epoch: word(0)?, counter: word(4)? };
                self.late.insert(id, late::Late::told());
            }
            b's' => {
                let key = (*rest.first()?, word(1)?, word(5)?);
                let number = word(9)?;
                let (geometry, symbols) = read_batch(value)?;
                let p = self.partials.entry(key).or_insert_with(|| Partial::new(geometry, now));
                p.batches = p.batches.max(number.saturating_add(1));
                if p.geometry == geometry {
                    for (q, bytes) in symbols {
                        p.take(q, bytes, true);
                    }
                }
            }
            b'f' => {
                let key = (*rest.first()?, word(1)?, word(5)?);
                let ending = match value {
                    [0] => Ending::Accepted,
                    [1, reason] => Ending::Refused(*reason),
                    _ => return None,
                };
                self.remember(key, ending);
            }
            _ => return None,
        }
        Some(())
    }
}

pub(super) fn encode<T: serde::Serialize>(record: &T) -> Option<Vec<u8>> {
    // Plain structs of numbers and lists: postcard cannot fail on them.
    Some(postcard::to_stdvec(record).unwrap_or_default())
}

pub(super) fn peer_key(station: u8) -> Vec<u8> {
    vec![b'p', station]
}

/// Key of what was learnt of the way to a station.
pub(super) fn reach_key(station: u8) -> Vec<u8> {
    vec![b'r', station]
}

pub(super) fn outgoing_key(id: &TransferId) -> Vec<u8> {
    [&b"t"[..], &id.epoch.to_be_bytes(), &id.counter.to_be_bytes()].concat()
}

pub(super) fn batch_key(key: Key, number: u32) -> Vec<u8> {
    [&[b's', key.0][..], &key.1.to_be_bytes(), &key.2.to_be_bytes(), &number.to_be_bytes()].concat()
}

pub(super) fn finished_key(key: Key) -> Vec<u8> {
    [&[b'f', key.0][..], &key.1.to_be_bytes(), &key.2.to_be_bytes()].concat()
}
