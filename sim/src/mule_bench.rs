//! `aldis-sim bench mule`: one message by MULE over P_MUL, across the HF modems that Aldis and UUCP are measured on.
//!
//! Two P_MUL stations (`aldis::bearer::pmul`) stand at two modems: 2400 bit/s, short interleaver, turnaround 2 s, cells of 262 bytes
//! lost each on its own, both ways, as in `benches/uucp.sh`. Their datagrams go over the serial line in SLIP (RFC 1055), each with the 28
//! bytes of its IPv4 and UDP headers; one of which a byte is damaged is lost. A station keys when it has a datagram and the frequency is
//! free, sends what is ready, and lets go. The waits are those that [`Timers`] derives from the rate and the delay of this line. Two whole
//! Aldis nodes that have never met carry the same message over the same modems beside it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use aldis::bearer::pmul::{
    Checksum, Config, Destination, EntrySource, Event, Limits, NodeId, Outgoing, Pacer, Peer, Ranges, Station, Timers,
    Verdict, Way,
};
use aldis::codec::mule::{self, Letter, Tagging};
use aldis::mail::{BodyKind, Mailbox, Precedence, Recipient};
use aldis::smtp::server::Transaction;
use aldis::switch::SessionId;
use aldis::time::{Duration, Instant, Now, Wall};
use aldis::units::Bps;
use serde::Serialize;

use crate::bench;
use crate::channel::{Damage, Loss};
use crate::client;
use crate::ether::{AntennaEdge, Ether, EtherConfig, LinkConfig, StationId};
use crate::lab::{Lab, Setup};
use crate::modem::{ModemConfig, ModemOutput};
use crate::rng::Stream;
use crate::trace::Trace;
use crate::waveform::Waveform;

const RATE: u32 = 2400;
const CELL: u32 = 262;
/// IPv4 and UDP.
const HEADERS: usize = 28;
const EXPIRY: u32 = 1_900_000_000;
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// SLIP.
const END: u8 = 0xc0;
const ESCAPE: u8 = 0xdb;
const ESCAPED: [(u8, u8); 2] = [(END, 0xdc), (ESCAPE, 0xdd)];

/// Who carries the message.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub enum Carrier {
    /// MULE over P_MUL, in PDUs of at most so many bytes.
    Mule(usize),
    /// Two Aldis nodes.
    Aldis,
}

/// A case.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Case {
    /// Bytes of the message; nothing makes them fewer.
    pub bytes: usize,
    /// Share of cells lost, both ways.
    pub loss: f64,
    /// By whom.
    pub carrier: Carrier,
}

/// One trial.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Trial {
    /// Its seed.
    pub seed: u64,
    /// Seconds from the first preamble symbol until the far station has the message; `None`: it never had.
    pub delivery_s: Option<f64>,
    /// Seconds until the sender knew.
    pub confirmed_s: Option<f64>,
    /// Seconds of carrier until then, both stations together.
    pub air_s: f64,
    /// Transmissions, both together.
    pub key_downs: usize,
}

/// What a case came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The case.
    pub case: Case,
    /// Trials in which it arrived.
    pub delivered: usize,
    /// Mean seconds of those until it arrived.
    pub mean_s: f64,
    /// Shortest and longest.
    pub range_s: (f64, f64),
    /// Mean seconds of carrier.
    pub air_s: f64,
    /// Mean transmissions.
    pub key_downs: f64,
    /// The trials.
    pub trials: Vec<Trial>,
}

impl Report {
    /// A line of the table.
    pub fn text(&self) -> String {
        let who = match self.case.carrier {
            Carrier::Mule(pdu) => format!("MULE, PDUs of {pdu}"),
            Carrier::Aldis => "Aldis".to_owned(),
        };
        format!(
            "{} bytes, {:.0} % lost, {who}: {:.1} s ({:.1} to {:.1}), {:.1} s on the air in {:.1} transmissions; {} of {} delivered",
            self.case.bytes,
            self.case.loss * 100.0,
            self.mean_s,
            self.range_s.0,
            self.range_s.1,
            self.air_s,
            self.key_downs,
            self.delivered,
            self.trials.len()
        )
    }
}

