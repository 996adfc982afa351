//! What `aldis-sim run` prints: messages, levels, stations and totals as tables; the last line is the trace hash.

use std::collections::BTreeMap;
use std::fmt::Write;

use aldis::mail::Precedence;

use crate::run::{MessageLine, RunReport};

/// Most messages listed one by one; of more, those that were not delivered and the slowest.
const LISTED: usize = 100;

/// How long one level's mail took.
#[derive(Clone, PartialEq, Debug)]
pub struct Latency {
    /// The level.
    pub precedence: Precedence,
    /// Messages handed in.
    pub messages: usize,
    /// Seconds from handing in to the far Maildir, of those that got there, in order.
    pub seconds: Vec<f64>,
}

impl Latency {
    /// Mean seconds; `None` when nothing was delivered.
    pub fn mean(&self) -> Option<f64> {
        (!self.seconds.is_empty()).then(|| self.seconds.iter().sum::<f64>() / self.seconds.len() as f64)
    }

    /// The least time within which the share `q` of the delivered was there.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.seconds.len() as f64).ceil() as usize;
        self.seconds.get(rank.saturating_sub(1)).copied()
    }
}

/// Latency of every level that was used, highest first.
pub fn latencies(messages: &[MessageLine]) -> Vec<Latency> {
    let mut levels: BTreeMap<Precedence, Latency> = BTreeMap::new();
    for m in messages {
        let Some(precedence) = Precedence::parse(&m.precedence) else { continue };
        let level = levels.entry(precedence).or_insert(Latency { precedence, messages: 0, seconds: Vec::new() });
        level.messages += 1;
        level.seconds.extend(m.delivery_s);
    }
    let mut levels: Vec<Latency> = levels.into_values().rev().collect();
    levels.iter_mut().for_each(|l| l.seconds.sort_by(f64::total_cmp));
    levels
}

/// The messages worth listing when there are too many: first what was not delivered, then the slowest; in order of number.
pub(super) fn worth_listing(messages: &[MessageLine], most: usize) -> Vec<&MessageLine> {
    let mut listed: Vec<&MessageLine> = messages.iter().collect();
    listed.sort_by(|a, b| {
        let time = |m: &MessageLine| m.delivery_s.unwrap_or(f64::INFINITY);
        time(b).total_cmp(&time(a)).then(a.message.cmp(&b.message))
    });
    listed.truncate(most);
    listed.sort_by_key(|m| m.message);
    listed
}

