//! `aldis-sim bench link`: how long one message takes between two whole nodes, against the limit of an ideal code.
//!
//! Measured as link-rules E1 and E2 say: ten messages of the same size go first, one after the other, at the same loss; then, on an
//! idle link, the one that counts, from its first preamble symbol to the receiver's commit. Long interleaver both ways, frames
//! authenticated, reports as lossy as traffic, transmissions of at most 127.5 s. A cell is one rate, encoded size, turnaround
//! and loss; the message is made so long that its frozen payload has that size.

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};
use serde::Serialize;

use crate::bench::{self, Sample, Summary};
use crate::channel::{Damage, Loss};
use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::lab::{Lab, Setup};
use crate::limit::{self, Link};
use crate::modem::ModemConfig;
use crate::trace::Trace;
use crate::waveform::Waveform;

const SENDER: StationId = StationId(0);
const RECEIVER: StationId = StationId(1);
/// Messages that go before the one that counts.
const WARM_UP: usize = 10;
/// Longest a single message may take before a trial is given up.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);
/// What a bar allows over the limit.
pub const BAR: f64 = 1.25;

/// One measured case.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Cell {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Bytes of the frozen payload, envelope included.
    pub payload_bytes: u64,
    /// Turnaround of both modems.
    pub turnaround_s: f64,
    /// Share of frames lost, both ways.
    pub loss: f64,
}

/// What a cell came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CellReport {
    /// The case.
    #[serde(flatten)]
    pub cell: Cell,
    /// First and last seed.
    pub seeds: [u64; 2],
    /// The figures.
    #[serde(flatten)]
    pub summary: Summary,
    /// Mean bytes of the payload as frozen.
    pub frozen_bytes: f64,
    /// Mean seconds from the 250 to the first preamble symbol.
    pub key_after_s: f64,
    /// The limit of an ideal code, seconds.
    pub limit_s: f64,
    /// Mean over limit.
    pub ratio: f64,
    /// Whether the ratio keeps the bar and every message arrived.
    pub passed: bool,
    /// Hash over the hashes of all trials.
    pub trace_hash: String,
}

/// The nine cells of the bar: 1, 4 and 10 KiB at 0, 5 and 20 %, 2400 bit/s, 4 s.
pub fn cells() -> Vec<Cell> {
    let sizes = [1024, 4096, 10_240];
    let cell = |payload_bytes, loss| Cell { rate: 2400, payload_bytes, turnaround_s: 4.0, loss };
    sizes.iter().flat_map(|&size| [0.0, 0.05, 0.2].map(|loss| cell(size, loss))).collect()
}

