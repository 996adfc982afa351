//! Deflate streams undone so that the very same bytes can be deflated again.
//!
//! [`super::file`] calls [`undo`] on what looks like a stream and [`redo`] at the far end. What is sent beside the plain bytes is how hard the encoder
//! looked and every decision in which it did not do what zlib does ([`super::zlib`]): nothing at all for most PNG, ZIP, office and PDF files. Of encoders of
//! another kind the exceptions grow too many, and the stream stays as it is.
//!
//! [`redo`] is bounded by the plain bytes it is given: a token takes one at least, and a block without any is an exception of its own.

use super::super::varint;
use super::Allowance;
use super::inflate::{self, BitWriter, Bits, Block, Header, Inflated, Kind, Token};
use super::zlib::{self, Aim, Effort, Finder};

/// Most a stream may inflate to.
pub(super) const MAX_PLAIN: usize = 8 << 20;
/// Bytes of a stream that efforts are compared on.
const PROBE: usize = 32 * 1024;
/// What looking at a stream costs beside its bytes: the tables of its codes.
const ATTEMPT: usize = 1024;
/// A stream is left alone where its exceptions would take more than this part of it.
const EXCEPTIONS_PER: usize = 4;

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
pub(super) fn undo(input: &[u8], window: u8, most: usize, allowance: &mut Allowance) -> Option<Undone> {
    let mut plain = Vec::new();
    let inflated = inflate::inflate_into(&mut plain, input, most.min(MAX_PLAIN).min(allowance.inflated));
    // Whether it came to an end or not.
    allowance.inflated = allowance.inflated.saturating_sub(plain.len() + ATTEMPT);
    let (blocks, used) = inflated?;
    let inflated = Inflated { plain, blocks, used };
    let recipe = recipe(&inflated, window, inflated.used / EXCEPTIONS_PER + 16, &mut allowance.steps)?;
    let redone = redo(&inflated.plain, &recipe, inflated.used, &mut allowance.steps)?;
    (redone == input[..inflated.used]).then_some(Undone { plain: inflated.plain, recipe, used: inflated.used })
}

fn recipe(inflated: &Inflated, window: u8, most: usize, steps: &mut usize) -> Option<Vec<u8>> {
    let memory = match inflated.blocks.first() {
        Some(block) if block.tokens.len() > (1 << 14) - 1 => 9,
        _ => 8,
    };
    let mut best: Option<(usize, Effort)> = None;
    let levels = [6, 9, 1, 5, 8, 7, 4, 3, 2].map(|level| (level, Aim::Default));
    let filtered = [6, 9, 7, 8, 5, 4].map(|level| (level, Aim::Filtered));
    for (level, aim) in levels.into_iter().chain(filtered).chain([(1, Aim::Runs)]) {
        let effort = Effort { level, memory, window, aim };
        let bound = best.map_or(most, |(count, _)| count);
        if let Some(count) = surprises(inflated, effort, PROBE, bound, steps).map(|s| s.len())
            && best.is_none_or(|(least, _)| count < least)
        {
            best = Some((count, effort));
            if count == 0 {
                break;
            }
        }
    }
    let (_, effort) = best?;
    let strategy = match effort.aim {
        Aim::Default => 0,
        Aim::Filtered => FILTERED,
        Aim::Runs => RUNS,
    };
    let mut out = vec![effort.level | effort.memory << 4, window | strategy];
    let mut blocks = Vec::new();
    let (mut from, mut at) = (0, 0);
    let mut count = 0u64;
    for (number, block) in inflated.blocks.iter().enumerate() {
        at += block.length;
        let exception =
            exception(block, effort, inflated.plain.len() - (at - block.length), at == inflated.plain.len());
        if exception != [0] {
            varint::put(&mut blocks, (number - from) as u64);
            blocks.extend_from_slice(&exception);
            from = number + 1;
            count += 1;
        }
    }
    varint::put(&mut out, count);
    out.extend_from_slice(&blocks);
    let surprises = surprises(inflated, effort, usize::MAX, most, steps)?;
    varint::put(&mut out, surprises.len() as u64);
    from = 0;
    // Each column for itself: the text codec makes more of them so.
    for (number, _) in &surprises {
        varint::put(&mut out, (number - from) as u64);
        from = number + 1;
    }
    for (_, token) in &surprises {
        match *token {
            Token::Literal(_) => out.push(0),
            Token::Match { length, .. } => varint::put(&mut out, u64::from(length) - 2),
        }
    }
    for (_, token) in &surprises {
        if let Token::Match { distance, .. } = *token {
            varint::put(&mut out, u64::from(distance));
        }
    }
    // Of no exceptions nothing is said.
    if surprises.is_empty() {
        out.pop();
        if count == 0 {
            out.pop();
        }
    }
    (out.len() <= most).then_some(out)
}

