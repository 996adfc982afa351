//! The datagrams of Aldis mode over IP multicast, to bytes and back (`docs/wire-multicast.md`).
//!
//! Called by [`super::Station`] and the fuzzer. A datagram is read only after its tag was found right; even so nothing in it is trusted with more
//! memory than it has bytes.

use std::collections::BTreeSet;

use crate::bearer::fec::Geometry;
use crate::bearer::serial::keys::Seal;
use crate::mail::Cut;

/// Of the first byte, the version.
const VERSION: u8 = 0x20;
const SYMBOLS: u8 = 0;
const REPORT: u8 = 1;
const WORD: u8 = 2;
/// Bytes before the body: version and kind, key, sender.
const HEAD: usize = 3;
/// Bytes of the tag, at the end.
pub const TAG: usize = 8;
/// Bytes of a symbol datagram that are no symbols and no list of members, at most.
pub const SYMBOLS_OVERHEAD: usize = HEAD + 4 + 5 + 2 + 4 + 4 + 1 + TAG;
/// Bytes of members that the byte of flags counts; more are counted by a byte of their own.
const COUNTED_IN_FLAGS: usize = 15;
/// Bytes of a report without entries.
pub const REPORT_OVERHEAD: usize = HEAD + 1 + 4 + 4 + 4 + 4 + TAG;
/// Indices that fit into three bytes.
pub const INDICES: u32 = 1 << 24;

/// What a datagram says in the clear of who made it, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Number of the key its tag was made with, 0 to 15.
    pub key: u8,
    /// What that station reads, in four bits as serial hellos have them.
    pub reads: u8,
    /// The station it comes from.
    pub from: u8,
}

/// Symbols of one transfer, in the order they leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbols {
    /// The sender's store epoch.
    pub epoch: u32,
    /// Counter of the transfer.
    pub counter: u32,
    /// The first two bytes of its payload: another one under the same number is no part of it.
    pub mark: u16,
    /// How its payload is cut.
    pub geometry: Geometry,
    /// How many symbols of it left before these.
    pub index: u32,
    /// Who lacks something is to say so.
    pub asks: bool,
    /// Rank of its precedence.
    pub rank: u8,
    /// The stations it is for.
    pub members: BTreeSet<u8>,
    /// The symbols.
    pub symbols: Vec<Vec<u8>>,
}

/// How a transfer stands at a receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is safe.
    Accepted,
    /// It will never be taken, and why.
    Refused(u8),
    /// All of it is there; what becomes of it is not decided.
    Whole,
    /// This is missing.
    Lacks {
        /// Symbols heard of it, since the receiver began to count.
        heard: u32,
        /// The index behind the last one heard.
        upto: u32,
        /// Symbols missing, per code block.
        lack: Vec<u8>,
    },
    /// Nothing is known of it.
    Unknown,
    /// Another payload came under this number: the sender's store is an old copy (A2).
    Other,
}

/// What a receiver says to a sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// To whom.
    pub to: u8,
    /// The receiver's store epoch.
    pub epoch: u32,
    /// Its counter: of two reports the one with the higher counts.
    pub counter: u32,
    /// The sender's store epoch the transfers are of.
    pub of: u32,
    /// The highest counter of a transfer of that epoch that was heard; 0: none.
    pub seen: u32,
    /// Counters of transfers, and how they stand.
    pub entries: Vec<(u32, Standing)>,
}

/// What a sender says beside symbols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// The sender's store epoch.
    pub epoch: u32,
    /// Its counter.
    pub counter: u32,
    /// To whom.
    pub members: BTreeSet<u8>,
    /// Stations whose reports are old: their epoch, and the highest counter heard of it.
    pub heard: Vec<(u8, u32, u32)>,
    /// Transfers of which they are to say how they stand.
    pub asked: Vec<u32>,
    /// Transfers that are given up.
    pub given_up: Vec<u32>,
}

/// A datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Datagram {
    /// Symbols.
    Symbols(Symbols),
    /// A report.
    Report(Report),
    /// A word.
    Word(Word),
}

