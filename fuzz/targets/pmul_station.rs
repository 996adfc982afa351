//! A P_MUL station with two messages on their way out, one of them by a dynamic group, between hostile peers: datagrams of any fields under good checksums, any time between.
//! What it holds stays within its limits, deadlines lie ahead, what it sends stays within what it was asked and its own repeats.
#![no_main]

mod tally;

use std::net::Ipv4Addr;

use aldis::bearer::pmul::{
    Checksum, Config, Destination, Dynamic, Event, Limits, NodeId, Outgoing, Pacer, Pdu, Peer, Station, Timers, Verdict,
    Way,
};
use aldis::time::{Duration, Instant, Now, Wall};
use aldis::units::Bps;
use libfuzzer_sys::fuzz_target;

const RATE: Bps = Bps(64_000);
const START: i64 = 1_800_000_000;

fn address(i: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, i)
}

fuzz_target!(|data: &[u8]| {
    tally::add(data.len());
    let peers = [1, 2].map(|i| (address(i).into(), Peer { addresses: vec![address(i)], ..Peer::default() }));
    let limits = Limits { receiving: 8, held_bytes: 4000, message_bytes: 2000, ..Limits::default() };
    let config = Config {
        node: address(3).into(),
        checksum: Checksum::Fletcher,
        max_pdu: 200,
        timers: Timers::of(RATE, Duration::from_millis(270), 200, 2),
        limits,
        peers: peers.into(),
        dynamic: Some(Dynamic {
            control: Ipv4Addr::new(239, 1, 1, 1),
            pool: (0..4).map(|i| Ipv4Addr::new(239, 2, 3, i)).collect(),
            agreed: vec![Ipv4Addr::new(239, 9, 9, 9)],
            wait_for_reject: Duration::from_secs(1),
            announce_delay: Duration::from_secs(1),
            announce_count: 3,
            most_tries: 3,
            most_joined: 4,
            idle: Duration::from_secs(60),
        }),
        seed: 7,
    };
    let mut station = Station::new(config, Pacer::new(RATE, 2000));
    let mut now = Now { at: Instant::from_millis(1000), wall: Wall::from_seconds(START), set: true };
    for (number, way) in [(1, Way::Agreed(vec![Ipv4Addr::new(239, 9, 9, 9)])), (2, Way::Asked(Vec::new()))] {
        let destinations = [1, 2].map(|i| Destination { node: address(i).into(), sequence: 1 }).to_vec();
        let (payload, expiry) = (vec![5; 1000].into(), START as u32 + 100_000);
        let out = Outgoing { number, priority: 6, expiry, way, destinations, payload, resumed: false };
        station.submit(now, out).expect("taken");
    }
    let mut rest = data;
    while let [how, length, behind @ ..] = rest {
        let (piece, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        // The fuzzer writes a PDU without length, checksum and the first three octets of its source.
        if piece.len() >= 10 {
            let mut pdu = vec![0, 0, piece[0], piece[1], piece[2], piece[3], 0, 0, 10, 0, 0, how % 4];
            pdu.extend(&piece[4..]);
            let whole = pdu.len() as u16;
            pdu[..2].copy_from_slice(&whole.to_be_bytes());
            let sum: u64 = pdu.chunks(2).map(|p| u64::from(p[0]) << 8 | u64::from(*p.get(1).unwrap_or(&0))).sum();
            let sum = (sum >> 16) + (sum & 0xffff);
            let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
            pdu[6..8].copy_from_slice(&sum.to_be_bytes());
            station.handle_datagram(now, address(how % 4), &pdu);
        }
        if how & 0x10 != 0 {
            station.set_silent(now, NodeId::from(address(1)), how & 0x20 != 0);
        }
        let step = Duration::from_millis(1 << (how >> 4));
        now = Now { at: now.at + step, wall: Wall(now.wall.0 + step.as_millis() as i64), set: how & 8 == 0 };
        let mut sent = 0;
        // What was due at once with something else is due when that is done: a few turns, and not more.
        for _ in 0..4 {
            station.handle_timeout(now);
            while let Some(event) = station.poll_event() {
                if let Event::Whole { message, payload, .. } = event {
                    assert!(payload.len() <= 4000);
                    let verdict = if how & 4 == 0 { Verdict::Accepted } else { Verdict::Later };
                    station.settle(now, message, verdict);
                }
            }
            while let Some(transmit) = station.poll_transmit(now) {
                assert!(transmit.bytes.len() <= 200 && Pdu::parse(&transmit.bytes).is_ok());
                sent += transmit.bytes.len();
            }
        }
        // The bucket, and what one more datagram may overdraw.
        assert!(sent <= 2000 + 200, "{sent} at once");
        assert!(station.groups().len() <= 4);
        assert!(station.held_bytes() <= 4000 && station.known_messages() <= 8);
        // Whatever is due was done.
        assert!(station.next_timeout().is_none_or(|at| at > now.at), "busy");
    }
});
