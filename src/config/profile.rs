//! From a profile's tables to the parts of a [`Plan`]: one function per table, each reading all its keys before it gives up.
//!
//! What concerns more than one table stands in `cross`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::plan::{
    BearerPlan, BlindPlan, CarryPlan, Choice, CodecPlan, KeyingPlan, Limits, LocalPlan, NodePlan, PeerPlan, Plan,
    PrecedencePlan, ReducePlan, RetryPlan, Silences, UserPlan, Waveform,
};
use super::reader::{Reader, Scope, boolean, integer, join, list, parsed, text};
use super::sheet::{self, Sheet};
use super::tree::{self, Entry, Value};
use super::{Files, Password, addresses, authentication, cross, listener, mx, net, schema, secrets, smarthost};
use crate::codec::reduce;
use crate::codec::site::SiteDictionary;
use crate::emcon::{State, Window};
use crate::mail::{BearerId, Hop, LinkKey, Mailbox, PeerName, Precedence, Protection};
use crate::route::{Aliases, Bounds, Directory, Pattern, Rewrites, Route, Table};
use crate::security::certificate::same_name;
use crate::time::{Duration, Wall};
use crate::units::{Bps, Bytes, parse_duration};

/// Where relative paths start, and how files are read.
pub struct Context<'c> {
    pub directory: &'c Path,
    pub files: &'c dyn Files,
}

impl Context<'_> {
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }
}

/// Builds the plan; `None` when `reader` holds the reasons.
pub fn build(reader: &mut Reader, context: &Context<'_>, root: &Entry) -> Option<Plan> {
    let mut top = reader.scope(&schema::ROOT, "", Some(root));
    let tables: BTreeMap<&str, Option<Entry>> = schema::ROOT.keys.iter().map(|k| (k.name, top.raw(k.name))).collect();
    let table = |name: &str| tables.get(name).and_then(Option::as_ref);
    if table("node").is_none() {
        reader.problem("node", "missing", "a [node] table with at least a name");
    }

    let node = node(reader, context, table("node"));
    let limits = limits(reader, table("limits"));
    let listeners =
        each(reader, "listener", table("listener"), |r, at, e| listener::read(r, context, limits.as_ref(), at, e));
    let users = each(reader, "user", table("user"), user);
    let routes = each(reader, "route", table("route"), |r, at, e| route(r, context, at, e));
    let smarthosts = each(reader, "smarthost", table("smarthost"), |r, at, e| smarthost::read(r, context, at, e));
    let aliases = each(reader, "alias", table("alias"), addresses::alias);
    let rewrites = each(reader, "rewrite", table("rewrite"), addresses::rewrite);
    let state_dir = node.as_ref().map(|n| n.state_dir.clone());
    let local = local(reader, context, table("local"), state_dir.as_deref());
    let retry = retry(reader, table("retry"));
    let precedence = precedence(reader, table("precedence"));
    let blind = blind(reader, table("blind"));
    let (mut mules, mut pmul, mut multicast) = (Vec::new(), Vec::new(), Vec::new());
    let peers = each(reader, "peer", table("peer"), |r, at, e| {
        if !net::is_mule(e) {
            return peer(r, context, at, e);
        }
        mules.extend(net::mule_peer(r, at, e).map(|m| (at.to_owned(), m)));
        None
    });
    let bearers = each(reader, "bearer", table("bearer"), |r, at, e| {
        match net::bearer(r, at, e) {
            None => return bearer(r, context, at, e),
            Some(Some(net::Net::Pmul(plan))) => pmul.push((at.to_owned(), *plan)),
            Some(Some(net::Net::Aldis(plan))) => multicast.push((at.to_owned(), *plan)),
            Some(None) => {}
        }
        None
    });

    let rules = each(reader, "reduce", table("reduce"), reduction);
    let codec = codec(reader, context, table("codec"));
    let dns = authentication::dns(reader, table("dns"));
    let mx = mx::read(reader, context, table("mx"));
    let checks = authentication::checks(reader, table("checks"), node.as_ref().map(|n| n.hostname.as_str()));
    let dkim = each(reader, "dkim", table("dkim"), |r, at, e| authentication::dkim(r, context, at, e));

    let declared = cross::Declared {
        peers: names(table("peer")),
        listener_names: names(table("listener")),
        routes_written: elements(table("route")),
        smarthost_names: names(table("smarthost")),
        smarthosts: &smarthosts,
        mx: mx.as_ref(),
        bearer_names: names(table("bearer")),
        carried: carried(table("bearer")),
        node: node.as_ref(),
        limits: limits.as_ref(),
        listeners: &listeners,
        users: &users,
        routes: &routes,
        aliases: &aliases,
        rewrites: &rewrites,
        local: local.as_ref(),
        retry: &retry,
        peer_plans: &peers,
        bearers: &bearers,
        mules: &mules,
        pmul: &pmul,
        multicast: &multicast,
        reduce: &rules,
        dictionary_named: codec.as_ref().is_some_and(|(named, _)| *named),
        dkim: &dkim,
        dkim_names: names(table("dkim")),
        written: tables.iter().filter(|(_, entry)| entry.is_some()).map(|(name, _)| *name).collect(),
    };
    cross::check(reader, &declared);
    if !reader.problems.is_empty() {
        return None;
    }
    let (node, limits, local) = (node?, limits?, local?);
    let directory = Directory {
        routes: Table { routes: routes.into_iter().map(|(_, r)| r).collect() },
        aliases: Aliases::new(aliases.into_iter().map(|(_, a)| a)),
        rewrites: Rewrites { rules: rewrites.into_iter().map(|(_, r)| r).collect() },
        users: local.users.clone(),
        separator: local.separator.clone(),
        postmaster: node.postmaster.clone(),
        bounds: limits.aliases,
    };
    Some(Plan {
        node,
        limits,
        listeners: listeners.into_iter().map(|(_, l)| l).collect(),
        smarthosts: smarthosts.into_iter().map(|(_, s)| s).collect(),
        users: users.into_iter().map(|(_, u)| u).collect(),
        directory,
        local,
        retry,
        precedence: precedence?,
        blind,
        peers: peers.into_iter().map(|(_, p)| p).collect(),
        bearers: bearers.into_iter().map(|(_, b)| b).collect(),
        mules: mules.into_iter().map(|(_, m)| m).collect(),
        pmul: pmul.into_iter().map(|(_, p)| p).collect(),
        multicast: multicast.into_iter().map(|(_, m)| m).collect(),
        reduce: rules.into_iter().map(|(_, r)| r).collect(),
        codec: codec?.1,
        dns: dns?,
        mx: mx?,
        checks: checks?,
        dkim: dkim.into_iter().map(|(_, d)| d).collect(),
    })
}

