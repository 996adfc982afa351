//! A transfer on its way out: which symbols have left, which the far side lacks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::frame::{CHUNK_SYMBOLS, Chunk};
use crate::bearer::Transfer;
use crate::bearer::fec::Geometry;
use crate::time::{Duration, Instant};

/// What survives a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OutgoingRecord {
    /// Symbols at or beyond this row have never left.
    pub reserved: u32,
    /// Epoch of the receiver whose word `lack` is; 0 before the first report.
    pub peer_epoch: u32,
    /// Sequence number of that report.
    pub report: u32,
    /// Symbols missing there, per code block; empty before the first report.
    pub lack: Vec<u8>,
    /// Windows in which it was sent to a silent peer since its last word.
    pub windows: u32,
    /// Symbols that have left in the window after those.
    pub sent: u32,
}

impl OutgoingRecord {
    /// Reads a stored record. One of before windows were counted ends before them, and had none.
    pub fn read(value: &[u8]) -> Option<Self> {
        postcard::from_bytes(value).or_else(|_| postcard::from_bytes(&[value, &[0, 0]].concat())).ok()
    }
}

/// What a station does for a transfer that several bearers of its node may carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Carries it.
    Carry,
    /// Asks whether the peer is there, and sends nothing of it: another bearer carries it.
    Ask,
    /// Only listens for what the peer says of it.
    Rest,
}

/// How far a transfer has come on one bearer, for another to go on from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headway {
    /// The first row of symbols that has not left.
    pub row: u32,
    /// Something of it has left.
    pub sent: bool,
    /// Nothing has left that no report has spoken of.
    pub sure: bool,
    /// Epoch of the receiver whose word `lack` is; 0 before the first.
    pub epoch: u32,
    /// Symbols missing there, per block.
    pub lack: Vec<u8>,
}

impl Headway {
    /// What is known by both.
    pub fn joined(mut self, other: Self) -> Self {
        if self.epoch == other.epoch && self.lack.len() == other.lack.len() {
            self.lack.iter_mut().zip(&other.lack).for_each(|(a, b)| *a = (*a).min(*b));
        } else if self.epoch == 0 {
            (self.epoch, self.lack) = (other.epoch, other.lack);
        }
        Self { row: self.row.max(other.row), sent: self.sent || other.sent, sure: self.sure && other.sure, ..self }
    }
}

/// One transfer.
#[derive(Debug)]
pub struct Outgoing {
    /// What is carried.
    pub transfer: Transfer,
    /// To which station.
    pub station: u8,
    /// How it is cut.
    pub geometry: Geometry,
    /// Its symbols, once made.
    pub symbols: Option<Arc<Vec<Vec<u8>>>>,
    /// What this station does for it.
    pub role: Role,
    /// What is committed.
    pub record: OutgoingRecord,
    /// A commit of more rows is under way.
    pub reserving: bool,
    /// The highest row a commit was asked for, done or not.
    pub asked_rows: u32,
    /// Symbols missing there as far as known, per block.
    pub lack: Vec<u32>,
    /// Symbols that left after its last word, per block; `None` while that is not known, as after a restart.
    since: Option<Vec<u32>>,
    /// Symbols this transmission still means to send, per block; below zero when more than meant have left.
    pub owed: Vec<i64>,
    /// Symbols left that no report has spoken of: ask before sending more.
    pub unsure: bool,
    /// Not a symbol of it has ever left: a far side that has heard of it speaks of another one under the same id.
    pub unsent: bool,
    /// Whole there but not judged: leave it alone until then.
    pub not_before: Option<Instant>,
    /// When it last had its share, for taking turns inside a precedence.
    pub turn: u64,
    /// Bytes it was served of its present share.
    pub served: usize,
    /// Bytes on the air so far.
    pub bytes: u64,
    /// Share of key-down time so far.
    pub air: Duration,
    /// Symbols sent again because every index was spent.
    pub repeats: u64,
    /// Symbols that have left in the present window, where the peer is silent.
    pub sent: u32,
    rows: Vec<u32>,
}

impl Outgoing {
    /// A transfer, fresh or as it was left.
    pub fn new(transfer: Transfer, station: u8, geometry: Geometry, record: OutgoingRecord) -> Self {
        let blocks = geometry.blocks() as usize;
        let lack = told(geometry, &record);
        Self {
            since: (record.reserved == 0).then(|| vec![0; blocks]),
            unsure: record.reserved > 0,
            unsent: record.reserved == 0,
            rows: vec![record.reserved; blocks],
            owed: vec![0; blocks],
            lack,
            sent: record.sent,
            transfer,
            station,
            geometry,
            role: Role::Carry,
            symbols: None,
            record,
            reserving: false,
            asked_rows: 0,
            not_before: None,
            turn: 0,
            served: 0,
            bytes: 0,
            air: Duration::ZERO,
            repeats: 0,
        }
    }

