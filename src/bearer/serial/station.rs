//! The station: one modem's turns. Decides when to key and what to say, files what is heard, and keeps both ends from losing,
//! doubling or deadlocking anything.
//!
//! A turn: key, feed two blocks ahead, unkey, wait for the reports of those who were addressed. Whoever hears a transmission for
//! it answers after the carrier has gone, with a report and, in the same transmission, with what it has to send. A turn that
//! stays unanswered is followed by a short poll after a back-off that cannot coincide with the other side's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::burst::{Air, Burst, Layout, UNIT, with_parity};
use super::frame::{
    Address, BRIEF_OVERHEAD, BRIEF_STANDINGS, CHUNK_OVERHEAD, CONTROL_OVERHEAD, Chunk, Deframer, FRAME_CHUNKS,
    FRAME_OVERHEAD, Found, Frame, Item, MINIMAL_FRAME, REPORT_FIXED, Report, Standing,
};
use super::incoming::{Ending, Key, Partial, Stage, read_batch, write_batch};
use super::keys::{Context, KeyRing};
use super::outgoing::{Outgoing, OutgoingRecord, short};
use super::peer::{Admission, Peer, PeerRecord, back_off};
use super::{Config, StationSizes, Waveform};
use crate::bearer::fec::Geometry;
use crate::bearer::{Event, Job, JobDone, ModemAction, ModemEvent, Transfer, Verdict, Want};
use crate::emcon::{AirPermit, Emission, Purpose, Silence};
use crate::mail::{Precedence, TransferId};
use crate::time::{Duration, Instant};

/// Control counters reserved on disk at a time.
const COUNTERS: u32 = 1024;
/// How long a report waits for commits and verdicts.
const SETTLE: Duration = Duration::from_secs(2);
/// Spread of first keying over the stations of an idle link, so that two that start at once do not collide.
const RANK_SPREAD: Duration = Duration::from_millis(800);
/// How much air time's worth of symbols is reserved ahead of sending.
const COMMIT_AHEAD: Duration = Duration::from_secs(5);
/// When something that failed to commit is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// When a payload the switch had no room for is offered again.
const LATER: Duration = Duration::from_secs(30);
/// Records of transfers that nobody took up again after a restart are dropped after this.
const SWEEP: Duration = Duration::from_secs(600);
/// Finished transfers remembered, all peers together.
const FINISHED: usize = 512;
/// Short ids one report answers at most.
const ANSWERS: usize = 64;
/// Whole transmissions in a row, each with several frames that do not authenticate and none that does, before it is an alarm. A
/// frame whose end was hit looks the same, and on a bad channel several follow each other: one bad turn says nothing about keys.
const UNSEALED_TURNS: u32 = 3;
/// Such frames that make a transmission count.
const UNSEALED_FRAMES: usize = 2;
/// Unanswered turns after a start until mail is sent without the peer's word on what it knows of this node's past: more than a bad
/// channel loses in a row, because only silence may lead there.
const ASKED_IN_VAIN: u32 = 4;
/// Reason number of a transfer larger than this station keeps.
pub const REFUSED_TOO_LARGE: u8 = 250;

/// One modem's link.
#[derive(Debug)]
pub struct Station {
    config: Config,
    air: Air,
    burst: Burst,
    ring: KeyRing,
    peers: BTreeMap<u8, Peer>,
    outgoing: BTreeMap<TransferId, Outgoing>,
    queued: VecDeque<Transfer>,
    left_over: BTreeMap<TransferId, OutgoingRecord>,
    partials: BTreeMap<Key, Partial>,
    finished: BTreeMap<Key, Ending>,
    finished_order: VecDeque<Key>,
    phase: Phase,
    carrier: Option<Instant>,
    carrier_stuck: bool,
    hearing: Option<Hearing>,
    /// Transmissions come with carrier detect here: bytes without it are noise, and hold nothing back until a frame is in them.
    carrier_tells: bool,
    awaited: BTreeSet<u8>,
    await_until: Option<Instant>,
    hold: Option<Instant>,
    settle: Option<Instant>,
    report_at: Option<Instant>,
    retry: Option<Instant>,
    sweep: Option<Instant>,
    /// Lowest precedence of traffic the order in force lets pass; `None`: no traffic at all.
    lowest: Option<Precedence>,
    blocked: Option<Precedence>,
    report_blocked: bool,
    probe_blocked: bool,
    asked: Option<Purpose>,
    counter: u32,
    counter_limit: u32,
    counter_reserving: bool,
    highest: u32,
    /// The epoch turned out to be used: nothing leaves until there is another.
    suspended: bool,
    turn: u64,
    ticket: u64,
    pending: BTreeMap<u64, Pending>,
    committing: bool,
    chance: u64,
    counts: Counts,
    events: VecDeque<Event>,
    actions: VecDeque<ModemAction>,
}

/// What a station counts for operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Transmissions keyed.
    pub transmissions: u64,
    /// Polls sent.
    pub polls: u64,
    /// Turns nobody answered.
    pub unanswered: u64,
    /// Good frames heard.
    pub frames: u64,
    /// Headers whose frame did not authenticate.
    pub unsealed: u64,
    /// Control frames heard before, or too old.
    pub replays: u64,
    /// Partials given up for lack of room or because their sender began anew.
    pub evicted: u64,
    /// Payloads whose seal did not fit.
    pub forged: u64,
    /// Symbols sent again because all indices were spent.
    pub repeats: u64,
}

#[derive(Debug)]
enum Phase {
    /// The modem or its port is away.
    Down,
    /// Not keyed.
    Quiet,
    /// The key was asked for.
    Asked { since: Instant, plan: Plan },
    /// The key is down.
    Keyed(Box<Transmission>),
}

/// What a transmission would be for.
#[derive(Clone, Debug)]
struct Plan {
    purpose: Purpose,
    top: Precedence,
    blocks: u64,
}

#[derive(Debug)]
struct Transmission {
    keyed: Instant,
    plan: Plan,
    /// Most blocks the cap leaves.
    most: u64,
    blocks: u64,
    blocks_fed: u64,
    /// Pieces the stream is made of so far, their bytes, and bytes handed over.
    pieces: u64,
    made: u64,
    out: u64,
    carry: Vec<u8>,
    composed: bool,
    /// Control frames with the first piece they may stand in.
    lead: VecDeque<(u64, Vec<u8>)>,
    /// The same for whatever room is left.
    copies: Vec<Vec<u8>>,
    next_copy: usize,
    /// How its frames of symbols lie.
    layout: Layout,
    /// Symbol frames per station.
    frames: BTreeMap<u8, u32>,
    shares: BTreeMap<TransferId, u64>,
    expects: BTreeSet<u8>,
    /// Nothing more will be fed.
    ended: bool,
    alarmed: bool,
}

#[derive(Debug)]
struct Hearing {
    deframer: Deframer,
    since: Instant,
    last: Instant,
    /// Stations good frames came from.
    from: BTreeSet<u8>,
    /// Those of them that said more than symbols and brief reports.
    spoke: BTreeSet<u8>,
    /// Other stations that were spoken to.
    others: BTreeSet<u8>,
    /// Addresses of frames whose seal did not fit.
    unsealed: Vec<Address>,
}

impl Hearing {
    /// Whether a frame was among the bytes.
    fn made_sense(&self) -> bool {
        !self.from.is_empty() || !self.others.is_empty()
    }
}

#[derive(Debug)]
enum Pending {
    Counter(u32),
    Rows(TransferId, u32),
    Symbols(Vec<(Key, Vec<u16>)>),
    Report { station: u8, epoch: u32, sequence: u32, report: Report },
    Spread(TransferId),
    Gather(Key),
    Judge(Key),
    Ending(Key, Ending),
    Forget,
}

impl Pending {
    /// A report waits for these, for a while.
    fn matters(&self) -> bool {
        match self {
            Self::Symbols(_) | Self::Report { .. } | Self::Gather(_) | Self::Judge(_) | Self::Ending(..) => true,
            Self::Counter(_) | Self::Rows(..) | Self::Spread(_) | Self::Forget => false,
        }
    }
}

impl Station {
    /// A station with what it committed before (relative keys and values, any order).
    pub fn new(now: Instant, config: Config, restored: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut ring = KeyRing::new(config.station);
        ring.set_epoch(config.epoch);
        let mut peers = BTreeMap::new();
        for p in &config.peers {
            ring.add(&config.name, &p.name, p.station, p.protection, &p.keys);
            let peer = Peer { agrees: config.fresh, ..Peer::new(p.name.clone(), PeerRecord::default()) };
            peers.insert(p.station, peer);
        }
        let mut station = Self {
            air: Air::new(config.waveform.clone()),
            burst: Burst::default(),
            ring,
            peers,
            outgoing: BTreeMap::new(),
            queued: VecDeque::new(),
            left_over: BTreeMap::new(),
            partials: BTreeMap::new(),
            finished: BTreeMap::new(),
            finished_order: VecDeque::new(),
            phase: Phase::Quiet,
            carrier: None,
            carrier_stuck: false,
            hearing: None,
            carrier_tells: false,
            awaited: BTreeSet::new(),
            await_until: None,
            hold: None,
            settle: None,
            report_at: None,
            retry: None,
            sweep: Some(now + SWEEP),
            lowest: Some(Precedence::Deferred),
            blocked: None,
            report_blocked: false,
            probe_blocked: false,
            asked: None,
            counter: 0,
            counter_limit: 0,
            counter_reserving: false,
            highest: config.highest,
            suspended: false,
            turn: 0,
            ticket: 0,
            pending: BTreeMap::new(),
            committing: false,
            chance: config.seed ^ u64::from(config.station) << 56 ^ u64::from(config.epoch),
            counts: Counts::default(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            config,
        };
        station.restore(now, restored);
        for (number, p) in station.peers.iter().filter(|(_, p)| p.record.epoch != 0) {
            station.ring.heard_from(*number, p.record.epoch, p.record.control_seen);
        }
        station.reserve_counters();
        station
    }

    /// Takes what the modem reports.
    pub fn handle_modem(&mut self, now: Instant, event: ModemEvent) {
        match event {
            ModemEvent::Keyed => self.keyed(now),
            ModemEvent::Unkeyed => self.unkeyed(now),
            ModemEvent::Carrier(true) => {
                self.carrier = Some(now);
                self.carrier_stuck = false;
                if !matches!(self.phase, Phase::Keyed(_)) {
                    self.hear(now);
                }
            }
            ModemEvent::Carrier(false) => {
                self.carrier = None;
                if self.carrier_stuck {
                    self.carrier_stuck = false;
                }
                if let Phase::Asked { since, .. } = &mut self.phase {
                    *since = now;
                }
                self.heard(now);
            }
            ModemEvent::Received(bytes) => self.received(now, &bytes),
            ModemEvent::Fault(text) => {
                self.events.push_back(Event::Alarm(format!("modem: {text}")));
                self.break_off(now);
                self.phase = Phase::Down;
                (self.carrier, self.carrier_stuck, self.hearing) = (None, false, None);
            }
            ModemEvent::Ready => {
                if matches!(self.phase, Phase::Down) {
                    self.phase = Phase::Quiet;
                    self.hold_for(now, self.rank_delay());
                }
            }
        }
    }

    /// Acts on every deadline at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: &mut Option<Instant>| at.take_if(|t| *t <= now).is_some();
        due(&mut self.hold);
        due(&mut self.settle);
        due(&mut self.report_at);
        for p in self.peers.values_mut() {
            due(&mut p.not_before);
        }
        for t in self.outgoing.values_mut() {
            due(&mut t.not_before);
        }
        if due(&mut self.retry) {
            self.retry_commits(now);
        }
        if due(&mut self.sweep) {
            let puts = std::mem::take(&mut self.left_over).into_keys().map(|id| (outgoing_key(&id), None)).collect();
            self.forget(puts);
        }
        self.watch_carrier(now);
        self.watch_modem(now);
        let later: Vec<Key> = self
            .partials
            .iter()
            .filter(|(_, p)| matches!(p.stage, Stage::Later(_, at) if at <= now))
            .map(|(k, _)| *k)
            .collect();
        later.into_iter().for_each(|key| self.offer(key));
        if self.await_until.is_some_and(|t| t <= now) && (!self.listening() || self.carrier_stuck) {
            self.unanswered(now);
        }
    }

