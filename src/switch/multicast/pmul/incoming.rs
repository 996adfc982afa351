//! Payloads heard whole: opened off the thread, accepted in one commit with what keeps them from being accepted twice, and only then
//! acknowledged.
//!
//! RFC 8494, section 3: of the recipients only those are taken that this node delivers or passes on; the rest is for other members of the
//! group. What cannot be opened has nobody to be returned to: it goes to the postmaster as an attachment, and is acknowledged, because
//! nothing that is sent again would be better.

use std::sync::Arc;

use crate::bearer::pmul::{MessageKey, NodeId, Verdict};
use crate::codec::mule::{MuleError, Opened};
use crate::mail::{
    BearerId, Envelope, Hop, MessageId, PeerName, Precedence, Recipient, Source, Status, Submission, Terms, TransferId,
    header,
};
use crate::ops::Event;
use crate::queue::accept::{Authority, Decision};
use crate::queue::expand::{self, Expansion};
use crate::queue::{Batch, Change, CommitError, MessageRecord};
use crate::route::Direction;
use crate::smtp::trace;
use crate::time::{Duration, Now, Wall};

use super::{MOST_ACCEPTED, Pending, Pmul, stated};
use crate::switch::air::link_key;
use crate::switch::{MuleDecode, StoreState, Switch, Work};

/// A message as the station has it.
#[derive(Clone, Debug)]
pub(in crate::switch) struct Heard {
    pub(super) message: MessageKey,
    pub(super) expiry: u32,
    pub(super) priority: u8,
    pub(super) payload: Arc<[u8]>,
}

/// Undecodable payloads kept for the operator in an hour; more are counted and told.
const KEPT_AN_HOUR: u32 = 32;
/// Octets of one that are kept.
const KEPT_BYTES: usize = 4 << 20;
/// How long after its expiry an accepted message is remembered, as the station does it.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Store key of an accepted message, relative to the bearer.
fn accepted_key(message: MessageKey) -> Vec<u8> {
    let mut key = vec![b'r'];
    key.extend(message.source.0.to_be_bytes());
    key.extend(message.number.to_be_bytes());
    key
}

pub(super) fn accepted_of(key: &[u8], value: &[u8]) -> Option<(MessageKey, Known)> {
    let (source, number) = key.strip_prefix(b"r")?.split_first_chunk::<4>()?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    let source = NodeId(u32::from_be_bytes(*source));
    Some((MessageKey { source, number }, postcard::from_bytes(value).ok()?))
}

/// What is stored of an accepted message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(in crate::switch) struct Known {
    pub(super) expiry: u32,
    pub(super) priority: u8,
    /// It was accepted in silence: its sender is told when that ends, after a restart too.
    pub(super) owed: bool,
}

impl Known {
    /// Whether nobody can ask for it any more, nor say it again.
    fn is_over(&self, now: Now) -> bool {
        now.set && Wall::from_seconds(self.expiry.into()).plus(REMEMBERED) <= now.wall
    }
}

/// The name under which a message counts as seen: the same number with another expiry is another message (A2).
fn seen_as(message: MessageKey, expiry: u32) -> TransferId {
    TransferId { origin: message.source.to_string().as_str().into(), epoch: expiry, counter: message.number }
}

impl Pmul {
    /// What remembers an accepted message, and forgets what need not be remembered any more.
    fn remember(&self, now: Now, message: MessageKey, known: &Known) -> Vec<Change> {
        let put = |key, value| Change::Link(link_key(&self.net.plan.id, &accepted_key(key)), value);
        let value = postcard::to_stdvec(known).expect("plain numbers");
        let gone = self.forgets(now).into_iter().filter(|key| *key != message).map(|key| put(key, None));
        [put(message, Some(value))].into_iter().chain(gone).collect()
    }

    /// Those changes are durable.
    fn remembered(&mut self, now: Now, message: MessageKey, known: Known) {
        self.forgets(now).iter().for_each(|key| _ = self.accepted.remove(key));
        self.accepted.insert(message, known);
    }

    fn forgets(&self, now: Now) -> Vec<MessageKey> {
        let over = self.accepted.iter().filter(|(_, known)| known.is_over(now)).map(|(key, _)| *key);
        let first = self.accepted.iter().min_by_key(|(_, known)| known.expiry).map(|(key, _)| *key);
        over.chain(first.filter(|_| self.accepted.len() >= MOST_ACCEPTED)).collect()
    }
}

impl Switch {
    /// A station has a message whole.
    pub(super) fn mule_whole(&mut self, name: &BearerId, heard: Heard) {
        let decode = MuleDecode { payload: heard.payload.clone(), max_bytes: self.plan.limits.message_bytes };
        self.mule_work(Work::MuleDecode(Box::new(decode)), Pending::Decode { bearer: name.clone(), heard });
    }

