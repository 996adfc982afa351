//! Which numbers have been used: message ids, body refs, and the transfer counters of the store's epoch.
//!
//! The switch owns an [`Ids`]; the engine gives a store its epoch, and writes the first reservation with it. From then on the
//! reservation is never absent: a store in which it cannot be read does not know what it has used, and gets another epoch (A2, C1).

use super::store::{Batch, Change, Opened};
use crate::mail::{BodyRef, MessageId};

/// Ids are reserved on disk this many at a time, ahead of use.
pub const RESERVATION: u64 = 1024;

/// Allocator of message ids, body refs and transfer counters: never the same twice, whatever is lost.
///
/// A batch that uses an id above the durable reservation carries the next reservation itself ([`Ids::cover`]), so no order of
/// commits, conflicts and crashes lets an id exist durably above its reservation; after a restart counting goes on above it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ids {
    next: Counters,
    durable: Counters,
}

/// The numbers below these may have been used; the transfer counters are those of `epoch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counters {
    pub(super) message: u64,
    pub(super) body: u64,
    pub(super) epoch: u32,
    pub(super) transfer: u64,
}

impl Counters {
    /// The value of the setting: a version octet and four big-endian numbers.
    fn encode(self) -> Vec<u8> {
        let mut out = vec![2];
        for n in [self.message, self.body, u64::from(self.epoch), self.transfer] {
            out.extend_from_slice(&n.to_be_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (numbers, []) = rest.as_chunks::<8>() else { return None };
        let [message, body, epoch, transfer] = numbers else { return None };
        let epoch = u32::try_from(u64::from_be_bytes(*epoch)).ok()?;
        (*version == 2).then(|| Self {
            message: u64::from_be_bytes(*message),
            body: u64::from_be_bytes(*body),
            epoch,
            transfer: u64::from_be_bytes(*transfer),
        })
    }

    /// What the settings of a store say, if they can be read.
    pub(super) fn stored(settings: &[(String, Vec<u8>)]) -> Option<Self> {
        settings.iter().find(|(name, _)| name == Ids::SETTING).and_then(|(_, value)| Self::decode(value))
    }

    /// As a setting.
    pub(super) fn setting(self) -> (String, Vec<u8>) {
        (Ids::SETTING.to_owned(), self.encode())
    }

    /// The same with the transfer counters of another epoch, of which none has been used.
    pub(super) fn in_epoch(self, epoch: u32) -> Self {
        if epoch == self.epoch { self } else { Self { epoch, transfer: 0, ..self } }
    }

    fn max(self, other: Self) -> Self {
        Self {
            message: self.message.max(other.message),
            body: self.body.max(other.body),
            epoch: self.epoch,
            // Counters of another epoch say nothing about this one's.
            transfer: if self.epoch == other.epoch { self.transfer.max(other.transfer) } else { self.transfer },
        }
    }
}

impl Ids {
    /// Name of the setting that holds the reservation.
    pub const SETTING: &str = "ids.reserved";

    /// Starts above everything an earlier run may have used.
    pub fn open(opened: &Opened) -> Self {
        let epoch = opened.epoch;
        let none = Counters { message: 1, body: 1, epoch, transfer: 0 };
        let reserved = Counters::stored(&opened.settings).unwrap_or(none).in_epoch(epoch);
        let of_epoch = opened.transfers.iter().filter(|t| t.id.epoch == epoch);
        let start = reserved.max(Counters {
            message: opened.next_message,
            body: opened.next_body,
            epoch,
            transfer: of_epoch.map(|t| u64::from(t.id.counter) + 1).max().unwrap_or(0),
        });
        Self { next: start, durable: start }
    }

    /// The id the next [`accept()`](super::accept()) will give, for the trace field that is written first.
    pub const fn upcoming(&self) -> MessageId {
        MessageId(self.next.message)
    }

    /// A new message id. The batch that uses it must take [`Ids::cover`] along.
    pub const fn message(&mut self) -> MessageId {
        self.next.message += 1;
        MessageId(self.next.message - 1)
    }

    /// A new body ref. The batch that uses it must take [`Ids::cover`] along.
    pub const fn body(&mut self) -> BodyRef {
        self.next.body += 1;
        BodyRef(self.next.body - 1)
    }

    /// A new transfer counter; `None` when this epoch has used them all and the store needs a new epoch.
    /// The batch that uses it must take [`Ids::cover`] along.
    pub fn transfer(&mut self) -> Option<u32> {
        let counter = u32::try_from(self.next.transfer).ok()?;
        self.next.transfer += 1;
        Some(counter)
    }

    /// The highest transfer counter of the epoch that may have been used; 0 while none has, which nobody can tell from the first.
    pub fn highest_transfer(&self) -> u32 {
        u32::try_from(self.next.transfer.saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The reservation this batch must carry, if the ids taken so far go beyond the durable one.
    #[must_use]
    pub fn cover(&self) -> Option<Change> {
        let covered = self.durable.max(self.next) == self.durable;
        (!covered).then(|| {
            let ahead = Counters {
                message: self.next.message + RESERVATION,
                body: self.next.body + RESERVATION,
                // Not one more than was taken: frames carry twelve bits of this number, and a gap at every restart would soon
                // make a transfer that is still waiting look like a new one.
                ..self.next
            };
            let (name, value) = ahead.setting();
            Change::Setting(name, Some(value))
        })
    }

    /// Tells that a batch has become durable. Left out, every later batch carries a reservation: correct, only larger.
    pub fn committed(&mut self, batch: &Batch) {
        for change in &batch.changes {
            if let Change::Setting(name, Some(value)) = change
                && name == Self::SETTING
                && let Some(reserved) = Counters::decode(value)
            {
                self.durable = self.durable.max(reserved);
            }
        }
    }

    /// Goes on in another epoch, once it is durable: its transfer counters start anew. Reservations of the old one that are still
    /// on their way to the store say nothing about it, because they name theirs.
    pub fn renewed(&mut self, epoch: u32) {
        self.next = self.next.in_epoch(epoch);
        self.durable = self.durable.in_epoch(epoch);
    }
}

/// An epoch for a store that had `old`, made of a random number: never 0, and not the same low four bits, which are what frames
/// carry of it.
pub fn another_epoch(old: Option<u32>, random: u32) -> u32 {
    let other = |epoch: &u32| *epoch != 0 && old.is_none_or(|old| old & 0xF != epoch & 0xF);
    // Of three numbers with different low bits at most one is 0 and at most one is like the old one.
    [random, random ^ 1, random ^ 2].into_iter().find(other).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::MessageId;

    #[test]
    fn ids_start_above_the_reservation_after_a_restart() {
        let mut ids = Ids::open(&Opened::default());
        let first = ids.message();
        let cover = ids.cover().expect("a reservation");
        let Change::Setting(name, Some(value)) = cover.clone() else { panic!("a setting") };
        ids.committed(&Batch { conditions: vec![], changes: vec![cover] });
        let mut last = first;
        for _ in 0..RESERVATION {
            last = ids.message();
        }
        assert_eq!(ids.cover(), None, "all of a reservation is usable");
        let opened = Opened { settings: vec![(name, value)], ..Opened::default() };
        assert!(Ids::open(&opened).message() > last);
        ids.message();
        assert!(ids.cover().is_some());
        let damaged = Opened { settings: vec![(Ids::SETTING.into(), vec![9])], next_message: 77, ..Opened::default() };
        assert_eq!(Ids::open(&damaged).message(), MessageId(77));
    }

    #[test]
    fn a_restart_leaves_no_gap_in_the_transfer_counters() {
        let mut opened = Opened::default();
        for counter in 0..5 {
            let mut ids = Ids::open(&opened);
            assert_eq!(ids.transfer(), Some(counter));
            let Some(Change::Setting(name, Some(value))) = ids.cover() else { panic!("a counter goes with its batch") };
            opened.settings = vec![(name, value)];
        }
    }

    #[test]
    fn transfer_counters_end_with_their_epoch() {
        let used = Counters { message: 1, body: 1, epoch: 0, transfer: u64::from(u32::MAX) };
        let mut ids = Ids::open(&Opened { settings: vec![used.setting()], ..Opened::default() });
        assert_eq!(ids.transfer(), Some(u32::MAX));
        assert_eq!(ids.transfer(), None);
        ids.renewed(5);
        assert_eq!(ids.transfer(), Some(0));
    }

    #[test]
    fn reservations_of_an_old_epoch_do_not_count_in_the_new_one() {
        let mut ids = Ids::open(&Opened { epoch: 3, ..Opened::default() });
        (0..9).for_each(|_| _ = ids.transfer());
        let late = ids.cover().expect("a reservation");
        ids.renewed(4);
        ids.committed(&Batch { conditions: vec![], changes: vec![late.clone()] });
        assert_eq!(ids.transfer(), Some(0));
        let Some(Change::Setting(name, Some(value))) = ids.cover() else { panic!("the first counter must be covered") };
        let Change::Setting(_, Some(old)) = late else { panic!("a setting") };
        for (value, next) in [(value, 1), (old, 0)] {
            let opened = Opened { epoch: 4, settings: vec![(name.clone(), value)], ..Opened::default() };
            assert_eq!(Ids::open(&opened).transfer(), Some(next));
        }
    }

    #[test]
    fn another_epoch_differs_where_frames_show_it() {
        for old in (0..40).map(Some).chain([None]) {
            for random in 0..40 {
                let epoch = another_epoch(old, random);
                assert!(epoch != 0 && old.is_none_or(|old| old & 0xF != epoch & 0xF), "{old:?} {random}");
            }
        }
        assert_eq!(another_epoch(Some(0x1234), 0x5678), 0x5678);
    }
}
