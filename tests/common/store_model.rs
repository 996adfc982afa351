//! A store in memory that says what the real one must answer, and random work for both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aldis::mail::{
    BearerId, BodyRef, Cut, Envelope, Hop, Mailbox, MessageId, Outcome, Precedence, Recipient, RecipientState,
    Reliance, Source, TransferId,
};
use aldis::queue::{
    Batch, Change, CommitError, Condition, Engine, Health, Ids, Lease, MessageRecord, MessageState, Opened,
    RecipientRecord, SeenKey, StoreCall, StoreResult, TrackEntry, TransferRecord,
};
use aldis::time::Wall;
use aldis_sim::rng::Stream;

/// What a store holds, by the plainest means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub messages: BTreeMap<u64, MessageRecord>,
    pub bodies: BTreeMap<u64, Arc<[u8]>>,
    pub seen: BTreeSet<TransferId>,
    pub transfers: BTreeMap<TransferId, TransferRecord>,
    pub links: BTreeMap<Vec<u8>, Vec<u8>>,
    pub settings: BTreeMap<String, Vec<u8>>,
    pub tracks: BTreeMap<u64, Vec<TrackEntry>>,
    pub next_message: u64,
    pub next_body: u64,
}

impl Model {
    /// Executes a call and says what the answer must be; `None` where any error will do.
    pub fn execute(&mut self, call: &StoreCall) -> Option<StoreResult> {
        Some(match call {
            StoreCall::Commit(batch) => StoreResult::Committed(match self.refusal(batch) {
                Some(index) => Err(CommitError::Conflict(index)),
                None => {
                    batch.changes.iter().for_each(|change| self.apply(change));
                    Ok(())
                }
            }),
            StoreCall::Claim { owner, now, beyond, until, classes, limit, except } => {
                let mut free: Vec<_> = self
                    .messages
                    .values()
                    .filter(|m| classes.contains(&m.precedence) && !except.contains(&m.id))
                    .filter(|m| m.due().is_some_and(|due| due <= *now || due > *beyond))
                    .filter(|m| m.lease.as_ref().is_none_or(|l| l.owner == *owner || l.until < *now))
                    .map(|m| (std::cmp::Reverse(m.precedence), m.due(), m.id.0))
                    .collect();
                free.sort_unstable();
                let taken = free.into_iter().take(*limit).filter_map(|(_, _, id)| {
                    let message = self.messages.get_mut(&id)?;
                    message.lease = Some(Lease { owner: owner.clone(), until: *until });
                    Some(message.clone())
                });
                StoreResult::Claimed(Ok(taken.collect()))
            }
            StoreCall::Look { owner, now, beyond, after, limit, except } => {
                // Without a place to go on from, and with room for all: what a claim would take.
                if after.is_some() || *limit < self.messages.len() {
                    return None;
                }
                let classes = Precedence::DESCENDING.to_vec();
                let (owner, now, beyond, limit, except) = (owner.clone(), *now, *beyond, *limit, except.clone());
                let before = self.messages.clone();
                let claim = StoreCall::Claim { owner, now, beyond, until: now, classes, limit, except };
                let Some(StoreResult::Claimed(Ok(claimed))) = self.execute(&claim) else { return None };
                self.messages = before;
                let found = claimed.iter().filter_map(|m| self.messages.get(&m.id.0).cloned()).collect();
                StoreResult::Looked(Ok((found, None)))
            }
            StoreCall::Take { owner, now, beyond, until, ids } => {
                let mut taken = Vec::new();
                for id in ids {
                    let free = |m: &MessageRecord| m.lease.as_ref().is_none_or(|l| l.owner == *owner || l.until < *now);
                    let due = |m: &MessageRecord| m.due().is_some_and(|due| due <= *now || due > *beyond);
                    let Some(message) = self.messages.get_mut(&id.0).filter(|m| free(m) && due(m)) else { continue };
                    message.lease = Some(Lease { owner: owner.clone(), until: *until });
                    taken.push(message.clone());
                }
                StoreResult::Claimed(Ok(taken))
            }
            StoreCall::Ended { now, limit, except } => {
                let end = |m: &MessageRecord| match m.envelope.expires {
                    Wall::NEVER => m.accepted,
                    expires => expires,
                };
                let open = self.messages.values().filter(|m| m.state != MessageState::Done && !except.contains(&m.id));
                let mut ended: Vec<_> = open.map(|m| (end(m), m.id)).filter(|(end, _)| end <= now).collect();
                ended.sort_unstable();
                StoreResult::Ended(Ok(ended.into_iter().map(|(_, id)| id).take(*limit).collect()))
            }
            StoreCall::Load(id) => StoreResult::Loaded(Ok(self.messages.get(&id.0).cloned().map(Box::new))),
            StoreCall::Read(body, from, length) => {
                let bytes = self.bodies.get(&body.0)?;
                let end = from.saturating_add(*length).min(bytes.len() as u64) as usize;
                let from = (*from as usize).min(end);
                StoreResult::Read(Ok(bytes[from..end].into()))
            }
        })
    }

