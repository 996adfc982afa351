//! What the path between two stations does to the bytes of one transmission.
//!
//! A [`Passage`] is one transmission on one directed link. It is blind to the bytes' meaning: it counts from the
//! transmission's first byte (link-rules E2), and every decision hangs on (seed, sender, receiver, transmission number, index)
//! alone, so that a change of framing, or another station, leaves the pattern as it is.

use crate::rng::Stream;

/// How a link loses bytes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Loss {
    /// Nothing is lost.
    #[default]
    Ideal,
    /// The transmission is cut from its start into cells; each is lost on its own with probability `p`.
    Cells {
        /// Bytes of a cell.
        bytes: u32,
        /// Probability that a cell is lost.
        p: f64,
        /// What a lost cell becomes.
        damage: Damage,
    },
    /// Cells lost in bursts: a two-state chain that steps once per cell and loses every cell in its bad state. It starts each
    /// transmission in its stationary state.
    Gilbert {
        /// Bytes of a cell.
        bytes: u32,
        /// Probability of going from good to bad.
        bad: f64,
        /// Probability of going from bad to good.
        good: f64,
        /// What a lost cell becomes.
        damage: Damage,
    },
    /// Independent bit errors.
    Bits {
        /// Bit error ratio.
        ber: f64,
    },
    /// Whole interleaver blocks are lost on their own with probability `p`, as garbage.
    Blocks {
        /// Probability that a block is lost.
        p: f64,
    },
}

/// What the receiver gets in place of a lost cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Damage {
    /// Garbage of the same length.
    #[default]
    Garbage,
    /// Nothing: what follows moves up.
    Deleted,
}

/// One transmission as it passes one directed link.
#[derive(Clone, Debug)]
pub struct Passage {
    loss: Loss,
    seed: u64,
    name: [u64; 3],
    /// Bytes and blocks passed so far.
    bytes: u64,
    blocks: u64,
    /// Gilbert: the cell the chain stands at and whether it is bad there.
    chain: (u64, bool),
    /// Bits: the stream of gaps and the next bit in error.
    gaps: Stream,
    next_error: u64,
}

/// What came out of a block.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Arrived {
    /// What the modem hands out.
    pub bytes: Vec<u8>,
    /// How many of the bytes that went in came out whole and in their place.
    pub good: u64,
    /// Effective signal-to-noise ratio over the block, where the path has one.
    pub snr_db: Option<f64>,
}

impl Passage {
    /// Transmission number `transmission` of station `from` on its way to station `to`.
    pub fn new(seed: u64, from: u16, to: u16, transmission: u64, loss: Loss) -> Self {
        let name = [u64::from(from), u64::from(to), transmission];
        let mut start = Stream::keyed(seed, "burst", &name);
        let bad = match loss {
            Loss::Gilbert { bad, good, .. } => start.chance(bad / (bad + good)),
            Loss::Ideal | Loss::Cells { .. } | Loss::Bits { .. } | Loss::Blocks { .. } => false,
        };
        let mut passage = Self {
            loss,
            seed,
            name,
            bytes: 0,
            blocks: 0,
            chain: (0, bad),
            gaps: Stream::keyed(seed, "bits", &name),
            next_error: u64::MAX,
        };
        if let Loss::Bits { ber } = loss {
            passage.next_error = passage.gap(ber);
        }
        passage
    }

    /// Passes the bytes of the next block.
    pub fn pass(&mut self, block: &[u8]) -> Arrived {
        let first = self.bytes;
        let number = self.blocks;
        self.bytes += block.len() as u64;
        self.blocks += 1;
        match self.loss {
            Loss::Ideal => Arrived { bytes: block.to_vec(), good: block.len() as u64, snr_db: None },
            Loss::Cells { bytes, damage, .. } | Loss::Gilbert { bytes, damage, .. } => {
                self.pass_cells(first, block, u64::from(bytes.max(1)), damage)
            }
            Loss::Bits { ber } => self.pass_bits(first, block, ber),
            Loss::Blocks { p } if self.stream("block", number).chance(p) => {
                Arrived { bytes: self.garbage(first, block.len()), good: 0, snr_db: None }
            }
            Loss::Blocks { .. } => Arrived { bytes: block.to_vec(), good: block.len() as u64, snr_db: None },
        }
    }

    /// Passes the next block through a collision: all of it becomes garbage.
    pub fn ruin(&mut self, block: &[u8]) -> Arrived {
        let first = self.bytes;
        // The chain and the bit errors go on underneath.
        let _ = self.pass(block);
        Arrived { bytes: self.garbage(first, block.len()), good: 0, snr_db: None }
    }

