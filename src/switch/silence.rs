//! Which peers keep silence: by the profile, and by what an operator says of them.
//!
//! An operator's word is stored before it is reported, survives restarts and goes before the profile's. What is heard of a silent peer
//! changes nothing by itself: it is shown beside the word, and whoever gave that lifts it. While the clock is not set nobody knows
//! whether a listed time has come, and a peer with any is taken for silent: mail goes out all the same, and nobody is asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bearer::serial::blind::Policy;
use crate::config::plan::{Plan, Silences};
use crate::mail::{BearerId, Hop, PeerName, Precedence, TransferId};
use crate::ops::document::{PeerSilence, Peers};
use crate::ops::{Event, Response};
use crate::queue::outcome;
use crate::queue::{Batch, Change, CommitError};
use crate::time::{Duration, Now, Wall};

use super::air::civil;
use super::settle::{AirNote, Step};
use super::{Pending, RequestId, Switch};

/// An operator's word on a peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    /// It keeps silence; otherwise it may be spoken to.
    silent: bool,
    from: Option<Wall>,
    until: Option<Wall>,
    reason: String,
    author: String,
}

/// What is known of the silence of peers.
#[derive(Debug, Default)]
pub(super) struct Silence {
    marks: BTreeMap<PeerName, Mark>,
    /// What the stations were told.
    told: BTreeMap<PeerName, bool>,
}

/// Whether a peer is silent at a moment, until when, and who says so.
#[derive(Clone, PartialEq, Debug)]
struct Standing {
    silent: bool,
    until: Option<Wall>,
    reason: String,
    author: String,
}

impl Mark {
    /// Whether it counts at some moment (`None`: the clock is not set, and only what makes silent counts for sure).
    fn counts(&self, at: Option<Wall>) -> bool {
        match at {
            Some(at) => self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until),
            None => self.silent || self.until.is_none(),
        }
    }
}

/// What the profile says of a peer at a moment: silent, and until when.
fn planned(silent: &Silences, at: Option<Wall>) -> Option<Option<Wall>> {
    match (silent, at) {
        (Silences::Never, _) => None,
        (Silences::Always, _) => Some(None),
        (Silences::Windows(windows), Some(at)) => {
            windows.iter().find(|w| w.from <= at && at < w.until).map(|w| Some(w.until))
        }
        (Silences::Windows(windows), None) => (!windows.is_empty()).then_some(None),
    }
}

fn standing(silent: &Silences, mark: Option<&Mark>, at: Option<Wall>) -> Standing {
    if let Some(m) = mark.filter(|m| m.counts(at)) {
        return Standing { silent: m.silent, until: m.until, reason: m.reason.clone(), author: m.author.clone() };
    }
    match planned(silent, at) {
        Some(until) => Standing { silent: true, until, reason: "planned".into(), author: "profile".into() },
        None => Standing { silent: false, until: None, reason: String::new(), author: String::new() },
    }
}

/// Setting that holds an operator's word on a peer.
fn key(peer: &PeerName) -> String {
    format!("silence/{peer}")
}

/// How mail of each level goes to silent peers, as stations take it.
pub(super) fn policies(plan: &Plan) -> BTreeMap<Precedence, Policy> {
    let policy =
        |b: &crate::config::plan::BlindPlan| Policy { target: b.target, windows: b.windows, interval: b.every };
    plan.blind.iter().map(|(level, b)| (*level, policy(b))).collect()
}

impl Silence {
    /// What was stored.
    pub(super) fn open(settings: &[(String, Vec<u8>)]) -> Self {
        let mark = |(name, value): &(String, Vec<u8>)| {
            Some((PeerName::from(name.strip_prefix("silence/")?), serde_json::from_slice(value).ok()?))
        };
        Self { marks: settings.iter().filter_map(mark).collect(), told: BTreeMap::new() }
    }
}

impl Switch {
    /// Tells the stations which peers are silent now, and operators what has changed.
    pub(super) fn follow_silence(&mut self, now: Now) {
        let plan = self.plan.clone();
        for (peer, silent) in plan.neighbours() {
            let stands = standing(silent, self.silence.marks.get(peer), civil(now));
            if self.silence.told.get(peer).copied().unwrap_or(false) == stands.silent {
                continue;
            }
            self.silence.told.insert(peer.clone(), stands.silent);
            for bearer in self.bearers.values_mut() {
                bearer.station.believe(now.at, peer, stands.silent);
            }
            self.believe_multicast(now, peer, stands.silent);
            let Standing { silent, reason, author, .. } = stands;
            self.event(Event::PeerSilence { peer: peer.clone(), silent, reason, author });
        }
    }

    /// Whether what goes to a peer goes blind.
    pub(super) fn is_silent(&self, peer: &PeerName) -> bool {
        self.silence.told.get(peer).copied().unwrap_or(false)
    }

