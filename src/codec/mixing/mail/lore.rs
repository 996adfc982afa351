//! What is known of English beforehand: for some half a million places in a text, how its letters, words and pairs of words go on.
//!
//! Found once by counting in much text (`examples/train_dictionary`, which names it) and shipped; never changed by what is coded. The table is
//! part of the format like every constant. A text is followed here as its words are: tags and the marks of quotations left out, any blanks
//! and line ends as one blank, letters small, digits alike.

use std::sync::LazyLock;

use super::super::text::place::hash;

/// Ways to look at what stands before: the last 3, 4, 5 and 6 letters; the word so far alone, behind the word before it, behind the two
/// before it, and behind the one before those.
pub const KINDS: usize = 8;
/// Each kind's next plainer one.
pub const PLAINER: [Option<usize>; KINDS] = [None, Some(0), Some(1), Some(2), Some(2), Some(4), Some(5), Some(4)];

/// The table has two to this of entries.
pub const BITS: u32 = 21;
/// A zstd frame: all checks, then all values.
static FILE: &[u8] = include_bytes!("lore.zst");
/// Entries to a line: as many as one fetch from memory brings.
const LINE: usize = 32;
/// An entry is in one of so many places.
pub const PLACES: usize = 4;

static TABLE: LazyLock<Vec<[u8; 2]>> = LazyLock::new(|| {
    let bytes = zstd::bulk::decompress(FILE, 2 << BITS).expect("the file in this program is whole: a test reads it");
    let (checks, values) = bytes.split_at(1 << BITS);
    checks.iter().zip(values).map(|(check, value)| [*check, *value]).collect()
});

/// A text as its words go.
#[derive(Clone, Debug, Default)]
pub struct Wording {
    /// The last bytes, newest first.
    last: [u8; 6],
    /// The word so far, and the two before it with the marks behind them.
    word: u32,
    before: [u32; 2],
}

impl Wording {
    /// Takes up a byte.
    pub fn push(&mut self, byte: u8) {
        let byte = match byte {
            b'\r' | b'\n' | b'\t' | b' ' => b' ',
            b'0'..=b'9' => b'0',
            byte => byte.to_ascii_lowercase(),
        };
        if byte == b' ' && self.last[0] == b' ' {
            return;
        }
        self.last.rotate_right(1);
        self.last[0] = byte;
        if matches!(byte, b'a'..=b'z' | 0x80.. | b'\'' | b'0') {
            self.word = hash(self.word, u32::from(byte) + 1);
            return;
        }
        if self.word != 0 {
            self.before = [self.word, self.before[0]];
            self.word = 0;
        }
        if byte != b' ' {
            self.before[0] = hash(self.before[0], u32::from(byte) + 300);
        }
    }

    /// The last byte, small.
    pub fn last(&self) -> u8 {
        self.last[0]
    }

    /// What the next byte follows on, in each kind; 0 where there is nothing.
    pub fn contexts(&self) -> [u32; KINDS] {
        let mut letters = [0u32; 7];
        for (i, byte) in self.last.iter().enumerate() {
            letters[i + 1] = hash(letters[i], u32::from(*byte) + 1);
        }
        let (word, [one, two]) = (self.word, self.before);
        [
            hash(letters[3], 103),
            hash(letters[4], 104),
            hash(letters[5], 105),
            hash(letters[6], 106),
            if word == 0 { 0 } else { hash(word, 201) },
            hash(hash(word, one), 202),
            hash(hash(hash(word, one), two), 203),
            hash(hash(word, two), 204),
        ]
    }
}

/// What a context's entries for half a byte begin with, the bits before in the byte being `partial` under a leading one.
pub fn half(kind: usize, context: u32, partial: usize) -> u32 {
    hash(hash(context, partial as u32), kind as u32 * 77 + 9)
}

/// Where an entry of this half is, or in one of the [`PLACES`] beside it, and its check. `node` is the bits of the half under a leading one.
pub fn entry(half: u32, node: usize) -> (usize, u8) {
    let line = half as usize & ((1 << BITS) - 1) & !(LINE - 1);
    let at = ((half >> 27) as usize ^ (node * 5)) & (LINE - 1);
    (line | at, ((hash(half, node as u32 + 1000) >> 8) as u8).max(1))
}

/// A chance and how often it was seen as a value: 31 steps of the logistic axis, eight classes of number. Never 0.
pub fn value(chance: f32, seen: f32) -> u8 {
    let step = ((chance / (1.0 - chance)).ln() * 2.0).round().clamp(-15.0, 15.0) as i32 + 16;
    let class = (seen.log2() / 1.6).floor().clamp(0.0, 7.0) as i32;
    (step << 3 | class) as u8
}

/// Where the chance of a value lies on the logistic axis, in 256ths.
pub(super) fn stretched(value: u8) -> i32 {
    (i32::from(value >> 3) - 16) * 128
}

/// The value for the next bit; 0 is none.
pub(super) fn look_up(half: u32, node: usize) -> u8 {
    let (at, check) = entry(half, node);
    let known = (0..PLACES).map(|place| TABLE[at ^ place]).find(|[theirs, _]| *theirs == check);
    known.map_or(0, |[_, value]| value)
}

/// Unpacks the table, which the first use would wait for.
pub(super) fn warm() {
    LazyLock::force(&TABLE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_figures_and_capitals_make_no_difference() {
        let follow = |text: &str| {
            let mut wording = Wording::default();
            text.bytes().for_each(|byte| wording.push(byte));
            wording.contexts()
        };
        assert_eq!(follow("Wait until  0845 tom"), follow("wait\r\nuntil 1230 Tom"));
        assert_ne!(follow("wait, until tom"), follow("wait until tom"));
    }

    #[test]
    fn the_table_is_whole_and_knows_how_a_common_word_goes_on() {
        assert_eq!(TABLE.len(), 1 << BITS);
        let mut wording = Wording::default();
        b"as soon as possib".iter().for_each(|byte| wording.push(*byte));
        let (mut right, mut wrong) = (0, 0);
        let letter = usize::from(b'l');
        for bit in 0..8 {
            let partial = (letter | 0x100) >> (8 - bit);
            let (base, node) = if bit < 4 {
                (1, partial)
            } else {
                (partial >> (bit - 4), partial & ((1 << (bit - 4)) - 1) | 1 << (bit - 4))
            };
            for (kind, context) in wording.contexts().into_iter().enumerate() {
                let value = look_up(half(kind, context, base), node);
                let expected = stretched(value) > 0;
                match value {
                    0 => {}
                    _ if expected == (letter >> (7 - bit) & 1 == 1) => right += 1,
                    _ => wrong += 1,
                }
            }
        }
        assert!(right > 4 && wrong == 0, "{right} {wrong}");
    }
}
