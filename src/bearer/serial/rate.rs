//! Which rate and interleaver to transmit with, from what the receivers say of it. Pure and clockless; [`Station`](super::Station)
//! asks before it keys and tells what came of it. `docs/rate.md` explains the rules and gives figures.
//!
//! [`Palette`] is what the modem can be told; [`Reach`] is what is known of the way to one peer: the signal-to-noise ratio there, how sure
//! that is, and by how much each waveform does worse or better than its sheet says. The choice is the waveform that brings most across
//! per second, expectation over what is not known included. All arithmetic is sums, products and roots: every machine chooses alike.

use serde::{Deserialize, Serialize};

use super::burst::Air;
use super::{Choice, Waveform};
use crate::bearer::Measurement;
use crate::time::{Duration, Instant};

/// How fast the ratio wanders off, dB² a second: 3 dB over 20 minutes, and a little more for what comes and goes with the sun.
const DRIFT: f64 = 0.015;
/// What is not known of the ratio at most, dB².
const VAGUE: f64 = 100.0;
/// What of that counts when a waveform is chosen, dB²: expectation over wide doubt would gamble on fast ones.
const MOST_DOUBT: f64 = 9.0;
/// Spread of the ratio over seconds where nobody told it, dB.
const USUAL_SPREAD: f64 = 4.0;
/// Its correlation time, seconds.
const QUICK: f64 = 10.0;
/// Error of one modem's figure, dB².
const READING: f64 = 2.0;
/// How much less the way back may tell of the way there: dB, and dB² of doubt.
const BACKWARDS: (f64, f64) = (2.0, 25.0);
/// Share of blocks that must be expected to arrive: a fast waveform that mostly fails brings as much as a slow one that does not, but
/// its turns fail too.
const LEAST_SUCCESS: f64 = 0.45;
/// The same for the rate in use: one that was good enough is not given up for a number that wavers about a bound.
const LEAST_KEPT: f64 = 0.2;
/// How much better another waveform must be before it is taken.
const WORTH: f64 = 1.2;
const WORTH_SLOWER: f64 = 1.08;
/// In how many standard deviations of what is not known of the ratio a change of rate must be worth it still.
const SURE: f64 = 0.75;
/// What it must save of the transmission it is made for, seconds.
const CHANGE: f64 = 6.0;
/// Good transmissions before the rate goes up.
const GOOD: u32 = 2;
/// Of a transmission's frames so many must have arrived for it to be a good one.
const GOOD_SHARE: f64 = 0.5;
/// A sheet's figure stands for one block in ten lost; half of them are lost so many dB below, at a decade a decibel.
const HALF_BELOW: f64 = 0.954;
/// What a frame needs more with every doubling of the blocks it lies over, in units of their spread: the worst of them decides.
const FRAME_OVER_BLOCKS: f64 = 0.3;
/// Width of that step, dB².
const STEP: f64 = 0.64;
/// Bit error ratio at the sheet's figure, as a power of ten: one block in ten, one bit in twenty of it.
const BER_AT_ANCHOR: f64 = -2.3;
/// Farthest a waveform is believed to be off its sheet, dB.
const MOST_BIAS: f64 = 15.0;
/// Shares that transmissions stand for of which nothing and of which all arrived, where nobody measures.
const NOTHING: f64 = 0.04;
const WHOLE: f64 = 0.993;
/// How much nearer a faster waveform comes with every whole transmission of a slower one, dB: nobody knows until it is tried.
const CONFIDENCE: f64 = 0.05;
/// The same for a shorter block at the same rate.
const CONFIDENCE_BLOCK: f64 = 0.1;
/// How much of what is learnt of a waveform holds for the others of its rate.
const ALIKE: f64 = 0.5;
/// What a turn costs beside the transmissions themselves when it fails, seconds.
const FAILED_TURN: f64 = 12.0;

/// What the modem can be told to transmit with.
#[derive(Debug)]
pub struct Palette {
    choices: Vec<Choice>,
    airs: Vec<Air>,
    /// Doublings of the blocks a frame lies over.
    doublings: Vec<f64>,
    start: usize,
    reply: Duration,
}

impl Palette {
    /// These, beginning with the one that is `start`; `None` when there are none.
    pub fn new(mut choices: Vec<Choice>, start: &Waveform) -> Option<Self> {
        choices.sort_by_key(|c| (c.waveform.rate, c.waveform.block));
        let robust = choices.first()?.waveform.rate.0;
        // A report goes in a short block at a low rate, whatever the traffic has.
        let low = choices.iter().filter(|c| c.waveform.rate.0 <= robust.max(600));
        let reply = low.map(|c| Air::new(c.waveform.clone()).report()).min()?;
        let airs = choices.iter().map(|c| Air::new(c.waveform.clone()).answered_in(reply)).collect();
        let start = choices.iter().position(|c| c.waveform == *start).unwrap_or(0);
        let doublings = choices.iter().map(doublings).collect();
        Some(Self { choices, airs, doublings, start, reply })
    }

    /// The arithmetic of a choice.
    pub fn air(&self, choice: usize) -> &Air {
        &self.airs[choice.min(self.airs.len() - 1)]
    }

    /// A choice.
    pub fn choice(&self, choice: usize) -> &Choice {
        &self.choices[choice.min(self.choices.len() - 1)]
    }

    /// Where a link begins.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Longest until the first block of a report is out, from its first preamble symbol, whatever the peer answers with.
    pub fn longest_answer(&self) -> Duration {
        self.airs.iter().map(|air| air.transmission(2)).max().unwrap_or(self.reply)
    }

    /// What a report takes at most, whatever the peer answers with.
    pub fn longest_report(&self) -> Duration {
        self.airs.iter().map(|air| air.transmission(air.least_blocks())).max().unwrap_or(self.reply)
    }

