//! Words of English and which follow which: for a word being read, how likely each letter is to go on with, and the word's end.
//!
//! A list of words with how often each comes, and for common ones the words that come behind them, unpacked from `lexicon.zst`; never changed by
//! what is coded. The words that begin as the one being read are a range of the list, so that a chance is a quotient of two sums.

use std::sync::LazyLock;

use super::super::logistic::{squash, stretch};

/// A zstd frame; see [`Lexicon::unpack`].
static FILE: &[u8] = include_bytes!("lexicon.zst");
const MOST_BYTES: usize = 16 << 20;

static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| {
    let bytes = zstd::bulk::decompress(FILE, MOST_BYTES).expect("the file in this program is whole: a test reads it");
    Lexicon::unpack(&bytes).expect("the same")
});

/// What it says in two ways: of the word alone, and behind the one before it.
pub const WAYS: usize = 2;

/// The list.
struct Lexicon {
    /// All words behind each other, in their order.
    letters: Vec<u8>,
    /// Where each begins, and one more.
    starts: Vec<u32>,
    /// How often all words before it come, and one more.
    before: Vec<u32>,
    /// Words that others are known to follow, in their order; the number of words stands for the beginning of a sentence.
    heads: Vec<u32>,
    /// Where each one's followers begin, and one more.
    followers_at: Vec<u32>,
    /// A word, and in the lowest eight bits how often.
    followers: Vec<u32>,
}

/// How often, of its eight bits: eighths of the logarithm to base two.
fn often(mass: u8) -> u32 {
    /// 256 times two to the power of eighths.
    const EIGHTHS: [u64; 8] = [256, 279, 304, 332, 362, 395, 431, 470];
    ((EIGHTHS[usize::from(mass % 8)] << (mass / 8)) >> 8) as u32
}

fn varint(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..28).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u32::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

impl Lexicon {
    /// Number of words; each as the letters it has in common with the one before, the others, a line end; how often each comes; of each
    /// head and of the beginning of a sentence how many follow; all followers as distances; how often each.
    fn unpack(bytes: &[u8]) -> Option<Self> {
        let (count, mut rest) = bytes.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let (mut letters, mut starts) = (Vec::new(), Vec::with_capacity(count + 1));
        let mut word: Vec<u8> = Vec::new();
        for _ in 0..count {
            word.truncate(usize::from(*rest.split_off_first()?));
            let end = rest.iter().position(|b| *b == b'\n')?;
            word.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            starts.push(letters.len() as u32);
            letters.extend_from_slice(&word);
        }
        starts.push(letters.len() as u32);
        let (masses, mut rest) = rest.split_at_checked(count)?;
        let mut before = Vec::with_capacity(count + 1);
        let mut sum = 0u32;
        for mass in masses {
            before.push(sum);
            sum = sum.checked_add(often(*mass))?;
        }
        before.push(sum);
        let (mut heads, mut followers_at, mut all) = (Vec::new(), vec![0], 0);
        for head in 0..=count as u32 {
            let follow = varint(&mut rest)?;
            if follow > 0 {
                all += follow;
                heads.push(head);
                followers_at.push(all);
            }
        }
        let mut followers = Vec::with_capacity(all as usize);
        for ends in followers_at.windows(2) {
            let mut word = 0;
            for _ in ends[0]..ends[1] {
                word += varint(&mut rest)?;
                followers.push(word << 8);
            }
        }
        followers.iter_mut().zip(rest).for_each(|(follower, mass)| *follower |= u32::from(*mass));
        letters.shrink_to_fit();
        Some(Self { letters, starts, before, heads, followers_at, followers })
    }

    /// How many words there are.
    fn words(&self) -> u32 {
        self.before.len() as u32 - 1
    }

    /// The letter of a word at a place; 0 behind its end.
    fn letter(&self, word: u32, place: usize) -> u8 {
        let at = self.starts[word as usize] as usize + place;
        if at < self.starts[word as usize + 1] as usize { self.letters[at] } else { 0 }
    }

