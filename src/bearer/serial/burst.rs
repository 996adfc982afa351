//! How long a transmission should be: parity before the first report, weighed against the cost of another turn.
//!
//! [`Burst::blocks_for`] minimises the expected time until the receiver is whole, E\[d\] = T(b) + sum over g < d of
//! P(g symbols arrive) x (C + E\[d - g\]), over block-filling transmissions only, where C is a whole turn: two turnarounds and a
//! report. All arithmetic is additions, products and square roots, so every machine finds the same answer.

use std::collections::BTreeMap;

use super::Waveform;
use super::frame::{CONTROL_OVERHEAD, FRAME_OVERHEAD, MINIMAL_FRAME};
use crate::mail::Cut;
use crate::time::Duration;

/// Bytes of the smallest symbol, of which the longest frame holds so many.
const UNIT: usize = 31;
/// Loss rates the plan is computed for; estimates are rounded to the nearest.
const LOSSES: [f64; 20] = [
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.4, 0.5,
    0.65,
];

/// Longest frame: what a FLASH that turns up while one is being sent waits for.
const FRAME_UNITS: usize = 16;
/// The same in time, at rates where that many units take long.
const FRAME_AIR: Duration = Duration::from_secs(20);

/// How frames of symbols are laid into a transmission: one to each row of so many cells, or back to back where losses are so rare
/// that headers cost more than they do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Layout {
    /// From the start of one frame to that of the next.
    pub stride: usize,
    /// Back to back: a frame follows the one before at once, however long that was.
    pub packed: bool,
    /// Bytes of symbols in a frame.
    pub symbol_bytes: usize,
    /// Cells a frame touches, on average.
    pub cells: f64,
    /// Chance that a frame is lost.
    pub loss: f64,
    /// Bytes of the unit transmissions are planned in: the smallest symbol of that cut.
    pub unit: usize,
}

impl Layout {
    /// Units of payload in a frame.
    pub fn units(&self) -> usize {
        self.symbol_bytes / self.unit
    }

    /// Units that some bytes of symbols make.
    pub fn units_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.unit as u64)
    }

    /// Share of the stream that is payload and arrives.
    fn yields(&self) -> f64 {
        self.symbol_bytes as f64 * (1.0 - self.loss) / self.stride as f64
    }
}

/// Times and capacities of a waveform.
#[derive(Clone, PartialEq, Debug)]
pub struct Air {
    waveform: Waveform,
    block_bits: u64,
    /// Time of the peer's report, where that has a waveform of its own.
    report: Option<Duration>,
}

impl Air {
    /// The arithmetic of `waveform`.
    pub fn new(waveform: Waveform) -> Self {
        let bits = u128::from(waveform.rate.0) * waveform.block.as_nanos() / 1_000_000_000;
        Self { block_bits: (bits as u64).max(8), waveform, report: None }
    }

    /// The same where reports take that long.
    pub fn answered_in(self, report: Duration) -> Self {
        Self { report: Some(report), ..self }
    }

    /// The waveform.
    pub fn waveform(&self) -> &Waveform {
        &self.waveform
    }

    /// The cut of which its frames carry most.
    pub fn cut(&self) -> Cut {
        Cut::for_room((self.waveform.frame_bytes as usize).saturating_sub(FRAME_OVERHEAD))
    }

    /// Bytes of the stream that have to be in the modem for its first `blocks` blocks: a byte whose first bits fall into the last of
    /// them too, or the modem pads in the middle of a frame (at 300 bit/s a short block holds 22 bytes and a half).
    pub fn stream_bytes(&self, blocks: u64) -> u64 {
        (blocks * self.block_bits).div_ceil(8)
    }

    /// The block that byte `at` of the stream ends in, counted from 0, and the first byte that does not.
    pub fn block_of(&self, at: u64) -> (u64, u64) {
        let block = (at * 8 + 7) / self.block_bits;
        (block, (block + 1) * self.block_bits / 8)
    }

    /// Bytes a transmission of `blocks` blocks carries beside the modem's own tail.
    pub fn capacity(&self, blocks: u64) -> u64 {
        (blocks * self.block_bits).saturating_sub(u64::from(self.waveform.tail_bits)) / 8
    }

