//! Aliases as a profile has them, and what they and the routes must have in common.

use std::collections::{BTreeMap, BTreeSet};

use super::cross::Declared;
use super::profile::{mailbox, name, optional};
use super::reader::{Reader, boolean, join, list, parsed};
use super::schema;
use super::tree::Entry;
use crate::mail::{BearerId, Hop, Mailbox, PeerName};
use crate::route::{
    Alias, Aliases, Bounds, Direction, Directory, Fault, Named, Pattern, Placed, Replacement, Rewrite, Rewrites, Table,
    Target,
};

/// One `[[alias]]`.
pub fn alias(reader: &mut Reader, path: &str, entry: &Entry) -> Option<Alias> {
    let mut s = reader.scope(&schema::ALIAS, path, Some(entry));
    let address = s.field("address", parsed(Named::parse));
    let to = s.field("to", |e| match list(Target::parse)(e)? {
        to if to.is_empty() => Err("is empty: its mail would go nowhere".into()),
        to => Ok(to),
    });
    let keep = s.field("keep", boolean);
    let owner = optional(&mut s, "owner", parsed(mailbox));
    let place = entry.origin.to_string();
    Some(Alias { address: address?, to: to?, keep: keep?, owner: owner?, place })
}

/// One `[[rewrite]]`.
pub fn rewrite(reader: &mut Reader, path: &str, entry: &Entry) -> Option<Rewrite> {
    let mut s = reader.scope(&schema::REWRITE, path, Some(entry));
    let name = s.field("name", parsed(name));
    let direction = s.field(
        "direction",
        parsed(|t| match t {
            "in" => Some(Direction::In),
            "out" => Some(Direction::Out),
            _ => None,
        }),
    );
    let what = s.field(
        "what",
        parsed(|t| match t {
            "both" => Some((true, true)),
            "envelope" => Some((true, false)),
            "headers" => Some((false, true)),
            _ => None,
        }),
    );
    let pattern = s.field("match", parsed(Pattern::parse));
    let to = s.field("to", parsed(Replacement::parse));
    let at = s.field("at", list(|t| (!t.is_empty()).then(|| t.to_owned())));
    let signed = s.field("signed", boolean);
    let place = entry.origin.to_string();
    let (envelope, header) = what?;
    let (name, direction, pattern, to, at, signed) = (name?, direction?, pattern?, to?, at?, signed?);
    Some(Rewrite { name, direction, envelope, header, pattern, to, at, signed, place })
}

/// The directory as far as the profile could be read; what could not has its default.
pub fn directory(d: &Declared<'_>) -> Directory {
    Directory {
        routes: Table { routes: d.routes.iter().map(|(_, r)| r.clone()).collect() },
        aliases: Aliases::new(d.aliases.iter().map(|(_, a)| a.clone())),
        rewrites: Rewrites::default(),
        users: d.local.map(|l| l.users.clone()).unwrap_or_default(),
        separator: d.local.map_or_else(|| "+".into(), |l| l.separator.clone()),
        postmaster: d.node.map_or_else(|| Mailbox::new("postmaster"), |n| n.postmaster.clone()),
        bounds: d.limits.map_or_else(Bounds::default, |l| l.aliases),
    }
}

/// Which bearers reach a peer, of whatever kind they are.
fn bearers_to<'d>(d: &Declared<'d>, peer: &PeerName) -> BTreeSet<&'d BearerId> {
    let serial = d.bearers.iter().map(|(_, b)| (&b.id, &b.peers));
    let pmul = d.pmul.iter().map(|(_, p)| (&p.net.id, &p.net.peers));
    let multicast = d.multicast.iter().map(|(_, m)| (&m.net.id, &m.net.peers));
    serial.chain(pmul).chain(multicast).filter(|(_, peers)| peers.contains(peer)).map(|(id, _)| id).collect()
}

pub fn routes_have_their_bearers(reader: &mut Reader, d: &Declared<'_>) {
    for (path, route) in d.routes {
        let at = join(path, "bearers");
        match &route.hop {
            Hop::Peer(peer) => {
                let reaching = bearers_to(d, peer);
                for bearer in route.bearers.iter().filter(|b| !reaching.contains(b)) {
                    let names: Vec<&str> = reaching.iter().map(|b| &*b.0).collect();
                    let problem = match d.bearer_names.contains(&*bearer.0) {
                        true => format!("{bearer} does not reach {peer}"),
                        false => format!("there is no [[bearer]] named {bearer}"),
                    };
                    reader.problem(&at, problem, &names.join(", "));
                }
            }
            Hop::Local | Hop::Hold | Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Fetch
                if !route.bearers.is_empty() =>
            {
                reader.problem(&at, "only what goes to a peer goes over bearers", "no bearers here");
            }
            Hop::Local | Hop::Hold | Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Fetch => {}
        }
        if let (Some(least), Some(most)) = (route.least, route.most)
            && least > most
        {
            let problem = format!("{least} is above max_precedence, {most}");
            reader.problem(&join(path, "min_precedence"), problem, "at most max_precedence");
        }
    }
}

