//! Whole nodes that choose their own rate.

use std::collections::BTreeSet;
use std::sync::Arc;

use aldis::bearer::serial::frame::{Deframer, Found, Frame};
use aldis::bearer::serial::keys::KeyRing;
use aldis::emcon::Keying;
use aldis::mail::Precedence;
use aldis::time::Duration;
use aldis_sim::channel::{Loss, Script, Wreck};
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::{Failure, ModemConfig, Noise};
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHIP: StationId = StationId(0);
const SHORE: StationId = StationId(1);

#[test]
fn d2_a_rate_that_falls_from_9600_to_75_in_the_middle_of_a_message_resends_no_symbol() {
    for tells in [Some(1.0), None] {
        let mut lab = lab(1, 2, tells, &["0s snr 40", "100s snr -6"]);
        lab.world_mut().with_host_quietly(SHIP, |node| node.listen());
        let number = lab.submit(SHIP, SHORE, 64 * 1024, Precedence::Routine);
        let mut rates = BTreeSet::new();
        let end = lab.at() + Duration::from_secs(8 * 3600);
        while lab.ledger()[number].fate.delivered.is_none() && lab.at() < end {
            lab.run_for(Duration::from_secs(2));
            let ether = lab.world().ether();
            if ether.radiates(SHIP) {
                rates.extend(ether.modem(SHIP).map(|m| m.waveform.rate));
            }
        }
        assert!(lab.ledger()[number].fate.delivered.is_some(), "{tells:?}: {rates:?}");
        // Without a measurement it climbs as transmissions succeed.
        let high = if tells.is_some() { 8000 } else { 600 };
        assert!(rates.contains(&75) && rates.iter().any(|r| *r >= high), "{tells:?}: {rates:?}");
        let symbols = symbols(&mut lab);
        assert!(symbols.len() > 200);
        let mut seen = BTreeSet::new();
        for symbol in symbols {
            assert!(seen.insert(symbol), "{tells:?}: {symbol:?} twice, after {}", seen.len());
        }
    }
}

#[test]
fn three_stations_with_different_paths_each_get_their_mail() {
    let mut lab = lab(3, 3, Some(1.0), &["0s snr 20"]);
    let weak = sky(&["0s snr 2"]);
    lab.world_mut().disturb(|ether, _| {
        ether.set_loss(SHIP, StationId(2), weak.clone());
        ether.set_loss(StationId(2), SHIP, weak);
    });
    for (from, to) in [(0, 1), (0, 2), (1, 2), (2, 0)] {
        lab.submit(StationId(from), StationId(to), 4000, Precedence::Routine);
    }
    let end = lab.at() + Duration::from_secs(3600);
    assert!(lab.run_until_settled(end));
    assert_eq!(lab.check(), Vec::<String>::new());
    // What goes to both at once goes as the far one needs it; alone the near one gets what its path bears.
    lab.submit(SHIP, SHORE, 24_000, Precedence::Routine);
    let end = lab.at() + Duration::from_secs(1800);
    assert!(lab.run_until_settled(end));
    let links = lab.node(SHIP).links();
    // The near one gets more than the far one, and what its path bears.
    let rates: Vec<u32> = links.iter().map(|l| l.waveform.rate.0).collect();
    assert!(rates[0] >= 1200 && rates[1] <= 600, "{links:#?}");
    assert!(links[0].snr_db.zip(links[1].snr_db).is_some_and(|(near, far)| near > far + 10.0), "{links:#?}");
    assert!(links.iter().all(|l| l.turnaround.is_some() && l.why == "by its report"), "{links:#?}");
}

#[test]
fn who_was_lost_at_a_high_rate_is_found_again_at_a_low_one() {
    let mut lab = lab(5, 2, Some(1.0), &["0s snr 30", "90s dead", "8min snr -4"]);
    let numbers: Vec<usize> = (0..3).map(|_| lab.submit(SHIP, SHORE, 2000, Precedence::Routine)).collect();
    lab.run_for(Duration::from_secs(85));
    let late = lab.submit(SHORE, SHIP, 2000, Precedence::Routine);
    let end = lab.at() + Duration::from_secs(4 * 3600);
    assert!(lab.run_until_settled(end));
    for number in numbers.into_iter().chain([late]) {
        assert!(lab.ledger()[number].fate.confirmed.is_some());
    }
    assert_eq!(lab.check(), Vec::<String>::new());
}

