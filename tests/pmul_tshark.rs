//! An independent reader of P_MUL: tshark takes every PDU this program can write for what it is, and a damaged one for damaged.

#[path = "common/pcap.rs"]
mod pcap;
#[path = "common/process.rs"]
mod process;

use std::net::Ipv4Addr;

use aldis::bearer::pmul::{
    Ack, AckEntry, Address, Checksum, Destination, Fec, GroupWord, MessageKey, Missing, NodeId, Pdu, Ranges,
};
use aldis::codec::mule::{self, Letter, Tagging};
use data_encoding::HEXLOWER;
use pcap::{Datagram, capture};
use process::{have, run};

const MESSAGE: MessageKey = MessageKey { source: NodeId(0x0a01_0101), number: 0x0102_0304 };
const EXPIRY: u32 = 0x6b36_ec80;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 2, 3, 4);
const WRONG: &str = "p_mul.checksum_bad == 1 || _ws.malformed || p_mul.length.invalid || p_mul.seq_no.illegal || \
    p_mul.ack_length.invalid || p_mul.missing_seq_range.invalid || p_mul.missing_seq_no.invalid";

/// Every type, short and long, each list in its forms.
fn every_pdu() -> Vec<Pdu> {
    let nodes: Vec<Destination> =
        (0..90).map(|i| Destination { node: NodeId(0x0a01_0200 + i), sequence: i * 3 + 1 }).collect();
    let mut out: Vec<Pdu> =
        Address::split(4, 3, MESSAGE, EXPIRY, nodes.clone(), 256).into_iter().map(Pdu::Address).collect();
    let one = Address::split(15, 700, MESSAGE, EXPIRY, nodes[..2].to_vec(), 1400).remove(0);
    out.push(Pdu::Address(Address { reserved: vec![7; 12], ..one.clone() }));
    for parameters in [vec![], vec![0, 0x10, 0, 4], vec![9; 255]] {
        let fec = Some(Fec { id: 1, parameters });
        out.extend([false, true].map(|extra| Pdu::Address(Address { extra, fec: fec.clone(), ..one.clone() })));
    }
    out.push(Pdu::Address(Address { extra: true, ..one }));
    out.push(Pdu::Address(Address::ack_ack(4, MESSAGE, EXPIRY)));
    for (sequence, length) in [(1, 1384), (2, 1384), (3, 1), (700, 333)] {
        out.push(Pdu::Data { priority: 4, message: MESSAGE, sequence, piece: vec![0x5a; length] });
    }
    let lists = [
        Missing::default(),
        Missing::from_ascending([3]),
        Missing::from_ascending([1, 2, 3, 9, 700]),
        Missing::from_ranges([1..=60, 62..=65535]),
        Missing::from_ranges([1..=60, 62..=70]).capped(64, 100, Ranges::Written),
    ];
    let entry = |(i, missing): (u32, &Missing)| AckEntry {
        message: MessageKey { number: MESSAGE.number + i, ..MESSAGE },
        missing: missing.clone(),
    };
    let entries: Vec<AckEntry> = (0..).zip(&lists).map(entry).collect();
    for (entries, elapsed) in
        [(entries.clone(), None), (entries.clone(), Some(35)), (vec![], None), (vec![], Some(u64::MAX))]
    {
        out.push(Pdu::Ack(Ack { priority: 4, from: nodes[0].node, entries, elapsed }));
    }
    for entry in entries {
        out.push(Pdu::Ack(Ack { priority: 0, from: nodes[1].node, entries: vec![entry], elapsed: None }));
    }
    out.push(Pdu::Discard { priority: 6, message: MESSAGE });
    out.extend(Pdu::announce(MESSAGE, EXPIRY, GROUP, nodes.iter().map(|d| d.node).collect(), 256));
    for word in [GroupWord::Request, GroupWord::Reject, GroupWord::Release] {
        out.push(Pdu::Group { word, message: MESSAGE, group: GROUP });
    }
    out
}

fn port(pdu: &Pdu) -> u16 {
    match pdu {
        Pdu::Group { .. } => 2751,
        Pdu::Announce { .. } => 2752,
        Pdu::Address(_) | Pdu::Data { .. } | Pdu::Discard { .. } => 2753,
        Pdu::Ack(_) => 2754,
    }
}

