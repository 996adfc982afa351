//! `aldis-sim check`: does the engine do what is known to be true of radios and of chance?
//!
//! Each case drives an [`Ether`] and compares with a figure that was worked out elsewhere; the names are those of the validation
//! list in the design notes (V1 to V20). Cases of that list that need a fading channel, IP bearers or the whole switch are
//! not here, and are not counted.

use std::fmt;

use aldis::time::{Duration, Instant};
use serde::Serialize;

use crate::channel::{Damage, Loss};
use crate::ether::{Ether, EtherConfig, LinkConfig, StationId};
use crate::modem::{ModemConfig, ModemOutput};
use crate::rng::Stream;
use crate::trace::Trace;
use crate::waveform::{TABLE, Waveform};

/// One thing measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// Which case.
    pub case: &'static str,
    /// What was measured.
    pub what: String,
    /// What it should be.
    pub expected: f64,
    /// What it was.
    pub measured: f64,
    /// How far it may be off.
    pub tolerance: f64,
    /// Whether it is close enough.
    pub passed: bool,
}

impl Finding {
    fn new(case: &'static str, what: impl Into<String>, expected: f64, measured: f64, tolerance: f64) -> Self {
        let passed = (measured - expected).abs() <= tolerance;
        Self { case, what: what.into(), expected, measured, tolerance, passed }
    }

    /// A claim that is true or false: counts violations, of which there may be none.
    fn none(case: &'static str, what: impl Into<String>, violations: u64) -> Self {
        Self::new(case, what, 0.0, violations as f64, 0.0)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "pass" } else { "FAIL" };
        let Self { case, what, expected, measured, tolerance, .. } = self;
        let [expected, measured, tolerance] = [expected, measured, tolerance].map(|x| (x * 1e5).round() / 1e5);
        write!(f, "{case:<4} {verdict}  {what}: expected {expected}, measured {measured}, tolerance {tolerance}")
    }
}

/// What `check --json` prints.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Form of this document.
    pub schema: &'static str,
    /// Every finding, in order.
    pub findings: Vec<Finding>,
    /// How many passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
}

/// Runs every case; `quick` with fewer draws where a case is about chance, and wider tolerances to match.
pub fn run(quick: bool) -> Report {
    let findings: Vec<Finding> = [
        first_delivery(),
        cell_loss(quick),
        bit_errors(quick),
        bursts(quick),
        half_duplex(quick),
        determinism(),
        floor_and_balance(quick),
    ]
    .concat();
    let passed = findings.iter().filter(|f| f.passed).count();
    Report { schema: "aldis-sim-check/1", passed, failed: findings.len() - passed, findings }
}

const A: StationId = StationId(0);
const B: StationId = StationId(1);
const C: StationId = StationId(2);

/// V1: one frame of 1012 bytes arrives one preamble and whole blocks after the key.
fn first_delivery() -> Vec<Finding> {
    [(2400, 9.6), (75, 115.2)]
        .map(|(rate, seconds)| {
            let net = EtherConfig::net(1, 2, &ModemConfig::new(waveform(rate, "L")), LinkConfig::default());
            let heard = Transmission::send(&mut Ether::new(net), Instant::ZERO, A, &[0xA5; 1012]);
            let whole = heard.at(B).filter(|_| heard.bytes(B) == [0xA5; 1012]);
            let measured = whole.map_or(f64::INFINITY, |at| at.since(heard.keyed).as_secs_f64());
            Finding::new(
                "V1",
                format!("{rate} bit/s L, 1012 bytes, seconds from key to delivery"),
                seconds,
                measured,
                1e-3,
            )
        })
        .to_vec()
}

/// V2: independent losses come at the stated rate.
fn cell_loss(quick: bool) -> Vec<Finding> {
    let (p, n) = (0.05, if quick { 20_000 } else { 100_000 });
    let lost = frames_lost(2, Loss::Cells { bytes: 24, p, damage: Damage::Garbage }, 24, n);
    let share = lost.iter().filter(|&&l| l).count() as f64 / n as f64;
    vec![Finding::new("V2", format!("share of {n} frames lost at p = 0.05"), p, share, three_sigma(p, n))]
}

/// V3: independent bit errors hit frames as the power law says.
fn bit_errors(quick: bool) -> Vec<Finding> {
    let n = if quick { 4_000 } else { 20_000 };
    [(1e-5, 0.0207), (1e-4, 0.1891), (1e-3, 0.8772)]
        .map(|(ber, expected)| {
            let lost = frames_lost(3, Loss::Bits { ber }, 262, n);
            let share = lost.iter().filter(|&&l| l).count() as f64 / n as f64;
            let what = format!("share of {n} frames of 262 bytes hit at BER {ber:e}");
            Finding::new("V3", what, expected, share, three_sigma(expected, n))
        })
        .to_vec()
}

