//! A net of whole nodes: builds them, sends mail through them, breaks them, and holds what they promised against what they did.
//!
//! [`Lab::check`] is the judge: every message that got a 250 lies exactly once, byte for byte, in the far Maildir and has one final
//! outcome; no antenna began to radiate under an order of silence, and what radiated when the order came ended in time (link-rules
//! B2); nothing was reported at level ERROR that was not provoked. Called by `aldis-sim run`, the link bench and the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aldis::config::{self, Plan};
use aldis::emcon::{State, Window};
use aldis::mail::{BodyKind, Envelope, Mailbox, MessageId, Outcome, Precedence, Recipient, RecipientState, header};
use aldis::ops::{BearerChoice, EmconWord, Event, Request};
use aldis::queue::MessageState;
use aldis::smtp::server::Transaction;
use aldis::smtp::trace::{Protocol, TraceFacts};
use aldis::switch::{RequestId, SessionId};
use aldis::time::{Duration, Instant, Wall};
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::disk::Image;
use crate::ether::{AntennaEdge, Ether, EtherConfig, StationId};
use crate::modem::ModemConfig;
use crate::node::VirtualNode;
use crate::rng::Stream;
use crate::trace::{Trace, short_digest};
use crate::world::{START, StationClock, World};

/// What a net is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Seeds the nodes; the ether has its own.
    pub seed: u64,
    /// Station names, at most sixteen.
    pub names: Vec<String>,
    /// The frequency.
    pub ether: EtherConfig,
    /// Civil time at virtual time zero.
    pub start: Wall,
    /// Whether the civil clocks may be trusted from the start (link-rules A7).
    pub clock_set: bool,
    /// How the link is protected: `off`, `mac` or `aead`.
    pub protection: &'static str,
    /// State of every bearer at first start, as a profile says it.
    pub emcon: &'static str,
    /// More lines for the table of every bearer.
    pub bearer: &'static str,
    /// Longest transmission; `None` keeps the profile's defaults.
    pub max_transmission: Option<Duration>,
}

