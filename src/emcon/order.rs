//! Orders: what an operator or a plan said about one bearer's transmitter, with reason, author and times.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::mail::Precedence;
use crate::time::Wall;

/// A bearer's transmit state. It always receives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum State {
    /// May key for anything.
    Open,
    /// May key for traffic of at least this precedence, and for its acknowledgements.
    Restricted(Precedence),
    /// May key inside listed windows only; a transmission must end inside.
    Window(Vec<Window>),
    /// May key for reports, never for traffic.
    AckOnly,
    /// May not key at all.
    Silent,
}

/// A span of civil time in which a bearer may radiate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Window {
    /// First moment.
    pub from: Wall,
    /// First moment after.
    pub until: Wall,
}

impl State {
    /// Reads the word an operator types: `open`, `silent`, `restricted:flash`, `ack-only`. Windows come with times, not words.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "open" => Self::Open,
            "silent" => Self::Silent,
            "ack-only" => Self::AckOnly,
            _ => Self::Restricted(Precedence::parse(text.strip_prefix("restricted:")?)?),
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Restricted(p) => write!(f, "restricted:{p}"),
            Self::Window(_) => f.write_str("window"),
            Self::AckOnly => f.write_str("ack-only"),
            Self::Silent => f.write_str("silent"),
        }
    }
}

impl State {
    /// Whether it allows everything that `other` does; of two windows only the same one, because they are not compared.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Open, _) | (_, Self::Silent) => true,
            (Self::Restricted(a), Self::Restricted(b)) => a <= b,
            (a, b) => a == b,
        }
    }
}

/// One order, as it is persisted and shown.
///
/// Before `from` the order it follows (`base`) stands alone. From `until` on both stand together, and only what both allow may
/// radiate: after an order that loosened, what was there before returns; one that tightened stays. While the clock is not set nobody
/// knows whether those moments have come, and again only what both allow may radiate. So no order with times can loosen anything
/// early, and none can fail to tighten.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// What is ordered.
    pub state: State,
    /// When it was given.
    pub since: Wall,
    /// When it takes effect; `None`: at once.
    #[serde(default)]
    pub from: Option<Wall>,
    /// When it ceases to stand alone; `None`: with the next order.
    #[serde(default)]
    pub until: Option<Wall>,
    /// The order in force when this one was given, as far as it still matters; without one, silence.
    #[serde(default)]
    pub base: Option<Box<Order>>,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who gave it: `uid 1000`, `profile`, `store`.
    pub author: String,
}

/// Orders that may wait on one another: more than any plan needs, and a bound on what is stored.
const DEPTH: usize = 8;

static SILENT: State = State::Silent;

/// Whether a moment has come; `None` while the clock is not set.
fn come(moment: Option<Wall>, at: Option<Wall>, absent: bool) -> Option<bool> {
    match moment {
        None => Some(absent),
        Some(moment) => at.map(|at| at >= moment),
    }
}

impl Order {
    /// The states that stand together at some moment (`None`: the clock is not set). Only what all of them allow may radiate.
    pub fn standing(&self, at: Option<Wall>) -> Vec<&State> {
        let mut states = Vec::new();
        let mut next = Some(self);
        while let Some(order) = next {
            let (begun, ended) = (come(order.from, at, true), come(order.until, at, false));
            if begun != Some(false) {
                states.push(&order.state);
            }
            if begun == Some(true) && ended == Some(false) {
                return states;
            }
            next = order.base.as_deref();
        }
        states.push(&SILENT);
        states
    }

    /// The order an operator is shown as being in force, and the one that is to follow.
    pub fn shown(&self, at: Option<Wall>) -> (&Self, Option<&Self>) {
        let Some(base) = &self.base else { return (self, None) };
        let (begun, ended) = (come(self.from, at, true), come(self.until, at, false));
        let (below, _) = base.shown(at);
        match (begun, ended) {
            (Some(false), _) => (below, Some(self)),
            (Some(true), Some(false)) => (self, None),
            _ if self.state.covers(&below.state) => (below, (begun != Some(true)).then_some(self)),
            _ => (self, None),
        }
    }

    /// The moments at which something about it changes.
    pub fn edges(&self) -> Vec<Wall> {
        let mut edges = Vec::new();
        let mut next = Some(self);
        while let Some(order) = next {
            edges.extend(order.from);
            edges.extend(order.until);
            if let State::Window(windows) = &order.state {
                edges.extend(windows.iter().flat_map(|w| [w.from, w.until]));
            }
            next = order.base.as_deref();
        }
        edges
    }

    /// This order as it follows `old`, of which is kept what may matter again. The words of a refusal when too many wait already.
    pub fn following(mut self, old: Option<&Self>, at: Option<Wall>) -> Result<Self, String> {
        if self.from.is_some() || self.until.is_some() {
            self.base = old.map(|old| Box::new(old.pruned(at)));
            if self.depth() > DEPTH {
                return Err("too many orders with times wait on one another; give one without times first".into());
            }
        }
        Ok(self)
    }

    /// Both orders together: what neither forbids.
    pub fn with(self, other: Option<&Self>) -> Self {
        Self { from: None, until: Some(Wall(i64::MIN)), base: other.cloned().map(Box::new), ..self }
    }

    fn depth(&self) -> usize {
        1 + self.base.as_ref().map_or(0, |base| base.depth())
    }

