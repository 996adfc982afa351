//! A net of whole nodes: builds them, sends mail through them, breaks them, and holds what they promised against what they did.
//!
//! The net may be any graph: mail between stations that do not hear each other goes over relays (`plan`). After every step the lab
//! reads what the nodes said and did (`watch`): no antenna begins to radiate under an order of silence, nothing is accepted twice,
//! no outcome is told twice, nothing goes before what has precedence, no counter is used twice, what is held in memory stays within
//! its bounds, every byte is accounted for, and nothing is reported at level ERROR that was not provoked. After every start, what was
//! promised is in the store. [`Lab::check`] is the judge at the end (`judge`): every message that got a 250 lies exactly once, byte for
//! byte, in the Maildir it was meant for, and has one final outcome wherever it passed. A problem opens with one word for its kind.
//! Called by `aldis-sim run` and `storm`, the link bench and the tests.

mod blind;
mod judge;
mod overheard;
mod plan;
mod tape;
mod watch;

pub use plan::{MOST_STATIONS, Topology};
pub use tape::{Piece, Transmission, What};

use std::collections::{BTreeMap, BTreeSet};

use aldis::emcon::{State, Window};
use aldis::mail::{BodyKind, Mailbox, MessageId, Notify, Precedence, Recipient, header};
#[cfg(feature = "mutations")]
use aldis::mutation::Mutation;
use aldis::ops::{BearerChoice, EmconWord, Request};
use aldis::switch::{RequestId, SessionId};
use aldis::time::{Duration, Instant, Wall};
use serde::Serialize;

use crate::client;
use crate::disk::Image;
use crate::ether::{Ether, EtherConfig, StationId};
use crate::modem::Failure;
use crate::node::{Economy, VirtualNode};
use crate::rng::Stream;
use crate::trace::Trace;
use crate::world::{START, StationClock, World};

use watch::Watch;

/// What a net is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Seeds the nodes; the ether has its own.
    pub seed: u64,
    /// Seeds the mail: its bodies and names.
    pub mail: u64,
    /// Station names.
    pub names: Vec<String>,
    /// Names of further bearers, each on a frequency of its own.
    pub further: Vec<String>,
    /// The frequencies: radio `k * n + i` is that of station `i` of `n` on bearer `k`. Who hears whom decides who are peers; at most
    /// [`MOST_STATIONS`] may hang together.
    pub ether: EtherConfig,
    /// Civil time at virtual time zero.
    pub start: Wall,
    /// Whether the civil clocks may be trusted from the start (link-rules A7).
    pub clock_set: bool,
    /// Stations whose civil clocks differ from that.
    pub clocks: BTreeMap<StationId, StationClock>,
    /// How the link is protected: `off`, `mac` or `aead`.
    pub protection: &'static str,
    /// What is saved on.
    pub economy: Economy,
    /// Whether the nodes' stores do further calls while they sync; see [`VirtualNode::ahead`].
    pub store_ahead: bool,
    /// One key for all stations instead of one for each pair: messages for several go once.
    pub net_key: bool,
    /// State of every bearer at first start, as a profile says it.
    pub emcon: &'static str,
    /// What a modem that can be told its waveform is told, as a profile says it.
    pub rates: String,
    /// More lines for the table of limits.
    pub limits: &'static str,
    /// More lines for the table of every bearer.
    pub bearer: &'static str,
    /// More tables for every profile.
    pub tables: &'static str,
    /// The dictionary that each station, by its number, has of its own and takes its peers to have.
    pub dictionaries: BTreeMap<StationId, &'static [u8]>,
    /// Longest transmission; `None` keeps the profile's defaults.
    pub max_transmission: Option<Duration>,
    /// The deliberate fault every node has.
    #[cfg(feature = "mutations")]
    pub mutation: Option<Mutation>,
}

