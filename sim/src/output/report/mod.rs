//! One page about one run that needs nothing but itself: pictures, tables, and whether every invariant held.
//!
//! Plain HTML and SVG; the few lines of script only stretch the time line. Bounded in size whatever the run: where there is too much to
//! draw, neighbours are drawn as one or the least interesting is left out, and the page says so.

mod charts;
mod draw;
mod gantt;
mod tables;

use std::fmt::Write;

use aldis::mail::Precedence;

use super::chronicle::Chronicle;
use super::summary::span;
use draw::{esc, grouped, level_class};

/// Problems listed at most.
const PROBLEMS: usize = 100;

/// The page.
pub fn page(chronicle: &Chronicle) -> String {
    let report = &chronicle.report;
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>");
    let _ = write!(
        out,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/><title>{}, seed {}</title><style>{}</style></head><body><main>",
        esc(&report.scenario),
        report.seed,
        include_str!("page.css")
    );
    head(chronicle, &mut out);
    verdict(chronicle, &mut out);
    tiles(chronicle, &mut out);
    out.push_str("<section class=\"air\"><h2>On the air</h2>");
    out.push_str(&lane_key(chronicle));
    out.push_str(&gantt::draw(chronicle));
    out.push_str("</section><section class=\"pair\">");
    out.push_str(&charts::throughput(chronicle));
    out.push_str(&charts::backlog(chronicle));
    out.push_str("</section><section class=\"pair\">");
    out.push_str(&charts::latency(chronicle));
    let _ = write!(out, "<div><h3>How long mail took</h3>{}", tables::levels(chronicle));
    let _ = write!(out, "<h3>Stations</h3>{}</div>", tables::stations(chronicle));
    out.push_str("</section><section><h2>Paths</h2>");
    match charts::paths(chronicle) {
        Some(pictures) => {
            let words = [("spread line", "signal-to-noise ratio of blocks, dB"), ("snr line", "its mean"), ("rate line", "rate chosen, bit/s")];
            out.push_str(&key(&words));
            out.push_str(&pictures);
        }
        None => out.push_str("<p class=\"note\">The paths of this scenario lose bytes by plain chance and have no signal-to-noise ratio.</p>"),
    }
    out.push_str(&tables::paths(chronicle));
    out.push_str("</section><section><h2>Messages</h2>");
    out.push_str(&tables::messages(chronicle));
    out.push_str("</section>");
    out.push_str(include_str!("not_modelled.html"));
    let _ = writeln!(out, "</main><script>{}</script></body></html>", include_str!("zoom.js"));
    out
}

fn head(chronicle: &Chronicle, out: &mut String) {
    let report = &chronicle.report;
    let _ = write!(
        out,
        "<header><p class=\"over\">Aldis laboratory</p><h1>{}</h1><p class=\"facts\"><span>{} to {}</span>\
         <span>{} of virtual time</span><span>{} stations</span><span>seed {}</span>\
         <span>trace <code>{}</code></span></p></header>",
        esc(&report.scenario),
        chronicle.start.dtg(),
        chronicle.wall(chronicle.end).dtg(),
        span(report.virtual_s),
        chronicle.stations.len(),
        report.seed,
        esc(&report.trace_hash)
    );
}

fn verdict(chronicle: &Chronicle, out: &mut String) {
    let problems = &chronicle.report.problems;
    if problems.is_empty() {
        out.push_str(
            "<p class=\"verdict held\"><b>Every invariant held.</b> Nothing acknowledged was lost, nothing was delivered twice, \
             nothing radiated under an order of silence.</p>",
        );
        return;
    }
    let count =
        if problems.len() == 1 { "One invariant was".into() } else { format!("{} invariants were", problems.len()) };
    let _ = write!(out, "<div class=\"verdict broken\"><b>{count} broken.</b><ul>");
    for problem in problems.iter().take(PROBLEMS) {
        let _ = write!(out, "<li>{}</li>", esc(problem));
    }
    if problems.len() > PROBLEMS {
        let _ = write!(out, "<li>and {} more</li>", problems.len() - PROBLEMS);
    }
    out.push_str("</ul></div>");
}

