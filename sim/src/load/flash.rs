//! FLASH among ROUTINE (link-rules D4): how long its first byte takes to the air, and whether a symbol of the preempted mail leaves twice.
//!
//! While the sender is keyed: two interleaver blocks and one frame. While it listens: the rest of the peer's transmission, turnaround
//! and preamble, and the report that opens every answer.

use std::collections::BTreeSet;

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};
use serde::Serialize;

use super::{SHIP, SHORE, Way, rounded};
use crate::bench;
use crate::lab::{Lab, Transmission, What};
use crate::rng::Stream;

/// From the order's first byte in the modem to the first preamble symbol, and the node's own work: encoding, two commits.
const WORK: Duration = Duration::from_millis(400);
/// Bytes of the FLASH as handed in.
const FLASH_BYTES: u64 = 1024;
/// Longest a load may take.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// Who is keyed when the FLASH is handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// The sender itself.
    Keyed,
    /// Its peer.
    Listening,
}

/// What many of them came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FlashReport {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Interleaver.
    pub interleaver: &'static str,
    /// Share of frames lost, both ways.
    pub fer: f64,
    /// Who was keyed.
    pub moment: Moment,
    /// Seconds from handing it in to its first byte on the air, mean. While listening they count from the end of the peer's carrier.
    pub mean_s: f64,
    /// The longest.
    pub most_s: f64,
    /// What the longest may be.
    pub bar_s: f64,
    /// Symbols of the preempted mail that left twice.
    pub resent: u64,
    /// FLASH that reached the air and everything that arrived, of how many.
    pub delivered: [usize; 2],
    /// Whether the bar was kept and nothing left twice.
    pub passed: bool,
    /// Hash over the hashes of all seeds.
    pub trace_hash: String,
}

/// Every rate with both interleavers, turnaround 2 s.
pub fn ways(losses: &[f64]) -> Vec<Way> {
    super::bulk::ways(losses)
}

#[derive(Default)]
struct Case {
    wait: Option<Duration>,
    bar: Duration,
    resent: u64,
    whole: bool,
    hash: String,
}

/// Hands a FLASH in among ROUTINE for each seed, at an instant drawn from it.
pub fn measure(way: &Way, moment: Moment, seeds: &[u64], jobs: usize) -> FlashReport {
    let cases = bench::measure(seeds, jobs, |seed| case(way, moment, seed), |_| {});
    let waits: Vec<f64> = cases.iter().filter_map(|c| Some(c.wait?.as_secs_f64())).collect();
    let bar = cases.iter().map(|c| c.bar).max().unwrap_or_default();
    let most = waits.iter().copied().fold(0.0, f64::max);
    let resent = cases.iter().map(|c| c.resent).sum();
    let delivered = cases.iter().filter(|c| c.whole && c.wait.is_some()).count();
    let hashes: String = cases.iter().map(|c| c.hash.as_str()).collect();
    FlashReport {
        rate: way.waveform.rate,
        interleaver: way.waveform.interleaver,
        fer: way.loss,
        moment,
        mean_s: rounded(waits.iter().sum::<f64>() / waits.len().max(1) as f64, 3),
        most_s: rounded(most, 3),
        bar_s: rounded(bar.as_secs_f64(), 3),
        resent,
        delivered: [delivered, cases.len()],
        passed: delivered == cases.len() && resent == 0 && cases.iter().all(|c| c.wait.is_some_and(|w| w <= c.bar)),
        trace_hash: crate::trace::short_digest(hashes.as_bytes()),
    }
}

