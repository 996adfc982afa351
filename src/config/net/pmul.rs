//! `[[bearer]] kind = "pmul"` and the MULE nodes such bearers reach, `[[peer]] protocol = "mule"`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::cross::Declared;
use super::super::plan::{ControlPlan, DynamicPlan, Join, MulePeerPlan, PeerGroup, PmulPlan, Silences};
use super::super::profile::{at_least_a_second, name, silences};
use super::super::reader::{Reader, Scope, boolean, integer, join, list, parsed};
use super::super::schema;
use super::super::tree::Entry;
use super::{Basics, host, multicast_address, says};
use crate::bearer::pmul::{Checksum, Dynamic, EntrySource, NodeId, Ranges, Timers};
use crate::codec::mule::Tagging;
use crate::mail::PeerName;
use crate::time::Duration;
use crate::units::{Bytes, parse_duration, show_duration};

/// What a piece costs of a PDU, and how many pieces a message may have.
const PIECE_OVERHEAD: u64 = 16;
const MOST_PIECES: u64 = 65_535;
/// Groups in a pool.
const MOST_POOL: usize = 1024;

/// Whether a `[[peer]]` is one of these.
pub fn is_mule(entry: &Entry) -> bool {
    says(entry, "protocol", "mule")
}

/// A node is 32 bits, written as an address.
fn node(text: &str) -> Option<NodeId> {
    text.parse::<Ipv4Addr>().ok().map(NodeId::from)
}

/// Reads `[[peer]] protocol = "mule"`.
pub fn peer(reader: &mut Reader, path: &str, entry: &Entry) -> Option<MulePeerPlan> {
    let mut s = reader.scope(&schema::PEER_MULE, path, Some(entry));
    let peer_name = s.field("name", parsed(name));
    let protocol = s.field("protocol", parsed(|t| (t == "mule").then_some(())));
    let addresses = s.field("addresses", list(host)).filter(|a| {
        let some = !a.is_empty();
        if !some {
            let at = s.at("addresses");
            s.reader.problem(&at, "no datagram would be believed to be its", "at least one address");
        }
        some
    });
    let first = addresses.as_ref().and_then(|a| a.first()).map(ToString::to_string).unwrap_or_default();
    let node = s.field_or("node", first, parsed(node));
    let group = s.has("group").then(|| s.field("group", parsed(peer_group)));
    s.raw("group");
    let ranges = s.field("ack_ranges", boolean);
    let entry_source = s.field(
        "ack_entry_id",
        parsed(|t| match t {
            "originator" => Some(EntrySource::Originator),
            "self" => Some(EntrySource::Acknowledger),
            _ => None,
        }),
    );
    let silent_path = s.at("silent");
    let written = s.field("silent", |e| Ok(e.clone()));
    let silent = written.and_then(|e| silences(reader, &silent_path, &e));
    protocol?;
    Some(MulePeerPlan {
        name: peer_name?.as_str().into(),
        node: node?,
        addresses: addresses?,
        group: match group {
            None => PeerGroup::First,
            Some(group) => group?,
        },
        ranges: if ranges? { Ranges::Written } else { Ranges::Spelled },
        entry_source: entry_source?,
        silent: silent?,
    })
}

fn peer_group(text: &str) -> Option<PeerGroup> {
    if text == "dynamic" { Some(PeerGroup::Dynamic) } else { multicast_address(text).map(PeerGroup::Agreed) }
}

