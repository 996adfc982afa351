//! A modem port over TCP: data on one connection, the modem lines on another (in the manner of MIL-STD-188-110D Appendix A).
//!
//! For foreign software and bench tools; the product itself opens a terminal. One host at a time on either connection; a second one
//! waits until the first has gone.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lines::{self, Word};
use crate::ether::StationId;

/// Where a station's modem listens. Port 0 takes any free one; [`Bridge::places`](super::Bridge::places) tells which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpAddresses {
    /// Bytes to and from the air.
    pub data: SocketAddr,
    /// The modem lines.
    pub control: SocketAddr,
}

/// An open port.
#[derive(Debug)]
pub(super) struct TcpPort {
    pub(super) addresses: TcpAddresses,
    /// Who holds the data connection.
    host: Arc<Mutex<Option<Arc<TcpStream>>>>,
}

impl TcpPort {
    /// Opens the port; what is to be handed to the host comes by `bytes`.
    pub(super) async fn open(
        id: StationId,
        wanted: TcpAddresses,
        said: &mpsc::Sender<(StationId, Word)>,
        bytes: mpsc::Receiver<Vec<u8>>,
        tasks: &mut JoinSet<io::Result<()>>,
    ) -> io::Result<Self> {
        let (data, control) = (bind(wanted.data).await?, bind(wanted.control).await?);
        let addresses = TcpAddresses { data: data.local_addr()?, control: control.local_addr()? };
        let host = Arc::new(Mutex::new(None));
        tasks.spawn(carry(id, data, host.clone(), said.clone(), bytes));
        tasks.spawn(attend(id, control, said.clone()));
        Ok(Self { addresses, host })
    }

    /// Drops what the host sent and nobody has read. What is still on its way in the network is not reached.
    pub(super) fn flush(&self) {
        if let Some(stream) = current(&self.host) {
            let mut waste = [0; 4096];
            while stream.try_read(&mut waste).is_ok_and(|n| n > 0) {}
        }
    }

    /// Whether anybody is there to hand bytes to.
    pub(super) fn attached(&self) -> bool {
        current(&self.host).is_some()
    }
}

fn current(host: &Mutex<Option<Arc<TcpStream>>>) -> Option<Arc<TcpStream>> {
    host.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))
}

/// Carries bytes for one host after the other.
async fn carry(
    id: StationId,
    listener: TcpListener,
    host: Arc<Mutex<Option<Arc<TcpStream>>>>,
    said: mpsc::Sender<(StationId, Word)>,
    mut bytes: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        // Nothing that was meant for the last host reaches this one.
        while bytes.try_recv().is_ok() {}
        *host.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.clone());
        // A host that breaks its connection is gone, whatever the error says.
        let _ = tokio::select! {
            done = read(id, &stream, &said) => done,
            done = write(&stream, &mut bytes) => done,
        };
        *host.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if said.is_closed() {
            return Ok(());
        }
    }
}

async fn read(id: StationId, stream: &TcpStream, said: &mpsc::Sender<(StationId, Word)>) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                if said.send((id, Word::Bytes(bytes[..n].to_vec()))).await.is_err() {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

async fn write(stream: &TcpStream, bytes: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(piece) = bytes.recv().await {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            stream.ready(Interest::WRITABLE).await?;
            match stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// Takes one host after the other on the lines.
async fn attend(id: StationId, listener: TcpListener, said: mpsc::Sender<(StationId, Word)>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (from_host, to_host) = stream.into_split();
        if !lines::serve_host(id, from_host, to_host, &said).await {
            return Ok(());
        }
    }
}
