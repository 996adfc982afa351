//! SMTP listeners: one task per connection moves bytes between a socket and an `smtp::server::Session`.
//!
//! Static policy is answered here from the plan: passwords on the pool, everything about mail is asked of the switch.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::clock::Clock;
use super::tls;
use crate::config::Plan;
use crate::config::plan::{ListenerKind, ListenerPlan, UserPlan};
use crate::mail::Status;
use crate::smtp::Reply;
use crate::smtp::policy::{Budget, Kind, Peer, Policy};
use crate::smtp::server::{Answer, AskId, Event, Question, Session, TlsFacts};
use crate::switch::{Input, SessionId};
use crate::time::Duration;

/// Passwords checked at once; Argon2 is dear by design.
const PASSWORD_CHECKS: usize = 2;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Longest wait for a client to take our bytes.
const WRITE_PATIENCE: Duration = Duration::from_secs(120);

/// Sessions that wait for the switch's answers.
#[derive(Debug, Default)]
pub struct Sessions {
    next: AtomicU64,
    open: Mutex<BTreeMap<SessionId, UnboundedSender<(AskId, Answer)>>>,
    by_address: Mutex<BTreeMap<IpAddr, usize>>,
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

    fn admit(&self, address: IpAddr, limit: usize) -> bool {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_default();
        let room = *count < limit;
        if room {
            *count += 1;
        }
        room
    }

    fn dismiss(&self, address: IpAddr) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
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
    checks: Arc<Semaphore>,
    /// A hash that no password has, so that an unknown user costs as much time as a known one.
    decoy: String,
}

impl House {
    /// The house of one node.
    pub fn new(
        plan: Arc<Plan>,
        clock: Clock,
        sessions: Arc<Sessions>,
        to: Sender<Input>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let decoy = plan.users.values().next().map(|u| u.password_hash.clone()).unwrap_or_default();
        Self { plan, clock, sessions, to, stopped, checks: Arc::new(Semaphore::new(PASSWORD_CHECKS)), decoy }
    }
}

/// A bound listener.
pub struct Door {
    name: Arc<str>,
    listener: TcpListener,
    address: SocketAddr,
    policy: Arc<Policy>,
    tls: Option<TlsAcceptor>,
    implicit: bool,
}

