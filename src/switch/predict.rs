//! When something will be across: the one model of a bearer's time on the air. The choice between bearers, `track` and `emcon what-if`
//! all ask it.
//!
//! It takes what waits on the bearer before it, and what the peer still lacks, in whole blocks and turns at the rate the link has now,
//! stretched by the loss as measured; time during which an order forbids it does not count. It knows nothing of what the far side
//! has to say, nor of what will be handed in later.

use crate::bearer::serial::{Role, waits};
use crate::emcon::Gate;
use crate::mail::{BearerId, Hop, MessageId, PeerName, Precedence, TransferId};
use crate::ops::Response;
use crate::ops::document::{Prediction, Predictions};
use crate::queue::schedule::ToGo;
use crate::queue::{MessageRecord, TransferRecord};
use crate::time::{Duration, Now, Wall};

use super::Switch;
use super::air::Bearer;
use super::choice::{Candidate, Class, first};

/// How often something is still lacking after a transmission that carried what was missing and a little over, at most.
const LACKS: f64 = 0.25;

/// What is to be carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'a> {
    pub(super) peer: &'a PeerName,
    pub(super) level: Precedence,
    /// Bytes of the whole payload; what a bearer's bounds are about.
    pub(super) payload_bytes: u64,
    /// Bytes that are still missing there.
    pub(super) missing_bytes: u64,
    /// Bytes that go before it and are not with the station yet.
    pub(super) queued_bytes: u64,
    /// It may only go where mail is protected (C4).
    pub(super) protect: bool,
    /// An operator let it go beyond any bound.
    pub(super) unbounded: bool,
    /// The transfer itself, which does not wait for itself.
    pub(super) id: Option<&'a TransferId>,
    /// The bearers its route names; empty: any.
    pub(super) only: &'a [BearerId],
    /// It is frozen for this bearer, where MINIMIZE no longer holds it.
    pub(super) frozen_for: Option<&'a BearerId>,
}

/// What a bearer would make of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Forecast {
    /// When the orders let it begin; `None`: nobody knows.
    pub(super) opens: Option<Wall>,
    /// How long orders keep it off the air in all; `None`: nobody knows.
    pub(super) wait: Option<Duration>,
    /// From then on until the peer has it, what goes before it included.
    pub(super) seconds: f64,
    /// How long this station radiates for it alone.
    pub(super) emission: f64,
    /// Bytes that go before it.
    pub(super) ahead: u64,
}

impl Forecast {
    /// When the peer will have it.
    pub(super) fn delivered(&self, now: Now) -> Option<Wall> {
        Some(now.wall.plus(self.wait? + Duration::from_secs_f64(self.seconds)))
    }
}

/// What coding has made of mail so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Coding {
    accepted: u64,
    payload: u64,
}

impl Coding {
    /// A message of so many bytes became a payload of so many.
    pub(super) fn learn(&mut self, accepted: u64, payload: u64) {
        if self.accepted > 1 << 20 {
            (self.accepted, self.payload) = (self.accepted / 2, self.payload / 2);
        }
        (self.accepted, self.payload) = (self.accepted + accepted, self.payload + payload);
    }

    /// What a message of this size is likely to become; the same before there was any.
    fn foretell(self, accepted: u64) -> u64 {
        match self.accepted {
            0 => accepted,
            known => (u128::from(accepted) * u128::from(self.payload) / u128::from(known)) as u64,
        }
    }
}

impl Switch {
    /// What a bearer would make of something, judged by the orders of `gate`.
    pub(super) fn forecast(&self, now: Now, gate: &Gate, name: &BearerId, b: &Bearer, load: &Load<'_>) -> Forecast {
        let ahead = b.station.ahead(load.level, load.missing_bytes, load.id) + load.queued_bytes;
        let spoken = b.station.spoken_to(load.peer);
        let w = b.plan.waveform_named(spoken.rate, &spoken.interleaver);
        let time = |bytes| b.plan.passage(w, bytes).time.as_secs_f64();
        let loss = b.station.outlook(load.peer).map_or(0.0, |o| o.loss).min(0.9);
        let stretch = 1.0 / (1.0 - loss);
        let first = time(ahead + load.missing_bytes) * stretch;
        // Who lacks something after that waits for the end of the transmission, others' share of it included, and for a turn.
        let others = b.station.ahead(Precedence::Deferred, u64::MAX, load.id) + load.queued_bytes;
        let cap = b.plan.max_transmission_routine.as_secs_f64();
        let rest = (time(others + load.missing_bytes) * stretch - first).clamp(0.0, cap - first % cap);
        let turn = (w.turnaround * 2 + (w.preamble + w.block) * 2).as_secs_f64();
        let frames = load.missing_bytes.div_ceil(u64::from(w.frame_bytes.max(1)));
        let lacks = (frames as f64 * loss).min(LACKS);
        let seconds = first + lacks * (rest + turn) + b.station.begins_after(now.at).as_secs_f64();
        let emission = b.plan.passage(w, load.missing_bytes).emission.as_secs_f64() * stretch;
        let least = w.preamble + w.block;
        let minimize = load.frozen_for != Some(name);
        let (opens, wait) = self.openings(now, gate, name, load.level, minimize, seconds, least);
        Forecast { opens, wait, seconds, emission, ahead }
    }

