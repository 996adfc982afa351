//! Curves: what was carried and delivered over time, how long mail took, and what the paths were like.

use std::collections::BTreeMap;
use std::fmt::Write;

use aldis::time::{Duration, Instant};

use super::draw::{Frame, esc, grouped, level_class, round_step, short_span, time_step, time_ticks, zulu};
use crate::ether::StationId;
use crate::output::chronicle::Chronicle;
use crate::output::summary::latencies;

const WIDE: Frame = Frame { width: 640.0, height: 280.0, left: 58.0, right: 26.0, top: 14.0, bottom: 28.0 };
const SMALL: Frame = Frame { width: 430.0, height: 190.0, left: 44.0, right: 44.0, top: 12.0, bottom: 26.0 };
/// Bins of time, points of a curve, and paths drawn at most.
const BINS: u64 = 96;
const POINTS: usize = 300;
const PATHS: usize = 20;

/// Marks of civil time along the bottom.
fn time_axis(chronicle: &Chronicle, frame: &Frame, most: u64) -> String {
    let end = chronicle.end.max(Instant(1));
    let step = time_step(end.since(Instant::ZERO), most);
    let ticks = time_ticks(chronicle.start, end, step).into_iter();
    ticks.map(|at| frame.mark(share(at, end), &zulu(chronicle.wall(at)))).collect()
}

fn share(at: Instant, end: Instant) -> f64 {
    at.0.min(end.0) as f64 / end.0.max(1) as f64
}

/// Lines across at round figures up to `top`; what the chart reaches to.
fn figures(frame: &Frame, top: f64, label: impl Fn(f64) -> String, svg: &mut String) -> f64 {
    let step = round_step(top, 5);
    let count = libm::ceil(top / step - 1e-9).max(1.0);
    for i in 0..=count as u32 {
        svg.push_str(&frame.level(f64::from(i) / count, &label(f64::from(i) * step)));
    }
    count * step
}

/// Bits a second on the air and of delivered mail.
pub(super) fn throughput(chronicle: &Chronicle) -> String {
    let end = chronicle.end.max(Instant(1));
    let bin = time_step(end.since(Instant::ZERO), BINS);
    let count = usize::try_from(end.0.div_ceil(bin.as_nanos() as u64)).unwrap_or(1).max(1);
    let index = |at: Instant| usize::try_from(at.0 / bin.as_nanos() as u64).unwrap_or(0).min(count - 1);
    let (mut air, mut mail) = (vec![0.0; count], vec![0.0; count]);
    for key_down in &chronicle.key_downs {
        let mut before = 0;
        for &(at, out) in &key_down.sent.blocks {
            air[index(at)] += (out - before) as f64 * 8.0 / bin.as_secs_f64();
            before = out;
        }
    }
    for m in &chronicle.report.messages {
        if let Some(at) = m.delivered_s {
            mail[index(Instant::ZERO + Duration::from_secs_f64(at))] += m.size_bytes as f64 * 8.0 / bin.as_secs_f64();
        }
    }
    let mut svg = WIDE.open("Bits per second on the air and of delivered mail over time");
    let top = air.iter().chain(&mail).copied().fold(1.0, f64::max);
    let top = figures(&WIDE, top, |v| grouped(v as u64), &mut svg);
    svg.push_str(&time_axis(chronicle, &WIDE, 8));
    let edge = |i: usize| WIDE.x((i as f64 * bin.as_nanos() as f64 / end.0 as f64).min(1.0));
    let mut bars = String::new();
    let mut line = String::new();
    for i in 0..count {
        let (left, right) = (edge(i), edge(i + 1));
        if mail[i] > 0.0 {
            let y = WIDE.y(mail[i] / top);
            let _ = write!(
                bars,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                left + 0.5,
                (right - left - 1.0).max(0.5),
                WIDE.y(0.0) - y
            );
        }
        let _ = write!(line, "{}{left:.1} {:.1}H{right:.1}", if i == 0 { "M" } else { "L" }, WIDE.y(air[i] / top));
    }
    let _ = write!(svg, "<g class=\"mail\">{bars}</g><path class=\"curve fed\" d=\"{line}\"/></svg>");
    let bin = short_span(bin.as_secs_f64());
    figure(
        "Throughput",
        &format!("bit/s, mean of {bin}"),
        &[("mail", "mail delivered"), ("fed line", "bytes on the air, all stations")],
        &svg,
    )
}