/// The control socket alone.
pub fn socket(reader: &mut Reader, context: &Context<'_>, root: &Entry) -> Option<PathBuf> {
    let mut top = reader.scope(&schema::ROOT, "", Some(root));
    let entry = top.raw("node");
    if entry.is_none() {
        reader.problem("node", "missing", "a [node] table with at least a name");
    }
    node(reader, context, entry.as_ref()).map(|n| n.socket)
}

/// Reads every element of an array of tables, with the path under which `--set` finds it.
fn each<T>(
    reader: &mut Reader,
    name: &str,
    entry: Option<&Entry>,
    mut read: impl FnMut(&mut Reader, &str, &Entry) -> Option<T>,
) -> Vec<(String, T)> {
    let items = match entry.map(|e| &e.value) {
        None => return Vec::new(),
        Some(Value::List(items)) => items,
        Some(other) => {
            reader.problem(name, format!("is {}, not an array of tables", other.kind()), &format!("[[{name}]]"));
            return Vec::new();
        }
    };
    let mut seen = BTreeSet::new();
    let mut plans = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let label = tree::name_of(item);
        let path = join(name, &label.clone().unwrap_or_else(|| i.to_string()));
        if let Some(plan) = read(reader, &path, item) {
            plans.push((path.clone(), plan));
        }
        if let Some(label) = label
            && !seen.insert(label.clone())
        {
            reader.problem_at(&item.origin, &path, format!("a second [[{name}]] named {label:?}"), "each name once");
        }
    }
    plans
}

fn names(entry: Option<&Entry>) -> BTreeSet<String> {
    match entry.map(|e| &e.value) {
        Some(Value::List(items)) => items.iter().filter_map(tree::name_of).collect(),
        _ => BTreeSet::new(),
    }
}

fn elements(entry: Option<&Entry>) -> usize {
    match entry.map(|e| &e.value) {
        Some(Value::List(items)) => items.len(),
        _ => 0,
    }
}

fn carried(entry: Option<&Entry>) -> BTreeSet<String> {
    let Some(Value::List(bearers)) = entry.map(|e| &e.value) else { return BTreeSet::new() };
    let lists = bearers.iter().filter_map(|b| match &b.value {
        Value::Table(fields) => match &fields.get("peers")?.value {
            Value::List(peers) => Some(peers),
            _ => None,
        },
        _ => None,
    });
    lists.flatten().filter_map(|p| text(p).ok()).collect()
}

fn node(reader: &mut Reader, context: &Context<'_>, entry: Option<&Entry>) -> Option<NodePlan> {
    entry?;
    let mut s = reader.scope(&schema::NODE, "node", entry);
    let name = s.field("name", parsed(name));
    let fallback = name.clone().unwrap_or_else(|| "localhost".into());
    let hostname = s.field_or("hostname", fallback.clone(), parsed(hostname));
    let state_dir = s.field("state_dir", parsed(path))?;
    let socket = s.field_or("socket", format!("{}/aldis.sock", state_dir.trim_end_matches('/')), parsed(path));
    let socket_mode = s.field("socket_mode", parsed(|t| u32::from_str_radix(t, 8).ok().filter(|m| *m <= 0o777)));
    let host = hostname.clone().unwrap_or(fallback);
    let postmaster = s.field_or("postmaster", format!("postmaster@{host}"), parsed(mailbox));
    let clock = s.field("clock", parsed(|t| ["kernel", "trusted"].contains(&t).then(|| t == "trusted")));
    #[cfg(feature = "mutations")]
    let mutation = s.field(
        "mutation",
        parsed(|t| match t {
            "none" => Some(None),
            name => crate::mutation::Mutation::parse(name).map(Some),
        }),
    );
    Some(NodePlan {
        #[cfg(feature = "mutations")]
        mutation: mutation?,
        name: name?.as_str().into(),
        hostname: hostname?,
        state_dir: context.resolve(&state_dir),
        socket: context.resolve(&socket?),
        socket_mode: socket_mode?,
        postmaster: postmaster?,
        clock_trusted: clock?,
    })
}

