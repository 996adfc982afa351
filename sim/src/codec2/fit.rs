//! The error curve of a waveform without fading: a logistic in dB, fitted to counts.

use serde::Serialize;

/// Packet error over signal-to-noise ratio on a path that does not fade.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Anchor {
    /// Where half of the packets are lost, dB.
    pub mid_db: f64,
    /// How many dB take the odds of a loss down by a factor of e.
    pub width_db: f64,
}

impl Anchor {
    /// Probability that a packet is lost.
    pub fn loss(&self, snr_db: f64) -> f64 {
        1.0 / (1.0 + libm::exp((snr_db - self.mid_db) / self.width_db))
    }

    /// The curve under which `counts` (dB, sent, lost) are likeliest, found on ever finer grids.
    pub fn fit(counts: &[(f64, u64, u64)]) -> Self {
        let bounds = |f: fn(f64, f64) -> f64, start| counts.iter().map(|c| c.0).fold(start, f);
        let (low, high) = (bounds(f64::min, f64::INFINITY), bounds(f64::max, f64::NEG_INFINITY));
        let mut best = Self { mid_db: (low + high) / 2.0, width_db: 0.5 };
        let (mut mid_step, mut width_factor) = ((high - low) / 20.0, 1.6);
        for _ in 0..8 {
            let center = best;
            for i in -10..=10 {
                for j in -6..=6 {
                    let candidate = Self {
                        mid_db: center.mid_db + mid_step * f64::from(i),
                        // Steeper than one hundredth of a dB is no measurement.
                        width_db: (center.width_db * libm::pow(width_factor, f64::from(j))).max(0.01),
                    };
                    if candidate.likelihood(counts) > best.likelihood(counts) {
                        best = candidate;
                    }
                }
            }
            mid_step /= 3.0;
            width_factor = width_factor.sqrt();
        }
        best
    }

    /// Logarithm of the probability of `counts`, up to a constant.
    fn likelihood(&self, counts: &[(f64, u64, u64)]) -> f64 {
        let log = |p: f64| libm::log(p.max(1e-12));
        let one = |&(db, sent, lost): &(f64, u64, u64)| {
            let p = self.loss(db);
            lost as f64 * log(p) + (sent - lost) as f64 * log(1.0 - p)
        };
        counts.iter().map(one).sum()
    }
}

/// Where a falling curve of (dB, loss) goes through `level`: between the last point at or above it and the next one, on a straight
/// line over the logarithm of the loss.
pub fn crossing(curve: &[(f64, f64)], level: f64) -> Option<f64> {
    let above = curve.iter().rposition(|&(_, p)| p >= level)?;
    let (&(x0, p0), &(x1, p1)) = (curve.get(above)?, curve.get(above + 1)?);
    // No loss at all at the next point says less than one in many.
    let [y, y0, y1] = [level, p0, p1].map(|p| libm::log(p.max(1e-3)));
    Some(x0 + (x1 - x0) * (y - y0) / (y1 - y0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fit_finds_the_curve_the_counts_came_from() {
        let truth = Anchor { mid_db: 2.3, width_db: 0.4 };
        let counts: Vec<(f64, u64, u64)> = (0..9)
            .map(|i| {
                let db = f64::from(i) * 0.5;
                (db, 10_000, libm::round(truth.loss(db) * 10_000.0) as u64)
            })
            .collect();
        let found = Anchor::fit(&counts);
        assert!((found.mid_db - 2.3).abs() < 0.01 && (found.width_db - 0.4).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn the_crossing_is_where_the_line_goes_through() {
        let curve = [(0.0, 1.0), (1.0, 0.2), (2.0, 0.05), (3.0, 0.0)];
        assert!((crossing(&curve, 0.1).expect("crosses") - 1.5).abs() < 1e-9);
        assert_eq!(crossing(&curve[..2], 0.1), None);
        assert_eq!(crossing(&curve[2..], 0.1), None);
    }
}
