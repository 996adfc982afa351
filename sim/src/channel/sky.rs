//! A physical path: mean level, slow wander, gates, interference and two Rayleigh taps, and what they leave of a block.
//!
//! [`Sky`] is the figures, [`Path`] one directed link under a seed. The ratio at an instant is
//! `mean + ITV + LTV - interference` in dB times the power of the taps; over a block it is `2^mean(log2(1 + snr)) - 1`.

use std::sync::Arc;

use aldis::time::{Duration, Instant};

use super::{Anchor, Tap, Wandering};
use crate::rng::Stream;

/// Seconds of a day.
pub(super) const DAY: u32 = 86_400;

/// The figures of a physical path. Ratios are in 3 kHz.
#[derive(Clone, PartialEq, Debug)]
pub struct Sky {
    /// Mean signal-to-noise ratio.
    pub mean: Mean,
    /// UTC second of the day at virtual time zero.
    pub clock: u32,
    /// UTC seconds of the day between which nothing gets through, from and until; a span may cross midnight.
    pub dead: Vec<(u32, u32)>,
    /// Intermediate-term variation: seconds.
    pub itv: Option<Wander>,
    /// Long-term variation: minutes to hours.
    pub ltv: Option<Wander>,
    /// Two equal Rayleigh taps; `None` for a single steady path.
    pub fading: Option<Fading>,
    /// Bursts of interference.
    pub interference: Option<Interference>,
}

/// A mean ratio, fixed or by the time of the day.
#[derive(Clone, PartialEq, Debug)]
pub enum Mean {
    /// Always this, dB.
    Fixed(f64),
    /// UTC second of the day and dB, in order and at least one; straight lines between them and around midnight.
    Daily(Vec<(u32, f64)>),
}

/// A Gaussian wander in dB.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Wander {
    /// Standard deviation, dB.
    pub sigma_db: f64,
    /// Time over which the correlation falls to 1/e.
    pub correlation: Duration,
}

/// Two equal Rayleigh taps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fading {
    /// Delay between them.
    pub delay: Duration,
    /// Doppler spread of each: two sigma of a Gaussian spectrum, Hz.
    pub doppler_hz: f64,
}

/// Bursts that raise the noise: a Poisson process of exponential lengths (none above eight means).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interference {
    /// Mean time between bursts.
    pub every: Duration,
    /// Mean length, at most `every`.
    pub last: Duration,
    /// Rise of the noise, dB.
    pub db: f64,
}

impl Sky {
    /// A steady path of this ratio.
    pub fn steady(snr_db: f64) -> Self {
        Self {
            mean: Mean::Fixed(snr_db),
            clock: 0,
            dead: Vec::new(),
            itv: None,
            ltv: None,
            fading: None,
            interference: None,
        }
    }

    /// The mean at `seconds` of virtual time; `None` inside a gate.
    fn mean_db(&self, seconds: f64) -> Option<f64> {
        let day = f64::from(DAY);
        let of_day = (f64::from(self.clock) + seconds) % day;
        let inside = |&(from, until): &(u32, u32)| {
            let (from, until) = (f64::from(from), f64::from(until));
            if from <= until { from <= of_day && of_day < until } else { of_day >= from || of_day < until }
        };
        if self.dead.iter().any(inside) {
            return None;
        }
        Some(match &self.mean {
            Mean::Fixed(db) => *db,
            Mean::Daily(points) => {
                let (Some(&first), Some(&last)) = (points.first(), points.last()) else { return None };
                let after = points.partition_point(|p| f64::from(p.0) <= of_day);
                let (a, b) = (
                    after
                        .checked_sub(1)
                        .and_then(|i| points.get(i))
                        .map_or((f64::from(last.0) - day, last.1), seconds_of),
                    points.get(after).map_or((f64::from(first.0) + day, first.1), seconds_of),
                );
                a.1 + (b.1 - a.1) * (of_day - a.0) / (b.0 - a.0)
            }
        })
    }
}

