//! The sending half: every message on its way out, who has not confirmed it, and what is to be repeated.
//!
//! [`super::Station`] owns it and hands it acknowledgements. A round is an Address_PDU for those still open and pieces behind it. After
//! the first one only what lists name is repeated, once other lists had time to join. Who does not answer is asked by an address and one piece,
//! twice, then sent the whole, then asked twice as often before the next time, all in growing intervals. Message numbers come from the caller, who keeps them over
//! restarts; a message handed in again after one begins with such a question.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::missing::Missing;
use super::station::{Config, Counts, Event, Port, Transmit};
use super::wire::{Address, DATA_OVERHEAD, Destination, MessageKey, NodeId, Pdu};
use crate::time::{Duration, Instant, Now, Wall};

/// A message to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Message_ID, never used before by this node.
    pub number: u32,
    /// Lower is more urgent.
    pub priority: u8,
    /// Expiry_Time, Unix seconds.
    pub expiry: u32,
    /// Where it is sent.
    pub way: Way,
    /// Who is to have it, with their sequence numbers.
    pub destinations: Vec<Destination>,
    /// What is sent.
    pub payload: Arc<[u8]>,
    /// It was on its way before a restart: ask first what has arrived.
    pub resumed: bool,
}

/// How a message comes by its group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// Agreed beforehand. Of several, because its receivers have none in common, each gets what its own receivers lack.
    Agreed(Vec<Ipv4Addr>),
    /// One of the pool, asked for first; these when there is none.
    Asked(Vec<Ipv4Addr>),
    /// One of the pool, announced without asking: the message cannot wait for objections.
    AtOnce,
}

/// Why a message is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubmitError {
    /// More than 65535 pieces.
    TooLarge,
    /// For nobody.
    NoDestination,
    /// No group was agreed, and none can be asked for.
    NoGroup,
    /// The number is in use.
    Known,
    /// As many are on their way as may be.
    Full,
    /// It has expired.
    Expired,
}

/// Questions to somebody who does not answer before everything is sent again; doubled each time.
const QUESTIONS: u32 = 2;
/// Repeats that lists can cause, as a multiple of the message; beyond it they wait for the next question.
const BUDGET: u64 = 16;

#[derive(Debug)]
struct Sending {
    out: Outgoing,
    /// Where it goes; none as long as a group is asked for.
    groups: Vec<Ipv4Addr>,
    /// Its group was announced.
    announced: bool,
    /// A question is on its way, and with it a word of the group.
    asks: bool,
    total: u16,
    open: BTreeMap<NodeId, Open>,
    /// With the group that each is for; `None`: for all.
    addresses: VecDeque<(Option<Ipv4Addr>, Address)>,
    /// Who is addressed in this round.
    aim: BTreeSet<NodeId>,
    /// It is a question: one piece for everybody, whatever they lack.
    question: bool,
    /// Pieces that are to leave in this round.
    due: BTreeSet<u16>,
    /// When each piece left last.
    left_at: Vec<Option<Instant>>,
    /// Pieces named by lists, for the next round.
    named: BTreeSet<u16>,
    answered: BTreeSet<NodeId>,
    gather_at: Option<Instant>,
    repeat_at: Option<Instant>,
    silent_at: Option<Instant>,
    silent_left: u32,
    /// The round under way is for receivers in silence, too.
    blind: bool,
    wait: Duration,
    /// Asked since somebody last got on, and how often before everything is sent again.
    questions: u32,
    patience: u32,
    /// Octets that lists may still cause.
    budget: u64,
    bytes: u64,
    /// The last word: nothing else leaves once it is set.
    last: Option<Pdu>,
}

#[derive(Debug)]
struct Open {
    sequence: u32,
    silent: bool,
    missing: Option<Missing>,
}

