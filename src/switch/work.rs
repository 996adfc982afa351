//! The work itself, as plain functions: `node/` calls them on its pool, the simulator inline.

use std::sync::Arc;

use crate::bearer::{self, fec};
use crate::codec::envelope::AirEnvelope;
use crate::codec::history::{self, History, Kept, Name};
use crate::codec::payload::{Choice, DecodeError, Options};
use crate::codec::{self, mule, payload, receipts, reduce};
use crate::mail::Reliance;
use crate::queue::Disk;
use crate::queue::maildir::{self as mailbox, DeliverError};
use crate::security;
use crate::smtp::seven_bit;

use super::io::{
    Coded, Decode, Encode, Fetch, Local, LocalMailbox, MuleDecode, MuleEncode, Omission, OpenError, Opened, WorkResult,
};

/// Encodes and seals a payload.
pub fn encode(encode: &Encode) -> WorkResult {
    encode_by(encode, payload::encode)
}

/// The same where `code` makes the payload of an envelope and a body: the laboratory remembers those it has made.
pub fn encode_by(encode: &Encode, code: impl FnOnce(&[u8], &[u8], &Options<'_>) -> Vec<u8>) -> WorkResult {
    let envelope = match codec::envelope::encode(&encode.envelope) {
        Ok(envelope) => envelope,
        Err(error) => return WorkResult::Encoded(Err(error.to_string())),
    };
    let reduced = encode.reduction.as_ref().and_then(|r| reduce::reduce(&encode.body, &r.rule, &r.by));
    let omission = reduced.as_ref().map(|r| Omission {
        from_bytes: encode.body.len() as u64,
        to_bytes: r.message.len() as u64,
        without: r.omitted.to_string(),
    });
    let body: &[u8] = reduced.as_ref().map_or(&encode.body, |r| &r.message);
    let known = kept(&encode.known);
    let texts: Vec<&[u8]> = known.iter().map(|k| k.text).collect();
    let named: Vec<Kept<'_>> = history::choose(body, &texts).into_iter().map(|i| known[i]).collect();
    let mut options = Options { history: History::Link(&named), ..Options::for_peer(encode.repertoire) };
    if let Some(site) = &encode.site {
        options.dictionary = encode.repertoire.behind(site);
    }
    let payload = code(&envelope, body, &options);
    WorkResult::Encoded(Ok(Box::new(Coded {
        payload: security::seal(encode.protection, &encode.key, &encode.id, payload),
        reliance: match () {
            () if encode.site.is_some() => Reliance::Site,
            () if named.is_empty() => encode.repertoire.reliance(),
            () => Reliance::History,
        },
        text: text(encode.keeps_text, body),
        omission,
    })))
}

fn kept(known: &[(Name, Arc<[u8]>)]) -> Vec<Kept<'_>> {
    known.iter().map(|(name, text)| Kept { name: *name, text }).collect()
}

fn text(wanted: bool, body: &[u8]) -> Arc<[u8]> {
    if wanted { history::text_of(body).into() } else { Arc::default() }
}

/// Opens and decodes a payload.
pub fn decode(decode: &Decode) -> WorkResult {
    decode_by(decode, payload::decode)
}