fn seconds_of(point: &(u32, f64)) -> (f64, f64) {
    (f64::from(point.0), point.1)
}

/// A physical path of one directed link under a seed. What it answers hangs on these and the instant alone.
#[derive(Clone, Debug)]
pub struct Path {
    sky: Arc<Sky>,
    seed: u64,
    name: [u64; 2],
    itv: Option<Wandering>,
    ltv: Option<Wandering>,
    taps: Option<[Tap; 2]>,
}

/// Samples of the taps over one block: 16 in 1/D, and within these bounds.
const SAMPLES: std::ops::RangeInclusive<f64> = 8.0..=1024.0;
const SAMPLES_PER_FADE: f64 = 16.0;

impl Path {
    /// The path from one station to another.
    pub fn new(seed: u64, from: u16, to: u16, sky: Arc<Sky>) -> Self {
        let wandering = |purpose, w: &Wander| Wandering::new(seed, purpose, from, to, w.correlation.as_secs_f64());
        Self {
            itv: sky.itv.as_ref().map(|w| wandering("itv", w)),
            ltv: sky.ltv.as_ref().map(|w| wandering("ltv", w)),
            taps: sky.fading.map(|f| [0, 1].map(|tap| Tap::new(seed, from, to, tap, f.doppler_hz))),
            name: [u64::from(from), u64::from(to)],
            seed,
            sky,
        }
    }

    /// Whether it has moving taps.
    pub fn fades(&self) -> bool {
        self.taps.is_some()
    }

    /// The ratio at an instant in dB, the taps left out; `None` inside a gate.
    pub fn level_db(&mut self, at: Instant) -> Option<f64> {
        let seconds = seconds(at);
        let slow = self.slow_db(seconds)?;
        let interference = self.bursts(seconds, seconds);
        Some(slow - interference.iter().map(|b| b.2).fold(0.0, f64::max))
    }

    /// The effective ratio in dB between two instants for a receiver with this anchor; `None` where nothing gets through at all.
    pub fn effective_db(&mut self, from: Instant, until: Instant, anchor: &Anchor) -> Option<f64> {
        let sky = self.sky.clone();
        let (start, length) = (seconds(from), until.since(from).as_secs_f64());
        let bursts = self.bursts(start, start + length);
        let wanted = sky.fading.map_or(0.0, |f| SAMPLES_PER_FADE * f.doppler_hz * length);
        let wanted = if bursts.is_empty() { wanted } else { wanted.max(64.0) };
        let samples = wanted.clamp(*SAMPLES.start(), *SAMPLES.end()).ceil();
        // The slow parts are taken anew ten times in a correlation time, and often enough to find the edge of a gate.
        let gates = if sky.dead.is_empty() { 10.0 } else { 0.25 };
        let calm =
            [sky.itv, sky.ltv].iter().flatten().map(|w| w.correlation.as_secs_f64() / 10.0).fold(gates, f64::min);
        let stride = ((samples * calm / length).floor()).clamp(1.0, samples) as usize;
        let step = length / samples;
        let (interferes, noise) = sky.fading.map_or((false, 0.0), |f| {
            let spread = f.doppler_hz / anchor.doppler_hz;
            let late = f.delay.as_secs_f64() * 1e3 > anchor.delay_ms;
            (late, spread * spread / (2.0 * ratio(anchor.awgn_db)))
        });
        let (mut mean, mut alive) = (0.0, false);
        let (mut bits, mut product) = (0.0, 1.0);
        for i in 0..samples as usize {
            let at = start + (i as f64 + 0.5) * step;
            if i % stride == 0 {
                // In the middle of the samples it stands for.
                let slow = self.slow_db(at + (stride - 1) as f64 * 0.5 * step);
                alive |= slow.is_some();
                mean = slow.map_or(0.0, ratio);
            }
            let mut level = mean;
            for &(on, off, db) in &bursts {
                if on <= at && at < off {
                    level = level.min(mean / ratio(db));
                }
            }
            product *= 1.0
                + match &mut self.taps {
                    None => level,
                    Some([one, two]) => {
                        let (a, b) = (0.5 * one.power(at), 0.5 * two.power(at));
                        if interferes {
                            level * a / (1.0 + level * (b + noise))
                        } else {
                            level * (a + b) / (1.0 + level * noise)
                        }
                    }
                };
            // One logarithm for sixteen factors: each is below 1e15.
            if i % 16 == 15 {
                bits += libm::log2(product);
                product = 1.0;
            }
        }
        bits += libm::log2(product);
        let effective = libm::exp2(bits / samples) - 1.0;
        alive.then(|| 10.0 * libm::log10(effective.max(1e-6)))
    }

