//! Who vouches for mail: `[dns]`, `[checks]`, `[[dkim]]`, what listeners ask of them, and what these must have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::cross::Declared;
use super::plan::{ChecksPlan, DnsPlan, ListenerPlan, VettingPlan};
use super::profile::{Context, at_least_a_second, hostname, name, path};
use super::reader::{Reader, Scope, boolean, integer, join, list, parsed};
use super::tree::{Entry, Value};
use super::{schema, secrets};
use crate::mail::Hop;
use crate::security::dkim::{Form, HEADERS, KeyKind, MOST_HEADERS, OVERSIGNED, Signer};
use crate::security::vet::{Bounds, Checks};
use crate::time::Duration;
use crate::units::{Bytes, parse_duration};

/// A message waits this long for its checks at most: a client waits ten minutes.
const LONGEST_CHECK: Duration = Duration::from_secs(60);
/// A DNS that is back is used again after this long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

pub fn dns(reader: &mut Reader, entry: Option<&Entry>) -> Option<DnsPlan> {
    let mut s = reader.scope(&schema::DNS, "dns", entry);
    let servers = match s.raw("servers") {
        Some(_) => s.field("servers", |e| {
            let servers = list(server)(e)?;
            if servers.is_empty() { Err("names no server".into()) } else { Ok(Some(servers)) }
        }),
        None => Some(None),
    };
    let bounded =
        |t: &str| parse_duration(t).filter(|d| (Duration::from_millis(100)..=Duration::from_secs(30)).contains(d));
    let timeout = s.field("timeout", parsed(bounded));
    let attempts = s.field("attempts", integer(1, 5));
    let cache = s.field("cache", integer(0, 100_000));
    Some(DnsPlan {
        servers: servers?,
        timeout: timeout?,
        attempts: usize::try_from(attempts?).ok()?,
        cache: u64::try_from(cache?).ok()?,
    })
}

/// An address, with port 53 unless another is written.
fn server(text: &str) -> Option<SocketAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)))
        .filter(|a| a.port() != 0)
}

pub fn checks(reader: &mut Reader, entry: Option<&Entry>, host: Option<&str>) -> Option<ChecksPlan> {
    let mut s = reader.scope(&schema::CHECKS, "checks", entry);
    let authserv_id = s.field_or("authserv_id", host.unwrap_or("localhost").to_owned(), parsed(hostname));
    let within = s.field("within", parsed(|t| at_least_a_second(t).filter(|d| *d <= LONGEST_CHECK)));
    let pause = s.field("pause", parsed(|t| parse_duration(t).filter(|d| *d <= LONGEST_PAUSE)));
    let at_once = s.field("at_once", integer(1, 16));
    let signatures = s.field("signatures", integer(1, 20));
    let lookups = s.field("lookups", integer(10, 1000));
    let authors = s.field("authors", integer(1, 10));
    let arc_sets = s.field("arc_sets", integer(1, 50));
    let header = s.field("header", parsed(|t| Bytes::parse(t).filter(|b| (4096..=1 << 20).contains(&b.0))));
    Some(ChecksPlan {
        authserv_id: authserv_id?,
        within: within?,
        pause: pause?,
        at_once: usize::try_from(at_once?).ok()?,
        bounds: Bounds {
            signatures: usize::try_from(signatures?).ok()?,
            arc_sets: usize::try_from(arc_sets?).ok()?,
            header_bytes: usize::try_from(header?.0).ok()?,
            lookups: u32::try_from(lookups?).ok()?,
            authors: usize::try_from(authors?).ok()?,
        },
    })
}

pub fn dkim(reader: &mut Reader, context: &Context<'_>, at: &str, entry: &Entry) -> Option<Arc<Signer>> {
    let mut s = reader.scope(&schema::DKIM, at, Some(entry));
    let signer_name = s.field("name", parsed(name));
    let domain = s.field("domain", parsed(dns_name));
    let selector = s.field("selector", parsed(dns_name));
    let file = s.field("key", parsed(path));
    let headers = fields(&mut s, "headers", HEADERS);
    let oversigned = fields(&mut s, "oversigned", OVERSIGNED);
    let form = s.field(
        "canonicalization",
        parsed(|t| {
            let (header, body) = t.split_once('/')?;
            Some((Form::parse(header)?, Form::parse(body)?))
        }),
    );
    let key = secrets::signing_key(reader, context.files, &join(at, "key"), &context.resolve(&file?));
    let (header_form, body_form) = form?;
    Some(Arc::new(Signer {
        name: signer_name?,
        domain: domain?,
        selector: selector?,
        key: key?,
        headers: headers?,
        oversigned: oversigned?,
        header_form,
        body_form,
    }))
}

/// A name as the DNS compares it: letters, digits, - and _ between dots.
fn dns_name(text: &str) -> Option<String> {
    hostname(text).filter(|t| !t.starts_with('[') && t.len() <= 190).map(|t| t.to_ascii_lowercase())
}

