//! One node on one multicast link in Aldis mode.
//!
//! The run loop is that of every core: hand in what happened, then [`Station::poll_event`] until `None`; and while the gate allows it
//! ([`Station::next_purpose`]), [`Station::poll_transmit`] until `None`; then sleep until [`Station::next_timeout`], or, while the node may
//! send, [`Station::next_send`]. In silence nothing is polled and nothing is lost: what is owed is said first when it ends.
//!
//! Who hears the end of what was meant to leave, or a question, says how things stand, each station in a place of its own by its number,
//! so that answers never meet. A report is committed before it steers (A3), symbols before a report claims them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::incoming::{Incoming, place};
use super::outgoing::{Losses, Record, Sending};
use super::wire::{self, Datagram, Head, INDICES, Report, Standing, Symbols, TAG, Word};
use crate::bearer::fec::Geometry;
use crate::bearer::pmul::timers::Pacer;
use crate::bearer::serial::blind;
use crate::bearer::serial::incoming::{Ending, Stage};
use crate::bearer::serial::keys::Seal;
use crate::bearer::serial::peer::{Admission, PeerRecord};
use crate::bearer::serial::station::REFUSED_TOO_LARGE;
use crate::bearer::{Event, Job, JobDone, Verdict};
use crate::emcon::Purpose;
use crate::mail::{Cut, LinkKey, PeerName, Precedence, Protection, TransferId};
use crate::time::{Duration, Instant};
use crate::units::Bps;

/// IPv4 and UDP headers.
pub const UDP_BYTES: usize = 28;
/// How much air time's worth of symbols is reserved ahead of sending.
const COMMIT_AHEAD: Duration = Duration::from_secs(5);
/// When something that failed to commit is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// When a payload the switch had no room for is offered again.
const LATER: Duration = Duration::from_secs(30);
/// Longest wait before who does not speak is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Questions after which waits grow no more.
const MOST_GROWTH: u32 = 96;
/// Words said unasked of a transfer of which nothing more comes.
const UNASKED: u32 = 8;
/// How long commits of others may take.
const COMMITS: Duration = Duration::from_millis(200);
/// Transfers one word speaks of.
const WORDS: usize = 32;
/// A report speaks of so many transfers at most.
const ENTRIES: usize = 32;
/// Times a cancelled transfer is told of.
const CANCELS: u8 = 3;
/// Cancelled transfers that are still to be told of, at most.
const MOST_GIVEN_UP: usize = 1024;
/// Questions after a start until symbols of a new transfer leave without word of what is known of this node's past.
const ASKED_IN_VAIN: u32 = 3;

/// A neighbour, by the profile.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerConfig {
    /// Its node name.
    pub name: PeerName,
    /// Its station number on this link.
    pub station: u8,
    /// How traffic with it is protected.
    pub protection: Protection,
    /// Keys shared by the group; the first is used for sending.
    pub keys: Vec<LinkKey>,
    /// Share of datagrams taken for lost towards it while it keeps silence.
    pub assumed_loss: f64,
}

/// What a [`Station`] is made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Own node name.
    pub name: PeerName,
    /// Own station number.
    pub station: u8,
    /// Own store epoch.
    pub epoch: u32,
    /// That epoch began with this start: nobody can know more of it than the store does.
    pub fresh: bool,
    /// Highest transfer counter that may have been used in it.
    pub highest: u32,
    /// What this node reads, in four bits as it tells its peers.
    pub reads: u8,
    /// Name of the group, the same at all its nodes.
    pub group: String,
    /// The others.
    pub peers: Vec<PeerConfig>,
    /// How mail goes to silent peers.
    pub blind: BTreeMap<Precedence, blind::Policy>,
    /// What leaves stays below this.
    pub rate: Bps,
    /// One way.
    pub delay: Duration,
    /// Longest datagram, without UDP and IPv4 headers.
    pub max_datagram: usize,
    /// Transfers on their way in at once, and their bytes.
    pub max_partials: usize,
    /// See `max_partials`.
    pub max_partial_bytes: usize,
    /// Finished transfers remembered.
    pub max_finished: usize,
}

/// A frozen payload for several nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Its number, in this station's present epoch: that of the first of its transfers.
    pub lead: u32,
    /// Level of service.
    pub precedence: Precedence,
    /// The frozen bytes, sealed.
    pub payload: Arc<[u8]>,
    /// Into what they are cut.
    pub cut: Cut,
    /// For whom, and under which name the switch knows it.
    pub to: Vec<(PeerName, TransferId)>,
}

/// Where a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To all.
    Group,
    /// To one station.
    Station(u8),
}

/// A datagram to send.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Transmit {
    /// Where it goes.
    pub to: Destination,
    /// What for.
    pub purpose: Purpose,
    /// The transfer that its symbols are of.
    pub about: Option<u32>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How often what happened that should not, or need not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn add(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    /// How often this.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}

/// A transfer as the receiver files it: station, epoch and counter.
pub(super) type Key = (u8, u32, u32);

#[derive(Debug)]
pub(super) struct Peer {
    pub name: PeerName,
    pub record: PeerRecord,
    pub losses: Losses,
    pub silent: bool,
    /// When something authentic of it came last.
    heard_at: Option<Instant>,
    /// It has said since the start that it knows no more of this node's past than the store does, or could not be asked.
    agrees: bool,
    assumed_loss: f64,
    send: (u8, Seal),
    hear: BTreeMap<u8, Seal>,
    /// The report owed to it.
    pub due: Option<Due>,
    /// Its reports are old: it is to be told so, and was then.
    tell_old: bool,
    told_old: Option<Instant>,
}

/// A report that is owed.
#[derive(Debug)]
pub(super) struct Due {
    at: Instant,
    rank: u8,
    entries: BTreeSet<(u32, u32)>,
    /// An order forbade it: once it may leave it takes its place anew, since others may be released by the same order.
    barred: bool,
}

/// A transfer that has ended here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    pub ending: Ending,
    pub mark: u16,
    pub rank: u8,
    /// A report has said so.
    pub told: bool,
}

/// What a ticket was for.
#[derive(Debug)]
pub(super) enum Pending {
    Spread(u32),
    Gather(Key),
    Judge(Key),
    Symbols(Vec<(Key, Vec<u16>)>),
    Ending(Key, Ending),
    Counter(u32),
    Reserve(u32, u32),
    Report { from: u8, epoch: u32, counter: u32, entries: Vec<(u32, Standing)> },
    Forget,
}

