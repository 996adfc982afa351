//! A sweep as a picture: packet loss on a logarithmic axis over signal-to-noise ratio. Plain SVG, no outside files.

use std::fmt::Write as _;

use super::sweep::{LEVEL, Point, Report};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 54.0;
/// Lowest loss drawn.
const FLOOR: f64 = 0.003;

/// How the finer forms of the block model are drawn.
const DASHES: [&str; 2] = ["7 4", "2 3"];

const STILL: &str = "#1b6ca8";
const FADING: &str = "#b5482a";

struct Axes {
    from: f64,
    to: f64,
}

impl Axes {
    fn x(&self, db: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (db - self.from) / (self.to - self.from)
    }

    fn y(&self, loss: f64) -> f64 {
        let share = libm::log(loss.clamp(FLOOR, 1.0)) / libm::log(FLOOR);
        TOP + (HEIGHT - TOP - BOTTOM) * share
    }

    fn line(&self, curve: impl Iterator<Item = (f64, f64)>, style: &str) -> String {
        let points: Vec<String> = curve.map(|(db, loss)| format!("{:.1},{:.1}", self.x(db), self.y(loss))).collect();
        format!("<polyline fill=\"none\" stroke-width=\"1.8\" {style} points=\"{}\"/>\n", points.join(" "))
    }

    fn measured(&self, points: &[Point], colour: &str) -> String {
        let mut text = String::new();
        for p in points {
            let (x, y) = (self.x(p.snr_db), self.y(p.loss));
            let (low, high) = (self.y(p.between.0), self.y(p.between.1));
            let _ = writeln!(
                text,
                "<path d=\"M{x:.1} {high:.1}V{low:.1}\" stroke=\"{colour}\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.4\" \
                 fill=\"{}\" stroke=\"{colour}\"/>",
                if p.lost == 0 { "white" } else { colour }
            );
        }
        text
    }
}

pub(super) fn svg(report: &Report) -> String {
    let all = || report.still.iter().chain(&report.fading).map(|p| p.snr_db);
    let axes = Axes {
        from: libm::floor(all().fold(f64::INFINITY, f64::min)),
        to: libm::ceil(all().fold(f64::NEG_INFINITY, f64::max)).max(1.0),
    };
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">FreeDV {} from libcodec2: packets lost, measured and foretold</text>\n",
        report.mode
    );
    for loss in [1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005] {
        let y = axes.y(loss);
        let colour = if loss == LEVEL { "#888" } else { "#ddd" };
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"{colour}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{loss}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    let mut db = axes.from;
    while db <= axes.to {
        let x = axes.x(db);
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#eee\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{db}</text>",
            bottom + 18.0
        );
        db += 1.0;
    }
    let _ = writeln!(
        text,
        "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">mean SNR in 3 kHz, dB</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 14.0
    );
    let steps = || (0..=200).map(|i| axes.from + (axes.to - axes.from) * f64::from(i) / 200.0);
    let fitted = steps().map(|db| (db, report.anchor.loss(db))).filter(|(_, loss)| *loss >= FLOOR);
    text += &axes.line(fitted, &format!("stroke=\"{STILL}\""));
    let curve = |of: &dyn Fn(&Point) -> Option<f64>| {
        let points: Vec<(f64, f64)> = report.fading.iter().filter_map(|p| Some((p.snr_db, of(p)?))).collect();
        points.into_iter().filter(|(_, loss)| *loss >= FLOOR)
    };
    text += &axes.line(curve(&|p| Some(p.foretold)), &format!("stroke=\"{FADING}\""));
    for (i, dash) in DASHES.iter().enumerate() {
        let finer = curve(&|p| p.finer.map(|finer| finer[i]));
        text += &axes.line(finer, &format!("stroke=\"{FADING}\" stroke-dasharray=\"{dash}\""));
    }
    text += &axes.measured(&report.still, STILL);
    text += &axes.measured(&report.fading, FADING);
    let path = report.spread.map(|(hz, s)| format!("{} ms, {hz} Hz", s * 1000.0)).unwrap_or_default();
    let mut legend = vec![(STILL, "", "no fading: measured, and the fitted curve".to_owned())];
    if !report.fading.is_empty() {
        legend.push((FADING, "", format!("{path}: measured, and the block model")));
        for (dash, words) in DASHES.iter().zip(["each carrier by itself", "and what QPSK can hold"]) {
            legend.push((FADING, *dash, words.to_owned()));
        }
    }
    for (i, (colour, dash, words)) in legend.iter().enumerate() {
        let y = TOP + 16.0 + 20.0 * i as f64;
        let x = right - 300.0;
        let _ = writeln!(
            text,
            "<path d=\"M{x} {y}h28\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-dasharray=\"{dash}\"/><text x=\"{}\" y=\"{}\">{words}</text>",
            x + 36.0,
            y + 4.0
        );
    }
    text + "</svg>\n"
}
