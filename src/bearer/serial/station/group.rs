//! Groups: one payload that several stations take from the same symbols.
//!
//! The switch hands over one transfer for each peer, all with the same bytes and the same `lead`: the counter under which their symbols
//! go. What a peer lacks, what it said and what became of it stay its own transfer's; the cursor is common, so a symbol that left once
//! has left for all. While two or more of them are open their symbols go to all stations, and as many as whoever lacks most is
//! likely to need; the last one is served alone. A frame to all says whom it asks (they answer in slots) and for whom each transfer is;
//! who was silent or deaf is asked later and finds symbols it has not seen. Needs one key for all of them: see
//! `docs/security-link.md`.

use std::collections::{BTreeMap, BTreeSet};

use super::super::PeerConfig;
use super::super::burst::{Layout, with_parity_for};
use super::super::frame::{CONTROL_OVERHEAD, FRAME_OVERHEAD, Item, Stations};
use super::super::keys::Seal;
use super::super::outgoing::Outgoing;
use super::{ANSWERS, Station, Transmission};
use crate::mail::{LinkKey, TransferId};

/// Epoch and counter a group's symbols go under.
type Lead = (u32, u32);
/// Short ids one control frame to all speaks of at most.
const CALLED: usize = 12;

impl Station {
    /// Peers that can be spoken to at once: protected alike, and by the same key.
    pub(super) fn net(&self) -> Stations {
        let Some(first) = self.config.peers.first() else { return Stations::NONE };
        let like = |p: &&PeerConfig| LinkKey::together(first.protection, &first.keys, p.protection, &p.keys);
        self.config.peers.iter().filter(like).map(|p| p.station).collect()
    }

    /// Key number and seal of what is said to one station, or to all (the own number).
    pub(super) fn seal_for(&self, to: u8) -> Option<(u8, &Seal)> {
        let holder = if to == self.config.station { self.net.lowest()? } else { to };
        self.ring.sending(holder)
    }

    /// This transfer and all that carry the same payload.
    pub(super) fn siblings(&self, id: &TransferId) -> Vec<TransferId> {
        match self.outgoing.get(id).and_then(Outgoing::group) {
            None => vec![id.clone()],
            group => self.outgoing.values().filter(|t| t.group() == group).map(|t| t.transfer.id.clone()).collect(),
        }
    }

    /// Whether the symbols of this transfer go to all.
    pub(super) fn shared(&self, t: &Outgoing) -> bool {
        let Some(group) = t.group() else { return false };
        self.net.has(t.station) && self.outgoing.values().filter(|o| o.group() == Some(group)).nth(1).is_some()
    }

    /// Where the symbols of a transfer go: to its station, or to all, which is written as the own number.
    pub(super) fn destination(&self, t: &Outgoing) -> u8 {
        if self.shared(t) { self.config.station } else { t.station }
    }

    /// Those of these transfers that go to all, and the group of each.
    pub(super) fn groups(&self, speakable: &BTreeSet<TransferId>) -> BTreeMap<TransferId, Lead> {
        let shared = speakable.iter().filter_map(|id| self.outgoing.get(id)).filter(|t| self.shared(t));
        shared.filter_map(|t| Some((t.transfer.id.clone(), t.group()?))).collect()
    }

    /// A transfer takes over the cursor of its group, and its symbols if they are made or being made.
    pub(super) fn join_group(&mut self, id: &TransferId) -> bool {
        let others: Vec<TransferId> = self.siblings(id).into_iter().filter(|o| o != id).collect();
        let mut rows = self.outgoing.get(id).map(|t| t.rows().to_vec()).unwrap_or_default();
        for t in others.iter().filter_map(|o| self.outgoing.get(o)) {
            rows.iter_mut().zip(t.rows()).for_each(|(row, other)| *row = (*row).max(*other));
        }
        let symbols = others.iter().find_map(|o| self.outgoing.get(o)?.symbols.clone());
        for t in others.iter().chain([id]).filter_map(|o| self.outgoing.get(o).map(|_| o.clone())).collect::<Vec<_>>() {
            if let Some(t) = self.outgoing.get_mut(&t) {
                t.align(&rows);
            }
        }
        if let Some(t) = self.outgoing.get_mut(id) {
            t.symbols = symbols;
        }
        !others.is_empty()
    }

    /// What each group still means to send: for every member what it needs, with the margin that the worst of so many wants.
    pub(super) fn owe_groups(&mut self, tx: &Transmission, groups: &BTreeMap<TransferId, Lead>) {
        for id in groups.keys() {
            let Some(t) = self.outgoing.get(id).filter(|t| !t.unsure) else { continue };
            let total = match self.is_silent(t.station) {
                true => self.window_needs(t, &tx.layout),
                false => with_parity_for(t.missing(), frame_symbols(&tx.layout, t), tx.layout.loss),
            };
            if let Some(t) = self.outgoing.get_mut(id) {
                t.owe(total);
            }
        }
    }

