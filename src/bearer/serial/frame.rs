//! Frames on the air, version 1: the only file that knows offsets. Byte tables and vectors stand in `docs/wire-serial.md`.
//!
//! [`Frame::emit`] writes one frame; [`Deframer`] finds frames in whatever a modem delivers, garbage included.

use super::keys::{Context, KeyRing, Seal, Trust};
use crate::bearer::fec::Geometry;
use crate::mail::Cut;

/// First byte of a frame of symbols, version 1, plus the key number: by whether the sender goes on after this transmission and wants no
/// answer before, and by whether more mail waits there.
const SYNC_SYMBOLS: [[u8; 2]; 2] = [[0x98, 0xA8], [0xA0, 0xB0]];
/// The bit of all of them that says that the symbols are wide ones.
const SYNC_WIDE: u8 = 0x04;
/// First byte of a control frame, version 1, plus the key number.
const SYNC_CONTROL: u8 = 0x64;
/// First byte of a brief report, version 1, plus the key number.
const SYNC_BRIEF: u8 = 0x5C;
/// The bits of a first byte that say what it is; the others are the key number.
const SYNC_BITS: u8 = !KEY_BITS;
const KEY_BITS: u8 = 3;
/// Bytes of a symbol frame up to the first symbol.
const SYMBOLS_HEADER: usize = 10;
const DESCRIPTOR: usize = 6;
const SYMBOLS_TAG: usize = 4;
const CONTROL_HEADER: usize = 13;
const CONTROL_TAG: usize = 8;
const BRIEF_HEADER: usize = 7;
const BRIEF_TAG: usize = 6;
/// Bytes of standings a brief report has room for.
pub const BRIEF_STANDINGS: usize = 30;
/// Everything in a one-chunk frame that is not symbols.
pub const FRAME_OVERHEAD: usize = SYMBOLS_HEADER + SYMBOLS_TAG;
/// What another transfer in the same frame costs.
pub const CHUNK_OVERHEAD: usize = DESCRIPTOR;
/// Everything in a control frame that is not its items.
pub const CONTROL_OVERHEAD: usize = CONTROL_HEADER + CONTROL_TAG;
/// Everything in a brief report that is not its standings.
pub const BRIEF_OVERHEAD: usize = BRIEF_HEADER + 1 + BRIEF_TAG;
/// The shortest frame worth sending: one small symbol.
pub const MINIMAL_FRAME: usize = FRAME_OVERHEAD + 31;
/// No frame is longer; what claims to be is garbage.
pub const MAX_FRAME: usize = 4096;
/// Symbols one chunk may carry.
pub const CHUNK_SYMBOLS: usize = 16;
/// Chunks one frame may carry.
pub const FRAME_CHUNKS: usize = 16;

const CRC16: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_IBM_SDLC);

/// Who speaks to whom, under which key. `to == from` means all stations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address {
    /// Sending station, 0..=15.
    pub from: u8,
    /// Receiving station, 0..=15.
    pub to: u8,
    /// Key number, 0..=3.
    pub key: u8,
}

/// A run of symbols of one transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Low 4 bits of the epoch, low 12 bits of the counter.
    pub short: u16,
    /// How the payload is cut.
    pub geometry: Geometry,
    /// Sequence number of the first symbol.
    pub first: u16,
    /// Consecutive symbols.
    pub symbols: Vec<Vec<u8>>,
}

/// Transfers by short id.
type Standings = Vec<(u16, Standing)>;

/// What a report says about one transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Symbols still missing, per code block; all zero: whole, not yet judged.
    Lacks(Vec<u8>),
    /// Taken for good.
    Accepted,
    /// Never to be taken, and why.
    Refused(u8),
    /// Nothing is known of it.
    Unknown,
}

/// The receiver's word on what it holds. Its epoch and sequence number are those of the control frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The epoch of the addressed station as known here; 0 when unknown.
    pub epoch: u32,
    /// Highest transfer counter of that epoch seen here.
    pub transfer_seen: u32,
    /// Highest control counter of that epoch seen here.
    pub control_seen: u32,
    /// Symbol frames heard in the transmissions this report answers, at most [`MOST_HEARD`].
    pub heard: u16,
    /// Not everything that was asked fitted.
    pub more: bool,
    /// Transfers by short id.
    pub standings: Vec<(u16, Standing)>,
}

/// Most symbol frames that a report can say were heard.
pub const MOST_HEARD: u16 = 0x7fff;

