//! What repeats and parity cost: ideal selective repeat over HF, blind parity, and repair for many receivers (V12 to V14).
//!
//! Air time, turnaround and loss are the ether's and the packet bearer's; the codes are ideal, as the formulas assume: any `k` shards
//! of a message give the whole.

use std::collections::BTreeSet;

use aldis::time::{Duration, Instant};

use super::transmission::{A, B, Transmission, waveform};
use super::{Finding, three_sigma};
use crate::channel::{Damage, Loss};
use crate::ether::{Ether, EtherConfig, LinkConfig};
use crate::modem::{ModemConfig, ModemOutput};
use crate::packet::{DatagramLoss, Destination, Group, MemberConfig, NetConfig, NodeId, PacketNet, PathConfig};
use crate::waveform::TAIL_BITS;

/// The cases of this file.
pub(super) fn cases(quick: bool) -> Vec<Finding> {
    let runs = if quick { 40 } else { 2_000 };
    let mut findings = vec![
        SelectiveRepeat { rate: 2400, payload: 250, bytes: 10 * 1024, turnaround_s: 4, loss: 0.2 }.finding(107.3, runs),
        SelectiveRepeat { rate: 300, payload: 128, bytes: 10 * 1024, turnaround_s: 2, loss: 0.05 }.finding(381.9, runs),
        SelectiveRepeat { rate: 9600, payload: 500, bytes: 100 * 1024, turnaround_s: 2, loss: 0.2 }
            .finding(147.4, runs),
    ];
    let runs = if quick { 2_000 } else { 40_000 };
    findings.extend([(11, 0.99921), (10, 0.99774)].map(|(parity, expected)| blind(parity, expected, runs)));
    let runs = if quick { 60 } else { 3_000 };
    findings.extend([repeats(runs * 32), parity(runs)]);
    findings
}

/// V12: a message in frames of `payload` bytes and a header; what was lost is named in the answer and sent again.
struct SelectiveRepeat {
    rate: u32,
    payload: usize,
    bytes: usize,
    turnaround_s: u64,
    loss: f64,
}

/// Bytes of a frame besides its payload.
const HEADER: usize = 12;

/// Longest transmission.
const CAP: Duration = Duration::from_millis(127_500);

impl SelectiveRepeat {
    fn finding(&self, expected: f64, runs: u64) -> Finding {
        let times: Vec<f64> = (0..runs).map(|seed| self.run(seed)).collect();
        let n = runs as f64;
        let mean = times.iter().sum::<f64>() / n;
        let variance = times.iter().map(|t| (t - mean) * (t - mean)).sum::<f64>() / (n - 1.0);
        let Self { rate, bytes, turnaround_s, loss, .. } = self;
        let what = format!(
            "mean seconds of ideal selective repeat, {rate} bit/s L, {} KiB, turnaround {turnaround_s} s, loss {loss}",
            bytes / 1024
        );
        let tolerance = if runs < 2_000 { 3.0 * (variance / n).sqrt() } else { 0.015 * expected };
        Finding::new("V12", what, expected, mean, tolerance)
            .by("E[u] = T(m) + [left] C + sum Bin(l;m,p) E[u-m+l]", runs)
    }

    /// Seconds from the first preamble symbol until the transmission that completes the message has ended.
    fn run(&self, seed: u64) -> f64 {
        let frame = self.payload + HEADER;
        let turnaround = Duration::from_secs(self.turnaround_s);
        let modem = ModemConfig {
            key_delay: Duration::ZERO,
            turnaround,
            buffer_bytes: 1 << 20,
            ..ModemConfig::new(waveform(self.rate, "L"))
        };
        let mut net = EtherConfig::net(seed, 2, &modem, LinkConfig::default());
        let damage = Damage::Garbage;
        let loss = Loss::Cells { bytes: u32::try_from(frame).unwrap_or(u32::MAX), p: self.loss, damage };
        // Answers are never lost.
        net.links.insert((A, B), LinkConfig { loss, ..LinkConfig::default() });
        let mut ether = Ether::new(net);
        let w = modem.waveform;
        let blocks = CAP.saturating_sub(w.preamble()).as_nanos() / w.block().as_nanos().max(1);
        let most = (w.bits(u64::try_from(blocks).unwrap_or(1)) - TAIL_BITS) / 8 / frame as u64;
        let most = usize::try_from(most).unwrap_or(1).max(1);
        let count = self.bytes.div_ceil(self.payload);
        let mut owed: BTreeSet<usize> = (0..count).collect();
        let mut held = BTreeSet::new();
        let (mut at, mut began) = (Instant::ZERO, None);
        loop {
            let sent: Vec<usize> = owed.iter().copied().take(most).collect();
            let burst: Vec<u8> = sent.iter().flat_map(|&i| frame_of(i, frame)).collect();
            let heard = Transmission::send(&mut ether, at, A, &burst);
            began.get_or_insert(heard.keyed);
            // The receiver knows a frame by its content; which frame it should be, it reads from the first bytes.
            let bytes = heard.bytes(B);
            held.extend(bytes.chunks(frame).filter_map(|piece| {
                let index = u32::from_be_bytes(piece.get(..4)?.try_into().ok()?) as usize;
                (index < count && piece == frame_of(index, frame)).then_some(index)
            }));
            at = end_of_carrier(&heard);
            if held.len() == count {
                return at.since(began.unwrap_or(at)).as_secs_f64();
            }
            // The answer: 16 bytes and a bit per frame of the transmission.
            let mut answer = vec![0u8; 16 + sent.len().div_ceil(8)];
            for (bit, _) in sent.iter().enumerate().filter(|(_, i)| held.contains(i)) {
                answer[16 + bit / 8] |= 1 << (bit % 8);
            }
            let heard = Transmission::send(&mut ether, at, B, &answer);
            let answer = heard.bytes(A);
            for (bit, index) in sent.iter().enumerate() {
                if answer.get(16 + bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1) {
                    owed.remove(index);
                }
            }
            at = end_of_carrier(&heard);
        }
    }
}

