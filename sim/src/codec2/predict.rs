//! What the block model foretells for a packet on a fading path: effective signal-to-noise ratio, then the curve without fading.
//!
//! The effective ratio of a packet is that of a steady channel with the same mean capacity: the mean of log2(1 + snr) over the
//! packet, inverted. [`View`] says whose ratio is meant. Called by [`sweep`](super::sweep) with the very fades the real modem met.

use std::sync::OnceLock;

use super::audio::{Complex, Fading};
use super::fit::Anchor;
use super::modem::{Mode, SAMPLE_RATE};

/// Instants looked at, a second: 25 for 1 Hz of Doppler, twelve for 2 Hz.
const LOOKS: u64 = 25;

/// From the first carrier of a mode to the next, Hz.
const SPACING: f64 = 62.5;
/// Middle of a mode's signal, Hz.
const MIDDLE: f64 = 1500.0;

/// How a receiver is taken to see two paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// The powers of both paths add up: the block model of the laboratory's waveforms, whose equaliser gathers both.
    Sum,
    /// Each carrier of the signal by itself, where the paths add or cancel.
    Carriers,
    /// The same, and a symbol of QPSK holds two bits at most, however strong the moment: capacity of the alphabet, not of the channel.
    Alphabet,
}

impl View {
    /// Every view, from the plainest on.
    pub const ALL: [Self; 3] = [Self::Sum, Self::Carriers, Self::Alphabet];
}

/// Mean loss over `fades` of packets that last `samples` from instant `start`, at `snr_db`.
pub fn loss(anchor: Anchor, view: View, mode: Mode, fades: &[Fading], start: u64, snr_db: f64) -> f64 {
    let one = |fade: &Fading| anchor.loss(effective_db(view, mode, fade, start, snr_db));
    fades.iter().map(one).sum::<f64>() / fades.len().max(1) as f64
}

/// The effective ratio of one packet, dB.
pub fn effective_db(view: View, mode: Mode, fade: &Fading, start: u64, snr_db: f64) -> f64 {
    let snr = libm::pow(10.0, snr_db / 10.0);
    let step = SAMPLE_RATE / LOOKS;
    let looks = (mode.burst_samples() as u64 / step).max(1);
    // On the carriers the signal has less than 3 kHz of noise.
    let on_carriers = snr * 3000.0 / (SPACING * f64::from(mode.carriers()));
    let (mut sum, mut n) = (0.0, 0.0);
    let mut add = |power: f64| {
        sum += match view {
            View::Sum | View::Carriers => libm::log2(1.0 + snr * power),
            View::Alphabet => qpsk().bits(on_carriers * power),
        };
        n += 1.0;
    };
    for look in 0..looks {
        let [first, second] = fade.gains(start + look * step + step / 2);
        match view {
            View::Sum => add(first.power() + second.power()),
            View::Carriers | View::Alphabet => {
                let delay = fade.spread().delay;
                for carrier in 0..mode.carriers() {
                    let hz = MIDDLE + SPACING * (f64::from(carrier) - f64::from(mode.carriers() - 1) / 2.0);
                    let (sin, cos) = libm::sincos(-std::f64::consts::TAU * hz * delay);
                    let turned =
                        Complex { re: second.re * cos - second.im * sin, im: second.re * sin + second.im * cos };
                    add(Complex { re: first.re + turned.re, im: first.im + turned.im }.power());
                }
            }
        }
    }
    match view {
        View::Sum | View::Carriers => 10.0 * libm::log10((libm::exp2(sum / n) - 1.0).max(1e-9)),
        View::Alphabet => qpsk().db(sum / n) + 10.0 * libm::log10(snr / on_carriers),
    }
}

/// Bits a QPSK symbol carries over its signal-to-noise ratio: a table, because it has no closed form.
struct Alphabet {
    /// From -40 dB on, a tenth of a dB apart; rising.
    bits: Vec<f64>,
}

