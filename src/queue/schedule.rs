//! The bounded set of messages in memory, and which of them goes next.
//!
//! The switch claims due messages from the store, states each recipient's hop, and [`offer`](Active::offer)s them; it asks
//! [`next`](Active::next) whenever a hop may have room, and gives every [`Job`] back by [`finish`](Active::finish). Order is strict:
//! precedence, then deliver-by deadline, then arrival. One copy goes to a hop however many recipients are behind it (link-rules A8).
//! FLASH enters a full set, at the cost of the lowest message waiting there, and leaves first. A hop that takes nothing does not keep
//! what goes elsewhere out of a full set. Knows hops as values only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::accept::Policy;
use super::outcome;
use super::record::{MessageRecord, MessageState};
use crate::mail::{Hop, MessageId, Precedence, Recipient, RecipientState};
use crate::time::{Now, Wall};

/// A hop that more than one in so many messages of the set are ready for makes room for any message that goes elsewhere.
const SHARES: usize = 4;

/// What a hop can take at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// Jobs at once. Only jobs of the same or a higher precedence count against a job, so that a hop full of ROUTINE still
    /// takes FLASH; in all there are at most six times as many.
    pub jobs: usize,
    /// Lowest precedence it may carry now (silence restricted to a level, MINIMIZE).
    pub lowest: Precedence,
    /// Recipients in one job.
    pub recipients: usize,
}

/// One copy to send.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Of which message.
    pub message: MessageId,
    /// For which of its recipients, by index.
    pub recipients: Vec<u32>,
    /// Where to.
    pub hop: Hop,
    /// Its level of service now.
    pub precedence: Precedence,
}

/// A message that waits for a hop.
#[derive(Clone, Copy, Debug)]
pub struct ToGo<'a> {
    /// The message.
    pub record: &'a MessageRecord,
    /// The hop.
    pub hop: &'a Hop,
    /// Not before this; `None`: it is ready.
    pub until: Option<Wall>,
    hops: &'a [Option<Hop>],
}

impl<'a> ToGo<'a> {
    /// The recipients that wait for it.
    pub fn recipients(&self) -> impl Iterator<Item = &'a Recipient> + use<'a> {
        let (hop, record) = (self.hop, self.record);
        let due = record.recipients.iter().map(|r| matches!(r.state, RecipientState::Due { .. }));
        let here = self.hops.iter().map(move |h| h.as_ref() == Some(hop));
        let all = record.envelope.recipients.iter().zip(due.zip(here));
        all.filter(|(_, (due, here))| *due && *here).map(|(recipient, _)| recipient)
    }
}

/// What became of an offer.
#[must_use]
#[derive(Clone, PartialEq, Debug)]
pub enum Offered {
    /// It is in the set.
    Taken,
    /// It is in the set, and this one had to leave: write it back, its lease is released.
    TakenFor(Box<MessageRecord>),
    /// The set is full of messages that go before it: write it back, its lease is released.
    Refused(Box<MessageRecord>),
}

/// The set.
#[derive(Clone, Debug)]
pub struct Active {
    limit: usize,
    policy: Policy,
    entries: BTreeMap<MessageId, Entry>,
    /// Messages no job of which is in flight: only these count against the limit, and only these can be sent back.
    idle: BTreeSet<Rank>,
    ready: BTreeMap<Hop, BTreeSet<Rank>>,
    waiting: BTreeSet<(Wall, MessageId, Hop)>,
    wakes: BTreeSet<(Wall, MessageId)>,
    /// Idle messages nothing of which can go before a time: the lowest precedence, and of it the latest time, is last.
    resting: BTreeSet<(Reverse<Precedence>, Wall, MessageId)>,
    flights: BTreeMap<Hop, BTreeMap<MessageId, Precedence>>,
}

#[derive(Clone, Debug)]
struct Entry {
    record: MessageRecord,
    hops: Vec<Option<Hop>>,
    rank: Rank,
    wake: Option<Wall>,
    /// Where its hops are indexed: ready, or waiting until.
    places: BTreeMap<Hop, Option<Wall>>,
    /// Hops with a job in flight.
    flying: BTreeSet<Hop>,
    /// Until when nothing of it can go, as it is indexed.
    rests: Option<Wall>,
}

/// Order of service; the smallest goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    precedence: Reverse<Precedence>,
    deadline: Wall,
    accepted: Wall,
    id: MessageId,
}

impl Rank {
    fn of(record: &MessageRecord) -> Self {
        Self {
            precedence: Reverse(record.precedence),
            deadline: record.envelope.deliver_by.map_or(Wall::NEVER, |by| by.deadline),
            accepted: record.accepted,
            id: record.id,
        }
    }
}

impl Active {
    /// An empty set for at most `limit` messages beside those in flight.
    pub const fn new(limit: usize, policy: Policy) -> Self {
        Self {
            limit,
            policy,
            entries: BTreeMap::new(),
            idle: BTreeSet::new(),
            ready: BTreeMap::new(),
            waiting: BTreeSet::new(),
            wakes: BTreeSet::new(),
            resting: BTreeSet::new(),
            flights: BTreeMap::new(),
        }
    }

