//! Which frames are believed: per-direction keys drawn from the shared secrets, tags made and checked (link-rules C1, C2).
//!
//! Whoever holds a net key can forge any station of that net; a key shared by two stations separates them from the rest.

use std::collections::BTreeMap;

use ring::{hkdf, hmac};

use super::frame::Address;
use crate::mail::{LinkKey, PeerName, Protection};

const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Makes the tags of frames under one key, or checksums where protection is off.
#[derive(Clone, Debug)]
pub struct Seal {
    keys: Option<[hmac::Key; 3]>,
}

impl Seal {
    /// Checksums only: keeps damage out, not people.
    pub fn checksum() -> Self {
        Self { keys: None }
    }

    /// Tags for frames that `source` sends under `secret`.
    pub fn keyed(secret: &[u8; 32], source: &PeerName) -> Self {
        Self::on_net(secret, source, "")
    }

    /// The same on a net that has a name.
    pub fn on_net(secret: &[u8; 32], source: &PeerName, net: &str) -> Self {
        Self { keys: Some(["symbols", "control", "brief"].map(|purpose| derive(secret, purpose, source, net))) }
    }

    /// The tag of a symbol frame.
    pub fn symbols(&self, bytes: &[u8]) -> [u8; 4] {
        match &self.keys {
            Some([key, ..]) => first(hmac::sign(key, bytes).as_ref()),
            None => CRC32.checksum(bytes).to_be_bytes(),
        }
    }

    /// The tag of a control frame.
    pub fn control(&self, bytes: &[u8]) -> [u8; 8] {
        match &self.keys {
            Some([_, key, _]) => first(hmac::sign(key, bytes).as_ref()),
            None => checksums(bytes),
        }
    }

    /// The tag of a brief report: it covers both epochs and the whole counter, of which the frame says only the end.
    pub fn brief(&self, context: Context, bytes: &[u8]) -> [u8; 6] {
        let Context { epoch, far, counter } = context;
        let all = [&epoch.to_be_bytes(), &far.to_be_bytes(), &counter.to_be_bytes(), bytes].concat();
        match &self.keys {
            Some([.., key]) => first(hmac::sign(key, &all).as_ref()),
            None => first(&checksums(&all)),
        }
    }
}

/// What a brief report's tag covers beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// Store epoch of the sender.
    pub epoch: u32,
    /// Store epoch of the addressed station.
    pub far: u32,
    /// The sender's control counter.
    pub counter: u32,
}

fn checksums(bytes: &[u8]) -> [u8; 8] {
    let [a, b, c, d] = CRC32.checksum(bytes).to_be_bytes();
    let [e, f, g, h] = CRC32C.checksum(bytes).to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

fn derive(secret: &[u8; 32], purpose: &str, source: &PeerName, net: &str) -> hmac::Key {
    let mut info = vec![&b"aldis link v1 "[..], purpose.as_bytes(), b" from ", source.0.as_bytes()];
    if !net.is_empty() {
        // Names hold no blanks, so no name and net read like another.
        info.extend([&b" on "[..], net.as_bytes()]);
    }
    let mut key = [0; 32];
    let filled = hkdf::Salt::new(hkdf::HKDF_SHA256, b"aldis")
        .extract(secret)
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key));
    assert!(filled.is_ok(), "HKDF gives 32 bytes for an info of any length");
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(bytes).for_each(|(o, b)| *o = *b);
    out
}

/// Whether frames of some address can be judged here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// They are for this station, from a known one.
    Ours,
    /// They are between others, or from a stranger.
    Foreign,
}

/// Every seal a station needs.
#[derive(Debug)]
pub struct KeyRing {
    own: u8,
    /// Store epoch of this station.
    epoch: u32,
    /// Name of the net; frames of another are worth nothing here.
    net: String,
    peers: BTreeMap<u8, Pair>,
}

