//! What a run leaves for people to look at: a summary, a capture for Wireshark, a page with pictures, a bar while it runs.
//!
//! [`Chronicle`] gathers a finished run into plain values; [`pcapng`] and [`report`] only draw them. `docs/sim-output.md` describes
//! every output. Called by `aldis-sim run`.

mod chronicle;
mod frames;
pub mod pcapng;
mod progress;
pub mod report;
pub mod summary;

pub use chronicle::{Chronicle, KeyDown, Kind, Mishap, Station, What};
pub use frames::{Content, Piece};
pub use progress::Progress;
