//! What the tables of a profile must have in common. Each rule is one function; all of them always run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::mx::{self, MxPlan};
use super::plan::{
    BearerPlan, KeyingPlan, Limits, ListenerAddress, ListenerKind, ListenerPlan, LocalPlan, MulePeerPlan,
    MulticastPlan, NodePlan, PeerPlan, PmulPlan, ReducePlan, RetryPlan, UserPlan,
};
use super::reader::{Reader, join};
use super::smarthost::{self, SmarthostPlan};
use super::{addresses, authentication, net};
use crate::mail::{Hop, Precedence, Protection};
use crate::route::{Alias, Directory, Pattern, Placed, Rewrite, Route};
use crate::security::dkim::Signer;
use crate::units::show_duration;

/// The parts of a plan, each with the path of its table; what could not be read is absent.
pub struct Declared<'d> {
    /// Names of all peers written, sound or not.
    pub peers: BTreeSet<String>,
    /// Names of all listeners written, sound or not.
    pub listener_names: BTreeSet<String>,
    /// How many routes are written, sound or not.
    pub routes_written: usize,
    /// Names of all smarthosts written, sound or not.
    pub smarthost_names: BTreeSet<String>,
    pub smarthosts: &'d [(String, SmarthostPlan)],
    pub mx: Option<&'d MxPlan>,
    /// Names of all bearers written, sound or not.
    pub bearer_names: BTreeSet<String>,
    /// Names of peers that some bearer lists, sound or not.
    pub carried: BTreeSet<String>,
    pub node: Option<&'d NodePlan>,
    pub limits: Option<&'d Limits>,
    pub listeners: &'d [(String, ListenerPlan)],
    pub users: &'d [(String, (String, UserPlan))],
    pub routes: &'d [(String, Route)],
    pub aliases: &'d [(String, Alias)],
    pub rewrites: &'d [(String, Rewrite)],
    pub local: Option<&'d LocalPlan>,
    pub retry: &'d BTreeMap<Precedence, RetryPlan>,
    pub peer_plans: &'d [(String, PeerPlan)],
    pub bearers: &'d [(String, BearerPlan)],
    pub mules: &'d [(String, MulePeerPlan)],
    pub pmul: &'d [(String, PmulPlan)],
    pub multicast: &'d [(String, MulticastPlan)],
    pub reduce: &'d [(String, ReducePlan)],
    /// Whether `[codec]` names a dictionary, readable or not.
    pub dictionary_named: bool,
    pub dkim: &'d [(String, Arc<Signer>)],
    /// Names of all keys that sign mail, sound or not.
    pub dkim_names: BTreeSet<String>,
    /// Names of all tables written.
    pub written: BTreeSet<&'d str>,
}

pub fn check(reader: &mut Reader, d: &Declared<'_>) {
    listeners_have_their_own_addresses(reader, d);
    passwords_stay_inside_tls(reader, d);
    certificates_name_one_user(reader, d);
    listeners_let_somebody_in(reader, d);
    lmtp_keeps_to_itself(reader, d);
    routes_lead_somewhere(reader, d);
    smarthost::check(reader, d);
    mx::check(reader, d);
    addresses::routes_have_their_bearers(reader, d);
    let directory = addresses::directory(d);
    postmaster_has_a_route(reader, d, &directory);
    addresses::aliases_lead_somewhere(reader, d, &directory);
    addresses::rewrites_apply_somewhere(reader, d);
    retries_end(reader, d);
    peers_are_reachable(reader, d);
    stations_are_distinct(reader, d);
    bearers_fit_their_waveforms(reader, d);
    protection_is_what_it_says(reader, d);
    nets_have_names_where_two_meet(reader, d);
    devices_are_used_once(reader, d);
    directories_do_not_clash(reader, d);
    limits_agree(reader, d);
    net::check(reader, d);
    rules_of_reduction_apply(reader, d);
    a_shared_dictionary_is_named(reader, d);
    authentication::check(reader, d);
}

