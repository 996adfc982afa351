//! Quantities with their unit in the type, as profiles write them: `"2400bps"`, `"90s"`, `"64KiB"`.

use core::fmt;

use crate::time::Duration;

/// A bit rate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bps(pub u32);

impl Bps {
    /// Time `bytes` bytes take at this rate.
    pub fn airtime(self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes.saturating_mul(8_000_000_000) / u64::from(self.0.max(1)))
    }

    /// Reads `"2400bps"`, `"9.6kbps"`, `"1Mbps"`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let factor = match unit {
            "bps" | "bit/s" => 1.0,
            "kbps" | "kbit/s" => 1e3,
            "Mbps" | "Mbit/s" => 1e6,
            _ => return None,
        };
        let v = number * factor;
        (v >= 1.0 && v <= f64::from(u32::MAX)).then_some(Self(v.round() as u32))
    }
}

impl fmt::Display for Bps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}bps", self.0)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Reads `"512B"`, `"64KiB"`, `"10MiB"`, `"1GiB"` and the decimal `kB`, `MB`, `GB`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let factor = match unit {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "KiB" => 1024.0,
            "MiB" => 1_048_576.0,
            "GiB" => 1_073_741_824.0,
            _ => return None,
        };
        let v = number * factor;
        (0.0..9e15).contains(&v).then_some(Self(v.round() as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Reads `"200ms"`, `"90s"`, `"15min"`, `"6h"`, `"5d"`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let v = number * seconds;
    (0.0..1e10).contains(&v).then(|| Duration::from_nanos((v * 1e9).round() as u64))
}

/// Prints a duration in the form [`parse_duration`] reads, with the largest unit that keeps it whole.
pub fn show_duration(d: Duration) -> String {
    let ms = d.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)] {
        if ms >= size && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_parse_and_print() {
        assert_eq!(Bps::parse("2400bps"), Some(Bps(2400)));
        assert_eq!(Bps::parse("9.6kbps"), Some(Bps(9600)));
        assert_eq!(Bps::parse("2400"), None);
        assert_eq!(Bytes::parse("64KiB"), Some(Bytes(65536)));
        assert_eq!(Bytes(65536).to_string(), "64KiB");
        assert_eq!(Bytes::parse("64 kib"), None);
        assert_eq!(parse_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::from_secs(432_000)), "5d");
        assert_eq!(Bps(2400).airtime(300), Duration::from_secs(1));
    }
}
