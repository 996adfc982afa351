//! Transfers on their way in, and when something is said of them.

use std::collections::BTreeSet;

use super::wire::{Standing, Symbols};
use crate::bearer::fec::Geometry;
use crate::bearer::serial::frame;
use crate::bearer::serial::incoming::{Partial, Stage};
use crate::time::Instant;

/// One transfer.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The first two bytes of the payload, once a datagram said them.
    pub mark: Option<u16>,
    /// What is held, and where it stands.
    pub partial: Partial,
    /// Symbols heard, since this receiver began to count.
    pub heard: u32,
    /// The index behind the last one heard.
    pub upto: u32,
    /// When a word is due though none was asked for.
    pub quiet_at: Option<Instant>,
    /// Words said unasked since something was heard.
    pub unasked: u32,
    /// For whom it is, as its sender said last.
    pub members: BTreeSet<u8>,
}

impl Incoming {
    pub fn new(geometry: Geometry, now: Instant) -> Self {
        Self {
            mark: None,
            partial: Partial::new(geometry, now),
            heard: 0,
            upto: 0,
            quiet_at: None,
            unasked: 0,
            members: BTreeSet::new(),
        }
    }

    /// Takes the symbols of a datagram; whether some were new.
    pub fn take(&mut self, now: Instant, symbols: &Symbols) -> bool {
        let count = symbols.symbols.len() as u32;
        self.heard = self.heard.saturating_add(count);
        self.upto = self.upto.max(symbols.index + count);
        self.partial.touched = now;
        self.mark = Some(symbols.mark);
        self.partial.rank = symbols.rank;
        self.members.clone_from(&symbols.members);
        let mut new = false;
        for (index, bytes) in (symbols.index..).zip(&symbols.symbols) {
            let q = Symbols::sequence(symbols.geometry, index);
            new |= self.partial.take(q as u16, bytes.clone(), false);
        }
        new
    }

    /// When the switch is asked again.
    pub fn later_at(&self) -> Option<Instant> {
        match self.partial.stage {
            Stage::Later(_, at) => Some(at),
            Stage::Filling | Stage::Gathering | Stage::Judged(_) | Stage::Ending(..) => None,
        }
    }

    /// What a report says of it.
    pub fn standing(&self) -> Standing {
        match (&self.partial.stage, self.partial.standing()) {
            (Stage::Filling, frame::Standing::Lacks(lack)) => {
                Standing::Lacks { heard: self.heard, upto: self.upto, lack }
            }
            _ => Standing::Whole,
        }
    }
}

/// Which place this station has among those that answer.
pub(super) fn place(members: &BTreeSet<u8>, own: u8) -> u32 {
    members.range(..own).count() as u32
}
