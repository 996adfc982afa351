//! Real time: an ether between pseudo-terminals, with the modem lines on a Unix socket beside each.
//!
//! The shipped node, a laptop or a terminal program opens the terminal as its modem's data port. Pseudo-terminals have no RTS, CTS
//! or DCD, so the lines travel as text on the socket; `docs/modem-side-channel.md` is the protocol. The ether is the one the
//! virtual-time world drives, paced by [`Clock`]. Called by the demo, by `bridge`, and by end-to-end tests.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aldis::time::{Duration, Instant};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::{Errno, read, write};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ether::{Ether, StationId};
use crate::modem::ModemOutput;

/// How long a key stays down for bytes that `RTS 0` announced and the terminal has not brought.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Words waiting for one port, either way: a host that reads nothing loses some, as on a real line.
const BACKLOG: usize = 1024;

/// Longest line taken from a host.
const LINE: u64 = 256;

/// Virtual time tied to the machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    speed: f64,
}

impl Clock {
    /// A clock that stands at zero now and runs `speed` times as fast as the machine's.
    pub fn start(speed: f64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "real time: the one place that ties virtual time to the machine's"
        )]
        let start = std::time::Instant::now();
        Self { start, speed }
    }

    /// Virtual time now.
    pub fn now(&self) -> Instant {
        Instant((self.start.elapsed().as_secs_f64() * self.speed * 1e9) as u64)
    }

    /// How fast it runs.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// When the machine's clock will be at virtual time `at`.
    fn real(&self, at: Instant) -> tokio::time::Instant {
        let after = Duration::from_nanos(at.0).as_secs_f64() / self.speed;
        // Rounded up: a timer that fires early would only fire again.
        tokio::time::Instant::from_std(self.start + std::time::Duration::from_secs_f64(after + 1e-6))
    }
}

/// Where a station's modem is to be found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortPaths {
    /// Becomes a symbolic link to the terminal.
    pub tty_link: PathBuf,
    /// Becomes the socket of the modem lines.
    pub socket: PathBuf,
}

/// Serves the stations of `ether` on `ports`, in order, until `shutdown` is done; gives the ether back for its logs.
pub async fn serve(
    ether: Ether,
    clock: Clock,
    ports: Vec<PortPaths>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<Ether> {
    serve_watched(ether, clock, ports, shutdown, |_, _, _| {}).await
}

/// Like [`serve`], and shows `watch` everything the modems say and their antennas do, with the virtual time.
pub async fn serve_watched(
    mut ether: Ether,
    clock: Clock,
    ports: Vec<PortPaths>,
    shutdown: impl Future<Output = ()>,
    mut watch: impl FnMut(Instant, StationId, &ModemOutput),
) -> io::Result<Ether> {
    let (said, mut heard) = mpsc::channel(BACKLOG);
    let mut tasks = JoinSet::new();
    let mut desks = Vec::new();
    for (id, paths) in ether.ids().zip(ports) {
        desks.push(Desk::open(id, paths, &said, &mut tasks)?);
    }
    tokio::pin!(shutdown);
    loop {
        let due = [ether.next_timeout().map(|at| clock.real(at))].into_iter().flatten();
        let due = due.chain(desks.iter().filter_map(|d| d.owed.as_ref().map(|o| o.until))).min();
        let sleep = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            word = heard.recv() => {
                // `said` lives as long as this loop.
                if let Some((id, word)) = word && let Some(desk) = desks.get_mut(usize::from(id.0)) {
                    desk.take(&mut ether, clock.now(), word);
                }
            }
            () = sleep => {}
        }
        let now = clock.now();
        ether.handle_timeout(now);
        for desk in &mut desks {
            desk.give_up_waiting(&mut ether, now);
        }
        while let Some((id, output)) = ether.poll() {
            watch(now, id, &output);
            if let Some(desk) = desks.get_mut(usize::from(id.0)) {
                desk.tell(output);
            }
        }
    }
    Ok(ether)
}

/// What a port's tasks report.
enum Word {
    Bytes(Vec<u8>),
    Line(String),
    Connected(mpsc::Sender<String>),
    Disconnected,
}

