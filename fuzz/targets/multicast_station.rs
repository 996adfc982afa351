//! A station in Aldis mode with a message on its way out, between hostile holders of the group's key: datagrams of any fields, a store that
//! fails now and then, any time between. What it holds stays within its limits, time goes on, what it sends stays within the rate.
#![no_main]

mod tally;

use std::collections::BTreeMap;

use aldis::bearer::multicast::wire::{Datagram, Head, TAG};
use aldis::bearer::multicast::{Config, Outgoing, PeerConfig, Station};
use aldis::bearer::serial::keys::Seal;
use aldis::bearer::{Event, Verdict, fec};
use aldis::mail::{Precedence, Protection, TransferId};
use aldis::time::{Duration, Instant};
use aldis::units::Bps;
use libfuzzer_sys::fuzz_target;

const MAX: usize = 400;

fuzz_target!(|data: &[u8]| {
    tally::add(data.len());
    let name = |s: u8| format!("node{s}").as_str().into();
    let peer = |s: u8| PeerConfig {
        name: name(s),
        station: s,
        protection: Protection::Off,
        keys: Vec::new(),
        assumed_loss: 0.2,
    };
    let config = Config {
        name: name(3),
        station: 3,
        epoch: 5,
        fresh: true,
        highest: 0,
        reads: 2,
        group: "g".into(),
        peers: vec![peer(1), peer(2)],
        blind: BTreeMap::new(),
        rate: Bps(64_000),
        delay: Duration::from_millis(270),
        max_datagram: MAX,
        max_partials: 4,
        max_partial_bytes: 8000,
        max_finished: 8,
    };
    let mut now = Instant::from_millis(1000);
    let mut station = Station::new(now, config, Vec::new());
    let id = |counter: u32| TransferId { origin: name(3), epoch: 5, counter };
    let cut = station.cut();
    let to = vec![(name(1), id(1)), (name(2), id(2))];
    station.send(now, Outgoing { lead: 1, precedence: Precedence::Routine, payload: vec![5; 3000].into(), cut, to });
    let mut rest = data;
    while let [how, length, behind @ ..] = rest {
        let (piece, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let from = 1 + how % 2;
        // The fuzzer writes a body; head and tag are good ones.
        let forged = [&[0x10 | how >> 1 & 3, 0, from][..], piece, &[0; TAG]].concat();
        if let Some(datagram) = Datagram::parse(&forged) {
            station.handle_datagram(now, &datagram.emit(Head { key: 0, reads: 1, from }, &Seal::checksum()));
        }
        if how & 0x10 != 0 {
            station.set_silent(now, &name(1), how & 0x20 != 0);
        }
        if how & 0x48 == 0x48 {
            station.cancel(&id(1));
        }
        let step = Duration::from_millis(1 << (how >> 4));
        now = now + step;
        let mut sent = 0;
        for _ in 0..4 {
            station.handle_timeout(now);
            while let Some(event) = station.poll_event() {
                match event {
                    Event::Persist { ticket, .. } => station.stored(now, ticket, how & 0x0c != 0x0c),
                    Event::Job { ticket, job } => station.job_done(now, ticket, fec::run(job)),
                    Event::Whole { ticket, payload, .. } => {
                        assert!(payload.len() <= 8000);
                        let verdicts = [Verdict::Accepted, Verdict::Later, Verdict::Forged, Verdict::Refused(3)];
                        station.settled(now, ticket, verdicts[usize::from(how >> 6)]);
                    }
                    _ => {}
                }
            }
            while let Some(transmit) = station.poll_transmit(now, |_| true) {
                assert!(transmit.bytes.len() <= MAX, "{} bytes", transmit.bytes.len());
                sent += transmit.bytes.len();
            }
        }
        // The bucket, and what one more datagram may overdraw.
        assert!(sent <= 2 * (MAX + 28), "{sent} at once");
        assert!(station.next_timeout().is_none_or(|at| at > now), "busy");
        assert!(station.held() <= (4, 8000));
    }
});
