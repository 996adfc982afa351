//! Two real nodes over simulated modems, killed again and again without warning while mail is handed to both.
//!
//! A ledger outside the nodes holds every message whose 250 was read. At the end each of them lies in the far Maildir exactly once,
//! byte for byte, and nothing lies there that was never submitted. A third of the kills is aimed inside a submission, between MAIL and
//! the answer to the final dot: what was cut before the dot must not arrive, what was cut after it may, once. `ALDIS_KILLS=200` runs
//! it long, `ALDIS_SEED` picks the dice.

#[path = "common/kill_client.rs"]
mod client;
#[path = "common/kill_process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aldis_sim::bridge::{self, Clock, PortPaths};
use aldis_sim::ether::{Ether, EtherConfig, LinkConfig, StationId};
use aldis_sim::modem::{ModemConfig, StationStats};
use aldis_sim::rng::Stream;
use aldis_sim::waveform::Waveform;
use client::{Client, Moment, Told};
use process::{Running, pause, start, tail};

/// The quickest waveform, so that real time is enough.
const RATE: u32 = 9600;
const INTERLEAVER: &str = "US";
const TURNAROUND: Duration = Duration::from_millis(100);
const NAMES: [&str; 2] = ["ship", "shore"];
/// Messages one side may have promised and not yet delivered: the link sets the pace.
const UNDELIVERED: usize = 6;

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

/// Two modems on one channel, served until dropped.
struct Air {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Ether>>,
}

impl Air {
    fn open(directory: &Path, seed: u64) -> Self {
        let waveform = *Waveform::find(RATE, INTERLEAVER).expect("in the table");
        let turnaround = aldis::time::Duration::from_millis(TURNAROUND.as_millis() as u64);
        let modem = ModemConfig {
            turnaround,
            key_delay: aldis::time::Duration::from_millis(20),
            detection_delay: aldis::time::Duration::from_millis(50),
            ..ModemConfig::new(waveform)
        };
        let ether = Ether::new(EtherConfig::net(seed, 2, &modem, LinkConfig::default()));
        let ports: Vec<PortPaths> = NAMES
            .iter()
            .map(|n| PortPaths {
                tty_link: directory.join(format!("{n}.tty")),
                socket: directory.join(format!("{n}.modem")),
            })
            .collect();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let links: Vec<PathBuf> = ports.iter().map(|p| p.tty_link.clone()).collect();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let stopped = async {
                let _ = stopped.await;
            };
            runtime.block_on(bridge::serve(ether, Clock::start(1.0), ports, stopped)).expect("the modems work")
        });
        while !links.iter().all(|l| l.exists()) {
            pause(Duration::from_millis(10));
        }
        Self { stop: Some(stop), thread: Some(thread) }
    }

    /// Ends the modems and tells what each was fed.
    fn close(mut self) -> [StationStats; 2] {
        drop(self.stop.take());
        let ether = self.thread.take().expect("served once").join().expect("the modems ended well");
        [ether.stats(StationId(0)), ether.stats(StationId(1))]
    }
}

fn profile(directory: &Path, name: &str, protection: &str) -> PathBuf {
    let (peer, station, other) = if name == "ship" { ("shore", 0, 1) } else { ("ship", 1, 0) };
    let at = |what: &str| directory.join(format!("{name}{what}")).display().to_string();
    let text = format!(
        r#"
[node]
name = "{name}"
hostname = "mail.{name}.example"
state_dir = "{state}"
socket = "{socket}"
clock = "trusted"

[local]
maildir = "{mail}"

[limits]
disk_floor = "1MiB"

[[listener]]
name = "relay"
kind = "relay"
address = "127.0.0.1:0"
trust = ["127.0.0.0/8"]

[[route]]
match = "{name}.example"
to = "local"

[[route]]
match = "*"
to = "peer:{peer}"

[[peer]]
name = "{peer}"
station = {other}
protection = "{protection}"
keys = [{{ id = 0, hex = "8f1d0c5e7a3b926448d7e1f0a5c39b7262e4d8107f95ab3c1e06d4b8f2735a99" }}]

[[bearer]]
name = "hf1"
device = "{tty}"
keying = {{ socket = "{modem}" }}
modem = "simulated"
rate = "{RATE}bps"
interleaver = "{INTERLEAVER}"
turnaround = "{turnaround}ms"
station = {station}
peers = ["{peer}"]
emcon = "open"
max_transmission = "8s"
max_transmission_routine = "8s"
"#,
        state = at(".state"),
        socket = at(".sock"),
        mail = at(".mail"),
        tty = at(".tty"),
        modem = at(".modem"),
        turnaround = TURNAROUND.as_millis(),
    );
    let path = directory.join(format!("{name}.toml"));
    std::fs::write(&path, text).expect("written");
    path
}

