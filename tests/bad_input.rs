//! What goes wrong outside: noise, hostile bytes, a full disk, broken profiles, wrong keys, restored and lost stores, operators'
//! commands. Nothing may panic, and nothing may be lost that was promised.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use std::path::Path;
use std::time::Duration;

use aldis_sim::modem::Noise;
use lab::{KEY, Lab, OTHER_KEY, assert_unharmed};
use process::{Client, Running, aldis, ask, message, root, send, wait_for};
use serde_json::Value;

/// Sends one message over the pair and waits for it.
fn crosses(lab: &Lab, id: &str) {
    let sent = message(id, &format!("Text of {id}."));
    send(lab.address("ship"), "<ops@ship.example>", &[("watch@shore.example", "")], &sent);
    let got = lab.arrival("shore", "watch", &format!("Text of {id}."));
    assert_unharmed(&sent, &got, false);
}

#[test]
fn noise_on_the_line_neither_stops_mail_nor_gets_into_it() {
    let mut lab = Lab::new();
    lab.link("hf1", &["shore", "ship"], |modem| {
        modem.noise = Some(Noise { every: aldis::time::Duration::from_secs(10), bytes: 300 });
    });
    for name in ["ship", "shore"] {
        let profile = lab.pair_profile(name, KEY, "");
        lab.start(name, &profile);
    }
    for n in 0..5 {
        crosses(&lab, &format!("noise.{n}"));
    }
    lab.settle();
    assert_eq!(lab.mailbox("shore", "watch").len(), 5);
    let rejected = lab.count("shore", "frame-rejected") + lab.count("ship", "frame-rejected");
    println!("{rejected} frames rejected");
}

#[test]
fn broken_smtp_is_answered_or_dropped_and_others_are_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let set = ["listener.relay.address=127.0.0.1:0".to_owned()];
    let mut node = Running::start(&root().join("firmware-cfg/profiles/bench.toml"), directory.path(), &set);
    let long = vec![b'A'; 2_000_000];
    let mut every: Vec<u8> = (0..=255).collect();
    every.extend_from_slice(b"\r\n");
    let endless: Vec<u8> = b"RSET\r\n".repeat(20_000);
    let bodies: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0\0\0\0\r\n\0\r\n",
        b"EHLO \xff\xfe\r\nMAIL FROM:<\xc3\x28@x>\r\nRCPT TO:<>\r\nDATA\r\n",
        b"EHLO x\r\nMAIL FROM:<a@x> SIZE=99999999999999999999 BODY=?\r\nBDAT 18446744073709551615 LAST\r\n",
        b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nBDAT 4294967295\r\nshort",
        b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nno end",
        &every,
        &endless,
    ];
    for bytes in bodies.into_iter().chain([&*long]) {
        let mut client = Client::connect(node.address());
        client.send(bytes);
        drop(client);
        assert!(node.alive(), "{:?}", bytes.get(..40));
    }
    // A pseudo-random stream, a line end now and then.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let mut bytes = b"EHLO x\r\nMAIL FROM:<a@x>\r\n".to_vec();
        for _ in 0..4000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state as u8);
            if state.is_multiple_of(50) {
                bytes.extend_from_slice(b"\r\n");
            }
        }
        let mut client = Client::connect(node.address());
        client.send(&bytes);
    }
    send(node.address(), "<a@src.test>", &[("b@dest.test", "")], &message("after.1", "Still here."));
    assert!(node.alive());
    // Not one of the half-finished messages was taken.
    let (code, list) = ask(&node.socket, &["queue", "list"]);
    assert_eq!((code, list["messages"].as_array().map(Vec::len)), (0, Some(1)), "{list}");
    node.stop();
}

#[test]
fn broken_requests_on_the_control_socket_are_answered_and_harm_nothing() {
    use std::io::{BufRead, BufReader, Write};
    let directory = tempfile::tempdir().expect("a directory");
    let set = ["listener.relay.address=127.0.0.1:0".to_owned()];
    let mut node = Running::start(&root().join("firmware-cfg/profiles/bench.toml"), directory.path(), &set);
    let deep = "[".repeat(50_000);
    let long = format!("{{\"command\":\"track\",\"key\":\"{}\"}}", "x".repeat(1_000_000));
    for line in [
        "",
        "{",
        "null",
        "\u{0}",
        "{\"command\":\"reboot\"}",
        "{\"command\":\"queue-show\",\"id\":\"-1\"}",
        &deep,
        &long,
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(&node.socket).expect("it answers");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let _ = stream.write_all(format!("{line}\n").as_bytes());
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        assert!(!answer.contains("\"ok\":true"), "{answer}");
    }
    assert_eq!(ask(&node.socket, &["status"]).0, 0);
    assert!(node.alive());
    node.stop();
}

