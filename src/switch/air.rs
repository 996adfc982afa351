//! The bearers under the gate: every emission passes [`Switch::pump_air`], every order [`Switch::order`].

use std::collections::BTreeMap;

use crate::bearer::serial::{LinkState, Station};
use crate::bearer::{self, ModemAction, ModemEvent, Verdict};
use crate::config::plan::BearerPlan;
use crate::emcon::{Gate, Order, Purpose, State, tightens};
use crate::mail::{BearerId, Precedence, TransferId};
use crate::ops::Event;
use crate::queue::{Batch, Change, CommitError, StoreCall};
use crate::time::{Duration, Instant, Now, Wall};

use super::{Output, Pending, RequestId, Switch, Work};

/// One bearer with its core and its account.
#[derive(Debug)]
pub(super) struct Bearer {
    pub(super) plan: BearerPlan,
    pub(super) station: Station,
    pub(super) account: Account,
    /// The states that stood together when they were last looked at.
    pub(super) standing: Vec<State>,
    /// The transmitter is keyed, as far as the core knows.
    pub(super) keyed_at: Option<Instant>,
    /// When the carrier is off for certain that was aborted last: a modem that cannot abort sends what it holds.
    pub(super) off_by: Option<Instant>,
    /// Last refusal told as an event, so that one silence is one line and not thousands.
    pub(super) silence_told: bool,
}

/// What a bearer has emitted since the node started.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Account {
    pub(super) air: Duration,
    pub(super) bytes: u64,
    pub(super) transmissions: u64,
}

/// Setting that holds a bearer's order.
pub(super) fn order_key(bearer: &BearerId) -> String {
    format!("emcon/{bearer}")
}

impl Switch {
    /// Lets every bearer put on the air what it wants and the gate allows, and collects what it has to say.
    pub(super) fn pump_air(&mut self, now: Now) {
        let names: Vec<BearerId> = self.bearers.keys().cloned().collect();
        for name in names {
            // Events may make new wants (a report after a commit), emissions may make new events: until quiet.
            loop {
                let emitted = self.pump_emissions(now, &name);
                let told = self.pump_events(now, &name);
                if !emitted && !told {
                    break;
                }
            }
        }
    }

    fn pump_emissions(&mut self, now: Now, name: &BearerId) -> bool {
        let mut moved = false;
        let mut told = None;
        let Some(bearer) = self.bearers.get_mut(name) else { return false };
        while let Some(action) = bearer.station.poll_action() {
            self.outputs.push_back(Output::Act { bearer: name.clone(), action });
            moved = true;
        }
        while let Some(want) = bearer.station.want(now.at) {
            // What the modem must know before it keys.
            while let Some(action) = bearer.station.poll_action() {
                self.outputs.push_back(Output::Act { bearer: name.clone(), action });
            }
            match self.gate.permit(now, name, want.purpose, want.airtime) {
                Ok(permit) => {
                    let Some(emission) = bearer.station.poll_emission(now.at, permit) else { break };
                    bearer.silence_told = false;
                    self.outputs.push_back(Output::Emit(emission));
                    moved = true;
                }
                Err(silence) => {
                    bearer.station.silenced(now.at, silence);
                    if !bearer.silence_told {
                        bearer.silence_told = true;
                        let purpose = want.purpose;
                        let (purpose, why) = (purpose_name(purpose).to_owned(), silence.name().to_owned());
                        told = Some(Event::EmissionSuppressed { bearer: name.clone(), purpose, why });
                    }
                    break;
                }
            }
        }
        while let Some(action) = bearer.station.poll_action() {
            self.outputs.push_back(Output::Act { bearer: name.clone(), action });
            moved = true;
        }
        if let Some(event) = told {
            self.event(event);
        }
        moved
    }

    fn pump_events(&mut self, now: Now, name: &BearerId) -> bool {
        let mut moved = false;
        while let Some(event) = self.bearers.get_mut(name).and_then(|b| b.station.poll_event()) {
            moved = true;
            self.bearer_event(now, name, event);
        }
        moved
    }

