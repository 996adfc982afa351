//! What is looked at after every step: what the nodes that acted said, every new edge of an antenna, and what they hold in memory.

use std::collections::{BTreeMap, BTreeSet};

use aldis::emcon::{State, Window};
use aldis::mail::{MessageId, PeerName};
use aldis::ops::Event;
use aldis::time::{Duration, Instant, Wall};

use super::overheard::{Overheard, short_of};
use super::tape::Tape;
use super::{Chore, Entry, Lab, Mark, Order, Standing, Told};
use crate::ether::{AntennaEdge, StationId};
use crate::world::StationClock;

/// Jobs of one precedence a peer gets at once at most, times the levels (`switch/dispatch.rs`).
const TRANSFERS_PER_PEER: usize = 48 * 6;
/// Those to a silent peer that only wait for its word come on top (`switch/silence.rs`).
const UNCONFIRMED_PER_PEER: usize = 240;
/// Deliveries into Maildirs at once (`switch/dispatch.rs`).
const LOCAL_DELIVERIES: usize = 16 * 6;
/// Transfers a station keeps in part, their bytes, and the finished ones it remembers (`switch/mod.rs`, `serial/station/`).
const PARTIALS: usize = 256;
const PARTIAL_BYTES: usize = 16 << 20;
const FINISHED: usize = 512;
/// Work under way: far more than the disk's delay lets pile up, far less than a leak makes in an hour.
const TICKETS: usize = 4096;
/// How much longer than its window an emission may be measured: clocks are read in milliseconds.
const WINDOW_SLACK_MS: i64 = 1000;

/// Within this a node has noticed that its civil clock was moved (`switch/mod.rs`).
const CLOCK_NOTICED: Duration = Duration::from_millis(1100);

/// What the laboratory remembers of one station.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// How many events, answers and replies were read.
    read: [usize; 3],
    /// The orders in force, as its operator may rely on them.
    pub(super) standing: Vec<Standing>,
    /// Since when its radios radiate, with the clock it had then; `None` for the clock when that is no measure any more.
    radiating: BTreeMap<StationId, (Instant, Option<StationClock>)>,
    /// One at each antenna, by port.
    pub(super) ears: Vec<Overheard>,
    /// What its first radio is fed, where that is wanted.
    pub(super) tape: Option<Tape>,
    /// When its civil clock was last moved under it.
    clock_moved_at: Option<Instant>,
    /// Its store was put back: it may not know what it knew.
    pub(super) forgetful: bool,
    /// Its disks may fail.
    pub(super) disk_troubled: bool,
    /// Its key was stuck at some time.
    pub(super) key_stuck: bool,
    /// Peers it takes for silent.
    silent: BTreeSet<PeerName>,
    /// Peers it took for silent at some time: what they were sent may still wait for their word.
    once_silent: BTreeSet<PeerName>,
}

impl Watch {
    pub(super) fn clock_stepped(&mut self, at: Instant) {
        self.clock_moved_at = Some(at);
        self.clock_moved();
    }

    fn clock_moved(&mut self) {
        self.radiating.values_mut().for_each(|(_, clock)| *clock = None);
    }

    pub(super) fn restarted(&mut self) {
        // What a dead process had fed goes out whatever the clock says.
        self.clock_moved();
        // It says anew whom it takes for silent.
        self.silent.clear();
        self.ears.iter_mut().for_each(Overheard::restarted);
    }

    fn order_before(&self, at: Instant) -> Option<&Standing> {
        self.standing.iter().rfind(|s| s.from < at)
    }
}

/// Whether this is the order that a node shows.
fn is_shown(state: &State, emcon: &serde_json::Value) -> bool {
    let State::Window(windows) = state else { return emcon["state"] == state.to_string() };
    let ours = windows.iter().map(|w| serde_json::json!({"from": w.from.rfc3339(), "until": w.until.rfc3339()}));
    emcon["windows"] == ours.collect::<serde_json::Value>()
}

impl Lab {
    /// Reads what happened since the last time.
    pub(super) fn digest(&mut self) {
        let touched = self.world.take_touched();
        let stations: Vec<StationId> =
            touched.iter().map(|i| StationId(u16::try_from(*i).unwrap_or(u16::MAX))).collect();
        for id in &stations {
            self.overhear(*id);
            self.read_answers(*id);
            self.read_replies(*id);
        }
        self.read_edges();
        for id in &stations {
            self.read_events(*id);
        }
        for id in stations {
            if self.node(id).lost_power() {
                self.crash(id, true, Some(self.reboot_after));
            } else if self.node(id).store_failed()
                && !self.chores.iter().any(|(_, s, c)| *s == id && *c == Chore::WindUp)
            {
                self.wind_up(id);
            }
        }
    }