    /// When a peer's silence next begins or ends.
    pub(super) fn next_silence(&self, now: Now) -> Option<Wall> {
        let marks = self.silence.marks.values().flat_map(|m| [m.from, m.until]).flatten();
        let windows = self.plan.neighbours().filter_map(|(_, silent)| match silent {
            Silences::Windows(windows) => Some(windows.iter().flat_map(|w| [w.from, w.until])),
            Silences::Never | Silences::Always => None,
        });
        marks.chain(windows.flatten()).filter(|at| now.set && *at > now.wall).min()
    }

    /// An operator says that a peer keeps silence.
    #[expect(clippy::too_many_arguments, reason = "what one request carries")]
    pub(super) fn mark_silent(
        &mut self,
        now: Now,
        id: RequestId,
        peer: &str,
        reason: String,
        from: Option<Wall>,
        until: Option<Wall>,
        author: String,
    ) -> Option<Response> {
        let peer = match self.peer_called(peer) {
            Ok((peer, _)) => peer.clone(),
            Err(why) => return Some(Response::refused(why)),
        };
        if until.is_some_and(|until| from.unwrap_or(now.wall) >= until) {
            return Some(Response::refused("the silence would end before it begins"));
        }
        self.store_mark(id, peer, Some(Mark { silent: true, from, until, reason, author }));
        None
    }

    /// An operator says that a peer may be spoken to: its mark goes, and what the profile has in force for it now.
    pub(super) fn mark_heard(
        &mut self,
        now: Now,
        id: RequestId,
        peer: &str,
        reason: String,
        author: String,
    ) -> Option<Response> {
        let (peer, planned) = match self.peer_called(peer) {
            Ok((peer, silent)) => (peer.clone(), planned(silent, civil(now))),
            Err(why) => return Some(Response::refused(why)),
        };
        self.store_mark(id, peer, planned.map(|until| Mark { silent: false, from: None, until, reason, author }));
        None
    }

    fn peer_called(&self, name: &str) -> Result<(&PeerName, &Silences), String> {
        self.plan.neighbours().find(|(peer, _)| *peer.0 == *name).ok_or_else(|| {
            let known: Vec<_> = self.plan.neighbours().map(|(peer, _)| peer.to_string()).collect();
            format!("no peer {name}; this node has {}", known.join(", "))
        })
    }

    fn store_mark(&mut self, id: RequestId, peer: PeerName, mark: Option<Mark>) {
        let value = mark.as_ref().and_then(|m| serde_json::to_vec(m).ok());
        let batch = Batch { conditions: Vec::new(), changes: vec![Change::Setting(key(&peer), value)] };
        self.commit(batch, Pending::Mark { peer, mark, reply: id });
    }

    /// An operator's word is durable, or could not be made so.
    pub(super) fn mark_stored(
        &mut self,
        now: Now,
        peer: PeerName,
        mark: Option<Mark>,
        stored: Result<(), CommitError>,
    ) -> Response {
        if let Err(error) = stored {
            return Response::refused(format!("nothing was changed for {peer}: {error}"));
        }
        match mark {
            Some(mark) => self.silence.marks.insert(peer.clone(), mark),
            None => self.silence.marks.remove(&peer),
        };
        self.follow_silence(now);
        Response::done(&Peers { schema: Peers::SCHEMA.into(), peers: self.silences(now, |p| *p == peer) })
    }

    /// All peers, silent or not.
    pub(super) fn peers_document(&self, now: Now) -> Response {
        Response::done(&Peers { schema: Peers::SCHEMA.into(), peers: self.silences(now, |_| true) })
    }

    /// Those that are taken for silent, for the status.
    pub(super) fn silent_peers(&self, now: Now) -> Vec<PeerSilence> {
        self.silences(now, |peer| self.is_silent(peer))
    }

    fn silences(&self, now: Now, wanted: impl Fn(&PeerName) -> bool) -> Vec<PeerSilence> {
        let shown = |(peer, silent): (&PeerName, &Silences)| {
            let mark = self.silence.marks.get(peer);
            let stands = standing(silent, mark, civil(now));
            let to_come = mark.filter(|m| m.silent && !m.counts(civil(now)) && m.from.is_some_and(|f| f > now.wall));
            let stations = || self.bearers.values().map(|b| &b.station);
            let heard = stations().filter_map(|s| s.heard_in_silence(peer)).max().or_else(|| self.heard_on_net(peer));
            let ago = |at| i64::try_from(now.at.since(at).as_millis()).unwrap_or(i64::MAX);
            let sent: usize = stations().map(|s| s.sent_blind(peer)).max().unwrap_or(0).max(self.sent_on_net(peer));
            let (reason, author) = match to_come {
                Some(mark) if !stands.silent => (mark.reason.clone(), mark.author.clone()),
                _ => (stands.reason, stands.author),
            };
            PeerSilence {
                peer: peer.to_string(),
                silent: stands.silent,
                until: stands.until.map(Wall::rfc3339),
                from: to_come.and_then(|m| m.from).map(Wall::rfc3339),
                reason,
                author,
                heard: heard.map(|at| Wall(now.wall.0.saturating_sub(ago(at))).rfc3339()),
                sent: sent as u64,
                reads: self.reads_in_words(peer),
            }
        };
        self.plan.neighbours().filter(|(peer, _)| wanted(peer)).map(shown).collect()
    }

