//! What redb writes between two syncs, put in order.
//!
//! redb hands down a commit's pages one by one and in no order, and a file system takes a run of pages for a fraction of what it asks for each of
//! them alone. Nothing of them is promised before the sync, so until then they are kept here, and written in runs when it comes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::backend::Backend;

/// Bytes written at once at most. More gains little, and large pieces of memory are seldom at hand.
const RUN: u64 = 32 << 10;

/// A [`Backend`] that writes when it must: before a sync, before a look at what is kept, and when there is no room for more.
#[derive(Debug)]
pub(super) struct Gathering {
    to: Backend,
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Offset in the file -> place in `bytes`, length. They do not overlap.
    pieces: BTreeMap<u64, (usize, usize)>,
    bytes: Vec<u8>,
    /// A write failed whose caller was told that it was done: nothing may be built on this file.
    lost: bool,
}

impl Gathering {
    /// Keeps `most` bytes.
    pub(super) fn new(to: Backend, most: usize) -> Self {
        Self { to, most, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, kept: &mut Kept) -> io::Result<()> {
        if kept.lost {
            return Err(io::Error::other("an earlier write failed"));
        }
        let pieces = std::mem::take(&mut kept.pieces);
        let mut written = Ok(());
        let mut run: Vec<&[u8]> = Vec::new();
        let (mut begins, mut ends) = (0, 0);
        for (offset, (at, length)) in pieces {
            if (offset != ends || ends + length as u64 - begins > RUN) && !run.is_empty() {
                written = written.and_then(|()| self.to.write_parts(begins, &run));
                run.clear();
            }
            if run.is_empty() {
                begins = offset;
            }
            run.extend(kept.bytes.get(at..at + length));
            ends = offset + length as u64;
        }
        if !run.is_empty() {
            written = written.and_then(|()| self.to.write_parts(begins, &run));
        }
        kept.bytes.clear();
        kept.lost = written.is_err();
        written
    }
}

impl Kept {
    /// Whether any of these bytes are kept.
    fn holds(&self, offset: u64, length: usize) -> bool {
        let end = offset.saturating_add(length as u64);
        let before = self.pieces.range(..end).next_back();
        before.is_some_and(|(at, (_, length))| at + *length as u64 > offset)
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        if let Some(old) = self.pieces.get(&offset).copied().filter(|(_, length)| *length == data.len())
            && let Some(place) = self.bytes.get_mut(old.0..old.0 + old.1)
        {
            place.copy_from_slice(data);
            return;
        }
        self.pieces.insert(offset, (self.bytes.len(), data.len()));
        self.bytes.extend_from_slice(data);
    }
}

impl StorageBackend for Gathering {
    fn len(&self) -> io::Result<u64> {
        self.to.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut kept = self.kept();
        if kept.lost || kept.holds(offset, out.len()) {
            self.write_out(&mut kept)?;
        }
        drop(kept);
        self.to.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.write_out(&mut self.kept())?;
        self.to.set_len(len)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut kept = self.kept();
        let same = kept.pieces.get(&offset).is_some_and(|(_, length)| *length == data.len());
        if !same && (kept.holds(offset, data.len()) || kept.bytes.len() + data.len() > self.most) {
            self.write_out(&mut kept)?;
        }
        if kept.lost || data.len() > self.most {
            self.write_out(&mut kept)?;
            return self.to.write(offset, data);
        }
        kept.put(offset, data);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_out(&mut self.kept())?;
        self.to.sync_data()
    }