/// Bytes of mail that were accepted and not yet delivered.
pub(super) fn backlog(chronicle: &Chronicle) -> String {
    let end = chronicle.end.since(Instant::ZERO).as_secs_f64().max(1e-9);
    let mut steps: Vec<(f64, i64)> = Vec::new();
    for m in chronicle.report.messages.iter().filter(|m| m.accepted_s.is_some() || m.delivered_s.is_some()) {
        let size = i64::try_from(m.size_bytes).unwrap_or(i64::MAX);
        steps.push((m.submitted_s, size));
        steps.extend(m.delivered_s.map(|at| (at, -size)));
    }
    steps.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // The most that waited in each bin: a short peak is seen however long the run.
    let mut most = vec![0; POINTS];
    let (mut waiting, mut reached) = (0, 0);
    for (at, change) in steps {
        let bin = ((at / end * POINTS as f64) as usize).min(POINTS - 1);
        most[reached..=bin].iter_mut().for_each(|m| *m = waiting.max(*m));
        waiting += change;
        most[bin] = waiting.max(most[bin]);
        reached = bin;
    }
    most[reached + 1..].fill(waiting);
    let mut svg = WIDE.open("Bytes of mail accepted and not yet delivered over time");
    let top = most.iter().copied().max().unwrap_or(0).max(1) as f64;
    let (unit, name) = if top >= 20_000.0 { (1000.0, "kB") } else { (1.0, "B") };
    let top = figures(&WIDE, top / unit, |v| grouped(v as u64), &mut svg) * unit;
    svg.push_str(&time_axis(chronicle, &WIDE, 8));
    let mut path = format!("M{:.1} {:.1}", WIDE.x(0.0), WIDE.y(0.0));
    for (i, waiting) in most.iter().enumerate() {
        let right = WIDE.x((i + 1) as f64 / POINTS as f64);
        let _ = write!(path, "V{:.1}H{right:.1}", WIDE.y(*waiting as f64 / top));
    }
    let _ = write!(svg, "<path class=\"area waiting\" d=\"{path}V{:.1}Z\"/></svg>", WIDE.y(0.0));
    figure("Mail waiting", name, &[("waiting", "accepted and not yet in the far mailbox")], &svg)
}

/// Share of each level's mail delivered within a time.
pub(super) fn latency(chronicle: &Chronicle) -> String {
    const MARKS: &[f64] = &[1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0];
    let levels = latencies(&chronicle.report.messages);
    let slowest = levels.iter().filter_map(|l| l.seconds.last()).copied().fold(10.0, f64::max);
    let most = MARKS.iter().copied().find(|m| *m >= slowest).unwrap_or(slowest);
    let x = |s: f64| WIDE.x((libm::log10(s.max(1.0)) / libm::log10(most)).min(1.0));
    let mut svg = WIDE.open("Share of messages delivered within a time, by precedence");
    for i in 0..=4 {
        svg.push_str(&WIDE.level(f64::from(i) / 4.0, &format!("{} %", i * 25)));
    }
    for mark in MARKS.iter().filter(|m| **m <= most) {
        svg.push_str(&WIDE.mark(libm::log10(*mark) / libm::log10(most), &short_span(*mark)));
    }
    let mut key = Vec::new();
    for level in &levels {
        let class = level_class(level.precedence);
        let whole = level.messages.max(1) as f64;
        let mut path = format!("M{:.1} {:.1}", WIDE.x(0.0), WIDE.y(0.0));
        let steps: Vec<(f64, u64)> = level.seconds.iter().zip(1..).map(|(s, n)| (*s, n)).collect();
        for (s, n) in thinned(&steps) {
            let _ = write!(path, "H{:.1}V{:.1}", x(s), WIDE.y(n as f64 / whole));
        }
        let _ = write!(
            svg,
            "<path class=\"curve level {class}\" d=\"{path}H{:.1}\"><title>{}</title></path>",
            WIDE.x(1.0),
            level.precedence
        );
        key.push((
            format!("{class} line"),
            format!("{}, {} of {}", level.precedence, level.seconds.len(), level.messages),
        ));
    }
    svg.push_str("</svg>");
    let key: Vec<(&str, &str)> = key.iter().map(|(c, w)| (c.as_str(), w.as_str())).collect();
    figure("Latency by precedence", "share delivered within this time after handing in", &key, &svg)
}

/// One small picture per path that has a signal-to-noise ratio: the ratio, and the rate chosen for it.
pub(super) fn paths(chronicle: &Chronicle) -> Option<String> {
    let mut seen: BTreeMap<(StationId, StationId), Vec<(Instant, f64)>> = BTreeMap::new();
    for r in &chronicle.receptions {
        if let Some(snr) = r.snr_db.filter(|s| s.is_finite()) {
            seen.entry((r.from, r.to)).or_default().push((r.at, snr));
        }
    }
    if seen.is_empty() {
        return None;
    }
    let mut order: Vec<_> = seen.iter().collect();
    order.sort_by_key(|(ends, blocks)| (std::cmp::Reverse(blocks.len()), **ends));
    let left_out = order.len().saturating_sub(PATHS);
    order.truncate(PATHS);
    order.sort_by_key(|(ends, _)| **ends);
    let all = || order.iter().flat_map(|(_, blocks)| blocks.iter().map(|b| b.1));
    let low = libm::floor(all().fold(0.0, f64::min) / 10.0) * 10.0;
    let high = (libm::ceil(all().fold(0.0, f64::max) / 10.0) * 10.0).max(low + 10.0);
    let mut out = String::from("<div class=\"paths\">");
    for (&(from, to), blocks) in order {
        let name = format!("{} \u{2192} {}", chronicle.name(from), chronicle.name(to));
        let _ = write!(out, "<figure><figcaption>{}</figcaption>", esc(&name));
        out.push_str(&path(chronicle, from, blocks, (low, high), &name));
        out.push_str("</figure>");
    }
    out.push_str("</div>");
    if left_out > 0 {
        let _ = write!(out, "<p class=\"note\">{left_out} paths with fewer blocks are left out.</p>");
    }
    Some(out)
}

