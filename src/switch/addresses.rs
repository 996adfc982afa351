//! What the switch makes of addresses: the answer to RCPT, and the copies of a message. Where an address leads says
//! [`crate::route`]; what a bearer takes at present, and which way protects, is known here.

use std::collections::BTreeMap;

use crate::config::Plan;
use crate::mail::{BearerId, Envelope, Hop, Mailbox, Notify, PeerName, Precedence, Recipient, Status, header};
use crate::ops::Event;
use crate::queue::accept::Decision;
use crate::queue::dsn::{self, Action};
use crate::queue::expand::{Apart, Copied, Expansion, without_success};
use crate::route::{self, Fault, Placed, Refusal, Resolved, Told};
use crate::smtp::Reply;
use crate::smtp::server::{Answer, Question};
use crate::time::Now;

use super::Switch;
use super::fetch::asked_part;
use super::intake::UNPROTECTED;
use super::rewriting::arriving;

/// Addresses that a line of a message's history names.
const SHOWN: usize = 10;

/// What of a transaction counts at RCPT.
pub(super) struct Asked {
    pub(super) level: Precedence,
    pub(super) size: Option<u64>,
    /// It must go nowhere unprotected.
    pub(super) require_tls: bool,
    /// Whoever asks may use the way out for everything.
    pub(super) may_relay: bool,
}

/// Whether a bearer is one of those a route names; one that names none means all.
pub(super) fn among(only: &[BearerId], bearer: &BearerId) -> bool {
    only.is_empty() || only.contains(bearer)
}

