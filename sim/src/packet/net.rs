//! One packet bearer: nodes, directed paths, and datagrams on their way.
//!
//! Sans-IO and clockless like every core of the product: the driver calls in with the time, drains [`PacketNet::poll`], and comes back
//! at [`PacketNet::next_timeout`]. It promises:
//!
//! - a datagram of `b` bytes leaves an idle transmitter `b * 8 / rate` later, and arrives the path's delay after that;
//! - a datagram to a group takes the sender's time once and is lost or not at every receiver on its own, besides what is lost for all;
//! - what is sent = delivered + lost + waiting + under way on every directed pair, in datagrams and in bytes
//!   ([`PacketNet::balance`]), with a counter for every way to be lost.

use std::collections::{BTreeMap, VecDeque};

use aldis::time::{Duration, Instant};
use serde::Serialize;

use super::config::{Change, Destination, Group, NetConfig, NodeId, PathConfig, PathState};
use super::loss::{Losses, Weather};
use super::transmitter::{Datagram, Terms, Transmitter};
use crate::rng::Stream;

/// Purposes of [`Losses`].
const SHARED: u64 = 0;
const OWN: u64 = 1;

/// What a node gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Who sent it.
    pub from: NodeId,
    /// The group it was sent to; `None`: to this node alone.
    pub group: Option<Group>,
    /// The port it was sent to, which the bearer only carries.
    pub port: u16,
    /// When it was handed in.
    pub sent: Instant,
    /// Its bytes, never changed.
    pub bytes: Vec<u8>,
}

/// Datagrams and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Count {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes, without overhead.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, length: usize) {
        self.datagrams += 1;
        self.bytes += length as u64;
    }

    fn subtract(&mut self, length: usize) {
        self.datagrams -= 1;
        self.bytes -= length as u64;
    }
}

/// What became of what one node sent to another, its copies of group datagrams included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PathStats {
    /// Handed in.
    pub sent: Count,
    /// Handed out.
    pub delivered: Count,
    /// Dropped because the sender's queue was full.
    pub overflowed: Count,
    /// Dropped because it was longer than the sender may send.
    pub too_big: Count,
    /// Sent when there was no path, or none any more.
    pub unreachable: Count,
    /// Lost while a site was out.
    pub faded: Count,
    /// Lost one by one or in bursts.
    pub errored: Count,
    /// In the sender's queue.
    pub waiting: Count,
    /// Under way.
    pub flying: Count,
}

impl PathStats {
    /// All that was lost, for whatever reason.
    pub fn lost(&self) -> Count {
        let all = [self.overflowed, self.too_big, self.unreachable, self.faded, self.errored];
        let sum = |of: fn(&Count) -> u64| all.iter().map(of).sum();
        Count { datagrams: sum(|c| c.datagrams), bytes: sum(|c| c.bytes) }
    }
}

/// A packet bearer and all that is on it.
#[derive(Debug)]
pub struct PacketNet {
    config: NetConfig,
    now: Instant,
    /// One per node; a single one on a half-duplex channel.
    transmitters: Vec<Transmitter>,
    /// Which datagram of a transmitter's queue is in hand.
    in_hand: Vec<Option<usize>>,
    paths: BTreeMap<(NodeId, NodeId), Path>,
    books: BTreeMap<(NodeId, NodeId), PathStats>,
    nodes: Vec<Node>,
    agenda: BTreeMap<(Instant, NodeId, u64), Happening>,
    sequence: u64,
    outputs: VecDeque<(NodeId, Delivered)>,
}

#[derive(Debug)]
struct Path {
    config: PathConfig,
    state: PathState,
    losses: Losses,
}

#[derive(Debug)]
struct Node {
    next_number: u64,
    waiting_bytes: u64,
    shared: Losses,
    weather: Option<Weather>,
}

#[derive(Debug)]
enum Happening {
    /// The datagram in hand has left the transmitter.
    Depart { transmitter: usize, turn: u64 },
    /// It reaches a receiver.
    Arrive(Datagram),
    /// The contact plan changes a path.
    Change { to: NodeId, state: PathState },
}

