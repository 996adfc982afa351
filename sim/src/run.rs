//! `aldis-sim run`: one scenario under one seed, with whole nodes at its stations.
//!
//! First the scenario runs as written; then everything is mended (paths, modems, processes, orders) and all mail must reach its final
//! state within two virtual days. The report is one JSON document that is the same, byte for byte, for the same scenario and seed.

use std::collections::BTreeSet;

use aldis::emcon::State;
use aldis::time::{Duration, Instant};
use serde::Serialize;

use crate::channel::{Damage, Loss};
use crate::disk::{At, Fault};
use crate::ether::StationId;
use crate::lab::{Lab, Setup};
use crate::modem::Failure;
use crate::node::Economy;
use crate::packet::{self, SatcomLine};
use crate::scenario::{DiskName, Mishap, Scenario, Trouble, What};
use crate::trace::Trace;
use crate::world::StationClock;

/// How long mail may take once everything works again.
const HEALING: Duration = Duration::from_secs(2 * 86_400);
/// How long everything mended is given until whoever is away is back.
const REBOOTS: Duration = Duration::from_secs(90);
/// How long a power failure lasts when nothing is said.
const POWER_BACK: Duration = Duration::from_secs(20);
/// The unit of loss of a fade.
const FADE_CELL: u32 = 262;

/// Between two looks at how far a run has come.
const SLICE: Duration = Duration::from_secs(60);

/// What a run came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RunReport {
    /// Name and version of this document's form.
    pub schema: &'static str,
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Virtual seconds until everything was settled.
    pub virtual_s: f64,
    /// Every message, in the order they were handed in.
    pub messages: Vec<MessageLine>,
    /// Every station.
    pub stations: Vec<StationLine>,
    /// Every packet bearer, by sender and receiver.
    pub satcom: Vec<SatcomLine>,
    /// Broken invariants, in words.
    pub problems: Vec<String>,
    /// Hash of everything that happened.
    pub trace_hash: String,
}

/// One message of a run. Times in seconds of virtual time; absent when it did not happen.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MessageLine {
    /// Its number.
    pub message: usize,
    /// Where it was handed in.
    pub from: String,
    /// Whither.
    pub to: String,
    /// Whither else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Level of service.
    pub precedence: String,
    /// Bytes as handed in.
    pub size_bytes: usize,
    /// Bytes of its frozen payload.
    pub payload_bytes: u64,
    /// When it was handed in.
    pub submitted_s: f64,
    /// When the client heard 250.
    pub accepted_s: Option<f64>,
    /// When it lay in the far Maildir.
    pub delivered_s: Option<f64>,
    /// From handing in to the far Maildir.
    pub delivery_s: Option<f64>,
    /// When the near node knew.
    pub confirmed_s: Option<f64>,
    /// Bytes on the air.
    pub bytes_on_air: u64,
    /// Seconds on the air.
    pub air_s: f64,
}

/// One station of a run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StationLine {
    /// Its name.
    pub station: String,
    /// Seconds of carrier, all its radios together.
    pub air_s: f64,
    /// Bytes fed to its modem.
    pub bytes_on_air: u64,
    /// Key-downs.
    pub transmissions: u64,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, seed: u64, trace: Trace) -> RunReport {
    run_watched(scenario, seed, trace, false, &mut |_, _| {}).0
}

/// What a scenario's net is made of under a seed.
pub fn setup(scenario: &Scenario, seed: u64) -> Setup {
    let names: Vec<&str> = scenario.stations.iter().map(String::as_str).collect();
    // A clock that is wrong from the first instant on is so before the node starts.
    let clocks = scenario.events.iter().filter(|e| e.at == Instant::ZERO).filter_map(|e| match &e.what {
        What::Mishap { station, mishap: Mishap::Clock(Some((start, set))) } => {
            Some((*station, StationClock { start: *start, set: *set }))
        }
        _ => None,
    });
    Setup {
        start: scenario.start,
        protection: scenario.protection,
        economy: Economy { coding: scenario.coding, ..Economy::NONE },
        store_ahead: scenario.store_ahead,
        net_key: scenario.net_key,
        further: scenario.bearers.clone(),
        clocks: clocks.collect(),
        ..Setup::new(seed, &names, scenario.ether(seed))
    }
}