fn case(way: &Way, moment: Moment, seed: u64) -> Case {
    let mut chance = Stream::new(seed, "flash", 0);
    let (busy, other) = match moment {
        Moment::Keyed => (SHIP, SHORE),
        Moment::Listening => (SHORE, SHIP),
    };
    let begin = || {
        let mut lab = way.lab(seed, None);
        lab.record();
        // Some two hundred seconds of mail.
        lab.submit(busy, other, u64::from(way.waveform.rate) * 25 + 600, Precedence::Routine);
        lab
    };
    // Its second transmission is the first long one; how long is seen by letting it pass once.
    let mut lab = begin();
    let edges = |lab: &Lab| {
        let own = lab.world().ether().antenna_log().iter().filter(|e| e.station == busy).skip(2);
        own.map(|e| e.at).take(2).collect::<Vec<_>>()
    };
    lab.run_while(Instant::ZERO + PATIENCE, |lab| edges(lab).len() == 2);
    let [on, off] = edges(&lab)[..] else { return Case::default() };
    let rest = match moment {
        Moment::Keyed => way.waveform.block() * 2 + longest_frame(way, &lab.tapes()) + WORK,
        Moment::Listening => Duration::ZERO,
    };
    let room = off.since(on).saturating_sub(rest).as_nanos() as u64;
    let mut lab = begin();
    lab.run_until(on + Duration::from_nanos(chance.below(room.max(1))));
    let at = lab.at();
    let flash = lab.submit(SHIP, SHORE, FLASH_BYTES, Precedence::Flash);
    let done = lab.run_while(at + PATIENCE, |lab| lab.ledger().iter().all(|e| e.fate.confirmed.is_some()));
    let tapes = lab.tapes();
    let first = first_byte(&lab, &tapes, flash);
    let block = way.waveform.block();
    let (from, bar) = match moment {
        Moment::Keyed => (Some(at), block * 2 + longest_frame(way, &tapes) + WORK),
        Moment::Listening => {
            let log = lab.world().ether().antenna_log();
            let off = log.iter().find(|e| e.station == SHORE && !e.on && e.at >= at).map(|e| e.at);
            let turnaround = Duration::from_secs_f64(way.turnaround_s);
            (off, turnaround + way.waveform.preamble() + opening(way, first.and_then(|(_, i)| tapes.get(i))) + WORK)
        }
    };
    Case {
        wait: first.zip(from).map(|((first, _), from)| first.since(from)),
        bar,
        resent: sent_twice(&tapes),
        whole: done && lab.check().is_empty(),
        hash: lab.finish_trace(),
    }
}

/// When the first byte of this message's symbols was on the air, and in which transmission.
fn first_byte(lab: &Lab, tapes: &[Transmission], message: usize) -> Option<(Instant, usize)> {
    let short = lab.ledger()[message].fate.short?;
    tapes.iter().enumerate().filter(|(_, t)| t.station == lab.ledger()[message].from).find_map(|(i, t)| {
        let (piece, _) = t.chunks().find(|(_, chunk)| chunk.short == short)?;
        Some((t.on_air(piece.at), i))
    })
}

/// Air of the longest frame.
fn longest_frame(way: &Way, tapes: &[Transmission]) -> Duration {
    let frames = tapes.iter().flat_map(|t| &t.pieces).filter(|p| matches!(p.what, What::Symbols(_)));
    air(way, frames.map(|p| p.bytes).max().unwrap_or(0))
}

/// Air of what a transmission says before its first symbol.
fn opening(way: &Way, transmission: Option<&Transmission>) -> Duration {
    let first = transmission.and_then(|t| t.pieces.iter().find(|p| matches!(p.what, What::Symbols(_))));
    air(way, first.map_or(0, |p| p.at))
}

fn air(way: &Way, bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(way.waveform.rate))
}

/// Symbols that left more than once, of all transfers.
pub fn sent_twice(tapes: &[Transmission]) -> u64 {
    let mut left = BTreeSet::new();
    let mut twice = 0;
    for transmission in tapes {
        for (_, chunk) in transmission.chunks() {
            for i in 0..chunk.symbols.len() {
                let symbol = (transmission.station, chunk.short, usize::from(chunk.first) + i);
                twice += u64::from(!left.insert(symbol));
            }
        }
    }
    twice
}

impl FlashReport {
    /// One line.
    pub fn text(&self) -> String {
        let since = match self.moment {
            Moment::Keyed => "keyed:     first byte after",
            Moment::Listening => "listening: first byte after the peer's carrier",
        };
        format!(
            "{:>4} bit/s {:<2} loss {:<4} {since} {:>7.3} s, at most {:>7.3} of {:>7.3} s, {} symbols resent, {}/{} {} {}",
            self.rate,
            self.interleaver,
            self.fer,
            self.mean_s,
            self.most_s,
            self.bar_s,
            self.resent,
            self.delivered[0],
            self.delivered[1],
            if self.passed { "ok" } else { "OVER THE BAR" },
            self.trace_hash
        )
    }
}