    /// Takes a frozen payload to carry. The same id again (after a restart) goes on where it was.
    pub fn send(&mut self, now: Instant, transfer: Transfer) {
        if let Some(known) = self.outgoing.get_mut(&transfer.id) {
            known.transfer.precedence = transfer.precedence;
            return;
        }
        let Some(station) = self.peers.iter().find(|(_, p)| p.name == transfer.to).map(|(s, _)| *s) else {
            self.events.push_back(Event::Alarm(format!("{} is no peer of this link", transfer.to)));
            self.events.push_back(Event::Refused { id: transfer.id, reason: 0 });
            return;
        };
        let Some(geometry) = Geometry::of_payload(transfer.payload.len()) else {
            self.events.push_back(Event::Refused { id: transfer.id, reason: REFUSED_TOO_LARGE });
            return;
        };
        let tag = short(transfer.id.epoch, transfer.id.counter);
        let cancelled = self.peers.get(&station).is_some_and(|p| p.cancels.contains_key(&tag));
        if cancelled || self.outgoing.values().any(|t| t.station == station && t.short() == tag) {
            // Two live transfers may not share a short id; this one waits for the other to end.
            self.queued.push_back(transfer);
            return;
        }
        if transfer.id.epoch == self.config.epoch {
            self.highest = self.highest.max(transfer.id.counter);
        }
        let record = self.left_over.remove(&transfer.id).unwrap_or_default();
        let id = transfer.id.clone();
        let payload = transfer.payload.clone();
        let mut outgoing = Outgoing::new(transfer, station, geometry, record);
        if let Some(peer) = self.peers.get_mut(&station) {
            outgoing.unsure |= !peer.agrees && peer.attempts < ASKED_IN_VAIN;
            if !self.awaited.contains(&station) {
                peer.not_before = None;
            }
        }
        let idle = self.outgoing.is_empty() && self.await_until.is_none() && self.hearing.is_none();
        self.outgoing.insert(id.clone(), outgoing);
        let ticket = self.ticket(Pending::Spread(id.clone()));
        self.events.push_back(Event::Job { ticket, job: Job::Spread { payload } });
        self.reserve_rows(&id);
        if idle && self.hold.is_none() && matches!(self.phase, Phase::Quiet) {
            self.hold_for(now, self.rank_delay());
        }
    }

    /// Changes the level of service of a transfer.
    pub fn expedite(&mut self, _now: Instant, id: &TransferId, precedence: Precedence) {
        if let Some(t) = self.outgoing.get_mut(id) {
            t.transfer.precedence = precedence;
        }
        self.queued.iter_mut().filter(|t| t.id == *id).for_each(|t| t.precedence = precedence);
    }

    /// Gives a transfer up. The far side is told, so that it can free what it holds.
    pub fn cancel(&mut self, now: Instant, id: &TransferId) {
        self.queued.retain(|t| t.id != *id);
        if self.left_over.remove(id).is_some() {
            self.forget(vec![(outgoing_key(id), None)]);
        }
        let Some(t) = self.outgoing.remove(id) else { return };
        if t.record.reserved > 0
            && let Some(peer) = self.peers.get_mut(&t.station)
        {
            peer.cancels.insert(t.short(), 0);
        }
        self.forget(vec![(outgoing_key(id), None)]);
        self.next_queued(now);
    }

    /// A commit asked for by [`Event::Persist`] was done, or failed.
    pub fn stored(&mut self, now: Instant, ticket: u64, ok: bool) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        if !ok {
            self.retry.get_or_insert(now + RETRY);
        }
        match pending {
            Pending::Counter(limit) => {
                self.counter_reserving = false;
                if ok {
                    self.counter_limit = limit;
                }
            }
            Pending::Rows(id, rows) => {
                if let Some(t) = self.outgoing.get_mut(&id) {
                    t.reserving = false;
                    if ok {
                        t.record.reserved = t.record.reserved.max(rows);
                        self.extend(&id);
                    }
                }
            }
            Pending::Symbols(batches) => {
                self.committing = false;
                for (key, numbers) in batches.into_iter().filter(|_| ok) {
                    let Some(p) = self.partials.get_mut(&key) else { continue };
                    for q in numbers {
                        if let Some((_, committed)) = p.symbols.get_mut(&q) {
                            *committed = true;
                        }
                    }
                }
                if ok {
                    self.commit_symbols();
                }
            }
            Pending::Report { station, epoch, sequence, report } if ok => {
                self.apply(now, station, epoch, sequence, report);
            }
            Pending::Ending(key, ending) => self.ended(key, ending, ok),
            Pending::Report { .. } | Pending::Forget => {}
            Pending::Spread(_) | Pending::Gather(_) | Pending::Judge(_) => {}
        }
    }

    /// A job asked for by [`Event::Job`] was done.
    pub fn job_done(&mut self, _now: Instant, ticket: u64, done: JobDone) {
        match (self.pending.remove(&ticket), done) {
            (Some(Pending::Spread(id)), JobDone::Spread(symbols)) => {
                if let Some(t) = self.outgoing.get_mut(&id) {
                    t.symbols = Some(symbols);
                }
                self.extend(&id);
            }
            (Some(Pending::Gather(key)), JobDone::Gathered(Some(payload))) => {
                if let Some(p) = self.partials.get_mut(&key) {
                    p.stage = Stage::Judged(payload);
                    self.offer(key);
                }
            }
            (Some(Pending::Gather(key)), JobDone::Gathered(None)) => {
                self.counts.forged += 1;
                self.events.push_back(Event::Alarm("symbols of one transfer contradict each other".into()));
                self.drop_partial(key);
            }
            _ => {}
        }
    }

    /// What the switch says about a payload from [`Event::Whole`].
    pub fn settled(&mut self, now: Instant, ticket: u64, verdict: Verdict) {
        let Some(Pending::Judge(key)) = self.pending.remove(&ticket) else { return };
        match verdict {
            Verdict::Accepted => self.end(key, Ending::Accepted),
            Verdict::Refused(reason) => self.end(key, Ending::Refused(reason)),
            Verdict::Later => {
                if let Some(p) = self.partials.get_mut(&key)
                    && let Stage::Judged(payload) = &p.stage
                {
                    p.stage = Stage::Later(payload.clone(), now + LATER);
                }
            }
            Verdict::Forged => {
                self.counts.forged += 1;
                self.events
                    .push_back(Event::Alarm(format!("a payload from {} has a wrong seal", self.peer_name(key.0))));
                self.drop_partial(key);
                self.answer(key);
            }
        }
    }

    /// The order in force carries traffic from this precedence on (`None`: none at all). The gate asks about a transmission's highest;
    /// what rides behind it, and what turns up while a report is keyed, is kept back by this.
    pub fn carry_from(&mut self, lowest: Option<Precedence>) {
        self.lowest = lowest;
    }

    /// An order was loosened, or a window opened: what was refused may be asked for again.
    pub fn resume_air(&mut self, now: Instant) {
        self.blocked = None;
        self.report_blocked = false;
        self.probe_blocked = false;
        if matches!(self.phase, Phase::Quiet) && self.hold.is_none() && self.await_until.is_none() {
            self.hold_for(now, self.rank_delay());
        }
    }

    /// The store's epoch is in doubt: nothing leaves before [`Station::renew`].
    pub fn suspend(&mut self, now: Instant) {
        self.suspended = true;
        self.aborted(now);
    }

    /// Goes on under another epoch, which is durable. What was carried under the old one is forgotten: it comes again, frozen anew.
    pub fn renew(&mut self, now: Instant, epoch: u32) {
        (self.config.epoch, self.highest, self.suspended) = (epoch, 0, false);
        self.ring.set_epoch(epoch);
        self.queued.clear();
        let left_over = std::mem::take(&mut self.left_over).into_keys();
        let old = std::mem::take(&mut self.outgoing).into_keys().chain(left_over);
        let puts = old.map(|id| (outgoing_key(&id), None)).collect();
        self.forget(puts);
        for p in self.peers.values_mut() {
            (p.agrees, p.sent_frames, p.told, p.took) = (true, 0, false, false);
            p.cancels.clear();
        }
        self.hold_for(now, self.rank_delay());
    }

    /// What this station would put on the air now, if it may.
    pub fn want(&mut self, now: Instant) -> Option<Want> {
        if self.suspended {
            return None;
        }
        let w = self.config.waveform.clone();
        if let Phase::Keyed(tx) = &self.phase {
            if tx.ended || now < feed_due(tx, &w) {
                return None;
            }
            let (blocks, last) = (tx.blocks_fed + 1, tx.blocks_fed + 1 >= tx.blocks);
            let end = tx.keyed + self.air.transmission(blocks + u64::from(!last));
            let planned = tx.keyed + self.air.transmission(tx.blocks);
            self.asked = Some(tx.plan.purpose);
            return Some(Want { purpose: tx.plan.purpose, airtime: end.since(now), planned: planned.since(now) });
        }
        let plan = self.plan(now)?;
        self.asked = Some(plan.purpose);
        let planned = self.air.transmission(plan.blocks);
        Some(Want { purpose: plan.purpose, airtime: planned.min(self.air.transmission(2)), planned })
    }

    /// Turns a permit into what [`Station::want`] spoke of.
    pub fn poll_emission(&mut self, now: Instant, permit: AirPermit<'_>) -> Option<Emission> {
        if let Phase::Keyed(tx) = &self.phase {
            if tx.ended || now < feed_due(tx, &self.config.waveform) {
                return None;
            }
            let bytes = self.feed(now)?;
            return Some(permit.feed(bytes));
        }
        let plan = self.plan(now)?;
        self.phase = Phase::Asked { since: now, plan };
        self.hold = None;
        Some(permit.key())
    }

    /// The gate refused: nothing was taken; the same is not asked for again before [`Station::resume_air`].
    pub fn silenced(&mut self, now: Instant, _why: Silence) {
        if let Phase::Keyed(tx) = &mut self.phase {
            // What the modem holds has leave; nothing follows it.
            if !tx.ended {
                tx.ended = true;
                tx.blocks = tx.blocks_fed.max(1);
                self.actions.push_back(ModemAction::Unkey);
            }
            return;
        }
        match self.asked.take() {
            Some(Purpose::Traffic(p)) => self.blocked = Some(self.blocked.map_or(p, |b| b.max(p))),
            Some(Purpose::Report(_)) => self.report_blocked = true,
            Some(Purpose::Probe) => self.probe_blocked = true,
            None => {}
        }
        let _ = now;
    }

    /// Whether the modem was asked to key, or is keyed: it may hold a request back while it receives.
    pub fn is_keying(&self) -> bool {
        matches!(self.phase, Phase::Asked { .. } | Phase::Keyed(_))
    }

    /// A key request that the modem holds back: what for, and how long its carrier would last at the least.
    pub fn held_back(&self) -> Option<(Purpose, Duration)> {
        match &self.phase {
            Phase::Asked { plan, .. } => Some((plan.purpose, self.air.transmission(1))),
            Phase::Down | Phase::Quiet | Phase::Keyed(_) => None,
        }
    }

    /// An order fell while keyed and the modem was aborted: what was under way counts as not said.
    pub fn aborted(&mut self, now: Instant) {
        self.break_off(now);
        if !matches!(self.phase, Phase::Down) {
            self.phase = Phase::Quiet;
        }
    }

    /// The next thing the modem must do that does not radiate.
    pub fn poll_action(&mut self) -> Option<ModemAction> {
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How much it holds in memory now.
    pub fn sizes(&self) -> StationSizes {
        StationSizes {
            outgoing: self.outgoing.len(),
            queued: self.queued.len(),
            partials: self.partials.len(),
            partial_bytes: self.partials.values().map(|p| p.geometry.coded() as usize).sum(),
            finished: self.finished.len(),
            pending: self.pending.len(),
        }
    }

    /// Estimated frame loss towards a peer.
    pub fn loss(&self, station: u8) -> Option<f64> {
        self.peers.get(&station).map(|p| p.record.loss())
    }

    /// When `handle_timeout` next has work, or [`Station::want`] something new to say.
    pub fn next_timeout(&self) -> Option<Instant> {
        let mut times = vec![self.hold, self.settle, self.report_at, self.retry, self.sweep];
        times.extend(self.peers.values().map(|p| p.not_before));
        times.extend(self.outgoing.values().map(|t| t.not_before));
        times.extend(self.partials.values().map(|p| match p.stage {
            Stage::Later(_, at) => Some(at),
            Stage::Filling | Stage::Gathering | Stage::Judged(_) | Stage::Ending(..) => None,
        }));
        if !self.listening() || self.carrier_stuck {
            times.push(self.await_until);
        }
        if let Some(since) = self.carrier.filter(|_| !self.carrier_stuck) {
            times.push(Some(since + self.config.carrier_stuck_after));
        }
        times.push(self.silence_at());
        match &self.phase {
            Phase::Asked { since, .. } => times.push(self.key_due(*since)),
            Phase::Keyed(tx) if !tx.ended => times.push(Some(feed_due(tx, &self.config.waveform))),
            Phase::Keyed(tx) => times.push(Some(self.unkey_limit(tx))),
            Phase::Down | Phase::Quiet => {}
        }
        times.into_iter().flatten().min()
    }
}

