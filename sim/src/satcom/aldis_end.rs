//! A station of Aldis mode, with a store that takes its time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use aldis::bearer::multicast::wire::Datagram;
use aldis::bearer::multicast::{Config, Destination, Outgoing, PeerConfig, Station};
use aldis::bearer::{Event, Verdict, fec};
use aldis::mail::{LinkKey, PeerName, Precedence, Protection, TransferId};
use aldis::time::Instant;
use aldis::units::Bps;

use super::medium::End;
use super::{COMMIT, Cell, DELAY, HEADERS, MTU};

const EPOCH: u32 = 1000;

pub(super) struct AldisEnd {
    station: Station,
    own: u8,
    /// Tickets of commits, and when each is through.
    commits: VecDeque<(Instant, u64)>,
    accepted: Option<(Instant, Arc<[u8]>)>,
    confirmed: usize,
}

/// All stations of a cell.
pub(super) fn ends(cell: Cell) -> Vec<AldisEnd> {
    (0..=cell.receivers).map(|own| AldisEnd::new(cell, own)).collect()
}

fn name(station: u8) -> PeerName {
    format!("node{station}").as_str().into()
}

impl AldisEnd {
    fn new(cell: Cell, own: u8) -> Self {
        let peer = |station: u8| PeerConfig {
            name: name(station),
            station,
            protection: Protection::Mac,
            keys: vec![LinkKey { id: 1, secret: [9; 32] }],
            assumed_loss: 0.2,
        };
        let config = Config {
            name: name(own),
            station: own,
            epoch: EPOCH + u32::from(own),
            fresh: true,
            highest: 0,
            reads: 2,
            group: "fleet".into(),
            peers: (0..=cell.receivers).filter(|s| *s != own).map(peer).collect(),
            blind: BTreeMap::new(),
            rate: Bps(cell.rate),
            delay: DELAY,
            max_datagram: MTU - HEADERS,
            max_partials: 64,
            max_partial_bytes: 8 << 20,
            max_finished: 256,
        };
        let station = Station::new(Instant::ZERO, config, Vec::new());
        Self { station, own, commits: VecDeque::new(), accepted: None, confirmed: 0 }
    }

    /// Does what its events ask for; whether there were any.
    fn events(&mut self, now: Instant) -> bool {
        let mut some = false;
        while let Some(event) = self.station.poll_event() {
            some = true;
            match event {
                Event::Persist { ticket, .. } => self.commits.push_back((now + COMMIT, ticket)),
                Event::Job { ticket, job } => self.station.job_done(now, ticket, fec::run(job)),
                Event::Whole { ticket, payload, .. } => {
                    self.accepted.get_or_insert((now, payload));
                    self.station.settled(now, ticket, Verdict::Accepted);
                }
                Event::Confirmed { .. } => self.confirmed += 1,
                Event::Alarm(text) => panic!("station {}: {text}", self.own),
                _ => {}
            }
        }
        some
    }
}

impl End for AldisEnd {
    fn send(&mut self, now: Instant, payload: &Arc<[u8]>, receivers: u8) {
        let id = |station: u8| TransferId { origin: name(0), epoch: EPOCH, counter: station.into() };
        let to = (1..=receivers).map(|station| (name(station), id(station))).collect();
        let cut = self.station.cut();
        let precedence = Precedence::Routine;
        self.station.send(now, Outgoing { lead: 1, precedence, payload: payload.clone(), cut, to });
    }

    fn hear(&mut self, now: Instant, _: u8, bytes: &[u8]) {
        self.station.handle_datagram(now, bytes);
    }

    fn act(&mut self, now: Instant) -> Vec<(Option<u8>, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            let mut busy = self.station.next_timeout().is_some_and(|at| at <= now);
            if busy {
                self.station.handle_timeout(now);
            }
            while let Some((_, ticket)) = self.commits.pop_front_if(|(at, _)| *at <= now) {
                self.station.stored(now, ticket, true);
            }
            busy |= self.events(now);
            while let Some(transmit) = self.station.poll_transmit(now, |_| true) {
                busy = true;
                let to = match transmit.to {
                    Destination::Group => None,
                    Destination::Station(station) => Some(station),
                };
                out.push((to, transmit.bytes));
            }
            if !busy {
                return out;
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let commit = self.commits.front().map(|(at, _)| *at);
        let own = [self.station.next_timeout(), self.station.next_send(|_| true)];
        own.into_iter().flatten().chain(commit).min()
    }

    fn accepted(&self) -> Option<(Instant, &[u8])> {
        self.accepted.as_ref().map(|(at, payload)| (*at, &payload[..]))
    }

    fn confirmed(&self) -> usize {
        self.confirmed
    }

    fn shard_bytes(&self, datagram: &[u8]) -> u64 {
        match Datagram::parse(datagram) {
            Some(Datagram::Symbols(symbols)) => symbols.symbols.iter().map(|symbol| symbol.len() as u64).sum(),
            Some(Datagram::Report(_) | Datagram::Word(_)) | None => 0,
        }
    }
}
