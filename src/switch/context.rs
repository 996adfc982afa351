//! What a node and its peers both know: how well each peer reads, and the messages that both ends hold.
//!
//! Before a message is coded for a peer the switch asks [`Switch::repertoire_for`] what the payload may rely on, and
//! [`Switch::known_for`] which earlier messages it may name. A message counts as held by both once this node has accepted it from the
//! peer, or the peer has reported that it accepted it from here. What is kept is its text alone, in the commit that makes the fact
//! durable, as a setting; it counts only under the two store epochs it was kept under, so a store that was lost or put back at
//! either end voids it. Nothing is named towards silent peers, several peers at once, or peers that keep no such list.
//!
//! Where a peer could not read a payload that relied on more than every node reads, the message is frozen anew, relying on less, as
//! another transfer; where it named what the peer lacks, both forget what they had with each other. The bound stands beside the
//! message until it is done, so this can only happen three times.
//!
//! A dictionary of the site is used towards peers of which the profile says that they have it. One that refuses it is taken at its word
//! for a day, or until its store has another epoch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::codec::history::Name;
use crate::codec::repertoire::Repertoire;
use crate::codec::site::SiteDictionary;
use crate::mail::{Hop, MessageId, PeerName, Reliance, TransferId};
use crate::ops;
use crate::queue::outcome::Event;
use crate::queue::{Batch, Change, MessageRecord, MessageState, TransferRecord};
use crate::time::{Duration, Instant, Now};

use super::intake::{REFUSED_OTHER_CONTEXT, REFUSED_OTHER_DICTIONARY, REFUSED_UNDECODABLE};
use super::settle::{AirNote, Step};
use super::{Pending, Switch};

/// Messages that may be named to one peer; twice as many are kept, so that both ends seldom disagree about the oldest.
const MOST_NAMED: usize = 64;
/// How long a peer that did not have the site's dictionary is not sent it again.
const ASK_AGAIN: Duration = Duration::from_secs(86_400);
/// What the names of these settings begin with: messages both ends hold; texts of what is on its way; bounds of messages.
const KEPT: &str = "history/";
const SENT: &str = "history-sent/";
const BOUND: &str = "relies/";

/// Whether a setting of this name is kept here.
pub(super) fn is_key(name: &str) -> bool {
    [KEPT, SENT, BOUND].iter().any(|prefix| name.starts_with(prefix))
}

/// Earlier messages by the names that a payload may call them, oldest first.
pub(super) type Known = Vec<(Name, Arc<[u8]>)>;

/// What is known of all peers.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    /// By the number that tells which is older.
    kept: BTreeMap<PeerName, BTreeMap<u64, Entry>>,
    next: u64,
    /// Texts of transfers that the peer has not yet reported accepted.
    sent: BTreeMap<TransferId, Arc<[u8]>>,
    /// What messages may rely on at most, after a peer could not read one.
    bounds: BTreeMap<MessageId, Reliance>,
    /// Peers that do not have the site's dictionary: under which epoch they said so, and when.
    lack_site: BTreeMap<PeerName, (u32, Instant)>,
}

/// A message that this node and a peer both hold.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    /// It went from here to the peer.
    sent: bool,
    /// The two store epochs under which both held it.
    own_epoch: u32,
    peer_epoch: u32,
    /// The counter of its transfer, in the epoch of its sender.
    counter: u32,
    text: Arc<[u8]>,
}

/// Bytes of a stored entry before its text.
const ENTRY_HEAD: usize = 14;

impl Entry {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, u8::from(self.sent)];
        [self.own_epoch, self.peer_epoch, self.counter].iter().for_each(|n| out.extend(n.to_be_bytes()));
        out.extend_from_slice(&self.text);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([1, sent, numbers @ ..], text) = bytes.split_first_chunk::<ENTRY_HEAD>()? else { return None };
        let ([own_epoch, peer_epoch, counter], []) = numbers.as_chunks::<4>() else { return None };
        let number = |bytes: &[u8; 4]| u32::from_be_bytes(*bytes);
        Some(Self {
            sent: *sent == 1,
            own_epoch: number(own_epoch),
            peer_epoch: number(peer_epoch),
            counter: number(counter),
            text: text.into(),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        let of = |e: &Self| (e.sent, e.own_epoch, e.peer_epoch, e.counter);
        of(self) == of(other)
    }
}