// Turns: when to key, what for, for how long.
impl Station {
    fn plan(&mut self, now: Instant) -> Option<Plan> {
        let clear = !self.listening() && (self.carrier.is_none() || self.carrier_stuck);
        if !matches!(self.phase, Phase::Quiet) || !clear || self.counter + 16 > self.counter_limit {
            return None;
        }
        if self.settle.is_some_and(|t| now < t) && self.pending.values().any(Pending::matters) {
            return None;
        }
        let reporting = self.reporting(now);
        let own_turn = self.await_until.is_none() && self.hold.is_none_or(|t| t <= now);
        if reporting.is_empty() && !own_turn {
            return None;
        }
        let speakable: Vec<&Outgoing> = self.outgoing.values().filter(|t| self.eligible(t, now)).collect();
        let top = speakable.iter().map(|t| t.transfer.precedence).max();
        let cancels =
            !self.probe_blocked && self.peers.values().any(|p| !p.cancels.is_empty() && ready(p.not_before, now));
        let purpose = match (top, reporting.is_empty()) {
            (Some(top), _) => Purpose::Traffic(top),
            (None, false) => Purpose::Report(self.report_rank(&reporting)),
            (None, true) if cancels => Purpose::Probe,
            (None, true) => return None,
        };
        let mut units = 0;
        let (loss, layout) = self.lay_out(&speakable);
        for t in speakable.iter().filter(|t| !t.unsure) {
            units += (u64::from(t.missing()) * t.geometry.symbol_bytes() as u64).div_ceil(UNIT as u64);
        }
        let controls: BTreeSet<u8> = speakable
            .iter()
            .filter(|t| self.must_greet(t))
            .map(|t| t.station)
            .chain(reporting.iter().copied())
            .collect();
        let most = self.air.most_blocks(self.cap(top, &speakable, &reporting));
        let blocks = if units == 0 {
            self.air.blocks(self.words(&reporting, &speakable) as u64)
        } else {
            let units = units + (speakable.len() as u64 - 1) * 6 / UNIT as u64 + controls.len() as u64 * 4;
            let units = usize::try_from(units).unwrap_or(usize::MAX).min(1 << 20);
            self.burst.blocks_for(&self.air, &layout, units, loss, most)
        };
        let top = top.unwrap_or_else(|| self.report_rank(&reporting));
        Some(Plan { purpose, top, blocks })
    }

    /// Bytes of the control frames of a transmission that carries nothing else.
    fn words(&self, reporting: &BTreeSet<u8>, speakable: &[&Outgoing]) -> usize {
        let mut bytes = 0;
        for (number, p) in &self.peers {
            let asked = speakable.iter().filter(|t| t.station == *number && t.unsure).count().min(12);
            let cancels = if self.probe_blocked { 0 } else { p.cancels.len().min(12) };
            let reports = reporting.contains(number);
            bytes += match (reports.then(|| self.brief_standings(*number)).flatten(), asked + cancels) {
                (Some(standings), 0) => BRIEF_OVERHEAD + standings.iter().map(|(_, s)| s.bytes()).sum::<usize>(),
                (None, 0) if !reports => 0,
                _ if reports => CONTROL_OVERHEAD + MINIMAL_FRAME + 48,
                (_, said) => CONTROL_OVERHEAD + 7 + 4 + 2 * said,
            };
        }
        bytes.max(BRIEF_OVERHEAD + 3)
    }

    /// What a brief report to a station would say; `None` when it must hear more: our epoch, or what is known of its past.
    fn brief_standings(&self, station: u8) -> Option<Vec<(u16, Standing)>> {
        let p = self.peers.get(&station)?;
        let acquainted = (p.took || p.record.knows == self.config.epoch) && p.record.epoch != 0 && !p.polled;
        if !acquainted || self.counter + 1 >= self.counter_limit {
            return None;
        }
        let standings: Vec<_> = p.answer.iter().map(|s| (*s, self.standing(station, *s))).collect();
        (standings.iter().map(|(_, s)| s.bytes()).sum::<usize>() <= BRIEF_STANDINGS).then_some(standings)
    }

    /// The loss these transfers are to expect, and how their frames are best laid out for it.
    fn lay_out(&self, transfers: &[&Outgoing]) -> (f64, Layout) {
        let loss = transfers.iter().map(|t| self.loss_to(t.station)).fold(0.0, f64::max);
        let symbol = transfers.iter().map(|t| t.geometry.symbol_bytes()).max().unwrap_or(UNIT);
        (loss, self.air.layout(loss, symbol))
    }

    /// Estimated share of cells lost towards a station.
    fn loss_to(&self, station: u8) -> f64 {
        self.peers.get(&station).map_or(0.05, |p| p.record.loss())
    }

    /// Stations a report is owed to and may be said to now.
    fn reporting(&self, now: Instant) -> BTreeSet<u8> {
        if self.report_blocked || self.report_at.is_some_and(|t| now < t) {
            return BTreeSet::new();
        }
        self.peers.iter().filter(|(_, p)| p.owed).map(|(s, _)| *s).collect()
    }

    /// Whether there is something of this transfer to say or to ask.
    fn eligible(&self, t: &Outgoing, now: Instant) -> bool {
        let Some(peer) = self.peers.get(&t.station) else { return false };
        let answering = peer.owed && !self.report_blocked;
        self.lowest.is_some_and(|l| t.transfer.precedence >= l)
            && self.blocked.is_none_or(|b| t.transfer.precedence > b)
            && ready(t.not_before, now)
            && (answering || ready(peer.not_before, now) && !self.awaited.contains(&t.station))
            && (t.unsure || t.missing() > 0)
            && (t.next_bytes().is_some() || t.unsure)
            && t.symbols.is_some()
    }

    /// Whether the peer must hear our epoch, or how urgent this is.
    fn must_greet(&self, t: &Outgoing) -> bool {
        t.unsure
            || t.transfer.precedence >= Precedence::Immediate
            || self.peers.get(&t.station).is_none_or(|p| p.record.knows != self.config.epoch)
    }

    /// 127.5 s only when both ways are known to hold ROUTINE alone (D4).
    fn cap(&self, top: Option<Precedence>, speakable: &[&Outgoing], reporting: &BTreeSet<u8>) -> Duration {
        let calm = |s: &u8| {
            self.peers
                .get(s)
                .is_some_and(|p| matches!(p.waiting, Some(w) if w.is_none_or(|w| w <= Precedence::Routine)))
        };
        let all_calm = speakable.iter().map(|t| &t.station).chain(reporting).all(calm);
        if top.is_none_or(|t| t <= Precedence::Routine) && all_calm {
            self.config.max_transmission_routine
        } else {
            self.config.max_transmission
        }
    }

