//! PDUs of ACP 142: what they say, and the only code that knows their offsets (`docs/wire-pmul.md`).
//!
//! The machines of this folder call it for every datagram. Reading is strict where a mistake could be taken for meaning: checksum,
//! lengths, counts, numbers; each refusal has a name. Fields without a use are not looked at. Nothing is reserved by a number that
//! was read: what a PDU holds is bounded by its own length.

use std::fmt;
use std::net::Ipv4Addr;

use super::checksum::Checksum;
use super::missing::{ListError, Missing, Ranges};

/// A node: usually its IPv4 address, and shown as one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u32);

impl From<Ipv4Addr> for NodeId {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.to_bits())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from_bits(self.0).fmt(f)
    }
}

/// A message: its originator and the number that one gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MessageKey {
    /// Source_ID.
    pub source: NodeId,
    /// Message_ID.
    pub number: u32,
}

/// Which part of a list of destinations this PDU carries (MAP).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All of it.
    Only,
    /// The first.
    First,
    /// Neither first nor last.
    Middle,
    /// The last.
    Last,
}

impl Part {
    const fn bits(self) -> u8 {
        match self {
            Self::Only => 0,
            Self::First => 0x40,
            Self::Middle => 0xc0,
            Self::Last => 0x80,
        }
    }

    const fn from_bits(octet: u8) -> Self {
        match octet & 0xc0 {
            0 => Self::Only,
            0x40 => Self::First,
            0x80 => Self::Last,
            _ => Self::Middle,
        }
    }

    /// Part `index` of `count`.
    const fn of(index: usize, count: usize) -> Self {
        match (index, index + 1 == count) {
            (0, true) => Self::Only,
            (0, false) => Self::First,
            (_, true) => Self::Last,
            (_, false) => Self::Middle,
        }
    }
}

/// One entry of an Address_PDU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Destination {
    /// To whom.
    pub node: NodeId,
    /// Consecutive for this source and destination; gaps are worth a note and nothing more.
    pub sequence: u32,
}

/// What a FEC_Address_PDU has more; what the identifiers mean is not public.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fec {
    /// FEC_ID.
    pub id: u8,
    /// Its parameters.
    pub parameters: Vec<u8>,
}

/// Address_PDU, Extra_Address_PDU and both with FEC: who is to have a message, and of how many Data_PDUs it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// One of the two Extra types.
    pub extra: bool,
    /// Present in the two FEC types.
    pub fec: Option<Fec>,
    /// Lower is more urgent.
    pub priority: u8,
    /// Part of the destinations.
    pub part: Part,
    /// Total_Number_of_PDUs.
    pub total: u16,
    /// Which message.
    pub message: MessageKey,
    /// Expiry_Time, Unix seconds.
    pub expiry: u32,
    /// Who is to have it. With nobody: Ack-Ack, all acknowledgements have come.
    pub destinations: Vec<Destination>,
    /// Reserved fields of all entries, one behind the other; Aldis writes none.
    pub reserved: Vec<u8>,
}

/// One message's entry in an Ack_PDU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AckEntry {
    /// Which message; libjpmul names the acknowledging node here as its source.
    pub message: MessageKey,
    /// What is lacking; nothing: complete.
    pub missing: Missing,
}

/// Ack_PDU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    /// Lower is more urgent.
    pub priority: u8,
    /// Who acknowledges.
    pub from: NodeId,
    /// What, message by message.
    pub entries: Vec<AckEntry>,
    /// From the Address_PDU's arrival to this, in tenths of a second.
    pub elapsed: Option<u64>,
}

/// What is said of a dynamic group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupWord {
    /// May I use it?
    Request,
    /// No, it is in use.
    Reject,
    /// It is free again.
    Release,
}

/// One PDU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pdu {
    /// Types 2, 8, 0x12, 0x18.
    Address(Address),
    /// Type 0: one piece of a message.
    Data {
        /// Lower is more urgent.
        priority: u8,
        /// Which message.
        message: MessageKey,
        /// Which piece, from 1.
        sequence: u16,
        /// The piece.
        piece: Vec<u8>,
    },
    /// Type 1.
    Ack(Ack),
    /// Type 3: the message is given up.
    Discard {
        /// Lower is more urgent.
        priority: u8,
        /// Which message.
        message: MessageKey,
    },
    /// Type 4: a message will go to a dynamic group.
    Announce {
        /// Part of the destinations.
        part: Part,
        /// Which message.
        message: MessageKey,
        /// Expiry_Time, Unix seconds.
        expiry: u32,
        /// The group.
        group: Ipv4Addr,
        /// Who is to join.
        destinations: Vec<NodeId>,
    },
    /// Types 5 to 7.
    Group {
        /// What of the group.
        word: GroupWord,
        /// Which message.
        message: MessageKey,
        /// The group.
        group: Ipv4Addr,
    },
}