fn listeners_have_their_own_addresses(reader: &mut Reader, d: &Declared<'_>) {
    let mut taken = BTreeMap::new();
    for (path, listener) in d.listeners.iter().filter(|(_, l)| l.address.port() != Some(0)) {
        if let Some(other) = taken.insert(&listener.address, path) {
            let problem = format!("{} is also the address of {other}", listener.address);
            reader.problem(&join(path, "address"), problem, "an address of its own");
        }
        if let (ListenerAddress::Path(socket), Some(node)) = (&listener.address, d.node)
            && *socket == node.socket
        {
            reader.problem(&join(path, "address"), "is the control socket", "a path of its own");
        }
    }
}

fn passwords_stay_inside_tls(reader: &mut Reader, d: &Declared<'_>) {
    for (path, listener) in d.listeners {
        if listener.auth && listener.tls.is_none() && !listener.address.is_loopback() {
            let problem = format!("passwords would cross the network in clear: {} is no loopback", listener.address);
            reader.problem(
                &join(path, "tls"),
                problem,
                "tls = { certificate, key }, or a loopback address, or auth = false",
            );
        }
        if listener.auth_required && !listener.auth {
            reader.problem(&join(path, "auth_required"), "AUTH is required but not offered", "auth = true");
        }
    }
}

/// Whoever shows a certificate must be one user, and somebody must have signed it.
fn certificates_name_one_user(reader: &mut Reader, d: &Declared<'_>) {
    let mut taken = BTreeMap::new();
    let asked_for = d.listeners.iter().any(|(_, l)| l.tls.as_ref().is_some_and(|t| t.client_ca.is_some()));
    for (path, (_, user)) in d.users {
        let Some(certificate) = &user.certificate else { continue };
        if let Some(other) = taken.insert(certificate, path) {
            let problem = format!("{certificate} also names {other}");
            reader.problem(&join(path, "certificate"), problem, "a name of its own for each user");
        }
        if !asked_for {
            let better = "client_ca in the tls of a [[listener]]";
            reader.warn(&join(path, "certificate"), "no listener asks for client certificates", better);
        }
    }
}

fn listeners_let_somebody_in(reader: &mut Reader, d: &Declared<'_>) {
    if d.listeners.is_empty() {
        reader.warn("listener", "no listener: mail can only come over the air", "a [[listener]]");
    }
    for (path, listener) in d.listeners {
        if listener.auth_required && d.users.is_empty() && listener.trust.is_empty() {
            reader.warn(
                path,
                "nobody can send here: AUTH is required and there is no [[user]]",
                "a [[user]], or trust",
            );
        }
        if listener.trust.iter().any(|(_, length)| *length == 0) && !listener.address.is_loopback() {
            reader.warn(
                &join(path, "trust"),
                "everybody may relay anywhere through this listener",
                "your own networks",
            );
        }
    }
}

/// RFC 2033 5: port 25 is SMTP's. Over LMTP nobody authenticates: its peers are known by their network.
fn lmtp_keeps_to_itself(reader: &mut Reader, d: &Declared<'_>) {
    for (path, listener) in d.listeners.iter().filter(|(_, l)| l.kind == ListenerKind::Lmtp) {
        if listener.address.port() == Some(25) {
            reader.problem(&join(path, "address"), "LMTP must not be spoken on port 25", "another port, such as 24");
        }
        if listener.tls.is_some() && listener.address.net().is_none() {
            reader.problem(
                &join(path, "tls"),
                "a socket of this machine needs no TLS",
                "no tls, or an IP address and port",
            );
        }
        if listener.auth || listener.auth_required {
            reader.problem(
                &join(path, "auth"),
                "AUTH is not offered over LMTP",
                "trust, with the networks of its peers",
            );
        }
    }
}

fn routes_lead_somewhere(reader: &mut Reader, d: &Declared<'_>) {
    if d.routes.is_empty() {
        reader.problem("route", "no route: every recipient would be refused", "at least one [[route]]");
    }
    let own = |target: &str| d.listeners.iter().find(|(_, l)| l.address.to_string() == target);
    let mut seen = BTreeSet::new();
    for (path, route) in d.routes {
        let pattern = route.pattern.to_string();
        if !seen.insert(pattern.clone()) {
            reader.problem(
                &join(path, "match"),
                format!("{pattern} is matched by an earlier route"),
                "each match once",
            );
        }
        if route.refuses && route.pattern == Pattern::Any {
            let problem = "says refuse, and what no route matches is refused anyway";
            reader.problem(&join(path, "to"), problem, "no such route, or one that matches less");
        }
        match &route.hop {
            Hop::Peer(peer) if !d.peers.contains(&*peer.0) => {
                let peers: Vec<&str> = d.peers.iter().map(String::as_str).collect();
                reader.problem(&join(path, "to"), format!("there is no [[peer]] named {peer}"), &peers.join(", "));
            }
            Hop::Smtp(target) | Hop::Lmtp(target) => {
                if let Some((listener, _)) = own(target) {
                    reader.problem(
                        &join(path, "to"),
                        format!("leads back to this node's own {listener}"),
                        "another host",
                    );
                }
            }
            Hop::Peer(_) | Hop::Local | Hop::Hold | Hop::Fetch | Hop::Smarthost(_) | Hop::Mx(_) => {}
        }
    }
}