impl Setup {
    /// Stations of these names on this frequency, open, with authenticated frames.
    pub fn new(seed: u64, names: &[&str], ether: EtherConfig) -> Self {
        let names = names.iter().map(ToString::to_string).collect();
        Self {
            seed,
            mail: seed,
            names,
            further: Vec::new(),
            ether,
            start: START,
            clock_set: true,
            clocks: BTreeMap::new(),
            protection: "mac",
            economy: Economy::ALONE,
            store_ahead: false,
            net_key: false,
            emcon: "open",
            rates: "rate = \"auto\"".into(),
            limits: "",
            bearer: "",
            tables: "",
            dictionaries: BTreeMap::new(),
            max_transmission: None,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

impl Setup {
    /// Names of all bearers.
    fn bearers(&self) -> impl Iterator<Item = &str> {
        [BEARER].into_iter().chain(self.further.iter().map(String::as_str))
    }
}

/// A message that was handed in.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When.
    pub at: Instant,
    /// Where.
    pub from: StationId,
    /// Whither.
    pub to: StationId,
    /// Whither else: neighbours of the station it was handed in at.
    pub also: Vec<StationId>,
    /// Level of service asked for.
    pub precedence: Precedence,
    /// Its Message-ID field, without brackets.
    pub message_id: String,
    /// The message as the client sent it.
    pub body: Vec<u8>,
    /// Its sender asks for word of its delivery.
    pub receipts: bool,
    /// An operator was asked to end it: it may arrive or not, and its sender may be told.
    pub cancelled: bool,
    /// What became of it, as far as the nodes told.
    pub fate: Fate,
}

impl Entry {
    /// Everywhere it has a recipient.
    pub fn recipients(&self) -> impl Iterator<Item = StationId> + '_ {
        [self.to].into_iter().chain(self.also.iter().copied())
    }
}

/// What the nodes told of a message.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Fate {
    /// The client heard 250.
    pub promised: Option<Instant>,
    /// The client heard a refusal.
    pub refused: Option<Instant>,
    /// The far node committed it.
    pub committed: Option<Instant>,
    /// It was put into the far Maildir.
    pub delivered: Option<Instant>,
    /// The near node heard that the far one has it.
    pub confirmed: Option<Instant>,
    /// Bytes of the frozen payload.
    pub payload_bytes: u64,
    /// The id its frames carry, as it was frozen last.
    pub short: Option<u16>,
    /// Share of its symbols that the far node has reported.
    pub share: f64,
    /// Bytes on the air, as the near node counts them.
    pub bytes_on_air: u64,
    /// Seconds of the near node's emission.
    pub air_s: f64,
}

/// The order in force at a station from some instant on, as its operator may rely on it.
#[derive(Clone, Debug)]
struct Standing {
    from: Instant,
    state: State,
}

/// A carrier that an order of silence forbade.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Whose.
    pub station: StationId,
    /// From when on it was forbidden.
    pub from: Instant,
    /// When it went.
    pub until: Instant,
    /// In words.
    pub text: String,
}

/// An order that was given.
#[derive(Clone, Debug)]
struct Order {
    station: StationId,
    at: Instant,
    state: State,
    replied: bool,
    /// What the reply stated.
    carrier_off: Option<Duration>,
}

/// What an operator was told of a peer.
#[derive(Clone, Copy, Debug)]
struct Mark {
    station: StationId,
    peer: StationId,
    silent: bool,
    replied: bool,
}

/// What an operator does to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hand {
    /// Keeps it until it is released.
    Hold,
    /// Lets it go.
    Release,
    /// Gives it this level and tries it at once.
    Expedite(Precedence),
    /// Ends it.
    Cancel,
}

/// Something the laboratory itself does later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chore {
    /// Starts a node that is down.
    Start,
    /// Lets a node end whose store failed.
    WindUp,
}

