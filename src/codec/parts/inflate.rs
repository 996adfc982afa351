//! Deflate streams (RFC 1951) taken apart into what an encoder decided: blocks, their codes, their tokens; and written again.
//!
//! [`super::deflate`] compares these decisions with those of zlib. The work and the memory are bounded by the stream's own length
//! and by the limit on what it inflates to.

/// A literal, or a length and a distance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Literal(u8),
    Match { length: u16, distance: u16 },
}

/// How a block is coded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Stored,
    Fixed,
    Dynamic(Header),
}

/// The header of a block with codes of its own, as it stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Header {
    /// Lengths of the literal and length codes.
    pub literals: Vec<u8>,
    pub distances: Vec<u8>,
    /// The symbols these are sent with, and their extra bits.
    pub symbols: Vec<(u8, u8)>,
    /// Lengths of the codes of these symbols, in the order sent.
    pub lengths: Vec<u8>,
}

/// One block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub kind: Kind,
    pub last: bool,
    /// Of a stored one none.
    pub tokens: Vec<Token>,
    /// Bytes it inflates to.
    pub length: usize,
}

/// A stream taken apart.
#[derive(Debug)]
pub(super) struct Inflated {
    pub plain: Vec<u8>,
    pub blocks: Vec<Block>,
    /// Bytes of input it took.
    pub used: usize,
}

pub(super) const MAX_MATCH: usize = 258;
pub(super) const END: usize = 256;
/// The order in which lengths of the codes of code lengths are sent.
pub(super) const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH_BASE: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
];
const DISTANCE_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];

/// Symbol, extra bits and their number for a match length.
pub(super) fn length_symbol(length: u16) -> (usize, u16, u8) {
    let code = LENGTH_BASE.iter().rposition(|base| *base <= length).unwrap_or(0);
    (257 + code, length - LENGTH_BASE[code], LENGTH_EXTRA[code])
}

/// The same for a distance.
pub(super) fn distance_symbol(distance: u16) -> (usize, u16, u8) {
    let code = DISTANCE_BASE.iter().rposition(|base| *base <= distance).unwrap_or(0);
    (code, distance - DISTANCE_BASE[code], DISTANCE_EXTRA[code])
}

/// Lengths of the fixed codes.
pub(super) fn fixed_lengths() -> (Vec<u8>, Vec<u8>) {
    let literals = (0..288)
        .map(|i| {
            if i < 144 {
                8
            } else if i < 256 {
                9
            } else if i < 280 {
                7
            } else {
                8
            }
        })
        .collect();
    (literals, vec![5; 30])
}

/// Reads bits, the lowest first.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 48
            && let Some(&byte) = self.bytes.get(self.at)
        {
            self.held |= u64::from(byte) << self.count;
            self.count += 8;
            self.at += 1;
        }
    }

    fn take(&mut self, bits: u8) -> Option<u16> {
        self.fill();
        let bits = u32::from(bits);
        if self.count < bits {
            return None;
        }
        let value = self.held & ((1 << bits) - 1);
        self.held >>= bits;
        self.count -= bits;
        Some(value as u16)
    }

    /// Skips to a byte's begin; `None` where a bit on the way is set.
    fn align(&mut self) -> Option<()> {
        let bits = (self.count % 8) as u8;
        (self.take(bits)? == 0).then_some(())
    }

    fn used(&self) -> usize {
        self.at - self.count as usize / 8
    }
}

/// Writes bits, the lowest first.
#[derive(Default)]
pub(super) struct BitWriter {
    pub out: Vec<u8>,
    held: u64,
    count: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, bits: u8) {
        self.held |= u64::from(value) << self.count;
        self.count += u32::from(bits);
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    pub(super) fn align(&mut self) {
        if self.count > 0 {
            self.put(0, (8 - self.count) as u8);
        }
    }
}

/// A canonical code for reading.
struct Decoder {
    /// By the next bits: symbol and length; length 0 is no code.
    fast: Vec<(u16, u8)>,
    counts: [u16; 16],
    sorted: Vec<u16>,
}

const FAST: u8 = 9;

