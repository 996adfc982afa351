//! Deflate streams undone so that the very same bytes can be deflated again.
//!
//! [`super::file`] calls [`undo`] on what looks like a stream and [`redo`] at the far end. What is sent beside the plain bytes is how hard the encoder
//! looked and every decision in which it did not do what zlib does ([`super::zlib`]): nothing at all for most PNG, ZIP, office and PDF files. Of encoders of
//! another kind the exceptions grow too many, and the stream stays as it is.
//!
//! [`redo`] is bounded by the plain bytes it is given: a token takes one at least, and a block without any is an exception of its own.

use super::super::varint;
use super::inflate::{self, BitWriter, Bits, Block, Header, Inflated, Kind, Token};
use super::zlib::{self, Effort, Finder, Strategy};

/// Most a stream may inflate to.
pub(super) const MAX_PLAIN: usize = 8 << 20;
/// Bytes of a stream that efforts are compared on.
const PROBE: usize = 32 * 1024;
/// A stream is left alone where its exceptions would take more than this part of it.
const EXCEPTIONS_PER: usize = 8;

/// A stream taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undone {
    pub plain: Vec<u8>,
    /// For [`redo`], to the last byte.
    pub recipe: Vec<u8>,
    /// Bytes of input it took.
    pub used: usize,
}

// Above the window's size: the strategy.
const FILTERED: u8 = 0x10;
const RUNS: u8 = 0x20;

// How a block differs from what was foreseen.
const HAS_COUNT: u8 = 1;
const KIND_SHIFT: u8 = 1;
const KIND_FORESEEN: u8 = 0;
const KIND_STORED: u8 = 1;
const KIND_FIXED: u8 = 2;
const KIND_DYNAMIC: u8 = 3;
/// The header follows, its bits filled up to bytes.
const HAS_HEADER: u8 = 8;
/// It is not the last though the plain bytes end, or the other way round.
const OTHER_END: u8 = 16;

/// Takes the stream at the start of `input` apart. `window` is known from what stands before it, as `level` may be.
pub(super) fn undo(input: &[u8], window: u8, most: usize) -> Option<Undone> {
    let inflated = inflate::inflate(input, most.min(MAX_PLAIN))?;
    let recipe = recipe(&inflated, window, inflated.used / EXCEPTIONS_PER + 16)?;
    let redone = redo(&inflated.plain, &recipe, inflated.used)?;
    (redone == input[..inflated.used]).then_some(Undone { plain: inflated.plain, recipe, used: inflated.used })
}

fn recipe(inflated: &Inflated, window: u8, most: usize) -> Option<Vec<u8>> {
    let memory = match inflated.blocks.first() {
        Some(block) if block.tokens.len() > (1 << 14) - 1 => 9,
        _ => 8,
    };
    let mut best: Option<(usize, Effort)> = None;
    let levels = [6, 9, 1, 5, 8, 7, 4, 3, 2].map(|level| (level, Strategy::Default));
    let filtered = [6, 9, 7, 8, 5, 4].map(|level| (level, Strategy::Filtered));
    for (level, strategy) in levels.into_iter().chain(filtered).chain([(1, Strategy::Runs)]) {
        let effort = Effort { level, memory, window, strategy };
        let bound = best.map_or(most, |(count, _)| count);
        if let Some(count) = surprises(inflated, effort, PROBE, bound).map(|s| s.len())
            && best.is_none_or(|(least, _)| count < least)
        {
            best = Some((count, effort));
            if count == 0 {
                break;
            }
        }
    }
    let (_, effort) = best?;
    let strategy = match effort.strategy {
        Strategy::Default => 0,
        Strategy::Filtered => FILTERED,
        Strategy::Runs => RUNS,
    };
    let mut out = vec![effort.level | effort.memory << 4, window | strategy];
    let mut blocks = Vec::new();
    let (mut from, mut at) = (0, 0);
    let mut count = 0u64;
    for (number, block) in inflated.blocks.iter().enumerate() {
        at += block.length;
        let exception = exception(block, effort, inflated.plain.len() - (at - block.length), at == inflated.plain.len());
        if exception != [0] {
            varint::put(&mut blocks, (number - from) as u64);
            blocks.extend_from_slice(&exception);
            from = number + 1;
            count += 1;
        }
    }
    varint::put(&mut out, count);
    out.extend_from_slice(&blocks);
    let surprises = surprises(inflated, effort, usize::MAX, most)?;
    varint::put(&mut out, surprises.len() as u64);
    let mut from = 0;
    for (number, token) in surprises {
        varint::put(&mut out, (number - from) as u64);
        from = number + 1;
        match token {
            Token::Literal(_) => out.push(0),
            Token::Match { length, distance } => {
                varint::put(&mut out, u64::from(length) - 2);
                varint::put(&mut out, u64::from(distance));
            }
        }
    }
    // Of no exceptions nothing is said.
    while out.last() == Some(&0) {
        out.pop();
    }
    (out.len() <= most).then_some(out)
}

