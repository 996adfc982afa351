//! Serial-tone HF waveforms as data: rate, interleaver, preamble, block, and the arithmetic of time on the air.
//!
//! All lengths are counted in symbols of 2400 Bd and turned into nanoseconds only at the end, so that no rounding adds up.
//! MIL-STD-188-110A section 5 (75 to 2400 bit/s) and 110B Appendix C = STANAG 4539 (3200 to 9600 bit/s) without the optional
//! level-settling segments before the preamble.

use aldis::time::Duration;
use aldis::units::Bps;

/// Symbols per second of every waveform here.
pub const SYMBOL_RATE: u64 = 2400;

/// Bits a modem adds after the last data bit: the 32-bit end-of-message pattern and 144 flush bits.
pub const TAIL_BITS: u64 = 32 + 144;

/// One rate with one interleaver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waveform {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Interleaver letter as modem sheets print it.
    pub interleaver: &'static str,
    /// Length of the preamble in symbols.
    pub preamble_symbols: u64,
    /// Length of one interleaver block in symbols.
    pub block_symbols: u64,
}

const fn low(rate: u32, interleaver: &'static str, symbols: u64) -> Waveform {
    // 110A: the preamble is as long as the interleaver block, 3 or 24 segments of 480 symbols.
    Waveform { rate, interleaver, preamble_symbols: symbols, block_symbols: symbols }
}

const fn high(rate: u32, interleaver: &'static str, frames: u64) -> Waveform {
    // STANAG 4539: frames of 287 symbols; the interleaver spans 1 to 72 of them, the preamble is one.
    Waveform { rate, interleaver, preamble_symbols: 287, block_symbols: 287 * frames }
}

/// Every waveform the simulator knows.
#[rustfmt::skip]
pub const TABLE: &[Waveform] = &[
    low(75, "S", 1440), low(75, "L", 11520),
    low(150, "S", 1440), low(150, "L", 11520),
    low(300, "S", 1440), low(300, "L", 11520),
    low(600, "S", 1440), low(600, "L", 11520),
    low(1200, "S", 1440), low(1200, "L", 11520),
    low(2400, "S", 1440), low(2400, "L", 11520),
    high(3200, "US", 1), high(3200, "VS", 3), high(3200, "S", 9), high(3200, "M", 18), high(3200, "L", 36), high(3200, "VL", 72),
    high(4800, "US", 1), high(4800, "VS", 3), high(4800, "S", 9), high(4800, "M", 18), high(4800, "L", 36), high(4800, "VL", 72),
    high(6400, "US", 1), high(6400, "VS", 3), high(6400, "S", 9), high(6400, "M", 18), high(6400, "L", 36), high(6400, "VL", 72),
    high(8000, "US", 1), high(8000, "VS", 3), high(8000, "S", 9), high(8000, "M", 18), high(8000, "L", 36), high(8000, "VL", 72),
    high(9600, "US", 1), high(9600, "VS", 3), high(9600, "S", 9), high(9600, "M", 18), high(9600, "L", 36), high(9600, "VL", 72),
];

