//! The first model, codec 3: contexts of one to six bytes, the word, the column and the longest match.

use super::coder::{self, Predictor};
use super::logistic::{squash, stretch};

/// Longest input, so that one payload costs a second at most at either end.
pub const MAX_BYTES: usize = 256 * 1024;

/// Codes `input`, whose length the decoder must know, with a model primed with `dictionary`.
pub fn encode(primed: &Model, input: &[u8]) -> Vec<u8> {
    coder::encode(primed.clone(), input)
}

/// Decodes `length` bytes. Any input decodes to something: what was coded is known to be intact by the seal.
pub fn decode(primed: &Model, coded: &[u8], length: usize) -> Vec<u8> {
    coder::decode(primed.clone(), coded, length)
}

/// Hashed contexts.
const ORDERS: usize = 9;
/// Two inputs of each, one of the match, one constant.
const INPUTS: usize = ORDERS * 3 + 3;
const SLOT_BITS: u32 = 18;
const MATCH_BITS: u32 = 16;
const MATCH_MIN: usize = 5;

/// What one context has seen of one bit.
#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    /// Chance of a one in 65536ths.
    chance: u16,
    /// The last bits seen under a leading one; 0 is a slot never used.
    history: u8,
    /// Guards against another context in the same place.
    check: u8,
}

/// The predictor and everything it has learned.
#[derive(Clone, Debug)]
pub struct Model {
    slots: Vec<Slot>,
    /// Per order and history: chance of a one in 65536ths.
    histories: Vec<u16>,
    /// Where the bits of the present byte live in `slots`, per order.
    bases: [u32; ORDERS],
    found: [usize; ORDERS],
    /// Everything seen, the dictionary included.
    seen: Vec<u8>,
    /// Where each hash of the last bytes was last seen.
    places: Vec<u32>,
    match_at: usize,
    match_length: usize,
    /// Per class of length: chance that the prediction holds.
    matches: Vec<u16>,
    weights: Vec<i32>,
    sets: [usize; MIXERS],
    mixed: [i32; MIXERS],
    inputs: [i32; INPUTS],
    /// Refinement of the mixed chance by the bits so far, and by these and the last byte: 33 points each.
    refine: [Vec<u16>; 2],
    refine_at: [usize; 2],
    /// Bits of the present byte under a leading one.
    partial: usize,
    word: u32,
    line: usize,
}

const MIXERS: usize = 3;
/// Far beyond any useful weight; keeps the arithmetic in range for ever.
const WEIGHT_LIMIT: i32 = 1 << 24;
/// Weight sets of the mixers: by bits so far, by match and hits, by the last byte.
const MIXER_SETS: [usize; MIXERS] = [256, 16 * (ORDERS + 1), 256];

impl Model {
    /// A model that has read `dictionary`.
    pub fn primed(dictionary: &[u8]) -> Self {
        let mut model = Self {
            slots: vec![Slot::default(); ORDERS << SLOT_BITS],
            histories: (0..ORDERS * 256).map(|i| first_guess(i % 256)).collect(),
            bases: [0; ORDERS],
            found: [0; ORDERS],
            seen: Vec::with_capacity(dictionary.len() + MAX_BYTES),
            places: vec![0; 1 << MATCH_BITS],
            match_at: 0,
            match_length: 0,
            matches: vec![60_000; 32],
            weights: vec![(1 << 16) * 3 / 10; MIXER_SETS.iter().sum::<usize>() * INPUTS],
            sets: [0; MIXERS],
            mixed: [0; MIXERS],
            inputs: [0; INPUTS],
            refine: [(0..256 * 33).map(refine_start).collect(), (0..65_536 * 33).map(refine_start).collect()],
            refine_at: [0; 2],
            partial: 1,
            word: 0,
            line: 0,
        };
        model.begin_byte();
        model.read(dictionary);
        model
    }

    fn last(&self, back: usize) -> u8 {
        self.seen.len().checked_sub(back).map_or(0, |at| self.seen[at])
    }

    fn find(&mut self, order: usize) -> usize {
        let hash = (self.bases[order] ^ (self.partial as u32).wrapping_mul(0x9e37_79b1)).wrapping_mul(0x85eb_ca6b);
        let hash = hash ^ hash >> 15;
        let check = (hash >> 24) as u8 | 1;
        let at = order << SLOT_BITS | (hash & ((1 << SLOT_BITS) - 1)) as usize;
        let other = at ^ 1;
        if self.slots[at].check == check || self.slots[at].history == 0 {
            self.slots[at].check = check;
            return at;
        }
        if self.slots[other].check == check {
            return other;
        }
        let victim = if self.slots[other].history < self.slots[at].history { other } else { at };
        self.slots[victim] = Slot { chance: 32_768, history: 0, check };
        victim
    }

