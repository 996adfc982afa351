//! Real time: modem ports for programs that know nothing of the laboratory, and the loop that paces what is between them.
//!
//! A [`Frequency`] is what the modems share: the [`Ether`] that the virtual-time world drives, or a real waveform over an audio
//! channel ([`codec2::air`](crate::codec2::air)). [`Bridge`] puts each station's modem on a port (a pseudo-terminal or TCP), paces the
//! frequency by a [`Clock`], and plays what befalls it. Called by the demo, by `aldis-sim bridge`, and by end-to-end tests.

use std::io;

use aldis::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ether::{Ether, StationId};
use crate::modem::{Failure, ModemOutput};
use crate::scenario::{Event, What};

mod by_bytes;
mod clock;
pub mod command;
mod desk;
mod lines;
mod pty;
mod tcp;

pub use clock::Clock;
use desk::Desk;
use lines::{BACKLOG, Word};
pub use pty::PortPaths;
pub use tcp::TcpAddresses;

/// What the modems of a bridge share. Sans-IO and clockless: the six calls of a core, and the lines of each station.
pub trait Frequency {
    /// How many stations there are.
    fn stations(&self) -> u16;
    /// A host asks to transmit.
    fn key(&mut self, now: Instant, id: StationId);
    /// A host hands bytes to its modem.
    fn feed(&mut self, now: Instant, id: StationId, bytes: &[u8]);
    /// A host lets go: what was fed goes out, then the carrier goes off.
    fn unkey(&mut self, now: Instant, id: StationId);
    /// A host wants silence.
    fn abort(&mut self, now: Instant, id: StationId);
    /// A host takes the port, lines low.
    fn open_port(&mut self, now: Instant, id: StationId);
    /// It is gone: its lines fall.
    fn close_port(&mut self, now: Instant, id: StationId);
    /// A host says what to transmit with from the next key on; false when the modem cannot.
    fn select(&mut self, id: StationId, rate: u32, interleaver: &str) -> bool;
    /// A host moves DTR.
    fn set_dtr(&mut self, now: Instant, id: StationId, up: bool);
    /// Takes a path away or gives it back.
    fn set_link(&mut self, now: Instant, from: StationId, to: StationId, up: bool);
    /// Breaks or mends a modem.
    fn set_failure(&mut self, now: Instant, id: StationId, failure: Failure, broken: bool);
    /// Whether a station shows carrier detect.
    fn carrier(&self, id: StationId) -> bool;
    /// Acts on everything due at or before `now`.
    fn handle_timeout(&mut self, now: Instant);
    /// What a modem says next. Drain until `None` after each call.
    fn poll(&mut self) -> Option<(StationId, ModemOutput)>;
    /// When `handle_timeout` next has work.
    fn next_timeout(&self) -> Option<Instant>;
}

impl Frequency for Ether {
    fn stations(&self) -> u16 {
        u16::try_from(self.ids().count()).unwrap_or(u16::MAX)
    }

    fn key(&mut self, now: Instant, id: StationId) {
        Ether::key(self, now, id);
    }

    fn feed(&mut self, now: Instant, id: StationId, bytes: &[u8]) {
        Ether::feed(self, now, id, bytes);
    }

    fn select(&mut self, id: StationId, rate: u32, interleaver: &str) -> bool {
        Ether::select(self, id, rate, interleaver)
    }

    fn unkey(&mut self, now: Instant, id: StationId) {
        Ether::unkey(self, now, id);
    }

    fn abort(&mut self, now: Instant, id: StationId) {
        Ether::abort(self, now, id);
    }

    fn open_port(&mut self, now: Instant, id: StationId) {
        Ether::open_port(self, now, id, false);
    }

    fn close_port(&mut self, now: Instant, id: StationId) {
        Ether::close_port(self, now, id);
    }

    fn set_dtr(&mut self, now: Instant, id: StationId, up: bool) {
        Ether::set_dtr(self, now, id, up);
    }

    fn set_link(&mut self, now: Instant, from: StationId, to: StationId, up: bool) {
        Ether::set_link(self, now, from, to, up);
    }

    fn set_failure(&mut self, now: Instant, id: StationId, failure: Failure, broken: bool) {
        Ether::set_failure(self, now, id, failure, broken);
    }

    fn carrier(&self, id: StationId) -> bool {
        Ether::carrier(self, id)
    }

    fn handle_timeout(&mut self, now: Instant) {
        Ether::handle_timeout(self, now);
    }

    fn poll(&mut self) -> Option<(StationId, ModemOutput)> {
        Ether::poll(self)
    }

    fn next_timeout(&self) -> Option<Instant> {
        Ether::next_timeout(self)
    }
}

/// How a station's modem is to be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Port {
    /// A pseudo-terminal and a Unix socket.
    Terminal(PortPaths),
    /// Two TCP ports.
    Tcp(TcpAddresses),
}

impl From<PortPaths> for Port {
    fn from(paths: PortPaths) -> Self {
        Self::Terminal(paths)
    }
}

