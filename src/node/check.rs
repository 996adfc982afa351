//! Checks mail as it comes in: asks the DNS for what [`security::vet`](crate::security::vet) needs, within a time and a number of
//! questions.
//!
//! A body is hashed on the pool, so that neither the switch nor a connection waits for it. So many messages are checked at once; one
//! that finds no place in time, or no answer, or an error of ours, goes on with `temperror`.

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, DnsError, Error, MX, MessageAuthenticator,
    Parameters, RecordSet, ResolverCache, SpfOutput, SpfResult, Txt,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::dns;
use super::outage::Outage;
use crate::config::Plan;
use crate::security::results::Results;
use crate::security::vet::{Verified, Vet, Vetted, authors, vet, without_dns};
use crate::time::Duration;

/// The checks of one node.
#[derive(Clone)]
pub struct Checker {
    authenticator: Option<Arc<MessageAuthenticator>>,
    places: Arc<Semaphore>,
    within: Duration,
    outage: Option<Arc<Outage>>,
}

impl Checker {
    /// A checker for this plan; it has a resolver only where a listener checks mail.
    pub fn new(plan: &Plan) -> Self {
        let resolver = plan.checks_mail().then(|| dns::resolver(&plan.dns));
        if let Some(Err(why)) = &resolver {
            tracing::warn!(%why, "no DNS: mail is taken unchecked");
        }
        let outage = plan.checks_mail().then(|| Outage::new(&plan.dns, plan.checks.pause).ok());
        Self {
            outage: outage.flatten().map(Arc::new),
            authenticator: resolver.and_then(Result::ok).map(|r| Arc::new(MessageAuthenticator(r))),
            places: Arc::new(Semaphore::new(plan.checks.at_once)),
            within: plan.checks.within,
        }
    }

    /// Checks and signs one message.
    pub async fn vet(&self, work: Vet) -> Vetted {
        let work = Arc::new(work);
        let deadline = Instant::now() + self.within;
        let skipped = work.checks.any() && self.outage.as_ref().is_some_and(|outage| outage.lasts());
        let place = match work.checks.any() && !skipped {
            true => timeout_at(deadline, self.places.clone().acquire_owned()).await.ok().and_then(Result::ok),
            false => None,
        };
        let authenticator = self.authenticator.clone().filter(|_| place.is_some());
        let handle = Handle::current();
        let on_pool = work.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            let Some(authenticator) = authenticator else { return without_dns(&on_pool) };
            let asked = Asked::new(on_pool.bounds.lookups);
            vet(&on_pool, &asked, |message, asked| {
                let verified = handle.block_on(verify(&authenticator, &on_pool, message, asked, deadline));
                Verified { exhausted: asked.exhausted(), ..verified }
            })
        });
        match done.await {
            Ok(vetted) => {
                let incomplete = vetted.results.as_ref().is_some_and(Results::incomplete);
                if let Some(outage) = self.outage.as_ref().filter(|_| incomplete && !skipped) {
                    outage.suspect();
                }
                Vetted { skipped, ..vetted }
            }
            Err(error) => {
                // A fault in what reads a stranger's bytes costs nobody's mail. What is unsigned goes back to its sender. At the end
                // of the process nobody hears of it any more.
                if error.is_panic() {
                    tracing::error!(%error, "a message could not be checked for a fault of this program");
                }
                fault(&work)
            }
        }
    }
}

/// What is said where the checks themselves broke.
fn fault(work: &Vet) -> Vetted {
    let bare = Vet {
        arrived: Arc::from(&b"\r\n"[..]),
        stored: Arc::from(&b"\r\n"[..]),
        helo: work.helo.clone(),
        sender: work.sender.clone(),
        authserv_id: work.authserv_id.clone(),
        hostname: String::new(),
        signers: None,
        sealer: None,
        ..*work
    };
    let mut vetted = without_dns(&bare);
    if work.signers.is_some() {
        vetted.signed = crate::security::vet::Signed::Failed("fault of this program".into());
    }
    if let Some(results) = &mut vetted.results {
        // Nothing of the bare message is of its sender's making.
        results.refusal = None;
    }
    vetted
}

