//! A whole station, its peers, its modem and its store, all of them hostile: frames with any fields under good seals, any bytes, any
//! order of events. No panic, nothing beyond its bounds, no key without a permit, time that goes on.
#![no_main]

mod tally;

use aldis::bearer::fec::{self, Geometry};
use aldis::bearer::serial::frame::{Address, Chunk, Frame, Item, Report, Standing};
use aldis::bearer::serial::keys::{Context, Seal};
use aldis::bearer::serial::{Config, PeerConfig, Station, Waveform};
use aldis::bearer::{Event, JobDone, ModemEvent, Transfer, Verdict, WaveformName};
use aldis::emcon::{Gate, Order, State};
use aldis::mail::{BearerId, Cut, Precedence, Protection, TransferId};
use aldis::time::{Duration, Instant, Now, Wall};
use aldis::units::Bps;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const EPOCH: u32 = 0x1000_0005;
const MAX_PARTIALS: usize = 8;
const MAX_PARTIAL_BYTES: usize = 64 << 10;
/// Own messages waiting at once, as the switch bounds them.
const OWN: u32 = 16;

struct Bench {
    now: Instant,
    gate: Gate,
    bearer: BearerId,
    station: Station,
    tickets: Vec<Answer>,
    sent: Vec<TransferId>,
    counter: u32,
}

enum Answer {
    Stored(u64),
    Job(u64, Box<aldis::bearer::Job>),
    Settled(u64),
}

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let mut bench = Bench::new();
    while !u.is_empty() {
        if bench.step(&mut u).is_err() {
            break;
        }
        bench.drain();
        bench.measure();
    }
    bench.let_time_pass();
});

impl Bench {
    fn new() -> Self {
        let bearer = BearerId::from("hf1");
        let mut gate = Gate::new();
        let order = Order {
            state: State::Open,
            since: Wall(0),
            from: None,
            until: None,
            base: None,
            reason: String::new(),
            author: String::new(),
        };
        gate.add(bearer.clone(), Some(order));
        let peer = |name: &str, station| PeerConfig {
            name: name.into(),
            station,
            protection: Protection::Off,
            keys: Vec::new(),
            assumed_loss: 0.1,
        };
        let config = Config {
            name: "shore".into(),
            station: 0,
            epoch: EPOCH,
            fresh: false,
            highest: 0,
            reads: 9,
            waveform: Waveform {
                rate: Bps(2400),
                preamble: Duration::from_millis(600),
                block: Duration::from_millis(600),
                tail_bits: 176,
                frame_bytes: 262,
                turnaround: Duration::from_secs(2),
            },
            net: String::new(),
            siblings: Default::default(),
            named: WaveformName { rate: Bps(2400), interleaver: "S".into() },
            choices: Vec::new(),
            peers: vec![peer("ship", 1), peer("boat", 2)],
            blind: Default::default(),
            max_transmission: Duration::from_secs(30),
            max_transmission_routine: Duration::from_millis(127_500),
            carrier_stuck_after: Duration::from_secs(300),
            max_partials: MAX_PARTIALS,
            max_partial_bytes: MAX_PARTIAL_BYTES,
            seed: 1,
        };
        let station = Station::new(Instant::ZERO, config, Vec::new());
        Self { now: Instant::ZERO, gate, bearer, station, tickets: Vec::new(), sent: Vec::new(), counter: 0 }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let now = self.now;
        match u.int_in_range(0..=15u8)? {
            0..=4 => {
                let bytes = frame(u)?.emit(&Seal::checksum());
                self.receive(bytes);
            }
            5 => {
                // A good frame with a few bytes changed, or cut.
                let mut bytes = frame(u)?.emit(&Seal::checksum());
                for _ in 0..u.int_in_range(1..=3u8)? {
                    let at = u.choose_index(bytes.len())?;
                    bytes[at] = u.arbitrary()?;
                }
                bytes.truncate(u.int_in_range(0..=bytes.len())?);
                self.receive(bytes);
            }
            6 => {
                let n = u.int_in_range(0..=600usize)?.min(u.len());
                self.receive(u.bytes(n)?.to_vec());
            }
            7 => self.station.handle_modem(now, ModemEvent::Carrier(u.arbitrary()?)),
            8 => self.station.handle_modem(now, ModemEvent::Keyed),
            9 => self.station.handle_modem(now, ModemEvent::Unkeyed),
            10 => {
                let event = if u.arbitrary()? { ModemEvent::Ready } else { ModemEvent::Fault("fuzz".into()) };
                self.station.handle_modem(now, event);
            }
            11 => self.now = now + Duration::from_millis(u64::from(u.arbitrary::<u16>()?)),
            12 => {
                if let Some(due) = self.station.next_timeout() {
                    self.now = now.max(due);
                }
            }
            13 if self.counter < OWN => self.send(u)?,
            13 => {
                if let Some(id) = u.choose_iter(self.sent.iter()).ok().cloned() {
                    self.station.cancel(now, &id);
                }
            }
            _ => self.answer(u)?,
        }
        self.station.handle_timeout(self.now);
        Ok(())
    }

