//! `aldis-sim bench link`: how long one message takes between two whole nodes, against the limit of an ideal code.
//!
//! Measured as link-rules E1 and E2 say: ten messages of the same size, at most 10 KiB, go first, one after the other, at the same
//! loss; then, on an idle link, the one that counts, from its first preamble symbol to the receiver's commit. Long interleaver both
//! ways, frames authenticated, reports as lossy as traffic, transmissions of at most 127.5 s. A cell is one rate, encoded size,
//! turnaround and loss; the message is made so long that its frozen payload has that size. Cold trials leave the ten messages out.
//!
//! A seed decides what the nodes draw and what the ether loses. The mail is the same in every trial, and so are the instants it is
//! handed in at where the one before was done in time, so that it need not be coded anew each time ([`crate::memo`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aldis::bearer::serial::{
    self,
    burst::{Air, Layout},
};
use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};
use aldis::units::Bps;
use serde::{Deserialize, Serialize};

use crate::bench::{self, Sample, Summary};
use crate::channel::{Damage, Loss};
use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::lab::{Lab, Setup};
use crate::limit::{self, Link};
use crate::modem::ModemConfig;
use crate::node::Economy;
use crate::trace::Trace;
use crate::waveform::Waveform;

const SENDER: StationId = StationId(0);
const RECEIVER: StationId = StationId(1);
/// Messages that go before the one that counts.
const WARM_UP: usize = 10;
/// Encoded size of those at most: what they are for is the estimate of the loss.
const WARM_UP_BYTES: u64 = 10 * 1024;
/// Seed of the mail.
const MAIL: u64 = 1;
/// Longest a single message may take before a trial is given up.
const PATIENCE: Duration = Duration::from_secs(4 * 86_400);
/// What a bar allows over the limit to a message that has had no forerunner.
pub const COLD_BAR: f64 = 1.35;

/// One measured case.
#[derive(Clone, Copy, PartialEq, Debug)]
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

/// What a cell came to. The first four fields are the keys of the limit tables.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CellReport {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Encoded size, KiB.
    pub size_kb: serde_json::Number,
    /// Turnaround, seconds.
    pub turnaround_s: serde_json::Number,
    /// Share of frames lost.
    pub fer: serde_json::Number,
    /// Mean seconds from the first preamble symbol to the receiver's commit.
    pub mean_s: f64,
    /// Standard error of that mean.
    pub standard_error_s: f64,
    /// 95th percentile.
    pub p95_s: f64,
    /// Mean seconds of carrier, both stations.
    pub air_s: f64,
    /// Mean bytes fed to both modems.
    pub bytes_on_air: f64,
    /// The limit of an ideal erasure code that knows the loss, seconds.
    pub ir_s: f64,
    /// Mean over that limit.
    pub ratio_ir: f64,
    /// Mean over ideal selective repeat.
    pub ratio_sr: f64,
    /// What `ratio_ir` may be.
    pub bar: f64,
    /// `ratio_ir` of messages between nodes that have never met.
    pub cold_ratio_ir: f64,
    /// Mean seconds of carrier after the receiver had everything, its report included.
    pub late_air_s: f64,
    /// What those may be: 15 % of the air, one block and a report.
    pub late_air_bar_s: f64,
    /// Mean bytes of the payload as frozen.
    pub payload_bytes: f64,
    /// Mean seconds from the 250 to the first preamble symbol.
    pub key_after_s: f64,
    /// First and last seed.
    pub seeds: [u64; 2],
    /// Messages that arrived, of those that counted, cold ones included.
    pub delivered: [usize; 2],
    /// Whether every message arrived and every bar was kept.
    pub passed: bool,
    /// Hash over the hashes of all trials.
    pub trace_hash: String,
}

