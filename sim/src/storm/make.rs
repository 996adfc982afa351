//! From a seed to a scenario: topology, modems, paths, traffic and mishaps, all drawn from one stream.

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};
use aldis::units::show_duration;

use super::Profile;
use crate::rng::Stream;
use crate::scenario::raw;
use crate::world::START;

const NAMES: [&str; 16] = [
    "alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima",
    "mike", "november", "oscar", "papa",
];

/// What may befall a net.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Restart,
    PowerOff,
    PowerCut,
    DiskFull,
    DiskError,
    SyncError,
    Clock,
    Emcon,
    Window,
    Failure,
    Outage,
    Fade,
    Minimize,
    Hand,
}

const ALL: [Kind; 14] = [
    Kind::Restart,
    Kind::PowerOff,
    Kind::PowerCut,
    Kind::DiskFull,
    Kind::DiskError,
    Kind::SyncError,
    Kind::Clock,
    Kind::Emcon,
    Kind::Window,
    Kind::Failure,
    Kind::Outage,
    Kind::Fade,
    Kind::Minimize,
    Kind::Hand,
];

/// What a profile draws from.
struct Taste {
    /// Kinds that may be in it.
    kinds: Vec<Kind>,
    /// Most mishaps.
    mishaps: u64,
    /// Most messages.
    messages: u64,
    /// Shortest and longest duration, in seconds.
    seconds: (u64, u64),
    /// The share of seeds with more than two stations.
    crowded: f64,
    /// Whether paths lose anything.
    lossy: bool,
}

fn taste(profile: Profile, chance: &mut Stream) -> Taste {
    let usual = Taste { kinds: Vec::new(), mishaps: 10, messages: 8, seconds: (600, 2400), crowded: 0.4, lossy: true };
    let of = |kinds: &[Kind]| kinds.to_vec();
    match profile {
        Profile::Mixed => Taste { kinds: ALL.into_iter().filter(|_| chance.chance(0.35)).collect(), ..usual },
        Profile::Calm => Taste { mishaps: 0, messages: 20, crowded: 0.7, ..usual },
        Profile::Cuts => Taste {
            kinds: of(&[Kind::PowerCut, Kind::PowerCut, Kind::PowerOff, Kind::Restart]),
            mishaps: 16,
            crowded: 0.15,
            seconds: (300, 900),
            ..usual
        },
        Profile::Disks => {
            let kinds = of(&[Kind::DiskFull, Kind::DiskFull, Kind::DiskError, Kind::SyncError]);
            Taste { kinds, messages: 20, crowded: 0.15, ..usual }
        }
        Profile::Silence => Taste {
            kinds: of(&[Kind::Emcon, Kind::Emcon, Kind::Window, Kind::PowerOff, Kind::Restart]),
            mishaps: 16,
            crowded: 0.2,
            ..usual
        },
        Profile::Clocks => {
            Taste { kinds: of(&[Kind::Clock, Kind::Clock, Kind::Window, Kind::Restart, Kind::Outage]), ..usual }
        }
        Profile::Service => {
            let kinds = of(&[Kind::Hand, Kind::Minimize, Kind::Outage]);
            Taste { kinds, mishaps: 3, messages: 24, seconds: (300, 900), crowded: 0.2, ..usual }
        }
        Profile::Absence => {
            let kinds = of(&[Kind::Outage, Kind::Emcon]);
            Taste { kinds, mishaps: 4, seconds: (4 * 3600, 30 * 3600), crowded: 0.2, ..usual }
        }
        Profile::Bearers => {
            let kinds =
                [Kind::Outage, Kind::Outage, Kind::Fade, Kind::Failure, Kind::Emcon, Kind::PowerCut, Kind::Restart];
            Taste { kinds: of(&kinds), mishaps: 8, crowded: 0.25, ..usual }
        }
        Profile::Crowd => {
            Taste { messages: 200, mishaps: 0, seconds: (3600, 3600), crowded: 1.0, lossy: true, ..usual }
        }
    }
}