    fn overhear(&mut self, id: StationId) {
        let i = usize::from(id.0);
        if self.watches[i].ears.is_empty() && self.watches[i].tape.is_none() {
            return;
        }
        let emitted = self.world.with_host_quietly(id, |node| node.take_emitted()).unwrap_or_default();
        let mut problems = Vec::new();
        for (at, port, keying) in &emitted {
            if let Some(ear) = self.watches[i].ears.get_mut(*port) {
                ear.hear(*at, keying, &mut problems);
            }
        }
        if let Some(tape) = &mut self.watches[i].tape {
            let first = emitted.iter().filter(|(_, port, _)| *port == 0);
            first.for_each(|(at, _, keying)| tape.take(*at, keying));
        }
        self.tell(id, problems);
    }

    fn tell(&mut self, id: StationId, problems: Vec<String>) {
        for problem in problems {
            let (kind, words) = problem.split_once(": ").unwrap_or(("rule", &problem));
            let problem = format!("{kind}: {}: {words}", self.name(id));
            self.problem(problem);
        }
    }

    fn read_answers(&mut self, id: StationId) {
        let i = usize::from(id.0);
        let log = self.world.hosts()[i].log();
        let answers = log.answers.get(self.watches[i].read[1]..).unwrap_or_default().to_vec();
        self.watches[i].read[1] = log.answers.len();
        for (at, session, kept, _) in answers {
            let Some(entry) = usize::try_from(session.0).ok().and_then(|n| self.ledger.get_mut(n)) else { continue };
            *(if kept { &mut entry.fate.promised } else { &mut entry.fate.refused }) = Some(at);
        }
    }