#[test]
fn a_full_disk_refuses_for_the_time_being_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let profile = root().join("firmware-cfg/profiles/bench.toml");
    let address = "listener.relay.address=127.0.0.1:0".to_owned();
    let node = Running::start(&profile, directory.path(), std::slice::from_ref(&address));
    let kept = send(node.address(), "<a@src.test>", &[("b@dest.test", "")], &message("kept.1", "Before."));
    node.stop();

    // No disk of this world has that much room left: the node believes its own is full.
    let full = [address.clone(), "limits.disk_floor=1000000GB".to_owned()];
    let mut node = Running::start(&profile, directory.path(), &full);
    let mut client = Client::connect(node.address());
    client.say("EHLO client.test");
    let reply = client.submit("<a@src.test>", &[("b@dest.test", "")], &message("full.1", "No room."));
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
    let (code, status) = ask(&node.socket, &["status"]);
    assert_eq!((code, &status["store"]["healthy"]), (0, &Value::Bool(false)), "{status}");
    assert!(node.alive());
    node.stop();

    let node = Running::start(&profile, directory.path(), &[address]);
    let (_, list) = ask(&node.socket, &["queue", "list"]);
    let ids: Vec<&str> = list["messages"].as_array().expect("a list").iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(ids, [kept], "{list}");
    let (_, status) = ask(&node.socket, &["status"]);
    assert_eq!(status["store"]["healthy"], true, "{status}");
    send(node.address(), "<a@src.test>", &[("b@dest.test", "")], &message("after.1", "Room again."));
    node.stop();
}

#[test]
fn a_corrupt_profile_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bad.toml");
    let good = std::fs::read_to_string(root().join("firmware-cfg/profiles/bench.toml")).expect("a profile");
    let line_of = |text: &str, needle: &str| 1 + text.lines().position(|l| l.contains(needle)).expect("there");
    let cases = [
        good.replace("kind = \"relay\"", "kind = \"realy\""),
        good.replace("\nsessions = 1000\n", "\nsessions = \"plenty\"\n"),
        good.replace("[[route]]", "[[route]"),
        good.replace("hostname =", "hostnam ="),
    ];
    for (text, needle) in cases.iter().zip(["realy", "plenty", "[[route]", "hostnam ="]) {
        std::fs::write(&path, text).expect("a file");
        let shown = path.display().to_string();
        let place = format!("{shown}:{}", line_of(text, needle));
        for words in [&["run", "--profile", &*shown][..], &["check", &shown]] {
            let (code, out, err) = aldis(words);
            assert_eq!(code, 1, "{words:?}: {out}{err}");
            assert!(out.contains(&place) || err.contains(&place), "{place} is not in {out}{err}");
        }
        let (code, out, _) = aldis(&["check", &shown, "--json"]);
        let document: Value = serde_json::from_str(&out).expect("one document");
        assert_eq!((code, &document["ok"]), (1, &Value::Bool(false)));
        assert_eq!(document["problems"][0]["line"], line_of(text, needle), "{document}");
    }
    // Bytes that are no text at all, and no file.
    std::fs::write(&path, [0xff, 0xfe, 0, 1, 2, 3]).expect("a file");
    for shown in [path.display().to_string(), directory.path().join("absent.toml").display().to_string()] {
        let (code, out, err) = aldis(&["run", "--profile", &shown]);
        assert_eq!(code, 1);
        assert!(err.contains(&shown) && !err.contains("panicked"), "{out}{err}");
    }
}

#[test]
fn with_the_wrong_key_nothing_passes_somebody_is_told_and_the_right_key_mends_it() {
    let mut lab = Lab::new();
    lab.link("hf1", &["shore", "ship"], |_| {});
    let shore = lab.pair_profile("shore", OTHER_KEY, "");
    let ship = lab.pair_profile("ship", KEY, "");
    lab.start("shore", &shore);
    lab.start("ship", &ship);
    let events = lab.watch("shore");
    send(
        lab.address("ship"),
        "<ops@ship.example>",
        &[("watch@shore.example", "")],
        &message("key.1", "Text of key.1."),
    );
    wait_for("an alarm about the key", Duration::from_secs(60), || {
        let events = events.lock().expect("events");
        events.iter().find(|e| e["event"] == "bearer-alarm" || e["event"] == "transfer-forged").cloned()
    });
    assert!(lab.count("shore", "bearer-alarm") + lab.count("shore", "transfer-forged") > 0);
    assert!(lab.mailbox("shore", "watch").is_empty());
    assert_eq!(lab.count("shore", "message-accepted"), 0);
    lab.stop("shore");
    let mended = lab.pair_profile("shore", KEY, "");
    lab.start("shore", &mended);
    lab.arrival("shore", "watch", "Text of key.1.");
    lab.settle();
    assert_eq!(lab.mailbox("shore", "watch").len(), 1);
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(status.success());
}

