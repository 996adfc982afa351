//! The control socket: one JSON request per line in, one JSON response per line out (docs/json.md).
//!
//! File permissions are the only authentication; the peer's uid is the author of its orders. Reads that only look at the store
//! are served from a snapshot on their own thread; everything else is asked of the switch.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, oneshot};

use crate::ops::{self, Request, Response};
use crate::switch::{Input, RequestId};

/// Longest request line.
const LINE_MAX: u64 = 64 * 1024;
/// Clients at once.
const CLIENTS: usize = 64;

/// Requests under way, so that the switch's replies find their clients.
#[derive(Debug, Default)]
pub struct Pending {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<RequestId, oneshot::Sender<Response>>>,
}

impl Pending {
    fn open(&self) -> (RequestId, oneshot::Receiver<Response>) {
        let id = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (tx, rx) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tx);
        (id, rx)
    }

    /// Hands a reply to whoever asked.
    pub fn reply(&self, id: RequestId, response: Response) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(tx) = waiting {
            // A client that hung up wants no answer.
            let _ = tx.send(response);
        }
    }
}

/// Answers what only reads the store.
pub type Reader = dyn Fn(&Request) -> Option<Response> + Send + Sync;
/// Adds to the switch's answer what only the store and the disk know.
pub type Completer = dyn Fn(&Request, Response) -> Response + Send + Sync;

/// Everything a client's task needs.
#[derive(Clone)]
pub struct Desk {
    /// To the switch.
    pub to: Sender<Input>,
    /// For its replies.
    pub pending: Arc<Pending>,
    /// Answers requests that only read the store; `None` when the request is not of that kind.
    pub read: Arc<Reader>,
    /// Completes the switch's answer with what only the store and the disk know.
    pub complete: Arc<Completer>,
    /// Events as JSON lines, for `watch`.
    pub events: broadcast::Sender<Arc<str>>,
}

/// Binds the socket with its mode. A socket left by a dead node is removed; one that answers is another node's.
pub async fn bind(path: &Path, mode: u32) -> Result<UnixListener, String> {
    let shown = path.display();
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(format!("something answers on {shown}: stop that, or give this node another path"));
        }
        std::fs::remove_file(path).map_err(|e| format!("cannot remove the stale socket {shown}: {e}"))?;
    }
    let listener = UnixListener::bind(path).map_err(|e| format!("cannot bind the socket {shown}: {e}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|e| format!("cannot set the mode of {shown}: {e}"))?;
    Ok(listener)
}

/// Serves clients until the node stops; clients end with it.
pub async fn serve(listener: UnixListener, desk: Desk) {
    let room = Arc::new(tokio::sync::Semaphore::new(CLIENTS));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                clients.spawn(async move {
                    client(stream, desk).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket accept failed");
                tokio::time::sleep(core::time::Duration::from_millis(200)).await;
            }
        }
    }
}

async fn client(stream: UnixStream, desk: Desk) {
    let uid = stream.peer_cred().map_or(u32::MAX, |c| c.uid());
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut read).take(LINE_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if !line.ends_with(b"\n") && line.len() as u64 >= LINE_MAX => {
                let _ = send(&mut write, &Response::refused("the request line is too long")).await;
                return;
            }
            Ok(_) => {}
        }
        let response = match serde_json::from_slice::<Request>(&line) {
            Err(error) => Response::refused(format!("not a request this node knows: {error}")),
            Ok(Request::Watch) => {
                watch(&mut write, desk.events.subscribe()).await;
                return;
            }
            Ok(request) => answer(request, uid, &desk).await,
        };
        if send(&mut write, &response).await.is_err() {
            return;
        }
    }
}

async fn answer(request: Request, uid: u32, desk: &Desk) -> Response {
    let reader = desk.read.clone();
    let asked = request.clone();
    if let Ok(Some(response)) = tokio::task::spawn_blocking(move || reader(&asked)).await {
        let Some(further) = ops::read::completed_by(&response) else { return response };
        let predicted = ask(further, uid, desk).await;
        return ops::read::with_predictions(response, &predicted);
    }
    let response = ask(request.clone(), uid, desk).await;
    let complete = desk.complete.clone();
    let completed = tokio::task::spawn_blocking(move || complete(&request, response)).await;
    completed.unwrap_or_else(|_| Response::refused("the store cannot be read now"))
}

async fn ask(request: Request, uid: u32, desk: &Desk) -> Response {
    let stopping = || Response::refused("the node is stopping");
    let (id, reply) = desk.pending.open();
    if desk.to.send(Input::Request { id, request, uid }).is_err() {
        return stopping();
    }
    reply.await.unwrap_or_else(|_| stopping())
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), response: &Response) -> std::io::Result<()> {
    write.write_all(response.line().as_bytes()).await
}

async fn watch(write: &mut (impl AsyncWriteExt + Unpin), mut events: broadcast::Receiver<Arc<str>>) {
    loop {
        match events.recv().await {
            Ok(line) => {
                if write.write_all(line.as_bytes()).await.is_err() || write.write_all(b"\n").await.is_err() {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let line = format!("{{\"schema\":\"aldis.event/1\",\"event\":\"missed\",\"count\":{missed}}}\n");
                if write.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