    /// The longest block anybody may send.
    pub fn longest_block(&self) -> Duration {
        self.choices.iter().map(|c| c.waveform.block).max().unwrap_or(self.reply)
    }

    fn rate(&self, choice: usize) -> u32 {
        self.choice(choice).waveform.rate.0
    }

    /// The more daring of two is the greater: the faster one, or of one rate that with the shorter block.
    fn order(&self, choice: usize) -> (u32, std::cmp::Reverse<Duration>) {
        let w = &self.choice(choice).waveform;
        (w.rate.0, std::cmp::Reverse(w.block))
    }

    /// Ratio at which half of a transmission's frames are lost where blocks usually differ, dB.
    fn half_db(&self, choice: usize) -> f64 {
        self.half_db_at(choice, USUAL_SPREAD)
    }

    /// The same where the ratio of blocks has this spread: where all are alike, a frame over many is lost no sooner than one of them.
    fn half_db_at(&self, choice: usize, spread: f64) -> f64 {
        let doublings = self.doublings[choice.min(self.doublings.len() - 1)];
        self.choice(choice).anchor_db - HALF_BELOW + FRAME_OVER_BLOCKS * spread * doublings
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.choices.len()
    }

    /// What a measurement says of the ratio, dB: the modem's own figure, or what its bit errors mean for the waveform heard.
    pub fn ratio(&self, m: &Measurement) -> Option<f64> {
        let heard = m.waveform.as_ref().and_then(|name| self.choices.iter().find(|c| c.name == *name));
        let by_errors = || {
            let decades = f64::from(m.ber_tenths?) / 10.0;
            Some(heard?.anchor_db + (BER_AT_ANCHOR - decades).clamp(-3.0, 4.0))
        };
        m.snr_tenths.map(|t| f64::from(t) / 10.0).or_else(by_errors)
    }
}

/// What a station measured of a transmission it heard, as it goes over the air: one byte.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quality {
    /// Mean ratio, dB.
    pub db: f64,
    /// Its spread over the blocks, dB; `None` when fewer than three were measured.
    pub spread_db: Option<f64>,
}

/// Step and lowest value of the ratio on the air.
const QUALITY_STEP: f64 = 1.5;
const QUALITY_LEAST: f64 = -12.0;

impl Quality {
    /// The byte on the air: five bits of ratio, three of spread.
    pub fn emit(self) -> u8 {
        let ratio = ((self.db - QUALITY_LEAST) / QUALITY_STEP).round().clamp(0.0, 31.0) as u8;
        let spread = self.spread_db.map_or(0, |s| s.round().clamp(1.0, 7.0) as u8);
        ratio << 3 | spread
    }

    /// Reads it.
    pub fn parse(byte: u8) -> Self {
        let spread = byte & 7;
        let spread_db = (spread > 0).then_some(f64::from(spread));
        Self { db: QUALITY_LEAST + f64::from(byte >> 3) * QUALITY_STEP, spread_db }
    }
}

/// Readings of one transmission.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readings {
    count: u32,
    sum: f64,
    squares: f64,
}

impl Readings {
    /// Takes another.
    pub fn take(&mut self, db: f64) {
        (self.count, self.sum, self.squares) = (self.count + 1, self.sum + db, self.squares + db * db);
    }

    /// What they come to.
    pub fn quality(&self) -> Option<Quality> {
        let n = f64::from(self.count);
        let db = (self.count > 0).then(|| self.sum / n)?;
        let spread = (self.count > 2).then(|| ((self.squares - n * db * db).max(0.0) / (n - 1.0)).sqrt());
        Some(Quality { db, spread_db: spread })
    }
}

/// Where the ratio is known from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Source {
    /// Nothing has come back yet.
    Nothing,
    /// What arrives and what does not.
    Losses,
    /// What is heard of the peer, which need not be the same the other way.
    Heard,
    /// The peer's word.
    Told,
}

/// What was sent to a peer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sent {
    /// With which waveform.
    pub choice: usize,
    /// Symbol frames.
    pub frames: u32,
    /// How long it was on the air.
    pub air: Duration,
}

/// What of a [`Reach`] outlives a restart, in tenths of a decibel.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Learnt {
    mean: i16,
    spread: u8,
    /// Rate, milliseconds of a block, and what such a waveform needs more than its sheet says; none that does as it says.
    bias: Vec<(u32, u32, i16)>,
}

/// The slowest rate of which lately next to nothing arrived. It is left alone for a while, longer each time it fails again; faster ones
/// are until it has worked.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Ceiling {
    rate: u32,
    /// Transmissions of traffic it is left alone for, and the number of the one that may try it again.
    wait: u32,
    until: u32,
    /// The ratio when it failed, dB.
    mean: f64,
}

/// Transmissions of traffic for which a rate that failed altogether is left alone, at first and at most.
const LEFT_ALONE: (u32, u32) = (8, 64);
/// Of a transmission's frames fewer must have arrived for its rate to have failed.
const FAILED_SHARE: f64 = 0.15;
/// By so many dB better than when it failed, by the peer's word, a rate is not left alone any longer.
const BETTER: f64 = 3.0;

/// Success below which nothing is expected to arrive.
const LEAST_HOPE: f64 = 0.05;
/// Turns in vain, in a row, after which a peer is lost.
const LOST: u32 = 4;

/// What is known of the way to one peer.
#[derive(Clone, Debug)]
pub struct Reach {
    mean: f64,
    variance: f64,
    spread: f64,
    at: Option<Instant>,
    source: Source,
    /// By how much each waveform needs more than its sheet says, dB.
    bias: Vec<f64>,
    present: usize,
    good: u32,
    /// Nothing arrived of the latest transmission of which that is known.
    lost_all: bool,
    ceiling: Option<Ceiling>,
    unanswered: u32,
    /// Reports that it asked for again, since anything of ours was known to be heard there.
    unheard: u32,
    /// Transmissions of traffic, and changes of rate between them.
    pub sent: u32,
    /// See there.
    pub changes: u32,
}

