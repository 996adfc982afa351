//! Named two-path channels. A name stands for two numbers and nothing else: level, wander and gates are always stated.
//!
//! Public simulators give different numbers to the same names (`docs/sim-channel.md`), so reports print the numbers.

use aldis::time::Duration;

use super::Fading;

/// A named pair of delay and Doppler spread.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Preset {
    /// Its name in a scenario.
    pub name: &'static str,
    /// Delay between the paths in microseconds.
    pub delay_us: u64,
    /// Doppler spread, two sigma, Hz; 0 for a single steady path.
    pub doppler_hz: f64,
    /// Whose name it is.
    pub origin: &'static str,
}

const fn f1487(name: &'static str, delay_us: u64, doppler_hz: f64) -> Preset {
    Preset { name, delay_us, doppler_hz, origin: "ITU-R F.1487" }
}

const fn ccir(name: &'static str, delay_us: u64, doppler_hz: f64) -> Preset {
    Preset { name, delay_us, doppler_hz, origin: "CCIR 520" }
}

/// Every preset.
#[rustfmt::skip]
pub const PRESETS: &[Preset] = &[
    f1487("low-latitude-quiet", 500, 0.5), f1487("low-latitude-moderate", 2000, 1.5), f1487("low-latitude-disturbed", 6000, 10.0),
    f1487("mid-latitude-quiet", 500, 0.1), f1487("mid-latitude-moderate", 1000, 0.5), f1487("mid-latitude-disturbed", 2000, 1.0),
    f1487("mid-latitude-nvis", 7000, 1.0),
    f1487("high-latitude-quiet", 1000, 0.5), f1487("high-latitude-moderate", 3000, 10.0), f1487("high-latitude-disturbed", 7000, 30.0),
    ccir("ccir-good", 500, 0.1), ccir("ccir-moderate", 1000, 0.5), ccir("ccir-poor", 2000, 1.0), ccir("ccir-flutter", 500, 10.0),
    Preset { name: "ground-wave", delay_us: 0, doppler_hz: 0.0, origin: "one steady path" },
];

impl Preset {
    /// The preset of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|p| p.name == name)
    }

    /// Its fading; none for a steady path.
    pub fn fading(&self) -> Option<Fading> {
        (self.doppler_hz > 0.0)
            .then(|| Fading { delay: Duration::from_micros(self.delay_us), doppler_hz: self.doppler_hz })
    }
}
