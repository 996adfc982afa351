//! P_MUL stations over a multicast link that loses: everybody gets everything once, and what it costs; what foreign peers do; hostile datagrams.
//!
//! Time is virtual, chance is seeded. `ALDIS_SEEDS` sets how many seeds each cell of the table takes.

#[path = "common/pcap.rs"]
mod pcap;
#[path = "common/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use aldis::bearer::pmul::{
    Ack, AckEntry, Address, Checksum, Config, Destination, EntrySource, Event, Limits, MessageKey, Missing, NodeId,
    Outgoing, Pacer, Part, Pdu, Peer, Port, Ranges, Station, SubmitError, Timers, Transmit, Verdict, Way,
};
use aldis::time::{Duration, Instant, Now, Wall};
use aldis::units::Bps;
use aldis_sim::rng::Stream;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 9, 9, 9);
const RATE: Bps = Bps(64_000);
const DELAY: Duration = Duration::from_millis(270);
const MAX_PDU: usize = 1400;
const START: i64 = 1_800_000_000;
const UDP: usize = 28;

fn address(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, (i / 200) as u8, (i % 200) as u8 + 1)
}

fn node(i: usize) -> NodeId {
    address(i).into()
}

fn config(i: usize, nodes: usize) -> Config {
    let peer = |j| (node(j), Peer { addresses: vec![address(j)], ..Peer::default() });
    Config {
        node: node(i),
        checksum: Checksum::Fletcher,
        max_pdu: MAX_PDU,
        timers: Timers::of(RATE, DELAY, MAX_PDU, nodes - 1),
        limits: Limits::default(),
        peers: (0..nodes).filter(|j| *j != i).map(peer).collect(),
        dynamic: None,
        seed: i as u64,
    }
}

fn station(i: usize, nodes: usize) -> Station {
    Station::new(config(i, nodes), Pacer::new(RATE, MAX_PDU as u64))
}

/// Stations on one link: what one sends to the group all others may hear, each with a loss of its own.
struct Net {
    stations: Vec<Station>,
    now: Now,
    /// Arrival, order, who, from whom, what.
    flying: BTreeMap<(Instant, u64), (usize, Ipv4Addr, Vec<u8>)>,
    sent: u64,
    loss: f64,
    seed: u64,
    /// Nobody hears anything in between.
    cut: (Instant, Instant),
    /// Stations that send nothing.
    mute: BTreeSet<usize>,
    bytes: u64,
    acks: u64,
    ack_times: Vec<Instant>,
    accepted: BTreeMap<(usize, u32), u32>,
    payloads: BTreeMap<u32, Arc<[u8]>>,
    events: Vec<(Instant, usize, Event)>,
    /// From whom, to whom, which port, what.
    captured: Vec<(Ipv4Addr, Transmit)>,
    /// Verdict given to whole messages.
    verdict: Verdict,
}

impl Net {
    fn new(nodes: usize, loss: f64, seed: u64) -> Self {
        Self {
            stations: (0..nodes).map(|i| station(i, nodes)).collect(),
            now: Now { at: Instant::from_millis(1000), wall: Wall::from_seconds(START), set: true },
            flying: BTreeMap::new(),
            sent: 0,
            loss,
            seed,
            cut: (Instant::ZERO, Instant::ZERO),
            mute: BTreeSet::new(),
            bytes: 0,
            acks: 0,
            ack_times: Vec::new(),
            accepted: BTreeMap::new(),
            payloads: BTreeMap::new(),
            events: Vec::new(),
            captured: Vec::new(),
            verdict: Verdict::Accepted,
        }
    }

    fn payload(&self, number: u32, length: usize) -> Arc<[u8]> {
        let mut bytes = vec![0; length];
        Stream::keyed(self.seed, "payload", &[number.into()]).fill(&mut bytes);
        bytes.into()
    }

    fn submit(&mut self, number: u32, priority: u8, length: usize, seconds: u32) {
        let payload = self.payload(number, length);
        self.payloads.insert(number, payload.clone());
        let to = 1..self.stations.len();
        let out = Outgoing {
            number,
            priority,
            expiry: self.now.wall.seconds() as u32 + seconds,
            way: Way::Agreed(vec![GROUP]),
            destinations: to.map(|j| Destination { node: node(j), sequence: number }).collect(),
            payload,
            resumed: false,
        };
        self.stations[0].submit(self.now, out).expect("taken");
    }

    fn go_to(&mut self, at: Instant) {
        let step = at.since(self.now.at);
        self.now = Now { at, wall: Wall(self.now.wall.0 + step.as_millis() as i64), set: self.now.set };
    }

