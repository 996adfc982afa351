//! Where mail to an address goes, by the shipped program: aliases, plus addresses, the rest of a domain, lists, rewriting both ways, and
//! that `aldis route` says of each address what the node does.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use lab::{KEY, Lab};
use process::{Client, Running, aldis, ask, send, wait_for};
use serde_json::Value;

/// One transaction that the next hop saw: MAIL, RCPTs, content.
#[derive(Debug)]
struct Seen {
    from: String,
    to: Vec<String>,
    content: String,
}

/// A next hop that takes everything.
fn hop() -> (String, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback socket");
    let address = listener.local_addr().expect("bound").to_string();
    let (tell, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || serve(stream, &tell));
        }
    });
    (address, seen)
}

fn serve(stream: TcpStream, tell: &Sender<Seen>) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    out.write_all(b"220 hop ESMTP\r\n")?;
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => out.write_all(b"250-hop\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 DSN\r\n")?,
            "DATA" => {
                out.write_all(b"354 go\r\n")?;
                let mut content = String::new();
                loop {
                    let mut line = String::new();
                    if lines.read_line(&mut line)? == 0 {
                        return Ok(());
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    content += &line;
                }
                let _ = tell.send(Seen { from: std::mem::take(&mut from), to: std::mem::take(&mut to), content });
                out.write_all(b"250 2.0.0 kept\r\n")?;
            }
            "QUIT" => return out.write_all(b"221 bye\r\n"),
            verb => {
                match verb {
                    "MAIL" => from = line.trim_end().to_owned(),
                    "RCPT" => to.push(line.trim_end().to_owned()),
                    _ => {}
                }
                out.write_all(b"250 ok\r\n")?;
            }
        }
    }
}

struct House {
    directory: tempfile::TempDir,
    profile: PathBuf,
    node: Running,
    hop: Receiver<Seen>,
}

const ADDRESSES: &str = r#"
[local]
users = ["ops", "jack", "jane", "master", "postmaster", "kept"]

[[alias]]
address = "captain@ship.example"
to = ["jack@ship.example"]

[[alias]]
address = "crew@ship.example"
to = ["jack@ship.example", "jane@ship.example", "captain@ship.example"]

[[alias]]
address = "kept@ship.example"
to = ["jane@ship.example"]
keep = true

[[alias]]
address = "@ship.example"
to = ["master@ship.example"]

[[alias]]
address = "@old.example"
to = ["@ship.example"]

[[alias]]
address = "club@club.example"
to = ["jack@ship.example"]

[[alias]]
address = "weather@ship.example"
to = ["jane@ship.example", "met@out.example"]
owner = "ops@ship.example"

[[rewrite]]
name = "inside"
direction = "in"
match = "ship.test"
to = "ship.example"

[[rewrite]]
name = "outside"
direction = "out"
match = "ship.example"
to = "ship.test"

[[rewrite]]
name = "outside-jack"
direction = "out"
match = "jack@ship.example"
to = "j.smith@ship.test"
what = "headers"
"#;

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (onward, hop) = hop();
        let profile = directory.path().join("house.toml");
        let text = format!(
            "[node]\nname = \"house\"\nhostname = \"mail.ship.example\"\nclock = \"trusted\"\npostmaster = \"postmaster@ship.example\"\n\
             state_dir = \"state\"\nsocket = \"aldis.sock\"\n\n\
             [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\n\
             [[listener]]\nname = \"open\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\n\n\
             [[route]]\nmatch = \"ship.example\"\nto = \"local\"\n\n[[route]]\nmatch = \"out.example\"\nto = \"smtp:{onward}\"\n\n\
             [[route]]\nmatch = \"slow@out.example\"\nto = \"smtp:{onward}\"\nmax_precedence = \"deferred\"\n{ADDRESSES}"
        );
        std::fs::write(&profile, text).expect("written");
        let node = Running::start(&profile, directory.path(), &[]);
        Self { directory, profile, node, hop }
    }

    fn client(&self, listener: &str) -> Client {
        let address = self.node.listeners.iter().find(|(name, _)| name == listener).expect("a listener").1;
        let mut client = Client::connect(address);
        assert!(client.say("EHLO client.test").starts_with("250"));
        client
    }

    fn send(&self, from: &str, to: &[(&str, &str)], message: &[u8]) -> String {
        send(self.node.address(), from, to, message)
    }

    /// Mail in a mailbox that contains `mark`, once there is any.
    fn mail(&self, user: &str, mark: &str) -> String {
        wait_for(&format!("{mark} for {user}"), Duration::from_secs(20), || {
            self.all(user).into_iter().find(|m| m.contains(mark))
        })
    }

    fn all(&self, user: &str) -> Vec<String> {
        let folder = self.directory.path().join("state/maildir").join(user).join("new");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.filter_map(|f| std::fs::read(f.path()).ok()).map(|b| String::from_utf8_lossy(&b).into_owned()).collect()
    }

    /// A report to ops about a recipient.
    fn report(&self, id: &str, recipient: &str, action: &str) -> String {
        let wanted = |m: &String| {
            m.contains(&format!("<{id}@ship.example>"))
                && m.contains(&format!("Final-Recipient: rfc822; {recipient}\r\nAction: {action}\r\n"))
        };
        wait_for(&format!("{action} of {recipient}"), Duration::from_secs(20), || {
            self.all("ops").into_iter().find(wanted)
        })
    }

    fn settle(&self) {
        wait_for("an empty queue", Duration::from_secs(20), || {
            let (_, list) = ask(&self.node.socket, &["queue", "list"]);
            list["messages"].as_array()?.is_empty().then_some(())
        });
    }

    fn route(&self, words: &[&str]) -> (i32, Value) {
        let profile = self.profile.to_string_lossy();
        let words: Vec<&str> =
            ["route"].iter().chain(words).copied().chain(["--json", "--profile", &profile]).collect();
        let (code, out, err) = aldis(&words);
        (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{words:?}: {e}: {out} {err}")))
    }
}