/// A message given up, whose late acknowledgements still count.
#[derive(Debug)]
struct Late {
    open: BTreeSet<NodeId>,
    expiry: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sender {
    messages: BTreeMap<u32, Sending>,
    late: BTreeMap<u32, Late>,
    silent: BTreeSet<NodeId>,
    /// What has left for the first of several groups and not yet for the others.
    copies: VecDeque<Transmit>,
}

impl Sender {
    pub(super) fn submit(&mut self, now: Now, config: &Config, out: Outgoing) -> Result<(), SubmitError> {
        let piece = config.max_pdu - DATA_OVERHEAD;
        let total = out.payload.len().div_ceil(piece).max(1);
        let total = u16::try_from(total).map_err(|_| SubmitError::TooLarge)?;
        if out.destinations.is_empty() {
            return Err(SubmitError::NoDestination);
        }
        let groups = match &out.way {
            Way::Agreed(groups) if groups.is_empty() => return Err(SubmitError::NoGroup),
            Way::Asked(groups) if groups.is_empty() && config.dynamic.is_none() => return Err(SubmitError::NoGroup),
            Way::AtOnce if config.dynamic.is_none() => return Err(SubmitError::NoGroup),
            Way::Agreed(groups) => groups.clone(),
            Way::Asked(groups) if config.dynamic.is_none() => groups.clone(),
            Way::Asked(_) | Way::AtOnce => Vec::new(),
        };
        if self.messages.contains_key(&out.number) || self.late.contains_key(&out.number) {
            return Err(SubmitError::Known);
        }
        if self.messages.len() >= config.limits.sending {
            return Err(SubmitError::Full);
        }
        if expired(now, out.expiry) {
            return Err(SubmitError::Expired);
        }
        let open = |d: &Destination| {
            (d.node, Open { sequence: d.sequence, silent: self.silent.contains(&d.node), missing: None })
        };
        let mut sending = Sending {
            groups,
            announced: false,
            asks: false,
            total,
            open: out.destinations.iter().map(open).collect(),
            addresses: VecDeque::new(),
            aim: BTreeSet::new(),
            question: false,
            due: BTreeSet::new(),
            left_at: vec![None; usize::from(total)],
            named: BTreeSet::new(),
            answered: BTreeSet::new(),
            gather_at: None,
            repeat_at: None,
            silent_at: None,
            silent_left: config.timers.silent_repeats,
            blind: false,
            wait: config.timers.repeat,
            questions: 0,
            patience: QUESTIONS,
            budget: (out.payload.len() as u64 + 1024).saturating_mul(BUDGET),
            bytes: 0,
            last: None,
            out,
        };
        let heard = sending.out.resumed && sending.open.values().any(|open| !open.silent);
        sending.due = if heard { BTreeSet::from([total]) } else { (1..=total).collect() };
        sending.questions = u32::from(heard);
        sending.blind = !heard && sending.open.values().any(|open| open.silent);
        sending.address(config, |_| true);
        sending.question = heard;
        self.messages.insert(sending.out.number, sending);
        Ok(())
    }

    /// Says whether a node keeps silence: whether answers are waited for.
    pub(super) fn set_silent(&mut self, now: Now, config: &Config, node: NodeId, silent: bool) {
        if silent {
            self.silent.insert(node)
        } else {
            self.silent.remove(&node)
        };
        for sending in self.messages.values_mut() {
            if let Some(open) = sending.open.get_mut(&node)
                && open.silent != silent
            {
                open.silent = silent;
                sending.wait = config.timers.repeat;
                if sending.is_idle() {
                    sending.end_round(now.at, config);
                }
            }
        }
    }

    /// Where a message goes from now on.
    pub(super) fn assign(&mut self, config: &Config, number: u32, groups: Vec<Ipv4Addr>, announced: bool) {
        if let Some(sending) = self.messages.get_mut(&number) {
            (sending.groups, sending.announced) = (groups, announced);
            if !sending.addresses.is_empty() {
                sending.write_addresses(config);
            }
        }
    }

