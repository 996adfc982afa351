//! What the stations radiated, frame by frame, with the instant at which each byte was on the air: what the measurements of [`load`] and the
//! tests of the link read.
//!
//! [`load`]: crate::load
//!
//! A byte's instant follows from its place in the stream: preamble, then so many bytes at the data rate. That is when it would
//! leave without an interleaver; with one, its bits are spread over the block in which this instant lies.

use std::collections::BTreeMap;

use aldis::bearer::serial::frame::{Chunk, Frame, Item, Parsed, Standing};
use aldis::bearer::serial::keys::KeyRing;
use aldis::emcon::Keying;
use aldis::time::{Duration, Instant};

use super::Lab;
use crate::ether::StationId;
use crate::waveform::Waveform;

/// A piece of a transmission.
#[derive(Clone, PartialEq, Debug)]
pub struct Piece {
    /// Its first byte, counted from the beginning of the transmission.
    pub at: usize,
    /// Its length.
    pub bytes: usize,
    /// What it is.
    pub what: What,
}

/// What a piece is.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// A frame of symbols.
    Symbols(Vec<Chunk>),
    /// A control frame: the sender's epoch, and what it said.
    Control(u32, Vec<Item>),
    /// A brief report.
    Brief(Vec<(u16, Standing)>),
    /// Bytes that belong to no frame.
    Fill,
}

/// What one station radiated between key-down and carrier off.
#[derive(Clone, PartialEq, Debug)]
pub struct Transmission {
    /// Who.
    pub station: StationId,
    /// The first preamble symbol.
    pub from: Instant,
    /// All bytes that were fed.
    pub bytes: usize,
    /// In order, without gaps.
    pub pieces: Vec<Piece>,
    waveform: Waveform,
}

impl Transmission {
    /// When the byte at this place was on the air.
    pub fn on_air(&self, at: usize) -> Instant {
        let nanos = at as u128 * 8 * 1_000_000_000 / u128::from(self.waveform.rate.max(1));
        self.from + self.waveform.preamble() + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Every chunk of symbols, with the frame it stands in.
    pub fn chunks(&self) -> impl Iterator<Item = (&Piece, &Chunk)> {
        self.pieces.iter().flat_map(|piece| match &piece.what {
            What::Symbols(chunks) => chunks.iter().map(|chunk| (piece, chunk)).collect(),
            What::Control(..) | What::Brief(_) | What::Fill => Vec::new(),
        })
    }
}

/// What was keyed and fed at one station.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// By key request: when the first byte was fed, and all of them.
    runs: Vec<(Option<Instant>, Vec<u8>)>,
}

impl Tape {
    /// Takes what was keyed or fed.
    pub(super) fn take(&mut self, at: Instant, keying: &Keying) {
        match keying {
            Keying::Key => self.runs.push((None, Vec::new())),
            Keying::Feed(bytes) => {
                if let Some((first, stream)) = self.runs.last_mut() {
                    first.get_or_insert(at);
                    stream.extend_from_slice(bytes);
                }
            }
            Keying::Datagram { .. } | Keying::Igmp { .. } | Keying::Join | Keying::Membership { .. } => {}
        }
    }
}

impl Lab {
    /// From now on keeps everything that is radiated for [`Self::tapes`].
    pub fn record(&mut self) {
        for id in super::ids(self.names.len()) {
            self.watch(id).tape = Some(Tape::default());
            self.world.with_host(id, |node, _| node.listen());
        }
    }

    /// Everything radiated since [`Self::record`], in order of time.
    pub fn tapes(&self) -> Vec<Transmission> {
        let log = self.world.ether().antenna_log();
        let mut runs = Vec::new();
        for id in super::ids(self.names.len()) {
            let Some(waveform) = self.world.ether().modem(id).map(|modem| modem.waveform) else { continue };
            let tape = self.watches[usize::from(id.0)].tape.iter().flat_map(|tape| &tape.runs);
            for (fed, stream) in tape.filter_map(|(first, stream)| Some(((*first)?, stream))) {
                let on = log.iter().rfind(|edge| edge.station == id && edge.on && edge.at <= fed);
                runs.push((on.map_or(fed, |edge| edge.at), id, waveform, stream));
            }
        }
        runs.sort_by_key(|(from, id, ..)| (*from, *id));
        let mut ears = Ears::new(self);
        runs.into_iter()
            .map(|(from, station, waveform, stream)| {
                let pieces = ears.read(station, stream);
                Transmission { station, from, bytes: stream.len(), pieces, waveform }
            })
            .collect()
    }
}

/// Every station's keys, and what each has said of itself so far: brief reports can be read only with that.
struct Ears {
    /// By sender: those who can read what it says to them.
    rings: BTreeMap<StationId, BTreeMap<StationId, KeyRing>>,
    said: BTreeMap<StationId, (u32, u32)>,
    numbers: BTreeMap<StationId, u8>,
}

impl Ears {
    fn new(lab: &Lab) -> Self {
        let all: Vec<StationId> = super::ids(lab.names.len()).collect();
        let ring = |from: StationId, to: StationId| {
            let (name, plan) = (&lab.node(from).plan().node.name, lab.node(to).plan());
            let bearer = plan.bearers.first()?;
            let sender = plan.peers.iter().find(|peer| peer.name == *name)?;
            let mut ring = KeyRing::new(bearer.station);
            ring.add(&plan.node.name, name, sender.station, sender.protection, &sender.keys);
            Some((to, ring))
        };
        let rings = all.iter().map(|&from| (from, all.iter().filter_map(|&to| ring(from, to)).collect())).collect();
        let numbers = all.iter().map(|&id| (id, lab.topology().number(id))).collect();
        Self { rings, said: BTreeMap::new(), numbers }
    }

    fn read(&mut self, from: StationId, stream: &[u8]) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut at = 0;
        while at < stream.len() {
            let (what, bytes) = self.parse(from, &stream[at..]).unwrap_or((What::Fill, 1));
            match pieces.last_mut() {
                Some(last) if what == What::Fill && last.what == What::Fill => last.bytes += bytes,
                _ => pieces.push(Piece { at, bytes, what }),
            }
            at += bytes;
        }
        pieces
    }

    fn parse(&mut self, from: StationId, bytes: &[u8]) -> Option<(What, usize)> {
        let number = *self.numbers.get(&from)?;
        for (to, ring) in self.rings.get_mut(&from)? {
            if let Some((epoch, _)) = self.said.get(to) {
                ring.set_epoch(*epoch);
            }
            if let Some((epoch, counter)) = self.said.get(&from) {
                ring.heard_from(number, *epoch, *counter);
            }
            let Parsed::Whole(frame, length) = Frame::parse(bytes, ring) else { continue };
            let what = match frame {
                Frame::Symbols { chunks, .. } => What::Symbols(chunks),
                Frame::Control { epoch, counter, items, .. } => {
                    self.said.insert(from, (epoch, counter));
                    What::Control(epoch, items)
                }
                Frame::Brief { context, standings, .. } => {
                    self.said.insert(from, (context.epoch, context.counter));
                    What::Brief(standings)
                }
            };
            return Some((what, length));
        }
        None
    }
}