/// See the module.
#[derive(Debug)]
pub struct Station {
    pub(super) config: Config,
    pub(super) peers: BTreeMap<u8, Peer>,
    pub(super) sending: BTreeMap<u32, Sending>,
    /// Records of transfers that have not been handed in again after a restart.
    pub(super) left_over: BTreeMap<u32, Record>,
    /// Given up unconfirmed, by epoch, number and receiver: word of them still counts.
    pub(super) late: BTreeMap<(u32, u32, u8), TransferId>,
    /// Given up, and how often that was said.
    given_up: BTreeMap<u32, (BTreeSet<u8>, u8)>,
    pub(super) incoming: BTreeMap<Key, Incoming>,
    /// How transfers ended.
    pub(super) finished: BTreeMap<Key, Finished>,
    pub(super) finished_order: VecDeque<Key>,
    /// Transfers under whose number another payload came.
    others: BTreeMap<Key, u16>,
    /// When a report spoke of those last: what was on its way meanwhile asks for no other.
    pub(super) said: BTreeMap<Key, Instant>,
    pub(super) counter: u32,
    pub(super) counter_limit: u32,
    pub(super) counter_reserving: bool,
    /// The highest transfer counter given out in this epoch.
    highest: u32,
    pub(super) committing: bool,
    pub(super) retry_at: Option<Instant>,
    pub(super) ticket: u64,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) events: VecDeque<Event>,
    pub(super) counts: Counts,
    /// The epoch turned out to be used: nothing leaves until there is another.
    suspended: bool,
    /// Lowest precedence the order in force lets pass; `None`: no traffic at all.
    lowest: Option<Precedence>,
    pacer: Pacer,
    now: Instant,
}

impl Station {
    /// A station with what it had committed.
    pub fn new(now: Instant, config: Config, restored: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let net = format!("multicast {}", config.group);
        let peer = |p: &PeerConfig| {
            let keyed = p.protection != Protection::Off;
            let own = p.keys.first().filter(|_| keyed);
            let send = own.map_or((0, Seal::checksum()), |k| (k.id, Seal::on_net(&k.secret, &config.name, &net)));
            let hear = match keyed {
                true => p.keys.iter().map(|k| (k.id, Seal::on_net(&k.secret, &p.name, &net))).collect(),
                false => BTreeMap::from([(0, Seal::checksum())]),
            };
            let peer = Peer {
                name: p.name.clone(),
                record: PeerRecord::default(),
                losses: Losses::default(),
                silent: false,
                heard_at: None,
                agrees: config.fresh,
                assumed_loss: p.assumed_loss,
                send,
                hear,
                due: None,
                tell_old: false,
                told_old: None,
            };
            (p.station, peer)
        };
        let mut station = Self {
            peers: config.peers.iter().map(peer).collect(),
            sending: BTreeMap::new(),
            left_over: BTreeMap::new(),
            late: BTreeMap::new(),
            given_up: BTreeMap::new(),
            incoming: BTreeMap::new(),
            finished: BTreeMap::new(),
            finished_order: VecDeque::new(),
            others: BTreeMap::new(),
            said: BTreeMap::new(),
            counter: 0,
            counter_limit: 0,
            counter_reserving: false,
            highest: config.highest,
            committing: false,
            retry_at: None,
            ticket: 0,
            pending: BTreeMap::new(),
            events: VecDeque::new(),
            counts: Counts::default(),
            suspended: false,
            lowest: Some(Precedence::Deferred),
            pacer: Pacer::new(config.rate, (config.max_datagram + UDP_BYTES) as u64),
            now,
            config,
        };
        station.restore(now, restored);
        station.reserve_counters();
        station
    }

    /// Takes a frozen payload to carry. The same again after a restart goes on where it was; for others as well, they join.
    pub fn send(&mut self, now: Instant, out: Outgoing) {
        self.now = now;
        let Outgoing { lead, precedence, payload, cut, to } = out;
        let fits = |g: &Geometry| g.symbol_bytes() <= self.room(lead, *g);
        let Some(geometry) = Geometry::of_net_payload(payload.len(), cut).filter(fits) else {
            let refused = |(_, id): (PeerName, TransferId)| Event::Refused { id, reason: REFUSED_TOO_LARGE };
            return self.events.extend(to.into_iter().map(refused));
        };
        let mut members = Vec::new();
        for (name, id) in to {
            match self.peers.iter().find(|(_, p)| p.name == name) {
                Some((station, p)) => members.push((*station, id, p.silent)),
                None => {
                    self.events.push_back(Event::Alarm(format!("{name} is no peer of this link")));
                    self.events.push_back(Event::Refused { id, reason: 0 });
                }
            }
        }
        if members.is_empty() {
            return;
        }
        if let Some(s) = self.sending.get_mut(&lead) {
            s.precedence = s.precedence.max(precedence);
            members.into_iter().for_each(|(station, id, silent)| s.join(station, id, silent));
            return;
        }
        self.highest = members.iter().map(|(_, id, _)| id.counter).fold(self.highest.max(lead), u32::max);
        // An older copy of the store may have used these numbers: who can answer is asked first (C1).
        let doubted = members.iter().any(|(s, _, silent)| !silent && self.peers.get(s).is_some_and(|p| !p.agrees));
        let record = self.left_over.remove(&lead).unwrap_or_default();
        let room = self.room(lead, geometry);
        let mark = mark_of(&payload);
        let mut sending = Sending::new(precedence, geometry, mark, room, record, members);
        sending.unsure |= doubted;
        self.sending.insert(lead, sending);
        let ticket = self.ticket(Pending::Spread(lead));
        self.events.push_back(Event::Job { ticket, job: Job::Spread { payload, geometry } });
        self.reserve(lead);
    }

    /// Bytes of symbols that a datagram of a transfer holds, whoever of the group it is for and however far it is.
    fn room(&self, lead: u32, geometry: Geometry) -> usize {
        let all = self.peers.keys().copied().collect();
        self.config.max_datagram.saturating_sub(wire::symbols_overhead(lead, geometry, INDICES - 1, &all))
    }

    /// One receiver's transfer is over, whatever became of it: nothing more of it is sent for that receiver.
    pub fn cancel(&mut self, id: &TransferId) {
        let found = self.sending.iter().find_map(|(lead, s)| {
            s.members.iter().find(|(_, m)| m.id == *id).map(|(station, m)| (*lead, *station, m.done, s.next > 0))
        });
        let Some((lead, station, done, left)) = found else { return };
        if !done && left {
            let told = self.given_up.entry(lead).or_default();
            told.0.insert(station);
            told.1 = 0;
            if self.given_up.len() > MOST_GIVEN_UP {
                self.given_up.pop_first();
            }
        }
        self.drop_member(lead, station);
    }