/// Runs a scenario, with a journal of the air when `journal` says so, and gives the laboratory as it is in the end. `progress` is told
/// the virtual time every now and then, and when the scenario will be over. Neither changes the run.
pub fn run_watched(
    scenario: &Scenario,
    seed: u64,
    trace: Trace,
    journal: bool,
    progress: &mut dyn FnMut(Instant, Instant),
) -> (RunReport, Lab) {
    play_on(scenario, setup(scenario, seed), trace, journal, progress)
}

/// Runs a scenario on a net that may have been changed.
pub(crate) fn run_with(scenario: &Scenario, setup: Setup, trace: Trace) -> RunReport {
    play_on(scenario, setup, trace, false, &mut |_, _| {}).0
}

fn play_on(
    scenario: &Scenario,
    setup: Setup,
    mut trace: Trace,
    journal: bool,
    progress: &mut dyn FnMut(Instant, Instant),
) -> (RunReport, Lab) {
    let seed = setup.seed;
    let packets = packet::play(scenario, seed, &mut trace);
    let mut lab = Lab::new(&setup, trace);
    lab.listen();
    // What a scenario breaks is reported by the nodes, and rightly.
    lab.provoked = provoked(scenario);
    if journal {
        lab.world_mut().disturb(|ether, _| ether.keep_journal());
    }
    play(&mut lab, scenario, progress);
    heal(&mut lab, scenario);
    let settled = lab.run_until_settled(lab.at() + HEALING);
    if settled {
        // What was given out last comes back.
        lab.run_for(REBOOTS);
    }
    let mut problems = lab.check();
    problems.extend(packets.problems);
    if settled {
        problems.extend(lab.check_settled());
    } else {
        problems.push(format!("stuck: not settled {} s after everything was mended", HEALING.as_secs()));
    }
    let trace_hash = lab.finish_trace();
    let report = RunReport {
        schema: "aldis-sim.run/1",
        scenario: scenario.name.clone(),
        seed,
        virtual_s: seconds(lab.at()),
        messages: messages(&lab, scenario),
        stations: stations(&lab, scenario),
        satcom: packets.lines,
        problems,
        trace_hash,
    };
    (report, lab)
}

fn play(lab: &mut Lab, scenario: &Scenario, progress: &mut dyn FnMut(Instant, Instant)) {
    let end = Instant::ZERO + scenario.duration;
    let mut advance = |lab: &mut Lab, to: Instant| {
        while lab.at() < to {
            lab.run_until(to.min(lab.at() + SLICE));
            progress(lab.at(), end);
        }
    };
    let (mut traffic, mut events) = (scenario.traffic.iter().peekable(), scenario.events.iter().peekable());
    loop {
        let next = traffic.peek().map(|m| m.at).into_iter().chain(events.peek().map(|e| e.at)).min();
        let Some(at) = next else { break };
        advance(lab, at);
        while let Some(event) = events.next_if(|e| e.at == at) {
            befall(lab, scenario, &event.what);
        }
        while let Some(message) = traffic.next_if(|m| m.at == at) {
            lab.asks_receipts = message.receipts;
            lab.submit_to_several(message.from, message.to, &message.also, message.size, message.precedence);
        }
    }
    advance(lab, end);
}

fn befall(lab: &mut Lab, scenario: &Scenario, what: &What) {
    match what {
        What::Emcon { station, state } => {
            lab.order(*station, state.clone());
        }
        What::Path { from, to, up } => lab.world_mut().disturb(|ether, at| ether.set_link(at, *from, *to, *up)),
        What::Process { station, up: false } => lab.crash(*station, false, None),
        What::Process { station, up: true } => lab.start(*station),
        What::Failure { station, failure, broken } => lab.set_failure(*station, *failure, *broken),
        What::Fade { from, to, loss } => {
            let usual = scenario.links.get(&(*from, *to)).map_or(Loss::Ideal, |link| link.loss.clone());
            let faded = |p| Loss::Cells { bytes: FADE_CELL, p, damage: Damage::Garbage };
            let loss = loss.map_or(usual, faded);
            lab.world_mut().disturb(|ether, _| ether.set_loss(*from, *to, loss));
        }
        What::Mishap { station, mishap } => mishap_at(lab, scenario, *station, mishap),
    }
}