    pub(super) fn bearer_event(&mut self, now: Now, name: &BearerId, event: bearer::Event) {
        match event {
            bearer::Event::Persist { ticket, puts } => {
                let changes = puts.into_iter().map(|(key, value)| Change::Link(link_key(name, &key), value)).collect();
                let batch = Batch { conditions: Vec::new(), changes };
                self.work(Work::Store(StoreCall::Commit(batch)), Pending::LinkStored { bearer: name.clone(), ticket });
            }
            bearer::Event::Job { ticket, job } => {
                self.work(Work::Job(job), Pending::LinkJob { bearer: name.clone(), ticket });
            }
            bearer::Event::Whole { ticket, from, id, payload } => {
                self.payload_whole(now, name, ticket, from, id, payload);
            }
            bearer::Event::Progress { id, have, need, bytes_on_air, air } => {
                let air_s = air.as_secs_f64();
                let Some(message) = self.transfers.get(&id).map(|t| t.message) else { return };
                self.event(Event::TransferProgress { message, bearer: name.clone(), have, need, bytes_on_air, air_s });
            }
            bearer::Event::SentBlind { id, window, of, repeated, bytes_on_air, air } => {
                self.sent_blind(now, name, &id, window, of, repeated, bytes_on_air, air);
            }
            bearer::Event::Confirmed { id, bytes_on_air, air } => {
                let (bytes, elsewhere) = self.ended_elsewhere(now, name, &id);
                self.transfer_confirmed(now, name, &id, bytes_on_air + bytes, air + elsewhere);
            }
            bearer::Event::Refused { id, reason } => {
                self.ended_elsewhere(now, name, &id);
                self.transfer_refused(now, &id, reason);
            }
            bearer::Event::Lacks { id, epoch, lack } => {
                self.others(name).for_each(|bearer| bearer.station.learn(&id, epoch, &lack));
            }
            bearer::Event::Shared(share) => {
                self.others(name).for_each(|bearer| bearer.station.adopt(now.at, share.clone()));
            }
            bearer::Event::Keyed { at, precedence, transfers } => self.keyed(now, name, at, precedence, &transfers),
            bearer::Event::Unkeyed { air, bytes, fill } => {
                if let Some(bearer) = self.bearers.get_mut(name) {
                    bearer.keyed_at = None;
                    bearer.account.air += air;
                    bearer.account.bytes += bytes;
                    bearer.account.transmissions += 1;
                    let air_s = air.as_secs_f64();
                    self.event(Event::KeyUp { bearer: name.clone(), air_s, bytes, fill_bytes: fill });
                }
            }
            bearer::Event::Alarm(text) => {
                self.event(Event::BearerAlarm { bearer: name.clone(), text });
            }
            bearer::Event::EpochUsed { peer } => self.epoch_used(now, &peer),
        }
    }

    fn keyed(&mut self, now: Now, name: &BearerId, at: Instant, precedence: Precedence, transfers: &[TransferId]) {
        if let Some(bearer) = self.bearers.get_mut(name) {
            bearer.keyed_at = Some(at);
        }
        for id in transfers {
            self.keyed_transfers.insert(id.clone());
        }
        let messages: Vec<_> = transfers.iter().filter_map(|id| self.transfers.get(id)).map(|t| t.message).collect();
        for message in &messages {
            self.track(now, *message, "keyed", None, Some(name), None);
        }
        self.event(Event::KeyDown { bearer: name.clone(), precedence, messages });
    }

    pub(super) fn modem(&mut self, now: Now, name: &BearerId, event: ModemEvent) {
        if let ModemEvent::Fault(why) = &event {
            self.event(Event::BearerAlarm { bearer: name.clone(), text: why.clone() });
        }
        if let Some(bearer) = self.bearers.get_mut(name) {
            bearer.station.handle_modem(now.at, event);
        }
    }

    fn others(&mut self, name: &BearerId) -> impl Iterator<Item = &mut Bearer> {
        self.bearers.iter_mut().filter(move |(n, _)| *n != name).map(|(_, bearer)| bearer)
    }