    fn refusal(&self, batch: &Batch) -> Option<usize> {
        batch.conditions.iter().position(|condition| match condition {
            Condition::SeenAbsent(SeenKey::Transfer(id)) => self.seen.contains(id),
            Condition::LeaseMine { id, owner } => {
                self.messages.get(&id.0).and_then(|m| m.lease.as_ref()).is_none_or(|lease| lease.owner != *owner)
            }
        })
    }

    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Body(body, bytes) => {
                self.next_body = self.next_body.max(body.0 + 1);
                self.bodies.insert(body.0, bytes);
            }
            Change::DropBody(body) => drop(self.bodies.remove(&body.0)),
            Change::Message(record) => {
                self.next_message = self.next_message.max(record.id.0 + 1);
                self.messages.insert(record.id.0, *record);
            }
            Change::DropMessage(id) => drop(self.messages.remove(&id.0)),
            Change::Seen(SeenKey::Transfer(id), _) => drop(self.seen.insert(id)),
            Change::Transfer(record) => drop(self.transfers.insert(record.id.clone(), *record)),
            Change::DropTransfer(id) => drop(self.transfers.remove(&id)),
            Change::Link(key, Some(value)) => drop(self.links.insert(key, value)),
            Change::Link(key, None) => drop(self.links.remove(&key)),
            Change::Setting(name, Some(value)) => drop(self.settings.insert(name, value)),
            Change::Setting(name, None) => drop(self.settings.remove(&name)),
            Change::Track(id, entry) => self.tracks.entry(id.0).or_default().push(entry),
            Change::Epoch(_) | Change::Purge { .. } => panic!("the model neither purges nor gets another epoch"),
        }
    }

    fn depth(&self) -> [(u64, Option<Wall>); 6] {
        let mut depth = [(0, None); 6];
        for message in self.messages.values().filter(|m| m.state != MessageState::Done) {
            let slot: &mut (u64, Option<Wall>) = &mut depth[usize::from(message.precedence.rank())];
            slot.0 += 1;
            slot.1 = Some(slot.1.map_or(message.accepted, |at| at.min(message.accepted)));
        }
        depth
    }

    /// Says how a store just opened differs from this model, if it does.
    pub fn difference(&self, engine: &Engine, opened: &Opened) -> Option<String> {
        let differs = |what: &str, same: bool| (!same).then(|| what.to_owned());
        let snapshot = engine.snapshot().expect("a snapshot");
        let links: BTreeMap<_, _> = opened.links.iter().cloned().collect();
        let mut settings: BTreeMap<_, _> = opened.settings.iter().cloned().collect();
        // Written by the engine itself when it gave the store its epoch.
        settings.remove(Ids::SETTING);
        let transfers: BTreeMap<_, _> = opened.transfers.iter().map(|t| (t.id.clone(), t.clone())).collect();
        let live: Vec<u64> = snapshot.list(usize::MAX, |_| true).expect("lists").iter().map(|m| m.id.0).collect();
        let mut expected: Vec<_> = self.messages.values().filter(|m| m.state != MessageState::Done).collect();
        expected.sort_unstable_by_key(|m| (std::cmp::Reverse(m.precedence), m.accepted, m.id));
        let Health { depth, .. } = engine.health();
        differs("damaged", opened.damaged.is_empty())
            .or_else(|| differs("links", links == self.links))
            .or_else(|| differs("settings", settings == self.settings))
            .or_else(|| differs("transfers", transfers == self.transfers))
            .or_else(|| differs("next message", opened.next_message == self.next_message))
            .or_else(|| differs("next body", opened.next_body == self.next_body))
            .or_else(|| differs("list", live == expected.iter().map(|m| m.id.0).collect::<Vec<_>>()))
            .or_else(|| differs("depth", depth == self.depth()))
            .or_else(|| {
                (0..self.next_message + 3).find_map(|id| {
                    let found = snapshot.load(MessageId(id)).expect("loads").map(|m| *m);
                    let track = snapshot.track(MessageId(id)).expect("tracks");
                    differs(&format!("message {id}"), found.as_ref() == self.messages.get(&id)).or_else(|| {
                        differs(&format!("track {id}"), track == self.tracks.get(&id).cloned().unwrap_or_default())
                    })
                })
            })
            .or_else(|| {
                (0..self.next_body + 3).find_map(|body| {
                    let found = snapshot.read(BodyRef(body), 0, u64::MAX);
                    let same = found.as_ref().ok() == self.bodies.get(&body);
                    differs(&format!("body {body}: {:?}", found.map(|bytes| bytes.len())), same)
                })
            })
    }
}

