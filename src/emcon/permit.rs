//! The permit a core must be handed before it can radiate, and the emission that comes of it.

use core::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Gate;
use crate::mail::BearerId;
use crate::time::{Duration, Instant};

/// Leave to feed one transmitter once, at most two interleaver blocks. Only [`Gate::permit`] makes one.
///
/// It borrows the gate, so no order can fall between the permit and the emission made from it.
#[must_use]
pub struct AirPermit<'gate> {
    pub(super) bearer: BearerId,
    pub(super) until: Instant,
    pub(super) epoch: u64,
    pub(super) gate: PhantomData<&'gate Gate>,
}

/// What an emission does to the transmitter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keying {
    /// Raise the key line; the modem starts its preamble.
    Key,
    /// Hand these bytes to the keyed modem.
    Feed(Vec<u8>),
    /// Send one datagram on a network.
    Datagram {
        /// Where to.
        to: SocketAddrV4,
        /// Its differentiated services code point.
        dscp: u8,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// Let pass what the kernel says of memberships (IGMP), which no driver sends: hold the interface's filter open, no longer than until
    /// then, and no longer than the bearer's epoch lasts.
    Igmp {
        /// When the order ends that allows it; `None`: it names no end.
        until: Option<Instant>,
    },
    /// Join the bearer's multicast groups, of which the kernel tells the network; those that are joined are told of again.
    Join,
    /// Become a member of one more group, or be one no longer; the network is told of that, too.
    Membership {
        /// Which.
        group: Ipv4Addr,
        /// To be a member.
        member: bool,
    },
}

/// The only thing a driver keys with or writes to a transmitter. Owned, because the driver acts later; stale once the
/// bearer's epoch has moved on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Emission {
    bearer: BearerId,
    keying: Keying,
    until: Instant,
    epoch: u64,
}

impl AirPermit<'_> {
    /// Which bearer this permit is for.
    pub fn bearer(&self) -> &BearerId {
        &self.bearer
    }

    /// Turns the permit into leave to raise the key line.
    pub fn key(self) -> Emission {
        self.emit(Keying::Key)
    }

    /// Turns the permit into leave to feed `bytes`.
    pub fn feed(self, bytes: Vec<u8>) -> Emission {
        self.emit(Keying::Feed(bytes))
    }

    /// Turns the permit into leave to send one datagram.
    pub fn datagram(self, to: SocketAddrV4, dscp: u8, bytes: Vec<u8>) -> Emission {
        self.emit(Keying::Datagram { to, dscp, bytes })
    }

    /// Turns the permit into leave to let the kernel's words on memberships pass, until then at most.
    pub fn igmp(self, until: Option<Instant>) -> Emission {
        self.emit(Keying::Igmp { until })
    }

    /// Turns the permit into leave to join multicast groups.
    pub fn join(self) -> Emission {
        self.emit(Keying::Join)
    }

    /// Turns the permit into leave to join a multicast group, or to leave it.
    pub fn membership(self, group: Ipv4Addr, member: bool) -> Emission {
        self.emit(Keying::Membership { group, member })
    }

    /// When this leave ends: nothing may be put on the air that would still be radiating then.
    pub fn until(&self) -> Instant {
        self.until
    }

    fn emit(self, keying: Keying) -> Emission {
        Emission { bearer: self.bearer, keying, until: self.until, epoch: self.epoch }
    }
}

impl Emission {
    /// Which bearer it is for.
    pub fn bearer(&self) -> &BearerId {
        &self.bearer
    }

    /// What to do, if the gate has not moved on and the time has not passed. A driver calls this immediately before it keys or
    /// writes, and drops the emission on `None`.
    pub fn redeem(self, watch: &EpochWatch, now: Instant) -> Option<Keying> {
        (self.epoch == watch.current() && now <= self.until).then_some(self.keying)
    }
}

/// The bearer's epoch as a driver sees it: every tightening order moves it on.
#[derive(Clone, Debug, Default)]
pub struct EpochWatch(Arc<AtomicU64>);

impl EpochWatch {
    /// The epoch now.
    pub fn current(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// How long the filter of an interface lets IGMP pass after a driver has said so (docs/satcom.md): a node that has died holds none open.
pub const FILTER_HOLDS: Duration = Duration::from_secs(3);

/// How long a permit may be held before it is used: a driver that was suspended must ask again.
pub(super) const PERMIT_LIFE: Duration = Duration::from_secs(10);
