//! SMTP listeners: one task per connection moves bytes between a socket and an `smtp::server::Session`.
//!
//! Static policy is answered here from the plan: passwords on the pool, everything about mail is asked of the switch.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::burl::Fetcher;
use super::clock::Clock;
use super::{control, tls};
use crate::config::plan::{ListenerAddress, ListenerKind, ListenerPlan, UserPlan};
use crate::config::{Password, Plan};
use crate::mail::Status;
use crate::security::certificate;
use crate::smtp::policy::{Budget, Kind, Mechanisms, Peer, Policy};
use crate::smtp::rate::{Pace, Refusal, Refused};
use crate::smtp::server::{Answer, AskId, Event, Question, Session, TlsFacts};
use crate::smtp::{Reply, scram};
use crate::switch::{Input, SessionId, by_profile};
use crate::time::Duration;

/// Passwords checked at once; Argon2 is dear by design.
const PASSWORD_CHECKS: usize = 2;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Longest wait for a client to take our bytes.
const WRITE_PATIENCE: Duration = Duration::from_secs(120);

/// An address, in all or at one listener.
type Seat = (IpAddr, Option<Arc<str>>);

/// Sessions that wait for the switch's answers.
#[derive(Debug, Default)]
pub struct Sessions {
    next: AtomicU64,
    open: Mutex<BTreeMap<SessionId, UnboundedSender<(AskId, Answer)>>>,
    /// Sessions of each address, in all and at each listener.
    by_address: Mutex<BTreeMap<Seat, usize>>,
}

impl Sessions {
    /// Hands an answer to its session; a session that ended needs none.
    pub fn answer(&self, session: SessionId, ask: AskId, answer: Answer) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = open.get(&session) {
            let _ = waiting.send((ask, answer));
        }
    }

    fn enter(&self) -> (SessionId, UnboundedReceiver<(AskId, Answer)>) {
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let (tx, rx) = unbounded_channel();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tx);
        (id, rx)
    }

    fn leave(&self, id: SessionId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is room for one more of this address, by the bound of all listeners and by this one's own; then it has it.
    fn admit(&self, address: IpAddr, in_all: usize, door: &Door) -> bool {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let places = [((address, None), in_all), ((address, Some(door.name.clone())), door.sessions_per_address)];
        let room = places.iter().all(|(place, limit)| by_address.get(place).copied().unwrap_or(0) < *limit);
        if room {
            for (place, _) in places {
                *by_address.entry(place).or_default() += 1;
            }
        }
        room
    }

    fn dismiss(&self, address: IpAddr, door: &Door) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        for place in [(address, None), (address, Some(door.name.clone()))] {
            if let Some(count) = by_address.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&place);
                }
            }
        }
    }
}

/// What all connections share.
pub struct House {
    plan: Arc<Plan>,
    clock: Clock,
    sessions: Arc<Sessions>,
    to: Sender<Input>,
    stopped: watch::Receiver<bool>,
    /// Why the store takes nothing any more.
    failed: watch::Receiver<Option<String>>,
    checks: Arc<Semaphore>,
    /// What an unknown user's password is compared with, so that it costs as much time as a known one's.
    decoy: Option<Password>,
    /// From it come the salts of users who have none. The profile gives it, so it outlives a restart.
    salts: Vec<u8>,
    /// The iterations those are told: what the others have.
    iterations: u32,
}

