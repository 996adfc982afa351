//! The operator's desk: requests of the control socket that concern the switch's state. What only reads the store is answered
//! elsewhere, from a snapshot.

use std::collections::BTreeMap;

use crate::bearer::serial::LinkState;
use crate::codec::repertoire::Repertoire;
use crate::emcon::{Order, State};
use crate::mail::{BearerId, MessageId};
use crate::ops::document::{
    BearerStatus, Emcon, EmconBearer, EmconState, LinkStatus, ListenerStatus, MinimizeOrder, QueueStatus, Status,
    StoreStatus,
};
use crate::ops::{BearerChoice, Event, Request, Response, document};
use crate::queue::{Batch, Change, CommitError};
use crate::time::{Duration, Now, Wall};

use super::air::civil;
use super::fetch::{By, Wanted};
use super::settle::{Action, Step};
use super::{Minimize, Output, Pending, RequestId, StoreState, Switch};

/// Cargo features of this build. A release has none.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "mutations")]
    "mutations",
];

/// What this build can do, for scripts that must know.
pub const CAPABILITIES: &[&str] = &[
    "smtp",
    "lmtp",
    "lmtp-client",
    "maildir",
    "dsn",
    "mt-priority",
    "hf-serial",
    "p-mul",
    "mule",
    "multicast",
    "mac",
    "aead",
    "zstd-dictionary",
];

/// Setting that holds a bearer's MINIMIZE.
pub(super) fn minimize_key(bearer: &BearerId) -> String {
    format!("minimize/{bearer}")
}

/// An order for several bearers is answered when the last of them is durable.
#[derive(Debug)]
pub(super) struct OpenOrder {
    waiting: usize,
    bearers: Vec<BearerId>,
    carrier_off: BTreeMap<BearerId, Duration>,
    problems: Vec<String>,
}

impl Switch {
    pub(super) fn request(&mut self, now: Now, id: RequestId, request: Request, uid: u32) {
        let author = format!("uid {uid}");
        let response = match request {
            Request::Status => self.status(now),
            Request::QueueHold { id: message, reason } => {
                return self.operate(now, id, message, Action::Hold(reason), author);
            }
            Request::QueueRelease { id: message } => return self.operate(now, id, message, Action::Release, author),
            Request::QueueExpedite { id: message, precedence } => {
                return self.operate(now, id, message, Action::Expedite(precedence), author);
            }
            Request::QueueCancel { id: message, .. } => return self.operate(now, id, message, Action::Cancel, author),
            Request::QueueFetch { id: of, part } => {
                return self.fetch(now, Wanted { message: of, part, by: By::Operator { reply: id, author } });
            }
            Request::EmconShow { bearer } => match self.chosen(&bearer) {
                Ok(bearers) => self.emcon(now, &bearers, &BTreeMap::new()),
                Err(why) => Response::refused(why),
            },
            Request::EmconSet { bearer, state, reason, from, until } => {
                let ordered = self.chosen(&bearer).and_then(|b| {
                    let state = state.state(from, until)?;
                    Ok((self.those_that_radiate(b, &bearer, &state)?, state))
                });
                match ordered {
                    Ok((bearers, state)) => {
                        let order = timed(now, state, from, until, &reason, &author);
                        return self.order_all(now, id, bearers, &order);
                    }
                    Err(why) => Response::refused(why),
                }
            }
            Request::Predict { id: message } => self.predict(now, message),
            Request::EmconWhatIf { bearer, state, from, until } => {
                let supposed = self.chosen(&bearer).and_then(|b| {
                    let state = state.state(from, until)?;
                    Ok((self.those_that_radiate(b, &bearer, &state)?, state))
                });
                supposed
                    .and_then(|(bearers, state)| self.what_if(now, &bearers, &timed(now, state, from, until, "", "")))
                    .unwrap_or_else(Response::refused)
            }
            Request::MinimizeShow => self.minimize_document(),
            Request::MinimizeSet { bearer, minimum, reason, from, until } => match self.chosen(&bearer) {
                Ok(bearers) => {
                    let from = from.unwrap_or(now.wall);
                    let order = Minimize { least: minimum, from, until, reason, author };
                    return self.minimize(bearers, Some(&order), id);
                }
                Err(why) => Response::refused(why),
            },
            Request::MinimizeClear { bearer } => match self.chosen(&bearer) {
                Ok(bearers) => return self.minimize(bearers, None, id),
                Err(why) => Response::refused(why),
            },
            Request::PeerShow => self.peers_document(now),
            Request::PeerSilent { peer, reason, from, until } => {
                match self.mark_silent(now, id, &peer, reason, from, until, author) {
                    Some(refused) => refused,
                    None => return,
                }
            }
            Request::PeerHeard { peer, reason } => match self.mark_heard(now, id, &peer, reason, author) {
                Some(refused) => refused,
                None => return,
            },
            Request::QueueList { .. }
            | Request::QueueShow { .. }
            | Request::QueueRead { .. }
            | Request::Track { .. }
            | Request::Watch => Response::refused("the store cannot be read now"),
        };
        self.outputs.push_back(Output::Reply { id, response });
    }

