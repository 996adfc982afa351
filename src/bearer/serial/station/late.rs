//! Transfers that were given up unconfirmed: the peer's word on them is still taken, once (link-rules A4).
//!
//! The switch says which ([`Station::listen_for`]). That a report has accepted one is committed with that report, so that a restart
//! before the outcome is durable tells it again.

use super::super::frame::{Report, Standing};
use super::super::outgoing::short;
use super::Station;
use crate::bearer::Event;
use crate::mail::{PeerName, TransferId};
use crate::time::Duration;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Late {
    /// Whose word is waited for, and the id frames carry; `None` until the switch has said so after a start.
    of: Option<(u8, u16)>,
    /// A report has accepted it.
    told: bool,
}

impl Late {
    /// One that a report accepted before a restart.
    pub(super) fn told() -> Self {
        Self { of: None, told: true }
    }
}

impl Station {
    /// From now on a report that this peer has accepted a transfer is told, although it was given up.
    pub fn listen_for(&mut self, peer: &PeerName, id: &TransferId, lead: Option<u32>) {
        let Some(station) = self.peers.iter().find(|(_, p)| p.name == *peer).map(|(s, _)| *s) else { return };
        let of = Some((station, short(id.epoch, lead.unwrap_or(id.counter))));
        let told = self.late.get(id).is_some_and(|l| l.told);
        self.late.insert(id.clone(), Late { of, told });
        if told {
            self.tell_late(id.clone());
        }
    }

    /// Its outcome is durable, or nobody remembers it any more.
    pub fn listen_no_more(&mut self, id: &TransferId) {
        if self.late.remove(id).is_some_and(|l| l.told) {
            self.forget(vec![(late_key(id), None)]);
        }
    }

    /// Those a report accepts. A number that a live transfer carries again is about that one, not about the one given up.
    fn accepted_late(&self, station: u8, report: &Report) -> Vec<TransferId> {
        let accepts = |number: u16| report.standings.iter().any(|(s, to)| *s == number && *to == Standing::Accepted);
        let live = |number: u16| self.outgoing.values().any(|t| t.station == station && t.short() == number);
        let ours = |(id, late): &(&TransferId, &Late)| {
            id.epoch == self.config.epoch
                && late.of.is_some_and(|(s, number)| s == station && !late.told && accepts(number) && !live(number))
        };
        self.late.iter().filter(ours).map(|(id, _)| id.clone()).collect()
    }

    /// What a report that accepts some of them has to be stored with.
    pub(super) fn late_puts(&self, station: u8, report: &Report) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.accepted_late(station, report).iter().map(|id| (late_key(id), Some(Vec::new()))).collect()
    }

    /// A stored report accepts some of them.
    pub(super) fn confirm_late(&mut self, station: u8, report: &Report) {
        for id in self.accepted_late(station, report) {
            if let Some(late) = self.late.get_mut(&id) {
                late.told = true;
            }
            self.tell_late(id);
        }
    }

    fn tell_late(&mut self, id: TransferId) {
        self.events.push_back(Event::Confirmed { id, bytes_on_air: 0, air: Duration::ZERO });
    }
}

fn late_key(id: &TransferId) -> Vec<u8> {
    [&b"l"[..], &id.epoch.to_be_bytes(), &id.counter.to_be_bytes()].concat()
}
