//! Several stations on one frequency: slots after silence, answers in turn, stations that do not hear each other.
//!
//! `ALDIS_SEEDS=N` runs N seeds of each. Times are virtual, so they are asserted to the second.

use std::collections::{BTreeMap, BTreeSet};

use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::ops::Event;
use aldis::time::{Duration, Instant};
use aldis_sim::channel::{Damage, Loss};
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::ModemConfig;
use aldis_sim::net_bench::Case;
use aldis_sim::rng::Stream;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHORE: StationId = StationId(0);
/// Time on air of a report at 1200 bit/s, short interleaver (preamble and two blocks), and a turnaround.
const T_ACK: Duration = Duration::from_millis(600 + 2 * 600 + 2000);

/// Ten ships hear mail in silence and are released in the same second: all report within 2 N T_ack and a fifth (P8), and no two
/// carriers overlap.
#[test]
fn ten_ships_released_together_report_in_their_slots() {
    for seed in seeds(6) {
        let ships = 10;
        let loss = if seed % 2 == 0 { 0.0 } else { 0.05 };
        let (mut lab, released) = released_together(seed, ships, loss, |_, _| true);
        let limit = released + T_ACK * 2 * u32::from(ships) * 6 / 5;
        lab.run_until(limit);
        let reported = reported(&lab, released);
        assert_eq!(reported.len(), usize::from(ships), "seed {seed}: reported in time: {reported:?}");
        // A report whose every frame is damaged leaves its hearers in doubt of whose it was; two may then take the same slot, once.
        let overlaps = overlaps(&lab, released);
        assert!(overlaps <= usize::from(loss > 0.0), "seed {seed}: {overlaps} carriers began over others");
        assert!(lab.run_until_settled(lab.at() + Duration::from_secs(3600)), "seed {seed}: mail is left");
        assert_eq!(lab.check(), Vec::<String>::new(), "seed {seed}");
    }
}

/// Ships that do not hear each other cannot keep out of each other's way; drawn back-offs get all of them through.
#[test]
fn ships_hidden_from_each_other_get_through_after_a_release() {
    for seed in seeds(4) {
        let shore_hears = |a: StationId, b: StationId| a == SHORE || b == SHORE;
        let (mut lab, _) = released_together(seed, 5, 0.05, shore_hears);
        assert!(lab.run_until_settled(lab.at() + Duration::from_secs(3600)), "seed {seed}: mail is left");
        assert_eq!(lab.check(), Vec::<String>::new(), "seed {seed}");
    }
}

/// Ten receivers, a tenth of all cells lost: one payload for all of them, as many symbols as the worst of them needs.
#[test]
fn one_message_for_ten_stations_goes_once_and_is_repaired_by_parity() {
    let trials: Vec<u64> = seeds(4).collect();
    let report = Case { receivers: 10, loss: 0.1, frames: 32 }.measure(&trials, 2);
    eprintln!("{}", report.text());
    assert!(report.trials.iter().all(|t| t.delivered == 10), "{:?}", report.trials);
    // The bars are for the mean of many seeds; of few it scatters.
    assert!(report.frames_per_useful < 1.35 && report.time_s < 1.15 * report.reference_s, "{}", report.text());
}

