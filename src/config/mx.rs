//! `[mx]`: how mail goes to the hosts that the DNS names for its domain.

use std::path::{Path, PathBuf};

use hickory_proto::dnssec::TrustAnchors;

use super::cross::Declared;
use super::plan::Plan;
use super::profile::{self, Context, optional};
use super::reader::{Reader, boolean, integer, join, parsed};
use super::smarthost::{Manner, encryption, manner};
use super::tree::Entry;
use super::{schema, secrets};
use crate::mail::Hop;
use crate::smtp::client::Encryption;
use crate::smtp::mx::Bounds;
use crate::time::Duration;
use crate::units::parse_duration;

/// `[mx]`
#[derive(Clone, PartialEq, Debug)]
pub struct MxPlan {
    /// What is done about TLS where a domain says nothing of it.
    pub encryption: Encryption,
    /// TLSA records count (RFC 7672), so that answers must be proven.
    pub dane: bool,
    /// DNSKEY records that are trusted, as they stand in their file; `None`: those of the root.
    pub trust_anchor: Option<String>,
    /// Policies that domains publish over HTTPS count (RFC 8461).
    pub mta_sts: bool,
    /// Who signs the certificates that such policies ask for.
    pub ca: Option<PathBuf>,
    /// Where such policies are served.
    pub mta_sts_port: u16,
    /// Where all of them listen.
    pub port: u16,
    /// How much of what the DNS says is looked at.
    pub bounds: Bounds,
    /// Domains that are remembered.
    pub domains: usize,
    /// Longest time for all questions about one domain.
    pub within: Duration,
    /// How their hosts are spoken to.
    pub manner: Manner,
}

impl MxPlan {
    /// Whether some host may show who it is.
    pub const fn may_verify(&self) -> bool {
        self.dane || self.mta_sts
    }
}

impl Plan {
    /// Whether any mail goes by what the DNS says: without it not one question is asked.
    pub fn asks_for_mx(&self) -> bool {
        self.directory.routes.routes.iter().any(|route| matches!(route.hop, Hop::Mx(_)))
    }
}

/// Reads the table.
pub fn read(reader: &mut Reader, context: &Context<'_>, entry: Option<&Entry>) -> Option<MxPlan> {
    let mut s = reader.scope(&schema::MX, "mx", entry);
    let encryption = s.field("tls", parsed(|t| encryption(t).filter(|e| *e != Encryption::Verified)));
    let dane = s.field("dane", boolean);
    let anchor = optional(&mut s, "trust_anchor", parsed(profile::path));
    let mta_sts = s.field("mta_sts", boolean);
    let ca = optional(&mut s, "ca", parsed(profile::path));
    let sts_port = s.field("mta_sts_port", integer(1, 65_535));
    let port = s.field("port", integer(1, 65_535));
    let hosts = s.field("hosts", integer(2, 50));
    let addresses = s.field("addresses", integer(2, 20));
    let answers = s.field("answers", integer(10, 1000));
    let loopback = s.field("loopback", boolean);
    let domains = s.field("domains", integer(10, 100_000));
    let bounded =
        |t: &str| parse_duration(t).filter(|d| (Duration::from_secs(1)..=Duration::from_secs(300)).contains(d));
    let within = s.field("lookup_timeout", parsed(bounded));
    let manner = manner(&mut s);
    let trust_anchor = match anchor? {
        None => None,
        Some(path) => Some(trust_anchor(reader, context, &context.resolve(&path))?),
    };
    let ca = ca?.map(|path| context.resolve(&path));
    if let Some(ca) = &ca {
        secrets::check_authorities(reader, context.files, "mx.ca", ca);
    }
    Some(MxPlan {
        encryption: encryption?,
        dane: dane?,
        trust_anchor,
        mta_sts: mta_sts?,
        ca,
        mta_sts_port: u16::try_from(sts_port?).ok()?,
        port: u16::try_from(port?).ok()?,
        bounds: Bounds {
            hosts: usize::try_from(hosts?).ok()?,
            addresses: usize::try_from(addresses?).ok()?,
            answers: usize::try_from(answers?).ok()?,
            loopback: loopback?,
        },
        domains: usize::try_from(domains?).ok()?,
        within: within?,
        manner: manner?,
    })
}

fn trust_anchor(reader: &mut Reader, context: &Context<'_>, path: &Path) -> Option<String> {
    let form = "a file of DNSKEY records, one a line: site.example. IN DNSKEY 257 3 13 ...";
    let text = match context.files.read(path) {
        Ok(file) => String::from_utf8(file.bytes).unwrap_or_default(),
        Err(e) => {
            reader.problem("mx.trust_anchor", format!("cannot read {}: {e}", path.display()), form);
            return None;
        }
    };
    let mut owners = text.lines().filter(|line| line.contains("DNSKEY")).filter_map(|l| l.split_whitespace().next());
    let whole = owners.all(|owner| owner.ends_with('.') || owner.starts_with(';'));
    if !text.contains("DNSKEY") || !whole || text.parse::<TrustAnchors>().is_err() {
        reader.problem("mx.trust_anchor", format!("{} holds no DNSKEY records", path.display()), form);
        return None;
    }
    Some(text)
}

/// What belongs together, and whether it is used.
pub fn check(reader: &mut Reader, d: &Declared<'_>) {
    let Some(plan) = d.mx else { return };
    let at = |key: &str| join("mx", key);
    if plan.trust_anchor.is_some() && !plan.dane {
        reader.problem(&at("trust_anchor"), "nothing is proven by it", "dane = true");
    }
    if plan.mta_sts && plan.ca.is_none() {
        reader.problem(&at("mta_sts"), "no authority to check certificates by", "ca");
    }
    if plan.ca.is_some() && !plan.mta_sts {
        reader.problem(&at("ca"), "no certificate is checked by it", "mta_sts = true");
    }
    if plan.encryption == Encryption::Off && plan.may_verify() {
        reader.problem(&at("tls"), "no TLS, where domains may ask for it", "opportunistic, required");
    }
    let used = d.routes.iter().any(|(_, route)| matches!(route.hop, Hop::Mx(_)));
    if d.written.contains("mx") && !used && d.routes.len() == d.routes_written {
        reader.warn("mx", "no route leads to it", "to = \"mx\" in a [[route]]");
    }
}
