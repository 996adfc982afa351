//! `[[smarthost]]`: a next hop with hosts to fall back on, TLS, a login and bounds of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::cross::Declared;
use super::profile::{self, Context, at_least_a_second, optional};
use super::reader::{Reader, Scope, boolean, integer, join, list, parsed};
use super::tree::Entry;
use super::{schema, secrets};
use crate::mail::Hop;
use crate::smtp::client::{Encryption, Mechanism, Timeouts};
use crate::smtp::server::Secret;
use crate::time::Duration;
use crate::units::{Bytes, parse_duration};

/// Hosts one next hop may have.
const MOST_HOSTS: usize = 16;

/// One `[[smarthost]]`
#[derive(Clone, PartialEq, Debug)]
pub struct SmarthostPlan {
    /// Its name.
    pub name: String,
    /// `host:port`, in the order in which they are tried.
    pub hosts: Vec<String>,
    /// What is done about TLS.
    pub encryption: Encryption,
    /// TLS from the first byte.
    pub implicit: bool,
    /// What is asked of certificates, where they are checked.
    pub trust: Trust,
    /// The certificate shown to it, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How to log in.
    pub login: Option<LoginPlan>,
    /// Largest message.
    pub most_bytes: Option<u64>,
    /// How its hosts are spoken to.
    pub manner: Manner,
}

impl SmarthostPlan {
    /// Whether it shows who it is before anything is said.
    pub fn is_verified(&self) -> bool {
        self.encryption == Encryption::Verified
    }
}

/// How the hosts of a next hop are spoken to.
#[derive(Clone, PartialEq, Debug)]
pub struct Manner {
    /// Our name in EHLO, if another than the node's.
    pub hello: Option<String>,
    /// The address connections come from.
    pub source: Option<IpAddr>,
    /// Connections at once.
    pub connections: usize,
    /// Messages that one connection carries.
    pub messages: u32,
    /// Recipients of one transaction.
    pub recipients: usize,
    /// Least time from the beginning of one connection to that of the next.
    pub interval: Duration,
    /// How long a host that failed stands behind the others.
    pub back_off: Duration,
    /// Longest waits.
    pub waits: Waits,
}

/// How long a next hop is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waits {
    /// For a connection and for a TLS handshake.
    pub connect: Duration,
    /// After that.
    pub timeouts: Timeouts,
}

/// What a certificate must have to count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trust {
    /// PEM of the authorities, one of which signed it.
    pub ca: Option<PathBuf>,
    /// The name in it; `None`: that of the host.
    pub server_name: Option<String>,
    /// SHA-256 of the public keys it may have; empty: any.
    pub pins: BTreeSet<[u8; 32]>,
}

/// A login at a next hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginPlan {
    /// Who; empty: whoever the certificate names.
    pub user: String,
    /// The password.
    pub password: Option<Secret>,
    /// What may be used.
    pub mechanisms: Vec<Mechanism>,
}

/// Reads one table.
pub fn read(reader: &mut Reader, context: &Context<'_>, path: &str, entry: &Entry) -> Option<SmarthostPlan> {
    let mut s = reader.scope(&schema::SMARTHOST, path, Some(entry));
    let name = s.field("name", parsed(profile::name));
    let hosts = s.field("hosts", list(|t| profile::host_port(t).then(|| t.to_owned())));
    let encryption = s.field("tls", parsed(encryption));
    let implicit = s.field("implicit_tls", boolean);
    let ca = optional(&mut s, "ca", parsed(profile::path));
    let server_name = optional(&mut s, "server_name", parsed(profile::hostname));
    let pins = s.field("pins", list(secrets::fingerprint));
    let certificate = optional(&mut s, "certificate", parsed(profile::path));
    let key = optional(&mut s, "key", parsed(profile::path));
    let login = login(&mut s, context);
    let most = optional(&mut s, "max_size", parsed(|t| Bytes::parse(t).filter(|b| b.0 >= 1024)));
    let manner = manner(&mut s);

    let (ca, certificate, key) = (ca?, certificate?, key?);
    let resolve = |p: Option<String>| p.map(|p| context.resolve(&p));
    let identity = match (resolve(certificate), resolve(key)) {
        (Some(certificate), Some(key)) => {
            secrets::check_identity(reader, context.files, path, &certificate, &key);
            Some((certificate, key))
        }
        (None, None) => None,
        (Some(_), None) => {
            reader.problem(&join(path, "certificate"), "without its key", "certificate and key");
            None
        }
        (None, Some(_)) => {
            reader.problem(&join(path, "key"), "without its certificate", "certificate and key");
            None
        }
    };
    let ca = resolve(ca);
    if let Some(ca) = &ca {
        secrets::check_authorities(reader, context.files, &join(path, "ca"), ca);
    }
    let (implicit, encryption) = (implicit?, encryption?);
    let encryption = match encryption {
        // There is no line in clear to fall back on.
        Encryption::Opportunistic if implicit => Encryption::Required,
        other => other,
    };
    let plan = SmarthostPlan {
        name: name?,
        hosts: hosts?,
        encryption,
        implicit,
        trust: Trust { ca, server_name: server_name?, pins: pins?.into_iter().collect() },
        identity,
        login: login?,
        most_bytes: most?.map(|b| b.0),
        manner: manner?,
    };
    hosts_are_some(reader, path, &plan);
    tls_is_what_it_says(reader, path, &plan);
    login_can_succeed(reader, path, &plan);
    Some(plan)
}

