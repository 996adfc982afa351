//! From one address as it was given to all the addresses its mail goes on to.

use std::collections::BTreeSet;

use super::alias::{Alias, Named};
use super::directory::Directory;
use super::table::{Pattern, Route};
use crate::mail::{Mailbox, Status};

/// One thing that happens to an address on its way.
#[derive(Clone, Copy, Debug)]
pub enum Step<'s> {
    /// It is the postmaster's, who has another address.
    Postmaster {
        /// The address.
        address: &'s Mailbox,
        /// The postmaster's.
        to: &'s Mailbox,
    },
    /// Only without its detail is it known.
    Detail {
        /// The address.
        address: &'s Mailbox,
        /// Without its detail.
        bare: &'s Mailbox,
    },
    /// An alias takes it.
    Alias {
        /// The address.
        address: &'s Mailbox,
        /// The alias.
        alias: &'s Alias,
        /// Where its mail goes instead.
        to: &'s [Mailbox],
    },
    /// It gets a copy already.
    Again {
        /// The address.
        address: &'s Mailbox,
    },
    /// It has come to its end.
    Placed {
        /// The address.
        address: &'s Mailbox,
        /// What is there.
        placed: Placed<'s>,
    },
}

/// What is at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed<'d> {
    /// A route, to a mailbox that exists if it leads here.
    Route(&'d Route),
    /// A route to mailboxes here, but none of this name.
    NoMailbox(&'d Route),
    /// A route that takes no mail.
    Refused(&'d Route),
    /// No route, in a domain that aliases name addresses of: all of it is known.
    Unknown,
    /// No route.
    NoRoute,
    /// The address has no domain.
    NoDomain,
    /// Aliases lead nowhere.
    Fault(Fault),
}

/// Why aliases lead nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Back to where they came from.
    Loop,
    /// Through more aliases than are followed.
    Deep,
    /// To more addresses than one message may have.
    Many,
}

/// Why mail to an address is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// RFC 3463 code.
    pub status: Status,
    /// For people.
    pub text: String,
}

/// The domain is one that takes no mail (RFC 7505).
const NO_MAIL: Status = Status(5, 1, 10);

impl Refusal {
    /// The code of the reply.
    pub fn code(&self) -> u16 {
        if self.status == NO_MAIL { 556 } else { 550 }
    }

    fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl<'d> Placed<'d> {
    /// The route there, if mail can take it.
    pub const fn route(self) -> Option<&'d Route> {
        match self {
            Self::Route(route) => Some(route),
            Self::NoMailbox(_) | Self::Refused(_) | Self::Unknown | Self::NoRoute | Self::NoDomain | Self::Fault(_) => {
                None
            }
        }
    }

    /// Why mail cannot go there, if it cannot.
    pub fn refusal(self, address: &Mailbox) -> Option<Refusal> {
        Some(match self {
            Self::Route(_) => return None,
            Self::NoMailbox(_) => Refusal::new(Status(5, 1, 1), "no such mailbox here"),
            Self::Refused(route) => match route.pattern {
                Pattern::Address(_) => Refusal::new(Status(5, 1, 1), "this address takes no mail"),
                Pattern::Domain(_) | Pattern::Below(_) | Pattern::Any => {
                    Refusal::new(NO_MAIL, format!("{} takes no mail", address.domain()))
                }
            },
            Self::Unknown => Refusal::new(Status(5, 1, 1), "no such address here"),
            Self::NoRoute => Refusal::new(Status(5, 1, 2), format!("no route to {}", address.domain())),
            Self::NoDomain => Refusal::new(Status(5, 1, 2), "a recipient needs a domain"),
            Self::Fault(Fault::Loop) => Refusal::new(Status(5, 4, 6), "aliases lead round in a circle"),
            Self::Fault(Fault::Deep) => Refusal::new(Status(5, 4, 6), "too many aliases lead from one to the next"),
            Self::Fault(Fault::Many) => Refusal::new(Status(5, 5, 3), "aliases lead to too many recipients"),
        })
    }
}

