//! Dynamic groups of P_MUL: stations that ask for groups, object, announce, join and leave, over a link that loses; what foreign and hostile
//! nodes say; and the octets of ACP 142.
//!
//! Time is virtual, chance is seeded. `ALDIS_SEEDS` sets how many seeds each storm takes.

#[path = "common/pcap.rs"]
mod pcap;
#[path = "common/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use aldis::bearer::pmul::{
    Checksum, Config, Destination, Dynamic, Event, GroupWord, Leave, Limits, MessageKey, NodeId, Outgoing, Pacer, Pdu,
    Peer, Port, Station, SubmitError, Timers, Transmit, Verdict, Way,
};
use aldis::time::{Duration, Instant, Now, Wall};
use aldis::units::Bps;
use aldis_sim::rng::Stream;
use data_encoding::HEXLOWER;

const AGREED: Ipv4Addr = Ipv4Addr::new(239, 9, 9, 9);
const CONTROL: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const RATE: Bps = Bps(64_000);
const DELAY: Duration = Duration::from_millis(270);
const MAX_PDU: usize = 1400;
const START: i64 = 1_800_000_000;
const HEADERS: u64 = 28;

fn address(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, i as u8 + 1)
}

fn node(i: usize) -> NodeId {
    address(i).into()
}

fn pool(groups: u8) -> Vec<Ipv4Addr> {
    (0..groups).map(|i| Ipv4Addr::new(239, 2, 3, i)).collect()
}

fn dynamic(groups: u8, nodes: usize) -> Dynamic {
    let timers = Timers::of(RATE, DELAY, MAX_PDU, nodes - 1);
    let (wait_for_reject, announce_delay) = Dynamic::waits(RATE, &timers, MAX_PDU, nodes - 1);
    Dynamic {
        control: CONTROL,
        pool: pool(groups),
        agreed: vec![AGREED],
        wait_for_reject,
        announce_delay,
        announce_count: 5,
        most_tries: 8,
        most_joined: 16,
        idle: Duration::from_secs(1800),
    }
}

fn station(i: usize, nodes: usize, groups: u8, seed: u64) -> Station {
    station_among(i, nodes, groups, seed, |_| None)
}

/// One that knows which groups were agreed for the others.
fn station_among(i: usize, nodes: usize, groups: u8, seed: u64, agreed: impl Fn(usize) -> Option<Ipv4Addr>) -> Station {
    let peer = |j| (node(j), Peer { addresses: vec![address(j)], group: agreed(j), ..Peer::default() });
    let config = Config {
        node: node(i),
        checksum: Checksum::Fletcher,
        max_pdu: MAX_PDU,
        timers: Timers::of(RATE, DELAY, MAX_PDU, nodes - 1),
        limits: Limits::default(),
        peers: (0..nodes).filter(|j| *j != i).map(peer).collect(),
        dynamic: Some(dynamic(groups, nodes)),
        seed: seed ^ i as u64,
    };
    Station::new(config, Pacer::new(RATE, MAX_PDU as u64))
}

/// Stations on one link: what goes to a group of the pool is heard by who has joined it, each with a loss of its own.
struct Net {
    stations: Vec<Station>,
    groups: u8,
    now: Now,
    flying: BTreeMap<(Instant, u64), (usize, Ipv4Addr, Transmit)>,
    sent: u64,
    loss: f64,
    seed: u64,
    /// Stations that send nothing and join nothing.
    mute: BTreeSet<usize>,
    joined: Vec<BTreeSet<Ipv4Addr>>,
    accepted: BTreeMap<(usize, MessageKey), u32>,
    /// Groups that were announced and not released, by sender and number, as a caller stores them.
    taken: BTreeMap<(usize, u32), (Ipv4Addr, u32)>,
    events: Vec<(Instant, usize, Event)>,
    captured: Vec<(Instant, usize, Transmit)>,
}

impl Net {
    fn new(nodes: usize, groups: u8, loss: f64, seed: u64) -> Self {
        Self {
            stations: (0..nodes).map(|i| station(i, nodes, groups, seed)).collect(),
            groups,
            now: Now { at: Instant::from_millis(1000), wall: Wall::from_seconds(START), set: true },
            flying: BTreeMap::new(),
            sent: 0,
            loss,
            seed,
            mute: BTreeSet::new(),
            joined: vec![BTreeSet::new(); nodes],
            accepted: BTreeMap::new(),
            taken: BTreeMap::new(),
            events: Vec::new(),
            captured: Vec::new(),
        }
    }

    fn out(&self, number: u32, to: &[usize], length: usize, seconds: u32, way: Way) -> Outgoing {
        Outgoing {
            number,
            priority: 6,
            expiry: self.now.wall.seconds() as u32 + seconds,
            way,
            destinations: to.iter().map(|j| Destination { node: node(*j), sequence: number }).collect(),
            payload: vec![7; length].into(),
            resumed: false,
        }
    }

    fn submit(&mut self, from: usize, number: u32, to: &[usize], length: usize, way: Way) {
        let out = self.out(number, to, length, 86_400, way);
        self.stations[from].submit(self.now, out).expect("taken");
        self.drain(from);
    }

    fn drain(&mut self, i: usize) {
        self.hear(i);
        while !self.mute.contains(&i) {
            let Some(transmit) = self.stations[i].poll_transmit(self.now) else { break };
            self.fly(i, transmit);
        }
        self.hear(i);
        if !self.mute.contains(&i) {
            self.joined[i] = self.stations[i].groups();
        }
    }

    fn hear(&mut self, i: usize) {
        while let Some(event) = self.stations[i].poll_event() {
            match &event {
                Event::Whole { message, .. } => {
                    *self.accepted.entry((i, *message)).or_default() += 1;
                    self.stations[i].settle(self.now, *message, Verdict::Accepted);
                }
                Event::GroupTaken { number, group, expiry } => {
                    self.taken.insert((i, *number), (*group, *expiry));
                }
                Event::GroupReleased { number } => _ = self.taken.remove(&(i, *number)),
                _ => {}
            }
            self.events.push((self.now.at, i, event));
        }
    }

