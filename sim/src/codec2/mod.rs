//! A modem nobody here wrote: FreeDV's raw-data modes out of libcodec2, sample by sample over an audio channel.
//!
//! It answers two questions about the rest of the laboratory. Does the block model of a waveform foretell what a real modem loses on
//! a fading path ([`sweep`])? And does mail cross a real waveform through the same ports ([`air`], for `aldis-sim bridge`)? The
//! library is looked for when one of them is asked, and nothing else needs it. `docs/codec2.md` has the figures.

pub mod air;
pub mod audio;
mod fit;
mod library;
pub mod modem;
mod plot;
pub mod predict;
pub mod sweep;

pub use library::available;
