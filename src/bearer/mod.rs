//! Bearers: what carries payloads between Aldis nodes. Each is a folder of sans-IO machines behind the words of this file.
//!
//! A bearer core never decides custody: it asks for commits ([`Event::Persist`]), waits, and only then claims or steers (A3). It
//! never radiates by itself: it states a [`Want`], and is handed an [`AirPermit`](crate::emcon::AirPermit) or nothing.

pub mod fec;
pub mod multicast;
pub mod pmul;
pub mod serial;

use std::fmt;
use std::sync::Arc;

use self::fec::Geometry;
use crate::emcon::Purpose;
use crate::mail::{Cut, PeerName, Precedence, TransferId};
use crate::time::{Duration, Instant};
use crate::units::Bps;

/// A rate and an interleaver, as modem sheets and modems name them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WaveformName {
    /// Data rate.
    pub rate: Bps,
    /// Letter of the interleaver.
    pub interleaver: Arc<str>,
}

impl fmt::Display for WaveformName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.rate, self.interleaver)
    }
}

/// What a modem says of what it is receiving, as far as it tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Measurement {
    /// What it recognised.
    pub waveform: Option<WaveformName>,
    /// Signal-to-noise ratio in 3 kHz, tenths of a decibel, over the last block or so.
    pub snr_tenths: Option<i16>,
    /// Decimal logarithm of the bit error ratio after decoding, in tenths.
    pub ber_tenths: Option<i16>,
}

/// What a modem tells its core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModemEvent {
    /// The key was accepted; the preamble's first symbol left at this instant and data may be fed.
    Keyed,
    /// Everything fed has left the antenna and the carrier is off.
    Unkeyed,
    /// Somebody else's carrier appeared (true) or went (false). All bytes received under it come before the `false`.
    Carrier(bool),
    /// Bytes received, garbage included.
    Received(Vec<u8>),
    /// What the modem measures of what it is receiving; before the `Carrier(false)` it belongs to.
    Measured(Measurement),
    /// The modem or its port failed or came back; anything keyed is off.
    Fault(String),
    /// The port works again.
    Ready,
}

/// What a core tells its modem that does not radiate. Keying and feeding go by [`Emission`](crate::emcon::Emission) only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModemAction {
    /// Transmit with this from the next key on.
    Transmit(WaveformName),
    /// Drop the key once everything fed has been taken.
    Unkey,
    /// Drop the key now and discard what the modem holds.
    Abort,
}

/// What a core would put on the air next, if it were allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// What for.
    pub purpose: Purpose,
    /// Until when the transmitter would radiate because of it, from now.
    pub airtime: Duration,
    /// The whole transmission as planned, for windows and for the operator.
    pub planned: Duration,
}

/// A frozen payload to carry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Its id.
    pub id: TransferId,
    /// To whom.
    pub to: PeerName,
    /// Level of service.
    pub precedence: Precedence,
    /// The frozen bytes, sealed.
    pub payload: Arc<[u8]>,
    /// Into what they are cut.
    pub cut: Cut,
    /// The counter its symbols go under, when several transfers carry the same payload to several peers: that of the first of them.
    pub lead: Option<u32>,
}

/// Work a core wants done off its thread, answered by ticket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// Make the symbols of a payload.
    Spread {
        /// The frozen bytes.
        payload: Arc<[u8]>,
        /// How they are cut.
        geometry: Geometry,
    },
    /// Rebuild a payload from symbols (sequence number, bytes).
    Gather {
        /// How it is cut.
        geometry: Geometry,
        /// What is held.
        symbols: Vec<(u16, Vec<u8>)>,
    },
}

/// The answer to a [`Job`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobDone {
    /// Symbols of a payload by sequence number.
    Spread(Arc<Vec<Vec<u8>>>),
    /// The payload; `None` when the symbols do not suffice or contradict each other.
    Gathered(Option<Arc<[u8]>>),
}

/// What the switch says about a payload a core reported whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Opened, decoded, accepted and committed (or seen before): say so to the sender.
    Accepted,
    /// The seal does not fit: the symbols are void; drop them and start again.
    Forged,
    /// This node will never take it; the sender should report failure. The number travels in the report.
    Refused(u8),
    /// Not now (no room): keep the symbols, say nothing final, ask again later.
    Later,
}

