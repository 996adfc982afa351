//! That paced time is virtual time: the same transmissions by events and by the machine's clock, through real terminals (V17).

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use aldis::time::{Duration, Instant};
use rustix::fs::OFlags;

use super::Finding;
use super::transmission::{A, B, waveform};
use crate::bridge::{Bridge, Clock, PortPaths};
use crate::channel::{Damage, Loss};
use crate::ether::{Ether, EtherConfig, LinkConfig, StationId};
use crate::modem::{ModemConfig, ModemOutput};

/// One transmission: when its key is asked for, by whom, and how many bytes.
type Turn = (Instant, StationId, usize);

/// Bytes of one station as they came: when, and how many by then; and the bytes.
type Arrivals = (Vec<(Instant, usize)>, Vec<u8>);

/// The cases of this file.
pub(super) fn cases(quick: bool) -> Vec<Finding> {
    let turns: Vec<Turn> = (0..if quick { 3 } else { 12 })
        .map(|i| (Instant::from_millis(4000 + 26_000 * i), if i % 2 == 0 { A } else { B }, 3000))
        .collect();
    let due = [A, B].map(|id| by_events(&turns, id));
    let n: usize = due.iter().map(|(times, _)| times.len()).sum();
    let mut best = (f64::INFINITY, u64::MAX);
    // A machine that is busy with something else wakes the bridge late, and that is not the engine's doing: slower is fairer.
    for speed in [40.0, 20.0, 10.0] {
        if best.0 > 1.0 || best.1 > 0 {
            let measured = by_the_clock(&turns, speed).map_or((f64::INFINITY, u64::MAX), |got| compare(&due, &got));
            best = if measured.1 <= best.1 { measured } else { best };
        }
    }
    vec![
        Finding::new(
            "V17",
            "greatest difference of real from virtual delivery, as a share of what is allowed",
            0.0,
            best.0,
            1.0,
        )
        .by("max |t_real - t_virtual| / max(0.02 t_virtual, 0.5 s), air time", n as u64),
        Finding::none("V17", "bytes that differ between real and virtual time", best.1).by(
            "same seed, same transmissions: the same bytes, the same errors",
            due.iter().map(|d| d.1.len() as u64).sum(),
        ),
    ]
}

fn frequency() -> Ether {
    let loss = Loss::Cells { bytes: 24, p: 0.1, damage: Damage::Garbage };
    Ether::new(EtherConfig::net(
        17,
        2,
        &ModemConfig::new(waveform(2400, "L")),
        LinkConfig { loss, ..LinkConfig::default() },
    ))
}

fn payload(length: usize) -> Vec<u8> {
    (0..=255).cycle().take(length).collect()
}

/// Share of the allowance used, and bytes that differ.
fn compare(due: &[Arrivals; 2], got: &[Arrivals; 2]) -> (f64, u64) {
    let (mut worst, mut differ) = (0.0f64, 0);
    for ((due_times, due_bytes), (got_times, got_bytes)) in due.iter().zip(got) {
        let common = due_bytes.iter().zip(got_bytes).filter(|(a, b)| a != b).count();
        differ += (common + due_bytes.len().abs_diff(got_bytes.len())) as u64;
        for &(at, count) in due_times {
            let real = got_times.iter().find(|(_, by_then)| *by_then >= count);
            let off = real.map_or(f64::INFINITY, |(real, _)| (real.0 as f64 - at.0 as f64).abs() / 1e9);
            worst = worst.max(off / (0.02 * at.0 as f64 / 1e9).max(0.5));
        }
    }
    (worst, differ)
}

