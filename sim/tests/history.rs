//! What two nodes both know: payloads are coded for what the peer reads and may name earlier messages. Whatever either end loses of that,
//! mail arrives once and as it was. Seeds of the storm by `ALDIS_SEEDS`.

use aldis::mail::Precedence;
use aldis::ops::Event;
use aldis::time::{Duration, Instant};
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

/// What the two write to each other, in turns.
const WORDS: [&str; 10] = [
    "The port engine's third injector drips again, and the chief wants the spare that went ashore in Bergen. Could the\r\nstores office find out which lorry took it, and whether we can have it before the pilot boards?",
    "It stands in shed nine under somebody else's label. A driver leaves at half past four; tell the bosun to look for a\r\ngreen crate with two dents, and mind that the papers name the sister ship.",
    "Crate found, dents counted: three. The injector inside is the older pattern with the long collar. Is there an adaptor\r\non the shelf, or does the chief have to turn one on the lathe tonight?",
    "No adaptor left since spring. The workshop says brass will do for a week if the collar is kept below ninety degrees.\r\nDrawing 44-B has the thread; page two is wrong, use the pencilled figures.",
    "Brass it is. Pencilled figures agree with the old collar to a hair. We go on one engine until midnight, so please move\r\nthe rendezvous with the tug by three hours and warn the harbour office.",
    "Harbour office warned, tug moved; her master grumbles about the tide and asks for your draught fore and aft. He also\r\nwonders whether the towing bridle was ever mended after last winter.",
    "Draught five metres ten fore, five sixty aft. The bridle has a new thimble and looks better than its owner. Ask him to\r\nbring the longer messenger line, ours went over the side with the boat hook.",
    "He brings the longer line and expects coffee for it. Weather routing sends word of a swell from the north-west by\r\nmorning; they would rather have you inside the skerries before breakfast.",
    "We would rather be there as well. The brass collar holds at seventy-one degrees, both engines turn, and the cook has\r\nheard about the coffee. Expect us off the lighthouse at five.",
    "Lighthouse at five is noted, the pilot knows, and shed nine would like its green crate back when you have finished\r\nwith it, dents included.",
];

/// The `number`th message of the conversation, with all before it quoted.
fn mail(number: usize) -> Vec<u8> {
    let id = |n: usize| format!("<{n}.7c1e@{}>", if n.is_multiple_of(2) { "ship.example" } else { "shore.example" });
    let (from, to) = match number.is_multiple_of(2) {
        true => ("Chief Engineer <op@ship.example>", "Stores Office <desk@shore.example>"),
        false => ("Stores Office <op@shore.example>", "Chief Engineer <desk@ship.example>"),
    };
    let answers = match number {
        0 => String::new(),
        n => {
            let before: Vec<String> = (0..n).map(id).collect();
            format!("In-Reply-To: {}\r\nReferences: {}\r\n", id(n - 1), before.join("\r\n "))
        }
    };
    let mark = if number == 0 { "" } else { "Re: " };
    let mut body = format!(
        "From: {from}\r\nTo: {to}\r\nSubject: {mark}The port injector\r\nDate: Mon, 23 Nov 2026 1{number}:04:00 +0100\r\n\
         Message-ID: {}\r\n{answers}MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}\r\n",
        id(number),
        WORDS[number]
    );
    for (depth, earlier) in (0..number).rev().enumerate().take(3) {
        let marks = "> ".repeat(depth + 1);
        body += &format!("\r\n{marks}Message {earlier} said:\r\n");
        for line in WORDS[earlier].split("\r\n") {
            body += &format!("{marks}{line}\r\n");
        }
    }
    body.into_bytes()
}

fn lab(seed: u64, limits: &'static str, p: f64) -> Lab {
    lab_of(seed, limits, p, Economy::NONE)
}

fn lab_of(seed: u64, limits: &'static str, p: f64, economy: Economy) -> Lab {
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let loss = match p {
        0.0 => Loss::Ideal,
        p => Loss::Cells { bytes: 250, p, damage: Damage::Garbage },
    };
    let ether = EtherConfig::net(seed, 2, &modem, LinkConfig { loss, ..LinkConfig::default() });
    let setup = Setup { economy, limits, ..Setup::new(seed, &["ship", "shore"], ether) };
    let mut lab = Lab::new(&setup, Trace::hashed());
    lab.provoked.push("does not answer");
    lab
}

