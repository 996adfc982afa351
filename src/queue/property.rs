//! Random operation sequences over acceptance, outcomes and scheduling, against a small reference model.
//!
//! A [`Shelf`] stands for the store and checks every batch; a [`World`] plays the switch: it submits, schedules, delivers, loses,
//! confirms late, holds, cancels, lets time pass, fails commits, and restarts. Each seed is one run; `ALDIS_QUEUE_SEEDS`
//! asks for more of them.

use std::collections::{BTreeMap, BTreeSet};

use super::accept::{Authority, Decision, Policy, accept};
use super::dsn::{Report, Reporter, build};
use super::ids::Ids;
use super::outcome::{self, Applied, Context, Event};
use super::record::{MessageRecord, MessageState, RecipientRecord, TransferRecord};
use super::retry::{Table, mix};
use super::schedule::{Active, Allowance, Job, Offered};
use super::store::{Batch, Change, Condition, Opened, SeenKey};
use crate::mail::{
    BodyKind, BodyRef, ByMode, Cut, DeliverBy, Envelope, Hop, Mailbox, MessageId, MtPriority, Notify, Outcome,
    Precedence, Recipient, RecipientState, Reliance, Source, Status, Submission, TransferId,
};
use crate::time::{Duration, Instant, Now, Wall};

const STEPS: usize = 6000;
/// Messages that wait in memory at most.
const ROOM: usize = 24;