/// Why a datagram is none of these, or a PDU cannot be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PduError {
    /// Shorter than a header.
    Short,
    /// Length_of_PDU is longer than the datagram, or shorter than a header.
    Length,
    /// Neither checksum fits.
    Checksum,
    /// No such type.
    Type(u8),
    /// A field or a list goes on behind the end.
    Cut,
    /// Octets that belong to nothing.
    Trailing,
    /// A Data_PDU without a number.
    ZeroSequence,
    /// An Ack entry whose length cannot be.
    EntryLength(u16),
    /// A list of missing numbers that means nothing.
    List(ListError),
    /// Longer than a PDU can be.
    TooLong,
}

impl PduError {
    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Length => "bad_length",
            Self::Checksum => "bad_checksum",
            Self::Type(_) => "unknown_type",
            Self::Cut => "cut",
            Self::Trailing => "trailing",
            Self::ZeroSequence => "zero_sequence",
            Self::EntryLength(_) => "bad_entry_length",
            Self::List(_) => "bad_list",
            Self::TooLong => "too_long",
        }
    }
}

impl fmt::Display for PduError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("shorter than a P_MUL header"),
            Self::Length => f.write_str("Length_of_PDU does not fit the datagram"),
            Self::Checksum => f.write_str("neither the Fletcher nor the internet checksum fits"),
            Self::Type(octet) => write!(f, "no PDU type {octet:#04x}"),
            Self::Cut => f.write_str("a field or a list goes on behind the end of the PDU"),
            Self::Trailing => f.write_str("octets behind the last field"),
            Self::ZeroSequence => f.write_str("Data_PDU number 0"),
            Self::EntryLength(length) => write!(f, "an Ack entry of {length} octets"),
            Self::List(error) => write!(f, "missing list: {error}"),
            Self::TooLong => f.write_str("longer than a P_MUL PDU can be"),
        }
    }
}

impl std::error::Error for PduError {}

const DATA: u8 = 0;
const ACK: u8 = 1;
const ADDRESS: u8 = 2;
const DISCARD: u8 = 3;
const ANNOUNCE: u8 = 4;
const REQUEST: u8 = 5;
const REJECT: u8 = 6;
const RELEASE: u8 = 7;
const FEC_ADDRESS: u8 = 8;
const EXTRA: u8 = 0x10;

/// Octets of every PDU: length, priority, type, count, checksum, source.
const HEADER: usize = 12;
/// Octets of a Data_PDU before its piece.
pub const DATA_OVERHEAD: usize = 16;
/// Octets of an Address_PDU before its entries.
pub const ADDRESS_OVERHEAD: usize = 24;
/// Octets of a destination without reserved field.
pub const DESTINATION_BYTES: usize = 8;
/// Octets of an Ack_PDU before its entries.
pub const ACK_OVERHEAD: usize = 14;
/// Octets of an Ack entry before its list.
pub const ENTRY_OVERHEAD: usize = 10;
/// Octets of an Announce_PDU before its destinations.
const ANNOUNCE_OVERHEAD: usize = 24;

impl Pdu {
    /// Reads a datagram. What stands behind the PDU's own length is not looked at: libjpmul fills its repeats up with zeros.
    pub fn parse(datagram: &[u8]) -> Result<Self, PduError> {
        let length = usize::from(u16_at(datagram, 0).ok_or(PduError::Short)?);
        if datagram.len() < HEADER {
            return Err(PduError::Short);
        }
        let pdu = datagram.get(..length).filter(|pdu| pdu.len() >= HEADER).ok_or(PduError::Length)?;
        if Checksum::of(pdu).is_none() {
            return Err(PduError::Checksum);
        }
        let (priority, octet) = (pdu[2], pdu[3]);
        let mut reader = Reader { pdu, at: 4 };
        let count = reader.u16()?;
        reader.u16()?;
        let source = NodeId(reader.u32()?);
        let part = Part::from_bits(octet);
        let parsed = match octet & 0x3f {
            kind @ (ADDRESS | FEC_ADDRESS | 0x12 | 0x18) => {
                Self::Address(Address::read(&mut reader, kind, priority, part, count, source)?)
            }
            DATA => {
                let message = MessageKey { source, number: reader.u32()? };
                if count == 0 {
                    return Err(PduError::ZeroSequence);
                }
                Self::Data { priority, message, sequence: count, piece: reader.take_rest().to_vec() }
            }
            ACK => Self::Ack(Ack::read(&mut reader, priority, source)?),
            DISCARD => Self::Discard { priority, message: MessageKey { source, number: reader.u32()? } },
            ANNOUNCE => {
                let message = MessageKey { source, number: reader.u32()? };
                let (expiry, group) = (reader.u32()?, Ipv4Addr::from_bits(reader.u32()?));
                let destinations = (0..count).map(|_| reader.u32().map(NodeId)).collect::<Result<_, _>>()?;
                Self::Announce { part, message, expiry, group, destinations }
            }
            kind @ REQUEST..=RELEASE => {
                let word = match kind {
                    REQUEST => GroupWord::Request,
                    REJECT => GroupWord::Reject,
                    _ => GroupWord::Release,
                };
                let message = MessageKey { source, number: reader.u32()? };
                Self::Group { word, message, group: Ipv4Addr::from_bits(reader.u32()?) }
            }
            kind => return Err(PduError::Type(kind)),
        };
        if reader.left() == 0 { Ok(parsed) } else { Err(PduError::Trailing) }
    }

