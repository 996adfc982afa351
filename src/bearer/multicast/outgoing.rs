//! A transfer on its way to several nodes: what each of them probably lacks, and so how much more must leave.
//!
//! Called by [`super::Station`]. Symbols leave in the order of their indices, so many to a datagram; what a receiver has heard is told by the
//! index behind the last one. How many more datagrams must leave so that enough of them arrive is [`blind::spare`]'s arithmetic.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::wire::INDICES;
use crate::bearer::fec::Geometry;
use crate::bearer::serial::blind;
use crate::mail::{Precedence, TransferId};
use crate::time::{Duration, Instant};

/// Chance, of all receivers together, with which one may still lack something when the sender stops and waits for words: waiting is free
/// where something else can leave meanwhile.
const FAILURE: f64 = 0.02;
const FAILURE_BUSY: f64 = 0.3;
/// What is believed of the losses on the way to a receiver that has not been heard: so many of so many datagrams.
const PRIOR_LOST: f64 = 1.0;
const PRIOR_SENT: f64 = 40.0;
/// Datagrams after which a sample counts half.
const HALF_LIFE: f64 = 400.0;
/// Datagrams after which enough is known of the losses.
const KNOWN: f64 = 60.0;
/// Datagrams that leave while an answer is on its way, from which on it is asked for ahead: then a wait for words costs more than the words.
const LONG_FLIGHT: u32 = 8;

/// Losses on the way to a receiver.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Losses {
    lost: f64,
    sent: f64,
}

impl Losses {
    /// Takes what became of some datagrams.
    pub fn learn(&mut self, lost: f64, sent: f64) {
        let kept = 1.0 / (1.0 + sent / HALF_LIFE);
        self.lost = self.lost * kept + lost.clamp(0.0, sent);
        self.sent = self.sent * kept + sent;
    }

    /// The share that is lost.
    pub fn share(&self) -> f64 {
        (self.lost + PRIOR_LOST) / (self.sent + PRIOR_SENT)
    }

    /// Whether little has been learnt.
    pub fn are_guessed(&self) -> bool {
        self.sent < KNOWN
    }
}

/// What survives a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Symbols from this index on have never left.
    pub reserved: u32,
    /// What is known of the receivers, by station.
    pub members: BTreeMap<u8, MemberRecord>,
}

/// One receiver's part of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Store epoch of the receiver whose word `lack` is; 0 before the first.
    pub epoch: u32,
    /// The index that word speaks up to.
    pub upto: u32,
    /// Symbols missing there, per code block; empty before the first word.
    pub lack: Vec<u8>,
    /// Windows in which it was sent since that word, while the receiver kept silence.
    pub windows: u32,
}

/// One receiver.
#[derive(Debug)]
pub struct Member {
    /// The transfer as the switch knows it.
    pub id: TransferId,
    /// What is committed.
    pub record: MemberRecord,
    /// Symbols missing there, as far as is known.
    pub lack: Vec<u32>,
    /// The index that speaks of: later symbols may be there or not.
    pub as_of: u32,
    /// It is whole there, or the end of it is on its way.
    pub done: bool,
    /// It keeps silence: nothing is waited for.
    pub silent: bool,
    /// The last word's `heard` and `upto`, to learn losses from the next.
    pub counted: Option<(u32, u32)>,
    /// It has spoken since it was last asked how things stand.
    pub spoke: bool,
    /// Counter of the report that counts.
    pub report: u32,
}

impl Member {
    /// Takes what its record says; of what left before `reserved` nothing is known beside that.
    pub fn recount(&mut self, geometry: Geometry, reserved: u32) {
        let told = self.record.epoch != 0 && self.record.lack.len() == geometry.blocks() as usize;
        (self.lack, self.as_of) = match told {
            true => (self.record.lack.iter().map(|l| u32::from(*l)).collect(), self.record.upto),
            false => ((0..geometry.blocks()).map(|b| geometry.block_count(b)).collect(), reserved),
        };
    }

