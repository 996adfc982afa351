//! Packet bearers: `[[satcom]]`, `[[path]]`, `[[datagrams]]` and the contacts that name a satcom.

use std::collections::{BTreeMap, BTreeSet};

use aldis::time::{Duration, Instant};

use super::contact::{Contacts, begins_up, plan_changes};
use super::{MOST_MESSAGES, Reader, raw};
use crate::packet::{
    DatagramLoss, Destination, Fade, Group, MemberConfig, NetConfig, NodeId, PRESETS, PathConfig, Preset,
};
use crate::scenario::{Satcom, Source};

/// Most nodes of one packet bearer.
const MOST_MEMBERS: usize = 250;

/// The group that every bearer has.
const ALL: &str = "all";

impl Reader {
    /// Every packet bearer with its paths, contacts and datagrams.
    pub(super) fn satcoms(&mut self, raw: &raw::Scenario, duration: Duration) -> Vec<Satcom> {
        let mut satcoms: Vec<Satcom> = Vec::new();
        for bearer in &raw.satcom {
            if satcoms.iter().any(|s| s.name == bearer.name) {
                self.problem((), &format!("satcom {}", bearer.name), "appears twice");
            }
            let number = u16::try_from(satcoms.len()).unwrap_or(u16::MAX);
            let satcom = self.satcom(number, bearer);
            satcoms.push(satcom);
        }
        let named = |satcoms: &[Satcom], name: &str| satcoms.iter().position(|s| s.name == name);
        let mut seen = BTreeSet::new();
        for path in &raw.path {
            let place = format!("path {} to {}", path.from, path.to);
            let Some(i) = named(&satcoms, &path.satcom) else {
                self.problem((), &place, &format!("no satcom {}", path.satcom));
                continue;
            };
            let ends = self.members(&place, &satcoms[i], &path.from, &path.to);
            if !seen.insert((i, ends)) {
                self.problem((), &place, "appears twice");
            }
            self.path(&place, &mut satcoms[i].config, ends, path);
        }
        let mut contacts: BTreeMap<usize, Contacts<NodeId>> = BTreeMap::new();
        for contact in &raw.contact {
            let Some(name) = &contact.satcom else { continue };
            let place = format!("contact {} to {}", contact.from, contact.to);
            let Some(i) = named(&satcoms, name) else {
                self.problem((), &place, &format!("no satcom {name}"));
                continue;
            };
            let ends = self.members(&place, &satcoms[i], &contact.from, &contact.to);
            let known = |ends| satcoms[i].config.paths.contains_key(&ends);
            self.add_contact(contacts.entry(i).or_default(), &place, contact, ends, known, duration);
        }
        for (i, contacts) in contacts {
            let config = &mut satcoms[i].config;
            for (ends, plan) in &contacts {
                config.paths.entry(*ends).and_modify(|path| path.up = begins_up(plan));
            }
            config.plan = plan_changes(&contacts, duration);
        }
        for datagrams in &raw.datagrams {
            let place = format!("datagrams from {}", datagrams.from);
            match named(&satcoms, &datagrams.satcom) {
                Some(i) => {
                    let sources = self.sources(&place, &satcoms[i], datagrams, duration);
                    satcoms[i].datagrams.extend(sources);
                }
                None => self.problem((), &place, &format!("no satcom {}", datagrams.satcom)),
            }
        }
        satcoms.iter_mut().for_each(|s| s.datagrams.sort_by_key(|d| d.at));
        satcoms
    }

