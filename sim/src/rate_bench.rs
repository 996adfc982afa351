//! `aldis-sim bench rate`: what choosing the rate brings on a sky, against every rate kept for the whole time on the same sky.
//!
//! Two whole nodes of a scenario, the first with more mail for the second than the path can carry, for as long as the scenario lasts.
//! Goodput is what was confirmed, and of what was begun the share that the receiver has reported, in bytes of frozen payloads. Rate
//! changes are counted between transmissions of traffic. Called by the command and by tests with shorter times.

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};
use serde::Serialize;

use crate::bench;
use crate::channel::{Loss, Mean};
use crate::ether::StationId;
use crate::lab::{Lab, Setup};
use crate::node::{Coding, Economy};
use crate::run;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::waveform::Waveform;

const SENDER: StationId = StationId(0);
const RECEIVER: StationId = StationId(1);
/// Bytes of a message, and how many wait at a time: more than the longest transmission at the highest rate.
const MESSAGE: u64 = 32 * 1024;
const WAITING: usize = 6;
/// How often the sender gets new mail.
const REFILL: Duration = Duration::from_secs(10);
/// Least goodput, of that of the best rate in hindsight.
pub const RATIO_BAR: f64 = 0.85;
/// Most changes of rate for each transmission, where the path does not change for good.
pub const CHANGES_BAR: f64 = 0.1;

/// The scenarios measured when none is named.
pub const SCENARIOS: [&str; 5] = [
    include_str!("../scenarios/rate-mid-latitude-quiet.toml"),
    include_str!("../scenarios/rate-mid-latitude-moderate.toml"),
    include_str!("../scenarios/rate-mid-latitude-disturbed.toml"),
    include_str!("../scenarios/rate-high-latitude-disturbed.toml"),
    include_str!("../scenarios/rate-falling-and-rising.toml"),
];

/// One run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Trial {
    /// Bytes of payload a second that arrived.
    pub goodput: f64,
    /// Transmissions of traffic, and changes of rate between them.
    pub sent: u32,
    /// See there.
    pub changes: u32,
    /// What traffic went with, looked at every ten seconds: minute of each change, and the waveform.
    pub course: Vec<(u64, String)>,
}

impl Trial {
    /// One line.
    pub fn text(&self) -> String {
        let course: Vec<String> =
            self.course.iter().map(|(minute, waveform)| format!("{minute} min {waveform}")).collect();
        let (goodput, changes, sent) = (self.goodput, self.changes, self.sent);
        format!("{goodput:.1} B/s, {changes} changes in {sent}: {}", course.join(", "))
    }
}

/// What a fixed waveform brought.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FixedLine {
    /// Bit/s.
    pub rate: u32,
    /// Letter.
    pub interleaver: &'static str,
    /// Mean bytes a second.
    pub goodput: f64,
}

/// What a scenario came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RateReport {
    /// Name of the scenario.
    pub scenario: String,
    /// First and last seed.
    pub seeds: [u64; 2],
    /// Virtual seconds of each run.
    pub duration_s: f64,
    /// Mean bytes of payload a second, the rate chosen.
    pub goodput: f64,
    /// Every fixed waveform, best first.
    pub fixed: Vec<FixedLine>,
    /// Mean over the seeds of the goodput over that of the waveform that was best under that seed.
    pub ratio: f64,
    /// Standard error of that mean.
    pub ratio_error: f64,
    /// The least of those.
    pub least_ratio: f64,
    /// Transmissions of traffic in a run, on average.
    pub transmissions: f64,
    /// Changes of rate for each of them.
    pub changes: f64,
    /// Standard error of that.
    pub changes_error: f64,
    /// Whether the mean of the path stays: then changes have a bar too.
    pub stationary: bool,
    /// Whether the bars were kept.
    pub passed: bool,
}

/// Measures a scenario over `seeds`, each run `duration` long.
pub fn measure(scenario: &Scenario, seeds: &[u64], duration: Duration, jobs: usize) -> RateReport {
    let adaptive = bench::measure(seeds, jobs, |seed| trial(scenario, seed, duration, None), |_| {});
    let mut best = vec![0.0f64; seeds.len()];
    let mut fixed: Vec<FixedLine> = Vec::new();
    for w in Waveform::palette() {
        let trials = bench::measure(seeds, jobs, |seed| trial(scenario, seed, duration, Some(*w)), |_| {});
        for (best, trial) in best.iter_mut().zip(&trials) {
            *best = best.max(trial.goodput);
        }
        let goodput = mean(trials.iter().map(|t| t.goodput));
        fixed.push(FixedLine { rate: w.rate, interleaver: w.interleaver, goodput });
    }
    fixed.sort_by(|a, b| b.goodput.total_cmp(&a.goodput));
    let ratios: Vec<f64> = adaptive.iter().zip(&best).map(|(t, best)| t.goodput / best.max(1e-9)).collect();
    let sent = mean(adaptive.iter().map(|t| f64::from(t.sent)));
    let each: Vec<f64> = adaptive.iter().map(|t| f64::from(t.changes) / f64::from(t.sent.max(1))).collect();
    let changes = mean(adaptive.iter().map(|t| f64::from(t.changes))) / sent.max(1.0);
    let ratio = mean(ratios.iter().copied());
    let stationary = is_stationary(scenario);
    RateReport {
        scenario: scenario.name.clone(),
        seeds: [seeds.first().copied().unwrap_or(0), seeds.last().copied().unwrap_or(0)],
        duration_s: duration.as_secs_f64(),
        goodput: mean(adaptive.iter().map(|t| t.goodput)),
        fixed,
        ratio,
        ratio_error: error(&ratios),
        least_ratio: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        transmissions: sent,
        changes,
        changes_error: error(&each),
        stationary,
        passed: ratio >= RATIO_BAR && (!stationary || changes <= CHANGES_BAR),
    }
}

