//! One transmission on one directed link.
//!
//! A [`Passage`] is blind to the bytes' meaning: it counts from the transmission's first byte (link-rules E2), and every decision
//! hangs on (seed, sender, receiver, transmission number, index) alone, so that a change of framing, or another station, leaves
//! the pattern as it is.

use aldis::time::Instant;

use super::{Anchor, Damage, Loss, Path, Wreck};
use crate::rng::Stream;
use crate::waveform::Waveform;

/// Where a block lies in its transmission and in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Number of the block.
    pub number: u64,
    /// Bytes of the transmission before it.
    pub first: u64,
    /// Its first symbol at the receiver.
    pub from: Instant,
    /// Its last symbol, with all that its interleaver spreads it over.
    pub until: Instant,
}

/// What a preamble finds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Preamble {
    /// Effective signal-to-noise ratio over it, where the path has one.
    pub snr_db: Option<f64>,
    /// Probability that it is missed.
    pub miss: f64,
}

/// One transmission as it passes one directed link.
#[derive(Clone, Debug)]
pub struct Passage {
    loss: Loss,
    seed: u64,
    name: [u64; 3],
    anchor: Anchor,
    /// The path of a `Loss::Sky`.
    path: Option<Path>,
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
    /// The block failed as a whole: an end-of-message pattern in it is not seen.
    pub failed: bool,
}

impl Arrived {
    fn whole(block: &[u8]) -> Self {
        Self { bytes: block.to_vec(), good: block.len() as u64, snr_db: None, failed: false }
    }
}

impl Passage {
    /// Transmission number `transmission` of station `from` on its way to station `to`.
    pub fn new(seed: u64, from: u16, to: u16, transmission: u64, loss: Loss, waveform: &Waveform) -> Self {
        let name = [u64::from(from), u64::from(to), transmission];
        let mut start = Stream::keyed(seed, "burst", &name);
        let bad = match loss {
            Loss::Gilbert { bad, good, .. } => start.chance(bad / (bad + good)),
            Loss::Ideal | Loss::Cells { .. } | Loss::Pattern { .. } | Loss::Bits { .. } | Loss::Blocks { .. } => false,
            Loss::Script { .. } | Loss::Sky { .. } => false,
        };
        let path = match &loss {
            Loss::Sky { sky, .. } => Some(Path::new(seed, from, to, sky.clone())),
            _ => None,
        };
        let mut passage = Self {
            loss,
            seed,
            name,
            anchor: Anchor::of(waveform),
            path,
            chain: (0, bad),
            gaps: Stream::keyed(seed, "bits", &name),
            next_error: u64::MAX,
        };
        if let Loss::Bits { ber } = passage.loss {
            passage.next_error = passage.gap(ber);
        }
        passage
    }

    /// What a receiver finds of a preamble; `None` where the path is dead and not even a carrier is noticed.
    pub fn preamble(&mut self, from: Instant, until: Instant) -> Option<Preamble> {
        Some(match self.medium(from, until) {
            Medium::Clear => Preamble { snr_db: None, miss: 0.0 },
            Medium::Dead => return None,
            Medium::Noisy { snr_db, .. } => {
                Preamble { snr_db, miss: snr_db.map_or(0.0, |db| self.anchor.preamble_miss(db)) }
            }
        })
    }

    /// Passes the bytes of a block; blocks come in order, but some may be left out.
    pub fn pass(&mut self, span: &Span, block: &[u8]) -> Arrived {
        match self.loss {
            Loss::Ideal => Arrived::whole(block),
            Loss::Cells { bytes, damage, .. }
            | Loss::Gilbert { bytes, damage, .. }
            | Loss::Pattern { bytes, damage, .. } => {
                self.pass_cells(span.first, block, u64::from(bytes.max(1)), damage)
            }
            Loss::Bits { ber } => self.pass_bits(span.first, block, ber),
            Loss::Blocks { p } if self.stream("block", span.number).chance(p) => {
                Arrived { bytes: self.garbage(span.first, block.len()), ..Arrived::default() }
            }
            Loss::Blocks { .. } => Arrived::whole(block),
            Loss::Script { wreck, .. } | Loss::Sky { wreck, .. } => self.pass_medium(span, block, wreck),
        }
    }

    /// Passes a block through a collision: all of it becomes garbage, but an end-of-message pattern in it is still found.
    pub fn ruin(&mut self, span: &Span, block: &[u8]) -> Arrived {
        Arrived { bytes: self.garbage(span.first, block.len()), ..Arrived::default() }
    }

    /// What a modem hands out when it has missed the end of a transmission: noise, at most `most` bytes and at least one.
    pub fn overhang(&self, most: u64) -> Vec<u8> {
        let length = 1 + self.stream("overhang", 0).below(most.max(1));
        self.garbage(u64::MAX, usize::try_from(length).unwrap_or(1))
    }

