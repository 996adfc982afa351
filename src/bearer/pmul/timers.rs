//! How long the machines wait, derived from the rate and the delay of the link; and the chance that keeps receivers apart.

use crate::time::{Duration, Instant};
use crate::units::Bps;

/// The waits of a sender and a receiver. Names in brackets are those of ACP 142.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timers {
    /// A datagram out and one back.
    pub round_trip: Duration,
    /// From the end of a round until somebody who has not answered is asked again (ACK_RE-TRANSMISSION_TIME).
    pub repeat: Duration,
    /// What `repeat` grows by each time nobody answers, in percent (BACK-OFF_FACTOR).
    pub back_off_percent: u32,
    /// No wait grows beyond this.
    pub longest: Duration,
    /// From the first list of missing pieces until they are sent again, so that other lists join.
    pub gather: Duration,
    /// Acknowledgements are spread over this (ACK_DELAY_UPPER_BOUND).
    pub ack_delay: Duration,
    /// A message of which nothing has come for so long is answered as it is.
    pub quiet: Duration,
    /// From an incomplete acknowledgement until it is said again (ACK_PDU_TIME).
    pub ack_again: Duration,
    /// How long pieces are kept whose address was not heard (UNDEFINED_PDU_EXPIRY_TIME).
    pub unidentified: Duration,
    /// Between repeats to receivers in silence (EMCON_RTI).
    pub silent_interval: Duration,
    /// How many of these (EMCON_RTC).
    pub silent_repeats: u32,
}

/// What an acknowledgement with a short list takes, UDP and IPv4 included.
const ACK_BYTES: u64 = 28 + 24 + 16;
const UDP_BYTES: u64 = 28;

impl Timers {
    /// Good waits for a link of this rate and one-way delay, PDUs of `max_pdu` octets and so many receivers that share the way back.
    pub fn of(rate: Bps, delay: Duration, max_pdu: usize, receivers: usize) -> Self {
        let pdu = rate.airtime(max_pdu as u64 + UDP_BYTES);
        let round_trip = delay * 2;
        // Twice the room that everybody's answer takes: few of them meet.
        let answers = rate.airtime(ACK_BYTES * 2 * receivers as u64);
        let ack_delay = if receivers <= 1 { Duration::ZERO } else { answers.max(Duration::from_millis(50)) };
        // Datagrams of other messages come between those of one.
        let quiet = pdu * 4 + Duration::from_millis(200);
        let answer = round_trip + quiet + ack_delay + pdu;
        Self {
            round_trip,
            repeat: answer + answer / 4,
            back_off_percent: 150,
            longest: Duration::from_secs(3600),
            gather: ack_delay,
            ack_delay,
            quiet,
            ack_again: (answer + ack_delay) * 2,
            unidentified: Duration::from_secs(1800),
            silent_interval: Duration::from_secs(30).max(answer * 4),
            silent_repeats: 4,
        }
    }

    /// The wait that follows `wait`.
    pub(super) fn grown(&self, wait: Duration) -> Duration {
        (wait.saturating_mul(self.back_off_percent.max(100)) / 100).min(self.longest.max(wait))
    }
}

/// A point in `[0, bound)`, another for each set of names.
pub(super) fn spread(bound: Duration, seed: u64, names: [u64; 3]) -> Duration {
    let drawn = drawn(seed, names);
    let bound = bound.as_nanos().min(u128::from(u64::MAX));
    Duration::from_nanos(((bound * u128::from(drawn)) >> 64) as u64)
}

/// A number, another for each set of names.
pub(super) fn drawn(seed: u64, names: [u64; 3]) -> u64 {
    // SplitMix64 over what is named.
    names.iter().fold(seed, |state, name| {
        let mut z = (state ^ name).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A token bucket: what leaves stays below a rate, but for a burst.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate: Bps,
    burst: Duration,
    /// When everything taken so far has left at the rate.
    spent_until: Instant,
}

impl Pacer {
    /// A full bucket of `burst` bytes; one datagram may always leave a full bucket.
    pub fn new(rate: Bps, burst: u64) -> Self {
        Self { rate, burst: rate.airtime(burst), spent_until: Instant::ZERO }
    }

    /// When the next datagram may leave.
    pub fn ready_at(&self) -> Instant {
        self.spent_until - self.burst
    }

    /// When everything taken so far has left at the rate.
    pub fn spent_until(&self) -> Instant {
        self.spent_until
    }

    /// Takes the tokens of a datagram that leaves now, UDP and IPv4 included.
    pub fn take(&mut self, now: Instant, pdu: usize) {
        self.spent_until = self.spent_until.max(now) + self.rate.airtime(pdu as u64 + UDP_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_at_once_and_the_rest_at_the_rate() {
        let mut pacer = Pacer::new(Bps(8000), 2000);
        let mut now = Instant::from_millis(1000);
        let mut left = Vec::new();
        for _ in 0..5 {
            now = now.max(pacer.ready_at());
            left.push(now.0 / 1_000_000);
            pacer.take(now, 972);
        }
        assert_eq!(left, [1000, 1000, 1000, 2000, 3000]);
    }

    #[test]
    fn chance_fills_its_bound_and_differs_by_name() {
        let bound = Duration::from_secs(1);
        let drawn: Vec<Duration> = (0..1000).map(|i| spread(bound, 7, [i, 2, 3])).collect();
        assert!(drawn.iter().all(|d| *d < bound));
        let early = drawn.iter().filter(|d| **d < bound / 4).count();
        assert!((200..300).contains(&early), "{early}");
        assert_eq!(spread(Duration::ZERO, 7, [1, 2, 3]), Duration::ZERO);
        assert_ne!(spread(bound, 7, [1, 2, 3]), spread(bound, 7, [2, 1, 3]));
    }

    #[test]
    fn waits_follow_rate_and_delay_and_grow_to_a_limit() {
        let slow = Timers::of(Bps(4800), Duration::from_millis(270), 1400, 10);
        let fast = Timers::of(Bps(512_000), Duration::from_millis(270), 1400, 10);
        assert!(slow.repeat > fast.repeat && slow.repeat >= slow.round_trip + slow.ack_delay + slow.quiet);
        assert_eq!(slow.grown(Duration::from_secs(10)), Duration::from_secs(15));
        assert_eq!(slow.grown(Duration::from_secs(3000)), Duration::from_secs(3600));
        assert_eq!(slow.grown(Duration::from_secs(7200)), Duration::from_secs(7200));
    }
}