/// A net of whole nodes.
#[derive(Debug)]
pub struct Lab {
    world: World<VirtualNode>,
    topology: Topology,
    names: Vec<String>,
    seed: u64,
    mail: u64,
    ledger: Vec<Entry>,
    by_message_id: BTreeMap<String, usize>,
    by_id: BTreeMap<(StationId, MessageId), usize>,
    /// The id of each message at each station that accepted it.
    accepted: BTreeMap<(StationId, usize), MessageId>,
    outcomes: BTreeMap<(StationId, MessageId, String), Vec<Told>>,
    /// Messages that a store held as done when its node started.
    ended: BTreeSet<(StationId, MessageId)>,
    watches: Vec<Watch>,
    edges_read: usize,
    orders: BTreeMap<RequestId, Order>,
    inquiries: BTreeMap<RequestId, StationId>,
    marks: BTreeMap<RequestId, Mark>,
    /// Asked after a start: whom it takes for silent.
    peer_inquiries: BTreeMap<RequestId, StationId>,
    next_request: u64,
    chores: Vec<(Instant, StationId, Chore)>,
    cuts: u64,
    problems: Vec<String>,
    forbidden: Vec<Violation>,
    /// Errors that a test provokes: parts of their names and fields.
    pub provoked: Vec<&'static str>,
    /// Mail handed in from now on asks for word of its delivery.
    pub asks_receipts: bool,
    /// How long a node whose power failed by a planned fault, or whose store failed, stays away.
    pub reboot_after: Duration,
}

/// An outcome that was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Delivered,
    Unconfirmed,
    Other,
}

const BEARER: &str = "hf1";
/// Problems kept; a run that has more has failed, and the first tell why.
const MOST_PROBLEMS: usize = 50;
/// When a node whose store failed tries again to make its orders durable, as `node/writer.rs` has it.
const WIND_UP_AGAIN: Duration = Duration::from_secs(2);

impl Lab {
    /// Builds the net and starts every node.
    ///
    /// # Panics
    ///
    /// When the setup makes no sound profile.
    pub fn new(setup: &Setup, trace: Trace) -> Self {
        let count = setup.names.len();
        let topology = Topology::new(count, &setup.ether.links);
        let hosts: Vec<_> = ids(count)
            .map(|id| {
                let ports = setup.bearers().map(Into::into).collect();
                let seed = Stream::new(setup.seed, "node", u64::from(id.0)).next_u64();
                let mut node = VirtualNode::new(plan::plan(setup, &topology, id), ports, setup.economy, seed);
                node.ahead = setup.store_ahead;
                node
            })
            .collect();
        let mut world = World::new(Ether::new(setup.ether.clone()), hosts, trace);
        for id in ids(count) {
            let usual = StationClock { start: setup.start, set: setup.clock_set };
            world.set_clock(id, setup.clocks.get(&id).copied().unwrap_or(usual));
        }
        let mut lab = Self {
            world,
            topology,
            names: setup.names.clone(),
            seed: setup.seed,
            mail: setup.mail,
            ledger: Vec::new(),
            by_message_id: BTreeMap::new(),
            by_id: BTreeMap::new(),
            accepted: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            ended: BTreeSet::new(),
            watches: (0..count).map(|_| Watch::default()).collect(),
            edges_read: 0,
            orders: BTreeMap::new(),
            inquiries: BTreeMap::new(),
            marks: BTreeMap::new(),
            peer_inquiries: BTreeMap::new(),
            next_request: 0,
            chores: Vec::new(),
            cuts: 0,
            problems: Vec::new(),
            forbidden: Vec::new(),
            provoked: Vec::new(),
            asks_receipts: false,
            reboot_after: Duration::from_secs(20),
        };
        ids(count).for_each(|id| lab.start(id));
        lab
    }

    /// Virtual time.
    pub fn at(&self) -> Instant {
        self.world.at()
    }

    /// The world, to look at.
    pub fn world(&self) -> &World<VirtualNode> {
        &self.world
    }

    /// The world, to disturb. Clocks, paths and modems only: nodes are started and stopped through the lab.
    pub fn world_mut(&mut self) -> &mut World<VirtualNode> {
        &mut self.world
    }

    /// A node.
    pub fn node(&self, id: StationId) -> &VirtualNode {
        &self.world.hosts()[usize::from(id.0)]
    }

    /// Who is whose neighbour, and which way mail goes.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// All messages handed in, in order.
    pub fn ledger(&self) -> &[Entry] {
        &self.ledger
    }