/// V4: bursts have the length, spacing and memory of the two-state chain.
fn bursts(quick: bool) -> Vec<Finding> {
    let n = if quick { 25_000 } else { 100_000 };
    let wider = (100_000.0 / n as f64).sqrt();
    let loss = Loss::Gilbert { bytes: 16, bad: 0.013_889, good: 0.125, damage: Damage::Garbage };
    let lost = frames_lost(4, loss, 16, n);
    let share = lost.iter().filter(|&&l| l).count() as f64 / n as f64;
    let runs = |state: bool| {
        let runs: Vec<usize> = lost.chunk_by(|a, b| a == b).filter(|r| r[0] == state).map(<[bool]>::len).collect();
        runs.iter().sum::<usize>() as f64 / runs.len().max(1) as f64
    };
    let both = lost.windows(2).filter(|w| w[0] && w[1]).count() as f64 / (n - 1) as f64;
    let correlation = (both - share * share) / (share * (1.0 - share));
    vec![
        Finding::new("V4", format!("share of {n} frames lost in bursts"), 0.1, share, 0.0104 * wider),
        Finding::new("V4", "mean burst in frames", 8.0, runs(true), 0.65 * wider),
        Finding::new("V4", "mean gap in frames", 72.0, runs(false), 6.0 * wider),
        Finding::new("V4", "correlation of neighbours", 0.861, correlation, 0.02 * wider),
    ]
}

/// V9: nothing is received while keyed, and carriers that meet leave nothing whole unless 10 dB apart.
fn half_duplex(quick: bool) -> Vec<Finding> {
    let rounds = if quick { 200 } else { 2_000 };
    let (mut while_keyed, mut overlaps, mut good, mut strong_lost, mut weak_good) = (0, 0u64, 0, 0, 0);
    for round in 0..rounds {
        let mut draw = Stream::new(9, "half duplex", round);
        let strong = round % 2 == 1;
        let mut net = EtherConfig::net(round, 3, &ModemConfig::new(waveform(2400, "S")), LinkConfig::default());
        // A and B do not hear each other; C hears both.
        net.links.retain(|ends, _| *ends != (A, B) && *ends != (B, A));
        let level = LinkConfig { level_db: 10.0, ..LinkConfig::default() };
        if strong {
            net.links.insert((B, C), level);
        }
        let mut ether = Ether::new(net);
        // B starts while A is on the air; C answers at some time and is deaf then.
        let starts = [(A, 0), (B, draw.below(2_500)), (C, draw.below(12_000))];
        let heard = Transmission::race(&mut ether, &starts, 500);
        while_keyed += heard.received_while_keyed(&ether);
        let (from_a, from_b) = (ether.link_stats(A, C), ether.link_stats(B, C));
        let (first, second) = (heard.span(&ether, A), heard.span(&ether, B));
        let third = heard.span(&ether, C);
        let meet = |x: &(Instant, Instant), y: &(Instant, Instant)| x.0 < y.1 && y.0 < x.1;
        // Rounds in which C's own transmission decided are counted above only.
        if let (Some(a), Some(b)) = (first, second)
            && meet(&a, &b)
            && third.is_none_or(|c| !meet(&c, &a) && !meet(&c, &b))
        {
            overlaps += 1;
            // Blocks of A that end before B begins are whole; the overlapped ones must not be.
            let clear = whole_blocks_before(a.0, b.0);
            if strong {
                strong_lost += 500 - from_b.good;
                weak_good += from_a.good.saturating_sub(clear);
            } else {
                good += from_b.good + from_a.good.saturating_sub(clear + blocks_after(a, b.1));
            }
        }
    }
    vec![
        Finding::none("V9", format!("bytes received while keyed, {rounds} rounds"), while_keyed),
        Finding::none("V9", format!("overlapped bytes received whole, {overlaps} overlaps"), good),
        Finding::none("V9", "bytes of a 10 dB stronger carrier lost", strong_lost),
        Finding::none("V9", "bytes received whole under a 10 dB stronger carrier", weak_good),
        Finding::new("V9", "share of rounds with an overlap to judge", 0.5, overlaps as f64 / rounds as f64, 0.49),
    ]
}

/// V16: one seed is one run, and a silent newcomer shifts nothing.
fn determinism() -> Vec<Finding> {
    let (first, again, other) = (busy_net(1, 3), busy_net(1, 3), busy_net(2, 3));
    let joined = busy_net(1, 4);
    vec![
        Finding::none(
            "V16",
            format!("differences between two runs of one seed ({})", &first.0[..16]),
            u64::from(first != again),
        ),
        Finding::none("V16", "agreements between two seeds", u64::from(first.0 == other.0)),
        Finding::none("V16", "links changed by a silent newcomer", u64::from(first.1 != joined.1)),
    ]
}