/// One run of a scenario, with one waveform or with the choice of it.
pub fn trial(scenario: &Scenario, seed: u64, duration: Duration, fixed: Option<Waveform>) -> Trial {
    let mut setup: Setup = run::setup(scenario, seed);
    // Its mail does not shrink in any case, and nothing here hangs on how a store is mended.
    setup.economy = Economy { coding: Coding::Plain, quick_repair: false };
    if let Some(waveform) = fixed {
        for modem in &mut setup.ether.stations {
            (modem.waveform, modem.selects) = (waveform, false);
        }
    }
    let mut lab = Lab::new(&setup, Trace::hashed());
    lab.provoked = vec!["does not answer", "do not authenticate"];
    let end = Instant::ZERO + duration;
    let mut course: Vec<(u64, String)> = Vec::new();
    while lab.at() < end {
        let present = lab.node(SENDER).links().first().map(|l| l.waveform.to_string());
        if let Some(present) = present.filter(|p| course.last().is_none_or(|(_, before)| before != p)) {
            course.push((lab.at().since(Instant::ZERO).as_secs() / 60, present));
        }
        let open = lab.ledger().iter().filter(|e| e.fate.confirmed.is_none()).count();
        for _ in open..WAITING {
            lab.submit(SENDER, RECEIVER, MESSAGE, Precedence::Routine);
        }
        lab.run_until(end.min(lab.at() + REFILL));
    }
    let arrived = |e: &crate::lab::Entry| match e.fate.confirmed {
        Some(_) => e.fate.payload_bytes as f64,
        None => e.fate.payload_bytes as f64 * e.fate.share,
    };
    let bytes: f64 = lab.ledger().iter().map(arrived).sum();
    let link = lab.node(SENDER).links().into_iter().next();
    let (sent, changes) = link.map_or((0, 0), |l| l.changes);
    Trial { goodput: bytes / duration.as_secs_f64(), sent, changes, course }
}

fn is_stationary(scenario: &Scenario) -> bool {
    scenario.links.values().all(|link| match &link.loss {
        Loss::Sky { sky, .. } => matches!(sky.mean, Mean::Fixed(_)),
        _ => true,
    })
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
    sum / f64::max(n, 1.0)
}

/// Standard error of a mean.
fn error(values: &[f64]) -> f64 {
    let (n, middle) = (values.len() as f64, mean(values.iter().copied()));
    let squares: f64 = values.iter().map(|v| (v - middle) * (v - middle)).sum();
    (squares / (n - 1.0).max(1.0) / n.max(1.0)).sqrt()
}

impl RateReport {
    /// A few lines.
    pub fn text(&self) -> String {
        let fixed: Vec<String> =
            self.fixed.iter().take(4).map(|f| format!("{}/{} {:.1}", f.rate, f.interleaver, f.goodput)).collect();
        format!(
            "{}: {:.1} B/s; best fixed: {}; ratio {:.3} +- {:.3} (least {:.3}); {:.1} transmissions, {:.3} +- {:.3} changes each; seeds {} to {}, {} s: {}",
            self.scenario,
            self.goodput,
            fixed.join(", "),
            self.ratio,
            self.ratio_error,
            self.least_ratio,
            self.transmissions,
            self.changes,
            self.changes_error,
            self.seeds[0],
            self.seeds[1],
            self.duration_s,
            if self.passed { "ok" } else { "BELOW A BAR" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_path_and_does_not_jump_about() {
        // Ten minutes; the command measures the hour, against every fixed rate.
        // On the fourth path the first four minutes go into finding that only the slowest rate brings anything.
        let least = [0.7, 0.7, 0.7, 0.45, 0.7];
        let fixed = [[2400, 600], [2400, 300], [1200, 150], [75, 600], [1200, 75]];
        for ((text, rates), least) in SCENARIOS.iter().zip(fixed).zip(least) {
            let scenario = Scenario::parse(text).expect("shipped");
            let ten = Duration::from_secs(600);
            let chosen = trial(&scenario, 1, ten, None);
            for rate in rates {
                let long = Waveform::selected(rate, "L").expect("known");
                let fixed = trial(&scenario, 1, ten, Some(*long));
                assert!(chosen.goodput > least * fixed.goodput, "{}: {chosen:?}, {rate}: {fixed:?}", scenario.name);
            }
            assert!(chosen.changes <= 2 + chosen.sent / 10, "{}: {chosen:?}", scenario.name);
        }
    }
}