    /// The first of a range of words, alike up to a place, that goes on there with this letter or a later one.
    fn first_from(&self, range: (u32, u32), place: usize, letter: u8) -> u32 {
        let (mut low, mut high) = range;
        while low < high {
            let middle = low.midpoint(high);
            if self.letter(middle, place) < letter { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// How many chances a hint leads to: 16 classes of what it rests on, 64 steps of the logistic axis.
pub const HINTS: usize = CLASSES * STEPS;
const CLASSES: usize = 16;
const STEPS: usize = 64;
/// The classes, and that nothing is known.
pub const KNOWN: usize = CLASSES + 1;

/// What a hint is taken to mean before it turned out.
pub(super) fn first_chance(at: usize) -> u16 {
    squash(((at % STEPS) as i32 - 32) * 64 + 32).min(65_535) as u16
}

/// What is known of the next bit.
#[derive(Clone, Copy, Debug)]
pub struct Hint {
    /// Chance of a one on the logistic axis.
    pub stretched: i16,
    /// Which of the chances it leads to.
    pub at: usize,
}

impl Hint {
    /// Of words that go on with so many zeros and ones.
    fn of(zeros: u32, ones: u32) -> Option<Self> {
        let (ones, seen) = (u64::from(ones), u64::from(zeros) + u64::from(ones));
        (seen > 0).then(|| {
            let stretched = stretch(((ones * 2 + 1) * 65_535 / (seen * 2 + 2)).min(65_535) as u16);
            let class = (seen.ilog2() as usize / 2).min(CLASSES - 1);
            let step = ((i32::from(stretched) + 2048) / 64).clamp(0, STEPS as i32 - 1) as usize;
            Self { stretched, at: class * STEPS + step }
        })
    }

    /// What it rests on, from 1.
    pub fn known(self) -> usize {
        self.at / STEPS + 1
    }
}

/// Reads along.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// Letters of the present word, and the range of words that begin so.
    length: usize,
    range: (u32, u32),
    /// Followers of the word before, each with how often those before it come, and one more; and where the range lies among them.
    followers: Vec<(u32, u32)>,
    among: (usize, usize),
}

impl Cursor {
    /// Before the first byte.
    pub fn at_start() -> Self {
        let mut cursor = Self { length: 0, range: (0, 0), followers: Vec::new(), among: (0, 0) };
        cursor.begin_word(Some(LEXICON.words()));
        cursor
    }

    /// Behind `head`, if that is known.
    fn begin_word(&mut self, head: Option<u32>) {
        let lexicon = &*LEXICON;
        self.length = 0;
        self.range = (0, lexicon.words());
        self.followers.clear();
        if let Some(at) = head.and_then(|head| lexicon.heads.binary_search(&head).ok()) {
            let (begin, end) = (lexicon.followers_at[at] as usize, lexicon.followers_at[at + 1] as usize);
            let mut sum = 0u32;
            for follower in &lexicon.followers[begin..end] {
                self.followers.push((follower >> 8, sum));
                sum = sum.saturating_add(often(*follower as u8));
            }
            self.followers.push((u32::MAX, sum));
        }
        self.among = (0, self.followers.len().saturating_sub(1));
    }

    /// Takes up a byte.
    pub fn push(&mut self, byte: u8) {
        let lexicon = &*LEXICON;
        let letter = byte.to_ascii_lowercase();
        if letter.is_ascii_lowercase() {
            let low = lexicon.first_from(self.range, self.length, letter);
            let high = lexicon.first_from((low, self.range.1), self.length, letter + 1);
            (self.range, self.among) = ((low, high), (self.follower_from(low), self.follower_from(high)));
            self.length += 1;
        } else if self.length > 0 {
            let head = match byte {
                b' ' => self.whole(),
                b'.' | b'!' | b'?' => Some(lexicon.words()),
                _ => None,
            };
            self.begin_word(head);
        } else if byte != b' ' {
            self.begin_word(None);
        }
    }

    /// The word that was read, if it is one.
    fn whole(&self) -> Option<u32> {
        let (low, high) = self.range;
        (low < high && LEXICON.letter(low, self.length) == 0).then_some(low)
    }

    /// The first follower in range that is this word or a later one.
    fn follower_from(&self, word: u32) -> usize {
        let (low, high) = self.among;
        low + self.followers[low..high].partition_point(|(follower, _)| *follower < word)
    }

    /// What the list says of the next bit, the bits so far of the byte (those of a capital letter as those of the small one) being `partial` under a
    /// leading one: of the word alone, and behind the word before.
    pub fn hints(&self, partial: usize) -> [Option<Hint>; WAYS] {
        let lexicon = &*LEXICON;
        let bits = partial.ilog2();
        // Whether a letter is capital is not told here.
        if self.range.0 == self.range.1 || bits == 2 && partial == 0b101 {
            return [None; WAYS];
        }
        let first = (partial << (8 - bits)) & 0xff;
        let ends = [first, first + (0x80 >> bits), first + (0x100 >> bits)];
        // Words whose next letter is from one byte to before another; an end counts as a blank.
        let beyond_end = self.range.0 + u32::from(self.whole().is_some());
        let words = ends.map(|byte| match byte {
            0..=0x20 => self.range.0,
            0x21..=0x60 => beyond_end,
            byte if byte > usize::from(b'z') => self.range.1,
            byte => lexicon.first_from(self.range, self.length, byte as u8),
        });
        // What mark ends a word is not told either.
        if words[0] == words[2] || bits >= 4 && first < 0x60 {
            return [None; WAYS];
        }
        let hint = |[a, b, c]: [u32; 3]| Hint::of(b - a, c - b);
        let alone = hint(words.map(|word| lexicon.before[word as usize]));
        if self.among.0 == self.among.1 {
            return [alone, None];
        }
        [alone, hint(words.map(|word| self.followers[self.follower_from(word)].1))]
    }
}

/// Unpacks the list, which the first use would wait for.
pub(super) fn warm() {
    LazyLock::force(&LEXICON);
}

#[cfg(test)]
mod tests {
    use super::super::super::text::memory::fold;
    use super::*;

    /// How many bits of `next` behind `text` are expected, and how many are not, in one of the ways.
    fn expected(way: usize, text: &str, next: u8) -> (usize, usize) {
        let mut cursor = Cursor::at_start();
        text.bytes().for_each(|byte| cursor.push(byte));
        let (mut right, mut wrong) = (0, 0);
        for bit in 0..8 {
            let partial = (usize::from(next) | 0x100) >> (8 - bit);
            if let Some(hint) = cursor.hints(fold(partial))[way] {
                let one = next >> (7 - bit) & 1 == 1;
                *if (hint.stretched > 0) == one { &mut right } else { &mut wrong } += 1;
            }
        }
        (right, wrong)
    }

    #[test]
    fn the_list_is_in_order_and_whole() {
        let lexicon = &*LEXICON;
        let word = |n: usize| &lexicon.letters[lexicon.starts[n] as usize..lexicon.starts[n + 1] as usize];
        let count = lexicon.words() as usize;
        assert!(count > 100_000 && (1..count).all(|n| word(n - 1) < word(n)));
        assert!(lexicon.before.is_sorted() && lexicon.heads.is_sorted() && lexicon.followers.len() > 200_000);
        for ends in lexicon.followers_at.windows(2) {
            let these = &lexicon.followers[ends[0] as usize..ends[1] as usize];
            assert!(these.iter().is_sorted() && these.iter().all(|f| f >> 8 < lexicon.words()));
        }
    }

    #[test]
    fn a_word_that_can_only_be_one_goes_on_as_that_and_ends_where_it_ends() {
        assert_eq!(expected(0, "The magnetomet", b'e').1, 0);
        assert!(expected(0, "The MAGNETOMET", b'E').0 >= 6, "capitals too");
        assert_eq!(expected(0, "magnetometers", b' '), (4, 0), "what mark it is stays open");
        assert_eq!(expected(0, "xqzzk", b'e'), (0, 0), "no word begins so");
    }

    #[test]
    fn a_word_is_expected_behind_the_one_before_it_and_not_behind_a_mark() {
        assert!(expected(1, "as soon as possi", b'b').0 >= 7);
        assert!(expected(1, "please ", b'l').0 + expected(1, "please ", b'l').1 >= 7);
        assert_eq!(expected(1, "as soon as, ", b'p'), (0, 0));
    }

    #[test]
    fn any_bytes_are_followed() {
        let mut cursor = Cursor::at_start();
        for i in 0..100_000u32 {
            cursor.push((i.wrapping_mul(2_654_435_761) >> 24) as u8);
            for partial in [1, 0b10, 0b101, 0b1011, 0b1_0110, 0b1011_0110] {
                cursor.hints(partial);
            }
        }
    }
}
