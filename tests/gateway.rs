//! The rules of listeners and routes against running nodes: priority policies and sizes by level, loops, peers of old, LMTP on a socket,
//! domains that take no mail.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use lab::{Lab, contains, split};
use process::{Client, Running, message, root};

/// A node of whose listener these are the rules, with a mailbox for everybody and a domain that is held.
fn node(rules: &str) -> Lab {
    let mut lab = Lab::new();
    let profile = lab.profile("ship", &[("ship.example", "local"), ("held.example", "hold")], &[], "");
    let profile = profile.replace("trust = [\"127.0.0.0/8\"]\n", rules);
    lab.start("ship", &profile);
    lab
}

/// A client that has said EHLO, and what it was told.
fn open(address: SocketAddr) -> (Client, Vec<String>) {
    let mut client = Client::connect(address);
    client.send(b"EHLO client.test\r\n");
    let offered = client.reply_lines();
    (client, offered)
}

fn submit(lab: &Lab, from: &str, to: &str, message: &[u8]) -> String {
    open(lab.address("ship")).0.submit(from, &[(to, "")], message)
}

/// A message with this field on top.
fn with_field(field: &str, id: &str) -> Vec<u8> {
    [field.as_bytes(), b"\r\n", &message(id, "Text.")].concat()
}

/// The Received field on top of a message, unfolded.
fn trace(mail: &[u8]) -> String {
    let received = lab::fields(split(mail).0).into_iter().find(|field| field.starts_with("Received:"));
    received.expect("a trace field").replace("\n\t", " ")
}

#[test]
fn a_listener_serves_numbers_by_its_policy_and_passes_them_on_as_they_came() {
    for (policy, number, level) in [("MIXER", 1, "flash"), ("NSEP", -9, "routine"), ("STANAG4406", 1, "immediate")] {
        let lab = node(&format!("trust = [\"127.0.0.0/8\"]\nmt_priority = \"{policy}\"\n"));
        let (mut client, offered) = open(lab.address("ship"));
        assert!(offered.iter().any(|line| line.ends_with(&format!("MT-PRIORITY {policy}"))), "{offered:?}");
        let from = format!("<ops@ship.example> MT-PRIORITY={number}");
        let reply = client.submit(&from, &[("x@held.example", "")], &message("held.1", "Text."));
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
        let list = lab.request("ship", r#"{"command":"queue-list"}"#);
        let kept = &list["document"]["messages"][0];
        assert_eq!((kept["precedence"].as_str(), kept["mt_priority"].as_i64()), (Some(level), Some(number)), "{list}");
    }
}

#[test]
fn a_message_too_big_for_its_level_is_refused_early_or_late_wherever_the_level_comes_from() {
    let lab = node("trust = [\"127.0.0.0/8\"]\nmax_size_by_precedence = { override = \"4KiB\", flash = \"8KiB\" }\n");
    let (mut client, _) = open(lab.address("ship"));
    let reply = client.say("MAIL FROM:<ops@ship.example> SIZE=999999999 MT-PRIORITY=6");
    assert!(reply.starts_with("552 5.7.16"), "{reply}");
    let text = |bytes: usize| message("big", &format!("{}\r\n", "x".repeat(60)).repeat(bytes / 62));
    for (parameters, field, bytes, want) in [
        (" MT-PRIORITY=6", "X-A: b", 5000, "552 5.7.16"),
        (" MT-PRIORITY=6", "X-A: b", 2000, "250"),
        (" MT-PRIORITY=4", "X-A: b", 5000, "250"),
        ("", "MT-Priority: 5", 5000, "552 5.7.16"),
        ("", "MMHS-Primary-Precedence: 4", 9000, "552 5.7.16"),
        ("", "MMHS-Primary-Precedence: 3", 9000, "250"),
        ("", "X-A: b", 50_000, "250"),
    ] {
        let mail = [field.as_bytes(), b"\r\n", &text(bytes)].concat();
        let reply = submit(&lab, &format!("<ops@ship.example>{parameters}"), "jack@ship.example", &mail);
        assert!(reply.starts_with(want), "{parameters} {field} {bytes}: {reply}");
    }
}

#[test]
fn what_a_field_asks_for_is_granted_told_and_traced() {
    let lab = node("max_precedence = \"priority\"\n");
    for (field, id, told, clause) in [
        // Of a stranger an MT-Priority field is not believed, and MMHS up to the ceiling.
        ("MMHS-Primary-Precedence: 5", "mmhs.1", "250 2.3.6 0 ", " PRIORITY 0;"),
        ("MMHS-Primary-Precedence: 1", "mmhs.2", "250 2.0.0", " PRIORITY -2;"),
        ("MT-Priority: 6", "field.1", "250 2.0.0", ""),
    ] {
        let reply = submit(&lab, "<ops@ship.example>", "jack@ship.example", &with_field(field, id));
        assert!(reply.starts_with(told) && reply.contains("queued as "), "{field}: {reply}");
        let trace = trace(&lab.arrival("ship", "jack", &format!("{id}@ship.example")));
        assert!(trace.contains(clause) && (clause.is_empty() != trace.contains("PRIORITY")), "{field}: {trace}");
    }
    let lab = node("trust = [\"127.0.0.0/8\"]\n");
    let reply = submit(&lab, "<ops@ship.example>", "jack@ship.example", &with_field("MT-Priority: 3", "field.2"));
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    assert!(trace(&lab.arrival("ship", "jack", "field.2@ship.example")).contains(" PRIORITY 3;"));
}

#[test]
fn a_hundred_received_fields_are_no_loop_and_one_more_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let profile = root().join("firmware-cfg/profiles/bench.toml");
    let node = Running::start(&profile, directory.path(), &["listener.relay.address=127.0.0.1:0".into()]);
    for (count, want) in [(100, "250"), (101, "554 5.4.6")] {
        let hops =
            "Received: from a.example by b.example with ESMTP; Mon, 23 Nov 2026 10:00:00 +0000\r\n".repeat(count);
        let mail = [hops.as_bytes(), &message("looping", "Text.")].concat();
        let reply = open(node.address()).0.submit("<a@src.test>", &[("b@dest.test", "")], &mail);
        assert!(reply.starts_with(want), "{count}: {reply}");
    }
    node.stop();
}