impl Setup {
    /// Stations of these names on this frequency, open, with authenticated frames.
    pub fn new(seed: u64, names: &[&str], ether: EtherConfig) -> Self {
        let names = names.iter().map(ToString::to_string).collect();
        Self {
            seed,
            names,
            ether,
            start: START,
            clock_set: true,
            protection: "mac",
            emcon: "open",
            bearer: "",
            max_transmission: None,
        }
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
    /// Level of service asked for.
    pub precedence: Precedence,
    /// The message as the client sent it.
    pub body: Vec<u8>,
    /// What became of it, as far as the nodes told.
    pub fate: Fate,
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

/// A net of whole nodes.
#[derive(Debug)]
pub struct Lab {
    world: World<VirtualNode>,
    names: Vec<String>,
    seed: u64,
    ledger: Vec<Entry>,
    by_message_id: BTreeMap<String, usize>,
    by_id: BTreeMap<(StationId, MessageId), usize>,
    /// How many events, answers and replies of each node were read.
    read: Vec<[usize; 3]>,
    outcomes: BTreeMap<(StationId, MessageId, String), u32>,
    standing: Vec<Vec<Standing>>,
    orders: BTreeMap<RequestId, Order>,
    inquiries: BTreeMap<RequestId, StationId>,
    next_request: u64,
    starts: Vec<(Instant, StationId)>,
    cuts: u64,
    problems: Vec<String>,
    forbidden: Vec<Violation>,
    /// Errors that a test provokes: parts of their text.
    pub provoked: Vec<&'static str>,
    /// How long a node whose power failed by a planned fault stays away.
    pub reboot_after: Duration,
}

const BEARER: &str = "hf1";

impl Lab {
    /// Builds the net and starts every node.
    ///
    /// # Panics
    ///
    /// When the setup makes no sound profile.
    pub fn new(setup: &Setup, trace: Trace) -> Self {
        let modems = setup.ether.stations.clone();
        let hosts = (0..setup.names.len()).map(|i| {
            VirtualNode::new(plan(setup, i, &modems[i]), Stream::new(setup.seed, "node", i as u64).next_u64())
        });
        let hosts: Vec<_> = hosts.collect();
        let count = hosts.len();
        let mut world = World::new(Ether::new(setup.ether.clone()), hosts, trace);
        for id in ids(count) {
            world.set_clock(id, StationClock { start: setup.start, set: setup.clock_set });
        }
        let mut lab = Self {
            world,
            names: setup.names.clone(),
            seed: setup.seed,
            ledger: Vec::new(),
            by_message_id: BTreeMap::new(),
            by_id: BTreeMap::new(),
            read: vec![[0; 3]; count],
            outcomes: BTreeMap::new(),
            standing: vec![Vec::new(); count],
            orders: BTreeMap::new(),
            inquiries: BTreeMap::new(),
            next_request: 0,
            starts: Vec::new(),
            cuts: 0,
            problems: Vec::new(),
            forbidden: Vec::new(),
            provoked: Vec::new(),
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

    /// All messages handed in, in order.
    pub fn ledger(&self) -> &[Entry] {
        &self.ledger
    }

    /// Hands in a message of `size` bytes of which nothing can be compressed but its header; its number in the ledger.
    pub fn submit(&mut self, from: StationId, to: StationId, size: u64, precedence: Precedence) -> usize {
        let number = self.ledger.len();
        let name = |id: StationId| self.names[usize::from(id.0)].as_str();
        let message_id = format!("{number}.{:x}@{}.example", self.seed, name(from));
        let addresses = (format!("op@{}.example", name(from)), format!("desk@{}.example", name(to)));
        let chance = Stream::new(self.seed, "body", number as u64);
        let body = message(&message_id, &addresses.0, &addresses.1, size, chance);
        let envelope = Envelope {
            from: Some(Mailbox::new(addresses.0)),
            recipients: vec![Recipient::plain(Mailbox::new(addresses.1))],
            envid: None,
            ret: None,
            mt_priority: Some(precedence.mt_priority()),
            body: BodyKind::EightBitMime,
            smtputf8: false,
            require_tls: false,
            deliver_by: None,
            expires: Wall::NEVER,
        };
        let facts = TraceFacts {
            ehlo: "client.example".into(),
            address: None,
            protocol: Protocol { extended: true, ..Protocol::default() },
            user: None,
            tls: None,
        };
        let transaction =
            Transaction { envelope, by: None, body: body.clone().into(), facts, trusted: true, received_count: 0 };
        self.by_message_id.insert(message_id, number);
        self.ledger.push(Entry { at: self.at(), from, to, precedence, body, fate: Fate::default() });
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
        let request = Request::EmconSet { bearer: BearerChoice::One(BEARER.into()), state: word, reason, from, until };
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

    /// Kills a node's process, with the machine's power when `power` says so, and starts it again after `back_after`.
    pub fn crash(&mut self, station: StationId, power: bool, back_after: Option<Duration>) {
        self.cuts += 1;
        let seed = Stream::keyed(self.seed, "cut", &[u64::from(station.0), self.cuts]).next_u64();
        self.world.with_host(station, |node, now| node.crash(now, power.then_some(seed)));
        self.world.disturb(|ether, at| ether.close_port(at, station));
        self.digest();
        if let Some(after) = back_after {
            self.starts.push((self.at() + after, station));
        }
    }

    /// Starts a node that is down.
    pub fn start(&mut self, station: StationId) {
        if self.node(station).is_up() {
            return;
        }
        // Linux raises both lines on every open; the driver lowers the key at once (B3).
        self.world.disturb(|ether, at| {
            ether.open_port(at, station, true);
            ether.unkey(at, station);
        });
        let carrier = self.world.ether().carrier(station);
        self.world.with_host(station, |node, now| node.start(now, carrier));
        if !self.node(station).is_up() && !self.node(station).store.is_powered() {
            return self.crash(station, true, Some(self.reboot_after));
        }
        let id = self.request_id();
        self.inquiries.insert(id, station);
        self.world
            .with_host(station, |node, now| node.request(now, id, Request::EmconShow { bearer: BearerChoice::All }));
        self.digest();
    }

    /// Puts a backup of a station's store in the place of its store; the node must be down.
    pub fn restore_store(&mut self, station: StationId, backup: &Image) {
        assert!(!self.node(station).is_up(), "the store is in use");
        self.node(station).store.restore(backup);
    }

    /// Puts an image of an earlier state of a station's disk back; the node must be down.
    pub fn restore_image(&mut self, station: StationId, image: &Image) {
        assert!(!self.node(station).is_up(), "the store is in use");
        self.node(station).store.restore_image(image);
    }

    /// Steps to `end`, starting nodes that are to come back.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            let start = self.starts.iter().map(|(at, _)| *at).min();
            let stop = start.map_or(end, |at| at.min(end));
            if self.world.run_while(stop, |nodes| nodes.iter().any(VirtualNode::lost_power)) {
                let dark: Vec<_> = ids(self.names.len()).filter(|id| self.node(*id).lost_power()).collect();
                for id in dark {
                    self.crash(id, true, Some(self.reboot_after));
                }
                continue;
            }
            self.world.run_until(stop);
            self.digest();
            let at = self.at();
            let (due, later) = self.starts.iter().partition(|(start, _)| *start <= at);
            self.starts = later;
            let due: Vec<(Instant, StationId)> = due;
            due.iter().for_each(|(_, id)| self.start(*id));
            if stop >= end && due.is_empty() {
                return;
            }
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
        self.starts.is_empty()
            && nodes.iter().all(|node| node.is_up() && node.unfinished(1).is_empty())
            && self.ledger.iter().all(|e| {
                // A client whose server died in between will never hear.
                e.fate.promised.is_some() || e.fate.refused.is_some() || self.at() > e.at + Duration::from_secs(60)
            })
    }

    /// Whether nothing radiates.
    pub fn is_quiet(&self) -> bool {
        !ids(self.names.len()).any(|id| self.world.ether().radiates(id))
    }

    /// Everything that is wrong, in words; empty after a good run that was given time to settle.
    pub fn check(&mut self) -> Vec<String> {
        self.digest();
        let mut problems = self.problems.clone();
        self.check_ledger(&mut problems);
        self.check_outcomes(&mut problems);
        problems.extend(self.violations().into_iter().map(|v| v.text));
        for (name, node) in self.names.iter().zip(self.world.hosts()) {
            problems.extend(node.log().damaged.iter().map(|text| format!("{name}: store: {text}")));
        }
        problems.extend(self.world.ether().balance().err());
        problems
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

    /// Problems of the antennas alone: these hold at any moment.
    pub fn check_silence(&mut self) -> Vec<String> {
        self.digest();
        let mut problems = self.problems.clone();
        problems.extend(self.violations().into_iter().map(|v| v.text));
        problems
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
        self.standing[usize::from(station.0)].push(Standing { from, state });
    }

    /// Reads what the nodes said since the last time.
    fn digest(&mut self) {
        for id in ids(self.names.len()) {
            let i = usize::from(id.0);
            let log = self.world.hosts()[i].log();
            let [events, answers, replies] = self.read[i];
            let events = log.events.get(events..).unwrap_or_default().to_vec();
            let answers = log.answers.get(answers..).unwrap_or_default().to_vec();
            let replies = log.replies.get(replies..).unwrap_or_default().to_vec();
            self.read[i] = [log.events.len(), log.answers.len(), log.replies.len()];
            for (at, session, kept, _) in answers {
                let Some(entry) = usize::try_from(session.0).ok().and_then(|n| self.ledger.get_mut(n)) else {
                    continue;
                };
                *(if kept { &mut entry.fate.promised } else { &mut entry.fate.refused }) = Some(at);
            }
            for (at, request, response) in replies {
                let emcon = &response.document["bearers"][0];
                let state = emcon["emcon"]["state"].as_str().unwrap_or_default().to_owned();
                if self.inquiries.remove(&request).is_some() {
                    self.came_up(at, id, &state);
                } else if let Some(order) = self.orders.get_mut(&request) {
                    if !response.ok {
                        self.problems.push(format!("{}: an order was refused: {}", self.names[i], response.document));
                        continue;
                    }
                    order.replied = true;
                    order.carrier_off = emcon["carrier_off_s"].as_f64().map(Duration::from_secs_f64);
                    let state = order.state.clone();
                    if state != State::Silent {
                        self.standing[i].push(Standing { from: at, state });
                    }
                }
            }
            // After the replies: what is keyed under an order is held against it.
            for (at, event) in events {
                self.event(at, id, &event);
            }
        }
    }

    /// After a start the order in force is the last that was reported, or one that was being made durable (B4).
    fn came_up(&mut self, at: Instant, id: StationId, state: &str) {
        let i = usize::from(id.0);
        let given: Vec<&Order> = self.orders.values().filter(|o| o.station == id).collect();
        let last_replied = given.iter().rposition(|o| o.replied);
        let possible: Vec<&State> = given[last_replied.unwrap_or(0)..].iter().map(|o| &o.state).collect();
        let stands = possible.iter().rfind(|s| s.to_string() == state).map(|s| (*s).clone());
        let first = self.standing[i].is_empty() || last_replied.is_none();
        let stands = stands.or_else(|| State::parse(state).filter(|_| first));
        match stands {
            Some(state) => self.standing[i].push(Standing { from: at, state }),
            None => self.problems.push(format!("{} came up {state} after {possible:?} (B4)", self.names[i])),
        }
    }

    fn event(&mut self, at: Instant, id: StationId, event: &Event) {
        if event.level() == tracing::Level::ERROR {
            let text = format!("{:?}", event.fields());
            if !self.provoked.iter().any(|part| text.contains(part)) {
                let name = &self.names[usize::from(id.0)];
                self.problems.push(format!(
                    "{name} at {:.3} s: {} {text}",
                    at.since(Instant::ZERO).as_secs_f64(),
                    event.name()
                ));
            }
        }
        match event {
            Event::MessageAccepted { message, message_id: Some(name), .. } => {
                let Some(number) = self.by_message_id.get(name.trim_matches(['<', '>'])).copied() else { return };
                self.by_id.insert((id, *message), number);
                if self.ledger[number].to == id {
                    self.ledger[number].fate.committed.get_or_insert(at);
                }
            }
            Event::MessageDelivered { message, recipient, bearer, .. } => {
                if let (Some(entry), None) = (self.entry(id, *message), bearer)
                    && entry.to == id
                {
                    entry.fate.delivered.get_or_insert(at);
                }
                *self.outcomes.entry((id, *message, recipient.clone())).or_default() += 1;
            }
            Event::MessageFailed { message, recipient, .. }
            | Event::MessageExpired { message, recipient }
            | Event::MessageUnconfirmed { message, recipient } => {
                *self.outcomes.entry((id, *message, recipient.clone())).or_default() += 1;
            }
            Event::TransferFrozen { message, payload_bytes, .. } => {
                if let Some(entry) = self.entry(id, *message) {
                    entry.fate.payload_bytes = *payload_bytes;
                }
            }
            Event::TransferConfirmed { message, bytes_on_air, air_s, .. } => {
                if let Some(entry) = self.entry(id, *message).filter(|e| e.from == id) {
                    entry.fate.confirmed.get_or_insert(at);
                    (entry.fate.bytes_on_air, entry.fate.air_s) = (*bytes_on_air, *air_s);
                }
            }
            Event::KeyDown { precedence, messages, .. } => {
                let standing = self.standing[usize::from(id.0)].iter().rfind(|s| s.from < at).map(|s| &s.state);
                let forbidden = match standing {
                    Some(State::AckOnly) => !messages.is_empty(),
                    Some(State::Restricted(floor)) => precedence < floor,
                    _ => false,
                };
                if forbidden {
                    let name = &self.names[usize::from(id.0)];
                    let text = format!("{name} keyed {precedence} for {messages:?} at {at:?} under {standing:?}");
                    self.forbidden.push(Violation { station: id, from: at, until: at, text });
                }
            }
            _ => {}
        }
    }

    fn entry(&mut self, id: StationId, message: MessageId) -> Option<&mut Entry> {
        self.by_id.get(&(id, message)).and_then(|number| self.ledger.get_mut(*number))
    }

    fn check_ledger(&self, problems: &mut Vec<String>) {
        let mut found: BTreeMap<usize, Vec<(StationId, Vec<u8>)>> = BTreeMap::new();
        for (id, node) in ids(self.names.len()).zip(self.world.hosts()) {
            for (path, bytes) in node.delivered() {
                let name = header::message_id(&bytes).unwrap_or_default();
                match self.by_message_id.get(name.trim_matches(['<', '>'])) {
                    Some(number) => found.entry(*number).or_default().push((id, bytes)),
                    // Word of a delay is no failure.
                    None if bytes.windows(15).any(|w| w == b"Action: delayed") => {}
                    None => {
                        problems.push(format!("{}: {path} is a report or unknown: {}", self.name(id), excerpt(&bytes)))
                    }
                }
            }
        }
        for (number, entry) in self.ledger.iter().enumerate() {
            let copies = found.remove(&number).unwrap_or_default();
            let promised = entry.fate.promised.is_some();
            if copies.len() > 1 || (promised && copies.is_empty()) {
                let (times, fate) = (copies.len(), &entry.fate);
                problems.push(format!("message {number}, promised {promised}, was delivered {times} times: {fate:?}"));
            }
            for (id, bytes) in copies {
                if id != entry.to {
                    problems.push(format!("message {number} for {} lies at {}", self.name(entry.to), self.name(id)));
                }
                if !bytes.ends_with(&entry.body) {
                    problems.push(format!("message {number} arrived with other bytes ({})", short_digest(&bytes)));
                }
            }
        }
    }

    fn check_outcomes(&self, problems: &mut Vec<String>) {
        for ((id, message, _), count) in &self.outcomes {
            if *count > 1 {
                problems.push(format!("{}: message {message} got {count} outcomes", self.name(*id)));
            }
        }
        let promised = self.by_message_id.iter().filter(|(_, n)| self.ledger[**n].fate.promised.is_some());
        for (name, number) in promised {
            let entry = &self.ledger[*number];
            for id in BTreeSet::from([entry.from, entry.to]) {
                for record in self.node(id).records(name) {
                    let delivered = |state: &RecipientState| {
                        matches!(state, RecipientState::Final { outcome: Outcome::Delivered { .. }, .. })
                    };
                    if record.state != MessageState::Done || !record.recipients.iter().all(|r| delivered(&r.state)) {
                        let states: Vec<_> = record.recipients.iter().map(|r| &r.state).collect();
                        problems.push(format!(
                            "message {number} is {:?} at {} with {states:?}",
                            record.state,
                            self.name(id)
                        ));
                    }
                }
            }
        }
    }

    /// The orders in force at a station, each from its instant on.
    pub fn standings(&self, id: StationId) -> impl Iterator<Item = (Instant, &State)> {
        self.standing[usize::from(id.0)].iter().map(|s| (s.from, &s.state))
    }

    /// Every carrier that an order forbade (link-rules B2), as far as the nodes' words were read.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = self.forbidden.clone();
        let log = self.world.ether().antenna_log();
        for id in ids(self.names.len()) {
            let edges: Vec<&AntennaEdge> = log.iter().filter(|e| e.station == id).collect();
            let standing = &self.standing[usize::from(id.0)];
            for (n, edge) in edges.iter().enumerate().filter(|(_, e)| e.on) {
                let end = edges.get(n + 1).map_or(self.at(), |e| e.at);
                let Some(now) = standing.iter().rfind(|s| s.from < edge.at) else { continue };
                let wall = |at: Instant| self.world.now(id).wall.0 - at_ms(self.at()) + at_ms(at);
                let allowed = match &now.state {
                    State::Silent => false,
                    State::Window(windows) => {
                        windows.iter().any(|w| w.from.0 <= wall(edge.at) && wall(end) <= w.until.0 + 1000)
                    }
                    State::Open | State::Restricted(_) | State::AckOnly => true,
                };
                if !allowed {
                    let (name, state, since) = (self.name(id), &now.state, now.from);
                    let text =
                        format!("{name} radiates from {:?} to {end:?} under {state:?} of {since:?} (B2)", edge.at);
                    found.push(Violation { station: id, from: edge.at, until: end, text });
                }
            }
            let can_abort = self.world.ether().modem(id).is_some_and(|m| m.abort_delay.is_some());
            for order in self.orders.values().filter(|o| o.station == id && o.state == State::Silent) {
                let bound = order.carrier_off.or(can_abort.then_some(Duration::from_secs(1)));
                let radiating = edges.iter().rposition(|e| e.at <= order.at).filter(|&n| edges[n].on);
                if let (Some(n), Some(bound)) = (radiating, bound) {
                    let off = edges.get(n + 1).map_or(self.at(), |e| e.at);
                    if off > order.at + bound {
                        let (name, late) = (self.name(id), off.since(order.at).as_secs_f64());
                        let text = format!(
                            "{name}: ordered silent at {:?}, carrier off {late:.2} s later; {bound:?} was stated (B2)",
                            order.at
                        );
                        found.push(Violation { station: id, from: order.at + bound, until: off, text });
                    }
                }
            }
        }
        found
    }

    fn name(&self, id: StationId) -> &str {
        &self.names[usize::from(id.0)]
    }
}

fn at_ms(at: Instant) -> i64 {
    i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX)
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).replace("\r\n", " | ")
}

fn ids(count: usize) -> impl Iterator<Item = StationId> + use<> {
    (0..u16::try_from(count).unwrap_or(0)).map(StationId)
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

/// A station's plan, by way of a profile so that it passes the same checks as anybody's.
fn plan(setup: &Setup, index: usize, modem: &ModemConfig) -> Plan {
    let name = &setup.names[index];
    let others = || setup.names.iter().enumerate().filter(move |(i, _)| *i != index);
    let waveform = modem.waveform;
    let mut text = format!(
        "[node]\nname = \"{name}\"\nhostname = \"mail.{name}.example\"\npostmaster = \"postmaster@{name}.example\"\nstate_dir = \"state\"\nsocket = \"control\"\n\
         clock = \"trusted\"\n\n[local]\nmaildir = \"mail\"\n\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\n\
         [[route]]\nmatch = \"{name}.example\"\nto = \"local\"\n\n"
    );
    for (i, other) in others() {
        let pair = (index.min(i), index.max(i));
        let key =
            HEXLOWER.encode(digest(&SHA256, format!("key of the laboratory's pair {pair:?}").as_bytes()).as_ref());
        let keys = match setup.protection {
            "off" => String::new(),
            _ => format!("keys = [{{ id = 0, hex = \"{key}\" }}]\n"),
        };
        text.push_str(&format!(
            "[[route]]\nmatch = \"{other}.example\"\nto = \"peer:{other}\"\n\n\
             [[peer]]\nname = \"{other}\"\nstation = {i}\nprotection = \"{}\"\n{keys}\n",
            setup.protection
        ));
    }
    let peers: Vec<_> = others().map(|(_, other)| format!("\"{other}\"")).collect();
    text.push_str(&format!(
        "[[bearer]]\nname = \"{BEARER}\"\ndevice = \"tty\"\nkeying = {{ socket = \"modem\" }}\nmodem = \"simulated\"\n\
         rate = \"{}bps\"\ninterleaver = \"{}\"\nstation = {index}\npeers = [{}]\nemcon = \"{}\"\n{}\n",
        waveform.rate,
        waveform.interleaver,
        peers.join(", "),
        setup.emcon,
        setup.bearer
    ));
    let checked = config::load(Path::new("/lab/profile.toml"), &[], &OneFile(text.clone()))
        .unwrap_or_else(|problems| panic!("the laboratory's profile: {problems:#?}\n{text}"));
    let mut plan = checked.plan;
    for bearer in &mut plan.bearers {
        bearer.waveform = waveform.plan(modem, bearer.waveform.frame_bytes);
        if let Some(most) = setup.max_transmission {
            (bearer.max_transmission, bearer.max_transmission_routine) = (most, most);
        }
    }
    plan
}

struct OneFile(String);

impl config::Files for OneFile {
    fn read(&self, path: &Path) -> std::io::Result<config::File> {
        match path == Path::new("/lab/profile.toml") {
            true => Ok(config::File { bytes: self.0.clone().into_bytes(), mode: 0o600 }),
            false => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ether::LinkConfig;
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
        lab.standing[0].insert(1, Standing { from: Instant::from_millis(1), state: State::Silent });
        let problems = lab.check().join("\n");
        assert!(problems.contains("delivered 0 times") && problems.contains("(B2)"), "{problems}");
    }

    fn pair(seed: u64) -> Setup {
        let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
        Setup::new(seed, &["ship", "shore"], EtherConfig::net(seed, 2, &modem, LinkConfig::default()))
    }
}