/// Loses or restores the store of one node between messages; mail must flow both before and after.
fn store_mishap(name: &str, restored: bool) {
    let mut lab = Lab::pair();
    let profile = lab.pair_profile(name, KEY, "");
    crosses(&lab, "first.1");
    lab.settle();
    let (state, backup) = (lab.state(name), lab.path("backup"));
    if restored {
        lab.stop(name);
        copy(&state, &backup);
        lab.start(name, &profile);
        for n in 0..3 {
            crosses(&lab, &format!("between.{n}"));
        }
        lab.settle();
    }
    lab.stop(name);
    std::fs::remove_dir_all(&state).expect("the store goes");
    if restored {
        copy(&backup, &state);
    }
    lab.start(name, &profile);
    for n in 0..3 {
        crosses(&lab, &format!("after.{n}"));
    }
    // And the other way.
    let back = message("back.1", "Text of back.1.");
    send(lab.address("shore"), "<watch@shore.example>", &[("ops@ship.example", "")], &back);
    let got = lab.arrival("ship", "ops", "Text of back.1.");
    assert_unharmed(&back, &got, false);
    lab.settle();
}

#[test]
fn mail_flows_again_after_the_sender_lost_its_store() {
    store_mishap("ship", false);
}

#[test]
fn mail_flows_again_after_the_receiver_lost_its_store() {
    store_mishap("shore", false);
}

#[test]
fn mail_flows_again_after_the_sender_was_restored_from_an_old_backup() {
    store_mishap("ship", true);
}

#[test]
fn mail_flows_again_after_the_receiver_was_restored_from_an_old_backup() {
    store_mishap("shore", true);
}

/// Every field of `names` is present.
fn has(document: &Value, names: &[&str]) {
    for name in names {
        assert!(document.get(name).is_some(), "no {name} in {document}");
    }
}

