//! One Rayleigh tap: a complex Gaussian process with a Gaussian Doppler spectrum, looked up at any instant.
//!
//! The field is white noise on a lattice, seen through a Gaussian window: `h(t) = sum of g[k] w(t - k dt)`. The window whose square
//! has the tap's spectrum is `w(t) = exp(-(pi D t)^2)`, D being the Doppler spread (two sigma of the spectrum), and the sum's
//! autocorrelation is `exp(-(pi D t)^2 / 2)`. At a spacing of 0.2/D the variance of the sum ripples by less than 1e-5, and beyond
//! five points either way the window is below 6e-5. So the field is exactly Gaussian, never repeats, and costs ten products.

use super::normal;
use crate::rng::Stream;

/// Lattice points per 1/D.
const POINTS: f64 = 5.0;
/// Points under the window.
const WIDTH: usize = 10;

/// One tap of one directed link.
#[derive(Clone, Debug)]
pub struct Tap {
    seed: u64,
    name: [u64; 3],
    /// Lattice points per second.
    rate: f64,
    /// The points under the window last asked for, from this one on. A memory only: they can be drawn again.
    first: i64,
    points: [(f64, f64); WIDTH],
}

impl Tap {
    /// Tap number `tap` of the link `from`, `to`, with a Doppler spread above 0 Hz.
    pub fn new(seed: u64, from: u16, to: u16, tap: u64, doppler_hz: f64) -> Self {
        let name = [u64::from(from), u64::from(to), tap];
        Self { seed, name, rate: doppler_hz * POINTS, first: i64::MIN, points: [(0.0, 0.0); WIDTH] }
    }

    /// In-phase and quadrature part at `seconds`, of mean power 1 together.
    pub fn field(&mut self, seconds: f64) -> (f64, f64) {
        let at = seconds * self.rate;
        let first = at.floor() as i64 - (WIDTH as i64 / 2 - 1);
        if first != self.first {
            self.draw(first);
        }
        // w[k] = exp(-c (x - k)^2) by its ratios, which fall by exp(-2c) each.
        const C: f64 = std::f64::consts::PI * std::f64::consts::PI / (POINTS * POINTS);
        let x = at - first as f64;
        let mut weight = libm::exp(-C * x * x);
        let mut ratio = libm::exp(C * (2.0 * x - 1.0));
        let fall = libm::exp(-2.0 * C);
        let (mut i, mut q) = (0.0, 0.0);
        for &(a, b) in &self.points {
            i += weight * a;
            q += weight * b;
            weight *= ratio;
            ratio *= fall;
        }
        // The sum of the squared window over the lattice is sqrt(pi / 2c); each part has half the power.
        let scale = libm::sqrt(0.5 / libm::sqrt(std::f64::consts::PI / (2.0 * C)));
        (i * scale, q * scale)
    }

    /// Power at `seconds`: 1 on average, exponentially distributed.
    pub fn power(&mut self, seconds: f64) -> f64 {
        let (i, q) = self.field(seconds);
        i * i + q * q
    }

    fn draw(&mut self, first: i64) {
        let before = std::mem::replace(&mut self.first, first);
        let old = self.points;
        for (slot, k) in self.points.iter_mut().zip(first..) {
            let known = k.checked_sub(before).and_then(|i| usize::try_from(i).ok()).and_then(|i| old.get(i));
            *slot = known.copied().unwrap_or_else(|| {
                let [from, to, tap] = self.name;
                normal::pair(&mut Stream::keyed(self.seed, "tap", &[from, to, tap, k as u64]))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_hangs_on_the_instant_and_not_on_the_order_of_asking() {
        let mut forwards = Tap::new(3, 0, 1, 0, 1.0);
        let times: Vec<f64> = (0..500).map(|i| f64::from(i) * 0.137).collect();
        let there: Vec<(f64, f64)> = times.iter().map(|&t| forwards.field(t)).collect();
        let mut backwards = Tap::new(3, 0, 1, 0, 1.0);
        for (i, &t) in times.iter().enumerate().rev() {
            assert_eq!(backwards.field(t), there[i]);
            assert_eq!(Tap::new(3, 0, 1, 0, 1.0).field(t), there[i]);
        }
        assert_ne!(Tap::new(3, 1, 0, 0, 1.0).field(7.0), Tap::new(3, 0, 1, 0, 1.0).field(7.0));
        assert_ne!(Tap::new(3, 0, 1, 1, 1.0).field(7.0), Tap::new(3, 0, 1, 0, 1.0).field(7.0));
    }

    #[test]
    fn the_field_is_continuous_where_the_window_moves() {
        let mut tap = Tap::new(1, 0, 1, 0, 1.0);
        for k in 1..200 {
            let edge = f64::from(k) / POINTS;
            let (before, after) = (tap.field(edge - 1e-9), tap.field(edge + 1e-9));
            assert!((before.0 - after.0).abs() < 5e-4 && (before.1 - after.1).abs() < 5e-4, "{before:?} {after:?}");
        }
    }
}