/// The tokens of the first `until` bytes that were not foreseen, at most `most` of them.
fn surprises(inflated: &Inflated, effort: Effort, until: usize, most: usize) -> Option<Vec<(usize, Token)>> {
    let mut finder = Finder::new(&inflated.plain, effort);
    let mut found = Vec::new();
    let (mut at, mut number) = (0, 0);
    for block in &inflated.blocks {
        if block.kind == Kind::Stored {
            let end = at + block.length;
            while at < end {
                let token = finder.token(at)?;
                at = finder.commit(at, token, true);
            }
            // A match foreseen across the end was not one.
            at = end;
            continue;
        }
        for token in &block.tokens {
            let foreseen = finder.token(at)? == *token;
            if !foreseen {
                found.push((number, *token));
                if found.len() > most {
                    return None;
                }
            }
            at = finder.commit(at, *token, foreseen);
            number += 1;
            if at >= until {
                return Some(found);
            }
        }
    }
    Some(found)
}

/// How a block differs from what is foreseen with `left` bytes to come, itself included.
fn exception(block: &Block, effort: Effort, left: usize, ends: bool) -> Vec<u8> {
    let mut out = vec![0];
    let stored = block.kind == Kind::Stored;
    let full = block.tokens.len() == effort.block_tokens() || block.length == left && block.tokens.len() < effort.block_tokens();
    if stored || !full {
        out[0] |= HAS_COUNT;
        varint::put(&mut out, if stored { block.length } else { block.tokens.len() } as u64);
    }
    if stored {
        out[0] |= KIND_STORED << KIND_SHIFT;
    } else {
        match (&block.kind, zlib::kind(&block.tokens, block.length)) {
            (kind, foreseen) if *kind == foreseen => {}
            (Kind::Dynamic(header), _) => {
                out[0] |= KIND_DYNAMIC << KIND_SHIFT;
                if *header != zlib::dynamic(&block.tokens) {
                    out[0] |= HAS_HEADER;
                    let mut bits = BitWriter::default();
                    header.write(&mut bits);
                    bits.align();
                    varint::put(&mut out, bits.out.len() as u64);
                    out.extend_from_slice(&bits.out);
                }
            }
            _ => out[0] |= KIND_FIXED << KIND_SHIFT,
        }
    }
    if block.last != ends {
        out[0] |= OTHER_END;
    }
    out
}

/// A recipe being read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<usize> {
        if self.0.is_empty() {
            return Some(0);
        }
        varint::take(&mut self.0).and_then(|n| usize::try_from(n).ok())
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// What a recipe says of one block.
struct Foreseen {
    count: Option<usize>,
    kind: u8,
    header: Option<Header>,
    other_end: bool,
}

impl Foreseen {
    const NOTHING: Self = Self { count: None, kind: KIND_FORESEEN, header: None, other_end: false };

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let flags = from.byte()?;
        let count = if flags & HAS_COUNT != 0 { Some(from.number()?) } else { None };
        let header = if flags & HAS_HEADER != 0 {
            let length = from.number()?;
            Some(Header::read(&mut Bits::new(from.bytes(length)?))?)
        } else {
            None
        };
        Some(Self { count, kind: flags >> KIND_SHIFT & 3, header, other_end: flags & OTHER_END != 0 })
    }
}

