//! Who is whose neighbour, over whom a message goes, and the profile that follows for each station.
//!
//! Two stations are peers when each hears the other; mail to anybody farther away goes over the fewest relays, by static routes
//! (link-rules A8). Station numbers are given within what hangs together: two nets on one frequency that never hear each other may use
//! the same ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use aldis::config::{self, Plan};
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::Setup;
use crate::ether::{LinkConfig, StationId};
use crate::modem::ModemConfig;

/// Most stations that can hang together: as many as frames have numbers for.
pub const MOST_STATIONS: usize = 16;

/// Neighbours, numbers and routes of a net.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    neighbours: Vec<BTreeSet<usize>>,
    /// The same over each bearer alone.
    over: Vec<Vec<BTreeSet<usize>>>,
    numbers: Vec<u8>,
    /// By station and destination: the next station on the way.
    next: Vec<BTreeMap<usize, usize>>,
}

impl Topology {
    /// What follows from who hears whom, over whichever bearer: radio `k * count + i` is station `i`'s on bearer `k`. The number of a station that hangs together with more than [`MOST_STATIONS`] is not unique.
    pub fn new(count: usize, links: &BTreeMap<(StationId, StationId), LinkConfig>) -> Self {
        let mut neighbours = vec![BTreeSet::new(); count];
        let mut hears = vec![BTreeSet::new(); count];
        let mut over: Vec<Vec<BTreeSet<usize>>> = Vec::new();
        for (from, to) in links.keys() {
            let (bearer, a, b) = (usize::from(from.0) / count, usize::from(from.0) % count, usize::from(to.0) % count);
            hears[a].insert(b);
            hears[b].insert(a);
            if links.contains_key(&(*to, *from)) {
                neighbours[a].insert(b);
                if over.len() <= bearer {
                    over.resize(bearer + 1, vec![BTreeSet::new(); count]);
                }
                over[bearer][a].insert(b);
            }
        }
        let mut numbers = vec![0; count];
        for net in nets(&hears) {
            for (number, station) in net.into_iter().enumerate() {
                numbers[station] = (number % MOST_STATIONS) as u8;
            }
        }
        let next = (0..count).map(|from| ways(from, &neighbours)).collect();
        Self { neighbours, over, numbers, next }
    }

    /// The stations that hang together with each other, by net: also where only one of two hears the other.
    pub fn largest_net(count: usize, links: &BTreeMap<(StationId, StationId), LinkConfig>) -> usize {
        let mut hears = vec![BTreeSet::new(); count];
        for (from, to) in links.keys() {
            let (a, b) = (usize::from(from.0) % count, usize::from(to.0) % count);
            hears[a].insert(b);
            hears[b].insert(a);
        }
        nets(&hears).iter().map(BTreeSet::len).max().unwrap_or(0)
    }

    /// A station's peers.
    pub fn neighbours(&self, station: StationId) -> impl Iterator<Item = StationId> + '_ {
        self.neighbours[usize::from(station.0)].iter().map(|i| id(*i))
    }

    /// The stations that a station reaches over a bearer.
    pub fn over(&self, bearer: usize, station: StationId) -> impl Iterator<Item = StationId> + '_ {
        let all = self.over.get(bearer).and_then(|stations| stations.get(usize::from(station.0)));
        all.into_iter().flatten().map(|i| id(*i))
    }

    /// A station's number on the air.
    pub fn number(&self, station: StationId) -> u8 {
        self.numbers[usize::from(station.0)]
    }

    /// The stations a message passes, its ends included; empty when there is no way.
    pub fn way(&self, from: StationId, to: StationId) -> Vec<StationId> {
        let (mut at, to) = (usize::from(from.0), usize::from(to.0));
        let mut way = vec![id(at)];
        while at != to {
            let Some(next) = self.next[at].get(&to) else { return Vec::new() };
            at = *next;
            way.push(id(at));
        }
        way
    }
}

fn id(index: usize) -> StationId {
    StationId(u16::try_from(index).unwrap_or(u16::MAX))
}

fn nets(hears: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let mut nets: Vec<BTreeSet<usize>> = Vec::new();
    for station in 0..hears.len() {
        if nets.iter().any(|net| net.contains(&station)) {
            continue;
        }
        let (mut net, mut open) = (BTreeSet::from([station]), vec![station]);
        while let Some(at) = open.pop() {
            open.extend(hears[at].iter().filter(|other| net.insert(**other)));
        }
        nets.push(net);
    }
    nets
}

/// The first step from `from` to everywhere: fewest relays, and of equal ways the lowest station.
fn ways(from: usize, neighbours: &[BTreeSet<usize>]) -> BTreeMap<usize, usize> {
    let mut first = BTreeMap::new();
    let mut open: VecDeque<(usize, usize)> = neighbours[from].iter().map(|n| (*n, *n)).collect();
    while let Some((at, step)) = open.pop_front() {
        if at == from || first.contains_key(&at) {
            continue;
        }
        first.insert(at, step);
        open.extend(neighbours[at].iter().map(|n| (*n, step)));
    }
    first
}

