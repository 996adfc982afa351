//! The shipped program as a child of a test, and the peers' programs it talks to.

#![allow(dead_code, reason = "every test binary takes its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a peer's program is installed. With `CI=true` a missing one fails the test; elsewhere it is a printed skip.
pub fn have(programs: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = path.split(':').chain(["/usr/sbin", "/sbin"]).map(PathBuf::from).collect();
    for program in programs {
        if directories.iter().any(|d| d.join(program).is_file()) {
            continue;
        }
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{program} is not installed");
        println!("skip: {program} is not installed");
        return false;
    }
    true
}

/// A port nobody listens on at this moment, for a peer that cannot be told to take any.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback socket");
    listener.local_addr().expect("bound").port()
}

/// Asks again and again until `probe` has an answer.
#[expect(clippy::disallowed_methods, reason = "a test of real processes waits in real time")]
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test of real processes waits in real time")]
fn now() -> Instant {
    Instant::now()
}

/// `aldis run` as a process.
pub struct Running {
    child: Option<Child>,
    stderr: PathBuf,
    /// Listener names and addresses, of the ready line.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The control socket, of the ready line.
    pub socket: PathBuf,
}

impl Running {
    /// Starts a profile in `directory`, which keeps state, socket and log; waits for the ready line.
    pub fn start(profile: &Path, directory: &Path, set: &[String]) -> Self {
        Self::start_by(&[], profile, directory, set)
    }

    /// The same by a program that runs the one behind its own words in its place.
    pub fn start_by(by: &[&str], profile: &Path, directory: &Path, set: &[String]) -> Self {
        let stderr = directory.join("stderr");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&stderr).expect("a log file");
        let words: Vec<&str> = by.iter().copied().chain([env!("CARGO_BIN_EXE_aldis")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("run").arg("--profile").arg(profile);
        let places = [("node.state_dir", "state"), ("node.socket", "aldis.sock")];
        for (key, name) in places {
            command.arg("--set").arg(format!("{key}={}", directory.join(name).display()));
        }
        for assignment in set {
            command.arg("--set").arg(assignment);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("the program starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("standard output");
        let told = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        assert!(ready.starts_with("ready node="), "no ready line but {ready:?}; {}", told(&stderr));
        let mut listeners = Vec::new();
        let mut socket = PathBuf::new();
        for (key, value) in ready.split_whitespace().filter_map(|word| word.split_once('=')) {
            match (key, value.parse()) {
                ("socket", _) => socket = value.into(),
                (name, Ok(address)) => listeners.push((name.to_owned(), address)),
                _ => {}
            }
        }
        Self { child: Some(child), stderr, listeners, socket }
    }

    /// The address of the first listener.
    pub fn address(&self) -> SocketAddr {
        self.listeners.first().expect("a listener").1
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// True while the process lives.
    pub fn alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it by SIGTERM, which must give status 0 within five seconds, without a panic on the way.
    pub fn stop(mut self) -> String {
        let mut child = self.child.take().expect("running");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let start = now();
        let status: ExitStatus = wait_for("an end after SIGTERM", Duration::from_secs(20), || child.try_wait().ok()?);
        assert!(start.elapsed() < Duration::from_secs(5), "SIGTERM took {:?}", start.elapsed());
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        assert!(!log.contains("panicked"), "{log}");
        log
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("it runs");
        let _ = child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                eprintln!("log of the node:\n{}", self.log());
            }
        }
    }
}

/// Runs `aldis` with these words; gives status and both outputs.
pub fn aldis(words: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_aldis")).args(words).stdin(Stdio::null()).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Asks the node at `socket` with `--json`; gives the exit status and the one document on standard output.
pub fn ask(socket: &Path, words: &[&str]) -> (i32, Value) {
    let socket = socket.to_string_lossy();
    let words: Vec<&str> = words.iter().copied().chain(["--json", "--socket", &socket]).collect();
    let (code, out, err) = aldis(&words);
    match serde_json::from_str(&out) {
        Ok(document) => (code, document),
        Err(e) => panic!("{words:?}: not one JSON document ({e}): {out:?} {err:?}"),
    }
}

/// Runs a peer's program to its end, within `limit` seconds.
pub fn run(limit: u64, program: &str, words: &[&str]) -> Output {
    Command::new("timeout")
        .arg(limit.to_string())
        .arg(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Runs a probe of `tests/peers`; its standard output, which is also shown when the test fails.
pub fn probe(limit: u64, script: &str, words: &[&str]) -> (bool, String) {
    let path = root().join("tests/peers").join(script);
    let words: Vec<&str> = std::iter::once(path.to_str().expect("UTF-8")).chain(words.iter().copied()).collect();
    let output = run(limit, "python3", &words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// A scripted SMTP client: bytes out, replies in.
pub struct Client {
    stream: BufReader<std::net::TcpStream>,
}

impl Client {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = std::net::TcpStream::connect(address).expect("the listener answers");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut client = Self { stream: BufReader::new(stream) };
        assert!(client.reply().starts_with("220"), "greeting");
        client
    }

    /// Sends a line and reads the reply.
    pub fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends bytes as they are; a peer that has hung up is no failure of the test.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// The last line of the next reply; empty at the end of the connection.
    pub fn reply(&mut self) -> String {
        self.reply_lines().pop().unwrap_or_default()
    }

    /// The next reply; nothing at the end of the connection.
    pub fn reply_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(n) if n > 0 => {}
                _ => return Vec::new(),
            }
            lines.push(line.trim_end().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return lines;
            }
        }
    }

    /// Everything until the other side hangs up.
    pub fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Hands over one message; the reply to its final dot, or the first refusal.
    pub fn submit(&mut self, from: &str, to: &[(&str, &str)], message: &[u8]) -> String {
        let reply = self.say(&format!("MAIL FROM:{from}"));
        if !reply.starts_with('2') {
            return reply;
        }
        for (recipient, options) in to {
            let reply = self.say(&format!("RCPT TO:<{recipient}>{options}"));
            if !reply.starts_with('2') {
                return reply;
            }
        }
        let reply = self.say("DATA");
        if !reply.starts_with('3') {
            return reply;
        }
        let mut dotted = Vec::new();
        for line in message.split_inclusive(|b| *b == b'\n') {
            if line.starts_with(b".") {
                dotted.push(b'.');
            }
            dotted.extend_from_slice(line);
        }
        dotted.extend_from_slice(b".\r\n");
        self.send(&dotted);
        self.reply()
    }
}

/// Hands one message to a listener; the queue id of its 250.
pub fn send(address: SocketAddr, from: &str, to: &[(&str, &str)], message: &[u8]) -> String {
    let mut client = Client::connect(address);
    assert!(client.say("EHLO client.test").starts_with("250"), "EHLO");
    let reply = client.submit(from, to, message);
    assert!(reply.starts_with("250"), "{reply}");
    client.say("QUIT");
    reply.split_whitespace().last().unwrap_or_default().to_owned()
}

/// A small message with a body of its own.
pub fn message(id: &str, text: &str) -> Vec<u8> {
    format!(
        "From: Ops <ops@ship.example>\r\nTo: Watch <watch@shore.example>\r\nSubject: {id}\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{id}@ship.example>\r\n\r\n{text}\r\n"
    )
    .into_bytes()
}