    /// After a start: what each station had committed, the others hold too.
    pub(super) fn share_held(&mut self, now: Now) {
        let held: Vec<_> = self.bearers.iter().map(|(name, b)| (name.clone(), b.station.held())).collect();
        for (name, shares) in held {
            for share in shares {
                self.others(&name).for_each(|bearer| bearer.station.adopt(now.at, share.clone()));
            }
        }
    }

    /// Answers the stations whose payload was opened, accepted, or could not be.
    pub(super) fn settle(&mut self, now: Now, name: &BearerId, ticket: u64, verdict: Verdict) {
        let asked = |waiting: &Vec<(BearerId, u64)>| waiting.first().is_some_and(|(n, t)| n == name && *t == ticket);
        let id = self.judging.iter().find(|(_, waiting)| asked(waiting)).map(|(id, _)| id.clone());
        let waiting = id.and_then(|id| self.judging.remove(&id)).unwrap_or_else(|| vec![(name.clone(), ticket)]);
        for (name, ticket) in waiting {
            if let Some(bearer) = self.bearers.get_mut(&name) {
                bearer.station.settled(now.at, ticket, verdict);
            } else if let Some(station) = self.nets.station_mut(&name) {
                station.settled(now.at, ticket, verdict);
            }
        }
    }

    /// What a station wanted to have committed is, or could not be.
    pub(super) fn link_stored(&mut self, now: Now, name: &BearerId, ticket: u64, ok: bool) {
        if let Some(bearer) = self.bearers.get_mut(name) {
            bearer.station.stored(now.at, ticket, ok);
        } else if let Some(station) = self.nets.station_mut(name) {
            station.stored(now.at, ticket, ok);
        }
    }

    /// What a station wanted to have worked out is.
    pub(super) fn link_job_done(&mut self, now: Now, name: &BearerId, ticket: u64, done: bearer::JobDone) {
        if let Some(bearer) = self.bearers.get_mut(name) {
            bearer.station.job_done(now.at, ticket, done);
        } else if let Some(station) = self.nets.station_mut(name) {
            station.job_done(now.at, ticket, done);
        }
    }

    /// An operator's order. Tighten: gate, abort, persist, report. Loosen: persist, then gate.
    pub(super) fn order(&mut self, now: Now, name: &BearerId, order: Order, reply: Option<RequestId>) {
        let after: Vec<State> = order.standing(civil(now)).into_iter().cloned().collect();
        let tightened = tightens(&self.gate.standing(now, name), &after);
        // A second order finds nothing keyed while the modem still sends what it held at the first.
        let mut carrier_off = self.aborted_off_after(now, name);
        if tightened {
            // Until it is durable, nothing radiates that either of the two forbids.
            let both = order.clone().with(self.gate.order(name));
            self.gate.set(name, Some(both));
            self.stand(now, name);
            self.silence(now, name);
            carrier_off = self.carrier_off_after(now, name);
        }
        let value = serde_json::to_vec(&order).ok();
        let batch = Batch { conditions: Vec::new(), changes: vec![Change::Setting(order_key(name), value)] };
        #[cfg(feature = "mutations")]
        let batch = match crate::mutation::is(crate::mutation::Mutation::ForgetOrder) {
            true => Batch::default(),
            false => batch,
        };
        let pending = Pending::Order { bearer: name.clone(), order, tightened, reply, carrier_off };
        self.work(Work::Store(StoreCall::Commit(batch)), pending);
    }

    /// The station learns what the gate has in force. What stood before.
    fn stand(&mut self, now: Now, name: &BearerId) -> Vec<State> {
        if let Some(net) = self.nets.get_mut(name) {
            return std::mem::replace(&mut net.standing, self.gate.standing(now, name));
        }
        let Some(bearer) = self.bearers.get_mut(name) else { return Vec::new() };
        bearer.station.carry_from(self.gate.lowest(now, name));
        std::mem::replace(&mut bearer.standing, self.gate.standing(now, name))
    }

