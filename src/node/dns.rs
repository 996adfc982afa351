//! The node's resolver: whom it asks, how often and how long. Made only where the profile asks for something that needs it; until
//! then not one datagram leaves. Names of next hops in a profile do not come here: they are fixed, or the machine's own.

use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;

use crate::config::plan::DnsPlan;
use crate::smtp::mx::Answer;
use crate::time::Duration;

/// Longest that an answer is remembered, and that there is none.
const LONGEST_KEPT: Duration = Duration::from_secs(3600);
const LONGEST_ABSENT: Duration = Duration::from_secs(300);

/// A resolver as `[dns]` wants it. Must be called inside a tokio runtime. Nothing is asked yet.
pub fn resolver(plan: &DnsPlan) -> Result<TokioResolver, String> {
    proving(plan, None)
}

/// The same; with keys to begin from, it has answers proven by DNSSEC, and those that should be and are not are none.
pub fn proving(plan: &DnsPlan, anchors: Option<TrustAnchors>) -> Result<TokioResolver, String> {
    let config = match &plan.servers {
        Some(servers) => {
            let server = |address: &std::net::SocketAddr| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                for connection in &mut connections {
                    connection.port = address.port();
                }
                NameServerConfig::new(address.ip(), true, connections)
            };
            ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect())
        }
        None => {
            let (system, _) = read_system_conf().map_err(|e| format!("/etc/resolv.conf: {e}"))?;
            let (_, _, servers) = system.into_parts();
            // Whoever searches would answer for names nobody asked for.
            ResolverConfig::from_parts(None, Vec::new(), servers)
        }
    };
    let mut options = ResolverOpts::default();
    options.timeout = plan.timeout;
    options.attempts = plan.attempts;
    options.cache_size = plan.cache;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(LONGEST_KEPT);
    options.negative_max_ttl = Some(LONGEST_ABSENT);
    options.try_tcp_on_error = true;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
    if let Some(anchors) = anchors {
        builder = builder.with_trust_anchor(Arc::new(anchors));
    }
    builder.build().map_err(|e| e.to_string())
}

/// What came of one question.
#[derive(Debug)]
pub struct Told<T> {
    /// The records, or why there are none.
    pub answer: Answer<T>,
    /// All of it is proven by DNSSEC.
    pub proven: bool,
    /// The name that the records stand at: another than was asked for where that is an alias.
    pub at: Option<Name>,
    /// How long it holds.
    pub holds: Duration,
}

/// Asks for the records of one kind, CNAMEs followed; `read` picks what is wanted out of each.
pub async fn ask<T>(
    resolver: &TokioResolver,
    name: &Name,
    kind: RecordType,
    read: impl Fn(&RData) -> Option<T>,
) -> Told<T> {
    let none = |answer, holds| Told { answer, proven: false, at: None, holds };
    let absent = |code, ttl: Option<u32>| {
        let holds = ttl.map_or(LONGEST_ABSENT, |ttl| Duration::from_secs(ttl.into()));
        match code {
            ResponseCode::NoError => none(Answer::Nothing, holds),
            ResponseCode::NXDomain => none(Answer::NoName, holds),
            code => none(Answer::Failed(format!("the DNS answers {code}")), Duration::ZERO),
        }
    };
    let lookup = match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => lookup,
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => return absent(none.response_code, none.negative_ttl),
        // Its absence need not be proven: that it is not signed is.
        Err(NetError::Dns(DnsError::Nsec { response, proof: Proof::Insecure, .. })) => {
            return absent(response.response_code, None);
        }
        Err(e) => return none(Answer::Failed(e.to_string()), Duration::ZERO),
    };
    let proving = resolver.options().validate;
    let records = lookup.answers().iter().filter(|r| r.record_type() == kind || r.record_type() == RecordType::CNAME);
    let weakest = records.clone().map(|record| record.proof).min().unwrap_or_default();
    if proving && weakest < Proof::Insecure {
        return none(Answer::Failed(format!("{name} {kind} is not proven by DNSSEC as it should be")), Duration::ZERO);
    }
    let holds =
        records.clone().map(|record| record.ttl).min().map_or(Duration::ZERO, |s| Duration::from_secs(s.into()));
    let at = records.clone().find(|record| record.record_type() == kind).map(|record| record.name.clone());
    let found: Vec<T> = records.filter_map(|record| read(&record.data)).collect();
    let answer = if found.is_empty() { Answer::Nothing } else { Answer::Records(found) };
    Told { answer, proven: proving && weakest == Proof::Secure, at, holds: holds.min(LONGEST_KEPT) }
}

/// A domain as the DNS knows it, not to be looked for anywhere else; letters beyond ASCII in their A-label form.
pub fn full_name(domain: &str) -> Option<Name> {
    let mut name = Name::from_utf8(domain).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A name of the DNS as mail writes it: lower case, no dot at the end; empty for the root.
pub fn plain_name(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}
