//! Contact plans: when a path is there, as intervals or as passes that come again, for radio links and for packet bearers alike.
//!
//! A pair that has any contact is apart outside its contacts; a pair that has none is always in contact.

use std::collections::BTreeMap;

use aldis::time::{Duration, Instant};
use aldis::units::Bps;

use super::{Reader, raw};
use crate::ether::{LinkConfig, StationId};
use crate::packet::{NodeId, PathState};
use crate::scenario::{Event, What};

/// Most contacts one entry may stand for.
const MOST_CONTACTS: u64 = 10_000;

/// A directed pair in a contact, and what the path is while it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contact {
    pub(super) from: Instant,
    pub(super) until: Instant,
    pub(super) state: PathState,
}

/// The contacts of each directed pair.
pub(super) type Contacts<Id> = BTreeMap<(Id, Id), Vec<Contact>>;

impl Reader {
    /// The contact plan of the radio links as events.
    pub(super) fn contact_events(
        &mut self,
        raw: &[raw::Contact],
        links: &BTreeMap<(StationId, StationId), LinkConfig>,
        duration: Duration,
    ) -> Vec<Event> {
        let mut contacts = Contacts::new();
        for contact in raw.iter().filter(|c| c.satcom.is_none()) {
            let place = format!("contact {} to {}", contact.from, contact.to);
            if contact.rate.is_some() || contact.delay.is_some() || contact.loss.is_some() || contact.burst.is_some() {
                self.problem((), &place, "rate, delay, loss and burst belong to contacts of a satcom");
            }
            let ends = self.ends(&place, &contact.from, &contact.to);
            let known = |ends| links.contains_key(&ends);
            self.add_contact(&mut contacts, &place, contact, ends, known, duration);
        }
        let mut events = Vec::new();
        for ((from, to), plan) in contacts {
            let mut put = |at, state: PathState| {
                events.push(Event { at, what: What::Path { from, to, up: state.up } });
            };
            if plan.first().is_some_and(|c| c.from > Instant::ZERO) {
                put(Instant::ZERO, PathState::default());
            }
            changes(&plan, duration, put);
        }
        events
    }

    /// Adds the contacts that one entry stands for.
    pub(super) fn add_contact<Id: Copy + Ord>(
        &mut self,
        contacts: &mut Contacts<Id>,
        place: &str,
        raw: &raw::Contact,
        (from, to): (Id, Id),
        known: impl Fn((Id, Id)) -> bool,
        duration: Duration,
    ) {
        let state = PathState {
            up: true,
            rate_bps: raw.rate.as_ref().map(|text| self.rate(place, text)),
            delay: raw.delay.as_ref().map(|text| self.duration(place, text)),
            loss: self.datagram_loss(place, raw.loss, raw.burst),
        };
        let spans = self.spans(place, raw, duration);
        let pairs = [Some((from, to)), (raw.both == Some(true)).then_some((to, from))];
        for pair in pairs.into_iter().flatten() {
            if !known(pair) {
                self.problem((), place, "there is no path for this contact");
            }
            let plan = contacts.entry(pair).or_default();
            plan.extend(spans.iter().map(|&(from, until)| Contact { from, until, state }));
            plan.sort_by_key(|c| c.from);
            if plan.windows(2).any(|pair| pair[1].from < pair[0].until) {
                self.problem((), place, "overlaps another contact of this pair");
            }
        }
    }

    /// The intervals that one entry stands for.
    fn spans(&mut self, place: &str, raw: &raw::Contact, duration: Duration) -> Vec<(Instant, Instant)> {
        let spans: Vec<(Instant, Instant)> = match (&raw.up, &raw.first, &raw.every, &raw.length) {
            (Some(up), None, None, None) => {
                up.iter().map(|(from, until)| (self.instant(place, from), self.instant(place, until))).collect()
            }
            (None, first, Some(every), Some(length)) => {
                let first = first.as_ref().map_or(Instant::ZERO, |text| self.instant(place, text));
                let (every, length) = (self.duration(place, every), self.duration(place, length));
                if length > every {
                    return self.problem(Vec::new(), place, "a pass is longer than the time to the next");
                }
                let left = duration.saturating_sub(first.since(Instant::ZERO)).as_nanos();
                let count = left.div_ceil(every.as_nanos().max(1));
                if count > u128::from(MOST_CONTACTS) {
                    return self.problem(Vec::new(), place, &format!("stands for more than {MOST_CONTACTS} passes"));
                }
                let pass = |i| first + every.saturating_mul(i);
                (0..u32::try_from(count).unwrap_or(0)).map(|i| (pass(i), pass(i) + length)).collect()
            }
            _ => {
                let wanted = "either up, a list of [from, until], or every and length, with first if the first pass is not at 0s";
                return self.problem(Vec::new(), place, wanted);
            }
        };
        if spans.iter().any(|(from, until)| until <= from) {
            self.problem((), place, "a contact must end after it begins");
        }
        if spans.is_empty() || spans.iter().any(|(from, _)| from.since(Instant::ZERO) >= duration) {
            self.problem((), place, "begins after the scenario's end");
        }
        spans
    }

    pub(super) fn rate(&mut self, place: &str, text: &str) -> u64 {
        let rate = Bps::parse(text).map(|Bps(rate)| u64::from(rate));
        rate.unwrap_or_else(|| self.problem(1, place, &format!("{text:?} is no rate such as 64kbps")))
    }
}

impl Contact {
    /// Whether it holds at time zero.
    fn is_first(&self) -> bool {
        self.from == Instant::ZERO
    }
}