fn kept_key(peer: &PeerName, number: u64) -> String {
    format!("{KEPT}{peer}/{number:016x}")
}

fn sent_key(id: &TransferId) -> String {
    format!("{SENT}{}/{:08x}.{:08x}", id.origin, id.epoch, id.counter)
}

fn bound_key(message: MessageId) -> String {
    format!("{BOUND}{message}")
}

impl Contexts {
    /// What was stored.
    pub(super) fn open(settings: &[(String, Vec<u8>)]) -> Self {
        let mut contexts = Self::default();
        settings.iter().filter(|(name, _)| is_key(name)).for_each(|(name, value)| contexts.stored(name, Some(value)));
        contexts
    }

    /// A setting is durable, or gone.
    pub(super) fn stored(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some((peer, number)) = name.strip_prefix(KEPT).and_then(|rest| rest.rsplit_once('/')) {
            let (peer, Ok(number)) = (PeerName::from(peer), u64::from_str_radix(number, 16)) else { return };
            let entries = self.kept.entry(peer).or_default();
            match value.and_then(Entry::decode) {
                Some(entry) => _ = entries.insert(number, entry),
                None => _ = entries.remove(&number),
            }
            self.next = self.next.max(number + 1);
        } else if let Some(id) = name.strip_prefix(SENT).and_then(transfer_id) {
            match value {
                Some(text) => _ = self.sent.insert(id, text.into()),
                None => _ = self.sent.remove(&id),
            }
        } else if let Some(message) = name.strip_prefix(BOUND).and_then(MessageId::parse) {
            match value {
                Some([0]) => _ = self.bounds.insert(message, Reliance::Nothing),
                Some([2]) => _ = self.bounds.insert(message, Reliance::History),
                Some(_) => _ = self.bounds.insert(message, Reliance::Word),
                None => _ = self.bounds.remove(&message),
            }
        }
    }

    /// What makes an entry durable, and lets those go that no longer count or have no more room.
    fn keep(&mut self, peer: &PeerName, entry: &Entry, most_bytes: usize) -> Vec<Change> {
        let entries = self.kept.entry(peer.clone()).or_default();
        if entries.values().any(|e| e.is_same(entry)) {
            return Vec::new();
        }
        let counts = |e: &Entry| (e.own_epoch, e.peer_epoch) == (entry.own_epoch, entry.peer_epoch);
        let (mut messages, mut bytes) = (1, entry.text.len());
        let mut gone = Vec::new();
        for (number, e) in entries.iter().rev() {
            if counts(e) && messages < 2 * MOST_NAMED && bytes + e.text.len() <= 2 * most_bytes {
                (messages, bytes) = (messages + 1, bytes + e.text.len());
            } else {
                gone.push(Change::Setting(kept_key(peer, *number), None));
            }
        }
        let number = self.next;
        self.next += 1;
        gone.push(Change::Setting(kept_key(peer, number), Some(entry.encode())));
        gone
    }

    /// What forgets everything held by both this node and a peer.
    fn forget(&self, peer: &PeerName) -> Vec<Change> {
        let numbers = self.kept.get(peer).into_iter().flat_map(BTreeMap::keys);
        numbers.map(|number| Change::Setting(kept_key(peer, *number), None)).collect()
    }
}

fn transfer_id(text: &str) -> Option<TransferId> {
    let (origin, numbers) = text.rsplit_once('/')?;
    let (epoch, counter) = numbers.split_once('.')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some(TransferId { origin: PeerName::from(origin), epoch: number(epoch)?, counter: number(counter)? })
}

