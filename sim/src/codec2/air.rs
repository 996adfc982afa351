//! A frequency whose modems are real: bytes become frames, frames become sound, and what the far modem makes of the sound comes out.
//!
//! The same calls as the [`Ether`](crate::ether::Ether), so that [`Bridge`](crate::bridge::Bridge) serves either. Time passes in ticks
//! of 20 ms while somebody radiates or a receiver still holds something, and not at all in between. It promises:
//!
//! - what a host feeds is cut into frames: two bytes of length, then as much as fits, filled up with zeros. A frame goes out as soon
//!   as it is full, the last one when the key is let go; with nothing to send a keyed station is silent;
//! - only what came out of a frame with a good checksum is handed on, at the end of the tick its last sample is in;
//! - a keyed station is deaf, and signals that meet at a receiver add up before the noise does.
//!
//! Carrier detect is the laboratory's knowledge, not the modem's: it rises when a path that is there brings a signal and falls when the
//! receiver has given out what it holds. Below 0 dB no modem could tell.

use std::collections::{BTreeMap, VecDeque};

use aldis::time::{Duration, Instant};

use super::audio::{AudioPath, Fading, Receiver, Spread};
use super::modem::{Mode, Modem, SAMPLE_RATE, power};
use crate::bridge::Frequency;
use crate::ether::StationId;
use crate::modem::{Failure, ModemConfig, ModemOutput};

/// Samples of a tick.
const TICK: u64 = 160;
/// Silence between the key and the first frame, samples: the host's time to feed it. The sheet `freedv` calls it the preamble.
pub(super) const LEAD: usize = 3200;
/// How long a receiver goes on after a signal has ended, ticks: until it has given out what it holds.
const LINGER: u64 = 25;
/// A part of a frame that has waited so long goes out without the rest, ticks.
const PATIENCE: u64 = 100;
/// Bytes of a frame that say how many of it count.
const LENGTH: usize = 2;

/// What the modems are and what is between them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Setup {
    /// Every station's waveform.
    pub mode: Mode,
    /// How every path fades; `None`: it does not.
    pub spread: Option<Spread>,
    /// Mean signal-to-noise ratio in 3 kHz.
    pub snr_db: f64,
}

/// Bytes of a host's that one frame carries.
pub fn frame_bytes(mode: Mode) -> usize {
    mode.payload() - LENGTH
}

/// The frequency and all modems on it.
#[derive(Debug)]
pub struct Air {
    setup: Setup,
    seed: u64,
    power: f64,
    stations: Vec<Station>,
    paths: BTreeMap<(StationId, StationId), Path>,
    /// Ticks done.
    tick: u64,
    /// Until this tick there is something to do.
    awake: u64,
    outputs: VecDeque<(StationId, ModemOutput)>,
}

#[derive(Debug)]
struct Station {
    config: ModemConfig,
    modem: Modem,
    receiver: Receiver,
    key: Key,
    /// What the host fed and no frame has taken.
    fed: VecDeque<u8>,
    /// When the oldest of it came, as long as it does not fill a frame.
    waiting: u64,
    /// Samples still to leave.
    pending: VecDeque<i16>,
    /// End of the last signal, heard or own.
    quiet_since: Option<Instant>,
    /// Since when a signal is here, and until when the receiver lingers.
    signal: Option<u64>,
    lingers: u64,
    carrier: bool,
    clear_to_send: bool,
    tally: Tally,
}

/// Frames of one station.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Sent.
    pub sent: u64,
    /// Received with a good checksum.
    pub heard: u64,
    /// Bytes its host fed that found no room, or no key.
    pub spilled: u64,
}

#[derive(Clone, Copy, Debug)]
enum Key {
    Up,
    /// Nothing radiates before this instant. `ended`: the line has dropped again with bytes in the buffer.
    Requested {
        from: Instant,
        ended: bool,
    },
    Down {
        since: Instant,
        ended: bool,
        cut: Option<Instant>,
    },
}

#[derive(Debug)]
struct Path {
    fading: Option<Fading>,
    audio: AudioPath,
    up: bool,
}

fn instant(tick: u64) -> Instant {
    Instant(tick * TICK * (1_000_000_000 / SAMPLE_RATE))
}

