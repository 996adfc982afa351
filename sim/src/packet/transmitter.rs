//! What stands between a node and a packet bearer: a queue, a token bucket, and whatever must come before a datagram may leave
//! (a call's set-up, another sender's turn, a place in the time-division frame).
//!
//! Called by [`PacketNet`](super::PacketNet), which knows who reaches whom.

use std::collections::VecDeque;
use std::sync::Arc;

use aldis::time::{Duration, Instant};

use super::config::{Destination, NodeId};

/// One datagram on its way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) from: NodeId,
    pub(super) to: Destination,
    pub(super) port: u16,
    /// Its number among the sender's.
    pub(super) number: u64,
    pub(super) sent: Instant,
    pub(super) bytes: Arc<[u8]>,
}

/// A count of bits, scaled by the nanoseconds of a second so that a rate times a time is whole.
type NanoBits = u128;

const SECOND: u128 = 1_000_000_000;

/// One transmitter: a node's own, or the one channel of a half-duplex net.
#[derive(Debug)]
pub(super) struct Transmitter {
    pub(super) queue: VecDeque<Datagram>,
    /// Tokens, as of `at`; `at` may lie ahead while a call is set up or the channel turns around.
    tokens: NanoBits,
    at: Instant,
    /// What is in force between `at` and the next look.
    rate_bps: u64,
    cap: NanoBits,
    speaker: Option<NodeId>,
    /// When the call ends if nothing more is sent.
    call_until: Option<Instant>,
    /// Voids departures planned earlier.
    pub(super) turn: u64,
}

/// What the datagram at the head asks of its transmitter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) from: NodeId,
    /// Bytes it takes with all headers.
    pub(super) bytes: u64,
    pub(super) rate_bps: u64,
    pub(super) bucket_bytes: u64,
    pub(super) turnaround: Duration,
    pub(super) setup: Duration,
    pub(super) hangs_up: Duration,
    /// Length of the frame and the sender's place in it.
    pub(super) frame: Duration,
    pub(super) place: Duration,
}

impl Transmitter {
    /// An idle one, its bucket full.
    pub(super) fn new(rate_bps: u64, bucket_bytes: u64) -> Self {
        let full = bits(bucket_bytes);
        Self {
            queue: VecDeque::new(),
            tokens: full,
            at: Instant::ZERO,
            rate_bps,
            cap: full,
            speaker: None,
            call_until: None,
            turn: 0,
        }
    }

    /// Brings the bucket up to `now`.
    pub(super) fn accrue(&mut self, now: Instant) {
        let span = u128::from(now.0.saturating_sub(self.at.0));
        self.tokens = (self.tokens + span * u128::from(self.rate_bps)).min(self.cap.max(self.tokens));
        self.at = self.at.max(now);
    }

    /// Nothing can be sent now: the bucket fills as far as an idle one may.
    pub(super) fn idle(&mut self, rate_bps: u64, bucket_bytes: u64) {
        (self.rate_bps, self.cap) = (rate_bps, bits(bucket_bytes));
        self.tokens = self.tokens.min(self.cap);
        self.turn += 1;
    }

    /// Takes a datagram in hand at `now` and says when it is through. Accrue first.
    pub(super) fn take(&mut self, now: Instant, terms: Terms) -> Instant {
        self.turn += 1;
        if !terms.setup.is_zero() && self.call_until.is_none_or(|until| until < now) {
            self.at = self.at.max(now + terms.setup);
        }
        if self.speaker.is_some_and(|speaker| speaker != terms.from) {
            self.at = self.at.max(now + terms.turnaround);
        }
        self.speaker = Some(terms.from);
        let needed = bits(terms.bytes);
        self.rate_bps = terms.rate_bps.max(1);
        // While it waits for its place in the frame, what will leave there after it earns its tokens too.
        let frame = u128::from(nanos(terms.frame)) * u128::from(self.rate_bps);
        self.cap = bits(terms.bucket_bytes).max(needed + frame);
        let missing = needed.saturating_sub(self.tokens).div_ceil(u128::from(self.rate_bps));
        let through = self.at.max(now) + Duration::from_nanos(u64::try_from(missing).unwrap_or(u64::MAX));
        let through = place_after(through, terms.frame, terms.place);
        // Also while it is being set up: a second look does not begin anew.
        self.call_until = Some(through + terms.hangs_up);
        through
    }

    /// A datagram of `bytes` bytes with all headers has left.
    pub(super) fn pay(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(bits(bytes));
    }
}

/// The first instant at or after `at` that is a whole number of frames after the place.
fn place_after(at: Instant, frame: Duration, place: Duration) -> Instant {
    let (frame, place) = (nanos(frame), nanos(place));
    if frame == 0 {
        return at;
    }
    let frames = at.0.saturating_sub(place).div_ceil(frame);
    Instant(frames.saturating_mul(frame).saturating_add(place))
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

fn bits(bytes: u64) -> NanoBits {
    u128::from(bytes) * 8 * SECOND
}
