//! Dynamic groups of P_MUL between real nodes: asked for, refused to a stranger, announced, joined, left; and what tshark reads of it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex};

use aldis::bearer::pmul::{Checksum, GroupWord, MessageKey, Pdu, Ranges};

use crate::lab::{NAMES, Net, PATIENCE, mailbox, noise, original, received, submit, tracked};
use crate::mule::{Setup, profile, socket};
use crate::pcap::{Datagram, capture};
use crate::process::{Running, ask, have, run, wait_for};

const CONTROL: u16 = 2751;
const ANNOUNCE: u16 = 2752;
const DATA: u16 = 2753;

/// Groups of a net: where groups are spoken of, and those there are.
fn control(net: Net) -> Ipv4Addr {
    made(net, 9)
}

fn made(net: Net, number: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(net.group().to_bits() + u32::from(number))
}

fn start(net: Net, number: u8, peers: &[u8], directory: &Path) -> Running {
    let setup = Setup { net, number, peers, rate: "128kbps", emcon: "open", peer: "group = \"dynamic\"" };
    let path = profile(&setup, directory);
    let text = std::fs::read_to_string(&path).expect("just written");
    let dynamic = format!(
        "[bearer.dynamic]\ncontrol_group = \"{}\"\npool = [\"{}\", \"{}\", \"{}\"]\n",
        control(net),
        made(net, 1),
        made(net, 2),
        made(net, 3)
    );
    std::fs::write(&path, text + &dynamic).expect("written");
    Running::start(&path, directory, &[])
}

/// From where, to where, what.
type Heard = Arc<Mutex<Vec<(Ipv4Addr, SocketAddrV4, Vec<u8>)>>>;

/// Hears everything that goes to the groups and to an address of its own.
struct Ear {
    net: Net,
    own: std::net::UdpSocket,
    heard: Heard,
}

impl Ear {
    fn new(net: Net, number: u8) -> Self {
        let address = net.address(number);
        let heard = Heard::default();
        let own = socket(SocketAddrV4::new(address, CONTROL), address);
        let mut all = vec![(SocketAddrV4::new(address, CONTROL), own.try_clone().expect("cloned"))];
        let control = [CONTROL, ANNOUNCE].map(|port| SocketAddrV4::new(control(net), port));
        let made = [1, 2, 3].map(|i| SocketAddrV4::new(made(net, i), DATA));
        for at in control.into_iter().chain(made).chain([SocketAddrV4::new(net.group(), DATA)]) {
            all.push((at, socket(at, address)));
        }
        for (at, socket) in all {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 65_535];
                while let Ok((length, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) {
                    heard.lock().expect("whole").push((*from.ip(), at, buffer[..length].to_vec()));
                }
            });
        }
        Self { net, own, heard }
    }

    /// What a node said about groups, in order.
    fn words(&self, node: u8) -> Vec<&'static str> {
        let heard = self.heard.lock().expect("whole");
        let from = self.net.address(node);
        let word = |(source, _, bytes): &(Ipv4Addr, SocketAddrV4, Vec<u8>)| match Pdu::parse(bytes).expect("a PDU") {
            _ if *source != from => None,
            Pdu::Announce { .. } => Some("announce"),
            Pdu::Group { word: GroupWord::Request, .. } => Some("request"),
            Pdu::Group { word: GroupWord::Reject, .. } => Some("reject"),
            Pdu::Group { word: GroupWord::Release, .. } => Some("release"),
            _ => None,
        };
        heard.iter().filter_map(word).collect()
    }

    fn to(&self, group: Ipv4Addr) -> usize {
        self.heard.lock().expect("whole").iter().filter(|(_, to, _)| *to.ip() == group).count()
    }
}

