//! Who vouches for mail that comes in: what a listener has checked, signed and sealed, and what becomes of it.
//!
//! Mail of strangers and of peers that are merely trusted is checked; mail of who has authenticated or is trusted is signed. A check
//! that cannot be done holds nothing up; a key that does not work keeps the mail with its sender.

use std::sync::Arc;

use crate::config::plan::ListenerPlan;
use crate::mail::{BodyKind, MessageId};
use crate::ops::Event;
use crate::queue::{Batch, Change, TrackEntry};
use crate::security::vet::{Signed, Vet, Vetted};
use crate::smtp::server::Answer;
use crate::smtp::{Reply, trace};
use crate::time::{Instant, Now};

use super::intake::Prepared;
use super::{Output, Switch, Work, WorkResult};
use crate::mail::Status;

impl Switch {
    /// What is to be done to a message of this listener before it is taken; `None`: nothing.
    pub(super) fn to_vet(
        &self,
        listener: &ListenerPlan,
        prepared: &Prepared,
        arrived: &Arc<[u8]>,
        sender: &str,
    ) -> Option<Work> {
        let wants = &listener.vetting;
        let authenticated = prepared.facts.user.is_some();
        let checks = if authenticated { Default::default() } else { wants.checks };
        let signs = wants.sign && (authenticated || prepared.trusted);
        // What a hop without BINARYMIME gets is another body: better no signature than mail that cannot go there.
        let signs = signs && prepared.envelope.body != BodyKind::BinaryMime;
        if !checks.any() && !signs {
            return None;
        }
        let named = |name: &String| self.plan.dkim.iter().find(|signer| signer.name == *name).cloned();
        Some(Work::Vet(Box::new(Vet {
            arrived: arrived.clone(),
            stored: prepared.body.clone(),
            client: prepared.facts.address,
            helo: prepared.facts.ehlo.clone(),
            sender: sender.to_owned(),
            checks,
            bounds: self.plan.checks.bounds,
            authserv_id: self.plan.checks.authserv_id.clone(),
            hostname: self.plan.node.hostname.clone(),
            signers: signs.then(|| self.plan.dkim.clone()),
            sealer: wants.seal.as_ref().filter(|_| checks.arc).and_then(named),
        })))
    }

    /// That work came back.
    pub(super) fn vetted(&mut self, now: Now, prepared: Prepared, since: Instant, result: WorkResult) {
        let WorkResult::Vetted(vetted) = result else {
            return self
                .turn_away(&prepared, Reply::new(451, Status(4, 3, 0), "mail cannot be checked now, try again later"));
        };
        self.tell_found(now, &prepared.listener, since, &vetted);
        if let Signed::Failed(why) = &vetted.signed {
            self.event(Event::SigningFailed { listener: prepared.listener.clone(), why: why.clone() });
            return self
                .turn_away(&prepared, Reply::new(451, Status(4, 3, 0), "mail cannot be signed now, try again later"));
        }
        let listener = self.plan.listeners.iter().find(|l| l.name == prepared.listener);
        let refusal = vetted.results.as_ref().and_then(|results| results.refusal.as_ref());
        if let Some(refusal) = refusal.filter(|_| listener.is_some_and(|l| l.vetting.dmarc_reject)) {
            let domain = refusal.domain().to_owned();
            self.event(Event::DmarcRefused { listener: prepared.listener.clone(), domain });
            return self.turn_away(&prepared, Reply::new(550, Status(5, 7, 26), refusal.text()));
        }
        self.admit(now, prepared, Some(&vetted));
    }

    fn turn_away(&mut self, prepared: &Prepared, reply: Reply) {
        let (session, ask) = (prepared.session, prepared.ask);
        self.outputs.push_back(Output::Answer { session, ask, answer: Answer::Refuse(reply) });
    }

    fn tell_found(&mut self, now: Now, listener: &str, since: Instant, vetted: &Vetted) {
        let listener = listener.to_owned();
        for bound in &vetted.bounded {
            self.event(Event::CheckBounded { listener: listener.clone(), bound: (*bound).to_owned() });
        }
        if vetted.skipped {
            self.event(Event::ChecksSkipped { listener: listener.clone() });
        }
        let Some(results) = &vetted.results else { return };
        let summary = results.summary();
        if results.incomplete() {
            self.event(Event::ChecksIncomplete { listener: listener.clone(), results: summary.clone() });
        }
        let took_ms = u64::try_from(now.at.since(since).as_millis()).unwrap_or(u64::MAX);
        self.event(Event::MailChecked { listener, results: summary, took_ms });
    }

    /// Notes in a message's history what was found and done, in the commit that takes it.
    pub(super) fn note_vetting(&mut self, now: Now, message: Option<MessageId>, vetted: &Vetted, batch: &mut Batch) {
        let Some(message) = message else { return };
        let line = |event: &str, detail: String| {
            let entry = TrackEntry {
                at: now.wall,
                event: event.into(),
                recipient: None,
                bearer: None,
                bytes_on_air: 0,
                air_s: 0.0,
                detail: Some(detail),
            };
            Change::Track(message, entry)
        };
        if let Some(results) = &vetted.results {
            batch.changes.push(line("checked", results.summary()));
        }
        if vetted.sealed {
            batch.changes.push(line("sealed", "the ARC chain goes on".into()));
            self.event(Event::ChainSealed { message });
        }
        match &vetted.signed {
            Signed::By(domain, count) => {
                let signatures = u32::try_from(*count).unwrap_or(u32::MAX);
                batch.changes.push(line("signed", format!("for {domain}")));
                self.event(Event::MessageSigned { message, domain: domain.clone(), signatures });
            }
            Signed::Not(why) => {
                batch.changes.push(line("unsigned", why.clone()));
                self.event(Event::MessageUnsigned { message, why: why.clone() });
            }
            Signed::Unasked | Signed::Failed(_) => {}
        }
    }

    /// A message without results that only this node could have found (RFC 8601 5), where it checks any mail.
    pub(super) fn without_our_results(&mut self, from: &str, message: Arc<[u8]>) -> Arc<[u8]> {
        if !self.plan.checks_mail() {
            return message;
        }
        let (rest, fields) = trace::strip_results(&message, &self.plan.checks.authserv_id);
        if fields == 0 {
            return message;
        }
        let rest: Arc<[u8]> = rest.into();
        let fields = u64::try_from(fields).unwrap_or(u64::MAX);
        self.event(Event::ResultsRemoved { from: from.to_owned(), fields });
        rest
    }
}
