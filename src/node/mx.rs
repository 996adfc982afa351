//! Next hops that the DNS names: asks for the hosts of a domain and what protects them, and remembers the answers while they hold.
//!
//! What follows from the answers is decided by [`crate::smtp::mx`]; a domain that is known becomes a [`NextHop`] like any other, which
//! lives as long as the answers stay the same, with all that was learned of its hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;

use super::clock::Clock;
use super::dns::{Told, ask, full_name, plain_name, proving};
use super::next_hop::{Common, NextHop};
use super::sts::Policies;
use crate::config::Plan;
use crate::config::mx::MxPlan;
use crate::ops::document::MxStatus;
use crate::security::dane::Tlsa;
use crate::security::sts::{Mode, Policy, Stored};
use crate::smtp::mx::{Answer, Exchanger, NoWay, addresses, cut_at_own, exchangers, literal, no_name, unreachable};
use crate::switch::Note;
use crate::time::{Duration, Instant};

/// Longest that answers hold.
const HOUR: Duration = Duration::from_secs(3600);
/// Answers hold at least so long here, so that one message after the other does not ask for the same.
const SHORTEST: Duration = Duration::from_secs(5);
/// How long it counts that nobody could tell.
const DOUBT: Duration = Duration::from_secs(10);
/// Domains that a status shows: those that were used last.
const SHOWN: usize = 50;

/// How the connection to a host is to be protected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Protection {
    /// As the profile says for domains that say nothing.
    Usual,
    /// Never in clear, whoever answers: it has TLSA records, and none of a kind that can be checked (RFC 7672 2.2).
    Encrypted,
    /// Its certificate is one that these proven records at this name are about: its own, or what that is an alias of.
    Dane(Vec<Tlsa>, String),
    /// Its certificate is signed for its name, as its domain's policy asks.
    Sts,
    /// The same, but the domain only tests it.
    StsTesting,
    /// It is not to be used, and why.
    Barred(String),
}

/// One address of one host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The host.
    pub host: String,
    /// Where to connect; `None` where that is not known, and it is barred.
    pub address: Option<SocketAddr>,
    /// Where it stands among the others.
    pub place: (u16, u16),
    /// How the connection is to be protected.
    pub protection: Protection,
}

/// What is known of a domain.
struct Known {
    /// What the answers come to.
    targets: Vec<Target>,
    hop: Result<Arc<NextHop>, NoWay>,
    until: Instant,
}

/// One domain that mail was for.
#[derive(Default)]
struct Domain {
    /// Held while the DNS is asked, by the one that asks.
    asking: tokio::sync::Mutex<()>,
    known: Mutex<Option<Known>>,
    used: Mutex<Instant>,
}

/// A domain, and whether its mail may do without the protection that the domain publishes.
type Key = (String, bool);

/// All of them.
pub struct Exchange {
    plan: MxPlan,
    /// Names of this node.
    own: Vec<String>,
    /// Where it listens, as far as the profile says so.
    own_addresses: Vec<SocketAddr>,
    clock: Clock,
    plain: TokioResolver,
    /// One that proves its answers, for names below these keys.
    proving: Option<(TokioResolver, Vec<Name>)>,
    /// Where policies of domains count.
    policies: Option<Policies>,
    domains: Mutex<BTreeMap<Key, Arc<Domain>>>,
}

impl Exchange {
    /// `None` where no route leads to it. Must be called inside a tokio runtime; nothing is asked yet.
    pub fn new(
        plan: &Plan,
        common: &Common,
        clock: Clock,
        stored: &[(String, Stored)],
    ) -> Result<Option<Self>, String> {
        if !plan.asks_for_mx() {
            return Ok(None);
        }
        let proven = match plan.mx.dane {
            true => {
                let (anchors, names) = anchors(plan.mx.trust_anchor.as_deref())?;
                Some((proving(&plan.dns, Some(anchors))?, names))
            }
            false => None,
        };
        // A web server that is slow must not be what mail waits for.
        let fetch_within = clock.real_span(plan.mx.within / 3);
        let policies = |chain| Policies::new(&plan.mx, chain, fetch_within, (clock.now(), stored));
        Ok(Some(Self {
            policies: common.authorities.clone().map(policies).transpose()?,
            plan: plan.mx.clone(),
            own: vec![plan.node.hostname.clone()],
            own_addresses: plan.listeners.iter().filter_map(|l| l.address.net()).collect(),
            clock,
            plain: proving(&plan.dns, None)?,
            proving: proven,
            domains: Mutex::default(),
        }))
    }