fn message(id: &str) -> Vec<u8> {
    format!("From: Ops <ops@ship.example>\r\nTo: x@y.example\r\nSubject: {id}\r\nMessage-ID: <{id}@ship.example>\r\n\r\n{id}\r\n")
        .into_bytes()
}

const OPS: &str = "<ops@ship.example> ENVID=env-1";

#[test]
fn an_alias_for_one_passes_everything_on_and_one_for_several_says_so_once() {
    let house = House::new();
    house.send(OPS, &[("captain@ship.example", " NOTIFY=SUCCESS")], &message("one"));
    assert!(house.mail("jack", "Subject: one").contains("Delivered-To: jack@ship.example"));
    let told = house.report("one", "jack@ship.example", "delivered");
    assert!(
        told.contains("Original-Recipient: rfc822; captain@ship.example")
            && told.contains("Original-Envelope-Id: env-1")
    );

    house.send(OPS, &[("crew@ship.example", " NOTIFY=SUCCESS,FAILURE"), ("jane@ship.example", "")], &message("many"));
    house.mail("jack", "Subject: many");
    house.mail("jane", "Subject: many");
    house.report("many", "crew@ship.example", "expanded");
    house.settle();
    for user in ["jack", "jane"] {
        assert_eq!(house.all(user).iter().filter(|m| m.contains("Subject: many")).count(), 1, "{user}");
    }
    let told = house.all("ops");
    assert_eq!(
        told.iter().filter(|m| m.contains("<many@ship.example>") && m.contains("Action:")).count(),
        1,
        "{told:#?}"
    );
    house.node.stop();
}

#[test]
fn word_of_success_asked_for_by_an_alias_is_not_lost_to_the_same_mailbox_given_by_name() {
    let house = House::new();
    let (captain, jack) = (("captain@ship.example", " NOTIFY=SUCCESS"), ("jack@ship.example", " NOTIFY=FAILURE"));
    for (id, to) in [("first", [captain, jack]), ("last", [jack, captain])] {
        house.send(OPS, &to, &message(id));
        let told = house.report(id, "jack@ship.example", "delivered");
        assert!(told.contains("Original-Recipient: rfc822; captain@ship.example"), "{told}");
        house.settle();
        let copies = house.all("jack").iter().filter(|m| m.contains(&format!("Subject: {id}\r\n"))).count();
        assert_eq!(copies, 1, "{id}");
    }
    house.node.stop();
}

#[test]
fn details_the_rest_of_a_domain_and_other_domains_find_their_mailboxes() {
    let house = House::new();
    for (id, address, user, delivered_to) in [
        ("plus", "jack+fuel@ship.example", "jack", "jack+fuel@ship.example"),
        ("alias-plus", "captain+x@ship.example", "jack", "jack@ship.example"),
        ("rest", "nobody@ship.example", "master", "master@ship.example"),
        ("domain", "Jane@old.example", "jane", "Jane@ship.example"),
        ("domain-rest", "gone@old.example", "master", "master@ship.example"),
        ("kept", "kept@ship.example", "kept", "kept@ship.example"),
        ("inside", "jack@ship.test", "jack", "jack@ship.example"),
    ] {
        house.send("<ops@ship.example>", &[(address, "")], &message(id));
        let mail = house.mail(user, &format!("Subject: {id}\r\n"));
        assert!(mail.contains(&format!("Delivered-To: {delivered_to}\r\n")), "{mail}");
    }
    house.mail("jane", "Subject: kept\r\n");
    house.node.stop();
}