#[test]
fn old_peers_get_their_line_ends_mended_and_their_headers_through() {
    let mut lab = Lab::new();
    let lan = lab.profile("lan", &[("lan.example", "local")], &[], "");
    lab.start("lan", &lan);
    let onward = format!("smtp:{}", lab.address("lan"));
    let gate = lab.profile("ship", &[("lan.example", &onward), ("ship.example", "local")], &[], "");
    lab.start("ship", &format!("{}\n", gate.replace("trust = [", "normalize = [\"127.0.0.0/8\"]\ntrust = [")));
    // To a filter that takes bare LFs for line ends this is two messages.
    let smuggled = "Subject: one\nMessage-ID: <smug.1@ship.example>\n\nfirst\n.\nMAIL FROM:<evil@ship.example>\r\n\
        RCPT TO:<clerk@lan.example>\r\nDATA\r\nSubject: two\r\n\r\nsecond\r\n.\r\n";
    let (mut client, _) = open(lab.address("ship"));
    for line in ["MAIL FROM:<ops@ship.example>", "RCPT TO:<clerk@lan.example>", "DATA"] {
        assert!(client.say(line).starts_with(['2', '3']), "{line}");
    }
    client.send(smuggled.as_bytes());
    assert!(client.reply().starts_with("250"));
    assert!(client.say("NOOP").starts_with("250"), "in step");
    let mail = lab.arrival("lan", "clerk", "smug.1@ship.example");
    assert!(contains(&mail, "first\r\n.\r\nMAIL FROM:<evil@ship.example>\r\n") && contains(&mail, "second\r\n"));
    lab.settle();
    assert_eq!(lab.mailbox("lan", "clerk").len(), 1);

    let raw = "Subject: Malm\u{f6}\r\nMessage-ID: <raw.1@ship.example>\r\n\r\nText.\r\n".as_bytes();
    let reply = submit(&lab, "<ops@ship.example>", "jack@ship.example", raw);
    assert!(reply.starts_with("554 5.6.7"), "{reply}");
    lab.stop("ship");
    lab.start("ship", &gate.replace("trust = [", "raw_header = [\"127.0.0.0/8\"]\ntrust = ["));
    let reply = submit(&lab, "<ops@ship.example>", "jack@ship.example", raw);
    assert!(reply.starts_with("250"), "{reply}");
    assert!(contains(&lab.arrival("ship", "jack", "raw.1@ship.example"), "Subject: Malm\u{f6}\r\n"));
}

