//! Packet bearers: satellite channels and the like, on which nodes exchange datagrams to one another and to groups.
//!
//! [`PacketNet`] is one such bearer, sans-IO and clockless as the [`ether`](crate::ether) is for radios. [`play`] drives it in virtual
//! time between the sources and sinks of a scenario; [`udp`] paces it by the machine's clock between loopback sockets, so that foreign
//! software can talk through it. `docs/sim-scenario.md` says how a scenario describes one.

mod config;
mod loss;
mod net;
mod play;
mod preset;
mod transmitter;
pub mod udp;

pub use config::{Change, Destination, Group, MemberConfig, NetConfig, NodeId, PathConfig, PathState};
pub use loss::{DatagramLoss, Fade};
pub use net::{Count, Delivered, PacketNet, PathStats};
pub use play::{Played, SatcomLine, play};
pub use preset::{PRESETS, Preset};