fn fields(s: &mut Scope<'_>, key: &'static str, usual: &[&str]) -> Option<Vec<String>> {
    let default = usual.iter().map(|n| Entry { value: Value::Text((*n).into()), origin: super::tree::Origin::Default });
    s.field_or(key, Value::List(default.collect()), |e| {
        let names = list(|t| Some(t.to_owned()))(e)?;
        if names.len() > MOST_HEADERS {
            return Err(format!("names {} fields; {MOST_HEADERS} are allowed", names.len()));
        }
        match names.iter().find_map(|n| Some((n, Signer::unfit(n)?))) {
            Some((field, why)) => Err(format!("{field:?} {why}")),
            None => Ok(names),
        }
    })
}

/// What a listener asks for.
pub fn vetting(s: &mut Scope<'_>) -> Option<VettingPlan> {
    let checks = s.field("check", |e| {
        let mut checks = Checks::default();
        for word in list(|t| Some(t.to_owned()))(e)? {
            let flag = match word.as_str() {
                "spf" => &mut checks.spf,
                "dkim" => &mut checks.dkim,
                "dmarc" => &mut checks.dmarc,
                "arc" => &mut checks.arc,
                other => return Err(format!("{other:?} is no check")),
            };
            *flag = true;
        }
        Ok(checks)
    });
    let dmarc_reject = s.field("dmarc_reject", boolean);
    let sign = s.field("sign", boolean);
    let seal = super::profile::optional(s, "seal", parsed(name));
    Some(VettingPlan { checks: checks?, dmarc_reject: dmarc_reject?, sign: sign?, seal: seal? })
}

/// What the tables must have in common.
pub fn check(reader: &mut Reader, d: &Declared<'_>) {
    for (path, listener) in d.listeners {
        listener_has_what_it_asks_for(reader, d, path, listener);
    }
    keys_have_places_of_their_own(reader, d);
    let checks = d.listeners.iter().any(|(_, l)| l.vetting.checks.any());
    let better = "check = [\"spf\", \"dkim\", \"dmarc\"] in a [[listener]]";
    if d.written.contains("checks") && !checks {
        reader.warn("checks", "no listener checks mail", better);
    }
    let asks = checks || d.routes.iter().any(|(_, route)| matches!(route.hop, Hop::Mx(_)));
    if d.written.contains("dns") && !asks {
        reader.warn("dns", "no listener checks mail, and no route asks the DNS", better);
    }
    let used = |signer: &Signer| {
        d.listeners.iter().any(|(_, l)| l.vetting.sign || l.vetting.seal.as_ref() == Some(&signer.name))
    };
    for (path, _) in d.dkim.iter().filter(|(_, signer)| !used(signer)) {
        reader.warn(path, "nothing is signed with it", "sign = true in a [[listener]], or seal with its name");
    }
}

fn listener_has_what_it_asks_for(reader: &mut Reader, d: &Declared<'_>, path: &str, listener: &ListenerPlan) {
    let wants = &listener.vetting;
    if wants.checks.dmarc && !(wants.checks.spf && wants.checks.dkim) {
        let problem = "DMARC follows from SPF and DKIM: with one of them alone sound mail would fail";
        reader.problem(&join(path, "check"), problem, "[\"spf\", \"dkim\", \"dmarc\"]");
    }
    if wants.dmarc_reject && !wants.checks.dmarc {
        reader.problem(&join(path, "dmarc_reject"), "DMARC is not checked here", "\"dmarc\" in check, or false");
    }
    if wants.sign && d.dkim_names.is_empty() {
        reader.problem(&join(path, "sign"), "there is no key to sign with", "a [[dkim]] table, or false");
    }
    if wants.sign && !listener.auth && listener.trust.is_empty() {
        let problem = "nobody's mail is signed: only who has authenticated or is of a network in trust is signed for";
        reader.warn(&join(path, "sign"), problem, "auth, or trust");
    }
    let Some(seal) = &wants.seal else { return };
    let at = join(path, "seal");
    if !wants.checks.arc {
        let problem = "a chain can only go on where it was checked";
        reader.problem(&at, problem, "\"arc\" in check");
    }
    let known: Vec<&str> = d.dkim_names.iter().map(String::as_str).collect();
    if !d.dkim_names.contains(seal) {
        reader.problem(&at, format!("there is no [[dkim]] named {seal}"), &known.join(", "));
    }
    if let Some((_, signer)) = d.dkim.iter().find(|(_, s)| s.name == *seal)
        && signer.key.kind() != KeyKind::Rsa
    {
        reader.problem(
            &at,
            format!("{seal} is no RSA key, and seals of ARC know no other"),
            "a [[dkim]] with an RSA key",
        );
    }
}

fn keys_have_places_of_their_own(reader: &mut Reader, d: &Declared<'_>) {
    let mut taken = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    for (path, signer) in d.dkim {
        let (place, _) = signer.record();
        if let Some(other) = taken.insert(place.clone(), path) {
            let problem = format!("{place} is also the record of {other}");
            reader.problem(&join(path, "selector"), problem, "a selector of its own for each key of a domain");
        }
        if !kinds.insert((&signer.domain, signer.key.kind() == KeyKind::Rsa)) {
            let problem = format!("{} has another key of this kind: all of them sign, and mail grows", signer.domain);
            reader.warn(path, problem, "one RSA and one Ed25519 key for each domain");
        }
    }
}
