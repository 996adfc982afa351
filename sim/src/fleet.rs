//! Whole nodes on one satellite carrier each, which all others hear: MULE over P_MUL, or Aldis mode, in virtual time, under loss, cuts of
//! power, orders, and stores that are put back from a backup.
//!
//! The channel knows rate, delay, and for every receiver the share of datagrams it loses; some come twice, or late. Everything is drawn
//! from the seed. While a node has an order of silence in force, a datagram from it is a violation. [`Fleet::check`] holds what was
//! promised against what lies in the mailboxes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use aldis::config;
use aldis::emcon::{Keying, State};
use aldis::mail::{BodyKind, Mailbox, Precedence, Recipient, header};
use aldis::ops::{BearerChoice, EmconWord, Request};
use aldis::switch::{RequestId, SessionId};
use aldis::time::{Duration, Instant, Now, Wall};
use aldis::units::Bps;

use crate::client;
use crate::disk::Image;
use crate::node::{Coding, Economy, VirtualNode};
use crate::rng::Stream;
use crate::world::Host;

/// What a fleet speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// MULE over P_MUL.
    Mule,
    /// Aldis mode.
    Aldis,
}

/// What a fleet is like.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What it speaks.
    pub mode: Mode,
    /// Nodes; all reach each other.
    pub nodes: usize,
    /// Nodes that never radiate: their bearer only receives, and the others know it. Aldis mode only.
    pub deaf_ears: Vec<usize>,
    /// Dynamic groups there are; 0: all groups are agreed beforehand. MULE only.
    pub pool: u8,
    /// With a pool: a group is agreed, too, and dynamic ones are used all the same. Otherwise there are only dynamic ones.
    pub always: bool,
    /// Of every carrier.
    pub rate: Bps,
    /// One way.
    pub delay: Duration,
    /// Share of datagrams that each node does not hear.
    pub loss: f64,
    /// Share that comes twice, the second time late.
    pub twice: f64,
    /// Tables that the profile of the first node has besides.
    pub tables: &'static str,
    /// The bearers are marked protected. Aldis mode only.
    pub protected: bool,
    /// What is handed in asks for protection (REQUIRETLS).
    pub asks_protection: bool,
    /// Of all chance.
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        let delay = Duration::from_millis(270);
        let deaf_ears = Vec::new();
        Self {
            mode: Mode::Mule,
            nodes: 3,
            deaf_ears,
            pool: 0,
            always: false,
            rate: Bps(64_000),
            delay,
            loss: 0.0,
            twice: 0.0,
            tables: "",
            protected: false,
            asks_protection: false,
            seed: 1,
        }
    }
}

/// A message that was handed in.
#[derive(Clone, Debug)]
struct Entry {
    from: usize,
    to: Vec<usize>,
    message_id: String,
    body: Vec<u8>,
}

/// A datagram on its way to a node.
#[derive(Clone, Debug)]
struct Flying {
    node: usize,
    from: Ipv4Addr,
    to: Ipv4Addr,
    bytes: Vec<u8>,
}

/// An order of silence at a node.
#[derive(Clone, Copy, Debug, Default)]
struct Order {
    /// It holds.
    silent: bool,
    /// It held when it was last known to be stored.
    stored: bool,
    asked: Option<(RequestId, bool)>,
}

/// A net of whole nodes.
#[derive(Debug)]
pub struct Fleet {
    setup: Setup,
    nodes: Vec<VirtualNode>,
    at: Instant,
    /// By arrival and order.
    flying: BTreeMap<(Instant, u64), Flying>,
    /// Whether each has joined the groups that were agreed, and which others. Without a pool somebody else has joined for them.
    joined: Vec<(bool, BTreeSet<Ipv4Addr>)>,
    /// Parts of messages that went to each group.
    to_groups: BTreeMap<Ipv4Addr, u64>,
    /// Until when each carrier is busy.
    busy: Vec<Instant>,
    /// When nodes that are down start again.
    starts: BTreeMap<(Instant, usize), ()>,
    orders: Vec<Order>,
    /// Nodes whose store was put back: what they were promised or told since the backup may be lost, or come twice.
    put_back: Vec<bool>,
    backups: BTreeMap<usize, Image>,
    ledger: Vec<Entry>,
    requests: u64,
    cuts: u64,
    datagrams: u64,
    /// What each has sent: datagrams.
    sent: Vec<u64>,
    bytes: u64,
    hash: u64,
    problems: Vec<String>,
}

/// What UDP and IPv4 add.
const HEADERS: usize = 28;
const START: i64 = 1_800_000_000;

