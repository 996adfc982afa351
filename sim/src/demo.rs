//! The demonstration: two nodes, ship and shore, run the shipped node code over two simulated modems on pseudo-terminals.
//!
//! It submits a sample message by real SMTP, follows it through the nodes' control sockets, and says where to point a mail client.
//! One line per event, `TIME EVENT key=value ...`, flushed, so that it reads well on a terminal and through a pipe.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration as RealDuration;

use aldis::config;
use aldis::node::Node;
use aldis::node::clock::Clock as NodeClock;
use aldis::ops::Request;
use aldis::time::{Duration, Wall};
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::bridge::{self, Clock, PortPaths};
use crate::ether::{Ether, EtherConfig, LinkConfig};
use crate::modem::ModemConfig;
use crate::waveform::Waveform;

/// What `aldis-sim demo` was asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// How fast time runs.
    pub speed: f64,
    /// End when the sample is delivered.
    pub once: bool,
    /// Where profiles, stores and mailboxes go; `None` is a directory that is removed at the end.
    pub directory: Option<PathBuf>,
    /// Print each event as a JSON document instead of a line.
    pub json: bool,
    /// With `once`: how long the sample may take, in real time.
    pub limit: RealDuration,
}

const RATE: u32 = 2400;
const INTERLEAVER: &str = "L";
const TURNAROUND: &str = "2s";

