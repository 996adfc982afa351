//! One node on one multicast link: what comes in goes to the half it is for, what goes out is paced.
//!
//! The run loop is that of every core: [`Station::handle_datagram`] or [`Station::handle_timeout`], then [`Station::poll_event`] and, while the node may send,
//! [`Station::poll_transmit`] until `None`, then sleep until [`Station::next_timeout`]. In silence nothing is polled and nothing is lost: what is owed
//! stays owed. P_MUL has no authentication; a node is believed when its datagrams come from an address the profile gives it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::checksum::Checksum;
use super::groups::{Dynamic, Granted, Groups, REJECT_PRIORITY};
use super::missing::Ranges;
use super::receiver::Receiver;
use super::sender::{Outgoing, Sender, SubmitError, Way};
use super::timers::{Pacer, Timers};
use super::wire::{ADDRESS_OVERHEAD, Address, GroupWord, MessageKey, NodeId, Pdu};
use crate::time::{Instant, Now};

/// What names the originator in an Ack entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EntrySource {
    /// The originator's node, as ACP 142 has it.
    #[default]
    Originator,
    /// The acknowledging node's own, as libjpmul writes and wants it.
    Acknowledger,
}

/// What is known of another node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Addresses its datagrams come from.
    pub addresses: Vec<Ipv4Addr>,
    /// How lists are written to it.
    pub ranges: Ranges,
    /// What names the originator in entries to it.
    pub entry_source: EntrySource,
    /// The group that was agreed for it; `None`: it is taken to hear every one.
    pub group: Option<Ipv4Addr>,
}

/// What others may make a station hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Messages on their way out.
    pub sending: usize,
    /// Messages given up whose late acknowledgements count.
    pub late: usize,
    /// Messages known on their way in, those accepted included.
    pub receiving: usize,
    /// Octets of all pieces held.
    pub held_bytes: usize,
    /// Octets of one message.
    pub message_bytes: usize,
    /// Missing pieces named in one entry (MM).
    pub missing: usize,
    /// How long after its expiry an accepted message is still known.
    pub remember_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sending: 256,
            late: 4096,
            receiving: 8192,
            held_bytes: 64 << 20,
            message_bytes: 32 << 20,
            missing: usize::MAX,
            remember_seconds: 3600,
        }
    }
}

/// What a [`Station`] is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Own node.
    pub node: NodeId,
    /// Which checksum is written.
    pub checksum: Checksum,
    /// Longest PDU, at most the MTU less 28; from 64 to 65507.
    pub max_pdu: usize,
    /// The waits.
    pub timers: Timers,
    /// The bounds.
    pub limits: Limits,
    /// Who is listened to.
    pub peers: BTreeMap<NodeId, Peer>,
    /// Groups made for single messages; `None`: all groups are agreed beforehand.
    pub dynamic: Option<Dynamic>,
    /// Of the chance that spreads answers.
    pub seed: u64,
}

/// Which port a datagram goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// DPORT: address, data, discard.
    Data,
    /// APORT: acknowledgement.
    Ack,
    /// TPORT: request, reject, release of a group.
    Control,
    /// RPORT: announcement of a group.
    Announce,
}

