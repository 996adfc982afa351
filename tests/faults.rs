//! The real program on a disk that fails: one sync or write of its store is made to fail, or to be its last, by strace.
//!
//! Whatever happens at that moment, every message the client read a 250 for is whole in the queue after a restart, once; every other
//! one is wholly there or wholly absent. The node answers 4xx or ends with an error; it never hangs. A sample of moments by default,
//! `ALDIS_FAULTS=all` takes the first forty of every kind.

#[path = "common/kill_client.rs"]
mod client;
#[path = "common/kill_process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use aldis::queue::{Engine, LOG_FILE, Options, RealDisk, STORE_FILE};
use client::{Client, Told};
use process::{Running, aldis, ended, start, tail};

const MESSAGES: usize = 20;

/// What is done to a call, as strace says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The disk failed.
    Eio,
    /// No room.
    Enospc,
    /// Power: the process is gone at this very call.
    Kill,
}

/// What came of one case.
#[derive(Default, Debug)]
struct Tally {
    cases: usize,
    promised: usize,
    refused: usize,
    ended_with_error: usize,
    killed: usize,
    untouched: usize,
}

#[test]
fn a_failing_disk_costs_no_promise_and_leaves_no_half_message() {
    if !strace_is_here() {
        return;
    }
    let all = std::env::var("ALDIS_FAULTS").is_ok_and(|v| v == "all");
    let moments: Vec<usize> = if all { (1..=40).collect() } else { vec![2, 7, 18] };
    let mut tally = Tally::default();
    for call in ["fdatasync", "pwrite64"] {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Kill] {
            for moment in &moments {
                case(call, fault, *moment, &mut tally);
            }
        }
    }
    println!("{tally:?}");
    assert!(
        tally.promised > 0 && tally.ended_with_error > 0 && tally.killed > 0,
        "the faults did not reach the node: {tally:?}"
    );
}

/// Whether the program that makes disks fail is here.
fn strace_is_here() -> bool {
    let here = Command::new("strace").arg("-V").output().is_ok();
    assert!(here || std::env::var("CI").as_deref() != Ok("true"), "strace is not installed");
    if !here {
        println!("skip: strace is not installed");
    }
    here
}

#[test]
fn an_order_of_silence_that_the_disk_refused_outlives_the_end_of_the_node() {
    if !strace_is_here() {
        return;
    }
    let mut refused = 0;
    for moment in 1..=10 {
        let temporary = tempfile::Builder::new().prefix("silence-").tempdir().expect("a directory");
        let directory = temporary.path();
        let (profile, log) = (directory.join("ship.toml"), directory.join("log"));
        std::fs::write(&profile, BASE.replace("DIR", &directory.display().to_string()) + BEARER).expect("written");
        let mut node = start(&[], &profile, &log).expect("a sound disk");
        node.child.kill().and_then(|()| node.child.wait()).expect("our own child");
        let Ok(mut node) = start(&strace(directory, &[LOG_FILE], "fdatasync", "error=EIO", moment), &profile, &log)
        else {
            continue;
        };
        let socket = directory.join("sock").display().to_string();
        let ask = |words: &[&str]| {
            let asked = Command::new(aldis()).args(words).args(["--socket", &socket]).output().expect("asked");
            String::from_utf8_lossy(&[asked.stdout, asked.stderr].concat()).into_owned()
        };
        let told = ask(&["emcon", "set", "hf1", "silent", "--reason", "test"]);
        let struck = told.contains("could not be made durable");
        refused += usize::from(struck);
        finish(&mut node, !struck, "silence", &log);
        let mut node = start(&[], &profile, &log).expect("a sound disk");
        let shown = ask(&["emcon", "show", "--json"]);
        node.child.kill().and_then(|()| node.child.wait()).expect("our own child");
        if struck {
            assert!(shown.contains("\"silent\""), "moment {moment}: told {told:?}, and after the restart: {shown}");
        }
    }
    assert!(refused > 0, "no order met the failing sync");
}

/// A call on these of the store's files goes wrong at that moment, counted for each thread.
fn strace(directory: &Path, files: &[&str], call: &str, doing: &str, moment: usize) -> Vec<String> {
    let inject = format!("inject={call}:{doing}:when={moment}");
    let trace = format!("trace={call}");
    let log = directory.join("trace").display().to_string();
    let mut words = ["strace", "-f", "-qq", "-o", &log, "-e", &trace, "-e", &inject].map(str::to_owned).to_vec();
    for file in files {
        words.extend(["-P".to_owned(), directory.join("state").join(file).display().to_string()]);
    }
    words
}

/// A node that holds everything.
const BASE: &str = r#"
[node]
name = "ship"
hostname = "mail.ship.example"
state_dir = "DIR/state"
socket = "DIR/sock"
clock = "trusted"

[limits]
disk_floor = "1MiB"

[[listener]]
name = "relay"
kind = "relay"
address = "127.0.0.1:0"
trust = ["127.0.0.0/8"]

[[route]]
match = "*"
to = "hold"
"#;

/// A bearer whose modem is not there, which is enough for orders.
const BEARER: &str = r#"
[[peer]]
name = "shore"
station = 1
protection = "off"

[[bearer]]
name = "hf1"
device = "/nonexistent/tty"
keying = { socket = "/nonexistent/modem" }
modem = "simulated"
rate = "2400bps"
interleaver = "S"
station = 0
peers = ["shore"]
emcon = "open"
"#;

