//! The judge: what was promised against what is there. Asked after every start of a node, and at the end.

use std::collections::{BTreeMap, BTreeSet};

use aldis::emcon::State;
use aldis::mail::{MessageId, Outcome, RecipientState, header};
use aldis::queue::MessageState;
use aldis::time::{Duration, Instant};

use super::{Lab, Violation, excerpt, ids};
use crate::ether::{AntennaEdge, StationId};
use crate::trace::short_digest;

/// How long finished messages are kept by the laboratory's profiles: later a store need not know them.
const KEPT: Duration = Duration::from_secs(13 * 86_400);

impl Lab {
    /// Everything that is wrong, in words; empty after a good run that was given time to settle.
    pub fn check(&mut self) -> Vec<String> {
        let mut problems = self.check_silence();
        self.check_ledger(&mut problems);
        self.check_outcomes(&mut problems);
        for (name, node) in self.names.iter().zip(self.world.hosts()) {
            problems.extend(node.log().damaged.iter().map(|text| format!("store: {name}: {text}")));
        }
        problems.extend(self.world.ether().balance().err().map(|why| format!("bytes: {why}")));
        problems
    }

    /// Problems that were seen on the way, and those of the antennas: these hold at any moment.
    pub fn check_silence(&mut self) -> Vec<String> {
        self.digest();
        let mut problems = self.problems.clone();
        problems.extend(self.late().into_iter().map(|v| v.text));
        problems
    }

    /// Once everything is settled nothing may be left over in memory.
    pub fn check_settled(&self) -> Vec<String> {
        let left = ids(self.names.len()).filter_map(|id| {
            let sizes = self.node(id).sizes()?;
            let over = sizes.receipts
                + sizes.transfers
                + sizes.steps
                + sizes.links.outgoing
                + sizes.links.queued
                + sizes.orders;
            (over > 0).then(|| format!("memory: {} has nothing to do and holds {sizes:?}", self.name(id)))
        });
        left.collect()
    }

    /// After a start: what was acknowledged here, to a client or to a peer, is in the store.
    pub(super) fn check_kept(&mut self, id: StationId) {
        let watch = &self.watches[usize::from(id.0)];
        if watch.forgetful || !self.node(id).is_up() || self.at().since(aldis::time::Instant::ZERO) > KEPT {
            return;
        }
        // The power may go between an outcome's commit and the word of it: then the store is who tells of it.
        let mine = self.accepted.range((id, 0)..=(id, usize::MAX)).map(|(_, message)| *message);
        let done: Vec<MessageId> = mine.filter(|message| self.node(id).has_ended(*message)).collect();
        self.ended.extend(done.into_iter().map(|message| (id, message)));
        // What had its outcome may have been purged: a clock that was set makes it old at once.
        let over = |message| {
            self.ended.contains(&(id, message))
                || self
                    .outcomes
                    .range((id, message, String::new())..)
                    .next()
                    .is_some_and(|((i, m, _), _)| (*i, *m) == (id, message))
        };
        let mine = self.accepted.range((id, 0)..=(id, usize::MAX));
        let gone = mine.filter(|(_, message)| !over(**message) && self.node(id).lacks(**message));
        let mut lost: Vec<usize> = gone.map(|((_, number), _)| *number).collect();
        let promised = self
            .ledger
            .iter()
            .enumerate()
            .filter(|(n, e)| e.from == id && e.fate.promised.is_some() && !self.accepted.contains_key(&(id, *n)));
        lost.extend(promised.filter(|(_, e)| self.node(id).lacks_named(&e.message_id)).map(|(n, _)| n));
        for number in lost {
            let problem = format!("lost: {} has message {number} no more after its start", self.name(id));
            self.problem(problem);
        }
    }

    fn check_ledger(&self, problems: &mut Vec<String>) {
        let mut found: BTreeMap<usize, Vec<(StationId, Vec<u8>)>> = BTreeMap::new();
        let mut told: BTreeMap<(usize, StationId), usize> = BTreeMap::new();
        let ended: Vec<&str> = self.ledger.iter().filter(|e| e.cancelled).map(|e| e.message_id.as_str()).collect();
        for (id, node) in ids(self.names.len()).zip(self.world.hosts()) {
            for (path, bytes) in node.delivered() {
                let name = header::message_id(&bytes).unwrap_or_default();
                match self.by_message_id.get(name.trim_matches(['<', '>'])) {
                    Some(number) => found.entry(*number).or_default().push((id, bytes)),
                    // Word of a delay is no failure, and of what an operator ended its sender is told.
                    None if holds(&bytes, "Action: delivered") || holds(&bytes, "Action: relayed") => {
                        match self.subject(&bytes).filter(|number| self.ledger[*number].from == id) {
                            Some(number) => {
                                self.told_by(&bytes).for_each(|to| *told.entry((number, to)).or_default() += 1)
                            }
                            None => problems.push(format!("astray: {} got word of {}", self.name(id), excerpt(&bytes))),
                        }
                    }
                    None if holds(&bytes, "Action: delayed") || ended.iter().any(|id| holds(&bytes, id)) => {}
                    None => {
                        let name = self.name(id);
                        problems.push(format!("report: {name}: {path} is a report or unknown: {}", excerpt(&bytes)));
                    }
                }
            }
        }
        for (number, entry) in self.ledger.iter().enumerate() {
            let copies = found.remove(&number).unwrap_or_default();
            let promised = entry.fate.promised.is_some() && !entry.cancelled;
            for to in entry.recipients() {
                let words = told.get(&(number, to)).copied().unwrap_or(0);
                if words > usize::from(entry.receipts) || (promised && entry.receipts && words == 0) {
                    let kind = if words > 0 { "retold" } else { "untold" };
                    let name = self.name(to);
                    problems.push(format!("{kind}: the sender of message {number} was told {words} times of {name}"));
                }
                let times = copies.iter().filter(|(id, _)| *id == to).count();
                if times > 1 || (promised && times == 0) {
                    let (fate, name) = (&entry.fate, self.name(to));
                    let kind = if times > 1 { "twice" } else { "lost" };
                    problems.push(format!(
                        "{kind}: message {number}, promised {promised}, was delivered {times} times at {name}: {fate:?}"
                    ));
                }
            }
            for (id, bytes) in copies {
                if !entry.recipients().any(|to| to == id) {
                    let (to, at) = (self.name(entry.to), self.name(id));
                    problems.push(format!("astray: message {number} for {to} lies at {at}"));
                }
                if !bytes.ends_with(&entry.body) {
                    let digest = short_digest(&bytes);
                    problems.push(format!("changed: message {number} arrived with other bytes ({digest})"));
                }
            }
        }
    }

