//! What each waveform needs of a path: the signal-to-noise ratios the block error model hangs on, with their origin and certainty.
//!
//! Ratios are in 3 kHz of noise bandwidth. They are the least a standard asks of a modem; a good one is 2 to 4 dB better.

use crate::waveform::{Family, WIDEBANDS, Waveform};

use super::Wreck;

/// What a waveform needs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Anchor {
    /// Ratio in dB at which a steady path gives the bit error ratio `ber`.
    pub awgn_db: f64,
    /// The bit error ratio the figures are for.
    pub ber: f64,
    /// What the standard asks on a fading path.
    pub fading: Option<OnFading>,
    /// What a receiver loses on two moving paths beyond what the effective ratio says, dB: a real equaliser, code and interleaver
    /// against ideal ones. Set so that the model asks for just what the standard asks for in `fading`.
    pub fading_loss_db: f64,
    /// Where `awgn_db` is from.
    pub origin: Origin,
    /// Ratio over the preamble, in dB, at which every second one is missed.
    pub sync_db: f64,
    /// Delay its equaliser spans, ms. A path beyond it is noise.
    pub delay_ms: f64,
    /// Doppler spread in Hz at which it follows the channel so badly that 3 dB more than `awgn_db` is the best it sees.
    pub doppler_hz: f64,
}

/// A requirement on two equal Rayleigh paths.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OnFading {
    /// Mean ratio, dB.
    pub db: f64,
    /// Bit error ratio it must give.
    pub ber: f64,
    /// Delay between the paths, ms.
    pub delay_ms: f64,
    /// Doppler spread, Hz.
    pub doppler_hz: f64,
}

/// How sure a figure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The standard's minimum, quoted from memory and not read again.
    Minimum,
    /// A published requirement that was read.
    Read,
    /// No figure known: likened to the waveform named.
    Likened(&'static str),
}

struct Row(Family, u32, f64, Option<OnFading>, f64, Origin);

const fn poor(db: f64) -> Option<OnFading> {
    Some(OnFading { db, ber: 1e-5, delay_ms: 2.0, doppler_hz: 1.0 })
}

const fn severe(db: f64) -> Option<OnFading> {
    Some(OnFading { db, ber: 1e-5, delay_ms: 5.0, doppler_hz: 5.0 })
}

const fn robust(db: f64) -> Option<OnFading> {
    Some(OnFading { db, ber: 1e-4, delay_ms: 10.0, doppler_hz: 20.0 })
}

const LIKE_D: Origin = Origin::Likened("110D Appendix D at this rate");
const LIKE_A: Origin = Origin::Likened("110A at this rate");

