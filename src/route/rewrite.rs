//! Rules that put one address in place of another, where mail comes in and where it goes out.

use super::table::{Pattern, address_like, domain_like, same_address};
use crate::mail::Mailbox;

/// Which way mail goes when a rule applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// As it is taken from a listener or a neighbour.
    In,
    /// As it is handed to the next hop.
    Out,
}

/// Which addresses of a message a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Sender and recipients.
    Envelope,
    /// Address fields of the header.
    Header,
}

/// What a rule puts in place of what it matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replacement {
    /// The same local part in this domain.
    Domain(String),
    /// This address.
    Address(Mailbox),
}

impl Replacement {
    /// Reads `ship.example` or `ops@ship.example`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.contains('@') {
            true => address_like(text).then(|| Self::Address(Mailbox::new(text))),
            false => domain_like(text).then(|| Self::Domain(text.to_owned())),
        }
    }
}

/// One `[[rewrite]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewrite {
    /// Its name.
    pub name: String,
    /// When it applies.
    pub direction: Direction,
    /// Whether it is about sender and recipients.
    pub envelope: bool,
    /// Whether it is about the header.
    pub header: bool,
    /// What it matches.
    pub pattern: Pattern,
    /// What it puts there.
    pub to: Replacement,
    /// Where it applies: listeners and `peer:NAME` on the way in, next hops on the way out; empty: everywhere.
    pub at: Vec<String>,
    /// Whether the header of signed mail is changed too, which breaks what is signed.
    pub signed: bool,
    /// Where it stands in the profile.
    pub place: String,
}

impl Rewrite {
    /// The address that a matching one becomes; the detail of a plus address stays.
    fn of(&self, address: &Mailbox, separator: &str) -> Mailbox {
        match &self.to {
            Replacement::Domain(domain) => Mailbox::new(format!("{}@{domain}", address.local())),
            Replacement::Address(to) => {
                let detail = address.local().split_once(separator).map(|(_, detail)| detail);
                match (&self.pattern, detail) {
                    (Pattern::Address(whole), Some(detail))
                        if !separator.is_empty() && !same_address(whole, address.as_str()) =>
                    {
                        Mailbox::new(format!("{}{separator}{detail}@{}", to.local(), to.domain()))
                    }
                    _ => to.clone(),
                }
            }
        }
    }
}

/// Where and for what an address is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'p> {
    /// Which way the mail goes.
    pub direction: Direction,
    /// The listener, `peer:NAME`, or next hop it passes.
    pub at: &'p str,
    /// Of which part of it the address is.
    pub part: Part,
}

/// All rules of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rewrites {
    /// In the order of the profile; the more exact match wins, then the earlier rule.
    pub rules: Vec<Rewrite>,
}

impl Rewrites {
    /// Whether any rule may apply there.
    pub fn any(&self, passing: Passing<'_>) -> bool {
        self.rules.iter().any(|rule| applies(rule, passing))
    }

    /// Whether rules of this direction tell places apart.
    pub fn tell_places_apart(&self, direction: Direction) -> bool {
        self.rules.iter().any(|rule| rule.direction == direction && !rule.at.is_empty())
    }

    /// What an address becomes, and by which rule; `None` where it stays. Each address is rewritten once.
    pub fn apply(&self, passing: Passing<'_>, separator: &str, address: &Mailbox) -> Option<(Mailbox, &Rewrite)> {
        if self.rules.is_empty() {
            return None;
        }
        let domain = address.domain().to_lowercase();
        let bare = (!separator.is_empty() && !address.local().starts_with('"'))
            .then(|| address.local().split_once(separator))
            .flatten()
            .filter(|(bare, _)| !bare.is_empty())
            .map(|(bare, _)| format!("{bare}@{}", address.domain()));
        let rank = |rule: &Rewrite| match (&rule.pattern, &bare) {
            // An address with its detail is the most exact, then the one without.
            (Pattern::Address(a), _) if same_address(a, address.as_str()) => Some((2, 0)),
            (Pattern::Address(a), Some(bare)) if same_address(a, bare) => Some((1, 0)),
            (Pattern::Address(_), _) => None,
            (pattern, _) => pattern.rank(address.as_str(), &domain).map(|rank| (0, rank)),
        };
        let mut best: Option<((u8, usize), &Rewrite)> = None;
        for rule in self.rules.iter().filter(|rule| applies(rule, passing)) {
            if let Some(rank) = rank(rule)
                && best.is_none_or(|(b, _)| rank > b)
            {
                best = Some((rank, rule));
            }
        }
        let (_, rule) = best?;
        let to = rule.of(address, separator);
        let fits = to.as_str().len() <= 254 && to.local().len() <= 64;
        (fits && to != *address).then_some((to, rule))
    }
}

