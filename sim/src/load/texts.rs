//! Many small messages to one peer: where every byte of the sender's transmissions goes (link-rules D1).
//!
//! Some messages go first, so that the sender knows the losses, as before every measurement (E1).

use aldis::bearer::serial::frame::{CHUNK_OVERHEAD, FRAME_OVERHEAD, MINIMAL_FRAME};
use aldis::mail::{Precedence, Protection};
use aldis::security;
use aldis::time::Duration;
use serde::Serialize;

use super::{LONGEST, SHIP, SHORE, Way, rounded, whole_after};
use crate::lab::{Lab, Transmission, What};

/// Messages that go first, together, and the encoded size of each.
const WARM_UP: usize = 10;
const WARM_UP_BYTES: u64 = 2048;
/// Longest the load may take.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// Where the bytes went.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TextsReport {
    /// Data rate, bit/s.
    pub rate: u32,
    /// Interleaver.
    pub interleaver: &'static str,
    /// Share of frames lost, both ways.
    pub fer: f64,
    /// Everything random followed from it.
    pub seed: u64,
    /// Messages.
    pub messages: usize,
    /// Bytes of their frozen payloads together, seals included.
    pub payload_bytes: u64,
    /// Of those, seals.
    pub seal_bytes: u64,
    /// Seconds from the first preamble symbol to the last commit.
    pub whole_s: f64,
    /// Transmissions of the sender with symbols in them.
    pub transmissions: usize,
    /// Bytes it fed in all its transmissions.
    pub fed_bytes: u64,
    /// Frames of symbols.
    pub frames: u64,
    /// Bytes of theirs that are no symbols, without the descriptors of second and further transfers.
    pub frame_bytes: u64,
    /// Second and further transfers in a frame.
    pub joint: u64,
    /// Bytes of their descriptors.
    pub joint_bytes: u64,
    /// Symbols that spell payload, each the first time it left.
    pub payload_symbol_bytes: u64,
    /// Parity symbols.
    pub parity_bytes: u64,
    /// Symbols that had left before.
    pub repeat_bytes: u64,
    /// Control frames and brief reports.
    pub control_bytes: u64,
    /// Bytes that belong to nothing, the modem's padding before its end of message included.
    pub fill_bytes: u64,
    /// The most of those in one interleaver block.
    pub most_fill_bytes: u64,
    /// Overhead of a frame with one transfer.
    pub per_frame_bytes: u64,
    /// Bytes of a message beyond its coded envelope and body and what frames cost: its seal.
    pub per_message_bytes: u64,
    /// Whether everything arrived, and no bar was broken: 14 bytes a frame, 10 a message, no more fill in a block than a minimal frame.
    pub passed: bool,
    /// Hash of the run.
    pub trace_hash: String,
}

/// Sends `messages` messages of `payload` encoded bytes each, all handed in at once.
pub fn measure(way: &Way, messages: usize, payload: u64, seed: u64) -> TextsReport {
    let (size, warm) = (way.message_size(payload), way.message_size(WARM_UP_BYTES));
    let mut lab = way.lab(seed, Some(LONGEST));
    let all = |lab: &Lab| lab.ledger().iter().all(|e| e.fate.confirmed.is_some());
    for _ in 0..WARM_UP {
        lab.submit(SHIP, SHORE, warm, Precedence::Routine);
    }
    lab.run_while(lab.at() + PATIENCE, all);
    lab.run_for(Duration::from_secs(120));
    lab.record();
    let begun = lab.at();
    for _ in 0..messages {
        lab.submit(SHIP, SHORE, size, Precedence::Routine);
    }
    let done = lab.run_while(begun + PATIENCE, all);
    let payload_bytes = lab.ledger().iter().skip(WARM_UP).map(|e| e.fate.payload_bytes).sum();
    let mut report = TextsReport {
        rate: way.waveform.rate,
        interleaver: way.waveform.interleaver,
        fer: way.loss,
        seed,
        messages,
        payload_bytes,
        seal_bytes: (messages * security::overhead(Protection::Mac)) as u64,
        whole_s: rounded(whole_after(&lab, begun).unwrap_or_default().as_secs_f64(), 2),
        transmissions: 0,
        fed_bytes: 0,
        frames: 0,
        frame_bytes: 0,
        joint: 0,
        joint_bytes: 0,
        payload_symbol_bytes: 0,
        parity_bytes: 0,
        repeat_bytes: 0,
        control_bytes: 0,
        fill_bytes: 0,
        most_fill_bytes: 0,
        per_frame_bytes: FRAME_OVERHEAD as u64,
        per_message_bytes: security::overhead(Protection::Mac) as u64,
        passed: false,
        trace_hash: String::new(),
    };
    let mut left = std::collections::BTreeSet::new();
    for transmission in lab.tapes().iter().filter(|t| t.station == SHIP) {
        report.count(way, transmission, &mut left);
    }
    let accounted = report.frame_bytes
        + report.joint_bytes
        + report.payload_symbol_bytes
        + report.parity_bytes
        + report.repeat_bytes
        + report.control_bytes;
    // What is fed and no frame is fill; padding of the modem is fill that was not fed.
    assert!(accounted <= report.fed_bytes, "{report:?}");
    report.passed = done
        && lab.check().is_empty()
        && report.per_frame_bytes <= 14
        && report.per_message_bytes <= 10
        && report.most_fill_bytes <= MINIMAL_FRAME as u64
        && report.payload_symbol_bytes + report.parity_bytes + report.repeat_bytes >= payload_bytes;
    report.trace_hash = lab.finish_trace();
    report
}