/// Messages for one, several and all stations of a net, with restarts, power cuts and silences in between: each recipient has its copy
/// once, and nothing radiates in silence.
#[test]
fn messages_for_several_stations_survive_restarts_and_silence() {
    for seed in seeds(10) {
        let mut chance = Stream::new(seed, "test of groups", 0);
        let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
        let loss = Loss::Cells { bytes: 262, p: 0.1, damage: Damage::Garbage };
        let link = LinkConfig { loss, preamble_miss: 0.02, ..LinkConfig::default() };
        let names = ["shore", "alfa", "bravo", "charlie", "delta"];
        let setup = Setup::new(seed, &names, EtherConfig::net(seed, 5, &modem, link));
        let mut lab = Lab::new(&Setup { net_key: chance.chance(0.8), ..setup }, Trace::hashed());
        lab.listen();
        lab.provoked.extend(["does not answer", "cannot be read"]);
        let any = |chance: &mut Stream| StationId(chance.below(5) as u16);
        for _ in 0..12 {
            let from = any(&mut chance);
            let mut to: Vec<StationId> = (0..5).map(StationId).filter(|id| *id != from && chance.chance(0.7)).collect();
            if let (Some(first), true) = (to.pop(), lab.node(from).is_up()) {
                let level = Precedence::from_rank(chance.below(6) as u8).unwrap_or(Precedence::Routine);
                lab.submit_to_several(from, first, &to, 300 + chance.below(6000), level);
            }
            let station = any(&mut chance);
            match chance.below(6) {
                0 if lab.node(station).is_up() => {
                    lab.crash(station, chance.chance(0.5), Some(Duration::from_millis(100 + chance.below(60_000))));
                }
                1 => drop(lab.order(station, State::Silent)),
                2 => drop(lab.order(station, State::Open)),
                _ => {}
            }
            lab.run_for(Duration::from_millis(chance.below(120_000)));
        }
        lab.run_for(Duration::from_secs(70));
        for id in (0..5).map(StationId) {
            lab.start(id);
            lab.order(id, State::Open);
        }
        let settled = lab.run_until_settled(lab.at() + Duration::from_secs(86_400));
        assert_eq!((lab.check(), settled), (Vec::new(), true), "seed {seed}");
    }
}

/// A shore station and ships that it sends mail to while they are silent; all are released at the instant that is given back.
fn released_together(seed: u64, ships: u16, p: f64, hears: impl Fn(StationId, StationId) -> bool) -> (Lab, Instant) {
    let modem = ModemConfig::new(*Waveform::find(1200, "S").expect("known"));
    let loss = Loss::Cells { bytes: 212, p, damage: Damage::Garbage };
    let mut ether = EtherConfig::net(seed, ships + 1, &modem, LinkConfig { loss, ..LinkConfig::default() });
    ether.links.retain(|(a, b), _| hears(*a, *b));
    let names: Vec<String> = (0..=ships).map(|i| if i == 0 { "shore".into() } else { format!("ship{i:02}") }).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut lab = Lab::new(&Setup::new(seed, &names, ether), Trace::hashed());
    lab.provoked.push("does not answer");
    let all = || (1..=ships).map(StationId);
    for ship in all() {
        lab.order(ship, State::Silent);
    }
    lab.run_for(Duration::from_secs(60));
    for ship in all() {
        lab.submit(SHORE, ship, 900, Precedence::Routine);
    }
    lab.run_for(Duration::from_secs(3600 + seed % 600));
    let released = lab.at();
    for ship in all() {
        lab.order(ship, State::Open);
    }
    (lab, released)
}

/// Messages of the shore that a report has spoken of since.
fn reported(lab: &Lab, since: Instant) -> BTreeSet<String> {
    let events = lab.node(SHORE).log().events.iter().filter(|(at, _)| *at >= since);
    let spoken = events.filter_map(|(_, event)| match event {
        Event::TransferProgress { message, .. } | Event::TransferConfirmed { message, .. } => Some(message.to_string()),
        _ => None,
    });
    spoken.collect()
}

/// How often a carrier began while another was up.
fn overlaps(lab: &Lab, since: Instant) -> usize {
    let mut up: BTreeMap<StationId, Instant> = BTreeMap::new();
    let mut overlaps = 0;
    for edge in lab.world().ether().antenna_log() {
        if edge.on {
            overlaps += usize::from(!up.is_empty() && edge.at >= since);
            up.insert(edge.station, edge.at);
        } else {
            up.remove(&edge.station);
        }
    }
    overlaps
}

fn seeds(default: u64) -> std::ops::RangeInclusive<u64> {
    1..=std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}
