//! Another epoch for a store that turned out to be an old copy of itself (link-rules A2, C1).
//!
//! A peer has heard of transfer numbers this store has not given out: an image of an older state was put back, and what it gives out
//! next would be numbers, and nonces, that were used before. So: every transmitter stops, the new epoch is made durable, the
//! stations go on under it, and everything frozen under the old one is withdrawn and frozen anew under new ids. An operator has
//! nothing to do, and is told.

use crate::mail::{BearerId, PeerName};
use crate::ops::Event;
use crate::queue::{Batch, Change, CommitError, TransferRecord, ids};
use crate::time::{Instant, Now};

use super::settle::RETRY_COMMIT;
use super::{Pending, StoreState, Switch};

/// Why a transfer of a former epoch is given up.
pub(super) const STALE: &str = "frozen under an epoch that the store has left";

/// Another epoch on its way into the store.
#[derive(Debug)]
pub(super) struct Renewal {
    epoch: u32,
    /// What showed that it is needed.
    why: String,
    /// When a commit that failed is tried again.
    pub(super) retry_at: Option<Instant>,
}

impl Switch {
    /// A peer knows more of this node's past than its store. Nothing more leaves under the old epoch from here on.
    pub(super) fn epoch_used(&mut self, now: Now, peer: &PeerName) {
        if self.renewal.is_some() {
            return;
        }
        let names: Vec<BearerId> = self.gate.bearers().cloned().collect();
        for name in names {
            self.gate.void(&name);
            self.silence(now, &name);
            if let Some(bearer) = self.bearers.get_mut(&name) {
                bearer.station.suspend(now.at);
            }
            if let Some(station) = self.nets.station_mut(&name) {
                station.doubt_epoch();
            }
        }
        let epoch = ids::another_epoch(Some(self.epoch), self.draw());
        let why = format!("{peer} has heard numbers that the store has not yet given out: it is an old copy of itself");
        self.renewal = Some(Renewal { epoch, why, retry_at: None });
        self.store_renewal();
    }

    fn store_renewal(&mut self) {
        let Some(renewal) = &mut self.renewal else { return };
        renewal.retry_at = None;
        let changes = vec![Change::Epoch(renewal.epoch)];
        self.commit(Batch { conditions: Vec::new(), changes }, Pending::Renewal);
    }

    pub(super) fn retry_renewal(&mut self, now: Now) {
        if self.renewal.as_ref().is_some_and(|r| r.retry_at.is_some_and(|at| at <= now.at)) {
            self.store_renewal();
        }
    }

    /// The new epoch is durable: everything goes on under it.
    pub(super) fn renewal_stored(&mut self, now: Now, stored: Result<(), CommitError>) {
        if let Err(error) = stored {
            self.commit_failed(&error);
            if let Some(renewal) = &mut self.renewal {
                renewal.retry_at = Some(now.at + RETRY_COMMIT);
            }
            return;
        }
        let Some(Renewal { epoch, why, .. }) = self.renewal.take() else { return };
        self.store = StoreState::Healthy;
        self.epoch = epoch;
        self.ids.renewed(epoch);
        for bearer in self.bearers.values_mut() {
            bearer.station.renew(now.at, epoch);
        }
        self.nets.stations_mut().for_each(|station| station.renew(now.at, epoch));
        let refrozen = self.withdraw_stale(now);
        self.tell_renewed(&why, refrozen);
    }

    /// Gives up what was frozen under a former epoch; its messages are frozen anew. How many.
    pub(super) fn withdraw_stale(&mut self, now: Now) -> u64 {
        let stale = |t: &&TransferRecord| t.id.epoch != self.epoch;
        let stale: Vec<TransferRecord> = self.transfers.values().filter(stale).cloned().collect();
        for transfer in &stale {
            self.withdraw(now, transfer, STALE);
        }
        stale.len() as u64
    }

    pub(super) fn tell_renewed(&mut self, why: &str, refrozen: u64) {
        let text = format!(
            "{why}. The node goes on under a new epoch; nothing is to be done. Mail accepted after that copy was made is lost unless \
             it had been passed on, and mail that was under way then is sent again and may arrive twice"
        );
        self.event(Event::StoreRenewed { text, refrozen });
    }

    /// A number from the seed handed in; not two alike in any short row (SplitMix64).
    fn draw(&mut self) -> u32 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.chance ^ self.chance >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 32) as u32
    }
}
