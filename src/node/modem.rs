//! Drives one modem: a tty for data, and its key line either on the tty's own RTS/CTS/DCD or on a side channel.
//!
//! Pseudo-terminals have no modem lines, so the simulated modem speaks them over a Unix socket (docs/modem-side-channel.md).
//! The driver writes and keys nothing but a redeemed [`Emission`]; it decides nothing. Linux raises RTS and DTR on every open of
//! a tty: both are lowered at once, and the modem's sheet demands an interlock where that short pulse would key a transmitter (B3).

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_serial::{ClearBuffer, SerialPort, SerialPortBuilderExt, SerialStream};

use super::clock::Clock;
use crate::bearer::{Measurement, ModemAction, ModemEvent, WaveformName};
use crate::config::plan::{BearerPlan, KeyingPlan};
use crate::emcon::{Emission, EpochWatch, Keying};
use crate::mail::BearerId;
use crate::switch::Input;
use crate::time::Duration;
use crate::units::Bps;

/// What the switch sends to a modem.
#[derive(Debug)]
pub enum Order {
    /// Key or feed, if still allowed.
    Emit(Emission),
    /// Unkey or abort.
    Act(ModemAction),
}

/// What a driver needs to know of its modem.
#[derive(Clone, Debug)]
pub struct Port {
    /// The bearer it serves.
    pub bearer: BearerId,
    /// The tty.
    pub device: PathBuf,
    /// Line rate.
    pub baud: u32,
    /// Side channel, when the key line is not on the tty.
    pub side_channel: Option<PathBuf>,
}

impl Port {
    /// The port of a planned bearer.
    pub fn of(bearer: &BearerPlan) -> Self {
        let side_channel = match &bearer.keying {
            KeyingPlan::Lines => None,
            KeyingPlan::Socket(path) => Some(path.clone()),
        };
        Self { bearer: bearer.id.clone(), device: bearer.device.clone(), baud: bearer.baud, side_channel }
    }
}

const REOPEN_AFTER: Duration = Duration::from_secs(1);
const LINE_POLL: Duration = Duration::from_millis(10);
/// Real time a tty may take to hand over what the modem already output.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
const SIDE_LINE_MAX: u64 = 256;

/// Runs until the switch closes the order queue.
pub async fn drive(
    port: Port,
    clock: Clock,
    watch: EpochWatch,
    mut orders: UnboundedReceiver<Order>,
    to: Sender<Input>,
) {
    let tell = |event: ModemEvent| {
        // The switch thread ends before its drivers only when the node stops.
        let _ = to.send(Input::Modem { bearer: port.bearer.clone(), event });
    };
    loop {
        let opened = open(&port).await;
        match opened {
            Err(why) => tell(ModemEvent::Fault(why)),
            Ok((mut tty, keyline)) => {
                tell(ModemEvent::Ready);
                let ended = match keyline {
                    KeyLine::Side(reader, writer) => {
                        let mut session = Session {
                            clock: &clock,
                            watch: &watch,
                            fed: 0,
                            heard: 0,
                            pending_drop: None,
                            drop_by: None,
                        };
                        session.run_side(&mut tty, reader, writer, &mut orders, &tell).await
                    }
                    KeyLine::Lines => {
                        let mut session = Session {
                            clock: &clock,
                            watch: &watch,
                            fed: 0,
                            heard: 0,
                            pending_drop: None,
                            drop_by: None,
                        };
                        session.run_lines(&mut tty, &mut orders, &tell).await
                    }
                };
                match ended {
                    Ended::NodeStops => return,
                    Ended::Fault(why) => tell(ModemEvent::Fault(why)),
                }
            }
        }
        // Orders that arrive while there is no modem are dropped: the core was told of the fault and plans anew.
        let pause = tokio::time::sleep(clock.real_span(REOPEN_AFTER).max(Duration::from_millis(50)));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                order = orders.recv() => if order.is_none() { return },
            }
        }
    }
}

enum KeyLine {
    Lines,
    Side(BufReader<OwnedReadHalf>, OwnedWriteHalf),
}

enum Ended {
    NodeStops,
    Fault(String),
}

async fn open(port: &Port) -> Result<(SerialStream, KeyLine), String> {
    let shown = port.device.display();
    let mut tty = tokio_serial::new(port.device.to_string_lossy(), port.baud)
        .open_native_async()
        .map_err(|e| format!("cannot open {shown}: {e}"))?;
    let keyline = match &port.side_channel {
        Some(path) => {
            let (read, write) = connect(path).await?.into_split();
            KeyLine::Side(BufReader::new(read), write)
        }
        None => {
            tty.write_request_to_send(false).map_err(|e| format!("{shown} has no RTS line: {e}"))?;
            let _ = tty.write_data_terminal_ready(true);
            KeyLine::Lines
        }
    };
    let _ = tty.clear(ClearBuffer::All);
    Ok((tty, keyline))
}

async fn connect(path: &Path) -> Result<UnixStream, String> {
    UnixStream::connect(path)
        .await
        .map_err(|e| format!("cannot reach the modem's side channel {}: {e}", path.display()))
}

