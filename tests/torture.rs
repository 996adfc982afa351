//! The shipped `torture` profile under the probes of `tests/peers`: legal, odd and hostile SMTP, and real mail octet for octet. Each
//! kind of listener announces all that it must, and nothing that it must not.

#[path = "common/process.rs"]
mod process;

use std::io::{Read, Write};

use process::{Client, Running, free_port, have, probe, root, run};

/// What every kind of listener promises in EHLO; a keyword that goes missing is a failure, not a skip.
const REQUIRED: &str =
    "PIPELINING,8BITMIME,SMTPUTF8,SIZE,ENHANCEDSTATUSCODES,DSN,CHUNKING,BINARYMIME,MT-PRIORITY,LIMITS";

/// A kind of listener, and what it makes of the probe.
struct Kind {
    /// What makes the profile's listener one of this kind.
    set: &'static [&'static str],
    /// How `of_kind.py` talks to it; without a word the probe does by itself.
    spoken: Option<&'static str>,
    /// What it promises beside `REQUIRED`.
    promises: &'static str,
    /// Cases that are passed, and those that are about what this kind must not announce.
    passed: u32,
    skipped: &'static [&'static str],
}

const RELAY: Kind = Kind {
    set: &[],
    spoken: None,
    promises: "STARTTLS,AUTH,DELIVERBY,MTRK",
    passed: 96,
    skipped: &["dsn_unannounced_is_refused", "future_release_values", "mt_priority_unannounced_is_refused"],
};
/// What the probe does without a login is let through by trust.
const TRUSTED: Kind = Kind {
    set: &["listener.relay.kind=submission", "node.clock=trusted", "listener.relay.trust=[\"127.0.0.0/8\"]"],
    spoken: None,
    promises: "STARTTLS,AUTH,DELIVERBY,MTRK,FUTURERELEASE",
    passed: 97,
    skipped: &["dsn_unannounced_is_refused", "mt_priority_unannounced_is_refused"],
};
/// Port 587: nobody without a login.
const SUBMISSION: Kind = Kind {
    set: &["listener.relay.kind=submission", "node.clock=trusted"],
    spoken: Some("submission"),
    passed: 98,
    ..TRUSTED
};
/// Port 465: the same inside TLS from the first byte.
const SUBMISSIONS: Kind = Kind {
    set: &["listener.relay.kind=submission", "node.clock=trusted", "listener.relay.tls.implicit=true"],
    spoken: Some("submissions"),
    promises: "AUTH,DELIVERBY,MTRK,FUTURERELEASE",
    passed: 93,
    skipped: &[
        "auth_not_on_plain_line",
        "dsn_unannounced_is_refused",
        "mt_priority_unannounced_is_refused",
        "starttls_handshake_abandoned",
        "starttls_injection",
        "starttls_resets_state",
        "starttls_then_plain_text",
        "starttls_with_argument",
    ],
};
const LMTP: Kind = Kind {
    set: &["listener.relay.kind=lmtp", "listener.relay.auth=false"],
    spoken: Some("lmtp"),
    promises: "STARTTLS",
    passed: 94,
    skipped: &[
        "auth_brute_force_slowed",
        "auth_error_paths",
        "auth_good_and_only_once",
        "deliverby_values",
        "dsn_unannounced_is_refused",
        "future_release_values",
        "helo_then_mail",
        "mt_priority_unannounced_is_refused",
    ],
};

struct Target {
    node: Running,
    next_hop: String,
    _directory: tempfile::TempDir,
}

fn torture_node(more: &[&str]) -> Target {
    let directory = tempfile::tempdir().expect("a directory");
    let next_hop = format!("127.0.0.1:{}", free_port());
    let mut set = vec![
        "listener.relay.address=127.0.0.1:0".to_owned(),
        format!("route.\"dest.test\".to=smtp:{next_hop}"),
        format!("route.\"src.test\".to=smtp:{next_hop}"),
    ];
    set.extend(more.iter().map(|s| (*s).to_owned()));
    let node = Running::start(&root().join("firmware-cfg/profiles/torture.toml"), directory.path(), &set);
    Target { node, next_hop, _directory: directory }
}

