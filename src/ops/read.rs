//! Answers that only read the store: from a snapshot, on the asker's thread, never the switch's.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use data_encoding::BASE64;

use crate::mail::{MessageId, Outcome, Precedence, RecipientState, Source};
use crate::ops::document::{
    LevelStatus, MxStatus, Prediction, Predictions, QueueAction, QueueList, QueueMessage, QueueRead, QueueRecipient,
    QueueShow, SmarthostStatus, Status, Track, TrackEvent, WhatIf, WhatIfStays,
};
use crate::queue::outcome;
use crate::queue::{MessageRecord, MessageState, Snapshot, Snapshots};
use crate::time::{Now, Wall};

use super::{Request, Response};

/// Most messages one answer lists.
const LIST_MAX: usize = 10_000;
/// Most bytes of a message in one answer.
const PIECE: u64 = 1 << 20;

/// Answers a request that only reads; `None` for any other.
pub fn answer(request: &Request, snapshots: &Snapshots) -> Option<Response> {
    let reads = matches!(
        request,
        Request::QueueList { .. } | Request::QueueShow { .. } | Request::QueueRead { .. } | Request::Track { .. }
    );
    if !reads {
        return None;
    }
    let snapshot = match snapshots.take() {
        Ok(snapshot) => snapshot,
        Err(error) => return Some(Response::refused(error.to_string())),
    };
    let answered = match request {
        Request::QueueList { precedence, held, limit } => {
            let limit = (*limit).min(LIST_MAX);
            let keep = |r: &MessageRecord| precedence.is_none_or(|p| r.precedence == p) && (!held || is_held(r));
            snapshot.list(limit.saturating_add(1), keep).map(|mut records| {
                let more = records.len() > limit;
                records.truncate(limit);
                let messages = records.iter().map(message).collect();
                Response::done(&QueueList { schema: QueueList::SCHEMA.into(), messages, more })
            })
        }
        Request::QueueShow { id } => snapshot.load(*id).map(|record| match record {
            Some(record) => Response::done(&QueueShow {
                schema: QueueShow::SCHEMA.into(),
                message: message(&record),
                source: source(&record.source),
                envid: record.envelope.envid.clone(),
                reduced: reduced(&record),
            }),
            None => Response::refused(format!("no message {id} at this node")),
        }),
        Request::QueueRead { id, from } => piece(&snapshot, *id, *from),
        Request::Track { key } => track(&snapshot, key),
        _ => return None,
    };
    Some(answered.unwrap_or_else(|error| Response::refused(error.to_string())))
}

fn piece(snapshot: &Snapshot, id: MessageId, from: u64) -> Result<Response, crate::queue::CommitError> {
    let record = snapshot.load(id)?;
    let Some((record, body)) = record.and_then(|r| r.recipients.first().map(|first| first.body).map(|body| (r, body)))
    else {
        return Ok(Response::refused(format!("no message {id} at this node")));
    };
    if record.state == MessageState::Done && record.reduced.is_empty() {
        return Ok(Response::refused(format!("{id} is done and went whole; its bytes are not kept")));
    }
    let piece = snapshot.read(body, from, PIECE)?;
    Ok(Response::done(&QueueRead {
        schema: QueueRead::SCHEMA.into(),
        id: id.to_string(),
        size_bytes: record.size_bytes,
        from,
        base64: BASE64.encode(&piece),
    }))
}

/// Recipients whose copy went on the air reduced.
fn reduced(record: &MessageRecord) -> Vec<String> {
    let of = |i: &u32| record.envelope.recipients.get(usize::try_from(*i).ok()?).map(|r| r.address.to_string());
    record.reduced.iter().filter_map(of).collect()
}

