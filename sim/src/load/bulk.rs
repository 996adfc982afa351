//! Much mail one way: what share of the data rate reaches the far node's store, against the long-run limit of ideal selective
//! repeat (table 2 of the limits).
//!
//! Messages of mixed sizes, ROUTINE, handed in at once; encoded bytes are counted as they are frozen, envelopes included. The clock
//! runs from the first preamble symbol to the last commit, so the first turn between strangers and the last, short one count too.

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};
use serde::Serialize;

use super::{LONGEST, SHIP, SHORE, Way, rounded, whole_after};
use crate::bench;
use crate::rng::Stream;

/// What goodput may be below the limit.
const BAR: f64 = 0.95;
/// Sizes of the mail: evenly spread by their logarithm between a text and a document.
const LEAST_BYTES: f64 = 600.0;
const MOST_BYTES: f64 = 65_536.0;
/// Longest a load may take, over the limit.
const PATIENCE: f64 = 3.0;

/// What a load came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BulkReport {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Interleaver.
    pub interleaver: &'static str,
    /// Seconds.
    pub turnaround_s: f64,
    /// Share of frames lost, both ways.
    pub fer: f64,
    /// Messages, all seeds.
    pub messages: usize,
    /// Encoded bytes, mean.
    pub payload_bytes: f64,
    /// Seconds from the first preamble symbol to the last commit, mean.
    pub whole_s: f64,
    /// Encoded bits a second over the data rate, mean.
    pub goodput: f64,
    /// The limit of it.
    pub cap: f64,
    /// Goodput over the limit.
    pub ratio: f64,
    /// What the ratio may be at the least.
    pub bar: f64,
    /// First and last seed.
    pub seeds: [u64; 2],
    /// Whether everything arrived and the bar was kept.
    pub passed: bool,
    /// Hash over the hashes of all seeds.
    pub trace_hash: String,
}

/// Every rate of table 2 with both interleavers, turnaround 2 s, at these losses.
pub fn ways(losses: &[f64]) -> Vec<Way> {
    let mut ways = Vec::new();
    for rate in [75, 300, 1200, 2400, 9600] {
        for interleaver in ["L", "S"] {
            ways.extend(losses.iter().map(|&loss| Way::new(rate, interleaver, 2.0, loss)));
        }
    }
    ways
}

struct Load {
    messages: usize,
    payload_bytes: u64,
    whole: Option<Duration>,
    hash: String,
}

/// Sends about `bytes` encoded bytes for each seed.
pub fn measure(way: &Way, bytes: u64, seeds: &[u64], jobs: usize) -> BulkReport {
    let loads = bench::measure(seeds, jobs, |seed| load(way, bytes, seed), |_| {});
    let arrived: Vec<(f64, f64)> =
        loads.iter().filter_map(|l| Some((l.payload_bytes as f64, l.whole?.as_secs_f64()))).collect();
    let n = arrived.len().max(1) as f64;
    let rate = f64::from(way.waveform.rate);
    let goodput = arrived.iter().map(|(bytes, s)| bytes * 8.0 / s / rate).sum::<f64>() / n;
    let cap = way.limit().long_run();
    let hashes: String = loads.iter().map(|l| l.hash.as_str()).collect();
    BulkReport {
        rate: way.waveform.rate,
        interleaver: way.waveform.interleaver,
        turnaround_s: way.turnaround_s,
        fer: way.loss,
        messages: loads.iter().map(|l| l.messages).sum(),
        payload_bytes: rounded(arrived.iter().map(|(bytes, _)| bytes).sum::<f64>() / n, 0),
        whole_s: rounded(arrived.iter().map(|(_, s)| s).sum::<f64>() / n, 2),
        goodput: rounded(goodput, 4),
        cap: rounded(cap, 4),
        ratio: rounded(goodput / cap, 4),
        bar: BAR,
        seeds: [seeds.first().copied().unwrap_or(0), seeds.last().copied().unwrap_or(0)],
        passed: arrived.len() == loads.len() && goodput / cap >= BAR,
        trace_hash: crate::trace::short_digest(hashes.as_bytes()),
    }
}

fn load(way: &Way, bytes: u64, seed: u64) -> Load {
    let mut lab = way.lab(seed, Some(LONGEST));
    let mut chance = Stream::new(seed, "bulk", 0);
    let mut sum = 0;
    while sum < bytes {
        let spread = libm::log(MOST_BYTES / LEAST_BYTES);
        let size = (LEAST_BYTES * libm::exp(spread * chance.unit())) as u64;
        let size = size.min((bytes - sum).max(LEAST_BYTES as u64));
        lab.submit(SHIP, SHORE, size, Precedence::Routine);
        sum += size;
    }
    let limit = bytes as f64 * 8.0 / f64::from(way.waveform.rate) / way.limit().long_run();
    let end = Instant::ZERO + Duration::from_secs_f64(limit * PATIENCE + 3600.0);
    lab.run_while(end, |lab| lab.ledger().iter().all(|e| e.fate.confirmed.is_some()));
    Load {
        messages: lab.ledger().len(),
        payload_bytes: lab.ledger().iter().map(|e| e.fate.payload_bytes).sum(),
        whole: whole_after(&lab, Instant::ZERO),
        hash: lab.finish_trace(),
    }
}

impl BulkReport {
    /// One line.
    pub fn text(&self) -> String {
        format!(
            "{:>4} bit/s {:<2} loss {:<4}: {:>3} messages {:>9} B in {:>10.2} s, goodput {:.4} of the rate, limit {:.4}, ratio {:.4} of at \
             least {:.2} {} {}",
            self.rate,
            self.interleaver,
            self.fer,
            self.messages,
            self.payload_bytes,
            self.whole_s,
            self.goodput,
            self.cap,
            self.ratio,
            self.bar,
            if self.passed { "ok" } else { "UNDER THE BAR" },
            self.trace_hash
        )
    }
}