/// Sends messages of the conversation one after the other, and gives the bytes of the payload that arrived of each.
fn converse(lab: &mut Lab, numbers: std::ops::Range<usize>) -> Vec<u64> {
    let send = |n: usize| {
        let (from, to) = if n.is_multiple_of(2) { (SHIP, SHORE) } else { (SHORE, SHIP) };
        let number = lab.submit_mail(from, to, mail(n), Precedence::Routine);
        let end = lab.at() + Duration::from_secs(7200);
        assert!(lab.run_while(end, |lab| lab.ledger()[number].fate.confirmed.is_some()), "message {n}");
        lab.ledger()[number].fate.payload_bytes
    };
    numbers.map(send).collect()
}

fn count(lab: &Lab, station: StationId, name: &str) -> usize {
    lab.node(station).log().events.iter().filter(|(_, event)| event.name() == name).count()
}

/// Payloads that could not be read, at either end, and messages that were coded anew for it.
fn refused(lab: &Lab) -> (usize, usize) {
    let both = |name| count(lab, SHIP, name) + count(lab, SHORE, name);
    (both("context-unknown"), both("transfer-coded-anew"))
}

fn settle(mut lab: Lab) {
    let end = lab.at() + Duration::from_secs(36_000);
    assert!(lab.run_until_settled(end), "{:#?}", lab.check());
    assert_eq!(lab.check(), Vec::<String>::new());
}

#[test]
fn a_conversation_costs_little_more_than_its_new_words() {
    let mut with = lab(1, "", 0.0);
    let named = converse(&mut with, 0..10);
    let mut without = lab(1, "history = \"0B\"", 0.0);
    let alone = converse(&mut without, 0..10);
    let (all_named, all_alone): (u64, u64) = (named.iter().sum(), alone.iter().sum());
    println!("with history {named:?}, {all_named} bytes; without {alone:?}, {all_alone} bytes");
    assert_eq!(named[0], alone[0], "the first has nothing to name");
    for n in 2..10 {
        assert!(named[n] * 10 < alone[n] * 7, "message {n}: {} of {}", named[n], alone[n]);
    }
    assert_eq!((refused(&with), refused(&without)), ((0, 0), (0, 0)));
    settle(with);
    settle(without);
}

#[test]
fn what_one_end_has_forgotten_is_not_named_twice() {
    for (seed, forgetful) in [(1, SHIP), (2, SHORE)] {
        let mut lab = lab(seed, "", 0.0);
        converse(&mut lab, 0..5);
        lab.run_for(Duration::from_secs(60));
        lab.crash(forgetful, false, None);
        lab.forget_history(forgetful);
        lab.start(forgetful);
        converse(&mut lab, 5..10);
        let (unknown, anew) = refused(&lab);
        assert!((1..=2).contains(&unknown) && unknown == anew, "seed {seed}: {unknown} and {anew}");
        let last = converse(&mut lab, 9..9);
        assert!(last.is_empty());
        settle(lab);
    }
}

#[test]
fn a_store_put_back_from_an_old_copy_loses_no_mail_and_brings_none_twice() {
    for (seed, old) in [(1, SHIP), (2, SHORE), (3, SHIP), (4, SHORE)] {
        let mut lab = lab(seed, "", 0.0);
        converse(&mut lab, 0..4);
        lab.run_for(Duration::from_secs(60));
        let image = lab.node(old).store.backup();
        converse(&mut lab, 4..7);
        lab.run_for(Duration::from_secs(60));
        lab.crash(old, false, None);
        match seed {
            1 | 2 => lab.restore_store(old, &image),
            _ => lab.restore_image(old, &image),
        }
        lab.start(old);
        converse(&mut lab, 7..10);
        let end = lab.at() + Duration::from_secs(36_000);
        assert!(lab.run_until_settled(end), "seed {seed}");
        assert!(lab.copies().iter().all(|copies| *copies == 1), "seed {seed}: {:?}", lab.copies());
    }
}

