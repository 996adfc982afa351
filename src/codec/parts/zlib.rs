//! What zlib would do: the matches it finds, the codes it builds, the kind of block it takes.
//!
//! [`super::deflate`] asks for each decision and sends only those that fell out otherwise. Written from what deflate streams and the published
//! description of the algorithm (RFC 1951, section 4) show; nothing depends on it being right but the size of what is sent.
//! Steps along hash chains are counted, so that no input makes the search long.

use super::inflate::{self, END, Header, Kind, MAX_MATCH, ORDER, Token};

const MIN_MATCH: usize = 3;
/// A match of three bytes further off than this is not worth it.
const TOO_FAR: usize = 4096;
/// Distances keep this much of the window free.
const MIN_LOOKAHEAD: usize = MAX_MATCH + MIN_MATCH + 1;

/// How hard an encoder looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Effort {
    /// Of zlib, 1 to 9.
    pub level: u8,
    /// Of zlib, 1 to 9: size of the hash table and of blocks.
    pub memory: u8,
    /// Base two logarithm of the window, 9 to 15.
    pub window: u8,
    pub aim: Aim,
}

/// What the encoder was told of its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aim {
    Default,
    /// Short matches are chance: pictures after a filter.
    Filtered,
    /// Runs of one byte alone.
    Runs,
}

/// Chains of a search: when to shorten them, how long a match ends the looking, the same for the search, and their length.
const LEVELS: [(usize, usize, usize, usize); 9] = [
    (4, 4, 8, 4),
    (4, 5, 16, 8),
    (4, 6, 32, 32),
    (4, 4, 16, 16),
    (8, 16, 32, 32),
    (8, 16, 128, 128),
    (8, 32, 128, 256),
    (32, 128, 258, 1024),
    (32, 258, 258, 4096),
];
/// Up to this level no later match is awaited.
const GREEDY: u8 = 3;

impl Effort {
    pub(super) const fn is_valid(self) -> bool {
        self.level >= 1
            && self.level <= 9
            && self.memory >= 1
            && self.memory <= 9
            && self.window >= 9
            && self.window <= 15
    }

    /// Tokens of a full block.
    pub(super) const fn block_tokens(self) -> usize {
        (1 << (self.memory + 6)) - 1
    }
}

/// A match found: length and distance; length below three is none.
type Found = (usize, usize);

/// The search of one stream.
pub(super) struct Finder<'a> {
    plain: &'a [u8],
    effort: Effort,
    head: Vec<u32>,
    chain: Vec<u32>,
    /// Every position before this one is in the chains, or was skipped.
    inserted: usize,
    /// The match at the next position, where it was looked for already.
    pending: Option<Found>,
    /// Steps along chains that may still be made.
    steps: &'a mut usize,
}

/// No position.
const NONE: u32 = u32::MAX;

impl<'a> Finder<'a> {
    pub(super) fn new(plain: &'a [u8], effort: Effort, steps: &'a mut usize) -> Self {
        Self {
            plain,
            effort,
            head: vec![NONE; 1 << (effort.memory + 7)],
            chain: vec![NONE; 1 << effort.window],
            inserted: 0,
            pending: None,
            steps,
        }
    }

    /// The token zlib writes at `at`; `None` where the search took too long.
    pub(super) fn token(&mut self, at: usize) -> Option<Token> {
        let found = match self.pending.take() {
            Some(found) => found,
            None => self.find(at, MIN_MATCH - 1)?,
        };
        let (_, lazy, _, _) = self.level();
        if found.0 < MIN_MATCH {
            if self.effort.level > GREEDY {
                self.pending = None;
            }
            return Some(Token::Literal(self.plain[at]));
        }
        if self.effort.level > GREEDY && at + 1 < self.plain.len() {
            let next = if found.0 < lazy { self.find(at + 1, found.0)? } else { (MIN_MATCH - 1, 0) };
            if next.0 > found.0 {
                self.pending = Some(next);
                return Some(Token::Literal(self.plain[at]));
            }
        }
        Some(Token::Match { length: found.0 as u16, distance: found.1 as u16 })
    }