impl Air {
    /// A quiet frequency at time zero: every station hears every other. Of a modem's habits those of the waveform do not count.
    pub fn new(setup: Setup, seed: u64, modems: &[ModemConfig]) -> Result<Self, String> {
        let mut stations = Vec::new();
        let mut level = 0.0;
        for (i, config) in modems.iter().enumerate() {
            let mut modem = Modem::open(setup.mode)?;
            level = power(&mut modem);
            stations.push(Station {
                config: config.clone(),
                modem,
                receiver: Receiver::new(seed, &[i as u64], level, Some(setup.snr_db)),
                key: Key::Up,
                fed: VecDeque::new(),
                waiting: 0,
                pending: VecDeque::new(),
                quiet_since: None,
                signal: None,
                lingers: 0,
                carrier: false,
                clear_to_send: false,
                tally: Tally::default(),
            });
        }
        let ids: Vec<StationId> = (0..u16::try_from(modems.len()).unwrap_or(u16::MAX)).map(StationId).collect();
        let ends = ids.iter().flat_map(|&a| ids.iter().filter(move |&&b| a != b).map(move |&b| (a, b)));
        let paths = ends
            .map(|(from, to)| {
                let name = [u64::from(from.0), u64::from(to.0)];
                let fading = setup.spread.map(|spread| Fading::new(seed, &name, spread));
                ((from, to), Path { audio: AudioPath::new(fading.clone(), 0), fading, up: true })
            })
            .collect();
        Ok(Self { setup, seed, power: level, stations, paths, tick: 0, awake: 0, outputs: VecDeque::new() })
    }

    /// A path that is not there.
    pub fn remove(&mut self, from: StationId, to: StationId) {
        self.paths.remove(&(from, to));
    }

    /// A station's frames.
    pub fn tally(&self, id: StationId) -> Tally {
        self.station(id).map(|s| s.tally).unwrap_or_default()
    }

    fn station(&self, id: StationId) -> Option<&Station> {
        self.stations.get(usize::from(id.0))
    }

    fn say(&mut self, id: StationId, output: ModemOutput) {
        self.outputs.push_back((id, output));
    }

    /// Does every tick that has passed, or sleeps through to `now`.
    fn advance(&mut self, now: Instant) {
        let passed = now.0 / (TICK * (1_000_000_000 / SAMPLE_RATE));
        while self.tick < passed {
            if self.tick >= self.awake {
                self.tick = passed;
                return;
            }
            self.step();
        }
    }

    /// Somebody wants something: ticks go on from here.
    fn wake(&mut self) {
        if self.tick >= self.awake {
            // Filters and receivers begin afresh after a silence; the fades have gone on.
            for path in self.paths.values_mut() {
                path.audio = AudioPath::new(path.fading.clone(), self.tick * TICK);
            }
            for (i, station) in self.stations.iter_mut().enumerate() {
                station.modem.forget();
                let name = [i as u64, self.tick];
                station.receiver = Receiver::new(self.seed, &name, self.power, Some(self.setup.snr_db));
            }
        }
        self.awake = self.awake.max(self.tick + 1);
    }

    /// One tick: keys, sound, ears.
    fn step(&mut self) {
        let ids: Vec<StationId> = (0..self.stations()).map(StationId).collect();
        for &id in &ids {
            self.move_key(id);
        }
        let sounds: Vec<Option<Vec<f64>>> = ids.iter().map(|&id| self.sound(id)).collect();
        self.tick += 1;
        for &id in &ids {
            self.hear(id, &sounds);
        }
        let busy = self.stations.iter().any(|s| !matches!(s.key, Key::Up) || s.signal.is_some() || s.lingers > 0);
        self.awake = self.awake.max(self.tick + u64::from(busy));
    }