/// "95 passed, 0 failed" as figures.
fn totals(text: &str) -> (u32, u32) {
    let figures: Vec<u32> =
        text.lines().last().unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (figures.first().copied().unwrap_or(0), figures.get(1).copied().unwrap_or(u32::MAX))
}

/// Runs a probe against a listener of this kind.
fn probe_as(kind: &Kind, limit: u64, name: &str, words: &[&str]) -> String {
    let script = format!("{name}.py");
    let (ok, text) = match kind.spoken {
        Some(spoken) => probe(limit, "of_kind.py", &[&[spoken, name], words].concat()),
        None => probe(limit, &script, words),
    };
    let (_, failed) = totals(&text);
    assert!(ok && failed == 0, "{name} as {:?} {:?}: {failed} failed", kind.spoken, kind.set);
    text
}

fn torture(kind: &Kind, extra: &[&str]) -> String {
    // A client that says nothing is dropped sooner than the profile says.
    let target = torture_node(&[&["limits.session_idle=5s"], kind.set].concat());
    let address = target.node.address().to_string();
    let required = format!("{REQUIRED},{}", kind.promises);
    let mut words = vec![&*address, "--sink", &target.next_hop, "--require", &required];
    words.extend(["--user", "probe@dest.test", "--password", "torture-Secret-1", "--idle", "15", "--quiet", "1.5"]);
    words.extend(extra);
    let text = probe_as(kind, 400, "smtp_torture", &words);
    target.node.stop();
    text
}

fn stands_every_case(kind: &Kind) {
    let text = torture(kind, &[]);
    let mut skipped: Vec<&str> = text.lines().filter_map(|l| Some(l.split_once(": skip ")?.0)).collect();
    skipped.sort_unstable();
    assert_eq!((totals(&text).0, &*skipped), (kind.passed, kind.skipped), "{:?}", kind.spoken);
}

#[test]
fn legal_odd_and_hostile_dialogues_all_end_as_they_should() {
    if have(&["python3"]) {
        stands_every_case(&RELAY);
    }
}

/// All at once: the probe waits most of its time.
#[test]
fn every_other_kind_of_listener_stands_the_same() {
    if !have(&["python3"]) {
        return;
    }
    std::thread::scope(|scope| {
        for kind in [&TRUSTED, &SUBMISSION, &SUBMISSIONS, &LMTP] {
            scope.spawn(|| stands_every_case(kind));
        }
    });
}

