//! The nouns that cross borders: addresses, envelopes, precedence, hops, outcomes.
//!
//! Everything here is plain data; every other module may import it and it imports none.

mod address;
mod envelope;
pub mod header;
mod hop;
mod ids;
mod key;
mod original;
mod outcome;
mod precedence;
mod receipt;
mod stored;

pub use address::{Mailbox, ReversePath};
pub use envelope::{
    BodyKind, ByMode, DeliverBy, Envelope, Notify, Recipient, Release, ReleaseAsked, Ret, Source, Submission, Terms,
    Tracking,
};
pub use hop::Hop;
pub use ids::{BearerId, BodyRef, Cut, MessageId, PeerName, Reliance, TransferId};
pub use key::{LinkKey, Protection};
pub use original::{original_recipient, original_recipient_line, unxtext};
pub use outcome::{Outcome, RecipientState, Status};
pub use precedence::{MtPriority, Precedence, PriorityPolicy};
pub use receipt::{LOCAL_MAILBOX, Receipt, Taken};
