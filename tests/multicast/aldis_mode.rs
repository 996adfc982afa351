//! Aldis mode: one payload for three nodes, kills of all of them, a word that comes late, silence.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aldis::bearer::multicast::wire;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{NAMES, Net, PATIENCE, mailbox, noise, order, original, pause, received, submit, tracked};
use crate::process::{Client, Running, ask, message, wait_for};

const PORT: u16 = 2756;

/// What a node of these tests is like.
#[derive(Clone, Copy)]
struct Setup<'s> {
    net: Net,
    number: u8,
    /// All of the net.
    nodes: u8,
    rate: &'s str,
    emcon: &'s str,
    /// More lines of every peer's table, and of the bearer's.
    peer: &'s str,
    bearer: &'s str,
}

impl Setup<'_> {
    fn new(test: u8, number: u8, nodes: u8) -> Self {
        Self { net: Net { test }, number, nodes, rate: "512kbps", emcon: "open", peer: "", bearer: "" }
    }
}

fn profile(setup: &Setup<'_>, directory: &Path) -> PathBuf {
    let Setup { net, number, nodes, rate, emcon, peer, bearer } = setup;
    let name = NAMES[usize::from(*number)];
    let mut text = format!(
        "[node]\nname = \"{name}\"\nhostname = \"{name}.example\"\nclock = \"trusted\"\npostmaster = \"postmaster@{name}.example\"\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
         [[route]]\nmatch = \"{name}.example\"\nto = \"local\"\n"
    );
    let others: Vec<u8> = (1..=*nodes).filter(|other| other != number).collect();
    for other in &others {
        let other_name = NAMES[usize::from(*other)];
        text.push_str(&format!(
            "[[route]]\nmatch = \"{other_name}.example\"\nto = \"peer:{other_name}\"\n\
             [[peer]]\nname = \"{other_name}\"\nstation = {other}\nkeys = [{{ id = 1, hex = \"{}\" }}]\n{peer}\n",
            "5a6b7c8d".repeat(8)
        ));
    }
    let names: Vec<String> = others.iter().map(|p| format!("\"{}\"", NAMES[usize::from(*p)])).collect();
    text.push_str(&format!(
        "[[bearer]]\nname = \"sat\"\nkind = \"multicast\"\ninterface = \"{}\"\ngroup = \"{}\"\njoin = \"static\"\nttl = 1\n\
         station = {number}\npeers = [{}]\nrate = \"{rate}\"\ndelay = \"5ms\"\nemcon = \"{emcon}\"\nprotected = true\n{bearer}\n",
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
    Running::start(&profile(setup, directory), directory, &[])
}

/// What was heard: from where, what.
type Heard = Arc<Mutex<Vec<(Ipv4Addr, Vec<u8>)>>>;

/// Joins the group, so that the nodes need not, hears everything on it, and can say anything.
struct Ear {
    net: Net,
    own: std::net::UdpSocket,
    heard: Heard,
}

impl Ear {
    fn new(test: u8) -> Self {
        let net = Net { test };
        let (address, group) = (net.address(9), net.group());
        let socket = |at: SocketAddrV4| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
            socket.set_reuse_address(true).expect("reuse");
            socket.set_multicast_if_v4(&address).expect("an interface");
            socket.bind(&SocketAddr::from(at).into()).expect("bound");
            socket
        };
        let ear = socket(SocketAddrV4::new(group, PORT));
        ear.join_multicast_v4(&group, &address).expect("joined");
        let ear: std::net::UdpSocket = ear.into();
        let heard = Heard::default();
        let shared = heard.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, SocketAddr::V4(from))) = ear.recv_from(&mut buffer) {
                shared.lock().expect("whole").push((*from.ip(), buffer[..length].to_vec()));
            }
        });
        Self { net, own: socket(SocketAddrV4::new(address, PORT)).into(), heard }
    }

    fn from(&self, node: u8) -> Vec<Vec<u8>> {
        let address = self.net.address(node);
        let heard = self.heard.lock().expect("whole");
        heard.iter().filter(|(from, _)| *from == address).map(|(_, bytes)| bytes.clone()).collect()
    }

    fn count(&self, node: u8) -> usize {
        self.from(node).len()
    }

    fn say(&self, bytes: &[u8]) {
        self.own.send_to(bytes, SocketAddrV4::new(self.net.group(), PORT)).expect("sent");
    }
}

