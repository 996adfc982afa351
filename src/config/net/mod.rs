//! Bearers on IP networks: what their tables have in common, and what they must have in common with the rest of the profile.
//!
//! `pmul` reads `[[bearer]] kind = "pmul"` and `[[peer]] protocol = "mule"`, `aldis` reads `[[bearer]] kind = "multicast"`. Called by
//! `profile`; the rest of both files knows nothing of them.

mod aldis;
mod pmul;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::cross::Declared;
use super::plan::{Join, MulticastPlan, NetPlan, PmulPlan};
use super::profile::{at_least_a_second, carry, name};
use super::reader::{Reader, Scope, boolean, integer, join, list, parsed, text};
use super::schema;
use super::tree::{Entry, Value};
use crate::emcon::State;
use crate::mail::{BearerId, PeerName, Precedence};
use crate::time::Duration;
use crate::units::{Bps, Bytes, parse_duration};

pub use pmul::{is_mule, peer as mule_peer};

/// A bearer of either kind.
pub enum Net {
    Pmul(Box<PmulPlan>),
    Aldis(Box<MulticastPlan>),
}

/// Reads a `[[bearer]]` on an IP network; the outer `None`: it is none.
pub fn bearer(reader: &mut Reader, path: &str, entry: &Entry) -> Option<Option<Net>> {
    match () {
        () if says(entry, "kind", "pmul") => {
            Some(pmul::bearer(reader, path, entry).map(|plan| Net::Pmul(Box::new(plan))))
        }
        () if says(entry, "kind", "multicast") => {
            Some(aldis::bearer(reader, path, entry).map(|plan| Net::Aldis(Box::new(plan))))
        }
        () => None,
    }
}

fn says(entry: &Entry, key: &str, word: &str) -> bool {
    match &entry.value {
        Value::Table(fields) => fields.get(key).is_some_and(|e| text(e).is_ok_and(|t| t == word)),
        _ => false,
    }
}

fn multicast_address(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok().filter(Ipv4Addr::is_multicast)
}

/// An address of one host.
fn host(text: &str) -> Option<Ipv4Addr> {
    let sound = |a: &Ipv4Addr| !a.is_multicast() && !a.is_unspecified() && !a.is_broadcast();
    text.parse().ok().filter(sound)
}

/// The keys that both kinds have, as far as they could be read.
struct Basics {
    name: Option<String>,
    kind: Option<()>,
    interface: Option<Ipv4Addr>,
    join: Option<Join>,
    ttl: Option<i64>,
    dscp: (String, Option<Entry>),
    peers: Option<Vec<PeerName>>,
    emcon: Option<State>,
    rate: Option<Bps>,
    delay: Option<Duration>,
    /// Longest datagram that passes whole.
    room: Option<u64>,
    max_payload: Option<Bytes>,
    max_air: Option<Duration>,
    hold_excess: Option<bool>,
    protected: Option<bool>,
    carry: (String, Option<Entry>),
}

impl Basics {
    /// `most`: the largest payload unless the profile says so, by mtu; `None`: the schema has it.
    fn read(
        s: &mut Scope<'_>,
        kind: &str,
        least_mtu: i64,
        largest: Bytes,
        most: impl Fn(i64) -> Option<Bytes>,
    ) -> Self {
        let size = |t: &str| Bytes::parse(t).filter(|b| (1024..=largest.0).contains(&b.0));
        let mtu = s.field("mtu", integer(least_mtu, 65_535));
        Self {
            name: s.field("name", parsed(name)),
            kind: s.field("kind", parsed(|t| (t == kind).then_some(()))),
            interface: s.field("interface", parsed(host)),
            join: s.field(
                "join",
                parsed(|t| match t {
                    "static" => Some(Join::Static),
                    "igmp" => Some(Join::Igmp),
                    _ => None,
                }),
            ),
            ttl: s.field("ttl", integer(1, 255)),
            dscp: (s.at("dscp"), s.raw("dscp")),
            peers: s.field("peers", list(|t| name(t).map(|n| PeerName::from(n.as_str())))),
            emcon: s.field("emcon", parsed(State::parse)),
            rate: s.field("rate", parsed(|t| Bps::parse(t).filter(|r| r.0 >= 75))),
            delay: s.field("delay", parsed(|t| parse_duration(t).filter(|d| *d <= Duration::from_secs(60)))),
            room: mtu.and_then(|m| u64::try_from(m).ok()).map(|m| m - NetPlan::HEADERS),
            max_payload: match most(mtu.unwrap_or(1500)) {
                Some(most) => s.field_or("max_payload", most.to_string(), parsed(size)),
                None => s.field("max_payload", parsed(size)),
            },
            max_air: s.field("max_air", parsed(at_least_a_second)),
            hold_excess: s.field("on_excess", parsed(|t| ["return", "hold"].contains(&t).then(|| t == "hold"))),
            protected: s.field("protected", boolean),
            carry: (s.at("carry"), s.raw("carry")),
        }
    }

