//! The ionosphere at audio rate: two paths that fade, and noise, over samples at 8 kHz.
//!
//! The two-path model of Watterson: the signal and a delayed copy of it, each multiplied by a complex Gaussian gain of mean power
//! one half whose Doppler spectrum is Gaussian with a spread of two standard deviations. A gain is a sum of tones with Gaussian
//! shifts, so that it can be asked for at any instant: silence costs nothing, and the same seed gives the same fade to whoever asks.
//! Noise is white over the 4 kHz of the samples; its level is stated as signal-to-noise ratio in 3 kHz, the signal being what would
//! come without fading. Called by [`sweep`](super::sweep) and [`air`](super::air).

use super::modem::SAMPLE_RATE;
use crate::rng::Stream;

/// Tones of one gain.
const TONES: usize = 48;
/// Samples from one exact gain to the next; linear in between. 100 a second are enough for 5 Hz.
const STEP: u64 = 80;
/// Half the length of the Hilbert filter, and its delay.
const HALF: usize = 64;
/// Headroom of the receiver's converter: a fade may also add.
const GAIN: f64 = 0.5;

/// How a path spreads what it carries.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// Name as in codec2's own channel tool.
    pub name: &'static str,
    /// Doppler spread of each path, two standard deviations, Hz.
    pub doppler: f64,
    /// How much later the second path comes, seconds.
    pub delay: f64,
}

/// Fading paths by name. The name is codec2's; the figures are what counts, because others give the same names to other figures.
pub const SPREADS: [Spread; 3] = [
    Spread { name: "mpg", doppler: 0.1, delay: 0.0005 },
    Spread { name: "mpp", doppler: 1.0, delay: 0.002 },
    Spread { name: "mpd", doppler: 2.0, delay: 0.004 },
];

/// A kind of path by name; `awgn` is one that does not fade.
pub fn path(name: &str) -> Result<Option<Spread>, String> {
    let known = || SPREADS.map(|s| s.name).join(", ");
    match SPREADS.into_iter().find(|s| s.name == name) {
        Some(spread) => Ok(Some(spread)),
        None if name == "awgn" => Ok(None),
        None => Err(format!("no path {name}; known: awgn, {}", known())),
    }
}

/// A complex number; two are all the arithmetic needs.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Complex {
    /// Real part.
    pub re: f64,
    /// Imaginary part.
    pub im: f64,
}

impl Complex {
    fn between(self, other: Self, share: f64) -> Self {
        Self { re: self.re + (other.re - self.re) * share, im: self.im + (other.im - self.im) * share }
    }

    /// Squared magnitude.
    pub fn power(self) -> f64 {
        self.re * self.re + self.im * self.im
    }
}

/// The gains of the two paths over time. Their powers add up to one in the mean.
#[derive(Clone, Debug)]
pub struct Fading {
    spread: Spread,
    /// Shift in Hz and phase of every tone.
    tones: [[(f64, f64); TONES]; 2],
}

impl Fading {
    /// The fade called `name` under `seed`.
    pub fn new(seed: u64, name: &[u64], spread: Spread) -> Self {
        let mut draw = Stream::keyed(seed, "audio fade", name);
        let tones = [(); 2].map(|()| {
            [(); TONES].map(|()| (gaussian(&mut draw) * spread.doppler / 2.0, std::f64::consts::TAU * draw.unit()))
        });
        Self { spread, tones }
    }

    /// Both gains, `at` samples after the beginning of time.
    pub fn gains(&self, at: u64) -> [Complex; 2] {
        let t = at as f64 / SAMPLE_RATE as f64;
        let scale = (0.5 / TONES as f64).sqrt();
        self.tones.map(|tones| {
            tones.iter().fold(Complex::default(), |sum, (shift, phase)| {
                let (sin, cos) = libm::sincos(std::f64::consts::TAU * shift * t + phase);
                Complex { re: sum.re + scale * cos, im: sum.im + scale * sin }
            })
        })
    }

    /// How the two paths spread.
    pub fn spread(&self) -> Spread {
        self.spread
    }
}

