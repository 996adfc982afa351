//! Symbols: a payload cut into small pieces of a size that does not depend on the data rate, with as many parity pieces as the
//! air may need (link-rules D2). Executors call [`run`]; the links ask [`Geometry`] where a symbol belongs.
//!
//! The code is Reed-Solomon over GF(256), systematic, always laid out for 255 symbols a block, so a parity symbol does not
//! depend on how many of them are ever made. It repairs erasures only: a symbol that comes out of a frame is right or absent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use reed_solomon_erasure::galois_8::ReedSolomon;

use super::{Job, JobDone};
use crate::mail::Cut;

/// Most systematic symbols in one code block.
const BLOCK_SYMBOLS: u32 = 128;
/// Symbols of one code block, parity included.
const BLOCK_ROWS: u32 = 255;

/// Longest payload over a net.
pub const LONGEST_ON_NETS: usize = 2400 << 10;
/// The same, padded.
const LONGEST_CODED_ON_NETS: u32 = (2400 << 10) + 64;

/// How a payload of some length is cut: follows from coded length and cut alone, so every frame says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    coded: u32,
    class: u8,
    cut: Cut,
}

/// The bit of a stored coded length that says that the cut is wide.
const WIDE: u32 = 1 << 31;

impl Geometry {
    /// The geometry of a payload of `bytes` bytes; `None` when it is empty or longer than 512 KiB less one byte.
    pub fn of_payload(bytes: usize, cut: Cut) -> Option<Self> {
        let bytes = u32::try_from(bytes).ok()?;
        let padded = |quantum: u32| (bytes + 1).div_ceil(quantum) * quantum;
        let coded = match bytes {
            0 => return None,
            1..=16_384 => bytes,
            16_385..=131_071 => padded(16),
            131_072..=524_287 => padded(64),
            _ => return None,
        };
        Self::of_coded(coded, cut)
    }

    /// The same, for datagrams that hold larger symbols: up to [`LONGEST_ON_NETS`].
    pub fn of_net_payload(bytes: usize, cut: Cut) -> Option<Self> {
        match bytes {
            ..524_288 => Self::of_payload(bytes, cut),
            524_288..=LONGEST_ON_NETS => Self::of_coded(u32::try_from((bytes + 1).div_ceil(64) * 64).ok()?, cut),
            _ => None,
        }
    }

    /// The geometry of a coded length as frames carry it: the payload, padded above 16 KiB. `None` when no payload has it.
    pub fn of_coded(coded: u32, cut: Cut) -> Option<Self> {
        let class = match coded {
            1..=4096 => 0,
            4097..=16_384 => 1,
            16_385..=131_072 if coded.is_multiple_of(16) => 2,
            131_073..=524_288 if coded.is_multiple_of(64) => 3,
            524_289..=LONGEST_CODED_ON_NETS if coded.is_multiple_of(64) => 4,
            _ => return None,
        };
        Some(Self { coded, class, cut })
    }

    /// As it is stored: coded length and cut in one word.
    pub fn word(self) -> u32 {
        match self.cut {
            Cut::Narrow => self.coded,
            Cut::Wide => self.coded | WIDE,
        }
    }

    /// Reads a stored word.
    pub fn of_word(word: u32) -> Option<Self> {
        Self::of_coded(word & !WIDE, if word & WIDE == 0 { Cut::Narrow } else { Cut::Wide })
    }

    /// Into what it is cut.
    pub fn cut(self) -> Cut {
        self.cut
    }

    /// Coded length in bytes.
    pub fn coded(self) -> u32 {
        self.coded
    }

    /// The class a chunk descriptor names; it has no name for the fifth, which goes over nets only.
    pub fn class(self) -> u8 {
        self.class
    }

    /// Bytes of a symbol (the last systematic one may be shorter on the air).
    pub fn symbol_bytes(self) -> usize {
        let units = match self.class {
            0 | 1 => 1,
            2 => 2,
            3 => 8,
            _ => 40,
        };
        units * self.cut.unit()
    }

