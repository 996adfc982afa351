//! Scenarios: a net, its modems and paths, what is sent over it and what befalls it, read from TOML.
//!
//! [`Scenario::parse`] turns text into checked values once and reports every problem it finds; unknown keys are problems. Quantities
//! are written as in product profiles (`"2400bps"`, `"4s"`, `"10KiB"`). `sim/README.md` shows the format.

use std::collections::{BTreeMap, BTreeSet};

use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::time::{Duration, Instant, Wall};
use aldis::units::{Bps, Bytes, parse_duration};
use serde::Deserialize;

use crate::channel::{Damage, Loss};
use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::modem::{Failure, ModemConfig, Noise};
use crate::waveform::Waveform;
use crate::world::START;

/// A checked scenario.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// Virtual time it lasts.
    pub duration: Duration,
    /// Civil time at virtual time zero.
    pub start: Wall,
    /// Station names, in order of their ids.
    pub stations: Vec<String>,
    /// One modem per station.
    pub modems: Vec<ModemConfig>,
    /// Who hears whom.
    pub links: BTreeMap<(StationId, StationId), LinkConfig>,
    /// What is sent, in order of time.
    pub traffic: Vec<Message>,
    /// What befalls the net, in order of time.
    pub events: Vec<Event>,
}

/// One message to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// When it is handed in.
    pub at: Instant,
    /// Where.
    pub from: StationId,
    /// Whither.
    pub to: StationId,
    /// Its size in bytes.
    pub size: u64,
    /// Level of service.
    pub precedence: Precedence,
}

/// Something that befalls the net.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What befalls the net.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A station is ordered into this state.
    Emcon {
        /// Who.
        station: StationId,
        /// Ordered state.
        state: State,
    },
    /// A path goes away or returns.
    Path {
        /// Sender.
        from: StationId,
        /// Receiver.
        to: StationId,
        /// Whether it is there from now on.
        up: bool,
    },
    /// A station's process is killed (key line falls, what was not committed is lost) or started again.
    Process {
        /// Who.
        station: StationId,
        /// Whether it runs from now on.
        up: bool,
    },
    /// A modem breaks or is mended.
    Failure {
        /// Whose.
        station: StationId,
        /// How.
        failure: Failure,
        /// Whether it is broken from now on.
        broken: bool,
    },
}

impl Scenario {
    /// Reads a scenario; on failure every problem found, one per entry.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let raw: raw::Scenario = toml::from_str(text).map_err(|e| vec![e.to_string().trim_end().to_owned()])?;
        let mut reader = Reader::default();
        let scenario = reader.scenario(raw);
        if reader.problems.is_empty() { Ok(scenario) } else { Err(reader.problems) }
    }

    /// The frequency of this scenario under `seed`.
    pub fn ether(&self, seed: u64) -> EtherConfig {
        EtherConfig { seed, stations: self.modems.clone(), links: self.links.clone() }
    }

    /// A station's name.
    pub fn station(&self, id: StationId) -> &str {
        self.stations.get(usize::from(id.0)).map_or("?", String::as_str)
    }
}

