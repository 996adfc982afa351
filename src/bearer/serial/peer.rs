//! What a station knows of one neighbour.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use super::burst::{Belief, cell_survival};
use super::rate::{Quality, Sent};
use super::station::{Inbound, Unheard};
use crate::mail::{PeerName, Precedence};
use crate::time::{Duration, Instant};

/// Cells the loss estimate remembers before it halves its memory.
const MEMORY_CELLS: u32 = 400;
/// Before anything was heard two cases are believed: a link that loses next to nothing, or, with this chance, a poor one. For the question
/// how much parity a first message is worth their mean will not do.
const CLEAN: f64 = 0.01;
const POOR: f64 = 0.2;
const POOR_CHANCE: f64 = 0.3;
/// Cells after which the share of those lost is known well enough.
const KNOWN_CELLS: u32 = 20;
/// How many cells that were heard of what is believed is worth: few, so that the first report counts.
const BELIEVED_CELLS: f64 = 5.0;
/// How many cells a loss that the profile assumes is worth.
const ASSUMED_CELLS: f64 = 20.0;
/// Former epochs remembered, so that old control frames cannot bring one back.
const FORMER_EPOCHS: usize = 8;

/// What survives a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Its store epoch, 0 until a control frame told it.
    pub epoch: u32,
    /// Highest transfer counter of that epoch seen.
    pub transfer_seen: u32,
    /// Highest control counter of that epoch seen, and which of the 64 below it.
    pub control_seen: u32,
    window: u64,
    former: Vec<u32>,
    /// The epoch of ours that it last said it knows.
    pub knows: u32,
    /// Cells it could have heard lately, and how many of them it did not.
    cells: u32,
    lost: u32,
    /// What it can read, as the latest hello under that epoch said; 0 until one did. Records of before it was told end here.
    #[serde(default, deserialize_with = "or_default")]
    pub reads: u8,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(last: D) -> Result<T, D::Error> {
    Ok(T::deserialize(last).unwrap_or_default())
}

/// How far above the highest transfer counter seen a short id may stand; the other three quarters of its range lie below.
const SHORT_AHEAD: u32 = 0x3FF;

/// How a control counter relates to what was heard before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// First word of an epoch never heard before.
    NewEpoch,
    /// Not heard before.
    Fresh,
    /// Heard before, or too old to tell.
    Replay,
}

impl PeerRecord {
    /// Judges and remembers a control frame's epoch and counter (C3).
    pub fn admit(&mut self, epoch: u32, counter: u32) -> Admission {
        if epoch == 0 || self.former.contains(&epoch) {
            return Admission::Replay;
        }
        if epoch != self.epoch {
            if self.epoch != 0 {
                self.former.push(self.epoch);
                if self.former.len() > FORMER_EPOCHS {
                    self.former.remove(0);
                }
            }
            (self.epoch, self.transfer_seen, self.control_seen, self.window) = (epoch, 0, counter, 1);
            // Another store, perhaps another program: whether it knows ours is not known, nor what it reads.
            (self.knows, self.reads) = (0, 0);
            return Admission::NewEpoch;
        }
        if counter > self.control_seen {
            let shift = counter - self.control_seen;
            self.window = if shift < 64 { self.window << shift | 1 } else { 1 };
            self.control_seen = counter;
            return Admission::Fresh;
        }
        let age = self.control_seen - counter;
        if age >= 64 || self.window >> age & 1 == 1 {
            return Admission::Replay;
        }
        self.window |= 1 << age;
        Admission::Fresh
    }

    /// Learns of its epoch, and of a transfer of it, by way of another bearer. Whether the epoch is the present one, and whether it is new.
    pub fn acquaint(&mut self, epoch: u32, counter: u32) -> (bool, bool) {
        if epoch == 0 || self.former.contains(&epoch) {
            return (false, false);
        }
        let new = epoch != self.epoch;
        if new {
            self.admit(epoch, 0);
            // No word of it was heard here.
            self.window = 0;
        }
        self.transfer_seen = self.transfer_seen.max(counter);
        (true, new)
    }