/// Family, rate (of the wideband family: that in 3 kHz), dB on a steady path, on fading, what fading costs, origin.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row(Family::Mil110a, 75, -6.0, severe(2.0), 4.8, LIKE_D),
    Row(Family::Mil110a, 150, -3.0, severe(5.0), 4.6, LIKE_D),
    Row(Family::Mil110a, 300, 0.0, severe(7.0), 3.9, LIKE_D),
    Row(Family::Mil110a, 600, 3.0, poor(7.0), 1.6, LIKE_D),
    Row(Family::Mil110a, 1200, 6.0, poor(11.0), 2.3, LIKE_D),
    Row(Family::Mil110a, 2400, 10.0, poor(18.0), 4.8, Origin::Minimum),
    Row(Family::Stanag4539, 3200, 9.0, poor(15.0), 3.6, Origin::Minimum),
    Row(Family::Stanag4539, 4800, 13.0, poor(20.0), 4.4, Origin::Minimum),
    Row(Family::Stanag4539, 6400, 16.0, poor(23.0), 4.4, Origin::Minimum),
    Row(Family::Stanag4539, 8000, 19.0, poor(28.0), 6.0, Origin::Minimum),
    Row(Family::Stanag4539, 9600, 21.0, poor(33.0), 8.2, Origin::Minimum),
    Row(Family::Stanag4415, 75, -9.0, robust(-1.0), 4.9, Origin::Read),
    Row(Family::Stanag4285, 75, -6.0, None, 4.8, LIKE_A),
    Row(Family::Stanag4285, 150, -3.0, None, 4.6, LIKE_A),
    Row(Family::Stanag4285, 300, 0.0, None, 3.9, LIKE_A),
    Row(Family::Stanag4285, 600, 3.0, None, 1.6, LIKE_A),
    Row(Family::Stanag4285, 1200, 6.0, None, 2.3, LIKE_A),
    Row(Family::Stanag4285, 2400, 10.0, None, 4.8, LIKE_A),
    Row(Family::Wideband, 75, -6.0, poor(-1.0), 3.8, Origin::Minimum),
    Row(Family::Wideband, 150, -3.0, poor(3.0), 4.6, Origin::Minimum),
    Row(Family::Wideband, 300, 0.0, poor(5.0), 3.5, Origin::Minimum),
    Row(Family::Wideband, 600, 3.0, poor(7.0), 2.2, Origin::Minimum),
    Row(Family::Wideband, 1200, 5.0, poor(10.0), 3.0, Origin::Minimum),
    Row(Family::Wideband, 1600, 6.0, poor(11.0), 3.0, Origin::Minimum),
    Row(Family::Wideband, 3200, 9.0, poor(15.0), 3.8, Origin::Minimum),
    Row(Family::Wideband, 4800, 13.0, poor(20.0), 4.6, Origin::Minimum),
    Row(Family::Wideband, 6400, 16.0, poor(23.0), 4.6, Origin::Minimum),
    Row(Family::Wideband, 8000, 19.0, poor(27.0), 5.5, Origin::Minimum),
    Row(Family::Wideband, 9600, 21.0, poor(31.0), 7.2, Origin::Minimum),
    Row(Family::Wideband, 12_000, 24.0, None, 10.0, Origin::Minimum),
    Row(Family::Wideband, 16_000, 30.0, None, 10.0, Origin::Minimum),
];

impl Anchor {
    /// What this waveform needs. A waveform that is in no table here is taken for the most demanding one.
    pub fn of(waveform: &Waveform) -> Self {
        let wide = f64::from(waveform.khz) / 3.0;
        let rate = match WIDEBANDS.iter().find(|w| w.0 == waveform.khz && w.1 == waveform.rate) {
            Some(_) if waveform.family == Family::Wideband => 16_000,
            _ => waveform.rate / (waveform.khz / 3).max(1),
        };
        let row = TABLE.iter().find(|r| r.0 == waveform.family && r.1 == rate);
        let &Row(_, _, steady_db, fading, fading_loss_db, origin) = row.unwrap_or(&TABLE[TABLE.len() - 1]);
        // The table's figures are for the signal's own band; more band lets in more noise.
        let wider_db = 10.0 * libm::log10(wide);
        let (delay_ms, doppler_hz) = reach(waveform.family, rate);
        Self {
            awgn_db: steady_db + wider_db,
            ber: if waveform.family == Family::Stanag4415 { 1e-3 } else { 1e-5 },
            fading,
            fading_loss_db,
            origin,
            sync_db: sync_db(waveform) + wider_db,
            delay_ms,
            doppler_hz,
        }
    }

    /// Probability that a block whose effective ratio is `snr_db` fails: falls to a tenth with every decibel, and is such that the
    /// bit error ratio at `awgn_db` is `ber`.
    pub fn block_failure(&self, snr_db: f64) -> f64 {
        // Only the share `Wreck::default().ber` of a failed block's bits is wrong.
        let half_db = self.awgn_db - libm::log10(Wreck::default().ber / self.ber);
        logistic(snr_db - half_db)
    }

    /// Probability that a preamble over which the effective ratio is `snr_db` is missed.
    pub fn preamble_miss(&self, snr_db: f64) -> f64 {
        logistic(snr_db - self.sync_db)
    }
}

/// From 1 through a half at 0 dB towards 0, a decade a decibel.
fn logistic(db: f64) -> f64 {
    1.0 / (1.0 + libm::pow(10.0, db.clamp(-100.0, 100.0)))
}