/// Counts the questions one message costs. It is the crate's cache, and remembers nothing: what it is asked for will be looked up
/// next, unless there were too many.
pub struct Asked {
    left: AtomicU32,
    over: std::sync::atomic::AtomicBool,
}

impl Asked {
    /// A count that ends at `most`.
    pub const fn new(most: u32) -> Self {
        Self { left: AtomicU32::new(most), over: std::sync::atomic::AtomicBool::new(false) }
    }

    /// Whether there were more.
    pub fn exhausted(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// True when this one is too many: then it is answered at once, with nothing, and nothing of what follows counts.
    fn refuses(&self) -> bool {
        let took = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if !took {
            self.over.store(true, Ordering::Relaxed);
        }
        !took
    }
}

impl ResolverCache<Box<str>, Txt> for Asked {
    fn get<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        self.refuses().then(|| Txt::Error(Error::Dns(DnsError::Resolver("too many questions".into()))))
    }

    fn remove<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: std::time::Instant) {}
}

/// The same for records that have no form for an error.
macro_rules! counted {
    ($($key:ty => $record:ty),* $(,)?) => { $(
        impl ResolverCache<$key, RecordSet<$record>> for Asked {
            fn get<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<RecordSet<$record>>
            where
                $key: Borrow<Q>,
            {
                self.refuses().then(|| RecordSet { rrset: Arc::new([]), dnssec_status: Default::default() })
            }

            fn remove<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<RecordSet<$record>>
            where
                $key: Borrow<Q>,
            {
                None
            }

            fn insert(&self, _: $key, _: RecordSet<$record>, _: std::time::Instant) {}
        }
    )* };
}

counted! {
    Box<str> => MX,
    Box<str> => Ipv4Addr,
    Box<str> => Ipv6Addr,
    IpAddr => Box<str>,
}

/// What may stand before the resolver: it answers a question, or lets it pass.
pub trait Before:
    ResolverCache<Box<str>, Txt>
    + ResolverCache<Box<str>, RecordSet<MX>>
    + ResolverCache<Box<str>, RecordSet<Ipv4Addr>>
    + ResolverCache<Box<str>, RecordSet<Ipv6Addr>>
    + ResolverCache<IpAddr, RecordSet<Box<str>>>
{
}

impl Before for Asked {}

/// Asks for everything `work` wants to know of `message`; what is not known at the deadline is left out. Must be called inside a
/// tokio runtime. The fuzzer answers every question itself.
///
/// A stranger's own servers may be as slow as he likes: none of them keeps the domains in From from being asked. Each signature has its
/// own time, and all of them together leave a third of it for DMARC.
pub async fn verify<'m, B: Before>(
    authenticator: &MessageAuthenticator,
    work: &Vet,
    message: &'m AuthenticatedMessage<'m>,
    asked: &'m B,
    deadline: Instant,
) -> Verified<'m> {
    let checks = work.checks;
    let for_dmarc = if checks.dmarc { deadline.saturating_duration_since(Instant::now()) / 3 } else { Duration::ZERO };
    let first = deadline - for_dmarc;
    let spf = async {
        let client = work.client.filter(|_| checks.spf)?.to_canonical();
        timeout_at(first, check_sender(authenticator, work, client, asked)).await.ok()
    };
    let dkim =
        async { if checks.dkim { Some(check_signatures(authenticator, message, asked, first).await) } else { None } };
    let arc = async {
        let verifying = authenticator.verify_arc(counting(message, asked));
        if checks.arc { timeout_at(deadline, verifying).await.ok() } else { None }
    };
    let author = async {
        let (spf, dkim) = tokio::join!(spf, dkim);
        let dmarc = match (checks.dmarc, &dkim) {
            (true, Some(dkim)) => {
                check_authors(authenticator, work, message, (spf.as_ref(), dkim), asked, deadline).await
            }
            (true, None) | (false, _) => None,
        };
        (spf, dkim, dmarc)
    };
    let ((spf, dkim, dmarc), arc) = tokio::join!(author, arc);
    Verified { spf, dkim, dmarc, arc, exhausted: false }
}