/// What ideas beyond the notes' frames and interleaver gain in one cell, beside limits recomputed for each.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Gains {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Encoded size, KiB.
    pub size_kb: serde_json::Number,
    /// Turnaround, seconds.
    pub turnaround_s: serde_json::Number,
    /// Share of cells lost.
    pub fer: serde_json::Number,
    /// From the start of one frame to that of the next, as the link lays them out at that loss.
    pub frame_bytes: usize,
    /// The limit with the notes' frames, interleaver L both ways.
    pub ir_s: f64,
    /// The limit with the link's own frames.
    pub ir_frames_s: f64,
    /// Mean of what the link needs, interleaver L both ways; absent when a message did not arrive.
    pub mean_s: Option<f64>,
    /// The limit with the link's own frames and the soonest block of that rate for acknowledgements.
    pub ir_answers_s: f64,
    /// The same where traffic has the best of the rate's interleavers.
    pub ir_chosen_s: f64,
    /// Mean of what the link needs where it chooses both.
    pub mean_chosen_s: Option<f64>,
    /// First and last seed.
    pub seeds: [u64; 2],
}

impl Gains {
    /// One line.
    pub fn text(&self) -> String {
        let over =
            |mean: Option<f64>, limit: f64| mean.map_or("lost".into(), |m| format!("{m:9.2} s ({:.3})", m / limit));
        format!(
            "{:>4} bit/s {:>3} KiB {:>2} s {:>4} : limit {:9.2} s, frames of {:>3} B {:9.2} s, link {}; short answers {:9.2} s, \
             best block {:9.2} s, link choosing {}",
            self.rate,
            self.size_kb,
            self.turnaround_s,
            self.fer,
            self.ir_s,
            self.frame_bytes,
            self.ir_frames_s,
            over(self.mean_s, self.ir_frames_s),
            self.ir_answers_s,
            self.ir_chosen_s,
            over(self.mean_chosen_s, self.ir_chosen_s),
        )
    }
}

/// The limits of one cell where an answer is wanted after every transmission, every second and every third.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AnswerLimits {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Encoded size, KiB.
    pub size_kb: serde_json::Number,
    /// Turnaround, seconds.
    pub turnaround_s: serde_json::Number,
    /// Share of cells lost.
    pub fer: serde_json::Number,
    /// With the link's own frames and interleaver L both ways.
    pub long_s: [f64; 3],
    /// The same with acknowledgements in the soonest block of the rate.
    pub short_s: [f64; 3],
}

impl AnswerLimits {
    /// One line.
    pub fn text(&self) -> String {
        let row = |[each, second, third]: [f64; 3]| {
            format!(
                "{each:9.2} s, second {second:9.2} s ({:.3}), third {third:9.2} s ({:.3})",
                second / each,
                third / each
            )
        };
        format!(
            "{:>4} bit/s {:>3} KiB {:>2} s {:>4} : answers to each {}; short answers to each {}",
            self.rate,
            self.size_kb,
            self.turnaround_s,
            self.fer,
            row(self.long_s),
            row(self.short_s),
        )
    }
}

/// The cells [`AnswerLimits`] are shown in: where a message takes several of the longest transmissions.
pub fn answer_cells() -> Vec<Cell> {
    cells().into_iter().filter(|c| c.rate <= 300 && c.payload_bytes >= 10 * 1024).collect()
}

/// The cells [`Gains`] are shown in.
pub fn gain_cells() -> Vec<Cell> {
    let wanted = |c: &Cell| c.payload_bytes <= 10 * 1024 && c.turnaround_s == 2.0;
    cells().into_iter().filter(wanted).collect()
}

/// The 135 cells of the limit tables: rates, sizes, turnarounds and losses in the order of the tables.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for rate in [75, 300, 1200, 2400, 9600] {
        for kib in [1, 10, 100] {
            for turnaround_s in [2.0, 4.0, 8.0] {
                for loss in [0.0, 0.05, 0.2] {
                    cells.push(Cell { rate, payload_bytes: kib * 1024, turnaround_s, loss });
                }
            }
        }
    }
    cells
}