    fn drain(&mut self, i: usize) {
        while let Some(event) = self.stations[i].poll_event() {
            if let Event::Whole { message, payload, .. } = &event {
                assert_eq!(payload, &self.payloads[&message.number], "spoilt");
                if self.verdict == Verdict::Accepted {
                    *self.accepted.entry((i, message.number)).or_default() += 1;
                }
                self.stations[i].settle(self.now, *message, self.verdict);
            }
            self.events.push((self.now.at, i, event));
        }
        while !self.mute.contains(&i) {
            let Some(transmit) = self.stations[i].poll_transmit(self.now) else { break };
            self.fly(i, transmit);
        }
        while let Some(event) = self.stations[i].poll_event() {
            self.events.push((self.now.at, i, event));
        }
    }

    fn fly(&mut self, from: usize, transmit: Transmit) {
        self.sent += 1;
        self.bytes += (transmit.bytes.len() + UDP) as u64;
        assert!(transmit.bytes.len() <= MAX_PDU);
        if transmit.port == Port::Ack {
            self.acks += 1;
            self.ack_times.push(self.now.at);
        }
        self.captured.push((address(from), transmit.clone()));
        let arrival = self.now.at + RATE.airtime((transmit.bytes.len() + UDP) as u64) + DELAY;
        for to in (0..self.stations.len()).filter(|to| *to != from) {
            if transmit.to != GROUP && transmit.to != address(to) {
                continue;
            }
            let lost = Stream::keyed(self.seed, "loss", &[from as u64, to as u64, self.sent]).chance(self.loss);
            if !lost && !(self.cut.0..self.cut.1).contains(&self.now.at) {
                let key = (arrival, self.sent * 1000 + to as u64);
                self.flying.insert(key, (to, address(from), transmit.bytes.clone()));
            }
        }
    }

    /// Runs until nothing happens any more, or until then; whether it came to rest.
    fn run(&mut self, until: Duration) -> bool {
        let end = self.now.at + until;
        (0..self.stations.len()).for_each(|i| self.drain(i));
        loop {
            let timers = self.stations.iter().enumerate().filter(|(i, _)| !self.mute.contains(i));
            let timer = timers.filter_map(|(i, s)| s.next_timeout().map(|at| (at, i))).min();
            let arrival = self.flying.keys().next().copied();
            let next = [timer.map(|t| t.0), arrival.map(|a| a.0)].into_iter().flatten().min();
            let Some(next) = next else { return true };
            if next > end {
                self.go_to(end);
                return false;
            }
            self.go_to(next.max(self.now.at));
            if let Some((key, (to, from, bytes))) =
                arrival.filter(|a| a.0 <= self.now.at).and_then(|key| self.flying.remove_entry(&key))
            {
                assert!(key.0 <= self.now.at);
                self.stations[to].handle_datagram(self.now, from, &bytes);
                self.drain(to);
            } else if let Some((_, i)) = timer {
                self.stations[i].handle_timeout(self.now);
                self.drain(i);
            }
        }
    }

    fn done_at(&self, number: u32) -> Option<Instant> {
        self.events
            .iter()
            .find_map(|(at, _, e)| matches!(e, Event::Done { number: n, .. } if *n == number).then_some(*at))
    }

    fn assert_all_once(&self, what: &str) {
        for number in self.payloads.keys() {
            for i in 1..self.stations.len() {
                assert_eq!(self.accepted.get(&(i, *number)), Some(&1), "{what}: message {number} at receiver {i}");
                let confirmed = |e: &Event| *e == Event::Confirmed { number: *number, node: node(i), late: false };
                assert_eq!(self.events.iter().filter(|(_, _, e)| confirmed(e)).count(), 1, "{what}: {number} of {i}");
            }
        }
    }
}

