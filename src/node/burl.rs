//! Fetching what a BURL stands for: one connection to an IMAP server for each, few at once.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::next_hop::Wire;
use super::tls;
use crate::config::burl::{BurlPlan, ImapTls};
use crate::mail::Status;
use crate::smtp::Reply;
use crate::smtp::burl::Url;
use crate::smtp::server::Answer;
use crate::smtp::urlfetch::{Credentials, Outcome, Step, UrlFetch};
use crate::time::Duration;

/// Fetched at once by one listener; each may hold a message in memory.
const FETCHES: usize = 4;
/// Longest time for all of it, in real time: what it waits for lies on the LAN.
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener's fetching.
pub struct Fetcher {
    credentials: Credentials,
    mode: ImapTls,
    tls: Option<Arc<ClientConfig>>,
    room: Semaphore,
}

impl Fetcher {
    /// Reads the authorities.
    pub fn new(plan: &BurlPlan) -> Result<Self, String> {
        let tls = match plan.tls {
            ImapTls::Off => None,
            ImapTls::StartTls | ImapTls::Implicit => Some(tls::verified(&plan.trust)?),
        };
        Ok(Self { credentials: plan.credentials.clone(), mode: plan.tls, tls, room: Semaphore::new(FETCHES) })
    }

    /// What a URL stands for, at most `most` octets, as the session's answer (RFC 4468 3.3, 5).
    pub async fn fetch(&self, url: &Url, most: u64) -> Answer {
        let whole = async {
            let _room = self.room.acquire().await;
            self.converse(url, most).await
        };
        let outcome = match tokio::time::timeout(PATIENCE, whole).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::warn!(server = url.host(), %error, "BURL: nothing fetched");
                Outcome::Broken
            }
            Err(_) => {
                tracing::warn!(server = url.host(), "BURL: no answer in time");
                Outcome::Broken
            }
        };
        let reply = match outcome {
            Outcome::Content(content) => return Answer::Content(content),
            Outcome::NotThere => Reply::new(554, Status(5, 6, 6), "the IMAP server does not give that out"),
            Outcome::TooBig => Reply::new(554, Status(5, 3, 4), "message too big"),
            Outcome::NoTrust => {
                tracing::warn!(server = url.host(), "BURL: the IMAP server does not let this node in");
                Reply::new(554, Status(5, 7, 8), "the IMAP server does not trust this one")
            }
            Outcome::Broken => Reply::new(451, Status(4, 4, 1), "the IMAP server does not answer, try again later"),
        };
        Answer::Refuse(reply)
    }

    async fn converse(&self, url: &Url, most: u64) -> Result<Outcome, String> {
        let host = url.host().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, url.port())).await.map_err(|e| e.to_string())?;
        let _ = stream.set_nodelay(true);
        let mut stream: Box<dyn Wire> = Box::new(stream);
        if self.mode == ImapTls::Implicit {
            stream = self.handshake(host, stream).await?;
        }
        let starttls = self.mode == ImapTls::StartTls;
        let mut fetch = UrlFetch::new(url.text(), self.credentials.clone(), starttls, most);
        let mut buffer = vec![0; 16 << 10];
        loop {
            while let Some(bytes) = fetch.poll_transmit() {
                stream.write_all(&bytes).await.map_err(|e| e.to_string())?;
            }
            stream.flush().await.map_err(|e| e.to_string())?;
            match fetch.step() {
                Step::Done(outcome) => return Ok(outcome),
                Step::StartTls => {
                    stream = self.handshake(host, stream).await?;
                    fetch.tls_started();
                }
                Step::Read => match stream.read(&mut buffer).await.map_err(|e| e.to_string())? {
                    0 => fetch.handle_eof(),
                    n => fetch.handle_bytes(&buffer[..n]),
                },
            }
        }
    }

    async fn handshake(&self, host: &str, stream: Box<dyn Wire>) -> Result<Box<dyn Wire>, String> {
        let config = self.tls.clone().ok_or("no TLS settings")?;
        let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
        Ok(Box::new(stream))
    }
}
