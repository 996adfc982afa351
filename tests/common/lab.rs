//! Whole nodes in this process, at a multiple of real time, over simulated modems on pseudo-terminals.
//!
//! The nodes are the shipped driver around the shipped switch; only their clock is fast. A panic on any of their threads aborts
//! the test binary, so a test that ends has seen none.

#![allow(dead_code, reason = "every test binary takes its own part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aldis::config;
use aldis::node::Node;
use aldis::node::clock::Clock as NodeClock;
use aldis_sim::bridge::{self, Clock, Frequency, PortPaths};
use aldis_sim::ether::{Ether, EtherConfig, LinkConfig};
use aldis_sim::modem::ModemConfig;
use aldis_sim::waveform::Waveform;
use serde_json::Value;
use tokio::sync::oneshot;

use super::process::wait_for;

/// How fast these nodes live.
pub const SPEED: f64 = 50.0;
/// A key for a link of a test.
pub const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// Another one.
pub const OTHER_KEY: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// A node's end of one link.
pub struct End<'l> {
    /// The link's name; also the bearer's.
    pub link: &'l str,
    /// Who is at the other end.
    pub peer: &'l str,
    /// Own station number there; the other end has the other of 0 and 1.
    pub station: u8,
    /// The key both ends should have.
    pub key: &'l str,
}

/// Nodes, links, and the directory they live in.
pub struct Lab {
    nodes: BTreeMap<String, Node>,
    clock: NodeClock,
    speed: f64,
    modems: Vec<oneshot::Sender<()>>,
    told: Vec<(String, Arc<Mutex<Vec<Value>>>)>,
    runtime: Option<tokio::runtime::Runtime>,
    directory: tempfile::TempDir,
}

impl Lab {
    /// An empty laboratory.
    pub fn new() -> Self {
        Self::at_speed(SPEED)
    }

