//! `[[listener]]`: where mail comes in, and by which rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::plan::{Limits, ListenerAddress, ListenerKind, ListenerPlan, TlsPlan};
use super::profile::{Context, at_least_a_second, message_size, name, network, optional, path, size};
use super::reader::{Reader, Scope, boolean, integer, join, list, parsed, text};
use super::tree::{Entry, Value};
use super::{authentication, burl, schema, secrets};
use crate::mail::{Precedence, PriorityPolicy};
use crate::time::Duration;
use crate::units::{Bytes, parse_duration};

/// A message lives no longer than ninety days, and a month of that is for its way.
const LONGEST_RELEASE: Duration = Duration::from_secs(60 * 86_400);

/// Reads one table.
pub fn read(
    reader: &mut Reader,
    context: &Context<'_>,
    limits: Option<&Limits>,
    at: &str,
    entry: &Entry,
) -> Option<ListenerPlan> {
    let mut s = reader.scope(&schema::LISTENER, at, Some(entry));
    let listener_name = s.field("name", parsed(|t| name(t).filter(|n| n != "node")));
    let kind = s.field(
        "kind",
        parsed(|t| {
            Some(match t {
                "relay" => ListenerKind::Relay,
                "submission" => ListenerKind::Submission,
                "lmtp" => ListenerKind::Lmtp,
                _ => return None,
            })
        }),
    );
    let address = s.field("address", |e| address(context, kind, &text(e)?));
    let socket_mode = s.field("socket_mode", parsed(octal));
    let submission = kind == Some(ListenerKind::Submission);
    let auth = s.field_or("auth", submission, boolean);
    let auth_required = s.field_or("auth_required", submission, boolean);
    let trust = s.field("trust", list(network));
    let max_precedence = s.field("max_precedence", parsed(Precedence::parse));
    let future_release =
        s.field_or("future_release", if submission { "7d" } else { "never" }.to_string(), |e| match &*text(e)? {
            "never" => Ok(None),
            _ if !submission => Err("is for submission alone (RFC 4865)".into()),
            _ => parsed(|t| at_least_a_second(t).filter(|d| *d <= LONGEST_RELEASE))(e).map(Some),
        });
    let vetting = authentication::vetting(&mut s);
    let tls_required = s.field("tls_required", boolean);
    // Where [limits] could not be read, its problems are told, and what is written here is read all the same.
    let count = |n: usize| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    let max_size =
        s.field_or("max_size", Bytes(limits.map_or(25 << 20, |l| l.message_bytes)).to_string(), parsed(message_size));
    let max_recipients =
        s.field_or("max_recipients", count(limits.map_or(1000, |l| l.recipients)), integer(100, 10_000));
    let sessions_per_address =
        s.field_or("sessions_per_address", count(limits.map_or(50, |l| l.sessions_per_address)), integer(1, 100_000));
    let sessions_per_minute = s.field("sessions_per_minute", rate_limit);
    let messages_per_minute = s.field("messages_per_minute", rate_limit);
    let mt_priority = s.field("mt_priority", parsed(PriorityPolicy::parse));
    let raw_header = s.field("raw_header", |e| match list(network)(e)? {
        some if !some.is_empty() && kind.is_some_and(|kind| kind != ListenerKind::Relay) => {
            Err("is for relay alone".into())
        }
        some => Ok(some),
    });
    let normalize = s.field("normalize", list(network));
    let usual = if submission { "110s" } else { "5min" };
    let answer = s.field_or("answer_within", usual.to_string(), |e| {
        let answer = parsed(|t| parse_duration(t).filter(|d| ANSWER.contains(d)))(e)?;
        // RFC 6409 5.3: a client that waits for its user does not wait longer.
        if submission && answer >= Duration::from_secs(120) {
            Err("is not under two minutes".into())
        } else {
            Ok(answer)
        }
    });
    let deliver_by_min = s.field("deliver_by_min", |e| match parsed(whole_seconds)(e)? {
        some if some > 0 && kind == Some(ListenerKind::Lmtp) => Err("DELIVERBY is not offered over LMTP".into()),
        some => Ok(some),
    });
    let sizes = sizes(&mut s, max_size);
    let (burl_path, burl_entry) = (s.at("burl"), s.raw("burl"));
    let tls_path = s.at("tls");
    let tls = match s.raw("tls") {
        Some(entry) => Some(tls(reader, context, &tls_path, &entry)?),
        None => None,
    };
    let burl = match burl_entry {
        Some(_) if !submission => {
            reader.problem(&burl_path, "is for submission alone (RFC 4468)", "no such key");
            None
        }
        Some(entry) => Some(burl::read(reader, context, &burl_path, &entry)?),
        None => None,
    };
    Some(ListenerPlan {
        name: listener_name?,
        kind: kind?,
        address: address?,
        socket_mode: socket_mode?,
        tls,
        auth: auth?,
        auth_required: auth_required?,
        trust: trust?,
        max_precedence: max_precedence?,
        future_release: future_release?,
        vetting: vetting?,
        burl,
        tls_required: tls_required?,
        message_bytes: max_size?.0,
        recipients: size(max_recipients?)?,
        sessions_per_address: size(sessions_per_address?)?,
        sessions_per_minute: sessions_per_minute?,
        messages_per_minute: messages_per_minute?,
        mt_priority: mt_priority?,
        precedence_bytes: sizes?,
        raw_header: raw_header?,
        normalize: normalize?,
        answer: answer?,
        deliver_by_min: deliver_by_min?,
    })
}

