//! Aldis mode over IP multicast: one message to many nodes, repaired by parity instead of by name (`docs/wire-multicast.md`).
//!
//! The symbols are those of every bearer ([`super::fec`], link-rules D2, C3). Every datagram is authentic, and one that is not changes
//! nothing and is answered by nothing. The sender never waits for a round to end: it sends on while somebody probably lacks something, by what
//! the last words said and what is lost, and stops when all have probably enough. Sans-IO and without a clock.

pub mod outgoing;
pub mod station;
pub mod wire;

mod incoming;
mod keep;
#[cfg(test)]
mod net;

pub use station::{Config, Counts, Destination, Outgoing, PeerConfig, Station, Transmit};
