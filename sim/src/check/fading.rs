//! The fading path against the theory of Rayleigh fading and of the Ornstein-Uhlenbeck process (V5 to V8), and what interleaving is
//! worth on it (V19).

use std::f64::consts::PI;
use std::sync::Arc;

use aldis::time::{Duration, Instant};

use super::Finding;
use super::transmission::{A, B, Transmission, waveform};
use crate::channel::{Fading, Loss, Sky, Tap, Wandering, Wreck};
use crate::ether::{Ether, EtherConfig, LinkConfig};
use crate::modem::ModemConfig;

/// The cases of this file.
pub(super) fn cases(quick: bool) -> Vec<Finding> {
    [envelope(quick), crossings(quick), two_taps(quick), wander(quick), interleavers(quick)].concat()
}

/// V5: envelope, power and memory of one tap.
fn envelope(quick: bool) -> Vec<Finding> {
    let (seconds, wider) = if quick { (4_000, 2.5) } else { (40_000, 1.0) };
    const PER_SECOND: usize = 40;
    let mut tap = Tap::new(5, 0, 1, 0, 1.0);
    let field: Vec<(f64, f64)> = (0..seconds * PER_SECOND).map(|i| tap.field(i as f64 / PER_SECOND as f64)).collect();
    let n = field.len() as f64;
    let power = |(i, q): &(f64, f64)| i * i + q * q;
    let mean_power = field.iter().map(power).sum::<f64>() / n;
    let mean_envelope = field.iter().map(|h| power(h).sqrt()).sum::<f64>() / n;
    let decibels: Vec<f64> = field.iter().map(|h| 10.0 * libm::log10(power(h))).collect();
    let mean_db = decibels.iter().sum::<f64>() / n;
    let std_db = (decibels.iter().map(|d| (d - mean_db) * (d - mean_db)).sum::<f64>() / n).sqrt();
    let memory = |lag: usize| {
        let pairs = field.iter().zip(&field[lag..]);
        pairs.map(|(a, b)| a.0 * b.0 + a.1 * b.1).sum::<f64>() / (n - lag as f64) / mean_power
    };
    let draws = field.len() as u64;
    vec![
        Finding::new(
            "V5",
            "mean over rms envelope of a tap",
            0.8862,
            mean_envelope / mean_power.sqrt(),
            0.0089 * wider,
        )
        .by("sqrt(pi)/2", draws),
        Finding::new("V5", "standard deviation of a tap's power, dB", 5.57, std_db, 0.15 * wider)
            .by("(10/ln 10) pi/sqrt(6)", draws),
        Finding::new("V5", "correlation of the field after 0.2/D", 0.821, memory(PER_SECOND / 5), 0.03 * wider)
            .by("exp(-(pi D t)^2 / 2)", draws),
        Finding::new("V5", "correlation of the field after 0.375/D", 0.4996, memory(PER_SECOND * 3 / 8), 0.03 * wider)
            .by("exp(-(pi D t)^2 / 2)", draws),
    ]
}

/// V6: how often and for how long one tap fades.
fn crossings(quick: bool) -> Vec<Finding> {
    const RATE: &str = "sqrt(pi) D rho exp(-rho^2), rho^2 the level over the mean power";
    const LENGTH: &str = "(exp(rho^2) - 1) / (sqrt(pi) D rho)";
    let mut findings = Vec::new();
    for (number, doppler, seconds) in [(0, 1.0, 20_000.0), (1, 0.1, 200_000.0)] {
        let (seconds, tolerance) = if quick { (seconds / 10.0, 0.12) } else { (seconds * 2.0, 0.05) };
        let mut tap = Tap::new(6, 0, 1, number, doppler);
        let fades = Fades::count(seconds, 64.0 * doppler, |t| tap.power(t));
        for (db, at) in LEVELS {
            let rho = libm::pow(10.0, db / 20.0);
            let rate = PI.sqrt() * doppler * rho * libm::exp(-rho * rho);
            let length = (libm::exp(rho * rho) - 1.0) / (PI.sqrt() * doppler * rho);
            let what = format!("crossings of {db} dB a second, D = {doppler} Hz");
            findings.push(
                Finding::new("V6", what, rate, fades.begun[at] as f64 / seconds, rate * tolerance)
                    .by(RATE, fades.begun[at]),
            );
            let what = format!("mean fade below {db} dB in seconds, D = {doppler} Hz");
            findings.push(
                Finding::new("V6", what, length, fades.mean_length(at), length * tolerance).by(LENGTH, fades.begun[at]),
            );
        }
    }
    findings
}