/// Of the pool.
fn pool(setup: &Setup) -> Vec<Ipv4Addr> {
    (0..setup.pool).map(|i| Ipv4Addr::new(239, 2, 3, i)).collect()
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 1, node as u8 + 1)
}

fn name(node: usize) -> String {
    format!("n{node}")
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

fn plan(setup: &Setup, node: usize) -> config::Plan {
    let own = name(node);
    let others: Vec<usize> = (0..setup.nodes).filter(|other| *other != node).collect();
    let mut text = format!(
        "[node]\nname = \"{own}\"\nhostname = \"{own}.example\"\nstate_dir = \"state\"\nsocket = \"control\"\nclock = \"trusted\"\n\
         [local]\nmaildir = \"mail\"\n[[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
         [[route]]\nmatch = \"{own}.example\"\nto = \"local\"\n"
    );
    let only_hears = setup.deaf_ears.contains(&node);
    for other in &others {
        let peer = name(*other);
        if !only_hears {
            text.push_str(&format!("[[route]]\nmatch = \"{peer}.example\"\nto = \"peer:{peer}\"\n"));
        }
        text.push_str(&format!("[[peer]]\nname = \"{peer}\"\n"));
        text.push_str(&match setup.mode {
            Mode::Mule => {
                let group = if setup.pool > 0 && !setup.always { "group = \"dynamic\"\n" } else { "" };
                format!("protocol = \"mule\"\naddresses = [\"{}\"]\n{group}", address(*other))
            }
            Mode::Aldis => {
                let silent = setup.deaf_ears.contains(other);
                format!(
                    "station = {other}\nsilent = {silent}\nkeys = [{{ id = 0, hex = \"{}\" }}]\n",
                    "5a6b7c8d".repeat(8)
                )
            }
        });
    }
    let peers: Vec<String> = others.iter().map(|other| format!("\"{}\"", name(*other))).collect();
    text.push_str(&format!(
        "[[bearer]]\nname = \"sat\"\n{}\ninterface = \"{}\"\npeers = [{}]\nrate = \"{}bps\"\ndelay = \"{}ms\"\n{}\n",
        match setup.mode {
            Mode::Mule => "kind = \"pmul\"\ngroups = [\"239.1.1.10\"]".to_owned(),
            Mode::Aldis => format!("kind = \"multicast\"\ngroup = \"239.1.1.10\"\nstation = {node}"),
        },
        address(node),
        peers.join(", "),
        setup.rate.0,
        setup.delay.as_millis(),
        if only_hears { "receive_only = true" } else { "emcon = \"open\"" },
    ));
    if setup.protected {
        text.push_str("protected = true\n");
    }
    if setup.pool > 0 {
        let groups: Vec<String> = pool(setup).iter().map(|group| format!("\"{group}\"")).collect();
        text.push_str(&format!(
            "join = \"igmp\"\n[bearer.dynamic]\ncontrol_group = \"239.1.1.1\"\npool = [{}]\nuse = \"{}\"\n",
            groups.join(", "),
            if setup.always { "always" } else { "needed" }
        ));
    }
    if node == 0 {
        text.push_str(setup.tables);
    }
    let checked = config::load(Path::new("/lab/profile.toml"), &[], &OneFile(text.clone()));
    checked.unwrap_or_else(|problems| panic!("the laboratory's profile: {problems:#?}\n{text}")).plan
}

impl Fleet {
    /// Builds the net and starts every node.
    ///
    /// # Panics
    ///
    /// When the setup makes no sound profile.
    pub fn new(setup: Setup) -> Self {
        let coding = if setup.mode == Mode::Mule { Coding::Full } else { Coding::Plain };
        let economy = Economy { quick_repair: false, coding };
        let node = |i: usize| {
            let seed = Stream::new(setup.seed, "node", i as u64).next_u64();
            VirtualNode::new(plan(&setup, i), vec!["sat".into()], economy, seed)
        };
        let mut fleet = Self {
            nodes: (0..setup.nodes).map(node).collect(),
            at: Instant::from_millis(1000),
            flying: BTreeMap::new(),
            joined: vec![(false, BTreeSet::new()); setup.nodes],
            to_groups: BTreeMap::new(),
            busy: vec![Instant::ZERO; setup.nodes],
            starts: BTreeMap::new(),
            orders: vec![Order::default(); setup.nodes],
            put_back: vec![false; setup.nodes],
            backups: BTreeMap::new(),
            sent: vec![0; setup.nodes],
            ledger: Vec::new(),
            requests: 0,
            cuts: 0,
            datagrams: 0,
            bytes: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            problems: Vec::new(),
            setup,
        };
        (0..fleet.nodes.len()).for_each(|i| fleet.start(i));
        fleet
    }

    fn now(&self) -> Now {
        let wall = Wall(START * 1000 + i64::try_from(self.at.0 / 1_000_000).unwrap_or(0));
        Now { at: self.at, wall, set: true }
    }

    /// Virtual time.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Octets that all have sent, UDP and IPv4 included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A number that two runs have in common only if everything was said alike.
    pub fn trace_hash(&self) -> u64 {
        self.hash
    }

    /// Changes the loss from here on.
    pub fn set_loss(&mut self, loss: f64) {
        self.setup.loss = loss;
    }

    fn start(&mut self, i: usize) {
        let now = self.now();
        self.joined[i] = (false, BTreeSet::new());
        self.nodes[i].start(now, &[]);
        self.drain(i);
    }

    /// Kills a node, with the machine's power when `power` says so; it starts again after `back`.
    pub fn crash(&mut self, i: usize, power: bool, back: Duration) {
        self.cuts += 1;
        let seed = Stream::keyed(self.setup.seed, "cut", &[i as u64, self.cuts]).next_u64();
        let now = self.now();
        self.nodes[i].crash(now, power.then_some(seed));
        // An order that was not stored may be gone with it.
        let order = &mut self.orders[i];
        (order.silent, order.asked) = (order.stored && order.asked.is_none_or(|(_, silent)| silent), None);
        self.starts.insert((self.at + back, i), ());
    }

    /// Takes a backup of a node's store, as it runs.
    pub fn back_up(&mut self, i: usize) {
        self.backups.insert(i, self.nodes[i].store.backup());
    }

    /// Puts the last backup of a node in the place of its store: it is killed, and starts again after `back`. `image`: the whole disk, so that
    /// nothing but the others' word tells the node.
    pub fn put_back(&mut self, i: usize, image: bool, back: Duration) {
        let Some(backup) = self.backups.remove(&i) else { return };
        if self.nodes[i].is_up() {
            self.crash(i, false, back);
        }
        match image {
            true => self.nodes[i].store.restore_image(&backup),
            false => self.nodes[i].store.restore(&backup),
        }
        self.put_back[i] = true;
        // Whatever order was in force at the time of the backup is in force again.
        self.orders[i] = Order::default();
    }

    /// At a node an operator says that another keeps silence, or does not any more.
    pub fn mark(&mut self, i: usize, other: usize, silent: bool) {
        self.requests += 1;
        let (id, peer, reason) = (RequestId(self.requests), name(other), "exercise".to_owned());
        let request = match silent {
            true => Request::PeerSilent { peer, reason, from: None, until: None },
            false => Request::PeerHeard { peer, reason },
        };
        let now = self.now();
        self.nodes[i].request(now, id, request);
        self.drain(i);
    }

    /// Orders a window at a node in which alone it may radiate: seconds from now until seconds from now.
    pub fn window(&mut self, i: usize, from: u64, until: u64) {
        if !self.nodes[i].is_up() {
            return;
        }
        let now = self.now();
        let at = |seconds: u64| Some(now.wall.plus(Duration::from_secs(seconds)));
        self.requests += 1;
        let (bearer, reason, state) = (BearerChoice::All, "exercise".to_owned(), EmconWord::Window);
        let request = Request::EmconSet { bearer, state, reason, from: at(from), until: at(until) };
        self.nodes[i].request(now, RequestId(self.requests), request);
        self.drain(i);
    }

    /// Datagrams that a node has sent.
    pub fn sent(&self, i: usize) -> u64 {
        self.sent[i]
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Files in a node's mailboxes.
    pub fn mailbox(&self, i: usize) -> usize {
        self.nodes[i].delivered().len()
    }

    /// What lies in a node's mailboxes.
    pub fn letters(&self, i: usize) -> Vec<Vec<u8>> {
        self.nodes[i].delivered().into_iter().map(|(_, letter)| letter).collect()
    }

    /// Messages of a node that are not at their end.
    pub fn unfinished(&self, i: usize) -> usize {
        self.nodes[i].unfinished(1000).len()
    }

    /// What a node has said and done.
    pub fn log(&self, i: usize) -> &crate::node::Log {
        self.nodes[i].log()
    }

    /// Orders silence at a node, or its end.
    pub fn order(&mut self, i: usize, silent: bool) {
        if !self.nodes[i].is_up() {
            return;
        }
        self.requests += 1;
        let id = RequestId(self.requests);
        let state = EmconWord::State(if silent { State::Silent } else { State::Open });
        let (bearer, reason) = (BearerChoice::All, "exercise".to_owned());
        let now = self.now();
        self.nodes[i].request(now, id, Request::EmconSet { bearer, state, reason, from: None, until: None });
        self.orders[i].asked = Some((id, silent));
        // Silence holds from the order on, not from its commit.
        self.orders[i].silent = silent;
        self.drain(i);
    }

    /// Hands in a message of `size` octets that nothing shortens.
    pub fn submit(&mut self, from: usize, to: &[usize], size: u64, precedence: Precedence) {
        let number = self.ledger.len();
        let mut noise = vec![0; usize::try_from(size).unwrap_or(0) * 3 / 4];
        Stream::new(self.setup.seed, "body", number as u64).fill(&mut noise);
        let lines: Vec<String> = noise.chunks(54).map(|line| data_encoding::BASE64.encode(line)).collect();
        let message_id = format!("{number}@{}.example", name(from));
        let body = format!(
            "From: op@{}.example\r\nTo: desk@fleet.example\r\nSubject: {number}\r\nMessage-ID: <{message_id}>\r\n\r\n{}\r\n",
            name(from),
            lines.join("\r\n")
        );
        let recipient = |to: &usize| Recipient::plain(Mailbox::new(format!("desk@{}.example", name(*to))));
        let (from_address, body) = (format!("op@{}.example", name(from)), body.into_bytes());
        let recipients = to.iter().map(recipient).collect();
        let mut transaction =
            client::transaction(&from_address, recipients, Some(precedence), BodyKind::SevenBit, body.clone());
        transaction.envelope.require_tls = self.setup.asks_protection;
        self.ledger.push(Entry { from, to: to.to_vec(), message_id, body });
        let now = self.now();
        self.nodes[from].submit(now, SessionId(number as u64), transaction);
        self.drain(from);
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.at + span;
        loop {
            let timers = self.nodes.iter().filter_map(Host::next_timeout).min();
            let next =
                [self.flying.keys().next().map(|(at, _)| *at), self.starts.keys().next().map(|(at, _)| *at), timers];
            let Some(at) = next.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.at = at.max(self.at);
            while let Some(entry) = self.starts.first_entry().filter(|e| e.key().0 <= self.at) {
                let ((_, i), ()) = entry.remove_entry();
                self.start(i);
            }
            while let Some(entry) = self.flying.first_entry().filter(|e| e.key().0 <= self.at) {
                let Flying { node: i, from, to, bytes } = entry.remove();
                let now = self.now();
                if !self.is_member(i, to) {
                    continue;
                }
                self.nodes[i].datagram(now, 0, from, bytes);
                self.drain(i);
            }
            let now = self.now();
            for i in 0..self.nodes.len() {
                if self.nodes[i].next_timeout().is_some_and(|due| due <= self.at) {
                    self.nodes[i].handle_timeout(now);
                    self.drain(i);
                }
            }
        }
        self.at = end;
    }

    /// Until nobody has anything left to do, at most so long; whether that came.
    pub fn settle(&mut self, most: Duration) -> bool {
        let end = self.at + most;
        while self.at < end {
            self.run(Duration::from_secs(60));
            let idle = |node: &VirtualNode| node.is_up() && node.unfinished(1).is_empty();
            if self.starts.is_empty() && self.nodes.iter().all(idle) {
                return true;
            }
        }
        false
    }

    fn drain(&mut self, i: usize) {
        let now = self.now();
        while self.nodes[i].poll_action().is_some() {}
        while let Some((_, keying)) = self.nodes[i].poll_emission(now) {
            match keying {
                Keying::Datagram { to, bytes, .. } => self.transmit(i, *to.ip(), &bytes),
                keying => self.tell(i, keying),
            }
        }
        let order = &mut self.orders[i];
        if let Some((id, silent)) = order.asked
            && self.nodes[i].log().replies.iter().rev().any(|(_, reply, _)| *reply == id)
        {
            (order.stored, order.asked) = (silent, None);
        }
    }

    /// Whether what goes to an address comes to a node.
    fn is_member(&self, i: usize, to: Ipv4Addr) -> bool {
        let (agreed, others) = &self.joined[i];
        match to.is_multicast() && self.setup.pool > 0 {
            true if pool(&self.setup).contains(&to) => others.contains(&to),
            true => *agreed,
            false => true,
        }
    }

    /// The dynamic groups that a node has joined.
    pub fn joined(&self, i: usize) -> &BTreeSet<Ipv4Addr> {
        &self.joined[i].1
    }

    /// How many datagrams went to each group.
    pub fn to_groups(&self) -> &BTreeMap<Ipv4Addr, u64> {
        &self.to_groups
    }

    /// A node joins groups or leaves one, and the network is told.
    fn tell(&mut self, i: usize, keying: Keying) {
        if self.orders[i].silent {
            self.problems.push(format!("silence: {} told the network {keying:?} at {:?}", name(i), self.at));
        }
        let (agreed, others) = &mut self.joined[i];
        match keying {
            Keying::Join => *agreed = true,
            Keying::Membership { group, member: true } => _ = others.insert(group),
            Keying::Membership { group, member: false } => _ = others.remove(&group),
            Keying::Igmp { .. } | Keying::Key | Keying::Feed(_) | Keying::Datagram { .. } => {}
        }
    }

    fn transmit(&mut self, i: usize, to: Ipv4Addr, bytes: &[u8]) {
        if self.orders[i].silent {
            self.problems.push(format!("silence: {} sent {} octets at {:?}", name(i), bytes.len(), self.at));
        }
        self.datagrams += 1;
        self.sent[i] += 1;
        if to.is_multicast() {
            *self.to_groups.entry(to).or_default() += 1;
        }
        let length = bytes.len() + HEADERS;
        self.bytes += length as u64;
        for byte in bytes.iter().chain(&self.at.0.to_be_bytes()).chain(&[i as u8]) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.busy[i] = self.busy[i].max(self.at) + self.setup.rate.airtime(length as u64);
        let arrives = self.busy[i] + self.setup.delay;
        for j in (0..self.nodes.len()).filter(|j| *j != i && (to.is_multicast() || to == address(*j))) {
            let mut chance = Stream::keyed(self.setup.seed, "channel", &[i as u64, j as u64, self.datagrams]);
            if chance.chance(self.setup.loss) {
                continue;
            }
            let flying = Flying { node: j, from: address(i), to, bytes: bytes.to_vec() };
            let order = self.datagrams * 2;
            self.flying.insert((arrives, order * 64 + j as u64), flying.clone());
            if chance.chance(self.setup.twice) {
                let late = arrives + Duration::from_millis(chance.below(5000));
                self.flying.insert((late, (order + 1) * 64 + j as u64), flying.clone());
            }
        }
    }

    /// Whether a message that was handed in was promised.
    fn promised(&self, number: usize) -> bool {
        let entry = &self.ledger[number];
        let answers = &self.nodes[entry.from].log().answers;
        answers.iter().any(|(_, session, kept, _)| session.0 == number as u64 && *kept)
    }

    /// Everything that is wrong, in words; empty after a good run that was given time to settle.
    pub fn check(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        for (number, entry) in self.ledger.iter().enumerate() {
            for (i, node) in self.nodes.iter().enumerate() {
                let mine = |bytes: &Vec<u8>| {
                    header::message_id(bytes).is_some_and(|id| id.trim_matches(['<', '>']) == entry.message_id)
                };
                let copies: Vec<Vec<u8>> = node.delivered().into_iter().map(|(_, b)| b).filter(mine).collect();
                let wanted = usize::from(entry.to.contains(&i));
                let lost = self.put_back[entry.from] || self.put_back[i];
                let least = if self.promised(number) && !lost { wanted } else { 0 };
                // What was frozen before a backup is sent again under another number.
                let most = if lost { wanted * 2 } else { wanted };
                if !(least..=most).contains(&copies.len()) {
                    problems.push(format!("message {number} lies {} times at {}, not {wanted}", copies.len(), name(i)));
                }
                if copies.iter().any(|copy| !copy.ends_with(&entry.body)) {
                    problems.push(format!("message {number} came to {} with other bytes", name(i)));
                }
            }
        }
        for (i, node) in self.nodes.iter().enumerate() {
            problems.extend(node.log().damaged.iter().map(|text| format!("store of {}: {text}", name(i))));
            for (path, bytes) in node.delivered().into_iter().filter(|(path, _)| !path.starts_with("desk/")) {
                problems.push(format!(
                    "{}: {path}: {}",
                    name(i),
                    String::from_utf8_lossy(&bytes[..bytes.len().min(600)])
                ));
            }
            for record in node.unfinished(10) {
                problems.push(format!("{} still has {}: {:?}", name(i), record.id, record.recipients));
            }
        }
        problems
    }
}
