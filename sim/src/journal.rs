//! What the air saw, block by block: who radiated when and with what, and what every receiver made of it.
//!
//! [`Ether`](crate::ether::Ether) writes it, and only after [`Ether::keep_journal`](crate::ether::Ether::keep_journal): a run that
//! nobody will look at keeps nothing. It holds what left the antennas and not what it means; [`crate::output`] reads it.

use std::collections::BTreeMap;

use aldis::time::Instant;

use crate::ether::StationId;
use crate::waveform::Waveform;

/// What became of one block at one receiver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// Every byte came out whole.
    Good,
    /// The path damaged or deleted some of it.
    Damaged,
    /// Another carrier ruined it.
    Collided,
    /// The receiver was not synchronised: preamble not recognised, path gone, or another carrier taken instead.
    Missed,
    /// The receiver was radiating itself, or deaf.
    Deaf,
}

/// One carrier, from its first symbol to its last.
#[derive(Clone, PartialEq, Debug)]
pub struct Transmission {
    /// Whose.
    pub station: StationId,
    /// Its number at that station.
    pub number: u64,
    /// With what.
    pub waveform: Waveform,
    /// First symbol.
    pub on: Instant,
    /// Last symbol; `None` while it radiates.
    pub off: Option<Instant>,
    /// False when it was cut off and so has no end-of-message pattern.
    pub whole: bool,
    /// What its finished blocks carried, in order, padding included.
    pub bytes: Vec<u8>,
    /// End of each finished block, and how many of `bytes` were out by then.
    pub blocks: Vec<(Instant, usize)>,
}

/// One block at one receiver.
#[derive(Clone, PartialEq, Debug)]
pub struct Reception {
    /// Who sent it.
    pub from: StationId,
    /// Who was to hear it.
    pub to: StationId,
    /// In which of the sender's transmissions.
    pub number: u64,
    /// Which block of it, from 0.
    pub block: usize,
    /// When its end arrived.
    pub at: Instant,
    /// What became of it.
    pub outcome: Outcome,
    /// Effective signal-to-noise ratio over the block, where the path has one.
    pub snr_db: Option<f64>,
    /// What the receiver's modem handed out, when that is not what was sent.
    pub instead: Option<Vec<u8>>,
}

/// All carriers and all receptions, each in order of time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Journal {
    /// Every carrier.
    pub transmissions: Vec<Transmission>,
    /// Every block at every receiver that has a path to its sender.
    pub receptions: Vec<Reception>,
    /// The carrier of each station that radiates or radiated last.
    last: BTreeMap<StationId, usize>,
    /// The transmission that arrives on each path, and its next block.
    next: BTreeMap<(StationId, StationId), (u64, usize)>,
}

impl Journal {
    /// A carrier begins.
    pub(crate) fn begins(&mut self, at: Instant, station: StationId, number: u64, waveform: Waveform) {
        self.last.insert(station, self.transmissions.len());
        self.transmissions.push(Transmission {
            station,
            number,
            waveform,
            on: at,
            off: None,
            whole: false,
            bytes: Vec::new(),
            blocks: Vec::new(),
        });
    }

    /// A block went out whole.
    pub(crate) fn carries(&mut self, at: Instant, station: StationId, bytes: &[u8]) {
        if let Some(carrier) = self.last.get(&station).and_then(|&i| self.transmissions.get_mut(i)) {
            carrier.bytes.extend_from_slice(bytes);
            carrier.blocks.push((at, carrier.bytes.len()));
        }
    }

    /// A carrier goes.
    pub(crate) fn ends(&mut self, at: Instant, station: StationId, whole: bool) {
        if let Some(carrier) = self.last.get(&station).and_then(|&i| self.transmissions.get_mut(i)) {
            (carrier.off, carrier.whole) = (Some(at), whole);
        }
    }

