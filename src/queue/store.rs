//! The store's contract: a handful of calls, all by completion, on domain records.
//!
//! The switch emits these as work and gets a [`StoreResult`] back later. `queue::Engine` executes them synchronously
//! on a writer thread (`node/`) or inline (the simulator); PostgreSQL shared by several switches would be another executor.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::{MessageRecord, TrackEntry, TransferRecord};
use crate::mail::{BodyRef, MessageId, Precedence, TransferId};
use crate::time::Wall;

/// Key of duplicate detection.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SeenKey {
    /// A transfer received over the air.
    Transfer(TransferId),
}

/// Until when a key is remembered that came while the clock was not set: never forgotten before it is, and then dated.
pub const UNDATED: Wall = Wall(i64::MIN);

/// What must hold for a batch to be applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// This key was never seen, or has expired and was purged.
    SeenAbsent(SeenKey),
    /// The stored message exists and is leased to this owner.
    LeaseMine {
        /// Which message.
        id: MessageId,
        /// Who must hold it.
        owner: String,
    },
}

/// One change. A batch is applied whole or not at all. The log holds changes in this form, so new ones are added at the end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Stores an immutable body under a fresh ref.
    Body(BodyRef, #[serde(serialize_with = "write_bytes", deserialize_with = "read_bytes")] Arc<[u8]>),
    /// Drops a body nothing refers to any more.
    DropBody(BodyRef),
    /// Inserts or replaces a message; the due index follows from it.
    Message(Box<MessageRecord>),
    /// Drops a message (its track stays until purged).
    DropMessage(MessageId),
    /// Remembers a key until `.1`, which must outlive the message (A3), or [`UNDATED`].
    Seen(SeenKey, Wall),
    /// Inserts or replaces a frozen transfer.
    Transfer(Box<TransferRecord>),
    /// Drops a transfer.
    DropTransfer(TransferId),
    /// Bearer state, opaque to the store; `None` drops the key. Keys start with the bearer's name and a NUL.
    Link(Vec<u8>, Option<Vec<u8>>),
    /// Node state by name: EMCON orders, MINIMIZE, reserved counters. `None` drops it.
    Setting(String, Option<Vec<u8>>),
    /// Gives the store another epoch: what was used under the old one is unknown here (A2, C1).
    Epoch(u32),
    /// Adds a line to a message's history.
    Track(MessageId, TrackEntry),
    /// Forgets what has had its time: done messages and the histories of dropped ones that ended before `done_before`,
    /// with bodies only they used, and duplicate keys remembered until before `seen_before`; at most `limit` of each.
    /// Never while the clock is not set (A7).
    Purge {
        /// Now less the time done messages are kept.
        done_before: Wall,
        /// Now.
        seen_before: Wall,
        /// Until when keys that were stored under [`UNDATED`] are remembered from here on.
        undated_until: Wall,
        /// Bound on the work of one batch; repeat until nothing is left.
        limit: u32,
    },
}

fn write_bytes<S: Serializer>(bytes: &Arc<[u8]>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

fn read_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u8]>, D::Error> {
    <&[u8]>::deserialize(from).map(Arc::from)
}

/// Changes that become durable together.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    /// All must hold, else [`CommitError::Conflict`] and nothing changes.
    pub conditions: Vec<Condition>,
    /// Applied in order.
    pub changes: Vec<Change>,
}

/// Why a batch was not applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitError {
    /// The condition of this index does not hold. Nothing changed.
    Conflict(usize),
    /// No room on the disk, or the configured floor of free space is reached. Nothing changed; try later.
    Full,
    /// The disk failed. Nothing was promised; the engine refuses all further calls until it has been reopened.
    /// Also: a body ref used twice, or a body that is missing or damaged; these leave the engine usable.
    Failed(String),
}

impl std::fmt::Display for CommitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Conflict(i) => write!(f, "condition {i} no longer holds"),
            Self::Full => f.write_str("no room on the disk"),
            Self::Failed(why) => write!(f, "the store failed: {why}"),
        }
    }
}

impl std::error::Error for CommitError {}