    fn report_rank(&self, reporting: &BTreeSet<u8>) -> Precedence {
        let stated = reporting.iter().filter_map(|s| self.peers.get(s)?.waiting?);
        stated.max().unwrap_or(Precedence::Routine)
    }

    fn keyed(&mut self, now: Instant) {
        let Phase::Asked { plan, .. } = std::mem::replace(&mut self.phase, Phase::Quiet) else {
            // A key that nobody asked for, or that comes after it was given up.
            self.events.push_back(Event::Alarm("the modem keyed without leave".into()));
            self.actions.push_back(ModemAction::Abort);
            return;
        };
        self.counts.transmissions += 1;
        (self.settle, self.report_at, self.await_until, self.hearing) = (None, None, None, None);
        self.awaited.clear();
        let speakable: Vec<&Outgoing> = self.outgoing.values().filter(|t| self.eligible(t, now)).collect();
        let most = self.air.most_blocks(self.cap(Some(plan.top), &speakable, &self.reporting(now))).max(plan.blocks);
        let transfers = speakable.iter().map(|t| t.transfer.id.clone()).collect();
        let (_, layout) = self.lay_out(&speakable);
        self.events.push_back(Event::Keyed { at: now, precedence: plan.top, transfers });
        self.phase = Phase::Keyed(Box::new(Transmission {
            keyed: now,
            most,
            blocks: plan.blocks,
            plan,
            blocks_fed: 0,
            pieces: 0,
            made: 0,
            out: 0,
            carry: Vec::new(),
            composed: false,
            lead: VecDeque::new(),
            copies: Vec::new(),
            next_copy: 0,
            layout,
            frames: BTreeMap::new(),
            shares: BTreeMap::new(),
            expects: BTreeSet::new(),
            ended: false,
            alarmed: false,
        }));
    }

    fn unkeyed(&mut self, now: Instant) {
        let Phase::Keyed(tx) = std::mem::replace(&mut self.phase, Phase::Quiet) else { return };
        self.account(now, &tx);
        for station in &tx.expects {
            if let Some(p) = self.peers.get_mut(station) {
                p.sent_frames = tx.frames.get(station).copied().unwrap_or(0);
                p.sent_cells = tx.layout.cells;
            }
        }
        if tx.expects.is_empty() {
            // Whoever was reported to goes on, if it has more: let it.
            let w = &self.config.waveform;
            let more = self.peers.values().any(|p| !matches!(p.waiting, Some(None)));
            if more || !self.partials.is_empty() {
                self.hold_for(now, w.turnaround + Duration::from_secs(3));
            }
        } else {
            let slots = self.air.report() * (tx.expects.len() as u32 - 1);
            self.await_until = Some(now + self.air.turn() + self.config.waveform.block + slots);
            self.awaited = tx.expects;
        }
    }

    /// The transmission under way ended without being known to have been heard.
    fn break_off(&mut self, now: Instant) {
        if let Phase::Keyed(tx) = std::mem::replace(&mut self.phase, Phase::Quiet) {
            self.account(now, &tx);
            for s in &tx.expects {
                if let Some(p) = self.peers.get_mut(s) {
                    p.sent_frames = 0;
                }
            }
        }
        (self.await_until, self.settle) = (None, None);
        self.awaited.clear();
    }

    fn account(&mut self, now: Instant, tx: &Transmission) {
        let air = now.since(tx.keyed);
        let total = tx.out.max(tx.shares.values().sum()).max(1);
        for (id, bytes) in &tx.shares {
            if let Some(t) = self.outgoing.get_mut(id) {
                t.bytes += bytes;
                t.air += Duration::from_nanos((air.as_nanos() * u128::from(*bytes) / u128::from(total)) as u64);
                t.unsure = true;
            }
        }
        self.events.push_back(Event::Unkeyed { air, bytes: tx.out });
    }

    /// Those who should have answered did not: ask them again, later each time.
    fn unanswered(&mut self, now: Instant) {
        self.await_until = None;
        for station in std::mem::take(&mut self.awaited) {
            self.counts.unanswered += 1;
            let chance = self.draw();
            let Some(p) = self.peers.get_mut(&station) else { continue };
            p.attempts += 1;
            #[cfg(feature = "mutations")]
            if crate::mutation::is(crate::mutation::Mutation::GiveUp) {
                p.not_before = Some(now + Duration::from_secs(30 * 86_400));
                continue;
            }
            let in_vain = p.attempts == ASKED_IN_VAIN && !p.agrees;
            if in_vain {
                // Mail for one who keeps radio silence must not wait for its word.
                self.outgoing.values_mut().filter(|t| t.station == station && t.unsent).for_each(|t| t.unsure = false);
            }
            let tries = if in_vain { 1 } else { p.attempts };
            let slot = self.config.waveform.turnaround + Duration::from_secs(2);
            p.not_before = Some(now + back_off(tries, self.config.station > station, slot, chance));
            if p.attempts == 8 {
                self.events.push_back(Event::Alarm(format!("{} does not answer", p.name)));
            }
        }
    }

    fn watch_carrier(&mut self, now: Instant) {
        if let Some(since) = self.carrier.filter(|_| !self.carrier_stuck)
            && since + self.config.carrier_stuck_after <= now
        {
            self.carrier_stuck = true;
            self.events.push_back(Event::Alarm("carrier detect is stuck on; going on as if it were off".into()));
        }
        if self.silence_at().is_some_and(|t| t <= now) {
            self.fell_silent(now);
        }
    }

    /// Without a usable carrier line, a transmission is over when nothing came for two blocks.
    fn silence_at(&self) -> Option<Instant> {
        let h = self.hearing.as_ref().filter(|_| self.carrier.is_none() || self.carrier_stuck)?;
        let ceased = h.last + self.config.waveform.block * 2 + Duration::from_secs(1);
        Some(self.noise_at().map_or(ceased, |t| t.min(ceased)))
    }

    /// Until when a frame must have been whole, where bytes come without a carrier and it is not known that this is noise.
    fn noise_at(&self) -> Option<Instant> {
        let h = self.hearing.as_ref().filter(|h| !self.carrier_tells && !h.made_sense())?;
        let frame = self.config.waveform.rate.airtime(u64::from(self.config.waveform.frame_bytes));
        Some(h.since + (frame + self.config.waveform.block) * 3)
    }

    fn watch_modem(&mut self, now: Instant) {
        match &self.phase {
            Phase::Asked { since, .. } if self.key_due(*since).is_some_and(|t| t <= now) => {
                self.events.push_back(Event::Alarm("the modem does not key".into()));
                self.actions.push_back(ModemAction::Abort);
                self.phase = Phase::Quiet;
                self.hold_for(now, Duration::from_secs(30));
            }
            Phase::Keyed(tx) if tx.ended && self.unkey_limit(tx) <= now => {
                let again = tx.alarmed;
                self.actions.push_back(ModemAction::Abort);
                if again {
                    self.break_off(now);
                    self.hold_for(now, Duration::from_secs(30));
                } else {
                    self.events.push_back(Event::Alarm("the key is stuck down".into()));
                    if let Phase::Keyed(tx) = &mut self.phase {
                        tx.alarmed = true;
                    }
                }
            }
            Phase::Down | Phase::Quiet | Phase::Asked { .. } | Phase::Keyed(_) => {}
        }
    }

    /// When a key asked for at `since` is overdue. A modem holds it back while it receives.
    fn key_due(&self, since: Instant) -> Option<Instant> {
        let receives = self.carrier.is_some() && !self.carrier_stuck;
        (!receives).then(|| since + self.config.waveform.turnaround + Duration::from_secs(15))
    }

    fn unkey_limit(&self, tx: &Transmission) -> Instant {
        let end = tx.keyed + self.air.transmission(self.air.blocks(tx.out)) + self.config.waveform.block * 2;
        end + Duration::from_secs(if tx.alarmed { 20 } else { 10 })
    }

    /// Lower stations go first on an idle link.
    fn rank_delay(&self) -> Duration {
        let below = self.peers.keys().filter(|s| **s < self.config.station).count() as u32;
        RANK_SPREAD * below / (self.peers.len() as u32).max(1)
    }

    fn hold_for(&mut self, now: Instant, d: Duration) {
        if d > Duration::ZERO {
            self.hold = self.hold.max(Some(now + d));
        }
    }

    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.chance ^ self.chance >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

// Feeding: cells, filled at the last moment.
impl Station {
    fn feed(&mut self, now: Instant) -> Option<Vec<u8>> {
        // The transmission is taken out so that the rest of the station can be asked while it is filled.
        let Phase::Keyed(mut tx) = std::mem::replace(&mut self.phase, Phase::Quiet) else { return None };
        if !tx.composed {
            self.compose(now, &mut tx);
        }
        let total = self.air.capacity(tx.blocks);
        let upto = total.min(self.air.stream_bytes(tx.blocks_fed + 1));
        let mut dry = false;
        while tx.made < upto && !dry {
            dry = !self.fill(now, &mut tx, total);
        }
        let wanted = usize::try_from(upto - tx.out).unwrap_or(usize::MAX).min(tx.carry.len());
        let bytes: Vec<u8> = tx.carry.drain(..wanted).collect();
        tx.out += bytes.len() as u64;
        tx.blocks_fed += 1;
        if tx.out >= total || dry && tx.carry.is_empty() || tx.blocks_fed >= tx.blocks {
            tx.ended = true;
            self.actions.push_back(ModemAction::Unkey);
        }
        self.phase = Phase::Keyed(tx);
        let active: Vec<TransferId> = self.outgoing.keys().cloned().collect();
        active.iter().for_each(|id| self.reserve_rows(id));
        self.reserve_counters();
        Some(bytes)
    }

