//! MULE over P_MUL: three nodes, foreign nodes played datagram by datagram, kills, silence.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aldis::bearer::pmul::{Ack, AckEntry, Address, Checksum, Destination, MessageKey, Missing, Part, Pdu, Ranges};
use aldis::codec::mule::{self, Letter, Tagging};
use data_encoding::BASE64;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{NAMES, Net, PATIENCE, mailbox, noise, order, original, pause, received, submit, tracked};
use crate::pcap::{Datagram, capture};
use crate::process::{Running, ask, have, message, run, wait_for};

const DATA: u16 = 2753;
const ACK: u16 = 2754;

/// What a node of these tests is like.
pub struct Setup<'s> {
    pub net: Net,
    pub number: u8,
    pub peers: &'s [u8],
    pub rate: &'s str,
    pub emcon: &'s str,
    /// More lines of every peer's table.
    pub peer: &'s str,
}

pub fn profile(setup: &Setup<'_>, directory: &Path) -> PathBuf {
    let Setup { net, number, peers, rate, emcon, peer } = setup;
    let name = NAMES[usize::from(*number)];
    let mut text = format!(
        "[node]\nname = \"{name}\"\nhostname = \"{name}.example\"\nclock = \"trusted\"\npostmaster = \"postmaster@{name}.example\"\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
         [[route]]\nmatch = \"{name}.example\"\nto = \"local\"\n"
    );
    for other in *peers {
        let other_name = NAMES[usize::from(*other)];
        text.push_str(&format!(
            "[[route]]\nmatch = \"{other_name}.example\"\nto = \"peer:{other_name}\"\n\
             [[peer]]\nname = \"{other_name}\"\nprotocol = \"mule\"\naddresses = [\"{}\"]\n{peer}\n",
            net.address(*other)
        ));
    }
    let names: Vec<String> = peers.iter().map(|p| format!("\"{}\"", NAMES[usize::from(*p)])).collect();
    text.push_str(&format!(
        "[[bearer]]\nname = \"sat\"\nkind = \"pmul\"\ninterface = \"{}\"\ngroups = [\"{}\"]\njoin = \"igmp\"\nttl = 1\n\
         peers = [{}]\nrate = \"{rate}\"\ndelay = \"5ms\"\nemcon = \"{emcon}\"\n",
        net.address(*number),
        net.group(),
        names.join(", ")
    ));
    std::fs::create_dir_all(directory).expect("a directory");
    let path = directory.join("profile.toml");
    std::fs::write(&path, text).expect("written");
    path
}

fn start(setup: &Setup<'_>, directory: &Path) -> Running {
    let path = profile(setup, directory);
    Running::start(&path, directory, &[])
}

/// What a socket heard: from where, to which port, what, when.
type Heard = Arc<Mutex<Vec<(Ipv4Addr, u16, Vec<u8>)>>>;

pub fn socket(at: SocketAddrV4, interface: Ipv4Addr) -> std::net::UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.set_multicast_if_v4(&interface).expect("an interface");
    socket.bind(&SocketAddr::from(at).into()).expect("bound");
    if at.ip().is_multicast() {
        socket.join_multicast_v4(at.ip(), &interface).expect("joined");
    }
    socket.into()
}

/// A foreign node, or only an ear: everything that comes to the group and to its own address.
struct Foreign {
    net: Net,
    number: u8,
    own: std::net::UdpSocket,
    heard: Heard,
    /// Expiry_Time of what it offers.
    expiry: u32,
}