    fn fly(&mut self, from: usize, transmit: Transmit) {
        assert!(transmit.bytes.len() <= MAX_PDU);
        self.sent += 1;
        self.captured.push((self.now.at, from, transmit.clone()));
        let arrival = self.now.at + RATE.airtime(transmit.bytes.len() as u64 + HEADERS) + DELAY;
        for to in (0..self.stations.len()).filter(|to| *to != from) {
            if !transmit.to.is_multicast() && transmit.to != address(to) {
                continue;
            }
            if !Stream::keyed(self.seed, "loss", &[from as u64, to as u64, self.sent]).chance(self.loss) {
                let key = (arrival, self.sent * 1000 + to as u64);
                self.flying.insert(key, (to, address(from), transmit.clone()));
            }
        }
    }

    fn run(&mut self, until: Duration) {
        let end = self.now.at + until;
        (0..self.stations.len()).for_each(|i| self.drain(i));
        loop {
            let timers = self.stations.iter().enumerate().filter_map(|(i, s)| match self.mute.contains(&i) {
                true => s.next_deadline(self.now).map(|at| (at, i)),
                false => s.next_timeout().map(|at| (at, i)),
            });
            let timer = timers.min();
            let arrival = self.flying.keys().next().copied();
            let next = [timer.map(|t| t.0), arrival.map(|a| a.0)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { return self.go_to(end) };
            self.go_to(next.max(self.now.at));
            let arrived = arrival.filter(|a| a.0 <= self.now.at).and_then(|key| self.flying.remove(&key));
            if let Some((to, from, transmit)) = arrived {
                if !pool(self.groups).contains(&transmit.to) || self.joined[to].contains(&transmit.to) {
                    self.stations[to].handle_datagram(self.now, from, &transmit.bytes);
                }
                self.drain(to);
            } else if let Some((_, i)) = timer {
                self.stations[i].handle_timeout(self.now);
                self.drain(i);
            }
        }
    }

    fn go_to(&mut self, at: Instant) {
        let step = at.since(self.now.at);
        self.now = Now { at, wall: Wall(self.now.wall.0 + step.as_millis() as i64), set: true };
    }

    /// Hands a PDU to a station, as if it had come from another.
    fn tell(&mut self, to: usize, from: usize, pdu: &Pdu) {
        let bytes = pdu.emit(Checksum::Fletcher, Default::default()).expect("short");
        self.stations[to].handle_datagram(self.now, address(from), &bytes);
        self.hear(to);
    }

    /// What was sent, in words: who, and what.
    fn words(&self) -> Vec<(usize, &'static str)> {
        self.captured.iter().map(|(_, from, t)| (*from, word(t))).collect()
    }

    fn count(&self, from: usize, what: &str) -> usize {
        self.words().into_iter().filter(|(i, w)| *i == from && *w == what).count()
    }

    /// The groups that were asked for, in order.
    fn asked(&self, from: usize) -> Vec<Ipv4Addr> {
        let own = self.captured.iter().filter(|(_, i, t)| *i == from && word(t) == "request");
        own.map(|(_, _, t)| group_of(&t.bytes)).collect()
    }

    fn once(&self, from: usize, number: u32, to: &[usize]) {
        let key = MessageKey { source: node(from), number };
        let what = format!("seed {}: {number} of {from}", self.seed);
        for i in 0..self.stations.len() {
            let wanted = to.contains(&i).then_some(&1);
            assert_eq!(self.accepted.get(&(i, key)), wanted, "{what} at {i}");
        }
        let done = |e: &Event| matches!(e, Event::Done { number: n, .. } if *n == number);
        assert_eq!(self.events.iter().filter(|(_, i, e)| *i == from && done(e)).count(), 1, "{what}");
    }

    fn nobody_is_left(&self) {
        for (i, station) in self.stations.iter().enumerate() {
            assert_eq!(station.groups(), BTreeSet::new(), "seed {}: {i}", self.seed);
        }
        assert_eq!(self.taken, BTreeMap::new(), "seed {}", self.seed);
    }
}

fn word(transmit: &Transmit) -> &'static str {
    let pdu = Pdu::parse(&transmit.bytes).expect("our own");
    let (word, port) = match pdu {
        Pdu::Address(a) if a.destinations.is_empty() => ("ack-ack", Port::Data),
        Pdu::Address(_) => ("address", Port::Data),
        Pdu::Data { .. } => ("data", Port::Data),
        Pdu::Discard { .. } => ("discard", Port::Data),
        Pdu::Ack(_) => ("ack", Port::Ack),
        Pdu::Announce { .. } => ("announce", Port::Announce),
        Pdu::Group { word: GroupWord::Request, .. } => ("request", Port::Control),
        Pdu::Group { word: GroupWord::Reject, .. } => ("reject", Port::Control),
        Pdu::Group { word: GroupWord::Release, .. } => ("release", Port::Control),
    };
    assert_eq!(transmit.port, port, "{word}");
    word
}

fn group_of(bytes: &[u8]) -> Ipv4Addr {
    match Pdu::parse(bytes).expect("our own") {
        Pdu::Announce { group, .. } | Pdu::Group { group, .. } => group,
        other => panic!("{other:?} names no group"),
    }
}

fn word_of(word: GroupWord, from: usize, number: u32, group: Ipv4Addr) -> Pdu {
    Pdu::Group { word, message: MessageKey { source: node(from), number }, group }
}

fn announce(from: usize, number: u32, group: Ipv4Addr, expiry: u32, to: &[usize]) -> Pdu {
    let message = MessageKey { source: node(from), number };
    Pdu::announce(message, expiry, group, to.iter().map(|i| node(*i)).collect(), MAX_PDU).remove(0)
}

