//! What comes in: SMTP questions and transactions, and payloads heard whole over the air. Both end in `queue::accept`.

use std::borrow::Cow;
use std::sync::Arc;

use crate::bearer::Verdict;
use crate::config::plan::{ListenerKind, ListenerPlan};
use crate::config::smarthost::SmarthostPlan;
use crate::mail::{
    BearerId, DeliverBy, Envelope, Hop, MessageId, MtPriority, PeerName, Precedence, PriorityPolicy, Source, Status,
    Submission, Terms, TransferId,
};
use crate::ops::Event;
use crate::queue::accept::{self, Authority};
use crate::queue::expand::{self, Entered};
use crate::queue::{Batch, Change, CommitError, MessageRecord, MessageState, dsn};
use crate::route::Direction;
use crate::security::vet::Vetted;
use crate::smtp::command::By;
use crate::smtp::server::{Answer, AskId, Question, Transaction};
use crate::smtp::trace::TraceFacts;
use crate::smtp::{Reply, submission, trace};
use crate::time::{Instant, Now, Wall};

use super::addresses::{Asked, among};
use super::air::Bearer;
use super::rewriting::{Rewriting, arriving};
use super::{Decode, OpenError, Opened, Output, Pending, SessionId, StoreState, Switch, Work};

/// What mail that asks for protection is told where there is none (RFC 8689 4.2.1).
pub(super) const UNPROTECTED: (Status, &str) =
    (Status(5, 7, 30), "REQUIRETLS cannot be kept: the way to this recipient is not protected");

/// Reason numbers in reports to the sending station.
pub(super) const REFUSED_UNDECODABLE: u8 = 1;
const REFUSED_LOOP: u8 = 2;
/// The payload is for several nodes, none of which goes by this one's name.
const REFUSED_NOT_OURS: u8 = 3;
/// The payload names earlier messages that this node does not have, perhaps behind a site's dictionary.
pub(super) const REFUSED_OTHER_CONTEXT: u8 = 4;
/// The payload relies on a site's dictionary that this node does not have.
pub(super) const REFUSED_OTHER_DICTIONARY: u8 = 6;

/// A transaction that may be taken in, mended as its listener does.
#[derive(Debug)]
pub(super) struct Prepared {
    pub session: SessionId,
    pub ask: AskId,
    pub listener: String,
    pub envelope: Envelope,
    by: Option<(By, Instant)>,
    terms: Terms,
    pub facts: TraceFacts,
    pub trusted: bool,
    /// The message, less the trace field.
    pub body: Arc<[u8]>,
    /// Octets as they came.
    octets: u64,
    rewriting: Rewriting,
}

/// What a session is told once its message is durable.
#[derive(Debug)]
pub(super) struct Promise {
    session: SessionId,
    ask: AskId,
    /// The message asked for more by its header than its source may have, and got this (RFC 6710 4.1).
    granted: Option<MtPriority>,
}

impl Switch {
    pub(super) fn ask(&mut self, now: Now, session: SessionId, ask: AskId, listener: &str, question: Question) {
        let answer = match question {
            // Passwords are checked where the connection is; one that gets here is nobody's.
            Question::Auth { .. } | Question::Scram { .. } | Question::External { .. } => {
                Answer::Refuse(Reply::new(535, Status(5, 7, 8), "authentication failed"))
            }
            // What lies elsewhere is fetched where the connection is.
            Question::Fetch { .. } => Answer::Refuse(Reply::new(554, Status(5, 6, 6), "nothing is fetched here")),
            Question::Mail { mail, user, .. } => {
                let full = || mail.release.and_then(|_| self.too_many_futures(user.as_deref()));
                self.refuse_when_unhealthy().or_else(full).map_or(Answer::Ok, Answer::Refuse)
            }
            Question::Rcpt { rcpt, user, trusted, mt_priority, size, require_tls, .. } => {
                let may_relay = trusted || user.is_some();
                let level = mt_priority.map_or(self.plan.precedence.default, |p| self.numbers(listener).level(p));
                let asked = Asked { level, size, require_tls, may_relay };
                let to = arriving(&self.plan, listener, &rcpt.to);
                self.recipient(now, &to, &asked).map_or(Answer::Ok, Answer::Refuse)
            }
            Question::End(transaction) => {
                self.transaction(now, session, ask, listener, *transaction);
                return;
            }
        };
        self.outputs.push_back(Output::Answer { session, ask, answer });
    }

