//! Packet bearers: delay, round trip and rate of a geostationary channel (V20), and books that balance (V18).

use aldis::time::{Duration, Instant};

use super::Finding;
use crate::packet::{
    DatagramLoss, Destination, Fade, Group, MemberConfig, NetConfig, NodeId, PacketNet, PathConfig, Preset,
};

const SHIP: NodeId = NodeId(0);
const SHORE: NodeId = NodeId(1);

/// The cases of this file.
pub(super) fn cases() -> Vec<Finding> {
    let round_trip = |size: usize| {
        let mut net = PacketNet::new(geo());
        let there = carry(&mut net, Instant::ZERO, SHIP, 1, size);
        carry(&mut net, there, SHORE, 1, size).since(Instant::ZERO).as_secs_f64()
    };
    let bulk = carry(&mut PacketNet::new(geo()), Instant::ZERO, SHIP, 10, 1024).since(Instant::ZERO).as_secs_f64();
    // 8 bytes take a millisecond each way.
    let ping = Finding::new("V20", "GEO at 64 kbit/s, round trip of 8 bytes, seconds", 0.542, round_trip(8), 1e-6);
    let bulk = Finding::new("V20", "GEO at 64 kbit/s, 10 KiB one way, seconds", 1.55, bulk, 1e-6);
    let full = Finding::new("V20", "GEO at 64 kbit/s, round trip of 1000 bytes, seconds", 0.79, round_trip(1000), 1e-6);
    vec![
        ping.by("2 (0.27 + 8 b / R)", 1),
        full.by("2 (0.27 + 8 b / R)", 1),
        bulk.by("8 b / R + 0.27", 1),
        Finding::none("V18", "packet bearers whose books do not balance", unbalanced()),
    ]
}

/// When the last of `count` datagrams to the other end arrives; infinitely late when one does not.
fn carry(net: &mut PacketNet, from: Instant, sender: NodeId, count: usize, size: usize) -> Instant {
    let receiver = if sender == SHIP { SHORE } else { SHIP };
    (0..count).for_each(|_| net.send(from, sender, Destination::Node(receiver), 0, &vec![0; size]));
    let (mut last, mut got) = (from, 0);
    while let Some(at) = net.next_timeout() {
        net.handle_timeout(at);
        while net.poll().is_some() {
            (last, got) = (at, got + 1);
        }
    }
    if got == count { last } else { Instant(u64::MAX) }
}

/// Two nodes on the preset `geo-ip`.
fn geo() -> NetConfig {
    let preset = Preset::find("geo-ip").expect("the table has it");
    let member = MemberConfig {
        rate_bps: preset.rate_bps,
        bucket_bytes: 0,
        queue_bytes: preset.queue_bytes,
        mtu_bytes: preset.mtu_bytes,
    };
    let path = PathConfig { delay: preset.delay, jitter: preset.jitter, loss: DatagramLoss::Ideal, up: true };
    NetConfig {
        seed: 20,
        members: vec![member; 2],
        paths: [((SHIP, SHORE), path), ((SHORE, SHIP), path)].into(),
        groups: vec![[SHIP, SHORE].into()],
        ..NetConfig::default()
    }
}

/// How many of some overloaded, fading channels do not balance at some step.
fn unbalanced() -> u64 {
    let broken = |seed: u64| {
        let fade = Some(Fade { every: Duration::from_secs(20), lasts: Duration::from_secs(5) });
        let shared_loss = DatagramLoss::of(0.1, Some(4.0));
        let mut net = PacketNet::new(NetConfig { seed, fade, fades_at: [SHORE].into(), shared_loss, ..geo() });
        (0..400).any(|i| {
            net.send(Instant::from_millis(i * 100), SHIP, Destination::Group(Group(0)), 0, &[0; 1000]);
            net.balance().is_err()
        })
    };
    (0..20).filter(|&seed| broken(seed)).count() as u64
}
