//! The mail model, codec 4 with dictionary 3: the text model grown up.
//!
//! Beside 28 contexts like those of [`super::text`] it has five that know this message alone, so that what a dictionary says about a name does not
//! drown what the message says; a match that reads HTML as its text, so that it goes on as the plain text before it; [`lore`], what is
//! known of English in general; and a [`lexicon`] of its words. What it makes of all these was found on messages that were new to it ([`experience`]). Streams beyond
//! [`LEAN_BYTES`] are coded with a third of the contexts: what is long teaches itself.

pub mod experience;
pub mod lexicon;
pub mod lore;
mod named;
mod skim;

pub use super::coder::{decode, encode};

use super::coder::Predictor;
use super::logistic::{squash, stretch};
use super::text::matching::{MATCH_INPUTS, Match};
use super::text::memory::{LINE, Slot, find, fold, node};
use super::text::mixer::{Mixer, Refinement, step};
use super::text::place::{KINDS, Kind, Place, RUN_CLASSES, class, hash};
use super::text::states::{STATES, UNSEEN};
use lexicon::{Cursor, HINTS, Hint, KNOWN, WAYS};
use lore::Wording;
use named::Named;
use skim::{line_in, line_of};

/// Longest input.
pub const MAX_BYTES: usize = 256 * 1024;
/// Beyond this a stream is coded with fewer contexts, several times quicker.
pub const LEAN_BYTES: usize = 64 * 1024;
/// A byte of such a stream takes so many times less.
pub const LEAN_SPEED: usize = 3;

/// Of a history so much is known, the newest; of that so much read as closely as what is coded, and so much before it skimmed.
const RECALLED_BYTES: usize = 128 * 1024;
const READ_BYTES: usize = 4 * 1024;
const SKIMMED_BYTES: usize = 12 * 1024;
/// What a history costs at most, in bytes that are coded.
pub const RECALL_COST_BYTES: usize = 2 * READ_BYTES;

/// How fast weights move.
const WEIGHING_RATE: i32 = 160;
const LAST_WEIGHING_RATE: i32 = 100;

/// Hashed contexts.
const ORDERS: usize = 34;
/// The first of them are all there are of a long stream.
const LEAN_ORDERS: usize = 12;
/// From here on they know what was read closely and not what was skimmed: this message, and the end of a history.
const SKIMMED: usize = 29;
/// How many slots each has, as a power of two.
const SLOT_BITS: [u8; ORDERS] = [
    17, 18, 16, 17, 17, 18, 18, 18, 17, 17, 17, 17, // the lean ones
    17, 17, 18, 18, 10, 18, 18, 17, 17, 17, 17, 17, 18, 14, 16, 15, 14, // the others
    16, 16, 16, 16, 16, // of this message
];

/// Whether a context takes no notice of case.
const fn is_folded(order: usize) -> bool {
    matches!(order, 0 | 1 | 12..=15)
}

/// Where each context's slots are among all.
const STARTS: [usize; ORDERS + 1] = {
    let mut starts = [0; ORDERS + 1];
    let mut order = 0;
    while order < ORDERS {
        starts[order + 1] = starts[order] + (1 << SLOT_BITS[order]);
        order += 1;
    }
    starts
};

const fn slots_of(order: usize) -> std::ops::Range<usize> {
    STARTS[order]..STARTS[order + 1]
}

