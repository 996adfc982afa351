//! The modem lines as text: `docs/modem-side-channel.md` is the protocol. It is the same on a Unix socket and over TCP.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use crate::ether::StationId;

/// Words waiting for one port, either way: a host that reads nothing loses some, as on a real line.
pub(super) const BACKLOG: usize = 1024;

/// Longest line taken from a host.
const LINE: u64 = 256;

/// What a port's tasks report.
pub(super) enum Word {
    /// Came in at the data port.
    Bytes(Vec<u8>),
    /// A host said this on the lines.
    Line(String),
    /// A host took the lines; here it is spoken to.
    Connected(mpsc::Sender<String>),
    /// It is gone.
    Disconnected,
}

/// What a host may say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command {
    Waveform { rate: u32, interleaver: String },
    Key,
    Unkey { total: u64 },
    Abort,
    Dtr(bool),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadLine;

impl std::str::FromStr for Command {
    type Err = BadLine;

    fn from_str(line: &str) -> Result<Self, BadLine> {
        Ok(match line {
            "RTS 1" => Self::Key,
            "ABORT" => Self::Abort,
            "DTR 0" => Self::Dtr(false),
            "DTR 1" => Self::Dtr(true),
            _ if line.starts_with("WAVEFORM ") => {
                let words: Vec<&str> = line.split(' ').collect();
                let [_, rate, interleaver] = words[..] else { return Err(BadLine) };
                let rate = rate.parse().map_err(|_| BadLine)?;
                Self::Waveform { rate, interleaver: interleaver.to_owned() }
            }
            _ => {
                let number = line.strip_prefix("RTS 0 ").ok_or(BadLine)?;
                let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
                Self::Unkey { total: digits.then(|| number.parse().ok()).flatten().ok_or(BadLine)? }
            }
        })
    }
}

/// Serves the lines to one host until it hangs up or is hung up on; false when nobody listens to what the port reports any more.
pub(super) async fn serve_host(
    id: StationId,
    from_host: impl AsyncRead + Unpin,
    to_host: impl AsyncWrite + Unpin,
    said: &mpsc::Sender<(StationId, Word)>,
) -> bool {
    let (host, lines) = mpsc::channel(BACKLOG);
    if said.send((id, Word::Connected(host))).await.is_err() {
        return false;
    }
    tokio::select! {
        () = hear(id, from_host, said) => {}
        () = tell(to_host, lines) => {}
    }
    said.send((id, Word::Disconnected)).await.is_ok()
}

async fn hear(id: StationId, from_host: impl AsyncRead + Unpin, said: &mpsc::Sender<(StationId, Word)>) {
    let mut from_host = BufReader::new(from_host);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut from_host).take(LINE);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if line.pop() != Some(b'\n') => return,
            Ok(_) => {}
        }
        // Hosts on TCP may end their lines as network programs do.
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if said.send((id, Word::Line(text))).await.is_err() {
            return;
        }
    }
}

async fn tell(mut to_host: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if to_host.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}