    fn close(&self) -> io::Result<()> {
        self.write_out(&mut self.kept())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::super::backend::{Fault, Faults};
    use super::super::disk::DiskFile;
    use super::*;

    #[derive(Debug, Default)]
    struct Memory {
        bytes: Mutex<Vec<u8>>,
        calls: AtomicUsize,
        full: AtomicBool,
    }

    impl DiskFile for Memory {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().expect("locks").len() as u64)
        }
        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let bytes = self.bytes.lock().expect("locks");
            out.copy_from_slice(&bytes[offset as usize..][..out.len()]);
            Ok(())
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.write_parts(offset, &[data])
        }
        fn write_parts(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
            if self.full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.calls.fetch_add(1, Ordering::Relaxed);
            let data = parts.concat();
            self.bytes.lock().expect("locks")[offset as usize..][..data.len()].copy_from_slice(&data);
            Ok(())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.bytes.lock().expect("locks").resize(len as usize, 0);
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gathering(most: usize) -> (Gathering, Arc<Memory>, Arc<Faults>) {
        let (file, faults) = (Arc::new(Memory::default()), Arc::new(Faults::default()));
        let gathering = Gathering::new(Backend::new(file.clone(), faults.clone()), most);
        gathering.set_len(4096).expect("grows");
        (gathering, file, faults)
    }

    #[test]
    fn pages_in_any_order_become_one_write() {
        let (gathering, file, _) = gathering(4096);
        for page in [3, 1, 2, 0, 7, 6] {
            gathering.write(page * 100, &[page as u8; 100]).expect("writes");
        }
        gathering.write(200, &[9; 100]).expect("writes again");
        assert_eq!(file.calls.load(Ordering::Relaxed), 0);
        gathering.sync_data().expect("syncs");
        assert_eq!(file.calls.load(Ordering::Relaxed), 2, "two runs");
        assert_eq!(file.bytes.lock().expect("locks")[100..400], [[1; 100], [9; 100], [3; 100]].concat());
    }

    #[test]
    fn a_write_that_was_lost_fails_everything_after_it() {
        let (gathering, file, faults) = gathering(4096);
        gathering.write(0, &[1; 100]).expect("is kept");
        file.full.store(true, Ordering::Relaxed);
        gathering.sync_data().expect_err("no room");
        assert_eq!(faults.worst(), Fault::NoRoom, "which is an answer");
        file.full.store(false, Ordering::Relaxed);
        gathering.write(0, &[1; 100]).expect_err("the file lacks something");
        gathering.sync_data().expect_err("the file lacks something");
        gathering.read(0, &mut [0; 100]).expect_err("what stands there is older than what was written");
        assert_eq!(faults.worst(), Fault::NoRoom);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Write(u64, usize, u8),
        Read(u64, usize),
        Sync,
        Grow,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => (0u64..40, 1usize..5, any::<u8>()).prop_map(|(at, length, byte)| Act::Write(at * 100, length * 100, byte)),
            1 => (0u64..4000, 1usize..500, any::<u8>()).prop_map(|(at, length, byte)| Act::Write(at, length, byte)),
            3 => (0u64..4000, 1usize..800).prop_map(|(at, length)| Act::Read(at, length)),
            1 => Just(Act::Sync),
            1 => Just(Act::Grow),
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written_last(acts in prop::collection::vec(act(), 0..120), most in 100usize..3000) {
            let (gathering, file, _) = gathering(most);
            let mut model = vec![0; 4096];
            for act in acts {
                match act {
                    Act::Write(at, length, byte) => {
                        let data = vec![byte; length.min(model.len() - at as usize)];
                        model[at as usize..][..data.len()].copy_from_slice(&data);
                        gathering.write(at, &data).expect("writes");
                    }
                    Act::Read(at, length) => {
                        let mut out = vec![0; length.min(model.len() - at as usize)];
                        gathering.read(at, &mut out).expect("reads");
                        prop_assert_eq!(&out[..], &model[at as usize..][..out.len()]);
                    }
                    Act::Sync => {
                        gathering.sync_data().expect("syncs");
                        prop_assert_eq!(&*file.bytes.lock().expect("locks"), &model);
                    }
                    Act::Grow => {
                        model.resize(model.len() + 100, 0);
                        gathering.set_len(model.len() as u64).expect("grows");
                    }
                }
            }
            gathering.close().expect("closes");
            prop_assert_eq!(&*file.bytes.lock().expect("locks"), &model);
        }
    }
}
