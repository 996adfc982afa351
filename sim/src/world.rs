//! Virtual time: an ether, one host per station, and nothing that waits.
//!
//! A [`Host`] is whatever sits at the other end of a modem's cable: a link core, a whole switch, a test's parrot. It may have several
//! modems, each on a frequency of its own: in an ether of as many stations for each host, station `port * hosts + host`. The world
//! steps to the earliest timeout, lets the ether act, then every host in order, and goes on until all are quiet at that instant;
//! ties fall by (time, station, sequence), so that one seed is one run. Called by scenarios, benches and checks.

use std::collections::BTreeSet;

use aldis::bearer::{ModemAction, ModemEvent};
use aldis::emcon::Keying;
use aldis::time::{Instant, Now, Wall};

use crate::ether::{Ether, StationId};
use crate::trace::Trace;

/// What a modem is cabled to.
pub trait Host {
    /// Takes what the modem at `port` says; 0 is the first.
    fn handle_modem(&mut self, now: Now, port: usize, event: ModemEvent);
    /// Acts on every deadline at or before `now`.
    fn handle_timeout(&mut self, now: Now);
    /// What to key or feed next, at which port. A host that holds an `Emission` redeems it here; a stale one is skipped.
    fn poll_emission(&mut self, now: Now) -> Option<(usize, Keying)>;
    /// What to tell a modem that does not radiate. Of what a host says in one turn an abort is carried out first, so that an
    /// order of silence overtakes emissions, and an unkey last, so that it follows the bytes fed with it.
    fn poll_action(&mut self) -> Option<(usize, ModemAction)>;
    /// When `handle_timeout` next has work.
    fn next_timeout(&self) -> Option<Instant>;
}

/// A station's civil clock against virtual time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StationClock {
    /// What it showed at virtual time zero.
    pub start: Wall,
    /// Whether it may be trusted.
    pub set: bool,
}

impl StationClock {
    /// What the station knows about time at `at`.
    pub fn now(self, at: Instant) -> Now {
        Now { at, wall: self.start.plus(at.since(Instant::ZERO)), set: self.set }
    }
}

/// 2026-11-23T10:00:00Z: when virtual time zero is, unless a scenario says otherwise.
pub const START: Wall = Wall::from_seconds(1_795_428_000);

/// Calls at one instant after which a world is taken to be spinning.
const SPIN: u32 = 100_000;

/// An ether with its hosts.
///
/// A host changes only when it is called. So only those called since are asked for words and for their next deadline: a step costs
/// what its own stations cost, however many others there are.
#[derive(Debug)]
pub struct World<H> {
    ether: Ether,
    hosts: Vec<H>,
    clocks: Vec<StationClock>,
    at: Instant,
    trace: Trace,
    /// When each host is next due, and the same in order of time.
    due: Vec<Option<Instant>>,
    agenda: BTreeSet<(Instant, usize)>,
    /// Called since they were last asked for words; since they were last asked for a deadline; since the driver last asked.
    vocal: BTreeSet<usize>,
    stale: BTreeSet<usize>,
    touched: BTreeSet<usize>,
}

impl<H: Host> World<H> {
    /// Cables `hosts` to the stations of `ether`, in order, once for each frequency; all clocks set and right.
    pub fn new(ether: Ether, hosts: Vec<H>, trace: Trace) -> Self {
        let all: BTreeSet<usize> = (0..hosts.len()).collect();
        let mut world = Self {
            ether,
            clocks: vec![StationClock { start: START, set: true }; hosts.len()],
            due: vec![None; hosts.len()],
            agenda: BTreeSet::new(),
            vocal: all.clone(),
            stale: all.clone(),
            touched: all,
            hosts,
            at: Instant::ZERO,
            trace,
        };
        world.settle();
        world
    }

    /// Steps until nothing is due at or before `end`, and leaves the time at `end`.
    ///
    /// # Panics
    ///
    /// When a host asks to be woken at one instant again and again: that is a bug in the host.
    pub fn run_until(&mut self, end: Instant) {
        while self.step_before(end) {}
        self.at = self.at.max(end);
    }

