//! The capture of a run, read back by tshark, and the page of a whole run.

use std::collections::BTreeMap;
use std::process::Command;

use aldis_sim::journal::Outcome;
use aldis_sim::output::{Chronicle, Content, pcapng, report};
use aldis_sim::run;
use aldis_sim::scenario::Scenario;
use aldis_sim::trace::Trace;

const SCENARIO: &str = include_str!("../scenarios/hidden-station.toml");

fn chronicle(text: &str, seed: u64) -> Chronicle {
    let scenario = Scenario::parse(text).expect("shipped");
    let (report, lab) = run::run_watched(&scenario, seed, Trace::hashed(), true, &mut |_, _| {});
    Chronicle::of(&scenario, &report, &lab)
}

#[test]
fn everything_a_node_feeds_is_cut_into_its_frames() {
    let chronicle = chronicle(SCENARIO, 1);
    let pieces = || chronicle.key_downs.iter().flat_map(|k| &k.pieces);
    assert!(pieces().filter(|p| matches!(p.content, Content::Frame(_))).count() > 20);
    // A modem that is not cut off sends frames and padding, nothing else.
    for key_down in chronicle.key_downs.iter().filter(|k| k.sent.whole) {
        assert!(key_down.pieces.iter().all(|p| p.content != Content::Garbage), "{key_down:?}");
        assert!(key_down.precedence.is_some(), "its node told of it: {key_down:?}");
    }
    assert!(chronicle.receptions.iter().any(|r| r.outcome == Outcome::Collided), "hidden stations collide");
}

#[test]
fn tshark_reads_the_capture_whole_with_its_comments() {
    let chronicle = chronicle(SCENARIO, 1);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run.pcapng");
    let mut file = std::fs::File::create(&path).expect("created");
    let packets = pcapng::write(&chronicle, &mut file).expect("written");
    drop(file);
    if Command::new("tshark").arg("--version").output().is_err() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "tshark is not installed");
        println!("skip: tshark is not installed");
        return;
    }
    let fields =
        ["frame.interface_name", "frame.time_epoch", "frame.len", "frame.cap_len", "frame.packet_flags_direction"];
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-o", "frame.generate_md5_hash:FALSE", "-T", "fields", "-E", "separator=|", "-r"]).arg(&path);
    for field in fields.into_iter().chain(["frame.comment", "_ws.malformed", "frame.protocols"]) {
        tshark.args(["-e", field]);
    }
    let output = tshark.env("TZ", "UTC").output().expect("tshark runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split('|').collect()).collect();
    assert_eq!(rows.len() as u64, packets);
    let mut interfaces: BTreeMap<&str, u64> = BTreeMap::new();
    let mut last = 0.0;
    for row in &rows {
        let [name, time, length, captured, direction, comment, malformed, protocols] = row.as_slice() else {
            panic!("{row:?}")
        };
        *interfaces.entry(name).or_default() += 1;
        let time: f64 = time.parse().expect("seconds");
        assert!(time >= last && time >= 1_795_428_000.0, "{row:?}");
        last = time;
        assert!(malformed.is_empty() && !protocols.contains("malformed"), "{row:?}");
        let direction = u32::from_str_radix(direction.trim_start_matches("0x"), 16).expect("flags") & 3;
        assert_eq!(direction, if name.contains('>') { 1 } else { 2 }, "{row:?}");
        // Comments tell of trouble and of nothing else.
        match comment.split([';', ':', ' ']).next() {
            Some("lost") => assert_eq!(*captured, "0"),
            Some("") => assert_eq!(captured, length, "{row:?}"),
            Some("damaged" | "collided") => assert!(name.contains('>'), "{row:?}"),
            other => assert!(matches!(other, Some("padding" | "cut" | "no")), "{row:?}"),
        }
    }
    let names: Vec<&&str> = interfaces.keys().collect();
    assert_eq!(names, [&"east", &"east>middle", &"middle", &"middle>east", &"middle>west", &"west", &"west>middle"]);
    let with = |word: &str| rows.iter().filter(|r| r[5].starts_with(word)).count();
    assert!(with("collided") > 0 && with("lost") > 0 && with("damaged") > 0, "{text}");
    // Every piece sent is a packet of its station.
    let sent: usize = chronicle.key_downs.iter().map(|k| k.pieces.len()).sum();
    let own: u64 = interfaces.iter().filter(|(name, _)| !name.contains('>')).map(|(_, n)| n).sum();
    assert_eq!(own, sent as u64);
}

#[test]
fn one_seed_gives_one_page_and_one_capture() {
    let make = || {
        let chronicle = chronicle(SCENARIO, 3);
        let mut capture = Vec::new();
        pcapng::write(&chronicle, &mut capture).expect("written");
        (report::page(&chronicle), capture)
    };
    assert_eq!(make(), make());
}

#[test]
fn the_convoy_keeps_every_invariant_and_fits_a_page() {
    let chronicle = chronicle(include_str!("../scenarios/convoy-of-five.toml"), 1);
    assert_eq!(chronicle.report.problems, Vec::<String>::new());
    assert!(chronicle.report.messages.iter().all(|m| m.delivered_s.is_some()));
    let page = report::page(&chronicle);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    for word in ["flagship", "silent", "process down", "path gone", "immediate and above only", "ack-only"] {
        assert!(page.contains(word), "{word} is not on the page");
    }
    assert!(!page.contains("class=\"violation\"><rect"), "nothing was forbidden");
}
