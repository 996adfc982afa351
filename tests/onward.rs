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

/// A hop that serves one connection at a time; `refuse` is asked about each recipient, `cut` after each message.
struct Hop {
    address: String,
    seen: Receiver<Seen>,
}

fn hop(refuse: fn(&str) -> bool, cut: fn(usize) -> bool) -> Hop {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback socket");
    let address = listener.local_addr().expect("bound").to_string();
    let (tell, seen) = channel();
    std::thread::spawn(move || {
        let mut messages = 0;
        for stream in listener.incoming().flatten() {
            let _ = tell.send(Seen::Opened);
            let end = serve(stream, &tell, refuse, cut, &mut messages).unwrap_or(Seen::Lost);
            if tell.send(end).is_err() {
                return;
            }
        }
    });
    Hop { address, seen }
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

/// A node whose mail for src.test goes to the hop, over one connection at a time.
fn node(hop: &Hop, directory: &std::path::Path) -> Running {
    let set = [
        "listener.relay.address=127.0.0.1:0".to_owned(),
        format!("route.\"src.test\".to=smtp:{}", hop.address),
        "limits.deliveries=1".to_owned(),
    ];
    Running::start(&root().join("firmware-cfg/profiles/torture.toml"), directory, &set)
}

fn submit(node: &Running, subject: &str, to: &[&str]) {
    let to: Vec<(&str, &str)> = to.iter().map(|to| (*to, "")).collect();
    send(node.address(), "<ops@ship.example>", &to, &message(subject, "Text."));
}

/// What the hop sees up to the end of a connection.
fn until_the_end(hop: &Hop) -> Vec<Seen> {
    let mut all = Vec::new();
    while !matches!(all.last(), Some(Seen::Left | Seen::Lost)) {
        all.push(hop.seen.recv_timeout(Duration::from_secs(30)).expect("the hop sees something"));
    }
    all
}

fn took(subject: &str) -> Seen {
    Seen::Took(subject.into())
}

fn drained(node: &Running) {
    wait_for("an empty queue", Duration::from_secs(30), || {
        let (_, list) = process::ask(&node.socket, &["queue", "list"]);
        list["messages"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
}

#[test]
fn one_connection_takes_what_follows_and_is_left_with_a_quit_that_waits_for_its_answer() {
    let hop = hop(|_| false, |_| false);
    let directory = tempfile::tempdir().expect("a directory");
    let node = node(&hop, directory.path());
    // The second comes while the first connection is still open, or while it is in use.
    for subject in ["one", "two", "three"] {
        submit(&node, subject, &["a@src.test"]);
    }
    assert_eq!(until_the_end(&hop), [Seen::Opened, took("one"), took("two"), took("three"), Seen::Left]);
    drained(&node);
    node.stop();
}

#[test]
fn a_transaction_that_came_to_nothing_is_forgotten_before_the_next() {
    let hop = hop(|line| line.contains("later@"), |_| false);
    let directory = tempfile::tempdir().expect("a directory");
    let node = node(&hop, directory.path());
    submit(&node, "one", &["later@src.test"]);
    submit(&node, "two", &["a@src.test"]);
    assert_eq!(until_the_end(&hop), [Seen::Opened, Seen::Reset, took("two"), Seen::Left]);
    node.stop();
}

#[test]
fn a_connection_the_hop_has_closed_costs_the_next_message_nothing() {
    let hop = hop(|_| false, |messages| messages == 1);
    let directory = tempfile::tempdir().expect("a directory");
    let node = node(&hop, directory.path());
    submit(&node, "one", &["a@src.test"]);
    submit(&node, "two", &["a@src.test"]);
    assert_eq!(until_the_end(&hop), [Seen::Opened, took("one"), Seen::Lost]);
    assert_eq!(until_the_end(&hop), [Seen::Opened, took("two"), Seen::Left]);
    drained(&node);
    node.stop();
}