/// A datagram to send.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Transmit {
    /// A group or a node.
    pub to: Ipv4Addr,
    /// Its port.
    pub port: Port,
    /// Lower is more urgent.
    pub priority: u8,
    /// Which message of ours it is a part of; `None`: an acknowledgement, or about a group.
    pub about: Option<u32>,
    /// The PDU.
    pub bytes: Vec<u8>,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A node has a message of ours. `late`: after it had been given up.
    Confirmed {
        /// Which.
        number: u32,
        /// Who.
        node: NodeId,
        /// After expiry or cancellation.
        late: bool,
    },
    /// A message expired before a node confirmed it; one in silence may have it.
    Unconfirmed {
        /// Which.
        number: u32,
        /// Who.
        node: NodeId,
        /// It was known to keep silence.
        silent: bool,
    },
    /// Everything that receivers in silence lack of a message has left. Nobody says whether it arrived.
    SentBlind {
        /// Which.
        number: u32,
        /// The first time, or the how manieth.
        window: u32,
        /// How often in all.
        of: u32,
    },
    /// Nothing more is sent of a message of ours.
    Done {
        /// Which.
        number: u32,
        /// Octets of its PDUs.
        bytes: u64,
    },
    /// A message for this node is whole; answer with [`Station::settle`].
    Whole {
        /// Which.
        message: MessageKey,
        /// Unix seconds.
        expiry: u32,
        /// Lower is more urgent.
        priority: u8,
        /// What it holds.
        payload: Arc<[u8]>,
    },
    /// Its sender has given up a message that was not whole.
    Discarded {
        /// Which.
        message: MessageKey,
    },
    /// A message that was not whole has expired.
    Expired {
        /// Which.
        message: MessageKey,
    },
    /// A group was announced for a message of ours: to be released, after a restart too.
    GroupTaken {
        /// Which message.
        number: u32,
        /// The group.
        group: Ipv4Addr,
        /// When its receivers leave by themselves, Unix seconds.
        expiry: u32,
    },
    /// Nothing more is to be said of the group of a message of ours.
    GroupReleased {
        /// Which message.
        number: u32,
    },
}

/// What the caller says of a whole message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is safe, or nobody will ever want it: confirm.
    Accepted,
    /// Not now, or it cannot be all there is: offered again when more of it is heard, and after growing waits.
    Later,
}

/// How often what happened that should not, or need not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn add(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    /// How often this.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}

/// What may leave.
#[derive(Clone, Copy, Debug)]
pub struct Leave<M> {
    /// Acknowledgements of messages at least this urgent; `None`: of none.
    pub answers: Option<u8>,
    /// Whether a message of ours may be sent, by its number.
    pub messages: M,
}

impl Leave<fn(u32) -> bool> {
    /// Everything.
    pub const ALL: Self = Self { answers: Some(u8::MAX), messages: |_| true };
}

/// What would leave next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// An acknowledgement of a message of this priority, or an objection.
    Answer(u8),
    /// A part of this message of ours, or a word about its group.
    Message(u32),
}

/// See the module.
#[derive(Debug)]
pub struct Station {
    config: Config,
    sender: Sender,
    receiver: Receiver,
    groups: Groups,
    pacer: Pacer,
    counts: Counts,
    events: VecDeque<Event>,
    now: Now,
}

impl Station {
    /// A station that has heard nothing yet.
    pub fn new(mut config: Config, pacer: Pacer) -> Self {
        config.max_pdu = config.max_pdu.clamp(64.max(ADDRESS_OVERHEAD), 65507);
        Self {
            config,
            sender: Sender::default(),
            receiver: Receiver::default(),
            groups: Groups::default(),
            pacer,
            counts: Counts::default(),
            events: VecDeque::new(),
            now: Now::default(),
        }
    }

    /// Takes a message to send.
    pub fn submit(&mut self, now: Now, out: Outgoing) -> Result<(), SubmitError> {
        self.now = now;
        let at_once = match &out.way {
            Way::Agreed(_) => None,
            Way::Asked(_) => Some(false),
            Way::AtOnce => Some(true),
        };
        let named = (out.number, out.priority, out.expiry);
        let to = out.destinations.iter().map(|d| d.node).collect();
        self.sender.submit(now, &self.config, out)?;
        if let (Some(dynamic), Some(at_once)) = (&self.config.dynamic, at_once) {
            self.groups.claim(now.at, &self.config, dynamic, named, to, at_once);
            self.settle_groups();
        }
        Ok(())
    }

    /// Gives a message of ours another urgency.
    pub fn set_priority(&mut self, number: u32, priority: u8) {
        self.sender.set_priority(number, priority);
        self.groups.set_priority(number, priority);
    }

    /// A message of ours cannot wait for a group any more: it goes by those that were agreed, or its group is announced without asking.
    pub fn hurry(&mut self, now: Now, number: u32) {
        self.now = now;
        let Some(dynamic) = &self.config.dynamic else { return };
        match self.sender.waiting(number) {
            Some([]) => self.groups.hurry(now.at, &self.config, dynamic, number),
            Some(agreed) => {
                let agreed = agreed.to_vec();
                self.groups.end(number, &mut self.counts);
                self.sender.assign(&self.config, number, agreed, false);
            }
            None => {}
        }
    }