/// One port as the bridge keeps it.
struct Desk {
    id: StationId,
    paths: PortPaths,
    terminal: Arc<Terminal>,
    host: Option<mpsc::Sender<String>>,
    tty: mpsc::Sender<Vec<u8>>,
    /// Bytes the host fed in the present transmission.
    fed: u64,
    /// Bytes handed to the host since carrier detect last fell.
    output: u64,
    /// `RTS 0` announced more bytes than have come.
    owed: Option<Owed>,
}

struct Owed {
    total: u64,
    until: tokio::time::Instant,
}

impl Desk {
    fn open(
        id: StationId,
        paths: PortPaths,
        said: &mpsc::Sender<(StationId, Word)>,
        tasks: &mut JoinSet<io::Result<()>>,
    ) -> io::Result<Self> {
        let terminal = Arc::new(Terminal::open()?);
        replace(&paths.tty_link, |kind| kind.is_symlink())?;
        symlink(&terminal.name, &paths.tty_link)?;
        replace(&paths.socket, |kind| kind.is_socket())?;
        let listener = UnixListener::bind(&paths.socket)?;
        let (tty, bytes) = mpsc::channel(BACKLOG);
        tasks.spawn(read_terminal(id, terminal.clone(), said.clone()));
        tasks.spawn(write_terminal(terminal.clone(), bytes));
        tasks.spawn(attend(id, listener, said.clone()));
        Ok(Self { id, paths, terminal, host: None, tty, fed: 0, output: 0, owed: None })
    }

    fn take(&mut self, ether: &mut Ether, now: Instant, word: Word) {
        match word {
            Word::Bytes(bytes) => {
                if self.host.is_some() {
                    self.fed += bytes.len() as u64;
                    ether.feed(now, self.id, &bytes);
                    self.settle_debt(ether, now);
                }
            }
            Word::Connected(host) => {
                // Nothing the last host wrote or left unread reaches this one.
                self.terminal.flush();
                self.host = Some(host);
                (self.fed, self.output, self.owed) = (0, 0, None);
                ether.open_port(now, self.id, false);
                self.say("READY".to_owned());
                if ether.carrier(self.id) {
                    self.say("DCD 1".to_owned());
                }
            }
            Word::Disconnected => {
                self.host = None;
                self.owed = None;
                self.terminal.flush();
                ether.close_port(now, self.id);
            }
            Word::Line(line) => match line.parse() {
                Ok(command) => self.obey(ether, now, command),
                Err(BadLine) => self.say(format!("FAULT not understood: {}", line.escape_debug())),
            },
        }
    }

    fn obey(&mut self, ether: &mut Ether, now: Instant, command: Command) {
        match command {
            Command::Key => {
                (self.fed, self.owed) = (0, None);
                ether.key(now, self.id);
            }
            Command::Unkey { total } => {
                self.owed = Some(Owed { total, until: tokio::time::Instant::now() + PATIENCE });
                self.settle_debt(ether, now);
            }
            Command::Abort => {
                self.owed = None;
                self.terminal.flush();
                ether.abort(now, self.id);
            }
            Command::Dtr(up) => ether.set_dtr(now, self.id, up),
        }
    }

    fn settle_debt(&mut self, ether: &mut Ether, now: Instant) {
        if self.owed.as_ref().is_some_and(|o| self.fed >= o.total) {
            self.owed = None;
            ether.unkey(now, self.id);
        }
    }

    fn give_up_waiting(&mut self, ether: &mut Ether, now: Instant) {
        if self.owed.as_ref().is_some_and(|o| o.until <= tokio::time::Instant::now()) {
            self.owed = None;
            self.say(format!("FAULT {} bytes of this transmission never came", self.fed));
            ether.unkey(now, self.id);
        }
    }

    fn tell(&mut self, output: ModemOutput) {
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
                if self.host.is_some() && self.tty.try_send(bytes).is_ok() {
                    self.output += length;
                }
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

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.paths.tty_link);
        let _ = fs::remove_file(&self.paths.socket);
    }
}

/// What a host may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Command {
    Key,
    Unkey { total: u64 },
    Abort,
    Dtr(bool),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BadLine;