    /// An empty laboratory whose time runs `speed` times as fast as the machine's.
    pub fn at_speed(speed: f64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self {
            nodes: BTreeMap::new(),
            clock: NodeClock::scaled(speed, true),
            speed,
            modems: Vec::new(),
            told: Vec::new(),
            runtime: Some(runtime.expect("a runtime")),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Ship and shore, joined by `hf1`; mail for the other side's domain crosses it.
    pub fn pair() -> Self {
        let mut lab = Self::new();
        lab.link("hf1", &["shore", "ship"], |_| {});
        for name in ["ship", "shore"] {
            let profile = lab.pair_profile(name, KEY, "");
            lab.start(name, &profile);
        }
        lab
    }

    /// The profile of one end of the pair; `more` is added at its end.
    pub fn pair_profile(&self, name: &str, key: &str, more: &str) -> String {
        let (peer, station) = if name == "ship" { ("shore", 1) } else { ("ship", 0) };
        let far = format!("{peer}.example");
        let own = format!("{name}.example");
        let end = End { link: "hf1", peer, station, key };
        self.profile(name, &[(&own, "local"), (&far, &format!("peer:{peer}"))], &[end], more)
    }

    /// A place in the laboratory's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Joins `ends`, in the order of their station numbers, by a frequency.
    pub fn link(&mut self, link: &str, ends: &[&str], habits: impl FnOnce(&mut ModemConfig)) {
        let mut modem = ModemConfig::new(*Waveform::find(2400, "S").expect("a waveform of the table"));
        habits(&mut modem);
        let count = u16::try_from(ends.len()).expect("a few");
        self.link_over(link, ends, Ether::new(EtherConfig::net(1, count, &modem, LinkConfig::default())));
    }

    /// Joins `ends`, in the order of their station numbers, by this frequency.
    pub fn link_over(&mut self, link: &str, ends: &[&str], air: impl Frequency + Send + 'static) {
        let ports: Vec<PortPaths> = ends.iter().map(|end| self.port(link, end)).collect();
        let links: Vec<PathBuf> = ports.iter().map(|p| p.tty_link.clone()).collect();
        let (stop, stopped) = oneshot::channel::<()>();
        self.runtime().spawn(bridge::serve(air, Clock::start(self.speed), ports, async {
            let _ = stopped.await;
        }));
        self.modems.push(stop);
        wait_for("terminals", Duration::from_secs(10), || links.iter().all(|l| l.exists()).then_some(()));
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("until the end")
    }

    fn port(&self, link: &str, end: &str) -> PortPaths {
        PortPaths {
            tty_link: self.path(&format!("{link}-{end}.tty")),
            socket: self.path(&format!("{link}-{end}.modem")),
        }
    }

    /// A profile: routes, ends of links, and whatever else.
    pub fn profile(&self, name: &str, routes: &[(&str, &str)], ends: &[End<'_>], more: &str) -> String {
        let mut text = format!(
            "[node]\nname = \"{name}\"\nhostname = \"mail.{name}.example\"\nstate_dir = \"{}\"\nsocket = \"{}\"\n\
             clock = \"trusted\"\npostmaster = \"postmaster@{name}.example\"\n\n[[listener]]\nname = \"relay\"\nkind = \"relay\"\n\
             address = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\n",
            self.state(name).display(),
            self.socket(name).display(),
        );
        for (pattern, hop) in routes {
            text += &format!("[[route]]\nmatch = \"{pattern}\"\nto = \"{hop}\"\n\n");
        }
        for End { link, peer, station, key } in ends {
            let port = self.port(link, name);
            text += &format!(
                "[[peer]]\nname = \"{peer}\"\nstation = {}\nprotection = \"aead\"\nkeys = [{{ id = 0, hex = \"{key}\" }}]\n\n\
                 [[bearer]]\nname = \"{link}\"\ndevice = \"{}\"\nkeying = {{ socket = \"{}\" }}\nmodem = \"simulated\"\n\
                 rate = \"2400bps\"\ninterleaver = \"S\"\nturnaround = \"2s\"\nstation = {station}\npeers = [\"{peer}\"]\n\
                 emcon = \"open\"\n\n",
                1 - station,
                port.tty_link.display(),
                port.socket.display(),
            );
        }
        text + more
    }

    /// Starts a node; what it had in its state directory it has again.
    pub fn start(&mut self, name: &str, profile: &str) {
        let path = self.path(&format!("{name}.toml"));
        std::fs::write(&path, profile).expect("a profile");
        let plan = config::check(&path, &[]).unwrap_or_else(|problems| {
            panic!("{}\n{profile}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        });
        let node = self.runtime().block_on(Node::start(plan, self.clock.clone())).expect("the node starts");
        self.nodes.insert(name.to_owned(), node);
        let events = self.watch(name);
        self.told.push((name.to_owned(), events));
    }

    /// Stops a node as SIGTERM does.
    pub fn stop(&mut self, name: &str) {
        let node = self.nodes.remove(name).expect("a running node");
        self.runtime().block_on(node.stop());
    }

    /// Where a node takes mail.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.nodes[name].listeners.first().expect("a listener").1
    }

    /// Where a listener of a node takes mail.
    pub fn listener(&self, name: &str, listener: &str) -> SocketAddr {
        self.nodes[name].listeners.iter().find(|(l, _)| l == listener).expect("a listener of this name").1
    }

    /// A node's control socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.sock"))
    }

    /// A node's state directory.
    pub fn state(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}-state"))
    }

    /// Everything in one mailbox, in the order of the files' names.
    pub fn mailbox(&self, name: &str, user: &str) -> Vec<Vec<u8>> {
        files(&self.state(name).join("maildir").join(user).join("new"))
    }

    /// Waits for the mail in a mailbox that holds `mark`.
    pub fn arrival(&self, name: &str, user: &str, mark: &str) -> Vec<u8> {
        let what = format!("mail with {mark:?} for {user} at {name}");
        let found = || self.mailbox(name, user).into_iter().find(|mail| contains(mail, mark));
        wait_for(&what, Duration::from_secs(90), found)
    }

    /// Waits until no node has anything left to do.
    pub fn settle(&self) {
        for name in self.nodes.keys() {
            let idle = || {
                let status = self.request(name, r#"{"command":"status"}"#);
                let levels = status["document"]["queue"]["by_precedence"].as_object()?.clone();
                levels.values().all(|level| level["count"] == 0).then_some(())
            };
            wait_for(&format!("an empty queue at {name}"), Duration::from_secs(90), idle);
        }
    }

    /// One request on a node's control socket, as a program of an operator's makes it.
    pub fn request(&self, name: &str, request: &str) -> Value {
        let mut stream = UnixStream::connect(self.socket(name)).expect("the control socket answers");
        stream.write_all(format!("{request}\n").as_bytes()).expect("a request");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).expect("JSON")
    }

    /// How often a kind of event happened at a node since its start.
    pub fn count(&self, name: &str, event: &str) -> u64 {
        self.request(name, r#"{"command":"status"}"#)["document"]["events"][event].as_u64().unwrap_or(0)
    }

    /// Collects a node's events from now on.
    pub fn watch(&self, name: &str) -> Arc<Mutex<Vec<Value>>> {
        let mut stream = UnixStream::connect(self.socket(name)).expect("the control socket answers");
        stream.write_all(b"{\"command\":\"watch\"}\n").expect("a request");
        let events = Arc::new(Mutex::new(Vec::new()));
        let book = events.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if let (Ok(event), Ok(mut book)) = (serde_json::from_str(&line), book.lock()) {
                    book.push(event);
                }
            }
        });
        events
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, events) in &self.told {
                let events = events.lock().map(|e| e.clone()).unwrap_or_default();
                println!("{name}: {} events, the last:", events.len());
                events.iter().rev().take(60).rev().for_each(|event| println!("  {event}"));
            }
        }
        for (_, node) in std::mem::take(&mut self.nodes) {
            self.runtime().block_on(node.stop());
        }
        self.modems.clear();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(500));
        }
    }
}

