//! A whole node in virtual time: the switch, its store and its Maildirs on simulated disks, and everything around them that
//! `node/` does with threads and sockets.
//!
//! Work is done inline by the functions the real executor calls, and comes back at a small seeded delay: the writer one group after
//! another, everything else in any order. A group reaches the disk when it is begun or when it is answered, by chance, so that a
//! crash in between finds it there or not. Called by [`Lab`](crate::lab::Lab), which cables it to a modem through
//! [`Host`].

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use aldis::bearer::serial::LinkState;
use aldis::bearer::{ModemAction, ModemEvent};
use aldis::codec::payload::{DecodeError, Options as Coded};
use aldis::config::Plan;
use aldis::emcon::{Emission, EpochWatch, Keying};
use aldis::mail::{BearerId, Envelope, Hop, MessageId, Precedence, RecipientState};
use aldis::ops::{Event, Request, Response};
use aldis::queue::{
    Batch, Change, Disk, Engine, MessageRecord, MessageState, OpenError, Options, Staged, StoreCall, StoreResult,
};
use aldis::security::vet::without_dns;
use aldis::smtp::client::{RecipientResult, Report};
use aldis::smtp::server::{Answer, AskId, Question, Transaction};
use aldis::switch::OpenError as Unread;
use aldis::switch::{
    Forward, Forwarded, Input, Output, RequestId, SessionId, Sizes, Switch, Ticket, Work, WorkResult, work,
};
use aldis::time::{Duration, Instant, Now};

use crate::disk::SimDisk;
use crate::memo;
use crate::rng::Stream;
use crate::world::Host;

/// Calls of one group commit at most, as the real writer has it.
const GROUP: usize = 256;

/// One node; its process may be down.
pub struct VirtualNode {
    plan: Arc<Plan>,
    /// In order of its ports.
    bearers: Vec<BearerId>,
    economy: Economy,
    seed: u64,
    boots: u64,
    /// The store's disk.
    pub store: SimDisk,
    /// The disk of the Maildirs.
    pub mail: SimDisk,
    process: Option<Process>,
    log: Log,
    /// It cannot read dictionary 2 nor receipts, though it says so: an older program in the place of a newer one.
    pub reads_least: bool,
    /// The store does further calls while it syncs, as a node's threads do; else one group of calls after the other.
    pub ahead: bool,
    /// What was keyed and fed since the laboratory last listened; nothing is kept unless it does.
    emitted: Option<Vec<(Instant, usize, Keying)>>,
}

/// What a laboratory saves on where it is not what is looked at. A node does and says the same either way, but for the bytes of payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Economy {
    /// How mail is coded.
    pub coding: Coding,
    /// See [`Options::quick_repair`]; without it a commit takes half the time.
    pub quick_repair: bool,
}

impl Economy {
    /// Everything as the shipped node does it.
    pub const NONE: Self = Self { coding: Coding::Full, quick_repair: true };
    /// The same, but for the bytes of a message that do not depend on those before it.
    pub const ALONE: Self = Self { coding: Coding::Alone, ..Self::NONE };
}

/// How mail is coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// As the node says: for what the peer reads, with the messages both hold.
    Full,
    /// Each message as the first to a stranger, so that equal ones have equal payloads.
    Alone,
    /// Without a dictionary, which takes a fiftieth of the time.
    Plain,
}

/// What a node said and did, over all its lives.
#[derive(Debug, Default)]
pub struct Log {
    /// Events of the switch.
    pub events: Vec<(Instant, Event)>,
    /// What SMTP clients were told at the end of their transactions: session, whether it was a promise, the words.
    pub answers: Vec<(Instant, SessionId, bool, String)>,
    /// What operators were told.
    pub replies: Vec<(Instant, RequestId, Response)>,
    /// What next hops took: to whom, envelope, message.
    pub forwarded: Vec<(Instant, String, Envelope, Arc<[u8]>)>,
    /// Records found damaged when a store was opened, and stores that could not be opened.
    pub damaged: Vec<String>,
    /// Starts and ends of the process.
    pub lives: Vec<(Instant, bool)>,
}