fn limits(reader: &mut Reader, entry: Option<&Entry>) -> Option<Limits> {
    let mut s = reader.scope(&schema::LIMITS, "limits", entry);
    let message = s.field("message", parsed(message_size));
    let recipients = s.field("recipients", integer(100, 10_000));
    let sessions = s.field("sessions", integer(1, 100_000));
    let sessions_per_address = s.field("sessions_per_address", integer(1, 100_000));
    let session_idle = s.field("session_idle", parsed(at_least_a_second));
    let session_total = s.field("session_total", parsed(at_least_a_second));
    let session_errors = s.field("session_errors", integer(1, 1000));
    let received_fields = s.field("received_fields", integer(25, 1000));
    let in_flight = s.field("in_flight", parsed(Bytes::parse));
    let active_messages = s.field("active_messages", integer(10, 1_000_000));
    let disk_floor = s.field("disk_floor", parsed(Bytes::parse));
    let deliveries = s.field("deliveries", integer(1, 1000));
    let waits = smarthost::waits(&mut s);
    let keep_done = s.field("keep_done", parsed(at_least_a_second));
    let future_release = s.field("future_release", integer(0, 100_000));
    let future_release_per_user = s.field("future_release_per_user", integer(0, 100_000));
    let history = s.field("history", parsed(|t| Bytes::parse(t).filter(|b| b.0 <= 1 << 20)));
    let alias_depth = s.field("alias_depth", integer(1, 50));
    let copies = s.field("copies", integer(100, 100_000));
    Some(Limits {
        aliases: Bounds { depth: size(alias_depth?)?, copies: size(copies?)? },
        message_bytes: message?.0,
        recipients: size(recipients?)?,
        sessions: size(sessions?)?,
        sessions_per_address: size(sessions_per_address?)?,
        session_idle: session_idle?,
        session_total: session_total?,
        session_errors: u32::try_from(session_errors?).ok()?,
        received_fields: size(received_fields?)?,
        in_flight_bytes: in_flight?.0,
        active_messages: size(active_messages?)?,
        disk_floor_bytes: disk_floor?.0,
        deliveries: size(deliveries?)?,
        waits: waits?,
        keep_done: keep_done?,
        future_release: size(future_release?)?,
        future_release_per_user: size(future_release_per_user?)?,
        history_bytes: history?.0,
    })
}

fn user(reader: &mut Reader, path: &str, entry: &Entry) -> Option<(String, UserPlan)> {
    let mut s = reader.scope(&schema::USER, path, Some(entry));
    let plain = |t: &str| !t.is_empty() && t.len() <= 128 && t.chars().all(|c| !c.is_control() && !c.is_whitespace());
    let name = s.field("name", parsed(|t| plain(t).then(|| t.to_string())));
    let wrong = "is neither an Argon2 PHC string nor a SCRAM-SHA-256 verifier";
    let password = optional(&mut s, "password_hash", |e| Password::parse(&text(e)?).ok_or_else(|| wrong.into()));
    let certificate = optional(&mut s, "certificate", parsed(same_name));
    let max_precedence = s.field("max_precedence", parsed(Precedence::parse));
    let (password, certificate) = (password?, certificate?);
    if password.is_none() && certificate.is_none() {
        reader.problem(path, "nothing to log in with", "password_hash, certificate, or both");
        return None;
    }
    Some((name?, UserPlan { password, certificate, max_precedence: max_precedence? }))
}

/// A key that need not be written and has no default. `None` when it is written wrong.
#[expect(clippy::option_option, reason = "absent and wrong are different things")]
pub fn optional<T>(
    s: &mut Scope<'_>,
    key: &'static str,
    read: impl FnOnce(&Entry) -> Result<T, String>,
) -> Option<Option<T>> {
    match s.raw(key) {
        Some(_) => s.field(key, read).map(Some),
        None => Some(None),
    }
}

fn route(reader: &mut Reader, context: &Context<'_>, path: &str, entry: &Entry) -> Option<Route> {
    let mut s = reader.scope(&schema::ROUTE, path, Some(entry));
    let pattern = s.field("match", parsed(Pattern::parse));
    let to = s.field(
        "to",
        parsed(|t| match t {
            "refuse" => Some((Hop::Hold, true)),
            t => hop(context, t).map(|hop| (hop, false)),
        }),
    );
    let bearers = s.field("bearers", list(|t| name(t).map(|n| BearerId::from(&*n))));
    let least = optional(&mut s, "min_precedence", parsed(Precedence::parse));
    let most = optional(&mut s, "max_precedence", parsed(Precedence::parse));
    let place = entry.origin.to_string();
    let (hop, refuses) = to?;
    Some(Route { pattern: pattern?, hop, refuses, bearers: bearers?, least: least?, most: most?, place })
}

fn hop(context: &Context<'_>, text: &str) -> Option<Hop> {
    match text {
        "local" => return Some(Hop::Local),
        "mx" => return Some(Hop::Mx(String::new())),
        "hold" => return Some(Hop::Hold),
        _ => {}
    }
    let (scheme, rest) = text.split_once(':')?;
    match scheme {
        "smtp" => host_port(rest).then(|| Hop::Smtp(rest.into())),
        "smarthost" => name(rest).map(Hop::Smarthost),
        "lmtp" if rest.contains('/') => Some(Hop::Lmtp(context.resolve(rest).to_string_lossy().into_owned())),
        "lmtp" => host_port(rest).then(|| Hop::Lmtp(rest.into())),
        "peer" => name(rest).map(|n| Hop::Peer(n.as_str().into())),
        _ => None,
    }
}

fn local(
    reader: &mut Reader,
    context: &Context<'_>,
    entry: Option<&Entry>,
    state_dir: Option<&Path>,
) -> Option<LocalPlan> {
    let mut s = reader.scope(&schema::LOCAL, "local", entry);
    let fallback = state_dir.unwrap_or(Path::new("state")).join("maildir");
    let maildir = s.field_or("maildir", fallback.to_string_lossy().into_owned(), parsed(path));
    // A local part becomes a directory's name.
    let users = s.field(
        "users",
        list(|t| (!t.is_empty() && !t.contains(['/', '\0']) && !t.starts_with('.')).then(|| t.to_string())),
    );
    let separator = s.field("separator", parsed(|t| ["", "+", "-", "_", "=", "#"].contains(&t).then(|| t.to_string())));
    let written = entry.is_some_and(|e| matches!(&e.value, Value::Table(f) if f.contains_key("maildir")));
    let maildir = maildir?;
    let maildir = if written { context.resolve(&maildir) } else { maildir.into() };
    Some(LocalPlan { maildir, users: users?, separator: separator? })
}