/// Runs the demonstration. Exit code 1 when something failed or, with `once`, when the sample did not arrive in time.
pub fn run(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let code = match runtime.block_on(play(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => fail(&why),
    };
    runtime.shutdown_timeout(RealDuration::from_millis(300));
    code
}

fn fail(why: &str) -> ExitCode {
    eprintln!("aldis-sim: {why}");
    ExitCode::from(1)
}

async fn play(options: &Options) -> Result<bool, String> {
    // Sockets have short names: a directory given by hand may be too deep for them, a temporary one is not.
    let temporary = tempfile::Builder::new().prefix("aldis-demo-").tempdir().map_err(|e| e.to_string())?;
    let directory = options.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&directory).map_err(|e| format!("cannot make {}: {e}", directory.display()))?;
    let directory = directory.canonicalize().map_err(|e| e.to_string())?;
    let places = Places { directory, sockets: temporary.path().to_owned() };

    let waveform = Waveform::find(RATE, INTERLEAVER).ok_or("the demo's waveform is not in the table")?;
    let modem = ModemConfig::new(*waveform);
    let ether = Ether::new(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
    let ports = ["ship", "shore"].map(|name| places.port(name)).to_vec();
    let (stop_modems, modems_stopped) = oneshot::channel::<()>();
    let pace = Clock::start(options.speed);
    let modems = tokio::spawn(bridge::serve(ether, pace, ports.clone(), async {
        let _ = modems_stopped.await;
    }));
    for port in &ports {
        wait_for(&port.tty_link).await?;
    }

    let clock = NodeClock::scaled(options.speed, true);
    let ship = places.start("ship", clock.clone()).await?;
    let shore = places.start("shore", clock.clone()).await?;
    let mut stage = Stage { json: options.json, sample: None, sample_shore: None, sent: None };
    let relay = ship.listeners.first().map(|(_, a)| *a).ok_or("the ship has no listener")?;
    let back = shore.listeners.first().map(|(_, a)| *a).ok_or("the shore has no listener")?;
    stage.say(
        "ready",
        &[
            ("link", format!("{RATE}bps interleaver={INTERLEAVER} turnaround={TURNAROUND} speed={}x", options.speed)),
            ("ship_smtp", relay.to_string()),
            ("shore_smtp", back.to_string()),
            ("send_to", "anyone@shore.example".into()),
            ("mail_lands_in", places.maildir("shore").display().to_string()),
        ],
    );

    let (tell, mut told) = mpsc::unbounded_channel();
    for node in [&ship, &shore] {
        tokio::spawn(watch(node.name.clone(), node.socket.clone(), tell.clone()));
    }
    let message_id = submit(relay).await?;
    stage.say("submitted", &[("by", "smtp".into()), ("message_id", message_id.clone())]);
    stage.sample = Some(message_id);

    let deadline = tokio::time::Instant::now() + options.limit;
    let mut delivered = false;
    loop {
        tokio::select! {
            event = told.recv() => {
                let Some((node, event)) = event else { break };
                if stage.event(&node, &event, &places) {
                    delivered = true;
                    if options.once {
                        break;
                    }
                    stage.say("idle", &[
                        ("hint", "point a mail client at ship_smtp, or press Ctrl-C".into()),
                        ("example", format!("swaks --server {relay} --from you@ship.example --to anyone@shore.example")),
                    ]);
                }
            }
            () = tokio::time::sleep_until(deadline), if options.once => {
                eprintln!("aldis-sim: the sample was not delivered within {} s", options.limit.as_secs());
                break;
            }
            _ = tokio::signal::ctrl_c() => {
                delivered = delivered || !options.once;
                break;
            }
        }
    }
    ship.stop().await;
    shore.stop().await;
    let _ = stop_modems.send(());
    let _ = modems.await;
    Ok(delivered)
}

/// Where everything of the demo lies.
struct Places {
    directory: PathBuf,
    sockets: PathBuf,
}

impl Places {
    fn port(&self, name: &str) -> PortPaths {
        PortPaths {
            tty_link: self.sockets.join(format!("{name}.tty")),
            socket: self.sockets.join(format!("{name}.modem")),
        }
    }

    fn maildir(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("mail")
    }

    async fn start(&self, name: &str, clock: NodeClock) -> Result<Node, String> {
        let path = self.directory.join(format!("{name}.toml"));
        std::fs::write(&path, self.profile(name)).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let plan = config::check(&path, &[])
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        Node::start(plan, clock).await
    }

    fn profile(&self, name: &str) -> String {
        let (peer, station, other) = if name == "ship" { ("shore", 1, 0) } else { ("ship", 0, 1) };
        let port = self.port(name);
        let key = HEXLOWER.encode(digest(&SHA256, b"the demo's own key: both ends are on this machine").as_ref());
        format!(
            r#"# Written by aldis-sim demo.
[node]
name = "{name}"
hostname = "mail.{name}.example"
state_dir = "{state}"
socket = "{control}"
clock = "trusted"

[local]
maildir = "{maildir}"

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
protection = "aead"
keys = [{{ id = 0, hex = "{key}" }}]

[[bearer]]
name = "hf1"
device = "{tty}"
keying = {{ socket = "{modem}" }}
modem = "simulated"
rate = "{RATE}bps"
interleaver = "{INTERLEAVER}"
turnaround = "{TURNAROUND}"
station = {station}
peers = ["{peer}"]
emcon = "open"
"#,
            state = self.directory.join(name).join("state").display(),
            control = self.sockets.join(format!("{name}.sock")).display(),
            maildir = self.maildir(name).display(),
            tty = port.tty_link.display(),
            modem = port.socket.display(),
        )
    }

    /// The file of a delivered message: its name begins with the message's id at the far node.
    fn delivered_file(&self, name: &str, id: &str) -> Option<PathBuf> {
        let boxes = std::fs::read_dir(self.maildir(name)).ok()?;
        boxes
            .flatten()
            .filter_map(|mailbox| std::fs::read_dir(mailbox.path().join("new")).ok())
            .flat_map(|files| files.flatten())
            .find(|file| file.file_name().to_string_lossy().starts_with(&format!("{id}.")))
            .map(|file| file.path())
    }
}

/// What the audience sees.
struct Stage {
    json: bool,
    /// Message-ID of the sample.
    sample: Option<String>,
    /// Its id at the shore.
    sample_shore: Option<String>,
    /// Seconds and bytes on the air, as the ship confirmed them.
    sent: Option<(f64, u64)>,
}

impl Stage {
    fn say(&self, event: &str, fields: &[(&str, String)]) {
        let at = NodeTime::now();
        let line = if self.json {
            let mut document = serde_json::json!({ "schema": "aldis-sim.demo/1", "at": at, "event": event });
            if let Some(map) = document.as_object_mut() {
                map.extend(fields.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))));
            }
            document.to_string()
        } else {
            let shown = |(k, v): &(&str, String)| {
                if v.contains(' ') { format!(" {k}=\"{v}\"") } else { format!(" {k}={v}") }
            };
            format!("{at} {event}{}", fields.iter().map(shown).collect::<String>())
        };
        let mut out = io::stdout().lock();
        // An audience that left ends nothing.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Shows one event of a node; true when it completes the sample.
    fn event(&mut self, node: &str, event: &Value, places: &Places) -> bool {
        let text = |key: &str| match &event[key] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let is_ship = node == "ship";
        match text("event").as_str() {
            "message-accepted" if is_ship => {
                self.say(
                    "queued",
                    &[("id", text("message")), ("precedence", text("precedence")), ("bytes", text("size_bytes"))],
                );
            }
            "message-accepted" if self.sample.is_some() && event["message_id"].as_str() == self.sample.as_deref() => {
                self.sample_shore = Some(text("message"));
            }
            "transfer-frozen" => {
                self.say(
                    "encoded",
                    &[("node", node.into()), ("id", text("message")), ("payload_bytes", text("payload_bytes"))],
                );
            }
            "key-down" => self.say("keyed", &[("node", node.into()), ("precedence", text("precedence"))]),
            "key-up" => {
                self.say("unkeyed", &[("node", node.into()), ("air_s", text("air_s")), ("bytes", text("bytes"))]);
            }
            "transfer-progress" => {
                let (have, need) = (event["have"].as_u64().unwrap_or(0), event["need"].as_u64().unwrap_or(0).max(1));
                let percent = (100 * have.min(need)) / need;
                self.say(
                    "progress",
                    &[
                        ("id", text("message")),
                        ("far_side", format!("{percent}%")),
                        ("air_s", text("air_s")),
                        ("bytes", text("bytes_on_air")),
                    ],
                );
            }
            "transfer-confirmed" => {
                if is_ship {
                    self.sent = event["air_s"].as_f64().zip(event["bytes_on_air"].as_u64());
                }
                // What fits one transmission is confirmed by the first report: then this is its only progress.
                self.say(
                    "progress",
                    &[
                        ("id", text("message")),
                        ("far_side", "100%".into()),
                        ("air_s", text("air_s")),
                        ("bytes", text("bytes_on_air")),
                    ],
                );
                self.say(
                    "confirmed",
                    &[("id", text("message")), ("air_s", text("air_s")), ("bytes", text("bytes_on_air"))],
                );
                return is_ship && self.sample_landed(places);
            }
            "message-delivered" if event["bearer"].is_null() => {
                let id = text("message");
                let file = places.delivered_file(node, &id);
                if self.sample_shore.as_deref() == Some(&id) {
                    return self.sample_landed(places);
                }
                if let Some(file) = file {
                    self.delivered(&id, &text("recipient"), &file, None);
                }
            }
            "message-deferred" | "message-failed" | "bearer-alarm" | "store-failed" => {
                self.say(&text("event"), &[("node", node.into()), ("detail", event.to_string())]);
            }
            _ => {}
        }
        false
    }

    /// The sample is complete when it lies in the far Maildir and its cost is known.
    fn sample_landed(&mut self, places: &Places) -> bool {
        let (Some(id), Some(sent)) = (self.sample_shore.clone(), self.sent) else { return false };
        let Some(file) = places.delivered_file("shore", &id) else { return false };
        self.sample_shore = None;
        self.delivered(&id, "watch@shore.example", &file, Some(sent));
        true
    }

    fn delivered(&self, id: &str, to: &str, file: &Path, sent: Option<(f64, u64)>) {
        let sha256 = std::fs::read(file).map(|b| HEXLOWER.encode(digest(&SHA256, &b).as_ref())).unwrap_or_default();
        let (air_s, bytes) = sent.unwrap_or_default();
        self.say(
            "delivered",
            &[
                ("id", id.into()),
                ("to", to.into()),
                ("file", file.display().to_string()),
                ("sha256", sha256),
                ("air_s", format!("{air_s:.1}")),
                ("bytes", bytes.to_string()),
            ],
        );
    }
}

