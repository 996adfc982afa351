//! The gate every emission passes: holds each bearer's order, hands out permits, counts what it refused.

use core::marker::PhantomData;
use std::collections::BTreeMap;

use super::permit::PERMIT_LIFE;
use super::{AirPermit, EpochWatch, Order, State};
use crate::mail::{BearerId, Precedence};
use crate::time::{Duration, Now};

/// What an emission is for; restricted and ack-only states tell these apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// Message symbols of this precedence (a transmission's highest).
    Traffic(Precedence),
    /// Reports and acknowledgements, for traffic of this precedence.
    Report(Precedence),
    /// Polls, soundings, hellos: anything that asks for an answer.
    Probe,
}

/// Why no permit was given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Silence {
    /// The order forbids it.
    Ordered,
    /// No readable order for this bearer: silent until an operator says otherwise (B4).
    Unknown,
    /// The order depends on civil time and the clock is not set (A7).
    ClockUnset,
    /// The emission would not end inside the window.
    WindowTooShort,
}

#[derive(Debug)]
struct Bearer {
    order: Option<Order>,
    watch: EpochWatch,
    suppressed: u64,
}

/// The gate. One per node; owned by the switch.
#[derive(Debug, Default)]
pub struct Gate {
    bearers: BTreeMap<BearerId, Bearer>,
}

impl Gate {
    /// A gate that knows no bearer and lets nothing through.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a bearer with its persisted order; `None` (absent, unreadable, corrupt) is silent.
    pub fn add(&mut self, bearer: BearerId, order: Option<Order>) {
        self.bearers.insert(bearer, Bearer { order, watch: EpochWatch::default(), suppressed: 0 });
    }

    /// The epoch a driver compares emissions with.
    pub fn watch(&self, bearer: &BearerId) -> Option<EpochWatch> {
        self.bearers.get(bearer).map(|b| b.watch.clone())
    }

    /// The order in force.
    pub fn order(&self, bearer: &BearerId) -> Option<&Order> {
        self.bearers.get(bearer)?.order.as_ref()
    }

    /// How many emissions were refused on this bearer.
    pub fn suppressed(&self, bearer: &BearerId) -> u64 {
        self.bearers.get(bearer).map_or(0, |b| b.suppressed)
    }

    /// The bearers, in name order.
    pub fn bearers(&self) -> impl Iterator<Item = &BearerId> {
        self.bearers.keys()
    }

    /// Puts a new order in force and voids every emission made under the old one.
    ///
    /// The caller keeps the order of things (style: tighten = set, abort, persist, report; loosen = persist, then set).
    pub fn set(&mut self, bearer: &BearerId, order: Option<Order>) {
        if let Some(b) = self.bearers.get_mut(bearer) {
            b.order = order;
            b.watch.advance();
        }
    }

    /// Whether something for `purpose` could be sent now, without counting a refusal: for planning and for what-if.
    pub fn allows(&self, now: Now, bearer: &BearerId, purpose: Purpose, airtime: Duration) -> Result<(), Silence> {
        let order = self.bearers.get(bearer).and_then(|b| b.order.as_ref()).ok_or(Silence::Unknown)?;
        if let Some(until) = order.until {
            if !now.set {
                return Err(Silence::ClockUnset);
            }
            if now.wall.plus(airtime) > until && order.state != State::Open || now.wall >= until {
                return Err(Silence::Ordered);
            }
        }
        match (&order.state, purpose) {
            (State::Open, _) => Ok(()),
            (State::Restricted(floor), Purpose::Traffic(p) | Purpose::Report(p)) if p >= *floor => Ok(()),
            (State::AckOnly, Purpose::Report(_)) => Ok(()),
            (State::Restricted(_) | State::AckOnly | State::Silent, _) => Err(Silence::Ordered),
            (State::Window(_), _) if !now.set => Err(Silence::ClockUnset),
            (State::Window(windows), _) => match windows.iter().find(|w| w.from <= now.wall && now.wall < w.until) {
                Some(w) if now.wall.plus(airtime) <= w.until => Ok(()),
                Some(_) => Err(Silence::WindowTooShort),
                None => Err(Silence::Ordered),
            },
        }
    }

    /// Leave for one feed of at most two blocks that will have left the antenna after `airtime`.
    pub fn permit(
        &mut self,
        now: Now,
        bearer: &BearerId,
        purpose: Purpose,
        airtime: Duration,
    ) -> Result<AirPermit<'_>, Silence> {
        if let Err(silence) = self.allows(now, bearer, purpose, airtime) {
            if let Some(b) = self.bearers.get_mut(bearer) {
                b.suppressed += 1;
            }
            return Err(silence);
        }
        let epoch = self.bearers.get(bearer).ok_or(Silence::Unknown)?.watch.current();
        Ok(AirPermit { bearer: bearer.clone(), until: now.at + PERMIT_LIFE, epoch, gate: PhantomData })
    }
}