    /// The common part of a plan.
    fn plan(
        self,
        reader: &mut Reader,
        groups: Vec<Ipv4Addr>,
        ports: Vec<u16>,
        max_datagram: usize,
        head: usize,
    ) -> Option<NetPlan> {
        let (carry_path, carry_entry) = self.carry;
        let carry = carry(reader, &carry_path, carry_entry.as_ref(), self.max_payload?, self.max_air?);
        let (dscp_path, dscp_entry) = self.dscp;
        let dscp = dscp(reader, &dscp_path, dscp_entry.as_ref());
        self.kind?;
        Some(NetPlan {
            id: BearerId::from(self.name?.as_str()),
            interface: self.interface?,
            groups,
            ports,
            control: None,
            join: self.join?,
            ttl: u8::try_from(self.ttl?).ok()?,
            dscp,
            peers: self.peers?,
            emcon: self.emcon?,
            receive_only: false,
            rate: self.rate?,
            max_datagram,
            head,
            max_payload_bytes: self.max_payload?.0,
            carry,
            hold_excess: self.hold_excess?,
            protected: self.protected?,
        })
    }
}

fn dscp(reader: &mut Reader, path: &str, entry: Option<&Entry>) -> BTreeMap<Precedence, u8> {
    let mut s = reader.scope(&schema::DSCP, path, entry);
    let levels = schema::DSCP.keys.iter().filter_map(|k| {
        let point = s.field_or(k.name, Value::Integer(0), integer(0, 63))?;
        Some((Precedence::parse(k.name)?, u8::try_from(point).ok()?))
    });
    levels.collect()
}

/// What bearers of either kind must have in common with each other and with the rest of the profile.
pub fn check(reader: &mut Reader, d: &Declared<'_>) {
    let pmul = d.pmul.iter().map(|(path, p)| (path, &p.net, "groups", "ack_port", "speaks P_MUL"));
    let aldis = d.multicast.iter().map(|(path, m)| (path, &m.net, "group", "port", "is in Aldis mode"));
    let (mut groups, mut sockets, mut tell) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (path, net, key, port_key, speaks) in pmul.chain(aldis) {
        let dynamic = net.control.iter().flat_map(|control| control.pool.iter().chain([&control.group]));
        for group in net.groups.iter().chain(dynamic) {
            let Some((other, others)) = groups.insert(*group, (path, speaks)) else { continue };
            let problem = match others == speaks {
                true => format!("{group} is also a group of {other}"),
                false => {
                    format!("{group} is also a group of {other}, which {others}: one group carries one of the two")
                }
            };
            reader.problem(&join(path, key), problem, "a group of its own");
        }
        let control = net.control.iter().flat_map(|control| &control.ports);
        for port in net.ports.iter().chain(control) {
            if let Some(other) = sockets.insert((net.interface, *port), path).filter(|other| *other != path) {
                let problem = format!("{other} has port {port} of that interface");
                reader.problem(&join(path, "interface"), problem, &format!("another interface, or another {port_key}"));
            }
        }
        if net.join == Join::Igmp
            && !net.interface.is_loopback()
            && let Some(other) = tell.insert(net.interface, path)
        {
            let problem = format!("{other} joins there too, and the kernel would speak of both while one is silent");
            reader.problem(&join(path, "join"), problem, "static, or another interface");
        }
        if net.peers.is_empty() {
            reader.problem(&join(path, "peers"), "a bearer without peers carries nothing", "names of [[peer]] tables");
        }
        for peer in net.peers.iter().filter(|p| !d.peers.contains(&*p.0)) {
            let names: Vec<&str> = d.peers.iter().map(String::as_str).collect();
            reader.problem(&join(path, "peers"), format!("there is no [[peer]] named {peer}"), &names.join(", "));
        }
    }
    pmul::check(reader, d);
    aldis::check(reader, d);
}