    /// What a message that waits for a group may fall back to.
    pub(super) fn waiting(&self, number: u32) -> Option<&[Ipv4Addr]> {
        let sending = self.messages.get(&number).filter(|s| s.groups.is_empty())?;
        match &sending.out.way {
            Way::Asked(agreed) | Way::Agreed(agreed) => Some(agreed),
            Way::AtOnce => Some(&[]),
        }
    }

    /// Whether anything of a message is still to be sent.
    pub(super) fn knows(&self, number: u32) -> bool {
        self.messages.contains_key(&number)
    }

    /// Messages on announced groups that are being asked about, and who has not confirmed them.
    pub(super) fn take_questions(&mut self) -> Vec<(u32, Vec<NodeId>)> {
        let asked = self.messages.iter_mut().filter_map(|(number, s)| {
            let asked = std::mem::take(&mut s.asks) && s.announced;
            let open = s.open.iter().filter(|(_, open)| !open.silent).map(|(node, _)| *node);
            asked.then(|| (*number, open.collect()))
        });
        asked.collect()
    }

    /// Messages that have ended before they had a group: there is nobody to say the last word to.
    pub(super) fn take_ended(&mut self, events: &mut VecDeque<Event>) -> Vec<u32> {
        let ended = self.messages.iter().filter(|(_, s)| s.last.is_some() && s.groups.is_empty());
        let ended: Vec<u32> = ended.map(|(number, _)| *number).collect();
        for number in &ended {
            if let Some(sending) = self.messages.remove(number) {
                events.push_back(Event::Done { number: *number, bytes: sending.bytes });
            }
        }
        ended
    }

    /// Gives a message another urgency.
    pub(super) fn set_priority(&mut self, number: u32, priority: u8) {
        if let Some(sending) = self.messages.get_mut(&number) {
            sending.out.priority = priority;
            sending.addresses.iter_mut().for_each(|(_, address)| address.priority = priority);
        }
    }

    pub(super) fn cancel(&mut self, config: &Config, number: u32) -> Vec<NodeId> {
        let Some(sending) = self.messages.get_mut(&number).filter(|s| s.last.is_none()) else { return Vec::new() };
        let open = sending.give_up(config);
        self.late.insert(number, Late { open: open.iter().copied().collect(), expiry: sending.out.expiry });
        open
    }

    pub(super) fn remember_unconfirmed(&mut self, number: u32, expiry: u32, open: impl IntoIterator<Item = NodeId>) {
        self.late.insert(number, Late { open: open.into_iter().collect(), expiry });
    }

    /// Takes what `from` lacks of the message `number`.
    pub(super) fn acknowledged(
        &mut self,
        now: Now,
        config: &Config,
        (from, number): (NodeId, u32),
        missing: &Missing,
        (counts, events): (&mut Counts, &mut VecDeque<Event>),
    ) {
        let Some(sending) = self.messages.get_mut(&number).filter(|s| s.last.is_none()) else {
            let confirmed = missing.is_empty() && self.late.get_mut(&number).is_some_and(|l| l.open.remove(&from));
            if confirmed {
                events.push_back(Event::Confirmed { number, node: from, late: true });
            } else {
                counts.add("stray_ack");
            }
            return;
        };
        let Some(open) = sending.open.get_mut(&from) else {
            let stranger = !sending.out.destinations.iter().any(|d| d.node == from);
            counts.add(if stranger { "stranger_ack" } else { "repeated_ack" });
            return;
        };
        if missing.is_empty() {
            sending.open.remove(&from);
            sending.got_on(config);
            events.push_back(Event::Confirmed { number, node: from, late: false });
            if sending.open.is_empty() {
                let key = sending.key(config);
                sending.last = Some(Pdu::Address(Address::ack_ack(sending.out.priority, key, sending.out.expiry)));
            } else if sending.is_idle() {
                sending.gather(now.at, config);
            }
            return;
        }
        if missing.last().is_some_and(|last| last > sending.total) {
            counts.add("absurd_list");
            return;
        }
        // Who answers keeps no silence.
        let was_silent = std::mem::replace(&mut open.silent, false);
        let before = open.missing.replace(missing.clone());
        if before.is_none_or(|before| missing.len() < before.len()) {
            sending.got_on(config);
        }
        for n in missing.iter() {
            // What left after the list was made is not lost yet.
            let flying = sending.left_at[usize::from(n) - 1].is_some_and(|at| at + config.timers.round_trip > now.at);
            if !flying && !sending.due.contains(&n) {
                sending.named.insert(n);
            }
        }
        sending.answered.insert(from);
        if sending.is_idle() {
            if was_silent {
                sending.repeat_at = sending.repeat_at.or(Some(now.at + sending.wait));
            }
            sending.gather(now.at, config);
        }
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Now,
        config: &Config,
        counts: &mut Counts,
        events: &mut VecDeque<Event>,
    ) {
        for (number, sending) in &mut self.messages {
            if sending.last.is_none() && expired(now, sending.out.expiry) {
                let mut open = BTreeSet::new();
                for (node, silent) in sending.open.iter().map(|(node, open)| (*node, open.silent)) {
                    events.push_back(Event::Unconfirmed { number: *number, node, silent });
                    open.insert(node);
                }
                sending.give_up(config);
                self.late.insert(*number, Late { open, expiry: sending.out.expiry });
            } else {
                sending.handle_timeout(now.at, config, counts);
            }
        }
        while self.late.len() > config.limits.late {
            let oldest =
                self.late.iter().min_by_key(|(number, late)| (late.expiry, **number)).map(|(number, _)| *number);
            oldest.and_then(|number| self.late.remove(&number));
        }
    }