    /// Gives up a message; who has not confirmed it. What they say later still counts.
    pub fn cancel(&mut self, number: u32) -> Vec<NodeId> {
        let open = self.sender.cancel(&self.config, number);
        self.settle_groups();
        open
    }

    /// A group that a message of ours had before a restart: it is released.
    pub fn restore_group(&mut self, number: u32, group: Ipv4Addr, expiry: u32) {
        self.groups.restore(number, group, expiry);
    }

    /// The dynamic groups this node is to be a member of now. Joining and leaving radiate, so they are the caller's.
    pub fn groups(&self) -> BTreeSet<Ipv4Addr> {
        self.groups.wanted()
    }

    /// What claims came to, and what became of their messages.
    fn settle_groups(&mut self) {
        while let Some((number, granted)) = self.groups.poll_granted() {
            match granted {
                Granted::Group(group) => self.sender.assign(&self.config, number, vec![group], true),
                Granted::Nothing => {
                    self.counts.add("no_free_group");
                    if let Some(agreed) = self.sender.waiting(number).filter(|agreed| !agreed.is_empty()) {
                        let agreed = agreed.to_vec();
                        self.groups.forget_claim(number);
                        self.sender.assign(&self.config, number, agreed, false);
                    }
                }
            }
        }
        for number in self.sender.take_ended(&mut self.events) {
            self.groups.end(number, &mut self.counts);
        }
    }

    /// Says whether a node keeps silence.
    pub fn set_silent(&mut self, now: Now, node: NodeId, silent: bool) {
        self.now = now;
        self.sender.set_silent(now, &self.config, node, silent);
    }

    /// A message that was accepted before a restart: it is confirmed again when it is asked for, or at once where its sender has not been
    /// told (`owed`), and never offered again.
    pub fn restore_accepted(&mut self, now: Now, message: MessageKey, (expiry, priority): (u32, u8), owed: bool) {
        if let Some(address) = self.config.peers.get(&message.source).and_then(|peer| peer.addresses.first()) {
            self.receiver.restore(now.at, &self.config, (message, expiry, priority), *address, owed);
        }
    }

    /// A message that was given up before a restart, and by whom it was not confirmed.
    pub fn restore_unconfirmed(&mut self, number: u32, expiry: u32, open: impl IntoIterator<Item = NodeId>) {
        self.sender.remember_unconfirmed(number, expiry, open);
    }

    /// The answer to [`Event::Whole`].
    pub fn settle(&mut self, now: Now, message: MessageKey, verdict: Verdict) {
        self.now = now;
        self.receiver.settle(now.at, &self.config, message, verdict);
    }