    fn read_replies(&mut self, id: StationId) {
        let i = usize::from(id.0);
        let log = self.world.hosts()[i].log();
        let replies = log.replies.get(self.watches[i].read[2]..).unwrap_or_default().to_vec();
        self.watches[i].read[2] = log.replies.len();
        for (at, request, response) in replies {
            if self.inquiries.remove(&request).is_some() {
                self.came_up(at, id, &response.document["bearers"][0]["emcon"]);
                continue;
            }
            if self.peer_inquiries.remove(&request).is_some() {
                self.marks_stand(id, &response.document);
                continue;
            }
            if let Some(mark) = self.marks.get_mut(&request) {
                mark.replied = response.ok;
                continue;
            }
            let Some(order) = self.orders.get_mut(&request) else { continue };
            if !response.ok {
                if !self.watches[i].disk_troubled {
                    let problem = format!("order: {}: an order was refused: {}", self.names[i], response.document);
                    self.problem(problem);
                }
                continue;
            }
            order.replied = true;
            let bearers = response.document["bearers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let stated = bearers.iter().filter_map(|b| b["carrier_off_s"].as_f64()).reduce(f64::max);
            order.carrier_off = stated.map(Duration::from_secs_f64);
            let state = order.state.clone();
            if state != State::Silent {
                self.watches[i].standing.push(Standing { from: at, state });
            }
        }
    }

    /// After a start the order in force is the last that was reported, or one that was being made durable (B4).
    fn came_up(&mut self, at: Instant, id: StationId, emcon: &serde_json::Value) {
        let state = emcon["state"].as_str().unwrap_or_default();
        let given: Vec<&Order> = self.orders.values().filter(|o| o.station == id).collect();
        let last_replied = given.iter().rposition(|o| o.replied);
        let possible: Vec<State> = given[last_replied.unwrap_or(0)..].iter().map(|o| o.state.clone()).collect();
        let stands = possible.iter().rfind(|s| is_shown(s, emcon)).cloned();
        let first = self.watches[usize::from(id.0)].standing.is_empty() || last_replied.is_none();
        // An order that could not be stored may have left nothing but silence, and that is what a dying node writes down.
        let safe = state == "silent" && self.watches[usize::from(id.0)].disk_troubled;
        let stands = stands.or_else(|| State::parse(state).filter(|_| first || safe));
        match stands {
            Some(state) => self.watch(id).standing.push(Standing { from: at, state }),
            None => {
                let problem = format!("order: {} came up {state} after {possible:?} (B4)", self.name(id));
                self.problem(problem);
            }
        }
    }

    /// After a start a peer is taken for what was last reported, or for what was being made durable.
    fn marks_stand(&mut self, id: StationId, document: &serde_json::Value) {
        let shown = document["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut problems = Vec::new();
        for line in shown {
            let peer = |m: &&Mark| m.station == id && line["peer"].as_str() == Some(self.name(m.peer));
            let given: Vec<&Mark> = self.marks.values().filter(peer).collect();
            let Some(last) = given.iter().rposition(|m| m.replied) else { continue };
            let silent = line["silent"].as_bool();
            if !given[last..].iter().any(|m| Some(m.silent) == silent) {
                problems.push(format!("order: {} takes {} for silent: {silent:?}", self.name(id), line["peer"]));
            }
        }
        // A store that was put back does not know what it knew.
        if !self.watches[usize::from(id.0)].forgetful {
            problems.into_iter().for_each(|problem| self.problem(problem));
        }
    }

    fn read_edges(&mut self) {
        let log = self.world.ether().antenna_log();
        let edges: Vec<AntennaEdge> = log.get(self.edges_read..).unwrap_or_default().to_vec();
        self.edges_read = log.len();
        for edge in &edges {
            let (station, port) = self.world.cabled(edge.station);
            let i = usize::from(station.0);
            let clock = self.world.clock(station);
            let edge = &AntennaEdge { station, ..*edge };
            let radio = self.world.radio(station, port);
            // Nobody tells a node that its clock was moved; it looks every second.
            let unnoticed = self.watches[i].clock_moved_at.is_some_and(|at| edge.at <= at + CLOCK_NOTICED);
            if edge.on && unnoticed {
                self.watches[i].radiating.insert(radio, (edge.at, None));
            } else if edge.on {
                self.watches[i].radiating.insert(radio, (edge.at, Some(clock)));
                self.check_edge(edge, clock);
            } else if let Some((since, Some(then))) = self.watches[i].radiating.remove(&radio)
                && then == clock
                && !self.watches[i].key_stuck
            {
                self.check_window_end(edge, since, clock);
            }
            if !edge.on {
                let mut problems = Vec::new();
                if let Some(ear) = self.watches[i].ears.get_mut(port) {
                    ear.off(&mut problems);
                }
                self.tell(edge.station, problems);
            }
        }
        if edges.iter().any(|e| !e.on)
            && let Err(why) = self.world.ether().balance()
        {
            self.problem(format!("bytes: {why}"));
        }
    }

    fn check_edge(&mut self, edge: &AntennaEdge, clock: StationClock) {
        let Some(order) = self.watches[usize::from(edge.station.0)].order_before(edge.at) else { return };
        let wall = clock.now(edge.at).wall;
        let allowed = match &order.state {
            State::Silent => false,
            State::Window(windows) => clock.set && windows.iter().any(|w| w.from <= wall && wall < w.until),
            State::Open | State::Restricted(_) | State::AckOnly => true,
        };
        if !allowed {
            let (state, from) = (&order.state, order.from);
            let name = self.name(edge.station);
            let problem = format!("silence: {name} radiates from {:?} on under {state:?} of {from:?} (B2)", edge.at);
            self.forbid(edge.station, edge.at, problem);
        }
    }

    /// Each order that stood while the antenna radiated counts for the time it stood; a window that an order closes
    /// early is the business of the time that order stated.
    fn check_window_end(&mut self, edge: &AntennaEdge, since: Instant, clock: StationClock) {
        let watch = &self.watches[usize::from(edge.station.0)];
        let Some(keyed_under) = watch.standing.iter().rposition(|s| s.from < since) else { return };
        let mut broken = None;
        for (i, order) in watch.standing.iter().enumerate().skip(keyed_under).take_while(|(_, s)| s.from < edge.at) {
            let State::Window(windows) = &order.state else { continue };
            let until = watch.standing.get(i + 1).map_or(edge.at, |next| next.from.min(edge.at));
            let (on, off): (Wall, Wall) = (clock.now(order.from.max(since)).wall, clock.now(until).wall);
            let open = |w: &&Window| w.from <= on && on < w.until;
            let inside = windows.iter().filter(open).any(|w| off.0 <= w.until.0 + WINDOW_SLACK_MS);
            let closed_early = i > keyed_under && !windows.iter().any(|w| open(&w));
            if !inside && !closed_early {
                broken = Some(windows.clone());
            }
        }
        if let Some(windows) = broken {
            let name = self.name(edge.station);
            let problem = format!("silence: {name} radiates from {since:?} to {:?}, beyond {windows:?} (B2)", edge.at);
            self.forbid(edge.station, since, problem);
        }
    }

    fn read_events(&mut self, id: StationId) {
        let i = usize::from(id.0);
        let log = self.world.hosts()[i].log();
        let events = log.events.get(self.watches[i].read[0]..).unwrap_or_default().to_vec();
        self.watches[i].read[0] = log.events.len();
        if events.is_empty() {
            return;
        }
        for (at, event) in events {
            self.event(at, id, &event);
        }
        self.check_sizes(id);
    }

    fn check_sizes(&mut self, id: StationId) {
        let Some(sizes) = self.node(id).sizes() else { return };
        let unconfirmed = UNCONFIRMED_PER_PEER * self.watches[usize::from(id.0)].once_silent.len();
        let transfers = TRANSFERS_PER_PEER * self.topology.neighbours(id).count() + unconfirmed;
        let active = self.node(id).plan().limits.active_messages + transfers + LOCAL_DELIVERIES;
        let bearers = self.node(id).plan().bearers.len();
        let within = sizes.active <= active
            && sizes.steps <= active
            && sizes.transfers <= transfers
            && sizes.links.outgoing + sizes.links.queued <= transfers * bearers
            && sizes.links.partials <= PARTIALS * bearers
            && sizes.links.partial_bytes <= PARTIAL_BYTES * bearers
            && sizes.links.finished <= (FINISHED + 1) * bearers
            && sizes.tickets <= TICKETS
            && sizes.links.pending <= TICKETS;
        if !within {
            let problem = format!("memory: {} holds {sizes:?}", self.name(id));
            self.problem(problem);
        }
    }

    fn event(&mut self, at: Instant, id: StationId, event: &Event) {
        if event.level() == tracing::Level::ERROR {
            let text = format!("{} {:?}", event.name(), event.fields());
            if !self.provoked.iter().any(|part| text.contains(part)) {
                let seconds = at.since(Instant::ZERO).as_secs_f64();
                let problem = format!("error: {} at {seconds:.3} s: {text}", self.name(id));
                self.problem(problem);
            }
            // Nobody waits for the word of a silent peer, so nobody can miss it.
            let mut silent = self.watches[usize::from(id.0)].silent.iter();
            if let Some(peer) = silent.find(|peer| text.contains(&format!("{peer} does not answer"))) {
                let problem = format!("asked: {} waited for {peer}, which is silent: {text}", self.name(id));
                self.problem(problem);
            }
        }
        self.listen_to(at, id, event);
        match event {
            Event::MessageAccepted { message, message_id: Some(name), .. } => {
                let Some(number) = self.by_message_id.get(name.trim_matches(['<', '>'])).copied() else { return };
                self.by_id.insert((id, *message), number);
                let before = self.accepted.insert((id, number), *message);
                // A store that was put back, here or at the origin, no longer knows what had been passed on.
                let forgotten = self.watches.iter().any(|w| w.forgetful);
                if before.is_some_and(|b| b != *message) && !forgotten {
                    let problem = format!("twice: {} accepted message {number} again as {message}", self.name(id));
                    self.problem(problem);
                }
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
                self.outcome(id, *message, recipient, Told::Delivered);
            }
            Event::MessageUnconfirmed { message, recipient } => {
                self.outcome(id, *message, recipient, Told::Unconfirmed);
            }
            Event::MessageFailed { message, recipient, .. } | Event::MessageExpired { message, recipient } => {
                self.outcome(id, *message, recipient, Told::Other);
            }
            Event::TransferFrozen { message, transfer, payload_bytes, .. } => {
                if let Some(entry) = self.entry(id, *message).filter(|e| e.from == id) {
                    (entry.fate.payload_bytes, entry.fate.short) = (*payload_bytes, short_of(transfer));
                }
            }
            Event::TransferProgress { message, have, need, .. } => {
                if let Some(entry) = self.entry(id, *message).filter(|e| e.from == id) {
                    entry.fate.share = f64::from(*have) / f64::from((*need).max(1));
                }
            }
            Event::TransferConfirmed { message, bytes_on_air, air_s, .. } => {
                if let Some(entry) = self.entry(id, *message).filter(|e| e.from == id) {
                    entry.fate.confirmed.get_or_insert(at);
                    (entry.fate.bytes_on_air, entry.fate.air_s) = (*bytes_on_air, *air_s);
                }
            }
            Event::PeerSilence { peer, silent, .. } => {
                let watch = self.watch(id);
                match silent {
                    true => {
                        watch.silent.insert(peer.clone());
                        watch.once_silent.insert(peer.clone());
                    }
                    false => drop(watch.silent.remove(peer)),
                }
            }
            Event::KeyDown { precedence, messages, .. } => {
                let standing = self.watches[usize::from(id.0)].order_before(at).map(|s| &s.state);
                let forbidden = match standing {
                    Some(State::AckOnly) => !messages.is_empty(),
                    Some(State::Restricted(floor)) => precedence < floor,
                    _ => false,
                };
                if forbidden {
                    let name = self.name(id);
                    let problem =
                        format!("order: {name} keyed {precedence} for {messages:?} at {at:?} under {standing:?}");
                    self.forbid(id, at, problem);
                }
            }
            _ => {}
        }
    }

    /// What the ear at the antenna must know.
    fn listen_to(&mut self, at: Instant, id: StationId, event: &Event) {
        let i = usize::from(id.0);
        let level = match event {
            Event::TransferFrozen { message, .. } => self.level(id, *message),
            _ => None,
        };
        let (own, mut problems) = (self.topology.number(id), Vec::new());
        for ear in &mut self.watches[i].ears {
            tell_ear(ear, at, event, level, own, &mut problems);
        }
        self.tell(id, problems);
    }

    /// A message's level here, as far as it is known for sure.
    fn level(&self, id: StationId, message: MessageId) -> Option<aldis::mail::Precedence> {
        self.node(id).level(message)
    }

    fn outcome(&mut self, id: StationId, message: MessageId, recipient: &str, told: Told) {
        let before = self.outcomes.entry((id, message, recipient.to_owned())).or_default();
        before.push(told);
        // Late confirmation is the one way out of a final state (A4). A store that was put back gives its numbers out again.
        let forgetful = self.watches[usize::from(id.0)].forgetful;
        if before.len() > 1 && !forgetful && before[..] != [Told::Unconfirmed, Told::Delivered] {
            let words = format!("outcome: {}: message {message} got {before:?}", self.names[usize::from(id.0)]);
            self.problem(words);
        }
    }

    fn entry(&mut self, id: StationId, message: MessageId) -> Option<&mut Entry> {
        self.by_id.get(&(id, message)).and_then(|number| self.ledger.get_mut(*number))
    }
}

fn tell_ear(
    ear: &mut Overheard,
    at: Instant,
    event: &Event,
    level: Option<aldis::mail::Precedence>,
    own: u8,
    problems: &mut Vec<String>,
) {
    match event {
        Event::PeerSilence { peer, silent, .. } => ear.believe(at, peer, *silent),
        Event::TransferSentBlind { message, bearer, peer, repeated: false, .. } if *bearer == ear.bearer => {
            ear.window(own, *message, peer, problems);
        }
        Event::TransferFrozen { message, transfer, payload_bytes, bearer } => {
            // A message of the node's own is not in the ledger.
            if let Some(level) = level {
                ear.frozen(at, *message, transfer, level, *payload_bytes);
            }
            if *bearer != ear.bearer {
                // It may be carried here later, and what then left is in doubt.
                ear.progress(at, *message, false);
            }
        }
        Event::TransferMoved { message, .. } => ear.progress(at, *message, false),
        Event::TransferProgress { message, have, need, bearer, .. } if *bearer == ear.bearer => {
            ear.progress(at, *message, have < need);
        }
        Event::MessageExpedited { message, precedence, .. } => ear.expedited(at, *message, *precedence),
        Event::TransferConfirmed { message, .. }
        | Event::MessageFailed { message, .. }
        | Event::MessageExpired { message, .. }
        | Event::MessageUnconfirmed { message, .. }
        | Event::MessageCancelled { message, .. } => ear.over(*message),
        _ => {}
    }
}