    /// A window towards a silent peer is over on one bearer.
    #[expect(clippy::too_many_arguments, reason = "what the bearer tells")]
    pub(super) fn sent_blind(
        &mut self,
        now: Now,
        name: &BearerId,
        id: &TransferId,
        window: u32,
        of: u32,
        repeated: bool,
        bytes_on_air: u64,
        air: Duration,
    ) {
        let Some(transfer) = self.transfers.get(id).cloned() else { return };
        let (Hop::Peer(peer), message, air_s) = (transfer.hop.clone(), transfer.message, air.as_secs_f64()) else {
            return;
        };
        let bearer = name.clone();
        self.event(Event::TransferSentBlind { message, bearer, peer, window, of, repeated, bytes_on_air, air_s });
        let again = if repeated { "; all its symbols were sent before" } else { "" };
        let words = format!("window {window} of {of}{again}");
        let events = transfer.recipients.iter().map(|i| (*i, outcome::Event::Sent { words: words.clone() })).collect();
        let air = AirNote { bearer: Some(name.clone()), bytes: bytes_on_air, air_s, refused: None };
        self.step(now, message, Step::Events { events, air, ended: None, job: None, sends: None });
    }

    /// Transfers to a silent peer that only wait for word of them: they hold nothing up.
    pub(super) fn waiting_for_word(&self, peer: &PeerName) -> usize {
        let serial = self.bearers.values().map(|b| b.station.sent_blind(peer)).max().unwrap_or(0);
        serial.min(MOST_UNCONFIRMED).max(self.waiting_on_aldis(peer))
    }
}

/// Transfers to one silent peer that are kept besides those on their way; further mail waits in the queue.
pub(super) const MOST_UNCONFIRMED: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emcon::Window;

    fn mark(silent: bool, from: Option<i64>, until: Option<i64>) -> Mark {
        let (from, until) = (from.map(Wall::from_seconds), until.map(Wall::from_seconds));
        Mark { silent, from, until, reason: "x".into(), author: "uid 0".into() }
    }

    fn silent(peer: &Silences, mark: Option<&Mark>, seconds: i64) -> bool {
        standing(peer, mark, Some(Wall::from_seconds(seconds))).silent
    }

    #[test]
    fn an_operators_word_goes_before_the_profiles() {
        let (never, always) = (Silences::Never, Silences::Always);
        assert!(!silent(&never, None, 5) && silent(&always, None, 5));
        assert!(silent(&never, Some(&mark(true, None, None)), 5));
        assert!(!silent(&always, Some(&mark(false, None, None)), 5));
        let listed = mark(true, Some(10), Some(20));
        assert_eq!([9, 10, 19, 20].map(|at| silent(&never, Some(&listed), at)), [false, true, true, false]);
    }

    #[test]
    fn listed_windows_begin_and_end_by_themselves() {
        let window = |from, until| Window { from: Wall::from_seconds(from), until: Wall::from_seconds(until) };
        let ship = Silences::Windows(vec![window(10, 20), window(30, 40)]);
        assert_eq!([5, 10, 20, 35, 40].map(|at| silent(&ship, None, at)), [false, true, false, true, false]);
        // Heard in the first window: the second still counts.
        let until = planned(&ship, Some(Wall::from_seconds(12))).expect("silent");
        let heard = Mark { until, ..mark(false, None, None) };
        assert_eq!([12, 19, 35].map(|at| silent(&ship, Some(&heard), at)), [false, false, true]);
    }

    #[test]
    fn without_a_clock_a_peer_with_listed_times_is_taken_for_silent() {
        let window = Window { from: Wall::from_seconds(10), until: Wall::from_seconds(20) };
        let (ship, never) = (Silences::Windows(vec![window]), Silences::Never);
        assert!(standing(&ship, None, None).silent && !standing(&never, None, None).silent);
        assert!(standing(&never, Some(&mark(true, Some(10), None)), None).silent);
        assert!(standing(&ship, Some(&mark(false, None, Some(20))), None).silent, "who knows whether that is over");
    }
}
