//! The text model, codec 4: 28 contexts of letters, words, fields, columns and shapes, and four matches.
//!
//! Six of the contexts take no notice of case, so that a telegram in capitals is as familiar as a letter. [`place`] follows where in a mail
//! a byte stands, [`matching`] follows earlier text (one match through the marks and line ends of quotations), [`mixer`] weighs what
//! they predict: seven sets of weights chosen by seven facts, and a last mixer over these.

pub mod experience;
pub(super) mod matching;
pub(super) mod memory;
pub(super) mod mixer;
pub(super) mod place;
pub(super) mod skim;
pub(super) mod states;

pub use super::coder::{decode, encode};

use super::coder::Predictor;
use super::logistic::{squash, stretch};
use matching::{MATCH_INPUTS, Match};
use memory::{LINE, SLOT_BITS, Slot, find, fold, line, node};
use mixer::{Mixer, Refinement};
use place::{KINDS, Place, RUN_CLASSES, class, hash};
use states::{STATES, UNSEEN};

/// Longest input, so that one payload never costs more than two seconds at either end.
pub const MAX_BYTES: usize = 256 * 1024;

/// Of a history so much is known, the newest.
const RECALLED_BYTES: usize = 128 * 1024;
/// Of that so much is read as closely as what is coded, and so much before it is skimmed: the work stays a fraction of a short message's
/// allowance.
const READ_BYTES: usize = 4 * 1024;
const SKIMMED_BYTES: usize = 12 * 1024;
/// What a history costs at most, in bytes that are coded.
pub const RECALL_COST_BYTES: usize = 2 * READ_BYTES;

/// How fast weights move.
const WEIGHING_RATE: i32 = 160;

/// Hashed contexts.
const ORDERS: usize = 28;
/// The first of them take no notice of case.
const FOLDED: usize = 6;
/// Inputs of each.
const PER_ORDER: usize = 3;
const MATCHES: [usize; 3] = [4, 7, 14];
/// How many places matches remember, as a power of two.
const PLACE_BITS: u32 = 18;
const INPUTS: usize = (ORDERS * PER_ORDER + (MATCHES.len() + 1) * MATCH_INPUTS + 1).next_multiple_of(8);
/// The choices of each selector of weights.
const SELECTORS: [usize; 7] = [256, 16 * 16, 256, KINDS * 8 * 8, 16 * 16 * 8, RUN_CLASSES, 16 * 16];
const LAST_SELECTORS: [usize; 3] = [256, KINDS * 8, RUN_CLASSES];
/// What the first mixer makes, with room to a power of two.
const MIXED: usize = 8;
/// The predictor and everything it has learned.
#[derive(Clone, Debug)]
pub struct Model {
    slots: Vec<Slot>,
    /// Per order and state: chance of a one in 65536ths.
    learned: Vec<[u16; 256]>,
    contexts: [u32; ORDERS],
    /// Of each context's bits in this half of the byte.
    lines: [usize; ORDERS],
    checks: [u8; ORDERS],
    found: [usize; ORDERS],
    /// Everything seen, the dictionary included.
    seen: Vec<u8>,
    place: Place,
    matches: [Match; MATCHES.len()],
    /// Seen without quotation marks and line ends, and the match there.
    plain: Vec<u8>,
    plain_match: Match,
    /// What followed the last occurrences of each byte and pair.
    after_one: Vec<u16>,
    after_two: Vec<u16>,
    inputs: [i16; INPUTS],
    mixed: [i16; MIXED],
    mixer: Mixer,
    last_mixer: Mixer,
    refinements: [Refinement; 3],
    /// Bits of the present byte under a leading one.
    partial: usize,
}

impl Model {
    /// A model that knows how to weigh and has read `dictionary`.
    pub fn primed(dictionary: &[u8]) -> Self {
        let mut model = Self::even();
        model.gain_experience();
        model.skim(dictionary);
        model
    }

