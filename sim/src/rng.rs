//! Chance, drawn from counter-based streams: who draws what does not depend on who else draws.
//!
//! Every random decision of the laboratory names its stream by the seed, a purpose and the thing it is about (a link, a
//! transmission, a cell). Adding a station or a draw elsewhere therefore shifts nothing, and a decision can be looked up
//! again out of order. Integer arithmetic only, so that every machine draws the same.

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream {
    key: u64,
    counter: u64,
}

impl Stream {
    /// The stream for `purpose` number `index` under `seed`.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        Self::keyed(seed, purpose, &[index])
    }

    /// The stream for `purpose` about the thing that `indices` name together, e.g. sender, receiver, transmission, cell.
    pub fn keyed(seed: u64, purpose: &str, indices: &[u64]) -> Self {
        // FNV-1a folds the purpose; mixing after every index keeps (1, 2) and (2, 1) apart.
        let name = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        let mut key = mix(mix(seed.wrapping_add(GOLDEN)) ^ name);
        for &index in indices {
            key = mix(key.wrapping_mul(0xd134_2543_de82_ef95) ^ mix(index.wrapping_add(GOLDEN)));
        }
        Self { key, counter: 0 }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN))) ^ self.key)
    }

    /// A number from 0 to `n - 1`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The SplitMix64 finaliser: every input bit reaches every output bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_numbers_for_ever() {
        // Literal values: a change here changes every published trace hash.
        let mut s = Stream::new(1, "cell", 7);
        let drawn = [s.next_u64(), s.next_u64()];
        assert_eq!(drawn, [0x886a51b54018177e, 0xb0a967547ee4110e]);
        assert_eq!(Stream::keyed(1, "cell", &[7]).next_u64(), drawn[0]);
    }

    #[test]
    fn different_names_give_different_numbers() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..10 {
            for purpose in ["cell", "preamble", "noise"] {
                for i in 0..10 {
                    for j in 0..10 {
                        assert!(seen.insert(Stream::keyed(seed, purpose, &[i, j]).next_u64()));
                    }
                }
            }
        }
    }

    #[test]
    fn units_fill_the_interval_evenly_across_and_along_streams() {
        let n = 100_000;
        let across = (0..n).filter(|&i| Stream::new(3, "t", i).unit() < 0.05).count();
        let mut one = Stream::new(3, "t", 0);
        let along = (0..n).filter(|_| one.unit() < 0.05).count();
        for count in [across, along] {
            // 3.5 sigma around 5000.
            assert!((4760..=5240).contains(&count), "{count}");
        }
        let mut tens = [0u32; 10];
        (0..n).for_each(|_| tens[one.below(10) as usize] += 1);
        assert!(tens.iter().all(|&c| (9650..=10350).contains(&c)), "{tens:?}");
        assert_eq!(one.below(0), 0);
    }
}
