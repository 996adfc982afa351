//! Onward delivery: connections to next hops, each an `smtp::client::Session` over TCP, TLS or a Unix socket.
//!
//! A connection serves one message after the other as long as more wait for its hop, within bounds; then it says QUIT and waits for
//! the 221. What it hands over is settled at the hop's answer, not at the end of the connection. Where a hop has several hosts, one
//! after the other is tried until one hears about the message.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot};

use super::clock::Clock;
use super::mx::Exchange;
use super::next_hop::{self, Common, NextHop, Wire};
use crate::config::Plan;
use crate::mail::{Hop, Precedence, Status};
use crate::ops::document::{MxStatus, SmarthostStatus};
use crate::security::sts::Stored;
use crate::smtp::client::{Delivery, Event, RecipientResult, Report, Session};
use crate::smtp::hosts::Failure;
use crate::smtp::mx::NoWay;
use crate::switch::{Fault, Forward, Forwarded, Note};
use crate::time::{Duration, Instant};

/// How long one connection takes further messages.
const AGE: Duration = Duration::from_secs(300);
/// From this level on mail has one connection more, so that it never waits for the end of a lesser message.
const URGENT: Precedence = Precedence::Flash;

/// Makes connections to next hops, a bounded number at once.
#[derive(Clone)]
pub struct Forwarder(Arc<Shared>);

struct Shared {
    clock: Clock,
    room: Arc<Semaphore>,
    /// Room that only urgent mail may take besides: however many hosts are slow, it does not wait for them.
    reserve: Arc<Semaphore>,
    common: Common,
    /// Next hops that the profile describes, by their names.
    smarthosts: BTreeMap<String, Arc<NextHop>>,
    /// Those that the DNS names, where a route leads to them.
    exchange: Option<Exchange>,
    lanes: Mutex<BTreeMap<Way, Lane>>,
}

/// A next hop, and which set of hosts it stands for where the DNS named them.
type Way = (Hop, u64);

/// What waits for one next hop.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Errand>,
    connections: usize,
}

impl Lane {
    /// What goes next. While there is one connection too many for it, lesser mail waits; on one from the reserve it always does.
    fn next(&mut self, ordinary: usize, reserved: bool) -> Option<Errand> {
        let may = self.is_urgent() || self.connections <= ordinary && !reserved;
        if may { self.waiting.pop_front() } else { None }
    }

    /// Whether urgent mail waits.
    fn is_urgent(&self) -> bool {
        self.waiting.front().is_some_and(|errand| errand.forward.precedence >= URGENT)
    }
}

/// A message and who wants to know what became of it.
struct Errand {
    forward: Forward,
    done: oneshot::Sender<Forwarded>,
}

/// What a task that makes connections does next.
enum Turn {
    /// It sends this.
    Errand(Box<Errand>),
    /// What waits is not urgent enough for the reserve.
    WithoutReserve,
    /// It ends.
    End,
}

/// An open connection.
struct Line {
    session: Session,
    stream: Box<dyn Wire>,
    /// Which of the hop's hosts it leads to.
    host: usize,
    since: Instant,
    messages: u32,
}

/// How driving a line ended. A line that is not given back is closed.
enum Drove {
    Done(Report, Option<Box<Line>>),
    TlsFailed(String),
    /// The host is not to be used.
    Barred(String),
    Lost(String),
}

impl Forwarder {
    /// The forwarder of one node, with the policies of domains that the store has.
    pub fn new(plan: &Plan, clock: Clock, policies: &[(String, Stored)]) -> Result<Self, String> {
        let common = Common::new(plan)?;
        Ok(Self(Arc::new(Shared {
            exchange: Exchange::new(plan, &common, clock.clone(), policies)?,
            clock,
            room: Arc::new(Semaphore::new(plan.limits.deliveries.max(1))),
            reserve: Arc::new(Semaphore::new((plan.limits.deliveries / 4).max(1))),
            smarthosts: NextHop::all(&common, plan)?,
            common,
            lanes: Mutex::default(),
        })))
    }

