//! ACP 142 P_MUL: messages to many receivers by datagrams that are multicast once and repeated only where they are missed.
//!
//! Sans-IO: no socket, no clock. Wire format: `docs/wire-pmul.md`. What a message holds is the caller's affair; MULE (RFC 8494) is one of
//! the codecs.

pub mod checksum;
pub mod missing;
pub mod wire;

pub use checksum::Checksum;
pub use missing::{Missing, Ranges};
pub use wire::{Ack, AckEntry, Address, Destination, Fec, GroupWord, MessageKey, NodeId, Part, Pdu, PduError};
