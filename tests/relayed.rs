//! What of a message's envelope reaches the next hop, and what its sender is told where that hop lacks an extension: a node between a
//! client and scripted hops.

#[path = "common/hop.rs"]
mod hop;
#[path = "common/process.rs"]
mod process;

use std::path::Path;
use std::time::Duration;

use hop::{Hop, OFFERS_TLS, Script};
use process::{Client, Running, message, wait_for};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

const DSN: &str = "250-hop\r\n250 DSN\r\n";
const DSN_AND_TIME: &str = "250-hop\r\n250-DSN\r\n250 DELIVERBY\r\n";
const LATER: &str = "451 4.2.1 not now\r\n";

/// A node whose mail for `NAME.test` goes to the hop of that name.
struct Ship {
    directory: tempfile::TempDir,
    node: Running,
}

impl Ship {
    fn new(hops: &[(&str, &Hop)], more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut profile = format!(
            "[[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\n\
             [[route]]\nmatch = \"ship.example\"\nto = \"local\"\n\n[local]\nmaildir = \"{}\"\n\n",
            directory.path().join("mail").display()
        );
        for (name, hop) in hops {
            profile += &format!("[[route]]\nmatch = \"{name}.test\"\nto = \"smtp:{}\"\n\n", hop.address);
        }
        let node = if more.contains("[node]") { "" } else { "[node]\nname = \"ship\"\nhostname = \"ship.example\"\n" };
        let path = directory.path().join("ship.toml");
        std::fs::write(&path, format!("{node}{more}\n{profile}")).expect("written");
        let node = Running::start(&path, directory.path(), &["node.clock=trusted".to_owned()]);
        Self { directory, node }
    }

    /// Hands one message in; `from` with the parameters of MAIL, `to` with those of RCPT.
    fn submit(&self, from: &str, to: &str, notify: &str, id: &str) {
        self.hand_in(from, to, notify, &message(id, "Text."));
    }

    fn hand_in(&self, from: &str, to: &str, notify: &str, mail: &[u8]) {
        let mut client = Client::connect(self.node.address());
        assert!(client.say("EHLO client.test").starts_with("250"));
        let reply = client.submit(from, &[(to, notify)], mail);
        assert!(reply.starts_with("250"), "{reply}");
    }

    fn mailbox(&self, user: &str) -> Vec<String> {
        let new: &Path = &self.directory.path().join("mail").join(user).join("new");
        let files = std::fs::read_dir(new).into_iter().flatten().flatten();
        files.filter_map(|f| std::fs::read_to_string(f.path()).ok()).collect()
    }

    /// The report about a recipient.
    fn report(&self, to: &str) -> String {
        wait_for(to, PATIENCE, || self.mailbox("ops").into_iter().find(|m| m.contains(&format!("rfc822; {to}\r\n"))))
    }

    fn queue(&self) -> Vec<Value> {
        let (_, list) = process::ask(&self.node.socket, &["queue", "list"]);
        list["messages"].as_array().expect("a list").clone()
    }

    /// Waits until nothing is in the queue any more, no report either.
    fn drained(&self) {
        wait_for("an empty queue", PATIENCE, || self.queue().is_empty().then_some(()));
    }
}

#[test]
fn a_hop_without_dsn_is_reported_as_a_relay_to_who_asked_and_one_with_it_reports_itself() {
    let bare = Hop::new(Script::new());
    let dsn = Hop::new(Script { clear: DSN, ..Script::new() });
    let ship = Ship::new(&[("bare", &bare), ("dsn", &dsn)], "");
    ship.submit("<ops@ship.example> ENVID=q1", "asks@bare.test", " NOTIFY=SUCCESS", "asks");
    ship.submit("<ops@ship.example>", "quiet@bare.test", "", "quiet");
    ship.submit("<ops@ship.example>", "asks@dsn.test", " NOTIFY=SUCCESS ORCPT=rfc822;x+2By@dsn.test", "dsn");
    let report = ship.report("asks@bare.test");
    for want in [
        "Return-Path: <>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Original-Envelope-Id: q1\r\n",
        "Received-From-MTA: dns; [127.0.0.1]\r\n",
        "Action: relayed\r\nStatus: 2.",
        "Final-Log-Id: ",
        &format!("Remote-MTA: dns; {}\r\n", bare.address),
    ] {
        assert!(report.contains(want), "{want:?} not in {report}");
    }
    bare.wait("DATA", 2);
    let rcpt = dsn.wait("RCPT", 1);
    assert_eq!(rcpt, ["RCPT TO:<asks@dsn.test> NOTIFY=SUCCESS ORCPT=rfc822;x+2By@dsn.test"]);
    dsn.wait("DATA", 1);
    ship.drained();
    assert_eq!(ship.mailbox("ops").len(), 1, "{:?}", ship.mailbox("ops"));
    assert_eq!(bare.wait("RCPT", 2).iter().filter(|r| r.contains("NOTIFY")).count(), 0);
    ship.node.stop();
}