/// RFC 5321 section 4.5.1: postmaster is always taken, so it must have somewhere to go.
fn postmaster_has_a_route(reader: &mut Reader, d: &Declared<'_>, directory: &Directory) {
    let Some(node) = d.node else { return };
    let local_part = node.postmaster.local();
    let resolved = directory.resolve(&node.postmaster, &mut |_| {});
    let Some(copy) = resolved.copies.first() else { return };
    match copy.placed {
        // A circle of aliases is told where they stand.
        Placed::Route(_) | Placed::NoDomain | Placed::Fault(_) => {}
        Placed::NoRoute | Placed::Unknown if d.routes.is_empty() => {}
        Placed::NoRoute | Placed::Unknown => {
            let problem = format!("no route for {}: reports would have nowhere to go", copy.address);
            reader.problem("node.postmaster", problem, "an address that a [[route]] matches");
        }
        Placed::Refused(_) => {
            let problem = format!("the route of {} says refuse: reports would have nowhere to go", copy.address);
            reader.problem("node.postmaster", problem, "an address that mail can reach");
        }
        Placed::NoMailbox(_) => {
            let users = d.local.map(|local| local.users.join(", ")).unwrap_or_default();
            let problem = format!("{} has no mailbox: local.users does not list {local_part}", copy.address);
            reader.problem("node.postmaster", problem, &users);
        }
    }
}

fn retries_end(reader: &mut Reader, d: &Declared<'_>) {
    for (level, retry) in d.retry {
        if retry.warn >= retry.expire {
            let problem = format!(
                "the delay report ({}) is not due before expiry ({})",
                show_duration(retry.warn),
                show_duration(retry.expire)
            );
            reader.problem(&format!("retry.{level}.warn"), problem, "less than expire");
        }
    }
}

fn peers_are_reachable(reader: &mut Reader, d: &Declared<'_>) {
    for (path, bearer) in d.bearers {
        let at = join(path, "peers");
        if bearer.peers.is_empty() {
            reader.problem(&at, "a bearer without peers carries nothing", "names of [[peer]] tables");
        }
        let mut seen = BTreeSet::new();
        for peer in &bearer.peers {
            if !d.peers.contains(&*peer.0) {
                let peers: Vec<&str> = d.peers.iter().map(String::as_str).collect();
                reader.problem(&at, format!("there is no [[peer]] named {peer}"), &peers.join(", "));
            }
            if !seen.insert(peer) {
                reader.problem(&at, format!("{peer} stands twice"), "each peer once");
            }
        }
    }
    for (path, peer) in d.peer_plans {
        if d.node.is_some_and(|n| n.name == peer.name) {
            reader.problem(&join(path, "name"), "is this node's own name", "the neighbour's node.name");
        }
        if !d.carried.contains(&*peer.name.0) {
            reader.problem(path, "on no bearer: nothing can reach it", "a [[bearer]] that lists it in peers");
        }
    }
}

fn stations_are_distinct(reader: &mut Reader, d: &Declared<'_>) {
    for (path, bearer) in d.bearers {
        let mut taken: BTreeMap<u8, String> = BTreeMap::from([(bearer.station, format!("{path} itself"))]);
        for (peer_path, peer) in d.peer_plans.iter().filter(|(_, p)| bearer.peers.contains(&p.name)) {
            if let Some(other) = taken.insert(peer.station, peer_path.clone()) {
                let problem = format!("station {} on {path} is also that of {other}", peer.station);
                reader.problem(&join(peer_path, "station"), problem, "a number of its own, 0 to 15");
            }
        }
    }
}

