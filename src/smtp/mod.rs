//! SMTP on both sides of the switch: what a LAN client says to us, and what we say to the next hop.
//!
//! Sans-IO: [`server::Session`] and [`client::Session`] eat bytes and the time, and yield bytes, events and a deadline. A
//! connection's task (or the simulator's world) drives them. They implement RFC 5321 with PIPELINING (2920), 8BITMIME (6152),
//! SMTPUTF8 (6531), SIZE (1870), ENHANCEDSTATUSCODES (2034), DSN (3461), CHUNKING and BINARYMIME (3030), STARTTLS (3207),
//! AUTH (4954) by PLAIN (4616), SCRAM-SHA-256 (7677, 9266) and EXTERNAL (4422), MT-PRIORITY (6710, 6758), DELIVERBY (2852),
//! FUTURERELEASE (4865), LIMITS (9422), MTRK (3885, no MTQP), REQUIRETLS and TLS-Required (8689), BURL with URLAUTH (4468, 4467; server) and LMTP (2033).

pub mod burl;
pub mod client;
pub mod command;
pub mod data;
pub mod header;
pub mod hosts;
pub mod mx;
pub mod policy;
pub mod rate;
pub mod reply;
pub mod scram;
pub mod server;
pub mod seven_bit;
pub mod submission;
pub mod trace;
pub mod urlfetch;

pub use policy::{Budget, Kind, Peer, Policy};
pub use reply::Reply;