/// One copy of what is sent to an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied<'d> {
    /// To whom it goes.
    pub address: Mailbox,
    /// What is there.
    pub placed: Placed<'d>,
    /// It goes under another address than the one that was given.
    pub elsewhere: bool,
    /// It is one of several that an alias makes.
    pub many: bool,
    /// The list that sends it on.
    pub list: Option<&'d Alias>,
}

/// What the sender is told who asked for word of success (RFC 3461 5.2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It went on to several addresses behind an alias.
    Expanded,
    /// The list has it.
    Delivered,
}

/// Where mail to one address goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved<'d> {
    /// The copies; never none.
    pub copies: Vec<Copied<'d>>,
    /// What the sender may be told at once.
    pub told: Option<Told>,
    /// An alias, or the bare name of postmaster, says that this address is served here: strangers may send to it.
    pub named: bool,
}

impl Resolved<'_> {
    /// Why mail to this address is refused, if it is: because none of its copies can go anywhere, or because whoever sends it may not
    /// use the way out for everything.
    pub fn refusal(&self, may_relay: bool) -> Option<Refusal> {
        let refused = |copy: &Copied<'_>| copy.placed.refusal(&copy.address);
        if !self.named && !may_relay {
            let served = self.copies.iter().any(|copy| match copy.placed {
                Placed::Route(route) | Placed::NoMailbox(route) | Placed::Refused(route) => {
                    route.pattern != Pattern::Any
                }
                Placed::Unknown | Placed::NoDomain => true,
                Placed::NoRoute | Placed::Fault(_) => false,
            });
            if !served {
                return Some(Refusal::new(Status(5, 7, 1), "relaying denied"));
            }
        }
        match self.copies.iter().all(|copy| refused(copy).is_some()) {
            true => self.copies.first().and_then(refused),
            false => None,
        }
    }
}

