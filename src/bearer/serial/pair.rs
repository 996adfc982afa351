//! Two stations over a modelled pair of half-duplex modems, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Config, PeerConfig, Station, Waveform};
use crate::bearer::{Event, JobDone, ModemAction, ModemEvent, Transfer, Verdict, WaveformName, fec};
use crate::emcon::{Gate, Keying, Order, State};
use crate::mail::{BearerId, Cut, LinkKey, Precedence, Protection, TransferId};
use crate::time::{Duration, Instant, Now, Wall};
use crate::units::Bps;

mod chain;

const CELL: u64 = 262;

/// Something due.
#[derive(Debug)]
enum Due {
    Modem(usize, u64, ModemEvent),
    Stored(usize, u64, u64, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Done(usize, u64, u64, JobDone),
    Settled(usize, u64, u64, Verdict),
    Keyed(usize, u64),
    /// A block of the transmission ends.
    Block(usize, u64, u64),
}

struct Modem {
    /// Transmission number, first preamble symbol.
    keyed: Option<(u64, Instant)>,
    fed: Vec<u8>,
    unkey: bool,
    /// May not start before this: the turnaround after the last carrier heard.
    free_at: Instant,
}

struct Node {
    station: Option<Station>,
    config: Config,
    life: u64,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    modem: Modem,
    confirmed: Vec<(TransferId, Instant)>,
    whole: BTreeMap<u32, (Instant, Vec<u8>)>,
    keyed: Vec<(Instant, Precedence)>,
    alarms: Vec<String>,
    progress: Vec<(u32, u32)>,
    epoch_used: bool,
    commits: Instant,
    counter: u32,
    sent: BTreeMap<TransferId, Transfer>,
    verdicts: VecDeque<Verdict>,
    /// Every byte fed, per transmission: number, time fed, bytes.
    tape: Vec<(u64, Instant, Vec<u8>)>,
}

struct Pair {
    now: Instant,
    seed: u64,
    loss: [f64; 2],
    queue: BTreeMap<(Instant, u64), Due>,
    order: u64,
    transmissions: u64,
    nodes: Vec<Node>,
    gate: Gate,
    /// Transmissions that overlapped with another or whose receiver was keyed.
    deaf: BTreeSet<u64>,
    /// Transmissions whose every cell is lost, by number.
    doomed: BTreeSet<u64>,
    collisions: u64,
}

fn key(secret: u8) -> Vec<LinkKey> {
    vec![LinkKey { id: 1, secret: [secret; 32] }]
}

fn config(own: usize, cap: Duration) -> Config {
    let names = ["alfa", "bravo"];
    Config {
        name: names[own].into(),
        station: own as u8,
        epoch: 0x1000_0000 + own as u32 * 0x111 + 5,
        fresh: true,
        highest: 0,
        reads: 0,
        waveform: Waveform {
            rate: Bps(2400),
            preamble: Duration::from_millis(4800),
            block: Duration::from_millis(4800),
            tail_bits: 176,
            frame_bytes: CELL as u32,
            turnaround: Duration::from_secs(4),
        },
        net: String::new(),
        siblings: BTreeSet::new(),
        named: WaveformName { rate: Bps(2400), interleaver: "L".into() },
        choices: Vec::new(),
        peers: vec![PeerConfig {
            name: names[1 - own].into(),
            station: 1 - own as u8,
            protection: Protection::Mac,
            keys: key(7),
            assumed_loss: 0.1,
        }],
        blind: Default::default(),
        max_transmission: cap,
        max_transmission_routine: Duration::from_millis(127_500),
        carrier_stuck_after: Duration::from_secs(300),
        max_partials: 64,
        max_partial_bytes: 4 << 20,
        seed: 1,
    }
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

impl Pair {
    fn new(seed: u64, loss: f64, cap: Duration) -> Self {
        Self::with(seed, loss, [config(0, cap), config(1, cap)])
    }

    fn with(seed: u64, loss: f64, configs: [Config; 2]) -> Self {
        let mut gate = Gate::new();
        for name in ["m0", "m1"] {
            gate.add(BearerId::from(name), Some(order(State::Open)));
        }
        let nodes = configs
            .into_iter()
            .map(|mut config| {
                config.seed = mix(seed ^ u64::from(config.station));
                Node {
                    station: Some(Station::new(Instant::ZERO, config.clone(), Vec::new())),
                    config,
                    life: 0,
                    store: BTreeMap::new(),
                    modem: Modem { keyed: None, fed: Vec::new(), unkey: false, free_at: Instant::ZERO },
                    confirmed: Vec::new(),
                    whole: BTreeMap::new(),
                    keyed: Vec::new(),
                    alarms: Vec::new(),
                    progress: Vec::new(),
                    epoch_used: false,
                    commits: Instant::ZERO,
                    counter: 0,
                    sent: BTreeMap::new(),
                    verdicts: VecDeque::new(),
                    tape: Vec::new(),
                }
            })
            .collect();
        let mut pair = Self {
            now: Instant::ZERO,
            seed,
            loss: [loss; 2],
            queue: BTreeMap::new(),
            order: 0,
            transmissions: 0,
            nodes,
            gate,
            deaf: BTreeSet::new(),
            doomed: BTreeSet::new(),
            collisions: 0,
        };
        pair.drain();
        pair
    }

    fn random(&mut self) -> u64 {
        self.order += 1;
        mix(self.seed.wrapping_mul(31) ^ self.order)
    }

    fn at(&mut self, when: Instant, due: Due) {
        self.order += 1;
        self.queue.insert((when, self.order), due);
    }

    fn send(&mut self, from: usize, bytes: usize, precedence: Precedence) -> TransferId {
        let n = &mut self.nodes[from];
        n.counter += 1;
        let id = TransferId { origin: n.config.name.clone(), epoch: n.config.epoch, counter: n.counter };
        let counter = n.counter;
        let payload: Arc<[u8]> =
            (0..bytes).map(|i| mix(u64::from(counter) << 32 | i as u64 | (from as u64) << 60) as u8).collect();
        let cut = n.station.as_ref().map_or(Cut::Narrow, Station::cut);
        let to = n.config.peers[0].name.clone();
        let transfer = Transfer { id: id.clone(), to, precedence, payload, cut, lead: None };
        n.sent.insert(id.clone(), transfer.clone());
        if let Some(s) = &mut n.station {
            s.send(self.now, transfer);
        }
        self.drain();
        id
    }

    /// Power off and on again: what was committed is all that is left.
    fn restart(&mut self, who: usize, epoch: Option<u32>) {
        let n = &mut self.nodes[who];
        n.life += 1;
        if let Some(epoch) = epoch {
            n.config.epoch = epoch;
            n.store.clear();
            n.sent.clear();
            n.counter = 0;
        }
        (n.config.fresh, n.config.highest) = (epoch.is_some(), n.counter);
        let restored = n.store.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut station = Station::new(self.now, n.config.clone(), restored);
        n.sent.values().for_each(|t| station.send(self.now, t.clone()));
        n.station = Some(station);
        if n.modem.keyed.is_some() {
            n.modem.unkey = true;
        }
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            let mut quiet = true;
            for who in 0..2 {
                while self.step(who) {
                    quiet = false;
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn step(&mut self, who: usize) -> bool {
        let now = self.now;
        let soon = now + Duration::from_micros(100 + self.random() % 20_000);
        let n = &mut self.nodes[who];
        let life = n.life;
        let Some(station) = &mut n.station else { return false };
        if let Some(event) = station.poll_event() {
            match event {
                Event::Persist { ticket, puts } => {
                    // One writer: commits take effect in the order they were asked for.
                    n.commits = soon.max(n.commits + Duration::from_nanos(1));
                    let when = n.commits;
                    self.at(when, Due::Stored(who, life, ticket, puts));
                }
                Event::Job { ticket, job } => {
                    let done = fec::run(job);
                    self.at(soon, Due::Done(who, life, ticket, done));
                }
                Event::Whole { ticket, id, payload, .. } => {
                    let verdict = n.verdicts.pop_front().unwrap_or(Verdict::Accepted);
                    if verdict == Verdict::Accepted {
                        n.whole.entry(id.counter).or_insert((now, payload.to_vec()));
                    }
                    self.at(soon, Due::Settled(who, life, ticket, verdict));
                }
                Event::Progress { have, need, .. } => n.progress.push((have, need)),
                Event::Confirmed { id, .. } => {
                    n.sent.remove(&id);
                    n.confirmed.push((id, now));
                }
                Event::Refused { id, reason } => panic!("{id} refused: {reason}"),
                Event::Keyed { at, precedence, .. } => n.keyed.push((at, precedence)),
                Event::Unkeyed { .. } | Event::SentBlind { .. } | Event::Lacks { .. } | Event::Shared(_) => {}
                Event::Alarm(text) => n.alarms.push(text),
                Event::EpochUsed { .. } => n.epoch_used = true,
            }
            return true;
        }
        if let Some(action) = station.poll_action() {
            match action {
                ModemAction::Unkey => self.unkey(who),
                ModemAction::Abort | ModemAction::Transmit(_) => panic!("nothing here needs that"),
            }
            return true;
        }
        let Some(want) = station.want(now) else { return false };
        let bearer = BearerId::from(["m0", "m1"][who]);
        let wall = Now { at: now, wall: Wall(0), set: true };
        let emission = match self.gate.permit(wall, &bearer, want.purpose, want.airtime) {
            Ok(permit) => station.poll_emission(now, permit),
            Err(silence) => {
                station.silenced(now, silence);
                None
            }
        };
        let Some(emission) = emission else { return true };
        let watch = self.gate.watch(&bearer).expect("known");
        match emission.redeem(&watch, now).expect("fresh") {
            Keying::Key => {
                let when = now.max(self.nodes[who].modem.free_at) + Duration::from_millis(10);
                self.at(when, Due::Keyed(who, life));
            }
            Keying::Feed(bytes) => {
                let modem = &mut self.nodes[who].modem;
                if let Some((number, _)) = modem.keyed {
                    modem.fed.extend(&bytes);
                    self.nodes[who].tape.push((number, now, bytes));
                }
            }
            Keying::Datagram { .. } | Keying::Igmp { .. } | Keying::Join | Keying::Membership { .. } => {
                unreachable!("a modem takes no datagrams")
            }
        }
        true
    }

    fn unkey(&mut self, who: usize) {
        self.nodes[who].modem.unkey = true;
    }

    fn key_down(&mut self, who: usize) {
        let now = self.now;
        self.transmissions += 1;
        let number = self.transmissions;
        if self.nodes[who].modem.keyed.take().is_some() {
            // What a dead process left keyed is cut.
            self.nodes[1 - who].modem.free_at = now + self.nodes[who].config.waveform.turnaround;
            self.modem(1 - who, ModemEvent::Carrier(false));
        }
        if let Some((other, _)) = self.nodes[1 - who].modem.keyed {
            self.deaf.extend([number, other]);
            self.collisions += 1;
        } else {
            self.at(now + Duration::from_millis(500), Due::Modem(1 - who, number, ModemEvent::Carrier(true)));
        }
        let w = self.nodes[who].config.waveform.clone();
        self.nodes[who].modem.keyed = Some((number, now));
        (self.nodes[who].modem.fed, self.nodes[who].modem.unkey) = (Vec::new(), false);
        self.at(now + w.preamble + w.block, Due::Block(who, number, 0));
        if let Some(s) = &mut self.nodes[who].station {
            s.handle_modem(now, ModemEvent::Keyed);
        }
    }

    fn block(&mut self, who: usize, number: u64, block: u64) {
        let n = &self.nodes[who];
        if n.modem.keyed.is_none_or(|(present, _)| present != number) {
            return;
        }
        let w = n.config.waveform.clone();
        let bits = (u128::from(w.rate.0) * w.block.as_nanos() / 1_000_000_000) as u64;
        let (from, to) = ((block * bits / 8) as usize, ((block + 1) * bits / 8) as usize);
        let fed = n.modem.fed.len();
        assert!(fed >= to || n.modem.unkey, "block {block} starved: {fed} bytes at {:?}", self.now);
        let held = fed.saturating_sub(to);
        assert!(held as u64 <= bits / 4 + 1, "the modem holds {held} bytes");
        let mut bytes = n.modem.fed[from.min(fed)..to.min(fed)].to_vec();
        let blocks = (fed as u64 * 8 + u64::from(w.tail_bits)).div_ceil(bits).max(1);
        let last = n.modem.unkey && block + 1 >= blocks;
        let other = 1 - who;
        if !self.deaf.contains(&number) && !bytes.is_empty() {
            for (i, b) in bytes.iter_mut().enumerate() {
                let cell = (from + i) as u64 / u64::from(w.frame_bytes);
                let chance = mix(self.seed ^ mix(number << 20 | cell)) as f64 / u64::MAX as f64;
                if chance < self.loss[who] || self.doomed.contains(&number) {
                    *b ^= (mix(self.seed ^ (from + i) as u64 ^ number << 40) as u8) | 1;
                }
            }
            self.modem(other, ModemEvent::Received(bytes));
        }
        if !last {
            self.at(self.now + w.block, Due::Block(who, number, block + 1));
            return;
        }
        self.nodes[who].modem.keyed = None;
        if !self.deaf.contains(&number) {
            self.nodes[other].modem.free_at = self.now + w.turnaround;
            self.modem(other, ModemEvent::Carrier(false));
        }
        self.modem(who, ModemEvent::Unkeyed);
    }

    fn modem(&mut self, who: usize, event: ModemEvent) {
        if let Some(s) = &mut self.nodes[who].station {
            s.handle_modem(self.now, event);
        }
    }

    /// Runs until `until` says so or the time is over; true when it said so.
    fn run(&mut self, limit: Duration, mut until: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut stuck = 0;
        while !until(self) {
            let timeout = self.nodes.iter().filter_map(|n| n.station.as_ref()?.next_timeout()).min();
            let next = self.queue.keys().next().map(|(t, _)| *t);
            let Some(next) = timeout.into_iter().chain(next).min() else { return false };
            stuck = if next <= self.now { stuck + 1 } else { 0 };
            assert!(stuck < 10_000, "time stands still at {:?}", self.now);
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let due = entry.remove();
                self.fire(due);
            }
            for n in &mut self.nodes {
                if let Some(s) = &mut n.station {
                    s.handle_timeout(self.now);
                }
            }
            self.drain();
        }
        true
    }

    fn fire(&mut self, due: Due) {
        let now = self.now;
        match due {
            Due::Modem(who, number, event) => {
                if self.nodes[who].modem.keyed.is_none() && !self.deaf.contains(&number) {
                    self.modem(who, event);
                }
            }
            Due::Stored(who, life, ticket, puts) if self.nodes[who].life == life => {
                for (k, v) in puts {
                    match v {
                        Some(v) => self.nodes[who].store.insert(k, v),
                        None => self.nodes[who].store.remove(&k),
                    };
                }
                self.with_station(who, |s| s.stored(now, ticket, true));
            }
            Due::Done(who, life, ticket, done) if self.nodes[who].life == life => {
                self.with_station(who, |s| s.job_done(now, ticket, done));
            }
            Due::Settled(who, life, ticket, verdict) if self.nodes[who].life == life => {
                self.with_station(who, |s| s.settled(now, ticket, verdict));
            }
            Due::Keyed(who, life) => {
                if self.nodes[who].life == life {
                    self.key_down(who);
                }
            }
            Due::Block(who, number, block) => self.block(who, number, block),
            Due::Stored(..) | Due::Done(..) | Due::Settled(..) => {}
        }
        self.drain();
    }

    fn with_station(&mut self, who: usize, f: impl FnOnce(&mut Station)) {
        if let Some(s) = &mut self.nodes[who].station {
            f(s);
        }
    }

    fn all_confirmed(&self) -> bool {
        self.nodes.iter().all(|n| n.sent.is_empty())
    }
}

fn order(state: State) -> Order {
    Order { state, since: Wall(0), from: None, until: None, base: None, reason: "test".into(), author: "test".into() }
}

const LONG: Duration = Duration::from_millis(127_500);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_message_arrives_and_is_confirmed() {
    let mut pair = Pair::new(1, 0.0, LONG);
    let id = pair.send(0, 1024, Precedence::Routine);
    assert!(pair.run(HOUR, Pair::all_confirmed), "not confirmed");
    assert_eq!(pair.nodes[0].confirmed[0].0, id);
    assert_eq!(pair.nodes[1].whole[&1].1.len(), 1024);
    assert!(pair.nodes[0].keyed[0].0 < Instant::from_millis(1000), "key at once: {:?}", pair.nodes[0].keyed);
    assert_eq!(pair.nodes[0].alarms, Vec::<String>::new());
}

/// Mean seconds from the first preamble symbol to the whole payload at the far side.
fn mean_time(bytes: usize, loss: f64, seeds: u64) -> f64 {
    let mut total = 0.0;
    for seed in 0..seeds {
        let mut pair = Pair::new(seed, loss, LONG);
        for _ in 0..10 {
            pair.send(0, bytes, Precedence::Routine);
            assert!(pair.run(HOUR, Pair::all_confirmed), "seed {seed}: warm-up is stuck");
            pair.run(Duration::from_secs(60), |_| false);
        }
        let before = pair.nodes[0].keyed.len();
        let id = pair.send(0, bytes, Precedence::Routine);
        assert!(pair.run(HOUR, Pair::all_confirmed), "seed {seed}: stuck");
        let keyed = pair.nodes[0].keyed[before].0;
        total += pair.nodes[1].whole[&id.counter].0.since(keyed).as_secs_f64();
    }
    total / seeds as f64
}

/// Asserts the mean of 200 seeds at three loss rates against 1.25 times the ideal erasure code of the limit tables.
fn measure(bytes: usize, ideal: [f64; 3]) {
    for (loss, ideal) in [0.0, 0.05, 0.2].into_iter().zip(ideal) {
        let mean = mean_time(bytes, loss, 200);
        println!("{bytes:6} B, loss {loss:4.2}: {mean:6.2} s, {:.2} of the ideal {ideal:.2} s", mean / ideal);
        assert!(mean <= 1.25 * ideal, "{bytes} B at loss {loss}: {mean:.2} s against {ideal:.2} s");
    }
}

#[test]
fn one_kib_arrives_within_a_quarter_of_the_ideal_time() {
    measure(1024, [9.60, 14.40, 14.57]);
}

#[test]
fn four_kib_arrive_within_a_quarter_of_the_ideal_time() {
    measure(4096, [24.00, 24.09, 29.10]);
}

#[test]
fn ten_kib_arrive_within_a_quarter_of_the_ideal_time() {
    measure(10_240, [43.20, 48.02, 57.85]);
}

#[test]
fn a6_both_loaded_at_once_never_deadlock() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = number("ALDIS_FIRST_SEED").unwrap_or(0);
    for seed in first..first + number("ALDIS_SEEDS").unwrap_or(150) {
        let loss = [0.0, 0.05, 0.2, 0.4][seed as usize % 4];
        let mut pair = Pair::new(seed, loss, Duration::from_secs(30));
        for bytes in [10_240, 300, 2000] {
            pair.send(0, bytes, Precedence::Routine);
            pair.send(1, bytes + 7, Precedence::Priority);
        }
        assert!(pair.run(HOUR * 3, Pair::all_confirmed), "seed {seed}, loss {loss}: {:?}", pair.nodes[0].alarms);
        for who in 0..2 {
            assert_eq!(pair.nodes[1 - who].whole.len(), 3, "seed {seed}");
            assert_eq!(pair.nodes[who].confirmed.len(), 3, "seed {seed}: one confirmation each");
        }
    }
}

#[test]
fn every_rate_carries_small_and_large_payloads_both_ways() {
    for (rate, preamble, block, frame_bytes) in [
        (75, 4800, 4800, 76),
        (75, 600, 600, 76),
        (300, 4800, 4800, 140),
        (1200, 600, 600, 212),
        (2400, 600, 600, 262),
        (9600, 120, 4305, 512),
        (9600, 120, 1076, 512),
    ] {
        let mut configs = [config(0, LONG), config(1, LONG)];
        for c in &mut configs {
            c.waveform.rate = Bps(rate);
            c.waveform.preamble = Duration::from_millis(preamble);
            c.waveform.block = Duration::from_millis(block);
            c.waveform.frame_bytes = frame_bytes;
        }
        let large = if rate == 75 { 5000 } else { 40_000 };
        let mut pair = Pair::with(u64::from(rate), 0.1, configs);
        pair.send(0, large, Precedence::Routine);
        pair.send(1, 1000, Precedence::Priority);
        pair.send(0, 200, Precedence::Flash);
        assert!(pair.run(HOUR * 12, Pair::all_confirmed), "{rate} bit/s, block {block} ms: {:?}", pair.nodes[0].alarms);
        assert_eq!(pair.nodes[1].whole[&1].1.len(), large);
        assert!(pair.nodes.iter().all(|n| n.alarms.is_empty()), "{:?}", pair.nodes[0].alarms);
    }
}

#[test]
fn large_symbols_cross_small_cells() {
    let mut configs = [config(0, LONG), config(1, LONG)];
    for c in &mut configs {
        (c.waveform.rate, c.waveform.frame_bytes) = (Bps(1200), 140);
    }
    let mut pair = Pair::with(1, 0.02, configs);
    pair.send(0, 140_000, Precedence::Routine);
    assert!(pair.run(HOUR * 12, Pair::all_confirmed));
    assert_eq!(pair.nodes[1].whole[&1].1.len(), 140_000);
}

#[test]
fn two_way_load_shares_the_turns() {
    // A6: both whole within 1.10 of the sum of both ways alone; the ideal code needs 43.2 s each way. The stations know the link.
    let mut pair = Pair::new(3, 0.0, LONG);
    for _ in 0..10 {
        pair.send(0, 1000, Precedence::Routine);
        pair.send(1, 1000, Precedence::Routine);
        assert!(pair.run(HOUR, Pair::all_confirmed));
        pair.run(Duration::from_secs(60), |_| false);
    }
    let before = pair.nodes[0].keyed.len();
    pair.send(0, 10_240, Precedence::Routine);
    pair.send(1, 10_240, Precedence::Routine);
    assert!(pair.run(HOUR, |p| p.nodes.iter().all(|n| n.whole.len() == 11)));
    let start = pair.nodes[0].keyed[before].0;
    let last = pair.nodes.iter().map(|n| n.whole[&11].0).max().expect("both");
    assert!(last.since(start).as_secs_f64() <= 1.10 * 86.4, "{:?}", last.since(start));
    assert_eq!(pair.collisions, 0);
}

#[test]
fn symbols_as_large_as_a_cell_find_room_beside_the_greetings_of_strangers() {
    let mut configs = [config(0, Duration::from_secs(30)), config(1, Duration::from_secs(30))];
    for c in &mut configs {
        (c.waveform.rate, c.waveform.frame_bytes) = (Bps(75), 76);
    }
    let mut pair = Pair::with(1, 0.0, configs);
    pair.send(0, 17_000, Precedence::Routine);
    assert!(pair.run(HOUR * 2, Pair::all_confirmed), "{} transmissions", pair.transmissions);
}

#[test]
fn a_lost_report_costs_a_poll_and_no_second_delivery() {
    let mut pair = Pair::new(5, 0.0, LONG);
    pair.doomed.insert(2);
    pair.send(0, 3000, Precedence::Routine);
    assert!(pair.run(HOUR, Pair::all_confirmed));
    assert_eq!(pair.nodes[0].station.as_ref().expect("on").counts().polls, 1);
    assert_eq!(pair.nodes[1].whole.len(), 1);
    // The transmission, its lost report, the poll, its report.
    assert_eq!(pair.transmissions, 4);
}

#[test]
fn a_whole_lost_transmission_is_asked_about_and_sent_again() {
    let mut pair = Pair::new(6, 0.0, LONG);
    pair.doomed.insert(1);
    pair.send(0, 3000, Precedence::Routine);
    assert!(pair.run(HOUR, Pair::all_confirmed));
}

#[test]
fn simultaneous_keying_resolves_itself() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed, 0.1, Duration::from_secs(30));
        // Both stations think they are alone: the offset beats the ranks.
        pair.send(1, 2000, Precedence::Routine);
        pair.run(Duration::from_millis(810 + seed % 5), |_| false);
        pair.send(0, 2000, Precedence::Routine);
        assert!(pair.run(HOUR, Pair::all_confirmed), "seed {seed}");
        assert!(seed > 0 || pair.collisions > 0, "the case does not collide");
    }
}

