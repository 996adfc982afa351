//! The tables of the page: levels, paths, stations, messages.

use std::collections::BTreeMap;
use std::fmt::Write;

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};

use super::draw::{esc, grouped, level_class, zulu_seconds};
use crate::ether::StationId;
use crate::journal::Outcome;
use crate::output::chronicle::Chronicle;
use crate::output::summary::{latencies, span, worth_listing};

/// Messages and paths listed at most.
const MESSAGES: usize = 200;
const PATHS: usize = 60;

/// A table being written. Heads that begin with `#` stand over figures, which are set to the right.
struct Table {
    figures: Vec<bool>,
    html: String,
}

impl Table {
    fn new(heads: &[&str]) -> Self {
        let figures: Vec<bool> = heads.iter().map(|h| h.starts_with('#')).collect();
        let mut table = Self { figures, html: "<div class=\"scroll\"><table><thead>".into() };
        let heads: Vec<String> = heads.iter().map(|h| esc(h.trim_start_matches('#'))).collect();
        table.line("th", &heads);
        table.html.push_str("</thead><tbody>");
        table
    }

    /// Adds a row; cells are markup.
    fn row(&mut self, cells: &[String]) {
        self.line("td", cells);
    }

    fn line(&mut self, tag: &str, cells: &[String]) {
        self.html.push_str("<tr>");
        for (cell, &figure) in cells.iter().zip(&self.figures) {
            let class = if figure { " class=\"n\"" } else { "" };
            let _ = write!(self.html, "<{tag}{class}>{cell}</{tag}>");
        }
        self.html.push_str("</tr>");
    }

    fn html(self) -> String {
        self.html + "</tbody></table></div>"
    }
}

/// How long mail took, by level.
pub(super) fn levels(chronicle: &Chronicle) -> String {
    let mut table = Table::new(&["Precedence", "#Messages", "#Delivered", "#Mean", "#Median", "#95 %", "#Slowest"]);
    for l in latencies(&chronicle.report.messages) {
        table.row(&[
            chip(l.precedence),
            l.messages.to_string(),
            l.seconds.len().to_string(),
            seconds(l.mean()),
            seconds(l.quantile(0.5)),
            seconds(l.quantile(0.95)),
            seconds(l.seconds.last().copied()),
        ]);
    }
    table.html()
}

/// What each station put on the air.
pub(super) fn stations(chronicle: &Chronicle) -> String {
    let mut table = Table::new(&["Station", "#Key-downs", "#On the air", "#Share", "#Bytes fed"]);
    for s in &chronicle.report.stations {
        let share = 100.0 * s.air_s / chronicle.report.virtual_s.max(1e-9);
        table.row(&[
            esc(&s.station),
            grouped(s.transmissions),
            seconds(Some(s.air_s)),
            format!("{share:.1} %"),
            grouped(s.bytes_on_air),
        ]);
    }
    table.html()
}

/// What became of the blocks on each path.
pub(super) fn paths(chronicle: &Chronicle) -> String {
    let mut counts: BTreeMap<(StationId, StationId), [u64; 5]> =
        chronicle.links.iter().map(|ends| (*ends, [0; 5])).collect();
    for r in &chronicle.receptions {
        counts.entry((r.from, r.to)).or_default()[r.outcome as usize] += 1;
    }
    let left_out = counts.len().saturating_sub(PATHS);
    let mut rows: Vec<_> = counts.into_iter().collect();
    if left_out > 0 {
        rows.sort_by_key(|(ends, c)| (std::cmp::Reverse(c.iter().sum::<u64>()), *ends));
        rows.truncate(PATHS);
        rows.sort_by_key(|(ends, _)| *ends);
    }
    let mut table =
        Table::new(&["Path", "#Blocks", "What became of them", "#Good", "#Damaged", "#Collided", "#Missed", "#Deaf"]);
    for ((from, to), c) in rows {
        let sum = c.iter().sum::<u64>();
        let part = |o: Outcome| 100.0 * c[o as usize] as f64 / sum.max(1) as f64;
        let mut bar = String::from("<svg class=\"stack\" width=\"180\" height=\"10\" aria-hidden=\"true\">");
        let mut x = 0.0;
        for (outcome, class) in OUTCOMES {
            let width = part(outcome);
            let _ = write!(bar, "<rect class=\"{class}\" x=\"{x:.2}%\" width=\"{width:.2}%\" height=\"10\"/>");
            x += width;
        }
        bar.push_str("</svg>");
        let figure = |o| if sum == 0 { "\u{2013}".to_owned() } else { format!("{:.1} %", part(o)) };
        let mut cells =
            vec![format!("{} \u{2192} {}", esc(chronicle.name(from)), esc(chronicle.name(to))), grouped(sum), bar];
        cells.extend(OUTCOMES.iter().map(|(o, _)| figure(*o)));
        table.row(&cells);
    }
    let mut out = super::key(&OUTCOMES.map(|(_, word)| (word, word)));
    out.push_str(&table.html());
    if left_out > 0 {
        let _ = write!(out, "<p class=\"note\">{left_out} paths with fewer blocks are left out.</p>");
    }
    out
}

/// In the order of their numbers.
const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Good, "good"),
    (Outcome::Damaged, "damaged"),
    (Outcome::Collided, "collided"),
    (Outcome::Missed, "missed"),
    (Outcome::Deaf, "deaf"),
];

/// Every message, or of very many the undelivered and the slowest.
pub(super) fn messages(chronicle: &Chronicle) -> String {
    let all = &chronicle.report.messages;
    let listed = worth_listing(all, MESSAGES);
    let mut out = String::new();
    if listed.len() < all.len() {
        let _ = write!(
            out,
            "<p class=\"note\">{} of {} messages: those that were not delivered, then the slowest.</p>",
            listed.len(),
            grouped(all.len() as u64)
        );
    }
    let mut table = Table::new(&[
        "#No.",
        "Handed in",
        "From",
        "To",
        "Precedence",
        "#Bytes",
        "#Payload",
        "#Delivered after",
        "#Confirmed after",
        "#Bytes sent",
        "#On the air",
    ]);
    for m in listed {
        let handed_in = chronicle.wall(Instant::ZERO + Duration::from_secs_f64(m.submitted_s));
        let level = Precedence::parse(&m.precedence);
        table.row(&[
            m.message.to_string(),
            zulu_seconds(handed_in),
            esc(&m.from),
            esc(&m.to),
            level.map_or_else(|| esc(&m.precedence), chip),
            grouped(m.size_bytes as u64),
            grouped(m.payload_bytes),
            match (m.delivery_s, m.accepted_s) {
                (Some(s), _) => seconds(Some(s)),
                (None, Some(_)) => "<b class=\"bad\">not delivered</b>".to_owned(),
                // Nobody was there to take it, so nothing was promised.
                (None, None) => "not accepted".to_owned(),
            },
            seconds(m.confirmed_s.map(|at| at - m.submitted_s)),
            grouped(m.bytes_on_air),
            seconds(Some(m.air_s)),
        ]);
    }
    out + &table.html()
}

fn seconds(s: Option<f64>) -> String {
    s.map_or_else(|| "\u{2013}".to_owned(), |s| if s < 120.0 { format!("{s:.1} s") } else { span(s) })
}

fn chip(level: Precedence) -> String {
    format!("<i class=\"chip {}\"></i>{level}", level_class(level))
}