    /// Blocks needed for `bytes` bytes.
    pub fn blocks(&self, bytes: u64) -> u64 {
        (bytes * 8 + u64::from(self.waveform.tail_bits)).div_ceil(self.block_bits).max(1)
    }

    /// Blocks that the modem's own tail may take beyond those that are full.
    pub fn tail_blocks(&self) -> u64 {
        u64::from(self.waveform.tail_bits).div_ceil(self.block_bits).max(1)
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
        self.report.unwrap_or_else(|| self.transmission(self.least_blocks()))
    }

    /// One whole turn to learn what arrived.
    pub fn turn(&self) -> Duration {
        self.waveform.turnaround * 2 + self.report()
    }

    /// The layout that brings most of `symbol`-byte symbols across where the share `loss` of the cells is lost.
    pub fn layout(&self, loss: f64, symbol: usize) -> Layout {
        self.layout_between(loss, &[(loss, 1.0)], symbol)
    }

    /// The one with which a symbol takes the least time as far as is believed of the channel; what becomes of its frames is foretold for `loss`.
    pub fn layout_between(&self, loss: f64, beliefs: &[Belief], symbol: usize) -> Layout {
        let mut costs: Vec<(f64, Layout)> = self.layouts(loss, symbol).into_iter().map(|l| (0.0, l)).collect();
        for (loss, weight) in beliefs {
            for ((cost, _), layout) in costs.iter_mut().zip(self.layouts(*loss, symbol)) {
                *cost += weight / layout.yields();
            }
        }
        costs.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("there is one at least").1
    }

    /// All layouts there are for `symbol`-byte symbols where the share `loss` of the cells is lost.
    pub fn layouts(&self, loss: f64, symbol: usize) -> Vec<Layout> {
        let loss = LOSSES[nearest(loss)];
        let wide = Cut::Wide.unit();
        let unit = if symbol.is_multiple_of(wide) { wide } else { Cut::Narrow.unit() };
        let cell = (self.waveform.frame_bytes as usize).max(MINIMAL_FRAME);
        let longest = (FRAME_AIR.as_millis() as u64 * u64::from(self.waveform.rate.0) / 8000) as usize;
        let most = (FRAME_OVERHEAD + FRAME_UNITS * UNIT).min(longest).max(cell).max(FRAME_OVERHEAD + symbol);
        let frame = |n: usize, stride: usize, packed: bool| {
            let cells = if packed { 1.0 + (stride - 1) as f64 / cell as f64 } else { (stride / cell) as f64 };
            let loss = 1.0 - survival(1.0 - loss, cells);
            Layout { stride, packed, symbol_bytes: n * symbol, cells, loss, unit }
        };
        let aligned = (1..=most.div_ceil(cell)).filter_map(|m| {
            let n = (m * cell).checked_sub(FRAME_OVERHEAD)? / symbol;
            (n > 0 && m * cell <= most.max((FRAME_OVERHEAD + symbol).next_multiple_of(cell)))
                .then(|| frame(n, m * cell, false))
        });
        let packed = (1..=(most - FRAME_OVERHEAD) / symbol).map(|n| frame(n, FRAME_OVERHEAD + n * symbol, true));
        let layouts: Vec<Layout> = aligned.chain(packed).collect();
        if layouts.is_empty() { vec![frame(1, FRAME_OVERHEAD + symbol, true)] } else { layouts }
    }

    /// Whole frames of a transmission of `blocks` blocks, and the units in its shorter last frame.
    fn frames(&self, blocks: u64, layout: &Layout) -> (usize, usize) {
        let (capacity, stride) = (self.capacity(blocks) as usize, layout.stride);
        (capacity / stride, (capacity % stride).saturating_sub(FRAME_OVERHEAD) / layout.unit)
    }

    /// Units in a transmission of `blocks` blocks.
    pub fn units(&self, blocks: u64, layout: &Layout) -> usize {
        let (full, rest) = self.frames(blocks, layout);
        full * layout.units() + rest
    }
}

