//! Counts what English is like, for the table that the mail model knows before it reads anything (`lore.zst`).
//!
//! Each place in the texts is looked at in every kind of [`lore`]: how often which bit followed. What a kind says beyond its plainer ones, in bits
//! over all texts, decides what is kept.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;

use aldis::codec::mixing::mail::lore::{self, KINDS, PLAINER, Wording};

/// An entry has to be worth so many bits over all texts.
const LEAST_BITS: f32 = 9.0;
/// A context as common as this says nothing.
const MOST_PLACES: usize = 2_000_000;
/// What a kind takes over from its plainer one, in places.
const TRUST: f32 = 1.5;

/// The texts, place by place.
#[derive(Default)]
struct Places {
    bytes: Vec<u8>,
    weights: Vec<u8>,
    contexts: [Vec<u32>; KINDS],
    /// The small letter before each.
    last: Vec<u8>,
}

struct Candidate {
    bits: f32,
    kind: usize,
    context: u32,
    partial: usize,
    value: u8,
}

/// Makes the file of texts, each a path and a weight with a colon between.
pub fn found_in(texts: &[String]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut places = Places::default();
    for text in texts {
        let (path, weight) = text.rsplit_once(':').ok_or("PATH:WEIGHT, please")?;
        places.take(&std::fs::read(path)?, weight.parse()?);
        println!("{path}: {} places", places.bytes.len());
    }
    let mut kept = HashMap::new();
    let mut candidates = Vec::new();
    let plainest = places.plainest();
    for kind in 0..KINDS {
        let before = candidates.len();
        places.weigh(kind, &plainest, &kept, &mut candidates);
        let new =
            candidates[before..].iter().map(|(c, chance): &(Candidate, f32)| ((kind, c.context, c.partial), *chance));
        kept.extend(new);
        println!("kind {kind}: {} kept", candidates.len() - before);
    }
    candidates.sort_by(|(a, _), (b, _)| b.bits.total_cmp(&a.bits));
    let (mut checks, mut values) = (vec![0u8; 1 << lore::BITS], vec![0u8; 1 << lore::BITS]);
    let mut lost = 0;
    for (candidate, _) in &candidates {
        let (base, node) = halves(candidate.partial);
        let (at, check) = lore::entry(lore::half(candidate.kind, candidate.context, base), node);
        match (0..lore::PLACES).map(|place| at ^ place).find(|at| checks[*at] == 0) {
            Some(at) => (checks[at], values[at]) = (check, candidate.value),
            None => lost += 1,
        }
    }
    println!("{} entries, {lost} found no place", candidates.len() - lost);
    Ok(zstd::bulk::compress(&[checks, values].concat(), 19)?)
}

/// The bits of a byte so far: those that its half begins with, and those of the half.
fn halves(partial: usize) -> (usize, usize) {
    match partial.ilog2() {
        0..4 => (1, partial),
        bits => (partial >> (bits - 4), partial & ((1 << (bits - 4)) - 1) | 1 << (bits - 4)),
    }
}

/// The bits so far of a byte, those of a capital letter as those of the small one.
fn fold(partial: usize) -> usize {
    let bits = partial.ilog2();
    if bits >= 3 && partial >> (bits - 3) == 0b1010 { partial | 1 << (bits - 3) } else { partial }
}

/// The bits of a byte, each with what stands before it.
fn bits(byte: u8) -> impl Iterator<Item = (usize, usize)> {
    (0..8).map(move |bit| (fold((usize::from(byte) | 0x100) >> (8 - bit)), usize::from(byte >> (7 - bit) & 1)))
}

impl Places {
    fn take(&mut self, text: &[u8], weight: u8) {
        let mut wording = Wording::default();
        for &byte in text {
            let blank = matches!(byte, b'\r' | b'\n' | b'\t' | b' ');
            if blank && wording.last() == b' ' {
                continue;
            }
            for (all, context) in self.contexts.iter_mut().zip(wording.contexts()) {
                all.push(context);
            }
            let byte = if blank { b' ' } else { byte };
            self.last.push(self.bytes.last().map_or(0, u8::to_ascii_lowercase));
            self.bytes.push(byte);
            self.weights.push(weight);
            wording.push(byte);
        }
    }

    /// Chances behind the last byte alone, in which what no kind knows is weighed.
    fn plainest(&self) -> Vec<f32> {
        let mut counts = vec![[0.4f32; 2]; 256 * 512];
        for ((byte, last), weight) in self.bytes.iter().zip(&self.last).zip(&self.weights) {
            for (partial, bit) in bits(*byte) {
                counts[usize::from(*last) * 512 + partial][bit] += f32::from(*weight);
            }
        }
        counts.iter().map(|[zeros, ones]| ones / (zeros + ones)).collect()
    }

    /// Finds what one kind has to say.
    fn weigh(
        &self,
        kind: usize,
        plainest: &[f32],
        kept: &HashMap<(usize, u32, usize), f32>,
        candidates: &mut Vec<(Candidate, f32)>,
    ) {
        let mut order: Vec<u64> =
            self.contexts[kind].iter().enumerate().map(|(at, context)| u64::from(*context) << 32 | at as u64).collect();
        order.sort_unstable();
        for same in order.chunk_by(|a, b| a >> 32 == b >> 32) {
            let context = (same[0] >> 32) as u32;
            if context == 0 || !(2..MOST_PLACES).contains(&same.len()) {
                continue;
            }
            let mut counts: BTreeMap<usize, ([f32; 2], usize)> = BTreeMap::new();
            let places = || same.iter().map(|entry| (*entry & 0xffff_ffff) as usize);
            for at in places() {
                for (partial, bit) in bits(self.bytes[at]) {
                    let (count, seen) = counts.entry(partial).or_default();
                    count[bit] += f32::from(self.weights[at]);
                    *seen += 1;
                }
            }
            let first = places().next().unwrap_or_default();
            for (partial, ([zeros, ones], _)) in counts.into_iter().filter(|(_, (_, seen))| *seen >= 2) {
                let mut plainer = PLAINER[kind];
                let mut before = None;
                while let (None, Some(kind)) = (before, plainer) {
                    before = kept.get(&(kind, self.contexts[kind][first], partial)).copied();
                    plainer = PLAINER[kind];
                }
                let before =
                    before.unwrap_or(plainest[usize::from(self.last[first]) * 512 + partial]).clamp(0.0005, 0.9995);
                let seen = zeros + ones;
                let chance = ((ones + TRUST * before) / (seen + TRUST)).clamp(0.0005, 0.9995);
                let gained = ones * (chance / before).log2() + zeros * ((1.0 - chance) / (1.0 - before)).log2();
                let bits = gained * (seen - 1.0) / seen;
                if bits > LEAST_BITS {
                    let value = lore::value(chance, seen);
                    candidates.push((Candidate { bits, kind, context, partial, value }, chance));
                }
            }
        }
    }
}