impl Door {
    /// Binds a listener and reads its certificate.
    pub fn open(listener: &ListenerPlan, plan: &Plan, budget: &Arc<Budget>) -> Result<Self, String> {
        let config: Option<Arc<ServerConfig>> = match &listener.tls {
            Some(tls) => Some(tls::server(&tls.certificate, &tls.key)?),
            None => None,
        };
        let implicit = listener.tls.as_ref().is_some_and(|t| t.implicit);
        let bound = bind(listener.address)
            .map_err(|e| format!("listener {}: cannot bind {}: {e}", listener.name, listener.address))?;
        let address = bound.local_addr().map_err(|e| format!("listener {}: {e}", listener.name))?;
        let policy = Policy {
            kind: match listener.kind {
                ListenerKind::Submission => Kind::Submission,
                ListenerKind::Relay => Kind::Relay,
                ListenerKind::Lmtp => Kind::Lmtp,
            },
            starttls: config.is_some() && !implicit,
            auth: listener.auth,
            auth_clear_loopback: listener.auth && config.is_none(),
            auth_required: listener.auth_required,
            trust: listener.trust.clone(),
            max_precedence: listener.max_precedence,
            message_bytes: plan.limits.message_bytes,
            overrun_bytes: plan.limits.message_bytes.saturating_mul(2),
            recipients: plan.limits.recipients,
            errors: plan.limits.session_errors,
            received_fields: plan.limits.received_fields,
            idle: plan.limits.session_idle,
            total: plan.limits.session_total,
            ..Policy::relay(plan.node.hostname.clone(), budget.clone())
        };
        Ok(Self {
            name: listener.name.as_str().into(),
            listener: bound,
            address,
            policy: Arc::new(policy),
            tls: config.map(TlsAcceptor::from),
            implicit,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves connections until the node stops.
    pub async fn serve(self, house: Arc<House>) {
        let mut stopped = house.stopped.clone();
        let door = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                () = stops(&mut stopped) => return,
                accepted = door.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    tokio::spawn(connection(door.clone(), house.clone(), stream, peer.ip()));
                }
                Err(error) => {
                    tracing::warn!(listener = %door.name, %error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
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

async fn connection(door: Arc<Door>, house: Arc<House>, mut stream: TcpStream, address: IpAddr) {
    let _ = stream.set_nodelay(true);
    let limits = &house.plan.limits;
    let full = house.sessions.count() >= limits.sessions;
    if full || !house.sessions.admit(address, limits.sessions_per_address) {
        let reply =
            Reply::new(421, Status(4, 7, 0), format!("{} too many connections, try again later", door.policy.hostname));
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&reply.to_bytes())).await;
        return;
    }
    let (id, answers) = house.sessions.enter();
    converse(&door, &house, id, answers, stream, address).await;
    house.sessions.leave(id);
    house.sessions.dismiss(address);
}

async fn converse(
    door: &Door,
    house: &House,
    id: SessionId,
    mut answers: UnboundedReceiver<(AskId, Answer)>,
    stream: TcpStream,
    address: IpAddr,
) {
    let peer = Peer { address: Some(address), tls: door.implicit };
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

fn facts(tls: &tokio_rustls::server::TlsStream<TcpStream>) -> TlsFacts {
    let (_, connection) = tls.get_ref();
    TlsFacts {
        version: connection.protocol_version().and_then(|v| v.as_str()).unwrap_or("TLS").to_owned(),
        cipher: connection.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or("unknown").to_owned(),
    }
}

/// Moves bytes until the session ends (`None`) or wants a TLS handshake on the stream it gives back.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    door: &Door,
    house: &House,
    id: SessionId,
    answers: &mut UnboundedReceiver<(AskId, Answer)>,
    session: &mut Session,
    mut stream: S,
) -> Option<S> {
    let mut stopped = house.stopped.clone();
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
        let mut close = false;
        while let Some(event) = session.poll_event() {
            match event {
                Event::Ask { id: ask, question } => ask_someone(door, house, id, ask, question, &done_tx),
                Event::StartTls => return Some(stream),
                Event::Close => close = true,
            }
        }
        if close {
            let _ = tokio::time::timeout(Duration::from_secs(2), stream.shutdown()).await;
            return None;
        }
        let deadline = session.next_timeout().map_or(Duration::from_secs(3600), |at| house.clock.real_until(at));
        tokio::select! {
            read = stream.read(&mut buffer), if session.wants_input() && !eof => match read {
                Ok(0) => {
                    eof = true;
                    session.handle_eof(house.clock.at());
                }
                Ok(n) => session.handle_bytes(house.clock.at(), &buffer[..n]),
                Err(_) => return None,
            },
            Some((ask, answer)) = answers.recv() => session.answer(house.clock.at(), ask, answer),
            Some((ask, answer)) = done.recv() => session.answer(house.clock.at(), ask, answer),
            () = tokio::time::sleep(deadline) => session.handle_timeout(house.clock.at()),
            () = stops(&mut stopped) => {
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
            let known: Option<UserPlan> = house.plan.users.get(&user).cloned();
            let hash = known.as_ref().map_or_else(|| house.decoy.clone(), |u| u.password_hash.clone());
            let (checks, done) = (house.checks.clone(), done.clone());
            tokio::spawn(async move {
                let Ok(_permit) = checks.acquire_owned().await else { return };
                let fits = tokio::task::spawn_blocking(move || {
                    PasswordHash::new(&hash)
                        .is_ok_and(|h| Argon2::default().verify_password(password.0.as_bytes(), &h).is_ok())
                })
                .await
                .unwrap_or(false);
                let answer = match known {
                    Some(plan) if fits => Answer::Authenticated { user, max_precedence: plan.max_precedence },
                    _ => Answer::Refuse(Reply::new(535, Status(5, 7, 8), "authentication failed")),
                };
                let _ = done.send((ask, answer));
            });
        }
        question => {
            let listener = door.name.clone();
            let _ = house.to.send(Input::Ask { session, ask, listener, question });
        }
    }
}
