//! Silence at the antenna, in volume: gate, station and ether under random orders, windows, clocks and traffic; whole nodes whose power
//! fails at every operation of the store around an order; and how soon a release is used (V15).

use std::collections::VecDeque;

use aldis::bearer::serial::{Config, PeerConfig, Station, Waveform as LinkWaveform};
use aldis::bearer::{Event, ModemAction, ModemEvent, Transfer, Verdict, WaveformName, fec};
use aldis::emcon::{Emission, EpochWatch, Gate, Keying, Order, Purpose, State, Window};
use aldis::mail::{BearerId, Cut, LinkKey, PeerName, Precedence, Protection, TransferId};
use aldis::time::{Duration, Instant, Now};

use super::Finding;
use super::transmission::waveform;
use crate::disk::{At, Fault};
use crate::ether::{Ether, EtherConfig, LinkConfig, StationId};
use crate::lab::{Lab, Setup};
use crate::modem::ModemConfig;
use crate::rng::Stream;
use crate::trace::Trace;
use crate::world::{Host, StationClock, World};

const A: StationId = StationId(0);
const B: StationId = StationId(1);
const BOTH: [StationId; 2] = [A, B];

/// The cases of this file.
pub(super) fn cases(quick: bool) -> Vec<Finding> {
    [
        volume(if quick { 5_000 } else { 1_000_000 }),
        cuts(if quick { 4 } else { 80 }),
        release(if quick { 4 } else { 200 }),
    ]
    .concat()
}

/// Orders of every kind, windows, clocks that are lost and stepped, traffic both ways.
fn volume(events: u64) -> Vec<Finding> {
    let modem = ModemConfig { turnaround: Duration::from_millis(500), ..ModemConfig::new(waveform(9600, "S")) };
    let net = EtherConfig::net(15, 2, &modem, LinkConfig { preamble_miss: 0.02, ..LinkConfig::default() });
    let radios = BOTH.iter().map(|id| Radio::new(*id, &modem)).collect();
    let mut world = World::new(Ether::new(net), radios, Trace::hashed());
    let mut chance = Stream::new(15, "orders", 0);
    let mut standing = BOTH.map(|_| (Instant::ZERO, State::Open));
    let (mut read, mut forbidden, mut keyed, mut silent_time) = (0, 0_u64, 0_u64, 0_u64);
    let mut counter = 0;
    for _ in 0..events {
        let station = BOTH[chance.below(2) as usize];
        match chance.below(10) {
            0..=3 => {
                let state = any_state(&world, station, &mut chance);
                standing[usize::from(station.0)] = (world.at(), state.clone());
                world.with_host(station, |radio, now| radio.order(now, state));
            }
            4..=7 => {
                counter += 1;
                let level = Precedence::from_rank(chance.below(6) as u8).unwrap_or(Precedence::Routine);
                let size = 60 + chance.below(800) as usize;
                world.with_host(station, |radio, now| radio.send(now, counter, level, size));
            }
            8 => world.disturb(|ether, at| {
                let up = chance.chance(0.8);
                BOTH.iter().for_each(|id| ether.set_link(at, *id, if *id == A { B } else { A }, up));
            }),
            _ => {
                let step = i64::try_from(chance.below(240_000)).unwrap_or(0) - 120_000;
                let clock = world.clock(station);
                let set = chance.chance(0.8);
                world.set_clock(station, StationClock { start: aldis::time::Wall(clock.start.0 + step), set });
                // Only what is called again learns of it; an order in force meanwhile is held against the new clock.
                world.with_host(station, Radio::look_at_the_clock);
            }
        }
        let until = world.at() + Duration::from_millis(chance.below(4_000));
        world.run_until(until);
        let log = world.ether().antenna_log();
        for edge in log[read..].iter().filter(|e| e.on) {
            keyed += 1;
            let (from, state) = &standing[usize::from(edge.station.0)];
            let clock = world.clock(edge.station);
            let wall = clock.now(edge.at).wall;
            let allowed = match state {
                State::Silent => false,
                State::Window(windows) => clock.set && windows.iter().any(|w| w.from <= wall && wall < w.until),
                State::Open | State::Restricted(_) | State::AckOnly => true,
            };
            forbidden += u64::from(!allowed && *from < edge.at);
        }
        read = log.len();
        silent_time += standing.iter().filter(|(_, s)| matches!(s, State::Silent | State::Window(_))).count() as u64;
    }
    let none = |what: &str, count, n| Finding::none("V15", what.to_owned(), count).by("every edge of every antenna", n);
    vec![
        none(&format!("key-downs in silence or outside windows, {events} events"), forbidden, events),
        // A net that never keys proves nothing.
        none("too few key-downs and silences to prove it", u64::from(keyed < events / 50 || silent_time == 0), keyed),
    ]
}

