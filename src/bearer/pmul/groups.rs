//! Dynamic groups: those this node asks for as a sender, and those it is told to join as a receiver (ACP 142, announce, request, reject, release).
//!
//! [`super::Station`] owns it. A sender draws a group that is free as far as it knows, asks, waits for objections, announces it to its
//! receivers, and releases it with the last word of its message. What was objected to is released and another drawn, so often and no
//! more; then the message goes by the groups that were agreed beforehand, or rests. Joining is the caller's, because it radiates: see
//! [`super::Station::groups`]. All that others can make it keep is bounded: by the pool, by [`Dynamic::most_joined`], by time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use super::sender::expired;
use super::station::{Config, Counts, Event, Port, Transmit};
use super::timers::{Timers, drawn, spread};
use super::wire::{GroupWord, MessageKey, NodeId, Pdu};
use crate::time::{Duration, Instant, Now, Wall};
use crate::units::Bps;

/// Objections on their way out at once.
const MOST_REJECTS: usize = 32;
/// Releases on their way out at once.
const MOST_RELEASES: usize = 4096;
/// The P_MUL priority of an objection: that of a message without one.
pub(super) const REJECT_PRIORITY: u8 = 6;

/// What dynamic groups are made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dynamic {
    /// Where they are spoken of (GG).
    pub control: Ipv4Addr,
    /// The groups there are, the same at all nodes.
    pub pool: Vec<Ipv4Addr>,
    /// Groups of this node that were agreed beforehand: nobody may ask for them.
    pub agreed: Vec<Ipv4Addr>,
    /// From a request until it counts as granted (WAIT_FOR_REJECT_TIME).
    pub wait_for_reject: Duration,
    /// Announcements are spread over this (ANNOUNCE_DELAY).
    pub announce_delay: Duration,
    /// How many of them (ANNOUNCE_CT).
    pub announce_count: u32,
    /// Groups asked for in a row.
    pub most_tries: u32,
    /// Messages for which groups are joined at once.
    pub most_joined: usize,
    /// A group of which nothing is heard for so long is left, and counts as free.
    pub idle: Duration,
}

/// How far a claim is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The request has not left.
    Asking,
    /// Granted then, unless somebody objects.
    Asked(Instant),
    /// So many announcements are left, the next then.
    Announcing { left: u32, next_at: Instant },
    /// The message is on its way.
    Held,
    /// Nothing is free; again then.
    Resting(Instant),
}

/// A group of a message of ours.
#[derive(Debug)]
struct Claim {
    group: Ipv4Addr,
    stage: Stage,
    priority: u8,
    expiry: u32,
    to: Vec<NodeId>,
    /// Between announcements.
    pace: Duration,
    tries: u32,
    draws: u64,
    rest: Duration,
    /// The caller knows of it.
    told: bool,
    /// What is to leave now, and where to.
    outbox: VecDeque<(Port, Pdu)>,
}

/// A group that is to be free again for others.
#[derive(Debug)]
struct Release {
    number: u32,
    group: Ipv4Addr,
    priority: u8,
    expiry: u32,
}

/// An objection.
#[derive(Debug)]
struct Reject {
    to: Ipv4Addr,
    request: MessageKey,
    group: Ipv4Addr,
    at: Instant,
    /// Afterwards nobody listens for it.
    until: Instant,
}

/// A group that was announced to this node.
#[derive(Debug)]
struct Member {
    group: Ipv4Addr,
    expiry: u32,
    idle_at: Instant,
}

/// What a claim has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Granted {
    /// The message may go to this group.
    Group(Ipv4Addr),
    /// There is none for it: what was agreed beforehand must do, if there is such.
    Nothing,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Groups {
    claims: BTreeMap<u32, Claim>,
    releases: VecDeque<Release>,
    rejects: VecDeque<Reject>,
    joined: BTreeMap<MessageKey, Member>,
    /// Groups of the pool that others are known to use, and until when that is believed.
    others: BTreeMap<Ipv4Addr, (MessageKey, Instant)>,
    granted: VecDeque<(u32, Granted)>,
}

/// What a request, an objection or a release takes, UDP and IPv4 included.
const WORD_BYTES: u64 = 28 + 20;
/// What an announcement takes besides its receivers.
const ANNOUNCE_BYTES: u64 = 28 + 24;

