//! Serial-tone HF waveforms as data: rate, interleaver, preamble, block, and the arithmetic of time on the air.
//!
//! All lengths are counted in symbols of 2400 Bd and turned into nanoseconds only at the end, so that no rounding adds up; the
//! wideband waveforms have more symbols a second, but their preambles and interleavers are whole numbers of these too. What each
//! waveform needs of a path stands in [`channel::anchor`](crate::channel::anchor).

use aldis::time::Duration;
use aldis::units::Bps;

/// Symbols per second of every waveform in 3 kHz, and the unit of every length here.
pub const SYMBOL_RATE: u64 = 2400;

/// Bits a modem adds after the last data bit: the 32-bit end-of-message pattern and 144 flush bits.
pub const TAIL_BITS: u64 = 32 + 144;

/// Symbols of one optional level-setting segment before a STANAG 4539 preamble, of which there may be up to seven.
pub const LEVEL_SEGMENT: u64 = 184;

/// Symbols of one superframe of the wideband preamble, of which there are 1 to 32.
pub const SUPERFRAME: u64 = 576;

/// Which standard a waveform is from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// MIL-STD-188-110A section 5, and the low rates of STANAG 4539: 75 to 2400 bit/s.
    Mil110a,
    /// STANAG 4539 = MIL-STD-188-110B Appendix C: 3200 to 9600 bit/s.
    Stanag4539,
    /// STANAG 4285, coded rates: no preamble, a convolutional interleaver, late entry.
    Stanag4285,
    /// STANAG 4415: the signal of 110A at 75 bit/s, with a receiver that stands far more.
    Stanag4415,
    /// STANAG 5069 = MIL-STD-188-110D Appendix D: 3 to 48 kHz.
    Wideband,
    /// FreeDV's data modes, played by their own modem alone.
    FreeDv,
}

impl Family {
    /// The family's word in a scenario.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "110a" => Self::Mil110a,
            "4539" => Self::Stanag4539,
            "4285" => Self::Stanag4285,
            "4415" => Self::Stanag4415,
            "wbhf" => Self::Wideband,
            _ => return None,
        })
    }
}

/// One rate with one interleaver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waveform {
    /// Where it is from.
    pub family: Family,
    /// Bandwidth it fills, kHz.
    pub khz: u32,
    /// Data rate, bit/s.
    pub rate: u32,
    /// Interleaver letter as modem sheets print it.
    pub interleaver: &'static str,
    /// Length of the preamble in symbols.
    pub preamble_symbols: u64,
    /// Length of one interleaver block in symbols; of one frame, where the interleaver is convolutional or absent.
    pub block_symbols: u64,
    /// What a convolutional interleaver delays every bit by from end to end, and so the length of its flush, in symbols.
    pub delay_symbols: u64,
}

const fn low(rate: u32, interleaver: &'static str, symbols: u64) -> Waveform {
    // 110A: the preamble is as long as the interleaver block, 3 or 24 segments of 480 symbols.
    Waveform {
        family: Family::Mil110a,
        khz: 3,
        rate,
        interleaver,
        preamble_symbols: symbols,
        block_symbols: symbols,
        delay_symbols: 0,
    }
}

const fn zero(rate: u32, frame: u64) -> Waveform {
    // 110A without interleaver: the short preamble, then frames of unknown and known symbols, 20 + 20 or 32 + 16.
    Waveform { preamble_symbols: 1440, ..low(rate, "Z", frame) }
}

const fn high(rate: u32, interleaver: &'static str, frames: u64) -> Waveform {
    // STANAG 4539: frames of 287 symbols; the interleaver spans 1 to 72 of them, the preamble is one.
    Waveform {
        family: Family::Stanag4539,
        preamble_symbols: 287,
        block_symbols: 287 * frames,
        ..low(rate, interleaver, 0)
    }
}

const fn robust(interleaver: &'static str, symbols: u64) -> Waveform {
    Waveform { family: Family::Stanag4415, ..low(75, interleaver, symbols) }
}

const fn continuous(rate: u32, interleaver: &'static str, frames: u64) -> Waveform {
    // STANAG 4285: frames of 256 symbols, 80 of them known; the interleaver's delay is 8 or 96 frames. One frame to synchronise on
    // stands for the preamble it does not have.
    Waveform {
        family: Family::Stanag4285,
        preamble_symbols: FRAME_4285,
        block_symbols: FRAME_4285,
        delay_symbols: FRAME_4285 * frames,
        ..low(rate, interleaver, 0)
    }
}

const FRAME_4285: u64 = 256;

/// Every waveform in 3 kHz but the wideband family's, which [`Waveform::wideband`] makes. Where two families share a rate and an
/// interleaver, [`Waveform::find`] takes the first.
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
    zero(150, 40), zero(300, 40), zero(600, 40), zero(1200, 40), zero(2400, 48),
    robust("S", 1440), robust("L", 11520),
    continuous(75, "S", 8), continuous(75, "L", 96),
    continuous(150, "S", 8), continuous(150, "L", 96),
    continuous(300, "S", 8), continuous(300, "L", 96),
    continuous(600, "S", 8), continuous(600, "L", 96),
    continuous(1200, "S", 8), continuous(1200, "L", 96),
    continuous(2400, "S", 8), continuous(2400, "L", 96),
];

/// Rates of the wideband family in 3 kHz, bit/s, from waveform number 0 up. Wider ones carry multiples of them, but for the
/// fastest.
pub const WIDEBAND_RATES: [u32; 13] = [75, 150, 300, 600, 1200, 1600, 3200, 4800, 6400, 8000, 9600, 12_000, 16_000];