/// The scenario of a seed.
pub(super) fn scenario(seed: u64, profile: Profile) -> raw::Scenario {
    let mut chance = Stream::new(seed, "storm", profile as u64);
    let taste = taste(profile, &mut chance);
    let (low, high) = taste.seconds;
    let duration = Duration::from_secs(low + chance.below(high - low + 1));
    let (names, nets) = stations(profile, taste.crowded, &mut chance);
    let waveform = waveform(&mut chance);
    let mut raw = raw::Scenario {
        name: format!("storm {seed}, {}", profile.name()),
        duration: show_duration(duration),
        protection: Some(["mac", "aead", "mac", "off"][chance.below(4) as usize].into()),
        modem: modem(&mut chance),
        channel: channel(taste.lossy, &mut chance),
        station: names.iter().map(|name| raw::Station { name: name.clone(), ..raw::Station::default() }).collect(),
        link: links(&names, &nets, &mut chance),
        waveform,
        ..raw::Scenario::default()
    };
    if profile != Profile::Crowd {
        choosing(&mut raw, &mut Stream::new(seed, "storm rate", profile as u64));
    }
    let messages = 1 + chance.below(taste.messages);
    for _ in 0..messages {
        let net = &nets[chance.below(nets.len() as u64) as usize];
        let mut message = message(net, &names, duration, &raw.waveform, &mut chance);
        if net.len() > 2 && chance.chance(0.4) {
            message.also = also(&message, net, &names, &raw.link, &mut chance);
        }
        raw.traffic.push(message);
    }
    // Drawn by themselves: a seed of before is otherwise as it was.
    let mut wishes = Stream::new(seed, "storm receipts", profile as u64);
    let share = [0.0, 0.3, 0.9][wishes.below(3) as usize];
    raw.traffic.iter_mut().for_each(|m| m.receipts = wishes.chance(share).then_some(true));
    let mishaps = if taste.kinds.is_empty() { 0 } else { 1 + chance.below(taste.mishaps) };
    for _ in 0..mishaps {
        let kind = taste.kinds[chance.below(taste.kinds.len() as u64) as usize];
        let net = &nets[chance.below(nets.len() as u64) as usize];
        raw.event.extend(mishap(kind, net, &names, duration, messages, &mut chance));
    }
    if profile == Profile::Bearers {
        second_bearer(&mut raw, &mut chance);
    }
    let silences = match profile {
        Profile::Silence => 0.5,
        Profile::Absence => 0.4,
        Profile::Mixed => 0.2,
        _ => 0.0,
    };
    silent_peers(&mut raw, silences, duration, &mut Stream::new(seed, "storm silent peers", profile as u64));
    raw.keys = (names.len() > 2 && chance.chance(0.4)).then(|| "net".into());
    // What a payload is made of does not matter to its custody, and making it well takes most of a run's real time.
    raw.coding = (!chance.chance(0.04)).then(|| "plain".into());
    raw.store = Stream::new(seed, "storm store", profile as u64).chance(0.5).then(|| "ahead".into());
    if raw.coding.is_none() {
        lost_histories(&mut raw, duration, &mut Stream::new(seed, "storm lost histories", profile as u64));
    }
    if raw.event.iter().any(|e| e.failure.as_deref() == Some("key-stuck")) && chance.chance(0.5) {
        raw.modem.max_key_down = Some("4min".into());
    }
    raw
}

/// Names, and which of them hang together.
fn stations(profile: Profile, crowded: f64, chance: &mut Stream) -> (Vec<String>, Vec<Vec<usize>>) {
    let sizes = match profile {
        Profile::Crowd => vec![8; 12].into_iter().chain([4]).collect(),
        _ if !chance.chance(crowded) => vec![2],
        _ => match chance.below(10) {
            0..=5 => vec![3 + chance.below(2)],
            6..=8 => vec![5 + chance.below(4)],
            _ => vec![2 + chance.below(3), 2 + chance.below(3)],
        },
    };
    let count: u64 = sizes.iter().sum();
    let name = |i: u64| NAMES.get(i as usize).map_or_else(|| format!("station{i:03}"), |n| (*n).to_owned());
    let mut next = 0;
    let nets = sizes.iter().map(|size| {
        let net = (next..next + *size as usize).collect();
        next += *size as usize;
        net
    });
    let nets = nets.collect();
    ((0..count).map(name).collect(), nets)
}

