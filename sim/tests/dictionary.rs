//! A dictionary of the site's own at both ends, at one, or another at each: mail arrives as it was, and only what is shared shortens it.

use std::collections::BTreeMap;

use aldis::mail::Precedence;
use aldis::time::Duration;
use aldis_sim::ether::{EtherConfig, LinkConfig, StationId};
use aldis_sim::lab::{Lab, Setup};
use aldis_sim::modem::ModemConfig;
use aldis_sim::node::Economy;
use aldis_sim::trace::Trace;
use aldis_sim::waveform::Waveform;

const SHIP: StationId = StationId(0);
const SHORE: StationId = StationId(1);

/// Lines this site writes every day, and nobody else.
const OURS: &[u8] = b"Subject: Quay Forty-Two evening return\r\nThe bunker barge Gudrun lies at dolphin seven; fenders Yokohama type, two.\r\n\
    Potable water from hydrant K-19 until further notice; meter readings to the harbour clerk before watch change.\r\n\
    Shore power: breaker panel E, phase sequence checked by the second electrician.\r\n\
    Garbage skip ordered; oily rags apart, food waste to the blue container by the crane.\r\n";
const THEIRS: &[u8] = b"Subject: another site's text altogether\r\nThe fork lift of shed nine is out of order.\r\n";

/// The day's return: the usual lines with a few words of its own.
fn mail(number: usize) -> Vec<u8> {
    let usual = String::from_utf8_lossy(OURS);
    let usual = usual.split_once("\r\n").expect("a line").1;
    format!(
        "From: <op@ship.example>\r\nTo: <desk@shore.example>\r\nSubject: Quay Forty-Two evening return\r\n\
         Message-ID: <{number}.quay@ship.example>\r\n\r\nReturn number {number}.\r\n{usual}"
    )
    .into_bytes()
}

fn lab(dictionaries: &[(StationId, &'static [u8])]) -> Lab {
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let ether = EtherConfig::net(1, 2, &modem, LinkConfig::default());
    let dictionaries: BTreeMap<_, _> = dictionaries.iter().copied().collect();
    // Without history, which would soon make up for the dictionary.
    let setup = Setup {
        economy: Economy::NONE,
        limits: "history = \"0B\"",
        dictionaries,
        ..Setup::new(1, &["ship", "shore"], ether)
    };
    let mut lab = Lab::new(&setup, Trace::hashed());
    lab.provoked.push("does not answer");
    lab
}

/// Payload bytes of four messages, sent one after the other; how often the ship coded one anew, and whether all is well at the end.
fn send(mut lab: Lab) -> (Vec<u64>, usize) {
    let bytes = (0..4)
        .map(|n| {
            let number = lab.submit_mail(SHIP, SHORE, mail(n), Precedence::Routine);
            let end = lab.at() + Duration::from_secs(7200);
            assert!(lab.run_while(end, |lab| lab.ledger()[number].fate.confirmed.is_some()), "message {n}");
            lab.ledger()[number].fate.payload_bytes
        })
        .collect();
    let end = lab.at() + Duration::from_secs(3600);
    assert!(lab.run_until_settled(end), "{:#?}", lab.check());
    assert_eq!(lab.check(), Vec::<String>::new());
    let anew = lab.node(SHIP).log().events.iter().filter(|(_, e)| e.name() == "transfer-coded-anew").count();
    (bytes, anew)
}

#[test]
fn what_both_have_shortens_mail_and_what_one_lacks_is_tried_once() {
    let (plain, none) = send(lab(&[]));
    let (shared, anew) = send(lab(&[(SHIP, OURS), (SHORE, OURS)]));
    println!("without {plain:?}, with {shared:?}");
    // The first goes before the peer was heard, as every node reads it.
    assert!(plain[1..].iter().zip(&shared[1..]).all(|(plain, shared)| shared * 2 < *plain), "{plain:?} {shared:?}");
    assert_eq!((none, anew), (0, 0));
    for far in [None, Some((SHORE, THEIRS))] {
        let dictionaries: Vec<_> = [(SHIP, OURS)].into_iter().chain(far).collect();
        let (bytes, anew) = send(lab(&dictionaries));
        assert_eq!(anew, 1, "told once, believed for a day");
        let alike = bytes[1..].iter().zip(&plain[1..]).all(|(now, plain)| now.abs_diff(*plain) < 4);
        assert!(alike, "and coded as without it: {bytes:?} {plain:?}");
    }
}

#[test]
fn power_that_fails_while_it_is_tried_loses_nothing() {
    for seconds in [6, 9] {
        let mut lab = lab(&[(SHIP, OURS), (SHORE, THEIRS)]);
        lab.submit_mail(SHIP, SHORE, mail(0), Precedence::Routine);
        lab.run_for(Duration::from_secs(120));
        lab.submit_mail(SHIP, SHORE, mail(1), Precedence::Routine);
        lab.run_for(Duration::from_secs(seconds));
        lab.crash(if seconds % 2 == 0 { SHIP } else { SHORE }, true, Some(Duration::from_secs(5)));
        let end = lab.at() + Duration::from_secs(7200);
        assert!(lab.run_until_settled(end), "{:#?}", lab.check());
        assert_eq!(lab.check(), Vec::<String>::new());
    }
}