    /// Decides what this transmission is meant to carry and writes its control frames.
    fn compose(&mut self, now: Instant, tx: &mut Transmission) {
        tx.composed = true;
        let reporting = self.reporting(now);
        for s in &reporting {
            if let Some(p) = self.peers.get_mut(s) {
                p.not_before = None;
            }
        }
        let speakable: Vec<&Outgoing> = self.outgoing.values().filter(|t| self.eligible(t, now)).collect();
        (_, tx.layout) = self.lay_out(&speakable);
        let speakable: BTreeSet<TransferId> = speakable.iter().map(|t| t.transfer.id.clone()).collect();
        let mut greet: BTreeSet<u8> = reporting.clone();
        let mut polls: BTreeMap<u8, Vec<u16>> = BTreeMap::new();
        for (id, t) in &mut self.outgoing {
            t.owed.fill(0);
            if !speakable.contains(id) {
                continue;
            }
            if t.unsure {
                polls.entry(t.station).or_default().push(t.short());
            } else {
                t.owe(with_parity(t.missing(), tx.layout.loss));
            }
        }
        greet.extend(
            speakable.iter().filter_map(|id| self.outgoing.get(id)).filter(|t| self.must_greet(t)).map(|t| t.station),
        );
        if !self.probe_blocked {
            greet.extend(
                self.peers.iter().filter(|(_, p)| !p.cancels.is_empty() && ready(p.not_before, now)).map(|(s, _)| *s),
            );
        }
        let waiting = self.waiting().map_or(0, |p| p.rank() + 1);
        for station in greet {
            let words = polls.contains_key(&station)
                || self
                    .outgoing
                    .values()
                    .any(|t| t.station == station && speakable.contains(&t.transfer.id) && self.must_greet(t))
                || !self.probe_blocked && self.peers.get(&station).is_some_and(|p| !p.cancels.is_empty());
            if !words
                && reporting.contains(&station)
                && let Some(frame) = self.brief(station, waiting)
            {
                tx.lead.push_back((0, frame.clone()));
                tx.lead.push_back((1, frame.clone()));
                tx.copies.push(frame);
                continue;
            }
            let mut items = vec![Item::Hello { waiting, counter: self.highest }];
            let mut asks = false;
            if let Some(shorts) = polls.remove(&station) {
                self.counts.polls += 1;
                asks = true;
                items.push(Item::Poll(shorts.into_iter().take(12).collect()));
            }
            if let Some(p) = self.peers.get_mut(&station)
                && !p.cancels.is_empty()
            {
                asks = true;
                items.push(Item::Cancel(p.cancels.keys().copied().take(12).collect()));
                p.cancels.values_mut().take(12).for_each(|told| *told = told.saturating_add(1));
                p.cancels.retain(|_, told| *told < 4);
            }
            if reporting.contains(&station) {
                let used: usize = items.iter().map(item_bytes).sum();
                items.push(Item::Report(self.report(station, used)));
            }
            if asks {
                tx.expects.insert(station);
            }
            let important = asks || reporting.contains(&station);
            let Some(frame) = self.control(station, items) else { continue };
            tx.lead.push_back((0, frame.clone()));
            if important {
                tx.lead.push_back((1, frame.clone()));
            }
            tx.copies.push(frame);
        }
        tx.lead.make_contiguous().sort_by_key(|(cell, _)| *cell);
        // Each has its room, or what is asked and answered here would never be said: a poll with a full report may be longer than the
        // shortest transmission at a low rate.
        let frame = u64::from(self.config.waveform.frame_bytes).max(MINIMAL_FRAME as u64);
        let end = tx.lead.iter().filter(|(cell, _)| *cell == 0).fold(0, |end, (_, control)| {
            let (left, length) = (frame - end % frame, control.len() as u64);
            if length > left { end + left + length } else { end + length }
        });
        tx.blocks = tx.blocks.max(self.air.blocks(end).min(tx.most));
    }

    /// Makes the next piece of the stream; false when there is nothing left to put into it.
    fn fill(&mut self, now: Instant, tx: &mut Transmission, total: u64) -> bool {
        let stride = tx.layout.stride.max(MINIMAL_FRAME);
        let left = usize::try_from(total - tx.made).unwrap_or(usize::MAX);
        let room = if tx.layout.packed { left } else { (stride - tx.made as usize % stride).min(left) };
        let mut bytes: Vec<u8> = Vec::with_capacity(stride);
        while let Some((from, control)) = tx.lead.front() {
            if *from > tx.pieces || bytes.len() + control.len() > room {
                break;
            }
            bytes.extend(control);
            tx.lead.pop_front();
        }
        if tx.layout.packed {
            // A symbol longer than planned for still goes; it is the frame that counts then.
            let most = stride.max(self.largest_waiting(now).map_or(0, |n| n + FRAME_OVERHEAD));
            bytes.extend(self.symbols(now, tx, most.min(room - bytes.len())).unwrap_or_default());
        } else {
            // Beside control frames the rest of a cell may be too small for anything; alone, a frame fills its stride.
            while let Some(symbols) = self.symbols(now, tx, room - bytes.len()) {
                bytes.extend(symbols);
            }
        }
        if bytes.is_empty() && !tx.layout.packed {
            // A symbol larger than a stride (of a long message beside a short one) takes several.
            let whole = self.largest_waiting(now).map_or(0, |n| n + FRAME_OVERHEAD).next_multiple_of(stride);
            if whole > room && whole <= left {
                bytes.extend(self.symbols(now, tx, whole).unwrap_or_default());
            }
        }
        let mut nothing = bytes.is_empty();
        while !tx.copies.is_empty() && (!tx.layout.packed || nothing) {
            let copy = &tx.copies[tx.next_copy % tx.copies.len()];
            if bytes.len() + copy.len() > room {
                break;
            }
            bytes.extend(copy);
            tx.next_copy += 1;
            nothing = false;
        }
        if nothing {
            return false;
        }
        let padded = if tx.layout.packed { bytes.len() } else { bytes.len().next_multiple_of(stride).max(room) };
        if padded < left {
            bytes.resize(padded, 0);
        }
        tx.pieces += 1;
        tx.made += bytes.len() as u64;
        tx.carry.extend(bytes);
        tx.made < total
    }

    /// One frame of symbols in at most `room` bytes: by precedence while something is owed, then whatever helps.
    fn symbols(&mut self, now: Instant, tx: &mut Transmission, room: usize) -> Option<Vec<u8>> {
        let mut room = room.checked_sub(FRAME_OVERHEAD)?;
        let mut station = None;
        let mut chunks: Vec<Chunk> = Vec::new();
        while chunks.len() < FRAME_CHUNKS {
            let Some(id) = self.choose(now, station, room) else { break };
            let others = self.choose_owed(now, station, &id);
            let Some(t) = self.outgoing.get_mut(&id) else { break };
            let limit = others && t.outstanding() > 0;
            let Some(chunk) = t.take(room, limit) else { break };
            self.turn += 1;
            #[cfg(feature = "mutations")]
            let chunk = mutated(chunk, self.turn);
            t.turn = self.turn;
            t.unsure = true;
            let bytes: usize = chunk.symbols.iter().map(Vec::len).sum();
            let overhead = if chunks.is_empty() { FRAME_OVERHEAD } else { CHUNK_OVERHEAD };
            *tx.shares.entry(id).or_default() += (bytes + overhead) as u64;
            self.counts.repeats += u64::from(t.repeats > 0);
            station = Some(t.station);
            chunks.push(chunk);
            let Some(rest) = room.checked_sub(bytes + CHUNK_OVERHEAD) else { break };
            room = rest;
        }
        let to = station?;
        *tx.frames.entry(to).or_default() += 1;
        tx.expects.insert(to);
        let (key, seal) = self.ring.sending(to)?;
        let address = Address { from: self.config.station, to, key };
        Some(Frame::Symbols { address, chunks }.emit(seal))
    }

    /// Which transfer's symbols go next, to `station` if one is fixed.
    fn choose(&self, now: Instant, station: Option<u8>, room: usize) -> Option<TransferId> {
        let fits = |t: &&Outgoing| {
            station.is_none_or(|s| s == t.station) && self.speaking(t, now) && t.next_bytes().is_some_and(|n| n <= room)
        };
        let order = |t: &&Outgoing| {
            let owed = t.outstanding() > 0;
            #[cfg(feature = "mutations")]
            if crate::mutation::is(crate::mutation::Mutation::IgnorePrecedence) {
                return (!owed, std::cmp::Reverse(Precedence::Routine), t.turn);
            }
            (!owed, std::cmp::Reverse(t.transfer.precedence), t.turn)
        };
        self.outgoing.values().filter(fits).min_by_key(order).map(|t| t.transfer.id.clone())
    }

    fn choose_owed(&self, now: Instant, station: Option<u8>, but: &TransferId) -> bool {
        self.outgoing.values().any(|t| {
            t.transfer.id != *but
                && station.is_none_or(|s| s == t.station)
                && t.outstanding() > 0
                && self.speaking(t, now)
                && t.next_bytes().is_some()
        })
    }

    /// While keyed, symbols of everything incomplete may fly: also of what was just asked about, unless the question is whether its
    /// number is free.
    fn speaking(&self, t: &Outgoing, now: Instant) -> bool {
        let Some(peer) = self.peers.get(&t.station) else { return false };
        !(t.unsent && t.unsure)
            && self.blocked.is_none_or(|b| t.transfer.precedence > b)
            && ready(t.not_before, now)
            && (peer.owed || ready(peer.not_before, now))
            && t.missing() > 0
    }

    fn largest_waiting(&self, now: Instant) -> Option<usize> {
        self.outgoing.values().filter(|t| self.speaking(t, now)).filter_map(Outgoing::next_bytes).max()
    }

    /// Something new became ready while keyed: it rides along, and the transmission grows for it as far as the cap lets it.
    fn extend(&mut self, id: &TransferId) {
        let Phase::Keyed(tx) = &self.phase else { return };
        let Some(t) = self.outgoing.get(id) else { return };
        if tx.ended || t.unsure || t.outstanding() > 0 || t.symbols.is_none() || t.next_bytes().is_none() {
            return;
        }
        if !tx.composed {
            let need = self.air.blocks((t.missing() as usize * (t.geometry.symbol_bytes() + 2)) as u64 + 300);
            if let Phase::Keyed(tx) = &mut self.phase {
                tx.blocks = tx.blocks.max(need.min(tx.most));
            }
            return;
        }
        let layout = tx.layout;
        let total = with_parity(t.missing(), layout.loss);
        if let Some(t) = self.outgoing.get_mut(id) {
            t.owe(total);
        }
        let owed: u64 = self.outgoing.values().map(Outgoing::outstanding_bytes).sum();
        let bytes = owed * layout.stride as u64 / layout.symbol_bytes as u64 + MINIMAL_FRAME as u64;
        if let Phase::Keyed(tx) = &mut self.phase {
            let need = self.air.blocks(tx.made + bytes);
            tx.blocks = tx.blocks.max(need.min(tx.most));
        }
    }

    fn control(&mut self, to: u8, items: Vec<Item>) -> Option<Vec<u8>> {
        if self.counter >= self.counter_limit {
            return None;
        }
        self.counter += 1;
        let (key, seal) = self.ring.sending(to)?;
        let address = Address { from: self.config.station, to, key };
        Some(Frame::Control { address, epoch: self.config.epoch, counter: self.counter, items }.emit(seal))
    }