    /// Full epoch and counter of a short id, 0 and the short id itself while the epoch is unknown.
    pub fn expand(&self, short: u16) -> (u32, u32) {
        if self.epoch == 0 || self.epoch & 0xF != u32::from(short >> 12) {
            return (0, u32::from(short));
        }
        let base = self.transfer_seen & !0xFFF | u32::from(short & 0xFFF);
        let near = [base.checked_sub(0x1000), Some(base), base.checked_add(0x1000)];
        // A new counter is at most a little above the highest one; one that waits behind others falls far below it. Taken for one
        // above, it would raise the highest counter, and the next one waiting would be misread in turn.
        let highest = self.transfer_seen.saturating_add(SHORT_AHEAD);
        let counter = near.into_iter().flatten().filter(|c| *c <= highest).max().unwrap_or(base);
        (self.epoch, counter)
    }

    /// Learns from a report that of `frames` symbol frames over `cells` cells each `heard` arrived.
    pub fn learn(&mut self, frames: u32, heard: u32, cells: f64) {
        let (sent, lost) = (f64::from(frames), f64::from(frames.saturating_sub(heard)));
        // Where all were lost, half a frame less: nothing is lost for certain.
        let arrived = 1.0 - lost.min((sent - 0.5).max(0.0)) / sent.max(1.0);
        let all = (sent * cells).round();
        self.cells += all as u32;
        self.lost += (all * (1.0 - cell_survival(arrived, cells))).round() as u32;
        while self.cells > MEMORY_CELLS {
            (self.cells, self.lost) = (self.cells / 2, self.lost / 2);
        }
    }

    /// Share of cells that do not arrive there, where beside what is known `lost` of `cells` are believed.
    fn loss_beside(&self, lost: f64, cells: f64) -> f64 {
        (f64::from(self.lost) + lost) / (f64::from(self.cells) + cells)
    }
}

/// A neighbour.
#[derive(Debug)]
pub struct Peer {
    /// Its node name.
    pub name: PeerName,
    /// What survives a restart.
    pub record: PeerRecord,
    /// What it last said waits there: `None` when it said nothing yet, `Some(None)` for nothing.
    pub waiting: Option<Option<Precedence>>,
    /// Short ids its next report must speak of.
    pub answer: BTreeSet<u16>,
    /// A report is owed to it.
    pub owed: bool,
    /// Something of it was heard that asked this station for nothing: to be reported when asked, or after silence.
    pub unasked: bool,
    /// Short ids of transfers for other stations, as it said.
    pub aside: BTreeSet<u16>,
    /// Its question was answered, and nothing but questions came from it since.
    pub answered: bool,
    /// It asked for a report, so it gets to know of everything that is incomplete.
    pub polled: bool,
    /// Symbol frames heard in its latest transmission, and in those before it after which it went on.
    pub heard: u16,
    /// It went on after its latest transmission, and no report was given since.
    pub goes_on: bool,
    /// When its symbols were heard last, it had mail for this station of which nothing had left.
    pub more_waits: bool,
    /// Symbol frames of the transmissions its next report will answer.
    pub sent_frames: u32,
    /// Cells each of those touched, on average.
    pub sent_cells: f64,
    /// They are several.
    pub sent_chained: bool,
    /// Air of those transmissions.
    pub sent_air: Duration,
    /// Air of transmissions that it was heard to have heard, without one in between that it was not.
    pub heard_for: Duration,
    /// When a frame of it was heard last.
    pub heard_at: Option<Instant>,
    /// Others had their slots behind that transmission.
    pub sent_before_others: bool,
    /// Little of such a one was heard, so stations hidden from here may not have waited for its end: the next keeps to its slot.
    pub keeps_slot: bool,
    /// Turns after which nothing was heard, in a row.
    pub attempts: u32,
    /// Turns whose answer could not be read, since something of it could be.
    pub garbled: u32,
    /// Somebody who could not be read spoke when its answer was due.
    pub spoke_garbled: bool,
    /// Nothing is sent to it on our own initiative before this.
    pub not_before: Option<Instant>,
    /// Cancelled transfers it has not yet disowned, and how often it was told.
    pub cancels: BTreeMap<u16, u8>,
    /// Transmissions in a row in which headers named it and not one seal fitted.
    pub unsealed_turns: u32,
    /// A full report went to it under our present epoch.
    pub told: bool,
    /// Since then it went on without a hello: it knows that epoch.
    pub took: bool,
    /// How its latest transmission was heard here, and the ratio alone for people.
    pub incoming: Option<Quality>,
    /// See there.
    pub incoming_db: Option<f64>,
    /// It wants to know that.
    pub asks: bool,
    /// How it heard the transmission that its report, being read, answers.
    pub told_quality: Option<Quality>,
    /// The transmission its next report will answer.
    pub sent: Option<Sent>,
    /// Bytes of symbols in that one's frames.
    pub frame_bytes: usize,
    /// A transmission with symbols whose report did not come.
    pub unheard: Option<Unheard>,
    /// What is lost of it on the way here.
    pub inbound: Inbound,
    /// How soon it answers.
    pub turnaround: Turnaround,
    /// It keeps silence, as far as this node is told: what goes to it goes blind.
    pub silent: bool,
    /// When it was last heard in spite of that.
    pub spoke: Option<Instant>,
    /// It has said, since the start, that it knows no more of this node's past than the own store; before that, nothing new goes to
    /// it without a question.
    pub agrees: bool,
}

