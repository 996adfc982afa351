//! A modem port as a pseudo-terminal, with the modem lines on a Unix socket beside it.
//!
//! The shipped node, a laptop or a terminal program opens the terminal as its modem's data port. Pseudo-terminals have no RTS, CTS
//! or DCD, so the lines travel as text on the socket.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::{Errno, read, write};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lines::{self, Word};
use crate::ether::StationId;

/// Where a station's modem is to be found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortPaths {
    /// Becomes a symbolic link to the terminal.
    pub tty_link: PathBuf,
    /// Becomes the socket of the modem lines.
    pub socket: PathBuf,
}

/// An open port; its names go when it does.
#[derive(Debug)]
pub(super) struct TerminalPort {
    paths: PortPaths,
    terminal: Arc<Terminal>,
}

impl TerminalPort {
    /// Opens the port; what is to be handed to the host comes by `bytes`.
    pub(super) fn open(
        id: StationId,
        paths: PortPaths,
        said: &mpsc::Sender<(StationId, Word)>,
        bytes: mpsc::Receiver<Vec<u8>>,
        tasks: &mut JoinSet<io::Result<()>>,
    ) -> io::Result<Self> {
        let terminal = Arc::new(Terminal::open()?);
        replace(&paths.tty_link, |kind| kind.is_symlink())?;
        symlink(&terminal.name, &paths.tty_link)?;
        replace(&paths.socket, |kind| kind.is_socket())?;
        let listener = UnixListener::bind(&paths.socket)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", paths.socket.display())))?;
        tasks.spawn(read_terminal(id, terminal.clone(), said.clone()));
        tasks.spawn(write_terminal(terminal.clone(), bytes));
        tasks.spawn(attend(id, listener, said.clone()));
        Ok(Self { paths, terminal })
    }

    /// Drops what is on its way in either direction.
    pub(super) fn flush(&self) {
        self.terminal.flush();
    }
}

impl Drop for TerminalPort {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.paths.tty_link);
        let _ = fs::remove_file(&self.paths.socket);
    }
}

/// A pseudo-terminal in raw mode, its slave held open so that the mode outlives any host.
struct Terminal {
    master: AsyncFd<OwnedFd>,
    slave: OwnedFd,
    name: String,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terminal {{ {} }}", self.name)
    }
}

impl Terminal {
    fn open() -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.into_string().map_err(|_| io::ErrorKind::InvalidData)?;
        let slave = open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let mut mode = tcgetattr(&slave)?;
        mode.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &mode)?;
        let flags = fcntl_getfl(&master)?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for the sake of types that lie about their descriptor; OwnedFd does not"
        )]
        let master = AsyncFd::new(master)?;
        Ok(Self { master, slave, name })
    }

    fn flush(&self) {
        let _ = tcflush(&self.slave, QueueSelector::IOFlush);
        let mut waste = [0; 4096];
        while read(self.master.get_ref(), &mut waste).is_ok_and(|n| n > 0) {}
    }
}

async fn read_terminal(
    id: StationId,
    terminal: Arc<Terminal>,
    said: mpsc::Sender<(StationId, Word)>,
) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let mut ready = terminal.master.readable().await?;
        let result = ready.try_io(|fd| Ok(read(fd.get_ref().as_fd(), &mut bytes)?));
        match result {
            Ok(Ok(n)) => {
                if said.send((id, Word::Bytes(bytes[..n].to_vec()))).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Err(e)) if Errno::from_io_error(&e) == Some(Errno::INTR) => {}
            Ok(Err(e)) => return Err(e),
            Err(_would_block) => {}
        }
    }
}

async fn write_terminal(terminal: Arc<Terminal>, mut bytes: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(piece) = bytes.recv().await {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let mut ready = terminal.master.writable().await?;
            match ready.try_io(|fd| Ok(write(fd.get_ref().as_fd(), rest)?)) {
                Ok(Ok(n)) => rest = &rest[n..],
                Ok(Err(e)) if Errno::from_io_error(&e) == Some(Errno::INTR) => {}
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }
    Ok(())
}

/// Takes one host after the other; a second one waits until the first has gone.
async fn attend(id: StationId, listener: UnixListener, said: mpsc::Sender<(StationId, Word)>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let (from_host, to_host) = stream.into_split();
        if !lines::serve_host(id, from_host, to_host, &said).await {
            return Ok(());
        }
    }
}

/// Removes a leftover of an earlier run, and nothing else.
fn replace(path: &Path, ours: impl Fn(fs::FileType) -> bool) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if ours(meta.file_type()) => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is in the way", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_replaced_and_files_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("modem");
        symlink("/nowhere", &path).expect("links");
        replace(&path, |k| k.is_symlink()).expect("a stale link goes");
        fs::write(&path, "precious").expect("writes");
        assert!(replace(&path, |k| k.is_symlink()).is_err());
        assert_eq!(fs::read_to_string(&path).expect("reads"), "precious");
    }
}