    /// When a bearer is next open to a level, and how long it is closed until `seconds` of it being open have passed. Openings shorter
    /// than `least` are of no use.
    #[expect(clippy::too_many_arguments, reason = "one walk along the orders of one bearer")]
    fn openings(
        &self,
        now: Now,
        gate: &Gate,
        name: &BearerId,
        level: Precedence,
        minimize: bool,
        seconds: f64,
        least: Duration,
    ) -> (Option<Wall>, Option<Duration>) {
        let open = |wall: Wall| {
            let then = Now { wall, ..now };
            let lowest = if minimize { self.lowest_on(then, gate, name) } else { gate.carries_from(then, name) };
            lowest.is_some_and(|lowest| level >= lowest)
        };
        if !now.set {
            // What orders say of times is not known to have come.
            return if open(now.wall) { (Some(now.wall), Some(Duration::ZERO)) } else { (None, None) };
        }
        let mut edges = gate.edges(name);
        edges.extend(self.minimize.get(name).into_iter().flat_map(|m| [Some(m.from), m.until]).flatten());
        edges.retain(|at| *at > now.wall);
        edges.sort_unstable();
        let (mut opens, mut closed) = (None, Duration::ZERO);
        let mut left = Duration::from_secs_f64(seconds);
        let mut from = now.wall;
        for until in edges {
            let span = until.since(from);
            // A transmission that runs is not begun anew: what is open now may be short.
            if open(from) && (span >= least || span >= left || from == now.wall) {
                opens.get_or_insert(from);
                if span >= left {
                    return (opens, Some(closed));
                }
                left = left.saturating_sub(span);
            } else {
                closed += span;
            }
            from = until;
        }
        if !open(from) {
            return (opens, None);
        }
        (opens.or(Some(from)), Some(closed))
    }

