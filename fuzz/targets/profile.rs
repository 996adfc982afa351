//! Any text as a profile: problems with places, never a panic.
#![no_main]

use std::io;
use std::path::Path;

use aldis::config::{File, Files, load};
use libfuzzer_sys::fuzz_target;

struct Only<'a>(&'a [u8]);

impl Files for Only<'_> {
    fn read(&self, path: &Path) -> io::Result<File> {
        match path == Path::new("profile.toml") {
            true => Ok(File { bytes: self.0.to_vec(), mode: 0o600 }),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    if let Err(problems) = load(Path::new("profile.toml"), &[], &Only(data)) {
        assert!(!problems.is_empty());
    }
});