fn tiles(chronicle: &Chronicle, out: &mut String) {
    let report = &chronicle.report;
    let delivered: Vec<_> = report.messages.iter().filter(|m| m.delivered_s.is_some()).collect();
    let mail: u64 = delivered.iter().map(|m| m.size_bytes as u64).sum();
    let (air, bytes) = report.stations.iter().fold((0.0, 0), |(a, b), s| (a + s.air_s, b + s.bytes_on_air));
    let per_byte = if mail > 0 { format!("{:.2}", bytes as f64 / mail as f64) } else { "\u{2013}".into() };
    let tiles = [
        (format!("{} of {}", delivered.len(), report.messages.len()), "messages delivered"),
        (format!("{} B", grouped(mail)), "of mail delivered"),
        (format!("{:.1} %", 100.0 * air / report.virtual_s.max(1e-9)), "of the time on the air"),
        (grouped(chronicle.key_downs.len() as u64), "key-downs"),
        (per_byte, "bytes sent per byte of mail"),
    ];
    out.push_str("<dl class=\"tiles\">");
    for (figure, words) in tiles {
        let _ = write!(out, "<div><dt>{words}</dt><dd>{figure}</dd></div>");
    }
    out.push_str("</dl>");
}

fn lane_key(chronicle: &Chronicle) -> String {
    let mut words: Vec<(&str, &str)> = vec![("of", "Mail")];
    words.extend(Precedence::DESCENDING.iter().map(|level| (level_class(*level), level.name())));
    words.extend([("of", "Words"), ("report", "report"), ("poll", "poll"), ("hello", "hello")]);
    words.extend([("nothing", "cut off before a whole frame"), ("of", "Away"), ("silent", "silent")]);
    words.extend([
        ("restricted", "restricted, ack-only or window"),
        ("down", "process down"),
        ("mishap", "path or modem"),
    ]);
    if !chronicle.violations.is_empty() {
        words.push(("violation", "radiated against an order"));
    }
    format!(
        "<p class=\"note\">Each lane is a station. Tall bars carry mail, coloured by the highest precedence in them; the low bars beneath are \
         words between stations. Shading is what an order or a mishap took away.</p>{}",
        key(&words)
    )
}

/// What colours mean: class and words; the class `of` makes a heading of its words.
fn key(entries: &[(&str, &str)]) -> String {
    let mut out = String::from("<ul class=\"key\">");
    for (class, words) in entries {
        let words = esc(words);
        let _ = match *class {
            "of" => write!(out, "<li class=\"of\">{words}</li>"),
            _ => write!(out, "<li><i class=\"chip {class}\"></i>{words}</li>"),
        };
    }
    out + "</ul>"
}

#[cfg(test)]
mod tests {
    use aldis::emcon::State;
    use aldis::time::{Instant, Wall};

    use super::*;
    use crate::ether::StationId;
    use crate::journal::{Outcome, Reception, Transmission};
    use crate::lab::Violation;
    use crate::output::chronicle::{KeyDown, Kind, Mishap, Station, What};
    use crate::run::{MessageLine, RunReport, StationLine};
    use crate::waveform::Waveform;

    const A: StationId = StationId(0);
    const B: StationId = StationId(1);

    #[test]
    fn the_page_is_well_formed_and_names_are_text() {
        let mut chronicle = by_hand(20);
        chronicle.report.scenario = "<script>alert(1)</script> & \"more\"".into();
        chronicle.report.problems = vec!["a <b> & 'c'".into()];
        let page = page(&chronicle);
        check_markup(&page);
        assert!(!page.contains("<script>alert"), "a name became markup");
        assert!(page.contains("ship&lt;1&gt; &amp; co"), "the name is shown as written");
        assert!(page.contains("a &lt;b&gt; &amp; &#39;c&#39;"));
        assert!(!page.contains("http://") && !page.contains("https://"), "the page needs nothing else");
    }

