//! Reading a text quickly: what follows on what is learned as if it were coded, what to make of it is not.
//!
//! A model reads its dictionary so when it begins. Each context's memory is filled on its own, so that it stays in the processor's cache.

use std::sync::LazyLock;

use super::memory::{LINE, SLOT_BITS, Slot, find, fold, line, node};
use super::states::STATES;
use super::{FOLDED, Model, ORDERS};

/// So much is skimmed at once; its contexts take 28 times four bytes each.
pub(in super::super) const AT_ONCE: usize = 16 * 1024;

/// What one context has to learn from.
pub(in super::super) struct Lesson<'a> {
    pub(in super::super) slots: &'a mut [Slot],
    pub(in super::super) learned: &'a mut [u16; 256],
    pub(in super::super) contexts: &'a [u32],
    pub(in super::super) folded: bool,
}

impl Model {
    /// Learns what follows on what in `text`, many times quicker than by reading.
    pub(super) fn skim(&mut self, text: &[u8]) {
        let mut noted: [Vec<u32>; ORDERS] = std::array::from_fn(|_| Vec::with_capacity(text.len().min(AT_ONCE)));
        for text in text.chunks(AT_ONCE) {
            noted.iter_mut().for_each(Vec::clear);
            for &byte in text {
                self.note_contexts();
                noted.iter_mut().zip(self.contexts).for_each(|(noted, context)| noted.push(context));
                self.end_byte(byte);
            }
            let memories = self.slots.chunks_exact_mut(1 << SLOT_BITS).zip(&mut self.learned);
            for (order, ((slots, learned), contexts)) in memories.zip(&noted).enumerate() {
                Lesson { slots, learned, contexts, folded: order < FOLDED }.learn(text);
            }
        }
        self.begin_byte();
    }
}

impl Lesson<'_> {
    pub(in super::super) fn learn(self, text: &[u8]) {
        // As many as a power of two.
        let mask = self.slots.len() - 1;
        let (states, paths) = (&*STATES, &PATHS[usize::from(self.folded)]);
        for (&context, &byte) in self.contexts.iter().zip(text) {
            let path = &paths[usize::from(byte)];
            let high = 16 | usize::from(byte >> 4);
            for (half, before) in [1, if self.folded { fold(high) } else { high }].into_iter().enumerate() {
                let (at, check) = line(context, before);
                let line: &mut [Slot] = &mut self.slots[at & mask & !(LINE - 1)..][..LINE];
                let line: &mut [Slot; LINE] = line.try_into().expect("so long by the line before");
                for (bit, place) in (half * 4..).zip(&path[half * 4..][..4]) {
                    let slot = &mut line[find(line, at ^ usize::from(*place), check)];
                    slot.learn(self.learned, states, byte >> (7 - bit) & 1 == 1);
                }
            }
        }
    }
}

/// For each byte the places in their lines of its eight bits; in the second table with letters of either case in the same places.
static PATHS: LazyLock<[[[u8; 8]; 256]; 2]> = LazyLock::new(|| {
    let place = |partial: usize, folded: bool| node(if folded { fold(partial) } else { partial }) as u8;
    [false, true]
        .map(|folded| std::array::from_fn(|byte| std::array::from_fn(|bit| place((byte | 0x100) >> (8 - bit), folded))))
});
