//! One half-duplex HF frequency: modems, who hears whom, and what happens when they key.
//!
//! Sans-IO and clockless like every core of the product: the driver calls in with the time, drains [`Ether::poll`], and comes
//! back at [`Ether::next_timeout`]. The virtual-time [`World`](crate::world::World) and the real-time
//! [`bridge`](crate::bridge) drive the same code. It promises:
//!
//! - the first preamble symbol leaves at max(request + key delay, end of the last carrier + turnaround), every later instant
//!   follows from whole symbols, and a transmission of `b` bytes lasts exactly [`Waveform::airtime`]`(b)`;
//! - a keyed station is deaf, and carriers that meet at a receiver ruin each other unless 10 dB apart;
//! - every edge of every antenna stands in [`Ether::antenna_log`] (link-rules B2), and every byte in a counter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use aldis::bearer::{Measurement, WaveformName};
use aldis::time::{Duration, Instant};
use aldis::units::Bps;
use serde::Serialize;

use crate::channel::{Loss, Passage, Preamble, Span, normal};
use crate::journal::{Journal, Outcome};
use crate::modem::{Failure, ModemConfig, ModemOutput, StationStats, Transmitter};
use crate::rng::Stream;
use crate::waveform::Waveform;

/// How much stronger a carrier must be to be received over another.
pub const CAPTURE_DB: f64 = 10.0;

/// Least time between two readings of the ratio.
const READING: Duration = Duration::from_millis(500);

/// Parts in which a block is clocked out.
const PIECES: u32 = 8;

/// A station on the frequency, by its place in [`EtherConfig::stations`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct StationId(pub u16);

impl fmt::Display for StationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A directed path between two stations.
#[derive(Clone, PartialEq, Debug)]
pub struct LinkConfig {
    /// Level of the sender's carrier at the receiver, dB over anything; over the path's signal-to-noise ratio, where it has one.
    pub level_db: f64,
    /// Propagation.
    pub delay: Duration,
    /// What the path does to bytes.
    pub loss: Loss,
    /// Probability that a preamble is not recognised, whatever the path does to it: nothing at all is received then.
    pub preamble_miss: f64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self { level_db: 0.0, delay: Duration::ZERO, loss: Loss::Ideal, preamble_miss: 0.0 }
    }
}

/// Everything an [`Ether`] is made from.
#[derive(Clone, PartialEq, Debug)]
pub struct EtherConfig {
    /// Seeds every draw.
    pub seed: u64,
    /// The modems, one per station.
    pub stations: Vec<ModemConfig>,
    /// Who hears whom: from, to. What is absent hears nothing.
    pub links: BTreeMap<(StationId, StationId), LinkConfig>,
}

impl EtherConfig {
    /// A net of `n` equal stations that all hear each other over equal links.
    pub fn net(seed: u64, n: u16, modem: &ModemConfig, link: LinkConfig) -> Self {
        let ids = || (0..n).map(StationId);
        let links = ids().flat_map(|a| ids().filter(move |&b| a != b).map(move |b| (a, b)));
        let links = links.map(|ends| (ends, link.clone())).collect();
        Self { seed, stations: vec![modem.clone(); usize::from(n)], links }
    }
}

/// One edge at one antenna.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct AntennaEdge {
    /// When.
    #[serde(serialize_with = "nanos")]
    pub at: Instant,
    /// Whose antenna.
    pub station: StationId,
    /// Radiating from now on.
    pub on: bool,
}

fn nanos<S: serde::Serializer>(at: &Instant, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(at.0)
}

/// Counters of one directed link. Bytes of finished blocks only, padding included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LinkStats {
    /// Bytes that came past the receiver's antenna.
    pub offered: u64,
    /// Handed to the receiver's host whole.
    pub good: u64,
    /// Handed out as garbage, or deleted.
    pub damaged: u64,
    /// Not received at all: keyed, deaf, preamble missed, link down.
    pub missed: u64,
}

/// The frequency and all modems on it.
#[derive(Debug)]
pub struct Ether {
    seed: u64,
    now: Instant,
    stations: Vec<Station>,
    links: BTreeMap<(StationId, StationId), Link>,
    agenda: BTreeMap<(Instant, StationId, u64), Happening>,
    sequence: u64,
    outputs: VecDeque<(StationId, ModemOutput)>,
    antenna_log: Vec<AntennaEdge>,
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Link {
    config: LinkConfig,
    up: bool,
    stats: LinkStats,
}

#[derive(Debug)]
struct Station {
    config: ModemConfig,
    key: Key,
    /// Voids what was put on the agenda for an earlier key-down.
    keying: u64,
    /// End of the last carrier, heard or own.
    quiet_since: Option<Instant>,
    /// Carriers in the air here, whether received or not.
    present: BTreeMap<StationId, Carrier>,
    lock: Option<Lock>,
    /// Carrier detect as the modem finds it, and as the line shows it.
    detects: bool,
    shows: bool,
    /// Clocked output goes on until then.
    output_until: Instant,
    clear_to_send: bool,
    rts: bool,
    dtr: bool,
    armed: bool,
    failures: BTreeSet<Failure>,
    stats: StationStats,
}

#[derive(Debug)]
enum Key {
    Up,
    /// Asked for; nothing radiates yet. `ended`: the line has dropped again with bytes in the buffer.
    Requested {
        content: Transmitter,
        ended: bool,
        waiting: bool,
    },
    Down {
        content: Transmitter,
        since: Instant,
        number: u64,
        ended: bool,
        aborting: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Carrier {
    number: u64,
    level_db: f64,
}

/// The transmission a receiver is synchronised to.
#[derive(Debug)]
struct Lock {
    from: StationId,
    number: u64,
    level_db: f64,
    /// Synchronised to what came from here on.
    entered: Instant,
    preamble_end: Instant,
    /// The preamble was hit: all that follows is garbage.
    spoilt: bool,
    /// The block in progress was hit.
    hit: bool,
    /// The block before was lost to noise.
    failed: bool,
    /// When the host was last told how well this is heard.
    measured: Option<Instant>,
    waveform: Waveform,
    passage: Passage,
}

/// One block on its way.
#[derive(Debug)]
struct Sent {
    number: u64,
    first: u64,
    from: Instant,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Happening {
    /// The first preamble symbol is due.
    Start { keying: u64 },
    /// A block ends, the next begins, or the transmission is over.
    Boundary { keying: u64 },
    /// The carrier of an aborted transmission goes.
    Cut { keying: u64 },
    /// The modem's own key-down limit.
    Limit { keying: u64 },
    /// A preamble arrives, or a frame by which a transmission can be joined late.
    Hear { from: StationId, number: u64, waveform: Waveform, attempt: u64 },
    /// Carrier detect rises.
    Detect { from: StationId, number: u64 },
    /// The end of a block arrives.
    Block { from: StationId, number: u64, sent: Arc<Sent> },
    /// The end of a carrier arrives, with or without its end-of-message pattern.
    Gone { from: StationId, number: u64, whole: bool },
    /// A modem clocks bytes out.
    Output { bytes: Vec<u8> },
    /// A modem that missed the end hands out noise.
    Overhang { bytes: Vec<u8> },
    /// Carrier detect falls later than the carrier: it ended without a pattern, or output goes on.
    Undetect,
    /// False synchronisation.
    Noise { index: u64 },
}

impl Ether {
    /// A quiet frequency at time zero: ports open, all lines low.
    pub fn new(config: EtherConfig) -> Self {
        let mut ether = Self {
            seed: config.seed,
            now: Instant::ZERO,
            stations: config.stations.into_iter().map(Station::new).collect(),
            links: config
                .links
                .into_iter()
                .map(|(ends, config)| (ends, Link { config, up: true, stats: LinkStats::default() }))
                .collect(),
            agenda: BTreeMap::new(),
            sequence: 0,
            outputs: VecDeque::new(),
            antenna_log: Vec::new(),
            journal: None,
        };
        for id in ether.ids() {
            ether.plan_noise(id, 0);
        }
        ether
    }

    /// The host asks to transmit: it raises RTS.
    pub fn key(&mut self, now: Instant, id: StationId) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        station.rts = true;
        if station.armed {
            self.request(id);
        }
    }

    /// The host hands bytes to its modem. They are kept only while the key is requested or down, and as far as the buffer goes.
    pub fn feed(&mut self, now: Instant, id: StationId, bytes: &[u8]) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        station.stats.fed += bytes.len() as u64;
        match &mut station.key {
            Key::Requested { content, ended: false, .. } | Key::Down { content, ended: false, aborting: false, .. } => {
                station.stats.overrun += content.feed(bytes);
            }
            Key::Up | Key::Requested { .. } | Key::Down { .. } => station.stats.unkeyed += bytes.len() as u64,
        }
        self.show_clear_to_send(id);
    }

    /// The host lets go: it drops RTS. What was fed goes out, then the tail, then padding to the end of the block.
    pub fn unkey(&mut self, now: Instant, id: StationId) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        station.rts = false;
        station.armed = true;
        self.release(id);
    }