impl Peer {
    /// A peer as it was left.
    pub fn new(name: PeerName, record: PeerRecord) -> Self {
        Self {
            name,
            record,
            waiting: None,
            answer: BTreeSet::new(),
            owed: false,
            unasked: false,
            aside: BTreeSet::new(),
            answered: false,
            polled: false,
            heard: 0,
            goes_on: false,
            more_waits: false,
            sent_frames: 0,
            sent_chained: false,
            sent_air: Duration::ZERO,
            heard_for: Duration::ZERO,
            heard_at: None,
            sent_before_others: false,
            keeps_slot: false,
            sent_cells: 1.0,
            attempts: 0,
            garbled: 0,
            spoke_garbled: false,
            not_before: None,
            cancels: BTreeMap::new(),
            unsealed_turns: 0,
            told: false,
            took: false,
            incoming: None,
            incoming_db: None,
            asks: false,
            told_quality: None,
            sent: None,
            frame_bytes: 0,
            unheard: None,
            inbound: Inbound::default(),
            turnaround: Turnaround::default(),
            silent: false,
            spoke: None,
            agrees: false,
        }
    }

    /// Estimated share of cells that do not arrive there: by its reports, and while there are few of them by what is lost on the way here.
    pub fn loss(&self) -> f64 {
        let (lost, cells) = self.inbound.evidence();
        let believed: f64 = self.cases().iter().map(|(loss, chance)| loss * chance).sum();
        self.record.loss_beside(believed * BELIEVED_CELLS + lost, BELIEVED_CELLS + cells)
    }

    /// What is believed of the cells on the way there, while too little is known for one figure.
    pub fn beliefs(&self) -> Option<[Belief; 2]> {
        (self.record.cells < KNOWN_CELLS).then(|| self.cases())
    }

    /// The two cases, and how likely each is by what was lost on the way there and on the way here.
    fn cases(&self) -> [Belief; 2] {
        let (lost, cells) = self.inbound.evidence();
        let lost = (lost + f64::from(self.record.lost)) as u32;
        let arrived = ((cells + f64::from(self.record.cells)) as u32).saturating_sub(lost);
        // Products rather than powers: the same on every machine. Without end or next to nothing is right too.
        let odds = (0..lost).fold(POOR_CHANCE / (1.0 - POOR_CHANCE), |odds, _| odds * (POOR / CLEAN));
        let odds = (0..arrived).fold(odds, |odds, _| odds * ((1.0 - POOR) / (1.0 - CLEAN)));
        let poor = 1.0 / (1.0 + 1.0 / odds);
        [(CLEAN, 1.0 - poor), (POOR, poor)]
    }

    /// The same where this is believed before anything was heard.
    pub fn loss_given(&self, prior: f64) -> f64 {
        self.record.loss_beside(prior * ASSUMED_CELLS, ASSUMED_CELLS)
    }

    /// Whether there is something to be told that is cancelled. A silent peer is told when it is silent no more.
    pub fn cancelling(&self) -> bool {
        !self.silent && !self.cancels.is_empty()
    }