/// What a message may rely on at most once a peer has refused a payload that relied on `reliance`; `None` where the refusal is not
/// about that.
fn bound_after(reliance: Reliance, reason: u8) -> Option<Reliance> {
    match (reason, reliance) {
        (REFUSED_OTHER_DICTIONARY, Reliance::Site) => Some(Reliance::History),
        (REFUSED_OTHER_CONTEXT, Reliance::History | Reliance::Site) => Some(Reliance::Word),
        (REFUSED_OTHER_CONTEXT | REFUSED_UNDECODABLE, Reliance::Word | Reliance::History | Reliance::Site) => {
            Some(Reliance::Nothing)
        }
        _ => None,
    }
}

impl Switch {
    /// What this node reads, as it tells its peers.
    pub(super) fn own_repertoire(&self) -> Repertoire {
        Repertoire::own(self.keeps_history())
    }

    /// Whether texts of messages are kept at all.
    pub(super) fn keeps_history(&self) -> bool {
        self.plan.limits.history_bytes > 0
    }

    /// The store epoch under which a peer speaks, and what it reads as far as it has said; `None` where the bearers that reach it do
    /// not agree.
    fn heard_of(&self, peer: &PeerName) -> Option<(u32, Repertoire)> {
        let heard: Vec<(u32, u8)> = self.readings(peer).collect();
        let epoch = heard.first()?.0;
        if heard.iter().any(|(e, _)| *e != epoch) {
            return None;
        }
        // A bearer over which no hello came yet knows nothing.
        let said = heard.iter().filter(|(_, bits)| *bits != 0).map(|(_, bits)| Repertoire::from_bits(*bits));
        Some((epoch, said.reduce(Repertoire::shared).unwrap_or(Repertoire::LEAST)))
    }

    /// What a peer reads, in words for operators; `None` before it was heard.
    pub(super) fn reads_in_words(&self, peer: &PeerName) -> Option<String> {
        self.heard_of(peer).map(|(_, repertoire)| repertoire.words().to_owned())
    }

    /// Whether a peer has said what it reads since it was first heard under its present epoch.
    pub(super) fn has_said_what_it_reads(&self, peer: &PeerName) -> bool {
        self.readings(peer).any(|(_, bits)| bits != 0)
    }

    /// What each station that reaches a peer has heard of its epoch and what it reads.
    fn readings(&self, peer: &PeerName) -> impl Iterator<Item = (u32, u8)> {
        let serial = self.bearers_to(peer).filter_map(|(_, b)| b.station.reading(peer));
        serial.chain(self.nets.stations().filter_map(|station| station.reading(peer)))
    }

    /// A peer could not read what it had said it reads.
    pub(super) fn doubt_reading(&mut self, peer: &PeerName) {
        self.bearers.values_mut().for_each(|b| b.station.doubt_reading(peer));
        self.nets.stations_mut().for_each(|station| station.doubt_reading(peer));
    }

    /// Whether texts of messages with a peer are kept: over a group no payload names another.
    pub(super) fn keeps_text_of(&self, peer: &PeerName) -> bool {
        self.keeps_history() && self.nets.aldis_to(peer).is_none()
    }

    /// What a payload of this message for a peer may rely on.
    pub(super) fn repertoire_for(&self, peer: &PeerName, message: MessageId) -> Repertoire {
        let heard = self.heard_of(peer).filter(|_| !self.is_silent(peer));
        let both = heard.map_or(Repertoire::LEAST, |(_, theirs)| self.own_repertoire().shared(theirs));
        self.contexts.bounds.get(&message).map_or(both, |bound| both.within(*bound))
    }

    /// The site's dictionary, where a payload of this message for a peer may be coded with it.
    pub(super) fn site_for(
        &self,
        now: Now,
        peer: &PeerName,
        message: MessageId,
        repertoire: Repertoire,
    ) -> Option<Arc<SiteDictionary>> {
        let site = self.plan.codec.dictionary.as_ref()?;
        let has_it = self.plan.peers.iter().any(|p| p.name == *peer && p.dictionary);
        let epoch = self.heard_of(peer).map(|(epoch, _)| epoch)?;
        let lacks = self.contexts.lack_site.get(peer);
        let lacks = lacks.is_some_and(|(then, at)| *then == epoch && now.at.since(*at) < ASK_AGAIN);
        let free = has_it && !lacks && !self.contexts.bounds.contains_key(&message);
        (free && repertoire.reliance() > Reliance::Nothing).then(|| site.clone())
    }