/// One trial's figures.
#[derive(Clone, PartialEq, Debug)]
struct Trial {
    sample: Sample,
    frozen: u64,
    key_after_s: f64,
    late_air_s: f64,
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

    /// What a warm message may take over the limit: 1.05 without loss, 1.10 up to 5 %, 1.15 beyond.
    pub fn bar(&self) -> f64 {
        match self.loss {
            p if p <= 0.0 => 1.05,
            p if p <= 0.05 => 1.10,
            _ => 1.15,
        }
    }

    /// Measures this cell over `seeds`, `jobs` trials at a time.
    pub fn measure(&self, seeds: &[u64], jobs: usize, mut progress: impl FnMut(usize)) -> CellReport {
        let warm_payload = self.payload_bytes.min(WARM_UP_BYTES);
        let sizes = Sizes { own: message_size(self.payload_bytes), warm: message_size(warm_payload) };
        let warm = bench::measure(seeds, jobs, |seed| self.trial(seed, sizes, WARM_UP, false), &mut progress);
        let cold = bench::measure(seeds, jobs, |seed| self.trial(seed, sizes, 0, false), |_| {});
        let link = Link::new(self.waveform(), self.turnaround_s, self.loss);
        let frames = link.frames(self.payload_bytes);
        let ir_s = link.incremental_redundancy(frames);
        let summary = |trials: &[Trial]| {
            let samples: Vec<Sample> = trials.iter().map(|t| t.sample.clone()).collect();
            Summary::of(&samples, bench::floor(self.waveform(), self.payload_bytes))
        };
        let (s, c) = (summary(&warm), summary(&cold));
        let n = warm.len().max(1) as f64;
        let mean = |of: fn(&Trial) -> f64| warm.iter().map(of).sum::<f64>() / n;
        let late_air_s = mean(|t| t.late_air_s);
        let late_air_bar_s = 0.15 * s.air_s + (self.waveform().block() + self.report_air()).as_secs_f64();
        let hashes: String = warm.iter().chain(&cold).map(|t| t.sample.trace_hash.as_str()).collect();
        let (ratio_ir, cold_ratio_ir) = (s.mean_s / ir_s, c.mean_s / ir_s);
        let passed = s.delivered + c.delivered == warm.len() + cold.len()
            && s.below_floor + c.below_floor == 0
            && ratio_ir <= self.bar()
            && cold_ratio_ir <= COLD_BAR
            && late_air_s <= late_air_bar_s;
        CellReport {
            rate: self.rate,
            size_kb: number(self.payload_bytes as f64 / 1024.0),
            turnaround_s: number(self.turnaround_s),
            fer: number(self.loss),
            mean_s: s.mean_s,
            standard_error_s: s.standard_error_s,
            p95_s: s.p95_s,
            air_s: s.air_s,
            bytes_on_air: s.bytes,
            ir_s,
            ratio_ir,
            ratio_sr: s.mean_s / link.selective_repeat(frames),
            bar: self.bar(),
            cold_ratio_ir,
            late_air_s,
            late_air_bar_s,
            payload_bytes: mean(|t| t.frozen as f64),
            key_after_s: mean(|t| t.key_after_s),
            seeds: [seeds.first().copied().unwrap_or(0), seeds.last().copied().unwrap_or(0)],
            delivered: [s.delivered, c.delivered],
            passed,
            trace_hash: crate::trace::short_digest(hashes.as_bytes()),
        }
    }

