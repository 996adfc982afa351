//! Which peers of a bearer take one payload from the same transmission, and why the others do not (docs/net.md).
//!
//! Said by `aldis check` and `aldis explain`, because it costs air: a message for five that share a key goes once, otherwise five times.

use std::fmt;

use serde::Serialize;

use super::Plan;
use super::plan::PeerPlan;
use crate::mail::{BearerId, LinkKey, PeerName};

/// What one bearer's peers have in common.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Sharing {
    /// The bearer.
    pub bearer: String,
    /// Peers to which one payload goes at once; empty where no two can share one.
    pub together: Vec<String>,
    /// The others, each of which gets a payload of its own.
    pub apart: Vec<Apart>,
}

/// A peer that shares nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Apart {
    /// Its name.
    pub peer: String,
    /// What it has not in common with the others.
    pub why: String,
}

/// What holds for every bearer with several peers.
pub fn sharing(plan: &Plan) -> Vec<Sharing> {
    let of_bearer = |(bearer, peers): (&BearerId, &Vec<PeerName>)| {
        let peers: Vec<&PeerPlan> =
            peers.iter().filter_map(|name| plan.peers.iter().find(|p| p.name == *name)).collect();
        let (first, others) = peers.split_first().filter(|(_, others)| !others.is_empty())?;
        let like = |p: &&&PeerPlan| LinkKey::together(first.protection, &first.keys, p.protection, &p.keys);
        let mut together: Vec<String> = others.iter().filter(like).map(|p| p.name.to_string()).collect();
        let apart = others.iter().filter(|p| !like(p)).map(|p| Apart {
            peer: p.name.to_string(),
            why: match p.protection == first.protection {
                true => format!("its first key is not that of {}", first.name),
                false => format!("it has protection {}, {} has {}", p.protection, first.name, first.protection),
            },
        });
        let apart = apart.collect();
        if !together.is_empty() {
            together.insert(0, first.name.to_string());
        }
        Some(Sharing { bearer: bearer.to_string(), together, apart })
    };
    let serial = plan.bearers.iter().map(|b| (&b.id, &b.peers));
    serial.chain(plan.multicast.iter().map(|m| (&m.net.id, &m.net.peers))).filter_map(of_bearer).collect()
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bearer {}: ", self.bearer)?;
        match self.together.as_slice() {
            [] => f.write_str("every peer gets a payload of its own")?,
            together => write!(f, "a message for several of {} goes once", together.join(", "))?,
        }
        let apart: Vec<String> = self.apart.iter().map(|a| format!("{} apart, {}", a.peer, a.why)).collect();
        if apart.is_empty() { Ok(()) } else { write!(f, "; {}", apart.join("; ")) }
    }
}