    pub(super) fn mule_settle(&mut self, now: Now, name: &BearerId, message: MessageKey, verdict: Verdict) {
        if let Some(m) = self.nets.pmul.get_mut(name) {
            m.station.settle(now, message, verdict);
        }
    }

    pub(super) fn mule_opened(
        &mut self,
        now: Now,
        name: &BearerId,
        heard: Heard,
        opened: Result<Box<Opened>, MuleError>,
    ) {
        let peer = self.plan.mules.iter().find(|m| m.node == heard.message.source).map(|m| m.name.clone());
        let Some(peer) = peer else { return self.mule_settle(now, name, heard.message, Verdict::Later) };
        let Opened { letter, content, junk } = match opened {
            Ok(opened) => *opened,
            Err(error) => return self.undecodable(now, name, &heard, peer, &error),
        };
        if junk > 0 {
            self.count(name, "junk_behind_payload");
        }
        let mut envelope = letter.envelope(now.wall, Wall::from_seconds(heard.expiry.into()));
        envelope.recipients.retain(|r| self.is_mine(name, &peer, r));
        if envelope.recipients.is_empty() {
            self.count(name, "for_others");
            return self.keep_mule(now, name, &heard, Batch::default(), Vec::new());
        }
        envelope.mt_priority = envelope.mt_priority.or_else(|| stated(heard.priority));
        let level = envelope.mt_priority.map_or(self.plan.precedence.default, |p| p.precedence());
        let number = self.ids.upcoming();
        let at = format!("peer:{peer}");
        self.rewrite_envelope(Direction::In, &at, &mut envelope);
        let (other, rewriting) = self.rewrite_header(Direction::In, &at, &content);
        let expansion = match header::received_count(&content) > self.plan.limits.received_fields {
            true => {
                let text = "routing loop: too many hops".to_owned();
                let fails = Decision::Fail { status: Status(5, 4, 6), text };
                Expansion::plain(&envelope, |_| fails.clone())
            }
            false => self.expand(&envelope, &content, Some(&peer)),
        };
        let received = trace_of(&peer, &self.plan.node.hostname, number, name, now.wall);
        let body: Arc<[u8]> = trace::prepend(&received, other.as_deref().unwrap_or(&content)).into();
        let transfer = seen_as(heard.message, heard.expiry);
        let source = Source::Bearer { peer, transfer, hops: Vec::new() };
        let subject = body.clone();
        let submission = Submission { envelope, precedence: level, source, body };
        let authority = Authority { trusted: true, ceiling: Precedence::Override };
        let terms = Terms::default();
        match expand::accept_all(now, &self.policy, authority, &mut self.ids, submission, expansion, &terms) {
            Ok(entered) => {
                let (mut batch, records) = self.with_reports(now, entered, &subject);
                self.note_rewriting(now, records.first().map(|r| r.id), rewriting, &mut batch);
                self.keep_mule(now, name, &heard, batch, records);
            }
            Err(why) => {
                self.event(Event::BearerAlarm { bearer: name.clone(), text: why.to_string() });
                self.keep_mule(now, name, &heard, Batch::default(), Vec::new());
            }
        }
    }

    /// Whether a recipient is this node's to deliver or pass on; otherwise the sender has addressed whoever it is for.
    fn is_mine(&self, name: &BearerId, from: &PeerName, recipient: &Recipient) -> bool {
        if self.plan.directory.takes(&recipient.address) {
            return true;
        }
        match self.hop(&self.resolve(&recipient.address)) {
            Some(Hop::Peer(peer)) => {
                let group_member = self.nets.pmul.get(name).is_some_and(|m| m.net.plan.peers.contains(&peer));
                peer != *from && !group_member
            }
            Some(
                Hop::Local | Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Hold | Hop::Fetch,
            ) => true,
            None => false,
        }
    }

    /// Nobody can be told but the operator.
    fn undecodable(&mut self, now: Now, name: &BearerId, heard: &Heard, peer: PeerName, error: &MuleError) {
        self.count(name, error.name());
        let Some(m) = self.nets.pmul.get_mut(name) else { return };
        if now.at.since(m.kept.0) >= Duration::from_secs(3600) {
            m.kept = (now.at, 0);
        }
        m.kept.1 += 1;
        let keeps = m.kept.1 <= KEPT_AN_HOUR;
        let message = format!("{}/{:08x}", heard.message.source, heard.message.number);
        let why = error.to_string();
        self.event(Event::PayloadUndecodable {
            peer: peer.clone(),
            bearer: name.clone(),
            message: message.clone(),
            why: why.clone(),
            kept: keeps,
        });
        if !keeps {
            return self.keep_mule(now, name, heard, Batch::default(), Vec::new());
        }
        let submission = self.for_postmaster(now, name, heard, &peer, &message, &why);
        match self.accept_own(now, submission) {
            Some(entered) => self.keep_mule(now, name, heard, entered.batch, entered.records),
            None => self.keep_mule(now, name, heard, Batch::default(), Vec::new()),
        }
    }

