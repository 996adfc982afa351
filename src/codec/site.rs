//! A site's own dictionary: text that both operators loaded, read behind dictionary 3, or 2 for older peers.
//!
//! `aldis codec train` makes one; the profile names it, and the switch lends it to the encoder for peers that are said to have it too
//! (docs/profile/codec.md). The model that has read it is kept, so that no message waits for that.

use std::fmt;
use std::sync::OnceLock;

use ring::digest::{SHA256, digest};

use super::mixing::{mail, text};

/// Largest file taken.
pub const MOST_BYTES: usize = 256 * 1024;

/// A dictionary, and the models that have read it once they were needed.
pub struct SiteDictionary {
    bytes: Vec<u8>,
    mail: OnceLock<mail::Model>,
    text: OnceLock<text::Model>,
}

impl SiteDictionary {
    /// One of these bytes; `None` where there are none, or too many.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (1..=MOST_BYTES).contains(&bytes.len()).then_some(Self { bytes, mail: OnceLock::new(), text: OnceLock::new() })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The mail model that has read it, behind what `before` has read.
    pub(super) fn behind_mail(&self, before: &mail::Model) -> &mail::Model {
        self.mail.get_or_init(|| {
            let mut model = before.clone();
            model.read_on(&self.bytes);
            model
        })
    }

    /// The text model that has read it, behind what `before` has read.
    pub(super) fn behind(&self, before: &text::Model) -> &text::Model {
        self.text.get_or_init(|| {
            let mut model = before.clone();
            model.read_on(&self.bytes);
            model
        })
    }
}

impl PartialEq for SiteDictionary {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for SiteDictionary {}

impl fmt::Debug for SiteDictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = data_encoding::HEXLOWER.encode(digest(&SHA256, &self.bytes).as_ref());
        write!(f, "SiteDictionary {{ {} bytes, {name} }}", self.bytes.len())
    }
}
