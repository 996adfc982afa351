//! Mail for stations that keep silence: parity that makes up for what nobody reports, no question asked of them, and their word when
//! the silence is over.
//!
//! `ALDIS_SEEDS=N` runs N seeds of each. Everything is virtual time and whole nodes.

use aldis::bearer::serial::frame::Item;
use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::ops::{Event, Request};
use aldis::time::{Duration, Instant};
use aldis_sim::channel::{Damage, Loss};
use aldis_sim::ether::{AntennaEdge, EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup, What};
use aldis_sim::modem::ModemConfig;
use aldis_sim::run::run_watched;
use aldis_sim::scenario::Scenario;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHORE: StationId = StationId(0);
const SHIP: StationId = StationId(1);
/// Bytes of symbols in a frame at 2400 bit/s.
const FRAME: u64 = 248;

/// P4: a message of 32 frames goes to ten silent ships that each lose a tenth of the cells. All of them are whole after one window of
/// at most 14 frames more, in 999 of 1000 cases, and nobody says a word.
#[test]
fn p4_a_broadcast_to_ten_in_silence_is_whole_at_all_of_them() {
    let (mut short, mut most, mut runs) = (Vec::new(), 0, 0);
    for seed in seeds(3) {
        let mut lab = silent_net(seed, 10, 0.1, "[blind.routine]\nwindows = 1");
        lab.record();
        let ships: Vec<StationId> = (1..=10).map(StationId).collect();
        lab.submit_to_several(SHORE, ships[0], &ships[1..], 7950, Precedence::Routine);
        lab.run_for(Duration::from_secs(600));
        let payload = lab.ledger()[0].fate.payload_bytes;
        assert_eq!(payload.div_ceil(FRAME), 32, "{payload} bytes are not 32 frames");
        let symbols = symbols_sent(&lab);
        most = most.max(symbols);
        runs += 1;
        let whole = ships.iter().filter(|ship| lab.node(**ship).delivered().len() == 1).count();
        if whole < 10 {
            short.push((seed, whole));
        }
        assert_eq!(emissions_of(&lab, &ships), 0, "seed {seed}: a ship radiated");
        assert!(lab.check_silence().is_empty(), "seed {seed}: {:?}", lab.check_silence());
    }
    eprintln!("{runs} runs, at most {:.1} frames of symbols; not whole: {short:?}", most as f64 / 8.0);
    assert!(most <= (32 + 14) * 8, "{most} symbols are more than 14 frames beyond 32");
    let may_fail = f64::from(runs) * 0.001;
    assert!(short.len() as f64 <= may_fail + 3.0 * may_fail.sqrt(), "of {runs} runs {short:?} were not whole");
}

/// P7: a ship is silent for 24 hours. After the planned windows nothing more is keyed for it and it is never asked; after its release
/// the message is confirmed within one cycle.
#[test]
fn p7_a_silent_ship_is_never_asked_and_confirms_within_a_cycle_of_its_release() {
    for seed in seeds(4) {
        let mut lab = silent_net(seed, 1, 0.1, "");
        lab.world_mut().disturb(|ether, _| ether.set_loss(SHIP, SHORE, cells(if seed % 2 == 0 { 0.1 } else { 0.0 })));
        lab.record();
        lab.submit(SHORE, SHIP, 3000, Precedence::Immediate);
        lab.run_for(Duration::from_secs(3600 * 2));
        let keyed = lab.world().ether().stats(SHORE).transmissions;
        assert_eq!(windows(&lab), [(1, 3), (2, 3), (3, 3)], "seed {seed}");
        assert_eq!(state(&lab), "sent", "seed {seed}");
        lab.run_for(Duration::from_secs(3600 * 22));
        assert_eq!(lab.world().ether().stats(SHORE).transmissions, keyed, "seed {seed}: keyed again");
        assert_eq!((polls(&lab), emissions_of(&lab, &[SHIP])), (0, 0), "seed {seed}");
        assert_eq!(lab.node(SHIP).delivered().len(), 1, "seed {seed}");
        let released = lab.at();
        lab.order(SHIP, State::Open);
        // Its report is heard at once, or the silence ends for the shore too and it asks after the slots for reports.
        let mut cycle = Duration::from_secs(12);
        if seed % 2 == 0 {
            lab.request(SHORE, Request::PeerHeard { peer: "ship01".into(), reason: "EMCON lifted".into() });
            cycle = Duration::from_secs(30);
        }
        assert!(lab.run_while(released + cycle, |lab| confirmed(lab).is_some()), "seed {seed}");
        assert_eq!(state(&lab), "delivered", "seed {seed}");
        lab.run_for(Duration::from_secs(600));
        assert_eq!(lab.check(), Vec::<String>::new(), "seed {seed}");
        assert!(seed % 2 == 0 || polls(&lab) == 0, "seed {seed}: it was asked");
    }
}