    /// A model that has read nothing and weighs all alike.
    fn even() -> Self {
        let states = std::array::from_fn(|state| {
            let (zeros, ones) = STATES.counts(state as u8);
            ((u32::from(ones) * 2 + 1) * 65_535 / (u32::from(zeros + ones) * 2 + 2)) as u16
        });
        let mut model = Self {
            slots: vec![Slot::default(); ORDERS << SLOT_BITS],
            learned: vec![states; ORDERS],
            contexts: [0; ORDERS],
            lines: [0; ORDERS],
            checks: [0; ORDERS],
            found: [0; ORDERS],
            seen: Vec::with_capacity(MAX_BYTES),
            place: Place::default(),
            matches: MATCHES.map(|least| Match::new(least, PLACE_BITS)),
            plain: Vec::with_capacity(MAX_BYTES),
            plain_match: Match::new(8, PLACE_BITS),
            after_one: vec![0; 256],
            after_two: vec![0; 65_536],
            inputs: [0; INPUTS],
            mixed: [0; MIXED],
            mixer: Mixer::new(INPUTS, &SELECTORS, 1_500, WEIGHING_RATE),
            last_mixer: Mixer::new(MIXED, &LAST_SELECTORS, 4_500, 100),
            refinements: [Refinement::new(256, 6), Refinement::new(65_536, 6), Refinement::new(65_536, 6)],
            partial: 1,
        };
        model.begin_byte();
        model
    }

    /// Reads on where this model stopped, quickly: a dictionary of a site behind the shipped one.
    pub fn read_on(&mut self, dictionary: &[u8]) {
        self.skim(dictionary);
    }

    /// Reads earlier messages: their end as if it were coded, what stands before quickly, and the oldest only so far that it can be quoted.
    pub fn recall(&mut self, history: &[u8]) {
        let (_, history) = history.split_at(history.len().saturating_sub(RECALLED_BYTES));
        let (history, read) = history.split_at(history.len().saturating_sub(READ_BYTES));
        let (known, skimmed) = history.split_at(history.len().saturating_sub(SKIMMED_BYTES));
        for &byte in known {
            self.end_byte(byte);
        }
        self.skim(skimmed);
        self.read(read);
    }

    /// Finds each context's slot for the next bit.
    fn look_up(&mut self) {
        let nodes = [node(fold(self.partial)), node(self.partial)];
        for order in 0..ORDERS {
            self.found[order] = self.find(order, nodes[usize::from(order >= FOLDED)]);
        }
    }

    /// Teaches each context's slot what the bit was.
    fn remember(&mut self, bit: bool) {
        let states = &*STATES;
        for order in 0..ORDERS {
            self.slots[self.found[order]].learn(&mut self.learned[order], states, bit);
        }
    }

    fn go_on(&mut self, bit: bool) {
        self.partial = self.partial << 1 | usize::from(bit);
        match self.partial {
            256.. => {
                self.end_byte((self.partial & 0xff) as u8);
                self.begin_byte();
            }
            16..32 => self.begin_half(),
            _ => {}
        }
    }

    fn last(&self, back: usize) -> u8 {
        self.seen.len().checked_sub(back).map_or(0, |at| self.seen[at])
    }

    /// The slot of a context for the next bit: one of two in the line of this half byte.
    fn find(&mut self, order: usize, node: usize) -> usize {
        let at = order << SLOT_BITS | self.lines[order];
        let line: &mut [Slot] = &mut self.slots[at & !(LINE - 1)..][..LINE];
        let line: &mut [Slot; LINE] = line.try_into().expect("so long by the line before");
        at & !(LINE - 1) | find(line, at ^ node, self.checks[order])
    }

    fn begin_half(&mut self) {
        let folded = fold(self.partial);
        for order in 0..ORDERS {
            let partial = if order < FOLDED { folded } else { self.partial };
            let (at, check) = line(self.contexts[order], partial);
            (self.lines[order], self.checks[order]) = (at & ((1 << SLOT_BITS) - 1), check);
        }
        // All lines asked for at once arrive together; one by one, each bit would wait for each.
        let mut touched = 0;
        for order in 0..ORDERS {
            touched ^= u32::from(self.slots[order << SLOT_BITS | self.lines[order]].chance);
        }
        std::hint::black_box(touched);
    }

