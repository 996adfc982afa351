//! A modem keyed by the bytes it is fed, for programs that know nothing of key lines: down with the first byte, up when none has come for
//! a while. Called by [`Desk`](super::desk::Desk), which owns the port.

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
    /// When the program last wrote.
    last: Instant,
    key: Key,
    room: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Up,
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
            ModemOutput::Keyed { .. } => self.room = true,
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
                self.key = Key::Down;
            }
            Key::Down if self.room && !self.waiting.is_empty() => {
                let piece: Vec<u8> = self.waiting.drain(..self.waiting.len().min(PIECE)).collect();
                air.feed(now, id, &piece);
            }
            Key::Down if self.waiting.is_empty() && now >= self.last + self.unkey_after => {
                air.unkey(now, id);
                self.key = Key::Ending;
            }
            Key::Up | Key::Down | Key::Ending => return false,
        }
        true
    }

    /// When the key goes up unless the program writes again.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        (self.key == Key::Down && self.waiting.is_empty()).then_some(self.last + self.unkey_after)
    }
}