    /// The letter that brings a payload to the operator.
    fn for_postmaster(
        &self,
        now: Now,
        name: &BearerId,
        heard: &Heard,
        peer: &PeerName,
        message: &str,
        why: &str,
    ) -> Submission {
        let (host, to) = (&self.plan.node.hostname, &self.plan.node.postmaster);
        let kept = heard.payload.get(..KEPT_BYTES).unwrap_or(&heard.payload);
        let cut = if kept.len() < heard.payload.len() { ", of which the first are attached" } else { "" };
        let id = self.ids.upcoming();
        let boundary = format!("payload-{id}-{:08x}", self.epoch);
        let mut text = format!(
            "From: Mail switch <{to}>\r\nTo: <{to}>\r\nSubject: undecodable payload from {peer} over {name}\r\n\
             Date: {}\r\nMessage-ID: <{id}.{:08x}@{host}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\r\n\
             A payload arrived whole and cannot be opened: {why}.\r\nNobody could be told but you.\r\n\r\n\
             bearer    {name}\r\nfrom      {peer}\r\nmessage   {message}\r\nexpires   {}\r\npriority  {}\r\nbytes     {}{cut}\r\n\r\n\
             --{boundary}\r\nContent-Type: application/octet-stream; name=\"payload.ber\"\r\n\
             Content-Disposition: attachment; filename=\"payload.ber\"\r\nContent-Transfer-Encoding: base64\r\n\r\n",
            now.wall.rfc5322(),
            self.epoch,
            Wall::from_seconds(heard.expiry.into()).rfc3339(),
            heard.priority,
            heard.payload.len(),
        );
        // 57 octets are a line of 76 characters.
        for line in kept.chunks(57) {
            text.push_str(&data_encoding::BASE64.encode(line));
            text.push_str("\r\n");
        }
        text.push_str(&format!("\r\n--{boundary}--\r\n"));
        let envelope = Envelope::plain(None, vec![Recipient::plain(to.clone())], Wall::NEVER);
        Submission { envelope, precedence: Precedence::Routine, source: Source::Switch, body: text.into_bytes().into() }
    }

    /// What came of a message becomes durable together with its being known.
    fn keep_mule(&mut self, now: Now, name: &BearerId, heard: &Heard, mut batch: Batch, records: Vec<MessageRecord>) {
        let owed = self.limits(now, name).0.is_none_or(|least| heard.priority > least);
        let known = Known { expiry: heard.expiry, priority: heard.priority, owed };
        let Some(m) = self.nets.pmul.get(name) else { return };
        batch.changes.extend(m.remember(now, heard.message, &known));
        let ids = self.ids_in(&batch);
        let pending = Pending::Accept { bearer: name.clone(), message: heard.message, known, records, ids };
        self.commit(batch, crate::switch::Pending::Pmul(pending));
    }

    /// The commit came back: only now may the sender hear that it is ours.
    pub(super) fn mule_stored(
        &mut self,
        now: Now,
        name: &BearerId,
        (message, known): (MessageKey, Known),
        records: Vec<MessageRecord>,
        ids: &Batch,
        stored: Result<(), CommitError>,
    ) {
        let verdict = match stored {
            Ok(()) => {
                self.ids.committed(ids);
                self.store = StoreState::Healthy;
                if let Some(m) = self.nets.pmul.get_mut(name) {
                    m.remembered(now, message, known);
                }
                self.accepted(now, records);
                Verdict::Accepted
            }
            // Seen before: the same answer, no second copy.
            Err(CommitError::Conflict(_)) => Verdict::Accepted,
            Err(error) => {
                self.commit_failed(&error);
                Verdict::Later
            }
        };
        self.mule_settle(now, name, message, verdict);
    }
}

/// The trace field of a hop by MULE.
fn trace_of(from: &PeerName, host: &str, id: MessageId, bearer: &BearerId, wall: Wall) -> Vec<u8> {
    let date = wall.rfc5322();
    format!("Received: from {from} by {host} via ACP142 ({bearer}) with MULE id {id};\r\n\t{date}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_messages_are_named_by_source_and_number_and_seen_with_their_expiry() {
        let message = MessageKey { source: NodeId(0x0a01_0102), number: 0xfeed };
        let known = Known { expiry: 7, priority: 4, owed: true };
        let value = postcard::to_stdvec(&known).expect("plain numbers");
        assert_eq!(accepted_of(&accepted_key(message), &value), Some((message, known)));
        assert_eq!(accepted_of(b"r\0\0", &value), None);
        assert_eq!(seen_as(message, 7).to_string(), "10.1.1.2/00000007/65261");
        assert_ne!(seen_as(message, 7), seen_as(message, 8));
    }
}
