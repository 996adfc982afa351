//! The receiving half: pieces on their way in, what is lacking, and when that is said.
//!
//! [`super::Station`] owns it. A message is offered whole, and confirmed only after the caller has it safe. Pieces are kept in memory: after a
//! restart the next list simply names them again. Lists are made when they leave, so that they never say less than is known. What
//! others may make it hold or say is bounded by [`super::Limits`] and counted.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use super::missing::Missing;
use super::sender::expired;
use super::station::{Config, Counts, EntrySource, Event, Port, Transmit, Verdict};
use super::timers::spread;
use super::wire::{ACK_OVERHEAD, Ack, AckEntry, Address, ENTRY_OVERHEAD, MessageKey, Part, Pdu};
use crate::time::{Duration, Instant, Now, Wall};

/// Octets that a piece takes beside its own, about.
const PIECE_OVERHEAD: usize = 64;
/// Answers to a message of which nothing more comes.
const UNHEARD_ANSWERS: u32 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Pieces without an address, until then.
    Unidentified(Instant),
    /// For others, until then.
    Foreign(Instant),
    /// For this node.
    Gathering,
    /// Offered to the caller.
    Offered,
    /// Safe; `true` once the sender is known to know.
    Done(bool),
}

#[derive(Debug)]
struct Incoming {
    state: State,
    /// From the Address_PDU; 0 before it.
    expiry: u32,
    total: u16,
    priority: u8,
    pieces: BTreeMap<u16, Box<[u8]>>,
    /// Octets of the pieces.
    bytes: usize,
    /// The highest piece that is missing.
    top: u16,
    reply_to: Ipv4Addr,
    ack_at: Option<Instant>,
    quiet_at: Option<Instant>,
    again_at: Option<Instant>,
    again: Duration,
    answers: u32,
    unheard: u32,
    answered_at: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    messages: BTreeMap<MessageKey, Incoming>,
    /// Octets of all pieces, overhead included.
    held: usize,
}

impl Incoming {
    fn new(state: State, reply_to: Ipv4Addr, config: &Config) -> Self {
        Self {
            state,
            expiry: 0,
            total: 0,
            priority: 0,
            pieces: BTreeMap::new(),
            bytes: 0,
            top: 0,
            reply_to,
            ack_at: None,
            quiet_at: None,
            again_at: None,
            again: config.timers.ack_again,
            answers: 0,
            unheard: 0,
            answered_at: None,
        }
    }

    fn keep(&mut self, sequence: u16, piece: Vec<u8>) {
        self.bytes += piece.len();
        self.pieces.insert(sequence, piece.into());
    }

    /// The octets that become free.
    fn drop_pieces(&mut self) -> usize {
        let octets = self.bytes + self.pieces.len() * PIECE_OVERHEAD;
        self.pieces.clear();
        self.bytes = 0;
        octets
    }

    /// The total never shrinks: repeats of some senders name only what they repeat.
    fn raise_total(&mut self, total: u16) {
        if total > self.total {
            self.total = total;
            self.top = total;
        }
    }

    fn is_whole(&self) -> bool {
        self.total > 0 && self.pieces.len() == usize::from(self.total)
    }

    /// The highest piece missing, 0 when none is.
    fn top(&mut self) -> u16 {
        while self.pieces.contains_key(&self.top) {
            self.top -= 1;
        }
        self.top
    }

    fn missing(&self) -> Missing {
        let mut next = 1;
        let mut ranges = Vec::new();
        for have in self.pieces.keys().copied() {
            if have > next {
                ranges.push(next..=have - 1);
            }
            next = have.saturating_add(1);
        }
        if next <= self.total && !self.pieces.contains_key(&self.total) {
            ranges.push(next..=self.total);
        }
        Missing::from_ranges(ranges)
    }

    fn answer_soon(&mut self, now: Instant, config: &Config, key: MessageKey) {
        let names =
            [u64::from(key.source.0) << 32 | u64::from(key.number), u64::from(config.node.0), self.answers.into()];
        let at = now + spread(config.timers.ack_delay, config.seed, names);
        self.ack_at = Some(self.ack_at.map_or(at, |before| before.min(at)));
    }

    fn heard(&mut self, now: Instant, config: &Config) {
        self.unheard = 0;
        self.again_at = None;
        if self.state == State::Gathering {
            self.quiet_at = Some(now + config.timers.quiet);
        }
    }
}