impl std::str::FromStr for Command {
    type Err = BadLine;

    fn from_str(line: &str) -> Result<Self, BadLine> {
        Ok(match line {
            "RTS 1" => Self::Key,
            "ABORT" => Self::Abort,
            "DTR 0" => Self::Dtr(false),
            "DTR 1" => Self::Dtr(true),
            _ => {
                let number = line.strip_prefix("RTS 0 ").ok_or(BadLine)?;
                let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
                Self::Unkey { total: digits.then(|| number.parse().ok()).flatten().ok_or(BadLine)? }
            }
        })
    }
}

/// A pseudo-terminal in raw mode, its slave held open so that the mode outlives any host.
struct Terminal {
    master: AsyncFd<OwnedFd>,
    slave: OwnedFd,
    name: String,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terminal {{ {} }}", self.name)
    }
}

impl Terminal {
    fn open() -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.into_string().map_err(|_| io::ErrorKind::InvalidData)?;
        let slave = open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let mut mode = tcgetattr(&slave)?;
        mode.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &mode)?;
        let flags = fcntl_getfl(&master)?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for the sake of types that lie about their descriptor; OwnedFd does not"
        )]
        let master = AsyncFd::new(master)?;
        Ok(Self { master, slave, name })
    }

    /// Drops what is on its way in either direction.
    fn flush(&self) {
        let _ = tcflush(&self.slave, QueueSelector::IOFlush);
        let mut waste = [0; 4096];
        while read(self.master.get_ref(), &mut waste).is_ok_and(|n| n > 0) {}
    }
}

async fn read_terminal(
    id: StationId,
    terminal: Arc<Terminal>,
    said: mpsc::Sender<(StationId, Word)>,
) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let mut ready = terminal.master.readable().await?;
        let result = ready.try_io(|fd| Ok(read(fd.get_ref().as_fd(), &mut bytes)?));
        match result {
            Ok(Ok(n)) => {
                if said.send((id, Word::Bytes(bytes[..n].to_vec()))).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Err(e)) if Errno::from_io_error(&e) == Some(Errno::INTR) => {}
            Ok(Err(e)) => return Err(e),
            Err(_would_block) => {}
        }
    }
}

async fn write_terminal(terminal: Arc<Terminal>, mut bytes: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(piece) = bytes.recv().await {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let mut ready = terminal.master.writable().await?;
            match ready.try_io(|fd| Ok(write(fd.get_ref().as_fd(), rest)?)) {
                Ok(Ok(n)) => rest = &rest[n..],
                Ok(Err(e)) if Errno::from_io_error(&e) == Some(Errno::INTR) => {}
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }
    Ok(())
}

/// Takes one host after the other; a second one waits until the first has gone.
async fn attend(id: StationId, listener: UnixListener, said: mpsc::Sender<(StationId, Word)>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let (host, lines) = mpsc::channel(BACKLOG);
        if said.send((id, Word::Connected(host))).await.is_err() {
            return Ok(());
        }
        converse(id, stream, lines, &said).await;
        if said.send((id, Word::Disconnected)).await.is_err() {
            return Ok(());
        }
    }
}