#[test]
fn noise_taken_for_unreadable_answers_held_a_sender_at_a_rate_its_peer_could_not_read() {
    // Without a carrier line every burst of noise that comes while an answer is due passes for one.
    let mut lab = lab_with(7, 2, Some(1.0), &["0s snr 30", "100s snr -4"], |ether| {
        ether.stations[0].noise = Some(Noise { every: Duration::from_secs(8), bytes: 60 });
    });
    lab.set_failure(SHIP, Failure::CarrierStuckOff, true);
    let number = lab.submit(SHIP, SHORE, 96 * 1024, Precedence::Routine);
    let end = lab.at() + Duration::from_secs(100);
    lab.run_until(end);
    let fate = &lab.ledger()[number].fate;
    assert!(fate.delivered.is_none() && fate.share > 0.0, "{fate:?}");
    let heard_at_75 = |lab: &Lab| lab.world().ether().modem(SHIP).is_some_and(|m| m.waveform.rate == 75);
    let end = lab.at() + Duration::from_secs(3600);
    while !heard_at_75(&lab) && lab.at() < end {
        lab.run_for(Duration::from_secs(5));
    }
    let before = lab.ledger()[number].fate.share;
    lab.run_for(Duration::from_secs(3600));
    let after = lab.ledger()[number].fate.share;
    assert!(after > before, "{before} {after}: {:#?}", lab.node(SHIP).links());
}

fn lab(seed: u64, stations: u16, snr_error_db: Option<f64>, script: &[&str]) -> Lab {
    lab_with(seed, stations, snr_error_db, script, |_| {})
}

fn lab_with(
    seed: u64,
    stations: u16,
    snr_error_db: Option<f64>,
    script: &[&str],
    change: impl FnOnce(&mut EtherConfig),
) -> Lab {
    let first = *Waveform::selected(300, "S").expect("known");
    let modem = ModemConfig { selects: true, snr_error_db, ..ModemConfig::new(first) };
    let link = LinkConfig { loss: sky(script), ..LinkConfig::default() };
    let mut ether = EtherConfig::net(seed, stations, &modem, link);
    change(&mut ether);
    let names = ["ship", "shore", "isle"];
    let mut lab = Lab::new(&Setup::new(seed, &names[..usize::from(stations)], ether), Trace::hashed());
    lab.provoked = vec!["does not answer", "do not authenticate"];
    lab
}

fn sky(script: &[&str]) -> Loss {
    let script = Script::parse(script.iter().copied()).expect("a script");
    Loss::Script { script: Arc::new(script), wreck: Wreck::default() }
}

/// Short id and sequence number of every symbol the ship has put on the air for the shore.
fn symbols(lab: &mut Lab) -> Vec<(u16, u32)> {
    let shore = lab.node(SHORE).plan();
    let own = &shore.peers[0];
    let mut ring = KeyRing::new(shore.bearers[0].station);
    ring.add(&shore.node.name, &own.name, own.station, own.protection, &own.keys);
    let emitted = lab.world_mut().with_host_quietly(SHIP, |node| node.take_emitted()).expect("it is there");
    let (mut deframer, mut symbols) = (Deframer::default(), Vec::new());
    for (_, _, keying) in emitted {
        match keying {
            Keying::Key => deframer = Deframer::default(),
            Keying::Feed(bytes) => deframer.push(&bytes),
            Keying::Datagram { .. } | Keying::Igmp { .. } | Keying::Join | Keying::Membership { .. } => {}
        }
        while let Some(found) = deframer.poll(&ring) {
            let Found::Frame(Frame::Symbols { chunks, .. }) = found else { continue };
            for chunk in chunks {
                symbols.extend((0..chunk.symbols.len() as u32).map(|i| (chunk.short, u32::from(chunk.first) + i)));
            }
        }
    }
    symbols
}