#[test]
fn a_list_sends_its_own_mail_and_knows_it_again() {
    let house = House::new();
    house.send("<jack@ship.example> ENVID=env-2", &[("weather@ship.example", " NOTIFY=SUCCESS")], &message("list"));
    let mail = house.mail("jane", "Subject: list");
    assert!(
        mail.contains("Return-Path: <ops@ship.example>") && mail.contains("Delivered-To: weather@ship.example\r\n"),
        "{mail}"
    );
    let seen = house.hop.recv_timeout(Duration::from_secs(20)).expect("the other member");
    assert!(seen.from.starts_with("MAIL FROM:<ops@ship.test>") && !seen.from.contains("env-2"), "{}", seen.from);
    assert!(
        seen.to[0].starts_with("RCPT TO:<met@out.example>") && !seen.to[0].contains("NOTIFY=SUCCESS"),
        "{:?}",
        seen.to
    );
    let told = house.mail("jack", "Final-Recipient: rfc822; weather@ship.example\r\nAction: delivered");
    assert!(told.contains("Original-Envelope-Id: env-2"));
    let again = [b"Delivered-To: Weather@ship.example\r\n".to_vec(), message("again")].concat();
    house.send("<jack@ship.example>", &[("weather@ship.example", "")], &again);
    let told = house.mail("ops", "has sent this message before");
    assert!(told.contains("Status: 5.4.6"), "{told}");
    house.node.stop();
}

#[test]
fn addresses_are_rewritten_on_the_way_out_and_in_and_signed_headers_are_left_alone() {
    let house = House::new();
    let head = "From: \"Jack <jack@ship.example>\" <Jack@ship.example>\r\nTo: Out (ops@ship.example)\r\n <a@out.example>,\r\n\
                \tCrew: jane@ship.example, x@old.example;\r\nSubject: jack@ship.example\r\nMessage-ID: <out@ship.example>\r\n";
    let mail = format!("{head}\r\nops@ship.example\r\n");
    house.send("<jack@ship.example>", &[("a@out.example", "")], mail.as_bytes());
    let seen = house.hop.recv_timeout(Duration::from_secs(20)).expect("relayed");
    assert!(seen.from.starts_with("MAIL FROM:<jack@ship.test>"), "{}", seen.from);
    let wanted = mail
        .replace("<Jack@ship.example>\r\n", "<j.smith@ship.test>\r\n")
        .replace("Crew: jane@ship.example", "Crew: jane@ship.test");
    assert!(seen.content.ends_with(&wanted), "{}", seen.content);

    let signed = format!("DKIM-Signature: v=1; b=x\r\n{mail}");
    let id = house.send("<jack@ship.example>", &[("a@out.example", "")], signed.as_bytes());
    let seen = house.hop.recv_timeout(Duration::from_secs(20)).expect("relayed");
    assert!(seen.content.ends_with(&signed), "{}", seen.content);
    let line = wait_for("a line of it", Duration::from_secs(10), || {
        let (_, track) = ask(&house.node.socket, &["track", &id]);
        let events = track["events"].as_array()?.clone();
        events.into_iter().find(|e| e["event"] == "rewritten")
    });
    assert!(line["detail"].as_str().is_some_and(|d| d.contains("signed")), "{line}");

    house.send(
        "<x@any.where>",
        &[("ops@ship.test", "")],
        b"From: jane@ship.test\r\nTo: <ops@ship.test>\r\nSubject: in\r\n\r\njane@ship.test\r\n",
    );
    let mail = house.mail("ops", "Subject: in\r\n");
    assert!(
        mail.contains("From: jane@ship.example\r\nTo: <ops@ship.example>\r\n") && mail.ends_with("jane@ship.test\r\n"),
        "{mail}"
    );
    house.node.stop();
}

