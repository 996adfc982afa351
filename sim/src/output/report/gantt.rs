//! Who radiated when: one lane per station, key-downs coloured by what they carried, orders of silence behind them.
//!
//! Every horizontal measure is a share of the width, so the picture can be stretched (the page's zoom does) while its words keep
//! their shape. In long runs the key-downs of one colour in one cell of time are drawn as one, until the picture is small enough.

use std::collections::BTreeMap;
use std::fmt::Write;

use aldis::emcon::State;
use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};

use super::draw::{esc, level_class, short_span, time_step, time_ticks, zulu, zulu_seconds};
use crate::ether::StationId;
use crate::modem::Failure;
use crate::output::chronicle::{Chronicle, KeyDown, Kind, What};

/// Heights in pixels: axis, lane and its parts, row of a mishap.
const AXIS: u32 = 34;
const LANE: u32 = 56;
const MAIL: (u32, u32) = (16, 24);
const WORDS: (u32, u32) = (42, 8);
const MISHAP: u32 = 22;
/// Most bars, marks of violations and rows of mishaps drawn.
const BARS: usize = 4000;
/// Into how many cells of time a long run is cut at first.
const CELLS: u64 = 1000;
const VIOLATIONS: usize = 300;
const MISHAPS: usize = 16;

/// One bar: a key-down, or those of one colour that begin in one cell of time.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    from: Instant,
    until: Instant,
    count: usize,
    air: Duration,
    title: String,
}

/// A row of what was away, and when.
struct Row {
    name: String,
    what: &'static str,
    spans: Vec<(Instant, Instant)>,
}

impl Bar {
    /// An attribute that makes a bar of several key-downs the paler the less of it they radiate.
    fn paleness(&self) -> String {
        let share = self.air.as_secs_f64() / self.until.since(self.from).as_secs_f64().max(1e-9);
        if self.count > 1 { format!(" opacity=\"{:.2}\"", 0.25 + 0.75 * share.min(1.0)) } else { String::new() }
    }
}

