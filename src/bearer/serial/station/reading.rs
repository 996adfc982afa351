//! What a peer can read: four bits of its hellos, kept beside its epoch. The switch asks before it codes a message for the peer, and
//! knows what they mean; the link only carries them.

use super::super::frame::Item;
use super::Station;
use super::keep::{encode, peer_key};
use crate::mail::PeerName;

impl Station {
    /// The word that opens every control frame.
    pub(super) fn hello(&self, waiting: u8) -> Item {
        Item::Hello { waiting, reads: self.config.reads, counter: self.highest }
    }

    /// The store epoch under which a peer speaks, and what it can read as it last said; `None` before it was heard.
    pub fn reading(&self, peer: &PeerName) -> Option<(u32, u8)> {
        let record = &self.peers.values().find(|p| p.name == *peer)?.record;
        (record.epoch != 0).then_some((record.epoch, record.reads))
    }

    /// The peer could not read what it was sent: what it said of that is forgotten until it says it again.
    pub fn doubt_reading(&mut self, peer: &PeerName) {
        let known = self.peers.iter_mut().find(|(_, p)| p.name == *peer && p.record.reads != 0);
        if let Some((station, p)) = known {
            p.record.reads = 0;
            let put = (peer_key(*station), encode(&p.record));
            self.forget(vec![put]);
        }
    }
}
