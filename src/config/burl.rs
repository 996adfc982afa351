//! `listener.burl`: whose messages a submission listener fetches (RFC 4468), and what it is known by there.

use super::profile::{self, Context, optional};
use super::reader::{Reader, join, list, parsed};
use super::smarthost::{Trust, is_loopback};
use super::tree::Entry;
use super::{schema, secrets};
use crate::smtp::burl::IMAP_PORT;
use crate::smtp::urlfetch::Credentials;

/// IMAP servers a listener may fetch from.
const MOST_SERVERS: usize = 16;

/// What a listener does with BURL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BurlPlan {
    /// The servers, in small letters as they stand in URLs, and their ports.
    pub servers: Vec<(String, u16)>,
    /// What it logs in with.
    pub credentials: Credentials,
    /// How the line is protected.
    pub tls: ImapTls,
    /// What is asked of certificates.
    pub trust: Trust,
}

/// TLS towards an IMAP server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImapTls {
    /// Before anything is said.
    StartTls,
    /// From the first byte.
    Implicit,
    /// None: to this machine alone.
    Off,
}

/// Reads the table.
pub fn read(reader: &mut Reader, context: &Context<'_>, path: &str, entry: &Entry) -> Option<BurlPlan> {
    let mut s = reader.scope(&schema::BURL, path, Some(entry));
    let servers = s.field("servers", list(server));
    let plain = |t: &str| !t.is_empty() && t.len() <= 128 && !t.chars().any(char::is_control);
    let user = s.field("user", parsed(|t| plain(t).then(|| t.to_owned())));
    let file = s.field("password_file", parsed(profile::path));
    let tls = s.field(
        "encryption",
        parsed(|t| {
            Some(match t {
                "starttls" => ImapTls::StartTls,
                "implicit" => ImapTls::Implicit,
                "off" => ImapTls::Off,
                _ => return None,
            })
        }),
    );
    let ca = optional(&mut s, "ca", parsed(profile::path));
    let pins = s.field("pins", list(secrets::fingerprint));
    let file = context.resolve(&file?);
    let password = secrets::password_file(reader, context.files, &join(path, "password_file"), &file)?;
    let ca = ca?.map(|p| context.resolve(&p));
    if let Some(ca) = &ca {
        secrets::check_authorities(reader, context.files, &join(path, "ca"), ca);
    }
    let plan = BurlPlan {
        servers: servers?,
        credentials: Credentials { user: user?, password: password.0 },
        tls: tls?,
        trust: Trust { ca, server_name: None, pins: pins?.into_iter().collect() },
    };
    if plan.servers.is_empty() || plan.servers.len() > MOST_SERVERS {
        let problem = format!("{} servers", plan.servers.len());
        reader.problem(&join(path, "servers"), problem, &format!("1 to {MOST_SERVERS}"));
    }
    let vouched = plan.trust.ca.is_some() || !plan.trust.pins.is_empty();
    let here = plan.servers.iter().all(|(host, port)| is_loopback(&format!("{host}:{port}")));
    match plan.tls {
        ImapTls::StartTls | ImapTls::Implicit if !vouched => {
            reader.problem(&join(path, "encryption"), "nothing to verify a certificate by", "ca, pins, or both");
        }
        ImapTls::Off if !here => {
            reader.problem(&join(path, "encryption"), "the password is never sent in clear", "starttls, implicit");
        }
        ImapTls::Off if vouched => {
            reader.problem(
                &join(path, "encryption"),
                "off: no certificate is checked",
                "starttls, implicit, or no ca and no pins",
            );
        }
        ImapTls::StartTls | ImapTls::Implicit | ImapTls::Off => {}
    }
    Some(plan)
}

fn server(text: &str) -> Option<(String, u16)> {
    let whole = if text.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']')) {
        text.to_owned()
    } else {
        format!("{text}:{IMAP_PORT}")
    };
    let (host, port) = whole.rsplit_once(':').filter(|_| profile::host_port(&whole))?;
    Some((host.to_ascii_lowercase(), port.parse().ok()?))
}