    /// What single ideas gain in this cell over `seeds`: frames laid out by the link itself, and interleavers chosen by it.
    pub fn gains(&self, seeds: &[u64], jobs: usize) -> Gains {
        let warm_payload = self.payload_bytes.min(WARM_UP_BYTES);
        let sizes = Sizes { own: message_size(self.payload_bytes), warm: message_size(warm_payload) };
        let mean = |told| {
            let trials = bench::measure(seeds, jobs, |seed| self.trial(seed, sizes, WARM_UP, told), |_| {});
            let times: Option<Vec<f64>> = trials.iter().map(|t| t.sample.delivery_s).collect();
            times.map(|t| t.iter().sum::<f64>() / t.len().max(1) as f64)
        };
        let of = |link: Link| link.incremental_redundancy(link.frames(self.payload_bytes));
        let all = || crate::waveform::TABLE.iter().filter(|w| w.rate == self.rate);
        let notes = Link::new(self.waveform(), self.turnaround_s, self.loss);
        let answered = |w: &Waveform| of(self.own_limit(w).answered_in(self.soonest()));
        Gains {
            rate: self.rate,
            size_kb: number(self.payload_bytes as f64 / 1024.0),
            turnaround_s: number(self.turnaround_s),
            fer: number(self.loss),
            frame_bytes: self.layout(self.waveform()).stride,
            ir_s: notes.incremental_redundancy(notes.frames(self.payload_bytes)),
            ir_frames_s: of(self.own_limit(self.waveform())),
            mean_s: mean(false),
            ir_answers_s: answered(self.waveform()),
            ir_chosen_s: all().map(answered).fold(f64::INFINITY, f64::min),
            mean_chosen_s: mean(true),
            seeds: [seeds.first().copied().unwrap_or(0), seeds.last().copied().unwrap_or(0)],
        }
    }

    /// The limits of this cell where fewer answers are wanted.
    pub fn answer_limits(&self) -> AnswerLimits {
        let row = |link: Link| {
            [1, 2, 3].map(|n| link.clone().answered_every(n).incremental_redundancy(link.frames(self.payload_bytes)))
        };
        let own = self.own_limit(self.waveform());
        AnswerLimits {
            rate: self.rate,
            size_kb: number(self.payload_bytes as f64 / 1024.0),
            turnaround_s: number(self.turnaround_s),
            fer: number(self.loss),
            long_s: row(own.clone()),
            short_s: row(own.answered_in(self.soonest())),
        }
    }

    /// How the link lays its frames out in a waveform at this loss.
    fn layout(&self, w: &Waveform) -> Layout {
        let waveform = serial::Waveform {
            rate: Bps(w.rate),
            preamble: w.preamble(),
            block: w.block(),
            tail_bits: u32::try_from(w.tail_bits()).unwrap_or(u32::MAX),
            frame_bytes: self.cell_bytes(),
            turnaround: Duration::from_secs_f64(self.turnaround_s),
        };
        let air = Air::new(waveform);
        air.layout(self.loss, air.cut().unit())
    }

    /// The limit with such frames.
    fn own_limit(&self, w: &Waveform) -> Link {
        let l = self.layout(w);
        let loss = if self.loss > 0.0 { l.loss } else { 0.0 };
        Link::framed(w, self.turnaround_s, loss, l.symbol_bytes as u64, (l.stride - l.symbol_bytes) as u64)
    }