    fn operate(&mut self, now: Now, reply: RequestId, message: MessageId, action: Action, author: String) {
        self.step(now, message, Step::Operator { action, reply, author });
    }

    fn chosen(&self, choice: &BearerChoice) -> Result<Vec<BearerId>, String> {
        match choice {
            BearerChoice::All => Ok(self.gate.bearers().cloned().collect()),
            BearerChoice::One(name) if self.gate.bearers().any(|b| b == name) => Ok(vec![name.clone()]),
            BearerChoice::One(name) => {
                let known: Vec<_> = self.gate.bearers().map(ToString::to_string).collect();
                Err(format!("no bearer {name}; this node has {}", known.join(", ")))
            }
        }
    }

    /// The bearers that an order may be for: one that only receives is silent for good.
    fn those_that_radiate(
        &self,
        mut bearers: Vec<BearerId>,
        choice: &BearerChoice,
        state: &State,
    ) -> Result<Vec<BearerId>, String> {
        let only_receives = |name: &BearerId| self.plan.only_receives(name) && *state != State::Silent;
        if let BearerChoice::One(name) = choice
            && only_receives(name)
        {
            return Err(format!("{name} only receives: its profile says receive_only, and no order lets it radiate"));
        }
        bearers.retain(|name| !only_receives(name));
        Ok(bearers)
    }

    fn status(&self, now: Now) -> Response {
        let listeners = self.listeners.iter().map(|(name, address)| ListenerStatus {
            name: name.clone(),
            address: address.clone(),
            refused: BTreeMap::new(),
        });
        let serial = self.bearers.iter().map(|(name, b)| (name, &b.plan.peers, b.account));
        let nets = self.nets.all().map(|net| (&net.plan.id, &net.plan.peers, net.account));
        let bearers = serial.chain(nets).map(|(name, peers, account)| BearerStatus {
            name: name.to_string(),
            peer: peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            emcon: EmconState::of(self.gate.order(name), civil(now)),
            air_s: account.air.as_secs_f64(),
            bytes_sent: account.bytes,
            suppressed: self.gate.suppressed(name),
        });
        Response::done(&Status {
            schema: Status::SCHEMA.into(),
            node: self.plan.node.name.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: FEATURES.iter().map(ToString::to_string).collect(),
            capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
            ready: !self.stopped,
            clock_set: now.set,
            listeners: listeners.collect(),
            // Whoever makes the connections adds them.
            smarthosts: Vec::new(),
            mx: Vec::new(),
            bearers: bearers.collect(),
            paths: self.paths(now),
            links: self.links().into_iter().map(|(bearer, link)| link_status(&bearer, link)).collect(),
            multicast: self.multicast_status(),
            silent: self.silent_peers(now),
            // Depth and free space are the store's; the reader of the snapshot fills them in.
            queue: QueueStatus::default(),
            store: StoreStatus { healthy: self.store == StoreState::Healthy, free_bytes: 0 },
            events: self.counters.iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        })
    }

    fn emcon(&self, now: Now, bearers: &[BearerId], carrier_off: &BTreeMap<BearerId, Duration>) -> Response {
        let shown = |name: &BearerId| EmconBearer {
            name: name.to_string(),
            emcon: EmconState::of(self.gate.order(name), civil(now)),
            carrier_off_s: carrier_off
                .get(name)
                .copied()
                .unwrap_or_else(|| self.carrier_off_after(now, name))
                .as_secs_f64(),
            suppressed: self.gate.suppressed(name),
        };
        Response::done(&Emcon { schema: Emcon::SCHEMA.into(), bearers: bearers.iter().map(shown).collect() })
    }

    fn order_all(&mut self, now: Now, id: RequestId, bearers: Vec<BearerId>, order: &Order) {
        let open = OpenOrder {
            waiting: bearers.len(),
            bearers: bearers.clone(),
            carrier_off: BTreeMap::new(),
            problems: Vec::new(),
        };
        self.open_orders.insert(id, open);
        if bearers.is_empty() {
            self.answer_order(now, id);
        }
        for bearer in bearers {
            match order.clone().following(self.gate.order(&bearer), civil(now)) {
                Ok(order) => self.order(now, &bearer, order, Some(id)),
                Err(why) => self.order_done(now, id, &bearer, Duration::ZERO, Some(format!("{bearer}: {why}"))),
            }
        }
    }