    fn satcom(&mut self, number: u16, raw: &raw::Satcom) -> Satcom {
        let place = format!("satcom {}", raw.name);
        let preset = match raw.preset.as_deref().map(Preset::find) {
            None => Preset::plain(),
            Some(Some(preset)) => preset,
            Some(None) => {
                let known: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
                self.problem(Preset::plain(), &place, &format!("no such preset; known: {}", known.join(", ")))
            }
        };
        if !(2..=MOST_MEMBERS).contains(&raw.members.len()) {
            self.problem((), &place, &format!("2 to {MOST_MEMBERS} members are needed"));
        }
        if raw.members.iter().collect::<BTreeSet<_>>().len() != raw.members.len() {
            self.problem((), &place, "a member appears twice");
        }
        let hub = raw.hub.as_ref().map(|name| self.member(&place, &raw.members, name));
        if hub.is_none() && (raw.rate_from_hub.is_some() || raw.mtu_from_hub.is_some()) {
            self.problem((), &place, "rate_from_hub and mtu_from_hub need a hub");
        }
        let mut config = NetConfig {
            overhead_bytes: self.size_or(&place, &raw.overhead, 0),
            shared_loss: self.datagram_loss(&place, raw.shared_loss, raw.shared_burst).unwrap_or_default(),
            fade: self.fade(&place, raw, preset.fade),
            half_duplex: raw.half_duplex.unwrap_or(preset.half_duplex),
            turnaround: self.duration_or(&place, &raw.turnaround, preset.turnaround),
            frame: self.duration_or(&place, &raw.frame, preset.frame),
            setup: self.duration_or(&place, &raw.setup, preset.setup),
            hangs_up: self.duration_or(&place, &raw.hangs_up, preset.hangs_up),
            holds: raw.holds.unwrap_or(preset.holds),
            ..NetConfig::default()
        };
        let ids: Vec<NodeId> = (0..u16::try_from(raw.members.len()).unwrap_or(0)).map(NodeId).collect();
        config.fades_at = match &raw.fade_at {
            None => ids.iter().copied().collect(),
            Some(names) => names.iter().map(|name| self.member(&place, &raw.members, name)).collect(),
        };
        config.members = self.transmitters(&place, raw, preset, &ids, hub);
        let path = PathConfig {
            delay: self.duration_or(&place, &raw.delay, preset.delay),
            jitter: self.duration_or(&place, &raw.jitter, preset.jitter),
            loss: self.datagram_loss(&place, raw.loss, raw.burst).unwrap_or_default(),
            up: true,
        };
        let pairs = ids.iter().flat_map(|&a| ids.iter().map(move |&b| (a, b)));
        let reaches = |&(a, b): &(NodeId, NodeId)| a != b && hub.is_none_or(|hub| a == hub || b == hub);
        config.paths = pairs.filter(reaches).map(|pair| (pair, path)).collect();
        let mut groups = vec![ALL.to_owned()];
        config.groups.push(ids.iter().copied().collect());
        for (name, members) in &raw.groups {
            if name == ALL {
                self.problem((), &place, "the group all has every member");
            }
            groups.push(name.clone());
            config.groups.push(members.iter().map(|m| self.member(&place, &raw.members, m)).collect());
        }
        let ports = raw.ports.clone().unwrap_or_default();
        if ports.contains(&0) || ports.iter().collect::<BTreeSet<_>>().len() != ports.len() {
            self.problem((), &place, "ports are UDP ports from 1 to 65535, each once");
        }
        let (name, members) = (raw.name.clone(), raw.members.clone());
        Satcom { name, members, groups, datagrams: Vec::new(), ports, number, config }
    }

