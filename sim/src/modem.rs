//! One simulated modem's transmit side: buffer, blocks, tail; and the words it exchanges with its host.
//!
//! Called by [`Ether`](crate::ether::Ether), which owns time, keying and reception.

use std::collections::VecDeque;

use aldis::bearer::{Measurement, ModemEvent};
use aldis::time::{Duration, Instant};

use crate::waveform::Waveform;

/// What kind of modem stands at a station.
#[derive(Clone, PartialEq, Debug)]
pub struct ModemConfig {
    /// What it transmits with; receivers recognise any waveform by its preamble.
    pub waveform: Waveform,
    /// From the key request to the first preamble symbol: PTT, amplifier.
    pub key_delay: Duration,
    /// Least time from the last symbol of a carrier, heard or own, to the first preamble symbol of this station.
    pub turnaround: Duration,
    /// From the start of a foreign preamble to carrier detect; never later than the preamble's end.
    pub detection_delay: Duration,
    /// From an abort to carrier off; `None`: this modem cannot abort and sends out what it holds.
    pub abort_delay: Option<Duration>,
    /// Bytes its buffer holds; what is fed beyond is lost.
    pub buffer_bytes: usize,
    /// What it pads a starved block with.
    pub fill: u8,
    /// True: a key request waits while the modem receives. False: it transmits over what it hears.
    pub waits_for_carrier: bool,
    /// True: the key line counts only once the host has held it low since it opened the port. False: RTS keys by itself, so
    /// the pulse an operating system gives RTS on every open radiates.
    pub interlock: bool,
    /// The modem's own limit of one key-down, when it has one.
    pub max_key_down: Option<Duration>,
    /// True: carrier detect means any carrier in the band, missed preambles and all. False: it means synchronised.
    pub energy_detect: bool,
    /// True: bytes come out at the air rate, the last of a block one block after it. False: all at once at its end.
    pub clocked_output: bool,
    /// It can be told what to transmit with, one of [`Waveform::palette`].
    pub selects: bool,
    /// It tells what it recognises and the signal-to-noise ratio it measures, with this standard deviation of each reading, dB.
    pub snr_error_db: Option<f64>,
    /// Garbage between transmissions: mean time between bursts and their greatest length.
    pub noise: Option<Noise>,
}

/// False synchronisation on noise: bytes from nobody while nothing is received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Noise {
    /// Mean time between bursts.
    pub every: Duration,
    /// Greatest length of a burst in bytes.
    pub bytes: u32,
}

impl ModemConfig {
    /// A modem of this waveform with middling habits: 100 ms to key, 2 s turnaround, carrier detect after 200 ms, abort within
    /// 50 ms, 16 KiB of buffer, interlock fitted.
    pub fn new(waveform: Waveform) -> Self {
        Self {
            waveform,
            key_delay: Duration::from_millis(100),
            turnaround: Duration::from_secs(2),
            detection_delay: Duration::from_millis(200),
            abort_delay: Some(Duration::from_millis(50)),
            buffer_bytes: 16 * 1024,
            fill: 0,
            waits_for_carrier: true,
            interlock: true,
            max_key_down: None,
            energy_detect: false,
            clocked_output: false,
            selects: false,
            snr_error_db: None,
            noise: None,
        }
    }
}

/// What a modem tells its host, and what an observer at its antenna sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModemOutput {
    /// The first preamble symbol left at this instant; data may be fed.
    Keyed {
        /// First preamble symbol.
        at: Instant,
    },
    /// The transmission is over, or the request to key was withdrawn before anything left.
    Unkeyed,
    /// Carrier detect rose or fell. All bytes received under it come before the fall.
    Carrier(bool),
    /// Bytes received.
    Received(Vec<u8>),
    /// What it measures of what it is receiving.
    Measured(Measurement),
    /// Clear to send: keyed and room in the buffer.
    Cts(bool),
    /// The modem cut the transmission itself, or failed.
    Fault(String),
    /// It works again.
    Ready,
    /// The antenna began or ceased to radiate at this instant. For observers, not for hosts.
    Antenna {
        /// Radiating from now on.
        on: bool,
        /// When.
        at: Instant,
    },
}

impl ModemOutput {
    /// The same in the product's words; `None` for what a link core is not told.
    pub fn event(self) -> Option<ModemEvent> {
        Some(match self {
            Self::Keyed { .. } => ModemEvent::Keyed,
            Self::Unkeyed => ModemEvent::Unkeyed,
            Self::Carrier(on) => ModemEvent::Carrier(on),
            Self::Received(bytes) => ModemEvent::Received(bytes),
            Self::Measured(m) => ModemEvent::Measured(m),
            Self::Fault(text) => ModemEvent::Fault(text),
            Self::Ready => ModemEvent::Ready,
            Self::Cts(_) | Self::Antenna { .. } => return None,
        })
    }
}

/// A failure an operator or a scenario puts on a modem.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Failure {
    /// Carrier detect stays up.
    CarrierStuckOn,
    /// Carrier detect stays down, and the modem no longer waits for carriers.
    CarrierStuckOff,
    /// The key stays down once it is: dropping the line ends nothing. Abort and the key-down limit still work.
    KeyStuck,
    /// It hears nothing.
    Deaf,
    /// It is down, carrier and buffers gone, and back when mended.
    Restarting,
}