#[test]
fn what_rcpt_is_answered_is_what_aldis_route_says() {
    let house = House::new();
    for address in [
        "jack@ship.example",
        "jack+x@ship.example",
        "crew@ship.example",
        "nobody@ship.example",
        "captain@ship.test",
        "any@old.example",
        "club@club.example",
        "other@club.example",
        "a@out.example",
        "x@un.known",
        "postmaster",
        "weather+x@ship.example",
    ] {
        let (exit, said) = house.route(&[address, "--listener", "relay"]);
        for (listener, key) in [("relay", "relay"), ("open", "stranger")] {
            let mut client = house.client(listener);
            assert!(client.say("MAIL FROM:<x@any.where>").starts_with("250"));
            let reply = client.say(&format!("RCPT TO:<{address}>"));
            let answer = &said["answers"][key];
            let wanted = format!("{} {}", answer["code"], answer["status"].as_str().expect("a code"));
            assert!(reply.starts_with(&wanted), "{address} at {listener}: {reply}, but {answer}");
        }
        assert_eq!(exit, i32::from(said["answers"]["relay"]["code"] != 250), "{address}");
    }
    let (_, said) = house.route(&["crew@ship.example", "--from", "ops@ship.test"]);
    assert_eq!(said["schema"], "aldis.route/1");
    assert_eq!(said["sender"], "ops@ship.example");
    let copies: Vec<&str> =
        said["copies"].as_array().expect("copies").iter().filter_map(|c| c["mailbox"].as_str()).collect();
    assert_eq!(copies, ["jack", "jane"]);
    let steps: Vec<&str> = said["steps"].as_array().expect("steps").iter().filter_map(|s| s["step"].as_str()).collect();
    assert_eq!(steps, ["rewrite", "alias", "route", "route", "alias", "again"]);
    let place = said["steps"][1]["place"].as_str().expect("a place");
    assert!(line_of(&house.profile, place).contains("[[alias]]"), "{place}");
    let (_, said) = house.route(&["slow@out.example"]);
    assert_eq!(
        (&said["copies"][0]["max_precedence"], &said["copies"][0]["handed_as"]),
        (&"deferred".into(), &"slow@out.example".into())
    );
    let (exit, refused) = house.route(&["x@y", "--listener", "nowhere"]);
    assert_eq!((exit, &refused["schema"]), (1, &"aldis.refusal/1".into()));
    house.node.stop();
}

#[test]
fn a_route_parts_levels_of_service_in_one_commit() {
    let house = House::new();
    house.send(
        "<ops@ship.example> MT-PRIORITY=4",
        &[("slow@out.example", ""), ("a@out.example", "")],
        &message("levels"),
    );
    let mut priorities = Vec::new();
    for _ in 0..2 {
        let seen = house.hop.recv_timeout(Duration::from_secs(20)).expect("relayed");
        assert_eq!(seen.to.len(), 1, "{:?}", seen.to);
        // A hop without the keyword gets the number in a field: the sender's, whatever the level here.
        priorities.push(seen.content.contains("MT-Priority: 4\r\n"));
    }
    assert_eq!(priorities, [true, true]);
    let (_, first) = ask(&house.node.socket, &["track", "<levels@ship.example>"]);
    assert_eq!(first["schema"], "aldis.track/1");
    house.node.stop();
}

#[test]
fn aliases_beyond_the_air_are_followed_there_and_reports_name_who_was_asked_for() {
    let mut lab = Lab::new();
    lab.link("hf1", &["shore", "ship"], |_| {});
    let ship = lab.pair_profile("ship", KEY, "");
    lab.start("ship", &ship);
    let aliases = "\n[[alias]]\naddress = \"crew@shore.example\"\nto = [\"jack@shore.example\", \"jane@shore.example\"]\n\n\
                   [[alias]]\naddress = \"captain@shore.example\"\nto = [\"master@shore.example\"]\n";
    let shore = lab.pair_profile("shore", KEY, aliases);
    lab.start("shore", &shore);
    let success = " NOTIFY=SUCCESS";
    let to = [("crew@shore.example", success), ("watch@shore.example", success), ("captain@shore.example", success)];
    send(lab.address("ship"), "<ops@ship.example>", &to, &message("over-air"));
    for user in ["jack", "jane", "watch", "master"] {
        lab.arrival("shore", user, "over-air@ship.example");
    }
    let text = |mail: Vec<u8>| String::from_utf8_lossy(&mail).into_owned();
    for (recipient, action, original) in [
        ("crew@shore.example", "expanded", None),
        ("watch@shore.example", "delivered", None),
        ("master@shore.example", "delivered", Some("Original-Recipient: rfc822; captain@shore.example\r\n")),
    ] {
        let line =
            format!("{}Final-Recipient: rfc822; {recipient}\r\nAction: {action}\r\n", original.unwrap_or_default());
        wait_for(&line, Duration::from_secs(60), || {
            lab.mailbox("ship", "ops").into_iter().map(text).find(|m| m.contains(&line))
        });
    }
    lab.settle();
    let reports = lab.mailbox("ship", "ops").into_iter().map(text);
    let lines: usize = reports.map(|m| m.matches("\r\nAction: ").count()).sum();
    assert_eq!(lines, 3, "no report twice");
}

fn line_of(profile: &Path, place: &str) -> String {
    let number: usize = place.rsplit(':').next().and_then(|n| n.parse().ok()).expect("a line");
    std::fs::read_to_string(profile).expect("readable").lines().nth(number - 1).unwrap_or_default().to_owned()
}