    fn match_input(&mut self) -> usize {
        let input = INPUTS - 3;
        self.inputs[input] = 0;
        self.inputs[input + 1] = 0;
        let Some(expected) = self.expected() else { return 0 };
        let holds = i32::from(stretch(self.matches[self.match_class()]));
        self.inputs[input] = if expected { holds } else { -holds };
        self.inputs[input + 1] = if expected { 1 } else { -1 } * (self.match_length.min(32) * 16) as i32;
        self.match_length.min(15)
    }

    fn match_class(&self) -> usize {
        match self.match_length {
            length @ 0..24 => length.min(15),
            24..32 => 23,
            _ => 31,
        }
    }

    /// The bit the match predicts, while its byte agrees with the bits so far.
    fn expected(&self) -> Option<bool> {
        if self.match_length == 0 {
            return None;
        }
        let byte = usize::from(*self.seen.get(self.match_at)?) | 0x100;
        let bits = self.partial.ilog2();
        (byte >> (8 - bits) == self.partial).then_some(byte >> (7 - bits) & 1 == 1)
    }

    fn learn_match(&mut self, bit: bool) {
        let Some(expected) = self.expected() else { return };
        let class = self.match_class();
        step(&mut self.matches[class], expected == bit, 6);
    }

    fn end_byte(&mut self, byte: u8) {
        self.match_length = match self.seen.get(self.match_at) {
            Some(same) if self.match_length > 0 && *same == byte => self.match_length + 1,
            _ => 0,
        };
        self.match_at += 1;
        self.seen.push(byte);
        if byte == b'\n' {
            self.line = self.seen.len();
        }
        self.word = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 0x80.. => {
                (self.word ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
            }
            _ => 0,
        };
        let end = self.seen.len();
        if end >= MATCH_MIN {
            let hash =
                self.seen[end - MATCH_MIN..].iter().fold(0u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x2c1b_3c6d));
            let place = (hash >> (32 - MATCH_BITS)) as usize;
            if self.match_length == 0 {
                let earlier = self.places[place] as usize;
                let mut length = 0;
                while length < 32 && earlier > length && self.seen[earlier - 1 - length] == self.seen[end - 1 - length]
                {
                    length += 1;
                }
                if length >= MATCH_MIN {
                    (self.match_at, self.match_length) = (earlier, length);
                }
            }
            self.places[place] = end as u32;
        }
    }

    fn begin_byte(&mut self) {
        self.partial = 1;
        let back = |n: usize| u32::from(self.last(n));
        let mut hash = 0u32;
        let mut orders = [0u32; 7];
        for (n, order) in orders.iter_mut().enumerate().skip(1) {
            hash = (hash ^ back(n) ^ 0x100).wrapping_mul(0x0100_0193).rotate_left(5);
            *order = hash;
        }
        let column = (self.seen.len() - self.line).min(255) as u32;
        let above = self.seen.get(self.line).map_or(0, |b| u32::from(*b));
        let contexts = [
            0,
            orders[1],
            orders[2],
            orders[3],
            orders[4],
            orders[5],
            orders[6],
            self.word ^ back(1) << 24,
            column << 16 | above << 8 | 7,
        ];
        for (order, context) in contexts.into_iter().enumerate() {
            let hash = (context ^ (order as u32) << 28).wrapping_mul(0xcc9e_2d51);
            self.bases[order] = hash ^ hash >> 16;
        }
    }
}

impl Predictor for Model {
    fn predict(&mut self) -> u32 {
        let mut hits = 0;
        for order in 0..ORDERS {
            let at = self.find(order);
            self.found[order] = at;
            let slot = self.slots[at];
            let inputs = &mut self.inputs[order * 3..order * 3 + 3];
            if slot.history == 0 {
                inputs.fill(0);
            } else {
                hits += 1;
                inputs[0] = i32::from(stretch(slot.chance));
                inputs[1] = i32::from(stretch(self.histories[order * 256 + usize::from(slot.history)]));
                // A context that saw one value only says so more loudly than its chance does.
                inputs[2] = (i32::from(slot.chance) - 32_768) >> 5;
            }
        }
        let matched = self.match_input();
        self.inputs[INPUTS - 1] = 256;
        let sets = [self.partial, matched * (ORDERS + 1) + hits, usize::from(self.last(1))];
        let mut from = 0;
        let mut sum = 0;
        for (mixer, set) in sets.into_iter().enumerate() {
            let at = (from + set) * INPUTS;
            self.sets[mixer] = at;
            let weights = &self.weights[at..at + INPUTS];
            let dot: i64 = weights.iter().zip(&self.inputs).map(|(w, x)| i64::from(*w) * i64::from(*x)).sum();
            let mixed = ((dot >> 16) as i32).clamp(-2047, 2047);
            self.mixed[mixer] = mixed;
            sum += mixed;
            from += MIXER_SETS[mixer];
        }
        let mixed = sum / MIXERS as i32;
        let contexts = [self.partial, usize::from(self.last(1)) << 8 | self.partial];
        let mut chance = squash(mixed) * 2;
        let place = ((mixed + 2048) / 128) as usize;
        let part = (mixed + 2048) % 128;
        for (i, context) in contexts.into_iter().enumerate() {
            let at = context * 33 + place;
            let (below, above) = (i32::from(self.refine[i][at]), i32::from(self.refine[i][at + 1]));
            self.refine_at[i] = at + usize::from(part >= 64);
            chance += (below * (128 - part) + above * part) >> 7;
        }
        (chance / 4).clamp(24, 65_535 - 24) as u32
    }