/// One directed path: samples of the sender in, of the receiver out, continuous from call to call.
#[derive(Debug)]
pub struct AudioPath {
    fading: Option<Fading>,
    /// Gains at the last and the next multiple of [`STEP`].
    gains: (u64, [[Complex; 2]; 2]),
    hilbert: Vec<f64>,
    /// The last samples sent, newest last: filter and delay.
    sent: Vec<f64>,
    /// The analytic signal, as far back as the second path needs, newest last.
    analytic: Vec<Complex>,
    delay: usize,
    at: u64,
}

impl AudioPath {
    /// A path whose first sample is sample number `at` of its fade.
    pub fn new(fading: Option<Fading>, at: u64) -> Self {
        let delay = fading.as_ref().map_or(0, |f| libm::round(f.spread.delay * SAMPLE_RATE as f64) as usize);
        Self {
            fading,
            gains: (u64::MAX, [[Complex::default(); 2]; 2]),
            hilbert: hilbert(),
            sent: vec![0.0; 2 * HALF],
            analytic: vec![Complex::default(); delay],
            delay,
            at,
        }
    }

    /// Adds what arrives of `samples` to `heard`, [`HALF`] samples later; both have the same length.
    pub fn carry(&mut self, samples: &[f64], heard: &mut [f64]) {
        let Some(fading) = &self.fading else {
            // Nothing needs the phase: a delay is all the filter would do.
            self.sent.extend(samples);
            heard.iter_mut().zip(&self.sent[HALF..]).for_each(|(h, s)| *h += s);
            self.sent.drain(..samples.len());
            self.at += samples.len() as u64;
            return;
        };
        self.sent.extend(samples);
        for (i, h) in heard.iter_mut().enumerate().take(samples.len()) {
            let window = &self.sent[i..=i + 2 * HALF];
            // The filter has every second tap zero, and is odd.
            let im =
                (0..HALF).step_by(2).map(|k| self.hilbert[k] * (window[HALF - 1 - k] - window[HALF + 1 + k])).sum();
            self.analytic.push(Complex { re: window[HALF], im });
            let number = self.at / STEP;
            if self.gains.0 != number {
                self.gains = (number, [number * STEP, (number + 1) * STEP].map(|at| fading.gains(at)));
            }
            let share = (self.at % STEP) as f64 / STEP as f64;
            let [now, next] = &self.gains.1;
            let newest = self.analytic.len() - 1;
            for (tap, late) in [(0, 0), (1, self.delay)] {
                let (g, a) = (now[tap].between(next[tap], share), self.analytic[newest - late]);
                *h += g.re * a.re - g.im * a.im;
            }
            self.at += 1;
        }
        self.sent.drain(..samples.len());
        self.analytic.drain(..self.analytic.len() - self.delay);
    }
}

/// Taps 1, 3, 5, ... of the Hilbert transformer at index 0, 2, 4, ..., with a Hamming window.
fn hilbert() -> Vec<f64> {
    (0..HALF)
        .map(|k| {
            let m = (k + 1) as f64;
            let window = 0.54 + 0.46 * libm::cos(std::f64::consts::PI * m / HALF as f64);
            2.0 / (std::f64::consts::PI * m) * window
        })
        .collect()
}

/// What a receiver adds to what arrives: noise, and its converter.
#[derive(Debug)]
pub struct Receiver {
    draw: Stream,
    deviation: f64,
}

impl Receiver {
    /// A receiver at which a signal of this `power` has `snr_db` in 3 kHz. `None`: it adds nothing.
    pub fn new(seed: u64, name: &[u64], power: f64, snr_db: Option<f64>) -> Self {
        // The samples hold 4 kHz of noise.
        let noise = |db: f64| power * libm::pow(10.0, -db / 10.0) * (SAMPLE_RATE as f64 / 2.0) / 3000.0;
        let deviation = snr_db.map_or(0.0, |db| noise(db).sqrt());
        Self { draw: Stream::keyed(seed, "audio noise", name), deviation }
    }

    /// The samples the modem gets.
    pub fn convert<'r>(&'r mut self, heard: &'r [f64]) -> impl Iterator<Item = i16> + 'r {
        heard.iter().map(|h| {
            let level = (h + self.deviation * gaussian(&mut self.draw)) * GAIN;
            // Rounded and kept within the converter's range.
            libm::round(level.clamp(-32_767.0, 32_767.0)) as i16
        })
    }
}

