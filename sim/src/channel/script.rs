//! A path played from a script: what holds from which second on, written by hand or recorded from a real link.

use aldis::time::{Duration, Instant};
use aldis::units::parse_duration;

use super::Anchor;

/// Most lines of a script.
const MOST_LINES: usize = 1_000_000;

/// What holds on a path for a while.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum State {
    /// A steady signal-to-noise ratio in 3 kHz, dB.
    Snr(f64),
    /// Blocks fail on their own with this probability.
    Loss(f64),
    /// Nothing gets through, not even a carrier.
    Dead,
}

/// States by virtual time.
#[derive(Clone, PartialEq, Debug)]
pub struct Script {
    /// From when on what holds: in order, the first at zero.
    steps: Vec<(Instant, State)>,
    /// The script begins anew after this long.
    repeat: Option<Duration>,
}

impl Script {
    /// Reads lines `TIME snr DB`, `TIME loss SHARE`, `TIME dead`, and at the end perhaps `TIME repeat`. A time is a duration such as
    /// `90s` or a bare number of seconds. Empty lines and what follows a `#` count for nothing.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut script = Self { steps: Vec::new(), repeat: None };
        for (number, line) in (1..).zip(lines) {
            if number > MOST_LINES {
                return Err(format!("a script has at most {MOST_LINES} lines"));
            }
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                script.line(line).map_err(|why| format!("script line {number}, {line:?}: {why}"))?;
            }
        }
        match script.steps.first() {
            Some((Instant::ZERO, _)) => Ok(script),
            _ => Err("a script begins with a line for 0s".to_owned()),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let (time, what, value) = (words.next().unwrap_or_default(), words.next(), words.next());
        let time = match time.parse::<f64>() {
            Ok(seconds) if (0.0..1e9).contains(&seconds) => Duration::from_nanos((seconds * 1e9).round() as u64),
            Ok(_) => return Err("the time is out of range".to_owned()),
            Err(_) => parse_duration(time).ok_or("a line begins with a time such as 90s")?,
        };
        let at = Instant::ZERO + time;
        if self.repeat.is_some() {
            return Err("nothing follows repeat".to_owned());
        }
        if self.steps.last().is_some_and(|s| s.0 >= at) {
            return Err("times must rise".to_owned());
        }
        let number = value.and_then(|v| v.parse::<f64>().ok());
        let state = match (what, number, value) {
            (Some("snr"), Some(db), _) if (-60.0..=150.0).contains(&db) => State::Snr(db),
            (Some("loss"), Some(p), _) if (0.0..=1.0).contains(&p) => State::Loss(p),
            (Some("dead"), _, None) => State::Dead,
            (Some("repeat"), _, None) if time < Duration::from_secs(1) => {
                return Err("a script lasts 1s at least before it repeats".to_owned());
            }
            (Some("repeat"), _, None) => {
                self.repeat = Some(time);
                return Ok(());
            }
            _ => return Err("after the time comes snr DB, loss SHARE, dead or repeat".to_owned()),
        };
        if words.next().is_some() {
            return Err("there is more than one state".to_owned());
        }
        self.steps.push((at, state));
        Ok(())
    }

    /// What holds at an instant, and until when.
    pub fn at(&self, now: Instant) -> (State, Instant) {
        // Repeats shift the whole script.
        let period = self.repeat.map_or(u128::MAX, |r| r.as_nanos().max(1));
        let shift = u64::try_from(u128::from(now.0) / period * period).unwrap_or(0);
        let local = Instant(now.0 - shift);
        let next = self.steps.partition_point(|s| s.0 <= local);
        let state = next.checked_sub(1).and_then(|i| self.steps.get(i)).map_or(State::Dead, |s| s.1);
        let end = match (self.steps.get(next), self.repeat) {
            (Some(step), _) => step.0.0.saturating_add(shift),
            (None, Some(period)) => u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).saturating_add(shift),
            (None, None) => u64::MAX,
        };
        (state, Instant(end))
    }

    /// Over a span: the effective ratio of the time that has one, and the probability that the block fails; `None` where all of it
    /// is dead.
    pub fn over(&self, from: Instant, until: Instant, anchor: &Anchor) -> Option<(Option<f64>, f64)> {
        let (mut bits, mut measured, mut loss, mut alive) = (0.0, 0.0, 0.0_f64, false);
        let mut now = from;
        while now < until {
            let (state, end) = self.at(now);
            let seconds = end.min(until).since(now).as_secs_f64();
            alive |= state != State::Dead;
            match state {
                State::Snr(db) => {
                    bits += seconds * libm::log2(1.0 + libm::pow(10.0, db / 10.0));
                    measured += seconds;
                }
                State::Dead => measured += seconds,
                State::Loss(p) => loss = loss.max(p),
            }
            now = end;
        }
        let snr_db = (measured > 0.0).then(|| 10.0 * libm::log10((libm::exp2(bits / measured) - 1.0).max(1e-6)));
        let failure = snr_db.map_or(0.0, |db| anchor.block_failure(db));
        alive.then_some((snr_db, 1.0 - (1.0 - loss) * (1.0 - failure)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waveform::Waveform;

    const LINES: [&str; 5] = ["0s snr 20 # calm", "", "30s loss 0.5", "60 dead", "90s repeat"];

    #[test]
    fn states_hold_until_the_next_line_and_the_script_begins_anew() {
        let script = Script::parse(LINES).expect("reads");
        let at = |ms| script.at(Instant::from_millis(ms));
        assert_eq!(at(0), (State::Snr(20.0), Instant::from_millis(30_000)));
        assert_eq!(at(59_999), (State::Loss(0.5), Instant::from_millis(60_000)));
        assert_eq!(at(60_000), (State::Dead, Instant::from_millis(90_000)));
        assert_eq!(at(900_001), (State::Snr(20.0), Instant::from_millis(930_000)));
        let once = Script::parse(["0 snr 5"]).expect("reads");
        assert_eq!(once.at(Instant(u64::MAX - 1)), (State::Snr(5.0), Instant(u64::MAX)));
    }

    #[test]
    fn a_span_takes_what_its_parts_leave() {
        let script = Script::parse(LINES).expect("reads");
        let anchor = Anchor::of(Waveform::find(2400, "L").expect("known"));
        let over = |from, until| script.over(Instant::from_millis(from), Instant::from_millis(until), &anchor);
        let (snr, failure) = over(1_000, 5_800).expect("alive");
        assert!((snr.expect("a ratio") - 20.0).abs() < 1e-9 && failure < 1e-9);
        assert_eq!(over(31_000, 35_800), Some((None, 0.5)));
        assert_eq!(over(61_000, 65_800), None);
        // Half at 20 dB, half dead: (1 + snr) is the root of 101.
        let (snr, _) = over(87_600, 92_400).expect("half alive");
        assert!((snr.expect("a ratio") - 10.0 * (101f64.sqrt() - 1.0).log10()).abs() < 1e-9, "{snr:?}");
    }

    #[test]
    fn what_is_wrong_with_a_script_is_said_with_its_line() {
        for (lines, part) in [
            (vec!["1s snr 20"], "0s"),
            (vec!["0s snr 20", "0s dead"], "line 2"),
            (vec!["0s snr twenty"], "after the time"),
            (vec!["0s loss 1.5"], "after the time"),
            (vec!["soon dead"], "begins with a time"),
            (vec!["0s dead", "9s repeat", "10s dead"], "nothing follows"),
            (vec!["0s snr 5 9"], "more than one"),
            (vec!["0s dead", "0.1s repeat"], "1s at least"),
            (vec![], "0s"),
        ] {
            let why = Script::parse(lines.clone()).expect_err("wrong");
            assert!(why.contains(part), "{lines:?}: {why}");
        }
    }
}
