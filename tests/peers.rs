//! Mail between programs people use, across the link: swaks, smtplib, Postfix, LMTP; reports; relays of three nodes.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;
#[path = "common/server.rs"]
mod server;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::{End, KEY, Lab, assert_unharmed, contains, files, split};
use process::{free_port, have, message, root, run, send, wait_for};
use server::{PeerServer, may_start, open_to_all};

/// Mail with what transports like to spoil: dots, long lines, blank lines at the end, eight-bit text.
const ODD: &str = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\
    X-Folded: one\r\n\ttwo\r\n   three\r\nX-Empty:\r\nsUbJeCt: odd case  two spaces\r\n\
    From: ops@ship.example\r\nTo: watch@shore.example\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\
    Message-ID: <odd.1@ship.example>\r\n\r\n.\r\n..two\r\n. three\r\ntrailing blanks  \t \r\nMalmö Ålesund Ærø\r\n\
    From the log: 0800\r\n\r\n-- \r\nend\r\n\r\n\r\n";

fn odd_file(lab: &Lab) -> String {
    let path = lab.path("odd.eml");
    std::fs::write(&path, ODD).expect("a file");
    path.display().to_string()
}

#[test]
fn mail_from_smtplib_lands_octet_for_octet() {
    if !have(&["python3"]) {
        return;
    }
    let lab = Lab::pair();
    let (script, file) = (root().join("tests/peers/submit.py").display().to_string(), odd_file(&lab));
    let address = lab.address("ship").to_string();
    let words =
        [&*script, &address, "ops@ship.example", "watch@shore.example", &file, "BODY=8BITMIME", "MT-PRIORITY=4"];
    let output = run(60, "python3", &words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mail = lab.arrival("shore", "watch", "odd.1@ship.example");
    assert_unharmed(ODD.as_bytes(), &mail, false);
    assert!(contains(split(&mail).0, "Return-Path: <ops@ship.example>"), "{}", String::from_utf8_lossy(&mail));
    lab.settle();
    assert_eq!(lab.mailbox("shore", "watch").len(), 1);
}

#[test]
fn mail_from_swaks_lands_octet_for_octet() {
    if !have(&["swaks"]) {
        return;
    }
    let lab = Lab::pair();
    let address = lab.address("ship").to_string();
    let sent = message("swaks.1", "One.\r\n\r\nTwo.\r\n.\r\nThree.");
    let path = lab.path("swaks.eml");
    // swaks ends its data with a line end of its own.
    let text = String::from_utf8_lossy(&sent).replace("\r\n", "\n");
    std::fs::write(&path, text.strip_suffix('\n').expect("a line end")).expect("a file");
    let data = format!("@{}", path.display());
    let words = [
        "--server",
        &address,
        "--from",
        "ops@ship.example",
        "--to",
        "watch@shore.example",
        "--data",
        &data,
        "--ehlo",
        "c.test",
    ];
    let output = run(60, "swaks", &words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mail = lab.arrival("shore", "watch", "swaks.1@ship.example");
    assert_unharmed(&sent, &mail, false);
}

#[test]
fn postfix_relays_into_the_ship_and_takes_from_the_shore_octet_for_octet() {
    if !have(&["postfix", "postconf", "python3"]) {
        return;
    }
    if !may_start("Postfix") {
        return;
    }
    let (near_port, far_port) = (free_port(), free_port());
    let directory = tempfile::tempdir().expect("a directory");
    open_to_all(directory.path());
    let (near, far) = (directory.path().join("near"), directory.path().join("far"));

    let mut lab = Lab::new();
    lab.link("hf1", &["shore", "ship"], |_| {});
    let end = |peer, station| [End { link: "hf1", peer, station, key: KEY }];
    let onward = format!("smtp:127.0.0.1:{far_port}");
    let ship = lab.profile("ship", &[("ship.example", "local"), ("*", "peer:shore")], &end("shore", 1), "");
    let routes = [("shore.example", "local"), ("office.example", &*onward), ("ship.example", "peer:ship")];
    let shore = lab.profile("shore", &routes, &end("ship", 0), "");
    lab.start("ship", &ship);
    lab.start("shore", &shore);
    let _far = PeerServer::start("postfix.sh", &far, &[], &[&far_port.to_string(), "deliver", "office.example"]);
    let ship_port = lab.address("ship").port().to_string();
    let _near = PeerServer::start("postfix.sh", &near, &[], &[&near_port.to_string(), "relay", &ship_port]);

    let (script, file) = (root().join("tests/peers/submit.py").display().to_string(), odd_file(&lab));
    let target = format!("127.0.0.1:{near_port}");
    let words = [&*script, &target, "ops@ship.example", "clerk@office.example", &file, "BODY=8BITMIME"];
    let output = run(60, "python3", &words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let new = far.join("mail/box/new");
    let mail = wait_for("mail at the far Postfix", Duration::from_secs(90), || files(&new).pop());
    assert_unharmed(ODD.as_bytes(), &mail, true);
    lab.settle();
    assert_eq!(files(&new).len(), 1, "one copy");
}

/// Asserts a report of RFC 3464 and gives it as text.
fn report(mail: &[u8], action: &str, status: &str, recipient: &str) -> String {
    let text = String::from_utf8_lossy(mail).into_owned();
    let head = String::from_utf8_lossy(split(mail).0).into_owned();
    assert!(head.contains("Return-Path: <>"), "{text}");
    assert!(head.to_lowercase().contains("multipart/report") && head.contains("delivery-status"), "{text}");
    assert!(text.contains(&format!("Action: {action}")), "{text}");
    assert!(text.contains(&format!("Status: {status}")), "{text}");
    assert!(
        text.contains(&format!("Final-Recipient: rfc822;{recipient}"))
            || text.contains(&format!("Final-Recipient: rfc822; {recipient}")),
        "{text}"
    );
    text
}

#[test]
fn success_asked_for_gives_one_report_from_the_far_side() {
    let lab = Lab::pair();
    let options = " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Watch.Officer@shore.example";
    let from = "<ops@ship.example> RET=HDRS ENVID=QQ314159";
    send(lab.address("ship"), from, &[("watch@shore.example", options)], &message("dsn.1", "Body of dsn.1."));
    lab.arrival("shore", "watch", "dsn.1@ship.example");
    let mail = lab.arrival("ship", "ops", "delivery-status");
    let text = report(&mail, "delivered", "2.", "watch@shore.example");
    assert!(text.contains("Original-Envelope-Id: QQ314159"), "{text}");
    assert!(
        text.to_lowercase().contains("original-recipient: rfc822;watch.officer@shore.example")
            || text.to_lowercase().contains("original-recipient: rfc822; watch.officer@shore.example"),
        "{text}"
    );
    // It crossed the air as a receipt; ship's node wrote it.
    assert!(text.contains("Reporting-MTA: x-aldis; shore\r\nDSN-Gateway: dns; mail.ship.example\r\n"), "{text}");
    assert!(text.contains("dsn.1@ship.example") && !text.contains("Body of dsn.1."), "RET=HDRS: {text}");
    lab.settle();
    assert_eq!(lab.mailbox("ship", "ops").len(), 1, "one report");
    assert_eq!(lab.mailbox("shore", "watch").len(), 1, "one copy");
}

#[test]
fn nothing_asked_for_gives_no_report_of_success() {
    let lab = Lab::pair();
    for (id, options) in [("plain.1", ""), ("never.1", " NOTIFY=NEVER")] {
        send(lab.address("ship"), "<ops@ship.example>", &[("watch@shore.example", options)], &message(id, "Text."));
        lab.arrival("shore", "watch", id);
    }
    lab.settle();
    assert!(lab.mailbox("ship", "ops").is_empty());
}

#[test]
fn an_unknown_user_at_the_far_end_gives_one_report_of_failure() {
    let mut lab = Lab::new();
    lab.link("hf1", &["shore", "ship"], |_| {});
    let ship = lab.pair_profile("ship", KEY, "");
    let shore = lab.pair_profile("shore", KEY, "[local]\nusers = [\"watch\", \"postmaster\"]\n");
    lab.start("ship", &ship);
    lab.start("shore", &shore);
    let to = [("nobody@shore.example", ""), ("watch@shore.example", ""), ("noone@shore.example", " NOTIFY=NEVER")];
    send(lab.address("ship"), "<ops@ship.example>", &to, &message("bad.1", "Text of bad.1."));
    lab.arrival("shore", "watch", "bad.1@ship.example");
    let mail = lab.arrival("ship", "ops", "delivery-status");
    let text = report(&mail, "failed", "5.1.1", "nobody@shore.example");
    assert!(!text.contains("Final-Recipient: rfc822;watch") && !text.contains("noone@"), "{text}");
    lab.settle();
    assert_eq!(lab.mailbox("ship", "ops").len(), 1, "one report");
    assert_eq!(lab.mailbox("shore", "watch").len(), 1, "one copy");
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn lmtp_delivers_each_recipient_by_itself() {
    if !have(&["python3"]) {
        return;
    }
    let mut lab = Lab::new();
    let (socket, directory) = (lab.path("lmtp"), lab.path("taken"));
    std::fs::create_dir(&directory).expect("a directory");
    let server = Command::new("python3")
        .arg(root().join("tests/peers/lmtp_server.py"))
        .args([&socket, &directory])
        .stdin(Stdio::null())
        .spawn()
        .expect("python3");
    let _server = Server(server);
    wait_for("the LMTP server", Duration::from_secs(10), || socket.exists().then_some(()));

    lab.link("hf1", &["shore", "ship"], |_| {});
    let onward = format!("lmtp:{}", socket.display());
    let end = [End { link: "hf1", peer: "ship", station: 0, key: KEY }];
    let routes = [("shore.example", &*onward), ("mail.shore.example", "local"), ("ship.example", "peer:ship")];
    let shore = lab.profile("shore", &routes, &end, "").replace("postmaster@shore", "postmaster@mail.shore");
    let ship = lab.pair_profile("ship", KEY, "");
    lab.start("ship", &ship);
    lab.start("shore", &shore);

    let to = ["watch", "full", "nobody", "cook"].map(|user| format!("{user}@shore.example"));
    let to: Vec<(&str, &str)> = to.iter().map(|to| (&**to, "")).collect();
    send(lab.address("ship"), "<ops@ship.example> BODY=8BITMIME", &to, ODD.as_bytes());
    let taken = wait_for("mail by LMTP", Duration::from_secs(90), || {
        let taken = files(&directory);
        (!taken.is_empty()).then_some(taken)
    });
    let at = taken[0].windows(2).position(|w| w == b"\n\n").expect("an envelope");
    let envelope = String::from_utf8_lossy(&taken[0][..at]).into_owned();
    assert!(envelope.contains("<watch@shore.example>") && envelope.contains("<cook@shore.example>"), "{envelope}");
    assert!(!envelope.contains("nobody") && !envelope.contains("full"), "{envelope}");
    assert_unharmed(ODD.as_bytes(), &taken[0][at + 2..], false);
    lab.arrival("ship", "ops", "delivery-status");
    lab.settle();
    let reports = lab.mailbox("ship", "ops");
    let all: String = reports.iter().map(|mail| String::from_utf8_lossy(mail).into_owned()).collect();
    assert_eq!(all.matches("Action: failed").count(), 2, "{all}");
    assert!(all.contains("5.1.1") && all.contains("5.2.2"), "{all}");
    assert_eq!(files(&directory).len(), 1, "each recipient once");
}

/// A node without a radio that takes LMTP for the mailboxes of two users.
fn lmtp_node(lab: &mut Lab) -> SocketAddr {
    let more = "[local]\nusers = [\"watch\", \"cook\", \"postmaster\"]\n\n\
                [[listener]]\nname = \"lmtp\"\nkind = \"lmtp\"\naddress = \"127.0.0.1:0\"\n";
    let profile = lab.profile("inn", &[("inn.example", "local")], &[], more);
    lab.start("inn", &profile);
    lab.listener("inn", "lmtp")
}

/// Asserts that watch and cook have the odd message, once, as it was sent, and that it came by LMTP.
fn assert_lmtp_arrival(lab: &Lab, lf_only: bool) {
    for user in ["watch", "cook"] {
        let mail = lab.arrival("inn", user, "odd.1@ship.example");
        assert_unharmed(ODD.as_bytes(), &mail, lf_only);
        assert!(contains(split(&mail).0, "by mail.inn.example with LMTP id"), "{}", String::from_utf8_lossy(&mail));
    }
    lab.settle();
    assert_eq!((lab.mailbox("inn", "watch").len(), lab.mailbox("inn", "cook").len()), (1, 1));
}

#[test]
fn an_lmtp_listener_answers_smtplib_for_each_recipient_from_one_commit() {
    if !have(&["python3"]) {
        return;
    }
    let mut lab = Lab::new();
    let address = lmtp_node(&mut lab).to_string();
    let (script, file) = (root().join("tests/peers/lmtp_client.py").display().to_string(), odd_file(&lab));
    let words =
        [&*script, &address, "ops@ship.example", &file, "watch@inn.example", "nobody@inn.example", "cook@inn.example"];
    let output = run(60, "python3", &words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text, "mail 250\nrcpt watch@inn.example cook@inn.example\ndata 250 250\nnoop 250\n");
    assert_eq!(lab.count("inn", "message-accepted"), 1, "one message for both recipients");
    assert_lmtp_arrival(&lab, false);
}

#[test]
fn postfix_delivers_over_lmtp_and_hears_of_each_recipient() {
    if !have(&["postfix", "postconf", "python3"]) || !may_start("Postfix") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    run(10, "chmod", &["755", &directory.path().display().to_string()]);
    let mut lab = Lab::new();
    let (port, hop) = (free_port(), lmtp_node(&mut lab).port().to_string());
    let near = directory.path().join("near");
    let _postfix = PeerServer::start("postfix.sh", &near, &[], &[&port.to_string(), "lmtp", &hop]);
    let (script, file) = (root().join("tests/peers/submit.py").display().to_string(), odd_file(&lab));
    let target = format!("127.0.0.1:{port}");
    let to = "watch@inn.example,nobody@inn.example,cook@inn.example";
    let output = run(60, "python3", &[&*script, &target, "ops@ship.example", to, &file, "BODY=8BITMIME"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_lmtp_arrival(&lab, true);
    let log = || std::fs::read_to_string(near.join("log")).unwrap_or_default();
    let told = |to: &str, word: &str| {
        log().lines().any(|l| l.contains("postfix/lmtp") && l.contains(to) && l.contains(word)).then_some(())
    };
    for (to, word) in [("watch@", "status=sent (250"), ("cook@", "status=sent (250"), ("nobody@", "status=bounced")] {
        wait_for(to, Duration::from_secs(30), || told(to, word));
    }
}

#[test]
fn c4_mail_that_asks_for_protection_takes_only_a_protected_bearer() {
    if !have(&["python3"]) {
        return;
    }
    let tls = root().join("firmware-cfg/profiles/tls");
    let trust = "trust = [\"127.0.0.0/8\"]";
    let keys = format!(
        "tls = {{ certificate = \"{}\", key = \"{}\" }}\n{trust}",
        tls.join("torture.crt").display(),
        tls.join("torture.key").display()
    );
    for protected in [true, false] {
        let mut lab = Lab::new();
        lab.link("hf1", &["shore", "ship"], |_| {});
        let end = |peer, station| [End { link: "hf1", peer, station, key: KEY }];
        let routes = [("ship.example", "local"), ("lan.example", "smtp:127.0.0.1:9"), ("*", "peer:shore")];
        let marked = format!("emcon = \"open\"\nprotected = {protected}");
        let ship = lab.profile("ship", &routes, &end("shore", 1), "");
        let ship = ship.replace(trust, &keys).replace("emcon = \"open\"", &marked);
        let routes =
            [("shore.example", "local"), ("office.example", "smtp:127.0.0.1:9"), ("ship.example", "peer:ship")];
        let shore = lab.profile("shore", &routes, &end("ship", 0), "");
        lab.start("ship", &ship);
        lab.start("shore", &shore);

        let (script, file) = (root().join("tests/peers/submit.py").display().to_string(), odd_file(&lab));
        let address = lab.address("ship").to_string();
        let submit = |to: &str, option: &str| {
            let words = [&*script, &address, "ops@ship.example", to, &file, "BODY=8BITMIME", "RET=FULL", option];
            let output = run(60, "python3", &words);
            assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let to = "watch@shore.example,clerk@lan.example,clerk@office.example";
        let refused = submit(to, "REQUIRETLS");
        // Towards an SMTP server nothing is protected: no certificate is checked.
        assert!(refused.contains("clerk@lan.example 550 5.7.30"), "{refused}");
        assert_eq!(refused.matches(" 550 5.7.30 ").count(), if protected { 1 } else { 3 }, "{refused}");
        if protected {
            lab.arrival("shore", "watch", "odd.1@ship.example");
            // The far node keeps the promise too; its report comes back, and brings no content.
            let mail = lab.arrival("ship", "ops", "delivery-status");
            let text = report(&mail, "failed", "5.7.30", "clerk@office.example");
            assert!(text.contains("odd.1@ship.example") && !text.contains("trailing blanks"), "{text}");
        } else {
            assert_eq!(submit("watch@shore.example", "SMTPUTF8"), "");
            lab.arrival("shore", "watch", "odd.1@ship.example");
        }
        lab.settle();
        assert_eq!(lab.mailbox("shore", "watch").len(), 1);
    }
}

/// Three nodes, each joined to both others.
fn triangle(routes: [&[(&str, &str)]; 3]) -> Lab {
    let mut lab = Lab::new();
    lab.link("ab", &["a", "b"], |_| {});
    lab.link("bc", &["b", "c"], |_| {});
    lab.link("ca", &["c", "a"], |_| {});
    let end = |link, peer, station| End { link, peer, station, key: KEY };
    let ends = [
        ("a", [end("ab", "b", 0), end("ca", "c", 1)]),
        ("b", [end("ab", "a", 1), end("bc", "c", 0)]),
        ("c", [end("bc", "b", 1), end("ca", "a", 0)]),
    ];
    for ((name, ends), routes) in ends.into_iter().zip(routes) {
        let own = format!("{name}.example");
        let routes: Vec<(&str, &str)> = std::iter::once((&*own, "local")).chain(routes.iter().copied()).collect();
        let profile = lab.profile(name, &routes, &ends, "");
        lab.start(name, &profile);
    }
    lab
}

#[test]
fn a_node_in_between_relays_from_one_link_to_the_next() {
    let lab = triangle([&[("*", "peer:b")], &[("c.example", "peer:c"), ("a.example", "peer:a")], &[("*", "peer:b")]]);
    let to = [("x@c.example", " NOTIFY=SUCCESS,FAILURE"), ("y@c.example", "")];
    send(lab.address("a"), "<ops@a.example> MT-PRIORITY=2", &to, ODD.as_bytes());
    for user in ["x", "y"] {
        let mail = lab.arrival("c", user, "odd.1@ship.example");
        assert_unharmed(ODD.as_bytes(), &mail, false);
    }
    let mail = lab.arrival("a", "ops", "delivery-status");
    let text = report(&mail, "delivered", "2.", "x@c.example");
    assert!(!text.contains("y@c.example"), "{text}");
    lab.settle();
    assert_eq!(lab.mailbox("a", "ops").len(), 1, "one report");
    assert_eq!((lab.mailbox("c", "x").len(), lab.mailbox("c", "y").len()), (1, 1), "one copy each");
    let relayed = (lab.count("b", "message-accepted"), lab.count("c", "message-accepted"));
    assert_eq!(relayed, (2, 1), "one copy per peer however many recipients, and one report back");
}

#[test]
fn mail_that_would_go_back_or_round_ends_as_a_loop() {
    let round = ("round.example", "peer:b");
    let lab = triangle([
        &[("back.example", "peer:b"), round, ("b.example", "peer:b"), ("c.example", "peer:c")],
        &[("back.example", "peer:a"), ("round.example", "peer:c"), ("a.example", "peer:a")],
        &[("round.example", "peer:a"), ("a.example", "peer:a")],
    ]);
    for user in ["back", "round"] {
        let to = format!("x@{user}.example");
        send(lab.address("a"), &format!("<{user}@a.example>"), &[(&to, "")], &message(user, "Round it goes."));
    }
    for user in ["back", "round"] {
        let mail = lab.arrival("a", user, "delivery-status");
        report(&mail, "failed", "5.4.6", &format!("x@{user}.example"));
    }
    lab.settle();
    for user in ["back", "round"] {
        assert_eq!(lab.mailbox("a", user).len(), 1, "one report");
    }
}