/// A station's plan, by way of a profile so that it passes the same checks as anybody's.
pub(super) fn plan(setup: &Setup, topology: &Topology, station: StationId) -> Plan {
    let index = usize::from(station.0);
    let name = |i: usize| setup.names[i].as_str();
    let own = name(index);
    let mut text = format!(
        "[node]\nname = \"{own}\"\nhostname = \"mail.{own}.example\"\npostmaster = \"postmaster@{own}.example\"\nstate_dir = \"state\"\nsocket = \"control\"\n\
         clock = \"trusted\"\n{}\n[limits]\n{}\n[local]\nmaildir = \"mail\"\n\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\n\
         [[route]]\nmatch = \"{own}.example\"\nto = \"local\"\n\n",
        fault(setup),
        setup.limits
    );
    for (to, next) in &topology.next[index] {
        text.push_str(&format!("[[route]]\nmatch = \"{}.example\"\nto = \"peer:{}\"\n\n", name(*to), name(*next)));
    }
    for peer in topology.neighbours[index].iter().copied() {
        let pair = (index.min(peer), index.max(peer));
        let whose = match setup.net_key {
            true => "key of the laboratory's net".to_owned(),
            false => format!("key of the laboratory's pair {pair:?}"),
        };
        let key = HEXLOWER.encode(digest(&SHA256, whose.as_bytes()).as_ref());
        let keys = match setup.protection {
            "off" => String::new(),
            _ => format!("keys = [{{ id = 0, hex = \"{key}\" }}]\n"),
        };
        text.push_str(&format!(
            "[[peer]]\nname = \"{}\"\nstation = {}\nprotection = \"{}\"\n{keys}dictionary = {}\n\n",
            name(peer),
            topology.numbers[peer],
            setup.protection,
            setup.dictionaries.contains_key(&station)
        ));
    }
    let count = setup.names.len();
    let bearers: Vec<(&str, &ModemConfig)> = setup
        .bearers()
        .enumerate()
        .filter(|(k, _)| topology.over(*k, station).next().is_some())
        .map(|(k, bearer)| (bearer, &setup.ether.stations[k * count + index]))
        .collect();
    for (k, bearer) in setup.bearers().enumerate() {
        let peers: Vec<_> =
            topology.over(k, station).map(|peer| format!("\"{}\"", name(usize::from(peer.0)))).collect();
        if peers.is_empty() {
            continue;
        }
        let modem = &setup.ether.stations[k * count + index];
        let waveform = modem.waveform;
        let rate = match modem.selects {
            true => setup.rates.clone(),
            false => format!("rate = \"{}bps\"\ninterleaver = \"{}\"", waveform.rate, waveform.interleaver),
        };
        let net = if k == 0 { "none" } else { bearer };
        text.push_str(&format!(
        "[[bearer]]\nname = \"{bearer}\"\nnet = \"{net}\"\ndevice = \"tty{k}\"\nkeying = {{ socket = \"modem{k}\" }}\nmodem = \"simulated\"\n\
         {rate}\nstation = {}\npeers = [{}]\nemcon = \"{}\"\n{}\n",
        topology.numbers[index],
        peers.join(", "),
        setup.emcon,
        if k == 0 { setup.bearer } else { "" }
    ));
    }
    text.push_str(setup.tables);
    let dictionary = setup.dictionaries.get(&station).copied();
    if dictionary.is_some() {
        text.push_str("[codec]\ndictionary = \"site.dict\"\n");
    }
    let checked = config::load(Path::new("/lab/profile.toml"), &[], &Disk { profile: text.clone(), dictionary })
        .unwrap_or_else(|problems| panic!("the laboratory's profile: {problems:#?}\n{text}"));
    let mut plan = checked.plan;
    for (bearer, (_, modem)) in plan.bearers.iter_mut().zip(&bearers) {
        let own = modem.waveform.plan(modem, bearer.waveform.frame_bytes);
        if modem.selects {
            // The sheet's waveforms with this modem's habits.
            for w in bearer.choices.iter_mut().map(|c| &mut c.waveform).chain([&mut bearer.waveform]) {
                (w.turnaround, w.buffer_bytes, w.can_abort) = (own.turnaround, own.buffer_bytes, own.can_abort);
            }
        } else {
            bearer.waveform = own;
        }
        if let Some(most) = setup.max_transmission {
            (bearer.max_transmission, bearer.max_transmission_routine) = (most, most);
        }
    }
    plan
}

#[cfg(feature = "mutations")]
fn fault(setup: &Setup) -> String {
    setup.mutation.map(|m| format!("mutation = \"{m}\"\n")).unwrap_or_default()
}

#[cfg(not(feature = "mutations"))]
fn fault(_: &Setup) -> &'static str {
    ""
}

struct Disk {
    profile: String,
    dictionary: Option<&'static [u8]>,
}

impl config::Files for Disk {
    fn read(&self, path: &Path) -> std::io::Result<config::File> {
        let bytes = match path.strip_prefix("/lab").ok().and_then(Path::to_str) {
            Some("profile.toml") => Some(self.profile.as_bytes()),
            Some("site.dict") => self.dictionary,
            _ => None,
        };
        let bytes = bytes.ok_or(std::io::ErrorKind::NotFound)?;
        Ok(config::File { bytes: bytes.to_vec(), mode: 0o600 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_goes_over_the_fewest_relays_and_numbers_are_given_within_a_net() {
        // 0 - 1 - 2 - 3 and 0 - 2; 4 - 5 apart; 3 hears 6, which does not hear 3.
        let both = [(0, 1), (1, 2), (2, 3), (0, 2), (4, 5)];
        let links = both.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]).chain([(6, 3)]);
        let links = links.map(|(a, b)| ((StationId(a), StationId(b)), LinkConfig::default())).collect();
        let net = Topology::new(7, &links);
        let way = |a, b| net.way(StationId(a), StationId(b)).iter().map(|s| s.0).collect::<Vec<_>>();
        assert_eq!(way(0, 3), [0, 2, 3]);
        assert_eq!(way(3, 1), [3, 2, 1]);
        assert!(way(0, 4).is_empty() && way(6, 3).is_empty() && way(3, 6).is_empty());
        let numbers: Vec<u8> = (0..7).map(|i| net.number(StationId(i))).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 0, 1, 4]);
        assert_eq!(Topology::largest_net(7, &links), 5);
    }
}
