//! One SMTP or LMTP next hop as its connections need it: hosts, TLS, login, bounds, and what is remembered of it.

use core::num::NonZeroU32;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::tls;
use crate::config::Plan;
use crate::config::smarthost::{LoginPlan, SmarthostPlan, host_of, is_loopback};
use crate::mail::Hop;
use crate::ops::document::{HostStatus, SmarthostStatus};
use crate::smtp::client::{Config, Dialect, Encryption, Login, Timeouts};
use crate::smtp::hosts::{Failure, Hosts};
use crate::smtp::scram::client::Keys;
use crate::time::{Duration, Instant};

/// Longest wait for a connection and for a TLS handshake, where the profile does not say.
const CONNECT: Duration = Duration::from_secs(30);
/// Messages that one connection carries, where the profile does not say.
const MESSAGES: u32 = 100;
/// Connections at once, where the profile does not say: one of them for what is urgent alone.
const CONNECTIONS: usize = 5;

/// A stream that mail goes over.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// What every next hop of a node has in common.
pub struct Common {
    hostname: String,
    tls: Arc<ClientConfig>,
}

impl Common {
    /// For one node.
    pub fn new(plan: &Plan) -> Result<Self, String> {
        Ok(Self { hostname: plan.node.hostname.clone(), tls: tls::opportunistic_client()? })
    }
}

/// One next hop.
pub struct NextHop {
    /// `host:port`, or a Unix socket's path; in the order in which they are tried.
    pub hosts: Vec<String>,
    /// Connections at once.
    pub connections: usize,
    /// Messages that one connection carries.
    pub messages: u32,
    dialect: Dialect,
    encryption: Encryption,
    implicit: bool,
    tls: Arc<ClientConfig>,
    server_name: Option<String>,
    login: Option<LoginPlan>,
    hello: String,
    source: Option<IpAddr>,
    interval: Duration,
    connect: Duration,
    timeouts: Timeouts,
    standing: Mutex<Hosts>,
    /// When the next connection may begin.
    next_start: Mutex<Instant>,
    /// Keys of the password, of the last salt and cost asked for.
    keys: Mutex<Option<(Vec<u8>, NonZeroU32, Keys)>>,
}

impl NextHop {
    /// A next hop that a route names and nothing more is said about.
    pub fn plain(common: &Common, to: &str, dialect: Dialect) -> Self {
        let usual = Config::new("", dialect);
        Self {
            hosts: vec![to.to_owned()],
            connections: CONNECTIONS,
            messages: MESSAGES,
            dialect,
            encryption: usual.encryption,
            implicit: false,
            tls: common.tls.clone(),
            server_name: None,
            login: None,
            hello: common.hostname.clone(),
            source: None,
            interval: Duration::ZERO,
            connect: CONNECT,
            timeouts: usual.timeouts,
            standing: Mutex::new(Hosts::new(1, Duration::ZERO)),
            next_start: Mutex::new(Instant::ZERO),
            keys: Mutex::new(None),
        }
    }

    /// One that the profile describes.
    pub fn smarthost(common: &Common, plan: &SmarthostPlan) -> Result<Self, String> {
        Ok(Self {
            hosts: plan.hosts.clone(),
            connections: plan.connections,
            messages: plan.messages,
            dialect: Dialect::Smtp,
            encryption: plan.encryption,
            implicit: plan.implicit,
            tls: tls::client(plan).map_err(|e| format!("smarthost {}: {e}", plan.name))?,
            server_name: plan.trust.server_name.clone(),
            login: plan.login.clone(),
            hello: plan.hello.clone().unwrap_or_else(|| common.hostname.clone()),
            source: plan.source,
            interval: plan.interval,
            connect: plan.connect,
            timeouts: plan.timeouts,
            standing: Mutex::new(Hosts::new(plan.hosts.len(), plan.back_off)),
            next_start: Mutex::new(Instant::ZERO),
            keys: Mutex::new(None),
        })
    }

    /// All that the profile describes, by their names.
    pub fn all(common: &Common, plan: &Plan) -> Result<BTreeMap<String, Arc<Self>>, String> {
        let made = |s: &SmarthostPlan| Ok((s.name.clone(), Arc::new(Self::smarthost(common, s)?)));
        plan.smarthosts.iter().map(made).collect()
    }

    /// Connections for mail below the urgent levels: one is kept free of it where there are two.
    pub fn ordinary(&self) -> usize {
        self.connections.saturating_sub(1).max(1)
    }

    /// How long the next connection has to wait for its turn, which is then taken.
    pub fn turn(&self, now: Instant) -> Duration {
        let mut next = lock(&self.next_start);
        let start = now.max(*next);
        *next = start + self.interval;
        start.since(now)
    }

    /// The hosts to try now, by index.
    pub fn order(&self, now: Instant) -> Vec<usize> {
        lock(&self.standing).order(now)
    }

    /// Why there is none.
    pub fn why_none(&self) -> String {
        lock(&self.standing).why_none().to_owned()
    }

    /// A host heard about a message.
    pub fn served(&self, index: usize) {
        lock(&self.standing).served(index);
    }

    /// A host failed.
    pub fn failed(&self, now: Instant, index: usize, failure: Failure, why: &str) {
        lock(&self.standing).failed(now, index, failure, why);
    }