impl Dynamic {
    /// Good waits on a link: until a request is granted, and over which announcements are spread.
    pub fn waits(rate: Bps, timers: &Timers, max_pdu: usize, receivers: usize) -> (Duration, Duration) {
        let pdu = rate.airtime(max_pdu as u64 + 28);
        let reject = timers.round_trip + timers.ack_delay + (pdu + rate.airtime(WORD_BYTES)) * 2;
        let announcement = rate.airtime(ANNOUNCE_BYTES + 4 * receivers as u64);
        // So that a short fade does not take all of them, and they take no more than half of the link.
        (reject + reject / 4, timers.round_trip.max(announcement * 10))
    }

    fn is_known(&self, group: Ipv4Addr) -> bool {
        self.pool.contains(&group)
    }

    fn pace(&self, over: Duration) -> Duration {
        over / self.announce_count.max(1)
    }
}

// What a sender does.
impl Groups {
    /// Asks for a group for a message; `at_once`: announces one without asking.
    pub(super) fn claim(
        &mut self,
        now: Instant,
        config: &Config,
        dynamic: &Dynamic,
        (number, priority, expiry): (u32, u8, u32),
        to: Vec<NodeId>,
        at_once: bool,
    ) {
        let claim = Claim {
            group: Ipv4Addr::UNSPECIFIED,
            stage: Stage::Resting(now),
            priority,
            expiry,
            to,
            pace: dynamic.pace(dynamic.announce_delay),
            tries: 0,
            draws: 0,
            rest: dynamic.wait_for_reject.max(config.timers.repeat),
            told: false,
            outbox: VecDeque::new(),
        };
        self.claims.insert(number, claim);
        self.draw(now, config, dynamic, number);
        if at_once {
            self.hurry(now, config, dynamic, number);
        }
    }

    /// A message cannot wait for objections any more.
    pub(super) fn hurry(&mut self, now: Instant, config: &Config, dynamic: &Dynamic, number: u32) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        claim.pace = dynamic.pace(config.timers.round_trip);
        match claim.stage {
            Stage::Asking | Stage::Asked(_) => claim.announce(now, config, dynamic, number),
            // Better one that somebody else may be using than none.
            Stage::Resting(_) => {
                let own: BTreeSet<Ipv4Addr> = self.claims.values().map(|c| c.group).collect();
                let group = pick(config, number, u64::MAX, dynamic.pool.iter().filter(|g| !own.contains(g)));
                let group = group.or_else(|| pick(config, number, u64::MAX, dynamic.pool.iter()));
                if let (Some(group), Some(claim)) = (group, self.claims.get_mut(&number)) {
                    claim.group = group;
                    claim.announce(now, config, dynamic, number);
                }
            }
            Stage::Announcing { left, next_at } => {
                claim.stage = Stage::Announcing { left, next_at: next_at.min(now + claim.pace) };
            }
            Stage::Held => {}
        }
    }

    pub(super) fn set_priority(&mut self, number: u32, priority: u8) {
        if let Some(claim) = self.claims.get_mut(&number) {
            claim.priority = priority;
        }
    }

    /// Draws another group for a message, or lets it rest.
    fn draw(&mut self, now: Instant, config: &Config, dynamic: &Dynamic, number: u32) {
        let own = self.claims.iter().filter(|(n, c)| **n != number && !matches!(c.stage, Stage::Resting(_)));
        let used: BTreeSet<Ipv4Addr> = own
            .map(|(_, c)| c.group)
            .chain(self.joined.values().map(|m| m.group))
            .chain(self.others.iter().filter(|(_, (_, until))| *until > now).map(|(group, _)| *group))
            .chain(dynamic.agreed.iter().copied())
            .collect();
        let Some(claim) = self.claims.get_mut(&number) else { return };
        claim.outbox.clear();
        claim.draws += 1;
        let free = dynamic.pool.iter().filter(|group| !used.contains(group));
        let group = pick(config, number, claim.draws, free).filter(|_| claim.tries < dynamic.most_tries);
        let Some(group) = group else {
            claim.stage = Stage::Resting(now + claim.rest);
            claim.rest = config.timers.grown(claim.rest);
            claim.tries = 0;
            self.granted.push_back((number, Granted::Nothing));
            return;
        };
        claim.tries += 1;
        claim.group = group;
        claim.stage = Stage::Asking;
        let message = MessageKey { source: config.node, number };
        claim.outbox.push_back((Port::Control, Pdu::Group { word: GroupWord::Request, message, group }));
    }

    /// Somebody else has the group that was asked for.
    fn yield_to(&mut self, now: Instant, config: &Config, dynamic: &Dynamic, (number, by): (u32, MessageKey)) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        let (group, priority, expiry) = (claim.group, claim.priority, claim.expiry);
        if matches!(claim.stage, Stage::Asked(_)) {
            self.releases.push_back(Release { number, group, priority, expiry });
        }
        self.others.insert(group, (by, now + dynamic.idle));
        self.draw(now, config, dynamic, number);
    }

    /// A question was not answered: who has not heard of the group, or has forgotten it, is told again.
    pub(super) fn announce_again(&mut self, config: &Config, number: u32, open: Vec<NodeId>) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        if claim.stage == Stage::Held && claim.outbox.is_empty() {
            claim.to = open;
            claim.say(config, number);
        }
    }

    /// The last word of a message has left, or need not leave: its group is free.
    pub(super) fn end(&mut self, number: u32, counts: &mut Counts) {
        let Some(claim) = self.claims.remove(&number) else { return };
        match claim.stage {
            Stage::Asking | Stage::Resting(_) => {}
            Stage::Asked(_) | Stage::Announcing { .. } | Stage::Held => {
                let Claim { group, priority, expiry, .. } = claim;
                self.releases.push_back(Release { number, group, priority, expiry });
            }
        }
        while self.releases.len() > MOST_RELEASES {
            self.releases.pop_front();
            counts.add("release_unsent");
        }
    }

    /// A message goes by what was agreed beforehand.
    pub(super) fn forget_claim(&mut self, number: u32) {
        self.claims.remove(&number);
    }

    /// A group that was in use before a restart: it is released.
    pub(super) fn restore(&mut self, number: u32, group: Ipv4Addr, expiry: u32) {
        self.releases.push_back(Release { number, group, priority: REJECT_PRIORITY, expiry });
    }

    /// What claims have come to since this was last asked.
    pub(super) fn poll_granted(&mut self) -> Option<(u32, Granted)> {
        self.granted.pop_front()
    }
}