/// V18: no delivery beats the floor, and no byte is unaccounted for.
fn floor_and_balance(quick: bool) -> Vec<Finding> {
    let cap = Duration::from_millis(127_500);
    let (mut early, mut unbalanced, mut tried) = (0, 0, 0);
    for (i, &w) in TABLE.iter().enumerate() {
        for round in 0..if quick { 3 } else { 20 } {
            let mut draw = Stream::keyed(18, "floor", &[i as u64, round]);
            let most = w.bytes((127.5 / w.block().as_secs_f64()) as u64 - 1).min(16_000);
            let bytes = vec![0x3C; 1 + draw.below(most) as usize];
            let mut modem = ModemConfig::new(w);
            modem.buffer_bytes = 12_000;
            let mut ether = Ether::new(EtherConfig::net(round, 2, &modem, LinkConfig::default()));
            let abort = draw.chance(0.25);
            let heard = if abort {
                Transmission::cut(&mut ether, A, &bytes, Duration::from_millis(draw.below(60_000)))
            } else {
                Transmission::send(&mut ether, Instant::ZERO, A, &bytes)
            };
            tried += 1;
            unbalanced += u64::from(ether.balance().is_err());
            let got = heard.bytes(B).len() as u64;
            if let Some(at) = heard.at(B) {
                // One nanosecond for the rounding of the floor itself.
                early += u64::from(at.since(heard.keyed) + Duration::from_nanos(1) < w.floor(got, 0.0, cap));
            }
            let s = ether.stats(A);
            unbalanced += u64::from(!abort && (got != s.fed - s.overrun || got != s.carried));
        }
    }
    vec![
        Finding::none("V18", format!("deliveries below the floor, {tried} transmissions"), early),
        Finding::none("V18", format!("transmissions whose bytes do not add up, {tried} transmissions"), unbalanced),
    ]
}

fn three_sigma(p: f64, n: usize) -> f64 {
    3.0 * (p * (1.0 - p) / n as f64).sqrt()
}

fn waveform(rate: u32, interleaver: &str) -> Waveform {
    *Waveform::find(rate, interleaver).expect("the table has it")
}

/// Bytes of a 2400 S transmission that began at `start` in blocks that had ended by `until`.
fn whole_blocks_before(start: Instant, until: Instant) -> u64 {
    let w = waveform(2400, "S");
    let blocks = until.since(start + w.preamble()).as_nanos() / w.block().as_nanos();
    w.bytes(blocks as u64).min(500)
}

/// Bytes of a 2400 S transmission of 500 bytes in blocks that began at or after `from`, when its preamble was not hit.
fn blocks_after(span: (Instant, Instant), from: Instant) -> u64 {
    let w = waveform(2400, "S");
    let begun = from.since(span.0 + w.preamble()).as_nanos().div_ceil(w.block().as_nanos());
    500 - w.bytes(begun as u64).min(500)
}

/// Sends `n` frames of `length` bytes in long transmissions through `loss`; which of them did not come out as they went in.
fn frames_lost(seed: u64, loss: Loss, length: usize, n: usize) -> Vec<bool> {
    let mut modem = ModemConfig::new(waveform(9600, "VL"));
    modem.buffer_bytes = usize::MAX;
    let mut ether = Ether::new(EtherConfig::net(seed, 2, &modem, LinkConfig { loss, ..LinkConfig::default() }));
    let heard = Transmission::send(&mut ether, Instant::ZERO, A, &vec![0; length * n]);
    let frames = heard.bytes(B);
    assert_eq!(frames.len(), length * n, "garbage keeps its length");
    frames.chunks(length).map(|f| f.iter().any(|&b| b != 0)).collect()
}

/// Three stations that talk at seeded times over lossy links, and as many silent ones as asked for beyond them: the hash of
/// everything said, and what the three received.
fn busy_net(seed: u64, stations: u16) -> (String, Vec<Vec<u8>>) {
    let loss = Loss::Cells { bytes: 50, p: 0.1, damage: Damage::Garbage };
    let link = LinkConfig { loss, preamble_miss: 0.05, ..LinkConfig::default() };
    let mut ether = Ether::new(EtherConfig::net(seed, stations, &ModemConfig::new(waveform(1200, "S")), link));
    let starts: Vec<(StationId, u64)> = (0..60)
        .map(|i| (StationId(i % 3), u64::from(i) * 12_000 + Stream::new(seed, "talk", i.into()).below(9_000)))
        .collect();
    let heard = Transmission::race(&mut ether, &starts, 400);
    let mut trace = Trace::hashed();
    for (at, id, output) in &heard.said {
        trace.modem(*at, *id, output);
    }
    (trace.hash(), [A, B, C].map(|id| heard.bytes(id)).to_vec())
}