    /// Takes the next step if it is due at or before `end`; false, with the time left where it is, when there is none.
    pub fn step_before(&mut self, end: Instant) -> bool {
        let Some(at) = self.next_timeout().filter(|&at| at <= end) else { return false };
        self.step(at);
        true
    }

    /// Steps until `done` or until nothing is due at or before `end`; true when `done`. The time stays where it became so.
    pub fn run_while(&mut self, end: Instant, mut done: impl FnMut(&[H]) -> bool) -> bool {
        while !done(&self.hosts) {
            if !self.step_before(end) {
                return false;
            }
        }
        true
    }

    /// When something is next due; never before now.
    pub fn next_timeout(&self) -> Option<Instant> {
        let host = self.agenda.first().map(|(at, _)| *at);
        host.into_iter().chain(self.ether.next_timeout()).min().map(|at| at.max(self.at))
    }

    /// The hosts that were called since this was last asked.
    pub fn take_touched(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.touched)
    }

    /// Virtual time.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// What a station knows about time.
    pub fn now(&self, id: StationId) -> Now {
        self.clock(id).now(self.at)
    }

    /// The host at the other end of a radio's cable, and the port there.
    pub fn cabled(&self, radio: StationId) -> (StationId, usize) {
        let (radio, hosts) = (usize::from(radio.0), self.hosts.len().max(1));
        (StationId(u16::try_from(radio % hosts).unwrap_or(u16::MAX)), radio / hosts)
    }

    /// The radio at a host's port.
    pub fn radio(&self, host: StationId, port: usize) -> StationId {
        StationId(u16::try_from(port * self.hosts.len() + usize::from(host.0)).unwrap_or(u16::MAX))
    }

    /// The radios of a host that are in the ether.
    pub fn radios(&self, host: StationId) -> impl Iterator<Item = StationId> + use<H> {
        let hosts = self.hosts.len();
        self.ether.ids().filter(move |radio| usize::from(radio.0) % hosts.max(1) == usize::from(host.0))
    }

    /// Sets a station's civil clock, wrong or unset if need be (link-rules A7).
    pub fn set_clock(&mut self, id: StationId, clock: StationClock) {
        if let Some(slot) = self.clocks.get_mut(usize::from(id.0)) {
            *slot = clock;
        }
    }

    /// The ether, with its antenna log and counters.
    pub fn ether(&self) -> &Ether {
        &self.ether
    }

    /// Does something to the frequency at the present instant: an outage, a failure.
    pub fn disturb(&mut self, act: impl FnOnce(&mut Ether, Instant)) {
        act(&mut self.ether, self.at);
        self.settle();
    }

    /// The hosts.
    pub fn hosts(&self) -> &[H] {
        &self.hosts
    }

    /// Does something to a host at the present instant (an order, new mail, a restart), then lets everybody react.
    pub fn with_host<R>(&mut self, id: StationId, act: impl FnOnce(&mut H, Now) -> R) -> Option<R> {
        let now = self.now(id);
        let result = self.hosts.get_mut(usize::from(id.0)).map(|host| act(host, now));
        self.called(usize::from(id.0));
        self.settle();
        result
    }

    /// Takes something from a host that changes neither its words nor its deadlines; nobody reacts.
    pub fn with_host_quietly<R>(&mut self, id: StationId, take: impl FnOnce(&mut H) -> R) -> Option<R> {
        self.hosts.get_mut(usize::from(id.0)).map(take)
    }

    /// A station's civil clock.
    pub fn clock(&self, id: StationId) -> StationClock {
        let unset = StationClock { start: START, set: false };
        self.clocks.get(usize::from(id.0)).copied().unwrap_or(unset)
    }

    /// The record of the run, for the driver's own lines.
    pub fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// The record of the run.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    fn step(&mut self, at: Instant) {
        let mut turns = 0;
        self.at = at;
        // A host may set its next deadline to this very instant; that is one more turn, not one more instant.
        while self.next_timeout().is_some_and(|t| t <= at) {
            turns += 1;
            assert!(turns < SPIN, "a station spins at {at:?}");
            self.ether.handle_timeout(at);
            self.settle();
            let mut from = 0;
            while let Some(i) = self.next_due(at, from) {
                let now = self.clocks[i].now(at);
                self.hosts[i].handle_timeout(now);
                self.called(i);
                self.settle();
                from = i + 1;
            }
        }
    }

    /// The first host from `from` on that is due at `at`.
    fn next_due(&self, at: Instant, from: usize) -> Option<usize> {
        let due = self.agenda.iter().take_while(|(t, _)| *t <= at).map(|(_, i)| *i);
        due.filter(|i| *i >= from).min()
    }

    fn called(&mut self, i: usize) {
        if i < self.hosts.len() {
            self.vocal.insert(i);
            self.stale.insert(i);
            self.touched.insert(i);
        }
    }

    /// Carries words between hosts and modems until nobody has any left.
    fn settle(&mut self) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < SPIN, "a station talks without end at {:?}", self.at);
            let mut quiet = true;
            while let Some((id, output)) = self.ether.poll() {
                quiet = false;
                self.trace.modem(self.at, id, &output);
                let (host, port) = self.cabled(id);
                let now = self.now(host);
                if let (Some(listener), Some(event)) = (self.hosts.get_mut(usize::from(host.0)), output.event()) {
                    listener.handle_modem(now, port, event);
                    self.called(usize::from(host.0));
                }
            }
            for i in std::mem::take(&mut self.vocal) {
                quiet &= !self.carry(i);
            }
            if quiet {
                break;
            }
        }
        for i in std::mem::take(&mut self.stale) {
            let due = self.hosts[i].next_timeout();
            if due != self.due[i] {
                if let Some(at) = self.due[i] {
                    self.agenda.remove(&(at, i));
                }
                self.agenda.extend(due.map(|at| (at, i)));
                self.due[i] = due;
            }
        }
    }

    /// Carries one host's words to its modems; true when there were any.
    fn carry(&mut self, i: usize) -> bool {
        let (at, id) = (self.at, StationId(u16::try_from(i).unwrap_or(u16::MAX)));
        let now = self.clocks[i].now(at);
        let (mut spoke, mut unkeys) = (false, BTreeSet::new());
        while let Some((port, action)) = self.hosts[i].poll_action() {
            spoke = true;
            match action {
                ModemAction::Unkey => drop(unkeys.insert(port)),
                // A modem that has no such waveform keeps the one it has, and the bytes are lost: the profile was wrong.
                ModemAction::Transmit(name) => {
                    self.ether.select(self.radio(id, port), name.rate.0, &name.interleaver);
                }
                ModemAction::Abort => {
                    unkeys.remove(&port);
                    self.ether.abort(at, self.radio(id, port));
                }
            }
        }
        while let Some((port, keying)) = self.hosts[i].poll_emission(now) {
            spoke = true;
            let radio = self.radio(id, port);
            match keying {
                Keying::Key => self.ether.key(at, radio),
                Keying::Feed(bytes) => {
                    self.trace.fed(at, radio, &bytes);
                    self.ether.feed(at, radio, &bytes);
                }
                // For networks.
                Keying::Datagram { .. } | Keying::Igmp { .. } | Keying::Join | Keying::Membership { .. } => {}
            }
        }
        for port in unkeys {
            self.ether.unkey(at, self.radio(id, port));
        }
        spoke
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use aldis::time::Duration;

    use super::*;
    use crate::channel::{Damage, Loss};
    use crate::ether::{EtherConfig, LinkConfig};
    use crate::modem::ModemConfig;
    use crate::waveform::Waveform;

    #[test]
    fn a_ball_goes_back_and_forth_for_a_virtual_day_and_twice_the_same() {
        let run = |seed| {
            let mut world = court(seed, 3);
            world.run_until(Instant::from_millis(86_400_000));
            let rallies: Vec<u32> = world.hosts().iter().map(|h| h.played).collect();
            world.ether().balance().expect("every byte accounted for");
            (world.trace().hash(), rallies)
        };
        let (hash, rallies) = run(1);
        assert!(rallies.iter().sum::<u32>() > 1000, "{rallies:?}");
        assert_eq!(run(1), (hash.clone(), rallies));
        assert_ne!(run(2).0, hash);
    }

    #[test]
    fn an_abort_overtakes_emissions_that_wait() {
        let mut world = court(1, 2);
        world.run_until(Instant::from_millis(10));
        world.with_host(StationId(0), |h, _| {
            h.emissions.push_back(Keying::Key);
            h.actions.push_back(ModemAction::Abort);
        });
        // The serve asked for at the start is withdrawn, then asked for anew.
        world.run_until(Instant::from_millis(200));
        let edges: Vec<Instant> = world.ether().antenna_log().iter().map(|e| e.at).collect();
        assert_eq!(edges, [Instant::from_millis(110)]);
    }

    #[test]
    fn time_stands_where_the_goal_was_reached() {
        let mut world = court(1, 2);
        assert!(world.run_while(Instant::from_millis(100_000), |hosts| hosts[1].heard > 0));
        let w = Waveform::find(2400, "S").expect("known");
        assert_eq!(world.at(), Instant::from_millis(100) + w.airtime(100));
        assert_eq!(world.now(StationId(0)).wall, START.plus(world.at().since(Instant::ZERO)));
        assert!(!world.run_while(Instant::from_millis(200_000), |_| false));
    }

    #[test]
    fn the_start_of_virtual_time_reads_as_documented() {
        assert_eq!(START.rfc3339(), "2026-11-23T10:00:00.000Z");
    }

    fn court(seed: u64, n: u16) -> World<Player> {
        let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
        let loss = Loss::Cells { bytes: 50, p: 0.05, damage: Damage::Garbage };
        let ether = Ether::new(EtherConfig::net(seed, n, &modem, LinkConfig { loss, ..LinkConfig::default() }));
        let hosts = (0..n).map(Player::new).collect();
        World::new(ether, hosts, Trace::hashed())
    }

    /// Returns the ball when it hears one, and serves after a silence.
    struct Player {
        number: u16,
        played: u32,
        heard: usize,
        serve_at: Option<Instant>,
        emissions: VecDeque<Keying>,
        actions: VecDeque<ModemAction>,
    }

    impl Player {
        fn new(number: u16) -> Self {
            let mut player = Self {
                number,
                played: 0,
                heard: 0,
                serve_at: Some(Instant::from_millis(100_000 + 7919 * u64::from(number))),
                emissions: VecDeque::new(),
                actions: VecDeque::new(),
            };
            if number == 0 {
                player.emissions.push_back(Keying::Key);
            }
            player
        }
    }

    impl Host for Player {
        fn handle_modem(&mut self, now: Now, _: usize, event: ModemEvent) {
            match event {
                ModemEvent::Keyed => {
                    self.played += 1;
                    self.emissions.push_back(Keying::Feed(vec![self.number as u8; 100]));
                    self.actions.push_back(ModemAction::Unkey);
                }
                ModemEvent::Received(bytes) => self.heard += bytes.len(),
                ModemEvent::Carrier(false) if self.heard > 0 => {
                    self.serve_at = Some(now.at + Duration::from_millis(700 * u64::from(self.number)));
                }
                ModemEvent::Carrier(_) | ModemEvent::Unkeyed | ModemEvent::Measured(_) => {}
                ModemEvent::Fault(_) | ModemEvent::Ready => {}
            }
        }

        fn handle_timeout(&mut self, now: Now) {
            if self.serve_at.is_some_and(|t| t <= now.at) {
                self.serve_at = Some(now.at + Duration::from_secs(120));
                self.heard = 0;
                self.emissions.push_back(Keying::Key);
            }
        }

        fn poll_emission(&mut self, _: Now) -> Option<(usize, Keying)> {
            self.emissions.pop_front().map(|keying| (0, keying))
        }

        fn poll_action(&mut self) -> Option<(usize, ModemAction)> {
            self.actions.pop_front().map(|action| (0, action))
        }

        fn next_timeout(&self) -> Option<Instant> {
            self.serve_at
        }
    }
}
