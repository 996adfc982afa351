//! Mail that goes reduced by a rule of the profile, and the parts that follow when they are asked for. Seeds of the power cuts by `ALDIS_SEEDS`.

use std::sync::atomic::{AtomicU64, Ordering};

use aldis::mail::{BodyKind, Mailbox, MessageId, Precedence, Recipient};
use aldis::ops::{Event, Request};
use aldis::switch::SessionId;
use aldis::time::Duration;
use aldis_sim::channel::Loss;
use aldis_sim::client;
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::ModemConfig;
use aldis_sim::node::{Coding, Economy};
use aldis_sim::rng::Stream;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;
use data_encoding::BASE64;

const SHIP: StationId = StationId(0);
const SHORE: StationId = StationId(1);
const SHIP_SATCOM: StationId = StationId(2);
const SHORE_SATCOM: StationId = StationId(3);

const RULE: &str = "[[reduce]]\nname = \"hf\"\nbearers = [\"hf1\"]\nover = \"2KiB\"\nstrip_headers = [\"trace\", \"vanity\"]\n\
                    drop_html = true\nhold_attachments = \"16KiB\"\n";

const CLOSED: &str =
    "[[reduce]]\nname = \"hf\"\nbearers = [\"hf1\"]\nhold_attachments = \"16KiB\"\nfetch_by_mail = false\n";

/// Without a dictionary: what is sent is mostly a file that no codec makes smaller.
const ECONOMY: Economy = Economy { coding: Coding::Plain, ..Economy::NONE };

fn hf(seed: u64, rate: u32, tables: &'static str, loss: f64) -> Lab {
    let modem = ModemConfig::new(*Waveform::find(rate, "S").expect("known"));
    let loss = match loss {
        0.0 => Loss::Ideal,
        p => Loss::Cells { bytes: 250, p, damage: aldis_sim::channel::Damage::Garbage },
    };
    let ether = EtherConfig::net(seed, 2, &modem, LinkConfig { loss, ..LinkConfig::default() });
    Lab::new(&Setup { economy: ECONOMY, tables, ..Setup::new(seed, &["ship", "shore"], ether) }, Trace::hashed())
}