fn qpsk() -> &'static Alphabet {
    static TABLE: OnceLock<Alphabet> = OnceLock::new();
    TABLE.get_or_init(|| {
        let bits = |i: u32| 2.0 * (1.0 - entropy_left(libm::pow(10.0, (f64::from(i) / 10.0 - 40.0) / 10.0)));
        Alphabet { bits: (0..=700).map(bits).collect() }
    })
}

/// What a bit of a QPSK symbol still hides when its log-likelihood ratio is known: normal around 2 snr with a variance of 4 snr.
fn entropy_left(snr: f64) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for i in -60..=60 {
        let x = f64::from(i) / 10.0;
        let weight = libm::exp(-x * x / 2.0);
        let ratio = 2.0 * snr + 2.0 * snr.sqrt() * x;
        // log2(1 + exp(-r)) without overflow.
        let hidden = libm::log1p(libm::exp(-ratio.abs())) + (-ratio).max(0.0);
        sum += weight * hidden / std::f64::consts::LN_2;
        weights += weight;
    }
    sum / weights
}

impl Alphabet {
    fn bits(&self, snr: f64) -> f64 {
        let place = ((10.0 * libm::log10(snr.max(1e-9)) + 40.0) * 10.0).clamp(0.0, (self.bits.len() - 1) as f64);
        let below = (place as usize).min(self.bits.len() - 2);
        let share = place - below as f64;
        self.bits[below] * (1.0 - share) + self.bits[below + 1] * share
    }

    /// The ratio at which a symbol carries so many bits, dB.
    fn db(&self, bits: f64) -> f64 {
        let above = self.bits.partition_point(|&b| b < bits).clamp(1, self.bits.len() - 1);
        let (low, high) = (self.bits[above - 1], self.bits[above]);
        let share = if high > low { ((bits - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
        (above as f64 - 1.0 + share) / 10.0 - 40.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec2::audio::{SPREADS, Spread};

    #[test]
    fn a_path_that_does_not_move_has_its_own_ratio() {
        let still = Spread { name: "still", doppler: 0.0, delay: 0.0 };
        let fade = Fading::new(1, &[3], still);
        let [a, b] = fade.gains(0);
        let power = Complex { re: a.re + b.re, im: a.im + b.im }.power();
        let due = 7.0 + 10.0 * libm::log10(power);
        let got = effective_db(View::Carriers, Mode::Datac1, &fade, 0, 7.0);
        assert!((got - due).abs() < 1e-6, "{got} {due}");
        let got = effective_db(View::Alphabet, Mode::Datac1, &fade, 0, -2.0 - due + 7.0);
        assert!((got + 2.0).abs() < 0.02, "{got}");
    }

    #[test]
    fn a_qpsk_symbol_carries_what_the_books_say() {
        // Half a bit per dimension at 0.19 dB of Eb/N0, which is 0.19 dB of Es/N0 at one bit a symbol; two bits at the most.
        assert!((qpsk().db(1.0) - 0.19).abs() < 0.03, "{}", qpsk().db(1.0));
        assert!((qpsk().bits(1e3) - 2.0).abs() < 1e-6);
        for db in [-10.0, 0.0, 5.0] {
            assert!((qpsk().db(qpsk().bits(libm::pow(10.0, db / 10.0))) - db).abs() < 0.01);
        }
    }

    #[test]
    fn fading_costs_and_single_carriers_fade_more_than_their_sum() {
        let anchor = Anchor { mid_db: 3.0, width_db: 0.3 };
        let fades: Vec<Fading> = (0..200).map(|i| Fading::new(1, &[i], SPREADS[1])).collect();
        for db in [3.0, 6.0, 9.0] {
            let [sum, carriers, alphabet] = View::ALL.map(|view| loss(anchor, view, Mode::Datac1, &fades, 0, db));
            assert!(sum <= carriers && carriers <= alphabet, "{db}: {sum} {carriers} {alphabet}");
            assert!(db < 6.0 || sum > anchor.loss(db), "{db}: {sum}");
        }
    }
}