    fn transmitters(
        &mut self,
        place: &str,
        raw: &raw::Satcom,
        preset: &Preset,
        ids: &[NodeId],
        hub: Option<NodeId>,
    ) -> Vec<MemberConfig> {
        let rate_bps = raw.rate.as_ref().map_or(preset.rate_bps, |text| self.rate(place, text));
        let own = MemberConfig {
            rate_bps,
            bucket_bytes: self.size_or(place, &raw.bucket, 0),
            queue_bytes: self.size_or(place, &raw.queue, preset.queue_bytes),
            mtu_bytes: self.size_or(place, &raw.mtu, preset.mtu_bytes),
        };
        let from_hub = MemberConfig {
            rate_bps: raw.rate_from_hub.as_ref().map_or(rate_bps, |text| self.rate(place, text)),
            mtu_bytes: match (&raw.mtu_from_hub, &raw.mtu) {
                (Some(text), _) => self.size(place, text),
                (None, Some(_)) => own.mtu_bytes,
                (None, None) => preset.mtu_from_hub_bytes.unwrap_or(own.mtu_bytes),
            },
            ..own
        };
        if own.mtu_bytes.max(from_hub.mtu_bytes) > own.queue_bytes {
            self.problem((), place, "the queue must hold at least one datagram of the MTU");
        }
        if own.mtu_bytes == 0 || from_hub.mtu_bytes == 0 {
            self.problem((), place, "the MTU is at least 1B");
        }
        ids.iter().map(|&id| if Some(id) == hub { from_hub } else { own }).collect()
    }

    fn path(&mut self, place: &str, config: &mut NetConfig, ends: (NodeId, NodeId), raw: &raw::Path) {
        let own = PathConfig { delay: Duration::ZERO, jitter: Duration::ZERO, loss: DatagramLoss::Ideal, up: true };
        let own = config.paths.get(&ends).copied().unwrap_or(own);
        let changed = PathConfig {
            delay: self.duration_or(place, &raw.delay, own.delay),
            jitter: self.duration_or(place, &raw.jitter, own.jitter),
            loss: self.datagram_loss(place, raw.loss, raw.burst).unwrap_or(own.loss),
            up: true,
        };
        match (raw.absent, config.paths.contains_key(&ends)) {
            (_, false) => self.problem((), place, "the hub stands between these two"),
            (Some(true), true) if changed != own => self.problem((), place, "is absent and has properties"),
            (Some(true), true) => drop(config.paths.remove(&ends)),
            (Some(false) | None, true) => drop(config.paths.insert(ends, changed)),
        }
    }

    fn sources(&mut self, place: &str, satcom: &Satcom, raw: &raw::Datagrams, duration: Duration) -> Vec<Source> {
        let from = self.member(place, &satcom.members, &raw.from);
        let to = match (&raw.to, &raw.group) {
            (Some(to), None) => Destination::Node(self.members(place, satcom, &raw.from, to).1),
            (None, Some(group)) => match satcom.groups.iter().position(|g| g == group) {
                Some(i) => Destination::Group(Group(u16::try_from(i).unwrap_or(u16::MAX))),
                None => return self.problem(Vec::new(), place, &format!("no group {group}")),
            },
            _ => return self.problem(Vec::new(), place, "either to or group"),
        };
        let size = self.size(place, &raw.size);
        let mtu = satcom.config.members.get(usize::from(from.0)).map_or(0, |m| m.mtu_bytes);
        if size > mtu {
            self.problem((), place, &format!("size is more than the MTU of {mtu} bytes"));
        }
        let (first, count) = (self.instant(place, &raw.at), raw.count.unwrap_or(1));
        if !(1..=MOST_MESSAGES).contains(&count) {
            return self.problem(Vec::new(), place, &format!("count must be 1 to {MOST_MESSAGES}"));
        }
        let every = self.duration_or(place, &raw.every, Duration::ZERO);
        let at = |i: u32| first + every.saturating_mul(i);
        if at(count - 1).since(Instant::ZERO) > duration {
            self.problem((), place, "sends after the scenario's end");
        }
        (0..count).map(|i| Source { at: at(i), from, to, size }).collect()
    }

    fn fade(&mut self, place: &str, raw: &raw::Satcom, preset: Option<Fade>) -> Option<Fade> {
        match (&raw.fade_every, &raw.fade) {
            (Some(every), Some(lasts)) => {
                let fade = Fade { every: self.duration(place, every), lasts: self.duration(place, lasts) };
                if fade.every.min(fade.lasts) < Duration::from_millis(1) {
                    self.problem((), place, "fade_every and fade are 1ms at least");
                }
                Some(fade)
            }
            (None, None) => {
                if raw.fade_at.is_some() && preset.is_none() {
                    self.problem((), place, "fade_at needs fade_every and fade");
                }
                preset
            }
            _ => self.problem(None, place, "fade_every and fade go together"),
        }
    }