/// What a ship still lacks when its silence ends it says, and gets; what was sent to it without a window's worth is asked about when
/// the operator's mark goes.
#[test]
fn what_a_ship_lacks_when_its_silence_ends_is_repaired_and_the_end_of_a_mark_brings_back_questions() {
    for seed in seeds(3) {
        let mut lab = silent_net(seed, 1, 0.1, "[blind.routine]\nwindows = 1");
        // Far worse than assumed: the window does not make it whole.
        lab.world_mut().disturb(|ether, _| ether.set_loss(SHORE, SHIP, cells(0.6)));
        lab.submit(SHORE, SHIP, 6000, Precedence::Routine);
        lab.run_for(Duration::from_secs(1800));
        assert_eq!((windows(&lab).len(), lab.node(SHIP).delivered().len()), (1, 0), "seed {seed}");
        lab.world_mut().disturb(|ether, _| ether.set_loss(SHORE, SHIP, cells(0.1)));
        lab.order(SHIP, State::Open);
        assert!(lab.run_until_settled(lab.at() + Duration::from_secs(300)), "seed {seed}: {:?}", lab.check());
        lab.request(SHORE, Request::PeerHeard { peer: "ship01".into(), reason: "exercise over".into() });
        lab.submit(SHORE, SHIP, 500, Precedence::Routine);
        assert!(lab.run_until_settled(lab.at() + Duration::from_secs(300)), "seed {seed}");
        assert_eq!(lab.check(), Vec::<String>::new(), "seed {seed}");
    }
}

/// The sender is killed in the middle of a window, and loses its power in another: it goes on with symbols that have not left, keeps to
/// its windows, still takes the ship for silent, and asks nothing.
#[test]
fn a_sender_that_is_started_again_goes_on_with_its_windows_and_asks_nothing() {
    for seed in seeds(4) {
        let mut lab = silent_net(seed, 1, 0.1, "");
        lab.record();
        lab.submit(SHORE, SHIP, 12_000, Precedence::Flash);
        lab.run_for(Duration::from_secs(20 + seed % 30));
        lab.crash(SHORE, seed % 2 == 0, Some(Duration::from_secs(30)));
        lab.run_for(Duration::from_secs(900));
        lab.crash(SHORE, seed % 3 == 0, Some(Duration::from_secs(5)));
        lab.run_for(Duration::from_secs(3600 * 3));
        assert_eq!(windows(&lab).last(), Some(&(3, 3)), "seed {seed}: {:?}", windows(&lab));
        assert_eq!((polls(&lab), emissions_of(&lab, &[SHIP])), (0, 0), "seed {seed}");
        assert_eq!(lab.node(SHIP).delivered().len(), 1, "seed {seed}");
        lab.order(SHIP, State::Open);
        lab.request(SHORE, Request::PeerHeard { peer: "ship01".into(), reason: "EMCON lifted".into() });
        assert!(lab.run_until_settled(lab.at() + Duration::from_secs(120)), "seed {seed}");
        assert_eq!(lab.check(), Vec::<String>::new(), "seed {seed}");
    }
}