fn path(
    chronicle: &Chronicle,
    from: StationId,
    blocks: &[(Instant, f64)],
    (low, high): (f64, f64),
    name: &str,
) -> String {
    const SLOWEST: f64 = 75.0;
    const FASTEST: f64 = 9600.0;
    let end = chronicle.end.max(Instant(1));
    let y = |snr: f64| SMALL.y(((snr - low) / (high - low)).clamp(0.0, 1.0));
    let octaves = libm::log2(FASTEST / SLOWEST);
    let rate_y = |rate: f64| SMALL.y((libm::log2(rate / SLOWEST) / octaves).clamp(0.0, 1.0));
    let mut svg = SMALL.open(&format!("Signal-to-noise ratio and rate from {name} over time"));
    let count = (((high - low) / 10.0) as u32).clamp(1, 8);
    for i in 0..=count {
        let snr = low + (high - low) * f64::from(i) / f64::from(count);
        svg.push_str(&SMALL.level(f64::from(i) / f64::from(count), &format!("{snr:.0} dB")));
    }
    for rate in [75.0, 300.0, 1200.0, 2400.0, 9600.0] {
        let (x, y) = (SMALL.x(1.0) + 6.0, rate_y(rate) + 4.0);
        let _ = write!(svg, "<text class=\"tick rate\" x=\"{x:.1}\" y=\"{y:.1}\">{rate:.0}</text>");
    }
    svg.push_str(&time_axis(chronicle, &SMALL, 4));
    // Least and greatest ratio of every bin, and its mean.
    let mut bins: BTreeMap<u64, (f64, f64, f64, u32)> = BTreeMap::new();
    for &(at, snr) in blocks {
        let bin = u64::try_from(u128::from(at.0.min(end.0)) * POINTS as u128 / u128::from(end.0)).unwrap_or(0);
        let entry = bins.entry(bin).or_insert((snr, snr, 0.0, 0));
        *entry = (entry.0.min(snr), entry.1.max(snr), entry.2 + snr, entry.3 + 1);
    }
    let x = |bin: u64| SMALL.x((bin as f64 + 0.5) / POINTS as f64);
    let (mut spread, mut mean) = (String::new(), String::new());
    let mut last = None;
    for (bin, (least, most, sum, n)) in bins {
        let _ = write!(spread, "M{:.1} {:.1}V{:.1}", x(bin), y(least) + 0.5, y(most) - 0.5);
        // A long silence is no line.
        let joins = last.is_some_and(|last| bin - last <= POINTS as u64 / 20);
        let _ = write!(mean, "{}{:.1} {:.1}", if joins { "L" } else { "M" }, x(bin), y(sum / f64::from(n)));
        if !joins {
            mean.push_str("h0.1");
        }
        last = Some(bin);
    }
    let mut steps = String::new();
    let mut rate = None;
    for key_down in chronicle.key_downs.iter().filter(|k| k.sent.station == from) {
        if rate != Some(key_down.sent.waveform.rate) {
            let first = rate.is_none();
            rate = Some(key_down.sent.waveform.rate);
            let (x, y) = (SMALL.x(share(key_down.sent.on, end)), rate_y(f64::from(key_down.sent.waveform.rate)));
            let _ = if first { write!(steps, "M{x:.1} {y:.1}") } else { write!(steps, "H{x:.1}V{y:.1}") };
        }
    }
    if rate.is_some() {
        let _ = write!(steps, "H{:.1}", SMALL.x(1.0));
    }
    let _ = write!(
        svg,
        "<path class=\"spread\" d=\"{spread}\"/><path class=\"curve snr\" d=\"{mean}\"/><path class=\"curve rate\" d=\"{steps}\"/></svg>"
    );
    svg
}

/// At most [`POINTS`] of the steps, the last always among them.
fn thinned<T: Copy>(steps: &[(f64, T)]) -> Vec<(f64, T)> {
    let every = steps.len().div_ceil(POINTS).max(1);
    (0..steps.len()).filter(|i| i % every == every - 1 || i + 1 == steps.len()).map(|i| steps[i]).collect()
}

fn figure(title: &str, about: &str, key: &[(&str, &str)], svg: &str) -> String {
    let mut out = format!("<figure><figcaption><b>{}</b> <span>{}</span></figcaption>", esc(title), esc(about));
    out.push_str(&super::key(key));
    out.push_str(svg);
    out.push_str("</figure>");
    out
}