impl Cell {
    /// Reads `RATE,BYTES,TURNAROUND,LOSS`, e.g. `2400,10240,4,0.2`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "RATE,BYTES,TURNAROUND,LOSS such as 2400,10240,4,0.2";
        let parts: Vec<&str> = text.split(',').collect();
        let [rate, bytes, turnaround, loss] = parts.as_slice() else { return Err(form.into()) };
        let wrong = |_| form.to_owned();
        let cell = Self {
            rate: rate.parse().map_err(|_| form.to_owned())?,
            payload_bytes: bytes.parse().map_err(|_| form.to_owned())?,
            turnaround_s: turnaround.parse().map_err(wrong)?,
            loss: loss.parse().map_err(wrong)?,
        };
        if Waveform::find(cell.rate, "L").is_none() {
            return Err(format!("{} bit/s is not in the table", cell.rate));
        }
        let sound = (700..=1 << 20).contains(&cell.payload_bytes)
            && (0.0..=60.0).contains(&cell.turnaround_s)
            && (0.0..0.9).contains(&cell.loss);
        if sound { Ok(cell) } else { Err("700 bytes to 1 MiB, at most 60 s, loss below 0.9".into()) }
    }

    /// Measures this cell over `seeds`, `jobs` trials at a time.
    pub fn measure(&self, seeds: &[u64], jobs: usize, progress: impl FnMut(usize)) -> CellReport {
        let size = self.message_size();
        let trials = std::sync::Mutex::new((0.0, 0.0));
        let samples = bench::measure(
            seeds,
            jobs,
            |seed| {
                let (sample, frozen, key_after) = self.trial(seed, size);
                let mut sums = trials.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *sums = (sums.0 + frozen as f64, sums.1 + key_after);
                sample
            },
            progress,
        );
        let (frozen, key_after) = *trials.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waveform = self.waveform();
        let link = Link::new(waveform, self.turnaround_s, self.loss);
        let limit_s = link.incremental_redundancy(link.frames(self.payload_bytes));
        let summary = Summary::of(&samples, bench::floor(waveform, 0));
        let ratio = summary.mean_s / limit_s;
        let hashes: String = samples.iter().map(|s| s.trace_hash.as_str()).collect();
        let n = seeds.len().max(1) as f64;
        let milli = |x: f64| (x * 1000.0).round() / 1000.0;
        CellReport {
            cell: *self,
            seeds: [seeds.first().copied().unwrap_or(0), seeds.last().copied().unwrap_or(0)],
            passed: summary.delivered == samples.len() && ratio <= BAR,
            summary,
            // Sums in the order of completion: rounded, so that the order does not show.
            frozen_bytes: milli(frozen / n),
            key_after_s: milli(key_after / n),
            limit_s,
            ratio,
            trace_hash: crate::trace::short_digest(hashes.as_bytes()),
        }
    }

    /// One trial: its sample, the bytes frozen, and seconds from the 250 to the first preamble symbol.
    pub fn trial(&self, seed: u64, size: u64) -> (Sample, u64, f64) {
        let mut lab = self.lab(seed);
        for _ in 0..WARM_UP {
            lab.submit(SENDER, RECEIVER, size, Precedence::Routine);
            let all = |lab: &Lab| lab.ledger().iter().all(|e| e.fate.confirmed.is_some());
            if !lab.run_while(lab.at() + PATIENCE, all) {
                return (self.failed(seed, lab), 0, 0.0);
            }
            idle(&mut lab);
        }
        let ether = lab.world().ether();
        let before = [SENDER, RECEIVER].map(|id| (ether.stats(id).air, ether.stats(id).fed));
        let number = lab.submit(SENDER, RECEIVER, size, Precedence::Routine);
        let submitted = lab.at();
        let confirmed = lab.run_while(submitted + PATIENCE, |lab| lab.ledger()[number].fate.confirmed.is_some());
        if !confirmed {
            return (self.failed(seed, lab), 0, 0.0);
        }
        idle(&mut lab);
        let ether = lab.world().ether();
        let after = [SENDER, RECEIVER].map(|id| (ether.stats(id).air, ether.stats(id).fed));
        let own: Vec<_> = ether.antenna_log().iter().filter(|e| e.station == SENDER).copied().collect();
        let fate = lab.ledger()[number].fate.clone();
        let first = bench::first_symbol(&own, submitted);
        let from_first = |at: Option<Instant>| at.zip(first).map(|(at, first)| at.since(first).as_secs_f64());
        let key_after = first.zip(fate.promised).map_or(0.0, |(first, told)| first.since(told).as_secs_f64());
        let sample = Sample {
            seed,
            delivery_s: from_first(fate.committed),
            confirmed_s: from_first(fate.confirmed),
            air_s: after.iter().zip(&before).map(|(a, b)| (a.0 - b.0).as_secs_f64()).sum(),
            bytes: after.iter().zip(&before).map(|(a, b)| a.1 - b.1).sum(),
            trace_hash: lab.finish_trace(),
        };
        (sample, fate.payload_bytes, key_after)
    }

    /// Bytes of a message whose frozen payload has this cell's size: found by freezing some on a link that loses nothing.
    pub fn message_size(&self) -> u64 {
        let mut size = self.payload_bytes;
        for _ in 0..4 {
            let mut lab = Self { loss: 0.0, ..*self }.lab(1);
            let number = lab.submit(SENDER, RECEIVER, size, Precedence::Routine);
            let end = lab.at() + Duration::from_secs(60);
            lab.run_while(end, |lab| lab.ledger()[number].fate.payload_bytes > 0);
            let frozen = lab.ledger()[number].fate.payload_bytes;
            if frozen == self.payload_bytes {
                break;
            }
            size = (size + self.payload_bytes).saturating_sub(frozen);
        }
        size
    }

    fn waveform(&self) -> &'static Waveform {
        Waveform::find(self.rate, "L").unwrap_or(&crate::waveform::TABLE[0])
    }

    fn lab(&self, seed: u64) -> Lab {
        let modem = ModemConfig {
            turnaround: Duration::from_secs_f64(self.turnaround_s),
            ..ModemConfig::new(*self.waveform())
        };
        let bytes = (limit::frame_payload(self.rate) + limit::FRAME_OVERHEAD) as u32;
        let loss = match self.loss {
            0.0 => Loss::Ideal,
            p => Loss::Cells { bytes, p, damage: Damage::Garbage },
        };
        let ether = EtherConfig::net(seed, 2, &modem, LinkConfig { loss, ..LinkConfig::default() });
        let most = Some(Duration::from_millis(127_500));
        Lab::new(&Setup { max_transmission: most, ..Setup::new(seed, &["ship", "shore"], ether) }, Trace::hashed())
    }

    fn failed(&self, seed: u64, mut lab: Lab) -> Sample {
        let trace_hash = lab.finish_trace();
        Sample { seed, delivery_s: None, confirmed_s: None, air_s: 0.0, bytes: 0, trace_hash }
    }
}

