//! P_MUL on the wire: the vectors of docs/wire-pmul.md both ways, what is damaged is refused by name, and nothing read can be unreadable.

use std::net::Ipv4Addr;

use aldis::bearer::pmul::{
    Ack, AckEntry, Address, Checksum, Destination, Fec, GroupWord, MessageKey, Missing, NodeId, Part, Pdu, PduError,
    Ranges,
};
use data_encoding::HEXLOWER;
use proptest::prelude::*;

const SOURCE: NodeId = NodeId(0x0a01_0101);
const MESSAGE: MessageKey = MessageKey { source: SOURCE, number: 0x0102_0304 };
const EXPIRY: u32 = 0x6b36_ec80;
const TO: [Destination; 2] =
    [Destination { node: NodeId(0x0a01_0102), sequence: 7 }, Destination { node: NodeId(0x0a01_0103), sequence: 12 }];
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 2, 3, 4);

fn address(part: Part, destinations: &[Destination]) -> Address {
    Address {
        extra: false,
        fec: None,
        priority: 4,
        part,
        total: 2,
        message: MESSAGE,
        expiry: EXPIRY,
        destinations: destinations.to_vec(),
        reserved: Vec::new(),
    }
}

fn data(sequence: u16, piece: &[u8]) -> Pdu {
    Pdu::Data { priority: 4, message: MESSAGE, sequence, piece: piece.to_vec() }
}

fn ack(lists: &[Missing], elapsed: Option<u64>) -> Pdu {
    let entry = |(i, missing): (u32, &Missing)| AckEntry {
        message: MessageKey { number: MESSAGE.number + i, ..MESSAGE },
        missing: missing.clone(),
    };
    Pdu::Ack(Ack { priority: 4, from: TO[0].node, entries: (0..).zip(lists).map(entry).collect(), elapsed })
}

fn group(word: GroupWord) -> Pdu {
    Pdu::Group { word, message: MESSAGE, group: GROUP }
}

/// The PDUs of the table, in its order.
fn meant() -> Vec<Pdu> {
    let whole = address(Part::Only, &TO);
    let fec = |id, parameters: &[u8]| Some(Fec { id, parameters: parameters.to_vec() });
    let reserved = HEXLOWER.decode(b"aabbccddaabbccdd").expect("hex");
    let numbers = |n: &[u16]| Missing::from_ascending(n.iter().copied());
    let java = NodeId(0x7f00_0001);
    let java_ack = |missing| {
        let message = MessageKey { source: java, ..MESSAGE };
        Pdu::Ack(Ack { priority: 0, from: java, entries: vec![AckEntry { message, missing }], elapsed: None })
    };
    vec![
        Pdu::Address(whole.clone()),
        Pdu::Address(whole.clone()),
        Pdu::Address(address(Part::First, &TO[..1])),
        Pdu::Address(address(Part::Last, &TO[1..])),
        Pdu::Address(Address { reserved, ..whole.clone() }),
        data(1, b"HELLO "),
        data(2, b"WORLD"),
        data(2, b"WORLD"),
        ack(&[Missing::default()], None),
        ack(&[numbers(&[2, 5, 6, 7, 8, 9, 12])], None),
        ack(&[Missing::default(), numbers(&[3])], Some(35)),
        ack(&[numbers(&[2, 3, 4, 7]).capped(3, 100, Ranges::Written)], None),
        Pdu::Address(Address::ack_ack(4, MESSAGE, EXPIRY)),
        Pdu::Discard { priority: 4, message: MESSAGE },
        Pdu::Announce {
            part: Part::Only,
            message: MESSAGE,
            expiry: EXPIRY,
            group: GROUP,
            destinations: TO.map(|d| d.node).to_vec(),
        },
        group(GroupWord::Request),
        group(GroupWord::Reject),
        group(GroupWord::Release),
        Pdu::Address(Address { fec: fec(1, &[0, 0x10, 0, 4]), ..whole.clone() }),
        Pdu::Address(Address { extra: true, ..whole.clone() }),
        Pdu::Address(Address { extra: true, fec: fec(1, &[]), ..whole.clone() }),
        java_ack(Missing::default()),
        java_ack(numbers(&[1])),
        Pdu::Address(Address {
            priority: 3,
            total: 1,
            message: MessageKey { source: java, number: 0x6b04_6b57 },
            expiry: 0x6b04_6db0,
            destinations: vec![Destination { node: NodeId(0x7f00_0002), sequence: 1 }],
            ..whole
        }),
        Pdu::Data {
            priority: 3,
            message: MessageKey { source: java, number: 0x6b04_6afc },
            sequence: 1,
            piece: b"HELLO FROM JAVA 0123456789".to_vec(),
        },
    ]
}