/// The machine's time of day, for the audience.
struct NodeTime;

impl NodeTime {
    fn now() -> String {
        #[expect(clippy::disallowed_methods, reason = "what an audience reads is the real time of day")]
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Wall::default().plus(Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(0))).rfc3339()
    }
}

async fn wait_for(path: &Path) -> Result<(), String> {
    for _ in 0..200 {
        if path.exists() {
            return Ok(());
        }
        tokio::time::sleep(RealDuration::from_millis(10)).await;
    }
    Err(format!("{} did not appear", path.display()))
}

/// Brings a node's events from its control socket.
async fn watch(node: String, socket: PathBuf, tell: mpsc::UnboundedSender<(String, Value)>) {
    let Ok(mut stream) = UnixStream::connect(&socket).await else { return };
    let Ok(mut request) = serde_json::to_vec(&Request::Watch) else { return };
    request.push(b'\n');
    if stream.write_all(&request).await.is_err() {
        return;
    }
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        if tell.send((node.clone(), event)).is_err() {
            return;
        }
    }
}

/// Submits the sample as any client would; gives its Message-ID.
async fn submit(relay: SocketAddr) -> Result<String, String> {
    let mut stream = TcpStream::connect(relay).await.map_err(|e| format!("cannot reach {relay}: {e}"))?;
    let message_id = "<demo.1@ship.example>".to_owned();
    let message = format!(
        "From: OOW <oow@ship.example>\r\nTo: Watch <watch@shore.example>\r\nSubject: POSITION AND FUEL\r\n\
         Date: {}\r\nMessage-ID: {message_id}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         Position 1200Z 57-42N 011-58E, course 285, speed 12.\r\nFuel 62 pct. Water 80 pct. One engine on reduced power\r\n\
         until parts arrive; expected alongside 251800Z.\r\nRequest berth with shore power and one fuel truck.\r\n",
        Wall::from_seconds(1_795_000_000).rfc5322()
    );
    let steps = [
        ("", "220"),
        ("EHLO demo.ship.example\r\n", "250"),
        ("MAIL FROM:<oow@ship.example> MT-PRIORITY=2\r\n", "250"),
        ("RCPT TO:<watch@shore.example>\r\n", "250"),
        ("DATA\r\n", "354"),
        (&format!("{message}.\r\n"), "250"),
        ("QUIT\r\n", "221"),
    ];
    for (line, expected) in steps {
        stream.write_all(line.as_bytes()).await.map_err(|e| e.to_string())?;
        let reply = reply(&mut stream).await?;
        if !reply.starts_with(expected) {
            return Err(format!("the ship answered {:?} with {reply:?}", line.lines().next().unwrap_or("(connect)")));
        }
    }
    Ok(message_id)
}

async fn reply(stream: &mut TcpStream) -> Result<String, String> {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        let n = stream.read(&mut byte).await.map_err(|e| e.to_string())?;
        if n == 0 {
            return Err("the ship hung up".into());
        }
        text.push(byte[0]);
        if byte[0] == b'\n' {
            let shown = String::from_utf8_lossy(&text).into_owned();
            let last = shown.trim_end().lines().next_back().unwrap_or_default().to_owned();
            if last.as_bytes().get(3) != Some(&b'-') {
                return Ok(last);
            }
        }
    }
}