    fn slow_db(&mut self, seconds: f64) -> Option<f64> {
        let mean = self.sky.mean_db(seconds)?;
        let itv = self.itv.as_mut().zip(self.sky.itv).map_or(0.0, |(w, f)| f.sigma_db * w.at(seconds));
        let ltv = self.ltv.as_mut().zip(self.sky.ltv).map_or(0.0, |(w, f)| f.sigma_db * w.at(seconds));
        Some(mean + itv + ltv)
    }

    /// Bursts that touch a span: from, until, dB.
    fn bursts(&self, from: f64, until: f64) -> Vec<(f64, f64, f64)> {
        let Some(Interference { every, last, db }) = self.sky.interference else { return Vec::new() };
        let (every, last) = (every.as_secs_f64(), last.as_secs_f64());
        let longest = 8.0 * last;
        let slots = ((from - longest) / every).floor() as i64..=(until / every).floor() as i64;
        let [a, b] = self.name;
        let mut bursts = Vec::new();
        for slot in slots {
            let mut draw = Stream::keyed(self.seed, "interference", &[a, b, slot as u64]);
            // A slot of the mean spacing holds a Poisson number of bursts of mean 1.
            let (mut count, mut left) = (0, draw.unit());
            let mut share = libm::exp(-1.0);
            while left >= share && count < 12 {
                left -= share;
                count += 1;
                share /= f64::from(count);
            }
            for _ in 0..count {
                let on = (slot as f64 + draw.unit()) * every;
                let off = on + (-libm::log(1.0 - draw.unit()) * last).min(longest);
                if on <= until && off > from {
                    bursts.push((on, off, db));
                }
            }
        }
        bursts
    }
}

fn ratio(db: f64) -> f64 {
    libm::pow(10.0, db.clamp(-100.0, 150.0) / 10.0)
}