    fn receive(&mut self, bytes: Vec<u8>) {
        tally::add(bytes.len());
        self.station.handle_modem(self.now, ModemEvent::Received(bytes));
    }

    fn send(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let bytes = [1, 31, 700, 4096, 17_000][u.choose_index(5)?];
        self.counter += 1;
        let id = TransferId { origin: "shore".into(), epoch: EPOCH, counter: self.counter };
        self.sent.push(id.clone());
        let precedence = *u.choose(&Precedence::DESCENDING)?;
        let to = if u.arbitrary()? { "ship" } else { "boat" }.into();
        let cut = *u.choose(&[Cut::Narrow, Cut::Wide])?;
        self.station.send(self.now, Transfer { id, to, precedence, payload: vec![0x5a; bytes].into(), cut, lead: None });
        Ok(())
    }

    fn answer(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.tickets.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(self.tickets.len())?;
        match self.tickets.swap_remove(at) {
            Answer::Stored(ticket) => self.station.stored(self.now, ticket, u.ratio(7, 8)?),
            Answer::Job(ticket, job) => {
                let done = if u.ratio(7, 8)? { fec::run(*job) } else { JobDone::Gathered(None) };
                self.station.job_done(self.now, ticket, done);
            }
            Answer::Settled(ticket) => {
                let verdict = [Verdict::Accepted, Verdict::Forged, Verdict::Refused(2), Verdict::Later];
                self.station.settled(self.now, ticket, *u.choose(&verdict)?);
            }
        }
        Ok(())
    }

    /// Takes out whatever the station has to say and do, as the switch would.
    fn drain(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "it never falls quiet");
            if let Some(event) = self.station.poll_event() {
                match event {
                    Event::Persist { ticket, .. } => self.tickets.push(Answer::Stored(ticket)),
                    Event::Job { ticket, job } => self.tickets.push(Answer::Job(ticket, Box::new(job))),
                    Event::Whole { ticket, .. } => self.tickets.push(Answer::Settled(ticket)),
                    _ => {}
                }
                continue;
            }
            if self.station.poll_action().is_some() {
                continue;
            }
            let Some(want) = self.station.want(self.now) else { return };
            let now = Now { at: self.now, wall: Wall(0), set: true };
            let permit = self.gate.permit(now, &self.bearer, want.purpose, want.airtime).expect("open");
            if self.station.poll_emission(self.now, permit).is_none() {
                return;
            }
        }
    }

    fn measure(&self) {
        let sizes = self.station.sizes();
        assert!(sizes.partials <= MAX_PARTIALS, "{sizes:?}");
        assert!(sizes.partial_bytes <= MAX_PARTIAL_BYTES, "{sizes:?}");
        assert!(sizes.outgoing + sizes.queued <= OWN as usize, "{sizes:?}");
        assert!(sizes.finished <= 512, "{sizes:?}");
    }

    /// Deadlines come one after the other and do not stand still.
    fn let_time_pass(&mut self) {
        for _ in 0..64 {
            let Some(due) = self.station.next_timeout() else { return };
            self.now = self.now.max(due);
            self.station.handle_timeout(self.now);
            self.drain();
            let mut spins = 0;
            while self.station.next_timeout().is_some_and(|t| t <= self.now) {
                self.station.handle_timeout(self.now);
                self.drain();
                spins += 1;
                assert!(spins < 100, "time stands still");
            }
        }
        self.measure();
    }
}

fn address(u: &mut Unstructured<'_>) -> Result<Address> {
    let from = if u.ratio(15, 16)? { u.int_in_range(1..=2u8)? } else { u.int_in_range(0..=15u8)? };
    let to = if u.ratio(15, 16)? { 0 } else { u.int_in_range(0..=15u8)? };
    Ok(Address { from, to, key: if u.ratio(31, 32)? { 0 } else { u.int_in_range(0..=3u8)? } })
}