    /// The waveform of this rate in which an acknowledgement is over first.
    fn soonest(&self) -> &'static Waveform {
        let all = crate::waveform::TABLE.iter().filter(|w| w.rate == self.rate);
        all.min_by_key(|w| w.airtime(16)).unwrap_or(self.waveform())
    }

    /// One trial with `warm_up` messages before the one that counts; `told` modems have their interleavers chosen by the link.
    fn trial(&self, seed: u64, sizes: Sizes, warm_up: usize, told: bool) -> Trial {
        let mut lab = self.lab(seed, told);
        let slot = self.slot();
        for _ in 0..warm_up {
            lab.submit(SENDER, RECEIVER, sizes.warm, Precedence::Routine);
            let all = |lab: &Lab| lab.ledger().iter().all(|e| e.fate.confirmed.is_some());
            if !lab.run_while(lab.at() + PATIENCE, all) {
                return failed(seed, lab);
            }
            idle(&mut lab);
            lab.run_until(Instant(lab.at().0.next_multiple_of(slot)));
        }
        let ether = lab.world().ether();
        let before = [SENDER, RECEIVER].map(|id| (ether.stats(id).air, ether.stats(id).fed));
        let number = lab.submit(SENDER, RECEIVER, sizes.own, Precedence::Routine);
        let submitted = lab.at();
        if !lab.run_while(submitted + PATIENCE, |lab| lab.ledger()[number].fate.confirmed.is_some()) {
            return failed(seed, lab);
        }
        idle(&mut lab);
        let ether = lab.world().ether();
        let after = [SENDER, RECEIVER].map(|id| (ether.stats(id).air, ether.stats(id).fed));
        let log = ether.antenna_log();
        let own: Vec<_> = log.iter().filter(|e| e.station == SENDER).copied().collect();
        let fate = lab.ledger()[number].fate.clone();
        let first = bench::first_symbol(&own, submitted);
        let from_first = |at: Option<Instant>| at.zip(first).map(|(at, first)| at.since(first).as_secs_f64());
        let sample = Sample {
            seed,
            delivery_s: from_first(fate.committed),
            confirmed_s: from_first(fate.confirmed),
            air_s: after.iter().zip(&before).map(|(a, b)| (a.0 - b.0).as_secs_f64()).sum(),
            bytes: after.iter().zip(&before).map(|(a, b)| a.1 - b.1).sum(),
            trace_hash: String::new(),
        };
        let late_air_s = fate.committed.map_or(0.0, |at| bench::carrier_after(log, at).as_secs_f64());
        let key_after_s = first.zip(fate.promised).map_or(0.0, |(first, told)| first.since(told).as_secs_f64());
        let sample = Sample { trace_hash: lab.finish_trace(), ..sample };
        Trial { sample, frozen: fate.payload_bytes, key_after_s, late_air_s }
    }

    /// Nanoseconds from one message to the next: three times what the worst cell of this rate may take, and whole minutes.
    fn slot(&self) -> u64 {
        let link = Link::new(self.waveform(), 8.0, 0.2);
        let longest = link.incremental_redundancy(link.frames(self.payload_bytes.min(WARM_UP_BYTES)));
        (longest / 20.0 + 5.0) as u64 * 60 * 1_000_000_000
    }

    fn waveform(&self) -> &'static Waveform {
        Waveform::find(self.rate, "L").unwrap_or(&crate::waveform::TABLE[0])
    }

    /// Air of a report as the limit tables have it.
    fn report_air(&self) -> Duration {
        self.waveform().airtime(16)
    }

    fn modem(&self, waveform: &Waveform) -> ModemConfig {
        ModemConfig { turnaround: Duration::from_secs_f64(self.turnaround_s), ..ModemConfig::new(*waveform) }
    }

    /// What is lost at once (link-rules E2).
    fn cell_bytes(&self) -> u32 {
        (limit::frame_payload(self.rate) + limit::FRAME_OVERHEAD) as u32
    }

    fn lab(&self, seed: u64, told: bool) -> Lab {
        let modem = ModemConfig { selects: told, ..self.modem(self.waveform()) };
        let bytes = self.cell_bytes();
        let loss = match self.loss {
            0.0 => Loss::Ideal,
            p => Loss::Cells { bytes, p, damage: Damage::Garbage },
        };
        let ether = EtherConfig::net(seed, 2, &modem, LinkConfig { loss, ..LinkConfig::default() });
        let most = Some(Duration::from_millis(127_500));
        let economy = Economy { quick_repair: false, ..Economy::ALONE };
        let rates = format!("rate = [\"{}bps\"]\ninterleaver = \"auto\"", self.rate);
        let setup =
            Setup { mail: MAIL, economy, rates, max_transmission: most, ..Setup::new(seed, &["ship", "shore"], ether) };
        Lab::new(&setup, Trace::hashed())
    }
}