#[test]
fn a_group_is_made_for_a_message_and_tshark_reads_every_word() {
    let net = Net { test: 16 };
    let folder = tempfile::tempdir().expect("a directory");
    let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
    let ear = Ear::new(net, 4);
    let [a, b, c] = [(1, [2, 3, 4]), (2, [1, 3, 4]), (3, [1, 2, 4])].map(|(n, peers)| start(net, n, &peers, &at(n)));
    let text = noise("grouped", 60_000);
    let id = submit(&a, "<ops@a.example>", &[("watch@b.example", ""), ("bridge@c.example", "")], &text);
    let group = wait_for("its announcement", PATIENCE, || {
        let heard = ear.heard.lock().expect("whole").clone();
        heard.iter().find_map(|(_, _, bytes)| match Pdu::parse(bytes).expect("a PDU") {
            Pdu::Announce { group, .. } => Some(group),
            _ => None,
        })
    });
    wait_for("the message on its way", PATIENCE, || (ear.to(group) > 8).then_some(()));
    // A node that does not know better asks for the same group.
    let message = MessageKey { source: net.node(4), number: 5 };
    let request = Pdu::Group { word: GroupWord::Request, message, group };
    let bytes = request.emit(Checksum::Fletcher, Ranges::Written).expect("short");
    ear.own.send_to(&bytes, SocketAddrV4::new(control(net), CONTROL)).expect("sent");
    wait_for("that they object", PATIENCE, || {
        [1, 2, 3].iter().all(|n| ear.words(*n).contains(&"reject")).then_some(())
    });
    assert_eq!(original(&received("the copy at b", &at(2), "watch")).as_bytes(), text);
    assert_eq!(original(&received("the copy at c", &at(3), "bridge")).as_bytes(), text);
    let confirmed = || tracked(&a, &id).iter().filter(|e| *e == "confirmed").count();
    wait_for("both confirmations", PATIENCE, || (confirmed() == 2).then_some(()));
    wait_for("its release", PATIENCE, || ear.words(1).contains(&"release").then_some(()));
    let words = ear.words(1);
    assert_eq!(words.iter().filter(|w| **w == "request").count(), 1, "{words:?}");
    assert!(
        words.iter().filter(|w| **w == "announce").count() >= 5 && words.starts_with(&["request", "announce"]),
        "{words:?}"
    );
    assert_eq!(ear.to(net.group()), 0, "nothing went by the agreed group");
    let count = |node: &Running, what: &str| ask(&node.socket, &["status"]).1["multicast"][0]["counts"][what].as_u64();
    for node in [&b, &c] {
        wait_for("that it leaves", PATIENCE, || (count(node, "groups_left") == Some(1)).then_some(()));
        assert_eq!(count(node, "groups_joined"), Some(1));
    }
    // What cannot wait is announced without asking.
    submit(&a, "<ops@a.example> MT-PRIORITY=4", &[("watch@b.example", "")], &noise("flash", 500));
    wait_for("the second", PATIENCE, || (mailbox(&at(2), "watch").len() == 2).then_some(()));
    assert_eq!(ear.words(1).iter().filter(|w| **w == "request").count(), 1);

    // Killed in the middle: what it had is released, and the message asks anew.
    let text = noise("killed", 60_000);
    let before = ear.words(1).len();
    submit(&a, "<ops@a.example>", &[("watch@b.example", ""), ("bridge@c.example", "")], &text);
    let data = |ear: &Ear| [1, 2, 3].iter().map(|i| ear.to(made(net, *i))).sum::<usize>();
    let so_far = data(&ear);
    wait_for("the middle of the third", PATIENCE, || (data(&ear) > so_far + 15).then_some(()));
    a.kill();
    let killed = ear.words(1).len();
    let a = start(net, 1, &[2, 3, 4], &at(1));
    wait_for("the third", PATIENCE, || {
        (mailbox(&at(2), "watch").len() == 3 && mailbox(&at(3), "bridge").len() == 2).then_some(())
    });
    wait_for("its end", PATIENCE, || (ear.words(1).last() == Some(&"release")).then_some(()));
    let after = ear.words(1);
    assert!(after[before..killed].contains(&"announce"));
    assert!(after[killed..].starts_with(&["release", "request", "announce"]), "{:?}", &after[killed..]);
    let heard = ear.heard.lock().expect("whole").clone();
    for node in [a, b, c] {
        node.stop();
    }
    if !have(&["tshark"]) {
        return;
    }
    let datagrams: Vec<Datagram<'_>> =
        heard.iter().map(|(from, to, bytes)| Datagram { from: *from, to: *to.ip(), port: to.port(), bytes }).collect();
    let file = folder.path().join("groups.pcap").display().to_string();
    std::fs::write(&file, capture(&datagrams)).expect("written");
    let rules = [CONTROL, ANNOUNCE, DATA].map(|port| format!("udp.port=={port},p_mul"));
    let tshark = |more: &[&str]| {
        let words: Vec<&str> = ["-r", &file].into_iter().chain(rules.iter().flat_map(|r| ["-d", r])).collect();
        let output = run(120, "tshark", &[&words[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let wrong = "p_mul.checksum_bad == 1 || _ws.malformed || p_mul.length.invalid || !p_mul";
    assert_eq!(tshark(&["-Y", wrong]), Vec::<String>::new());
    let mut types = tshark(&["-T", "fields", "-e", "p_mul.pdu_type"]);
    types.sort();
    types.dedup();
    assert_eq!(types, ["0", "2", "4", "5", "6", "7"]);
}
