//! One port as the bridge keeps it: what its host said and fed, and what it is told.

use std::io;

use aldis::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::by_bytes::ByBytes;
use super::lines::{BACKLOG, BadLine, Command, Word};
use super::pty::TerminalPort;
use super::tcp::TcpPort;
use super::{Frequency, Place, Port};
use crate::ether::StationId;
use crate::modem::ModemOutput;

/// How long a key stays down for bytes that `RTS 0` announced and the data port has not brought.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// One port.
pub(super) struct Desk {
    id: StationId,
    data: Data,
    host: Option<mpsc::Sender<String>>,
    to_host: mpsc::Sender<Vec<u8>>,
    /// Bytes the host fed in the present transmission.
    fed: u64,
    /// Bytes handed to the host since carrier detect last fell.
    output: u64,
    /// `RTS 0` announced more bytes than have come.
    owed: Option<Owed>,
    /// The bytes key it; there is no host on the lines.
    by_bytes: Option<ByBytes>,
}

enum Data {
    Terminal(TerminalPort),
    Tcp(TcpPort),
}

impl Data {
    fn flush(&self) {
        match self {
            Self::Terminal(port) => port.flush(),
            Self::Tcp(port) => port.flush(),
        }
    }

    /// A terminal keeps what it is given as long as its host has the lines; a TCP host may have those alone.
    fn attached(&self) -> bool {
        match self {
            Self::Terminal(_) => true,
            Self::Tcp(port) => port.attached(),
        }
    }
}

struct Owed {
    total: u64,
    until: tokio::time::Instant,
}

impl Desk {
    /// Opens the port; also says where it is.
    pub(super) async fn open(
        id: StationId,
        port: Port,
        said: &mpsc::Sender<(StationId, Word)>,
        tasks: &mut JoinSet<io::Result<()>>,
    ) -> io::Result<(Self, Place)> {
        let (to_host, bytes) = mpsc::channel(BACKLOG);
        let (data, place) = match port {
            Port::Terminal(paths) => {
                let port = TerminalPort::open(id, paths.clone(), said, bytes, tasks)?;
                (Data::Terminal(port), Port::Terminal(paths))
            }
            Port::Tcp(wanted) => {
                let port = TcpPort::open(id, wanted, said, bytes, tasks).await?;
                let place = Port::Tcp(port.addresses);
                (Data::Tcp(port), place)
            }
        };
        Ok((Self { id, data, host: None, to_host, fed: 0, output: 0, owed: None, by_bytes: None }, place))
    }

    /// Lets the bytes key the modem.
    pub(super) fn key_by_bytes(&mut self, air: &mut impl Frequency, now: Instant, unkey_after: Duration) {
        self.by_bytes = Some(ByBytes::new(unkey_after));
        self.data.flush();
        air.open_port(now, self.id);
    }

    /// Does what the bytes ask for; false when there was nothing to do.
    pub(super) fn turn(&mut self, air: &mut impl Frequency, now: Instant) -> bool {
        self.by_bytes.as_mut().is_some_and(|key| key.turn(air, now, self.id))
    }

