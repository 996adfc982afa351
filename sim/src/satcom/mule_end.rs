//! A station of P_MUL, whose waits follow from the rate and the number of receivers as in the node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use aldis::bearer::pmul::{
    Checksum, Config, Destination, Event, Limits, NodeId, Outgoing, Pacer, Pdu, Peer, Station, Timers, Verdict, Way,
};
use aldis::time::{Instant, Now, Wall};
use aldis::units::Bps;

use super::medium::End;
use super::{Cell, DELAY, HEADERS, MTU};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 10);
const START: i64 = 1_800_000_000;
const ROUTINE: u8 = 6;

pub(super) struct MuleEnd {
    station: Station,
    accepted: Option<(Instant, Arc<[u8]>)>,
    confirmed: usize,
}

/// All stations of a cell.
pub(super) fn ends(cell: Cell, seed: u64) -> Vec<MuleEnd> {
    let max_pdu = MTU - HEADERS;
    let peer = |j: u8| (node(j), Peer { addresses: vec![address(j)], ..Peer::default() });
    let end = |own: u8| {
        let config = Config {
            node: node(own),
            checksum: Checksum::Fletcher,
            max_pdu,
            timers: Timers::of(Bps(cell.rate), DELAY, max_pdu, cell.receivers.into()),
            limits: Limits::default(),
            peers: (0..=cell.receivers).filter(|j| *j != own).map(peer).collect::<BTreeMap<_, _>>(),
            dynamic: None,
            seed: seed ^ u64::from(own) << 32,
        };
        let station = Station::new(config, Pacer::new(Bps(cell.rate), MTU as u64));
        MuleEnd { station, accepted: None, confirmed: 0 }
    };
    (0..=cell.receivers).map(end).collect()
}

fn address(station: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 1, station + 1)
}

fn node(station: u8) -> NodeId {
    address(station).into()
}

fn civil(at: Instant) -> Now {
    Now { at, wall: Wall::from_seconds(START + (at.0 / 1_000_000_000) as i64), set: true }
}

impl End for MuleEnd {
    fn send(&mut self, now: Instant, payload: &Arc<[u8]>, receivers: u8) {
        let out = Outgoing {
            number: 1,
            priority: ROUTINE,
            expiry: (START + 5 * 86_400) as u32,
            way: Way::Agreed(vec![GROUP]),
            destinations: (1..=receivers).map(|j| Destination { node: node(j), sequence: 1 }).collect(),
            payload: payload.clone(),
            resumed: false,
        };
        self.station.submit(civil(now), out).expect("there is room for one message");
    }

    fn hear(&mut self, now: Instant, from: u8, bytes: &[u8]) {
        self.station.handle_datagram(civil(now), address(from), bytes);
    }

    fn act(&mut self, now: Instant) -> Vec<(Option<u8>, Vec<u8>)> {
        let civil = civil(now);
        self.station.handle_timeout(civil);
        let mut out = Vec::new();
        loop {
            let mut busy = false;
            while let Some(event) = self.station.poll_event() {
                busy = true;
                match event {
                    Event::Whole { message, payload, .. } => {
                        self.accepted.get_or_insert((now, payload));
                        self.station.settle(civil, message, Verdict::Accepted);
                    }
                    Event::Confirmed { .. } => self.confirmed += 1,
                    _ => {}
                }
            }
            while let Some(transmit) = self.station.poll_transmit(civil) {
                busy = true;
                out.push(((transmit.to != GROUP).then(|| transmit.to.octets()[3] - 1), transmit.bytes));
            }
            if !busy {
                return out;
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.station.next_timeout()
    }

    fn accepted(&self) -> Option<(Instant, &[u8])> {
        self.accepted.as_ref().map(|(at, payload)| (*at, &payload[..]))
    }

    fn confirmed(&self) -> usize {
        self.confirmed
    }

    fn shard_bytes(&self, datagram: &[u8]) -> u64 {
        match Pdu::parse(datagram) {
            Ok(Pdu::Data { piece, .. }) => piece.len() as u64,
            Ok(_) | Err(_) => 0,
        }
    }
}
