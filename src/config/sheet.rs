//! Modem sheets: what a core must know of a modem, per rate and interleaver. Three are built in (hw/); a profile may name its own.
//!
//! Times are written in symbols, because that is what waveforms are made of: 287 symbols at 2400 a second is no whole number
//! of milliseconds, and a block rounded down would hold one bit less than it does.

use std::collections::BTreeMap;

use super::reader::{Reader, boolean, integer, join, parsed, text};
use super::schema;
use super::tree::{self, Entry, Origin, Value};
use crate::time::Duration;
use crate::units::{Bps, Bytes, parse_duration};

/// The built-in sheets: name and text.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("simulated", include_str!("../../hw/simulated.toml")),
    ("freedv", include_str!("../../hw/freedv.toml")),
    ("v24-generic", include_str!("../../hw/v24-generic.toml")),
];

/// A modem's sheet.
#[derive(Clone, Debug)]
pub struct Sheet {
    pub name: String,
    pub title: String,
    /// Whether the key line is RTS (else the simulated modem's socket).
    pub keyed_by_lines: bool,
    pub can_abort: bool,
    pub buffer_bytes: u32,
    pub tail_bits: u32,
    pub turnaround: Duration,
    /// Whether the modem can be told over its side channel what to transmit with.
    pub selects_waveform: bool,
    pub rates: BTreeMap<Bps, Rate>,
    /// Where the sheet was read.
    pub origin: Origin,
}

/// One data rate of a modem.
#[derive(Clone, Debug)]
pub struct Rate {
    pub frame_bytes: u32,
    /// Signal-to-noise ratio, dB in 3 kHz, at which one block in ten is lost on a fading path.
    pub snr_db: Option<f64>,
    /// By letter: preamble and block.
    pub interleavers: BTreeMap<String, (Duration, Duration)>,
    pub origin: Origin,
}

/// Reads a sheet. Its problems join those of the profile, under the sheet's own file name.
pub fn read(reader: &mut Reader, file: &str, source: &str) -> Option<Sheet> {
    let root = match tree::parse(file, source) {
        Ok(root) => root,
        Err(problems) => {
            reader.problems.extend(problems);
            return None;
        }
    };
    // The sheet has its own reader: only the values a bearer takes from it are effective, and its keys are its own.
    let mut own = Reader::default();
    let sheet = read_root(&mut own, &root);
    reader.asked.append(&mut own.asked);
    let sound = own.problems.is_empty();
    reader.problems.append(&mut own.problems);
    sheet.filter(|_| sound)
}

fn read_root(reader: &mut Reader, root: &Entry) -> Option<Sheet> {
    let mut s = reader.scope(&schema::SHEET, "", Some(root));
    let name = s.field("name", text);
    let title = s.field("title", text);
    let keying = s.field("keying", parsed(|t| ["lines", "socket"].contains(&t).then(|| t == "lines")));
    let can_abort = s.field("can_abort", boolean);
    let buffer = s.field("buffer", parsed(|t| Bytes::parse(t).and_then(|b| u32::try_from(b.0).ok())));
    let tail_bits = s.field("tail_bits", integer(0, 10_000));
    let turnaround = s.field("turnaround", parsed(parse_duration));
    let selects_waveform = s.field("selects_waveform", boolean);
    let selects_path = s.at("selects_waveform");
    let symbol_rate = s.field("symbol_rate", integer(1, 100_000));
    let waveforms = s.raw("waveform");
    let symbol_rate = u64::try_from(symbol_rate?).ok()?;
    let mut rates = BTreeMap::new();
    match waveforms.map(|w| w.value) {
        Some(Value::List(items)) => {
            for (i, item) in items.iter().enumerate() {
                let Some((rate, facts)) = read_rate(reader, &format!("waveform.{i}"), item, symbol_rate) else {
                    continue;
                };
                if rates.insert(rate, facts).is_some() {
                    reader.problem(&format!("waveform.{i}.rate"), format!("{rate} stands twice"), "each rate once");
                }
            }
        }
        _ => reader.problem_at(&root.origin, "waveform", "missing", "[[waveform]] tables"),
    }
    if (keying, selects_waveform) == (Some(true), Some(true)) {
        reader.problem(&selects_path, "lines carry no words to the modem", "keying = \"socket\", or false");
    }
    Some(Sheet {
        selects_waveform: selects_waveform?,
        name: name?,
        title: title?,
        keyed_by_lines: keying?,
        can_abort: can_abort?,
        buffer_bytes: buffer?,
        tail_bits: u32::try_from(tail_bits?).ok()?,
        turnaround: turnaround?,
        rates,
        origin: root.origin.clone(),
    })
}