    /// Hands in a message of `size` bytes of which nothing can be compressed but its header; its number in the ledger.
    pub fn submit(&mut self, from: StationId, to: StationId, size: u64, precedence: Precedence) -> usize {
        self.submit_to_several(from, to, &[], size, precedence)
    }

    /// The same with a recipient at each of several stations; those beside the first must be neighbours of `from`.
    pub fn submit_to_several(
        &mut self,
        from: StationId,
        to: StationId,
        also: &[StationId],
        size: u64,
        precedence: Precedence,
    ) -> usize {
        let number = self.ledger.len();
        let name = |id: StationId| self.names[usize::from(id.0)].as_str();
        let message_id = format!("{number}.{:x}@{}.example", self.mail, name(from));
        let addresses = (format!("op@{}.example", name(from)), format!("desk@{}.example", name(to)));
        let chance = Stream::new(self.mail, "body", number as u64);
        let body = message(&message_id, &addresses.0, &addresses.1, size, chance);
        self.hand_in(from, to, also, body, precedence)
    }

    /// Hands in a message of somebody's writing; its number in the ledger.
    ///
    /// # Panics
    ///
    /// When it has no Message-ID field.
    pub fn submit_mail(&mut self, from: StationId, to: StationId, body: Vec<u8>, precedence: Precedence) -> usize {
        self.hand_in(from, to, &[], body, precedence)
    }

    fn hand_in(
        &mut self,
        from: StationId,
        to: StationId,
        also: &[StationId],
        body: Vec<u8>,
        precedence: Precedence,
    ) -> usize {
        let number = self.ledger.len();
        let message_id = header::message_id(&body).expect("mail of the laboratory has a Message-ID");
        let message_id = message_id.trim_matches(['<', '>']).to_owned();
        let sender = format!("op@{}.example", self.name(from));
        let notify = self.asks_receipts.then_some(Notify { success: true, failure: true, delay: false });
        let recipient = |id: &StationId| Recipient { notify, ..desk(self.name(*id)) };
        let recipients = [to].iter().chain(also).map(recipient).collect();
        let transaction =
            client::transaction(&sender, recipients, Some(precedence), BodyKind::EightBitMime, body.clone());
        self.by_message_id.insert(message_id.clone(), number);
        let (at, fate) = (self.at(), Fate::default());
        self.ledger.push(Entry {
            at,
            from,
            to,
            also: also.to_vec(),
            precedence,
            message_id,
            body,
            receipts: self.asks_receipts,
            cancelled: false,
            fate,
        });
        self.world.with_host(from, |node, now| node.submit(now, SessionId(number as u64), transaction));
        self.digest();
        number
    }

    /// Gives an order of silence, or lifts it.
    pub fn order(&mut self, station: StationId, state: State) -> RequestId {
        let (mut from, mut until) = (None, None);
        let word = match &state {
            State::Window(windows) => {
                from = windows.first().map(|w| w.from);
                until = windows.first().map(|w| w.until);
                EmconWord::Window
            }
            other => EmconWord::State(other.clone()),
        };
        let reason = "exercise".into();
        let request = Request::EmconSet { bearer: BearerChoice::All, state: word, reason, from, until };
        let (id, at) = (self.request_id(), self.at());
        if self.node(station).is_up() {
            if state == State::Silent {
                // Silence holds from the order on, not from its commit.
                self.stand(station, State::Silent);
            }
            self.orders.insert(id, Order { station, at, state, replied: false, carrier_off: None });
            self.world.with_host(station, |node, now| node.request(now, id, request));
            self.digest();
        }
        id
    }

    /// A window of civil time at a station, from now + `after` on.
    pub fn window(&self, station: StationId, after: Duration, length: Duration) -> State {
        let from = self.world.now(station).wall.plus(after);
        State::Window(vec![Window { from, until: from.plus(length) }])
    }

    /// Any other request.
    pub fn request(&mut self, station: StationId, request: Request) -> RequestId {
        let id = self.request_id();
        self.world.with_host(station, |node, now| node.request(now, id, request));
        self.digest();
        id
    }