/// One thing said in a control frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// Rank of the highest precedence waiting at the sender plus one, 0 for none; what it can read; and its highest transfer counter.
    Hello {
        /// 0 none, else rank + 1.
        waiting: u8,
        /// What the sender can read, in four bits that mean nothing to the link.
        reads: u8,
        /// Highest transfer counter of the sender's epoch.
        counter: u32,
    },
    /// What the sender holds of the addressed station's transfers.
    Report(Report),
    /// Asks for a report, on these transfers at least.
    Poll(Vec<u16>),
    /// These transfers will never be finished.
    Cancel(Vec<u16>),
    /// How well the addressed station's transmissions are heard here, as [`Quality`](super::rate::Quality) has it; `None` asks for that.
    Quality(Option<u8>),
    /// Who is to answer this transmission, each in its slot, lower stations before higher ones.
    Order(Stations),
    /// Transfers of the sender that several stations take from the same symbols, and which; the others need not keep them.
    Group(Vec<(u16, Stations)>),
    /// The sender has just left silence; these may have left it too and speak after it, in the order of their numbers.
    Follow(Stations),
}

/// A set of stations: bit n is station n.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Stations(pub u16);

impl Stations {
    /// No station.
    pub const NONE: Self = Self(0);

    /// One station.
    pub const fn one(station: u8) -> Self {
        Self(1 << (station & 0xF))
    }

    /// Whether it is among them.
    pub const fn has(self, station: u8) -> bool {
        self.0 & Self::one(station).0 != 0
    }

    /// How many.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// All of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not among others.
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Those of lower numbers than a station's.
    pub const fn below(self, station: u8) -> Self {
        Self(self.0 & (Self::one(station).0 - 1))
    }

    /// Those of higher numbers than a station's.
    pub const fn above(self, station: u8) -> Self {
        self.without(self.below(station)).without(Self::one(station))
    }

    /// The highest.
    pub fn highest(self) -> Option<u8> {
        self.0.checked_ilog2().and_then(|n| u8::try_from(n).ok())
    }

    /// The lowest.
    pub fn lowest(self) -> Option<u8> {
        u8::try_from(self.0.trailing_zeros()).ok().filter(|n| *n < 16)
    }
}

impl FromIterator<u8> for Stations {
    fn from_iter<I: IntoIterator<Item = u8>>(stations: I) -> Self {
        stations.into_iter().fold(Self::NONE, |all, one| all.and(Self::one(one)))
    }
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Symbols of one or more transfers.
    Symbols {
        /// Who and whom.
        address: Address,
        /// The sender goes on after this transmission, and wants no answer to it yet.
        goes_on: bool,
        /// The sender has transfers for whom this is for of which nothing has left.
        more_waits: bool,
        /// At least one, and all of one cut.
        chunks: Vec<Chunk>,
    },
    /// Words between stations.
    Control {
        /// Who and whom.
        address: Address,
        /// Store epoch of the sender.
        epoch: u32,
        /// Its persisted counter: never twice in one epoch.
        counter: u32,
        /// What is said.
        items: Vec<Item>,
    },
    /// What a station holds, in few bytes: between stations that know each other's epochs.
    Brief {
        /// Who and whom.
        address: Address,
        /// Both epochs, and the sender's counter, of which the last 16 bits are on the air.
        context: Context,
        /// As in [`Item::Hello`].
        waiting: u8,
        /// As in [`Report`], up to 255.
        heard: u8,
        /// As in [`Report`], at most [`BRIEF_STANDINGS`] bytes.
        standings: Vec<(u16, Standing)>,
        /// As in [`Item::Quality`].
        quality: Option<u8>,
    },
}

impl Frame {
    /// The bytes for the air, sealed for `address`.
    pub fn emit(&self, seal: &Seal) -> Vec<u8> {
        let mut out = Vec::with_capacity(300);
        match self {
            Self::Symbols { address, goes_on, more_waits, chunks } => {
                let sync = SYNC_SYMBOLS[usize::from(*goes_on)][usize::from(*more_waits)];
                let wide = chunks.first().is_some_and(|c| c.geometry.cut() == Cut::Wide);
                out.extend(address.emit(if wide { sync | SYNC_WIDE } else { sync }));
                for (i, chunk) in chunks.iter().enumerate() {
                    out.extend(chunk.descriptor(i + 1 < chunks.len()));
                    if i == 0 {
                        out.extend(CRC16.checksum(&out).to_be_bytes());
                    }
                    chunk.symbols.iter().for_each(|s| out.extend(s));
                }
                out.extend(seal.symbols(&out));
            }
            Self::Control { address, epoch, counter, items } => {
                let mut body = Vec::new();
                items.iter().for_each(|item| item.emit(&mut body));
                body.truncate(255);
                out.extend(address.emit(SYNC_CONTROL));
                out.push(body.len() as u8);
                out.extend(epoch.to_be_bytes());
                out.extend(counter.to_be_bytes());
                out.extend(CRC16.checksum(&out).to_be_bytes());
                out.extend(body);
                out.extend(seal.control(&out));
            }
            Self::Brief { address, context, waiting, heard, standings, quality } => {
                let mut body = vec![*heard];
                emit_standings(standings, &mut body);
                body.extend(quality);
                body.truncate(1 + BRIEF_STANDINGS);
                out.extend(address.emit(SYNC_BRIEF));
                out.push((waiting & 7) << 5 | body.len() as u8);
                out.extend((context.counter as u16).to_be_bytes());
                out.extend(CRC16.checksum(&out).to_be_bytes());
                out.extend(body);
                out.extend(seal.brief(*context, &out));
            }
        }
        out
    }

