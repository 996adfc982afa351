//! From raw text to checked values, with every problem found on the way.

use std::collections::BTreeSet;

use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::time::{Duration, Instant, Wall};
use aldis::units::{Bps, Bytes, parse_duration};

use super::{Event, Message, Scenario, What, raw};
use crate::channel::{Damage, Loss};
use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::lab::{MOST_STATIONS, Topology};
use crate::modem::{Failure, ModemConfig, Noise};
use crate::waveform::Waveform;
use crate::world::START;

/// Most messages one entry may stand for.
const MOST_MESSAGES: u32 = 100_000;

/// Reads entries and gathers problems; what is wrong is replaced by something harmless, because it is never used.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<String>,
    names: Vec<String>,
}

impl Reader {
    pub(super) fn scenario(&mut self, raw: raw::Scenario) -> Scenario {
        let waveform = self.waveform("waveform", &raw.waveform);
        let modem = self.modem("modem", ModemConfig::new(waveform), &raw.modem);
        let channel = self.channel("channel", LinkConfig::default(), &raw.channel);
        let duration = self.duration("duration", &raw.duration);
        let start = match raw.start.as_deref().map(Wall::parse_rfc3339) {
            None => START,
            Some(Some(wall)) => wall,
            Some(None) => self.problem(START, "start", "must be RFC 3339, e.g. 2026-11-23T10:00:00Z"),
        };
        if !(2..=256).contains(&raw.station.len()) {
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
        if Topology::largest_net(modems.len(), &links) > MOST_STATIONS {
            let most = format!("at most {MOST_STATIONS} may hear each other, directly or over others");
            self.problem((), "station", &most);
        }
        let topology = Topology::new(modems.len(), &links);
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
        let mut traffic: Vec<Message> = raw.traffic.iter().flat_map(|t| self.traffic(t, duration)).collect();
        traffic.sort_by_key(|m| m.at);
        let mut events: Vec<Event> = raw.event.iter().flat_map(|e| self.event(e)).collect();
        events.sort_by_key(|e| e.at);
        let stations = self.names.clone();
        Scenario { name: raw.name, duration, start, protection, stations, modems, links, traffic, events }
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
        if let Some(events) = self.mishap(&place, at, until, raw) {
            return events;
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
        _ => return None,
    })
}
