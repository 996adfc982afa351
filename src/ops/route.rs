//! `aldis route`: what becomes of mail to an address, by the profile alone. It asks the directory that the switch asks, and listens.

use super::document::{Route as Document, RouteAnswer, RouteAnswers, RouteCopy, RouteStep};
use super::print::table;
use crate::config::Plan;
use crate::mail::{Hop, Mailbox, PeerName};
use crate::route::{Copied, Direction, Part, Passing, Refusal, Route, Step};

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The recipient.
    pub address: String,
    /// The sender.
    pub from: Option<String>,
    /// The listener it comes by, or `peer:NAME`.
    pub listener: Option<String>,
}

/// The answer, or why there is none.
pub fn explain(plan: &Plan, asked: &Asked) -> Result<Document, String> {
    let mailbox = |text: &str| {
        let bare = text.trim().trim_start_matches('<').trim_end_matches('>');
        let odd = bare.is_empty() || bare.len() > 320 || bare.chars().any(|c| c.is_control() || c.is_whitespace());
        if odd { Err(format!("{text:?} is no address: local@domain, or postmaster")) } else { Ok(Mailbox::new(bare)) }
    };
    let given = mailbox(&asked.address)?;
    if let Some(at) = &asked.listener {
        let peers = plan.neighbours().map(|(name, _)| format!("peer:{name}"));
        let places: Vec<String> = plan.listeners.iter().map(|l| l.name.clone()).chain(peers).collect();
        if !places.iter().any(|p| p == at) {
            return Err(format!("no mail comes in by {at:?}; it comes by {}", places.join(", ")));
        }
    }
    let directory = &plan.directory;
    let at = asked.listener.as_deref().unwrap_or("");
    let mut steps = Vec::new();
    let passing = Passing { direction: Direction::In, at, part: Part::Envelope };
    let mut rewritten = |address: Mailbox| match directory.rewrite(passing, &address) {
        None => address,
        Some((to, rule)) => {
            steps.push(RouteStep {
                step: "rewrite",
                address: address.to_string(),
                by: format!("rule {}", rule.name),
                place: rule.place.clone(),
                to: vec![to.to_string()],
            });
            to
        }
    };
    let sender = match asked.from.as_deref() {
        None => None,
        Some("" | "<>") => Some(String::new()),
        Some(from) => Some(rewritten(mailbox(from)?).to_string()),
    };
    let address = rewritten(given.clone());
    let resolved = directory.resolve(&address, &mut |step| steps.push(shown(step)));
    let answers = RouteAnswers { relay: answer(resolved.refusal(true)), stranger: answer(resolved.refusal(false)) };
    let copies = resolved.copies.iter().map(|copy| self::copy(plan, copy)).collect();
    let (address, listener) = (given.to_string(), asked.listener.clone());
    Ok(Document { schema: Document::SCHEMA, address, sender, listener, answers, steps, copies })
}

fn answer(refusal: Option<Refusal>) -> RouteAnswer {
    match refusal {
        None => RouteAnswer { code: 250, status: "2.1.5".into(), text: "recipient ok".into() },
        Some(refusal) => RouteAnswer { code: refusal.code(), status: refusal.status.to_string(), text: refusal.text },
    }
}

fn shown(step: Step<'_>) -> RouteStep {
    let said = |step, address: &Mailbox, by: &str, place: &str, to: Vec<String>| RouteStep {
        step,
        address: address.to_string(),
        by: by.to_owned(),
        place: place.to_owned(),
        to,
    };
    match step {
        Step::Postmaster { address, to } => said("postmaster", address, "node.postmaster", "", vec![to.to_string()]),
        Step::Detail { address, bare } => said("detail", address, "local.separator", "", vec![bare.to_string()]),
        Step::Alias { address, alias, to } => {
            let kept = alias.keep.then(|| address.to_string());
            let to = kept.into_iter().chain(to.iter().map(ToString::to_string)).collect();
            let kind = if alias.owner.is_some() { "list" } else { "alias" };
            said("alias", address, &format!("{kind} {}", alias.address), &alias.place, to)
        }
        Step::Again { address } => said("again", address, "it has a copy already", "", Vec::new()),
        Step::Placed { address, placed } => match (placed.route(), placed.refusal(address)) {
            (Some(route), _) => {
                let by = format!("route {}", route.pattern);
                said("route", address, &by, &route.place, vec![route.hop.to_string()])
            }
            (None, refusal) => {
                let why = refusal.map(|r| format!("{} {}", r.status, r.text)).unwrap_or_default();
                said("refused", address, &why, "", Vec::new())
            }
        },
    }
}