#[test]
fn a_deliver_by_time_goes_on_where_it_is_known_and_the_sender_hears_where_it_is_not() {
    let dsn = Hop::new(Script { clear: DSN, ..Script::new() });
    let timed = Hop::new(Script { clear: DSN_AND_TIME, ..Script::new() });
    let ship = Ship::new(&[("dsn", &dsn), ("timed", &timed)], "");
    ship.submit("<ops@ship.example> BY=600;N", "n@dsn.test", "", "n");
    ship.submit("<ops@ship.example> BY=600;N", "never@dsn.test", " NOTIFY=NEVER", "never");
    ship.submit("<ops@ship.example> BY=600;R", "r@dsn.test", "", "r");
    ship.submit("<ops@ship.example> BY=600;N", "n@timed.test", "", "timed.n");
    ship.submit("<ops@ship.example> BY=600;RT", "r@timed.test", "", "timed.r");
    let report = ship.report("n@dsn.test");
    assert!(report.contains("Action: relayed\r\nStatus: 2.") && report.contains("Deliver-By-Date: "), "{report}");
    let report = ship.report("r@dsn.test");
    assert!(report.contains("Action: failed\r\nStatus: 5.4.4\r\n"), "{report}");
    let report = ship.report("r@timed.test");
    assert!(report.contains("Action: relayed\r\n"), "T asks for one at every hop: {report}");
    dsn.wait("DATA", 2);
    timed.wait("DATA", 2);
    ship.drained();
    assert_eq!(ship.mailbox("ops").len(), 3, "{:?}", ship.mailbox("ops"));
    let mut rcpts = dsn.wait("RCPT", 2);
    rcpts.sort();
    assert_eq!(rcpts, ["RCPT TO:<n@dsn.test> NOTIFY=FAILURE,DELAY", "RCPT TO:<never@dsn.test> NOTIFY=NEVER"]);
    assert!(dsn.wait("MAIL", 2).iter().all(|mail| !mail.contains("BY=")), "{:?}", dsn.seen());
    for (mode, end) in [("n@timed", ";N"), ("r@timed", ";RT")] {
        let seen = timed.seen();
        let rcpt = seen.iter().position(|s| s.starts_with(&format!("RCPT TO:<{mode}"))).expect("said");
        let mail = seen[..rcpt].iter().rfind(|s| s.starts_with("MAIL")).expect("said before");
        let left = mail.split("BY=").nth(1).and_then(|by| by.strip_suffix(end)).and_then(|s| s.parse::<u32>().ok());
        assert!(left.is_some_and(|left| (1..=600).contains(&left)), "{mail}");
    }
    ship.node.stop();
}

#[test]
fn a_deliver_by_time_that_passes_here_ends_mode_r_and_is_told_in_mode_n() {
    let busy = Hop::new(Script { clear: DSN_AND_TIME, rcpt: LATER, ..Script::new() });
    let ship = Ship::new(&[("busy", &busy)], "");
    ship.submit("<ops@ship.example> BY=2;R", "r@busy.test", "", "r");
    ship.submit("<ops@ship.example> BY=2;N", "n@busy.test", "", "n");
    ship.submit("<ops@ship.example> BY=2;N", "quiet@busy.test", " NOTIFY=FAILURE", "quiet");
    let report = ship.report("r@busy.test");
    assert!(report.contains("Action: failed\r\nStatus: 5.4.7\r\n"), "{report}");
    let report = ship.report("n@busy.test");
    assert!(
        report.contains("Action: delayed\r\nStatus: 4.4.7\r\n") && report.contains("Will-Retry-Until: "),
        "{report}"
    );
    let waiting = wait_for("two that go on", PATIENCE, || Some(ship.queue()).filter(|queue| queue.len() == 2));
    let mut to: Vec<_> = waiting.iter().filter_map(|m| m["recipients"][0]["address"].as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, ["n@busy.test", "quiet@busy.test"]);
    assert_eq!(ship.mailbox("ops").len(), 2, "{:?}", ship.mailbox("ops"));
    ship.node.stop();
}