/// The answer to a question that the profile alone decides, so that nobody waits for the switch: it must not be told to a session while the store
/// has failed. `None`: the switch decides, or has to tell of it.
pub fn by_profile(plan: &Plan, listener: &str, question: &Question) -> Option<Answer> {
    match question {
        Question::Mail { mail, .. } if mail.release.is_none() => Some(Answer::Ok),
        Question::Rcpt { rcpt, user, trusted, require_tls: false, .. } => {
            let to = arriving(plan, listener, &rcpt.to);
            if asked_part(plan, &to).is_some() {
                return None;
            }
            let resolved = plan.directory.resolve(&to, &mut |_| {});
            if faults(&resolved).is_some() {
                return None;
            }
            if let Some(refusal) = resolved.refusal(*trusted || user.is_some()) {
                return Some(Answer::Refuse(told(refusal)));
            }
            let depends = |route: &route::Route| match &route.hop {
                Hop::Peer(_) => true,
                Hop::Smarthost(name) => plan.smarthost(name).is_some_and(|s| s.most_bytes.is_some()),
                Hop::Local | Hop::Hold | Hop::Smtp(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Fetch => false,
            };
            (!resolved.copies.iter().filter_map(|copy| copy.placed.route()).any(depends)).then_some(Answer::Ok)
        }
        Question::Mail { .. }
        | Question::Rcpt { .. }
        | Question::Auth { .. }
        | Question::Scram { .. }
        | Question::External { .. }
        | Question::Fetch { .. }
        | Question::End(_) => None,
    }
}

/// A refusal as the client hears it.
fn told(refusal: Refusal) -> Reply {
    Reply::new(refusal.code(), refusal.status, refusal.text)
}

impl Switch {
    /// A bare postmaster is this node's.
    pub(super) fn resolve(&self, address: &Mailbox) -> Mailbox {
        self.plan.directory.own(address)
    }

    /// The route of an address, as it stands in an envelope.
    pub(super) fn route_to(&self, address: &Mailbox) -> Option<&route::Route> {
        match address.domain().is_empty() {
            true => self.plan.directory.route(&self.plan.node.postmaster),
            false => self.plan.directory.route(address),
        }
    }

    /// The mailbox here for an address.
    pub(super) fn mailbox(&self, address: &Mailbox) -> String {
        let own = self.resolve(address);
        self.plan.directory.mailbox(&own).unwrap_or_else(|| own.local().to_lowercase())
    }

    /// Why this recipient cannot be served, if it cannot: none of its copies can.
    pub(super) fn recipient(&mut self, now: Now, to: &Mailbox, asked: &Asked) -> Option<Reply> {
        if asked_part(&self.plan, to).is_some() {
            let why = "parts are sent to whoever asks over the air; here an operator fetches them";
            return Some(Reply::new(550, Status(5, 7, 1), why));
        }
        let plan = self.plan.clone();
        let resolved = plan.directory.resolve(to, &mut |_| {});
        if let Some(refusal) = resolved.refusal(asked.may_relay) {
            let fault = faults(&resolved);
            self.tell_faults(to, fault);
            return Some(told(refusal));
        }
        if to.domain().is_empty() {
            return None;
        }
        let mut refused = None;
        for copy in &resolved.copies {
            let reply = match copy.placed.route() {
                None => copy.placed.refusal(&copy.address).map(told),
                Some(route) => self.refused_by_way(now, route, asked),
            };
            match reply {
                None => return None,
                Some(reply) => refused = refused.or(Some(reply)),
            }
        }
        refused
    }

    /// Why the way that a route means takes nothing of this kind now, if it does not.
    fn refused_by_way(&self, now: Now, route: &route::Route, asked: &Asked) -> Option<Reply> {
        let over_air = match &route.hop {
            Hop::Peer(peer) => self.over_air(now, peer, &route.bearers, route.level(asked.level), asked.size),
            Hop::Smarthost(name) => self.over_size(name, asked.size),
            Hop::Local | Hop::Smtp(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Hold | Hop::Fetch => None,
        };
        let exposed = asked.require_tls && !self.protects(&route.hop, &route.bearers);
        over_air.or_else(|| exposed.then(|| Reply::new(550, UNPROTECTED.0, UNPROTECTED.1)))
    }

    /// What a message is told that is larger than a next hop of the profile takes.
    fn over_size(&self, smarthost: &str, size: Option<u64>) -> Option<Reply> {
        let most = self.plan.smarthost(smarthost)?.most_bytes?;
        let text = format!("larger than the {most} octets that go to {smarthost}");
        size.filter(|size| *size > most).map(|_| Reply::new(552, Status(5, 3, 4), text))
    }

    /// The copies that mail with this envelope is passed on by. `from` is the neighbour it must not go back to (A8).
    pub(super) fn expand(&mut self, envelope: &Envelope, body: &[u8], from: Option<&PeerName>) -> Expansion {
        let plan = self.plan.clone();
        let (mut expansion, mut found) = (Expansion::default(), Vec::new());
        // Where each address has its copy, and whether it was given by name.
        let mut places: BTreeMap<String, (usize, bool)> = BTreeMap::new();
        for given in &envelope.recipients {
            let mut resolved = match asked_part(&self.plan, &given.address) {
                Some(_) => None,
                None => Some(plan.directory.resolve(&given.address, &mut |_| {})),
            };
            if let Some(r) = &mut resolved
                && r.copies.len() > 1
                && expansion.copies.len() + r.copies.len() > plan.directory.bounds.copies
            {
                let placed = Placed::Fault(Fault::Many);
                r.copies.truncate(1);
                r.copies.iter_mut().for_each(|c| (c.address, c.placed) = (given.address.clone(), placed));
                r.told = None;
            }
            found.extend(resolved.iter().flat_map(|r| faults(r).map(|why| (given.address.clone(), why))));
            self.copy(envelope, body, from, given, resolved, &mut expansion, &mut places);
        }
        found.into_iter().for_each(|(address, why)| self.tell_faults(&address, Some(why)));
        expansion
    }

    /// Adds what becomes of one recipient.
    #[expect(clippy::too_many_arguments, reason = "one step of a walk over an envelope")]
    fn copy(
        &self,
        envelope: &Envelope,
        body: &[u8],
        from: Option<&PeerName>,
        given: &Recipient,
        resolved: Option<Resolved<'_>>,
        expansion: &mut Expansion,
        places: &mut BTreeMap<String, (usize, bool)>,
    ) {
        let Some(Resolved { copies, told, .. }) = resolved else {
            let (decision, _) = self.decide(envelope, given);
            expansion.copies.push(Copied { recipient: given.clone(), decision, apart: Apart::default() });
            return;
        };
        let tell = told.map(|told| match told {
            Told::Expanded => Action::Expanded,
            Told::Delivered => Action::Delivered,
        });
        if copies.iter().any(|copy| copy.elsewhere) {
            let to: Vec<&str> = copies.iter().take(SHOWN).map(|copy| copy.address.as_str()).collect();
            let more = match copies.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            expansion.led.push((given.address.clone(), format!("{}{more}", to.join(", "))));
        }
        // A place in the envelope is kept only where one recipient stays one.
        expansion.changed |= copies.len() != 1;
        for copy in copies {
            expansion.changed |= copy.elsewhere;
            let key = copy.address.as_str().to_lowercase();
            let before = places.get(&key).copied();
            let mut recipient = Recipient { address: copy.address.clone(), ..given.clone() };
            if copy.elsewhere {
                recipient.orcpt = recipient.orcpt.or_else(|| orcpt(&given.address));
            }
            if copy.many {
                recipient.notify = without_success(recipient.notify);
            }
            if let Some((at, _)) = before.filter(|_| copy.elsewhere) {
                let earlier = expansion.copies.get_mut(at).filter(|c| c.apart.list.is_none() && copy.list.is_none());
                if let Some(earlier) = earlier {
                    asking_for_both(&mut earlier.recipient, &recipient);
                }
                continue;
            }
            let (mut decision, mut apart) = match copy.placed.refusal(&copy.address) {
                Some(Refusal { status, text }) => (Decision::Fail { status, text }, Apart::default()),
                None => self.decide(envelope, &recipient),
            };
            apart.untracked = copy.many || copy.list.is_some();
            if let Some(list) = copy.list
                && let Some(owner) = &list.owner
            {
                let name = Mailbox::new(list.address.to_string());
                if header::is_marked(body, "Delivered-To", name.as_str()) {
                    let text = format!("the list {name} has sent this message before");
                    decision = Decision::Fail { status: Status(5, 4, 6), text };
                } else {
                    (recipient.notify, recipient.orcpt) = (None, None);
                }
                apart.list = Some((name, owner.clone()));
            }
            if apart.list.is_none() {
                back(&mut decision, self.hop(&copy.address).as_ref(), from);
            }
            let mut copied = Copied { recipient, decision, apart };
            let by_alias = before.filter(|(_, direct)| !direct).map(|(at, _)| at);
            match by_alias.and_then(|at| expansion.copies.get_mut(at)) {
                // Given by name too: that counts for more.
                Some(earlier) => {
                    if earlier.apart.list.is_none() {
                        asking_for_both(&mut copied.recipient, &earlier.recipient);
                    }
                    *earlier = copied;
                }
                None => expansion.copies.push(copied),
            }
            places.insert(key, (by_alias.unwrap_or(expansion.copies.len() - 1), !copy.elsewhere));
        }
        expansion.told.extend(tell.filter(|a| dsn::wants(given.notify, *a)).map(|a| (given.clone(), a)));
    }

    /// The recipients as they stand, aliases or none.
    pub(super) fn as_they_stand(&self, envelope: &Envelope) -> Expansion {
        let copy = |recipient: &Recipient| {
            let (decision, apart) = self.decide(envelope, recipient);
            Copied { recipient: recipient.clone(), decision, apart }
        };
        Expansion { copies: envelope.recipients.iter().map(copy).collect(), ..Expansion::default() }
    }

    /// What becomes of a copy: where its address leads.
    fn decide(&self, envelope: &Envelope, recipient: &Recipient) -> (Decision, Apart) {
        let to = self.resolve(&recipient.address);
        if asked_part(&self.plan, &to).is_some() {
            return (Decision::Due { over_air: false }, Apart::default());
        }
        let placed = self.plan.directory.place(&to);
        if let Some(Refusal { status, text }) = placed.refusal(&to) {
            return (Decision::Fail { status, text }, Apart::default());
        }
        let Some(route) = placed.route() else { return (Decision::Due { over_air: false }, Apart::default()) };
        let asks = envelope.require_tls && envelope.from.is_some();
        let decision = match &route.hop {
            Hop::Hold => Decision::Held { why: "the route says hold".into() },
            hop if asks && !self.protects(hop, &route.bearers) => {
                Decision::Fail { status: UNPROTECTED.0, text: UNPROTECTED.1.into() }
            }
            Hop::Peer(_) => Decision::Due { over_air: true },
            Hop::Local | Hop::Smtp(_) | Hop::Smarthost(_) | Hop::Mx(_) | Hop::Lmtp(_) | Hop::Fetch => {
                Decision::Due { over_air: false }
            }
        };
        let (least, most, bearers) = (route.least, route.most, route.bearers.clone());
        (decision, Apart { least, most, bearers, ..Apart::default() })
    }

    fn tell_faults(&mut self, address: &Mailbox, why: Option<Fault>) {
        let why = match why {
            None => return,
            Some(Fault::Loop) => "loop",
            Some(Fault::Deep) => "alias_depth",
            Some(Fault::Many) => "copies",
        };
        self.event(Event::AliasRefused { address: address.to_string(), why: why.to_owned() });
    }
}

/// What must not go back to the neighbour that sent it (A8). A list's copies may: they are mail of its own.
fn back(decision: &mut Decision, hop: Option<&Hop>, from: Option<&PeerName>) {
    if let (Decision::Due { .. }, Some(Hop::Peer(peer)), Some(from)) = (&decision, hop, from)
        && peer == from
    {
        let text = format!("routing loop: {peer} sent it, and the route leads back there");
        *decision = Decision::Fail { status: Status(5, 4, 6), text };
    }
}

/// Makes one copy's requests for reports those of two recipients that lead to it: each gets the word it asked for (RFC 3461 4.1). Reports
/// name the recipient that asked for word of success, of two such the one that counts for more, which is `for_more`.
fn asking_for_both(for_more: &mut Recipient, other: &Recipient) {
    let (one, two) = (for_more.notify, other.notify);
    let wanted = |action| dsn::wants(one, action) || dsn::wants(two, action);
    let success = wanted(Action::Delivered);
    let merged = Notify { success, failure: wanted(Action::Failed), delay: wanted(Action::Delayed) };
    let asked_alone = !dsn::wants(one, Action::Delivered) && dsn::wants(two, Action::Delivered);
    if asked_alone || one == Some(Notify::NEVER) && merged != Notify::NEVER {
        for_more.orcpt = other.orcpt.clone().or_else(|| orcpt(&other.address));
    }
    // What nobody said is left to the next hop, unless more is wanted than that.
    let unsaid = (one.is_none() || two.is_none()) && !success;
    for_more.notify = if unsaid { None } else { Some(merged) };
}

fn faults(resolved: &Resolved<'_>) -> Option<Fault> {
    resolved.copies.iter().find_map(|copy| match copy.placed {
        Placed::Fault(fault) => Some(fault),
        Placed::Route(_)
        | Placed::NoMailbox(_)
        | Placed::Refused(_)
        | Placed::Unknown
        | Placed::NoRoute
        | Placed::NoDomain => None,
    })
}

/// ORCPT of an address that was given without one (RFC 3461 4.2); what only RFC 6533 could write there goes without.
pub(super) fn orcpt(address: &Mailbox) -> Option<String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '+' | '=');
    let xtext = |c: char| if plain(c) { c.to_string() } else { format!("+{:02X}", c as u32) };
    let text: String = address.as_str().chars().map(xtext).collect();
    (address.as_str().is_ascii() && text.len() <= 500).then(|| format!("rfc822;{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_recipients_of_one_copy_hear_what_each_asked_for() {
        let ask = |notify: &str, of: &str| Recipient {
            address: Mailbox::new("jack@x"),
            notify: Notify::parse(notify),
            orcpt: orcpt(&Mailbox::new(of)),
        };
        for (named, by_alias, notify, told) in [
            ("FAILURE", "SUCCESS", "SUCCESS,FAILURE", "captain"),
            ("", "SUCCESS", "SUCCESS,FAILURE,DELAY", "captain"),
            ("SUCCESS", "FAILURE", "SUCCESS,FAILURE", "jack"),
            ("SUCCESS", "SUCCESS,DELAY", "SUCCESS,DELAY", "jack"),
            ("NEVER", "FAILURE", "FAILURE", "captain"),
            ("NEVER", "", "", "captain"),
            ("NEVER", "NEVER", "NEVER", "jack"),
            ("", "NEVER", "", "jack"),
            ("DELAY", "", "", "jack"),
        ] {
            let mut copy = ask(named, "jack@x");
            asking_for_both(&mut copy, &ask(by_alias, "captain@x"));
            let wanted = Notify::parse(notify);
            assert_eq!(
                (copy.notify, copy.orcpt),
                (wanted, orcpt(&Mailbox::new(format!("{told}@x")))),
                "{named} {by_alias}"
            );
        }
    }

    #[test]
    fn an_original_recipient_is_written_as_xtext() {
        assert_eq!(orcpt(&Mailbox::new("a+b=c@x")).as_deref(), Some("rfc822;a+2Bb+3Dc@x"));
        assert_eq!(orcpt(&Mailbox::new("å@x")), None);
    }
}