    #[test]
    fn every_key_down_is_a_bar_in_its_colour() {
        let chronicle = by_hand(20);
        let page = page(&chronicle);
        let bars = |class: &str| {
            let groups = page.split("<g class=\"bar ").skip(1).filter(|g| g.starts_with(&format!("{class}\"")));
            groups.map(|g| g.split("</g>").next().unwrap_or_default().matches("<rect ").count()).sum::<usize>()
        };
        // Of 20: every second is mail of level FLASH, and every fourth a report with it; the others are reports alone.
        assert_eq!((bars("p4"), bars("report"), bars("poll"), bars("p1")), (10, 15, 0, 0));
    }

    #[test]
    fn a_violation_is_red_and_the_verdict_says_so() {
        let mut chronicle = by_hand(4);
        assert!(!page(&chronicle).contains("<g class=\"violation\"><rect"));
        assert!(page(&chronicle).contains("Every invariant held"));
        let text = "ship radiates <in> silence".to_owned();
        let (from, until) = (Instant::from_millis(10_000), Instant::from_millis(14_000));
        chronicle.violations.push(Violation { station: A, from, until, text: text.clone() });
        chronicle.report.problems.push(text);
        let page = page(&chronicle);
        check_markup(&page);
        let drawn = page.split("<g class=\"violation\">").nth(1).expect("there").split("</g>").next().expect("closed");
        assert!(drawn.starts_with("<rect x=\"2.7778%\" width=\"1.1111%\""), "{drawn}");
        assert!(drawn.contains("ship radiates &lt;in&gt; silence"), "{drawn}");
        assert!(page.contains(".violation rect{fill:var(--red)") && page.contains("verdict broken"));
        assert!(!page.contains("Every invariant held"));
    }

    #[test]
    fn orders_mishaps_and_the_ratio_are_drawn() {
        let page = page(&by_hand(20));
        assert!(page.contains("<g class=\"band silent\">") && page.contains("<g class=\"band down\">"));
        assert!(page.contains("<g class=\"band restricted\">") && page.contains("flash and above only"));
        assert!(
            page.contains("path gone") && page.contains("class=\"curve snr\"") && page.contains("class=\"curve rate\"")
        );
        assert!(page.contains("231000Z NOV 26"), "times are date-time groups");
    }

    #[test]
    fn a_day_of_many_thousand_key_downs_stays_small() {
        let mut chronicle = by_hand(20_000);
        let one = chronicle.report.messages[0].clone();
        chronicle.report.messages = (0..5000).map(|n| MessageLine { message: n, ..one.clone() }).collect();
        let page = page(&chronicle);
        check_markup(&page);
        assert!(page.len() < 1_500_000, "{} bytes", page.len());
        assert!(page.contains("are drawn as one") && page.contains("200 of 5\u{202F}000 messages"));
    }

    #[test]
    fn a_run_in_which_nothing_happened_is_a_page_too() {
        let mut chronicle = by_hand(0);
        chronicle.report.messages.clear();
        chronicle.end = Instant::ZERO;
        check_markup(&page(&chronicle));
    }

