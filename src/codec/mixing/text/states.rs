//! What a context remembers of one bit: one byte, a state of a small machine.
//!
//! Up to four bits are remembered in their order, later how many zeros and ones there were and which came last. A long run of one value
//! is cut back when the other comes, because the recent past tells more. [`super::Model`] learns a chance for each state.

use std::sync::LazyLock;

/// The states and where each bit leads from them; the same on every machine, built at first use.
pub(in super::super) static STATES: LazyLock<States> = LazyLock::new(States::build);

/// Nothing seen yet.
pub(in super::super) const UNSEEN: u8 = 0;

/// The machine.
pub(in super::super) struct States {
    next: [[u8; 2]; 256],
    counts: [(u8, u8); 256],
    /// Share of the difference, in 65536ths, by which a chance moves that has seen so many.
    rates: [u32; 256],
}

impl States {
    fn build() -> Self {
        let mut known = vec![Memory { zeros: 0, ones: 0, recent: 0 }];
        let mut states = Self { next: [[0; 2]; 256], counts: [(0, 0); 256], rates: [0; 256] };
        let mut at = 0;
        while let Some(memory) = known.get(at).copied() {
            states.counts[at] = (memory.zeros, memory.ones);
            states.rates[at] = 65_536 * 2 / (2 * u32::from(memory.zeros + memory.ones) + 3);
            for bit in 0..2 {
                let after = memory.after(bit);
                let place = known.iter().position(|m| *m == after).unwrap_or(known.len());
                if place == known.len() {
                    known.push(after);
                }
                states.next[at][usize::from(bit)] = place as u8;
            }
            at += 1;
        }
        assert!(known.len() <= 256, "a state is a byte");
        states
    }

    /// The state after a bit.
    pub(in super::super) fn after(&self, state: u8, bit: bool) -> u8 {
        self.next[usize::from(state)][usize::from(bit)]
    }

    /// How fast a chance moves in a state, in 65536ths: fast at first, slower with experience.
    pub(in super::super) fn rate(&self, state: u8) -> u32 {
        self.rates[usize::from(state)]
    }

    /// Zeros and ones remembered.
    pub(in super::super) fn counts(&self, state: u8) -> (u8, u8) {
        self.counts[usize::from(state)]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Memory {
    zeros: u8,
    ones: u8,
    /// The bits themselves while there are up to four, the last one from then on.
    recent: u8,
}

/// How many of one value are told apart, by how many of the other are remembered.
const MOST: [u8; 6] = [60, 32, 14, 9, 6, 5];
/// What is left of so many of one value when the other comes.
const CUT: [u8; 10] = [0, 1, 2, 2, 3, 3, 4, 4, 5, 5];

impl Memory {
    fn after(self, bit: u8) -> Self {
        let (mut same, mut other) = if bit == 1 { (self.ones, self.zeros) } else { (self.zeros, self.ones) };
        let before = same + other;
        same += 1;
        if other > 2 && before >= 4 {
            other = CUT[usize::from(other).min(CUT.len() - 1)];
        }
        other = other.min(MOST.len() as u8 - 1);
        same = same.min(MOST[usize::from(other)]);
        let now = same + other;
        let recent = if now <= 4 && before < 4 { (self.recent << 1 | bit) & ((1 << now) - 1) } else { bit };
        let (zeros, ones) = if bit == 1 { (other, same) } else { (same, other) };
        Self { zeros, ones, recent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_fit_a_byte_and_keep_to_the_last_bit_and_the_greater_number() {
        let run = |bits: &[bool]| bits.iter().fold(UNSEEN, |state, bit| STATES.after(state, *bit));
        assert_eq!(STATES.counts(UNSEEN), (0, 0));
        assert_eq!(STATES.counts(run(&[true; 10])), (0, 10));
        assert_eq!(STATES.counts(run(&[true; 500])), (0, 60));
        assert_ne!(run(&[true, false]), run(&[false, true]));
        let broken: Vec<bool> = (0..31).map(|i| i < 30).collect();
        assert_eq!(STATES.counts(run(&broken)), (1, 5), "a long run is cut back by its end");
    }
}
