//! Cuts what a station sent into the product's frames, with the product's own parser, and says in words what each holds.
//!
//! Every frame is read with the keys of the station it is meant for, so protected frames are told apart from garbage as surely as the
//! nodes do it.

use std::collections::BTreeMap;

use aldis::bearer::serial::frame::{Frame, Item, Parsed};
use aldis::bearer::serial::keys::KeyRing;
use aldis::config::Plan;
use aldis::config::plan::BearerPlan;
use aldis::mail::Precedence;

/// A part of a transmission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its first byte.
    pub at: usize,
    /// Its bytes.
    pub length: usize,
    /// What it is.
    pub content: Content,
}

/// What a part of a transmission is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A frame of the product.
    Frame(Frame),
    /// What a starved modem put between frames.
    Padding,
    /// Bytes that are no frame.
    Garbage,
}

/// The keys of every station of a net.
#[derive(Debug)]
pub(super) struct Rings(Vec<KeyRing>);

impl Rings {
    /// The rings of nodes that run these plans.
    pub(super) fn of<'a>(plans: impl Iterator<Item = &'a Plan>) -> Self {
        Self(plans.flat_map(|plan| plan.bearers.iter().map(move |bearer| ring(plan, bearer))).collect())
    }

    /// Reads a frame, and remembers the epoch and counter it says: brief reports are sealed with them.
    fn parse(&mut self, bytes: &[u8]) -> Option<(Frame, usize)> {
        let whole = self.0.iter().find_map(|ring| match Frame::parse(bytes, ring) {
            Parsed::Whole(frame, length) => Some((frame, length)),
            Parsed::Short | Parsed::Unsealed(_) | Parsed::Foreign(_) | Parsed::Nothing => None,
        });
        let said = match &whole {
            Some((Frame::Control { address, epoch, counter, .. }, _)) => Some((address.from, *epoch, *counter)),
            Some((Frame::Brief { address, context, .. }, _)) => Some((address.from, context.epoch, context.counter)),
            Some((Frame::Symbols { .. }, _)) | None => None,
        };
        if let Some((from, epoch, counter)) = said {
            for ring in &mut self.0 {
                ring.heard_from(from, epoch, counter);
                if ring.own() == from {
                    ring.set_epoch(epoch);
                }
            }
        }
        whole
    }
}

fn ring(plan: &Plan, bearer: &BearerPlan) -> KeyRing {
    let mut ring = KeyRing::new(bearer.station);
    ring.set_net(&bearer.net);
    for peer in &plan.peers {
        ring.add(&plan.node.name, &peer.name, peer.station, peer.protection, &peer.keys);
    }
    ring
}

/// Cuts `bytes` into frames and what lies between them; the pieces follow each other without a gap.
pub(super) fn cut(bytes: &[u8], fill: u8, rings: &mut Rings) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut at, mut loose) = (0, 0);
    let between = |from: usize, to: usize, pieces: &mut Vec<Piece>| {
        if from < to {
            let padding = bytes[from..to].iter().all(|&b| b == fill);
            let content = if padding { Content::Padding } else { Content::Garbage };
            pieces.push(Piece { at: from, length: to - from, content });
        }
    };
    while at < bytes.len() {
        match rings.parse(&bytes[at..]) {
            Some((frame, length)) => {
                between(loose, at, &mut pieces);
                pieces.push(Piece { at, length, content: Content::Frame(frame) });
                at += length;
                loose = at;
            }
            None => at += 1,
        }
    }
    between(loose, bytes.len(), &mut pieces);
    pieces
}

/// Which message a short transfer id of a station stands for, and its level.
pub(super) type Transfers = BTreeMap<u16, (String, Option<Precedence>)>;

/// A piece in words, e.g. `4 symbols of message 00000002 (flash) for shore`.
pub(super) fn describe(content: &Content, names: &[String], transfers: &Transfers) -> String {
    let frame = match content {
        Content::Padding => return "padding".to_owned(),
        Content::Garbage => return "no frame".to_owned(),
        Content::Frame(frame) => frame,
    };
    let address = frame.address();
    let to = names.get(usize::from(address.to)).filter(|_| address.to != address.from);
    let to = to.map_or("all", String::as_str);
    match frame {
        Frame::Symbols { chunks, .. } => {
            let of = |short: u16| match transfers.get(&short) {
                Some((message, Some(level))) => format!("message {message} ({level})"),
                Some((message, None)) => format!("message {message}"),
                None => format!("transfer {short:04x}"),
            };
            let chunks: Vec<String> =
                chunks.iter().map(|c| format!("{} symbols of {}", c.symbols.len(), of(c.short))).collect();
            format!("{} for {to}", chunks.join(", "))
        }
        Frame::Control { items, .. } => {
            let words: Vec<&str> = items.iter().map(word).collect();
            format!("{} for {to}", words.join(", "))
        }
        Frame::Brief { .. } => format!("brief report for {to}"),
    }
}

fn word(item: &Item) -> &'static str {
    match item {
        Item::Hello { .. } => "hello",
        Item::Report(_) => "report",
        Item::Poll(_) => "poll",
        Item::Cancel(_) => "cancel",
        Item::Quality(_) => "quality",
        Item::Order(_) => "order",
        Item::Group(_) => "group",
        Item::Follow(_) => "follow",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aldis::bearer::serial::frame::Address;
    use aldis::bearer::serial::keys::Seal;
    use aldis::mail::{LinkKey, PeerName, Protection};

    #[test]
    fn frames_padding_and_garbage_follow_each_other_without_a_gap() {
        let (ship, shore) = (PeerName::from("ship"), PeerName::from("shore"));
        let mut ring = KeyRing::new(1);
        ring.add(&shore, &ship, 0, Protection::Mac, &[LinkKey { id: 0, secret: [7; 32] }]);
        let address = Address { from: 0, to: 1, key: 0 };
        let items = vec![Item::Hello { waiting: 1, reads: 0, counter: 4 }, Item::Poll(vec![1])];
        let frame = Frame::Control { address, epoch: 5, counter: 9, items };
        let sealed = frame.emit(&Seal::keyed(&[7; 32], &ship));
        let stream = [&sealed[..], &[0; 40], &sealed, b"\x65nonsense", &sealed[..sealed.len() - 1]].concat();
        let pieces = cut(&stream, 0, &mut Rings(vec![KeyRing::new(0), ring]));
        let kinds: Vec<&Content> = pieces.iter().map(|p| &p.content).collect();
        let frame = Content::Frame(frame);
        assert_eq!(kinds, [&frame, &Content::Padding, &frame, &Content::Garbage]);
        let mut end = 0;
        for piece in &pieces {
            assert_eq!(piece.at, end);
            end += piece.length;
        }
        assert_eq!(end, stream.len());
        assert_eq!(describe(&frame, &["ship".into(), "shore".into()], &Transfers::new()), "hello, poll for shore");
    }
}