/// Random work. Ids come from the model, as a switch takes them from what the store returned at opening.
pub struct Work {
    pub chance: Stream,
    pub now: i64,
}

const OWNER: &str = "node-a";

impl Work {
    pub fn new(seed: u64) -> Self {
        Self { chance: Stream::new(seed, "work", 0), now: 1_000_000 }
    }

    /// Up to eight calls that a switch might have waiting at once; `model` is what the store holds before them.
    pub fn calls(&mut self, model: &Model) -> Vec<StoreCall> {
        let mut model = model.clone();
        let mut calls = Vec::new();
        for _ in 0..=self.chance.below(8) {
            let call = self.call(&model);
            model.execute(&call);
            calls.push(call);
        }
        calls
    }

    fn call(&mut self, model: &Model) -> StoreCall {
        self.now += 1000;
        let (some, any) = (self.pick(model), MessageId(self.chance.below(model.next_message + 2)));
        match (self.chance.below(12), some) {
            (0..=3, _) => StoreCall::Commit(self.accept(model)),
            (4, Some(message)) => StoreCall::Commit(self.outcome(message)),
            (5, Some(message)) => StoreCall::Commit(self.freeze(model, message)),
            (6, Some(message)) => StoreCall::Commit(self.forget(message)),
            (7, Some(_)) => self.claim(),
            (8, Some(message)) => {
                let body = message.recipients.first().map_or(BodyRef(0), |r| r.body);
                StoreCall::Read(body, self.chance.below(9000), self.chance.below(9000))
            }
            (9, _) => StoreCall::Load(any),
            _ => StoreCall::Commit(self.report()),
        }
    }

    fn pick(&mut self, model: &Model) -> Option<MessageRecord> {
        let n = self.chance.below(model.messages.len() as u64) as usize;
        model.messages.values().nth(n).cloned()
    }

    pub fn accept(&mut self, model: &Model) -> Batch {
        let (id, body) = (MessageId(model.next_message), BodyRef(model.next_body));
        let mut bytes = vec![0; self.chance.below(12_000) as usize];
        self.chance.fill(&mut bytes);
        let transfer = TransferId {
            origin: "far".into(),
            epoch: 7,
            // Sometimes one that was seen: then nothing of the batch may stay.
            counter: self.chance.below(3 * model.next_message + 20) as u32,
        };
        let record = message(id, body, &bytes, Wall(self.now), &mut self.chance, transfer.clone());
        Batch {
            conditions: vec![Condition::SeenAbsent(SeenKey::Transfer(transfer.clone()))],
            changes: vec![
                Change::Body(body, bytes.into()),
                Change::Message(Box::new(record)),
                Change::Seen(SeenKey::Transfer(transfer), Wall(self.now + 1_000_000)),
                Change::Track(id, line(self.now, "accepted")),
            ],
        }
    }

    fn outcome(&mut self, mut record: MessageRecord) -> Batch {
        let n = self.chance.below(record.recipients.len() as u64) as usize;
        let at = Wall(self.now);
        if let Some(recipient) = record.recipients.get_mut(n) {
            recipient.attempts += 1;
            recipient.state = match self.chance.below(4) {
                0 => RecipientState::Due { next_at: Wall(self.now + 5000) },
                1 => RecipientState::Held { why: "operator".into() },
                _ => RecipientState::Final { outcome: Outcome::Unconfirmed, at },
            };
        }
        if record.recipients.iter().all(|r| r.state.is_final()) {
            record.state = MessageState::Done;
        }
        let conditions = match self.chance.below(3) {
            0 => vec![],
            1 => vec![Condition::LeaseMine { id: record.id, owner: OWNER.into() }],
            _ => vec![Condition::LeaseMine { id: record.id, owner: "node-b".into() }],
        };
        let track = Change::Track(record.id, line(self.now, "outcome"));
        record.lease = record.lease.filter(|_| self.chance.chance(0.5));
        Batch { conditions, changes: vec![Change::Message(Box::new(record)), track] }
    }