fn read_rate(reader: &mut Reader, path: &str, entry: &Entry, symbol_rate: u64) -> Option<(Bps, Rate)> {
    let mut s = reader.scope(&schema::WAVEFORM, path, Some(entry));
    let rate = s.field("rate", parsed(Bps::parse));
    let frame = s.field("frame", parsed(|t| Bytes::parse(t).map(|b| b.0).filter(|b| (32..=1023).contains(b))));
    let snr_db = s.has("snr").then(|| s.field("snr", parsed(decibels))).flatten();
    s.raw("snr");
    let table = s.raw("interleavers");
    let mut interleavers = BTreeMap::new();
    match table.map(|t| t.value) {
        Some(Value::Table(fields)) => {
            for (letter, entry) in &fields {
                let at = join(&join(path, "interleavers"), letter);
                let mut s = reader.scope(&schema::INTERLEAVER, &at, Some(entry));
                let preamble = s.field("preamble", integer(1, 1_000_000));
                let block = s.field("block", integer(1, 1_000_000));
                if let (Some(preamble), Some(block)) = (preamble, block) {
                    interleavers.insert(letter.clone(), (span(preamble, symbol_rate), span(block, symbol_rate)));
                }
            }
        }
        _ => reader.problem_at(&entry.origin, &join(path, "interleavers"), "missing", "a table of { preamble, block }"),
    }
    let frame_bytes = u32::try_from(frame?).ok()?;
    Some((rate?, Rate { frame_bytes, snr_db, interleavers, origin: entry.origin.clone() }))
}

/// A ratio such as `-4.5dB`.
fn decibels(text: &str) -> Option<f64> {
    text.strip_suffix("dB")?.trim_end().parse::<f64>().ok().filter(|db| (-30.0..=60.0).contains(db))
}

/// Time of so many symbols, rounded up to the nanosecond: rounded down, a block would seem to hold a bit less than it does.
fn span(symbols: i64, symbol_rate: u64) -> Duration {
    let symbols = u64::try_from(symbols).unwrap_or(0);
    Duration::from_nanos((symbols * 1_000_000_000).div_ceil(symbol_rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_sheets_are_sound_and_exact() {
        for (name, source) in BUILT_IN {
            let mut reader = Reader::default();
            let sheet = read(&mut reader, name, source).expect("sound");
            assert!(reader.problems.is_empty(), "{:?}", reader.problems);
            assert_eq!(sheet.name, name);
            if name == "freedv" {
                continue;
            }
            assert_eq!(sheet.rates.len(), 11);
            let low = &sheet.rates[&Bps(2400)].interleavers;
            assert_eq!(low["L"], (Duration::from_millis(4800), Duration::from_millis(4800)));
            assert_eq!(low["S"], (Duration::from_millis(600), Duration::from_millis(600)));
            let high = &sheet.rates[&Bps(9600)].interleavers;
            assert_eq!(high["VL"].1, Duration::from_millis(8610));
            // Not a bit of the 1148 of an ultra-short block may be lost to rounding.
            assert_eq!(high["US"].1.as_nanos() * 9600 / 1_000_000_000, 1148);
        }
    }

    #[test]
    fn frames_fit_the_smallest_block_group_that_carries_them() {
        // A long-interleaver block must hold at least one whole frame and the tail from 600 bit/s up, else every loss costs two.
        let (name, source) = BUILT_IN[0];
        let sheet = read(&mut Reader::default(), name, source).expect("sound");
        for (rate, facts) in sheet.rates.iter().filter(|(rate, _)| rate.0 >= 600) {
            let block_bits = facts.interleavers["L"].1.as_nanos() * u128::from(rate.0) / 1_000_000_000;
            assert!(u128::from(facts.frame_bytes) * 8 + u128::from(sheet.tail_bits) <= block_bits, "{rate}");
        }
    }

    #[test]
    fn a_burst_of_freedv_holds_its_frame_and_a_full_transmission_of_them_not_a_byte_more() {
        let (name, source) = BUILT_IN[1];
        let sheet = read(&mut Reader::default(), name, source).expect("sound");
        for (rate, facts) in &sheet.rates {
            let (_, block) = facts.interleavers.values().next().expect("one mode");
            let bits = |blocks: u32| block.as_nanos() * u128::from(blocks) * u128::from(rate.0) / 1_000_000_000;
            let most = (Duration::from_millis(127_500).as_nanos() / block.as_nanos()) as u32;
            for blocks in 1..=most {
                assert_eq!(bits(blocks) / 8, u128::from(facts.frame_bytes * blocks), "{rate}, {blocks} blocks");
            }
        }
    }

    #[test]
    fn a_broken_sheet_names_its_lines() {
        let mut reader = Reader::default();
        let source = "name = \"x\"\ntitle = \"x\"\nkeying = \"smoke\"\ncan_abort = true\nbuffer = \"1KiB\"\ntail_bits = 1\nturnaround = \"1s\"\nsymbol_rate = 2400\n[[waveform]]\nrate = \"quick\"\nframe = \"1B\"\ninterleavers = { S = { preamble = 0, block = 1 } }\n";
        assert!(read(&mut reader, "x.toml", source).is_none());
        let lines: Vec<usize> = reader.problems.iter().map(|p| p.line).collect();
        assert_eq!(lines, [3, 10, 11, 12], "{:?}", reader.problems);
    }
}