/// Attempts in seconds, delay report and expiry: what holds for a level unless the profile says otherwise.
const fn retry_default(level: Precedence) -> (&'static [&'static str], &'static str, &'static str) {
    match level {
        Precedence::Override | Precedence::Flash => (&["30s", "30s", "1min", "1min", "2min"], "10min", "6h"),
        Precedence::Immediate => (&["1min", "2min", "4min", "5min"], "30min", "12h"),
        Precedence::Priority => (&["5min", "10min", "15min"], "2h", "1d"),
        Precedence::Routine => (&["15min", "30min", "1h"], "4h", "5d"),
        Precedence::Deferred => (&["1h", "2h"], "1d", "7d"),
    }
}

fn retry(reader: &mut Reader, entry: Option<&Entry>) -> BTreeMap<Precedence, RetryPlan> {
    let mut s = reader.scope(&schema::RETRY, "retry", entry);
    let levels: Vec<(Precedence, Option<Entry>)> =
        schema::RETRY.keys.iter().filter_map(|k| Some((Precedence::parse(k.name)?, s.raw(k.name)))).collect();
    let mut plans = BTreeMap::new();
    for (level, entry) in levels {
        let (after, warn, expire) = retry_default(level);
        let listed = after.iter().map(|t| Entry { value: Value::Text((*t).into()), origin: tree::Origin::Default });
        let mut s = reader.scope(&schema::RETRY_LEVEL, &format!("retry.{level}"), entry.as_ref());
        let after = s.field_or("after", Value::List(listed.collect()), |e| {
            let waits = list(at_least_a_second)(e)?;
            if waits.is_empty() { Err("is empty".into()) } else { Ok(waits) }
        });
        let warn = s.field_or("warn", warn.to_string(), parsed(at_least_a_second));
        let expire = s.field_or("expire", expire.to_string(), parsed(at_least_a_second));
        if let (Some(after), Some(warn), Some(expire)) = (after, warn, expire) {
            plans.insert(level, RetryPlan { after, warn, expire });
        }
    }
    plans
}

fn precedence(reader: &mut Reader, entry: Option<&Entry>) -> Option<PrecedencePlan> {
    let mut s = reader.scope(&schema::PRECEDENCE, "precedence", entry);
    let default = s.field("default", parsed(Precedence::parse));
    let mmhs = s.field("mmhs", boolean);
    let two_bearers =
        s.field("two_bearers", |e| if text(e)? == "never" { Ok(None) } else { parsed(Precedence::parse)(e).map(Some) });
    Some(PrecedencePlan { default: default?, mmhs: mmhs?, two_bearers: two_bearers? })
}

/// Windows and the time between them: what holds for a level unless the profile says otherwise.
const fn blind_default(level: Precedence) -> (i64, &'static str) {
    match level {
        Precedence::Override | Precedence::Flash => (3, "15min"),
        Precedence::Immediate => (3, "30min"),
        Precedence::Priority => (2, "1h"),
        Precedence::Routine => (2, "2h"),
        Precedence::Deferred => (1, "2h"),
    }
}

fn blind(reader: &mut Reader, entry: Option<&Entry>) -> BTreeMap<Precedence, BlindPlan> {
    let mut s = reader.scope(&schema::BLIND, "blind", entry);
    let levels: Vec<(Precedence, Option<Entry>)> =
        schema::BLIND.keys.iter().filter_map(|k| Some((Precedence::parse(k.name)?, s.raw(k.name)))).collect();
    let mut plans = BTreeMap::new();
    for (level, entry) in levels {
        let (windows, every) = blind_default(level);
        let mut s = reader.scope(&schema::BLIND_LEVEL, &format!("blind.{level}"), entry.as_ref());
        let target = s.field("target", parsed(|t| share(t).filter(|s| (0.5..=0.999_999).contains(s))));
        let windows = s.field_or("windows", Value::Integer(windows), integer(1, 20));
        let every = s.field_or("every", every.to_string(), parsed(at_least_a_second));
        if let (Some(target), Some(windows), Some(every)) = (target, windows.and_then(|w| u32::try_from(w).ok()), every)
        {
            plans.insert(level, BlindPlan { target, windows, every });
        }
    }
    plans
}

/// A share of a whole, as per cent.
fn share(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.trim_end().parse().ok()?;
    percent.is_finite().then_some(percent / 100.0)
}

/// When a peer keeps silence: true, false, or listed times.
pub fn silences(reader: &mut Reader, path: &str, entry: &Entry) -> Option<Silences> {
    match &entry.value {
        Value::Bool(always) => Some(if *always { Silences::Always } else { Silences::Never }),
        Value::Text(word) if word == "false" => Some(Silences::Never),
        Value::List(items) => {
            let read = |(i, item): (usize, &Entry)| {
                let mut s = reader.scope(&schema::PEER_SILENT, &join(path, &i.to_string()), Some(item));
                let from = s.field("from", parsed(Wall::parse_rfc3339));
                let until = s.field("until", parsed(Wall::parse_rfc3339));
                let window = Window { from: from?, until: until? };
                if window.from >= window.until {
                    s.reader.problem(&s.path, "ends before it begins", "from before until");
                    return None;
                }
                Some(window)
            };
            let windows: Vec<Option<Window>> = items.iter().enumerate().map(read).collect();
            windows.into_iter().collect::<Option<Vec<Window>>>().map(Silences::Windows)
        }
        other => {
            reader.problem(path, format!("is {}", other.kind()), "true, false, or a list of { from, until }");
            None
        }
    }
}

