//! Receipts as digest: few bytes cross the air, the reports are built at the sender's node, each once, whatever fails. Seeds of
//! the longer ones by `ALDIS_SEEDS`.

use std::collections::BTreeSet;

use aldis::emcon::State;
use aldis::mail::{MessageId, Precedence};
use aldis::ops::{Event, Request};
use aldis::time::Duration;
use aldis_sim::channel::{Damage, Loss};
use aldis_sim::disk::{At, Fault};
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::ModemConfig;
use aldis_sim::node::{Coding, Economy};
use aldis_sim::rng::Stream;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHIP: StationId = StationId(0);
const SHORE: StationId = StationId(1);
const CAMP: StationId = StationId(2);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn setup(seed: u64, names: &[&str], rate: u32, p: f64) -> Setup {
    let modem = ModemConfig::new(*Waveform::find(rate, "S").expect("known"));
    let loss = match p {
        0.0 => Loss::Ideal,
        p => Loss::Cells { bytes: 250, p, damage: Damage::Garbage },
    };
    let ether = EtherConfig::net(seed, names.len() as u16, &modem, LinkConfig { loss, ..LinkConfig::default() });
    Setup { economy: Economy { coding: Coding::Plain, quick_repair: true }, ..Setup::new(seed, names, ether) }
}

fn lab_of(setup: &Setup) -> Lab {
    let mut lab = Lab::new(setup, Trace::hashed());
    lab.asks_receipts = true;
    lab
}

/// Two nodes that have heard of each other and know what the other reads; one text has gone and was told of.
fn acquainted(seed: u64, p: f64) -> Lab {
    let mut lab = lab_of(&setup(seed, &["ship", "shore"], 2400, p));
    send(&mut lab, 0);
    lab.run_for(seconds(300));
    lab
}

/// What a text is called.
fn name(number: usize) -> String {
    format!("<{number}.text@ship.example>")
}

fn send(lab: &mut Lab, number: usize) -> usize {
    send_to(lab, SHORE, number, Precedence::Routine)
}

fn send_to(lab: &mut Lab, to: StationId, number: usize, precedence: Precedence) -> usize {
    let body = format!(
        "From: <op@ship.example>\r\nTo: <desk@shore.example>\r\nSubject: position {number}\r\nMessage-ID: {}\r\n\r\n\
         Position at the full hour, number {number}.\r\n",
        name(number)
    );
    lab.submit_mail(SHIP, to, body.into_bytes(), precedence)
}

/// The reports in the sender's mailbox about a text.
fn reports(lab: &Lab, number: usize) -> Vec<String> {
    let mail = lab.node(SHIP).delivered().into_iter().map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned());
    let about = format!("In-Reply-To: {}\r\n", name(number));
    mail.filter(|text| text.contains("report-type=delivery-status") && text.contains(&about)).collect()
}

