//! A site's own dictionary: text that both operators loaded, read behind dictionary 2.
//!
//! `aldis codec train` makes one; the profile names it, and the switch lends it to the encoder for peers that are said to have it too
//! (docs/profile/codec.md). The model that has read it is kept, so that no message waits for that.

use std::fmt;
use std::sync::OnceLock;

use ring::digest::{SHA256, digest};

use super::mixing::text::Model;

/// Largest file taken.
pub const MOST_BYTES: usize = 256 * 1024;

/// A dictionary, and the model that has read it once it was needed.
pub struct SiteDictionary {
    bytes: Vec<u8>,
    read: OnceLock<Model>,
}

impl SiteDictionary {
    /// One of these bytes; `None` where there are none, or too many.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (1..=MOST_BYTES).contains(&bytes.len()).then_some(Self { bytes, read: OnceLock::new() })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The model that has read it, behind what `before` has read.
    pub(super) fn behind(&self, before: &Model) -> &Model {
        self.read.get_or_init(|| {
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
