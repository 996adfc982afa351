//! A run as a capture that Wireshark and tshark open: pcapng, link type USER0, civil timestamps of the virtual clock.
//!
//! One interface per station holds what it sent, frame by frame; one per directed path (`ship>shore`) what arrived there. A packet that
//! came as it was sent has no comment; a damaged, collided or lost one says so, which makes `frame.comment` the filter for trouble.
//! Blocks and options as draft-ietf-opsawg-pcapng has them; only what is needed is written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use aldis::time::Instant;

use super::chronicle::{Chronicle, KeyDown};
use super::frames::{Content, Piece};
use crate::ether::StationId;
use crate::journal::{Outcome, Reception};

/// DLT_USER0: what a packet holds is between the writer and the reader.
const LINKTYPE_USER0: u16 = 147;
/// Flags of a packet: direction, and the bit for a failed checksum.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const CHECKSUM_ERROR: u32 = 1 << 24;

/// One packet before it is numbered.
struct Packet<'a> {
    at: Instant,
    interface: u32,
    /// What was captured, and how long the frame was.
    bytes: Cow<'a, [u8]>,
    length: usize,
    flags: u32,
    comment: Option<String>,
}

/// Writes the capture; how many packets it holds.
///
/// # Errors
///
/// When `out` takes no more.
pub fn write(chronicle: &Chronicle, out: &mut dyn Write) -> io::Result<u64> {
    section(chronicle, out)?;
    let mut interfaces: BTreeMap<(StationId, Option<StationId>), u32> = BTreeMap::new();
    let ids = (0..chronicle.stations.len()).filter_map(|i| u16::try_from(i).ok()).map(StationId);
    let stations = ids.map(|id| (id, None));
    for (from, to) in stations.chain(chronicle.links.iter().map(|&(from, to)| (from, Some(to)))) {
        let number = u32::try_from(interfaces.len()).unwrap_or(u32::MAX);
        interfaces.insert((from, to), number);
        let name = match to {
            None => chronicle.name(from).to_owned(),
            Some(to) => format!("{}>{}", chronicle.name(from), chronicle.name(to)),
        };
        interface(&name, out)?;
    }
    let mut packets = packets(chronicle, &interfaces);
    packets.sort_by_key(|p| (p.at, p.interface));
    let start = chronicle.start.0.saturating_mul(1_000_000);
    for packet in &packets {
        enhanced(packet, u64::try_from(start).unwrap_or(0).saturating_add(packet.at.0), out)?;
    }
    out.flush()?;
    Ok(packets.len() as u64)
}

fn packets<'a>(
    chronicle: &'a Chronicle,
    interfaces: &BTreeMap<(StationId, Option<StationId>), u32>,
) -> Vec<Packet<'a>> {
    let mut blocks: BTreeMap<(StationId, u64, StationId), Vec<&Reception>> = BTreeMap::new();
    for r in &chronicle.receptions {
        blocks.entry((r.from, r.number, r.to)).or_default().push(r);
    }
    let mut packets = Vec::new();
    for key_down in &chronicle.key_downs {
        let (from, number) = (key_down.sent.station, key_down.sent.number);
        let Some(&interface) = interfaces.get(&(from, None)) else { continue };
        for piece in &key_down.pieces {
            packets.push(sent(chronicle, key_down, piece, interface));
        }
        let receivers = blocks.range((from, number, StationId(0))..=(from, number, StationId(u16::MAX)));
        for ((_, _, to), blocks) in receivers {
            let Some(&interface) = interfaces.get(&(from, Some(*to))) else { continue };
            for piece in key_down.pieces.iter().filter(|p| p.content != Content::Padding) {
                packets.extend(received(chronicle, key_down, piece, blocks, interface));
            }
        }
    }
    packets
}

/// A piece as it left: when the block of its first byte began.
fn sent<'a>(chronicle: &Chronicle, key_down: &'a KeyDown, piece: &Piece, interface: u32) -> Packet<'a> {
    let sent = &key_down.sent;
    let block = sent.blocks.partition_point(|(_, out)| *out <= piece.at);
    let last = piece.at + piece.length == sent.bytes.len();
    let comment = match &piece.content {
        Content::Frame(_) => None,
        Content::Padding => Some("padding: the modem was starved".to_owned()),
        Content::Garbage if last && !sent.whole => Some("cut off: the carrier went before the end".to_owned()),
        Content::Garbage => Some("no frame".to_owned()),
    };
    let comment = comment.map(|c| format!("{c} ({})", origin(chronicle, key_down)));
    Packet {
        at: sent.on + sent.waveform.block_start(block as u64),
        interface,
        bytes: Cow::Borrowed(&sent.bytes[piece.at..piece.at + piece.length]),
        length: piece.length,
        flags: OUTBOUND,
        comment,
    }
}

