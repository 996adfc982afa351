//! A modem keyed by the bytes it is fed, for programs that know nothing of key lines: down with the first byte, up when none has come for
//! a while, once the modem transmits: what is written while it hears somebody leaves in one transmission. Called by [`Desk`](super::desk::Desk), which owns the port.

use std::collections::VecDeque;

use aldis::time::{Duration, Instant};

use super::Frequency;
use crate::ether::StationId;
use crate::modem::ModemOutput;

/// Bytes fed at a time while the modem has room.
const PIECE: usize = 512;

/// The key of one port.
#[derive(Debug)]
pub(super) struct ByBytes {
    unkey_after: Duration,
    /// Not fed yet: the modem has no room, or the last transmission is still going out.
    waiting: VecDeque<u8>,
    /// When the program last wrote, or the modem began to transmit.
    last: Instant,
    key: Key,
    room: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Up,
    /// Down; the modem does not transmit yet.
    Asked,
    Down,
    /// Let go; what was fed is going out.
    Ending,
}

impl ByBytes {
    /// A key that goes up when no byte has come for `unkey_after`.
    pub(super) fn new(unkey_after: Duration) -> Self {
        Self { unkey_after, waiting: VecDeque::new(), last: Instant::ZERO, key: Key::Up, room: true }
    }

    /// Takes what the program wrote.
    pub(super) fn take(&mut self, now: Instant, bytes: &[u8]) {
        self.last = now;
        self.waiting.extend(bytes);
    }

    /// Hears what the modem says.
    pub(super) fn tell(&mut self, output: &ModemOutput) {
        match output {
            ModemOutput::Unkeyed => (self.key, self.room) = (Key::Up, true),
            ModemOutput::Cts(up) => self.room = *up || self.key != Key::Down,
            ModemOutput::Keyed { at } => {
                self.room = true;
                if self.key == Key::Asked {
                    (self.key, self.last) = (Key::Down, self.last.max(*at));
                }
            }
            ModemOutput::Carrier(_)
            | ModemOutput::Received(_)
            | ModemOutput::Measured(_)
            | ModemOutput::Fault(_)
            | ModemOutput::Ready
            | ModemOutput::Antenna { .. } => {}
        }
    }

    /// Moves the key and feeds a piece; false when there was nothing to do.
    pub(super) fn turn(&mut self, air: &mut impl Frequency, now: Instant, id: StationId) -> bool {
        match self.key {
            Key::Up if !self.waiting.is_empty() => {
                air.key(now, id);
                self.key = Key::Asked;
            }
            Key::Asked | Key::Down if self.room && !self.waiting.is_empty() => {
                let piece: Vec<u8> = self.waiting.drain(..self.waiting.len().min(PIECE)).collect();
                air.feed(now, id, &piece);
            }
            Key::Down if self.waiting.is_empty() && now >= self.last + self.unkey_after => {
                air.unkey(now, id);
                self.key = Key::Ending;
            }
            Key::Up | Key::Asked | Key::Down | Key::Ending => return false,
        }
        true
    }

    /// When the key goes up unless the program writes again.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        (self.key == Key::Down && self.waiting.is_empty()).then_some(self.last + self.unkey_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ether::{Ether, EtherConfig, LinkConfig};
    use crate::modem::ModemConfig;
    use crate::waveform::Waveform;

    const A: StationId = StationId(0);
    const B: StationId = StationId(1);

    #[test]
    fn what_is_written_while_the_modem_hears_leaves_in_one_transmission() {
        let modem = ModemConfig::new(*Waveform::find(2400, "S").expect("known"));
        let mut ether = Ether::new(EtherConfig::net(1, 2, &modem, LinkConfig::default()));
        let mut port = ByBytes::new(Duration::from_millis(500));
        let at = |seconds: u64| Instant::ZERO + Duration::from_secs(seconds);
        ether.key(Instant::ZERO, A);
        ether.feed(Instant::ZERO, A, &[7; 3000]);
        ether.unkey(Instant::ZERO, A);
        // Ten seconds of carrier; an answer every two of them.
        let mut answers = VecDeque::from([at(2), at(4), at(6)]);
        loop {
            let due = ether.next_timeout().into_iter().chain(port.next_timeout()).chain(answers.front().copied()).min();
            let Some(now) = due else { break };
            if answers.pop_front_if(|at| *at <= now).is_some() {
                port.take(now, b"answer");
            }
            ether.handle_timeout(now);
            while {
                while let Some((id, output)) = ether.poll() {
                    if id == B {
                        port.tell(&output);
                    }
                }
                port.turn(&mut ether, now, B)
            } {}
        }
        let ons: Vec<StationId> = ether.antenna_log().iter().filter(|e| e.on).map(|e| e.station).collect();
        assert_eq!(ons, [A, B]);
        assert_eq!(ether.stats(B).carried, 18);
    }
}