fn waveform(chance: &mut Stream) -> raw::Waveform {
    let known = [(2400, "S"), (2400, "L"), (1200, "S"), (9600, "S"), (600, "S"), (4800, "M"), (2400, "S"), (300, "S")];
    let (rate, interleaver) = known[chance.below(known.len() as u64) as usize];
    raw::Waveform { rate: format!("{rate}bps"), interleaver: interleaver.into(), ..raw::Waveform::default() }
}

/// Some nets choose their rate, on a sky or on losses that no rate changes; a stream of its own leaves the rest of a seed as it was.
fn choosing(raw: &mut raw::Scenario, chance: &mut Stream) {
    if !chance.chance(0.25) {
        return;
    }
    raw.waveform = raw::Waveform { rate: "auto".into(), interleaver: "auto".into(), ..raw::Waveform::default() };
    raw.modem.snr_error_db = chance.chance(0.7).then_some(1.0);
    if chance.chance(0.7) {
        raw.channel = raw::Channel {
            snr_db: Some(8.0 + (chance.unit() * 24.0).round()),
            path_delay: Some(ms(1 + chance.below(3))),
            doppler_hz: Some([0.1, 0.5, 1.0][chance.below(3) as usize]),
            itv_db: Some(4.0),
            itv_time: Some("10s".into()),
            ltv_db: Some(3.0),
            ltv_time: Some("20min".into()),
            ..raw::Channel::default()
        };
    }
}

/// Some stations keep silence and those who write to them are told: in time, late, never, or only some of them. Some speak nevertheless,
/// some are said to be heard again while they are silent, or only long after. A stream of its own leaves the rest of a seed as it was.
fn silent_peers(raw: &mut raw::Scenario, share: f64, duration: Duration, chance: &mut Stream) {
    if !chance.chance(share) {
        return;
    }
    let whole = duration.as_millis() as u64;
    let cut = |a: &str, b: &str| raw.link.iter().any(|l| (l.from == a && l.to == b) || (l.from == b && l.to == a));
    let mut events = Vec::new();
    for silent in raw.station.iter().map(|s| &s.name) {
        if !chance.chance(0.6) {
            continue;
        }
        let at = chance.below(whole * 6 / 10);
        let until = at + whole / 20 + chance.below(whole - at);
        if chance.chance(0.85) {
            events.push(raw::Event {
                at: ms(at),
                until: chance.chance(0.8).then(|| ms(until)),
                emcon: Some(if chance.chance(0.85) { "silent" } else { "ack-only" }.into()),
                station: Some(silent.clone()),
                ..raw::Event::default()
            });
        }
        for told in raw.station.iter().map(|s| &s.name).filter(|told| *told != silent && !cut(told, silent)) {
            if !chance.chance(0.8) {
                continue;
            }
            let from = match chance.below(3) {
                0 => at.saturating_sub(1 + chance.below(60_000)),
                1 => at + chance.below(10_000),
                _ => at + chance.below(until - at),
            };
            let heard = match chance.below(4) {
                0 => Some(from + 1 + chance.below((until - from).max(1))),
                1 => Some(until.max(from) + 1 + chance.below(10_000)),
                2 => Some(until.max(from) + 1 + chance.below(whole / 4)),
                _ => None,
            };
            events.push(raw::Event {
                at: ms(from),
                until: heard.map(ms),
                peers_silent: Some(vec![silent.clone()]),
                station: Some(told.clone()),
                ..raw::Event::default()
            });
        }
    }
    raw.event.extend(events);
}

