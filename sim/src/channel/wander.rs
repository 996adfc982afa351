//! The slow wander of a path's level: an Ornstein-Uhlenbeck process looked up at any instant.
//!
//! Time is cut into spans of eight correlation times, at whose ends the process is drawn afresh (a true one still correlates by
//! 3e-4 over such a span). Inside a span it is filled in by halving: given both ends of an interval, its middle is normal with mean
//! `(a + b) r / (1 + r^2)` and variance `(1 - r^2) / (1 + r^2)`, r being the correlation over half the interval. Ten halvings
//! reach 1/128 of the correlation time; between neighbours a straight line.

use super::normal;
use crate::rng::Stream;

const SPAN: f64 = 8.0;
const HALVINGS: usize = 10;

/// One Ornstein-Uhlenbeck process of mean 0 and variance 1.
#[derive(Clone, Debug)]
pub struct Wandering {
    seed: u64,
    purpose: &'static str,
    name: [u64; 2],
    /// Spans per second.
    rate: f64,
    /// Weight of the ends and of the new draw at each halving.
    steps: [(f64, f64); HALVINGS],
    /// The interval last asked for and the values at its ends: a memory only.
    interval: Option<(i64, f64, f64)>,
}

impl Wandering {
    /// The process of the link `from`, `to` for one purpose, with its correlation time in seconds (above 0).
    pub fn new(seed: u64, purpose: &'static str, from: u16, to: u16, correlation_s: f64) -> Self {
        let mut steps = [(0.0, 0.0); HALVINGS];
        let mut half = SPAN;
        for step in &mut steps {
            half /= 2.0;
            let r = libm::exp(-half);
            *step = (r / (1.0 + r * r), libm::sqrt((1.0 - r * r) / (1.0 + r * r)));
        }
        let name = [u64::from(from), u64::from(to)];
        Self { seed, purpose, name, rate: 1.0 / (SPAN * correlation_s), steps, interval: None }
    }

    /// The value at `seconds`.
    pub fn at(&mut self, seconds: f64) -> f64 {
        let fine = seconds * self.rate * f64::from(1u32 << HALVINGS);
        let index = fine.floor() as i64;
        let (low, high) = match self.interval {
            Some((i, low, high)) if i == index => (low, high),
            _ => self.ends(index),
        };
        self.interval = Some((index, low, high));
        low + (high - low) * (fine - index as f64)
    }

    /// Values at both ends of a finest interval.
    fn ends(&self, index: i64) -> (f64, f64) {
        let span = index >> HALVINGS;
        let (mut low, mut high) = (self.draw(0, span), self.draw(0, span + 1));
        for (level, (weight, fresh)) in (1..).zip(self.steps) {
            let part = index >> (HALVINGS as u32 - level);
            // The part's elder half and younger half share the middle that is drawn here.
            let middle = (low + high) * weight + fresh * self.draw(level, part >> 1);
            if part & 1 == 0 {
                high = middle;
            } else {
                low = middle;
            }
        }
        (low, high)
    }

    fn draw(&self, level: u32, index: i64) -> f64 {
        let [from, to] = self.name;
        normal::pair(&mut Stream::keyed(self.seed, self.purpose, &[from, to, u64::from(level), index as u64])).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_hangs_on_the_instant_and_not_on_the_order_of_asking() {
        let new = || Wandering::new(5, "wander", 0, 1, 10.0);
        let mut forwards = new();
        let times: Vec<f64> = (0..400).map(|i| f64::from(i) * 0.71).collect();
        let there: Vec<f64> = times.iter().map(|&t| forwards.at(t)).collect();
        let mut backwards = new();
        for (&t, &value) in times.iter().zip(&there).rev() {
            assert_eq!((backwards.at(t), new().at(t)), (value, value));
        }
    }

    #[test]
    fn it_is_continuous_also_where_spans_meet() {
        let mut w = Wandering::new(5, "wander", 0, 1, 10.0);
        // Steps of a thousandth of the correlation time; one of the finest intervals is eight of them.
        for i in 0..200_000 {
            let t = f64::from(i) * 0.01;
            let step = w.at(t + 0.01) - w.at(t);
            assert!(step.abs() < 0.12, "{step} at {t}");
        }
    }
}