/// What came of keying an ether.
struct Transmission {
    keyed: Instant,
    said: Vec<(Instant, StationId, ModemOutput)>,
}

impl Transmission {
    /// One station keys, feeds everything as soon as it may, and lets go; runs until all is quiet.
    fn send(ether: &mut Ether, at: Instant, from: StationId, bytes: &[u8]) -> Self {
        let mut t = Self { keyed: at, said: Vec::new() };
        ether.key(at, from);
        let mut now = at;
        while !ether.radiates(from) {
            now = t.step(ether);
        }
        t.keyed = now;
        ether.feed(now, from, bytes);
        ether.unkey(now, from);
        t.finish(ether);
        t
    }

    /// The same with an abort some time after the key.
    fn cut(ether: &mut Ether, from: StationId, bytes: &[u8], after: Duration) -> Self {
        let mut t = Self { keyed: Instant::ZERO, said: Vec::new() };
        ether.key(Instant::ZERO, from);
        while !ether.radiates(from) {
            t.keyed = t.step(ether);
        }
        ether.feed(t.keyed, from, bytes);
        ether.unkey(t.keyed, from);
        let end = t.keyed + after;
        while ether.next_timeout().is_some_and(|at| at <= end) {
            t.step(ether);
        }
        ether.abort(end, from);
        t.drain(ether, end);
        t.finish(ether);
        t
    }

    /// Every start keys its station at that many milliseconds and sends `length` bytes of its number plus one.
    fn race(ether: &mut Ether, starts: &[(StationId, u64)], length: usize) -> Self {
        let mut t = Self { keyed: Instant::ZERO, said: Vec::new() };
        let mut starts: Vec<(Instant, StationId)> =
            starts.iter().map(|&(id, ms)| (Instant::from_millis(ms), id)).collect();
        starts.sort_unstable();
        for (at, id) in starts {
            while ether.next_timeout().is_some_and(|due| due <= at) {
                t.step(ether);
            }
            ether.key(at, id);
            ether.feed(at, id, &vec![id.0 as u8 + 1; length]);
            ether.unkey(at, id);
            t.drain(ether, at);
        }
        t.finish(ether);
        t
    }

    fn step(&mut self, ether: &mut Ether) -> Instant {
        let at = ether.next_timeout().expect("something is due");
        ether.handle_timeout(at);
        self.drain(ether, at);
        at
    }

    fn drain(&mut self, ether: &mut Ether, at: Instant) {
        while let Some((id, output)) = ether.poll() {
            self.said.push((at, id, output));
        }
    }

    fn finish(&mut self, ether: &mut Ether) {
        while ether.next_timeout().is_some() {
            self.step(ether);
        }
    }

    fn received(&self, id: StationId) -> impl Iterator<Item = (Instant, &[u8])> {
        self.said.iter().filter(move |s| s.1 == id).filter_map(|(at, _, output)| match output {
            ModemOutput::Received(bytes) => Some((*at, bytes.as_slice())),
            _ => None,
        })
    }

    fn bytes(&self, id: StationId) -> Vec<u8> {
        self.received(id).flat_map(|(_, b)| b.iter().copied()).collect()
    }

    /// When the last byte came.
    fn at(&self, id: StationId) -> Option<Instant> {
        self.received(id).last().map(|(at, _)| at)
    }

    /// When a station was first on the air.
    fn span(&self, ether: &Ether, id: StationId) -> Option<(Instant, Instant)> {
        let mut edges = ether.antenna_log().iter().filter(|e| e.station == id);
        Some((edges.next()?.at, edges.next()?.at))
    }

    fn received_while_keyed(&self, ether: &Ether) -> u64 {
        let count = |id| {
            let span = self.span(ether, id);
            let inside = |at: Instant| span.is_some_and(|(from, to)| from < at && at < to);
            self.received(id).filter(|(at, _)| inside(*at)).map(|(_, b)| b.len() as u64).sum::<u64>()
        };
        ether.ids().map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_passes_quickly() {
        let report = run(true);
        let failed: Vec<String> = report.findings.iter().filter(|f| !f.passed).map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(report.passed, report.findings.len());
    }

    #[test]
    fn a_finding_outside_its_tolerance_fails() {
        assert!(Finding::new("V0", "x", 1.0, 1.1, 0.2).passed);
        assert!(!Finding::new("V0", "x", 1.0, 1.3, 0.2).passed);
        assert!(!Finding::new("V0", "x", 1.0, f64::INFINITY, 0.2).passed);
        assert!(!Finding::none("V0", "x", 1).passed);
    }
}