const MATCHES: [usize; 3] = [4, 7, 14];
/// How many places matches remember, as a power of two.
const PLACE_BITS: u32 = 17;
/// Inputs in their order: the matches, one that is always the same, the contexts, lore, and the lexicon.
const MATCHED: usize = (MATCHES.len() + 1) * MATCH_INPUTS;
const FROM_ORDERS: usize = MATCHED + 1;
const PER_ORDER: usize = 3;
const FROM_LORE: usize = FROM_ORDERS + ORDERS * PER_ORDER;
const PER_LORE: usize = 2;
const FROM_LEXICON: usize = FROM_LORE + lore::KINDS * PER_LORE;
const PER_WAY: usize = 3;
const INPUTS: usize = (FROM_LEXICON + WAYS * PER_WAY).next_multiple_of(16);
const LEAN_INPUTS: usize = (FROM_ORDERS + LEAN_ORDERS * PER_ORDER).next_multiple_of(16);
/// The choices of each selector of weights; the first are all there are of a long stream.
const SELECTORS: [usize; 9] = [
    256,
    16 * 16,
    16 * 16 * 8,
    KINDS * 8 * 8,
    256,
    RUN_CLASSES,
    16 * 16,
    16 * KINDS * (lore::KINDS + 1),
    KNOWN * KNOWN,
];
const LEAN_SELECTORS: usize = 4;
const LAST_SELECTORS: [usize; 3] = [256, KINDS * 8, RUN_CLASSES];
/// Contexts of the last refinement.
const REFINED: usize = 4096;

fn refinements() -> [Refinement; 3] {
    [Refinement::new(256, 6), Refinement::new(16 * 256, 6), Refinement::new(REFINED, 6)]
}

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
    named: Named,
    /// The last byte that belongs to no word.
    mark: u8,
    matches: [Match; MATCHES.len()],
    /// Seen without quotation marks, tags and line ends, and the match there.
    plain: Vec<u8>,
    plain_match: Match,
    /// What followed the last occurrences of each byte and pair.
    after_one: Vec<u16>,
    after_two: Vec<u16>,
    wording: Wording,
    /// Of each kind of lore: what it says of this half of the byte, of the next bit, and what chance its values turned out to mean.
    halves: [Option<u32>; lore::KINDS],
    told: [u8; lore::KINDS],
    values: Vec<[u16; 256]>,
    /// Where this is among the words of the lexicon; of each way to look there, what it says of the next bit, and what chance that turned out to mean.
    cursor: Cursor,
    hinted: [Option<Hint>; WAYS],
    hints: Vec<[u16; HINTS]>,
    inputs: [i16; INPUTS],
    mixed: [i16; SELECTORS.len()],
    mixer: Mixer,
    last_mixer: Mixer,
    refinements: [Refinement; 3],
    /// Bits of the present byte under a leading one.
    partial: usize,
    lean: bool,
}

impl Model {
    /// A model that knows how to weigh and has read `dictionary`.
    pub fn primed(dictionary: &[u8]) -> Self {
        lore::warm();
        lexicon::warm();
        let mut model = Self::even();
        model.skim(dictionary);
        model.gain_experience();
        model
    }

    /// A model that has read nothing and weighs all alike.
    fn even() -> Self {
        let states = std::array::from_fn(|state| {
            let (zeros, ones) = STATES.counts(state as u8);
            ((u32::from(ones) * 2 + 1) * 65_535 / (u32::from(zeros + ones) * 2 + 2)) as u16
        });
        let values = std::array::from_fn(|value| squash(lore::stretched(value as u8)) as u16);
        let mut model = Self {
            slots: vec![Slot::default(); STARTS[ORDERS]],
            learned: vec![states; ORDERS],
            contexts: [0; ORDERS],
            lines: [0; ORDERS],
            checks: [0; ORDERS],
            found: [0; ORDERS],
            seen: Vec::new(),
            place: Place::default(),
            named: Named::default(),
            mark: 0,
            matches: MATCHES.map(|least| Match::new(least, PLACE_BITS)),
            plain: Vec::new(),
            plain_match: Match::new(8, PLACE_BITS),
            after_one: vec![0; 256],
            after_two: vec![0; 65_536],
            wording: Wording::default(),
            halves: [None; lore::KINDS],
            told: [0; lore::KINDS],
            values: vec![values; lore::KINDS],
            cursor: Cursor::at_start(),
            hinted: [None; WAYS],
            hints: vec![std::array::from_fn(lexicon::first_chance); WAYS],
            inputs: [0; INPUTS],
            mixed: [0; SELECTORS.len()],
            mixer: Mixer::new(INPUTS, &SELECTORS, 1_200, WEIGHING_RATE),
            last_mixer: Mixer::new(SELECTORS.len(), &LAST_SELECTORS, 4_500, LAST_WEIGHING_RATE),
            refinements: refinements(),
            partial: 1,
            lean: false,
        };
        model.begin_byte();
        model
    }