// What others say.
impl Groups {
    pub(super) fn announced(
        &mut self,
        now: Now,
        config: &Config,
        dynamic: &Dynamic,
        (message, group, expiry): (MessageKey, Ipv4Addr, u32),
        named: bool,
        counts: &mut Counts,
    ) {
        if !dynamic.is_known(group) {
            return counts.add("group_not_in_pool");
        }
        if expired(now, expiry) {
            return counts.add("expired");
        }
        self.others.insert(group, (message, now.at + dynamic.idle));
        let asked = |c: &Claim| c.group == group && matches!(c.stage, Stage::Asking | Stage::Asked(_));
        let asked = self.claims.iter().find(|(_, c)| asked(c)).map(|(number, _)| *number);
        if let Some(number) = asked {
            counts.add("group_taken");
            self.yield_to(now.at, config, dynamic, (number, message));
        }
        if !named {
            return;
        }
        if !self.joined.contains_key(&message) && self.joined.len() >= dynamic.most_joined {
            return counts.add("too_many_groups");
        }
        self.joined.insert(message, Member { group, expiry, idle_at: now.at + dynamic.idle });
    }

    /// Somebody asks for a group.
    pub(super) fn requested(
        &mut self,
        now: Instant,
        config: &Config,
        dynamic: &Dynamic,
        (message, group, from): (MessageKey, Ipv4Addr, Ipv4Addr),
        counts: &mut Counts,
    ) {
        if !dynamic.is_known(group) && !dynamic.agreed.contains(&group) {
            return counts.add("group_not_in_pool");
        }
        let claim = self.claims.iter().find(|(_, c)| c.group == group && !matches!(c.stage, Stage::Resting(_)));
        let claim = claim.map(|(number, claim)| (*number, claim.stage));
        let ours = match claim {
            // Both at once: the lower number has it.
            Some((_, Stage::Asked(_))) => config.node < message.source,
            Some((_, Stage::Announcing { .. } | Stage::Held)) => true,
            Some((_, Stage::Asking | Stage::Resting(_))) | None => false,
        };
        let joined = self.joined.iter().any(|(key, member)| member.group == group && *key != message);
        if !ours && !joined && !dynamic.agreed.contains(&group) {
            self.others.insert(group, (message, now + dynamic.idle));
            if let Some((number, _)) = claim {
                counts.add("group_taken");
                self.yield_to(now, config, dynamic, (number, message));
            }
            return;
        }
        counts.add("group_rejected");
        if self.rejects.len() >= MOST_REJECTS || self.rejects.iter().any(|r| r.request == message) {
            return counts.add("reject_unsent");
        }
        // All who use it object: not all at the same moment.
        let names = [u64::from(message.source.0) << 32 | u64::from(message.number), u64::from(config.node.0), 0];
        let at = now + spread(config.timers.ack_delay, config.seed, names);
        let until = now + config.timers.ack_delay + dynamic.wait_for_reject;
        self.rejects.push_back(Reject { to: from, request: message, group, at, until });
    }

