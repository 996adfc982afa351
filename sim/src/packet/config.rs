//! What a packet bearer is made of.

use std::collections::{BTreeMap, BTreeSet};

use aldis::time::{Duration, Instant};
use serde::Serialize;

use super::loss::{DatagramLoss, Fade};

/// A node on a packet bearer, by its place in [`NetConfig::members`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct NodeId(pub u16);

/// A multicast group, by its place in [`NetConfig::groups`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Group(pub u16);

/// Whither a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Destination {
    /// One node.
    Node(NodeId),
    /// Every member of a group but the sender.
    Group(Group),
}

/// What a node transmits with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberConfig {
    /// Bits per second.
    pub rate_bps: u64,
    /// Bytes an idle transmitter may save up and then send at once; 0: every datagram takes its full time at the rate.
    pub bucket_bytes: u64,
    /// Bytes that may wait here; a datagram that does not fit any more is dropped.
    pub queue_bytes: u64,
    /// Longest datagram taken, in bytes.
    pub mtu_bytes: u64,
}

/// A directed path between two nodes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PathConfig {
    /// From the end of a datagram's transmission to its arrival.
    pub delay: Duration,
    /// Greatest further delay; every datagram draws its own, so that datagrams may overtake one another.
    pub jitter: Duration,
    /// What this receiver loses, on its own.
    pub loss: DatagramLoss,
    /// Whether it is there at time zero.
    pub up: bool,
}

/// What a change of the contact plan makes of a path.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct PathState {
    /// Whether it is there from now on.
    pub up: bool,
    /// The most its sender may send at while it lasts; `None`: what the sender has.
    pub rate_bps: Option<u64>,
    /// Its delay while it lasts; `None`: the path's own.
    pub delay: Option<Duration>,
    /// Its loss while it lasts; `None`: the path's own.
    pub loss: Option<DatagramLoss>,
}

/// A planned change of a path.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Change {
    /// When.
    pub at: Instant,
    /// Sender.
    pub from: NodeId,
    /// Receiver.
    pub to: NodeId,
    /// What it is from then on.
    pub state: PathState,
}

/// Everything a [`PacketNet`](super::PacketNet) is made from.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NetConfig {
    /// Seeds every draw.
    pub seed: u64,
    /// The nodes.
    pub members: Vec<MemberConfig>,
    /// Who reaches whom: from, to. What is not here is never delivered.
    pub paths: BTreeMap<(NodeId, NodeId), PathConfig>,
    /// Who belongs to which group.
    pub groups: Vec<BTreeSet<NodeId>>,
    /// Bytes of headers that each datagram takes on the way besides its own.
    pub overhead_bytes: u64,
    /// What is lost before the paths part, for all receivers of a datagram alike.
    pub shared_loss: DatagramLoss,
    /// Outages of whole sites by rain, blockage or handover.
    pub fade: Option<Fade>,
    /// Which sites fade.
    pub fades_at: BTreeSet<NodeId>,
    /// True: one channel for all, one sender at a time, in order of arrival. False: each node sends when it likes.
    pub half_duplex: bool,
    /// From one sender's last datagram to another's first, on a half-duplex channel.
    pub turnaround: Duration,
    /// Time-division frame: datagrams leave only at the node's own place in it. Zero: at any time.
    pub frame: Duration,
    /// Time to set a call or session up before the first datagram.
    pub setup: Duration,
    /// How long a call without traffic stays up; the next datagram sets up anew. Without meaning when `setup` is zero.
    pub hangs_up: Duration,
    /// True: what cannot reach its receiver now waits at the sender for a contact. False: it is sent and lost.
    pub holds: bool,
    /// The contact plan.
    pub plan: Vec<Change>,
}
