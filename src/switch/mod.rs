//! The switch: one synchronous owner of all state, which never waits.
//!
//! `handle(now, Input)`, drain `poll_output()`, sleep until `next_timeout()`. Whatever may take over a millisecond leaves as
//! [`Output::Work`] under a ticket and returns as [`Input::Done`], in any order or never; a late ticket of something that no longer
//! exists is harmless. `node/` drives it with real sockets and threads, the simulator with virtual ones.

mod addresses;
mod air;
mod awaited;
mod choice;
mod context;
mod desk;
mod dispatch;
mod fetch;
mod form;
mod future;
mod group;
mod intake;
mod io;
mod late;
mod multicast;
mod policies;
mod predict;
mod receipts;
mod renewal;
mod rewriting;
mod settle;
mod silence;
mod sizes;
mod vetting;
mod what_if;
pub mod work;

pub use addresses::by_profile;
pub use io::{
    Coded, Decode, Encode, Fault, Fetch, Forward, Forwarded, Input, Local, LocalMailbox, MuleDecode, MuleEncode, Note,
    Omission, OpenError, Opened, Output, Reduction, RequestId, SessionId, Ticket, Work, WorkResult,
};
pub use policies::kept as kept_policies;

pub use sizes::Sizes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::bearer::WaveformName;
use crate::bearer::serial::{self, Station};
use crate::codec::repertoire::Repertoire;
use crate::config::Plan;
use crate::config::plan::{BearerPlan, Choice, Waveform};
use crate::emcon::{EpochWatch, Gate, Order};
use crate::mail::{BearerId, MessageId, PeerName, Precedence, TransferId};
use crate::ops::{Counters, Event};
use crate::queue::accept;
use crate::queue::dsn::Reporter;
use crate::queue::schedule::{Active, Job};
use crate::queue::{Batch, Change, Ids, MessageRecord, Place, StoreCall, TrackEntry, TransferRecord};
use crate::queue::{Opened as StoreOpened, retry};
use crate::time::{Duration, Instant, Now, Wall};

use air::Bearer;

/// The switch of one node.
#[derive(Debug)]
pub struct Switch {
    plan: Arc<Plan>,
    /// Listener names and addresses, for status.
    listeners: Vec<(String, String)>,
    owner: String,
    epoch: u32,
    policy: accept::Policy,
    reporter: Reporter,
    gate: Gate,
    bearers: BTreeMap<BearerId, Bearer>,
    nets: multicast::Nets,
    minimize: BTreeMap<BearerId, Minimize>,
    silence: silence::Silence,
    /// What ended unconfirmed: word of it still counts.
    late: late::Lates,
    /// Policies of domains that are kept.
    policies: policies::Policies,
    choices: choice::Choices,
    coding: predict::Coding,
    contexts: context::Contexts,
    awaited: awaited::Awaiting,
    receipts: receipts::Receipts,
    /// Payloads under judgement, and the stations that wait for the verdict: the first asked.
    judging: BTreeMap<TransferId, Vec<(BearerId, u64)>>,
    ids: Ids,
    /// Another epoch is on its way into the store; until it is there nothing is frozen and nothing radiates.
    renewal: Option<renewal::Renewal>,
    /// Where the numbers of epochs come from: a seed handed in, and a count.
    chance: u64,
    active: Active,
    transfers: BTreeMap<TransferId, TransferRecord>,
    /// Messages an operator let go beyond what their bearer carries, until they are done or held again. Stored as settings.
    beyond: BTreeSet<MessageId>,
    /// What its sender wants sent later.
    futures: future::Futures,
    /// Transfers of which something may have left the antenna: those keyed since the start, and all of before it.
    keyed_transfers: BTreeSet<TransferId>,
    steps: BTreeMap<MessageId, settle::Steps>,
    open_orders: BTreeMap<RequestId, desk::OpenOrder>,
    counters: Counters,
    /// Set while a claim is under way, and while the store is known to hold nothing more that is due.
    claiming: bool,
    /// The store has due messages, as far as is known, for which memory had no room.
    more_stored: bool,
    /// Where the look at due messages that are not in a full memory goes on; `None`: at the first.
    looked_until: Option<Place>,
    /// Set while the store is asked whose life is over.
    ending: bool,
    next_claim: Instant,
    next_sweep: Instant,
    next_purge: Instant,
    /// When a wall-clock time of the queue or of an order comes, as the clock stood at the last input.
    wake: Option<Instant>,
    /// Civil less monotonic time at the last input: a jump is a step of the clock.
    offset_ms: i64,
    clock_set: bool,
    tickets: BTreeMap<Ticket, Pending>,
    next_ticket: u64,
    outputs: VecDeque<Output>,
    store: StoreState,
    stopped: bool,
}