/// Waits until nobody has keyed for two minutes.
fn idle(lab: &mut Lab) {
    let quiet = Duration::from_secs(120);
    let end = lab.at() + PATIENCE;
    loop {
        let last = lab.world().ether().antenna_log().last().map_or(Instant::ZERO, |e| e.at);
        if (lab.is_quiet() && lab.at() >= last + quiet) || lab.at() >= end {
            return;
        }
        lab.run_until(if lab.is_quiet() { last + quiet } else { lab.at() + Duration::from_secs(1) });
    }
}

impl CellReport {
    /// One line.
    pub fn text(&self) -> String {
        let (c, s) = (&self.cell, &self.summary);
        format!(
            "{} bit/s {:5} B {} s {:4.0} %: mean {:6.2} s (se {:.2}) p95 {:6.2} air {:6.2} s {:6.0} B; limit {:5.2} ratio {:.3} {} \
             ({} of {} delivered, keyed {:.2} s after the 250) {}",
            c.rate,
            c.payload_bytes,
            c.turnaround_s,
            c.loss * 100.0,
            s.mean_s,
            s.standard_error_s,
            s.p95_s,
            s.air_s,
            s.bytes,
            self.limit_s,
            self.ratio,
            if self.passed { "ok" } else { "OVER THE BAR" },
            s.delivered,
            s.trials,
            self.key_after_s,
            self.trace_hash
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_or_refused_in_words() {
        let cell = Cell::parse("2400,10240,4,0.2").expect("reads");
        assert_eq!(cell, cells()[8]);
        for text in ["2400,10240,4", "2401,10240,4,0.2", "2400,10,4,0.2", "2400,10240,4,0.95", "a,b,c,d"] {
            assert!(Cell::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_message_is_as_long_as_its_payload_is_to_be() {
        let cell = cells()[0];
        let (sample, frozen, key_after) = cell.trial(3, cell.message_size());
        assert!(frozen.abs_diff(1024) <= 4, "{frozen}");
        assert!(sample.delivery_s.is_some_and(|t| t >= 9.6), "{sample:?}");
        assert!(key_after <= 1.0, "keyed {key_after} s after the 250 (E1)");
    }
}
