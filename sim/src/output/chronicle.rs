//! A finished run as plain values: who radiated what, who heard it, what was ordered, what befell the net.
//!
//! Made once from the laboratory and its journal; everything that draws reads only this, so that a test can draw a run by hand.

use std::collections::BTreeMap;

use aldis::bearer::serial::frame::{Frame, Item};
use aldis::emcon::State;
use aldis::mail::{BearerId, Precedence};
use aldis::ops::Event;
use aldis::time::{Instant, Wall};

use super::frames::{self, Content, Piece, Rings, Transfers};
use crate::ether::StationId;
use crate::journal::{Reception, Transmission};
use crate::lab::{Lab, Violation};
use crate::modem::Failure;
use crate::run::RunReport;
use crate::scenario::{self, Scenario};

/// Everything a picture of a run needs.
#[derive(Clone, PartialEq, Debug)]
pub struct Chronicle {
    /// What the run came to.
    pub report: RunReport,
    /// Civil time at virtual time zero.
    pub start: Wall,
    /// When the scenario as written was over and everything was mended.
    pub mended: Instant,
    /// When everything was settled.
    pub end: Instant,
    /// The stations, in order of their ids.
    pub stations: Vec<Station>,
    /// Every carrier, in order of time.
    pub key_downs: Vec<KeyDown>,
    /// Every block at every receiver, in order of time.
    pub receptions: Vec<Reception>,
    /// Every path: from, to.
    pub links: Vec<(StationId, StationId)>,
    /// Carriers that an order forbade.
    pub violations: Vec<Violation>,
    /// What befell the net.
    pub mishaps: Vec<Mishap>,
}

/// A station over the run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Station {
    /// Its name.
    pub name: String,
    /// Orders in force, each from its instant on.
    pub orders: Vec<(Instant, State)>,
    /// When its process was down.
    pub down: Vec<(Instant, Instant)>,
    /// Its transfers by short id.
    pub(super) transfers: Transfers,
}

/// One carrier and what it said.
#[derive(Clone, PartialEq, Debug)]
pub struct KeyDown {
    /// What left the antenna.
    pub sent: Transmission,
    /// Its frames and what lies between them.
    pub pieces: Vec<Piece>,
    /// What it was for.
    pub kind: Kind,
    /// Its highest level, as its node had it.
    pub precedence: Option<Precedence>,
}

/// What a carrier was for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Symbols of mail.
    Symbols,
    /// Symbols of mail and a report.
    Mixed,
    /// A report on what was heard.
    Report,
    /// A question for one.
    Poll,
    /// A hello or a cancellation.
    Hello,
    /// No whole frame: cut off early.
    Nothing,
}

/// Something that befell the net.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mishap {
    /// From when.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
    /// What.
    pub what: What,
}

/// What befell the net.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum What {
    /// A path was gone.
    Path(StationId, StationId),
    /// A modem was broken.
    Modem(StationId, Failure),
}

impl Chronicle {
    /// Gathers a run that kept a journal.
    pub fn of(scenario: &Scenario, report: &RunReport, lab: &Lab) -> Self {
        let ether = lab.world().ether();
        let nodes = lab.world().hosts();
        let mut rings = Rings::of(nodes.iter().map(|node| node.plan()));
        let journal = ether.journal().cloned().unwrap_or_default();
        let stations: Vec<Station> = ether.ids().map(|id| station(scenario, lab, id)).collect();
        let mut levels: Vec<_> = ether
            .ids()
            .map(|radio| {
                let (host, port) = lab.world().cabled(radio);
                let node = lab.node(host);
                let key_downs = node.log().events.iter().filter_map(|(at, e)| key_down(*at, e, node.bearer(port)));
                key_downs.collect::<Vec<_>>().into_iter().peekable()
            })
            .collect();
        let key_downs = journal.transmissions.into_iter().map(|sent| {
            let fill = ether.modem(sent.station).map_or(0, |m| m.fill);
            let pieces = frames::cut(&sent.bytes, fill, &mut rings);
            let mut precedence = None;
            if let Some(levels) = levels.get_mut(usize::from(sent.station.0)) {
                while let Some((_, level)) = levels.next_if(|(at, _)| sent.off.is_none_or(|off| *at <= off)) {
                    precedence = Some(level);
                }
            }
            KeyDown { kind: kind(&pieces), pieces, precedence, sent }
        });
        Self {
            report: report.clone(),
            start: scenario.start,
            mended: Instant::ZERO + scenario.duration,
            end: lab.at(),
            key_downs: key_downs.collect(),
            receptions: journal.receptions,
            links: scenario.links.keys().copied().collect(),
            violations: lab.violations(),
            mishaps: mishaps(scenario),
            stations,
        }
    }

    /// Civil time at an instant of the run.
    pub fn wall(&self, at: Instant) -> Wall {
        self.start.plus(at.since(Instant::ZERO))
    }

    /// A station's name.
    pub fn name(&self, id: StationId) -> &str {
        self.stations.get(usize::from(id.0)).map_or("?", |s| s.name.as_str())
    }