    /// Takes note of the token that stands at `at` in truth, and says where the next begins.
    pub(super) fn commit(&mut self, at: usize, token: Token, foreseen: bool) -> usize {
        let length = match token {
            Token::Literal(_) => 1,
            Token::Match { length, .. } => usize::from(length),
        };
        if !foreseen {
            self.pending = None;
        }
        let (_, lazy, _, _) = self.level();
        if self.effort.level <= GREEDY && length > lazy && self.inserted <= at + 1 {
            self.insert(at);
            self.inserted = at + length;
        } else {
            self.insert(at + length - 1);
        }
        at + length
    }

    fn level(&self) -> (usize, usize, usize, usize) {
        LEVELS[usize::from(self.effort.level) - 1]
    }

    fn hash(&self, at: usize) -> usize {
        let bits = u32::from(self.effort.memory) + 7;
        let shift = bits.div_ceil(3);
        let bytes = &self.plain[at..at + MIN_MATCH];
        bytes.iter().fold(0, |hash, byte| (hash << shift ^ usize::from(*byte)) & ((1 << bits) - 1))
    }

    /// Puts every position up to `at` into the chains.
    fn insert(&mut self, at: usize) {
        while self.inserted <= at {
            let position = self.inserted;
            if position + MIN_MATCH <= self.plain.len() {
                let hash = self.hash(position);
                let mask = self.chain.len() - 1;
                self.chain[position & mask] = self.head[hash];
                self.head[hash] = position as u32;
            }
            self.inserted += 1;
        }
    }

    /// The best match at `at` that is longer than `longer_than`.
    fn find(&mut self, at: usize, longer_than: usize) -> Option<Found> {
        const NOTHING: Found = (MIN_MATCH - 1, 0);
        self.insert(at);
        let ahead = self.plain.len() - at;
        if ahead < MIN_MATCH {
            return Some(NOTHING);
        }
        if self.effort.aim == Aim::Runs {
            let Some(previous) = at.checked_sub(1).map(|p| self.plain[p]) else { return Some(NOTHING) };
            let run = self.plain[at..].iter().take(MAX_MATCH).take_while(|b| **b == previous).count();
            return Some(if run >= MIN_MATCH { (run, 1) } else { NOTHING });
        }
        let farthest = (1usize << self.effort.window) - MIN_LOOKAHEAD;
        let (good, _, nice, mut tries) = self.level();
        if longer_than >= good {
            tries >>= 2;
        }
        let nice = nice.min(ahead);
        let mask = self.chain.len() - 1;
        let mut candidate = self.chain[at & mask];
        let (mut best, mut distance) = (longer_than, 0);
        let mut first = true;
        // Position 0 ends every chain of zlib's.
        while candidate != NONE && candidate != 0 {
            let from = candidate as usize;
            let away = at.wrapping_sub(from);
            if away > farthest || away == 0 || (!first && away >= farthest) || tries == 0 {
                break;
            }
            first = false;
            tries -= 1;
            *self.steps = self.steps.checked_sub(1)?;
            // The last byte first: most candidates fall there.
            if best < ahead && self.plain[from + best] == self.plain[at + best] {
                let limit = ahead.min(MAX_MATCH);
                // A long comparison counts as several steps.
                let same =
                    self.plain[from..].iter().zip(&self.plain[at..at + limit]).take_while(|(a, b)| a == b).count();
                *self.steps = self.steps.checked_sub(same / 16)?;
                if same > best {
                    (best, distance) = (same, away);
                    if same >= nice {
                        break;
                    }
                }
            }
            candidate = self.chain[from & mask];
        }
        let chance = match self.effort.aim {
            _ if self.effort.level <= GREEDY => false,
            Aim::Filtered => best <= 5,
            _ => best == MIN_MATCH && distance > TOO_FAR,
        };
        Some(if distance == 0 || chance { NOTHING } else { (best, distance) })
    }
}

