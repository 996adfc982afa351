//! What is said at one antenna to peers that are taken for silent, held against the rules of blind sending (docs/blind.md).
//!
//! - **No question**: no poll and no cancel is for such a peer, nor a place in the order of answers.
//! - **Fresh symbols** (D2): no symbol of a transfer leaves twice until its windows say that they repeat.
//!
//! Fed by [`Overheard`](super::overheard::Overheard) with the frames it can read, and with what the node tells.

use std::collections::{BTreeMap, BTreeSet};

use aldis::bearer::serial::frame::{Address, Chunk, Item};
use aldis::time::Instant;

/// One antenna's.
#[derive(Debug, Default)]
pub(super) struct Blind {
    /// Since when which stations are taken for silent.
    silent: BTreeMap<u8, Instant>,
    /// By the id frames carry.
    sent: BTreeMap<u16, Sent>,
}

/// What has left of one transfer.
#[derive(Debug)]
struct Sent {
    /// To which station; the sender's own number is all.
    to: u8,
    seen: BTreeSet<u16>,
    /// A symbol that left twice.
    twice: Option<u16>,
}

impl Blind {
    /// The node takes a peer for silent from now on, or no longer.
    pub(super) fn believe(&mut self, at: Instant, station: u8, silent: bool) {
        if silent {
            self.silent.entry(station).or_insert(at);
        } else {
            self.silent.remove(&station);
        }
    }

    /// The process began or ended: it says anew whom it takes for silent.
    pub(super) fn restarted(&mut self) {
        self.silent.clear();
    }

    /// Words of a transmission that was keyed then. What was on its way before the silence is the business of that time.
    pub(super) fn said(&self, keyed_at: Instant, address: Address, items: &[Item], problems: &mut Vec<String>) {
        let asks = items.iter().any(|item| matches!(item, Item::Poll(_) | Item::Cancel(_)));
        let order = items.iter().find_map(Item::order);
        for station in self.silent.iter().filter(|(_, since)| **since < keyed_at).map(|(station, _)| *station) {
            let ordered = order.is_some_and(|order| order.has(station));
            if ordered || asks && address.to == station {
                let at = keyed_at.since(Instant::ZERO).as_secs_f64();
                problems.push(format!("asked: station {station}, which is silent, in the transmission of {at:.3} s"));
            }
        }
    }

    /// Symbols that have left.
    pub(super) fn left(&mut self, to: u8, chunk: &Chunk) {
        let sent = self.sent.entry(chunk.short).or_insert_with(|| Sent { to, seen: BTreeSet::new(), twice: None });
        sent.to = to;
        for sequence in (chunk.first..).take(chunk.symbols.len()) {
            if !sent.seen.insert(sequence) {
                sent.twice.get_or_insert(sequence);
            }
        }
    }

    /// A transfer begins under this id, or ends.
    pub(super) fn forget(&mut self, short: u16) {
        self.sent.remove(&short);
    }

    /// A window is over in which nothing was repeated, as the sender has it.
    pub(super) fn window(&mut self, short: u16, own: u8, peer: u8, problems: &mut Vec<String>) {
        let Some(sent) = self.sent.get_mut(&short).filter(|s| s.to == peer || s.to == own) else { return };
        if let Some(sequence) = sent.twice.take() {
            problems.push(format!("stale: symbol {sequence} of transfer {short:04x} left twice, unsaid (D2)"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aldis::bearer::fec::Geometry;
    use aldis::bearer::serial::frame::Stations;
    use aldis::mail::Cut;

    #[test]
    fn a_question_to_a_silent_station_is_seen_and_words_to_others_are_not() {
        let mut blind = Blind::default();
        blind.believe(Instant::from_millis(1000), 3, true);
        let asked = |blind: &Blind, at, to, items: &[Item]| {
            let mut problems = Vec::new();
            blind.said(Instant::from_millis(at), Address { from: 0, to, key: 0 }, items, &mut problems);
            problems.len()
        };
        let (poll, hello) = (Item::Poll(vec![1]), Item::Hello { waiting: 0, reads: 0, counter: 7 });
        let order = |station| Item::Order(Stations::one(station));
        assert_eq!(asked(&blind, 2000, 3, &[hello.clone(), poll.clone()]), 1);
        assert_eq!(asked(&blind, 2000, 3, &[Item::Cancel(vec![1])]), 1);
        assert_eq!(asked(&blind, 2000, 0, &[poll.clone(), order(3)]), 1);
        assert_eq!(asked(&blind, 2000, 0, &[poll.clone(), order(2)]), 0);
        assert_eq!(asked(&blind, 2000, 2, std::slice::from_ref(&poll)), 0);
        assert_eq!(asked(&blind, 2000, 3, &[hello]), 0);
        // Keyed before the mark, or after it went.
        assert_eq!(asked(&blind, 1000, 3, std::slice::from_ref(&poll)), 0);
        blind.believe(Instant::from_millis(3000), 3, false);
        assert_eq!(asked(&blind, 4000, 3, &[poll]), 0);
    }

    #[test]
    fn a_symbol_that_leaves_twice_unsaid_is_seen() {
        let geometry = Geometry::of_payload(500, Cut::Narrow).expect("fits");
        let chunk = |first, count| Chunk { short: 9, geometry, first, symbols: vec![Vec::new(); count] };
        let mut blind = Blind::default();
        let windows = |blind: &mut Blind, peer| {
            let mut problems = Vec::new();
            blind.window(9, 0, peer, &mut problems);
            problems.len()
        };
        blind.left(3, &chunk(0, 4));
        blind.left(3, &chunk(4, 4));
        assert_eq!(windows(&mut blind, 3), 0);
        blind.left(3, &chunk(7, 2));
        assert_eq!((windows(&mut blind, 2), windows(&mut blind, 3)), (0, 1));
        // A new transfer under the same id begins anew.
        blind.forget(9);
        blind.left(0, &chunk(0, 4));
        assert_eq!(windows(&mut blind, 3), 0);
    }
}
