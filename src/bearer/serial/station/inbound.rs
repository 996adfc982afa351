//! What a neighbour's transmissions lose on the way here, read from the gaps in their symbols. Fades and many a noise are the same both
//! ways, so it is what a station expects of the way back until reports say better.

use std::collections::BTreeMap;

use super::super::frame::Chunk;

/// Cells of evidence that are remembered before they halve.
const MEMORY_CELLS: f64 = 80.0;
/// Transfers of one transmission that are followed.
const TRANSFERS: usize = 16;
/// What a cell lost on the way here says of the way there.
const WEIGHT: f64 = 0.5;

/// Evidence of one neighbour.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inbound {
    cells: f64,
    lost: f64,
    /// The sequence number that follows what was heard of each transfer in the present transmission.
    next: BTreeMap<u16, u32>,
}

impl Inbound {
    /// Its next transmission has begun.
    pub fn begins(&mut self) {
        self.next.clear();
    }

    /// A chunk of it was heard, in cells of so many bytes.
    pub fn hear(&mut self, chunk: &Chunk, cell_bytes: u32) {
        let (first, symbols) = (u32::from(chunk.first), chunk.symbols.len() as u32);
        // The first pass over a transfer is in order; later symbols go where they are lacking.
        if first >= chunk.geometry.count() || self.next.len() >= TRANSFERS && !self.next.contains_key(&chunk.short) {
            return;
        }
        let next = self.next.entry(chunk.short).or_insert(first);
        let missed = first.saturating_sub(*next);
        // A symbol that comes again does not make those after it come again.
        *next = (*next).max(first + symbols);
        let cells =
            |symbols: u32| f64::from(symbols) * chunk.geometry.symbol_bytes() as f64 / f64::from(cell_bytes.max(1));
        self.cells += cells(symbols + missed);
        self.lost += cells(missed);
        if self.cells > MEMORY_CELLS {
            (self.cells, self.lost) = (self.cells / 2.0, self.lost / 2.0);
        }
    }

    /// Lost cells and cells, as they count for the way there.
    pub fn evidence(&self) -> (f64, f64) {
        (self.lost * WEIGHT, self.cells * WEIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bearer::fec::Geometry;
    use crate::mail::Cut;

    #[test]
    fn gaps_of_the_first_pass_are_losses_and_nothing_else_is() {
        let geometry = Geometry::of_payload(3100, Cut::Narrow).expect("in range");
        let chunk = |short, first, n| Chunk { short, geometry, first, symbols: vec![vec![0; 31]; n] };
        let mut inbound = Inbound::default();
        inbound.hear(&chunk(1, 8, 8), 248);
        assert_eq!(inbound.evidence(), (0.0, 0.5), "where a transmission begins nobody knows");
        inbound.hear(&chunk(2, 40, 8), 248);
        inbound.hear(&chunk(1, 32, 8), 248);
        assert_eq!(inbound.evidence(), (1.0, 2.5), "two frames between 16 and 32");
        inbound.hear(&chunk(1, 140, 8), 248);
        assert_eq!(inbound.evidence(), (1.0, 2.5), "parity goes where it is lacking");
        inbound.begins();
        inbound.hear(&chunk(1, 64, 8), 248);
        assert_eq!(inbound.evidence(), (1.0, 3.0));
        inbound.hear(&chunk(1, 56, 8), 248);
        inbound.hear(&chunk(1, 72, 8), 248);
        assert_eq!(inbound.evidence(), (1.0, 4.0), "a repeat opens no gap");
        for n in 0..5000u16 {
            inbound.begins();
            inbound.hear(&chunk(n, 0, 8), 248);
        }
        let (lost, cells) = inbound.evidence();
        assert!(lost < 0.01 && cells <= MEMORY_CELLS, "{lost} of {cells}: it forgets, and is bounded");
        for short in 0..100 {
            inbound.hear(&chunk(short, 0, 1), 248);
        }
        assert!(inbound.next.len() <= TRANSFERS);
    }
}
