//! Both ends loaded at the same instant (link-rules A6): one message of the same encoded size at each; both whole within 1.10 of what one
//! way after the other takes at the limit of an ideal code.
//!
//! Loads of the same kind go first, so that both ends know their losses, as before every measurement (E1). The limits know of no
//! turnaround between the two ways: where one alone breaks the bar, the bar is 1.10 of limits and turnaround together.

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};
use serde::Serialize;

use super::{LONGEST, SHIP, SHORE, Way, rounded, whole_after};
use crate::bench;
use crate::lab::Lab;

/// What two ways may take over both limits together.
const BAR: f64 = 1.10;
/// Loads that go before the one that counts, and the encoded size of theirs at most.
const WARM_UP: usize = 5;
const WARM_UP_BYTES: u64 = 10 * 1024;
/// Longest a load may take.
const PATIENCE: Duration = Duration::from_secs(4 * 86_400);

/// What the loads came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TwoWayReport {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Interleaver.
    pub interleaver: &'static str,
    /// Seconds.
    pub turnaround_s: f64,
    /// Share of frames lost, both ways.
    pub fer: f64,
    /// Encoded bytes of each message.
    pub payload_bytes: u64,
    /// Seconds from the first preamble symbol until both are committed, mean.
    pub whole_s: f64,
    /// The worst.
    pub most_s: f64,
    /// Both limits together, seconds.
    pub ir_s: f64,
    /// Mean over that.
    pub ratio: f64,
    /// Whether anybody could be within 1.10 of the limits, the turnaround between the ways counted.
    pub reachable: bool,
    /// Seconds the mean may take.
    pub bar_s: f64,
    /// Loads in which both arrived, of how many.
    pub delivered: [usize; 2],
    /// First and last seed.
    pub seeds: [u64; 2],
    /// Whether everything arrived within the bar.
    pub passed: bool,
    /// Hash over the hashes of all seeds.
    pub trace_hash: String,
}

/// Every rate with its long interleaver, turnarounds of 2, 4 and 8 s, at these losses.
pub fn ways(losses: &[f64]) -> Vec<Way> {
    let mut ways = Vec::new();
    for rate in [75, 300, 1200, 2400, 9600] {
        for turnaround in [2.0, 4.0, 8.0] {
            ways.extend(losses.iter().map(|&loss| Way::new(rate, "L", turnaround, loss)));
        }
    }
    ways
}

/// Loads both ends with `payload` encoded bytes each, for each seed.
pub fn measure(way: &Way, payload: u64, seeds: &[u64], jobs: usize) -> TwoWayReport {
    let (size, warm) = (way.message_size(payload), way.message_size(payload.min(WARM_UP_BYTES)));
    let loads = bench::measure(seeds, jobs, |seed| load(way, size, warm, seed), |_| {});
    let times: Vec<f64> = loads.iter().filter_map(|(whole, _)| Some((*whole)?.as_secs_f64())).collect();
    let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
    let limit = way.limit();
    let ir_s = 2.0 * limit.incremental_redundancy(limit.frames(payload));
    let reachable = ir_s + way.turnaround_s <= BAR * ir_s;
    let bar_s = if reachable { BAR * ir_s } else { BAR * (ir_s + way.turnaround_s) };
    let hashes: String = loads.iter().map(|(_, hash)| hash.as_str()).collect();
    TwoWayReport {
        rate: way.waveform.rate,
        interleaver: way.waveform.interleaver,
        turnaround_s: way.turnaround_s,
        fer: way.loss,
        payload_bytes: payload,
        whole_s: rounded(mean, 2),
        most_s: rounded(times.iter().copied().fold(0.0, f64::max), 2),
        ir_s: rounded(ir_s, 2),
        ratio: rounded(mean / ir_s, 4),
        reachable,
        bar_s: rounded(bar_s, 2),
        delivered: [times.len(), loads.len()],
        seeds: [seeds.first().copied().unwrap_or(0), seeds.last().copied().unwrap_or(0)],
        passed: times.len() == loads.len() && mean <= bar_s,
        trace_hash: crate::trace::short_digest(hashes.as_bytes()),
    }
}

fn load(way: &Way, size: u64, warm: u64, seed: u64) -> (Option<Duration>, String) {
    let mut lab = way.lab(seed, Some(LONGEST));
    for _ in 0..WARM_UP {
        both(&mut lab, warm);
    }
    let begun = both(&mut lab, size);
    (whole_after(&lab, begun), lab.finish_trace())
}

/// Loads both ends, and waits until they know that it is there, and two minutes more; gives when it began.
fn both(lab: &mut Lab, size: u64) -> Instant {
    let begun = lab.at();
    lab.submit(SHIP, SHORE, size, Precedence::Routine);
    lab.submit(SHORE, SHIP, size, Precedence::Routine);
    lab.run_while(begun + PATIENCE, |lab| lab.ledger().iter().all(|e| e.fate.confirmed.is_some()));
    lab.run_for(Duration::from_secs(120));
    begun
}

impl TwoWayReport {
    /// One line.
    pub fn text(&self) -> String {
        format!(
            "{:>4} bit/s {:<2} {:>2} s loss {:<4}: both whole after {:>9.2} s, at most {:>9.2} s, limit {:>9.2} s, ratio {:.3}, \
             bar{} {:>9.2} s, {}/{} {} {}",
            self.rate,
            self.interleaver,
            self.turnaround_s,
            self.fer,
            self.whole_s,
            self.most_s,
            self.ir_s,
            self.ratio,
            if self.reachable { "" } else { " with the turnaround" },
            self.bar_s,
            self.delivered[0],
            self.delivered[1],
            if self.passed { "ok" } else { "OVER THE BAR" },
            self.trace_hash
        )
    }
}
