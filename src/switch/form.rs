//! In which form a message goes to a peer: whole, or without what a rule of the profile takes from it.
//!
//! A rule belongs to bearers, and which bearer carries a message is settled only when its payload is made ([`super::choice`]). So the
//! form is made that suits the bearer which would have it now, and goes on a bearer of that form; where none of these may carry it, the
//! next form is made. Frozen is frozen: a transfer that moves to another bearer later keeps its form (link-rules A1).

use std::sync::Arc;

use crate::codec::reduce::Reducer;
use crate::mail::{BearerId, Envelope, MessageId, PeerName, Precedence};
use crate::queue::MessageRecord;
use crate::time::Now;

use super::addresses::among;
use super::choice::first;
use super::predict::Load;
use super::{Reduction, Switch};

/// A rule by its place in the profile; `None`: the whole message.
pub(super) type Form = Option<usize>;

/// What an encoding may have to be tried again with.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The message.
    pub(super) body: Arc<[u8]>,
    /// The forms it was made in, the present one last.
    pub(super) tried: Vec<Form>,
}

impl Switch {
    /// The form in which a message goes over a bearer. Reports are never reduced.
    pub(super) fn form_on(&self, bearer: &BearerId, envelope: &Envelope, bytes: u64, level: Precedence) -> Form {
        envelope.from.as_ref()?;
        self.plan.reduce.iter().position(|r| r.applies(bearer, bytes, level))
    }

    /// The form to be made next for a peer; `None` once every bearer's was.
    pub(super) fn next_form(
        &self,
        now: Now,
        record: &MessageRecord,
        peer: &PeerName,
        level: Precedence,
        tried: &[Form],
    ) -> Option<Form> {
        let form = |name: &BearerId| self.form_on(name, &record.envelope, record.size_bytes, level);
        let net = self.nets.aldis_to(peer).map(|net| &net.plan.id);
        let only = self.only_for(record, peer);
        let serial = self.bearers_to(peer).map(|(name, _)| name).filter(|name| among(only, name));
        let mut open: Vec<Form> = serial.chain(net).map(form).collect();
        open.retain(|form| !tried.contains(form));
        let any = *open.first()?;
        if open.iter().all(|form| *form == any) {
            return Some(any);
        }
        // How big the copy will be nobody knows yet, so no bound speaks against a bearer.
        let load = Load { level, unbounded: true, ..self.load_to_come(record, peer) };
        let mut candidates = self.candidates(now, &self.gate, &load);
        candidates.retain(|c| !tried.contains(&form(&c.bearer)));
        Some(first(&candidates).map_or(any, |best| form(&best.bearer)))
    }

    /// What the encoder is to leave out.
    pub(super) fn reduction(&self, form: Form, id: MessageId) -> Option<Reduction> {
        let plan = self.plan.reduce.get(form?)?;
        let node = &self.plan.node;
        let ask_at = plan.fetch_by_mail.then(|| node.postmaster.domain().to_owned());
        let by = Reducer { host: node.hostname.clone(), id, ask_at };
        Some(Reduction { rule: plan.rule.clone(), by })
    }

    /// Whether a bearer may be left a message that would be too big for it as it is: its copy may be far smaller.
    pub(super) fn may_shrink(&self, bearer: &BearerId, bytes: u64, level: Precedence) -> bool {
        let applies = |r: &&crate::config::plan::ReducePlan| r.applies(bearer, bytes, level);
        self.plan.reduce.iter().find(applies).is_some_and(|r| r.cuts_deep())
    }
}