    /// Who and whom.
    pub fn address(&self) -> Address {
        match self {
            Self::Symbols { address, .. } | Self::Control { address, .. } | Self::Brief { address, .. } => *address,
        }
    }

    /// Reads the frame at the start of `bytes`.
    pub fn parse(bytes: &[u8], ring: &KeyRing) -> Parsed {
        match bytes.first().map(|sync| sync & SYNC_BITS) {
            None => Parsed::Short,
            Some(sync) if SYNC_SYMBOLS.as_flattened().contains(&(sync & !SYNC_WIDE)) => parse_symbols(bytes, ring),
            Some(SYNC_CONTROL) => parse_control(bytes, ring),
            Some(SYNC_BRIEF) => parse_brief(bytes, ring),
            Some(_) => Parsed::Nothing,
        }
    }
}

/// What stands at the start of some bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// A frame of this length.
    Whole(Frame, usize),
    /// A header that wants more bytes than there are.
    Short,
    /// A header whose frame is damaged, forged, or sealed under another key.
    Unsealed(Address),
    /// A frame between other stations, which cannot be checked here.
    Foreign(Overheard),
    /// No frame.
    Nothing,
}

/// What can be read of a frame between others: nobody vouches for it, so it only says when to keep still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overheard {
    /// Who and whom.
    pub address: Address,
    /// It wants an answer.
    pub asks: bool,
    /// All who are to answer, where it says so.
    pub order: Option<Stations>,
}

impl Address {
    /// The first two bytes of a frame.
    fn emit(self, sync: u8) -> [u8; 2] {
        [sync | (self.key & KEY_BITS), self.from << 4 | (self.to & 0xF)]
    }

    fn of(sync: u8, stations: u8) -> Self {
        Self { from: stations >> 4, to: stations & 0xF, key: sync & KEY_BITS }
    }
}

impl Chunk {
    fn descriptor(&self, more: bool) -> [u8; DESCRIPTOR] {
        let g = self.geometry;
        let (length, first) = (u64::from(g.coded()), u64::from(self.first));
        let tail = match g.class() {
            0 => (length - 1) << 13 | first << 4,
            1 => (length - 1) << 11 | first,
            2 => (length / 16 - 1) << 12 | first,
            _ => (length / 64 - 1) << 12 | first,
        };
        let n = self.symbols.len().clamp(1, CHUNK_SYMBOLS) as u64 - 1;
        let word = u64::from(more) << 47 | u64::from(self.short) << 31 | n << 27 | u64::from(g.class()) << 25 | tail;
        let [_, _, d @ ..] = word.to_be_bytes();
        d
    }

    /// Reads a descriptor: the empty chunk, how many symbols follow, whether another chunk follows them.
    fn describe(bytes: &[u8], cut: Cut) -> Option<(Self, usize, bool)> {
        let d: [u8; DESCRIPTOR] = bytes.get(..DESCRIPTOR)?.try_into().ok()?;
        let word = d.iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
        let tail = word & 0x1FF_FFFF;
        let (coded, first) = match word >> 25 & 3 {
            0 if tail & 0xF != 0 => return None,
            0 => ((tail >> 13) + 1, tail >> 4 & 0x1FF),
            1 => ((tail >> 11) + 1, tail & 0x7FF),
            2 => (((tail >> 12) + 1) * 16, tail & 0xFFF),
            _ => (((tail >> 12) + 1) * 64, tail & 0xFFF),
        };
        let geometry = Geometry::of_coded(coded as u32, cut)?;
        let n = (word >> 27 & 0xF) as usize + 1;
        if u64::from(geometry.class()) != word >> 25 & 3 || first as usize + n > geometry.sequences() as usize {
            return None;
        }
        let short = (word >> 31) as u16;
        Some((Self { short, geometry, first: first as u16, symbols: Vec::new() }, n, word >> 47 & 1 == 1))
    }
}

impl Item {
    fn emit(&self, out: &mut Vec<u8>) {
        let (kind, mut value) = match self {
            Self::Hello { waiting, reads, counter } => {
                (1, [&[reads << 4 | waiting & 7][..], &counter.to_be_bytes()].concat())
            }
            Self::Report(report) => (2, report.emit()),
            Self::Poll(shorts) => (3, shorts.iter().flat_map(|s| s.to_be_bytes()).collect()),
            Self::Cancel(shorts) => (4, shorts.iter().flat_map(|s| s.to_be_bytes()).collect()),
            Self::Order(stations) => (5, stations.0.to_be_bytes().to_vec()),
            Self::Group(groups) => {
                (7, groups.iter().flat_map(|(s, who)| [s.to_be_bytes(), who.0.to_be_bytes()]).flatten().collect())
            }
            Self::Follow(stations) => (6, stations.0.to_be_bytes().to_vec()),
            Self::Quality(quality) => (8, quality.iter().copied().collect()),
        };
        value.truncate(253);
        out.extend([kind, value.len() as u8]);
        out.extend(value);
    }