/// V7: the total power of two equal taps.
fn two_taps(quick: bool) -> Vec<Finding> {
    let (seconds, wider) = if quick { (4_000.0, 3.0) } else { (60_000.0, 1.0) };
    let [mut one, mut two] = [0, 1].map(|tap| Tap::new(7, 0, 1, tap, 1.0));
    let single = Fades::count(seconds, 64.0, |t| one.power(t));
    let fades = Fades::count(seconds, 64.0, |t| 0.5 * (one.power(t) + two.power(t)));
    let n = fades.samples;
    let mut findings = vec![
        Finding::new("V7", "share of the time below -10 dB, two taps", 0.01752, fades.share(2), 0.001_75 * wider)
            .by("1 - exp(-2r)(1 + 2r), r = 0.1", n),
        Finding::new("V7", "share of the time below -10 dB, one tap", 0.09516, single.share(2), 0.009_5 * wider)
            .by("1 - exp(-r), r = 0.1", n),
    ];
    for ((db, at), (rate, tolerance)) in LEVELS.into_iter().zip([(0.679, 0.05), (0.474, 0.05), (0.130, 0.10)]) {
        let what = format!("crossings of {db} dB a second, two taps, D = 1 Hz");
        let measured = fades.begun[at] as f64 / seconds;
        findings.push(
            Finding::new("V7", what, rate, measured, rate * tolerance * wider.min(2.0))
                .by("sqrt(pi) D (2r)^1.5 exp(-2r), r the level over the mean power", fades.begun[at]),
        );
    }
    findings
}

/// V8: spread, memory and averages of the slow wander.
fn wander(quick: bool) -> Vec<Finding> {
    let (seconds, wider) = if quick { (40_000, 3.0) } else { (400_000, 1.0) };
    let mut itv = Wandering::new(8, "itv", 0, 1, 10.0);
    let db: Vec<f64> = (0..seconds * 2).map(|i| 4.0 * itv.at(i as f64 * 0.5)).collect();
    let mean = db.iter().sum::<f64>() / db.len() as f64;
    let spread = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64).sqrt()
    };
    let std = spread(&db);
    let memory = |lag: usize| {
        let pairs = db.iter().zip(&db[lag..]);
        pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / (db.len() - lag) as f64 / (std * std)
    };
    // Where the correlation falls through 1/e, in steps of half a second.
    let below = (1..60).find(|&lag| memory(lag) < libm::exp(-1.0)).unwrap_or(60);
    let (high, low) = (memory(below - 1), memory(below));
    let time = 0.5 * ((below - 1) as f64 + (high - libm::exp(-1.0)) / (high - low));
    let means = |samples: usize| {
        let means: Vec<f64> = db.chunks_exact(samples).map(|c| c.iter().sum::<f64>() / samples as f64).collect();
        (spread(&means), means.len() as u64)
    };
    let (long, short) = (means(255), means(30));
    const MEANS: &str = "4 sqrt(2 (x - 1 + exp(-x))) / x, x = T / 10 s";
    let n = db.len() as u64;
    vec![
        Finding::new("V8", "standard deviation of the wander, dB", 4.0, std, 0.2 * wider).by("stated", n),
        Finding::new("V8", "seconds in which its correlation falls to 1/e", 10.0, time, wider).by("stated", n),
        Finding::new("V8", "standard deviation of means over 127.5 s, dB", 1.52, long.0, 0.1 * wider).by(MEANS, long.1),
        Finding::new("V8", "standard deviation of means over 15 s, dB", 3.21, short.0, 0.15 * wider).by(MEANS, short.1),
    ]
}

