//! The link bench as a picture: one dot for each cell, its time over the limit, beside what the bar allows.
//!
//! [`svg`] draws a panel for each loss; in it the cells stand in the order of the limit tables, a field for each rate and size and in it
//! a dot for each turnaround. Filled dots are links that have carried ten messages, rings those that have never met. Called by
//! `aldis-sim bench link --plot`.

use crate::link_bench::{COLD_BAR, CellReport};

const LEFT: f64 = 60.0;
const WIDTH: f64 = 900.0;
const PANEL: f64 = 210.0;
const TOP: f64 = 46.0;
/// The ratios at the foot and at the head of a panel.
const RANGE: (f64, f64) = (0.6, 1.5);

/// Draws these cells.
pub fn svg(reports: &[CellReport]) -> String {
    let mut losses: Vec<f64> = reports.iter().map(|r| r.fer.as_f64().unwrap_or(0.0)).collect();
    losses.sort_by(f64::total_cmp);
    losses.dedup();
    let height = TOP + losses.len() as f64 * (PANEL + 54.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">Time to deliver over that of an ideal code</text>\n\
         <text x=\"{LEFT}\" y=\"36\">filled: after ten messages, red over its bar; ring: first contact; line: the bar; dashed: that of first \
         contact</text>\n",
        LEFT + WIDTH + 20.0
    );
    for (i, loss) in losses.iter().enumerate() {
        let own: Vec<&CellReport> = reports.iter().filter(|r| r.fer.as_f64() == Some(*loss)).collect();
        panel(&mut out, TOP + i as f64 * (PANEL + 54.0) + 16.0, *loss, &own);
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, top: f64, loss: f64, reports: &[&CellReport]) {
    let y = |ratio: f64| top + PANEL * (RANGE.1 - ratio.clamp(RANGE.0, RANGE.1)) / (RANGE.1 - RANGE.0);
    let step = WIDTH / reports.len().max(1) as f64;
    let right = LEFT + WIDTH;
    let mut put = |line: String| out.push_str(&(line + "\n"));
    put(format!("<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">loss {:.0} %</text>", top - 4.0, loss * 100.0));
    for tenth in (6..=15).step_by(1) {
        let (at, ratio) = (y(f64::from(tenth) / 10.0), f64::from(tenth) / 10.0);
        let ink = if tenth == 10 { "#888" } else { "#e4e4e4" };
        put(format!("<path d=\"M{LEFT} {at:.1}H{right:.1}\" stroke=\"{ink}\"/>"));
        put(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ratio:.1}</text>", LEFT - 6.0, at + 4.0));
    }
    if let Some(first) = reports.first() {
        put(format!("<path d=\"M{LEFT} {:.1}H{right:.1}\" stroke=\"#c33\"/>", y(first.bar)));
        put(format!("<path d=\"M{LEFT} {:.1}H{right:.1}\" stroke=\"#c33\" stroke-dasharray=\"5 4\"/>", y(COLD_BAR)));
    }
    let mut field = None;
    for (i, report) in reports.iter().enumerate() {
        let x = LEFT + step * (i as f64 + 0.5);
        let name = (report.rate, report.size_kb.to_string());
        if field.as_ref() != Some(&name) {
            put(format!("<path d=\"M{:.1} {top:.1}v{:.1}\" stroke=\"#ccc\"/>", x - step / 2.0, PANEL + 6.0));
            put(format!(
                "<text x=\"{:.1}\" y=\"{:.1}\">{} bit/s</text>",
                x - step / 2.0 + 2.0,
                top + PANEL + 14.0,
                name.0
            ));
            put(format!(
                "<text x=\"{:.1}\" y=\"{:.1}\">{} KiB</text>",
                x - step / 2.0 + 2.0,
                top + PANEL + 27.0,
                name.1
            ));
            field = Some(name);
        }
        let title = format!(
            "{} bit/s, {} KiB, turnaround {} s, loss {}: {:.3}, first contact {:.3}",
            report.rate, report.size_kb, report.turnaround_s, report.fer, report.ratio_ir, report.cold_ratio_ir
        );
        let ink = if report.ratio_ir <= report.bar { "#235" } else { "#c33" };
        let cold = if report.cold_ratio_ir <= COLD_BAR { "#79b" } else { "#c33" };
        put(format!(
            "<g><title>{title}</title><circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.4\" fill=\"none\" stroke=\"{cold}\"/>\
             <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.4\" fill=\"{ink}\"/></g>",
            y(report.cold_ratio_ir),
            y(report.ratio_ir)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link_bench::Cell;

    #[test]
    fn every_cell_has_its_dot_and_one_over_its_bar_is_red() {
        let reports: Vec<CellReport> = ["9600,1024,2,0", "9600,1024,4,0"]
            .map(|text| Cell::parse(text).expect("reads").measure(&[1], 1, |_| {}))
            .to_vec();
        let picture = svg(&reports);
        assert_eq!(picture.matches("<title>").count(), 2);
        assert!(picture.contains("9600 bit/s, 1 KiB, turnaround 4 s, loss 0: 1.0"), "{picture}");
        assert!(!picture.contains("fill=\"#c33\""));
        let over = CellReport { ratio_ir: 1.2, ..reports[0].clone() };
        assert_eq!(svg(&[over]).matches("fill=\"#c33\"").count(), 1);
    }
}