    pub(super) fn describe(&self, from: StationId, content: &Content) -> String {
        let names: Vec<String> = self.stations.iter().map(|s| s.name.clone()).collect();
        let none = Transfers::new();
        let transfers = self.stations.get(usize::from(from.0)).map_or(&none, |s| &s.transfers);
        frames::describe(content, &names, transfers)
    }
}

fn key_down(at: Instant, event: &Event, on: Option<&BearerId>) -> Option<(Instant, Precedence)> {
    match event {
        Event::KeyDown { precedence, bearer, .. } if Some(bearer) == on => Some((at, *precedence)),
        _ => None,
    }
}

fn station(scenario: &Scenario, lab: &Lab, id: StationId) -> Station {
    let (host, port) = lab.world().cabled(id);
    let log = lab.node(host).log();
    let mut down = Vec::new();
    for &(at, up) in &log.lives {
        match down.last_mut() {
            Some((_, until)) if up && *until == Instant(u64::MAX) => *until = at,
            _ if !up => down.push((at, Instant(u64::MAX))),
            _ => {}
        }
    }
    for (_, until) in &mut down {
        *until = (*until).min(lab.at());
    }
    let (mut levels, mut transfers) = (BTreeMap::new(), Transfers::new());
    for (_, event) in &log.events {
        match event {
            Event::MessageAccepted { message, precedence, .. } => {
                levels.insert(*message, *precedence);
            }
            Event::TransferFrozen { message, transfer, .. } => {
                if let Some(short) = short(transfer) {
                    transfers.insert(short, (message.to_string(), levels.get(message).copied()));
                }
            }
            _ => {}
        }
    }
    let orders = lab.standings(host).map(|(at, state)| (at, state.clone())).collect();
    let name = match port {
        0 => scenario.station(id).to_owned(),
        _ => format!("{}/{}", scenario.station(host), scenario.bearers[port - 1]),
    };
    Station { name, orders, down, transfers }
}

/// The id that frames carry, of a transfer `origin/epoch/counter` (docs/wire-serial.md).
fn short(transfer: &str) -> Option<u16> {
    let (rest, counter) = transfer.rsplit_once('/')?;
    let epoch = u32::from_str_radix(rest.rsplit_once('/')?.1, 16).ok()?;
    let counter: u32 = counter.parse().ok()?;
    u16::try_from((epoch & 0xF) << 12 | counter & 0xFFF).ok()
}

fn kind(pieces: &[Piece]) -> Kind {
    let (mut symbols, mut report, mut poll, mut hello) = (false, false, false, false);
    for piece in pieces {
        match &piece.content {
            Content::Frame(Frame::Symbols { .. }) => symbols = true,
            Content::Frame(Frame::Brief { .. }) => report = true,
            Content::Frame(Frame::Control { items, .. }) => {
                for item in items {
                    match item {
                        Item::Report(_) => report = true,
                        Item::Poll(_) => poll = true,
                        Item::Hello { .. }
                        | Item::Cancel(_)
                        | Item::Quality(_)
                        | Item::Order(_)
                        | Item::Group(_)
                        | Item::Follow(_) => hello = true,
                    }
                }
            }
            Content::Padding | Content::Garbage => {}
        }
    }
    match (symbols, report, poll, hello) {
        (true, true, ..) => Kind::Mixed,
        (true, false, ..) => Kind::Symbols,
        (false, true, ..) => Kind::Report,
        (false, false, true, _) => Kind::Poll,
        (false, false, false, true) => Kind::Hello,
        (false, false, false, false) => Kind::Nothing,
    }
}

/// The scenario's paths and modems that were away; whatever has no end of its own ends when everything is mended.
fn mishaps(scenario: &Scenario) -> Vec<Mishap> {
    let mended = Instant::ZERO + scenario.duration;
    let mut open: BTreeMap<What, Instant> = BTreeMap::new();
    let mut mishaps = Vec::new();
    for event in &scenario.events {
        let (what, begins) = match &event.what {
            scenario::What::Path { from, to, up } => (What::Path(*from, *to), !up),
            scenario::What::Failure { station, failure, broken } => (What::Modem(*station, *failure), *broken),
            scenario::What::Emcon { .. }
            | scenario::What::Process { .. }
            | scenario::What::Fade { .. }
            | scenario::What::Mishap { .. } => continue,
        };
        if begins {
            open.entry(what).or_insert(event.at);
        } else if let Some(from) = open.remove(&what) {
            mishaps.push(Mishap { from, until: event.at, what });
        }
    }
    mishaps.extend(open.into_iter().map(|(what, from)| Mishap { from, until: mended.max(from), what }));
    mishaps.sort_by_key(|m| (m.from, m.what));
    mishaps
}

impl Kind {
    /// Its name on pictures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Symbols => "symbols",
            Self::Mixed => "symbols and report",
            Self::Report => "report",
            Self::Poll => "poll",
            Self::Hello => "hello",
            Self::Nothing => "nothing whole",
        }
    }

    /// Whether mail is in it.
    pub fn carries_mail(self) -> bool {
        matches!(self, Self::Symbols | Self::Mixed)
    }
}
