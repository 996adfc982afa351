//! Messages to air payloads and back.
//!
//! [`envelope`] codes what SMTP says about a message, [`payload`] compresses it together with the body. Both are pure functions of
//! their inputs (link-rules A1), run off the switch thread (D3), and are described byte by byte in `docs/codec.md`.

pub mod dictionary;
pub mod envelope;
pub mod explain;
pub mod history;
pub mod mixing;
pub mod mule;
mod parts;
pub mod payload;
pub mod receipts;
pub mod reduce;
pub mod repertoire;
pub mod site;
pub mod train;
mod varint;

use payload::{DecodeError, Options};

/// What `aldis codec encode` writes: the exact link payload of a body without an envelope.
pub fn encode_file_payload(body: &[u8], options: &Options<'_>) -> Vec<u8> {
    payload::encode(&[], body, options)
}

/// What `aldis codec decode` writes: the body of a payload, with or without an envelope.
pub fn decode_file_payload(payload: &[u8], max_bytes: usize, options: &Options<'_>) -> Result<Vec<u8>, DecodeError> {
    payload::decode(payload, max_bytes, options).map(|(_, body)| body)
}
