//! How much a switch holds in memory: every bound a peer or a client could push against, as a number.

use super::Switch;
use crate::bearer::serial::StationSizes;

/// What a switch holds in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// Messages in the active set, those in flight included.
    pub active: usize,
    /// Live transfers, all peers together.
    pub transfers: usize,
    /// Messages with a step under way.
    pub steps: usize,
    /// Reports on their way as receipts: put aside, or marked.
    pub receipts: usize,
    /// Work that was given out and has not come back.
    pub tickets: usize,
    /// Orders whose commit is awaited.
    pub orders: usize,
    /// The links of all bearers together.
    pub links: StationSizes,
}

impl Switch {
    /// How much it holds in memory now.
    pub fn sizes(&self) -> Sizes {
        let links = self.bearers.values().map(|b| b.station.sizes()).fold(StationSizes::default(), StationSizes::plus);
        Sizes {
            active: self.active.len(),
            transfers: self.transfers.len(),
            steps: self.steps.len(),
            receipts: self.receipts.size(),
            tickets: self.tickets.len(),
            orders: self.open_orders.len(),
            links,
        }
    }
}