/// Where mail is coded in full some stations lose the messages they hold in common with others. A stream of its own leaves the rest of a
/// seed as it was.
fn lost_histories(raw: &mut raw::Scenario, duration: Duration, chance: &mut Stream) {
    for _ in 0..chance.below(4) {
        let station = &raw.station[chance.below(raw.station.len() as u64) as usize];
        raw.event.push(raw::Event {
            at: ms(chance.below(duration.as_millis() as u64 * 9 / 10)),
            station: Some(station.name.clone()),
            history_lost: Some(true),
            ..raw::Event::default()
        });
    }
}

/// A satellite beside HF. Half of what befalls paths and modems befalls it, and some messages take long enough to be caught by that.
fn second_bearer(raw: &mut raw::Scenario, chance: &mut Stream) {
    let rate = ["9600bps", "2400bps", "1200bps"][chance.below(3) as usize];
    raw.bearer.push(raw::Bearer {
        name: "satcom".into(),
        waveform: raw::Waveform { rate: rate.into(), interleaver: "S".into(), ..raw::Waveform::default() },
        modem: raw::Modem { turnaround: Some(ms(500 + chance.below(1500))), ..raw::Modem::default() },
        channel: raw::Channel { delay: Some("270ms".into()), ..channel(chance.chance(0.5), chance) },
        stations: None,
    });
    for event in &mut raw.event {
        let of_a_radio = event.outage.is_some() || event.fade.is_some() || event.failure.is_some();
        event.bearer = (of_a_radio && chance.chance(0.5)).then(|| "satcom".into());
    }
    for message in &mut raw.traffic {
        if chance.chance(0.2) {
            message.size = format!("{}B", 5_000 + chance.below(25_000));
        }
    }
}

fn modem(chance: &mut Stream) -> raw::Modem {
    let can_abort = chance.chance(0.7);
    let noise = chance.chance(0.15);
    raw::Modem {
        turnaround: Some(ms(500 + chance.below(4000))),
        can_abort: Some(can_abort),
        abort_delay: can_abort.then(|| ms(20 + chance.below(400))),
        buffer: Some(if chance.chance(0.5) { "16KiB".into() } else { "4KiB".into() }),
        waits_for_carrier: Some(chance.chance(0.9)),
        noise_every: noise.then(|| ms(5_000 + chance.below(60_000))),
        noise: noise.then(|| format!("{}B", 1 + chance.below(200))),
        ..raw::Modem::default()
    }
}

fn channel(lossy: bool, chance: &mut Stream) -> raw::Channel {
    let mut channel = raw::Channel::default();
    if !lossy || chance.chance(0.25) {
        return channel;
    }
    channel.preamble_miss = Some(share(chance, 0.05));
    match chance.below(4) {
        0 => channel.bit_errors = Some(share(chance, 1e-4)),
        1 => channel.block_loss = Some(share(chance, 0.1)),
        _ => {
            channel.cell = Some("262B".into());
            channel.cell_loss = Some(share(chance, 0.25));
            channel.burst = chance.chance(0.3).then(|| 1.5 + chance.unit() * 6.0);
            channel.deleted = Some(chance.chance(0.2));
        }
    }
    channel
}

/// Every net is a random tree and some more; sometimes one station hears another that does not hear it.
fn links(names: &[String], nets: &[Vec<usize>], chance: &mut Stream) -> Vec<raw::Link> {
    let mut present = vec![vec![false; names.len()]; names.len()];
    for net in nets {
        let more = if chance.chance(0.5) { 1.0 } else { 0.4 * chance.unit() };
        for (n, a) in net.iter().enumerate().skip(1) {
            let parent = chance.below(n as u64) as usize;
            for (m, b) in net.iter().enumerate().take(n) {
                let (there, back) = match chance.unit() {
                    _ if m == parent => (true, true),
                    x if x < more => (true, true),
                    x if x > 0.95 => (true, false),
                    _ => (false, false),
                };
                (present[*a][*b], present[*b][*a]) = (there, back);
            }
        }
    }
    let pairs = (0..names.len()).flat_map(|a| (0..names.len()).map(move |b| (a, b)));
    let absent = pairs.filter(|(a, b)| a != b && !present[*a][*b]);
    let link = |(a, b): (usize, usize)| raw::Link {
        from: names[a].clone(),
        to: names[b].clone(),
        absent: Some(true),
        channel: None,
    };
    absent.map(link).collect()
}

