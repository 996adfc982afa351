//! The shipped program against `aldis-sim bridge`: three processes, nothing shared but ports.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lab::{KEY, assert_unharmed, files};
use process::{Running, message, send, wait_for};
use serde_json::Value;

/// The bridge's program, built beside the product's by `cargo test --workspace`.
fn bridge_program() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_aldis")).with_file_name("aldis-sim");
    if path.is_file() {
        return Some(path);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} was not built", path.display());
    println!("skip: {} is not built; run cargo test --workspace", path.display());
    None
}

/// `aldis-sim bridge` as a process.
struct Bridge {
    child: Child,
    events: Receiver<Value>,
}

impl Bridge {
    fn start(program: &Path, directory: &Path, scenario: &str) -> Self {
        let file = directory.join("scenario.toml");
        std::fs::write(&file, scenario).expect("a scenario");
        let mut child = Command::new(program)
            .arg("bridge")
            .arg(&file)
            .arg("--json")
            .arg("--dir")
            .arg(directory.join("ports"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).expect("JSON"));
            }
        });
        Self { child, events }
    }

    /// The next event; nothing when the bridge has ended, or nothing happens for a minute.
    fn event(&self) -> Option<Value> {
        self.events.recv_timeout(Duration::from_secs(60)).ok()
    }

    /// Waits for an event at a station.
    fn wait_for(&self, event: &str, station: &str) {
        let found = std::iter::from_fn(|| self.event()).any(|e| e["event"] == event && e["station"] == station);
        assert!(found, "no {event} at {station}");
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SCENARIO: &str = r#"
name = "two ports"
duration = "1h"

[waveform]
rate = "2400bps"
interleaver = "S"

[modem]
turnaround = "500ms"

[[station]]
name = "ship"

[[station]]
name = "shore"
"#;

fn profile(name: &str, other: &str, number: usize, bearer: &str) -> String {
    format!(
        "[node]\nname = \"{name}\"\nhostname = \"mail.{name}.example\"\nstate_dir = \"state\"\nclock = \"trusted\"\n\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\n\
         [[route]]\nmatch = \"{name}.example\"\nto = \"local\"\n\n[[route]]\nmatch = \"*\"\nto = \"peer:{other}\"\n\n\
         [[peer]]\nname = \"{other}\"\nstation = {}\nprotection = \"aead\"\nkeys = [{{ id = 0, hex = \"{KEY}\" }}]\n\n{bearer}",
        1 - number
    )
}

#[test]
fn mail_crosses_between_two_shipped_nodes_that_were_told_what_the_bridge_prints() {
    let Some(program) = bridge_program() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let mut bridge = Bridge::start(&program, directory.path(), SCENARIO);
    let mut nodes = Vec::new();
    for (number, (name, other)) in [("ship", "shore"), ("shore", "ship")].into_iter().enumerate() {
        let port = bridge.event().expect("a port");
        assert_eq!((&port["event"], &port["station"]), (&Value::from("port"), &Value::from(name)));
        let place = directory.path().join(name);
        std::fs::create_dir(&place).expect("a directory");
        let file = place.join("profile.toml");
        std::fs::write(&file, profile(name, other, number, port["bearer"].as_str().expect("a stanza")))
            .expect("a profile");
        nodes.push((Running::start(&file, &place, &[]), place));
    }
    let sent = message("bridge.1", "Across the bridge.");
    send(nodes[0].0.address(), "<ops@ship.example>", &[("watch@shore.example", "")], &sent);
    let new = nodes[1].1.join("state/maildir/watch/new");
    let mail = wait_for("the mail", Duration::from_secs(60), || files(&new).pop());
    assert_unharmed(&sent, &mail, false);
    for (event, station) in
        [("antenna-on", "ship"), ("received", "shore"), ("antenna-on", "shore"), ("received", "ship")]
    {
        bridge.wait_for(event, station);
    }
    for (node, _) in nodes {
        node.stop();
    }
    let pid = bridge.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    let last = std::iter::from_fn(|| bridge.event()).last();
    assert_eq!(last.expect("events")["event"], "end");
    assert!(bridge.child.wait().expect("it ends").success());
    assert_eq!(files(&directory.path().join("ports")).len(), 0, "terminals and sockets are gone");
}
