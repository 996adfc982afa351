//! From raw text to checked values, with every problem found on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aldis::emcon::{State, Window};
use aldis::mail::Precedence;
use aldis::time::{Duration, Instant, Wall};
use aldis::units::{Bytes, parse_duration, show_duration};

use super::{Event, Message, Mishap, Scenario, What, raw};
use crate::bridge::TcpAddresses;
use crate::codec2::air::Setup;
use crate::codec2::audio;
use crate::codec2::modem::Mode;
use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::lab::{MOST_STATIONS, Topology};
use crate::modem::{Failure, ModemConfig};
use crate::node::Coding;
use crate::world::START;

mod contact;
mod satcom;

/// Most messages one entry may stand for.
const MOST_MESSAGES: u32 = 100_000;

/// Reads entries and gathers problems; what is wrong is replaced by something harmless, because it is never used.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<String>,
    names: Vec<String>,
    /// Names of further bearers.
    bearers: Vec<String>,
    /// Where files named by the scenario lie.
    pub(super) folder: Option<PathBuf>,
    /// UTC second of the day at virtual time zero.
    pub(super) clock: u32,
}

impl Reader {
    /// A reader of a scenario that lies in `folder`.
    pub(super) fn beside(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), ..Self::default() }
    }

    pub(super) fn scenario(&mut self, raw: raw::Scenario) -> Scenario {
        let start = match raw.start.as_deref().map(Wall::parse_rfc3339) {
            None => START,
            Some(Some(wall)) => wall,
            Some(None) => self.problem(START, "start", "must be RFC 3339, e.g. 2026-11-23T10:00:00Z"),
        };
        self.clock = u32::try_from((start.0 / 1000).rem_euclid(86_400)).unwrap_or(0);
        // Packet bearers alone need no radio.
        let radios = !raw.station.is_empty() || raw.satcom.is_empty();
        let codec2 = self.codec2(&raw);
        let waveform = match &codec2 {
            Some(setup) => setup.mode.waveform(),
            None if radios => self.waveform("waveform", &raw.waveform),
            None => crate::waveform::TABLE[0],
        };
        let selects = raw.waveform.rate == "auto";
        let modem = self.modem("modem", ModemConfig { selects, ..ModemConfig::new(waveform) }, &raw.modem);
        let channel = self.channel("channel", LinkConfig::default(), &raw.channel);
        let duration = self.duration("duration", &raw.duration);
        if radios && !(2..=256).contains(&raw.station.len()) {
            self.problem((), "station", "2 to 256 of them are needed");
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
                own.selects = waveform.rate == "auto";
            }
            modems.push(match &station.modem {
                Some(changes) => self.modem(&place, own, changes),
                None => own,
            });
        }
        let count = u16::try_from(modems.len()).unwrap_or(0);
        let mut links = EtherConfig::net(0, count, &modem, channel.clone()).links;
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
                let own = self.channel(&place, channel.clone(), changes);
                links.insert(ends, own);
            }
        }
        for bearer in &raw.bearer {
            self.bearer(bearer, count, &modem, &mut modems, &mut links);
        }
        let stations = usize::from(count);
        if radios && Topology::largest_net(stations, &links) > MOST_STATIONS {
            let most = format!("at most {MOST_STATIONS} may hear each other, directly or over others");
            self.problem((), "station", &most);
        }
        let topology = Topology::new(stations.max(1), &links);
        for (name, id) in self.names.clone().iter().zip(0..) {
            if topology.neighbours(StationId(id)).next().is_none() {
                self.problem((), &format!("station {name}"), "no other station hears it and is heard by it");
            }
        }
        let protection = match raw.protection.as_deref() {
            None | Some("mac") => "mac",
            Some("aead") => "aead",
            Some("off") => "off",
            Some(_) => self.problem("mac", "protection", "is off, mac or aead"),
        };
        let coding = match raw.coding.as_deref() {
            None | Some("full") => Coding::Full,
            Some("plain") => Coding::Plain,
            Some(_) => self.problem(Coding::Full, "coding", "is full or plain"),
        };
        let store_ahead = match raw.store.as_deref() {
            None | Some("in turn") => false,
            Some("ahead") => true,
            Some(_) => self.problem(false, "store", "is in turn or ahead"),
        };
        let net_key = match raw.keys.as_deref() {
            None | Some("pair") => false,
            Some("net") => true,
            Some(_) => self.problem(false, "keys", "is pair or net"),
        };
        let mut traffic: Vec<Message> = raw.traffic.iter().flat_map(|t| self.traffic(t, duration)).collect();
        traffic.sort_by_key(|m| m.at);
        if traffic.iter().any(|m| m.also.iter().any(|to| !topology.neighbours(m.from).any(|n| n == *to))) {
            self.problem((), "traffic", "also names neighbours of from alone");
        }
        let mut events: Vec<Event> = raw.event.iter().flat_map(|e| self.event(e, start)).collect();
        for event in &events {
            if let What::Mishap { station, mishap: Mishap::PeersSilent(peers) } = &event.what
                && !peers.iter().all(|peer| topology.neighbours(*station).any(|n| n == *peer))
            {
                let place = format!("event at {}", show_duration(event.at.since(Instant::ZERO)));
                self.problem((), &place, "peers_silent names peers of the station alone");
            }
        }
        events.extend(self.contact_events(&raw.contact, &links, duration));
        events.sort_by_key(|e| e.at);
        let satcoms = self.satcoms(&raw, duration);
        let tcp = raw.port.iter().filter_map(|port| self.port(port)).collect();
        let keyed_by_bytes = raw.port.iter().filter_map(|port| self.unkey_after(port)).collect();
        let stations = self.names.clone();
        Scenario {
            name: raw.name,
            duration,
            start,
            protection,
            coding,
            store_ahead,
            net_key,
            stations,
            bearers: self.bearers.clone(),
            modems,
            links,
            traffic,
            events,
            satcoms,
            codec2,
            tcp,
            keyed_by_bytes,
        }
    }

    /// A further bearer: a frequency with a radio for every station, heard by those that have it.
    fn bearer(
        &mut self,
        raw: &raw::Bearer,
        count: u16,
        common: &ModemConfig,
        modems: &mut Vec<ModemConfig>,
        links: &mut BTreeMap<(StationId, StationId), LinkConfig>,
    ) {
        let place = format!("bearer {}", raw.name);
        if self.bearers.contains(&raw.name) || raw.name == "hf1" {
            self.problem((), &place, "appears twice; hf1 is the first bearer of every station");
        }
        self.bearers.push(raw.name.clone());
        let waveform = self.waveform(&place, &raw.waveform);
        let modem = self.modem(&place, ModemConfig { waveform, ..common.clone() }, &raw.modem);
        let channel = self.channel(&place, LinkConfig::default(), &raw.channel);
        let all: Vec<StationId> = match &raw.stations {
            Some(names) => names.iter().map(|name| self.station(&place, name)).collect(),
            None => (0..count).map(StationId).collect(),
        };
        let offset = u16::try_from(modems.len()).unwrap_or(u16::MAX);
        modems.extend((0..count).map(|_| modem.clone()));
        let radio = |id: &StationId| StationId(offset.saturating_add(id.0));
        for from in &all {
            let others = all.iter().filter(|to| *to != from);
            links.extend(others.map(|to| ((radio(from), radio(to)), channel.clone())));
        }
    }

    /// The radio of a station on the bearer that an event names.
    pub(super) fn radio(&mut self, place: &str, station: StationId, bearer: Option<&String>) -> StationId {
        let Some(name) = bearer.filter(|name| *name != "hf1") else { return station };
        match self.bearers.iter().position(|b| b == name).and_then(|k| u16::try_from((k + 1) * self.names.len()).ok()) {
            Some(offset) => StationId(offset.saturating_add(station.0)),
            None => self.problem(station, place, &format!("no bearer {name}")),
        }
    }

    /// The real modem, where `[modem]` asks for it; with it go the tables that mean nothing then.
    fn codec2(&mut self, raw: &raw::Scenario) -> Option<Setup> {
        match (raw.modem.kind.as_deref().unwrap_or("simulated"), &raw.codec2) {
            ("simulated", None) => return None,
            ("simulated", Some(_)) => return self.problem(None, "codec2", "goes with kind = \"codec2\" in [modem]"),
            ("codec2", Some(_)) => {}
            ("codec2", None) => return self.problem(None, "modem", "kind = \"codec2\" needs a [codec2] table"),
            _ => return self.problem(None, "modem", "kind is simulated or codec2"),
        }
        let table = raw.codec2.as_ref()?;
        let own_waveform = raw.waveform != raw::Waveform::default() || raw.station.iter().any(|s| s.waveform.is_some());
        if own_waveform || raw.channel != raw::Channel::default() || raw.link.iter().any(|l| l.channel.is_some()) {
            self.problem((), "codec2", "mode, path and snr_db stand in place of every waveform and channel");
        }
        if raw.event.iter().any(|e| e.failure.is_some()) {
            self.problem((), "codec2", "these modems do not break: a failure needs the simulated modem");
        }
        let mode = match Mode::parse(&table.mode) {
            Some(mode @ (Mode::Datac1 | Mode::Datac3)) => mode,
            _ => self.problem(Mode::Datac1, "codec2", "mode is datac1 or datac3"),
        };
        let spread = match audio::path(table.path.as_deref().unwrap_or("awgn")) {
            Ok(spread) => spread,
            Err(why) => self.problem(None, "codec2", &why),
        };
        if !(-30.0..=60.0).contains(&table.snr_db) {
            self.problem((), "codec2", "snr_db is -30 to 60");
        }
        Some(Setup { mode, spread, snr_db: table.snr_db })
    }

    fn port(&mut self, raw: &raw::Port) -> Option<(StationId, TcpAddresses)> {
        let place = format!("port {}", raw.station);
        let station = self.station(&place, &raw.station);
        match (raw.kind.as_str(), &raw.data, &raw.control) {
            ("pty", None, None) => None,
            ("tcp", Some(data), Some(control)) => {
                let mut address = |text: &str| {
                    let wrong = format!("{text:?} is no address such as 127.0.0.1:7301");
                    text.parse().ok().or_else(|| self.problem(None, &place, &wrong))
                };
                Some((station, TcpAddresses { data: address(data)?, control: address(control)? }))
            }
            _ => self.problem(None, &place, "kind is pty, or tcp with data and control"),
        }
    }

    fn unkey_after(&mut self, raw: &raw::Port) -> Option<(StationId, Duration)> {
        let place = format!("port {}", raw.station);
        let gap = raw.unkey_after.as_ref()?;
        if raw.kind != "pty" {
            return self.problem(None, &place, "unkey_after goes with kind = \"pty\"");
        }
        Some((self.station(&place, &raw.station), self.duration(&place, gap)))
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
        let also: Vec<StationId> = raw.also.iter().flatten().map(|name| self.station(&place, name)).collect();
        let all: BTreeSet<StationId> = [from, to].into_iter().chain(also.iter().copied()).collect();
        if !also.is_empty() && all.len() != 2 + also.len() {
            self.problem((), &place, "also names a station twice");
        }
        let receipts = raw.receipts.unwrap_or(false);
        (0..count).map(|i| Message { at: at(i), from, to, also: also.clone(), size, precedence, receipts }).collect()
    }

    fn event(&mut self, raw: &raw::Event, start: Wall) -> Vec<Event> {
        let place = format!("event at {}", raw.at);
        let at = self.instant(&place, &raw.at);
        let until = raw.until.as_ref().map(|text| self.instant(&place, text));
        if until.is_some_and(|until| until <= at) {
            self.problem((), &place, "until is not after at");
        }
        if let Some(events) = self.mishap(&place, at, until, raw) {
            return events;
        }
        let kinds = [raw.emcon.is_some(), raw.outage == Some(true), raw.restart == Some(true), raw.failure.is_some()];
        if kinds.iter().filter(|&&k| k).count() != 1 {
            return self.problem(Vec::new(), &place, "exactly one of emcon, outage = true, restart = true and failure");
        }
        if raw.emcon.is_none() && (raw.opens.is_some() || raw.closes.is_some()) {
            self.problem((), &place, "opens and closes belong to emcon = window");
        }
        let is_outage = raw.outage == Some(true);
        if is_outage != (raw.from.is_some() && raw.to.is_some()) || is_outage == raw.station.is_some() {
            return self.problem(Vec::new(), &place, "an outage has from and to, every other event a station");
        }
        let station = raw.station.as_ref().map_or(StationId(0), |name| self.station(&place, name));
        let (first, then) = if let (true, Some(from), Some(to)) = (is_outage, &raw.from, &raw.to) {
            let (from, to) = self.ends(&place, from, to);
            let [from, to] = [from, to].map(|end| self.radio(&place, end, raw.bearer.as_ref()));
            (What::Path { from, to, up: false }, What::Path { from, to, up: true })
        } else if let Some(word) = &raw.emcon {
            let Some(state) = self.emcon(&place, word, raw, start) else {
                let known = "emcon is open, silent, restricted:LEVEL, ack-only or window, with opens and closes";
                return self.problem(Vec::new(), &place, known);
            };
            (What::Emcon { station, state }, What::Emcon { station, state: State::Open })
        } else if let Some(word) = &raw.failure {
            let Some(failure) = failure(word) else {
                let known = "carrier-stuck-on, carrier-stuck-off, key-stuck, deaf or restarting";
                return self.problem(Vec::new(), &place, &format!("failure is {known}"));
            };
            let station = self.radio(&place, station, raw.bearer.as_ref());
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

    /// The state that an order asks for; only a window has times, in the scenario's own time.
    fn emcon(&mut self, place: &str, word: &str, raw: &raw::Event, start: Wall) -> Option<State> {
        match (word, &raw.opens, &raw.closes) {
            ("window", Some(opens), Some(closes)) => {
                let [opens, closes] = [opens, closes].map(|text| self.duration(place, text));
                if closes <= opens {
                    self.problem((), place, "closes is not after opens");
                }
                Some(State::Window(vec![Window { from: start.plus(opens), until: start.plus(closes) }]))
            }
            (word, None, None) => State::parse(word),
            _ => None,
        }
    }

    pub(super) fn station(&mut self, place: &str, name: &str) -> StationId {
        let position = self.names.iter().position(|n| n == name).and_then(|i| u16::try_from(i).ok());
        position.map(StationId).unwrap_or_else(|| self.problem(StationId(0), place, &format!("no station {name}")))
    }

    pub(super) fn ends(&mut self, place: &str, from: &str, to: &str) -> (StationId, StationId) {
        if from == to {
            self.problem((), place, "the ends are the same station");
        }
        (self.station(place, from), self.station(place, to))
    }

    pub(super) fn instant(&mut self, place: &str, text: &str) -> Instant {
        Instant::ZERO + self.duration(place, text)
    }

    pub(super) fn duration(&mut self, place: &str, text: &str) -> Duration {
        parse_duration(text)
            .unwrap_or_else(|| self.problem(Duration::ZERO, place, &format!("{text:?} is no duration such as 90s")))
    }

    pub(super) fn size(&mut self, place: &str, text: &str) -> u64 {
        let size = Bytes::parse(text).map(|Bytes(size)| size).filter(|&size| size <= 1 << 30);
        size.unwrap_or_else(|| self.problem(0, place, &format!("{text:?} is no size such as 10KiB, at most 1GiB")))
    }

    pub(super) fn share(&mut self, place: &str, p: f64) -> f64 {
        if (0.0..=1.0).contains(&p) { p } else { self.problem(0.0, place, &format!("{p} is not between 0 and 1")) }
    }

    /// Notes a problem and goes on with `instead`.
    pub(super) fn problem<T>(&mut self, instead: T, place: &str, problem: &str) -> T {
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
        "restarting" => Failure::Restarting,
        _ => return None,
    })
}
