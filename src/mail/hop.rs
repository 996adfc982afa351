//! Where a recipient's copy goes next.

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
}