    /// Who is to answer, where this item says so.
    pub fn order(&self) -> Option<Stations> {
        match self {
            Self::Order(stations) => Some(*stations),
            Self::Hello { .. }
            | Self::Report(_)
            | Self::Poll(_)
            | Self::Cancel(_)
            | Self::Group(_)
            | Self::Quality(_)
            | Self::Follow(_) => None,
        }
    }

    /// Reads the items of a body. Unknown kinds are skipped; `None` when the body is not a list of items.
    fn parse_all(mut body: &[u8]) -> Option<Vec<Self>> {
        let mut items = Vec::new();
        while let [kind, length, rest @ ..] = body {
            let value = rest.get(..usize::from(*length))?;
            body = &rest[usize::from(*length)..];
            let shorts = || value.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect();
            match kind {
                1 => {
                    let [first, counter @ ..] = value else { return None };
                    let (waiting, reads) = (first & 7, first >> 4);
                    items.push(Self::Hello { waiting, reads, counter: u32_at(counter, 0)? });
                }
                2 => items.push(Self::Report(Report::parse(value)?)),
                3 => items.push(Self::Poll(shorts())),
                4 => items.push(Self::Cancel(shorts())),
                5 => items.push(Self::Order(Stations(u16::from_be_bytes(value.try_into().ok()?)))),
                6 => items.push(Self::Follow(Stations(u16::from_be_bytes(value.try_into().ok()?)))),
                7 => {
                    let word = |b: &[u8]| u16::from_be_bytes([b[0], b[1]]);
                    items
                        .push(Self::Group(value.chunks_exact(4).map(|b| (word(b), Stations(word(&b[2..])))).collect()));
                }
                8 => items.push(Self::Quality(value.first().copied())),
                _ => {}
            }
        }
        body.is_empty().then_some(items)
    }
}

/// Bytes of a report item before its standings, item header included.
pub const REPORT_FIXED: usize = 2 + 14;

impl Standing {
    /// Bytes this standing takes in a report, short id included.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Lacks(lacks) => 3 + lacks.len().min(packed_lacks(lacks).len() - 1),
            Self::Refused(_) => 4,
            Self::Accepted | Self::Unknown => 3,
        }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted => out.push(0),
            Self::Refused(reason) => out.extend([1, *reason]),
            Self::Unknown => out.push(2),
            Self::Lacks(lacks) => {
                let packed = packed_lacks(lacks);
                if packed.len() < 1 + lacks.len() {
                    return out.extend(packed);
                }
                out.push(0x80 | lacks.len() as u8);
                out.extend(lacks);
            }
        }
    }

    /// Reads a standing and says how many bytes it took.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (kind, tail) = bytes.split_first()?;
        Some(match kind {
            0 => (Self::Accepted, 1),
            1 => (Self::Refused(*tail.first()?), 2),
            2 => (Self::Unknown, 1),
            n if n & 0x80 != 0 => {
                let n = usize::from(n & 0x7F);
                (Self::Lacks(tail.get(..n)?.to_vec()), 1 + n)
            }
            n if n & 0xF8 == 0x40 => unpack_lacks(usize::from(n & 7), tail)?,
            _ => return None,
        })
    }
}

/// Blocks of one transfer fill evenly, so what they lack differs little: the least number, and what each lacks beyond it in few bits.
fn packed_lacks(lacks: &[u8]) -> Vec<u8> {
    let least = lacks.iter().copied().min().unwrap_or(0);
    let most = lacks.iter().map(|n| n - least).max().unwrap_or(0);
    let width = (8 - most.leading_zeros()).min(7);
    if most > 127 || lacks.len() > 255 {
        return vec![0; lacks.len() + 4];
    }
    let mut out = vec![0x40 | width as u8, lacks.len() as u8, least];
    let (mut bits, mut held) = (0u32, 0);
    for n in lacks {
        bits = bits << width | u32::from(n - least);
        held += width;
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        out.push((bits << (8 - held)) as u8);
    }
    out
}

fn unpack_lacks(width: usize, tail: &[u8]) -> Option<(Standing, usize)> {
    let [count, least, rest @ ..] = tail else { return None };
    let length = (usize::from(*count) * width).div_ceil(8);
    let packed = rest.get(..length)?;
    let bit = |at: usize| u32::from(packed[at / 8] >> (7 - at % 8) & 1);
    let mut lacks = Vec::with_capacity(usize::from(*count));
    for i in 0..usize::from(*count) {
        let beyond = (i * width..(i + 1) * width).fold(0, |n, at| n << 1 | bit(at));
        lacks.push(u8::try_from(u32::from(*least) + beyond).ok()?);
    }
    Some((Standing::Lacks(lacks), 3 + length))
}

fn emit_standings(standings: &[(u16, Standing)], out: &mut Vec<u8>) {
    for (short, standing) in standings {
        out.extend(short.to_be_bytes());
        standing.emit(out);
    }
}

