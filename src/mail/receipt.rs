//! Receipts: that a message was taken for one of its recipients, in as few words as say it to a node that holds the message.

use serde::{Deserialize, Serialize};

use super::Status;
use crate::time::Wall;

/// Who takes mail for mailboxes of this node, as reports name it.
pub const LOCAL_MAILBOX: &str = "local mailbox";

/// That a message was taken for one of its recipients.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// Which, by its place in the envelope that crossed the air.
    pub recipient: u32,
    /// How it was taken.
    pub taken: Taken,
    /// When, to the minute.
    pub at: Wall,
}

/// How a message was taken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// By a system that sends no reports, rather than into the mailbox.
    pub relayed: bool,
    /// RFC 3463 code.
    pub status: Status,
    /// Who took it, where that is known.
    pub by: Option<String>,
}

impl Taken {
    /// Into a mailbox of the node itself.
    pub fn locally() -> Self {
        Self { relayed: false, status: Self::DELIVERED, by: Some(LOCAL_MAILBOX.to_owned()) }
    }

    /// What a delivery into the mailbox says.
    pub const DELIVERED: Status = Status(2, 1, 5);
    /// What a delivery to a system without reports says.
    pub const RELAYED: Status = Status(2, 4, 0);

    /// Whether a receipt can say this: a success, by a name of few printable bytes.
    pub fn can_be_told(&self) -> bool {
        let named = |by: &String| {
            by == LOCAL_MAILBOX
                || (1..=Self::LONGEST_NAME).contains(&by.len()) && by.bytes().all(|b| b.is_ascii_graphic())
        };
        let Status(class, subject, detail) = self.status;
        class == 2 && subject < 1000 && detail < 1000 && self.by.as_ref().is_none_or(named)
    }

    /// Bytes of the longest name.
    pub const LONGEST_NAME: usize = 255;
}

impl Receipt {
    /// From when its minutes count: 2020-01-01T00:00:00Z.
    pub const EPOCH_MS: i64 = 1_577_836_800_000;
    /// Minutes it can tell apart: until 2051.
    pub const MINUTES: i64 = 1 << 24;
    const MINUTE_MS: i64 = 60_000;

    /// The time of a minute.
    pub const fn time(minute: u32) -> Wall {
        Wall(Self::EPOCH_MS + minute as i64 * Self::MINUTE_MS)
    }

    /// The minute of a time; `None` where it is none that a receipt can carry (an unset clock, or the far future).
    pub fn minute(at: Wall) -> Option<u32> {
        let minute = at.0.checked_sub(Self::EPOCH_MS)?.div_euclid(Self::MINUTE_MS);
        (0..Self::MINUTES).contains(&minute).then(|| u32::try_from(minute).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_cut_to_its_minute() {
        assert_eq!(Receipt::minute(Wall(Receipt::EPOCH_MS + 3 * 60_000 + 59_999)), Some(3));
        assert_eq!(Receipt::time(3), Wall(Receipt::EPOCH_MS + 3 * 60_000));
        let last = u32::try_from(Receipt::MINUTES - 1).expect("24 bits");
        assert_eq!(Receipt::minute(Receipt::time(last)), Some(last));
        for other in [Receipt::time(0).0 - 1, Receipt::time(last).0 + 60_000, Wall::NEVER.0, i64::MIN] {
            assert_eq!(Receipt::minute(Wall(other)), None, "{other}");
        }
    }

    #[test]
    fn only_successes_by_plain_names_can_be_told() {
        assert!(Taken::locally().can_be_told());
        let by = |name: &str| Taken { by: Some(name.to_owned()), ..Taken::locally() };
        assert!(by("mail.example.net:25").can_be_told());
        assert!(Taken { by: None, ..Taken::locally() }.can_be_told());
        for name in ["", "two words", "m\u{fc}ll", &"x".repeat(256)] {
            assert!(!by(name).can_be_told(), "{name}");
        }
        for status in [Status(5, 1, 1), Status(2, 1000, 0), Status(2, 0, 1000)] {
            assert!(!Taken { status, ..Taken::locally() }.can_be_told(), "{status}");
        }
    }
}