/// V19: at one mean ratio a longer interleaver loses less, and takes longer over a short message.
fn interleavers(quick: bool) -> Vec<Finding> {
    let frames = if quick { 3_000 } else { 20_000 };
    let sky = Sky { fading: Some(Fading { delay: Duration::from_millis(2), doppler_hz: 1.0 }), ..Sky::steady(35.0) };
    let loss = Loss::Sky { sky: Arc::new(sky), wreck: Wreck::default() };
    let lengths = ["US", "VS", "S", "M", "L", "VL"];
    let measured = lengths.map(|interleaver| {
        let mut modem = ModemConfig::new(waveform(9600, interleaver));
        modem.buffer_bytes = usize::MAX;
        let net = |loss| EtherConfig::net(19, 2, &modem, LinkConfig { loss, ..LinkConfig::default() });
        // One transmission over many fades: the preamble is not what is measured.
        let heard = Transmission::send(&mut Ether::new(net(loss.clone())), Instant::ZERO, A, &vec![0; 262 * frames]);
        let bytes = heard.bytes(B);
        let lost = bytes.chunks(262).filter(|f| f.iter().any(|&b| b != 0)).count();
        let missing = frames - bytes.len() / 262;
        let quick_message = Transmission::send(&mut Ether::new(net(Loss::Ideal)), Instant::ZERO, A, &[0; 1024]);
        let delay = quick_message.at(B).map_or(f64::INFINITY, |at| at.since(quick_message.keyed).as_secs_f64());
        ((lost + missing) as f64 / frames as f64, delay)
    });
    let n = (lengths.len() * frames) as u64;
    let out_of_order = |wrong: fn(&[(f64, f64)]) -> bool| measured.windows(2).filter(|w| wrong(w)).count() as u64;
    let shares: Vec<String> = lengths.iter().zip(&measured).map(|(l, m)| format!("{l} {:.3}", m.0)).collect();
    let delays: Vec<String> = lengths.iter().zip(&measured).map(|(l, m)| format!("{l} {:.2}", m.1)).collect();
    vec![
        Finding::none(
            "V19",
            format!(
                "longer interleavers that lose more frames at 9600 bit/s, 35 dB, 2 ms / 1 Hz ({})",
                shares.join(", ")
            ),
            out_of_order(|w| w[1].0 > w[0].0),
        )
        .by("FER(VL) <= FER(L) <= FER(M) <= FER(S) <= FER(VS) <= FER(US)", n),
        Finding::none(
            "V19",
            format!("longer interleavers that deliver 1 KiB sooner, seconds ({})", delays.join(", ")),
            out_of_order(|w| w[1].1 < w[0].1),
        )
        .by("preamble + whole blocks", lengths.len() as u64),
    ]
}

/// Levels in dB over the mean power, and their places in [`Fades`].
const LEVELS: [(f64, usize); 3] = [(0.0, 0), (-5.0, 1), (-10.0, 2)];

/// Fades below three levels in a sampled power.
struct Fades {
    begun: [u64; 3],
    below: [u64; 3],
    samples: u64,
    seconds: f64,
}

impl Fades {
    fn count(seconds: f64, per_second: f64, mut power: impl FnMut(f64) -> f64) -> Self {
        let levels = LEVELS.map(|(db, _)| libm::pow(10.0, db / 10.0));
        let samples = (seconds * per_second) as u64;
        let mut fades = Self { begun: [0; 3], below: [0; 3], samples, seconds };
        let mut last = power(0.0);
        for i in 0..samples {
            let now = power((i + 1) as f64 / per_second);
            for (at, &level) in levels.iter().enumerate() {
                fades.begun[at] += u64::from(last >= level && now < level);
                fades.below[at] += u64::from(now < level);
            }
            last = now;
        }
        fades
    }

    fn share(&self, at: usize) -> f64 {
        self.below[at] as f64 / self.samples as f64
    }

    fn mean_length(&self, at: usize) -> f64 {
        self.share(at) * self.seconds / self.begun[at].max(1) as f64
    }
}