    /// The same for a payload that several take: none of them holds what the others do.
    pub(super) fn repertoire_for_all<'a>(
        &self,
        peers: impl Iterator<Item = &'a PeerName>,
        message: MessageId,
    ) -> Repertoire {
        let each = peers.map(|peer| self.repertoire_for(peer, message));
        each.reduce(Repertoire::shared).unwrap_or(Repertoire::LEAST).without_history()
    }

    /// The messages that a payload for a peer may name: the newest of those that count.
    pub(super) fn known_for(&self, peer: &PeerName) -> Known {
        let Some((peer_epoch, _)) = self.heard_of(peer) else { return Vec::new() };
        let most = self.history_bytes();
        let mut bytes = 0;
        let fits = |e: &&Entry| {
            bytes += e.text.len();
            bytes <= most
        };
        let newest = self.counting(peer, peer_epoch).rev().take(MOST_NAMED).take_while(fits);
        let mut known: VecDeque<_> = VecDeque::new();
        newest.for_each(|e| known.push_front((Name::new(!e.sent, e.counter), e.text.clone())));
        known.into()
    }

    /// The messages that a payload of a peer may name, as the peer calls them. It may have accepted what it has not yet been heard to
    /// have, so that counts as well.
    pub(super) fn known_from(&self, peer: &PeerName, id: &TransferId) -> Known {
        let sent_there = |id: &&TransferId| {
            let hop = self.transfers.get(*id).map(|t| &t.hop);
            id.epoch == self.epoch && matches!(hop, Some(Hop::Peer(to)) if to == peer)
        };
        let kept = self.counting(peer, id.epoch).map(|e| (Name::new(e.sent, e.counter), e.text.clone()));
        let sent = self.contexts.sent.iter().filter(|(id, _)| sent_there(id));
        kept.chain(sent.map(|(id, text)| (Name::new(true, id.counter), text.clone()))).collect()
    }

    fn counting(&self, peer: &PeerName, peer_epoch: u32) -> impl DoubleEndedIterator<Item = &Entry> {
        let all = self.contexts.kept.get(peer).into_iter().flat_map(BTreeMap::values);
        all.filter(move |e| (e.own_epoch, e.peer_epoch) == (self.epoch, peer_epoch))
    }

    fn history_bytes(&self) -> usize {
        usize::try_from(self.plan.limits.history_bytes).unwrap_or(usize::MAX / 2)
    }

    /// What keeps the text of a message that this node accepts from a peer.
    pub(super) fn keep_received(&mut self, peer: &PeerName, id: &TransferId, text: Arc<[u8]>) -> Vec<Change> {
        if text.is_empty() {
            return Vec::new();
        }
        let entry = Entry { sent: false, own_epoch: self.epoch, peer_epoch: id.epoch, counter: id.counter, text };
        self.contexts.keep(peer, &entry, self.history_bytes())
    }

    /// What was to be kept of an accepted message is durable.
    pub(super) fn kept(&mut self, stored: &Batch) {
        for change in &stored.changes {
            if let Change::Setting(name, value) = change {
                self.contexts.stored(name, value.as_deref());
            }
        }
    }

    /// What a step changes of what is known: texts go with their transfers, or stay as what both ends hold.
    pub(super) fn context_changes(&mut self, record: &MessageRecord, step: &Step, extra: &[Change]) -> Vec<Change> {
        let mut changes = Vec::new();
        let dropped = extra.iter().filter_map(|change| match change {
            Change::DropTransfer(id) if self.contexts.sent.contains_key(id) => {
                Some(Change::Setting(sent_key(id), None))
            }
            _ => None,
        });
        changes.extend(dropped);
        if record.state != MessageState::Queued && self.contexts.bounds.contains_key(&record.id) {
            changes.push(Change::Setting(bound_key(record.id), None));
        }
        match step {
            Step::Freeze { transfers, text, .. } if !text.is_empty() => {
                let sent = transfers.iter().map(|(t, _)| Change::Setting(sent_key(&t.id), Some(text.to_vec())));
                changes.extend(sent);
            }
            Step::Events { events, air, ended: Some(id), .. } => {
                let transfer = self.transfers.get(id).cloned();
                let Some((transfer, Hop::Peer(peer))) = transfer.map(|t| (t.clone(), t.hop)) else { return changes };
                if events.iter().any(|(_, event)| matches!(event, Event::Delivered { .. }))
                    && let Some((text, (peer_epoch, _))) = self.contexts.sent.get(id).cloned().zip(self.heard_of(&peer))
                {
                    let (own_epoch, counter) = (id.epoch, id.counter);
                    let entry = Entry { sent: true, own_epoch, peer_epoch, counter, text };
                    changes.extend(self.contexts.keep(&peer, &entry, self.history_bytes()));
                }
                if let Some(reason) = air.refused
                    && let Some(bound) = bound_after(transfer.reliance, reason)
                {
                    let bound = self.contexts.bounds.get(&record.id).map_or(bound, |known| bound.min(*known));
                    changes.push(Change::Setting(bound_key(record.id), Some(vec![bound as u8])));
                    if reason == REFUSED_OTHER_CONTEXT {
                        changes.extend(self.contexts.forget(&peer));
                    }
                }
            }
            Step::Freeze { .. }
            | Step::Events { .. }
            | Step::Wake
            | Step::LetGo
            | Step::Follow
            | Step::Operator { .. } => {}
        }
        changes
    }

    /// A peer could not read what relied on more than every node reads: the message is frozen anew. False where that is not why.
    pub(super) fn code_anew(&mut self, now: Now, transfer: &TransferRecord, reason: u8) -> bool {
        let Hop::Peer(peer) = &transfer.hop else { return false };
        let Some(bound) = bound_after(transfer.reliance, reason) else { return false };
        if reason == REFUSED_UNDECODABLE {
            self.doubt_reading(peer);
        }
        let why = match bound {
            Reliance::Nothing => "the peer cannot read it so; coded anew as every node reads it",
            Reliance::Word => "the peer does not hold the same messages; coded anew without them",
            Reliance::History | Reliance::Site => {
                "the peer does not have this site's dictionary; coded anew without it"
            }
        };
        if let (REFUSED_OTHER_DICTIONARY, Some((epoch, _))) = (reason, self.heard_of(peer)) {
            self.contexts.lack_site.insert(peer.clone(), (epoch, now.at));
        }
        self.event(ops::Event::TransferCodedAnew {
            message: transfer.message,
            peer: peer.clone(),
            transfer: transfer.id.to_string(),
            why: why.into(),
        });
        let events = transfer.recipients.iter().map(|i| (*i, Event::Withdrawn { why: why.into() })).collect();
        let air = AirNote { bearer: Some(transfer.bearer.clone()), refused: Some(reason), ..AirNote::default() };
        let (ended, job) = (Some(transfer.id.clone()), Some(transfer.hop.clone()));
        self.step(now, transfer.message, Step::Events { events, air, ended, job, sends: None });
        true
    }

    /// A peer named what is not held here: both ends forget what they had with each other, or they would never agree again.
    pub(super) fn forget_history(&mut self, peer: &PeerName) {
        let changes = self.contexts.forget(peer);
        self.contexts.kept.remove(peer);
        if !changes.is_empty() {
            self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
        }
    }

    /// After a start: texts of transfers that are no more go.
    pub(super) fn forget_unsent(&mut self) {
        let live: BTreeSet<&TransferId> = self.transfers.keys().collect();
        let orphans = self.contexts.sent.keys().filter(|id| !live.contains(id));
        let changes: Vec<Change> = orphans.map(|id| Change::Setting(sent_key(id), None)).collect();
        self.contexts.sent.retain(|id, _| self.transfers.contains_key(id));
        if !changes.is_empty() {
            self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(counter: u32, bytes: usize) -> Entry {
        Entry { sent: counter.is_multiple_of(2), own_epoch: 1, peer_epoch: 2, counter, text: vec![b'x'; bytes].into() }
    }

    fn keep(contexts: &mut Contexts, peer: &PeerName, entry: &Entry, most: usize) {
        for change in contexts.keep(peer, entry, most) {
            let Change::Setting(name, value) = change else { panic!("a setting") };
            assert!(is_key(&name));
            contexts.stored(&name, value.as_deref());
        }
    }

    fn counters(contexts: &Contexts, peer: &PeerName) -> Vec<u32> {
        contexts.kept.get(peer).into_iter().flat_map(BTreeMap::values).map(|e| e.counter).collect()
    }

    #[test]
    fn the_oldest_go_first_and_what_was_held_under_other_epochs_with_the_first_of_new_ones() {
        let (mut contexts, peer) = (Contexts::default(), PeerName::from("a/b"));
        (1..=5).for_each(|n| keep(&mut contexts, &peer, &entry(n, 100), 200));
        assert_eq!(counters(&contexts, &peer), [2, 3, 4, 5], "twice what may be named");
        keep(&mut contexts, &peer, &entry(5, 100), 200);
        assert_eq!(counters(&contexts, &peer), [2, 3, 4, 5], "the same again is no more");
        keep(&mut contexts, &peer, &Entry { peer_epoch: 3, ..entry(1, 100) }, 200);
        assert_eq!(counters(&contexts, &peer), [1], "what the peer's former store held is nothing");
        (0..300).for_each(|n| keep(&mut contexts, &peer, &entry(n, 1), 1 << 20));
        assert_eq!(counters(&contexts, &peer).len(), 2 * MOST_NAMED);
        for change in contexts.forget(&peer) {
            let Change::Setting(name, value) = change else { panic!("a setting") };
            contexts.stored(&name, value.as_deref());
        }
        assert_eq!(counters(&contexts, &peer), [0; 0]);
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let (mut contexts, peer) = (Contexts::default(), PeerName::from("ship"));
        let id = TransferId { origin: PeerName::from("shore"), epoch: 7, counter: 8 };
        let message = MessageId(26);
        let mut settings = vec![
            (sent_key(&id), b"text".to_vec()),
            (bound_key(message), vec![Reliance::Word as u8]),
            ("other".to_owned(), vec![1]),
            (kept_key(&peer, 3), vec![9, 9]),
        ];
        for change in contexts.keep(&peer, &entry(4, 20), 1000) {
            let Change::Setting(name, Some(value)) = change else { panic!("a setting") };
            settings.push((name, value));
        }
        let again = Contexts::open(&settings);
        assert_eq!(again.kept.get(&peer).and_then(|e| e.get(&0)), Some(&entry(4, 20)));
        assert_eq!(again.sent.get(&id).map(|t| t.to_vec()), Some(b"text".to_vec()));
        assert_eq!(again.bounds, BTreeMap::from([(message, Reliance::Word)]));
        assert_eq!(again.next, 4, "an entry that cannot be read keeps its number to itself");
    }

    #[test]
    fn a_message_is_coded_anew_three_times_at_most() {
        use Reliance::{History, Nothing, Site, Word};
        for (reliance, reason, bound) in [
            (Site, REFUSED_OTHER_DICTIONARY, Some(History)),
            (Site, REFUSED_OTHER_CONTEXT, Some(Word)),
            (Site, REFUSED_UNDECODABLE, Some(Nothing)),
            (History, REFUSED_OTHER_DICTIONARY, None),
            (History, REFUSED_OTHER_CONTEXT, Some(Word)),
            (History, REFUSED_UNDECODABLE, Some(Nothing)),
            (Word, REFUSED_OTHER_CONTEXT, Some(Nothing)),
            (Word, REFUSED_UNDECODABLE, Some(Nothing)),
            (Nothing, REFUSED_OTHER_CONTEXT, None),
            (Nothing, REFUSED_UNDECODABLE, None),
            (History, 2, None),
        ] {
            assert_eq!(bound_after(reliance, reason), bound, "{reliance:?} {reason}");
        }
    }
}