fn confirmed(node: &Running, id: &str) -> usize {
    tracked(node, id).iter().filter(|e| *e == "confirmed").count()
}

fn counts(node: &Running) -> serde_json::Value {
    ask(&node.socket, &["status"]).1["multicast"][0]["counts"].clone()
}

/// A number from a seed.
fn draw(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    (*seed >> 33) % below
}

#[test]
fn one_payload_reaches_three_nodes_and_the_report_comes_back_as_a_receipt() {
    let folder = tempfile::tempdir().expect("a directory");
    let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
    let ear = Ear::new(11);
    let nodes: Vec<Running> = (1..=4).map(|n| start(&Setup::new(11, n, 4), &at(n))).collect();
    let text = noise("aldis", 20_000);
    let to = [("watch@b.example", " NOTIFY=SUCCESS,FAILURE"), ("watch@c.example", ""), ("watch@d.example", "")];
    let id = submit(&nodes[0], "<ops@a.example> MT-PRIORITY=4 RET=HDRS ENVID=Q1", &to, &text);
    for n in 2..=4 {
        let copy = received("a copy", &at(n), "watch");
        assert_eq!(original(&copy).as_bytes(), text, "at {n}");
        assert!(copy.contains("via multicast (sat) with ALDIS id"), "{copy}");
    }
    wait_for("three confirmations", PATIENCE, || (confirmed(&nodes[0], &id) == 3).then_some(()));
    let report = received("the report", &at(1), "ops");
    for words in ["Original-Envelope-Id: Q1", "Action: delivered", "watch@b.example"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert!(tracked(&nodes[0], &id).contains(&"receipt".to_owned()), "b sent a few bytes, a wrote the report");
    let (_, status) = ask(&nodes[0].socket, &["status"]);
    let bytes = status["bearers"][0]["bytes_sent"].as_u64().expect("bytes");
    assert!(bytes < 25_000, "{bytes} bytes for three receivers");
    assert_eq!(status["multicast"][0]["up"], true);
    let reads = ask(&nodes[0].socket, &["peer", "show"]).1["peers"][0]["reads"].clone();
    assert!(reads.as_str().is_some_and(|r| r.contains("receipts")), "{reads}");

    // What is not authentic is counted, and draws nothing; old datagrams said again neither.
    wait_for("quiet", PATIENCE, || {
        let before = ear.heard.lock().expect("whole").len();
        pause(1.0);
        (ear.heard.lock().expect("whole").len() == before).then_some(())
    });
    let before = (2..=4).map(|n| ear.count(n)).sum::<usize>();
    let old: Vec<Vec<u8>> = ear.from(1).into_iter().filter(|d| d.len() < 400).collect();
    let mut seed = 11;
    for round in 0..500 {
        let mut forged = ear.from(1).into_iter().nth(round % 5).expect("a datagram");
        let at = draw(&mut seed, forged.len() as u64) as usize;
        forged[at] ^= 1 << draw(&mut seed, 8);
        ear.say(&forged);
        ear.say(&forged[..at]);
    }
    pause(2.0);
    assert_eq!((2..=4).map(|n| ear.count(n)).sum::<usize>(), before, "no answer to any of it");
    let told = counts(&nodes[1]);
    assert!(told["unsealed"].as_u64().is_some_and(|n| n > 100), "{told}");
    old.iter().for_each(|datagram| ear.say(datagram));
    pause(1.0);
    let answers = (2..=4).map(|n| ear.count(n)).sum::<usize>() - before;
    assert!(answers <= 3, "{answers} answers to {} old datagrams", old.len());
    (2..=4).for_each(|n| assert_eq!(mailbox(&at(n), "watch").len(), 1));
    for node in nodes {
        node.stop();
    }
    assert!(ear.from(1).iter().all(|datagram| wire::head(datagram).is_some_and(|head| head.from == 1)));
}

#[test]
fn kills_at_any_point_lose_nothing_and_deliver_once() {
    let seeds: u64 = std::env::var("ALDIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for seed in 1..=seeds {
        let mut chance = seed;
        let folder = tempfile::tempdir().expect("a directory");
        let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
        let ear = Ear::new(12);
        let setup = |n| Setup { rate: "256kbps", ..Setup::new(12, n, 3) };
        let mut nodes: Vec<Option<Running>> = (1..=3).map(|n| Some(start(&setup(n), &at(n)))).collect();
        let texts: Vec<Vec<u8>> = (0..3).map(|i| noise(&format!("killed{i}"), 20_000 + i * 7000)).collect();
        let sender = nodes[0].as_ref().expect("running");
        let ids: Vec<String> = texts
            .iter()
            .map(|t| submit(sender, "<ops@a.example>", &[("watch@b.example", ""), ("watch@c.example", "")], t))
            .collect();
        for _ in 0..6 {
            let seen = ear.count(1);
            let more = 1 + draw(&mut chance, 12) as usize;
            let end = std::cell::Cell::new(0);
            wait_for("some of it, or the end", PATIENCE, || {
                end.set(end.get() + 1);
                (ear.count(1) >= seen + more || end.get() > 20).then_some(())
            });
            let victim = draw(&mut chance, 3) as usize;
            nodes[victim].take().expect("running").kill();
            let number = victim as u8 + 1;
            nodes[victim] = Some(start(&setup(number), &at(number)));
        }
        let sender = nodes[0].as_ref().expect("running");
        for id in &ids {
            wait_for("both confirmations", PATIENCE, || (confirmed(sender, id) == 2).then_some(()));
        }
        nodes.into_iter().flatten().for_each(|node| _ = node.stop());
        for n in 2..=3 {
            let copies = mailbox(&at(n), "watch");
            assert_eq!(copies.len(), 3, "seed {seed}: each once at {n}");
            for text in &texts {
                assert!(copies.iter().any(|copy| original(copy).as_bytes() == text), "seed {seed}: whole at {n}");
            }
        }
    }
}

#[test]
fn who_was_silent_confirms_after_restarts_of_both_though_nobody_asks() {
    let folder = tempfile::tempdir().expect("a directory");
    let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
    let ear = Ear::new(13);
    let a_setup = Setup { peer: "silent = true", ..Setup::new(13, 1, 2) };
    let b_setup = Setup { emcon: "silent", ..Setup::new(13, 2, 2) };
    let b = start(&b_setup, &at(2));
    let path = profile(&a_setup, &at(1));
    let a = Running::start(&path, &at(1), &[]);
    let text = noise("late", 3_000);
    let id = submit(&a, "<ops@a.example>", &[("watch@b.example", "")], &text);
    assert_eq!(original(&received("the copy at b", &at(2), "watch")).as_bytes(), text);
    wait_for("its first window", PATIENCE, || tracked(&a, &id).contains(&"sent-blind".to_owned()).then_some(()));
    pause(1.0);
    assert_eq!(ear.count(2), 0, "b said nothing");
    a.kill();
    b.kill();
    let a = Running::start(&path, &at(1), &[]);
    let b = start(&b_setup, &at(2));
    pause(1.0);
    assert_eq!(ear.count(2), 0, "nor does it at a start");
    order(&b, "ack-only");
    wait_for("the late word", PATIENCE, || tracked(&a, &id).contains(&"confirmed".to_owned()).then_some(()));
    assert!(ear.count(2) <= 2, "{} words", ear.count(2));
    assert_eq!(mailbox(&at(2), "watch").len(), 1);
    a.stop();
    b.stop();
}

#[test]
fn silence_at_the_start_and_in_the_middle_is_kept_by_every_datagram() {
    let folder = tempfile::tempdir().expect("a directory");
    let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
    let ear = Ear::new(14);
    let a_setup = Setup { rate: "64kbps", emcon: "silent", ..Setup::new(14, 1, 2) };
    let a = start(&a_setup, &at(1));
    let b = start(&Setup { rate: "64kbps", ..Setup::new(14, 2, 2) }, &at(2));
    let out = noise("outward", 60_000);
    let id = submit(&a, "<ops@a.example>", &[("watch@b.example", "")], &out);
    let inward = submit(&b, "<ops@b.example>", &[("watch@a.example", "")], &message("inward", "heard in silence"));
    received("what was heard in silence", &at(1), "watch");
    pause(2.0);
    assert_eq!(ear.count(1), 0, "nothing in silence, reports included");
    assert_eq!(confirmed(&b, &inward), 0);
    let (exit, what_if) = ask(&a.socket, &["emcon", "what-if", "open", "sat"]);
    let bearer = &what_if["bearers"][0];
    assert_eq!((exit, &bearer["messages"], &bearer["reports"]), (0, &1.into(), &1.into()), "{what_if}");
    assert!(bearer["air_s"].as_f64().is_some_and(|s| (5.0..15.0).contains(&s)), "{what_if}");
    let kept = ask(&a.socket, &["emcon", "what-if", "restricted:flash", "sat"]).1;
    assert_eq!((&kept["bearers"][0]["messages"], &kept["stays"][0]["messages"]), (&0.into(), &1.into()), "{kept}");
    order(&a, "ack-only");
    wait_for("the word that was owed", PATIENCE, || (confirmed(&b, &inward) == 1).then_some(()));
    // One word, and another where a question of b crossed it.
    assert!((1..=2).contains(&ear.count(1)), "{} words and nothing else", ear.count(1));
    order(&a, "open");
    wait_for("the middle of the message", PATIENCE, || (ear.count(1) > 10).then_some(()));
    let off = order(&a, "silent");
    assert!(off < 1.0, "{off}");
    pause(off + 0.3);
    let before = ear.count(1);
    pause(2.0);
    assert_eq!(ear.count(1), before, "datagrams after the order");
    assert_eq!(confirmed(&a, &id), 0);
    let (_, status) = ask(&a.socket, &["status"]);
    assert!(status["bearers"][0]["suppressed"].as_u64().is_some_and(|n| n > 0), "{status}");
    order(&a, "open");
    wait_for("its end", PATIENCE, || (confirmed(&a, &id) == 1).then_some(()));
    assert_eq!(original(&received("the copy at b", &at(2), "watch")).as_bytes(), out);
    a.stop();
    b.stop();
}

#[test]
fn what_is_certainly_too_large_is_refused_when_its_size_is_said() {
    let folder = tempfile::tempdir().expect("a directory");
    let node = start(&Setup::new(17, 1, 2), folder.path());
    let mut client = Client::connect(node.address());
    assert!(client.say("EHLO client.test").starts_with("250"));
    let mut ask = |size: u32| {
        assert!(client.say(&format!("MAIL FROM:<ops@a.example> SIZE={size}")).starts_with("250"));
        let reply = client.say("RCPT TO:<watch@b.example>");
        client.say("RSET");
        reply
    };
    // A third of it is what no coding comes below; two megabytes are taken.
    assert!(ask(2_000_000).starts_with("250") && ask(7_000_000).starts_with("250"));
    let reply = ask(8_000_000);
    assert!(reply.starts_with("552 5.3.4 too big for the link to b") && reply.contains("takes 2457600"), "{reply}");
    node.stop();
}

#[test]
fn a_bearer_that_only_receives_is_opened_by_no_order() {
    let folder = tempfile::tempdir().expect("a directory");
    let at = |n: u8| folder.path().join(NAMES[usize::from(n)]);
    let ear = Ear::new(15);
    let path = profile(&Setup { emcon: "silent", bearer: "receive_only = true", ..Setup::new(15, 2, 2) }, &at(2));
    let text = std::fs::read_to_string(&path).expect("written");
    std::fs::write(&path, text.replace("to = \"peer:a\"", "to = \"hold\"")).expect("written");
    let b = Running::start(&path, &at(2), &[]);
    let a = start(&Setup { peer: "silent = true", ..Setup::new(15, 1, 2) }, &at(1));
    let (exit, refused) = ask(&b.socket, &["emcon", "set", "sat", "open", "--reason", "test"]);
    assert_eq!(exit, 1, "{refused}");
    assert_eq!(ask(&b.socket, &["emcon", "set", "all", "open", "--reason", "test"]).0, 0);
    submit(&a, "<ops@a.example>", &[("watch@b.example", "")], &message("down", "one way"));
    received("what came one way", &at(2), "watch");
    pause(1.0);
    assert_eq!(ear.count(2), 0);
    let (_, status) = ask(&b.socket, &["status"]);
    assert_eq!(status["bearers"][0]["emcon"]["state"], "silent", "{status}");
    a.stop();
    b.stop();
}
