//! The weighing of many predictions into one, in the logistic domain.

use super::super::logistic::{flipped, squash};

/// Several sets of weights over the same inputs; one weight set of each is in use at a time.
#[derive(Clone, Debug)]
pub(in super::super) struct Mixer {
    /// In 32768ths.
    weights: Vec<i16>,
    inputs: usize,
    /// Where each selector's weight sets begin.
    starts: Vec<usize>,
    chosen: Vec<usize>,
    mixed: Vec<i32>,
    /// So many selectors and inputs were in use for the last bit.
    used: usize,
    rate: i32,
    /// What every weight was at first.
    first: i16,
}

impl Mixer {
    /// A mixer of `inputs` with one selector for each of `choices`, all weights at `first` 32768ths.
    pub(in super::super) fn new(inputs: usize, choices: &[usize], first: i16, rate: i32) -> Self {
        let mut starts = Vec::new();
        let mut sets = 0;
        for choice in choices {
            starts.push(sets);
            sets += choice;
        }
        Self {
            weights: vec![first; sets * inputs],
            inputs,
            starts,
            chosen: vec![0; choices.len()],
            mixed: vec![0; choices.len()],
            used: 0,
            rate,
            first,
        }
    }

    /// All weights, selector by selector and set by set.
    pub(in super::super) fn weights(&mut self) -> &mut [i16] {
        &mut self.weights
    }

    /// Gives the sets that were never in use the mean of those of their selector that were.
    pub(in super::super) fn fill_unused(&mut self) {
        let ends: Vec<usize> = self.starts.iter().skip(1).copied().chain([self.weights.len() / self.inputs]).collect();
        for (start, end) in self.starts.iter().zip(ends) {
            let sets = &mut self.weights[start * self.inputs..end * self.inputs];
            let (used, unused): (Vec<_>, Vec<_>) =
                sets.chunks_exact_mut(self.inputs).partition(|set| set.iter().any(|weight| *weight != self.first));
            let mean = |i: usize| used.iter().map(|set| i32::from(set[i])).sum::<i32>() / used.len().max(1) as i32;
            let means: Vec<i16> = (0..self.inputs).map(|i| mean(i) as i16).collect();
            unused.into_iter().for_each(|set| set.copy_from_slice(&means));
        }
    }

    /// What each selector's weights make of the inputs, in the logistic domain. There may be fewer of either than there are weights for.
    pub(in super::super) fn mix(&mut self, inputs: &[i16], selectors: &[usize], mixed: &mut [i16]) {
        self.used = selectors.len();
        for (i, selector) in selectors.iter().enumerate() {
            let at = (self.starts[i] + selector) * self.inputs;
            self.chosen[i] = at;
            let weights = &self.weights[at..at + inputs.len()];
            // Wraps only where every input and weight is at its limit, and then at both ends alike.
            let sum =
                weights.iter().zip(inputs).fold(0i32, |sum, (w, x)| sum.wrapping_add(i32::from(*w) * i32::from(*x)));
            self.mixed[i] = (sum >> 15).clamp(-2047, 2047);
            mixed[i] = self.mixed[i] as i16;
        }
    }

    /// Moves the weights in use towards the inputs that were right.
    pub(in super::super) fn learn(&mut self, inputs: &[i16], bit: bool) {
        let target = if bit { 65_535 } else { 0 };
        for (at, mixed) in self.chosen.iter().zip(&self.mixed).take(self.used) {
            // Twice the step, which the last shift rounds.
            let error = (((target - squash(*mixed)) * self.rate) >> 8).clamp(-32_767, 32_767) as i16;
            // So small an error would move no weight: most bits are as expected.
            if error.abs() < 32 {
                continue;
            }
            let weights = &mut self.weights[*at..*at + inputs.len()];
            for (weight, input) in weights.iter_mut().zip(inputs) {
                let step = ((i32::from(*input) * i32::from(error)) >> 16) as i16;
                *weight = weight.saturating_add((step + 1) >> 1);
            }
        }
    }
}

/// Refines a chance by how often chances like it came true in a context; 33 points on the logistic axis for each.
#[derive(Clone, Debug)]
pub(in super::super) struct Refinement {
    points: Vec<u16>,
    at: usize,
    speed: u32,
}

impl Refinement {
    /// One that changes nothing yet.
    pub(in super::super) fn new(contexts: usize, speed: u32) -> Self {
        let points = (0..contexts * 33).map(|i| squash((i % 33) as i32 * 128 - 2048).min(65_535) as u16).collect();
        Self { points, at: 0, speed }
    }

    /// All its points.
    pub(in super::super) fn points(&mut self) -> &mut [u16] {
        &mut self.points
    }

    /// The refined chance in 65536ths.
    pub(in super::super) fn refine(&mut self, mixed: i32, context: usize) -> i32 {
        let mixed = mixed.clamp(-2047, 2047);
        let (place, part) = (((mixed + 2048) / 128) as usize, (mixed + 2048) % 128);
        let at = context * 33 + place;
        self.at = at + usize::from(part >= 64);
        (i32::from(self.points[at]) * (128 - part) + i32::from(self.points[at + 1]) * part) >> 7
    }

    /// Learns what came.
    pub(in super::super) fn learn(&mut self, bit: bool) {
        step(&mut self.points[self.at], bit, self.speed);
    }
}

/// Moves a chance towards a bit by a power of two of the difference.
pub(in super::super) fn step(chance: &mut u16, bit: bool, rate: u32) {
    let wrong = flipped(*chance, bit);
    *chance = flipped(wrong - (wrong >> rate), bit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_move_towards_the_input_that_is_right_and_stay_within_bounds() {
        let mut mixer = Mixer::new(8, &[1], 1000, 400);
        let mut mixed = [0];
        for _ in 0..10_000 {
            let inputs = [2047, -2047, 0, 0, 0, 0, 0, 300];
            mixer.mix(&inputs, &[0], &mut mixed);
            mixer.learn(&inputs, true);
        }
        assert!(mixed[0] > 1500, "{mixed:?}");
    }
}
