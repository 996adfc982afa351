//! Onward delivery: connections to next hops, each an `smtp::client::Session` over TCP, TLS or a Unix socket.
//!
//! A connection serves one message after the other as long as more wait for its hop, within bounds; then it says QUIT and waits for
//! the 221. What it hands over is settled at the hop's answer, not at the end of the connection.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsConnector;

use super::clock::Clock;
use super::tls;
use crate::config::Plan;
use crate::mail::{Precedence, Status};
use crate::smtp::client::{Config, Delivery, Dialect, Event, RecipientResult, Report, Session};
use crate::switch::Forward;
use crate::time::{Duration, Instant};

/// Longest wait for a connection and for a TLS handshake.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest wait for a hop to take our bytes.
const WRITE_PATIENCE: Duration = Duration::from_secs(180);
/// Messages that one connection carries.
const MESSAGES: u32 = 100;
/// How long one connection takes further messages.
const AGE: Duration = Duration::from_secs(300);
/// Connections to one hop at once; what is more waits for one of them, the highest precedence first.
const CONNECTIONS: usize = 4;
/// From this level on mail has one connection more, so that it never waits for the end of a lesser message.
const URGENT: Precedence = Precedence::Flash;

/// Makes connections to next hops, a bounded number at once.
#[derive(Clone)]
pub struct Forwarder(Arc<Shared>);

struct Shared {
    hostname: String,
    clock: Clock,
    room: Arc<Semaphore>,
    tls: Arc<ClientConfig>,
    lanes: Mutex<BTreeMap<Target, Lane>>,
}

/// One next hop.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    to: String,
    lmtp: bool,
}

/// What waits for one next hop.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Errand>,
    connections: usize,
}

impl Lane {
    /// What goes next. While there is one connection too many for it, lesser mail waits.
    fn next(&mut self) -> Option<Errand> {
        let urgent = self.waiting.front()?.forward.precedence >= URGENT;
        if urgent || self.connections <= CONNECTIONS { self.waiting.pop_front() } else { None }
    }
}

/// A message and who wants to know what became of it.
struct Errand {
    forward: Forward,
    done: oneshot::Sender<Report>,
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// An open connection.
struct Line {
    session: Session,
    stream: Box<dyn Wire>,
    since: Instant,
    messages: u32,
}

/// How driving a line ended. A line that is not given back is closed.
enum Drove {
    Done(Report, Option<Box<Line>>),
    TlsFailed,
    Lost(String),
}

impl Forwarder {
    /// The forwarder of one node.
    pub fn new(plan: &Plan, clock: Clock) -> Result<Self, String> {
        Ok(Self(Arc::new(Shared {
            hostname: plan.node.hostname.clone(),
            clock,
            room: Arc::new(Semaphore::new(plan.limits.deliveries.max(1))),
            tls: tls::opportunistic_client()?,
            lanes: Mutex::default(),
        })))
    }

    /// Delivers one message; every recipient gets a result, whatever happens to the connection.
    pub async fn deliver(&self, forward: Forward) -> Report {
        let count = forward.envelope.recipients.len();
        let target = Target { to: forward.to.clone(), lmtp: forward.lmtp };
        let (done, told) = oneshot::channel();
        if self.0.enqueue(&target, Errand { forward, done }) {
            let shared = self.0.clone();
            tokio::spawn(async move { shared.carry(&target).await });
        }
        told.await.unwrap_or_else(|_| nothing(count, "the node is stopping"))
    }
}

impl Shared {
    /// True when a further connection is wanted for it.
    fn enqueue(&self, target: &Target, errand: Errand) -> bool {
        let mut lanes = self.lanes();
        let lane = lanes.entry(target.clone()).or_default();
        let precedence = errand.forward.precedence;
        let wanted = lane.connections < CONNECTIONS + usize::from(precedence >= URGENT);
        lane.connections += usize::from(wanted);
        let behind = lane.waiting.partition_point(|other| other.forward.precedence >= precedence);
        lane.waiting.insert(behind, errand);
        wanted
    }

    fn next(&self, target: &Target) -> Option<Errand> {
        self.lanes().get_mut(target)?.next()
    }