#[test]
fn d2_restarts_lose_nothing_and_send_no_reported_symbol_again() {
    let mut fresh = 0;
    for seed in 0..60 {
        let who = seed as usize % 2;
        let mut pair = Pair::new(seed, 0.1, Duration::from_secs(30));
        pair.send(0, 10_240, Precedence::Routine);
        pair.send(1, 1500, Precedence::Routine);
        pair.run(Duration::from_millis(7_000 + seed * 2_311 % 90_000), |_| false);
        pair.restart(who, None);
        assert!(pair.run(HOUR * 2, Pair::all_confirmed), "seed {seed}");
        assert_eq!(pair.nodes[1].whole[&1].1.len(), 10_240);
        assert_eq!(pair.nodes[0].whole[&1].1.len(), 1500);
        for n in &pair.nodes {
            assert!(n.alarms.is_empty(), "seed {seed}: {:?}", n.alarms);
        }
        // Indices may repeat only once all 255 of a block are spent, and then it is counted.
        if pair.nodes[0].station.as_ref().expect("on").counts().repeats == 0 {
            assert_no_symbol_twice(&pair, 0, &format!("seed {seed}"));
            fresh += 1;
        }
    }
    assert!(fresh >= 50, "only {fresh} of 60 runs stayed inside their indices");
}