    /// How it is, for the status.
    pub fn status(&self, now: Instant, name: &str) -> SmarthostStatus {
        let standing = lock(&self.standing);
        let hosts = self.hosts.iter().zip(standing.standings()).map(|(host, s)| {
            let failed = s.failed.as_ref().filter(|(_, until, _)| *until > now);
            let state = match failed {
                None => "ok",
                Some((Failure::Away, ..)) => "failed",
                Some((Failure::Login, ..)) => "login-refused",
            };
            HostStatus {
                host: host.clone(),
                state: state.to_owned(),
                why: failed.map(|(_, _, why)| why.clone()),
                tried_after_s: failed.map(|(_, until, _)| until.since(now).as_secs()),
                served: s.served,
                failures: s.failures,
            }
        });
        SmarthostStatus { name: name.to_owned(), hosts: hosts.collect() }
    }

    /// How a session speaks to a host. `clear` gives opportunistic TLS up, after it failed.
    pub fn config(&self, host: &str, clear: bool) -> Result<Config, String> {
        let login = match &self.login {
            Some(plan) => Some(Login {
                user: plan.user.clone(),
                password: plan.password.clone(),
                mechanisms: plan.mechanisms.clone(),
                nonce: nonce()?,
            }),
            None => None,
        };
        let encryption = match self.encryption {
            Encryption::Opportunistic if clear => Encryption::Off,
            other => other,
        };
        let loopback = is_loopback(host);
        let hello = self.hello.clone();
        Ok(Config { hello, dialect: self.dialect, encryption, login, loopback, timeouts: self.timeouts })
    }

    /// Whether a failed handshake may be followed by a try in clear.
    pub fn may_go_clear(&self) -> bool {
        self.encryption == Encryption::Opportunistic
    }

    /// Whether TLS begins with the first byte.
    pub const fn is_implicit(&self) -> bool {
        self.implicit
    }

    /// A connection to a host.
    pub async fn connect(&self, host: &str) -> Result<Box<dyn Wire>, String> {
        match tokio::time::timeout(self.connect, self.open(host)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) => Err(format!("cannot connect to {host}: {e}")),
            Err(_) => Err(format!("no connection to {host} in time")),
        }
    }

    async fn open(&self, host: &str) -> std::io::Result<Box<dyn Wire>> {
        if self.dialect == Dialect::Lmtp && host.starts_with('/') {
            return Ok(Box::new(UnixStream::connect(Path::new(host)).await?));
        }
        let stream = match self.source {
            None => TcpStream::connect(host).await?,
            Some(source) => connect_from(source, host).await?,
        };
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }

    /// The TLS handshake; also what the connection exports for channel binding, where it can.
    pub async fn handshake(
        &self,
        host: &str,
        stream: Box<dyn Wire>,
    ) -> Result<(Box<dyn Wire>, Option<[u8; 32]>), String> {
        let name = self.server_name.as_deref().unwrap_or_else(|| host_of(host)).to_owned();
        let name = ServerName::try_from(name).map_err(|_| format!("TLS with {host} failed: no name to ask for"))?;
        let connecting = TlsConnector::from(self.tls.clone()).connect(name, stream);
        let stream = match tokio::time::timeout(self.connect, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(format!("TLS with {host} failed: {e}")),
            Err(_) => return Err(format!("TLS with {host} did not begin in time")),
        };
        let (_, connection) = stream.get_ref();
        // Before TLS 1.3 the export says less than RFC 9266 wants it to.
        let binds = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let export = || connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok();
        let exporter = if binds { export() } else { None };
        Ok((Box::new(stream), exporter))
    }

    /// Keys of the login's password, derived once for a salt and cost.
    pub async fn keys(&self, salt: Vec<u8>, iterations: NonZeroU32) -> Option<Keys> {
        if let Some((_, _, keys)) = lock(&self.keys).as_ref().filter(|(s, i, _)| *s == salt && *i == iterations) {
            return Some(keys.clone());
        }
        let password = self.login.as_ref()?.password.clone()?;
        let of = salt.clone();
        let derived = tokio::task::spawn_blocking(move || Keys::derive(&password.0, &of, iterations)).await.ok()?;
        *lock(&self.keys) = Some((salt, iterations, derived.clone()));
        Some(derived)
    }
}

/// The next hop of a message, if it is one of a kind that connections are made to.
pub fn of(common: &Common, known: &BTreeMap<String, Arc<NextHop>>, hop: &Hop) -> Option<Arc<NextHop>> {
    match hop {
        Hop::Smtp(to) => Some(Arc::new(NextHop::plain(common, to, Dialect::Smtp))),
        Hop::Lmtp(to) => Some(Arc::new(NextHop::plain(common, to, Dialect::Lmtp))),
        Hop::Smarthost(name) => known.get(name).cloned(),
        Hop::Local | Hop::Peer(_) | Hop::Hold | Hop::Fetch => None,
    }
}

async fn connect_from(source: IpAddr, host: &str) -> std::io::Result<TcpStream> {
    let mut failed = std::io::Error::other("it has no address of the family of source_address");
    for address in lookup_host(host).await?.filter(|a| a.is_ipv4() == source.is_ipv4()) {
        let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

fn nonce() -> Result<String, String> {
    let mut bytes = [0; 18];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(BASE64.encode(&bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