/// Waits for an answer that can be told.
const ANSWER: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(600);
/// The longest DELIVERBY minimum: with more, mode R would be of no use.
const LONGEST_MINIMUM: Duration = Duration::from_secs(86_400);
/// `sun_path` less its NUL.
const LONGEST_SOCKET: usize = 107;

/// An address and port, or where mail comes from this machine alone, a path.
fn address(context: &Context<'_>, kind: Option<ListenerKind>, text: &str) -> Result<ListenerAddress, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(ListenerAddress::Net(address));
    }
    if !text.contains('/') {
        return Err(format!("{text:?} is not one"));
    }
    if kind.is_some_and(|kind| kind != ListenerKind::Lmtp) {
        return Err("is a path, and only LMTP is spoken on a socket of this machine".into());
    }
    let path = path(text).map(|path| context.resolve(&path)).ok_or_else(|| format!("{text:?} is not one"))?;
    match path.as_os_str().len() {
        ..=LONGEST_SOCKET => Ok(ListenerAddress::Path(path)),
        _ => Err(format!("{} is longer than {LONGEST_SOCKET} bytes", path.display())),
    }
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

fn whole_seconds(text: &str) -> Option<u32> {
    let duration = parse_duration(text).filter(|d| *d <= LONGEST_MINIMUM)?;
    u32::try_from(duration.as_secs()).ok().filter(|seconds| Duration::from_secs((*seconds).into()) == duration)
}

/// `max_size_by_precedence`: the levels that are written.
fn sizes(s: &mut Scope<'_>, most: Option<Bytes>) -> Option<BTreeMap<Precedence, u64>> {
    let at = s.at("max_size_by_precedence");
    let Some(entry) = s.raw("max_size_by_precedence") else { return Some(BTreeMap::new()) };
    let mut levels = s.reader.scope(&schema::SIZES, &at, Some(&entry));
    let mut sizes = BTreeMap::new();
    let mut sound = true;
    for key in schema::SIZES.keys {
        let size = |text: &str| Bytes::parse(text).filter(|bytes| bytes.0 >= 1024);
        match (Precedence::parse(key.name), optional(&mut levels, key.name, parsed(size))) {
            (Some(level), Some(Some(bytes))) => {
                if most.is_some_and(|most| bytes > most) {
                    levels.reader.problem(
                        &join(&at, key.name),
                        "more than max_size",
                        "at most max_size of the listener",
                    );
                }
                sizes.insert(level, bytes.0);
            }
            (_, Some(None)) => {}
            (_, _) => sound = false,
        }
    }
    sound.then_some(sizes)
}

/// So many a minute, or any number.
fn rate_limit(entry: &Entry) -> Result<Option<u32>, String> {
    match &entry.value {
        Value::Text(word) if word == "unlimited" => Ok(None),
        _ => integer(1, 100_000)(entry).map(|n| u32::try_from(n).ok()),
    }
}

fn tls(reader: &mut Reader, context: &Context<'_>, at: &str, entry: &Entry) -> Option<TlsPlan> {
    let mut s = reader.scope(&schema::TLS, at, Some(entry));
    let certificate = s.field("certificate", parsed(path));
    let key = s.field("key", parsed(path));
    let implicit = s.field("implicit", boolean);
    let client_ca = optional(&mut s, "client_ca", parsed(path))?.map(|p| context.resolve(&p));
    let plan = TlsPlan {
        certificate: context.resolve(&certificate?),
        key: context.resolve(&key?),
        implicit: implicit?,
        client_ca,
    };
    secrets::check_tls(reader, context.files, at, &plan);
    Some(plan)
}