#[test]
fn d2_another_modem_at_another_rate_carries_on_and_resends_no_symbol_that_was_reported() {
    for (rate, preamble, block, frame_bytes) in [(75, 600, 600, 76), (9600, 120, 1076, 512)] {
        let mut pair = Pair::new(u64::from(rate), 0.1, Duration::from_secs(20));
        pair.send(0, 6000, Precedence::Routine);
        let between = |p: &Pair| !p.nodes[0].progress.is_empty() && p.nodes.iter().all(|n| n.modem.keyed.is_none());
        assert!(pair.run(HOUR, between));
        for who in 0..2 {
            let w = &mut pair.nodes[who].config.waveform;
            (w.rate, w.frame_bytes) = (Bps(rate), frame_bytes);
            (w.preamble, w.block) = (Duration::from_millis(preamble), Duration::from_millis(block));
            pair.restart(who, None);
        }
        assert!(pair.run(HOUR * 4, Pair::all_confirmed), "{rate}");
        assert_eq!(pair.nodes[1].whole[&1].1.len(), 6000);
        assert_no_symbol_twice(&pair, 0, &format!("{rate} bit/s"));
    }
}

#[test]
fn a_restart_between_the_last_report_and_its_outcome_asks_instead_of_sending_all_again() {
    let mut pair = Pair::new(3, 0.0, LONG);
    let id = pair.send(0, 10_240, Precedence::Routine);
    let transfer = pair.nodes[0].sent[&id].clone();
    assert!(pair.run(HOUR, Pair::all_confirmed));
    pair.run(Duration::from_secs(30), |_| false);
    let before: usize = pair.nodes[0].tape.iter().map(|(_, _, b)| b.len()).sum();
    // The outcome was not durable, so the frozen payload comes back.
    pair.nodes[0].sent.insert(id.clone(), transfer);
    pair.restart(0, None);
    assert!(pair.run(HOUR, Pair::all_confirmed));
    let after: usize = pair.nodes[0].tape.iter().map(|(_, _, b)| b.len()).sum();
    assert!(after - before < 2000, "{} bytes to learn what was known", after - before);
    let now = pair.now;
    pair.with_station(0, |s| s.cancel(now, &id));
    pair.run(Duration::from_secs(30), |_| false);
    assert!(!pair.nodes[0].store.keys().any(|k| k[0] == b't'), "a finished transfer is forgotten");
}