/// Puts every change of a path that its contacts make, in order; contacts that touch leave no gap.
pub(super) fn changes(plan: &[Contact], duration: Duration, mut put: impl FnMut(Instant, PathState)) {
    let end = Instant::ZERO + duration;
    for (i, contact) in plan.iter().enumerate() {
        put(contact.from, contact.state);
        let touches = plan.get(i + 1).is_some_and(|next| next.from <= contact.until);
        if !touches && contact.until <= end {
            put(contact.until, PathState::default());
        }
    }
}

/// Whether a path with this plan is there at time zero.
pub(super) fn begins_up(plan: &[Contact]) -> bool {
    plan.first().is_some_and(Contact::is_first)
}

/// The contacts of a packet bearer's pairs, as its plan has them.
pub(super) fn plan_changes(contacts: &Contacts<NodeId>, duration: Duration) -> Vec<crate::packet::Change> {
    let mut plan = Vec::new();
    for (&(from, to), contacts) in contacts {
        changes(contacts, duration, |at, state| plan.push(crate::packet::Change { at, from, to, state }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn contacts_of_a_radio_link_become_events_and_only_of_that_link() {
        let contact = r#"
[[contact]]
from = "ship"
to = "shore"
first = "5min"
every = "25min"
length = "10min"
"#;
        let scenario = Scenario::parse(&format!("{RADIOS}{contact}")).expect("reads");
        let (from, to) = (StationId(0), StationId(1));
        let changes: Vec<(u64, bool)> = scenario
            .events
            .iter()
            .map(|e| match e.what {
                What::Path { from: a, to: b, up } if (a, b) == (from, to) => (e.at.0 / 60_000_000_000, up),
                _ => panic!("{e:?}"),
            })
            .collect();
        // The third pass outlasts the hour.
        assert_eq!(changes, [(0, false), (5, true), (15, false), (30, true), (40, false), (55, true)]);
    }

    #[test]
    fn what_a_radio_link_cannot_have_is_named() {
        let contact = |keys: &str| {
            let text = format!("{RADIOS}\n[[contact]]\nfrom = \"ship\"\nto = \"shore\"\n{keys}\n");
            Scenario::parse(&text).expect_err("wrong").join("\n")
        };
        assert!(contact("up = [[\"1min\", \"2min\"]]\nrate = \"75bps\"").contains("belong to contacts of a satcom"));
        assert!(contact("up = [[\"2min\", \"1min\"]]").contains("must end after it begins"));
        assert!(contact("up = [[\"2h\", \"3h\"]]").contains("after the scenario's end"));
        assert!(contact("up = []").contains("after the scenario's end"));
        assert!(contact("every = \"1min\"").contains("either up"));
        assert!(contact("every = \"1ms\"\nlength = \"1ms\"").contains("more than 10000 passes"));
        assert!(contact("every = \"0s\"\nlength = \"0s\"").contains("more than 10000 passes"));
        let absent = "up = [[\"1min\", \"2min\"]]\n[[link]]\nfrom = \"ship\"\nto = \"shore\"\nabsent = true";
        assert!(contact(absent).contains("there is no path"));
        assert!(contact("satcom = \"geo\"\nup = [[\"1min\", \"2min\"]]").contains("no satcom geo"));
    }

    #[test]
    fn an_order_may_open_a_window() {
        let order = |keys: &str| format!("{RADIOS}\n[[event]]\nat = \"1min\"\nstation = \"ship\"\n{keys}\n");
        let text = order("emcon = \"window\"\nopens = \"10min\"\ncloses = \"15min\"");
        let scenario = Scenario::parse(&text).expect("reads");
        let What::Emcon { state: aldis::emcon::State::Window(windows), .. } = &scenario.events[0].what else {
            panic!("{:?}", scenario.events)
        };
        assert_eq!(windows[0].from, scenario.start.plus(Duration::from_secs(600)));
        assert_eq!(windows[0].until, scenario.start.plus(Duration::from_secs(900)));
        let wrong = |keys: &str| Scenario::parse(&order(keys)).expect_err("wrong").join("\n");
        assert!(wrong("emcon = \"window\"").contains("opens and closes"));
        assert!(wrong("emcon = \"window\"\nopens = \"15min\"\ncloses = \"10min\"").contains("not after opens"));
        assert!(wrong("restart = true\nopens = \"15min\"").contains("belong to emcon = window"));
    }

    #[test]
    fn mail_and_datagrams_cross_in_contact_only() {
        let scenario = Scenario::parse(include_str!("../../../scenarios/leo-passes.toml")).expect("shipped");
        let report = crate::run::run(&scenario, 1, crate::trace::Trace::hashed());
        assert_eq!(report.problems, Vec::<String>::new());
        let delivered: Vec<f64> = report.messages.iter().filter_map(|m| m.delivered_s).map(|s| s / 60.0).collect();
        // Two in windows of the path, one in the window of an order.
        let windows = [(20.0, 35.0), (180.0, 195.0), (330.0, 360.0)];
        assert_eq!(delivered.len(), windows.len());
        let inside = |(at, (from, until)): (&f64, (f64, f64))| (from..until).contains(at);
        assert!(delivered.iter().zip(windows).all(inside), "{delivered:?}");
        let [up, down] = report.satcom.as_slice() else { panic!("{:?}", report.satcom) };
        // All 120 leave in the second pass, 82 minutes after they were ready.
        assert_eq!((up.stats.delivered.datagrams, up.lost), (120, 0));
        assert!(up.mean_delay_s.is_some_and(|s| (4920.0..5400.0).contains(&s)), "{up:?}");
        // What came after the last pass still waits.
        assert_eq!((down.stats.sent.datagrams, down.lost, down.queued > 0), (470, 0, true));
    }

    const RADIOS: &str = r#"
name = "radios"
duration = "1h"

[waveform]
rate = "2400bps"
interleaver = "S"

[[station]]
name = "ship"

[[station]]
name = "shore"
"#;
}