/// The tokens of the first `until` bytes that were not foreseen, at most `most` of them.
fn surprises(
    inflated: &Inflated,
    effort: Effort,
    until: usize,
    most: usize,
    steps: &mut usize,
) -> Option<Vec<(usize, Token)>> {
    let mut finder = Finder::new(&inflated.plain, effort, steps);
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
    let full = block.tokens.len() == effort.block_tokens()
        || block.length == left && block.tokens.len() < effort.block_tokens();
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
    /// How many exceptions there are; at the end none.
    fn count(&mut self) -> Option<usize> {
        if self.0.is_empty() { Some(0) } else { self.number() }
    }

    fn number(&mut self) -> Option<usize> {
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
pub(super) fn redo(plain: &[u8], recipe: &[u8], most: usize, steps: &mut usize) -> Option<Vec<u8>> {
    let mut reader = Reader(recipe);
    let (first, window) = (reader.byte()?, reader.byte()?);
    let aim = match window & !15 {
        0 => Aim::Default,
        FILTERED => Aim::Filtered,
        RUNS => Aim::Runs,
        _ => return None,
    };
    let effort = Effort { level: first & 15, memory: first >> 4, window: window & 15, aim };
    if !effort.is_valid() || plain.len() > MAX_PLAIN {
        return None;
    }
    let mut blocks = Vec::new();
    let mut from = 0usize;
    for _ in 0..reader.count()? {
        let number = from.checked_add(reader.number()?)?;
        blocks.push((number, Foreseen::read(&mut reader)?));
        from = number.checked_add(1)?;
    }
    let count = reader.count()?;
    // Each takes a byte at least.
    if count > reader.0.len() {
        return None;
    }
    let mut surprises: Vec<(usize, Option<Token>)> = Vec::with_capacity(count);
    let mut from = 0usize;
    for _ in 0..count {
        let number = from.checked_add(reader.number()?)?;
        surprises.push((number, None));
        from = number.checked_add(1)?;
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(u16::try_from(reader.number()?).ok().filter(|length| *length <= 256)?);
    }
    for ((_, token), length) in surprises.iter_mut().zip(lengths).filter(|(_, length)| *length > 0) {
        *token = Some(Token::Match { length: length + 2, distance: u16::try_from(reader.number()?).ok()? });
    }
    if !reader.0.is_empty() {
        return None;
    }
    let (mut blocks, mut surprises) = (blocks.into_iter().peekable(), surprises.into_iter().peekable());
    let mut finder = Finder::new(plain, effort, steps);
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
                let surprise = surprises
                    .next_if(|(n, _)| *n == number)
                    .map(|(_, token)| token.unwrap_or(Token::Literal(plain[at])));
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

/// What zlib makes of bytes at level 6; `None` where they are too many.
pub(super) fn as_zlib(plain: &[u8]) -> Option<Vec<u8>> {
    redo(plain, &[6 | 8 << 4, 15], usize::MAX, &mut (1 << 30))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::inflate::MAX_MATCH;
    use super::*;

    /// Invented words with runs among them; the numbers below were taken of this.
    pub(in super::super) fn text(bytes: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as usize
        };
        let words: Vec<Vec<u8>> = (0..400)
            .map(|_| {
                let length = 2 + next() % 9;
                (0..length).map(|_| (97 + next() % 26) as u8).collect()
            })
            .collect();
        let mut out = Vec::new();
        while out.len() < bytes {
            let r = next();
            out.extend_from_slice(&words[(r >> 8) % (1 + r % 400)]);
            out.extend_from_slice(if r % 11 != 0 { b" " } else { b".\r\n" });
            if r % 97 == 0 {
                out.extend(std::iter::repeat_n(b'=', r % 300));
            }
        }
        out.truncate(bytes);
        out
    }

    /// What zlib would make of it.
    pub(in super::super) fn deflated(plain: &[u8], level: u8, memory: u8, window: u8) -> Vec<u8> {
        redo(plain, &[level | memory << 4, window], usize::MAX, &mut { usize::MAX })
            .expect("follows from the plain bytes")
    }

    const CHECK: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

    #[test]
    fn without_exceptions_the_stream_is_that_of_zlib() {
        let plain = text(100_000);
        assert_eq!(CHECK.checksum(&plain), 1_677_339_553);
        // CRC-32 of what zlib 1.2.13 makes of it at levels 1 to 9, by default and told that it is filtered.
        let default = [
            991_197_080,
            2_447_763_264,
            848_641_587,
            2_647_935_119u32,
            3_120_938_464,
            1_947_757_113,
            2_578_390_631,
            4_176_977_748,
            2_504_667_837,
        ];
        let filtered = [
            991_197_080,
            2_447_763_264,
            848_641_587,
            3_494_109_715u32,
            3_717_347_330,
            3_840_459_858,
            1_120_637_101,
            380_639_391,
            3_724_188_734,
        ];
        for level in 1..=9 {
            let of = |window| CHECK.checksum(&deflated(&plain, level, 8, window));
            assert_eq!(
                (of(15), of(15 | FILTERED)),
                (default[usize::from(level) - 1], filtered[usize::from(level) - 1]),
                "level {level}"
            );
        }
        assert_eq!(CHECK.checksum(&deflated(&plain, 1, 8, 15 | RUNS)), 1_765_354_179);
        // Level 6 with other windows and memory.
        for (window, memory, check) in
            [(10, 3, 3_665_842_124), (12, 5, 3_412_628_972u32), (13, 9, 2_267_265_100), (15, 9, 503_441_198)]
        {
            assert_eq!(CHECK.checksum(&deflated(&plain, 6, memory, window)), check, "window {window}, memory {memory}");
        }
    }

    fn undone(stream: &[u8], window: u8) -> Option<Undone> {
        undo(stream, window, MAX_PLAIN, &mut Allowance::whole())
    }

    #[test]
    fn a_stream_of_zlib_costs_two_bytes_beside_its_plain_bytes() {
        let plain = text(40_000);
        for level in 1..=9 {
            let stream = [deflated(&plain, level, 8, 15).as_slice(), b"what follows"].concat();
            let undone = undone(&stream, 15).expect("zlib's");
            assert_eq!(
                (undone.plain.as_slice(), undone.recipe.len(), undone.used),
                (plain.as_slice(), 2, stream.len() - 12)
            );
        }
    }

    #[test]
    fn other_blocks_and_other_matches_are_exceptions() {
        let plain = text(30_000);
        let stream = deflated(&plain, 6, 8, 15);
        let inflated = inflate::inflate(&stream, MAX_PLAIN).expect("sound");
        let tokens: Vec<Token> = inflated.blocks.iter().flat_map(|b| b.tokens.clone()).collect();
        // Some matches begin later, three blocks are of kinds of their own, one of them stored, and an empty one is at the end.
        let mut at = 0;
        let mut changed = Vec::new();
        for (number, token) in tokens.into_iter().enumerate() {
            match token {
                Token::Match { length: length @ 5.., distance } if number % 40 == 0 => {
                    changed.extend([Token::Literal(plain[at]), Token::Match { length: length - 1, distance }]);
                    at += usize::from(length);
                }
                Token::Match { length, .. } => {
                    changed.push(token);
                    at += usize::from(length);
                }
                Token::Literal(_) => {
                    changed.push(token);
                    at += 1;
                }
            }
        }
        let tokens = changed;
        let mut blocks = Vec::new();
        let mut start = 0;
        let kinds = [Kind::Fixed, Kind::Dynamic(zlib::dynamic(&tokens)), Kind::Stored, Kind::Fixed];
        let mut out = BitWriter::default();
        for (kind, part) in kinds.into_iter().zip(tokens.chunks(tokens.len() / 3 + 1).chain([&[][..]])) {
            let length = part
                .iter()
                .map(|t| match t {
                    Token::Literal(_) => 1,
                    Token::Match { length, .. } => usize::from(*length),
                })
                .sum();
            let tokens = if kind == Kind::Stored { Vec::new() } else { part.to_vec() };
            let block = Block { kind, last: part.is_empty(), tokens, length };
            inflate::write(&mut out, &block, &plain[start..start + length]);
            start += length;
            blocks.push(block);
        }
        out.align();
        let stream = out.out;
        let undone = undone(&stream, 15).expect("near to zlib's");
        assert!((100..1200).contains(&undone.recipe.len()), "{}", undone.recipe.len());
        assert_eq!(redo(&plain, &undone.recipe, stream.len(), &mut { usize::MAX }), Some(stream.clone()));
        for cut in 2..undone.recipe.len() {
            assert_ne!(
                redo(&plain, &undone.recipe[..cut], stream.len(), &mut { usize::MAX }),
                Some(stream.clone()),
                "cut at {cut}"
            );
        }
        assert_eq!(redo(&plain, &undone.recipe, stream.len() - 1, &mut { usize::MAX }), None, "one byte too many");
        assert_eq!(redo(&plain, &undone.recipe, stream.len(), &mut 1000), None, "no steps left");
    }

    #[test]
    fn a_stream_of_another_kind_of_encoder_is_left_alone() {
        // Only literals of a text full of repetitions and runs.
        let plain = b"aaaa bbbb ".repeat(800);
        let tokens: Vec<Token> = plain.iter().map(|b| Token::Literal(*b)).collect();
        let mut out = BitWriter::default();
        inflate::write(&mut out, &Block { kind: Kind::Fixed, last: true, tokens, length: plain.len() }, &plain);
        out.align();
        assert_eq!(undone(&out.out, 15), None);
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let zeros = vec![0; 200_000];
        let bomb = deflated(&zeros, 9, 8, 15);
        assert!(bomb.len() < 1000);
        assert!(inflate::inflate(&bomb, 199_999).is_none());
        assert!(inflate::inflate(&bomb, 200_000).is_some());
        let mut allowance = Allowance { inflated: 100_000, ..Allowance::whole() };
        assert_eq!(undo(&bomb, 15, MAX_PLAIN, &mut allowance), None);
        // Empty blocks without end: two bytes each.
        let mut out = BitWriter::default();
        for _ in 0..10_000 {
            inflate::write(&mut out, &Block { kind: Kind::Fixed, last: false, tokens: Vec::new(), length: 0 }, &[]);
        }
        assert!(inflate::inflate(&out.out, 1000).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_inflate_to_nothing_or_deflate_again(bytes in proptest::collection::vec(any::<u8>(), 0..200), window in 9u8..=15) {
            if let Some(undone) = undo(&bytes, window, 2000, &mut Allowance::whole()) {
                prop_assert!(undone.plain.len() <= 2000);
                prop_assert_eq!(redo(&undone.plain, &undone.recipe, undone.used, &mut { usize::MAX }), Some(bytes[..undone.used].to_vec()));
            }
        }

        #[test]
        fn any_recipe_is_bounded(
            plain in prop_oneof!["[ab]{0,300}", "[ -~]{0,300}"],
            level in 0u8..=255,
            window in any::<u8>(),
            rest in proptest::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..40),
            most in 0usize..600,
        ) {
            let recipe = [&[level, window], rest.as_slice()].concat();
            if let Some(out) = redo(plain.as_bytes(), &recipe, most, &mut { 100_000 }) {
                prop_assert!(out.len() <= most);
                // It may point before the beginning, which no encoder of ours sends; else it says the plain bytes.
                if let Some(back) = inflate::inflate(&out, plain.len() + MAX_MATCH) {
                    prop_assert!(back.plain.len() <= plain.len());
                }
            }
        }

        #[test]
        fn what_zlib_would_write_comes_back(
            plain in prop_oneof!["[ab]{0,3000}".prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..3000)],
            level in 1u8..=9, memory in 1u8..=9, window in 9u8..=15,
        ) {
            let stream = deflated(&plain, level, memory, window);
            let inflated = inflate::inflate(&stream, plain.len()).expect("sound");
            prop_assert_eq!(&inflated.plain, &plain);
            prop_assert_eq!(inflated.used, stream.len());
        }
    }
}