/// How often each symbol stands in a block, its end included.
struct Frequencies {
    literals: [u32; 286],
    distances: [u32; 30],
    extra_bits: usize,
}

impl Frequencies {
    fn of(tokens: &[Token]) -> Self {
        let mut counted = Self { literals: [0; 286], distances: [0; 30], extra_bits: 0 };
        for token in tokens {
            match *token {
                Token::Literal(byte) => counted.literals[usize::from(byte)] += 1,
                Token::Match { length, distance } => {
                    for (place, (symbol, _, bits)) in
                        [inflate::length_symbol(length), inflate::distance_symbol(distance)].into_iter().enumerate()
                    {
                        let table: &mut [u32] = if place == 0 { &mut counted.literals } else { &mut counted.distances };
                        table[symbol] += 1;
                        counted.extra_bits += usize::from(bits);
                    }
                }
            }
        }
        counted.literals[END] += 1;
        counted
    }

    fn bits(&self, literals: &[u8], distances: &[u8]) -> usize {
        let sum = |counts: &[u32], lengths: &[u8]| -> usize {
            counts.iter().zip(lengths).map(|(c, l)| *c as usize * usize::from(*l)).sum()
        };
        self.extra_bits + sum(&self.literals, literals) + sum(&self.distances, distances)
    }
}

/// The kind of block zlib takes for these tokens of so many bytes.
pub(super) fn kind(tokens: &[Token], bytes: usize) -> Kind {
    let counted = Frequencies::of(tokens);
    let header = header(&counted);
    let header_bits: usize = 14
        + 3 * header.lengths.len()
        + header
            .symbols
            .iter()
            .map(|(symbol, _)| usize::from(by_symbol(&header)[usize::from(*symbol)] + inflate::extra_bits(*symbol)))
            .sum::<usize>();
    let (literals, distances) = inflate::fixed_lengths();
    let octets = |bits: usize| (bits + 3).div_ceil(8);
    let dynamic = octets(header_bits + counted.bits(&header.literals, &header.distances));
    let fixed = octets(counted.bits(&literals, &distances));
    if bytes + 4 <= dynamic.min(fixed) {
        Kind::Stored
    } else if fixed <= dynamic {
        Kind::Fixed
    } else {
        Kind::Dynamic(header)
    }
}

/// The header zlib gives a block with codes of its own.
pub(super) fn dynamic(tokens: &[Token]) -> Header {
    header(&Frequencies::of(tokens))
}

fn by_symbol(header: &Header) -> [u8; 19] {
    let mut lengths = [0; 19];
    for (symbol, length) in ORDER.iter().zip(&header.lengths) {
        lengths[*symbol] = *length;
    }
    lengths
}

fn header(counted: &Frequencies) -> Header {
    let literals = lengths(&counted.literals, 15);
    let distances = lengths(&counted.distances, 15);
    let mut symbols = runs(&literals);
    symbols.extend(runs(&distances));
    let mut counts = [0; 19];
    for (symbol, _) in &symbols {
        counts[usize::from(*symbol)] += 1;
    }
    let mut codes = lengths(&counts, 7);
    codes.resize(19, 0);
    let used = ORDER.iter().rposition(|symbol| codes[*symbol] > 0).map_or(4, |last| (last + 1).max(4));
    Header { literals, distances, symbols, lengths: ORDER[..used].iter().map(|symbol| codes[*symbol]).collect() }
}