    /// Its word, committed: what it lacked when it had heard what left before `upto`; what left before `gone` cannot be on its way any more.
    pub fn speaks(&mut self, epoch: u32, upto: u32, gone: u32, lack: Vec<u8>) {
        self.lack = lack.iter().map(|l| u32::from(*l)).collect();
        self.as_of = upto.max(gone);
        self.record = MemberRecord { epoch, upto, lack, windows: 0 };
        self.spoke = true;
    }
}

/// One transfer.
#[derive(Debug)]
pub struct Sending {
    /// Level of service.
    pub precedence: Precedence,
    /// How it is cut.
    pub geometry: Geometry,
    /// The first two bytes of its payload.
    pub mark: u16,
    /// Its symbols, once made.
    pub symbols: Option<Arc<Vec<Vec<u8>>>>,
    /// Who is to have it.
    pub members: BTreeMap<u8, Member>,
    /// What is known of receivers that have not been handed in again after a restart.
    absent: BTreeMap<u8, MemberRecord>,
    /// Symbols in a datagram.
    pub each: u32,
    /// The index of the next symbol to leave.
    pub next: u32,
    /// The index it began at, after a restart too: what left before is there or lost.
    from: u32,
    /// When the latest symbols left, and the index behind them.
    left: VecDeque<(Instant, u32)>,
    /// Symbols from this index on wait for a commit.
    pub reserved: u32,
    /// A commit of more is under way.
    pub reserving: bool,
    /// Asked before anything leaves: it was on its way before a restart.
    pub unsure: bool,
    /// When who has not spoken is asked; grows.
    pub ask_at: Option<Instant>,
    /// Times asked since somebody spoke.
    pub asked: u32,
    /// The index up to which words were asked for last.
    pub asked_for: u32,
    /// One more datagram is to leave, because nobody may be asked in words.
    pub nudge: bool,
    /// Nothing leaves before.
    pub not_before: Option<Instant>,
    /// The index at which the present window towards silent receivers began.
    pub window_from: u32,
    /// Bytes and time on the air so far.
    pub bytes: u64,
    /// See `bytes`.
    pub air: Duration,
}

impl Sending {
    /// A transfer to these receivers, fresh or as it was left; `true` are silent.
    pub fn new(
        precedence: Precedence,
        geometry: Geometry,
        mark: u16,
        room: usize,
        record: Record,
        members: impl IntoIterator<Item = (u8, TransferId, bool)>,
    ) -> Self {
        let Record { reserved, members: absent } = record;
        let mut sending = Self {
            precedence,
            geometry,
            mark,
            symbols: None,
            members: BTreeMap::new(),
            absent,
            each: u32::try_from(room / geometry.symbol_bytes()).unwrap_or(u32::MAX).clamp(1, 4096),
            next: reserved,
            from: reserved,
            left: VecDeque::new(),
            reserved,
            reserving: false,
            unsure: reserved > 0,
            ask_at: None,
            asked: 0,
            asked_for: reserved,
            nudge: false,
            not_before: None,
            window_from: reserved,
            bytes: 0,
            air: Duration::ZERO,
        };
        members.into_iter().for_each(|(station, id, silent)| sending.join(station, id, silent));
        sending
    }

    /// One more receiver. What left before is there or lost, and nothing of it where it was not for that one.
    pub fn join(&mut self, station: u8, id: TransferId, silent: bool) {
        if self.members.contains_key(&station) {
            return;
        }
        let record = self.absent.remove(&station).unwrap_or_default();
        let (lack, counted) = (Vec::new(), None);
        let mut member = Member { id, lack, as_of: 0, record, done: false, silent, counted, spoke: false, report: 0 };
        member.recount(self.geometry, self.next);
        self.members.insert(station, member);
    }

