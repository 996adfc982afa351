//! Names of things that live longer than one call.

use core::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A queued message at this node: a persisted counter, never reused by one store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MessageId(pub u64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl MessageId {
    /// Reads what `Display` prints.
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= 16).then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }
}

/// An immutable stored body. An edit makes a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BodyRef(pub u64);

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub struct $type(pub Arc<str>);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
    };
}

name!(
    /// A neighbouring Aldis node, as the profile names it.
    PeerName
);
name!(
    /// A bearer of this node, as the profile names it.
    BearerId
);

/// One transfer over the air (link-rules A2): origin, the origin's random store epoch, a persisted counter.
/// Never a content hash: an identical message sent again is a new transfer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TransferId {
    /// The node that froze the payload.
    pub origin: PeerName,
    /// That node's store epoch.
    pub epoch: u32,
    /// Its counter in that epoch.
    pub counter: u32,
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}/{}", self.origin, self.epoch, self.counter)
    }
}

/// Into what a payload is cut: chosen when it is frozen, for good, by what fills the frames of the bearer that takes it first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum Cut {
    /// Symbols of 31, 62 or 248 bytes.
    #[default]
    Narrow,
    /// Symbols of 33, 66 or 264 bytes.
    Wide,
}

/// What the reading of a payload relies on: fixed when it is frozen, and lessened where the peer could not read it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum Reliance {
    /// What every node reads.
    #[default]
    Nothing,
    /// What the peer said that it reads.
    Word,
    /// Messages that both ends hold, too.
    History,
    /// The dictionary that both operators loaded, too.
    Site,
}

impl Cut {
    /// Bytes of the smallest symbol.
    pub fn unit(self) -> usize {
        match self {
            Self::Narrow => 31,
            Self::Wide => 33,
        }
    }

    /// The cut of which a frame that has `room` bytes for symbols carries most.
    pub fn for_room(room: usize) -> Self {
        let full = |cut: Self| room / cut.unit() * cut.unit();
        if full(Self::Wide) > full(Self::Narrow) { Self::Wide } else { Self::Narrow }
    }
}
