//! A packet bearer as a scenario has it: its nodes by name, what it is made of, and what is sent over it.

use aldis::time::Instant;

use crate::packet::{Destination, NetConfig, NodeId};
use crate::rng::Stream;

/// One packet bearer of a scenario.
#[derive(Clone, PartialEq, Debug)]
pub struct Satcom {
    /// Its name.
    pub name: String,
    /// Names of its nodes, in order of their ids.
    pub members: Vec<String>,
    /// Names of its groups, in order of theirs. The first is `all`.
    pub groups: Vec<String>,
    /// What is sent over it, in order of time.
    pub datagrams: Vec<Source>,
    /// UDP ports that it carries in real time.
    pub ports: Vec<u16>,
    /// Its number among the scenario's.
    pub number: u16,
    pub(super) config: NetConfig,
}

/// One datagram to be sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Source {
    /// When.
    pub at: Instant,
    /// By whom.
    pub from: NodeId,
    /// To whom.
    pub to: Destination,
    /// Its size in bytes.
    pub size: u64,
}

impl Satcom {
    /// What it is made of when the scenario runs under `seed`.
    pub fn net(&self, seed: u64) -> NetConfig {
        let seed = Stream::new(seed, "satcom", u64::from(self.number)).next_u64();
        NetConfig { seed, ..self.config.clone() }
    }

    /// A node's name.
    pub fn member(&self, id: NodeId) -> &str {
        self.members.get(usize::from(id.0)).map_or("?", String::as_str)
    }
}