impl Case {
    /// Runs every seed.
    pub fn measure(self, seeds: &[u64], jobs: usize) -> Report {
        let trials = bench::measure(seeds, jobs, |seed| self.trial(seed), |_| {});
        let times: Vec<f64> = trials.iter().filter_map(|t| t.delivery_s).collect();
        let mean = |sum: f64, n: usize| sum / n.max(1) as f64;
        Report {
            case: self,
            delivered: times.len(),
            mean_s: mean(times.iter().sum(), times.len()),
            range_s: (times.iter().copied().fold(f64::INFINITY, f64::min), times.iter().copied().fold(0.0, f64::max)),
            air_s: mean(trials.iter().map(|t| t.air_s).sum(), trials.len()),
            key_downs: mean(trials.iter().map(|t| t.key_downs as f64).sum(), trials.len()),
            trials,
        }
    }

    fn trial(self, seed: u64) -> Trial {
        match self.carrier {
            Carrier::Mule(pdu) => self.by_mule(pdu, seed),
            Carrier::Aldis => self.by_aldis(seed),
        }
    }

    fn ether(self, seed: u64) -> EtherConfig {
        let loss = Loss::Cells { bytes: CELL, p: self.loss, damage: Damage::Garbage };
        EtherConfig::net(seed, 2, &ModemConfig::new(waveform()), LinkConfig { loss, ..LinkConfig::default() })
    }

    fn by_aldis(self, seed: u64) -> Trial {
        let mut lab = Lab::new(&Setup::new(seed, &["ship", "shore"], self.ether(seed)), Trace::hashed());
        let transaction = handed_in(content(self.bytes, seed));
        lab.world_mut().with_host(StationId(0), |node, now| node.submit(now, SessionId(1_000_000), transaction));
        let end = lab.at() + PATIENCE;
        lab.run_while(end, |lab| !lab.node(StationId(1)).delivered().is_empty());
        let delivered = (!lab.node(StationId(1)).delivered().is_empty()).then(|| lab.at());
        lab.run_while(end, |lab| lab.node(StationId(0)).log().events.iter().any(|(_, e)| is_known(e)));
        let confirmed = delivered.map(|_| lab.at());
        Trial::of(seed, lab.world().ether().antenna_log(), delivered, confirmed)
    }

    fn by_mule(self, pdu: usize, seed: u64) -> Trial {
        let mut line = Line::new(self.ether(seed), pdu, seed);
        let payload = payload(self.bytes, seed);
        let out = Outgoing {
            number: 1,
            priority: 6,
            expiry: EXPIRY,
            way: Way::Agreed(vec![address(1)]),
            destinations: vec![Destination { node: node(1), sequence: 1 }],
            payload: payload.clone(),
            resumed: false,
        };
        line.ends[0].station.submit(line.civil(), out).expect("there is room for one message");
        let (mut delivered, mut confirmed) = (None, None);
        while confirmed.is_none() && line.step() {
            while let Some(event) = line.ends[1].station.poll_event() {
                if let Event::Whole { message, payload: heard, .. } = event {
                    assert_eq!(heard, payload, "P_MUL delivers what was sent");
                    delivered = Some(line.now);
                    let now = line.civil();
                    line.ends[1].station.settle(now, message, Verdict::Accepted);
                }
            }
            while let Some(event) = line.ends[0].station.poll_event() {
                confirmed = confirmed.or(matches!(event, Event::Confirmed { .. }).then_some(line.now));
            }
        }
        Trial::of(seed, line.ether.antenna_log(), delivered, confirmed)
    }
}

impl Trial {
    fn of(seed: u64, log: &[AntennaEdge], delivered: Option<Instant>, confirmed: Option<Instant>) -> Self {
        let first = bench::first_symbol(log, Instant::ZERO).unwrap_or(Instant::ZERO);
        let since = |at: Instant| at.since(first).as_secs_f64();
        Self {
            seed,
            delivery_s: delivered.map(since),
            confirmed_s: confirmed.map(since),
            air_s: bench::carrier_after(log, Instant::ZERO).as_secs_f64(),
            key_downs: log.iter().filter(|edge| edge.on).count(),
        }
    }
}

fn is_known(event: &aldis::ops::Event) -> bool {
    matches!(event, aldis::ops::Event::MessageDelivered { .. })
}

fn waveform() -> Waveform {
    *Waveform::find(RATE, "S").expect("a row of the table")
}