    /// The host wants silence: the carrier goes off after the modem's abort delay and what it holds is thrown away, the block
    /// in progress too. A modem that cannot abort sends out what it holds.
    pub fn abort(&mut self, now: Instant, id: StationId) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        station.rts = false;
        station.armed = true;
        match (&mut station.key, station.config.abort_delay) {
            (Key::Down { aborting: true, .. }, _) | (Key::Up, _) => {}
            (Key::Requested { .. } | Key::Down { .. }, None) => self.release(id),
            (Key::Requested { content, .. }, Some(_)) => {
                station.stats.discarded += content.queued();
                self.withdraw(id);
            }
            (Key::Down { content, aborting, ended, .. }, Some(delay)) => {
                station.stats.discarded += content.queued();
                *content = Transmitter::new(&station.config);
                *aborting = true;
                *ended = true;
                station.keying += 1;
                let keying = station.keying;
                self.show_clear_to_send(id);
                self.plan(self.now + delay, id, Happening::Cut { keying });
            }
        }
    }

    /// The host opens its port. With `raises_lines` RTS and DTR go up at once, as Linux does on every open of a serial port
    /// (link-rules B3); without an interlock that keys.
    pub fn open_port(&mut self, now: Instant, id: StationId, raises_lines: bool) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        station.dtr = raises_lines;
        station.rts = raises_lines;
        station.armed = !(raises_lines && station.config.interlock);
        if raises_lines && station.armed {
            self.request(id);
        }
    }

    /// The host closes its port, or dies: DTR and RTS fall, and what was fed still goes out.
    pub fn close_port(&mut self, now: Instant, id: StationId) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        station.dtr = false;
        station.rts = false;
        station.armed = true;
        self.release(id);
    }

    /// The host moves DTR. Nothing hangs on it but what [`Ether::lines`] shows.
    pub fn set_dtr(&mut self, now: Instant, id: StationId, up: bool) {
        self.advance(now);
        if let Some(station) = self.stations.get_mut(usize::from(id.0)) {
            station.dtr = up;
        }
    }

    /// Breaks or mends a modem.
    pub fn set_failure(&mut self, now: Instant, id: StationId, failure: Failure, broken: bool) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if broken {
            station.failures.insert(failure);
        } else {
            station.failures.remove(&failure);
        }
        if matches!(failure, Failure::Deaf | Failure::Restarting) && broken {
            station.lock = None;
            station.detects = false;
            station.output_until = Instant::ZERO;
        }
        if failure == Failure::Restarting {
            self.restart_modem(id, broken);
        } else if failure == Failure::Deaf && !broken {
            self.notice(id);
        }
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if let Key::Down { content, ended: true, aborting: false, .. } = &mut station.key
            && !station.failures.contains(&Failure::KeyStuck)
        {
            content.end();
        }
        self.show_carrier(id);
        self.resume(id);
    }

    /// Takes a path away or gives it back. What is in the air on it is cut off at once; a path that returns is heard again from
    /// the next preamble on.
    pub fn set_link(&mut self, now: Instant, from: StationId, to: StationId, up: bool) {
        self.advance(now);
        let Some(link) = self.links.get_mut(&(from, to)) else { return };
        link.up = up;
        let number = self.station(to).and_then(|s| s.present.get(&from)).map(|c| c.number);
        if let (false, Some(number)) = (up, number) {
            self.gone(to, from, number, false);
        }
    }

    /// Changes what a path does to bytes, from the next transmission on.
    pub fn set_loss(&mut self, from: StationId, to: StationId, loss: Loss) {
        if let Some(link) = self.links.get_mut(&(from, to)) {
            link.config.loss = loss;
        }
    }

    /// Changes what a station transmits with, from its next key request on.
    pub fn set_waveform(&mut self, id: StationId, waveform: Waveform) {
        if let Some(station) = self.stations.get_mut(usize::from(id.0)) {
            station.config.waveform = waveform;
        }
    }

    /// Tells a modem what to transmit with from its next key request on; false when it cannot.
    pub fn select(&mut self, id: StationId, rate: u32, interleaver: &str) -> bool {
        let Some(station) = self.stations.get_mut(usize::from(id.0)).filter(|s| s.config.selects) else { return false };
        let Some(waveform) = Waveform::selected(rate, interleaver) else { return false };
        station.config.waveform = *waveform;
        true
    }

    /// Acts on everything due at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// What a modem says next. Drain until `None` after each call.
    pub fn poll(&mut self) -> Option<(StationId, ModemOutput)> {
        self.outputs.pop_front()
    }

    /// When [`Ether::handle_timeout`] next has work.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.agenda.first_key_value().map(|(&(at, ..), _)| at)
    }

    /// Every edge of every antenna so far, in order: where silence is proved (link-rules B2).
    pub fn antenna_log(&self) -> &[AntennaEdge] {
        &self.antenna_log
    }

    /// Keeps a journal from now on.
    pub fn keep_journal(&mut self) {
        self.journal.get_or_insert_default();
    }

    /// The journal, when it is kept.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Whether a station radiates.
    pub fn radiates(&self, id: StationId) -> bool {
        self.station(id).is_some_and(|s| matches!(s.key, Key::Down { .. }))
    }

    /// Whether a station shows carrier detect.
    pub fn carrier(&self, id: StationId) -> bool {
        self.station(id).is_some_and(|s| s.shows)
    }

    /// A station's RTS and DTR.
    pub fn lines(&self, id: StationId) -> (bool, bool) {
        self.station(id).map_or((false, false), |s| (s.rts, s.dtr))
    }

    /// Fed bytes a modem holds that have not gone out whole.
    pub fn queued(&self, id: StationId) -> u64 {
        self.station(id).map_or(0, |s| match &s.key {
            Key::Up | Key::Down { aborting: true, .. } => 0,
            Key::Requested { content, .. } | Key::Down { content, .. } => content.queued(),
        })
    }

    /// A station's counters.
    pub fn stats(&self, id: StationId) -> StationStats {
        self.station(id).map(|s| s.stats).unwrap_or_default()
    }

    /// A link's counters.
    pub fn link_stats(&self, from: StationId, to: StationId) -> LinkStats {
        self.links.get(&(from, to)).map(|l| l.stats).unwrap_or_default()
    }

    /// A station's modem.
    pub fn modem(&self, id: StationId) -> Option<&ModemConfig> {
        self.station(id).map(|s| &s.config)
    }

    /// The stations.
    pub fn ids(&self) -> impl Iterator<Item = StationId> + use<> {
        (0..u16::try_from(self.stations.len()).unwrap_or(u16::MAX)).map(StationId)
    }

    /// Checks that no byte is unaccounted for: in = out + lost + queued, at every station and on every link whose sender is quiet.
    pub fn balance(&self) -> Result<(), String> {
        for id in self.ids() {
            let (s, queued) = (self.stats(id), self.queued(id));
            let sum = s.carried + s.overrun + s.unkeyed + s.discarded + queued;
            if s.fed != sum {
                return Err(format!("station {id}: {} bytes fed, {sum} accounted for", s.fed));
            }
        }
        for (&(from, to), link) in &self.links {
            let (s, sent) = (link.stats, self.stats(from));
            if s.offered != s.good + s.damaged + s.missed {
                return Err(format!("link {from} to {to}: {s:?} does not add up"));
            }
            let in_air = |h: &Happening| matches!(h, Happening::Block { from: sender, .. } if *sender == from);
            let quiet = !self.radiates(from) && !self.agenda.values().any(in_air);
            let out = sent.carried + sent.fill;
            if s.offered > out || (quiet && s.offered != out) {
                return Err(format!("link {from} to {to}: {out} bytes sent, {} came past", s.offered));
            }
        }
        Ok(())
    }

    fn station(&self, id: StationId) -> Option<&Station> {
        self.stations.get(usize::from(id.0))
    }

    fn plan(&mut self, at: Instant, id: StationId, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((at, id, self.sequence), happening);
    }

    fn say(&mut self, id: StationId, output: ModemOutput) {
        self.outputs.push_back((id, output));
    }

    fn advance(&mut self, now: Instant) {
        while let Some(entry) = self.agenda.first_entry() {
            let &(at, id, _) = entry.key();
            if at > now {
                break;
            }
            let happening = entry.remove();
            self.now = self.now.max(at);
            self.happen(id, happening);
        }
        self.now = self.now.max(now);
    }

    fn happen(&mut self, id: StationId, happening: Happening) {
        let at = self.now;
        match happening {
            Happening::Start { keying } => self.start(id, keying),
            Happening::Boundary { keying } => self.boundary(id, keying),
            Happening::Cut { keying } => {
                if self.station(id).is_some_and(|s| s.keying == keying) {
                    self.off(id, false);
                }
            }
            Happening::Limit { keying } => self.limit(id, keying),
            Happening::Hear { from, number, waveform, attempt } => self.hear(id, from, number, waveform, attempt),
            Happening::Detect { from, number } => self.detect(id, from, number),
            Happening::Block { from, number, sent } => self.block(id, from, number, &sent),
            Happening::Gone { from, number, whole } => self.gone(id, from, number, whole),
            Happening::Output { bytes } => {
                if self.station(id).is_some_and(|s| at <= s.output_until) {
                    self.say(id, ModemOutput::Received(bytes));
                }
            }
            Happening::Overhang { bytes } => {
                if self.station(id).is_some_and(|s| s.hears() && s.lock.is_none()) {
                    self.say(id, ModemOutput::Received(bytes));
                }
            }
            Happening::Undetect => {
                if let Some(station) = self.stations.get_mut(usize::from(id.0))
                    && station.lock.is_none()
                    && (!station.config.energy_detect || station.present.is_empty())
                {
                    station.detects = false;
                    self.show_carrier(id);
                }
            }
            Happening::Noise { index } => self.noise(id, index),
        }
    }

    // Keying.

    fn request(&mut self, id: StationId) {
        let now = self.now;
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if !matches!(station.key, Key::Up) || station.failures.contains(&Failure::Restarting) {
            return;
        }
        station.stats.over_carrier += u64::from(station.detects);
        station.key = Key::Requested { content: Transmitter::new(&station.config), ended: false, waiting: false };
        station.keying += 1;
        let at = (now + station.config.key_delay).max(station.earliest());
        let keying = station.keying;
        self.plan(at, id, Happening::Start { keying });
    }

    fn release(&mut self, id: StationId) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        match &mut station.key {
            Key::Up => {}
            Key::Requested { content, .. } if content.buffered() == 0 => self.withdraw(id),
            Key::Requested { ended, .. } => *ended = true,
            Key::Down { content, ended, .. } => {
                *ended = true;
                if !station.failures.contains(&Failure::KeyStuck) {
                    content.end();
                }
                self.show_clear_to_send(id);
            }
        }
    }

    /// A request ends before anything radiated.
    fn withdraw(&mut self, id: StationId) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        station.key = Key::Up;
        station.keying += 1;
        self.say(id, ModemOutput::Unkeyed);
    }

    /// A modem goes down with all it holds, or is back.
    fn restart_modem(&mut self, id: StationId, down: bool) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if !down {
            // Back with the line held up: one more thing an interlock is for.
            station.armed = !(station.rts && station.config.interlock);
            let again = station.rts && station.armed;
            self.say(id, ModemOutput::Ready);
            self.notice(id);
            if again {
                self.request(id);
            }
            return;
        }
        if let Key::Requested { content, .. } | Key::Down { content, aborting: false, .. } = &station.key {
            station.stats.discarded += content.queued();
        }
        let requested = matches!(station.key, Key::Requested { .. });
        self.say(id, ModemOutput::Fault("the modem restarts".to_owned()));
        if requested {
            self.withdraw(id);
        }
        self.off(id, false);
    }

    /// A request that waited for a carrier goes on.
    fn resume(&mut self, id: StationId) {
        let now = self.now;
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let holds = station.holds_off();
        let at = now.max(station.earliest());
        let keying = station.keying;
        if let Key::Requested { waiting, .. } = &mut station.key
            && *waiting
            && !holds
        {
            *waiting = false;
            self.plan(at, id, Happening::Start { keying });
        }
    }

    fn start(&mut self, id: StationId, keying: u64) {
        let now = self.now;
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if station.keying != keying {
            return;
        }
        let (earliest, holds) = (station.earliest(), station.holds_off());
        let Key::Requested { content, ended, waiting } = &mut station.key else { return };
        if holds {
            *waiting = true;
            return;
        }
        if earliest > now {
            // A carrier came and went since the request.
            self.plan(earliest, id, Happening::Start { keying });
            return;
        }
        let (mut content, ended) = (content.clone(), *ended);
        if ended && !station.failures.contains(&Failure::KeyStuck) {
            content.end();
        }
        let waveform = content.waveform;
        let number = station.stats.transmissions;
        station.stats.transmissions += 1;
        station.key = Key::Down { content, since: now, number, ended, aborting: false };
        station.lock = None;
        station.detects = false;
        let limit = station.config.max_key_down;
        if let Some(journal) = &mut self.journal {
            journal.begins(now, id, number, waveform);
        }
        self.show_carrier(id);
        self.edge(id, true);
        self.say(id, ModemOutput::Keyed { at: now });
        self.show_clear_to_send(id);
        self.plan(now + waveform.block_start(0), id, Happening::Boundary { keying });
        if let Some(limit) = limit {
            self.plan(now + limit, id, Happening::Limit { keying });
        }
        self.spread(id, Duration::ZERO, |from| Happening::Hear { from, number, waveform, attempt: 0 });
    }

    fn boundary(&mut self, id: StationId, keying: u64) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let Key::Down { content, since, number, .. } = &mut station.key else { return };
        if station.keying != keying {
            return;
        }
        let (since, number) = (*since, *number);
        if content.begun > 0 {
            let block = content.end_block();
            station.stats.carried += block.bytes.len() as u64 - block.fill;
            station.stats.fill += block.fill;
            if let Some(journal) = &mut self.journal {
                journal.carries(self.now, id, &block.bytes);
            }
            let (sent, waveform) = (content.begun - 1, content.waveform);
            let from = since + waveform.block_start(sent);
            let sent = Arc::new(Sent { number: sent, first: block.first, from, bytes: block.bytes });
            let over = content.length == Some(content.begun);
            if !over {
                content.begin_block();
            }
            let next = since + content.waveform.block_start(content.begun);
            self.spread(id, waveform.delay(), |from| Happening::Block { from, number, sent: sent.clone() });
            if over {
                self.off(id, true);
            } else {
                self.show_clear_to_send(id);
                self.plan(next, id, Happening::Boundary { keying });
            }
        } else {
            content.begin_block();
            let next = since + content.waveform.block_start(1);
            self.show_clear_to_send(id);
            self.plan(next, id, Happening::Boundary { keying });
        }
    }

    fn limit(&mut self, id: StationId, keying: u64) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if station.keying != keying {
            return;
        }
        if let Key::Down { content, aborting: false, .. } = &station.key {
            station.stats.discarded += content.queued();
        }
        self.say(id, ModemOutput::Fault("key-down limit of the modem reached".to_owned()));
        self.off(id, false);
        self.say(id, ModemOutput::Ready);
    }

    fn off(&mut self, id: StationId, whole: bool) {
        let now = self.now;
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let Key::Down { since, number, .. } = station.key else { return };
        station.stats.air += now.since(since);
        station.key = Key::Up;
        station.keying += 1;
        station.quiet_since = Some(now);
        if let Some(journal) = &mut self.journal {
            journal.ends(now, id, whole);
        }
        self.edge(id, false);
        self.show_clear_to_send(id);
        self.say(id, ModemOutput::Unkeyed);
        self.spread(id, Duration::ZERO, |from| Happening::Gone { from, number, whole });
        self.notice(id);
    }

    fn edge(&mut self, station: StationId, on: bool) {
        let at = self.now;
        self.antenna_log.push(AntennaEdge { at, station, on });
        self.say(station, ModemOutput::Antenna { on, at });
    }

    fn show_clear_to_send(&mut self, id: StationId) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let shows = match &station.key {
            Key::Down { content, ended: false, aborting: false, .. } => {
                // Falls at three quarters, rises again at one half.
                let room = if station.clear_to_send { 3 } else { 2 };
                content.buffered() < station.config.buffer_bytes / 4 * room
            }
            Key::Up | Key::Requested { .. } | Key::Down { .. } => false,
        };
        if shows != station.clear_to_send {
            station.clear_to_send = shows;
            self.say(id, ModemOutput::Cts(shows));
        }
    }

    /// Sends something of `from` along every path, to arrive that much later than the wave.
    fn spread(&mut self, from: StationId, later: Duration, happening: impl Fn(StationId) -> Happening) {
        let paths: Vec<_> = self
            .links
            .range((from, StationId(0))..=(from, StationId(u16::MAX)))
            .map(|(&(_, to), link)| (to, self.now + link.config.delay + later))
            .collect();
        for (to, at) in paths {
            self.plan(at, to, happening(from));
        }
    }

    // Receiving.

    fn hear(&mut self, id: StationId, from: StationId, number: u64, waveform: Waveform, attempt: u64) {
        if waveform.late_entry() {
            // As long as it lasts, every frame is another chance.
            let goes_on =
                self.station(from).is_some_and(|s| matches!(s.key, Key::Down { number: n, .. } if n == number));
            if attempt > 0 && !goes_on {
                return;
            }
            let next = Happening::Hear { from, number, waveform, attempt: attempt + 1 };
            self.plan(self.now + waveform.preamble(), id, next);
        }
        let (now, seed) = (self.now, self.seed);
        let Some(Link { config: link, up: true, .. }) = self.links.get(&(from, id)) else { return };
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if attempt > 0 && (station.lock.is_some() || !station.hears()) {
            return;
        }
        let mut passage = Passage::new(seed, from.0, id.0, number, link.loss.clone(), &waveform);
        let Some(Preamble { snr_db, miss }) = passage.preamble(now, now + waveform.preamble()) else { return };
        let level_db = link.level_db + snr_db.unwrap_or(0.0);
        let miss = 1.0 - (1.0 - link.preamble_miss) * (1.0 - miss);
        let others = station.present.iter().filter(|(other, _)| **other != from);
        let rival = others.map(|(_, c)| c.level_db).fold(f64::NEG_INFINITY, f64::max);
        let known = station.present.insert(from, Carrier { number, level_db }).is_some_and(|c| c.number == number);
        let energy = station.config.energy_detect && !known;
        let detected = now + station.config.detection_delay.min(waveform.preamble());
        if station.hears() && self.locks(id, from, level_db, rival, attempt) {
            let name = [u64::from(from.0), u64::from(id.0), number, attempt];
            // The first draw keeps the name it has always had.
            let name = if attempt == 0 { &name[..3] } else { &name[..] };
            if !Stream::keyed(seed, "preamble", name).chance(miss) {
                let preamble_end = now + waveform.preamble();
                let spoilt = rival > level_db - CAPTURE_DB;
                let (entered, hit, failed, measured) = (now, false, false, None);
                let lock = Lock {
                    from,
                    number,
                    level_db,
                    entered,
                    preamble_end,
                    spoilt,
                    hit,
                    failed,
                    measured,
                    waveform,
                    passage,
                };
                self.stations[usize::from(id.0)].lock = Some(lock);
                self.plan(detected, id, Happening::Detect { from, number });
            }
        }
        if energy {
            self.plan(detected, id, Happening::Detect { from, number });
        }
    }

    /// Whether a carrier that begins here is strong enough to synchronise to; hits what it meets.
    fn locks(&mut self, id: StationId, from: StationId, level_db: f64, rival: f64, attempt: u64) -> bool {
        let now = self.now;
        let Some(lock) = self.stations.get_mut(usize::from(id.0)).and_then(|s| s.lock.as_mut()) else {
            // In the middle of a transmission nothing is joined that another carrier disturbs.
            return rival < level_db + CAPTURE_DB && (attempt == 0 || rival <= level_db - CAPTURE_DB);
        };
        debug_assert!(lock.from != from, "a carrier ends before the next of its sender begins");
        if lock.level_db >= level_db + CAPTURE_DB {
            return false;
        }
        lock.hit = true;
        lock.spoilt |= now < lock.preamble_end;
        level_db >= lock.level_db + CAPTURE_DB
    }

    /// A modem that detects energy looks again at what is in the air.
    fn notice(&mut self, id: StationId) {
        let Some(station) = self.station(id).filter(|s| s.config.energy_detect) else { return };
        let at = self.now + station.config.detection_delay;
        let present: Vec<(StationId, u64)> = station.present.iter().map(|(&from, c)| (from, c.number)).collect();
        for (from, number) in present {
            self.plan(at, id, Happening::Detect { from, number });
        }
    }

    fn detect(&mut self, id: StationId, from: StationId, number: u64) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let locked = station.lock.as_ref().is_some_and(|l| l.from == from && l.number == number);
        let energy = station.config.energy_detect && station.present.get(&from).is_some_and(|c| c.number == number);
        if locked || (energy && station.hears()) {
            station.detects = true;
            self.show_carrier(id);
        }
    }

    fn block(&mut self, id: StationId, from: StationId, number: u64, sent: &Sent) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&(from, id)) else { return };
        let length = sent.bytes.len() as u64;
        link.stats.offered += length;
        let begun = sent.from + link.config.delay;
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let lock = station.lock.as_mut().filter(|l| l.from == from && l.number == number && l.entered <= begun);
        let Some(lock) = lock else {
            link.stats.missed += length;
            if let Some(journal) = &mut self.journal {
                let deaf = matches!(station.key, Key::Down { .. }) || station.failures.contains(&Failure::Deaf);
                let outcome = if deaf { Outcome::Deaf } else { Outcome::Missed };
                journal.arrives(self.now, (from, id, number), outcome, None);
            }
            return;
        };
        let span = Span { number: sent.number, first: sent.first, from: begun, until: now };
        let ruined = lock.spoilt || lock.hit;
        let arrived =
            if ruined { lock.passage.ruin(&span, &sent.bytes) } else { lock.passage.pass(&span, &sent.bytes) };
        lock.failed = arrived.failed;
        let floor = lock.level_db - CAPTURE_DB;
        lock.hit = station.present.iter().any(|(&other, c)| other != from && c.level_db > floor);
        link.stats.good += arrived.good;
        link.stats.damaged += length - arrived.good;
        if let Some(journal) = &mut self.journal {
            let outcome = match arrived.good == length {
                true => Outcome::Good,
                false if ruined => Outcome::Collided,
                false => Outcome::Damaged,
            };
            journal.arrives(self.now, (from, id, number), outcome, Some((&arrived.bytes, arrived.snr_db)));
        }
        let due = lock.measured.is_none_or(|last| now >= last + READING);
        if let (Some(sigma), Some(db), false, true) = (station.config.snr_error_db, arrived.snr_db, ruined, due) {
            lock.measured = Some(now);
            let mut draw = Stream::keyed(self.seed, "snr reading", &[from.0.into(), id.0.into(), number, sent.number]);
            let tenths = ((db + sigma * normal::pair(&mut draw).0) * 10.0).clamp(-300.0, 600.0) as i16;
            let (rate, interleaver) = (Bps(lock.waveform.rate), lock.waveform.interleaver.into());
            let waveform = Some(WaveformName { rate, interleaver });
            let reading = Measurement { waveform, snr_tenths: Some(tenths), ber_tenths: None };
            self.outputs.push_back((id, ModemOutput::Measured(reading)));
        }
        if arrived.bytes.is_empty() {
            return;
        }
        if !station.config.clocked_output {
            self.say(id, ModemOutput::Received(arrived.bytes));
            return;
        }
        let block = lock.waveform.block();
        station.output_until = now + block;
        let piece = arrived.bytes.len().div_ceil(PIECES as usize);
        for (i, bytes) in (1..).zip(arrived.bytes.chunks(piece)) {
            self.plan(now + block * i / PIECES, id, Happening::Output { bytes: bytes.to_vec() });
        }
    }

    fn gone(&mut self, id: StationId, from: StationId, number: u64, whole: bool) {
        let now = self.now;
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if station.present.get(&from).is_none_or(|c| c.number != number) {
            return;
        }
        station.present.remove(&from);
        let locked = station.lock.as_ref().is_some_and(|l| l.from == from && l.number == number);
        let energy = station.config.energy_detect && station.detects && station.present.is_empty();
        if !locked && !energy {
            return;
        }
        station.quiet_since = Some(now);
        let delay = station.config.detection_delay;
        let lock = if locked { station.lock.take() } else { None };
        if !station.detects {
            return;
        }
        // Without an end-of-message pattern the modem finds out as late as it found the preamble.
        let (mut sees_end, mut overhang) = (whole && !station.config.energy_detect, None);
        if let Some(lock) = lock.filter(|l| whole && l.failed) {
            sees_end = false;
            let most = u128::from(lock.waveform.rate) * delay.as_millis() / 8000;
            overhang = Some(lock.passage.overhang(u64::try_from(most).unwrap_or(1)));
        }
        if sees_end && station.output_until <= now {
            station.detects = false;
            self.show_carrier(id);
            return;
        }
        let fall = station.output_until.max(if sees_end { now } else { now + delay });
        if let Some(bytes) = overhang {
            self.plan(fall, id, Happening::Overhang { bytes });
        }
        self.plan(fall, id, Happening::Undetect);
    }

    fn show_carrier(&mut self, id: StationId) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let shows = !station.failures.contains(&Failure::CarrierStuckOff)
            && (station.detects || station.failures.contains(&Failure::CarrierStuckOn));
        if shows != station.shows {
            station.shows = shows;
            self.say(id, ModemOutput::Carrier(shows));
        }
        self.resume(id);
    }

    fn plan_noise(&mut self, id: StationId, index: u64) {
        let Some(noise) = self.station(id).and_then(|s| s.config.noise) else { return };
        let twice = u64::try_from(noise.every.as_nanos()).unwrap_or(u64::MAX).saturating_mul(2).max(1);
        let wait = Stream::keyed(self.seed, "noise", &[u64::from(id.0), index]).below(twice) + 1;
        self.plan(self.now + Duration::from_nanos(wait), id, Happening::Noise { index });
    }

    fn noise(&mut self, id: StationId, index: u64) {
        let seed = self.seed;
        let Some(station) = self.station(id) else { return };
        let quiet = station.lock.is_none() && matches!(station.key, Key::Up) && station.failures.is_empty();
        if let (true, Some(noise)) = (quiet, station.config.noise) {
            let mut draw = Stream::keyed(seed, "noise bytes", &[u64::from(id.0), index]);
            let length = draw.below(u64::from(noise.bytes)) + 1;
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(1)];
            draw.fill(&mut bytes);
            self.say(id, ModemOutput::Received(bytes));
        }
        self.plan_noise(id, index + 1);
    }
}