/// A frame that no garbage looks like: its index, then a pattern of it.
fn frame_of(index: usize, length: usize) -> Vec<u8> {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let pattern = (4..length).map(|i| (i as u8) ^ (number as u8));
    number.to_be_bytes().into_iter().chain(pattern).collect()
}

fn end_of_carrier(heard: &Transmission) -> Instant {
    let off = heard.said.iter().rev().find(|(_, _, output)| matches!(output, ModemOutput::Antenna { on: false, .. }));
    off.map_or(Instant::ZERO, |(at, ..)| *at)
}

/// V13: 32 shards and some parity, sent blind in one transmission; whole when any 32 arrive.
fn blind(parity: usize, expected: f64, runs: u64) -> Finding {
    let (needed, p, shard) = (32, 0.1, 24);
    let loss = Loss::Cells { bytes: 24, p, damage: Damage::Garbage };
    let modem = ModemConfig::new(waveform(9600, "L"));
    let link = LinkConfig { loss, ..LinkConfig::default() };
    let mut ether = Ether::new(EtherConfig::net(13, 2, &modem, link));
    let sent = vec![0x5A; (needed + parity) * shard];
    let (mut whole, mut at) = (0u64, Instant::ZERO);
    for _ in 0..runs {
        let heard = Transmission::send(&mut ether, at, A, &sent);
        let arrived = heard.bytes(B).chunks(shard).filter(|s| s.iter().all(|&b| b == 0x5A)).count();
        whole += u64::from(arrived >= needed);
        at = end_of_carrier(&heard);
    }
    let share = whole as f64 / runs as f64;
    let n = usize::try_from(runs).unwrap_or(1);
    let tolerance = if parity == 11 && runs >= 40_000 { 0.0004 } else { three_sigma(expected, n) };
    let what = format!("share of messages whole, 32 shards and {parity} of parity, blind at p = 0.1");
    Finding::new("V13", what, expected, share, tolerance).by("P(Bin(32 + r, 0.1) <= r)", runs)
}

const RECEIVERS: u16 = 10;

/// V14: a frame is sent again to all until each of ten receivers has it.
fn repeats(frames: u64) -> Finding {
    let mut cast = Cast::new();
    let mut sent = 0u64;
    for _ in 0..frames {
        let mut has = BTreeSet::new();
        while has.len() < usize::from(RECEIVERS) {
            has.extend(cast.send());
            sent += 1;
        }
    }
    let measured = sent as f64 / frames as f64;
    let what = "frames on air per useful frame, ten receivers at p = 0.1, repeats";
    Finding::new("V14", what, 1.758, measured, 0.02 * 1.758).by("sum over j of 1 - (1 - p^j)^N", frames)
}

/// V14: of an ideal code over 32 frames new ones are sent until each of ten receivers has any 32.
fn parity(runs: u64) -> Finding {
    let mut cast = Cast::new();
    let mut sent = 0u64;
    for _ in 0..runs {
        let mut has = [0; RECEIVERS as usize];
        while has.iter().any(|&n| n < 32) {
            cast.send().into_iter().for_each(|NodeId(i)| has[usize::from(i) - 1] += 1);
            sent += 1;
        }
    }
    let measured = sent as f64 / (runs * 32) as f64;
    let what = "frames on air per useful frame, ten receivers at p = 0.1, parity over 32";
    Finding::new("V14", what, 1.216, measured, 0.02 * 1.216).by("E[max of N negative binomials] / k", runs)
}

/// One sender and ten receivers on a packet bearer.
struct Cast {
    net: PacketNet,
    at: Instant,
}

impl Cast {
    fn new() -> Self {
        let member = MemberConfig { rate_bps: 64_000, bucket_bytes: 0, queue_bytes: 1500, mtu_bytes: 1500 };
        let loss = DatagramLoss::Each { p: 0.1 };
        let path = PathConfig { delay: Duration::from_millis(270), jitter: Duration::ZERO, loss, up: true };
        let receivers = || (1..=RECEIVERS).map(NodeId);
        let net = PacketNet::new(NetConfig {
            seed: 14,
            members: vec![member; usize::from(RECEIVERS) + 1],
            paths: receivers().map(|to| ((NodeId(0), to), path)).collect(),
            groups: vec![receivers().collect()],
            ..NetConfig::default()
        });
        Self { net, at: Instant::ZERO }
    }

    /// Sends one frame to all; who got it.
    fn send(&mut self) -> Vec<NodeId> {
        self.net.send(self.at, NodeId(0), Destination::Group(Group(0)), 0, &[0; 100]);
        let mut got = Vec::new();
        while let Some(at) = self.net.next_timeout() {
            self.net.handle_timeout(at);
            self.at = at;
            got.extend(std::iter::from_fn(|| self.net.poll()).map(|(id, _)| id));
        }
        got
    }
}