    /// Delivers one message; every recipient gets a result, whatever happens to the connection.
    pub async fn deliver(&self, forward: Forward) -> Forwarded {
        let count = forward.envelope.recipients.len();
        let (hop, notes) = match &forward.hop {
            Hop::Mx(domain) => match &self.0.exchange {
                Some(exchange) => exchange.next_hop(&self.0.common, domain, forward.tls_optional).await,
                None => (Err(no_such_hop()), Vec::new()),
            },
            other => (next_hop::of(&self.0.common, &self.0.smarthosts, other).ok_or_else(no_such_hop), Vec::new()),
        };
        let hop = match hop {
            Ok(hop) => hop,
            Err(no) => return Forwarded { notes, ..Forwarded::alone(no_way(count, no)) },
        };
        let (done, told) = oneshot::channel();
        let lane = (forward.hop.clone(), hop.serial);
        if self.0.enqueue(&lane, &hop, Errand { forward, done }) {
            let shared = self.0.clone();
            tokio::spawn(async move { shared.carry(&lane, &hop).await });
        }
        let stopping = |_| Forwarded::alone(nothing(count, Status(4, 3, 2), "the node is stopping"));
        let mut forwarded = told.await.unwrap_or_else(stopping);
        forwarded.notes.splice(..0, notes);
        forwarded
    }

    /// How the domains are whose hosts the DNS names.
    pub fn mx_status(&self) -> Vec<MxStatus> {
        self.0.exchange.as_ref().map(Exchange::status).unwrap_or_default()
    }

    /// How the next hops are that the profile describes.
    pub fn status(&self) -> Vec<SmarthostStatus> {
        let now = self.0.clock.at();
        self.0.smarthosts.iter().map(|(name, hop)| hop.status(now, name)).collect()
    }
}

impl Shared {
    /// True when a further connection is wanted for it.
    fn enqueue(&self, lane: &Way, hop: &NextHop, errand: Errand) -> bool {
        let mut lanes = self.lanes();
        let lane = lanes.entry(lane.clone()).or_default();
        let precedence = errand.forward.precedence;
        let most = if precedence >= URGENT { hop.connections } else { hop.ordinary() };
        let wanted = lane.connections < most;
        lane.connections += usize::from(wanted);
        let behind = lane.waiting.partition_point(|other| other.forward.precedence >= precedence);
        lane.waiting.insert(behind, errand);
        wanted
    }

    fn next(&self, lane: &Way, hop: &NextHop, reserved: bool) -> Option<Errand> {
        self.lanes().get_mut(lane)?.next(hop.ordinary(), reserved)
    }

