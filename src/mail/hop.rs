//! Where a recipient's copy goes next.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::PeerName;

/// One next step for a recipient, as the route table chose it. Recomputed, never stored with the message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Hop {
    /// A mailbox on this node (Maildir).
    Local,
    /// An SMTP next hop, `host:port`.
    Smtp(String),
    /// An LMTP server: a Unix socket path or `host:port`.
    Lmtp(String),
    /// A neighbouring Aldis node over the air.
    Peer(PeerName),
    /// Kept until an operator says otherwise.
    Hold,
    /// This node itself: it is asked for a part of a message that went reduced.
    Fetch,
    /// An SMTP next hop that the profile describes under this name.
    Smarthost(String),
}

impl fmt::Display for Hop {
    /// As a profile writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Smtp(to) => write!(f, "smtp:{to}"),
            Self::Lmtp(to) => write!(f, "lmtp:{to}"),
            Self::Peer(peer) => write!(f, "peer:{peer}"),
            Self::Hold => f.write_str("hold"),
            Self::Fetch => f.write_str("fetch"),
            Self::Smarthost(name) => write!(f, "smarthost:{name}"),
        }
    }
}