/// Reads `[[bearer]] kind = "pmul"`.
pub fn bearer(reader: &mut Reader, path: &str, entry: &Entry) -> Option<PmulPlan> {
    let mut s = reader.scope(&schema::BEARER_PMUL, path, Some(entry));
    let basics = Basics::read(&mut s, "pmul", 128, Bytes(32 << 20), |_| None);
    let own = basics.interface.map(|i| i.to_string()).unwrap_or_default();
    let node = if own.is_empty() && !s.has("node") { None } else { s.field_or("node", own, parsed(node)) };
    let groups = s.field("groups", list(multicast_address));
    let port = || integer(1, 65_535);
    let data_port = s.field("data_port", port());
    let ack_port = s.field("ack_port", port());
    let room = basics.room.unwrap_or(1472);
    let max_pdu = s.field_or("max_pdu", Bytes(room).to_string(), parsed(Bytes::parse));
    let checksum = s.field(
        "checksum",
        parsed(|t| match t {
            "fletcher" => Some(Checksum::Fletcher),
            "internet" => Some(Checksum::Internet),
            _ => None,
        }),
    );
    let tagging = s.field(
        "tagging",
        parsed(|t| match t {
            "explicit" => Some(Tagging::Explicit),
            "implicit" => Some(Tagging::Implicit),
            _ => None,
        }),
    );
    let (timers_path, timers_entry) = (s.at("timers"), s.raw("timers"));
    let (dynamic_path, dynamic_entry) = (s.at("dynamic"), s.raw("dynamic"));

    if basics.protected == Some(true) {
        let problem = "MULE has no protection: mail that asks for it (REQUIRETLS) is refused here";
        reader.problem(&join(path, "protected"), problem, "protected = false, and another bearer for such mail");
    }
    if let Some(pdu) = max_pdu
        && !(64..=room).contains(&pdu.0)
    {
        let problem = format!("{pdu} do not fit: UDP and IPv4 take 28 B of mtu");
        reader.problem(&join(path, "max_pdu"), problem, &format!("64B to {}", Bytes(room)));
    }
    if let (Some(pdu), Some(most)) = (max_pdu, basics.max_payload)
        && most.0 > (pdu.0.saturating_sub(PIECE_OVERHEAD)) * MOST_PIECES
    {
        let problem = format!("a message has at most {MOST_PIECES} pieces of max_pdu less {PIECE_OVERHEAD} B");
        reader.problem(&join(path, "max_payload"), problem, "less, or a greater max_pdu");
    }
    if groups.as_ref().is_some_and(Vec::is_empty) {
        reader.problem(&join(path, "groups"), "nothing could be sent or heard", "at least one multicast address");
    }
    if data_port.is_some() && data_port == ack_port {
        reader.problem(&join(path, "ack_port"), "is data_port", "two ports, as all nodes of the net have them");
    }
    let (data_port, ack_port) = (u16::try_from(data_port?).ok()?, u16::try_from(ack_port?).ok()?);
    let max_pdu = usize::try_from(max_pdu?.0).ok()?;
    let receivers = basics.peers.as_ref()?.len();
    let derived = Timers::of(basics.rate?, basics.delay?, max_pdu, receivers);
    let timers = timers(reader, &timers_path, timers_entry.as_ref(), &derived);
    let head = usize::try_from(PIECE_OVERHEAD).ok()?;
    let rate = basics.rate?;
    let mut net = basics.plan(reader, groups?, vec![ack_port, data_port], max_pdu, head)?;
    let timers = timers?;
    let dynamic = match &dynamic_entry {
        None => None,
        Some(entry) => {
            let waits = Dynamic::waits(rate, &timers, max_pdu, receivers);
            let plan = dynamic(reader, &dynamic_path, entry, &net.groups, waits)?;
            let ports = [plan.request_port, plan.announce_port];
            for port in ports.into_iter().filter(|port| net.ports.contains(port)) {
                let problem = format!("port {port} is data_port or ack_port");
                reader.problem(&dynamic_path, problem, "four ports, as all nodes of the net have them");
            }
            if net.join == Join::Static {
                let problem = "dynamic groups are joined as they come, and joining is the node's only with igmp";
                reader.problem(&join(path, "join"), problem, "igmp, or no [bearer.dynamic]");
            }
            let Dynamic { control, pool, .. } = &plan.machine;
            net.control = Some(ControlPlan { group: *control, ports, pool: pool.clone() });
            Some(plan)
        }
    };
    Some(PmulPlan { net, node: node?, data_port, ack_port, checksum: checksum?, tagging: tagging?, timers, dynamic })
}

/// An address, or a block of them.
fn block(text: &str) -> Option<Vec<Ipv4Addr>> {
    let Some((first, bits)) = text.split_once('/') else { return multicast_address(text).map(|one| vec![one]) };
    let first = multicast_address(first)?.to_bits();
    let size = 1_u32.checked_shl(32_u32.checked_sub(bits.parse().ok()?)?)?;
    let sound = usize::try_from(size).is_ok_and(|size| size <= MOST_POOL) && first % size == 0;
    sound.then(|| (first..=first + (size - 1)).map(Ipv4Addr::from_bits).collect())
}