/// A piece as it came: when its last block had arrived. `None` when its last block never came past, as at the end of the run.
fn received<'a>(
    chronicle: &Chronicle,
    key_down: &'a KeyDown,
    piece: &Piece,
    blocks: &[&'a Reception],
    interface: u32,
) -> Option<Packet<'a>> {
    let sent = &key_down.sent;
    let block_of = |byte: usize| sent.blocks.partition_point(|(_, out)| *out <= byte);
    let (first, last) = (block_of(piece.at), block_of(piece.at + piece.length - 1));
    let came: Vec<&&Reception> = blocks.iter().filter(|r| (first..=last).contains(&r.block)).collect();
    let at = came.last().filter(|r| r.block == last)?.at;
    let span = |block: usize| {
        let begin = block.checked_sub(1).map_or(0, |b| sent.blocks[b].1);
        (begin, sent.blocks[block].1)
    };
    // A block that is not as sent, but whose bytes stand where they stood, may still hold this piece whole.
    let touched = |r: &Reception| {
        let (begin, end) = span(r.block);
        let (a, b) = (piece.at.max(begin), (piece.at + piece.length).min(end));
        match &r.instead {
            Some(instead) if instead.len() == end - begin => instead[a - begin..b - begin] != sent.bytes[a..b],
            _ => r.outcome != Outcome::Good,
        }
    };
    let worst = came.iter().filter(|r| touched(r)).map(|r| r.outcome).max().unwrap_or(Outcome::Good);
    let what = match worst {
        Outcome::Good => None,
        Outcome::Damaged => Some("damaged"),
        Outcome::Collided => Some("collided: another carrier at the receiver"),
        Outcome::Missed => Some("lost: the receiver was not synchronised"),
        Outcome::Deaf => Some("lost: the receiver was transmitting or deaf"),
    };
    let comment = what.map(|what| {
        format!("{what}; {}, {}", chronicle.describe(sent.station, &piece.content), origin(chronicle, key_down))
    });
    let bytes = match worst {
        Outcome::Good => Cow::Borrowed(&sent.bytes[piece.at..piece.at + piece.length]),
        Outcome::Missed | Outcome::Deaf => Cow::Borrowed(&[][..]),
        Outcome::Damaged | Outcome::Collided => {
            let part = |r: &&&Reception| {
                let (begin, end) = span(r.block);
                let (a, b) = (piece.at.max(begin), (piece.at + piece.length).min(end));
                match &r.instead {
                    None => sent.bytes[a..b].to_vec(),
                    // Shorter when bytes were deleted: then this is only about where the piece was.
                    Some(came) => came[(a - begin).min(came.len())..(b - begin).min(came.len())].to_vec(),
                }
            };
            Cow::Owned(came.iter().flat_map(part).collect())
        }
    };
    let wrong = matches!(worst, Outcome::Damaged | Outcome::Collided);
    let flags = INBOUND | if wrong { CHECKSUM_ERROR } else { 0 };
    Some(Packet { at, interface, bytes, length: piece.length, flags, comment })
}

fn origin(chronicle: &Chronicle, key_down: &KeyDown) -> String {
    format!("transmission {} of {}", key_down.sent.number, chronicle.name(key_down.sent.station))
}

// The format.

fn section(chronicle: &Chronicle, out: &mut dyn Write) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend(0x1A2B_3C4D_u32.to_le_bytes());
    body.extend([1, 0, 0, 0]);
    // Length of the section: not stated.
    body.extend([0xFF; 8]);
    let report = &chronicle.report;
    option(&mut body, 1, format!("{}, seed {}, trace {}", report.scenario, report.seed, report.trace_hash).as_bytes());
    option(&mut body, 4, b"aldis-sim");
    option(&mut body, 0, &[]);
    block(0x0A0D_0D0A, &body, out)
}

fn interface(name: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend(LINKTYPE_USER0.to_le_bytes());
    // Reserved; no limit on what is captured.
    body.extend([0; 6]);
    option(&mut body, 2, name.as_bytes());
    // Timestamps in nanoseconds.
    option(&mut body, 9, &[9]);
    option(&mut body, 0, &[]);
    block(1, &body, out)
}

fn enhanced(packet: &Packet<'_>, nanos: u64, out: &mut dyn Write) -> io::Result<()> {
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut body = Vec::with_capacity(packet.bytes.len() + 64);
    body.extend(packet.interface.to_le_bytes());
    body.extend(((nanos >> 32) as u32).to_le_bytes());
    body.extend((nanos as u32).to_le_bytes());
    body.extend(length(packet.bytes.len()));
    body.extend(length(packet.length));
    body.extend_from_slice(&packet.bytes);
    pad(&mut body);
    if let Some(comment) = &packet.comment {
        option(&mut body, 1, comment.as_bytes());
    }
    option(&mut body, 2, &packet.flags.to_le_bytes());
    option(&mut body, 0, &[]);
    block(6, &body, out)
}

fn block(kind: u32, body: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?.to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&length)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = value.len().min(usize::from(u16::MAX));
    body.extend(code.to_le_bytes());
    body.extend((length as u16).to_le_bytes());
    body.extend_from_slice(&value[..length]);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}
