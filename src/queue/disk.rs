//! The only way to a disk below the store: files, their bytes, names and syncs.
//!
//! The real one is `queue::RealDisk`; the simulator's keeps one write history over all files, loses what was not
//! synced, tears pages, and fails on demand. redb's `StorageBackend` sits on a [`DiskFile`].

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// A directory tree owned by one node. Paths are relative to it, `/`-separated.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file, creating it when `create` says so. A created name is durable only after `sync_dir`.
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames, replacing the target. Durable after `sync_dir` of both directories.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes a directory and its parents.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Names in a directory, sorted.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Bytes free for this node.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Something that changes when the file is a copy of the one written before (a restored backup): device, inode, birth time.
    fn identity(&self, path: &str) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|n| n == 0)
    }
    /// Fills `out` from `offset`, or fails.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`, growing the file.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Writes all of `parts`, one behind the other, at `offset`, growing the file.
    fn write_parts(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut at = offset;
        for part in parts {
            self.write_at(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }
    /// Cuts or grows with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable.
    fn sync(&self) -> io::Result<()>;
}
