//! Which bearer carries what, where several reach a peer: the predicted time of delivery chooses, with hysteresis.
//!
//! A bearer is open to a transfer, opens later (an order says when), is lost (its modem is broken, or the peer has left some turns
//! unanswered), or is closed by an order without an end. A transfer leaves a bearer that is no longer open for one that is, at once,
//! unless the order ends so soon that waiting brings it across in half the time; between open ones it moves only for a clearly earlier
//! delivery, and not again for a while. A lost bearer is asked now and then where it would be clearly better, and is open again when
//! the peer answers there; one that was lost again and again has to wait longer each time. From some level on a message goes on two
//! open bearers at once, different symbols on each. Nothing of this is stored: every bearer's station commits how far it has sent and
//! what the peer lacks, and after a restart the choice is made anew from that.

use std::collections::BTreeMap;

use crate::bearer::Transfer;
use crate::bearer::fec::Geometry;
use crate::bearer::serial::{Headway, Role};
use crate::emcon::Gate;
use crate::mail::{BearerId, Hop, MessageId, PeerName, Precedence, Recipient, TransferId};
use crate::ops::Event;
use crate::ops::document::PathStatus;
use crate::queue::{Batch, Change, MessageRecord, TrackEntry, TransferRecord};
use crate::time::{Duration, Instant, Now};

use super::addresses::among;
use super::air::Bearer;
use super::predict::{Forecast, Load};
use super::{Pending, Switch};

/// Unanswered turns in a row after which a bearer is left.
const LEFT_AFTER: u32 = 3;
/// An open bearer is changed for another only where that needs at most this share of the time.
const CLEARLY: f64 = 0.5;
/// Shortest time between two such changes of one transfer.
const DWELL: Duration = Duration::from_secs(60);
/// How long a bearer that was lost twice must have answered again before it is open; doubled each further time.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest such wait.
const MOST_PATIENCE: Duration = Duration::from_secs(1800);
/// A bearer that held this long starts with a clean slate.
const STEADY: Duration = Duration::from_secs(3600);
/// What `status` predicts for: a message of this size.
const TYPICAL_BYTES: u64 = 10 * 1024;

/// What the switch remembers for its choices.
#[derive(Debug, Default)]
pub(super) struct Choices {
    ways: BTreeMap<(PeerName, BearerId), Way>,
    /// When a transfer last changed its bearer.
    moved: BTreeMap<TransferId, Instant>,
}

/// The way to a peer over one of several bearers.
#[derive(Clone, Copy, Debug)]
struct Way {
    lost: bool,
    /// How often, lately.
    losses: u32,
    /// When it last came back.
    back: Instant,
    open_from: Instant,
}

/// Whether a bearer may be used for something now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Class {
    Open,
    /// An order says when.
    Later,
    Lost,
    Closed,
}

/// A bearer that could carry something.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) bearer: BearerId,
    pub(super) class: Class,
    /// Predicted time until the peer has it, cost included.
    pub(super) seconds: f64,
    pub(super) forecast: Forecast,
    pub(super) why: String,
}

impl Candidate {
    fn clearly_before(&self, other: &Self) -> bool {
        self.seconds < CLEARLY * other.seconds
    }

    /// Whether a transfer leaves `other` for this one; `rested`: it has not been moved lately.
    fn overtakes(&self, other: &Self, rested: bool) -> bool {
        match (self.class, other.class) {
            (Class::Open, Class::Later) => !other.clearly_before(self),
            (Class::Open, Class::Open) | (Class::Later, Class::Open | Class::Later) => {
                rested && self.clearly_before(other)
            }
            (new, old) => new < old,
        }
    }
}

impl Switch {
    /// The bearers that reach a peer.
    pub(super) fn bearers_to(&self, peer: &PeerName) -> impl Iterator<Item = (&BearerId, &Bearer)> {
        self.bearers.iter().filter(move |(_, b)| b.plan.peers.contains(peer))
    }