    /// Writes it; lists of missing numbers in the style given.
    pub fn emit(&self, checksum: Checksum, style: Ranges) -> Result<Vec<u8>, PduError> {
        let mut out = Vec::with_capacity(64);
        let header = |out: &mut Vec<u8>, priority: u8, octet: u8, count: usize, source: NodeId| {
            out.extend([0, 0, priority, octet]);
            put_count(out, count)?;
            out.extend([0, 0]);
            out.extend(source.0.to_be_bytes());
            Ok(())
        };
        match self {
            Self::Address(address) => {
                let kind = if address.fec.is_some() { FEC_ADDRESS } else { ADDRESS }
                    | if address.extra { EXTRA } else { 0 }
                    | address.part.bits();
                header(&mut out, address.priority, kind, address.total.into(), address.message.source)?;
                address.write(&mut out)?;
            }
            Self::Data { priority, message, sequence, piece } => {
                if *sequence == 0 {
                    return Err(PduError::ZeroSequence);
                }
                header(&mut out, *priority, DATA, (*sequence).into(), message.source)?;
                out.extend(message.number.to_be_bytes());
                out.extend(piece);
            }
            Self::Ack(ack) => {
                header(&mut out, ack.priority, ACK, 0, ack.from)?;
                ack.write(&mut out, style)?;
            }
            Self::Discard { priority, message } => {
                header(&mut out, *priority, DISCARD, 0, message.source)?;
                out.extend(message.number.to_be_bytes());
            }
            Self::Announce { part, message, expiry, group, destinations } => {
                header(&mut out, 0, ANNOUNCE | part.bits(), destinations.len(), message.source)?;
                for word in
                    [message.number, *expiry, group.to_bits()].into_iter().chain(destinations.iter().map(|d| d.0))
                {
                    out.extend(word.to_be_bytes());
                }
            }
            Self::Group { word, message, group } => {
                let kind = match word {
                    GroupWord::Request => REQUEST,
                    GroupWord::Reject => REJECT,
                    GroupWord::Release => RELEASE,
                };
                header(&mut out, 0, kind, 0, message.source)?;
                out.extend(message.number.to_be_bytes());
                out.extend(group.to_bits().to_be_bytes());
            }
        }
        let length = u16::try_from(out.len()).map_err(|_| PduError::TooLong)?;
        out[..2].copy_from_slice(&length.to_be_bytes());
        checksum.put(&mut out);
        Ok(out)
    }

    /// Announces a group to these destinations in as many PDUs of at most `max_pdu` octets as it takes, in ascending order.
    pub fn announce(
        message: MessageKey,
        expiry: u32,
        group: Ipv4Addr,
        mut destinations: Vec<NodeId>,
        max_pdu: usize,
    ) -> Vec<Self> {
        destinations.sort_unstable();
        destinations.dedup();
        let each = (max_pdu.saturating_sub(ANNOUNCE_OVERHEAD) / 4).max(1);
        let count = destinations.len().div_ceil(each);
        let pdu = |(i, chunk): (usize, &[NodeId])| Self::Announce {
            part: Part::of(i, count),
            message,
            expiry,
            group,
            destinations: chunk.to_vec(),
        };
        destinations.chunks(each).enumerate().map(pdu).collect()
    }
}

impl Address {
    /// The whole of a message's addresses in as many PDUs of at most `max_pdu` octets as it takes, in ascending order of nodes.
    pub fn split(
        priority: u8,
        total: u16,
        message: MessageKey,
        expiry: u32,
        mut destinations: Vec<Destination>,
        max_pdu: usize,
    ) -> Vec<Self> {
        destinations.sort_unstable();
        destinations.dedup_by_key(|d| d.node);
        let each = (max_pdu.saturating_sub(ADDRESS_OVERHEAD) / DESTINATION_BYTES).max(1);
        let count = destinations.len().div_ceil(each);
        let address = |(i, chunk): (usize, &[Destination])| Self {
            extra: false,
            fec: None,
            priority,
            part: Part::of(i, count),
            total,
            message,
            expiry,
            destinations: chunk.to_vec(),
            reserved: Vec::new(),
        };
        destinations.chunks(each).enumerate().map(address).collect()
    }