    /// The id frames carry.
    pub fn short(&self) -> u16 {
        short(self.transfer.id.epoch, self.transfer.lead.unwrap_or(self.transfer.id.counter))
    }

    /// What it shares with the transfers that carry the same payload to other stations.
    pub fn group(&self) -> Option<(u32, u32)> {
        Some((self.transfer.id.epoch, self.transfer.lead?))
    }

    /// Rows used so far, by block.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Goes on where the furthest of its group is.
    pub fn align(&mut self, rows: &[u32]) {
        if rows.len() == self.rows.len() {
            rows.clone_into(&mut self.rows);
        }
    }

    /// Symbols have left for this one too, by way of another transfer of its group whose rows stood at `before`.
    pub fn mirror(&mut self, before: &[u32], now: &[u32]) {
        for (owed, (before, now)) in self.owed.iter_mut().zip(before.iter().zip(now)) {
            *owed -= i64::from(now.saturating_sub(*before));
            self.sent += now.saturating_sub(*before);
            self.repeats += u64::from(now.saturating_sub(self.geometry.rows().max(*before)));
        }
        for (since, (before, now)) in self.since.iter_mut().flatten().zip(before.iter().zip(now)) {
            *since += now.saturating_sub(*before);
        }
        now.clone_into(&mut self.rows);
        self.unsent = false;
    }

    /// Symbols missing there.
    pub fn missing(&self) -> u32 {
        self.lack.iter().sum()
    }

    /// How far it has come here.
    pub fn headway(&self) -> Headway {
        let lack = if self.record.peer_epoch == 0 { Vec::new() } else { self.lack.iter().map(|l| *l as u8).collect() };
        Headway { row: self.next_row(), sent: !self.unsent, sure: !self.unsure, epoch: self.record.peer_epoch, lack }
    }

    /// Goes on from where another bearer has brought it: with symbols that have not left, for what is missing.
    pub fn go_on(&mut self, from: &Headway) {
        self.rows.iter_mut().for_each(|row| *row = (*row).max(from.row));
        self.unsent &= !from.sent;
        if from.sent {
            // How much of that has left since the last word is not known here.
            self.since = None;
        }
        self.learn(from.epoch, &from.lack);
    }

    /// What the far side said it lacks, over another bearer.
    pub fn learn(&mut self, epoch: u32, lack: &[u8]) {
        let same = self.record.peer_epoch == epoch || self.record.peer_epoch == 0;
        if epoch == 0 || !same || lack.len() != self.lack.len() {
            return;
        }
        self.record.peer_epoch = epoch;
        self.lack.iter_mut().zip(lack).for_each(|(known, said)| *known = (*known).min(u32::from(*said)));
        self.record.lack = self.lack.iter().map(|l| *l as u8).collect();
        // Whole there; the verdict may be still out, and nobody else asks for it.
        self.unsure |= self.missing() == 0;
    }

    /// The far side said what it lacks, and that word is in the record.
    pub fn recount(&mut self) {
        self.lack = told(self.geometry, &self.record);
        self.since = Some(vec![0; self.rows.len()]);
        // What it lacks goes in windows of its own, where it is silent again.
        (self.record.windows, self.record.sent, self.sent) = (0, 0, 0);
    }

    /// Whether it is known how much has left since the last word.
    pub fn counts_what_left(&self) -> bool {
        self.since.is_some()
    }

    /// Whether something may have left that its peer has not spoken of.
    pub fn unspoken(&self) -> bool {
        self.missing() == 0 || self.since.as_ref().is_none_or(|left| left.iter().any(|n| *n > 0))
    }

    /// Symbols that have never left.
    pub fn unused(&self) -> u32 {
        self.rows.iter().map(|row| self.geometry.rows().saturating_sub(*row)).sum()
    }

    /// Supposes that of what has left since the last word the share `arriving` is there. Gives the symbols still missing then: 0 when
    /// nothing can be supposed, or nothing would be left to send.
    pub fn suppose(&mut self, arriving: f64) -> u32 {
        let Some(since) = self.since.as_ref().filter(|_| !self.unsent) else { return 0 };
        let left = |(lack, sent): (u32, &u32)| lack.saturating_sub((f64::from(*sent) * arriving) as u32);
        let lack: Vec<u32> = told(self.geometry, &self.record).into_iter().zip(since).map(left).collect();
        let missing = lack.iter().sum();
        if missing > 0 {
            self.lack = lack;
        }
        missing
    }

    /// The far side has not spoken of it: what was supposed counts no longer.
    pub fn doubt(&mut self) {
        self.lack = told(self.geometry, &self.record);
    }