/// The same where `read` takes envelope and body, of a size of at most its second argument, out of a payload.
pub fn decode_by(decode: &Decode, read: impl FnOnce(&[u8], usize, &Options<'_>) -> Parted) -> WorkResult {
    let opened = security::open(decode.protection, &decode.keys, &decode.id, &decode.payload);
    let payload = match opened {
        Ok(payload) => payload,
        Err(_) => return WorkResult::Decoded(Err(OpenError::Forged)),
    };
    if receipts::is_digest(&payload) {
        return match receipts::decode(&payload) {
            Ok(digest) => WorkResult::Receipts(digest),
            Err(error) => WorkResult::Decoded(Err(OpenError::Undecodable(error.to_string()))),
        };
    }
    WorkResult::Decoded(decoded(decode, &payload, read).map(Box::new))
}

/// An envelope and a body out of a payload.
pub type Parted = Result<(Vec<u8>, Vec<u8>), DecodeError>;

fn decoded(
    decode: &Decode,
    payload: &[u8],
    read: impl FnOnce(&[u8], usize, &Options<'_>) -> Parted,
) -> Result<Opened, OpenError> {
    let cannot = |why: String| OpenError::Undecodable(why);
    let max_bytes = usize::try_from(decode.max_bytes).unwrap_or(usize::MAX);
    let known = kept(&decode.known);
    let mut options = Options { history: History::Link(&known), ..Options::default() };
    if let Some(site) = &decode.site {
        options.dictionary = Choice::Site(site);
    }
    let (envelope, body) = read(payload, max_bytes, &options).map_err(|e| match e {
        DecodeError::OtherReference => OpenError::OtherContext,
        DecodeError::OtherDictionary => OpenError::OtherDictionary,
        error => cannot(error.to_string()),
    })?;
    let envelope: AirEnvelope = codec::envelope::decode(&envelope).map_err(|e| cannot(e.to_string()))?;
    #[cfg(feature = "mutations")]
    let body = match crate::mutation::is(crate::mutation::Mutation::CutShort) {
        true => body[..body.len().saturating_sub(1)].to_vec(),
        false => body,
    };
    let text = text(decode.keeps_text, &body);
    Ok(Opened { envelope, body, text })
}

/// Makes a MULE payload.
pub fn mule_encode(encode: &MuleEncode) -> WorkResult {
    let letter = mule::Letter::of(&encode.envelope, encode.body.len() as u64, encode.now);
    let payload = letter
        .map_err(|e| e.to_string())
        .and_then(|letter| mule::encode(&letter, &encode.body, encode.tagging).map_err(|e| e.to_string()));
    WorkResult::Mule(payload)
}

/// Opens a MULE payload.
pub fn mule_decode(decode: &MuleDecode) -> WorkResult {
    let max_bytes = usize::try_from(decode.max_bytes).unwrap_or(usize::MAX);
    WorkResult::MuleOpened(mule::decode(&decode.payload, max_bytes).map(Box::new))
}

/// Makes a message of a part of one.
pub fn fetch(fetch: &Fetch) -> WorkResult {
    let Fetch { body, part, sender, message_id, at } = fetch;
    WorkResult::Fetched(reduce::fetch(&reduce::Original { message: body, sender, message_id, at: *at }, *part))
}

/// Spreads or gathers symbols.
pub fn job(job: bearer::Job) -> WorkResult {
    WorkResult::Job(fec::run(job))
}

/// Delivers into Maildirs; each mailbox has its own result. Readers of Maildir know lines, so binary mail is given them; what a
/// signature covers stays as it is.
pub fn maildir(disk: &dyn Disk, local: &Local) -> WorkResult {
    let lines = if local.binary { seven_bit::without_binary(&local.body, true).ok() } else { None };
    let body = lines.as_deref().unwrap_or(&local.body);
    let deliver = |LocalMailbox { name, delivered_to, original }: &LocalMailbox| {
        let head = format!("Return-Path: <{}>\r\nDelivered-To: {delivered_to}\r\n{original}", local.return_path);
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::DeliverTwice) {
            mailbox::deliver(disk, name, &format!("{}.2", local.unique), head.as_bytes(), body)?;
        }
        mailbox::deliver(disk, name, &local.unique, head.as_bytes(), body).map(drop)
    };
    WorkResult::Maildir(local.mailboxes.iter().map(deliver).collect())
}

/// The result when the Maildirs' disk cannot be reached at all.
pub fn maildir_unavailable(local: &Local, why: &str) -> WorkResult {
    WorkResult::Maildir(
        local.mailboxes.iter().map(|_| Err(DeliverError::Disk(std::io::Error::other(why.to_owned())))).collect(),
    )
}