fn bearers_fit_their_waveforms(reader: &mut Reader, d: &Declared<'_>) {
    for (path, bearer) in d.bearers {
        let fastest = bearer.choices.iter().map(|c| &c.waveform).max_by_key(|w| w.rate);
        let w = fastest.unwrap_or(&bearer.waveform);
        // Start and stop bit stay on the line between us and the modem: ten bits there for eight on the air.
        let needed = u64::from(w.rate.0) * 10 / 8;
        if u64::from(bearer.baud) < needed {
            let problem = format!("{} baud cannot keep {} fed", bearer.baud, w.rate);
            reader.problem(&join(path, "baud"), problem, &format!("at least {needed}"));
        }
        let choices = bearer.choices.iter().map(|c| &c.waveform).chain([&bearer.waveform]);
        let least = choices.map(|w| w.preamble + w.block).max().unwrap_or_default();
        for (key, cap) in [
            ("max_transmission", bearer.max_transmission),
            ("max_transmission_routine", bearer.max_transmission_routine),
        ] {
            if cap < least {
                let problem = format!("{} does not hold preamble and one block", show_duration(cap));
                reader.problem(&join(path, key), problem, &format!("at least {:.3}s", least.as_secs_f64()));
            }
        }
        if bearer.max_transmission_routine < bearer.max_transmission {
            let key = join(path, "max_transmission_routine");
            reader.problem(&key, "shorter than max_transmission", "at least max_transmission");
        }
        // Another station's longest transmission is no fault.
        if bearer.carrier_stuck_after <= bearer.max_transmission_routine {
            let problem = "a peer's longest transmission would raise the alarm";
            reader.problem(&join(path, "carrier_stuck_after"), problem, "more than max_transmission_routine");
        }
    }
}

fn protection_is_what_it_says(reader: &mut Reader, d: &Declared<'_>) {
    for (path, bearer) in d.bearers {
        for (peer_path, peer) in d.peer_plans.iter().filter(|(_, p)| bearer.peers.contains(&p.name)) {
            match peer.protection {
                Protection::Aead => {}
                Protection::Mac if bearer.protected => reader.warn(
                    &join(path, "protected"),
                    format!(
                        "mail that asks for protection would go to {} in clear unless the modem encrypts",
                        peer.name
                    ),
                    "protection = \"aead\", or protected = false",
                ),
                Protection::Off if bearer.protected => reader.problem(
                    &join(path, "protected"),
                    format!("{} is not protected at all", peer.name),
                    "protection = \"aead\", or protected = false",
                ),
                Protection::Off => reader.warn(
                    &join(peer_path, "protection"),
                    "anyone who can hear this net can forge and read its mail",
                    "aead, or mac",
                ),
                Protection::Mac => {}
            }
        }
    }
}

/// A frame of one net, recorded and sent on another, must be worth nothing there.
fn nets_have_names_where_two_meet(reader: &mut Reader, d: &Declared<'_>) {
    for (n, (path, bearer)) in d.bearers.iter().enumerate() {
        for (other_path, other) in d.bearers[..n].iter().filter(|(_, o)| o.net == bearer.net) {
            if let Some(peer) = bearer.peers.iter().find(|p| other.peers.contains(p)) {
                let problem =
                    format!("{peer} is reached by {other_path} too, and frames of one would pass on the other");
                reader.problem(&join(path, "net"), problem, "a name for this net, the same at all its nodes");
            }
        }
    }
}

fn devices_are_used_once(reader: &mut Reader, d: &Declared<'_>) {
    let mut taken = BTreeMap::new();
    for (path, bearer) in d.bearers {
        let keyed = match &bearer.keying {
            KeyingPlan::Lines => None,
            KeyingPlan::Socket(socket) => Some(("keying", socket)),
        };
        for (key, device) in [("device", &bearer.device)].into_iter().chain(keyed) {
            if let Some(other) = taken.insert(device, path) {
                let problem = format!("{} is already used by {other}", device.display());
                reader.problem(&join(path, key), problem, "one of its own");
            }
        }
    }
}

