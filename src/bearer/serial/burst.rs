//! How long a transmission should be: parity before the first report, weighed against the cost of another turn.
//!
//! [`Burst::blocks_for`] minimises the expected time until the receiver is whole, E\[d\] = T(b) + sum over g < d of
//! P(g symbols arrive) x (C + E\[d - g\]), over block-filling transmissions only, where C is a whole turn: two turnarounds and a
//! report. All arithmetic is additions, products and square roots, so every machine finds the same answer.

use std::collections::BTreeMap;

use super::Waveform;
use super::frame::{CONTROL_OVERHEAD, FRAME_OVERHEAD, MINIMAL_FRAME};
use crate::time::Duration;

/// Bytes of the unit transmissions are planned in: the small symbol.
pub const UNIT: usize = 31;
/// Loss rates the plan is computed for; estimates are rounded to the nearest.
const LOSSES: [f64; 20] = [
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.4, 0.5,
    0.65,
];

/// Times and capacities of a waveform.
#[derive(Clone, PartialEq, Debug)]
pub struct Air {
    waveform: Waveform,
    block_bits: u64,
}

impl Air {
    /// The arithmetic of `waveform`.
    pub fn new(waveform: Waveform) -> Self {
        let bits = u128::from(waveform.rate.0) * waveform.block.as_nanos() / 1_000_000_000;
        Self { block_bits: (bits as u64).max(8), waveform }
    }

    /// The waveform.
    pub fn waveform(&self) -> &Waveform {
        &self.waveform
    }

    /// Bytes of the stream that have to be in the modem for its first `blocks` blocks: a byte whose first bits fall into the last of
    /// them too, or the modem pads in the middle of a frame (at 300 bit/s a short block holds 22 bytes and a half).
    pub fn stream_bytes(&self, blocks: u64) -> u64 {
        (blocks * self.block_bits).div_ceil(8)
    }

    /// Bytes a transmission of `blocks` blocks carries beside the modem's own tail.
    pub fn capacity(&self, blocks: u64) -> u64 {
        (blocks * self.block_bits).saturating_sub(u64::from(self.waveform.tail_bits)) / 8
    }

    /// Blocks needed for `bytes` bytes.
    pub fn blocks(&self, bytes: u64) -> u64 {
        (bytes * 8 + u64::from(self.waveform.tail_bits)).div_ceil(self.block_bits).max(1)
    }

    /// Fewest blocks that carry a control frame and a minimal frame.
    pub fn least_blocks(&self) -> u64 {
        self.blocks((MINIMAL_FRAME + CONTROL_OVERHEAD + 48) as u64)
    }

    /// From the first preamble symbol to the end of the last of `blocks` blocks.
    pub fn transmission(&self, blocks: u64) -> Duration {
        self.waveform.preamble + self.waveform.block * u32::try_from(blocks).unwrap_or(u32::MAX)
    }

    /// Blocks a transmission of at most `cap` may have.
    pub fn most_blocks(&self, cap: Duration) -> u64 {
        let room = cap.saturating_sub(self.waveform.preamble).as_nanos();
        ((room / self.waveform.block.as_nanos().max(1)) as u64).max(self.least_blocks())
    }

    /// Time of a report on the air.
    pub fn report(&self) -> Duration {
        self.transmission(self.least_blocks())
    }

    /// One whole turn to learn what arrived.
    pub fn turn(&self) -> Duration {
        self.waveform.turnaround * 2 + self.report()
    }

    /// Full frames of a transmission of `blocks` blocks, and the units in its shorter last frame.
    fn frames(&self, blocks: u64) -> (usize, usize) {
        let frame = u64::from(self.waveform.frame_bytes).max(MINIMAL_FRAME as u64);
        let capacity = self.capacity(blocks);
        let rest = (capacity % frame) as usize;
        ((capacity / frame) as usize, rest.saturating_sub(FRAME_OVERHEAD) / UNIT)
    }

    /// Units in a full frame.
    pub fn frame_units(&self) -> usize {
        (self.waveform.frame_bytes as usize).saturating_sub(FRAME_OVERHEAD).max(UNIT) / UNIT
    }

    /// Units in a transmission of `blocks` blocks.
    pub fn units(&self, blocks: u64) -> usize {
        let (full, rest) = self.frames(blocks);
        full * self.frame_units() + rest
    }
}

/// Plans transmissions; remembers what it has computed.
#[derive(Debug, Default)]
pub struct Burst {
    tables: BTreeMap<(usize, u64), Vec<u32>>,
}

impl Burst {
    /// The best number of blocks, at most `most`, for `units` missing units at frame loss `loss`.
    pub fn blocks_for(&mut self, air: &Air, units: usize, loss: f64, most: u64) -> u64 {
        let loss = nearest(loss);
        // The table grows with the square of what a transmission holds; at high rates a long one is planned as a full one.
        if units >= air.units(most) || units > 2500 {
            return most.min(air.blocks((units * (UNIT + 2)) as u64)).max(air.least_blocks());
        }
        if self.tables.len() > 24 {
            self.tables.clear();
        }
        let table = self.tables.entry((loss, most)).or_default();
        if table.len() <= units {
            *table = tabulate(air, LOSSES[loss], most, (units + 64).min(air.units(most)));
        }
        u64::from(table.get(units).copied().unwrap_or(1)).max(air.least_blocks())
    }
}