    fn pass_cells(&mut self, first: u64, block: &[u8], cell: u64, damage: Damage) -> Arrived {
        let mut arrived = Arrived::default();
        let mut at = 0;
        while at < block.len() {
            let offset = first + at as u64;
            let index = offset / cell;
            let take = usize::try_from(cell - offset % cell).unwrap_or(usize::MAX).min(block.len() - at);
            let piece = &block[at..at + take];
            if !self.cell_lost(index) {
                arrived.bytes.extend_from_slice(piece);
                arrived.good += take as u64;
            } else if damage == Damage::Garbage {
                arrived.bytes.extend_from_slice(&self.garbage(offset, take));
            }
            at += take;
        }
        arrived
    }

    fn cell_lost(&mut self, index: u64) -> bool {
        match self.loss {
            Loss::Cells { p, .. } => self.stream("cell", index).chance(p),
            Loss::Gilbert { bad, good, .. } => {
                while self.chain.0 < index {
                    let at = self.chain.0 + 1;
                    let leaves = self.stream("cell", at).chance(if self.chain.1 { good } else { bad });
                    self.chain = (at, self.chain.1 != leaves);
                }
                self.chain.1
            }
            Loss::Ideal | Loss::Bits { .. } | Loss::Blocks { .. } => false,
        }
    }

    fn pass_bits(&mut self, first: u64, block: &[u8], ber: f64) -> Arrived {
        let mut arrived = Arrived { bytes: block.to_vec(), good: block.len() as u64, snr_db: None };
        let mut last_hit = None;
        while let Some(byte) = self.next_error.checked_div(8).filter(|&b| b < first + block.len() as u64) {
            let at = usize::try_from(byte - first).unwrap_or(usize::MAX);
            if let Some(b) = arrived.bytes.get_mut(at) {
                *b ^= 1 << (self.next_error % 8);
                arrived.good -= u64::from(last_hit != Some(at));
                last_hit = Some(at);
            }
            self.next_error = self.next_error.saturating_add(self.gap(ber)).saturating_add(1);
        }
        arrived
    }

    /// Good bits before the next error: a geometric draw.
    fn gap(&mut self, ber: f64) -> u64 {
        if ber <= 0.0 {
            return u64::MAX / 2;
        }
        // `1 - unit` lies in (0, 1]; libm gives the same bits everywhere.
        let gap = libm::log(1.0 - self.gaps.unit()) / libm::log1p(-ber.min(0.5));
        gap.min(1e15) as u64
    }

    fn garbage(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream("garbage", offset).fill(&mut bytes);
        bytes
    }

    fn stream(&self, purpose: &str, index: u64) -> Stream {
        let [from, to, transmission] = self.name;
        Stream::keyed(self.seed, purpose, &[from, to, transmission, index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_lost_alike_however_the_bytes_are_cut_into_blocks() {
        let sent = vec![0x55; 10_000];
        let loss = Loss::Cells { bytes: 262, p: 0.2, damage: Damage::Garbage };
        let pattern = |block: usize| {
            let mut passage = Passage::new(5, 0, 1, 9, loss);
            let out: Vec<u8> = sent.chunks(block).flat_map(|b| passage.pass(b).bytes).collect();
            assert_eq!(out.len(), sent.len());
            out.chunks(262).map(|cell| cell.iter().all(|&b| b == 0x55)).collect::<Vec<_>>()
        };
        assert_eq!(pattern(180), pattern(1440));
        assert_eq!(pattern(7), pattern(10_000));
        assert!(pattern(180).contains(&false) && pattern(180).contains(&true));
    }

    #[test]
    fn a_deleted_cell_leaves_nothing() {
        let loss = Loss::Cells { bytes: 100, p: 1.0, damage: Damage::Deleted };
        assert_eq!(Passage::new(1, 0, 1, 0, loss).pass(&[1; 250]), Arrived::default());
    }

    #[test]
    fn bit_errors_hit_the_stated_share_of_bits() {
        let mut passage = Passage::new(1, 0, 1, 0, Loss::Bits { ber: 1e-3 });
        let mut wrong = 0;
        let mut good = 0;
        for _ in 0..1000 {
            let a = passage.pass(&[0; 1000]);
            wrong += a.bytes.iter().map(|b| b.count_ones()).sum::<u32>();
            good += a.good;
            assert_eq!(a.good, a.bytes.iter().filter(|&&b| b == 0).count() as u64);
        }
        // 8 million bits: 8000 errors, sigma 89.
        assert!((7700..=8300).contains(&wrong), "{wrong}");
        assert!(good < 1_000_000);
    }

    #[test]
    fn a_clean_link_passes_everything_and_a_collision_nothing() {
        let sent: Vec<u8> = (0..=255).collect();
        let mut passage = Passage::new(1, 0, 1, 0, Loss::Ideal);
        assert_eq!(passage.pass(&sent).bytes, sent);
        let ruined = passage.ruin(&sent);
        assert_eq!((ruined.good, ruined.bytes.len()), (0, 256));
        assert_ne!(ruined.bytes, sent);
    }
}
