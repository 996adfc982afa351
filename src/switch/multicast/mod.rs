//! Bearers on IP networks under the gate.
//!
//! `pmul` is the glue to stations that speak P_MUL to nodes of any make, `aldis` that to stations in Aldis mode. Here stands what is the same
//! for both: the account of a bearer, its sockets, joining its groups, and [`Switch::pump_multicast`], which every datagram passes,
//! acknowledgements included. What operators ask of either stands in `outlook`.

mod aldis;
mod outlook;
mod pmul;

pub(super) use outlook::NetPassage;
pub(super) use pmul::Pending;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::bearer::{ModemAction, multicast};
use crate::config::Plan;
use crate::config::plan::{Join, NetPlan};
use crate::emcon::{AirPermit, FILTER_HOLDS, Purpose, State};
use crate::mail::{BearerId, Hop, PeerName, Precedence};
use crate::ops::Event;
use crate::queue::{Ids, Opened};
use crate::time::{Duration, Instant, Now};

use self::aldis::Aldis;
use self::pmul::Pmul;
use super::air::{Account, purpose_name};
use super::{Output, Switch};

/// Stored keys and values of one bearer.
type Stored = Vec<(Vec<u8>, Vec<u8>)>;

/// The bearers on IP networks.
#[derive(Debug)]
pub(super) struct Nets {
    pmul: BTreeMap<BearerId, Pmul>,
    aldis: BTreeMap<BearerId, Aldis>,
}

/// What such a bearer has whatever it speaks.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) plan: NetPlan,
    pub(super) account: Account,
    /// The states that stood together when they were last looked at.
    pub(super) standing: Vec<State>,
    /// Last refusal told as an event, so that one silence is one line.
    silence_told: bool,
    /// Its sockets work.
    up: bool,
    joined: bool,
    /// What the kernel says of memberships passes the interface's filter until then, unless an order comes before.
    tells_until: Option<Instant>,
    /// Dynamic groups the driver has been told to join.
    members: BTreeSet<Ipv4Addr>,
    /// Dynamic groups that an order keeps it from joining, as far as that was told.
    unjoined: BTreeSet<Ipv4Addr>,
    /// Counts of this side: what the driver dropped, what was not for this node, what could not be opened.
    counts: BTreeMap<&'static str, u64>,
    /// When the station next has something to do or to send that it may.
    wake: Option<Instant>,
}

impl Net {
    fn new(plan: &NetPlan, standing: Vec<State>) -> Self {
        Self {
            plan: plan.clone(),
            account: Account::default(),
            standing,
            silence_told: false,
            up: false,
            joined: false,
            tells_until: None,
            members: BTreeSet::new(),
            unjoined: BTreeSet::new(),
            counts: BTreeMap::new(),
            wake: None,
        }
    }

    fn count(&mut self, name: &'static str, more: u64) {
        *self.counts.entry(name).or_default() += more;
    }

    /// A datagram leaves; how many octets that are, and their time.
    fn send(
        &mut self,
        permit: AirPermit<'_>,
        to: SocketAddrV4,
        purpose: Purpose,
        bytes: Vec<u8>,
    ) -> (Output, u64, Duration) {
        let level = match purpose {
            Purpose::Traffic(level) | Purpose::Report(level) => level,
            Purpose::Probe => Precedence::Routine,
        };
        let dscp = self.plan.dscp.get(&level).copied().unwrap_or(0);
        let octets = bytes.len() as u64 + NetPlan::HEADERS;
        let air = self.plan.rate.airtime(octets);
        self.silence_told = false;
        self.account.bytes += octets;
        self.account.air += air;
        self.account.transmissions += 1;
        (Output::Emit(permit.datagram(to, dscp, bytes)), octets, air)
    }
}