/// Each signature apart, all at once: one whose key does not come in time is a `temperror` of its own.
async fn check_signatures<'m, B: Before>(
    authenticator: &MessageAuthenticator,
    message: &'m AuthenticatedMessage<'m>,
    asked: &'m B,
    deadline: Instant,
) -> Vec<DkimOutput<'m>> {
    let malformed = message.errors.iter().filter(|h| matches!(h.header, Error::Dkim(_)));
    let mut outputs: Vec<_> = malformed.map(|h| DkimOutput::neutral(h.header.clone())).collect();
    let verifying = message.dkim_headers.iter().map(|header| async move {
        let mut alone = message.clone();
        alone.dkim_headers = vec![header.clone()];
        alone.errors.clear();
        let found = timeout_at(deadline, authenticator.verify_dkim(counting(&alone, asked))).await;
        let result = found.ok().and_then(|found| found.first().map(|output| output.result().clone()));
        let output = match result.unwrap_or_else(|| DkimResult::TempError(no_answer())) {
            DkimResult::Pass => DkimOutput::pass(),
            DkimResult::Neutral(e) => DkimOutput::neutral(e),
            DkimResult::Fail(e) => DkimOutput::fail(e),
            DkimResult::PermError(e) => DkimOutput::perm_err(e),
            DkimResult::TempError(e) => DkimOutput::temp_err(e),
            DkimResult::None => DkimOutput::neutral(Error::ParseError),
        };
        output.with_signature(&header.header)
    });
    outputs.extend(join_all(verifying).await);
    outputs
}

/// Each domain in From apart, all at once.
async fn check_authors<B: Before>(
    authenticator: &MessageAuthenticator,
    work: &Vet,
    message: &AuthenticatedMessage<'_>,
    (spf, dkim): (Option<&SpfOutput>, &[DkimOutput<'_>]),
    asked: &B,
    deadline: Instant,
) -> Option<Vec<DmarcOutput>> {
    let late = SpfOutput::new(String::new()).with_result(SpfResult::TempError);
    let late = &late;
    let domains = authors(message);
    let asking = domains.iter().take(work.bounds.authors).map(|domain| async move {
        let alone = AuthenticatedMessage { from: vec![format!("a@{domain}")], ..AuthenticatedMessage::default() };
        let parameters = DmarcParameters {
            message: &alone,
            dkim_output: dkim,
            dkim2_output: None,
            rfc5321_mail_from_domain: work.sender.rsplit_once('@').map_or(&work.helo, |(_, domain)| domain),
            spf_output: spf.unwrap_or(late),
        };
        let found = timeout_at(deadline, authenticator.verify_dmarc(counting(parameters, asked))).await;
        let unknown = || DmarcOutput::new(domain.clone()).with_spf_result(DmarcResult::TempError(no_answer()));
        found.unwrap_or_else(|_| unknown())
    });
    Some(join_all(asking).await)
}

fn no_answer() -> Error {
    Error::Dns(DnsError::Resolver("no answer in time".into()))
}

/// MAIL's domain, or the client's own name for `<>` (RFC 7208 2.4).
async fn check_sender<B: Before>(
    authenticator: &MessageAuthenticator,
    work: &Vet,
    client: IpAddr,
    asked: &B,
) -> SpfOutput {
    let (helo, host) = (work.helo.as_str(), work.hostname.as_str());
    let parameters = match work.sender.as_str() {
        "" => SpfParameters::verify_ehlo(client, helo, host),
        sender => SpfParameters::verify_mail_from(client, helo, host, sender),
    };
    authenticator.verify_spf(counting(parameters, asked)).await
}

fn counting<P, B: Before>(params: P, asked: &B) -> Parameters<'_, P, B, B, B, B, B> {
    Parameters {
        params,
        cache_txt: Some(asked),
        cache_mx: Some(asked),
        cache_ptr: Some(asked),
        cache_ipv4: Some(asked),
        cache_ipv6: Some(asked),
    }
}
