//! The six precedences, the MT-PRIORITY numbers they come from (RFC 6710), and the policies that say which number means which.

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

    /// The level that serves this value by [`PriorityPolicy::Stanag4406`]: rounded up to the next, or the top one.
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

/// A priority assignment policy (RFC 6710 section 9): the levels that numbers are rounded up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PriorityPolicy {
    /// Six levels, as in military messaging.
    #[default]
    Stanag4406,
    /// Three: non-urgent, normal, urgent.
    Mixer,
    /// Five, for services in emergencies.
    Nsep,
}

impl PriorityPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stanag4406, Self::Mixer, Self::Nsep];

    /// Its registered name, as EHLO has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stanag4406 => "STANAG4406",
            Self::Mixer => "MIXER",
            Self::Nsep => "NSEP",
        }
    }

    /// Reads a name in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(text))
    }

    /// Its levels, lowest first.
    const fn levels(self) -> &'static [Precedence] {
        use Precedence::{Deferred, Flash, Immediate, Override, Priority, Routine};
        match self {
            Self::Stanag4406 => &[Deferred, Routine, Priority, Immediate, Flash, Override],
            Self::Mixer => &[Deferred, Priority, Flash],
            Self::Nsep => &[Routine, Priority, Immediate, Flash, Override],
        }
    }

    /// The level that serves a number: the next one up, or the top one.
    pub fn level(self, number: MtPriority) -> Precedence {
        let next = self.levels().iter().find(|level| level.mt_priority() >= number);
        next.or(self.levels().last()).copied().unwrap_or(Precedence::Override)
    }

    /// The number that somebody gets who asks for one and may have this level at most: the one asked for, or the highest that stays
    /// below. Where even the lowest level of the policy is above, it is the ceiling's own.
    pub fn capped(self, asked: MtPriority, ceiling: Precedence) -> MtPriority {
        if self.level(asked) <= ceiling {
            return asked;
        }
        let below = self.levels().iter().rev().find(|level| **level <= ceiling);
        below.copied().unwrap_or(ceiling).mt_priority().min(asked)
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
    fn each_policy_rounds_up_within_its_levels() {
        let of = |policy: PriorityPolicy, number| policy.level(MtPriority::new(number).expect("in range"));
        for (number, level) in [(-9, -4), (-4, -4), (-3, 0), (0, 0), (1, 4), (4, 4), (9, 4)] {
            assert_eq!(of(PriorityPolicy::Mixer, number).mt_priority().get(), level, "MIXER {number}");
        }
        for (number, level) in [(-9, -2), (-2, -2), (-1, 0), (1, 2), (3, 4), (5, 6), (6, 6), (9, 6)] {
            assert_eq!(of(PriorityPolicy::Nsep, number).mt_priority().get(), level, "NSEP {number}");
        }
        for number in -9..=9 {
            let number = MtPriority::new(number).expect("in range");
            assert_eq!(PriorityPolicy::Stanag4406.level(number), number.precedence(), "{number}");
        }
        assert!(PriorityPolicy::ALL.into_iter().all(|policy| PriorityPolicy::parse(policy.name()) == Some(policy)));
    }

    #[test]
    fn a_capped_number_is_never_served_above_the_ceiling_where_the_policy_has_a_level_below() {
        let number = |n| MtPriority::new(n).expect("in range");
        for (policy, asked, ceiling, granted) in [
            (PriorityPolicy::Stanag4406, 4, Precedence::Routine, -2),
            (PriorityPolicy::Stanag4406, 9, Precedence::Override, 9),
            (PriorityPolicy::Stanag4406, -3, Precedence::Routine, -3),
            (PriorityPolicy::Mixer, 1, Precedence::Immediate, 0),
            (PriorityPolicy::Mixer, -3, Precedence::Routine, -4),
            (PriorityPolicy::Mixer, 9, Precedence::Flash, 9),
            (PriorityPolicy::Nsep, 5, Precedence::Flash, 4),
            (PriorityPolicy::Nsep, 0, Precedence::Deferred, -4),
        ] {
            assert_eq!(policy.capped(number(asked), ceiling), number(granted), "{policy:?} {asked} {ceiling}");
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