/// A number of a standard normal distribution, by Box and Muller.
fn gaussian(draw: &mut Stream) -> f64 {
    let radius = (-2.0 * libm::log(1.0 - draw.unit())).sqrt();
    radius * libm::cos(std::f64::consts::TAU * draw.unit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, n: usize) -> Vec<f64> {
        (0..n).map(|i| 1000.0 * libm::cos(std::f64::consts::TAU * hz * i as f64 / SAMPLE_RATE as f64)).collect()
    }

    fn mean_power(samples: &[f64]) -> f64 {
        samples.iter().map(|s| s * s).sum::<f64>() / samples.len() as f64
    }

    #[test]
    fn a_path_that_does_not_fade_delays_and_changes_nothing() {
        let sent = tone(1500.0, 1000);
        let mut heard = vec![0.0; 1000];
        let mut path = AudioPath::new(None, 0);
        for (s, h) in sent.chunks(77).zip(heard.chunks_mut(77)) {
            path.carry(s, h);
        }
        assert_eq!(heard[HALF..], sent[..1000 - HALF]);
    }

    #[test]
    fn how_a_signal_is_cut_up_changes_nothing() {
        let sent = tone(1200.0, 4000);
        let carry = |piece: usize| {
            let mut path = AudioPath::new(Some(Fading::new(1, &[7], SPREADS[1])), 123);
            let mut heard = vec![0.0; sent.len()];
            sent.chunks(piece).zip(heard.chunks_mut(piece)).for_each(|(s, h)| path.carry(s, h));
            heard
        };
        assert_eq!(carry(4000), carry(33));
    }

    #[test]
    fn two_paths_bring_the_power_one_would_and_fade_as_their_doppler_says() {
        // Many fades of one instant each: the ensemble, not one long walk.
        let n = 4000;
        let fades: Vec<Fading> = (0..n).map(|i| Fading::new(1, &[i], SPREADS[1])).collect();
        let power = fades.iter().map(|f| f.gains(0).map(Complex::power).iter().sum::<f64>()).sum::<f64>() / n as f64;
        // The sum of two equal Rayleigh powers has a standard deviation of 0.71.
        assert!((power - 1.0).abs() < 4.0 * 0.71 / (n as f64).sqrt(), "{power}");
        // exp(-(pi D t)^2 / 2) at t = 0.375 / D is one half.
        let later = (0.375 * SAMPLE_RATE as f64) as u64;
        let correlation = fades
            .iter()
            .map(|f| {
                let (a, b) = (f.gains(0)[0], f.gains(later)[0]);
                a.re * b.re + a.im * b.im
            })
            .sum::<f64>()
            / (0.5 * n as f64);
        assert!((correlation - 0.5).abs() < 0.06, "{correlation}");
    }

    #[test]
    fn the_filter_shifts_a_tone_by_a_quarter() {
        // One path alone with gain j turns a cosine into a sine of the same power, within the band modems use.
        for hz in [400.0, 1500.0, 2700.0] {
            let mut path =
                AudioPath::new(Some(Fading::new(1, &[], Spread { name: "still", doppler: 0.0, delay: 0.0 })), 0);
            let sent = tone(hz, 4000);
            let mut heard = vec![0.0; 4000];
            path.carry(&sent, &mut heard);
            let gain = Fading::new(1, &[], Spread { name: "still", doppler: 0.0, delay: 0.0 }).gains(0);
            let sum = Complex { re: gain[0].re + gain[1].re, im: gain[0].im + gain[1].im };
            let (got, due) = (mean_power(&heard[800..3200]), sum.power() * mean_power(&sent[800..3200]));
            assert!((got / due - 1.0).abs() < 0.02, "{hz} Hz: {got} for {due}");
        }
    }

    #[test]
    fn noise_has_the_stated_level_in_three_kilohertz() {
        let mut receiver = Receiver::new(1, &[1], 2e6, Some(3.0));
        let silence = vec![0.0; 200_000];
        let noise: Vec<f64> = receiver.convert(&silence).map(|s| f64::from(s) / GAIN).collect();
        let in_3_khz = mean_power(&noise) * 3000.0 / 4000.0;
        let db = 10.0 * libm::log10(2e6 / in_3_khz);
        assert!((db - 3.0).abs() < 0.1, "{db}");
    }
}