    /// Systematic symbols.
    pub fn count(self) -> u32 {
        self.coded.div_ceil(self.symbol_bytes() as u32)
    }

    /// Code blocks; symbol `q` belongs to block `q % blocks`, at index `q / blocks`.
    pub fn blocks(self) -> u32 {
        self.count().div_ceil(BLOCK_SYMBOLS)
    }

    /// Systematic symbols of one block.
    pub fn block_count(self, block: u32) -> u32 {
        (self.count() + self.blocks() - 1 - block.min(self.blocks() - 1)) / self.blocks()
    }

    /// Indices a block has before they repeat.
    pub fn rows(self) -> u32 {
        let sequences = match self.class {
            0 => 512,
            1 => 2048,
            _ => 4096,
        };
        BLOCK_ROWS.min(sequences / self.blocks())
    }

    /// Sequence numbers that exist.
    pub fn sequences(self) -> u32 {
        self.rows() * self.blocks()
    }

    /// Bytes of symbol `q` on the air.
    pub fn air_bytes(self, q: u32) -> usize {
        let size = self.symbol_bytes();
        if q + 1 == self.count() { self.coded as usize - q as usize * size } else { size }
    }
}

/// Does a [`Job`]: a pure function, for a pool of threads or inline.
pub fn run(job: Job) -> JobDone {
    match job {
        Job::Spread { payload, geometry } => JobDone::Spread(Arc::new(spread(&payload, geometry).unwrap_or_default())),
        Job::Gather { geometry, symbols } => JobDone::Gathered(gather(geometry, &symbols)),
    }
}

fn spread(payload: &[u8], geometry: Geometry) -> Option<Vec<Vec<u8>>> {
    let mut coded = payload.to_vec();
    if geometry.class >= 2 {
        // The last byte counts the padding; at least one byte of it is always there.
        let pad = geometry.coded as usize - payload.len();
        coded.resize(geometry.coded as usize, pad as u8);
    }
    let (size, blocks) = (geometry.symbol_bytes(), geometry.blocks() as usize);
    let mut symbols = vec![Vec::new(); geometry.sequences() as usize];
    for block in 0..blocks {
        let k = geometry.block_count(block as u32) as usize;
        let mut shards = vec![vec![0; size]; BLOCK_ROWS as usize];
        for (index, shard) in shards.iter_mut().take(k).enumerate() {
            let at = (index * blocks + block) * size;
            let piece = &coded[at..coded.len().min(at + size)];
            shard[..piece.len()].copy_from_slice(piece);
        }
        codec(k)?.encode(&mut shards).ok()?;
        for (index, mut shard) in shards.into_iter().enumerate().take(geometry.rows() as usize) {
            let q = index * blocks + block;
            shard.truncate(geometry.air_bytes(q as u32));
            symbols[q] = shard;
        }
    }
    Some(symbols)
}

fn gather(geometry: Geometry, symbols: &[(u16, Vec<u8>)]) -> Option<Arc<[u8]>> {
    let (size, blocks) = (geometry.symbol_bytes(), geometry.blocks() as usize);
    let mut shards = vec![vec![None::<Vec<u8>>; BLOCK_ROWS as usize]; blocks];
    for (q, bytes) in symbols {
        let q32 = u32::from(*q);
        if q32 >= geometry.sequences() || bytes.len() != geometry.air_bytes(q32) {
            return None;
        }
        let mut bytes = bytes.clone();
        bytes.resize(size, 0);
        let place = &mut shards[usize::from(*q) % blocks][usize::from(*q) / blocks];
        if place.as_ref().is_some_and(|held| *held != bytes) {
            return None;
        }
        *place = Some(bytes);
    }
    let mut coded = vec![0; geometry.count() as usize * size];
    for (block, shards) in shards.iter_mut().enumerate() {
        let k = geometry.block_count(block as u32) as usize;
        if shards.iter().flatten().count() < k {
            return None;
        }
        if shards[..k].iter().any(Option::is_none) {
            codec(k)?.reconstruct_data(&mut shards[..]).ok()?;
        }
        for (index, shard) in shards.iter().take(k).enumerate() {
            let at = (index * blocks + block) * size;
            coded[at..at + size].copy_from_slice(shard.as_ref()?);
        }
    }
    coded.truncate(geometry.coded as usize);
    if geometry.class >= 2 {
        let pad = usize::from(*coded.last()?);
        let payload = coded.len().checked_sub(pad)?;
        if Geometry::of_net_payload(payload, geometry.cut) != Some(geometry) {
            return None;
        }
        coded.truncate(payload);
    }
    Some(coded.into())
}

