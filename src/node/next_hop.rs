//! One SMTP or LMTP next hop as its connections need it: hosts, TLS, login, bounds, and what is remembered of it.

use core::num::NonZeroU32;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::dane::Dane;
use super::mx::{Protection, Target};
use super::tls::{self, Doubt};
use crate::config::Plan;
use crate::config::mx::MxPlan;
use crate::config::smarthost::{LoginPlan, Manner, SmarthostPlan, Waits, host_of, is_loopback};
use crate::mail::Hop;
use crate::ops::document::{HostStatus, SmarthostStatus};
use crate::smtp::client::{Config, Dialect, Encryption, Login};
use crate::smtp::hosts::{Failure, Hosts, Place};
use crate::smtp::scram::client::Keys;
use crate::time::{Duration, Instant};

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
    /// Longest waits, where no table of the hop's own says others.
    waits: Waits,
    /// Whose certificates count where a domain's MTA-STS policy asks for one.
    pub authorities: Option<Arc<WebPkiServerVerifier>>,
    /// The next number of a next hop that the DNS names.
    serials: AtomicU64,
}

impl Common {
    /// For one node.
    pub fn new(plan: &Plan) -> Result<Self, String> {
        let chain = |ca: &PathBuf| tls::authorities(ca).and_then(tls::chain_to).map_err(|e| format!("mx.ca: {e}"));
        let authorities = plan.mx.ca.as_ref().filter(|_| plan.mx.mta_sts).map(chain).transpose()?;
        let (hostname, tls) = (plan.node.hostname.clone(), tls::opportunistic_client()?);
        let waits = plan.limits.waits;
        Ok(Self { hostname, tls, waits, authorities, serials: AtomicU64::new(1) })
    }
}

/// One host of a next hop, or one of its addresses.
struct Host {
    /// `host:port`, or a Unix socket's path; where the address is known, `host[address]:port`.
    shown: String,
    /// Where to connect; `None`: to what the machine knows under `shown`.
    address: Option<SocketAddr>,
    /// Why it is not to be used, if so.
    barred: Option<String>,
    encryption: Encryption,
    tls: Arc<ClientConfig>,
    /// The name asked for by TLS.
    server_name: String,
    /// What protects it, in a word for people.
    protected: &'static str,
    /// Its domain tests a policy: what was amiss with its certificate.
    doubt: Option<Arc<Doubt>>,
}

/// One next hop.
pub struct NextHop {
    /// Another one for each set of hosts that the DNS named; zero for those that the profile names.
    pub serial: u64,
    /// Connections at once.
    pub connections: usize,
    /// Messages that one connection carries.
    pub messages: u32,
    /// In the order in which they are tried.
    hosts: Vec<Host>,
    dialect: Dialect,
    implicit: bool,
    login: Option<LoginPlan>,
    hello: String,
    source: Option<IpAddr>,
    interval: Duration,
    waits: Waits,
    standing: Mutex<Hosts>,
    /// When the next connection may begin.
    next_start: Mutex<Instant>,
    /// Keys of the password, of the last salt and cost asked for.
    keys: Mutex<Option<(Vec<u8>, NonZeroU32, Keys)>>,
}

impl NextHop {
    /// A next hop that a route names and nothing more is said about.
    pub fn plain(common: &Common, to: &str, dialect: Dialect) -> Self {
        let encryption = Config::new("", dialect).encryption;
        Self {
            serial: 0,
            hosts: vec![Host::named(to, encryption, common.tls.clone(), None)],
            connections: CONNECTIONS,
            messages: MESSAGES,
            dialect,
            implicit: false,
            login: None,
            hello: common.hostname.clone(),
            source: None,
            interval: Duration::ZERO,
            waits: common.waits,
            standing: Mutex::new(Hosts::new(1, Duration::ZERO)),
            next_start: Mutex::new(Instant::ZERO),
            keys: Mutex::new(None),
        }
    }

    /// One that the profile describes.
    pub fn smarthost(common: &Common, plan: &SmarthostPlan) -> Result<Self, String> {
        let tls = tls::client(plan).map_err(|e| format!("smarthost {}: {e}", plan.name))?;
        let named = |host: &String| Host::named(host, plan.encryption, tls.clone(), plan.trust.server_name.clone());
        let standing = Hosts::new(plan.hosts.len(), plan.manner.back_off);
        let hosts = plan.hosts.iter().map(named).collect();
        Ok(Self {
            implicit: plan.implicit,
            login: plan.login.clone(),
            ..Self::in_manner(common, &plan.manner, hosts, standing)
        })
    }