/// Carries lines until either side is done.
async fn converse(
    id: StationId,
    stream: UnixStream,
    mut lines: mpsc::Receiver<String>,
    said: &mpsc::Sender<(StationId, Word)>,
) {
    let (from_host, mut to_host) = stream.into_split();
    let reading = async {
        let mut from_host = BufReader::new(from_host);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = tokio::io::AsyncReadExt::take(&mut from_host, LINE);
            match bounded.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) if line.pop() != Some(b'\n') => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            if said.send((id, Word::Line(text))).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some(mut line) = lines.recv().await {
            line.push('\n');
            if to_host.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

/// Removes a leftover of an earlier run, and nothing else.
fn replace(path: &Path, ours: impl Fn(fs::FileType) -> bool) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if ours(meta.file_type()) => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is in the way", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::Lines;
    use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::ether::{EtherConfig, LinkConfig};
    use crate::modem::ModemConfig;
    use crate::waveform::Waveform;

    /// At this speed the long preamble leaves a host 96 ms to feed the first block.
    const SPEED: f64 = 50.0;
    const A: StationId = StationId(0);
    const B: StationId = StationId(1);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bytes_cross_from_terminal_to_terminal_and_back_in_the_time_they_take() {
        let bench = Bench::new().await;
        let (mut a, mut b) = (bench.host(0).await, bench.host(1).await);
        let w = Waveform::find(2400, "L").expect("known");
        // All byte values, so that a terminal that is not raw shows.
        let sent: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for turn in 0..2 {
            let (from, to) = if turn == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            from.transmit(&sent).await;
            assert_eq!(to.expect("DCD").await, "DCD 1");
            assert_eq!(to.expect("DCD").await, format!("DCD 0 {}", sent.len()));
            assert_eq!(to.read(sent.len()).await, sent);
            assert_eq!(from.expect("UNKEYED").await, "UNKEYED");
        }
        let ether = bench.stop().await;
        let log = ether.antenna_log();
        assert_eq!(log.len(), 4);
        let air = |i: usize| log[i + 1].at.since(log[i].at);
        // 10 s of 2400 L is 4.8 + 4 x 4.8 s; the host let go before the last block began, so the time is exact.
        assert_eq!((air(0), air(2)), (w.airtime(5000), w.airtime(5000)));
        assert!(log[2].at.since(log[1].at) >= Duration::from_secs(2));
        ether.balance().expect("every byte accounted for");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_key_waits_for_the_bytes_that_were_announced() {
        let bench = Bench::new().await;
        let (mut a, mut b) = (bench.host(0).await, bench.host(1).await);
        a.say("RTS 1").await;
        a.expect("KEYED").await;
        a.say("RTS 0 3").await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        a.write(b"abc").await;
        a.expect("UNKEYED").await;
        assert_eq!(b.read(3).await, b"abc");
        let ether = bench.stop().await;
        assert_eq!(ether.stats(A).carried, 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_host_that_dies_keyed_leaves_a_silent_antenna_and_a_port_that_works() {
        let bench = Bench::new().await;
        let mut b = bench.host(1).await;
        {
            let mut a = bench.host(0).await;
            a.say("RTS 1").await;
            a.expect("KEYED").await;
            a.write(b"last words").await;
            b.expect("DCD 1").await;
        }
        assert_eq!(b.expect("DCD 0").await.split(' ').count(), 3);
        // Written by nobody in particular while no host is there: must not come up later.
        io::Write::write_all(&mut bench.terminal(0), b"stray").expect("writes");
        let mut a = bench.host(0).await;
        a.transmit(b"again").await;
        assert_eq!(b.expect("DCD 0").await, "DCD 0 5");
        let ether = bench.stop().await;
        let last = ether.antenna_log().last().expect("radiated");
        assert!(!last.on);
        assert_eq!(ether.stats(A).transmissions, 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_abort_silences_and_flushes_what_the_terminal_held() {
        let bench = Bench::new().await;
        let mut a = bench.host(0).await;
        a.say("RTS 1").await;
        a.expect("KEYED").await;
        a.write(&[1; 3000]).await;
        a.say("ABORT").await;
        a.expect("UNKEYED").await;
        let ether = bench.stop().await;
        let log = ether.antenna_log();
        assert!(log[1].at.since(log[0].at) < Duration::from_millis(4800), "{log:?}");
        assert_eq!((ether.stats(A).carried, ether.queued(A)), (0, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nonsense_is_answered_and_harms_nothing() {
        let bench = Bench::new().await;
        let (mut a, mut b) = (bench.host(0).await, bench.host(1).await);
        for line in ["rts 1", "RTS 0", "RTS 0 -1", "RTS 0 99999999999999999999", "", "\u{7}"] {
            a.say(line).await;
            assert!(a.expect("FAULT").await.starts_with("FAULT not understood"), "{line}");
        }
        a.transmit(b"fine").await;
        assert_eq!(b.expect("DCD 0").await, "DCD 0 4");
        // A line without end closes the conversation, not the port.
        a.say(&"x".repeat(1000)).await;
        let mut a = bench.host(0).await;
        a.transmit(b"still").await;
        assert_eq!(b.expect("DCD 0").await, "DCD 0 5");
        let _ = bench.stop().await;
    }

    #[test]
    fn leftovers_are_replaced_and_files_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("modem");
        symlink("/nowhere", &path).expect("links");
        replace(&path, |k| k.is_symlink()).expect("a stale link goes");
        fs::write(&path, "precious").expect("writes");
        assert!(replace(&path, |k| k.is_symlink()).is_err());
        assert_eq!(fs::read_to_string(&path).expect("reads"), "precious");
    }

    /// Two stations behind terminals.
    struct Bench {
        dir: tempfile::TempDir,
        stop: oneshot::Sender<()>,
        serving: JoinHandle<io::Result<Ether>>,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let modem = ModemConfig::new(*Waveform::find(2400, "L").expect("known"));
            let ether = Ether::new(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
            let ports = [A, B].map(|id| PortPaths {
                tty_link: dir.path().join(format!("tty{id}")),
                socket: dir.path().join(format!("lines{id}")),
            });
            let (stop, stopped) = oneshot::channel();
            let serving = tokio::spawn(serve(ether, Clock::start(SPEED), ports.to_vec(), async {
                let _ = stopped.await;
            }));
            while !dir.path().join("lines1").exists() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            Self { dir, stop, serving }
        }

        /// Opened as a serial driver opens it: without waiting, not as controlling terminal.
        fn terminal(&self, i: usize) -> fs::File {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
            open(self.dir.path().join(format!("tty{i}")), flags, Mode::empty()).expect("opens").into()
        }

        async fn host(&self, i: usize) -> TestHost {
            let path = self.dir.path().join(format!("lines{i}"));
            let stream = loop {
                match UnixStream::connect(&path).await {
                    Ok(stream) => break stream,
                    // Bound, but not listening yet.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => nap().await,
                    Err(e) => panic!("{e}"),
                }
            };
            let (from, to) = stream.into_split();
            let mut host = TestHost { tty: self.terminal(i), lines: BufReader::new(from).lines(), to };
            host.expect("READY").await;
            host
        }

        async fn stop(self) -> Ether {
            let _ = self.stop.send(());
            let ether = self.serving.await.expect("no panic").expect("no error");
            assert_eq!(fs::read_dir(self.dir.path()).expect("reads").count(), 0, "leftovers");
            ether
        }
    }

    /// The least a host must do.
    struct TestHost {
        tty: fs::File,
        lines: Lines<BufReader<OwnedReadHalf>>,
        to: OwnedWriteHalf,
    }

    impl TestHost {
        async fn say(&mut self, line: &str) {
            self.to.write_all(format!("{line}\n").as_bytes()).await.expect("the modem listens");
        }

        /// The next line that starts like this.
        async fn expect(&mut self, start: &str) -> String {
            let wait = async {
                loop {
                    let line = self.lines.next_line().await.expect("reads").expect("the modem talks");
                    if line.starts_with(start) {
                        return line;
                    }
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("in time")
        }

        async fn write(&mut self, bytes: &[u8]) {
            let mut rest = bytes;
            while !rest.is_empty() {
                match io::Write::write(&mut self.tty, rest) {
                    Ok(n) => rest = &rest[n..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => nap().await,
                    Err(e) => panic!("{e}"),
                }
            }
        }

        /// Exactly `n` bytes, and no more are there.
        async fn read(&mut self, n: usize) -> Vec<u8> {
            let mut bytes = vec![0; n + 1];
            let mut held = 0;
            for _ in 0..20_000 {
                match io::Read::read(&mut self.tty, &mut bytes[held..]) {
                    Ok(more) => held += more,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock && held == n => break,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => nap().await,
                    Err(e) => panic!("{e}"),
                }
            }
            bytes.truncate(held);
            bytes
        }

        async fn transmit(&mut self, bytes: &[u8]) {
            self.say("RTS 1").await;
            self.expect("KEYED").await;
            self.write(bytes).await;
            self.say(&format!("RTS 0 {}", bytes.len())).await;
        }
    }

    async fn nap() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
