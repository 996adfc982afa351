//! Late confirmations: what ended unconfirmed is remembered, so that word of it still counts while the message is known (link-rules A4).
//!
//! When a message's life ends while its payload is at a peer that has not answered, the payload goes and a small record stays, stored
//! as a setting in the same commit. The station that carried it keeps its ear open for the number; what it hears is delivered like
//! any confirmation, once, and the record goes with that. Without a word it goes when finished messages do (`limits.keep_done`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mail::{Hop, TransferId};
use crate::queue::{Batch, Change, TransferRecord};
use crate::time::{Now, Wall};

use super::{Pending, Switch};

/// Such records kept at most; beyond, the one that would go first goes at once.
const MOST: usize = 4096;

/// A transfer that ended unconfirmed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Late {
    pub(super) transfer: TransferRecord,
    /// Until when word of it counts.
    until: Wall,
}

impl Late {
    /// Until when word of it counts.
    pub(super) fn until(&self) -> Wall {
        self.until
    }
}

/// Those that are remembered.
pub(super) type Lates = BTreeMap<TransferId, Late>;

/// What the names of such settings begin with.
const PREFIX: &str = "late/";

/// Whether a setting of this name holds one.
pub(super) fn is_key(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Name of the setting that holds one.
pub(super) fn key(id: &TransferId) -> String {
    format!("{PREFIX}{}.{:08x}.{:08x}", id.origin, id.epoch, id.counter)
}

/// Reads what was stored.
pub(super) fn open(settings: &[(String, Vec<u8>)]) -> Lates {
    let late = |(name, value): &(String, Vec<u8>)| {
        let late: Late = serde_json::from_slice(value).ok().filter(|_| is_key(name))?;
        Some((late.transfer.id.clone(), late))
    };
    settings.iter().filter_map(late).collect()
}

impl Switch {
    /// What is to be stored of transfers that end with their message's life, so that word of them still counts.
    pub(super) fn remember_late(&self, now: Now, live: &[&TransferRecord]) -> Vec<Change> {
        let keep = i64::try_from(self.plan.limits.keep_done.as_millis()).unwrap_or(i64::MAX);
        let until = Wall(now.wall.0.saturating_add(keep));
        let keyed = live.iter().filter(|t| self.keyed_transfers.contains(&t.id));
        let stored = keyed.map(|t| Late { transfer: (*t).clone(), until });
        stored.map(|late| Change::Setting(key(&late.transfer.id), serde_json::to_vec(&late).ok())).collect()
    }

    /// A setting that holds one is durable, or gone.
    pub(super) fn late_stored(&mut self, value: Option<&[u8]>, name: &str) {
        match value.map(serde_json::from_slice::<Late>) {
            Some(Ok(late)) => {
                self.listen_for(&late);
                self.late.insert(late.transfer.id.clone(), late);
                if self.late.len() > MOST
                    && let Some(first) = self.late.values().min_by_key(|l| l.until).map(|l| l.transfer.id.clone())
                {
                    self.forget_late(vec![first]);
                }
            }
            Some(Err(_)) => {}
            None => {
                let id = self.late.keys().find(|id| key(id) == name).cloned();
                id.into_iter().for_each(|id| self.deaf_to(&id));
            }
        }
    }

    /// After a start: the stations listen for what ended unconfirmed before.
    pub(super) fn listen_for_late(&mut self) {
        let lates: Vec<Late> = self.late.values().cloned().collect();
        lates.iter().for_each(|late| self.listen_for(late));
        self.listen_mule();
    }

    fn listen_for(&mut self, late: &Late) {
        let Hop::Peer(peer) = &late.transfer.hop else { return };
        for bearer in self.bearers.values_mut().filter(|b| b.plan.peers.contains(peer)) {
            bearer.station.listen_for(peer, &late.transfer.id, late.transfer.lead);
        }
        let lead = late.transfer.lead.unwrap_or(late.transfer.id.counter);
        self.nets.stations_mut().for_each(|station| station.listen_for(peer, &late.transfer.id, lead));
    }

    fn deaf_to(&mut self, id: &TransferId) {
        self.late.remove(id);
        self.bearers.values_mut().for_each(|bearer| bearer.station.listen_no_more(id));
        self.nets.stations_mut().for_each(|station| station.listen_no_more(id));
    }

    /// Forgets what is no longer known here.
    pub(super) fn purge_late(&mut self, now: Now) {
        let over = self.late.values().filter(|l| l.until <= now.wall).map(|l| l.transfer.id.clone());
        let over: Vec<TransferId> = over.collect();
        self.forget_late(over);
    }

    fn forget_late(&mut self, over: Vec<TransferId>) {
        if over.is_empty() {
            return;
        }
        let changes = over.iter().map(|id| Change::Setting(key(id), None)).collect();
        self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
        over.iter().for_each(|id| self.deaf_to(id));
    }
}
