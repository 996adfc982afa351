//! `aldis-sim codec2 sweep`: what a real modem loses by signal-to-noise ratio, beside what the block model foretells.
//!
//! Every packet is a burst of its own in its own stretch of noise, with a fade of its own: packets are independent, and the share lost
//! has a known spread. The block model's curve is fitted to the path that does not fade, and to nothing else; the fading path is then
//! foretold from the very gains the modem met.

use std::fmt::Write as _;

use serde::Serialize;

use super::audio::{AudioPath, Fading, Receiver, Spread};
use super::fit::{Anchor, crossing};
use super::modem::{Mode, Modem, power};
use super::plot;
use super::predict::{self, View};
use crate::rng::Stream;

/// Noise before a burst, samples.
const LEAD: usize = 3200;
/// Noise after it, until the receiver has given out what it holds.
const TAIL: usize = 4800;

/// Where the curves are compared.
pub const LEVEL: f64 = 0.1;

/// What is to be measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Which modem.
    pub mode: Mode,
    /// How the path fades; `None`: it does not.
    pub spread: Option<Spread>,
    /// Packets at each ratio.
    pub frames: u64,
    /// Everything random follows from it.
    pub seed: u64,
    /// Ratios on the path that does not fade, dB in 3 kHz.
    pub still_db: Vec<f64>,
    /// Ratios on the path that fades.
    pub fading_db: Vec<f64>,
}

impl Options {
    /// The measurement whose figures are in `docs/codec2.md`.
    pub fn new(mode: Mode, spread: Option<Spread>) -> Self {
        let range = |from: f64, step: f64, n: i32| (0..n).map(|i| from + step * f64::from(i)).collect();
        // Around the knee of each mode: on the path that does not fade it is half a dB wide.
        let (still, step, fading) = match mode {
            Mode::Datac0 => (-4.0, 0.5, -3.0),
            Mode::Datac1 => (-0.5, 0.25, 0.0),
            Mode::Datac3 => (-4.0, 0.5, -3.0),
        };
        let fading_db = if spread.is_some() { range(fading, 1.0, 12) } else { Vec::new() };
        Self { mode, spread, frames: 300, seed: 1, still_db: range(still, step, 9), fading_db }
    }
}

/// One measured point.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Signal-to-noise ratio in 3 kHz, mean over the fading.
    pub snr_db: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that did not come whole.
    pub lost: u64,
    /// Share lost.
    pub loss: f64,
    /// Where the true share lies with 95 % confidence (Wilson).
    pub between: (f64, f64),
    /// What the fitted curve (no fading) or the block model (fading, powers summed) says.
    pub foretold: f64,
    /// The same with each carrier seen by itself, then with what QPSK holds; only where the path fades.
    pub finer: Option<[f64; 2]>,
}

/// What a sweep found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Form of this document.
    pub schema: &'static str,
    /// Which modem.
    pub mode: &'static str,
    /// Which fading path, if one was measured.
    pub path: Option<&'static str>,
    /// Its Doppler spread in Hz and its delay in seconds.
    pub spread: Option<(f64, f64)>,
    /// The curve fitted to `still`.
    pub anchor: Anchor,
    /// No fading.
    pub still: Vec<Point>,
    /// Fading.
    pub fading: Vec<Point>,
    /// Ratio at which one packet in ten is lost on the fading path: measured, then foretold by each [`View`]. Absent where the ratios
    /// asked for do not enclose it.
    pub tenth_db: [Option<f64>; 4],
    /// Packets that came out with a good checksum and were not what was sent.
    pub wrong: u64,
}

/// Measures. The error says what is missing on this machine.
pub fn run(options: &Options, mut progress: impl FnMut(&Point)) -> Result<Report, String> {
    let mut bench = Bench::new(options.mode, options.seed)?;
    let mut still = Vec::new();
    for &db in &options.still_db {
        let lost = bench.lost(db, options.frames, &[])?;
        still.push(Point::new(db, options.frames, lost));
    }
    let anchor = Anchor::fit(&still.iter().map(|p| (p.snr_db, p.sent, p.lost)).collect::<Vec<_>>());
    for point in &mut still {
        point.foretold = anchor.loss(point.snr_db);
        progress(point);
    }
    let mut fading = Vec::new();
    if let Some(spread) = options.spread {
        let fades: Vec<Fading> = (0..options.frames).map(|i| Fading::new(options.seed, &[i], spread)).collect();
        for &db in &options.fading_db {
            let mut point = Point::new(db, options.frames, bench.lost(db, options.frames, &fades)?);
            let [sum, carriers, alphabet] =
                View::ALL.map(|view| predict::loss(anchor, view, options.mode, &fades, LEAD as u64, db));
            (point.foretold, point.finer) = (sum, Some([carriers, alphabet]));
            progress(&point);
            fading.push(point);
        }
    }
    let tenth =
        |of: &dyn Fn(&Point) -> f64| crossing(&fading.iter().map(|p| (p.snr_db, of(p))).collect::<Vec<_>>(), LEVEL);
    let finer = |i: usize| tenth(&|p| p.finer.map_or(1.0, |finer| finer[i]));
    let tenth_db = [tenth(&|p| p.loss), tenth(&|p| p.foretold), finer(0), finer(1)];
    Ok(Report {
        schema: "aldis-sim.codec2-sweep/1",
        mode: options.mode.name(),
        path: options.spread.map(|s| s.name),
        spread: options.spread.map(|s| (s.doppler, s.delay)),
        anchor,
        tenth_db,
        still,
        fading,
        wrong: bench.wrong,
    })
}