    fn update(&mut self, bit: bool) {
        let target = if bit { 65_535 } else { 0 };
        for mixer in 0..MIXERS {
            let error = (target - squash(self.mixed[mixer])) >> 2;
            let weights = &mut self.weights[self.sets[mixer]..self.sets[mixer] + INPUTS];
            for (weight, input) in weights.iter_mut().zip(&self.inputs) {
                *weight = (*weight + ((input * error * 3 + (1 << 15)) >> 16)).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT);
            }
        }
        for (refine, at) in self.refine.iter_mut().zip(self.refine_at) {
            step(&mut refine[at], bit, 6);
        }
        for order in 0..ORDERS {
            let slot = &mut self.slots[self.found[order]];
            step(&mut self.histories[order * 256 + usize::from(slot.history)], bit, 6);
            let seen = 7 - slot.history.max(1).leading_zeros();
            if slot.history == 0 {
                slot.chance = 32_768;
                slot.history = 1;
            }
            // Fast at first, slower with experience.
            step(&mut slot.chance, bit, [1, 1, 2, 2, 3, 3, 4, 4][seen as usize]);
            let kept = if slot.history >= 0x80 { slot.history & 0x3f | 0x40 } else { slot.history };
            slot.history = kept << 1 | u8::from(bit);
        }
        self.learn_match(bit);
        self.partial = self.partial << 1 | usize::from(bit);
        if self.partial >= 256 {
            self.end_byte((self.partial & 0xff) as u8);
            self.begin_byte();
        }
    }
}

/// Moves a chance towards a bit by a power of two of the difference.
fn step(chance: &mut u16, bit: bool, rate: u32) {
    if bit {
        *chance += (65_535 - *chance) >> rate;
    } else {
        *chance -= *chance >> rate;
    }
}

fn first_guess(history: usize) -> u16 {
    // The last bit twice, the one before once.
    let weight = (history & 1) * 2 + (history >> 1 & 1);
    (8_192 + weight * 16_384) as u16
}

fn refine_start(i: usize) -> u16 {
    squash((i % 33) as i32 * 128 - 2048).min(65_535) as u16
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static PRIMED: LazyLock<Model> =
        LazyLock::new(|| Model::primed(b"From: ops@ship.example\r\nTo: ops@shore.example\r\n"));

    #[test]
    fn the_coded_bytes_are_pinned_because_they_are_a_wire_format() {
        let coded = encode(&PRIMED, b"From: ops@ship.example\r\nSubject: FUEL STATE\r\n\r\nFUEL 62 PCT.\r\n");
        assert_eq!(hex(&coded), "ffdc6170da7ccb60552fc78c06ad369412a956f500aed049d1981992e44fc30ee48b83a54f");
    }

    #[test]
    fn repetition_costs_next_to_nothing() {
        let input = b"Wind 180 at 82 knots, visibility 14 km. ".repeat(200);
        let coded = encode(&PRIMED, &input);
        assert!(coded.len() < 100, "{}", coded.len());
        assert_eq!(decode(&PRIMED, &coded, input.len()), input);
    }

    #[test]
    fn an_input_of_the_longest_length_comes_back() {
        let input: Vec<u8> = (0..MAX_BYTES as u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        assert_eq!(decode(&PRIMED, &encode(&PRIMED, &input), input.len()), input);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn any_bytes_come_back(input in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..600),
            proptest::collection::vec(prop_oneof![Just(0u8), Just(255u8)], 0..600),
            "[a-c \r\n]{0,600}".prop_map(String::into_bytes),
        ]) {
            let coded = encode(&PRIMED, &input);
            prop_assert!(coded.len() <= input.len() + input.len() / 2 + 8);
            prop_assert_eq!(decode(&PRIMED, &coded, input.len()), input);
        }

        #[test]
        fn invented_bytes_decode_to_the_length_asked_for(noise in proptest::collection::vec(any::<u8>(), 0..300), length in 0..900usize) {
            prop_assert_eq!(decode(&PRIMED, &noise, length).len(), length);
        }
    }
}
