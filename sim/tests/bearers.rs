//! A peer that several bearers reach: which one carries what, and what one transfer takes along from one to another.

use std::collections::BTreeMap;

use aldis::bearer::serial::frame::Frame;
use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::ops::{BearerChoice, EmconWord, Event, Request};
use aldis::time::{Duration, Instant};
use aldis_sim::channel::Loss;
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::ModemConfig;
use aldis_sim::output::{Chronicle, Content};
use aldis_sim::run;
use aldis_sim::scenario::Scenario;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHIP: StationId = StationId(0);
const SHORE: StationId = StationId(1);
/// Their radios on the second bearer.
const SHIP_SATCOM: StationId = StationId(2);
const SHORE_SATCOM: StationId = StationId(3);

/// Two nodes on HF at 2400 bit/s and over a satellite at 9600 bit/s.
fn pair(seed: u64) -> Lab {
    let hf = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let satcom = ModemConfig::new(*Waveform::find(9600, "S").expect("known"));
    let mut ether = EtherConfig::net(seed, 2, &hf, LinkConfig::default());
    ether.stations.extend([satcom.clone(), satcom]);
    let link = LinkConfig { delay: Duration::from_millis(270), loss: Loss::Ideal, ..LinkConfig::default() };
    ether.links.insert((SHIP_SATCOM, SHORE_SATCOM), link.clone());
    ether.links.insert((SHORE_SATCOM, SHIP_SATCOM), link);
    let setup = Setup { further: vec!["satcom".into()], ..Setup::new(seed, &["ship", "shore"], ether) };
    let mut lab = Lab::new(&setup, Trace::hashed());
    lab.provoked = vec!["does not answer", "no answer", "cannot be read"];
    lab.listen();
    lab
}

fn satcom(lab: &mut Lab, up: bool) {
    lab.world_mut().disturb(|ether, at| {
        ether.set_link(at, SHIP_SATCOM, SHORE_SATCOM, up);
        ether.set_link(at, SHORE_SATCOM, SHIP_SATCOM, up);
    });
}

fn moves(lab: &Lab) -> Vec<(Instant, String, String)> {
    let moved = |(at, event): &(Instant, Event)| match event {
        Event::TransferMoved { from, to, .. } => Some((*at, from.to_string(), to.to_string())),
        _ => None,
    };
    lab.node(SHIP).log().events.iter().filter_map(moved).collect()
}

fn settle(lab: &mut Lab) {
    let end = lab.at() + Duration::from_secs(6 * 3600);
    assert!(lab.run_until_settled(end), "{:#?}", lab.check());
    lab.run_for(Duration::from_secs(120));
    assert_eq!(lab.check(), Vec::<String>::new());
    assert_eq!(lab.check_settled(), Vec::<String>::new());
}

#[test]
fn hf_finishes_what_satcom_began_and_no_symbol_leaves_twice() {
    let scenario = Scenario::parse(include_str!("../scenarios/bearer-fallback.toml")).expect("shipped");
    let (report, lab) = run::run_watched(&scenario, 1, Trace::hashed(), true, &mut |_, _| {});
    assert_eq!(report.problems, Vec::<String>::new());
    let chronicle = Chronicle::of(&scenario, &report, &lab);
    let mut sent: BTreeMap<(u16, u16), u32> = BTreeMap::new();
    let mut on_each = [0_u32; 2];
    for key_down in chronicle.key_downs.iter().filter(|k| [SHIP, SHIP_SATCOM].contains(&k.sent.station)) {
        for piece in &key_down.pieces {
            let Content::Frame(Frame::Symbols { chunks, .. }) = &piece.content else { continue };
            for chunk in chunks {
                for i in 0..chunk.symbols.len() as u16 {
                    *sent.entry((chunk.short, chunk.first + i)).or_default() += 1;
                    on_each[usize::from(key_down.sent.station == SHIP_SATCOM)] += 1;
                }
            }
        }
    }
    assert!(on_each.iter().all(|n| *n > 500), "both carried: {on_each:?}");
    let twice: Vec<_> = sent.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let told: Vec<_> = moves(&lab).into_iter().map(|(_, from, to)| (from, to)).collect();
    let (hf, satcom) = ("hf1".to_owned(), "satcom".to_owned());
    assert_eq!(told, [(satcom.clone(), hf.clone()), (hf, satcom)], "one fall back, one fall forward");
}