struct Session<'a> {
    clock: &'a Clock,
    watch: &'a EpochWatch,
    /// Bytes written to the tty in this key-down.
    fed: u64,
    /// Bytes read from the tty since the last carrier dropped.
    heard: u64,
    /// The carrier dropped after this many bytes, some of which are still in the tty.
    pending_drop: Option<u64>,
    /// When to stop waiting for them.
    drop_by: Option<tokio::time::Instant>,
}

/// What `HEARD [WAVEFORM RATE INTERLEAVER] [SNR DB] [BER RATIO]` says; a part that is missing or makes no sense is not told.
fn heard(line: &str) -> Measurement {
    let words: Vec<&str> = line.split(' ').collect();
    let after = |word: &str, n: usize| words.iter().position(|w| *w == word).and_then(|at| words.get(at + n)).copied();
    let tenths = |x: f64| (x.is_finite() && x.abs() < 1000.0).then_some((x * 10.0).round() as i16);
    let rate = after("WAVEFORM", 1).and_then(|r| r.parse().ok()).map(Bps);
    let interleaver = after("WAVEFORM", 2).map(Into::into);
    let ber = after("BER", 1).and_then(|b| b.parse::<f64>().ok()).filter(|b| (0.0..=1.0).contains(b));
    Measurement {
        waveform: rate.zip(interleaver).map(|(rate, interleaver)| WaveformName { rate, interleaver }),
        snr_tenths: after("SNR", 1).and_then(|db| db.parse().ok()).and_then(tenths),
        ber_tenths: ber.and_then(|b| tenths(b.max(1e-12).log10())),
    }
}

/// Reads on in the present line; what was read before a cancelled call is kept in `line`.
async fn next_line(side: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> std::io::Result<usize> {
    side.take(SIDE_LINE_MAX).read_until(b'\n', line).await
}

async fn overdue(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => core::future::pending().await,
    }
}