#[test]
fn a_sender_killed_half_way_repeats_little() {
    // P3: bytes on air after resume at most 55 % of the message and one cycle.
    let mut pair = Pair::new(9, 0.0, LONG);
    pair.send(0, 10_240, Precedence::Routine);
    pair.run(Duration::from_millis(28_000), |_| false);
    let before: usize = pair.nodes[0].tape.iter().map(|(_, _, b)| b.len()).sum();
    pair.restart(0, None);
    assert!(pair.run(HOUR, Pair::all_confirmed));
    let after: usize = pair.nodes[0].tape.iter().map(|(_, _, b)| b.len()).sum::<usize>() - before;
    assert!(after <= 10_240 * 262 / 248 * 55 / 100 + 2 * 1440, "{after} bytes after resuming, {before} before");
}

#[test]
fn a2_a_lost_store_on_either_side_recovers() {
    for (seed, who) in [(1, 0), (2, 1), (3, 1), (4, 1)] {
        let mut pair = Pair::new(seed, 0.05, Duration::from_secs(30));
        pair.send(0, 8000, Precedence::Routine);
        pair.run(Duration::from_secs(40 + seed * 9), |_| false);
        pair.restart(who, Some(0x7777_7770 + seed as u32));
        if who == 0 {
            pair.send(0, 8000, Precedence::Routine);
        }
        assert!(pair.run(HOUR, Pair::all_confirmed), "seed {seed}");
        assert_eq!(pair.nodes[1].whole[&1].1.len(), 8000);
    }
}