impl Station {
    fn new(config: ModemConfig) -> Self {
        Self {
            config,
            key: Key::Up,
            keying: 0,
            quiet_since: None,
            present: BTreeMap::new(),
            lock: None,
            detects: false,
            shows: false,
            output_until: Instant::ZERO,
            clear_to_send: false,
            rts: false,
            dtr: false,
            armed: true,
            failures: BTreeSet::new(),
            stats: StationStats::default(),
        }
    }

    /// Before this instant the turnaround does not let a preamble out.
    fn earliest(&self) -> Instant {
        self.quiet_since.map_or(Instant::ZERO, |end| end + self.config.turnaround)
    }

    /// Whether the receiver works and nothing drowns it.
    fn hears(&self) -> bool {
        let broken = [Failure::Deaf, Failure::Restarting].iter().any(|f| self.failures.contains(f));
        !broken && !matches!(self.key, Key::Down { .. })
    }

    /// Whether the modem keeps its own key up because it receives.
    fn holds_off(&self) -> bool {
        self.config.waits_for_carrier && self.detects && !self.failures.contains(&Failure::CarrierStuckOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Damage;
    use crate::modem::Noise;
    use crate::waveform::Family;

    const A: StationId = StationId(0);
    const B: StationId = StationId(1);
    const C: StationId = StationId(2);

    #[test]
    fn a_transmission_lasts_exactly_as_long_as_the_formula_says() {
        for w in crate::waveform::TABLE {
            for size in [0usize, 1, 22, 23, 24, 157, 158, 159, 1012, 1418, 1419] {
                let mut lab = Lab::new(2, *w);
                lab.send(A, &vec![1; size]);
                lab.run();
                assert_eq!(lab.on_air(A), vec![(lab.keyed_at, lab.keyed_at + w.airtime(size as u64))], "{w:?} {size}");
                assert_eq!(lab.heard(B), vec![1; size]);
                let end = lab.keyed_at + w.airtime(size as u64);
                assert_eq!(lab.times(B, &ModemOutput::Carrier(false)), vec![end]);
                lab.ether.balance().expect("every byte accounted for");
            }
        }
    }

    #[test]
    fn bytes_come_out_at_the_end_of_the_block_their_last_bit_is_in() {
        let w = waveform(2400, "L");
        let mut lab = Lab::new(2, w);
        lab.send(A, &[9; 1500]);
        lab.run();
        let blocks: Vec<(Instant, usize)> = lab.received(B).map(|(at, b)| (at, b.len())).collect();
        let k = lab.keyed_at;
        assert_eq!(blocks, vec![(k + Duration::from_millis(9600), 1440), (k + Duration::from_millis(14_400), 60)]);
    }

    #[test]
    fn carrier_detect_rises_after_the_detection_delay() {
        let mut lab = Lab::new(2, waveform(2400, "L"));
        lab.send(A, b"x");
        lab.run();
        assert_eq!(lab.times(B, &ModemOutput::Carrier(true)), vec![lab.keyed_at + Duration::from_millis(200)]);
        assert_eq!(lab.times(A, &ModemOutput::Carrier(true)), vec![]);
    }

    #[test]
    fn the_answer_starts_one_turnaround_after_the_carrier_however_early_it_was_asked_for() {
        for asked_ms in [5_000, 9_600 + 100, 9_600 + 100 + 500, 20_000] {
            let w = waveform(2400, "L");
            let mut lab = Lab::new(2, w);
            lab.send(A, &[1; 1000]);
            lab.run_until(Instant::from_millis(asked_ms));
            lab.ether.key(Instant::from_millis(asked_ms), B);
            lab.run_until(Instant::from_millis(30_000));
            let end = 100 + 9600;
            let expected = (asked_ms + 100).max(end + 2000);
            assert_eq!(lab.on_air(B), vec![(Instant::from_millis(expected), Instant(u64::MAX))], "{asked_ms}");
            assert_eq!(lab.ether.stats(B).over_carrier, u64::from(asked_ms < end));
        }
    }

    #[test]
    fn own_transmissions_keep_the_turnaround_too() {
        let mut lab = Lab::new(2, waveform(2400, "S"));
        lab.send(A, b"one");
        lab.run();
        let end = lab.on_air(A)[0].1;
        lab.send(A, b"two");
        assert_eq!(lab.keyed_at, end + Duration::from_secs(2));
    }

    #[test]
    fn a_starved_transmitter_pads_until_the_key_goes_up() {
        let w = waveform(2400, "S");
        let mut lab = Lab::new(2, w);
        lab.ether.key(Instant::ZERO, A);
        lab.run_until(Instant::from_millis(100));
        lab.ether.feed(Instant::from_millis(100), A, &[5; 10]);
        // Preamble to 700, first block to 1300, second to 1900; the key goes up inside the second.
        lab.run_until(Instant::from_millis(1500));
        lab.ether.unkey(Instant::from_millis(1500), A);
        lab.run();
        let mut expected = vec![0; 360];
        expected[..10].fill(5);
        assert_eq!(lab.heard(B), expected);
        assert_eq!(lab.on_air(A), vec![(Instant::from_millis(100), Instant::from_millis(2500))]);
        let s = lab.ether.stats(A);
        assert_eq!((s.carried, s.fill, s.air), (10, 350, Duration::from_millis(2400)));
        lab.ether.balance().expect("every byte accounted for");
    }

    #[test]
    fn a_full_buffer_loses_what_is_fed_beyond_it() {
        let mut modem = ModemConfig::new(waveform(2400, "S"));
        modem.buffer_bytes = 100;
        let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
        lab.send(A, &[1; 150]);
        lab.run();
        assert_eq!((lab.heard(B).len(), lab.ether.stats(A).overrun), (100, 50));
        lab.ether.feed(lab.now, A, &[1; 7]);
        assert_eq!(lab.ether.stats(A).unkeyed, 7);
        lab.ether.balance().expect("every byte accounted for");
    }

    #[test]
    fn clear_to_send_follows_the_buffer() {
        let mut modem = ModemConfig::new(waveform(2400, "S"));
        modem.buffer_bytes = 400;
        let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
        lab.send(A, &[1; 400]);
        lab.run();
        let cts = |on| lab.times(A, &ModemOutput::Cts(on));
        // Up with the key, down when three quarters full; the key goes up before there is room again.
        assert_eq!((cts(true), cts(false)), (vec![lab.keyed_at], vec![lab.keyed_at]));
    }

    #[test]
    fn a_keyed_station_is_deaf() {
        let mut lab = Lab::new(3, waveform(2400, "S"));
        // B keys while A's preamble is not yet detected, so neither hears the other.
        lab.ether.key(Instant::ZERO, A);
        lab.run_until(Instant::from_millis(50));
        lab.ether.key(Instant::from_millis(50), B);
        lab.run_until(Instant::from_millis(150));
        for id in [A, B] {
            lab.ether.feed(Instant::from_millis(150), id, &[id.0 as u8 + 1; 1000]);
            lab.ether.unkey(Instant::from_millis(150), id);
        }
        lab.run();
        assert_eq!((lab.heard(A).len(), lab.heard(B).len()), (0, 0));
        assert_eq!(lab.ether.link_stats(A, B).missed, 1000);
        // At C the two meet: nothing good comes through.
        assert_eq!(lab.ether.link_stats(A, C).good + lab.ether.link_stats(B, C).good, 0);
        assert_eq!(lab.heard(C).len(), 1000);
        lab.ether.balance().expect("every byte accounted for");
    }

    #[test]
    fn a_hidden_station_ruins_the_blocks_it_overlaps_and_no_others() {
        let w = waveform(2400, "S");
        let mut config = EtherConfig::net(1, 3, &ModemConfig::new(w), LinkConfig::default());
        config.links.remove(&(A, C));
        config.links.remove(&(C, A));
        let mut lab = Lab::of(config);
        lab.send(A, &[1; 1700]);
        // A's preamble ends at 700 ms and its blocks every 600 ms; C is on from 3000 (inside block 3) to 4200 (the end of 5).
        lab.run_until(Instant::from_millis(2900));
        lab.ether.key(Instant::from_millis(2900), C);
        lab.run_until(Instant::from_millis(3000));
        lab.ether.unkey(Instant::from_millis(3000), C);
        lab.run();
        assert_eq!(lab.on_air(C), vec![(Instant::from_millis(3000), Instant::from_millis(4200))]);
        let good: Vec<bool> = lab.heard(B).chunks(180).map(|b| b.iter().all(|&x| x == 1)).collect();
        assert_eq!(good, [true, true, true, false, false, false, true, true, true, true]);
    }

    #[test]
    fn ten_decibels_decide_a_collision() {
        for (db, first_good, second_good) in [(9.9, false, false), (10.0, false, true), (-10.0, true, false)] {
            let w = waveform(2400, "S");
            let mut config = EtherConfig::net(1, 3, &ModemConfig::new(w), LinkConfig::default());
            config.links.remove(&(A, C));
            config.links.remove(&(C, A));
            config.links.insert((C, B), LinkConfig { level_db: db, ..LinkConfig::default() });
            let mut lab = Lab::of(config);
            lab.ether.key(Instant::ZERO, A);
            lab.run_until(Instant::from_millis(300));
            lab.ether.key(Instant::from_millis(300), C);
            lab.run_until(Instant::from_millis(400));
            for id in [A, C] {
                lab.ether.feed(Instant::from_millis(400), id, &[id.0 as u8 + 1; 500]);
                lab.ether.unkey(Instant::from_millis(400), id);
            }
            lab.run();
            let heard = lab.heard(B);
            assert_eq!(heard == vec![1; 500], first_good, "{db}");
            assert_eq!(heard == vec![3; 500], second_good, "{db}");
            lab.ether.balance().expect("every byte accounted for");
        }
    }

    #[test]
    fn cells_lost_are_the_same_however_the_sender_frames_and_whoever_else_is_there() {
        let loss = Loss::Cells { bytes: 100, p: 0.3, damage: Damage::Garbage };
        let pattern = |stations, chunk: usize| {
            let modem = ModemConfig::new(waveform(2400, "L"));
            let mut lab = Lab::of(EtherConfig::net(
                7,
                stations,
                &modem,
                LinkConfig { loss: loss.clone(), ..LinkConfig::default() },
            ));
            lab.ether.key(Instant::ZERO, A);
            lab.run_until(Instant::from_millis(100));
            for piece in vec![0xAA; 8000].chunks(chunk) {
                lab.ether.feed(Instant::from_millis(100), A, piece);
            }
            lab.ether.unkey(Instant::from_millis(100), A);
            lab.run();
            lab.heard(B)
        };
        let first = pattern(2, 8000);
        assert_eq!(first, pattern(2, 33));
        assert_eq!(first, pattern(5, 8000));
        let lost = first.chunks(100).filter(|c| c.iter().any(|&b| b != 0xAA)).count();
        assert!((12..=36).contains(&lost), "{lost} of 80 cells at p = 0.3");
    }

    #[test]
    fn a_missed_preamble_lets_nothing_through() {
        let link = LinkConfig { preamble_miss: 1.0, ..LinkConfig::default() };
        let mut lab = Lab::of(EtherConfig::net(1, 2, &ModemConfig::new(waveform(2400, "S")), link));
        lab.send(A, &[1; 500]);
        lab.run();
        assert!(lab.outputs.iter().all(|(_, id, _)| *id == A));
        assert_eq!(lab.ether.link_stats(A, B).missed, 500);
    }

    #[test]
    fn an_abort_silences_within_its_delay_and_loses_the_block_in_progress() {
        let mut lab = Lab::new(2, waveform(2400, "S"));
        lab.send(A, &[1; 1000]);
        // The third block runs from 1900 to 2500.
        lab.run_until(Instant::from_millis(2000));
        lab.ether.abort(Instant::from_millis(2000), A);
        lab.run();
        assert_eq!(lab.on_air(A), vec![(Instant::from_millis(100), Instant::from_millis(2050))]);
        assert_eq!(lab.heard(B), vec![1; 360]);
        // No end-of-message pattern: carrier detect falls late.
        assert_eq!(lab.times(B, &ModemOutput::Carrier(false)), vec![Instant::from_millis(2250)]);
        assert_eq!(lab.ether.stats(A).discarded, 640);
        lab.ether.balance().expect("every byte accounted for");
    }

    #[test]
    fn a_modem_that_cannot_abort_sends_out_what_it_holds() {
        let w = waveform(2400, "S");
        let mut modem = ModemConfig::new(w);
        modem.abort_delay = None;
        let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
        lab.send(A, &[1; 1000]);
        lab.run_until(Instant::from_millis(2000));
        lab.ether.abort(Instant::from_millis(2000), A);
        lab.run();
        assert_eq!(lab.on_air(A)[0].1, lab.keyed_at + w.airtime(1000));
        assert_eq!(lab.heard(B).len(), 1000);
    }

    #[test]
    fn a_request_withdrawn_in_time_never_radiates() {
        for abort in [false, true] {
            let mut lab = Lab::new(2, waveform(2400, "S"));
            lab.ether.key(Instant::ZERO, A);
            lab.run_until(Instant::from_millis(60));
            let at = Instant::from_millis(60);
            if abort {
                lab.ether.abort(at, A)
            } else {
                lab.ether.unkey(at, A)
            }
            lab.run();
            assert_eq!(lab.ether.antenna_log(), &[]);
            assert_eq!(lab.times(A, &ModemOutput::Unkeyed), vec![at]);
        }
    }

    #[test]
    fn b3_opening_a_port_radiates_only_without_an_interlock() {
        for interlock in [true, false] {
            let mut modem = ModemConfig::new(waveform(2400, "S"));
            modem.interlock = interlock;
            let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
            // Linux raises both lines on open; the host lowers them half a second later.
            lab.ether.open_port(Instant::ZERO, A, true);
            assert_eq!(lab.ether.lines(A), (true, true));
            lab.run_until(Instant::from_millis(500));
            lab.ether.unkey(Instant::from_millis(500), A);
            lab.run();
            assert_eq!(lab.ether.antenna_log().is_empty(), interlock);
            // Afterwards the key works either way.
            let before = lab.ether.stats(A).transmissions;
            lab.send(A, b"x");
            lab.run();
            assert_eq!(lab.ether.stats(A).transmissions, before + 1);
        }
    }

    #[test]
    fn a_host_that_dies_leaves_the_key_up_after_the_tail() {
        let w = waveform(2400, "S");
        let mut lab = Lab::new(2, w);
        lab.ether.key(Instant::ZERO, A);
        lab.run_until(Instant::from_millis(100));
        lab.ether.feed(Instant::from_millis(100), A, &[1; 100]);
        lab.run_until(Instant::from_millis(200));
        lab.ether.close_port(Instant::from_millis(200), A);
        lab.run();
        assert_eq!(lab.ether.lines(A), (false, false));
        assert_eq!(lab.on_air(A), vec![(Instant::from_millis(100), Instant::from_millis(100) + w.airtime(100))]);
    }

    #[test]
    fn the_key_down_limit_beats_a_stuck_key() {
        let mut modem = ModemConfig::new(waveform(2400, "S"));
        modem.max_key_down = Some(Duration::from_secs(10));
        let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
        lab.ether.set_failure(Instant::ZERO, A, Failure::KeyStuck, true);
        lab.send(A, &[1; 100]);
        lab.run();
        assert_eq!(lab.on_air(A), vec![(Instant::from_millis(100), Instant::from_millis(10_100))]);
        assert_eq!(lab.times(A, &ModemOutput::Ready), vec![Instant::from_millis(10_100)]);
        lab.ether.balance().expect("every byte accounted for");
    }

    #[test]
    fn carrier_detect_can_stick_either_way() {
        let mut lab = Lab::new(2, waveform(2400, "S"));
        lab.ether.set_failure(Instant::ZERO, B, Failure::CarrierStuckOn, true);
        assert!(lab.ether.carrier(B));
        lab.send(A, &[1; 100]);
        lab.run();
        assert!(lab.ether.carrier(B));
        assert_eq!(lab.heard(B).len(), 100);
        lab.ether.set_failure(lab.now, B, Failure::CarrierStuckOn, false);
        lab.ether.set_failure(lab.now, B, Failure::CarrierStuckOff, true);
        lab.run();
        let risen = lab.times(B, &ModemOutput::Carrier(true)).len();
        lab.send(A, &[1; 100]);
        lab.run();
        assert_eq!(lab.times(B, &ModemOutput::Carrier(true)).len(), risen);
        assert_eq!(lab.heard(B).len(), 200);
    }

    #[test]
    fn a_link_that_goes_down_cuts_what_is_in_the_air() {
        let mut lab = Lab::new(2, waveform(2400, "S"));
        lab.send(A, &[1; 1000]);
        lab.run_until(Instant::from_millis(2000));
        lab.ether.set_link(Instant::from_millis(2000), A, B, false);
        lab.run_until(Instant::from_millis(2300));
        lab.ether.set_link(Instant::from_millis(2300), A, B, true);
        lab.run();
        assert_eq!(lab.heard(B), vec![1; 360]);
        lab.ether.balance().expect("every byte accounted for");
        lab.send(A, &[2; 10]);
        lab.run();
        assert_eq!(lab.heard(B).len(), 370);
    }

    #[test]
    fn noise_comes_between_transmissions_only() {
        let mut modem = ModemConfig::new(waveform(2400, "S"));
        modem.noise = Some(Noise { every: Duration::from_millis(100), bytes: 8 });
        let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
        lab.send(A, &[0x42; 100]);
        let end = lab.keyed_at + waveform(2400, "S").airtime(100);
        lab.run_until(end);
        let during: Vec<Vec<u8>> = lab.received(B).filter(|(at, _)| *at > lab.keyed_at).map(|(_, b)| b).collect();
        assert_eq!(during, vec![vec![0x42; 100]]);
        lab.run_until(end + Duration::from_secs(60));
        let bursts = lab.received(B).count();
        assert!((450..=750).contains(&bursts), "{bursts} bursts in 60 s at ten a second");
    }

    #[test]
    fn a_convolutional_interleaver_delays_every_byte_by_its_length_and_flushes_once() {
        let w = Waveform::choose(Family::Stanag4285, 3, 2400, "L").expect("known");
        let mut lab = Lab::new(2, w);
        lab.send(A, &[9; 100]);
        lab.run();
        // 32 bytes a frame of 106.7 ms.
        let ends = |n: u64| lab.keyed_at + w.block_start(n) + w.delay();
        let blocks: Vec<(Instant, usize)> = lab.received(B).map(|(at, b)| (at, b.len())).collect();
        assert_eq!(blocks, vec![(ends(1), 32), (ends(2), 32), (ends(3), 32), (ends(4), 4)]);
        assert_eq!(lab.on_air(A)[0].1, lab.keyed_at + w.block_start(4 + 96));
        lab.ether.balance().expect("every byte accounted for");
    }

    #[test]
    fn a_waveform_without_preamble_is_joined_in_the_middle() {
        let w = Waveform::choose(Family::Stanag4285, 3, 2400, "S").expect("known");
        let mut lab = Lab::new(2, w);
        lab.ether.set_failure(Instant::ZERO, B, Failure::Deaf, true);
        let sent: Vec<u8> = (0..3200u32).map(|i| (i / 32) as u8).collect();
        lab.send(A, &sent);
        let mended = lab.keyed_at + Duration::from_millis(5_000);
        lab.run_until(mended);
        lab.ether.set_failure(mended, B, Failure::Deaf, false);
        lab.run();
        // A frame begins at 5013 ms, with 46 data frames before it; it is the first received.
        assert!(lab.heard(B) == sent[46 * 32..], "{}", lab.heard(B).len());
        lab.ether.balance().expect("every byte accounted for");
        // A preamble that is deaf to is deaf for good.
        let mut lab = Lab::new(2, waveform(2400, "S"));
        lab.ether.set_failure(Instant::ZERO, B, Failure::Deaf, true);
        lab.send(A, &sent);
        lab.run_until(mended);
        lab.ether.set_failure(mended, B, Failure::Deaf, false);
        lab.run();
        assert!(lab.heard(B).is_empty());
    }

    #[test]
    fn detection_by_energy_sees_carriers_whose_preamble_was_missed() {
        for energy in [false, true] {
            let modem = ModemConfig { energy_detect: energy, ..ModemConfig::new(waveform(2400, "S")) };
            let link = LinkConfig { preamble_miss: 1.0, ..LinkConfig::default() };
            let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, link));
            lab.send(A, &[1; 500]);
            lab.run();
            let (from, until) = lab.on_air(A)[0];
            let late = |at| if energy { vec![at + Duration::from_millis(200)] } else { vec![] };
            assert_eq!(lab.times(B, &ModemOutput::Carrier(true)), late(from));
            assert_eq!(lab.times(B, &ModemOutput::Carrier(false)), late(until));
            assert!(lab.heard(B).is_empty());
        }
    }

