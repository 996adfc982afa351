//! How datagrams are lost: one by one, in bursts, or while a site is out for seconds to minutes.
//!
//! Every decision hangs on (seed, purpose, who, index) alone: another receiver, or a datagram lost for another reason, shifts nothing.

use aldis::time::{Duration, Instant};

use crate::rng::Stream;

/// How a path, or the part that all paths share, loses datagrams.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum DatagramLoss {
    /// None is lost.
    #[default]
    Ideal,
    /// Each is lost on its own with probability `p`.
    Each {
        /// Probability.
        p: f64,
    },
    /// A two-state chain (Gilbert-Elliott) that steps once per datagram of the sender and loses all in its bad state.
    Bursts {
        /// Probability of going from good to bad.
        bad: f64,
        /// Probability of going from bad to good.
        good: f64,
    },
}

impl DatagramLoss {
    /// Losses of share `p` that come in bursts of `mean` datagrams on average; one by one for a mean of `None`.
    pub fn of(p: f64, mean: Option<f64>) -> Self {
        match mean {
            _ if p <= 0.0 => Self::Ideal,
            None => Self::Each { p },
            Some(mean) => Self::Bursts { bad: p / mean / (1.0 - p), good: 1.0 / mean },
        }
    }
}

/// One place where datagrams of one sender are lost.
#[derive(Clone, Debug)]
pub(super) struct Losses {
    seed: u64,
    name: [u64; 3],
    /// The datagram the chain stands at, and whether it is bad there.
    chain: Option<(u64, bool)>,
}

impl Losses {
    /// The losses of `purpose` on the way between the two that `ends` names.
    pub(super) fn new(seed: u64, purpose: u64, ends: [u64; 2]) -> Self {
        Self { seed, name: [purpose, ends[0], ends[1]], chain: None }
    }

    /// Whether the sender's datagram number `index` is lost here; indices never fall.
    pub(super) fn strikes(&mut self, loss: DatagramLoss, index: u64) -> bool {
        match loss {
            DatagramLoss::Ideal => false,
            DatagramLoss::Each { p } => self.stream(index).chance(p),
            DatagramLoss::Bursts { bad, good } => {
                // It starts in its stationary state.
                let (mut at, mut state) =
                    self.chain.unwrap_or_else(|| (index, self.stream(index).chance(bad / (bad + good))));
                while at < index {
                    at += 1;
                    state ^= self.stream(at).chance(if state { good } else { bad });
                }
                self.chain = Some((at, state));
                state
            }
        }
    }

    fn stream(&self, index: u64) -> Stream {
        let [purpose, from, to] = self.name;
        Stream::keyed(self.seed, "datagram loss", &[purpose, from, to, index])
    }
}

/// Outages of a site: clear and faded spells follow one another, each of exponential length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fade {
    /// Mean length of a clear spell.
    pub every: Duration,
    /// Mean length of a fade.
    pub lasts: Duration,
}

/// The weather at one site.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    fade: Fade,
    seed: u64,
    site: u64,
    /// Number of the present spell, and when it ends. Even spells are clear.
    spell: u64,
    ends: Instant,
}

impl Weather {
    pub(super) fn new(fade: Fade, seed: u64, site: u64) -> Self {
        let mut weather = Self { fade, seed, site, spell: 0, ends: Instant::ZERO };
        weather.ends = Instant::ZERO + weather.length();
        weather
    }

    /// Whether the site is out at `now`; time never steps back.
    pub(super) fn is_out(&mut self, now: Instant) -> bool {
        while self.ends <= now {
            self.spell += 1;
            self.ends += self.length();
        }
        self.spell % 2 == 1
    }

    fn length(&self) -> Duration {
        let mean = if self.spell % 2 == 1 { self.fade.lasts } else { self.fade.every };
        let unit = Stream::keyed(self.seed, "fade", &[self.site, self.spell]).unit();
        // `1 - unit` lies in (0, 1]; libm gives the same bits everywhere. A spell never has no length, so that time goes on.
        let nanos = mean.as_nanos() as f64 * -libm::log(1.0 - unit);
        Duration::from_nanos((nanos.min(1e18) as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_have_the_share_and_the_length_asked_for() {
        let loss = DatagramLoss::of(0.1, Some(8.0));
        let mut losses = Losses::new(1, 0, [0, 1]);
        let lost: Vec<bool> = (0..100_000).map(|i| losses.strikes(loss, i)).collect();
        let share = lost.iter().filter(|&&l| l).count() as f64 / lost.len() as f64;
        let bursts = lost.chunk_by(|a, b| a == b).filter(|r| r[0]).count() as f64;
        // The bands of V4.
        assert!((share - 0.1).abs() < 0.0104, "{share}");
        assert!((share * lost.len() as f64 / bursts - 8.0).abs() < 0.65, "{bursts}");
        assert_eq!(DatagramLoss::of(0.1, None), DatagramLoss::Each { p: 0.1 });
        assert_eq!(DatagramLoss::of(0.0, Some(3.0)), DatagramLoss::Ideal);
    }

    #[test]
    fn a_site_is_out_for_the_share_of_time_that_its_spells_say() {
        let fade = Fade { every: Duration::from_secs(540), lasts: Duration::from_secs(60) };
        let mut weather = Weather::new(fade, 7, 0);
        let out = (0..2_000_000).filter(|&s| weather.is_out(Instant::from_millis(s * 1000))).count();
        // About 3300 fades: the share's standard error is 0.0023.
        let share = out as f64 / 2e6;
        assert!((share - 0.1).abs() < 0.007, "{share}");
        assert!((2950..3700).contains(&(weather.spell / 2)), "{}", weather.spell);
    }
}
