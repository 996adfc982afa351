//! What befalls a station's machine: power, disks, clock; what its operator does; windows and fades. Read from `[[event]]` tables
//! beside the kinds in `reader`.

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant, Wall};

use super::reader::Reader;
use super::{Event, What, raw};
use crate::ether::StationId;
use crate::lab::Hand;

/// One of a node's disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskName {
    /// The store's.
    Store,
    /// The Maildirs'.
    Mail,
}

/// What goes wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It has this much room left and no more.
    Full(u64),
    /// It is as large as ever again.
    Roomy,
    /// The nth operation from now on that changes or syncs anything fails.
    Error(u64),
    /// The nth sync of a file from now on fails, and dirty pages are dropped.
    SyncError(u64),
    /// The power goes in the middle of the nth operation from now on.
    PowerCut(u64),
}

/// What befalls one station.
#[derive(Clone, PartialEq, Debug)]
pub enum Mishap {
    /// The power fails at once; it comes back after this time, or when the laboratory's usual time is over.
    PowerOff(Option<Duration>),
    /// A disk is in trouble.
    Disk(DiskName, Trouble),
    /// The civil clock shows this from now on, trusted or not; `None`: the true time, trusted.
    Clock(Option<(Wall, bool)>),
    /// An order to radiate only in a window: that long from now, and of this length.
    Window(Duration, Duration),
    /// MINIMIZE: nothing below this level is carried; `None` ends it.
    Minimize(Option<Precedence>),
    /// The operator lays a hand on a message, by its number in order of handing in.
    Hand(usize, Hand),
    /// The process restarts on a store from which the messages that both ends hold are gone.
    HistoryLost,
    /// The operator is told that these peers keep silence.
    PeersSilent(Vec<StationId>),
    /// The operator is told that these peers may be spoken to again.
    PeersHeard(Vec<StationId>),
}

impl Reader {
    /// Reads an event that is one of these; `None` when it is not.
    pub(super) fn mishap(
        &mut self,
        place: &str,
        at: Instant,
        until: Option<Instant>,
        raw: &raw::Event,
    ) -> Option<Vec<Event>> {
        let window = raw.emcon.as_deref() == Some("window") && raw.closes.is_none();
        let kinds = [
            window,
            raw.power_cut.is_some(),
            raw.disk.is_some(),
            raw.clock.is_some(),
            raw.minimize.is_some(),
            raw.hand.is_some(),
            raw.fade.is_some(),
            raw.peers_silent.is_some(),
            raw.history_lost == Some(true),
        ];
        let others = [
            raw.emcon.is_some() && !window,
            raw.outage == Some(true),
            raw.restart == Some(true),
            raw.failure.is_some(),
        ];
        match kinds.iter().filter(|k| **k).count() {
            0 => return None,
            1 if !others.contains(&true) => {}
            _ => return Some(self.problem(Vec::new(), place, "one event is one kind of thing")),
        }
        let event = |at, what| Event { at, what };
        if let Some(loss) = raw.fade {
            let (Some(from), Some(to)) = (&raw.from, &raw.to) else {
                return Some(self.problem(Vec::new(), place, "a fade has from and to"));
            };
            let ((from, to), loss) = (self.ends(place, from, to), self.share(place, loss));
            let [from, to] = [from, to].map(|end| self.radio(place, end, raw.bearer.as_ref()));
            let mut events = vec![event(at, What::Fade { from, to, loss: Some(loss) })];
            events.extend(until.map(|until| event(until, What::Fade { from, to, loss: None })));
            return Some(events);
        }
        let Some(name) = &raw.station else {
            return Some(self.problem(Vec::new(), place, "it befalls a station"));
        };
        let station = self.station(place, name);
        let then = |mishap| What::Mishap { station, mishap };
        let (first, last) = self.pair(place, at, until, raw);
        let mut events: Vec<Event> = first.map(|mishap| event(at, then(mishap))).into_iter().collect();
        if let (Some(until), Some(last)) = (until, last) {
            events.push(event(
                until,
                match last {
                    Last::Mishap(mishap) => then(mishap),
                    Last::Open => What::Emcon { station, state: aldis::emcon::State::Open },
                },
            ));
        }
        Some(events)
    }