impl PacketNet {
    /// A bearer at time zero with nothing on it.
    pub fn new(config: NetConfig) -> Self {
        let seed = config.seed;
        let ids = || (0..u16::try_from(config.members.len()).unwrap_or(u16::MAX)).map(NodeId);
        let node = |id: NodeId| Node {
            next_number: 0,
            waiting_bytes: 0,
            shared: Losses::new(seed, SHARED, [u64::from(id.0), 0]),
            weather: config
                .fade
                .filter(|_| config.fades_at.contains(&id))
                .map(|fade| Weather::new(fade, seed, u64::from(id.0))),
        };
        let path = |(&(from, to), &path): (&(NodeId, NodeId), &PathConfig)| {
            let losses = Losses::new(seed, OWN, [u64::from(from.0), u64::from(to.0)]);
            ((from, to), Path { config: path, state: PathState { up: path.up, ..PathState::default() }, losses })
        };
        let own = config.members.iter().take(if config.half_duplex { 1 } else { usize::MAX });
        let transmitters: Vec<_> = own.map(|m| Transmitter::new(m.rate_bps, m.bucket_bytes)).collect();
        let mut net = Self {
            now: Instant::ZERO,
            in_hand: vec![None; transmitters.len()],
            transmitters,
            paths: config.paths.iter().map(path).collect(),
            books: BTreeMap::new(),
            nodes: ids().map(node).collect(),
            agenda: BTreeMap::new(),
            sequence: 0,
            outputs: VecDeque::new(),
            config,
        };
        for Change { at, from, to, state } in net.config.plan.clone() {
            net.plan(at, from, Happening::Change { to, state });
        }
        net
    }

    /// Takes a datagram of `from` for a port at one node or at all nodes of a group. What cannot be taken is counted as lost.
    pub fn send(&mut self, now: Instant, from: NodeId, to: Destination, port: u16, bytes: &[u8]) {
        self.advance(now);
        let receivers = self.receivers(from, to);
        let Some(member) = self.config.members.get(usize::from(from.0)).copied() else { return };
        let Some(node) = self.nodes.get_mut(usize::from(from.0)) else { return };
        let number = node.next_number;
        node.next_number += 1;
        let length = bytes.len() as u64;
        let too_big = length > member.mtu_bytes;
        let overflows = node.waiting_bytes + length > member.queue_bytes;
        for &receiver in &receivers {
            let books = self.books.entry((from, receiver)).or_default();
            books.sent.add(bytes.len());
            let fate = match (too_big, overflows) {
                (true, _) => &mut books.too_big,
                (false, true) => &mut books.overflowed,
                (false, false) => &mut books.waiting,
            };
            fate.add(bytes.len());
        }
        if too_big || overflows || receivers.is_empty() {
            return;
        }
        node.waiting_bytes += length;
        let transmitter = self.transmitter(from);
        let datagram = Datagram { from, to, port, number, sent: self.now, bytes: bytes.into() };
        self.transmitters[transmitter].queue.push_back(datagram);
        if self.in_hand[transmitter].is_none() {
            self.take(transmitter);
        }
    }

    /// Changes a path outside the plan.
    pub fn set_path(&mut self, now: Instant, from: NodeId, to: NodeId, state: PathState) {
        self.advance(now);
        self.change(from, to, state);
    }

    /// Acts on everything due at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// What a node gets next. Drain until `None` after each call.
    pub fn poll(&mut self) -> Option<(NodeId, Delivered)> {
        self.outputs.pop_front()
    }