struct Process {
    coding: Coding,
    reads_least: bool,
    switch: Switch,
    engine: Engine,
    /// By port.
    watches: Vec<EpochWatch>,
    chance: Stream,
    /// Calls that wait for the writer.
    calls: VecDeque<(Ticket, StoreCall)>,
    writing: bool,
    ahead: bool,
    /// Groups that wait for a sync, and whether one is under way.
    staged: Option<(Vec<Ticket>, Staged)>,
    syncing: bool,
    agenda: BTreeMap<(Instant, u64), Coming>,
    sequence: u64,
    emissions: VecDeque<(usize, Emission)>,
    actions: VecDeque<(usize, ModemAction)>,
    /// The store failed and the process ends: orders in force that are yet to be made durable.
    last_words: Option<Batch>,
}

/// Something that will come back to the switch.
enum Coming {
    Done(Ticket, Box<WorkResult>),
    /// A group that is on the disk already.
    Written(Vec<(Ticket, StoreResult)>),
    /// A group that reaches the disk when it is answered.
    Write(Vec<(Ticket, StoreCall)>),
    /// A group that is done and owed a sync.
    Staged(Vec<Ticket>, Staged),
    /// Groups whose sync was made, or is made when they are answered.
    Synced(Vec<(Ticket, StoreResult)>),
    Sync(Vec<Ticket>, Staged),
}

impl std::fmt::Debug for VirtualNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VirtualNode {{ {}, up: {} }}", self.plan.node.name, self.process.is_some())
    }
}

impl VirtualNode {
    /// A node that is not running yet, on empty disks.
    /// `ports` says which bearer is cabled to each port; one that the plan lacks leaves its radio alone.
    pub fn new(plan: Plan, ports: Vec<BearerId>, economy: Economy, seed: u64) -> Self {
        let disk = |part| SimDisk::new(Stream::new(seed, "disk", part).next_u64());
        Self {
            bearers: ports,
            plan: Arc::new(plan),
            economy,
            seed,
            boots: 0,
            store: disk(0),
            mail: disk(1),
            process: None,
            log: Log::default(),
            reads_least: false,
            ahead: false,
            emitted: None,
        }
    }

    /// From now on keeps what is keyed and fed for [`Self::take_emitted`].
    pub fn listen(&mut self) {
        self.emitted = Some(Vec::new());
    }