    /// The next hop for a domain's mail, and what was noticed where it had to be asked for. `open`: its sender would rather have it
    /// arrive in clear than not at all.
    pub async fn next_hop(
        &self,
        common: &Common,
        domain: &str,
        open: bool,
    ) -> (Result<Arc<NextHop>, NoWay>, Vec<Note>) {
        let entry = self.entry(domain, open);
        if let Some(hop) = entry.fresh(self.clock.at()) {
            return (hop, Vec::new());
        }
        let _asking = entry.asking.lock().await;
        if let Some(hop) = entry.fresh(self.clock.at()) {
            return (hop, Vec::new());
        }
        let mut notes = Vec::new();
        let real = self.clock.real_span(self.plan.within);
        let found = match tokio::time::timeout(real, self.look_up(domain, open, &mut notes)).await {
            Ok(found) => found,
            Err(_) => Err(NoWay::later(format!("the DNS took too long over {domain}"))),
        };
        let learned = self.policies.iter().flat_map(Policies::learned);
        notes.extend(learned.map(|(domain, policy)| Note::Policy { domain, policy: Box::new(policy) }));
        (entry.learn(common, &self.plan, domain, found, self.clock.at()), notes)
    }

    /// How the domains used last are.
    pub fn status(&self) -> Vec<MxStatus> {
        let now = self.clock.at();
        let mut domains: Vec<_> =
            lock(&self.domains).iter().map(|(key, d)| (*lock(&d.used), key.clone(), d.clone())).collect();
        domains.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
        domains.truncate(SHOWN);
        let shown = |(_, (domain, open), entry): (Instant, Key, Arc<Domain>)| {
            let known = lock(&entry.known);
            let (hosts, why) = match known.as_ref()?.hop.as_ref() {
                Ok(hop) => (hop.status(now, "").hosts, None),
                Err(no) => (Vec::new(), Some(format!("{} {}", no.status, no.why))),
            };
            Some(MxStatus { domain, tls_optional: open, hosts, why })
        };
        domains.into_iter().filter_map(shown).collect()
    }

    fn entry(&self, domain: &str, open: bool) -> Arc<Domain> {
        let now = self.clock.at();
        let mut domains = lock(&self.domains);
        let key = (domain.to_owned(), open);
        if domains.len() >= self.plan.domains && !domains.contains_key(&key) {
            let oldest = domains.iter().min_by_key(|(_, d)| *lock(&d.used)).map(|(key, _)| key.clone());
            oldest.and_then(|key| domains.remove(&key));
        }
        let entry = domains.entry(key).or_default().clone();
        *lock(&entry.used) = now;
        entry
    }

    /// Every address to try, and how long that holds.
    async fn look_up(&self, domain: &str, open: bool, notes: &mut Vec<Note>) -> Result<(Vec<Target>, Duration), NoWay> {
        if let Some(address) = literal(domain, self.plan.bounds) {
            return address.map(|address| (vec![self.target(domain, Some(address), (0, 0), Protection::Usual)], HOUR));
        }
        let name = full_name(domain).ok_or_else(|| no_name(domain))?;
        let ascii = plain_name(&name);
        let resolver = self.resolver(&name, open);
        let policy = async {
            match &self.policies {
                Some(policies) if !open => Some(policies.of(&self.plain, self.clock.now(), &ascii).await),
                _ => None,
            }
        };
        let (mut told, policy) = tokio::join!(ask(resolver, &name, RecordType::MX, exchanger), policy);
        if let Some(why) = policy.as_ref().and_then(|found| found.failed.clone()) {
            notes.push(Note::NoPolicy { why });
        }
        let beyond = told.answer.cut(self.plan.bounds.answers);
        note(notes, "answers", beyond, self.plan.bounds.answers);
        let own: Vec<&str> = self.own.iter().map(String::as_str).collect();
        let policy_holds = policy.as_ref().map_or(HOUR, |found| found.holds);
        let (proven, mut holds) = (told.proven, told.holds.min(policy_holds).min(HOUR));
        let found = exchangers(&ascii, &own, told.answer, self.plan.bounds)?;
        note(notes, "hosts", found.beyond, self.plan.bounds.hosts);

        let mut asking = JoinSet::new();
        for (group, host) in (0_u16..).zip(&found.hosts) {
            let Some(name) = full_name(&host.name) else { continue };
            let asked = Asked {
                resolver: self.resolver(&name, open).clone(),
                // Of a host that nobody has proven to be the domain's, records say nothing. The domain itself is proven by its address.
                dane: self.plan.dane && !open && (proven || found.implicit),
                port: self.plan.port,
                answers: self.plan.bounds.answers,
            };
            let place = (host.preference, group);
            asking.spawn(async move { (place, asked.host(&name).await) });
        }
        let (mut targets, mut told) = (Vec::new(), BTreeSet::new());
        while let Some(joined) = asking.join_next().await {
            let Ok((place, host)) = joined else { continue };
            told.insert(place.1);
            let name = found.hosts.get(usize::from(place.1)).map(|h| h.name.clone()).unwrap_or_default();
            holds = holds.min(host.holds);
            note(notes, "answers", host.beyond, self.plan.bounds.answers);
            match addresses(host.v6, host.v4, self.plan.bounds) {
                Ok((addresses, beyond)) => {
                    note(notes, "addresses", beyond, self.plan.bounds.addresses);
                    targets.extend(
                        addresses.into_iter().map(|a| self.target(&name, Some(a), place, host.protection.clone())),
                    );
                }
                Err(why) => {
                    let why = format!("the address of {name} is not known: {why}");
                    targets.push(self.target(&name, None, place, Protection::Barred(why)));
                }
            }
        }
        // What nobody told of a host is no reason to believe that it has no address.
        for (group, host) in (0_u16..).zip(&found.hosts).filter(|(group, _)| !told.contains(group)) {
            let why = format!("the address of {} could not be asked for", host.name);
            targets.push(self.target(&host.name, None, (host.preference, group), Protection::Barred(why)));
        }
        if targets.is_empty() {
            return Err(unreachable(&ascii, &found));
        }
        cut_at_own(&ascii, &mut targets, &self.own_addresses, |target| (target.place.0, target.address))?;
        // Addresses of one host keep their order; hosts came back in any.
        targets.sort_by_key(|t| t.place);
        if let Some(policy) = policy.and_then(|found| found.policy) {
            targets.iter_mut().for_each(|target| keep_to(&policy, &ascii, target, notes));
        }
        Ok((targets, holds))
    }