impl Waveform {
    /// The waveform of this rate and interleaver, if there is one.
    pub fn find(rate: u32, interleaver: &str) -> Option<&'static Self> {
        TABLE.iter().find(|w| w.rate == rate && w.interleaver == interleaver)
    }

    /// Time `symbols` symbols take, rounded down to the nanosecond.
    pub fn symbols(symbols: u64) -> Duration {
        let nanos = u128::from(symbols) * 1_000_000_000 / u128::from(SYMBOL_RATE);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Time of the preamble.
    pub fn preamble(&self) -> Duration {
        Self::symbols(self.preamble_symbols)
    }

    /// Time of one interleaver block.
    pub fn block(&self) -> Duration {
        Self::symbols(self.block_symbols)
    }

    /// From the first preamble symbol to the start of block number `n`.
    pub fn block_start(&self, n: u64) -> Duration {
        Self::symbols(self.preamble_symbols.saturating_add(n.saturating_mul(self.block_symbols)))
    }

    /// Whole bits that fit in the first `n` blocks.
    pub fn bits(&self, n: u64) -> u64 {
        let bits = u128::from(n) * u128::from(self.rate) * u128::from(self.block_symbols) / u128::from(SYMBOL_RATE);
        u64::try_from(bits).unwrap_or(u64::MAX)
    }

    /// Whole bytes that fit in the first `n` blocks.
    pub fn bytes(&self, n: u64) -> u64 {
        self.bits(n) / 8
    }

    /// Blocks of a transmission that carries `bytes` bytes, tail included: at least one.
    pub fn blocks(&self, bytes: u64) -> u64 {
        let bits = u128::from(bytes) * 8 + u128::from(TAIL_BITS);
        let per_block = u128::from(self.rate) * u128::from(self.block_symbols);
        u64::try_from((bits * u128::from(SYMBOL_RATE)).div_ceil(per_block)).unwrap_or(u64::MAX).max(1)
    }

    /// Time on the air of a transmission that carries `bytes` bytes: preamble, data, tail, padding to the block's end.
    pub fn airtime(&self, bytes: u64) -> Duration {
        self.block_start(self.blocks(bytes))
    }

    /// The least time in which `bytes` bytes can cross a link that loses the share `loss`, transmissions capped at `cap`: no
    /// headers, no acknowledgements, erasure capacity, preambles only. A measured time below it means a broken simulator.
    pub fn floor(&self, bytes: u64, loss: f64, cap: Duration) -> Duration {
        let seconds = |symbols: u64| symbols as f64 / SYMBOL_RATE as f64;
        let preamble = seconds(self.preamble_symbols);
        // Whole blocks of data alone, in integers: a block that is exactly full is one block.
        let per_block = u128::from(self.rate) * u128::from(self.block_symbols);
        let blocks = (u128::from(bytes) * 8 * u128::from(SYMBOL_RATE)).div_ceil(per_block);
        let whole = seconds(u64::try_from(blocks).unwrap_or(u64::MAX).saturating_mul(self.block_symbols));
        let air = (bytes as f64 * 8.0 / f64::from(self.rate) / (1.0 - loss)).max(whole);
        Duration::from_secs_f64(air + preamble * (air / (cap.as_secs_f64() - preamble)).ceil())
    }

    /// The same facts in the form the product's profile gives them to a link.
    pub fn plan(&self, modem: &crate::modem::ModemConfig, frame_bytes: u32) -> aldis::config::plan::Waveform {
        aldis::config::plan::Waveform {
            rate: Bps(self.rate),
            interleaver: self.interleaver.to_owned(),
            preamble: self.preamble(),
            block: self.block(),
            tail_bits: TAIL_BITS as u32,
            frame_bytes,
            turnaround: modem.turnaround,
            buffer_bytes: u32::try_from(modem.buffer_bytes).unwrap_or(u32::MAX),
            can_abort: modem.abort_delay.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn airtime_is_preamble_plus_whole_blocks_for_every_waveform_and_size() {
        for w in TABLE {
            for bytes in [0, 1, 22, 23, 24, 45, 158, 1012, 1418, 1419, 10_240, 102_400] {
                // The formula in seconds and floating point, written out again.
                let block = w.block_symbols as f64 / 2400.0;
                let blocks = ((8.0 * bytes as f64 + 176.0) / (f64::from(w.rate) * block) - 1e-9).ceil().max(1.0);
                let seconds = w.preamble_symbols as f64 / 2400.0 + blocks * block;
                let ours = w.airtime(bytes).as_nanos() as f64;
                assert!((ours - seconds * 1e9).abs() <= 2.0, "{w:?} {bytes}: {ours} and {seconds}");
            }
        }
    }

    #[test]
    fn published_figures_come_out() {
        let l2400 = Waveform::find(2400, "L").expect("known");
        assert_eq!(l2400.airtime(1012), Duration::from_millis(9600));
        assert_eq!(l2400.bytes(1), 1440);
        // 1440 bytes leave no room for the tail: one more block.
        assert_eq!(l2400.blocks(1440 - 22), 1);
        assert_eq!(l2400.blocks(1440 - 21), 2);
        let l75 = Waveform::find(75, "L").expect("known");
        assert_eq!(l75.airtime(1012), Duration::from_millis(115_200));
        let us = Waveform::find(9600, "US").expect("known");
        assert_eq!(us.block().as_nanos(), 119_583_333);
        assert_eq!(us.block_start(2399), Duration::from_secs(287));
        assert_eq!(Waveform::find(9600, "L").expect("known").block(), Duration::from_millis(4305));
        assert!(Waveform::find(2400, "VL").is_none());
    }

    #[test]
    fn the_floor_agrees_with_the_published_table() {
        let cap = Duration::from_millis(127_500);
        for (rate, kib, loss, seconds) in [
            (75, 10, 0.0, 1137.6),
            (75, 10, 0.2, 1423.0),
            (300, 100, 0.2, 3547.7),
            (2400, 10, 0.2, 47.5),
            (9600, 100, 0.0, 86.2),
        ] {
            let floor = Waveform::find(rate, "L").expect("known").floor(kib * 1024, loss, cap).as_secs_f64();
            assert!((floor - seconds).abs() < 0.5, "{rate} bit/s, {kib} KiB, {loss}: {floor}");
        }
    }
}
