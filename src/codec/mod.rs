//! Messages to air payloads and back.
//!
//! [`envelope`] codes what SMTP says about a message, [`payload`] compresses it together with the body. Both are pure functions of
//! their inputs (link-rules A1), run off the switch thread (D3), and are described byte by byte in `docs/codec.md`.

pub mod envelope;
mod varint;
