//! A listener at each antenna that holds every key: reads the frames as they are fed and holds them against the rules of the air.
//!
//! - **Order of service** (D4, D6): among the transfers to one peer, no frame is led by symbols of a lower precedence while a higher one
//!   that was ready before the key went down, and for which the frame had room, has not had its first symbols in this transmission.
//!   A transfer is ready when nothing of it is in doubt: new, or the peer has said what it lacks.
//! - **Counters** (C1): no control frame of one store epoch carries a counter that another one had.
//!
//! What goes to peers that are taken for silent is held against rules of its own (`blind`).

use std::collections::{BTreeMap, BTreeSet};

use aldis::bearer::fec::Geometry;
use aldis::bearer::serial::frame::{Deframer, FRAME_OVERHEAD, Found, Frame, Item};
use aldis::bearer::serial::keys::KeyRing;
use aldis::config::Plan;
use aldis::emcon::Keying;
use aldis::mail::{BearerId, Cut, MessageId, PeerName, Precedence};
use aldis::time::{Duration, Instant};

use super::blind::Blind;

/// How long a transfer that was frozen, or got another level, has to become ready for the air.
const READY_AFTER: Duration = Duration::from_secs(2);
/// Control frames remembered.
const REMEMBERED: usize = 4096;

/// What is known of one transfer on its way out.
#[derive(Clone, Copy, Debug)]
struct Known {
    message: MessageId,
    precedence: Precedence,
    since: Instant,
    symbol_bytes: usize,
    /// Nothing of it is in doubt.
    sure: bool,
    /// It stands for the transfers of a group: what one of its stations lacks says nothing of the others.
    several: bool,
}

/// A frame of symbols: the short id of each chunk, and its length.
#[derive(Debug)]
struct Symbols {
    shorts: Vec<u16>,
    bytes: usize,
    /// For several stations.
    shared: bool,
}

#[derive(Debug)]
struct Ear {
    ring: KeyRing,
    deframer: Deframer,
    frames: Vec<Symbols>,
}

/// The listener at one antenna.
#[derive(Debug)]
pub(super) struct Overheard {
    /// Which bearer's antenna it is.
    pub(super) bearer: BearerId,
    /// One for each peer, who alone can open what is said to it.
    ears: Vec<Ear>,
    transfers: BTreeMap<u16, Known>,
    /// To whom each transfer goes is learnt from its first frame.
    keyed_at: Option<Instant>,
    counters: BTreeMap<(u32, u32), (u8, Vec<Item>)>,
    /// Numbers of the stations that may be spoken to.
    stations: BTreeMap<PeerName, u8>,
    blind: Blind,
    /// The order of service is not judged here: commits fail, and with them readiness.
    pub(super) excused: bool,
}