/// Who made a datagram, so that its tag can be checked; `None` when it is none of this protocol.
pub fn head(bytes: &[u8]) -> Option<Head> {
    let [kind, key, from, ..] = *bytes else { return None };
    let known = kind & 0xF0 == VERSION && kind & 0xF <= WORD && bytes.len() >= HEAD + TAG;
    known.then_some(Head { key: key & 0xF, reads: key >> 4, from })
}

/// Whether the tag fits.
pub fn fits(bytes: &[u8], seal: &Seal) -> bool {
    let Some((body, tag)) = bytes.len().checked_sub(TAG).map(|at| bytes.split_at(at)) else { return false };
    seal.control(body).iter().zip(tag).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

impl Datagram {
    /// The bytes, tag included.
    pub fn emit(&self, head: Head, seal: &Seal) -> Vec<u8> {
        let kind = match self {
            Self::Symbols(_) => SYMBOLS,
            Self::Report(_) => REPORT,
            Self::Word(_) => WORD,
        };
        let mut out = vec![VERSION | kind, head.reads << 4 | head.key & 0xF, head.from];
        match self {
            Self::Symbols(s) => s.emit(&mut out),
            Self::Report(r) => r.emit(&mut out),
            Self::Word(w) => w.emit(&mut out),
        }
        out.extend(seal.control(&out));
        out
    }

    /// Reads a datagram whose tag fits.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        head(bytes)?;
        let mut body = Reader(bytes.get(HEAD..bytes.len() - TAG)?);
        let read = match bytes[0] & 0xF {
            SYMBOLS => Self::Symbols(Symbols::parse(&mut body)?),
            REPORT => Self::Report(Report::parse(&mut body)?),
            _ => Self::Word(Word::parse(&mut body)?),
        };
        body.0.is_empty().then_some(read)
    }
}

impl Symbols {
    /// The sequence number of the symbol that leaves as `index`. Spent ones repeat, in another order every time round.
    pub fn sequence(geometry: Geometry, index: u32) -> u32 {
        let all = geometry.sequences();
        (index % all + index / all * 37 % geometry.rows() * geometry.blocks()) % all
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.mark.to_be_bytes());
        emit_number(self.counter, out);
        emit_number(self.geometry.coded() << 1 | u32::from(self.geometry.cut() == Cut::Wide), out);
        emit_number(self.index, out);
        let bits = member_bits(&self.members);
        let counted = if bits.len() > COUNTED_IN_FLAGS { 0 } else { bits.len() as u8 };
        out.push(u8::from(self.asks) << 7 | counted << 3 | self.rank & 7);
        if counted == 0 {
            out.push(bits.len() as u8);
        }
        out.extend(bits);
        self.symbols.iter().for_each(|s| out.extend(s));
    }

    fn parse(body: &mut Reader) -> Option<Self> {
        let (epoch, mark) = (body.word()?, body.two()?);
        let (counter, coded, index) = (body.number()?, body.number()?, body.number()?);
        let cut = if coded & 1 == 1 { Cut::Wide } else { Cut::Narrow };
        let geometry = Geometry::of_coded(coded >> 1, cut)?;
        let flags = body.byte()?;
        let members = match usize::from(flags >> 3 & 0xF) {
            0 => {
                let counted = usize::from(body.byte()?);
                body.member_bits(counted).filter(|_| counted == 0 || counted > COUNTED_IN_FLAGS)?
            }
            counted => body.member_bits(counted)?,
        };
        let mut symbols = Vec::new();
        while !body.0.is_empty() {
            let q = Self::sequence(geometry, index.checked_add(u32::try_from(symbols.len()).ok()?)?);
            symbols.push(body.take(geometry.air_bytes(q))?.to_vec());
        }
        let known = !symbols.is_empty() && index < INDICES - symbols.len() as u32;
        let (asks, rank) = (flags & 0x80 != 0, flags & 7);
        known.then_some(Self { epoch, counter, mark, geometry, index, asks, rank, members, symbols })
    }
}