pub(super) fn seconds(at: Instant) -> f64 {
    at.0 as f64 * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waveform::Waveform;

    fn anchor() -> Anchor {
        Anchor::of(Waveform::find(2400, "L").expect("known"))
    }

    fn over(path: &mut Path, from_s: u64, length_ms: u64) -> Option<f64> {
        let from = Instant::from_millis(1000 * from_s);
        path.effective_db(from, from + Duration::from_millis(length_ms), &anchor())
    }

    #[test]
    fn a_steady_path_has_its_own_ratio_over_any_span() {
        let mut path = Path::new(1, 0, 1, Arc::new(Sky::steady(12.5)));
        for (from, length) in [(0, 1), (77, 120), (86_400, 4_800)] {
            let db = over(&mut path, from, length).expect("alive");
            assert!((db - 12.5).abs() < 1e-9, "{db}");
        }
    }

    #[test]
    fn the_mean_follows_the_clock_in_straight_lines_and_around_midnight() {
        let mean = Mean::Daily(vec![(36_000, 20.0), (37_800, 5.0), (39_600, 20.0)]);
        let sky = Sky { mean, clock: 36_000, ..Sky::steady(0.0) };
        for (minutes, db) in [(0.0, 20.0), (15.0, 12.5), (30.0, 5.0), (45.0, 12.5), (60.0, 20.0), (12.0 * 60.0, 20.0)] {
            assert!((sky.mean_db(minutes * 60.0).expect("alive") - db).abs() < 1e-9, "{minutes}");
        }
        let night = Sky { mean: Mean::Daily(vec![(21_600, 10.0), (64_800, 20.0)]), ..Sky::steady(0.0) };
        assert_eq!((night.mean_db(0.0), night.mean_db(43_200.0)), (Some(15.0), Some(15.0)));
        assert_eq!(night.mean_db(f64::from(DAY) * 3.0 + 64_800.0), Some(20.0));
    }

    #[test]
    fn a_gate_lets_nothing_through_and_opens_on_time() {
        let sky = Sky { dead: vec![(79_200, 14_400)], clock: 75_600, ..Sky::steady(20.0) };
        let mut path = Path::new(1, 0, 1, Arc::new(sky));
        // It is 21:00; dead from 22:00 to 04:00.
        assert!(over(&mut path, 0, 4_800).is_some() && over(&mut path, 3_600, 4_800).is_none());
        assert!(over(&mut path, 7 * 3_600 - 5, 4_800).is_none() && over(&mut path, 7 * 3_600, 4_800).is_some());
        // A block half in the gate is half lost.
        let half = over(&mut path, 3_597, 6_000).expect("half alive");
        assert!((8.0..12.0).contains(&half), "{half}");
    }

    #[test]
    fn each_direction_has_its_own_sky_and_a_newcomer_changes_none() {
        let sky = Arc::new(Sky {
            itv: Some(Wander { sigma_db: 4.0, correlation: Duration::from_secs(10) }),
            fading: Some(Fading { delay: Duration::from_millis(2), doppler_hz: 1.0 }),
            ..Sky::steady(15.0)
        });
        let heard = |from, to, order: &[u64]| {
            let mut path = Path::new(9, from, to, sky.clone());
            let mut all: Vec<_> = order.iter().map(|&s| (s, over(&mut path, s, 600))).collect();
            all.sort_by_key(|h| h.0);
            all
        };
        assert_eq!(heard(0, 1, &[0, 5, 500, 86_000]), heard(0, 1, &[86_000, 500, 0, 5]));
        assert_ne!(heard(0, 1, &[0, 5, 500, 86_000]), heard(1, 0, &[0, 5, 500, 86_000]));
    }

    #[test]
    fn interference_takes_its_share_of_the_time() {
        let interference = Interference { every: Duration::from_secs(100), last: Duration::from_secs(10), db: 20.0 };
        let mut path = Path::new(2, 0, 1, Arc::new(Sky { interference: Some(interference), ..Sky::steady(20.0) }));
        let n = 40_000;
        let hit = (0..n).filter(|i| path.level_db(Instant::from_millis(1000 * (i * 7))).expect("alive") < 10.0).count();
        // Poisson bursts of exponential length: 1 - exp(-10/100) = 0.0952.
        let share = hit as f64 / n as f64;
        assert!((0.085..0.105).contains(&share), "{share}");
    }

    #[test]
    fn what_a_receiver_cannot_follow_is_noise_to_it() {
        let fading = |delay, doppler_hz| Some(Fading { delay: Duration::from_millis(delay), doppler_hz });
        let mean_of = |fading, anchor: &Anchor| {
            let mut path = Path::new(4, 0, 1, Arc::new(Sky { fading, ..Sky::steady(30.0) }));
            let from = Instant::from_millis(10_000);
            path.effective_db(from, from + Duration::from_secs(60), anchor).expect("alive")
        };
        let (fast, robust) =
            (anchor(), Anchor::of(&Waveform::choose(crate::waveform::Family::Stanag4415, 3, 75, "L").expect("known")));
        assert!(mean_of(fading(2, 1.0), &fast) > 22.0);
        // Flutter leaves less than it needs; a late second path leaves next to nothing; the robust one stands both.
        assert!(mean_of(fading(2, 10.0), &fast) < fast.awgn_db);
        assert!(mean_of(fading(9, 1.0), &fast) < fast.awgn_db);
        assert!(mean_of(fading(9, 10.0), &robust) > robust.awgn_db + 10.0);
    }
}
