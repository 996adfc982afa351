//! Messages over a half-duplex serial HF modem, between up to sixteen stations that take turns.
//!
//! [`Station`] is the whole link of one modem; the switch owns it. It cuts frozen payloads into symbols, keys when it is its turn,
//! hands the modem never more than two interleaver blocks, answers every transmission it hears with one report, and learns from
//! reports what to repair. Wire format: `docs/wire-serial.md`. Implements link-rules A1 to A6, B1, C1 to C3, D1, D2 and D4.

pub mod blind;
pub mod burst;
pub mod frame;
pub(in crate::bearer) mod incoming;
pub mod keys;
mod outgoing;
#[cfg(test)]
mod pair;
pub(in crate::bearer) mod peer;
mod rate;
mod sizes;
pub(in crate::bearer) mod station;

use std::collections::{BTreeMap, BTreeSet};

use crate::bearer::WaveformName;
use crate::mail::{LinkKey, PeerName, Precedence, Protection};
use crate::time::Duration;
use crate::units::Bps;

pub use outgoing::{Headway, Role};
pub use sizes::StationSizes;
pub use station::{LinkState, Outlook, Station, waits};

/// What the link must know of its modem's waveform.
#[derive(Clone, PartialEq, Debug)]
pub struct Waveform {
    /// Data rate.
    pub rate: Bps,
    /// Preamble.
    pub preamble: Duration,
    /// One interleaver block.
    pub block: Duration,
    /// Bits the modem adds at the end of a transmission.
    pub tail_bits: u32,
    /// Best frame length at this rate, overhead included.
    pub frame_bytes: u32,
    /// Last symbol of one station to first preamble symbol of the other.
    pub turnaround: Duration,
}

/// One waveform a modem can be told to transmit with.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// What the modem calls it.
    pub name: WaveformName,
    /// Its facts.
    pub waveform: Waveform,
    /// Signal-to-noise ratio over a block, dB in 3 kHz, at which one block in ten is lost on a fading path.
    pub anchor_db: f64,
}

/// A neighbour on this link.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerConfig {
    /// Its node name.
    pub name: PeerName,
    /// Its station number, 0..=15.
    pub station: u8,
    /// How frames are protected.
    pub protection: Protection,
    /// Keys shared with it; the first is used for sending.
    pub keys: Vec<LinkKey>,
    /// Share of cells taken for lost while it keeps silence, where no more than that has been measured.
    pub assumed_loss: f64,
}

/// What a [`Station`] is made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Own node name.
    pub name: PeerName,
    /// Own station number, 0..=15.
    pub station: u8,
    /// Own store epoch, never 0.
    pub epoch: u32,
    /// The epoch was made just now: nobody else, no copy of this store, has ever spoken under it.
    pub fresh: bool,
    /// Highest transfer counter this store has given out in that epoch.
    pub highest: u32,
    /// What this node can read, in four bits that mean nothing to the link: told with every hello.
    pub reads: u8,
    /// The waveform; where it is chosen, the one a link begins with.
    pub waveform: Waveform,
    /// Name of the net, the same at all its stations; part of every key.
    pub net: String,
    /// Stations that other bearers of this node reach too.
    pub siblings: BTreeSet<u8>,
    /// Its name.
    pub named: WaveformName,
    /// What may be chosen; empty: the waveform stays.
    pub choices: Vec<Choice>,
    /// Neighbours.
    pub peers: Vec<PeerConfig>,
    /// How mail of each level goes to peers that keep silence.
    pub blind: BTreeMap<Precedence, blind::Policy>,
    /// Cap of one transmission (D4).
    pub max_transmission: Duration,
    /// Cap while both ways hold ROUTINE or less.
    pub max_transmission_routine: Duration,
    /// A carrier longer than this is an alarm, and then counts as absent (A6).
    pub carrier_stuck_after: Duration,
    /// Partly received transfers kept at most.
    pub max_partials: usize,
    /// Bytes of partly received transfers kept at most.
    pub max_partial_bytes: usize,
    /// Seeds the back-off.
    pub seed: u64,
}
