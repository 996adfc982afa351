//! Addresses written otherwise, on the way in and on the way out, as the rules of the profile say. Where a rule applies says
//! [`crate::route`]; here it is done to a message and noted in its history.

use std::sync::Arc;

use crate::config::Plan;
use crate::mail::{Envelope, Hop, Mailbox, MessageId};
use crate::ops::Event;
use crate::queue::{Batch, Change, TrackEntry};
use crate::route::{self, Direction, Part, Passing};
use crate::time::Now;

use super::addresses::orcpt;
use super::fetch::asked_part;
use super::{Pending, Switch};

/// What became of the addresses of a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rewriting {
    /// How many are others now.
    changed: usize,
    /// How many would be, were the message not signed.
    left: usize,
    /// What is signed in the message no longer fits.
    breaks: bool,
}

impl Rewriting {
    /// The line for the message's history.
    fn line(self, now: Now) -> Option<TrackEntry> {
        let of = |n: usize| if n == 1 { "1 address".to_owned() } else { format!("{n} addresses") };
        let detail = match (self.changed, self.left) {
            (0, 0) => return None,
            (0, left) => format!("{} of the header left as they are: the message is signed", of(left)),
            (n, _) if self.breaks => {
                format!("{} of the header; the message is signed, and its signature broken", of(n))
            }
            (n, _) => format!("{} of the header", of(n)),
        };
        Some(TrackEntry {
            at: now.wall,
            event: "rewritten".into(),
            recipient: None,
            bearer: None,
            bytes_on_air: 0,
            air_s: 0.0,
            detail: Some(detail),
        })
    }

    fn event(self, message: MessageId) -> Option<Event> {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let (changed, left, breaks) = (count(self.changed), count(self.left), self.breaks);
        (self != Self::default()).then_some(Event::HeaderRewritten { message, changed, left, breaks })
    }
}

/// A recipient as it counts once it has come in by a listener.
pub(super) fn arriving(plan: &Plan, listener: &str, to: &Mailbox) -> Mailbox {
    other_address(plan, Direction::In, listener, to).unwrap_or_else(|| to.clone())
}

fn other_address(plan: &Plan, direction: Direction, at: &str, address: &Mailbox) -> Option<Mailbox> {
    if address.domain().is_empty() || asked_part(plan, address).is_some() {
        return None;
    }
    let passing = Passing { direction, at, part: Part::Envelope };
    plan.directory.rewrite(passing, address).map(|(to, _)| to)
}

impl Switch {
    /// Sender and recipients as the rules write them. A recipient that had none gets its original address as ORCPT on the way in.
    pub(super) fn rewrite_envelope(&self, direction: Direction, at: &str, envelope: &mut Envelope) {
        if self.plan.directory.rewrites.rules.is_empty() {
            return;
        }
        if let Some(to) = envelope.from.as_ref().and_then(|from| other_address(&self.plan, direction, at, from)) {
            envelope.from = Some(to);
        }
        for recipient in &mut envelope.recipients {
            let Some(to) = other_address(&self.plan, direction, at, &recipient.address) else { continue };
            if direction == Direction::In && recipient.orcpt.is_none() {
                recipient.orcpt = orcpt(&recipient.address);
            }
            recipient.address = to;
        }
        let utf8 = envelope.recipients.iter().map(|r| &r.address).chain(&envelope.from).any(Mailbox::is_utf8);
        envelope.smtputf8 |= utf8;
    }

    /// The header as the rules write it; `None` where it stays.
    pub(super) fn rewrite_header(&self, direction: Direction, at: &str, body: &[u8]) -> (Option<Vec<u8>>, Rewriting) {
        let directory = &self.plan.directory;
        let passing = Passing { direction, at, part: Part::Header };
        if !directory.rewrites.any(passing) {
            return (None, Rewriting::default());
        }
        let signed = route::is_signed(body);
        let mut left = 0;
        let made = route::rewritten(body, &mut |address| {
            let (to, rule) = directory.rewrite(passing, address)?;
            let may = !signed || rule.signed;
            left += usize::from(!may);
            may.then_some(to)
        });
        let changed = made.as_ref().map_or(0, |(_, n)| *n);
        (made.map(|(body, _)| body), Rewriting { changed, left, breaks: signed && changed > 0 })
    }

    /// Notes what was done on the way in, in the commit that takes the message.
    pub(super) fn note_rewriting(&mut self, now: Now, message: Option<MessageId>, done: Rewriting, batch: &mut Batch) {
        let Some(message) = message else { return };
        batch.changes.extend(done.line(now).map(|line| Change::Track(message, line)));
        if let Some(event) = done.event(message) {
            self.event(event);
        }
    }

    /// The message as it is handed to a hop.
    pub(super) fn handed_to(&mut self, now: Now, message: MessageId, hop: &Hop, body: Arc<[u8]>) -> Arc<[u8]> {
        if self.plan.directory.rewrites.rules.is_empty() || !leaves(hop) {
            return body;
        }
        let (made, done) = self.rewrite_header(Direction::Out, &hop.in_profile(), &body);
        if let Some(event) = done.event(message) {
            self.event(event);
        }
        // What was broken or left out is worth a line of its own; the rest goes without, as it is done at every attempt.
        if let Some(line) = done.line(now).filter(|_| done.breaks || done.left > 0) {
            self.commit(Batch { conditions: Vec::new(), changes: vec![Change::Track(message, line)] }, Pending::Aside);
        }
        made.map_or(body, Arc::from)
    }

    /// The envelope as it is handed to a hop.
    pub(super) fn envelope_to(&self, hop: &Hop, mut envelope: Envelope) -> Envelope {
        if leaves(hop) {
            self.rewrite_envelope(Direction::Out, &hop.in_profile(), &mut envelope);
        }
        envelope
    }
}

/// Whether mail leaves the house this way.
const fn leaves(hop: &Hop) -> bool {
    match hop {
        Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Peer(_) => true,
        Hop::Local | Hop::Hold | Hop::Fetch => false,
    }
}