fn mishap_at(lab: &mut Lab, scenario: &Scenario, station: StationId, mishap: &Mishap) {
    match mishap {
        Mishap::PowerOff(away) => lab.crash(station, true, Some(away.unwrap_or(POWER_BACK))),
        Mishap::Disk(name, trouble) => {
            lab.excuse_disk(station);
            let node = lab.node(station);
            let disk = match name {
                DiskName::Store => &node.store,
                DiskName::Mail => &node.mail,
            };
            match *trouble {
                Trouble::Full(room) => disk.set_capacity(Some(disk.used_bytes() + room)),
                Trouble::Roomy => disk.set_capacity(None),
                Trouble::Error(n) => disk.fail(At::Operation(n), Fault::Io),
                Trouble::SyncError(n) => disk.fail(At::Sync(n), Fault::Io),
                Trouble::PowerCut(n) => disk.fail(At::Operation(n), Fault::PowerLoss),
            }
        }
        Mishap::Clock(shows) => {
            let truly = scenario.start.plus(lab.at().since(Instant::ZERO));
            let (wall, set) = shows.unwrap_or((truly, true));
            lab.set_clock(station, wall, set);
        }
        Mishap::Window(opens, length) => {
            let window = lab.window(station, *opens, *length);
            lab.order(station, window);
        }
        Mishap::Minimize(least) => lab.minimize(station, *least),
        Mishap::Hand(message, hand) => lab.operate(station, *message, *hand),
        Mishap::HistoryLost => {
            if lab.node(station).is_up() {
                lab.crash(station, false, None);
                lab.forget_history(station);
                lab.start(station);
            }
        }
        Mishap::PeersSilent(peers) => peers.iter().for_each(|peer| lab.mark(station, *peer, true)),
        Mishap::PeersHeard(peers) => peers.iter().for_each(|peer| lab.mark(station, *peer, false)),
    }
}

/// Mends everything: first what is broken, then, when everybody is back, what was ordered.
fn heal(lab: &mut Lab, scenario: &Scenario) {
    let (mut ordered, mut minimized, mut marked) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for event in &scenario.events {
        let mended = match &event.what {
            What::Path { from, to, .. } => What::Path { from: *from, to: *to, up: true },
            What::Failure { station, failure, .. } => {
                What::Failure { station: *station, failure: *failure, broken: false }
            }
            What::Fade { from, to, .. } => What::Fade { from: *from, to: *to, loss: None },
            What::Mishap { station, mishap: Mishap::Disk(name, _) } => {
                lab.node(*station).store.heal();
                lab.node(*station).mail.heal();
                What::Mishap { station: *station, mishap: Mishap::Disk(*name, Trouble::Roomy) }
            }
            What::Mishap { station, mishap: Mishap::Clock(_) } => {
                What::Mishap { station: *station, mishap: Mishap::Clock(None) }
            }
            What::Emcon { station, .. } | What::Mishap { station, mishap: Mishap::Window(..) } => {
                ordered.insert(*station);
                continue;
            }
            What::Mishap { station, mishap: Mishap::Minimize(_) } => {
                minimized.insert(*station);
                continue;
            }
            What::Mishap { station, mishap: Mishap::PeersSilent(peers) | Mishap::PeersHeard(peers) } => {
                marked.extend(peers.iter().map(|peer| (*station, *peer)));
                continue;
            }
            What::Process { .. }
            | What::Mishap { mishap: Mishap::PowerOff(_) | Mishap::Hand(..) | Mishap::HistoryLost, .. } => continue,
        };
        befall(lab, scenario, &mended);
    }
    lab.run_for(REBOOTS);
    let all: Vec<StationId> = (0..).take(scenario.stations.len()).map(StationId).collect();
    all.into_iter().for_each(|station| lab.start(station));
    for station in ordered {
        lab.order(station, State::Open);
    }
    minimized.into_iter().for_each(|station| lab.minimize(station, None));
    marked.into_iter().for_each(|(station, peer)| lab.mark(station, peer, false));
    lab.release_all();
}