    fn medium(&mut self, from: Instant, until: Instant) -> Medium {
        let found = match (&self.loss, &mut self.path) {
            (Loss::Script { script, .. }, _) => script.over(from, until, &self.anchor),
            (_, Some(path)) => {
                let lost_db = if path.fades() { self.anchor.fading_loss_db } else { 0.0 };
                let effective = path.effective_db(from, until, &self.anchor);
                effective.map(|db| (Some(db), self.anchor.block_failure(db - lost_db)))
            }
            _ => return Medium::Clear,
        };
        found.map_or(Medium::Dead, |(snr_db, failure)| Medium::Noisy { snr_db, failure })
    }

    fn pass_medium(&mut self, span: &Span, block: &[u8], wreck: Wreck) -> Arrived {
        let (snr_db, failure) = match self.medium(span.from, span.until) {
            Medium::Clear => (None, 0.0),
            Medium::Dead => (None, 1.0),
            Medium::Noisy { snr_db, failure } => (snr_db, failure),
        };
        let mut draw = self.stream("block", span.number);
        if !draw.chance(failure) {
            return Arrived { snr_db, ..Arrived::whole(block) };
        }
        let keep = match draw.chance(wreck.truncated) {
            true => usize::try_from(draw.below(block.len() as u64)).unwrap_or(0),
            false => block.len(),
        };
        let mut arrived = Arrived { bytes: block[..keep].to_vec(), good: keep as u64, snr_db, failed: true };
        self.gaps = self.stream("wreck", span.number);
        self.next_error = self.gap(wreck.ber);
        self.flip(0, &mut arrived, wreck.ber);
        arrived
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
        match &self.loss {
            Loss::Cells { p, .. } => self.stream("cell", index).chance(*p),
            &Loss::Gilbert { bad, good, .. } => {
                while self.chain.0 < index {
                    let at = self.chain.0 + 1;
                    let leaves = self.stream("cell", at).chance(if self.chain.1 { good } else { bad });
                    self.chain = (at, self.chain.1 != leaves);
                }
                self.chain.1
            }
            Loss::Pattern { lost, .. } => {
                let at = index.checked_rem(lost.len() as u64).and_then(|i| usize::try_from(i).ok());
                at.and_then(|i| lost.get(i)).copied().unwrap_or(false)
            }
            Loss::Ideal | Loss::Bits { .. } | Loss::Blocks { .. } | Loss::Script { .. } | Loss::Sky { .. } => false,
        }
    }

    fn pass_bits(&mut self, first: u64, block: &[u8], ber: f64) -> Arrived {
        let mut arrived = Arrived::whole(block);
        // Bytes that were left out had their errors too.
        while self.next_error / 8 < first {
            self.next_error = self.next_error.saturating_add(self.gap(ber)).saturating_add(1);
        }
        self.flip(first, &mut arrived, ber);
        arrived
    }