impl Reach {
    /// Nothing is known.
    pub fn new(palette: &Palette) -> Self {
        let start = palette.choice(palette.start);
        Self {
            mean: start.anchor_db + USUAL_SPREAD,
            variance: VAGUE / 4.0,
            spread: USUAL_SPREAD,
            at: None,
            source: Source::Nothing,
            bias: palette.all().map(|_| 0.0).collect(),
            present: palette.start,
            good: 0,
            lost_all: false,
            ceiling: None,
            unanswered: 0,
            unheard: 0,
            sent: 0,
            changes: 0,
        }
    }

    /// What is worth keeping over a restart; `None` while nothing has come back.
    pub fn learnt(&self, palette: &Palette) -> Option<Learnt> {
        let tenths = |db: f64| (db * 10.0).round() as i16;
        let named = palette.choices.iter().map(|c| (c.waveform.rate.0, c.waveform.block.as_millis() as u32));
        let bias = named.zip(&self.bias).map(|((rate, block), db)| (rate, block, tenths(*db))).filter(|b| b.2 != 0);
        let known = self.source > Source::Nothing;
        known.then(|| Learnt { mean: tenths(self.mean), spread: tenths(self.spread) as u8, bias: bias.collect() })
    }

    /// Begins with what was learnt before a restart. The ratio is a guess again: nobody knows how long ago that was.
    pub fn remember(&mut self, palette: &Palette, learnt: &Learnt) {
        self.mean = (f64::from(learnt.mean) / 10.0).clamp(-30.0, 60.0);
        self.spread = (f64::from(learnt.spread) / 10.0).clamp(1.0, 7.0);
        for (choice, bias) in palette.choices.iter().zip(&mut self.bias) {
            let name = (choice.waveform.rate.0, choice.waveform.block.as_millis() as u32);
            if let Some((.., tenths)) = learnt.bias.iter().find(|(rate, block, _)| (*rate, *block) == name) {
                *bias = (f64::from(*tenths) / 10.0).clamp(-MOST_BIAS, MOST_BIAS);
            }
        }
    }

    /// Ratio there, dB, once anything is known of it.
    pub fn ratio_db(&self) -> Option<f64> {
        (self.source > Source::Losses).then_some(self.mean)
    }

    /// Whether the peer tells what it measures.
    pub fn is_told(&self) -> bool {
        self.source == Source::Told
    }

    /// What traffic goes with.
    pub fn present(&self) -> usize {
        self.present
    }

    /// Whether a transmission with this waveform is a trial: what was last sent was lost altogether or not answered, or what was sent
    /// at this rate was.
    pub fn tries(&self, palette: &Palette, choice: usize) -> bool {
        self.lost_all || self.unanswered > 0 || self.ceiling.is_some_and(|c| palette.rate(choice) >= c.rate)
    }

    /// Whether a rate is not one that failed lately.
    fn allows(&self, rate: u32) -> bool {
        self.ceiling.is_none_or(|c| {
            let due = self.sent >= c.until || self.is_told() && self.mean > c.mean + BETTER;
            rate < c.rate || rate == c.rate && due
        })
    }

    /// What a transmission at this rate says of the rates to leave alone.
    fn bound(&mut self, rate: u32, share: f64) {
        let (least, most) = LEFT_ALONE;
        if share < FAILED_SHARE {
            let wait = self.ceiling.map_or(least, |c| if rate < c.rate { least } else { (c.wait * 2).min(most) });
            let rate = self.ceiling.map_or(rate, |c| c.rate.min(rate));
            self.ceiling = Some(Ceiling { rate, wait, until: self.sent + wait, mean: self.mean });
        } else if share >= GOOD_SHARE && self.ceiling.is_some_and(|c| rate >= c.rate) {
            self.ceiling = None;
        }
    }