fn case(call: &str, fault: Fault, moment: usize, tally: &mut Tally) {
    let name = format!("{fault:?} at {call} {moment}");
    let temporary = tempfile::Builder::new().prefix("faults-").tempdir().expect("a directory");
    let directory = temporary.path();
    let (profile, log) = (directory.join("ship.toml"), directory.join("log"));
    let text = BASE.replace("DIR", &directory.display().to_string());
    std::fs::write(&profile, text).expect("written");
    // A store that exists: what fails is a running node's disk.
    let mut node = start(&[], &profile, &log).expect("a sound disk");
    node.child.kill().and_then(|()| node.child.wait()).expect("our own child");

    let doing = match fault {
        Fault::Eio => "error=EIO",
        Fault::Enospc => "error=ENOSPC",
        Fault::Kill => "signal=KILL",
    };
    let (mut offered, mut promised) = (BTreeMap::new(), BTreeSet::new());
    tally.cases += 1;
    let status = match start(&strace(directory, &[STORE_FILE, LOG_FILE], call, doing, moment), &profile, &log) {
        Err(status) => Some(status),
        Ok(mut node) => {
            let mut client = Client::open(node.smtp).ok();
            for serial in 0..MESSAGES {
                let token = format!("fault-{serial:02}");
                let filler = "0123456789 abcdefghij\r\n".repeat(serial * 17);
                let message = format!("From: a@ship.example\r\nSubject: {token}\r\n\r\n{filler}end of {token}\r\n");
                if client.is_none() {
                    client = Client::open(node.smtp).ok();
                }
                let Some(open) = client.as_mut() else { break };
                let told = open.submit("a@ship.example", "b@shore.example", 0, message.as_bytes());
                if told != Told::NotSent {
                    offered.insert(token.clone(), message);
                }
                match told {
                    Told::Promised => {
                        promised.insert(token);
                    }
                    Told::Refused(answer) => {
                        assert!(answer.starts_with('4'), "{name}: {answer}");
                        tally.refused += 1;
                        if answer.starts_with("421") {
                            client = None;
                        }
                    }
                    Told::NotSent | Told::Unknown => client = None,
                }
            }
            finish(&mut node, promised.len() == MESSAGES || fault == Fault::Enospc, &name, &log)
        }
    };
    match status {
        Some(status) if fault == Fault::Kill => {
            assert!(!status.success(), "{name}: {status}");
            tally.killed += 1;
        }
        Some(status) => {
            assert_eq!(status.code(), Some(1), "{name}: an error and its exit status\n{}", tail(&log));
            tally.ended_with_error += 1;
        }
        None => tally.untouched += 1,
    }
    tally.promised += promised.len();

    // The disk is sound again.
    let mut node =
        start(&[], &profile, &log).unwrap_or_else(|s| panic!("{name}: no start afterwards: {s}\n{}", tail(&log)));
    let socket = directory.join("sock").display().to_string();
    let list = Command::new(aldis()).args(["queue", "list", "--json", "--socket", &socket]).output().expect("asked");
    node.child.kill().and_then(|()| node.child.wait()).expect("our own child");
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("a document");
    let listed = list["messages"].as_array().expect("messages").len();

    let found = stored(&directory.join("state"));
    assert_eq!(listed, found.len(), "{name}: the queue shows what the store holds");
    let mut seen = BTreeSet::new();
    for body in &found {
        let whole = offered.iter().find(|(_, message)| body.ends_with(message.as_bytes()));
        let Some((token, _)) = whole else {
            panic!("{name}: half a message, or nobody's: {}", String::from_utf8_lossy(body));
        };
        assert!(seen.insert(token.clone()), "{name}: {token} is there twice");
    }
    let lost: Vec<_> = promised.difference(&seen).collect();
    assert!(lost.is_empty(), "{name}: promised and not there: {lost:?}\n{}", tail(&log));
}

/// The end of a node under strace: by itself, or by SIGTERM (`None`) when it was not struck and may live on.
fn finish(node: &mut Running, may_live: bool, name: &str, log: &Path) -> Option<std::process::ExitStatus> {
    if may_live {
        process::pause(std::time::Duration::from_millis(100));
        if node.child.try_wait().expect("our own child").is_none() {
            let strace = node.child.id();
            let children =
                std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap_or_default();
            for pid in children.split_whitespace() {
                let _ = Command::new("kill").args(["-TERM", pid]).status();
            }
            let status =
                ended(&mut node.child).unwrap_or_else(|| panic!("{name}: no end after SIGTERM\n{}", tail(log)));
            return (!status.success()).then_some(status);
        }
    }
    Some(ended(&mut node.child).unwrap_or_else(|| panic!("{name}: it hangs\n{}", tail(log))))
}

/// Every body the store holds for a message, read past the node.
fn stored(state: &Path) -> Vec<Arc<[u8]>> {
    let disk = Arc::new(RealDisk::open(state).expect("nobody holds it"));
    let (engine, opened) = Engine::open(disk, Options { fresh_epoch: 1, ..Options::default() }).expect("opens");
    assert_eq!(opened.damaged, Vec::<String>::new());
    let snapshot = engine.snapshot().expect("readable");
    let records = snapshot.list(1000, |_| true).expect("readable");
    records
        .iter()
        .map(|record| snapshot.read(record.recipients[0].body, 0, u64::MAX).expect("every listed message has its body"))
        .collect()
}