fn message(
    net: &[usize],
    names: &[String],
    duration: Duration,
    waveform: &raw::Waveform,
    chance: &mut Stream,
) -> raw::Traffic {
    let (from, to) = two(net, chance);
    let slow = matches!(waveform.rate.as_str(), "300bps" | "600bps" | "auto");
    // Custody does not depend on size: long messages are rare.
    let most = if !slow && chance.chance(0.05) { 12_000 } else { 1_200 };
    let level = Precedence::from_rank(chance.below(6) as u8).unwrap_or(Precedence::Routine);
    // A third of the traffic comes in bursts, so that there is something to choose from.
    let at = duration.as_millis() as u64 * 4 / 5;
    let at = if chance.chance(0.33) { at / 4 * chance.below(4) } else { chance.below(at) };
    raw::Traffic {
        at: ms(at),
        from: names[from].clone(),
        to: names[to].clone(),
        size: format!("{}B", 300 + chance.below(most)),
        precedence: Some(level.to_string()),
        ..raw::Traffic::default()
    }
}

/// Further recipients of a message: some of those who hear its sender and are heard by it.
fn also(
    message: &raw::Traffic,
    net: &[usize],
    names: &[String],
    absent: &[raw::Link],
    chance: &mut Stream,
) -> Option<Vec<String>> {
    let cut = |a: &str, b: &str| absent.iter().any(|l| (l.from == a && l.to == b) || (l.from == b && l.to == a));
    let others = net.iter().map(|i| names[*i].clone()).filter(|name| *name != message.from && *name != message.to);
    let also: Vec<String> = others.filter(|name| !cut(&message.from, name) && chance.chance(0.6)).collect();
    (!also.is_empty()).then_some(also)
}