    fn refuse_when_unhealthy(&self) -> Option<Reply> {
        match self.store {
            StoreState::Healthy | StoreState::Full => None,
            StoreState::Failed(_) => {
                Some(Reply::new(451, Status(4, 3, 0), "mail cannot be stored now, try again later"))
            }
        }
    }

    /// D5 and B6: what none of the bearers to a peer will carry.
    pub(super) fn over_air(
        &self,
        now: Now,
        peer: &PeerName,
        only: &[BearerId],
        level: Precedence,
        size: Option<u64>,
    ) -> Option<Reply> {
        if let Some(net) = self.nets.to(peer) {
            return self.over_multicast(now, net, peer, level, size);
        }
        let mut refused = None;
        for (_, bearer) in self.bearers_to(peer).filter(|(name, _)| among(only, name)) {
            match self.over_bearer(now, bearer, peer, level, size) {
                None => return None,
                Some(reply) => refused = refused.or(Some(reply)),
            }
        }
        refused
    }

    fn over_bearer(
        &self,
        now: Now,
        bearer: &Bearer,
        peer: &PeerName,
        level: Precedence,
        size: Option<u64>,
    ) -> Option<Reply> {
        if let Some(refused) = self.minimized(now, &bearer.plan.id, peer, level) {
            return Some(refused);
        }
        // A message shrinks when encoded: only what would be too much at a third of its size is refused at once.
        let size = size.filter(|size| !self.may_shrink(&bearer.plan.id, *size, level))?;
        let excess = bearer.plan.carries(level, size / 3).err()?;
        Some(Reply::new(552, Status(5, 3, 4), format!("too big for the link to {peer}: {excess}")))
    }

    /// B6: what a level below MINIMIZE is told.
    pub(super) fn minimized(&self, now: Now, bearer: &BearerId, peer: &PeerName, level: Precedence) -> Option<Reply> {
        let minimize = self.minimize_in_force(now, bearer).filter(|m| level < m.least)?;
        let text = format!("MINIMIZE in force: only {} and above to {peer}", minimize.least);
        Some(match minimize.until {
            Some(_) => Reply::new(450, Status(4, 7, 15), text),
            None => Reply::new(550, Status(5, 7, 15), text),
        })
    }

