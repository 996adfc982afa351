//! Custody: what is committed, judged and finished, and what a restart brings back.

use std::sync::Arc;

use super::incoming::Incoming;
use super::station::{Finished, Key, Pending, RETRY, Station};
use crate::bearer::fec::Geometry;
use crate::bearer::serial::incoming::{Ending, Stage, read_batch, write_batch};
use crate::bearer::serial::station::REFUSED_TOO_LARGE;
use crate::bearer::{Event, Job};
use crate::mail::TransferId;
use crate::time::Instant;

/// Counters of control datagrams reserved ahead.
const COUNTERS: u32 = 4096;

impl Station {
    /// The answer to [`Event::Persist`].
    pub fn stored(&mut self, now: Instant, ticket: u64, ok: bool) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        if !ok {
            self.retry_at.get_or_insert(now + RETRY);
        }
        match pending {
            Pending::Symbols(batches) => {
                self.committing = false;
                for (key, numbers) in batches {
                    let Some(i) = self.incoming.get_mut(&key) else { continue };
                    for q in numbers {
                        if let Some(held) = i.partial.symbols.get_mut(&q) {
                            held.1 = ok;
                        }
                    }
                }
                if ok {
                    self.commit_symbols();
                }
            }
            Pending::Ending(key, ending) => self.ended(now, key, ending, ok),
            Pending::Counter(limit) => {
                self.counter_reserving = false;
                if ok {
                    self.counter_limit = limit;
                }
            }
            Pending::Reserve(lead, upto) => {
                if let Some(s) = self.sending.get_mut(&lead) {
                    s.reserving = false;
                    if ok {
                        s.reserved = s.reserved.max(upto);
                    }
                }
                if ok {
                    self.reserve(lead);
                }
            }
            // A report that could not be committed was not heard; it is asked for again.
            Pending::Report { from, epoch, counter, entries } if ok => {
                self.reported(now, from, epoch, counter, entries)
            }
            Pending::Report { .. } | Pending::Spread(_) | Pending::Gather(_) | Pending::Judge(_) | Pending::Forget => {}
        }
    }

    pub(super) fn gather(&mut self, key: Key) {
        let Some(i) = self.incoming.get_mut(&key) else { return };
        i.partial.stage = Stage::Gathering;
        i.quiet_at = None;
        let symbols = i.partial.symbols.iter().map(|(q, (bytes, _))| (*q, bytes.clone())).collect();
        let geometry = i.partial.geometry;
        let ticket = self.ticket(Pending::Gather(key));
        self.events.push_back(Event::Job { ticket, job: Job::Gather { geometry, symbols } });
    }

    pub(super) fn gathered(&mut self, key: Key, payload: Option<Arc<[u8]>>) {
        let Some(i) = self.incoming.get_mut(&key) else { return };
        match payload {
            Some(payload) => {
                i.partial.stage = Stage::Judged(payload);
                self.offer(key);
            }
            None => {
                // Symbols that contradict each other: whoever made them holds the key.
                self.counts.add("contradictions");
                self.discard(key);
            }
        }
    }

    /// Hands a whole payload to the switch.
    fn offer(&mut self, key: Key) {
        let Some(i) = self.incoming.get_mut(&key) else { return };
        let payload = match &i.partial.stage {
            Stage::Judged(payload) | Stage::Later(payload, _) => payload.clone(),
            Stage::Filling | Stage::Gathering | Stage::Ending(..) => return,
        };
        i.partial.stage = Stage::Judged(payload.clone());
        let Some(from) = self.peers.get(&key.0).map(|p| p.name.clone()) else { return };
        let id = TransferId { origin: from.clone(), epoch: key.1, counter: key.2 };
        let ticket = self.ticket(Pending::Judge(key));
        self.events.push_back(Event::Whole { ticket, from, id, payload });
    }

    pub(super) fn put_off(&mut self, key: Key, at: Instant) {
        if let Some(i) = self.incoming.get_mut(&key)
            && let Stage::Judged(payload) = &i.partial.stage
        {
            i.partial.stage = Stage::Later(payload.clone(), at);
        }
    }

    pub(super) fn offer_again(&mut self, now: Instant) {
        let due = |i: &Incoming| i.later_at().is_some_and(|at| at <= now);
        let keys: Vec<Key> = self.incoming.iter().filter(|(_, i)| due(i)).map(|(k, _)| *k).collect();
        keys.into_iter().for_each(|key| self.offer(key));
    }

    /// Commits how a transfer ended, and drops its symbols in the same breath; only then is it reported.
    pub(super) fn end(&mut self, key: Key, ending: Ending) {
        let Some(i) = self.incoming.get_mut(&key) else { return };
        i.partial.stage = Stage::Ending(ending, true);
        let mut puts: Vec<_> = (0..i.partial.batches).map(|n| (batch_key(key, n), None)).collect();
        let (mark, rank) = (i.mark.unwrap_or(0), i.partial.rank);
        puts.push(finished_put(key, &Finished { ending, mark, rank, told: false }));
        let ticket = self.ticket(Pending::Ending(key, ending));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    fn ended(&mut self, now: Instant, key: Key, ending: Ending, ok: bool) {
        if !ok {
            if let Some(i) = self.incoming.get_mut(&key) {
                i.partial.stage = Stage::Ending(ending, false);
            }
            return;
        }
        let Some(i) = self.incoming.remove(&key) else { return };
        let (mark, rank) = (i.mark.unwrap_or(0), i.partial.rank);
        self.remember(key, Finished { ending, mark, rank, told: false });
        self.owe(now, key, &i.members, i.partial.rank);
    }

    /// Remembers how a transfer ended, and forgets the oldest such memory.
    pub(super) fn remember(&mut self, key: Key, finished: Finished) {
        if self.finished.insert(key, finished).is_none() {
            self.finished_order.push_back(key);
        }
        while self.finished.len() > self.config.max_finished.max(1)
            && let Some(oldest) = self.finished_order.pop_front()
        {
            self.finished.remove(&oldest);
            self.said.remove(&oldest);
            self.forget(vec![(finished_key(oldest), None)]);
        }
    }

    pub(super) fn discard(&mut self, key: Key) {
        if self.incoming.get(&key).is_some_and(|i| matches!(i.partial.stage, Stage::Ending(..))) {
            return;
        }
        let Some(i) = self.incoming.remove(&key) else { return };
        let puts = (0..i.partial.batches).map(|n| (batch_key(key, n), None)).collect();
        self.forget(puts);
    }

    /// Makes room for a new transfer: the least precedence goes first, and of those the one not heard for longest.
    pub(super) fn make_room(&mut self, now: Instant, key: Key, geometry: Geometry, mark: u16) -> bool {
        let need = geometry.coded() as usize;
        if need > self.config.max_partial_bytes || self.config.max_partials == 0 {
            self.counts.add("too_large");
            let ending = Ending::Refused(REFUSED_TOO_LARGE);
            self.remember(key, Finished { ending, mark, rank: 0, told: true });
            return false;
        }
        loop {
            let held: usize = self.incoming.values().map(|i| i.partial.geometry.coded() as usize).sum();
            if self.incoming.len() < self.config.max_partials && held + need <= self.config.max_partial_bytes {
                return true;
            }
            let filling =
                self.incoming.iter().filter(|(_, i)| i.partial.stage == Stage::Filling && i.partial.touched < now);
            let victim = filling.min_by_key(|(k, i)| (i.partial.rank, i.partial.touched, **k)).map(|(k, _)| *k);
            let Some(victim) = victim else {
                self.counts.add("no_room");
                return false;
            };
            self.counts.add("evicted");
            self.discard(victim);
        }
    }

    /// Commits what has come in, one commit at a time: what arrives meanwhile goes into the next.
    pub(super) fn commit_symbols(&mut self) {
        if self.committing {
            return;
        }
        let (mut puts, mut batches) = (Vec::new(), Vec::new());
        for (key, i) in &mut self.incoming {
            let p = &mut i.partial;
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
        self.committing = true;
        let ticket = self.ticket(Pending::Symbols(batches));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    /// As if so many reports and words had left.
    #[cfg(test)]
    pub(super) fn skip_counters(&mut self, count: u32) {
        self.counter += count;
        self.reserve_counters();
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

    pub(super) fn retry_commits(&mut self) {
        self.events.push_back(Event::Alarm("the store refused a commit of the link; trying again".into()));
        self.reserve_counters();
        self.commit_symbols();
        let leads: Vec<u32> = self.sending.keys().copied().collect();
        leads.into_iter().for_each(|lead| self.reserve(lead));
        let ending = |i: &Incoming| match i.partial.stage {
            Stage::Ending(ending, false) => Some(ending),
            _ => None,
        };
        let failed: Vec<(Key, Ending)> = self.incoming.iter().filter_map(|(k, i)| Some((*k, ending(i)?))).collect();
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
        let whole: Vec<Key> = self.incoming.iter().filter(|(_, i)| i.partial.is_whole()).map(|(k, _)| *k).collect();
        whole.into_iter().for_each(|key| self.gather(key));
        self.owe_untold(now);
    }

    fn restore_one(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Option<()> {
        let (kind, rest) = key.split_first()?;
        let word = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        match kind {
            b'c' => {
                self.counter_limit = u32::from_be_bytes(value.try_into().ok()?);
                self.counter = self.counter_limit;
            }
            b'p' => {
                if let Some(p) = self.peers.get_mut(rest.first()?) {
                    p.record = postcard::from_bytes(value).ok()?;
                }
            }
            b't' if word(0)? == self.config.epoch => {
                _ = self.left_over.insert(word(4)?, postcard::from_bytes(value).ok()?)
            }
            // Of an epoch that the store has left.
            b't' => self.forget(vec![(key.to_vec(), None)]),
            b's' => {
                let key = (*rest.first()?, word(1)?, word(5)?);
                let number = word(9)?;
                let (geometry, symbols) = read_batch(value)?;
                let i = self.incoming.entry(key).or_insert_with(|| Incoming::new(geometry, now));
                i.partial.batches = i.partial.batches.max(number.saturating_add(1));
                if i.partial.geometry == geometry {
                    for (q, bytes) in symbols {
                        i.partial.take(q, bytes, true);
                    }
                }
            }
            b'f' => {
                let key = (*rest.first()?, word(1)?, word(5)?);
                let [kind, reason, a, b, rank, told] = *value else { return None };
                let ending = match kind {
                    0 => Ending::Accepted,
                    1 => Ending::Refused(reason),
                    _ => return None,
                };
                self.remember(key, Finished { ending, mark: u16::from_be_bytes([a, b]), rank, told: told != 0 });
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

pub(super) fn sending_key(epoch: u32, lead: u32) -> Vec<u8> {
    [&b"t"[..], &epoch.to_be_bytes(), &lead.to_be_bytes()].concat()
}

fn batch_key(key: Key, number: u32) -> Vec<u8> {
    [&[b's', key.0][..], &key.1.to_be_bytes(), &key.2.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// What makes durable how a transfer ended.
pub(super) fn finished_put(key: Key, finished: &Finished) -> (Vec<u8>, Option<Vec<u8>>) {
    let [kind, reason] = match finished.ending {
        Ending::Accepted => [0, 0],
        Ending::Refused(reason) => [1, reason],
    };
    let [a, b] = finished.mark.to_be_bytes();
    (finished_key(key), Some(vec![kind, reason, a, b, finished.rank, u8::from(finished.told)]))
}

fn finished_key(key: Key) -> Vec<u8> {
    [&[b'f', key.0][..], &key.1.to_be_bytes(), &key.2.to_be_bytes()].concat()
}
