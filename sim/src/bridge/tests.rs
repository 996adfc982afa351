//! The ports as programs outside find them: terminals and TCP, with hosts that do the least a host must do.

use std::fs;
use std::io;

use aldis::time::Duration;
use rustix::fs::{Mode, OFlags, open};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};
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
async fn a_program_that_knows_no_lines_keys_by_its_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let name = |name: &str| dir.path().join(name);
    let ports = ["a", "b"].map(|n| PortPaths { tty_link: name(n), socket: name(&format!("{n}.lines")) });
    let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
    let ether = Ether::new(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
    let mut bridge = Bridge::open(ether, Clock::start(SPEED), ports.to_vec()).await.expect("opens");
    [A, B].into_iter().for_each(|id| bridge.key_by_bytes(id, Duration::from_secs(5)));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(bridge.run(async { drop(stopped.await) }, |_, _| {}));
    let open = |path: &std::path::Path| fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let (a, b) = (open(&ports[0].tty_link), open(&ports[1].tty_link));
    let heard = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let (mut a, mut b, mut got) = (a, b, [0; 3000]);
        a.write_all(&[7; 3000]).expect("writes");
        b.read_exact(&mut got).expect("reads");
        b.write_all(b"thanks").expect("writes");
        a.read_exact(&mut got[..6]).expect("reads");
        got[..6].to_vec()
    });
    let heard = tokio::time::timeout(std::time::Duration::from_secs(60), heard).await.expect("in time").expect("ends");
    assert_eq!(heard, b"thanks");
    drop(stop);
    let ether = serving.await.expect("ends");
    // Each key went down once: the first was up again before the answer was on the air.
    let ons: Vec<StationId> = ether.antenna_log().iter().filter(|e| e.on).map(|e| e.station).collect();
    assert_eq!(ons, [A, B]);
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

/// A program on the two TCP connections of a port.
struct TcpHost {
    data: TcpStream,
    lines: BufReader<TcpStream>,
}

impl TcpHost {
    async fn connect(place: &Place) -> Self {
        let Port::Tcp(at) = place else { panic!("a TCP port") };
        let data = TcpStream::connect(at.data).await.expect("the data port answers");
        let lines = BufReader::new(TcpStream::connect(at.control).await.expect("the control port answers"));
        let mut host = Self { data, lines };
        host.expect("READY").await;
        host
    }

    async fn say(&mut self, line: &str) {
        self.lines.write_all(format!("{line}\r\n").as_bytes()).await.expect("the modem listens");
    }

    async fn expect(&mut self, start: &str) -> String {
        let wait = async {
            loop {
                let mut line = String::new();
                assert!(self.lines.read_line(&mut line).await.expect("reads") > 0, "the modem hung up");
                if line.starts_with(start) {
                    return line.trim_end().to_owned();
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("in time")
    }

    async fn transmit(&mut self, bytes: &[u8]) {
        self.say("RTS 1").await;
        self.expect("KEYED").await;
        self.data.write_all(bytes).await.expect("writes");
        self.say(&format!("RTS 0 {}", bytes.len())).await;
    }

    async fn read(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.data.read_exact(&mut bytes).await.expect("reads");
        bytes
    }
}

/// Two stations behind TCP ports that the system chose.
async fn tcp_bench() -> (Vec<Place>, oneshot::Sender<()>, JoinHandle<Ether>) {
    let modem = ModemConfig::new(*Waveform::find(2400, "L").expect("known"));
    let ether = Ether::new(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let ports = vec![Port::Tcp(TcpAddresses { data: any, control: any }); 2];
    let bridge = Bridge::open(ether, Clock::start(SPEED), ports).await.expect("opens");
    let places = bridge.places().to_vec();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(bridge.run(
        async {
            let _ = stopped.await;
        },
        |_, _| {},
    ));
    (places, stop, serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_cross_between_tcp_ports_and_the_lines_tell_how_many() {
    let (places, stop, serving) = tcp_bench().await;
    let (mut a, mut b) = (TcpHost::connect(&places[0]).await, TcpHost::connect(&places[1]).await);
    let sent: Vec<u8> = (0..=255).cycle().take(3000).collect();
    for turn in 0..2 {
        let (from, to) = if turn == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        from.transmit(&sent).await;
        assert_eq!(to.expect("DCD").await, "DCD 1");
        assert_eq!(to.expect("DCD").await, "DCD 0 3000");
        assert_eq!(to.read(3000).await, sent);
        assert_eq!(from.expect("UNKEYED").await, "UNKEYED");
    }
    let _ = stop.send(());
    let ether = serving.await.expect("no panic");
    ether.balance().expect("every byte accounted for");
    assert_eq!(ether.antenna_log().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_host_that_goes_leaves_a_silent_antenna_and_a_port_for_the_next() {
    let (places, stop, serving) = tcp_bench().await;
    let mut b = TcpHost::connect(&places[1]).await;
    {
        let mut a = TcpHost::connect(&places[0]).await;
        a.say("RTS 1").await;
        a.expect("KEYED").await;
        a.data.write_all(b"last words").await.expect("writes");
        b.expect("DCD 1").await;
    }
    b.expect("DCD 0").await;
    let mut a = TcpHost::connect(&places[0]).await;
    a.transmit(b"again").await;
    assert_eq!(b.expect("DCD 0").await, "DCD 0 5");
    let _ = stop.send(());
    let ether = serving.await.expect("no panic");
    assert!(!ether.antenna_log().last().expect("radiated").on);
    assert_eq!(ether.stats(A).transmissions, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_data_connection_nothing_is_counted_as_handed_out() {
    let (places, stop, serving) = tcp_bench().await;
    let mut a = TcpHost::connect(&places[0]).await;
    let Port::Tcp(at) = &places[1] else { panic!("a TCP port") };
    // The lines alone.
    let mut lines = BufReader::new(TcpStream::connect(at.control).await.expect("answers")).lines();
    a.transmit(b"to nobody").await;
    a.expect("UNKEYED").await;
    let wait = async {
        loop {
            let line = lines.next_line().await.expect("reads").expect("talks");
            if line.starts_with("DCD 0") {
                return line;
            }
        }
    };
    let line = tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("in time");
    assert_eq!(line, "DCD 0 0");
    let _ = stop.send(());
    let _ = serving.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_befalls_a_frequency_is_played_and_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let modem = ModemConfig::new(*Waveform::find(2400, "L").expect("known"));
    let ether = Ether::new(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
    let ports = [A, B].map(|id| PortPaths {
        tty_link: dir.path().join(format!("tty{id}")),
        socket: dir.path().join(format!("lines{id}")),
    });
    let mut bridge = Bridge::open(ether, Clock::start(SPEED), ports.to_vec()).await.expect("opens");
    let outage = |at: u64, up| Event { at: Instant::from_millis(at), what: What::Path { from: A, to: B, up } };
    let order = What::Emcon { station: A, state: aldis::emcon::State::Silent };
    bridge.play(&[outage(2000, true), outage(1000, false), Event { at: Instant::ZERO, what: order }]);
    let mut seen = Vec::new();
    let until = tokio::time::sleep(std::time::Duration::from_millis(200));
    bridge
        .run(until, |at, sight| {
            if let Sight::Event(What::Path { up, .. }) = sight {
                seen.push((at >= Instant::from_millis(if *up { 2000 } else { 1000 }), *up));
            } else {
                seen.push((false, false));
            }
        })
        .await;
    assert_eq!(seen, [(true, false), (true, true)]);
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