impl Directory {
    /// Follows an address to all it stands for, telling every step.
    pub fn resolve(&self, given: &Mailbox, tell: &mut dyn FnMut(Step<'_>)) -> Resolved<'_> {
        let mut walk = Walk {
            directory: self,
            given,
            path: Vec::new(),
            copies: Vec::new(),
            seen: BTreeSet::new(),
            told: None,
            named: false,
            over: false,
        };
        walk.follow(given.clone(), Carry::default(), tell);
        let Walk { mut copies, mut told, named, over, .. } = walk;
        if over {
            let placed = Placed::Fault(Fault::Many);
            tell(Step::Placed { address: given, placed });
            copies = vec![Copied { address: given.clone(), placed, elsewhere: false, many: false, list: None }];
            told = None;
        }
        Resolved { copies, told, named }
    }
}

/// What an alias hands down to the copies it makes.
#[derive(Clone, Copy, Default)]
struct Carry<'d> {
    many: bool,
    list: Option<&'d Alias>,
}

struct Walk<'d, 'g> {
    directory: &'d Directory,
    given: &'g Mailbox,
    /// The aliases on the way to where it is.
    path: Vec<&'d Alias>,
    copies: Vec<Copied<'d>>,
    /// Their addresses in lower case.
    seen: BTreeSet<String>,
    told: Option<Told>,
    named: bool,
    over: bool,
}

impl<'d> Walk<'d, '_> {
    fn follow(&mut self, address: Mailbox, carry: Carry<'d>, tell: &mut dyn FnMut(Step<'_>)) {
        let directory = self.directory;
        if self.over {
            return;
        }
        let is_postmaster = address.local().eq_ignore_ascii_case("postmaster");
        if address.domain().is_empty() {
            if !is_postmaster {
                return self.end(address, Placed::NoDomain, carry, tell);
            }
            self.named |= self.path.is_empty();
            tell(Step::Postmaster { address: &address, to: &directory.postmaster });
            return self.follow(directory.postmaster.clone(), carry, tell);
        }
        let Some(alias) = directory.alias(&address, tell) else {
            if is_postmaster && directory.takes_as_postmaster(&address) {
                tell(Step::Postmaster { address: &address, to: &directory.postmaster });
                return self.follow(directory.postmaster.clone(), carry, tell);
            }
            let placed = directory.place(&address);
            return self.end(address, placed, carry, tell);
        };
        // What takes the rest of a domain may send it to one address of that domain.
        if self.path.last().is_some_and(|last| std::ptr::eq(*last, alias)) && matches!(alias.address, Named::Rest(_)) {
            let placed = directory.place(&address);
            return self.end(address, placed, carry, tell);
        }
        self.named |= self.path.is_empty();
        if self.path.iter().any(|passed| std::ptr::eq(*passed, alias)) {
            return self.end(address, Placed::Fault(Fault::Loop), carry, tell);
        }
        if self.path.len() >= directory.bounds.depth {
            return self.end(address, Placed::Fault(Fault::Deep), carry, tell);
        }
        let to = alias.targets(&address);
        tell(Step::Alias { address: &address, alias, to: &to });
        let several = alias.copies() > 1;
        if alias.owner.is_some() {
            self.told = self.told.or(Some(Told::Delivered));
        } else if several {
            self.told = self.told.or(Some(Told::Expanded));
        }
        let list = alias.owner.as_ref().map(|_| alias).or(carry.list);
        let carry = Carry { many: carry.many || several, list };
        self.path.push(alias);
        if alias.keep {
            let placed = directory.place(&address);
            self.end(address, placed, carry, tell);
        }
        for target in to {
            self.follow(target, carry, tell);
        }
        self.path.pop();
    }

    fn end(&mut self, address: Mailbox, placed: Placed<'d>, carry: Carry<'d>, tell: &mut dyn FnMut(Step<'_>)) {
        if !self.seen.insert(address.as_str().to_lowercase()) {
            return tell(Step::Again { address: &address });
        }
        self.over |= self.copies.len() >= self.directory.bounds.copies;
        if self.over {
            return;
        }
        tell(Step::Placed { address: &address, placed });
        let elsewhere = address != *self.given;
        self.copies.push(Copied { address, placed, elsewhere, many: carry.many, list: carry.list });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Aliases, Bounds, Rewrites, Table, Target};
    use super::*;
    use crate::mail::Hop;

    /// Aliases as `address > to to`, with `!` behind the address for keep, and `owner=` among the targets for a list.
    fn directory(users: &[&str], aliases: &[&str]) -> Directory {
        let routes = [
            ("ship.example", Hop::Local),
            ("ops@far.example", Hop::Hold),
            ("far.example", Hop::Smtp("f:25".into())),
            ("*", Hop::Smtp("any:25".into())),
        ];
        let routes = routes.map(|(p, hop)| Route::new(Pattern::parse(p).expect("a pattern"), hop)).to_vec();
        let alias = |line: &&str| {
            let (address, to) = line.split_once(" > ").expect("an alias");
            let (owners, to): (Vec<&str>, Vec<&str>) = to.split(' ').partition(|t| t.starts_with("owner="));
            Alias {
                address: Named::parse(address.trim_end_matches('!')).expect("a name"),
                to: to.iter().map(|t| Target::parse(t).expect("a target")).collect(),
                keep: address.ends_with('!'),
                owner: owners.first().map(|o| Mailbox::new(&o[6..])),
                place: String::new(),
            }
        };
        Directory {
            routes: Table { routes },
            aliases: Aliases::new(aliases.iter().map(alias)),
            users: users.iter().map(ToString::to_string).collect(),
            separator: "+".into(),
            rewrites: Rewrites::default(),
            postmaster: Mailbox::new("postmaster@ship.example"),
            bounds: Bounds { depth: 4, copies: 6 },
        }
    }

    /// Copies, each with what is there if it is not a route, and what the sender is told.
    fn to(d: &Directory, address: &str) -> (String, Option<Told>) {
        let resolved = d.resolve(&Mailbox::new(address), &mut |_| {});
        let copy = |c: &Copied<'_>| match c.placed {
            Placed::Route(_) => c.address.to_string(),
            Placed::Fault(fault) => format!("{}:{fault:?}", c.address),
            Placed::NoMailbox(_) => format!("{}:NoMailbox", c.address),
            other => format!("{}:{other:?}", c.address),
        };
        (resolved.copies.iter().map(copy).collect::<Vec<_>>().join(" "), resolved.told)
    }

    #[test]
    fn aliases_lead_to_what_they_name_and_each_address_gets_one_copy() {
        let d = directory(
            &["jack", "postmaster", "jane+news"],
            &[
                "Ops@ship.example > jack@ship.example",
                "all@ship.example > ops@ship.example jack@ship.example x@far.example",
                "kept@far.example! > jack@ship.example",
                "@old.example > @far.example",
                "one@old.example > jack@ship.example",
                "@far.example > info@far.example",
            ],
        );
        let expanded = Some(Told::Expanded);
        for (address, copies, told) in [
            ("jack@ship.example", "jack@ship.example", None),
            ("JACK+log@ship.example", "JACK+log@ship.example", None),
            ("jane+news@ship.example", "jane+news@ship.example", None),
            ("jane@ship.example", "jane@ship.example:NoMailbox", None),
            ("ops@SHIP.example", "jack@ship.example", None),
            ("ops+fire@ship.example", "jack@ship.example", None),
            ("all@ship.example", "jack@ship.example info@far.example", expanded),
            ("kept@far.example", "kept@far.example jack@ship.example", expanded),
            ("one@old.example", "jack@ship.example", None),
            ("two+x@old.example", "info@far.example", None),
            ("ops@far.example", "ops@far.example", None),
            ("info@far.example", "info@far.example", None),
            ("postmaster", "postmaster@ship.example", None),
            ("nobody", "nobody:NoDomain", None),
        ] {
            assert_eq!(to(&d, address), (copies.into(), told), "{address}");
        }
    }

    #[test]
    fn a_route_that_refuses_says_so_by_the_code_for_a_domain_without_mail() {
        let mut d = directory(&[], &["old@ship.example > x@far.example"]);
        d.routes.routes.iter_mut().for_each(|route| route.refuses = route.hop != Hop::Local);
        let told = |address: &str, may_relay| {
            let refusal = d.resolve(&Mailbox::new(address), &mut |_| {}).refusal(may_relay).expect("refused");
            (refusal.code(), refusal.status)
        };
        for may_relay in [true, false] {
            assert_eq!(told("x@far.example", may_relay), (556, Status(5, 1, 10)));
            assert_eq!(told("old@ship.example", may_relay), (556, Status(5, 1, 10)), "by an alias too");
            assert_eq!(told("ops@far.example", may_relay), (550, Status(5, 1, 1)), "one address is no domain");
        }
        assert_eq!(told("x@else.example", false), (550, Status(5, 7, 1)), "a stranger learns nothing by *");
        assert!(d.place(&Mailbox::new("x@far.example")).route().is_none());
    }

    #[test]
    fn what_takes_the_rest_of_a_domain_here_leaves_its_mailboxes_alone() {
        let d = directory(&["jack", "postmaster"], &["@ship.example > jack@ship.example"]);
        for (address, copies) in [
            ("jack@ship.example", "jack@ship.example"),
            ("postmaster@ship.example", "postmaster@ship.example"),
            ("jack+x@ship.example", "jack+x@ship.example"),
            ("nobody@ship.example", "jack@ship.example"),
        ] {
            assert_eq!(to(&d, address).0, copies, "{address}");
        }
    }

    #[test]
    fn the_postmaster_of_a_domain_here_has_a_mailbox() {
        let mut d = directory(&["jack"], &[]);
        d.postmaster = Mailbox::new("jack@ship.example");
        assert_eq!(to(&d, "Postmaster@ship.example").0, "jack@ship.example");
        assert_eq!(to(&d, "postmaster@far.example").0, "postmaster@far.example");
        d.postmaster = Mailbox::new("postmaster@ship.example");
        assert_eq!(to(&d, "postmaster").0, "postmaster@ship.example:NoMailbox");
    }

    #[test]
    fn circles_depth_and_number_are_bounded() {
        let d = directory(
            &[],
            &[
                "a@x.example > b@x.example",
                "b@x.example > a@x.example c@far.example",
                "@p.example > @q.example",
                "@q.example > @p.example",
                "self@x.example > self@x.example",
                "d1@x.example > d2@x.example",
                "d2@x.example > d3@x.example",
                "d3@x.example > d4@x.example",
                "d4@x.example > d5@x.example",
                "d5@x.example > jack@ship.example",
                "m@x.example > 1@far.example 2@far.example 3@far.example n@x.example",
                "n@x.example > 4@far.example 5@far.example 6@far.example 7@far.example",
            ],
        );
        for (address, copies) in [
            ("a@x.example", "a@x.example:Loop c@far.example"),
            ("z@p.example", "z@p.example:Loop"),
            ("self@x.example", "self@x.example:Loop"),
            ("d1@x.example", "d5@x.example:Deep"),
            ("d2@x.example", "jack@ship.example"),
            ("m@x.example", "m@x.example:Many"),
            ("n@x.example", "4@far.example 5@far.example 6@far.example 7@far.example"),
        ] {
            assert_eq!(to(&d, address).0, copies, "{address}");
        }
    }

    #[test]
    fn lists_say_so_and_what_is_behind_several_addresses_says_nothing_more() {
        let d = directory(
            &[],
            &[
                "list@x.example > owner=own@ship.example a@far.example b@far.example",
                "both@x.example > list@x.example c@far.example",
                "via@x.example > list@x.example",
            ],
        );
        assert_eq!(to(&d, "list@x.example").1, Some(Told::Delivered));
        assert_eq!(to(&d, "via@x.example").1, Some(Told::Delivered));
        assert_eq!(to(&d, "both@x.example").1, Some(Told::Expanded));
        let both = d.resolve(&Mailbox::new("both@x.example"), &mut |_| {});
        let by_list: Vec<bool> = both.copies.iter().map(|c| c.list.is_some()).collect();
        assert_eq!(by_list, [true, true, false]);
        assert!(both.copies.iter().all(|c| c.many && c.elsewhere));
    }

    #[test]
    fn strangers_reach_what_the_profile_names_and_nothing_beyond() {
        let d = directory(
            &["jack", "postmaster"],
            &[
                "out@ship.example > x@any.where",
                "club@z.example > jack@ship.example gone@ship.example",
                "dead@z.example > gone@ship.example",
            ],
        );
        let answer = |address: &str, may_relay| {
            d.resolve(&Mailbox::new(address), &mut |_| {}).refusal(may_relay).map(|r| r.status)
        };
        for (address, stranger, trusted) in [
            ("jack@ship.example", None, None),
            ("nobody@ship.example", Some(Status(5, 1, 1)), Some(Status(5, 1, 1))),
            ("x@any.where", Some(Status(5, 7, 1)), None),
            ("out@ship.example", None, None),
            ("club@z.example", None, None),
            ("dead@z.example", Some(Status(5, 1, 1)), Some(Status(5, 1, 1))),
            ("postmaster", None, None),
            ("nobody", Some(Status(5, 1, 2)), Some(Status(5, 1, 2))),
        ] {
            assert_eq!((answer(address, false), answer(address, true)), (stranger, trusted), "{address}");
        }
        let mut d = d;
        d.routes.routes.pop();
        let answer = |address: &str| d.resolve(&Mailbox::new(address), &mut |_| {}).refusal(true).map(|r| r.status);
        assert_eq!(answer("x@any.where"), Some(Status(5, 1, 2)));
        assert_eq!(answer("nobody@z.example"), Some(Status(5, 1, 1)), "a domain of which all is known");
    }
}
