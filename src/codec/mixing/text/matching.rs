//! Predictions from the last place where the bytes before were the same.

use super::super::logistic::stretch;
use super::mixer::step;

/// What [`Match`] gives for each bit.
pub(in super::super) const MATCH_INPUTS: usize = 2;

/// Follows the latest occurrence of the last bytes, and goes on behind a byte that differed.
#[derive(Clone, Debug)]
pub(in super::super) struct Match {
    /// Bytes that must agree before an occurrence is followed.
    least: usize,
    /// Where each hash of the last bytes was last seen; a power of two of them.
    places: Vec<u32>,
    at: usize,
    length: usize,
    /// Bytes that differed lately, newest in the lowest bit.
    missed: u8,
    /// Chance that the expected bit comes, by class.
    holds: Vec<u16>,
    class: usize,
    expected: Option<bool>,
}

/// So many misses within eight bytes end it.
const MOST_MISSES: u32 = 5;
const LONGEST: usize = 400;

impl Match {
    /// One that remembers two to the power of `bits` places.
    pub(in super::super) fn new(least: usize, bits: u32) -> Self {
        Self {
            least,
            places: vec![0; 1 << bits],
            at: 0,
            length: 0,
            missed: 0,
            holds: vec![58_000; 16 * 64],
            class: 0,
            expected: None,
        }
    }

    /// Takes up the byte just added to `seen`.
    pub(in super::super) fn follow(&mut self, seen: &[u8]) {
        let end = seen.len();
        let byte = seen[end - 1];
        if self.at > 0 {
            if seen.get(self.at).is_some_and(|same| *same == byte) {
                self.length = (self.length + 1).min(LONGEST);
                self.missed <<= 1;
            } else {
                self.length = 0;
                self.missed = self.missed << 1 | 1;
            }
            self.at += 1;
            if self.missed.count_ones() > MOST_MISSES {
                self.at = 0;
            }
        }
        if end < self.least {
            return;
        }
        let hash = seen[end - self.least..].iter().fold(0u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x2c1b_3c6d));
        let place = ((hash ^ hash >> 15).wrapping_mul(0x9e37_79b1)
            >> (self.places.len().leading_zeros() + 1 - (usize::BITS - u32::BITS))) as usize;
        if self.at == 0 || self.length < self.least {
            let earlier = self.places[place] as usize;
            let mut length = 0;
            while length < 32 && earlier > length && seen[earlier - 1 - length] == seen[end - 1 - length] {
                length += 1;
            }
            if length >= self.least && length > self.length {
                (self.at, self.length, self.missed) = (earlier, length, 0);
            }
        }
        self.places[place] = end as u32;
    }

    /// The byte expected next.
    pub(in super::super) fn byte(&self, seen: &[u8]) -> Option<u8> {
        if self.at == 0 { None } else { seen.get(self.at).copied() }
    }

    /// How much is known to agree, in 16 steps; 0 is none.
    pub(in super::super) fn strength(&self) -> usize {
        match self.length {
            _ if self.at == 0 => 0,
            length @ 0..=8 => 1 + length / 2,
            length @ 9..=32 => 4 + length / 4,
            33..=63 => 13,
            64..=199 => 14,
            _ => 15,
        }
    }

    /// Its inputs for the next bit, the bits so far of the byte being `partial` under a leading one.
    pub(in super::super) fn inputs(&mut self, seen: &[u8], partial: usize, inputs: &mut [i16]) {
        inputs.fill(0);
        self.expected = self.byte(seen).and_then(|byte| {
            let (byte, bits) = (usize::from(byte) | 0x100, partial.ilog2());
            (byte >> (8 - bits) == partial).then_some(byte >> (7 - bits) & 1 == 1)
        });
        let Some(expected) = self.expected else { return };
        let misses = usize::from(self.missed & 7) | usize::from(self.missed > 7) << 3;
        self.class =
            self.strength() * 64 + misses.min(15) * 4 + usize::from(partial == 1) + 2 * usize::from(partial > 15);
        let holds = stretch(self.holds[self.class]);
        let holding = (i32::from(self.holds[self.class]) - 32_768) >> 5;
        inputs[0] = if expected { holds } else { -holds };
        inputs[1] = if expected { holding } else { -holding } as i16;
    }

    /// Predicts nothing of the next bit.
    pub(in super::super) fn abstain(&mut self, inputs: &mut [i16]) {
        inputs.fill(0);
        self.expected = None;
    }

    /// How often what it expected came, by class.
    pub(in super::super) fn holds(&mut self) -> &mut [u16] {
        &mut self.holds
    }

    /// Whether a bit is predicted at all.
    pub(in super::super) fn predicts(&self) -> Option<bool> {
        self.expected
    }

    pub(in super::super) fn learn(&mut self, bit: bool) {
        if let Some(expected) = self.expected {
            step(&mut self.holds[self.class], expected == bit, 6);
        }
    }
}