    /// Lays a hand on a message where it is; nothing happens where the station does not have it.
    pub fn operate(&mut self, station: StationId, number: usize, hand: Hand) {
        let Some(id) = self.accepted.get(&(station, number)).copied() else { return };
        let reason = "exercise".into();
        let request = match hand {
            Hand::Hold => Request::QueueHold { id, reason },
            Hand::Release => Request::QueueRelease { id },
            Hand::Expedite(precedence) => Request::QueueExpedite { id, precedence: Some(precedence) },
            Hand::Cancel => Request::QueueCancel { id, reason },
        };
        if hand == Hand::Cancel && self.node(station).is_up() {
            self.ledger[number].cancelled = true;
        }
        self.request(station, request);
    }

    /// Lets everything go that an operator holds anywhere.
    pub fn release_all(&mut self) {
        for id in ids(self.names.len()) {
            for message in self.node(id).held() {
                self.request(id, Request::QueueRelease { id: message });
            }
        }
    }

    /// Puts MINIMIZE on a station, or ends it.
    pub fn minimize(&mut self, station: StationId, minimum: Option<Precedence>) {
        let bearer = BearerChoice::All;
        let request = match minimum {
            Some(minimum) => {
                let reason = "exercise".into();
                Request::MinimizeSet { bearer, minimum, reason, from: None, until: None }
            }
            None => Request::MinimizeClear { bearer },
        };
        self.request(station, request);
    }

    /// Tells a station's operator that a peer keeps silence, or that it may be spoken to again.
    pub fn mark(&mut self, station: StationId, peer: StationId, silent: bool) {
        let peer_id = peer;
        let (peer, reason) = (self.name(peer).to_owned(), "exercise".to_owned());
        let request = match silent {
            true => Request::PeerSilent { peer, reason, from: None, until: None },
            false => Request::PeerHeard { peer, reason },
        };
        let id = self.request_id();
        if self.node(station).is_up() {
            self.marks.insert(id, Mark { station, peer: peer_id, silent, replied: false });
        }
        self.world.with_host(station, |node, now| node.request(now, id, request));
        self.digest();
    }

    /// Sets a station's civil clock. What it radiates now is held against the old one no longer.
    pub fn set_clock(&mut self, station: StationId, shows: Wall, set: bool) {
        let since_start = i64::try_from(self.at().0 / 1_000_000).unwrap_or(i64::MAX);
        let start = Wall(shows.0.saturating_sub(since_start));
        self.world.set_clock(station, StationClock { start, set });
        let at = self.at();
        self.watch(station).clock_stepped(at);
    }

    /// Breaks or mends a modem.
    pub fn set_failure(&mut self, radio: StationId, failure: Failure, broken: bool) {
        if failure == Failure::KeyStuck {
            let (station, _) = self.world.cabled(radio);
            self.watch(station).key_stuck = true;
        }
        self.world.disturb(|ether, at| ether.set_failure(at, radio, failure, broken));
        self.digest();
    }

    /// From now on listens at every antenna, and holds what is said against the order of service and the rule of counters.
    pub fn listen(&mut self) {
        for id in ids(self.names.len()) {
            let name = &self.node(id).plan().node.name;
            let ports = (0..).map_while(|port| self.node(id).bearer(port).map(|bearer| (port, bearer)));
            let ears = ports.map(|(port, bearer)| {
                let peers = self.topology.over(port, id).map(|peer| self.node(peer).plan());
                overheard::Overheard::new(name, bearer, peers)
            });
            self.watch(id).ears = ears.collect();
            self.world.with_host(id, |node, _| node.listen());
        }
    }

    /// From now on a station's disks may fail: its links may have to wait for commits.
    pub fn excuse_disk(&mut self, station: StationId) {
        self.watch(station).disk_troubled = true;
        self.watch(station).ears.iter_mut().for_each(|ear| ear.excused = true);
    }

