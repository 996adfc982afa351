//! Where a message ends: the same octets to a node and to Postfix, line by line ends, dots and hidden commands drawn from seeds.
//!
//! Two servers that disagree on it let a sender smuggle one message inside another. So what a node takes must be what Postfix takes from
//! the same octets, or less, never more or other; and what the node hands on to Postfix must arrive as that many messages.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;
#[path = "common/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_sim::rng::Stream;
use lab::{Lab, files, split};
use process::{free_port, have, run, wait_for};
use server::{PeerServer, may_start, open_to_all};

const STREAMS: u64 = 400;
/// What a stream is put together from.
const PIECES: [&str; 16] = [
    "\r\n",
    "\n",
    "\r",
    ".",
    "..",
    "text",
    "\r\n.",
    "\r\n.\n",
    "\n.\r\n",
    "\n.\n",
    "\r.\r",
    "\r\n.\r",
    "\r\n..\r\n",
    " . ",
    "\r\n\r\n",
    "MAIL FROM:<other@near.example>\r\nRCPT TO:<smuggled@office.example>\r\nDATA\r\nSubject: hidden\r\n\r\nhidden",
];

/// One session's octets after 354, without the end.
fn drawn(seed: u64) -> String {
    let mut chance = Stream::new(seed, "boundaries", 0);
    let pieces = 1 + chance.below(9);
    let body: String = (0..pieces).map(|_| PIECES[chance.below(PIECES.len() as u64) as usize]).collect();
    format!("Subject: stream {seed}\r\n\r\n{body}")
}

/// Whether every CR is followed by LF and every LF follows a CR.
fn clean(text: &str) -> bool {
    !text.replace("\r\n", "").contains(['\r', '\n'])
}

/// Says the head of a transaction, then `stream` and QUIT, and how many messages were taken.
fn taken(address: SocketAddr, opening: &[&str], stream: &[u8]) -> usize {
    let mut socket = TcpStream::connect(address).expect("a server");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut heard = Vec::new();
    let mut reply = |socket: &mut TcpStream| {
        let from = heard.len();
        let mut octet = [0];
        loop {
            let line = heard[from..].split_inclusive(|b| *b == b'\n').next_back().unwrap_or_default();
            if line.ends_with(b"\n") && line.get(3) == Some(&b' ') {
                return String::from_utf8_lossy(&heard[from..]).into_owned();
            }
            if socket.read(&mut octet).expect("an answer") == 0 {
                return String::new();
            }
            heard.push(octet[0]);
        }
    };
    reply(&mut socket);
    for line in
        ["EHLO client.test", "MAIL FROM:<ops@near.example>", "RCPT TO:<clerk@office.example>"].iter().chain(opening)
    {
        socket.write_all(format!("{line}\r\n").as_bytes()).expect("a command");
        let answer = reply(&mut socket);
        assert!(answer.starts_with(['2', '3']), "{line}: {answer}");
    }
    // Whoever hangs up at once has taken nothing more.
    let _ = socket.write_all(stream).and_then(|()| socket.write_all(b"QUIT\r\n"));
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    String::from_utf8_lossy(&rest).lines().filter(|line| line.starts_with("250 ") && line.contains("queued")).count()
}

struct Postfix {
    directory: PathBuf,
    address: SocketAddr,
    _server: PeerServer,
}

impl Postfix {
    fn start(directory: &Path) -> Self {
        let port = free_port();
        let server = PeerServer::start("postfix.sh", directory, &[], &[&port.to_string(), "deliver", "office.example"]);
        let config = directory.join("etc").display().to_string();
        // It goes on after wrong commands, as a node does: what counts is which octets it takes for commands.
        let patient = ["smtpd_error_sleep_time=0", "smtpd_hard_error_limit=1000", "smtpd_forbidden_commands="];
        run(10, "postconf", &[&["-c", &*config][..], &patient].concat());
        run(10, "postfix", &["-c", &config, "reload"]);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { directory: directory.to_owned(), address, _server: server }
    }

    /// Bodies by what stream they are of; those of hidden messages stand apart.
    fn bodies(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for mail in files(&self.directory.join("mail/box/new")) {
            let (head, body) = split(&mail);
            let head = String::from_utf8_lossy(head).into_owned();
            let subject = head.lines().find(|line| line.starts_with("Subject: ")).unwrap_or("none").to_owned();
            found.entry(subject).or_default().push(body.to_vec());
        }
        found.values_mut().for_each(|bodies| bodies.sort());
        found
    }

    fn count(&self) -> usize {
        files(&self.directory.join("mail/box/new")).len()
    }
}

#[test]
fn a_message_ends_where_postfix_says_or_is_refused() {
    if !have(&["postfix", "postconf"]) || !may_start("Postfix") {
        return;
    }
    let mut lab = Lab::new();
    open_to_all(&lab.path(""));
    let (direct, behind) = (Postfix::start(&lab.path("direct")), Postfix::start(&lab.path("behind")));
    let onward = format!("smtp:{}", behind.address);
    let profile = lab.profile(
        "ship",
        &[("ship.example", "local"), ("near.example", "local"), ("office.example", &onward)],
        &[],
        "",
    );
    lab.start("ship", &profile);
    let ours = lab.address("ship");

    let (mut by_postfix, mut by_us, mut same, mut refused) = (0, 0, Vec::new(), 0);
    for seed in 0..STREAMS {
        let stream = drawn(seed);
        let ended = format!("{stream}\r\n.\r\n");
        let theirs = taken(direct.address, &["DATA"], ended.as_bytes());
        let our = taken(ours, &["DATA"], ended.as_bytes());
        if clean(&stream) {
            assert_eq!(our, theirs, "stream {seed}: {stream:?}");
            same.push(format!("Subject: stream {seed}"));
        } else {
            // A message with a bare CR or LF is refused whole; one beside it in the session may be sound.
            assert!(our <= theirs, "stream {seed}: {our} taken, {theirs} by Postfix: {stream:?}");
            refused += u64::from(our == 0);
        }
        (by_postfix, by_us) = (by_postfix + theirs, by_us + our);
    }
    assert!(same.len() > 40 && refused > 40, "both kinds were drawn: {} clean, {refused} refused", same.len());
    // By BDAT the length says where it ends, whatever is in it.
    let mut chunks = 0;
    for seed in STREAMS..2 * STREAMS {
        let stream = drawn(seed) + "\r\n.\r\n";
        let opening = format!("BDAT {} LAST\r\n", stream.len()) + &stream;
        let our = taken(ours, &[], opening.as_bytes());
        assert!(our <= 1, "stream {seed}: {our} messages of one chunk");
        chunks += our;
    }
    assert!(chunks > 20, "{chunks} chunks were taken");

    wait_for("all mail at Postfix", Duration::from_secs(60), || (direct.count() == by_postfix).then_some(()));
    wait_for("all mail behind the node", Duration::from_secs(60), || (behind.count() >= by_us + chunks).then_some(()));
    lab.settle();
    assert_eq!(behind.count(), by_us + chunks, "as many messages behind the node as it took");
    let (direct, behind) = (direct.bodies(), behind.bodies());
    for subject in same {
        assert_eq!(behind.get(&subject), direct.get(&subject), "{subject}");
    }
}