impl Decoder {
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0u16; 16];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        counts[0] = 0;
        let mut left = 1i32;
        for count in &counts[1..] {
            left = left * 2 - i32::from(*count);
            if left < 0 {
                return None;
            }
        }
        let mut starts = [0u16; 17];
        for i in 1..16 {
            starts[i + 1] = starts[i] + counts[i];
        }
        let mut sorted = vec![0; usize::from(starts[16])];
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, l)| **l > 0) {
            let place = &mut starts[usize::from(*length)];
            sorted[usize::from(*place)] = symbol as u16;
            *place += 1;
        }
        let mut fast = vec![(0, 0); 1 << FAST];
        for (symbol, (code, length)) in codes(lengths).into_iter().enumerate() {
            if (1..=FAST).contains(&length) {
                for entry in fast.iter_mut().skip(code as usize).step_by(1 << length) {
                    *entry = (symbol as u16, length);
                }
            }
        }
        Some(Self { fast, counts, sorted })
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<usize> {
        bits.fill();
        let (symbol, length) = self.fast[(bits.held & ((1 << FAST) - 1)) as usize];
        if length > 0 && u32::from(length) <= bits.count {
            bits.take(length)?;
            return Some(usize::from(symbol));
        }
        let (mut code, mut first, mut index) = (0i32, 0i32, 0i32);
        for count in &self.counts[1..] {
            code |= i32::from(bits.take(1)?);
            let count = i32::from(*count);
            if code - first < count {
                return self.sorted.get((index + code - first) as usize).map(|s| usize::from(*s));
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// The codes of canonical lengths, the first bit lowest.
fn codes(lengths: &[u8]) -> Vec<(u32, u8)> {
    let mut next = [0u32; 17];
    let mut counts = [0u32; 16];
    for length in lengths.iter().filter(|l| **l > 0) {
        counts[usize::from(*length)] += 1;
    }
    for i in 1..16 {
        next[i + 1] = (next[i] + counts[i]) << 1;
    }
    let code = |length: &u8| {
        if *length == 0 {
            return (0, 0);
        }
        let code = next[usize::from(*length)];
        next[usize::from(*length)] += 1;
        (code.reverse_bits() >> (32 - u32::from(*length)), *length)
    };
    lengths.iter().map(code).collect()
}

/// Takes a stream apart that inflates to at most `most` bytes; `None` where it is none or its unused bits are set.
pub(super) fn inflate(input: &[u8], most: usize) -> Option<Inflated> {
    let mut plain = Vec::new();
    inflate_into(&mut plain, input, most).map(|(blocks, used)| Inflated { plain, blocks, used })
}

/// The same into `plain`, which says how far it came; the blocks and the bytes taken.
pub(super) fn inflate_into(plain: &mut Vec<u8>, input: &[u8], most: usize) -> Option<(Vec<Block>, usize)> {
    let mut bits = Bits::new(input);
    let mut blocks = Vec::new();
    loop {
        let last = bits.take(1)? == 1;
        let from = plain.len();
        // Empty blocks cost two bytes and nothing to read, but memory here.
        if blocks.len() > 64 + from / 64 {
            return None;
        }
        let mut tokens = Vec::new();
        let kind = match bits.take(2)? {
            0 => {
                bits.align()?;
                let (length, inverse) = (bits.take(16)?, bits.take(16)?);
                if length != !inverse || plain.len() + usize::from(length) > most {
                    return None;
                }
                for _ in 0..length {
                    plain.push(bits.take(8)? as u8);
                }
                Kind::Stored
            }
            1 => {
                let (literals, distances) = fixed_lengths();
                read_tokens(&mut bits, [&literals, &distances], plain, &mut tokens, most)?;
                Kind::Fixed
            }
            2 => {
                let header = Header::read(&mut bits)?;
                read_tokens(&mut bits, [&header.literals, &header.distances], plain, &mut tokens, most)?;
                Kind::Dynamic(header)
            }
            _ => return None,
        };
        blocks.push(Block { kind, last, tokens, length: plain.len() - from });
        if last {
            bits.align()?;
            return Some((blocks, bits.used()));
        }
    }
}

fn read_tokens(
    bits: &mut Bits<'_>,
    lengths: [&[u8]; 2],
    plain: &mut Vec<u8>,
    tokens: &mut Vec<Token>,
    most: usize,
) -> Option<()> {
    let (literals, distances) = (Decoder::new(lengths[0])?, Decoder::new(lengths[1])?);
    loop {
        match literals.read(bits)? {
            END => return Some(()),
            byte @ 0..END => {
                plain.push(byte as u8);
                tokens.push(Token::Literal(byte as u8));
            }
            symbol => {
                let code = symbol - 257;
                let length = LENGTH_BASE.get(code)? + bits.take(LENGTH_EXTRA[code])?;
                let code = distances.read(bits)?;
                let distance = DISTANCE_BASE.get(code)?.checked_add(bits.take(DISTANCE_EXTRA[code])?)?;
                // Two ways to say the longest match; only the usual one can be written again.
                if length_symbol(length).0 != symbol {
                    return None;
                }
                let from = plain.len().checked_sub(usize::from(distance))?;
                for i in 0..usize::from(length) {
                    plain.push(plain[from + i]);
                }
                tokens.push(Token::Match { length, distance });
            }
        }
        if plain.len() > most {
            return None;
        }
    }
}

impl Header {
    pub(super) fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let literals = usize::from(bits.take(5)?) + 257;
        let distances = usize::from(bits.take(5)?) + 1;
        let count = usize::from(bits.take(4)?) + 4;
        let lengths: Vec<u8> = (0..count).map(|_| bits.take(3).map(|l| l as u8)).collect::<Option<_>>()?;
        let mut by_symbol = [0; 19];
        for (symbol, length) in ORDER.iter().zip(&lengths) {
            by_symbol[*symbol] = *length;
        }
        let decoder = Decoder::new(&by_symbol)?;
        let mut all: Vec<u8> = Vec::with_capacity(literals + distances);
        let mut symbols = Vec::new();
        while all.len() < literals + distances {
            let symbol = decoder.read(bits)? as u8;
            let extra = bits.take(extra_bits(symbol))? as u8;
            symbols.push((symbol, extra));
            let (value, times) = match symbol {
                0..16 => (symbol, 1),
                16 => (*all.last()?, 3 + extra),
                17 => (0, 3 + extra),
                _ => (0, 11 + extra),
            };
            all.extend(std::iter::repeat_n(value, usize::from(times)));
        }
        if all.len() > literals + distances || literals > 286 || distances > 30 || all[END] == 0 {
            return None;
        }
        let distances = all.split_off(literals);
        Some(Self { literals: all, distances, symbols, lengths })
    }

    pub(super) fn write(&self, out: &mut BitWriter) {
        out.put(self.literals.len() as u32 - 257, 5);
        out.put(self.distances.len() as u32 - 1, 5);
        out.put(self.lengths.len() as u32 - 4, 4);
        let mut by_symbol = [0; 19];
        for (symbol, length) in ORDER.iter().zip(&self.lengths) {
            by_symbol[*symbol] = *length;
            out.put(u32::from(*length), 3);
        }
        let codes = codes(&by_symbol);
        for (symbol, extra) in &self.symbols {
            let (code, length) = codes[usize::from(*symbol)];
            out.put(code, length);
            out.put(u32::from(*extra), extra_bits(*symbol));
        }
    }
}

/// Extra bits of a symbol of code lengths.
pub(super) const fn extra_bits(symbol: u8) -> u8 {
    match symbol {
        16 => 2,
        17 => 3,
        18 => 7,
        _ => 0,
    }
}

/// Writes a block; `stored` is what it inflates to.
pub(super) fn write(out: &mut BitWriter, block: &Block, stored: &[u8]) {
    out.put(u32::from(block.last), 1);
    let (literals, distances) = match &block.kind {
        Kind::Stored => {
            out.put(0, 2);
            out.align();
            out.put(stored.len() as u32 & 0xffff, 16);
            out.put(!(stored.len() as u32) & 0xffff, 16);
            stored.iter().for_each(|byte| out.put(u32::from(*byte), 8));
            return;
        }
        Kind::Fixed => {
            out.put(1, 2);
            fixed_lengths()
        }
        Kind::Dynamic(header) => {
            out.put(2, 2);
            header.write(out);
            (header.literals.clone(), header.distances.clone())
        }
    };
    let (literals, distances) = (codes(&literals), codes(&distances));
    // A code that a symbol lacks is written as nothing; the comparison afterwards tells.
    let mut symbol = |codes: &[(u32, u8)], symbol: usize, extra: (u16, u8)| {
        let (code, length) = codes.get(symbol).copied().unwrap_or_default();
        out.put(code, length);
        out.put(u32::from(extra.0), extra.1);
    };
    for token in &block.tokens {
        match *token {
            Token::Literal(byte) => symbol(&literals, usize::from(byte), (0, 0)),
            Token::Match { length, distance } => {
                let (code, extra, bits) = length_symbol(length);
                symbol(&literals, code, (extra, bits));
                let (code, extra, bits) = distance_symbol(distance);
                symbol(&distances, code, (extra, bits));
            }
        }
    }
    symbol(&literals, END, (0, 0));
}