/// Symbols to send so that `missing` of them arrive at frame loss `loss`, most of the time.
pub fn with_parity(missing: u32, loss: f64) -> u32 {
    let (d, p) = (f64::from(missing), loss.clamp(0.0, 0.8));
    ((d + 0.7 * (d * p).sqrt()) / (1.0 - p)).ceil() as u32
}

fn nearest(loss: f64) -> usize {
    LOSSES.iter().take_while(|p| **p < loss).count().min(LOSSES.len() - 1)
}

/// Best block counts for 0..=`units` missing units.
fn tabulate(air: &Air, loss: f64, most: u64, units: usize) -> Vec<u32> {
    let q = 1.0 - loss;
    let turn = air.turn().as_secs_f64();
    let per_frame = air.frame_units();
    // chance[b]: distribution of the full frames that arrive from b blocks.
    let mut chance: Vec<Vec<f64>> = Vec::new();
    let mut row = vec![1.0];
    for blocks in 0..=most {
        let (full, _) = air.frames(blocks);
        while row.len() <= full {
            let mut next = vec![0.0; row.len() + 1];
            for (i, p) in row.iter().enumerate() {
                next[i] += p * (1.0 - q);
                next[i + 1] += p * q;
            }
            row = next;
        }
        chance.push(row.clone());
        if air.units(blocks) > 4 * units + 16 * per_frame {
            break;
        }
    }
    let (mut expected, mut best_blocks) = (vec![0.0; units + 1], vec![1; units + 1]);
    for d in 1..=units {
        let mut best = f64::INFINITY;
        for (blocks, row) in chance.iter().enumerate().skip(1) {
            let time = air.transmission(blocks as u64).as_secs_f64();
            if time >= best {
                break;
            }
            if air.units(blocks as u64) < d {
                continue;
            }
            let (_, last) = air.frames(blocks as u64);
            let (mut sum, mut nothing) = (0.0, 0.0);
            for (arrived, p) in row.iter().enumerate().take(d.div_ceil(per_frame) + 1) {
                for (extra, share) in [(last, q), (0, 1.0 - q)] {
                    let got = arrived * per_frame + extra;
                    if got == 0 {
                        nothing += p * share;
                    } else if got < d {
                        sum += p * share * (turn + expected[d - got]);
                    }
                }
            }
            let total = (time + nothing * turn + sum) / (1.0 - nothing).max(1e-9);
            if total < best {
                (best, best_blocks[d]) = (total, blocks as u32);
            }
        }
        expected[d] = best;
    }
    best_blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bps;

    #[test]
    fn capacity_leaves_room_for_the_tail() {
        let air = long_2400();
        assert_eq!(air.capacity(1), 1440 - 22);
        assert_eq!(air.blocks(1418), 1);
        assert_eq!(air.blocks(1419), 2);
        assert_eq!(air.frames(1), (5, 3));
        assert_eq!(air.most_blocks(Duration::from_millis(127_500)), 25);
    }

    #[test]
    fn plans_follow_size_and_loss() {
        let (air, mut burst) = (long_2400(), Burst::default());
        let mut plan = |units, loss| burst.blocks_for(&air, units, loss, 25);
        // 1 KiB is 34 units: one block holds 43 and outlives one lost frame; at 20 % that is not enough.
        assert_eq!([plan(34, 0.0), plan(34, 0.05), plan(34, 0.2)], [1, 1, 2]);
        // 10 KiB is 331: the optima of the limit tables are 8, 9 and 10 blocks; parity in whole frames asks for one more.
        assert_eq!([plan(331, 0.0), plan(331, 0.05), plan(331, 0.2)], [8, 9, 11]);
        assert_eq!(plan(5000, 0.05), 25);
    }

    #[test]
    fn a_poor_channel_never_plans_less_than_a_clean_one() {
        let (air, mut burst) = (long_2400(), Burst::default());
        for units in 1..air.units(15) {
            let clean = burst.blocks_for(&air, units, 0.0, 25);
            let poor = burst.blocks_for(&air, units, 0.2, 25);
            assert!(clean <= poor && air.units(clean) >= units, "{units}: {clean} and {poor}");
        }
    }

    #[test]
    fn a_block_that_ends_inside_a_byte_is_fed_that_byte() {
        let waveform = Waveform { rate: Bps(300), block: Duration::from_millis(600), ..long_2400().waveform().clone() };
        let air = Air::new(waveform);
        assert_eq!([1, 2, 3, 8].map(|blocks| air.stream_bytes(blocks)), [23, 45, 68, 180]);
    }

    fn long_2400() -> Air {
        Air::new(Waveform {
            rate: Bps(2400),
            preamble: Duration::from_millis(4800),
            block: Duration::from_millis(4800),
            tail_bits: 176,
            frame_bytes: 262,
            turnaround: Duration::from_secs(4),
        })
    }
}