/// Bytes of a message whose frozen payload has `payload` bytes: found by freezing some on a link that loses nothing.
fn message_size(payload: u64) -> u64 {
    static KNOWN: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(size) = known().get(&payload) {
        return *size;
    }
    let mut size = payload;
    for _ in 0..4 {
        let mut lab = Cell { rate: 9600, payload_bytes: payload, turnaround_s: 2.0, loss: 0.0 }.lab(1, false);
        let number = lab.submit(SENDER, RECEIVER, size, Precedence::Routine);
        let end = lab.at() + Duration::from_secs(60);
        lab.run_while(end, |lab| lab.ledger()[number].fate.payload_bytes > 0);
        let frozen = lab.ledger()[number].fate.payload_bytes;
        if frozen == payload {
            break;
        }
        size = (size + payload).saturating_sub(frozen);
    }
    known().insert(payload, size);
    size
}

/// Message sizes that freeze to the payloads a cell asks for.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    own: u64,
    warm: u64,
}

fn failed(seed: u64, mut lab: Lab) -> Trial {
    let trace_hash = lab.finish_trace();
    let sample = Sample { seed, delivery_s: None, confirmed_s: None, air_s: 0.0, bytes: 0, trace_hash };
    Trial { sample, frozen: 0, key_after_s: 0.0, late_air_s: 0.0 }
}

/// Whole numbers without a fraction, as the limit tables print them.
fn number(x: f64) -> serde_json::Number {
    match x.fract() == 0.0 {
        true => (x as i64).into(),
        false => serde_json::Number::from_f64(x).unwrap_or_else(|| 0.into()),
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
        format!(
            "{:>4} bit/s {:>3} KiB {:>2} s {:>4} : mean {:9.2} s (se {:.2}) p95 {:9.2} air {:9.2} s {:8.0} B; IR {:8.2} ratio {:.3} of {:.2}, \
             cold {:.3}, SR {:.3}, late air {:.1} of {:.1} s, {}/{} delivered, {} {}",
            self.rate,
            self.size_kb,
            self.turnaround_s,
            self.fer,
            self.mean_s,
            self.standard_error_s,
            self.p95_s,
            self.air_s,
            self.bytes_on_air,
            self.ir_s,
            self.ratio_ir,
            self.bar,
            self.cold_ratio_ir,
            self.ratio_sr,
            self.late_air_s,
            self.late_air_bar_s,
            self.delivered[0],
            self.delivered[1],
            if self.passed { "ok" } else { "OVER A BAR" },
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
        assert!(cells().contains(&cell) && cells().len() == 135);
        for text in ["2400,10240,4", "2401,10240,4,0.2", "2400,10,4,0.2", "2400,10240,4,0.95", "a,b,c,d"] {
            assert!(Cell::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fewer_answers_gain_some_percent_where_a_message_takes_many_transmissions() {
        let of = |text: &str| Cell::parse(text).expect("reads").answer_limits();
        for (row, gain) in [(of("75,102400,2,0.05").long_s, 0.96), (of("300,102400,2,0.2").short_s, 0.99)] {
            let [each, second, third] = row;
            assert!(second < gain * each && third < second && third > 0.92 * each, "{row:?}");
        }
        assert_eq!(answer_cells().len(), 36);
    }

    #[test]
    fn the_message_is_as_long_as_its_payload_is_to_be() {
        let cell = Cell::parse("2400,1024,4,0").expect("reads");
        let size = message_size(1024);
        let trial = cell.trial(3, Sizes { own: size, warm: size }, 2, false);
        assert!(trial.frozen.abs_diff(1024) <= 4, "{}", trial.frozen);
        assert!(trial.sample.delivery_s.is_some_and(|t| t >= 9.6), "{trial:?}");
        assert!(trial.key_after_s <= 1.0, "keyed {} s after the 250 (E1)", trial.key_after_s);
    }
}