/// Code lengths up to the last symbol used, built as zlib does it: two symbols at least, ties by depth.
fn lengths(counts: &[u32], longest: usize) -> Vec<u8> {
    let elements = counts.len();
    let mut weight: Vec<u32> = counts.to_vec();
    let mut heap: Vec<usize> = (0..elements).filter(|i| weight[*i] > 0).collect();
    let mut last = heap.last().copied();
    while heap.len() < 2 {
        let node = match last {
            Some(l) if l >= 2 => 0,
            Some(l) => l + 1,
            None => 0,
        };
        if node != 0 || last.is_none() {
            last = Some(node);
        }
        weight[node] = 1;
        heap.push(node);
    }
    let last = last.unwrap_or(0);
    weight.resize(2 * elements, 0);
    let mut depth = vec![0u8; 2 * elements];
    let mut parent = vec![usize::MAX; 2 * elements];
    let smaller = |weight: &[u32], depth: &[u8], a: usize, b: usize| (weight[a], depth[a]) <= (weight[b], depth[b]);
    let sift = |heap: &mut [usize], weight: &[u32], depth: &[u8], mut at: usize| {
        let moved = heap[at];
        loop {
            let mut child = 2 * at + 1;
            if child >= heap.len() {
                break;
            }
            if child + 1 < heap.len() && smaller(weight, depth, heap[child + 1], heap[child]) {
                child += 1;
            }
            if smaller(weight, depth, moved, heap[child]) {
                break;
            }
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = moved;
    };
    for at in (0..heap.len() / 2).rev() {
        sift(&mut heap, &weight, &depth, at);
    }
    // Nodes in the order they leave the heap, the rarest first.
    let mut order = Vec::with_capacity(2 * elements);
    let mut node = elements;
    while heap.len() >= 2 {
        let first = heap.swap_remove(0);
        if !heap.is_empty() {
            sift(&mut heap, &weight, &depth, 0);
        }
        let second = heap[0];
        order.extend([first, second]);
        weight[node] = weight[first] + weight[second];
        depth[node] = depth[first].max(depth[second]) + 1;
        parent[first] = node;
        parent[second] = node;
        heap[0] = node;
        sift(&mut heap, &weight, &depth, 0);
        node += 1;
    }
    let root = node - 1;
    let mut bits = vec![0usize; 2 * elements];
    let mut at_length = vec![0usize; longest + 2];
    let mut overflow = 0usize;
    for node in order.iter().rev() {
        let mut length = bits[parent[*node]] + 1;
        debug_assert!(*node != root);
        if length > longest {
            length = longest;
            overflow += 1;
        }
        bits[*node] = length;
        if *node < elements {
            at_length[length] += 1;
        }
    }
    if overflow > 0 {
        while overflow > 0 {
            let Some(shorter) = (1..longest).rev().find(|length| at_length[*length] > 0) else { break };
            at_length[shorter] -= 1;
            at_length[shorter + 1] += 2;
            at_length[longest] -= 1;
            overflow = overflow.saturating_sub(2);
        }
        // The rarest get the longest.
        let mut leaves = order.iter().filter(|node| **node < elements);
        for length in (1..=longest).rev() {
            for node in leaves.by_ref().take(at_length[length]) {
                bits[*node] = length;
            }
        }
    }
    (0..=last).map(|symbol| bits[symbol] as u8).collect()
}

/// The symbols that code lengths are sent with, and their extra bits.
fn runs(lengths: &[u8]) -> Vec<(u8, u8)> {
    let mut symbols = Vec::new();
    let mut previous = None;
    let mut at = 0;
    while at < lengths.len() {
        let value = lengths[at];
        let (most, least) = match value {
            0 => (138, 3),
            _ if previous == Some(value) => (6, 3),
            _ => (7, 4),
        };
        let mut count = lengths[at..].iter().take(most).take_while(|l| **l == value).count();
        at += count;
        if count < least {
            symbols.extend(std::iter::repeat_n((value, 0), count));
        } else if value != 0 {
            if previous != Some(value) {
                symbols.push((value, 0));
                count -= 1;
            }
            symbols.push((16, count as u8 - 3));
        } else if count <= 10 {
            symbols.push((17, count as u8 - 3));
        } else {
            symbols.push((18, count as u8 - 11));
        }
        previous = Some(value);
    }
    symbols
}
