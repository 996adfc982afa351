//! Which hosts take the mail of a domain, from what the DNS answers: preference, the domain itself where it has no MX, loops, bounds.
//!
//! It asks nobody and reads no clock: a driver asks for MX records and gives the [`Answer`] to [`exchangers`], asks for the addresses of
//! each host it is told, gives these to [`addresses`], and all of it to [`unreachable`] where nothing is left to connect to.
//!
//! RFC 5321 5.1, RFC 7505 (null MX), RFC 5321 4.1.3 (address literals).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::mail::Status;

/// How much of what the DNS says is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Hosts of one domain.
    pub hosts: usize,
    /// Addresses of one host.
    pub addresses: usize,
    /// Records of one answer.
    pub answers: usize,
    /// Addresses of this machine itself may be used. Whoever may name any host could reach by them what listens for this machine alone.
    pub loopback: bool,
}

impl Bounds {
    fn may_use(self, address: &IpAddr) -> bool {
        let address = address.to_canonical();
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        let never = address.is_unspecified() || address.is_multicast() || broadcast;
        !never && (self.loopback || !address.is_loopback())
    }
}

/// What the DNS answers to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer<T> {
    /// At least one record.
    Records(Vec<T>),
    /// The name exists, without records of this kind.
    Nothing,
    /// There is no such name.
    NoName,
    /// It could not be told: no answer, a server that failed, signatures that do not hold.
    Failed(String),
}

/// One MX record, the name in lower case and without its last dot; empty: the root, which says that no mail is taken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Exchanger {
    /// What is lower goes first.
    pub preference: u16,
    /// The host.
    pub name: String,
}

/// Why a domain's mail has nowhere to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoWay {
    /// It has none for good; otherwise asking again may help.
    pub is_permanent: bool,
    /// As reports name it.
    pub status: Status,
    /// In words.
    pub why: String,
}

impl NoWay {
    fn never(status: Status, why: String) -> Self {
        Self { is_permanent: true, status, why }
    }

    /// Nobody could tell.
    pub fn later(why: String) -> Self {
        Self { is_permanent: false, status: Status(4, 4, 3), why }
    }
}

/// The hosts to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exchangers {
    /// In the order of preference; among equals by name. Never empty.
    pub hosts: Vec<Exchanger>,
    /// There are no MX records: it is the domain itself.
    pub implicit: bool,
    /// Hosts that were left out, because there are more than may be looked at.
    pub beyond: usize,
}

/// The hosts of `domain` by its MX records. `own` are the names of this node: from itself on, it is no use to go on.
pub fn exchangers(domain: &str, own: &[&str], answer: Answer<Exchanger>, bounds: Bounds) -> Result<Exchangers, NoWay> {
    let (records, implicit) = match answer {
        Answer::Records(records) => (records, false),
        Answer::Nothing => (vec![Exchanger { preference: 0, name: domain.to_owned() }], true),
        Answer::NoName => return Err(NoWay::never(Status(5, 1, 2), format!("there is no domain {domain}"))),
        Answer::Failed(why) => return Err(NoWay::later(format!("the mail hosts of {domain} are not known: {why}"))),
    };
    let is_null = |record: &Exchanger| record.name.is_empty();
    if records.iter().all(is_null) {
        return Err(NoWay::never(Status(5, 1, 10), format!("{domain} takes no mail (null MX)")));
    }
    // With other records beside it the root is no host, and says nothing (RFC 7505 3).
    let mut named = BTreeSet::new();
    let mut hosts: Vec<Exchanger> = records.into_iter().filter(|r| !is_null(r)).collect();
    hosts.sort_unstable();
    hosts.retain(|record| named.insert(record.name.clone()));
    let is_own = |record: &&Exchanger| own.iter().any(|name| name.eq_ignore_ascii_case(&record.name));
    if let Some(here) = hosts.iter().find(is_own).map(|record| record.preference) {
        hosts.retain(|record| record.preference < here);
    }
    if hosts.is_empty() {
        return Err(loops(domain));
    }
    let beyond = hosts.len().saturating_sub(bounds.hosts);
    hosts.truncate(bounds.hosts);
    Ok(Exchangers { hosts, implicit, beyond })
}