    /// Kills a node's process, with the machine's power when `power` says so, and starts it again after `back_after`.
    pub fn crash(&mut self, station: StationId, power: bool, back_after: Option<Duration>) {
        self.cuts += 1;
        let seed = Stream::keyed(self.seed, "cut", &[u64::from(station.0), self.cuts]).next_u64();
        self.world.with_host(station, |node, now| node.crash(now, power.then_some(seed)));
        for radio in self.world.radios(station) {
            self.world.disturb(|ether, at| ether.close_port(at, radio));
        }
        self.watch(station).restarted();
        self.chores.retain(|(_, id, chore)| *id != station || *chore != Chore::WindUp);
        self.digest();
        if let Some(after) = back_after {
            self.chores.push((self.at() + after, station, Chore::Start));
        }
    }

    /// Starts a node that is down.
    pub fn start(&mut self, station: StationId) {
        if self.node(station).is_up() {
            return;
        }
        // Linux raises both lines on every open; the driver lowers the key at once (B3).
        for radio in self.world.radios(station) {
            self.world.disturb(|ether, at| {
                ether.open_port(at, radio, true);
                ether.unkey(at, radio);
            });
        }
        let heard = self.world.radios(station).filter(|radio| self.world.ether().carrier(*radio));
        let carrier: Vec<usize> = heard.map(|radio| self.world.cabled(radio).1).collect();
        self.world.with_host(station, |node, now| node.start(now, &carrier));
        if !self.node(station).is_up() {
            // The power went while the store was opened, or its disk failed: whoever started it does so again.
            let power = !self.node(station).store.is_powered();
            return self.crash(station, power, Some(self.reboot_after));
        }
        let id = self.request_id();
        self.inquiries.insert(id, station);
        self.world
            .with_host(station, |node, now| node.request(now, id, Request::EmconShow { bearer: BearerChoice::All }));
        if self.marks.values().any(|m| m.station == station) {
            let id = self.request_id();
            self.peer_inquiries.insert(id, station);
            self.world.with_host(station, |node, now| node.request(now, id, Request::PeerShow));
        }
        self.digest();
        self.check_kept(station);
    }

    /// Puts a backup of a station's store in the place of its store; the node must be down.
    pub fn restore_store(&mut self, station: StationId, backup: &Image) {
        assert!(!self.node(station).is_up(), "the store is in use");
        self.node(station).store.restore(backup);
        self.watch(station).forgetful = true;
    }

    /// Takes from a station's store what it holds in common with its peers; the node must be down.
    pub fn forget_history(&mut self, station: StationId) {
        assert!(!self.node(station).is_up(), "the store is in use");
        self.world.with_host(station, |node, _| node.forget("history"));
    }

    /// Takes from a station's store what it knows of the messages whose receipts it awaits; the node must be down.
    pub fn forget_awaited(&mut self, station: StationId) {
        assert!(!self.node(station).is_up(), "the store is in use");
        self.world.with_host(station, |node, _| node.forget("receipts/"));
    }

    /// From now on a station reads what every node reads and no more, whatever it says.
    pub fn grow_old(&mut self, station: StationId) {
        self.world.with_host(station, |node, _| node.reads_least = true);
    }

    /// Puts an image of an earlier state of a station's disk back; the node must be down.
    pub fn restore_image(&mut self, station: StationId, image: &Image) {
        assert!(!self.node(station).is_up(), "the store is in use");
        self.node(station).store.restore_image(image);
        self.watch(station).forgetful = true;
    }

