//! The work itself, as plain functions: `node/` calls them on its pool, the simulator inline.

use crate::bearer::{self, fec};
use crate::codec::envelope::AirEnvelope;
use crate::codec::{self, payload};
use crate::queue::Disk;
use crate::queue::maildir::{self as mailbox, DeliverError};
use crate::security;

use super::io::{Decode, Encode, Local, OpenError, Opened, WorkResult};

/// Encodes and seals a payload.
pub fn encode(encode: &Encode) -> WorkResult {
    encode_by(encode, |envelope, body| payload::encode(envelope, body, &payload::Options::for_any_peer()))
}

/// The same where `code` makes the payload of an envelope and a body: the laboratory remembers those it has made.
pub fn encode_by(encode: &Encode, code: impl FnOnce(&[u8], &[u8]) -> Vec<u8>) -> WorkResult {
    let envelope = codec::envelope::encode(&encode.envelope).map_err(|e| e.to_string());
    let seal = |payload| security::seal(encode.protection, &encode.key, &encode.id, payload);
    WorkResult::Encoded(envelope.map(|envelope| seal(code(&envelope, &encode.body))))
}

/// Opens and decodes a payload.
pub fn decode(decode: &Decode) -> WorkResult {
    decode_by(decode, |payload, max_bytes| payload::decode(payload, max_bytes, &payload::Options::default()))
}

/// The same where `read` takes envelope and body, of a size of at most its second argument, out of a payload.
pub fn decode_by(decode: &Decode, read: impl FnOnce(&[u8], usize) -> Parted) -> WorkResult {
    WorkResult::Decoded(decoded(decode, read).map(Box::new))
}

/// An envelope and a body out of a payload.
pub type Parted = Result<(Vec<u8>, Vec<u8>), payload::DecodeError>;

fn decoded(decode: &Decode, read: impl FnOnce(&[u8], usize) -> Parted) -> Result<Opened, OpenError> {
    let payload =
        security::open(decode.protection, &decode.keys, &decode.id, &decode.payload).map_err(|_| OpenError::Forged)?;
    let cannot = |why: String| OpenError::Undecodable(why);
    let max_bytes = usize::try_from(decode.max_bytes).unwrap_or(usize::MAX);
    let (envelope, body) = read(&payload, max_bytes).map_err(|e| cannot(e.to_string()))?;
    let envelope: AirEnvelope = codec::envelope::decode(&envelope).map_err(|e| cannot(e.to_string()))?;
    #[cfg(feature = "mutations")]
    let body = match crate::mutation::is(crate::mutation::Mutation::CutShort) {
        true => body[..body.len().saturating_sub(1)].to_vec(),
        false => body,
    };
    Ok(Opened { envelope, body })
}

/// Spreads or gathers symbols.
pub fn job(job: bearer::Job) -> WorkResult {
    WorkResult::Job(fec::run(job))
}

/// Delivers into Maildirs; each mailbox has its own result.
pub fn maildir(disk: &dyn Disk, local: &Local) -> WorkResult {
    let deliver = |(name, delivered_to): &(String, String)| {
        let head = format!("Return-Path: <{}>\r\nDelivered-To: {delivered_to}\r\n", local.return_path);
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::DeliverTwice) {
            mailbox::deliver(disk, name, &format!("{}.2", local.unique), head.as_bytes(), &local.body)?;
        }
        mailbox::deliver(disk, name, &local.unique, head.as_bytes(), &local.body).map(drop)
    };
    WorkResult::Maildir(local.mailboxes.iter().map(deliver).collect())
}

/// The result when the Maildirs' disk cannot be reached at all.
pub fn maildir_unavailable(local: &Local, why: &str) -> WorkResult {
    WorkResult::Maildir(
        local.mailboxes.iter().map(|_| Err(DeliverError::Disk(std::io::Error::other(why.to_owned())))).collect(),
    )
}