    /// The same, for one that ends when nothing waits for it.
    fn next_or_end(&self, target: &Way, hop: &NextHop, reserved: bool) -> Turn {
        let mut lanes = self.lanes();
        let Some(lane) = lanes.get_mut(target) else { return Turn::End };
        if let Some(errand) = lane.next(hop.ordinary(), reserved) {
            return Turn::Errand(Box::new(errand));
        }
        if reserved && !lane.waiting.is_empty() && lane.connections <= hop.ordinary() {
            return Turn::WithoutReserve;
        }
        lane.connections -= 1;
        if lane.connections == 0 {
            lanes.remove(target);
        }
        Turn::End
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<Way, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes connections to one hop while anything waits for it.
    async fn carry(&self, lane: &Way, hop: &NextHop) {
        loop {
            let wait = self.clock.real_span(hop.turn(self.clock.at()));
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let urgent = self.lanes().get(lane).is_some_and(Lane::is_urgent);
            let Ok((_permit, reserved)) = self.permit(urgent).await else { return };
            match self.next_or_end(lane, hop, reserved) {
                Turn::Errand(errand) => self.converse(lane, hop, *errand, reserved).await,
                Turn::WithoutReserve => {}
                Turn::End => return,
            }
        }
    }

    /// Leave to make one more connection, and whether it is from the reserve.
    async fn permit(&self, urgent: bool) -> Result<(OwnedSemaphorePermit, bool), AcquireError> {
        let room = self.room.clone().acquire_owned();
        if !urgent {
            return room.await.map(|permit| (permit, false));
        }
        tokio::select! {
            biased;
            permit = room => permit.map(|permit| (permit, false)),
            permit = self.reserve.clone().acquire_owned() => permit.map(|permit| (permit, true)),
        }
    }

    /// One connection from its first message to its end; a kept connection that has gone stale is replaced by another.
    async fn converse(&self, lane: &Way, hop: &NextHop, mut errand: Errand, reserved: bool) {
        let mut line: Option<Box<Line>> = None;
        loop {
            let (forwarded, open) = match line.take() {
                Some(kept) => match self.deliver_on_kept(hop, *kept, &errand.forward).await {
                    Some(delivered) => delivered,
                    None => continue,
                },
                None => self.deliver_on_new(hop, &errand.forward).await,
            };
            let _ = errand.done.send(forwarded);
            let Some(open) = open else { return };
            let worn = open.messages >= hop.messages || open.session.is_spent() || self.clock.at() >= open.since + AGE;
            match if worn { None } else { self.next(lane, hop, reserved) } {
                Some(next) => (errand, line) = (next, Some(open)),
                None => return self.leave(hop, *open).await,
            }
        }
    }

    /// QUIT, and the wait for the 221, which the session bounds.
    async fn leave(&self, hop: &NextHop, mut line: Line) {
        line.session.quit(self.clock.at());
        let _ = self.drive(hop, line).await;
    }

    /// `None` when the message needs another connection: this one went stale, or its host cannot have it.
    async fn deliver_on_kept(
        &self,
        hop: &NextHop,
        line: Line,
        forward: &Forward,
    ) -> Option<(Forwarded, Option<Box<Line>>)> {
        let host = line.host;
        match self.deliver(hop, line, forward).await {
            Drove::Done(report, open) if report.answered && report.reached => {
                hop.served(host);
                Some((Forwarded { by: hop.shown(host), ..Forwarded::alone(report) }, open))
            }
            Drove::Done(_, Some(open)) => {
                self.leave(hop, *open).await;
                None
            }
            Drove::Done(_, None) | Drove::TlsFailed(_) | Drove::Barred(_) | Drove::Lost(_) => None,
        }
    }

    /// Tries one host after the other until one hears about the message. What all of them refuse for good is refused for good.
    async fn deliver_on_new(&self, hop: &NextHop, forward: &Forward) -> (Forwarded, Option<Box<Line>>) {
        let count = forward.envelope.recipients.len();
        let (mut faults, mut notes) = (Vec::new(), Vec::new());
        let mut last: Option<(Report, String)> = None;
        for index in hop.order(self.clock.at()) {
            let host = hop.shown(index);
            let (report, open) = match self.deliver_at(hop, index, forward).await {
                Drove::Done(report, open) => (report, open),
                Drove::TlsFailed(why) | Drove::Barred(why) => (nothing(count, Status(4, 7, 5), &why), None),
                Drove::Lost(why) => (nothing(count, Status(4, 4, 1), &why), None),
            };
            if report.reached {
                hop.served(index);
                notes.extend(hop.doubt(index, report.tls).map(|why| Note::Untrue { host: host.clone(), why }));
                return (Forwarded { report, by: host, faults, notes }, open);
            }
            match open {
                // The host is well; it is this message that it cannot have.
                Some(open) => self.leave(hop, *open).await,
                None => {
                    let failure = if report.login_refused { Failure::Login } else { Failure::Away };
                    let why = words(&report);
                    hop.failed(self.clock.at(), index, failure, &why);
                    faults.push(Fault { host: host.clone(), why });
                }
            }
            if last.as_ref().is_none_or(|(last, _)| is_permanent(last)) {
                last = Some((report, host));
            }
        }
        let (report, by) = last.unwrap_or_else(|| {
            let why = format!("not tried again yet: {}", hop.why_none());
            (nothing(count, Status(4, 7, 8), &why), String::new())
        });
        (Forwarded { report, by, faults, notes }, None)
    }

    async fn deliver_at(&self, hop: &NextHop, index: usize, forward: &Forward) -> Drove {
        if let Some(why) = hop.barred(index) {
            return Drove::Barred(why);
        }
        let mut clear = false;
        loop {
            let drove = match self.connect(hop, index, clear).await {
                Ok(line) => self.deliver(hop, line, forward).await,
                Err(drove) => drove,
            };
            match drove {
                // RFC 7435: opportunistic TLS that fails must not cost the mail.
                Drove::TlsFailed(_) if hop.may_go_clear(index) && !clear => clear = true,
                drove => return drove,
            }
        }
    }

    async fn connect(&self, hop: &NextHop, index: usize, clear: bool) -> Result<Line, Drove> {
        let config = Arc::new(hop.config(index, clear).map_err(Drove::Lost)?);
        let mut stream = hop.connect(index).await.map_err(Drove::Lost)?;
        let mut exporter = None;
        if hop.is_implicit() {
            (stream, exporter) = hop.handshake(index, stream).await.map_err(Drove::TlsFailed)?;
        }
        let now = self.clock.at();
        let mut session = Session::new(now, config);
        if hop.is_implicit() {
            session.handle_tls_started(now, exporter);
        }
        Ok(Line { session, stream, host: index, since: now, messages: 0 })
    }

    async fn deliver(&self, hop: &NextHop, mut line: Line, forward: &Forward) -> Drove {
        let by_seconds = forward.envelope.deliver_by.map(|by| (by.deadline.0 - self.clock.now().wall.0) / 1000);
        let (envelope, body) = (forward.envelope.clone(), forward.body.clone());
        let tracking = forward.tracking.clone();
        let delivery = Delivery { envelope, body, tracking, by_seconds };
        line.session.deliver(self.clock.at(), delivery);
        line.messages += 1;
        self.drive(hop, line).await
    }

    /// Moves bytes until the session has settled its message or ends.
    async fn drive(&self, hop: &NextHop, mut line: Line) -> Drove {
        let mut buffer = vec![0; 8 * 1024];
        let patience = hop.write_patience();
        let mut report = None;
        loop {
            while let Some(bytes) = line.session.poll_transmit() {
                match tokio::time::timeout(patience, line.stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => line.session.handle_eof(self.clock.at()),
                }
            }
            let _ = line.stream.flush().await;
            let (mut close, mut handshake, mut derive) = (false, false, None);
            while let Some(event) = line.session.poll_event() {
                match event {
                    Event::StartTls => handshake = true,
                    Event::DeriveKeys { salt, iterations } => derive = Some((salt, iterations)),
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
                match hop.handshake(line.host, line.stream).await {
                    Ok((stream, exporter)) => {
                        line.stream = stream;
                        line.session.handle_tls_started(self.clock.at(), exporter);
                    }
                    Err(why) => return Drove::TlsFailed(why),
                }
                continue;
            }
            if let Some((salt, iterations)) = derive {
                match hop.keys(salt, iterations).await {
                    Some(keys) => line.session.handle_keys(self.clock.at(), &keys),
                    None => return Drove::Lost("the password's keys could not be derived".into()),
                }
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

fn is_permanent(report: &Report) -> bool {
    report.results.iter().all(|r| matches!(r, RecipientResult::Permanent { .. }))
}

/// Why a host did not get as far as hearing about a message.
fn words(report: &Report) -> String {
    let text = report.results.iter().find_map(|r| match r {
        RecipientResult::Temporary { text, .. } | RecipientResult::Permanent { text, .. } => Some(text.clone()),
        RecipientResult::Delivered { .. } => None,
    });
    text.unwrap_or_default()
}

fn no_such_hop() -> NoWay {
    NoWay { status: Status(4, 3, 5), ..NoWay::later("the profile has no such next hop".to_owned()) }
}

fn no_way(recipients: usize, no: NoWay) -> Report {
    let NoWay { is_permanent, status, why: text } = no;
    let mut report = nothing(recipients, status, &text);
    if is_permanent {
        report.results = vec![RecipientResult::Permanent { status, text }; recipients];
    }
    report
}

fn nothing(recipients: usize, status: Status, why: &str) -> Report {
    let result = RecipientResult::Temporary { status, text: why.to_owned() };
    let results = vec![result; recipients];
    Report { results, dsn: false, deliver_by: false, tls: false, reached: false, answered: false, login_refused: false }
}