/// The addresses of one host, the families in turn, so that both are tried where there are both; and how many were left out.
///
/// `Ok` without any: it has none that may be used, and nobody doubts that.
pub fn addresses(v6: Answer<Ipv6Addr>, v4: Answer<Ipv4Addr>, bounds: Bounds) -> Result<(Vec<IpAddr>, usize), String> {
    let mut doubt = None;
    let mut some = |answer: Answer<IpAddr>| match answer {
        Answer::Records(records) => records,
        Answer::Nothing | Answer::NoName => Vec::new(),
        Answer::Failed(why) => {
            doubt = Some(why);
            Vec::new()
        }
    };
    let mut v6 = some(v6.map(IpAddr::V6)).into_iter();
    let mut v4 = some(v4.map(IpAddr::V4)).into_iter();
    let mut all = Vec::new();
    loop {
        match (v6.next(), v4.next()) {
            (None, None) => break,
            (one, other) => all.extend(one.into_iter().chain(other)),
        }
    }
    all.retain(|address| bounds.may_use(address));
    let beyond = all.len().saturating_sub(bounds.addresses);
    all.truncate(bounds.addresses);
    match doubt {
        Some(why) if all.is_empty() => Err(why),
        _ => Ok((all, beyond)),
    }
}

/// Leaves out this node by its addresses, as [`exchangers`] does by its names: what is at or behind the preference at which one of `own`
/// stands. `place` tells preference and address.
pub fn cut_at_own<T>(
    domain: &str,
    targets: &mut Vec<T>,
    own: &[SocketAddr],
    place: impl Fn(&T) -> (u16, Option<SocketAddr>),
) -> Result<(), NoWay> {
    let is_own = |(_, address): &(u16, Option<SocketAddr>)| address.is_some_and(|address| own.contains(&address));
    let Some((here, _)) = targets.iter().map(&place).filter(is_own).min() else { return Ok(()) };
    targets.retain(|target| place(target).0 < here);
    if targets.is_empty() { Err(loops(domain)) } else { Ok(()) }
}

fn loops(domain: &str) -> NoWay {
    let why = format!("mail for {domain} loops back to this node: it is the best mail host of it");
    NoWay::never(Status(5, 4, 6), why)
}

/// Why nothing is left to connect to, where every host of a domain has no address for certain.
pub fn unreachable(domain: &str, exchangers: &Exchangers) -> NoWay {
    match exchangers.implicit {
        true => {
            NoWay::never(Status(5, 1, 2), format!("{domain} has neither mail hosts nor an address that may be used"))
        }
        // Records that lead nowhere are an error, and the domain's own address does not count (RFC 5321 5.1).
        false => NoWay::never(Status(5, 4, 4), format!("no mail host of {domain} has an address that may be used")),
    }
}

impl<T> Answer<T> {
    /// The same with other records.
    pub fn map<U>(self, to: impl Fn(T) -> U) -> Answer<U> {
        match self {
            Self::Records(records) => Answer::Records(records.into_iter().map(to).collect()),
            Self::Nothing => Answer::Nothing,
            Self::NoName => Answer::NoName,
            Self::Failed(why) => Answer::Failed(why),
        }
    }

    /// Cuts an answer that has more records than may be looked at; how many were left out.
    pub fn cut(&mut self, most: usize) -> usize {
        let Self::Records(records) = self else { return 0 };
        let beyond = records.len().saturating_sub(most);
        records.truncate(most);
        beyond
    }
}

/// What becomes of mail for a domain that the DNS cannot have.
pub fn no_name(domain: &str) -> NoWay {
    NoWay::never(Status(5, 1, 2), format!("{domain} is no name of the DNS"))
}

