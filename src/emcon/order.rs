//! Orders: what an operator or a plan said about one bearer's transmitter, with reason, author and times.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::mail::Precedence;
use crate::time::Wall;

/// A bearer's transmit state. It always receives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum State {
    /// May key for anything.
    Open,
    /// May key for traffic of at least this precedence, and for its acknowledgements.
    Restricted(Precedence),
    /// May key inside listed windows only; a transmission must end inside.
    Window(Vec<Window>),
    /// May key for reports, never for traffic.
    AckOnly,
    /// May not key at all.
    Silent,
}

/// A span of civil time in which a bearer may radiate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Window {
    /// First moment.
    pub from: Wall,
    /// First moment after.
    pub until: Wall,
}

impl State {
    /// Reads the word an operator types: `open`, `silent`, `restricted:flash`, `ack-only`. Windows come with times, not words.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "open" => Self::Open,
            "silent" => Self::Silent,
            "ack-only" => Self::AckOnly,
            _ => Self::Restricted(Precedence::parse(text.strip_prefix("restricted:")?)?),
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Restricted(p) => write!(f, "restricted:{p}"),
            Self::Window(_) => f.write_str("window"),
            Self::AckOnly => f.write_str("ack-only"),
            Self::Silent => f.write_str("silent"),
        }
    }
}

/// One order, as it is persisted and shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// What is ordered.
    pub state: State,
    /// Since when it holds.
    pub since: Wall,
    /// Until when; afterwards the bearer falls silent until told otherwise. `None`: until the next order.
    pub until: Option<Wall>,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who gave it: `uid 1000`, `profile`, `store`.
    pub author: String,
}