    /// The bearer for a new transfer, of those it `suits`; otherwise why none may carry it, and whether it is to be held.
    pub(super) fn bearer_for(
        &self,
        now: Now,
        peer: &PeerName,
        level: Precedence,
        payload_bytes: u64,
        message: MessageId,
        suits: impl Fn(&BearerId) -> bool,
    ) -> Result<BearerId, (String, bool)> {
        if let Some(net) = self.nets.aldis_to(peer).map(|net| &net.plan).filter(|net| suits(&net.id)) {
            if self.asks_protection(message) && !net.protected {
                return Err((format!("{} protects nothing", net.id), false));
            }
            let carried = if self.beyond.contains(&message) { Ok(()) } else { net.carries(level, payload_bytes) };
            return carried.map(|()| net.id.clone()).map_err(|why| (why, net.hold_excess));
        }
        let load = Load {
            peer,
            level,
            payload_bytes,
            missing_bytes: payload_bytes,
            queued_bytes: 0,
            protect: self.asks_protection(message),
            // An operator who let it go had the bound in sight.
            unbounded: self.beyond.contains(&message),
            id: None,
            only: self.only_over(message, peer),
            frozen_for: None,
        };
        let mut candidates = self.candidates(now, &self.gate, &load);
        candidates.retain(|c| suits(&c.bearer));
        if let Some(best) = first(&candidates) {
            return Ok(best.bearer.clone());
        }
        let may = |name: &BearerId| suits(name) && among(load.only, name);
        let refused = self.bearers_to(peer).filter(|(name, b)| may(name) && (b.plan.protected || !load.protect));
        let mut refused =
            refused.filter_map(|(_, b)| Some((b.plan.carries(level, payload_bytes).err()?, b.plan.hold_excess)));
        Err(refused.next().unwrap_or_else(|| (format!("no bearer to {peer} may carry it"), false)))
    }

    pub(super) fn asks_protection(&self, message: MessageId) -> bool {
        self.active.record(message).is_some_and(|r| r.envelope.require_tls && r.envelope.from.is_some())
    }

    /// The bearers that the routes of a message to a peer name; empty: any.
    pub(super) fn only_over(&self, message: MessageId, peer: &PeerName) -> &[BearerId] {
        self.active.record(message).map_or(&[], |record| self.only_for(record, peer))
    }

    /// The same of a record. Recipients with other bearers are another message's, since [`crate::queue::expand`] parted them.
    pub(super) fn only_for(&self, record: &MessageRecord, peer: &PeerName) -> &[BearerId] {
        let to_peer = |r: &Recipient| self.route_to(&r.address).filter(|route| route.hop == Hop::Peer(peer.clone()));
        let mut named = record.envelope.recipients.iter().filter_map(to_peer).map(|route| route.bearers.as_slice());
        named.find(|bearers| !bearers.is_empty()).unwrap_or(&[])
    }

    /// The bearers that may carry something, judged by the orders of `gate`.
    pub(super) fn candidates(&self, now: Now, gate: &Gate, load: &Load<'_>) -> Vec<Candidate> {
        let fits = |b: &Bearer| {
            (b.plan.protected || !load.protect)
                && (load.unbounded || b.plan.carries(load.level, load.payload_bytes).is_ok())
        };
        let fitting = self.bearers_to(load.peer).filter(|(name, b)| among(load.only, name) && fits(b));
        fitting.map(|(name, bearer)| self.candidate(now, gate, name, bearer, load)).collect()
    }

    pub(super) fn candidate(
        &self,
        now: Now,
        gate: &Gate,
        name: &BearerId,
        bearer: &Bearer,
        load: &Load<'_>,
    ) -> Candidate {
        let outlook = bearer.station.outlook(load.peer);
        let forecast = self.forecast(now, gate, name, bearer, load);
        let cost = match load.level >= Precedence::Immediate {
            true => 0.0,
            false => bearer.plan.cost.as_secs_f64() * load.missing_bytes as f64 / 1024.0,
        };
        let seconds = forecast.wait.map_or(0.0, |wait| wait.as_secs_f64()) + forecast.seconds + cost;
        let way = self.choices.ways.get(&(load.peer.clone(), name.clone()));
        let (class, why) = if forecast.opens.is_none() {
            (Class::Closed, format!("{name} is closed to {} by an order", load.level))
        } else if outlook.is_some_and(|o| o.broken) {
            (Class::Lost, format!("the modem of {name} does not work"))
        } else if way.is_some_and(|w| w.lost) {
            (Class::Lost, format!("{} does not answer on {name}", load.peer))
        } else if way.is_some_and(|w| now.at < w.open_from) {
            (Class::Lost, format!("{name} comes and goes"))
        } else if let Some(at) = forecast.opens.filter(|at| *at > now.wall) {
            (Class::Later, format!("{name} is closed to {} by an order until {}", load.level, at.rfc3339()))
        } else {
            (Class::Open, format!("{name} would take {seconds:.0} s"))
        };
        Candidate { bearer: name.clone(), class, seconds, forecast, why }
    }