/// What nodes rightly report at level ERROR in this scenario, in parts of their words.
fn provoked(scenario: &Scenario) -> Vec<&'static str> {
    let mut provoked = BTreeSet::new();
    for event in &scenario.events {
        provoked.insert("does not answer");
        match &event.what {
            What::Failure { failure: Failure::CarrierStuckOn, .. } => {
                provoked.extend(["carrier detect is stuck", "does not key"]);
            }
            What::Failure { failure: Failure::KeyStuck, .. } => {
                provoked.extend(["key is stuck", "key-down limit", "carrier detect is stuck", "does not key"]);
            }
            What::Failure { failure: Failure::Restarting, .. } => drop(provoked.insert("modem")),
            What::Mishap { mishap: Mishap::Disk(..), .. } => {
                provoked.extend(["store-failed", "the store refused a commit"]);
            }
            // Nine of ten frames lost for a quarter of an hour: 32 answers in a row are hit.
            What::Fade { .. } => drop(provoked.insert("answers, but cannot be read")),
            _ => {}
        }
    }
    // Who fades away answers nobody for a while, nor does one at whom others keep colliding because they do not hear each other.
    let stations = scenario.modems.len();
    let hidden = scenario.links.len() < stations * stations.saturating_sub(1);
    if hidden || scenario.links.values().any(|link| matches!(link.loss, Loss::Sky { .. } | Loss::Script { .. })) {
        provoked.extend(["does not answer", "answers, but cannot be read"]);
    }
    let lossy = scenario.links.values().any(|link| link.loss != Loss::Ideal);
    if lossy || scenario.events.iter().any(|e| matches!(e.what, What::Fade { .. })) {
        // Several transmissions in a row of which every frame is hit look like a wrong key.
        provoked.insert("do not authenticate");
    }
    let noisy = scenario.modems.iter().any(|m| m.noise.is_some());
    if noisy && provoked.contains("does not answer") {
        // Where no carrier was ever heard, noise is not told from an answer.
        provoked.insert("answers, but cannot be read");
    }
    if scenario.modems.iter().any(|m| m.max_key_down.is_some()) {
        provoked.insert("key-down limit");
    }
    provoked.into_iter().collect()
}

fn messages(lab: &Lab, scenario: &Scenario) -> Vec<MessageLine> {
    let line = |(message, e): (usize, &crate::lab::Entry)| MessageLine {
        message,
        from: scenario.station(e.from).to_owned(),
        to: scenario.station(e.to).to_owned(),
        also: e.also.iter().map(|id| scenario.station(*id).to_owned()).collect(),
        precedence: e.precedence.to_string(),
        size_bytes: e.body.len(),
        payload_bytes: e.fate.payload_bytes,
        submitted_s: seconds(e.at),
        accepted_s: e.fate.promised.map(seconds),
        delivered_s: e.fate.delivered.map(seconds),
        delivery_s: e.fate.delivered.map(|at| at.since(e.at).as_secs_f64()),
        confirmed_s: e.fate.confirmed.map(seconds),
        bytes_on_air: e.fate.bytes_on_air,
        air_s: e.fate.air_s,
    };
    lab.ledger().iter().enumerate().map(line).collect()
}

fn stations(lab: &Lab, scenario: &Scenario) -> Vec<StationLine> {
    let ether = lab.world().ether();
    let line = |id: StationId| {
        let stats = || lab.world().radios(id).map(|radio| ether.stats(radio));
        StationLine {
            station: scenario.station(id).to_owned(),
            air_s: stats().map(|s| s.air.as_secs_f64()).sum(),
            bytes_on_air: stats().map(|s| s.fed).sum(),
            transmissions: stats().map(|s| s.transmissions).sum(),
        }
    };
    (0..).take(scenario.stations.len()).map(StationId).map(line).collect()
}

fn seconds(at: Instant) -> f64 {
    at.since(Instant::ZERO).as_secs_f64()
}

impl RunReport {
    /// The report as people read it; the last line is the hash.
    pub fn text(&self) -> String {
        crate::output::summary::text(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_run_and_another_seed_is_another() {
        let text = include_str!("../scenarios/two-stations.toml");
        let scenario = Scenario::parse(text).expect("shipped");
        let document = |seed| serde_json::to_string(&run(&scenario, seed, Trace::hashed())).expect("plain data");
        let (one, again, other) = (document(1), document(1), document(2));
        assert_eq!(one, again);
        let hash = |text: &str| text.rsplit_once("trace_hash").expect("last").1.to_owned();
        assert_ne!(hash(&one), hash(&other));
        assert!(one.contains("\"problems\":[]"), "{one}");
        let watched = run_watched(&scenario, 1, Trace::hashed(), true, &mut |_, _| {}).0;
        assert_eq!(serde_json::to_string(&watched).expect("plain data"), one, "a journal changes nothing");
    }
}
