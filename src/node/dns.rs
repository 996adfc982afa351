//! The node's resolver: whom it asks, how often and how long. Made only where the profile asks for something that needs it; until
//! then not one datagram leaves. Names of next hops in a profile do not come here: they are fixed, or the machine's own.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;

use crate::config::plan::DnsPlan;
use crate::time::Duration;

/// Longest that an answer is remembered, and that there is none.
const LONGEST_KEPT: Duration = Duration::from_secs(3600);
const LONGEST_ABSENT: Duration = Duration::from_secs(300);

/// A resolver as `[dns]` wants it. Must be called inside a tokio runtime. Nothing is asked yet.
pub fn resolver(plan: &DnsPlan) -> Result<TokioResolver, String> {
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
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map_err(|e| e.to_string())
}