/// Each text has exactly one report, which says all that a report says; the judge of the lab agrees.
fn assert_each_told_once(lab: &mut Lab, texts: usize) {
    let mut told = BTreeSet::new();
    for number in 0..texts {
        let about = reports(lab, number);
        assert_eq!(about.len(), 1, "reports about text {number}");
        let report = &about[0];
        for part in [
            "Action: delivered\r\nStatus: 2.1.5\r\n",
            "Final-Recipient: rfc822; desk@",
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
    assert_eq!(lab.check(), Vec::<String>::new());
}

/// Whether the report about a text was built here from a receipt.
fn was_rebuilt(lab: &Lab, number: usize) -> bool {
    reports(lab, number).iter().all(|text| text.contains("Reporting-MTA: x-aldis; "))
}

fn events<T>(lab: &Lab, station: StationId, of: impl Fn(&Event) -> Option<T>) -> Vec<T> {
    lab.node(station).log().events.iter().filter_map(|(_, event)| of(event)).collect()
}

/// Bytes that a station has fed to its modem.
fn fed(lab: &Lab, station: StationId) -> u64 {
    events(lab, station, |e| if let Event::KeyUp { bytes, .. } = e { Some(*bytes) } else { None }).iter().sum()
}

/// Bytes of the payloads that a station made.
fn payloads(lab: &Lab, station: StationId) -> Vec<u64> {
    events(
        lab,
        station,
        |e| if let Event::TransferFrozen { payload_bytes, .. } = e { Some(*payload_bytes) } else { None },
    )
}

fn refused_digests(lab: &Lab) -> usize {
    events(lab, SHORE, |e| if let Event::TransferCodedAnew { why, .. } = e { Some(why.clone()) } else { None })
        .iter()
        .filter(|why| why.contains("go as they are"))
        .count()
}

/// The reports that wait at a station, oldest first.
fn waiting_reports(lab: &Lab, station: StationId) -> Vec<MessageId> {
    let unfinished = lab.node(station).unfinished(100).into_iter();
    unfinished.filter(|record| record.envelope.from.is_none()).map(|record| record.id).collect()
}

/// Runs until a station holds this many reports that have not gone.
fn run_until_waiting(lab: &mut Lab, station: StationId, count: usize) {
    let end = lab.at() + seconds(600);
    while waiting_reports(lab, station).len() < count {
        assert!(lab.at() < end, "{count} reports never waited");
        lab.run_for(Duration::from_millis(20));
    }
}

/// What shore and ship feed in all, after twenty texts of a ship that asks for receipts, or does not.
fn fed_for_twenty(asks: bool) -> (u64, u64, Lab) {
    let rate = Setup { economy: Economy::NONE, ..setup(1, &["ship", "shore"], 300, 0.0) };
    let mut lab = lab_of(&rate);
    lab.asks_receipts = asks;
    send(&mut lab, 0);
    lab.run_for(seconds(1200));
    let before = (fed(&lab, SHORE), fed(&lab, SHIP));
    (1..21).for_each(|number| _ = send(&mut lab, number));
    lab.run_for(seconds(3600));
    (fed(&lab, SHORE) - before.0, fed(&lab, SHIP) - before.1, lab)
}

/// They wait for what the ship said it still has, and go in one digest.
#[test]
fn twenty_receipts_cost_less_than_six_bytes_each_beyond_what_the_return_way_needs_anyway() {
    let (plain_shore, plain_ship, _) = fed_for_twenty(false);
    let (shore, ship, mut lab) = fed_for_twenty(true);
    assert_each_told_once(&mut lab, 21);
    let made = payloads(&lab, SHORE);
    println!("payloads {made:?}; shore {plain_shore} -> {shore} bytes, ship {plain_ship} -> {ship}");
    assert!((1..21).all(|number| was_rebuilt(&lab, number)));
    assert!(shore - plain_shore <= 20 * 6, "{} bytes", shore - plain_shore);
}

#[test]
fn power_that_fails_at_any_moment_leaves_every_receipt_once() {
    let seeds = std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for seed in 1..=seeds {
        let mut lab = lab_of(&setup(seed, &["ship", "shore"], 2400, 0.05));
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
        lab.run_for(seconds(7200));
        assert!(lab.ledger().iter().all(|entry| entry.fate.promised.is_some()), "seed {seed}");
        println!("seed {seed}");
        assert_each_told_once(&mut lab, texts);
    }
}

#[test]
fn power_that_fails_at_each_sync_of_either_end_leaves_every_receipt_once() {
    let syncs = std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4) * 8;
    for victim in [SHIP, SHORE] {
        for sync in 0..syncs {
            let mut lab = acquainted(1, 0.0);
            lab.provoked.extend(["the store refused", "wrong seal"]);
            (1..5).for_each(|number| _ = send(&mut lab, number));
            lab.run_for(seconds(1));
            lab.node(victim).store.fail(At::Sync(sync), Fault::PowerLoss);
            lab.run_for(seconds(1200));
            println!("{victim:?} at sync {sync}");
            assert_each_told_once(&mut lab, 5);
        }
    }
}

#[test]
fn what_the_sender_no_longer_knows_comes_as_reports_once_also_over_restarts() {
    for cut in [None, Some(SHORE), Some(SHIP)] {
        let mut lab = acquainted(2, 0.0);
        (1..4).for_each(|number| _ = send(&mut lab, number));
        run_until_waiting(&mut lab, SHORE, 2);
        lab.crash(SHIP, false, None);
        lab.forget_awaited(SHIP);
        lab.run_for(seconds(30));
        lab.start(SHIP);
        let end = lab.at() + seconds(900);
        assert!(lab.run_while(end, |lab| refused_digests(lab) > 0), "a digest was refused");
        if let Some(victim) = cut {
            // The word of the refusal is durable, or comes again.
            lab.crash(victim, true, Some(seconds(5)));
        }
        lab.run_for(seconds(1800));
        assert_each_told_once(&mut lab, 4);
        let as_they_are = (1..4).filter(|number| !was_rebuilt(&lab, *number)).count();
        assert!(as_they_are >= 2, "what was refused came as it is");
    }
}

#[test]
fn a_peer_that_cannot_read_receipts_gets_reports() {
    let mut lab = lab_of(&setup(3, &["ship", "shore"], 2400, 0.0));
    lab.crash(SHIP, false, None);
    lab.grow_old(SHIP);
    lab.provoked.push("cannot be decoded");
    lab.start(SHIP);
    (0..5).for_each(|number| _ = send(&mut lab, number));
    lab.run_for(seconds(1800));
    assert_each_told_once(&mut lab, 5);
    assert!((0..5).all(|number| !was_rebuilt(&lab, number)));
}

#[test]
fn a_relay_passes_receipts_on_as_receipts() {
    let mut relayed = setup(4, &["ship", "shore", "camp"], 2400, 0.0);
    relayed.ether.links.retain(|(a, b), _| (a.0 == 1) != (b.0 == 1));
    let mut lab = lab_of(&relayed);
    (0..8).for_each(|number| _ = send_to(&mut lab, CAMP, number, Precedence::Routine));
    lab.run_for(seconds(1800));
    (8..12).for_each(|number| _ = send_to(&mut lab, CAMP, number, Precedence::Routine));
    lab.run_for(seconds(1800));
    assert_each_told_once(&mut lab, 12);
    assert!((8..12).all(|number| was_rebuilt(&lab, number)));
    // Shore forwards four texts, and beside them makes nothing but digests.
    let last = payloads(&lab, SHORE);
    assert!(last.iter().rev().take(2).any(|bytes| *bytes < 60), "{last:?}");
}

#[test]
fn each_of_several_that_one_payload_served_tells_for_itself() {
    let several = Setup { net_key: true, ..setup(5, &["ship", "shore", "camp"], 2400, 0.0) };
    let mut lab = lab_of(&several);
    for _ in 0..2 {
        (0..4).for_each(|_| _ = lab.submit_to_several(SHIP, SHORE, &[CAMP], 700, Precedence::Routine));
        lab.run_for(seconds(1800));
    }
    assert_eq!(lab.check(), Vec::<String>::new());
    let mail = lab.node(SHIP).delivered().into_iter().map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned());
    let rebuilt: Vec<String> = mail.filter(|text| text.contains("Reporting-MTA: x-aldis; ")).collect();
    for station in ["shore", "camp"] {
        let of = rebuilt.iter().filter(|text| text.contains(&format!("x-aldis; {station}"))).count();
        assert!(of >= 4, "{of} reports built of what {station} told");
    }
}

