//! The record of a run: one JSON object a line, and a running SHA-256 over the lines.
//!
//! Two runs of one seed give the same lines and so the same hash, on any machine: a line holds virtual times and bytes, never
//! wall time, paths or versions.

use std::io::Write;

use aldis::time::Instant;
use ring::digest::{Context, SHA256, digest};
use serde::Serialize;

use crate::ether::StationId;
use crate::modem::ModemOutput;

/// A record being written.
pub struct Trace {
    hash: Context,
    lines: u64,
    sink: Option<Box<dyn Write + Send>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self::hashed()
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trace {{ lines: {}, hash: {} }}", self.lines, self.hash())
    }
}

/// Every line opens with these; the rest is the record's own.
#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    t_ns: u64,
    station: Option<StationId>,
    what: &'a str,
    #[serde(flatten)]
    detail: T,
}

impl Trace {
    /// A record of which only the hash is kept.
    pub fn hashed() -> Self {
        Self { hash: Context::new(&SHA256), lines: 0, sink: None }
    }

    /// A record that is also written to `sink`.
    pub fn written(sink: Box<dyn Write + Send>) -> Self {
        Self { sink: Some(sink), ..Self::hashed() }
    }

    /// Adds a line. `detail` must be a struct or map whose fields come in a fixed order.
    ///
    /// # Panics
    ///
    /// When `detail` cannot be written as JSON or the sink fails: a laboratory that loses its record has failed.
    pub fn record(&mut self, at: Instant, station: Option<StationId>, what: &str, detail: impl Serialize) {
        let mut line = serde_json::to_vec(&Line { t_ns: at.0, station, what, detail }).expect("a record is plain data");
        line.push(b'\n');
        self.hash.update(&line);
        self.lines += 1;
        if let Some(sink) = &mut self.sink {
            sink.write_all(&line).expect("the trace can be written");
        }
    }

    /// Adds what a modem said.
    pub fn modem(&mut self, at: Instant, station: StationId, output: &ModemOutput) {
        let id = Some(station);
        match output {
            ModemOutput::Keyed { at: first } => self.record(at, id, "keyed", First { first_symbol_ns: first.0 }),
            ModemOutput::Unkeyed => self.record(at, id, "unkeyed", Nothing {}),
            ModemOutput::Carrier(on) => self.record(at, id, "carrier", On { on: *on }),
            ModemOutput::Received(bytes) => {
                self.record(at, id, "received", Sum { bytes: bytes.len(), sha256: short_digest(bytes) });
            }
            ModemOutput::Measured(m) => {
                let waveform = m.waveform.as_ref().map(ToString::to_string);
                self.record(at, id, "measured", Reading { waveform, snr_tenths: m.snr_tenths });
            }
            ModemOutput::Cts(on) => self.record(at, id, "cts", On { on: *on }),
            ModemOutput::Fault(text) => self.record(at, id, "fault", Text { text }),
            ModemOutput::Ready => self.record(at, id, "ready", Nothing {}),
            ModemOutput::Antenna { on, at: edge } => self.record(*edge, id, "antenna", On { on: *on }),
        }
    }

    /// Adds bytes fed to a modem.
    pub fn fed(&mut self, at: Instant, station: StationId, bytes: &[u8]) {
        self.record(at, Some(station), "fed", Sum { bytes: bytes.len(), sha256: short_digest(bytes) });
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// SHA-256 of the lines so far, in hex.
    pub fn hash(&self) -> String {
        data_encoding::HEXLOWER.encode(self.hash.clone().finish().as_ref())
    }
}

/// The first eight bytes of the SHA-256 of `bytes`, in hex: enough to tell two byte strings apart in a trace.
pub fn short_digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&digest(&SHA256, bytes).as_ref()[..8])
}

#[derive(Serialize)]
struct Reading {
    waveform: Option<String>,
    snr_tenths: Option<i16>,
}
#[derive(Serialize)]
struct Nothing {}
#[derive(Serialize)]
struct On {
    on: bool,
}
#[derive(Serialize)]
struct First {
    first_symbol_ns: u64,
}
#[derive(Serialize)]
struct Sum {
    bytes: usize,
    sha256: String,
}
#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_lines_written() {
        let (mut there, here) = (tempfile::tempfile().expect("a file"), Instant::from_millis(5));
        let mut trace = Trace::written(Box::new(there.try_clone().expect("a second handle")));
        trace.modem(here, StationId(1), &ModemOutput::Received(vec![1, 2, 3]));
        trace.modem(here, StationId(0), &ModemOutput::Carrier(true));
        let mut text = String::new();
        std::io::Seek::rewind(&mut there).expect("rewinds");
        std::io::Read::read_to_string(&mut there, &mut text).expect("reads");
        assert_eq!(
            text,
            "{\"t_ns\":5000000,\"station\":1,\"what\":\"received\",\"bytes\":3,\"sha256\":\"039058c6f2c0cb49\"}\n\
             {\"t_ns\":5000000,\"station\":0,\"what\":\"carrier\",\"on\":true}\n"
        );
        let whole = data_encoding::HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref());
        assert_eq!((trace.hash(), trace.lines()), (whole, 2));
    }
}
