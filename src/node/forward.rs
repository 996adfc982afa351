//! Onward delivery: one task per job drives an `smtp::client::Session` over TCP, TLS or a Unix socket.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::clock::Clock;
use super::tls;
use crate::config::Plan;
use crate::mail::Status;
use crate::smtp::client::{Config, Delivery, Dialect, Event, RecipientResult, Report, Session};
use crate::switch::Forward;
use crate::time::Duration;

/// Longest wait for a connection and for a TLS handshake.
const CONNECT: Duration = Duration::from_secs(30);

/// Makes connections to next hops, a bounded number at once.
#[derive(Clone)]
pub struct Forwarder {
    hostname: String,
    clock: Clock,
    room: Arc<Semaphore>,
    tls: Arc<ClientConfig>,
}

enum Ended {
    Done(Report),
    TlsFailed,
    Lost(String),
}

impl Forwarder {
    /// The forwarder of one node.
    pub fn new(plan: &Plan, clock: Clock) -> Result<Self, String> {
        Ok(Self {
            hostname: plan.node.hostname.clone(),
            clock,
            room: Arc::new(Semaphore::new(plan.limits.deliveries.max(1))),
            tls: tls::opportunistic_client()?,
        })
    }

    /// Delivers one message; every recipient gets a result, whatever happens to the connection.
    pub async fn deliver(&self, forward: Forward) -> Report {
        let count = forward.envelope.recipients.len();
        let Ok(_permit) = self.room.clone().acquire_owned().await else {
            return nothing(count, "the node is stopping");
        };
        match self.attempt(&forward, true).await {
            Ended::Done(report) => report,
            // RFC 7435: opportunistic TLS that fails must not cost the mail.
            Ended::TlsFailed => match self.attempt(&forward, false).await {
                Ended::Done(report) => report,
                Ended::TlsFailed => nothing(count, "the TLS handshake failed"),
                Ended::Lost(why) => nothing(count, &why),
            },
            Ended::Lost(why) => nothing(count, &why),
        }
    }

    async fn attempt(&self, forward: &Forward, starttls: bool) -> Ended {
        if forward.lmtp && forward.to.starts_with('/') {
            return match tokio::time::timeout(CONNECT, UnixStream::connect(Path::new(&forward.to))).await {
                Ok(Ok(stream)) => self.plain(forward, stream, false).await,
                Ok(Err(e)) => Ended::Lost(format!("cannot connect to {}: {e}", forward.to)),
                Err(_) => Ended::Lost(format!("no connection to {} in time", forward.to)),
            };
        }
        match tokio::time::timeout(CONNECT, TcpStream::connect(&forward.to)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                self.plain(forward, stream, starttls && !forward.lmtp).await
            }
            Ok(Err(e)) => Ended::Lost(format!("cannot connect to {}: {e}", forward.to)),
            Err(_) => Ended::Lost(format!("no connection to {} in time", forward.to)),
        }
    }

    async fn plain<S: AsyncRead + AsyncWrite + Unpin>(&self, forward: &Forward, stream: S, starttls: bool) -> Ended {
        let dialect = if forward.lmtp { Dialect::Lmtp } else { Dialect::Smtp };
        let config = Config { starttls, ..Config::new(self.hostname.clone(), dialect) };
        let mut session = Session::new(self.clock.at(), Arc::new(config));
        let by_seconds = forward.envelope.deliver_by.map(|by| (by.deadline.0 - self.clock.now().wall.0) / 1000);
        let delivery = Delivery { envelope: forward.envelope.clone(), body: forward.body.clone(), by_seconds };
        session.deliver(self.clock.at(), delivery);
        let stream = match self.talk(&mut session, stream).await {
            Talked::Ended(ended) => return ended,
            Talked::StartTls(stream) => stream,
        };
        let host = forward.to.rsplit_once(':').map_or(forward.to.as_str(), |(host, _)| host).trim_matches(['[', ']']);
        let Ok(name) = ServerName::try_from(host.to_owned()) else { return Ended::TlsFailed };
        let handshake = TlsConnector::from(self.tls.clone()).connect(name, stream);
        let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, handshake).await else { return Ended::TlsFailed };
        session.handle_tls_started(self.clock.at());
        match self.talk(&mut session, stream).await {
            Talked::Ended(ended) => ended,
            Talked::StartTls(_) => Ended::TlsFailed,
        }
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&self, session: &mut Session, mut stream: S) -> Talked<S> {
        let mut buffer = vec![0; 8 * 1024];
        let mut report = None;
        loop {
            while let Some(bytes) = session.poll_transmit() {
                let patience = Duration::from_secs(180);
                match tokio::time::timeout(patience, stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => session.handle_eof(self.clock.at()),
                }
            }
            let _ = stream.flush().await;
            let mut close = false;
            while let Some(event) = session.poll_event() {
                match event {
                    Event::StartTls => return Talked::StartTls(stream),
                    Event::Done(done) => {
                        report = Some(done);
                        session.quit(self.clock.at());
                    }
                    Event::Close => close = true,
                }
            }
            if close {
                let _ = stream.shutdown().await;
                return Talked::Ended(match report {
                    Some(report) => Ended::Done(report),
                    None => Ended::Lost("the connection ended before the delivery did".into()),
                });
            }
            let deadline = session.next_timeout().map_or(Duration::from_secs(600), |at| self.clock.real_until(at));
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => session.handle_eof(self.clock.at()),
                    Ok(n) => session.handle_bytes(self.clock.at(), &buffer[..n]),
                },
                () = tokio::time::sleep(deadline) => session.handle_timeout(self.clock.at()),
            }
        }
    }
}

enum Talked<S> {
    Ended(Ended),
    StartTls(S),
}

fn nothing(recipients: usize, why: &str) -> Report {
    let result = RecipientResult::Temporary { status: Status(4, 4, 1), text: why.to_owned() };
    Report { results: vec![result; recipients], dsn: false, tls: false, reached: false }
}