    /// In words, why.
    pub fn why(&self) -> &'static str {
        match (self.unanswered, self.source) {
            (2.., _) => "stepping down: no answer",
            (_, Source::Nothing) => "first contact",
            (_, Source::Losses) => "by what arrives",
            (_, Source::Heard) => "by what is heard of it",
            (_, Source::Told) => "by its report",
        }
    }

    /// The peer says what it measured of a transmission of ours.
    pub fn told(&mut self, now: Instant, quality: Quality, air: Duration) {
        self.source = Source::Told;
        self.unheard = 0;
        self.measure(now, quality.db, scatter(air) + READING);
        if let Some(spread) = quality.spread_db {
            self.spread = (self.spread + 0.2 * (spread - self.spread)).clamp(1.0, 7.0);
        }
    }

    /// Its own transmission was heard with this ratio: for want of a better one, that is the way there too.
    /// It counts little beside a fresh word of the peer's, and much once that is old: the variance has grown by then.
    pub fn overheard(&mut self, now: Instant, quality: Quality, air: Duration) {
        self.source = self.source.max(Source::Heard);
        self.measure(now, quality.db - BACKWARDS.0, scatter(air) + READING + BACKWARDS.1);
    }

    /// Of what was sent so many frames arrived.
    pub fn arrived(&mut self, now: Instant, palette: &Palette, sent: Sent, heard: u32, told: Option<Quality>) {
        if sent.frames == 0 {
            return;
        }
        let share = (f64::from(heard) / f64::from(sent.frames)).min(1.0);
        self.good = if share >= GOOD_SHARE { self.good + 1 } else { 0 };
        self.lost_all = heard == 0;
        // Where the ratio is known, the bias says it better.
        if self.source <= Source::Losses {
            self.bound(palette.rate(sent.choice), share);
        }
        if heard > 0 {
            self.unheard = 0;
        }
        self.source = self.source.max(Source::Losses);
        if self.source <= Source::Losses {
            self.by_losses(now, palette, sent, share);
            return;
        }
        let ratio = told.map_or(self.mean, |q| q.db);
        let doubt = if told.is_some() { READING } else { self.variance };
        let expected = self.success_at(palette, sent.choice, ratio, doubt);
        // Few frames say little, unless not one of them arrived.
        let weight = if heard == 0 { 1.0 } else { (f64::from(sent.frames) / 8.0).min(1.0) };
        let off = (expected - share) * weight * if share < expected { 3.0 } else { 1.5 };
        let rate = palette.rate(sent.choice);
        for choice in palette.all() {
            let other = choice != sent.choice;
            let bias = &mut self.bias[choice];
            *bias += match other {
                false => off,
                true if palette.rate(choice) == rate => ALIKE * off,
                true => 0.2 * off,
            };
            if other && palette.order(choice) > palette.order(sent.choice) && share > 0.95 {
                // Another interleaver costs little to try.
                *bias -= if palette.rate(choice) == rate { CONFIDENCE_BLOCK } else { CONFIDENCE };
            }
            *bias = bias.clamp(-MOST_BIAS, MOST_BIAS);
        }
    }

    /// A modem that measures nothing: what arrived says where the ratio must be.
    fn by_losses(&mut self, now: Instant, palette: &Palette, sent: Sent, share: f64) {
        let sigma = self.block_variance(palette, sent.choice).sqrt();
        let at = palette.half_db(sent.choice) + inverse(share.clamp(NOTHING, WHOLE)) * sigma;
        // All arrived: it is that good at least. Nothing arrived: at most.
        if !(share > 0.95 && at < self.mean || share < 0.05 && at > self.mean) {
            self.measure(now, at, 6.0 + 40.0 / f64::from(sent.frames) + scatter(sent.air));
        }
    }

    /// A turn went without an answer: each in a row counts for more, until the most robust waveform is left.
    pub fn silence(&mut self, palette: &Palette) {
        self.unanswered += 1;
        self.step_down(palette, self.unanswered);
    }

    /// It asks for what was reported to it: the report was not heard there.
    pub fn asked_again(&mut self, palette: &Palette) {
        self.unheard += 1;
        self.step_down(palette, self.unheard);
    }

    fn step_down(&mut self, palette: &Palette, in_a_row: u32) {
        self.good = 0;
        let step = match in_a_row {
            1 => 1.0,
            2 => 3.0,
            3 => 6.0,
            _ => 10.0,
        };
        let floor = palette.all().map(|c| palette.half_db(c)).fold(f64::INFINITY, f64::min);
        self.mean = (self.mean - step).max(floor);
        self.variance = (self.variance + step * step).min(VAGUE);
    }

    /// It was heard again.
    pub fn alive(&mut self) {
        self.unanswered = 0;
    }

    /// Traffic leaves with this waveform.
    pub fn leaves(&mut self, palette: &Palette, choice: usize) {
        self.sent += 1;
        if palette.rate(choice) != palette.rate(self.present) {
            self.changes += 1;
            self.good = 0;
        }
        self.present = choice;
    }

    /// Expected loss of blocks with this waveform.
    pub fn loss(&self, palette: &Palette, choice: usize) -> f64 {
        1.0 - self.success(palette, choice)
    }

    fn measure(&mut self, now: Instant, db: f64, doubt: f64) {
        let since = self.at.map_or(0.0, |at| now.since(at).as_secs_f64());
        self.at = Some(now);
        self.variance = (self.variance + DRIFT * since).min(VAGUE);
        let gain = self.variance / (self.variance + doubt);
        self.mean += gain * (db - self.mean);
        self.variance *= 1.0 - gain;
    }

    /// How much the ratio over one block differs from the mean, dB²: a short block sees a fade, a long one sees several.
    fn block_variance(&self, palette: &Palette, choice: usize) -> f64 {
        let block = palette.choice(choice).waveform.block.as_secs_f64();
        self.spread * self.spread + (self.spread * self.spread).min(9.0) / (1.0 + 2.0 * block)
    }

    fn success_at(&self, palette: &Palette, choice: usize, db: f64, doubt: f64) -> f64 {
        let over = db - palette.half_db_at(choice, self.spread) - self.bias[choice];
        // Where most is lost, a block that sees a single fade more often is a lucky one; nobody should count on that.
        let variance = if over > 0.0 { self.block_variance(palette, choice) } else { self.spread * self.spread };
        normal(over / (variance + doubt + STEP).sqrt())
    }

    fn success(&self, palette: &Palette, choice: usize) -> f64 {
        self.success_off(palette, choice, 0.0)
    }

    /// The same were the ratio `off` dB higher.
    fn success_off(&self, palette: &Palette, choice: usize, off: f64) -> f64 {
        self.success_at(palette, choice, self.mean + off, self.variance.min(MOST_DOUBT))
    }
}

/// Longest transmission of traffic while it is not known that anything arrives.
pub const TRIAL: Duration = Duration::from_secs(30);

