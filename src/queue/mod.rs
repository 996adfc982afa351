//! Custody: what was acknowledged is here until it has its final outcome.
//!
//! # The states of a message
//!
//! | state | meaning | schedulable | goes to |
//! |---|---|---|---|
//! | checking | accepted and durable, checks unfinished | no | queued, held, done |
//! | queued | at least one recipient due or on the air | yes | held, done |
//! | held | an operator decides | no | queued, done |
//! | done | every recipient final; kept for track and late acknowledgements | no | (purged); unconfirmed -> delivered |
//!
//! Per recipient: `due` -> `on air` -> final, `due` -> final, `on air` -> `due` when a transfer is postponed or withdrawn,
//! `held` <-> `due`, `held` -> final, and the one late transition unconfirmed -> delivered (link-rules A4).
//! [`outcome::allows`] is this table as code; the seeded histories of `property` and the simulator hold every message to it.
//!
//! Owns redb (behind [`Disk`]); imports `mail`, `time` and nothing else: it schedules by values and knows no bearer and no SMTP.

pub mod accept;
mod apply;
mod backend;
mod disk;
pub mod dsn;
mod engine;
pub mod expand;
mod gather;
pub mod ids;
mod journal;
mod long;
pub mod maildir;
pub mod outcome;
mod real_disk;
mod reason;
mod record;
pub mod retry;
pub mod schedule;
mod snapshot;
mod staged;
mod store;
mod table;

#[cfg(test)]
mod property;

pub use accept::{
    Accepted, Authority, Choice, Decision, LONGEST_LIFE, NotAMessage, Policy, Stated, accept, choose, lifetime,
    seen_twice,
};
pub use disk::{Disk, DiskFile};
pub use engine::{Engine, OpenError, Options, STORE_FILE};
pub use ids::{Ids, RESERVATION};
pub use journal::LOG_FILE;
pub use real_disk::RealDisk;
pub use reason::Reason;
pub use record::{Lease, MessageRecord, MessageState, RecipientRecord, TrackEntry, TransferRecord};
pub use snapshot::{Snapshot, Snapshots};
pub use staged::{Settled, Staged};
pub use store::{
    Batch, Change, CommitError, Condition, Health, Opened, Place, SeenKey, StoreCall, StoreResult, UNDATED,
};