    /// Without what can no longer matter: the base of an order that stands alone, and an order whose end gave its base back.
    fn pruned(&self, at: Option<Wall>) -> Self {
        let (begun, ended) = (come(self.from, at, true), come(self.until, at, false));
        let base = self.base.as_ref().map(|base| base.pruned(at));
        match base {
            Some(base) if ended == Some(true) && self.state.covers(&base.state) && base.edges().is_empty() => base,
            _ if begun == Some(true) && self.until.is_none() => Self { from: None, base: None, ..self.clone() },
            base => Self { base: base.map(Box::new), ..self.clone() },
        }
    }
}

/// Whether going from `old` to `new` forbids something.
pub fn tightens(old: &[State], new: &[State]) -> bool {
    new.iter().any(|n| !old.iter().any(|o| n.covers(o)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{AckOnly, Open, Silent};

    const FLASH: State = State::Restricted(Precedence::Flash);

    fn order(state: State, from: Option<i64>, until: Option<i64>) -> Order {
        let (from, until) = (from.map(Wall::from_seconds), until.map(Wall::from_seconds));
        Order { state, since: Wall(0), from, until, base: None, reason: String::new(), author: String::new() }
    }

    /// Orders given one after the other at these seconds.
    fn given(orders: Vec<(i64, Order)>) -> Order {
        let mut standing: Option<Order> = None;
        for (at, order) in orders {
            standing = Some(order.following(standing.as_ref(), Some(Wall::from_seconds(at))).expect("few"));
        }
        standing.expect("one at least")
    }

    fn at(order: &Order, seconds: i64) -> Vec<State> {
        order.standing(Some(Wall::from_seconds(seconds))).into_iter().cloned().collect()
    }

    #[test]
    fn a_later_order_leaves_the_present_one_alone_until_its_time() {
        for state in [Silent, FLASH, AckOnly] {
            let o = given(vec![(0, order(Open, None, None)), (10, order(state.clone(), Some(100), None))]);
            assert_eq!((at(&o, 99), at(&o, 100)), (vec![Open], vec![state.clone()]));
            assert_eq!(o.standing(None), [&state, &Open], "tightening does not wait for a clock");
            let o = given(vec![(0, order(state.clone(), None, None)), (10, order(Open, Some(100), None))]);
            assert_eq!((at(&o, 99), at(&o, 100)), (vec![state.clone()], vec![Open]));
            assert_eq!(o.standing(None), [&Open, &state], "loosening does");
        }
    }

    #[test]
    fn what_held_before_returns_after_a_loosening_and_a_tightening_stays() {
        let o = given(vec![(0, order(AckOnly, None, None)), (10, order(Open, Some(100), Some(200)))]);
        assert_eq!((at(&o, 99), at(&o, 199), at(&o, 200)), (vec![AckOnly], vec![Open], vec![Open, AckOnly]));
        let o = given(vec![(0, order(Open, None, None)), (10, order(FLASH, None, Some(200)))]);
        assert_eq!((at(&o, 199), at(&o, 200)), (vec![FLASH], vec![FLASH, Open]));
        let o = given(vec![(0, order(AckOnly, None, None)), (10, order(FLASH, None, Some(200)))]);
        assert_eq!(at(&o, 200), [FLASH, AckOnly], "only what both allow");
        assert_eq!(at(&order(Open, None, Some(200)), 200), [Open, Silent], "nothing to return to");
    }

    #[test]
    fn the_end_of_the_order_before_is_not_forgotten() {
        let o = given(vec![
            (0, order(Silent, None, None)),
            (10, order(Open, None, Some(300))),
            (20, order(FLASH, None, Some(200))),
        ]);
        assert_eq!(
            (at(&o, 199), at(&o, 299), at(&o, 300)),
            (vec![FLASH], vec![FLASH, Open], vec![FLASH, Open, Silent])
        );
        assert!(!tightens(&at(&o, 300), &[Silent]), "silent again");
    }

    #[test]
    fn what_no_longer_matters_is_dropped_and_what_waits_is_bounded() {
        let mut o = order(AckOnly, None, None);
        for sked in 0..100 {
            let now = Some(Wall::from_seconds(sked * 100));
            let next = order(Open, Some(sked * 100 + 10), Some(sked * 100 + 20));
            o = next.following(Some(&o), now).expect("one at a time");
            assert!(o.depth() <= 2, "{o:?}");
        }
        let now = Some(Wall::from_seconds(10_000));
        let many = (0..20).try_fold(o, |o, n| order(Silent, Some(20_000 + n), None).following(Some(&o), now));
        assert!(many.is_err());
    }

    #[test]
    fn the_operator_is_shown_what_stands_and_what_follows() {
        let o = given(vec![(0, order(AckOnly, None, None)), (10, order(Open, Some(100), Some(200)))]);
        let shown = |seconds| {
            let (now, next) = o.shown(Some(Wall::from_seconds(seconds)));
            (now.state.clone(), next.map(|o| o.state.clone()))
        };
        assert_eq!([shown(50), shown(150), shown(250)], [(AckOnly, Some(Open)), (Open, None), (AckOnly, None)]);
    }

    #[test]
    fn an_order_without_times_is_stored_as_ever() {
        let old = r#"{"state":"Silent","since":5,"until":null,"reason":"r","author":"uid 0"}"#;
        let read: Order = serde_json::from_str(old).expect("reads");
        assert_eq!((read.state, read.from, read.base), (Silent, None, None));
    }
}