    /// Takes a datagram that came from `from`; what is wrong with it is counted and changes nothing.
    pub fn handle_datagram(&mut self, now: Now, from: Ipv4Addr, datagram: &[u8]) {
        self.now = now;
        let pdu = match Pdu::parse(datagram) {
            Ok(pdu) => pdu,
            Err(error) => return self.counts.add(error.name()),
        };
        let source = match &pdu {
            Pdu::Ack(ack) => ack.from,
            Pdu::Address(Address { message, .. })
            | Pdu::Data { message, .. }
            | Pdu::Discard { message, .. }
            | Pdu::Announce { message, .. }
            | Pdu::Group { message, .. } => message.source,
        };
        let own = source == self.config.node;
        // An objection carries the name of who asked.
        let answers_us = matches!(pdu, Pdu::Ack(_) | Pdu::Group { word: GroupWord::Reject, .. });
        if own && !answers_us {
            // Multicast comes back to its sender.
            return self.counts.add("own");
        }
        let from_peer = |node: &NodeId| self.config.peers.get(node).is_some_and(|peer| peer.addresses.contains(&from));
        // libjpmul repeats an Ack under the originator's name; where it came from tells whose it is.
        let node = if own { self.config.peers.keys().copied().find(from_peer) } else { Some(source).filter(from_peer) };
        let Some(node) = node else { return self.counts.add("unknown_source") };
        let told = (&mut self.counts, &mut self.events);
        match pdu {
            Pdu::Address(address) => {
                self.receiver.address(now, &self.config, (&address, from), told);
                self.heard(now, address.message);
            }
            Pdu::Data { message, sequence, piece, .. } => {
                self.receiver.piece(now, &self.config, (message, sequence, piece), from, told);
                self.heard(now, message);
            }
            Pdu::Discard { message, .. } => {
                self.receiver.discard(message, &mut self.events);
                self.groups.leave(message);
            }
            Pdu::Ack(ack) => {
                for entry in ack.entries {
                    let ours = entry.message.source == self.config.node || entry.message.source == node;
                    if ours {
                        let told = (&mut self.counts, &mut self.events);
                        let of = (node, entry.message.number);
                        self.sender.acknowledged(now, &self.config, of, &entry.missing, told);
                    } else {
                        self.counts.add("ack_for_others");
                    }
                }
            }
            Pdu::Announce { message, expiry, group, destinations, .. } => {
                let named = destinations.contains(&self.config.node);
                self.announced(now, (message, group, expiry), named);
            }
            Pdu::Group { word, message, group } => self.group_word(now, (word, message, group), node, from),
        }
        self.settle_groups();
    }

    /// A part of a message came in.
    fn heard(&mut self, now: Now, message: MessageKey) {
        let Some(dynamic) = &self.config.dynamic else { return };
        self.groups.heard(now.at, dynamic, message);
        if self.groups.is_joined(message) && self.receiver.is_over(message) {
            self.groups.leave(message);
        }
    }

    fn announced(&mut self, now: Now, (message, group, expiry): (MessageKey, Ipv4Addr, u32), named: bool) {
        // Where all groups are agreed beforehand (RFC 8494, section 3).
        let Some(dynamic) = &self.config.dynamic else { return self.counts.add("dynamic_group") };
        let named = named && !self.receiver.says_again(now.at, &self.config, message, expiry);
        self.groups.announced(now, &self.config, dynamic, (message, group, expiry), named, &mut self.counts);
    }

    fn group_word(
        &mut self,
        now: Now,
        (word, message, group): (GroupWord, MessageKey, Ipv4Addr),
        node: NodeId,
        from: Ipv4Addr,
    ) {
        let Some(dynamic) = &self.config.dynamic else { return self.counts.add("dynamic_group") };
        let counts = &mut self.counts;
        match word {
            GroupWord::Request => {
                self.groups.requested(now.at, &self.config, dynamic, (message, group, from), counts);
            }
            GroupWord::Reject => {
                let of = (node, message.number, group);
                self.groups.rejected(now.at, &self.config, dynamic, of, counts);
            }
            GroupWord::Release => self.groups.released(message, group),
        }
    }