    /// The report owed to a station, if few bytes can say it.
    fn brief(&mut self, to: u8, waiting: u8) -> Option<Vec<u8>> {
        let standings = self.brief_standings(to)?;
        self.counter += 1;
        let counter = self.counter;
        let p = self.peers.get_mut(&to)?;
        p.answer.clear();
        p.owed = false;
        let context = Context { epoch: self.config.epoch, far: p.record.epoch, counter };
        let heard = p.heard;
        let (key, seal) = self.ring.sending(to)?;
        let address = Address { from: self.config.station, to, key };
        Some(Frame::Brief { address, context, waiting, heard, standings }.emit(seal))
    }

    /// Highest precedence that still has something to say.
    fn waiting(&self) -> Option<Precedence> {
        self.outgoing.values().filter(|t| t.missing() > 0).map(|t| t.transfer.precedence).max()
    }
}

// Hearing: frames in, symbols filed, reports applied.
impl Station {
    fn hear(&mut self, now: Instant) -> &mut Hearing {
        self.hearing.get_or_insert_with(|| {
            self.peers.values_mut().for_each(|p| p.heard = 0);
            Hearing {
                deframer: Deframer::default(),
                since: now,
                last: now,
                from: BTreeSet::new(),
                spoke: BTreeSet::new(),
                others: BTreeSet::new(),
                unsealed: Vec::new(),
            }
        })
    }

    fn received(&mut self, now: Instant, bytes: &[u8]) {
        if matches!(self.phase, Phase::Keyed(_) | Phase::Down) {
            return;
        }
        let h = self.hear(now);
        h.last = now;
        h.deframer.push(bytes);
        let before = self.counts.frames;
        self.drain_frames(now);
        if self.counts.frames > before {
            self.carrier_tells = self.carrier.is_some() && !self.carrier_stuck;
        }
        self.commit_symbols();
    }

    /// Whether somebody is speaking, as far as this station can tell.
    fn listening(&self) -> bool {
        let Some(h) = &self.hearing else { return false };
        (self.carrier.is_some() && !self.carrier_stuck) || !self.carrier_tells || h.made_sense()
    }

    /// Bytes without a carrier have ceased, or have gone on for longer than any frame without making one.
    fn fell_silent(&mut self, now: Instant) {
        if let Some(h) = &mut self.hearing
            && h.last < now
            && self.noise_at().is_some_and(|t| t <= now)
        {
            self.carrier_tells = true;
            return;
        }
        if self.listening() {
            return self.heard(now);
        }
        if let Some(h) = &mut self.hearing {
            h.deframer.finish();
        }
        self.drain_frames(now);
        match self.listening() {
            true => self.heard(now),
            false => self.hearing = None,
        }
    }

    /// A transmission is over.
    fn heard(&mut self, now: Instant) {
        let Some(h) = &mut self.hearing else { return };
        h.deframer.finish();
        self.drain_frames(now);
        self.commit_symbols();
        let Some(h) = self.hearing.take() else { return };
        for from in h.from.difference(&h.spoke) {
            // Who does not know our epoch says hello in every transmission.
            if let Some(p) = self.peers.get_mut(from) {
                p.took |= p.told;
            }
        }
        self.judge_seals(&h);
        self.settle = Some(now + SETTLE);
        if !h.others.is_empty() {
            // Those who were spoken to answer first, lower stations before higher ones, one slot each.
            let before = h.others.iter().filter(|s| **s < self.config.station).count() as u32;
            let all = h.others.len() as u32;
            if before > 0 {
                self.report_at = Some(now + self.air.turn() * before);
            }
            self.hold_for(now, self.air.turn() * all);
        }
        // Whoever spoke is there: what it did not answer is asked again in our next transmission, without back-off.
        self.awaited.retain(|s| !h.from.contains(s));
        if self.awaited.is_empty() {
            self.await_until = None;
        } else if let Some(until) = self.await_until {
            // The answer was lost, or somebody else spoke: no point in waiting for long.
            self.await_until = Some(until.min(now + Duration::from_secs(1)));
        }
        if h.from.is_empty() {
            let spread = self.config.waveform.turnaround.as_millis().max(1) as u64;
            let wait = Duration::from_millis(self.draw() % spread) + self.rank_delay();
            self.hold_for(now, wait);
        }
    }

    fn drain_frames(&mut self, now: Instant) {
        let Some(mut h) = self.hearing.take() else { return };
        while let Some(found) = h.deframer.poll(&self.ring) {
            match found {
                Found::Frame(frame) => {
                    self.counts.frames += 1;
                    let from = frame.address().from;
                    h.from.insert(from);
                    if let Some(p) = self.peers.get_mut(&from) {
                        p.alive();
                    }
                    match frame {
                        Frame::Symbols { chunks, .. } => self.file(now, from, chunks),
                        Frame::Control { epoch, counter, items, .. } => {
                            h.spoke.insert(from);
                            self.listen(now, from, epoch, counter, items);
                        }
                        Frame::Brief { context, waiting, heard, standings, .. } => {
                            self.take_brief(now, from, context, waiting, heard, standings);
                        }
                    }
                }
                Found::Foreign(address) => {
                    if self.peers.contains_key(&address.to) && address.to != address.from {
                        h.others.insert(address.to);
                    }
                }
                Found::Unsealed(address) => {
                    self.counts.unsealed += 1;
                    if h.unsealed.len() < ANSWERS {
                        h.unsealed.push(address);
                    }
                }
            }
        }
        self.hearing = Some(h);
    }

    /// Judges the seals of a transmission that is over: one that holds frames of a peer and not a single one of them fits speaks of
    /// keys when it is not the only one.
    fn judge_seals(&mut self, h: &Hearing) {
        let stations: BTreeSet<u8> = h.unsealed.iter().map(|a| a.from).filter(|s| !h.from.contains(s)).collect();
        for station in stations {
            let frames: Vec<&Address> = h.unsealed.iter().filter(|a| a.from == station).collect();
            let (Some(address), true) = (frames.first(), frames.len() >= UNSEALED_FRAMES) else { continue };
            let holds = self.ring.holds(**address);
            let Some(p) = self.peers.get_mut(&station) else { continue };
            p.unsealed_turns += 1;
            if p.unsealed_turns == UNSEALED_TURNS {
                let what = if holds { "do not authenticate under" } else { "name a key this station lacks:" };
                self.events.push_back(Event::Alarm(format!(
                    "frames from {} {what} key {}: wrong key, or forgery",
                    p.name, address.key
                )));
            }
        }
    }

    fn file(&mut self, now: Instant, from: u8, chunks: Vec<Chunk>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.heard = peer.heard.saturating_add(1);
        peer.owed = true;
        let rank = peer.waiting.flatten().map_or(0, |p| p.rank() + 1);
        for chunk in chunks {
            let Some(peer) = self.peers.get_mut(&from) else { return };
            let (epoch, counter) = peer.record.expand(chunk.short);
            if epoch != 0 {
                peer.record.transfer_seen = peer.record.transfer_seen.max(counter);
            }
            if peer.answer.len() < ANSWERS {
                peer.answer.insert(chunk.short);
            }
            let key = (from, epoch, counter);
            if self.finished.contains_key(&key) {
                continue;
            }
            if self.partials.get(&key).is_some_and(|p| p.geometry != chunk.geometry) {
                // Another payload under the same short id: the sender has long forgotten the old one.
                self.drop_partial(key);
            }
            if !self.partials.contains_key(&key) && !self.make_room(now, key, chunk.geometry) {
                continue;
            }
            let partial = self.partials.entry(key).or_insert_with(|| Partial::new(chunk.geometry, now));
            (partial.touched, partial.rank) = (now, rank);
            for (i, symbol) in chunk.symbols.into_iter().enumerate() {
                partial.take(chunk.first + i as u16, symbol, false);
            }
            // Without the sender's epoch it has no name to be opened and remembered under; a hello will bring it.
            if epoch != 0 && partial.stage == Stage::Filling && partial.is_whole() {
                self.gather(key);
            }
        }
    }

    /// Whether a word of this epoch and counter is new.
    fn admit(&mut self, from: u8, epoch: u32, counter: u32) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else { return false };
        match peer.record.admit(epoch, counter) {
            Admission::Replay => {
                // Copies inside one transmission are normal; an old backup on the other side looks the same, and our report tells it.
                self.counts.replays += 1;
                if peer.record.control_seen.saturating_sub(counter) > 64 {
                    (peer.owed, peer.polled) = (true, true);
                }
                return false;
            }
            Admission::NewEpoch => self.new_epoch(from, epoch),
            Admission::Fresh => {}
        }
        if let Some(peer) = self.peers.get(&from) {
            self.ring.heard_from(from, epoch, peer.record.control_seen);
        }
        true
    }