#[test]
fn a_flash_is_tried_again_before_a_routine_that_came_first() {
    let busy = Hop::new(Script { rcpt: LATER, ..Script::new() });
    let ship = Ship::new(&[("busy", &busy)], "[retry.flash]\nafter = [\"2s\"]\n");
    ship.submit("<ops@ship.example> MT-PRIORITY=-2", "routine@busy.test", "", "routine");
    let of = |to: &str| {
        let queue = ship.queue();
        let recipient = queue.iter().find(|m| m["recipients"][0]["address"] == to)?["recipients"][0].clone();
        let attempts = recipient["attempts"].as_u64().filter(|n| *n > 0)?;
        Some((attempts, recipient["next_at"].as_str()?.to_owned()))
    };
    let routine = wait_for("a try", PATIENCE, || of("routine@busy.test"));
    ship.submit("<ops@ship.example> MT-PRIORITY=4", "flash@busy.test", "", "flash");
    let flash = wait_for("a try", PATIENCE, || of("flash@busy.test"));
    assert!(flash.1 < routine.1, "{flash:?} {routine:?}");
    let again = wait_for("another try", PATIENCE, || of("flash@busy.test").filter(|(attempts, _)| *attempts >= 2));
    assert_eq!(of("routine@busy.test").as_ref(), Some(&routine));
    assert!(again.1 > flash.1, "{again:?} {flash:?}");
    assert_eq!(busy.count("RCPT TO:<routine@"), 1, "{:?}", busy.seen());
    ship.node.stop();
}

#[test]
fn who_may_ask_after_a_message_goes_on_with_the_time_that_is_left() {
    const CERTIFIER: &str = "VheLhqV/rCKJmplkGFwsyW59pYk";
    let tracks = Hop::new(Script { clear: "250-hop\r\n250-DSN\r\n250 MTRK\r\n", first_mail: LATER, ..Script::new() });
    let plain = Hop::new(Script { clear: DSN, ..Script::new() });
    let ship = Ship::new(&[("tracks", &tracks), ("plain", &plain)], "[retry.routine]\nafter = [\"2s\"]\n");
    let from = format!("<ops@ship.example> ENVID=q1@ship.example MTRK={CERTIFIER}:86400");
    ship.submit(&from, "a@tracks.test", "", "tracks");
    ship.submit(&from, "a@plain.test", "", "plain");
    let left: Vec<u32> = tracks
        .wait("MAIL", 2)
        .iter()
        .map(|mail| {
            let (_, value) = mail.split_once(" MTRK=").expect("the parameter");
            let (certifier, seconds) = value.split_once(':').expect("with a time");
            assert_eq!(certifier, CERTIFIER);
            seconds.parse().expect("seconds")
        })
        .collect();
    assert!(left[0] <= 86400 && left[1] < left[0] && left[1] > 80000, "{left:?}");
    assert_eq!(plain.wait("MAIL", 1), ["MAIL FROM:<ops@ship.example> ENVID=q1@ship.example"]);
    ship.node.stop();
}

#[test]
fn tls_that_is_offered_and_fails_costs_no_mail_where_nothing_was_asked_of_it() {
    let broken = Hop::new(Script { clear: OFFERS_TLS, ..Script::new() });
    let ship = Ship::new(&[("broken", &broken)], "");
    ship.submit("<ops@ship.example>", "a@broken.test", "", "broken");
    broken.wait("mail ", 1);
    let seen = broken.seen();
    let of: Vec<&str> =
        seen.iter().filter_map(|s| s.split(' ').next()).filter(|s| !["shut", "QUIT"].contains(s)).collect();
    assert_eq!(of, ["open", "EHLO", "STARTTLS", "open", "EHLO", "MAIL", "RCPT", "DATA", "mail"], "{seen:?}");
    ship.drained();
    assert!(!ship.node.log().contains("message-deferred"), "{}", ship.node.log());
    ship.node.stop();
}

#[test]
fn a_hop_that_says_nothing_is_waited_for_as_long_as_the_profile_says() {
    let mute = Hop::new(Script { greeting: "", ..Script::new() });
    let ship = Ship::new(&[("mute", &mute)], "[limits]\ncommand_timeout = \"1s\"\n");
    ship.submit("<ops@ship.example>", "a@mute.test", "", "mute");
    // It would close the connection itself after five seconds.
    let why = wait_for("a reason", PATIENCE, || {
        ship.queue().first()?["recipients"][0]["last_error"].as_str().map(str::to_owned)
    });
    assert!(why.contains("no reply in time"), "{why}");
    ship.node.stop();
}

