//! What no scheme can beat: times to deliver over a half-duplex link whose frames are lost independently, and what a multicast costs.
//!
//! [`Link::selective_repeat`] is the ideal selective repeat, [`Link::incremental_redundancy`] the ideal erasure code that knows the loss rate
//! and learns of losses only from acknowledgements: formula (3) of the design notes,
//!
//! ```text
//! E[d] = min over m >= d of  T(m) + sum over g < d of Bin(g; m, 1-p) (C + E[d-g])
//! ```
//!
//! with `T(m)` the time on the air of m frames and `C` a lost turn: two turnarounds and an acknowledgement. Acknowledgements are never
//! lost. Where one is wanted only after several transmissions ([`Link::answered_every`]), m may be as many frames as those hold, and
//! a turnaround lies between one transmission and the next. Seconds as floating point throughout: these are bounds to compare with, not instants.

use crate::waveform::Waveform;

/// Overhead the notes assume per frame.
pub const FRAME_OVERHEAD: u64 = 12;
/// Bits a modem adds at the end of a transmission.
const EOM_BITS: f64 = 176.0;

/// A link as the formulas see it.
#[derive(Clone, Debug)]
pub struct Link {
    rate: f64,
    preamble_s: f64,
    block_s: f64,
    turnaround_s: f64,
    loss: f64,
    payload: u64,
    overhead: u64,
    /// Preamble, block and rate of acknowledgements.
    answer: (f64, f64, f64),
    /// Frames that fill so many blocks of one transmission.
    per_block: Vec<u64>,
    /// Frames of the longest transmission.
    most: u64,
    /// Transmissions to an acknowledgement at most.
    chain: u64,
}

/// Payload of the notes' frame at a rate.
pub fn frame_payload(rate: u32) -> u64 {
    match rate {
        0..=149 => 64,
        150..=599 => 128,
        600..=1799 => 200,
        1800..=6399 => 250,
        _ => 500,
    }
}

impl Link {
    /// A link of this waveform, with the notes' frames and transmissions of at most 127.5 s.
    pub fn new(waveform: &Waveform, turnaround_s: f64, loss: f64) -> Self {
        Self::framed(waveform, turnaround_s, loss, frame_payload(waveform.rate), FRAME_OVERHEAD)
    }

    /// The same with other frames.
    pub fn framed(waveform: &Waveform, turnaround_s: f64, loss: f64, payload: u64, overhead: u64) -> Self {
        let (rate, preamble_s, block_s) = times(waveform);
        let blocks = (((127.5 - preamble_s) / block_s + 1e-9) as u64).max(1);
        let frames =
            |b: u64| ((b as f64 * rate * block_s - EOM_BITS) / (8.0 * (payload + overhead) as f64)).max(0.0) as u64;
        let per_block: Vec<u64> = (0..=blocks).map(frames).collect();
        let most = per_block.last().copied().unwrap_or(1).max(1);
        let answer = (rate, preamble_s, block_s);
        Self { rate, preamble_s, block_s, turnaround_s, loss, payload, overhead, answer, per_block, most, chain: 1 }
    }

    /// The same with acknowledgements in another waveform.
    pub fn answered_in(self, waveform: &Waveform) -> Self {
        Self { answer: times(waveform), ..self }
    }

    /// The same where up to so many transmissions may go before an acknowledgement.
    pub fn answered_every(self, transmissions: u64) -> Self {
        Self { chain: transmissions.max(1), ..self }
    }

    /// Frames that a message of `bytes` encoded bytes makes.
    pub fn frames(&self, bytes: u64) -> usize {
        bytes.div_ceil(self.payload) as usize
    }

    /// Mean seconds until `frames` frames are there by ideal selective repeat.
    pub fn selective_repeat(&self, frames: usize) -> f64 {
        let mut e = vec![0.0; frames + 1];
        for u in 1..=frames {
            let m = (u as u64).min(self.most * self.chain) as usize;
            let lost = binomial(m, self.loss);
            let c = self.lost_turn(m as u64);
            let mut sum = 0.0;
            for (l, p) in lost.iter().enumerate().take(m) {
                let left = u - m + l;
                if left > 0 {
                    sum += p * (c + e[left]);
                }
            }
            e[u] = (self.air(m as u64) + sum + lost[m] * c) / (1.0 - lost[m]);
        }
        e[frames]
    }

