//! `aldis-sim bench net`: what one message for all stations of a net costs, against the bars for multicast by parity.
//!
//! A sender and its receivers share one frequency and one key, at 2400 bit/s with the short interleaver. Some messages go before, so
//! that the loss is known; then one whose payload fills `frames` frames is handed in for all receivers at once. Counted are the frames
//! of symbols that the sender radiated, without what only filled the last block of a transmission (at most that block) and with it, and
//! the time from the first preamble symbol until the sender knows that every receiver has it. Every link loses cells on its own, reports as well. The bars: 1.25 frames on the air per useful frame, and 1.15 times what one
//! transmission of a quarter more frames and two rounds of reports take.

use aldis::mail::{BodyKind, Mailbox, Precedence, Recipient};
use aldis::ops::Event;
use aldis::switch::SessionId;
use aldis::time::{Duration, Instant};
use serde::Serialize;

use crate::bench;
use crate::channel::{Damage, Loss};
use crate::client;
use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::lab::What;
use crate::lab::{Lab, Setup};
use crate::modem::ModemConfig;
use crate::rng::Stream;
use crate::trace::Trace;
use crate::waveform::Waveform;

const SENDER: StationId = StationId(0);
/// The cell of the waveform, which is the frame.
const FRAME: u64 = 262;
/// Symbols in a frame.
const USEFUL: u64 = 248;
/// Messages that go before the one that counts.
const WARM_UP: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// Bars: frames on the air per useful one, and time over the reference.
const FRAMES_BAR: f64 = 1.25;
const TIME_BAR: f64 = 1.15;

/// A case.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Case {
    /// Receivers.
    pub receivers: u16,
    /// Share of cells lost on every link.
    pub loss: f64,
    /// Frames that the payload fills.
    pub frames: u64,
}

/// One trial.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Trial {
    /// Its seed.
    pub seed: u64,
    /// Frames of symbols on the air per frame of payload, what only fills a transmission's last block not counted.
    pub frames_per_useful: f64,
    /// The same with what fills last blocks.
    pub filled_per_useful: f64,
    /// All bytes on the air, control frames too, in frames per frame of payload.
    pub all_per_useful: f64,
    /// Seconds until the sender knew of all receivers; `None`: it never did.
    pub time_s: Option<f64>,
    /// Transmissions of the sender.
    pub transmissions: u64,
    /// Receivers in whose mailbox it lies, once.
    pub delivered: usize,
    /// Hash of the trace.
    pub trace_hash: String,
}

/// What a case came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct NetReport {
    /// The case.
    pub case: Case,
    /// Mean frames of symbols on the air per useful frame, what only fills a transmission's last block not counted.
    pub frames_per_useful: f64,
    /// The same with what fills last blocks.
    pub filled_per_useful: f64,
    /// The same of everything on the air.
    pub all_per_useful: f64,
    /// Mean seconds.
    pub time_s: f64,
    /// What the bar for the time is measured by, seconds.
    pub reference_s: f64,
    /// Whether every receiver got it in every trial and both means are within their bars.
    pub passed: bool,
    /// The trials.
    pub trials: Vec<Trial>,
}

impl Case {
    /// Runs every seed.
    pub fn measure(self, seeds: &[u64], jobs: usize) -> NetReport {
        let trials = bench::measure(seeds, jobs, |seed| self.trial(seed), |_| {});
        let n = trials.len().max(1) as f64;
        let mean = |of: fn(&Trial) -> f64| trials.iter().map(of).sum::<f64>() / n;
        let (frames_per_useful, all_per_useful) = (mean(|t| t.frames_per_useful), mean(|t| t.all_per_useful));
        let filled_per_useful = mean(|t| t.filled_per_useful);
        let time_s = mean(|t| t.time_s.unwrap_or(f64::INFINITY));
        let reference_s = self.reference().as_secs_f64();
        let whole = trials.iter().all(|t| t.delivered == usize::from(self.receivers));
        let passed = whole && frames_per_useful <= FRAMES_BAR && time_s <= TIME_BAR * reference_s;
        NetReport {
            case: self,
            frames_per_useful,
            filled_per_useful,
            all_per_useful,
            time_s,
            reference_s,
            passed,
            trials,
        }
    }

    /// One transmission of a quarter more frames than useful ones, and two rounds of reports.
    fn reference(self) -> Duration {
        let (w, modem) = (waveform(), modem());
        let report = w.airtime(FRAME / 2) + modem.turnaround;
        w.airtime(self.frames * 5 / 4 * FRAME) + report * 2 * u32::from(self.receivers)
    }

