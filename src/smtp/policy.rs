//! What a server session is told once and for all: the listener's static rules, who the peer is, and the shared memory budget.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::data::{Bounds, Store};
use super::rate::{Pace, Refused};
use crate::mail::{BodyKind, MtPriority, Precedence, PriorityPolicy};
use crate::time::Duration;

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// MTA to MTA.
    Relay,
    /// Mail client to MTA (RFC 6409): MAIL needs AUTH unless the peer's network is trusted.
    Submission,
    /// LMTP (RFC 2033): an answer for each recipient after the content.
    Lmtp,
}

/// The mechanisms of AUTH that at least one user could succeed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mechanisms {
    /// PLAIN
    pub plain: bool,
    /// SCRAM-SHA-256, and SCRAM-SHA-256-PLUS where the connection exports what it binds to.
    pub scram: bool,
    /// EXTERNAL, for clients that showed a certificate.
    pub external: bool,
}

/// Static rules of one listener. Built once, shared by its sessions.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in greeting, EHLO and loop checks.
    pub hostname: String,
    /// What the listener is for.
    pub kind: Kind,
    /// STARTTLS is offered while TLS is off.
    pub starttls: bool,
    /// MAIL needs TLS first, whoever the peer is.
    pub tls_required: bool,
    /// Messages that an address may begin, unless its network is trusted.
    pub pace: Option<Arc<Pace>>,
    /// What was refused.
    pub refused: Arc<Refused>,
    /// AUTH is offered inside TLS.
    pub auth: bool,
    /// With these mechanisms.
    pub mechanisms: Mechanisms,
    /// AUTH is also offered in clear to loopback peers. Sensible only on a listener without TLS.
    pub auth_clear_loopback: bool,
    /// MAIL needs AUTH first, unless the peer's network is trusted.
    pub auth_required: bool,
    /// Networks whose peers need no AUTH and may set any precedence: address and prefix length.
    pub trust: Vec<(IpAddr, u8)>,
    /// Highest precedence honoured from peers neither authenticated nor trusted.
    pub max_precedence: Precedence,
    /// DELIVERBY is announced, with this least number of seconds for mode R.
    pub deliver_by: Option<u32>,
    /// FUTURERELEASE is announced where civil time is known: a release may be this far away.
    pub future_release: Option<Duration>,
    /// BURL is offered to users who have authenticated, for what lies at these servers: names in small letters, and ports. Empty: not.
    pub burl: Vec<(String, u16)>,
    /// Networks whose peers' 8-bit octets in header fields are taken without SMTPUTF8.
    pub raw_header: Vec<(IpAddr, u8)>,
    /// Networks whose peers' bare CR and LF become line ends.
    pub normalize: Vec<(IpAddr, u8)>,
    /// What the numbers of MT-PRIORITY mean.
    pub mt_priority: PriorityPolicy,
    /// Octets of one message; announced as SIZE.
    pub message_bytes: u64,
    /// Further octets of a message that is already too big which are read and dropped before the line is cut.
    pub overrun_bytes: u64,
    /// Largest message by precedence (RFC 6710: 552 5.7.16), where that is less than `message_bytes`.
    pub precedence_bytes: BTreeMap<Precedence, u64>,
    /// Octets of one line of content, its end not counted.
    pub line_bytes: usize,
    /// Recipients of one transaction.
    pub recipients: usize,
    /// Protocol errors in one session before 421.
    pub errors: u32,
    /// Failed AUTHs in one session before 421.
    pub auth_failures: u32,
    /// Wait before a failed AUTH is answered.
    pub auth_delay: Duration,
    /// Received fields a message may carry.
    pub received_fields: usize,
    /// Received fields that name this host which a message may carry before it is a loop.
    pub own_received_fields: usize,
    /// Silence of the client before 421.
    pub idle: Duration,
    /// Longest session.
    pub total: Duration,
    /// Longest wait for an answer to a question before 421.
    pub answer: Duration,
    /// Memory for content in all sessions.
    pub budget: Arc<Budget>,
}

impl Policy {
    /// The rules of a relay listener with the bounds shipped profiles use.
    pub fn relay(hostname: impl Into<String>, budget: Arc<Budget>) -> Self {
        Self {
            hostname: hostname.into(),
            kind: Kind::Relay,
            starttls: false,
            tls_required: false,
            pace: None,
            refused: Arc::default(),
            auth: false,
            mechanisms: Mechanisms { plain: true, scram: false, external: false },
            auth_clear_loopback: false,
            auth_required: false,
            trust: Vec::new(),
            max_precedence: Precedence::Routine,
            deliver_by: None,
            future_release: None,
            burl: Vec::new(),
            raw_header: Vec::new(),
            normalize: Vec::new(),
            mt_priority: PriorityPolicy::Stanag4406,
            message_bytes: 25 << 20,
            overrun_bytes: 50 << 20,
            precedence_bytes: BTreeMap::new(),
            line_bytes: 256 << 10,
            recipients: 1000,
            errors: 20,
            auth_failures: 3,
            auth_delay: Duration::from_secs(1),
            received_fields: 100,
            own_received_fields: 4,
            idle: Duration::from_secs(300),
            total: Duration::from_secs(3600),
            answer: Duration::from_secs(300),
            budget,
        }
    }

