//! MULE (RFC 8494): internet mail as one P_MUL message. The envelope as text, the content as it is, zlib around both, and the
//! CompressedData structure of STANAG 4406 Annex E around that.
//!
//! A bearer that speaks P_MUL to foreign systems carries what [`encode`] makes and hands what it heard to [`decode`]. Pure functions;
//! what a payload may unfold to is bounded before it is, and every payload that cannot be opened says why ([`MuleError`]).
//! `docs/mule.md` describes the format.

pub mod bsmtp;
pub mod compressed;

use core::fmt;

pub use bsmtp::{Addressee, BsmtpError, Letter};
pub use compressed::{CompressedError, Tagging};

use crate::mail::MtPriority;

/// A letter and its content, unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The envelope.
    pub letter: Letter,
    /// RFC 5322 or MIME octets.
    pub content: Vec<u8>,
    /// Octets behind the structure or the zlib stream, which mean nothing.
    pub junk: usize,
}

/// Why a payload cannot be made or opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MuleError {
    /// The structure or the zlib stream.
    Compressed(CompressedError),
    /// The text of the envelope.
    Bsmtp(BsmtpError),
    /// The structure holds something else than mail, such as X.400: its content type.
    ContentType(u64),
}

impl MuleError {
    /// The name of its counter.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Compressed(error) => error.name(),
            Self::Bsmtp(error) => error.name(),
            Self::ContentType(_) => "content_type",
        }
    }
}

impl fmt::Display for MuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compressed(error) => error.fmt(f),
            Self::Bsmtp(error) => error.fmt(f),
            Self::ContentType(kind) => write!(f, "content type {kind} is not mail (25)"),
        }
    }
}

impl std::error::Error for MuleError {}

/// Content type of MULE.
pub const CONTENT_TYPE: u8 = 25;

/// Makes the payload of a letter.
pub fn encode(letter: &Letter, content: &[u8], tagging: Tagging) -> Result<Vec<u8>, MuleError> {
    let mut text = letter.write().map_err(MuleError::Bsmtp)?;
    text.extend(content);
    Ok(compressed::wrap(CONTENT_TYPE, &compressed::deflate(&text), tagging))
}

/// Opens a payload that unfolds to at most `max_bytes`, envelope included.
pub fn decode(payload: &[u8], max_bytes: usize) -> Result<Opened, MuleError> {
    let wrapped = compressed::unwrap(payload).map_err(MuleError::Compressed)?;
    if wrapped.content_type != u64::from(CONTENT_TYPE) {
        return Err(MuleError::ContentType(wrapped.content_type));
    }
    let (mut text, behind) = compressed::inflate(&wrapped.content, max_bytes).map_err(MuleError::Compressed)?;
    let (letter, length) = Letter::read(&text).map_err(MuleError::Bsmtp)?;
    text.drain(..length);
    Ok(Opened { letter, content: text, junk: wrapped.junk + behind })
}

/// The P_MUL priority of a message: 0 is the most urgent. One that states none is at 0 of RFC 6710.
pub fn pmul_priority(stated: Option<MtPriority>) -> u8 {
    u8::try_from(6 - stated.map_or(0, MtPriority::get)).unwrap_or(0)
}

/// The MT-PRIORITY a P_MUL priority stands for.
pub fn mt_priority(pmul_priority: u8) -> MtPriority {
    let value = (6 - i16::from(pmul_priority)).max(-9);
    i8::try_from(value).ok().and_then(MtPriority::new).expect("from -9 to 6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_those_of_rfc_8494_section_4() {
        for (stated, octet) in [(6, 0), (4, 2), (2, 4), (0, 6), (-2, 8), (-4, 10), (-9, 15)] {
            let stated = MtPriority::new(stated).expect("in range");
            assert_eq!(pmul_priority(Some(stated)), octet);
            assert_eq!(mt_priority(octet), stated);
        }
        assert_eq!(pmul_priority(MtPriority::new(9)), 0);
        assert_eq!(pmul_priority(None), 6);
        assert_eq!(mt_priority(255).get(), -9);
    }
}