/// Where a station's modem is: a [`Port`] whose TCP ports are those it got.
pub type Place = Port;

/// What an onlooker sees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sight<'s> {
    /// A modem says something, or its antenna goes on or off.
    Modem(StationId, &'s ModemOutput),
    /// Something befell the frequency.
    Event(&'s What),
}

/// A frequency with its modems on open ports.
pub struct Bridge<F> {
    air: F,
    clock: Clock,
    desks: Vec<Desk>,
    places: Vec<Place>,
    /// What is still to befall it, last first.
    script: Vec<Event>,
    /// Keeps `heard` open when there is no port.
    _said: mpsc::Sender<(StationId, Word)>,
    heard: mpsc::Receiver<(StationId, Word)>,
    /// The ports' readers and writers: they end with the bridge.
    _tasks: JoinSet<io::Result<()>>,
}

impl<F: Frequency> Bridge<F> {
    /// Opens a port for each station of `air`, in order.
    pub async fn open(air: F, clock: Clock, ports: Vec<impl Into<Port>>) -> io::Result<Self> {
        let (said, heard) = mpsc::channel(BACKLOG);
        let mut tasks = JoinSet::new();
        let (mut desks, mut places) = (Vec::new(), Vec::new());
        for (id, port) in (0..air.stations()).map(StationId).zip(ports) {
            let (desk, place) = Desk::open(id, port.into(), &said, &mut tasks).await?;
            desks.push(desk);
            places.push(place);
        }
        Ok(Self { air, clock, desks, places, script: Vec::new(), _said: said, heard, _tasks: tasks })
    }

    /// Where the modems are, in the order of their stations.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Lets this happen while the bridge runs. What is not the frequency's business is left out.
    pub fn play(&mut self, events: &[Event]) {
        let ours = |event: &&Event| matches!(event.what, What::Path { .. } | What::Failure { .. });
        self.script.extend(events.iter().filter(ours).cloned());
        self.script.sort_by_key(|event| std::cmp::Reverse(event.at));
    }

    /// From now on the modem of a station is keyed by the bytes it is fed, and lets go when none has come for `unkey_after`; its lines
    /// take no host.
    pub fn key_by_bytes(&mut self, id: StationId, unkey_after: Duration) {
        let now = self.clock.now();
        if let Some(desk) = self.desks.get_mut(usize::from(id.0)) {
            desk.key_by_bytes(&mut self.air, now, unkey_after);
        }
    }

    /// Serves the ports until `shutdown` is done, and shows `watch` what happens, with the virtual time; gives the frequency back for
    /// its logs.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>, mut watch: impl FnMut(Instant, Sight<'_>)) -> F {
        tokio::pin!(shutdown);
        loop {
            let due = self.air.next_timeout().into_iter().chain(self.script.last().map(|event| event.at));
            let due = due.chain(self.desks.iter().filter_map(Desk::next_timeout)).min();
            let due = due.map(|at| self.clock.real(at)).into_iter();
            let due = due.chain(self.desks.iter().filter_map(Desk::patience_ends)).min();
            let sleep = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                word = self.heard.recv() => {
                    // A sender of ours lives as long as this loop.
                    if let Some((id, word)) = word && let Some(desk) = self.desks.get_mut(usize::from(id.0)) {
                        desk.take(&mut self.air, self.clock.now(), word);
                    }
                }
                () = sleep => {}
            }
            self.turn(&mut watch);
        }
        self.air
    }

    /// Does what is due now, and carries the modems' words to their hosts.
    fn turn(&mut self, watch: &mut impl FnMut(Instant, Sight<'_>)) {
        let now = self.clock.now();
        while let Some(event) = self.script.pop_if(|event| event.at <= now) {
            match event.what {
                What::Path { from, to, up } => self.air.set_link(now, from, to, up),
                What::Failure { station, failure, broken } => self.air.set_failure(now, station, failure, broken),
                _ => {}
            }
            watch(now, Sight::Event(&event.what));
        }
        self.air.handle_timeout(now);
        for desk in &mut self.desks {
            desk.give_up_waiting(&mut self.air, now);
        }
        loop {
            while let Some((id, output)) = self.air.poll() {
                watch(now, Sight::Modem(id, &output));
                if let Some(desk) = self.desks.get_mut(usize::from(id.0)) {
                    desk.tell(output);
                }
            }
            let acted = self.desks.iter_mut().filter_map(|desk| desk.turn(&mut self.air, now).then_some(())).count();
            if acted == 0 {
                return;
            }
        }
    }
}

/// Serves the stations of `air` on `ports`, in order, until `shutdown` is done; gives the frequency back for its logs.
pub async fn serve<F: Frequency>(
    air: F,
    clock: Clock,
    ports: Vec<impl Into<Port>>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<F> {
    Ok(Bridge::open(air, clock, ports).await?.run(shutdown, |_, _| {}).await)
}

#[cfg(test)]
mod tests;