    /// The order is durable, or could not be made so: then the tighter of the two stays.
    pub(super) fn order_stored(
        &mut self,
        now: Now,
        name: &BearerId,
        order: Order,
        tightened: bool,
        stored: Result<(), CommitError>,
    ) -> Result<(), String> {
        stored.map_err(|e| match tightened {
            false => format!("{name} keeps its present order: {e}"),
            true => format!("{name} is {} now, but this could not be made durable: {e}", order.state),
        })?;
        self.gate.relax(name, order.clone());
        self.follow(now, name);
        let Order { state, reason, author, .. } = order;
        self.event(Event::SilenceOrdered { bearer: name.clone(), state: state.to_string(), reason, author });
        Ok(())
    }

    /// Brings the bearer into line with what stands now; true when that forbids or allows something it did not before.
    fn follow(&mut self, now: Now, name: &BearerId) -> bool {
        let before = self.stand(now, name);
        let standing = self.gate.standing(now, name);
        let (tightened, loosened) = (tightens(&before, &standing), tightens(&standing, &before));
        if tightened {
            self.gate.void(name);
            self.silence(now, name);
        }
        if let Some(bearer) = self.bearers.get_mut(name).filter(|_| loosened) {
            bearer.silence_told = false;
            bearer.station.resume_air(now.at);
        }
        if loosened {
            self.resume_multicast(name);
        }
        tightened || loosened
    }

    /// The orders in force, as they would be stored. Where a tightening order could not be, this says more than the store.
    pub fn orders_in_force(&self) -> Batch {
        let setting = |name: &BearerId| {
            let value = serde_json::to_vec(self.gate.order(name)?).ok()?;
            Some(Change::Setting(order_key(name), Some(value)))
        };
        Batch { conditions: Vec::new(), changes: self.gate.bearers().filter_map(setting).collect() }
    }

    /// Stops what runs on a bearer whose order was tightened.
    pub(super) fn silence(&mut self, now: Now, name: &BearerId) {
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::KeepKeyed) {
            return;
        }
        self.silence_multicast(name);
        let off_after = self.carrier_off_after(now, name);
        if let Some(bearer) = self.bearers.get_mut(name) {
            bearer.off_by = (off_after > Duration::ZERO).then(|| now.at + off_after);
            self.outputs.push_back(Output::Act { bearer: name.clone(), action: ModemAction::Abort });
            bearer.station.aborted(now.at);
        }
    }

    /// Seconds until the carrier is surely off after a tightening order (B2).
    pub(super) fn carrier_off_after(&self, now: Now, name: &BearerId) -> Duration {
        if let Some(off) = self.multicast_off_after(now, name) {
            return off;
        }
        let Some(bearer) = self.bearers.get(name) else { return Duration::ZERO };
        let aborted = self.aborted_off_after(now, name);
        if bearer.keyed_at.is_none() {
            return aborted;
        }
        let (modem, w) = (&bearer.plan.waveform, bearer.station.waveform());
        if modem.can_abort {
            return aborted.max(Duration::from_secs(1));
        }
        // Two blocks, unless the modem holds less.
        let held = w.rate.airtime(u64::from(modem.buffer_bytes)).min(w.block.max(Duration::from_secs(1)) * 2);
        let tail = Duration::from_secs_f64(f64::from(w.tail_bits) / f64::from(w.rate.0.max(1)));
        aborted.max(held + tail + w.block)
    }

    /// Seconds until what was aborted has surely left.
    fn aborted_off_after(&self, now: Now, name: &BearerId) -> Duration {
        self.bearers.get(name).and_then(|b| b.off_by).map_or(Duration::ZERO, |off| off.since(now.at))
    }

    /// Begins and ends what orders say about time: what runs when it is no longer allowed is aborted, and a window that opens is used.
    pub(super) fn follow_orders(&mut self, now: Now) {
        let names: Vec<BearerId> = self.gate.bearers().cloned().collect();
        for name in names {
            let changed = self.follow(now, &name);
            if let Some(order) = self.gate.order(&name).filter(|_| changed) {
                let Order { state, reason, author, .. } = order.shown(civil(now)).0.clone();
                self.event(Event::SilenceOrdered { bearer: name.clone(), state: state.to_string(), reason, author });
            }
            // A request that the modem holds back must not outlive its window either.
            let running = self.bearers.get(&name).is_some_and(|b| b.keyed_at.is_some() || b.station.is_keying());
            // Once it keys it radiates a preamble and a block: when that no longer fits, it is withdrawn.
            let held_back = self.bearers.get(&name).and_then(|b| b.station.held_back());
            let late = held_back.is_some_and(|(purpose, air)| self.gate.allows(now, &name, purpose, air).is_err());
            if running && (late || self.gate.must_stop(now, &name)) {
                self.silence(now, &name);
            }
            let purpose = Purpose::Traffic(Precedence::Override);
            let opened = self.gate.allows(now, &name, purpose, Duration::ZERO).is_ok();
            if opened {
                self.resume_multicast(&name);
            }
            if let Some(bearer) = self.bearers.get_mut(&name).filter(|b| opened && b.silence_told) {
                // A window has opened: what was refused before it may be asked for again.
                bearer.silence_told = false;
                bearer.station.resume_air(now.at);
            }
        }
    }

    /// The links of every bearer.
    pub fn links(&self) -> Vec<(BearerId, LinkState)> {
        let of = |(name, b): (&BearerId, &Bearer)| {
            b.station.links().into_iter().map(|l| (name.clone(), l)).collect::<Vec<_>>()
        };
        self.bearers.iter().flat_map(of).collect()
    }
}