    /// A good frame came from it.
    pub fn alive(&mut self) {
        self.attempts = 0;
        self.garbled = 0;
        self.not_before = None;
        self.unsealed_turns = 0;
    }

    /// Its answer did not come, or could not be read. Gives what an operator should know of that.
    pub fn failed(&mut self) -> Option<&'static str> {
        if std::mem::take(&mut self.spoke_garbled) {
            self.garbled += 1;
            self.attempts = 0;
            return (self.garbled == UNREADABLE).then_some("answers, but cannot be read");
        }
        self.attempts += 1;
        (self.sent_air, self.heard_for) = (Duration::ZERO, Duration::ZERO);
        (self.attempts == UNHEARD).then_some("does not answer")
    }

    /// How hard the present failure is, for the back-off: an answer that was only damaged says that the peer is there.
    pub fn failures(&self) -> u32 {
        (self.attempts + self.garbled / 8).max(1)
    }
}

/// How soon a peer answers, from the end of our carrier to the first symbol of its own as far as it is noticed: a running mean, and how
/// far single answers are from it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Turnaround {
    count: u32,
    mean_s: f64,
    deviation_s: f64,
}

impl Turnaround {
    /// Takes another answer.
    pub fn take(&mut self, after: Duration) {
        let after = after.as_secs_f64();
        self.count = self.count.saturating_add(1);
        if self.count == 1 {
            (self.mean_s, self.deviation_s) = (after, after / 2.0);
            return;
        }
        let off = after - self.mean_s;
        self.mean_s += off / 8.0;
        self.deviation_s += (off.abs() - self.deviation_s) / 4.0;
    }

    /// The mean, once there is one.
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_secs_f64(self.mean_s))
    }

    /// By when nearly every answer has begun: never before what is configured, never more than four times that and ten seconds.
    pub fn within(&self, configured: Duration) -> Duration {
        let most = configured * 4 + Duration::from_secs(10);
        let measured = Duration::from_secs_f64(self.mean_s + 4.0 * self.deviation_s);
        if self.count == 0 { configured * 2 + Duration::from_secs(2) } else { measured.clamp(configured, most) }
    }
}

/// Turns without an answer, and with unreadable ones, until the operator is told.
const UNHEARD: u32 = 8;
const UNREADABLE: u32 = 32;