/// The address of a domain that is an address literal; `None`: it is a name. RFC 5321 4.1.3.
pub fn literal(domain: &str, bounds: Bounds) -> Option<Result<IpAddr, NoWay>> {
    let inner = domain.strip_prefix('[')?;
    let address = inner.strip_suffix(']').and_then(|text| match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => text[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    });
    let address = address.filter(|address| bounds.may_use(address));
    Some(address.ok_or_else(|| NoWay::never(Status(5, 1, 2), format!("{domain} is no address that may be used"))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { hosts: 4, addresses: 3, answers: 10, loopback: false };

    fn mx(preference: u16, name: &str) -> Exchanger {
        Exchanger { preference, name: name.into() }
    }

    fn names(found: &Exchangers) -> Vec<&str> {
        found.hosts.iter().map(|h| h.name.as_str()).collect()
    }

    #[test]
    fn hosts_stand_in_the_order_of_preference_and_each_once() {
        let records = vec![mx(20, "b.test"), mx(10, "c.test"), mx(30, "c.test"), mx(10, "a.test")];
        let found = exchangers("far.test", &[], Answer::Records(records), BOUNDS).expect("hosts");
        assert_eq!((names(&found), found.implicit, found.beyond), (vec!["a.test", "c.test", "b.test"], false, 0));
        let many = (0..9).map(|n| mx(n, &format!("h{n}.test"))).collect();
        let found = exchangers("far.test", &[], Answer::Records(many), BOUNDS).expect("hosts");
        assert_eq!((found.hosts.len(), found.beyond), (4, 5));
        let mut many = Answer::Records(vec![0; 12]);
        assert_eq!((many.cut(10), many), (2, Answer::Records(vec![0; 10])));
    }

    #[test]
    fn without_mx_the_domain_is_its_own_host() {
        let found = exchangers("far.test", &["ship.test"], Answer::Nothing, BOUNDS).expect("a host");
        assert_eq!((names(&found), found.implicit), (vec!["far.test"], true));
        assert_eq!(unreachable("far.test", &found).status, Status(5, 1, 2));
        let looped = exchangers("far.test", &["FAR.test"], Answer::Nothing, BOUNDS).expect_err("itself");
        assert_eq!((looped.status, looped.is_permanent), (Status(5, 4, 6), true));
    }

    #[test]
    fn what_the_dns_cannot_tell_is_no_reason_to_bounce() {
        let answer = |answer| exchangers("far.test", &[], answer, BOUNDS).expect_err("no host");
        let (gone, later) = (answer(Answer::NoName), answer(Answer::Failed("SERVFAIL".into())));
        assert_eq!((gone.status, gone.is_permanent), (Status(5, 1, 2), true));
        assert_eq!((later.status, later.is_permanent), (Status(4, 4, 3), false));
        let null = answer(Answer::Records(vec![mx(0, "")]));
        assert_eq!((null.status, null.is_permanent), (Status(5, 1, 10), true));
        let beside = exchangers("far.test", &[], Answer::Records(vec![mx(0, ""), mx(10, "a.test")]), BOUNDS);
        let beside = beside.expect("a host beside the root");
        assert_eq!(names(&beside), ["a.test"]);
        assert_eq!(unreachable("far.test", &beside).status, Status(5, 4, 4));
    }

    #[test]
    fn from_itself_on_the_list_is_cut() {
        let records = vec![mx(10, "best.test"), mx(20, "peer.test"), mx(20, "Ship.test"), mx(30, "worse.test")];
        let found = exchangers("far.test", &["ship.test"], Answer::Records(records.clone()), BOUNDS).expect("hosts");
        assert_eq!(names(&found), ["best.test"], "an equal of this node may send it back");
        let looped = exchangers("far.test", &["best.test"], Answer::Records(records), BOUNDS).expect_err("none");
        assert_eq!(looped.status, Status(5, 4, 6));
    }

    #[test]
    fn under_another_name_this_node_is_known_by_its_address() {
        let at = |n: u8| Some(SocketAddr::from(([192, 0, 2, n], 25)));
        let own: Vec<SocketAddr> = at(2).into_iter().collect();
        let all = vec![(10, at(1)), (20, at(3)), (20, at(2)), (30, at(4)), (5, None)];
        let mut targets = all.clone();
        assert_eq!(cut_at_own("far.test", &mut targets, &own, |t| *t), Ok(()));
        assert_eq!(targets, [(10, at(1)), (5, None)]);
        let mut targets = vec![(20, at(2)), (30, at(4))];
        let looped = cut_at_own("far.test", &mut targets, &own, |t| *t).expect_err("nothing before it");
        assert_eq!(looped.status, Status(5, 4, 6));
        let mut targets = all.clone();
        assert_eq!(cut_at_own("far.test", &mut targets, &[], |t| *t), Ok(()));
        assert_eq!(targets, all);
    }

    #[test]
    fn both_families_are_tried_and_doubt_is_no_absence() {
        let v6 = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
        let v4 = |n: u8| Ipv4Addr::new(192, 0, 2, n);
        let found = addresses(Answer::Records(vec![v6(1), v6(2), v6(3)]), Answer::Records(vec![v4(1)]), BOUNDS);
        assert_eq!(found, Ok((vec![v6(1).into(), v4(1).into(), v6(2).into()], 1)));
        let half = addresses(Answer::Failed("timeout".into()), Answer::Records(vec![v4(1)]), BOUNDS);
        assert_eq!(half, Ok((vec![v4(1).into()], 0)));
        assert_eq!(addresses(Answer::Failed("timeout".into()), Answer::Nothing, BOUNDS), Err("timeout".into()));
        assert_eq!(addresses(Answer::NoName, Answer::Nothing, BOUNDS), Ok((vec![], 0)));
    }

    #[test]
    fn what_listens_for_this_machine_alone_is_not_reached_by_a_name() {
        let v4 = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
        let odd = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "127.9.9.9"].map(v4);
        assert_eq!(addresses(Answer::Nothing, Answer::Records(odd.to_vec()), BOUNDS), Ok((vec![], 0)));
        let v6 = ["::", "::1", "ff02::1", "::ffff:127.0.0.1"].map(|text| text.parse().expect("an address"));
        assert_eq!(addresses(Answer::Records(v6.to_vec()), Answer::Nothing, BOUNDS), Ok((vec![], 0)));
        let own = Bounds { loopback: true, ..BOUNDS };
        let found = addresses(Answer::Records(v6.to_vec()), Answer::Records(odd.to_vec()), own).expect("some");
        assert!(found.0.len() == 3 && found.0.iter().all(|a| a.to_canonical().is_loopback()), "{found:?}");
        assert!(super::literal("[127.0.0.1]", own).is_some_and(|l| l.is_ok()));
    }

    #[test]
    fn an_address_literal_needs_no_dns() {
        let literal = |domain| literal(domain, BOUNDS);
        assert_eq!(literal("[192.0.2.1]"), Some(Ok(Ipv4Addr::new(192, 0, 2, 1).into())));
        assert_eq!(literal("[ipv6:2001:db8::1]"), Some(Ok("2001:db8::1".parse().expect("an address"))));
        for odd in ["[", "[]", "[far.test]", "[2001:db8::1]", "[IPv6:192.0.2.1]", "[192.0.2.1", "[127.0.0.1]"] {
            assert_eq!(literal(odd).expect("a literal").expect_err(odd).status, Status(5, 1, 2));
        }
        assert_eq!(literal("far.test"), None);
    }

    proptest! {
        /// Whatever the records are: in order, within bounds, each once, never this node nor what stands behind it.
        #[test]
        fn no_answer_leads_astray(
            records in proptest::collection::vec((0_u16..5, 0_u8..8), 1..40),
            own in proptest::option::of(0_u8..8),
        ) {
            let name = |n: u8| if n == 0 { String::new() } else { format!("h{n}.test") };
            let records: Vec<_> = records.into_iter().map(|(p, n)| mx(p, &name(n))).collect();
            let own = own.map(name).filter(|n| !n.is_empty());
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            match exchangers("far.test", &own, Answer::Records(records.clone()), BOUNDS) {
                Ok(found) => {
                    let mut sorted = found.hosts.clone();
                    sorted.sort();
                    sorted.dedup_by(|a, b| a.name == b.name);
                    prop_assert_eq!(&sorted, &found.hosts);
                    prop_assert!(!found.hosts.is_empty() && found.hosts.len() <= BOUNDS.hosts);
                    let here = records.iter().filter(|r| own.contains(&&*r.name)).map(|r| r.preference).min();
                    prop_assert!(found.hosts.iter().all(|h| !h.name.is_empty() && here.is_none_or(|p| h.preference < p)));
                }
                Err(no) => prop_assert!(no.is_permanent),
            }
        }
    }
}
