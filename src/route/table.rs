//! The static table: first the exact domain, then the longest `*.domain`, then `*`.

use crate::mail::{Hop, Mailbox};

/// What a route matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// One domain, in lower case.
    Domain(String),
    /// Any sub-domain of this domain (`*.ship.example`), in lower case, without `*.`.
    Below(String),
    /// Anything (`*`).
    Any,
}

impl Pattern {
    /// Reads `ship.example`, `*.ship.example` or `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let domain_like = |d: &str| {
            !d.is_empty() && !d.starts_with('.') && !d.ends_with('.') && !d.contains(['*', '@', ' ', '<', '>'])
        };
        match text {
            "*" => Some(Self::Any),
            _ => match text.strip_prefix("*.") {
                Some(rest) => domain_like(rest).then(|| Self::Below(rest.to_lowercase())),
                None => domain_like(text).then(|| Self::Domain(text.to_lowercase())),
            },
        }
    }

    fn rank(&self, domain: &str) -> Option<usize> {
        match self {
            Self::Domain(d) => (d == domain).then_some(usize::MAX),
            Self::Below(d) => {
                domain.strip_suffix(d.as_str()).is_some_and(|head| head.ends_with('.')).then_some(1 + d.len())
            }
            Self::Any => Some(0),
        }
    }
}

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// What it matches.
    pub pattern: Pattern,
    /// Where that goes.
    pub hop: Hop,
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
        let domain = address.domain().to_lowercase();
        let mut best: Option<(usize, &Route)> = None;
        for route in &self.routes {
            if let Some(rank) = route.pattern.rank(&domain)
                && best.is_none_or(|(b, _)| rank > b)
            {
                best = Some((rank, route));
            }
        }
        best.map(|(_, route)| route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[(&str, &str)]) -> Table {
        let routes = lines
            .iter()
            .map(|(p, host)| Route { pattern: Pattern::parse(p).expect("pattern"), hop: Hop::Smtp((*host).into()) })
            .collect();
        Table { routes }
    }

    #[test]
    fn the_more_exact_route_wins() {
        let t = table(&[("*", "any"), ("*.example", "wide"), ("*.ship.example", "deep"), ("ship.example", "exact")]);
        for (address, host) in [
            ("a@ship.example", "exact"),
            ("a@SHIP.Example", "exact"),
            ("a@ops.ship.example", "deep"),
            ("a@x.example", "wide"),
            ("a@notship.example", "wide"),
            ("a@elsewhere", "any"),
        ] {
            assert_eq!(t.hop(&Mailbox::new(address)), Some(&Hop::Smtp(host.into())), "{address}");
        }
        assert_eq!(table(&[("ship.example", "x")]).hop(&Mailbox::new("a@b.example")), None);
    }
}
