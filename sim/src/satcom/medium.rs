//! The medium: what leaves takes its time at the sender's rate, its delay, and is lost as the weather has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use aldis::time::{Duration, Instant};
use aldis::units::Bps;

use super::{Cell, DELAY, HEADERS, PATIENCE, Trial, Weather};
use crate::rng::Stream;

/// Mean length of a fade.
pub const FADE: Duration = Duration::from_secs(30);
/// Mean time between two.
pub const CLEAR: Duration = Duration::from_secs(120);
/// From the start of the stations to the message.
const BEFORE: Duration = Duration::from_secs(1);

/// A station of either mode. Station 0 sends.
pub(super) trait End {
    /// Hands in the message for all others.
    fn send(&mut self, now: Instant, payload: &Arc<[u8]>, receivers: u8);
    /// Takes a datagram of another station.
    fn hear(&mut self, now: Instant, from: u8, bytes: &[u8]);
    /// Acts on what is due; what leaves, and to whom: `None` is everybody.
    fn act(&mut self, now: Instant) -> Vec<(Option<u8>, Vec<u8>)>;
    /// When there is something to do.
    fn next(&self) -> Option<Instant>;
    /// What it has accepted, and when.
    fn accepted(&self) -> Option<(Instant, &[u8])>;
    /// Receivers whose confirmation it has.
    fn confirmed(&self) -> usize;
    /// Bytes of a message in a datagram.
    fn shard_bytes(&self, datagram: &[u8]) -> u64;
}

/// When nothing passes.
#[derive(Debug)]
pub(super) struct Fades {
    chance: Stream,
    /// Ends of what was drawn, in order, and whether it is a fade.
    ends: Vec<(Instant, bool)>,
}

impl Fades {
    pub fn new(seed: u64, from: Instant) -> Self {
        let mut chance = Stream::new(seed, "fades", 0);
        let faded = chance.chance(FADE.as_secs_f64() / (FADE + CLEAR).as_secs_f64());
        let mut fades = Self { chance, ends: Vec::new() };
        // Lengths that are drawn like this have no memory: the first is as long from here as any.
        fades.draw(from, faded);
        fades
    }

    fn draw(&mut self, from: Instant, faded: bool) {
        let mean = if faded { FADE } else { CLEAR };
        let length = -libm::log(1.0 - self.chance.unit()) * mean.as_secs_f64();
        self.ends.push((from + Duration::from_nanos((length * 1e9) as u64 + 1), faded));
    }

    /// Whether a fade touches this time.
    pub fn touch(&mut self, from: Instant, to: Instant) -> bool {
        while let Some((end, faded)) = self.ends.last().copied().filter(|(end, _)| *end <= to) {
            self.draw(end, !faded);
        }
        let mut begin = Instant::ZERO;
        self.ends.iter().any(|(end, faded)| {
            let touches = *faded && begin <= to && from < *end;
            begin = *end;
            touches
        })
    }
}

/// A datagram on its way: to whom, from whom, what.
type Flying = (u8, u8, Arc<[u8]>);

/// See the module.
pub(super) struct Medium<E> {
    cell: Cell,
    ends: Vec<E>,
    now: Instant,
    begun: Instant,
    /// When what each has handed over has left.
    left: Vec<Instant>,
    /// Chance of each way, by sender and receiver, and of each sender.
    apart: BTreeMap<(u8, u8), Stream>,
    together: Vec<Stream>,
    fades: Fades,
    /// By arrival, and order.
    flying: BTreeMap<(Instant, u64), Flying>,
    order: u64,
    seed: u64,
    sent_bytes: u64,
    shard_bytes: u64,
    answers: u64,
}

impl<E: End> Medium<E> {
    pub fn new(cell: Cell, seed: u64, ends: Vec<E>) -> Self {
        let begun = Instant::ZERO + BEFORE;
        Self {
            cell,
            left: vec![Instant::ZERO; ends.len()],
            apart: BTreeMap::new(),
            together: (0..ends.len() as u64).map(|i| Stream::new(seed, "together", i)).collect(),
            fades: Fades::new(seed, begun),
            now: Instant::ZERO,
            begun,
            flying: BTreeMap::new(),
            order: 0,
            seed,
            sent_bytes: 0,
            shard_bytes: 0,
            answers: 0,
            ends,
        }
    }

    /// Carries a message to everybody, until the sender knows of all.
    pub fn carry(mut self, payload: &Arc<[u8]>) -> Trial {
        let receivers = self.cell.receivers;
        self.run(self.begun, |_| false);
        self.ends[0].send(self.now, payload, receivers);
        let until = self.begun + PATIENCE;
        self.run(until, |medium| medium.ends[0].confirmed() == usize::from(receivers));
        let accepted: Vec<Instant> = self.ends[1..]
            .iter()
            .filter_map(|end| end.accepted().filter(|(_, held)| *held == &payload[..]).map(|(at, _)| at))
            .collect();
        assert_eq!(accepted.len(), usize::from(receivers), "{:?}: not everybody has it", self.cell);
        let last = accepted.into_iter().max().expect("there are some");
        let whole_s = last.since(self.begun).as_secs_f64();
        Trial { whole_s, sent_bytes: self.sent_bytes, shard_bytes: self.shard_bytes, answers: self.answers }
    }

    fn run(&mut self, until: Instant, done: impl Fn(&Self) -> bool) {
        loop {
            for i in 0..self.ends.len() {
                let left = self.ends[i].act(self.now);
                left.into_iter().for_each(|(to, bytes)| self.radiate(i as u8, to, bytes.into()));
            }
            if done(self) {
                return;
            }
            let first = self.flying.keys().next().map(|(at, _)| *at);
            let next = self.ends.iter().filter_map(End::next).chain(first).min().filter(|at| *at < until);
            // A deadline that stays where it was would never end.
            self.now = next.map_or(until, |at| at.max(self.now + Duration::from_micros(1)));
            while let Some(entry) = self.flying.first_entry().filter(|e| e.key().0 <= self.now) {
                let (to, from, bytes) = entry.remove();
                self.ends[usize::from(to)].hear(self.now, from, &bytes);
            }
            if next.is_none() {
                return;
            }
        }
    }

    fn radiate(&mut self, from: u8, to: Option<u8>, bytes: Arc<[u8]>) {
        let size = (bytes.len() + HEADERS) as u64;
        match from {
            0 => {
                self.sent_bytes += size;
                self.shard_bytes += self.ends[0].shard_bytes(&bytes);
            }
            _ => self.answers += 1,
        }
        let begin = self.left[usize::from(from)].max(self.now);
        let end = begin + Bps(self.cell.rate).airtime(size);
        self.left[usize::from(from)] = end;
        let lost = match self.cell.weather {
            Weather::Apart(_) => false,
            Weather::Together(loss) => self.together[usize::from(from)].chance(loss),
            Weather::Rain => self.fades.touch(begin, end),
        };
        let hearers: Vec<u8> = match to {
            Some(to) => vec![to],
            None => (0..self.ends.len() as u8).filter(|i| *i != from).collect(),
        };
        for to in hearers {
            let missed = match self.cell.weather {
                Weather::Apart(loss) => {
                    let way = || Stream::keyed(self.seed, "apart", &[from.into(), to.into()]);
                    self.apart.entry((from, to)).or_insert_with(way).chance(loss)
                }
                Weather::Together(_) | Weather::Rain => false,
            };
            if !lost && !missed {
                self.order += 1;
                self.flying.insert((end + DELAY, self.order), (to, from, bytes.clone()));
            }
        }
    }
}