    /// Bytes of the frames that [`Self::owe_groups`] will ask for.
    pub(super) fn group_bytes(&self, layout: &Layout, groups: &BTreeMap<TransferId, Lead>) -> u64 {
        let mut needs: BTreeMap<Lead, u64> = BTreeMap::new();
        for (id, lead) in groups {
            let spoken = |t: &&Outgoing| !t.unsure && !self.is_silent(t.station);
            let Some(t) = self.outgoing.get(id).filter(spoken) else { continue };
            let each = frame_symbols(layout, t);
            let frames = with_parity_for(t.missing(), each, layout.loss).div_ceil(each);
            let need = needs.entry(*lead).or_default();
            *need = (*need).max(u64::from(frames) * layout.stride as u64);
        }
        let words = if needs.is_empty() { 0 } else { 2 * (CONTROL_OVERHEAD as u64 + 17) };
        needs.values().sum::<u64>() + words
    }

    /// Bytes of symbols this transmission still means to send, those of a group once.
    pub(super) fn outstanding_bytes(&self) -> u64 {
        let mut groups: BTreeMap<Lead, u64> = BTreeMap::new();
        let mut bytes = 0;
        for t in self.outgoing.values() {
            match t.group().filter(|_| self.shared(t)) {
                Some(lead) => {
                    let most = groups.entry(lead).or_default();
                    *most = (*most).max(t.outstanding_bytes());
                }
                None => bytes += t.outstanding_bytes(),
            }
        }
        bytes + groups.values().sum::<u64>()
    }

    /// The control frame to all: who is asked, about what, and for whom each transfer is.
    pub(super) fn call(
        &mut self,
        tx: &mut Transmission,
        waiting: u8,
        groups: &BTreeMap<TransferId, Lead>,
        speakable: &BTreeSet<TransferId>,
        greet: &BTreeSet<u8>,
    ) {
        let order = self.order(speakable, greet);
        let mut members: BTreeMap<u16, Stations> = BTreeMap::new();
        for t in self.outgoing.values().filter(|t| self.shared(t)) {
            let who = members.entry(t.short()).or_default();
            *who = who.and(Stations::one(t.station));
        }
        let called: BTreeSet<u16> = groups.keys().filter_map(|id| self.outgoing.get(id)).map(Outgoing::short).collect();
        members.retain(|short, _| called.contains(short));
        let unsure = groups.keys().filter_map(|id| self.outgoing.get(id)).filter(|t| t.unsure);
        let polls: BTreeSet<u16> = unsure.map(Outgoing::short).collect();
        let mut items = vec![self.hello(waiting)];
        if !polls.is_empty() {
            self.counts.polls += 1;
            items.push(Item::Poll(polls.into_iter().take(CALLED).collect()));
        }
        items.push(Item::Group(members.into_iter().take(CALLED).collect()));
        if order != Stations::NONE {
            items.push(Item::Order(order));
        }
        let spoken = groups.keys().filter_map(|id| self.outgoing.get(id)).map(|t| t.station);
        tx.expects.extend(spoken.filter(|s| !self.is_silent(*s)));
        let called = groups.keys().filter_map(|id| self.outgoing.get(id));
        let copies = called.map(|t| self.copies(t, &tx.layout)).max().unwrap_or(0).max(2);
        let Some(frame) = self.control(self.config.station, items) else { return };
        tx.lead.extend((0..copies).map(|n| (u64::from(n), frame.clone())));
        tx.copies.push(frame);
    }

    /// Symbols of this transfer have left: so have they for its whole group. For which stations.
    pub(super) fn shared_out(&mut self, id: &TransferId, before: &[u32]) -> Stations {
        let Some(t) = self.outgoing.get(id) else { return Stations::NONE };
        if !self.shared(t) {
            return Stations::one(t.station);
        }
        let (rows, turn) = (t.rows().to_vec(), t.turn);
        let silent: Stations = self.peers.iter().filter(|(_, p)| p.silent).map(|(s, _)| *s).collect();
        let mut hearers = Stations::NONE;
        for other in self.siblings(id) {
            let Some(t) = self.outgoing.get_mut(&other) else { continue };
            hearers = hearers.and(Stations::one(t.station));
            if other != *id {
                t.mirror(before, &rows);
                (t.turn, t.unsure) = (turn, !silent.has(t.station));
            }
        }
        hearers
    }

    /// What of a control frame concerns this station: a question to all is one to those whom its order names.
    pub(super) fn ours(&self, mut items: Vec<Item>, to_all: bool) -> Vec<Item> {
        let named = items.iter().find_map(Item::order).is_some_and(|order| order.has(self.config.station));
        items.retain(|item| !to_all || named || !matches!(item, Item::Poll(_) | Item::Cancel(_)));
        items
    }

    /// A peer said for whom its transfers to several are: those for others are not kept.
    pub(super) fn sort_out(&mut self, from: u8, groups: Vec<(u16, Stations)>) {
        for (short, members) in groups {
            let own = members.has(self.config.station);
            let Some(peer) = self.peers.get_mut(&from) else { return };
            if own {
                peer.aside.remove(&short);
                continue;
            }
            peer.answer.remove(&short);
            if peer.aside.len() >= ANSWERS {
                peer.aside.clear();
            }
            peer.aside.insert(short);
            let (epoch, counter) = peer.record.expand(short);
            self.drop_partial((from, epoch, counter));
        }
    }
}

/// Symbols of a transfer in one frame.
pub(super) fn frame_symbols(layout: &Layout, t: &Outgoing) -> u32 {
    let symbol = t.geometry.symbol_bytes();
    let room = if layout.packed { layout.symbol_bytes } else { layout.stride.saturating_sub(FRAME_OVERHEAD) };
    u32::try_from(room / symbol).unwrap_or(1).max(1)
}