    /// When a key that bytes hold goes up.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.by_bytes.as_ref()?.next_timeout()
    }

    /// When the wait for announced bytes ends.
    pub(super) fn patience_ends(&self) -> Option<tokio::time::Instant> {
        self.owed.as_ref().map(|o| o.until)
    }

    /// Takes what one of the port's tasks reports.
    pub(super) fn take(&mut self, air: &mut impl Frequency, now: Instant, word: Word) {
        if let Some(key) = &mut self.by_bytes {
            if let Word::Bytes(bytes) = word {
                key.take(now, &bytes);
            }
            return;
        }
        match word {
            Word::Bytes(bytes) => {
                if self.host.is_some() {
                    self.fed += bytes.len() as u64;
                    air.feed(now, self.id, &bytes);
                    self.settle_debt(air, now);
                }
            }
            Word::Connected(host) => {
                // Nothing the last host wrote or left unread reaches this one.
                self.data.flush();
                self.host = Some(host);
                (self.fed, self.output, self.owed) = (0, 0, None);
                air.open_port(now, self.id);
                self.say("READY".to_owned());
                if air.carrier(self.id) {
                    self.say("DCD 1".to_owned());
                }
            }
            Word::Disconnected => {
                self.host = None;
                self.owed = None;
                self.data.flush();
                air.close_port(now, self.id);
            }
            Word::Line(line) => match line.parse() {
                Ok(command) => self.obey(air, now, command),
                Err(BadLine) => self.say(format!("FAULT not understood: {}", line.escape_debug())),
            },
        }
    }

    fn obey(&mut self, air: &mut impl Frequency, now: Instant, command: Command) {
        match command {
            Command::Key => {
                (self.fed, self.owed) = (0, None);
                air.key(now, self.id);
            }
            Command::Unkey { total } => {
                self.owed = Some(Owed { total, until: tokio::time::Instant::now() + PATIENCE });
                self.settle_debt(air, now);
            }
            Command::Abort => {
                self.owed = None;
                self.data.flush();
                air.abort(now, self.id);
            }
            Command::Dtr(up) => air.set_dtr(now, self.id, up),
            Command::Waveform { rate, interleaver } => {
                if !air.select(self.id, rate, &interleaver) {
                    self.say(format!("FAULT no waveform {rate} {} here", interleaver.escape_debug()));
                }
            }
        }
    }

    fn settle_debt(&mut self, air: &mut impl Frequency, now: Instant) {
        if self.owed.as_ref().is_some_and(|o| self.fed >= o.total) {
            self.owed = None;
            air.unkey(now, self.id);
        }
    }

    /// Lets the key go when announced bytes are overdue.
    pub(super) fn give_up_waiting(&mut self, air: &mut impl Frequency, now: Instant) {
        if self.owed.as_ref().is_some_and(|o| o.until <= tokio::time::Instant::now()) {
            self.owed = None;
            self.say(format!("FAULT {} bytes of this transmission never came", self.fed));
            air.unkey(now, self.id);
        }
    }

    /// Tells the host what its modem says.
    pub(super) fn tell(&mut self, output: ModemOutput) {
        if let Some(key) = &mut self.by_bytes {
            key.tell(&output);
        }
        match output {
            ModemOutput::Keyed { .. } => self.say("KEYED".to_owned()),
            ModemOutput::Unkeyed => {
                self.owed = None;
                self.say("UNKEYED".to_owned());
            }
            ModemOutput::Carrier(true) => self.say("DCD 1".to_owned()),
            ModemOutput::Carrier(false) => {
                let output = std::mem::take(&mut self.output);
                self.say(format!("DCD 0 {output}"));
            }
            ModemOutput::Received(bytes) => {
                let length = bytes.len() as u64;
                // With nobody at the other end the bytes are gone, as on any open cable.
                let host = self.host.is_some() || self.by_bytes.is_some();
                if host && self.data.attached() && self.to_host.try_send(bytes).is_ok() {
                    self.output += length;
                }
            }
            ModemOutput::Measured(m) => {
                let mut line = "HEARD".to_owned();
                if let Some(w) = m.waveform {
                    line += &format!(" WAVEFORM {} {}", w.rate.0, w.interleaver);
                }
                if let Some(tenths) = m.snr_tenths {
                    line += &format!(" SNR {:.1}", f64::from(tenths) / 10.0);
                }
                self.say(line);
            }
            ModemOutput::Cts(up) => self.say(format!("CTS {}", u8::from(up))),
            ModemOutput::Fault(text) => self.say(format!("FAULT {text}")),
            ModemOutput::Ready => self.say("READY".to_owned()),
            ModemOutput::Antenna { .. } => {}
        }
    }

    fn say(&mut self, line: String) {
        if let Some(host) = &self.host
            && host.try_send(line).is_err()
        {
            // It has stopped reading: as good as gone. Its end of file follows.
            self.host = None;
        }
    }
}