impl Foreign {
    fn new(net: Net, number: u8) -> Self {
        let address = net.address(number);
        let own = socket(SocketAddrV4::new(address, ACK), address);
        let heard = Heard::default();
        let group = socket(SocketAddrV4::new(net.group(), DATA), address);
        for (socket, port) in [(group, DATA), (own.try_clone().expect("cloned"), ACK)] {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 65_535];
                while let Ok((length, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) {
                    heard.lock().expect("whole").push((*from.ip(), port, buffer[..length].to_vec()));
                }
            });
        }
        Self { net, number, own, heard, expiry: clock() + 86_400 }
    }

    fn say(&self, to: Ipv4Addr, port: u16, pdu: &Pdu, fill: usize) {
        let mut bytes = pdu.emit(Checksum::Fletcher, Ranges::Spelled).expect("short");
        bytes.resize(bytes.len().max(fill), 0);
        self.own.send_to(&bytes, SocketAddrV4::new(to, port)).expect("sent");
    }

    /// What was heard from a node, parsed.
    fn from(&self, node: u8) -> Vec<Pdu> {
        let heard = self.heard.lock().expect("whole");
        let from = self.net.address(node);
        heard.iter().filter(|(source, ..)| *source == from).map(|(_, _, b)| Pdu::parse(b).expect("a PDU")).collect()
    }

    fn count(&self, node: u8) -> usize {
        self.from(node).len()
    }

    /// Sends a whole payload as libjpmul would: datagrams filled up with zeros.
    fn offer(&self, to: u8, number: u32, priority: u8, payload: &[u8], pieces: &[u16], total: u16) {
        let message = MessageKey { source: self.net.node(self.number), number };
        let destinations = vec![Destination { node: self.net.node(to), sequence: 1 }];
        self.say(self.net.group(), DATA, &address(message, self.expiry, priority, total, destinations), 3840);
        for sequence in pieces {
            let piece = payload.chunks(500).nth(usize::from(*sequence) - 1).expect("a piece").to_vec();
            self.say(self.net.group(), DATA, &Pdu::Data { priority, message, sequence: *sequence, piece }, 3840);
        }
    }

    fn acks(&self, node: u8) -> Vec<Ack> {
        let acks = self.from(node).into_iter();
        acks.filter_map(|pdu| if let Pdu::Ack(ack) = pdu { Some(ack) } else { None }).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "P_MUL says by the clock when a message ends")]
fn clock() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_secs() as u32
}

fn address(message: MessageKey, expiry: u32, priority: u8, total: u16, destinations: Vec<Destination>) -> Pdu {
    Pdu::Address(Address {
        extra: false,
        fec: None,
        priority,
        part: Part::Only,
        total,
        message,
        expiry,
        destinations,
        reserved: Vec::new(),
    })
}

fn payload(envelope: &str, content: &[u8]) -> Vec<u8> {
    let letter = Letter::read(envelope.as_bytes()).expect("an envelope").0;
    mule::encode(&letter, content, Tagging::Implicit).expect("made")
}