    /// When [`PacketNet::handle_timeout`] next has work.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.agenda.first_key_value().map(|(&(at, ..), _)| at)
    }

    /// What became of what `from` sent to `to`.
    pub fn stats(&self, from: NodeId, to: NodeId) -> PathStats {
        self.books.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Every directed pair on which something was sent, and what became of it.
    pub fn books(&self) -> impl Iterator<Item = ((NodeId, NodeId), PathStats)> + '_ {
        self.books.iter().map(|(&ends, &stats)| (ends, stats))
    }

    /// Checks that nothing is unaccounted for: sent = delivered + lost + waiting + under way. What waits and what is under way is
    /// counted afresh where it lies.
    pub fn balance(&self) -> Result<(), String> {
        let mut found: BTreeMap<(NodeId, NodeId), [Count; 2]> = BTreeMap::new();
        for datagram in self.transmitters.iter().flat_map(|t| &t.queue) {
            for to in self.receivers(datagram.from, datagram.to) {
                found.entry((datagram.from, to)).or_default()[0].add(datagram.bytes.len());
            }
        }
        for ((_, to, _), happening) in &self.agenda {
            if let Happening::Arrive(datagram) = happening {
                found.entry((datagram.from, *to)).or_default()[1].add(datagram.bytes.len());
            }
        }
        for (&(from, to), s) in &self.books {
            let [waiting, flying] = found.remove(&(from, to)).unwrap_or_default();
            let all = [s.delivered, s.lost(), waiting, flying];
            let sum = |of: fn(&Count) -> u64| all.iter().map(of).sum();
            let sum = Count { datagrams: sum(|c| c.datagrams), bytes: sum(|c| c.bytes) };
            if sum != s.sent || (s.waiting, s.flying) != (waiting, flying) {
                return Err(format!("{} to {}: {s:?} does not add up; {waiting:?}, {flying:?} found", from.0, to.0));
            }
        }
        match found.first_key_value() {
            Some(((from, to), _)) => Err(format!("{} to {}: there is something nobody sent", from.0, to.0)),
            None => Ok(()),
        }
    }

    /// The nodes.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..u16::try_from(self.nodes.len()).unwrap_or(u16::MAX)).map(NodeId)
    }

    fn receivers(&self, from: NodeId, to: Destination) -> Vec<NodeId> {
        let known = |id: &NodeId| *id != from && usize::from(id.0) < self.nodes.len();
        match to {
            Destination::Node(to) => Some(to).into_iter().filter(known).collect(),
            Destination::Group(Group(group)) => {
                self.config.groups.get(usize::from(group)).into_iter().flatten().copied().filter(known).collect()
            }
        }
    }

    fn transmitter(&self, from: NodeId) -> usize {
        if self.config.half_duplex { 0 } else { usize::from(from.0) }
    }

    fn plan(&mut self, at: Instant, id: NodeId, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((at, id, self.sequence), happening);
    }

    fn advance(&mut self, now: Instant) {
        while let Some(entry) = self.agenda.first_entry() {
            let &(at, id, _) = entry.key();
            if at > now {
                break;
            }
            let happening = entry.remove();
            self.now = self.now.max(at);
            match happening {
                Happening::Depart { transmitter, turn } => self.depart(transmitter, turn),
                Happening::Arrive(datagram) => self.arrive(id, datagram),
                Happening::Change { to, state } => self.change(id, to, state),
            }
        }
        self.now = self.now.max(now);
    }

    fn change(&mut self, from: NodeId, to: NodeId, state: PathState) {
        let Some(path) = self.paths.get_mut(&(from, to)) else { return };
        path.state = state;
        self.take(self.transmitter(from));
    }

    /// Takes the first datagram that can be sent in hand, afresh if need be.
    fn take(&mut self, transmitter: usize) {
        let now = self.now;
        let found = self.transmitters[transmitter].queue.iter().position(|d| !self.config.holds || self.reaches(d));
        let terms = found.map(|i| self.terms(&self.transmitters[transmitter].queue[i]));
        self.in_hand[transmitter] = found;
        let idle = self.config.members.get(transmitter).map_or((1, 0), |m| (m.rate_bps, m.bucket_bytes));
        let own = &mut self.transmitters[transmitter];
        own.accrue(now);
        let Some(terms) = terms else { return own.idle(idle.0, idle.1) };
        let (through, turn) = (own.take(now, terms), own.turn);
        self.plan(through, terms.from, Happening::Depart { transmitter, turn });
    }

    /// Whether any receiver could get it now.
    fn reaches(&self, datagram: &Datagram) -> bool {
        let up = |to: NodeId| self.paths.get(&(datagram.from, to)).is_some_and(|p| p.state.up);
        self.receivers(datagram.from, datagram.to).into_iter().any(up)
    }

    fn terms(&self, datagram: &Datagram) -> Terms {
        let (c, from) = (&self.config, datagram.from);
        let member = &c.members[usize::from(from.0)];
        let paths = self.receivers(from, datagram.to).into_iter().filter_map(|to| self.paths.get(&(from, to)));
        let slowest = paths.filter(|p| p.state.up).filter_map(|p| p.state.rate_bps).min();
        let members = u32::try_from(c.members.len()).unwrap_or(u32::MAX).max(1);
        Terms {
            from,
            bytes: datagram.bytes.len() as u64 + c.overhead_bytes,
            rate_bps: slowest.map_or(member.rate_bps, |slowest| slowest.min(member.rate_bps)),
            bucket_bytes: member.bucket_bytes,
            turnaround: c.turnaround,
            setup: c.setup,
            hangs_up: c.hangs_up,
            frame: c.frame,
            place: c.frame / members * u32::from(from.0),
        }
    }

    fn depart(&mut self, transmitter: usize, turn: u64) {
        let now = self.now;
        let own = &mut self.transmitters[transmitter];
        if own.turn != turn {
            return;
        }
        own.accrue(now);
        let Some(datagram) = self.in_hand[transmitter].take().and_then(|i| own.queue.remove(i)) else { return };
        own.pay(datagram.bytes.len() as u64 + self.config.overhead_bytes);
        self.nodes[usize::from(datagram.from.0)].waiting_bytes -= datagram.bytes.len() as u64;
        self.launch(datagram);
        self.take(transmitter);
    }

    /// A datagram is on the way to all its receivers.
    fn launch(&mut self, datagram: Datagram) {
        let (now, from, length) = (self.now, datagram.from, datagram.bytes.len());
        let node = &mut self.nodes[usize::from(from.0)];
        let out = node.weather.as_mut().is_some_and(|w| w.is_out(now));
        let struck = node.shared.strikes(self.config.shared_loss, datagram.number);
        for to in self.receivers(from, datagram.to) {
            let books = self.books.entry((from, to)).or_default();
            books.waiting.subtract(length);
            let Some(path) = self.paths.get_mut(&(from, to)).filter(|p| p.state.up) else {
                books.unreachable.add(length);
                continue;
            };
            let own = path.losses.strikes(path.state.loss.unwrap_or(path.config.loss), datagram.number);
            if out {
                books.faded.add(length);
            } else if struck || own {
                books.errored.add(length);
            } else {
                books.flying.add(length);
                let name = [u64::from(from.0), u64::from(to.0), datagram.number];
                let jitter = u64::try_from(path.config.jitter.as_nanos()).unwrap_or(u64::MAX);
                let jitter = Duration::from_nanos(Stream::keyed(self.config.seed, "jitter", &name).below(jitter));
                let at = now + path.state.delay.unwrap_or(path.config.delay) + jitter;
                self.plan(at, to, Happening::Arrive(datagram.clone()));
            }
        }
    }

    fn arrive(&mut self, to: NodeId, datagram: Datagram) {
        let (now, length) = (self.now, datagram.bytes.len());
        let out = self.nodes[usize::from(to.0)].weather.as_mut().is_some_and(|w| w.is_out(now));
        let books = self.books.entry((datagram.from, to)).or_default();
        books.flying.subtract(length);
        if out {
            books.faded.add(length);
            return;
        }
        books.delivered.add(length);
        let Datagram { from, to: destination, port, sent, bytes, .. } = datagram;
        let group = match destination {
            Destination::Group(group) => Some(group),
            Destination::Node(_) => None,
        };
        self.outputs.push_back((to, Delivered { from, group, port, sent, bytes: bytes.to_vec() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{DatagramLoss, Fade, MemberConfig};

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);
    const C: NodeId = NodeId(2);
    const ALL: Destination = Destination::Group(Group(0));

    #[test]
    fn a_datagram_takes_its_time_at_the_rate_and_the_delay_of_the_path() {
        let mut lab = Lab::new(net(2));
        lab.send(0, A, Destination::Node(B), 1000);
        lab.send(0, A, Destination::Node(B), 500);
        // 8000 bit/s: one second, then half a second, and 250 ms on the way each.
        assert_eq!(lab.run(), [(1250, B, 1000), (1750, B, 500)]);
    }

    #[test]
    fn a_full_bucket_lets_a_burst_through_and_fills_again_at_the_rate() {
        let mut config = net(2);
        config.members[0].bucket_bytes = 1000;
        let mut lab = Lab::new(config);
        for _ in 0..3 {
            lab.send(0, A, Destination::Node(B), 500);
        }
        lab.send(2_000, A, Destination::Node(B), 1000);
        assert_eq!(lab.run(), [(250, B, 500), (250, B, 500), (750, B, 500), (2_250, B, 1000)]);
    }

    #[test]
    fn a_group_costs_the_sender_once_and_each_receiver_loses_its_own() {
        let mut config = net(12);
        config.paths.values_mut().for_each(|p| p.loss = DatagramLoss::Each { p: 0.5 });
        let mut lab = Lab::new(config);
        for _ in 0..64 {
            lab.send(0, A, ALL, 10);
        }
        let heard = lab.run();
        let got: Vec<Vec<u64>> =
            (1..12).map(|i| heard.iter().filter(|h| h.1 == NodeId(i)).map(|h| h.0).collect()).collect();
        assert!(got.iter().all(|g| (10..54).contains(&g.len())), "{got:?}");
        let mut different = got.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 11);
        // 64 datagrams of 10 ms each, and 250 ms.
        assert_eq!(heard.last().map(|h| h.0), Some(890));
    }

    #[test]
    fn what_is_lost_for_all_is_lost_at_every_receiver() {
        let config = NetConfig { shared_loss: DatagramLoss::of(0.5, Some(3.0)), ..net(3) };
        let mut lab = Lab::new(config);
        for _ in 0..50 {
            lab.send(0, A, ALL, 10);
        }
        let heard = lab.run();
        let at = |id| heard.iter().filter(|h| h.1 == id).map(|h| h.0).collect::<Vec<_>>();
        assert_eq!(at(B), at(C));
        assert!((5..45).contains(&at(B).len()), "{}", at(B).len());
    }

    #[test]
    fn another_node_shifts_no_loss() {
        let heard = |nodes: u16| {
            let mut config = net(nodes);
            config.paths.values_mut().for_each(|p| {
                p.loss = DatagramLoss::of(0.3, Some(2.0));
                p.jitter = Duration::from_millis(5);
            });
            let mut lab = Lab::new(config);
            (0..100).for_each(|i| lab.send(i * 20, A, ALL, 10));
            lab.run().into_iter().filter(|h| h.1 == B).collect::<Vec<_>>()
        };
        assert_eq!(heard(2), heard(5));
    }

    #[test]
    fn the_queue_drops_its_tail_and_the_transmitter_what_is_too_long() {
        let mut config = net(2);
        config.members[0] = MemberConfig { queue_bytes: 2500, mtu_bytes: 1000, ..config.members[0] };
        let mut lab = Lab::new(config);
        for size in [1000, 1000, 1000, 1001, 500] {
            lab.send(0, A, Destination::Node(B), size);
        }
        assert_eq!(lab.run().len(), 3);
        let stats = lab.net.stats(A, B);
        assert_eq!((stats.overflowed, stats.too_big.datagrams), (Count { datagrams: 1, bytes: 1000 }, 1));
    }

    #[test]
    fn a_diode_carries_one_way_only() {
        let mut config = net(2);
        config.paths.remove(&(B, A));
        let mut lab = Lab::new(config);
        lab.send(0, A, Destination::Node(B), 10);
        lab.send(0, B, Destination::Node(A), 10);
        assert_eq!(lab.run(), [(260, B, 10)]);
        assert_eq!(lab.net.stats(B, A).unreachable.datagrams, 1);
    }

    #[test]
    fn what_is_held_waits_for_the_contact_and_lets_others_pass() {
        let mut config = NetConfig { holds: true, ..net(3) };
        config.paths.get_mut(&(A, B)).expect("there").up = false;
        let slow = PathState { up: true, rate_bps: Some(4_000), delay: Some(Duration::ZERO), loss: None };
        config.plan = vec![
            Change { at: Instant::from_millis(10_000), from: A, to: B, state: slow },
            Change { at: Instant::from_millis(11_200), from: A, to: B, state: PathState::default() },
            Change { at: Instant::from_millis(20_000), from: A, to: B, state: PathState { up: true, ..slow } },
        ];
        let mut lab = Lab::new(config);
        lab.send(0, A, Destination::Node(B), 500);
        lab.send(0, A, Destination::Node(B), 500);
        lab.send(0, A, Destination::Node(C), 100);
        // One at half the rate before the contact ends; the other begins in it and earns nothing that outlasts it.
        assert_eq!(lab.run(), [(350, C, 100), (11_000, B, 500), (21_000, B, 500)]);
    }

    #[test]
    fn what_is_not_held_is_lost_without_a_path() {
        let mut lab = Lab::new(net(2));
        lab.net.set_path(Instant::ZERO, A, B, PathState::default());
        lab.send(0, A, Destination::Node(B), 10);
        assert_eq!(lab.run(), []);
        assert_eq!(lab.net.stats(A, B).unreachable.datagrams, 1);
    }

    #[test]
    fn a_call_is_set_up_once_and_again_after_it_hung_up() {
        let setup = Duration::from_secs(10);
        let mut lab = Lab::new(NetConfig { setup, hangs_up: Duration::from_secs(30), ..net(2) });
        for at in [0, 5_000, 25_000, 60_000] {
            lab.send(at, A, Destination::Node(B), 1000);
        }
        assert_eq!(lab.run(), [(11_250, B, 1000), (12_250, B, 1000), (26_250, B, 1000), (71_250, B, 1000)]);
    }

    #[test]
    fn one_speaks_at_a_time_on_a_half_duplex_channel() {
        let config = NetConfig { half_duplex: true, turnaround: Duration::from_millis(300), ..net(3) };
        let mut lab = Lab::new(config);
        lab.send(0, A, Destination::Node(B), 1000);
        lab.send(1, B, Destination::Node(A), 1000);
        lab.send(2, B, Destination::Node(C), 1000);
        assert_eq!(lab.run(), [(1_250, B, 1000), (2_550, A, 1000), (3_550, C, 1000)]);
    }

    #[test]
    fn a_frame_delays_what_is_short_and_takes_nothing_from_the_rate() {
        let config = NetConfig { frame: Duration::from_secs(2), ..net(2) };
        let mut lab = Lab::new(config);
        // B's place is the middle of the frame.
        lab.send(0, B, Destination::Node(A), 10);
        for _ in 0..20 {
            lab.send(2_500, B, Destination::Node(A), 500);
        }
        let heard = lab.run();
        assert_eq!(heard[0], (1_250, A, 10));
        assert!(heard[1..].iter().all(|h| (h.0 - 1_250) % 2_000 == 0), "{heard:?}");
        // 10 000 bytes at 8000 bit/s: ten seconds, then the next place.
        assert_eq!(heard.last().map(|h| h.0), Some(13_250));
    }

    #[test]
    fn a_faded_site_neither_sends_nor_hears_and_the_others_do_not_notice() {
        let fade = Some(Fade { every: Duration::from_secs(60), lasts: Duration::from_secs(20) });
        let mut lab = Lab::new(NetConfig { fade, fades_at: [B].into(), seed: 3, ..net(3) });
        (0..600).for_each(|i| lab.send(i * 1000, A, ALL, 10));
        (0..600).for_each(|i| lab.send(600_000 + i * 1000, B, Destination::Node(C), 10));
        lab.run();
        assert_eq!(lab.net.stats(A, C).delivered.datagrams, 600);
        for ends in [(A, B), (B, C)] {
            let faded = lab.net.stats(ends.0, ends.1).faded.datagrams;
            assert!((50..300).contains(&faded), "{faded}");
        }
    }

    #[test]
    fn books_balance_at_every_step_whatever_is_sent() {
        for seed in 0..20 {
            let mut chance = Stream::new(seed, "books", 0);
            let mut config = NetConfig {
                seed,
                shared_loss: DatagramLoss::of(0.1, Some(2.0)),
                fade: Some(Fade { every: Duration::from_secs(20), lasts: Duration::from_secs(5) }),
                fades_at: [A, C].into(),
                half_duplex: chance.chance(0.3),
                turnaround: Duration::from_millis(chance.below(400)),
                setup: Duration::from_secs(chance.below(3)),
                hangs_up: Duration::from_secs(4),
                frame: Duration::from_millis(chance.below(2) * 700),
                holds: chance.chance(0.5),
                ..net(4)
            };
            config.paths.remove(&(B, A));
            config.members.iter_mut().for_each(|m| m.queue_bytes = 3000);
            let mut lab = Lab::new(config);
            for i in 0..300 {
                let ids: [NodeId; 2] = std::array::from_fn(|_| NodeId(chance.below(4) as u16));
                let to = if chance.chance(0.4) { ALL } else { Destination::Node(ids[1]) };
                lab.send(i * 100, ids[0], to, chance.below(1600) as usize);
                let state = PathState { up: chance.chance(0.7), ..PathState::default() };
                lab.net.set_path(Instant::from_millis(i * 100), ids[0], ids[1], state);
                lab.net.balance().expect("all accounted for");
            }
            lab.run();
            let all: u64 = lab.net.books().map(|(_, s)| s.delivered.datagrams).sum();
            assert!(all > 20, "{all}");
        }
    }

    /// `n` nodes that all reach each other at 8000 bit/s in 250 ms, all in one group.
    fn net(n: u16) -> NetConfig {
        let member = MemberConfig { rate_bps: 8_000, bucket_bytes: 0, queue_bytes: 100_000, mtu_bytes: 1500 };
        let delay = Duration::from_millis(250);
        let path = PathConfig { delay, jitter: Duration::ZERO, loss: DatagramLoss::Ideal, up: true };
        let ids = || (0..n).map(NodeId);
        NetConfig {
            seed: 1,
            members: vec![member; usize::from(n)],
            paths: ids().flat_map(|a| ids().filter(move |&b| a != b).map(move |b| ((a, b), path))).collect(),
            groups: vec![ids().collect()],
            ..NetConfig::default()
        }
    }

    struct Lab {
        net: PacketNet,
        heard: Vec<(u64, NodeId, usize)>,
    }

    impl Lab {
        fn new(config: NetConfig) -> Self {
            Self { net: PacketNet::new(config), heard: Vec::new() }
        }

        /// Steps up to that millisecond, then sends.
        fn send(&mut self, at: u64, from: NodeId, to: Destination, size: usize) {
            self.step_until(Instant::from_millis(at));
            self.net.send(Instant::from_millis(at), from, to, 7, &vec![0; size]);
        }

        fn step_until(&mut self, end: Instant) {
            while let Some(at) = self.net.next_timeout().filter(|&at| at <= end) {
                self.net.handle_timeout(at);
                while let Some((id, datagram)) = self.net.poll() {
                    self.heard.push((at.0 / 1_000_000, id, datagram.bytes.len()));
                }
            }
        }

        /// Steps until nothing is due; what was heard, at which millisecond, by whom, how long.
        fn run(&mut self) -> Vec<(u64, NodeId, usize)> {
            self.step_until(Instant(u64::MAX));
            self.net.balance().expect("all accounted for");
            self.heard.clone()
        }
    }
}