    fn end_byte(&mut self, byte: u8) {
        let (one, two) = (usize::from(self.last(1)), usize::from(self.last(2)));
        self.after_one[one] = self.after_one[one] << 8 | u16::from(byte);
        self.after_two[two << 8 | one] = self.after_two[two << 8 | one] << 8 | u16::from(byte);
        self.seen.push(byte);
        self.place.follow(&self.seen);
        for found in &mut self.matches {
            found.follow(&self.seen);
        }
        let mark = match byte {
            b'\r' | b'\n' | b'\t' | b' ' => Some(b' '),
            b'>' if self.place.kind == place::Kind::Quote && self.opening_mark() => None,
            _ => Some(byte),
        };
        if let Some(mark) = mark
            && !(mark == b' ' && self.plain.last() == Some(&b' '))
        {
            self.plain.push(mark);
            self.plain_match.follow(&self.plain);
        }
    }

    /// Whether this line so far is marks of quotation only.
    fn opening_mark(&self) -> bool {
        self.seen[self.place.line..].iter().all(|b| matches!(b, b'>' | b' '))
    }

    fn begin_byte(&mut self) {
        self.partial = 1;
        self.note_contexts();
        self.begin_half();
    }

    /// Names what the next byte follows on.
    fn note_contexts(&mut self) {
        let back = |n: usize| u32::from(self.last(n));
        let small = |n: usize| u32::from(self.last(n).to_ascii_lowercase());
        let (mut orders, mut folded) = ([0u32; 7], [0u32; 7]);
        for n in 1..orders.len() {
            orders[n] = hash(orders[n - 1], back(n) + 1);
            folded[n] = hash(folded[n - 1], small(n) + 1);
        }
        let place = &self.place;
        let column = (self.seen.len() - place.line).min(255) as u32;
        let above = |n: usize| {
            let at = place.above + self.seen.len() - place.line + n;
            if at < place.line { u32::from(self.seen[at]) } else { 0 }
        };
        let expected = self
            .matches
            .iter()
            .rev()
            .find_map(|m| m.byte(&self.seen).map(|b| (u32::from(b) + 1) << 4 | m.strength() as u32));
        let expected = expected.unwrap_or(0);
        let plain = self.plain_match.byte(&self.plain).map_or(0, |b| u32::from(b) + 1);
        let one = u32::from(self.after_one[usize::from(self.last(1))]);
        let two = u32::from(self.after_two[usize::from(self.last(2)) << 8 | usize::from(self.last(1))]);
        let shape = place.shape;
        let contexts = [
            hash(place.word, small(1)),
            hash(hash(place.word, place.words[0]), small(1)),
            folded[3],
            folded[4],
            folded[5],
            hash(hash(place.word, place.words[1]), 3),
            0,
            orders[1],
            orders[2],
            orders[3],
            orders[4],
            orders[6],
            hash(place.field, hash(place.token, place.word)),
            hash(place.field, orders[2]),
            hash(place.field, hash(place.token, (shape & 0xff) as u32)),
            hash(column, above(0)),
            hash(orders[1], hash(above(0), above(1))),
            hash(back(2), back(3) << 8),
            hash(expected, back(1)),
            hash(plain, hash(place.kind as u32, (shape & 0xff) as u32)),
            (shape as u32) ^ (shape >> 32) as u32 & 0xff,
            hash((shape & 0xffff) as u32, place.field),
            hash(one, back(1)),
            hash(two, orders[2]),
            hash(place.opening, hash(place.word, column.min(2))),
            hash(place.run(24), 5),
            hash(place.run(40), place.field),
            hash(place.dated(&self.seen), hash(back(1), place.kind as u32)),
        ];
        self.contexts = contexts;
    }
}