/// Whether mail can be taken, as the last commits told.
#[derive(Clone, PartialEq, Eq, Debug)]
enum StoreState {
    Healthy,
    Full,
    Failed(String),
}

/// MINIMIZE on one bearer (B6).
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
struct Minimize {
    least: Precedence,
    from: Wall,
    until: Option<Wall>,
    reason: String,
    author: String,
}

/// What a ticket was for.
#[derive(Debug)]
enum Pending {
    /// A message that comes in is being checked and signed.
    Vet { prepared: Box<intake::Prepared>, since: Instant },
    /// An SMTP transaction is being made durable.
    Accept { promise: intake::Promise, records: Vec<MessageRecord>, ids: Batch },
    /// A message from the air is being made durable.
    AcceptAir { bearer: BearerId, ticket: u64, records: Vec<MessageRecord>, ids: Batch },
    /// The reports of a digest are being made durable.
    AcceptReceipts { bearer: BearerId, ticket: u64, records: Vec<MessageRecord>, ids: Batch },
    /// A payload is being opened.
    Decode { bearer: BearerId, ticket: u64, from: PeerName, id: TransferId },
    /// Due messages are being leased.
    Claim { limit: usize },
    /// Due messages behind those that have no room are looked at.
    Look,
    /// Messages whose life is over are being looked for.
    Ended,
    /// A body is being read for a job.
    Body { job: Job },
    /// A body is being read for a report about `record`'s change.
    ReportBody { settled: Box<settle::Settled> },
    /// A payload is being made.
    Encoded { job: Job, id: TransferId, peer: PeerName, attempt: form::Attempt },
    /// A body is being read for jobs that share a payload.
    GroupBody { jobs: Vec<Job> },
    /// A payload for several peers is being made.
    GroupEncoded { jobs: Vec<Job>, ids: Vec<TransferId>, bearer: BearerId },
    /// A message is being read because a part of it is wanted.
    FetchRecord { wanted: fetch::Wanted },
    /// Its bytes are being read.
    FetchBody { wanted: fetch::Wanted, record: Box<MessageRecord> },
    /// A message is being made of the part.
    FetchPart { wanted: fetch::Wanted, record: Box<MessageRecord> },
    /// That message is being made durable.
    Fetched { wanted: fetch::Wanted, records: Vec<MessageRecord>, ids: Batch },
    /// A frozen payload is being read again after a restart.
    Thaw { id: TransferId, peer: PeerName },
    /// A local or onward delivery is under way.
    Delivery { job: Job },
    /// A message is being read for a step.
    LoadForStep { message: MessageId },
    /// A step is being made durable.
    Step { settled: Box<settle::Settled>, own: Vec<MessageRecord>, ids: Batch },
    /// A station's state is being made durable.
    LinkStored { bearer: BearerId, ticket: u64 },
    /// Symbols are being spread or gathered.
    LinkJob { bearer: BearerId, ticket: u64 },
    /// An EMCON order is being made durable.
    Order { bearer: BearerId, order: Order, tightened: bool, reply: Option<RequestId>, carrier_off: Duration },
    /// Another epoch is being made durable.
    Renewal,
    /// MINIMIZE is being made durable.
    Minimize { orders: Vec<(BearerId, Option<Minimize>)>, reply: RequestId },
    /// An operator's word on a peer's silence is being made durable.
    Mark { peer: PeerName, mark: Option<silence::Mark>, reply: RequestId },
    /// Something of a bearer that speaks P_MUL.
    Pmul(multicast::Pending),
    /// Something whose result changes nothing (history lines, purges).
    Aside,
}

/// How often lifetimes and delay reports are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often the store is asked for due messages that are not in memory.
const CLAIM_EVERY: Duration = Duration::from_secs(10);
/// How often a full memory looks at the next ones in the store, for mail whose hop has room.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A jump of civil against monotonic time that counts as a step of the clock.
const STEP_MS: i64 = 1000;
/// How soon a step of civil time is noticed while something is on the air that depends on it.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// Shortest wait for a wall-clock time, so that rounding cannot make a busy loop.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// How often finished mail is purged.
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// How long a lease lasts; one switch owns its store alone, several over one database will renew.
const LEASE: Duration = Duration::from_secs(3600);