fn copy(plan: &Plan, copy: &Copied<'_>) -> RouteCopy {
    let route = copy.placed.route();
    let hop = route.map(|route| route.hop.towards(&copy.address));
    let here = route.is_some_and(|route| route.hop == Hop::Local);
    let handed = |hop: &Hop| {
        let at = hop.in_profile();
        let passing = Passing { direction: Direction::Out, at: &at, part: Part::Envelope };
        plan.directory.rewrite(passing, &copy.address).map_or_else(|| copy.address.clone(), |(to, _)| to).to_string()
    };
    let level = |of: fn(&Route) -> Option<crate::mail::Precedence>| route.and_then(of).map(|p| p.name().to_owned());
    RouteCopy {
        address: copy.address.to_string(),
        route: route.map(|route| route.pattern.to_string()),
        place: route.map(|route| route.place.clone()),
        mailbox: here.then(|| plan.directory.mailbox(&copy.address)).flatten(),
        handed_as: hop.as_ref().filter(|hop| !here && **hop != Hop::Hold).map(handed),
        hop: hop.map(|hop| hop.to_string()),
        bearers: route.map(|route| bearers(plan, route)).unwrap_or_default(),
        min_precedence: level(|r| r.least),
        max_precedence: level(|r| r.most),
        owner: copy.list.and_then(|list| list.owner.as_ref()).map(ToString::to_string),
        expanded: copy.many,
        refused: copy.placed.refusal(&copy.address).map(|refusal| answer(Some(refusal))),
    }
}

/// The bearers that may carry what goes by a route.
fn bearers(plan: &Plan, route: &Route) -> Vec<String> {
    let Hop::Peer(peer) = &route.hop else { return Vec::new() };
    let reaches = |peers: &[PeerName]| peers.contains(peer);
    let serial = plan.bearers.iter().filter(|b| reaches(&b.peers)).map(|b| &b.id);
    let nets = plan.nets().filter(|net| reaches(&net.peers)).map(|net| &net.id);
    let may = serial.chain(nets).filter(|id| route.bearers.is_empty() || route.bearers.contains(id));
    may.map(ToString::to_string).collect()
}

/// The answer as an operator reads it.
pub fn text(document: &Document) -> String {
    let mut rows = Vec::new();
    for step in &document.steps {
        let to = if step.to.is_empty() { String::new() } else { format!("-> {}", step.to.join(", ")) };
        rows.push(vec![step.step.to_owned(), step.address.clone(), to, step.by.clone(), step.place.clone()]);
    }
    let mut out = table(rows);
    for copy in &document.copies {
        let mut said = vec![format!("copy to {}", copy.address)];
        said.extend(copy.refused.as_ref().map(|r| format!("fails: {} {}", r.status, r.text)));
        said.extend(copy.hop.as_ref().map(|hop| match hop.strip_prefix("mx:") {
            Some(domain) => format!("by mx: to the hosts that the DNS names for {domain} at the time"),
            None => format!("by {hop}"),
        }));
        said.extend(copy.mailbox.as_ref().map(|mailbox| format!("mailbox {mailbox}")));
        said.extend(
            copy.handed_as.as_ref().filter(|as_| **as_ != copy.address).map(|as_| format!("handed over as {as_}")),
        );
        said.extend((!copy.bearers.is_empty()).then(|| format!("over {}", copy.bearers.join(" or "))));
        said.extend(copy.min_precedence.as_ref().map(|level| format!("at least {level}")));
        said.extend(copy.max_precedence.as_ref().map(|level| format!("at most {level}")));
        said.extend(copy.owner.as_ref().map(|owner| format!("return path {owner}")));
        out += &format!("{}\n", said.join(", "));
    }
    if let Some(sender) = &document.sender {
        out += &format!("sender <{sender}>\n");
    }
    let said = |answer: &RouteAnswer| format!("{} {} {}", answer.code, answer.status, answer.text);
    out += &format!("RCPT of a peer that may relay: {}\n", said(&document.answers.relay));
    out += &format!("RCPT of a stranger:            {}\n", said(&document.answers.stranger));
    out
}
