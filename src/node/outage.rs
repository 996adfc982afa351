//! Remembers for a while that no server of the DNS answers, so that not every message waits to find it out again.
//!
//! A question that nobody answers proves nothing: its name may be a stranger's, whose servers are silent because he wants them to be, and
//! who would like checks to be left out. So the root is asked for, about which servers of the profile say something whatever strangers do:
//! any answer will do, even that there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::Instant;

use super::dns;
use crate::config::plan::DnsPlan;
use crate::time::Duration;

/// What is known of the servers.
pub struct Outage {
    /// One that remembers no answers.
    resolver: TokioResolver,
    pause: Duration,
    until: Mutex<Option<Instant>>,
    /// Somebody is finding out.
    asking: AtomicBool,
}

impl Outage {
    /// Nothing is known yet. Once no server has answered, that counts for `pause`. Must be called inside a tokio runtime.
    pub fn new(plan: &DnsPlan, pause: Duration) -> Result<Self, String> {
        let resolver = dns::resolver(&DnsPlan { cache: 0, ..plan.clone() })?;
        Ok(Self { resolver, pause, until: Mutex::default(), asking: AtomicBool::new(false) })
    }

    /// Whether no server answered a moment ago.
    pub fn lasts(&self) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| until > Instant::now())
    }

    /// Something was not answered: finds out, beside what else is done, whether anything is.
    pub fn suspect(self: &Arc<Self>) {
        if self.pause.is_zero() || self.lasts() || self.asking.swap(true, Ordering::Relaxed) {
            return;
        }
        let outage = self.clone();
        tokio::spawn(async move {
            if !outage.is_answered().await {
                let pause = outage.pause;
                tracing::warn!(
                    ?pause,
                    "no server of the DNS answers: mail is taken unchecked without asking for a while"
                );
                let until = Instant::now() + pause;
                *outage.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
            }
            outage.asking.store(false, Ordering::Relaxed);
        });
    }

    async fn is_answered(&self) -> bool {
        match self.resolver.lookup(Name::root(), RecordType::NS).await {
            Ok(_) | Err(NetError::Dns(_)) => true,
            Err(_) => false,
        }
    }
}