fn seeds() -> u64 {
    std::env::var("ALDIS_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2)
}

#[test]
fn everybody_gets_everything_once_whatever_is_lost() {
    println!("receivers loss | bytes on air / payload | acks / receiver | seconds");
    for receivers in [3, 10, 50] {
        for loss in [0.0, 0.05, 0.2, 0.3] {
            let (mut ratio, mut acks, mut seconds) = (0.0, 0.0, 0.0);
            for seed in 0..seeds() {
                let mut net = Net::new(receivers + 1, loss, seed);
                net.submit(1, 6, 100_000, 86_400);
                assert!(net.run(Duration::from_secs(80_000)), "no rest");
                let what = format!("{receivers} receivers, {loss}, seed {seed}");
                net.assert_all_once(&what);
                ratio += net.bytes as f64 / 100_000.0;
                acks += net.acks as f64 / receivers as f64;
                seconds += net.done_at(1).expect(&what).since(Instant::from_millis(1000)).as_secs_f64();
                assert_eq!(net.stations.iter().map(Station::held_bytes).sum::<usize>(), 0);
            }
            let n = seeds() as f64;
            println!("{receivers:9} {loss:4} | {:.2} | {:.2} | {:.1}", ratio / n, acks / n, seconds / n);
            // What repeats by name cost where each piece goes until the last receiver has it, and half as much again.
            let rounds: f64 = (0..200).map(|k| 1.0 - (1.0 - loss.powi(k)).powi(receivers as i32)).sum();
            assert!(ratio / n < rounds * 1.5 + 0.05 * receivers as f64, "{receivers}, {loss}: {}", ratio / n);
        }
    }
}

#[test]
fn a_cut_of_the_link_costs_its_time_and_little_air() {
    for seed in 0..seeds() {
        for (from, to) in [(2, 9), (0, 4), (12, 200), (13, 1000)] {
            let mut net = Net::new(4, 0.05, seed);
            net.cut = (Instant::from_millis(1000 + from * 1000), Instant::from_millis(1000 + to * 1000));
            net.submit(1, 6, 100_000, 86_400);
            assert!(net.run(Duration::from_secs(80_000)));
            net.assert_all_once(&format!("cut {from} to {to}, seed {seed}"));
            assert!(net.bytes < 400_000, "cut {from} to {to}: {} bytes", net.bytes);
        }
    }
}

#[test]
fn the_more_urgent_message_goes_first_and_all_arrive() {
    let mut net = Net::new(4, 0.1, 5);
    net.submit(1, 8, 60_000, 86_400);
    net.submit(2, 2, 10_000, 86_400);
    net.submit(3, 8, 0, 86_400);
    assert!(net.run(Duration::from_secs(80_000)));
    net.assert_all_once("three messages");
    let whole = |number| {
        let first =
            net.events.iter().find(|(_, _, e)| matches!(e, Event::Whole { message, .. } if message.number == number));
        first.expect("whole").0
    };
    assert!(whole(2) < whole(1));
}

#[test]
fn without_loss_each_pdu_leaves_once() {
    let mut net = Net::new(4, 0.0, 1);
    net.submit(1, 6, 10 * (MAX_PDU - 16), 86_400);
    assert!(net.run(Duration::from_secs(1000)));
    let sender = (24 + 3 * 8 + UDP) + 10 * (MAX_PDU + UDP) + (24 + UDP);
    assert_eq!(net.bytes, (sender + 3 * (24 + UDP)) as u64);
    assert_eq!(net.acks, 3);
}

#[test]
fn tshark_finds_nothing_wrong_with_an_exchange() {
    if !process::have(&["tshark"]) {
        return;
    }
    let mut net = Net::new(4, 0.2, 11);
    net.submit(1, 2, 60_000, 86_400);
    net.submit(2, 8, 2000, 86_400);
    net.submit(3, 8, 90_000, 9);
    assert!(net.run(Duration::from_secs(80_000)));
    let datagram = |(from, transmit): &'_ (Ipv4Addr, Transmit)| {
        let port = if transmit.port == Port::Data { 2753 } else { 2754 };
        (*from, transmit.to, port, transmit.bytes.clone())
    };
    let all: Vec<_> = net.captured.iter().map(datagram).collect();
    let all: Vec<_> =
        all.iter().map(|(from, to, port, bytes)| pcap::Datagram { from: *from, to: *to, port: *port, bytes }).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("exchange.pcap").display().to_string();
    std::fs::write(&path, pcap::capture(&all)).expect("written");
    let tshark = |more: &[&str]| {
        let words = ["-r", &path, "-d", "udp.port==2753,p_mul", "-d", "udp.port==2754,p_mul"];
        let output = process::run(120, "tshark", &[&words[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let wrong = "p_mul.checksum_bad == 1 || _ws.malformed || p_mul.length.invalid || p_mul.seq_no.illegal || \
        p_mul.ack_length.invalid || p_mul.missing_seq_range.invalid || p_mul.missing_seq_no.invalid";
    assert_eq!(tshark(&["-Y", wrong]), "");
    let types: BTreeSet<String> =
        tshark(&["-T", "fields", "-e", "p_mul.pdu_type"]).lines().map(str::to_owned).collect();
    assert_eq!(types.into_iter().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn answers_of_fifty_are_spread() {
    let mut net = Net::new(51, 0.2, 3);
    net.submit(1, 6, 100_000, 86_400);
    assert!(net.run(Duration::from_secs(80_000)));
    // In no second more of them than would fill a quarter of it.
    let most = net.ack_times.iter().map(|at| {
        net.ack_times.iter().filter(|other| **other >= *at && other.since(*at) < Duration::from_secs(1)).count()
    });
    let most = most.max().expect("answers");
    assert!(RATE.airtime(most as u64 * 80) < Duration::from_millis(700), "{most} in one second");
}

#[test]
fn a_receiver_in_silence_is_sent_the_whole_a_few_times_and_answers_days_later() {
    let mut net = Net::new(2, 0.3, 4);
    net.mute.insert(1);
    net.stations[0].set_silent(net.now, node(1), true);
    net.submit(1, 6, 20_000, 5 * 86_400);
    net.run(Duration::from_secs(86_400));
    assert_eq!(net.accepted.get(&(1, 1)), Some(&1), "whole after {} bytes", net.bytes);
    let sent = net.bytes;
    assert!((5 * 20_000..5 * 21_500).contains(&sent), "{sent}: once, and four times again");
    // Released: one acknowledgement, and nothing is repeated because of it.
    net.mute.clear();
    net.loss = 0.0;
    net.stations[0].set_silent(net.now, node(1), false);
    assert!(net.run(Duration::from_secs(3600)));
    net.assert_all_once("silence");
    assert_eq!(net.bytes - sent, 24 + 28 + 24 + 28, "the acknowledgement and the Ack-Ack");
}

#[test]
fn expiry_and_cancelling_leave_nothing_open_and_a_late_answer_counts() {
    let mut net = Net::new(3, 0.0, 6);
    net.mute.insert(2);
    net.submit(1, 6, 5000, 600);
    net.run(Duration::from_secs(3600));
    let unconfirmed: Vec<_> = net.events.iter().filter(|(_, _, e)| matches!(e, Event::Unconfirmed { .. })).collect();
    assert_eq!(unconfirmed.len(), 1);
    assert!(matches!(unconfirmed[0].2, Event::Unconfirmed { number: 1, node: who, silent: false } if who == node(2)));
    assert!(net.done_at(1).is_some());
    net.mute.clear();
    net.run(Duration::from_secs(60));
    let late = Event::Confirmed { number: 1, node: node(2), late: true };
    assert_eq!(net.events.iter().filter(|(_, _, e)| *e == late).count(), 1);
    // The same after a restart of the sender.
    let mut restarted = station(0, 3);
    restarted.restore_unconfirmed(7, START as u32 + 600, [node(2)]);
    let missing = Missing::default();
    let ack = ack(node(2), [(MessageKey { source: node(0), number: 7 }, missing)]);
    restarted.handle_datagram(net.now, address(2), &ack);
    restarted.handle_datagram(net.now, address(2), &ack);
    assert_eq!(restarted.poll_event(), Some(Event::Confirmed { number: 7, node: node(2), late: true }));
    assert_eq!(restarted.poll_event(), None);

    let mut net = Net::new(2, 0.0, 6);
    net.submit(1, 6, 50_000, 600);
    net.run(Duration::from_secs(2));
    assert_eq!(net.stations[0].cancel(1), [node(1)]);
    assert_eq!(net.stations[0].cancel(1), []);
    net.run(Duration::from_secs(30));
    assert!(net.events.iter().any(|(_, i, e)| *i == 1 && matches!(e, Event::Discarded { .. })));
    assert_eq!(net.stations[1].held_bytes(), 0);
    assert!(net.accepted.is_empty());
}

#[test]
fn restarts_of_either_side_lose_nothing_and_deliver_nothing_twice() {
    for when in (0..20_000).step_by(977) {
        for who in [0, 1, 2] {
            let mut net = Net::new(3, 0.1, when);
            net.submit(1, 6, 60_000, 86_400);
            net.run(Duration::from_millis(when));
            let done = net.done_at(1).is_some();
            net.stations[who] = station(who, 3);
            let expiry = START as u32 + 86_400;
            if who == 0 && !done {
                let confirmed = |i: usize| {
                    net.events.iter().any(|(_, _, e)| matches!(e, Event::Confirmed { node: n, .. } if *n == node(i)))
                };
                let destinations: Vec<_> = [1, 2]
                    .into_iter()
                    .filter(|i| !confirmed(*i))
                    .map(|i| Destination { node: node(i), sequence: 1 })
                    .collect();
                let payload = net.payloads[&1].clone();
                let out = Outgoing {
                    number: 1,
                    priority: 6,
                    expiry,
                    way: Way::Agreed(vec![GROUP]),
                    destinations,
                    payload,
                    resumed: true,
                };
                // With nobody left, the caller has nothing to hand in again.
                let taken = net.stations[0].submit(net.now, out);
                assert!(matches!(taken, Ok(()) | Err(SubmitError::NoDestination)));
            }
            if who > 0 && net.accepted.contains_key(&(who, 1)) {
                let message = MessageKey { source: node(0), number: 1 };
                let now = net.now;
                net.stations[who].restore_accepted(now, message, (expiry, 4), false);
            }
            net.run(Duration::from_secs(40_000));
            net.assert_all_once(&format!("restart of {who} at {when} ms"));
        }
    }
}

#[test]
fn before_the_clock_is_set_nothing_expires() {
    let mut net = Net::new(2, 0.0, 8);
    net.now.set = false;
    net.mute.insert(1);
    net.submit(1, 6, 3000, 60);
    net.run(Duration::from_secs(7200));
    assert!(!net.events.iter().any(|(_, _, e)| matches!(e, Event::Unconfirmed { .. })));
    net.mute.clear();
    net.run(Duration::from_secs(7200));
    net.assert_all_once("no clock");
}

#[test]
fn a_payload_that_cannot_be_taken_now_is_offered_again() {
    let mut net = Net::new(2, 0.0, 9);
    net.verdict = Verdict::Later;
    net.submit(1, 6, 3000, 86_400);
    net.run(Duration::from_secs(60));
    assert!(net.accepted.is_empty() && net.done_at(1).is_none());
    net.verdict = Verdict::Accepted;
    assert!(net.run(Duration::from_secs(20_000)));
    net.assert_all_once("later");
}

// ---- foreign peers, datagram by datagram

/// A receiver (1) and what its sender (0) says by hand.
struct Bench {
    station: Station,
    now: Now,
}

const KEY: MessageKey = MessageKey { source: NodeId(0x0a00_0001), number: 9 };

fn emit(pdu: &Pdu) -> Vec<u8> {
    pdu.emit(Checksum::Fletcher, Ranges::Written).expect("short")
}

fn ack(from: NodeId, entries: impl IntoIterator<Item = (MessageKey, Missing)>) -> Vec<u8> {
    let entries = entries.into_iter().map(|(message, missing)| AckEntry { message, missing }).collect();
    emit(&Pdu::Ack(Ack { priority: 6, from, entries, elapsed: None }))
}

impl Bench {
    fn new(i: usize) -> Self {
        Self::with(config(i, 3))
    }

    fn with(config: Config) -> Self {
        let now = Now { at: Instant::from_millis(1000), wall: Wall::from_seconds(START), set: true };
        Self { station: Station::new(config, Pacer::new(Bps(1_000_000), 65_536)), now }
    }

    fn hear(&mut self, from: usize, datagram: &[u8]) {
        self.station.handle_datagram(self.now, address(from), datagram);
    }

    fn address(&mut self, total: u16, to: &[usize]) {
        let to = to.iter().map(|i| Destination { node: node(*i), sequence: 1 }).collect();
        let mut pdu = Address::split(6, total, KEY, START as u32 + 3600, to, MAX_PDU);
        let pdu = pdu.pop().unwrap_or_else(|| Address::ack_ack(6, KEY, START as u32 + 3600));
        self.hear(0, &emit(&Pdu::Address(pdu)));
    }

    fn data(&mut self, sequence: u16) {
        let piece = vec![sequence as u8; 10];
        self.hear(0, &emit(&Pdu::Data { priority: 6, message: KEY, sequence, piece }));
    }

    /// Lets time pass; what leaves on the way.
    fn pass(&mut self, time: Duration) -> Vec<Pdu> {
        let end = self.now.at + time;
        let mut out = Vec::new();
        loop {
            while let Some(transmit) = self.station.poll_transmit(self.now) {
                out.push(Pdu::parse(&transmit.bytes).expect("our own"));
            }
            let next = self.station.next_timeout().filter(|at| *at <= end);
            let at = next.unwrap_or(end).max(self.now.at);
            self.now.wall = Wall(self.now.wall.0 + at.since(self.now.at).as_millis() as i64);
            self.now.at = at;
            if next.is_none() {
                return out;
            }
            self.station.handle_timeout(self.now);
        }
    }

    /// Accepts what is whole; its length.
    fn accept(&mut self) -> Option<usize> {
        while let Some(event) = self.station.poll_event() {
            if let Event::Whole { message, payload, .. } = event {
                self.station.settle(self.now, message, Verdict::Accepted);
                return Some(payload.len());
            }
        }
        None
    }

    fn send(&mut self, total: usize) {
        let destinations = [1, 2].map(|i| Destination { node: node(i), sequence: 1 }).to_vec();
        let payload = vec![7; total * (MAX_PDU - 16)].into();
        let expiry = START as u32 + 86_400;
        let out = Outgoing {
            number: 9,
            priority: 6,
            expiry,
            way: Way::Agreed(vec![GROUP]),
            destinations,
            payload,
            resumed: false,
        };
        self.station.submit(self.now, out).expect("taken");
    }

    fn confirmed(&mut self) -> Vec<NodeId> {
        let event = std::iter::from_fn(|| self.station.poll_event());
        event.filter_map(|e| if let Event::Confirmed { node, .. } = e { Some(node) } else { None }).collect()
    }
}

fn lists(pdus: &[Pdu]) -> Vec<Vec<u16>> {
    let entries = pdus.iter().filter_map(|p| if let Pdu::Ack(ack) = p { Some(&ack.entries) } else { None }).flatten();
    entries.map(|e| e.missing.iter().collect()).collect()
}

fn pieces(pdus: &[Pdu]) -> Vec<u16> {
    pdus.iter().filter_map(|p| if let Pdu::Data { sequence, .. } = p { Some(*sequence) } else { None }).collect()
}

const SOON: Duration = Duration::from_millis(1500);

#[test]
fn quirk_repeats_filled_up_with_zeros_are_read() {
    let mut bench = Bench::new(1);
    bench.address(2, &[1, 2]);
    let mut first = emit(&Pdu::Data { priority: 6, message: KEY, sequence: 1, piece: vec![1; 10] });
    first.resize(3840, 0);
    bench.hear(0, &first);
    bench.data(2);
    assert_eq!(bench.accept(), Some(20));
}

#[test]
fn quirk_a_total_that_counts_only_the_repeats_is_not_believed() {
    let mut bench = Bench::new(1);
    bench.address(5, &[1]);
    [1, 3, 5].into_iter().for_each(|n| bench.data(n));
    assert_eq!(lists(&bench.pass(SOON)), [[2, 4]]);
    bench.address(2, &[1]);
    bench.data(2);
    assert_eq!(bench.accept(), None);
    bench.data(4);
    assert_eq!(bench.accept(), Some(50));
    // The first address lost, and only that of a repeat heard: numbers beyond it say more.
    let mut bench = Bench::new(1);
    [1, 3, 5].into_iter().for_each(|n| bench.data(n));
    bench.address(2, &[1]);
    assert_eq!(bench.accept(), None);
    assert_eq!(lists(&bench.pass(SOON)), [[2, 4]]);
}

#[test]
fn quirk_an_entry_that_names_the_acknowledging_node_counts() {
    let mut bench = Bench::new(0);
    bench.send(2);
    bench.pass(SOON);
    bench.hear(1, &ack(node(1), [(MessageKey { source: node(1), number: 9 }, Missing::default())]));
    assert_eq!(bench.confirmed(), [node(1)]);
    // A third node's name is neither.
    bench.hear(2, &ack(node(2), [(MessageKey { source: node(1), number: 9 }, Missing::default())]));
    assert_eq!(bench.station.counts().of("ack_for_others"), 1);
    // Repeated under our own name: where it came from tells.
    bench.hear(2, &ack(node(0), [(MessageKey { source: node(2), number: 9 }, Missing::default())]));
    assert_eq!(bench.confirmed(), [node(2)]);
}

#[test]
fn quirk_such_a_peer_gets_entries_and_lists_as_it_reads_them() {
    let mut quirky = config(1, 3);
    let peer = quirky.peers.get_mut(&node(0)).expect("a peer");
    (peer.ranges, peer.entry_source) = (Ranges::Spelled, EntrySource::Acknowledger);
    let mut bench = Bench::with(quirky);
    bench.address(400, &[1]);
    bench.data(400);
    let mut answers = Vec::new();
    let end = bench.now.at + SOON;
    while bench.now.at < end {
        answers.extend(std::iter::from_fn(|| bench.station.poll_transmit(bench.now)).map(|t| t.bytes));
        bench.now.at += Duration::from_millis(100);
        bench.station.handle_timeout(bench.now);
    }
    let entry = &answers.first().expect("an answer")[14..];
    assert!(entry[0] == 0 && entry[1] >= 250, "one octet must do for its length: {entry:02x?}");
    assert_eq!(entry[2..6], node(1).0.to_be_bytes());
    assert!(entry[10..].chunks(2).all(|value| value != [0, 0]), "a range");
    let Ok(Pdu::Ack(read)) = Pdu::parse(&answers[0]) else { panic!("no Ack") };
    assert!(read.entries[0].missing.has_more());
}

#[test]
fn quirk_no_ack_ack_ever_comes_and_nothing_is_said_twice() {
    let mut bench = Bench::new(1);
    bench.address(1, &[1]);
    bench.data(1);
    assert_eq!(bench.accept(), Some(10));
    assert_eq!(lists(&bench.pass(Duration::from_secs(3000))), [Vec::<u16>::new()]);
    // It asks again: it did not hear.
    bench.address(1, &[1, 2]);
    assert_eq!(lists(&bench.pass(SOON)), [Vec::<u16>::new()]);
    // Repeats for others go on; once this node is not named any more it keeps quiet.
    bench.address(1, &[2]);
    bench.data(1);
    assert_eq!(lists(&bench.pass(SOON)), Vec::<Vec<u16>>::new());
    assert_eq!(bench.accept(), None);
}

#[test]
fn pieces_heard_before_their_address_count_and_those_for_others_are_dropped() {
    let mut bench = Bench::new(1);
    [3, 1].into_iter().for_each(|n| bench.data(n));
    assert!(bench.station.held_bytes() > 0);
    bench.address(3, &[1, 2]);
    bench.data(2);
    assert_eq!(bench.accept(), Some(30));
    let mut bench = Bench::new(1);
    bench.data(1);
    bench.address(3, &[2]);
    bench.data(2);
    assert_eq!(bench.station.held_bytes(), 0);
    // Named after all: from there on it counts.
    bench.address(3, &[1, 2]);
    assert_eq!(lists(&bench.pass(SOON)), [[1, 2, 3]]);
}

#[test]
fn the_same_number_with_another_expiry_is_another_message() {
    let mut bench = Bench::new(1);
    bench.address(1, &[1]);
    bench.data(1);
    assert_eq!(bench.accept(), Some(10));
    let to = vec![Destination { node: node(1), sequence: 2 }];
    let other = Address::split(6, 2, KEY, START as u32 + 7200, to, MAX_PDU).remove(0);
    bench.hear(0, &emit(&Pdu::Address(other)));
    [1, 2].into_iter().for_each(|n| bench.data(n));
    assert_eq!(bench.accept(), Some(20));
    assert_eq!(bench.station.counts().of("renumbered"), 1);
}

#[test]
fn repeats_are_of_what_is_named_and_lists_are_joined() {
    let mut bench = Bench::new(0);
    bench.send(8);
    assert_eq!(pieces(&bench.pass(Duration::from_millis(600))), [1, 2, 3, 4, 5, 6, 7, 8]);
    let of = |i: usize, n: &[u16]| ack(node(i), [(KEY, Missing::from_ascending(n.iter().copied()))]);
    bench.hear(1, &of(1, &[2, 5]));
    bench.hear(2, &of(2, &[5, 6]));
    let repeat = bench.pass(Duration::from_millis(100));
    assert_eq!(pieces(&repeat), [2, 5, 6]);
    let Pdu::Address(address) = &repeat[0] else { panic!("no address") };
    assert_eq!((address.total, address.destinations.len(), address.part), (8, 2, Part::Only));
    // The same lists again, made before the repeat could arrive: nothing.
    bench.hear(1, &of(1, &[2, 5]));
    assert_eq!(pieces(&bench.pass(Duration::from_millis(300))), Vec::<u16>::new());
    bench.hear(1, &of(1, &[]));
    bench.hear(2, &of(2, &[]));
    assert_eq!(bench.confirmed(), [node(1), node(2)]);
    let last = bench.pass(SOON);
    assert!(matches!(&last[..], [Pdu::Address(a)] if a.destinations.is_empty() && a.total == 0), "{last:?}");
    assert_eq!(bench.pass(Duration::from_secs(86_000)), []);
}

#[test]
fn who_does_not_answer_is_asked_in_growing_intervals() {
    let mut bench = Bench::new(0);
    bench.send(8);
    bench.pass(Duration::from_millis(600));
    bench.hear(1, &ack(node(1), [(KEY, Missing::default())]));
    let mut asked = Vec::new();
    let begin = bench.now.at;
    while bench.now.at.since(begin) < Duration::from_secs(120) {
        let sent = pieces(&bench.pass(Duration::from_millis(100)));
        if !sent.is_empty() {
            asked.push((bench.now.at, sent.len()));
        }
    }
    let sizes: Vec<usize> = asked.iter().map(|a| a.1).collect();
    assert_eq!(sizes[..4], [1, 1, 8, 1]);
    assert!(asked.windows(3).all(|w| w[2].0.since(w[1].0) > w[1].0.since(w[0].0)), "{asked:?}");
}

#[test]
fn who_was_taken_for_silent_and_answers_is_waited_for_like_any_other() {
    let mut bench = Bench::new(0);
    [1, 2].into_iter().for_each(|i| bench.station.set_silent(bench.now, node(i), true));
    bench.send(4);
    assert_eq!(pieces(&bench.pass(Duration::from_millis(200))), [1, 2, 3, 4]);
    // Its list was made before the last piece came: that one is asked for again only when nothing more is heard.
    bench.hear(1, &ack(node(1), [(KEY, Missing::from_ascending([4]))]));
    let sent = bench.pass(Duration::from_secs(5));
    let named = |p: &Pdu| matches!(p, Pdu::Address(a) if a.destinations.len() == 1 && a.names(node(1)));
    assert!(sent.iter().any(named) && pieces(&sent).iter().all(|n| *n == 4), "{sent:?}");
}

#[test]
fn a_repeat_to_the_silent_and_one_to_others_that_are_due_at_once_both_leave() {
    let mut bench = Bench::new(0);
    bench.station.set_silent(bench.now, node(1), true);
    bench.send(3);
    bench.pass(Duration::from_millis(200));
    // The driver slept for long.
    bench.now.at += Duration::from_secs(100);
    let sent = bench.pass(Duration::from_secs(10));
    let to = |i| sent.iter().filter(|p| matches!(p, Pdu::Address(a) if a.names(node(i)))).count();
    assert!(to(1) == 1 && to(2) >= 1, "{sent:?}");
    assert!(bench.station.next_timeout().is_some_and(|at| at > bench.now.at));
}

// ---- hostile datagrams

#[test]
fn strangers_are_counted_and_change_nothing() {
    let mut bench = Bench::new(0);
    bench.send(4);
    bench.pass(Duration::from_millis(600));
    let complete = |source| ack(source, [(KEY, Missing::default())]);
    // From an address that is not its own; from nobody we know; a node that is no destination of this message.
    bench.hear(2, &complete(node(1)));
    bench.station.handle_datagram(bench.now, Ipv4Addr::new(6, 6, 6, 6), &complete(NodeId(0x0606_0606)));
    assert_eq!(bench.station.counts().of("unknown_source"), 2);
    bench.hear(1, &ack(node(1), [(KEY, Missing::from_ascending([5]))]));
    assert_eq!(bench.station.counts().of("absurd_list"), 1);
    bench.hear(1, &ack(node(1), [(MessageKey { number: 10, ..KEY }, Missing::default())]));
    assert_eq!(bench.station.counts().of("stray_ack"), 1);
    assert_eq!(bench.confirmed(), []);
    assert_eq!(pieces(&bench.pass(Duration::from_millis(300))), Vec::<u16>::new());
    bench.hear(1, b"\x00\x10");
    bench.hear(1, &[0xff; 40]);
    assert_eq!(bench.station.counts().iter().map(|(_, n)| n).sum::<u64>(), 6);
}

#[test]
fn lists_of_one_receiver_cause_no_more_than_the_budget() {
    let mut bench = Bench::new(0);
    bench.send(10);
    let mut sent = pieces(&bench.pass(Duration::from_secs(1))).len();
    for _ in 0..2000 {
        bench.hear(1, &ack(node(1), [(KEY, Missing::from_ranges([1..=10]))]));
        bench.hear(2, &ack(node(2), [(KEY, Missing::from_ranges([1..=10]))]));
        sent += pieces(&bench.pass(Duration::from_secs(1))).len();
    }
    // Sixteen times the message, and what questions in growing intervals make in half an hour.
    assert!((100..260).contains(&sent), "{sent}");
    assert!(bench.station.counts().of("budget_spent") > 0);
}

#[test]
fn floods_of_pieces_and_addresses_stay_within_the_limits() {
    let mut narrow = config(1, 3);
    narrow.limits = Limits { receiving: 50, held_bytes: 20_000, message_bytes: 10_000, ..Limits::default() };
    let mut bench = Bench::with(narrow);
    let mut stream = Stream::new(1, "flood", 0);
    let mut answered = 0;
    let mut heard = 0;
    for i in 0..20_000 {
        let number = stream.below(300) as u32;
        let message = MessageKey { number, ..KEY };
        let pdu = match stream.below(4) {
            0 => {
                let to = vec![Destination { node: node(1 + (i % 2)), sequence: 0 }];
                let expiry = if stream.chance(0.2) { u32::MAX } else { START as u32 + stream.below(5000) as u32 };
                let total = if stream.chance(0.5) { u16::MAX } else { 1 + stream.below(9) as u16 };
                Pdu::Address(Address::split(stream.below(256) as u8, total, message, expiry, to, MAX_PDU).remove(0))
            }
            1 if stream.chance(0.1) => Pdu::Discard { priority: 0, message },
            _ => {
                let sequence =
                    if stream.chance(0.2) { u16::MAX - stream.below(9) as u16 } else { 1 + stream.below(9) as u16 };
                Pdu::Data { priority: 0, message, sequence, piece: vec![0; stream.below(900) as usize] }
            }
        };
        let datagram = emit(&pdu);
        heard += datagram.len();
        bench.hear(0, &datagram);
        while bench.accept().is_some() {}
        if i % 10 == 0 {
            answered += bench.pass(Duration::from_millis(20)).iter().map(|p| emit(p).len()).sum::<usize>();
        }
        assert!(bench.station.held_bytes() <= 20_000 && bench.station.known_messages() <= 50);
    }
    assert!(answered < heard, "{answered} bytes for {heard}");
    assert!(bench.station.counts().of("full") > 0);
}

#[test]
fn a_station_that_may_not_send_its_last_word_waits_for_nothing() {
    let mut net = Net::new(2, 0.0, 1);
    net.submit(1, 6, 5_000, 3600);
    net.run(Duration::from_secs(20));
    net.submit(2, 6, 5_000, 3600);
    net.mute.insert(1);
    net.run(Duration::from_secs(20));
    let station = &mut net.stations[0];
    assert_eq!(station.cancel(2), [node(1)]);
    net.now = Now { at: net.now.at + Duration::from_secs(600), ..net.now };
    station.handle_timeout(net.now);
    assert!(station.has_transmit(net.now));
    assert_eq!(station.next_deadline(net.now), None, "what is owed is said when it may be");
}