    fn freeze(&mut self, model: &Model, record: MessageRecord) -> Batch {
        let payload = BodyRef(model.next_body);
        let mut bytes = vec![0; 1 + self.chance.below(5000) as usize];
        self.chance.fill(&mut bytes);
        let id = TransferId { origin: "here".into(), epoch: 9, counter: self.chance.below(50) as u32 };
        let old = model.transfers.get(&id).map(|t| Change::DropBody(t.payload));
        let transfer = TransferRecord {
            id,
            bearer: BearerId::from("hf"),
            message: record.id,
            recipients: vec![0],
            hop: Hop::Peer("far".into()),
            payload,
            payload_bytes: bytes.len() as u32,
            precedence: record.precedence,
            lead: None,
            cut: Cut::Narrow,
            reliance: Reliance::default(),
        };
        let changes = [Change::Body(payload, bytes.into()), Change::Transfer(Box::new(transfer))];
        Batch { conditions: vec![], changes: changes.into_iter().chain(old).collect() }
    }

    fn forget(&mut self, record: MessageRecord) -> Batch {
        let mut changes: Vec<Change> = record.recipients.iter().map(|r| Change::DropBody(r.body)).collect();
        changes.push(Change::DropMessage(record.id));
        changes.push(Change::Track(record.id, line(self.now, "dropped")));
        Batch { conditions: vec![], changes }
    }

    fn report(&mut self) -> Batch {
        let mut changes = Vec::new();
        for _ in 0..=self.chance.below(4) {
            let key = format!("hf\0shard/{}", self.chance.below(40)).into_bytes();
            let mut value = vec![0; self.chance.below(400) as usize];
            self.chance.fill(&mut value);
            changes.push(Change::Link(key, self.chance.chance(0.8).then_some(value)));
        }
        let name = format!("counter/{}", self.chance.below(4));
        changes.push(Change::Setting(name, self.chance.chance(0.9).then(|| self.now.to_le_bytes().to_vec())));
        Batch { conditions: vec![], changes }
    }

    fn claim(&mut self) -> StoreCall {
        let owner = if self.chance.chance(0.7) { OWNER } else { "node-b" };
        let (now, beyond) = (Wall(self.now), Wall(self.now + 20_000));
        let mut some = |most| (0..self.chance.below(4)).map(|_| MessageId(self.chance.below(most))).collect();
        match some(20) {
            except if self.now % 5 == 0 => {
                return StoreCall::Look { owner: owner.into(), now, beyond, after: None, limit: usize::MAX, except };
            }
            ids if self.now % 5 == 1 => {
                return StoreCall::Take { owner: owner.into(), now, beyond, until: Wall(self.now + 4000), ids };
            }
            _ => {}
        }
        StoreCall::Claim {
            owner: owner.into(),
            now: Wall(self.now),
            beyond: Wall(self.now + 20_000),
            until: Wall(self.now + self.chance.below(8000) as i64),
            classes: Precedence::DESCENDING.into_iter().filter(|_| self.chance.chance(0.7)).collect(),
            limit: self.chance.below(5) as usize,
            except: (0..self.chance.below(4)).map(|_| MessageId(self.chance.below(20))).collect(),
        }
    }
}

/// A message with one or two recipients.
pub fn message(
    id: MessageId,
    body: BodyRef,
    bytes: &[u8],
    at: Wall,
    chance: &mut Stream,
    transfer: TransferId,
) -> MessageRecord {
    let recipients: Vec<Recipient> = (0..=chance.below(2))
        .map(|n| Recipient::plain(Mailbox::new(format!("user{n}.{}@ship.example", chance.below(1000)))))
        .collect();
    let rank = chance.below(6) as u8;
    let state = match chance.below(8) {
        0 => MessageState::Checking,
        1 => MessageState::Held,
        _ => MessageState::Queued,
    };
    let record = RecipientRecord {
        state: RecipientState::Due { next_at: at },
        body,
        attempts: 0,
        last_error: None,
        delay_reported: false,
    };
    MessageRecord {
        id,
        parent: None,
        precedence: Precedence::from_rank(rank).unwrap_or(Precedence::Routine),
        source: Source::Bearer { peer: "far".into(), transfer, hops: Vec::new() },
        state,
        recipients: recipients.iter().map(|_| record.clone()).collect(),
        message_id: Some(format!("<{}.{}@ship.example>", id.0, chance.below(1 << 30))),
        size_bytes: bytes.len() as u64,
        accepted: at,
        lease: None,
        reduced: Vec::new(),
        release: None,
        tracking: None,
        expanded: false,
        envelope: Envelope {
            envid: chance.chance(0.3).then(|| format!("env{}", id.0)),
            ..Envelope::plain(
                Some(Mailbox::new("bridge@ship.example")),
                recipients,
                at.plus(std::time::Duration::from_secs(5 * 86_400)),
            )
        },
    }
}

fn line(at: i64, event: &str) -> TrackEntry {
    TrackEntry {
        at: Wall(at),
        event: event.into(),
        recipient: None,
        bearer: None,
        bytes_on_air: 12,
        air_s: 0.5,
        detail: None,
    }
}
