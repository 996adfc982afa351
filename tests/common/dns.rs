//! A DNS server for tests: a few records, over UDP and TCP, with the failures that real ones have. It counts what it is asked.

#![allow(dead_code, reason = "every test binary takes its own part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

/// What a name has.
#[derive(Clone, Debug)]
pub enum Record {
    /// A TXT record, in strings of at most 255 octets.
    Txt(String),
    /// An A record.
    A([u8; 4]),
    /// An MX record.
    Mx(String),
    /// The server fails for this name (SERVFAIL).
    Fails,
    /// No answer ever comes for this name.
    Silent,
}

const A: u16 = 1;
const MX: u16 = 15;
const TXT: u16 = 16;

#[derive(Default)]
struct Shared {
    zone: BTreeMap<String, Vec<Record>>,
    asked: Vec<String>,
    /// While it is set no question gets an answer, as from a server that is down.
    mute: bool,
    /// Names answered over TCP because the answer did not fit.
    by_tcp: usize,
}

/// A running server; it ends with the test.
pub struct Dns {
    /// Where it listens, UDP and TCP.
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Dns {
    /// Starts a server without records.
    pub fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("bound")) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("bound");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let zone = shared.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((n, from)) = udp.recv_from(&mut packet) {
                if let Some(reply) = answer(&zone, &packet[..n], 1200) {
                    let _ = udp.send_to(&reply, from);
                }
            }
        });
        let zone = shared.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let zone = zone.clone();
                std::thread::spawn(move || serve(&zone, stream));
            }
        });
        Self { address, shared }
    }

    /// Adds a record.
    pub fn add(&self, name: &str, record: Record) -> &Self {
        let name = name.trim_end_matches('.').to_lowercase();
        self.shared.lock().expect("whole").zone.entry(name).or_default().push(record);
        self
    }

    /// Adds a TXT record.
    pub fn txt(&self, name: &str, text: &str) -> &Self {
        self.add(name, Record::Txt(text.to_owned()))
    }

    /// Answers nothing any more, or again.
    pub fn mute(&self, mute: bool) {
        self.shared.lock().expect("whole").mute = mute;
    }

    /// The names asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.lock().expect("whole").asked.clone()
    }

    /// How many answers went over TCP.
    pub fn by_tcp(&self) -> usize {
        self.shared.lock().expect("whole").by_tcp
    }
}

fn serve(shared: &Mutex<Shared>, mut stream: TcpStream) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut packet).is_err() {
            return;
        }
        let Some(reply) = answer(shared, &packet, usize::from(u16::MAX)) else { return };
        shared.lock().expect("whole").by_tcp += 1;
        let length = u16::try_from(reply.len()).expect("it fits").to_be_bytes();
        if stream.write_all(&[&length[..], &reply].concat()).is_err() {
            return;
        }
    }
}

/// The reply to one question (RFC 1035 4.1); `None` where none is to come.
fn answer(shared: &Mutex<Shared>, packet: &[u8], room: usize) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    let question = packet.get(12..at + 4)?;
    let name = labels.join(".");
    let mut shared = shared.lock().expect("whole");
    shared.asked.push(name.clone());
    if shared.mute {
        return None;
    }
    let records = shared.zone.get(&name).cloned();
    let below = shared.zone.keys().any(|other| other.ends_with(&format!(".{name}")));
    let (mut code, mut data) = (0_u8, Vec::new());
    for record in records.as_deref().unwrap_or_default() {
        match (record, kind) {
            (Record::Silent, _) => return None,
            (Record::Fails, _) => code = 2,
            (Record::Txt(text), TXT) => data.push(
                text.as_bytes()
                    .chunks(255)
                    .flat_map(|piece| std::iter::once(piece.len() as u8).chain(piece.iter().copied()))
                    .collect::<Vec<u8>>(),
            ),
            (Record::A(octets), A) => data.push(octets.to_vec()),
            (Record::Mx(host), MX) => {
                let mut value = vec![0, 10];
                for label in host.split('.') {
                    value.push(label.len() as u8);
                    value.extend_from_slice(label.as_bytes());
                }
                value.push(0);
                data.push(value);
            }
            (Record::Txt(_) | Record::A(_) | Record::Mx(_), _) => {}
        }
    }
    if records.is_none() && !below {
        code = 3;
    }
    let body: Vec<u8> = data
        .iter()
        .flat_map(|value| {
            let length = u16::try_from(value.len()).expect("short").to_be_bytes();
            let head = [&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1], &[0, 0, 0, 60], &length].concat();
            [head, value.clone()].concat()
        })
        .collect();
    let cut = 12 + question.len() + body.len() > room;
    let count = if cut { 0 } else { data.len() as u8 };
    let head =
        [packet[0], packet[1], 0x84 | u8::from(cut) << 1 | packet[2] & 1, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0];
    Some([&head[..], question, if cut { &[] } else { &body }].concat())
}