/// Name, checksum and bytes of each row of the page.
fn vectors() -> Vec<(String, Checksum, Vec<u8>)> {
    let page = include_str!("../docs/wire-pmul.md");
    let (_, table) = page.split_once("## Vectors").expect("the table");
    let rows = table.lines().filter(|l| l.contains('`') && l.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let checksum = if cells[2] == "Fletcher" { Checksum::Fletcher } else { Checksum::Internet };
        let bytes = HEXLOWER.decode(cells[3].trim_matches('`').as_bytes()).expect("hex");
        (cells[1].to_owned(), checksum, bytes)
    };
    rows.map(row).collect()
}

#[test]
fn every_vector_is_read_and_written() {
    let (vectors, meant) = (vectors(), meant());
    assert_eq!(vectors.len(), meant.len());
    for ((name, checksum, bytes), pdu) in vectors.iter().zip(&meant) {
        assert_eq!(Pdu::parse(bytes).as_ref(), Ok(pdu), "{name}");
        assert_eq!(pdu.emit(*checksum, Ranges::Written).as_ref(), Ok(bytes), "{name}");
    }
}

#[test]
fn zeros_behind_a_pdu_are_not_looked_at_and_a_cut_one_is_refused() {
    for (name, _, bytes) in vectors() {
        let whole = Pdu::parse(&bytes);
        for zeros in [1, 7, 3840 - bytes.len()] {
            let mut long = bytes.clone();
            long.resize(bytes.len() + zeros, 0);
            assert_eq!(Pdu::parse(&long), whole, "{name} and {zeros} zeros");
        }
        for length in 0..bytes.len() {
            let error = Pdu::parse(&bytes[..length]).expect_err(&name);
            assert_eq!(error, if length < 12 { PduError::Short } else { PduError::Length }, "{name} cut to {length}");
        }
    }
}

#[test]
fn every_changed_bit_of_every_vector_is_refused() {
    for (name, checksum, bytes) in vectors() {
        for bit in 16..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = Pdu::parse(&damaged).expect_err(&name);
            assert_eq!(error, PduError::Checksum, "{name}, {checksum:?}, bit {bit}");
        }
    }
}

/// Writes `octets` over a vector and makes its length and checksum good again.
fn forged(bytes: &[u8], changes: &[(usize, u8)], length: usize) -> Vec<u8> {
    let mut pdu = bytes.to_vec();
    pdu.resize(length, 0x55);
    changes.iter().for_each(|(at, octet)| pdu[*at] = *octet);
    pdu[..2].copy_from_slice(&(length as u16).to_be_bytes());
    pdu[6..8].fill(0);
    let sum: u64 = pdu.chunks(2).map(|p| u64::from(p[0]) << 8 | u64::from(*p.get(1).unwrap_or(&0))).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
    pdu[6..8].copy_from_slice(&sum.to_be_bytes());
    pdu
}

