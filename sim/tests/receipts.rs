//! Receipts as digest: few bytes cross the air, the reports are built at the sender's node, each once, whatever fails. Seeds of
//! the storm by `ALDIS_SEEDS`.

use std::collections::BTreeSet;

use aldis::mail::Precedence;
use aldis::ops::Event;
use aldis::time::Duration;
use aldis_sim::channel::{Damage, Loss};
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::ModemConfig;
use aldis_sim::node::Economy;
use aldis_sim::rng::Stream;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHIP: StationId = StationId(0);
const SHORE: StationId = StationId(1);

fn lab(seed: u64, p: f64) -> Lab {
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let loss = match p {
        0.0 => Loss::Ideal,
        p => Loss::Cells { bytes: 250, p, damage: Damage::Garbage },
    };
    let ether = EtherConfig::net(seed, 2, &modem, LinkConfig { loss, ..LinkConfig::default() });
    let setup = Setup { economy: Economy::NONE, ..Setup::new(seed, &["ship", "shore"], ether) };
    let mut lab = Lab::new(&setup, Trace::hashed());
    lab.asks_receipts = true;
    lab
}

/// What a text is called.
fn name(number: usize) -> String {
    format!("<{number}.text@ship.example>")
}

fn send(lab: &mut Lab, number: usize) {
    let body = format!(
        "From: <op@ship.example>\r\nTo: <desk@shore.example>\r\nSubject: position {number}\r\nMessage-ID: {}\r\n\r\n\
         Position at the full hour, number {number}.\r\n",
        name(number)
    );
    lab.submit_mail(SHIP, SHORE, body.into_bytes(), Precedence::Routine);
}

/// The reports in the sender's mailbox.
fn reports(lab: &Lab) -> Vec<String> {
    let mail = lab.node(SHIP).delivered().into_iter().map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned());
    mail.filter(|text| text.contains("report-type=delivery-status")).collect()
}

/// Each text has exactly one report, which says all that a report says.
fn assert_each_told_once(lab: &Lab, texts: usize) {
    let reports = reports(lab);
    let mut told = BTreeSet::new();
    for number in 0..texts {
        let about: Vec<&String> =
            reports.iter().filter(|r| r.contains(&format!("In-Reply-To: {}", name(number)))).collect();
        assert_eq!(about.len(), 1, "reports about text {number}");
        let report = about[0];
        for part in [
            "Action: delivered\r\nStatus: 2.1.5\r\n",
            "Final-Recipient: rfc822; desk@shore.example\r\n",
            "Arrival-Date: ",
            "Last-Attempt-Date: ",
            "Content-Type: text/rfc822-headers\r\n",
            &format!("Subject: position {number}\r\n"),
        ] {
            assert!(report.contains(part), "{part:?} is not in {report}");
        }
        let id = report.lines().find(|l| l.starts_with("Message-ID: ")).expect("an id");
        assert!(told.insert(id.to_owned()), "{id} twice");
    }
    assert_eq!(reports.len(), texts);
}

/// Bytes of the payloads that shore made for ship.
fn payloads(lab: &Lab) -> Vec<u64> {
    let events = lab.node(SHORE).log().events.iter();
    let frozen = events.filter_map(|(_, event)| match event {
        Event::TransferFrozen { payload_bytes, .. } => Some(*payload_bytes),
        _ => None,
    });
    frozen.collect()
}

/// Bytes on the air of those that ship took.
fn on_air(lab: &Lab) -> u64 {
    let events = lab.node(SHORE).log().events.iter();
    let sent = events.filter_map(|(_, event)| match event {
        Event::TransferConfirmed { bytes_on_air, .. } => Some(*bytes_on_air),
        _ => None,
    });
    sent.sum()
}

#[test]
fn twenty_receipts_cross_in_few_payloads_of_some_bytes_each() {
    let mut one = lab(1, 0.0);
    // Peers hear of each other first.
    send(&mut one, 0);
    one.run_for(Duration::from_secs(1200));
    assert_each_told_once(&one, 1);
    let (before, first) = (payloads(&one).len(), on_air(&one));
    (1..21).for_each(|number| send(&mut one, number));
    one.run_for(Duration::from_secs(1800));
    assert_each_told_once(&one, 21);
    let made = payloads(&one)[before..].to_vec();
    println!("payloads made {made:?}; on air {first} for the first, {} for twenty", on_air(&one) - first);
    let last = *made.last().expect("a payload");
    assert!(last <= 20 * 6, "{last} bytes of payload for the last");
    // They are made while the station sends: what waits when it keys goes, so several payloads carry them.
    assert!(on_air(&one) - first <= 20 * 30, "{} bytes on air", on_air(&one) - first);
    assert_eq!(one.check(), Vec::<String>::new());
}

#[test]
fn power_that_fails_at_any_moment_leaves_every_receipt_once() {
    let seeds = std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for seed in 1..=seeds {
        let mut lab = lab(seed, 0.05);
        lab.provoked.extend(["the store refused", "wrong seal"]);
        let mut chance = Stream::new(seed, "cuts", 0);
        let mut texts = 0;
        for _ in 0..6 {
            for _ in 0..chance.below(5) {
                send(&mut lab, texts);
                texts += 1;
            }
            // A text is promised before power fails: only then does its sender wait for a receipt.
            lab.run_for(Duration::from_millis(500 + chance.below(60_000)));
            let victim = if chance.chance(0.5) { SHIP } else { SHORE };
            lab.crash(victim, chance.chance(0.7), None);
            lab.start(victim);
            lab.run_for(Duration::from_millis(chance.below(60_000)));
        }
        lab.run_for(Duration::from_secs(7200));
        assert!(lab.ledger().iter().all(|entry| entry.fate.promised.is_some()), "seed {seed}");
        assert_each_told_once(&lab, texts);
        assert_eq!(lab.check(), Vec::<String>::new(), "seed {seed}");
    }
}