    /// Flips the bits that are due from byte `first` on.
    fn flip(&mut self, first: u64, arrived: &mut Arrived, ber: f64) {
        let mut last_hit = None;
        while let Some(byte) = self.next_error.checked_div(8).filter(|&b| b < first + arrived.bytes.len() as u64) {
            let at = usize::try_from(byte - first).unwrap_or(usize::MAX);
            if let Some(b) = arrived.bytes.get_mut(at) {
                *b ^= 1 << (self.next_error % 8);
                arrived.good -= u64::from(last_hit != Some(at));
                last_hit = Some(at);
            }
            self.next_error = self.next_error.saturating_add(self.gap(ber)).saturating_add(1);
        }
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

enum Medium {
    /// No noise of its own.
    Clear,
    /// Nothing gets through.
    Dead,
    /// An effective ratio, where there is one, and the probability that a block fails.
    Noisy { snr_db: Option<f64>, failure: f64 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::channel::{Fading, Script, Sky};

    fn waveform() -> &'static Waveform {
        Waveform::find(2400, "S").expect("known")
    }

    fn passage(seed: u64, transmission: u64, loss: Loss) -> Passage {
        Passage::new(seed, 0, 1, transmission, loss, waveform())
    }

    /// Passes everything in blocks of `length` bytes, as 2400 S has them in time.
    fn pass(passage: &mut Passage, sent: &[u8], length: usize) -> Vec<Arrived> {
        let blocks = (0..).zip(sent.chunks(length));
        blocks.map(|(n, block)| passage.pass(&span(n, n * length as u64), block)).collect()
    }

    fn span(number: u64, first: u64) -> Span {
        let from = Instant::ZERO + waveform().block_start(number);
        Span { number, first, from, until: from + waveform().block() }
    }

    #[test]
    fn cells_are_lost_alike_however_the_bytes_are_cut_into_blocks() {
        let sent = vec![0x55; 10_000];
        let loss = Loss::Cells { bytes: 262, p: 0.2, damage: Damage::Garbage };
        let pattern = |block: usize| {
            let mut passage = passage(5, 9, loss.clone());
            let out: Vec<u8> = pass(&mut passage, &sent, block).into_iter().flat_map(|a| a.bytes).collect();
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
        assert_eq!(passage(1, 0, loss).pass(&span(0, 0), &[1; 250]), Arrived::default());
    }

    #[test]
    fn bit_errors_hit_the_stated_share_of_bits() {
        let mut passage = passage(1, 0, Loss::Bits { ber: 1e-3 });
        let mut wrong = 0;
        let mut good = 0;
        for a in pass(&mut passage, &vec![0; 1_000_000], 1000) {
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
        let mut passage = passage(1, 0, Loss::Ideal);
        assert_eq!(passage.pass(&span(0, 0), &sent).bytes, sent);
        let ruined = passage.ruin(&span(1, 256), &sent);
        assert_eq!((ruined.good, ruined.bytes.len()), (0, 256));
        assert_ne!(ruined.bytes, sent);
    }

    #[test]
    fn a_pattern_says_which_cells_are_lost_and_begins_anew() {
        let loss = Loss::Pattern { bytes: 10, lost: [false, true, true].into(), damage: Damage::Deleted };
        let out: Vec<u8> = pass(&mut passage(1, 0, loss), &(0..60).collect::<Vec<u8>>(), 7)
            .into_iter()
            .flat_map(|a| a.bytes)
            .collect();
        assert_eq!(out, (0..10).chain(30..40).collect::<Vec<u8>>());
    }

    #[test]
    fn bit_errors_stay_where_they_are_when_blocks_are_left_out() {
        let sent = vec![0; 20_000];
        let all = pass(&mut passage(3, 0, Loss::Bits { ber: 1e-3 }), &sent, 1000);
        let late = passage(3, 0, Loss::Bits { ber: 1e-3 }).pass(&span(7, 7000), &sent[..1000]);
        assert_eq!(late, all[7]);
        assert!(late.good < 1000);
    }

    #[test]
    fn a_failed_block_is_a_burst_of_the_stated_density_or_a_stump() {
        let lines = Script::parse(["0 loss 0.5"]).expect("reads");
        let loss = |truncated| Loss::Script { script: Arc::new(lines.clone()), wreck: Wreck { ber: 0.1, truncated } };
        let out = pass(&mut passage(4, 0, loss(0.25)), &vec![0; 400_000], 400);
        let failed: Vec<&Arrived> = out.iter().filter(|a| a.failed).collect();
        assert!((430..=570).contains(&failed.len()), "{} of 1000", failed.len());
        let stumps = failed.iter().filter(|a| a.bytes.len() < 400).count();
        assert!((stumps as f64 / failed.len() as f64 - 0.25).abs() < 0.08, "{stumps}");
        let (mut wrong, mut bits) = (0, 0);
        for a in failed {
            wrong += a.bytes.iter().map(|b| b.count_ones()).sum::<u32>();
            bits += a.bytes.len() * 8;
            assert_eq!(a.good, a.bytes.iter().filter(|&&b| b == 0).count() as u64);
        }
        assert!((f64::from(wrong) / bits as f64 - 0.1).abs() < 0.003, "{wrong} of {bits}");
        assert!(out.iter().filter(|a| !a.failed).all(|a| a.good == 400));
    }

    #[test]
    fn a_block_of_a_fading_path_carries_its_ratio_and_fails_by_it() {
        let sky = Sky {
            fading: Some(Fading { delay: std::time::Duration::from_millis(2), doppler_hz: 1.0 }),
            ..Sky::steady(18.1)
        };
        let out =
            pass(&mut passage(4, 0, Loss::Sky { sky: Arc::new(sky), wreck: Wreck::default() }), &vec![0; 360_000], 180);
        let mean = |failed| {
            let of: Vec<f64> = out.iter().filter(|a| a.failed == failed).map(|a| a.snr_db.expect("a ratio")).collect();
            assert!(of.len() > 50, "{}", of.len());
            of.iter().sum::<f64>() / of.len() as f64
        };
        assert!(mean(true) < 12.1 && mean(false) > 14.6, "{} {}", mean(true), mean(false));
    }

    #[test]
    fn a_dead_path_has_no_preamble_and_a_weak_one_is_missed() {
        let script = Script::parse(["0 dead", "10 snr -20", "20 snr 10", "30 loss 1"]).expect("reads");
        let mut passage = passage(1, 0, Loss::Script { script: Arc::new(script), wreck: Wreck::default() });
        let mut at = |s: u64| passage.preamble(Instant::from_millis(s * 1000), Instant::from_millis(s * 1000 + 600));
        assert_eq!(at(1), None);
        assert!(at(11).expect("heard").miss > 0.999 && at(21).expect("heard").miss < 1e-6);
        assert_eq!(at(31), Some(Preamble { snr_db: None, miss: 0.0 }));
    }
}