impl Predictor for Model {
    fn predict(&mut self) -> u32 {
        let mut hits = 0;
        let bits = self.partial.ilog2() as usize;
        self.look_up();
        for order in 0..ORDERS {
            let slot = self.slots[self.found[order]];
            let inputs = &mut self.inputs[order * PER_ORDER..(order + 1) * PER_ORDER];
            if slot.state == UNSEEN {
                inputs.fill(0);
            } else {
                hits += usize::from(order < 12);
                let learned = self.learned[order][usize::from(slot.state)];
                inputs[0] = stretch(slot.chance);
                inputs[1] = stretch(learned);
                inputs[2] = ((i32::from(learned) - 32_768) >> 5) as i16;
            }
        }
        let mut input = ORDERS * PER_ORDER;
        for found in &mut self.matches {
            found.inputs(&self.seen, self.partial, &mut self.inputs[input..input + MATCH_INPUTS]);
            input += MATCH_INPUTS;
        }
        self.plain_match.inputs(&self.plain, self.partial, &mut self.inputs[input..input + MATCH_INPUTS]);
        self.inputs[input + MATCH_INPUTS] = 256;
        let longest = self.matches.iter().rev().find(|m| m.predicts().is_some()).map_or(0, Match::strength);
        let plain = if self.plain_match.predicts().is_some() { self.plain_match.strength() } else { 0 };
        let kind = self.place.kind as usize;
        let last = usize::from(self.last(1));
        let selectors = [
            self.partial,
            longest * 16 + hits.min(15),
            last,
            (kind * 8 + bits) * 8 + (self.place.token as usize).min(7),
            (usize::from(class(self.last(1))) * 16 + usize::from(class(self.last(2)))) * 8 + bits,
            self.place.run_class(),
            longest * 16 + plain,
        ];
        self.mixer.mix(&self.inputs, &selectors, &mut self.mixed);
        let mut last_mixed = [0; 3];
        self.last_mixer.mix(&self.mixed, &[self.partial, kind * 8 + longest / 2, selectors[5]], &mut last_mixed);
        let mixed = last_mixed.iter().map(|m| i32::from(*m)).sum::<i32>() / 3;
        let two = hash(self.contexts[FOLDED + 2], self.partial as u32) & 0xffff;
        let refined = [
            self.refinements[0].refine(mixed, self.partial),
            self.refinements[1].refine(mixed, last << 8 | self.partial),
            self.refinements[2].refine(mixed, two as usize),
        ];
        let chance = squash(mixed) + refined[0] + refined[1] + refined[2];
        (chance / 4).clamp(24, 65_535 - 24) as u32
    }