fn peer(reader: &mut Reader, context: &Context<'_>, path: &str, entry: &Entry) -> Option<PeerPlan> {
    let mut s = reader.scope(&schema::PEER, path, Some(entry));
    let peer_name = s.field("name", parsed(name));
    let protocol = s.field("protocol", parsed(|t| (t == "aldis").then_some(())));
    let station = s.field("station", integer(0, 255));
    let protection = s.field(
        "protection",
        parsed(|t| {
            Some(match t {
                "off" => Protection::Off,
                "mac" => Protection::Mac,
                "aead" => Protection::Aead,
                _ => return None,
            })
        }),
    );
    let assumed_loss = s.field("assumed_loss", parsed(|t| share(t).filter(|s| (0.0..=0.5).contains(s))));
    let receipts = s.field(
        "receipts",
        parsed(|t| match t {
            "digest" => Some(true),
            "verbatim" => Some(false),
            _ => None,
        }),
    );
    let dictionary = s.field("dictionary", boolean);
    let silent_path = s.at("silent");
    let written = s.field("silent", |e| Ok(e.clone()));
    let keys_path = s.at("keys");
    let keys = s.raw("keys");
    let silent = written.and_then(|e| silences(reader, &silent_path, &e));
    let mut plans = Vec::new();
    let mut sound = true;
    match keys.as_ref().map(|k| &k.value) {
        None => {}
        Some(Value::List(items)) => {
            for (i, item) in items.iter().enumerate() {
                let label = tree::name_of(item).unwrap_or_else(|| i.to_string());
                match link_key(reader, context, &join(&keys_path, &label), item) {
                    Some(key) => plans.push(key),
                    None => sound = false,
                }
            }
        }
        Some(other) => {
            reader.problem(&keys_path, format!("is {}, not a list", other.kind()), "[{ id = 0, file = \"PATH\" }]")
        }
    }
    if plans.len() > 2 {
        reader.problem(&keys_path, "more than two keys", "one key, or two while they are changed");
    }
    if let [first, second] = plans.as_slice()
        && first.id == second.id
    {
        reader.problem(&keys_path, format!("both keys have id {}", first.id), "two ids, 0 to 3");
    }
    if sound && plans.is_empty() && protection.is_some_and(|p| p != Protection::Off) {
        reader.problem(
            &keys_path,
            "this protection needs a key",
            "keys = [{ id = 0, file = \"PATH\" }], or protection = \"off\"",
        );
    }
    protocol?;
    Some(PeerPlan {
        name: peer_name?.as_str().into(),
        station: u8::try_from(station?).ok()?,
        protection: protection?,
        keys: plans,
        silent: silent?,
        assumed_loss: assumed_loss?,
        takes_receipts: receipts?,
        dictionary: dictionary?,
    })
}

fn link_key(reader: &mut Reader, context: &Context<'_>, path: &str, entry: &Entry) -> Option<LinkKey> {
    let mut s = reader.scope(&schema::PEER_KEY, path, Some(entry));
    let id = s.field("id", integer(0, 3));
    let secret = match (s.has("file"), s.has("hex")) {
        (true, false) => {
            let file = s.field("file", parsed(self::path))?;
            let at = s.at("file");
            secrets::key_file(reader, context.files, &at, &context.resolve(&file))
        }
        (false, true) => s.field("hex", |e| secrets::key_text(&text(e)?)),
        _ => {
            reader.problem(path, "needs one of file and hex", "{ id, file } or { id, hex }");
            None
        }
    };
    let secret = secret?;
    secrets::check_key(reader, path, &secret);
    Some(LinkKey { id: u8::try_from(id?).ok()?, secret })
}