    /// Somebody objects to a request of ours.
    pub(super) fn rejected(
        &mut self,
        now: Instant,
        config: &Config,
        dynamic: &Dynamic,
        (by, number, group): (NodeId, u32, Ipv4Addr),
        counts: &mut Counts,
    ) {
        // libjpmul writes the address of who asked where the group should stand.
        let is_it = |c: &&Claim| matches!(c.stage, Stage::Asked(_)) && (c.group == group || !group.is_multicast());
        if self.claims.get(&number).filter(is_it).is_none() {
            // Behind an announcement it is too late.
            return counts.add("late_reject");
        }
        counts.add("group_taken");
        self.yield_to(now, config, dynamic, (number, MessageKey { source: by, number: 0 }));
    }

    pub(super) fn released(&mut self, message: MessageKey, group: Ipv4Addr) {
        // libjpmul says 0 for whatever message.
        let fits = |key: &MessageKey| key.source == message.source && [key.number, 0].contains(&message.number);
        self.joined.retain(|key, member| member.group != group || !fits(key));
        if self.others.get(&group).is_some_and(|(key, _)| fits(key)) {
            self.others.remove(&group);
        }
    }

    /// Something of a message was heard.
    pub(super) fn heard(&mut self, now: Instant, dynamic: &Dynamic, message: MessageKey) {
        if let Some(member) = self.joined.get_mut(&message) {
            member.idle_at = now + dynamic.idle;
            self.others.insert(member.group, (message, member.idle_at));
        }
    }

    /// A message has ended for this node.
    pub(super) fn leave(&mut self, message: MessageKey) {
        self.joined.remove(&message);
    }

    pub(super) fn is_joined(&self, message: MessageKey) -> bool {
        self.joined.contains_key(&message)
    }

    /// The groups that are to be joined.
    pub(super) fn wanted(&self) -> BTreeSet<Ipv4Addr> {
        self.joined.values().map(|member| member.group).collect()
    }
}

// What leaves, and when.
impl Groups {
    pub(super) fn handle_timeout(
        &mut self,
        now: Now,
        config: &Config,
        dynamic: &Dynamic,
        counts: &mut Counts,
        events: &mut VecDeque<Event>,
    ) {
        self.joined.retain(|_, member| {
            let (over, idle) = (expired(now, member.expiry), member.idle_at <= now.at);
            if idle && !over {
                counts.add("group_idle");
            }
            !over && !idle
        });
        self.others.retain(|_, (_, until)| *until > now.at);
        let unsent = self.rejects.len();
        self.rejects.retain(|reject| reject.until > now.at);
        (self.rejects.len()..unsent).for_each(|_| counts.add("reject_unsent"));
        self.releases.retain(|release| {
            // Its receivers have left by themselves.
            let over = expired(now, release.expiry);
            if over {
                counts.add("release_unsent");
                events.push_back(Event::GroupReleased { number: release.number });
            }
            !over
        });
        let due = self.claims.iter().filter(|(_, c)| c.due_at().is_some_and(|at| at <= now.at));
        let due: Vec<u32> = due.map(|(number, _)| *number).collect();
        for number in due {
            let Some(claim) = self.claims.get_mut(&number) else { continue };
            match claim.stage {
                Stage::Asked(_) => claim.announce(now.at, config, dynamic, number),
                Stage::Announcing { left: 0, .. } => {
                    claim.stage = Stage::Held;
                    self.granted.push_back((number, Granted::Group(claim.group)));
                }
                Stage::Announcing { left, .. } => {
                    claim.stage = Stage::Announcing { left: left - 1, next_at: now.at + claim.pace };
                    claim.say(config, number);
                }
                Stage::Resting(_) => self.draw(now.at, config, dynamic, number),
                Stage::Asking | Stage::Held => {}
            }
        }
    }

    /// When there is something to do other than to send.
    pub(super) fn next_timeout(&self, now: Now) -> Option<Instant> {
        let wall = |seconds: u32| now.set.then(|| now.at + Wall::from_seconds(seconds.into()).since(now.wall));
        let members = self.joined.values().flat_map(|m| [Some(m.idle_at), wall(m.expiry)]).flatten();
        let claims = self.claims.values().filter_map(Claim::due_at);
        let rejects = self.rejects.iter().map(|r| r.until);
        let releases = self.releases.iter().filter_map(|r| wall(r.expiry));
        members.chain(claims).chain(rejects).chain(releases).min()
    }