fn any_state(world: &World<Radio>, station: StationId, chance: &mut Stream) -> State {
    match chance.below(8) {
        0 | 1 => State::Silent,
        2 => State::AckOnly,
        3 => State::Restricted(Precedence::Immediate),
        4 | 5 => {
            let from = world.now(station).wall.plus(Duration::from_millis(chance.below(20_000)));
            let until = from.plus(Duration::from_millis(2_000 + chance.below(40_000)));
            State::Window(vec![Window { from, until }])
        }
        _ => State::Open,
    }
}

/// Whole nodes: silence is ordered while mail waits, and the power fails at the nth operation of the store from then on. Whatever was
/// replied stands after the restart.
fn cuts(points: u64) -> Vec<Finding> {
    let (mut broken, mut struck) = (0, 0);
    for n in 0..points {
        let mut lab = Lab::new(&pair(n), Trace::hashed());
        lab.provoked = vec!["does not answer", "store-failed"];
        lab.excuse_disk(A);
        lab.submit(A, B, 2_000, Precedence::Routine);
        lab.run_for(Duration::from_millis(500 + Stream::new(n, "cut", 0).below(8_000)));
        lab.node(A).store.fail(At::Operation(n), Fault::PowerLoss);
        let before = lab.cuts();
        lab.order(A, State::Silent);
        lab.submit(A, B, 500, Precedence::Flash);
        lab.run_for(Duration::from_secs(240));
        struck += lab.cuts() - before;
        broken += lab.check_silence().len() as u64;
    }
    let what = format!("rules of silence broken, power cut at {points} points after an order");
    vec![
        Finding::none("V15", what, broken).by("whole nodes", points),
        Finding::none("V15", "runs without a cut, beyond a half", struck.abs_diff(points) * 2 / (points + 1))
            .by("", points),
    ]
}

/// From the order that lifts silence to the first symbol.
fn release(seeds: u64) -> Vec<Finding> {
    let mut worst: f64 = 0.0;
    for seed in 0..seeds {
        let mut lab = Lab::new(&pair(seed), Trace::hashed());
        let from = BOTH[(seed % 2) as usize];
        lab.order(from, State::Silent);
        lab.submit(from, BOTH[((seed + 1) % 2) as usize], 700, Precedence::Routine);
        lab.run_for(Duration::from_millis(30_000 + Stream::new(seed, "release", 0).below(30_000)));
        let released = lab.at();
        lab.order(from, State::Open);
        lab.run_for(Duration::from_secs(20));
        let first = lab.world().ether().antenna_log().iter().find(|e| e.on && e.station == from).map(|e| e.at);
        worst = worst.max(first.map_or(f64::INFINITY, |at| at.since(released).as_secs_f64()));
    }
    // Anything up to two seconds will do; nothing is earlier than the order.
    vec![
        Finding::new("V15", "seconds from release to the first symbol, at most", 1.0, worst, 1.0)
            .by("at most 2", seeds),
    ]
}

fn pair(seed: u64) -> Setup {
    let modem = ModemConfig::new(waveform(2400, "S"));
    Setup::new(seed, &["ship", "shore"], EtherConfig::net(seed, 2, &modem, LinkConfig::default()))
}

/// A gate and a station without a switch: orders take force at once, commits are instant.
struct Radio {
    bearer: BearerId,
    gate: Gate,
    watch: EpochWatch,
    station: Station,
    other: PeerName,
    wake: Option<Instant>,
    emissions: VecDeque<Emission>,
    actions: VecDeque<ModemAction>,
}