impl Overheard {
    /// At the antenna of `name` for this bearer, whose peers run these plans.
    pub(super) fn new<'p>(name: &PeerName, bearer: &BearerId, peers: impl Iterator<Item = &'p Plan>) -> Self {
        let mut stations = BTreeMap::new();
        let ears = peers.filter_map(|plan| {
            let bearer = plan.bearers.iter().find(|b| b.id == *bearer)?;
            let sender = plan.peers.iter().find(|p| p.name == *name)?;
            let mut ring = KeyRing::new(bearer.station);
            ring.set_net(&bearer.net);
            stations.insert(PeerName::from(plan.node.name.to_string().as_str()), bearer.station);
            ring.add(&plan.node.name, name, sender.station, sender.protection, &sender.keys);
            Some(Ear { ring, deframer: Deframer::default(), frames: Vec::new() })
        });
        let ears = ears.collect();
        Self {
            bearer: bearer.clone(),
            ears,
            stations,
            blind: Blind::default(),
            transfers: BTreeMap::new(),
            keyed_at: None,
            counters: BTreeMap::new(),
            excused: false,
        }
    }

    /// A payload was frozen. `transfer` is its id as events show it.
    pub(super) fn frozen(
        &mut self,
        at: Instant,
        message: MessageId,
        transfer: &str,
        precedence: Precedence,
        bytes: u64,
    ) {
        // Into what it is cut, its frames will say.
        let cut = |bytes| Geometry::of_payload(bytes, Cut::Wide);
        let (Some(short), Some(geometry)) = (short_of(transfer), usize::try_from(bytes).ok().and_then(cut)) else {
            return;
        };
        // The transfers of a group are frozen together, and only the first one's number is on the air.
        if let Some(first) = self.transfers.values_mut().find(|k| k.message == message && k.since == at) {
            first.several = true;
            return;
        }
        let symbol_bytes = geometry.symbol_bytes();
        self.blind.forget(short);
        self.transfers
            .insert(short, Known { message, precedence, since: at, symbol_bytes, sure: true, several: false });
    }

    /// A far side said what it lacks. Of a message for several stations it is not told which of them; and what is told at the very moment
    /// another bearer's work is taken over was said to that one, which may have sent more since.
    pub(super) fn progress(&mut self, at: Instant, message: MessageId, lacks: bool) {
        let alone = self.transfers.values().filter(|k| k.message == message).count() == 1;
        for known in self.transfers.values_mut().filter(|k| k.message == message) {
            (known.sure, known.since) = (lacks && alone && !known.several && known.since < at, at);
        }
    }

    /// An operator changed a message's level.
    pub(super) fn expedited(&mut self, at: Instant, message: MessageId, precedence: Precedence) {
        for known in self.transfers.values_mut().filter(|k| k.message == message) {
            (known.precedence, known.since) = (precedence, at);
        }
    }

    /// A message needs the air no more, or must be asked about first.
    pub(super) fn over(&mut self, message: MessageId) {
        let (over, left) = std::mem::take(&mut self.transfers).into_iter().partition(|(_, k)| k.message == message);
        self.transfers = left;
        let over: BTreeMap<u16, Known> = over;
        over.keys().for_each(|short| self.blind.forget(*short));
    }

    /// The node takes a peer for silent from now on, or no longer.
    pub(super) fn believe(&mut self, at: Instant, peer: &PeerName, silent: bool) {
        if let Some(station) = self.stations.get(peer) {
            self.blind.believe(at, *station, silent);
        }
    }

    /// A window of a message towards a silent peer is over, in which nothing was repeated.
    pub(super) fn window(&mut self, own: u8, message: MessageId, peer: &PeerName, problems: &mut Vec<String>) {
        let Some(station) = self.stations.get(peer) else { return };
        for short in self.transfers.iter().filter(|(_, k)| k.message == message).map(|(short, _)| *short) {
            self.blind.window(short, own, *station, problems);
        }
    }

    /// The process began or ended: of what was on the air nothing is sure.
    pub(super) fn restarted(&mut self) {
        self.keyed_at = None;
        self.blind.restarted();
        self.transfers.values_mut().for_each(|k| k.sure = false);
        for ear in &mut self.ears {
            (ear.deframer, ear.frames) = (Deframer::default(), Vec::new());
        }
    }

    /// Takes what was keyed or fed; problems are said in words.
    pub(super) fn hear(&mut self, at: Instant, keying: &Keying, problems: &mut Vec<String>) {
        match keying {
            Keying::Key => {
                // What was fed to a transmission whose end nobody saw (its key is stuck) has left all the same.
                for i in 0..self.ears.len() {
                    let frames = self.end(i, problems);
                    self.doubt(&frames);
                    self.ears[i].deframer = Deframer::default();
                }
                self.keyed_at = Some(at);
            }
            Keying::Feed(bytes) => {
                for i in 0..self.ears.len() {
                    self.ears[i].deframer.push(bytes);
                    self.read(i, problems);
                }
            }
            Keying::Datagram { .. } | Keying::Igmp { .. } | Keying::Join | Keying::Membership { .. } => {}
        }
    }

    fn read(&mut self, i: usize, problems: &mut Vec<String>) {
        let Some(ear) = self.ears.get_mut(i) else { return };
        while let Some(found) = ear.deframer.poll(&ear.ring) {
            match found {
                Found::Frame(Frame::Symbols { address, chunks, .. }) => {
                    let bytes = chunks.iter().flat_map(|c| &c.symbols).map(Vec::len).sum::<usize>() + FRAME_OVERHEAD;
                    for chunk in &chunks {
                        if let Some(known) = self.transfers.get_mut(&chunk.short) {
                            known.symbol_bytes = chunk.geometry.symbol_bytes();
                        }
                    }
                    let shared = address.to == address.from;
                    // What goes to all is read by every ear, and left once.
                    if !shared || i == 0 {
                        chunks.iter().for_each(|chunk| self.blind.left(address.to, chunk));
                    }
                    ear.frames.push(Symbols { shorts: chunks.iter().map(|c| c.short).collect(), bytes, shared });
                }
                Found::Frame(Frame::Control { address, epoch, counter, items }) => {
                    if let Some(keyed_at) = self.keyed_at {
                        self.blind.said(keyed_at, address, &items, problems);
                    }
                    let said = (address.to, items);
                    let before = self.counters.entry((epoch, counter)).or_insert_with(|| said.clone());
                    if *before != said {
                        problems.push(format!("counter: {counter} of epoch {epoch:08x} stands in two frames (C1)"));
                    }
                    if self.counters.len() > REMEMBERED {
                        self.counters.pop_first();
                    }
                }
                // Brief reports are sealed with epochs that an ear does not keep.
                Found::Frame(Frame::Brief { .. }) | Found::Unsealed(_) | Found::Foreign(_) => {}
            }
        }
    }

    /// The carrier is off: judges what was said while it was on.
    pub(super) fn off(&mut self, problems: &mut Vec<String>) {
        let Some(keyed_at) = self.keyed_at.take() else { return };
        for i in 0..self.ears.len() {
            let frames = self.end(i, problems);
            if !self.excused {
                self.judge(keyed_at, &frames, problems);
            }
            self.doubt(&frames);
        }
    }

    /// The last frames of what an ear has heard, and all before them.
    fn end(&mut self, i: usize, problems: &mut Vec<String>) -> Vec<Symbols> {
        self.ears[i].deframer.finish();
        self.read(i, problems);
        std::mem::take(&mut self.ears[i].frames)
    }

    fn doubt(&mut self, frames: &[Symbols]) {
        for short in frames.iter().flat_map(|f| &f.shorts) {
            if let Some(known) = self.transfers.get_mut(short) {
                known.sure = false;
            }
        }
    }

    fn judge(&self, keyed_at: Instant, frames: &[Symbols], problems: &mut Vec<String>) {
        // Those that had their turn in this transmission to this peer.
        let here: BTreeSet<u16> = frames.iter().flat_map(|f| f.shorts.iter().copied()).collect();
        // What goes to several may be meant for the others: this one may be about to be asked later, because it did not answer.
        let shared: BTreeSet<u16> = frames.iter().filter(|f| f.shared).flat_map(|f| f.shorts.iter().copied()).collect();
        let mut served = BTreeSet::new();
        for frame in frames {
            let leader = frame.shorts.first().and_then(|short| self.transfers.get(short));
            for (short, waiting) in here.iter().filter_map(|s| Some((s, self.transfers.get(s)?))) {
                let ready = waiting.sure && waiting.since + READY_AFTER <= keyed_at;
                let fits = frame.bytes >= FRAME_OVERHEAD + waiting.symbol_bytes;
                if let Some(leader) = leader
                    && leader.precedence < waiting.precedence
                    && leader.since + READY_AFTER <= keyed_at
                    && ready
                    && fits
                    && !served.contains(short)
                    && (!frame.shared || shared.contains(short))
                {
                    problems.push(format!(
                        "precedence: {} of message {} went before {} of message {} in the transmission of {:.3} s (D4)",
                        leader.precedence,
                        leader.message,
                        waiting.precedence,
                        waiting.message,
                        keyed_at.since(Instant::ZERO).as_secs_f64()
                    ));
                    return;
                }
            }
            served.extend(frame.shorts.iter().copied());
        }
    }
}

