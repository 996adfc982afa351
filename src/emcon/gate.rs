//! The gate every emission passes: holds each bearer's order, hands out permits, counts what it refused.

use core::marker::PhantomData;
use std::collections::BTreeMap;

use super::permit::PERMIT_LIFE;
use super::{AirPermit, EpochWatch, Order, State, Window};
use crate::mail::{BearerId, Precedence};
use crate::time::{Duration, Now, Wall};

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

impl Silence {
    /// The reason as logs and JSON show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Unknown => "no-order",
            Self::ClockUnset => "clock-unset",
            Self::WindowTooShort => "window-too-short",
        }
    }
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

    /// Puts an order in force that forbids nothing the present one allows: what is under way goes on.
    pub fn relax(&mut self, bearer: &BearerId, order: Order) {
        if let Some(b) = self.bearers.get_mut(bearer) {
            b.order = Some(order);
        }
    }

    /// Voids every emission made so far; the order stays.
    pub fn void(&mut self, bearer: &BearerId) {
        if let Some(b) = self.bearers.get_mut(bearer) {
            b.watch.advance();
        }
    }

    /// Whether something for `purpose` could be sent now, without counting a refusal: for planning and for what-if.
    pub fn allows(&self, now: Now, bearer: &BearerId, purpose: Purpose, airtime: Duration) -> Result<(), Silence> {
        let order = self.bearers.get(bearer).and_then(|b| b.order.as_ref()).ok_or(Silence::Unknown)?;
        #[cfg(feature = "mutations")]
        if matches!(purpose, Purpose::Report(_)) && crate::mutation::is(crate::mutation::Mutation::KeyInSilence) {
            return Ok(());
        }
        #[cfg(feature = "mutations")]
        let (now, order) = (mutated::now(now), &mutated::order(order));
        if !now.set {
            return match order.standing(None).into_iter().all(|state| lets_through(state, purpose, None)) {
                true => Ok(()),
                false if lets_through(&order.state, purpose, None) => Err(Silence::ClockUnset),
                false if matches!(order.state, State::Window(_)) => Err(Silence::ClockUnset),
                false => Err(Silence::Ordered),
            };
        }
        let allowed =
            |at: Wall| order.standing(Some(at)).into_iter().all(|state| lets_through(state, purpose, Some(at)));
        if !allowed(now.wall) {
            return Err(Silence::Ordered);
        }
        // It must also be allowed when it ends, and whenever something changes on the way there.
        let end = now.wall.plus(airtime);
        let on_the_way = order.edges().into_iter().filter(|at| now.wall < *at && *at < end);
        let last = Wall(end.0.saturating_sub(1)).max(now.wall);
        if on_the_way.chain([last]).all(allowed) { Ok(()) } else { Err(Silence::WindowTooShort) }
    }

    /// The states that stand together on a bearer now; no order is silence.
    pub fn standing(&self, now: Now, bearer: &BearerId) -> Vec<State> {
        let at = now.set.then_some(now.wall);
        self.order(bearer)
            .map_or_else(|| vec![State::Silent], |order| order.standing(at).into_iter().cloned().collect())
    }

    /// The lowest precedence traffic may have on a bearer now, windows aside; `None` when there is no traffic at all.
    pub fn lowest(&self, now: Now, bearer: &BearerId) -> Option<Precedence> {
        let lowest = |state: State| match state {
            State::Open | State::Window(_) => Some(Precedence::Deferred),
            State::Restricted(floor) => Some(floor),
            State::AckOnly | State::Silent => None,
        };
        self.standing(now, bearer).into_iter().map(lowest).try_fold(Precedence::Deferred, |a, b| Some(a.max(b?)))
    }

    /// The lowest precedence of traffic that could begin on a bearer now; `None` when none could.
    pub fn carries_from(&self, now: Now, bearer: &BearerId) -> Option<Precedence> {
        let lowest = self.lowest(now, bearer)?;
        self.allows(now, bearer, Purpose::Traffic(Precedence::Override), Duration::ZERO).ok()?;
        Some(lowest)
    }

    /// The moments at which something about a bearer's order changes.
    pub fn edges(&self, bearer: &BearerId) -> Vec<Wall> {
        self.order(bearer).map(Order::edges).unwrap_or_default()
    }

    /// A gate with the orders of this one, for what-if: nothing looks at its epochs.
    pub fn supposed(&self) -> Self {
        let mut gate = Self::new();
        self.bearers.iter().for_each(|(name, b)| gate.add(name.clone(), b.order.clone()));
        gate
    }

    /// Whether a transmission now running must be broken off whatever it is for: silence stands, a window has closed, or the clock
    /// it depends on was lost.
    pub fn must_stop(&self, now: Now, bearer: &BearerId) -> bool {
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::OverrunWindow) {
            return self.standing(now, bearer).contains(&State::Silent);
        }
        #[cfg(feature = "mutations")]
        let now = mutated::now(now);
        self.standing(now, bearer).iter().any(|state| match state {
            State::Window(windows) => !now.set || !inside(windows, now.wall),
            State::Silent => true,
            State::Open | State::Restricted(_) | State::AckOnly => false,
        })
    }

    /// Whether what may be emitted on a bearer depends on civil time.
    pub fn tells_time(&self, bearer: &BearerId) -> bool {
        self.order(bearer).is_some_and(|order| !order.edges().is_empty())
    }

    /// When an order or a window next begins or ends on any bearer.
    pub fn next_change(&self, now: Now) -> Option<Wall> {
        let edges = self.bearers.values().filter_map(|b| b.order.as_ref()).flat_map(Order::edges);
        edges.filter(|at| *at > now.wall).min()
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

fn inside(windows: &[Window], at: Wall) -> bool {
    windows.iter().any(|w| w.from <= at && at < w.until)
}

/// What one state lets through at some moment; `None` while the clock is not set.
fn lets_through(state: &State, purpose: Purpose, at: Option<Wall>) -> bool {
    match (state, purpose) {
        (State::Open, _) | (State::AckOnly, Purpose::Report(_)) => true,
        (State::Restricted(floor), Purpose::Traffic(p) | Purpose::Report(p)) => p >= *floor,
        (State::Window(windows), _) => at.is_some_and(|at| inside(windows, at)),
        (State::Restricted(_) | State::AckOnly | State::Silent, _) => false,
    }
}

/// Deliberate faults of the gate.
#[cfg(feature = "mutations")]
mod mutated {
    use super::{Duration, Now, Order, State};
    use crate::mutation::{Mutation, is};

    pub(super) fn now(now: Now) -> Now {
        Now { set: now.set || is(Mutation::TrustUnsetClock), ..now }
    }

    pub(super) fn order(order: &Order) -> Order {
        let mut order = order.clone();
        if let State::Window(windows) = &mut order.state
            && is(Mutation::OverrunWindow)
        {
            windows.iter_mut().for_each(|w| w.until = w.until.plus(Duration::from_secs(60)));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Now {
        Now { at: Instant::from_millis(seconds * 1000), wall: Wall::from_seconds(seconds as i64), set: true }
    }

    fn order(state: State, until: Option<i64>) -> Order {
        let until = until.map(Wall::from_seconds);
        Order { state, since: Wall(0), from: None, until, base: None, reason: "test".into(), author: "uid 0".into() }
    }

    fn gate(order: Option<Order>) -> (Gate, BearerId) {
        let mut gate = Gate::new();
        let hf = BearerId::from("hf");
        gate.add(hf.clone(), order);
        (gate, hf)
    }

    #[test]
    fn b4_a_bearer_without_a_readable_order_is_silent() {
        let (mut g, hf) = gate(None);
        assert_eq!(g.permit(at(0), &hf, Purpose::Report(Precedence::Override), SECOND).err(), Some(Silence::Unknown));
        assert_eq!(g.suppressed(&hf), 1);
        let stranger = BearerId::from("stranger");
        assert!(g.permit(at(0), &stranger, Purpose::Probe, SECOND).is_err());
    }

    #[test]
    fn each_state_lets_through_what_it_says_and_nothing_else() {
        use Precedence::{Flash, Routine};
        let cases = [
            (State::Open, [true, true, true, true]),
            (State::Restricted(Flash), [true, false, false, false]),
            (State::AckOnly, [false, false, true, false]),
            (State::Silent, [false, false, false, false]),
        ];
        for (state, expected) in cases {
            let (g, hf) = gate(Some(order(state.clone(), None)));
            let asked = [Purpose::Traffic(Flash), Purpose::Traffic(Routine), Purpose::Report(Routine), Purpose::Probe];
            let got = asked.map(|p| g.allows(at(0), &hf, p, SECOND).is_ok());
            assert_eq!(got, expected, "{state}");
        }
    }

    #[test]
    fn a_transmission_must_end_inside_its_window_and_needs_a_clock() {
        let window = Window { from: Wall::from_seconds(100), until: Wall::from_seconds(200) };
        let (g, hf) = gate(Some(order(State::Window(vec![window]), None)));
        let ask = |now: Now, seconds| g.allows(now, &hf, Purpose::Probe, Duration::from_secs(seconds));
        assert_eq!(ask(at(99), 1), Err(Silence::Ordered));
        assert_eq!(ask(at(100), 100), Ok(()));
        assert_eq!(ask(at(150), 51), Err(Silence::WindowTooShort));
        assert_eq!(ask(Now { set: false, ..at(150) }, 1), Err(Silence::ClockUnset));
        assert!(g.must_stop(at(200), &hf) && !g.must_stop(at(199), &hf));
        assert_eq!(g.next_change(at(150)), Some(Wall::from_seconds(200)));
    }

    #[test]
    fn an_order_that_ran_out_is_silent_not_open() {
        let (g, hf) = gate(Some(order(State::Open, Some(100))));
        assert_eq!(g.allows(at(50), &hf, Purpose::Probe, SECOND), Ok(()));
        assert_eq!(g.allows(at(100), &hf, Purpose::Probe, SECOND), Err(Silence::Ordered));
    }

    #[test]
    fn a_transmission_must_end_before_a_tightening_takes_effect() {
        let from = Some(Wall::from_seconds(100));
        let later = Order { from, ..order(State::Restricted(Precedence::Flash), None) };
        let (g, hf) = gate(Some(later.following(Some(&order(State::Open, None)), Some(Wall(0))).expect("one")));
        let ask = |now, level, seconds| g.allows(now, &hf, Purpose::Traffic(level), Duration::from_secs(seconds));
        assert_eq!(ask(at(90), Precedence::Routine, 10), Ok(()));
        assert_eq!(ask(at(91), Precedence::Routine, 10), Err(Silence::WindowTooShort));
        assert_eq!(ask(at(91), Precedence::Flash, 10), Ok(()));
        assert_eq!(ask(at(100), Precedence::Routine, 1), Err(Silence::Ordered));
        assert_eq!(ask(Now { set: false, ..at(50) }, Precedence::Routine, 1), Err(Silence::Ordered));
        assert_eq!(ask(Now { set: false, ..at(50) }, Precedence::Flash, 1), Ok(()));
        assert_eq!((g.lowest(at(50), &hf), g.next_change(at(50))), (Some(Precedence::Deferred), from));
        assert_eq!(g.lowest(at(100), &hf), Some(Precedence::Flash));
    }

    #[test]
    fn b1_a_new_order_voids_emissions_made_under_the_old_one() {
        let (mut g, hf) = gate(Some(order(State::Open, None)));
        let watch = g.watch(&hf).expect("known bearer");
        let emission = g.permit(at(0), &hf, Purpose::Probe, SECOND).expect("open").key();
        assert!(emission.clone().redeem(&watch, at(1).at).is_some());
        assert!(emission.clone().redeem(&watch, at(60).at).is_none(), "a permit does not keep");
        g.set(&hf, Some(order(State::Silent, None)));
        assert!(emission.redeem(&watch, at(1).at).is_none());
    }
}