impl Standing {
    /// Bytes it takes in a report, its counter included.
    pub fn bytes(&self) -> usize {
        5 + match self {
            Self::Accepted | Self::Whole | Self::Unknown | Self::Other => 0,
            Self::Refused(_) => 1,
            Self::Lacks { lack, .. } => 7 + lack.len(),
        }
    }
}

impl Report {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.to);
        [self.epoch, self.counter, self.of, self.seen].iter().for_each(|word| out.extend(word.to_be_bytes()));
        for (counter, standing) in &self.entries {
            out.extend(counter.to_be_bytes());
            match standing {
                Standing::Accepted => out.push(0),
                Standing::Refused(reason) => out.extend([1, *reason]),
                Standing::Whole => out.push(2),
                Standing::Unknown => out.push(3),
                Standing::Other => out.push(5),
                Standing::Lacks { heard, upto, lack } => {
                    out.push(4);
                    out.extend(&heard.to_be_bytes()[1..]);
                    out.extend(&upto.to_be_bytes()[1..]);
                    out.push(lack.len() as u8);
                    out.extend(lack);
                }
            }
        }
    }

    fn parse(body: &mut Reader) -> Option<Self> {
        let (to, epoch, counter) = (body.byte()?, body.word()?, body.word()?);
        let (of, seen) = (body.word()?, body.word()?);
        let mut entries = Vec::new();
        while !body.0.is_empty() {
            let of = body.word()?;
            let standing = match body.byte()? {
                0 => Standing::Accepted,
                1 => Standing::Refused(body.byte()?),
                2 => Standing::Whole,
                3 => Standing::Unknown,
                5 => Standing::Other,
                4 => {
                    let (heard, upto, blocks) = (body.three()?, body.three()?, body.byte()?);
                    Standing::Lacks { heard, upto, lack: body.take(blocks.into())?.to_vec() }
                }
                _ => return None,
            };
            entries.push((of, standing));
        }
        Some(Self { to, epoch, counter, of, seen, entries })
    }
}

impl Word {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.counter.to_be_bytes());
        emit_members(&self.members, out);
        out.push(self.heard.len() as u8);
        for (station, epoch, counter) in &self.heard {
            out.push(*station);
            out.extend(epoch.to_be_bytes());
            out.extend(counter.to_be_bytes());
        }
        out.push(self.asked.len() as u8);
        self.asked.iter().chain(&self.given_up).for_each(|counter| out.extend(counter.to_be_bytes()));
    }

    fn parse(body: &mut Reader) -> Option<Self> {
        let (epoch, counter, members) = (body.word()?, body.word()?, body.members()?);
        let known = |body: &mut Reader| Some((body.byte()?, body.word()?, body.word()?));
        let heard = (0..body.byte()?).map(|_| known(body)).collect::<Option<Vec<_>>>()?;
        let asked = (0..body.byte()?).map(|_| body.word()).collect::<Option<Vec<u32>>>()?;
        let mut given_up = Vec::new();
        while !body.0.is_empty() {
            given_up.push(body.word()?);
        }
        Some(Self { epoch, counter, members, heard, asked, given_up })
    }
}

/// Bytes of a list of members.
pub fn members_bytes(members: &BTreeSet<u8>) -> usize {
    members.last().map_or(0, |last| usize::from(*last) / 8 + 1)
}

/// Bytes of a symbol datagram of this transfer that are no symbols.
pub fn symbols_overhead(counter: u32, geometry: Geometry, index: u32, members: &BTreeSet<u8>) -> usize {
    let (members, numbers) = (members_bytes(members), [counter, geometry.coded() << 1, index]);
    let numbers: usize = numbers.iter().map(|number| number_bytes(*number)).sum();
    HEAD + 4 + 2 + numbers + 1 + usize::from(members > COUNTED_IN_FLAGS) + members + TAG
}

