//! Fetches MTA-STS policies (RFC 8461 3.3): one GET over HTTPS, from a server that shows by its certificate that it speaks for the domain.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dns::{ask, full_name};
use super::tls;
use crate::config::mx::MxPlan;
use crate::security::sts::{Announced, Cache, Look, MOST_RESPONSE, Policy, Stored, body, id};
use crate::smtp::mx::{Answer, Bounds, addresses};
use crate::time::{Duration, Now};

/// What is known of policies, and how they are fetched.
pub struct Policies {
    cache: Mutex<Cache>,
    tls: Arc<ClientConfig>,
    port: u16,
    bounds: Bounds,
    /// Longest time for one fetch, of real time.
    within: Duration,
    /// What was learned and nobody was told of yet, to be stored.
    learned: Mutex<Vec<(String, Stored)>>,
}

/// What came of looking for a domain's policy.
pub struct Found {
    /// The policy that holds.
    pub policy: Option<Policy>,
    /// How long that is to be taken for granted.
    pub holds: Duration,
    /// Why one that is announced could not be had.
    pub failed: Option<String>,
}

impl Policies {
    /// Those that were `stored` are known. `chain` tells whose certificates count.
    pub fn new(
        plan: &MxPlan,
        chain: Arc<WebPkiServerVerifier>,
        within: Duration,
        (now, stored): (Now, &[(String, Stored)]),
    ) -> Result<Self, String> {
        let mut tls = ClientConfig::clone(&*tls::signed(chain)?);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut cache = Cache::new(plan.domains);
        stored.iter().for_each(|(domain, stored)| cache.restore(now, domain, stored.clone()));
        let (cache, tls, learned) = (Mutex::new(cache), Arc::new(tls), Mutex::default());
        Ok(Self { cache, tls, port: plan.mta_sts_port, bounds: plan.bounds, within, learned })
    }

    /// The policy of a domain, fetched where it is new.
    pub async fn of(&self, resolver: &TokioResolver, now: Now, domain: &str) -> Found {
        let Some(name) = full_name(&format!("_mta-sts.{domain}")) else {
            return Found { policy: None, holds: Duration::MAX, failed: None };
        };
        let mut told = ask(resolver, &name, RecordType::TXT, |data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await;
        told.answer.cut(self.bounds.answers);
        let announced = match told.answer {
            Answer::Records(records) => id(&records).map_or(Announced::Nothing, Announced::Id),
            Answer::Nothing | Answer::NoName | Answer::Failed(_) => Announced::Nothing,
        };
        let look = self.cache().look(now.at, domain, &announced);
        match (look, announced) {
            (Look::Fetch, Announced::Id(id)) => {
                let fetched = match tokio::time::timeout(self.within, self.fetch(resolver, domain)).await {
                    Ok(fetched) => fetched.and_then(|text| Policy::parse(&text)),
                    Err(_) => Err("it did not come in time".to_owned()),
                };
                let failed = fetched.as_ref().err().cloned();
                if let Ok(policy) = &fetched {
                    let stored = Stored::new(now, &id, policy.clone());
                    lock(&self.learned).push((domain.to_owned(), stored));
                }
                let policy = self.cache().fetched(now.at, domain, &id, fetched);
                Found { policy, holds: told.holds, failed }
            }
            (Look::Holds(policy), _) => Found { policy, holds: told.holds, failed: None },
            (Look::Fetch, Announced::Nothing) => Found { policy: None, holds: told.holds, failed: None },
        }
    }

    /// What was learned since it was last asked.
    pub fn learned(&self) -> Vec<(String, Stored)> {
        std::mem::take(&mut *lock(&self.learned))
    }

    async fn fetch(&self, resolver: &TokioResolver, domain: &str) -> Result<Vec<u8>, String> {
        let host = format!("mta-sts.{domain}");
        let name = full_name(&host).ok_or("its host has no name of the DNS")?;
        let (six, four) = tokio::join!(
            ask(resolver, &name, RecordType::AAAA, |data| if let RData::AAAA(a) = data { Some(a.0) } else { None }),
            ask(resolver, &name, RecordType::A, |data| if let RData::A(a) = data { Some(a.0) } else { None }),
        );
        let (found, _) = addresses(six.answer, four.answer, self.bounds)?;
        let mut failed = format!("{host} has no address");
        for address in found {
            match self.get(&host, address).await {
                Ok(text) => return Ok(text),
                Err(why) => failed = format!("{host}: {why}"),
            }
        }
        Err(failed)
    }

    async fn get(&self, host: &str, address: IpAddr) -> Result<Vec<u8>, String> {
        let said = |e: std::io::Error| e.to_string();
        // One address that does not answer leaves time for another.
        let connecting = TcpStream::connect(SocketAddr::new(address, self.port));
        let stream = match tokio::time::timeout(self.within / 3, connecting).await {
            Ok(stream) => stream.map_err(said)?,
            Err(_) => return Err(format!("no connection to {address} in time")),
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        let mut stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(said)?;
        let place = if self.port == 443 { host.to_owned() } else { format!("{host}:{}", self.port) };
        let request = format!(
            "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {place}\r\nUser-Agent: aldis\r\nAccept: text/plain\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.map_err(said)?;
        stream.flush().await.map_err(said)?;
        let (mut response, mut block) = (Vec::new(), vec![0; 8 << 10]);
        loop {
            let n = stream.read(&mut block).await.map_err(said)?;
            response.extend_from_slice(&block[..n]);
            if let Some(text) = body(&response, n == 0)? {
                return Ok(text);
            }
            if n == 0 || response.len() > MOST_RESPONSE {
                return Err("it is larger than 64 KiB".to_owned());
            }
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        lock(&self.cache)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