    /// What happens first, and what at `until`.
    fn pair(
        &mut self,
        place: &str,
        at: Instant,
        until: Option<Instant>,
        raw: &raw::Event,
    ) -> (Option<Mishap>, Option<Last>) {
        let operation = raw.operation.unwrap_or(0);
        if let Some(word) = &raw.power_cut {
            let away = until.map(|until| until.since(at));
            return match word.as_str() {
                "now" => (Some(Mishap::PowerOff(away)), None),
                "store" => (Some(Mishap::Disk(DiskName::Store, Trouble::PowerCut(operation))), None),
                "mail" => (Some(Mishap::Disk(DiskName::Mail, Trouble::PowerCut(operation))), None),
                _ => self.problem((None, None), place, "power_cut is now, or store or mail with operation"),
            };
        }
        if let Some(word) = &raw.disk {
            let room = raw.room.as_ref().map_or(0, |text| self.size(place, text));
            let (disk, trouble) = match word.split_once('-') {
                Some(("store", trouble)) => (DiskName::Store, trouble),
                Some(("mail", trouble)) => (DiskName::Mail, trouble),
                _ => (DiskName::Store, ""),
            };
            let trouble = match trouble {
                "full" => Trouble::Full(room),
                "error" => Trouble::Error(operation),
                "sync-error" => Trouble::SyncError(operation),
                _ => {
                    let known = "disk is store-full, store-error, store-sync-error or the same with mail";
                    return self.problem((None, None), place, known);
                }
            };
            let last = matches!(trouble, Trouble::Full(_)).then_some(Mishap::Disk(disk, Trouble::Roomy));
            return (Some(Mishap::Disk(disk, trouble)), last.map(Last::Mishap));
        }
        if let Some(text) = &raw.clock {
            let Some(shows) = Wall::parse_rfc3339(text) else {
                return self.problem((None, None), place, "clock must be RFC 3339, e.g. 1970-01-01T00:00:00Z");
            };
            let set = raw.clock_set.unwrap_or(true);
            return (Some(Mishap::Clock(Some((shows, set)))), Some(Last::Mishap(Mishap::Clock(None))));
        }
        if let Some(word) = &raw.minimize {
            let Some(least) = Precedence::parse(word) else {
                return self.problem((None, None), place, "minimize is the lowest level still carried");
            };
            return (Some(Mishap::Minimize(Some(least))), Some(Last::Mishap(Mishap::Minimize(None))));
        }
        if let Some(word) = &raw.hand {
            let hand = match word.as_str() {
                "hold" => Some(Hand::Hold),
                "release" => Some(Hand::Release),
                "cancel" => Some(Hand::Cancel),
                other => other.strip_prefix("expedite:").and_then(Precedence::parse).map(Hand::Expedite),
            };
            let (Some(hand), Some(message)) = (hand, raw.message) else {
                let known = "hand is hold, release, cancel or expedite:LEVEL, with message, the number of one";
                return self.problem((None, None), place, known);
            };
            return (Some(Mishap::Hand(usize::try_from(message).unwrap_or(usize::MAX), hand)), None);
        }
        if raw.history_lost == Some(true) {
            return (Some(Mishap::HistoryLost), None);
        }
        if let Some(names) = &raw.peers_silent {
            if names.is_empty() {
                return self.problem((None, None), place, "peers_silent names one or more peers of the station");
            }
            let peers: Vec<StationId> = names.iter().map(|name| self.station(place, name)).collect();
            return (Some(Mishap::PeersSilent(peers.clone())), Some(Last::Mishap(Mishap::PeersHeard(peers))));
        }
        let opens = raw.after.as_ref().map_or(Duration::ZERO, |text| self.duration(place, text));
        let Some(length) = &raw.length else {
            return self.problem(
                (None, None),
                place,
                "a window has opens and closes, or a length, and opens after a while",
            );
        };
        (Some(Mishap::Window(opens, self.duration(place, length))), Some(Last::Open))
    }
}

/// What ends a mishap.
enum Last {
    Mishap(Mishap),
    Open,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use aldis::emcon::State;

