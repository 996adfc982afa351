//! What the node says to a next hop: a scripted one, that shows how connections are used and left.

#[path = "common/process.rs"]
mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use process::{Running, message, root, send, wait_for};

/// What a hop saw, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    /// A connection.
    Opened,
    /// A message, by its Subject.
    Took(String),
    /// RSET.
    Reset,
    /// QUIT, and then nothing: the client waited for the 221.
    Left,
    /// The end of a connection without QUIT.
    Lost,
}

/// A hop that serves one connection after the other; `refuse` is asked about each recipient, `cut` after each message.
struct Hop {
    address: String,
    seen: Receiver<Seen>,
    open: Sender<()>,
}

/// Messages that wait when the hop opens, and connections the node makes for them.
const WAITING: usize = 8;
const CONNECTIONS: usize = 4;

fn hop(refuse: fn(&str) -> bool, cut: fn(usize) -> bool) -> Hop {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback socket");
    let address = listener.local_addr().expect("bound").to_string();
    let (tell, seen) = channel();
    let (open, opened) = channel();
    std::thread::spawn(move || {
        let _ = opened.recv();
        let mut messages = 0;
        for stream in listener.incoming().flatten() {
            let _ = tell.send(Seen::Opened);
            let end = serve(stream, &tell, refuse, cut, &mut messages).unwrap_or(Seen::Lost);
            if tell.send(end).is_err() {
                return;
            }
        }
    });
    Hop { address, seen, open }
}

fn serve(
    stream: TcpStream,
    tell: &Sender<Seen>,
    refuse: fn(&str) -> bool,
    cut: fn(usize) -> bool,
    messages: &mut usize,
) -> std::io::Result<Seen> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    out.write_all(b"220 hop ESMTP\r\n")?;
    let mut recipients = 0;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(Seen::Lost);
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => out.write_all(b"250-hop\r\n250-PIPELINING\r\n250 8BITMIME\r\n")?,
            "RCPT" if refuse(&line) => out.write_all(b"450 4.2.0 not now\r\n")?,
            "MAIL" => {
                recipients = 0;
                out.write_all(b"250 ok\r\n")?;
            }
            "RCPT" => {
                recipients += 1;
                out.write_all(b"250 ok\r\n")?;
            }
            "DATA" if recipients == 0 => out.write_all(b"554 5.5.1 no valid recipients\r\n")?,
            "RSET" => {
                let _ = tell.send(Seen::Reset);
                out.write_all(b"250 ok\r\n")?;
            }
            "DATA" => {
                out.write_all(b"354 go\r\n")?;
                let mut subject = String::new();
                loop {
                    let mut line = String::new();
                    if lines.read_line(&mut line)? == 0 {
                        return Ok(Seen::Lost);
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    subject = line.strip_prefix("Subject: ").map_or(subject, |s| s.trim_end().to_owned());
                }
                if !subject.is_empty() {
                    let _ = tell.send(Seen::Took(subject));
                }
                *messages += 1;
                out.write_all(b"250 2.0.0 kept\r\n")?;
                if cut(*messages) {
                    return Ok(Seen::Lost);
                }
            }
            "QUIT" => {
                // A client that does not wait has closed by now, or does so in a moment.
                lines.get_ref().set_read_timeout(Some(Duration::from_millis(300)))?;
                let early = lines.read(&mut [0]);
                out.write_all(b"221 bye\r\n")?;
                return Ok(if early.is_err() { Seen::Left } else { Seen::Lost });
            }
            _ => out.write_all(b"250 ok\r\n")?,
        }
    }
}

/// A node whose mail for src.test goes to the hop.
fn node(hop: &Hop, directory: &std::path::Path) -> Running {
    let set = ["listener.relay.address=127.0.0.1:0".to_owned(), format!("route.\"src.test\".to=smtp:{}", hop.address)];
    Running::start(&root().join("firmware-cfg/profiles/torture.toml"), directory, &set)
}

fn submit(node: &Running, subject: &str, to: &[&str]) {
    let to: Vec<(&str, &str)> = to.iter().map(|to| (*to, "")).collect();
    send(node.address(), "<ops@ship.example>", &to, &message(subject, "Text."));
}

/// Opens the hop once everything waits for it; what it sees until it has had every message and the last connection ended.
fn served(hop: &Hop, node: &Running, to: impl Fn(usize) -> &'static str, wanted: usize) -> Vec<Seen> {
    for n in 0..WAITING {
        submit(node, &format!("m{n}"), &[to(n)]);
    }
    hop.open.send(()).expect("the hop waits");
    let (mut all, mut took, mut open) = (Vec::new(), 0, 0);
    while took < wanted || open > 0 {
        let seen = hop.seen.recv_timeout(Duration::from_secs(30)).expect("the hop sees something");
        match &seen {
            Seen::Opened => open += 1,
            Seen::Left | Seen::Lost => open -= 1,
            Seen::Took(_) => took += 1,
            Seen::Reset => {}
        }
        all.push(seen);
    }
    all
}

fn count(seen: &[Seen], of: impl Fn(&Seen) -> bool) -> usize {
    seen.iter().filter(|s| of(s)).count()
}

/// Asserts that each of these messages was taken once.
fn assert_once(seen: &[Seen], messages: impl Iterator<Item = usize>) {
    for n in messages {
        assert_eq!(count(seen, |s| *s == Seen::Took(format!("m{n}"))), 1, "m{n}: {seen:?}");
    }
}