/// What a station receives in virtual time.
fn by_events(turns: &[Turn], receiver: StationId) -> Arrivals {
    let mut ether = frequency();
    let (mut times, mut bytes) = (Vec::new(), Vec::new());
    let mut coming = turns.iter().peekable();
    while let Some(at) = coming.peek().map(|t| t.0).into_iter().chain(ether.next_timeout()).min() {
        ether.handle_timeout(at);
        if let Some(&(_, id, _)) = coming.next_if(|t| t.0 <= at) {
            ether.key(at, id);
        }
        while let Some((id, output)) = ether.poll() {
            match output {
                ModemOutput::Keyed { at } => {
                    let length = turns.iter().rfind(|t| t.0 <= at && t.1 == id).map_or(0, |t| t.2);
                    ether.feed(at, id, &payload(length));
                    ether.unkey(at, id);
                }
                ModemOutput::Received(piece) if id == receiver => {
                    bytes.extend(piece);
                    times.push((at, bytes.len()));
                }
                _ => {}
            }
        }
    }
    (times, bytes)
}

/// What both stations' hosts read from their terminals at `speed`.
fn by_the_clock(turns: &[Turn], speed: f64) -> std::io::Result<[Arrivals; 2]> {
    let directory = tempfile::tempdir()?;
    let ports = [A, B].map(|id| PortPaths {
        tty_link: directory.path().join(format!("tty{id}")),
        socket: directory.path().join(format!("lines{id}")),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clock = Clock::start(speed);
    let bridge = runtime.block_on(Bridge::open(frequency(), clock, ports.to_vec()))?;
    let last = turns.iter().map(|t| t.0).max().unwrap_or(Instant::ZERO);
    let end = last + waveform(2400, "L").airtime(3000) + Duration::from_secs(5);
    let mut hosts = Vec::new();
    for (id, port) in [A, B].into_iter().zip(&ports) {
        let own: Vec<Turn> = turns.iter().filter(|t| t.1 == id).copied().collect();
        let terminal = open(&port.tty_link)?;
        let writer = terminal.try_clone()?;
        let lines = UnixStream::connect(&port.socket)?;
        hosts.push((
            thread::spawn(move || listen(terminal, clock)),
            thread::spawn(move || talk(&own, writer, &lines, clock)),
        ));
    }
    runtime.block_on(async {
        let over = tokio::time::sleep_until(clock.real(end));
        bridge.run(over, |_, _| {}).await
    });
    // The terminals are gone with the bridge: readers come to an end.
    drop(runtime);
    let arrivals = hosts.into_iter().map(|(listener, talker)| {
        let _ = talker.join();
        listener.join().unwrap_or_default()
    });
    let arrivals: Vec<Arrivals> = arrivals.collect();
    arrivals.try_into().map_err(|_| std::io::Error::other("two hosts"))
}

fn open(tty: &Path) -> std::io::Result<std::fs::File> {
    let no_controlling_terminal = OFlags::NOCTTY.bits() as i32;
    std::fs::File::options().read(true).write(true).custom_flags(no_controlling_terminal).open(tty)
}

/// Reads a terminal to its end.
fn listen(mut terminal: std::fs::File, clock: Clock) -> Arrivals {
    let (mut times, mut bytes, mut piece) = (Vec::new(), Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = terminal.read(&mut piece) {
        bytes.extend(&piece[..n]);
        times.push((clock.now(), bytes.len()));
    }
    (times, bytes)
}

/// Transmits at the times of `turns`; an error ends it, and the missing bytes tell.
fn talk(turns: &[Turn], mut terminal: std::fs::File, mut lines: &UnixStream, clock: Clock) -> std::io::Result<()> {
    let mut said = BufReader::new(lines.try_clone()?);
    for &(at, _, length) in turns {
        let wait = at.since(clock.now()).as_secs_f64() / clock.speed();
        #[expect(clippy::disallowed_methods, reason = "a host in real time waits for its turn")]
        thread::sleep(std::time::Duration::from_secs_f64(wait));
        lines.write_all(b"RTS 1\n")?;
        let mut line = String::new();
        while line.trim_end() != "KEYED" {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        terminal.write_all(&payload(length))?;
        lines.write_all(format!("RTS 0 {length}\n").as_bytes())?;
    }
    // The port stays open until the modem hangs up.
    let mut rest = Vec::new();
    said.read_to_end(&mut rest).map(|_| ())
}