/// The id frames carry, of a transfer's id as events show it.
pub(super) fn short_of(transfer: &str) -> Option<u16> {
    let mut parts = transfer.rsplit('/');
    let counter: u32 = parts.next()?.parse().ok()?;
    let epoch = u32::from_str_radix(parts.next()?, 16).ok()?;
    Some(((epoch & 0xF) << 12 | counter & 0xFFF) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(message: u64, precedence: Precedence) -> Known {
        Known {
            message: MessageId(message),
            precedence,
            since: Instant::ZERO,
            symbol_bytes: 31,
            sure: true,
            several: false,
        }
    }

    fn heard(frames: &[(&[u16], usize)], change: impl FnOnce(&mut Overheard)) -> Vec<String> {
        let mut at = Overheard::new(&PeerName::from("a"), &"hf1".into(), std::iter::empty());
        at.transfers.insert(1, known(1, Precedence::Routine));
        at.transfers.insert(2, known(2, Precedence::Flash));
        change(&mut at);
        let frames: Vec<_> = frames
            .iter()
            .map(|(shorts, bytes)| Symbols { shorts: shorts.to_vec(), bytes: *bytes, shared: false })
            .collect();
        let mut problems = Vec::new();
        at.judge(Instant::from_millis(10_000), &frames, &mut problems);
        problems
    }

    #[test]
    fn routine_before_flash_is_seen_and_what_is_allowed_is_not() {
        assert_eq!(heard(&[(&[1], 200), (&[2], 200)], |_| {}).len(), 1);
        // Flash first; then whatever helps.
        assert!(heard(&[(&[2], 200), (&[1], 200), (&[2], 200)], |_| {}).is_empty());
        // Flash at the head of a shared frame.
        assert!(heard(&[(&[2, 1], 200)], |_| {}).is_empty());
        // No room for a symbol of the flash.
        assert!(heard(&[(&[1], FRAME_OVERHEAD + 7), (&[2], 200)], |_| {}).is_empty());
        // It must be asked about first, or came too late.
        assert!(heard(&[(&[1], 200), (&[2], 200)], |at| at.progress(Instant::ZERO, MessageId(2), false)).is_empty());
        let late = |at: &mut Overheard| at.expedited(Instant::from_millis(9_000), MessageId(2), Precedence::Override);
        assert!(heard(&[(&[1], 200), (&[2], 200)], late).is_empty());
    }

    #[test]
    fn the_short_id_follows_from_the_shown_one() {
        assert_eq!(short_of("ship/0000abcd/4098"), Some(0xD002));
        assert_eq!(short_of("ship"), None);
    }
}
