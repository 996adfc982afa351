//! What the tests of both modes need: nets of their own, mail in and out, orders.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis::bearer::pmul::NodeId;
use data_encoding::BASE64;

use crate::process::{Client, Running, ask, message, wait_for};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A net of its own for one test of one process: other runs on this machine have others.
#[derive(Clone, Copy)]
pub struct Net {
    pub test: u8,
}

impl Net {
    pub fn address(self, node: u8) -> Ipv4Addr {
        let id = std::process::id();
        Ipv4Addr::new(127, 1 + (id % 200) as u8, (id / 200 % 250) as u8, self.test * 10 + node)
    }

    pub fn group(self) -> Ipv4Addr {
        let [_, a, b, c] = self.address(0).octets();
        Ipv4Addr::new(239, a, b, c)
    }

    pub fn node(self, node: u8) -> NodeId {
        self.address(node).into()
    }
}

pub const NAMES: [&str; 5] = ["-", "a", "b", "c", "d"];

/// Files in the mailbox of `user`.
pub fn mailbox(directory: &Path, user: &str) -> Vec<String> {
    let folder = directory.join("state/maildir").join(user).join("new");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.iter().filter_map(|p| std::fs::read(p).ok()).map(|b| String::from_utf8_lossy(&b).into_owned()).collect()
}

pub fn received(what: &str, directory: &Path, user: &str) -> String {
    wait_for(what, PATIENCE, || mailbox(directory, user).pop())
}

/// The message as it was handed in: below the fields that the hops have put on top.
pub fn original(delivered: &str) -> &str {
    delivered.split_once("From: Ops").map(|(head, _)| &delivered[head.len()..]).expect("the message itself")
}

pub fn order(node: &Running, state: &str) -> f64 {
    let (exit, document) = ask(&node.socket, &["emcon", "set", "sat", state, "--reason", "test"]);
    assert_eq!(exit, 0, "{document}");
    document["bearers"][0]["carrier_off_s"].as_f64().expect("seconds")
}

pub fn tracked(node: &Running, id: &str) -> Vec<String> {
    let (_, document) = ask(&node.socket, &["track", id]);
    let events = document["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|e| e["event"].as_str().map(str::to_owned)).collect()
}

pub fn submit(node: &Running, from: &str, to: &[(&str, &str)], text: &[u8]) -> String {
    let mut client = Client::connect(node.address());
    assert!(client.say("EHLO client.test").starts_with("250"));
    let reply = client.submit(from, to, text);
    assert!(reply.starts_with("250"), "{reply}");
    reply.split_whitespace().last().expect("an id").to_owned()
}

/// Text that no compression shortens, of about so many octets.
pub fn noise(id: &str, octets: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut bytes = vec![0; octets * 3 / 4];
    for byte in &mut bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    let lines: Vec<String> = bytes.chunks(54).map(|line| BASE64.encode(line)).collect();
    message(id, &lines.join("\r\n"))
}

/// Lets real time pass.
pub fn pause(seconds: f64) {
    #[expect(clippy::disallowed_methods, reason = "a test of real processes waits in real time")]
    std::thread::sleep(Duration::from_secs_f64(seconds));
}
