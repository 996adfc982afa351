//! The six precedences and the MT-PRIORITY numbers they come from (RFC 6710, STANAG4406 policy).

use core::fmt;

use serde::{Deserialize, Serialize};

/// A message's precedence at this switch, lowest first: `a > b` means `a` goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precedence {
    /// MT-PRIORITY -4.
    Deferred,
    /// MT-PRIORITY -2; what an unstated precedence is treated as in shipped profiles (link-rules D6).
    Routine,
    /// MT-PRIORITY 0.
    Priority,
    /// MT-PRIORITY 2.
    Immediate,
    /// MT-PRIORITY 4.
    Flash,
    /// MT-PRIORITY 6.
    Override,
}

impl Precedence {
    /// All six, highest first: the order of service.
    pub const DESCENDING: [Self; 6] =
        [Self::Override, Self::Flash, Self::Immediate, Self::Priority, Self::Routine, Self::Deferred];

    /// The STANAG4406 number of this level.
    pub const fn mt_priority(self) -> MtPriority {
        MtPriority(match self {
            Self::Deferred => -4,
            Self::Routine => -2,
            Self::Priority => 0,
            Self::Immediate => 2,
            Self::Flash => 4,
            Self::Override => 6,
        })
    }

    /// The MMHS number of this level (RFC 6477): 0 deferred to 5 override. Also the rank used in keys and frames.
    pub const fn rank(self) -> u8 {
        self as u8
    }

    /// The level of an MMHS number 0..=5.
    pub const fn from_rank(rank: u8) -> Option<Self> {
        Some(match rank {
            0 => Self::Deferred,
            1 => Self::Routine,
            2 => Self::Priority,
            3 => Self::Immediate,
            4 => Self::Flash,
            5 => Self::Override,
            _ => return None,
        })
    }

    /// The name in lower case, as profiles, CLI and JSON write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deferred => "deferred",
            Self::Routine => "routine",
            Self::Priority => "priority",
            Self::Immediate => "immediate",
            Self::Flash => "flash",
            Self::Override => "override",
        }
    }

    /// Reads a name in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::DESCENDING.into_iter().find(|p| p.name().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Precedence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An MT-PRIORITY value, -9..=9 (RFC 6710). Relayed exactly as it came; only service rounds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MtPriority(i8);

impl MtPriority {
    /// A value, if it is in -9..=9.
    pub const fn new(value: i8) -> Option<Self> {
        if value >= -9 && value <= 9 { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> i8 {
        self.0
    }

    /// The strict grammar of RFC 6710: `["-"] NZDIGIT / "0"`.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digit) = match text.as_bytes() {
            [d] => (false, *d),
            [b'-', d] if *d != b'0' => (true, *d),
            _ => return None,
        };
        let value = digit.is_ascii_digit().then(|| (digit - b'0') as i8)?;
        Some(Self(if negative { -value } else { value }))
    }

    /// The level that serves this value: rounded up to the next STANAG4406 level, or the top one.
    pub const fn precedence(self) -> Precedence {
        match self.0 {
            ..=-4 => Precedence::Deferred,
            -3..=-2 => Precedence::Routine,
            -1..=0 => Precedence::Priority,
            1..=2 => Precedence::Immediate,
            3..=4 => Precedence::Flash,
            _ => Precedence::Override,
        }
    }
}

impl fmt::Display for MtPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d6_rounding_vectors_of_stanag4406() {
        for (value, level) in [(-9, -4), (-4, -4), (-3, -2), (-1, 0), (1, 2), (3, 4), (5, 6), (7, 6), (9, 6)] {
            let value = MtPriority::new(value).expect("in range");
            assert_eq!(value.precedence().mt_priority().get(), level, "{value}");
        }
    }

    #[test]
    fn mt_priority_grammar_is_strict() {
        for bad in ["+3", "00", "-0", "10", "", "-", "3 ", "a", "-10"] {
            assert_eq!(MtPriority::parse(bad), None, "{bad:?}");
        }
        assert_eq!(MtPriority::parse("-9").map(MtPriority::get), Some(-9));
        assert_eq!(MtPriority::parse("0").map(MtPriority::get), Some(0));
    }

    #[test]
    fn names_and_ranks_round_trip() {
        for p in Precedence::DESCENDING {
            assert_eq!(Precedence::parse(p.name()), Some(p));
            assert_eq!(Precedence::from_rank(p.rank()), Some(p));
            assert_eq!(p.mt_priority().precedence(), p);
        }
        assert!(Precedence::Flash > Precedence::Routine);
    }
}
