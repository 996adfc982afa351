//! The dry run of an order: what would go if it were given now, how long this station would radiate for it, and what would wait all the
//! same. Looks at copies of the orders and changes nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::plan::Waveform;
use crate::emcon::{Order, Purpose};
use crate::mail::{BearerId, Hop, MessageId, PeerName, Precedence, TransferId};
use crate::ops::Response;
use crate::ops::document::{EmconState, WhatIf, WhatIfBearer, WhatIfLevel, WhatIfStays};
use crate::time::{Duration, Now, Wall};

use super::Switch;
use super::air::{Bearer, civil};
use super::choice::{Candidate, Class, first};
use super::multicast::NetPassage;
use super::predict::{Load, tenths};

/// What of one level goes to one peer over one bearer.
#[derive(Default)]
struct Share {
    messages: BTreeSet<MessageId>,
    bytes: u64,
}

/// What would go over the bearers asked for, and what would not go over any.
#[derive(Default)]
struct Tally {
    goes: BTreeMap<(BearerId, PeerName, Reverse<Precedence>), Share>,
    stays: BTreeMap<(Reverse<Precedence>, String), BTreeSet<MessageId>>,
    last: BTreeMap<BearerId, Wall>,
    /// Payloads for several peers that were counted: their bytes leave once.
    shared: BTreeSet<(BearerId, u32, u32)>,
}

impl Switch {
    /// What would go if these bearers were under `order` now.
    pub(super) fn what_if(&self, now: Now, bearers: &[BearerId], order: &Order) -> Result<Response, String> {
        let mut gate = self.gate.supposed();
        for name in bearers {
            let supposed = order.clone().following(self.gate.order(name), civil(now))?;
            gate.set(name, Some(supposed));
        }
        let mut tally = Tally::default();
        for transfer in self.transfers.values() {
            let (Hop::Peer(peer), Some(record)) = (&transfer.hop, self.active.record(transfer.message)) else {
                continue;
            };
            let (level, bytes) = (record.precedence, u64::from(transfer.payload_bytes));
            if let Some(passage) = self.passage_on_net(now, &gate, peer, level, bytes) {
                let number = (transfer.id.epoch, transfer.lead.unwrap_or(transfer.id.counter));
                tally.count_on_net(bearers, transfer.message, (peer, level, bytes), &passage, number);
                continue;
            }
            let load = self.load_of(transfer, peer, record.precedence);
            let own =
                self.bearers.get(&transfer.bearer).map(|b| self.candidate(now, &gate, &transfer.bearer, b, &load));
            let mut candidates = self.candidates(now, &gate, &load);
            candidates.retain(|c| c.bearer != transfer.bearer);
            candidates.extend(own);
            let lead = transfer.lead.map(|counter| TransferId { counter, ..transfer.id.clone() });
            tally.count(now, bearers, transfer.message, &load, &candidates, lead.as_ref());
        }
        for w in self.active.to_go() {
            let Hop::Peer(peer) = w.hop else { continue };
            let load = self.load_to_come(w.record, peer);
            if let Some(passage) = self.passage_on_net(now, &gate, peer, load.level, load.payload_bytes) {
                // What is not frozen yet becomes one payload for all of a group.
                let (what, number) = ((peer, load.level, load.payload_bytes), (0, w.record.id.0 as u32));
                tally.count_on_net(bearers, w.record.id, what, &passage, number);
                continue;
            }
            match w.until.filter(|at| *at > now.wall) {
                Some(at) => {
                    if self.bearers_to(peer).any(|(name, _)| bearers.contains(name)) {
                        tally.stay(w.record.id, load.level, format!("next attempt {}", at.rfc3339()));
                    }
                }
                None => tally.count(now, bearers, w.record.id, &load, &self.candidates(now, &gate, &load), None),
            }
        }
        let shown = |name: &BearerId| {
            if let Some(net) = self.nets.get(name) {
                let emcon = EmconState::of(self.gate.order(name), civil(now));
                let (reports, air) = self.reports_on_net(now, &gate, name);
                let reports_air_s = tenths(air.as_secs_f64());
                let shown = tally.net(name, |bytes| net.plan.airtime(bytes));
                return Some(WhatIfBearer { emcon, reports, reports_air_s, ..shown });
            }
            let b = self.bearers.get(name)?;
            let mut reports = b.station.reports_owed() as u64;
            if gate.allows(now, name, Purpose::Report(Precedence::Override), Duration::ZERO).is_err() {
                reports = 0;
            }
            let w = &b.plan.waveform;
            let each = (w.preamble + w.block).as_secs_f64();
            Some(WhatIfBearer {
                emcon: EmconState::of(self.gate.order(name), civil(now)),
                reports,
                reports_air_s: tenths(each * reports as f64),
                ..tally.bearer(name, b)
            })
        };
        let stays = tally.stays.iter().map(|((level, why), messages)| WhatIfStays {
            precedence: level.0.name().into(),
            messages: messages.len() as u64,
            why: why.clone(),
        });
        Ok(Response::done(&WhatIf {
            schema: WhatIf::SCHEMA.into(),
            state: order.state.to_string(),
            bearers: bearers.iter().filter_map(shown).collect(),
            stays: stays.collect(),
        }))
    }
}

