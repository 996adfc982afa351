//! How many files the process may have open: one for each session and connection, and those of its own.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Plan;

/// Store, log, sockets, modems, mailboxes being written, and what libraries open.
const OWN: u64 = 256;

/// Raises the process's bound to what the profile's limits come to. Most shells and service managers give 1024 and let a process
/// take more. Where the system does not let it, says so: sessions beyond would not be refused but left waiting.
pub fn allow(plan: &Plan) {
    let limits = &plan.limits;
    let wanted = OWN + limits.sessions as u64 + 2 * (limits.deliveries + limits.deliveries / 4 + 1) as u64;
    let mut bound = getrlimit(Resource::Nofile);
    if bound.current.is_none_or(|now| now >= wanted) {
        return;
    }
    let may = bound.maximum.map_or(wanted, |most| most.min(wanted));
    bound.current = Some(may);
    if let Err(error) = setrlimit(Resource::Nofile, bound) {
        tracing::warn!(%error, wanted, "the number of open files cannot be raised");
    } else if may < wanted {
        tracing::warn!(
            may,
            wanted,
            "the system lets this process open fewer files than limits.sessions and limits.deliveries come to; raise its hard limit (LimitNOFILE in a systemd unit), or lower them"
        );
    }
}