/// The contents of every file of a directory.
pub fn files(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Whether `text` is in the bytes.
pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Head and body of a message, with the line ends as they are.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    for gap in [&b"\r\n\r\n"[..], b"\n\n"] {
        if let Some(at) = message.windows(gap.len()).position(|window| window == gap) {
            return (&message[..at], &message[at + gap.len()..]);
        }
    }
    (message, &[])
}

/// The fields of a head, unfolded lines kept together.
pub fn fields(head: &[u8]) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for line in String::from_utf8_lossy(head).lines() {
        match fields.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => *last += &format!("\n{line}"),
            _ => fields.push(line.to_owned()),
        }
    }
    fields
}

/// Asserts that `got` is `sent` with nothing but trace fields put on top.
pub fn assert_unharmed(sent: &[u8], got: &[u8], lf_only: bool) {
    let plain = |bytes: &[u8]| match lf_only {
        true => String::from_utf8_lossy(bytes).replace("\r\n", "\n").into_bytes(),
        false => bytes.to_vec(),
    };
    let (sent, got) = (plain(sent), plain(got));
    let (sent_head, sent_body) = split(&sent);
    let (got_head, got_body) = split(&got);
    assert!(sent_body == got_body, "the body changed:\n{}", String::from_utf8_lossy(&got));
    // RFC 6758: the priority of a tunnelled message travels as a field of this name.
    let trace = ["return-path", "delivered-to", "x-original-to", "original-recipient", "received", "mt-priority"];
    let name = |field: &str| field.split(':').next().unwrap_or_default().trim().to_lowercase();
    let mut kept = fields(got_head);
    let sent = fields(sent_head);
    let tail = kept.split_off(kept.len().saturating_sub(sent.len()));
    assert_eq!(tail, sent, "the fields changed");
    for field in kept {
        assert!(trace.contains(&&*name(&field)), "added: {field}");
    }
}