    /// Mean seconds until any `frames` different frames are there: the limit every bar refers to.
    pub fn incremental_redundancy(&self, frames: usize) -> f64 {
        if self.loss <= 0.0 {
            return self.selective_repeat(frames);
        }
        let mut e = vec![0.0; frames + 1];
        for d in 1..=frames {
            let missing = d as u64;
            let mut candidates: Vec<u64> = (1..=self.chain).map(|n| missing.min(n * self.most)).collect();
            let filled = (0..self.chain).flat_map(|n| self.per_block.iter().map(move |m| n * self.most + m));
            candidates.extend(filled.filter(|&m| m >= missing && m <= 3 * missing + 12));
            let cost = |&m: &u64| {
                let got = binomial(m as usize, 1.0 - self.loss);
                let c = self.lost_turn(m);
                let mut sum = got[0] * c;
                for g in 1..=(m as usize).min(d - 1) {
                    sum += got[g] * (c + e[d - g]);
                }
                (self.air(m) + sum) / (1.0 - got[0])
            };
            e[d] = candidates.iter().map(cost).fold(f64::INFINITY, f64::min);
        }
        e[frames]
    }

    /// The share of the data rate that ideal selective repeat keeps up for ever, in transmissions of 127.5 s whose last frame is as short
    /// as the last block wants it.
    pub fn long_run(&self) -> f64 {
        let blocks = (self.per_block.len() - 1) as f64;
        let usable = (blocks * self.rate * self.block_s - EOM_BITS) / 8.0;
        let frames = (usable / (self.payload + self.overhead) as f64).ceil();
        let payload_s = (usable - self.overhead as f64 * frames) * 8.0 / self.rate;
        (1.0 - self.loss) * payload_s / (self.preamble_s + blocks * self.block_s + self.lost_turn(self.most))
    }

    /// From the first preamble symbol to the last symbol of so many frames, in as many transmissions as they take.
    fn air(&self, frames: u64) -> f64 {
        let before = frames.saturating_sub(1) / self.most;
        before as f64 * (self.air_of(self.most) + self.turnaround_s) + self.air_of(frames - before * self.most)
    }

    fn air_of(&self, frames: u64) -> f64 {
        air_of_bytes(frames * (self.payload + self.overhead), (self.rate, self.preamble_s, self.block_s))
    }

    fn lost_turn(&self, frames: u64) -> f64 {
        2.0 * self.turnaround_s + air_of_bytes(16 + frames.div_ceil(8), self.answer)
    }
}

/// Datagrams that an ideal code sends until each of `receivers` has `k` of them, where each is lost to each with chance `loss`, over `k`:
/// the mean of the largest of so many draws of the negative binomial distribution, as the notes' `mc_parity`.
pub fn multicast_parity(receivers: u32, loss: f64, k: u32) -> f64 {
    if loss <= 0.0 || k == 0 {
        return 1.0;
    }
    // The chance that one receiver has k of the m sent.
    let mut term = libm::exp(f64::from(k) * libm::log1p(-loss));
    let (mut enough, mut sum, mut m) = (term, f64::from(k), k);
    loop {
        let some_lack = 1.0 - libm::pow(enough.min(1.0), f64::from(receivers));
        if some_lack < 1e-9 {
            return sum / f64::from(k);
        }
        sum += some_lack;
        m += 1;
        term *= f64::from(m - 1) / f64::from(m - k) * loss;
        enough += term;
    }
}

/// Rate, preamble and block of a waveform.
fn times(waveform: &Waveform) -> (f64, f64, f64) {
    (f64::from(waveform.rate), waveform.preamble().as_secs_f64(), waveform.block().as_secs_f64())
}

fn air_of_bytes(bytes: u64, (rate, preamble_s, block_s): (f64, f64, f64)) -> f64 {
    let blocks = ((8.0 * bytes as f64 + EOM_BITS) / (rate * block_s) - 1e-9).ceil().max(1.0);
    preamble_s + blocks * block_s
}

