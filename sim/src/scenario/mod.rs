//! Scenarios: a net, its modems and paths, what is sent over it and what befalls it, read from TOML.
//!
//! [`Scenario::parse`] turns text into checked values once and reports every problem it finds; unknown keys are problems. Quantities
//! are written as in product profiles (`"2400bps"`, `"4s"`, `"10KiB"`). `sim/README.md` shows the format.

use std::collections::BTreeMap;

use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::modem::{Failure, ModemConfig};
use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::time::{Duration, Instant, Wall};

mod mishap;
pub(crate) mod raw;
mod reader;

pub use mishap::{DiskName, Mishap, Trouble};

/// A checked scenario.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// Virtual time it lasts.
    pub duration: Duration,
    /// Civil time at virtual time zero.
    pub start: Wall,
    /// How the link is protected: `off`, `mac` or `aead`.
    pub protection: &'static str,
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
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What befalls the net.
#[derive(Clone, PartialEq, Debug)]
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
    /// A path loses this share of its cells, or is as it was.
    Fade {
        /// Sender.
        from: StationId,
        /// Receiver.
        to: StationId,
        /// Share of cells lost; `None`: the scenario's own loss again.
        loss: Option<f64>,
    },
    /// Something befalls a station's machine, clock or queue, or it is ordered to use a window.
    Mishap {
        /// Who.
        station: StationId,
        /// What.
        mishap: Mishap,
    },
}

impl Scenario {
    /// Reads a scenario; on failure every problem found, one per entry.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        Self::read(toml::from_str(text).map_err(|e| vec![e.to_string().trim_end().to_owned()])?)
    }

    /// The same from raw values.
    pub(crate) fn read(raw: raw::Scenario) -> Result<Self, Vec<String>> {
        let mut reader = reader::Reader::default();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Damage, Loss};

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