#[test]
fn one_payload_reaches_two_nodes_alike_and_tshark_reads_every_datagram() {
    let net = Net { test: 1 };
    let folder = tempfile::tempdir().expect("a directory");
    let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
    let ear = Foreign::new(net, 9);
    let setup = |number, peers| Setup { net, number, peers, rate: "512kbps", emcon: "open", peer: "" };
    let a = start(&setup(1, &[2, 3]), &at(1));
    let b = start(&setup(2, &[1, 3]), &at(2));
    let c = start(&setup(3, &[1, 2]), &at(3));
    let text = noise("alike", 20_000);
    let id = submit(
        &a,
        "<ops@a.example> MT-PRIORITY=4 RET=HDRS ENVID=Q1",
        &[("watch@b.example", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;watch@b.example"), ("bridge@c.example", "")],
        &text,
    );
    let at_b = received("the copy at b", &at(2), "watch");
    let at_c = received("the copy at c", &at(3), "bridge");
    assert_eq!(original(&at_b).as_bytes(), text);
    assert_eq!(original(&at_c).as_bytes(), text);
    assert!(at_b.contains("Return-Path: <ops@a.example>") && at_b.contains("via ACP142 (sat) with MULE id"), "{at_b}");
    // The parameters came with it: the level, and the report that b owes for NOTIFY=SUCCESS, itself a MULE message.
    let (_, queue) = ask(&b.socket, &["track", "alike@ship.example"]);
    let accepted = queue["events"][0]["detail"].as_str().expect("words").to_owned();
    assert!(accepted.contains("from peer a") && accepted.ends_with("flash"), "{accepted}");
    let report = received("the report", &at(1), "ops");
    for words in ["Original-Envelope-Id: Q1", "Action: delivered", "Original-Recipient: rfc822; watch@b.example"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    let confirmed = || tracked(&a, &id).iter().filter(|e| *e == "confirmed").count();
    wait_for("both confirmations", PATIENCE, || (confirmed() == 2).then_some(()));
    // Once for both: what left is less than one payload and a half.
    let (_, status) = ask(&a.socket, &["status"]);
    let bytes = status["bearers"][0]["bytes_sent"].as_u64().expect("bytes");
    assert!(bytes < 30_000, "{bytes} bytes for two receivers");
    assert_eq!(status["multicast"][0]["up"], true);
    let heard = ear.heard.lock().expect("whole").clone();
    for node in [a, b, c] {
        node.stop();
    }
    assert!(heard.len() > 15, "{} datagrams", heard.len());
    if !have(&["tshark"]) {
        return;
    }
    let to = net.group();
    let datagrams: Vec<Datagram<'_>> =
        heard.iter().map(|(from, port, bytes)| Datagram { from: *from, to, port: *port, bytes }).collect();
    let file = folder.path().join("live.pcap");
    let wrong = |datagrams: &[Datagram<'_>]| {
        std::fs::write(&file, capture(datagrams)).expect("written");
        let file = file.display().to_string();
        let rules = ["udp.port==2753,p_mul", "udp.port==2754,p_mul"];
        let filter = "p_mul.checksum_bad == 1 || _ws.malformed || p_mul.length.invalid || !p_mul";
        let words = ["-r", &file, "-d", rules[0], "-d", rules[1], "-Y", filter, "-T", "fields", "-e", "frame.number"];
        let output = run(120, "tshark", &words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(wrong(&datagrams), Vec::<String>::new());
    let mut damaged = heard[1].2.clone();
    damaged[14] ^= 1;
    let mut with_one = datagrams;
    with_one[1] = Datagram { bytes: &damaged, ..with_one[1] };
    assert_eq!(wrong(&with_one), ["2"]);
}

#[test]
fn kills_of_sender_and_receiver_lose_nothing_and_deliver_once() {
    let net = Net { test: 2 };
    let folder = tempfile::tempdir().expect("a directory");
    let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
    let ear = Foreign::new(net, 9);
    let setup = |number, peers| Setup { net, number, peers, rate: "128kbps", emcon: "open", peer: "" };
    let a = start(&setup(1, &[2, 3]), &at(1));
    let b = start(&setup(2, &[1, 3]), &at(2));
    let c = start(&setup(3, &[1, 2]), &at(3));
    let text = noise("killed", 60_000);
    let id = submit(&a, "<ops@a.example>", &[("watch@b.example", ""), ("bridge@c.example", "")], &text);
    wait_for("the middle of the message", PATIENCE, || (ear.count(1) > 15).then_some(()));
    a.kill();
    b.kill();
    let a = start(&setup(1, &[2, 3]), &at(1));
    let b = start(&setup(2, &[1, 3]), &at(2));
    assert_eq!(original(&received("the copy at b", &at(2), "watch")).as_bytes(), text);
    assert_eq!(original(&received("the copy at c", &at(3), "bridge")).as_bytes(), text);
    let confirmed = || tracked(&a, &id).iter().filter(|e| *e == "confirmed").count();
    wait_for("both confirmations", PATIENCE, || (confirmed() == 2).then_some(()));
    // The same number all the way: what c held before the kill counted after it.
    let numbers = ear.from(1).into_iter().filter_map(|pdu| match pdu {
        Pdu::Address(address) if !address.destinations.is_empty() => Some(address.message.number),
        _ => None,
    });
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "{numbers:?}");
    for (node, directory, user) in [(b, at(2), "watch"), (c, at(3), "bridge")] {
        node.stop();
        assert_eq!(mailbox(&directory, user).len(), 1, "once");
    }
    a.stop();
}

#[test]
fn who_was_silent_confirms_after_the_expiry_and_after_restarts_of_both() {
    let net = Net { test: 3 };
    let folder = tempfile::tempdir().expect("a directory");
    let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
    let a_setup = Setup { net, number: 1, peers: &[2], rate: "512kbps", emcon: "open", peer: "silent = true" };
    let b_setup = Setup { net, number: 2, peers: &[1], rate: "512kbps", emcon: "ack-only", peer: "" };
    let ear = Foreign::new(net, 9);
    let b = start(&b_setup, &at(2));
    // Groups are joined by an emission; from then on b is silent and hears.
    order(&b, "open");
    wait_for("b is up", PATIENCE, || (ask(&b.socket, &["status"]).1["multicast"][0]["up"] == true).then_some(()));
    order(&b, "silent");
    // What a passes on came by another net, and says itself how long it is worth sending.
    let other = Net { test: 7 };
    let path = profile(&a_setup, &at(1));
    let mut whole = std::fs::read_to_string(&path).expect("written");
    whole.push_str(&format!(
        "[[route]]\nmatch = \"c.example\"\nto = \"peer:c\"\n\
         [[peer]]\nname = \"c\"\nprotocol = \"mule\"\naddresses = [\"{}\"]\n\
         [[bearer]]\nname = \"other\"\nkind = \"pmul\"\ninterface = \"{}\"\ngroups = [\"{}\"]\njoin = \"igmp\"\n\
         peers = [\"c\"]\nrate = \"512kbps\"\ndelay = \"5ms\"\nemcon = \"open\"\n",
        other.address(3),
        other.address(1),
        other.group()
    ));
    std::fs::write(&path, whole).expect("written");
    let mut c = Foreign::new(other, 3);
    let a = Running::start(&path, &at(1), &[]);
    let text = noise("late", 3_000);
    let bytes = payload("<ops@c.example>\r\n<watch@b.example>\r\n\r\n", &text);
    let total = bytes.chunks(500).count() as u16;
    c.expiry = clock() + 7;
    wait_for("a's word", PATIENCE, || {
        c.offer(1, 5, 6, &bytes, &(1..=total).collect::<Vec<u16>>(), total);
        (!c.acks(1).is_empty()).then_some(())
    });
    assert_eq!(original(&received("the copy at b", &at(2), "watch")).as_bytes(), text);
    let id = "late@ship.example";
    wait_for("its end unconfirmed", PATIENCE, || tracked(&a, id).contains(&"unconfirmed".to_owned()).then_some(()));
    assert!(tracked(&a, id).contains(&"sent-blind".to_owned()), "{:?}", tracked(&a, id));
    assert_eq!(ear.count(2), 0, "b said nothing");
    a.kill();
    b.kill();
    let a = Running::start(&path, &at(1), &[]);
    let b = start(&b_setup, &at(2));
    order(&b, "ack-only");
    wait_for("the late word", PATIENCE, || tracked(&a, id).contains(&"confirmed".to_owned()).then_some(()));
    assert_eq!(mailbox(&at(2), "watch").len(), 1);
    a.stop();
    b.stop();
}

#[test]
fn silence_at_the_start_and_in_the_middle_is_kept_by_every_datagram() {
    let net = Net { test: 4 };
    let folder = tempfile::tempdir().expect("a directory");
    let foreign = Foreign::new(net, 2);
    let setup = Setup { net, number: 1, peers: &[2], rate: "64kbps", emcon: "silent", peer: "" };
    let a = start(&setup, folder.path());
    // It has not joined the group either: what comes to its own address is heard all the same.
    let text = noise("silence", 60_000);
    let id = submit(&a, "<ops@a.example>", &[("watch@b.example", "")], &text);
    let content = message("heard", "in silence");
    let bytes = payload("<x@b.example>\r\n<ops@a.example>\r\n\r\n", &content);
    let key = MessageKey { source: net.node(2), number: 7 };
    let to = vec![Destination { node: net.node(1), sequence: 1 }];
    wait_for("what was heard", PATIENCE, || {
        foreign.say(net.address(1), DATA, &address(key, foreign.expiry, 4, 1, to.clone()), 0);
        foreign.say(
            net.address(1),
            DATA,
            &Pdu::Data { priority: 4, message: key, sequence: 1, piece: bytes.clone() },
            0,
        );
        mailbox(folder.path(), "ops").pop()
    });
    assert_eq!(foreign.count(1), 0, "nothing in silence, acknowledgements included");
    order(&a, "open");
    wait_for("the answer that was owed", PATIENCE, || (!foreign.acks(1).is_empty()).then_some(()));
    wait_for("the middle of the message", PATIENCE, || (foreign.count(1) > 10).then_some(()));
    let off = order(&a, "silent");
    assert!(off < 1.0, "{off}");
    pause(off + 0.3);
    let before = foreign.count(1);
    pause(2.0);
    assert_eq!(foreign.count(1), before, "datagrams after the order");
    assert!(!tracked(&a, &id).contains(&"confirmed".to_owned()));
    let (_, status) = ask(&a.socket, &["status"]);
    assert!(status["bearers"][0]["suppressed"].as_u64().is_some_and(|n| n > 0), "{status}");
    order(&a, "open");
    wait_for("it goes on", PATIENCE, || (foreign.count(1) > before).then_some(()));
    a.stop();
}

#[test]
fn a_foreign_node_with_the_quirks_of_libjpmul_is_served_both_ways() {
    let net = Net { test: 5 };
    let folder = tempfile::tempdir().expect("a directory");
    let foreign = Foreign::new(net, 2);
    let peer = "ack_ranges = false\nack_entry_id = \"self\"";
    let setup = Setup { net, number: 1, peers: &[2], rate: "512kbps", emcon: "open", peer };
    let a = start(&setup, folder.path());
    wait_for("a is up", PATIENCE, || (ask(&a.socket, &["status"]).1["multicast"][0]["up"] == true).then_some(()));

    // In: datagrams filled with zeros, a repeat whose total counts only what it repeats, the entry in the acknowledger's name.
    let content = noise("inward", 4_000);
    let bytes = payload("<x@b.example> MT-PRIORITY=2\r\n<ops@a.example>\r\n<y@b.example>\r\n\r\n", &content);
    let total = bytes.chunks(500).count() as u16;
    let all: Vec<u16> = (1..=total).collect();
    foreign.offer(1, 77, 4, &bytes, &[&all[..2], &all[4..]].concat(), total);
    let key = MessageKey { source: net.node(1), number: 77 };
    let lacks = wait_for("its list", PATIENCE, || foreign.acks(1).pop());
    assert_eq!(lacks.entries, [AckEntry { message: key, missing: Missing::from_ascending([3, 4]) }], "{lacks:?}");
    foreign.offer(1, 77, 4, &bytes, &[3, 4], 2);
    let whole = wait_for("its confirmation", PATIENCE, || {
        foreign.acks(1).pop().filter(|ack| ack.entries.iter().all(|e| e.missing.is_empty()))
    });
    assert_eq!(whole.entries[0].message, key);
    assert_eq!(original(&received("the message", folder.path(), "ops")).as_bytes(), content);
    let (_, history) = ask(&a.socket, &["track", "inward@ship.example"]);
    let detail = history["events"][0]["detail"].as_str().expect("words").to_owned();
    assert!(detail.contains("from peer b") && detail.ends_with("immediate"), "{detail}");

    // Out: its list names itself as the source, and the last acknowledgement goes under the originator's name.
    let text = noise("outward", 8_000);
    let id = submit(&a, "<ops@a.example>", &[("watch@b.example", "")], &text);
    let (number, total) = wait_for("the message", PATIENCE, || {
        let addresses = foreign.from(1).into_iter();
        addresses.filter_map(|p| if let Pdu::Address(a) = p { Some((a.message.number, a.total)) } else { None }).next()
    });
    let pieces = || {
        let data = foreign.from(1).into_iter();
        data.filter_map(|p| if let Pdu::Data { sequence, piece, .. } = p { Some((sequence, piece)) } else { None })
            .collect::<Vec<_>>()
    };
    wait_for("all of it", PATIENCE, || (pieces().len() >= usize::from(total)).then_some(()));
    let entry = |missing| AckEntry { message: MessageKey { source: net.node(2), number }, missing };
    let ack = |from, missing| Pdu::Ack(Ack { priority: 6, from, entries: vec![entry(missing)], elapsed: None });
    foreign.say(net.address(1), ACK, &ack(net.node(2), Missing::from_ascending([2])), 0);
    wait_for("the piece again", PATIENCE, || (pieces().iter().filter(|(n, _)| *n == 2).count() >= 2).then_some(()));
    foreign.say(net.address(1), ACK, &ack(net.node(1), Missing::default()), 0);
    wait_for("its confirmation", PATIENCE, || tracked(&a, &id).contains(&"confirmed".to_owned()).then_some(()));
    let mut by_number: Vec<(u16, Vec<u8>)> = pieces();
    by_number.sort();
    by_number.dedup();
    let payload: Vec<u8> = by_number.into_iter().flat_map(|(_, piece)| piece).collect();
    let opened = mule::decode(&payload, 1 << 20).expect("opens");
    assert!(opened.content.ends_with(&text), "the content is as it was");
    assert_eq!(opened.letter.recipients.len(), 1);
    a.stop();
}

#[test]
fn what_cannot_be_opened_goes_to_the_postmaster_and_is_acknowledged() {
    let net = Net { test: 6 };
    let folder = tempfile::tempdir().expect("a directory");
    let foreign = Foreign::new(net, 2);
    let setup = Setup { net, number: 1, peers: &[2], rate: "512kbps", emcon: "open", peer: "" };
    let a = start(&setup, folder.path());
    wait_for("a is up", PATIENCE, || (ask(&a.socket, &["status"]).1["multicast"][0]["up"] == true).then_some(()));
    let mut bytes = payload("<x@b.example>\r\n<ops@a.example>\r\n\r\n", &message("broken", "x"));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    foreign.offer(1, 78, 4, &bytes, &[1], 1);
    let letter = received("the letter", folder.path(), "postmaster");
    assert!(letter.contains("undecodable payload from b over sat") && letter.contains("zlib"), "{letter}");
    let attached = letter.rsplit("base64\r\n\r\n").next().and_then(|t| t.split("\r\n\r\n--").next()).expect("attached");
    let attached = BASE64.decode(attached.replace("\r\n", "").as_bytes()).expect("base64");
    assert_eq!(attached, bytes);
    wait_for("its acknowledgement", PATIENCE, || {
        foreign.acks(1).pop().filter(|ack| ack.entries.iter().all(|e| e.missing.is_empty()))
    });
    // For nobody here: acknowledged, and no mail.
    let bytes = payload("<x@b.example>\r\n<y@b.example>\r\n\r\n", &message("others", "x"));
    foreign.offer(1, 79, 4, &bytes, &[1], 1);
    wait_for("the second", PATIENCE, || {
        foreign.acks(1).iter().flat_map(|a| a.entries.clone()).find(|e| e.message.number == 79 && e.missing.is_empty())
    });
    let (_, status) = ask(&a.socket, &["status"]);
    assert_eq!(status["multicast"][0]["counts"]["for_others"], 1, "{status}");
    assert_eq!(status["events"]["payload-undecodable"], 1);
    assert_eq!(mailbox(folder.path(), "y").len() + mailbox(folder.path(), "ops").len(), 0);
    a.stop();
}
