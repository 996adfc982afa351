//! The machine's file system under one directory: the only code below `node/` that touches it.
//!
//! Every name is resolved from the directory's own descriptor, so a renamed or remounted path changes nothing, and
//! names that would leave the directory are refused. Files are 0600 and directories 0700: they hold mail.

use std::ffi::CStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::retry_on_intr;

use super::disk::{Disk, DiskFile};

/// Held locked for as long as a node owns the directory.
const LOCK_FILE: &str = "lock";
const PLACE: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory of this machine, owned by one node at a time.
#[derive(Debug)]
pub struct RealDisk {
    root: OwnedFd,
    /// Held by the one owner; a shared place (Maildirs other programs read too) has none.
    _lock: Option<OwnedFd>,
}

impl RealDisk {
    /// Opens `path`, making it when it is missing, without a lock: a place that other programs use too, such as Maildirs.
    pub fn shared(path: &Path) -> io::Result<Self> {
        let named = |e: rustix::io::Errno| {
            let e = io::Error::from(e);
            io::Error::new(e.kind(), format!("{}: {e}", path.display()))
        };
        for part in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if !part.as_os_str().is_empty() && !exists(part) {
                make_dir(CWD, part).map_err(named)?;
                let parent = part.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let parent = retry_on_intr(|| rustix::fs::open(parent, PLACE, Mode::empty())).map_err(named)?;
                retry_on_intr(|| rustix::fs::fsync(&parent)).map_err(named)?;
            }
        }
        let root = retry_on_intr(|| rustix::fs::open(path, PLACE, Mode::empty())).map_err(named)?;
        Ok(Self { root, _lock: None })
    }

    /// Opens `path`, making it when it is missing, and locks it against other nodes. `ErrorKind::WouldBlock` says that
    /// another process holds it: one that is being replaced may need a few seconds to go, so callers try again.
    pub fn open(path: &Path) -> io::Result<Self> {
        let named = |e: rustix::io::Errno| {
            let e = io::Error::from(e);
            io::Error::new(e.kind(), format!("{}: {e}", path.display()))
        };
        let Self { root, .. } = Self::shared(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock =
            retry_on_intr(|| rustix::fs::openat(&root, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)).map_err(named)?;
        retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)).map_err(|e| {
            let file = path.join(LOCK_FILE);
            match e {
                rustix::io::Errno::WOULDBLOCK => io::Error::new(
                    io::ErrorKind::WouldBlock,
                    format!("{} is in use by another node (it holds {})", path.display(), file.display()),
                ),
                e => named(e),
            }
        })?;
        Ok(Self { root, _lock: Some(lock) })
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        flags.set(OFlags::CREATE, create);
        let path = inside(path)?;
        let file = retry_on_intr(|| rustix::fs::openat(&self.root, path, flags, Mode::RUSR | Mode::WUSR))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::renameat(&self.root, inside_raw(from)?, &self.root, inside_raw(to)?))?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = inside(path)?;
        Ok(retry_on_intr(|| rustix::fs::unlinkat(&self.root, path, AtFlags::empty()))?)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let path = inside(path)?;
        let ends = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            make_dir(self.root.as_fd(), Path::new(&path[..end]))?;
        }
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let place = self.place(path)?;
        Ok(retry_on_intr(|| rustix::fs::fsync(&place))?)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(self.place(path)?)? {
            let entry = entry?;
            // Names that are not UTF-8 are not ours.
            if let Ok(name) = CStr::to_str(entry.file_name())
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = retry_on_intr(|| rustix::fs::fstatvfs(&self.root))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn identity(&self, path: &str) -> io::Result<u64> {
        let path = inside(path)?;
        let want = StatxFlags::INO | StatxFlags::BTIME;
        let stat = retry_on_intr(|| rustix::fs::statx(&self.root, path, AtFlags::SYMLINK_NOFOLLOW, want))?;
        let mut parts = vec![stat.stx_ino];
        if stat.stx_mask & StatxFlags::BTIME.bits() != 0 {
            // Inode and birth to the nanosecond say enough. The device number would not: USB disks and overlay mounts
            // get another one at each boot, and the same file must not look like a copy.
            parts.extend([stat.stx_btime.tv_sec as u64, u64::from(stat.stx_btime.tv_nsec)]);
        } else {
            parts.extend([u64::from(stat.stx_dev_major), u64::from(stat.stx_dev_minor)]);
        }
        // FNV-1a: the value is stored and must be the same in every version.
        let bytes = parts.iter().flat_map(|part| part.to_le_bytes());
        Ok(bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)))
    }
}

impl RealDisk {
    fn place(&self, path: &str) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { inside(path)? };
        Ok(retry_on_intr(|| rustix::fs::openat(&self.root, path, PLACE | OFlags::NOFOLLOW, Mode::empty()))?)
    }
}

#[derive(Debug)]
struct RealFile(OwnedFd);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        let stat = retry_on_intr(|| rustix::fs::fstat(&self.0))?;
        u64::try_from(stat.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match retry_on_intr(|| rustix::io::pread(&self.0, &mut *rest, offset + done as u64))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            match retry_on_intr(|| rustix::io::pwrite(&self.0, rest, offset + done as u64))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    fn write_parts(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let (mut rest, mut at) = (slices.as_mut_slice(), offset);
        // Empty ones would look like no progress.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match retry_on_intr(|| rustix::io::pwritev(&self.0, rest, at))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    IoSlice::advance_slices(&mut rest, n);
                    at += n as u64;
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.0, len))?)
    }

    fn sync(&self) -> io::Result<()> {
        // Flushes the length with the data, which is all a reader needs; times may stay behind.
        Ok(retry_on_intr(|| rustix::fs::fdatasync(&self.0))?)
    }
}

fn exists(path: &Path) -> bool {
    retry_on_intr(|| rustix::fs::stat(path)).is_ok()
}

fn make_dir(place: impl AsFd + Copy, path: &Path) -> rustix::io::Result<()> {
    match retry_on_intr(|| rustix::fs::mkdirat(place, path, Mode::RWXU)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e),
    }
}

fn inside(path: &str) -> io::Result<&str> {
    Ok(inside_raw(path)?)
}

fn inside_raw(path: &str) -> rustix::io::Result<&str> {
    let ok = path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0');
    if ok { Ok(path) } else { Err(rustix::io::Errno::INVAL) }
}
