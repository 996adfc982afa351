//! Bodies that have just come in: most go on at once, and need not be read back from the store for it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::mail::BodyRef;
use crate::queue::{Batch, Change};

/// Bytes of bodies kept; of a larger one none is.
const MOST: usize = 1 << 20;

/// Bodies and their names.
pub(super) type Bodies = Vec<(BodyRef, Arc<[u8]>)>;

/// A body never changes, so what is kept here is what the store has.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    bodies: VecDeque<(BodyRef, Arc<[u8]>)>,
    bytes: usize,
}

impl Fresh {
    /// The bodies that a batch stores; to be kept once it is stored.
    pub(super) fn of(batch: &Batch) -> Bodies {
        let bodies = batch.changes.iter();
        bodies
            .filter_map(|c| if let Change::Body(body, bytes) = c { Some((*body, bytes.clone())) } else { None })
            .collect()
    }

    /// Keeps these; the oldest make room.
    pub(super) fn keep(&mut self, bodies: Bodies) {
        for (body, bytes) in bodies.into_iter().filter(|(_, bytes)| bytes.len() <= MOST) {
            self.bytes += bytes.len();
            self.bodies.push_back((body, bytes));
            while self.bytes > MOST
                && let Some((_, old)) = self.bodies.pop_front()
            {
                self.bytes -= old.len();
            }
        }
    }

    /// A body, if it is here. Whoever wants it again reads it: that is rare.
    pub(super) fn take(&mut self, body: BodyRef) -> Option<Arc<[u8]>> {
        // The one that came last is asked for most often.
        let at = self.bodies.iter().rposition(|(known, _)| *known == body)?;
        let (_, bytes) = self.bodies.remove(at)?;
        self.bytes -= bytes.len();
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(n: u64, length: usize) -> (BodyRef, Arc<[u8]>) {
        (BodyRef(n), vec![n as u8; length].into())
    }

    #[test]
    fn a_body_is_had_once_and_the_oldest_make_room() {
        let mut fresh = Fresh::default();
        fresh.keep(vec![body(1, MOST / 2), body(2, MOST / 4), body(3, MOST + 1), body(4, MOST / 2)]);
        assert_eq!(fresh.take(BodyRef(1)), None, "made room");
        assert_eq!(fresh.take(BodyRef(3)), None, "too large");
        assert_eq!(fresh.take(BodyRef(2)).map(|b| b.len()), Some(MOST / 4));
        assert_eq!(fresh.take(BodyRef(2)), None);
        assert_eq!(fresh.bytes, MOST / 2);
        fresh.keep(vec![body(5, MOST / 2)]);
        assert!(fresh.take(BodyRef(4)).is_some() && fresh.take(BodyRef(5)).is_some());
        assert_eq!((fresh.bytes, fresh.bodies.len()), (0, 0));
    }

    #[test]
    fn what_a_batch_stores_is_found() {
        let (one, bytes) = body(7, 10);
        let batch =
            Batch { conditions: vec![], changes: vec![Change::DropBody(BodyRef(6)), Change::Body(one, bytes.clone())] };
        assert_eq!(Fresh::of(&batch), [(one, bytes)]);
    }
}