/// A request to the store.
#[derive(Clone, PartialEq, Debug)]
pub enum StoreCall {
    /// Make a batch durable.
    Commit(Batch),
    /// Lease up to `limit` due messages to `owner`, highest precedence first, then earliest due.
    Claim {
        /// Who asks.
        owner: String,
        /// Now; leases that ended before it are free.
        now: Wall,
        /// A time beyond this was set by a clock that has since been put back: it has come too (A7).
        beyond: Wall,
        /// End of the new lease.
        until: Wall,
        /// Which classes, highest first.
        classes: Vec<Precedence>,
        /// How many at most.
        limit: usize,
        /// Messages the owner already works on.
        except: Vec<MessageId>,
    },
    /// Messages whose life ended at or before `now`, those that ended first, also held ones and those that wait for a later try.
    /// One accepted while the clock was not set counts from its acceptance, so that it gets an end at all.
    Ended {
        /// Now, by a clock that is set (A7).
        now: Wall,
        /// How many at most.
        limit: usize,
        /// Messages the caller watches itself.
        except: Vec<MessageId>,
    },
    /// Due messages that are free for `owner`, in the order of a claim, from behind `after` on. Leases nothing and writes nothing: who
    /// has no room for the first of them sees by it whether there is room for one of those behind.
    Look {
        /// Who asks.
        owner: String,
        /// Now.
        now: Wall,
        /// As with `Claim`.
        beyond: Wall,
        /// Where the last look ended.
        after: Option<Place>,
        /// How many rows are looked at.
        limit: usize,
        /// Messages the owner already works on.
        except: Vec<MessageId>,
    },
    /// Lease these messages to `owner`, as far as they are due and free.
    Take {
        /// Who asks.
        owner: String,
        /// Now.
        now: Wall,
        /// As with `Claim`.
        beyond: Wall,
        /// End of the new lease.
        until: Wall,
        /// Which.
        ids: Vec<MessageId>,
    },
    /// One message.
    Load(MessageId),
    /// A body, whole or a part (`from`, `length`).
    Read(BodyRef, u64, u64),
}

/// A place in the order in which messages are claimed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place(pub(super) (u8, i64, u64));

/// What came of a [`StoreCall`].
#[derive(Clone, PartialEq, Debug)]
pub enum StoreResult {
    /// Of `Commit`.
    Committed(Result<(), CommitError>),
    /// Of `Claim` and `Take`.
    Claimed(Result<Vec<MessageRecord>, CommitError>),
    /// Of `Look`: the messages, and where to go on; `None`: that was all.
    Looked(Result<(Vec<MessageRecord>, Option<Place>), CommitError>),
    /// Of `Ended`.
    Ended(Result<Vec<MessageId>, CommitError>),
    /// Of `Load`. A corrupt record is an error value, not an abort.
    Loaded(Result<Option<Box<MessageRecord>>, CommitError>),
    /// Of `Read`; checked against the digest stored with the body.
    Read(Result<Arc<[u8]>, CommitError>),
}

/// Everything a switch needs from the store when it starts.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Opened {
    /// The store's random epoch: new when the store is new, lost, or found to be a restored copy (A2, C1).
    pub epoch: u32,
    /// True when `epoch` was made by this opening.
    pub fresh: bool,
    /// Why a store that had an epoch got another one, in words.
    pub renewed: Option<String>,
    /// All settings.
    pub settings: Vec<(String, Vec<u8>)>,
    /// All bearer state.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// All frozen transfers.
    pub transfers: Vec<TransferRecord>,
    /// One above the highest message id ever stored here.
    pub next_message: u64,
    /// One above the highest body ref ever stored here.
    pub next_body: u64,
    /// Records that could not be read, in words: kept aside for the operator, counted, never fatal.
    pub damaged: Vec<String>,
}

/// A cheap statement of the store's state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Whether mail can be accepted.
    pub healthy: bool,
    /// What SMTP may show when it cannot: no paths, no causes.
    pub public_text: String,
    /// Free bytes on the disk.
    pub free_bytes: u64,
    /// Messages by precedence rank 0..=5: count and earliest acceptance.
    pub depth: [(u64, Option<Wall>); 6],
}