    /// Ack-Ack: everybody's acknowledgement has come. Its total is zero, so that nobody waits for Data_PDUs.
    pub fn ack_ack(priority: u8, message: MessageKey, expiry: u32) -> Self {
        Self {
            extra: false,
            fec: None,
            priority,
            part: Part::Only,
            total: 0,
            message,
            expiry,
            destinations: Vec::new(),
            reserved: Vec::new(),
        }
    }

    /// Whether it names this node.
    pub fn names(&self, node: NodeId) -> bool {
        self.destinations.iter().any(|d| d.node == node)
    }

    fn read(
        reader: &mut Reader<'_>,
        kind: u8,
        priority: u8,
        part: Part,
        total: u16,
        source: NodeId,
    ) -> Result<Self, PduError> {
        let message = MessageKey { source, number: reader.u32()? };
        let expiry = reader.u32()?;
        let fec = if kind & FEC_ADDRESS != 0 {
            let [length, id] = reader.u16()?.to_be_bytes();
            Some(Fec { id, parameters: reader.take(length.into())?.to_vec() })
        } else {
            None
        };
        let (count, each) = (reader.u16()?, usize::from(reader.u16()?));
        let (mut destinations, mut reserved) = (Vec::new(), Vec::new());
        for _ in 0..count {
            destinations.push(Destination { node: NodeId(reader.u32()?), sequence: reader.u32()? });
            reserved.extend(reader.take(each)?);
        }
        Ok(Self { extra: kind & EXTRA != 0, fec, priority, part, total, message, expiry, destinations, reserved })
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), PduError> {
        out.extend(self.message.number.to_be_bytes());
        out.extend(self.expiry.to_be_bytes());
        if let Some(fec) = &self.fec {
            out.extend([u8::try_from(fec.parameters.len()).map_err(|_| PduError::TooLong)?, fec.id]);
            out.extend(&fec.parameters);
        }
        let each = self.reserved.len().checked_div(self.destinations.len()).unwrap_or(0);
        put_count(out, self.destinations.len())?;
        put_count(out, each)?;
        for (i, destination) in self.destinations.iter().enumerate() {
            out.extend(destination.node.0.to_be_bytes());
            out.extend(destination.sequence.to_be_bytes());
            out.extend(&self.reserved[i * each..(i + 1) * each]);
        }
        Ok(())
    }
}

impl Ack {
    fn read(reader: &mut Reader<'_>, priority: u8, from: NodeId) -> Result<Self, PduError> {
        let mut entries = Vec::new();
        for _ in 0..reader.u16()? {
            let length = reader.u16()?;
            let list = usize::from(length).checked_sub(ENTRY_OVERHEAD).filter(|list| list % 2 == 0);
            let list = list.ok_or(PduError::EntryLength(length))?;
            let message = MessageKey { source: NodeId(reader.u32()?), number: reader.u32()? };
            let values: Vec<u16> =
                reader.take(list)?.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            entries.push(AckEntry { message, missing: Missing::read(&values).map_err(PduError::List)? });
        }
        let elapsed = match reader.left() {
            0 => None,
            _ => Some(u64::from(reader.u32()?) << 32 | u64::from(reader.u32()?)),
        };
        Ok(Self { priority, from, entries, elapsed })
    }

    fn write(&self, out: &mut Vec<u8>, style: Ranges) -> Result<(), PduError> {
        put_count(out, self.entries.len())?;
        for entry in &self.entries {
            let values = entry.missing.write(style);
            put_count(out, ENTRY_OVERHEAD + 2 * values.len())?;
            out.extend(entry.message.source.0.to_be_bytes());
            out.extend(entry.message.number.to_be_bytes());
            values.iter().for_each(|value| out.extend(value.to_be_bytes()));
        }
        if let Some(elapsed) = self.elapsed {
            out.extend(elapsed.to_be_bytes());
        }
        Ok(())
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) -> Result<(), PduError> {
    out.extend(u16::try_from(count).map_err(|_| PduError::TooLong)?.to_be_bytes());
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A walk through a PDU; what is not there is [`PduError::Cut`].
struct Reader<'a> {
    pdu: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, octets: usize) -> Result<&'a [u8], PduError> {
        let taken = self.pdu.get(self.at..self.at + octets).ok_or(PduError::Cut)?;
        self.at += octets;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, PduError> {
        let value = u16_at(self.pdu, self.at).ok_or(PduError::Cut)?;
        self.at += 2;
        Ok(value)
    }

    fn u32(&mut self) -> Result<u32, PduError> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    fn left(&self) -> usize {
        self.pdu.len() - self.at
    }

    fn take_rest(&mut self) -> &'a [u8] {
        let rest = &self.pdu[self.at..];
        self.at = self.pdu.len();
        rest
    }
}