    /// Puts a message into the set. `hops` has one entry per recipient; `None` and [`Hop::Hold`] are never scheduled.
    /// Recipients on the air count as a job in flight on their hop, to be given back by [`finish`](Self::finish) like any other.
    pub fn offer(&mut self, now: Now, record: MessageRecord, hops: Vec<Option<Hop>>) -> Offered {
        let id = record.id;
        if self.entries.contains_key(&id) {
            self.set_hops(id, hops);
            self.update(now, record);
            return Offered::Taken;
        }
        let flying: BTreeSet<Hop> = record
            .recipients
            .iter()
            .zip(&hops)
            .filter(|(r, _)| matches!(r.state, RecipientState::OnAir { .. }))
            .filter_map(|(_, hop)| hop.clone())
            .collect();
        if record.state != MessageState::Queued {
            return Offered::Refused(released(record));
        }
        let rank = Rank::of(&record);
        let mut out = None;
        if flying.is_empty() && self.idle.len() >= self.limit {
            self.pump(now);
            match self.makes_room(rank, &self.ready_for(now, &record, &hops)) {
                Some(leaves) => out = self.remove(leaves).map(released),
                None => return Offered::Refused(released(record)),
            }
        }
        for hop in &flying {
            self.flights.entry(hop.clone()).or_default().insert(id, record.precedence);
        }
        self.entries.insert(id, Entry { record, hops, rank, wake: None, places: BTreeMap::new(), flying, rests: None });
        self.index(now, id);
        out.map_or(Offered::Taken, Offered::TakenFor)
    }

    /// Whether a message that is not in the set would be taken.
    pub fn wants(&mut self, now: Now, record: &MessageRecord, hops: &[Option<Hop>]) -> bool {
        self.pump(now);
        let queued = record.state == MessageState::Queued && !self.entries.contains_key(&record.id);
        let place = || self.makes_room(Rank::of(record), &self.ready_for(now, record, hops)).is_some();
        queued && (self.room() > 0 || place())
    }

    /// Who leaves a full set for a message of this rank that could go to these hops now. What cannot go yet makes room for what can,
    /// and a crowd before one hop for what goes elsewhere, each at the cost of its lowest message: a hop that takes nothing does not
    /// occupy the room of the others, whatever waits for it. Among the rest precedence alone counts.
    fn makes_room(&self, rank: Rank, hops: &[&Hop]) -> Option<MessageId> {
        let lowest = self.idle.last()?;
        let is_no_higher = |other: Reverse<Precedence>| other >= rank.precedence;
        if !hops.is_empty()
            && let Some((precedence, _, id)) = self.resting.last()
            && is_no_higher(*precedence)
        {
            return Some(*id);
        }
        let crowd = self.crowd();
        if let Some((hop, size, last)) = crowd
            && !hops.contains(&hop)
            && hops.iter().any(|hop| self.ready.get(*hop).map_or(0, BTreeSet::len) + 1 < size)
            && (is_no_higher(last.precedence) || self.is_share(size))
        {
            return Some(last.id);
        }
        let lowest =
            crowd.map(|(.., last)| last).filter(|last| last.precedence == lowest.precedence).unwrap_or(*lowest);
        (rank.precedence < lowest.precedence).then_some(lowest.id)
    }

    /// The hop most messages are ready for, how many, and the last of them that could be sent back.
    fn crowd(&self) -> Option<(&Hop, usize, Rank)> {
        let (hop, ranks) = self.ready.iter().max_by_key(|(_, ranks)| ranks.len())?;
        let last = ranks.iter().rev().find(|rank| self.idle.contains(rank))?;
        Some((hop, ranks.len(), *last))
    }

    /// Whether so many messages are more than one hop may hold against lower precedence for others.
    const fn is_share(&self, size: usize) -> bool {
        size.saturating_mul(SHARES) > self.limit
    }