    /// A frozen payload as it stands.
    pub(super) fn load_of<'a>(&'a self, record: &'a TransferRecord, peer: &'a PeerName, level: Precedence) -> Load<'a> {
        let progress = self.bearers_to(peer).filter_map(|(_, b)| b.station.missing(&record.id));
        let (need, missing) = progress.min_by_key(|(_, missing)| *missing).unwrap_or((1, 1));
        let payload_bytes = u64::from(record.payload_bytes);
        let missing_bytes = payload_bytes * u64::from(missing) / u64::from(need.max(1));
        // What comes into a slot that is free again has its first share before the others have their next.
        let on_bearer =
            |hop: &Hop| matches!(hop, Hop::Peer(p) if self.bearers_to(peer).any(|(_, b)| b.plan.peers.contains(p)));
        let ready = self.active.to_go().filter(|w| w.until.is_none() && on_bearer(w.hop));
        let queued = ready.map(|w| {
            let bytes = self.coding.foretell(w.record.size_bytes);
            waits(w.record.precedence, bytes, level, missing_bytes, false)
        });
        Load {
            peer,
            level,
            payload_bytes,
            missing_bytes,
            queued_bytes: queued.sum(),
            protect: self.asks_protection(record.message),
            unbounded: self.beyond.contains(&record.message),
            id: Some(&record.id),
            only: self.only_over(record.message, peer),
            frozen_for: Some(&record.bearer),
        }
    }

    /// A message that is not frozen yet, for one of its peers.
    pub(super) fn load_to_come<'a>(&'a self, record: &MessageRecord, peer: &'a PeerName) -> Load<'a> {
        let payload_bytes = self.coding.foretell(record.size_bytes);
        let reached: Vec<&PeerName> = self.bearers_to(peer).flat_map(|(_, b)| &b.plan.peers).collect();
        let hops = reached.into_iter().map(|p| Hop::Peer(p.clone()));
        let queued: u64 = hops.map(|hop| self.active.ahead(&hop, record.id)).sum();
        Load {
            peer,
            level: record.precedence,
            payload_bytes,
            missing_bytes: payload_bytes,
            queued_bytes: self.coding.foretell(queued),
            protect: self.asks_protection(record.id),
            unbounded: self.beyond.contains(&record.id),
            id: None,
            only: self.only_for(record, peer),
            frozen_for: None,
        }
    }

    /// What is to be expected of a message's recipients that go over the air and are not done.
    pub(super) fn predict(&self, now: Now, id: MessageId) -> Response {
        let frozen = self.transfers.values().filter(|t| t.message == id).map(|t| self.predict_frozen(now, t));
        let waiting = self.active.to_go().filter(|w| w.record.id == id).filter_map(|w| {
            let Hop::Peer(peer) = w.hop else { return None };
            self.predict_to_come_on_net(now, &w, peer).or_else(|| Some(self.predict_waiting(now, &w, peer)))
        });
        let predictions = frozen.flatten().chain(waiting).collect();
        Response::done(&Predictions { schema: Predictions::SCHEMA.into(), id: id.to_string(), predictions })
    }

    fn predict_frozen(&self, now: Now, transfer: &TransferRecord) -> Option<Prediction> {
        let Hop::Peer(peer) = &transfer.hop else { return None };
        if self.nets.to(peer).is_some() {
            return self.predict_on_net(now, transfer, peer);
        }
        let record = self.active.record(transfer.message)?;
        let load = self.load_of(transfer, peer, record.precedence);
        let bearer = self.bearers.get(&transfer.bearer)?;
        let own = self.candidate(now, &self.gate, &transfer.bearer, bearer, &load);
        // What several bearers carry at once comes by the first of them.
        let carries = |(name, b): &(&BearerId, &Bearer)| {
            **name != transfer.bearer && b.station.role(&transfer.id) == Some(Role::Carry)
        };
        let beside = self.bearers_to(peer).filter(carries).map(|(n, b)| self.candidate(now, &self.gate, n, b, &load));
        let best = beside.fold(own, |a, b| if (b.class, b.seconds) < (a.class, a.seconds) { b } else { a });
        let to = |i: &u32| record.envelope.recipients.get(usize::try_from(*i).ok()?).map(|r| r.address.to_string());
        let recipients = transfer.recipients.iter().filter_map(to).collect();
        Some(told(now, recipients, peer, Some(&best)))
    }

    fn predict_waiting(&self, now: Now, w: &ToGo<'_>, peer: &PeerName) -> Prediction {
        let load = self.load_to_come(w.record, peer);
        let begin = w.until.filter(|at| *at > now.wall).map_or(now, |at| Now { wall: at, ..now });
        let candidates = self.candidates(begin, &self.gate, &load);
        let best = first(&candidates);
        let recipients = w.recipients().map(|r| r.address.to_string()).collect();
        let mut prediction = told(begin, recipients, peer, best);
        prediction.why = match (best, w.until) {
            (None, _) => self
                .bearer_for(begin, peer, load.level, load.payload_bytes, w.record.id, |_| true)
                .err()
                .map(|(why, _)| why),
            (Some(_), Some(at)) => Some(format!("next attempt {}; then {}", at.rfc3339(), prediction.why)),
            (Some(_), None) => Some(format!("{}; not encoded yet, its size is a guess", prediction.why)),
        }
        .unwrap_or(prediction.why);
        prediction
    }
}

/// A prediction as it is shown.
fn told(now: Now, recipients: Vec<String>, peer: &PeerName, best: Option<&Candidate>) -> Prediction {
    let why = best.map(|c| {
        let behind = match c.forecast.ahead {
            0 => String::new(),
            ahead => format!(", with {ahead} bytes that go before it"),
        };
        match (c.class, c.forecast.opens) {
            (Class::Open, _) => format!("{} would take {:.0} s{behind}", c.bearer, c.forecast.seconds),
            (Class::Later, Some(at)) => {
                format!("held by order until {}; then {:.0} s{behind}", at.rfc3339(), c.forecast.seconds)
            }
            (Class::Closed | Class::Later, _) => "held by order until another one is given".into(),
            (Class::Lost, _) => format!("{}; nobody knows when it will", c.why),
        }
    });
    let known = best.filter(|c| matches!(c.class, Class::Open | Class::Later));
    Prediction {
        recipients,
        peer: peer.to_string(),
        bearer: best.map(|c| c.bearer.to_string()),
        air_s: best.map_or(0.0, |c| tenths(c.forecast.emission)),
        delivered_at: known.and_then(|c| c.forecast.delivered(now)).map(Wall::rfc3339),
        why: why.unwrap_or_default(),
    }
}

/// Seconds to a tenth: a prediction is no better.
pub(super) fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