/// The probabilities of 0..=n successes in n draws.
fn binomial(n: usize, p: f64) -> Vec<f64> {
    if p <= 0.0 {
        return (0..=n).map(|i| f64::from(u8::from(i == 0))).collect();
    }
    let (lp, lq) = (libm::log(p), libm::log1p(-p));
    let lg = |x: usize| libm::lgamma(x as f64 + 1.0);
    (0..=n).map(|i| libm::exp(lg(n) - lg(i) - lg(n - i) + i as f64 * lp + (n - i) as f64 * lq)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_the_notes_print() {
        let waveform = Waveform::find(2400, "L").expect("known");
        let printed = [(1024, [9.60, 14.40, 14.57]), (4096, [24.00, 24.09, 29.10]), (10_240, [43.20, 48.02, 57.85])];
        for (bytes, row) in printed {
            for (loss, limit) in [0.0, 0.05, 0.2].into_iter().zip(row) {
                let link = Link::new(waveform, 4.0, loss);
                let ours = link.incremental_redundancy(link.frames(bytes));
                assert!((ours - limit).abs() < 0.006, "{bytes} bytes at {loss}: {ours}, printed {limit}");
            }
        }
    }

    #[test]
    fn fewer_acknowledgements_save_what_each_costs_but_for_the_turnaround_in_its_place() {
        let waveform = Waveform::find(75, "L").expect("known");
        let link = Link::new(waveform, 2.0, 0.0);
        // 40 full transmissions: 39 answers are waited for, or 19, or 13.
        let frames = 40 * link.most as usize;
        let [each, second, third] = [1, 2, 3].map(|n| link.clone().answered_every(n).incremental_redundancy(frames));
        let saved = link.lost_turn(link.most) - 2.0;
        let longer = |n: u64| link.lost_turn(n * link.most) - link.lost_turn(link.most);
        assert!((each - second - 20.0 * saved + 19.0 * longer(2)).abs() < 1e-6, "{each} {second}");
        assert!((each - third - 26.0 * saved + 13.0 * longer(3)).abs() < 1e-6, "{each} {third}");
        let lossy = Link::new(waveform, 2.0, 0.2);
        let second = lossy.clone().answered_every(2).incremental_redundancy(frames);
        assert!(lossy.answered_every(3).incremental_redundancy(frames) <= second);
    }

    #[test]
    fn multicast_by_parity_costs_what_the_notes_print() {
        let printed = [
            (3, 0.05, 72, 1.0764),
            (3, 0.2, 72, 1.3065),
            (10, 0.05, 72, 1.0990),
            (10, 0.2, 72, 1.3569),
            (50, 0.05, 72, 1.1246),
            (50, 0.2, 72, 1.4123),
            (50, 0.3, 72, 1.6538),
            (10, 0.1, 32, 1.2158),
            (1, 0.3, 72, 1.4286),
            (3, 0.0, 72, 1.0),
        ];
        for (receivers, loss, k, limit) in printed {
            let ours = multicast_parity(receivers, loss, k);
            assert!((ours - limit).abs() < 0.000_06, "{receivers} receivers, {loss}, {k}: {ours}, printed {limit}");
        }
    }

    #[test]
    fn the_long_run_is_what_table_2_prints() {
        let printed = [
            (75, "L", 2.0, 0.0, 0.711),
            (300, "S", 4.0, 0.2, 0.672),
            (2400, "S", 2.0, 0.05, 0.866),
            (9600, "L", 8.0, 0.0, 0.838),
        ];
        for (rate, interleaver, turnaround, loss, share) in printed {
            let waveform = Waveform::find(rate, interleaver).expect("known");
            let ours = Link::new(waveform, turnaround, loss).long_run();
            assert!((ours - share).abs() < 0.0006, "{rate} {interleaver}: {ours}, printed {share}");
        }
    }

    #[test]
    fn probabilities_sum_to_one_and_coding_beats_repeating() {
        for (n, p) in [(0, 0.2), (1, 0.05), (40, 0.8), (200, 0.95)] {
            assert!((binomial(n, p).iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
        let link = Link::new(Waveform::find(2400, "L").expect("known"), 4.0, 0.2);
        assert!(link.incremental_redundancy(41) < link.selective_repeat(41));
    }
}