#[test]
fn a_bearer_that_comes_and_goes_is_trusted_less_each_time() {
    let mut lab = pair(1);
    lab.submit(SHIP, SHORE, 400_000, Precedence::Routine);
    // A minute there, two away: a link that would be left and taken up again twenty times an hour.
    for _ in 0..20 {
        lab.run_for(Duration::from_secs(60));
        satcom(&mut lab, false);
        lab.run_for(Duration::from_secs(120));
        satcom(&mut lab, true);
    }
    settle(&mut lab);
    let moves = moves(&lab);
    assert!(moves.len() >= 2, "it was left and taken up again: {moves:?}");
    assert!(moves.len() <= 10, "{moves:?}");
}

#[test]
fn flash_goes_on_both_and_the_first_copy_wins() {
    let mut lab = pair(2);
    let number = lab.submit(SHIP, SHORE, 3000, Precedence::Flash);
    settle(&mut lab);
    let ether = lab.world().ether();
    let fed = [SHIP, SHIP_SATCOM].map(|radio| ether.stats(radio).fed);
    assert!(fed[0] > 0 && fed[1] > 3000, "both began: {fed:?}");
    let fate = lab.ledger()[number].fate.clone();
    // The satellite has it long before HF could.
    assert!(fate.delivered.expect("delivered").since(lab.ledger()[number].at) < Duration::from_secs(12), "{fate:?}");
    // HF stops where it is, and says no more.
    let confirmed = fate.confirmed.expect("confirmed");
    assert!(ether.antenna_log().iter().all(|e| e.station != SHIP || !e.on || e.at <= confirmed));
    assert_eq!(moves(&lab), []);
    let alone = |lost: [(StationId, StationId); 2]| {
        let mut lab = pair(3);
        lab.world_mut().disturb(|ether, at| lost.iter().for_each(|(a, b)| ether.set_link(at, *a, *b, false)));
        let number = lab.submit(SHIP, SHORE, 3000, Precedence::Flash);
        settle(&mut lab);
        let entry = &lab.ledger()[number];
        entry.fate.delivered.expect("delivered").since(entry.at)
    };
    let without_satcom = alone([(SHIP_SATCOM, SHORE_SATCOM), (SHORE_SATCOM, SHIP_SATCOM)]);
    assert!(without_satcom < Duration::from_secs(120), "{without_satcom:?}");
    alone([(SHIP, SHORE), (SHORE, SHIP)]);
}

#[test]
fn an_order_on_one_bearer_sends_mail_over_the_other() {
    let mut lab = pair(4);
    let order = |state| Request::EmconSet {
        bearer: BearerChoice::One("satcom".into()),
        state: EmconWord::State(state),
        reason: "exercise".into(),
        from: None,
        until: None,
    };
    lab.submit(SHIP, SHORE, 100_000, Precedence::Routine);
    lab.run_for(Duration::from_secs(40));
    lab.request(SHIP, order(State::Restricted(Precedence::Flash)));
    lab.run_for(Duration::from_secs(30));
    assert_eq!(moves(&lab).len(), 1, "it does not wait for the order to end");
    settle(&mut lab);
    assert!(lab.world().ether().stats(SHIP).fed > 20_000);
}

#[test]
fn a_crash_in_the_middle_of_the_change_loses_nothing() {
    for (seed, after) in [(5, 52), (6, 60), (7, 75), (8, 95)] {
        let mut lab = pair(seed);
        lab.submit(SHIP, SHORE, 150_000, Precedence::Routine);
        lab.submit(SHORE, SHIP, 5_000, Precedence::Priority);
        lab.run_for(Duration::from_secs(35));
        satcom(&mut lab, false);
        lab.run_for(Duration::from_secs(after - 35));
        lab.crash(SHIP, true, Some(Duration::from_secs(10)));
        lab.run_for(Duration::from_secs(after));
        lab.crash(SHORE, true, Some(Duration::from_secs(10)));
        lab.run_for(Duration::from_secs(300));
        satcom(&mut lab, true);
        settle(&mut lab);
    }
}
