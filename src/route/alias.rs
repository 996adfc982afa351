//! Addresses that stand for others: one for one, one for several, whole domains, and lists.

use std::collections::BTreeMap;

use super::table::{address_like, domain_like};
use crate::mail::Mailbox;

/// What an alias stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// This address.
    Address(Mailbox),
    /// Whatever nothing else names in this domain, in lower case.
    Rest(String),
}

impl Named {
    /// Reads `ops@ship.example` or `@ship.example`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('@') {
            Some(domain) => domain_like(domain).then(|| Self::Rest(domain.to_lowercase())),
            None => address_like(text).then(|| Self::Address(Mailbox::new(text))),
        }
    }

    /// The domain it is in, in lower case.
    pub fn domain(&self) -> String {
        match self {
            Self::Address(address) => address.domain().to_lowercase(),
            Self::Rest(domain) => domain.clone(),
        }
    }

    fn key(&self) -> String {
        match self {
            Self::Address(address) => address.as_str().to_lowercase(),
            Self::Rest(domain) => format!("@{domain}"),
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Rest(domain) => write!(f, "@{domain}"),
        }
    }
}

/// Where an alias leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// To this address.
    Address(Mailbox),
    /// To the same local part in this domain.
    Domain(String),
}

impl Target {
    /// Reads `jack@shore.example` or `@shore.example`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('@') {
            Some(domain) => domain_like(domain).then(|| Self::Domain(domain.to_owned())),
            None => address_like(text).then(|| Self::Address(Mailbox::new(text))),
        }
    }

    /// The address it means for mail to `address`.
    pub fn of(&self, address: &Mailbox) -> Mailbox {
        match self {
            Self::Address(target) => target.clone(),
            Self::Domain(domain) => Mailbox::new(format!("{}@{domain}", address.local())),
        }
    }
}

/// One `[[alias]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alias {
    /// What it stands for.
    pub address: Named,
    /// Where mail goes instead.
    pub to: Vec<Target>,
    /// Whether the address itself gets it too.
    pub keep: bool,
    /// A list: what comes of its copies concerns this address, not the sender.
    pub owner: Option<Mailbox>,
    /// Where it stands in the profile.
    pub place: String,
}

impl Alias {
    /// The addresses that mail to `address` goes to by this alias, without the address itself.
    pub fn targets(&self, address: &Mailbox) -> Vec<Mailbox> {
        self.to.iter().map(|target| target.of(address)).collect()
    }

    /// How many copies it makes by itself.
    pub const fn copies(&self) -> usize {
        self.to.len() + self.keep as usize
    }
}

/// All aliases of a node, found by what they stand for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Aliases {
    by_key: BTreeMap<String, Alias>,
}

impl Aliases {
    /// Those; of two for the same address the first counts.
    pub fn new(aliases: impl IntoIterator<Item = Alias>) -> Self {
        let mut by_key = BTreeMap::new();
        for alias in aliases {
            by_key.entry(alias.address.key()).or_insert(alias);
        }
        Self { by_key }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Alias> {
        self.by_key.values()
    }

    /// The alias for this very address.
    pub fn of(&self, address: &str) -> Option<&Alias> {
        if self.is_empty() {
            return None;
        }
        self.by_key.get(&address.to_lowercase()).filter(|alias| matches!(alias.address, Named::Address(_)))
    }

    /// The alias for the rest of a domain.
    pub fn rest_of(&self, domain: &str) -> Option<&Alias> {
        if self.is_empty() {
            return None;
        }
        self.by_key.get(&format!("@{}", domain.to_lowercase()))
    }

    /// Whether an address of this domain has an alias.
    pub fn names_some_of(&self, domain: &str) -> bool {
        self.iter().any(|alias| alias.address.domain() == domain)
    }
}