    /// The most urgent message of which a datagram is ready, among those that may be sent, and how urgent it is.
    pub(super) fn ready(&self, may: impl Fn(u32) -> bool) -> Option<(u8, u32)> {
        let copies = self.copies.iter().filter_map(|copy| Some((copy.priority, copy.about?)));
        let ready = self.messages.iter().filter(|(_, s)| (!s.is_idle() || s.last.is_some()) && !s.groups.is_empty());
        let ready = ready.map(|(number, s)| (s.out.priority, *number));
        copies.chain(ready).filter(|(_, number)| may(*number)).min()
    }

    /// The next datagram of the most urgent message that may be sent.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        config: &Config,
        may: impl Fn(u32) -> bool,
        events: &mut VecDeque<Event>,
    ) -> Option<Transmit> {
        let (_, number) = self.ready(may)?;
        if let Some(at) = self.copies.iter().position(|copy| copy.about == Some(number)) {
            return self.copies.remove(at);
        }
        let sending = self.messages.get_mut(&number)?;
        if let Some(last) = sending.last.take() {
            let sending = self.messages.remove(&number)?;
            let transmit = sending.transmit(config, &last, &sending.groups, &mut self.copies)?;
            events.push_back(Event::Done { number, bytes: sending.bytes + transmit.bytes.len() as u64 });
            return Some(transmit);
        }
        let (groups, pdu) = match sending.addresses.pop_front() {
            Some((Some(group), address)) => (vec![group], Pdu::Address(address)),
            Some((None, address)) => (sending.groups.clone(), Pdu::Address(address)),
            None => sending.piece(now, config)?,
        };
        let transmit = sending.transmit(config, &pdu, &groups, &mut self.copies)?;
        sending.bytes += transmit.bytes.len() as u64;
        if sending.is_idle() {
            if std::mem::take(&mut sending.blind) {
                let of = config.timers.silent_repeats + 1;
                events.push_back(Event::SentBlind { number, window: of - sending.silent_left.min(of - 1), of });
            }
            sending.end_round(now, config);
        }
        Some(transmit)
    }

    pub(super) fn next_timeout(&self, now: Now) -> Option<Instant> {
        let of = |s: &Sending| {
            // Behind the last word nothing is waited for, be it that an order keeps that from leaving.
            let waits = s.is_idle() && s.last.is_none();
            let timers = if waits { [s.gather_at, s.repeat_at, s.silent_at] } else { [None; 3] };
            let expiry =
                (now.set && s.last.is_none()).then(|| now.at + Wall::from_seconds(s.out.expiry.into()).since(now.wall));
            timers.into_iter().chain([expiry]).flatten().min()
        };
        self.messages.values().filter_map(of).min()
    }
}

