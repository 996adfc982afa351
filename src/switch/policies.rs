//! MTA-STS policies of domains, kept in the store: whoever keeps a node from DNS and web server after a start must not thereby get its mail in
//! clear (RFC 8461 10.2).
//!
//! What was fetched comes with the result of a delivery ([`Note::Policy`](super::Note)) and is stored as a setting; who makes connections
//! is handed what was stored when the node starts.

use std::collections::BTreeMap;

use crate::ops::Event;
use crate::queue::{Batch, Change};
use crate::security::sts::{Mode, Stored};
use crate::time::{Now, Wall};

use super::{Pending, Switch};

/// What the names of such settings begin with; the domain follows.
const PREFIX: &str = "sts/";
/// Largest policy that is stored, as it is stored. A larger one is remembered until the node ends.
const MOST_BYTES: usize = 8 << 10;

/// The policies that are stored, by the names of their settings; `None`: it cannot be read, and goes with the next purge.
pub(super) type Policies = BTreeMap<String, Option<Stored>>;

/// The policies among the settings of a store.
pub fn kept(settings: &[(String, Vec<u8>)]) -> Vec<(String, Stored)> {
    let policy =
        |(name, value): &(String, Vec<u8>)| Some((name.strip_prefix(PREFIX)?.to_owned(), Stored::read(value)?));
    settings.iter().filter_map(policy).collect()
}

pub(super) fn open(settings: &[(String, Vec<u8>)]) -> Policies {
    let ours = settings.iter().filter(|(name, _)| name.starts_with(PREFIX));
    ours.map(|(name, value)| (name.clone(), Stored::read(value))).collect()
}

impl Switch {
    /// A policy was fetched.
    pub(super) fn keep_policy(&mut self, domain: &str, policy: &Stored) {
        let name = format!("{PREFIX}{domain}");
        let value = Some(policy.bytes()).filter(|_| policy.policy.mode != Mode::None);
        let fits = value.as_ref().is_none_or(|value| value.len() <= MOST_BYTES);
        let value = value.filter(|_| fits);
        let mut changes = Vec::new();
        if !fits {
            let (domain, what, count) = (domain.to_owned(), "policy".to_owned(), policy.bytes().len() as u64);
            self.event(Event::MxBounded { domain, what, count });
        }
        if value.is_some() && !self.policies.contains_key(&name) && self.policies.len() >= self.plan.mx.domains {
            let end = |stored: &Option<Stored>| stored.as_ref().map(|s| s.until.unwrap_or(Wall::NEVER));
            let first = self.policies.iter().min_by_key(|(_, stored)| end(stored)).map(|(name, _)| name.clone());
            changes
                .extend(first.inspect(|name| _ = self.policies.remove(name)).map(|name| Change::Setting(name, None)));
        }
        match &value {
            Some(_) => _ = self.policies.insert(name.clone(), Some(policy.clone())),
            None if self.policies.remove(&name).is_none() => return,
            None => {}
        }
        changes.push(Change::Setting(name, value));
        self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
    }

    /// Forgets policies whose time is over, and dates those that were fetched without a clock. Only while there is one.
    pub(super) fn purge_policies(&mut self, now: Now) {
        let mut changes = Vec::new();
        self.policies.retain(|name, stored| {
            let Some(kept) = stored.as_mut().filter(|stored| !stored.left(now).is_zero()) else {
                changes.push(Change::Setting(name.clone(), None));
                return false;
            };
            if kept.until.is_none() {
                kept.date(now);
                changes.push(Change::Setting(name.clone(), Some(kept.bytes())));
            }
            true
        });
        if !changes.is_empty() {
            self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::sts::Policy;
    use crate::time::Instant;

    #[test]
    fn policies_are_found_among_the_settings_and_what_is_none_is_to_be_purged() {
        let now = Now { at: Instant::ZERO, wall: Wall::from_seconds(1_800_000_000), set: true };
        let text = b"version: STSv1\nmode: enforce\nmx: mx.far.test\nmax_age: 60\n";
        let stored = Stored::new(now, "1", Policy::parse(text).expect("a policy"));
        let settings = [
            ("sts/far.test".to_owned(), stored.bytes()),
            ("sts/odd.test".to_owned(), vec![9]),
            ("other".to_owned(), vec![]),
        ];
        assert_eq!(kept(&settings), [("far.test".to_owned(), stored.clone())]);
        let known = open(&settings);
        assert_eq!(known, [("sts/far.test".to_owned(), Some(stored)), ("sts/odd.test".to_owned(), None)].into());
    }
}
