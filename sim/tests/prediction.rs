//! What `track` and `emcon what-if` foretell, against what then happens. Virtual time: the errors are exact, and printed with `--nocapture`.

use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::ops::document::{Prediction, Predictions, WhatIf};
use aldis::ops::{BearerChoice, EmconWord, Request, Response};
use aldis::time::{Duration, Wall};
use aldis_sim::channel::{Damage, Loss};
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::ModemConfig;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHIP: StationId = StationId(0);
const SHORE: StationId = StationId(1);

/// A pair whose ends know each other and their losses.
fn pair(seed: u64, rate: u32, loss: f64) -> Lab {
    let modem = ModemConfig::new(*Waveform::find(rate, "S").expect("known"));
    let link =
        LinkConfig { loss: Loss::Cells { bytes: 262, p: loss, damage: Damage::Garbage }, ..LinkConfig::default() };
    let ether = EtherConfig::net(seed, 2, &modem, link);
    let mut lab = Lab::new(&Setup::new(seed, &["ship", "shore"], ether), Trace::hashed());
    lab.provoked = vec!["no answer", "cannot be read"];
    for _ in 0..3 {
        lab.submit(SHIP, SHORE, 4096, Precedence::Routine);
        settle(&mut lab);
    }
    lab
}

fn settle(lab: &mut Lab) {
    let end = lab.at() + Duration::from_secs(24 * 3600);
    assert!(lab.run_until_settled(end), "{:#?}", lab.check());
    lab.run_for(Duration::from_secs(120));
}

fn ask(lab: &mut Lab, request: Request) -> Response {
    let id = lab.request(SHIP, request);
    let replies = &lab.node(SHIP).log().replies;
    replies.iter().find(|(_, of, _)| *of == id).map(|(.., response)| response.clone()).expect("answered at once")
}

fn predict(lab: &mut Lab, number: usize) -> Prediction {
    let id = lab.node(SHIP).records(&lab.ledger()[number].message_id).first().expect("accepted").id;
    let response = ask(lab, Request::Predict { id });
    let all: Predictions = serde_json::from_value(response.document).expect("predictions");
    assert_eq!(all.predictions.len(), 1, "{all:?}");
    all.predictions[0].clone()
}

/// Seconds from the submission until delivery: foretold, and true.
fn seconds(lab: &Lab, number: usize, foretold: &Prediction) -> (f64, f64) {
    let entry = &lab.ledger()[number];
    let now = lab.world().now(SHIP);
    let begin = Wall(now.wall.0 - i64::try_from(now.at.since(entry.at).as_millis()).expect("small"));
    let at = foretold.delivered_at.as_deref().and_then(Wall::parse_rfc3339).unwrap_or_else(|| panic!("{foretold:?}"));
    let delivered = entry.fate.delivered.expect("delivered");
    (at.since(begin).as_secs_f64(), delivered.since(entry.at).as_secs_f64())
}