/// Where a bar lies and what colours it: station, upper or lower part, class.
type Colour = (StationId, bool, &'static str);

/// The picture, its names beside it, and a line of words below.
pub(super) fn draw(chronicle: &Chronicle) -> String {
    let end = chronicle.end.max(Instant(1));
    let (bars, merged) = bars(chronicle);
    let rows = mishaps(chronicle);
    let lanes = AXIS + LANE * chronicle.stations.len() as u32;
    let height = lanes + MISHAP * rows.len() as u32 + 6;
    let mut svg = format!(
        "<svg class=\"gantt\" height=\"{height}\" role=\"img\" aria-label=\"Key-downs of every station over time\">\
         <defs><pattern id=\"silent\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"7\" height=\"7\" class=\"silent-ground\"/><rect width=\"2\" height=\"7\" class=\"silent-line\"/></pattern>\
         <pattern id=\"down\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
         <rect width=\"6\" height=\"6\" class=\"down-ground\"/><path d=\"M0 0L6 6M6 0L0 6\" class=\"down-line\"/></pattern></defs>"
    );
    for i in 0..chronicle.stations.len() as u32 {
        if i % 2 == 0 {
            let _ = write!(
                svg,
                "<rect class=\"lane\" x=\"0\" y=\"{}\" width=\"100%\" height=\"{LANE}\"/>",
                AXIS + LANE * i
            );
        }
    }
    bands(chronicle, end, &mut svg);
    axis(chronicle, end, height, &mut svg);
    for ((station, mail, class), bars) in &bars {
        let (top, tall) = if *mail { MAIL } else { WORDS };
        let y = AXIS + LANE * u32::from(station.0) + top;
        let _ = write!(svg, "<g class=\"bar {class}\">");
        for bar in bars {
            let _ = write!(
                svg,
                "<rect {} y=\"{y}\" height=\"{tall}\"{}><title>{}</title></rect>",
                across(bar.from, bar.until, end),
                bar.paleness(),
                esc(&bar.title)
            );
        }
        svg.push_str("</g>");
    }
    violations(chronicle, end, &mut svg);
    let mut names = format!("<div class=\"names\" aria-hidden=\"true\"><div style=\"height:{AXIS}px\"></div>");
    for station in &chronicle.stations {
        let _ = write!(names, "<div class=\"name\" style=\"line-height:{LANE}px\">{}</div>", esc(&station.name));
    }
    for (i, Row { name, what, spans }) in rows.iter().enumerate() {
        let y = lanes + MISHAP * i as u32 + 5;
        for &(from, until) in spans {
            let _ = write!(
                svg,
                "<rect class=\"mishap\" {} y=\"{y}\" height=\"12\" rx=\"2\"><title>{}</title></rect>",
                across(from, until, end),
                esc(format!("{name}: {what}, {}", period(chronicle, from, until)))
            );
        }
        if let Some(&(from, _)) = spans.first() {
            let (x, anchor) = beside(from, end);
            let _ = write!(svg, "<text class=\"note on\" x=\"{x}\" y=\"{}\"{anchor}>{}</text>", y + 10, esc(what));
        }
        let _ = write!(names, "<div class=\"name small\" style=\"line-height:{MISHAP}px\">{}</div>", esc(name));
    }
    svg.push_str("</svg>");
    names.push_str("</div>");
    let mut note = String::new();
    if merged > Duration::ZERO {
        let cell = short_span(merged.as_secs_f64());
        note = format!(
            "<p class=\"note\">Key-downs of one colour that begin in the same {cell} are drawn as one, the paler the less of \
             the time they radiate.</p>"
        );
    }
    format!("<div class=\"lanes\">{names}<div class=\"scroll\" id=\"time\" tabindex=\"0\">{svg}</div></div>{note}")
}

/// Place and width of a span.
fn across(from: Instant, until: Instant, end: Instant) -> String {
    let share = |at: Instant| 100.0 * at.0.min(end.0) as f64 / end.0 as f64;
    let x = share(from);
    format!("x=\"{x:.4}%\" width=\"{:.4}%\"", (share(until) - x).max(0.0))
}

/// Words just right of an instant, or left of it near the end: x, and the attributes that go with it.
fn beside(at: Instant, end: Instant) -> (String, &'static str) {
    let share = 100.0 * at.0.min(end.0) as f64 / end.0 as f64;
    (format!("{share:.4}%"), if share < 85.0 { " dx=\"4\"" } else { " dx=\"-4\" text-anchor=\"end\"" })
}

fn period(chronicle: &Chronicle, from: Instant, until: Instant) -> String {
    format!("{} to {}", zulu_seconds(chronicle.wall(from)), zulu_seconds(chronicle.wall(until)))
}

fn axis(chronicle: &Chronicle, end: Instant, height: u32, svg: &mut String) {
    let whole = end.since(Instant::ZERO);
    let mut known: Vec<Instant> = Vec::new();
    // Coarse marks always; finer ones are shown as the picture is stretched.
    for (class, most) in [("t0", 8), ("t1", 40), ("t2", 200)] {
        for at in time_ticks(chronicle.start, end, time_step(whole, most)) {
            if known.contains(&at) {
                continue;
            }
            known.push(at);
            let share = at.0 as f64 / end.0 as f64;
            let x = format!("{:.4}%", 100.0 * share);
            // At the right end a mark's time stands before it.
            let side = if share > 0.96 { "dx=\"-3\" text-anchor=\"end\"" } else { "dx=\"3\"" };
            let wall = chronicle.wall(at);
            let midnight = wall.seconds().rem_euclid(86_400) == 0;
            let _ = write!(
                svg,
                "<g class=\"{class}\"><line class=\"grid{}\" x1=\"{x}\" x2=\"{x}\" y1=\"24\" y2=\"{height}\"/>\
                 <text class=\"tick\" x=\"{x}\" y=\"18\" {side}>{}</text></g>",
                if midnight { " midnight" } else { "" },
                if midnight || known.len() == 1 { wall.dtg() } else { zulu(wall) }
            );
        }
    }
    if chronicle.mended < end && end.since(chronicle.mended) > whole / 200 {
        let x = format!("{:.4}%", 100.0 * chronicle.mended.0 as f64 / end.0 as f64);
        let _ = write!(
            svg,
            "<line class=\"mended\" x1=\"{x}\" x2=\"{x}\" y1=\"24\" y2=\"{height}\"/>\
             <text class=\"note\" x=\"{x}\" y=\"32\" dx=\"-4\" text-anchor=\"end\">everything mended</text>"
        );
    }
}

/// Orders of silence and processes that were down, behind the bars.
fn bands(chronicle: &Chronicle, end: Instant, svg: &mut String) {
    for (i, station) in chronicle.stations.iter().enumerate() {
        let y = AXIS + LANE * i as u32;
        let mut orders = station.orders.iter().peekable();
        // Orders repeated, as after a restart, are one band.
        while let Some((from, state)) = orders.next() {
            let mut until = orders.peek().map_or(end, |next| next.0);
            while let Some(same) = orders.next_if(|next| next.1 == *state) {
                until = orders.peek().map_or(end, |next| next.0).max(same.0);
            }
            let (class, word) = match state {
                State::Open => continue,
                State::Silent => ("silent", "silent".to_owned()),
                State::Window(_) => ("restricted", "window".to_owned()),
                State::AckOnly => ("restricted", "ack-only".to_owned()),
                State::Restricted(level) => ("restricted", format!("{level} and above only")),
            };
            band(chronicle, (*from, until), end, y, (class, &word), svg);
        }
        for &span in &station.down {
            band(chronicle, span, end, y, ("down", "process down"), svg);
        }
    }
}

fn band(
    chronicle: &Chronicle,
    (from, until): (Instant, Instant),
    end: Instant,
    y: u32,
    (class, word): (&str, &str),
    svg: &mut String,
) {
    let (x, anchor) = beside(from, end);
    let _ = write!(
        svg,
        "<g class=\"band {class}\"><rect {} y=\"{}\" height=\"{}\"><title>{}</title></rect>\
         <text class=\"note\" x=\"{x}\" y=\"{}\"{anchor}>{}</text></g>",
        across(from, until, end),
        y + 1,
        LANE - 2,
        esc(format!("{word}, {}", period(chronicle, from, until))),
        y + 12,
        esc(word)
    );
}

fn violations(chronicle: &Chronicle, end: Instant, svg: &mut String) {
    svg.push_str("<g class=\"violation\">");
    for v in chronicle.violations.iter().take(VIOLATIONS) {
        let y = AXIS + LANE * u32::from(v.station.0);
        let x = 100.0 * v.from.0.min(end.0) as f64 / end.0 as f64;
        let title = esc(&v.text);
        let _ = write!(
            svg,
            "<rect {} y=\"{}\" height=\"{}\"><title>{title}</title></rect>\
             <text x=\"{x:.4}%\" y=\"{}\" text-anchor=\"middle\">\u{25BC}<title>{title}</title></text>",
            across(v.from, v.until, end),
            y + 2,
            LANE - 4,
            y + 12
        );
    }
    svg.push_str("</g>");
}

/// Bars by colour, and the cell in which they were drawn as one; none when each key-down has its own.
fn bars(chronicle: &Chronicle) -> (BTreeMap<Colour, Vec<Bar>>, Duration) {
    let mut single: BTreeMap<Colour, Vec<Bar>> = BTreeMap::new();
    for key_down in &chronicle.key_downs {
        let until = key_down.sent.off.unwrap_or(chronicle.end);
        let bar = Bar {
            from: key_down.sent.on,
            until,
            count: 1,
            air: until.since(key_down.sent.on),
            title: title(chronicle, key_down, until),
        };
        for (mail, class) in colours(key_down) {
            single.entry((key_down.sent.station, mail, class)).or_default().push(bar.clone());
        }
    }
    let mut cell = Duration::ZERO;
    let mut bars = single.clone();
    while bars.values().map(Vec::len).sum::<usize>() > BARS {
        cell = if cell.is_zero() { time_step(chronicle.end.since(Instant::ZERO), CELLS) } else { cell * 2 };
        bars = single.iter().map(|(colour, bars)| (*colour, merge(chronicle, bars, cell))).collect();
    }
    (bars, cell)
}

fn merge(chronicle: &Chronicle, bars: &[Bar], cell: Duration) -> Vec<Bar> {
    let place = |bar: &Bar| u128::from(bar.from.0) / cell.as_nanos().max(1);
    let mut merged: Vec<Bar> = Vec::new();
    for bar in bars {
        match merged.last_mut() {
            Some(last) if place(last) == place(bar) => {
                last.until = last.until.max(bar.until);
                last.count += 1;
                last.air += bar.air;
            }
            _ => merged.push(bar.clone()),
        }
    }
    for bar in merged.iter_mut().filter(|b| b.count > 1) {
        let span = period(chronicle, bar.from, bar.until);
        bar.title = format!("{} key-downs, {:.1} s on the air, {span}", bar.count, bar.air.as_secs_f64());
    }
    merged
}

/// The upper part of a lane is mail by level, the lower part is words between the stations by kind.
fn colours(key_down: &KeyDown) -> Vec<(bool, &'static str)> {
    let mail = (true, key_down.precedence.map_or("p1", level_class));
    match key_down.kind {
        Kind::Symbols => vec![mail],
        Kind::Mixed => vec![mail, (false, "report")],
        Kind::Report => vec![(false, "report")],
        Kind::Poll => vec![(false, "poll")],
        Kind::Hello => vec![(false, "hello")],
        Kind::Nothing => vec![(false, "nothing")],
    }
}

fn title(chronicle: &Chronicle, key_down: &KeyDown, until: Instant) -> String {
    let sent = &key_down.sent;
    let level = key_down.precedence.filter(|_| key_down.kind.carries_mail()).map_or("", Precedence::name);
    let cut = if sent.whole { "" } else { ", cut off" };
    format!(
        "{} at {}: {} {level}\n{} bytes in {:.1} s at {} bit/s{cut} (transmission {})",
        chronicle.name(sent.station),
        zulu_seconds(chronicle.wall(sent.on)),
        key_down.kind.name(),
        sent.bytes.len(),
        until.since(sent.on).as_secs_f64(),
        sent.waveform.rate,
        sent.number
    )
}

fn mishaps(chronicle: &Chronicle) -> Vec<Row> {
    let mut rows: BTreeMap<What, Vec<(Instant, Instant)>> = BTreeMap::new();
    for m in &chronicle.mishaps {
        rows.entry(m.what).or_default().push((m.from, m.until));
    }
    let left_out = rows.len().saturating_sub(MISHAPS);
    let row = |(what, spans)| {
        let (name, word) = match what {
            What::Path(from, to) => (format!("{} \u{2192} {}", chronicle.name(from), chronicle.name(to)), "path gone"),
            What::Modem(station, failure) => {
                let word = match failure {
                    Failure::CarrierStuckOn => "carrier detect stuck on",
                    Failure::CarrierStuckOff => "carrier detect stuck off",
                    Failure::KeyStuck => "key stuck",
                    Failure::Deaf => "deaf",
                    Failure::Restarting => "modem starts again",
                };
                (chronicle.name(station).to_owned(), word)
            }
        };
        Row { name, what: word, spans }
    };
    let mut out: Vec<_> = rows.into_iter().take(MISHAPS).map(row).collect();
    if left_out > 0 {
        out.push(Row { name: format!("and {left_out} more"), what: "", spans: Vec::new() });
    }
    out
}
