//! The only file of `config` that touches a disk: reads profiles, sheets, keys and certificates.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{File, Files};

/// The machine's own files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

/// More than any profile, sheet, key or certificate chain needs.
const MOST: u64 = 4 << 20;

impl Files for RealFiles {
    fn read(&self, path: &Path) -> io::Result<File> {
        use std::io::Read as _;
        let file = std::fs::File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
        }
        let mut bytes = Vec::new();
        file.take(MOST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "is larger than 4 MiB"));
        }
        Ok(File { bytes, mode: meta.mode() })
    }
}