/// The keys that every table of next hops has.
pub fn manner(s: &mut Scope<'_>) -> Option<Manner> {
    let hello = optional(s, "hello", parsed(profile::hostname));
    let source = optional(s, "source_address", parsed(|t| t.parse::<IpAddr>().ok()));
    let connections = s.field("connections", integer(1, 100));
    let messages = s.field("messages_per_connection", integer(1, 10_000));
    let recipients = s.field("recipients", integer(1, 1000));
    let interval = s.field("interval", parsed(parse_duration));
    let back_off = s.field("back_off", parsed(at_least_a_second));
    let waits = waits(s);
    Some(Manner {
        hello: hello?,
        source: source?,
        connections: usize::try_from(connections?).ok()?,
        messages: u32::try_from(messages?).ok()?,
        recipients: usize::try_from(recipients?).ok()?,
        interval: interval?,
        back_off: back_off?,
        waits: waits?,
    })
}

/// The keys that bound the waits for next hops: those of a table of next hops, and for the rest those of `[limits]`.
pub fn waits(s: &mut Scope<'_>) -> Option<Waits> {
    let connect = s.field("connect_timeout", parsed(at_least_a_second));
    let command = s.field("command_timeout", parsed(at_least_a_second));
    let data_block = s.field("data_timeout", parsed(at_least_a_second));
    let data_end = s.field("final_timeout", parsed(at_least_a_second));
    let command = command?;
    Some(Waits {
        connect: connect?,
        timeouts: Timeouts {
            greeting: command,
            hello: command,
            mail: command,
            rcpt: command,
            data_start: command,
            data_block: data_block?,
            data_end: data_end?,
            ..Timeouts::default()
        },
    })
}

/// What `tls` says.
pub fn encryption(text: &str) -> Option<Encryption> {
    Some(match text {
        "off" => Encryption::Off,
        "opportunistic" => Encryption::Opportunistic,
        "required" => Encryption::Required,
        "verified" => Encryption::Verified,
        _ => return None,
    })
}

/// `Some(None)` where none is wanted; `None` where what is written is wrong.
#[expect(clippy::option_option, reason = "absent and wrong are different things")]
fn login(s: &mut Scope<'_>, context: &Context<'_>) -> Option<Option<LoginPlan>> {
    let plain = |t: &str| !t.is_empty() && t.len() <= 128 && !t.chars().any(char::is_control);
    let user = optional(s, "user", parsed(|t| plain(t).then(|| t.to_owned())));
    let file = optional(s, "password_file", parsed(profile::path));
    let mechanisms = optional(s, "mechanisms", list(Mechanism::parse));
    let at = |key: &str| join(&s.path, key);
    let (user_at, file_at, mechanisms_at) = (at("user"), at("password_file"), at("mechanisms"));
    let (user, file, mechanisms) = (user?, file?, mechanisms?);
    let reader = &mut *s.reader;
    let password = match file {
        Some(file) => Some(secrets::password_file(reader, context.files, &file_at, &context.resolve(&file))?),
        None => None,
    };
    let by_password = |m: &Mechanism| *m != Mechanism::External;
    let mechanisms = match (mechanisms, &password) {
        (Some(listed), _) if listed.is_empty() => {
            reader.problem(&mechanisms_at, "is empty", "at least one, or no such key");
            return None;
        }
        (Some(listed), _) => listed,
        (None, Some(_)) => Mechanism::ALL.into_iter().filter(by_password).collect(),
        (None, None) => Vec::new(),
    };
    if password.is_some() && user.is_none() {
        reader.problem(&file_at, "a password of nobody", "user");
        return None;
    }
    if password.is_none() && mechanisms.iter().any(by_password) {
        reader.problem(&mechanisms_at, "a mechanism that needs a password", "password_file, or EXTERNAL alone");
        return None;
    }
    if user.is_some() && mechanisms.is_empty() {
        reader.problem(&user_at, "a user with nothing to log in with", "password_file, or mechanisms = [\"EXTERNAL\"]");
        return None;
    }
    let scram = mechanisms.iter().any(|m| matches!(m, Mechanism::Scram | Mechanism::ScramPlus));
    if scram && password.as_ref().is_some_and(|p| !crate::smtp::scram::is_plain_password(&p.0)) {
        let problem = "SCRAM needs a password of printable ASCII: other letters have more than one form";
        reader.problem(&file_at, problem, "another password, or mechanisms = [\"PLAIN\"]");
        return None;
    }
    let user = user.unwrap_or_default();
    Some((!mechanisms.is_empty()).then_some(LoginPlan { user, password, mechanisms }))
}