/// Text with the same as HTML, and a file of so many bytes that no codec makes smaller.
fn mail(number: u64, bytes: usize) -> (Vec<u8>, String) {
    let mut file = vec![0; bytes];
    Stream::new(number, "file", 0).fill(&mut file);
    let lines: Vec<String> = file.chunks(57).map(|line| BASE64.encode(line)).collect();
    let file = lines.join("\r\n");
    let html = "<p style=\"margin:0;font-family:Calibri\">Chart of the approach as agreed.</p>\r\n".repeat(40);
    let message = format!(
        "Received: from one by two; Sun, 29 Nov 2026 10:00:00 +0000\r\nReceived: from zero by one; Sun, 29 Nov 2026 09:59:00 +0000\r\n\
         From: <op@ship.example>\r\nTo: <desk@shore.example>\r\nSubject: chart {number}\r\nMessage-ID: <{number}.chart@ship.example>\r\n\
         Thread-Index: AdtC0fXo\r\nX-Mailer: Program 1.2\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n\
         --m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\nContent-Type: text/plain\r\n\r\n\
         Chart of the approach as agreed.\r\n--a\r\nContent-Type: text/html\r\n\r\n{html}--a--\r\n--m\r\n\
         Content-Type: application/pdf; name=approach.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n{file}\r\n--m--\r\n"
    );
    (message.into_bytes(), file)
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

fn delivered(lab: &Lab) -> Vec<Vec<u8>> {
    lab.node(SHORE).delivered().into_iter().map(|(_, bytes)| bytes).collect()
}

fn submit(lab: &mut Lab, message: Vec<u8>) -> usize {
    lab.submit_mail(SHIP, SHORE, message, Precedence::Routine)
}

fn run_until_confirmed(lab: &mut Lab, number: usize) {
    let end = lab.at() + Duration::from_secs(4 * 3600);
    let confirmed = lab.run_while(end, |lab| lab.ledger()[number].fate.confirmed.is_some());
    assert!(confirmed, "{:#?}", lab.ledger()[number].fate);
    lab.run_for(Duration::from_secs(60));
}

fn id(lab: &Lab, number: usize) -> MessageId {
    lab.node(SHIP).records(&lab.ledger()[number].message_id).first().expect("known at the ship").id
}

fn seconds(lab: &Lab, number: usize) -> u64 {
    let entry = &lab.ledger()[number];
    entry.fate.delivered.expect("delivered").since(entry.at).as_secs()
}

#[test]
fn a_chart_costs_its_words_on_hf_and_follows_when_it_is_asked_for() {
    let (message, file) = mail(1, 80_000);
    let mut whole = hf(1, 300, "", 0.0);
    let mut reduced = hf(1, 300, RULE, 0.0);
    let times = [&mut whole, &mut reduced].map(|lab| {
        let number = submit(lab, message.clone());
        run_until_confirmed(lab, number);
        seconds(lab, number)
    });
    println!("80 KB at 300 bit/s: whole {} s, reduced {} s", times[0], times[1]);
    assert!(times[1] * 30 < times[0], "{times:?}");
    assert!(delivered(&whole)[0].ends_with(&message), "without a rule every byte goes");

    let [copy] = delivered(&reduced).try_into().expect("one message");
    assert!(has(&copy, "Chart of the approach as agreed.") && has(&copy, "X-Aldis-Reduced: "));
    for gone in ["<p style", "X-Mailer", "Thread-Index", "from zero by one", &file[..70]] {
        assert!(!has(&copy, gone), "{gone} was to stay here");
    }
    let id = id(&reduced, 0);
    assert!(
        has(&copy, &format!("Write to fetch+{id}.3@ship.example to have it.")),
        "{}",
        String::from_utf8_lossy(&copy)
    );
    let told = reduced.node(SHIP).log().events.iter().find_map(|(_, e)| match e {
        Event::MessageReduced { from_bytes, to_bytes, without, .. } => Some((*from_bytes, *to_bytes, without.clone())),
        _ => None,
    });
    let (from, to, without) = told.expect("told");
    assert!(from > 110_000 && to < 2_500 && without.contains("part 3: \"approach.pdf\", application/pdf, 80000 bytes"));

    let answer = |lab: &mut Lab, part| {
        let asked = lab.request(SHIP, Request::QueueFetch { id, part });
        lab.run_for(Duration::from_secs(5));
        let replies = &lab.node(SHIP).log().replies;
        replies.iter().find(|(_, request, _)| *request == asked).expect("answered").2.clone()
    };
    assert!(answer(&mut reduced, 4).document["problem"].as_str().expect("refused").contains("1 to 3"));
    assert!(answer(&mut reduced, 3).ok);
    let end = reduced.at() + Duration::from_secs(2 * 3600);
    assert!(reduced.run_while(end, |lab| delivered(lab).len() == 2), "the part arrives");
    let part = delivered(&reduced).into_iter().find(|m| has(m, "[part 3 of 3] chart 1")).expect("the part");
    assert!(has(&part, &file) && !has(&part, "X-Aldis-Reduced"), "whole, and not reduced again");
    reduced.run_for(Duration::from_secs(120));
    assert_eq!(reduced.check_settled(), Vec::<String>::new());
}

/// Somebody at the shore writes to the address in the note.
fn ask(lab: &mut Lab, from: &str, to: &str) {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let number = ASKED.fetch_add(1, Ordering::Relaxed);
    let body = format!("From: <{from}>\r\nTo: <{to}>\r\nMessage-ID: <{number}.ask@shore.example>\r\n\r\n").into_bytes();
    let recipients = vec![Recipient::plain(Mailbox::new(to))];
    let transaction = client::transaction(from, recipients, None, BodyKind::EightBitMime, body);
    lab.world_mut().with_host(SHORE, |node, now| node.submit(now, SessionId(1_000_000 + number), transaction));
}

fn parts(lab: &Lab) -> usize {
    delivered(lab).iter().filter(|m| has(m, "Subject: [part ")).count()
}

fn events(lab: &Lab, station: StationId, wanted: impl Fn(&Event) -> bool) -> usize {
    lab.node(station).log().events.iter().filter(|(_, e)| wanted(e)).count()
}

#[test]
fn who_got_the_copy_writes_for_the_part_and_nobody_else_has_it() {
    let mut lab = hf(3, 2400, RULE, 0.0);
    let (message, file) = mail(3, 20_000);
    let number = submit(&mut lab, message);
    run_until_confirmed(&mut lab, number);
    let id = id(&lab, number);
    let part = |n: u32| format!("fetch+{id}.{n}@ship.example");
    // Another than the recipient, a part there is none of, a message there is none of.
    for (from, to) in [
        ("op@shore.example", part(3)),
        ("desk@shore.example", part(9)),
        ("desk@shore.example", "fetch+FFFF.1@ship.example".into()),
    ] {
        let before = events(&lab, SHIP, |e| matches!(e, Event::MessageFailed { status, .. } if status == "5.7.1"));
        ask(&mut lab, from, &to);
        lab.run_for(Duration::from_secs(300));
        let after = events(&lab, SHIP, |e| matches!(e, Event::MessageFailed { status, .. } if status == "5.7.1"));
        assert_eq!((after, parts(&lab)), (before + 1, 0), "{from} {to}");
    }
    ask(&mut lab, "desk@shore.example", &part(3));
    let end = lab.at() + Duration::from_secs(3600);
    assert!(lab.run_while(end, |lab| parts(lab) == 1), "the part arrives");
    assert!(delivered(&lab).iter().any(|m| has(m, "[part 3 of 3] chart 3") && has(m, &file)));
    lab.run_for(Duration::from_secs(300));
    let fetched = |e: &Event| matches!(e, Event::PartFetched { author, part: 3, .. } if author == "desk@shore.example");
    assert_eq!(events(&lab, SHIP, fetched), 1);
    assert_eq!(lab.check_settled(), Vec::<String>::new());
    // Where the rule does not say so an operator sends it.
    let mut closed = hf(3, 2400, CLOSED, 0.0);
    let number = submit(&mut closed, mail(3, 20_000).0);
    run_until_confirmed(&mut closed, number);
    assert!(has(&delivered(&closed)[0], "aldis queue fetch"));
}

#[test]
fn a_request_that_power_interrupts_is_granted_once() {
    let seeds = std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    for seed in 1..=seeds {
        let mut lab = hf(seed, 2400, RULE, 0.0);
        lab.provoked = vec!["does not answer", "the store refused"];
        let mut chance = Stream::new(seed, "cuts", 0);
        let number = submit(&mut lab, mail(seed, 17_000).0);
        run_until_confirmed(&mut lab, number);
        let id = id(&lab, number);
        ask(&mut lab, "desk@shore.example", &format!("fetch+{id}.3@ship.example"));
        let accepted = |lab: &Lab| events(lab, SHIP, |e| matches!(e, Event::MessageAccepted { .. }));
        let before = accepted(&lab);
        let end = lab.at() + Duration::from_secs(3600);
        assert!(lab.run_while(end, |lab| accepted(lab) > before), "seed {seed}: the request reaches the ship");
        // From here on its steps are commits a few milliseconds apart.
        lab.run_for(Duration::from_millis(chance.below(60)));
        lab.crash(SHIP, true, None);
        lab.start(SHIP);
        let end = lab.at() + Duration::from_secs(7200);
        assert!(lab.run_while(end, |lab| parts(lab) == 1), "seed {seed}");
        lab.run_for(Duration::from_secs(1200));
        assert_eq!(parts(&lab), 1, "seed {seed}");
        assert_eq!(lab.check_settled(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn the_same_mail_goes_whole_over_a_bearer_without_a_rule() {
    let slow = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let quick = ModemConfig::new(*Waveform::find(9600, "S").expect("known"));
    let mut ether = EtherConfig::net(1, 2, &slow, LinkConfig::default());
    ether.stations.extend([quick.clone(), quick]);
    ether.links.insert((SHIP_SATCOM, SHORE_SATCOM), LinkConfig::default());
    ether.links.insert((SHORE_SATCOM, SHIP_SATCOM), LinkConfig::default());
    let further = vec!["satcom".into()];
    let setup = Setup { economy: ECONOMY, tables: RULE, further, ..Setup::new(1, &["ship", "shore"], ether) };
    let mut lab = Lab::new(&setup, Trace::hashed());
    lab.provoked = vec!["does not answer", "no answer"];
    let (message, file) = mail(1, 30_000);
    let number = submit(&mut lab, message);
    run_until_confirmed(&mut lab, number);
    assert!(has(&delivered(&lab)[0], &file));
    // The satellite is gone, and the node has noticed.
    lab.world_mut().disturb(|ether, at| {
        ether.set_link(at, SHIP_SATCOM, SHORE_SATCOM, false);
        ether.set_link(at, SHORE_SATCOM, SHIP_SATCOM, false);
    });
    let (message, _) = mail(2, 20_000);
    let number = submit(&mut lab, message);
    run_until_confirmed(&mut lab, number);
    let (message, file) = mail(3, 20_000);
    let number = submit(&mut lab, message);
    run_until_confirmed(&mut lab, number);
    let third = delivered(&lab).into_iter().find(|m| has(m, "Subject: chart 3")).expect("delivered");
    assert!(has(&third, "X-Aldis-Reduced") && !has(&third, &file));
    // What is above the rule's level goes whole by any bearer.
    let (message, file) = mail(4, 20_000);
    let number = lab.submit_mail(SHIP, SHORE, message, Precedence::Priority);
    run_until_confirmed(&mut lab, number);
    assert!(delivered(&lab).iter().any(|m| has(m, "Subject: chart 4") && has(m, &file)));
}

#[test]
fn power_that_fails_at_any_moment_leaves_one_copy_and_the_part_can_still_be_had() {
    let seeds = std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    for seed in 1..=seeds {
        let mut lab = hf(seed, 2400, RULE, 0.05);
        lab.provoked = vec!["does not answer", "the store refused"];
        let mut chance = Stream::new(seed, "cuts", 0);
        let (message, file) = mail(seed, 20_000);
        let number = submit(&mut lab, message);
        lab.run_for(Duration::from_secs(5));
        for _ in 0..3 {
            lab.run_for(Duration::from_millis(chance.below(12_000)));
            let victim = if chance.chance(0.7) { SHIP } else { SHORE };
            lab.crash(victim, chance.chance(0.5), None);
            lab.start(victim);
        }
        let id = id(&lab, number);
        let end = lab.at() + Duration::from_secs(3600);
        assert!(lab.run_while(end, |lab| lab.ledger()[number].fate.delivered.is_some()), "seed {seed}");
        lab.run_for(Duration::from_secs(300));
        assert_eq!(delivered(&lab).len(), 1, "seed {seed}");
        assert!(has(&delivered(&lab)[0], "X-Aldis-Reduced") && !has(&delivered(&lab)[0], &file));
        // Killed with the wish in hand: whoever got no answer asks again, and has the part once or twice.
        lab.request(SHIP, Request::QueueFetch { id, part: 3 });
        lab.run_for(Duration::from_millis(chance.below(200)));
        lab.crash(SHIP, true, None);
        lab.start(SHIP);
        lab.request(SHIP, Request::QueueFetch { id, part: 3 });
        let end = lab.at() + Duration::from_secs(3600);
        assert!(lab.run_while(end, |lab| delivered(lab).iter().any(|m| has(m, &file))), "seed {seed}");
        lab.run_for(Duration::from_secs(1200));
        assert!((2..=3).contains(&delivered(&lab).len()), "seed {seed}");
        assert_eq!(lab.check_settled(), Vec::<String>::new(), "seed {seed}");
    }
}