fn mishap(
    kind: Kind,
    net: &[usize],
    names: &[String],
    duration: Duration,
    messages: u64,
    chance: &mut Stream,
) -> Vec<raw::Event> {
    let whole = duration.as_millis() as u64;
    let at = chance.below(whole * 9 / 10);
    let while_long = whole / 20 + chance.below(whole / 2);
    let briefly = 1_000 + chance.below(120_000);
    let (a, b) = two(net, chance);
    let here = raw::Event { at: ms(at), station: Some(names[a].clone()), ..raw::Event::default() };
    let path = |from: usize, to: usize| raw::Event {
        at: ms(at),
        until: Some(ms(at + while_long)),
        from: Some(names[from].clone()),
        to: Some(names[to].clone()),
        ..raw::Event::default()
    };
    let disk = |chance: &mut Stream, trouble: &str| {
        let disk = if chance.chance(0.7) { "store" } else { "mail" };
        Some(if trouble.is_empty() { disk.to_owned() } else { format!("{disk}-{trouble}") })
    };
    let event = match kind {
        Kind::Restart => raw::Event { restart: Some(true), until: Some(ms(at + briefly)), ..here },
        Kind::PowerOff => raw::Event { power_cut: Some("now".into()), until: Some(ms(at + briefly)), ..here },
        Kind::PowerCut => raw::Event { power_cut: disk(chance, ""), operation: Some(chance.below(60)), ..here },
        Kind::DiskFull => raw::Event {
            disk: disk(chance, "full"),
            room: Some(format!("{}B", chance.below(40_000))),
            until: Some(ms(at + while_long)),
            ..here
        },
        Kind::DiskError => raw::Event { disk: disk(chance, "error"), operation: Some(chance.below(60)), ..here },
        Kind::SyncError => raw::Event { disk: disk(chance, "sync-error"), operation: Some(chance.below(20)), ..here },
        Kind::Clock => clock(here, at, while_long, chance),
        Kind::Emcon => {
            let words = ["silent", "silent", "silent", "ack-only", "restricted:immediate", "restricted:flash", "open"];
            let word = words[chance.below(words.len() as u64) as usize];
            let until = chance.chance(0.5).then(|| ms(at + while_long));
            raw::Event { emcon: Some(word.into()), until, ..here }
        }
        Kind::Window => raw::Event {
            emcon: Some("window".into()),
            after: Some(ms(chance.below(60_000))),
            length: Some(ms(5_000 + chance.below(180_000))),
            until: chance.chance(0.5).then(|| ms(at + while_long)),
            ..here
        },
        Kind::Failure => {
            let failures = ["carrier-stuck-on", "carrier-stuck-off", "key-stuck", "deaf"];
            let failure = failures[chance.below(4) as usize];
            raw::Event { failure: Some(failure.into()), until: Some(ms(at + while_long)), ..here }
        }
        Kind::Outage => {
            let mut events = vec![raw::Event { outage: Some(true), ..path(a, b) }];
            if chance.chance(0.5) {
                events.push(raw::Event { outage: Some(true), ..path(b, a) });
            }
            return events;
        }
        Kind::Fade => {
            let depth = 0.2 + 0.7 * chance.unit();
            raw::Event { fade: Some((depth * 1000.0).round() / 1000.0), ..path(a, b) }
        }
        Kind::Minimize => raw::Event {
            minimize: Some(["priority", "immediate", "flash"][chance.below(3) as usize].into()),
            until: Some(ms(at + while_long)),
            ..here
        },
        Kind::Hand => {
            let words = ["hold", "release", "expedite:override", "expedite:flash", "cancel"];
            let word = words[chance.below(words.len() as u64) as usize];
            raw::Event { hand: Some(word.into()), message: Some(chance.below(messages)), ..here }
        }
    };
    vec![event]
}

/// A machine that boots in 1970 and learns the time; one that loses it and shows a time far ahead; one that is stepped either way.
fn clock(here: raw::Event, at: u64, long: u64, chance: &mut Stream) -> raw::Event {
    let truly = START.plus(Instant::from_millis(at).since(Instant::ZERO));
    let step = i64::try_from(1_000 + chance.below(6 * 3_600_000)).unwrap_or(0);
    let shows = |wall: aldis::time::Wall| Some(wall.rfc3339());
    match chance.below(4) {
        0 => raw::Event {
            at: "0ms".into(),
            until: Some(ms(long)),
            clock: Some("1970-01-01T00:00:00Z".into()),
            clock_set: Some(false),
            ..here
        },
        1 => raw::Event {
            until: Some(ms(at + long)),
            clock: Some("2041-06-01T00:00:00Z".into()),
            clock_set: Some(false),
            ..here
        },
        2 => raw::Event { until: Some(ms(at + long)), clock: shows(aldis::time::Wall(truly.0 + step)), ..here },
        _ => raw::Event { until: Some(ms(at + long)), clock: shows(aldis::time::Wall(truly.0 - step)), ..here },
    }
}

/// Two different stations of a net.
fn two(net: &[usize], chance: &mut Stream) -> (usize, usize) {
    let a = chance.below(net.len() as u64) as usize;
    let b = (a + 1 + chance.below(net.len() as u64 - 1) as usize) % net.len();
    (net[a], net[b])
}

fn share(chance: &mut Stream, most: f64) -> f64 {
    // Few digits, so that the scenario reads well; the same value in text and in memory.
    format!("{:.2e}", chance.unit() * most).parse().unwrap_or(0.0)
}

fn ms(millis: u64) -> String {
    show_duration(Duration::from_millis(millis))
}