#[test]
fn random_histories_keep_every_promise() {
    let seeds = std::env::var("ALDIS_QUEUE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40_u64);
    let mut totals = [0_u64; 8];
    for seed in 0..seeds {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        for (sum, n) in totals.iter_mut().zip(world.tally) {
            *sum += n;
        }
    }
    let [accepted, restarts, late, duplicates, evicted, failed_commits, reports, unconfirmed] = totals;
    // A run that no longer reaches the hard cases proves nothing.
    for (what, n) in [
        ("accepted", accepted),
        ("restarts", restarts),
        ("late confirmations", late),
        ("duplicates", duplicates),
        ("evicted", evicted),
        ("failed commits", failed_commits),
        ("reports", reports),
        ("unconfirmed", unconfirmed),
    ] {
        assert!(n > seeds, "only {n} {what} in {seeds} runs");
    }
}

#[test]
fn one_seed_gives_one_history() {
    let run = || {
        let mut world = World::new(7);
        for _ in 0..STEPS {
            world.step();
        }
        (world.shelf.messages, world.tally)
    };
    assert_eq!(run(), run());
}

/// The store in memory, suspicious of every batch.
#[derive(Default)]
struct Shelf {
    messages: BTreeMap<MessageId, MessageRecord>,
    bodies: BTreeMap<BodyRef, usize>,
    seen: BTreeMap<TransferId, Wall>,
    transfers: BTreeMap<TransferId, TransferRecord>,
    settings: BTreeMap<String, Vec<u8>>,
    ever_messages: BTreeSet<MessageId>,
    ever_bodies: BTreeSet<BodyRef>,
    ever_transfers: BTreeSet<TransferId>,
    /// Final outcomes per recipient, in order of appearance.
    finals: BTreeMap<(MessageId, usize), Vec<Outcome>>,
}

impl Shelf {
    fn commit(&mut self, now: Now, batch: &Batch) -> bool {
        for condition in &batch.conditions {
            let Condition::SeenAbsent(SeenKey::Transfer(id)) = condition else { panic!("no lease is asked for") };
            if self.seen.get(id).is_some_and(|until| !now.set || *until > now.wall) {
                return false;
            }
        }
        let mut touched = BTreeSet::new();
        for change in &batch.changes {
            match change {
                Change::Body(body, bytes) => {
                    assert!(self.ever_bodies.insert(*body), "{body:?} used twice");
                    self.bodies.insert(*body, bytes.len());
                }
                Change::DropBody(body) => {
                    self.bodies.remove(body);
                }
                Change::Message(record) => {
                    touched.insert(record.id);
                    self.message(record);
                }
                Change::DropMessage(id) => {
                    let gone = self.messages.remove(id).expect("dropped once");
                    assert_eq!(gone.state, MessageState::Done);
                }
                Change::Seen(SeenKey::Transfer(id), until) => {
                    self.seen.insert(id.clone(), *until);
                }
                Change::Transfer(transfer) => {
                    assert!(self.ever_transfers.insert(transfer.id.clone()), "{} used twice", transfer.id);
                    self.transfers.insert(transfer.id.clone(), (**transfer).clone());
                }
                Change::DropTransfer(id) => {
                    self.transfers.remove(id).expect("dropped once");
                }
                Change::Setting(name, value) => {
                    self.settings.insert(name.clone(), value.clone().expect("a value"));
                }
                Change::Link(..) | Change::Epoch(_) | Change::Track(..) | Change::Purge { .. } => {}
            }
        }
        for id in touched {
            self.check(id);
        }
        true
    }

    fn message(&mut self, record: &MessageRecord) {
        match self.messages.get(&record.id) {
            None => assert!(self.ever_messages.insert(record.id), "{} used twice", record.id),
            Some(old) => {
                for (was, is) in old.recipients.iter().zip(&record.recipients) {
                    let legal = match (&was.state, &is.state) {
                        (
                            RecipientState::Final { outcome: Outcome::Unconfirmed, .. },
                            RecipientState::Final { outcome, .. },
                        ) => {
                            matches!(outcome, Outcome::Delivered { .. } | Outcome::Unconfirmed)
                        }
                        (RecipientState::Final { outcome: a, .. }, RecipientState::Final { outcome: b, .. }) => a == b,
                        (RecipientState::Final { .. }, _) => false,
                        (RecipientState::Held { .. }, RecipientState::OnAir { .. })
                        | (RecipientState::OnAir { .. }, RecipientState::Held { .. }) => false,
                        _ => true,
                    };
                    assert!(legal, "{}: {:?} -> {:?}", record.id, was.state, is.state);
                }
            }
        }
        for (i, r) in record.recipients.iter().enumerate() {
            if let RecipientState::Final { outcome, .. } = &r.state {
                let finals = self.finals.entry((record.id, i)).or_default();
                if finals.last() != Some(outcome) {
                    finals.push(outcome.clone());
                }
            }
        }
        self.messages.insert(record.id, record.clone());
    }

    /// The published state table, and that no reference dangles.
    fn check(&self, id: MessageId) {
        let Some(record) = self.messages.get(&id) else { return };
        let any = |f: fn(&RecipientState) -> bool| record.recipients.iter().any(|r| f(&r.state));
        let open = any(|s| matches!(s, RecipientState::Due { .. } | RecipientState::OnAir { .. }));
        let held = any(|s| matches!(s, RecipientState::Held { .. }));
        let expected = match (open, held) {
            (true, _) => MessageState::Queued,
            (false, true) => MessageState::Held,
            (false, false) => MessageState::Done,
        };
        assert_eq!(record.state, expected, "{id}");
        assert_eq!(record.recipients.len(), record.envelope.recipients.len());
        for (i, r) in (0_u32..).zip(&record.recipients) {
            if !r.state.is_final() {
                assert!(self.bodies.contains_key(&r.body), "{id} lost its body");
            }
            if matches!(r.state, RecipientState::OnAir { .. }) {
                let carried = self.transfers.values().filter(|t| t.message == id && t.recipients.contains(&i)).count();
                assert_eq!(carried, 1, "{id}/{i} is on the air without its transfer");
            }
        }
    }
}

struct World {
    state: u64,
    now: Now,
    policy: Policy,
    shelf: Shelf,
    ids: Ids,
    active: Active,
    sessions: Vec<Job>,
    heard: u32,
    /// accepted, restarts, late, duplicates, evicted, failed commits, reports, unconfirmed
    tally: [u64; 8],
}

impl World {
    fn new(seed: u64) -> Self {
        let policy = Policy {
            retry: Table::shipped(),
            default: Precedence::Routine,
            mmhs: true,
            keep_done: Duration::from_secs(7 * 86_400),
        };
        let set = !seed.is_multiple_of(5);
        let wall = if set { Wall::from_seconds(1_795_431_600) } else { Wall::from_seconds(100) };
        Self {
            state: mix(seed),
            now: Now { at: Instant::ZERO, wall, set },
            active: Active::new(ROOM, policy.clone()),
            policy,
            shelf: Shelf::default(),
            ids: Ids::open(&Opened { epoch: 9, ..Opened::default() }),
            sessions: Vec::new(),
            heard: 0,
            tally: [0; 8],
        }
    }

    fn roll(&mut self, n: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state) % n.max(1)
    }

    fn step(&mut self) {
        match self.roll(100) {
            0..=13 => self.submit(),
            14..=19 => self.hear(),
            20..=44 => self.start(),
            45..=62 => self.end_session(),
            63..=74 => self.air(),
            75..=78 => self.operate(),
            79..=80 => self.minimize(),
            81..=93 => self.pass_time(),
            94..=96 => self.claim(),
            97 => self.nonsense(),
            98 => self.late(),
            _ => {
                if self.roll(4) == 0 {
                    self.restart();
                }
            }
        }
        self.wakes();
    }

    /// A commit that may fail; `false` means nothing changed.
    fn commit(&mut self, batch: &Batch) -> bool {
        if self.roll(40) == 0 {
            self.tally[5] += 1;
            return false;
        }
        let done = self.shelf.commit(self.now, batch);
        if done && self.roll(8) > 0 {
            self.ids.committed(batch); // forgetting to say so must be harmless
        }
        done
    }

    /// Commits what an outcome changed with the report it causes, and tells the scheduler.
    fn apply(&mut self, applied: Applied, more: Vec<Change>) -> bool {
        let mut batch = Batch { conditions: vec![], changes: applied.changes };
        batch.changes.extend(more);
        let report = applied.report.map(|r| self.report(r));
        if let Some(sub) = &report {
            batch.append(sub.batch.clone());
        }
        if !self.commit(&batch) {
            return false;
        }
        self.active.update(self.now, applied.record);
        if let Some(sub) = report {
            self.tally[6] += 1;
            self.enter(sub.record);
        }
        true
    }

    fn report(&mut self, report: Report) -> super::Accepted {
        let reporter = Reporter {
            hostname: "ship.example".into(),
            postmaster: Mailbox::new("postmaster@ship.example"),
            full_bytes: 1000,
        };
        let submission = build(self.now, &reporter, &report, b"Subject: x\r\n\r\n");
        assert_eq!(submission.envelope.from, None);
        let level = report.precedence;
        let authority = Authority { trusted: true, ceiling: Precedence::Override };
        let decisions = vec![Decision::Due { over_air: self.roll(2) == 0 }];
        let accepted = accept(self.now, &self.policy, authority, &mut self.ids, submission, decisions).expect("whole");
        assert_eq!(accepted.record.precedence, level, "a report has the priority of its subject");
        assert_eq!(accepted.report, None, "no report about a report");
        accepted
    }

    fn enter(&mut self, record: MessageRecord) {
        if record.state != MessageState::Queued {
            return;
        }
        let hops = hops(&record);
        let level = record.precedence;
        let (retry, wall) = (self.policy.retry.clone(), self.now.wall);
        let due = |r: &RecipientRecord| match &r.state {
            RecipientState::Due { next_at } => retry.is_due(*next_at, wall),
            RecipientState::OnAir { .. } | RecipientState::Held { .. } | RecipientState::Final { .. } => false,
        };
        let to_now = record.recipients.iter().zip(&hops).filter(|(r, _)| due(r));
        let wanted: Vec<Option<Hop>> = to_now.map(|(_, hop)| hop.clone()).collect();
        match self.active.offer(self.now, record, hops) {
            Offered::Taken => {}
            Offered::TakenFor(out) => {
                self.tally[4] += 1;
                // What cannot go yet makes room for what can; the largest crowd before a hop that is not ours does, for lower mail too where it
                // is more than a quarter of the set; and else the lowest, for what is higher.
                let rests = !wanted.is_empty() && !out.recipients.iter().any(due) && out.precedence <= level;
                let kept: Vec<MessageId> = self.active.ids().into_iter().filter(|id| !self.any_flight(*id)).collect();
                let ready = |record: &MessageRecord| -> BTreeSet<Hop> {
                    let to = record.recipients.iter().zip(self::hops(record)).filter(|(r, _)| due(r));
                    to.filter_map(|(_, hop)| hop).collect()
                };
                let before = |hop: &Hop| {
                    1 + self
                        .active
                        .ids()
                        .iter()
                        .filter_map(|id| self.active.record(*id))
                        .filter(|r| ready(r).contains(hop))
                        .count()
                };
                let crowds = ready(&out).into_iter().filter(|hop| !wanted.contains(&Some(hop.clone())));
                let crowd = crowds.map(|hop| before(&hop)).max();
                let crowded = crowd.is_some_and(|size| out.precedence <= level || size * 4 > ROOM);
                let lowest = out.precedence < level && kept.into_iter().all(|id| self.level(id) >= out.precedence);
                assert!(rests || crowded || lowest, "{out:?} makes room for {level} to {wanted:?}");
                assert_eq!(self.shelf.messages.get(&out.id), Some(&*out), "what leaves is what is stored");
            }
            Offered::Refused(_) => assert_eq!(self.active.room(), 0),
        }
    }

    fn envelope(&mut self) -> Envelope {
        let n = 1 + self.roll(4);
        let recipients = (0..n)
            .map(|i| {
                let flags = self.roll(16);
                Recipient {
                    address: Mailbox::new(format!("u{i}@d{}.example", self.roll(5))),
                    notify: (flags & 8 != 0).then_some(Notify {
                        success: flags & 1 != 0,
                        failure: flags & 2 != 0,
                        delay: flags & 4 != 0,
                    }),
                    orcpt: None,
                }
            })
            .collect();
        let deliver_by = (self.roll(6) == 0).then(|| DeliverBy {
            deadline: self.now.wall.plus(Duration::from_secs(600 + self.roll(100_000))),
            mode: if self.roll(2) == 0 { ByMode::Return } else { ByMode::Notify },
            trace: self.roll(2) == 0,
        });
        Envelope {
            from: (self.roll(8) > 0).then(|| Mailbox::new("ops@ship.example")),
            recipients,
            envid: None,
            ret: None,
            mt_priority: (self.roll(3) > 0).then(|| MtPriority::new(self.roll(19) as i8 - 9).expect("in range")),
            body: BodyKind::SevenBit,
            smtputf8: false,
            require_tls: false,
            deliver_by,
            expires: Wall::NEVER,
            auth: None,
        }
    }

    fn submit(&mut self) {
        let envelope = self.envelope();
        let source = Source::Smtp { listener: "relay".into(), address: None, user: None };
        self.take(Submission {
            envelope,
            precedence: Precedence::Deferred,
            source,
            body: b"Subject: x\r\n\r\n"[..].into(),
        });
    }

    fn hear(&mut self) {
        let fresh = self.heard == 0 || self.roll(3) > 0;
        self.heard += u32::from(fresh);
        let counter = if fresh { self.heard } else { 1 + self.roll(u64::from(self.heard)) as u32 };
        let transfer = TransferId { origin: "shore".into(), epoch: 1, counter };
        let known = self.shelf.seen.get(&transfer).is_some_and(|until| !self.now.set || *until > self.now.wall);
        let mut envelope = self.envelope();
        envelope.expires = self.now.wall.plus(Duration::from_secs(3 * 86_400));
        let precedence = Precedence::DESCENDING[self.roll(6) as usize];
        let source = Source::Bearer { peer: "shore".into(), transfer, hops: Vec::new() };
        let taken = self.take(Submission { envelope, precedence, source, body: b"Subject: y\r\n\r\n"[..].into() });
        if known {
            assert!(!taken, "accepted twice");
            self.tally[3] += 1;
        }
    }

    fn take(&mut self, submission: Submission) -> bool {
        let decisions = submission
            .envelope
            .recipients
            .iter()
            .map(|_| match self.roll(20) {
                0 => Decision::Fail { status: Status(5, 1, 2), text: "no route".into() },
                1 => Decision::Held { why: "no route".into() },
                n => Decision::Due { over_air: n % 2 == 0 },
            })
            .collect();
        let ceiling = Precedence::DESCENDING[self.roll(6) as usize];
        let smtp = matches!(submission.source, Source::Smtp { .. });
        let authority = Authority { trusted: true, ceiling };
        let mut a = accept(self.now, &self.policy, authority, &mut self.ids, submission, decisions)
            .expect("a whole submission");
        assert!(!smtp || a.record.precedence <= ceiling);
        let report = a.report.take().map(|r| self.report(r));
        if let Some(sub) = &report {
            a.batch.append(sub.batch.clone());
        }
        if !self.commit(&a.batch) {
            return false;
        }
        self.tally[0] += 1;
        self.enter(a.record);
        if let Some(sub) = report {
            self.tally[6] += 1;
            self.enter(sub.record);
        }
        true
    }

    fn start(&mut self) {
        let closed = self.roll(6);
        let lowest = if self.roll(5) == 0 { Precedence::Immediate } else { Precedence::Deferred };
        let rule = |hop: &Hop| (*hop != hop_of(closed)).then_some(Allowance { jobs: 3, lowest, recipients: 100 });
        let expected = self.best(&rule);
        let job = self.active.next(self.now, rule);
        match (&job, expected) {
            (None, None) => return,
            (Some(job), Some((key, ids))) => {
                let record = self.active.record(job.message).expect("in the set");
                assert_eq!(rank(record), key, "something higher was ready");
                assert!(ids.contains(&job.message));
                let together = matches!(job.hop, Hop::Peer(_));
                let all: Vec<u32> = (0..)
                    .zip(record.recipients.iter().zip(hops(record)))
                    .filter(|(_, (_, hop))| hop.as_ref() == Some(&job.hop))
                    .filter(|(_, (r, _))| {
                        matches!(r.state, RecipientState::Due { next_at } if together || next_at <= self.now.wall)
                    })
                    .map(|(i, _)| i)
                    .collect();
                assert_eq!(job.recipients, all, "one copy for all who are due, and for nobody else");
            }
            (job, expected) => panic!("{job:?} but expected {expected:?}"),
        }
        let Some(job) = job else { return };
        if matches!(job.hop, Hop::Peer(_)) { self.freeze(&job) } else { self.sessions.push(job) }
    }

    /// The reference for `next`: look at everything.
    fn best(&self, rule: &impl Fn(&Hop) -> Option<Allowance>) -> Option<(Key, Vec<MessageId>)> {
        let mut best: Option<(Key, Vec<MessageId>)> = None;
        for id in self.active.ids() {
            let record = self.active.record(id).expect("in the set");
            let stored = self.shelf.messages.get(&id).expect("stored");
            assert_eq!(record, stored, "the scheduler works on what is durable");
            for (r, hop) in record.recipients.iter().zip(hops(record)) {
                let (Some(hop), RecipientState::Due { next_at }) = (hop, &r.state) else { continue };
                let Some(room) = rule(&hop) else { continue };
                if *next_at > self.now.wall || record.precedence < room.lowest || self.flying(id, &hop) {
                    continue;
                }
                let level = record.precedence;
                let ahead = self.jobs_on(&hop).into_iter().filter(|m| self.level(*m) >= level).count();
                if ahead >= room.jobs {
                    continue;
                }
                let key = rank(record);
                match &mut best {
                    Some((k, ids)) if *k == key => ids.push(id),
                    Some((k, _)) if *k < key => {}
                    _ => best = Some((key, vec![id])),
                }
            }
        }
        best
    }

    fn level(&self, id: MessageId) -> Precedence {
        self.active.record(id).map_or(Precedence::Deferred, |r| r.precedence)
    }

    fn jobs_on(&self, hop: &Hop) -> BTreeSet<MessageId> {
        let sessions = self.sessions.iter().filter(|j| j.hop == *hop).map(|j| j.message);
        let air = self.shelf.transfers.values().filter(|t| t.hop == *hop && self.on_air(t)).map(|t| t.message);
        sessions.chain(air).collect()
    }

    fn flying(&self, id: MessageId, hop: &Hop) -> bool {
        self.jobs_on(hop).contains(&id)
    }

    fn any_flight(&self, id: MessageId) -> bool {
        (0..5).any(|n| self.flying(id, &hop_of(n)))
    }

    fn on_air(&self, transfer: &TransferRecord) -> bool {
        self.shelf.messages.get(&transfer.message).is_some_and(|m| {
            transfer.recipients.iter().any(|i| matches!(m.recipients[*i as usize].state, RecipientState::OnAir { .. }))
        })
    }

    fn freeze(&mut self, job: &Job) {
        let record = self.shelf.messages[&job.message].clone();
        let counter = self.ids.transfer().expect("counters left");
        let payload = self.ids.body();
        let transfer = TransferRecord {
            id: TransferId { origin: "ship".into(), epoch: 9, counter },
            bearer: "hf1".into(),
            message: job.message,
            recipients: job.recipients.clone(),
            hop: job.hop.clone(),
            payload,
            payload_bytes: 3,
            precedence: job.precedence,
            lead: None,
            cut: Cut::Narrow,
            reliance: Reliance::default(),
        };
        let events: Vec<_> =
            job.recipients.iter().map(|i| (*i, Event::Frozen { bearer: "hf1".into(), reduced: None })).collect();
        let applied = outcome::settle(self.now, &Context::plain(&self.policy), &record, &events).expect("legal");
        let mut more = vec![Change::Body(payload, b"abc"[..].into()), Change::Transfer(Box::new(transfer))];
        more.extend(self.ids.cover());
        if !self.apply(applied, more) {
            let out = self.active.finish(self.now, job.message, &job.hop, record);
            self.left(out);
        }
    }

    fn left(&mut self, out: Option<Box<MessageRecord>>) {
        if let Some(out) = out {
            self.tally[4] += 1;
            assert_eq!(self.shelf.messages.get(&out.id), Some(&*out));
        }
    }

    fn end_session(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let at = self.roll(self.sessions.len() as u64) as usize;
        let job = self.sessions.swap_remove(at);
        let events: Vec<_> = job
            .recipients
            .iter()
            .map(|i| {
                let event = match self.roll(10) {
                    0..=5 => Event::Delivered {
                        by: "mx.example".into(),
                        dsn_passed_on: self.roll(2) == 0,
                        time_passed_on: self.roll(2) == 0,
                        is_final: job.hop == Hop::Local,
                    },
                    6..=8 => Event::Deferred { diagnostic: "451 later".into() },
                    _ => Event::Failed { status: Status(5, 1, 1), remote: None, diagnostic: "550 no".into() },
                };
                (*i, event)
            })
            .collect();
        let record = self.shelf.messages[&job.message].clone();
        let applied = {
            let context = self.context(job.message, 0);
            outcome::absorb(self.now, &context, &record, &events)
        };
        self.apply(applied, vec![]);
        let record = self.shelf.messages[&job.message].clone();
        let out = self.active.finish(self.now, job.message, &job.hop, record);
        self.left(out);
    }

    fn context(&self, message: MessageId, ending: usize) -> Context<'_> {
        let live = self.shelf.transfers.values().filter(|t| t.message == message).count();
        Context { live_transfers: live - ending, ..Context::plain(&self.policy) }
    }

    fn some_transfer(&mut self, on_air: bool) -> Option<TransferRecord> {
        let all: Vec<_> = self.shelf.transfers.values().filter(|t| self.on_air(t) == on_air).cloned().collect();
        (!all.is_empty()).then(|| all[self.roll(all.len() as u64) as usize].clone())
    }

    fn air(&mut self) {
        let Some(transfer) = self.some_transfer(true) else { return };
        let what = self.roll(12);
        let event = match what {
            0..=7 => {
                Event::Delivered { by: "shore".into(), dsn_passed_on: true, time_passed_on: true, is_final: false }
            }
            8 => Event::Deferred { diagnostic: "no room at the peer".into() },
            9 => Event::Withdrawn { why: "other key".into() },
            _ => {
                Event::Failed { status: Status(5, 3, 4), remote: Some("shore".into()), diagnostic: "too large".into() }
            }
        };
        self.end_transfer(&transfer, &event);
    }

    fn end_transfer(&mut self, transfer: &TransferRecord, event: &Event) {
        let record = self.shelf.messages[&transfer.message].clone();
        let events: Vec<_> = transfer.recipients.iter().map(|i| (*i, event.clone())).collect();
        let applied = {
            let context = self.context(transfer.message, 1);
            outcome::absorb(self.now, &context, &record, &events)
        };
        let mut more = vec![Change::DropTransfer(transfer.id.clone()), Change::DropBody(transfer.payload)];
        if record.state == MessageState::Done && self.context(transfer.message, 1).live_transfers == 0 {
            more.extend(outcome::unneeded_bodies(&record));
        }
        let was_flying = self.on_air(transfer);
        if self.apply(applied, more) && was_flying {
            self.landed(transfer.message, &transfer.hop);
        }
    }

    fn landed(&mut self, message: MessageId, hop: &Hop) {
        let record = self.shelf.messages[&message].clone();
        let out = self.active.finish(self.now, message, hop, record);
        self.left(out);
    }

    /// An acknowledgement after the message was given up, or the end of waiting for one.
    fn late(&mut self) {
        let Some(transfer) = self.some_transfer(false) else { return };
        let record = self.shelf.messages[&transfer.message].clone();
        let unconfirmed = transfer.recipients.iter().any(|i| {
            matches!(record.recipients[*i as usize].state, RecipientState::Final { outcome: Outcome::Unconfirmed, .. })
        });
        if unconfirmed {
            self.tally[2] += 1;
        }
        self.end_transfer(
            &transfer,
            &Event::Delivered { by: "shore".into(), dsn_passed_on: true, time_passed_on: true, is_final: false },
        );
        if unconfirmed
            && let Some(after) = self.shelf.messages.get(&transfer.message)
            && !self.shelf.transfers.contains_key(&transfer.id)
        {
            for i in &transfer.recipients {
                assert!(
                    !matches!(
                        after.recipients[*i as usize].state,
                        RecipientState::Final { outcome: Outcome::Unconfirmed, .. }
                    ),
                    "a late acknowledgement was thrown away"
                );
            }
        }
    }

    fn some_message(&mut self) -> Option<MessageRecord> {
        let n = self.shelf.messages.len() as u64;
        if n == 0 {
            return None;
        }
        let at = self.roll(n.min(40)) as usize;
        self.shelf.messages.values().rev().nth(at).cloned()
    }

    fn operate(&mut self) {
        let Some(record) = self.some_message() else { return };
        let applied = match self.roll(6) {
            0 => outcome::hold(self.now, &self.policy, &record, "the captain asks"),
            1 | 2 => outcome::release(self.now, &self.policy, &record),
            3 | 4 => {
                let level = Precedence::DESCENDING[self.roll(6) as usize];
                outcome::expedite(self.now, &self.policy, &record, level)
            }
            _ => return self.cancel(&record),
        };
        let Some(applied) = applied else { return };
        if self.apply(applied, vec![]) {
            self.offer_stored(record.id);
        }
    }

    fn cancel(&mut self, record: &MessageRecord) {
        let transfers: Vec<_> =
            self.shelf.transfers.values().filter(|t| t.message == record.id && self.on_air(t)).cloned().collect();
        let applied = outcome::cancel(self.now, &self.context(record.id, transfers.len()), record);
        let Some(applied) = applied else { return };
        let more =
            transfers.iter().flat_map(|t| [Change::DropTransfer(t.id.clone()), Change::DropBody(t.payload)]).collect();
        if self.apply(applied, more) {
            for t in transfers {
                self.landed(t.message, &t.hop);
            }
        }
    }

    fn minimize(&mut self) {
        let Some(record) = self.some_message() else { return };
        let hop = hop_of(self.roll(5));
        let concerned: Vec<u32> =
            (0..).zip(hops(&record)).filter(|(_, h)| h.as_ref() == Some(&hop)).map(|(i, _)| i).collect();
        let minimum = (self.roll(3) == 0).then_some(Precedence::Immediate);
        if let Some(applied) = outcome::minimize(self.now, &self.policy, &record, &concerned, minimum)
            && self.apply(applied, vec![])
        {
            self.offer_stored(record.id);
        }
    }

    fn offer_stored(&mut self, id: MessageId) {
        if self.active.record(id).is_none() {
            self.enter(self.shelf.messages[&id].clone());
        }
    }

    /// Events no table has must be refused without a trace.
    fn nonsense(&mut self) {
        let Some(record) = self.some_message() else { return };
        let index = self.roll(5) as u32;
        let event = match self.roll(4) {
            0 => Event::Released,
            1 => Event::Unconfirmed,
            2 => Event::Withdrawn { why: String::new() },
            _ => Event::Frozen { bearer: "hf1".into(), reduced: None },
        };
        let allowed = record.recipients.get(index as usize).is_some_and(|r| outcome::allows(&r.state, &event));
        let before = record.clone();
        let result = outcome::settle(self.now, &Context::plain(&self.policy), &record, &[(index, event)]);
        assert_eq!(result.is_ok(), allowed);
        assert_eq!(record, before);
    }

    fn pass_time(&mut self) {
        let seconds = match self.roll(40) {
            0 => 86_400 + self.roll(86_400),
            1..=6 => self.roll(7200),
            _ => self.roll(60),
        };
        self.now.at += Duration::from_secs(seconds);
        self.now.wall = self.now.wall.plus(Duration::from_secs(seconds));
        if !self.now.set && self.roll(400) == 0 {
            self.now = Now { wall: Wall::from_seconds(1_795_431_600), set: true, ..self.now };
            self.active.stepped(self.now);
        }
    }

    fn wakes(&mut self) {
        while let Some(id) = self.active.poll_wake(self.now) {
            let record = self.shelf.messages[&id].clone();
            let has_transfers = self.shelf.transfers.values().any(|t| t.message == id);
            let flights: Vec<_> =
                self.shelf.transfers.values().filter(|t| t.message == id && self.on_air(t)).cloned().collect();
            let applied = outcome::wake(self.now, &self.context(id, 0), &record, has_transfers);
            match applied {
                Some(applied) => {
                    let unconfirmed =
                        applied.changes.iter().any(|c| matches!(c, Change::Track(_, t) if t.event == "unconfirmed"));
                    if !self.apply(applied, vec![]) {
                        return self.active.update(self.now, record); // named again at the next look
                    }
                    self.tally[7] += u64::from(unconfirmed);
                    for t in flights {
                        if !self.on_air(&t) {
                            self.landed(t.message, &t.hop);
                        }
                    }
                }
                None => self.active.update(self.now, record),
            }
        }
    }

    /// What the store's claim does: due messages, highest first, into what room there is.
    fn claim(&mut self) {
        let mut due: Vec<_> = self
            .shelf
            .messages
            .values()
            .filter(|m| m.due().is_some_and(|at| at <= self.now.wall) && self.active.record(m.id).is_none())
            .map(|m| (rank(m), m.id))
            .collect();
        due.sort();
        due.truncate(self.active.room());
        for (_, id) in due {
            self.enter(self.shelf.messages[&id].clone());
        }
        // Held and evicted mail ages in the store.
        let old: Vec<_> = self
            .shelf
            .messages
            .values()
            .filter(|m| m.state != MessageState::Done && self.active.record(m.id).is_none())
            .filter(|m| outcome::next_wake(&self.policy, m).is_some_and(|at| at <= self.now.wall))
            .cloned()
            .collect();
        for record in old {
            if let Some(applied) = outcome::wake(self.now, &self.context(record.id, 0), &record, true) {
                self.apply(applied, vec![]);
            }
        }
    }

    fn restart(&mut self) {
        self.tally[1] += 1;
        self.sessions.clear();
        self.active = Active::new(ROOM, self.policy.clone());
        let above = |n: Option<u64>| n.map_or(0, |n| n + 1);
        self.ids = Ids::open(&Opened {
            epoch: 9,
            settings: self.shelf.settings.clone().into_iter().collect(),
            transfers: self.shelf.transfers.values().cloned().collect(),
            next_message: above(self.shelf.messages.keys().next_back().map(|m| m.0)),
            next_body: above(self.shelf.bodies.keys().next_back().map(|b| b.0)),
            ..Opened::default()
        });
        let on_air: BTreeSet<_> = self.shelf.transfers.values().filter(|t| self.on_air(t)).map(|t| t.message).collect();
        for id in on_air {
            self.enter(self.shelf.messages[&id].clone());
        }
        self.claim();
    }

    /// Faults end; all mail must reach its end, and the store must be empty after the keeping time.
    fn heal(&mut self) {
        if !self.now.set {
            self.now = Now { wall: Wall::from_seconds(1_795_431_600), set: true, ..self.now };
            self.active.stepped(self.now);
        }
        for round in 0.. {
            assert!(round < 100_000, "mail is stuck");
            let open: Vec<_> =
                self.shelf.messages.values().filter(|m| m.state != MessageState::Done).map(|m| m.id).collect();
            if open.is_empty() && self.shelf.transfers.is_empty() {
                break;
            }
            for id in open {
                let record = self.shelf.messages[&id].clone();
                if let Some(applied) = outcome::release(self.now, &self.policy, &record) {
                    self.apply(applied, vec![]);
                }
            }
            self.claim();
            for _ in 0..50 {
                self.start();
                self.end_session();
                self.air();
                self.late();
            }
            self.now.wall = self.now.wall.plus(Duration::from_secs(600));
            self.wakes();
        }
        for (key, finals) in &self.shelf.finals {
            let exactly_one = matches!(finals.as_slice(), [_] | [Outcome::Unconfirmed, Outcome::Delivered { .. }]);
            assert!(exactly_one, "{key:?} ended as {finals:?}");
        }
        for (id, record) in &self.shelf.messages {
            for i in 0..record.recipients.len() {
                assert!(self.shelf.finals.contains_key(&(*id, i)), "{id}/{i} has no outcome");
            }
        }
        assert!(self.shelf.bodies.is_empty(), "bodies nothing refers to: {:?}", self.shelf.bodies);
        assert!(self.active.is_empty() && self.active.next_due(self.now).is_none());
        self.now.wall = self.now.wall.plus(Duration::from_secs(8 * 86_400));
        for record in self.shelf.messages.clone().into_values() {
            let changes = outcome::purge(self.now, &self.policy, &record).expect("time to go");
            assert!(self.shelf.commit(self.now, &Batch { conditions: vec![], changes }));
        }
        assert!(self.shelf.messages.is_empty());
    }
}

type Key = (std::cmp::Reverse<Precedence>, Wall, Wall, MessageId);

fn rank(record: &MessageRecord) -> Key {
    let deadline = record.envelope.deliver_by.map_or(Wall::NEVER, |by| by.deadline);
    (std::cmp::Reverse(record.precedence), deadline, record.accepted, record.id)
}

fn hop_of(n: u64) -> Hop {
    match n {
        0 => Hop::Local,
        1 => Hop::Smtp("mx1.example:25".into()),
        2 => Hop::Peer("shore".into()),
        3 => Hop::Peer("sub".into()),
        _ => Hop::Smtp("mx2.example:25".into()),
    }
}

fn hops(record: &MessageRecord) -> Vec<Option<Hop>> {
    record
        .envelope
        .recipients
        .iter()
        .map(|r| {
            let n = r.address.domain().bytes().find(u8::is_ascii_digit).map_or(4, |b| u64::from(b - b'0'));
            Some(hop_of(n))
        })
        .collect()
}