#[test]
fn nonsense_under_a_good_checksum_is_refused_by_name() {
    let by_name: Vec<_> = vectors();
    let of = |name: &str| by_name.iter().find(|v| v.0.starts_with(name)).expect("a vector").2.clone();
    let (address, data, complete, missing) = (of("address, 2"), of("data 1"), of("complete"), of("missing 2, 5"));
    let fec = of("address with FEC");
    for (what, pdu, error) in [
        ("type 9", forged(&data, &[(3, 9)], data.len()), PduError::Type(9)),
        ("type 0x3f", forged(&data, &[(3, 0x3f)], data.len()), PduError::Type(0x3f)),
        ("data number 0", forged(&data, &[(5, 0)], data.len()), PduError::ZeroSequence),
        ("data without a message", forged(&data, &[], 14), PduError::Cut),
        ("more destinations than there are", forged(&address, &[(21, 3)], address.len()), PduError::Cut),
        ("65535 destinations", forged(&address, &[(20, 255), (21, 255)], address.len()), PduError::Cut),
        ("fewer destinations", forged(&address, &[(21, 1)], address.len()), PduError::Trailing),
        ("a reserved field of 65535", forged(&address, &[(22, 255), (23, 255)], address.len()), PduError::Cut),
        ("an octet too many", forged(&address, &[], address.len() + 1), PduError::Trailing),
        ("FEC parameters of 255", forged(&fec, &[(20, 255)], fec.len()), PduError::Cut),
        ("an entry of 9", forged(&complete, &[(15, 9)], complete.len()), PduError::EntryLength(9)),
        ("an entry of 11", forged(&complete, &[(15, 11)], complete.len()), PduError::EntryLength(11)),
        ("an entry of 12 that ends at 10", forged(&complete, &[(15, 12)], complete.len()), PduError::Cut),
        ("two entries, one there", forged(&complete, &[(13, 2)], complete.len()), PduError::Cut),
        ("a time of 7 octets", forged(&complete, &[], complete.len() + 7), PduError::Cut),
        ("a time of 9 octets", forged(&complete, &[], complete.len() + 9), PduError::Trailing),
        (
            "a range of one",
            forged(&missing, &[(30, 0), (31, 5)], missing.len()),
            PduError::List(aldis::bearer::pmul::missing::ListError::Range),
        ),
        (
            "a zero at the begin",
            forged(&missing, &[(24, 0), (25, 0)], missing.len()),
            PduError::List(aldis::bearer::pmul::missing::ListError::Zero),
        ),
    ] {
        assert_eq!(Pdu::parse(&pdu), Err(error), "{what}");
        assert!(!error.to_string().is_empty() && !error.name().contains(' '));
    }
    let long = Pdu::Data { priority: 0, message: MESSAGE, sequence: 1, piece: vec![0; 65535 - 15] };
    assert_eq!(long.emit(Checksum::Fletcher, Ranges::Written), Err(PduError::TooLong));
}

#[test]
fn a_long_list_of_destinations_is_sorted_and_cut() {
    let nodes = || (0..100u32).rev().map(|i| Destination { node: NodeId(i * 7), sequence: i });
    let pdus = Address::split(4, 9, MESSAGE, EXPIRY, nodes().chain(nodes().take(3)).collect(), 24 + 8 * 30 + 7);
    let parts: Vec<Part> = pdus.iter().map(|p| p.part).collect();
    assert_eq!(parts, [Part::First, Part::Middle, Part::Middle, Part::Last]);
    let all: Vec<u32> = pdus.iter().flat_map(|p| &p.destinations).map(|d| d.node.0).collect();
    assert_eq!(all, (0..100).map(|i| i * 7).collect::<Vec<u32>>());
    for pdu in &pdus {
        let bytes = Pdu::Address(pdu.clone()).emit(Checksum::Fletcher, Ranges::Written).expect("short");
        assert!(bytes.len() <= 24 + 8 * 30);
        assert_eq!(Pdu::parse(&bytes), Ok(Pdu::Address(pdu.clone())));
    }
    assert_eq!(Address::split(4, 9, MESSAGE, EXPIRY, TO.to_vec(), 1400)[0].part, Part::Only);
    let announced = Pdu::announce(MESSAGE, EXPIRY, GROUP, nodes().map(|d| d.node).collect(), 24 + 4 * 40);
    assert_eq!(announced.len(), 3);
    assert!(matches!(&announced[2], Pdu::Announce { part: Part::Last, destinations, .. } if destinations.len() == 20));
}