/// One node with what was handed to it.
struct Node {
    name: &'static str,
    profile: PathBuf,
    log: PathBuf,
    running: Option<Running>,
}

impl Node {
    fn new(directory: &Path, name: &'static str, protection: &str) -> Self {
        let (profile, log) = (profile(directory, name, protection), directory.join(format!("{name}.log")));
        Self { name, profile, log, running: None }
    }

    fn start(&mut self) -> SocketAddr {
        let refused = |status: ExitStatus| panic!("{} did not start again ({status}):\n{}", self.name, tail(&self.log));
        let running = start(&[], &self.profile, &self.log).unwrap_or_else(refused);
        let smtp = running.smtp;
        self.running = Some(running);
        smtp
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let before = running.child.try_wait().expect("our own child");
        assert!(before.is_none(), "{} ended by itself ({before:?}):\n{}", self.name, tail(&self.log));
        running.child.kill().expect("our own child");
        let _ = running.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// What the clients of one node hold on to, outside of it.
#[derive(Default)]
struct Ledger {
    /// Every message whose data was begun, by its token.
    offered: BTreeMap<String, Vec<u8>>,
    /// Those whose 250 was read.
    promised: BTreeSet<String>,
    /// Those whose final dot was sent and whose answer was never read.
    unknown: BTreeSet<String>,
    /// Submissions cut between MAIL and the final dot.
    cut: u64,
    refused: u64,
    bytes: u64,
}

/// The killer wants to strike inside the next submission.
struct Aim {
    at: Moment,
    /// Told when it is there.
    reached: mpsc::Sender<()>,
    /// Where the client waits for the blow; after the dot it goes on at once and may still read its answer.
    wait: Duration,
}

/// Hands mail to one node until told to stop.
struct Sender {
    ledger: Arc<Mutex<Ledger>>,
    address: Arc<Mutex<Option<SocketAddr>>>,
    aim: Arc<Mutex<Option<Aim>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sender {
    /// Waits until the client stands at `at` in a submission, whatever is undelivered.
    fn await_moment(&self, at: Moment) {
        let (reached, told) = mpsc::channel();
        let wait = Duration::from_millis(if at == Moment::Dot { 0 } else { 40 });
        *lock(&self.aim) = Some(Aim { at, reached, wait });
        told.recv_timeout(process::PATIENCE).expect("the client submits");
    }
}

fn sender(name: &'static str, far_mail: PathBuf, seed: u64, stop: Arc<AtomicBool>) -> Sender {
    let (ledger, address) = (Arc::new(Mutex::new(Ledger::default())), Arc::new(Mutex::new(None)));
    let aim = Arc::new(Mutex::new(None::<Aim>));
    let (book, place, wanted) = (ledger.clone(), address.clone(), aim.clone());
    let far = if name == "ship" { "shore" } else { "ship" };
    let thread = std::thread::spawn(move || {
        let mut dice = Stream::new(seed, name, 0);
        let mut serial = 0;
        let mut client: Option<Client> = None;
        while !stop.load(Ordering::Relaxed) {
            let waiting = lock(&book).promised.len().saturating_sub(files(&far_mail).len());
            let Some(to) = (*lock(&place)).filter(|_| waiting < UNDELIVERED || lock(&wanted).is_some()) else {
                client = None;
                pause(Duration::from_millis(50));
                continue;
            };
            let Some(open) = client.as_mut() else {
                client = Client::open(to).ok();
                pause(Duration::from_millis(if client.is_some() { 0 } else { 50 }));
                continue;
            };
            serial += 1;
            let token = format!("{name}-{serial:05}");
            let message = compose(&token, name, far, &mut dice);
            // Every level of service: -6 and below to 6 and above.
            let priority = 2 * dice.below(7) as i8 - 6;
            {
                let mut book = lock(&book);
                book.bytes += message.len() as u64;
                book.offered.insert(token.clone(), message.clone());
            }
            let (from, to) = (format!("oow@{name}.example"), format!("watch@{far}.example"));
            let mut began = false;
            let told = open.submit_telling(&from, &to, priority, &message, |moment| {
                began |= moment == Moment::Mail;
                let aim = lock(&wanted).take_if(|a| a.at == moment);
                if let Some(Aim { reached, wait, .. }) = aim {
                    let _ = reached.send(());
                    pause(wait);
                }
            });
            let mut book = lock(&book);
            match told {
                Told::Promised => {
                    book.promised.insert(token);
                }
                Told::Refused(_) | Told::NotSent => {
                    book.offered.remove(&token);
                    match told {
                        Told::NotSent if began => book.cut += 1,
                        _ => book.refused += 1,
                    }
                    client = None;
                }
                Told::Unknown => {
                    book.unknown.insert(token);
                    client = None;
                }
            }
            drop(book);
            // Sometimes many in a row, sometimes none for a while.
            pause(Duration::from_millis(if dice.chance(0.6) { dice.below(30) } else { dice.below(900) }));
        }
    });
    Sender { ledger, address, aim, thread: Some(thread) }
}

/// A message with its token, dots at line starts, eight-bit text, and a body that compresses well or not at all.
fn compose(token: &str, from: &str, to: &str, dice: &mut Stream) -> Vec<u8> {
    let mut text = format!(
        "From: Officer <oow@{from}.example>\r\nTo: Watch <watch@{to}.example>\r\nSubject: {token}\r\n\
         Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{token}@{from}.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         .\u{c5}land, {token}\r\n..two dots\r\n"
    );
    let bytes = match dice.below(10) {
        0..=5 => 200 + dice.below(1000),
        6..=8 => 1000 + dice.below(3000),
        _ => 4000 + dice.below(6000),
    };
    let hard = dice.chance(0.5);
    while (text.len() as u64) < bytes {
        if hard {
            let mut noise = [0; 48];
            dice.fill(&mut noise);
            text.push_str(&data_encoding::BASE64.encode(&noise));
            text.push_str("\r\n");
        } else {
            text.push_str(&format!("Tank {} holds {} pct.\r\n", dice.below(9), dice.below(100)));
        }
    }
    text.into_bytes()
}

/// Everything delivered under a Maildir root, complete files only.
fn files(root: &Path) -> Vec<PathBuf> {
    let Ok(boxes) = std::fs::read_dir(root) else { return Vec::new() };
    boxes
        .flatten()
        .filter_map(|mailbox| std::fs::read_dir(mailbox.path().join("new")).ok())
        .flat_map(|new| new.flatten().map(|file| file.path()))
        .collect()
}

/// The token of every message delivered under a Maildir root.
fn delivered(root: &Path) -> impl Iterator<Item = String> {
    files(root).into_iter().map(|file| token(&std::fs::read(&file).expect("readable")))
}

fn token(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    text.lines().find_map(|l| l.strip_prefix("Subject: ")).unwrap_or("no subject").trim_end().to_owned()
}

/// What lies in the far Maildir against the ledger: (promised and not there, everything that is wrong).
fn compare(book: &Ledger, root: &Path) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    let mut found: BTreeMap<&str, u32> = BTreeMap::new();
    for file in files(root) {
        let bytes = std::fs::read(&file).expect("readable");
        let token = token(&bytes);
        let Some((token, message)) = book.offered.get_key_value(&token) else {
            wrong.push(format!("{} holds {token:?}, which nobody submitted", file.display()));
            continue;
        };
        *found.entry(token).or_default() += 1;
        let trace = bytes.strip_suffix(message.as_slice()).map(String::from_utf8_lossy);
        let fields = ["Return-Path: ", "Delivered-To: ", "Received: ", "\t"];
        if !trace.is_some_and(|t| t.split_terminator("\r\n").all(|l| fields.iter().any(|f| l.starts_with(f)))) {
            wrong.push(format!("{token} differs from what was submitted: {}", file.display()));
        }
    }
    wrong.extend(found.iter().filter(|(_, n)| **n > 1).map(|(token, n)| format!("{token} lies there {n} times")));
    let missing = book.promised.iter().filter(|token| !found.contains_key(token.as_str())).count();
    (missing, wrong)
}

#[test]
fn killed_nodes_lose_nothing_and_deliver_nothing_twice() {
    let kills = number("ALDIS_KILLS", 12);
    let seed = number("ALDIS_SEED", 1);
    let protection = if seed.is_multiple_of(2) { "mac" } else { "aead" };
    let temporary = tempfile::Builder::new().prefix("kills-").tempdir().expect("a directory");
    let directory = temporary.path();
    let began = now();
    let air = Air::open(directory, seed);
    let mut nodes = NAMES.map(|name| Node::new(directory, name, protection));
    let mail = |name: &str| directory.join(format!("{name}.mail"));
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders =
        [sender("ship", mail("shore"), seed, stop.clone()), sender("shore", mail("ship"), seed, stop.clone())];
    for (node, sender) in nodes.iter_mut().zip(&senders) {
        *lock(&sender.address) = Some(node.start());
    }

    let mut dice = Stream::new(seed, "kills", 0);
    let (mut done, mut aimed) = (0, 0);
    while done < kills {
        // Soon after a start, or after a while of work.
        let calm = if dice.chance(0.3) { dice.below(400) } else { 400 + dice.below(4200) };
        pause(Duration::from_millis(calm));
        let victims: &[usize] = match dice.below(10) {
            0..=4 => &[0],
            5..=8 => &[1],
            _ => &[0, 1],
        };
        // Every third time from the first on, so that a short run has some.
        if done / 3 >= aimed {
            aimed += 1;
            let moment = [Moment::Dot, Moment::Mail, Moment::Dot, Moment::Content][dice.below(4) as usize];
            senders[victims[0]].await_moment(moment);
            // From the dot to its answer is one commit: a few milliseconds.
            pause(Duration::from_micros(dice.below(if moment == Moment::Dot { 5_000 } else { 30_000 })));
        }
        for v in victims {
            nodes[*v].kill();
            *lock(&senders[*v].address) = None;
            done += 1;
        }
        pause(Duration::from_millis(dice.below(1200)));
        for v in victims {
            *lock(&senders[*v].address) = Some(nodes[*v].start());
        }
    }
    stop.store(true, Ordering::Relaxed);
    for sender in &mut senders {
        sender.thread.take().expect("joined once").join().expect("the client went well");
    }
    let killed = began.elapsed();

    // Healed: everything promised must now arrive.
    let limit = now() + Duration::from_secs(120 + kills);
    loop {
        let missing: usize =
            senders.iter().zip(["shore", "ship"]).map(|(s, far)| compare(&lock(&s.ledger), &mail(far)).0).sum();
        if missing == 0 {
            break;
        }
        if now() > limit {
            let kept = temporary.keep();
            panic!("{missing} promised messages are not delivered; see {}", kept.display());
        }
        pause(Duration::from_millis(250));
    }
    // Whatever was accepted without its 250 being read may still be on its way; duplicates would come about now too.
    pause(Duration::from_secs(3));
    let all = began.elapsed();
    for node in &mut nodes {
        node.kill();
    }
    let stats = air.close();
    let mut wrong = Vec::new();
    let (mut inside, mut unanswered) = (0, 0);
    for ((sender, far), stats) in senders.iter().zip(["shore", "ship"]).zip(stats) {
        let book = lock(&sender.ledger);
        wrong.extend(compare(&book, &mail(far)).1);
        let arrived = delivered(&mail(far)).filter(|token| book.unknown.contains(token)).count();
        println!(
            "to {far}: {} promised; {} cut before the dot, {} after it ({arrived} of them arrived, once), {} refused; \
             {} bytes submitted, {} fed to the modem",
            book.promised.len(),
            book.cut,
            book.unknown.len(),
            book.refused,
            book.bytes,
            stats.fed
        );
        assert!(!book.promised.is_empty(), "no mail was handed over");
        unanswered += book.unknown.len() as u64;
        inside += book.cut + book.unknown.len() as u64;
    }
    println!(
        "{done} kills in {:.0} s, {protection}; {aimed} aimed inside a submission, {inside} hit one; everything delivered after {:.0} s",
        killed.as_secs_f64(),
        all.as_secs_f64()
    );
    assert!(inside > 0 || kills < 12, "no kill hit a submission");
    assert!(unanswered > 0 || kills < 60, "no kill fell between the final dot and its answer");
    assert_eq!(wrong, Vec::<String>::new(), "logs and mail: {}", temporary.keep().display());
}

/// Events of a node, one JSON document each, until it ends.
fn watch(directory: &Path, name: &str) -> impl Iterator<Item = serde_json::Value> + use<> {
    let mut stream = UnixStream::connect(directory.join(format!("{name}.sock"))).expect("the control socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream.write_all(b"{\"command\":\"watch\"}\n").expect("asked");
    BufReader::new(stream).lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
}

#[test]
fn what_was_reported_before_a_kill_is_not_sent_again() {
    for victim in [0, 1] {
        let temporary = tempfile::Builder::new().prefix("resume-").tempdir().expect("a directory");
        let directory = temporary.path();
        let air = Air::open(directory, 7);
        let mut nodes = NAMES.map(|name| Node::new(directory, name, "aead"));
        let ship = nodes[0].start();
        nodes[1].start();
        let mut dice = Stream::new(7, "resume", 0);
        let mut message = compose("resume", "ship", "shore", &mut dice);
        while message.len() < 40_000 {
            let mut noise = [0; 48];
            dice.fill(&mut noise);
            message.extend(data_encoding::BASE64.encode(&noise).as_bytes());
            message.extend(b"\r\n");
        }
        let mut events = watch(directory, "ship");
        let mut client = Client::open(ship).expect("ready");
        assert_eq!(client.submit("oow@ship.example", "watch@shore.example", -2, &message), Told::Promised);
        let mut payload = 0;
        let have = loop {
            let event = events.next().expect("progress comes");
            match event["event"].as_str() {
                Some("transfer-frozen") => payload = event["payload_bytes"].as_u64().expect("a number"),
                Some("transfer-progress") => {
                    let (have, need) = (event["have"].as_f64().unwrap_or(0.0), event["need"].as_f64().unwrap_or(1.0));
                    if have / need > 0.5 {
                        break have / need;
                    }
                }
                _ => {}
            }
        };
        assert!(have < 0.99, "killed too late to show anything: {have}");
        nodes[victim].kill();
        pause(Duration::from_millis(300));
        nodes[victim].start();
        let limit = now() + Duration::from_secs(90);
        while files(&directory.join("shore.mail")).is_empty() {
            assert!(now() < limit, "not delivered");
            pause(Duration::from_millis(100));
        }
        nodes.iter_mut().for_each(Node::kill);
        let [stats, _] = air.close();
        println!("{} killed at {have:.2}: payload {payload} bytes, {} fed", NAMES[victim], stats.fed);
        // Everything again would be at least half as much more; overhead and what was under way is far less.
        assert!(stats.fed * 100 < payload * 135, "{} bytes fed for a payload of {payload}", stats.fed);
    }
}