    /// Acts on every deadline at or before `now`; a call that comes too early does nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.sender.handle_timeout(now, &self.config, &mut self.counts, &mut self.events);
        self.receiver.handle_timeout(now, &self.config, &mut self.counts, &mut self.events);
        if let Some(dynamic) = &self.config.dynamic {
            for (number, open) in self.sender.take_questions() {
                self.groups.announce_again(&self.config, number, open);
            }
            self.groups.handle_timeout(now, &self.config, dynamic, &mut self.counts, &mut self.events);
        }
        self.settle_groups();
    }

    /// The next datagram, if one may leave now. Not to be called in silence.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.poll_permitted(now, &Leave::ALL)
    }

    /// The next datagram of what may leave. The caller holds the permit for [`Station::next`].
    pub fn poll_permitted(&mut self, now: Now, leave: &Leave<impl Fn(u32) -> bool>) -> Option<Transmit> {
        self.now = now;
        if self.pacer.ready_at() > now.at {
            return None;
        }
        let transmit = self.poll_answer(now, leave.answers).or_else(|| self.poll_own(now, &leave.messages))?;
        self.pacer.take(now.at, transmit.bytes.len());
        Some(transmit)
    }

    fn poll_answer(&mut self, now: Now, answers: Option<u8>) -> Option<Transmit> {
        let least = answers?;
        let rejects = least >= REJECT_PRIORITY;
        let reject = rejects.then(|| self.groups.poll_reject(now.at, &self.config)).flatten();
        reject.or_else(|| self.receiver.poll(now.at, &self.config, least))
    }

    fn poll_own(&mut self, now: Now, may: &impl Fn(u32) -> bool) -> Option<Transmit> {
        if let (Some(dynamic), Some((urgency, number))) = (&self.config.dynamic, self.groups.ready(may))
            && self.sender.ready(may).is_none_or(|part| (urgency, number) <= part)
        {
            return self.groups.poll(now.at, &self.config, dynamic, number, &mut self.events);
        }
        let transmit = self.sender.poll(now.at, &self.config, may, &mut self.events)?;
        if let Some(number) = transmit.about.filter(|number| !self.sender.knows(*number)) {
            self.groups.end(number, &mut self.counts);
        }
        Some(transmit)
    }

    /// When an answer is due that may leave, and how urgent it is.
    fn answer_at(&self, least: u8) -> Option<(Instant, u8)> {
        let reject = self.groups.reject_at().filter(|_| least >= REJECT_PRIORITY);
        let reject = reject.map(|at| (at, REJECT_PRIORITY));
        reject.into_iter().chain(self.receiver.answer_at(least)).min()
    }

    /// The message of ours that is next.
    fn own_ready(&self, may: &impl Fn(u32) -> bool) -> Option<u32> {
        self.groups.ready(may).into_iter().chain(self.sender.ready(may)).min().map(|(_, number)| number)
    }

    /// What would leave next of what may, and when.
    pub fn next(&self, now: Now, leave: &Leave<impl Fn(u32) -> bool>) -> Option<(Instant, Next)> {
        let answer = leave.answers.and_then(|least| self.answer_at(least));
        let own = self.own_ready(&leave.messages).map(|number| (now.at, Next::Message(number)));
        let answer = answer.map(|(at, priority)| (at, Next::Answer(priority)));
        let first = match (answer, own) {
            (Some(answer), Some(own)) if answer.0 > now.at => Some(own),
            (answer, own) => answer.or(own),
        };
        first.map(|(at, next)| (at.max(now.at).max(self.pacer.ready_at()), next))
    }

    /// When everything that has left is through at the rate.
    pub fn spent_until(&self) -> Instant {
        self.pacer.spent_until()
    }

    /// Whether a datagram is ready, be it that the pace holds it back: what a half-duplex line is keyed for.
    pub fn has_transmit(&self, now: Now) -> bool {
        self.next_ready(now).is_some()
    }

    fn next_ready(&self, now: Now) -> Option<Next> {
        let answer = self.answer_at(u8::MAX).filter(|(at, _)| *at <= now.at);
        let own = || self.own_ready(&|_| true).map(Next::Message);
        answer.map(|(_, priority)| Next::Answer(priority)).or_else(own)
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When there is something to do or to send next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let ready = self.own_ready(&|_| true).map(|_| self.now.at);
        let answer = self.answer_at(u8::MAX).map(|(at, _)| at);
        let sends = [answer, ready].into_iter().flatten().min().map(|at| at.max(self.pacer.ready_at()));
        sends.into_iter().chain(self.next_deadline(self.now)).min()
    }

    /// When there is something to do other than to send.
    pub fn next_deadline(&self, now: Now) -> Option<Instant> {
        let [receiver, sender, groups] =
            [self.receiver.next_timeout(now), self.sender.next_timeout(now), self.groups.next_timeout(now)];
        receiver.into_iter().chain(sender).chain(groups).min()
    }

    /// How often what happened that should not, or need not.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Octets of pieces held on their way in, overhead included.
    pub fn held_bytes(&self) -> usize {
        self.receiver.held()
    }

    /// Messages known on their way in, those accepted included.
    pub fn known_messages(&self) -> usize {
        self.receiver.messages()
    }
}