/// Plans transmissions; remembers what it has computed.
#[derive(Debug, Default)]
pub struct Burst {
    tables: BTreeMap<(usize, u64, usize), Table>,
}

/// For 0, 1, 2 ... missing steps: the best number of blocks, and the seconds to be expected with it.
#[derive(Debug, Default)]
struct Table {
    blocks: Vec<u32>,
    seconds: Vec<f64>,
}

/// A share of cells that may be lost, and how likely that is.
pub type Belief = (f64, f64);

/// Most units a plan is computed for one by one; more are counted in whole frames, since a table grows with the square of its length.
const FINE_UNITS: usize = 600;

impl Burst {
    /// The best number of blocks, at most `most`, for `units` missing units where that is believed of the channel and frames lie as in
    /// `layout`. Of several beliefs the first report shows which was right.
    pub fn blocks_for(&mut self, air: &Air, layout: &Layout, units: usize, beliefs: &[Belief], most: u64) -> u64 {
        if units >= air.units(most, layout) {
            return most.max(air.least_blocks());
        }
        if self.tables.len() > 24 {
            self.tables.clear();
        }
        let grain = if units > FINE_UNITS { layout.units().max(1) } else { 1 };
        let steps = units.div_ceil(grain);
        let key = |loss: f64| Self::key(layout, loss, most, grain);
        for (loss, _) in beliefs {
            let table = self.tables.entry(key(*loss)).or_default();
            if table.blocks.len() <= steps {
                let all = air.units(most, layout).div_ceil(grain);
                *table = Course::new(air, layout, *loss, grain).tabulate(most, (steps + 64).min(all));
            }
        }
        let best = match beliefs {
            [(loss, _)] => self.tables.get(&key(*loss)).and_then(|t| t.blocks.get(steps)).copied(),
            _ => self.between(air, layout, beliefs, most, grain, steps),
        };
        u64::from(best.unwrap_or(1)).max(air.least_blocks())
    }

    /// The best number of blocks for `d` steps where nobody knows yet which belief is right; whoever has heard the answer does.
    fn between(
        &self,
        air: &Air,
        layout: &Layout,
        beliefs: &[Belief],
        most: u64,
        grain: usize,
        d: usize,
    ) -> Option<u32> {
        let mut courses = Vec::new();
        for (loss, weight) in beliefs {
            let table = self.tables.get(&Self::key(layout, *loss, most, grain))?;
            courses.push((Course::new(air, layout, *loss, grain), *weight, &table.seconds));
        }
        let mut best: Option<(f64, u32)> = None;
        for blocks in 1..=u32::try_from(most).ok()? {
            let time = air.transmission(u64::from(blocks)).as_secs_f64();
            if best.is_some_and(|(least, _)| time >= least) {
                break;
            }
            let mut total = 0.0;
            for (course, weight, seconds) in &mut courses {
                let (full, last) = course.advance(u64::from(blocks));
                let holds = full * course.per_frame + last >= d;
                total += if holds { *weight * course.cost(d, time, &course.row, last, seconds) } else { f64::INFINITY };
            }
            if best.is_none_or(|(least, _)| total < least) {
                best = Some((total, blocks));
            }
        }
        best.map(|(_, blocks)| blocks)
    }

    fn key(layout: &Layout, loss: f64, most: u64, grain: usize) -> (usize, u64, usize) {
        (nearest(loss), most, grain * 10_000 + layout.stride)
    }
}

/// Symbols to send so that `missing` of them arrive at frame loss `loss`, most of the time.
pub fn with_parity(missing: u32, loss: f64) -> u32 {
    let (d, p) = (f64::from(missing), loss.clamp(0.0, 0.8));
    ((d + 0.7 * (d * p).sqrt()) / (1.0 - p)).ceil() as u32
}

/// The same for several receivers that take what they lack from the same frames of `each` symbols. Less is sent ahead than for one: in
/// the next round the worst of them says what is missing, and what was too much would have been so for all the others.
pub fn with_parity_for(missing: u32, each: u32, loss: f64) -> u32 {
    let (d, p) = (f64::from(missing) / f64::from(each.max(1)), loss.clamp(0.0, 0.8));
    ((d + 0.3 * (d * p).sqrt()) / (1.0 - p) * f64::from(each)).ceil() as u32
}