fn drained(node: &Running) {
    wait_for("an empty queue", Duration::from_secs(30), || {
        let (_, list) = process::ask(&node.socket, &["queue", "list"]);
        list["messages"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
}

#[test]
fn a_connection_takes_what_waits_and_is_left_with_a_quit_that_waits_for_its_answer() {
    let hop = hop(|_| false, |_| false);
    let directory = tempfile::tempdir().expect("a directory");
    let node = node(&hop, directory.path());
    let seen = served(&hop, &node, |_| "a@src.test", WAITING);
    assert_once(&seen, 0..WAITING);
    let (opened, left) = (count(&seen, |s| *s == Seen::Opened), count(&seen, |s| *s == Seen::Left));
    assert!(opened < WAITING && opened == left, "{seen:?}");
    drained(&node);
    node.stop();
}

#[test]
fn a_transaction_that_came_to_nothing_is_forgotten_before_the_next() {
    let hop = hop(|line| line.contains("later@"), |_| false);
    let directory = tempfile::tempdir().expect("a directory");
    let node = node(&hop, directory.path());
    let seen =
        served(&hop, &node, |n| if n < CONNECTIONS { "later@src.test" } else { "a@src.test" }, WAITING - CONNECTIONS);
    assert_once(&seen, CONNECTIONS..WAITING);
    assert!(seen.contains(&Seen::Reset), "{seen:?}");
    node.stop();
}

#[test]
fn a_connection_the_hop_has_closed_costs_the_next_message_nothing() {
    let hop = hop(|_| false, |messages| messages == 1);
    let directory = tempfile::tempdir().expect("a directory");
    let node = node(&hop, directory.path());
    let seen = served(&hop, &node, |_| "a@src.test", WAITING);
    assert_once(&seen, 0..WAITING);
    assert_eq!(count(&seen, |s| *s == Seen::Lost), 1, "{seen:?}");
    assert!(!node.log().contains("message-deferred"), "nobody was put off: {}", node.log());
    drained(&node);
    node.stop();
}

/// A profile that keeps so many messages in memory, with next hops for these domains.
fn with_little_memory(messages: usize, hops: &[(&str, String)]) -> String {
    let routes: String =
        hops.iter().map(|(domain, hop)| format!("[[route]]\nmatch = \"{domain}\"\nto = \"smtp:{hop}\"\n\n")).collect();
    format!(
        "[node]\nname = \"ship\"\npostmaster = \"postmaster@ship.example\"\nclock = \"trusted\"\n\n\
         [limits]\nactive_messages = {messages}\n\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\n\
         [[route]]\nmatch = \"ship.example\"\nto = \"local\"\n\n{routes}"
    )
}

#[test]
fn a_hop_that_takes_nothing_does_not_keep_mail_from_another() {
    // It lets nobody wait for a connection, and never greets.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a loopback socket");
    let live = hop(|_| false, |_| false);
    let directory = tempfile::tempdir().expect("a directory");
    let profile = directory.path().join("profile.toml");
    let routes =
        [("mute.example", mute.local_addr().expect("bound").to_string()), ("live.example", live.address.clone())];
    let text = with_little_memory(100, &routes);
    std::fs::write(&profile, text).expect("written");
    let node = Running::start(&profile, directory.path(), &[]);
    let mut client = process::Client::connect(node.address());
    client.say("EHLO client.example");
    for n in 0..300 {
        let reply = client.submit("<ops@ship.example>", &[("a@mute.example", "")], &message(&format!("mute{n}"), "x"));
        assert!(reply.starts_with("250"), "{reply}");
    }
    submit(&node, "behind", &["a@live.example"]);
    // What was taken last stands behind everything that a restart brings back into memory first.
    node.kill();
    let node = Running::start(&profile, directory.path(), &[]);
    live.open.send(()).expect("the hop waits");
    let took = |subject: &str| loop {
        match live.seen.recv_timeout(Duration::from_secs(60)).expect("the hop sees something") {
            Seen::Took(seen) if seen == subject => return,
            _ => {}
        }
    };
    took("behind");
    // And what comes now does not wait at all.
    submit(&node, "after", &["a@live.example"]);
    took("after");
    node.kill();
}

#[test]
fn what_found_no_room_in_memory_waited_for_the_next_look_at_the_store() {
    const MESSAGES: usize = 600;
    let live = hop(|_| false, |_| false);
    let directory = tempfile::tempdir().expect("a directory");
    let profile = directory.path().join("profile.toml");
    let text = with_little_memory(40, &[("live.example", live.address.clone())]);
    std::fs::write(&profile, text).expect("written");
    let node = Running::start(&profile, directory.path(), &[]);
    let mut client = process::Client::connect(node.address());
    client.say("EHLO client.example");
    for n in 0..MESSAGES {
        let reply = client.submit("<ops@ship.example>", &[("a@live.example", "")], &message(&format!("m{n}"), "x"));
        assert!(reply.starts_with("250"), "{reply}");
    }
    live.open.send(()).expect("the hop waits");
    let mut took = std::collections::BTreeSet::new();
    while took.len() < MESSAGES {
        // The store is looked at every ten seconds anyway: fourteen such waits it would have been.
        let seen = live.seen.recv_timeout(Duration::from_secs(9)).expect("the next comes when there is room");
        if let Seen::Took(subject) = seen {
            assert!(took.insert(subject), "twice");
        }
    }
    node.stop();
}
