//! The shipped `torture` profile under the probes of `tests/peers`: legal, odd and hostile SMTP, and real mail octet for octet.

#[path = "common/process.rs"]
mod process;

use process::{Running, free_port, have, probe, root};

/// What the profile promises in EHLO; a keyword that goes missing is a failure, not a skip.
const REQUIRED: &str = "PIPELINING,8BITMIME,SMTPUTF8,SIZE,ENHANCEDSTATUSCODES,DSN,CHUNKING,STARTTLS,AUTH,MT-PRIORITY";

struct Target {
    node: Running,
    next_hop: String,
    _directory: tempfile::TempDir,
}

fn torture_node() -> Target {
    let directory = tempfile::tempdir().expect("a directory");
    let next_hop = format!("127.0.0.1:{}", free_port());
    let set = [
        "listener.relay.address=127.0.0.1:0".to_owned(),
        format!("route.\"dest.test\".to=smtp:{next_hop}"),
        format!("route.\"src.test\".to=smtp:{next_hop}"),
    ];
    let node = Running::start(&root().join("firmware-cfg/profiles/torture.toml"), directory.path(), &set);
    Target { node, next_hop, _directory: directory }
}

/// "95 passed, 0 failed" as figures.
fn totals(text: &str) -> (u32, u32) {
    let figures: Vec<u32> =
        text.lines().last().unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (figures.first().copied().unwrap_or(0), figures.get(1).copied().unwrap_or(u32::MAX))
}

fn torture(extra: &[&str]) -> u32 {
    let target = torture_node();
    let address = target.node.address().to_string();
    let mut words = vec![&*address, "--sink", &target.next_hop, "--require", REQUIRED];
    words.extend(["--user", "probe@dest.test", "--password", "torture-Secret-1", "--idle", "30"]);
    words.extend(extra);
    let (ok, text) = probe(400, "smtp_torture.py", &words);
    let (passed, failed) = totals(&text);
    assert!(ok && failed == 0, "{failed} cases failed");
    target.node.stop();
    passed
}

#[test]
fn legal_odd_and_hostile_dialogues_all_end_as_they_should() {
    if !have(&["python3"]) {
        return;
    }
    let passed = torture(&[]);
    assert!(passed >= 95, "only {passed} cases were run");
}

#[test]
fn a_client_that_trickles_or_floods_holds_nobody_else_up() {
    if !have(&["python3"]) {
        return;
    }
    let passed = torture(&["--only", "slow_clients*,connection_flood", "--slow", "60", "--flood", "500"]);
    assert_eq!(passed, 2);
}

#[test]
fn every_message_comes_out_as_it_went_in() {
    if !have(&["python3"]) {
        return;
    }
    let target = torture_node();
    let address = target.node.address().to_string();
    let folders = ["tests/data/corpus", "tests/data/mail"].map(|f| root().join(f).display().to_string());
    let (ok, text) = probe(300, "corpus_replay.py", &[&address, "--sink", &target.next_hop, &folders[0], &folders[1]]);
    let (passed, failed) = totals(&text);
    assert!(ok && failed == 0, "{failed} messages came out changed or not at all");
    assert!(passed >= 16, "only {passed} messages were sent");
    assert!(!text.contains("refused"), "good mail was refused");
    target.node.stop();
}
