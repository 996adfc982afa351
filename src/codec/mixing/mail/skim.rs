//! Reading a text quickly, as [`super::super::text::skim`] does it; what is of one message alone is left as it is.

use super::super::text::memory::{LINE, line};
use super::super::text::skim::{AT_ONCE, Lesson};
use super::{Model, SKIMMED, is_folded, slots_of};

impl Model {
    /// Learns what follows on what in `text`, many times quicker than by reading.
    pub(super) fn skim(&mut self, text: &[u8]) {
        let mut noted: [Vec<u32>; SKIMMED] = std::array::from_fn(|_| Vec::with_capacity(text.len().min(AT_ONCE)));
        for text in text.chunks(AT_ONCE) {
            noted.iter_mut().for_each(Vec::clear);
            for &byte in text {
                self.note_contexts();
                noted.iter_mut().zip(self.contexts).for_each(|(noted, context)| noted.push(context));
                self.end_byte(byte);
            }
            for (order, (contexts, learned)) in noted.iter().zip(&mut self.learned).enumerate() {
                let slots = &mut self.slots[slots_of(order)];
                Lesson { slots, learned, contexts, folded: is_folded(order) }.learn(text);
            }
        }
        self.begin_byte();
    }
}

/// Where in its memory a context's line begins, and its check.
pub(super) fn line_in(slots: usize, context: u32, partial: usize) -> (usize, u8) {
    let (at, check) = line(context, partial);
    (at & (slots - 1), check)
}

/// Where the line of a slot begins.
pub(super) const fn line_of(at: usize) -> usize {
    at & !(LINE - 1)
}