impl Radio {
    fn new(id: StationId, modem: &ModemConfig) -> Self {
        let names = [PeerName::from("a"), PeerName::from("b")];
        let (own, far) = if id == A { (0, 1) } else { (1, 0) };
        let plan = modem.waveform.plan(modem, 262);
        let config = Config {
            name: names[own].clone(),
            station: own as u8,
            epoch: 1 + own as u32,
            fresh: true,
            highest: 0,
            reads: 0,
            waveform: LinkWaveform {
                rate: plan.rate,
                preamble: plan.preamble,
                block: plan.block,
                tail_bits: plan.tail_bits,
                frame_bytes: plan.frame_bytes,
                turnaround: plan.turnaround,
            },
            named: WaveformName { rate: plan.rate, interleaver: plan.interleaver.as_str().into() },
            choices: Vec::new(),
            peers: vec![PeerConfig {
                name: names[far].clone(),
                station: far as u8,
                protection: Protection::Mac,
                keys: vec![LinkKey { id: 0, secret: [7; 32] }],
                assumed_loss: 0.1,
            }],
            blind: Default::default(),
            max_transmission: Duration::from_secs(30),
            max_transmission_routine: Duration::from_secs(30),
            carrier_stuck_after: Duration::from_secs(180),
            net: String::new(),
            siblings: Default::default(),
            max_partials: 64,
            max_partial_bytes: 1 << 20,
            seed: 15,
        };
        let bearer = BearerId::from("hf");
        let mut gate = Gate::new();
        gate.add(
            bearer.clone(),
            Some(order(Now { at: Instant::ZERO, wall: crate::world::START, set: true }, State::Open)),
        );
        let watch = gate.watch(&bearer).expect("just added");
        Self {
            station: Station::new(Instant::ZERO, config, Vec::new()),
            other: names[far].clone(),
            bearer,
            gate,
            watch,
            wake: None,
            emissions: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    fn order(&mut self, now: Now, state: State) {
        let lowest = match &state {
            State::Open | State::Window(_) => Some(Precedence::Deferred),
            State::Restricted(floor) => Some(*floor),
            State::AckOnly | State::Silent => None,
        };
        self.gate.set(&self.bearer, Some(order(now, state)));
        self.station.carry_from(lowest);
        // Nothing is known of which of the two is tighter, so both ends of it: break off, then see what may go on.
        self.actions.push_back(ModemAction::Abort);
        self.station.aborted(now.at);
        self.station.resume_air(now.at);
        self.pump(now);
    }

    fn send(&mut self, now: Now, counter: u32, precedence: Precedence, size: usize) {
        if self.station.sizes().outgoing < 6 {
            let id =
                TransferId { origin: PeerName::from(if &*self.other.0 == "b" { "a" } else { "b" }), epoch: 1, counter };
            let payload: std::sync::Arc<[u8]> = vec![counter as u8; size].into();
            self.station.send(
                now.at,
                Transfer { id, to: self.other.clone(), precedence, payload, cut: Cut::Narrow, lead: None },
            );
            self.pump(now);
        }
    }

    fn look_at_the_clock(&mut self, now: Now) {
        self.station.resume_air(now.at);
        self.keep_to_time(now);
        self.pump(now);
    }

    /// What a switch does when an order or a window begins or ends.
    fn keep_to_time(&mut self, now: Now) {
        if self.station.is_keying() && self.gate.must_stop(now, &self.bearer) {
            self.actions.push_back(ModemAction::Abort);
            self.station.aborted(now.at);
        }
        if self.gate.allows(now, &self.bearer, Purpose::Traffic(Precedence::Override), Duration::ZERO).is_ok() {
            self.station.resume_air(now.at);
        }
    }

    fn pump(&mut self, now: Now) {
        loop {
            let mut moved = false;
            while let Some(want) = self.station.want(now.at) {
                match self.gate.permit(now, &self.bearer, want.purpose, want.airtime) {
                    Ok(permit) => {
                        let Some(emission) = self.station.poll_emission(now.at, permit) else { break };
                        self.emissions.push_back(emission);
                        moved = true;
                    }
                    Err(silence) => {
                        self.station.silenced(now.at, silence);
                        break;
                    }
                }
            }
            while let Some(action) = self.station.poll_action() {
                self.actions.push_back(action);
            }
            while let Some(event) = self.station.poll_event() {
                moved = true;
                match event {
                    Event::Persist { ticket, .. } => self.station.stored(now.at, ticket, true),
                    Event::Job { ticket, job } => self.station.job_done(now.at, ticket, fec::run(job)),
                    Event::Whole { ticket, .. } => self.station.settled(now.at, ticket, Verdict::Accepted),
                    Event::Confirmed { id, .. } | Event::Refused { id, .. } => self.station.cancel(now.at, &id),
                    Event::Keyed { .. }
                    | Event::Unkeyed { .. }
                    | Event::Progress { .. }
                    | Event::SentBlind { .. }
                    | Event::Lacks { .. }
                    | Event::Shared(_)
                    | Event::Alarm(_)
                    | Event::EpochUsed { .. } => {}
                }
            }
            if !moved {
                break;
            }
        }
        let change = self.gate.next_change(now).filter(|_| now.set);
        self.wake = change.map(|wall| now.at + wall.since(now.wall).max(Duration::from_millis(1)));
    }
}

impl Host for Radio {
    fn handle_modem(&mut self, now: Now, _: usize, event: ModemEvent) {
        self.station.handle_modem(now.at, event);
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.station.next_timeout().is_some_and(|at| at <= now.at) {
            self.station.handle_timeout(now.at);
        }
        if self.wake.is_some_and(|at| at <= now.at) {
            self.keep_to_time(now);
        }
        self.pump(now);
    }

    fn poll_emission(&mut self, now: Now) -> Option<(usize, Keying)> {
        while let Some(emission) = self.emissions.pop_front() {
            if let Some(keying) = emission.redeem(&self.watch, now.at) {
                return Some((0, keying));
            }
        }
        None
    }

    fn poll_action(&mut self) -> Option<(usize, ModemAction)> {
        self.actions.pop_front().map(|action| (0, action))
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.station.next_timeout().into_iter().chain(self.wake).min()
    }
}

fn order(now: Now, state: State) -> Order {
    Order {
        state,
        since: now.wall,
        from: None,
        until: None,
        base: None,
        reason: "check".into(),
        author: "check".into(),
    }
}
