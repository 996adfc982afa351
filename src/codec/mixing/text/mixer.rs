//! Chances in the logistic domain, and the weighing of many into one.

/// `65536 / (1 + e^(-x/256))`, by interpolation between exact values.
pub(super) const fn squash(x: i32) -> i32 {
    const AT: [i32; 33] = [
        22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911,
        53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
    ];
    let x = if x > 2047 {
        4095
    } else if x < -2047 {
        1
    } else {
        x + 2048
    };
    let (place, part) = ((x >> 7) as usize, x & 127);
    (AT[place] * (128 - part) + AT[place + 1] * part) >> 7
}

/// The inverse of [`squash`].
pub(super) fn stretch(chance: u16) -> i16 {
    STRETCHED[usize::from(chance >> 4)]
}

static STRETCHED: [i16; 4096] = {
    let mut table = [2047; 4096];
    let mut from = 0;
    let mut x = -2047;
    while x <= 2047 {
        let to = (squash(x as i32) >> 4) as usize;
        while from <= to {
            table[from] = x;
            from += 1;
        }
        x += 1;
    }
    table
};

/// Several sets of weights over the same inputs; one weight set of each is in use at a time.
#[derive(Clone, Debug)]
pub(super) struct Mixer {
    /// In 32768ths.
    weights: Vec<i16>,
    inputs: usize,
    /// Where each selector's weight sets begin.
    starts: Vec<usize>,
    chosen: Vec<usize>,
    mixed: Vec<i32>,
    rate: i32,
}

impl Mixer {
    /// A mixer of `inputs` with one selector for each of `choices`, all weights at `first` 32768ths.
    pub(super) fn new(inputs: usize, choices: &[usize], first: i16, rate: i32) -> Self {
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
            rate,
        }
    }

    /// What each selector's weights make of the inputs, in the logistic domain.
    pub(super) fn mix(&mut self, inputs: &[i16], selectors: &[usize], mixed: &mut [i16]) {
        for (i, selector) in selectors.iter().enumerate() {
            let at = (self.starts[i] + selector) * self.inputs;
            self.chosen[i] = at;
            let weights = &self.weights[at..at + self.inputs];
            // Wraps only where every input and weight is at its limit, and then at both ends alike.
            let sum =
                weights.iter().zip(inputs).fold(0i32, |sum, (w, x)| sum.wrapping_add(i32::from(*w) * i32::from(*x)));
            self.mixed[i] = (sum >> 15).clamp(-2047, 2047);
            mixed[i] = self.mixed[i] as i16;
        }
    }

    /// Moves the weights in use towards the inputs that were right.
    pub(super) fn learn(&mut self, inputs: &[i16], bit: bool) {
        let target = if bit { 65_535 } else { 0 };
        for (at, mixed) in self.chosen.iter().zip(&self.mixed) {
            // Twice the step, which the last shift rounds.
            let error = (((target - squash(*mixed)) * self.rate) >> 8).clamp(-32_767, 32_767) as i16;
            // So small an error would move no weight: most bits are as expected.
            if error.abs() < 32 {
                continue;
            }
            let weights = &mut self.weights[*at..*at + self.inputs];
            for (weight, input) in weights.iter_mut().zip(inputs) {
                let step = ((i32::from(*input) * i32::from(error)) >> 16) as i16;
                *weight = weight.saturating_add((step + 1) >> 1);
            }
        }
    }
}

/// Refines a chance by how often chances like it came true in a context; 33 points on the logistic axis for each.
#[derive(Clone, Debug)]
pub(super) struct Refinement {
    points: Vec<u16>,
    at: usize,
    speed: u32,
}

impl Refinement {
    /// One that changes nothing yet.
    pub(super) fn new(contexts: usize, speed: u32) -> Self {
        let points = (0..contexts * 33).map(|i| squash((i % 33) as i32 * 128 - 2048).min(65_535) as u16).collect();
        Self { points, at: 0, speed }
    }

    /// The refined chance in 65536ths.
    pub(super) fn refine(&mut self, mixed: i32, context: usize) -> i32 {
        let mixed = mixed.clamp(-2047, 2047);
        let (place, part) = (((mixed + 2048) / 128) as usize, (mixed + 2048) % 128);
        let at = context * 33 + place;
        self.at = at + usize::from(part >= 64);
        (i32::from(self.points[at]) * (128 - part) + i32::from(self.points[at + 1]) * part) >> 7
    }

    /// Learns what came.
    pub(super) fn learn(&mut self, bit: bool) {
        step(&mut self.points[self.at], bit, self.speed);
    }
}

/// Moves a chance towards a bit by a power of two of the difference.
pub(super) fn step(chance: &mut u16, bit: bool, rate: u32) {
    if bit {
        *chance += (65_535 - *chance) >> rate;
    } else {
        *chance -= *chance >> rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_convert_both_ways_and_are_never_certain() {
        for x in (-2047..=2047).step_by(89) {
            assert!((i32::from(stretch(squash(x) as u16)) - x).abs() < 160, "{x}");
        }
        assert!(squash(-2047) > 0 && squash(2047) < 65_536);
        assert!((1..4096u16).all(|i| stretch(i << 4) >= stretch((i - 1) << 4)));
    }

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
