//! What people and programs outside see of a node: events, requests over the control socket, documents, the command line.
//!
//! `ops` only observes and asks: a console must never hold the switch up. The node answers a [`Request`] with a [`Response`]
//! on its control socket, one JSON line each way; the same documents are what `--json` prints (docs/json.md).

pub mod cli;
pub mod client;
mod codec;
mod dkim;
pub mod document;
mod event;
mod password;
mod print;
pub mod read;
mod request;
mod route;

pub use event::{Counters, Event, EventKind};
pub use request::{BearerChoice, EmconWord, Request, Response};