    /// Steps to `end`, judging after every step, and starting nodes that are to come back.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            let chore = self.chores.iter().map(|(at, ..)| *at).min();
            let stop = chore.map_or(end, |at| at.min(end));
            if self.world.step_before(stop) {
                self.digest();
                continue;
            }
            self.world.run_until(stop);
            let at = self.at();
            let (due, later) = std::mem::take(&mut self.chores).into_iter().partition(|(time, ..)| *time <= at);
            self.chores = later;
            let due: Vec<(Instant, StationId, Chore)> = due;
            for (_, id, chore) in &due {
                match chore {
                    Chore::Start => self.start(*id),
                    Chore::WindUp => self.wind_up(*id),
                }
            }
            if stop >= end && due.is_empty() {
                return;
            }
        }
    }

    /// A node whose store failed ends, once its orders of silence are durable.
    fn wind_up(&mut self, station: StationId) {
        if self.world.with_host(station, |node, now| node.wind_up(now)) == Some(true) {
            self.crash(station, false, Some(self.reboot_after));
        } else {
            self.chores.push((self.at() + WIND_UP_AGAIN, station, Chore::WindUp));
            self.digest();
        }
    }

    /// Steps for a while.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.at() + span);
    }

    /// Steps until `done` or `end`, looking every second; true when done.
    pub fn run_while(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> bool {
        while !done(self) {
            if self.at() >= end {
                return false;
            }
            self.run_until((self.at() + Duration::from_secs(1)).min(end));
        }
        true
    }

    /// Steps until everything that was promised is delivered and final at its origin, or `end`.
    pub fn run_until_settled(&mut self, end: Instant) -> bool {
        while !self.is_settled() {
            if self.at() >= end {
                return false;
            }
            self.run_until((self.at() + Duration::from_secs(30)).min(end));
        }
        true
    }

    /// Whether every node is up, every client has its answer, and no node has unfinished mail.
    pub fn is_settled(&self) -> bool {
        let nodes = self.world.hosts();
        self.chores.is_empty()
            && nodes.iter().all(|node| node.is_up() && node.unfinished(1).is_empty())
            && self.ledger.iter().all(|e| {
                // A client whose server died in between will never hear.
                e.fate.promised.is_some() || e.fate.refused.is_some() || self.at() > e.at + Duration::from_secs(60)
            })
    }

    /// Whether nothing radiates.
    pub fn is_quiet(&self) -> bool {
        !self.world.ether().ids().any(|id| self.world.ether().radiates(id))
    }

    /// How many copies of each message lie in the Maildir it was meant for.
    pub fn copies(&self) -> Vec<usize> {
        let mut copies = vec![0; self.ledger.len()];
        for (id, node) in ids(self.names.len()).zip(self.world.hosts()) {
            for (_, bytes) in node.delivered() {
                let name = header::message_id(&bytes).unwrap_or_default();
                let number = self.by_message_id.get(name.trim_matches(['<', '>'])).copied();
                if let Some(number) = number.filter(|n| self.ledger[*n].to == id) {
                    copies[number] += 1;
                }
            }
        }
        copies
    }

    /// Crashes and power cuts so far.
    pub fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Adds what nodes said to the trace, in order of time, and gives the hash of the whole run.
    pub fn finish_trace(&mut self) -> String {
        #[derive(Serialize)]
        struct Told {
            event: &'static str,
            fields: BTreeMap<&'static str, String>,
        }
        let mut lines: Vec<(Instant, StationId, Told)> = Vec::new();
        for (id, node) in ids(self.names.len()).zip(self.world.hosts()) {
            for (at, event) in &node.log().events {
                let fields = event.fields().into_iter().collect();
                lines.push((*at, id, Told { event: event.name(), fields }));
            }
        }
        lines.sort_by_key(|(at, id, _)| (*at, *id));
        for (at, id, told) in lines {
            self.world.trace_mut().record(at, Some(id), "told", told);
        }
        self.world.trace().hash()
    }

    fn request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    fn stand(&mut self, station: StationId, state: State) {
        let from = self.at();
        self.watch(station).standing.push(Standing { from, state });
    }

    fn watch(&mut self, station: StationId) -> &mut Watch {
        &mut self.watches[usize::from(station.0)]
    }

    /// A carrier that an order forbade, as it is found.
    fn forbid(&mut self, station: StationId, from: Instant, text: String) {
        if self.forbidden.len() < MOST_PROBLEMS {
            self.forbidden.push(Violation { station, from, until: from, text: text.clone() });
        }
        self.problem(text);
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }

    fn name(&self, id: StationId) -> &str {
        &self.names[usize::from(id.0)]
    }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).replace("\r\n", " | ")
}

