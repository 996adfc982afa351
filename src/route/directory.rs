//! Everything the profile says about addresses, in one place.

use super::alias::{Alias, Aliases};
use super::resolve::{Placed, Step};
use super::rewrite::{Passing, Rewrite, Rewrites};
use super::table::{Pattern, Route, Table, same_address};
use crate::mail::{Hop, Mailbox};

/// How far aliases may lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Aliases on the way of one copy.
    pub depth: usize,
    /// Copies of one message.
    pub copies: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { depth: 10, copies: 5000 }
    }
}

/// The addresses of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    /// Where each address goes next.
    pub routes: Table,
    /// Which stand for others.
    pub aliases: Aliases,
    /// Which are written otherwise on the way in or out.
    pub rewrites: Rewrites,
    /// Local parts that have a mailbox here; empty: any has.
    pub users: Vec<String>,
    /// What stands between a local part and its detail; empty: nothing does.
    pub separator: String,
    /// Takes what is addressed to a bare postmaster.
    pub postmaster: Mailbox,
    /// How far aliases may lead.
    pub bounds: Bounds,
}

impl Directory {
    /// The next hop of an address as it stands, aliases aside; `None` when nothing matches.
    pub fn hop(&self, address: &Mailbox) -> Option<Hop> {
        self.route(address).map(|route| route.hop.towards(address))
    }

    /// The route of an address as it stands. One for `user@domain` is also for `user+detail@domain`.
    pub fn route(&self, address: &Mailbox) -> Option<&Route> {
        let found = self.routes.route(address);
        if found.is_some_and(|route| matches!(route.pattern, Pattern::Address(_))) {
            return found;
        }
        let bare = self.without_detail(address).and_then(|bare| self.routes.route(&bare));
        bare.filter(|route| matches!(route.pattern, Pattern::Address(_))).or(found)
    }

    /// A bare postmaster is this node's.
    pub fn own(&self, address: &Mailbox) -> Mailbox {
        if address.domain().is_empty() { self.postmaster.clone() } else { address.clone() }
    }

    /// `user@domain` of `user+detail@domain`.
    pub fn without_detail(&self, address: &Mailbox) -> Option<Mailbox> {
        let bare = self.bare(address.local())?;
        Some(Mailbox::new(format!("{bare}@{}", address.domain())))
    }

    fn bare<'t>(&self, local: &'t str) -> Option<&'t str> {
        if self.separator.is_empty() || local.starts_with('"') {
            return None;
        }
        local.split_once(self.separator.as_str()).map(|(bare, _)| bare).filter(|bare| !bare.is_empty())
    }

    /// The mailbox here that takes mail to an address whose route is `local`, if there is one.
    pub fn mailbox(&self, address: &Mailbox) -> Option<String> {
        let local = address.local();
        let listed = |name: &str| self.users.iter().any(|user| user.eq_ignore_ascii_case(name));
        if listed(local) {
            return Some(local.to_lowercase());
        }
        let bare = self.bare(local);
        match self.users.is_empty() {
            true => Some(bare.unwrap_or(local).to_lowercase()),
            false => bare.filter(|bare| listed(bare)).map(str::to_lowercase),
        }
    }

    /// What an address becomes on its way in or out, and by which rule; `None` where it stays.
    pub fn rewrite(&self, passing: Passing<'_>, address: &Mailbox) -> Option<(Mailbox, &Rewrite)> {
        self.rewrites.apply(passing, &self.separator, address)
    }

    /// What is at an address, aliases aside.
    pub fn place(&self, address: &Mailbox) -> Placed<'_> {
        match self.route(address) {
            Some(route) if route.refuses => Placed::Refused(route),
            Some(route) if route.hop == Hop::Local && self.mailbox(address).is_none() => Placed::NoMailbox(route),
            Some(route) => Placed::Route(route),
            None if self.aliases.names_some_of(&address.domain().to_lowercase()) => Placed::Unknown,
            None => Placed::NoRoute,
        }
    }

    /// The alias that takes mail to an address. One for the rest of a domain leaves alone what a mailbox here or a route for that very
    /// address names.
    pub(super) fn alias(&self, address: &Mailbox, tell: &mut dyn FnMut(Step<'_>)) -> Option<&Alias> {
        if self.aliases.is_empty() {
            return None;
        }
        if let Some(alias) = self.aliases.of(address.as_str()) {
            return Some(alias);
        }
        if let Some(bare) = self.without_detail(address)
            && let Some(alias) = self.aliases.of(bare.as_str())
        {
            tell(Step::Detail { address, bare: &bare });
            return Some(alias);
        }
        self.aliases.rest_of(address.domain()).filter(|_| !self.names(address))
    }

    /// Whether an alias takes mail to this address.
    pub fn takes(&self, address: &Mailbox) -> bool {
        self.alias(address, &mut |_| {}).is_some()
    }

    /// Whether the profile knows this very address without an alias.
    fn names(&self, address: &Mailbox) -> bool {
        self.route(address).is_some_and(|route| match route.pattern {
            Pattern::Address(_) => true,
            Pattern::Domain(_) | Pattern::Below(_) | Pattern::Any => {
                route.hop == Hop::Local && self.mailbox(address).is_some()
            }
        })
    }

    /// RFC 5321 4.5.1: mail to the postmaster of a domain here is taken, if nobody else does by this node's.
    pub(super) fn takes_as_postmaster(&self, address: &Mailbox) -> bool {
        address.local().eq_ignore_ascii_case("postmaster")
            && !same_address(address.as_str(), self.postmaster.as_str())
            && matches!(self.place(address), Placed::NoMailbox(_))
    }
}
