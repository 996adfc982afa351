//! What the block model foretells for a packet on a fading path: effective signal-to-noise ratio, then the curve without fading.
//!
//! The effective ratio of a packet is that of a steady channel with the same mean capacity: the mean of log2(1 + snr) over the
//! packet, inverted. [`View`] says whose ratio is meant. Called by [`sweep`](super::sweep) with the very fades the real modem met.

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
    let (mut sum, mut n) = (0.0, 0.0);
    let mut add = |power: f64| {
        sum += libm::log2(1.0 + snr * power);
        n += 1.0;
    };
    for look in 0..looks {
        let [first, second] = fade.gains(start + look * step + step / 2);
        match view {
            View::Sum => add(first.power() + second.power()),
            View::Carriers => {
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
    10.0 * libm::log10((libm::exp2(sum / n) - 1.0).max(1e-9))
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
    }

    #[test]
    fn fading_costs_and_single_carriers_fade_more_than_their_sum() {
        let anchor = Anchor { mid_db: 3.0, width_db: 0.3 };
        let fades: Vec<Fading> = (0..200).map(|i| Fading::new(1, &[i], SPREADS[1])).collect();
        for db in [3.0, 6.0, 9.0] {
            let [sum, carriers] =
                [View::Sum, View::Carriers].map(|view| loss(anchor, view, Mode::Datac1, &fades, 0, db));
            assert!(sum <= carriers, "{db}: {sum} {carriers}");
            assert!(db < 6.0 || sum > anchor.loss(db), "{db}: {sum}");
        }
    }
}