    /// Nothing is known of it there any more.
    pub fn forget_reports(&mut self) {
        self.record.lack.clear();
        self.recount();
        self.unsure = false;
        self.not_before = None;
    }

    /// Means to send `total` symbols in this transmission, shared out as they are missing.
    pub fn owe(&mut self, total: u32) {
        let missing = self.missing().max(1);
        for (owed, lack) in self.owed.iter_mut().zip(&self.lack) {
            *owed = (u64::from(total) * u64::from(*lack)).div_ceil(u64::from(missing)) as i64;
        }
        // After uneven repairs the blocks' next rows have drifted apart, which would cut runs short.
        let (low, high) = (self.rows.iter().min().copied(), self.rows.iter().max().copied());
        if let (Some(low), Some(high)) = (low, high)
            && high - low > 1
            && high - low < 16
        {
            self.rows.fill(high);
        }
    }

    /// Symbols still meant to be sent.
    pub fn outstanding(&self) -> u64 {
        self.owed.iter().zip(&self.lack).filter(|(o, l)| **o > 0 && **l > 0).map(|(o, _)| *o as u64).sum()
    }

    /// Bytes of those on the air.
    pub fn outstanding_bytes(&self) -> u64 {
        self.outstanding() * self.geometry.symbol_bytes() as u64
    }

    /// The first row that no symbol has used.
    pub fn next_row(&self) -> u32 {
        self.rows.iter().max().copied().unwrap_or(0)
    }

    /// The length of the next symbol, if one may leave.
    pub fn next_bytes(&self) -> Option<usize> {
        self.symbols.as_ref()?;
        let block = self.best_block()?;
        Some(self.geometry.air_bytes(self.sequence(self.rows[block], block as u32)))
    }

    /// Takes the next symbols that fit into `room` bytes. With `limit` it stops when what was owed has left.
    pub fn take(&mut self, mut room: usize, limit: bool) -> Option<Chunk> {
        let symbols = self.symbols.clone()?;
        let mut block = self.best_block()?;
        let blocks = self.rows.len();
        let mut row = self.rows[block];
        let first = self.sequence(row, block as u32);
        let mut taken: Vec<Vec<u8>> = Vec::new();
        while taken.len() < CHUNK_SYMBOLS {
            let q = self.sequence(row, block as u32);
            let open = self.lack[block] > 0 && self.rows[block] == row && row < self.record.reserved;
            if !open || q != first + taken.len() as u32 || limit && self.owed[block] <= 0 {
                break;
            }
            let Some(symbol) = symbols.get(q as usize).filter(|s| !s.is_empty() && s.len() <= room) else { break };
            room -= symbol.len();
            taken.push(symbol.clone());
            self.rows[block] += 1;
            self.owed[block] -= 1;
            self.sent += 1;
            self.since.iter_mut().for_each(|since| since[block] += 1);
            self.repeats += u64::from(row >= self.geometry.rows());
            block += 1;
            if block == blocks {
                (block, row) = (0, row + 1);
            }
        }
        if taken.is_empty() {
            return None;
        }
        self.unsent = false;
        Some(Chunk { short: self.short(), geometry: self.geometry, first: first as u16, symbols: taken })
    }

    fn best_block(&self) -> Option<usize> {
        let blocks = self.rows.len();
        (0..blocks)
            .filter(|b| self.lack[*b] > 0 && self.rows[*b] < self.record.reserved)
            .min_by_key(|b| (self.owed[*b] <= 0, self.rows[*b] as usize * blocks + *b))
    }

    /// The sequence number at `row` of `block`. Spent indices repeat, in another order every time round.
    fn sequence(&self, row: u32, block: u32) -> u32 {
        let rows = self.geometry.rows();
        (row + row / rows * 37) % rows * self.geometry.blocks() + block
    }
}

/// What the last word left missing, per block.
fn told(geometry: Geometry, record: &OutgoingRecord) -> Vec<u32> {
    let mut lack: Vec<u32> = (0..geometry.blocks()).map(|b| geometry.block_count(b)).collect();
    if record.lack.len() == lack.len() {
        lack.iter_mut().zip(&record.lack).for_each(|(full, said)| *full = (*full).min(u32::from(*said)));
    }
    lack
}