    fn update(&mut self, bit: bool) {
        self.mixer.learn(&self.inputs, bit);
        self.last_mixer.learn(&self.mixed, bit);
        for refinement in &mut self.refinements {
            refinement.learn(bit);
        }
        self.remember(bit);
        for found in &mut self.matches {
            found.learn(bit);
        }
        self.plain_match.learn(bit);
        self.go_on(bit);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static PRIMED: LazyLock<Model> =
        LazyLock::new(|| Model::primed(b"From: ops@ship.example\r\nTo: ops@shore.example\r\nSubject: fuel state\r\n"));

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_coded_bytes_are_pinned_because_they_are_a_wire_format() {
        let mut model = PRIMED.clone();
        model.recall(b"Message-ID: <1@ship.example>\r\n\r\nThe pump has failed again.\r\n");
        let input = b"From: ops@ship.example\r\nSubject: FUEL STATE\r\n\r\n> The pump has failed\r\n> again.\r\n\r\nFUEL 62 PCT.\r\n";
        let coded = encode(model.clone(), input);
        assert_eq!(hex(&coded), "89580384eb0e6994a929c9b69e050de774ad018c68cf232f3aeeb7b43c87");
        assert_eq!(decode(model, &coded, input.len()), input);
    }

    #[test]
    fn a_text_skimmed_in_pieces_teaches_the_same() {
        let text: Vec<u8> = (0..4000u32)
            .flat_map(|i| format!("Stage {} of {}, wind {}.\r\n", i, i * i % 97, i % 7).into_bytes())
            .collect();
        let whole = Model::primed(&text);
        let mut pieces = Model::primed(&[]);
        text.chunks(1000).for_each(|piece| pieces.read_on(piece));
        let next = b"Stage 4000 of 3, wind 5.\r\nAll well.\r\n";
        assert!(text.len() > 64 * 1024, "skimmed in two goes");
        assert_eq!(encode(whole, next), encode(pieces, next));
    }

    #[test]
    fn repetition_costs_next_to_nothing() {
        let input = b"Wind 180 at 82 knots, visibility 14 km. ".repeat(200);
        let coded = encode(PRIMED.clone(), &input);
        assert!(coded.len() < 100, "{}", coded.len());
        assert_eq!(decode(PRIMED.clone(), &coded, input.len()), input);
    }

    #[test]
    fn capitals_are_known_from_small_letters() {
        let said =
            "request transport for twenty passengers and their equipment to the northern airfield before sunset\r\n";
        let cost = |history: &str| {
            let mut model = PRIMED.clone();
            model.recall(history.as_bytes());
            encode(model, said.to_uppercase().as_bytes()).len()
        };
        assert!(cost(said) * 3 < cost("") * 2, "{} {}", cost(said), cost(""));
    }

    #[test]
    fn a_quotation_wrapped_anew_is_cheap() {
        let said = "The generator of the camp was repaired on Tuesday, but the voltage still drops whenever the pump starts.\r\n\
                    We have therefore ordered a second regulator, which the next convoy should bring along with the filters.\r\n";
        let quoted = "> The generator of the camp was repaired on Tuesday,\r\n> but the voltage still drops whenever the pump\r\n\
                      > starts. We have therefore ordered a second\r\n> regulator, which the next convoy should bring along\r\n> with the filters.\r\n";
        let mut model = PRIMED.clone();
        model.recall(said.as_bytes());
        let with = encode(model, quoted.as_bytes()).len();
        assert!(with * 3 < encode(PRIMED.clone(), quoted.as_bytes()).len(), "{with}");
    }

    #[test]
    fn of_a_long_history_the_end_is_known_and_the_work_is_bounded() {
        let old = b"Quite unlike anything else: seventeen oboes fled into the quagmire after the xylophone.\r\n";
        let mut near = PRIMED.clone();
        near.recall(&[old.as_slice(), &b"filler in between. ".repeat(3000)].concat());
        assert!(encode(near, old).len() < 40, "within what is known");
        let mut far = PRIMED.clone();
        far.recall(&[old.as_slice(), &vec![b'x'; RECALLED_BYTES]].concat());
        assert!(far.seen.len() < RECALLED_BYTES + 1000);
        assert!(encode(far, old).len() > 60, "beyond it");
    }

    #[test]
    fn an_input_of_the_longest_length_comes_back() {
        let input: Vec<u8> = (0..MAX_BYTES as u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        assert_eq!(decode(PRIMED.clone(), &encode(PRIMED.clone(), &input), input.len()), input);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn any_bytes_come_back(input in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..600),
            proptest::collection::vec(prop_oneof![Just(0u8), Just(255u8)], 0..600),
            "[a-cA-C<>:=\\-\r\n ]{0,600}".prop_map(String::into_bytes),
        ]) {
            let coded = encode(PRIMED.clone(), &input);
            prop_assert!(coded.len() <= input.len() + input.len() / 2 + 8);
            prop_assert_eq!(decode(PRIMED.clone(), &coded, input.len()), input);
        }

        #[test]
        fn invented_bytes_decode_to_the_length_asked_for(noise in proptest::collection::vec(any::<u8>(), 0..300), length in 0..900usize) {
            prop_assert_eq!(decode(PRIMED.clone(), &noise, length).len(), length);
        }
    }
}