    fn target(&self, host: &str, address: Option<IpAddr>, place: (u16, u16), protection: Protection) -> Target {
        let address = address.map(|address| SocketAddr::new(address, self.plan.port));
        Target { host: host.to_owned(), address, place, protection }
    }

    /// Whom to ask about a name: where no trusted key stands above it, nothing can be proven, and that is known.
    fn resolver(&self, name: &Name, open: bool) -> &TokioResolver {
        match &self.proving {
            Some((proving, above)) if !open && above.iter().any(|anchor| anchor.zone_of(name)) => proving,
            _ => &self.plain,
        }
    }
}

impl Domain {
    /// What is known and still holds.
    fn fresh(&self, now: Instant) -> Option<Result<Arc<NextHop>, NoWay>> {
        lock(&self.known).as_ref().filter(|known| known.until > now).map(|known| known.hop.clone())
    }

    /// Takes answers in. Where they are the same as before, so is the next hop.
    fn learn(
        &self,
        common: &Common,
        plan: &MxPlan,
        domain: &str,
        found: Result<(Vec<Target>, Duration), NoWay>,
        now: Instant,
    ) -> Result<Arc<NextHop>, NoWay> {
        let mut known = lock(&self.known);
        let (targets, hop, holds) = match found {
            Err(no) => (Vec::new(), Err(no), DOUBT),
            Ok((targets, holds)) => {
                let same = known.as_ref().filter(|k| k.targets == targets).and_then(|k| k.hop.clone().ok());
                let hop = match same {
                    Some(hop) => Ok(hop),
                    None => NextHop::mx(common, plan, domain, &targets).map(Arc::new).map_err(NoWay::later),
                };
                // What bars a host may be over soon.
                let doubt = targets.iter().any(|t| matches!(t.protection, Protection::Barred(_)));
                (targets, hop, if doubt { DOUBT } else { holds.max(SHORTEST) })
            }
        };
        *known = Some(Known { targets, hop: hop.clone(), until: now + holds });
        hop
    }
}

/// How one host is asked for.
struct Asked {
    resolver: TokioResolver,
    dane: bool,
    port: u16,
    answers: usize,
}

/// What is known of one host.
struct Host {
    v6: Answer<Ipv6Addr>,
    v4: Answer<Ipv4Addr>,
    protection: Protection,
    holds: Duration,
    /// Records left out, because there are more than may be looked at.
    beyond: usize,
}