impl Receiver {
    /// A message that was accepted before a restart; `owed`: its sender has not been told.
    pub(super) fn restore(
        &mut self,
        now: Instant,
        config: &Config,
        (message, expiry, priority): (MessageKey, u32, u8),
        reply_to: Ipv4Addr,
        owed: bool,
    ) {
        let mut incoming = Incoming { expiry, priority, ..Incoming::new(State::Done(false), reply_to, config) };
        if owed {
            incoming.answer_soon(now, config, message);
        }
        self.forget(message);
        self.messages.insert(message, incoming);
    }

    /// Octets of pieces held, overhead included.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn messages(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn address(
        &mut self,
        now: Now,
        config: &Config,
        (address, from): (&Address, Ipv4Addr),
        (counts, events): (&mut Counts, &mut VecDeque<Event>),
    ) {
        let key = address.message;
        let named = address.names(config.node);
        if named && (address.fec.is_some() || address.total == 0) {
            counts.add(if address.fec.is_some() { "fec" } else { "zero_total" });
            return;
        }
        if named && expired(now, address.expiry) {
            counts.add("expired");
            return;
        }
        let known = self.messages.get(&key).map(|m| (m.state, m.expiry));
        match known {
            // The same number with another expiry time is another message.
            Some((State::Gathering | State::Offered | State::Done(_), expiry)) if named && expiry != address.expiry => {
                counts.add("renumbered");
                self.forget(key);
            }
            Some((State::Foreign(_), _)) if named => self.forget(key),
            _ => {}
        }
        if !named {
            // A part of a list says nothing of who is in the others.
            if address.part == Part::Only {
                self.not_named(now.at, config, key, from, counts);
            }
            return;
        }
        if !self.messages.contains_key(&key) && !self.make_room(now.at, config, 0, key) {
            counts.add("full");
            return;
        }
        let incoming = self.messages.entry(key).or_insert_with(|| Incoming::new(State::Gathering, from, config));
        incoming.reply_to = from;
        match incoming.state {
            State::Unidentified(_) | State::Gathering | State::Foreign(_) => {
                incoming.state = State::Gathering;
                incoming.expiry = address.expiry;
                incoming.priority = address.priority;
                incoming.raise_total(address.total);
                let highest = incoming.pieces.keys().next_back().copied().unwrap_or(0);
                incoming.raise_total(highest);
                incoming.heard(now.at, config);
                self.offer(key, events);
            }
            State::Offered => {}
            State::Done(_) => {
                incoming.state = State::Done(false);
                incoming.answer_soon(now.at, config, key);
            }
        }
    }

    /// An address that does not name this node: its answer has come, or the message is for others.
    fn not_named(&mut self, now: Instant, config: &Config, key: MessageKey, from: Ipv4Addr, counts: &mut Counts) {
        let foreign = State::Foreign(now + config.timers.unidentified);
        if !self.messages.contains_key(&key) && !self.make_room(now, config, 0, key) {
            return counts.add("full");
        }
        let incoming = self.messages.entry(key).or_insert_with(|| Incoming::new(foreign, from, config));
        match incoming.state {
            State::Done(_) => {
                incoming.state = State::Done(true);
                incoming.ack_at = None;
            }
            State::Gathering | State::Offered => {}
            State::Unidentified(_) | State::Foreign(_) => {
                self.held -= incoming.drop_pieces();
                incoming.state = foreign;
            }
        }
    }

    pub(super) fn piece(
        &mut self,
        now: Now,
        config: &Config,
        (key, sequence, piece): (MessageKey, u16, Vec<u8>),
        from: Ipv4Addr,
        (counts, events): (&mut Counts, &mut VecDeque<Event>),
    ) {
        let cost = piece.len() + PIECE_OVERHEAD;
        let wanted = self.messages.get(&key).is_none_or(|m| {
            matches!(m.state, State::Unidentified(_) | State::Gathering) && !m.pieces.contains_key(&sequence)
        });
        if wanted && !self.make_room(now.at, config, cost, key) {
            counts.add("full");
            return;
        }
        let until = State::Unidentified(now.at + config.timers.unidentified);
        let incoming = self.messages.entry(key).or_insert_with(|| Incoming::new(until, from, config));
        incoming.heard(now.at, config);
        match incoming.state {
            State::Foreign(_) | State::Offered => {}
            State::Done(known) => {
                // Repeats for others look the same: once in a while is enough.
                let lately = incoming.answered_at.is_some_and(|at| at + config.timers.ack_again > now.at);
                if !known && !lately && incoming.ack_at.is_none() {
                    incoming.answer_soon(now.at, config, key);
                }
            }
            State::Unidentified(_) | State::Gathering if !wanted => counts.add("repeated_piece"),
            State::Unidentified(_) => {
                self.held += cost;
                incoming.keep(sequence, piece);
            }
            State::Gathering => {
                if incoming.bytes + piece.len() > config.limits.message_bytes {
                    counts.add("message_too_large");
                    return;
                }
                incoming.raise_total(sequence);
                incoming.again = config.timers.ack_again;
                self.held += cost;
                incoming.keep(sequence, piece);
                if incoming.is_whole() {
                    self.offer(key, events);
                } else if incoming.top() < sequence {
                    // The last one that was expected.
                    incoming.answer_soon(now.at, config, key);
                }
            }
        }
    }

    fn offer(&mut self, key: MessageKey, events: &mut VecDeque<Event>) {
        let Some(incoming) = self.messages.get_mut(&key).filter(|m| m.is_whole()) else { return };
        incoming.state = State::Offered;
        (incoming.ack_at, incoming.quiet_at, incoming.again_at) = (None, None, None);
        let payload: Vec<u8> = incoming.pieces.values().flat_map(|piece| piece.iter().copied()).collect();
        let (expiry, priority) = (incoming.expiry, incoming.priority);
        events.push_back(Event::Whole { message: key, expiry, priority, payload: payload.into() });
    }

    /// Whether a message has ended here: it is accepted, and its sender is known to know.
    pub(super) fn is_over(&self, key: MessageKey) -> bool {
        self.messages.get(&key).is_some_and(|m| m.state == State::Done(true))
    }

    /// A group is announced for a message that this node has accepted: its sender does not know. Whether that is so.
    pub(super) fn says_again(&mut self, now: Instant, config: &Config, key: MessageKey, expiry: u32) -> bool {
        let Some(incoming) = self.messages.get_mut(&key).filter(|m| m.expiry == expiry) else { return false };
        if !matches!(incoming.state, State::Done(_)) {
            return false;
        }
        incoming.state = State::Done(false);
        incoming.answer_soon(now, config, key);
        true
    }

    /// The caller's answer to a message offered.
    pub(super) fn settle(&mut self, now: Instant, config: &Config, key: MessageKey, verdict: Verdict) {
        let Some(incoming) = self.messages.get_mut(&key).filter(|m| m.state == State::Offered) else { return };
        match verdict {
            Verdict::Accepted => {
                self.held -= incoming.drop_pieces();
                incoming.state = State::Done(false);
                incoming.answer_soon(now, config, key);
            }
            Verdict::Later => {
                incoming.state = State::Gathering;
                incoming.again_at = Some(now + incoming.again);
                incoming.again = config.timers.grown(incoming.again);
            }
        }
    }

    pub(super) fn discard(&mut self, key: MessageKey, events: &mut VecDeque<Event>) {
        match self.messages.get(&key).map(|m| m.state) {
            Some(State::Gathering) => {
                self.forget(key);
                events.push_back(Event::Discarded { message: key });
            }
            Some(State::Unidentified(_) | State::Foreign(_)) => self.forget(key),
            Some(State::Offered | State::Done(_)) | None => {}
        }
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Now,
        config: &Config,
        counts: &mut Counts,
        events: &mut VecDeque<Event>,
    ) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.at);
        let (mut gone, mut whole) = (Vec::new(), Vec::new());
        for (key, incoming) in &mut self.messages {
            match incoming.state {
                State::Unidentified(until) | State::Foreign(until) if until <= now.at => gone.push(*key),
                State::Gathering if expired(now, incoming.expiry) => {
                    counts.add("expired");
                    events.push_back(Event::Expired { message: *key });
                    gone.push(*key);
                }
                State::Gathering if is_due(incoming.quiet_at) || is_due(incoming.again_at) => {
                    (incoming.quiet_at, incoming.again_at) = (None, None);
                    if incoming.is_whole() {
                        whole.push(*key);
                    } else if incoming.unheard < UNHEARD_ANSWERS {
                        incoming.answer_soon(now.at, config, *key);
                    }
                }
                // Remembered a while longer than the sender may repeat it.
                State::Done(_) if expired(now, incoming.expiry.saturating_add(config.limits.remember_seconds)) => {
                    gone.push(*key);
                }
                _ => {}
            }
        }
        gone.into_iter().for_each(|key| self.forget(key));
        whole.into_iter().for_each(|key| self.offer(key, events));
    }

    /// When an answer is due to a message at least as urgent, and how urgent the first of those is.
    pub(super) fn answer_at(&self, least_urgent: u8) -> Option<(Instant, u8)> {
        let owed = self.messages.values().filter(|m| m.priority <= least_urgent);
        owed.filter_map(|m| Some((m.ack_at?, m.priority))).min()
    }

    /// The next acknowledgement: everything owed to one source for messages at least as urgent, as far as it fits.
    pub(super) fn poll(&mut self, now: Instant, config: &Config, least_urgent: u8) -> Option<Transmit> {
        let urgent = |m: &Incoming| m.priority <= least_urgent;
        let due = self.messages.iter().filter(|(_, m)| urgent(m) && m.ack_at.is_some_and(|at| at <= now));
        let (_, source) = due.map(|(key, m)| (m.priority, key.source)).min()?;
        let peer = config.peers.get(&source)?;
        let mut room = config.max_pdu - ACK_OVERHEAD;
        let (mut entries, mut priority, mut to) = (Vec::new(), u8::MAX, None);
        let mut owed: Vec<_> = self
            .messages
            .iter_mut()
            .filter(|(key, m)| key.source == source && urgent(m) && m.ack_at.is_some())
            .collect();
        owed.sort_by_key(|(key, m)| (m.priority, m.ack_at, key.number));
        for (key, incoming) in owed {
            // At least one number and the marker behind it.
            let Some(list) = room.checked_sub(ENTRY_OVERHEAD + 4) else { break };
            let missing =
                if matches!(incoming.state, State::Done(_)) { Missing::default() } else { incoming.missing() };
            let missing = missing.capped(config.limits.missing, list / 2 + 2, peer.ranges);
            room -= ENTRY_OVERHEAD + 2 * missing.write(peer.ranges).len();
            let named = match peer.entry_source {
                EntrySource::Originator => key.source,
                EntrySource::Acknowledger => config.node,
            };
            if !missing.is_empty() {
                incoming.quiet_at = None;
                incoming.again_at = Some(now + incoming.again);
                incoming.again = config.timers.grown(incoming.again);
                incoming.unheard += 1;
            }
            entries.push(AckEntry { message: MessageKey { source: named, ..*key }, missing });
            (incoming.ack_at, incoming.answered_at) = (None, Some(now));
            incoming.answers = incoming.answers.wrapping_add(1);
            priority = priority.min(incoming.priority);
            to = Some(incoming.reply_to);
        }
        let ack = Pdu::Ack(Ack { priority, from: config.node, entries, elapsed: None });
        let bytes = ack.emit(config.checksum, peer.ranges).expect("entries are kept within max_pdu");
        Some(Transmit { to: to?, port: Port::Ack, priority, about: None, bytes })
    }

    pub(super) fn next_timeout(&self, now: Now) -> Option<Instant> {
        let wall = |seconds: u32| now.set.then(|| now.at + Wall::from_seconds(seconds.into()).since(now.wall));
        let of = |m: &Incoming| match m.state {
            State::Unidentified(until) | State::Foreign(until) => Some(until),
            State::Gathering => [m.quiet_at, m.again_at, wall(m.expiry)].into_iter().flatten().min(),
            // Forgetting is no hurry: it happens when something else does.
            State::Offered | State::Done(_) => None,
        };
        self.messages.values().filter_map(of).min()
    }

    /// Makes room for a piece of so many octets, or a message, at the cost of what nobody has claimed.
    fn make_room(&mut self, now: Instant, config: &Config, octets: usize, keep: MessageKey) -> bool {
        let unclaimed = |m: &Incoming| match m.state {
            State::Unidentified(until) | State::Foreign(until) => Some(until),
            State::Gathering | State::Offered | State::Done(_) => None,
        };
        while self.held + octets > config.limits.held_bytes || self.messages.len() >= config.limits.receiving {
            if octets > 0 && self.messages.contains_key(&keep) && self.held + octets <= config.limits.held_bytes {
                return true;
            }
            let candidates = self.messages.iter().filter(|(key, _)| **key != keep);
            let oldest = candidates.filter_map(|(key, m)| unclaimed(m).map(|until| (until, *key))).min();
            // Then what was accepted longest ago and is known to be known.
            let oldest = oldest.or_else(|| {
                let done = self.messages.iter().filter(|(key, m)| m.state == State::Done(true) && **key != keep);
                let full = self.messages.len() >= config.limits.receiving;
                done.map(|(key, m)| (m.answered_at.unwrap_or(now), *key)).min().filter(|_| full)
            });
            let Some((_, key)) = oldest else { return false };
            self.forget(key);
        }
        true
    }

    fn forget(&mut self, key: MessageKey) {
        if let Some(mut incoming) = self.messages.remove(&key) {
            self.held -= incoming.drop_pieces();
        }
    }
}