/// Chance that a frame over `cells` cells survives when each does with chance `q`: between whole numbers by a straight line.
fn survival(q: f64, cells: f64) -> f64 {
    let whole = cells as u32;
    let low = (0..whole).fold(1.0, |p, _| p * q);
    low * (1.0 - (cells - f64::from(whole)) * (1.0 - q))
}

/// Share of the cells that arrives when the share `frames` of frames over `cells` cells each does.
pub fn cell_survival(frames: f64, cells: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        match survival(middle, cells) < frames {
            true => low = middle,
            false => high = middle,
        }
    }
    (low + high) / 2.0
}

fn nearest(loss: f64) -> usize {
    LOSSES.iter().take_while(|p| **p < loss).count().min(LOSSES.len() - 1)
}

/// What becomes of transmissions where a share of the cells is lost.
struct Course<'a> {
    air: &'a Air,
    layout: &'a Layout,
    /// Chance that a frame arrives.
    q: f64,
    /// Units of a step.
    grain: usize,
    /// Steps in a whole frame.
    per_frame: usize,
    turn: f64,
    /// The distribution of the whole frames that arrive, for the last number of frames it was asked for.
    row: Vec<f64>,
}

impl<'a> Course<'a> {
    fn new(air: &'a Air, layout: &'a Layout, loss: f64, grain: usize) -> Self {
        let q = survival(1.0 - LOSSES[nearest(loss)], layout.cells);
        let (per_frame, turn) = ((layout.units() / grain).max(1), air.turn().as_secs_f64());
        Self { air, layout, q, grain, per_frame, turn, row: vec![1.0] }
    }

    /// Whole frames of so many blocks, and the steps in their shorter last one. Asked for with ever more blocks.
    fn advance(&mut self, blocks: u64) -> (usize, usize) {
        let (full, rest) = self.air.frames(blocks, self.layout);
        while self.row.len() <= full {
            let mut next = vec![0.0; self.row.len() + 1];
            for (i, p) in self.row.iter().enumerate() {
                next[i] += p * (1.0 - self.q);
                next[i + 1] += p * self.q;
            }
            self.row = next;
        }
        (full, rest / self.grain)
    }

    /// Expected seconds until `d` steps are there, with so many blocks that take `time`, of which these arrive, where later turns take
    /// what `expected` says.
    fn cost(&self, d: usize, time: f64, row: &[f64], last: usize, expected: &[f64]) -> f64 {
        let (mut sum, mut nothing) = (0.0, 0.0);
        for (arrived, p) in row.iter().enumerate().take(d.div_ceil(self.per_frame) + 1) {
            for (extra, share) in [(last, self.q), (0, 1.0 - self.q)] {
                let got = arrived * self.per_frame + extra;
                if got == 0 {
                    nothing += p * share;
                } else if got < d {
                    sum += p * share * (self.turn + expected[d - got]);
                }
            }
        }
        (time + nothing * self.turn + sum) / (1.0 - nothing).max(1e-9)
    }

