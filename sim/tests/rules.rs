//! Rules of the air that a single quiet transfer shows. The storms are in `simulation.rs`.

use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::ops::{BearerChoice, EmconWord, Event, Request};
use aldis::time::{Duration, Instant};
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::ModemConfig;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHIP: StationId = StationId(0);
const SHORE: StationId = StationId(1);

/// Two stations on a loss-free 2400 bit/s channel, short interleaver.
fn lab(seed: u64) -> Lab {
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let ether = EtherConfig::net(seed, 2, &modem, LinkConfig::default());
    let mut lab = Lab::new(&Setup::new(seed, &["ship", "shore"], ether), Trace::hashed());
    lab.provoked.push("does not answer");
    lab
}

/// When the ship froze payloads, and under which transfer.
fn frozen(lab: &Lab) -> Vec<(Instant, String)> {
    let of = |(at, event): &(Instant, Event)| match event {
        Event::TransferFrozen { transfer, .. } => Some((*at, transfer.clone())),
        _ => None,
    };
    lab.node(SHIP).log().events.iter().filter_map(of).collect()
}

#[test]
fn a1_a_restart_carries_the_frozen_payload_on_and_freezes_nothing_anew() {
    for seed in 1..=10 {
        let mut lab = lab(seed);
        let number = lab.submit(SHIP, SHORE, 6000, Precedence::Routine);
        lab.run_for(Duration::from_secs(4 + seed));
        assert_eq!(frozen(&lab).len(), 1, "seed {seed}");
        lab.crash(SHIP, seed % 2 == 0, Some(Duration::from_secs(3)));
        let end = lab.at() + Duration::from_secs(3600);
        assert!(lab.run_until_settled(end), "seed {seed}");
        assert!(lab.ledger()[number].fate.delivered.is_some(), "seed {seed}");
        assert_eq!(frozen(&lab).len(), 1, "seed {seed}: the payload was made twice");
        assert_eq!(lab.check(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn d3_the_key_goes_down_only_after_the_payload_is_made_and_stored() {
    for seed in 1..=20 {
        let mut lab = lab(seed);
        lab.submit(SHIP, SHORE, 3000, Precedence::Flash);
        lab.run_for(Duration::from_secs(60));
        let made = frozen(&lab).first().map(|(at, _)| *at).expect("it was frozen");
        let keyed = lab.world().ether().antenna_log().iter().find(|e| e.station == SHIP && e.on).expect("it was sent");
        assert!(keyed.at >= made, "seed {seed}: keyed at {:?}, made at {made:?}", keyed.at);
        assert!(keyed.at.since(made) <= Duration::from_secs(1), "seed {seed}: an idle link waits for nothing");
    }
}

#[test]
fn b1_under_ack_only_a_report_carries_no_traffic_and_restricted_carries_nothing_below_its_level() {
    for seed in 1..=12 {
        for (state, own) in
            [(State::AckOnly, Precedence::Flash), (State::Restricted(Precedence::Flash), Precedence::Routine)]
        {
            let mut lab = lab(seed);
            lab.run_for(Duration::from_secs(1));
            lab.order(SHORE, state.clone());
            lab.run_for(Duration::from_secs(1));
            // The ship's FLASH makes the shore key a report; its own mail turns up somewhere around that moment.
            lab.submit(SHIP, SHORE, 500, Precedence::Flash);
            lab.run_for(Duration::from_millis(1500 + 400 * seed));
            lab.submit(SHORE, SHIP, 500, own);
            lab.run_for(Duration::from_secs(120));
            assert!(lab.ledger()[0].fate.confirmed.is_some(), "seed {seed}: {state} still acknowledges");
            assert!(lab.ledger()[1].fate.committed.is_none(), "seed {seed}: {state} let {own} traffic out");
            lab.order(SHORE, State::Open);
            let end = lab.at() + Duration::from_secs(3600);
            assert!(lab.run_until_settled(end), "seed {seed}: {state}, then open");
        }
    }
}

#[test]
fn b1_a_window_that_opens_is_used_without_another_order() {
    for seed in 1..=5 {
        let mut lab = lab(seed);
        lab.run_for(Duration::from_secs(1));
        let window = lab.window(SHIP, Duration::from_secs(60), Duration::from_secs(120));
        lab.order(SHIP, window);
        lab.submit(SHIP, SHORE, 500, Precedence::Routine);
        lab.run_for(Duration::from_secs(50));
        assert!(lab.ledger()[0].fate.committed.is_none(), "seed {seed}: sent before the window");
        lab.run_for(Duration::from_secs(60));
        assert!(lab.ledger()[0].fate.committed.is_some(), "seed {seed}: the window was not used");
    }
}

/// Gives an order that takes effect `from` seconds from now and stands alone `until` seconds from now; what the ship then says.
fn timed(lab: &mut Lab, state: State, from: Option<u64>, until: Option<u64>) -> serde_json::Value {
    let wall = lab.world().now(SHIP).wall;
    let at = |seconds: Option<u64>| seconds.map(|s| wall.plus(Duration::from_secs(s)));
    let (state, reason) = (EmconWord::State(state), "exercise".to_owned());
    let set = Request::EmconSet { bearer: BearerChoice::All, state, reason, from: at(from), until: at(until) };
    let id = lab.request(SHIP, set);
    lab.run_for(Duration::from_secs(1));
    shown(lab, id)
}

fn shown(lab: &Lab, id: aldis::switch::RequestId) -> serde_json::Value {
    let replies = &lab.node(SHIP).log().replies;
    let (_, _, response) = replies.iter().rfind(|(_, of, _)| *of == id).expect("answered");
    assert!(response.ok, "{}", response.document);
    response.document["bearers"][0]["emcon"].clone()
}

fn show(lab: &mut Lab) -> serde_json::Value {
    let id = lab.request(SHIP, Request::EmconShow { bearer: BearerChoice::All });
    shown(lab, id)
}

/// Spans in which the ship radiated since `since`.
fn radiated(lab: &Lab, since: Instant) -> Vec<(Instant, Option<Instant>)> {
    let edges: Vec<_> = lab.world().ether().antenna_log().iter().filter(|e| e.station == SHIP).collect();
    let spans = edges.iter().enumerate().filter(|(_, e)| e.on).map(|(n, e)| (e.at, edges.get(n + 1).map(|e| e.at)));
    spans.filter(|(_, off)| off.is_none_or(|off| off > since)).collect()
}

#[test]
fn b1_a_tightening_to_come_leaves_the_air_alone_until_then_and_stops_what_runs_then_also_after_a_restart() {
    for seed in 1..=6 {
        let mut lab = lab(seed);
        let before = timed(&mut lab, State::Silent, Some(60), None);
        assert_eq!((before["state"].as_str(), before["next"]["state"].as_str()), (Some("open"), Some("silent")));
        let start = lab.at();
        let number = lab.submit(SHIP, SHORE, 60_000, Precedence::Routine);
        if seed % 2 == 0 {
            lab.run_for(Duration::from_secs(20));
            lab.crash(SHIP, seed == 2, Some(Duration::from_secs(3)));
        }
        lab.run_until(start + Duration::from_secs(59));
        assert!(!radiated(&lab, start).is_empty(), "seed {seed}: it may radiate before");
        lab.run_for(Duration::from_secs(600));
        assert_eq!(radiated(&lab, start + Duration::from_secs(60)), [], "seed {seed}");
        assert_eq!(show(&mut lab)["state"], "silent", "seed {seed}");
        lab.order(SHIP, State::Open);
        let end = lab.at() + Duration::from_secs(7200);
        assert!(lab.run_until_settled(end), "seed {seed}");
        assert!(lab.ledger()[number].fate.delivered.is_some(), "seed {seed}");
    }
}

#[test]
fn b1_a_loosening_to_come_does_not_come_early_and_ends_in_what_was_before() {
    for seed in 1..=6 {
        let mut lab = lab(seed);
        lab.order(SHIP, State::AckOnly);
        lab.run_for(Duration::from_secs(5));
        timed(&mut lab, State::Open, Some(60), Some(120));
        let start = lab.at();
        let number = lab.submit(SHIP, SHORE, 600, Precedence::Routine);
        lab.run_for(Duration::from_secs(5));
        if seed % 2 == 0 {
            lab.crash(SHIP, seed == 2, Some(Duration::from_secs(3)));
        }
        lab.run_until(start + Duration::from_secs(59));
        assert_eq!(radiated(&lab, start), [], "seed {seed}: too early");
        lab.run_until(start + Duration::from_secs(121));
        assert!(lab.ledger()[number].fate.delivered.is_some(), "seed {seed}");
        assert_eq!(show(&mut lab)["state"], "ack-only", "seed {seed}");
        let ended = lab.at();
        lab.submit(SHIP, SHORE, 600, Precedence::Flash);
        lab.run_for(Duration::from_secs(600));
        assert_eq!(radiated(&lab, ended), [], "seed {seed}: too late");
    }
}

#[test]
fn b1_without_a_clock_a_tightening_to_come_holds_at_once_and_a_loosening_does_not() {
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let ether = EtherConfig::net(1, 2, &modem, LinkConfig::default());
    let mut lab = Lab::new(&Setup { clock_set: false, ..Setup::new(1, &["ship", "shore"], ether) }, Trace::hashed());
    timed(&mut lab, State::Restricted(Precedence::Flash), Some(3600), None);
    let start = lab.at();
    lab.submit(SHIP, SHORE, 600, Precedence::Routine);
    lab.run_for(Duration::from_secs(120));
    assert_eq!(radiated(&lab, start), []);
    let flash = lab.submit(SHIP, SHORE, 600, Precedence::Flash);
    lab.run_for(Duration::from_secs(120));
    assert!(lab.ledger()[flash].fate.delivered.is_some());
    lab.order(SHIP, State::Silent);
    lab.run_for(Duration::from_secs(5));
    timed(&mut lab, State::Open, Some(3600), None);
    let start = lab.at();
    lab.run_for(Duration::from_secs(7200));
    assert_eq!(radiated(&lab, start), []);
}

#[test]
fn held_mail_and_mail_that_waits_behind_a_full_memory_end_when_their_life_does() {
    let mut lab = lab(1);
    lab.order(SHIP, State::Silent);
    lab.run_for(Duration::from_secs(5));
    let held = lab.submit(SHIP, SHORE, 400, Precedence::Routine);
    lab.run_for(Duration::from_secs(5));
    let ids: Vec<_> = lab.node(SHIP).unfinished(9).iter().map(|m| m.id).collect();
    let reason = "check with OPS".to_owned();
    lab.request(SHIP, Request::QueueHold { id: ids[0], reason });
    lab.run_for(Duration::from_secs(5 * 86_400 - 60));
    let expired = |lab: &Lab| {
        let of = |e: &Event| matches!(e, Event::MessageExpired { message, .. } if *message == ids[0]);
        lab.node(SHIP).log().events.iter().filter(|(_, e)| of(e)).count()
    };
    assert_eq!(expired(&lab), 0);
    lab.run_for(Duration::from_secs(120));
    assert_eq!(expired(&lab), 1);
    assert!(lab.node(SHIP).unfinished(9).iter().all(|m| m.id != ids[0]), "message {held} is still there");
}

#[test]
fn d5_what_an_operator_releases_goes_out_beyond_the_bounds_that_held_it() {
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let ether = EtherConfig::net(1, 2, &modem, LinkConfig::default());
    let bearer = "on_excess = \"hold\"\ncarry.routine = { payload = \"2KiB\" }";
    for restart in [false, true] {
        let mut lab = Lab::new(&Setup { bearer, ..Setup::new(1, &["ship", "shore"], ether.clone()) }, Trace::hashed());
        let number = lab.submit(SHIP, SHORE, 5000, Precedence::Routine);
        lab.run_for(Duration::from_secs(600));
        let held = lab.node(SHIP).unfinished(1).remove(0);
        assert_eq!(held.state, aldis::queue::MessageState::Held);
        if restart {
            lab.order(SHIP, State::Silent);
            lab.run_for(Duration::from_secs(5));
        }
        let id = lab.request(SHIP, Request::QueueRelease { id: held.id });
        lab.run_for(Duration::from_secs(5));
        assert!(lab.node(SHIP).log().replies.iter().any(|(_, of, r)| *of == id && r.ok));
        if restart {
            lab.crash(SHIP, true, Some(Duration::from_secs(3)));
            lab.run_for(Duration::from_secs(10));
            lab.order(SHIP, State::Open);
        }
        lab.run_for(Duration::from_secs(600));
        assert!(lab.ledger()[number].fate.delivered.is_some(), "restart {restart}");
        let next = lab.submit(SHIP, SHORE, 5000, Precedence::Routine);
        lab.run_for(Duration::from_secs(600));
        assert!(lab.ledger()[next].fate.delivered.is_none(), "the leave was for one message");
    }
}

#[test]
fn sixteen_stations_share_a_frequency() {
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let names: Vec<String> = (0..16).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ether = EtherConfig::net(1, 16, &modem, LinkConfig::default());
    let mut lab = Lab::new(&Setup::new(1, &names, ether), Trace::hashed());
    lab.provoked.push("does not answer");
    for n in 0..16 {
        lab.submit(StationId(n), StationId((n + 5) % 16), 400, Precedence::Routine);
    }
    assert!(lab.run_until_settled(Instant::from_millis(4 * 3_600_000)), "{:#?}", lab.check());
    assert_eq!(lab.check(), Vec::<String>::new());
    eprintln!("16 messages around a net of 16 in {:.0} s", lab.at().since(Instant::ZERO).as_secs_f64());
}