    #[test]
    fn every_mishap_is_read_and_written_back() {
        let text = format!("{HEAD}{MISHAPS}");
        let scenario = Scenario::parse(&text).expect("reads");
        let (a, b) = (StationId(0), StationId(1));
        let mishap = |mishap| What::Mishap { station: a, mishap };
        let whats: Vec<What> = scenario.events.iter().map(|e| e.what.clone()).collect();
        let start = Wall::from_seconds(0);
        assert_eq!(
            whats,
            [
                mishap(Mishap::Clock(Some((start, false)))),
                mishap(Mishap::Disk(DiskName::Mail, Trouble::PowerCut(7))),
                mishap(Mishap::PowerOff(Some(Duration::from_secs(60)))),
                mishap(Mishap::Disk(DiskName::Store, Trouble::Full(4096))),
                mishap(Mishap::Disk(DiskName::Store, Trouble::SyncError(3))),
                mishap(Mishap::Disk(DiskName::Store, Trouble::Roomy)),
                mishap(Mishap::Window(Duration::from_secs(10), Duration::from_secs(60))),
                mishap(Mishap::Minimize(Some(Precedence::Flash))),
                mishap(Mishap::Hand(0, Hand::Expedite(Precedence::Override))),
                What::Fade { from: a, to: b, loss: Some(0.5) },
                mishap(Mishap::Minimize(None)),
                What::Fade { from: a, to: b, loss: None },
                What::Emcon { station: a, state: State::Open },
                mishap(Mishap::PeersSilent(vec![b])),
                mishap(Mishap::HistoryLost),
                mishap(Mishap::Clock(None)),
                mishap(Mishap::PeersHeard(vec![b])),
            ]
        );
        let raw: raw::Scenario = toml::from_str(&text).expect("raw");
        let again = toml::to_string(&raw).expect("written");
        assert_eq!(Scenario::parse(&again), Ok(scenario));
    }

    #[test]
    fn a_mishap_that_is_two_or_none_is_named() {
        for (event, part) in [
            ("station = \"a\"\nclock = \"yesterday\"", "RFC 3339"),
            ("station = \"a\"\ndisk = \"floppy\"", "store-full"),
            ("station = \"a\"\npower_cut = \"now\"\nrestart = true", "one kind of thing"),
            ("clock = \"1970-01-01T00:00:00Z\"", "befalls a station"),
            ("station = \"a\"\nemcon = \"window\"", "length"),
            ("fade = 0.5", "from and to"),
            ("station = \"a\"\npeers_silent = []", "one or more"),
            ("station = \"a\"\npeers_silent = [\"c\"]", "no station c"),
            ("station = \"a\"\npeers_silent = [\"a\"]", "peers of the station"),
            ("peers_silent = [\"b\"]", "befalls a station"),
            ("station = \"a\"\npeers_silent = [\"b\"]\nemcon = \"silent\"", "one kind of thing"),
        ] {
            let problems = Scenario::parse(&format!("{HEAD}[[event]]\nat = \"1s\"\n{event}\n")).expect_err(event);
            assert!(problems.join("\n").contains(part), "{event}: {problems:?}");
        }
    }

    const HEAD: &str = r#"name = "mishaps"
duration = "1h"
protection = "aead"
waveform = { rate = "2400bps", interleaver = "S" }

[[station]]
name = "a"

[[station]]
name = "b"

"#;

    const MISHAPS: &str = r#"
[[event]]
at = "0s"
until = "30min"
clock = "1970-01-01T00:00:00Z"
clock_set = false
station = "a"

[[event]]
at = "1min"
power_cut = "mail"
operation = 7
station = "a"

[[event]]
at = "2min"
until = "3min"
power_cut = "now"
station = "a"

[[event]]
at = "4min"
until = "6min"
disk = "store-full"
room = "4KiB"
station = "a"

[[event]]
at = "5min"
disk = "store-sync-error"
operation = 3
station = "a"

[[event]]
at = "7min"
until = "15min"
emcon = "window"
after = "10s"
length = "60s"
station = "a"

[[event]]
at = "8min"
until = "11min"
minimize = "flash"
station = "a"

[[event]]
at = "9min"
hand = "expedite:override"
message = 0
station = "a"

[[event]]
at = "10min"
until = "12min"
fade = 0.5
from = "a"
to = "b"

[[event]]
at = "20min"
until = "40min"
peers_silent = ["b"]
station = "a"

[[event]]
at = "25min"
history_lost = true
station = "a"
"#;
}
