//! The hosts of one next hop, in the order in which they are to be tried.
//!
//! A driver asks [`Hosts::order`] before each delivery, tries one after the other until one takes it, and tells how each did. A host
//! that failed stands behind the others for a while; one that refused the login is left alone that long, so that waiting mail does
//! not lock the account. Among hosts of the same rank chance decides. Without a clock: the caller passes `now`.

use crate::time::{Duration, Instant};

/// Bytes kept of why a host failed.
const LONGEST_WHY: usize = 500;

/// How a host failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It could not be reached, does not talk to us, or not as is wanted of it.
    Away,
    /// It refused our login for good.
    Login,
}

/// What is known of one host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Its last failure, until when it counts, and what it was.
    pub failed: Option<(Failure, Instant, String)>,
    /// Deliveries it got as far as hearing about.
    pub served: u64,
    /// Times it failed.
    pub failures: u64,
}

/// Where a host stands among the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// What is lower goes first.
    pub rank: u16,
    /// Several addresses of one host stand together, in their order.
    pub group: u16,
}

/// The hosts of one next hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hosts {
    back_off: Duration,
    places: Vec<Place>,
    standings: Vec<Standing>,
}

impl Hosts {
    /// So many hosts in this order, of which nothing is known.
    pub fn new(count: usize, back_off: Duration) -> Self {
        let place = |at| Place { rank: at, group: at };
        Self::placed((0..u16::try_from(count).unwrap_or(u16::MAX)).map(place).collect(), back_off)
    }

    /// The same, of which some may be of equal rank.
    pub fn placed(places: Vec<Place>, back_off: Duration) -> Self {
        Self { back_off, standings: vec![Standing::default(); places.len()], places }
    }

    /// The hosts to try now, by index: those in order first, then those that failed, the longest ago first. `chance` shuffles equals.
    pub fn order(&self, now: Instant, chance: u64) -> Vec<usize> {
        let mut order: Vec<(Option<Instant>, u16, u64, usize)> = Vec::new();
        for (index, (standing, place)) in self.standings.iter().zip(&self.places).enumerate() {
            let behind = match &standing.failed {
                Some((Failure::Login, until, _)) if *until > now => continue,
                Some((Failure::Away, until, _)) if *until > now => Some(*until),
                Some(_) | None => None,
            };
            order.push((behind, place.rank, draw(chance, place.group), index));
        }
        order.sort_unstable();
        order.into_iter().map(|(.., index)| index).collect()
    }

    /// The host heard about a message, whatever it made of it.
    pub fn served(&mut self, index: usize) {
        if let Some(standing) = self.standings.get_mut(index) {
            standing.failed = None;
            standing.served = standing.served.saturating_add(1);
        }
    }

    /// The host failed.
    pub fn failed(&mut self, now: Instant, index: usize, failure: Failure, why: &str) {
        if let Some(standing) = self.standings.get_mut(index) {
            let why = why.chars().take(LONGEST_WHY).collect();
            standing.failed = Some((failure, now + self.back_off, why));
            standing.failures = standing.failures.saturating_add(1);
        }
    }

    /// Why no host is to be tried now, where that is so.
    pub fn why_none(&self) -> &str {
        let mut words = self.standings.iter().filter_map(|s| s.failed.as_ref().map(|(_, _, why)| why.as_str()));
        words.next_back().unwrap_or("no host")
    }

    /// What is known of each.
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }
}

/// A number that is another for each group and each chance (SplitMix64).
const fn draw(chance: u64, group: u16) -> u64 {
    let mut z = chance.wrapping_add((group as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> Instant {
        Instant::from_millis(s * 1000)
    }

    #[test]
    fn a_host_that_failed_stands_behind_the_others_for_a_while() {
        let mut hosts = Hosts::new(3, Duration::from_secs(60));
        assert_eq!(hosts.order(at(0), 7), [0, 1, 2]);
        hosts.failed(at(0), 0, Failure::Away, "refused");
        assert_eq!(hosts.order(at(1), 7), [1, 2, 0]);
        hosts.failed(at(2), 1, Failure::Away, "refused");
        hosts.failed(at(3), 2, Failure::Away, "refused");
        assert_eq!(hosts.order(at(4), 7), [0, 1, 2], "all failed, and all are tried, the longest ago first");
        assert_eq!(hosts.order(at(60), 7), [0, 1, 2]);
        hosts.failed(at(61), 0, Failure::Away, "refused");
        assert_eq!(hosts.order(at(62), 7), [1, 2, 0], "the others have served their time only now");
        hosts.served(0);
        assert_eq!(hosts.order(at(62), 7), [0, 1, 2], "word from it ends the wait");
        assert_eq!(
            hosts.standings().iter().map(|s| (s.served, s.failures)).collect::<Vec<_>>(),
            [(1, 2), (0, 1), (0, 1)]
        );
    }

    #[test]
    fn a_host_that_refused_the_login_is_left_alone() {
        let mut hosts = Hosts::new(2, Duration::from_secs(60));
        hosts.failed(at(0), 0, Failure::Login, "535 no");
        assert_eq!(hosts.order(at(1), 7), [1]);
        hosts.failed(at(1), 1, Failure::Login, &"535 ä".repeat(500));
        assert!(hosts.order(at(59), 7).is_empty() && hosts.why_none().starts_with("535 ä"));
        assert_eq!(hosts.why_none().chars().count(), LONGEST_WHY);
        assert_eq!(hosts.order(at(60), 7), [0]);
        assert_eq!(hosts.order(at(61), 7), [0, 1]);
    }

    #[test]
    fn equals_take_turns_and_addresses_of_one_host_stay_together() {
        let place = |(rank, group)| Place { rank, group };
        let mut hosts = Hosts::placed([(10, 0), (20, 1), (20, 1), (20, 2)].map(place).into(), Duration::from_secs(60));
        let orders: std::collections::BTreeSet<_> = (0..100).map(|chance| hosts.order(at(0), chance)).collect();
        assert_eq!(orders, [vec![0, 1, 2, 3], vec![0, 3, 1, 2]].into(), "seeds 0 to 99 show both, and nothing else");
        hosts.failed(at(0), 0, Failure::Away, "refused");
        assert!((0..100).all(|chance| hosts.order(at(1), chance)[3] == 0), "what failed stands behind worse ranks");
    }
}