fn bearer(reader: &mut Reader, context: &Context<'_>, path: &str, entry: &Entry) -> Option<BearerPlan> {
    let mut s = reader.scope(&schema::BEARER, path, Some(entry));
    let bearer_name = s.field("name", parsed(name));
    let kind = s.field("kind", parsed(|t| (t == "serial").then_some(())));
    let device = s.field("device", parsed(self::path));
    let baud = s.field("baud", integer(50, 4_000_000));
    let modem = s.field("modem", text);
    let rate = s.field("rate", rates);
    let interleaver = match s.has("interleaver") || matches!(rate, Some(Rates::One(_))) {
        true => s.field("interleaver", letters),
        false => s.field_or("interleaver", "auto".to_owned(), letters),
    };
    let first_rate = s.has("first_rate").then(|| s.field("first_rate", parsed(Bps::parse))).flatten();
    s.raw("first_rate");
    let station = s.field("station", integer(0, 15));
    let peers = s.field("peers", list(name));
    let emcon = s.field("emcon", parsed(State::parse));
    let cap = |t: &str| parse_duration(t).filter(|d| *d <= Duration::from_millis(127_500));
    let max_transmission = s.field("max_transmission", parsed(cap));
    let max_transmission_routine = s.field("max_transmission_routine", parsed(cap));
    let max_payload = s.field("max_payload", parsed(|t| Bytes::parse(t).filter(|b| (1024..=511 << 10).contains(&b.0))));
    let max_air = s.field("max_air", parsed(at_least_a_second));
    let carry_path = s.at("carry");
    let carry_entry = s.raw("carry");
    let on_excess = s.field("on_excess", parsed(|t| ["return", "hold"].contains(&t).then(|| t == "hold")));
    let protected = s.field("protected", boolean);
    let cost = s.field("cost", parsed(parse_duration));
    let net = s.field("net", parsed(name));
    let stuck = s.field("carrier_stuck_after", parsed(at_least_a_second));
    let keying_path = s.at("keying");
    let keying = s.raw("keying");
    let turnaround_written = s.has("turnaround");

    let sheet = sheet_of(s.reader, context, &s.path, &modem?)?;
    let shown = crate::units::show_duration(sheet.turnaround);
    let turnaround = if turnaround_written {
        s.field("turnaround", parsed(parse_duration))
    } else {
        s.raw("turnaround");
        let key = s.at("turnaround");
        s.reader.note(key, shown, &sheet.origin, true);
        Some(sheet.turnaround)
    };
    let carry = carry(reader, &carry_path, carry_entry.as_ref(), max_payload?, max_air?);
    let keying = keying_of(reader, context, &keying_path, keying.as_ref(), &sheet);
    let (waveform, choices) = match (rate?, interleaver?) {
        (Rates::One(rate), Some(letters)) if letters.len() == 1 => {
            if first_rate.is_some() {
                reader.problem(&join(path, "first_rate"), "the rate is fixed", "only with rate = \"auto\" or a list");
            }
            (waveform(reader, path, &sheet, rate, &letters[0], turnaround?), Vec::new())
        }
        (Rates::One(_), _) => {
            let one = "one of them; a list or auto goes with rate = \"auto\" or a list";
            reader.problem(&join(path, "interleaver"), "the rate is fixed, so the interleaver is", one);
            return None;
        }
        (rates, letters) => {
            let wanted = Wanted { rates, letters, first_rate };
            let selects = sheet.selects_waveform && matches!(keying, Some(KeyingPlan::Socket(_)));
            let choices = choices(reader, path, &sheet, &wanted, selects, turnaround?)?;
            let first = first_of(&choices, first_rate);
            (
                first.and_then(|first| waveform(reader, path, &sheet, first.rate, &first.interleaver, turnaround?)),
                choices,
            )
        }
    };
    kind?;
    Some(BearerPlan {
        id: BearerId::from(bearer_name?.as_str()),
        device: context.resolve(&device?),
        baud: u32::try_from(baud?).ok()?,
        keying: keying?,
        waveform: waveform?,
        choices,
        station: u8::try_from(station?).ok()?,
        peers: peers?.iter().map(|p| PeerName::from(p.as_str())).collect(),
        emcon: emcon?,
        max_transmission: max_transmission?,
        max_transmission_routine: max_transmission_routine?,
        max_payload_bytes: max_payload?.0,
        carry,
        hold_excess: on_excess?,
        protected: protected?,
        cost: cost?,
        net: if net.as_deref() == Some("none") { String::new() } else { net? },
        carrier_stuck_after: stuck?,
    })
}

/// What each level may cost; what is not written is what the bearer gives any of them.
pub fn carry(
    reader: &mut Reader,
    path: &str,
    entry: Option<&Entry>,
    max_payload: Bytes,
    max_air: Duration,
) -> BTreeMap<Precedence, CarryPlan> {
    let mut s = reader.scope(&schema::CARRY, path, entry);
    let levels: Vec<(Precedence, Option<Entry>)> =
        schema::CARRY.keys.iter().filter_map(|k| Some((Precedence::parse(k.name)?, s.raw(k.name)))).collect();
    let mut plans = BTreeMap::new();
    for (level, entry) in levels {
        let mut plan = CarryPlan { payload_bytes: max_payload.0, air: max_air };
        if entry.is_some() {
            let mut s = reader.scope(&schema::CARRY_LEVEL, &join(path, level.name()), entry.as_ref());
            let payload = |t: &str| Bytes::parse(t).filter(|b| (1..=max_payload.0).contains(&b.0));
            if let Some(bytes) = s.field_or("payload", max_payload.to_string(), parsed(payload)) {
                plan.payload_bytes = bytes.0;
            }
            let air = crate::units::show_duration(max_air);
            if let Some(air) = s.field_or("air", air, parsed(at_least_a_second)) {
                plan.air = air;
            }
        }
        plans.insert(level, plan);
    }
    plans
}

/// Whether a dictionary is named, and what is known of it. A node runs without one that cannot be read: its mail is longer, not lost.
fn codec(reader: &mut Reader, context: &Context<'_>, entry: Option<&Entry>) -> Option<(bool, CodecPlan)> {
    let mut s = reader.scope(&schema::CODEC, "codec", entry);
    let file = s.field("dictionary", parsed(path))?;
    let key = s.at("dictionary");
    if file == "none" {
        return Some((false, CodecPlan::default()));
    }
    let file = context.resolve(&file);
    let dictionary = match context.files.read(&file) {
        Ok(read) => SiteDictionary::new(read.bytes).ok_or_else(|| "has no bytes, or more than 256 KiB".to_owned()),
        Err(e) => Err(format!("cannot be read: {e}")),
    };
    if let Err(why) = &dictionary {
        let problem = format!("{} {why}; mail is coded without it", file.display());
        reader.warn(&key, problem, "a file that aldis codec train made");
    }
    Some((true, CodecPlan { dictionary: dictionary.ok().map(Arc::new) }))
}

