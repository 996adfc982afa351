//! ACP 142 P_MUL: messages to many receivers by datagrams that are multicast once and repeated only where they are missed.
//!
//! A [`Station`] is one node on one link, both halves of it. Sans-IO: no socket, no clock. Wire format: `docs/wire-pmul.md`. What a message holds is the caller's affair; MULE (RFC 8494) is one of
//! the codecs.

pub mod checksum;
mod groups;
pub mod missing;
mod receiver;
mod sender;
mod station;
pub(in crate::bearer) mod timers;
pub mod wire;

pub use checksum::Checksum;
pub use groups::Dynamic;
pub use missing::{Missing, Ranges};
pub use sender::{Outgoing, SubmitError, Way};
pub use station::{Config, Counts, EntrySource, Event, Leave, Limits, Next, Peer, Port, Station, Transmit, Verdict};
pub use timers::{Pacer, Timers};
pub use wire::{Ack, AckEntry, Address, Destination, Fec, GroupWord, MessageKey, NodeId, Part, Pdu, PduError};