#[test]
fn operators_commands_answer_as_the_contract_says() {
    let lab = Lab::pair();
    let ship = lab.socket("ship");
    // Nothing leaves: the queue can be looked at.
    let (code, emcon) = ask(&ship, &["emcon", "set", "hf1", "silent", "--reason", "drill"]);
    assert_eq!((code, &emcon["schema"]), (0, &Value::from("aldis.emcon/1")), "{emcon}");
    let text = emcon.to_string();
    assert!(
        text.contains("\"silent\"") && text.contains("\"drill\"") && text.contains("uid ") && text.contains("_s\""),
        "{text}"
    );

    let options = "<ops@ship.example> ENVID=QQ1 MT-PRIORITY=-4";
    let id = send(lab.address("ship"), options, &[("watch@shore.example", "")], &message("cli.1", "Text of cli.1."));
    let other =
        send(lab.address("ship"), "<ops@ship.example>", &[("watch@shore.example", "")], &message("cli.2", "Two."));

    let (code, status) = ask(&ship, &["status"]);
    assert_eq!(code, 0);
    has(&status, &["schema", "node", "version", "features", "ready", "listeners", "bearers", "queue", "store"]);
    has(&status["listeners"][0], &["name", "address"]);
    has(&status["bearers"][0], &["name", "peer", "emcon", "air_s", "bytes_sent", "suppressed"]);
    has(&status["bearers"][0]["emcon"], &["state", "since", "reason", "author"]);
    has(&status["store"], &["healthy", "free_bytes"]);
    for level in ["override", "flash", "immediate", "priority", "routine", "deferred"] {
        has(&status["queue"]["by_precedence"][level], &["count", "oldest_s"]);
    }
    assert_eq!(status["bearers"][0]["emcon"]["state"], "silent");
    assert_eq!((&status["node"], &status["ready"]), (&Value::from("ship"), &Value::Bool(true)));
    assert!(status["store"]["free_bytes"].as_u64().is_some_and(|free| free > 0), "{status}");

    let (code, list) = ask(&ship, &["queue", "list"]);
    assert_eq!((code, list["messages"].as_array().map(Vec::len)), (0, Some(2)), "{list}");
    let entry = list["messages"].as_array().expect("a list").iter().find(|m| m["id"] == *id).expect("the message");
    has(entry, &["id", "message_id", "sender", "recipients", "precedence", "mt_priority", "size_bytes", "why"]);
    has(&entry["recipients"][0], &["address", "state", "bearer", "attempts", "next_at"]);
    assert_eq!(entry["message_id"], "<cli.1@ship.example>");
    assert_eq!((&entry["sender"], &entry["mt_priority"]), (&Value::from("ops@ship.example"), &Value::from(-4)));
    assert!(entry["why"].as_str().is_some_and(|why| !why.is_empty()), "{entry}");

    let (code, show) = ask(&ship, &["queue", "show", &id]);
    assert_eq!(
        (code, &show["schema"], &show["message"]["id"]),
        (0, &Value::from("aldis.queue-show/1"), &Value::from(&*id))
    );

    let (code, held) = ask(&ship, &["queue", "hold", &id, "--reason", "wait"]);
    assert_eq!((code, &held["schema"]), (0, &Value::from("aldis.queue-action/1")), "{held}");
    let (_, list) = ask(&ship, &["queue", "list", "--held"]);
    assert_eq!(
        (list["messages"].as_array().map(Vec::len), &list["messages"][0]["id"]),
        (Some(1), &Value::from(&*id)),
        "{list}"
    );
    assert_eq!(ask(&ship, &["queue", "release", &id]).0, 0);
    let (_, list) = ask(&ship, &["queue", "list", "--held"]);
    assert_eq!(list["messages"].as_array().map(Vec::len), Some(0), "{list}");
    let (code, raised) = ask(&ship, &["queue", "expedite", &id, "--precedence", "flash"]);
    assert_eq!(code, 0, "{raised}");
    let (_, show) = ask(&ship, &["queue", "show", &id]);
    assert_eq!(show["message"]["precedence"], "flash", "{show}");
    let (code, gone) = ask(&ship, &["queue", "cancel", &other, "--reason", "not needed"]);
    assert_eq!(code, 0, "{gone}");
    // The sender of what was cancelled is told, once.
    lab.arrival("ship", "ops", "delivery-status");

    let (code, minimize) = ask(&ship, &["minimize", "set", "hf1", "flash", "--reason", "busy"]);
    assert_eq!((code, &minimize["schema"]), (0, &Value::from("aldis.minimize/1")), "{minimize}");
    let mut client = Client::connect(lab.address("ship"));
    client.say("EHLO client.test");
    let reply = client.submit("<ops@ship.example>", &[("watch@shore.example", "")], &message("cli.3", "Three."));
    assert!(reply.starts_with("550 5.7.15"), "{reply}");
    let (_, shown) = ask(&ship, &["minimize", "show"]);
    assert!(shown.to_string().contains("busy"), "{shown}");
    assert_eq!(ask(&ship, &["minimize", "clear", "hf1"]).0, 0);

    let (code, open) = ask(&ship, &["emcon", "set", "all", "open", "--reason", "over"]);
    assert_eq!(code, 0, "{open}");
    lab.arrival("shore", "watch", "Text of cli.1.");
    lab.settle();
    assert_eq!(lab.mailbox("shore", "watch").len(), 1, "what was cancelled or refused stays away");
    let (code, shown) = ask(&ship, &["emcon", "show"]);
    assert!(code == 0 && shown.to_string().contains("\"open\""), "{shown}");

    // After delivery, by each of the three names.
    for key in [&*id, "<cli.1@ship.example>", "QQ1"] {
        let (code, track) = ask(&ship, &["track", key]);
        assert_eq!((code, &track["schema"]), (0, &Value::from("aldis.track/1")), "{key}: {track}");
        let events = track["events"].as_array().expect("events");
        assert!(!events.is_empty(), "{key}: {track}");
        for event in events {
            has(event, &["at", "event", "recipient", "bearer", "bytes_on_air", "air_s"]);
        }
        assert!(events.iter().any(|e| e["bytes_on_air"].as_u64().is_some_and(|b| b > 0)), "{key}: {track}");
    }
    let (_, status) = ask(&ship, &["status"]);
    assert!(status["bearers"][0]["bytes_sent"].as_u64().is_some_and(|b| b > 0), "{status}");

    // Statuses: 1 refused, 2 usage, 3 no node.
    let (code, refusal) = ask(&ship, &["queue", "show", "FFFFFFFF"]);
    assert_eq!((code, &refusal["schema"]), (1, &Value::from("aldis.refusal/1")), "{refusal}");
    assert_eq!(ask(&ship, &["track", "nothing-like-it"]).0, 1);
    assert_eq!(ask(&ship, &["emcon", "set", "nowhere", "silent", "--reason", "x"]).0, 1);
    let socket = ship.to_string_lossy();
    for words in
        [&["queue", "show", "xyz"][..], &["emcon", "set", "hf1", "loud", "--reason", "x"], &["frobnicate"], &[]]
    {
        let words: Vec<&str> = words.iter().copied().chain(["--socket", &socket]).collect();
        assert_eq!(aldis(&words).0, 2, "{words:?}");
    }
    assert_eq!(aldis(&["status", "--socket", "/nonexistent/aldis.sock"]).0, 3);
    let (code, out, _) = aldis(&["status", "--json", "--socket", "/nonexistent/aldis.sock"]);
    let document: Value = serde_json::from_str(&out).expect("one document also without a node");
    assert!(code == 3 && document["schema"].is_string(), "{document}");
}
