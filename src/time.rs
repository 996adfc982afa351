//! Time as the cores see it: a monotonic [`Instant`], civil [`Wall`] time, and [`Now`], which a driver hands to every call.
//!
//! No core reads a clock. A driver (`node/` or the simulator) maps its clock to [`Now`] in one place.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

pub use core::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the driver started; never steps back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The driver's start.
    pub const ZERO: Self = Self(0);

    /// An instant later than any other.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant `millis` milliseconds after the driver's start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Civil time, UTC, in milliseconds since 1970-01-01T00:00:00Z. What is persisted and what is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Wall(pub i64);

impl Wall {
    /// A time later than any other: "never".
    pub const NEVER: Self = Self(i64::MAX);

    /// The time `seconds` seconds after the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time plus `d`, saturating.
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    fn civil(self) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    }

    /// RFC 3339, UTC, with milliseconds: `2026-11-23T10:15:00.000Z`. The form of all JSON.
    pub fn rfc3339(self) -> String {
        let t = self.civil();
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond()
        )
    }

    /// RFC 3339, UTC, whole seconds: `2026-11-23T10:15:00Z`. The form of SMTP parameters.
    pub fn rfc3339_seconds(self) -> String {
        let mut text = self.rfc3339();
        text.truncate(19);
        text.push('Z');
        text
    }

    /// RFC 5322 date-time in UTC: `Mon, 23 Nov 2026 10:15:00 +0000`. The form of Date and Received fields.
    pub fn rfc5322(self) -> String {
        let t = self.civil();
        format!(
            "{}, {:02} {} {:04} {:02}:{:02}:{:02} +0000",
            &t.weekday().to_string()[..3],
            t.day(),
            &t.month().to_string()[..3],
            t.year(),
            t.hour(),
            t.minute(),
            t.second()
        )
    }

    /// Date-time group as operators write it: `231015Z NOV 26`.
    pub fn dtg(self) -> String {
        let t = self.civil();
        format!(
            "{:02}{:02}{:02}Z {} {:02}",
            t.day(),
            t.hour(),
            t.minute(),
            t.month().to_string()[..3].to_uppercase(),
            t.year().rem_euclid(100)
        )
    }

    /// Reads RFC 3339 (`2026-11-23T10:15:00Z`, fractions and offsets allowed).
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let t = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        i64::try_from(t.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Self)
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// What a driver knows about time at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic time.
    pub at: Instant,
    /// Civil time as the machine believes it.
    pub wall: Wall,
    /// Whether `wall` may be trusted (link-rules A7): the kernel reports synchronisation or an operator said so.
    /// While false nothing expires or is purged and scheduled windows stay silent.
    pub set: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_prints_the_three_forms() {
        let t = Wall::parse_rfc3339("2026-11-23T10:15:00Z").expect("valid");
        assert_eq!(t.rfc3339(), "2026-11-23T10:15:00.000Z");
        assert_eq!(t.plus(Duration::from_millis(900)).rfc3339_seconds(), "2026-11-23T10:15:00Z");
        assert_eq!(t.rfc5322(), "Mon, 23 Nov 2026 10:15:00 +0000");
        assert_eq!(t.dtg(), "231015Z NOV 26");
        assert_eq!(Wall::parse_rfc3339("2026-11-23T11:15:00+01:00"), Some(t));
        assert_eq!(Wall::parse_rfc3339("yesterday"), None);
    }
}
