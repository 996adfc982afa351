//! Keys that peers share.

use core::fmt;

use serde::{Deserialize, Serialize};

/// How frames and payloads to a peer are protected (link-rules C1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// CRC only: anyone can forge.
    Off,
    /// Authenticated, in clear.
    Mac,
    /// Authenticated and encrypted.
    Aead,
}

/// One shared key. Up to two are valid at once; frames name them by `id` (link-rules C2).
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey {
    /// Number carried in frames, 0..=3.
    pub id: u8,
    /// The secret.
    pub secret: [u8; 32],
}

impl LinkKey {
    /// Whether two peers can be spoken to at once: protected alike, and by the same first key.
    pub fn together(a: Protection, a_keys: &[Self], b: Protection, b_keys: &[Self]) -> bool {
        (a, a_keys.first()) == (b, b_keys.first())
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Mac => "mac",
            Self::Aead => "aead",
        })
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkKey {{ id: {} }}", self.id)
    }
}