    /// One bearer's order is durable, or is not.
    #[expect(clippy::too_many_arguments, reason = "what one ticket carried")]
    pub(super) fn order_settled(
        &mut self,
        now: Now,
        bearer: &BearerId,
        order: Order,
        tightened: bool,
        reply: Option<RequestId>,
        carrier_off: Duration,
        stored: Result<(), CommitError>,
    ) {
        let settled = self.order_stored(now, bearer, order, tightened, stored);
        if let Some(id) = reply {
            self.order_done(now, id, bearer, carrier_off, settled.err());
        }
    }

    fn order_done(
        &mut self,
        now: Now,
        id: RequestId,
        bearer: &BearerId,
        carrier_off: Duration,
        problem: Option<String>,
    ) {
        let Some(open) = self.open_orders.get_mut(&id) else { return };
        open.waiting = open.waiting.saturating_sub(1);
        open.carrier_off.insert(bearer.clone(), carrier_off);
        open.problems.extend(problem);
        if open.waiting == 0 {
            self.answer_order(now, id);
        }
    }

    fn answer_order(&mut self, now: Now, id: RequestId) {
        let Some(open) = self.open_orders.remove(&id) else { return };
        let response = match open.problems.is_empty() {
            true => self.emcon(now, &open.bearers, &open.carrier_off),
            false => Response::refused(open.problems.join("; ")),
        };
        self.outputs.push_back(Output::Reply { id, response });
    }

    fn minimize(&mut self, bearers: Vec<BearerId>, order: Option<&Minimize>, reply: RequestId) {
        let value = |_: &BearerId| order.and_then(|o| serde_json::to_vec(o).ok());
        let changes = bearers.iter().map(|b| Change::Setting(minimize_key(b), value(b))).collect();
        let orders = bearers.into_iter().map(|b| (b, order.cloned())).collect();
        self.commit(Batch { conditions: Vec::new(), changes }, Pending::Minimize { orders, reply });
    }

    pub(super) fn minimize_stored(
        &mut self,
        orders: Vec<(BearerId, Option<Minimize>)>,
        id: RequestId,
        stored: Result<(), CommitError>,
    ) {
        let response = match stored {
            Ok(()) => {
                for (bearer, order) in orders {
                    let (told, author) = match &order {
                        Some(o) => (format!("{} and above", o.least), o.author.clone()),
                        None => ("cleared".to_owned(), String::new()),
                    };
                    self.event(Event::MinimizeOrdered { bearer: bearer.clone(), order: told, author });
                    match order {
                        Some(order) => self.minimize.insert(bearer, order),
                        None => self.minimize.remove(&bearer),
                    };
                }
                self.minimize_document()
            }
            Err(error) => Response::refused(format!("MINIMIZE was not changed: {error}")),
        };
        self.outputs.push_back(Output::Reply { id, response });
    }

    fn minimize_document(&self) -> Response {
        let orders = self.minimize.iter().map(|(bearer, o)| MinimizeOrder {
            bearer: bearer.to_string(),
            minimum: o.least.to_string(),
            from: o.from.rfc3339(),
            until: o.until.map(Wall::rfc3339),
            reason: o.reason.clone(),
            author: o.author.clone(),
        });
        Response::done(&document::Minimize { schema: document::Minimize::SCHEMA.into(), orders: orders.collect() })
    }

    pub(super) fn minimize_in_force(&self, now: Now, bearer: &BearerId) -> Option<&Minimize> {
        self.minimize.get(bearer).filter(|m| m.applies(now))
    }
}

/// An order as it was given. A window carries its own times.
fn timed(now: Now, state: State, from: Option<Wall>, until: Option<Wall>, reason: &str, author: &str) -> Order {
    let (from, until) = if matches!(state, State::Window(_)) { (None, None) } else { (from, until) };
    Order { state, since: now.wall, from, until, base: None, reason: reason.into(), author: author.into() }
}

impl Minimize {
    /// Whether it is in force. Without a set clock its times say nothing, and it binds.
    pub(super) fn applies(&self, now: Now) -> bool {
        !now.set || (self.from <= now.wall && self.until.is_none_or(|until| now.wall < until))
    }
}

/// A link as the status has it.
fn link_status(bearer: &BearerId, link: LinkState) -> LinkStatus {
    LinkStatus {
        bearer: bearer.to_string(),
        peer: link.peer.to_string(),
        waveform: link.waveform.to_string(),
        why: link.why.into(),
        snr_db: link.snr_db.map(|db| (db * 10.0).round() / 10.0),
        loss: (link.loss * 1000.0).round() / 1000.0,
        turnaround_s: link.turnaround.map(|t| t.as_secs_f64()),
        wait_s: link.wait.as_secs_f64(),
        transmissions: link.changes.0,
        rate_changes: link.changes.1,
        reads: link.reads.map(|bits| Repertoire::from_bits(bits).words().to_owned()),
    }
}