fn hosts_are_some(reader: &mut Reader, path: &str, plan: &SmarthostPlan) {
    let at = join(path, "hosts");
    if plan.hosts.is_empty() || plan.hosts.len() > MOST_HOSTS {
        reader.problem(&at, format!("{} hosts", plan.hosts.len()), &format!("1 to {MOST_HOSTS}"));
    }
    let mut seen = BTreeSet::new();
    for host in plan.hosts.iter().filter(|host| !seen.insert(host.as_str())) {
        reader.problem(&at, format!("{host} stands twice"), "each host once");
    }
}

fn tls_is_what_it_says(reader: &mut Reader, path: &str, plan: &SmarthostPlan) {
    let Trust { ca, server_name, pins } = &plan.trust;
    if plan.is_verified() && ca.is_none() && pins.is_empty() {
        reader.problem(&join(path, "tls"), "nothing to verify a certificate by", "ca, pins, or both");
    }
    let unused = [("ca", ca.is_some()), ("server_name", server_name.is_some()), ("pins", !pins.is_empty())];
    for (key, _) in unused.iter().filter(|(_, written)| *written && !plan.is_verified()) {
        reader.problem(&join(path, key), "no certificate is checked", "tls = \"verified\"");
    }
    if server_name.is_some() && ca.is_none() && plan.is_verified() {
        reader.problem(&join(path, "server_name"), "pins alone name no host", "ca, or no server_name");
    }
    if plan.encryption == Encryption::Off && plan.implicit {
        reader.problem(&join(path, "implicit_tls"), "there is no TLS", "tls = \"required\", or \"verified\"");
    }
    if plan.encryption == Encryption::Off && plan.identity.is_some() {
        reader.problem(
            &join(path, "certificate"),
            "shown to nobody without TLS",
            "tls = \"required\", or \"verified\"",
        );
    }
}

fn login_can_succeed(reader: &mut Reader, path: &str, plan: &SmarthostPlan) {
    let Some(login) = &plan.login else { return };
    let at = join(path, "mechanisms");
    if login.mechanisms.contains(&Mechanism::External) && plan.identity.is_none() {
        reader.problem(&at, "EXTERNAL is the login by a certificate", "certificate and key");
    }
    let loopback = plan.hosts.iter().all(|host| is_loopback(host));
    let only = |m: Mechanism| login.mechanisms.iter().all(|other| *other == m);
    if plan.encryption == Encryption::Off && only(Mechanism::ScramPlus) {
        reader.problem(&at, "SCRAM-SHA-256-PLUS is tied to TLS", "tls = \"required\", or \"verified\"");
    }
    if !login.mechanisms.contains(&Mechanism::Plain) || loopback {
        return;
    }
    match plan.encryption {
        Encryption::Off if only(Mechanism::Plain) => {
            reader.problem(&join(path, "tls"), "the password is never sent in clear", "required, verified");
        }
        Encryption::Opportunistic | Encryption::Required => {
            let better = "tls = \"verified\", or mechanisms without PLAIN";
            reader.warn(&at, "by PLAIN the password goes to whoever answers: no certificate is checked", better);
        }
        Encryption::Off | Encryption::Verified => {}
    }
}

/// Whether what is said to a host stays on this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = host_of(host);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|a| a.to_canonical().is_loopback())
}

/// The host of `host:port`, an IPv6 address without its brackets.
pub fn host_of(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']'])
}

/// Routes name those there are, hosts are others than this node.
pub fn check(reader: &mut Reader, d: &Declared<'_>) {
    let mut used = BTreeSet::new();
    for (path, route) in d.routes {
        let Hop::Smarthost(name) = &route.hop else { continue };
        used.insert(name.as_str());
        if !d.smarthost_names.contains(name) {
            let names: Vec<&str> = d.smarthost_names.iter().map(String::as_str).collect();
            reader.problem(&join(path, "to"), format!("there is no [[smarthost]] named {name}"), &names.join(", "));
        }
    }
    for (path, plan) in d.smarthosts {
        for host in &plan.hosts {
            if let Some((listener, _)) = d.listeners.iter().find(|(_, l)| l.address.to_string() == *host) {
                let problem = format!("{host} is this node's own {listener}");
                reader.problem(&join(path, "hosts"), problem, "another host");
            }
        }
        if !used.contains(plan.name.as_str()) && d.routes.len() == d.routes_written {
            let better = format!("to = \"smarthost:{}\" in a [[route]]", plan.name);
            reader.warn(path, "no route leads to it", &better);
        }
    }
}