/// The keywords of a greeted listener, with their parameters.
fn keywords(target: &Target, hello: &str) -> Vec<String> {
    let mut stream = std::net::TcpStream::connect(target.node.address()).expect("the listener answers");
    stream.write_all(format!("{hello} probe.test\r\nQUIT\r\n").as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("replies");
    let lines = text.lines().filter(|l| l.starts_with("250")).skip(1);
    let mut words: Vec<String> = lines.map(|l| l[4..].trim_end().to_owned()).collect();
    words.sort();
    words
}

#[test]
fn each_kind_of_listener_announces_what_it_must_and_no_more() {
    let all = [
        "8BITMIME",
        "BINARYMIME",
        "CHUNKING",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "LIMITS RCPTMAX=1000",
        "MT-PRIORITY STANAG4406",
        "PIPELINING",
        "SIZE 26214400",
        "SMTPUTF8",
    ];
    let with = |more: &[&str]| {
        let mut words: Vec<String> = all.iter().chain(more).map(|w| (*w).to_owned()).collect();
        words.sort();
        words
    };
    let relay = torture_node(&[]);
    assert_eq!(keywords(&relay, "EHLO"), with(&["DELIVERBY", "MTRK", "STARTTLS"]));
    assert_eq!(keywords(&relay, "HELO"), Vec::<String>::new());
    let submission = torture_node(TRUSTED.set);
    let mut words = keywords(&submission, "EHLO");
    let later = words.iter().position(|w| w.starts_with("FUTURERELEASE 604800 20")).expect("later release");
    let later = words.remove(later);
    assert!(later.len() == "FUTURERELEASE 604800 2026-12-06T00:00:00Z".len() && later.ends_with('Z'), "{later}");
    assert_eq!(words, with(&["DELIVERBY", "MTRK", "STARTTLS"]));
    let lmtp = torture_node(LMTP.set);
    assert_eq!(keywords(&lmtp, "LHLO"), with(&["STARTTLS"]));
    for node in [relay, submission, lmtp] {
        node.node.stop();
    }
}

#[test]
fn an_lmtp_listener_takes_binary_mail_and_answers_each_recipient() {
    let target = torture_node(LMTP.set);
    let mut client = Client::connect(target.node.address());
    assert!(client.say("EHLO probe.test").starts_with("500"));
    assert!(client.say("LHLO probe.test").starts_with("250"));
    for (line, want) in [
        ("AUTH SCRAM-SHA-256 biwsbj11c2Vy", "502 5.5.1"),
        ("MAIL FROM:<a@src.test> HOLDFOR=60", "555 5.5.4"),
        ("MAIL FROM:<a@src.test> BY=60;R", "555 5.5.4"),
        ("MAIL FROM:<a@src.test> MTRK=VheLhqV/rCKJmplkGFwsyW59pYk ENVID=q@src.test", "555 5.5.4"),
        ("MAIL FROM:<a@src.test> BODY=BINARYMIME", "250"),
        ("RCPT TO:<b@dest.test>", "250"),
        ("RCPT TO:<x@elsewhere.test>", "550"),
        ("RCPT TO:<c@dest.test>", "250"),
        ("DATA", "503 5.5.1"),
    ] {
        let reply = client.say(line);
        assert!(reply.starts_with(want), "{line}: {reply}");
    }
    let content = b"Subject: x\r\n\r\n\n.\r\n\0\xff";
    client.send(&[format!("BDAT {} LAST\r\n", content.len()).as_bytes(), content, b"NOOP\r\n"].concat());
    let replies: Vec<String> = (0..3).map(|_| client.reply()).collect();
    assert!(replies[0].starts_with("250 2.0.0 queued") && replies[1] == replies[0], "{replies:?}");
    assert!(replies[2].starts_with("250 2.0.0 ok"), "{replies:?}");
    target.node.stop();
}

#[test]
fn a_client_that_trickles_or_floods_holds_nobody_else_up() {
    if !have(&["python3"]) {
        return;
    }
    for kind in [&RELAY, &SUBMISSIONS, &LMTP] {
        let text = torture(kind, &["--only", "slow_clients*,connection_flood", "--slow", "60", "--flood", "500"]);
        assert_eq!(totals(&text).0, 2);
    }
}

/// Sends every message in these folders through a node and has at least `least` of them come out unharmed, none refused, with no
/// field more than these.
fn replay(kind: &Kind, may_add: &str, folders: &[String], least: u32) {
    let target = torture_node(kind.set);
    let address = target.node.address().to_string();
    let words = [&*address, "--sink", &*target.next_hop, "--may-add", may_add];
    let words: Vec<&str> = words.into_iter().chain(folders.iter().map(String::as_str)).collect();
    let text = probe_as(kind, 300, "corpus_replay", &words);
    let (passed, _) = totals(&text);
    assert!(passed >= least, "only {passed} messages were sent");
    assert!(!text.contains("refused"), "good mail was refused");
    target.node.stop();
}

/// The same by a relay, by LMTP and by submission, which completes the header (RFC 6409 8).
fn replay_by_all(folders: &[String], least: u32) {
    let completed = "received,date,message-id";
    for (kind, may_add) in [(&RELAY, "received"), (&LMTP, "received"), (&SUBMISSION, completed)] {
        replay(kind, may_add, folders, least);
    }
}

#[test]
fn every_message_comes_out_as_it_went_in() {
    if !have(&["python3"]) {
        return;
    }
    replay_by_all(&["tests/data/corpus", "tests/data/mail"].map(|f| root().join(f).display().to_string()), 16);
}

/// Good mail and bad, as the authors of Python's mail parser collected it.
#[test]
fn every_message_of_pythons_own_tests_comes_out_as_it_went_in() {
    if !have(&["python3"]) {
        return;
    }
    let find = "import os, test.test_email as t; print(os.path.join(os.path.dirname(t.__file__), 'data'))";
    let found = run(30, "python3", &["-c", find]);
    if !found.status.success() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "Python's own test suite is not installed");
        println!("skip: Python's own test suite is not installed");
        return;
    }
    replay_by_all(&[String::from_utf8_lossy(&found.stdout).trim().to_owned()], 40);
}