    /// A report in few bytes: it names no epochs because its seal holds only between these two.
    fn take_brief(
        &mut self,
        now: Instant,
        from: u8,
        context: Context,
        waiting: u8,
        heard: u8,
        standings: Vec<(u16, Standing)>,
    ) {
        if !self.admit(from, context.epoch, context.counter) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.waiting = Some(waiting.checked_sub(1).and_then(Precedence::from_rank));
        }
        let report = Report { epoch: self.config.epoch, heard, standings, ..Report::default() };
        self.take_report(now, from, context.epoch, context.counter, report, false);
    }

    fn listen(&mut self, now: Instant, from: u8, epoch: u32, counter: u32, items: Vec<Item>) {
        if !self.admit(from, epoch, counter) {
            return;
        }
        for item in items {
            let Some(peer) = self.peers.get_mut(&from) else { return };
            match item {
                Item::Hello { waiting, counter } => {
                    peer.waiting = Some(waiting.checked_sub(1).and_then(Precedence::from_rank));
                    peer.record.transfer_seen = peer.record.transfer_seen.max(counter);
                }
                Item::Poll(shorts) => {
                    (peer.owed, peer.polled) = (true, true);
                    peer.answer.extend(shorts.into_iter().take(ANSWERS));
                }
                Item::Cancel(shorts) => {
                    peer.owed = true;
                    for short in shorts {
                        let Some(peer) = self.peers.get_mut(&from) else { return };
                        peer.answer.insert(short);
                        let (epoch, counter) = peer.record.expand(short);
                        self.drop_partial((from, epoch, counter));
                    }
                }
                Item::Report(report) => self.take_report(now, from, epoch, counter, report, true),
            }
        }
    }

    /// A peer speaks under an epoch never heard before: its store is new, or it speaks for the first time.
    fn new_epoch(&mut self, from: u8, epoch: u32) {
        if let Some(p) = self.peers.get_mut(&from) {
            (p.told, p.took) = (false, false);
        }
        let old: Vec<Key> = self.partials.keys().filter(|k| k.0 == from && k.1 != 0 && k.1 != epoch).copied().collect();
        for key in old {
            self.counts.evicted += 1;
            self.drop_partial(key);
        }
        // What was filed under short ids finds its full name now; its batches are written again under it.
        let nameless: Vec<Key> = self.partials.keys().filter(|k| k.0 == from && k.1 == 0).copied().collect();
        for key in nameless {
            let Some((epoch, counter)) = self.peers.get(&from).map(|p| p.record.expand(key.2 as u16)) else { continue };
            let filling = self.partials.get(&key).is_some_and(|p| p.stage == Stage::Filling);
            if epoch == 0 || !filling || self.partials.contains_key(&(from, epoch, counter)) {
                continue;
            }
            let Some(mut partial) = self.partials.remove(&key) else { continue };
            let puts = (0..partial.batches).map(|n| (batch_key(key, n), None)).collect();
            partial.batches = 0;
            partial.symbols.values_mut().for_each(|(_, committed)| *committed = false);
            self.forget(puts);
            let whole = partial.is_whole();
            self.partials.insert((from, epoch, counter), partial);
            if whole {
                self.gather((from, epoch, counter));
            }
        }
    }

    /// A report is committed before it steers anything (A3).
    fn take_report(&mut self, now: Instant, station: u8, epoch: u32, sequence: u32, mut report: Report, full: bool) {
        let Some(peer) = self.peers.get_mut(&station) else { return };
        if report.epoch == self.config.epoch {
            peer.record.knows = report.epoch;
            let unsent =
                |short: u16| self.outgoing.values().any(|t| t.station == station && t.unsent && t.short() == short);
            let known = |(short, standing): &(u16, Standing)| *standing != Standing::Unknown && unsent(*short);
            let ahead = report.transfer_seen > self.highest || report.control_seen > self.counter_limit;
            if ahead || report.standings.iter().any(known) {
                // It speaks of what this store has lost. Nothing it says of these ids is about what they stand for here.
                if !std::mem::replace(&mut self.suspended, true) {
                    self.events.push_back(Event::EpochUsed { peer: peer.name.clone() });
                }
                return;
            }
            // A brief one does not say what it knows of this node's past.
            peer.agrees |= full;
        } else if report.epoch != 0 && report.epoch & 0xF == self.config.epoch & 0xF {
            // Its short ids stood for transfers of a former epoch.
            report.standings.clear();
            report.more = true;
        }
        if peer.sent_frames > 0 {
            peer.record.learn(peer.sent_frames.min(255), u32::from(report.heard), peer.sent_cells);
            peer.sent_frames = 0;
        }
        let mut puts = vec![(peer_key(station), encode(&peer.record))];
        for t in self.outgoing.values().filter(|t| t.station == station) {
            let Some((_, Standing::Lacks(lack))) = report.standings.iter().find(|(s, _)| *s == t.short()) else {
                continue;
            };
            let record = OutgoingRecord {
                peer_epoch: epoch,
                report: sequence,
                lack: lack.clone(),
                reserved: t.record.reserved.max(t.asked_rows),
            };
            puts.push((outgoing_key(&t.transfer.id), encode(&record)));
        }
        let _ = now;
        let ticket = self.ticket(Pending::Report { station, epoch, sequence, report });
        self.events.push_back(Event::Persist { ticket, puts });
    }

    fn apply(&mut self, now: Instant, station: u8, epoch: u32, sequence: u32, report: Report) {
        let ids: Vec<TransferId> =
            self.outgoing.values().filter(|t| t.station == station).map(|t| t.transfer.id.clone()).collect();
        if let Some(p) = self.peers.get_mut(&station) {
            for (short, standing) in &report.standings {
                if !matches!(standing, Standing::Lacks(_)) {
                    p.cancels.remove(short);
                }
            }
        }
        for id in ids {
            let Some(t) = self.outgoing.get_mut(&id) else { continue };
            if t.record.peer_epoch != 0 && t.record.peer_epoch != epoch {
                t.forget_reports();
            } else if t.record.peer_epoch == epoch && sequence <= t.record.report {
                continue;
            }
            (t.record.peer_epoch, t.record.report) = (epoch, sequence);
            let standing = report.standings.iter().find(|(s, _)| *s == t.short()).map(|(_, standing)| standing);
            match standing {
                Some(Standing::Lacks(lack)) if lack.len() == t.lack.len() => {
                    for (block, (known, said)) in t.lack.iter_mut().zip(lack).enumerate() {
                        *known = u32::from(*said).min(t.geometry.block_count(block as u32));
                    }
                    t.record.lack = lack.clone();
                    t.unsure = false;
                    let need = t.geometry.count();
                    let have = need - t.missing();
                    if have == need {
                        // Whole there; the verdict is still out. Ask again, not too soon.
                        t.unsure = true;
                        t.not_before = Some(now + self.air.turn() + Duration::from_secs(5));
                    }
                    let (bytes_on_air, air) = (t.bytes, t.air);
                    self.events.push_back(Event::Progress { id: id.clone(), have, need, bytes_on_air, air });
                    self.reserve_rows(&id);
                }
                Some(Standing::Accepted) => {
                    let (bytes_on_air, air) = (t.bytes, t.air);
                    self.events.push_back(Event::Confirmed { id: id.clone(), bytes_on_air, air });
                    self.close(&id);
                }
                Some(Standing::Refused(reason)) => {
                    self.events.push_back(Event::Refused { id: id.clone(), reason: *reason });
                    self.close(&id);
                }
                Some(Standing::Unknown | Standing::Lacks(_)) => t.forget_reports(),
                None if !report.more => {
                    // Not spoken of. What lacks nothing by the last word still waits for its verdict, which may have been lost with
                    // the far process: it is asked for again, or it would wait for ever. Whether a new number is free is still open.
                    t.unsure = t.missing() == 0 || t.unsent && t.unsure;
                    if t.missing() == 0 {
                        t.not_before = Some(now + self.air.turn() + Duration::from_secs(5));
                    }
                }
                None => {}
            }
        }
        self.next_queued(now);
    }

    /// The far side has the last word on a transfer. What is stored of it stays until the switch has made the outcome durable and
    /// cancels: a restart in between must ask, not send it all again.
    fn close(&mut self, id: &TransferId) {
        if let Some(t) = self.outgoing.remove(id) {
            self.left_over.insert(id.clone(), t.record);
        }
    }

    /// Takes up transfers that waited for a short id to become free.
    fn next_queued(&mut self, now: Instant) {
        for transfer in std::mem::take(&mut self.queued) {
            self.send(now, transfer);
        }
    }

    fn report(&mut self, station: u8, used: usize) -> Report {
        let room = (self.config.waveform.frame_bytes as usize).saturating_sub(CONTROL_OVERHEAD).min(255);
        let mut room = room.saturating_sub(used + REPORT_FIXED).max(24);
        let mut report = Report::default();
        let Some(peer) = self.peers.get_mut(&station) else { return report };
        let mut shorts: Vec<u16> = std::mem::take(&mut peer.answer).into_iter().collect();
        if std::mem::take(&mut peer.polled) {
            let known = self
                .partials
                .keys()
                .filter(|k| k.0 == station)
                .map(|k| short(k.1, k.2) | if k.1 == 0 { k.2 as u16 } else { 0 });
            let more: Vec<u16> = known.filter(|s| !shorts.contains(s)).take(8).collect();
            shorts.extend(more);
        }
        (peer.owed, peer.told) = (false, true);
        report.epoch = peer.record.epoch;
        report.transfer_seen = peer.record.transfer_seen;
        report.control_seen = peer.record.control_seen;
        report.heard = peer.heard;
        let standings: Vec<(u16, Standing)> = shorts.into_iter().map(|s| (s, self.standing(station, s))).collect();
        for (short, standing) in standings {
            match room.checked_sub(standing.bytes()) {
                Some(rest) => {
                    room = rest;
                    report.standings.push((short, standing));
                }
                None => report.more = true,
            }
        }
        report
    }

    fn standing(&self, station: u8, short: u16) -> Standing {
        let Some(peer) = self.peers.get(&station) else { return Standing::Unknown };
        let (epoch, counter) = peer.record.expand(short);
        let keys = [(station, epoch, counter), (station, 0, u32::from(short))];
        for key in keys {
            match self.finished.get(&key) {
                Some(Ending::Accepted) => return Standing::Accepted,
                Some(Ending::Refused(reason)) => return Standing::Refused(*reason),
                None => {}
            }
            if let Some(p) = self.partials.get(&key) {
                return p.standing();
            }
        }
        Standing::Unknown
    }

    /// The next report to that peer speaks of this transfer, soon.
    fn answer(&mut self, key: Key) {
        if let Some(p) = self.peers.get_mut(&key.0) {
            p.answer.insert(if key.1 == 0 { key.2 as u16 } else { short(key.1, key.2) });
            p.owed = true;
        }
    }

    fn peer_name(&self, station: u8) -> String {
        self.peers.get(&station).map_or_else(|| station.to_string(), |p| p.name.to_string())
    }
}

// Custody: what is committed, judged, finished.
impl Station {
    fn gather(&mut self, key: Key) {
        let Some(p) = self.partials.get_mut(&key) else { return };
        p.stage = Stage::Gathering;
        let symbols = p.symbols.iter().map(|(q, (bytes, _))| (*q, bytes.clone())).collect();
        let length = p.geometry.coded();
        let ticket = self.ticket(Pending::Gather(key));
        self.events.push_back(Event::Job { ticket, job: Job::Gather { length, symbols } });
    }

    /// Hands a whole payload to the switch.
    fn offer(&mut self, key: Key) {
        let Some(p) = self.partials.get_mut(&key) else { return };
        let payload = match &p.stage {
            Stage::Judged(payload) | Stage::Later(payload, _) => payload.clone(),
            Stage::Filling | Stage::Gathering | Stage::Ending(..) => return,
        };
        p.stage = Stage::Judged(payload.clone());
        let Some(from) = self.peers.get(&key.0).map(|p| p.name.clone()) else { return };
        let (epoch, counter) = if key.1 == 0 { (key.2 >> 12, key.2 & 0xFFF) } else { (key.1, key.2) };
        let id = TransferId { origin: from.clone(), epoch, counter };
        let ticket = self.ticket(Pending::Judge(key));
        self.events.push_back(Event::Whole { ticket, from, id, payload });
    }