/// The waveform for `bytes` bytes of traffic to these peers in transmissions of at most `cap`.
pub fn for_traffic(palette: &Palette, peers: &[&Reach], bytes: u64, cap: Duration) -> usize {
    // Bytes a second, and the seconds that are spent for them, were every ratio `off` dB higher than thought.
    let outcome = |choice: usize, off: f64| {
        let (air, w) = (palette.air(choice), &palette.choice(choice).waveform);
        let success = peers.iter().map(|p| p.success_off(palette, choice, off)).fold(1.0, f64::min);
        let bytes = bytes.max(1) as f64;
        let share = 1.0 - 14.0 / f64::from(w.frame_bytes.max(20));
        let needed = (bytes / share / success.max(0.02)) as u64;
        let blocks = air.blocks(needed).min(air.most_blocks(cap)).max(1);
        let all_lost = (0..blocks.min(8)).fold(1.0, |p, _| p * (1.0 - success));
        let brought = (air.capacity(blocks) as f64 * share * success).min(bytes * (1.0 - all_lost));
        let time = (air.transmission(blocks) + air.turn()).as_secs_f64();
        (brought / time, time)
    };
    let score = |choice: usize| outcome(choice, 0.0).0;
    let start = palette.rate(palette.start);
    // Before anything came back the start is as fast as it goes.
    let unknown = peers.iter().any(|p| p.source == Source::Nothing);
    let allowed = |rate: u32| peers.iter().all(|p| p.allows(rate));
    let slow = |choice: &usize| (!unknown || palette.rate(*choice) <= start) && allowed(palette.rate(*choice));
    // Before the first transmission none is in use.
    let rate = if let [peer] = peers { palette.rate(peer.present) * peer.sent.min(1) } else { 0 };
    let least = |choice: usize| if palette.rate(choice) == rate { LEAST_KEPT } else { LEAST_SUCCESS };
    let usable = |choice: &usize| slow(choice) && worst(palette, peers, *choice) >= least(*choice);
    let best_of = |wanted: &dyn Fn(&usize) -> bool| {
        palette.all().filter(|c| usable(c) && wanted(c)).max_by(|a, b| score(*a).total_cmp(&score(*b)))
    };
    // On a path that bears nothing for sure: the one that needs least.
    let Some(best) = best_of(&|_| true) else { return most_robust(palette, peers) };
    let [peer] = peers else { return best };
    // The interleaver follows the traffic; the rate stays until another one is surely worth it.
    let Some(kept) = best_of(&|c| palette.rate(*c) == rate) else { return best };
    let faster = palette.rate(best) > rate;
    if palette.rate(best) == rate {
        return best;
    }
    let first = peer.changes == 0 && peer.source > Source::Losses;
    let off = match (first, faster) {
        (true, _) => 0.0,
        (false, true) => -SURE * peer.variance.min(MOST_DOUBT).sqrt(),
        (false, false) => SURE * peer.variance.min(MOST_DOUBT).sqrt(),
    };
    let ((there, _), (here, time)) = (outcome(best, off), outcome(kept, off));
    let worth = there > if faster { WORTH } else { WORTH_SLOWER } * here;
    let saved = time * (1.0 - here / there.max(f64::MIN_POSITIVE));
    match worth && saved > CHANGE && (!faster || first || peer.good >= GOOD) {
        true => best,
        false => kept,
    }
}

/// The waveform for `bytes` bytes of reports and questions to these peers: soonest there, the cost of its loss included.
pub fn for_words(palette: &Palette, peers: &[&Reach], bytes: u64) -> usize {
    let cost = |choice: usize| {
        let air = palette.air(choice);
        let success = worst(palette, peers, choice).max(0.01);
        let time = air.transmission(air.blocks(bytes)).as_secs_f64();
        time + (1.0 - success) / success * (time + FAILED_TURN)
    };
    if lost(peers) {
        return most_robust(palette, peers);
    }
    // Where nothing can be expected to arrive, what is over soonest is no good: it would be the fastest.
    let hopeful = |choice: &usize| worst(palette, peers, *choice) >= LEAST_HOPE;
    let best = palette.all().filter(hopeful).min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
    best.unwrap_or_else(|| most_robust(palette, peers))
}

/// Whether one of these has been out of reach for some turns.
fn lost(peers: &[&Reach]) -> bool {
    peers.iter().any(|p| p.unanswered.max(p.unheard) >= LOST)
}

fn most_robust(palette: &Palette, peers: &[&Reach]) -> usize {
    // Of a peer that was lost altogether nothing that was learnt tells one waveform from another: the sheet decides.
    let lost = lost(peers);
    let needs = |choice: usize| {
        let bias = peers.iter().map(|p| p.bias[choice]).fold(0.0, f64::max);
        palette.half_db(choice) + if lost { 0.0 } else { bias }
    };
    palette.all().min_by(|a, b| needs(*a).total_cmp(&needs(*b))).unwrap_or(palette.start)
}

fn worst(palette: &Palette, peers: &[&Reach], choice: usize) -> f64 {
    peers.iter().map(|p| p.success(palette, choice)).fold(1.0, f64::min)
}

/// Over how many blocks a frame lies, as doublings.
fn doublings(choice: &Choice) -> f64 {
    let w = &choice.waveform;
    let block_bytes = (f64::from(w.rate.0) * w.block.as_secs_f64() / 8.0).max(1.0);
    let (mut blocks, mut doublings) = (1.0 + f64::from(w.frame_bytes) / block_bytes, 0.0);
    while blocks >= 2.0 {
        (blocks, doublings) = (blocks / 2.0, doublings + 1.0);
    }
    doublings + blocks - 1.0
}

/// How far the mean over a transmission is from the mean over minutes, dB².
fn scatter(air: Duration) -> f64 {
    USUAL_SPREAD * USUAL_SPREAD / (1.0 + air.as_secs_f64() / (2.5 * QUICK))
}

/// The normal distribution at 0, 0.25 .. 3 standard deviations.
const NORMAL: [f64; 13] =
    [0.5, 0.5987, 0.6915, 0.7734, 0.8413, 0.8944, 0.9332, 0.9599, 0.9772, 0.9878, 0.9938, 0.9970, 0.9987];