    /// The message that a report is about.
    fn subject(&self, report: &[u8]) -> Option<usize> {
        let text = String::from_utf8_lossy(report);
        let name =
            text.lines().find_map(|line| line.strip_prefix("In-Reply-To: "))?.trim_matches(['<', '>']).to_owned();
        self.by_message_id.get(&name).copied()
    }

    /// The stations that a report says something of.
    fn told_by(&self, report: &[u8]) -> impl Iterator<Item = StationId> {
        let text = String::from_utf8_lossy(report).into_owned();
        let addresses: Vec<String> =
            text.lines().filter_map(|l| l.strip_prefix("Final-Recipient: rfc822; ")).map(str::to_owned).collect();
        let names: Vec<String> = self.names.iter().map(|name| format!("desk@{name}.example")).collect();
        ids(names.len()).zip(names).filter(move |(_, name)| addresses.contains(name)).map(|(id, _)| id)
    }

    /// Wherever a promised message passed, its record is final.
    fn check_outcomes(&self, problems: &mut Vec<String>) {
        for (number, entry) in self.ledger.iter().enumerate().filter(|(_, e)| e.fate.promised.is_some()) {
            let mut stations: BTreeSet<StationId> = self.topology.way(entry.from, entry.to).into_iter().collect();
            stations.insert(entry.from);
            stations.extend(entry.recipients());
            for id in stations {
                let final_for = |state: &RecipientState| match state {
                    RecipientState::Final { outcome: Outcome::Delivered { .. }, .. } => true,
                    RecipientState::Final { outcome: Outcome::Cancelled, .. } => entry.cancelled,
                    _ => false,
                };
                for record in self.node(id).records(&entry.message_id) {
                    if record.state != MessageState::Done || !record.recipients.iter().all(|r| final_for(&r.state)) {
                        let states: Vec<_> = record.recipients.iter().map(|r| &r.state).collect();
                        let (state, name) = (record.state, self.name(id));
                        problems.push(format!("unfinished: message {number} is {state:?} at {name} with {states:?}"));
                    }
                }
            }
        }
    }

    /// The orders in force at a station, each from its instant on.
    pub fn standings(&self, id: StationId) -> impl Iterator<Item = (Instant, &State)> {
        self.watches[usize::from(id.0)].standing.iter().map(|s| (s.from, &s.state))
    }

    /// Every carrier that an order forbade (link-rules B2), as far as it was judged.
    pub fn violations(&self) -> Vec<Violation> {
        let log = self.world.ether().antenna_log();
        let ends = |v: &Violation| {
            let off = log.iter().find(|e| self.world.cabled(e.station).0 == v.station && !e.on && e.at >= v.from);
            off.map_or(self.at(), |e| e.at)
        };
        let found = self.forbidden.iter().map(|v| Violation { until: ends(v), ..v.clone() });
        found.chain(self.late()).collect()
    }

    /// Carriers that outlasted an order of silence longer than was stated.
    fn late(&self) -> Vec<Violation> {
        let silences: Vec<_> = self.orders.values().filter(|o| o.state == State::Silent).collect();
        let mut found = Vec::new();
        if silences.is_empty() {
            return found;
        }
        let mut edges: BTreeMap<StationId, Vec<&AntennaEdge>> = BTreeMap::new();
        for edge in self.world.ether().antenna_log() {
            edges.entry(edge.station).or_default().push(edge);
        }
        for order in silences {
            // A key that sticks in the modem obeys nobody; the alarm is all a node can give.
            if self.watches[usize::from(order.station.0)].key_stuck {
                continue;
            }
            for radio in self.world.radios(order.station) {
                let can_abort = self.world.ether().modem(radio).is_some_and(|m| m.abort_delay.is_some());
                let bound = order.carrier_off.or(can_abort.then_some(Duration::from_secs(1)));
                let edges = edges.get(&radio).map(Vec::as_slice).unwrap_or_default();
                let radiating = edges.iter().rposition(|e| e.at <= order.at).filter(|&n| edges[n].on);
                if let (Some(n), Some(bound)) = (radiating, bound) {
                    let until = edges.get(n + 1).map_or(self.at(), |e| e.at);
                    let from = order.at + bound;
                    if until > from {
                        let late = until.since(order.at).as_secs_f64();
                        let (name, at) = (self.name(order.station), order.at);
                        let text = format!(
                            "late: {name}: ordered silent at {at:?}, carrier off {late:.2} s later; {bound:?} was stated (B2)"
                        );
                        found.push(Violation { station: order.station, from, until, text });
                    }
                }
            }
        }
        found
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}
