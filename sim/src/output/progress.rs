//! A bar on the terminal for runs that take a while: virtual time done, pace, and what is left.
//!
//! It is shown on stderr, only when that is a terminal, and only after the first seconds; nothing of it reaches stdout or a file.

use std::io::{IsTerminal, Write};
use std::time::{Duration as RealTime, Instant as RealInstant};

use aldis::time::{Duration, Instant};

/// How long a run may take before the bar is worth showing, and how often it moves.
const PATIENCE: RealTime = RealTime::from_secs(2);
const STEP: RealTime = RealTime::from_millis(200);

/// A bar on stderr.
#[derive(Debug)]
pub struct Progress {
    begun: RealInstant,
    drawn: Option<RealInstant>,
    wanted: bool,
}

#[expect(clippy::disallowed_methods, reason = "the bar tells people how real time passes; nothing of the run sees it")]
fn real_time() -> RealInstant {
    RealInstant::now()
}

impl Progress {
    /// A bar that is shown if stderr is a terminal.
    pub fn on_terminal() -> Self {
        Self { begun: real_time(), drawn: None, wanted: std::io::stderr().is_terminal() }
    }

    /// The run has come to `at` of `end`.
    pub fn show(&mut self, at: Instant, end: Instant) {
        if !self.wanted {
            return;
        }
        let now = real_time();
        let last = self.drawn.unwrap_or(self.begun);
        let wait = if self.drawn.is_some() { STEP } else { PATIENCE };
        // The last word is said in any case, because nothing more comes while everything settles.
        let last_word = at >= end && self.drawn.is_some();
        if now - last < wait && !last_word {
            return;
        }
        self.drawn = Some(now);
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", bar(at, end, now - self.begun));
        let _ = std::io::stderr().flush();
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// `[#####.....]  52 %  12:30:00 of 24:00:00, 4300 times real time, 10 s left`
fn bar(at: Instant, end: Instant, spent: RealTime) -> String {
    const WIDTH: usize = 30;
    let (done, whole) = (at.since(Instant::ZERO), end.since(Instant::ZERO));
    if at >= end {
        return format!("settling, {}", clock(done));
    }
    let share = done.as_secs_f64() / whole.as_secs_f64().max(1e-9);
    let filled = ((share * WIDTH as f64) as usize).min(WIDTH);
    let pace = done.as_secs_f64() / spent.as_secs_f64().max(1e-3);
    let left = (whole - done).as_secs_f64() / pace.max(1e-9);
    format!(
        "[{}{}] {:3.0} %  {} of {}, {pace:.0} times real time, {left:.0} s left",
        "#".repeat(filled),
        ".".repeat(WIDTH - filled),
        share * 100.0,
        clock(done),
        clock(whole)
    )
}

fn clock(d: Duration) -> String {
    let s = d.as_secs();
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_tells_time_pace_and_rest() {
        let (hour, day) = (Instant::from_millis(6 * 3_600_000), Instant::from_millis(86_400_000));
        let text = bar(hour, day, RealTime::from_secs(10));
        assert_eq!(
            text,
            "[#######.......................]  25 %  6:00:00 of 24:00:00, 2160 times real time, 30 s left"
        );
        assert_eq!(bar(day, day, RealTime::from_secs(40)), "settling, 24:00:00");
    }
}
