//! One node on one multicast link: what comes in goes to the half it is for, what goes out is paced.
//!
//! The run loop is that of every core: [`Station::handle_datagram`] or [`Station::handle_timeout`], then [`Station::poll_event`] and, while the node may send,
//! [`Station::poll_transmit`] until `None`, then sleep until [`Station::next_timeout`]. In silence nothing is polled and nothing is lost: what is owed
//! stays owed. P_MUL has no authentication; a node is believed when its datagrams come from an address the profile gives it.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::checksum::Checksum;
use super::missing::Ranges;
use super::receiver::Receiver;
use super::sender::{Outgoing, Sender, SubmitError};
use super::timers::{Pacer, Timers};
use super::wire::{ADDRESS_OVERHEAD, Address, MessageKey, NodeId, Pdu};
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
    /// Which message of ours it is about; `None`: an acknowledgement.
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
    /// An acknowledgement of a message of this priority.
    Answer(u8),
    /// A part of this message of ours.
    Message(u32),
}

/// See the module.
#[derive(Debug)]
pub struct Station {
    config: Config,
    sender: Sender,
    receiver: Receiver,
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
            pacer,
            counts: Counts::default(),
            events: VecDeque::new(),
            now: Now::default(),
        }
    }

    /// Takes a message to send.
    pub fn submit(&mut self, now: Now, out: Outgoing) -> Result<(), SubmitError> {
        self.now = now;
        self.sender.submit(now, &self.config, out)
    }

    /// Gives a message of ours another urgency.
    pub fn set_priority(&mut self, number: u32, priority: u8) {
        self.sender.set_priority(number, priority);
    }

    /// Gives up a message; who has not confirmed it. What they say later still counts.
    pub fn cancel(&mut self, number: u32) -> Vec<NodeId> {
        self.sender.cancel(&self.config, number)
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
        if own && !matches!(pdu, Pdu::Ack(_)) {
            // Multicast comes back to its sender.
            return self.counts.add("own");
        }
        let from_peer = |node: &NodeId| self.config.peers.get(node).is_some_and(|peer| peer.addresses.contains(&from));
        // libjpmul repeats an Ack under the originator's name; where it came from tells whose it is.
        let node = if own { self.config.peers.keys().copied().find(from_peer) } else { Some(source).filter(from_peer) };
        let Some(node) = node else { return self.counts.add("unknown_source") };
        let told = (&mut self.counts, &mut self.events);
        match pdu {
            Pdu::Address(address) => self.receiver.address(now, &self.config, (&address, from), told),
            Pdu::Data { message, sequence, piece, .. } => {
                self.receiver.piece(now, &self.config, (message, sequence, piece), from, told);
            }
            Pdu::Discard { message, .. } => self.receiver.discard(message, &mut self.events),
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
            // Groups are agreed beforehand (RFC 8494, section 3).
            Pdu::Announce { .. } | Pdu::Group { .. } => self.counts.add("dynamic_group"),
        }
    }

    /// Acts on every deadline at or before `now`; a call that comes too early does nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.sender.handle_timeout(now, &self.config, &mut self.counts, &mut self.events);
        self.receiver.handle_timeout(now, &self.config, &mut self.counts, &mut self.events);
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
        let answer = leave.answers.and_then(|least| self.receiver.poll(now.at, &self.config, least));
        let own = |own: &mut Self| own.sender.poll(now.at, &own.config, &leave.messages, &mut own.events);
        let transmit = answer.or_else(|| own(self))?;
        self.pacer.take(now.at, transmit.bytes.len());
        Some(transmit)
    }

    /// What would leave next of what may, and when.
    pub fn next(&self, now: Now, leave: &Leave<impl Fn(u32) -> bool>) -> Option<(Instant, Next)> {
        let answer = leave.answers.and_then(|least| self.receiver.answer_at(least));
        let own = self.sender.ready(&leave.messages).map(|number| (now.at, Next::Message(number)));
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
        let answer = self.receiver.answer_at(u8::MAX).filter(|(at, _)| *at <= now.at);
        let own = || self.sender.ready(|_| true).map(Next::Message);
        answer.map(|(_, priority)| Next::Answer(priority)).or_else(own)
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When there is something to do or to send next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let ready = self.sender.ready(|_| true).map(|_| self.now.at);
        let answer = self.receiver.answer_at(u8::MAX).map(|(at, _)| at);
        let sends = [answer, ready].into_iter().flatten().min().map(|at| at.max(self.pacer.ready_at()));
        sends.into_iter().chain(self.next_deadline(self.now)).min()
    }

    /// When there is something to do other than to send.
    pub fn next_deadline(&self, now: Now) -> Option<Instant> {
        self.receiver.next_timeout(now).into_iter().chain(self.sender.next_timeout(now)).min()
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