    /// The lowest precedence that may go on a bearer now; `None`: none at all.
    pub(super) fn lowest_on(&self, now: Now, gate: &Gate, name: &BearerId) -> Option<Precedence> {
        let floor = self.minimize_in_force(now, name).map_or(Precedence::Deferred, |m| m.least);
        Some(floor.max(gate.carries_from(now, name)?))
    }

    /// Hands a frozen payload to its bearer, from where it was left before a restart, on whichever bearer.
    pub(super) fn put_on_air(&mut self, now: Now, record: &TransferRecord, send: Transfer) {
        if self.goes_mule(&record.hop) {
            return self.put_on_mule(now, record, send);
        }
        if let Some(name) = self.nets.aldis_to(&send.to).map(|net| net.plan.id.clone()) {
            return self.put_on_aldis(now, &name, record, send);
        }
        let names: Vec<BearerId> = self.bearers_to(&send.to).map(|(name, _)| name.clone()).collect();
        let mut from: Option<Headway> = None;
        for bearer in self.bearers.values_mut() {
            bearer.station.given_out(&send.id);
            if let Some(headway) = bearer.station.headway(&send.id) {
                from = Some(from.map_or_else(|| headway.clone(), |f| f.joined(headway.clone())));
            }
        }
        // A profile may have lost the bearer it was frozen for.
        let Some(main) = names.iter().find(|n| **n == record.bearer).or(names.first()) else { return };
        if let Some(bearer) = self.bearers.get_mut(main) {
            bearer.station.take_part(now.at, send, Role::Carry, &from.unwrap_or_default());
        }
        if let Some(known) = self.transfers.get_mut(&record.id) {
            known.bearer = main.clone();
        }
    }

    /// Looks at every transfer that another bearer could carry.
    pub(super) fn review(&mut self, now: Now) {
        let several: Vec<PeerName> =
            self.plan.peers.iter().map(|p| &p.name).filter(|p| self.bearers_to(p).count() > 1).cloned().collect();
        if several.is_empty() || self.renewal.is_some() {
            return;
        }
        several.iter().for_each(|peer| self.watch_ways(now, peer));
        let to_several =
            |t: &&TransferRecord| matches!(&t.hop, Hop::Peer(p) if several.contains(p)) && t.id.epoch == self.epoch;
        let open: Vec<TransferRecord> = self.transfers.values().filter(to_several).cloned().collect();
        open.iter().for_each(|transfer| self.review_one(now, transfer));
    }

    fn watch_ways(&mut self, now: Now, peer: &PeerName) {
        let seen: Vec<_> =
            self.bearers_to(peer).filter_map(|(name, b)| Some((name.clone(), b.station.outlook(peer)?))).collect();
        for (name, outlook) in seen {
            let fresh = Way { lost: false, losses: 0, back: now.at, open_from: now.at };
            let way = self.choices.ways.entry((peer.clone(), name)).or_insert(fresh);
            if !way.lost && (outlook.broken || outlook.unanswered >= LEFT_AFTER) {
                way.losses = if now.at.since(way.back) > STEADY { 1 } else { way.losses + 1 };
                way.lost = true;
            } else if way.lost && !outlook.broken && outlook.unanswered == 0 {
                let wait = match way.losses {
                    0 | 1 => Duration::ZERO,
                    n => PATIENCE.saturating_mul(1 << (n - 2).min(5)).min(MOST_PATIENCE),
                };
                (way.lost, way.back, way.open_from) = (false, now.at, now.at + wait);
            }
        }
    }

