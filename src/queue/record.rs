//! What the store keeps, as domain values. The state table of a message stands in the module header of [`crate::queue`].

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::mail::{
    BearerId, BodyRef, Cut, Envelope, Hop, MessageId, Precedence, RecipientState, Release, Reliance, Source, Tracking,
    TransferId,
};
use crate::time::Wall;

/// Where a whole message stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageState {
    /// Accepted and durable; checks have not finished. Not schedulable.
    Checking,
    /// Schedulable: at least one recipient is due or on the air.
    Queued,
    /// Kept for an operator. Not schedulable.
    Held,
    /// Every recipient has its final outcome; kept for `track` and late acknowledgements until purged.
    Done,
}

/// One recipient's part of a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecipientRecord {
    /// Waiting for what, or done how. Same index as `envelope.recipients`.
    pub state: RecipientState,
    /// The bytes this recipient gets. An edit for one recipient gives it another body.
    pub body: BodyRef,
    /// Attempts so far.
    pub attempts: u32,
    /// The last temporary failure, in the other side's words.
    pub last_error: Option<Reason>,
    /// A delay DSN went out.
    pub delay_reported: bool,
}

/// Who works on a message, and until when. One switch today; several over one database later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// The switch.
    pub owner: String,
    /// When others may take it over.
    pub until: Wall,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MessageRecord {
    /// Its id at this node.
    pub id: MessageId,
    /// The message it was split from.
    pub parent: Option<MessageId>,
    /// Envelope as accepted.
    pub envelope: Envelope,
    /// Level of service; an operator may raise it.
    pub precedence: Precedence,
    /// Where it came from.
    pub source: Source,
    /// Where it stands.
    pub state: MessageState,
    /// Per recipient, same order as the envelope's.
    pub recipients: Vec<RecipientRecord>,
    /// The Message-ID field, for `track`.
    pub message_id: Option<String>,
    /// Bytes of the body as accepted.
    pub size_bytes: u64,
    /// When it was accepted.
    pub accepted: Wall,
    /// Who works on it.
    pub lease: Option<Lease>,
    /// Recipients, by index, whose copy was frozen reduced: the original is kept as long as the record. Records of before there was
    /// reduction end here.
    #[serde(default, deserialize_with = "or_default")]
    pub reduced: Vec<u32>,
    /// It is sent later, because its sender wanted it so. Records of before that could be asked for end here.
    #[serde(default, deserialize_with = "or_default")]
    pub release: Option<Release>,
    /// Who may ask after it (RFC 3885). Records of before that was kept end here.
    #[serde(default, deserialize_with = "or_default")]
    pub tracking: Option<Tracking>,
    /// Its recipients are not those it was handed over with: aliases led elsewhere. Records of before there were any end here.
    #[serde(default, deserialize_with = "or_default")]
    pub expanded: bool,
}

impl MessageRecord {
    /// From when on it is late: its acceptance, or the release its sender wanted.
    pub fn begun(&self) -> Wall {
        self.release.map_or(self.accepted, |release| release.at.max(self.accepted))
    }

    /// When this message is next of interest to the scheduler; `None` while it is not schedulable.
    pub fn due(&self) -> Option<Wall> {
        if self.state != MessageState::Queued {
            return None;
        }
        self.recipients
            .iter()
            .filter_map(|r| match &r.state {
                RecipientState::Due { next_at } => Some(*next_at),
                RecipientState::OnAir { .. } => Some(Wall(i64::MIN)),
                RecipientState::Held { .. } | RecipientState::Final { .. } => None,
            })
            .min()
    }
}

/// A payload frozen for one peer (link-rules A1): its bytes are stored as a body before the first symbol leaves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransferRecord {
    /// Its id on the air.
    pub id: TransferId,
    /// The bearer that carries it.
    pub bearer: BearerId,
    /// The message.
    pub message: MessageId,
    /// Which of the message's recipients it serves, by index.
    pub recipients: Vec<u32>,
    /// Where it goes.
    pub hop: Hop,
    /// The frozen bytes.
    pub payload: BodyRef,
    /// Length of the frozen bytes.
    pub payload_bytes: u32,
    /// Level of service when it was frozen.
    pub precedence: Precedence,
    /// The counter on the air of a payload frozen for several peers: that of the first of their transfers. Records of before it was
    /// written end here.
    #[serde(default, deserialize_with = "or_default")]
    pub lead: Option<u32>,
    /// Into what they are cut. Records of before there was a choice end here.
    #[serde(default, deserialize_with = "or_default")]
    pub cut: Cut,
    /// What reading them relies on. Records of before it was told end here.
    #[serde(default, deserialize_with = "or_default")]
    pub reliance: Reliance,
}

fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(last: D) -> Result<T, D::Error> {
    Ok(T::deserialize(last).unwrap_or_default())
}

/// One line of a message's history, for `aldis track`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrackEntry {
    /// When.
    pub at: Wall,
    /// What, in one word: accepted, frozen, keyed, progress, confirmed, delivered, deferred, failed, held, released, ...
    pub event: String,
    /// Which recipient, when it concerns one.
    pub recipient: Option<String>,
    /// On which bearer.
    pub bearer: Option<String>,
    /// Bytes on air so far.
    pub bytes_on_air: u64,
    /// Seconds of own emission so far.
    pub air_s: f64,
    /// Anything more, in words.
    pub detail: Option<String>,
}