#[test]
fn an_old_copy_of_the_reporting_store_tells_again_and_nobody_is_told_twice() {
    let mut lab = acquainted(6, 0.0);
    (1..5).for_each(|number| _ = send(&mut lab, number));
    run_until_waiting(&mut lab, SHORE, 1);
    lab.order(SHORE, State::Silent);
    lab.run_for(seconds(120));
    run_until_waiting(&mut lab, SHORE, 1);
    let image = lab.node(SHORE).store.backup();
    lab.order(SHORE, State::Open);
    lab.run_for(seconds(600));
    assert_each_told_once(&mut lab, 5);
    lab.crash(SHORE, false, None);
    lab.restore_image(SHORE, &image);
    lab.start(SHORE);
    lab.order(SHORE, State::Open);
    send(&mut lab, 5);
    lab.run_for(seconds(3600));
    for number in 0..6 {
        assert_eq!(reports(&lab, number).len(), 1, "text {number}");
    }
}

#[test]
fn an_old_copy_of_the_sending_store_is_told_what_it_knows_and_sent_reports_of_the_rest() {
    let mut lab = acquainted(7, 0.0);
    (1..4).for_each(|number| _ = send(&mut lab, number));
    run_until_waiting(&mut lab, SHORE, 1);
    lab.order(SHORE, State::Silent);
    lab.run_for(seconds(60));
    let image = lab.node(SHIP).store.backup();
    lab.crash(SHIP, false, None);
    lab.restore_image(SHIP, &image);
    lab.start(SHIP);
    lab.order(SHORE, State::Open);
    lab.run_for(seconds(3600));
    for number in 0..4 {
        assert_eq!(reports(&lab, number).len(), 1, "text {number}");
    }
}