fn member_bits(members: &BTreeSet<u8>) -> Vec<u8> {
    let mut bits = vec![0u8; members_bytes(members)];
    members.iter().for_each(|m| bits[usize::from(*m) / 8] |= 1 << (m % 8));
    bits
}

fn emit_members(members: &BTreeSet<u8>, out: &mut Vec<u8>) {
    let bits = member_bits(members);
    out.push(bits.len() as u8);
    out.extend(bits);
}

/// Bytes of a number.
fn number_bytes(number: u32) -> usize {
    (1..5).find(|bytes| number < 1 << (7 * bytes)).unwrap_or(5)
}

/// Seven bits a byte, the highest first; the top bit says that more follow.
fn emit_number(number: u32, out: &mut Vec<u8>) {
    for at in (0..number_bytes(number)).rev() {
        out.push((number >> (7 * at)) as u8 & 0x7F | if at > 0 { 0x80 } else { 0 });
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn two(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn three(&mut self) -> Option<u32> {
        self.take(3).map(|b| u32::from_be_bytes([0, b[0], b[1], b[2]]))
    }

    fn word(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// A number in its shortest form.
    fn number(&mut self) -> Option<u32> {
        let mut number = 0u32;
        for at in 0..5 {
            let byte = self.byte()?;
            if at == 0 && byte == 0x80 || number > u32::MAX >> 7 {
                return None;
            }
            number = number << 7 | u32::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn members(&mut self) -> Option<BTreeSet<u8>> {
        let n = usize::from(self.byte()?);
        self.member_bits(n)
    }

    /// A list in its shortest form: the last byte has a bit.
    fn member_bits(&mut self, n: usize) -> Option<BTreeSet<u8>> {
        let bits = self.take(n)?;
        if n > 32 || bits.last() == Some(&0) {
            return None;
        }
        let has = |m: &u8| bits.get(usize::from(*m) / 8).is_some_and(|b| b & (1 << (m % 8)) != 0);
        Some((0..=u8::MAX).filter(has).collect())
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const HEAD_OF_3: Head = Head { key: 1, reads: 10, from: 3 };

    fn seal() -> Seal {
        Seal::on_net(&[7; 32], &"ship".into(), "multicast fleet")
    }

    fn samples() -> Vec<(&'static str, Datagram)> {
        let geometry = Geometry::of_payload(40, Cut::Narrow).expect("in range");
        let members: BTreeSet<u8> = [1, 9].into();
        let symbols = Symbols {
            epoch: 0x0102_0304,
            counter: 7,
            mark: 0xABCD,
            geometry,
            index: 0,
            asks: true,
            rank: 4,
            members: members.clone(),
            symbols: vec![(0..31).collect(), vec![0xEE; 9]],
        };
        let lacks = Standing::Lacks { heard: 20, upto: 40, lack: vec![3, 0, 1] };
        let heard = vec![(9, 0x0A0B_0C0D, 77)];
        let entries = vec![
            (7, Standing::Accepted),
            (8, Standing::Refused(2)),
            (9, Standing::Whole),
            (10, Standing::Unknown),
            (11, lacks),
            (12, Standing::Other),
        ];
        let report = Report { to: 3, epoch: 0x0A0B_0C0D, counter: 99, of: 0x0102_0304, seen: 12, entries };
        let word = Word { epoch: 0x0102_0304, counter: 100, members, heard, asked: vec![7, 11], given_up: vec![5] };
        vec![
            ("symbols", Datagram::Symbols(symbols)),
            ("report", Datagram::Report(report)),
            ("word", Datagram::Word(word)),
        ]
    }

    #[test]
    fn datagrams_are_those_of_the_document() {
        let document = include_str!("../../../docs/wire-multicast.md");
        for (name, datagram) in samples() {
            let bytes = datagram.emit(HEAD_OF_3, &seal());
            assert_eq!(head(&bytes), Some(HEAD_OF_3));
            assert!(fits(&bytes, &seal()), "{name}");
            assert_eq!(Datagram::parse(&bytes).as_ref(), Some(&datagram), "{name}");
            let hex = HEXLOWER.encode(&bytes);
            assert!(document.contains(&format!("| {name} | `{hex}` |")), "{name}: `{hex}` is not in the document");
        }
    }

    #[test]
    fn a_changed_byte_or_another_key_or_net_does_not_fit() {
        let others = [
            Seal::on_net(&[8; 32], &"ship".into(), "multicast fleet"),
            Seal::on_net(&[7; 32], &"shore".into(), "multicast fleet"),
            Seal::on_net(&[7; 32], &"ship".into(), "fleet"),
        ];
        for (_, datagram) in samples() {
            let bytes = datagram.emit(HEAD_OF_3, &seal());
            assert!(others.iter().all(|seal| !fits(&bytes, seal)));
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x40;
                assert!(!fits(&other, &seal()), "byte {at}");
            }
        }
        assert!(!fits(&[0; 5], &seal()) && head(&[VERSION; 10]).is_none() && head(&[0x10; 20]).is_none());
    }

    #[test]
    fn numbers_have_one_form_and_the_head_is_as_long_as_it_says() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, (1 << 28) - 1, 1 << 28, u32::MAX] {
            let mut out = Vec::new();
            emit_number(number, &mut out);
            assert_eq!(out.len(), number_bytes(number), "{number}");
            let mut reader = Reader(&out);
            assert_eq!((reader.number(), reader.0.is_empty()), (Some(number), true));
        }
        for wrong in [&[0x80, 1][..], &[0x80], &[0xFF; 5], &[0x90, 0x80, 0x80, 0x80, 0], &[0x81; 6], &[]] {
            assert_eq!(Reader(wrong).number(), None, "{wrong:?}");
        }
        let geometry = Geometry::of_payload(102_400, Cut::Narrow).expect("in range");
        for counter in [1, 200, 70_000, u32::MAX] {
            for index in [0, 3000, 20_000, INDICES - 2] {
                for last in [1, 119, 120, 255] {
                    let members: BTreeSet<u8> = [0, last].into();
                    let symbols = vec![vec![1; geometry.air_bytes(Symbols::sequence(geometry, index))]];
                    let (bytes, overhead) = (symbols[0].len(), symbols_overhead(counter, geometry, index, &members));
                    let symbols = Symbols {
                        epoch: 9,
                        counter,
                        mark: 7,
                        geometry,
                        index,
                        asks: false,
                        rank: 5,
                        members: members.clone(),
                        symbols,
                    };
                    let datagram = Datagram::Symbols(symbols);
                    let emitted = datagram.emit(HEAD_OF_3, &seal());
                    assert_eq!(Datagram::parse(&emitted), Some(datagram));
                    assert_eq!(emitted.len(), overhead + bytes);
                    assert!(overhead <= SYMBOLS_OVERHEAD + members_bytes(&members) + usize::from(last > 119));
                }
            }
        }
    }

    #[test]
    fn indices_go_round_in_another_order_and_stay_in_their_block() {
        let geometry = Geometry::of_payload(20_000, Cut::Narrow).expect("in range");
        let all = geometry.sequences();
        let round: BTreeSet<u32> = (all..2 * all).map(|i| Symbols::sequence(geometry, i)).collect();
        assert_eq!(round.len() as u32, all);
        assert_ne!(Symbols::sequence(geometry, all), 0);
        for index in (0..5 * all).step_by(97) {
            assert_eq!(Symbols::sequence(geometry, index) % geometry.blocks(), index % geometry.blocks());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(kind in 0u8..3, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[VERSION | kind, 0, 0][..], &body, &[0; TAG]].concat();
            if let Some(datagram) = Datagram::parse(&bytes) {
                let again = datagram.emit(Head { key: 0, reads: 0, from: 0 }, &seal());
                prop_assert_eq!(&again[..again.len() - TAG], &bytes[..bytes.len() - TAG]);
            }
        }
    }
}