impl Switch {
    /// Builds a switch on what the store held, resumes what was under way, and claims what is due.
    pub fn new(now: Now, plan: Arc<Plan>, opened: StoreOpened, listeners: Vec<(String, String)>, seed: u64) -> Self {
        #[cfg(feature = "mutations")]
        crate::mutation::put_in_force(plan.node.mutation);
        let setting = |name: &str| opened.settings.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice());
        let mut gate = Gate::new();
        let mut minimize = BTreeMap::new();
        let mut first_orders = Batch::default();
        let serial = plan.bearers.iter().map(|b| (&b.id, &b.emcon));
        let nets = plan.nets().map(|net| (&net.id, &net.emcon));
        for (id, emcon) in serial.chain(nets) {
            let key = air::order_key(id);
            if plan.only_receives(id) {
                air::only_receive(&mut gate, id, now);
                continue;
            }
            let first = air::first_order(&mut gate, (id, emcon), setting(&key), now);
            first_orders.changes.extend(first.map(|order| Change::Setting(key, serde_json::to_vec(&order).ok())));
            if let Some(order) = setting(&desk::minimize_key(id)).and_then(|v| serde_json::from_slice(v).ok()) {
                minimize.insert(id.clone(), order);
            }
        }
        let ids = Ids::open(&opened);
        let mut stored_links = air::split_links(opened.links.clone());
        let frozen: BTreeSet<&TransferId> = opened.transfers.iter().map(|t| &t.id).collect();
        let mut bearers = BTreeMap::new();
        for (index, bearer) in plan.bearers.iter().enumerate() {
            let restored = stored_links.remove(&bearer.id).unwrap_or_default();
            let config = station_config(&plan, bearer, &opened, &ids, seed.wrapping_add(index as u64));
            let mut station = Station::new(now.at, config, restored);
            station.keep_only(|id| frozen.contains(id));
            station.carry_from(gate.lowest(now, &bearer.id));
            let entry = Bearer {
                plan: bearer.clone(),
                station,
                account: air::Account::default(),
                standing: gate.standing(now, &bearer.id),
                keyed_at: None,
                off_by: None,
                silence_told: false,
            };
            bearers.insert(bearer.id.clone(), entry);
        }
        let restore = |id: &BearerId| stored_links.remove(id).unwrap_or_default();
        let nets = multicast::Nets::open(now, &plan, &opened, &ids, restore, |id| gate.standing(now, id), seed);
        let mut table = retry::Table::shipped();
        for (level, r) in &plan.retry {
            let level_of =
                retry::Level { after: r.after.clone(), warn: r.warn, expire: r.expire, ..table.level(*level).clone() };
            table = table.with(*level, level_of);
        }
        let policy = accept::Policy {
            retry: table,
            default: plan.precedence.default,
            mmhs: plan.precedence.mmhs,
            keep_done: plan.limits.keep_done,
        };
        let reporter = Reporter {
            hostname: plan.node.hostname.clone(),
            postmaster: plan.node.postmaster.clone(),
            full_bytes: 64 * 1024,
        };
        let active = Active::new(plan.limits.active_messages, policy.clone());
        let restored = opened.transfers.iter().map(|t| t.id.clone()).collect();
        let mut switch = Self {
            listeners,
            owner: plan.node.name.to_string(),
            epoch: opened.epoch,
            policy,
            reporter,
            gate,
            bearers,
            nets,
            minimize,
            silence: silence::Silence::open(&opened.settings),
            late: late::open(&opened.settings),
            policies: policies::open(&opened.settings),
            choices: choice::Choices::default(),
            coding: predict::Coding::default(),
            contexts: context::Contexts::open(&opened.settings),
            awaited: awaited::Awaiting::open(&opened.settings),
            receipts: receipts::Receipts::open(&opened.settings),
            judging: BTreeMap::new(),
            ids,
            renewal: None,
            chance: seed,
            active,
            transfers: opened.transfers.into_iter().map(|t| (t.id.clone(), t)).collect(),
            beyond: opened.settings.iter().filter_map(|(name, _)| settle::beyond_id(name)).collect(),
            futures: future::Futures::open(&opened.settings),
            keyed_transfers: restored,
            steps: BTreeMap::new(),
            open_orders: BTreeMap::new(),
            counters: Counters::default(),
            claiming: false,
            more_stored: false,
            looked_until: None,
            ending: false,
            next_claim: now.at,
            next_sweep: now.at,
            next_purge: now.at + PURGE_EVERY,
            wake: None,
            offset_ms: offset_ms(now),
            clock_set: now.set,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            outputs: VecDeque::new(),
            store: StoreState::Healthy,
            stopped: false,
            plan,
        };
        if !first_orders.changes.is_empty() {
            // From here on this order wins over whatever a profile says later (B4).
            switch.commit(first_orders, Pending::Aside);
        }
        switch.follow_silence(now);
        switch.listen_for_late();
        switch.share_held(now);
        switch.forget_unsent();
        switch.thaw(now, opened.renewed.as_deref());
        switch.follow_digests(now);
        switch.claim(now);
        switch.pump_air(now);
        switch.pump_multicast(now);
        switch
    }

    /// The epoch a modem driver compares emissions with.
    pub fn epoch_watch(&self, bearer: &BearerId) -> Option<EpochWatch> {
        self.gate.watch(bearer)
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        if self.stopped {
            return;
        }
        match input {
            Input::Ask { session, ask, listener, question } => self.ask(now, session, ask, &listener, question),
            Input::Modem { bearer, event } => self.modem(now, &bearer, event),
            Input::Datagram { bearer, from, bytes, missed } => self.datagram(now, &bearer, from, &bytes, missed),
            Input::Port { bearer, fault } => self.port(&bearer, fault),
            Input::Done { ticket, result } => {
                if let Some(pending) = self.tickets.remove(&ticket) {
                    self.done(now, pending, result);
                }
            }
            Input::Request { id, request, uid } => self.request(now, id, request, uid),
            Input::Stop => self.stop(now),
        }
        self.pump(now);
    }

    /// Acts on every deadline at or before `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.stopped {
            return;
        }
        for bearer in self.bearers.values_mut() {
            if bearer.station.next_timeout().is_some_and(|at| at <= now.at) {
                bearer.station.handle_timeout(now.at);
            }
        }
        self.follow_orders(now);
        self.retry_steps(now);
        self.retry_renewal(now);
        if self.next_sweep <= now.at {
            self.next_sweep = now.at + SWEEP_EVERY;
            self.sweep(now);
        }
        if self.next_claim <= now.at {
            self.claim(now);
            self.look_for_ended(now);
        }
        self.pump(now);
    }

    /// The next thing to be done outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` next has work.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let stations = self.bearers.values().filter_map(|b| b.station.next_timeout());
        let retries = self.steps.values().filter_map(|s| s.retry_at);
        let renewal = self.renewal.as_ref().and_then(|r| r.retry_at);
        let stations = stations.chain(self.nets.wakes());
        stations.chain(retries).chain(renewal).chain([self.next_sweep, self.next_claim]).chain(self.wake).min()
    }

    /// Ends: unkeys every transmitter and starts nothing more.
    pub fn stop(&mut self, now: Now) {
        let names: Vec<BearerId> = self.gate.bearers().cloned().collect();
        for name in names {
            self.gate.set(&name, None);
            self.silence(now, &name);
        }
        self.stopped = true;
    }

    fn pump(&mut self, now: Now) {
        self.notice_clock(now);
        self.release_futures(now);
        if self.wake.is_some_and(|at| at <= now.at) {
            self.follow_orders(now);
            self.follow_silence(now);
        }
        self.dispatch(now);
        self.refill(now);
        self.tell_peers(now);
        self.review(now);
        self.pump_air(now);
        self.pump_multicast(now);
        let held_back = self.bearers.values().filter_map(|b| b.station.held_back()).map(|(_, air)| air).max();
        let orders = self.gate.next_change(now).filter(|_| now.set).map(|at| {
            let before = Wall(at.0.saturating_sub(held_back.map_or(0, |air| air.as_millis() as i64)).saturating_add(1));
            if before > now.wall { before.min(at) } else { at }
        });
        let timed = orders.into_iter().chain(self.next_silence(now)).chain(self.futures.next(now));
        let due = self.active.next_due(now).into_iter().chain(timed).min();
        let due = due.map(|wall| now.at + wall.since(now.wall).max(LEAST_WAIT));
        // Nobody says when civil time is stepped: while a transmitter keys under an order that tells the time, it is looked at.
        let timed = self.bearers.iter().any(|(name, b)| b.station.is_keying() && self.gate.tells_time(name));
        let look = timed.then_some(now.at + CLOCK_LOOK);
        self.wake = due.into_iter().chain(self.next_choice(now.at)).chain(look).min();
    }

    /// A clock that was stepped, or came to be trusted, sorts the queue anew.
    fn notice_clock(&mut self, now: Now) {
        let offset = offset_ms(now);
        if (offset - self.offset_ms).abs() > STEP_MS || now.set != self.clock_set {
            self.active.stepped(now);
            self.follow_orders(now);
            self.follow_silence(now);
        }
        self.offset_ms = offset;
        if now.set != self.clock_set {
            self.clock_set = now.set;
            self.follow_orders(now);
            self.event(Event::ClockChanged { set: now.set });
            self.follow_orders(now);
            let names: Vec<BearerId> = self.gate.bearers().cloned().collect();
            for name in names {
                self.resume_multicast(&name);
                if let Some(bearer) = self.bearers.get_mut(&name) {
                    bearer.station.resume_air(now.at);
                }
            }
        }
    }

    fn work(&mut self, work: Work, pending: Pending) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, pending);
        self.outputs.push_back(Output::Work { ticket, work });
    }

    fn commit(&mut self, batch: Batch, pending: Pending) {
        self.work(Work::Store(StoreCall::Commit(batch)), pending);
    }

    fn event(&mut self, event: Event) {
        self.counters.count(&event);
        self.outputs.push_back(Output::Event(event));
    }

    /// Adds a line to a message's history; nothing waits for it.
    fn track(
        &mut self,
        now: Now,
        message: MessageId,
        event: &str,
        recipient: Option<String>,
        bearer: Option<&BearerId>,
        air: Option<(u64, f64)>,
    ) {
        let (bytes_on_air, air_s) = air.unwrap_or_default();
        let entry = TrackEntry {
            at: now.wall,
            event: event.to_owned(),
            recipient,
            bearer: bearer.map(ToString::to_string),
            bytes_on_air,
            air_s,
            detail: None,
        };
        let batch = Batch { conditions: Vec::new(), changes: vec![Change::Track(message, entry)] };
        self.commit(batch, Pending::Aside);
    }
}