#[test]
fn a_return_path_of_before_is_removed_and_the_trace_names_the_priority() {
    let hop = Hop::new(Script::new());
    let ship = Ship::new(&[("hop", &hop)], "");
    let mail = [b"Return-Path: <old@elsewhere.example>\r\n".to_vec(), message("trace", "Text.")].concat();
    ship.hand_in("<ops@ship.example> MT-PRIORITY=3", "a@hop.test", "", &mail);
    let mail = hop.wait("mail ", 1).remove(0);
    assert!(!mail.contains("Return-Path"), "{mail}");
    let (trace, rest) = mail.split_once("\r\nFrom: Ops").expect("the header as it came");
    assert!(trace.contains("Received: from client.test") && trace.contains(" PRIORITY 3"), "{mail}");
    assert!(trace.contains("MT-Priority: 3"), "this hop knows no parameter for it: {mail}");
    assert!(rest.ends_with("\r\n\r\nText.\r\n.\r\n"), "{mail}");
    ship.node.stop();
}

#[test]
fn who_delivers_to_a_mailbox_writes_for_whom_the_mail_was_first_meant_and_who_relays_does_not() {
    let (lmtp, smtp) = (Hop::new(Script::new()), Hop::new(Script::new()));
    let route = format!("[[route]]\nmatch = \"lmtp.test\"\nto = \"lmtp:{}\"\n", lmtp.address);
    let ship = Ship::new(&[("smtp", &smtp)], &route);
    let line = "Original-Recipient: rfc822; first+x@src.example\r\n";
    for to in ["watch@ship.example", "a@lmtp.test", "a@smtp.test"] {
        ship.submit("<ops@ship.example>", to, " ORCPT=rfc822;first+2Bx@src.example", to);
    }
    ship.submit("<ops@ship.example>", "clerk@ship.example", "", "plain");
    let mailed = |user: &str| wait_for(user, PATIENCE, || ship.mailbox(user).pop());
    assert!(mailed("watch").contains(&format!("\r\nDelivered-To: watch@ship.example\r\n{line}Received: ")));
    assert!(lmtp.wait("mail ", 1)[0].starts_with(&format!("mail {line}Received: ")), "{:?}", lmtp.seen());
    assert!(!mailed("clerk").contains("Original-Recipient"));
    assert!(!smtp.wait("mail ", 1)[0].contains("Original-Recipient"), "{:?}", smtp.seen());
    ship.node.stop();
}

#[test]
fn what_fails_of_mail_from_nobody_is_told_to_the_postmaster_and_that_is_the_end_of_it() {
    let picky = Hop::new(Script { rcpt: "550 5.1.1 nobody\r\n", ..Script::new() });
    let ship = Ship::new(&[("picky", &picky)], "");
    ship.submit("<>", "gone@picky.test", "", "a-report");
    ship.submit("<>", "never@picky.test", " NOTIFY=NEVER", "quiet");
    let told = wait_for("word to the postmaster", PATIENCE, || ship.mailbox("postmaster").pop());
    for want in [
        "Return-Path: <>\r\n",
        "Subject: NOT DELIVERED: a message without a sender",
        "Final-Recipient: rfc822; gone@picky.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Message-ID: <a-report@ship.example>\r\n",
    ] {
        assert!(told.contains(want), "{want:?} not in {told}");
    }
    picky.wait("RCPT", 2);
    ship.drained();
    assert_eq!((ship.mailbox("postmaster").len(), ship.mailbox("ops").len()), (1, 0));
    ship.node.stop();

    // A postmaster who cannot be told either is told once.
    let node = "[node]\nname = \"ship\"\nhostname = \"ship.example\"\npostmaster = \"postmaster@picky.test\"\n";
    let ship = Ship::new(&[("picky", &picky)], node);
    ship.submit("<>", "lost@picky.test", "", "another");
    picky.wait("RCPT TO:<postmaster@picky.test>", 1);
    ship.drained();
    assert_eq!(picky.count("RCPT TO:<postmaster@picky.test>"), 1);
    assert_eq!(picky.count("RCPT"), 4, "{:?}", picky.seen());
    ship.node.stop();
}