impl Session<'_> {
    async fn run_side(
        &mut self,
        tty: &mut SerialStream,
        mut side: BufReader<OwnedReadHalf>,
        mut key: OwnedWriteHalf,
        orders: &mut UnboundedReceiver<Order>,
        tell: &impl Fn(ModemEvent),
    ) -> Ended {
        let mut data = vec![0; 4096];
        let mut line = Vec::new();
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some(order) = order else { return Ended::NodeStops };
                    let done = match order {
                        Order::Emit(emission) => match emission.redeem(self.watch, self.clock.at()) {
                            None => Ok(()),
                            Some(Keying::Key) => {
                                self.fed = 0;
                                key.write_all(b"RTS 1\n").await
                            }
                            Some(Keying::Feed(bytes)) => {
                                self.fed += bytes.len() as u64;
                                tty.write_all(&bytes).await
                            }
                            // For networks.
                            Some(Keying::Datagram { .. } | Keying::Igmp { .. } | Keying::Join | Keying::Membership { .. }) => Ok(()),
                        },
                        Order::Act(ModemAction::Transmit(WaveformName { rate, interleaver })) => {
                            key.write_all(format!("WAVEFORM {} {interleaver}\n", rate.0).as_bytes()).await
                        }
                        Order::Act(ModemAction::Unkey) => key.write_all(format!("RTS 0 {}\n", self.fed).as_bytes()).await,
                        Order::Act(ModemAction::Abort) => {
                            let _ = tty.clear(ClearBuffer::Output);
                            key.write_all(b"ABORT\n").await
                        }
                    };
                    if let Err(e) = done {
                        return Ended::Fault(format!("modem write failed: {e}"));
                    }
                }
                read = next_line(&mut side, &mut line) => match read {
                    Ok(0) => return Ended::Fault("modem side channel closed".into()),
                    Ok(_) if line.ends_with(b"\n") => {
                        self.side_line(String::from_utf8_lossy(&line).trim_end(), tell);
                        line.clear();
                    }
                    Ok(_) if (line.len() as u64) < SIDE_LINE_MAX => {}
                    Ok(_) => return Ended::Fault("modem side channel sent an endless line".into()),
                    Err(e) => return Ended::Fault(format!("modem side channel failed: {e}")),
                },
                read = tty.read(&mut data) => match read {
                    Ok(0) => return Ended::Fault("modem port closed".into()),
                    Ok(n) => self.heard(&data[..n], tell),
                    Err(e) => return Ended::Fault(format!("modem read failed: {e}")),
                },
                () = overdue(self.drop_by) => {
                    // Bytes were lost between modem and host; the carrier is gone all the same.
                    self.pending_drop = Some(self.heard.min(self.pending_drop.unwrap_or(0)));
                    self.drop_carrier_when_read(tell);
                }
            }
        }
    }

    fn side_line(&mut self, line: &str, tell: &impl Fn(ModemEvent)) {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("KEYED"), _) => tell(ModemEvent::Keyed),
            (Some("UNKEYED"), _) => tell(ModemEvent::Unkeyed),
            (Some("DCD"), Some("1")) => {
                self.pending_drop = None;
                self.drop_by = None;
                tell(ModemEvent::Carrier(true));
            }
            (Some("DCD"), Some("0")) => {
                let total = words.next().and_then(|n| n.parse().ok()).unwrap_or(self.heard);
                self.pending_drop = Some(total);
                self.drop_by = Some(tokio::time::Instant::now() + DRAIN_PATIENCE);
                self.drop_carrier_when_read(tell);
            }
            (Some("FAULT"), _) => tell(ModemEvent::Fault(line.trim_start_matches("FAULT").trim().to_owned())),
            (Some("READY"), _) => tell(ModemEvent::Ready),
            (Some("HEARD"), _) => tell(ModemEvent::Measured(heard(line))),
            // CTS is pacing the core does for itself; unknown words are a newer modem's.
            _ => {}
        }
    }

    fn heard(&mut self, bytes: &[u8], tell: &impl Fn(ModemEvent)) {
        self.heard += bytes.len() as u64;
        tell(ModemEvent::Received(bytes.to_vec()));
        self.drop_carrier_when_read(tell);
    }

    fn drop_carrier_when_read(&mut self, tell: &impl Fn(ModemEvent)) {
        if let Some(total) = self.pending_drop.filter(|total| self.heard >= *total) {
            self.heard -= total;
            self.pending_drop = None;
            self.drop_by = None;
            tell(ModemEvent::Carrier(false));
        }
    }

    async fn run_lines(
        &mut self,
        tty: &mut SerialStream,
        orders: &mut UnboundedReceiver<Order>,
        tell: &impl Fn(ModemEvent),
    ) -> Ended {
        let mut data = vec![0; 4096];
        let mut poll = tokio::time::interval(LINE_POLL);
        let (mut cts, mut dcd) = (false, false);
        let mut unkeying = false;
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some(order) = order else {
                        let _ = tty.write_request_to_send(false);
                        return Ended::NodeStops;
                    };
                    let done = match order {
                        Order::Emit(emission) => match emission.redeem(self.watch, self.clock.at()) {
                            None => Ok(()),
                            Some(Keying::Key) => {
                                unkeying = false;
                                tty.write_request_to_send(true).map_err(std::io::Error::from)
                            }
                            Some(Keying::Feed(bytes)) => tty.write_all(&bytes).await,
                            // For networks.
                            Some(Keying::Datagram { .. } | Keying::Igmp { .. } | Keying::Join | Keying::Membership { .. }) => Ok(()),
                        },
                        // Lines carry no words: the profile's check lets no such bearer choose.
                        Order::Act(ModemAction::Transmit(_)) => Ok(()),
                        Order::Act(ModemAction::Unkey) => {
                            unkeying = true;
                            Ok(())
                        }
                        Order::Act(ModemAction::Abort) => {
                            let _ = tty.clear(ClearBuffer::Output);
                            tty.write_request_to_send(false).map_err(std::io::Error::from)
                        }
                    };
                    if let Err(e) = done {
                        return Ended::Fault(format!("modem write failed: {e}"));
                    }
                }
                read = tty.read(&mut data) => match read {
                    Ok(0) => return Ended::Fault("modem port closed".into()),
                    Ok(n) => tell(ModemEvent::Received(data[..n].to_vec())),
                    Err(e) => return Ended::Fault(format!("modem read failed: {e}")),
                },
                _ = poll.tick() => {
                    if unkeying && tty.bytes_to_write().is_ok_and(|n| n == 0) {
                        unkeying = false;
                        if let Err(e) = tty.write_request_to_send(false) {
                            return Ended::Fault(format!("modem lines failed: {e}"));
                        }
                    }
                    match tty.read_clear_to_send() {
                        Ok(now) if now != cts => {
                            cts = now;
                            tell(if now { ModemEvent::Keyed } else { ModemEvent::Unkeyed });
                        }
                        Ok(_) => {}
                        Err(e) => return Ended::Fault(format!("modem lines failed: {e}")),
                    }
                    match tty.read_carrier_detect() {
                        Ok(now) if now != dcd => {
                            dcd = now;
                            tell(ModemEvent::Carrier(now));
                        }
                        Ok(_) => {}
                        Err(e) => return Ended::Fault(format!("modem lines failed: {e}")),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_modem_measured_is_read_part_by_part() {
        let waveform = Some(WaveformName { rate: Bps(2400), interleaver: "L".into() });
        let all = heard("HEARD WAVEFORM 2400 L SNR -3.5 BER 1e-5");
        assert_eq!(all, Measurement { waveform: waveform.clone(), snr_tenths: Some(-35), ber_tenths: Some(-50) });
        assert_eq!(heard("HEARD SNR 12"), Measurement { snr_tenths: Some(120), ..Measurement::default() });
        assert_eq!(
            heard("HEARD WAVEFORM 2400 L BER 0"),
            Measurement { waveform, ber_tenths: Some(-120), ..Measurement::default() }
        );
        for nonsense in ["HEARD", "HEARD SNR nan", "HEARD SNR 1e9", "HEARD BER 2", "HEARD WAVEFORM x L"] {
            assert_eq!(heard(nonsense), Measurement::default(), "{nonsense}");
        }
    }
}
