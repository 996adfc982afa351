//! Mail whose sender wants it sent later (RFC 4865): which messages wait, for when, and how many of whose.
//!
//! Each is held in the store, with a setting of its own beside it, so that a restart knows them all without reading a message. The
//! setting goes with the commit that lets the message go, whoever does: its time, an operator, or the end of its life.

use std::collections::{BTreeMap, BTreeSet};

use crate::mail::{MessageId, Status};
use crate::queue::{Batch, Change, MessageRecord, MessageState};
use crate::smtp::Reply;
use crate::time::{Now, Wall};

use super::settle::Step;
use super::{Pending, Switch};

const PREFIX: &str = "future/";

/// What waits for its release.
#[derive(Debug, Default)]
pub(super) struct Futures {
    waiting: BTreeMap<MessageId, Waiting>,
    by_time: BTreeSet<(Wall, MessageId)>,
}

#[derive(Debug)]
struct Waiting {
    at: Wall,
    user: String,
}

impl Futures {
    /// Reads back what the store kept.
    pub(super) fn open(settings: &[(String, Vec<u8>)]) -> Self {
        let mut out = Self::default();
        for (name, value) in settings {
            out.stored(name, Some(value));
        }
        out
    }

    /// Follows a setting that has become durable.
    pub(super) fn stored(&mut self, name: &str, value: Option<&[u8]>) {
        let Some(message) = name.strip_prefix(PREFIX).and_then(MessageId::parse) else { return };
        self.forget(message);
        let text = value.and_then(|v| core::str::from_utf8(v).ok());
        let Some((at, user)) = text.and_then(|t| t.split_once(' ')) else { return };
        let Ok(at) = at.parse().map(Wall) else { return };
        self.by_time.insert((at, message));
        self.waiting.insert(message, Waiting { at, user: user.to_owned() });
    }

    fn forget(&mut self, message: MessageId) {
        if let Some(waiting) = self.waiting.remove(&message) {
            self.by_time.remove(&(waiting.at, message));
        }
    }

    fn of(&self, user: &str) -> usize {
        self.waiting.values().filter(|w| w.user == user).count()
    }

    /// When the next one is to go.
    pub(super) fn next(&self, now: Now) -> Option<Wall> {
        self.by_time.first().map(|(at, _)| *at).filter(|_| now.set)
    }

    /// Takes the next one whose time has come. It is counted until it has gone.
    fn take_due(&mut self, now: Now) -> Option<MessageId> {
        self.next(now).filter(|at| *at <= now.wall)?;
        self.by_time.pop_first().map(|(_, message)| message)
    }
}

pub(super) fn is_key(setting: &str) -> bool {
    setting.starts_with(PREFIX)
}

fn key(message: MessageId) -> String {
    format!("{PREFIX}{message}")
}

impl Switch {
    /// Why this user may hold no further message for later. RFC 4865 has codes of its own for it, which two other extensions took since.
    pub(super) fn too_many_futures(&self, user: Option<&str>) -> Option<Reply> {
        let limits = &self.plan.limits;
        if self.futures.of(user.unwrap_or_default()) >= limits.future_release_per_user {
            let text = format!("{} messages of yours wait for their release already", limits.future_release_per_user);
            return Some(Reply::new(552, Status(5, 2, 2), text));
        }
        (self.futures.waiting.len() >= limits.future_release)
            .then(|| Reply::new(552, Status(5, 3, 1), "too many messages wait for their release already"))
    }

    /// What is stored beside a message that waits. It counts from now on, so that many at once cannot pass the bounds together.
    pub(super) fn future_changes(&mut self, record: &MessageRecord, user: Option<&str>) -> Option<Change> {
        let release = record.release.filter(|_| record.state == MessageState::Held)?;
        let (name, value) = (key(record.id), format!("{} {}", release.at.0, user.unwrap_or_default()).into_bytes());
        self.futures.stored(&name, Some(&value));
        Some(Change::Setting(name, Some(value)))
    }

    /// Messages that did not become durable wait for nothing.
    pub(super) fn forget_futures(&mut self, records: &[MessageRecord]) {
        records.iter().for_each(|record| self.futures.forget(record.id));
    }

    /// Drops what is stored beside a message that waits no longer.
    pub(super) fn future_over(&self, record: &MessageRecord) -> Option<Change> {
        let over = record.state != MessageState::Held && self.futures.waiting.contains_key(&record.id);
        over.then(|| Change::Setting(key(record.id), None))
    }

    /// The message is gone, or was let go before: nothing waits.
    pub(super) fn forget_future(&mut self, message: MessageId) {
        if self.futures.waiting.contains_key(&message) {
            self.futures.forget(message);
            let changes = vec![Change::Setting(key(message), None)];
            self.commit(Batch { conditions: Vec::new(), changes }, Pending::Aside);
        }
    }

    /// Lets go whose time has come.
    pub(super) fn release_futures(&mut self, now: Now) {
        while let Some(message) = self.futures.take_due(now) {
            self.step(now, message, Step::LetGo);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    #[test]
    fn what_waits_is_known_again_after_a_restart_and_counted_by_user() {
        let settings = [
            ("future/0000001A", "2000 op1"),
            ("future/0000001B", "1000 op1"),
            ("future/0000001C", "3000 "),
            ("other", "x"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let mut futures = Futures::open(&settings);
        assert_eq!((futures.of("op1"), futures.of(""), futures.waiting.len()), (2, 1, 3));
        let now = |wall, set| Now { at: Instant::ZERO, wall: Wall(wall), set };
        assert_eq!((futures.next(now(0, true)), futures.next(now(0, false))), (Some(Wall(1000)), None));
        assert_eq!(futures.take_due(now(5000, false)), None);
        assert_eq!(futures.take_due(now(1000, true)), Some(MessageId(0x1b)));
        assert_eq!((futures.take_due(now(1000, true)), futures.of("op1")), (None, 2), "counted until it has gone");
        futures.stored("future/0000001B", None);
        futures.stored("future/0000001C", Some(b"damaged"));
        assert_eq!((futures.of("op1"), futures.waiting.len()), (1, 1));
    }
}
