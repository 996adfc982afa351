//! Aldis: a mail switch for radio and satcom.
//!
//! # The run loop
//!
//! Every core (SMTP session, link, gate, switch) obeys one contract: mutate it once with a `handle_*` call that carries the time,
//! drain its `poll_*` outputs until `None`, then sleep until `next_timeout()` or the next input. A core does no I/O, reads no clock,
//! spawns nothing; a call that comes too early does nothing; duplicates and reordering are normal input.
//!
//! # The house
//!
//! ```text
//! mail, time, units                                nouns
//!    ^        ^
//! codec  emcon  security  smtp  bearer  route      peers; none imports another (bearer takes emcon's AirPermit)
//!    ^
//! queue                                            custody; owns redb
//!    ^
//! switch                                           composes all of the above; no tokio, sockets, threads
//!    ^            ^
//! node          sim                                two drivers of one switch: real and virtual
//! ```
//!
//! `docs/design.md` walks one message through it.

pub mod bearer;
pub mod codec;
pub mod config;
pub mod emcon;
pub mod mail;
#[cfg(feature = "mutations")]
pub mod mutation;
pub mod node;
pub mod ops;
pub mod queue;
pub mod route;
pub mod security;
pub mod smtp;
pub mod switch;
pub mod time;
pub mod units;
