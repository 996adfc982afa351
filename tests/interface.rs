//! The interface of docs/satcom.md, in a network namespace: the lines of the page as they stand there, `aldis run` behind them, and at the other
//! end of the cable somebody who listens to every frame and asks for answers (link-rules B5).

#[path = "common/process.rs"]
mod process;

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aldis::bearer::pmul::{Address, Checksum, Destination, GroupWord, MessageKey, NodeId, Part, Pdu, Ranges};
use aldis::codec::mule::{self, Letter, Tagging};
use data_encoding::{BASE64, HEXLOWER};
use process::{Running, ask, have, message, root, run, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
/// Addresses of the page: the node, its peer, their group.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 10);
const HARDWARE: &str = "02:00:00:00:00:99";
/// Where dynamic groups are spoken of, and one of them.
const CONTROL: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const MADE: Ipv4Addr = Ipv4Addr::new(239, 2, 3, 4);

/// Two namespaces and a cable between them: `sat0` here, the terminal there.
struct Cable {
    near: String,
    far: String,
}

impl Cable {
    /// `None`, and a printed skip, where that cannot be made.
    fn new(test: &str) -> Option<Self> {
        if !have(&["ip", "nft", "python3"]) {
            return None;
        }
        let name = |end: &str| format!("aldis-{}-{test}-{end}", std::process::id());
        let cable = Self { near: name("near"), far: name("far") };
        for namespace in [&cable.near, &cable.far] {
            let made = run(10, "ip", &["netns", "add", namespace]);
            if !made.status.success() {
                println!("skip: no network namespaces here: {}", String::from_utf8_lossy(&made.stderr).trim());
                return None;
            }
        }
        let Self { near, far } = &cable;
        ip(&format!("-n {near} link add sat0 address {HARDWARE} type veth peer name term netns {far}"));
        ip(&format!("-n {near} link set lo up"));
        ip(&format!("-n {far} link set term addrgenmode none"));
        ip(&format!("-n {far} link set term up arp off"));
        // So that a fragment's rest is missed while the test still listens; not everybody may say so.
        run(10, "ip", &["netns", "exec", near, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ipfrag_time"]);
        Some(cable)
    }

    /// Runs a line of a shell at this end.
    fn line(&self, line: &str) {
        let done = run(10, "ip", &["netns", "exec", &self.near, "sh", "-c", line]);
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            run(10, "ip", &["netns", "del", namespace]);
        }
    }
}

fn ip(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let done = run(10, "ip", &words);
    assert!(done.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A frame: its EtherType and what is behind it.
type Frame = (String, Vec<u8>);

/// The program at the other end.
struct Terminal {
    child: Child,
    say: ChildStdin,
    heard: Arc<Mutex<Vec<Frame>>>,
}

impl Terminal {
    fn start(cable: &Cable) -> Self {
        Self::at(cable, "term")
    }

    /// At an interface of the far end.
    fn at(cable: &Cable, interface: &str) -> Self {
        let script = root().join("tests/peers/terminal.py");
        let mut child = Command::new("ip")
            .args(["netns", "exec", &cable.far, "python3"])
            .arg(script)
            .args([interface, HARDWARE, &PEER.to_string(), &OWN.to_string(), &GROUP.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let say = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("listening"));
        let heard: Arc<Mutex<Vec<Frame>>> = Arc::default();
        let into = heard.clone();
        std::thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                let (kind, bytes) = line.split_once(' ').expect("two words");
                let bytes = HEXLOWER.decode(bytes.as_bytes()).expect("hexadecimal");
                into.lock().expect("whole").push((kind.to_owned(), bytes));
            }
        });
        Self { child, say, heard }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.say, "{line}").expect("it reads");
    }

    fn udp(&mut self, from: u16, to: Ipv4Addr, port: u16, bytes: &[u8]) {
        self.say(&format!("udp {from} {to} {port} {}", HEXLOWER.encode(bytes)));
    }

    fn heard(&self) -> Vec<Frame> {
        self.heard.lock().expect("whole").clone()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a frame is, in words.
fn kind((ether, bytes): &Frame) -> String {
    match (ether.as_str(), bytes.first()) {
        ("0806", _) => "arp".into(),
        ("0800", Some(_)) if bytes.len() >= 20 => match bytes[9] {
            1 => "icmp".into(),
            2 => "igmp".into(),
            6 => "tcp".into(),
            17 => {
                let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
                let head = usize::from(bytes[0] & 15) * 4;
                format!("udp {}:{} {}:{}", address(12), port(head), address(16), port(head + 2))
            }
            other => format!("protocol {other}"),
        },
        ("86dd", _) => "ipv6".into(),
        (other, _) => format!("ether {other}"),
    }
}

fn kinds(frames: &[Frame]) -> Vec<String> {
    let mut kinds: Vec<String> = frames.iter().map(kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// The lines of the page.
fn documented() -> Vec<String> {
    blocks().swap_remove(0)
}

/// Its lines where groups are joined by IGMP.
fn documented_for_igmp() -> Vec<String> {
    let mut blocks = blocks();
    let instead = blocks.swap_remove(1);
    let mut lines = blocks.swap_remove(0);
    lines.truncate(lines.len() - 2);
    lines.into_iter().chain(instead).collect()
}

fn blocks() -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(root().join("docs/satcom.md")).expect("the page");
    let (_, section) = page.split_once("## The interface\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let blocks = section.split("```text\n").skip(1).map(|rest| rest.split_once("```").expect("its end").0);
    blocks.map(|block| block.lines().map(str::to_owned).collect()).collect()
}

fn profile(directory: &Path) -> PathBuf {
    let text = format!(
        "[node]\nname = \"shore\"\nhostname = \"mail.shore.example\"\nclock = \"trusted\"\n\
         postmaster = \"postmaster@shore.example\"\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
         [[route]]\nmatch = \"shore.example\"\nto = \"local\"\n[[route]]\nmatch = \"ship.example\"\nto = \"peer:ship\"\n\
         [[peer]]\nname = \"ship\"\nprotocol = \"mule\"\naddresses = [\"{PEER}\"]\n\
         [[bearer]]\nname = \"sat\"\nkind = \"pmul\"\ninterface = \"{OWN}\"\ngroups = [\"{GROUP}\"]\njoin = \"static\"\n\
         peers = [\"ship\"]\nrate = \"64kbps\"\ndelay = \"50ms\"\nemcon = \"silent\"\n"
    );
    let path = directory.join("profile.toml");
    std::fs::write(&path, text).expect("written");
    path
}

/// A node in Aldis mode, here or at the far end.
fn aldis_profile(directory: &Path, [own, other]: [&str; 2], station: u8, interface: Ipv4Addr, emcon: &str) -> PathBuf {
    let text = format!(
        "[node]\nname = \"{own}\"\nhostname = \"mail.{own}.example\"\nclock = \"trusted\"\n\
         postmaster = \"postmaster@{own}.example\"\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
         [[route]]\nmatch = \"{own}.example\"\nto = \"local\"\n[[route]]\nmatch = \"{other}.example\"\nto = \"peer:{other}\"\n\
         [[peer]]\nname = \"{other}\"\nstation = {}\nkeys = [{{ id = 1, hex = \"{}\" }}]\n\
         [[bearer]]\nname = \"sat\"\nkind = \"multicast\"\ninterface = \"{interface}\"\ngroup = \"{GROUP}\"\njoin = \"static\"\n\
         station = {station}\npeers = [\"{other}\"]\nrate = \"64kbps\"\ndelay = \"50ms\"\nemcon = \"{emcon}\"\nprotected = true\n",
        3 - station,
        "5a6b7c8d".repeat(8)
    );
    std::fs::create_dir_all(directory).expect("a directory");
    let path = directory.join("profile.toml");
    std::fs::write(&path, text).expect("written");
    path
}

/// Hands a mail of so many bytes that nothing shortens to the node, in its namespace.
fn submit(cable: &Cable, node: &Running, bytes: usize) {
    submit_at(&cable.near, node, ("ops@shore.example", "watch@ship.example"), bytes);
}

fn submit_at(namespace: &str, node: &Running, (from, to): (&str, &str), bytes: usize) {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .collect();
    let lines: Vec<String> = noise.chunks(54).map(|line| BASE64.encode(line)).collect();
    let text = String::from_utf8(message("outward", &lines.join("\r\n"))).expect("text");
    let script = "import smtplib, sys\n\
                  smtp = smtplib.SMTP('127.0.0.1', int(sys.argv[1]), 'client.shore.example')\n\
                  smtp.sendmail(sys.argv[3], [sys.argv[4]], sys.argv[2])\nsmtp.quit()\n";
    let port = node.address().port().to_string();
    let done = run(20, "ip", &["netns", "exec", namespace, "python3", "-c", script, &port, &text, from, to]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A mail from the peer, as the datagrams that carry it.
#[expect(clippy::disallowed_methods, reason = "P_MUL says by the clock when a message ends")]
fn offered(number: u32) -> Vec<Vec<u8>> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let letter = Letter::read(b"<watch@ship.example>\r\n<ops@shore.example>\r\n\r\n").expect("an envelope").0;
    let piece = mule::encode(&letter, &message("inward", "in silence"), Tagging::Explicit).expect("made");
    let message = MessageKey { source: NodeId::from(PEER), number };
    let address = Pdu::Address(Address {
        extra: false,
        fec: None,
        priority: 4,
        part: Part::Only,
        total: 1,
        message,
        expiry: since.as_secs() as u32 + 86_400,
        destinations: vec![Destination { node: NodeId::from(OWN), sequence: 1 }],
        reserved: Vec::new(),
    });
    let data = Pdu::Data { priority: 4, message, sequence: 1, piece };
    [address, data].iter().map(|p| p.emit(Checksum::Fletcher, Ranges::Written).expect("short")).collect()
}

fn order(node: &Running, state: &str) -> f64 {
    let (exit, document) = ask(&node.socket, &["emcon", "set", "sat", state, "--reason", "test"]);
    assert_eq!(exit, 0, "{document}");
    document["bearers"][0]["carrier_off_s"].as_f64().expect("seconds")
}

fn pause(seconds: f64) {
    #[expect(clippy::disallowed_methods, reason = "a test of real processes waits in real time")]
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

#[test]
fn an_interface_that_nobody_set_up_speaks_by_itself() {
    let Some(cable) = Cable::new("plain") else { return };
    let mut terminal = Terminal::start(&cable);
    cable.line("ip link set sat0 up");
    cable.line("ip address add 10.1.1.1/24 dev sat0");
    cable.line("ip address add 239.1.1.10/32 dev sat0 autojoin");
    // IPv6 answers once it is sure of its address.
    pause(2.5);
    terminal.say("provoke");
    // What the other test listens for in vain is there to be heard.
    wait_for("every kind of answer", PATIENCE, || {
        let heard = kinds(&terminal.heard());
        ["arp", "icmp", "igmp", "ipv6", "tcp"].iter().all(|k| heard.iter().any(|h| h == k)).then_some(())
    });
}

#[test]
fn the_interface_of_the_page_is_silent_when_the_node_is() {
    let Some(cable) = Cable::new("page") else { return };
    let mut terminal = Terminal::start(&cable);
    let lines = documented();
    assert!(lines.len() >= 7, "{lines:?}");
    lines.iter().for_each(|line| cable.line(line));
    let folder = tempfile::tempdir().expect("a directory");
    let by = ["ip", "netns", "exec", &cable.near];
    let node = Running::start_by(&by, &profile(folder.path()), folder.path(), &[]);
    submit(&cable, &node, 60_000);
    let mailbox = folder.path().join("state/maildir/ops/new");
    let mails = || std::fs::read_dir(&mailbox).map_or(0, Iterator::count);
    wait_for("what was heard in silence", PATIENCE, || {
        offered(7).iter().for_each(|bytes| terminal.udp(2754, GROUP, 2753, bytes));
        pause(0.2);
        (mails() == 1).then_some(())
    });
    for _ in 0..2 {
        terminal.say("provoke");
        pause(1.5);
    }
    assert_eq!(kinds(&terminal.heard()), Vec::<String>::new(), "not one frame in silence");

    order(&node, "open");
    let to_group = format!("udp {OWN}:2754 {GROUP}:2753");
    let to_peer = format!("udp {OWN}:2754 {PEER}:2754");
    wait_for("a message and the answer that was owed", PATIENCE, || {
        let heard = terminal.heard();
        let count = |what: &str| heard.iter().filter(|f| kind(f) == what).count();
        (count(&to_group) > 10 && count(&to_peer) > 0).then_some(())
    });
    terminal.say("provoke");
    pause(1.0);
    let off = order(&node, "silent");
    assert_eq!(kinds(&terminal.heard()), [to_peer.clone(), to_group.clone()], "only what the node sends");
    pause(off + 0.5);
    let before = terminal.heard().len();
    terminal.say("provoke");
    offered(8).iter().for_each(|bytes| terminal.udp(2754, GROUP, 2753, bytes));
    wait_for("what was heard in the second silence", PATIENCE, || (mails() == 2).then_some(()));
    pause(2.0);
    assert_eq!(terminal.heard().len(), before, "{:?}", kinds(&terminal.heard()[before..]));
    node.stop();
}

/// What UDP datagrams to the group hold.
fn to_group(frames: &[Frame], port: u16) -> Vec<Vec<u8>> {
    let held = |(ether, bytes): &Frame| {
        let head = usize::from(bytes.first()? & 15) * 4;
        let is_it = ether == "0800"
            && bytes.get(9) == Some(&17)
            && bytes.get(16..20)? == GROUP.octets()
            && bytes.get(head + 2..head + 4)? == port.to_be_bytes();
        let length = usize::from(u16::from_be_bytes(bytes.get(head + 4..head + 6)?.try_into().ok()?));
        is_it.then(|| bytes.get(head + 8..head + length).map(<[u8]>::to_vec)).flatten()
    };
    frames.iter().filter_map(held).collect()
}

#[test]
fn in_aldis_mode_the_interface_of_the_page_is_silent_when_the_node_is() {
    const PORT: u16 = 2756;
    let Some(cable) = Cable::new("aldis") else { return };
    let mut terminal = Terminal::start(&cable);
    // As the page says: another port, and no neighbours.
    let lines = documented().into_iter().filter(|line| !line.starts_with("ip neigh"));
    lines.for_each(|line| cable.line(&line.replace("2754", &PORT.to_string())));
    let folder = tempfile::tempdir().expect("a directory");
    let at = |name: &str| folder.path().join(name);
    let (near, far) = (["ip", "netns", "exec", &cable.near], ["ip", "netns", "exec", &cable.far]);
    // A ship that speaks to itself; what it says is brought to the other end of the cable.
    ip(&format!("-n {} link set lo up", cable.far));
    let own_ears = Terminal::at(&cable, "lo");
    let ship = aldis_profile(&at("ship"), ["ship", "shore"], 2, Ipv4Addr::new(127, 0, 0, 2), "open");
    let ship = Running::start_by(&far, &ship, &at("ship"), &[]);
    submit_at(&cable.far, &ship, ("watch@ship.example", "ops@shore.example"), 5000);
    let said = wait_for("what the ship says", PATIENCE, || {
        Some(to_group(&own_ears.heard(), PORT)).filter(|said| said.len() >= 4)
    });
    ship.stop();

    let shore = aldis_profile(&at("shore"), ["shore", "ship"], 1, OWN, "silent");
    let start = || Running::start_by(&near, &shore, &at("shore"), &[]);
    let node = start();
    submit(&cable, &node, 60_000);
    let mailbox = at("shore").join("state/maildir/ops/new");
    let mails = || std::fs::read_dir(&mailbox).map_or(0, Iterator::count);
    wait_for("what was heard in silence", PATIENCE, || {
        said.iter().for_each(|bytes| terminal.udp(PORT, GROUP, PORT, bytes));
        pause(0.2);
        (mails() == 1).then_some(())
    });
    terminal.say("provoke");
    pause(1.5);
    // Over a stop and a start, and what was heard before comes again.
    node.stop();
    terminal.say("provoke");
    pause(0.5);
    let node = start();
    said.iter().for_each(|bytes| terminal.udp(PORT, GROUP, PORT, bytes));
    terminal.say("provoke");
    pause(1.5);
    assert_eq!(kinds(&terminal.heard()), Vec::<String>::new(), "not one frame in silence");

    order(&node, "open");
    let ours = format!("udp {OWN}:{PORT} {GROUP}:{PORT}");
    let count = |terminal: &Terminal| terminal.heard().iter().filter(|f| kind(f) == ours).count();
    wait_for("a message and the answer that was owed", PATIENCE, || (count(&terminal) > 10).then_some(()));
    terminal.say("provoke");
    pause(1.0);
    let off = order(&node, "silent");
    assert_eq!(kinds(&terminal.heard()), [ours], "only what the node sends");
    pause(off + 0.5);
    let before = terminal.heard().len();
    said.iter().for_each(|bytes| terminal.udp(PORT, GROUP, PORT, bytes));
    terminal.say("provoke");
    pause(2.0);
    node.stop();
    pause(0.5);
    assert_eq!(terminal.heard().len(), before, "{:?}", kinds(&terminal.heard()[before..]));
    assert_eq!(mails(), 1, "once");
}

/// The profile with groups that are joined by the node, and dynamic ones.
fn dynamic_profile(directory: &Path) -> PathBuf {
    let path = profile(directory);
    let text = std::fs::read_to_string(&path).expect("just written").replace("\"static\"", "\"igmp\"");
    let dynamic = format!("[bearer.dynamic]\ncontrol_group = \"{CONTROL}\"\npool = [\"239.2.3.0/28\"]\n");
    std::fs::write(&path, text + &dynamic).expect("written");
    path
}

fn emit(pdu: &Pdu) -> Vec<u8> {
    pdu.emit(Checksum::Fletcher, Ranges::Written).expect("short")
}

/// A message's address, and the datagram that announces a group for it.
fn announced(address: &[u8]) -> (Address, Vec<u8>) {
    let Ok(Pdu::Address(first)) = Pdu::parse(address) else { panic!("an address") };
    let announce = Pdu::announce(first.message, first.expiry, MADE, vec![NodeId::from(OWN)], 1400).remove(0);
    (first, emit(&announce))
}

/// Groups that IGMP reports (version 3) speak of, and how: 4 is a join, 3 that a group is left.
fn memberships(frames: &[Frame]) -> Vec<(u8, Ipv4Addr)> {
    let mut all = Vec::new();
    for (_, bytes) in frames.iter().filter(|frame| kind(frame) == "igmp") {
        let igmp = &bytes[usize::from(bytes[0] & 15) * 4..];
        assert_eq!(igmp[0], 0x22, "a report of version 3");
        let records = usize::from(u16::from_be_bytes([igmp[6], igmp[7]]));
        // None of them names a source.
        all.extend(igmp[8..].chunks_exact(8).take(records).map(|r| (r[0], Ipv4Addr::new(r[4], r[5], r[6], r[7]))));
    }
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_dynamic_group_is_joined_when_an_order_lets_the_network_be_told() {
    let Some(cable) = Cable::new("groups") else { return };
    let mut terminal = Terminal::start(&cable);
    documented_for_igmp().iter().for_each(|line| cable.line(line));
    let folder = tempfile::tempdir().expect("a directory");
    let path = dynamic_profile(folder.path());
    let by = ["ip", "netns", "exec", &cable.near];
    let node = Running::start_by(&by, &path, folder.path(), &[]);
    pause(1.0);
    assert_eq!(kinds(&terminal.heard()), Vec::<String>::new(), "nothing is joined in silence");
    order(&node, "open");
    wait_for("the groups of the profile", PATIENCE, || {
        Some(()).filter(|()| memberships(&terminal.heard()) == [(4, CONTROL), (4, GROUP)])
    });
    // The kernel repeats a report once.
    pause(2.5);
    let off = order(&node, "silent");
    pause(off + 0.5);
    let before = terminal.heard().len();
    let [address, data] = &offered(5)[..] else { panic!("two") };
    let (first, announce) = announced(address);
    let release = Pdu::Group { word: GroupWord::Release, message: first.message, group: MADE };
    let counted = || {
        let (_, status) = ask(&node.socket, &["status"]);
        let net = status["multicast"][0]["counts"].to_string();
        (net.contains("not_joined_in_silence"), status["events"]["group-not-joined"].as_u64())
    };
    wait_for("that it says so", PATIENCE, || {
        terminal.udp(2754, CONTROL, 2752, &announce);
        pause(0.2);
        (counted() == (true, Some(1))).then_some(())
    });
    [address, data].iter().for_each(|bytes| terminal.udp(2754, MADE, 2753, bytes));
    pause(2.0);
    assert_eq!(terminal.heard().len(), before, "{:?}", kinds(&terminal.heard()[before..]));
    let mailbox = folder.path().join("state/maildir/ops/new");
    let mails = || std::fs::read_dir(&mailbox).map_or(0, Iterator::count);
    assert_eq!(mails(), 0);

    order(&node, "open");
    wait_for("that it joins", PATIENCE, || Some(()).filter(|()| memberships(&terminal.heard()).contains(&(4, MADE))));
    wait_for("the message", PATIENCE, || {
        [address, data].iter().for_each(|bytes| terminal.udp(2754, MADE, 2753, bytes));
        pause(0.2);
        (mails() == 1).then_some(())
    });
    terminal.udp(2754, CONTROL, 2751, &emit(&release));
    wait_for("that it leaves", PATIENCE, || Some(()).filter(|()| memberships(&terminal.heard()).contains(&(3, MADE))));
    node.stop();
}

#[test]
fn a_process_that_ended_in_silence_let_the_kernel_say_that_groups_were_left() {
    let Some(cable) = Cable::new("ends") else { return };
    let mut terminal = Terminal::start(&cable);
    documented_for_igmp().iter().for_each(|line| cable.line(line));
    let folder = tempfile::tempdir().expect("a directory");
    let path = dynamic_profile(folder.path());
    let by = ["ip", "netns", "exec", &cable.near];
    let since = |terminal: &Terminal, before: usize| terminal.heard().split_off(before);
    for (round, ends) in [Running::kill, |node: Running| drop(node.stop())].into_iter().enumerate() {
        let before = terminal.heard().len();
        let node = Running::start_by(&by, &path, folder.path(), &[]);
        pause(1.0);
        assert_eq!(kinds(&since(&terminal, before)), Vec::<String>::new(), "a start in silence");
        order(&node, "open");
        // Of an agreed group, that in which dynamic ones are spoken of, and a dynamic one.
        let (_, announce) = announced(&offered(5 + round as u32)[0]);
        wait_for("that it joins", PATIENCE, || {
            terminal.udp(2754, CONTROL, 2752, &announce);
            pause(0.2);
            let told = memberships(&since(&terminal, before));
            [CONTROL, GROUP, MADE].iter().all(|group| told.contains(&(4, *group))).then_some(())
        });
        // Routers are answered while that may be, and for as long as it may.
        pause(4.0);
        let answered = terminal.heard().len();
        terminal.say("query");
        wait_for("an answer to a router", PATIENCE, || {
            kinds(&since(&terminal, answered)).contains(&"igmp".to_owned()).then_some(())
        });
        // At once the order: the kernel still has its word to say again.
        let off = order(&node, "silent");
        pause(off + 0.2);
        let before = terminal.heard().len();
        terminal.say("query");
        pause(4.0);
        assert_eq!(kinds(&since(&terminal, before)), Vec::<String>::new(), "questions of routers in silence");
        // What routers have forgotten meanwhile they are told again.
        order(&node, "open");
        wait_for("that it says so again", PATIENCE, || {
            let told = memberships(&since(&terminal, before));
            [CONTROL, GROUP, MADE].iter().all(|group| told.contains(&(4, *group))).then_some(())
        });
        let off = order(&node, "silent");
        pause(off + 0.2);
        let before = terminal.heard().len();
        ends(node);
        pause(4.0);
        assert_eq!(kinds(&since(&terminal, before)), Vec::<String>::new(), "the end of the process, {round}");
    }
    // The kernel does say it where that is allowed.
    let node = Running::start_by(&by, &path, folder.path(), &[]);
    order(&node, "open");
    let before = terminal.heard().len();
    wait_for("that it joins", PATIENCE, || memberships(&since(&terminal, before)).contains(&(4, GROUP)).then_some(()));
    node.kill();
    wait_for("that it left", PATIENCE, || memberships(&since(&terminal, before)).contains(&(3, GROUP)).then_some(()));
}

#[test]
fn a_node_joins_nothing_where_nothing_holds_igmp_back_in_silence() {
    let Some(cable) = Cable::new("bare") else { return };
    let terminal = Terminal::start(&cable);
    // The page without the lines that know the node's word.
    let word = |line: &String| line.contains(" word ");
    documented_for_igmp().iter().filter(|line| !word(line)).for_each(|line| cable.line(line));
    let folder = tempfile::tempdir().expect("a directory");
    let path = dynamic_profile(folder.path());
    let node = Running::start_by(&["ip", "netns", "exec", &cable.near], &path, folder.path(), &[]);
    let said = || node.log().contains("nothing holds IGMP back on the interface of 10.1.1.1 in silence");
    wait_for("that it says so, in silence already", PATIENCE, || said().then_some(()));
    order(&node, "open");
    pause(3.0);
    assert_eq!(kinds(&terminal.heard()), Vec::<String>::new());
    // Whoever sets it up need not start the node again.
    documented_for_igmp().iter().filter(|line| word(line)).for_each(|line| cable.line(line));
    wait_for("the groups of the profile", PATIENCE, || {
        Some(()).filter(|()| memberships(&terminal.heard()) == [(4, CONTROL), (4, GROUP)])
    });
    node.stop();
}