/// Reads standings, and gives what is left when no further one can begin: less than two bytes.
fn parse_standings(mut rest: &[u8]) -> Option<(Standings, &[u8])> {
    let mut standings = Vec::new();
    while let [a, b, tail @ ..] = rest {
        let (standing, used) = Standing::parse(tail)?;
        standings.push((u16::from_be_bytes([*a, *b]), standing));
        rest = &tail[used..];
    }
    Some((standings, rest))
}

impl Report {
    fn emit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.transfer_seen.to_be_bytes());
        out.extend(self.control_seen.to_be_bytes());
        let heard = self.heard.min(MOST_HEARD);
        out.extend([heard as u8, u8::from(self.more) | (heard >> 8 << 1) as u8]);
        emit_standings(&self.standings, &mut out);
        out
    }

    fn parse(value: &[u8]) -> Option<Self> {
        Some(Self {
            epoch: u32_at(value, 0)?,
            transfer_seen: u32_at(value, 4)?,
            control_seen: u32_at(value, 8)?,
            heard: u16::from(*value.get(12)?) | u16::from(value.get(13)? >> 1) << 8,
            more: value.get(13)? & 1 == 1,
            standings: parse_standings(value.get(14..)?).filter(|(_, rest)| rest.is_empty())?.0,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn parse_symbols(bytes: &[u8], ring: &KeyRing) -> Parsed {
    let Some(header) = bytes.get(..SYMBOLS_HEADER) else { return Parsed::Short };
    if CRC16.checksum(&header[..8]).to_be_bytes() != header[8..] {
        return Parsed::Nothing;
    }
    let address = Address::of(header[0], header[1]);
    let cut = if header[0] & SYNC_WIDE == 0 { Cut::Narrow } else { Cut::Wide };
    let Some((mut chunk, mut n, mut more)) = Chunk::describe(&header[2..8], cut) else { return Parsed::Nothing };
    let says = |sync: &u8| *sync == header[0] & SYNC_BITS & !SYNC_WIDE;
    let (goes_on, more_waits) = (SYNC_SYMBOLS[1].iter().any(says), SYNC_SYMBOLS.iter().any(|row| says(&row[1])));
    let trust = ring.trust(address);
    if trust == Trust::Foreign {
        return Parsed::Foreign(Overheard { address, asks: !goes_on, order: None });
    }
    let (mut at, mut chunks) = (SYMBOLS_HEADER, Vec::new());
    loop {
        for i in 0..n {
            let length = chunk.geometry.air_bytes(u32::from(chunk.first) + i as u32);
            let Some(symbol) = bytes.get(at..at + length) else {
                return if at + length > MAX_FRAME { Parsed::Unsealed(address) } else { Parsed::Short };
            };
            chunk.symbols.push(symbol.to_vec());
            at += length;
        }
        chunks.push(chunk);
        if !more {
            break;
        }
        // Later descriptors have only the tag to vouch for them, so a bad one is damage, not absence of a frame.
        let Some(descriptor) = bytes.get(at..at + DESCRIPTOR) else { return Parsed::Short };
        let Some(next) = Chunk::describe(descriptor, cut) else { return Parsed::Unsealed(address) };
        if chunks.len() == FRAME_CHUNKS || at > MAX_FRAME {
            return Parsed::Unsealed(address);
        }
        (chunk, n, more) = next;
        at += DESCRIPTOR;
    }
    let Some(tag) = bytes.get(at..at + SYMBOLS_TAG) else { return Parsed::Short };
    if !ring.symbols_fit(address, &bytes[..at], tag) {
        return Parsed::Unsealed(address);
    }
    Parsed::Whole(Frame::Symbols { address, goes_on, more_waits, chunks }, at + SYMBOLS_TAG)
}

fn parse_control(bytes: &[u8], ring: &KeyRing) -> Parsed {
    let Some(header) = bytes.get(..CONTROL_HEADER) else { return Parsed::Short };
    if CRC16.checksum(&header[..11]).to_be_bytes() != header[11..] {
        return Parsed::Nothing;
    }
    let address = Address::of(header[0], header[1]);
    let end = CONTROL_HEADER + usize::from(header[2]);
    let Some(tag) = bytes.get(end..end + CONTROL_TAG) else { return Parsed::Short };
    if ring.trust(address) == Trust::Foreign {
        let items = Item::parse_all(&bytes[CONTROL_HEADER..end]).unwrap_or_default();
        let asks = items.iter().any(|i| matches!(i, Item::Poll(_) | Item::Cancel(_)));
        return Parsed::Foreign(Overheard { address, asks, order: items.iter().find_map(Item::order) });
    }
    if !ring.control_fits(address, &bytes[..end], tag) {
        return Parsed::Unsealed(address);
    }
    let (Some(epoch), Some(counter)) = (u32_at(header, 3), u32_at(header, 7)) else { return Parsed::Nothing };
    match Item::parse_all(&bytes[CONTROL_HEADER..end]) {
        Some(items) => Parsed::Whole(Frame::Control { address, epoch, counter, items }, end + CONTROL_TAG),
        None => Parsed::Unsealed(address),
    }
}

fn parse_brief(bytes: &[u8], ring: &KeyRing) -> Parsed {
    let Some(header) = bytes.get(..BRIEF_HEADER) else { return Parsed::Short };
    if CRC16.checksum(&header[..5]).to_be_bytes() != header[5..] {
        return Parsed::Nothing;
    }
    let address = Address::of(header[0], header[1]);
    if ring.trust(address) == Trust::Foreign {
        return Parsed::Foreign(Overheard { address, asks: false, order: None });
    }
    let end = BRIEF_HEADER + usize::from(header[2] & 0x1F);
    let Some(tag) = bytes.get(end..end + BRIEF_TAG) else { return Parsed::Short };
    let counter = u16::from_be_bytes([header[3], header[4]]);
    let Some(context) = ring.context(address, counter) else { return Parsed::Unsealed(address) };
    if !ring.brief_fits(address, context, &bytes[..end], tag) {
        return Parsed::Unsealed(address);
    }
    let Some((heard, rest)) = bytes[BRIEF_HEADER..end].split_first() else { return Parsed::Unsealed(address) };
    match parse_standings(rest) {
        Some((standings, rest)) => {
            let (waiting, heard, quality) = (header[2] >> 5, *heard, rest.first().copied());
            let frame = Frame::Brief { address, context, waiting, heard, standings, quality };
            Parsed::Whole(frame, end + BRIEF_TAG)
        }
        None => Parsed::Unsealed(address),
    }
}

/// What a [`Deframer`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A good frame.
    Frame(Frame),
    /// A header without a frame that fits it.
    Unsealed(Address),
    /// A frame between other stations.
    Foreign(Overheard),
}

/// Hunts for frames in a byte stream: sync octet, header CRC, tag; after a false hit it goes on one byte further, so garbage that
/// looked like a header never hides the good frame behind it. Holds at most one frame's worth of undecided bytes.
#[derive(Default, Debug)]
pub struct Deframer {
    bytes: Vec<u8>,
    at: usize,
    finished: bool,
}

impl Deframer {
    /// Takes what the modem delivered.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.finished = false;
        self.bytes.extend_from_slice(bytes);
    }

    /// The transmission is over: what is undecided will not be completed.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next find.
    pub fn poll(&mut self, ring: &KeyRing) -> Option<Found> {
        while let Some(rest) = self.bytes.get(self.at..).filter(|r| !r.is_empty()) {
            match Frame::parse(rest, ring) {
                Parsed::Whole(frame, length) => {
                    self.at += length;
                    return Some(Found::Frame(frame));
                }
                Parsed::Short if !self.finished => return None,
                Parsed::Short | Parsed::Nothing => self.at += 1,
                Parsed::Unsealed(address) => {
                    self.at += 1;
                    return Some(Found::Unsealed(address));
                }
                Parsed::Foreign(overheard) => {
                    self.at += 1;
                    return Some(Found::Foreign(overheard));
                }
            }
        }
        self.bytes.clear();
        self.at = 0;
        None
    }

    /// Bytes held undecided.
    pub fn held(&self) -> usize {
        self.bytes.len() - self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{LinkKey, PeerName, Protection};
    use proptest::prelude::*;

    /// Vectors of docs/wire-serial.md: name and bytes. The secret is 32 bytes of 7, alfa (station 0) sends to bravo (station 1).
    fn vectors() -> Vec<(&'static str, Frame)> {
        let address = Address { from: 0, to: 1, key: 1 };
        let small = Geometry::of_payload(40, Cut::Narrow).expect("in range");
        let large = Geometry::of_payload(20_000, Cut::Narrow).expect("in range");
        let first = Chunk { short: 0x5001, geometry: small, first: 0, symbols: vec![(0..31).collect(), vec![0xEE; 9]] };
        let second = Chunk { short: 0x5002, geometry: large, first: 17, symbols: vec![vec![0x55; 62]] };
        let report = Report {
            epoch: 0x1000_0005,
            transfer_seen: 2,
            control_seen: 9,
            heard: 5,
            more: false,
            standings: vec![(0x5001, Standing::Accepted), (0x5002, Standing::Lacks(vec![0, 3, 1]))],
        };
        let control = |items| Frame::Control { address, epoch: 0x1000_0005, counter: 1025, items };
        let context = Context { epoch: 0x1000_0005, far: 0x2000_0006, counter: 1025 };
        let brief = |standings| Frame::Brief { address, context, waiting: 2, heard: 14, standings, quality: None };
        let asked = Item::Quality(None);
        let symbols = |goes_on, more_waits, chunk: &Chunk| {
            let chunks = vec![chunk.clone()];
            Frame::Symbols { address, goes_on, more_waits, chunks }
        };
        let both = |chunks| Frame::Symbols { address, goes_on: false, more_waits: false, chunks };
        let wide = Geometry::of_payload(40, Cut::Wide).expect("in range");
        let widely = Chunk { short: 0x5001, geometry: wide, first: 0, symbols: vec![(0..33).collect(), vec![0xEE; 7]] };
        vec![
            ("one transfer", symbols(false, false, &first)),
            ("one transfer, going on", symbols(true, false, &first)),
            ("one transfer, more waits", symbols(false, true, &first)),
            ("one transfer, going on, more waits", symbols(true, true, &first)),
            ("one transfer, wide", symbols(false, false, &widely)),
            ("two transfers", both(vec![first, second])),
            (
                "hello and poll",
                control(vec![Item::Hello { waiting: 2, reads: 9, counter: 2 }, Item::Poll(vec![0x5002])]),
            ),
            (
                "report on 283 frames",
                control(vec![Item::Report(Report { heard: 283, more: true, standings: Vec::new(), ..report.clone() })]),
            ),
            ("report", control(vec![Item::Hello { waiting: 0, reads: 0, counter: 2 }, Item::Report(report)])),
            ("cancel", control(vec![Item::Cancel(vec![0x5002])])),
            ("quality, asked for and told", control(vec![asked, Item::Quality(Some(0x5B))])),
            ("call to all", {
                let address = Address { to: 0, ..address };
                let (members, order) = ([1, 2, 3].into_iter().collect(), [1, 2].into_iter().collect());
                let groups = vec![(0x5001, members)];
                let hello = Item::Hello { waiting: 2, reads: 0, counter: 2 };
                let items = vec![hello, Item::Poll(vec![0x5001]), Item::Group(groups), Item::Order(order)];
                Frame::Control { address, epoch: 0x1000_0005, counter: 1025, items }
            }),
            ("brief report", brief(vec![(0x5001, Standing::Accepted)])),
            ("brief report with quality", {
                let standings = vec![(0x5001, Standing::Accepted)];
                Frame::Brief { address, context, waiting: 2, heard: 14, standings, quality: Some(0x5B) }
            }),
            (
                "brief report on a long transfer",
                brief(vec![(0x5002, Standing::Lacks(vec![9, 8, 10, 9, 9, 8, 8, 9, 11, 9, 9, 8, 9]))]),
            ),
        ]
    }

    fn ring() -> KeyRing {
        let mut ring = KeyRing::new(1);
        let keys = [LinkKey { id: 1, secret: [7; 32] }];
        ring.add(&PeerName::from("bravo"), &PeerName::from("alfa"), 0, Protection::Mac, &keys);
        ring.set_epoch(0x2000_0006);
        ring.heard_from(0, 0x1000_0005, 1000);
        ring
    }

    fn seal() -> Seal {
        Seal::keyed(&[7; 32], &PeerName::from("alfa"))
    }

    #[test]
    fn vectors_match_the_page() {
        let page = include_str!("../../../docs/wire-serial.md");
        let line = |(name, frame): (&str, Frame)| {
            format!("| {name} | `{}` |", data_encoding::HEXLOWER.encode(&frame.emit(&seal())))
        };
        let lacks: Vec<String> = vectors().into_iter().map(line).filter(|line| !page.contains(line)).collect();
        assert!(lacks.is_empty(), "docs/wire-serial.md lacks\n{}", lacks.join("\n"));
    }

    #[test]
    fn d1_frames_round_trip_and_cost_fourteen_bytes() {
        for (name, frame) in vectors() {
            let bytes = frame.emit(&seal());
            assert_eq!(Frame::parse(&bytes, &ring()), Parsed::Whole(frame.clone(), bytes.len()), "{name}");
            for end in 0..bytes.len() {
                assert_eq!(Frame::parse(&bytes[..end], &ring()), Parsed::Short, "{name} cut at {end}");
            }
        }
        let (_, one) = vectors().remove(0);
        assert_eq!(one.emit(&seal()).len(), 40 + 14);
    }

    #[test]
    fn a_brief_report_fits_the_least_block_and_needs_both_epochs() {
        // One long block at 75 bit/s holds 45 bytes, 22 of them the modem's own tail.
        for (name, frame) in vectors().into_iter().filter(|(name, _)| name.starts_with("brief")) {
            let bytes = frame.emit(&seal());
            assert!(bytes.len() <= 23, "{name}: {}", bytes.len());
            let mut other = ring();
            other.set_epoch(0x2000_0007);
            assert_eq!(Frame::parse(&bytes, &other), Parsed::Unsealed(frame.address()));
            other.set_epoch(0x2000_0006);
            other.heard_from(0, 0x1000_0006, 1000);
            assert_eq!(Frame::parse(&bytes, &other), Parsed::Unsealed(frame.address()));
            // A counter far behind or far ahead is another one, and the tag says so.
            other.heard_from(0, 0x1000_0005, 70_000);
            assert_eq!(Frame::parse(&bytes, &other), Parsed::Unsealed(frame.address()));
        }
    }

    #[test]
    fn sixteen_stations_and_four_keys_have_addresses_of_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        for (from, to) in (0..16).flat_map(|from| (0..16).map(move |to| (from, to))) {
            for key in 0..4 {
                let address = Address { from, to, key };
                let keys = [LinkKey { id: key, secret: [7; 32] }];
                let mut ring = KeyRing::new(to);
                ring.add(&PeerName::from("to"), &PeerName::from("from"), from, Protection::Mac, &keys);
                let frame = Frame::Control { address, epoch: 7, counter: 1, items: Vec::new() };
                let bytes = frame.emit(&Seal::keyed(&[7; 32], &PeerName::from("from")));
                assert_eq!(Frame::parse(&bytes, &ring), Parsed::Whole(frame, CONTROL_OVERHEAD));
                assert!(seen.insert([bytes[0], bytes[1]]));
            }
        }
    }

    #[test]
    fn the_other_direction_and_other_keys_do_not_fit() {
        let (_, frame) = vectors().remove(0);
        for seal in [Seal::checksum(), Seal::keyed(&[8; 32], &"alfa".into()), Seal::keyed(&[7; 32], &"bravo".into())] {
            assert_eq!(Frame::parse(&frame.emit(&seal), &ring()), Parsed::Unsealed(frame.address()));
        }
    }

    #[test]
    fn spare_bits_and_odd_lengths_are_refused() {
        let (_, frame) = vectors().remove(0);
        let mut bytes = frame.emit(&seal());
        bytes[7] |= 1;
        let crc = CRC16.checksum(&bytes[..8]).to_be_bytes();
        bytes[8..10].copy_from_slice(&crc);
        assert_eq!(Frame::parse(&bytes, &ring()), Parsed::Nothing);
    }

    #[test]
    fn a_frame_behind_a_false_header_is_found() {
        // A header that claims sixteen symbols, then at once a good frame: its bytes are the false frame's symbols.
        let (_, good) = vectors().remove(1);
        let geometry = Geometry::of_payload(3000, Cut::Narrow).expect("in range");
        let claims = Chunk { short: 9, geometry, first: 0, symbols: vec![vec![0; 31]; 16] };
        let address = Address { from: 0, to: 1, key: 1 };
        let mut stream = Frame::Symbols { address, goes_on: false, more_waits: false, chunks: vec![claims] }
            .emit(&seal())[..SYMBOLS_HEADER]
            .to_vec();
        stream.extend(good.emit(&seal()));
        let mut deframer = Deframer::default();
        deframer.push(&stream);
        assert_eq!(deframer.poll(&ring()), None, "undecided while more may come");
        deframer.finish();
        assert_eq!(deframer.poll(&ring()), Some(Found::Frame(good)));
        assert_eq!(deframer.poll(&ring()), None);
        assert_eq!(deframer.held(), 0);
    }

    proptest! {
        #[test]
        fn what_blocks_lack_is_read_as_it_was_written(lacks in prop::collection::vec(0u8..=128, 1..40)) {
            let mut bytes = Vec::new();
            let standing = Standing::Lacks(lacks);
            standing.emit(&mut bytes);
            prop_assert_eq!(bytes.len() + 2, standing.bytes());
            prop_assert_eq!(Standing::parse(&bytes), Some((standing, bytes.len())));
        }

        #[test]
        fn good_frames_survive_any_garbage_around_them(
            before in prop::collection::vec(any::<u8>(), 0..600),
            after in prop::collection::vec(any::<u8>(), 0..600),
            piece in 1usize..90,
        ) {
            let frames: Vec<Frame> = vectors().into_iter().map(|(_, f)| f).collect();
            let mut stream = before;
            for frame in &frames {
                stream.extend(frame.emit(&seal()));
            }
            stream.extend(after);
            let (ring, mut deframer, mut found) = (ring(), Deframer::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                deframer.push(bytes);
                while let Some(f) = deframer.poll(&ring) {
                    if let Found::Frame(f) = f { found.push(f) }
                }
                prop_assert!(deframer.held() <= MAX_FRAME + 300 + piece);
            }
            deframer.finish();
            while let Some(f) = deframer.poll(&ring) {
                if let Found::Frame(f) = f { found.push(f) }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), sync in 0usize..4) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = [SYNC_SYMBOLS[0][0] | 1, SYNC_CONTROL | 1, SYNC_BRIEF | 1, 0][sync];
            }
            // With a right header CRC, so that the walk goes deep.
            let covered = [8, 11, 5, 11][sync];
            if bytes.len() > covered + 2 {
                bytes[1] = 0x01;
                let crc = CRC16.checksum(&bytes[..covered]).to_be_bytes();
                bytes[covered..covered + 2].copy_from_slice(&crc);
            }
            let _ = Frame::parse(&bytes, &ring());
            prop_assert!(Item::parse_all(&bytes).is_none_or(|items| items.len() <= bytes.len()));
        }
    }
}