/// The codec for `k` systematic symbols. Building one costs milliseconds, there are at most 128 of them, and they hold nothing
/// but mathematics: so they are kept for the whole process.
fn codec(k: usize) -> Option<Arc<ReedSolomon>> {
    static CODECS: Mutex<BTreeMap<usize, Arc<ReedSolomon>>> = Mutex::new(BTreeMap::new());
    if let Some(codec) = CODECS.lock().unwrap_or_else(PoisonError::into_inner).get(&k) {
        return Some(codec.clone());
    }
    let codec = Arc::new(ReedSolomon::new(k, (BLOCK_ROWS as usize).checked_sub(k)?).ok()?);
    Some(CODECS.lock().unwrap_or_else(PoisonError::into_inner).entry(k).or_insert(codec).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_sufficient_symbols_rebuild_the_payload() {
        let lengths =
            [1usize, 30, 31, 32, 33, 34, 1024, 4095, 4096, 4097, 10_240, 16_384, 16_385, 20_000, 131_071, 131_072];
        for (length, cut) in lengths.into_iter().flat_map(|length| CUTS.map(|cut| (length, cut))) {
            let payload = sample(length);
            let geometry = Geometry::of_payload(length, cut).expect("in range");
            let symbols = all(&payload, geometry);
            assert_eq!(symbols.len(), geometry.sequences() as usize);
            // Parity alone where there is enough of it, otherwise the last symbols of every block.
            let take = geometry.count() as usize + geometry.blocks() as usize;
            let some: Vec<_> =
                symbols.iter().enumerate().rev().take(take).map(|(q, s)| (q as u16, s.clone())).collect();
            let JobDone::Gathered(Some(back)) = run(Job::Gather { geometry, symbols: some }) else {
                panic!("{length} does not come back, {cut:?}");
            };
            assert_eq!(*back, payload[..], "{length}, {cut:?}");
        }
    }

    #[test]
    fn what_only_nets_carry_comes_back_from_parity() {
        for (length, cut) in [(524_288, Cut::Narrow), (LONGEST_ON_NETS, Cut::Wide)] {
            let payload = sample(length);
            let geometry = Geometry::of_net_payload(length, cut).expect("in range");
            let symbols = all(&payload, geometry);
            let some = symbols.iter().enumerate().rev().take(geometry.count() as usize + geometry.blocks() as usize);
            let some = some.map(|(q, s)| (q as u16, s.clone())).collect();
            let JobDone::Gathered(Some(back)) = run(Job::Gather { geometry, symbols: some }) else {
                panic!("{length} does not come back");
            };
            assert!(*back == payload[..], "{length}");
        }
    }

    #[test]
    fn too_few_or_contradicting_symbols_rebuild_nothing() {
        let payload = sample(1000);
        let geometry = Geometry::of_payload(1000, Cut::Narrow).expect("in range");
        let symbols = all(&payload, geometry);
        let few: Vec<_> = (1..geometry.count()).map(|q| (q as u16, symbols[q as usize].clone())).collect();
        assert_eq!(run(Job::Gather { geometry, symbols: few.clone() }), JobDone::Gathered(None));
        let mut liars = few;
        liars.push((40, symbols[40].clone()));
        assert!(matches!(run(Job::Gather { geometry, symbols: liars.clone() }), JobDone::Gathered(Some(_))));
        liars.push((40, vec![9; 31]));
        assert_eq!(run(Job::Gather { geometry, symbols: liars }), JobDone::Gathered(None));
    }

    #[test]
    fn d2_parity_does_not_depend_on_how_much_is_made() {
        for k in [1usize, 5, 34, 111, 128] {
            let data: Vec<Vec<u8>> = (0..k).map(|i| sample(31 + i)[i..].to_vec()).collect();
            let mut long = data.clone();
            long.resize(255, vec![0; 31]);
            ReedSolomon::new(k, 255 - k).expect("codec").encode(&mut long).expect("equal lengths");
            for parity in [1usize, 2, 17, 100] {
                let mut short = data.clone();
                short.resize(k + parity, vec![0; 31]);
                ReedSolomon::new(k, parity).expect("codec").encode(&mut short).expect("equal lengths");
                assert_eq!(short[..], long[..k + parity], "k {k}, {parity} parity symbols");
            }
        }
    }

    #[test]
    fn the_cut_is_balanced_and_fits_the_descriptor() {
        let lengths = (1..524_288).step_by(997).chain([4096, 4097, 16_384, 16_385, 131_071, 131_072, 524_287]);
        for (length, cut) in lengths.flat_map(|length| CUTS.map(|cut| (length, cut))) {
            let g = Geometry::of_payload(length, cut).expect("in range");
            assert_eq!(Geometry::of_word(g.word()), Some(g));
            let sizes: Vec<u32> = (0..g.blocks()).map(|b| g.block_count(b)).collect();
            assert_eq!(sizes.iter().sum::<u32>(), g.count());
            assert!(sizes.iter().max().expect("one") - sizes.iter().min().expect("one") <= 1);
            assert!(sizes.iter().all(|k| *k <= 128 && g.rows() > *k + 100), "{length}: {sizes:?} of {}", g.rows());
            assert!(g.sequences() <= [512, 2048, 4096, 4096][usize::from(g.class())]);
        }
        assert_eq!(Geometry::of_payload(0, Cut::Narrow), None);
        assert_eq!(Geometry::of_payload(524_288, Cut::Wide), None);
        for cut in CUTS {
            assert_eq!(Geometry::of_net_payload(524_287, cut), Geometry::of_payload(524_287, cut));
            assert_eq!(
                (Geometry::of_net_payload(LONGEST_ON_NETS + 1, cut), Geometry::of_net_payload(usize::MAX, cut)),
                (None, None)
            );
            for length in (524_288..=LONGEST_ON_NETS).step_by(99_991).chain([LONGEST_ON_NETS]) {
                let g = Geometry::of_net_payload(length, cut).expect("in range");
                assert_eq!((Geometry::of_word(g.word()), Geometry::of_coded(g.coded(), cut)), (Some(g), Some(g)));
                assert!(g.blocks() <= 16 && g.rows() >= 255 && g.block_count(0) <= 128, "{length}");
            }
        }
        assert_eq!(Geometry::of_coded(16_390, Cut::Narrow), None);
    }

    #[test]
    fn the_cut_follows_what_fills_a_cell() {
        // 75, 300, 1200, 2400 and 9600 bit/s.
        let cuts = [76, 140, 212, 262, 512].map(|cell| Cut::for_room(cell - 14));
        assert_eq!(cuts, [Cut::Narrow, Cut::Narrow, Cut::Wide, Cut::Narrow, Cut::Narrow]);
    }

    const CUTS: [Cut; 2] = [Cut::Narrow, Cut::Wide];

    fn all(payload: &[u8], geometry: Geometry) -> Vec<Vec<u8>> {
        match run(Job::Spread { payload: payload.into(), geometry }) {
            JobDone::Spread(symbols) => symbols.to_vec(),
            JobDone::Gathered(_) => Vec::new(),
        }
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 + i / 7 + length) as u8).collect()
    }
}