fn dynamic(
    reader: &mut Reader,
    path: &str,
    entry: &Entry,
    agreed: &[Ipv4Addr],
    (wait_for_reject, announce_delay): (Duration, Duration),
) -> Option<DynamicPlan> {
    let mut s = reader.scope(&schema::DYNAMIC, path, Some(entry));
    let control = s.field("control_group", parsed(multicast_address));
    let pool = s.field("pool", list(block)).map(|blocks| blocks.concat());
    let request_port = s.field("request_port", integer(1, 65_535));
    let announce_port = s.field("announce_port", integer(1, 65_535));
    let always = s.field("use", parsed(|t| ["needed", "always"].contains(&t).then(|| t == "always")));
    let span = |s: &mut Scope<'_>, key, of: Duration| s.field_or(key, show_duration(of), parsed(parse_duration));
    let wait_for_reject = span(&mut s, "wait_for_reject", wait_for_reject);
    let announce_delay = span(&mut s, "announce_delay", announce_delay);
    let announce_count = s.field("announce_count", integer(1, 100));
    let most_tries = s.field("most_tries", integer(1, 1000));
    let most_joined = s.field("most_joined", integer(1, 1000));
    let idle = s.field("idle", parsed(at_least_a_second));
    let (mut pool, control) = (pool?, control?);
    let size = pool.len();
    pool.sort_unstable();
    pool.dedup();
    if pool.is_empty() || size > MOST_POOL || pool.len() < size {
        let problem = match pool.len() {
            0 => "there is no group to ask for".to_owned(),
            n if n < size => "some address stands in it twice".to_owned(),
            n => format!("{n} groups"),
        };
        reader.problem(&join(path, "pool"), problem, &format!("1 to {MOST_POOL} groups, each once"));
    }
    if let Some(group) = pool.iter().chain([&control]).find(|group| agreed.contains(group)) {
        let problem = format!("{group} is one of the bearer's groups");
        reader.problem(path, problem, "groups of their own for control and pool");
    }
    if pool.contains(&control) {
        reader.problem(&join(path, "control_group"), format!("{control} is in the pool"), "a group of its own");
    }
    if request_port.is_some() && request_port == announce_port {
        let problem = "is request_port";
        reader.problem(&join(path, "announce_port"), problem, "two ports, as all nodes of the net have them");
    }
    let least = Duration::from_millis(10);
    for (key, wait) in [("wait_for_reject", wait_for_reject), ("announce_delay", announce_delay)] {
        if wait.is_some_and(|wait| wait < least) {
            reader.problem(&join(path, key), "would ask without a pause", "at least 10ms");
        }
    }
    Some(DynamicPlan {
        always: always?,
        request_port: u16::try_from(request_port?).ok()?,
        announce_port: u16::try_from(announce_port?).ok()?,
        machine: Dynamic {
            control,
            pool,
            agreed: agreed.to_vec(),
            wait_for_reject: wait_for_reject?,
            announce_delay: announce_delay?,
            announce_count: u32::try_from(announce_count?).ok()?,
            most_tries: u32::try_from(most_tries?).ok()?,
            most_joined: usize::try_from(most_joined?).ok()?,
            idle: idle?,
        },
    })
}