    /// What is to be committed, with symbols up to `reserved` spoken for.
    pub fn record(&self, reserved: u32) -> Record {
        let open = self.members.iter().filter(|(_, m)| !m.done).map(|(s, m)| (*s, m.record.clone()));
        let members = open.chain(self.absent.iter().map(|(s, record)| (*s, record.clone()))).collect();
        Record { reserved, members }
    }

    /// Receivers that may still lack something.
    pub fn open(&self) -> impl Iterator<Item = (&u8, &Member)> {
        self.members.iter().filter(|(_, m)| !m.done)
    }

    /// Fewest datagrams from `from` on that hold what is lacking.
    fn needed(&self, lack: &[u32], from: u32) -> u32 {
        let blocks = self.geometry.blocks();
        let last = |(b, lack): (u32, &u32)| (lack - 1) * blocks + (b + blocks - from % blocks) % blocks + 1;
        (0..).zip(lack).filter(|(_, lack)| **lack > 0).map(last).max().unwrap_or(0).div_ceil(self.each)
    }

    /// The index that must be reached so that all of these receivers probably have enough. `failure` is for one receiver.
    fn target_for(&self, member: &Member, from: u32, loss: f64, failure: f64) -> u32 {
        let needed = self.needed(&member.lack, from);
        from.saturating_add((needed + blind::spare(needed, loss, failure)).saturating_mul(self.each)).min(INDICES - 1)
    }

    /// The index up to which symbols should leave now, by what is lost to each receiver.
    pub fn target(&self, loss: impl Fn(u8) -> f64, busy: bool) -> u32 {
        let speaking: Vec<_> = self.open().filter(|(_, m)| !m.silent).collect();
        let failure = if busy { FAILURE_BUSY } else { FAILURE } / speaking.len().max(1) as f64;
        speaking.iter().map(|(s, m)| self.target_for(m, m.as_of, loss(**s), failure)).max().unwrap_or(0)
    }

    /// The index up to which the present window to silent receivers goes; `None` when all have had their windows.
    pub fn window_target(&self, loss: impl Fn(u8) -> f64, policy: blind::Policy) -> Option<u32> {
        let silent: Vec<_> = self.open().filter(|(_, m)| m.silent && m.record.windows < policy.windows).collect();
        let failure = (1.0 - policy.target) / silent.len().max(1) as f64;
        silent.iter().map(|(s, m)| self.target_for(m, self.window_from, loss(**s), failure)).max()
    }

    /// Whether the next datagram should ask for words: the last that is meant to leave, and one half way while losses are guessed. Where many
    /// datagrams leave in the `flight` of an answer, also one so far ahead of the last that its answers come when that has left, and more
    /// leave without a pause if they say so; from there on one in every half of a flight.
    pub fn should_ask(&self, target: u32, guessed: bool, flight: u32) -> bool {
        let (before, after) = (self.next, self.next + self.each);
        let half = self.geometry.count() / 2;
        let within = |datagrams: u32, of: u32| after + datagrams * self.each >= of;
        let ahead = flight >= LONG_FLIGHT
            && after >= half
            && within(flight, target)
            && after >= self.asked_for + flight / 2 * self.each;
        within(0, target) || ahead || guessed && (before..after).contains(&half) && half > 4 * self.each
    }

    /// The index behind what had left by then.
    pub fn left_by(&self, then: Instant) -> u32 {
        self.left.iter().rev().find(|(at, _)| *at <= then).map_or(self.from, |(_, index)| *index)
    }

