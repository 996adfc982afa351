//! The laboratory of Aldis: simulated modems, channels, disks and clocks around the real switch.

pub mod disk;
pub mod rng;