pub fn aliases_lead_somewhere(reader: &mut Reader, d: &Declared<'_>, directory: &Directory) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    // Where routes or mailboxes could not be read, nobody knows what leads there.
    let known = d.routes.len() == d.routes_written && d.local.is_some();
    for (path, alias) in d.aliases {
        if let Some(other) = seen.insert(alias.address.to_string().to_lowercase(), path) {
            let problem = format!("{} is also the address of {other}", alias.address);
            reader.problem(&join(path, "address"), problem, "each address once");
            continue;
        }
        let at = join(path, "to");
        if let Named::Rest(domain) = &alias.address {
            let itself = |t: &Target| matches!(t, Target::Domain(to) if to.eq_ignore_ascii_case(domain));
            if alias.to.iter().any(itself) {
                reader.problem(&at, format!("@{domain} leads to itself"), "another domain, or addresses");
                continue;
            }
            let here = directory.routes.routes.iter().any(|r| r.hop == Hop::Local && r.pattern.to_string() == *domain);
            if here && directory.users.is_empty() {
                let problem = "it takes nothing: every local part of this domain has a mailbox here";
                reader.warn(&join(path, "address"), problem, "local.users, with those that have one");
            }
        }
        if !known {
            continue;
        }
        // A local part that nothing names stands for the rest of a domain.
        let given = match &alias.address {
            Named::Address(address) => address.clone(),
            Named::Rest(domain) => Mailbox::new(format!("any.other.one@{domain}")),
        };
        let own: Vec<Mailbox> = alias.targets(&given);
        for copy in directory.resolve(&given, &mut |_| {}).copies {
            let address = &copy.address;
            let allowed = match copy.placed {
                Placed::Fault(Fault::Loop) if own.contains(&given) => {
                    "keep = true, where the address itself is to have it too"
                }
                Placed::Fault(Fault::Loop) => "addresses that do not lead back here",
                Placed::Fault(Fault::Deep) => "a shorter way, or a higher limits.alias_depth",
                Placed::Fault(Fault::Many) => "fewer addresses, or a higher limits.copies",
                // What is wrong further on is told there.
                _ if !(own.contains(address) || alias.keep && *address == given) => continue,
                Placed::Route(_) => continue,
                Placed::NoMailbox(_) => "an address with a mailbox: see local.users",
                Placed::Refused(_) => "an address whose [[route]] does not say refuse",
                Placed::Unknown | Placed::NoRoute | Placed::NoDomain => "an address that a [[route]] matches",
            };
            let why = copy.placed.refusal(address).map(|r| r.text).unwrap_or_default();
            reader.problem(&at, format!("{address}: {why}"), allowed);
        }
        if let Some(owner) = &alias.owner
            && let Some(refusal) = directory.resolve(owner, &mut |_| {}).refusal(true)
        {
            reader.problem(
                &join(path, "owner"),
                format!("{owner}: {}", refusal.text),
                "an address that mail can reach",
            );
        }
    }
}

pub fn rewrites_apply_somewhere(reader: &mut Reader, d: &Declared<'_>) {
    let listeners = || d.listener_names.iter().cloned();
    let all_routes = d.routes.len() == d.routes_written;
    let peers = || d.peers.iter().map(|p| format!("peer:{p}"));
    for (path, rule) in d.rewrites {
        let places: BTreeSet<String> = match rule.direction {
            Direction::In => listeners().chain(peers()).collect(),
            Direction::Out => {
                let hops = d.routes.iter().map(|(_, r)| &r.hop).filter(|hop| !matches!(hop, Hop::Local | Hop::Hold));
                hops.map(ToString::to_string).collect()
            }
        };
        let known = |at: &String| places.iter().any(|p| p.eq_ignore_ascii_case(at));
        let told = rule.direction == Direction::In || all_routes;
        for at in rule.at.iter().filter(|at| told && !known(at)) {
            let allowed: Vec<&str> = places.iter().map(String::as_str).collect();
            reader.problem(&join(path, "at"), format!("no mail passes {at:?} this way"), &allowed.join(", "));
        }
        let same = match (&rule.pattern, &rule.to) {
            (Pattern::Address(from), Replacement::Address(to)) => from.eq_ignore_ascii_case(to.as_str()),
            (Pattern::Domain(from), Replacement::Domain(to)) => from.eq_ignore_ascii_case(to),
            _ => false,
        };
        if same {
            reader.problem(&join(path, "to"), "is what it matches", "another domain or address");
        }
    }
}