    /// Prepares for a stream of this length.
    pub fn for_length(mut self, bytes: usize) -> Self {
        self.lean = bytes > LEAN_BYTES;
        self.inputs.fill(0);
        self
    }

    /// Reads on where this model stopped, quickly.
    pub fn read_on(&mut self, text: &[u8]) {
        self.skim(text);
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

    const fn orders(&self) -> usize {
        if self.lean { LEAN_ORDERS } else { ORDERS }
    }

    /// Finds each context's slot for the next bit.
    fn look_up(&mut self) {
        let nodes = [node(self.partial), node(fold(self.partial))];
        for order in 0..self.orders() {
            let at = STARTS[order] + self.lines[order];
            let line: &mut [Slot] = &mut self.slots[line_of(at)..][..LINE];
            let line: &mut [Slot; LINE] = line.try_into().expect("so long by the line before");
            let node = nodes[usize::from(is_folded(order))];
            self.found[order] = line_of(at) | find(line, at ^ node, self.checks[order]);
        }
    }

    /// Teaches each context's slot what the bit was.
    fn remember(&mut self, bit: bool) {
        let states = &*STATES;
        for order in 0..self.orders() {
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

    fn begin_half(&mut self) {
        let folded = fold(self.partial);
        for order in 0..self.orders() {
            let partial = if is_folded(order) { folded } else { self.partial };
            let slots = slots_of(order).len();
            (self.lines[order], self.checks[order]) = line_in(slots, self.contexts[order], partial);
        }
        // All lines asked for at once arrive together; one by one, each bit would wait for each.
        let mut touched = 0;
        for (start, line) in STARTS.iter().zip(&self.lines).take(self.orders()) {
            touched ^= u32::from(self.slots[start + line].chance);
        }
        std::hint::black_box(touched);
        if !self.lean {
            let contexts = self.wording.contexts();
            self.halves =
                std::array::from_fn(|kind| (contexts[kind] != 0).then(|| lore::half(kind, contexts[kind], folded)));
        }
    }

    fn end_byte(&mut self, byte: u8) {
        let (one, two) = (usize::from(self.last(1)), usize::from(self.last(2)));
        self.after_one[one] = self.after_one[one] << 8 | u16::from(byte);
        self.after_two[two << 8 | one] = self.after_two[two << 8 | one] << 8 | u16::from(byte);
        self.seen.push(byte);
        if !byte.is_ascii_alphanumeric() && byte < 0x80 {
            self.mark = byte;
        }
        let in_tag = self.place.kind == Kind::Tag;
        self.place.follow(&self.seen);
        match self.place.kind {
            Kind::Value => self.named.follow(byte),
            _ => self.named.forget(),
        }
        for found in &mut self.matches {
            found.follow(&self.seen);
        }
        let word = match (self.place.kind, byte) {
            (Kind::Tag, _) => None,
            // A tag's end parts words as a blank does.
            _ if in_tag => Some(b' '),
            (_, b'\r' | b'\n' | b'\t') => Some(b' '),
            (_, byte) => Some(byte),
        };
        let Some(word) = word else { return };
        if word == b'>' && self.place.kind == Kind::Quote && self.opening_mark() {
            return;
        }
        self.wording.push(word);
        self.cursor.push(word);
        if !(word == b' ' && self.plain.last() == Some(&b' ')) {
            self.plain.push(word);
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
        self.contexts = [
            hash(place.word, small(1)),
            hash(hash(place.word, place.words[0]), small(1)),
            orders[1],
            orders[2],
            orders[3],
            orders[4],
            orders[6],
            hash(place.field, hash(place.token, place.word)),
            hash(column, above(0)),
            hash(expected, back(1)),
            hash(two, orders[2]),
            hash(back(2), back(3) << 8),
            folded[3],
            folded[4],
            folded[5],
            hash(hash(place.word, place.words[1]), 3),
            0,
            hash(place.field, orders[2]),
            hash(place.field, hash(place.token, (shape & 0xff) as u32)),
            hash(orders[1], hash(above(0), above(1))),
            hash(plain, hash(place.kind as u32, (shape & 0xff) as u32)),
            (shape as u32) ^ (shape >> 32) as u32 & 0xff,
            hash((shape & 0xffff) as u32, place.field),
            hash(one, back(1)),
            hash(place.opening, hash(place.word, column.min(2))),
            hash(place.run(24), 5),
            hash(place.run(40), place.field),
            hash(place.dated(&self.seen), hash(back(1), place.kind as u32)),
            hash(self.named.expected(), u32::from(class(self.last(1)))),
            orders[2],
            orders[3],
            orders[5],
            hash(place.word, if place.word == 0 { u32::from(self.mark) } else { 0 }),
            hash(place.word, place.words[0]),
        ];
    }

    /// The inputs of lore, and how much of it knows anything: the last kind that does, from 1.
    fn tell(&mut self) -> usize {
        let folded = fold(self.partial);
        let bits = folded.ilog2();
        let node = if bits < 4 { folded } else { folded & ((1 << (bits - 4)) - 1) | 1 << (bits - 4) };
        let mut most = 0;
        for (kind, half) in self.halves.iter().enumerate() {
            let value = half.map_or(0, |half| lore::look_up(half, node));
            self.told[kind] = value;
            let inputs = &mut self.inputs[FROM_LORE + kind * PER_LORE..][..PER_LORE];
            if value == 0 {
                inputs.fill(0);
            } else {
                most = kind + 1;
                let chance = self.values[kind][usize::from(value)];
                inputs[0] = stretch(chance);
                inputs[1] = ((i32::from(chance) - 32_768) >> 5) as i16;
            }
        }
        most
    }

    /// The inputs of the lexicon, and how much it knows.
    fn hint(&mut self) -> usize {
        self.hinted = self.cursor.hints(fold(self.partial));
        let mut known = 0;
        for (way, hint) in self.hinted.iter().enumerate() {
            let inputs = &mut self.inputs[FROM_LEXICON + way * PER_WAY..][..PER_WAY];
            known = known * KNOWN + hint.map_or(0, Hint::known);
            match hint {
                None => inputs.fill(0),
                Some(hint) => {
                    let chance = self.hints[way][hint.at];
                    inputs[0] = stretch(chance);
                    inputs[1] = ((i32::from(chance) - 32_768) >> 5) as i16;
                    inputs[2] = hint.stretched;
                }
            }
        }
        known
    }
}

impl Predictor for Model {
    fn predict(&mut self) -> u32 {
        let mut hits = 0;
        let bits = self.partial.ilog2() as usize;
        self.look_up();
        for order in 0..self.orders() {
            let slot = self.slots[self.found[order]];
            let inputs = &mut self.inputs[FROM_ORDERS + order * PER_ORDER..][..PER_ORDER];
            if slot.state == UNSEEN {
                inputs.fill(0);
            } else {
                hits += usize::from(order < LEAN_ORDERS);
                let learned = self.learned[order][usize::from(slot.state)];
                inputs[0] = stretch(slot.chance);
                inputs[1] = stretch(learned);
                inputs[2] = ((i32::from(learned) - 32_768) >> 5) as i16;
            }
        }
        for (found, inputs) in self.matches.iter_mut().zip(self.inputs.chunks_exact_mut(MATCH_INPUTS)) {
            found.inputs(&self.seen, self.partial, inputs);
        }
        let inputs = &mut self.inputs[MATCHED - MATCH_INPUTS..MATCHED];
        // Within a tag the text stands still.
        match self.place.kind {
            Kind::Tag => self.plain_match.abstain(inputs),
            _ => self.plain_match.inputs(&self.plain, self.partial, inputs),
        }
        self.inputs[MATCHED] = 256;
        let (told, hinted) = if self.lean { (0, 0) } else { (self.tell(), self.hint()) };
        let longest = self.matches.iter().rev().find(|m| m.predicts().is_some()).map_or(0, Match::strength);
        let plain = if self.plain_match.predicts().is_some() { self.plain_match.strength() } else { 0 };
        let kind = self.place.kind as usize;
        let (last, sorts) = (usize::from(self.last(1)), [1, 2].map(|back| usize::from(class(self.last(back)))));
        let selectors = [
            self.partial,
            longest * 16 + hits.min(15),
            (sorts[0] * 16 + sorts[1]) * 8 + bits,
            (kind * 8 + bits) * 8 + (self.place.token as usize).min(7),
            last,
            self.place.run_class(),
            longest * 16 + plain,
            (plain * KINDS + kind) * (lore::KINDS + 1) + told,
            hinted,
        ];
        if self.lean {
            let (some, others) = self.mixed.split_at_mut(LEAN_SELECTORS);
            self.mixer.mix(&self.inputs[..LEAN_INPUTS], &selectors[..LEAN_SELECTORS], some);
            others.iter_mut().zip(some.iter().cycle()).for_each(|(other, some)| *other = *some);
        } else {
            self.mixer.mix(&self.inputs, &selectors, &mut self.mixed);
        }
        let mut last_mixed = [0; LAST_SELECTORS.len()];
        self.last_mixer.mix(&self.mixed, &[self.partial, kind * 8 + longest / 2, selectors[5]], &mut last_mixed);
        let mixed = last_mixed.iter().map(|m| i32::from(*m)).sum::<i32>() / 3;
        let two = hash(self.contexts[3], self.partial as u32) as usize % REFINED;
        let refined = [
            self.refinements[0].refine(mixed, self.partial),
            self.refinements[1].refine(mixed, sorts[0] << 8 | self.partial),
            self.refinements[2].refine(mixed, two),
        ];
        let chance = squash(mixed) + refined[0] + refined[1] + refined[2];
        (chance / 4).clamp(24, 65_535 - 24) as u32
    }

    fn update(&mut self, bit: bool) {
        let inputs = if self.lean { LEAN_INPUTS } else { INPUTS };
        self.mixer.learn(&self.inputs[..inputs], bit);
        self.last_mixer.learn(&self.mixed, bit);
        for refinement in &mut self.refinements {
            refinement.learn(bit);
        }
        self.remember(bit);
        for found in &mut self.matches {
            found.learn(bit);
        }
        self.plain_match.learn(bit);
        if !self.lean {
            for (values, told) in self.values.iter_mut().zip(self.told).filter(|(_, told)| *told != 0) {
                step(&mut values[usize::from(told)], bit, 7);
            }
            for (chances, hint) in self.hints.iter_mut().zip(self.hinted) {
                if let Some(hint) = hint {
                    step(&mut chances[hint.at], bit, 7);
                }
            }
        }
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

    fn coded(model: &Model, input: &[u8]) -> Vec<u8> {
        let coded = encode(model.clone().for_length(input.len()), input);
        assert!(decode(model.clone().for_length(input.len()), &coded, input.len()) == input, "comes back");
        coded
    }

    #[test]
    fn the_coded_bytes_are_pinned_because_they_are_a_wire_format() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut model = PRIMED.clone();
        model.recall(b"Message-ID: <1@ship.example>\r\n\r\nThe pump has failed again.\r\n");
        let input = b"From: ops@ship.example\r\nSubject: FUEL STATE\r\n\r\n> The pump has failed\r\n> again.\r\n\r\n<p>FUEL 62 PCT.</p>\r\n";
        assert_eq!(hex(&coded(&model, input)), "7e581ee8ca948313f5a4955bd9ff4c7995c85a7b8ce01425f1a2b043ad468c");
        let long: Vec<u8> =
            (0..1500u32).flat_map(|i| format!("{} of {};\r\n", i * i % 97, i % 1013).into_bytes()).collect();
        let long = long.repeat(4);
        assert!(long.len() > LEAN_BYTES);
        let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&coded(&model, &long));
        assert_eq!(format!("{checksum:08x}"), "99f639c1");
    }

    #[test]
    fn html_after_the_same_text_costs_little_more_than_its_tags() {
        let plain = "We shall bring the second generator and both spare filters with the convoy on Thursday, weather permitting.\r\n";
        let html = "<p>We shall bring the <b>second</b> generator and both<br>spare filters with the convoy on\r\n    Thursday, weather permitting.</p>\r\n";
        let cost = |text: &str| coded(&PRIMED, text.as_bytes()).len();
        let (both, alone) = (cost(&format!("{plain}\r\n{html}")), cost(html));
        assert!((both - cost(plain)) * 3 < alone * 2, "{both} {alone}");
    }

    #[test]
    fn common_words_are_known_without_a_dictionary() {
        let known =
            coded(&PRIMED, b"Please let me know as soon as possible if there is any change of the situation.\r\n")
                .len();
        let invented =
            coded(&PRIMED, b"Zquoiw vkt xw rhub uw juum ig bexsiptv ah wqkro oj ugz lbutmw ve jxy kuibgzyao.\r\n")
                .len();
        assert!(known * 2 < invented, "{known} {invented}");
    }

    #[test]
    fn capitals_are_known_from_small_letters() {
        let said =
            "request transport for twenty kvartals and their ploomage to the northern zwanding before sunset\r\n";
        let cost = |history: &str| {
            let mut model = PRIMED.clone();
            model.recall(history.as_bytes());
            coded(&model, said.to_uppercase().as_bytes()).len()
        };
        assert!(cost(said) * 3 < cost("") * 2, "{} {}", cost(said), cost(""));
    }

    #[test]
    fn of_a_long_history_the_end_is_known_and_the_work_is_bounded() {
        let old = b"Quite unlike anything else: seventeen oboes fled into the quagmire after the xylophone.\r\n";
        let mut near = PRIMED.clone();
        near.recall(&[old.as_slice(), &b"filler in between. ".repeat(3000)].concat());
        let cost = coded(&near, old).len();
        assert!(cost < 16, "within what is known: {cost}");
        let mut far = PRIMED.clone();
        far.recall(&[old.as_slice(), &vec![b'x'; RECALLED_BYTES]].concat());
        assert!(far.seen.len() < RECALLED_BYTES + 1000);
        assert!(coded(&far, old).len() > 2 * cost, "beyond it");
    }

    #[test]
    fn an_input_of_the_longest_length_comes_back() {
        coded(&PRIMED, &(0..MAX_BYTES as u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<u8>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn any_bytes_come_back(input in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..600),
            proptest::collection::vec(prop_oneof![Just(0u8), Just(255u8)], 0..600),
            "[a-cA-C<>:=\\-\r\n ]{0,600}".prop_map(String::into_bytes),
            "(<[a-c]{1,3}>|</[a-c]>|[a-c ]|\r\n> ){0,200}".prop_map(String::into_bytes),
        ]) {
            prop_assert!(coded(&PRIMED, &input).len() <= input.len() + input.len() / 2 + 8);
        }

        #[test]
        fn invented_bytes_decode_to_the_length_asked_for(noise in proptest::collection::vec(any::<u8>(), 0..300), length in 0..900usize) {
            prop_assert_eq!(decode(PRIMED.clone().for_length(length), &noise, length).len(), length);
        }
    }
}