    fn review_one(&mut self, now: Now, record: &TransferRecord) {
        let Hop::Peer(peer) = &record.hop else { return };
        let id = &record.id;
        let here: Vec<(BearerId, Role)> =
            self.bearers_to(peer).filter_map(|(n, b)| Some((n.clone(), b.station.role(id)?))).collect();
        // Not yet read again after a restart, waiting for its short id, or ended.
        let Some(transfer) = here.iter().find_map(|(n, _)| self.bearers.get(n)?.station.transfer(id)).cloned() else {
            return;
        };
        // MINIMIZE holds nothing that is frozen, but another bearer may be free of it.
        let load = Load { frozen_for: None, ..self.load_of(record, peer, transfer.precedence) };
        let level = load.level;
        let mut candidates = self.candidates(now, &self.gate, &load);
        if candidates.iter().all(|c| c.bearer != record.bearer) {
            // Its bounds have changed since; it was frozen for this one.
            let own = self.bearers.get(&record.bearer);
            candidates.extend(own.map(|b| self.candidate(now, &self.gate, &record.bearer, b, &load)));
        }
        let (Some(best), Some(present)) =
            (first(&candidates).cloned(), candidates.iter().find(|c| c.bearer == record.bearer).cloned())
        else {
            return;
        };
        let rested = self.choices.moved.get(id).is_none_or(|at| *at + DWELL <= now.at);
        let main = if best.overtakes(&present, rested) { &best } else { &present };
        if main.bearer != present.bearer {
            let why =
                if best.class < present.class { present.why.clone() } else { format!("{}, {}", best.why, present.why) };
            self.moved(now, record, &main.bearer, why);
        }
        let doubts = self.bearers.get(&main.bearer).is_none_or(|b| b.station.doubts(id));
        let twice = self.plan.precedence.two_bearers.is_some_and(|from| level >= from) && !doubts;
        let carries = |c: &&Candidate| here.iter().any(|(n, role)| *n == c.bearer && *role == Role::Carry);
        let others = || candidates.iter().filter(|c| c.class == Class::Open && c.bearer != main.bearer && twice);
        let second = others().find(carries).or_else(|| others().min_by(|a, b| a.seconds.total_cmp(&b.seconds)));
        let from = self.joined_headway(&transfer);
        for c in &candidates {
            let asks = c.class == Class::Lost && (main.class == Class::Lost || c.clearly_before(main));
            let want = match () {
                () if c.bearer == main.bearer || second.is_some_and(|s| s.bearer == c.bearer) => Role::Carry,
                () if asks => Role::Ask,
                () => Role::Rest,
            };
            let have = here.iter().find(|(n, _)| *n == c.bearer).map(|(_, role)| *role);
            if have == Some(want) || have.is_none() && want == Role::Rest {
                continue;
            }
            // Whichever of two comes to it later begins elsewhere; the one that goes on may be the lesser now.
            let joins = |other: &&&Candidate| {
                other.bearer != c.bearer && (c.bearer != main.bearer || carries(other)) && want == Role::Carry
            };
            let beside = [Some(main), second].iter().flatten().find(joins).map(|other| &other.bearer);
            self.assign(now, &transfer, &from, &c.bearer, want, beside);
        }
    }

    /// How far a transfer has come on all bearers together.
    fn joined_headway(&self, transfer: &Transfer) -> Headway {
        let mut from: Option<Headway> = None;
        for (_, bearer) in self.bearers_to(&transfer.to) {
            let Some(mut headway) = bearer.station.headway(&transfer.id) else { continue };
            // What a station that only listens is unsure of is nothing that left.
            headway.sure |= bearer.station.role(&transfer.id).is_some_and(|r| r != Role::Carry);
            from = Some(match from {
                Some(other) => other.joined(headway),
                None => headway,
            });
        }
        from.unwrap_or_default()
    }

    /// Gives a station its part in a transfer, all of it or `beside` another bearer.
    fn assign(
        &mut self,
        now: Now,
        transfer: &Transfer,
        from: &Headway,
        name: &BearerId,
        role: Role,
        beside: Option<&BearerId>,
    ) {
        let (id, mut from) = (&transfer.id, from.clone());
        if let Some(main) = beside {
            // Different symbols on each: half of all there are lies between the two.
            from.row += Geometry::of_payload(transfer.payload.len(), transfer.cut).map_or(0, |g| g.rows() / 2);
            let agrees = self.bearers.get(name).and_then(|b| b.station.outlook(&transfer.to)).is_some_and(|o| o.agrees);
            (from.sent, from.sure) = (true, agrees);
            if let Some(bearer) = self.bearers.get_mut(main) {
                bearer.station.carried_elsewhere(id);
            }
        }
        if let Some(bearer) = self.bearers.get_mut(name) {
            bearer.station.take_part(now.at, transfer.clone(), role, &from);
        }
    }