/// Deflates again by a recipe, to at most `most` bytes; `None` where the recipe does not fit.
pub(super) fn redo(plain: &[u8], recipe: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut reader = Reader(recipe);
    let (first, window) = (reader.byte()?, reader.byte()?);
    let strategy = match window & !15 {
        0 => Strategy::Default,
        FILTERED => Strategy::Filtered,
        RUNS => Strategy::Runs,
        _ => return None,
    };
    let effort = Effort { level: first & 15, memory: first >> 4, window: window & 15, strategy };
    if !effort.is_valid() || plain.len() > MAX_PLAIN {
        return None;
    }
    let mut blocks = Vec::new();
    let mut from = 0usize;
    for _ in 0..reader.number()? {
        let number = from.checked_add(reader.number()?)?;
        blocks.push((number, Foreseen::read(&mut reader)?));
        from = number.checked_add(1)?;
    }
    let mut surprises = Vec::new();
    let mut from = 0usize;
    for _ in 0..reader.number()? {
        let number = from.checked_add(reader.number()?)?;
        let length = reader.number()?;
        let token = match length {
            0 => None,
            1..=256 => Some(Token::Match { length: length as u16 + 2, distance: u16::try_from(reader.number()?).ok()? }),
            _ => return None,
        };
        surprises.push((number, token));
        from = number.checked_add(1)?;
    }
    if !reader.0.is_empty() {
        return None;
    }
    let (mut blocks, mut surprises) = (blocks.into_iter().peekable(), surprises.into_iter().peekable());
    let mut finder = Finder::new(plain, effort);
    let mut out = BitWriter::default();
    let (mut at, mut number, mut block_number) = (0, 0, 0);
    loop {
        let exception = blocks.next_if(|(n, _)| *n == block_number).map(|(_, b)| b);
        let excepted = exception.is_some();
        let foreseen = exception.unwrap_or(Foreseen::NOTHING);
        block_number += 1;
        let start = at;
        let mut tokens = Vec::new();
        if foreseen.kind == KIND_STORED {
            let length = foreseen.count?;
            if length > 0xffff || length > plain.len() - at {
                return None;
            }
            while at < start + length {
                let token = finder.token(at)?;
                at = finder.commit(at, token, true);
            }
            at = start + length;
        } else {
            let count = foreseen.count.unwrap_or(effort.block_tokens());
            while tokens.len() < count && at < plain.len() {
                let guess = finder.token(at)?;
                let surprise = surprises.next_if(|(n, _)| *n == number).map(|(_, token)| token.unwrap_or(Token::Literal(plain[at])));
                let token = surprise.unwrap_or(guess);
                if let Token::Match { length, distance } = token
                    && (usize::from(length) > plain.len() - at || distance == 0)
                {
                    return None;
                }
                tokens.push(token);
                at = finder.commit(at, token, surprise.is_none());
                number += 1;
            }
        }
        let length = at - start;
        let ends = at == plain.len();
        let kind = match (foreseen.kind, foreseen.header) {
            (KIND_STORED, _) => Kind::Stored,
            (KIND_FIXED, _) => Kind::Fixed,
            (KIND_DYNAMIC, Some(header)) => Kind::Dynamic(header),
            (KIND_DYNAMIC, None) => Kind::Dynamic(zlib::dynamic(&tokens)),
            _ => zlib::kind(&tokens, length),
        };
        // What would be stored has no tokens and no room for more than a block.
        if kind == Kind::Stored && length > 0xffff {
            return None;
        }
        let last = ends != foreseen.other_end;
        inflate::write(&mut out, &Block { kind, last, tokens, length }, &plain[start..at]);
        if out.out.len() > most {
            return None;
        }
        if last {
            out.align();
            let whole = ends && blocks.peek().is_none() && surprises.peek().is_none();
            return (whole && out.out.len() <= most).then_some(out.out);
        }
        // Without a byte taken only what is written down goes on: the recipe bounds it.
        if length == 0 && !excepted {
            return None;
        }
    }
}