#[test]
fn a_report_that_ends_while_it_waits_is_not_told_and_the_others_are() {
    let mut lab = acquainted(8, 0.0);
    (1..9).for_each(|number| _ = send(&mut lab, number));
    // Shore still hears the others: the first are put aside.
    run_until_waiting(&mut lab, SHORE, 2);
    let cancelled = waiting_reports(&lab, SHORE)[0];
    lab.request(SHORE, Request::QueueCancel { id: cancelled, reason: "exercise".into() });
    lab.run_for(seconds(900));
    let told: Vec<usize> = (1..9).map(|number| reports(&lab, number).len()).collect();
    assert_eq!(told.iter().sum::<usize>(), 7, "{told:?}");
    assert!(told.iter().all(|n| *n <= 1), "{told:?}");
    // A report that outlives its time in silence ends there, and its digest with it.
    lab.order(SHORE, State::AckOnly);
    send(&mut lab, 9);
    lab.run_for(seconds(300));
    let late = lab.world().now(SHORE).wall.plus(Duration::from_secs(40 * 86_400));
    lab.set_clock(SHORE, late, true);
    lab.run_for(seconds(60));
    lab.order(SHORE, State::Open);
    send(&mut lab, 10);
    lab.run_for(seconds(900));
    assert_eq!((reports(&lab, 9).len(), reports(&lab, 10).len()), (0, 1));
    assert!(waiting_reports(&lab, SHORE).is_empty());
}

#[test]
fn word_of_flash_does_not_wait_for_word_of_routine() {
    let mut lab = acquainted(9, 0.0);
    (1..12).for_each(|number| _ = send(&mut lab, number));
    run_until_waiting(&mut lab, SHORE, 2);
    send_to(&mut lab, SHORE, 12, Precedence::Flash);
    lab.run_for(seconds(1200));
    assert_each_told_once(&mut lab, 13);
    let about = events(&lab, SHIP, |e| if let Event::ReportQueued { about, .. } = e { Some(*about) } else { None });
    let flash = lab.node(SHIP).records(name(12).trim_matches(['<', '>']))[0].id;
    let place = about.iter().position(|id| *id == flash).expect("it was told of");
    // Text 0 was told of before; after it nothing of ROUTINE came in between but what left before FLASH was there.
    println!("FLASH was told of as number {place} of {}", about.len());
    let transfers =
        events(&lab, SHORE, |e| if let Event::TransferFrozen { message, .. } = e { Some(*message) } else { None });
    assert!(transfers.len() >= 3, "FLASH has a digest of its own");
    assert_eq!(lab.check(), Vec::<String>::new());
}
