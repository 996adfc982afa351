//! Sending towards a station that keeps silence: how much must leave so that the payload is whole there without a word from it.
//!
//! Losses hit frames, and with a frame all symbols in it. So what is counted are frames: [`spare`] says how many more than needed must
//! leave so that enough arrive, [`symbols`] turns that into symbols of a payload that is cut into code blocks. Exact binomial tails, by
//! sums, products and quotients alone: every machine finds the same number. Called by the station (`station/silent.rs`); knows no time.

/// How mail of one level goes to a silent station.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Policy {
    /// Chance that a receiver has the whole after one window, at the assumed loss.
    pub target: f64,
    /// How often it is sent in all, with fresh symbols each time.
    pub windows: u32,
    /// From the end of one window to the next.
    pub interval: crate::time::Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { target: 0.999, windows: 2, interval: crate::time::Duration::from_secs(3600) }
    }
}

/// Loss beyond which nothing can be promised: more parity than half as much again as at 50 % helps against no real channel.
const MOST_LOSS: f64 = 0.6;
/// Terms of a distribution below this share of its largest say nothing in 64-bit arithmetic.
const NEGLIGIBLE: f64 = 1e-20;

/// Fewest frames beyond `needed` so that the chance that fewer than `needed` of all arrive is at most `failure`, where each is lost
/// with chance `loss`.
pub fn spare(needed: u32, loss: f64, failure: f64) -> u32 {
    let p = loss.clamp(0.0, MOST_LOSS);
    if needed == 0 || p == 0.0 {
        return 0;
    }
    // The chance that exactly i are lost before the last needed one arrives is C(needed - 1 + i, i) p^i q^needed. Terms are taken
    // relative to the largest, so that none is too small or too large to be written down.
    let next = |i: u32| p * f64::from(needed - 1 + i + 1) / f64::from(i + 1);
    let mode = (f64::from(needed - 1) * p / (1.0 - p)) as u32;
    let mut below = Vec::new();
    let (mut term, mut i) = (1.0, mode);
    while i > 0 && term > NEGLIGIBLE {
        i -= 1;
        term /= next(i);
        below.push(term);
    }
    let first = i;
    let mut terms: Vec<f64> = below.into_iter().rev().collect();
    let (mut term, mut i) = (1.0, mode);
    while term > NEGLIGIBLE {
        terms.push(term);
        term *= next(i);
        i += 1;
    }
    // What fails exactly as often as it may must not be told apart by the last bit.
    let may_fail = failure.max(1e-12) * (1.0 + 1e-9) * terms.iter().sum::<f64>();
    // From the far end: as many terms as may fail together.
    let mut tail = 0.0;
    let kept = terms.iter().rposition(|t| {
        tail += t;
        tail > may_fail
    });
    first + u32::try_from(kept.unwrap_or(0)).unwrap_or(u32::MAX)
}

/// Symbols that must leave, in frames of `each` lost with chance `loss`, so that what is lacking per code block arrives but for the
/// chance `failure`. Symbols leave row by row over the blocks that lack some, so a frame holds as many of one block as of another.
pub fn symbols(lack: &[u32], each: u32, loss: f64, failure: f64) -> u32 {
    let each = each.max(1);
    let blocks = u32::try_from(lack.iter().filter(|l| **l > 0).count()).unwrap_or(u32::MAX);
    if each >= blocks.max(1) {
        // Every frame helps every block. Where the blocks do not get equal parts of each, one more frame levels that out.
        let uneven = u32::from(blocks > 1 && !each.is_multiple_of(blocks));
        let frames = match lack.iter().sum::<u32>().div_ceil(each) {
            0 => 0,
            frames => frames + uneven,
        };
        (frames + spare(frames, loss, failure)) * each
    } else {
        // A frame helps few of the blocks: each must come through by itself.
        let failure = failure * f64::from(each) / f64::from(blocks);
        lack.iter().map(|l| l + spare(*l, loss, failure)).sum()
    }
}