    pub(super) fn drop_member(&mut self, lead: u32, station: u8) {
        let Some(s) = self.sending.get_mut(&lead) else { return };
        s.members.remove(&station);
        if s.members.is_empty() {
            self.sending.remove(&lead);
            self.forget(vec![(super::keep::sending_key(self.config.epoch, lead), None)]);
        }
    }

    /// Drops what was stored of transfers that the queue no longer knows; called after a restart, and when one ends before it was handed in.
    pub fn keep_only(&mut self, known: impl Fn(u32) -> bool) {
        let unknown: Vec<u32> = self.left_over.keys().copied().filter(|lead| !known(*lead)).collect();
        unknown.iter().for_each(|lead| _ = self.left_over.remove(lead));
        self.forget(unknown.iter().map(|lead| (super::keep::sending_key(self.config.epoch, *lead), None)).collect());
    }

    /// Changes the level of service of a transfer, for all it is for.
    pub fn expedite(&mut self, id: &TransferId, precedence: Precedence) {
        let carries = |s: &&mut Sending| s.members.values().any(|m| m.id == *id);
        self.sending.values_mut().filter(carries).for_each(|s| s.precedence = precedence);
    }

    /// From now on a report that this peer has accepted a transfer is told, although it was given up.
    pub fn listen_for(&mut self, peer: &PeerName, id: &TransferId, lead: u32) {
        if let Some(station) = self.station_of(peer) {
            self.late.insert((id.epoch, lead, station), id.clone());
        }
    }

    /// Its outcome is durable, or nobody remembers it any more.
    pub fn listen_no_more(&mut self, id: &TransferId) {
        self.late.retain(|_, late| late != id);
    }

    /// Says whether a peer keeps silence.
    pub fn set_silent(&mut self, now: Instant, peer: &PeerName, silent: bool) {
        self.now = now;
        let Some(station) = self.station_of(peer) else { return };
        let Some(p) = self.peers.get_mut(&station) else { return };
        if std::mem::replace(&mut p.silent, silent) == silent {
            return;
        }
        // Reports first: whoever leaves silence has its place before anything is asked.
        let places = self.patience(self.peers.len() + 1);
        for s in self.sending.values_mut() {
            let next = s.next;
            if let Some(m) = s.members.get_mut(&station) {
                m.silent = silent;
                if silent {
                    (s.window_from, s.not_before) = (next, None);
                    // Whoever could have been asked cannot be any more.
                    s.unsure &= s.members.values().any(|m| !m.silent && !m.done);
                } else if next > 0 {
                    // What of it arrived is known there and not here.
                    (m.spoke, s.ask_at, s.asked) = (false, Some(now + places), 0);
                }
            }
        }
    }

    /// The order in force lets pass nothing below this; `None`: no traffic at all.
    pub fn carry_from(&mut self, lowest: Option<Precedence>) {
        self.lowest = lowest;
    }

    /// Into what a payload is best cut.
    pub fn cut(&self) -> Cut {
        Cut::for_room(self.config.max_datagram.saturating_sub(wire::SYMBOLS_OVERHEAD + 2))
    }