fn node(id: u16) -> NodeId {
    NodeId::from(address(id))
}

fn address(id: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 1, 1 + id as u8)
}

/// A message of so many bytes that nothing makes shorter.
fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut content = b"From: <ops@ship.example>\r\nSubject: exercise\r\nMIME-Version: 1.0\r\n\r\n".to_vec();
    let mut chance = Stream::keyed(seed, "body of the MULE bench", &[]);
    while content.len() + 2 < bytes {
        let byte = chance.below(256) as u8;
        content.push(if matches!(byte, b'\r' | b'\n' | 0) { 1 } else { byte });
        if content.len().is_multiple_of(900) {
            content.extend(b"\r\n");
        }
    }
    content.extend(b"\r\n");
    content
}

fn handed_in(body: Vec<u8>) -> Transaction {
    let recipients = vec![Recipient::plain(Mailbox::new("desk@shore.example"))];
    client::transaction("ops@ship.example", recipients, Some(Precedence::Routine), BodyKind::BinaryMime, body)
}

fn payload(bytes: usize, seed: u64) -> Arc<[u8]> {
    let content = content(bytes, seed);
    let letter =
        Letter::of(&handed_in(Vec::new()).envelope, content.len() as u64, Wall::NEVER).expect("a plain envelope");
    mule::encode(&letter, &content, Tagging::Explicit).expect("a plain letter").into()
}

/// Two stations at two modems.
struct Line {
    ether: Ether,
    ends: [End; 2],
    now: Instant,
}

/// A station, its modem's host and the serial line between.
struct End {
    id: StationId,
    station: Station,
    key: Key,
    carrier: bool,
    slip: Slip,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Up,
    Asked,
    Down,
    /// Let go; what was fed still leaves.
    Ending,
}

impl Line {
    fn new(ether: EtherConfig, pdu: usize, seed: u64) -> Self {
        let modem = ModemConfig::new(waveform());
        // A datagram's way: the turnaround, the preamble and the block it fills.
        let delay = modem.turnaround + waveform().airtime(pdu as u64);
        let end = |id: u16| {
            let other = 1 - id;
            let peer = Peer {
                addresses: vec![address(other)],
                ranges: Ranges::default(),
                entry_source: EntrySource::Originator,
                group: None,
            };
            let config = Config {
                node: node(id),
                checksum: Checksum::default(),
                max_pdu: pdu,
                timers: Timers::of(Bps(RATE), delay, pdu, 1),
                limits: Limits::default(),
                peers: BTreeMap::from([(node(other), peer)]),
                dynamic: None,
                seed,
            };
            // A little ahead of the modem, so that no block is padded for want of bytes.
            let pacer = Pacer::new(Bps(RATE * 21 / 20), pdu as u64 * 2);
            End {
                id: StationId(id),
                station: Station::new(config, pacer),
                key: Key::Up,
                carrier: false,
                slip: Slip::default(),
            }
        };
        let ether = Ether::new(ether);
        let mut line = Self { ether, ends: [end(0), end(1)], now: Instant::ZERO };
        for id in 0..2 {
            line.ether.open_port(Instant::ZERO, StationId(id), false);
        }
        line
    }

    fn civil(&self) -> Now {
        Now { at: self.now, wall: Wall::from_seconds(1_800_000_000 + (self.now.0 / 1_000_000_000) as i64), set: true }
    }

    /// Goes on to the next thing that happens; false once nothing will, or patience is over.
    fn step(&mut self) -> bool {
        let now = self.civil();
        for end in &mut self.ends {
            end.station.handle_timeout(now);
        }
        self.key_and_feed();
        let due = self.ends.iter().filter_map(|end| end.due()).chain(self.ether.next_timeout()).min();
        let Some(due) = due.filter(|at| *at < Instant::ZERO + PATIENCE) else { return false };
        self.now = self.now.max(due);
        self.ether.handle_timeout(self.now);
        while let Some((id, output)) = self.ether.poll() {
            let now = self.civil();
            let end = &mut self.ends[usize::from(id.0)];
            match output {
                ModemOutput::Keyed { .. } => end.key = Key::Down,
                ModemOutput::Unkeyed => end.key = Key::Up,
                ModemOutput::Carrier(on) => {
                    end.carrier = on;
                    if !on {
                        end.slip = Slip::default();
                    }
                }
                ModemOutput::Received(bytes) => {
                    for datagram in end.slip.push(&bytes) {
                        end.station.handle_datagram(now, address(1 - id.0), &datagram);
                    }
                }
                _ => {}
            }
        }
        true
    }