#[derive(Debug)]
struct Pair {
    send: (u8, Seal),
    hear: BTreeMap<u8, Seal>,
    /// Its store epoch and highest control counter, once it has said them in full.
    said: Option<(u32, u32)>,
}

impl KeyRing {
    /// A ring for station `own`, which sends as `name`.
    pub fn new(own: u8) -> Self {
        Self { own, epoch: 0, net: String::new(), peers: BTreeMap::new() }
    }

    /// The station this ring is of.
    pub fn own(&self) -> u8 {
        self.own
    }

    /// The store epoch of this station, which brief reports to it are sealed with.
    pub fn set_epoch(&mut self, epoch: u32) {
        self.epoch = epoch;
    }

    /// The net that keys of peers added from now on are for.
    pub fn set_net(&mut self, net: &str) {
        self.net = net.to_owned();
    }

    /// What a station last said of its epoch and control counter.
    pub fn heard_from(&mut self, station: u8, epoch: u32, counter: u32) {
        if let Some(pair) = self.peers.get_mut(&station) {
            pair.said = Some((epoch, counter));
        }
    }

    /// What the tag of a brief report from an address covers, by the last 16 bits of its counter.
    pub fn context(&self, address: Address, counter: u16) -> Option<Context> {
        let (epoch, highest) = self.peers.get(&address.from)?.said?;
        // The nearest one that is not long past: counters only grow, and a restart skips some thousand at most.
        let base = highest.saturating_sub(64);
        let counter = base.checked_add(u32::from(counter.wrapping_sub(base as u16)))?;
        Some(Context { epoch, far: self.epoch, counter })
    }

    /// Adds a peer. Without a key, or with protection off, frames carry checksums.
    pub fn add(&mut self, own: &PeerName, peer: &PeerName, station: u8, protection: Protection, keys: &[LinkKey]) {
        let keyed = protection != Protection::Off;
        let send = match keys.first().filter(|_| keyed) {
            Some(key) => (key.id & 3, Seal::on_net(&key.secret, own, &self.net)),
            None => (0, Seal::checksum()),
        };
        let hear = if keyed {
            keys.iter().map(|key| (key.id & 3, Seal::on_net(&key.secret, peer, &self.net))).collect()
        } else {
            BTreeMap::from([(0, Seal::checksum())])
        };
        self.peers.insert(station & 0xF, Pair { send, hear, said: None });
    }

    /// Key number and seal for sending to `station`.
    pub fn sending(&self, station: u8) -> Option<(u8, &Seal)> {
        self.peers.get(&station).map(|pair| (pair.send.0, &pair.send.1))
    }

    /// Whether frames of this address are judged here.
    pub fn trust(&self, address: Address) -> Trust {
        let for_us = address.to == self.own || address.to == address.from;
        if for_us && self.peers.contains_key(&address.from) { Trust::Ours } else { Trust::Foreign }
    }

    /// Whether this station holds the key an address names.
    pub fn holds(&self, address: Address) -> bool {
        self.seal(address).is_some()
    }

    /// Whether the tag of a symbol frame fits.
    pub fn symbols_fit(&self, address: Address, bytes: &[u8], tag: &[u8]) -> bool {
        self.seal(address).is_some_and(|seal| same(&seal.symbols(bytes), tag))
    }

    /// Whether the tag of a control frame fits.
    pub fn control_fits(&self, address: Address, bytes: &[u8], tag: &[u8]) -> bool {
        self.seal(address).is_some_and(|seal| same(&seal.control(bytes), tag))
    }

    /// Whether the tag of a brief report fits.
    pub fn brief_fits(&self, address: Address, context: Context, bytes: &[u8], tag: &[u8]) -> bool {
        self.seal(address).is_some_and(|seal| same(&seal.brief(context, bytes), tag))
    }

    fn seal(&self, address: Address) -> Option<&Seal> {
        self.peers.get(&address.from)?.hear.get(&address.key)
    }
}

/// Compares without stopping at the first difference.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}