    /// What `loss` and `burst` say, if anything.
    pub(super) fn datagram_loss(&mut self, place: &str, loss: Option<f64>, burst: Option<f64>) -> Option<DatagramLoss> {
        let Some(p) = loss else {
            return match burst {
                None => None,
                Some(_) => self.problem(None, place, "a burst needs a loss"),
            };
        };
        let p = self.share(place, p);
        // The chain leaves its good state with probability p / mean / (1 - p).
        if burst.is_some_and(|mean| mean < 1.0 || !mean.is_finite() || p / mean > 1.0 - p) {
            return self.problem(None, place, "burst is a mean number of datagrams, at least 1, and must fit the loss");
        }
        Some(DatagramLoss::of(p, burst))
    }

    fn member(&mut self, place: &str, members: &[String], name: &str) -> NodeId {
        let position = members.iter().position(|m| m == name).and_then(|i| u16::try_from(i).ok());
        position.map(NodeId).unwrap_or_else(|| self.problem(NodeId(0), place, &format!("no member {name}")))
    }

    fn members(&mut self, place: &str, satcom: &Satcom, from: &str, to: &str) -> (NodeId, NodeId) {
        if from == to {
            self.problem((), place, "the ends are the same member");
        }
        (self.member(place, &satcom.members, from), self.member(place, &satcom.members, to))
    }

    fn duration_or(&mut self, place: &str, text: &Option<String>, otherwise: Duration) -> Duration {
        text.as_ref().map_or(otherwise, |text| self.duration(place, text))
    }

