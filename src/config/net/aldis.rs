//! `[[bearer]] kind = "multicast"`: Aldis mode over IP multicast.

use std::collections::BTreeMap;

use super::super::cross::Declared;
use super::super::plan::{Join, MulticastPlan, NetPlan};
use super::super::reader::{Reader, boolean, integer, join, parsed};
use super::super::schema;
use super::super::tree::Entry;
use super::{Basics, multicast_address};
use crate::bearer::fec;
use crate::bearer::multicast::wire;
use crate::emcon::State;
use crate::mail::{Hop, Protection};
use crate::units::Bytes;

/// The largest payload that symbols carry, and that symbols of any datagram do.
const LARGEST: Bytes = Bytes(fec::LONGEST_ON_NETS as u64);
const LARGEST_OF_ANY: Bytes = Bytes(511 << 10);
/// A shorter packet does not hold the symbols of the largest payloads, whoever they are for.
const MTU_OF_LARGEST: u64 = 1412;

/// Reads one.
pub fn bearer(reader: &mut Reader, path: &str, entry: &Entry) -> Option<MulticastPlan> {
    let mut s = reader.scope(&schema::BEARER_MULTICAST, path, Some(entry));
    let all = |mtu: i64| mtu >= i64::try_from(MTU_OF_LARGEST).unwrap_or(i64::MAX);
    let default = |mtu: i64| Some(if all(mtu) { LARGEST } else { LARGEST_OF_ANY });
    let basics = Basics::read(&mut s, "multicast", 256, LARGEST, default);
    let group = s.field("group", parsed(multicast_address));
    let port = s.field("port", integer(1, 65_535));
    let station = s.field("station", integer(0, 255));
    let receive_only = s.field("receive_only", boolean);
    let (room, delay) = (usize::try_from(basics.room?).ok()?, basics.delay);
    if room as u64 + NetPlan::HEADERS < MTU_OF_LARGEST && basics.max_payload.is_some_and(|most| most > LARGEST_OF_ANY) {
        let problem = format!("payloads above {LARGEST_OF_ANY} are cut into symbols that do not fit into mtu");
        reader.problem(
            &join(path, "max_payload"),
            problem,
            &format!("{LARGEST_OF_ANY}, or an mtu of {MTU_OF_LARGEST}"),
        );
    }
    // A list of members is as long as the highest station in it asks.
    let head = wire::SYMBOLS_OVERHEAD + 32;
    let mut net = basics.plan(reader, vec![group?], vec![u16::try_from(port?).ok()?], room, head)?;
    net.receive_only = receive_only?;
    if net.receive_only && net.join == Join::Igmp {
        let problem = "joining a group radiates, and this bearer only receives";
        reader.problem(&join(path, "join"), problem, "static, with the group joined on the interface");
    }
    if net.receive_only && net.emcon != State::Silent {
        reader.problem(&join(path, "emcon"), "this bearer only receives", "silent");
    }
    Some(MulticastPlan { net, station: u8::try_from(station?).ok()?, delay: delay? })
}

/// What these bearers and their peers must have in common with each other and the rest of the profile.
pub fn check(reader: &mut Reader, d: &Declared<'_>) {
    let mut carried = BTreeMap::new();
    for (path, bearer) in d.multicast {
        let at = join(path, "peers");
        let mut stations = BTreeMap::from([(bearer.station, format!("{path} itself"))]);
        let mut first = None;
        for peer in &bearer.net.peers {
            if let Some(other) = carried.insert(peer, path) {
                reader.problem(&at, format!("{peer} stands in {other} too"), "each peer on one such bearer, once");
            }
            if let Some((other, _)) = d.bearers.iter().find(|(_, b)| b.peers.contains(peer)) {
                let problem = format!("{peer} is reached over {other} too, and mail does not change between the two");
                reader.problem(&at, problem, "each peer on serial bearers, or on one of kind multicast");
            }
            if d.mules.iter().any(|(_, m)| m.name == *peer) {
                let problem = format!("{peer} speaks MULE, and a group carries MULE or Aldis mode");
                reader.problem(&at, problem, "a bearer of kind pmul with a group of its own for it");
            }
            let Some((peer_path, plan)) = d.peer_plans.iter().find(|(_, p)| p.name == *peer) else { continue };
            if let Some(other) = stations.insert(plan.station, peer_path.clone()) {
                let problem = format!("station {} on {path} is also that of {other}", plan.station);
                reader.problem(&join(peer_path, "station"), problem, "a number of its own, 0 to 255");
            }
            // One datagram is for all of them, and has one tag.
            let (_, like) = *first.get_or_insert((peer_path, plan));
            if (like.protection, &like.keys) != (plan.protection, &plan.keys) {
                let problem = format!("{} and {peer} are in one group and have other keys or protection", like.name);
                reader.problem(&join(peer_path, "keys"), problem, "the keys of the group, the same for all its peers");
            }
            if plan.protection == Protection::Off {
                let problem = "anyone who can send to this group can forge mail, and read it";
                reader.warn(&join(peer_path, "protection"), problem, "aead, or mac");
            }
            if bearer.net.protected && plan.protection != Protection::Aead {
                let problem = format!("mail that asks for protection would go to {peer} in clear");
                reader.problem(&join(path, "protected"), problem, "protection = \"aead\", or protected = false");
            }
            let route = d.routes.iter().find(|(_, r)| r.hop == Hop::Peer(peer.clone()));
            if let Some((route, _)) = route.filter(|_| bearer.net.receive_only) {
                let problem = format!("{path} only receives: nothing can go to {peer}");
                reader.problem(&join(route, "to"), problem, "another way for this mail");
            }
        }
    }
    // The width of a station number in serial frames.
    for (path, bearer) in d.bearers {
        for (peer_path, peer) in d.peer_plans.iter().filter(|(_, p)| bearer.peers.contains(&p.name) && p.station > 15) {
            let problem = format!("{} is beyond what frames on {path} can say", peer.station);
            reader.problem(&join(peer_path, "station"), problem, "an integer, 0 to 15");
        }
    }
}