    /// Takes a datagram; what is not authentic, or makes no sense, is counted and changes nothing.
    pub fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        self.now = now;
        let Some(head) = wire::head(bytes).filter(|_| bytes.len() <= self.config.max_datagram.max(TAG)) else {
            return self.counts.add("malformed");
        };
        if head.from == self.config.station {
            return self.counts.add("own");
        }
        let Some(peer) = self.peers.get(&head.from) else { return self.counts.add("unknown_station") };
        if !peer.hear.get(&head.key).is_some_and(|seal| wire::fits(bytes, seal)) {
            return self.counts.add("unsealed");
        }
        let Some(datagram) = Datagram::parse(bytes) else { return self.counts.add("malformed") };
        if let Some(peer) = self.peers.get_mut(&head.from) {
            peer.heard_at = Some(now);
        }
        match datagram {
            Datagram::Symbols(symbols) => self.symbols(now, head, &symbols),
            Datagram::Report(report) => self.report(head, report),
            Datagram::Word(word) => self.word(now, head, &word),
        }
    }

    fn symbols(&mut self, now: Instant, Head { from, reads, .. }: Head, symbols: &Symbols) {
        if let Some(record) = self.peers.get_mut(&from).map(|p| &mut p.record)
            && (record.epoch == symbols.epoch || record.epoch == 0)
        {
            // They are heard again and again: no word of an epoch, but enough for an acquaintance.
            record.acquaint(symbols.epoch, symbols.counter);
            record.reads = reads;
        }
        if !symbols.members.contains(&self.config.station) {
            return self.counts.add("for_others");
        }
        let key = (from, symbols.epoch, symbols.counter);
        let held = self.incoming.get(&key).and_then(|i| i.mark);
        if let Some(mark) = self.finished.get(&key).map(|f| f.mark).or(held).filter(|m| *m != symbols.mark) {
            // Two payloads never mix (A1), and one is never taken for the other.
            self.counts.add("other_payload");
            if self.others.len() < ENTRIES {
                self.others.insert(key, mark);
            }
            return self.owe(now, key, &symbols.members, symbols.rank);
        }
        if self.finished.contains_key(&key) {
            // Its sender does not know yet.
            let on_its_way = self.patience(symbols.members.len());
            if self.said.get(&key).is_none_or(|at| now.since(*at) > on_its_way) {
                self.owe(now, key, &symbols.members, symbols.rank);
            }
            return;
        }
        if self.incoming.get(&key).is_some_and(|i| i.partial.geometry != symbols.geometry) {
            return self.counts.add("other_geometry");
        }
        if !self.incoming.contains_key(&key) {
            if !self.make_room(now, key, symbols.geometry, symbols.mark) {
                return;
            }
            self.incoming.insert(key, Incoming::new(symbols.geometry, now));
        }
        let quiet = self.quiet(&symbols.members);
        let Some(i) = self.incoming.get_mut(&key) else { return };
        let new = i.take(now, symbols);
        (i.unasked, i.quiet_at) = (0, Some(now + quiet));
        let whole = i.partial.is_whole() && i.partial.stage == Stage::Filling;
        if new {
            self.commit_symbols();
        }
        if whole {
            self.gather(key);
        } else if symbols.asks {
            self.owe(now, key, &symbols.members, symbols.rank);
        }
    }

    fn word(&mut self, now: Instant, Head { from, reads, .. }: Head, word: &Word) {
        if !word.members.contains(&self.config.station) {
            return self.counts.add("for_others");
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let admission = peer.record.admit(word.epoch, word.counter);
        if admission == Admission::Replay {
            return self.counts.add("replays");
        }
        peer.record.reads = reads;
        let kept = vec![(super::keep::peer_key(from), super::keep::encode(&peer.record))];
        self.forget(kept);
        if admission == Admission::NewEpoch {
            self.void(from);
        }
        let Some(peer) = self.peers.get(&from) else { return };
        let (own, epoch, given_out) = (self.config.station, self.config.epoch, self.counter);
        if word.heard.iter().any(|(s, e, counter)| (*s, *e) == (own, epoch) && *counter > given_out) {
            // Counters that this store has not given out: it is an old copy.
            let peer = peer.name.clone();
            return self.suspend(peer);
        }
        for counter in &word.asked {
            self.owe(now, (from, word.epoch, *counter), &word.members, 0);
        }
        for counter in &word.given_up {
            self.discard((from, word.epoch, *counter));
        }
    }

    /// A report will speak of a transfer, in this station's place among those that were spoken to.
    pub(super) fn owe(&mut self, now: Instant, key: Key, members: &BTreeSet<u8>, rank: u8) {
        let at = now + self.slot() * place(members, self.config.station);
        let most = match self.finished.contains_key(&key) || self.incoming.contains_key(&key) {
            true => self.config.max_finished + self.config.max_partials,
            false => ENTRIES,
        };
        let Some(peer) = self.peers.get_mut(&key.0) else { return };
        let due = peer.due.get_or_insert_with(|| Due { at, rank, entries: BTreeSet::new(), barred: false });
        due.rank = due.rank.max(rank);
        if due.entries.len() < most {
            due.entries.insert((key.1, key.2));
        }
    }

    /// What had ended here before the start and was not told of is told once it may be: its sender may no longer ask.
    pub(super) fn owe_untold(&mut self, now: Instant) {
        let all: BTreeSet<u8> = self.peers.keys().copied().chain([self.config.station]).collect();
        let untold: Vec<(Key, u8)> = self.finished.iter().filter(|(_, f)| !f.told).map(|(k, f)| (*k, f.rank)).collect();
        untold.into_iter().for_each(|(key, rank)| self.owe(now, key, &all, rank));
    }

    /// Time of a report on the air.
    fn slot(&self) -> Duration {
        let lacks = Standing::Lacks { heard: 0, upto: 0, lack: vec![0; 16] };
        self.config.rate.airtime((UDP_BYTES + wire::REPORT_OVERHEAD + lacks.bytes()) as u64)
    }

    fn datagram_time(&self) -> Duration {
        self.config.rate.airtime((UDP_BYTES + self.config.max_datagram) as u64)
    }

    /// After so much without a symbol of a transfer something was lost.
    fn quiet(&self, members: &BTreeSet<u8>) -> Duration {
        self.datagram_time() * 4 + Duration::from_millis(300) + self.slot() * place(members, self.config.station)
    }

    /// From the end of what was meant to leave until everybody should have spoken.
    fn patience(&self, members: usize) -> Duration {
        let answers = self.slot() * u32::try_from(members).unwrap_or(u32::MAX);
        self.config.delay * 2 + answers + self.datagram_time() * 2 + COMMITS
    }

    /// How long to wait for so many before they are asked again: an eighth longer each time, so that what is lost beyond the end of a fade
    /// is a part of its length.
    fn back_off(&self, members: usize, times: u32) -> Duration {
        (0..times.min(MOST_GROWTH)).fold(self.patience(members), |wait, _| wait + wait / 8).min(LONGEST_WAIT)
    }

    /// From when symbols leave until a report that they could be in has come back and is committed.
    fn flight(&self) -> Duration {
        self.config.delay * 2 + self.datagram_time() + self.slot() + COMMITS
    }

    /// A report steers once it is committed.
    fn report(&mut self, Head { from, reads, .. }: Head, report: Report) {
        if report.to != self.config.station {
            return self.counts.add("for_others");
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        match peer.record.admit(report.epoch, report.counter) {
            Admission::Replay => {
                let again = peer.told_old.is_none_or(|at| self.now.since(at) > LATER);
                peer.tell_old |= again && peer.record.epoch == report.epoch;
                return self.counts.add("replays");
            }
            Admission::NewEpoch => self.void(from),
            Admission::Fresh => {}
        }
        if report.of != self.config.epoch {
            self.counts.add("other_epoch");
            for (lead, standing) in &report.entries {
                self.reported_late(from, (report.of, *lead), standing);
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.record.reads = reads;
        if report.seen > self.highest {
            // Numbers that this store has not given out: it is an old copy.
            let peer = peer.name.clone();
            return self.suspend(peer);
        }
        peer.agrees = true;
        let mut puts = vec![(super::keep::peer_key(from), super::keep::encode(&peer.record))];
        for (lead, standing) in &report.entries {
            let Some(s) = self.sending.get(lead) else { continue };
            let mut record = s.record(s.reserved);
            if let (Some(m), Standing::Lacks { upto, lack, .. }) = (record.members.get_mut(&from), standing) {
                (m.epoch, m.upto, m.lack, m.windows) = (report.epoch, *upto, lack.clone(), 0);
                puts.push((super::keep::sending_key(self.config.epoch, *lead), super::keep::encode(&record)));
            }
        }
        let Report { epoch, counter, entries, .. } = report;
        let ticket = self.ticket(Pending::Report { from, epoch, counter, entries });
        self.events.push_back(Event::Persist { ticket, puts });
    }

    /// Another store speaks: what the one before held is void (A2).
    fn void(&mut self, from: u8) {
        for s in self.sending.values_mut() {
            let (geometry, next) = (s.geometry, s.next);
            if let Some(m) = s.members.get_mut(&from) {
                m.record = super::outgoing::MemberRecord { windows: m.record.windows, ..Default::default() };
                m.recount(geometry, next);
            }
        }
    }

    pub(super) fn reported(&mut self, now: Instant, from: u8, epoch: u32, counter: u32, entries: Vec<(u32, Standing)>) {
        self.now = now;
        let flight = self.flight();
        for (lead, standing) in entries {
            let Some(s) = self.sending.get_mut(&lead) else {
                self.reported_late(from, (self.config.epoch, lead), &standing);
                continue;
            };
            let (blocks, next, each) = (s.geometry.blocks() as usize, s.next, s.each);
            let (count, bytes, air) = (s.members.len().max(1), s.bytes, s.air);
            // What left so long ago is there or lost.
            let gone = s.left_by(now - flight);
            let Some(m) =
                s.members.get_mut(&from).filter(|m| !m.done && (counter > m.report || epoch != m.record.epoch))
            else {
                continue;
            };
            s.asked = 0;
            (m.spoke, m.report) = (true, counter);
            let id = m.id.clone();
            match standing {
                Standing::Other => {
                    if let Some(peer) = self.peers.get(&from).map(|p| p.name.clone()) {
                        return self.suspend(peer);
                    }
                }
                Standing::Accepted => {
                    m.done = true;
                    let share = u32::try_from(count).unwrap_or(u32::MAX);
                    let (bytes_on_air, air) = (bytes / count as u64, air / share);
                    self.events.push_back(Event::Confirmed { id, bytes_on_air, air });
                }
                Standing::Refused(reason) => {
                    m.done = true;
                    self.events.push_back(Event::Refused { id, reason });
                }
                Standing::Whole => m.lack.fill(0),
                Standing::Unknown => {
                    m.record.epoch = 0;
                    m.recount(s.geometry, gone.max(m.as_of.min(next)));
                }
                Standing::Lacks { heard, upto, lack } => {
                    if lack.len() != blocks || upto > next || heard > INDICES {
                        self.counts.add("implausible");
                        continue;
                    }
                    let (heard_before, upto_before) = m.counted.unwrap_or((0, 0));
                    if m.counted.replace((heard, upto)).is_some() || upto_before == 0 && s.reserved >= upto {
                        let sent = f64::from(upto.saturating_sub(upto_before)) / f64::from(each);
                        let there = f64::from(heard.saturating_sub(heard_before)) / f64::from(each);
                        if let Some(peer) = self.peers.get_mut(&from) {
                            peer.losses.learn(sent - there, sent);
                        }
                    }
                    m.speaks(epoch, upto, gone, lack);
                    let need: u32 = (0..s.geometry.blocks()).map(|b| s.geometry.block_count(b)).sum();
                    let have = need.saturating_sub(m.lack.iter().sum());
                    self.events.push_back(Event::Progress { id, have, need, bytes_on_air: bytes, air });
                }
            }
            if s.unsure && s.members.values().all(|m| m.silent || m.done || m.spoke) {
                s.unsure = false;
            }
            // Whoever says nothing more is asked: at once where a word has lowered the aim below what asks with the last symbols.
            let speaking = s.open().filter(|(_, m)| !m.silent).count();
            let ended =
                self.sending.get(&lead).is_some_and(|s| s.asked_for < s.next && self.goal(s, now, false) <= s.next);
            let wait = if ended { Duration::ZERO } else { self.patience(speaking) };
            // What waits for word of this node's past waits no longer because some of it has come.
            if let Some(s) = self.sending.get_mut(&lead).filter(|s| !s.unsure || s.next > 0) {
                s.ask_at = (speaking > 0).then_some(now + wait);
            }
        }
    }

    /// This store is an old copy: the switch takes another epoch, and a new station with it (A2).
    fn suspend(&mut self, peer: PeerName) {
        if !std::mem::replace(&mut self.suspended, true) {
            self.events.push_back(Event::EpochUsed { peer });
        }
    }

    /// Goes on under another epoch, which is durable. What was carried under the old one is forgotten: it comes again, frozen anew.
    pub fn renew(&mut self, now: Instant, epoch: u32) {
        self.now = now;
        let old = std::mem::take(&mut self.sending).into_keys();
        let old = old.chain(std::mem::take(&mut self.left_over).into_keys());
        let puts = old.map(|lead| (super::keep::sending_key(self.config.epoch, lead), None)).collect();
        self.forget(puts);
        self.given_up.clear();
        // Their numbers may soon stand for something else.
        let stale = |p: &Pending| matches!(p, Pending::Spread(_) | Pending::Reserve(..) | Pending::Report { .. });
        self.pending.retain(|_, p| !stale(p));
        (self.config.epoch, self.highest, self.suspended) = (epoch, 0, false);
        self.peers.values_mut().for_each(|p| p.agrees = true);
    }

    /// The store's epoch is in doubt: nothing leaves before [`Station::renew`].
    pub fn doubt_epoch(&mut self) {
        self.suspended = true;
    }

    fn reported_late(&mut self, from: u8, (epoch, lead): (u32, u32), standing: &Standing) {
        let Some(id) = self.late.get(&(epoch, lead, from)) else { return self.counts.add("unknown_transfer") };
        if *standing == Standing::Accepted {
            let id = id.clone();
            self.events.push_back(Event::Confirmed { id, bytes_on_air: 0, air: Duration::ZERO });
        }
    }

    fn loss_to(&self, station: u8) -> f64 {
        let Some(peer) = self.peers.get(&station) else { return 0.05 };
        if peer.silent { peer.losses.share().max(peer.assumed_loss) } else { peer.losses.share() }
    }

    fn policy(&self, precedence: Precedence) -> blind::Policy {
        self.config.blind.get(&precedence).copied().unwrap_or_default()
    }

    /// The index up to which symbols of a transfer should leave now.
    fn goal(&self, s: &Sending, now: Instant, busy: bool) -> u32 {
        let open = s.not_before.is_none_or(|at| at <= now);
        let window = open.then(|| s.window_target(|m| self.loss_to(m), self.policy(s.precedence))).flatten();
        let nudge = if s.nudge { s.next + s.each } else { 0 };
        s.target(|m| self.loss_to(m), busy).max(window.unwrap_or(0)).max(nudge)
    }

    /// The transfer whose symbols leave next: of the highest precedence the one that was handed in first.
    fn chosen(&self, now: Instant) -> Option<(u32, u32)> {
        let lowest = self.lowest?;
        let ready = |s: &Sending| {
            !s.unsure && s.symbols.is_some() && s.precedence >= lowest && s.next + s.each <= s.reserved.min(INDICES - 1)
        };
        let candidates: Vec<(&u32, &Sending)> = self.sending.iter().filter(|(_, s)| ready(s)).collect();
        let fresh = candidates.iter().filter(|(_, s)| s.next < s.geometry.count()).count();
        let wanting = candidates.into_iter().filter_map(|(lead, s)| {
            let goal = self.goal(s, now, fresh > usize::from(s.next < s.geometry.count()));
            (goal > s.next).then_some((std::cmp::Reverse(s.precedence), *lead, goal))
        });
        wanting.min().map(|(_, lead, goal)| (lead, goal))
    }

    fn report_ready(&self, now: Instant) -> Option<(u8, u8)> {
        let ready = |(s, p): (&u8, &Peer)| p.due.as_ref().filter(|d| d.at <= now).map(|d| (d.rank, *s));
        self.peers.iter().filter_map(ready).max_by_key(|(rank, s)| (*rank, std::cmp::Reverse(*s)))
    }

    fn word_ready(&self, now: Instant) -> bool {
        !self.given_up.is_empty()
            || self.peers.values().any(|p| p.tell_old)
            || self.sending.values().any(|s| s.ask_at.is_some_and(|at| at <= now))
    }

    /// Takes note of what an order forbids and allows.
    fn heed(&mut self, now: Instant, allowed: &impl Fn(Purpose) -> bool) {
        self.now = now;
        let all: BTreeSet<u8> = self.peers.keys().copied().chain([self.config.station]).collect();
        let at = now + self.slot() * place(&all, self.config.station);
        for due in self.peers.values_mut().filter_map(|p| p.due.as_mut()) {
            match allowed(report_purpose(due.rank)) {
                true if due.barred => (due.barred, due.at) = (false, due.at.max(at)),
                true => {}
                false => due.barred |= due.at <= now,
            }
        }
        if allowed(Purpose::Probe) {
            return;
        }
        // Nobody may be asked: mail that may leave asks by itself, with symbols that were not sent before.
        for s in self.sending.values_mut().filter(|s| s.ask_at.is_some_and(|at| at <= now)) {
            if allowed(Purpose::Traffic(s.precedence)) {
                s.nudge = !s.unsure && s.open().any(|(_, m)| !m.silent);
                (s.unsure, s.ask_at) = (false, None);
            }
        }
    }

    /// What the next datagram is for, if one may leave at the rate and by these orders.
    pub fn next_purpose(&mut self, now: Instant, allowed: impl Fn(Purpose) -> bool) -> Option<Purpose> {
        self.heed(now, &allowed);
        self.wants(now, allowed)
    }

    /// The same, without taking note of the orders.
    pub fn wants(&self, now: Instant, allowed: impl Fn(Purpose) -> bool) -> Option<Purpose> {
        if self.suspended || self.pacer.ready_at() > now || self.counter >= self.counter_limit {
            return None;
        }
        let report = self.report_ready(now).map(|(rank, _)| report_purpose(rank));
        let word = self.word_ready(now).then_some(Purpose::Probe);
        let symbols = || self.sending.get(&self.chosen(now)?.0).map(|s| Purpose::Traffic(s.precedence));
        report.into_iter().chain(word).find(|p| allowed(*p)).or_else(|| symbols().filter(|p| allowed(*p)))
    }

    /// The next datagram of those that the gate allows.
    pub fn poll_transmit(&mut self, now: Instant, allowed: impl Fn(Purpose) -> bool) -> Option<Transmit> {
        let purpose = self.next_purpose(now, allowed)?;
        self.poll_permitted(now, purpose)
    }

    /// The datagram that [`Station::next_purpose`] spoke of.
    pub fn poll_permitted(&mut self, now: Instant, purpose: Purpose) -> Option<Transmit> {
        self.now = now;
        let ((to, bytes), about) = match purpose {
            Purpose::Report(_) => (self.emit_report(now)?, None),
            Purpose::Probe => ((Destination::Group, self.emit_word(now)?), None),
            Purpose::Traffic(_) => {
                let (lead, bytes) = self.emit_symbols(now)?;
                ((Destination::Group, bytes), Some(lead))
            }
        };
        self.pacer.take(now, bytes.len());
        self.reserve_counters();
        Some(Transmit { to, purpose, about, bytes })
    }

    fn emit(&self, to: u8, datagram: &Datagram) -> Option<Vec<u8>> {
        let (key, seal) = self.peers.get(&to).map(|p| (p.send.0, &p.send.1))?;
        Some(datagram.emit(Head { key, reads: self.config.reads, from: self.config.station }, seal))
    }

    fn emit_report(&mut self, now: Instant) -> Option<(Destination, Vec<u8>)> {
        let (_, to) = self.report_ready(now)?;
        let due = self.peers.get_mut(&to)?.due.take()?;
        let of = due.entries.first().map(|(epoch, _)| *epoch)?;
        let mut room = self.config.max_datagram.saturating_sub(wire::REPORT_OVERHEAD);
        let (mut entries, mut rest, mut told) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (epoch, counter) in due.entries.iter().copied() {
            let standing = self.standing((to, epoch, counter));
            if epoch != of || standing.bytes() > room {
                rest.insert((epoch, counter));
                continue;
            }
            room -= standing.bytes();
            entries.push((counter, standing));
            self.others.remove(&(to, epoch, counter));
            let key = (to, epoch, counter);
            if let Some(finished) = self.finished.get_mut(&key) {
                self.said.insert(key, now);
                if !std::mem::replace(&mut finished.told, true) {
                    told.push(super::keep::finished_put(key, finished));
                }
            }
        }
        self.forget(told);
        if let Some(peer) = self.peers.get_mut(&to).filter(|_| !rest.is_empty()) {
            peer.due = Some(Due { at: now, entries: rest, ..due });
        }
        self.counter += 1;
        let seen = self.seen(to, of);
        let report = Report { to, epoch: self.config.epoch, counter: self.counter, of, seen, entries };
        Some((Destination::Station(to), self.emit(to, &Datagram::Report(report))?))
    }

    /// The highest counter of a transfer that a peer was heard to send under an epoch.
    fn seen(&self, from: u8, epoch: u32) -> u32 {
        let range = (from, epoch, 0)..=(from, epoch, u32::MAX);
        let finished = self.finished.range(range.clone()).next_back().map(|(key, _)| key.2);
        let incoming = self.incoming.range(range).next_back().map(|(key, _)| key.2);
        let record = self.peers.get(&from).map(|p| &p.record).filter(|r| r.epoch == epoch).map(|r| r.transfer_seen);
        finished.max(incoming).max(record).unwrap_or(0)
    }

    fn standing(&self, key: Key) -> Standing {
        if self.others.contains_key(&key) {
            return Standing::Other;
        }
        match (self.finished.get(&key), self.incoming.get(&key)) {
            (Some(Finished { ending: Ending::Accepted, .. }), _) => Standing::Accepted,
            (Some(Finished { ending: Ending::Refused(reason), .. }), _) => Standing::Refused(*reason),
            (None, Some(incoming)) => incoming.standing(),
            (None, None) => Standing::Unknown,
        }
    }

    /// Questions that are due, and what is given up, to all whom it concerns.
    fn emit_word(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (mut asked, mut members, mut in_vain) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let leads: Vec<u32> = self.sending.keys().copied().collect();
        for lead in leads {
            let Some(s) = self.sending.get_mut(&lead).filter(|s| s.ask_at.is_some_and(|at| at <= now)) else {
                continue;
            };
            if asked.len() == WORDS {
                break;
            }
            let open: Vec<u8> = s.open().filter(|(_, m)| !m.silent).map(|(station, _)| *station).collect();
            // Who listens has heard what went to the others, too: one word of this node's past is as good as that of all. Every word sets
            // the count of questions back, so that who is not there would otherwise be asked for ever.
            let one_spoke = s.open().any(|(_, m)| m.spoke);
            if s.unsure && (one_spoke || s.asked >= if s.next == 0 { ASKED_IN_VAIN } else { 1 }) {
                // Who does not say what it has of before the restart is sent what its last word lacks.
                s.unsure = false;
                in_vain.extend(open.iter().copied().filter(|_| s.next == 0));
            }
            s.members.values_mut().for_each(|m| m.spoke = false);
            s.asked += 1;
            let (times, count) = (s.asked, open.len());
            s.asked_for = s.next;
            if !open.is_empty() {
                asked.push(lead);
                members.extend(open);
            }
            let wait = self.back_off(count, times);
            if let Some(s) = self.sending.get_mut(&lead) {
                s.ask_at = (count > 0).then_some(now + wait);
            }
        }
        self.peers.iter_mut().filter(|(s, _)| in_vain.contains(s)).for_each(|(_, p)| p.agrees = true);
        let given_up: Vec<u32> = self.given_up.keys().copied().take(WORDS).collect();
        for lead in &given_up {
            if let Some((who, told)) = self.given_up.get_mut(lead) {
                members.extend(who.iter());
                *told += 1;
            }
        }
        self.given_up.retain(|_, (_, told)| *told < CANCELS);
        let mut heard = Vec::new();
        for (station, p) in self.peers.iter_mut().filter(|(_, p)| p.tell_old).take(WORDS) {
            (p.tell_old, p.told_old) = (false, Some(now));
            heard.push((*station, p.record.epoch, p.record.control_seen));
            members.insert(*station);
        }
        let to = *members.first()?;
        self.counter += 1;
        let word = Word { epoch: self.config.epoch, counter: self.counter, members, heard, asked, given_up };
        self.emit(to, &Datagram::Word(word))
    }

    fn emit_symbols(&mut self, now: Instant) -> Option<(u32, Vec<u8>)> {
        let (lead, goal) = self.chosen(now)?;
        let guessed =
            self.sending.get(&lead)?.open().any(|(s, _)| self.peers.get(s).is_some_and(|p| p.losses.are_guessed()));
        let forgotten = now - self.flight();
        let flight = u32::try_from(self.flight().as_nanos().div_ceil(self.datagram_time().as_nanos().max(1)));
        let flight = flight.unwrap_or(u32::MAX).min(INDICES);
        let s = self.sending.get_mut(&lead)?;
        let speaking = s.open().any(|(_, m)| !m.silent);
        let asks = speaking && s.should_ask(goal, guessed, flight);
        let last = s.next + s.each >= goal;
        let (index, symbols) = s.take(now, forgotten)?;
        if asks {
            s.asked_for = s.next;
        }
        let nudged = std::mem::take(&mut s.nudge);
        s.asked += u32::from(nudged);
        let asked = s.asked;
        let members: BTreeSet<u8> = s.open().map(|(station, _)| *station).collect();
        let (geometry, mark, rank, open) = (s.geometry, s.mark, s.precedence.rank(), members.len());
        let to = *members.first()?;
        let (epoch, counter) = (self.config.epoch, lead);
        let datagram =
            Datagram::Symbols(Symbols { epoch, counter, mark, geometry, index, asks, rank, members, symbols });
        let bytes = self.emit(to, &datagram)?;
        let patience = if nudged { self.back_off(open, asked) } else { self.patience(open) };
        let (patience, air) = (patience, self.config.rate.airtime((bytes.len() + UDP_BYTES) as u64));
        if let Some(s) = self.sending.get_mut(&lead) {
            s.bytes += (bytes.len() + UDP_BYTES) as u64;
            s.air += air;
            if last && speaking {
                s.ask_at = Some(now + patience);
            }
        }
        if last {
            self.close_window(now, lead);
        }
        self.reserve(lead);
        Some((lead, bytes))
    }

    /// What was meant to leave for silent receivers has left.
    fn close_window(&mut self, now: Instant, lead: u32) {
        let Some(precedence) = self.sending.get(&lead).map(|s| s.precedence) else { return };
        let (policy, epoch) = (self.policy(precedence), self.config.epoch);
        let Some(s) = self.sending.get_mut(&lead) else { return };
        let share = s.members.len().max(1) as u64;
        let (bytes_on_air, air, next) = (s.bytes / share, s.air, s.next);
        let repeated = next > s.geometry.sequences();
        let mut told = Vec::new();
        for m in s.members.values_mut().filter(|m| m.silent && !m.done && m.record.windows < policy.windows) {
            m.record.windows += 1;
            let (id, window, of) = (m.id.clone(), m.record.windows, policy.windows);
            told.push(Event::SentBlind { id, window, of, repeated, bytes_on_air, air });
        }
        if told.is_empty() {
            return;
        }
        (s.window_from, s.not_before) = (next, Some(now + policy.interval));
        let puts = vec![(super::keep::sending_key(epoch, lead), super::keep::encode(&s.record(s.reserved)))];
        self.events.extend(told);
        self.forget(puts);
    }

    /// Symbols leave only after it is committed that they may have (D2).
    pub(super) fn reserve(&mut self, lead: u32) {
        let (time, epoch) = (self.datagram_time(), self.config.epoch);
        let Some(s) = self.sending.get_mut(&lead) else { return };
        let ahead = u32::try_from(COMMIT_AHEAD.as_nanos() / time.as_nanos().max(1)).unwrap_or(u32::MAX).clamp(4, 4096);
        if s.reserving || s.reserved >= s.next.saturating_add(ahead * s.each) {
            return;
        }
        let upto = s.next.saturating_add((ahead + ahead / 2).saturating_mul(s.each)).min(INDICES - 1);
        if upto <= s.reserved {
            return;
        }
        s.reserving = true;
        let puts = vec![(super::keep::sending_key(epoch, lead), super::keep::encode(&s.record(upto)))];
        let ticket = self.ticket(Pending::Reserve(lead, upto));
        self.events.push_back(Event::Persist { ticket, puts });
    }

    /// Acts on every deadline at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.retry_commits();
        }
        let quiet: Vec<Key> =
            self.incoming.iter().filter(|(_, i)| i.quiet_at.is_some_and(|at| at <= now)).map(|(k, _)| *k).collect();
        let step = self.quiet(&BTreeSet::from([self.config.station]));
        for key in quiet {
            let Some(i) = self.incoming.get_mut(&key) else { continue };
            i.unasked += 1;
            i.quiet_at =
                (i.unasked < UNASKED).then(|| now + step * 2u32.saturating_pow(i.unasked + 1) + self.config.delay * 4);
            let rank = i.partial.rank;
            self.owe(now, key, &BTreeSet::new(), rank);
        }
        self.offer_again(now);
    }

    /// The answer to [`Event::Job`].
    pub fn job_done(&mut self, now: Instant, ticket: u64, done: JobDone) {
        self.now = now;
        match (self.pending.remove(&ticket), done) {
            (Some(Pending::Spread(lead)), JobDone::Spread(symbols)) => {
                if let Some(s) = self.sending.get_mut(&lead) {
                    s.symbols = Some(symbols);
                    if s.unsure {
                        s.ask_at = Some(now);
                        s.unsure = s.members.values().any(|m| !m.silent);
                    }
                }
            }
            (Some(Pending::Gather(key)), JobDone::Gathered(payload)) => self.gathered(key, payload),
            _ => {}
        }
    }

    /// The answer to [`Event::Whole`].
    pub fn settled(&mut self, now: Instant, ticket: u64, verdict: Verdict) {
        self.now = now;
        let Some(Pending::Judge(key)) = self.pending.remove(&ticket) else { return };
        match verdict {
            Verdict::Accepted => self.end(key, Ending::Accepted),
            Verdict::Refused(reason) => self.end(key, Ending::Refused(reason)),
            Verdict::Forged => {
                self.counts.add("forged");
                self.discard(key);
            }
            Verdict::Later => self.put_off(key, now + LATER),
        }
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Station::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let incoming = self.incoming.values().filter_map(|i| [i.quiet_at, i.later_at()].into_iter().flatten().min());
        incoming.chain(self.retry_at).min()
    }

    /// When one of those that the gate allows may be ready to leave.
    pub fn next_send(&self, allowed: impl Fn(Purpose) -> bool) -> Option<Instant> {
        if self.suspended || self.counter >= self.counter_limit {
            return None;
        }
        let due = self.peers.values().filter_map(|p| p.due.as_ref());
        let reports = due.filter(|d| allowed(report_purpose(d.rank))).map(|d| d.at);
        let probing = allowed(Purpose::Probe);
        // Where no question may leave, mail that may asks by itself.
        let asks = |s: &&Sending| probing || allowed(Purpose::Traffic(s.precedence));
        let words = self.sending.values().filter(asks).filter_map(|s| s.ask_at);
        let at_once = probing && (!self.given_up.is_empty() || self.peers.values().any(|p| p.tell_old));
        let windows = self.sending.values().filter_map(|s| s.not_before).filter(|at| *at > self.now);
        let traffic = |lead: &u32| self.sending.get(lead).is_some_and(|s| allowed(Purpose::Traffic(s.precedence)));
        let symbols = self.chosen(self.now).filter(|(lead, _)| traffic(lead)).map(|_| self.now);
        let cancels = at_once.then_some(self.now);
        let first = reports.chain(words).chain(cancels).chain(windows).chain(symbols).min()?;
        Some(first.max(self.pacer.ready_at()))
    }

    /// Transfers on their way in, and the bytes of their payloads.
    pub fn held(&self) -> (usize, usize) {
        (self.incoming.len(), self.incoming.values().map(|i| i.partial.geometry.coded() as usize).sum())
    }

    /// Payloads on their way out.
    pub fn carried(&self) -> usize {
        self.sending.len()
    }

    /// Transfers of others that are known, those finished included.
    pub fn known(&self) -> usize {
        self.incoming.len() + self.finished.len()
    }

    /// Reports that are owed.
    pub fn reports_owed(&self) -> usize {
        self.peers.values().filter(|p| p.due.is_some()).count()
    }

    /// Time of one report on the air, at most.
    pub fn report_air(&self) -> Duration {
        self.slot()
    }

    /// When everything handed out so far has left at the rate.
    pub fn spent_until(&self) -> Instant {
        self.pacer.spent_until()
    }

    /// The store epoch under which a peer speaks, and what it reads; `None` before it was heard.
    pub fn reading(&self, peer: &PeerName) -> Option<(u32, u8)> {
        let record = &self.peers.values().find(|p| p.name == *peer)?.record;
        (record.epoch != 0).then_some((record.epoch, record.reads))
    }

    /// A peer could not read what it had said it reads.
    pub fn doubt_reading(&mut self, peer: &PeerName) {
        self.peers.values_mut().filter(|p| p.name == *peer).for_each(|p| p.record.reads = 0);
    }

    /// When something authentic of a peer came last.
    pub fn heard(&self, peer: &PeerName) -> Option<Instant> {
        self.peers.values().find(|p| p.name == *peer)?.heard_at
    }

    /// Transfers to a silent peer that have had a window.
    pub fn sent_blind(&self, peer: &PeerName) -> usize {
        let Some(station) = self.station_of(peer).filter(|s| self.peers.get(s).is_some_and(|p| p.silent)) else {
            return 0;
        };
        let members = self.sending.values().filter_map(|s| s.members.get(&station));
        members.filter(|m| !m.done && m.record.windows > 0).count()
    }

    /// Whether part of something that a peer began to send is held.
    pub fn has_part_of(&self, peer: &PeerName) -> bool {
        self.station_of(peer).is_some_and(|s| self.incoming.keys().any(|key| key.0 == s))
    }

    /// Symbols that a receiver needs of a transfer, and those it lacks as far as is known.
    pub fn missing(&self, id: &TransferId) -> Option<(u32, u32)> {
        let found = |s: &Sending| Some((s.geometry, s.members.values().find(|m| m.id == *id)?.lack.iter().sum()));
        let (geometry, lack) = self.sending.values().find_map(found)?;
        Some(((0..geometry.blocks()).map(|b| geometry.block_count(b)).sum(), lack))
    }

    /// How often what happened that should not, or need not.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn station_of(&self, peer: &PeerName) -> Option<u8> {
        self.peers.iter().find(|(_, p)| p.name == *peer).map(|(s, _)| *s)
    }
}

fn report_purpose(rank: u8) -> Purpose {
    Purpose::Report(Precedence::from_rank(rank).unwrap_or(Precedence::Deferred))
}

/// The first two bytes of a payload: those of its seal.
fn mark_of(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(0, |first| u16::from_be_bytes(*first))
}