    #[test]
    fn a_carrier_that_outlasts_the_own_transmission_is_noticed_by_its_energy() {
        let modem =
            ModemConfig { energy_detect: true, waits_for_carrier: false, ..ModemConfig::new(waveform(2400, "S")) };
        let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
        lab.ether.key(Instant::ZERO, A);
        lab.ether.feed(Instant::ZERO, A, &[1; 3000]);
        lab.ether.unkey(Instant::ZERO, A);
        lab.send(B, &[2; 10]);
        lab.run();
        let own_end = lab.on_air(B)[0].1;
        assert!(lab.on_air(A)[0].1 > own_end + Duration::from_secs(5));
        assert_eq!(lab.times(B, &ModemOutput::Carrier(true)), vec![own_end + Duration::from_millis(200)]);
        assert!(lab.heard(B).is_empty());
    }

    #[test]
    fn clocked_output_takes_a_block_longer_and_carrier_detect_waits_for_it() {
        let w = waveform(2400, "S");
        let modem = ModemConfig { clocked_output: true, ..ModemConfig::new(w) };
        let mut lab = Lab::of(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
        let sent: Vec<u8> = (0..=149).collect();
        lab.send(A, &sent);
        lab.run();
        // Preamble and one block; its bytes follow over the next 600 ms.
        let end = lab.keyed_at + w.block_start(1);
        let times: Vec<Duration> = lab.received(B).map(|(at, _)| at.since(end)).collect();
        assert_eq!(times, (1..=8).map(|i| Duration::from_millis(75 * i)).collect::<Vec<_>>());
        assert_eq!(lab.heard(B), sent);
        assert_eq!(lab.times(B, &ModemOutput::Carrier(false)), vec![end + w.block()]);
    }

    #[test]
    fn a_modem_that_restarts_drops_everything_and_is_back_when_mended() {
        let mut lab = Lab::new(2, waveform(2400, "S"));
        lab.send(A, &[1; 1000]);
        let at = |ms| Instant::from_millis(ms);
        lab.run_until(at(2000));
        lab.ether.set_failure(at(2000), A, Failure::Restarting, true);
        lab.ether.key(at(3000), A);
        lab.ether.feed(at(3000), A, &[1; 10]);
        lab.run_until(at(10_000));
        assert_eq!(lab.on_air(A), vec![(at(100), at(2000))]);
        assert_eq!((lab.heard(B), lab.ether.stats(A).discarded, lab.ether.stats(A).unkeyed), (vec![1; 360], 640, 10));
        lab.ether.set_failure(at(10_000), A, Failure::Restarting, false);
        lab.run_until(at(20_000));
        // The line was up all the time: the interlock holds it until it has been low.
        assert_eq!(lab.on_air(A).len(), 1);
        assert_eq!(lab.times(A, &ModemOutput::Ready), vec![at(10_000)]);
        lab.ether.unkey(at(20_000), A);
        lab.send(A, &[2; 10]);
        lab.run();
        assert_eq!(lab.heard(B)[360..], [2; 10]);
        // A receiver that restarts loses what it was receiving.
        lab.send(A, &[3; 1000]);
        let middle = lab.keyed_at + Duration::from_millis(2000);
        lab.run_until(middle);
        lab.ether.set_failure(middle, B, Failure::Restarting, true);
        assert!(!lab.ether.carrier(B));
        lab.run();
        lab.ether.set_failure(lab.now, B, Failure::Restarting, false);
        assert_eq!(lab.heard(B)[370..], [3; 360]);
        lab.ether.balance().expect("every byte accounted for");
    }

    #[test]
    fn an_end_lost_in_noise_is_noticed_late_and_leaves_a_tail_of_garbage() {
        let script = crate::channel::Script::parse(["0 snr 20", "1 loss 1"]).expect("sound");
        let loss = Loss::Script { script: Arc::new(script), wreck: crate::channel::Wreck::default() };
        let mut lab = Lab::of(net_of_two(loss));
        lab.send(A, &[1; 500]);
        lab.run();
        let end = lab.on_air(A)[0].1;
        assert_eq!(lab.times(B, &ModemOutput::Carrier(false)), vec![end + Duration::from_millis(200)]);
        let tail: Vec<(Instant, usize)> = lab.received(B).map(|(at, b)| (at, b.len())).skip(3).collect();
        assert!(matches!(tail[..], [(at, 1..=61)] if at == end + Duration::from_millis(200)), "{tail:?}");
        lab.ether.balance().expect("every byte accounted for");
    }

    #[test]
    fn a_dead_path_carries_nothing_and_a_strong_one_decides_collisions_by_its_ratio() {
        let script = |line| Loss::Script {
            script: Arc::new(crate::channel::Script::parse([line]).expect("sound")),
            wreck: crate::channel::Wreck::default(),
        };
        let mut lab = Lab::of(net_of_two(script("0 dead")));
        lab.send(A, &[1; 500]);
        lab.run();
        assert_eq!((lab.times(B, &ModemOutput::Carrier(true)).len(), lab.ether.link_stats(A, B).missed), (0, 500));
        let mut config = EtherConfig::net(1, 3, &ModemConfig::new(waveform(2400, "S")), LinkConfig::default());
        config.links.retain(|ends, _| ends.1 == B);
        for (sender, line) in [(A, "0 snr 15"), (C, "0 snr 26")] {
            config.links.insert((sender, B), LinkConfig { loss: script(line), ..LinkConfig::default() });
        }
        let mut lab = Lab::of(config);
        for id in [A, C] {
            lab.ether.key(Instant::ZERO, id);
            lab.ether.feed(Instant::ZERO, id, &[id.0 as u8 + 1; 500]);
            lab.ether.unkey(Instant::ZERO, id);
        }
        lab.run();
        assert_eq!(lab.heard(B), vec![3; 500]);
    }

    fn net_of_two(loss: Loss) -> EtherConfig {
        let modem = ModemConfig::new(waveform(2400, "S"));
        EtherConfig::net(1, 2, &modem, LinkConfig { loss, ..LinkConfig::default() })
    }

    fn waveform(rate: u32, interleaver: &str) -> Waveform {
        *Waveform::find(rate, interleaver).expect("in the table")
    }

    /// An ether and everything it said.
    struct Lab {
        ether: Ether,
        now: Instant,
        keyed_at: Instant,
        outputs: Vec<(Instant, StationId, ModemOutput)>,
    }

    impl Lab {
        fn new(n: u16, waveform: Waveform) -> Self {
            Self::of(EtherConfig::net(1, n, &ModemConfig::new(waveform), LinkConfig::default()))
        }

        fn of(config: EtherConfig) -> Self {
            Self { ether: Ether::new(config), now: Instant::ZERO, keyed_at: Instant::ZERO, outputs: Vec::new() }
        }

        /// Keys, waits for the preamble, feeds everything, lets go.
        fn send(&mut self, id: StationId, bytes: &[u8]) {
            self.ether.key(self.now, id);
            loop {
                self.drain();
                if let Some((at, _, ModemOutput::Keyed { .. })) = self.outputs.last().filter(|o| o.1 == id)
                    && *at == self.now
                {
                    break;
                }
                if self.ether.radiates(id) {
                    break;
                }
                self.now = self.ether.next_timeout().expect("the key comes");
                self.ether.handle_timeout(self.now);
            }
            self.keyed_at = self.now;
            self.ether.feed(self.now, id, bytes);
            self.ether.unkey(self.now, id);
            self.drain();
        }

        fn run(&mut self) {
            self.run_until(Instant(u64::MAX));
        }

        fn run_until(&mut self, end: Instant) {
            self.drain();
            while let Some(at) = self.ether.next_timeout().filter(|&at| at <= end) {
                self.now = at;
                self.ether.handle_timeout(at);
                self.drain();
            }
            if end < Instant(u64::MAX) {
                self.now = end;
            }
        }

        fn drain(&mut self) {
            while let Some((id, output)) = self.ether.poll() {
                self.outputs.push((self.now, id, output));
            }
        }

        fn received(&self, id: StationId) -> impl Iterator<Item = (Instant, Vec<u8>)> {
            self.outputs.iter().filter(move |o| o.1 == id).filter_map(|(at, _, output)| match output {
                ModemOutput::Received(bytes) => Some((*at, bytes.clone())),
                _ => None,
            })
        }

        fn heard(&self, id: StationId) -> Vec<u8> {
            self.received(id).flat_map(|(_, b)| b).collect()
        }

        fn times(&self, id: StationId, what: &ModemOutput) -> Vec<Instant> {
            self.outputs.iter().filter(|o| o.1 == id && o.2 == *what).map(|o| o.0).collect()
        }

        /// From-to of every key-down of a station.
        fn on_air(&self, id: StationId) -> Vec<(Instant, Instant)> {
            let mut spans = Vec::new();
            for edge in self.ether.antenna_log().iter().filter(|e| e.station == id) {
                match spans.last_mut() {
                    Some((_, end)) if !edge.on => *end = edge.at,
                    _ => spans.push((edge.at, Instant(u64::MAX))),
                }
            }
            spans
        }
    }
}