fn frame(u: &mut Unstructured<'_>) -> Result<Frame> {
    let address = address(u)?;
    Ok(match u.int_in_range(0..=7u8)? {
        0..=3 => {
            let n = if u.ratio(3, 4)? { 1 } else { u.int_in_range(1..=16usize)? };
            Frame::Symbols { address, goes_on: u.arbitrary()?, more_waits: u.arbitrary()?, chunks: (0..n).map(|_| chunk(u)).collect::<Result<_>>()? }
        }
        4 | 5 => {
            let n = u.int_in_range(0..=3usize)?;
            let items = (0..n).map(|_| item(u)).collect::<Result<_>>()?;
            Frame::Control { address, epoch: epoch(u)?, counter: counter(u)?, items }
        }
        _ => {
            let context = Context { epoch: epoch(u)?, far: EPOCH, counter: counter(u)? };
            let n = u.int_in_range(0..=8usize)?;
            let standings = (0..n).map(|_| standing(u)).collect::<Result<_>>()?;
            Frame::Brief { address, context, waiting: u.arbitrary()?, heard: u.arbitrary()?, standings, quality: u.arbitrary()? }
        }
    })
}

fn epoch(u: &mut Unstructured<'_>) -> Result<u32> {
    Ok(if u.ratio(7, 8)? { 0x2000_0007 } else { u.arbitrary()? })
}

fn counter(u: &mut Unstructured<'_>) -> Result<u32> {
    Ok(if u.ratio(7, 8)? { u32::from(u.arbitrary::<u8>()?) } else { u.arbitrary()? })
}

fn short(u: &mut Unstructured<'_>) -> Result<u16> {
    Ok(if u.ratio(7, 8)? { (EPOCH as u16 & 0xF) << 12 | u16::from(u.int_in_range(0..=20u8)?) } else { u.arbitrary()? })
}

fn chunk(u: &mut Unstructured<'_>) -> Result<Chunk> {
    let geometry = loop {
        let coded = match u.int_in_range(0..=3u8)? {
            0 => u.int_in_range(1..=1000u32)?,
            1 => u.int_in_range(1..=16_384u32)?,
            2 => 16 * u.int_in_range(1025..=8192u32)?,
            _ => 64 * u.int_in_range(2049..=8192u32)?,
        };
        if let Some(geometry) = Geometry::of_coded(coded, *u.choose(&[Cut::Narrow, Cut::Wide])?) {
            break geometry;
        }
    };
    let n = u.int_in_range(1..=16u32)?.min(geometry.sequences());
    let first = u.int_in_range(0..=geometry.sequences() - n)?;
    let symbols = (first..first + n).map(|q| vec![q as u8; geometry.air_bytes(q)]).collect();
    Ok(Chunk { short: short(u)?, geometry, first: first as u16, symbols })
}

fn standing(u: &mut Unstructured<'_>) -> Result<(u16, Standing)> {
    let standing = match u.int_in_range(0..=4u8)? {
        0 => Standing::Accepted,
        1 => Standing::Refused(u.arbitrary()?),
        2 => Standing::Unknown,
        _ => {
            let n = u.int_in_range(1..=20usize)?;
            Standing::Lacks((0..n).map(|_| u.arbitrary()).collect::<Result<_>>()?)
        }
    };
    Ok((short(u)?, standing))
}

fn item(u: &mut Unstructured<'_>) -> Result<Item> {
    let shorts = |u: &mut Unstructured<'_>| -> Result<Vec<u16>> {
        let n = u.int_in_range(0..=20usize)?;
        (0..n).map(|_| short(u)).collect()
    };
    Ok(match u.int_in_range(0..=3u8)? {
        0 => Item::Hello { waiting: u.arbitrary()?, reads: u.arbitrary()?, counter: counter(u)? },
        1 => Item::Poll(shorts(u)?),
        2 => Item::Cancel(shorts(u)?),
        _ => {
            let n = u.int_in_range(0..=20usize)?;
            Item::Report(Report {
                epoch: if u.ratio(7, 8)? { EPOCH } else { u.arbitrary()? },
                transfer_seen: counter(u)?,
                control_seen: counter(u)?,
                heard: u.int_in_range(0..=0x7fff)?,
                more: u.arbitrary()?,
                standings: (0..n).map(|_| standing(u)).collect::<Result<_>>()?,
            })
        }
    })
}