    /// When the next objection may leave.
    pub(super) fn reject_at(&self) -> Option<Instant> {
        self.rejects.iter().map(|r| r.at).min()
    }

    /// The next objection.
    pub(super) fn poll_reject(&mut self, now: Instant, config: &Config) -> Option<Transmit> {
        let due = self.rejects.iter().position(|r| r.at <= now)?;
        let Reject { to, request, group, .. } = self.rejects.remove(due)?;
        let pdu = Pdu::Group { word: GroupWord::Reject, message: request, group };
        Some(transmit(config, to, Port::Control, REJECT_PRIORITY, &pdu))
    }

    /// The message of ours of whose group something is to be said first, among those that may be sent, and how urgent it is.
    pub(super) fn ready(&self, may: impl Fn(u32) -> bool) -> Option<(u8, u32)> {
        let releases = self.releases.iter().map(|r| (r.priority, r.number));
        let claims = self.claims.iter().filter(|(_, c)| !c.outbox.is_empty()).map(|(number, c)| (c.priority, *number));
        releases.chain(claims).filter(|(_, number)| may(*number)).min()
    }

    /// What is to be said of the group of this message.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        config: &Config,
        dynamic: &Dynamic,
        number: u32,
        events: &mut VecDeque<Event>,
    ) -> Option<Transmit> {
        if let Some(at) = self.releases.iter().position(|r| r.number == number) {
            let Release { group, priority, .. } = self.releases.remove(at)?;
            let message = MessageKey { source: config.node, number };
            let pdu = Pdu::Group { word: GroupWord::Release, message, group };
            if !self.claims.contains_key(&number) {
                events.push_back(Event::GroupReleased { number });
            }
            return Some(transmit(config, dynamic.control, Port::Control, priority, &pdu));
        }
        let claim = self.claims.get_mut(&number)?;
        let (port, pdu) = claim.outbox.pop_front()?;
        if port == Port::Announce && !std::mem::replace(&mut claim.told, true) {
            events.push_back(Event::GroupTaken { number, group: claim.group, expiry: claim.expiry });
        }
        if claim.outbox.is_empty() {
            claim.stage = match claim.stage {
                Stage::Asking => Stage::Asked(now + dynamic.wait_for_reject),
                Stage::Announcing { left, .. } => Stage::Announcing { left, next_at: now + claim.pace },
                stage @ (Stage::Asked(_) | Stage::Held | Stage::Resting(_)) => stage,
            };
        }
        Some(transmit(config, dynamic.control, port, claim.priority, &pdu))
    }
}

impl Claim {
    /// When the next step is due; what has to leave first keeps it waiting.
    fn due_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asked(at) | Stage::Resting(at) | Stage::Announcing { next_at: at, .. } => {
                Some(at).filter(|_| self.outbox.is_empty())
            }
            Stage::Asking | Stage::Held => None,
        }
    }

    /// The first announcement.
    fn announce(&mut self, now: Instant, config: &Config, dynamic: &Dynamic, number: u32) {
        self.outbox.clear();
        self.stage = Stage::Announcing { left: dynamic.announce_count.saturating_sub(1), next_at: now + self.pace };
        self.say(config, number);
    }

    fn say(&mut self, config: &Config, number: u32) {
        let message = MessageKey { source: config.node, number };
        let pdus = Pdu::announce(message, self.expiry, self.group, self.to.clone(), config.max_pdu);
        self.outbox.extend(pdus.into_iter().map(|pdu| (Port::Announce, pdu)));
    }
}

fn transmit(config: &Config, to: Ipv4Addr, port: Port, priority: u8, pdu: &Pdu) -> Transmit {
    let bytes = pdu.emit(config.checksum, Default::default()).expect("announcements are cut to max_pdu");
    Transmit { to, port, priority, about: None, bytes }
}

/// One of these groups, another for each draw of each message of each node.
fn pick<'g>(config: &Config, number: u32, draw: u64, of: impl Iterator<Item = &'g Ipv4Addr>) -> Option<Ipv4Addr> {
    let free: Vec<Ipv4Addr> = of.copied().collect();
    let drawn = drawn(config.seed, [u64::from(config.node.0), number.into(), draw]);
    let place = (u128::from(drawn) * free.len() as u128) >> 64;
    free.get(usize::try_from(place).ok()?).copied()
}