    /// What was keyed and fed since this was last asked.
    pub fn take_emitted(&mut self) -> Vec<(Instant, usize, Keying)> {
        self.emitted.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Starts the process: opens the store, builds the switch, opens the modems; of those at `carrier` the line may be up
    /// already.
    pub fn start(&mut self, now: Now, carrier: &[usize]) {
        self.boots += 1;
        let mut chance = Stream::new(self.seed, "process", self.boots);
        let fresh_epoch = (chance.next_u64() as u32).max(1);
        let options = Options {
            cache_bytes: 1 << 20,
            floor_bytes: 0,
            fresh_epoch,
            quick_repair: self.economy.quick_repair,
            ..Options::default()
        };
        let disk: Arc<dyn Disk> = Arc::new(self.store.clone());
        let (engine, opened) = match Engine::open(disk, options) {
            Ok(open) => open,
            Err(error) => {
                // Power that goes while the store is opened, or a disk that fails once, is no damage.
                if self.store.is_powered() && !matches!(error, OpenError::Disk(_)) {
                    self.log.damaged.push(error.to_string());
                }
                return;
            }
        };
        self.log.damaged.extend(opened.damaged.iter().cloned());
        self.log.lives.push((now.at, true));
        let switch = Switch::new(now, self.plan.clone(), opened, Vec::new(), chance.next_u64());
        let watches = self.bearers.iter().map(|b| switch.epoch_watch(b).unwrap_or_default()).collect();
        self.process = Some(Process {
            coding: self.economy.coding,
            reads_least: self.reads_least,
            switch,
            engine,
            watches,
            chance,
            calls: VecDeque::new(),
            writing: false,
            ahead: self.ahead,
            staged: None,
            syncing: false,
            agenda: BTreeMap::new(),
            sequence: 0,
            emissions: VecDeque::new(),
            actions: VecDeque::new(),
            last_words: None,
        });
        self.drain(now);
        for port in 0..self.bearers.len() {
            let bearer = self.bearers[port].clone();
            if self.plan.nets().any(|net| net.id == bearer) {
                self.input(now, Input::Port { bearer, fault: None });
                continue;
            }
            self.handle_modem(now, port, ModemEvent::Ready);
            if carrier.contains(&port) {
                self.handle_modem(now, port, ModemEvent::Carrier(true));
            }
        }
    }

    /// Takes the settings whose names begin so from the store of a node that is down.
    pub fn forget(&mut self, prefix: &str) {
        let disk = Arc::new(self.store.clone());
        let options = Options { floor_bytes: 0, quick_repair: self.economy.quick_repair, ..Options::default() };
        let Ok((mut engine, opened)) = Engine::open(disk, options) else { return };
        let held = opened.settings.iter().filter(|(name, _)| name.starts_with(prefix));
        let changes = held.map(|(name, _)| Change::Setting(name.clone(), None)).collect();
        engine.execute(vec![StoreCall::Commit(Batch { conditions: Vec::new(), changes })]);
    }

    /// Kills the process. With `power`, the machine's power goes too, and with it what was not synced, as that seed has it.
    pub fn crash(&mut self, now: Now, power: Option<u64>) {
        if self.process.is_some() {
            self.log.lives.push((now.at, false));
        }
        // The files close before the store does: a killed process writes no last page.
        match power {
            Some(seed) => {
                self.store.power_cut(seed);
                self.mail.power_cut(seed ^ 1);
            }
            None => {
                self.store.kill();
                self.mail.kill();
            }
        }
        self.process = None;
    }

    /// Whether the process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether a planned fault took the power while the process still believes in it.
    pub fn lost_power(&self) -> bool {
        self.process.is_some() && !(self.store.is_powered() && self.mail.is_powered())
    }

    /// Whether the store failed, so that the process can only end: what it holds is known when it is read anew.
    pub fn store_failed(&self) -> bool {
        self.process.as_ref().is_some_and(|p| p.last_words.is_none() && p.engine.failure().is_some())
    }

    /// Ends as a node ends whose store failed: the switch stops, and the orders in force are made durable. False while the disk does
    /// not let it; the process must not go before (`node/writer.rs`).
    pub fn wind_up(&mut self, now: Now) -> bool {
        let Some(process) = &mut self.process else { return true };
        if process.last_words.is_none() {
            process.last_words = Some(process.switch.orders_in_force());
            process.switch.stop(now);
            self.drain(now);
        }
        let Some(process) = &mut self.process else { return true };
        let Some(batch) = process.last_words.clone() else { return true };
        process.engine.reopen().is_ok()
            && matches!(process.engine.execute(vec![StoreCall::Commit(batch)])[..], [StoreResult::Committed(Ok(()))])
    }

    /// The state of its links, as its status has them.
    pub fn links(&self) -> Vec<LinkState> {
        let links = self.process.as_ref().map(|p| p.switch.links()).unwrap_or_default();
        links.into_iter().map(|(_, link)| link).collect()
    }

    /// How much its switch holds in memory.
    pub fn sizes(&self) -> Option<Sizes> {
        Some(self.process.as_ref()?.switch.sizes())
    }

    /// The bearer at a port.
    pub fn bearer(&self, port: usize) -> Option<&BearerId> {
        self.bearers.get(port)
    }

    /// The profile it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What it said and did.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Hands a message in, as an SMTP session does at the end of DATA; the answer comes in [`Log::answers`].
    pub fn submit(&mut self, now: Now, session: SessionId, transaction: Transaction) {
        let listener: Arc<str> = self.plan.listeners.first().map_or("relay", |l| l.name.as_str()).into();
        let question = Question::End(Box::new(transaction));
        self.input(now, Input::Ask { session, ask: AskId(0), listener, question });
    }

    /// A datagram comes to the socket at a port.
    pub fn datagram(&mut self, now: Now, port: usize, from: Ipv4Addr, bytes: Vec<u8>) {
        if let Some(bearer) = self.bearers.get(port).cloned() {
            self.input(now, Input::Datagram { bearer, from, bytes, missed: 0 });
        }
    }

    /// Asks or orders as an operator does; the reply comes in [`Log::replies`].
    pub fn request(&mut self, now: Now, id: RequestId, request: Request) {
        self.input(now, Input::Request { id, request, uid: 0 });
    }

    /// Messages whose name or id is `name`, as the running store has them.
    pub fn records(&self, name: &str) -> Vec<MessageRecord> {
        let Some(snapshot) = self.process.as_ref().and_then(|p| p.engine.snapshot().ok()) else { return Vec::new() };
        let ids = snapshot.find(name).unwrap_or_default();
        ids.into_iter().filter_map(|id| snapshot.load(id).ok().flatten()).map(|record| *record).collect()
    }

    /// Whether the running store says that it does not have this message; a disk that fails says nothing.
    pub fn lacks(&self, id: MessageId) -> bool {
        let looked = self.process.as_ref().and_then(|p| p.engine.snapshot().ok()?.load(id).ok());
        looked.is_some_and(|record| record.is_none())
    }

    /// Whether the running store holds this message as one that is done.
    pub fn has_ended(&self, id: MessageId) -> bool {
        self.record(id).is_some_and(|record| record.state == MessageState::Done)
    }

    /// The same as [`Self::lacks`] of a message of this Message-ID.
    pub fn lacks_named(&self, name: &str) -> bool {
        let looked = self.process.as_ref().and_then(|p| p.engine.snapshot().ok()?.find(name).ok());
        looked.is_some_and(|ids| ids.is_empty())
    }

    /// A message's level of service in the running store.
    pub fn level(&self, id: MessageId) -> Option<Precedence> {
        self.record(id).map(|record| record.precedence)
    }

    fn record(&self, id: MessageId) -> Option<Box<MessageRecord>> {
        self.process.as_ref()?.engine.snapshot().ok()?.load(id).ok()?
    }

    /// Messages an operator holds, or some of whose recipients.
    pub fn held(&self) -> Vec<MessageId> {
        let held = |r: &MessageRecord| {
            r.state == MessageState::Held || r.recipients.iter().any(|r| matches!(r.state, RecipientState::Held { .. }))
        };
        self.unfinished(usize::MAX).into_iter().filter(held).map(|record| record.id).collect()
    }

    /// Messages that are not done, at most `limit`.
    pub fn unfinished(&self, limit: usize) -> Vec<MessageRecord> {
        let snapshot = self.process.as_ref().and_then(|p| p.engine.snapshot().ok());
        snapshot.and_then(|s| s.list(limit, |_| true).ok()).unwrap_or_default()
    }

    /// Files in new/ of all mailboxes: path and bytes, in order.
    pub fn delivered(&self) -> Vec<(String, Vec<u8>)> {
        let boxes = self.mail.list("").unwrap_or_default();
        let files = boxes.into_iter().flat_map(|mailbox| {
            let folder = format!("{mailbox}/new");
            let names = self.mail.list(&folder).unwrap_or_default();
            names.into_iter().map(move |name| format!("{folder}/{name}"))
        });
        files.filter_map(|path| self.mail.bytes(&path).map(|bytes| (path, bytes))).collect()
    }

    fn input(&mut self, now: Now, input: Input) {
        if let Some(process) = &mut self.process {
            process.switch.handle(now, input);
            self.drain(now);
        }
    }

    fn drain(&mut self, now: Now) {
        let Some(process) = &mut self.process else { return };
        while let Some(output) = process.switch.poll_output() {
            match output {
                Output::Answer { session, answer, .. } => {
                    let (kept, text) = match answer {
                        Answer::Queued(reply) => (true, format!("{reply:?}")),
                        Answer::Ok => (true, String::new()),
                        Answer::Refuse(reply) => (false, format!("{reply:?}")),
                        Answer::Priority(_)
                        | Answer::Authenticated { .. }
                        | Answer::Content(_)
                        | Answer::Verifier { .. } => continue,
                    };
                    self.log.answers.push((now.at, session, kept, text));
                }
                Output::Work { ticket, work } => process.work(now.at, ticket, work, &self.mail, &mut self.log),
                Output::Emit(emission) => {
                    if let Some(port) = self.bearers.iter().position(|b| b == emission.bearer()) {
                        process.emissions.push_back((port, emission));
                    }
                }
                Output::Act { bearer, action } => {
                    if let Some(port) = self.bearers.iter().position(|b| *b == bearer) {
                        process.actions.push_back((port, action));
                    }
                }
                Output::Reply { id, response } => self.log.replies.push((now.at, id, response)),
                Output::Event(event) => self.log.events.push((now.at, event)),
            }
        }
        process.write(now.at);
    }

    /// Gives back what is due now, one result at a time, as they would come through the channel.
    fn complete(&mut self, now: Now) {
        loop {
            let Some(process) = &mut self.process else { return };
            let Some(entry) = process.agenda.first_entry().filter(|e| e.key().0 <= now.at) else { return };
            let results: Vec<(Ticket, WorkResult)> = match entry.remove() {
                Coming::Done(ticket, result) => vec![(ticket, *result)],
                Coming::Written(results) => process.written(results),
                Coming::Write(group) => {
                    let results = process.execute(group);
                    process.written(results)
                }
                Coming::Staged(mut tickets, mut staged) => {
                    let read = staged.take_read(&mut tickets);
                    process.stage(tickets, staged);
                    read.into_iter().map(|(ticket, result)| (ticket, WorkResult::Store(result))).collect()
                }
                Coming::Synced(results) => process.synced(results),
                Coming::Sync(tickets, staged) => {
                    let results = tickets.into_iter().zip(staged.settle().results).collect();
                    process.synced(results)
                }
            };
            process.sync(now.at);
            if !self.store.is_powered() {
                // The machine is dark: nobody hears of this.
                return;
            }
            for (ticket, result) in results {
                self.input(now, Input::Done { ticket, result });
            }
            self.drain(now);
        }
    }
}

impl Process {
    fn work(&mut self, at: Instant, ticket: Ticket, work: Work, mail: &SimDisk, log: &mut Log) {
        let (result, least, most) = match work {
            Work::Store(call) => return self.calls.push_back((ticket, call)),
            Work::Encode(encode) => {
                let coding = self.coding;
                let code = |envelope: &[u8], body: &[u8], options: &Coded<'_>| match coding {
                    Coding::Full => memo::code(envelope, body, options),
                    Coding::Alone => memo::code(envelope, body, &Coded::for_any_peer()),
                    Coding::Plain => memo::plainly(envelope, body),
                };
                (work::encode_by(&encode, code), 1, 50)
            }
            Work::Decode(decode) => {
                let least = self.reads_least;
                let read = |payload: &[u8], max_bytes: usize, options: &Coded<'_>| match payload.first() {
                    Some(first) if least && first & 15 > 1 => Err(DecodeError::UnknownDictionary(first & 15)),
                    _ => memo::read(payload, max_bytes, options),
                };
                let decoded = match work::decode_by(&decode, read) {
                    WorkResult::Receipts(_) if least => {
                        WorkResult::Decoded(Err(Unread::Undecodable("unknown codec 7".into())))
                    }
                    decoded => decoded,
                };
                (decoded, 1, 50)
            }
            Work::MuleEncode(encode) => (work::mule_encode(&encode), 1, 50),
            Work::MuleDecode(decode) => (work::mule_decode(&decode), 1, 50),
            Work::Job(job) => (work::job(job), 1, 50),
            Work::Fetch(fetch) => (work::fetch(&fetch), 1, 50),
            // There is no DNS here. Who signs reads the machine's clock: no scenario does.
            Work::Vet(vet) => (WorkResult::Vetted(Box::new(without_dns(&vet))), 1, 50),
            Work::Maildir(local) => (work::maildir(mail, &local), 1, 50),
            Work::Forward(forward) => (forwarded(at, *forward, log), 20, 2000),
        };
        let delay = self.delay(least, most);
        self.plan(at + delay, Coming::Done(ticket, Box::new(result)));
    }

    /// Begins the next group if the writer is free.
    fn write(&mut self, at: Instant) {
        if self.writing || self.calls.is_empty() {
            return;
        }
        self.writing = true;
        let group: Vec<_> = self.calls.drain(..self.calls.len().min(GROUP)).collect();
        if self.ahead {
            let (tickets, calls): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let staged = self.engine.stage(calls);
            let delay = self.delay(1, 10);
            return self.plan(at + delay, Coming::Staged(tickets, staged));
        }
        let delay = self.delay(1, 20);
        let result = match self.chance.chance(0.5) {
            true => Coming::Written(self.execute(group)),
            false => Coming::Write(group),
        };
        self.plan(at + delay, result);
    }

    fn execute(&mut self, group: Vec<(Ticket, StoreCall)>) -> Vec<(Ticket, StoreResult)> {
        let (tickets, calls): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        tickets.into_iter().zip(self.engine.execute(calls)).collect()
    }

    /// The writer may go on; what it did waits for a sync with whatever waits already.
    fn stage(&mut self, tickets: Vec<Ticket>, staged: Staged) {
        self.writing = false;
        let (waiting, all) = self.staged.get_or_insert_default();
        waiting.extend(tickets);
        all.append(staged);
    }

    /// Begins the next sync if none is under way.
    fn sync(&mut self, at: Instant) {
        if self.syncing {
            return;
        }
        let Some((tickets, staged)) = self.staged.take() else { return };
        self.syncing = true;
        let delay = self.delay(1, 20);
        let result = match self.chance.chance(0.5) {
            true => Coming::Synced(tickets.into_iter().zip(staged.settle().results).collect()),
            false => Coming::Sync(tickets, staged),
        };
        self.plan(at + delay, result);
    }

    fn synced(&mut self, results: Vec<(Ticket, StoreResult)>) -> Vec<(Ticket, WorkResult)> {
        self.syncing = false;
        results.into_iter().map(|(ticket, result)| (ticket, WorkResult::Store(result))).collect()
    }

    fn written(&mut self, results: Vec<(Ticket, StoreResult)>) -> Vec<(Ticket, WorkResult)> {
        self.writing = false;
        results.into_iter().map(|(ticket, result)| (ticket, WorkResult::Store(result))).collect()
    }

    fn plan(&mut self, at: Instant, result: Coming) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), result);
    }

    fn delay(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_micros(least_ms * 1000 + self.chance.below((most_ms - least_ms) * 1000))
    }
}

