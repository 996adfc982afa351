//! The driver of the real world: sockets, ttys, signals, threads and the machine's clock around one [`Switch`](crate::switch::Switch).
//!
//! ```text
//! listeners --Ask--> +--------+ --Work::Store--> writer thread (redb, group commit)
//! modems  --Event--> | switch | --Work::*------> pool (encode, decode, symbols, Maildir), tasks (SMTP, LMTP out, checks)
//! control --Request> | thread | --Emit, Act----> modem drivers
//! Done    ---------> +--------+ --Answer, Reply> sessions, control clients
//! ```
//!
//! It moves bytes and timers and decides nothing.

mod burl;
pub mod check;
pub mod clock;
mod control;
mod dane;
mod dns;
mod executor;
mod files;
mod forward;
mod igmp;
mod listen;
mod modem;
mod multicast;
mod mx;
mod next_hop;
mod outage;
mod sts;
mod tls;
mod writer;

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::config::Plan;
use crate::ops::{self, Request};
use crate::queue::{Disk, Engine, Options, RealDisk};
use crate::smtp::policy::Budget;
use crate::switch::{Input, Switch, kept_policies};
use crate::time::Duration;

use clock::Clock;
use executor::Executor;

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Listener names and the addresses they got.
    pub listeners: Vec<(String, SocketAddr)>,
    /// Names and paths of those on a socket of this machine.
    pub sockets: Vec<(String, PathBuf)>,
    /// Its control socket.
    pub socket: PathBuf,
    to: Sender<Input>,
    stopping: watch::Sender<bool>,
    failed: watch::Receiver<Option<String>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    drivers: JoinSet<()>,
    desk: JoinSet<()>,
}

/// Events a control client may fall behind before it is told that it missed some.
const EVENT_BACKLOG: usize = 4096;
/// Length of the store's log. What stands in it is done again by a start after a crash, in less than a second.
const STORE_LOG_BYTES: u64 = 16 << 20;
/// Memory for pages of the store. Half of it takes what is changed, and must hold what a full log comes to (each body of 10 KB, say, three pages):
/// pages that find no room are written before their time, and again with the commit.
const STORE_CACHE_BYTES: usize = 48 << 20;
/// How long a start waits for the store of a node that is still ending.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits for modems to take their last orders.
const DRIVER_PATIENCE: Duration = Duration::from_secs(1);