    /// The symbols that leave next, and the index of the first. What left before `forgotten` need not be told apart any more.
    pub fn take(&mut self, now: Instant, forgotten: Instant) -> Option<(u32, Vec<Vec<u8>>)> {
        let symbols = self.symbols.as_ref()?;
        if self.next + self.each > self.reserved {
            return None;
        }
        let index = self.next;
        let taken: Vec<Vec<u8>> = (index..index + self.each)
            .map_while(|i| symbols.get(super::wire::Symbols::sequence(self.geometry, i) as usize).cloned())
            .collect();
        self.next += self.each;
        while self.left.get(1).is_some_and(|(at, _)| *at <= forgotten) {
            self.left.pop_front();
        }
        self.left.push_back((now, self.next));
        (taken.len() == self.each as usize).then_some((index, taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Cut;

    fn sending(bytes: usize, room: usize) -> Sending {
        let geometry = Geometry::of_payload(bytes, Cut::Narrow).expect("in range");
        let id = TransferId { origin: "ship".into(), epoch: 1, counter: 1 };
        let members = (1..=3).map(|s| (s, id.clone(), false));
        Sending::new(Precedence::Routine, geometry, 0, room, Record::default(), members)
    }

    /// By going through the indices one by one.
    fn needed_slowly(s: &Sending, lack: &[u32], from: u32) -> u32 {
        let mut left = lack.to_vec();
        let mut index = from;
        while left.iter().any(|l| *l > 0) {
            let block = (index % s.geometry.blocks()) as usize;
            left[block] = left[block].saturating_sub(1);
            index += 1;
        }
        (index - from).div_ceil(s.each)
    }

    #[test]
    fn what_is_needed_is_counted_right() {
        let s = sending(102_400, 1364);
        let blocks = s.geometry.blocks() as usize;
        for from in [0, 1, 22, 1651, 1700] {
            for lack in [vec![1; blocks], vec![0; blocks], (0..blocks as u32).collect(), vec![127; blocks]] {
                assert_eq!(s.needed(&lack, from), needed_slowly(&s, &lack, from), "{lack:?} from {from}");
            }
        }
        assert_eq!(s.each, 22);
    }

    #[test]
    fn more_leaves_where_more_is_lost_and_for_more_receivers() {
        let s = sending(102_400, 1364);
        let targets = [0.001, 0.05, 0.2, 0.5].map(|loss| s.target(|_| loss, false));
        assert!(targets.windows(2).all(|t| t[0] < t[1]), "{targets:?}");
        assert!(targets[0] >= s.geometry.count() && targets[0] <= s.geometry.count() + 3 * s.each);
        let policy = blind::Policy { target: 0.999, ..blind::Policy::default() };
        assert_eq!(s.window_target(|_| 0.2, policy), None, "nobody is silent");
    }

    #[test]
    fn words_are_asked_for_a_flight_ahead_where_many_datagrams_leave_meanwhile() {
        let asked = |flight: u32| {
            let mut s = sending(102_400, 1364);
            let target = 90 * s.each;
            let mut asked = Vec::new();
            while s.next < target {
                if s.should_ask(target, true, flight) {
                    asked.push(s.next / s.each + 1);
                    s.asked_for = s.next + s.each;
                }
                s.next += s.each;
            }
            asked
        };
        // Half way, and with the last.
        assert_eq!(asked(1), [38, 90]);
        assert_eq!(asked(LONG_FLIGHT - 1), [38, 90]);
        // A flight of 30 before the last, and every 15 from there.
        assert_eq!(asked(30), [38, 60, 75, 90]);
        let mut short = sending(5000, 1364);
        let target = short.geometry.count() + 2 * short.each;
        let mut times = 0;
        while short.next < target {
            times += u32::from(short.should_ask(target, true, 30));
            short.next += short.each;
        }
        assert_eq!(times, 1, "what is shorter than half a flight asks once");
    }

    #[test]
    fn losses_are_learnt_and_forgotten() {
        let mut losses = Losses::default();
        assert!((losses.share() - 0.025).abs() < 1e-9 && losses.are_guessed());
        losses.learn(20.0, 100.0);
        assert!((losses.share() - 0.15).abs() < 1e-9 && !losses.are_guessed());
        (0..50).for_each(|_| losses.learn(0.0, 100.0));
        assert!(losses.share() < 0.005);
    }
}