impl TextsReport {
    fn count(&mut self, way: &Way, transmission: &Transmission, left: &mut std::collections::BTreeSet<(u16, u32)>) {
        let (mut fill, mut symbols) = (Vec::new(), false);
        self.fed_bytes += transmission.bytes as u64;
        for piece in &transmission.pieces {
            match &piece.what {
                What::Symbols(chunks) => {
                    symbols = true;
                    self.frames += 1;
                    self.frame_bytes += FRAME_OVERHEAD as u64;
                    self.joint += chunks.len() as u64 - 1;
                    self.joint_bytes += ((chunks.len() - 1) * CHUNK_OVERHEAD) as u64;
                    for chunk in chunks {
                        for (i, symbol) in chunk.symbols.iter().enumerate() {
                            let sequence = u32::from(chunk.first) + i as u32;
                            let fresh = left.insert((chunk.short, sequence));
                            *match (fresh, sequence < chunk.geometry.count()) {
                                (false, _) => &mut self.repeat_bytes,
                                (true, true) => &mut self.payload_symbol_bytes,
                                (true, false) => &mut self.parity_bytes,
                            } += symbol.len() as u64;
                        }
                    }
                }
                What::Control(..) | What::Brief(_) => self.control_bytes += piece.bytes as u64,
                What::Fill => fill.extend(piece.at as u64..(piece.at + piece.bytes) as u64),
            }
        }
        if !symbols {
            // A transmission that only reports or asks has nothing to fill its block with.
            return;
        }
        self.transmissions += 1;
        let blocks = way.waveform.blocks(transmission.bytes as u64);
        let capacity = (way.waveform.bits(blocks) - way.waveform.tail_bits()) / 8;
        fill.extend(transmission.bytes as u64..capacity);
        self.fill_bytes += fill.len() as u64;
        for block in 0..blocks {
            let inside = way.waveform.bytes(block)..way.waveform.bytes(block + 1);
            let here = fill.iter().filter(|at| inside.contains(at)).count() as u64;
            self.most_fill_bytes = self.most_fill_bytes.max(here);
        }
    }

    /// A table, a line for each kind of byte.
    pub fn text(&self) -> String {
        let share = |bytes: u64| 100.0 * bytes as f64 / (self.fed_bytes as f64).max(1.0);
        let line = |what: &str, bytes: u64| format!("  {what:<46} {bytes:>7} B {:>5.1} %\n", share(bytes));
        let mut text = format!(
            "{} bit/s {} loss {}, seed {}: {} messages, {} B as frozen, whole after {} s in {} transmissions\n",
            self.rate,
            self.interleaver,
            self.fer,
            self.seed,
            self.messages,
            self.payload_bytes,
            self.whole_s,
            self.transmissions
        );
        text.push_str(&line("payload, each symbol once", self.payload_symbol_bytes));
        text.push_str(&line(&format!("  of that seals, {} B a message", self.per_message_bytes), self.seal_bytes));
        text.push_str(&line(
            &format!("{} frames of symbols, {} B each", self.frames, FRAME_OVERHEAD),
            self.frame_bytes,
        ));
        text.push_str(&line(
            &format!("{} more transfers in them, {} B each", self.joint, CHUNK_OVERHEAD),
            self.joint_bytes,
        ));
        text.push_str(&line("parity", self.parity_bytes));
        text.push_str(&line("symbols sent again", self.repeat_bytes));
        text.push_str(&line("hello, polls and reports", self.control_bytes));
        text.push_str(&line("fill, the modem's padding included", self.fill_bytes));
        text.push_str(&line("everything fed", self.fed_bytes));
        text.push_str(&format!(
            "  most fill in one block {} B of at most {MINIMAL_FRAME}: {}; {}",
            self.most_fill_bytes,
            if self.passed { "ok" } else { "A BAR IS BROKEN" },
            self.trace_hash
        ));
        text
    }
}