/// A next hop that takes everything.
fn forwarded(at: Instant, forward: Forward, log: &mut Log) -> WorkResult {
    let Forward { hop, envelope, body, .. } = forward;
    let taken = |_| RecipientResult::Delivered { reply: "250 2.0.0 taken".into() };
    let results = envelope.recipients.iter().map(taken).collect();
    let by = match &hop {
        Hop::Smtp(to) | Hop::Lmtp(to) => to.clone(),
        other => other.to_string(),
    };
    log.forwarded.push((at, by.clone(), envelope, body));
    let report = Report {
        results,
        dsn: true,
        deliver_by: true,
        tls: false,
        reached: true,
        answered: true,
        login_refused: false,
    };
    WorkResult::Forwarded(Box::new(Forwarded { report, by, faults: Vec::new(), notes: Vec::new() }))
}

impl Host for VirtualNode {
    fn handle_modem(&mut self, now: Now, port: usize, event: ModemEvent) {
        if let Some(bearer) = self.bearers.get(port).cloned() {
            self.input(now, Input::Modem { bearer, event });
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.complete(now);
        let Some(process) = &mut self.process else { return };
        if process.switch.next_timeout().is_some_and(|at| at <= now.at) {
            process.switch.handle_timeout(now);
            self.drain(now);
        }
    }

    fn poll_emission(&mut self, now: Now) -> Option<(usize, Keying)> {
        let process = self.process.as_mut()?;
        while let Some((port, emission)) = process.emissions.pop_front() {
            let watch = process.watches.get(port)?;
            if let Some(keying) = emission.redeem(watch, now.at) {
                if let Some(emitted) = &mut self.emitted {
                    emitted.push((now.at, port, keying.clone()));
                }
                return Some((port, keying));
            }
        }
        None
    }

    fn poll_action(&mut self) -> Option<(usize, ModemAction)> {
        self.process.as_mut()?.actions.pop_front()
    }

    fn next_timeout(&self) -> Option<Instant> {
        let process = self.process.as_ref()?;
        if self.lost_power() {
            return None;
        }
        let results = process.agenda.first_key_value().map(|((at, _), _)| *at);
        results.into_iter().chain(process.switch.next_timeout()).min()
    }
}
