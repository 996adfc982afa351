//! The station: one modem's turns. Decides when to key and what to say, files what is heard, and keeps both ends from losing,
//! doubling or deadlocking anything.
//!
//! A turn: key, feed two blocks ahead, unkey, wait for the reports of those who were addressed. Whoever hears a transmission for
//! it answers after the carrier has gone, with a report and, in the same transmission, with what it has to send. A turn that
//! stays unanswered is followed by a short poll after a back-off that cannot coincide with the other side's.

mod adapt;
mod chain;
mod compose;
mod group;
mod hear;
mod inbound;
mod keep;
mod late;
mod reading;
mod share;
mod silent;
mod slots;
mod turn;

pub use share::{Outlook, waits};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::burst::{Air, Burst, Layout};
use super::frame::{Address, Deframer, Report, Stations};
use super::incoming::{Ending, Key, Partial, Stage};
use super::keys::KeyRing;
use super::outgoing::{Outgoing, OutgoingRecord, short};
use super::peer::{Peer, PeerRecord};
use super::{Config, StationSizes};
use crate::bearer::fec::Geometry;
use crate::bearer::{Event, Job, JobDone, ModemAction, ModemEvent, Transfer, Verdict, Want};
use crate::emcon::{AirPermit, Emission, Purpose, Silence};
use crate::mail::{Cut, PeerName, Precedence, TransferId};
use crate::time::{Duration, Instant};

use super::rate::{Palette, Readings};
use adapt::Adapt;
pub use adapt::{LinkState, Unheard};
use chain::Chain;
pub use inbound::Inbound;
use keep::outgoing_key;
use slots::Round;
use turn::feed_due;

/// Control counters reserved on disk at a time.
const COUNTERS: u32 = 1024;
/// How long a report waits for commits and verdicts.
const SETTLE: Duration = Duration::from_secs(2);
/// By how much the higher of two stations keys later on an idle link, so that two that start at once do not collide.
const RANK_SPREAD: Duration = Duration::from_millis(800);
/// The same from one station of a net to the next: longer than a modem takes to key and another to notice.
const ACCESS_SLOT: Duration = Duration::from_millis(400);
/// How much air time's worth of symbols is reserved ahead of sending.
const COMMIT_AHEAD: Duration = Duration::from_secs(5);
/// When something that failed to commit is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// When a payload the switch had no room for is offered again.
const LATER: Duration = Duration::from_secs(30);
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
    /// Arithmetic of the waveform in use.
    air: Air,
    /// Plans, per choice of waveform.
    bursts: BTreeMap<usize, Burst>,
    /// Where there is a choice.
    adapt: Option<Adapt>,
    /// When the transmission that is to be answered ended.
    asked_at: Option<Instant>,
    ring: KeyRing,
    /// Peers that can be spoken to at once.
    net: Stations,
    peers: BTreeMap<u8, Peer>,
    outgoing: BTreeMap<TransferId, Outgoing>,
    queued: VecDeque<Transfer>,
    /// What is stored of transfers that are not being carried: of those a restart found, until they are taken up again, which a full queue
    /// or an order may put off for days, and of those the far side has had the last word on. The switch cancels what it is done with.
    left_over: BTreeMap<TransferId, OutgoingRecord>,
    /// Transfers that were given up unconfirmed: word of them still counts.
    late: BTreeMap<TransferId, late::Late>,
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
    /// Answers to the transmission heard last that are still to come.
    round: Round,
    hold: Option<Instant>,
    /// Transmissions of this station's that no answer was asked to yet, and that are followed by another.
    chain: Option<Chain>,
    /// A peer goes on, and wants no answer before it asks: until then, or until nothing has followed, only what is urgent is said.
    until_asked: Option<Instant>,
    settle: Option<Instant>,
    /// Until when what is owed for a transmission just heard may still join what answers it, before the modem can have turned around.
    joining: Option<Instant>,
    report_at: Option<Instant>,
    retry: Option<Instant>,
    /// Lowest precedence of traffic the order in force lets pass; `None`: no traffic at all.
    lowest: Option<Precedence>,
    blocked: Option<Precedence>,
    report_blocked: bool,
    probe_blocked: bool,
    asked: Option<Purpose>,
    /// The modem did not key when it was last asked to.
    unkeyable: bool,
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
    /// The last block with idle fill in it, and how many bytes.
    idle: (u64, u64),
    /// Bytes of symbols beyond what was owed.
    fill: u64,
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
    /// Those of them of which nothing was in doubt before, and how many bytes are out at the least when a frame of it is.
    sure: BTreeMap<TransferId, u64>,
    expects: BTreeSet<u8>,
    /// Who is to answer, as its words say.
    order: Stations,
    /// It goes on without an answer, as its frames say.
    goes_on: bool,
    /// Others have their slots behind it.
    before_others: bool,
    /// Nothing more will be fed.
    ended: bool,
    alarmed: bool,
}