fn reduction(reader: &mut Reader, path: &str, entry: &Entry) -> Option<ReducePlan> {
    let mut s = reader.scope(&schema::REDUCE, path, Some(entry));
    let rule_name = s.field("name", parsed(name));
    let bearers = s.field("bearers", list(name));
    let over = s.field("over", parsed(Bytes::parse));
    let up_to = s.field("up_to", parsed(Precedence::parse));
    let strip = s.field("strip_headers", |e| {
        let words = list(|t| Some(t.to_owned()))(e)?;
        match words.iter().find(|w| !["trace", "vanity"].contains(&w.as_str()) && !reduce::may_strip(w)) {
            Some(word) => Err(format!("{word:?} is no name of a field, or of one that a reader needs")),
            None => Ok(words),
        }
    });
    let html = s.field("drop_html", boolean);
    let attachments = s.field("hold_attachments", |e| match text(e)?.as_str() {
        "never" => Ok(None),
        _ => parsed(Bytes::parse)(e).map(|b| Some(b.0)),
    });
    let images = s.field("scale_images", |e| match text(e)?.as_str() {
        "never" => Ok(None),
        _ => parsed(|t| t.strip_suffix("px")?.parse().ok().filter(|n| (64..=8192).contains(n)))(e).map(Some),
    });
    let fetch_by_mail = s.field("fetch_by_mail", boolean);
    let signed = s.field("signed", boolean);
    rule_name?;
    let mut rule = reduce::Rule {
        html: html?,
        attachments_over: attachments?,
        images_over: images?,
        signed: signed?,
        ..Default::default()
    };
    for word in strip? {
        match word.as_str() {
            "trace" => rule.trace = true,
            "vanity" => rule.fields.extend(reduce::VANITY.iter().map(ToString::to_string)),
            _ => rule.fields.push(word),
        }
    }
    Some(ReducePlan {
        bearers: bearers?.iter().map(|b| BearerId::from(b.as_str())).collect(),
        over_bytes: over?.0,
        up_to: up_to?,
        rule: Arc::new(rule),
        fetch_by_mail: fetch_by_mail?,
    })
}

/// The built-in sheet of this name, or the one at this path.
fn sheet_of(reader: &mut Reader, context: &Context<'_>, path: &str, modem: &str) -> Option<Sheet> {
    if let Some((name, source)) = sheet::BUILT_IN.iter().find(|(name, _)| *name == modem) {
        return sheet::read(reader, &format!("sheet {name}"), source);
    }
    let key = join(path, "modem");
    let allowed = sheet::BUILT_IN.map(|(name, _)| name).join(", ") + ", or a path to a sheet";
    if !modem.contains('/') && !modem.ends_with(".toml") {
        reader.problem(&key, format!("there is no built-in sheet {modem:?}"), &allowed);
        return None;
    }
    let file = context.resolve(modem);
    match context.files.read(&file).map(|f| String::from_utf8(f.bytes)) {
        Ok(Ok(source)) => sheet::read(reader, &file.to_string_lossy(), &source),
        Ok(Err(_)) => {
            reader.problem(&key, "the sheet is not UTF-8", "a TOML file");
            None
        }
        Err(e) => {
            reader.problem(&key, format!("cannot read the sheet {}: {e}", file.display()), &allowed);
            None
        }
    }
}

fn keying_of(
    reader: &mut Reader,
    context: &Context<'_>,
    path: &str,
    entry: Option<&Entry>,
    sheet: &Sheet,
) -> Option<KeyingPlan> {
    let modem = &sheet.name;
    let form = if sheet.keyed_by_lines { "\"lines\"" } else { "{ socket = \"PATH\" }" };
    match entry.map(|e| &e.value) {
        None if sheet.keyed_by_lines => {
            reader.note(path.into(), "lines".into(), &sheet.origin, true);
            Some(KeyingPlan::Lines)
        }
        None => {
            reader.problem(path, format!("missing: the modem {modem} is keyed by a socket"), form);
            None
        }
        Some(Value::Text(t)) if t == "lines" && sheet.keyed_by_lines => {
            reader.note(path.into(), "lines".into(), entry.map_or(&sheet.origin, |e| &e.origin), false);
            Some(KeyingPlan::Lines)
        }
        Some(Value::Table(_)) if !sheet.keyed_by_lines => {
            let mut s = reader.scope(&schema::KEYING, path, entry);
            s.field("socket", parsed(self::path)).map(|p| KeyingPlan::Socket(context.resolve(&p)))
        }
        Some(_) => {
            reader.problem(path, format!("not how the modem {modem} is keyed"), form);
            None
        }
    }
}

/// What `rate` may say.
enum Rates {
    One(Bps),
    Some(Vec<Bps>),
    All,
}

fn rates(entry: &Entry) -> Result<Rates, String> {
    match &entry.value {
        Value::List(_) => list(Bps::parse)(entry).map(Rates::Some),
        _ => parsed(|t| if t == "auto" { Some(Rates::All) } else { Bps::parse(t).map(Rates::One) })(entry),
    }
}

/// What `interleaver` may say; `None` is any.
fn letters(entry: &Entry) -> Result<Option<Vec<String>>, String> {
    match &entry.value {
        Value::List(_) => list(|t| Some(t.to_owned()))(entry).map(Some),
        _ => text(entry).map(|t| if t == "auto" { None } else { Some(vec![t]) }),
    }
}

struct Wanted {
    rates: Rates,
    letters: Option<Vec<String>>,
    first_rate: Option<Bps>,
}