/// What one bearer of a node holds of a transfer on its way in, told to the others (link-rules C3: symbols belong to no bearer).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// Station number of the sender, the same on every bearer.
    pub station: u8,
    /// Its store epoch.
    pub epoch: u32,
    /// Counter of the transfer.
    pub counter: u32,
    /// What is held.
    pub holding: Holding,
}

/// See [`Share`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holding {
    /// Nothing; but the peer speaks under this epoch.
    Epoch,
    /// These symbols, committed.
    Symbols {
        /// How their payload is cut.
        geometry: Geometry,
        /// Sequence numbers and bytes.
        symbols: Vec<(u16, Vec<u8>)>,
    },
    /// It was accepted.
    Accepted,
    /// It was refused, and why.
    Refused(u8),
    /// What was held was given up.
    Dropped,
}

/// What happened on a bearer.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Commit these keys (`None` drops one); answer with `stored(ticket, ok)`.
    Persist {
        /// Ticket of the answer.
        ticket: u64,
        /// Keys and values, relative to the bearer.
        puts: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    /// Do this off the thread; answer with `job_done(ticket, ..)`.
    Job {
        /// Ticket of the answer.
        ticket: u64,
        /// What to do.
        job: Job,
    },
    /// A payload is whole; answer with `settled(ticket, verdict)`.
    Whole {
        /// Ticket of the answer.
        ticket: u64,
        /// From whom.
        from: PeerName,
        /// Epoch and counter as far as the frames carry them, expanded by what this station knows of the peer.
        id: TransferId,
        /// The sealed bytes.
        payload: Arc<[u8]>,
    },
    /// The far side holds `have` of `need` symbols (committed here before it was said).
    Progress {
        /// Which transfer.
        id: TransferId,
        /// Symbols the far side holds.
        have: u32,
        /// Symbols it needs.
        need: u32,
        /// Bytes this transfer has put on the air so far, overhead included.
        bytes_on_air: u64,
        /// Its share of own key-down time so far.
        air: Duration,
    },
    /// A window towards a silent peer is over: what was meant to leave in it has left. Nobody has said that it arrived.
    SentBlind {
        /// Which transfer.
        id: TransferId,
        /// Which window this was, from 1.
        window: u32,
        /// Of how many.
        of: u32,
        /// Every symbol has left before: some of these were sent again.
        repeated: bool,
        /// Bytes on the air so far.
        bytes_on_air: u64,
        /// Share of own key-down time so far.
        air: Duration,
    },
    /// The far side has accepted it.
    Confirmed {
        /// Which transfer.
        id: TransferId,
        /// Bytes on the air.
        bytes_on_air: u64,
        /// Share of own key-down time.
        air: Duration,
    },
    /// The far side will never take it.
    Refused {
        /// Which transfer.
        id: TransferId,
        /// Reason number from the report.
        reason: u8,
    },
    /// The key went down at this instant for this transmission.
    Keyed {
        /// First preamble symbol.
        at: Instant,
        /// Its highest precedence.
        precedence: Precedence,
        /// Transfers in it.
        transfers: Vec<TransferId>,
    },
    /// The key went up.
    Unkeyed {
        /// How long it was down.
        air: Duration,
        /// Bytes fed.
        bytes: u64,
        /// Those of them that were symbols beyond what was owed: room that whole blocks, or the best length, left.
        fill: u64,
    },
    /// The far side holds all of a transfer but this, by its report; for the other bearers that may carry it.
    Lacks {
        /// Which transfer.
        id: TransferId,
        /// Store epoch of the far side.
        epoch: u32,
        /// Symbols it lacks, per block.
        lack: Vec<u8>,
    },
    /// What this bearer holds of a peer's transfer has changed, durably; for the other bearers that reach the peer.
    Shared(Share),
    /// Something an operator must know: stuck carrier, stuck key, wrong key, peer restored from backup.
    Alarm(String),
    /// A peer's word shows that this node's store is an old copy: the station keeps still until it is given another epoch (A2, C1).
    EpochUsed {
        /// Whose word.
        peer: PeerName,
    },
}