    fn moved(&mut self, now: Now, record: &TransferRecord, to: &BearerId, why: String) {
        let from = record.bearer.clone();
        if let Some(known) = self.transfers.get_mut(&record.id) {
            known.bearer = to.clone();
        }
        self.choices.moved.insert(record.id.clone(), now.at);
        let line = TrackEntry {
            at: now.wall,
            event: "moved".into(),
            recipient: None,
            bearer: Some(to.to_string()),
            bytes_on_air: 0,
            air_s: 0.0,
            detail: Some(format!("from {from}: {why}")),
        };
        let batch = Batch { conditions: Vec::new(), changes: vec![Change::Track(record.message, line)] };
        self.commit(batch, Pending::Aside);
        self.event(Event::TransferMoved { message: record.message, from, to: to.clone(), why });
    }

    /// A transfer has come to its end on one bearer: the others let go of it, and say nothing. What it cost there.
    pub(super) fn ended_elsewhere(&mut self, now: Now, name: &BearerId, id: &TransferId) -> (u64, Duration) {
        let (mut bytes, mut air) = (0, Duration::ZERO);
        for (_, bearer) in self.bearers.iter_mut().filter(|(n, _)| *n != name) {
            let (b, a) = bearer.station.spent(id);
            (bytes, air) = (bytes + b, air + a);
            bearer.station.withdraw(now.at, id);
        }
        (bytes, air)
    }

    /// Forgets what was remembered of a transfer.
    pub(super) fn choice_over(&mut self, id: &TransferId) {
        self.choices.moved.remove(id);
    }

    /// When a choice may turn out otherwise without anything else happening.
    pub(super) fn next_choice(&self, now: Instant) -> Option<Instant> {
        let open = self.choices.ways.values().map(|w| w.open_from);
        let moved = self.choices.moved.values().map(|at| *at + DWELL);
        open.chain(moved).filter(|at| *at > now).min()
    }

    /// For operators: which bearer mail to each peer takes where there is a choice, and why.
    pub(super) fn paths(&self, now: Now) -> Vec<PathStatus> {
        let shown = |peer: &PeerName| {
            let load = Load {
                peer,
                level: Precedence::Routine,
                payload_bytes: 0,
                missing_bytes: TYPICAL_BYTES,
                queued_bytes: 0,
                protect: false,
                unbounded: false,
                id: None,
                only: &[],
                frozen_for: None,
            };
            let candidates = self.candidates(now, &self.gate, &load);
            let best = first(&candidates)?;
            let whys: Vec<&str> = candidates.iter().map(|c| c.why.as_str()).collect();
            Some(PathStatus { peer: peer.to_string(), bearer: best.bearer.to_string(), why: whys.join("; ") })
        };
        let several = self.plan.peers.iter().map(|p| &p.name).filter(|p| self.bearers_to(p).count() > 1);
        several.filter_map(shown).collect()
    }
}