/// How long to leave an unanswering peer alone: slots of `slot`, even ones for the lower station and odd ones for the higher, so
/// that two that collided cannot collide again in step; after some tries minutes, at most ten.
pub fn back_off(attempts: u32, higher: bool, slot: Duration, chance: u64) -> Duration {
    let spread = 1u64 << attempts.clamp(1, 4);
    let slots = 2 * (chance % spread) + u64::from(higher);
    let patience = Duration::from_secs(30) * (1 << attempts.saturating_sub(3).min(5)).min(20);
    let patience = if attempts > 3 { patience } else { Duration::ZERO };
    patience + slot * u32::try_from(slots).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bearer::fec::Geometry;
    use crate::bearer::serial::frame::Chunk;
    use crate::mail::Cut;

    #[test]
    fn control_counters_are_taken_once() {
        let mut r = PeerRecord::default();
        assert_eq!(r.admit(7, 100), Admission::NewEpoch);
        assert_eq!(r.admit(7, 100), Admission::Replay);
        assert_eq!(r.admit(7, 102), Admission::Fresh);
        assert_eq!(r.admit(7, 101), Admission::Fresh);
        assert_eq!(r.admit(7, 101), Admission::Replay);
        assert_eq!(r.admit(7, 300), Admission::Fresh);
        assert_eq!(r.admit(7, 200), Admission::Replay);
        assert_eq!(r.admit(9, 1), Admission::NewEpoch);
        assert_eq!(r.admit(7, 999), Admission::Replay, "an epoch once left does not come back");
    }

    #[test]
    fn a_stranger_is_believed_clean_or_poor_by_what_is_heard_and_reported_until_it_is_known() {
        let mut peer = Peer::new("far".into(), PeerRecord::default());
        let poor = |peer: &Peer| peer.beliefs().map(|[_, (loss, chance)]| (loss * 100.0, (chance * 100.0).round()));
        assert_eq!(poor(&peer), Some((20.0, 30.0)));
        peer.record.learn(4, 4, 1.0);
        assert_eq!(poor(&peer), Some((20.0, 15.0)), "four of four arrived");
        peer.record.learn(4, 3, 1.0);
        assert_eq!(poor(&peer), Some((20.0, 66.0)), "one did not");
        peer.record.learn(12, 12, 1.0);
        assert_eq!(poor(&peer), None, "twenty say enough");
        let mut heard = Peer::new("far".into(), PeerRecord::default());
        let geometry = Geometry::of_payload(4000, Cut::Narrow).expect("in range");
        for first in [0, 8, 16, 40] {
            let chunk = Chunk { short: 1, geometry, first, symbols: vec![vec![0; 31]; 8] };
            heard.inbound.hear(&chunk, 248);
        }
        assert!(poor(&heard).is_some_and(|(_, chance)| chance > 75.0), "two of six did not arrive here");
        assert!(heard.loss() > 0.08);
    }

    #[test]
    fn short_ids_expand_to_the_nearest_counter() {
        let mut r = PeerRecord { epoch: 0x1235, transfer_seen: 0x1FFE, ..PeerRecord::default() };
        assert_eq!(r.expand(0x5003), (0x1235, 0x2003));
        assert_eq!(r.expand(0x5FF0), (0x1235, 0x1FF0));
        assert_eq!(r.expand(0x6003), (0, 0x6003));
        r.transfer_seen = 3;
        assert_eq!(r.expand(0x5FFF), (0x1235, 0xFFF));
    }

    #[test]
    fn a_transfer_that_thousands_of_newer_ones_overtook_keeps_its_counter() {
        let r = PeerRecord { epoch: 0x1235, transfer_seen: 4000, ..PeerRecord::default() };
        for counter in [4000 - 3072, 1029, 2048, 3999, 4000, 4001, 4000 + SHORT_AHEAD] {
            assert_eq!(r.expand(0x5000 | (counter & 0xFFF) as u16), (0x1235, counter));
        }
    }

    #[test]
    fn an_answer_is_waited_for_as_long_as_answers_have_taken_and_within_bounds() {
        let (configured, mut t) = (Duration::from_secs(2), Turnaround::default());
        assert_eq!((t.mean(), t.within(configured)), (None, Duration::from_secs(6)));
        for _ in 0..60 {
            t.take(Duration::from_millis(4500));
        }
        assert_eq!(t.mean(), Some(Duration::from_millis(4500)));
        assert!((4.5..4.6).contains(&t.within(configured).as_secs_f64()), "{t:?}");
        (0..60).for_each(|_| t.take(Duration::from_millis(300)));
        assert_eq!(t.within(configured), configured, "a modem may need what its sheet says again");
        (0..60).for_each(|_| t.take(Duration::from_secs(100)));
        assert_eq!(t.within(configured), Duration::from_secs(18));
    }

    #[test]
    fn an_answer_that_could_not_be_read_is_no_absence() {
        let mut p = Peer::new("ship".into(), PeerRecord::default());
        (0..7).for_each(|_| assert_eq!(p.failed(), None));
        p.spoke_garbled = true;
        assert_eq!((p.failed(), p.failures()), (None, 1), "it is there");
        (0..7).for_each(|_| assert_eq!(p.failed(), None));
        assert_eq!(p.failed(), Some("does not answer"));
        p.alive();
        let told: Vec<_> = (0..40)
            .filter_map(|_| {
                p.spoke_garbled = true;
                p.failed()
            })
            .collect();
        assert_eq!((told, p.failures()), (vec!["answers, but cannot be read"], 5));
    }

    #[test]
    fn back_off_slots_of_two_stations_never_coincide() {
        let slot = Duration::from_secs(6);
        for attempts in 1..12 {
            for chance in 0..64 {
                for other in 0..64 {
                    assert_ne!(back_off(attempts, false, slot, chance), back_off(attempts, true, slot, other));
                }
            }
        }
        assert!(back_off(40, true, slot, 15) < Duration::from_secs(900));
    }
}