#[test]
fn a2_an_old_backup_is_noticed() {
    let mut pair = Pair::new(1, 0.0, LONG);
    pair.run(Duration::from_secs(5), |_| false);
    let backup = pair.nodes[0].store.clone();
    for _ in 0..3 {
        pair.send(0, 500, Precedence::Routine);
        assert!(pair.run(HOUR, Pair::all_confirmed));
    }
    pair.nodes[0].store = backup;
    pair.nodes[0].counter = 0;
    pair.restart(0, None);
    pair.send(0, 600, Precedence::Routine);
    assert!(pair.run(HOUR, |p| p.nodes[0].epoch_used), "{:?}", pair.nodes[0].alarms);
    let bytes = pair.nodes[0].tape.iter().map(|(_, _, b)| b.len()).sum::<usize>();
    pair.run(HOUR, |_| false);
    assert_eq!(bytes, pair.nodes[0].tape.iter().map(|(_, _, b)| b.len()).sum::<usize>(), "not a byte more");
    assert_eq!(pair.nodes[0].confirmed.len(), 3, "the fourth is not the first");
    // Under another epoch it goes on.
    let now = pair.now;
    let n = &mut pair.nodes[0];
    (n.config.epoch, n.counter) = (0x1234_5678, 0);
    n.sent.clear();
    n.station.as_mut().expect("runs").renew(now, 0x1234_5678);
    let id = pair.send(0, 600, Precedence::Routine);
    assert!(pair.run(HOUR, |p| p.nodes[0].confirmed.iter().any(|(done, _)| *done == id)));
}