    /// Whether a message may go this way, over the bearers its route names, as far as the protection it asks for is concerned (C4).
    /// Reports come from nobody, and no missing protection may cost one (RFC 8689 5).
    pub(super) fn may_take(&self, hop: &Hop, message: MessageId, envelope: &Envelope) -> bool {
        let only = match hop {
            Hop::Peer(peer) => self.only_over(message, peer),
            Hop::Local | Hop::Hold | Hop::Fetch | Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) => &[],
        };
        !envelope.require_tls || envelope.from.is_none() || self.protects(hop, only)
    }

    /// Where mail stays on this machine, goes over a bearer that is marked protected, or to a next hop whose certificate is checked.
    /// Towards other SMTP servers TLS is opportunistic, so none of them will do.
    pub(super) fn protects(&self, hop: &Hop, only: &[BearerId]) -> bool {
        match hop {
            Hop::Local | Hop::Hold | Hop::Fetch => true,
            Hop::Lmtp(path) => path.starts_with('/'),
            Hop::Smtp(_) => false,
            Hop::Smarthost(name) => self.plan.smarthost(name).is_some_and(SmarthostPlan::is_verified),
            // Each host of a domain shows whether it does, when it is asked (RFC 8689 4.2.1).
            Hop::Mx(_) => self.plan.mx.may_verify(),
            Hop::Peer(peer) => {
                self.bearers_to(peer).any(|(name, b)| b.plan.protected && among(only, name))
                    || self.nets.to(peer).is_some_and(|net| net.plan.protected && among(only, &net.plan.id))
            }
        }
    }

    fn transaction(&mut self, now: Now, session: SessionId, ask: AskId, listener: &str, transaction: Transaction) {
        let user = transaction.facts.user.clone();
        let full = || transaction.terms.release.and_then(|_| self.too_many_futures(user.as_deref()));
        if let Some(reply) = self.refuse_when_unhealthy().or_else(full) {
            self.outputs.push_back(Output::Answer { session, ask, answer: Answer::Refuse(reply) });
            return;
        }
        let Transaction { mut envelope, by, terms, body, facts, trusted, .. } = transaction;
        let plan = self.plan.clone();
        let at = plan.listeners.iter().find(|l| l.name == listener);
        let sender = envelope.from.as_ref().map(ToString::to_string).unwrap_or_default();
        self.rewrite_envelope(Direction::In, listener, &mut envelope);
        let arrived = self.without_our_results(listener, body.clone());
        let completed = match at.map(|l| l.kind) {
            Some(ListenerKind::Submission) => {
                // Where mail is signed first, several messages may be on their way to the same number.
                let ticket =
                    at.filter(|l| l.vetting.sign).map(|_| format!("{}.", self.next_ticket)).unwrap_or_default();
                let unique = format!("{}.{ticket}{:08x}", self.ids.upcoming(), self.epoch);
                submission::complete(&arrived, &plan.node.hostname, now.wall, &unique)
            }
            Some(ListenerKind::Relay | ListenerKind::Lmtp) | None => trace::strip_return_path(&arrived),
        };
        let (other, rewriting) = self.rewrite_header(Direction::In, listener, &completed);
        let mended = match (other, completed) {
            (Some(other), _) => other.into(),
            (None, Cow::Owned(completed)) => completed.into(),
            (None, Cow::Borrowed(_)) => arrived.clone(),
        };
        let (listener, octets) = (listener.to_owned(), body.len() as u64);
        let prepared =
            Prepared { session, ask, listener, envelope, by, terms, facts, trusted, body: mended, octets, rewriting };
        // What is checked is what came in, to the octet.
        match at.and_then(|at| self.to_vet(at, &prepared, &body, &sender)) {
            Some(work) => self.work(work, Pending::Vet { prepared: Box::new(prepared), since: now.at }),
            None => self.admit(now, prepared, None),
        }
    }

    /// Takes a message in, with what was found out about it.
    pub(super) fn admit(&mut self, now: Now, prepared: Prepared, vetted: Option<&Vetted>) {
        let Prepared { session, ask, listener, mut envelope, by, terms, facts, trusted, body, octets, rewriting } =
            prepared;
        // First of all: the trace field tells the number that counts.
        let authority = Authority { trusted, ceiling: self.ceiling(&listener, facts.user.as_deref(), trusted) };
        let choice = accept::choose(&self.policy, self.numbers(&listener), authority, &envelope, &body);
        if octets > self.largest(&listener, choice.level) {
            let answer = Answer::Refuse(Reply::new(552, Status(5, 7, 16), "too big for its priority"));
            self.outputs.push_back(Output::Answer { session, ask, answer });
            return;
        }
        envelope.mt_priority = choice.mt_priority;
        let granted = choice.mt_priority.filter(|_| choice.lowered);
        let user = facts.user.clone();
        if let Some((by, given)) = by {
            let left = by.seconds - i64::try_from(now.at.since(given).as_secs()).unwrap_or(0);
            let deadline = Wall(now.wall.0.saturating_add(left.saturating_mul(1000)));
            envelope.deliver_by = Some(DeliverBy { deadline, mode: by.mode, trace: by.trace });
        }
        let id = self.ids.upcoming();
        let for_one = match envelope.recipients.as_slice() {
            [one] => Some(&one.address),
            _ => None,
        };
        let received =
            trace::received(&facts, &self.plan.node.hostname, &id.to_string(), for_one, envelope.mt_priority, now.wall);
        let top = match vetted {
            Some(vetted) => [&vetted.top, &received, &vetted.signatures].map(Vec::as_slice).concat(),
            None => received,
        };
        let body: Arc<[u8]> = trace::prepend(&top, &body).into();
        let source = Source::Smtp { listener, address: facts.address, user: facts.user };
        let expansion = self.expand(&envelope, &body, None);
        let subject = body.clone();
        let submission = Submission { envelope, precedence: choice.level, source, body };
        match expand::accept_chosen(now, &self.policy, &mut self.ids, submission, expansion, &terms) {
            Ok(entered) => {
                let waits: Vec<Change> =
                    entered.records.iter().flat_map(|r| self.future_changes(r, user.as_deref())).collect();
                let (mut batch, records) = self.with_reports(now, entered, &subject);
                batch.changes.extend(waits);
                let first = records.first().map(|r| r.id);
                self.note_rewriting(now, first, rewriting, &mut batch);
                if let Some(vetted) = vetted {
                    self.note_vetting(now, first, vetted, &mut batch);
                }
                let ids = self.ids_in(&batch);
                #[cfg(feature = "mutations")]
                if crate::mutation::is(crate::mutation::Mutation::PromiseEarly) {
                    let answer = Answer::Queued(Reply::new(250, Status(2, 0, 0), "queued"));
                    self.outputs.push_back(Output::Answer { session, ask, answer });
                }
                let promise = Promise { session, ask, granted };
                self.commit(batch, Pending::Accept { promise, records, ids });
            }
            Err(why) => {
                let reply = Reply::new(554, Status(5, 5, 1), why.to_string());
                self.outputs.push_back(Output::Answer { session, ask, answer: Answer::Refuse(reply) });
            }
        }
    }

    fn listener(&self, name: &str) -> Option<&ListenerPlan> {
        self.plan.listeners.iter().find(|l| l.name == name)
    }

    /// What the numbers of MT-PRIORITY mean at a listener.
    fn numbers(&self, listener: &str) -> PriorityPolicy {
        self.listener(listener).map(|l| l.mt_priority).unwrap_or_default()
    }

    /// The largest message of a level that a listener takes.
    fn largest(&self, listener: &str, level: Precedence) -> u64 {
        self.listener(listener).and_then(|l| l.precedence_bytes.get(&level)).copied().unwrap_or(u64::MAX)
    }

    fn ceiling(&self, listener: &str, user: Option<&str>, trusted: bool) -> Precedence {
        if let Some(user) = user.and_then(|u| self.plan.users.get(u)) {
            return user.max_precedence;
        }
        if trusted {
            return Precedence::Override;
        }
        self.listener(listener).map_or(Precedence::Routine, |l| l.max_precedence)
    }

    /// A transaction's commit came back: the promise, or the refusal.
    pub(super) fn accept_stored(
        &mut self,
        now: Now,
        promise: Promise,
        records: Vec<MessageRecord>,
        ids: &Batch,
        stored: Result<(), CommitError>,
    ) {
        let Promise { session, ask, granted } = promise;
        let answer = match stored {
            Ok(()) => {
                self.ids.committed(ids);
                self.store = StoreState::Healthy;
                let text = records.first().map(|r| format!("queued as {}", r.id)).unwrap_or_default();
                self.accepted(now, records);
                Answer::Queued(match granted {
                    Some(number) => {
                        let text = format!("{number} is the priority granted, {text}");
                        Reply::new(250, Status(2, 3, 6), text)
                    }
                    None => Reply::new(250, Status(2, 0, 0), text),
                })
            }
            Err(error) => {
                self.commit_failed(&error);
                self.forget_futures(&records);
                Answer::Refuse(match error {
                    CommitError::Full => Reply::new(452, Status(4, 3, 1), "no room for mail now, try again later"),
                    CommitError::Conflict(_) | CommitError::Failed(_) => {
                        Reply::new(451, Status(4, 3, 0), "mail cannot be stored now, try again later")
                    }
                })
            }
        };
        self.outputs.push_back(Output::Answer { session, ask, answer });
    }

    /// Messages are durable: they may be worked on.
    pub(super) fn accepted(&mut self, now: Now, records: Vec<MessageRecord>) {
        for record in records {
            self.event(Event::MessageAccepted {
                message: record.id,
                message_id: record.message_id.clone(),
                precedence: record.precedence,
                recipients: record.recipients.len() as u64,
                size_bytes: record.size_bytes,
            });
            if record.state == MessageState::Queued {
                self.offer(now, record);
            }
        }
    }

    /// Messages with recipients refused on acceptance, or of whom the sender is told at once, carry the reports in the same batch.
    pub(super) fn with_reports(&mut self, now: Now, entered: Entered, subject: &[u8]) -> (Batch, Vec<MessageRecord>) {
        let Entered { mut records, mut batch, reports } = entered;
        for report in reports {
            let submission = dsn::build(now, &self.reporter, &report, subject);
            if let Some(own) = self.accept_own(now, submission) {
                batch.append(own.batch);
                records.extend(own.records);
            }
        }
        (batch, records)
    }

    /// A station holds a whole payload: open it off the thread.
    pub(super) fn payload_whole(
        &mut self,
        now: Now,
        bearer: &BearerId,
        ticket: u64,
        from: PeerName,
        id: TransferId,
        payload: Arc<[u8]>,
    ) {
        let Some(peer) = self.plan.peers.iter().find(|p| p.name == from) else {
            self.settle(now, bearer, ticket, Verdict::Forged);
            return;
        };
        let waiting = self.judging.entry(id.clone()).or_default();
        waiting.push((bearer.clone(), ticket));
        if waiting.len() > 1 {
            // Whole over two bearers at once: one judgement for both.
            return;
        }
        let decode = Decode {
            payload,
            id: id.clone(),
            protection: peer.protection,
            keys: peer.keys.clone(),
            max_bytes: self.plan.limits.message_bytes,
            known: self.known_from(&from, &id),
            keeps_text: self.keeps_text_of(&from),
            site: self.plan.codec.dictionary.clone(),
        };
        self.work(Work::Decode(Box::new(decode)), Pending::Decode { bearer: bearer.clone(), ticket, from, id });
    }

    pub(super) fn payload_opened(
        &mut self,
        now: Now,
        bearer: &BearerId,
        ticket: u64,
        from: PeerName,
        id: TransferId,
        opened: Result<Box<Opened>, OpenError>,
    ) {
        let opened = match opened {
            Ok(opened) => *opened,
            Err(OpenError::Forged) => {
                self.event(Event::TransferForged { peer: from, bearer: bearer.clone() });
                return self.settle(now, bearer, ticket, Verdict::Forged);
            }
            Err(OpenError::OtherContext) => {
                self.forget_history(&from);
                self.event(Event::ContextUnknown { peer: from, transfer: id.to_string() });
                return self.settle(now, bearer, ticket, Verdict::Refused(REFUSED_OTHER_CONTEXT));
            }
            Err(OpenError::OtherDictionary) => {
                self.event(Event::ContextUnknown { peer: from, transfer: id.to_string() });
                return self.settle(now, bearer, ticket, Verdict::Refused(REFUSED_OTHER_DICTIONARY));
            }
            Err(OpenError::Undecodable(why)) => {
                let why = format!("a payload from {from} is authentic but cannot be decoded here: {why}");
                self.event(Event::BearerAlarm { bearer: bearer.clone(), text: why });
                return self.settle(now, bearer, ticket, Verdict::Refused(REFUSED_UNDECODABLE));
            }
        };
        let Opened { envelope: mut air, body, text } = opened;
        let Some(own) = air.served(&self.plan.node.name).filter(|own| !own.is_empty()) else {
            return self.settle(now, bearer, ticket, Verdict::Refused(REFUSED_NOT_OURS));
        };
        air.envelope.recipients = own.to_vec();
        if accept::seen_twice(&air.hops, &self.plan.node.name) {
            self.event(Event::LoopDetected { peer: from, transfer: id.to_string() });
            return self.settle(now, bearer, ticket, Verdict::Refused(REFUSED_LOOP));
        }
        let number = self.ids.upcoming();
        let by = if self.nets.get(bearer).is_some() { "multicast" } else { "HF" };
        let received = air_trace(&from, &self.plan.node.hostname, number, (by, bearer), now.wall);
        let at = format!("peer:{from}");
        self.rewrite_envelope(Direction::In, &at, &mut air.envelope);
        let body = self.without_our_results(&at, body.into());
        let (other, rewriting) = self.rewrite_header(Direction::In, &at, &body);
        let body: Arc<[u8]> = trace::prepend(&received, other.as_deref().unwrap_or(&body)).into();
        let expansion = self.expand(&air.envelope, &body, Some(&from));
        let kept = self.keep_received(&from, &id, text);
        let source = Source::Bearer { peer: from, transfer: id, hops: air.hops };
        let subject = body.clone();
        let submission = Submission { envelope: air.envelope, precedence: air.precedence, source, body };
        let authority = Authority { trusted: true, ceiling: Precedence::Override };
        let terms = Terms::default();
        match expand::accept_all(now, &self.policy, authority, &mut self.ids, submission, expansion, &terms) {
            Ok(entered) => {
                let (mut batch, records) = self.with_reports(now, entered, &subject);
                self.note_rewriting(now, records.first().map(|r| r.id), rewriting, &mut batch);
                let mut ids = self.ids_in(&batch);
                ids.changes.extend(kept.iter().cloned());
                batch.changes.extend(kept);
                self.commit(batch, Pending::AcceptAir { bearer: bearer.clone(), ticket, records, ids });
            }
            Err(why) => {
                self.event(Event::BearerAlarm { bearer: bearer.clone(), text: why.to_string() });
                self.settle(now, bearer, ticket, Verdict::Refused(REFUSED_UNDECODABLE));
            }
        }
    }

    /// The commit of a message from the air came back: only now may the sender hear that it is ours.
    pub(super) fn accept_air_stored(
        &mut self,
        now: Now,
        bearer: &BearerId,
        ticket: u64,
        records: Vec<MessageRecord>,
        ids: &Batch,
        stored: Result<(), CommitError>,
    ) {
        let verdict = match stored {
            Ok(()) => {
                self.ids.committed(ids);
                self.kept(ids);
                self.store = StoreState::Healthy;
                self.accepted(now, records);
                Verdict::Accepted
            }
            // Seen before: the same answer, no second copy.
            Err(CommitError::Conflict(_)) => Verdict::Accepted,
            #[cfg(feature = "mutations")]
            Err(_) if crate::mutation::is(crate::mutation::Mutation::ConfirmFailed) => Verdict::Accepted,
            Err(error) => {
                self.commit_failed(&error);
                Verdict::Later
            }
        };
        self.settle(now, bearer, ticket, verdict);
    }
}

/// The trace field of a hop over the air.
fn air_trace(from: &PeerName, host: &str, id: MessageId, (by, bearer): (&str, &BearerId), wall: Wall) -> Vec<u8> {
    let date = wall.rfc5322();
    format!("Received: from {from} by {host} via {by} ({bearer}) with ALDIS id {id};\r\n\t{date}\r\n").into_bytes()
}