/// Whether a message has expired; nothing does before the clock is set.
pub(super) fn expired(now: Now, expiry: u32) -> bool {
    now.set && now.wall >= Wall::from_seconds(expiry.into())
}

impl Sending {
    fn key(&self, config: &Config) -> MessageKey {
        MessageKey { source: config.node, number: self.out.number }
    }

    /// Somebody has more than before: back to short waits.
    fn got_on(&mut self, config: &Config) {
        (self.wait, self.questions, self.patience) = (config.timers.repeat, 0, QUESTIONS);
    }

    /// Nothing is left of the round.
    fn is_idle(&self) -> bool {
        self.addresses.is_empty() && self.due.is_empty()
    }

    /// Addresses this message to those still open that `wanted` picks.
    fn address(&mut self, config: &Config, wanted: impl Fn(&Open) -> bool) {
        self.aim = self.open.iter().filter(|(_, open)| wanted(open)).map(|(node, _)| *node).collect();
        self.question = false;
        self.write_addresses(config);
    }

    /// Each receiver is addressed on its own group, and on no other.
    fn write_addresses(&mut self, config: &Config) {
        let mut parts: BTreeMap<Option<Ipv4Addr>, Vec<Destination>> = BTreeMap::new();
        for (node, open) in self.open.iter().filter(|(node, _)| self.aim.contains(node)) {
            let to = Destination { node: *node, sequence: open.sequence };
            parts.entry(self.group_of(config, *node)).or_default().push(to);
        }
        let (Outgoing { priority, expiry, .. }, total, key) = (&self.out, self.total, self.key(config));
        let split = |to| Address::split(*priority, total, key, *expiry, to, config.max_pdu);
        self.addresses =
            parts.into_iter().flat_map(|(group, to)| split(to).into_iter().map(move |a| (group, a))).collect();
    }

    /// Of several groups the one that was agreed for a receiver; `None`: it hears what goes to any.
    fn group_of(&self, config: &Config, node: NodeId) -> Option<Ipv4Addr> {
        let agreed = config.peers.get(&node).and_then(|peer| peer.group);
        agreed.filter(|group| self.groups.len() > 1 && self.groups.contains(group))
    }

    /// The groups on which somebody lacks a piece, as far as is known.
    fn groups_that_lack(&self, config: &Config, sequence: u16) -> Vec<Ipv4Addr> {
        if self.groups.len() < 2 {
            return self.groups.clone();
        }
        let lacks =
            |open: &Open| self.question || open.missing.as_ref().is_none_or(|m| m.iter().any(|n| n == sequence));
        let aimed = self.open.iter().filter(|(node, _)| self.aim.contains(node));
        let lacking = aimed.filter(|(_, open)| lacks(open)).map(|(node, _)| self.group_of(config, *node));
        match lacking.collect::<Option<BTreeSet<Ipv4Addr>>>() {
            Some(groups) if !groups.is_empty() => groups.into_iter().collect(),
            // One of them hears any; or who lacked it has just said that it has all.
            Some(_) | None => self.groups.clone(),
        }
    }

    fn piece(&mut self, now: Instant, config: &Config) -> Option<(Vec<Ipv4Addr>, Pdu)> {
        let sequence = self.due.pop_first()?;
        let groups = self.groups_that_lack(config, sequence);
        let size = config.max_pdu - DATA_OVERHEAD;
        let from = (usize::from(sequence) - 1) * size;
        let piece = self.out.payload[from..self.out.payload.len().min(from + size)].to_vec();
        self.left_at[usize::from(sequence) - 1] = Some(now);
        Some((groups, Pdu::Data { priority: self.out.priority, message: self.key(config), sequence, piece }))
    }

