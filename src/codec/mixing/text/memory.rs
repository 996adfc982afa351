//! Where the contexts keep what they have seen: lines of sixteen slots, a slot for each bit of half a byte.

use super::super::logistic::flipped;
use super::mixer::step;
use super::place::hash;
use super::states::{States, UNSEEN};

/// A context's lines are found in so many slots.
pub(in super::super) const SLOT_BITS: u32 = 18;
/// Slots to a line: as many as one fetch from memory brings.
pub(in super::super) const LINE: usize = 16;

/// What one context has seen of one bit.
#[derive(Clone, Copy, Default, Debug)]
pub(in super::super) struct Slot {
    /// Chance of a one in 65536ths.
    pub(in super::super) chance: u16,
    pub(in super::super) state: u8,
    /// Guards against another context in the same place; never 0 where one has been.
    check: u8,
}

/// Where a context's line for half a byte is, as far as its memory reaches, the bits before in the byte being `partial` under a leading one,
/// and its check. The lowest bits say where in the line it begins, so that contexts that share a line by chance begin in different slots.
pub(in super::super) fn line(context: u32, partial: usize) -> (usize, u8) {
    let mixed = hash(context, partial as u32);
    (mixed as usize, (mixed >> 24) as u8 | 1)
}

/// Where in its line the slot for a bit is: one of two places, the less experienced of which gives way to a new context.
#[inline]
pub(in super::super) fn find(line: &mut [Slot; LINE], at: usize, check: u8) -> usize {
    let (at, other) = (at % LINE, (at ^ 9) % LINE);
    if line[at].check == check {
        return at;
    }
    if line[other].check == check {
        return other;
    }
    let victim = if line[other].state < line[at].state { other } else { at };
    line[victim] = Slot { chance: 32_768, state: UNSEEN, check };
    victim
}

impl Slot {
    /// Learns what the bit was, and teaches the chance of the state it was in.
    #[inline]
    pub(in super::super) fn learn(&mut self, learned: &mut [u16; 256], states: &States, bit: bool) {
        step(&mut learned[usize::from(self.state)], bit, 6);
        // Fast at first, slower with experience.
        let wrong = flipped(self.chance, bit);
        let step = (u32::from(wrong) * states.rate(self.state)) >> 16;
        self.chance = flipped(wrong - step as u16, bit);
        self.state = states.after(self.state, bit);
    }
}

/// The place in a line of the bits so far of this half of the byte.
pub(in super::super) fn node(partial: usize) -> usize {
    let node = if partial < 16 { partial } else { partial & 15 >> (7 - partial.ilog2()) | 1 << (partial.ilog2() - 4) };
    (node * 5) & 15
}

/// The bits so far of a byte, those of a capital letter as those of the small one.
pub(in super::super) fn fold(partial: usize) -> usize {
    let bits = partial.ilog2();
    if bits >= 3 && partial >> (bits - 3) == 0b1010 { partial | 1 << (bits - 3) } else { partial }
}