/// The one number used since the backup was made is the one given out next: no counter is higher than what the store knows.
#[test]
fn a2_a_number_given_out_twice_is_never_taken_for_confirmed() {
    for seed in 1..6 {
        let mut pair = Pair::new(seed, 0.05, LONG);
        pair.send(0, 300, Precedence::Routine);
        assert!(pair.run(HOUR, Pair::all_confirmed));
        let (backup, counter) = (pair.nodes[0].store.clone(), pair.nodes[0].counter);
        pair.send(0, 500, Precedence::Routine);
        assert!(pair.run(HOUR, Pair::all_confirmed));
        (pair.nodes[0].store, pair.nodes[0].counter) = (backup, counter);
        pair.restart(0, None);
        pair.send(0, 600, Precedence::Routine);
        assert!(pair.run(HOUR, |p| p.nodes[0].epoch_used), "seed {seed}");
        assert_eq!(pair.nodes[0].confirmed.len(), 2, "seed {seed}");
    }
}

#[test]
fn after_a_restart_mail_for_one_who_keeps_silent_goes_out_all_the_same() {
    let mut pair = Pair::new(1, 0.0, LONG);
    pair.send(0, 300, Precedence::Routine);
    assert!(pair.run(HOUR, Pair::all_confirmed));
    pair.restart(0, None);
    pair.gate.set(&BearerId::from("m1"), Some(order(State::Silent)));
    let id = pair.send(0, 600, Precedence::Flash);
    assert!(pair.run(HOUR, |p| p.nodes[1].whole.contains_key(&id.counter)));
    assert!(
        pair.now < Instant::ZERO + Duration::from_secs(600),
        "some questions in vain, then the mail: {:?}",
        pair.now
    );
}