fn any_pdu() -> impl Strategy<Value = Pdu> {
    let message = (any::<u32>(), any::<u32>()).prop_map(|(s, number)| MessageKey { source: NodeId(s), number });
    let part = prop::sample::select(vec![Part::Only, Part::First, Part::Middle, Part::Last]);
    let destination = (any::<u32>(), any::<u32>()).prop_map(|(n, sequence)| Destination { node: NodeId(n), sequence });
    let fec = prop::option::of((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)))
        .prop_map(|f| f.map(|(id, parameters)| Fec { id, parameters }));
    let address = (
        any::<(bool, u8, u16, u32)>(),
        fec,
        part.clone(),
        message.clone(),
        prop::collection::vec(destination, 0..40),
        0usize..5,
    )
        .prop_map(|((extra, priority, total, expiry), fec, part, message, destinations, each)| {
            let reserved = vec![0xa5; each * destinations.len()];
            Pdu::Address(Address { extra, fec, priority, part, total, message, expiry, destinations, reserved })
        });
    let data = (any::<u8>(), message.clone(), 1u16.., prop::collection::vec(any::<u8>(), 0..600))
        .prop_map(|(priority, message, sequence, piece)| Pdu::Data { priority, message, sequence, piece });
    let missing = (prop::collection::btree_set(1u16.., 0..60), 1usize..60)
        .prop_map(|(set, cap)| Missing::from_ascending(set).capped(cap, 200, Ranges::Spelled));
    let entry = (message.clone(), missing).prop_map(|(message, missing)| AckEntry { message, missing });
    let ack = (any::<u8>(), any::<u32>(), prop::collection::vec(entry, 0..5), any::<Option<u64>>())
        .prop_map(|(priority, n, entries, elapsed)| Pdu::Ack(Ack { priority, from: NodeId(n), entries, elapsed }));
    let discard = (any::<u8>(), message.clone()).prop_map(|(priority, message)| Pdu::Discard { priority, message });
    let nodes = prop::collection::vec(any::<u32>().prop_map(NodeId), 0..40);
    let announce = (part, message.clone(), any::<u32>(), any::<Ipv4Addr>(), nodes).prop_map(
        |(part, message, expiry, group, destinations)| Pdu::Announce { part, message, expiry, group, destinations },
    );
    let word = prop::sample::select(vec![GroupWord::Request, GroupWord::Reject, GroupWord::Release]);
    let group =
        (word, message, any::<Ipv4Addr>()).prop_map(|(word, message, group)| Pdu::Group { word, message, group });
    prop_oneof![address, data, ack, discard, announce, group]
}

proptest! {
    #[test]
    fn any_pdu_comes_back_under_both_checksums_and_in_both_styles(pdu in any_pdu()) {
        for checksum in [Checksum::Fletcher, Checksum::Internet] {
            for style in [Ranges::Written, Ranges::Spelled] {
                let bytes = pdu.emit(checksum, style).expect("short");
                let read = Pdu::parse(&bytes);
                prop_assert_eq!(read.as_ref(), Ok(&pdu));
            }
        }
    }

    #[test]
    fn any_octets_under_a_good_checksum_are_refused_or_can_be_written_again(kind in 0u8..0x20, mut bytes in prop::collection::vec(any::<u8>(), 12..200), small in any::<bool>()) {
        bytes[3] = kind;
        if small {
            // Counts and lengths that could fit.
            for at in [4, 12, 20, 22] {
                if let Some(octet) = bytes.get_mut(at) {
                    *octet = 0;
                }
            }
        }
        let pdu = forged(&bytes, &[], bytes.len());
        if let Ok(read) = Pdu::parse(&pdu) {
            let again = read.emit(Checksum::Internet, Ranges::Written).expect("as long as it was, or shorter");
            prop_assert_eq!(Pdu::parse(&again), Ok(read));
        }
    }
}