/// A message outlives itself in the ship's silence: it ends unconfirmed, its sender is told that it may have been delivered; the ship's
/// report, days later and after a restart of the shore, makes it delivered, once.
#[test]
fn a_message_that_ended_unconfirmed_is_confirmed_late_and_once() {
    for seed in seeds(2) {
        let mut lab = silent_net(seed, 1, 0.1, "");
        lab.world_mut().disturb(|ether, _| ether.set_loss(SHIP, SHORE, cells(0.0)));
        lab.submit(SHORE, SHIP, 2000, Precedence::Flash);
        lab.run_for(Duration::from_secs(5 * 86_400 + 3600));
        assert_eq!((state(&lab).as_str(), told(&lab)), ("unconfirmed", vec!["unconfirmed"]), "seed {seed}");
        assert_eq!(emissions_of(&lab, &[SHIP]), 0, "seed {seed}");
        if seed % 2 == 0 {
            lab.crash(SHORE, true, Some(Duration::from_secs(10)));
            lab.run_for(Duration::from_secs(86_400));
        }
        let before = lab.world().ether().stats(SHORE).transmissions;
        let released = lab.at();
        lab.order(SHIP, State::Open);
        if seed % 4 == 1 {
            // The power goes just when the word comes in.
            lab.run_while(released + Duration::from_secs(60), |lab| lab.world().ether().stats(SHIP).transmissions > 0);
            lab.run_for(Duration::from_millis(2450));
            lab.crash(SHORE, true, Some(Duration::from_secs(10)));
            lab.run_for(Duration::from_secs(30));
            lab.request(SHORE, Request::PeerHeard { peer: "ship01".into(), reason: "EMCON lifted".into() });
        }
        lab.run_for(Duration::from_secs(600));
        assert_eq!((state(&lab).as_str(), told(&lab)), ("delivered", vec!["unconfirmed", "delivered"]), "seed {seed}");
        let after = lab.world().ether().stats(SHORE).transmissions;
        assert!(seed % 4 == 1 || after == before, "seed {seed}: it was asked about");
        // The report on the failure lies in the sender's mailbox; all else is in order.
        let wrong: Vec<String> = lab.check().into_iter().filter(|p| !p.starts_with("report:")).collect();
        assert_eq!(wrong, Vec::<String>::new(), "seed {seed}");
    }
}

/// Many messages for a silent ship do not hold one another up: all of them go out, one after the other, and no answer is waited for.
#[test]
fn mail_for_a_silent_ship_goes_out_message_after_message() {
    let mut lab = silent_net(1, 1, 0.05, "[blind.routine]\nwindows = 1");
    for _ in 0..40 {
        lab.submit(SHORE, SHIP, 600, Precedence::Routine);
    }
    lab.run_for(Duration::from_secs(1800));
    assert_eq!((windows(&lab).len(), lab.node(SHIP).delivered().len()), (40, 40));
    let released = lab.at();
    lab.order(SHIP, State::Open);
    assert!(lab.run_until_settled(released + Duration::from_secs(300)));
    assert_eq!(lab.check(), Vec::<String>::new());
}

/// The shipped scenario: the shore's operator is told of ten silent ships. Nine windows are planned for its mail (three of FLASH and two
/// of PRIORITY for all at once, two of ROUTINE for each of two ships), and nine times it keys while they are silent; that it asks nobody
/// is seen at its antenna. Their reports confirm it after the silence.
#[test]
fn the_shipped_broadcast_to_ten_keys_its_windows_asks_nobody_and_is_confirmed_after_the_silence() {
    let scenario = Scenario::parse(include_str!("../scenarios/emcon-broadcast-to-ten.toml")).expect("shipped");
    for seed in seeds(2) {
        let (report, lab) = run_watched(&scenario, seed, Trace::hashed(), false, &mut |_, _| {});
        assert_eq!(report.problems, Vec::<String>::new(), "seed {seed}");
        let (ordered, released) = (Instant::from_millis(60_000), Instant::from_millis(4 * 3_600_000));
        let log = lab.world().ether().antenna_log();
        let during = log.iter().filter(|edge| edge.on && ordered < edge.at && edge.at < released);
        let (shore, ships): (Vec<&AntennaEdge>, Vec<&AntennaEdge>) = during.partition(|edge| edge.station == SHORE);
        assert_eq!((shore.len(), ships.len()), (3 + 2 + 2 + 2, 0), "seed {seed}");
        let told = &lab.node(SHORE).log().events;
        let windows = told.iter().filter(|(_, e)| matches!(e, Event::TransferSentBlind { .. })).count();
        assert_eq!(windows, 3 * 10 + 2 * 10 + 2 + 2, "seed {seed}");
        let confirmations = || told.iter().filter(|(_, e)| matches!(e, Event::TransferConfirmed { .. }));
        assert_eq!(confirmations().count(), 10 + 10 + 1 + 1, "seed {seed}");
        // A ship whose report is lost is asked when the shore hears that the silence is over.
        let heard = Instant::from_millis(250 * 60_000);
        let soon = |since: Instant, at: &Instant| since < *at && *at < since + Duration::from_secs(120);
        let unasked = confirmations().filter(|(at, _)| soon(released, at)).count();
        assert!(unasked >= 11, "seed {seed}: {unasked} confirmed unasked");
        assert_eq!(confirmations().filter(|(at, _)| soon(heard, at)).count(), 22 - unasked, "seed {seed}");
    }
}