    /// Whether `address` lies in a trusted network.
    pub fn trusts(&self, address: IpAddr) -> bool {
        among(&self.trust, address)
    }

    /// Where a peer's content gathers.
    pub(super) fn store(&self, peer: Peer, body: BodyKind) -> Store {
        let bounds = Bounds { message: self.message_bytes, line: self.line_bytes };
        match body {
            BodyKind::BinaryMime => Store::binary(bounds, &self.budget),
            BodyKind::SevenBit | BodyKind::EightBitMime if among(&self.normalize, peer.known_as()) => {
                Store::new(bounds, &self.budget).mending()
            }
            BodyKind::SevenBit | BodyKind::EightBitMime => Store::new(bounds, &self.budget),
        }
    }

    /// The largest message of a number's level.
    pub(super) fn bytes_for(&self, number: MtPriority) -> u64 {
        self.precedence_bytes.get(&self.mt_priority.level(number)).copied().unwrap_or(u64::MAX)
    }
}

/// Whether `address` is in one of the networks.
pub(super) fn among(networks: &[(IpAddr, u8)], address: IpAddr) -> bool {
    networks.iter().any(|(network, prefix)| contains(*network, *prefix, address))
}

/// Whether `address` is in `network/prefix`; a v4-mapped v6 address counts as v4.
fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (network.to_canonical(), address.to_canonical()) {
        (IpAddr::V4(n), IpAddr::V4(a)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            (n.to_bits() ^ a.to_bits()) & mask == 0
        }
        (IpAddr::V6(n), IpAddr::V6(a)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            (n.to_bits() ^ a.to_bits()) & mask == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Who connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its address; `None` on a Unix socket, which counts as loopback.
    pub address: Option<IpAddr>,
    /// TLS was on from the first byte.
    pub tls: bool,
}

impl Peer {
    /// The address by which it is known: on a Unix socket it is this machine.
    pub fn known_as(&self) -> IpAddr {
        self.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Whether the peer is this machine.
    pub fn is_loopback(&self) -> bool {
        self.address.is_none_or(|a| a.to_canonical().is_loopback())
    }
}

/// Memory that all sessions of a node share, so that many clients cannot together do what one may not.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// Bytes claimed now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes still free.
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used())
    }

    fn take(&self, bytes: u64) -> bool {
        let grown = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A share of the [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Claim {
    /// An empty claim.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Grows the claim to at least `bytes`, by `step` where there is room for it. False when the budget has no more.
    pub fn cover(&mut self, bytes: u64, step: u64) -> bool {
        if bytes <= self.bytes {
            return true;
        }
        let missing = bytes - self.bytes;
        let grown = [missing.max(step), missing].into_iter().find(|n| self.budget.take(*n));
        self.bytes += grown.unwrap_or(0);
        grown.is_some()
    }

    /// Gives everything back.
    pub fn release(&mut self) {
        self.budget.give(self.bytes);
        self.bytes = 0;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_their_prefix_says() {
        let ip = |t: &str| t.parse::<IpAddr>().expect("address");
        assert!(contains(ip("192.0.2.0"), 24, ip("192.0.2.200")));
        assert!(!contains(ip("192.0.2.0"), 24, ip("192.0.3.1")));
        assert!(contains(ip("0.0.0.0"), 0, ip("203.0.113.9")));
        assert!(contains(ip("127.0.0.0"), 8, ip("::ffff:127.0.0.1")));
        assert!(contains(ip("2001:db8::"), 32, ip("2001:db8:1::1")));
        assert!(!contains(ip("::"), 0, ip("192.0.2.1")));
    }

    #[test]
    fn a_dropped_claim_returns_to_the_budget() {
        let budget = Arc::new(Budget::new(100));
        let mut a = Claim::new(&budget);
        let mut b = Claim::new(&budget);
        assert!(a.cover(60, 10) && !b.cover(50, 10) && b.cover(40, 64));
        assert_eq!(budget.free(), 0);
        drop(a);
        assert_eq!(budget.free(), 60);
        b.release();
        assert_eq!(budget.used(), 0);
    }
}