impl Tally {
    fn count(
        &mut self,
        now: Now,
        asked: &[BearerId],
        message: MessageId,
        load: &Load<'_>,
        candidates: &[Candidate],
        lead: Option<&TransferId>,
    ) {
        let Some(best) = first(candidates) else {
            return self.stay(message, load.level, format!("no bearer to {} may carry it", load.peer));
        };
        if best.class != Class::Open {
            // What only other bearers could carry is no part of the question.
            if candidates.iter().any(|c| asked.contains(&c.bearer)) {
                self.stay(message, load.level, best.why.clone());
            }
            return;
        }
        if !asked.contains(&best.bearer) {
            return;
        }
        let share = self.goes.entry((best.bearer.clone(), load.peer.clone(), Reverse(load.level))).or_default();
        share.messages.insert(message);
        let counted = lead.is_some_and(|l| !self.shared.insert((best.bearer.clone(), l.epoch, l.counter)));
        if !counted {
            share.bytes += load.missing_bytes;
        }
        if let Some(at) = best.forecast.delivered(now) {
            let last = self.last.entry(best.bearer.clone()).or_insert(at);
            *last = at.max(*last);
        }
    }

    /// The same over a bearer on an IP network: one payload leaves once for all of its group.
    fn count_on_net(
        &mut self,
        asked: &[BearerId],
        message: MessageId,
        (peer, level, bytes): (&PeerName, Precedence, u64),
        passage: &NetPassage,
        number: (u32, u32),
    ) {
        if !asked.contains(&passage.bearer) {
            return;
        }
        if !passage.open {
            return self.stay(message, level, format!("{} is closed to {level} by an order", passage.bearer));
        }
        let share = self.goes.entry((passage.bearer.clone(), peer.clone(), Reverse(level))).or_default();
        share.messages.insert(message);
        if self.shared.insert((passage.bearer.clone(), number.0, number.1)) {
            share.bytes += bytes;
        }
    }

    /// The part of such a bearer.
    fn net(&self, name: &BearerId, airtime: impl Fn(u64) -> Duration) -> WhatIfBearer {
        let mut levels: BTreeMap<Reverse<Precedence>, (BTreeSet<MessageId>, u64)> = BTreeMap::new();
        for ((_, _, level), share) in self.goes.iter().filter(|((bearer, ..), _)| bearer == name) {
            let (messages, bytes) = levels.entry(*level).or_default();
            messages.extend(&share.messages);
            *bytes += share.bytes;
        }
        let air = |bytes: u64| if bytes == 0 { 0.0 } else { tenths(airtime(bytes).as_secs_f64()) };
        let all: BTreeSet<MessageId> = levels.values().flat_map(|(messages, _)| messages).copied().collect();
        let bytes = levels.values().map(|(_, bytes)| bytes).sum();
        WhatIfBearer {
            name: name.to_string(),
            emcon: EmconState::of(None, None),
            messages: all.len() as u64,
            bytes,
            air_s: air(bytes),
            done_at: None,
            levels: levels
                .into_iter()
                .map(|(level, (messages, bytes))| WhatIfLevel {
                    precedence: level.0.name().into(),
                    messages: messages.len() as u64,
                    bytes,
                    air_s: air(bytes),
                })
                .collect(),
            reports: 0,
            reports_air_s: 0.0,
        }
    }

    fn stay(&mut self, message: MessageId, level: Precedence, why: String) {
        self.stays.entry((Reverse(level), why)).or_default().insert(message);
    }

    /// One bearer's part. A peer's mail is reckoned together from the highest level down: it shares transmissions.
    fn bearer(&self, name: &BearerId, b: &Bearer) -> WhatIfBearer {
        let mut levels: BTreeMap<Reverse<Precedence>, (BTreeSet<MessageId>, u64, f64)> = BTreeMap::new();
        let mut so_far: BTreeMap<&PeerName, u64> = BTreeMap::new();
        for ((_, peer, level), share) in self.goes.iter().filter(|((bearer, ..), _)| bearer == name) {
            let before = so_far.entry(peer).or_default();
            let spoken = b.station.spoken_to(peer);
            let w = b.plan.waveform_named(spoken.rate, &spoken.interleaver);
            let loss = b.station.outlook(peer).map_or(0.0, |o| o.loss).min(0.9);
            let air = radiates(b, w, *before + share.bytes) - radiates(b, w, *before);
            *before += share.bytes;
            let (messages, bytes, air_s) = levels.entry(*level).or_default();
            messages.extend(&share.messages);
            *bytes += share.bytes;
            *air_s += air / (1.0 - loss);
        }
        let all: BTreeSet<MessageId> = levels.values().flat_map(|(m, ..)| m).copied().collect();
        WhatIfBearer {
            name: name.to_string(),
            emcon: EmconState::of(None, None),
            messages: all.len() as u64,
            bytes: levels.values().map(|(_, bytes, _)| bytes).sum(),
            air_s: tenths(levels.values().map(|(.., air)| air).sum()),
            done_at: self.last.get(name).copied().map(Wall::rfc3339),
            levels: levels
                .into_iter()
                .map(|(level, (messages, bytes, air_s))| WhatIfLevel {
                    precedence: level.0.name().into(),
                    messages: messages.len() as u64,
                    bytes,
                    air_s: tenths(air_s),
                })
                .collect(),
            reports: 0,
            reports_air_s: 0.0,
        }
    }
}

fn radiates(b: &Bearer, w: &Waveform, bytes: u64) -> f64 {
    if bytes == 0 { 0.0 } else { b.plan.passage(w, bytes).emission.as_secs_f64() }
}