/// Bandwidths of the wideband family that are known here, kHz, with the fastest rate of each, bit/s.
pub const WIDEBANDS: [(u32, u32); 5] = [(3, 16_000), (6, 32_000), (12, 64_000), (24, 120_000), (48, 240_000)];

impl Waveform {
    /// The waveform of this rate and interleaver, if there is one.
    pub fn find(rate: u32, interleaver: &str) -> Option<&'static Self> {
        TABLE.iter().find(|w| w.rate == rate && w.interleaver == interleaver)
    }

    /// The waveform of this family, bandwidth, rate and interleaver, if there is one.
    pub fn choose(family: Family, khz: u32, rate: u32, interleaver: &str) -> Option<Self> {
        if family == Family::Wideband {
            return Self::wideband(khz, rate, interleaver);
        }
        let same = |w: &&Self| (w.family, w.khz, w.rate, w.interleaver) == (family, khz, rate, interleaver);
        TABLE.iter().find(same).copied()
    }

    /// The wideband waveform of this bandwidth, rate and interleaver, with a preamble of one superframe.
    pub fn wideband(khz: u32, rate: u32, interleaver: &str) -> Option<Self> {
        let &(_, fastest) = WIDEBANDS.iter().find(|w| w.0 == khz)?;
        let known = WIDEBAND_RATES.iter().any(|r| r * (khz / 3) == rate && *r < 16_000) || rate == fastest;
        let (interleaver, block_symbols) =
            [("US", 288), ("S", 1152), ("M", 4608), ("L", 18_432)].into_iter().find(|i| known && i.0 == interleaver)?;
        let preamble_symbols = SUPERFRAME;
        Some(Self { family: Family::Wideband, khz, preamble_symbols, block_symbols, ..low(rate, interleaver, 0) })
    }

    /// What a modem offers that can be told its waveform: 75 bit/s of STANAG 4415, which the modems of that family receive, the other low
    /// rates of 110A, the high ones of 4539.
    pub fn palette() -> impl Iterator<Item = &'static Self> {
        TABLE.iter().filter(|w| match w.family {
            Family::Stanag4415 | Family::Stanag4539 => true,
            Family::Mil110a => w.rate > 75 && w.interleaver != "Z",
            Family::Stanag4285 | Family::Wideband | Family::FreeDv => false,
        })
    }

    /// The one of these of this rate and interleaver.
    pub fn selected(rate: u32, interleaver: &str) -> Option<&'static Self> {
        Self::palette().find(|w| w.rate == rate && w.interleaver == interleaver)
    }

    /// Whether a receiver can join in the middle of a transmission.
    pub fn late_entry(&self) -> bool {
        self.family == Family::Stanag4285
    }

    /// Delay of the convolutional interleaver from end to end.
    pub fn delay(&self) -> Duration {
        Self::symbols(self.delay_symbols)
    }

    /// Bits a transmission takes beyond its data: end of message, flush of the code and flush of a convolutional interleaver.
    pub fn tail_bits(&self) -> u64 {
        TAIL_BITS + u64::from(self.rate) * self.delay_symbols / SYMBOL_RATE
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
        let bits = u128::from(bytes) * 8 + u128::from(self.tail_bits());
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
            tail_bits: u32::try_from(self.tail_bits()).unwrap_or(u32::MAX),
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
                let blocks = ((8.0 * bytes as f64 + 176.0 + f64::from(w.rate) * w.delay_symbols as f64 / 2400.0)
                    / (f64::from(w.rate) * block)
                    - 1e-9)
                    .ceil()
                    .max(1.0);
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
    fn a_convolutional_interleaver_is_paid_once_and_not_by_the_block() {
        let w = Waveform::choose(Family::Stanag4285, 3, 300, "L").expect("known");
        assert_eq!(w.delay(), Duration::from_millis(10_240));
        // 8 bits a byte and 176 of tail at 32 bits a frame of 106.7 ms, after one to synchronise on, then 10.24 s of flush.
        assert_eq!(w.airtime(6), Waveform::symbols(256 * (1 + 7 + 96)));
        assert_eq!(w.airtime(10), Waveform::symbols(256 * (1 + 8 + 96)));
        let short = Waveform::choose(Family::Stanag4285, 3, 2400, "S").expect("known");
        assert_eq!(short.delay().as_millis(), 853);
    }

    #[test]
    fn the_published_corners_of_the_wideband_family_are_there() {
        for (khz, rate, block_bytes) in
            [(3, 75, 72), (3, 16_000, 15_360), (24, 120_000, 115_200), (48, 240_000, 230_400)]
        {
            let w = Waveform::wideband(khz, rate, "L").expect("known");
            assert_eq!(
                (w.bytes(1), w.block(), w.preamble()),
                (block_bytes, Duration::from_millis(7680), Duration::from_millis(240))
            );
        }
        assert_eq!(Waveform::wideband(24, 4800, "US").expect("known").block(), Duration::from_millis(120));
        // Eight times 16000 is more than the fastest.
        assert!(Waveform::wideband(24, 128_000, "L").is_none() && Waveform::wideband(9, 225, "L").is_none());
    }

    #[test]
    fn a_rate_shared_by_two_families_is_the_first_ones_unless_one_is_named() {
        assert_eq!(Waveform::find(75, "L").expect("known").family, Family::Mil110a);
        assert_eq!(Waveform::choose(Family::Stanag4415, 3, 75, "L").expect("known").family, Family::Stanag4415);
        assert!(Waveform::choose(Family::Stanag4539, 3, 75, "L").is_none());
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