/// Two modems and what is between them.
struct Bench {
    sender: Modem,
    receiver: Modem,
    power: f64,
    seed: u64,
    wrong: u64,
}

impl Bench {
    fn new(mode: Mode, seed: u64) -> Result<Self, String> {
        let mut sender = Modem::open(mode)?;
        let power = power(&mut sender);
        Ok(Self { receiver: Modem::open(mode)?, sender, power, seed, wrong: 0 })
    }

    /// Sends `frames` packets, each over its own of `fades` if there are any; how many did not come whole.
    fn lost(&mut self, snr_db: f64, frames: u64, fades: &[Fading]) -> Result<u64, String> {
        let mut lost = 0;
        for number in 0..frames {
            let mut payload = vec![0; self.sender.mode().payload()];
            Stream::new(self.seed, "codec2 payload", number).fill(&mut payload);
            let mut sent = vec![0.0; LEAD];
            sent.extend(self.sender.burst(&payload).into_iter().map(f64::from));
            sent.resize(sent.len() + TAIL, 0.0);
            let fade = fades.get(usize::try_from(number).unwrap_or(usize::MAX)).cloned();
            let mut heard = vec![0.0; sent.len()];
            AudioPath::new(fade, 0).carry(&sent, &mut heard);
            // Other noise at each ratio, so that points are independent.
            let name = [number, snr_db.to_bits(), u64::from(!fades.is_empty())];
            let mut converter = Receiver::new(self.seed, &name, self.power, Some(snr_db));
            self.receiver.forget();
            let got = self.receiver.listen(converter.convert(&heard));
            lost += u64::from(!got.contains(&payload));
            self.wrong += got.iter().filter(|frame| **frame != payload).count() as u64;
        }
        Ok(lost)
    }
}

impl Point {
    fn new(snr_db: f64, sent: u64, lost: u64) -> Self {
        let n = (sent as f64).max(1.0);
        let (p, z) = (lost as f64 / n, 1.96);
        let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        let between = ((middle - half).max(0.0), (middle + half).min(1.0));
        Self { snr_db, sent, lost, loss: p, between, foretold: 0.0, finer: None }
    }

    /// The point as a line of a table.
    pub fn text(&self) -> String {
        let mut line = format!(
            "{:>6.2} dB  lost {:>4} of {}  {:.3} ({:.3} to {:.3})  model {:.3}",
            self.snr_db, self.lost, self.sent, self.loss, self.between.0, self.between.1, self.foretold
        );
        if let Some([carriers, alphabet]) = self.finer {
            let _ = write!(line, "  by carriers {carriers:.3}  of QPSK {alphabet:.3}");
        }
        line
    }
}

impl Report {
    /// What a reader wants to know, after the points.
    pub fn text(&self) -> String {
        let Anchor { mid_db, width_db } = self.anchor;
        let mut text = format!(
            "{} without fading: half lost at {mid_db:.2} dB, a factor of e in the odds per {width_db:.2} dB",
            self.mode
        );
        if let Some(path) = self.path {
            let show = |db: Option<f64>| db.map_or("not among these ratios".to_owned(), |db| format!("{db:.2} dB"));
            let [measured, sum, carriers, alphabet] = self.tenth_db.map(show);
            let _ = write!(
                text,
                "\none in ten lost on {path}: measured {measured}, block model {sum}, by carriers {carriers}, of QPSK {alphabet}"
            );
        }
        let _ = write!(text, "\nwrong packets with a good checksum: {}", self.wrong);
        text
    }

    /// The curves as SVG.
    pub fn svg(&self) -> String {
        plot::svg(self)
    }
}
