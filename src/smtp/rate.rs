//! How often each client address may do something, and what listeners have refused: small shared state, without a clock of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::time::{Duration, Instant};

/// Addresses kept in mind; beyond them whoever has asked for least is forgotten.
const MOST_ADDRESSES: usize = 4096;
const MINUTE: Duration = Duration::from_secs(60);

/// So many a minute for each client address. Whoever was quiet may have a whole minute's worth at once.
#[derive(Debug)]
pub struct Pace {
    /// What one costs.
    each: Duration,
    /// When what an address had is paid for.
    paid_at: Mutex<BTreeMap<IpAddr, Instant>>,
}

impl Pace {
    /// So many a minute.
    pub fn new(per_minute: u32) -> Self {
        Self { each: MINUTE / per_minute.max(1), paid_at: Mutex::default() }
    }

    /// Whether `address` may have one more now; then it has it.
    pub fn take(&self, now: Instant, address: IpAddr) -> bool {
        let address = network(address);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let due = paid_at.get(&address).copied().unwrap_or(now).max(now) + self.each;
        if due.since(now) > MINUTE {
            return false;
        }
        if paid_at.len() >= MOST_ADDRESSES && !paid_at.contains_key(&address) {
            paid_at.retain(|_, at| *at > now);
            if paid_at.len() >= MOST_ADDRESSES
                && let Some(least) = paid_at.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address)
            {
                paid_at.remove(&least);
            }
        }
        paid_at.insert(address, due);
        true
    }

    /// Addresses kept in mind.
    pub fn addresses(&self) -> usize {
        self.paid_at.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What counts as one client: an IPv4 address, or the network an IPv6 host draws its addresses from.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// What a listener refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A session: there are too many, of all or of this address.
    Sessions,
    /// A session: too many in a minute.
    SessionRate,
    /// Mail in clear.
    TlsRequired,
    /// A message: too many in a minute.
    MessageRate,
    /// A message that is too large.
    Size,
    /// A recipient that is one too many.
    Recipients,
}

impl Refusal {
    /// All of them, with their names in the status.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Sessions, "sessions"),
        (Self::SessionRate, "session-rate"),
        (Self::TlsRequired, "tls-required"),
        (Self::MessageRate, "message-rate"),
        (Self::Size, "size"),
        (Self::Recipients, "recipients"),
    ];
}

/// How often a listener has refused what, since the start.
#[derive(Debug, Default)]
pub struct Refused([AtomicU64; 6]);

impl Refused {
    /// Counts one.
    pub fn count(&self, refusal: Refusal) {
        if let Some(counter) = self.0.get(refusal as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All counts by name, those at zero included.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let of = |refusal: Refusal| self.0.get(refusal as usize).map_or(0, |c| c.load(Ordering::Relaxed));
        Refusal::ALL.iter().map(|(refusal, name)| ((*name).to_owned(), of(*refusal))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_minutes_worth_is_had_at_once_and_then_one_by_one() {
        let pace = Pace::new(3);
        let (a, b) = (ip("192.0.2.1"), ip("::ffff:192.0.2.1"));
        assert!(pace.take(at(0), a) && pace.take(at(0), b) && pace.take(at(0), a));
        assert!(!pace.take(at(0), a) && !pace.take(at(19_999), a));
        assert!(pace.take(at(0), ip("192.0.2.2")), "another address has its own");
        assert!(pace.take(at(20_000), a) && !pace.take(at(20_001), a));
        assert!((0..3).all(|_| pace.take(at(600_000), a)) && !pace.take(at(600_000), a));
    }

    #[test]
    fn a_v6_host_with_many_addresses_is_one_client() {
        let pace = Pace::new(1);
        assert!(pace.take(at(0), ip("2001:db8::1")) && !pace.take(at(0), ip("2001:db8::ffff:2")));
        assert!(pace.take(at(0), ip("2001:db8:0:1::1")));
    }

    #[test]
    fn a_crowd_of_addresses_fills_no_memory() {
        let pace = Pace::new(2);
        let busy = ip("192.0.2.1");
        assert!(pace.take(at(0), busy) && pace.take(at(0), busy));
        for n in 0..20_000u32 {
            assert!(pace.take(at(1), IpAddr::V4((0x0a00_0000 + n).into())));
        }
        assert_eq!(pace.addresses(), MOST_ADDRESSES);
        assert!(!pace.take(at(1), busy), "who has asked for most is remembered");
        assert!(pace.take(at(120_000), busy));
        assert!(pace.take(at(120_000), ip("198.51.100.1")));
        assert_eq!(pace.addresses(), 2, "and the rest forgotten once it is quiet");
    }

    #[test]
    fn refusals_are_counted_by_name() {
        let refused = Refused::default();
        for (refusal, name) in Refusal::ALL {
            refused.count(refusal);
            assert_eq!(refused.counts()[name], 1);
        }
        assert_eq!(refused.counts().len(), 6);
    }
}