fn track(snapshot: &Snapshot, key: &str) -> Result<Response, crate::queue::CommitError> {
    // Newest last: the same Message-ID may have come by twice.
    let Some(id) = snapshot.find(key)?.last().copied() else {
        return Ok(Response::refused(format!("nothing here is known as {key}")));
    };
    let events = snapshot
        .track(id)?
        .into_iter()
        .map(|e| TrackEvent {
            at: e.at.rfc3339(),
            event: e.event,
            recipient: e.recipient,
            bearer: e.bearer,
            bytes_on_air: e.bytes_on_air,
            air_s: e.air_s,
            detail: e.detail,
        })
        .collect();
    let predictions = snapshot.load(id)?.map(|record| held(&record)).unwrap_or_default();
    Ok(Response::done(&Track { schema: Track::SCHEMA.into(), id: id.to_string(), events, predictions }))
}

/// What is to be expected of recipients an operator holds: nothing, until they are released.
fn held(record: &MessageRecord) -> Vec<Prediction> {
    let of = |(to, r): (&crate::mail::Recipient, &crate::queue::RecipientRecord)| match &r.state {
        RecipientState::Held { why } => Some(Prediction {
            recipients: vec![to.address.to_string()],
            peer: String::new(),
            bearer: None,
            air_s: 0.0,
            delivered_at: None,
            why: format!("held: {why}"),
        }),
        RecipientState::Due { .. } | RecipientState::OnAir { .. } | RecipientState::Final { .. } => None,
    };
    record.envelope.recipients.iter().zip(&record.recipients).filter_map(of).collect()
}

/// What the switch is to be asked for so that an answer of the store is whole; `None` when it is.
pub fn completed_by(response: &Response) -> Option<Request> {
    let track: Track = serde_json::from_value(response.document.clone()).ok()?;
    Some(Request::Predict { id: MessageId::parse(&track.id)? }).filter(|_| track.schema == Track::SCHEMA)
}

/// A history with the switch's predictions.
pub fn with_predictions(response: Response, predicted: &Response) -> Response {
    let track = serde_json::from_value::<Track>(response.document.clone());
    let (Ok(mut track), Ok(more)) = (track, serde_json::from_value::<Predictions>(predicted.document.clone())) else {
        return response;
    };
    track.predictions.extend(more.predictions);
    Response::done(&track)
}

/// Fills in what of a what-if only the store knows: what an operator holds.
pub fn complete_what_if(response: Response, snapshots: &Snapshots) -> Response {
    let Ok(mut what_if) = serde_json::from_value::<WhatIf>(response.document.clone()) else { return response };
    let records = snapshots.take().and_then(|s| s.list(LIST_MAX, is_held)).unwrap_or_default();
    let mut counts: BTreeMap<(Reverse<Precedence>, String), u64> = BTreeMap::new();
    for record in &records {
        *counts.entry((Reverse(record.precedence), why(record))).or_default() += 1;
    }
    let stays = |((level, why), messages): ((Reverse<Precedence>, String), u64)| WhatIfStays {
        precedence: level.0.name().to_owned(),
        messages,
        why,
    };
    what_if.stays.extend(counts.into_iter().map(stays));
    Response::done(&what_if)
}

/// What of a status only the driver knows.
#[derive(Debug, Default)]
pub struct Edge {
    /// Free space of the disk.
    pub free_bytes: u64,
    /// Next hops that the profile describes.
    pub smarthosts: Vec<SmarthostStatus>,
    /// Domains whose hosts the DNS names.
    pub mx: Vec<MxStatus>,
    /// What each listener has refused, in the order of the listeners.
    pub refused: Vec<BTreeMap<String, u64>>,
}

/// Fills in what of a status only the store and the driver know.
pub fn complete_status(response: Response, snapshots: &Snapshots, edge: Edge, now: Now) -> Response {
    let Ok(mut status) = serde_json::from_value::<Status>(response.document.clone()) else { return response };
    status.store.free_bytes = edge.free_bytes;
    status.smarthosts = edge.smarthosts;
    status.mx = edge.mx;
    for (listener, refused) in status.listeners.iter_mut().zip(edge.refused) {
        listener.refused = refused;
    }
    match snapshots.take().and_then(|s| s.depth()) {
        Ok(depth) => {
            for level in crate::mail::Precedence::DESCENDING {
                let (count, oldest) = depth[usize::from(level.rank())];
                let oldest_s = oldest.map_or(0, |at| now.wall.since(at).as_secs());
                status.queue.by_precedence.insert(level.name().to_owned(), LevelStatus { count, oldest_s });
            }
        }
        Err(_) => status.store.healthy = false,
    }
    Response::done(&status)
}

