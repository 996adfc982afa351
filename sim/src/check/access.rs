//! Sharing one frequency: first-slot success of slotted access, and the throughput of open-loop Poisson traffic (V10, V11).
//!
//! The ether decides what collides; the agents here only choose when to key.

use std::collections::BTreeSet;

use aldis::time::{Duration, Instant};

use super::transmission::waveform;
use super::{Finding, three_sigma};
use crate::ether::{Ether, EtherConfig, LinkConfig, StationId};
use crate::modem::{ModemConfig, ModemOutput};
use crate::rng::Stream;

/// The station that only listens.
const LISTENER: StationId = StationId(0);

/// What every transmission carries: one block of 2400 bit/s S, tail included.
const BYTES: usize = 100;

/// The cases of this file.
pub(super) fn cases(quick: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rounds = if quick { 1_000 } else { 40_000 };
    for (stations, slots, expected) in [(2, 8, 0.875), (3, 8, 0.8203), (5, 8, 0.7135), (10, 16, 0.7167)] {
        findings.push(first_slot(stations, slots, expected, rounds));
    }
    let spans = if quick { 4_000 } else { 100_000 };
    findings.push(poisson(0.5, false, 0.184, spans, quick));
    findings.push(poisson(1.0, true, 0.368, spans, quick));
    findings
}

/// V10: every station has something to send, draws a slot, and keys in it unless it has heard a carrier in this round. The round is a success when the
/// first slot anybody drew was drawn by one alone.
fn first_slot(stations: u16, slots: u64, expected: f64, rounds: u64) -> Finding {
    let modem = ModemConfig { turnaround: Duration::from_millis(50), ..ModemConfig::new(waveform(2400, "S")) };
    // Long enough for a carrier of the slot before to be detected.
    let slot = modem.key_delay + modem.detection_delay + Duration::from_millis(10);
    let mut ether = Ether::new(EtherConfig::net(10, stations + 1, &modem, LinkConfig::default()));
    let mut ear = Ear::default();
    let (mut begins, mut successes) = (Instant::ZERO, 0u64);
    for round in 0..rounds {
        let mut draws: Vec<(u64, StationId)> = (1..=stations)
            .map(|i| {
                (Stream::keyed(10, "slot", &[u64::from(stations), u64::from(i), round]).below(slots), StationId(i))
            })
            .collect();
        draws.sort_unstable();
        let heard = ear.whole;
        ear.detected.clear();
        for (n, id) in draws {
            let at = begins + slot * u32::try_from(n).unwrap_or(u32::MAX);
            ear.listen_until(&mut ether, at);
            if !ear.detected.contains(&id) {
                transmit(&mut ether, at, id);
            }
        }
        ear.listen_until(&mut ether, Instant(u64::MAX));
        // Nobody keys after the first slot that is used, so whole frames are one or none.
        successes += u64::from(ear.whole > heard);
        begins = ear.at + Duration::from_secs(1);
    }
    let share = successes as f64 / rounds as f64;
    let tolerance = if rounds < 40_000 { three_sigma(expected, usize::try_from(rounds).unwrap_or(1)) } else { 0.01 };
    let what = format!("first-slot success of {stations} stations in {slots} slots");
    Finding::new("V10", what, expected, share, tolerance).by("sum over slots j of n/J ((J-j)/J)^(n-1)", rounds)
}

/// V11: stations that hear only the listener's silence transmit at Poisson times, or at the start of the slot after them; the share
/// of time that whole frames fill is `S = G e^(-2G)`, slotted `S = G e^(-G)`.
fn poisson(load: f64, slotted: bool, expected: f64, spans: u64, quick: bool) -> Finding {
    // As many transmitters as will never be on the air at once.
    const POOL: u16 = 24;
    let still =
        ModemConfig { key_delay: Duration::ZERO, turnaround: Duration::ZERO, ..ModemConfig::new(waveform(2400, "S")) };
    let mut config = EtherConfig::net(11, POOL + 1, &still, LinkConfig::default());
    config.links.retain(|&(from, to), _| from != LISTENER && to == LISTENER);
    let mut ether = Ether::new(config);
    let mut ear = Ear::default();
    // A nanosecond keeps a frame from touching its neighbour in the next slot.
    let frame = still.waveform.airtime(BYTES as u64) + Duration::from_nanos(1);
    let (mut arrival, mut offered) = (0.0, 0u64);
    let end = Instant::ZERO + frame * u32::try_from(spans).unwrap_or(u32::MAX);
    loop {
        let draw = Stream::keyed(11, "arrival", &[u64::from(slotted), offered]).unit();
        arrival -= libm::log(1.0 - draw) / load;
        let spans = if slotted { arrival.ceil() } else { arrival };
        let at = Instant((spans * frame.as_nanos() as f64) as u64);
        if at >= end {
            break;
        }
        ear.listen_until(&mut ether, at);
        transmit(&mut ether, at, StationId(1 + (offered % u64::from(POOL)) as u16));
        offered += 1;
    }
    ear.listen_until(&mut ether, Instant(u64::MAX));
    let share = ear.whole as f64 / spans as f64;
    let (kind, formula) = if slotted { ("slotted", "G e^-G") } else { ("unslotted", "G e^-2G") };
    // Successes thin themselves out, so that their number scatters less than this.
    let tolerance = if quick { 3.0 * (expected / spans as f64).sqrt() } else { 0.01 };
    let what = format!("throughput of {kind} Poisson traffic at load {load}");
    Finding::new("V11", what, expected, share, tolerance).by(formula, offered)
}

fn transmit(ether: &mut Ether, at: Instant, id: StationId) {
    ether.key(at, id);
    ether.feed(at, id, &[0xA5; BYTES]);
    ether.unkey(at, id);
}

/// What the listener hears, and who has seen a carrier.
#[derive(Default)]
struct Ear {
    at: Instant,
    whole: u64,
    detected: BTreeSet<StationId>,
}

impl Ear {
    fn listen_until(&mut self, ether: &mut Ether, end: Instant) {
        while let Some(at) = ether.next_timeout().filter(|&at| at <= end) {
            ether.handle_timeout(at);
            self.at = at;
            while let Some((id, output)) = ether.poll() {
                match output {
                    ModemOutput::Carrier(true) => drop(self.detected.insert(id)),
                    ModemOutput::Received(bytes) if id == LISTENER => {
                        self.whole += u64::from(bytes.iter().all(|&b| b == 0xA5));
                    }
                    _ => {}
                }
            }
        }
    }
}