/// The one to take for what is on none yet: the best that is open, unless one that opens later brings it across in half the time.
pub(super) fn first(candidates: &[Candidate]) -> Option<&Candidate> {
    let best = |later: bool| {
        let of_class = candidates.iter().filter(|c| later == (c.class == Class::Later));
        of_class.min_by(|a, b| a.class.cmp(&b.class).then(a.seconds.total_cmp(&b.seconds)))
    };
    match (best(false), best(true)) {
        (Some(now), Some(later)) if now.class == Class::Open && !later.clearly_before(now) => Some(now),
        (now, later) => later.or(now),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config;
    use crate::emcon::{Order, State, Window};
    use crate::mail::{Cut, Hop, Reliance};
    use crate::queue::Opened;
    use crate::switch::air::link_key;
    use crate::switch::{Minimize, Switch};
    use crate::time::Wall;

    /// One profile and nothing else.
    struct OneFile(String);

    impl config::Files for OneFile {
        fn read(&self, path: &Path) -> std::io::Result<config::File> {
            match path == Path::new("/p.toml") {
                true => Ok(config::File { bytes: self.0.clone().into_bytes(), mode: 0o600 }),
                false => Err(std::io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn at(seconds: i64) -> Now {
        let at = Instant::from_millis(u64::try_from(seconds).expect("after the start") * 1000);
        Now { at, wall: Wall::from_seconds(seconds), set: true }
    }

    /// A ship that reaches the shore on HF at 2400 bit/s and over a satellite at 9600 bit/s, with more lines for either table. What the
    /// satellite link remembers: so many of 380 cells lost.
    fn ship(hf: &str, satcom: &str, lost: u32) -> Switch {
        let bearer = |name: &str, rate: u32, more: &str| {
            format!(
                "[[bearer]]\nname = \"{name}\"\nnet = \"{name}\"\ndevice = \"{name}.tty\"\nkeying = {{ socket = \"{name}.key\" }}\n\
                 modem = \"simulated\"\nrate = \"{rate}bps\"\ninterleaver = \"S\"\nstation = 0\npeers = [\"shore\"]\n\
                 emcon = \"open\"\n{more}\n"
            )
        };
        let text = format!(
            "[node]\nname = \"ship\"\nclock = \"trusted\"\n[[route]]\nmatch = \"*\"\nto = \"peer:shore\"\n\
             [precedence]\ntwo_bearers = \"flash\"\n\
             [[peer]]\nname = \"shore\"\nstation = 1\nprotection = \"aead\"\nkeys = [{{ id = 0, hex = \"{}\" }}]\n{}{}",
            "5a6b7c8d".repeat(8),
            bearer("hf", 2400, hf),
            bearer("satcom", 9600, satcom)
        );
        let plan = config::load(Path::new("/p.toml"), &[], &OneFile(text)).unwrap_or_else(|p| panic!("{p:#?}")).plan;
        // As a station stores what it knows of a peer: epochs, counters and the losses.
        let record = (3_u32, 0_u32, 0_u32, 0_u64, Vec::<u32>::new(), 7_u32, 380_u32, lost);
        let record = postcard::to_stdvec(&record).expect("plain numbers");
        let links = vec![(link_key(&"satcom".into(), &[b'p', 1]), record)];
        let opened = Opened { epoch: 7, fresh: true, next_message: 1, next_body: 1, links, ..Opened::default() };
        Switch::new(at(0), Arc::new(plan), opened, Vec::new(), 1)
    }

    fn load(peer: &PeerName, level: Precedence, bytes: u64) -> Load<'_> {
        Load {
            peer,
            level,
            payload_bytes: bytes,
            missing_bytes: bytes,
            queued_bytes: 0,
            protect: false,
            unbounded: false,
            id: None,
            only: &[],
            frozen_for: None,
        }
    }

    fn chosen(switch: &Switch, load: &Load<'_>) -> Option<(String, Class)> {
        let candidates = switch.candidates(at(0), &switch.gate, load);
        first(&candidates).map(|c| (c.bearer.to_string(), c.class))
    }

    fn order(switch: &mut Switch, bearer: &str, state: State) {
        let (reason, author) = ("test".into(), "test".into());
        let order = Order { state, since: Wall(0), from: None, until: None, base: None, reason, author };
        switch.gate.set(&bearer.into(), Some(order));
    }

    fn minimize(switch: &mut Switch, bearer: &str, least: Precedence) {
        let (from, until) = (Wall(0), None);
        switch
            .minimize
            .insert(bearer.into(), Minimize { least, from, until, reason: "test".into(), author: "test".into() });
    }

    #[test]
    fn the_bearer_that_has_it_across_first_is_taken_whatever_makes_it_so() {
        use Precedence::{Flash, Immediate, Routine};
        let carry = "[bearer.carry]\nroutine = { payload = \"4KiB\" }";
        let silent = |s: &mut Switch| order(s, "satcom", State::Silent);
        let restricted = |s: &mut Switch| order(s, "satcom", State::Restricted(Immediate));
        let ack_only = |s: &mut Switch| order(s, "satcom", State::AckOnly);
        let minimized = |s: &mut Switch| minimize(s, "satcom", Immediate);
        let nothing = |_: &mut Switch| {};
        type Turn<'a> = &'a dyn Fn(&mut Switch);
        let cases: [(&str, &str, u32, Turn<'_>, Precedence, u64, &str); 14] = [
            ("the faster one", "", 0, &nothing, Routine, 10_000, "satcom"),
            ("one that costs more than it saves", "cost = \"20s\"", 0, &nothing, Routine, 10_000, "hf"),
            ("cost is nothing to IMMEDIATE", "cost = \"20s\"", 0, &nothing, Immediate, 10_000, "satcom"),
            ("a loss that is worth it", "", 190, &nothing, Routine, 10_000, "satcom"),
            ("a loss that is not", "", 360, &nothing, Routine, 10_000, "hf"),
            ("within its bounds (D5)", carry, 0, &nothing, Routine, 4096, "satcom"),
            ("beyond its bounds (D5)", carry, 0, &nothing, Routine, 4097, "hf"),
            ("bounds of another level (D5)", carry, 0, &nothing, Immediate, 4097, "satcom"),
            ("silence", "", 0, &silent, Flash, 1000, "hf"),
            ("an order above its level", "", 0, &restricted, Routine, 1000, "hf"),
            ("an order at its level", "", 0, &restricted, Immediate, 1000, "satcom"),
            ("acknowledgements only", "", 0, &ack_only, Flash, 1000, "hf"),
            ("MINIMIZE above its level", "", 0, &minimized, Routine, 1000, "hf"),
            ("MINIMIZE at its level", "", 0, &minimized, Immediate, 1000, "satcom"),
        ];
        for (what, satcom, lost, turn, level, bytes, wanted) in cases {
            let mut switch = ship("", satcom, lost);
            turn(&mut switch);
            let shore = PeerName::from("shore");
            assert_eq!(chosen(&switch, &load(&shore, level, bytes)), Some((wanted.to_owned(), Class::Open)), "{what}");
        }
    }

    #[test]
    fn c4_mail_that_asks_for_protection_takes_only_a_protected_bearer() {
        let shore = PeerName::from("shore");
        let protected = Load { protect: true, ..load(&shore, Precedence::Flash, 1000) };
        assert_eq!(chosen(&ship("protected = true", "", 0), &protected), Some(("hf".to_owned(), Class::Open)));
        assert_eq!(chosen(&ship("", "", 0), &protected), None);
        // Nor does silence on the one make the other any safer.
        let mut switch = ship("protected = true", "", 0);
        order(&mut switch, "hf", State::Silent);
        assert_eq!(chosen(&switch, &protected), Some(("hf".to_owned(), Class::Closed)));
    }

    #[test]
    fn an_opening_that_is_near_is_waited_for_and_one_that_is_far_is_not() {
        let shore = PeerName::from("shore");
        let bytes = 60_000;
        for (opens, wanted) in [(20, ("satcom", Class::Later)), (200, ("hf", Class::Open))] {
            let mut switch = ship("", "", 0);
            let window = Window { from: Wall::from_seconds(opens), until: Wall::from_seconds(opens + 3600) };
            order(&mut switch, "satcom", State::Window(vec![window]));
            let (bearer, class) = chosen(&switch, &load(&shore, Precedence::Routine, bytes)).expect("one");
            assert_eq!((bearer.as_str(), class), wanted, "in {opens} s");
        }
    }

    #[test]
    fn time_in_which_an_order_forbids_it_is_no_time_on_the_way() {
        let shore = PeerName::from("shore");
        let mut switch = ship("", "", 0);
        let alone = switch.candidates(at(0), &switch.gate, &load(&shore, Precedence::Routine, 30_000));
        let needs = alone.iter().find(|c| &*c.bearer.0 == "hf").expect("hf").seconds;
        assert!((100.0..140.0).contains(&needs), "{needs}");
        // A minute now, a second that is of no use, an hour later.
        let windows = [(0, 60), (600, 601), (1000, 4600)];
        let windows =
            windows.map(|(from, until)| Window { from: Wall::from_seconds(from), until: Wall::from_seconds(until) });
        order(&mut switch, "hf", State::Window(windows.to_vec()));
        let split = switch.candidates(at(0), &switch.gate, &load(&shore, Precedence::Routine, 30_000));
        let hf = split.iter().find(|c| &*c.bearer.0 == "hf").expect("hf");
        assert!((hf.seconds - (needs + 940.0)).abs() < 1.0, "{} against {needs}", hf.seconds);
        assert_eq!(hf.forecast.opens, Some(Wall(0)));
        // Beyond the last window nobody knows.
        let long = switch.candidates(at(0), &switch.gate, &load(&shore, Precedence::Routine, 4_000_000));
        assert!(long.iter().all(|c| &*c.bearer.0 != "hf" || c.forecast.wait.is_none()));
    }

    #[test]
    fn a_transfer_moves_at_once_from_what_is_shut_and_between_open_ones_only_for_half_the_time() {
        let of = |class, seconds| Candidate {
            bearer: "b".into(),
            class,
            seconds,
            forecast: Forecast { opens: None, wait: None, seconds, emission: seconds, ahead: 0 },
            why: String::new(),
        };
        use Class::{Closed, Later, Lost, Open};
        for (new, old, rested, moves) in [
            ((Open, 49.0), (Open, 100.0), true, true),
            ((Open, 51.0), (Open, 100.0), true, false),
            ((Open, 1.0), (Open, 100.0), false, false),
            ((Open, 100.0), (Lost, 1.0), false, true),
            ((Open, 100.0), (Closed, 1.0), false, true),
            ((Open, 100.0), (Later, 60.0), false, true),
            ((Open, 100.0), (Later, 40.0), true, false),
            ((Later, 40.0), (Open, 100.0), true, true),
            ((Later, 60.0), (Open, 100.0), true, false),
            ((Later, 100.0), (Lost, 1.0), false, true),
            ((Lost, 1.0), (Open, 100.0), true, false),
            ((Lost, 1.0), (Closed, 100.0), false, true),
        ] {
            let (to, from) = (of(new.0, new.1), of(old.0, old.1));
            assert_eq!(to.overtakes(&from, rested), moves, "{new:?} from {old:?}");
        }
    }

    #[test]
    fn a_route_that_names_bearers_keeps_mail_on_them() {
        let route = "[[route]]\nmatch = \"med@shore.example\"\nto = \"peer:shore\"\nbearers = [\"hf\"]\n";
        let switch = ship("", route, 0);
        let shore: PeerName = "shore".into();
        let named = |address: &str| {
            let route = switch.route_to(&crate::mail::Mailbox::new(address)).expect("a route");
            route.bearers.clone()
        };
        let only = named("Med+x@shore.example");
        assert_eq!((only.as_slice(), named("a@shore.example").as_slice()), (["hf".into()].as_slice(), [].as_slice()));
        let free = load(&shore, Precedence::Routine, 10_000);
        assert_eq!(chosen(&switch, &free), Some(("satcom".into(), Class::Open)));
        assert_eq!(chosen(&switch, &Load { only: &only, ..free }), Some(("hf".into(), Class::Open)));
        assert!(switch.over_air(at(0), &shore, &only, Precedence::Routine, None).is_none());
    }

    /// Puts a transfer on the air as after its freezing, and looks which bearers carry it.
    fn carriers(switch: &mut Switch, level: Precedence) -> Vec<String> {
        let id = TransferId { origin: "ship".into(), epoch: 7, counter: 1 };
        let record = TransferRecord {
            id: id.clone(),
            bearer: "satcom".into(),
            message: MessageId(1),
            recipients: vec![0],
            hop: Hop::Peer("shore".into()),
            payload: crate::mail::BodyRef(1),
            payload_bytes: 3000,
            precedence: level,
            lead: None,
            cut: Cut::Narrow,
            reliance: Reliance::Nothing,
        };
        let payload: Arc<[u8]> = vec![1; 3000].into();
        let send =
            Transfer { id: id.clone(), to: "shore".into(), precedence: level, payload, cut: Cut::Narrow, lead: None };
        for bearer in switch.bearers.values_mut() {
            bearer.station.handle_modem(at(0).at, crate::bearer::ModemEvent::Ready);
        }
        switch.transfers.insert(id.clone(), record.clone());
        switch.put_on_air(at(0), &record, send);
        switch.review(at(0));
        let carries =
            |(name, b): (&BearerId, &Bearer)| (b.station.role(&id) == Some(Role::Carry)).then(|| name.to_string());
        switch.bearers.iter().filter_map(carries).collect()
    }

    #[test]
    fn flash_goes_on_two_bearers_and_what_is_below_on_one() {
        assert_eq!(carriers(&mut ship("", "", 0), Precedence::Flash), ["hf", "satcom"]);
        assert_eq!(carriers(&mut ship("", "", 0), Precedence::Immediate), ["satcom"]);
        let mut switch = ship("", "", 0);
        order(&mut switch, "hf", State::Silent);
        assert_eq!(carriers(&mut switch, Precedence::Flash), ["satcom"]);
    }

    #[test]
    fn minimize_on_one_bearer_sends_what_is_frozen_for_it_over_the_other() {
        let mut switch = ship("", "", 0);
        minimize(&mut switch, "satcom", Precedence::Flash);
        assert_eq!(carriers(&mut switch, Precedence::Routine), ["hf"]);
        // On both: it was taken before, and is still carried.
        let mut switch = ship("", "", 0);
        ["hf", "satcom"].into_iter().for_each(|b| minimize(&mut switch, b, Precedence::Flash));
        assert_eq!(carriers(&mut switch, Precedence::Routine), ["satcom"]);
    }
}
