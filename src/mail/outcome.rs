//! What became of one recipient.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::BearerId;
use crate::time::Wall;

/// RFC 3463 enhanced status code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Status(pub u8, pub u16, pub u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A final outcome (link-rules A4): exactly one per recipient, save the one transition
/// unconfirmed -> delivered when a late acknowledgement arrives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The next hop, or the local mailbox, took responsibility.
    Delivered {
        /// Who took it, for the DSN: `dns; host` without the type.
        by: String,
        /// True when the next hop will send further DSNs itself.
        dsn_passed_on: bool,
        /// True for a local mailbox (DSN action "delivered"), false for a relay ("relayed").
        is_final: bool,
    },
    /// Permanently refused.
    Failed {
        /// Why.
        status: Status,
        /// The other side's words, or ours.
        diagnostic: String,
    },
    /// Its lifetime ended first.
    Expired,
    /// An operator cancelled it.
    Cancelled,
    /// Sent blind; nobody could confirm in time.
    Unconfirmed,
}

/// What one recipient is waiting for, or what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RecipientState {
    /// To be tried at `next_at`.
    Due {
        /// Not before this time.
        next_at: Wall,
    },
    /// Frozen for the air and handed to a bearer; stays with that transfer until an outcome.
    OnAir {
        /// Which bearer carries it.
        bearer: BearerId,
    },
    /// Kept until an operator releases it.
    Held {
        /// What the operator is told.
        why: String,
    },
    /// Done.
    Final {
        /// What became of it.
        outcome: Outcome,
        /// When.
        at: Wall,
    },
}

impl RecipientState {
    /// Whether nothing more will happen to this recipient.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Final { .. })
    }
}