    fn transmit(
        &self,
        config: &Config,
        pdu: &Pdu,
        groups: &[Ipv4Addr],
        copies: &mut VecDeque<Transmit>,
    ) -> Option<Transmit> {
        let bytes = pdu.emit(config.checksum, Default::default()).expect("pieces and addresses are cut to max_pdu");
        let Outgoing { priority, number, .. } = self.out;
        let (first, others) = groups.split_first()?;
        let to = |group: &Ipv4Addr| Transmit {
            to: *group,
            port: Port::Data,
            priority,
            about: Some(number),
            bytes: bytes.clone(),
        };
        copies.extend(others.iter().map(to));
        Some(to(first))
    }

    /// Everything of a round has left: now answers are waited for.
    fn end_round(&mut self, now: Instant, config: &Config) {
        self.answered.clear();
        self.repeat_at = self.open.values().any(|open| !open.silent).then(|| now + self.wait);
        let silent = self.open.values().any(|open| open.silent) && self.silent_left > 0;
        self.silent_at = silent.then(|| self.silent_at.unwrap_or(now + config.timers.silent_interval));
        self.gather_at = (!self.named.is_empty()).then(|| now + config.timers.gather);
    }

    /// Between rounds: waits for more lists, or not, when all have answered.
    fn gather(&mut self, now: Instant, config: &Config) {
        if self.named.is_empty() {
            return;
        }
        let all = self.open.iter().all(|(node, open)| open.silent || self.answered.contains(node));
        let latest = if all { now } else { now + config.timers.gather };
        self.gather_at = Some(self.gather_at.map_or(latest, |at| at.min(latest)));
    }

    fn handle_timeout(&mut self, now: Instant, config: &Config, counts: &mut Counts) {
        if !self.is_idle() || self.last.is_some() {
            return;
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        // First, because they are few; what else is due waits for the end of that round.
        if is_due(self.silent_at) {
            self.silent_at = None;
            self.silent_left -= 1;
            self.blind = true;
            let lists = self.open.values().filter(|open| open.silent).map(|open| open.missing.as_ref());
            for list in lists {
                match list {
                    Some(missing) => self.due.extend(missing.iter()),
                    None => self.due.extend(1..=self.total),
                }
            }
            self.address(config, |open| open.silent);
            return;
        }
        if is_due(self.gather_at) {
            self.gather_at = None;
            let cost = self.named.len() as u64 * config.max_pdu as u64;
            if let Some(left) = self.budget.checked_sub(cost) {
                self.budget = left;
                self.due = std::mem::take(&mut self.named);
                self.address(config, |open| !open.silent);
                return;
            }
            counts.add("budget_spent");
            self.named.clear();
        }
        if is_due(self.repeat_at) && self.open.values().all(|open| open.silent) {
            // The last who was waited for has confirmed.
            self.repeat_at = None;
        }
        if is_due(self.repeat_at) {
            let unheard = self.open.values().any(|open| !open.silent && open.missing.is_none());
            let lists = || self.open.values().filter(|open| !open.silent).filter_map(|open| open.missing.as_ref());
            let asks = self.questions < self.patience;
            self.due = if asks {
                let last = lists().filter_map(Missing::last).max().filter(|_| !unheard);
                BTreeSet::from([last.unwrap_or(self.total)])
            } else if unheard {
                (1..=self.total).collect()
            } else {
                lists().flat_map(Missing::iter).collect()
            };
            if asks {
                self.questions += 1;
            } else {
                (self.questions, self.patience) = (0, self.patience.saturating_mul(2));
            }
            self.wait = config.timers.grown(self.wait);
            self.asks = true;
            self.address(config, |open| !open.silent);
            self.question = asks;
        }
    }

    /// Who is still open; what leaves next is the last word.
    fn give_up(&mut self, config: &Config) -> Vec<NodeId> {
        self.addresses.clear();
        self.due.clear();
        self.last = Some(Pdu::Discard { priority: self.out.priority, message: self.key(config) });
        std::mem::take(&mut self.open).into_keys().collect()
    }
}