    fn size_or(&mut self, place: &str, text: &Option<String>, otherwise: u64) -> u64 {
        text.as_ref().map_or(otherwise, |text| self.size(place, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PathState;
    use crate::scenario::Scenario;

    const SHORE: NodeId = NodeId(0);
    const ALPHA: NodeId = NodeId(1);
    const BRAVO: NodeId = NodeId(2);

    #[test]
    fn a_packet_bearer_is_read_whole() {
        let scenario = Scenario::parse(WHOLE).expect("reads");
        assert!(scenario.stations.is_empty());
        let satcom = &scenario.satcoms[0];
        let net = satcom.net(7);
        assert_eq!((net.overhead_bytes, net.holds, satcom.ports.as_slice()), (28, true, &[2751, 2753][..]));
        assert_ne!(net.seed, satcom.net(8).seed);
        assert_eq!(satcom.groups, ["all", "fleet"]);
        assert_eq!(net.groups[1], [ALPHA, BRAVO].into());
        // The preset's sizes, the hub's own rate.
        assert_eq!((net.members[0].mtu_bytes, net.members[0].rate_bps), (1890, 9600));
        assert_eq!((net.members[1].mtu_bytes, net.members[1].rate_bps), (1960, 1000));
        // Ships reach the shore only, and bravo does not even that.
        assert_eq!(net.paths.keys().copied().collect::<Vec<_>>(), [(SHORE, ALPHA), (SHORE, BRAVO), (ALPHA, SHORE)]);
        assert_eq!(net.paths[&(SHORE, BRAVO)].loss, DatagramLoss::Bursts { bad: 0.2 / 4.0 / 0.8, good: 0.25 });
        assert_eq!(net.paths[&(SHORE, ALPHA)].loss, DatagramLoss::Each { p: 0.01 });
        assert_eq!(net.fades_at, [ALPHA].into());
        let sent: Vec<(u64, Destination)> = satcom.datagrams.iter().map(|d| (d.at.0 / 1_000_000_000, d.to)).collect();
        let (group, shore) = (Destination::Group(Group(1)), Destination::Node(SHORE));
        assert_eq!(sent, [(1, group), (5, shore), (11, group)]);
    }

    #[test]
    fn contacts_become_changes_of_the_path_and_touching_ones_leave_no_gap() {
        let scenario = Scenario::parse(WHOLE).expect("reads");
        let net = scenario.satcoms[0].net(1);
        assert!(!net.paths[&(SHORE, ALPHA)].up && !net.paths[&(ALPHA, SHORE)].up && net.paths[&(SHORE, BRAVO)].up);
        let (up, down) = (PathState { up: true, ..PathState::default() }, PathState::default());
        let slow = PathState { rate_bps: Some(75), ..up };
        let plan = |from, to| {
            let of_pair = net.plan.iter().filter(move |c| (c.from, c.to) == (from, to));
            of_pair.map(|c| (c.at.0 / 1_000_000_000, c.state)).collect::<Vec<_>>()
        };
        let passes = [(600, up), (900, down), (4200, up), (4500, down)];
        assert_eq!(plan(ALPHA, SHORE), passes);
        // The last contact outlasts the scenario.
        let more = [passes[0], (900, slow), (1000, down), passes[2], passes[3], (7000, up)];
        assert_eq!(plan(SHORE, ALPHA), more);
    }

    #[test]
    fn every_problem_of_a_packet_bearer_is_named() {
        let text = WHOLE
            .replace("preset = \"sbd\"", "preset = \"pigeon\"")
            .replace("fade_at = [\"alpha\"]", "fade_at = [\"delta\"]")
            .replace("group = \"fleet\"", "group = \"float\"")
            .replace("size = \"100B\"", "size = \"4KiB\"")
            .replace("burst = 4", "burst = 0.5")
            .replace("[[\"900s\", \"1000s\"]", "[[\"800s\", \"1000s\"]")
            .replace("every = \"1h\"", "every = \"1ms\"");
        let all = Scenario::parse(&text).expect_err("wrong").join("\n");
        let parts =
            ["no such preset", "no member delta", "no group float", "MTU of 1500", "burst is", "longer than the time"];
        parts.iter().for_each(|part| assert!(all.contains(part), "{part} in {all}"));
        let text = WHOLE.replace("[[\"900s\", \"1000s\"]", "[[\"800s\", \"1000s\"]");
        assert!(Scenario::parse(&text).expect_err("wrong").join("\n").contains("overlaps another contact"));
        let text = WHOLE.replace("jitter = ", "jitters = ");
        assert!(Scenario::parse(&text).expect_err("wrong")[0].contains("jitters"));
    }

    const WHOLE: &str = r#"
name = "everything packets can have"
duration = "2h"

[[satcom]]
name = "birds"
preset = "sbd"
members = ["shore", "alpha", "bravo"]
hub = "shore"
rate_from_hub = "9600bps"
overhead = "28B"
jitter = "1s"
loss = 0.01
fade_every = "10min"
fade = "1min"
fade_at = ["alpha"]
holds = true
ports = [2751, 2753]
groups = { fleet = ["alpha", "bravo"] }

[[path]]
satcom = "birds"
from = "shore"
to = "bravo"
loss = 0.2
burst = 4

[[path]]
satcom = "birds"
from = "bravo"
to = "shore"
absent = true

[[contact]]
satcom = "birds"
from = "alpha"
to = "shore"
both = true
first = "10min"
every = "1h"
length = "5min"

[[contact]]
satcom = "birds"
from = "shore"
to = "alpha"
up = [["900s", "1000s"]]
rate = "75bps"

[[contact]]
satcom = "birds"
from = "shore"
to = "alpha"
up = [["7000s", "8000s"]]

[[datagrams]]
satcom = "birds"
at = "1s"
from = "shore"
group = "fleet"
size = "200B"
count = 2
every = "10s"

[[datagrams]]
satcom = "birds"
at = "5s"
from = "alpha"
to = "shore"
size = "100B"
"#;
}