    /// The hops some recipient of a message could go to now.
    fn ready_for<'h>(&self, now: Now, record: &MessageRecord, hops: &'h [Option<Hop>]) -> Vec<&'h Hop> {
        let due = |state: &RecipientState| match state {
            RecipientState::Due { next_at } => self.policy.retry.is_due(*next_at, now.wall),
            RecipientState::OnAir { .. } | RecipientState::Held { .. } | RecipientState::Final { .. } => false,
        };
        let all = record.recipients.iter().zip(hops).filter(|(r, _)| due(&r.state));
        all.filter_map(|(_, hop)| hop.as_ref()).filter(|hop| **hop != Hop::Hold).collect()
    }

    /// The next job over all hops that have an allowance (`None`: not now). Its recipients are in flight from here on.
    pub fn next(&mut self, now: Now, mut allowance: impl FnMut(&Hop) -> Option<Allowance>) -> Option<Job> {
        self.pump(now);
        loop {
            let (rank, hop, most) = self.head(&mut allowance)?;
            let job = self.job(now, rank, hop, most);
            self.unindex(rank.id);
            if let Some(job) = &job {
                if let Some(entry) = self.entries.get_mut(&job.message) {
                    entry.flying.insert(job.hop.clone());
                }
                self.flights.entry(job.hop.clone()).or_default().insert(job.message, job.precedence);
            }
            // Without a job the clock was put back under a message that was ready: it waits again, and the next one is looked at.
            self.index(now, rank.id);
            if job.is_some() {
                return job;
            }
        }
    }

    /// Jobs of the same message for other hops that are ready and have an allowance now: they may share the first one's payload. They are
    /// in flight from here on, like any other.
    pub fn along(&mut self, now: Now, job: &Job, mut allowance: impl FnMut(&Hop) -> Option<Allowance>) -> Vec<Job> {
        let Some(rank) = self.entries.get(&job.message).map(|e| e.rank) else { return Vec::new() };
        let ready = self.ready.iter().filter(|(_, ranks)| ranks.contains(&rank));
        let hops: Vec<Hop> = ready.map(|(hop, _)| hop.clone()).collect();
        let (mut jobs, mut recipients) = (Vec::new(), job.recipients.len());
        for hop in hops {
            let Some(room) = allowance(&hop).filter(|r| rank.precedence.0 >= r.lowest && r.recipients > recipients)
            else {
                continue;
            };
            let ahead = self.flights.get(&hop).map_or(0, |f| f.values().filter(|p| **p >= rank.precedence.0).count());
            if ahead >= room.jobs {
                continue;
            }
            let Some(job) = self.job(now, rank, hop, room.recipients - recipients) else { continue };
            recipients += job.recipients.len();
            self.fly(now, &job);
            jobs.push(job);
        }
        jobs
    }

    fn fly(&mut self, now: Now, job: &Job) {
        self.unindex(job.message);
        if let Some(entry) = self.entries.get_mut(&job.message) {
            entry.flying.insert(job.hop.clone());
        }
        self.flights.entry(job.hop.clone()).or_default().insert(job.message, job.precedence);
        self.index(now, job.message);
    }

    /// The best ready message over all hops that would take it.
    fn head(&self, allowance: &mut impl FnMut(&Hop) -> Option<Allowance>) -> Option<(Rank, Hop, usize)> {
        let mut best: Option<(Rank, Hop, usize)> = None;
        for (hop, ranks) in &self.ready {
            let Some(rank) = ranks.first() else { continue };
            if best.as_ref().is_some_and(|(b, ..)| b <= rank) {
                continue;
            }
            // Only the head can go: whatever bars it bars all that stand behind it.
            let Some(room) = allowance(hop) else { continue };
            let ahead = self.flights.get(hop).map_or(0, |f| f.values().filter(|p| **p >= rank.precedence.0).count());
            if rank.precedence.0 >= room.lowest && ahead < room.jobs && room.recipients > 0 {
                best = Some((*rank, hop.clone(), room.recipients));
            }
        }
        best
    }

    /// Replaces a record after a durable change; unknown messages are passed over. A message with nothing left to schedule leaves.
    pub fn update(&mut self, now: Now, record: MessageRecord) {
        let id = record.id;
        if !self.entries.contains_key(&id) {
            return;
        }
        self.unindex(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.rank = Rank::of(&record);
            for hop in &entry.flying {
                if let Some(flights) = self.flights.get_mut(hop) {
                    flights.insert(id, record.precedence);
                }
            }
            entry.record = record;
        }
        self.settle(now, id);
    }

    /// Gives a job back once its result is durable. When the set is over its limit now, its lowest message leaves.
    pub fn finish(
        &mut self,
        now: Now,
        message: MessageId,
        hop: &Hop,
        record: MessageRecord,
    ) -> Option<Box<MessageRecord>> {
        if let Some(flights) = self.flights.get_mut(hop) {
            flights.remove(&message);
            if flights.is_empty() {
                self.flights.remove(hop);
            }
        }
        self.unindex(message);
        if let Some(entry) = self.entries.get_mut(&message) {
            entry.flying.remove(hop);
        }
        self.update(now, record);
        if self.idle.len() <= self.limit {
            return None;
        }
        let lowest = *self.idle.last()?;
        let resting = self.resting.last().filter(|(precedence, ..)| *precedence == lowest.precedence);
        let crowd = self.crowd().filter(|(_, size, last)| last.precedence == lowest.precedence || self.is_share(*size));
        let leaves = resting.map(|(.., id)| *id).or_else(|| crowd.map(|(.., last)| last.id));
        self.remove(leaves.unwrap_or(lowest.id)).map(released)
    }

    /// States new hops for a message, as when a route changed. What is in flight stays there.
    pub fn reroute(&mut self, now: Now, id: MessageId, hops: Vec<Option<Hop>>) {
        self.unindex(id);
        self.set_hops(id, hops);
        self.settle(now, id);
    }

    /// Takes a message out, whatever runs for it: its lease was lost.
    pub fn remove(&mut self, id: MessageId) -> Option<MessageRecord> {
        self.unindex(id);
        let entry = self.entries.remove(&id)?;
        for hop in &entry.flying {
            if let Some(flights) = self.flights.get_mut(hop) {
                flights.remove(&id);
                if flights.is_empty() {
                    self.flights.remove(hop);
                }
            }
        }
        Some(entry.record)
    }

    /// Sorts everything anew after the clock was stepped or set.
    pub fn stepped(&mut self, now: Now) {
        let ids: Vec<_> = self.entries.keys().copied().collect();
        for id in ids {
            self.unindex(id);
            self.index(now, id);
        }
    }

    /// A message whose delay or expiry has come: call [`outcome::wake`] and then [`update`](Self::update). Each is named once.
    /// While a session works on it, its end waits for the session's: what was delivered in time is not reported expired.
    pub fn poll_wake(&mut self, now: Now) -> Option<MessageId> {
        while let Some((at, id)) = self.wakes.first().copied()
            && now.set
            && at <= now.wall
        {
            self.wakes.pop_first();
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.wake = None;
            if entry.flying.iter().all(|hop| matches!(hop, Hop::Peer(_))) {
                return Some(id);
            }
        }
        None
    }

    /// When time alone will next give work. What is ready waits for a hop, not for time.
    pub fn next_due(&self, now: Now) -> Option<Wall> {
        let due = self.waiting.first().map(|(at, ..)| *at);
        let wake = self.wakes.first().map(|(at, _)| *at).filter(|_| now.set);
        due.into_iter().chain(wake).min()
    }

    /// How many more messages it takes before it has to send one back.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.idle.len())
    }

    /// Messages in the set, those in flight included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All ids, for a claim that shall leave them out.
    pub fn ids(&self) -> Vec<MessageId> {
        self.entries.keys().copied().collect()
    }

    /// A message of the set.
    pub fn record(&self, id: MessageId) -> Option<&MessageRecord> {
        self.entries.get(&id).map(|e| &e.record)
    }

    /// The hops of a message of the set.
    pub fn hops(&self, id: MessageId) -> Option<&[Option<Hop>]> {
        self.entries.get(&id).map(|e| e.hops.as_slice())
    }

    /// Jobs in flight on a hop.
    pub fn in_flight(&self, hop: &Hop) -> usize {
        self.flights.get(hop).map_or(0, BTreeMap::len)
    }

    /// Jobs in flight on all hops of a kind.
    pub fn in_flight_where(&self, kind: impl Fn(&Hop) -> bool) -> usize {
        self.flights.iter().filter(|(hop, _)| kind(hop)).map(|(_, jobs)| jobs.len()).sum()
    }

    /// Everything that waits for a hop.
    pub fn to_go(&self) -> impl Iterator<Item = ToGo<'_>> {
        self.entries.values().flat_map(|e| {
            e.places.iter().map(|(hop, until)| ToGo { record: &e.record, hop, until: *until, hops: &e.hops })
        })
    }

    /// Bytes, as accepted, of what is ready for a hop and goes before this message.
    pub fn ahead(&self, hop: &Hop, id: MessageId) -> u64 {
        let (Some(ready), Some(entry)) = (self.ready.get(hop), self.entries.get(&id)) else { return 0 };
        let before = ready.iter().take_while(|rank| **rank < entry.rank);
        before.filter_map(|rank| self.record(rank.id)).map(|record| record.size_bytes).sum()
    }

    /// Highest precedence ready for a hop: what a station tells its peer it has waiting (link-rules D4).
    pub fn highest(&mut self, now: Now, hop: &Hop) -> Option<Precedence> {
        self.pump(now);
        self.ready.get(hop)?.first().map(|rank| rank.precedence.0)
    }

    fn job(&self, now: Now, rank: Rank, hop: Hop, most: usize) -> Option<Job> {
        let entry = self.entries.get(&rank.id)?;
        let together = matches!(hop, Hop::Peer(_));
        let recipients: Vec<u32> = (0_u32..)
            .zip(entry.record.recipients.iter().zip(&entry.hops))
            .filter(|(_, (r, h))| h.as_ref() == Some(&hop) && self.goes(now, &r.state, together))
            .map(|(index, _)| index)
            .take(most)
            .collect();
        (!recipients.is_empty()).then_some(Job { message: rank.id, recipients, hop, precedence: rank.precedence.0 })
    }

    /// Over the air all recipients who are due at all go with the first of them: one copy per peer.
    fn goes(&self, now: Now, state: &RecipientState, together: bool) -> bool {
        match state {
            RecipientState::Due { next_at } => together || self.policy.retry.is_due(*next_at, now.wall),
            RecipientState::OnAir { .. } | RecipientState::Held { .. } | RecipientState::Final { .. } => false,
        }
    }

    fn set_hops(&mut self, id: MessageId, hops: Vec<Option<Hop>>) {
        self.unindex(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.hops = hops;
        }
    }

    /// Indexes a changed message, or lets it go when nothing of it is left to schedule.
    fn settle(&mut self, now: Now, id: MessageId) {
        let Some(entry) = self.entries.get(&id) else { return };
        if entry.record.state != MessageState::Queued && entry.flying.is_empty() {
            self.remove(id);
        } else {
            self.index(now, id);
        }
    }

    fn index(&mut self, now: Now, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.flying.is_empty() {
            self.idle.insert(entry.rank);
        }
        entry.wake = outcome::next_wake(&self.policy, &entry.record);
        if let Some(at) = entry.wake {
            self.wakes.insert((at, id));
        }
        if entry.record.state != MessageState::Queued {
            return;
        }
        for (r, hop) in entry.record.recipients.iter().zip(&entry.hops) {
            let (RecipientState::Due { next_at }, Some(hop)) = (&r.state, hop) else { continue };
            if *hop == Hop::Hold || entry.flying.contains(hop) {
                continue;
            }
            let until = (!self.policy.retry.is_due(*next_at, now.wall)).then_some(*next_at);
            let place = entry.places.entry(hop.clone()).or_insert(until);
            *place = (*place).min(until); // ready (`None`) is the smallest
        }
        let earliest = entry.places.values().min().copied().unwrap_or(Some(Wall::NEVER));
        entry.rests = earliest.filter(|_| entry.flying.is_empty());
        if let Some(until) = entry.rests {
            self.resting.insert((entry.rank.precedence, until, id));
        }
        for (hop, place) in &entry.places {
            match place {
                Some(at) => {
                    self.waiting.insert((*at, id, hop.clone()));
                }
                None => {
                    self.ready.entry(hop.clone()).or_default().insert(entry.rank);
                }
            }
        }
    }

    fn unindex(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        self.idle.remove(&entry.rank);
        if let Some(until) = entry.rests.take() {
            self.resting.remove(&(entry.rank.precedence, until, id));
        }
        if let Some(at) = entry.wake.take() {
            self.wakes.remove(&(at, id));
        }
        for (hop, place) in std::mem::take(&mut entry.places) {
            match place {
                Some(at) => {
                    self.waiting.remove(&(at, id, hop));
                }
                None => {
                    if let Some(ranks) = self.ready.get_mut(&hop) {
                        ranks.remove(&entry.rank);
                        if ranks.is_empty() {
                            self.ready.remove(&hop);
                        }
                    }
                }
            }
        }
    }

    fn pump(&mut self, now: Now) {
        while let Some((at, id, hop)) = self.waiting.first()
            && *at <= now.wall
        {
            let (id, hop) = (*id, hop.clone());
            self.waiting.pop_first();
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.places.insert(hop.clone(), None);
                if let Some(until) = entry.rests.take() {
                    self.resting.remove(&(entry.rank.precedence, until, id));
                }
                self.ready.entry(hop).or_default().insert(entry.rank);
            }
        }
    }
}

