//! How much a station holds in memory: what a peer can make grow, as numbers.

/// What a station holds in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StationSizes {
    /// Transfers on their way out.
    pub outgoing: usize,
    /// Transfers that wait for a short id.
    pub queued: usize,
    /// Transfers partly received.
    pub partials: usize,
    /// Their bytes.
    pub partial_bytes: usize,
    /// Finished transfers remembered.
    pub finished: usize,
    /// Commits and jobs that have not come back.
    pub pending: usize,
}

impl StationSizes {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            outgoing: self.outgoing + other.outgoing,
            queued: self.queued + other.queued,
            partials: self.partials + other.partials,
            partial_bytes: self.partial_bytes + other.partial_bytes,
            finished: self.finished + other.finished,
            pending: self.pending + other.pending,
        }
    }
}