#[test]
fn d4_flash_overtakes_inside_a_running_transmission() {
    let mut pair = Pair::new(2, 0.0, LONG);
    pair.nodes[0].config.max_transmission = LONG;
    pair.send(0, 60_000, Precedence::Routine);
    pair.run(Duration::from_secs(20), |_| false);
    let from = pair.now;
    let fed: usize = pair.nodes[0].tape.iter().map(|(_, _, b)| b.len()).sum();
    let id = pair.send(0, 1024, Precedence::Flash);
    assert!(pair.run(HOUR, |p| p.nodes[1].whole.contains_key(&id.counter)));
    // In the modem: less than two blocks, then one frame under way; the symbols themselves follow at once.
    let tape: Vec<u8> = pair.nodes[0].tape.iter().flat_map(|(_, _, b)| b.clone()).collect();
    let ours =
        (fed..tape.len() - 8).find(|i| tape[*i] == 0x99 && short_at(&tape[*i + 2..]) == 0x5002).expect("on the air");
    assert!(ours - fed <= 262, "{} bytes before it", ours - fed);
    assert_eq!(pair.nodes[0].keyed.len(), 1, "the same transmission");
    let waited = pair.nodes[1].whole[&id.counter].0.since(from);
    assert!(waited <= Duration::from_millis(4 * 4800), "{waited:?}");
}

#[test]
fn d1_several_messages_share_frames_and_one_transmission() {
    let mut pair = Pair::new(4, 0.0, LONG);
    for _ in 0..8 {
        pair.send(0, 100, Precedence::Routine);
    }
    assert!(pair.run(HOUR, Pair::all_confirmed));
    assert!(pair.nodes[0].keyed.len() <= 2, "{:?}", pair.nodes[0].keyed);
    assert_eq!(pair.nodes[1].whole.len(), 8);
}

#[test]
fn c1_a_wrong_key_raises_an_alarm_and_nothing_is_accepted() {
    let mut configs = [config(0, LONG), config(1, LONG)];
    configs[1].peers[0].keys = key(8);
    let mut pair = Pair::with(1, 0.0, configs);
    pair.send(0, 1024, Precedence::Routine);
    pair.run(HOUR, |_| false);
    assert!(pair.nodes[1].whole.is_empty() && pair.nodes[0].confirmed.is_empty());
    assert_eq!(pair.nodes[1].alarms.len(), 1, "{:?}", pair.nodes[1].alarms);
    assert!(pair.nodes[1].alarms[0].contains("wrong key"));
}

#[test]
fn c2_a_second_key_is_heard_during_rollover() {
    let mut configs = [config(0, LONG), config(1, LONG)];
    configs[0].peers[0].keys = vec![LinkKey { id: 2, secret: [9; 32] }, key(7).remove(0)];
    configs[1].peers[0].keys = vec![key(7).remove(0), LinkKey { id: 2, secret: [9; 32] }];
    let mut pair = Pair::with(1, 0.0, configs);
    pair.send(0, 1024, Precedence::Routine);
    pair.send(1, 1024, Precedence::Routine);
    assert!(pair.run(HOUR, Pair::all_confirmed));
}

#[test]
fn forged_and_postponed_payloads_come_again() {
    let mut pair = Pair::new(1, 0.0, LONG);
    pair.nodes[1].verdicts = [Verdict::Forged, Verdict::Later, Verdict::Accepted].into();
    pair.send(0, 2000, Precedence::Routine);
    assert!(pair.run(HOUR, Pair::all_confirmed));
    assert!(pair.nodes[1].alarms[0].contains("seal"));
}

#[test]
fn b1_silence_stops_a_transmission_and_release_brings_the_rest() {
    let mut pair = Pair::new(1, 0.0, LONG);
    pair.send(0, 10_240, Precedence::Routine);
    pair.run(Duration::from_secs(20), |_| false);
    for bearer in ["m0", "m1"] {
        pair.gate.set(&BearerId::from(bearer), Some(order(State::Silent)));
    }
    pair.run(Duration::from_secs(60), |_| false);
    let keyed = pair.transmissions;
    pair.run(HOUR, |_| false);
    assert_eq!(pair.transmissions, keyed, "nobody keys in silence");
    assert!(!pair.all_confirmed());
    for (who, bearer) in ["m0", "m1"].into_iter().enumerate() {
        pair.gate.set(&BearerId::from(bearer), Some(order(State::Open)));
        let now = pair.now;
        pair.with_station(who, |s| s.resume_air(now));
    }
    pair.drain();
    assert!(pair.run(HOUR, Pair::all_confirmed));
}