/// Share of a normal distribution below `z` standard deviations.
fn normal(z: f64) -> f64 {
    let at = (z.abs() * 4.0).min(11.999);
    let low = at as usize;
    let upper = NORMAL[low] + (NORMAL[low + 1] - NORMAL[low]) * (at - low as f64);
    if z < 0.0 { 1.0 - upper } else { upper }
}

/// Where `share` of a normal distribution lies below.
fn inverse(share: f64) -> f64 {
    let (mut low, mut high) = (-3.0, 3.0);
    for _ in 0..30 {
        let middle = (low + high) / 2.0;
        match normal(middle) < share {
            true => low = middle,
            false => high = middle,
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bearer::WaveformName;
    use crate::units::Bps;

    const CAP: Duration = Duration::from_millis(127_500);
    /// More than any transmission holds.
    const MUCH: u64 = 1 << 20;

    #[test]
    fn a_quality_is_one_byte_and_keeps_its_range() {
        let q = Quality { db: 13.4, spread_db: Some(3.6) };
        assert_eq!(Quality::parse(q.emit()), Quality { db: 13.5, spread_db: Some(4.0) });
        for (db, there) in [(-40.0, -12.0), (60.0, 34.5)] {
            assert_eq!(Quality::parse(Quality { db, spread_db: None }.emit()), Quality { db: there, spread_db: None });
        }
        for byte in 0..=255 {
            assert_eq!(Quality::parse(byte).emit(), byte);
        }
    }

    #[test]
    fn readings_come_to_their_mean_and_spread() {
        let mut r = Readings::default();
        assert_eq!(r.quality(), None);
        for db in [10.0, 14.0] {
            r.take(db);
        }
        assert_eq!(r.quality(), Some(Quality { db: 12.0, spread_db: None }));
        r.take(12.0);
        assert_eq!(r.quality(), Some(Quality { db: 12.0, spread_db: Some(2.0) }));
    }

    #[test]
    fn the_normal_distribution_and_its_inverse_agree() {
        for (z, share) in [(-2.0, 0.0228), (-0.5, 0.3085), (0.0, 0.5), (1.0, 0.8413), (2.9, 0.9981)] {
            assert!((normal(z) - share).abs() < 1e-3, "{z}");
            assert!((inverse(share) - z).abs() < 0.03, "{z}");
        }
    }

    #[test]
    fn the_rate_is_what_the_ratio_bears_and_the_block_what_the_traffic_fills() {
        let palette = palette();
        let rate = |db| {
            let reach = settled(&palette, db);
            palette.rate(for_traffic(&palette, &[&reach], MUCH, CAP))
        };
        assert_eq!([-20.0, -3.0, 35.0].map(rate), [75, 75, 9600]);
        let rates: Vec<u32> = (-12..36).map(|db| rate(f64::from(db))).collect();
        assert!(rates.is_sorted(), "{rates:?}");
        let reach = settled(&palette, 14.0);
        let block = |bytes| palette.choice(for_traffic(&palette, &[&reach], bytes, CAP)).waveform.block;
        assert!(block(200) < block(MUCH));
        // Of two that are spoken to the worse one decides.
        let (near, far) = (settled(&palette, 30.0), settled(&palette, 0.0));
        let both = palette.rate(for_traffic(&palette, &[&near, &far], MUCH, CAP));
        assert!(both <= palette.rate(for_traffic(&palette, &[&far], MUCH, CAP)).max(300), "{both}");
    }

    #[test]
    fn reports_are_more_robust_and_shorter_than_traffic() {
        let palette = palette();
        for db in [0.0, 8.0, 16.0, 24.0] {
            let reach = settled(&palette, db);
            let (words, traffic) = (for_words(&palette, &[&reach], 30), for_traffic(&palette, &[&reach], MUCH, CAP));
            assert!(palette.rate(words) <= palette.rate(traffic), "{db}");
            assert!(palette.air(words).transmission(1) <= palette.air(traffic).transmission(1), "{db}");
            assert!(reach.loss(&palette, words) <= 0.35, "{db}: {}", reach.loss(&palette, words));
        }
    }

    #[test]
    fn the_first_answer_lifts_the_rate_by_any_step_and_later_two_good_transmissions_do() {
        let palette = palette();
        let mut reach = Reach::new(&palette);
        let (mut now, choose) = (Instant::ZERO, |r: &Reach| for_traffic(&palette, &[r], MUCH, CAP));
        assert_eq!(palette.rate(choose(&reach)), 300);
        exchange(&palette, &mut reach, &mut now, 20.0, 1.0);
        let lifted = choose(&reach);
        assert!(palette.rate(lifted) > 1200);
        exchange(&palette, &mut reach, &mut now, 20.0, 1.0);
        assert!(reach.changes == 1 && reach.present() == lifted);
        // A much better path: not after one transmission at this rate, but after two more.
        (0..2).for_each(|_| exchange(&palette, &mut reach, &mut now, 34.0, 1.0));
        exchange(&palette, &mut reach, &mut now, 34.0, 1.0);
        assert!(palette.rate(choose(&reach)) > palette.rate(lifted));
        // A much worse one: at once.
        let fast = reach.present();
        (0..3).for_each(|_| exchange(&palette, &mut reach, &mut now, 3.0, 0.0));
        assert!(palette.rate(choose(&reach)) < palette.rate(fast) / 2);
    }

    #[test]
    fn without_answers_the_most_robust_waveform_is_reached_in_steps() {
        let palette = palette();
        let mut reach = settled(&palette, 34.0);
        let mut rates = Vec::new();
        for _ in 0..7 {
            reach.silence(&palette);
            rates.push(palette.rate(for_traffic(&palette, &[&reach], MUCH, CAP)));
        }
        assert!(rates.is_sorted_by(|a, b| a >= b) && rates[0] > 4800 && rates[6] <= 150, "{rates:?}");
        assert!(palette.rate(for_words(&palette, &[&reach], 40)) <= 150);
        // It says how it hears us: back at once.
        reach.alive();
        let air = Duration::from_secs(10);
        reach.told(Instant::from_millis(500_000), Quality { db: 33.0, spread_db: None }, air);
        (0..2).for_each(|_| reach.good += 1);
        assert!(palette.rate(for_traffic(&palette, &[&reach], MUCH, CAP)) >= 4800);
    }

    #[test]
    fn a_modem_that_measures_nothing_finds_its_rate_by_what_arrives() {
        let palette = palette();
        let mut reach = Reach::new(&palette);
        let mut now = Instant::ZERO;
        // What needs more than 12 dB does not arrive.
        let mut rates = Vec::new();
        for _ in 0..60 {
            let choice = for_traffic(&palette, &[&reach], MUCH, CAP);
            let share = if palette.choice(choice).anchor_db <= 12.0 { 1.0 } else { 0.1 };
            rates.push(palette.rate(choice));
            let sent = Sent { choice, frames: 40, air: Duration::from_secs(60) };
            reach.leaves(&palette, choice);
            reach.alive();
            reach.arrived(now, &palette, sent, (40.0 * share) as u32, None);
            now += Duration::from_secs(65);
        }
        let useful = rates[10..].iter().filter(|r| (1200..=3200).contains(*r)).count();
        assert!(useful >= 40, "{rates:?}");
        assert!(reach.changes <= 12, "{rates:?}");
    }

    #[test]
    fn who_was_lost_is_called_with_what_the_sheet_calls_most_robust_whatever_was_learnt() {
        let palette = palette();
        let mut reach = settled(&palette, 10.0);
        // Everything that was tried on the slow ones was lost: they look worse than the fast ones.
        reach
            .bias
            .iter_mut()
            .zip(palette.all())
            .for_each(|(b, c)| *b = if palette.rate(c) < 600 { MOST_BIAS } else { 0.0 });
        (0..8).for_each(|_| reach.silence(&palette));
        let (words, traffic) = (for_words(&palette, &[&reach], 30), for_traffic(&palette, &[&reach], MUCH, CAP));
        let least = palette.all().map(|c| palette.half_db(c)).fold(f64::INFINITY, f64::min);
        assert_eq!([words, traffic].map(|c| palette.half_db(c)), [least, least]);
    }

    #[test]
    fn a_waveform_that_is_worse_than_its_sheet_is_left_alone() {
        let palette = palette();
        let mut reach = settled(&palette, 20.0);
        let mut now = Instant::from_millis(4_000_000);
        let promised = for_traffic(&palette, &[&reach], MUCH, CAP);
        for _ in 0..12 {
            let choice = for_traffic(&palette, &[&reach], MUCH, CAP);
            let share = if palette.rate(choice) >= palette.rate(promised) { 0.05 } else { 0.9 };
            exchange(&palette, &mut reach, &mut now, 20.0, share);
        }
        assert!(palette.rate(for_traffic(&palette, &[&reach], MUCH, CAP)) < palette.rate(promised));
        assert!(reach.changes <= 4, "{}", reach.changes);
    }

    #[test]
    fn what_was_learnt_outlives_a_restart_and_is_believed_until_something_comes_back() {
        let palette = palette();
        let mut reach = Reach::new(&palette);
        assert_eq!(reach.learnt(&palette), None);
        let mut now = Instant::ZERO;
        for _ in 0..8 {
            exchange(&palette, &mut reach, &mut now, -3.0, 0.3);
        }
        let learnt = reach.learnt(&palette).expect("something came back");
        let bytes = postcard::to_stdvec(&learnt).expect("plain data");
        assert!(bytes.len() < 8 * palette.choices.len() + 8, "{}", bytes.len());
        let mut again = Reach::new(&palette);
        again.remember(&palette, &postcard::from_bytes(&bytes).expect("as written"));
        assert!((again.mean - reach.mean).abs() < 0.1 && again.source == Source::Nothing && again.variance > 20.0);
        assert!(again.bias.iter().zip(&reach.bias).all(|(a, b)| (a - b).abs() < 0.1));
        // A path that bore little is not begun at the rate of first contact.
        assert!(palette.rate(for_traffic(&palette, &[&again], MUCH, CAP)) < palette.rate(palette.start));
        // Nonsense is held within what can be.
        again.remember(&palette, &Learnt { mean: i16::MAX, spread: 0, bias: vec![(75, 600, i16::MIN), (1, 1, 1)] });
        assert!(again.mean <= 60.0 && again.spread >= 1.0 && again.bias[0] >= -MOST_BIAS);
    }

    #[test]
    fn a_number_that_wavers_about_a_bound_does_not_change_the_rate() {
        let palette = palette();
        let mut reach = settled(&palette, 14.0);
        let mut now = Instant::from_millis(2_000_000);
        for i in 0..40 {
            // A decibel and a half either way, and now and then little to send.
            let db = 14.0 + if i % 2 == 0 { 1.5 } else { -1.5 };
            let bytes = if i % 5 == 0 { 600 } else { MUCH };
            let choice = for_traffic(&palette, &[&reach], bytes, CAP);
            let quality = Quality { db, spread_db: Some(3.0) };
            let share = reach.success(&palette, choice);
            reach.leaves(&palette, choice);
            now += Duration::from_secs(65);
            let sent = Sent { choice, frames: 40, air: Duration::from_secs(60) };
            reach.told(now, quality, sent.air);
            reach.arrived(now, &palette, sent, (40.0 * share) as u32, Some(quality));
        }
        assert!(reach.changes <= 1, "{}", reach.changes);
    }

    #[test]
    fn what_was_lost_altogether_is_followed_by_a_trial() {
        let palette = palette();
        let mut reach = settled(&palette, 14.0);
        let mut now = Instant::from_millis(2_000_000);
        let slow = 0;
        assert!(!reach.tries(&palette, slow));
        let failed = for_traffic(&palette, &[&reach], MUCH, CAP);
        exchange(&palette, &mut reach, &mut now, 14.0, 0.0);
        assert!(reach.tries(&palette, slow) && reach.tries(&palette, failed));
        exchange(&palette, &mut reach, &mut now, 14.0, 0.5);
        assert!(!reach.tries(&palette, slow) && !reach.tries(&palette, failed));
        reach.silence(&palette);
        assert!(reach.tries(&palette, slow));
    }

    #[test]
    fn a_rate_that_fails_altogether_is_tried_ever_more_rarely() {
        let palette = palette();
        let mut reach = Reach::new(&palette);
        let (mut now, mut tried) = (Instant::ZERO, Vec::new());
        // Nothing is measured, and nothing above 150 bit/s arrives.
        for i in 0..120 {
            let choice = for_traffic(&palette, &[&reach], MUCH, CAP);
            let share = if palette.rate(choice) <= 150 { 1.0 } else { 0.0 };
            if share == 0.0 {
                tried.push(i);
            }
            reach.leaves(&palette, choice);
            reach.alive();
            reach.arrived(now, &palette, Sent { choice, frames: 20, air: CAP }, (20.0 * share) as u32, None);
            now += Duration::from_secs(140);
        }
        assert!(tried.len() <= 7, "{tried:?}");
        // It is tried again, and once it works it is taken up.
        assert!(tried.last().is_some_and(|last| *last > 30), "{tried:?}");
        for _ in 0..70 {
            let choice = for_traffic(&palette, &[&reach], MUCH, CAP);
            let share = if palette.rate(choice) <= 600 { 1.0 } else { 0.1 };
            reach.leaves(&palette, choice);
            reach.arrived(now, &palette, Sent { choice, frames: 20, air: CAP }, (20.0 * share) as u32, None);
            now += Duration::from_secs(140);
        }
        assert!(palette.rate(reach.present) >= 300, "{}", palette.rate(reach.present));
    }

    #[test]
    fn bit_errors_stand_for_a_ratio_where_the_modem_tells_none() {
        let palette = palette();
        let name = palette.choice(0).name.clone();
        let anchor = palette.choice(0).anchor_db;
        let of =
            |ber_tenths| Measurement { waveform: Some(name.clone()), snr_tenths: None, ber_tenths: Some(ber_tenths) };
        assert_eq!(palette.ratio(&of(-23)), Some(anchor));
        assert!(palette.ratio(&of(-50)) > palette.ratio(&of(-23)) && palette.ratio(&of(-120)) < Some(anchor + 5.0));
        assert_eq!(palette.ratio(&Measurement { snr_tenths: Some(75), ..of(-23) }), Some(7.5));
        assert_eq!(palette.ratio(&Measurement { waveform: None, ..of(-23) }), None);
    }

    /// Traffic with the waveform chosen, heard with this ratio; so much of it arrives.
    fn exchange(palette: &Palette, reach: &mut Reach, now: &mut Instant, db: f64, share: f64) {
        let choice = for_traffic(palette, &[reach], MUCH, CAP);
        let sent = Sent { choice, frames: 40, air: Duration::from_secs(60) };
        let quality = Quality { db, spread_db: Some(3.0) };
        reach.leaves(palette, choice);
        *now += Duration::from_secs(65);
        reach.told(*now, quality, sent.air);
        reach.arrived(*now, palette, sent, (40.0 * share) as u32, Some(quality));
    }

    /// A peer that has told the same for long.
    fn settled(palette: &Palette, db: f64) -> Reach {
        let mut reach = Reach::new(palette);
        let mut now = Instant::ZERO;
        for _ in 0..30 {
            now += Duration::from_secs(65);
            reach.told(now, Quality { db, spread_db: Some(3.0) }, Duration::from_secs(60));
        }
        reach.good = GOOD;
        reach.present = for_traffic(palette, &[&reach], MUCH, CAP);
        reach
    }

    fn palette() -> Palette {
        let low = [(75, -5.0), (150, -1.0), (300, 1.0), (600, 2.0), (1200, 5.5), (2400, 12.0)];
        let high = [(3200, 10.0), (4800, 14.5), (6400, 17.5), (8000, 22.0), (9600, 26.5)];
        let mut choices = Vec::new();
        for (rate, anchor_db) in low {
            for (letter, millis) in [("S", 600), ("L", 4800)] {
                choices.push(choice(rate, letter, millis, millis, anchor_db));
            }
        }
        for (rate, anchor_db) in high {
            for (letter, millis) in [("S", 1076), ("L", 4305)] {
                choices.push(choice(rate, letter, 120, millis, anchor_db));
            }
        }
        let start = choices[4].waveform.clone();
        Palette::new(choices, &start).expect("some")
    }

    fn choice(rate: u32, letter: &str, preamble: u64, block: u64, anchor_db: f64) -> Choice {
        let waveform = Waveform {
            rate: Bps(rate),
            preamble: Duration::from_millis(preamble),
            block: Duration::from_millis(block),
            tail_bits: 176,
            frame_bytes: if rate < 3200 { 140 } else { 400 },
            turnaround: Duration::from_secs(2),
        };
        Choice { name: WaveformName { rate: Bps(rate), interleaver: letter.into() }, waveform, anchor_db }
    }
}