    /// Puts a key down or up when it is time.
    fn move_key(&mut self, id: StationId) {
        let now = instant(self.tick);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        match station.key {
            Key::Up => {}
            Key::Requested { from, ended } => {
                let turned = station.quiet_since.map_or(Instant::ZERO, |end| end + station.config.turnaround);
                if now < from.max(turned) || (station.config.waits_for_carrier && station.carrier) {
                    return;
                }
                station.key = Key::Down { since: now, ended, cut: None };
                station.pending = std::iter::repeat_n(0, LEAD).collect();
                station.waiting = self.tick;
                station.modem.forget();
                (station.signal, station.lingers) = (None, 0);
                self.show_carrier(id, false);
                self.say(id, ModemOutput::Antenna { on: true, at: now });
                self.say(id, ModemOutput::Keyed { at: now });
            }
            Key::Down { since, ended, cut } => {
                let limit = station.config.max_key_down.is_some_and(|most| now.since(since) >= most);
                let done = ended && station.fed.is_empty() && station.pending.is_empty();
                if !done && !limit && cut.is_none_or(|at| now < at) {
                    return self.show_clear_to_send(id);
                }
                station.fed.clear();
                station.pending.clear();
                station.key = Key::Up;
                station.quiet_since = Some(now);
                if limit {
                    self.say(id, ModemOutput::Fault("key-down limit of the modem reached".to_owned()));
                }
                self.say(id, ModemOutput::Antenna { on: false, at: now });
                self.say(id, ModemOutput::Unkeyed);
                if limit {
                    self.say(id, ModemOutput::Ready);
                }
            }
        }
        self.show_clear_to_send(id);
    }

    /// What a station puts on the air in this tick; `None`: it does not radiate.
    fn sound(&mut self, id: StationId) -> Option<Vec<f64>> {
        let (mode, tick) = (self.setup.mode, self.tick);
        let station = self.stations.get_mut(usize::from(id.0))?;
        let Key::Down { ended, .. } = station.key else { return None };
        let tick_samples = TICK as usize;
        while station.pending.len() < tick_samples {
            let full = frame_bytes(mode);
            let overdue = ended || tick >= station.waiting + PATIENCE;
            if station.fed.is_empty() || (station.fed.len() < full && !overdue) {
                break;
            }
            let n = station.fed.len().min(full);
            let mut payload = (n as u16).to_be_bytes().to_vec();
            payload.extend(station.fed.drain(..n));
            station.pending.extend(station.modem.burst(&payload));
            station.tally.sent += 1;
            station.waiting = tick;
        }
        let n = station.pending.len().min(tick_samples);
        let mut samples: Vec<f64> = station.pending.drain(..n).map(f64::from).collect();
        samples.resize(tick_samples, 0.0);
        Some(samples)
    }

    /// What a station's receiver makes of the tick that has just passed.
    fn hear(&mut self, id: StationId, sounds: &[Option<Vec<f64>>]) {
        let (tick, now) = (self.tick, instant(self.tick));
        let mut heard = vec![0.0; TICK as usize];
        let mut signal = false;
        for (&(from, _), path) in self.paths.iter_mut().filter(|((_, to), _)| *to == id) {
            let silence = [0.0; TICK as usize];
            let sound = sounds.get(usize::from(from.0)).and_then(Option::as_deref).filter(|_| path.up);
            signal |= sound.is_some();
            path.audio.carry(sound.unwrap_or(&silence), &mut heard);
        }
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if matches!(station.key, Key::Down { .. }) {
            return;
        }
        let mut received = Vec::new();
        for frame in station.modem.listen(station.receiver.convert(&heard)) {
            let length = usize::from(u16::from_be_bytes([frame[0], frame[1]]));
            // A checksum of 16 bits lets one wrong frame in 65536 by.
            if (1..=frame.len() - LENGTH).contains(&length) {
                station.tally.heard += 1;
                received.push(frame[LENGTH..LENGTH + length].to_vec());
            }
        }
        let rises = match (signal, station.signal) {
            (true, None) => {
                station.signal = Some(tick);
                false
            }
            (true, Some(since)) => now.since(instant(since)) >= station.config.detection_delay,
            (false, Some(_)) => {
                (station.signal, station.lingers) = (None, LINGER);
                station.quiet_since = Some(now);
                false
            }
            (false, None) => {
                station.lingers = station.lingers.saturating_sub(1);
                false
            }
        };
        let falls = !signal && station.lingers == 0;
        for bytes in received {
            self.say(id, ModemOutput::Received(bytes));
        }
        if rises {
            self.show_carrier(id, true);
        } else if falls {
            self.show_carrier(id, false);
        }
    }