fn offset_ms(now: Now) -> i64 {
    now.wall.0.saturating_sub(i64::try_from(now.at.0 / 1_000_000).unwrap_or(i64::MAX))
}

fn station_config(plan: &Plan, bearer: &BearerPlan, opened: &StoreOpened, ids: &Ids, seed: u64) -> serial::Config {
    let peer = |name: &PeerName| plan.peers.iter().find(|p| p.name == *name);
    serial::Config {
        name: plan.node.name.clone(),
        station: bearer.station,
        epoch: opened.epoch,
        fresh: opened.fresh,
        highest: ids.highest_transfer(),
        reads: Repertoire::own(plan.limits.history_bytes > 0).bits(),
        waveform: station_waveform(&bearer.waveform),
        named: named(&bearer.waveform),
        choices: bearer.choices.iter().map(choice).collect(),
        net: bearer.net.clone(),
        siblings: plan
            .bearers
            .iter()
            .filter(|other| other.id != bearer.id)
            .flat_map(|other| &other.peers)
            .filter(|p| bearer.peers.contains(p))
            .filter_map(peer)
            .map(|p| p.station)
            .collect(),
        peers: bearer
            .peers
            .iter()
            .filter_map(peer)
            .map(|p| serial::PeerConfig {
                name: p.name.clone(),
                station: p.station,
                protection: p.protection,
                keys: p.keys.clone(),
                assumed_loss: p.assumed_loss,
            })
            .collect(),
        blind: silence::policies(plan),
        max_transmission: bearer.max_transmission,
        max_transmission_routine: bearer.max_transmission_routine,
        carrier_stuck_after: bearer.carrier_stuck_after,
        max_partials: MAX_PARTIALS,
        max_partial_bytes: MAX_PARTIAL_BYTES,
        seed,
    }
}

fn choice(choice: &Choice) -> serial::Choice {
    let w = &choice.waveform;
    serial::Choice { name: named(w), waveform: station_waveform(w), anchor_db: choice.anchor_db }
}

fn named(w: &Waveform) -> WaveformName {
    WaveformName { rate: w.rate, interleaver: w.interleaver.as_str().into() }
}

fn station_waveform(w: &Waveform) -> serial::Waveform {
    serial::Waveform {
        rate: w.rate,
        preamble: w.preamble,
        block: w.block,
        tail_bits: w.tail_bits,
        frame_bytes: w.frame_bytes,
        turnaround: w.turnaround,
    }
}

/// Partly received transfers a station keeps, and their bytes.
const MAX_PARTIALS: usize = 256;
const MAX_PARTIAL_BYTES: usize = 16 << 20;