fn released(mut record: MessageRecord) -> Box<MessageRecord> {
    record.lease = None;
    Box::new(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{BodyRef, ByMode, DeliverBy, Envelope, Mailbox, Recipient, Source};
    use crate::queue::record::{Lease, RecipientRecord};
    use crate::queue::retry::Table;
    use crate::time::{Duration, Instant};

    #[test]
    fn order_is_precedence_then_deadline_then_arrival_then_id() {
        let mut active = set(100);
        let by = |mut r: MessageRecord, s| {
            r.envelope.deliver_by = Some(DeliverBy { deadline: at(s), mode: ByMode::Notify, trace: false });
            r
        };
        put(&mut active, record(1, Precedence::Routine, 0, 1));
        put(&mut active, record(2, Precedence::Flash, 50, 1));
        put(&mut active, record(3, Precedence::Flash, 10, 1));
        put(&mut active, by(record(4, Precedence::Flash, 90, 1), 9000));
        put(&mut active, by(record(5, Precedence::Flash, 95, 1), 8000));
        put(&mut active, record(7, Precedence::Flash, 10, 1));
        put(&mut active, record(6, Precedence::Override, 99, 1));
        let order: Vec<_> = std::iter::from_fn(|| active.next(now(100), wide)).map(|j| j.message.0).collect();
        assert_eq!(order, [6, 5, 4, 3, 7, 2, 1]);
    }

    #[test]
    fn jobs_of_one_message_for_other_hops_go_along_while_they_have_room() {
        let mut active = set(100);
        let spread = record(1, Precedence::Routine, 0, 3);
        let peers = ["alfa", "bravo", "charlie"].map(|p| Hop::Peer(p.into()));
        let hops = peers.iter().cloned().map(Some).collect();
        assert_eq!(active.offer(now(100), spread, hops), Offered::Taken);
        let first = active.next(now(100), wide).expect("ready");
        let silent = Hop::Peer("charlie".into());
        let along = active.along(now(100), &first, |hop| wide(hop).filter(|_| *hop != silent));
        assert_eq!(along.iter().map(|j| &j.hop).collect::<Vec<_>>(), [&peers[1]]);
        assert_eq!(along[0].recipients, [1]);
        assert_eq!(active.in_flight(&peers[1]), 1);
        assert_eq!(active.next(now(100), wide).map(|j| j.hop), Some(silent), "the one left out goes by itself");
    }

    #[test]
    fn one_job_per_hop_carries_all_its_recipients() {
        let mut active = set(10);
        let hops = vec![Some(mx()), Some(peer()), Some(mx()), None, Some(Hop::Hold), Some(peer())];
        let mut r = record(1, Precedence::Routine, 0, 6);
        r.recipients[5].state = RecipientState::Due { next_at: at(600) };
        assert_eq!(active.offer(now(1), r, hops), Offered::Taken);
        let mut jobs: Vec<_> =
            std::iter::from_fn(|| active.next(now(1), wide)).map(|j| (j.hop, j.recipients)).collect();
        jobs.sort();
        assert_eq!(jobs, [(mx(), vec![0, 2]), (peer(), vec![1, 5])], "the peer gets one copy");
        assert_eq!((active.in_flight(&mx()), active.in_flight(&peer())), (1, 1));
    }

    #[test]
    fn a_job_takes_no_more_recipients_than_the_hop_does() {
        let mut active = set(10);
        let mut r = record(1, Precedence::Routine, 0, 5);
        put(&mut active, r.clone());
        let some = |_: &Hop| Some(Allowance { recipients: 3, ..WIDE });
        let job = active.next(now(1), some).expect("a job");
        assert_eq!(job.recipients, [0, 1, 2]);
        assert_eq!(active.next(now(1), some), None, "one job per message and hop at a time");
        for i in [0, 1, 2] {
            r.recipients[i].state = done();
        }
        active.finish(now(2), r.id, &mx(), r.clone());
        assert_eq!(active.next(now(2), some).expect("the rest").recipients, [3, 4]);
    }

    #[test]
    fn flash_enters_a_full_set_and_leaves_first() {
        let mut active = set(3);
        for (id, p) in [(1, Precedence::Routine), (2, Precedence::Priority), (3, Precedence::Routine)] {
            let mut r = record(id, p, id as i64, 1);
            r.lease = Some(Lease { owner: "me".into(), until: at(999) });
            put(&mut active, r);
        }
        assert_eq!(active.room(), 0);
        assert!(matches!(
            active.offer(now(5), record(4, Precedence::Routine, 0, 1), vec![Some(mx())]),
            Offered::Refused(r) if r.id.0 == 4
        ));
        let Offered::TakenFor(out) = active.offer(now(5), record(5, Precedence::Flash, 5, 1), vec![Some(mx())]) else {
            panic!("FLASH must enter")
        };
        assert_eq!((out.id.0, out.lease), (3, None), "the latest of the lowest leaves, its lease released");
        assert_eq!(active.next(now(5), wide).expect("a job").message.0, 5);
        assert_eq!(active.len(), 3);
    }

    #[test]
    fn a_silent_hop_does_not_occupy_the_room_of_the_others() {
        for (dead, live) in [
            (Precedence::Routine, Precedence::Routine),
            (Precedence::Flash, Precedence::Flash),
            (Precedence::Flash, Precedence::Routine),
        ] {
            let mut active = set(2000);
            let open = |hop: &Hop| wide(hop).filter(|_| *hop != peer());
            for id in 1..=3000 {
                let offered = active.offer(now(0), record(id, dead, id as i64, 1), vec![Some(peer())]);
                assert_eq!(matches!(offered, Offered::Taken), id <= 2000, "{id}");
            }
            assert_eq!(active.next(now(3000), open), None);
            let one = record(9001, live, 3001, 1);
            assert!(active.wants(now(3001), &one, &[Some(mx())]) && !active.wants(now(3001), &one, &[Some(peer())]));
            let Offered::TakenFor(out) = active.offer(now(3001), one, vec![Some(mx())]) else {
                panic!("it must enter")
            };
            assert_eq!(out.id.0, 2000, "the last that waits for the silent one");
            assert_eq!(active.next(now(3001), open).expect("a job").message.0, 9001);
            assert_eq!(active.next(now(3001), wide).expect("it spoke").message.0, 1);
        }
    }

    #[test]
    fn two_silent_hops_come_to_rest_with_a_half_each() {
        let mut active = set(8);
        let other = || Hop::Peer("other".into());
        for id in 1..=8 {
            assert_eq!(active.offer(now(0), record(id, Precedence::Routine, 0, 1), vec![Some(peer())]), Offered::Taken);
        }
        let mut entered = 0;
        for id in 11..=40 {
            let offered = active.offer(now(0), record(id, Precedence::Routine, 0, 1), vec![Some(other())]);
            entered += usize::from(matches!(offered, Offered::TakenFor(_)));
        }
        assert_eq!((entered, active.len()), (4, 8));
        assert!(!active.wants(now(0), &record(50, Precedence::Routine, 0, 1), &[Some(peer())]));
    }

    #[test]
    fn what_is_tried_again_later_makes_room_for_what_can_go_now() {
        let mut active = set(3);
        for (id, precedence, due) in
            [(1, Precedence::Routine, 900), (2, Precedence::Routine, 600), (3, Precedence::Flash, 900)]
        {
            let mut r = record(id, precedence, 0, 1);
            r.recipients[0].state = RecipientState::Due { next_at: at(due) };
            put(&mut active, r);
        }
        let mut out = Vec::new();
        for id in 4..=6 {
            match active.offer(now(1), record(id, Precedence::Routine, 1, 1), vec![Some(mx())]) {
                Offered::TakenFor(left) => out.push(left.id.0),
                Offered::Taken | Offered::Refused(_) => out.push(0),
            }
        }
        assert_eq!(out, [1, 2, 0], "the latest first, and none of a higher precedence");
        assert!(active.record(MessageId(3)).is_some());
    }

    #[test]
    fn a_hop_full_of_routine_still_takes_flash() {
        let mut active = set(100);
        let two = |_: &Hop| Some(Allowance { jobs: 2, ..WIDE });
        for id in 1..=5 {
            put(&mut active, record(id, Precedence::Routine, 0, 1));
        }
        assert!(active.next(now(1), two).is_some() && active.next(now(1), two).is_some());
        assert_eq!(active.next(now(1), two), None);
        for id in 6..=8 {
            put(&mut active, record(id, Precedence::Flash, 0, 1));
        }
        assert_eq!(active.next(now(1), two).expect("flash").message.0, 6);
        assert_eq!(active.next(now(1), two).expect("flash").message.0, 7);
        assert_eq!(active.next(now(1), two), None);
        assert_eq!(active.in_flight(&mx()), 4);
    }

    #[test]
    fn a_restricted_hop_carries_only_its_level_and_a_closed_one_nothing() {
        let mut active = set(10);
        put(&mut active, record(1, Precedence::Routine, 0, 1));
        put(&mut active, record(2, Precedence::Flash, 0, 1));
        assert_eq!(active.next(now(1), |_| None), None);
        let flash = |_: &Hop| Some(Allowance { lowest: Precedence::Flash, ..WIDE });
        assert_eq!(active.next(now(1), flash).expect("flash").message.0, 2);
        assert_eq!(active.next(now(1), flash), None);
        assert_eq!(active.highest(now(1), &mx()), Some(Precedence::Routine));
    }

    #[test]
    fn retries_wait_for_their_time_and_steps_of_the_clock_strand_nothing() {
        let mut active = set(10);
        let mut r = record(1, Precedence::Routine, 0, 1);
        r.recipients[0].state = RecipientState::Due { next_at: at(900) };
        put(&mut active, r);
        assert_eq!(active.next_due(now(1)), Some(at(900)));
        assert_eq!(active.next(now(899), wide), None);
        let mut back = active.clone();
        back.stepped(now(-864_000));
        assert!(back.next(now(-864_000), wide).is_some(), "put back by ten days");
        assert!(active.next(now(900), wide).is_some());
    }

    #[test]
    fn a_ready_message_that_is_not_due_any_more_does_not_bar_the_others() {
        let mut active = set(10);
        let mut r = record(1, Precedence::Flash, 0, 1);
        r.recipients[0].state = RecipientState::Due { next_at: at(60) };
        put(&mut active, r);
        put(&mut active, record(2, Precedence::Routine, 0, 1));
        assert_eq!(active.highest(now(60), &mx()), Some(Precedence::Flash));
        assert_eq!(active.next(now(30), wide).expect("the other").message.0, 2);
        assert_eq!(active.next(now(60), wide).expect("its time").message.0, 1);
    }

    #[test]
    fn a_finished_message_leaves_and_a_deferred_one_waits() {
        let mut active = set(1);
        let mut r = record(1, Precedence::Routine, 0, 1);
        put(&mut active, r.clone());
        let job = active.next(now(1), wide).expect("a job");
        assert_eq!(active.room(), 1, "what is in flight does not count");
        put(&mut active, record(2, Precedence::Flash, 0, 1));
        r.recipients[0].state = RecipientState::Due { next_at: at(900) };
        let out = active.finish(now(2), job.message, &job.hop, r).expect("over the limit, the lowest leaves");
        assert_eq!(out.id.0, 1);
        let job = active.next(now(3), wide).expect("a job");
        let mut r = active.record(job.message).expect("known").clone();
        r.recipients[0].state = done();
        r.state = MessageState::Done;
        assert_eq!(active.finish(now(4), job.message, &job.hop, r), None);
        assert!(active.is_empty());
        assert_eq!(active.next_due(now(4)), None);
    }

    #[test]
    fn what_is_on_the_air_after_a_restart_counts_as_in_flight() {
        let mut active = set(0);
        let mut r = record(1, Precedence::Routine, 0, 2);
        r.recipients[0].state = RecipientState::OnAir { bearer: "hf1".into() };
        let offered = active.offer(now(1), r.clone(), vec![Some(peer()), Some(mx())]);
        assert_eq!(offered, Offered::Taken, "even into a full set");
        assert_eq!(active.in_flight(&peer()), 1);
        assert_eq!(active.next(now(1), wide).expect("the other hop").hop, mx());
        r.recipients[0].state = RecipientState::Due { next_at: at(1) };
        active.finish(now(2), r.id, &peer(), r.clone());
        assert_eq!(active.next(now(2), wide).expect("withdrawn").hop, peer());
    }

    #[test]
    fn a_raised_message_overtakes() {
        let mut active = set(10);
        put(&mut active, record(1, Precedence::Priority, 0, 1));
        put(&mut active, record(2, Precedence::Routine, 0, 1));
        active.update(now(1), record(2, Precedence::Flash, 0, 1));
        assert_eq!(active.next(now(1), wide).expect("a job").message.0, 2);
        active.reroute(now(1), MessageId(1), vec![None]);
        assert_eq!(active.next(now(1), wide), None);
        assert_eq!(active.remove(MessageId(1)).map(|r| r.id.0), Some(1));
    }

    #[test]
    fn deadlines_are_named_once_and_only_by_a_set_clock() {
        let mut active = set(10);
        put(&mut active, record(1, Precedence::Routine, 0, 1));
        let unset = Now { set: false, ..now(500_000) };
        assert_eq!(active.poll_wake(unset), None);
        assert_eq!(active.next_due(unset), None);
        assert_eq!(active.next_due(now(0)), Some(at(4 * 3600)));
        assert_eq!(active.poll_wake(now(4 * 3600 - 1)), None);
        assert_eq!(active.poll_wake(now(4 * 3600)), Some(MessageId(1)));
        assert_eq!(active.poll_wake(now(4 * 3600)), None);
    }

    #[test]
    fn a_deadline_waits_for_the_session_under_way() {
        let mut active = set(10);
        put(&mut active, record(1, Precedence::Routine, 0, 1));
        let job = active.next(now(1), wide).expect("a job");
        assert_eq!(active.poll_wake(now(900_000)), None);
        active.finish(now(900_000), job.message, &job.hop, record(1, Precedence::Routine, 0, 1));
        assert_eq!(active.poll_wake(now(900_000)), Some(MessageId(1)));
    }

    const WIDE: Allowance = Allowance { jobs: 100, lowest: Precedence::Deferred, recipients: 100 };

    fn wide(_: &Hop) -> Option<Allowance> {
        Some(WIDE)
    }

    fn mx() -> Hop {
        Hop::Smtp("mx.example:25".into())
    }

    fn peer() -> Hop {
        Hop::Peer("shore".into())
    }

    fn at(seconds: i64) -> Wall {
        Wall::from_seconds(1_795_431_600 + seconds)
    }

    fn now(seconds: i64) -> Now {
        Now { at: Instant::ZERO, wall: at(seconds), set: true }
    }

    fn done() -> RecipientState {
        RecipientState::Final { outcome: crate::mail::Outcome::Expired, at: at(0) }
    }

    fn set(limit: usize) -> Active {
        let keep_done = Duration::from_secs(604_800);
        Active::new(limit, Policy { retry: Table::shipped(), default: Precedence::Routine, mmhs: true, keep_done })
    }

    fn put(active: &mut Active, record: MessageRecord) {
        let hops = vec![Some(mx()); record.recipients.len()];
        assert_eq!(active.offer(now(0), record, hops), Offered::Taken);
    }

    fn record(id: u64, precedence: Precedence, accepted: i64, recipients: usize) -> MessageRecord {
        MessageRecord {
            id: MessageId(id),
            parent: None,
            envelope: Envelope::plain(
                None,
                (0..recipients).map(|i| Recipient::plain(Mailbox::new(format!("r{i}@x.example")))).collect(),
                at(5 * 86_400),
            ),
            precedence,
            source: Source::Switch,
            state: MessageState::Queued,
            recipients: (0..recipients)
                .map(|_| RecipientRecord {
                    state: RecipientState::Due { next_at: at(0) },
                    body: BodyRef(1),
                    attempts: 0,
                    last_error: None,
                    delay_reported: false,
                })
                .collect(),
            message_id: None,
            size_bytes: 10,
            accepted: at(accepted),
            lease: None,
            reduced: Vec::new(),
            release: None,
            tracking: None,
            expanded: false,
        }
    }
}