impl Asked {
    async fn host(&self, name: &Name) -> Host {
        let six = ask(&self.resolver, name, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(address.0),
            _ => None,
        });
        let four = ask(&self.resolver, name, RecordType::A, |data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        });
        let (mut six, mut four) = tokio::join!(six, four);
        let mut beyond = six.answer.cut(self.answers) + four.answer.cut(self.answers);
        let mut holds = holding(&six).min(holding(&four));
        // A host whose addresses are not proven has no records that are (RFC 7672 2.2.2).
        let unproven = |is_some: bool, proven: bool| is_some && !proven;
        let addressed = matches!(six.answer, Answer::Records(_)) || matches!(four.answer, Answer::Records(_));
        let proven = addressed
            && !unproven(matches!(six.answer, Answer::Records(_)), six.proven)
            && !unproven(matches!(four.answer, Answer::Records(_)), four.proven);
        let mut protection = Protection::Usual;
        if self.dane && proven {
            // Behind an alias the records stand at what it leads to, or else at the alias (RFC 7672 2.2.3).
            let behind = six.at.as_ref().or(four.at.as_ref()).filter(|at| *at != name);
            for base in behind.into_iter().chain([name]) {
                let (found, held, left) = self.tlsa(base).await;
                (protection, holds, beyond) = (found, holds.min(held), beyond + left);
                if protection != Protection::Usual {
                    break;
                }
            }
        }
        Host { v6: six.answer, v4: four.answer, protection, holds, beyond }
    }

    async fn tlsa(&self, host: &Name) -> (Protection, Duration, usize) {
        let plain = plain_name(host);
        let Some(name) = full_name(&format!("_{}._tcp.{plain}", self.port)) else {
            return (Protection::Barred(format!("{plain} is too long a name to ask for TLSA records")), DOUBT, 0);
        };
        let mut told = ask(&self.resolver, &name, RecordType::TLSA, |data| match data {
            RData::TLSA(r) => Some(Tlsa::new(r.cert_usage.into(), r.selector.into(), r.matching.into(), &r.cert_data)),
            _ => None,
        })
        .await;
        let beyond = told.answer.cut(self.answers);
        let protection = match told.answer {
            Answer::Nothing | Answer::NoName => Protection::Usual,
            Answer::Failed(why) => Protection::Barred(format!("the TLSA records of {plain} are not known: {why}")),
            Answer::Records(_) if !told.proven => Protection::Usual,
            Answer::Records(records) => {
                let mut usable: Vec<Tlsa> = records.into_iter().flatten().collect();
                usable.sort_unstable();
                if usable.is_empty() { Protection::Encrypted } else { Protection::Dane(usable, plain) }
            }
        };
        (protection, told.holds, beyond)
    }
}

/// What a domain's policy asks of a host. Where it has TLSA records, these count alone (RFC 8461 2).
fn keep_to(policy: &Policy, domain: &str, target: &mut Target, notes: &mut Vec<Note>) {
    if matches!(target.protection, Protection::Dane(..) | Protection::Barred(_)) {
        return;
    }
    let why = || format!("the MTA-STS policy of {domain} does not name {}", target.host);
    target.protection = match (policy.mode, policy.names(&target.host)) {
        (Mode::None, _) => return,
        (Mode::Enforce, true) => Protection::Sts,
        (Mode::Enforce, false) => Protection::Barred(why()),
        (Mode::Testing, true) if target.protection == Protection::Usual => Protection::StsTesting,
        (Mode::Testing, true) => return,
        (Mode::Testing, false) => return notes.push(Note::Untrue { host: target.host.clone(), why: why() }),
    };
}

/// How long an answer about addresses holds; that there is none of a family bounds nothing more than an hour.
fn holding<T>(told: &Told<T>) -> Duration {
    match told.answer {
        Answer::Records(_) | Answer::Failed(_) => told.holds,
        Answer::Nothing | Answer::NoName => told.holds.max(SHORTEST),
    }
}

fn exchanger(data: &RData) -> Option<Exchanger> {
    let RData::MX(mx) = data else { return None };
    Some(Exchanger { preference: mx.preference, name: plain_name(&mx.exchange) })
}

fn note(notes: &mut Vec<Note>, what: &'static str, beyond: usize, most: usize) {
    if beyond > 0 {
        notes.push(Note::Bounded { what, count: most + beyond });
    }
}

/// The keys to begin from, and the names they stand at.
fn anchors(text: Option<&str>) -> Result<(TrustAnchors, Vec<Name>), String> {
    let Some(text) = text else { return Ok((TrustAnchors::default(), vec![Name::root()])) };
    let anchors: TrustAnchors = text.parse().map_err(|e| format!("mx.trust_anchor: {e}"))?;
    let owners = text.lines().filter(|line| line.contains("DNSKEY")).filter_map(|l| l.split_whitespace().next());
    let names: Vec<Name> = owners.filter(|owner| !owner.starts_with(';')).filter_map(full_name).collect();
    Ok((anchors, names))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
