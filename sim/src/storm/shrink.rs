//! Makes a failing scenario small: leaves out messages, mishaps and stations, shortens and simplifies, as long as it fails in the
//! same way.

use aldis::time::Duration;
use aldis::units::{parse_duration, show_duration};

use super::{Storm, kind};
use crate::scenario::raw;

/// Runs one reduction may take at most.
const MOST_RUNS: usize = 2000;

pub(super) fn shrink(storm: &Storm, mut go_on: impl FnMut(&str) -> bool) -> Option<(Storm, usize)> {
    let kinds: Vec<String> = storm.problems().iter().map(|p| kind(p).to_owned()).collect();
    let wanted = kinds.first()?.clone();
    let (mut best, mut runs) = (storm.clone(), 1);
    let mut patient = go_on(&format!("fails with {wanted}"));
    loop {
        let mut smaller = None;
        for (what, raw) in candidates(&best.raw) {
            if runs >= MOST_RUNS || !patient {
                break;
            }
            let next = Storm { raw, ..best.clone() };
            runs += 1;
            if next.problems().iter().any(|p| kind(p) == wanted) {
                patient = go_on(&what);
                smaller = Some(next);
                break;
            }
            patient = go_on("");
        }
        match smaller {
            Some(next) => best = next,
            None => return Some((best, runs)),
        }
    }
}

/// Smaller scenarios, the greatest steps first. Those that make no sense are refused when they are read.
fn candidates(raw: &raw::Scenario) -> Vec<(String, raw::Scenario)> {
    let mut out = Vec::new();
    let mut with = |what: String, change: &dyn Fn(&mut raw::Scenario)| {
        let mut next = raw.clone();
        change(&mut next);
        if next != *raw {
            out.push((what, next));
        }
    };
    for half in halves(raw.event.len()) {
        with(format!("without {} mishaps", half.len()), &|r| {
            r.event.drain(half.clone());
        });
    }
    for half in halves(raw.traffic.len()) {
        with(format!("without {} messages", half.len()), &|r| {
            r.traffic.drain(half.clone());
        });
    }
    for station in raw.station.iter().map(|s| s.name.clone()).filter(|_| raw.station.len() > 2) {
        with(format!("without {station}"), &|r| without(r, &station));
    }
    if let Some(duration) = parse_duration(&raw.duration).filter(|d| *d > Duration::from_secs(60)) {
        with("half as long".into(), &|r| shorten(r, duration / 2));
    }
    with("over quiet paths".into(), &|r| r.channel = raw::Channel::default());
    with("with a plain modem".into(), &|r| r.modem = raw::Modem::default());
    with("with every path".into(), &|r| r.link.clear());
    for (i, traffic) in raw.traffic.iter().enumerate().filter(|(_, t)| t.size != "300B") {
        with(format!("message {i} of {} at its smallest", traffic.size), &|r| r.traffic[i].size = "300B".into());
    }
    for (i, _) in raw.traffic.iter().enumerate().filter(|(_, t)| t.also.is_some()) {
        with(format!("message {i} for one station"), &|r| r.traffic[i].also = None);
    }
    for (i, _) in raw.traffic.iter().enumerate().filter(|(_, t)| t.precedence.as_deref() != Some("routine")) {
        with(format!("message {i} routine"), &|r| r.traffic[i].precedence = Some("routine".into()));
    }
    out
}

/// Ranges to leave out: halves, quarters, down to single entries.
fn halves(count: usize) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut size = count.div_ceil(2);
    while size > 0 {
        ranges.extend((0..count).step_by(size).map(|from| from..(from + size).min(count)));
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    ranges
}

fn without(raw: &mut raw::Scenario, station: &str) {
    let other = |name: &Option<String>| name.as_deref() != Some(station);
    raw.station.retain(|s| s.name != station);
    raw.link.retain(|l| l.from != station && l.to != station);
    raw.traffic.retain(|t| t.from != station && t.to != station);
    for also in raw.traffic.iter_mut().filter_map(|t| t.also.as_mut()) {
        also.retain(|name| name != station);
    }
    for peers in raw.event.iter_mut().filter_map(|e| e.peers_silent.as_mut()) {
        peers.retain(|name| name != station);
    }
    raw.event.retain(|e| e.peers_silent.as_ref().is_none_or(|peers| !peers.is_empty()));
    raw.event.retain(|e| other(&e.station) && other(&e.from) && other(&e.to));
}

/// Ends earlier; what would come later is left out.
fn shorten(raw: &mut raw::Scenario, duration: Duration) {
    let early = |text: &str| parse_duration(text).is_some_and(|at| at <= duration);
    raw.duration = show_duration(duration);
    raw.traffic.retain(|t| early(&t.at));
    raw.event.retain(|e| early(&e.at));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::Profile;

    #[test]
    fn a_scenario_that_fails_is_reduced_to_what_makes_it_fail() {
        // A message into another net, to which no way leads, fails; everything else is beside the point.
        let mut storm = Storm::new(5, Profile::Calm);
        let here: Vec<String> = storm.raw.station.iter().map(|s| s.name.clone()).collect();
        let there = ["yankee".to_owned(), "zulu".to_owned()];
        for name in there.clone() {
            storm.raw.station.push(raw::Station { name, ..raw::Station::default() });
        }
        for (a, b) in here.iter().flat_map(|a| there.iter().map(move |b| (a, b))) {
            for (from, to) in [(a, b), (b, a)] {
                let (from, to) = (from.clone(), to.clone());
                storm.raw.link.push(raw::Link { from, to, absent: Some(true), channel: None });
            }
        }
        let (from, to) = (here[0].clone(), "zulu".to_owned());
        let lost = raw::Traffic { at: "10s".into(), from, to, size: "700B".into(), ..raw::Traffic::default() };
        storm.raw.traffic.push(lost);
        let (small, runs) = storm.shrink(|_| true).expect("it fails");
        assert!(runs > 1);
        assert!(small.raw.traffic.len() == 1 && small.raw.station.len() <= 4, "{}", small.toml());
        assert_eq!(small.raw.traffic[0].to, "zulu");
    }

    #[test]
    fn ranges_cover_everything() {
        assert_eq!(halves(0), []);
        assert_eq!(halves(1).len(), 1);
        assert_eq!(halves(3), [0..2, 2..3, 0..1, 1..2, 2..3]);
    }
}