    fn tabulate(mut self, most: u64, steps: usize) -> Table {
        let mut chance = Vec::new();
        for blocks in 0..=most {
            let (full, last) = self.advance(blocks);
            chance.push((full * self.per_frame + last, last, self.row.clone()));
            if full * self.per_frame + last > 4 * steps + 16 * self.per_frame {
                break;
            }
        }
        let (mut seconds, mut best_blocks) = (vec![0.0; steps + 1], vec![1; steps + 1]);
        for d in 1..=steps {
            let mut best = f64::INFINITY;
            for (blocks, (holds, last, row)) in chance.iter().enumerate().skip(1) {
                let time = self.air.transmission(blocks as u64).as_secs_f64();
                if time >= best {
                    break;
                }
                if *holds < d {
                    continue;
                }
                let total = self.cost(d, time, row, *last, &seconds);
                if total < best {
                    (best, best_blocks[d]) = (total, blocks as u32);
                }
            }
            seconds[d] = best;
        }
        Table { blocks: best_blocks, seconds }
    }
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
        assert_eq!(air.frames(1, &air.layout(0.05, UNIT)), (5, 3));
        assert_eq!(air.most_blocks(Duration::from_millis(127_500)), 25);
    }

    #[test]
    fn plans_follow_size_and_loss() {
        let (air, mut burst) = (long_2400(), Burst::default());
        let mut plan = |units, loss| burst.blocks_for(&air, &air.layout(loss, UNIT), units, &[(loss, 1.0)], 25);
        // 1 KiB is 34 units: one block holds 43 and outlives one lost frame; at 20 % that is not enough.
        assert_eq!([plan(34, 0.0), plan(34, 0.05), plan(34, 0.2)], [1, 1, 2]);
        // 10 KiB is 331: the optima of the limit tables are 8, 9 and 10 blocks; parity in whole frames asks for one more.
        assert_eq!([plan(331, 0.0), plan(331, 0.05), plan(331, 0.2)], [8, 9, 11]);
        assert_eq!(plan(5000, 0.05), 25);
    }

    #[test]
    fn what_is_not_known_is_weighed_by_what_a_turn_costs() {
        let near = long_2400();
        let far = Air::new(Waveform { turnaround: Duration::from_secs(8), ..near.waveform().clone() });
        let plan = |air: &Air, poor: f64| {
            let beliefs = [(0.01, 1.0 - poor), (0.2, poor)];
            Burst::default().blocks_for(air, &air.layout(0.05, UNIT), 331, &beliefs, 25)
        };
        // Ten blocks are for a poor channel, eight for a clean one; nine would be for neither.
        assert_eq!([0.1, 0.3, 0.6].map(|poor| plan(&near, poor)), [8, 8, 10]);
        assert_eq!([0.1, 0.3, 0.6].map(|poor| plan(&far, poor)), [8, 10, 10], "a turn is dearer there");
    }

    #[test]
    fn a_poor_channel_never_plans_less_than_a_clean_one() {
        let (air, mut burst) = (long_2400(), Burst::default());
        let [clean, poor] = [0.0, 0.2].map(|loss| air.layout(loss, UNIT));
        for units in 1..air.units(15, &poor) {
            let few = burst.blocks_for(&air, &clean, units, &[(0.0, 1.0)], 25);
            let many = burst.blocks_for(&air, &poor, units, &[(0.2, 1.0)], 25);
            assert!(few <= many && air.units(few, &clean) >= units, "{units}: {few} and {many}");
        }
    }

    #[test]
    fn frames_grow_where_losses_are_rare_and_keep_to_their_cells_where_they_are_not() {
        let air = long_2400();
        assert!(air.layout(0.001, UNIT).packed && air.layout(0.001, UNIT).symbol_bytes == 496);
        let rough = air.layout(0.2, UNIT);
        assert_eq!((rough.packed, rough.stride, rough.symbol_bytes, rough.cells), (false, 262, 248, 1.0));
        // At 1200 bit/s a cell of 212 bytes holds six narrow symbols and wastes 12 bytes; two cells together hold thirteen. Six wide ones fill it.
        let cell = Air::new(Waveform { rate: Bps(1200), frame_bytes: 212, ..air.waveform().clone() });
        assert_eq!([UNIT, 33].map(|symbol| cell.layout(0.05, symbol).stride), [424, 212]);
        assert_eq!((cell.cut(), air.cut()), (Cut::Wide, Cut::Narrow));
        // At 75 bit/s no frame takes more than twenty seconds.
        let slow = Waveform { rate: Bps(75), frame_bytes: 76, ..air.waveform().clone() };
        assert!(Air::new(slow).layout(0.0, UNIT).stride <= 187);
    }

    #[test]
    fn losses_of_frames_are_turned_into_losses_of_cells_and_back() {
        for (q, cells) in [(0.95, 1.0), (0.8, 2.0), (0.99, 2.94), (0.5, 7.7)] {
            assert!((cell_survival(survival(q, cells), cells) - q).abs() < 1e-6, "{q} {cells}");
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
