//! The packet part of a scenario in virtual time: simple sources and sinks over every packet bearer it has.
//!
//! The bearers have nothing to do with each other nor with the radios, so each is played through on its own, and the times are those of
//! the one virtual clock. Called once by [`run`](crate::run::run).

use std::collections::BTreeMap;

use aldis::time::{Duration, Instant};
use serde::Serialize;

use super::config::{Destination, NodeId};
use super::net::{Delivered, PacketNet, PathStats};
use crate::rng::Stream;
use crate::scenario::{Satcom, Scenario};
use crate::trace::{Trace, short_digest};

/// What became of what one node sent to another over one packet bearer.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SatcomLine {
    /// The bearer.
    pub satcom: String,
    /// Sender.
    pub from: String,
    /// Receiver.
    pub to: String,
    /// Everything counted, in datagrams and bytes.
    #[serde(flatten)]
    pub stats: PathStats,
    /// Datagrams lost, for whatever reason.
    pub lost: u64,
    /// Datagrams that had not arrived when the scenario ended.
    pub queued: u64,
    /// Mean time from handing in to arrival; absent when nothing arrived.
    pub mean_delay_s: Option<f64>,
    /// Its 95th percentile.
    pub p95_delay_s: Option<f64>,
}

/// What the packet part came to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Played {
    /// One per bearer, sender and receiver.
    pub lines: Vec<SatcomLine>,
    /// Books that do not balance, in words.
    pub problems: Vec<String>,
}

/// Plays the packet bearers of a scenario to its end.
pub fn play(scenario: &Scenario, seed: u64, trace: &mut Trace) -> Played {
    let mut played = Played::default();
    for satcom in &scenario.satcoms {
        let net = PacketNet::new(satcom.net(seed));
        let mut bearer = Bearer { satcom, net, delays: BTreeMap::new(), trace: &mut *trace };
        for (number, source) in satcom.datagrams.iter().enumerate() {
            bearer.run_until(source.at);
            let mut bytes = vec![0; usize::try_from(source.size).unwrap_or(0)];
            Stream::keyed(seed, "datagram", &[u64::from(satcom.number), number as u64]).fill(&mut bytes);
            bearer.send(source.at, source.from, source.to, &bytes);
        }
        bearer.run_until(Instant::ZERO + scenario.duration);
        if let Err(problem) = bearer.net.balance() {
            played.problems.push(format!("satcom {}: {problem}", satcom.name));
        }
        played.lines.extend(bearer.lines());
    }
    played
}

struct Bearer<'a> {
    satcom: &'a Satcom,
    net: PacketNet,
    delays: BTreeMap<(NodeId, NodeId), Vec<Duration>>,
    trace: &'a mut Trace,
}

#[derive(Serialize)]
struct Sum<'a> {
    satcom: &'a str,
    from: NodeId,
    to: Option<NodeId>,
    bytes: usize,
    sha256: String,
}

impl Bearer<'_> {
    fn send(&mut self, at: Instant, from: NodeId, to: Destination, bytes: &[u8]) {
        self.record(at, "datagram sent", from, None, bytes);
        self.net.send(at, from, to, 0, bytes);
        self.drain(at);
    }

    fn run_until(&mut self, end: Instant) {
        while let Some(at) = self.net.next_timeout().filter(|&at| at <= end) {
            self.net.handle_timeout(at);
            self.drain(at);
        }
    }

    fn drain(&mut self, at: Instant) {
        while let Some((to, Delivered { from, sent, bytes, .. })) = self.net.poll() {
            self.delays.entry((from, to)).or_default().push(at.since(sent));
            self.record(at, "datagram delivered", from, Some(to), &bytes);
        }
    }

    fn record(&mut self, at: Instant, what: &str, from: NodeId, to: Option<NodeId>, bytes: &[u8]) {
        let satcom = &self.satcom.name;
        let sum = Sum { satcom, from, to, bytes: bytes.len(), sha256: short_digest(bytes) };
        self.trace.record(at, None, what, sum);
    }

    fn lines(mut self) -> Vec<SatcomLine> {
        let books: Vec<_> = self.net.books().collect();
        let line = |((from, to), stats): ((NodeId, NodeId), PathStats)| {
            let mut delays = self.delays.remove(&(from, to)).unwrap_or_default();
            delays.sort_unstable();
            let n = delays.len();
            let mean = delays.iter().map(Duration::as_secs_f64).sum::<f64>() / n as f64;
            let p95 = delays.get((n * 95).div_ceil(100).saturating_sub(1)).map(Duration::as_secs_f64);
            SatcomLine {
                satcom: self.satcom.name.clone(),
                from: self.satcom.member(from).to_owned(),
                to: self.satcom.member(to).to_owned(),
                stats,
                lost: stats.lost().datagrams,
                queued: stats.waiting.datagrams + stats.flying.datagrams,
                mean_delay_s: p95.map(|_| mean),
                p95_delay_s: p95,
            }
        };
        books.into_iter().map(line).collect()
    }
}

impl SatcomLine {
    /// The line as people read it.
    pub fn text(&self) -> String {
        let Self { satcom, from, to, stats, lost, queued, .. } = self;
        let time = |t: Option<f64>| t.map_or("-".into(), |t| format!("{t:.2}"));
        format!(
            "satcom {satcom} {from} to {to}: {} sent, {} delivered, {lost} lost, {queued} queued; delay mean {} s, 95 % {} s",
            stats.sent.datagrams,
            stats.delivered.datagrams,
            time(self.mean_delay_s),
            time(self.p95_delay_s)
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::run::run;
    use crate::scenario::Scenario;
    use crate::trace::Trace;

    #[test]
    fn a_diode_scenario_runs_alone_and_every_datagram_is_told_of() {
        let scenario = Scenario::parse(include_str!("../../scenarios/one-way-diode.toml")).expect("shipped");
        let report = run(&scenario, 1, Trace::hashed());
        assert_eq!(report.problems, Vec::<String>::new());
        let [up, back] = report.satcom.as_slice() else { panic!("{:?}", report.satcom) };
        assert_eq!((up.from.as_str(), up.to.as_str()), ("low", "high"));
        // A full queue takes 46 of the hundred that come at once.
        assert_eq!((up.stats.sent.datagrams, up.stats.overflowed.datagrams, up.queued), (5100, 54, 0));
        assert_eq!(up.stats.delivered.datagrams + up.lost, 5100);
        assert!(up.mean_delay_s.is_some_and(|s| (0.0122..0.02).contains(&s)), "{up:?}");
        assert_eq!((back.stats.unreachable.datagrams, back.lost, back.mean_delay_s), (10, 10, None));
    }

    #[test]
    fn one_seed_is_one_cast_and_another_is_another() {
        let scenario = Scenario::parse(include_str!("../../scenarios/geo-multicast-rain-fade.toml")).expect("shipped");
        let report = |seed| run(&scenario, seed, Trace::hashed());
        let (one, again, other) = (report(1), report(1), report(2));
        assert_eq!(one, again);
        assert_ne!(one.trace_hash, other.trace_hash);
        assert_ne!(one.satcom, other.satcom);
        // About one ship in eleven is in the rain at any time.
        let faded = |i: usize| one.satcom[i].stats.faded.datagrams;
        assert!((0..3).all(|i| (100..1500).contains(&faded(i))), "{:?}", one.satcom);
        assert!(one.text().contains("satcom geo shore to charlie: 6000 sent"));
    }
}
