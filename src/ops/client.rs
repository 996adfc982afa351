//! The asking side of the control socket, blocking: what the command line and scripts use.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Request, Response};
use crate::time::Duration;

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody listens on the socket.
    NoNode(io::Error),
    /// The node went away, or was too slow, before it had answered.
    Lost(io::Error),
    /// The answer is not one.
    Garbled(String),
}

impl std::fmt::Display for AskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoNode(e) => write!(f, "no node answers there: {e}"),
            Self::Lost(e) => write!(f, "the node did not answer: {e}"),
            Self::Garbled(why) => write!(f, "the node's answer makes no sense: {why}"),
        }
    }
}

impl std::error::Error for AskError {}

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer.
const MOST: u64 = 256 << 20;
/// Longest event.
const MOST_EVENT: u64 = 1 << 20;

/// Hands every event of a node to `each`, as the JSON line it came in, until the node ends or `each` says false.
pub fn watch(socket: &Path, mut each: impl FnMut(&str) -> bool) -> Result<(), AskError> {
    let stream = UnixStream::connect(socket).map_err(AskError::NoNode)?;
    send(&stream, &Request::Watch)?;
    let mut events = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        match (&mut events).take(MOST_EVENT).read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) if !each(line.trim_end()) => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(AskError::Lost(e)),
        }
    }
}

fn send(mut stream: &UnixStream, request: &Request) -> Result<(), AskError> {
    let mut line = serde_json::to_string(request).map_err(|e| AskError::Garbled(e.to_string()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(AskError::Lost)
}

/// Sends one request and waits for its answer.
pub fn ask(socket: &Path, request: &Request) -> Result<Response, AskError> {
    let stream = UnixStream::connect(socket).map_err(AskError::NoNode)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(AskError::Lost)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(AskError::Lost)?;
    send(&stream, request)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MOST)).read_line(&mut answer).map_err(AskError::Lost)?;
    if !answer.ends_with('\n') {
        return Err(AskError::Lost(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_str(&answer).map_err(|e| AskError::Garbled(e.to_string()))
}