fn applies(rule: &Rewrite, passing: Passing<'_>) -> bool {
    let part = match passing.part {
        Part::Envelope => rule.envelope,
        Part::Header => rule.header,
    };
    let here = rule.at.is_empty() || rule.at.iter().any(|at| at.eq_ignore_ascii_case(passing.at));
    rule.direction == passing.direction && part && here
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(direction: Direction, pattern: &str, to: &str, at: &[&str]) -> Rewrite {
        Rewrite {
            name: pattern.into(),
            direction,
            envelope: true,
            header: true,
            pattern: Pattern::parse(pattern).expect("a pattern"),
            to: Replacement::parse(to).expect("a replacement"),
            at: at.iter().map(ToString::to_string).collect(),
            signed: false,
            place: String::new(),
        }
    }

    #[test]
    fn the_most_exact_rule_rewrites_once_and_details_stay() {
        use Direction::{In, Out};
        let rules = Rewrites {
            rules: vec![
                rule(In, "ship.local", "ship.example", &[]),
                rule(In, "*.ship.local", "ship.example", &[]),
                rule(In, "jack@ship.local", "j.smith@ship.example", &[]),
                rule(In, "jack+fuel@ship.local", "fuel@ship.example", &[]),
                rule(In, "ship.example", "elsewhere.example", &["peer:shore"]),
                rule(Out, "ship.local", "out.example", &["smtp:mx:25"]),
                rule(In, "*", "sink@ship.example", &["trap"]),
            ],
        };
        for (direction, at, address, to) in [
            (In, "relay", "a@ship.local", Some("a@ship.example")),
            (In, "relay", "a@SHIP.LOCAL", Some("a@ship.example")),
            (In, "relay", "a@x.ship.local", Some("a@ship.example")),
            (In, "relay", "Jack@ship.local", Some("j.smith@ship.example")),
            (In, "relay", "jack+log@ship.local", Some("j.smith+log@ship.example")),
            (In, "relay", "jack+fuel@ship.local", Some("fuel@ship.example")),
            (In, "relay", "a@ship.example", None),
            (In, "peer:shore", "a@ship.example", Some("a@elsewhere.example")),
            (In, "trap", "a+b@any.where", Some("sink@ship.example")),
            (Out, "smtp:mx:25", "a@ship.local", Some("a@out.example")),
            (Out, "peer:shore", "a@ship.local", None),
        ] {
            let passing = Passing { direction, at, part: Part::Header };
            let got = rules.apply(passing, "+", &Mailbox::new(address));
            assert_eq!(got.map(|(to, _)| to.to_string()).as_deref(), to, "{at} {address}");
        }
        assert!(rules.tell_places_apart(Out));
    }

    #[test]
    fn a_rule_is_about_the_parts_it_names() {
        let rules =
            Rewrites { rules: vec![Rewrite { header: false, ..rule(Direction::In, "a.example", "b.example", &[]) }] };
        let of = |part| {
            let passing = Passing { direction: Direction::In, at: "relay", part };
            (rules.any(passing), rules.apply(passing, "", &Mailbox::new("x@a.example")).is_some())
        };
        assert_eq!((of(Part::Envelope), of(Part::Header)), ((true, true), (false, false)));
    }
}