#[test]
fn deliver_by_has_the_least_time_that_the_profile_says() {
    let lab = node("trust = [\"127.0.0.0/8\"]\ndeliver_by_min = \"2min\"\n");
    let (mut client, offered) = open(lab.address("ship"));
    assert!(offered.iter().any(|line| line.ends_with("DELIVERBY 120")), "{offered:?}");
    for (by, want) in [("119;R", "555 5.5.4"), ("5;N", "250"), ("120;R", "250")] {
        let reply = client.say(&format!("MAIL FROM:<ops@ship.example> BY={by}"));
        assert!(reply.starts_with(want), "{by}: {reply}");
        client.say("RSET");
    }
}

#[test]
fn a_domain_that_takes_no_mail_is_told_so_and_mail_led_there_fails_with_the_same_code() {
    let mut lab = Lab::new();
    let alias = "[[alias]]\naddress = \"both@ship.example\"\nto = [\"jack@ship.example\", \"x@gone.example\"]\n";
    let routes = [("ship.example", "local"), ("gone.example", "refuse"), ("*", "hold")];
    // An alias that leads there is a mistake that the check finds.
    let profile = lab.profile("ship", &routes, &[], alias);
    let path = lab.path("mistaken.toml");
    std::fs::write(&path, &profile).expect("written");
    let problems = aldis::config::check(&path, &[]).expect_err("refused");
    assert!(problems.len() == 1 && problems[0].problem.contains("gone.example takes no mail"), "{problems:#?}");
    let profile = lab.profile("ship", &routes, &[], "");
    lab.start("ship", &profile);
    let reply = submit(&lab, "<ops@ship.example>", "x@gone.example", &message("gone.1", "Text."));
    assert!(reply.starts_with("556 5.1.10"), "{reply}");
    let reply = submit(&lab, "<ops@ship.example>", "x@else.example", &message("else.1", "Text."));
    assert!(reply.starts_with("250"), "{reply}");
}

/// Says lines to LMTP on a socket; the replies to each.
fn lmtp(socket: &Path, lines: &[&str]) -> Vec<String> {
    let mut stream = BufReader::new(UnixStream::connect(socket).expect("the listener answers"));
    let reply = |stream: &mut BufReader<UnixStream>| {
        let mut line = String::new();
        while line.is_empty() || line.as_bytes().get(3) == Some(&b'-') {
            line.clear();
            stream.read_line(&mut line).expect("a reply");
        }
        line
    };
    let mut replies = vec![reply(&mut stream)];
    for line in lines {
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("written");
        replies.push(reply(&mut stream));
    }
    replies
}

#[test]
fn lmtp_is_spoken_on_a_socket_of_the_machine() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("lmtp.sock");
    let profile = directory.path().join("gate.toml");
    let text = "[node]\nname = \"gate\"\npostmaster = \"postmaster@ship.example\"\n\n[[listener]]\nname = \"in\"\nkind = \"lmtp\"\n\
        address = \"./lmtp.sock\"\nsocket_mode = \"0600\"\ntrust = [\"127.0.0.1/32\"]\n\n[[route]]\nmatch = \"ship.example\"\n\
        to = \"local\"\n\n[[route]]\nmatch = \"*\"\nto = \"hold\"\n";
    std::fs::write(&profile, text).expect("written");
    let dialogue =
        ["LHLO mta.test", "MAIL FROM:<a@src.test>", "RCPT TO:<jack@ship.example>", "RCPT TO:<b@far.example>", "DATA"];
    for round in 0..2 {
        let node = Running::start(&profile, directory.path(), &[]);
        let mode = std::fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let lines = [&dialogue[..], &["Subject: x\r\n\r\nText.\r\n.", "QUIT"]].concat();
        let replies = lmtp(&socket, &lines);
        let codes: Vec<&str> = replies.iter().map(|r| &r[..3]).collect();
        // Two recipients, two answers; whoever may open the socket is this machine, which is trusted.
        assert_eq!(codes, ["220", "250", "250", "250", "250", "354", "250", "250"], "{replies:?}");
        let (_, status) = process::ask(&node.socket, &["status"]);
        assert!(status["listeners"][0]["address"].as_str().is_some_and(|a| a.ends_with("lmtp.sock")), "{status}");
        match round {
            // What a killed node leaves behind is in nobody's way.
            0 => node.kill(),
            _ => {
                node.stop();
                assert!(!socket.exists());
            }
        }
    }
}
