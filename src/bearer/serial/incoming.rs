//! Transfers on their way in: symbols held per transfer, and what has been finished lately.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::frame::Standing;
use crate::bearer::fec::Geometry;
use crate::time::Instant;

/// A transfer as the receiver files it: station, epoch and counter; epoch 0 and the short id while the epoch is unknown.
pub type Key = (u8, u32, u32);

/// How a transfer ended here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Accepted.
    Accepted,
    /// Refused, and why.
    Refused(u8),
}

/// Where a partial stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Symbols are missing.
    Filling,
    /// Being put together.
    Gathering,
    /// The switch is judging it.
    Judged(Arc<[u8]>),
    /// The switch had no room; it is asked again then.
    Later(Arc<[u8]>, Instant),
    /// The end is being committed (`false`: the commit failed and must be tried again).
    Ending(Ending, bool),
}

/// A partly received transfer.
#[derive(Debug)]
pub struct Partial {
    /// How it is cut.
    pub geometry: Geometry,
    /// Symbols by sequence number; true once committed.
    pub symbols: BTreeMap<u16, (Vec<u8>, bool)>,
    /// Numbers of the committed (or being committed) batches, for dropping them.
    pub batches: u32,
    /// When something of it was last heard.
    pub touched: Instant,
    /// Rank of the precedence its sender stated when it was last heard.
    pub rank: u8,
    /// Where it stands.
    pub stage: Stage,
    held: Vec<u32>,
}

impl Partial {
    /// Nothing yet.
    pub fn new(geometry: Geometry, now: Instant) -> Self {
        Self {
            geometry,
            symbols: BTreeMap::new(),
            batches: 0,
            touched: now,
            rank: 0,
            stage: Stage::Filling,
            held: vec![0; geometry.blocks() as usize],
        }
    }

    /// Takes a symbol; false when it is known or not needed.
    pub fn take(&mut self, q: u16, bytes: Vec<u8>, committed: bool) -> bool {
        let block = usize::from(q) % self.held.len();
        let needed = self.geometry.block_count(block as u32);
        let fits = u32::from(q) < self.geometry.sequences() && bytes.len() == self.geometry.air_bytes(u32::from(q));
        if !fits || self.held[block] >= needed || self.symbols.contains_key(&q) || self.stage != Stage::Filling {
            return false;
        }
        self.symbols.insert(q, (bytes, committed));
        self.held[block] += 1;
        true
    }

    /// Every block holds enough.
    pub fn is_whole(&self) -> bool {
        (0..self.geometry.blocks()).all(|b| self.held[b as usize] >= self.geometry.block_count(b))
    }

    /// What a report says of it: only what is committed counts (A3).
    pub fn standing(&self) -> Standing {
        let mut lacks: Vec<u32> = (0..self.geometry.blocks()).map(|b| self.geometry.block_count(b)).collect();
        for (q, (_, committed)) in &self.symbols {
            let lack = &mut lacks[usize::from(*q) % self.held.len()];
            *lack = lack.saturating_sub(u32::from(*committed));
        }
        Standing::Lacks(lacks.into_iter().map(|l| l as u8).collect())
    }
}

/// Symbols committed together, by sequence number.
pub type Batch = Vec<(u16, Vec<u8>)>;

/// Reads one committed batch: length and cut, then sequence number and bytes.
pub fn read_batch(value: &[u8]) -> Option<(Geometry, Batch)> {
    let geometry = Geometry::of_word(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))?;
    let (mut rest, mut symbols) = (&value[4..], Vec::new());
    while let [a, b, tail @ ..] = rest {
        let q = u16::from_be_bytes([*a, *b]);
        if u32::from(q) >= geometry.sequences() {
            return None;
        }
        let length = geometry.air_bytes(u32::from(q));
        symbols.push((q, tail.get(..length)?.to_vec()));
        rest = &tail[length..];
    }
    Some((geometry, symbols))
}

/// Writes one batch.
pub fn write_batch<'a>(geometry: Geometry, symbols: impl Iterator<Item = (u16, &'a [u8])>) -> Vec<u8> {
    let mut out = geometry.word().to_be_bytes().to_vec();
    for (q, bytes) in symbols {
        out.extend(q.to_be_bytes());
        out.extend(bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Cut;

    #[test]
    fn only_committed_symbols_are_claimed() {
        let geometry = Geometry::of_payload(100, Cut::Narrow).expect("in range");
        let mut p = Partial::new(geometry, Instant::ZERO);
        assert!(p.take(0, vec![1; 31], false));
        assert!(!p.take(0, vec![2; 31], false), "the first word counts");
        assert!(!p.take(1, vec![1; 30], false), "a symbol of the wrong length is none");
        assert_eq!(p.standing(), Standing::Lacks(vec![4]));
        p.symbols.get_mut(&0).expect("held").1 = true;
        assert_eq!(p.standing(), Standing::Lacks(vec![3]));
        assert!(p.take(3, vec![1; 7], true) && p.take(8, vec![1; 31], true) && !p.is_whole());
        assert!(p.take(9, vec![1; 31], true) && p.is_whole());
        assert!(!p.take(10, vec![1; 31], true), "enough is enough");
    }

    #[test]
    fn batches_round_trip() {
        let geometry = Geometry::of_payload(100, Cut::Narrow).expect("in range");
        let value = write_batch(geometry, [(3u16, &[7u8; 7][..]), (5, &[8; 31])].into_iter());
        assert_eq!(read_batch(&value), Some((geometry, vec![(3, vec![7; 7]), (5, vec![8; 31])])));
        assert_eq!(read_batch(&value[..20]), None);
        assert_eq!(read_batch(&[]), None);
    }
}