/// The internet checksum anew.
fn sum(pdu: &mut [u8]) {
    pdu[6..8].fill(0);
    let mut sum: u32 = pdu.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    pdu[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

fn seeds() -> u64 {
    std::env::var("ALDIS_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20)
}

const LATER: u32 = START as u32 + 86_400;

#[test]
fn a_group_is_asked_for_announced_used_and_released() {
    let mut net = Net::new(4, 8, 0.0, 1);
    net.submit(0, 1, &[1, 2], 4000, Way::Asked(Vec::new()));
    net.run(Duration::from_secs(60));
    net.once(0, 1, &[1, 2]);
    net.nobody_is_left();
    let own: Vec<&str> = net.words().into_iter().filter(|(i, _)| *i == 0).map(|(_, w)| w).collect();
    let expected = [&["request"][..], &["announce"; 5], &["address", "data", "data", "data", "ack-ack", "release"]];
    assert_eq!(own, expected.concat());
    // One group all along, of the pool; what is said of it goes to the control group, and never anything by the agreed one.
    let group = net.asked(0)[0];
    for (_, from, transmit) in &net.captured {
        let to = match word(transmit) {
            "ack" => address(0),
            "request" | "announce" | "release" => {
                assert_eq!(group_of(&transmit.bytes), group);
                CONTROL
            }
            _ => group,
        };
        assert_eq!(transmit.to, to, "{from}: {}", word(transmit));
    }
    // Nobody joined but who was named, and nobody before the announcement.
    assert!(net.events.iter().any(|(_, i, e)| *i == 0 && matches!(e, Event::GroupTaken { number: 1, .. })));
    let taken_at = net.captured.iter().find(|(_, _, t)| word(t) == "announce").expect("announced").0;
    let asked_at = net.captured[0].0;
    assert!(taken_at.since(asked_at) >= dynamic(8, 4).wait_for_reject);
}

#[test]
fn a_group_in_use_is_refused_by_a_word_to_who_asked() {
    let mut net = Net::new(4, 2, 0.0, 3);
    net.submit(0, 1, &[1], 60_000, Way::Asked(Vec::new()));
    net.run(Duration::from_secs(5));
    let first = net.asked(0)[0];
    assert_eq!(net.joined[1], BTreeSet::from([first]), "joined, and the message is on its way");
    // Somebody who does not know better asks for the same group; who uses it objects, the member as well as the sender.
    let asks = word_of(GroupWord::Request, 3, 77, first);
    for to in [0, 1, 2] {
        net.tell(to, 3, &asks);
    }
    net.run(Duration::from_secs(2));
    let rejects: Vec<&(Instant, usize, Transmit)> =
        net.captured.iter().filter(|(_, _, t)| word(t) == "reject").collect();
    assert_eq!(rejects.iter().map(|(_, i, _)| *i).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
    for (_, _, transmit) in &rejects {
        assert_eq!((transmit.to, transmit.port), (address(3), Port::Control));
        let Ok(Pdu::Group { word: GroupWord::Reject, message, group }) = Pdu::parse(&transmit.bytes) else { panic!() };
        assert_eq!((message, group), (MessageKey { source: node(3), number: 77 }, first), "as it was asked");
    }
    // The message's own sender may ask again, and what was agreed beforehand is nobody's to ask for.
    net.tell(1, 0, &word_of(GroupWord::Request, 0, 1, first));
    net.tell(2, 3, &word_of(GroupWord::Request, 3, 78, AGREED));
    net.run(Duration::from_secs(60));
    assert_eq!(net.count(1, "reject") + net.count(2, "reject"), 2);
    net.once(0, 1, &[1]);
    net.nobody_is_left();
}

#[test]
fn an_objection_makes_it_release_and_draw_another_and_one_behind_the_announcement_is_too_late() {
    for number_of_group in [false, true] {
        let mut net = Net::new(3, 8, 0.0, 5);
        net.submit(0, 1, &[1], 4000, Way::Asked(Vec::new()));
        let first = net.asked(0)[0];
        // libjpmul writes the address of who asked where the group should stand.
        let named = if number_of_group { first } else { address(0) };
        // Of another message, another group, and from nobody who is known: no objection.
        for (from, number, group) in [(2, 2, first), (2, 1, pool(8)[7]), (7, 1, first)] {
            let group = if group == first || group != pool(8)[7] { group } else { AGREED };
            net.tell(0, from, &word_of(GroupWord::Reject, 0, number, group));
        }
        net.drain(0);
        assert_eq!(net.asked(0), [first]);
        net.tell(0, 2, &word_of(GroupWord::Reject, 0, 1, named));
        net.drain(0);
        net.run(Duration::from_millis(100));
        let words: Vec<&str> = net.words().into_iter().map(|(_, w)| w).collect();
        assert_eq!(words, ["request", "release", "request"]);
        let asked = net.asked(0);
        assert_ne!(asked[0], asked[1]);
        net.run(dynamic(8, 3).wait_for_reject + Duration::from_millis(500));
        assert!(net.count(0, "announce") > 0);
        net.tell(0, 2, &word_of(GroupWord::Reject, 0, 1, asked[1]));
        net.run(Duration::from_secs(60));
        assert_eq!(net.asked(0).len(), 2, "too late");
        assert!(net.stations[0].counts().of("late_reject") >= 1);
        net.once(0, 1, &[1]);
        net.nobody_is_left();
    }
}

/// Pools so small that senders meet, at the same moment and later.
#[test]
fn senders_that_draw_the_same_group_all_get_their_messages_through() {
    let (mut met, mut refused) = (0, 0);
    for seed in 0..seeds() {
        for groups in [1, 2, 3] {
            for loss in [0.0, 0.05, 0.3] {
                let mut net = Net::new(5, groups, loss, seed);
                for (from, to) in [(0, [2, 3, 4]), (1, [2, 3, 4]), (2, [0, 1, 3])] {
                    net.submit(from, 1, &to, 6000, Way::Asked(Vec::new()));
                }
                net.run(Duration::from_millis(1500));
                net.submit(3, 1, &[0, 1, 2], 3000, Way::Asked(Vec::new()));
                net.run(Duration::from_secs(40_000));
                for (from, to) in [(0, [2, 3, 4]), (1, [2, 3, 4]), (2, [0, 1, 3]), (3, [0, 1, 2])] {
                    net.once(from, 1, &to);
                }
                net.nobody_is_left();
                met += net.stations.iter().map(|s| s.counts().of("group_taken")).sum::<u64>();
                refused += (0..5).map(|i| net.count(i, "reject")).sum::<usize>();
                if loss == 0.0 {
                    at_no_time_two_on_one_group(&net);
                }
            }
        }
    }
    assert!(met > seeds() && refused > 0, "{met} met, {refused} refused");
}

/// Without loss no group carries two messages at once.
fn at_no_time_two_on_one_group(net: &Net) {
    let mut used: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    for (at, from, transmit) in &net.captured {
        match word(transmit) {
            "announce" => {
                let holder = *used.entry(group_of(&transmit.bytes)).or_insert(*from);
                assert_eq!(holder, *from, "seed {}, {} groups, at {at:?}", net.seed, net.groups);
            }
            "release" => _ = used.remove(&group_of(&transmit.bytes)),
            _ => {}
        }
    }
}

#[test]
fn storms_of_loss_deliver_once_and_leave_nobody_in_a_group() {
    for seed in 0..seeds() {
        let mut chance = Stream::new(seed, "groups", 0);
        let mut net = Net::new(4, 3, chance.unit() * 0.4, seed);
        let mut sent = Vec::new();
        for number in 1..=6 {
            let from = chance.below(4) as usize;
            let to: Vec<usize> = (0..4).filter(|i| *i != from && chance.chance(0.7)).collect();
            if to.is_empty() {
                continue;
            }
            let way = match chance.below(4) {
                0 => Way::AtOnce,
                1 => Way::Asked(vec![AGREED]),
                2 => Way::Agreed(vec![AGREED]),
                _ => Way::Asked(Vec::new()),
            };
            net.submit(from, number, &to, 100 + chance.below(9000) as usize, way);
            sent.push((from, number, to));
            net.run(Duration::from_millis(chance.below(4000)));
        }
        net.run(Duration::from_secs(80_000));
        for (from, number, to) in sent {
            net.once(from, number, &to);
        }
        net.nobody_is_left();
    }
}

#[test]
fn what_cannot_wait_is_announced_at_once_and_what_has_an_agreed_group_takes_it() {
    let mut net = Net::new(3, 4, 0.0, 2);
    net.submit(0, 1, &[1, 2], 500, Way::AtOnce);
    net.run(Duration::from_secs(30));
    assert_eq!(net.count(0, "request"), 0);
    let first = |what: &str| net.captured.iter().find(|(_, _, t)| word(t) == what).expect(what).0;
    assert!(first("data").since(Instant::from_millis(1000)) <= DELAY * 2 + Duration::from_millis(300));
    net.once(0, 1, &[1, 2]);
    net.nobody_is_left();

    // An operator's hand turns a message that has asked into one that cannot wait.
    for (way, announces) in [(Way::Asked(Vec::new()), 5), (Way::Asked(vec![AGREED]), 0)] {
        let mut net = Net::new(3, 4, 0.0, 2);
        net.submit(0, 1, &[1, 2], 500, way);
        net.run(Duration::from_millis(200));
        let before = net.now.at;
        net.stations[0].hurry(net.now, 1);
        net.run(Duration::from_secs(30));
        let data = net.captured.iter().find(|(_, _, t)| word(t) == "data").expect("data");
        assert!(data.0.since(before) <= DELAY * 2 + Duration::from_millis(300));
        assert_eq!(data.2.to == AGREED, announces == 0);
        assert_eq!((net.count(0, "request"), net.count(0, "announce"), net.count(0, "release")), (1, announces, 1));
        net.once(0, 1, &[1, 2]);
        net.nobody_is_left();
    }
}

#[test]
fn without_a_free_group_what_was_agreed_serves_and_otherwise_it_waits() {
    let mut net = Net::new(4, 1, 0.0, 9);
    net.submit(1, 1, &[2], 100_000, Way::Asked(Vec::new()));
    net.run(Duration::from_secs(6));
    // It knows from the announcement that the only one is taken.
    net.submit(0, 1, &[2, 3], 500, Way::Asked(vec![AGREED]));
    net.submit(0, 2, &[2, 3], 500, Way::Asked(Vec::new()));
    net.run(Duration::from_secs(4));
    net.once(0, 1, &[2, 3]);
    assert_eq!(net.count(0, "request"), 0);
    assert!(!net.accepted.contains_key(&(2, MessageKey { source: node(0), number: 2 })));
    assert!(net.stations[0].counts().of("no_free_group") >= 2);
    net.run(Duration::from_secs(600));
    net.once(1, 1, &[2]);
    net.once(0, 2, &[2, 3]);
    net.nobody_is_left();
    // Two agreed ones, because the receivers have none in common: everything goes to both.
    let mut net = Net::new(3, 1, 0.0, 9);
    let other = Ipv4Addr::new(239, 9, 9, 8);
    net.submit(0, 1, &[1, 2], 3000, Way::Agreed(vec![AGREED, other]));
    net.run(Duration::from_secs(60));
    net.once(0, 1, &[1, 2]);
    for group in [AGREED, other] {
        let to: Vec<&str> = net.captured.iter().filter(|(_, _, t)| t.to == group).map(|(_, _, t)| word(t)).collect();
        assert_eq!(to, ["address", "data", "data", "data", "ack-ack"], "{group}");
    }
    let nowhere = net.out(5, &[1], 10, 60, Way::Agreed(Vec::new()));
    assert_eq!(net.stations[0].submit(net.now, nowhere), Err(SubmitError::NoGroup));
}

#[test]
fn of_several_agreed_groups_each_was_sent_what_only_the_others_lacked() {
    let other = Ipv4Addr::new(239, 9, 9, 8);
    let agreed = |j: usize| if j == 1 { AGREED } else { other };
    let named = |net: &Net, group: Ipv4Addr| -> BTreeSet<NodeId> {
        let to = net.captured.iter().filter(|(_, _, t)| t.to == group && word(t) == "address");
        let destinations = |t: &Transmit| match Pdu::parse(&t.bytes) {
            Ok(Pdu::Address(a)) => a.destinations,
            other => panic!("{other:?}"),
        };
        to.flat_map(|(_, _, t)| destinations(t)).map(|d| d.node).collect()
    };
    let count = |net: &Net, group: Ipv4Addr, what: &str| {
        net.captured.iter().filter(|(_, _, t)| t.to == group && word(t) == what).count()
    };
    // Agreed from the first, and because no dynamic group was to be had.
    for (groups, way) in [(1, Way::Agreed(vec![AGREED, other])), (0, Way::Asked(vec![AGREED, other]))] {
        let mut net = Net::new(4, groups, 0.0, 9);
        net.stations[0] = station_among(0, 4, groups, 9, |j| Some(agreed(j)));
        // One of three hears it and does not answer.
        net.mute.insert(1);
        net.submit(0, 1, &[1, 2, 3], 3000, way);
        net.run(Duration::from_secs(40));
        assert_eq!(named(&net, AGREED), [node(1)].into(), "{groups}");
        assert_eq!(named(&net, other), [node(2), node(3)].into(), "{groups}");
        assert_eq!((count(&net, other, "address"), count(&net, other, "data")), (1, 3), "{groups}");
        assert!(
            count(&net, AGREED, "address") > 2 && count(&net, AGREED, "data") > 4,
            "it is asked, and sent the whole"
        );
        net.mute.clear();
        net.run(Duration::from_secs(600));
        net.once(0, 1, &[1, 2, 3]);
        assert_eq!((count(&net, AGREED, "ack-ack"), count(&net, other, "ack-ack")), (1, 1), "{groups}");
    }
    // Where much is lost on both everybody has it in the end, and nobody is spoken to on the group of another.
    for seed in 0..40 {
        let mut net = Net::new(4, 1, 0.3, seed);
        net.stations[0] = station_among(0, 4, 1, seed, |j| Some(agreed(j)));
        net.submit(0, 1, &[1, 2, 3], 12_000, Way::Agreed(vec![AGREED, other]));
        net.run(Duration::from_secs(3600));
        net.once(0, 1, &[1, 2, 3]);
        assert_eq!((named(&net, AGREED), named(&net, other)), ([node(1)].into(), [node(2), node(3)].into()));
        net.nobody_is_left();
    }
}

#[test]
fn who_is_silent_joins_nothing_and_objects_to_nothing_and_is_told_again_afterwards() {
    let mut net = Net::new(3, 4, 0.0, 4);
    net.mute.insert(1);
    net.submit(0, 1, &[1, 2], 3000, Way::Asked(Vec::new()));
    net.run(Duration::from_secs(30));
    let group = net.asked(0)[0];
    assert_eq!(net.stations[1].groups(), BTreeSet::from([group]), "it would join if it might");
    assert!(net.joined[1].is_empty() && !net.accepted.keys().any(|(i, _)| *i == 1));
    net.tell(1, 2, &word_of(GroupWord::Request, 2, 9, group));
    net.run(Duration::from_secs(60));
    assert_eq!(net.count(1, "reject"), 0);
    assert_eq!(net.stations[1].counts().of("reject_unsent"), 1, "afterwards nobody listens for it");
    net.mute.clear();
    net.run(Duration::from_secs(4000));
    assert_eq!(net.count(1, "reject"), 0);
    net.once(0, 1, &[1, 2]);
    net.nobody_is_left();
}

#[test]
fn a_receiver_that_restarts_is_told_again_with_the_next_question() {
    for when in (0..9000).step_by(487) {
        let mut net = Net::new(3, 4, 0.05, when);
        net.submit(0, 1, &[1, 2], 30_000, Way::Asked(Vec::new()));
        net.run(Duration::from_millis(when));
        net.stations[2] = station(2, 3, 4, when);
        net.joined[2].clear();
        let message = MessageKey { source: node(0), number: 1 };
        if net.accepted.contains_key(&(2, message)) {
            let now = net.now;
            net.stations[2].restore_accepted(now, message, (LATER, 6), true);
        }
        net.run(Duration::from_secs(40_000));
        net.once(0, 1, &[1, 2]);
        net.nobody_is_left();
    }
}

#[test]
fn a_sender_that_restarts_releases_what_it_had_and_asks_anew() {
    for when in (0..12_000).step_by(487) {
        let mut net = Net::new(3, 4, 0.05, when);
        let message = net.out(1, &[1, 2], 30_000, 86_400, Way::Asked(Vec::new()));
        net.stations[0].submit(net.now, message.clone()).expect("taken");
        net.run(Duration::from_millis(when));
        let confirmed = |i: usize| {
            net.events.iter().any(|(_, _, e)| matches!(e, Event::Confirmed { node: n, .. } if *n == node(i)))
        };
        let open: Vec<Destination> = message
            .destinations
            .iter()
            .filter(|d| ![1, 2].iter().any(|i| node(*i) == d.node && confirmed(*i)))
            .copied()
            .collect();
        let (held, sent) = (net.taken.get(&(0, 1)).copied(), net.captured.len());
        net.stations[0] = station(0, 3, 4, when);
        if let Some((group, expiry)) = held {
            net.stations[0].restore_group(1, group, expiry);
        }
        let done = open.is_empty();
        if !done {
            let out = Outgoing { destinations: open, resumed: true, ..message };
            net.stations[0].submit(net.now, out).expect("taken");
        }
        net.run(Duration::from_secs(40_000));
        let after: Vec<&str> =
            net.captured[sent..].iter().filter(|(_, i, _)| *i == 0).map(|(_, _, t)| word(t)).collect();
        let expected: &[&str] = match (held.is_some(), done) {
            (true, false) => &["release", "request"],
            (true, true) => &["release"],
            (false, false) => &["request"],
            (false, true) => &[],
        };
        assert!(after.starts_with(expected), "at {when}: {after:?}");
        for i in [1, 2] {
            assert_eq!(net.accepted.get(&(i, MessageKey { source: node(0), number: 1 })), Some(&1), "at {when}");
        }
        net.nobody_is_left();
    }
}

#[test]
fn a_life_that_ends_early_ends_its_group() {
    // Before there is a group nobody is told anything; afterwards a discard, and a release behind it.
    for (seconds, heard) in [(1, &["request", "release"][..]), (1000, &["discard", "release"])] {
        let mut net = Net::new(3, 4, 0.0, 6);
        net.mute.insert(1);
        let out = net.out(1, &[1], 3000, seconds, Way::Asked(Vec::new()));
        net.stations[0].submit(net.now, out).expect("taken");
        net.run(Duration::from_secs(4000));
        let words: Vec<&str> = net.words().into_iter().map(|(_, w)| w).collect();
        assert!(words.ends_with(heard), "{words:?}");
        assert!(net.events.iter().any(|(_, _, e)| matches!(e, Event::Unconfirmed { number: 1, .. })));
        assert!(net.events.iter().any(|(_, _, e)| matches!(e, Event::Done { number: 1, .. })));
        net.nobody_is_left();
    }
    // Given up by its sender, at any time.
    for when in (0..9000).step_by(311) {
        let mut net = Net::new(3, 4, 0.0, 6);
        net.submit(0, 1, &[1, 2], 60_000, Way::Asked(Vec::new()));
        net.run(Duration::from_millis(when));
        assert_eq!(net.stations[0].cancel(1), [node(1), node(2)], "at {when}");
        net.run(Duration::from_secs(60));
        assert_eq!(net.count(0, "release"), 1, "at {when}");
        assert_eq!(net.events.iter().filter(|(_, _, e)| matches!(e, Event::Done { .. })).count(), 1, "at {when}");
        net.nobody_is_left();
    }
    // An order keeps the last word from leaving: it leaves afterwards, and the release behind it.
    let mut net = Net::new(2, 4, 0.0, 6);
    let out = net.out(1, &[1], 60_000, 100, Way::Asked(Vec::new()));
    net.stations[0].submit(net.now, out).expect("taken");
    net.run(Duration::from_secs(3));
    net.mute.insert(0);
    net.stations[0].cancel(1);
    let nothing = Leave { answers: None, messages: |_: u32| false };
    assert_eq!(net.stations[0].next(net.now, &nothing), None);
    // A release of before a restart that may not leave while its message lives need not be said at all.
    net.stations[0].restore_group(7, pool(4)[3], net.now.wall.seconds() as u32 + 100);
    net.run(Duration::from_secs(200));
    assert_eq!((net.count(0, "release"), net.stations[0].counts().of("release_unsent")), (0, 1));
    net.mute.clear();
    net.run(Duration::from_secs(60));
    assert!(net.words().ends_with(&[(0, "discard"), (0, "release")]));
    assert_eq!((net.count(0, "release"), net.taken.len()), (1, 0));
}

#[test]
fn hostile_words_are_counted_and_hold_nothing() {
    let mut net = Net::new(3, 64, 0.0, 8);
    let forever = u32::MAX;
    // Unknown, or known and from elsewhere; groups that are not the net's; messages that have ended.
    net.tell(0, 9, &announce(9, 1, pool(64)[1], forever, &[0]));
    net.tell(0, 9, &announce(1, 1, pool(64)[1], forever, &[0]));
    net.tell(0, 1, &announce(1, 1, AGREED, forever, &[0]));
    net.tell(0, 1, &announce(1, 1, Ipv4Addr::new(10, 0, 0, 9), forever, &[0]));
    net.tell(0, 1, &announce(1, 1, pool(64)[1], START as u32 - 1, &[0]));
    net.tell(0, 1, &announce(1, 1, pool(64)[1], forever, &[2]));
    assert_eq!(net.stations[0].groups(), BTreeSet::new());
    let count = |net: &Net, what: &str| net.stations[0].counts().of(what);
    assert_eq!((count(&net, "unknown_source"), count(&net, "group_not_in_pool"), count(&net, "expired")), (2, 2, 1));
    // A count of destinations that the PDU does not hold.
    let mut absurd =
        announce(1, 1, pool(64)[1], forever, &[0]).emit(Checksum::Internet, Default::default()).expect("short");
    absurd[4..6].copy_from_slice(&u16::MAX.to_be_bytes());
    sum(&mut absurd);
    net.stations[0].handle_datagram(net.now, address(1), &absurd);
    assert_eq!(count(&net, "cut"), 1);
    // A flood from a node that is known: no more than the bound, and not for ever.
    for number in 0..20_000 {
        net.tell(0, 1, &announce(1, number, pool(64)[number as usize % 64], forever, &[0]));
        net.tell(0, 2, &word_of(GroupWord::Request, 2, number, pool(64)[number as usize % 64]));
    }
    assert_eq!(net.stations[0].groups().len(), 16);
    assert_eq!(count(&net, "too_many_groups"), 20_000 - 16);
    assert!(count(&net, "reject_unsent") > 4000);
    net.run(Duration::from_secs(60));
    assert_eq!(net.count(0, "reject"), 32, "objections are bounded too");
    net.run(Duration::from_secs(1800));
    assert_eq!((net.stations[0].groups(), count(&net, "group_idle")), (BTreeSet::new(), 16));
    // A peer that objects to everything: so many tries, and then a rest that grows.
    let mut net = Net::new(3, 64, 0.0, 8);
    net.submit(0, 1, &[1], 500, Way::Asked(Vec::new()));
    for _ in 0..1000 {
        net.tell(0, 2, &word_of(GroupWord::Reject, 0, 1, net.asked(0).last().copied().expect("asked")));
        net.run(Duration::from_millis(100));
    }
    assert!(net.asked(0).len() <= 8 * 12, "{} requests in 100 s", net.asked(0).len());
    assert!(net.accepted.is_empty());
    net.run(Duration::from_secs(3600));
    net.once(0, 1, &[1]);
    net.nobody_is_left();
}

/// A station that knows of no dynamic groups counts what is said of them.
#[test]
fn without_a_pool_nothing_is_joined_nor_asked() {
    let mut net = Net::new(2, 4, 0.0, 1);
    let peer = |j| (node(j), Peer { addresses: vec![address(j)], ..Peer::default() });
    let config = Config {
        node: node(0),
        checksum: Checksum::Fletcher,
        max_pdu: MAX_PDU,
        timers: Timers::of(RATE, DELAY, MAX_PDU, 1),
        limits: Limits::default(),
        peers: [peer(1)].into(),
        dynamic: None,
        seed: 1,
    };
    net.stations[0] = Station::new(config, Pacer::new(RATE, MAX_PDU as u64));
    net.tell(0, 1, &announce(1, 1, pool(4)[0], LATER, &[0]));
    net.tell(0, 1, &word_of(GroupWord::Request, 1, 1, pool(4)[0]));
    assert_eq!((net.stations[0].groups(), net.stations[0].counts().of("dynamic_group")), (BTreeSet::new(), 2));
    for way in [Way::Asked(Vec::new()), Way::AtOnce] {
        let out = net.out(1, &[1], 10, 60, way);
        assert_eq!(net.stations[0].submit(net.now, out), Err(SubmitError::NoGroup));
    }
    net.submit(0, 1, &[1], 10, Way::Asked(vec![AGREED]));
    assert!(net.captured.iter().all(|(_, _, t)| t.to == AGREED) && !net.captured.is_empty());
}

/// The vectors of docs/wire-pmul.md, heard and said by stations.
#[test]
fn stations_write_and_read_the_vectors() {
    let source = NodeId(0x0a01_0101);
    let group = Ipv4Addr::new(239, 2, 3, 4);
    let (number, expiry) = (0x0102_0304, 0x6b36_ec80);
    let member = |i: u8| NodeId(0x0a01_0100 + u32::from(i));
    let make = |own: NodeId| {
        let peer = |n: NodeId| (n, Peer { addresses: vec![Ipv4Addr::from_bits(n.0)], ..Peer::default() });
        let nodes = [source, member(2), member(3)].into_iter().filter(|n| *n != own);
        let config = Config {
            node: own,
            checksum: Checksum::Internet,
            max_pdu: MAX_PDU,
            timers: Timers::of(RATE, DELAY, MAX_PDU, 2),
            limits: Limits::default(),
            peers: nodes.map(peer).collect(),
            dynamic: Some(Dynamic { pool: vec![group], ..dynamic(0, 3) }),
            seed: 1,
        };
        Station::new(config, Pacer::new(RATE, MAX_PDU as u64))
    };
    let read = |hex: &str| HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal");
    let [announce, request, reject, release] = [
        "002000040002910c0a010101010203046b36ec80ef0203040a0101020a010103",
        "001400050000fed70a01010101020304ef020304",
        "001400060000fed60a01010101020304ef020304",
        "001400070000fed50a01010101020304ef020304",
    ]
    .map(read);
    let mut now = Now { at: Instant::from_millis(1000), wall: Wall::from_seconds(i64::from(expiry) - 1000), set: true };
    let mut sender = make(source);
    let destinations = [2, 3].map(|i| Destination { node: member(i), sequence: 1 }).to_vec();
    let way = Way::Asked(Vec::new());
    let out = Outgoing { number, priority: 4, expiry, way, destinations, payload: vec![1].into(), resumed: false };
    sender.submit(now, out).expect("taken");
    assert_eq!(sender.poll_transmit(now).map(|t| t.bytes), Some(request.clone()));
    now.at = sender.next_timeout().expect("it waits for objections");
    sender.handle_timeout(now);
    assert_eq!(sender.poll_transmit(now).map(|t| t.bytes), Some(announce.clone()));
    sender.cancel(number);
    assert_eq!(sender.poll_transmit(now).map(|t| t.bytes), Some(release.clone()));

    let mut receiver = make(member(2));
    let from = Ipv4Addr::from_bits(source.0);
    receiver.handle_datagram(now, from, &announce);
    assert_eq!(receiver.groups(), BTreeSet::from([group]));
    receiver.handle_datagram(now, from, &release);
    assert_eq!(receiver.groups(), BTreeSet::new());
    // A group that another uses.
    let mut holder = make(member(3));
    holder.handle_datagram(now, Ipv4Addr::from_bits(member(2).0), &{
        let message = MessageKey { source: member(2), number: 1 };
        let pdu = Pdu::announce(message, expiry, group, vec![member(3)], MAX_PDU).remove(0);
        pdu.emit(Checksum::Internet, Default::default()).expect("short")
    });
    holder.handle_datagram(now, from, &request);
    now.at = holder.next_timeout().expect("it objects");
    assert_eq!(holder.poll_transmit(now).map(|t| t.bytes), Some(reject.clone()));
    let mut sender = make(source);
    let destinations = vec![Destination { node: member(2), sequence: 1 }];
    let way = Way::Asked(vec![AGREED]);
    let out = Outgoing { number, priority: 4, expiry, way, destinations, payload: vec![1].into(), resumed: false };
    sender.submit(now, out).expect("taken");
    assert_eq!(sender.poll_transmit(now).map(|t| t.bytes), Some(request));
    sender.handle_datagram(now, Ipv4Addr::from_bits(member(3).0), &reject);
    assert_eq!(sender.poll_transmit(now).map(|t| t.bytes), Some(release));
    assert_eq!(sender.poll_transmit(now).map(|t| t.to), Some(AGREED), "there is no other in the pool");
}

#[test]
fn tshark_reads_every_word_about_groups() {
    if !process::have(&["tshark"]) {
        return;
    }
    let mut net = Net::new(4, 1, 0.1, 12);
    for from in [0, 1] {
        net.submit(from, 1, &[2, 3], 9000, Way::Asked(Vec::new()));
    }
    net.run(Duration::from_secs(4));
    let group = net.asked(0)[0];
    (0..4).filter(|i| *i != 3).for_each(|i| net.tell(i, 3, &word_of(GroupWord::Request, 3, 5, group)));
    net.run(Duration::from_secs(4000));
    let port = |t: &Transmit| match t.port {
        Port::Control => 2751,
        Port::Announce => 2752,
        Port::Data => 2753,
        Port::Ack => 2754,
    };
    let all: Vec<pcap::Datagram<'_>> = net
        .captured
        .iter()
        .map(|(_, from, t)| pcap::Datagram { from: address(*from), to: t.to, port: port(t), bytes: &t.bytes })
        .collect();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("groups.pcap").display().to_string();
    std::fs::write(&path, pcap::capture(&all)).expect("written");
    let rules = [2751, 2752, 2753, 2754].map(|port| format!("udp.port=={port},p_mul"));
    let tshark = |more: &[&str]| {
        let words: Vec<&str> = ["-r", &path].into_iter().chain(rules.iter().flat_map(|r| ["-d", r])).collect();
        let output = process::run(120, "tshark", &[&words[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let wrong = "p_mul.checksum_bad == 1 || _ws.malformed || p_mul.length.invalid || p_mul.seq_no.illegal || \
        p_mul.ack_length.invalid || !p_mul";
    assert_eq!(tshark(&["-Y", wrong]), "");
    let types: BTreeSet<String> =
        tshark(&["-T", "fields", "-e", "p_mul.pdu_type"]).lines().map(str::to_owned).collect();
    for kind in ["0", "1", "2", "4", "5", "6", "7"] {
        assert!(types.contains(kind), "{kind} of {types:?}");
    }
    let groups = tshark(&["-Y", "p_mul.pdu_type == 4", "-T", "fields", "-e", "p_mul.ann_mc_group"]);
    let numbered = |line: &str| line == group.to_bits().to_string() || line == group.to_string();
    assert!(!groups.is_empty() && groups.lines().all(numbered), "{groups}");
}

/// Any words about groups, from peers and under their names, at any time: bounded, deadlines lie ahead, and the rate is kept.
#[test]
fn any_words_about_groups_are_bounded() {
    for seed in 0..seeds() * 5 {
        let mut chance = Stream::new(seed, "words", 0);
        let mut net = Net::new(3, 6, 0.0, seed);
        for (number, way) in
            [(1, Way::Agreed(vec![AGREED])), (2, Way::Asked(Vec::new())), (3, Way::Asked(vec![AGREED]))]
        {
            let out = net.out(number, &[1, 2], 4000, 100_000, way);
            net.stations[0].submit(net.now, out).expect("taken");
        }
        let (begun, mut sent) = (net.now.at, 0);
        for _ in 0..2000 {
            let who = chance.below(4) as usize;
            let group = if chance.chance(0.9) { pool(6)[chance.below(6) as usize] } else { AGREED };
            let number = chance.below(30) as u32;
            let expiry = [0, START as u32 + 50, START as u32 + 5000, u32::MAX][chance.below(4) as usize];
            let pdu = match chance.below(6) {
                0 | 1 => {
                    announce(chance.below(3) as usize, number, group, expiry, &[0, 2][..1 + chance.below(2) as usize])
                }
                2 => word_of(GroupWord::Request, who.min(2), number, group),
                3 => word_of(GroupWord::Reject, 0, 1 + chance.below(4) as u32, group),
                4 => word_of(GroupWord::Release, who.min(2), number, group),
                _ => Pdu::Discard { priority: 4, message: MessageKey { source: node(who.min(2)), number } },
            };
            let bytes = pdu.emit(Checksum::Internet, Default::default()).expect("short");
            let mut now = net.now;
            now.set = chance.chance(0.9);
            net.stations[0].handle_datagram(now, address(who), &bytes);
            if chance.chance(0.1) {
                net.stations[0].set_silent(now, node(1), chance.chance(0.5));
            }
            for _ in 0..4 {
                net.stations[0].handle_timeout(now);
                while net.stations[0].poll_event().is_some() {}
                while let Some(transmit) = net.stations[0].poll_transmit(now) {
                    sent += transmit.bytes.len() as u64 + HEADERS;
                }
            }
            assert!(net.stations[0].groups().len() <= 6);
            assert!(net.stations[0].next_timeout().is_none_or(|at| at > now.at), "seed {seed}: busy");
            net.go_to(now.at + Duration::from_millis(1 << chance.below(13)));
        }
        let most = RATE.airtime(sent - MAX_PDU as u64 * 2);
        assert!(most <= net.now.at.since(begun), "seed {seed}: {sent} octets");
    }
}
