//! What comes of keying an ether: the harness of the cases about modems and paths.

use aldis::time::{Duration, Instant};

use crate::ether::{Ether, StationId};
use crate::modem::ModemOutput;
use crate::waveform::Waveform;

pub(super) const A: StationId = StationId(0);
pub(super) const B: StationId = StationId(1);
pub(super) const C: StationId = StationId(2);

pub(super) fn waveform(rate: u32, interleaver: &str) -> Waveform {
    *Waveform::find(rate, interleaver).expect("the table has it")
}

/// What came of keying an ether.
pub(super) struct Transmission {
    pub(super) keyed: Instant,
    pub(super) said: Vec<(Instant, StationId, ModemOutput)>,
}

impl Transmission {
    /// One station keys, feeds everything as soon as it may, and lets go; runs until all is quiet.
    pub(super) fn send(ether: &mut Ether, at: Instant, from: StationId, bytes: &[u8]) -> Self {
        let mut t = Self { keyed: at, said: Vec::new() };
        ether.key(at, from);
        let mut now = at;
        while !ether.radiates(from) {
            now = t.step(ether);
        }
        t.keyed = now;
        ether.feed(now, from, bytes);
        ether.unkey(now, from);
        t.finish(ether);
        t
    }

    /// The same with an abort some time after the key.
    pub(super) fn cut(ether: &mut Ether, from: StationId, bytes: &[u8], after: Duration) -> Self {
        let mut t = Self { keyed: Instant::ZERO, said: Vec::new() };
        ether.key(Instant::ZERO, from);
        while !ether.radiates(from) {
            t.keyed = t.step(ether);
        }
        ether.feed(t.keyed, from, bytes);
        ether.unkey(t.keyed, from);
        let end = t.keyed + after;
        while ether.next_timeout().is_some_and(|at| at <= end) {
            t.step(ether);
        }
        ether.abort(end, from);
        t.drain(ether, end);
        t.finish(ether);
        t
    }

    /// Every start keys its station at that many milliseconds and sends `length` bytes of its number plus one.
    pub(super) fn race(ether: &mut Ether, starts: &[(StationId, u64)], length: usize) -> Self {
        let mut t = Self { keyed: Instant::ZERO, said: Vec::new() };
        let mut starts: Vec<(Instant, StationId)> =
            starts.iter().map(|&(id, ms)| (Instant::from_millis(ms), id)).collect();
        starts.sort_unstable();
        for (at, id) in starts {
            while ether.next_timeout().is_some_and(|due| due <= at) {
                t.step(ether);
            }
            ether.key(at, id);
            ether.feed(at, id, &vec![id.0 as u8 + 1; length]);
            ether.unkey(at, id);
            t.drain(ether, at);
        }
        t.finish(ether);
        t
    }

    pub(super) fn step(&mut self, ether: &mut Ether) -> Instant {
        let at = ether.next_timeout().expect("something is due");
        ether.handle_timeout(at);
        self.drain(ether, at);
        at
    }

    pub(super) fn drain(&mut self, ether: &mut Ether, at: Instant) {
        while let Some((id, output)) = ether.poll() {
            self.said.push((at, id, output));
        }
    }

    pub(super) fn finish(&mut self, ether: &mut Ether) {
        while ether.next_timeout().is_some() {
            self.step(ether);
        }
    }

    pub(super) fn received(&self, id: StationId) -> impl Iterator<Item = (Instant, &[u8])> {
        self.said.iter().filter(move |s| s.1 == id).filter_map(|(at, _, output)| match output {
            ModemOutput::Received(bytes) => Some((*at, bytes.as_slice())),
            _ => None,
        })
    }

    pub(super) fn bytes(&self, id: StationId) -> Vec<u8> {
        self.received(id).flat_map(|(_, b)| b.iter().copied()).collect()
    }

    /// When the last byte came.
    pub(super) fn at(&self, id: StationId) -> Option<Instant> {
        self.received(id).last().map(|(at, _)| at)
    }

    /// When a station was first on the air.
    pub(super) fn span(&self, ether: &Ether, id: StationId) -> Option<(Instant, Instant)> {
        let mut edges = ether.antenna_log().iter().filter(|e| e.station == id);
        Some((edges.next()?.at, edges.next()?.at))
    }

    pub(super) fn received_while_keyed(&self, ether: &Ether) -> u64 {
        let count = |id| {
            let span = self.span(ether, id);
            let inside = |at: Instant| span.is_some_and(|(from, to)| from < at && at < to);
            self.received(id).filter(|(at, _)| inside(*at)).map(|(_, b)| b.len() as u64).sum::<u64>()
        };
        ether.ids().map(count).sum()
    }
}
