//! The demonstration as an operator runs it: the process, its exit status, and what its last line promises.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde_json::Value;

/// Runs `demo --once`, with its standard input closed; what it leaves stays in `directory`.
fn demo(directory: &Path, extra: &[&str]) -> Output {
    Command::new("timeout")
        .arg("150")
        .arg(env!("CARGO_BIN_EXE_aldis-sim"))
        .args(["demo", "--once", "--speed", "50x", "--dir"])
        .arg(directory)
        .args(extra)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

/// What `delivered` says must be so: the file lies in a `new/`, holds the sample, and has this digest.
fn check_delivery(directory: &Path, field: impl Fn(&str) -> String) {
    let file = field("file");
    let path = Path::new(&file);
    assert!(path.starts_with(directory.join("shore")), "{file}");
    assert_eq!(path.parent().and_then(Path::file_name).and_then(|n| n.to_str()), Some("new"), "{file}");
    let bytes = std::fs::read(path).expect("the file is there");
    assert_eq!(HEXLOWER.encode(digest(&SHA256, &bytes).as_ref()), field("sha256"));
    let text = String::from_utf8(bytes).expect("plain text");
    assert!(text.contains("Message-ID: <demo.1@ship.example>"), "{text}");
    assert!(text.replace("\r\n", "\n").ends_with("Request berth with shore power and one fuel truck.\n"), "{text}");
    assert_eq!(field("to"), "watch@shore.example");
    assert!(field("air_s").parse::<f64>().expect("seconds") > 0.0);
    assert!(field("bytes").parse::<u64>().expect("bytes") > 0);
}

#[test]
fn the_last_line_is_delivered_and_true() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = demo(directory.path(), &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let events: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for needed in ["ready", "submitted", "queued", "keyed", "progress", "confirmed", "delivered"] {
        assert!(events.contains(&needed), "no {needed} in:\n{text}");
    }
    let last = text.lines().last().expect("lines");
    let mut words = last.split(' ');
    let at = words.next().expect("a time");
    assert!(at.ends_with('Z') && at.contains('T'), "{at}");
    assert_eq!(words.next(), Some("delivered"), "{text}");
    let fields: BTreeMap<&str, &str> = words.filter_map(|w| w.split_once('=')).collect();
    check_delivery(directory.path(), |key| fields.get(key).map_or_else(String::new, ToString::to_string));
}

#[test]
fn json_is_one_document_per_line_and_ends_the_same_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = demo(directory.path(), &["--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(events.iter().all(|e| e["schema"] == "aldis-sim.demo/1" && e["at"].is_string()), "{text}");
    let last = events.last().expect("events");
    assert_eq!(last["event"], "delivered", "{text}");
    check_delivery(directory.path(), |key| last[key].as_str().unwrap_or_default().to_owned());
}

#[test]
fn a_reader_that_leaves_early_ends_nothing() {
    // `aldis-sim demo --once | head -1` must still deliver, and say so by its status.
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = Command::new("timeout")
        .arg("150")
        .arg(env!("CARGO_BIN_EXE_aldis-sim"))
        .args(["demo", "--once", "--speed", "50x", "--dir"])
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}
