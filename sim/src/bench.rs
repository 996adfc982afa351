//! Measuring delivery: many seeds of one trial, and what they come to.
//!
//! A trial is a function from a seed to a [`Sample`]: it builds a world, offers a message and says when the first preamble symbol left
//! and when the receiver committed (link-rules E1). [`measure`] runs seeds side by side and gives them back in order, so
//! that the result does not depend on how many ran at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use aldis::time::{Duration, Instant};
use serde::Serialize;

use crate::ether::AntennaEdge;
use crate::waveform::Waveform;

/// One trial's outcome.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sample {
    /// Its seed: the trial can be run again alone.
    pub seed: u64,
    /// Seconds from the first preamble symbol to the receiver's commit; `None`: not delivered within the trial.
    pub delivery_s: Option<f64>,
    /// Seconds from the first preamble symbol until the sender knew; `None` likewise.
    pub confirmed_s: Option<f64>,
    /// Seconds of carrier, all stations together.
    pub air_s: f64,
    /// Bytes fed to modems, all stations together.
    pub bytes: u64,
    /// Hash of the trial's trace.
    pub trace_hash: String,
}

/// What many samples come to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// Trials.
    pub trials: usize,
    /// Trials in which the message arrived.
    pub delivered: usize,
    /// Mean delivery time of those.
    pub mean_s: f64,
    /// Standard error of the mean.
    pub standard_error_s: f64,
    /// Shortest.
    pub least_s: f64,
    /// Median.
    pub median_s: f64,
    /// 95th percentile.
    pub p95_s: f64,
    /// Longest.
    pub most_s: f64,
    /// Mean seconds of carrier.
    pub air_s: f64,
    /// Mean bytes fed.
    pub bytes: f64,
    /// Deliveries faster than anything could be; above zero the measurement is wrong.
    pub below_floor: usize,
}

impl Summary {
    /// Sums samples up; `floor` is the least time the delivery can take on a loss-free channel.
    pub fn of(samples: &[Sample], floor: Duration) -> Self {
        let mut times: Vec<f64> = samples.iter().filter_map(|s| s.delivery_s).collect();
        times.sort_by(f64::total_cmp);
        let n = times.len() as f64;
        let mean = times.iter().sum::<f64>() / n;
        let variance = times.iter().map(|t| (t - mean) * (t - mean)).sum::<f64>() / (n - 1.0).max(1.0);
        let at = |share: f64| times.get((share * (n - 1.0)).round() as usize).copied().unwrap_or(f64::NAN);
        let all = samples.len().max(1) as f64;
        Self {
            trials: samples.len(),
            delivered: times.len(),
            mean_s: mean,
            standard_error_s: (variance / n).sqrt(),
            least_s: at(0.0),
            median_s: at(0.5),
            p95_s: at(0.95),
            most_s: at(1.0),
            air_s: samples.iter().map(|s| s.air_s).sum::<f64>() / all,
            bytes: samples.iter().map(|s| s.bytes as f64).sum::<f64>() / all,
            below_floor: times.iter().filter(|&&t| t + 2e-9 < floor.as_secs_f64()).count(),
        }
    }
}

/// Runs `trial` for every seed, `jobs` at a time, and gives the samples back in the order of `seeds`. `progress` hears how many
/// are done.
///
/// # Panics
///
/// When a trial panics.
pub fn measure<T: Send>(
    seeds: &[u64],
    jobs: usize,
    trial: impl Fn(u64) -> T + Sync,
    mut progress: impl FnMut(usize),
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    let mut samples: Vec<Option<T>> = seeds.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, seeds.len().max(1)) {
            let (done, next, trial) = (done.clone(), &next, &trial);
            scope.spawn(move || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&seed) = seeds.get(i) else { return };
                    if done.send((i, trial(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for (finished, (i, sample)) in results.iter().enumerate() {
            samples[i] = Some(sample);
            progress(finished + 1);
        }
    });
    samples.into_iter().map(|s| s.expect("every seed was run")).collect()
}

/// When the first preamble symbol at or after `from` left any antenna: the start of the clock of link-rules E1.
pub fn first_symbol(log: &[AntennaEdge], from: Instant) -> Option<Instant> {
    log.iter().find(|edge| edge.on && edge.at >= from).map(|edge| edge.at)
}

/// Carrier of all antennas together from `from` on.
pub fn carrier_after(log: &[AntennaEdge], from: Instant) -> Duration {
    let mut on = std::collections::BTreeMap::new();
    let mut total = Duration::ZERO;
    for edge in log {
        match edge.on {
            true => drop(on.insert(edge.station, edge.at)),
            false => {
                if let Some(since) = on.remove(&edge.station) {
                    total += edge.at.since(since.max(from).min(edge.at));
                }
            }
        }
    }
    total
}

/// The least time `bytes` bytes can take on `waveform` when nothing is lost, transmissions of at most 127.5 s.
pub fn floor(waveform: &Waveform, bytes: u64) -> Duration {
    waveform.floor(bytes, 0.0, Duration::from_millis(127_500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_the_order_of_their_seeds_however_many_run_at_once() {
        let seeds: Vec<u64> = (10..60).collect();
        let one = measure(&seeds, 1, sample, |_| {});
        let mut heard = Vec::new();
        assert_eq!(measure(&seeds, 7, sample, |n| heard.push(n)), one);
        assert_eq!(heard, (1..=50).collect::<Vec<_>>());
        assert!(one.iter().map(|s| s.seed).eq(seeds));
    }

    #[test]
    fn a_summary_counts_what_was_not_delivered_and_what_came_too_soon() {
        let seeds: Vec<u64> = (1..=5).collect();
        let mut samples = measure(&seeds, 2, sample, |_| {});
        samples[4].delivery_s = None;
        let s = Summary::of(&samples, Duration::from_secs_f64(1.5));
        assert_eq!((s.trials, s.delivered, s.below_floor), (5, 4, 1));
        assert_eq!((s.mean_s, s.least_s, s.median_s, s.most_s), (2.5, 1.0, 3.0, 4.0));
        assert!((s.standard_error_s - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    }

    fn sample(seed: u64) -> Sample {
        let t = seed as f64;
        let trace_hash = format!("{seed:x}");
        Sample { seed, delivery_s: Some(t), confirmed_s: None, air_s: t, bytes: seed, trace_hash }
    }
}