    /// The same, for one that ends when nothing waits.
    fn next_or_end(&self, target: &Target) -> Option<Errand> {
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(target)?;
        let errand = lane.next();
        if errand.is_none() {
            lane.connections -= 1;
            if lane.connections == 0 {
                lanes.remove(target);
            }
        }
        errand
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<Target, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes connections to one hop while anything waits for it.
    async fn carry(&self, target: &Target) {
        let Ok(_permit) = self.room.clone().acquire_owned().await else { return };
        while let Some(errand) = self.next_or_end(target) {
            self.converse(target, errand).await;
        }
    }

    /// One connection from its first message to its end; a kept connection that has gone stale is replaced by another.
    async fn converse(&self, target: &Target, mut errand: Errand) {
        let mut line: Option<Box<Line>> = None;
        loop {
            let kept = line.is_some();
            let drove = match line.take() {
                Some(line) => self.deliver(*line, &errand.forward).await,
                None => self.deliver_on_new(&errand.forward).await,
            };
            let count = errand.forward.envelope.recipients.len();
            let (report, open) = match drove {
                Drove::Done(report, None) if kept && !report.answered => continue,
                Drove::Done(report, open) => (report, open),
                Drove::TlsFailed => (nothing(count, "the TLS handshake failed"), None),
                Drove::Lost(why) => (nothing(count, &why), None),
            };
            let _ = errand.done.send(report);
            let Some(open) = open else { return };
            let worn = open.messages >= MESSAGES || open.session.is_spent() || self.clock.at() >= open.since + AGE;
            match if worn { None } else { self.next(target) } {
                Some(next) => (errand, line) = (next, Some(open)),
                None => return self.leave(*open).await,
            }
        }
    }

    /// QUIT, and the wait for the 221, which the session bounds.
    async fn leave(&self, mut line: Line) {
        line.session.quit(self.clock.at());
        let _ = self.drive(line, "").await;
    }

    async fn deliver_on_new(&self, forward: &Forward) -> Drove {
        let mut starttls = true;
        loop {
            let line = match self.connect(forward, starttls).await {
                Ok(line) => line,
                Err(why) => return Drove::Lost(why),
            };
            match self.deliver(line, forward).await {
                // RFC 7435: opportunistic TLS that fails must not cost the mail.
                Drove::TlsFailed if starttls => starttls = false,
                drove => return drove,
            }
        }
    }

    async fn connect(&self, forward: &Forward, starttls: bool) -> Result<Line, String> {
        let to = &forward.to;
        let connecting = async {
            let stream: Box<dyn Wire> = if forward.lmtp && to.starts_with('/') {
                Box::new(UnixStream::connect(Path::new(to)).await?)
            } else {
                let stream = TcpStream::connect(to).await?;
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            };
            Ok::<_, std::io::Error>(stream)
        };
        let stream = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(format!("cannot connect to {to}: {e}")),
            Err(_) => return Err(format!("no connection to {to} in time")),
        };
        let dialect = if forward.lmtp { Dialect::Lmtp } else { Dialect::Smtp };
        let config = Config::new(self.hostname.clone(), dialect);
        let config = Config { starttls: starttls && config.starttls, ..config };
        let now = self.clock.at();
        Ok(Line { session: Session::new(now, Arc::new(config)), stream, since: now, messages: 0 })
    }

    async fn deliver(&self, mut line: Line, forward: &Forward) -> Drove {
        let by_seconds = forward.envelope.deliver_by.map(|by| (by.deadline.0 - self.clock.now().wall.0) / 1000);
        let (envelope, tracking) = (forward.envelope.clone(), forward.tracking.clone());
        let delivery = Delivery { envelope, body: forward.body.clone(), tracking, by_seconds };
        line.session.deliver(self.clock.at(), delivery);
        line.messages += 1;
        let host = forward.to.rsplit_once(':').map_or(forward.to.as_str(), |(host, _)| host).trim_matches(['[', ']']);
        self.drive(line, host).await
    }

    /// Moves bytes until the session has settled its message or ends.
    async fn drive(&self, mut line: Line, host: &str) -> Drove {
        let mut buffer = vec![0; 8 * 1024];
        let mut report = None;
        loop {
            while let Some(bytes) = line.session.poll_transmit() {
                match tokio::time::timeout(WRITE_PATIENCE, line.stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => line.session.handle_eof(self.clock.at()),
                }
            }
            let _ = line.stream.flush().await;
            let (mut close, mut handshake) = (false, false);
            while let Some(event) = line.session.poll_event() {
                match event {
                    Event::StartTls => handshake = true,
                    Event::Done(done) => report = Some(done),
                    Event::Close => close = true,
                }
            }
            if close {
                let _ = line.stream.shutdown().await;
                return match report {
                    Some(report) => Drove::Done(report, None),
                    None => Drove::Lost("the connection ended before the delivery did".into()),
                };
            }
            if let Some(report) = report {
                return Drove::Done(report, Some(Box::new(line)));
            }
            if handshake {
                let Ok(name) = ServerName::try_from(host.to_owned()) else { return Drove::TlsFailed };
                let connecting = TlsConnector::from(self.tls.clone()).connect(name, line.stream);
                let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, connecting).await else { return Drove::TlsFailed };
                line.stream = Box::new(stream);
                line.session.handle_tls_started(self.clock.at());
                continue;
            }
            let deadline = line.session.next_timeout().map_or(Duration::from_secs(600), |at| self.clock.real_until(at));
            tokio::select! {
                read = line.stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => line.session.handle_eof(self.clock.at()),
                    Ok(n) => line.session.handle_bytes(self.clock.at(), &buffer[..n]),
                },
                () = tokio::time::sleep(deadline) => line.session.handle_timeout(self.clock.at()),
            }
        }
    }
}

fn nothing(recipients: usize, why: &str) -> Report {
    let result = RecipientResult::Temporary { status: Status(4, 4, 1), text: why.to_owned() };
    Report { results: vec![result; recipients], dsn: false, tls: false, reached: false, answered: false }
}