impl Nets {
    /// Builds the bearers of a plan on what the store held for each.
    pub(super) fn open(
        now: Now,
        plan: &Plan,
        opened: &Opened,
        ids: &Ids,
        mut stored: impl FnMut(&BearerId) -> Stored,
        standing: impl Fn(&BearerId) -> Vec<State>,
        seed: u64,
    ) -> Self {
        let aldis = plan.multicast.iter().map(|p| {
            let (id, net) = (&p.net.id, Net::new(&p.net, standing(&p.net.id)));
            (id.clone(), Aldis::open(now, plan, p, net, opened, ids, stored(id)))
        });
        let aldis = aldis.collect();
        let pmul = plan.pmul.iter().enumerate().map(|(index, p)| {
            let (id, net) = (&p.net.id, Net::new(&p.net, standing(&p.net.id)));
            (id.clone(), Pmul::open(now, plan, p, net, stored(id), seed.wrapping_add(index as u64)))
        });
        Self { pmul: pmul.collect(), aldis }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Net> {
        self.pmul.values().map(|p| &p.net).chain(self.aldis.values().map(|a| &a.net))
    }

    /// The one of this name.
    pub(super) fn get(&self, name: &BearerId) -> Option<&Net> {
        self.pmul.get(name).map(|p| &p.net).or_else(|| self.aldis.get(name).map(|a| &a.net))
    }

    pub(super) fn get_mut(&mut self, name: &BearerId) -> Option<&mut Net> {
        self.pmul.get_mut(name).map(|p| &mut p.net).or_else(|| self.aldis.get_mut(name).map(|a| &mut a.net))
    }

    /// The one that reaches a peer.
    pub(super) fn to(&self, peer: &PeerName) -> Option<&Net> {
        self.all().find(|net| net.plan.peers.contains(peer))
    }

    /// The one in Aldis mode that reaches a peer.
    pub(super) fn aldis_to(&self, peer: &PeerName) -> Option<&Net> {
        self.aldis.values().map(|a| &a.net).find(|net| net.plan.peers.contains(peer))
    }

    /// The stations in Aldis mode.
    pub(super) fn stations(&self) -> impl Iterator<Item = &multicast::Station> {
        self.aldis.values().map(|a| &a.station)
    }

    pub(super) fn stations_mut(&mut self) -> impl Iterator<Item = &mut multicast::Station> {
        self.aldis.values_mut().map(|a| &mut a.station)
    }

    /// The station in Aldis mode of this bearer.
    pub(super) fn station_mut(&mut self, name: &BearerId) -> Option<&mut multicast::Station> {
        self.aldis.get_mut(name).map(|a| &mut a.station)
    }

    pub(super) fn station(&self, name: &BearerId) -> Option<&multicast::Station> {
        self.aldis.get(name).map(|a| &a.station)
    }

    /// When one of them next has something to do.
    pub(super) fn wakes(&self) -> impl Iterator<Item = Instant> {
        self.all().filter_map(|net| net.wake)
    }
}

impl Switch {
    /// Whether a hop goes over a bearer that speaks P_MUL.
    pub(super) fn goes_mule(&self, hop: &Hop) -> bool {
        matches!(hop, Hop::Peer(peer) if self.mule_to(peer).is_some())
    }

    /// A datagram came in.
    pub(super) fn datagram(&mut self, now: Now, name: &BearerId, from: Ipv4Addr, bytes: &[u8], missed: u64) {
        if let Some(net) = self.nets.get_mut(name).filter(|_| missed > 0) {
            net.count("dropped_here", missed);
        }
        if let Some(station) = self.nets.station_mut(name) {
            return station.handle_datagram(now.at, bytes);
        }
        self.mule_datagram(now, name, from, bytes);
    }

    /// Its sockets failed, or work.
    pub(super) fn port(&mut self, name: &BearerId, fault: Option<String>) {
        let Some(net) = self.nets.get_mut(name) else { return };
        net.up = fault.is_none();
        (net.joined, net.tells_until) = (false, None);
        // Its sockets are new: nothing is joined.
        net.members.clear();
        if let Some(text) = fault {
            self.event(Event::BearerAlarm { bearer: name.clone(), text });
        }
    }

    /// Lets every station send what it has and the gate allows, and collects what it has to say.
    pub(super) fn pump_multicast(&mut self, now: Now) {
        let pmul: Vec<BearerId> = self.nets.pmul.keys().cloned().collect();
        for name in pmul {
            self.join(now, &name);
            self.pump_mule(now, &name);
            self.follow_groups(now, &name);
        }
        let aldis: Vec<BearerId> = self.nets.aldis.keys().cloned().collect();
        for name in aldis {
            self.join(now, &name);
            self.pump_aldis(now, &name);
        }
    }

    /// Joining radiates, and being a member does: the kernel says so again, and answers routers. Its words pass while an order lets them.
    fn join(&mut self, now: Now, name: &BearerId) {
        let Some(net) = self.nets.get_mut(name) else { return };
        if net.plan.join == Join::Static || !net.up || net.tells_until.is_some_and(|until| now.at < until) {
            return;
        }
        if self.gate.allows(now, name, Purpose::Probe, FILTER_HOLDS).is_err() {
            return;
        }
        let edge = self.gate.edges(name).into_iter().filter(|at| now.set && *at > now.wall).min();
        let until = edge.map(|at| now.at + at.since(now.wall));
        if let Ok(permit) = self.gate.permit(now, name, Purpose::Probe, FILTER_HOLDS) {
            net.tells_until = Some(until.unwrap_or(Instant::NEVER));
            self.outputs.push_back(Output::Emit(permit.igmp(until)));
        }
        if !net.joined
            && let Ok(permit) = self.gate.permit(now, name, Purpose::Probe, FILTER_HOLDS)
        {
            net.joined = true;
            self.outputs.push_back(Output::Emit(permit.join()));
        }
    }

