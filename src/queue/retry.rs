//! When a recipient is tried again, when its sender hears of the delay, and when its life ends: one table per precedence.
//!
//! The table holds values only. The attempt clock is the caller's: while silence, a closed window or an unset clock keeps a hop
//! shut, nobody attempts and nobody reports a failed attempt, so `attempts` stands still; the expiry clock runs on
//! (link-rules A5). [`outcome`](super::outcome) and [`accept`](super::accept()) read it.

use crate::mail::{MessageId, Precedence};
use crate::time::{Duration, Wall};

/// Least lifetime of mail towards a peer over the air, which may be silent for days (link-rules A5).
pub const PEER_LIFETIME: Duration = Duration::from_secs(5 * 86_400);

/// The times of one precedence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Level {
    /// Waits between attempts; the last repeats.
    pub after: Vec<Duration>,
    /// Age at which a delay DSN is due.
    pub warn: Duration,
    /// Lifetime, unless the message states its own.
    pub expire: Duration,
    /// Spread the waits by up to ten per cent either way, so that a queue held up together does not come back together.
    pub jitter: bool,
}

/// The times of all six.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    levels: [Level; 6],
}

impl Table {
    /// The shipped table.
    pub fn shipped() -> Self {
        let level = |halves: &[u64], warn_min: u64, expire_h: u64, jitter| Level {
            after: halves.iter().map(|n| Duration::from_secs(n * 30)).collect(),
            warn: Duration::from_secs(warn_min * 60),
            expire: Duration::from_secs(expire_h * 3600),
            jitter,
        };
        let urgent = level(&[1, 1, 2, 2, 4, 4], 10, 6, false);
        Self {
            levels: [
                level(&[120, 240], 24 * 60, 7 * 24, false),
                level(&[30, 60, 120], 4 * 60, 5 * 24, true),
                level(&[10, 20, 30], 2 * 60, 24, false),
                level(&[2, 4, 8, 10], 30, 12, false),
                urgent.clone(),
                urgent,
            ],
        }
    }

    /// This table with one level replaced. An empty list of waits keeps the present one.
    #[must_use]
    pub fn with(mut self, precedence: Precedence, mut level: Level) -> Self {
        let slot = self.slot(precedence);
        if level.after.is_empty() {
            level.after = std::mem::take(&mut slot.after);
        }
        *slot = level;
        self
    }

    fn slot(&mut self, precedence: Precedence) -> &mut Level {
        let [deferred, routine, priority, immediate, flash, over] = &mut self.levels;
        match precedence {
            Precedence::Deferred => deferred,
            Precedence::Routine => routine,
            Precedence::Priority => priority,
            Precedence::Immediate => immediate,
            Precedence::Flash => flash,
            Precedence::Override => over,
        }
    }

    /// The times of `precedence`.
    pub fn level(&self, precedence: Precedence) -> &Level {
        let [deferred, routine, priority, immediate, flash, over] = &self.levels;
        match precedence {
            Precedence::Deferred => deferred,
            Precedence::Routine => routine,
            Precedence::Priority => priority,
            Precedence::Immediate => immediate,
            Precedence::Flash => flash,
            Precedence::Override => over,
        }
    }

    /// The wait after attempt number `attempts` (1 is the first) failed. The spread depends on the message and the attempt
    /// alone: recipients who failed together are tried together.
    pub fn wait(&self, precedence: Precedence, attempts: u32, message: MessageId) -> Duration {
        let level = self.level(precedence);
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(wait) = level.after.get(index).or(level.after.last()) else { return Duration::from_secs(60) };
        if !level.jitter {
            return *wait;
        }
        let permille = 900 + u32::try_from(mix(message.0 ^ (u64::from(attempts) << 48)) % 201).unwrap_or(100);
        *wait * permille / 1000
    }

    /// The longest wait of any level: a time further ahead than this was set by a clock that has since been put back.
    pub fn longest_wait(&self) -> Duration {
        let longest = self.levels.iter().flat_map(|l| l.after.iter().copied()).max().unwrap_or_default();
        longest + longest / 10
    }

    /// Whether `next_at` has come; a time that a put-back clock moved out of reach has.
    pub fn is_due(&self, next_at: Wall, now: Wall) -> bool {
        next_at <= now || next_at > now.plus(self.longest_wait())
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::shipped()
    }
}

/// SplitMix64: spreads consecutive numbers over all bits.
pub(super) const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(precedence: Precedence, attempts: u32) -> f64 {
        Table::shipped().wait(precedence, attempts, MessageId(1)).as_secs_f64() / 60.0
    }

    #[test]
    fn shipped_waits_are_those_of_the_profile() {
        for (p, waits) in [
            (Precedence::Override, vec![0.5, 0.5, 1.0, 1.0, 2.0, 2.0, 2.0]),
            (Precedence::Flash, vec![0.5, 0.5, 1.0, 1.0, 2.0, 2.0, 2.0]),
            (Precedence::Immediate, vec![1.0, 2.0, 4.0, 5.0, 5.0]),
            (Precedence::Priority, vec![5.0, 10.0, 15.0, 15.0]),
            (Precedence::Deferred, vec![60.0, 120.0, 120.0]),
        ] {
            for (i, wait) in waits.into_iter().enumerate() {
                assert_eq!(minutes(p, i as u32 + 1), wait, "{p} {i}");
            }
        }
        let hours = |d: Duration| d.as_secs() / 3600;
        for (p, warn_min, expire_h) in [
            (Precedence::Override, 10, 6),
            (Precedence::Flash, 10, 6),
            (Precedence::Immediate, 30, 12),
            (Precedence::Priority, 120, 24),
            (Precedence::Routine, 240, 120),
            (Precedence::Deferred, 1440, 168),
        ] {
            let table = Table::shipped();
            assert_eq!(table.level(p).warn.as_secs() / 60, warn_min, "{p}");
            assert_eq!(hours(table.level(p).expire), expire_h, "{p}");
        }
    }

    #[test]
    fn routine_waits_spread_by_ten_per_cent_and_repeat_exactly() {
        let table = Table::shipped();
        let waits: Vec<_> = (0..500).map(|id| table.wait(Precedence::Routine, 3, MessageId(id)).as_secs()).collect();
        assert!(waits.iter().all(|s| (3240..=3960).contains(s)));
        assert!(waits.iter().any(|s| *s < 3300) && waits.iter().any(|s| *s > 3900));
        let again: Vec<_> = (0..500).map(|id| table.wait(Precedence::Routine, 3, MessageId(id)).as_secs()).collect();
        assert_eq!(waits, again);
    }

    #[test]
    fn a_level_can_be_replaced_but_never_left_without_waits() {
        let own = Level { after: vec![], warn: Duration::ZERO, expire: Duration::from_secs(60), jitter: false };
        let table = Table::shipped().with(Precedence::Flash, own);
        assert_eq!(table.wait(Precedence::Flash, 1, MessageId(1)), Duration::from_secs(30));
        assert_eq!(table.level(Precedence::Flash).expire, Duration::from_secs(60));
        assert_eq!(table.level(Precedence::Override).expire, Duration::from_secs(6 * 3600));
    }

    #[test]
    fn a_clock_put_back_does_not_strand_a_retry() {
        let table = Table::shipped();
        let now = Wall::from_seconds(1_000_000);
        assert!(table.is_due(now, now));
        assert!(!table.is_due(now.plus(Duration::from_secs(7200)), now));
        assert!(table.is_due(now.plus(Duration::from_secs(86_400)), now));
    }
}