/// Mean of the errors and of their size, as shares of the true time.
fn errors(what: &str, pairs: &[(f64, f64)]) -> (f64, f64) {
    let n = pairs.len() as f64;
    let mean = pairs.iter().map(|(foretold, truth)| (foretold - truth) / truth).sum::<f64>() / n;
    let size = pairs.iter().map(|(foretold, truth)| (foretold - truth).abs() / truth).sum::<f64>() / n;
    if std::env::var("ALDIS_EACH").is_ok() {
        pairs.iter().for_each(|(foretold, truth)| println!("  foretold {foretold:.1} s, took {truth:.1} s"));
    }
    println!("{what}: {} predictions, mean error {:+.1} %, mean size {:.1} %", pairs.len(), mean * 100.0, size * 100.0);
    (mean, size)
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    1..=std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

#[test]
fn what_is_alone_arrives_when_it_was_foretold() {
    for (rate, loss) in [(2400, 0.0), (2400, 0.1), (300, 0.05)] {
        let mut pairs = Vec::new();
        for seed in seeds() {
            let mut lab = pair(seed, rate, loss);
            for size in [600, 5000, 30_000] {
                let number = lab.submit(SHIP, SHORE, size, Precedence::Routine);
                lab.run_for(Duration::from_millis(500));
                let foretold = predict(&mut lab, number);
                settle(&mut lab);
                pairs.push(seconds(&lab, number, &foretold));
            }
        }
        let (mean, size) = errors(&format!("alone, {rate} bit/s, loss {loss}"), &pairs);
        assert!(mean.abs() < 0.2 && size < 0.25, "{rate} {loss}: {pairs:?}");
    }
}

#[test]
fn what_waits_behind_others_arrives_when_it_was_foretold() {
    for (rate, loss) in [(2400, 0.0), (2400, 0.1)] {
        let mut pairs = Vec::new();
        for seed in seeds() {
            let mut lab = pair(seed, rate, loss);
            // More than a peer has transfers at once, so that some are not frozen yet.
            let load = (0..24)
                .map(|n| (1000 + 1500 * (n % 4), if n % 5 == 0 { Precedence::Priority } else { Precedence::Routine }));
            let numbers: Vec<usize> = load.map(|(size, level)| lab.submit(SHIP, SHORE, size, level)).collect();
            lab.run_for(Duration::from_millis(500));
            let foretold: Vec<_> = numbers.iter().map(|n| predict(&mut lab, *n)).collect();
            settle(&mut lab);
            pairs.extend(numbers.iter().zip(&foretold).map(|(n, p)| seconds(&lab, *n, p)));
        }
        let (mean, size) = errors(&format!("24 at once, {rate} bit/s, loss {loss}"), &pairs);
        assert!(mean.abs() < 0.3 && size < 0.4, "{rate} {loss}: {pairs:?}");
    }
}

#[test]
fn in_silence_the_prediction_counts_from_the_next_opening_or_says_that_nobody_knows() {
    let mut lab = pair(1, 2400, 0.0);
    let window = lab.window(SHIP, Duration::from_secs(600), Duration::from_secs(1800));
    let opens = lab.world().now(SHIP).wall.plus(Duration::from_secs(600));
    lab.order(SHIP, window);
    lab.run_for(Duration::from_secs(1));
    let number = lab.submit(SHIP, SHORE, 5000, Precedence::Routine);
    lab.run_for(Duration::from_secs(1));
    let foretold = predict(&mut lab, number);
    assert!(foretold.why.contains(&format!("held by order until {}", opens.rfc3339())), "{foretold:?}");
    settle(&mut lab);
    let (said, took) = seconds(&lab, number, &foretold);
    assert!(took > 590.0 && (said - took).abs() < 10.0, "foretold {said} s, took {took} s");
    lab.order(SHIP, State::Silent);
    lab.run_for(Duration::from_secs(1));
    let number = lab.submit(SHIP, SHORE, 5000, Precedence::Routine);
    lab.run_for(Duration::from_secs(1));
    let foretold = predict(&mut lab, number);
    assert_eq!(foretold.delivered_at, None);
    assert!(foretold.why.contains("held by order"), "{foretold:?}");
}

fn what_if(lab: &mut Lab, state: State) -> WhatIf {
    let (from, until) = (None, None);
    let request = Request::EmconWhatIf { bearer: BearerChoice::All, state: EmconWord::State(state), from, until };
    serde_json::from_value(ask(lab, request).document).expect("a what-if")
}

#[test]
fn what_if_names_what_a_release_then_radiates_and_changes_nothing() {
    let mut lab = pair(1, 2400, 0.0);
    lab.order(SHIP, State::Silent);
    lab.run_for(Duration::from_secs(1));
    for (size, level) in [(600, Precedence::Flash), (5000, Precedence::Routine), (5000, Precedence::Routine)] {
        lab.submit(SHIP, SHORE, size, level);
    }
    lab.run_for(Duration::from_secs(1));
    let orders = || Request::EmconShow { bearer: BearerChoice::All };
    let (before, air) = (ask(&mut lab, orders()), lab.world().ether().stats(SHIP).air);
    let restricted = what_if(&mut lab, State::Restricted(Precedence::Flash));
    assert_eq!((restricted.bearers[0].messages, restricted.stays.len()), (1, 1), "{restricted:?}");
    assert_eq!((restricted.stays[0].messages, restricted.stays[0].precedence.as_str()), (2, "routine"));
    let nothing = what_if(&mut lab, State::Silent);
    assert_eq!(
        (nothing.bearers[0].messages, nothing.bearers[0].air_s, nothing.bearers[0].done_at.clone()),
        (0, 0.0, None)
    );
    let open = what_if(&mut lab, State::Open);
    let levels: Vec<(&str, u64)> = open.bearers[0].levels.iter().map(|l| (l.precedence.as_str(), l.messages)).collect();
    assert_eq!((levels, open.stays.len()), (vec![("flash", 1), ("routine", 2)], 0), "{open:?}");
    lab.run_for(Duration::from_secs(300));
    assert_eq!(ask(&mut lab, orders()), before, "asking changes no order");
    assert_eq!(lab.world().ether().stats(SHIP).air, air, "and puts nothing on the air");
    lab.order(SHIP, State::Open);
    settle(&mut lab);
    let radiated = (lab.world().ether().stats(SHIP).air - air).as_secs_f64();
    let foretold = open.bearers[0].air_s;
    println!("release: foretold {foretold:.1} s on air, radiated {radiated:.1} s");
    assert!((foretold - radiated).abs() < 0.25 * radiated, "foretold {foretold} s, radiated {radiated} s");
}
