//! Scenarios: a net, its modems and paths, what is sent over it and what befalls it, read from TOML.
//!
//! [`Scenario::parse`] turns text into checked values once and reports every problem it finds; unknown keys are problems. Quantities
//! are written as in product profiles (`"2400bps"`, `"4s"`, `"10KiB"`). `docs/sim-scenario.md` shows the format.

use std::collections::BTreeMap;
use std::path::Path;

use crate::bridge::TcpAddresses;
use crate::codec2::air::Setup;
use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::modem::{Failure, ModemConfig};
use crate::node::Coding;
use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::time::{Duration, Instant, Wall};

mod air;
mod mishap;
pub(crate) mod raw;
mod reader;
mod satcom;

pub use satcom::{Satcom, Source};

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
    /// One key for all instead of one for each pair.
    pub net_key: bool,
    /// How mail is coded.
    pub coding: Coding,
    /// The nodes' stores do further calls while they sync.
    pub store_ahead: bool,
    /// Station names, in order of their ids.
    pub stations: Vec<String>,
    /// Names of further bearers.
    pub bearers: Vec<String>,
    /// One modem per station, then one per station on each further bearer.
    pub modems: Vec<ModemConfig>,
    /// Which radio hears which.
    pub links: BTreeMap<(StationId, StationId), LinkConfig>,
    /// What is sent, in order of time.
    pub traffic: Vec<Message>,
    /// What befalls the net, in order of time.
    pub events: Vec<Event>,
    /// Packet bearers, with their own members and traffic.
    pub satcoms: Vec<Satcom>,
    /// Real modems in place of the simulated ones: only a bridge can play that.
    pub codec2: Option<Setup>,
    /// Stations whose modem a bridge puts on TCP; the others get terminals.
    pub tcp: BTreeMap<StationId, TcpAddresses>,
    /// Stations whose modem the bytes on their terminal key, and after what gap it is let go.
    pub keyed_by_bytes: BTreeMap<StationId, Duration>,
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
    /// Whither else.
    pub also: Vec<StationId>,
    /// Its size in bytes.
    pub size: u64,
    /// Level of service.
    pub precedence: Precedence,
    /// Its sender asks for word of its delivery.
    pub receipts: bool,
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
    /// Reads a scenario; on failure every problem found, one per entry. It may not name files of its own.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        Self::parse_by(text, reader::Reader::default())
    }

    /// Reads a scenario that lies in `folder`, with the files it names beside it.
    pub fn parse_in(text: &str, folder: &Path) -> Result<Self, Vec<String>> {
        Self::parse_by(text, reader::Reader::beside(folder))
    }

    fn parse_by(text: &str, reader: reader::Reader) -> Result<Self, Vec<String>> {
        Self::read_by(toml::from_str(text).map_err(|e| vec![e.to_string().trim_end().to_owned()])?, reader)
    }

    /// The same from raw values.
    pub(crate) fn read(raw: raw::Scenario) -> Result<Self, Vec<String>> {
        Self::read_by(raw, reader::Reader::default())
    }

    fn read_by(raw: raw::Scenario, mut reader: reader::Reader) -> Result<Self, Vec<String>> {
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
    use crate::channel::{Damage, Loss, Mean};
    use crate::waveform::Family;

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

    /// `WHOLE` with another `[channel]` and further lines at its top and in `[waveform]` and `[modem]`.
    fn with(start: &str, waveform: &str, modem: &str, channel: &str) -> Result<Scenario, Vec<String>> {
        let common = "cell = \"262B\"\ncell_loss = 0.2\npreamble_miss = 0.01";
        let text = WHOLE
            .replace("duration =", &format!("{start}\nduration ="))
            .replace("rate = \"2400bps\"\ninterleaver = \"L\"", waveform)
            .replace("turnaround = \"4s\"", modem)
            .replace(common, channel);
        Scenario::parse(&text)
    }

    const PLAIN: &str = "rate = \"2400bps\"\ninterleaver = \"L\"";

    #[test]
    fn a_physical_path_is_read_and_a_link_changes_what_it_names() {
        let channel = r#"
            snr_by_clock = { "10:30" = 5, "10:00" = 20.0 }
            preset = "ccir-poor"
            itv_db = 4
            ltv_db = 3
            ltv_time = "20min"
            dead = ["22:00-04:30"]
            interference = { every = "5min", last = "10s", db = 20 }
            truncated = 0.1"#;
        let s = with("start = \"2026-11-23T09:00:00Z\"", PLAIN, "", channel).expect("reads");
        let (ship, shore, far) = (StationId(0), StationId(1), StationId(2));
        let Loss::Sky { sky, wreck } = &s.links[&(ship, shore)].loss else { panic!("a sky") };
        assert_eq!((sky.clock, &sky.mean), (32_400, &Mean::Daily(vec![(36_000, 20.0), (37_800, 5.0)])));
        let (itv, ltv) = (sky.itv.expect("ITV"), sky.ltv.expect("LTV"));
        assert_eq!((itv.sigma_db, itv.correlation.as_secs()), (4.0, 10));
        assert_eq!((ltv.sigma_db, ltv.correlation.as_secs()), (3.0, 1200));
        assert_eq!((sky.dead.as_slice(), wreck.truncated), (&[(79_200, 16_200)][..], 0.1));
        let fading = sky.fading.expect("two taps");
        assert_eq!((fading.delay.as_millis(), fading.doppler_hz), (2, 1.0));
        // The link from far to ship has a model of its own.
        assert!(matches!(s.links[&(far, ship)].loss, Loss::Gilbert { .. }));
        let own = "level_db = -12, cell = \"262B\", cell_loss = 0.1, burst = 8";
        let text = WHOLE.replace("cell = \"262B\"\ncell_loss = 0.2", channel).replace(own, "snr_db = 6, itv_db = 0");
        let s = Scenario::parse(&text).expect("reads");
        let Loss::Sky { sky, wreck } = &s.links[&(far, ship)].loss else { panic!("a sky") };
        assert_eq!((&sky.mean, sky.itv, wreck.truncated), (&Mean::Fixed(6.0), None, 0.1));
        assert!(sky.fading.is_some() && sky.ltv.is_some() && sky.interference.is_some());
    }

    #[test]
    fn every_family_of_waveforms_and_every_habit_of_a_modem_can_be_named() {
        let read = |waveform, modem| with("", waveform, modem, "").expect("reads").modems.remove(0);
        let w = read("rate = \"300bps\"\ninterleaver = \"L\"\nfamily = \"4285\"", "").waveform;
        assert_eq!((w.family, w.delay_symbols), (Family::Stanag4285, 24_576));
        let w = read("rate = \"9600bps\"\ninterleaver = \"S\"\nlevel_segments = 7", "").waveform;
        assert_eq!(w.preamble_symbols, 287 + 7 * 184);
        let w = read(
            "rate = \"120000bps\"\ninterleaver = \"M\"\nfamily = \"wbhf\"\nbandwidth = \"24kHz\"\nsuperframes = 3",
            "",
        );
        assert_eq!((w.waveform.khz, w.waveform.preamble_symbols), (24, 3 * 576));
        let m = read(PLAIN, "detect = \"energy\"\noutput = \"clocked\"");
        assert!(m.energy_detect && m.clocked_output);
        for (waveform, part) in [
            ("rate = \"2400bps\"\ninterleaver = \"L\"\nfamily = \"4539\"", "no such rate"),
            ("rate = \"2400bps\"\ninterleaver = \"L\"\nfamily = \"stanag\"", "family is"),
            ("rate = \"2400bps\"\ninterleaver = \"L\"\nlevel_segments = 1", "level_segments"),
            ("rate = \"9600bps\"\ninterleaver = \"L\"\nlevel_segments = 8", "level_segments"),
            ("rate = \"2400bps\"\ninterleaver = \"L\"\nsuperframes = 1", "superframes"),
            ("rate = \"2400bps\"\ninterleaver = \"L\"\nbandwidth = \"wide\"", "bandwidth"),
            ("rate = \"2400bps\"\ninterleaver = \"L\"\nbandwidth = \"6kHz\"", "no such rate"),
        ] {
            let all = with("", waveform, "", "").expect_err("wrong").join("\n");
            assert!(all.contains(part), "{waveform}: {all}");
        }
        for modem in ["detect = \"ear\"", "output = \"slow\""] {
            assert!(with("", PLAIN, modem, "").is_err(), "{modem}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_path_is_said() {
        for (channel, part) in [
            ("snr_db = 10\nblock_loss = 0.1", "only one of"),
            ("preset = \"ccir-poor\"", "belong to snr_db"),
            ("snr_db = 10\npreset = \"poor\"", "no preset poor; there are low-latitude-quiet"),
            ("snr_db = 10\ndoppler_hz = 1", "path_delay and doppler_hz together"),
            ("snr_db = 10\ndoppler_hz = 0\npath_delay = \"2ms\"", "0.001 to 200"),
            ("snr_db = 1000", "200 dB"),
            ("snr_by_clock = {}", "one or more"),
            ("snr_by_clock = { \"24:00\" = 1 }", "no UTC time"),
            ("snr_db = 10\ndead = [\"night\"]", "no span"),
            ("snr_db = 10\nitv_time = \"10s\"", "itv_time belongs to itv_db"),
            ("snr_db = 10\nltv_db = -3", "ltv_db is 0 to 40"),
            ("snr_db = 10\ninterference = { every = \"1s\", last = \"2s\", db = 3 }", "no longer than that"),
            ("script = [\"0s snr\"]", "script line 1"),
            ("script_file = \"trace.txt\"", "needs a scenario that is a file itself"),
            ("pattern = \"..x\"", "need a cell"),
            ("cell = \"9B\"\npattern = \"..y\"", "pattern is made of"),
            ("block_loss = 0.1\nfailed_ber = 0.1", "failed_ber and truncated belong"),
            ("snr = 10", "unknown field"),
        ] {
            let all = with("", PLAIN, "", channel).expect_err(channel).join("\n");
            assert!(all.contains(part), "{channel}: {all}");
        }
    }

    #[test]
    fn a_script_is_read_from_the_scenario_or_from_a_file_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("trace.txt"), "# recorded\n0 snr 12\n90.5 dead\n").expect("written");
        let common = "cell = \"262B\"\ncell_loss = 0.2";
        let inside =
            Scenario::parse(&WHOLE.replace(common, "script = [\"0s snr 12\", \"90.5s dead\"]")).expect("reads");
        let beside = WHOLE.replace(common, "script_file = \"trace.txt\"");
        assert_eq!(Scenario::parse_in(&beside, folder.path()).expect("reads").links, inside.links);
        let outside = beside.replace("trace.txt", "../trace.txt");
        let why = Scenario::parse_in(&outside, folder.path()).expect_err("wrong").join("\n");
        assert!(why.contains("beside the scenario"), "{why}");
    }

    #[test]
    fn ports_and_a_real_modem_are_read() {
        let s = Scenario::parse(REAL).expect("reads");
        let setup = s.codec2.expect("a real modem");
        assert_eq!((setup.mode.name(), setup.spread.map(|p| p.name), setup.snr_db), ("datac3", Some("mpp"), 6.0));
        assert_eq!((s.modems[0].waveform.rate, s.modems[0].waveform.interleaver), (291, "datac3"));
        // 3.41 s.
        assert_eq!(s.modems[0].waveform.block(), Duration::from_millis(3410));
        assert_eq!(s.tcp.len(), 1);
        assert_eq!(s.tcp[&StationId(1)].control.to_string(), "127.0.0.1:7302");
    }

    #[test]
    fn what_means_nothing_to_a_real_modem_is_a_problem() {
        for (old, new, part) in [
            ("kind = \"codec2\"", "kind = \"simulated\"", "goes with kind"),
            ("kind = \"codec2\"", "kind = \"wet string\"", "simulated or codec2"),
            (
                "[[station]]\nname = \"ship\"",
                "[channel]\nlevel_db = 3\n[[station]]\nname = \"ship\"",
                "in place of every",
            ),
            (
                "[[station]]\nname = \"ship\"",
                "[waveform]\nrate = \"75bps\"\ninterleaver = \"S\"\n[[station]]\nname = \"ship\"",
                "in place of every",
            ),
            ("\"datac3\"", "\"datac0\"", "datac1 or datac3"),
            ("\"mpp\"", "\"poor\"", "known: awgn, mpg, mpp, mpd"),
            ("6.0", "600.0", "-30 to 60"),
            ("kind = \"tcp\"", "kind = \"pty\"", "kind is pty, or tcp"),
            ("127.0.0.1:7302", "shore:7302", "no address"),
            ("kind = \"tcp\"", "kind = \"tcp\"\nunkey_after = \"1s\"", "goes with kind = \"pty\""),
            ("station = \"shore\"", "station = \"sure\"", "no station sure"),
        ] {
            assert!(REAL.contains(old), "{old}");
            let problems = Scenario::parse(&REAL.replacen(old, new, 1)).expect_err(new);
            assert!(problems.iter().any(|p| p.contains(part)), "{new}: {problems:?}");
        }
        let failure = format!("{REAL}\n[[event]]\nat = \"1s\"\nfailure = \"deaf\"\nstation = \"ship\"\n");
        assert!(Scenario::parse(&failure).expect_err("deaf").iter().any(|p| p.contains("do not break")));
    }

    const REAL: &str = r#"name = "real"
duration = "1h"

[modem]
kind = "codec2"

[codec2]
mode = "datac3"
path = "mpp"
snr_db = 6.0

[[station]]
name = "ship"

[[station]]
name = "shore"

[[port]]
station = "shore"
kind = "tcp"
data = "127.0.0.1:7301"
control = "127.0.0.1:7302"
"#;

    #[test]
    fn every_shipped_scenario_is_sound() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("text");
            let scenario =
                Scenario::parse_in(&text, Path::new(folder)).unwrap_or_else(|p| panic!("{}: {p:#?}", path.display()));
            let packets = scenario.satcoms.iter().map(|s| s.datagrams.len()).sum::<usize>();
            assert!(scenario.traffic.len() + packets > 0, "{}", path.display());
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