fn timers(reader: &mut Reader, path: &str, entry: Option<&Entry>, derived: &Timers) -> Option<Timers> {
    let mut s = reader.scope(&schema::TIMERS, path, entry);
    let span = |s: &mut Scope<'_>, key, of: Duration| s.field_or(key, show_duration(of), parsed(parse_duration));
    let round_trip = span(&mut s, "round_trip", derived.round_trip);
    let repeat = span(&mut s, "repeat", derived.repeat);
    let back_off = s.field("back_off", parsed(percent));
    let longest = s.field("longest", parsed(at_least_a_second));
    let gather = span(&mut s, "gather", derived.gather);
    let ack_delay = span(&mut s, "ack_delay", derived.ack_delay);
    let quiet = span(&mut s, "quiet", derived.quiet);
    let ack_again = span(&mut s, "ack_again", derived.ack_again);
    let unidentified = s.field("unidentified", parsed(at_least_a_second));
    let silent_interval = span(&mut s, "silent_interval", derived.silent_interval);
    let silent_repeats = s.field("silent_repeats", integer(0, 1000));
    let timers = Timers {
        round_trip: round_trip?,
        repeat: repeat?,
        back_off_percent: back_off?,
        longest: longest?,
        gather: gather?,
        ack_delay: ack_delay?,
        quiet: quiet?,
        ack_again: ack_again?,
        unidentified: unidentified?,
        silent_interval: silent_interval?,
        silent_repeats: u32::try_from(silent_repeats?).ok()?,
    };
    let least = Duration::from_millis(10);
    for (key, wait) in [
        ("repeat", timers.repeat),
        ("quiet", timers.quiet),
        ("ack_again", timers.ack_again),
        ("silent_interval", timers.silent_interval),
    ] {
        if wait < least {
            reader.problem(&join(path, key), "would ask without a pause", "at least 10ms");
        }
    }
    Some(timers)
}

fn percent(text: &str) -> Option<u32> {
    text.strip_suffix('%')?.trim_end().parse().ok().filter(|p| (100..=1000).contains(p))
}

/// What these bearers and their peers must have in common with each other and the rest of the profile.
pub fn check(reader: &mut Reader, d: &Declared<'_>) {
    let (bearers, mules, serial, aldis) = (d.pmul, d.mules, d.bearers, d.peer_plans);
    let is_mule = |peer: &PeerName| mules.iter().any(|(_, m)| m.name == *peer);
    for (path, bearer) in serial {
        for peer in bearer.peers.iter().filter(|p| is_mule(p)) {
            let problem = format!("{peer} speaks MULE, which goes over no serial line");
            reader.problem(&join(path, "peers"), problem, "a [[bearer]] of kind pmul that lists it");
        }
    }
    let mut carried = BTreeMap::new();
    for (path, bearer) in bearers {
        let mut nodes = BTreeMap::from([(bearer.node, "this node")]);
        for peer in &bearer.net.peers {
            let at = join(path, "peers");
            if let Some(other) = carried.insert(peer, path) {
                let problem = format!("{peer} stands in {other} too");
                reader.problem(&at, problem, "each MULE peer on one bearer, once");
            }
            if aldis.iter().any(|(_, p)| p.name == *peer) {
                let problem = format!("{peer} is an Aldis peer: it has a station, and keys");
                reader.problem(&at, problem, "a [[peer]] with protocol = \"mule\", or a bearer of kind multicast");
            }
            let Some((peer_path, mule)) = mules.iter().find(|(_, m)| m.name == *peer) else { continue };
            if let Some(other) = nodes.insert(mule.node, &*peer.0) {
                let problem = format!("{} is also the node of {other} on {path}", mule.node);
                reader.problem(&join(peer_path, "node"), problem, "a number of its own, unique on the net");
            }
            let at = join(peer_path, "group");
            match mule.group {
                PeerGroup::Agreed(group) if !bearer.net.groups.contains(&group) => {
                    let allowed: Vec<String> = bearer.net.groups.iter().map(ToString::to_string).collect();
                    reader.problem(&at, format!("{group} is no group of {path}"), &allowed.join(", "));
                }
                PeerGroup::Dynamic if bearer.dynamic.is_none() => {
                    let problem = format!("{path} has no dynamic groups");
                    reader.problem(&at, problem, "a [bearer.dynamic] table there, or a group of that bearer");
                }
                PeerGroup::Dynamic if mule.silent == Silences::Always => {
                    let problem = "in silence nobody joins a group, so nothing would reach it";
                    reader.problem(&at, problem, "a group of its bearer");
                }
                PeerGroup::First | PeerGroup::Agreed(_) | PeerGroup::Dynamic => {}
            }
        }
    }
    for (path, mule) in mules {
        if d.node.is_some_and(|n| n.name == mule.name) {
            reader.problem(&join(path, "name"), "is this node's own name", "another name for the neighbour");
        }
        if !carried.contains_key(&mule.name) && !d.carried.contains(&*mule.name.0) {
            reader.problem(path, "on no bearer: nothing can reach it", "a [[bearer]] of kind pmul that lists it");
        }
    }
}