    fn show_carrier(&mut self, id: StationId, on: bool) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        if station.carrier != on {
            station.carrier = on;
            self.say(id, ModemOutput::Carrier(on));
        }
    }

    fn show_clear_to_send(&mut self, id: StationId) {
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        // Falls at three quarters, rises again at one half.
        let room = station.config.buffer_bytes / 4 * if station.clear_to_send { 3 } else { 2 };
        let shows = matches!(station.key, Key::Down { ended: false, .. }) && station.fed.len() < room;
        if shows != station.clear_to_send {
            station.clear_to_send = shows;
            self.say(id, ModemOutput::Cts(shows));
        }
    }
}

impl Frequency for Air {
    fn stations(&self) -> u16 {
        u16::try_from(self.stations.len()).unwrap_or(u16::MAX)
    }

    fn key(&mut self, now: Instant, id: StationId) {
        self.advance(now);
        self.wake();
        if let Some(station) = self.stations.get_mut(usize::from(id.0))
            && matches!(station.key, Key::Up)
        {
            station.fed.clear();
            station.key = Key::Requested { from: now + station.config.key_delay, ended: false };
        }
    }

    fn feed(&mut self, now: Instant, id: StationId, bytes: &[u8]) {
        self.advance(now);
        let tick = self.tick;
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let open = matches!(station.key, Key::Requested { ended: false, .. } | Key::Down { ended: false, .. });
        let room = if open { station.config.buffer_bytes.saturating_sub(station.fed.len()) } else { 0 };
        let taken = bytes.len().min(room);
        if station.fed.is_empty() {
            station.waiting = tick;
        }
        station.fed.extend(&bytes[..taken]);
        station.tally.spilled += (bytes.len() - taken) as u64;
        self.show_clear_to_send(id);
    }

    fn select(&mut self, _: StationId, _: u32, _: &str) -> bool {
        false
    }

    fn unkey(&mut self, now: Instant, id: StationId) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        match &mut station.key {
            Key::Up => {}
            Key::Requested { .. } if station.fed.is_empty() => {
                station.key = Key::Up;
                self.say(id, ModemOutput::Unkeyed);
            }
            Key::Requested { ended, .. } | Key::Down { ended, .. } => *ended = true,
        }
        self.show_clear_to_send(id);
    }

    fn abort(&mut self, now: Instant, id: StationId) {
        self.advance(now);
        let Some(station) = self.stations.get_mut(usize::from(id.0)) else { return };
        let Some(delay) = station.config.abort_delay else { return self.unkey(now, id) };
        station.fed.clear();
        match &mut station.key {
            Key::Up => {}
            Key::Requested { .. } => {
                station.key = Key::Up;
                self.say(id, ModemOutput::Unkeyed);
            }
            Key::Down { ended, cut, .. } => {
                *ended = true;
                cut.get_or_insert(now + delay);
            }
        }
        self.show_clear_to_send(id);
    }

    fn open_port(&mut self, now: Instant, _id: StationId) {
        self.advance(now);
    }

    fn close_port(&mut self, now: Instant, id: StationId) {
        self.unkey(now, id);
    }

    fn set_dtr(&mut self, now: Instant, _id: StationId, _up: bool) {
        self.advance(now);
    }

    fn set_link(&mut self, now: Instant, from: StationId, to: StationId, up: bool) {
        self.advance(now);
        if let Some(path) = self.paths.get_mut(&(from, to)) {
            path.up = up;
        }
    }

    /// These modems do not break: `aldis-sim bridge` refuses a scenario that wants them to.
    fn set_failure(&mut self, now: Instant, _id: StationId, _failure: Failure, _broken: bool) {
        self.advance(now);
    }

    fn carrier(&self, id: StationId) -> bool {
        self.station(id).is_some_and(|s| s.carrier)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    fn poll(&mut self) -> Option<(StationId, ModemOutput)> {
        self.outputs.pop_front()
    }

    fn next_timeout(&self) -> Option<Instant> {
        (self.tick < self.awake).then(|| instant(self.tick + 1))
    }
}

/// Time a transmission of `bytes` takes when its host feeds them in time.
pub fn airtime(mode: Mode, bytes: usize) -> Duration {
    let frames = bytes.div_ceil(frame_bytes(mode));
    Duration::from_nanos((LEAD + frames * mode.burst_samples()) as u64 * (1_000_000_000 / SAMPLE_RATE))
}