fn directories_do_not_clash(reader: &mut Reader, d: &Declared<'_>) {
    let (Some(node), Some(local)) = (d.node, d.local) else { return };
    if local.maildir == node.state_dir {
        reader.problem(
            "local.maildir",
            "is node.state_dir: mailboxes would mix with the store",
            "a directory of its own",
        );
    }
    if node.socket == node.state_dir || node.socket == local.maildir {
        reader.problem("node.socket", "is a directory this node uses", "a path of its own");
    }
    // sockaddr_un holds 108 bytes, one of them the final NUL.
    let length = node.socket.as_os_str().len();
    if length > 107 {
        reader.problem("node.socket", format!("{length} bytes are too long for a socket"), "at most 107 bytes");
    }
    if node.socket_mode & 0o007 != 0 {
        reader.warn(
            "node.socket_mode",
            "every user of this machine may order silence and read the queue",
            "0600 or 0660",
        );
    }
}

fn limits_agree(reader: &mut Reader, d: &Declared<'_>) {
    let Some(limits) = d.limits else { return };
    for (path, listener) in d.listeners {
        if listener.tls_required && listener.tls.is_none() {
            reader.problem(&join(path, "tls_required"), "there is no TLS to begin", "tls = { certificate, key }");
        }
        for (key, over, limit) in [
            ("max_size", listener.message_bytes > limits.message_bytes, "limits.message"),
            ("max_recipients", listener.recipients > limits.recipients, "limits.recipients"),
            (
                "sessions_per_address",
                listener.sessions_per_address > limits.sessions_per_address,
                "limits.sessions_per_address",
            ),
        ] {
            if over {
                reader.problem(&join(path, key), format!("more than {limit}"), &format!("at most {limit}"));
            }
        }
    }
    if limits.in_flight_bytes < limits.message_bytes {
        reader.problem("limits.in_flight", "less than one message", "at least limits.message");
    }
    if limits.sessions_per_address > limits.sessions {
        reader.problem("limits.sessions_per_address", "more than limits.sessions", "at most limits.sessions");
    }
    if limits.session_total < limits.session_idle {
        reader.problem("limits.session_total", "less than limits.session_idle", "at least limits.session_idle");
    }
}

fn a_shared_dictionary_is_named(reader: &mut Reader, d: &Declared<'_>) {
    for (path, _) in d.peer_plans.iter().filter(|(_, p)| p.dictionary && !d.dictionary_named) {
        let problem = "no dictionary is named that it could share";
        reader.problem(&join(path, "dictionary"), problem, "[codec] dictionary = \"PATH\", or false here");
    }
}

fn rules_of_reduction_apply(reader: &mut Reader, d: &Declared<'_>) {
    for (n, (path, plan)) in d.reduce.iter().enumerate() {
        let at = join(path, "bearers");
        if plan.bearers.is_empty() {
            reader.problem(&at, "a rule for no bearer applies to nothing", "names of [[bearer]] tables");
        }
        for bearer in plan.bearers.iter().filter(|b| !d.bearer_names.contains(&*b.0)) {
            let known: Vec<&str> = d.bearer_names.iter().map(String::as_str).collect();
            reader.problem(&at, format!("there is no [[bearer]] named {bearer}"), &known.join(", "));
        }
        for (_, pmul) in d.pmul.iter().filter(|(_, pmul)| plan.bearers.contains(&pmul.net.id)) {
            let problem = format!("{} speaks MULE, which carries messages whole", pmul.net.id);
            reader.problem(&at, problem, "names of [[bearer]] tables of kind serial or multicast");
        }
        if plan.rule.is_empty() {
            reader.problem(path, "it leaves nothing out", "strip_headers, drop_html, hold_attachments or scale_images");
        }
        // Whatever it could apply to has met an earlier rule.
        let earlier = |bearer| {
            let takes_all = |e: &&(String, ReducePlan)| {
                e.1.bearers.contains(bearer) && e.1.over_bytes <= plan.over_bytes && e.1.up_to >= plan.up_to
            };
            d.reduce[..n].iter().find(takes_all)
        };
        for bearer in &plan.bearers {
            if let Some((other, _)) = earlier(bearer) {
                let problem = format!("on {bearer} it never applies: {other} stands before it and takes the same mail");
                reader.problem(path, problem, "the rule for larger or lower mail first, or another up_to or over");
            }
        }
    }
}