/// Counters of one station.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StationStats {
    /// Carrier starts.
    pub transmissions: u64,
    /// Time on the air, finished transmissions only.
    pub air: Duration,
    /// Bytes its host fed.
    pub fed: u64,
    /// Fed bytes whose blocks went out whole.
    pub carried: u64,
    /// Padding bytes whose blocks went out whole.
    pub fill: u64,
    /// Fed bytes lost because the buffer was full.
    pub overrun: u64,
    /// Fed bytes lost because the key was up.
    pub unkeyed: u64,
    /// Fed bytes thrown away by an abort.
    pub discarded: u64,
    /// Key requests made while the modem was receiving.
    pub over_carrier: u64,
}

/// The content side of one transmission: which bytes each block carries and when it ends.
#[derive(Clone, Debug)]
pub(crate) struct Transmitter {
    pub(crate) waveform: Waveform,
    fill: u8,
    capacity: usize,
    buffer: VecDeque<u8>,
    /// Committed to blocks, but not yet out whole: the byte, and whether it is padding.
    on_air: VecDeque<(u8, bool)>,
    /// Bytes committed to blocks so far, padding included.
    committed: u64,
    /// Bytes whose blocks are out.
    completed: u64,
    /// Blocks begun.
    pub(crate) begun: u64,
    /// Length in blocks, once the key line has dropped.
    pub(crate) length: Option<u64>,
}

/// What one block carried.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Block {
    /// Bytes of the transmission before it.
    pub(crate) first: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fill: u64,
}

impl Transmitter {
    pub(crate) fn new(config: &ModemConfig) -> Self {
        Self {
            waveform: config.waveform,
            fill: config.fill,
            capacity: config.buffer_bytes,
            buffer: VecDeque::new(),
            on_air: VecDeque::new(),
            committed: 0,
            completed: 0,
            begun: 0,
            length: None,
        }
    }

    /// Takes what fits; returns how many bytes were lost.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> u64 {
        let room = self.capacity.saturating_sub(self.buffer.len());
        let taken = bytes.len().min(room);
        self.buffer.extend(&bytes[..taken]);
        (bytes.len() - taken) as u64
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Fed bytes that have not gone out whole.
    pub(crate) fn queued(&self) -> u64 {
        (self.buffer.len() + self.on_air.iter().filter(|(_, fill)| !fill).count()) as u64
    }

    /// The key line dropped: the tail follows the last byte held.
    pub(crate) fn end(&mut self) {
        if self.length.is_none() {
            let blocks = self.waveform.blocks(self.committed + self.buffer.len() as u64);
            debug_assert!(blocks >= self.begun, "a block begun is part of the transmission");
            self.length = Some(blocks);
        }
    }

    /// The next block goes on the air with what is held now.
    pub(crate) fn begin_block(&mut self) {
        self.begun += 1;
        // A byte whose first bits fall into this block is taken now.
        let end = self.waveform.bits(self.begun).div_ceil(8);
        while self.committed < end {
            match self.buffer.pop_front() {
                Some(byte) => self.on_air.push_back((byte, false)),
                None if self.length.is_none() => self.on_air.push_back((self.fill, true)),
                None => break,
            }
            self.committed += 1;
        }
    }

    /// The block begun last is out: these bytes ended in it.
    pub(crate) fn end_block(&mut self) -> Block {
        let end = self.waveform.bytes(self.begun).min(self.committed);
        let count = usize::try_from(end.saturating_sub(self.completed)).unwrap_or(usize::MAX).min(self.on_air.len());
        let mut block = Block { first: self.completed, ..Block::default() };
        self.completed += count as u64;
        for (byte, fill) in self.on_air.drain(..count) {
            block.bytes.push(byte);
            block.fill += u64::from(fill);
        }
        block
    }

    /// Bits of tail still to come after the last data bit, for tests of the arithmetic.
    #[cfg(test)]
    fn bits(&self) -> u64 {
        self.committed * 8 + crate::waveform::TAIL_BITS
    }
}

const _: () = assert!(crate::waveform::TAIL_BITS == 176, "MIL-STD-188-110A: 32 bits of end of message, 144 of flush");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_broken_number_of_bytes_carry_every_byte_once() {
        // 75 bit/s short: 45 bits a block.
        let mut t = Transmitter::new(&ModemConfig::new(*Waveform::find(75, "S").expect("known")));
        let sent: Vec<u8> = (1..=100).collect();
        assert_eq!(t.feed(&sent), 0);
        t.end();
        let mut out = Vec::new();
        for _ in 0..t.length.expect("ended") {
            t.begin_block();
            let block = t.end_block();
            assert!(block.bytes.len() <= 6);
            assert_eq!(block.fill, 0);
            out.extend(block.bytes);
        }
        assert_eq!(out, sent);
        assert_eq!((t.queued(), t.begun), (0, t.bits().div_ceil(45)));
    }

    #[test]
    fn a_starved_block_is_padded_and_the_tail_follows_the_padding() {
        let mut t = Transmitter::new(&ModemConfig::new(*Waveform::find(2400, "S").expect("known")));
        t.feed(&[7; 100]);
        t.begin_block();
        // Comes too late for the block on the air.
        t.feed(&[8; 10]);
        t.end();
        let block = t.end_block();
        assert_eq!((block.bytes.len(), block.fill), (180, 80));
        assert_eq!(t.length, Some(2));
        t.begin_block();
        assert_eq!(t.end_block(), Block { first: 180, bytes: vec![8; 10], fill: 0 });
    }
}