    fn key_and_feed(&mut self) {
        let now = self.civil();
        for end in &mut self.ends {
            match end.key {
                Key::Up if !end.carrier && end.station.has_transmit(now) => {
                    end.key = Key::Asked;
                    self.ether.key(now.at, end.id);
                }
                Key::Down => {
                    while let Some(transmit) = end.station.poll_transmit(now) {
                        self.ether.feed(now.at, end.id, &framed(&transmit.bytes));
                    }
                    if !end.station.has_transmit(now) {
                        end.key = Key::Ending;
                        self.ether.unkey(now.at, end.id);
                    }
                }
                Key::Up | Key::Asked | Key::Ending => {}
            }
        }
    }
}

impl End {
    /// When it must be looked at again.
    fn due(&self) -> Option<Instant> {
        match self.key {
            // What is due waits for the key, and for the frequency.
            Key::Asked | Key::Ending => None,
            Key::Up if self.carrier => None,
            Key::Up | Key::Down => self.station.next_timeout(),
        }
    }
}

/// A datagram as it goes over the line.
fn framed(pdu: &[u8]) -> Vec<u8> {
    let mut out = vec![END];
    let sum = u32::from_be_bytes([pdu[4], pdu[5], pdu[6], pdu[7]]);
    // The headers' own contents do not matter, only their room and that damage to them is noticed.
    let headers = [0x45; HEADERS - 4].into_iter().chain(sum.to_be_bytes());
    for byte in headers.chain(pdu.iter().copied()) {
        match ESCAPED.iter().find(|(plain, _)| *plain == byte) {
            Some((_, escaped)) => out.extend([ESCAPE, *escaped]),
            None => out.push(byte),
        }
    }
    out.push(END);
    out
}

/// Datagrams out of a stream.
#[derive(Default)]
struct Slip {
    datagram: Vec<u8>,
    escaped: bool,
}

impl Slip {
    fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for &byte in bytes {
            if byte == END {
                let datagram = std::mem::take(&mut self.datagram);
                self.escaped = false;
                if let Some((headers, pdu)) = datagram.split_at_checked(HEADERS)
                    && pdu.len() >= 8
                    && headers[..HEADERS - 4] == [0x45; HEADERS - 4]
                    && headers[HEADERS - 4..] == pdu[4..8]
                {
                    whole.push(pdu.to_vec());
                }
            } else if byte == ESCAPE {
                self.escaped = true;
            } else {
                let plain = ESCAPED.iter().find(|(_, escaped)| self.escaped && *escaped == byte);
                self.datagram.push(plain.map_or(byte, |(plain, _)| *plain));
                self.escaped = false;
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_cross_the_line_whole_or_not_at_all() {
        let pdu: Vec<u8> = (0..=255).collect();
        let mut slip = Slip::default();
        let stream = [framed(&pdu), framed(&pdu[..60])].concat();
        let heard: Vec<Vec<u8>> = stream.chunks(7).flat_map(|piece| slip.push(piece)).collect();
        assert_eq!(heard, [pdu.clone(), pdu[..60].to_vec()]);
        let mut damaged = framed(&pdu);
        damaged[10] ^= 1;
        assert_eq!(Slip::default().push(&damaged), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_message_takes_what_its_bytes_take_and_comes_through_losses() {
        let clean = Case { bytes: 10_240, loss: 0.0, carrier: Carrier::Mule(496) }.measure(&[1, 2], 1);
        assert_eq!(clean.delivered, 2, "{}", clean.text());
        // What 10 KiB and the headers of their datagrams take, and not one round more.
        assert!((36.0..45.0).contains(&clean.mean_s), "{}", clean.text());
        let lossy = Case { bytes: 10_240, loss: 0.2, carrier: Carrier::Mule(232) }.measure(&[1, 2, 3], 1);
        assert_eq!(lossy.delivered, 3, "{}", lossy.text());
        assert!(lossy.mean_s > clean.mean_s);
    }
}