/// How many copies of a word must leave, each lost with chance `loss`, so that one arrives but for the chance `failure`.
pub fn copies(loss: f64, failure: f64) -> u32 {
    1 + spare(1, loss, failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The design's table of parity for silence: k, then frames beyond k at 5, 10, 20 and 30 % for 99.9 %.
    const TABLE: [(u32, [u32; 4]); 8] = [
        (1, [2, 2, 4, 5]),
        (4, [3, 4, 6, 9]),
        (8, [4, 5, 9, 13]),
        (16, [5, 8, 13, 19]),
        (32, [7, 11, 20, 30]),
        (64, [11, 17, 32, 49]),
        (128, [16, 28, 54, 85]),
        (200, [22, 39, 77, 123]),
    ];
    const LOSSES: [f64; 4] = [0.05, 0.1, 0.2, 0.3];

    #[test]
    fn the_parity_for_silence_is_that_of_the_design() {
        for (k, row) in TABLE {
            assert_eq!(LOSSES.map(|p| spare(k, p, 0.001)), row, "k {k}");
        }
    }

    #[test]
    fn the_number_is_the_least_that_reaches_the_target() {
        for k in 1..=200 {
            for p in LOSSES {
                let r = spare(k, p, 0.001);
                assert!(fails(k, r, p) <= 0.001 * (1.0 + 1e-9), "k {k} p {p}: {r} are too few");
                assert!(r == 0 || fails(k, r - 1, p) > 0.001, "k {k} p {p}: {r} are more than needed");
            }
        }
    }

    #[test]
    fn long_messages_and_bad_channels_have_a_number_too() {
        assert_eq!((spare(0, 0.3, 0.001), spare(500, 0.0, 0.001)), (0, 0));
        let (clean, bad) = (spare(4000, 0.01, 1e-6), spare(4000, 0.9, 1e-6));
        assert!((70..90).contains(&clean), "{clean}");
        assert!((6000..7000).contains(&bad), "taken for {MOST_LOSS}: {bad}");
        // All of ten receivers cost two or three more than one.
        assert_eq!(spare(32, 0.1, 0.0001) - spare(32, 0.1, 0.001), 2);
    }

    #[test]
    fn losses_are_counted_by_frames_however_many_symbols_they_hold() {
        // One code block, eight symbols to a frame: five frames are needed and five are spare at 10 %, where single symbols need 11.
        assert_eq!(symbols(&[34], 8, 0.1, 0.001), 10 * 8 - 8);
        assert_eq!(symbols(&[34], 1, 0.1, 0.001), 34 + spare(34, 0.1, 0.001));
        // Two blocks that share every frame need no more than one.
        assert_eq!(symbols(&[128, 128], 8, 0.1, 0.001), (32 + 11) * 8);
        // Three blocks in frames of eight get uneven parts.
        assert_eq!(symbols(&[86, 86, 85], 8, 0.1, 0.001), (34 + spare(34, 0.1, 0.001)) * 8);
        // Blocks that come through one by one all have to.
        assert!(symbols(&[100; 10], 1, 0.1, 0.001) > 10 * (100 + spare(100, 0.1, 0.001)));
        // What lacks nothing gets nothing.
        assert_eq!((symbols(&[0, 0], 8, 0.1, 0.001), symbols(&[0, 4], 8, 0.1, 0.001)), (0, 3 * 8));
    }

    #[test]
    fn a_word_is_repeated_until_one_copy_surely_arrives() {
        assert_eq!([0.0, 0.05, 0.1, 0.3].map(|p| copies(p, 0.0001)), [1, 4, 4, 8]);
    }

    /// The chance that more than `r` of `k + r` are lost, term by term.
    fn fails(k: u32, r: u32, p: f64) -> f64 {
        let n = k + r;
        let mut row = vec![0.0; n as usize + 1];
        row[0] = 1.0;
        for _ in 0..n {
            for i in (0..row.len()).rev() {
                row[i] = row[i] * (1.0 - p) + if i > 0 { row[i - 1] * p } else { 0.0 };
            }
        }
        row[r as usize + 1..].iter().sum()
    }
}