/// The id that frames carry: 4 bits of the epoch, 12 of the counter.
pub fn short(epoch: u32, counter: u32) -> u16 {
    ((epoch & 0xF) << 12 | counter & 0xFFF) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bearer::{Job, JobDone, fec};
    use crate::mail::{Cut, PeerName, Precedence, TransferId};
    use std::collections::BTreeSet;

    #[test]
    fn symbols_leave_in_order_and_none_twice_until_all_are_spent() {
        for bytes in [1000, 10_240, 40_000] {
            let mut t = outgoing(bytes, OutgoingRecord { reserved: 0, ..OutgoingRecord::default() });
            t.record.reserved = t.geometry.rows();
            t.owe(t.missing());
            let mut seen = BTreeSet::new();
            while let Some(chunk) = t.take(248, false) {
                for i in 0..chunk.symbols.len() {
                    assert!(seen.insert(chunk.first as usize + i), "{bytes}: {} twice", chunk.first as usize + i);
                }
            }
            assert_eq!(seen.len(), t.geometry.sequences() as usize);
            assert_eq!(t.repeats, 0);
            t.record.reserved += 5;
            let before = t.rows().to_vec();
            let again = t.take(248, false).expect("repeats are allowed");
            assert_ne!(again.first, 0, "the order is rotated");
            assert!(t.repeats > 0);
            // So they are for whoever takes the same symbols.
            let mut other = outgoing(bytes, OutgoingRecord { reserved: 0, ..OutgoingRecord::default() });
            other.mirror(&vec![0; before.len()], &before);
            assert_eq!(other.repeats, 0);
            other.mirror(&before, t.rows());
            assert_eq!(other.repeats, t.repeats);
        }
    }

    #[test]
    fn repair_goes_to_the_blocks_that_lack() {
        let mut t = outgoing(10_240, OutgoingRecord::default());
        t.record.reserved = 200;
        t.lack = vec![0, 3, 0];
        t.owe(4);
        for _ in 0..4 {
            let chunk = t.take(248, true).expect("owed");
            assert_eq!(chunk.symbols.len(), 1);
            assert_eq!(chunk.first % 3, 1);
        }
        assert_eq!(t.take(248, true), None);
    }

    #[test]
    fn a_restart_goes_on_with_unseen_symbols_and_asks_first() {
        let mut t = outgoing(1000, OutgoingRecord { reserved: 60, ..OutgoingRecord::default() });
        assert!(t.unsure);
        assert_eq!(t.take(248, false), None, "nothing reserved beyond");
        t.record.reserved = 80;
        assert_eq!(t.take(248, false).map(|c| c.first), Some(60));
    }

    #[test]
    fn what_left_is_supposed_to_have_arrived_until_there_is_word_of_it() {
        let mut t = outgoing(10_240, OutgoingRecord::default());
        assert_eq!(t.suppose(0.8), 0, "nothing has left");
        t.record.reserved = 200;
        t.owe(100);
        while t.take(248, true).is_some() {}
        let (all, sent) = (t.geometry.count(), t.since.iter().flatten().sum::<u32>());
        assert!((100..104).contains(&sent), "{sent}");
        let left = t.suppose(0.8);
        assert!(left.abs_diff(all - sent * 4 / 5) <= 3 && t.missing() == left, "{left} of {all}");
        assert_eq!(t.suppose(0.8), left, "the same again");
        t.doubt();
        assert_eq!(t.missing(), all);
        t.record.lack = vec![30, 0, 31];
        t.recount();
        assert_eq!((t.missing(), t.suppose(0.8)), (61, 61));
        let mut again = outgoing(10_240, OutgoingRecord { reserved: 40, ..OutgoingRecord::default() });
        assert_eq!(again.suppose(0.8), 0, "what left before a restart is not known");
    }

    #[test]
    fn a_record_of_before_windows_were_counted_is_read_as_having_had_none() {
        let record = OutgoingRecord { reserved: 300, peer_epoch: 7, report: 9, lack: vec![3, 0], windows: 2, sent: 40 };
        let stored = postcard::to_stdvec(&record).expect("plain numbers");
        assert_eq!(OutgoingRecord::read(&stored), Some(record.clone()));
        let before = OutgoingRecord { windows: 0, sent: 0, ..record };
        assert_eq!(OutgoingRecord::read(&stored[..stored.len() - 2]), Some(before));
        assert_eq!(OutgoingRecord::read(&stored[..3]), None);
    }

    fn outgoing(bytes: usize, record: OutgoingRecord) -> Outgoing {
        let payload: Arc<[u8]> = (0..bytes).map(|i| i as u8).collect();
        let geometry = Geometry::of_payload(bytes, Cut::Narrow).expect("in range");
        let job = Job::Spread { payload: payload.clone(), geometry };
        let JobDone::Spread(symbols) = fec::run(job) else { panic!("spread") };
        let id = TransferId { origin: PeerName::from("a"), epoch: 5, counter: 9 };
        let to = PeerName::from("b");
        let transfer = Transfer { id, to, precedence: Precedence::Routine, payload, cut: Cut::Narrow, lead: None };
        let mut t = Outgoing::new(transfer, 1, geometry, record);
        t.symbols = Some(symbols);
        t
    }
}