    /// Commits how a transfer ended, and drops its symbols in the same breath; only then is it reported.
    fn end(&mut self, key: Key, ending: Ending) {
        let Some(p) = self.partials.get_mut(&key) else { return };
        p.stage = Stage::Ending(ending, true);
        let mut puts: Vec<_> = (0..p.batches).map(|n| (batch_key(key, n), None)).collect();
        let value = match ending {
            Ending::Accepted => vec![0],
            Ending::Refused(reason) => vec![1, reason],
        };
        puts.push((finished_key(key), Some(value)));
        let ticket = self.ticket(Pending::Ending(key, ending));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    fn ended(&mut self, key: Key, ending: Ending, ok: bool) {
        if !ok {
            if let Some(p) = self.partials.get_mut(&key) {
                p.stage = Stage::Ending(ending, false);
            }
            return;
        }
        self.partials.remove(&key);
        self.remember(key, ending);
        self.answer(key);
        if self.finished.len() > FINISHED
            && let Some(oldest) = self.finished_order.pop_front()
        {
            self.finished.remove(&oldest);
            self.forget(vec![(finished_key(oldest), None)]);
        }
    }

    fn remember(&mut self, key: Key, ending: Ending) {
        if self.finished.insert(key, ending).is_none() {
            self.finished_order.push_back(key);
        }
    }

    fn drop_partial(&mut self, key: Key) {
        let Some(p) = self.partials.remove(&key) else { return };
        let puts = (0..p.batches).map(|n| (batch_key(key, n), None)).collect();
        self.forget(puts);
    }

    /// Makes room for a new partial: the least precedence goes first, and of those the one not heard for longest.
    fn make_room(&mut self, now: Instant, key: Key, geometry: Geometry) -> bool {
        let need = geometry.coded() as usize;
        if need > self.config.max_partial_bytes || self.config.max_partials == 0 {
            self.remember(key, Ending::Refused(REFUSED_TOO_LARGE));
            return false;
        }
        loop {
            let held: usize = self.partials.values().map(|p| p.geometry.coded() as usize).sum();
            if self.partials.len() < self.config.max_partials && held + need <= self.config.max_partial_bytes {
                return true;
            }
            let victim = self
                .partials
                .iter()
                .filter(|(_, p)| p.stage == Stage::Filling && p.touched < now)
                .min_by_key(|(k, p)| (p.rank, p.touched, **k))
                .map(|(k, _)| *k);
            let Some(victim) = victim else { return false };
            self.counts.evicted += 1;
            self.drop_partial(victim);
        }
    }

    /// Commits what has come in, one commit at a time: what arrives meanwhile goes into the next.
    fn commit_symbols(&mut self) {
        if self.committing {
            return;
        }
        let (mut puts, mut batches) = (Vec::new(), Vec::new());
        for (key, p) in &mut self.partials {
            let fresh: Vec<u16> = p.symbols.iter().filter(|(_, (_, committed))| !committed).map(|(q, _)| *q).collect();
            if fresh.is_empty() || matches!(p.stage, Stage::Ending(..)) {
                continue;
            }
            let symbols = fresh.iter().filter_map(|q| p.symbols.get(q).map(|(bytes, _)| (*q, &bytes[..])));
            puts.push((batch_key(*key, p.batches), Some(write_batch(p.geometry, symbols))));
            p.batches += 1;
            batches.push((*key, fresh));
        }
        if puts.is_empty() {
            return;
        }
        for station in batches.iter().map(|(k, _)| k.0).collect::<BTreeSet<u8>>() {
            if let Some(p) = self.peers.get(&station) {
                puts.push((peer_key(station), encode(&p.record)));
            }
        }
        self.committing = true;
        let ticket = self.ticket(Pending::Symbols(batches));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    fn reserve_counters(&mut self) {
        if self.counter_reserving || self.counter + COUNTERS / 4 < self.counter_limit {
            return;
        }
        self.counter_reserving = true;
        let limit = self.counter_limit.max(self.counter).saturating_add(COUNTERS);
        let ticket = self.ticket(Pending::Counter(limit));
        let puts = vec![(b"c".to_vec(), Some(limit.to_be_bytes().to_vec()))];
        self.events.push_back(Event::Persist { ticket, puts });
    }

    /// Keeps the committed cursor ahead of what the next transmission may use, so that no restart sends a symbol twice.
    fn reserve_rows(&mut self, id: &TransferId) {
        let Some(t) = self.outgoing.get_mut(id) else { return };
        // Far enough ahead that filling blocks never waits for the store, and no further: what is reserved and unsent is lost to a restart.
        let block = self.config.waveform.block.as_millis().max(1);
        let blocks = (COMMIT_AHEAD.as_millis().div_ceil(block) as u64).max(2);
        let bytes = self.air.stream_bytes(blocks) + u64::from(self.config.waveform.frame_bytes);
        let ahead = (bytes / t.geometry.symbol_bytes() as u64 / u64::from(t.geometry.blocks())) as u32 + 2;
        if t.reserving || t.record.reserved >= t.next_row() + ahead || t.missing() == 0 {
            return;
        }
        let rows = t.next_row() + ahead + ahead / 4;
        t.reserving = true;
        t.asked_rows = rows;
        let record = OutgoingRecord { reserved: rows, ..t.record.clone() };
        let puts = vec![(outgoing_key(id), encode(&record))];
        let ticket = self.ticket(Pending::Rows(id.clone(), rows));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    fn retry_commits(&mut self, _now: Instant) {
        self.events.push_back(Event::Alarm("the store refused a commit of the link; trying again".into()));
        self.reserve_counters();
        self.commit_symbols();
        let ids: Vec<TransferId> = self.outgoing.keys().cloned().collect();
        ids.iter().for_each(|id| self.reserve_rows(id));
        let failed: Vec<(Key, Ending)> = self
            .partials
            .iter()
            .filter_map(|(k, p)| match p.stage {
                Stage::Ending(ending, false) => Some((*k, ending)),
                Stage::Filling | Stage::Gathering | Stage::Judged(_) | Stage::Later(..) | Stage::Ending(..) => None,
            })
            .collect();
        failed.into_iter().for_each(|(key, ending)| self.end(key, ending));
    }

    fn forget(&mut self, puts: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        if !puts.is_empty() {
            let ticket = self.ticket(Pending::Forget);
            self.events.push_back(Event::Persist { ticket, puts });
        }
    }

    fn ticket(&mut self, pending: Pending) -> u64 {
        self.ticket += 1;
        self.pending.insert(self.ticket, pending);
        self.ticket
    }

    fn restore(&mut self, now: Instant, restored: Vec<(Vec<u8>, Vec<u8>)>) {
        for (key, value) in restored {
            if self.restore_one(now, &key, &value).is_none() {
                self.events.push_back(Event::Alarm("an unreadable record of the link was left aside".into()));
            }
        }
        let whole: Vec<Key> = self.partials.iter().filter(|(k, p)| k.1 != 0 && p.is_whole()).map(|(k, _)| *k).collect();
        whole.into_iter().for_each(|key| self.gather(key));
    }

    fn restore_one(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Option<()> {
        let (kind, rest) = key.split_first()?;
        let word = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        match kind {
            b'c' => {
                self.counter_limit = u32::from_be_bytes(value.try_into().ok()?);
                self.counter = self.counter_limit;
                #[cfg(feature = "mutations")]
                if crate::mutation::is(crate::mutation::Mutation::ReuseCounter) {
                    self.counter = 0;
                }
            }
            b'p' => {
                if let Some(p) = self.peers.get_mut(rest.first()?) {
                    p.record = postcard::from_bytes(value).ok()?;
                }
            }
            b't' => {
                let id = TransferId { origin: self.config.name.clone(), epoch: word(0)?, counter: word(4)? };
                self.left_over.insert(id, postcard::from_bytes(value).ok()?);
            }
            b's' => {
                let key = (*rest.first()?, word(1)?, word(5)?);
                let number = word(9)?;
                let (geometry, symbols) = read_batch(value)?;
                let p = self.partials.entry(key).or_insert_with(|| Partial::new(geometry, now));
                p.batches = p.batches.max(number.saturating_add(1));
                if p.geometry == geometry {
                    for (q, bytes) in symbols {
                        p.take(q, bytes, true);
                    }
                }
            }
            b'f' => {
                let key = (*rest.first()?, word(1)?, word(5)?);
                let ending = match value {
                    [0] => Ending::Accepted,
                    [1, reason] => Ending::Refused(*reason),
                    _ => return None,
                };
                self.remember(key, ending);
            }
            _ => return None,
        }
        Some(())
    }
}

/// A deliberate fault: one bit of a chunk now and then.
#[cfg(feature = "mutations")]
fn mutated(mut chunk: Chunk, turn: u64) -> Chunk {
    if turn.is_multiple_of(100)
        && crate::mutation::is(crate::mutation::Mutation::FlipBit)
        && let Some(byte) = chunk.symbols.first_mut().and_then(|s| s.first_mut())
    {
        *byte ^= 1;
    }
    chunk
}

fn ready(at: Option<Instant>, now: Instant) -> bool {
    at.is_none_or(|t| t <= now)
}

/// When the next block has to be fed: one block time before its own start.
fn feed_due(tx: &Transmission, w: &Waveform) -> Instant {
    let ahead = w.preamble + w.block * u32::try_from(tx.blocks_fed).unwrap_or(u32::MAX);
    tx.keyed + ahead.saturating_sub(w.block)
}

fn item_bytes(item: &Item) -> usize {
    match item {
        Item::Hello { .. } => 7,
        Item::Poll(shorts) | Item::Cancel(shorts) => 2 + 2 * shorts.len(),
        Item::Report(report) => REPORT_FIXED + report.standings.iter().map(|(_, s)| s.bytes()).sum::<usize>(),
    }
}

fn encode<T: serde::Serialize>(record: &T) -> Option<Vec<u8>> {
    // Plain structs of numbers and lists: postcard cannot fail on them.
    Some(postcard::to_stdvec(record).unwrap_or_default())
}

fn peer_key(station: u8) -> Vec<u8> {
    vec![b'p', station]
}

fn outgoing_key(id: &TransferId) -> Vec<u8> {
    [&b"t"[..], &id.epoch.to_be_bytes(), &id.counter.to_be_bytes()].concat()
}

fn batch_key(key: Key, number: u32) -> Vec<u8> {
    [&[b's', key.0][..], &key.1.to_be_bytes(), &key.2.to_be_bytes(), &number.to_be_bytes()].concat()
}

fn finished_key(key: Key) -> Vec<u8> {
    [&[b'f', key.0][..], &key.1.to_be_bytes(), &key.2.to_be_bytes()].concat()
}