/// The store's key of a station's key.
pub(super) fn link_key(bearer: &BearerId, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(bearer.0.len() + 1 + key.len());
    full.extend_from_slice(bearer.0.as_bytes());
    full.push(0);
    full.extend_from_slice(key);
    full
}

/// A stored key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// The order of a bearer that never radiates: nothing stored counts, and nothing is stored.
pub(super) fn only_receive(gate: &mut Gate, id: &BearerId, now: Now) {
    let (reason, author) = ("receive_only".into(), "profile".into());
    let order = Order { state: State::Silent, since: now.wall, from: None, until: None, base: None, reason, author };
    gate.add(id.clone(), Some(order));
}

/// Splits all stored bearer state by bearer.
pub(super) fn split_links(links: Vec<Pair>) -> BTreeMap<BearerId, Vec<Pair>> {
    let mut by_bearer: BTreeMap<BearerId, Vec<Pair>> = BTreeMap::new();
    for (key, value) in links {
        let Some(cut) = key.iter().position(|b| *b == 0) else { continue };
        let Ok(name) = core::str::from_utf8(&key[..cut]) else { continue };
        by_bearer.entry(BearerId::from(name)).or_default().push((key[cut + 1..].to_vec(), value));
    }
    by_bearer
}

/// Puts the order in force when the node starts (B4): what was persisted wins over any profile; unreadable is silent. Gives the
/// profile's order back when it is the first one ever, to be persisted.
pub(super) fn first_order(
    gate: &mut Gate,
    (id, emcon): (&BearerId, &State),
    stored: Option<&[u8]>,
    now: Now,
) -> Option<Order> {
    if let Some(bytes) = stored {
        gate.add(id.clone(), serde_json::from_slice(bytes).ok());
        return None;
    }
    let (state, since) = (emcon.clone(), now.wall);
    let (reason, author) = ("first start".into(), "profile".into());
    let order = Order { state, since, from: None, until: None, base: None, reason, author };
    gate.add(id.clone(), Some(order.clone()));
    Some(order)
}

/// Civil time, while it is known.
pub(super) fn civil(now: Now) -> Option<Wall> {
    now.set.then_some(now.wall)
}

pub(super) const fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Traffic(_) => "traffic",
        Purpose::Report(_) => "report",
        Purpose::Probe => "probe",
    }
}
