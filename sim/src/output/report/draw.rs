//! Small drawing tools: escaping, axes, round numbers. Everything here gives the same text on every machine.

use std::fmt::Display;

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant, Wall};

/// Text made safe for elements and attributes of HTML and SVG.
pub(super) fn esc(text: impl Display) -> String {
    let mut out = String::new();
    for c in text.to_string().chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no other control characters.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// The class that gives something the colour of a level.
pub(super) fn level_class(level: Precedence) -> &'static str {
    match level {
        Precedence::Override => "p5",
        Precedence::Flash => "p4",
        Precedence::Immediate => "p3",
        Precedence::Priority => "p2",
        Precedence::Routine => "p1",
        Precedence::Deferred => "p0",
    }
}

/// A whole number with its thousands apart.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202F}');
        }
        out.push(c);
    }
    out
}

/// Time of day of a date-time group: `1802Z`.
pub(super) fn zulu(wall: Wall) -> String {
    wall.dtg().split(' ').next().and_then(|t| t.get(2..)).unwrap_or_default().to_owned()
}

/// Time to the second: `231802:05Z`.
pub(super) fn zulu_seconds(wall: Wall) -> String {
    let (dtg, second) = (wall.dtg(), wall.seconds().rem_euclid(60));
    format!("{}:{second:02}Z", dtg.get(..6).unwrap_or_default())
}

/// A step of 1, 2 or 5 times a power of ten, so that at most `most` of them reach `top`.
pub(super) fn round_step(top: f64, most: u32) -> f64 {
    let least = (top / f64::from(most.max(1))).max(1e-9);
    let power = libm::pow(10.0, libm::floor(libm::log10(least)));
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= least * 0.999_999).unwrap_or(10.0);
    factor * power
}

/// A span of time people count in, so that at most `most` of them make up `whole`.
pub(super) fn time_step(whole: Duration, most: u64) -> Duration {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 3600;
    const STEPS: &[u64] = &[
        1,
        2,
        5,
        10,
        30,
        MINUTE,
        2 * MINUTE,
        5 * MINUTE,
        10 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        HOUR,
        2 * HOUR,
        3 * HOUR,
        6 * HOUR,
        12 * HOUR,
        24 * HOUR,
    ];
    let fits = |s: &&u64| whole.as_secs_f64() / **s as f64 <= most as f64;
    let days = || (whole.as_secs() / most.max(1) / (24 * HOUR) + 1) * 24 * HOUR;
    Duration::from_secs(STEPS.iter().find(fits).copied().unwrap_or_else(days))
}

/// Instants at whole civil multiples of `step` from `start` to `end`.
pub(super) fn time_ticks(start: Wall, end: Instant, step: Duration) -> Vec<Instant> {
    let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let first = (start.0.div_euclid(step_ms) + i64::from(start.0.rem_euclid(step_ms) != 0)).saturating_mul(step_ms);
    let mut at = Instant::ZERO + Wall(first).since(start);
    let mut ticks = Vec::new();
    while at <= end && ticks.len() < 10_000 {
        ticks.push(at);
        at += step;
    }
    ticks
}

/// `4 s`, `15 min`, `2 h`.
pub(super) fn short_span(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 129_600.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// The frame of a chart: where its data lie, in units of its own picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Frame {
    /// Where the share `x` of the width lies.
    pub(super) fn x(&self, x: f64) -> f64 {
        self.left + x * (self.width - self.left - self.right)
    }

    /// Where the share `y` of the height lies, counted from below.
    pub(super) fn y(&self, y: f64) -> f64 {
        self.height - self.bottom - y * (self.height - self.top - self.bottom)
    }

    /// The opening tag, with words for who cannot see the picture.
    pub(super) fn open(&self, about: &str) -> String {
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            self.width,
            self.height,
            esc(about)
        )
    }

    /// A line across with its figure at the left.
    pub(super) fn level(&self, share: f64, label: &str) -> String {
        let (y, x) = (self.y(share), self.x(0.0));
        format!(
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            self.x(1.0),
            x - 6.0,
            y + 4.0,
            esc(label)
        )
    }

    /// A mark at the bottom with its words.
    pub(super) fn mark(&self, share: f64, label: &str) -> String {
        let (x, y) = (self.x(share), self.y(0.0));
        format!(
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            self.y(1.0),
            y + 17.0,
            esc(label)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_markup_is_text() {
        assert_eq!(esc("<b a='1' c=\"2\">&\u{7}"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\u{FFFD}");
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([round_step(83.0, 5), round_step(4.2, 5), round_step(1000.0, 4)], [20.0, 1.0, 500.0]);
        assert_eq!(time_step(Duration::from_secs(6 * 3600), 8), Duration::from_secs(3600));
        assert_eq!(time_step(Duration::from_secs(30 * 86_400), 10), Duration::from_secs(4 * 86_400));
    }

    #[test]
    fn ticks_stand_at_whole_civil_hours() {
        let start = Wall::parse_rfc3339("2026-11-23T18:20:00Z").expect("valid");
        let end = Instant::from_millis(2 * 3_600_000);
        let ticks = time_ticks(start, end, Duration::from_secs(3600));
        let words: Vec<String> = ticks.iter().map(|t| zulu(start.plus(t.since(Instant::ZERO)))).collect();
        assert_eq!(words, ["1900Z", "2000Z"]);
        assert_eq!(zulu_seconds(start.plus(Duration::from_secs(5))), "231820:05Z");
        assert_eq!(grouped(1_234_567), "1\u{202F}234\u{202F}567");
    }
}