/// The answer to an operator's action on a message.
pub fn action(name: &str, record: &MessageRecord) -> Response {
    Response::done(&QueueAction {
        schema: QueueAction::SCHEMA.into(),
        action: name.to_owned(),
        message: message(record),
    })
}

fn is_held(record: &MessageRecord) -> bool {
    record.recipients.iter().any(|r| matches!(r.state, RecipientState::Held { .. }))
}

fn message(record: &MessageRecord) -> QueueMessage {
    let shown = |(to, r): (&crate::mail::Recipient, &crate::queue::RecipientRecord)| {
        let (state, bearer, next_at) = match &r.state {
            RecipientState::Due { next_at } => ("due", None, Some(next_at.rfc3339())),
            RecipientState::OnAir { bearer } if outcome::is_sent(r) => ("sent", Some(bearer.to_string()), None),
            RecipientState::OnAir { bearer } => ("on-air", Some(bearer.to_string()), None),
            RecipientState::Held { .. } => ("held", None, None),
            RecipientState::Final { outcome, .. } => (outcome_word(outcome), None, None),
        };
        QueueRecipient {
            address: to.address.to_string(),
            state: state.to_owned(),
            bearer,
            attempts: r.attempts,
            next_at,
            last_error: r.last_error.as_ref().map(ToString::to_string),
        }
    };
    QueueMessage {
        id: record.id.to_string(),
        message_id: record.message_id.clone(),
        sender: record.envelope.from.as_ref().map(ToString::to_string).unwrap_or_default(),
        recipients: record.envelope.recipients.iter().zip(&record.recipients).map(shown).collect(),
        precedence: record.precedence.name().to_owned(),
        mt_priority: record.envelope.mt_priority.map(crate::mail::MtPriority::get),
        size_bytes: record.size_bytes,
        state: state_word(record.state).to_owned(),
        accepted: record.accepted.rfc3339(),
        expires: expires(record.envelope.expires),
        why: why(record),
    }
}

fn expires(at: Wall) -> String {
    if at == Wall::NEVER { String::new() } else { at.rfc3339() }
}

const fn state_word(state: MessageState) -> &'static str {
    match state {
        MessageState::Checking => "checking",
        MessageState::Queued => "queued",
        MessageState::Held => "held",
        MessageState::Done => "done",
    }
}

const fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered { .. } => "delivered",
        Outcome::Failed { .. } => "failed",
        Outcome::Expired => "expired",
        Outcome::Cancelled => "cancelled",
        Outcome::Unconfirmed => "unconfirmed",
    }
}

/// What a message is waiting for, in words: the most pressing of its recipients speaks for it.
fn why(record: &MessageRecord) -> String {
    for r in &record.recipients {
        if let RecipientState::Held { why } = &r.state {
            return format!("held: {why}");
        }
    }
    for r in &record.recipients {
        match &r.state {
            RecipientState::OnAir { bearer } if outcome::is_sent(r) => return format!("{bearer}: {}", outcome::SENT),
            RecipientState::OnAir { bearer } => return format!("frozen for {bearer}, not yet confirmed"),
            RecipientState::Due { next_at } => {
                return match &r.last_error {
                    Some(error) => format!("next attempt {}: {error}", next_at.dtg()),
                    None => "waiting for its turn".to_owned(),
                };
            }
            RecipientState::Held { .. } | RecipientState::Final { .. } => {}
        }
    }
    "done".to_owned()
}

fn source(source: &Source) -> String {
    match source {
        Source::Smtp { listener, address, user } => {
            let address = address.map(|a| format!(" {a}")).unwrap_or_default();
            let user = user.as_ref().map(|u| format!(" as {u}")).unwrap_or_default();
            format!("listener {listener}{address}{user}")
        }
        Source::Bearer { peer, transfer, .. } => format!("peer {peer}, transfer {transfer}"),
        Source::Switch | Source::Receipts { .. } => "this switch".to_owned(),
    }
}