    /// Two stations for six minutes, or as long as it takes; every ten seconds one of them radiates for two.
    fn by_hand(count: u64) -> Chronicle {
        let waveform = *Waveform::find(2400, "S").expect("known");
        let second = |s: u64| Instant::from_millis(s * 1000);
        let end = second((count * 10).max(360));
        let key_down = |n: u64| KeyDown {
            sent: Transmission {
                station: if n.is_multiple_of(2) { A } else { B },
                number: n / 2,
                waveform,
                on: second(n * 10),
                off: Some(second(n * 10 + 2)),
                whole: true,
                bytes: vec![0; 100],
                blocks: vec![(second(n * 10 + 2), 100)],
            },
            pieces: Vec::new(),
            kind: [Kind::Mixed, Kind::Report, Kind::Symbols, Kind::Report][(n % 4) as usize],
            precedence: Some(Precedence::Flash),
        };
        let reception = |n: u64| Reception {
            from: if n.is_multiple_of(2) { A } else { B },
            to: if n.is_multiple_of(2) { B } else { A },
            number: n / 2,
            block: 0,
            at: second(n * 10 + 2),
            outcome: Outcome::Good,
            snr_db: Some(15.0 + (n % 7) as f64),
            instead: None,
        };
        let message = MessageLine {
            message: 0,
            from: "ship<1> & co".into(),
            to: "shore".into(),
            also: Vec::new(),
            precedence: "flash".into(),
            size_bytes: 1000,
            payload_bytes: 900,
            submitted_s: 0.0,
            accepted_s: Some(0.0),
            delivered_s: Some(30.0),
            delivery_s: Some(30.0),
            confirmed_s: Some(33.0),
            bytes_on_air: 1100,
            air_s: 4.0,
        };
        let station =
            |name: &str| StationLine { station: name.into(), air_s: 4.0, bytes_on_air: 1100, transmissions: 1 };
        Chronicle {
            report: RunReport {
                schema: "aldis-sim.run/1",
                scenario: "by hand".into(),
                seed: 1,
                virtual_s: end.since(Instant::ZERO).as_secs_f64(),
                messages: vec![message],
                stations: vec![station("ship<1> & co"), station("shore")],
                satcom: Vec::new(),
                problems: Vec::new(),
                trace_hash: "abcdef".into(),
            },
            start: Wall::parse_rfc3339("2026-11-23T10:00:00Z").expect("valid"),
            mended: end,
            end,
            stations: vec![
                Station {
                    name: "ship<1> & co".into(),
                    orders: vec![
                        (Instant::ZERO, State::Open),
                        (second(60), State::Silent),
                        (second(120), State::Restricted(Precedence::Flash)),
                        (second(180), State::Open),
                    ],
                    ..Station::default()
                },
                Station { name: "shore".into(), down: vec![(second(200), second(230))], ..Station::default() },
            ],
            key_downs: (0..count).map(key_down).collect(),
            receptions: (0..count).map(reception).collect(),
            links: vec![(A, B), (B, A)],
            violations: Vec::new(),
            mishaps: vec![Mishap { from: second(100), until: second(150), what: What::Path(A, B) }],
        }
    }

    /// Walks the page: tags close in order, attributes are quoted, text has no stray markup.
    fn check_markup(page: &str) {
        let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a page");
        let mut open: Vec<&str> = Vec::new();
        while let Some(at) = rest.find('<') {
            check_text(&rest[..at]);
            let end = at + rest[at..].find('>').expect("a tag ends");
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closed out of order near {}", &rest[..rest.len().min(80)]);
                continue;
            }
            let name = tag.split([' ', '/']).next().expect("a name");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()) && !name.is_empty(), "<{tag}>");
            let attributes = tag[name.len()..].trim_end_matches('/');
            for (i, part) in attributes.split('"').enumerate() {
                match i % 2 {
                    0 => assert!(part.trim().is_empty() || part.ends_with('=') || part.trim() == "defer", "<{tag}>"),
                    _ => check_text(part),
                }
            }
            assert!(attributes.matches('"').count().is_multiple_of(2), "<{tag}>");
            match name {
                "style" | "script" => {
                    let close = format!("</{name}>");
                    rest = &rest[rest.find(&close).expect("closed") + close.len()..];
                }
                _ if tag.ends_with('/') => {}
                _ => open.push(name),
            }
        }
        assert_eq!(open, Vec::<&str>::new());
    }

    fn check_text(text: &str) {
        assert!(!text.contains('>'), "{text}");
        for (at, _) in text.match_indices('&') {
            let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
            assert!(known.iter().any(|e| text[at..].starts_with(e)), "{}", &text[at..]);
        }
    }

    #[test]
    #[should_panic(expected = "closed out of order")]
    fn the_walk_finds_what_is_not_well_formed() {
        check_markup("<!DOCTYPE html><p><b>no</p></b>");
    }
}