impl House {
    /// The house of one node.
    pub fn new(
        plan: Arc<Plan>,
        clock: Clock,
        sessions: Arc<Sessions>,
        to: Sender<Input>,
        stopped: watch::Receiver<bool>,
        failed: watch::Receiver<Option<String>>,
    ) -> Self {
        let passwords = || plan.users.values().filter_map(|u| u.password.as_ref());
        let decoy = passwords().next().cloned();
        let kept: Vec<String> = passwords()
            .map(|p| match p {
                Password::Argon2(text) => text.clone(),
                Password::Scram(verifier) => verifier.to_string(),
            })
            .collect();
        let salts = digest(&SHA256, kept.join("\n").as_bytes()).as_ref().to_vec();
        let iterations =
            passwords().find_map(Password::verifier).map_or(scram::USUAL_ITERATIONS, scram::Verifier::iterations);
        let checks = Arc::new(Semaphore::new(PASSWORD_CHECKS));
        Self { plan, clock, sessions, to, stopped, failed, checks, decoy, salts, iterations }
    }
}

impl House {
    /// What needs no word of the switch.
    fn answer(&self, listener: &str, question: &Question) -> Option<Answer> {
        self.failed.borrow().is_none().then(|| by_profile(&self.plan, listener, question)).flatten()
    }
}

/// Where a listener listens, once it does.
#[derive(Clone, Debug)]
pub enum Place {
    /// At this address.
    Net(SocketAddr),
    /// At this socket of the machine.
    Path(PathBuf),
}

enum Bound {
    Net(TcpListener),
    Path(UnixListener),
}

/// A bound listener.
pub struct Door {
    name: Arc<str>,
    listener: Bound,
    place: Place,
    policy: Arc<Policy>,
    sessions_per_address: usize,
    /// Sessions that an address may begin.
    pace: Option<Pace>,
    tls: Option<TlsAcceptor>,
    implicit: bool,
    fetcher: Option<Arc<Fetcher>>,
}