/// What tshark prints of a capture, one line a frame.
fn tshark(datagrams: &[(u16, Vec<u8>)], more: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pmul.pcap");
    let (from, to) = (Ipv4Addr::new(10, 1, 1, 1), GROUP);
    let datagrams: Vec<_> = datagrams.iter().map(|(port, bytes)| Datagram { from, to, port: *port, bytes }).collect();
    std::fs::write(&path, capture(&datagrams)).expect("written");
    let mut words = vec!["-r".to_owned(), path.display().to_string()];
    for rule in [2751, 2752, 2753, 2754].map(|port| format!("udp.port=={port},p_mul")) {
        words.extend(["-d".to_owned(), rule]);
    }
    words.extend(["-o", "p_mul.relative_msgid:FALSE"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let output = run(120, "tshark", &words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn every_pdu_is_taken_for_what_it_is_and_a_damaged_one_is_caught() {
    if !have(&["tshark"]) {
        return;
    }
    let pdus = every_pdu();
    let mut frames = Vec::new();
    let mut types = Vec::new();
    for (checksum, style) in [(Checksum::Fletcher, Ranges::Written), (Checksum::Internet, Ranges::Written)] {
        for pdu in &pdus {
            let bytes = pdu.emit(checksum, style).expect("short");
            types.push((bytes[3] & 0x3f).to_string());
            frames.push((port(pdu), bytes));
        }
    }
    let fields = tshark(&frames, &["-T", "fields", "-e", "p_mul.pdu_type", "-e", "p_mul.checksum_good"]);
    let read: Vec<&str> = fields.iter().map(|line| line.split('\t').next().unwrap_or_default()).collect();
    assert_eq!(read, types);
    assert!(fields.iter().all(|line| line.ends_with("\t1") || line.ends_with("True")), "{fields:?}");
    assert_eq!(tshark(&frames, &["-Y", WRONG]), Vec::<String>::new());

    // One octet of one frame: seen, and no other.
    let victim = frames.len() / 3;
    let last = frames[victim].1.len() - 1;
    frames[victim].1[last] ^= 0x10;
    let caught = tshark(&frames, &["-Y", WRONG, "-T", "fields", "-e", "frame.number"]);
    assert_eq!(caught, [(victim + 1).to_string()]);
}

#[test]
fn missing_lists_are_counted_alike() {
    if !have(&["tshark"]) {
        return;
    }
    let lists = [
        Missing::from_ascending([3]),
        Missing::from_ascending([1, 2, 3, 9, 700]),
        Missing::from_ranges([1..=60, 62..=900]),
    ];
    let ack = |missing: &Missing| {
        let entries = vec![AckEntry { message: MESSAGE, missing: missing.clone() }];
        let pdu = Pdu::Ack(Ack { priority: 4, from: NodeId(0x0a01_0102), entries, elapsed: None });
        (2754, pdu.emit(Checksum::Fletcher, Ranges::Written).expect("short"))
    };
    let frames: Vec<_> = lists.iter().map(ack).collect();
    let counted = tshark(&frames, &["-T", "fields", "-e", "p_mul.no_missing_seq_no"]);
    assert_eq!(counted, lists.iter().map(|l| l.len().to_string()).collect::<Vec<_>>());
}

#[test]
fn a_mule_payload_is_put_together_and_unfolded() {
    if !have(&["tshark"]) {
        return;
    }
    let envelope = b"<ops@ship.example> MT-PRIORITY=4\r\n<watch@shore.example>\r\n\r\n";
    let letter = Letter::read(envelope).expect("an envelope").0;
    let content = b"Subject: noon\r\n\r\nAll well on board at noon.\r\n";
    let payload = mule::encode(&letter, content, Tagging::Implicit).expect("made");
    let pieces: Vec<&[u8]> = payload.chunks(40).collect();
    let priority = mule::pmul_priority(letter.mt_priority);
    let to = vec![Destination { node: NodeId(0x0a01_0102), sequence: 1 }];
    let mut pdus: Vec<Pdu> = Address::split(priority, pieces.len() as u16, MESSAGE, EXPIRY, to, 1400)
        .into_iter()
        .map(Pdu::Address)
        .collect();
    pdus.extend((1..).zip(&pieces).map(|(sequence, piece)| Pdu::Data {
        priority,
        message: MESSAGE,
        sequence,
        piece: piece.to_vec(),
    }));
    let frames: Vec<_> =
        pdus.iter().map(|pdu| (2753, pdu.emit(Checksum::Fletcher, Ranges::Written).expect("short"))).collect();
    let cdt = ["-o", "p_mul.decode:cdt"];
    let shown = tshark(&frames, &[&cdt[..], &["-T", "fields", "-e", "data.data"]].concat());
    let text = HEXLOWER.encode(&[&envelope[..], content].concat());
    assert!(shown.last().is_some_and(|last| last.ends_with(&text)), "{shown:?}");
    assert_eq!(tshark(&frames, &[&cdt[..], &["-Y", WRONG]].concat()), Vec::<String>::new());
}