    /// The next block of a transmission comes past a receiver. `came` is what its modem hands out, where it hands out anything.
    pub(crate) fn arrives(
        &mut self,
        at: Instant,
        (from, to, number): (StationId, StationId, u64),
        outcome: Outcome,
        came: Option<(&[u8], Option<f64>)>,
    ) {
        let next = self.next.entry((from, to)).or_default();
        if next.0 != number {
            *next = (number, 0);
        }
        let block = next.1;
        next.1 += 1;
        let snr_db = came.and_then(|(_, snr)| snr);
        let instead = came.filter(|_| outcome != Outcome::Good).map(|(bytes, _)| bytes.to_vec());
        self.receptions.push(Reception { from, to, number, block, at, outcome, snr_db, instead });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Loss;
    use crate::ether::{Ether, EtherConfig, LinkConfig};
    use crate::modem::ModemConfig;

    const A: StationId = StationId(0);
    const B: StationId = StationId(1);
    const C: StationId = StationId(2);

    #[test]
    fn a_clean_transmission_is_noted_once_and_received_good_by_everyone() {
        let mut ether = net(Loss::Ideal);
        say(&mut ether, 0, A, 400);
        ether.handle_timeout(Instant::from_millis(60_000));
        let journal = ether.journal().expect("kept");
        let [t] = journal.transmissions.as_slice() else { panic!("{journal:?}") };
        assert_eq!((t.station, t.number, t.whole, t.bytes.len()), (A, 0, true, 400));
        assert_eq!(t.blocks.iter().map(|b| b.1).collect::<Vec<_>>(), [180, 360, 400]);
        assert_eq!(t.off, t.blocks.last().map(|b| b.0));
        assert_eq!(journal.receptions.len(), 6);
        assert!(journal.receptions.iter().all(|r| r.outcome == Outcome::Good && r.instead.is_none()));
        let blocks: Vec<usize> = journal.receptions.iter().filter(|r| r.to == C).map(|r| r.block).collect();
        assert_eq!(blocks, [0, 1, 2]);
    }

    #[test]
    fn carriers_that_meet_are_collided_at_the_third_and_unheard_by_each_other() {
        let mut ether = net(Loss::Ideal);
        say(&mut ether, 0, A, 400);
        say(&mut ether, 10, B, 400);
        ether.handle_timeout(Instant::from_millis(60_000));
        let journal = ether.journal().expect("kept");
        assert_eq!(journal.transmissions.len(), 2);
        let outcomes = |from, to| -> Vec<Outcome> {
            journal.receptions.iter().filter(|r| (r.from, r.to) == (from, to)).map(|r| r.outcome).collect()
        };
        assert!(outcomes(A, B).iter().all(|o| *o == Outcome::Deaf), "{:?}", outcomes(A, B));
        assert!(outcomes(A, C).contains(&Outcome::Collided), "{:?}", outcomes(A, C));
    }

    #[test]
    fn damage_is_kept_as_it_came_and_nothing_is_kept_unasked() {
        let mut ether = net(Loss::Blocks { p: 1.0 });
        say(&mut ether, 0, A, 100);
        ether.handle_timeout(Instant::from_millis(60_000));
        let journal = ether.journal().expect("kept");
        let r = &journal.receptions[0];
        assert_eq!((r.outcome, r.instead.as_ref().map(Vec::len)), (Outcome::Damaged, Some(100)));
        assert_ne!(r.instead.as_deref(), Some(&journal.transmissions[0].bytes[..]));
        assert!(Ether::new(config(Loss::Ideal)).journal().is_none());
    }

    fn config(loss: Loss) -> EtherConfig {
        let modem = ModemConfig {
            waits_for_carrier: false,
            ..ModemConfig::new(*crate::waveform::Waveform::find(2400, "S").expect("known"))
        };
        EtherConfig::net(1, 3, &modem, LinkConfig { loss, ..LinkConfig::default() })
    }

    fn net(loss: Loss) -> Ether {
        let mut ether = Ether::new(config(loss));
        ether.keep_journal();
        ether
    }

    fn say(ether: &mut Ether, at_ms: u64, who: StationId, bytes: usize) {
        let at = Instant::from_millis(at_ms);
        ether.open_port(at, who, false);
        ether.key(at, who);
        ether.feed(at, who, &vec![7; bytes]);
        ether.unkey(at, who);
    }
}