    /// The bearer's order was tightened: what the kernel says of memberships is held back from here on. What the network has forgotten
    /// meanwhile it is told again when an order allows.
    pub(super) fn silence_multicast(&mut self, name: &BearerId) {
        let Some(net) = self.nets.get_mut(name).filter(|net| net.plan.join == Join::Igmp) else { return };
        (net.joined, net.tells_until) = (false, None);
        self.outputs.push_back(Output::Act { bearer: name.clone(), action: ModemAction::Abort });
    }

    /// Joins the dynamic groups that were announced to this node, and leaves those that have ended, as far as an order lets it: both radiate.
    fn follow_groups(&mut self, now: Now, name: &BearerId) {
        let Some(p) = self.nets.pmul.get_mut(name) else { return };
        let wanted = p.station.groups();
        let net = &mut p.net;
        net.unjoined.retain(|group| wanted.contains(group));
        if wanted == net.members || !net.up {
            return;
        }
        let changes: Vec<(Ipv4Addr, bool)> =
            wanted.symmetric_difference(&net.members).map(|g| (*g, wanted.contains(g))).collect();
        for (group, member) in changes {
            match self.gate.permit(now, name, Purpose::Probe, FILTER_HOLDS) {
                Ok(permit) => {
                    let Some(net) = self.nets.get_mut(name) else { return };
                    let _ = if member { net.members.insert(group) } else { net.members.remove(&group) };
                    net.unjoined.remove(&group);
                    net.count(if member { "groups_joined" } else { "groups_left" }, 1);
                    self.outputs.push_back(Output::Emit(permit.membership(group, member)));
                }
                Err(silence) if member => {
                    let Some(net) = self.nets.get_mut(name) else { return };
                    if net.unjoined.insert(group) {
                        net.count("not_joined_in_silence", 1);
                        let (group, why) = (group.to_string(), silence.name().to_owned());
                        self.event(Event::GroupNotJoined { bearer: name.clone(), group, why });
                    }
                }
                // It stays a member until it may say that it is not.
                Err(_) => {}
            }
        }
    }

    /// Whether such a bearer may send at all: not while the store changes its epoch, nor while its sockets do not work.
    fn works(&self, name: &BearerId) -> bool {
        self.renewal.is_none() && self.nets.get(name).is_some_and(|net| net.up)
    }

    /// The lowest level at which something for a purpose may leave now.
    fn lowest_for(&self, now: Now, name: &BearerId, purpose: fn(Precedence) -> Purpose) -> Option<Precedence> {
        let airtime = self.nets.get(name)?.plan.datagram_air();
        let allowed = |level: &Precedence| self.gate.allows(now, name, purpose(*level), airtime).is_ok();
        Precedence::DESCENDING.into_iter().rev().find(allowed)
    }

    /// Something is owed, and an order forbids it: counted and told once.
    fn barred(&mut self, now: Now, name: &BearerId, purpose: Purpose) {
        let Some(net) = self.nets.get_mut(name).filter(|net| net.up && !net.silence_told) else { return };
        net.silence_told = true;
        let airtime = net.plan.datagram_air();
        if let Err(silence) = self.gate.permit(now, name, purpose, airtime).map(drop) {
            let (purpose, why) = (purpose_name(purpose).to_owned(), silence.name().to_owned());
            self.event(Event::EmissionSuppressed { bearer: name.clone(), purpose, why });
        }
    }

    /// What the gate has in force changed for the better: what was refused may be asked for again.
    pub(super) fn resume_multicast(&mut self, name: &BearerId) {
        if let Some(net) = self.nets.get_mut(name) {
            net.silence_told = false;
        }
    }

    /// How long until everything that was handed out has surely left.
    pub(super) fn multicast_off_after(&self, now: Now, name: &BearerId) -> Option<Duration> {
        let aldis = self.nets.aldis.get(name).map(|a| a.station.spent_until());
        let spent = aldis.or_else(|| self.nets.pmul.get(name).map(Pmul::spent_until))?;
        Some(spent.since(now.at))
    }

    /// Tells the stations whether a peer keeps silence.
    pub(super) fn believe_multicast(&mut self, now: Now, peer: &PeerName, silent: bool) {
        self.nets.stations_mut().for_each(|station| station.set_silent(now.at, peer, silent));
        self.believe_mule(now, peer, silent);
    }
}