/// The text as TOML has it.
mod raw {
    use super::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Scenario {
        pub(super) name: String,
        pub(super) duration: String,
        pub(super) start: Option<String>,
        pub(super) waveform: Waveform,
        #[serde(default)]
        pub(super) modem: Modem,
        #[serde(default)]
        pub(super) channel: Channel,
        pub(super) station: Vec<Station>,
        #[serde(default)]
        pub(super) link: Vec<Link>,
        #[serde(default)]
        pub(super) traffic: Vec<Traffic>,
        #[serde(default)]
        pub(super) event: Vec<Event>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Waveform {
        pub(super) rate: String,
        pub(super) interleaver: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Modem {
        pub(super) key_delay: Option<String>,
        pub(super) turnaround: Option<String>,
        pub(super) detection_delay: Option<String>,
        pub(super) abort_delay: Option<String>,
        pub(super) can_abort: Option<bool>,
        pub(super) buffer: Option<String>,
        pub(super) waits_for_carrier: Option<bool>,
        pub(super) max_key_down: Option<String>,
        pub(super) noise_every: Option<String>,
        pub(super) noise: Option<String>,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Channel {
        pub(super) cell: Option<String>,
        pub(super) cell_loss: Option<f64>,
        pub(super) burst: Option<f64>,
        pub(super) deleted: Option<bool>,
        pub(super) bit_errors: Option<f64>,
        pub(super) block_loss: Option<f64>,
        pub(super) preamble_miss: Option<f64>,
        pub(super) level_db: Option<f64>,
        pub(super) delay: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Station {
        pub(super) name: String,
        pub(super) waveform: Option<Waveform>,
        pub(super) modem: Option<Modem>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Link {
        pub(super) from: String,
        pub(super) to: String,
        pub(super) absent: Option<bool>,
        pub(super) channel: Option<Channel>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Traffic {
        pub(super) at: String,
        pub(super) from: String,
        pub(super) to: String,
        pub(super) size: String,
        pub(super) precedence: Option<String>,
        pub(super) count: Option<u32>,
        pub(super) every: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Event {
        pub(super) at: String,
        pub(super) until: Option<String>,
        pub(super) emcon: Option<String>,
        pub(super) outage: Option<bool>,
        pub(super) restart: Option<bool>,
        pub(super) failure: Option<String>,
        pub(super) station: Option<String>,
        pub(super) from: Option<String>,
        pub(super) to: Option<String>,
    }
}

/// Most messages one entry may stand for.
const MOST_MESSAGES: u32 = 100_000;

/// Reads entries and gathers problems; what is wrong is replaced by something harmless, because it is never used.
#[derive(Default)]
struct Reader {
    problems: Vec<String>,
    names: Vec<String>,
}

impl Reader {
    fn scenario(&mut self, raw: raw::Scenario) -> Scenario {
        let waveform = self.waveform("waveform", &raw.waveform);
        let modem = self.modem("modem", ModemConfig::new(waveform), &raw.modem);
        let channel = self.channel("channel", LinkConfig::default(), &raw.channel);
        let duration = self.duration("duration", &raw.duration);
        let start = match raw.start.as_deref().map(Wall::parse_rfc3339) {
            None => START,
            Some(Some(wall)) => wall,
            Some(None) => self.problem(START, "start", "must be RFC 3339, e.g. 2026-11-23T10:00:00Z"),
        };
        if !(2..=64).contains(&raw.station.len()) {
            self.problem((), "station", "2 to 64 of them are needed");
        }
        let mut modems = Vec::new();
        for station in &raw.station {
            let place = format!("station {}", station.name);
            if self.names.contains(&station.name) {
                self.problem((), &place, "appears twice");
            }
            self.names.push(station.name.clone());
            let mut own = modem.clone();
            if let Some(waveform) = &station.waveform {
                own.waveform = self.waveform(&place, waveform);
            }
            modems.push(match &station.modem {
                Some(changes) => self.modem(&place, own, changes),
                None => own,
            });
        }
        let count = u16::try_from(modems.len()).unwrap_or(0);
        let mut links = EtherConfig::net(0, count, &modem, channel).links;
        let mut seen = BTreeSet::new();
        for link in &raw.link {
            let place = format!("link {} to {}", link.from, link.to);
            let ends = self.ends(&place, &link.from, &link.to);
            if !seen.insert(ends) {
                self.problem((), &place, "appears twice");
            }
            if link.absent == Some(true) {
                links.remove(&ends);
            } else if let Some(changes) = &link.channel {
                let own = self.channel(&place, channel, changes);
                links.insert(ends, own);
            }
        }
        let mut traffic: Vec<Message> = raw.traffic.iter().flat_map(|t| self.traffic(t, duration)).collect();
        traffic.sort_by_key(|m| m.at);
        let mut events: Vec<Event> = raw.event.iter().flat_map(|e| self.event(e)).collect();
        events.sort_by_key(|e| e.at);
        let stations = self.names.clone();
        Scenario { name: raw.name, duration, start, stations, modems, links, traffic, events }
    }

    fn waveform(&mut self, place: &str, raw: &raw::Waveform) -> Waveform {
        let found = Bps::parse(&raw.rate).and_then(|Bps(rate)| Waveform::find(rate, &raw.interleaver)).copied();
        found.unwrap_or_else(|| {
            let known = "75bps to 2400bps with S or L, 3200bps to 9600bps with US, VS, S, M, L or VL";
            self.problem(crate::waveform::TABLE[0], place, &format!("no such rate and interleaver; known: {known}"))
        })
    }

    fn modem(&mut self, place: &str, mut modem: ModemConfig, raw: &raw::Modem) -> ModemConfig {
        let mut set = |slot: &mut Duration, text: &Option<String>| {
            if let Some(text) = text {
                *slot = self.duration(place, text);
            }
        };
        set(&mut modem.key_delay, &raw.key_delay);
        set(&mut modem.turnaround, &raw.turnaround);
        set(&mut modem.detection_delay, &raw.detection_delay);
        if let Some(text) = &raw.abort_delay {
            modem.abort_delay = Some(self.duration(place, text));
        }
        match (raw.can_abort, &raw.abort_delay) {
            (Some(false), Some(_)) => self.problem((), place, "abort_delay makes no sense with can_abort = false"),
            (Some(false), None) => modem.abort_delay = None,
            (Some(true) | None, _) => {}
        }
        if let Some(text) = &raw.max_key_down {
            modem.max_key_down = Some(self.duration(place, text));
        }
        if let Some(text) = &raw.buffer {
            modem.buffer_bytes = usize::try_from(self.size(place, text)).unwrap_or(usize::MAX);
        }
        modem.waits_for_carrier = raw.waits_for_carrier.unwrap_or(modem.waits_for_carrier);
        match (&raw.noise_every, &raw.noise) {
            (Some(every), Some(bytes)) => {
                let every = self.duration(place, every);
                let bytes = u32::try_from(self.size(place, bytes)).unwrap_or(u32::MAX).max(1);
                if every < Duration::from_millis(1) {
                    self.problem((), place, "noise_every must be 1ms at least");
                }
                modem.noise = Some(Noise { every, bytes });
            }
            (None, None) => {}
            _ => self.problem((), place, "noise and noise_every go together"),
        }
        modem
    }

    fn channel(&mut self, place: &str, mut link: LinkConfig, raw: &raw::Channel) -> LinkConfig {
        let damage = if raw.deleted == Some(true) { Damage::Deleted } else { Damage::Garbage };
        let cell = match &raw.cell {
            Some(text) => u32::try_from(self.size(place, text)).unwrap_or(u32::MAX),
            None => 0,
        };
        let models = [raw.cell_loss, raw.bit_errors, raw.block_loss].iter().flatten().count();
        if models > 1 {
            self.problem((), place, "only one of cell_loss, bit_errors and block_loss");
        }
        if raw.cell_loss.is_some() != raw.cell.is_some() || (raw.cell.is_some() && cell == 0) {
            self.problem((), place, "cell_loss needs a cell of at least 1B, and cell needs a cell_loss");
        }
        if raw.cell_loss.is_none() && (raw.burst.is_some() || raw.deleted.is_some()) {
            self.problem((), place, "burst and deleted belong to cell_loss");
        }
        if let Some(p) = raw.cell_loss {
            let p = self.share(place, p);
            link.loss = match raw.burst {
                None => Loss::Cells { bytes: cell, p, damage },
                Some(mean) if mean >= 1.0 && p < 1.0 => {
                    // Mean burst 1/good; stationary share bad/(bad + good).
                    let good = 1.0 / mean;
                    Loss::Gilbert { bytes: cell, bad: p * good / (1.0 - p), good, damage }
                }
                Some(_) => self.problem(Loss::Ideal, place, "burst is a mean number of cells, at least 1"),
            };
        }
        if let Some(ber) = raw.bit_errors {
            link.loss = Loss::Bits { ber: self.share(place, ber) };
        }
        if let Some(p) = raw.block_loss {
            link.loss = Loss::Blocks { p: self.share(place, p) };
        }
        if let Some(p) = raw.preamble_miss {
            link.preamble_miss = self.share(place, p);
        }
        if let Some(level) = raw.level_db {
            link.level_db = if level.is_finite() { level } else { self.problem(0.0, place, "level_db must be finite") };
        }
        if let Some(text) = &raw.delay {
            link.delay = self.duration(place, text);
        }
        link
    }

    fn traffic(&mut self, raw: &raw::Traffic, duration: Duration) -> Vec<Message> {
        let place = format!("traffic {} to {}", raw.from, raw.to);
        let (from, to) = self.ends(&place, &raw.from, &raw.to);
        let first = self.instant(&place, &raw.at);
        let size = self.size(&place, &raw.size);
        let precedence = match raw.precedence.as_deref().map(Precedence::parse) {
            None => Precedence::Routine,
            Some(Some(p)) => p,
            Some(None) => self.problem(
                Precedence::Routine,
                &place,
                "precedence is deferred, routine, priority, immediate, flash or override",
            ),
        };
        let count = raw.count.unwrap_or(1);
        if !(1..=MOST_MESSAGES).contains(&count) {
            return self.problem(Vec::new(), &place, &format!("count must be 1 to {MOST_MESSAGES}"));
        }
        let every = raw.every.as_ref().map_or(Duration::ZERO, |text| self.duration(&place, text));
        let at = |i: u32| first + every.saturating_mul(i);
        if at(count - 1).since(Instant::ZERO) > duration {
            self.problem((), &place, "sends after the scenario's end");
        }
        (0..count).map(|i| Message { at: at(i), from, to, size, precedence }).collect()
    }

    fn event(&mut self, raw: &raw::Event) -> Vec<Event> {
        let place = format!("event at {}", raw.at);
        let at = self.instant(&place, &raw.at);
        let until = raw.until.as_ref().map(|text| self.instant(&place, text));
        if until.is_some_and(|until| until <= at) {
            self.problem((), &place, "until is not after at");
        }
        let kinds = [raw.emcon.is_some(), raw.outage == Some(true), raw.restart == Some(true), raw.failure.is_some()];
        if kinds.iter().filter(|&&k| k).count() != 1 {
            return self.problem(Vec::new(), &place, "exactly one of emcon, outage = true, restart = true and failure");
        }
        let is_outage = raw.outage == Some(true);
        if is_outage != (raw.from.is_some() && raw.to.is_some()) || is_outage == raw.station.is_some() {
            return self.problem(Vec::new(), &place, "an outage has from and to, every other event a station");
        }
        let station = raw.station.as_ref().map_or(StationId(0), |name| self.station(&place, name));
        let (first, then) = if let (true, Some(from), Some(to)) = (is_outage, &raw.from, &raw.to) {
            let (from, to) = self.ends(&place, from, to);
            (What::Path { from, to, up: false }, What::Path { from, to, up: true })
        } else if let Some(word) = &raw.emcon {
            let Some(state) = State::parse(word) else {
                return self.problem(Vec::new(), &place, "emcon is open, silent, restricted:LEVEL or ack-only");
            };
            (What::Emcon { station, state }, What::Emcon { station, state: State::Open })
        } else if let Some(word) = &raw.failure {
            let Some(failure) = failure(word) else {
                let known = "carrier-stuck-on, carrier-stuck-off, key-stuck or deaf";
                return self.problem(Vec::new(), &place, &format!("failure is {known}"));
            };
            (What::Failure { station, failure, broken: true }, What::Failure { station, failure, broken: false })
        } else {
            (What::Process { station, up: false }, What::Process { station, up: true })
        };
        let mut events = vec![Event { at, what: first }];
        // A restart without an end comes back at once.
        let until = if matches!(then, What::Process { .. }) { Some(until.unwrap_or(at)) } else { until };
        events.extend(until.map(|at| Event { at, what: then }));
        events
    }

    fn station(&mut self, place: &str, name: &str) -> StationId {
        let position = self.names.iter().position(|n| n == name).and_then(|i| u16::try_from(i).ok());
        position.map(StationId).unwrap_or_else(|| self.problem(StationId(0), place, &format!("no station {name}")))
    }

    fn ends(&mut self, place: &str, from: &str, to: &str) -> (StationId, StationId) {
        if from == to {
            self.problem((), place, "the ends are the same station");
        }
        (self.station(place, from), self.station(place, to))
    }

    fn instant(&mut self, place: &str, text: &str) -> Instant {
        Instant::ZERO + self.duration(place, text)
    }

    fn duration(&mut self, place: &str, text: &str) -> Duration {
        parse_duration(text)
            .unwrap_or_else(|| self.problem(Duration::ZERO, place, &format!("{text:?} is no duration such as 90s")))
    }

    fn size(&mut self, place: &str, text: &str) -> u64 {
        let size = Bytes::parse(text).map(|Bytes(size)| size).filter(|&size| size <= 1 << 30);
        size.unwrap_or_else(|| self.problem(0, place, &format!("{text:?} is no size such as 10KiB, at most 1GiB")))
    }

    fn share(&mut self, place: &str, p: f64) -> f64 {
        if (0.0..=1.0).contains(&p) { p } else { self.problem(0.0, place, &format!("{p} is not between 0 and 1")) }
    }

    /// Notes a problem and goes on with `instead`.
    fn problem<T>(&mut self, instead: T, place: &str, problem: &str) -> T {
        self.problems.push(format!("{place}: {problem}"));
        instead
    }
}

fn failure(word: &str) -> Option<Failure> {
    Some(match word {
        "carrier-stuck-on" => Failure::CarrierStuckOn,
        "carrier-stuck-off" => Failure::CarrierStuckOff,
        "key-stuck" => Failure::KeyStuck,
        "deaf" => Failure::Deaf,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_read_whole() {
        let s = Scenario::parse(WHOLE).expect("reads");
        assert_eq!(s.stations, ["ship", "shore", "far"]);
        assert_eq!(s.modems[0].turnaround, Duration::from_secs(4));
        assert_eq!((s.modems[1].turnaround, s.modems[1].abort_delay), (Duration::from_secs(1), None));
        assert_eq!(s.modems[2].waveform.rate, 75);
        let (ship, shore, far) = (StationId(0), StationId(1), StationId(2));
        assert_eq!(s.links.len(), 5);
        assert!(!s.links.contains_key(&(ship, far)));
        assert_eq!(s.links[&(ship, shore)].loss, Loss::Cells { bytes: 262, p: 0.2, damage: Damage::Garbage });
        // The link's own channel starts from the common one.
        assert_eq!((s.links[&(far, ship)].level_db, s.links[&(far, ship)].preamble_miss), (-12.0, 0.01));
        let Loss::Gilbert { bad, good, .. } = s.links[&(far, ship)].loss else { panic!("bursts") };
        assert!((bad - 0.013_889).abs() < 1e-6 && good == 0.125);
        let times: Vec<u64> = s.traffic.iter().map(|m| m.at.0 / 1_000_000_000).collect();
        assert_eq!(times, [0, 20, 60, 120]);
        assert_eq!((s.traffic[1].precedence, s.traffic[1].size), (Precedence::Flash, 1024));
        assert_eq!(s.events.len(), 6);
        assert_eq!(s.events[0].what, What::Emcon { station: shore, state: State::Silent });
        assert_eq!(s.events[1].what, What::Process { station: ship, up: false });
        assert_eq!(s.events[2].what, What::Process { station: ship, up: true });
        assert_eq!(s.events[5].what, What::Path { from: ship, to: shore, up: true });
        let _ = crate::ether::Ether::new(s.ether(1));
    }

    #[test]
    fn every_problem_is_named() {
        let text = WHOLE
            .replace("\"2400bps\"", "\"2401bps\"")
            .replace("cell_loss = 0.2", "cell_loss = 2")
            .replace("to = \"shore\"\nsize = \"10KiB\"", "to = \"sure\"\nsize = \"10 bits\"")
            .replace("\"silent\"", "\"quiet\"")
            .replace("duration = \"1h\"", "duration = \"100s\"");
        let problems = Scenario::parse(&text).expect_err("wrong");
        let all = problems.join("\n");
        for part in
            ["2401", "between 0 and 1", "no station sure", "10 bits", "emcon is open", "after the scenario's end"]
        {
            assert!(all.contains(part) || part == "2401" && all.contains("no such rate"), "{part} in {all}");
        }
        assert_eq!(problems.len(), 6, "{all}");
    }

    #[test]
    fn an_unknown_key_is_a_problem_with_its_line() {
        let problems =
            Scenario::parse(&WHOLE.replace("turnaround = \"4s\"", "turnaruond = \"4s\"")).expect_err("wrong");
        assert!(problems[0].contains("turnaruond") && problems[0].contains("line 9"), "{problems:?}");
    }

    #[test]
    fn every_shipped_scenario_is_sound() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("text");
            let scenario = Scenario::parse(&text).unwrap_or_else(|p| panic!("{}: {p:#?}", path.display()));
            assert!(!scenario.traffic.is_empty(), "{}", path.display());
            read += 1;
        }
        assert!(read >= 2);
    }

    const WHOLE: &str = r#"name = "a net of three"
duration = "1h"

[waveform]
rate = "2400bps"
interleaver = "L"

[modem]
turnaround = "4s"
noise_every = "30s"
noise = "40B"

[channel]
cell = "262B"
cell_loss = 0.2
preamble_miss = 0.01

[[station]]
name = "ship"

[[station]]
name = "shore"
modem = { turnaround = "1s", can_abort = false }

[[station]]
name = "far"
waveform = { rate = "75bps", interleaver = "S" }

[[link]]
from = "ship"
to = "far"
absent = true

[[link]]
from = "far"
to = "ship"
channel = { level_db = -12, cell = "262B", cell_loss = 0.1, burst = 8 }

[[traffic]]
at = "0s"
from = "ship"
to = "shore"
size = "10KiB"
count = 3
every = "1min"

[[traffic]]
at = "20s"
from = "shore"
to = "ship"
size = "1KiB"
precedence = "flash"

[[event]]
at = "30s"
emcon = "silent"
station = "shore"

[[event]]
at = "5min"
failure = "deaf"
station = "far"

[[event]]
at = "1min"
restart = true
station = "ship"

[[event]]
at = "10min"
until = "20min"
outage = true
from = "ship"
to = "shore"
"#;
}