/// The whole summary.
pub fn text(report: &RunReport) -> String {
    let mut out = format!("{}, seed {}: {} of virtual time\n\n", report.scenario, report.seed, span(report.virtual_s));
    let mut table =
        Table::new("message <from <to <level size payload submitted accepted delivered after confirmed air_B air_s");
    let listed = worth_listing(&report.messages, LISTED);
    for m in &listed {
        let at = |t: Option<f64>| t.map_or_else(|| "-".to_owned(), |t| format!("{t:.1}"));
        table.row([
            m.message.to_string(),
            m.from.clone(),
            m.to.clone(),
            m.precedence.clone(),
            m.size_bytes.to_string(),
            m.payload_bytes.to_string(),
            format!("{:.1}", m.submitted_s),
            at(m.accepted_s),
            at(m.delivered_s),
            at(m.delivery_s),
            at(m.confirmed_s),
            m.bytes_on_air.to_string(),
            format!("{:.1}", m.air_s),
        ]);
    }
    out.push_str(&table.text());
    if listed.len() < report.messages.len() {
        let _ =
            writeln!(out, "{} of {} messages: the undelivered and the slowest", listed.len(), report.messages.len());
    }
    let mut table = Table::new("<level messages delivered mean_s p50_s p95_s");
    for l in latencies(&report.messages) {
        let s = |t: Option<f64>| t.map_or_else(|| "-".to_owned(), |t| format!("{t:.1}"));
        table.row([
            l.precedence.to_string(),
            l.messages.to_string(),
            l.seconds.len().to_string(),
            s(l.mean()),
            s(l.quantile(0.5)),
            s(l.quantile(0.95)),
        ]);
    }
    let _ = write!(out, "\n{}", table.text());
    let mut table = Table::new("<station transmissions air_s air_% bytes");
    for s in &report.stations {
        table.row([
            s.station.clone(),
            s.transmissions.to_string(),
            format!("{:.1}", s.air_s),
            format!("{:.1}", share(s.air_s, report.virtual_s)),
            s.bytes_on_air.to_string(),
        ]);
    }
    let _ = write!(out, "\n{}", table.text());
    let (air, bytes): (f64, u64) = report.stations.iter().fold((0.0, 0), |(a, b), s| (a + s.air_s, b + s.bytes_on_air));
    let delivered = report.messages.iter().filter(|m| m.delivered_s.is_some());
    let (count, size) = delivered.fold((0, 0), |(n, size), m| (n + 1, size + m.size_bytes));
    let _ = writeln!(
        out,
        "\ntotal: {count} of {} messages delivered, {size} B of mail; {bytes} B and {air:.1} s on the air ({:.1} % of the time)",
        report.messages.len(),
        share(air, report.virtual_s)
    );
    for line in &report.satcom {
        let _ = writeln!(out, "{}", line.text());
    }
    for problem in &report.problems {
        let _ = writeln!(out, "BROKEN: {problem}");
    }
    let _ = write!(out, "trace_hash {}", report.trace_hash);
    out
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

/// Seconds as people say them: `95 s`, `1 h 02 min`.
pub(super) fn span(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..120 => format!("{seconds:.0} s"),
        120..7200 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// Columns as wide as they need be: numbers to the right, words (heads that begin with `<`) to the left.
struct Table {
    left: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(heads: &str) -> Self {
        let left = heads.split(' ').map(|h| h.starts_with('<')).collect();
        Self { left, rows: vec![heads.split(' ').map(|h| h.trim_start_matches('<').to_owned()).collect()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.left.len(), "a row has a cell for every head");
        self.rows.push(cells.into());
    }

    fn text(&self) -> String {
        let width = |c: usize| self.rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.left.len()).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.left).map(|((cell, &w), &left)| match left {
                true => format!("{cell:<w$}"),
                false => format!("{cell:>w$}"),
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::StationLine;

    #[test]
    fn the_tables_line_up_and_the_hash_is_last() {
        let text = text(&report(3));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "exercise, seed 7: 1 min 40 s of virtual time".replace("1 min 40 s", "100 s"));
        let table: Vec<&str> = lines.iter().copied().skip(2).take(4).collect();
        assert!(table[0].starts_with("message  from  to     level"), "{text}");
        assert_eq!(table[0].find("delivered").map(|at| at + "delivered".len()), table[1].find("30.0").map(|at| at + 4));
        assert!(text.contains("routine         2          2    25.0   20.0   30.0"), "{text}");
        assert!(text.contains("flash           1          0       -      -      -"), "{text}");
        assert!(text.contains("total: 2 of 3 messages delivered, 2000 B of mail"), "{text}");
        assert!(text.contains("BROKEN: lost"), "{text}");
        assert_eq!(lines.last(), Some(&"trace_hash abc"));
    }

    #[test]
    fn of_many_messages_the_undelivered_and_the_slowest_are_listed() {
        let mut report = report(3);
        let one = report.messages[0].clone();
        report.messages =
            (0..500).map(|n| MessageLine { message: n, delivery_s: Some(n as f64), ..one.clone() }).collect();
        report.messages[3].delivery_s = None;
        let listed: Vec<usize> = worth_listing(&report.messages, 3).iter().map(|m| m.message).collect();
        assert_eq!(listed, [3, 498, 499]);
        assert!(text(&report).contains("100 of 500 messages"));
    }

    #[test]
    fn quantiles_are_values_that_happened() {
        let l = Latency { precedence: Precedence::Flash, messages: 4, seconds: vec![1.0, 2.0, 3.0, 10.0] };
        assert_eq!((l.quantile(0.5), l.quantile(0.95), l.mean()), (Some(2.0), Some(10.0), Some(4.0)));
    }

    fn report(messages: usize) -> RunReport {
        let message = |n: usize| MessageLine {
            message: n,
            from: "ship".into(),
            to: "shore".into(),
            also: Vec::new(),
            precedence: if n == 2 { "flash" } else { "routine" }.into(),
            size_bytes: 1000,
            payload_bytes: 900,
            submitted_s: 0.0,
            accepted_s: Some(0.1),
            delivered_s: [Some(30.0), Some(20.0), None][n],
            delivery_s: [Some(30.0), Some(20.0), None][n],
            confirmed_s: None,
            bytes_on_air: 1100,
            air_s: 9.6,
        };
        RunReport {
            schema: "aldis-sim.run/1",
            scenario: "exercise".into(),
            seed: 7,
            virtual_s: 100.0,
            messages: (0..messages).map(message).collect(),
            stations: vec![StationLine { station: "ship".into(), air_s: 9.6, bytes_on_air: 1100, transmissions: 1 }],
            satcom: Vec::new(),
            problems: vec!["lost".into()],
            trace_hash: "abc".into(),
        }
    }
}