impl Door {
    /// Binds a listener and reads its certificate.
    pub async fn open(listener: &ListenerPlan, plan: &Plan, budget: &Arc<Budget>) -> Result<Self, String> {
        let config: Option<Arc<ServerConfig>> = match &listener.tls {
            Some(tls) => Some(tls::server(&tls.certificate, &tls.key, tls.client_ca.as_deref())?),
            None => None,
        };
        let implicit = listener.tls.as_ref().is_some_and(|t| t.implicit);
        let fetcher = listener.burl.as_ref().map(Fetcher::new).transpose();
        let fetcher = fetcher.map_err(|e| format!("listener {}: burl: {e}", listener.name))?.map(Arc::new);
        let (bound, place) = match &listener.address {
            ListenerAddress::Net(address) => {
                let bound =
                    bind(*address).map_err(|e| format!("listener {}: cannot bind {address}: {e}", listener.name))?;
                let address = bound.local_addr().map_err(|e| format!("listener {}: {e}", listener.name))?;
                (Bound::Net(bound), Place::Net(address))
            }
            ListenerAddress::Path(path) => {
                let bound = control::bind(path, listener.socket_mode).await;
                let bound = bound.map_err(|e| format!("listener {}: {e}", listener.name))?;
                (Bound::Path(bound), Place::Path(path.clone()))
            }
        };
        let policy = Policy {
            kind: match listener.kind {
                ListenerKind::Submission => Kind::Submission,
                ListenerKind::Relay => Kind::Relay,
                ListenerKind::Lmtp => Kind::Lmtp,
            },
            starttls: config.is_some() && !implicit,
            tls_required: listener.tls_required,
            pace: listener.messages_per_minute.map(|n| Arc::new(Pace::new(n))),
            auth: listener.auth,
            mechanisms: mechanisms(plan),
            auth_clear_loopback: listener.auth && config.is_none(),
            auth_required: listener.auth_required,
            trust: listener.trust.clone(),
            // Where a deadline cannot be kept the message is returned in time: any will do, unless the profile wants more.
            deliver_by: (listener.kind != ListenerKind::Lmtp).then_some(listener.deliver_by_min),
            future_release: listener.future_release,
            burl: listener.burl.as_ref().map(|b| b.servers.clone()).unwrap_or_default(),
            max_precedence: listener.max_precedence,
            message_bytes: listener.message_bytes,
            overrun_bytes: listener.message_bytes.saturating_mul(2),
            recipients: listener.recipients,
            errors: plan.limits.session_errors,
            received_fields: plan.limits.received_fields,
            idle: plan.limits.session_idle,
            total: plan.limits.session_total,
            answer: listener.answer,
            mt_priority: listener.mt_priority,
            precedence_bytes: listener.precedence_bytes.clone(),
            raw_header: listener.raw_header.clone(),
            normalize: listener.normalize.clone(),
            ..Policy::relay(plan.node.hostname.clone(), budget.clone())
        };
        Ok(Self {
            name: listener.name.as_str().into(),
            listener: bound,
            place,
            policy: Arc::new(policy),
            sessions_per_address: listener.sessions_per_address,
            pace: listener.sessions_per_minute.map(Pace::new),
            tls: config.map(TlsAcceptor::from),
            implicit,
            fetcher,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has refused, and goes on refusing.
    pub fn refused(&self) -> Arc<Refused> {
        self.policy.refused.clone()
    }

    /// The place it got.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Serves connections until the node stops.
    pub async fn serve(self, house: Arc<House>) {
        let mut stopped = house.stopped.clone();
        let door = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                () = stops(&mut stopped) => return,
                accepted = door.accept(&house) => accepted,
            };
            if let Err(error) = accepted {
                tracing::warn!(listener = %door.name, %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Takes one connection, which gets a task of its own.
    async fn accept(self: &Arc<Self>, house: &Arc<House>) -> std::io::Result<()> {
        match &self.listener {
            Bound::Net(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                let peer = Peer { address: Some(peer.ip()), tls: self.implicit };
                tokio::spawn(connection(self.clone(), house.clone(), stream, peer));
            }
            Bound::Path(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer { address: None, tls: self.implicit };
                tokio::spawn(connection(self.clone(), house.clone(), stream, peer));
            }
        }
        Ok(())
    }
}

/// A connection of whatever kind.
trait Line: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Line for S {}

/// What at least one user could succeed with. Where there is no user yet, PLAIN is what the first will have.
fn mechanisms(plan: &Plan) -> Mechanisms {
    let users = || plan.users.values();
    Mechanisms {
        plain: plan.users.is_empty() || users().any(|u| u.password.is_some()),
        scram: users().any(|u| u.password.as_ref().is_some_and(|p| p.verifier().is_some())),
        external: users().any(|u| u.certificate.is_some()),
    }
}

/// Returns when the node is to stop.
async fn stops(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|s| *s).await;
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

async fn connection(door: Arc<Door>, house: Arc<House>, mut stream: impl Line, peer: Peer) {
    let address = peer.known_as();
    let limits = &house.plan.limits;
    let hostname = &door.policy.hostname;
    let spared = door.policy.trusts(address);
    let full = house.sessions.count() >= limits.sessions;
    let refusal = if door.pace.as_ref().is_some_and(|pace| !spared && !pace.take(house.clock.at(), address)) {
        let text = format!("{hostname} too many connections in a minute, try again later");
        Some((Refusal::SessionRate, Reply::new(421, Status(4, 7, 1), text)))
    } else if full || !house.sessions.admit(address, limits.sessions_per_address, &door) {
        let text = format!("{hostname} too many connections, try again later");
        Some((Refusal::Sessions, Reply::new(421, Status(4, 7, 0), text)))
    } else {
        None
    };
    if let Some((refusal, reply)) = refusal {
        door.policy.refused.count(refusal);
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&reply.to_bytes())).await;
        return;
    }
    let (id, answers) = house.sessions.enter();
    converse(&door, &house, id, answers, stream, peer).await;
    house.sessions.leave(id);
    house.sessions.dismiss(address, &door);
}

async fn converse(
    door: &Door,
    house: &House,
    id: SessionId,
    mut answers: UnboundedReceiver<(AskId, Answer)>,
    stream: impl Line,
    peer: Peer,
) {
    if let (true, Some(acceptor)) = (door.implicit, &door.tls) {
        let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
        let mut session = Session::new(house.clock.at(), door.policy.clone(), peer);
        session.handle_tls_started(house.clock.at(), facts(&tls));
        talk(door, house, id, &mut answers, &mut session, tls).await;
        return;
    }
    let mut session = Session::new(house.clock.at(), door.policy.clone(), peer);
    let Some(stream) = talk(door, house, id, &mut answers, &mut session, stream).await else { return };
    let Some(acceptor) = &door.tls else { return };
    let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    session.handle_tls_started(house.clock.at(), facts(&tls));
    talk(door, house, id, &mut answers, &mut session, tls).await;
}

fn facts<S>(tls: &tokio_rustls::server::TlsStream<S>) -> TlsFacts {
    let (_, connection) = tls.get_ref();
    // Before TLS 1.3 the export says less than RFC 9266 wants it to.
    let binds = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let export = || connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok();
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    TlsFacts {
        exporter: if binds { export() } else { None },
        names: shown.map(|own| certificate::names(own)).unwrap_or_default(),
        version: connection.protocol_version().and_then(|v| v.as_str()).unwrap_or("TLS").to_owned(),
        cipher: connection.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or("unknown").to_owned(),
    }
}

/// Moves bytes until the session ends (`None`) or wants a TLS handshake on the stream it gives back.
async fn talk<S: Line>(
    door: &Door,
    house: &House,
    id: SessionId,
    answers: &mut UnboundedReceiver<(AskId, Answer)>,
    session: &mut Session,
    mut stream: S,
) -> Option<S> {
    let mut stopped = house.stopped.clone();
    let stop = stops(&mut stopped);
    // Made once: to enter a wait and leave it again costs as much as a command does.
    let patience = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(stop, patience);
    let mut ends = None;
    let mut buffer = vec![0; 16 * 1024];
    let (done_tx, mut done) = unbounded_channel();
    let mut eof = false;
    loop {
        while let Some(bytes) = session.poll_transmit() {
            let written = tokio::time::timeout(WRITE_PATIENCE, stream.write_all(&bytes)).await;
            if !matches!(written, Ok(Ok(()))) {
                return None;
            }
        }
        let _ = stream.flush().await;
        let (mut close, mut answered) = (false, false);
        while let Some(event) = session.poll_event() {
            match event {
                Event::Ask { id: ask, question } => match house.answer(&door.name, &question) {
                    Some(answer) => {
                        session.answer(house.clock.at(), ask, answer);
                        answered = true;
                    }
                    None => ask_someone(door, house, id, ask, question, &done_tx),
                },
                Event::StartTls => return Some(stream),
                Event::Close => close = true,
            }
        }
        if answered && !close {
            // It may say something now, or ask more.
            continue;
        }
        if close {
            // TLS says that it ends; a bare connection says so by being closed.
            if session.is_encrypted() {
                let _ = tokio::time::timeout(Duration::from_secs(2), stream.shutdown()).await;
            }
            return None;
        }
        let next = session.next_timeout();
        if ends != Some(next) {
            let left = next.map_or(Duration::from_secs(3600), |at| house.clock.real_until(at));
            patience.as_mut().reset(tokio::time::Instant::now() + left);
            ends = Some(next);
        }
        tokio::select! {
            read = stream.read(&mut buffer), if session.wants_input() && !eof => match read {
                Ok(0) => {
                    eof = true;
                    session.handle_eof(house.clock.at());
                }
                Ok(n) => {
                    let now = house.clock.now();
                    session.tell_time(now);
                    session.handle_bytes(now.at, &buffer[..n]);
                }
                Err(_) => return None,
            },
            Some((ask, answer)) = answers.recv() => session.answer(house.clock.at(), ask, answer),
            Some((ask, answer)) = done.recv() => session.answer(house.clock.at(), ask, answer),
            () = &mut patience => {
                ends = None;
                session.handle_timeout(house.clock.at());
            }
            () = &mut stop => {
                let reply = Reply::new(421, Status(4, 3, 2), format!("{} is stopping", door.policy.hostname));
                let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&reply.to_bytes())).await;
                return None;
            }
        }
    }
}

fn ask_someone(
    door: &Door,
    house: &House,
    session: SessionId,
    ask: AskId,
    question: Question,
    done: &UnboundedSender<(AskId, Answer)>,
) {
    match question {
        Question::Auth { user, password } => {
            let known: Option<UserPlan> = house.plan.users.get(&user).filter(|u| u.password.is_some()).cloned();
            let kept = known.as_ref().map_or_else(|| house.decoy.clone(), |u| u.password.clone());
            let (checks, done) = (house.checks.clone(), done.clone());
            tokio::spawn(async move {
                let Ok(_permit) = checks.acquire_owned().await else { return };
                let fits = tokio::task::spawn_blocking(move || kept.is_some_and(|k| k.fits(&password.0)));
                let fits = fits.await.unwrap_or(false);
                let answer = match known {
                    Some(plan) if fits => Answer::Authenticated { user, max_precedence: plan.max_precedence },
                    _ => Answer::Refuse(no_login()),
                };
                let _ = done.send((ask, answer));
            });
        }
        Question::Scram { user } => {
            let _ = done.send((ask, verifier(house, &user)));
        }
        Question::External { names, user } => {
            let _ = done.send((ask, named_user(&house.plan, &names, user.as_deref())));
        }
        Question::Fetch { url, most } => {
            let (fetcher, done) = (door.fetcher.clone(), done.clone());
            tokio::spawn(async move {
                let answer = match fetcher {
                    Some(fetcher) => fetcher.fetch(&url, most).await,
                    None => Answer::Refuse(Reply::new(554, Status(5, 6, 6), "nothing is fetched here")),
                };
                let _ = done.send((ask, answer));
            });
        }
        question @ (Question::Mail { .. } | Question::Rcpt { .. } | Question::End(_)) => {
            let listener = door.name.clone();
            let _ = house.to.send(Input::Ask { session, ask, listener, question });
        }
    }
}

fn no_login() -> Reply {
    Reply::new(535, Status(5, 7, 8), "authentication failed")
}

/// What SCRAM needs to know of a user. One without a verifier looks like any other until the end.
fn verifier(house: &House, user: &str) -> Answer {
    let mut nonce = [0; 18];
    if SystemRandom::new().fill(&mut nonce).is_err() {
        return Answer::Refuse(Reply::new(454, Status(4, 7, 0), "authentication not possible now"));
    }
    let nonce = BASE64.encode(&nonce);
    let known = house.plan.users.get(user);
    match known.and_then(|u| Some((u.password.as_ref()?.verifier()?, u.max_precedence))) {
        Some((verifier, ceiling)) => {
            Answer::Verifier { nonce, verifier: verifier.clone(), max_precedence: Some(ceiling) }
        }
        None => {
            let verifier = scram::decoy(&house.salts, user, house.iterations);
            Answer::Verifier { nonce, verifier, max_precedence: None }
        }
    }
}

/// The one user among those a certificate names, or the one of them it asks for.
fn named_user(plan: &Plan, names: &[String], asked: Option<&str>) -> Answer {
    let is_named = |u: &UserPlan| u.certificate.as_ref().is_some_and(|c| names.contains(c));
    let mut users =
        plan.users.iter().filter(|(name, u)| is_named(u) && asked.is_none_or(|asked| asked == name.as_str()));
    match (users.next(), users.next()) {
        (Some((name, user)), None) => Answer::Authenticated { user: name.clone(), max_precedence: user.max_precedence },
        (Some(_), Some(_)) | (None, _) => Answer::Refuse(no_login()),
    }
}