impl Node {
    /// Opens the store, binds everything, starts the threads. On return mail is accepted. Must be called inside a tokio runtime.
    pub async fn start(plan: Plan, clock: Clock) -> Result<Self, String> {
        files::allow(&plan);
        let plan = Arc::new(plan);
        let disk: Arc<dyn Disk> = Arc::new(open_disk(&plan).await?);
        let options = Options {
            floor_bytes: plan.limits.disk_floor_bytes,
            fresh_epoch: u32::from_ne_bytes(random()?),
            log_bytes: STORE_LOG_BYTES,
            cache_bytes: STORE_CACHE_BYTES,
            ..Options::default()
        };
        let (engine, opened) = Engine::open(disk.clone(), options).map_err(|e| e.to_string())?;
        for damaged in &opened.damaged {
            tracing::error!(record = %damaged, "a stored record could not be read; it was set aside");
        }
        let snapshots = engine.snapshots();

        let budget = Arc::new(Budget::new(plan.limits.in_flight_bytes));
        let mut doors = Vec::new();
        for listener in &plan.listeners {
            doors.push(listen::Door::open(listener, &plan, &budget).await?);
        }
        let (mut listeners, mut sockets, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        for door in &doors {
            let name = door.name().to_owned();
            match door.place() {
                listen::Place::Net(address) => {
                    shown.push((name.clone(), address.to_string()));
                    listeners.push((name, *address));
                }
                listen::Place::Path(path) => {
                    shown.push((name.clone(), path.display().to_string()));
                    sockets.push((name, path.clone()));
                }
            }
        }
        let socket = control::bind(&plan.node.socket, plan.node.socket_mode).await?;

        let (to, inputs) = mpsc::channel();
        let (calls, writer_calls) = mpsc::channel();
        let (stopping, stopped) = watch::channel(false);
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let sessions = Arc::new(listen::Sessions::default());
        let pending = Arc::new(control::Pending::default());

        let policies = kept_policies(&opened.settings);
        let switch = Switch::new(clock.now(), plan.clone(), opened, shown, u64::from_ne_bytes(random()?));
        let mut modems = std::collections::BTreeMap::new();
        let mut drivers = JoinSet::new();
        for bearer in &plan.bearers {
            let Some(watch) = switch.epoch_watch(&bearer.id) else { continue };
            let (orders, queue) = tokio::sync::mpsc::unbounded_channel();
            modems.insert(bearer.id.clone(), orders);
            drivers.spawn(modem::drive(modem::Port::of(bearer), clock.clone(), watch, queue, to.clone()));
        }
        let backlog = multicast::Backlog::default();
        for plan in plan.nets() {
            let Some(watch) = switch.epoch_watch(&plan.id) else { continue };
            let (orders, queue) = tokio::sync::mpsc::unbounded_channel();
            modems.insert(plan.id.clone(), orders);
            let net = multicast::Net::of(plan);
            drivers.spawn(multicast::drive(net, clock.clone(), watch, queue, to.clone(), backlog.clone()));
        }

        let forwards = forward::Forwarder::new(&plan, clock.clone(), &policies)?;
        let (hops, refused) = (forwards.clone(), doors.iter().map(listen::Door::refused).collect::<Vec<_>>());
        let executor = Executor {
            to: to.clone(),
            calls,
            modems,
            sessions: sessions.clone(),
            pending: pending.clone(),
            events: events.clone(),
            runtime: tokio::runtime::Handle::current(),
            maildirs: plan.local.maildir.clone(),
            checker: check::Checker::new(&plan),
            forwards,
            clock: clock.clone(),
        };
        let mut threads = Vec::new();
        let done = to.clone();
        let (tell_failure, failed) = watch::channel(None);
        let orders = writer::LastWords::default();
        let last = orders.clone();
        let store = move || writer::run(engine, &writer_calls, &done, &tell_failure, &last);
        threads.push(thread("aldis-store", store)?);
        let driver = clock.clone();
        threads
            .push(thread("aldis-switch", move || run_switch(switch, &inputs, &driver, &executor, &orders, &backlog))?);
        if !plan.peers.is_empty() || !plan.mules.is_empty() {
            let site = plan.codec.dictionary.clone();
            // Nobody waits for it, at the end neither; where there is no thread to be had, the first message reads the dictionaries itself.
            let _ = std::thread::Builder::new()
                .name("aldis-warm".into())
                .spawn(move || crate::codec::payload::warm(site.as_deref()));
        }

        let (reader_clock, readers) = (clock.clone(), snapshots.clone());
        let at_desk = control::Desk {
            to: to.clone(),
            pending,
            read: Arc::new(move |request| ops::read::answer(request, &snapshots)),
            complete: Arc::new(move |request, response| match request {
                Request::Status => {
                    let edge = ops::read::Edge {
                        free_bytes: disk.free_bytes().unwrap_or(0),
                        smarthosts: hops.status(),
                        mx: hops.mx_status(),
                        refused: refused.iter().map(|r| r.counts()).collect(),
                    };
                    ops::read::complete_status(response, &readers, edge, reader_clock.now())
                }
                Request::EmconWhatIf { .. } => ops::read::complete_what_if(response, &readers),
                _ => response,
            }),
            events,
        };
        let mut desk = JoinSet::new();
        desk.spawn(control::serve(socket, at_desk));
        let house = Arc::new(listen::House::new(plan.clone(), clock, sessions, to.clone(), stopped, failed.clone()));
        for door in doors {
            tokio::spawn(door.serve(house.clone()));
        }
        Ok(Self {
            name: plan.node.name.to_string(),
            listeners,
            sockets,
            socket: plan.node.socket.clone(),
            to,
            stopping,
            failed,
            threads,
            drivers,
            desk,
        })
    }

    /// The line `aldis run` prints when everything is bound.
    pub fn ready_line(&self) -> String {
        let mut line = format!("ready node={}", self.name);
        for (name, address) in &self.listeners {
            line.push_str(&format!(" {name}={address}"));
        }
        for (name, path) in &self.sockets {
            line.push_str(&format!(" {name}={}", path.display()));
        }
        line.push_str(&format!(" socket={}", self.socket.display()));
        line
    }

    /// Waits until the store fails, if it does, and says why. The node then refuses all mail, and only a restart helps: it goes on
    /// from what reached the disk.
    pub async fn store_failed(&self) -> String {
        let mut failed = self.failed.clone();
        loop {
            if let Some(why) = failed.borrow_and_update().clone() {
                return why;
            }
            if failed.changed().await.is_err() {
                // The writer ended without a failure: the node is stopping.
                return core::future::pending().await;
            }
        }
    }

    /// Stops cleanly: sessions are told 421, transmitters are unkeyed, what was promised is in the store.
    pub async fn stop(mut self) {
        let _ = self.stopping.send(true);
        let _ = self.to.send(Input::Stop);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads.into_iter().rev() {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
        // The last orders to the modems are in their drivers' queues: unkey is written before the end is reported.
        let written = async { while self.drivers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRIVER_PATIENCE, written).await;
        // Readers of the store hold its lock, which the next owner of the directory needs.
        self.desk.shutdown().await;
        for path in self.sockets.iter().map(|(_, path)| path).chain([&self.socket]) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Runs one node until SIGTERM or SIGINT. Exit code 0 after a clean stop, 1 when it could not start or its store failed.
pub fn run(plan: Plan) -> ExitCode {
    // The switch and the store have threads of their own.
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .enable_all()
        .max_blocking_threads(32)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("aldis: cannot start: {error}");
            return ExitCode::from(1);
        }
    };
    let code = runtime.block_on(async {
        let clock = Clock::real(plan.node.clock_trusted);
        let node = match Node::start(plan, clock).await {
            Ok(node) => node,
            Err(why) => {
                eprintln!("aldis: cannot start: {why}");
                return ExitCode::from(1);
            }
        };
        println!("{}", node.ready_line());
        let failure = tokio::select! {
            () = wait_for_signal() => None,
            why = node.store_failed() => Some(why),
        };
        let Some(why) = failure else {
            node.stop().await;
            return ExitCode::SUCCESS;
        };
        tracing::error!(%why, "the store failed, stopping: nothing acknowledged is lost, and the next start goes on from the disk");
        tokio::select! {
            () = node.stop() => {}
            // An operator may end it even while an order of silence cannot be stored.
            () = wait_for_signal() => {}
        }
        ExitCode::from(1)
    });
    // Tasks that still wait for a peer must not hold the exit.
    runtime.shutdown_timeout(core::time::Duration::from_millis(500));
    code
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("cannot listen for signals; stop with SIGKILL");
        return core::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn run_switch(
    mut switch: Switch,
    inputs: &Receiver<Input>,
    clock: &Clock,
    executor: &Executor,
    orders: &writer::LastWords,
    backlog: &multicast::Backlog,
) {
    loop {
        let input = match switch.next_timeout() {
            Some(deadline) => inputs.recv_timeout(clock.real_until(deadline)),
            None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let now = clock.now();
        if matches!(input, Ok(Input::Datagram { .. })) {
            backlog.leave();
        }
        match input {
            Ok(Input::Stop) => {
                *orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(switch.orders_in_force());
                switch.stop(now);
                drain(&mut switch, executor);
                return;
            }
            Ok(input) => switch.handle(now, input),
            Err(RecvTimeoutError::Timeout) => switch.handle_timeout(now),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        drain(&mut switch, executor);
    }
}

fn drain(switch: &mut Switch, executor: &Executor) {
    while let Some(output) = switch.poll_output() {
        executor.execute(output);
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, String> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(guarded(body)).map_err(|e| format!("cannot start a thread: {e}"))
}

/// A thread's work, whose panic ends the process.
fn guarded(body: impl FnOnce()) -> impl FnOnce() {
    move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
            // A core broke its own invariant: what is promised is in the store, and nothing may be guessed from here on.
            eprintln!("aldis: internal error, stopping at once; the queue is safe and resumes at the next start");
            std::process::abort();
        }
    }
}

async fn open_disk(plan: &Plan) -> Result<RealDisk, String> {
    let mut waited = Duration::ZERO;
    loop {
        match RealDisk::open(&plan.node.state_dir) {
            Ok(disk) => return Ok(disk),
            Err(error) if waited >= STORE_PATIENCE => return Err(error.to_string()),
            Err(_) => {
                let pause = Duration::from_millis(250);
                tokio::time::sleep(pause).await;
                waited += pause;
            }
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(bytes)
}