/// The waveforms a bearer may choose from: of the sheet's, those wanted, of which the sheet says what ratio they need.
fn choices(
    reader: &mut Reader,
    path: &str,
    sheet: &Sheet,
    wanted: &Wanted,
    selects: bool,
    turnaround: Duration,
) -> Option<Vec<Choice>> {
    let key = join(path, "rate");
    if !selects {
        let problem = format!("the modem {} cannot be told what to transmit with", sheet.name);
        reader.problem(&key, problem, "one rate; or a sheet with selects_waveform = true and keying by socket");
        return None;
    }
    let listed = match &wanted.rates {
        Rates::One(rate) => vec![*rate],
        Rates::Some(rates) => rates.clone(),
        Rates::All => sheet.rates.iter().filter(|(_, facts)| facts.snr_db.is_some()).map(|(rate, _)| *rate).collect(),
    };
    let mut choices = Vec::new();
    for rate in &listed {
        let facts = sheet.rates.get(rate);
        let Some((facts, anchor_db)) = facts.and_then(|f| Some((f, f.snr_db?))) else {
            let usable: Vec<String> =
                sheet.rates.iter().filter(|(_, f)| f.snr_db.is_some()).map(|(r, _)| r.to_string()).collect();
            reader.problem(&key, format!("the sheet {} has no {rate} with a snr", sheet.name), &usable.join(", "));
            return None;
        };
        let allowed = |letter: &str| wanted.letters.as_ref().is_none_or(|l| l.iter().any(|l| l == letter));
        let before = choices.len();
        for (letter, (preamble, block)) in facts.interleavers.iter().filter(|(letter, _)| allowed(letter)) {
            let waveform = Waveform {
                rate: *rate,
                interleaver: letter.clone(),
                preamble: *preamble,
                block: *block,
                tail_bits: sheet.tail_bits,
                frame_bytes: facts.frame_bytes,
                turnaround,
                buffer_bytes: sheet.buffer_bytes,
                can_abort: sheet.can_abort,
            };
            choices.push(Choice { waveform, anchor_db });
        }
        if choices.len() == before {
            let letters: Vec<&str> = facts.interleavers.keys().map(String::as_str).collect();
            let problem = format!("{rate} has none of these interleavers");
            reader.problem(&join(path, "interleaver"), problem, &letters.join(", "));
            return None;
        }
    }
    if wanted.first_rate.is_some_and(|first| !listed.contains(&first)) {
        let listed: Vec<String> = listed.iter().map(Bps::to_string).collect();
        reader.problem(&join(path, "first_rate"), "not among the rates allowed", &listed.join(", "));
        return None;
    }
    Some(choices)
}

/// The waveform a link begins with: of the rate asked for, or the first from 300 bit/s up, the shortest block.
fn first_of(choices: &[Choice], first_rate: Option<Bps>) -> Option<&Waveform> {
    let of_rate = |c: &&Choice| first_rate.map_or(c.waveform.rate >= Bps(300), |rate| c.waveform.rate == rate);
    let slow = choices.iter().filter(of_rate).min_by_key(|c| (c.waveform.rate, c.waveform.block));
    slow.or_else(|| choices.iter().max_by_key(|c| c.waveform.rate)).map(|c| &c.waveform)
}

/// The facts of the chosen rate and interleaver.
fn waveform(
    reader: &mut Reader,
    path: &str,
    sheet: &Sheet,
    rate: Bps,
    interleaver: &str,
    turnaround: Duration,
) -> Option<Waveform> {
    let Some(facts) = sheet.rates.get(&rate) else {
        let rates: Vec<String> = sheet.rates.keys().map(Bps::to_string).collect();
        reader.problem(&join(path, "rate"), format!("the modem {} has no {rate}", sheet.name), &rates.join(", "));
        return None;
    };
    let Some((preamble, block)) = facts.interleavers.get(interleaver).copied() else {
        let letters: Vec<&str> = facts.interleavers.keys().map(String::as_str).collect();
        let problem = format!("{rate} has no interleaver {interleaver:?}");
        reader.problem(&join(path, "interleaver"), problem, &letters.join(", "));
        return None;
    };
    let at = join(path, "waveform");
    for (key, value) in [
        ("preamble", format!("{:.3}s", preamble.as_secs_f64())),
        ("block", format!("{:.3}s", block.as_secs_f64())),
        ("frame", format!("{}B", facts.frame_bytes)),
    ] {
        reader.note(join(&at, key), value, &facts.origin, true);
    }
    for (key, value) in [
        ("modem", sheet.title.clone()),
        ("tail_bits", sheet.tail_bits.to_string()),
        ("buffer", Bytes(sheet.buffer_bytes.into()).to_string()),
        ("can_abort", sheet.can_abort.to_string()),
    ] {
        reader.note(join(&at, key), value, &sheet.origin, true);
    }
    Some(Waveform {
        rate,
        interleaver: interleaver.into(),
        preamble,
        block,
        tail_bits: sheet.tail_bits,
        frame_bytes: facts.frame_bytes,
        turnaround,
        buffer_bytes: sheet.buffer_bytes,
        can_abort: sheet.can_abort,
    })
}

// ---- words of the profile

/// A name of a node, peer, listener or bearer.
pub fn name(text: &str) -> Option<String> {
    let ok = !text.is_empty()
        && text.len() <= 32
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && !text.starts_with('-');
    ok.then(|| text.to_string())
}

pub fn path(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_string())
}

pub fn hostname(text: &str) -> Option<String> {
    let literal = text.starts_with('[') && text.ends_with(']') && text.len() > 2;
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    (literal || text.len() <= 255 && text.split('.').all(label)).then(|| text.to_string())
}

pub fn mailbox(text: &str) -> Option<Mailbox> {
    let (local, domain) = text.rsplit_once('@')?;
    let ok = !local.is_empty() && local.len() <= 64 && !local.contains([' ', '<', '>', '@', '\r', '\n']);
    (ok && hostname(domain).is_some()).then(|| Mailbox::new(text))
}

pub fn message_size(text: &str) -> Option<Bytes> {
    Bytes::parse(text).filter(|b| (65_536..=1 << 30).contains(&b.0))
}

pub fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

pub fn host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let sound = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => hostname(host).is_some(),
        };
        sound && port.parse::<u16>().is_ok_and(|p| p != 0)
    })
}

pub fn at_least_a_second(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|d| *d >= Duration::from_secs(1))
}

pub fn size(value: i64) -> Option<usize> {
    usize::try_from(value).ok()
}