#[test]
fn a_station_that_may_only_acknowledge_reports_and_keeps_its_traffic() {
    let mut pair = Pair::new(1, 0.0, LONG);
    pair.gate.set(&BearerId::from("m1"), Some(order(State::AckOnly)));
    pair.send(1, 500, Precedence::Flash);
    pair.send(0, 3000, Precedence::Routine);
    assert!(pair.run(HOUR, |p| p.nodes[0].sent.is_empty()), "{:?}", pair.nodes[0].alarms);
    assert!(pair.nodes[0].whole.is_empty());
}

#[test]
fn a_cancelled_transfer_frees_what_the_far_side_holds() {
    let mut pair = Pair::new(1, 0.0, Duration::from_secs(15));
    let id = pair.send(0, 10_240, Precedence::Routine);
    pair.run(Duration::from_secs(60), |_| false);
    assert!(pair.nodes[1].store.keys().any(|k| k[0] == b's'));
    pair.nodes[0].sent.clear();
    let now = pair.now;
    pair.with_station(0, |s| s.cancel(now, &id));
    pair.drain();
    pair.run(HOUR, |_| false);
    assert!(!pair.nodes[1].store.keys().any(|k| k[0] == b's'), "symbols stay behind");
    assert!(!pair.nodes[0].store.keys().any(|k| k[0] == b't'));
}

#[test]
fn a6_a_stuck_carrier_is_an_alarm_and_not_the_end() {
    let mut pair = Pair::new(1, 0.0, LONG);
    pair.modem(0, ModemEvent::Carrier(true));
    pair.send(0, 1000, Precedence::Routine);
    assert!(pair.run(HOUR, Pair::all_confirmed));
    assert!(pair.nodes[0].alarms.iter().any(|a| a.contains("stuck")), "{:?}", pair.nodes[0].alarms);
}

#[test]
fn a_modem_fault_in_mid_turn_is_survived() {
    for (seed, at) in [(1, 3_000), (2, 20_000), (3, 55_000)] {
        let mut pair = Pair::new(seed, 0.0, LONG);
        pair.send(0, 10_240, Precedence::Routine);
        pair.run(Duration::from_millis(at), |_| false);
        pair.modem(0, ModemEvent::Fault("port gone".into()));
        pair.unkey(0);
        pair.drain();
        pair.run(Duration::from_secs(120), |_| false);
        pair.modem(0, ModemEvent::Ready);
        pair.drain();
        assert!(pair.run(HOUR, Pair::all_confirmed), "seed {seed}");
    }
}

/// Reads the short id of a chunk descriptor.
fn short_at(descriptor: &[u8]) -> u16 {
    (u16::from(descriptor[0] & 0x7F) << 9) | u16::from(descriptor[1]) << 1 | u16::from(descriptor[2] >> 7)
}

/// No sequence number of a transfer left `who` twice.
fn assert_no_symbol_twice(pair: &Pair, who: usize, context: &str) {
    let n = &pair.nodes[who];
    let mut ring = super::keys::KeyRing::new(1 - who as u8);
    let peer = &n.config.peers[0];
    ring.add(&peer.name, &n.config.name, who as u8, peer.protection, &peer.keys);
    let mut seen = BTreeSet::new();
    let mut deframer = super::frame::Deframer::default();
    let mut number = 0;
    for (transmission, _, bytes) in &n.tape {
        if *transmission != number {
            deframer = super::frame::Deframer::default();
            number = *transmission;
        }
        deframer.push(bytes);
        while let Some(found) = deframer.poll(&ring) {
            let super::frame::Found::Frame(super::frame::Frame::Symbols { chunks, .. }) = found else { continue };
            for c in chunks {
                for i in 0..c.symbols.len() as u16 {
                    assert!(seen.insert((c.short, c.first + i)), "{context}: {:04x}/{} twice", c.short, c.first + i);
                }
            }
        }
    }
    assert!(!seen.is_empty());
}

/// Bytes from nobody, without carrier, at both stations: a burst of up to 60 bytes every 700 ms for an hour.
fn noisy(seed: u64) -> Pair {
    let mut pair = Pair::new(seed, 0.0, LONG);
    for n in 0..5000_u64 {
        for who in 0..2 {
            let draw = |k: u64| mix(seed ^ mix(n << 8 | k << 1 | who as u64));
            let bytes = (0..1 + draw(0) % 60).map(|k| draw(k + 1) as u8).collect();
            let when = Instant::from_millis(n * 700 + draw(99) % 300);
            pair.at(when, Due::Modem(who, u64::MAX, ModemEvent::Received(bytes)));
        }
    }
    pair
}

#[test]
fn endless_noise_without_carrier_holds_nobody_back() {
    for seed in 0..10 {
        let mut pair = noisy(seed);
        for _ in 0..4 {
            pair.send(0, 1024, Precedence::Routine);
            pair.send(1, 1024, Precedence::Routine);
        }
        assert!(pair.run(Duration::from_secs(900), Pair::all_confirmed), "seed {seed}: {:?}", pair.nodes[0].alarms);
        assert_eq!((pair.nodes[0].whole.len(), pair.nodes[1].whole.len()), (4, 4));
    }
}
