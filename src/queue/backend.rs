//! redb's storage on a [`DiskFile`]: five calls on bytes, and a memory of what the disk said.
//!
//! redb answers every call after a failed one with "previous I/O error", so what the disk said first is kept here:
//! it decides whether a commit was refused for lack of room or the disk failed.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::StorageBackend;

use super::disk::DiskFile;

/// What went wrong below redb since the last [`Faults::clear`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// A write or a growth found no room; nothing was promised and nothing is in doubt.
    NoRoom,
    /// A read or write failed, or any sync did: what the disk holds is in doubt.
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    worst: AtomicU8,
    words: Mutex<String>,
}

impl Faults {
    pub(super) fn clear(&self) {
        self.worst.store(0, Ordering::Release);
    }

    pub(super) fn worst(&self) -> Fault {
        match self.worst.load(Ordering::Acquire) {
            0 => Fault::None,
            1 => Fault::NoRoom,
            _ => Fault::Failed,
        }
    }

    /// The first failure of the worst kind, in words.
    pub(super) fn words(&self) -> String {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, doing: &str, error: io::Error, rank: u8) -> io::Error {
        if self.worst.fetch_max(rank, Ordering::AcqRel) < rank {
            *self.words.lock().unwrap_or_else(PoisonError::into_inner) = format!("{doing}: {error}");
        }
        error
    }
}

/// Whether an error says that the disk, or this user's share of it, is used up.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

#[derive(Debug)]
pub(super) struct Backend {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl Backend {
    pub(super) fn new(file: Arc<dyn DiskFile>, faults: Arc<Faults>) -> Self {
        Self { file, faults }
    }

    /// Writes all of `parts`, one behind the other.
    pub(super) fn write_parts(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.room("write", self.file.write_parts(offset, parts))
    }

    fn room(&self, doing: &str, result: io::Result<()>) -> io::Result<()> {
        result.map_err(|e| {
            let rank = if is_no_room(&e) { 1 } else { 2 };
            self.faults.note(doing, e, rank)
        })
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len().map_err(|e| self.faults.note("length", e, 2))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out).map_err(|e| self.faults.note("read", e, 2))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room("grow", self.file.set_len(len))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room("write", self.file.write_at(offset, data))
    }

    fn sync_data(&self) -> io::Result<()> {
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::SkipSync) {
            return Ok(());
        }
        // Whatever a failed sync says, even "no space": the kernel may have dropped the dirty pages.
        self.file.sync().map_err(|e| self.faults.note("sync", e, 2))
    }
}