    fn trial(self, seed: u64) -> Trial {
        let loss = Loss::Cells { bytes: FRAME as u32, p: self.loss, damage: Damage::Garbage };
        let link = LinkConfig { loss, ..LinkConfig::default() };
        let ether = EtherConfig::net(seed, self.receivers + 1, &modem(), link);
        let names: Vec<String> = (0..=self.receivers).map(|i| format!("station{i:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut lab = Lab::new(&Setup { net_key: true, ..Setup::new(seed, &names, ether) }, Trace::hashed());
        // What header and envelope make of a message is seen in the first.
        let target = self.frames * USEFUL;
        let mut size = target;
        for number in 0..WARM_UP {
            self.submit(&mut lab, seed, number, size);
            self.settle(&mut lab, number + 1);
            let frozen = lab.node(SENDER).log().events.iter().rev().find_map(|(_, e)| match e {
                Event::TransferFrozen { payload_bytes, .. } => Some(*payload_bytes),
                _ => None,
            });
            size = (size + target).saturating_sub(frozen.unwrap_or(target));
        }
        lab.run_for(Duration::from_secs(120));
        let (from, before) = (lab.at(), lab.world().ether().stats(SENDER));
        lab.record();
        self.submit(&mut lab, seed, WARM_UP, size);
        let done = self.settle(&mut lab, WARM_UP + 1);
        let after = lab.world().ether().stats(SENDER);
        let first = bench::first_symbol(lab.world().ether().antenna_log(), from);
        let time_s = done.zip(first).map(|(done, first)| done.since(first).as_secs_f64());
        let said = lab.tapes();
        let pieces = said.iter().filter(|t| t.station == SENDER).flat_map(|t| &t.pieces);
        let symbols: usize = pieces.filter(|p| matches!(p.what, What::Symbols(_))).map(|p| p.bytes).sum();
        let keyed = lab.node(SENDER).log().events.iter().filter(|(at, _)| *at >= from);
        // No more of a transmission is forced than its last block.
        let block = waveform().bytes(1);
        let fill: u64 = keyed
            .filter_map(
                |(_, e)| if let Event::KeyUp { fill_bytes, .. } = e { Some((*fill_bytes).min(block)) } else { None },
            )
            .sum();
        let delivered = (1..=self.receivers).filter(|r| {
            let mark = mark(WARM_UP);
            let held = |(_, bytes): &(String, Vec<u8>)| bytes.windows(mark.len()).any(|w| w == mark.as_bytes());
            lab.node(StationId(*r)).delivered().iter().filter(|f| held(f)).count() == 1
        });
        Trial {
            seed,
            frames_per_useful: (symbols as u64 - fill) as f64 / (FRAME * self.frames) as f64,
            filled_per_useful: symbols as f64 / (FRAME * self.frames) as f64,
            all_per_useful: (after.fed - before.fed) as f64 / (FRAME * self.frames) as f64,
            time_s,
            transmissions: after.transmissions - before.transmissions,
            delivered: delivered.count(),
            trace_hash: lab.finish_trace(),
        }
    }

    fn submit(self, lab: &mut Lab, seed: u64, number: u64, size: u64) {
        let mut chance = Stream::new(seed, "body of the net bench", number);
        let mut body = format!("From: <op@station00.example>\r\nSubject: {}\r\n\r\n", mark(number)).into_bytes();
        // Every byte counts: nothing to compress, and no bare line ends.
        while (body.len() as u64) < size {
            let byte = (chance.below(256)) as u8;
            body.push(if matches!(byte, b'\r' | b'\n' | 0) { 1 } else { byte });
            if body.len() % 900 == 0 {
                body.extend(b"\r\n");
            }
        }
        body.extend(b"\r\n");
        let to = |r: u16| Recipient::plain(Mailbox::new(format!("desk@station{r:02}.example")));
        let recipients = (1..=self.receivers).map(to).collect();
        let (from, level) = ("op@station00.example", Some(Precedence::Routine));
        let transaction = client::transaction(from, recipients, level, BodyKind::BinaryMime, body);
        let session = SessionId(1_000_000 + number);
        lab.world_mut().with_host(SENDER, |node, now| node.submit(now, session, transaction));
    }

    /// Runs until the sender knows of all recipients of `messages` messages; when it did.
    fn settle(self, lab: &mut Lab, messages: u64) -> Option<Instant> {
        let all = usize::from(self.receivers) * usize::try_from(messages).unwrap_or(usize::MAX);
        let known = |lab: &Lab| {
            let told = lab.node(SENDER).log().events.iter();
            told.filter(|(_, e)| matches!(e, Event::MessageDelivered { .. })).count()
        };
        let end = lab.at() + PATIENCE;
        lab.run_while(end, |lab| known(lab) >= all);
        (known(lab) >= all).then(|| lab.at())
    }
}

impl NetReport {
    /// One line of the table.
    pub fn text(&self) -> String {
        let Case { receivers, loss, frames } = self.case;
        format!(
            "{receivers:2} receivers, loss {loss:.2}, {frames:3} frames: {:.3} frames on air per useful frame ({:.3} with fill, {:.3} with everything), {:.1} s ({:.2} of {:.1} s) {}",
            self.frames_per_useful,
            self.filled_per_useful,
            self.all_per_useful,
            self.time_s,
            self.time_s / self.reference_s,
            self.reference_s,
            if self.passed { "ok" } else { "FAILED" }
        )
    }
}

fn waveform() -> Waveform {
    *Waveform::find(2400, "S").expect("a row of the table")
}

fn modem() -> ModemConfig {
    ModemConfig::new(waveform())
}

fn mark(number: u64) -> String {
    format!("to all, number {number} of the bench")
}