    /// One that the DNS names: these are its hosts, for mail of this domain.
    pub fn mx(common: &Common, plan: &MxPlan, domain: &str, targets: &[Target]) -> Result<Self, String> {
        let places = targets.iter().map(|t| Place { rank: t.place.0, group: t.place.1 }).collect();
        let hosts =
            targets.iter().map(|target| Host::resolved(common, plan, domain, target)).collect::<Result<_, _>>()?;
        let serial = common.serials.fetch_add(1, Ordering::Relaxed);
        let standing = Hosts::placed(places, plan.manner.back_off);
        Ok(Self { serial, ..Self::in_manner(common, &plan.manner, hosts, standing) })
    }

    fn in_manner(common: &Common, manner: &Manner, hosts: Vec<Host>, standing: Hosts) -> Self {
        Self {
            serial: 0,
            connections: manner.connections,
            messages: manner.messages,
            hosts,
            dialect: Dialect::Smtp,
            implicit: false,
            login: None,
            hello: manner.hello.clone().unwrap_or_else(|| common.hostname.clone()),
            source: manner.source,
            interval: manner.interval,
            waits: manner.waits,
            standing: Mutex::new(standing),
            next_start: Mutex::new(Instant::ZERO),
            keys: Mutex::new(None),
        }
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
        lock(&self.standing).order(now, chance())
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
                host: host.shown.clone(),
                tls: host.protected.to_owned(),
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
    pub fn config(&self, index: usize, clear: bool) -> Result<Config, String> {
        let host = self.host(index)?;
        let login = match &self.login {
            Some(plan) => Some(Login {
                user: plan.user.clone(),
                password: plan.password.clone(),
                mechanisms: plan.mechanisms.clone(),
                nonce: nonce()?,
            }),
            None => None,
        };
        let encryption = match host.encryption {
            Encryption::Opportunistic if clear => Encryption::Off,
            other => other,
        };
        let loopback = host.address.map_or_else(|| is_loopback(&host.shown), |a| a.ip().to_canonical().is_loopback());
        let hello = self.hello.clone();
        Ok(Config { hello, dialect: self.dialect, encryption, login, loopback, timeouts: self.waits.timeouts })
    }

    /// Longest wait for it to take what was written.
    pub const fn write_patience(&self) -> Duration {
        self.waits.timeouts.data_block
    }

    /// Whether a failed handshake may be followed by a try in clear.
    pub fn may_go_clear(&self, index: usize) -> bool {
        self.host(index).is_ok_and(|host| host.encryption == Encryption::Opportunistic)
    }

    /// A host as it is shown.
    pub fn shown(&self, index: usize) -> String {
        self.host(index).map_or_else(|_| String::new(), |host| host.shown.clone())
    }

    /// What was amiss with a host whose domain tests a policy. `secret`: TLS was on.
    pub fn doubt(&self, index: usize, secret: bool) -> Option<String> {
        let doubt = self.host(index).ok()?.doubt.as_ref()?;
        doubt.take().or_else(|| (!secret).then(|| "it went in clear".to_owned()))
    }

    /// Why a host is not to be used, if so.
    pub fn barred(&self, index: usize) -> Option<String> {
        self.host(index).map_or_else(Some, |host| host.barred.clone())
    }

    fn host(&self, index: usize) -> Result<&Host, String> {
        self.hosts.get(index).ok_or_else(|| "there is no such host".to_owned())
    }

    /// Whether TLS begins with the first byte.
    pub const fn is_implicit(&self) -> bool {
        self.implicit
    }

    /// A connection to a host.
    pub async fn connect(&self, index: usize) -> Result<Box<dyn Wire>, String> {
        let host = self.host(index)?;
        let shown = &host.shown;
        match tokio::time::timeout(self.waits.connect, self.open(host)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) => Err(format!("cannot connect to {shown}: {e}")),
            Err(_) => Err(format!("no connection to {shown} in time")),
        }
    }

    async fn open(&self, host: &Host) -> std::io::Result<Box<dyn Wire>> {
        let shown = host.shown.as_str();
        if self.dialect == Dialect::Lmtp && shown.starts_with('/') {
            return Ok(Box::new(UnixStream::connect(Path::new(shown)).await?));
        }
        let stream = match (self.source, host.address) {
            (None, None) => TcpStream::connect(shown).await?,
            (None, Some(address)) => TcpStream::connect(address).await?,
            (Some(source), None) => connect_from(source, lookup_host(shown).await?).await?,
            (Some(source), Some(address)) => connect_from(source, [address].into_iter()).await?,
        };
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }

    /// The TLS handshake; also what the connection exports for channel binding, where it can.
    pub async fn handshake(
        &self,
        index: usize,
        stream: Box<dyn Wire>,
    ) -> Result<(Box<dyn Wire>, Option<[u8; 32]>), String> {
        let Host { shown: host, server_name, tls, .. } = self.host(index)?;
        let name = server_name.clone();
        let name = ServerName::try_from(name).map_err(|_| format!("TLS with {host} failed: no name to ask for"))?;
        let connecting = TlsConnector::from(tls.clone()).connect(name, stream);
        let stream = match tokio::time::timeout(self.waits.connect, connecting).await {
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

/// The next hop of a message, if it is one that the profile names.
pub fn of(common: &Common, known: &BTreeMap<String, Arc<NextHop>>, hop: &Hop) -> Option<Arc<NextHop>> {
    match hop {
        Hop::Smtp(to) => Some(Arc::new(NextHop::plain(common, to, Dialect::Smtp))),
        Hop::Lmtp(to) => Some(Arc::new(NextHop::plain(common, to, Dialect::Lmtp))),
        Hop::Smarthost(name) => known.get(name).cloned(),
        Hop::Local | Hop::Peer(_) | Hop::Hold | Hop::Fetch | Hop::Mx(_) => None,
    }
}

impl Host {
    /// One that the profile names.
    fn named(host: &str, encryption: Encryption, tls: Arc<ClientConfig>, server_name: Option<String>) -> Self {
        let server_name = server_name.unwrap_or_else(|| host_of(host).to_owned());
        let (shown, protected) = (host.to_owned(), word(encryption));
        Self { shown, address: None, barred: None, encryption, tls, server_name, protected, doubt: None }
    }

    /// One that the DNS names.
    fn resolved(common: &Common, plan: &MxPlan, domain: &str, target: &Target) -> Result<Self, String> {
        let shown = match target.address {
            Some(address) if target.host.starts_with('[') => address.to_string(),
            Some(address) => format!("{}[{}]:{}", target.host, address.ip(), address.port()),
            None => format!("{}:{}", target.host, plan.port),
        };
        let server_name = match target.address {
            Some(address) if target.host.starts_with('[') => address.ip().to_string(),
            _ => target.host.clone(),
        };
        let mut host = Self {
            address: target.address,
            ..Self::named(&shown, plan.encryption, common.tls.clone(), Some(server_name))
        };
        match &target.protection {
            Protection::Usual => {}
            Protection::Encrypted => (host.encryption, host.protected) = (Encryption::Required, "required"),
            Protection::Dane(records, base) => {
                host.server_name.clone_from(base);
                (host.encryption, host.protected) = (Encryption::Verified, "dane");
                host.tls = tls::checked(Dane::new(records.clone(), domain))?;
            }
            Protection::Sts => {
                let chain = common.authorities.clone().ok_or("no authorities for MTA-STS")?;
                (host.encryption, host.protected) = (Encryption::Verified, "mta-sts");
                host.tls = tls::signed(chain)?;
            }
            Protection::StsTesting => {
                let chain = common.authorities.clone().ok_or("no authorities for MTA-STS")?;
                let doubt = Arc::new(Doubt::default());
                host.tls = tls::doubted(chain, doubt.clone())?;
                host.doubt = Some(doubt);
            }
            Protection::Barred(why) => (host.barred, host.protected) = (Some(why.clone()), "barred"),
        }
        Ok(host)
    }
}

const fn word(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::Off => "off",
        Encryption::Opportunistic => "opportunistic",
        Encryption::Required => "required",
        Encryption::Verified => "verified",
    }
}

async fn connect_from(source: IpAddr, to: impl Iterator<Item = SocketAddr>) -> std::io::Result<TcpStream> {
    let mut failed = std::io::Error::other("it has no address of the family of source_address");
    for address in to.filter(|a| a.is_ipv4() == source.is_ipv4()) {
        let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

/// A number for the order of equals.
fn chance() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers the order is still one.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn nonce() -> Result<String, String> {
    let mut bytes = [0; 18];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(BASE64.encode(&bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