/// A shore station and ships that it knows to be silent, on one frequency with one key.
fn silent_net(seed: u64, ships: u16, p: f64, profile: &'static str) -> Lab {
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let ether = EtherConfig::net(seed, ships + 1, &modem, LinkConfig { loss: cells(p), ..LinkConfig::default() });
    let names: Vec<String> = (0..=ships).map(|i| if i == 0 { "shore".into() } else { format!("ship{i:02}") }).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let setup = Setup { net_key: true, bearer: profile, ..Setup::new(seed, &names, ether) };
    let mut lab = Lab::new(&setup, Trace::hashed());
    for ship in 1..=ships {
        lab.order(StationId(ship), State::Silent);
        let (peer, reason) = (names[usize::from(ship)].to_owned(), "EMCON A".to_owned());
        lab.request(SHORE, Request::PeerSilent { peer, reason, from: None, until: None });
    }
    lab.run_for(Duration::from_secs(60));
    lab
}

fn cells(p: f64) -> Loss {
    Loss::Cells { bytes: 262, p, damage: Damage::Garbage }
}

/// Symbols that the shore has radiated.
fn symbols_sent(lab: &Lab) -> usize {
    let said = lab.tapes();
    let chunks = said.iter().filter(|t| t.station == SHORE).flat_map(|t| t.chunks());
    chunks.map(|(_, chunk)| chunk.symbols.len()).sum()
}

/// Questions that the shore has radiated.
fn polls(lab: &Lab) -> usize {
    let said = lab.tapes();
    let asks = |item: &Item| matches!(item, Item::Poll(_) | Item::Cancel(_) | Item::Order(_));
    let pieces = said.iter().filter(|t| t.station == SHORE).flat_map(|t| &t.pieces);
    pieces.filter(|p| matches!(&p.what, What::Control(_, items) if items.iter().any(asks))).count()
}

fn emissions_of(lab: &Lab, stations: &[StationId]) -> u64 {
    stations.iter().map(|s| lab.world().ether().stats(*s).transmissions).sum()
}

fn windows(lab: &Lab) -> Vec<(u32, u32)> {
    let told = lab.node(SHORE).log().events.iter();
    told.filter_map(|(_, e)| match e {
        Event::TransferSentBlind { window, of, .. } => Some((*window, *of)),
        _ => None,
    })
    .collect()
}

/// Outcomes of its first message, as the shore told them.
fn told(lab: &Lab) -> Vec<&'static str> {
    let told = lab.node(SHORE).log().events.iter();
    told.filter_map(|(_, e)| match e {
        Event::MessageUnconfirmed { .. } => Some("unconfirmed"),
        Event::MessageDelivered { bearer: Some(_), .. } => Some("delivered"),
        Event::MessageExpired { .. } => Some("expired"),
        _ => None,
    })
    .collect()
}

fn confirmed(lab: &Lab) -> Option<Instant> {
    lab.ledger()[0].fate.confirmed
}

/// How the shore shows the recipient of its first message.
fn state(lab: &Lab) -> String {
    let records = lab.node(SHORE).records(&lab.ledger()[0].message_id);
    let shown = aldis::ops::read::action("show", &records[0]).document;
    shown["message"]["recipients"][0]["state"].as_str().unwrap_or_default().to_owned()
}

fn seeds(default: u64) -> std::ops::RangeInclusive<u64> {
    1..=std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}