fn ids(count: usize) -> impl Iterator<Item = StationId> + use<> {
    (0..u16::try_from(count).unwrap_or(0)).map(StationId)
}

fn desk(name: &str) -> Recipient {
    Recipient::plain(Mailbox::new(format!("desk@{name}.example")))
}

/// A message of `size` bytes: a short header, then lines of random bytes other than NUL, CR and LF.
fn message(message_id: &str, from: &str, to: &str, size: u64, mut chance: Stream) -> Vec<u8> {
    let mut body = format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: exercise\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <{message_id}>\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n\
         Content-Transfer-Encoding: 8bit\r\n\r\n"
    )
    .into_bytes();
    let mut column = 0;
    while (body.len() as u64) + 2 < size {
        let byte = chance.next_u64() as u8;
        if column == 900 {
            body.extend_from_slice(b"\r\n");
            column = 0;
        } else if !matches!(byte, 0 | b'\r' | b'\n') {
            body.push(byte);
            column += 1;
        }
    }
    body.extend_from_slice(b"\r\n");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ether::LinkConfig;
    use crate::modem::ModemConfig;
    use crate::waveform::Waveform;

    const SHIP: StationId = StationId(0);
    const SHORE: StationId = StationId(1);

    #[test]
    fn mail_crosses_both_ways_and_the_books_are_right() {
        let mut lab = Lab::new(&pair(1), Trace::hashed());
        let there = lab.submit(SHIP, SHORE, 3000, Precedence::Routine);
        let back = lab.submit(SHORE, SHIP, 500, Precedence::Flash);
        assert!(lab.run_until_settled(Instant::from_millis(3_600_000)), "{:#?}", lab.check());
        assert_eq!(lab.check(), Vec::<String>::new());
        for number in [there, back] {
            let fate = &lab.ledger()[number].fate;
            assert!(fate.promised < fate.committed && fate.committed < fate.delivered, "{fate:?}");
            assert!(fate.confirmed > fate.committed && fate.air_s > 0.0, "{fate:?}");
        }
    }

    #[test]
    fn a_lost_file_and_an_emission_in_silence_are_seen() {
        let mut lab = Lab::new(&pair(1), Trace::hashed());
        lab.submit(SHIP, SHORE, 300, Precedence::Routine);
        assert!(lab.run_until_settled(Instant::from_millis(3_600_000)));
        use aldis::queue::Disk;
        let path = lab.node(SHORE).delivered()[0].0.clone();
        lab.node(SHORE).mail.remove(&path).expect("there");
        lab.stand(SHIP, State::Silent);
        lab.world.disturb(|ether, at| ether.key(at, SHIP));
        lab.run_for(Duration::from_secs(5));
        let problems = lab.check().join("\n");
        assert!(problems.contains("delivered 0 times") && problems.contains("(B2)"), "{problems}");
    }

    fn pair(seed: u64) -> Setup {
        let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
        Setup::new(seed, &["ship", "shore"], EtherConfig::net(seed, 2, &modem, LinkConfig::default()))
    }

    #[test]
    fn mail_goes_over_relays_and_every_station_on_the_way_has_one_outcome() {
        let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
        let mut ether = EtherConfig::net(1, 6, &modem, LinkConfig::default());
        // Four in a row, and two apart.
        let near = |a: u16, b: u16| a.abs_diff(b) == 1 && (a < 4) == (b < 4);
        ether.links.retain(|(a, b), _| near(a.0, b.0));
        let mut lab = Lab::new(&Setup::new(1, &["a", "b", "c", "d", "e", "f"], ether), Trace::hashed());
        lab.listen();
        let at = |id| StationId(id);
        for (from, to) in [(0, 3), (3, 0), (1, 3), (4, 5), (5, 4)] {
            lab.submit(at(from), at(to), 800, Precedence::Priority);
        }
        assert!(lab.run_until_settled(Instant::from_millis(7_200_000)), "{:#?}", lab.check());
        assert_eq!(lab.check(), Vec::<String>::new());
        assert_eq!(lab.accepted.keys().filter(|(_, number)| *number == 0).count(), 4);
    }
}