#[test]
fn a_peer_that_reads_less_than_it_says_gets_its_mail_coded_anew_and_one_without_history_is_never_named_any() {
    let mut lab = self::lab(1, "", 0.0);
    converse(&mut lab, 0..3);
    lab.provoked.push("cannot be decoded here");
    lab.crash(SHORE, false, None);
    lab.grow_old(SHORE);
    lab.start(SHORE);
    converse(&mut lab, 3..7);
    let anew = count(&lab, SHIP, "transfer-coded-anew");
    assert!((1..=2).contains(&anew), "{anew}: each message at most once, and none while its word is doubted");
    assert_eq!(count(&lab, SHIP, "message-failed"), 0);
    settle(lab);
}

#[test]
fn a_peer_that_keeps_silence_is_sent_what_every_node_reads() {
    let payload = |mut lab: Lab| {
        converse(&mut lab, 0..4);
        lab.mark(SHIP, SHORE, true);
        lab.run_for(Duration::from_secs(5));
        let number = lab.submit_mail(SHIP, SHORE, mail(4), Precedence::Routine);
        lab.run_for(Duration::from_secs(120));
        lab.ledger()[number].fate.payload_bytes
    };
    let sent = payload(lab(1, "", 0.0));
    assert_eq!(sent, payload(lab_of(1, "", 0.0, Economy::ALONE)));
    assert!(sent > 400, "{sent}");
}

#[test]
fn what_went_to_several_at_once_is_named_to_each_of_them_later_and_names_nothing_itself() {
    let base = StationId(2);
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let ether = EtherConfig::net(1, 3, &modem, LinkConfig::default());
    let setup = Setup { economy: Economy::NONE, net_key: true, ..Setup::new(1, &["ship", "shore", "base"], ether) };
    let mut lab = Lab::new(&setup, Trace::hashed());
    let send = |lab: &mut Lab, also: &[StationId]| {
        let number = lab.submit_to_several(SHIP, SHORE, also, 600, Precedence::Routine);
        let end = lab.at() + Duration::from_secs(7200);
        assert!(lab.run_until_settled(end), "{:#?}", lab.check());
        lab.ledger()[number].fate.payload_bytes
    };
    let sizes = [&[base][..], &[base], &[]].map(|also| send(&mut lab, also));
    assert!(sizes[1] < sizes[0], "both have said what they read: {sizes:?}");
    assert!(sizes[2] + 80 < sizes[1], "one alone: {sizes:?}");
    let unread = |station| count(&lab, station, "context-unknown") + count(&lab, station, "transfer-coded-anew");
    assert_eq!([SHIP, SHORE, base].map(unread), [0; 3]);
    assert_eq!(lab.check(), Vec::<String>::new());
}

#[test]
fn power_that_fails_at_any_moment_leaves_every_message_once_and_whole() {
    let seeds = std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for seed in 1..=seeds {
        let mut lab = lab(seed, "", 0.05);
        lab.provoked.extend(["the store refused", "wrong seal"]);
        let mut chance = Stream::new(seed, "cuts", 0);
        for n in 0..10usize {
            let (from, to) = if n.is_multiple_of(2) { (SHIP, SHORE) } else { (SHORE, SHIP) };
            let number = lab.submit_mail(from, to, mail(n), Precedence::Routine);
            lab.run_for(Duration::from_millis(chance.below(30_000)));
            if chance.chance(0.6) {
                let victim = if chance.chance(0.5) { SHIP } else { SHORE };
                let power = chance.chance(0.7);
                lab.crash(victim, power, None);
                if !power && chance.chance(0.4) {
                    lab.forget_history(victim);
                }
                lab.start(victim);
            }
            let end = lab.at() + Duration::from_secs(7200);
            let done = |lab: &Lab| {
                lab.ledger()[number].fate.promised.is_none() || lab.ledger()[number].fate.delivered.is_some()
            };
            assert!(lab.run_while(end, done), "seed {seed}, message {n}");
        }
        let end: Instant = lab.at() + Duration::from_secs(36_000);
        assert!(lab.run_until_settled(end), "seed {seed}: {:#?}", lab.check());
        assert_eq!(lab.check(), Vec::<String>::new(), "seed {seed}");
        let named = |event: &Event| matches!(event, Event::MessageFailed { .. });
        assert!(!lab.node(SHIP).log().events.iter().any(|(_, e)| named(e)), "seed {seed}");
    }
}