#[derive(Debug)]
struct Hearing {
    deframer: Deframer,
    since: Instant,
    last: Instant,
    /// When a frame was last among the bytes; at first when they began.
    sense: Instant,
    /// Stations good frames came from.
    from: BTreeSet<u8>,
    /// Those of them that said more than symbols and brief reports.
    spoke: BTreeSet<u8>,
    /// Stations it came from, as far as headers tell, sound ones or not.
    speakers: Stations,
    /// There were frames of others in it.
    foreign: bool,
    /// Frames of it said that its sender goes on.
    goes_on: bool,
    /// Stations it wants an answer from, by frames that were heard.
    asked: Stations,
    /// All of them in the order they answer in, where it said so.
    order: Option<Stations>,
    /// Stations that may speak next because silence has ended, where it said so.
    follow: Option<Stations>,
    /// Addresses of frames whose seal did not fit.
    unsealed: Vec<Address>,
    /// What the modem measured.
    readings: Readings,
    /// How long after our own transmission it began, where that was to be answered.
    after: Option<Duration>,
}

impl Hearing {
    /// Whether a frame was among the bytes.
    fn made_sense(&self) -> bool {
        !self.from.is_empty() || self.foreign
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
        ring.set_net(&config.net);
        let mut peers = BTreeMap::new();
        for p in &config.peers {
            ring.add(&config.name, &p.name, p.station, p.protection, &p.keys);
            let peer = Peer { agrees: config.fresh, ..Peer::new(p.name.clone(), PeerRecord::default()) };
            peers.insert(p.station, peer);
        }
        let palette = Palette::new(config.choices.clone(), &config.waveform);
        let adapt = palette.map(|palette| Adapt::new(palette, config.peers.iter().map(|p| p.station)));
        let mut station = Self {
            air: Self::first_air(&config, adapt.as_ref()),
            bursts: BTreeMap::new(),
            adapt,
            asked_at: None,
            ring,
            net: Stations::NONE,
            peers,
            outgoing: BTreeMap::new(),
            queued: VecDeque::new(),
            left_over: BTreeMap::new(),
            late: BTreeMap::new(),
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
            round: Round::default(),
            hold: None,
            chain: None,
            until_asked: None,
            settle: None,
            joining: None,
            report_at: None,
            retry: None,
            lowest: Some(Precedence::Deferred),
            blocked: None,
            report_blocked: false,
            probe_blocked: false,
            asked: None,
            unkeyable: false,
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
        station.net = station.net();
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
            ModemEvent::Measured(m) => self.measured(&m),
            ModemEvent::Fault(text) => {
                self.events.push_back(Event::Alarm(format!("modem: {text}")));
                self.break_off(now);
                self.phase = Phase::Down;
                (self.carrier, self.carrier_stuck, self.hearing) = (None, false, None);
            }
            ModemEvent::Ready => {
                if let Some(a) = &mut self.adapt {
                    a.modem = None;
                }
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
        due(&mut self.joining);
        due(&mut self.report_at);
        due(&mut self.until_asked);
        self.watch_chain(now);
        for p in self.peers.values_mut() {
            due(&mut p.not_before);
        }
        for t in self.outgoing.values_mut() {
            due(&mut t.not_before);
        }
        if due(&mut self.retry) {
            self.retry_commits(now);
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

    /// Into what a payload is best cut for this waveform.
    pub fn cut(&self) -> Cut {
        self.air.cut()
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
        let Some(geometry) = Geometry::of_payload(transfer.payload.len(), transfer.cut) else {
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
            outgoing.unsure |= !peer.silent && !peer.agrees && peer.attempts < ASKED_IN_VAIN;
            if !self.awaited.contains(&station) {
                peer.not_before = None;
            }
        }
        let idle = self.outgoing.is_empty() && self.await_until.is_none() && self.hearing.is_none();
        self.outgoing.insert(id.clone(), outgoing);
        self.take_up_blind(now, &id);
        if !self.join_group(&id) {
            let ticket = self.ticket(Pending::Spread(id.clone()));
            self.events.push_back(Event::Job { ticket, job: Job::Spread { payload, geometry } });
        }
        self.reserve_rows(&id);
        if idle && self.hold.is_none() && matches!(self.phase, Phase::Quiet) {
            self.hold_for(now, self.rank_delay());
        }
    }

    /// Drops what was stored of transfers that the queue no longer knows; called once, after a restart.
    pub fn keep_only(&mut self, known: impl Fn(&TransferId) -> bool) {
        let unknown: Vec<TransferId> = self.left_over.keys().filter(|id| !known(id)).cloned().collect();
        self.left_over.retain(|id, _| known(id));
        self.forget(unknown.iter().map(|id| (outgoing_key(id), None)).collect());
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
                for id in self.siblings(&id) {
                    let Some(t) = self.outgoing.get_mut(&id) else { continue };
                    t.reserving = false;
                    if ok {
                        t.record.reserved = t.record.reserved.max(rows);
                        self.extend(&id);
                        // Another bearer may have brought it farther since this was asked for.
                        self.reserve_rows(&id);
                    }
                }
            }
            Pending::Symbols(batches) => {
                self.committing = false;
                for (key, numbers) in batches.into_iter().filter(|_| ok) {
                    let Some(p) = self.partials.get_mut(&key) else { continue };
                    for q in &numbers {
                        if let Some((_, committed)) = p.symbols.get_mut(q) {
                            *committed = true;
                        }
                    }
                    self.share_symbols(key, &numbers);
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
                for id in self.siblings(&id) {
                    if let Some(t) = self.outgoing.get_mut(&id) {
                        t.symbols = Some(symbols.clone());
                    }
                    self.extend(&id);
                }
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
        if matches!(self.phase, Phase::Quiet) && self.await_until.is_none() {
            self.leave_silence(now);
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
        self.break_chain();
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
        let w = self.air.waveform().clone();
        if let Phase::Keyed(tx) = &self.phase {
            if tx.ended || now < feed_due(tx, &w) {
                return None;
            }
            let (blocks, last) = (tx.blocks_fed + 1, tx.blocks_fed + 1 >= tx.blocks);
            // Let go after this feed, the modem still sends its tail: several blocks of a short interleaver at 75 bit/s.
            let most = if last { blocks } else { (blocks + self.air.tail_blocks()).min(tx.blocks) };
            let end = tx.keyed + self.air.transmission(most);
            let planned = tx.keyed + self.air.transmission(tx.blocks);
            self.asked = Some(tx.plan.purpose);
            return Some(Want { purpose: tx.plan.purpose, airtime: end.since(now), planned: planned.since(now) });
        }
        let plan = self.plan(now)?;
        self.tell_modem();
        self.asked = Some(plan.purpose);
        let planned = self.air.transmission(plan.blocks);
        Some(Want {
            purpose: plan.purpose,
            airtime: planned.min(self.air.transmission(1 + self.air.tail_blocks())),
            planned,
        })
    }

    /// Turns a permit into what [`Station::want`] spoke of.
    pub fn poll_emission(&mut self, now: Instant, permit: AirPermit<'_>) -> Option<Emission> {
        if let Phase::Keyed(tx) = &self.phase {
            if tx.ended || now < feed_due(tx, self.air.waveform()) {
                return None;
            }
            let bytes = self.feed(now)?;
            return Some(permit.feed(bytes));
        }
        let plan = self.plan(now)?;
        self.phase = Phase::Asked { since: now, plan };
        self.hold = None;
        if self.adapt.is_some() {
            // A faster waveform needs more symbols ahead.
            let active: Vec<TransferId> = self.outgoing.keys().cloned().collect();
            active.iter().for_each(|id| self.reserve_rows(id));
        }
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

    /// Whether it hears somebody or waits for an answer: nothing that it is handed leaves before that is over.
    pub fn is_listening(&self) -> bool {
        let spoken = matches!(&self.phase, Phase::Keyed(tx) if tx.ended);
        let hears = self.listening() || self.carrier.is_some() && !self.carrier_stuck;
        let waits = [self.await_until, self.until_asked, self.joining].iter().any(Option::is_some);
        spoken || hears || waits
    }

    /// Whether a peer is known to have more to say: something of it is here in part, or it said so with the last symbols heard.
    pub fn has_part_of(&self, peer: &PeerName) -> bool {
        let in_part = |(key, p): (&Key, &Partial)| {
            matches!(p.stage, Stage::Filling) && self.peers.get(&key.0).is_some_and(|from| from.name == *peer)
        };
        self.partials.iter().any(in_part) || self.peers.values().any(|p| p.more_waits && p.name == *peer)
    }

    /// A key request that the modem holds back: what for, and how long its carrier would last at the least.
    pub fn held_back(&self) -> Option<(Purpose, Duration)> {
        match &self.phase {
            Phase::Asked { plan, .. } => {
                Some((plan.purpose, self.air.transmission(plan.blocks.min(self.air.tail_blocks()))))
            }
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
        self.peers.get(&station).map(|p| p.loss())
    }

    /// When `handle_timeout` next has work, or [`Station::want`] something new to say.
    pub fn next_timeout(&self) -> Option<Instant> {
        let mut times =
            vec![self.hold, self.settle, self.joining, self.report_at, self.until_asked, self.chain_over(), self.retry];
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
            // Suspended, it feeds nothing: whoever was told why lets the key go.
            Phase::Keyed(tx) if !tx.ended => {
                times.push((!self.suspended).then(|| feed_due(tx, self.air.waveform())));
            }
            Phase::Keyed(tx) => times.push(Some(self.unkey_limit(tx))),
            Phase::Down | Phase::Quiet => {}
        }
        times.into_iter().flatten().min()
    }
}
