//! The static table: first the full address, then the exact domain, then the longest `*.domain`, then `*`.

use crate::mail::{BearerId, Hop, Mailbox, Precedence};

/// What a route, or a rule of rewriting, matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// One address, in lower case.
    Address(String),
    /// One domain, in lower case.
    Domain(String),
    /// Any sub-domain of this domain (`*.ship.example`), in lower case, without `*.`.
    Below(String),
    /// Anything (`*`).
    Any,
}

impl Pattern {
    /// Reads `ops@ship.example`, `ship.example`, `*.ship.example` or `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let domain = |d: &str| domain_like(d).then(|| d.to_lowercase());
        match text {
            "*" => Some(Self::Any),
            _ => match (text.strip_prefix("*."), text.rsplit_once('@')) {
                (Some(rest), _) => domain(rest).map(Self::Below),
                (None, Some(_)) => address_like(text).then(|| Self::Address(text.to_lowercase())),
                (None, None) => domain(text).map(Self::Domain),
            },
        }
    }

    /// How closely it matches; `None`: not at all. `domain` is in lower case.
    pub(super) fn rank(&self, address: &str, domain: &str) -> Option<usize> {
        match self {
            Self::Address(a) => same_address(a, address).then_some(usize::MAX),
            Self::Domain(d) => (d == domain).then_some(usize::MAX - 1),
            Self::Below(d) => {
                domain.strip_suffix(d.as_str()).is_some_and(|head| head.ends_with('.')).then_some(1 + d.len())
            }
            Self::Any => Some(0),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(text) | Self::Domain(text) => f.write_str(text),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Whether two addresses are the same here: upper and lower case are, in both parts.
pub fn same_address(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || (!one.is_ascii() && one.to_lowercase() == other.to_lowercase())
}

pub(super) fn domain_like(d: &str) -> bool {
    let odd = |c: char| matches!(c, '*' | '@' | '<' | '>' | ',' | ';' | '"') || c.is_whitespace() || c.is_control();
    !d.is_empty() && d.len() <= 255 && !d.starts_with('.') && !d.ends_with('.') && !d.contains(odd)
}

/// Whether a profile may name this address: dots and atoms before the sign, as people write addresses.
pub(super) fn address_like(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let odd = |c: char| "()<>[]:;@\\,\"*".contains(c) || c.is_whitespace() || c.is_control();
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    !local.is_empty() && local.len() <= 64 && !dots && !local.contains(odd) && domain_like(domain)
}

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// What it matches.
    pub pattern: Pattern,
    /// Where that goes.
    pub hop: Hop,
    /// It goes nowhere: whoever sends there is refused. What came in before stays held, as `hop` says.
    pub refuses: bool,
    /// The bearers that may carry it; empty: all that reach the peer.
    pub bearers: Vec<BearerId>,
    /// Mail that goes this way is served at this level at least.
    pub least: Option<Precedence>,
    /// And at this level at most.
    pub most: Option<Precedence>,
    /// Where it stands in the profile.
    pub place: String,
}

impl Route {
    /// A route without conditions.
    pub const fn new(pattern: Pattern, hop: Hop) -> Self {
        Self { pattern, hop, refuses: false, bearers: Vec::new(), least: None, most: None, place: String::new() }
    }

    /// The level of service of mail that goes this way.
    pub fn level(&self, level: Precedence) -> Precedence {
        let raised = self.least.map_or(level, |least| level.max(least));
        self.most.map_or(raised, |most| raised.min(most))
    }
}

/// The static routes of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// In the order of the profile; the more exact match wins, then the earlier line.
    pub routes: Vec<Route>,
}

impl Table {
    /// The next hop of `address`; `None` when nothing matches (550 5.1.2 or a DSN).
    pub fn hop(&self, address: &Mailbox) -> Option<&Hop> {
        self.route(address).map(|route| &route.hop)
    }

    /// The line that `address` matches.
    pub fn route(&self, address: &Mailbox) -> Option<&Route> {
        self.best(address).map(|(_, route)| route)
    }

    /// The line that `address` matches, and how closely.
    fn best(&self, address: &Mailbox) -> Option<(usize, &Route)> {
        let domain = address.domain().to_lowercase();
        let mut best: Option<(usize, &Route)> = None;
        for route in &self.routes {
            if let Some(rank) = route.pattern.rank(address.as_str(), &domain)
                && best.is_none_or(|(b, _)| rank > b)
            {
                best = Some((rank, route));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[(&str, &str)]) -> Table {
        let routes = lines
            .iter()
            .map(|(p, host)| Route::new(Pattern::parse(p).expect("pattern"), Hop::Smtp((*host).into())))
            .collect();
        Table { routes }
    }

    #[test]
    fn the_more_exact_route_wins() {
        let t = table(&[
            ("*", "any"),
            ("*.example", "wide"),
            ("*.ship.example", "deep"),
            ("ship.example", "exact"),
            ("Ops@Ship.example", "one"),
        ]);
        for (address, host) in [
            ("a@ship.example", "exact"),
            ("a@SHIP.Example", "exact"),
            ("oPs@ship.EXAMPLE", "one"),
            ("ops2@ship.example", "exact"),
            ("ops@sub.ship.example", "deep"),
            ("a@ops.ship.example", "deep"),
            ("a@x.example", "wide"),
            ("a@notship.example", "wide"),
            ("a@elsewhere", "any"),
        ] {
            assert_eq!(t.hop(&Mailbox::new(address)), Some(&Hop::Smtp(host.into())), "{address}");
        }
        assert_eq!(table(&[("ship.example", "x")]).hop(&Mailbox::new("a@b.example")), None);
    }

    #[test]
    fn patterns_are_what_people_write_as_addresses_and_domains() {
        for good in ["*", "*.a.example", "a.example", "x@a.example", "x+y@a.example", "søren@å.example"] {
            let pattern = Pattern::parse(good).unwrap_or_else(|| panic!("{good}"));
            assert_eq!(pattern.to_string(), good);
        }
        for bad in
            ["", "@a", "a@", "a b@c", "*@a.example", "a@*.example", ".a", "a.", "<a@b>", "a..b@c", "\"a\"@b", "a@b,c"]
        {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_route_raises_and_caps_the_level_of_service() {
        let mut route = Route::new(Pattern::Any, Hop::Local);
        assert_eq!(route.level(Precedence::Flash), Precedence::Flash);
        (route.least, route.most) = (Some(Precedence::Priority), Some(Precedence::Immediate));
        for (level, served) in [
            (Precedence::Routine, Precedence::Priority),
            (Precedence::Priority, Precedence::Priority),
            (Precedence::Flash, Precedence::Immediate),
        ] {
            assert_eq!(route.level(level), served);
        }
    }
}