/// Delay in ms and Doppler spread in Hz a receiver copes with: estimates, from the paths the standards test on.
fn reach(family: Family, rate: u32) -> (f64, f64) {
    match family {
        Family::Stanag4415 => (10.0, 50.0),
        Family::Mil110a | Family::Wideband if rate <= 300 => (6.0, 10.0),
        Family::Mil110a | Family::Wideband | Family::Stanag4285 => (6.0, 5.0),
        // FreeDV's own modem decides for itself: it has no row above, and nothing here is asked about it.
        Family::Stanag4539 | Family::FreeDv => (6.0, 4.0),
    }
}

/// Ratio in the signal's band at which every second preamble is missed: estimates, from the length of what is known in it.
fn sync_db(waveform: &Waveform) -> f64 {
    let long = waveform.preamble_symbols > 1440;
    match waveform.family {
        Family::Mil110a if long => -10.0,
        Family::Mil110a => -7.0,
        Family::Stanag4415 if long => -13.0,
        Family::Stanag4415 => -10.0,
        Family::Stanag4539 | Family::FreeDv => -2.0,
        Family::Stanag4285 => -3.0,
        Family::Wideband => -6.0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aldis::time::{Duration, Instant};

    use super::*;
    use crate::channel::{Fading, Path, Sky};
    use crate::waveform::WIDEBAND_RATES;

    #[test]
    fn every_waveform_has_an_anchor_of_its_own() {
        let wide = WIDEBANDS.iter().flat_map(|&(khz, fastest)| {
            WIDEBAND_RATES
                .map(|r| r * khz / 3)
                .into_iter()
                .chain([fastest])
                .filter_map(move |r| Waveform::wideband(khz, r, "S"))
        });
        for w in crate::waveform::TABLE.iter().copied().chain(wide) {
            let base = w.rate / (w.khz / 3);
            assert!(
                base > 12_000 || TABLE.iter().any(|r| r.0 == w.family && r.1 == base),
                "{w:?} falls back on the most demanding"
            );
        }
        let of = |khz, rate| Anchor::of(&Waveform::wideband(khz, rate, "L").expect("known")).awgn_db;
        assert_eq!((of(3, 16_000), of(3, 9600)), (30.0, 21.0));
        assert!((of(24, 120_000) - 39.03).abs() < 0.01 && (of(24, 76_800) - 30.03).abs() < 0.01);
    }

    #[test]
    fn the_bit_error_ratio_at_the_anchor_is_the_stated_one_and_falls_a_decade_a_decibel() {
        let anchor = Anchor::of(Waveform::find(2400, "L").expect("known"));
        let ber = |db| anchor.block_failure(db) * Wreck::default().ber;
        assert!((ber(10.0) / 1e-5 - 1.0).abs() < 1e-3, "{}", ber(10.0));
        assert!((ber(11.0) / 1e-6 - 1.0).abs() < 1e-3);
        assert!(anchor.block_failure(f64::NEG_INFINITY) > 0.999 && anchor.block_failure(0.0) > 0.999);
    }

    #[test]
    fn on_the_standards_fading_paths_the_model_asks_for_what_the_standards_ask_for() {
        for row in TABLE {
            let Some(fading) = row.3 else { continue };
            let longest = ["VL", "L"].into_iter().find_map(|i| Waveform::choose(row.0, 3, row.1, i)).expect("known");
            let anchor = Anchor::of(&longest);
            let taps =
                Fading { delay: Duration::from_micros((fading.delay_ms * 1e3) as u64), doppler_hz: fading.doppler_hz };
            let ber = |db: f64| {
                let mut path = Path::new(1, 0, 1, Arc::new(Sky { fading: Some(taps), ..Sky::steady(db) }));
                let blocks = 300;
                let sum: f64 = (0..blocks)
                    .map(|i| {
                        let from = Instant::from_millis(i * 30_000);
                        let effective = path.effective_db(from, from + longest.block(), &anchor).expect("alive");
                        anchor.block_failure(effective - anchor.fading_loss_db)
                    })
                    .sum();
                sum / blocks as f64 * Wreck::default().ber
            };
            // A decibel and a half either way.
            let (worse, better) = (ber(fading.db - 1.5), ber(fading.db + 1.5));
            assert!(worse > fading.ber && better < fading.ber, "{:?} {}: {worse:e} {better:e}", row.0, row.1);
        }
    }
}
