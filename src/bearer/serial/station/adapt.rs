//! Where the station meets [`rate`](super::super::rate): the waveform of the next transmission, what is learnt of each, and what an
//! operator may see of a link. On a bearer of one waveform only the last is left.

use std::collections::{BTreeMap, BTreeSet};

use super::super::frame::{MOST_HEARD, Stations};
use super::super::outgoing::Outgoing;
use super::super::rate::{Learnt, Palette, Quality, Reach, Sent, TRIAL, for_traffic, for_words};
use super::{Air, Station, Transmission};
use crate::bearer::{Measurement, ModemAction, WaveformName};
use crate::mail::{PeerName, Precedence, TransferId};
use crate::time::{Duration, Instant};

/// Beyond the expected instant of an answer's first symbol, until it is given up: carrier detect, commits, a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// Unreadable answers in a row that are taken for the peer's: after these they may as well be interference, and count as silence.
const BELIEVED: u32 = 3;

/// What a bearer knows that may choose.
#[derive(Debug)]
pub(super) struct Adapt {
    pub(super) palette: Palette,
    pub(super) reaches: BTreeMap<u8, Reach>,
    /// The choice of the transmission under way, or of the next one.
    pub(super) choice: usize,
    /// What the modem was told last.
    pub(super) modem: Option<usize>,
}

impl Adapt {
    pub(super) fn new(palette: Palette, stations: impl Iterator<Item = u8>) -> Self {
        let reaches = stations.map(|s| (s, Reach::new(&palette))).collect();
        Self { choice: palette.start(), modem: None, reaches, palette }
    }
}

/// A transmission whose report did not come: what it was, and what was missing before it.
#[derive(Clone, PartialEq, Debug)]
pub struct Unheard {
    sent: Sent,
    frame_bytes: usize,
    missing: Vec<(TransferId, u32)>,
}

/// What an operator may see of the link to one peer.
#[derive(Clone, PartialEq, Debug)]
pub struct LinkState {
    /// The peer.
    pub peer: PeerName,
    /// What traffic goes to it with.
    pub waveform: WaveformName,
    /// Why that.
    pub why: &'static str,
    /// Signal-to-noise ratio there, dB, where anything tells.
    pub snr_db: Option<f64>,
    /// Share of cells lost there.
    pub loss: f64,
    /// From the end of a transmission to the first symbol of its answer, as measured.
    pub turnaround: Option<Duration>,
    /// How long an answer is waited for.
    pub wait: Duration,
    /// Transmissions of traffic, and changes of rate between them.
    pub changes: (u32, u32),
    /// What it can read, as it last said; `None` before it was heard.
    pub reads: Option<u8>,
}

impl Station {
    /// The facts of the waveform in use.
    pub fn waveform(&self) -> &super::super::Waveform {
        self.air.waveform()
    }

    /// The state of every link.
    pub fn links(&self) -> Vec<LinkState> {
        let link = |(station, p): (&u8, &super::Peer)| {
            let adapt = self.adapt.as_ref();
            let known = adapt.and_then(|a| a.reaches.get(station).map(|r| (a, r)));
            LinkState {
                peer: p.name.clone(),
                waveform: self.spoken_to(&p.name).clone(),
                why: known.map_or("fixed", |(_, r)| r.why()),
                snr_db: known.and_then(|(_, r)| r.ratio_db()).or(p.incoming_db),
                loss: self.loss_to(*station),
                turnaround: p.turnaround.mean(),
                wait: self.answer_within(Stations::one(*station)),
                changes: known.map_or((0, 0), |(_, r)| (r.sent, r.changes)),
                reads: (p.record.epoch != 0).then_some(p.record.reads),
            }
        };
        self.peers.iter().map(link).collect()
    }

    /// The waveform for what would be said now, where there is a choice.
    pub(super) fn choose_waveform(
        &self,
        speakable: &[&Outgoing],
        reporting: &BTreeSet<u8>,
        top: Option<Precedence>,
    ) -> Option<usize> {
        let Adapt { palette, reaches, .. } = self.adapt.as_ref()?;
        let spread = speakable.iter().filter(|t| !t.unsure);
        let bytes: u64 = spread.map(|t| u64::from(t.missing()) * t.geometry.symbol_bytes() as u64).sum();
        let stations: BTreeSet<u8> = speakable
            .iter()
            .filter(|t| bytes == 0 || !t.unsure)
            .map(|t| t.station)
            .chain(reporting.iter().copied())
            .chain(self.peers.iter().filter(|(_, p)| !p.cancels.is_empty()).map(|(s, _)| *s))
            .collect();
        let reaches: Vec<&Reach> = stations.iter().filter_map(|s| reaches.get(s)).collect();
        Some(match bytes {
            0 => for_words(palette, &reaches, self.words(reporting, speakable) as u64),
            _ => for_traffic(palette, &reaches, bytes, self.cap(top, speakable, reporting)),
        })
    }

    /// The modem learns what to transmit with before it is asked to key.
    pub(super) fn tell_modem(&mut self) {
        let Some(a) = &mut self.adapt else { return };
        if a.modem != Some(a.choice) {
            a.modem = Some(a.choice);
            self.actions.push_back(ModemAction::Transmit(a.palette.choice(a.choice).name.clone()));
        }
    }

    /// What the modem says of what it receives.
    pub(super) fn measured(&mut self, m: &Measurement) {
        let ratio = match &self.adapt {
            Some(a) => a.palette.ratio(m),
            None => m.snr_tenths.map(|t| f64::from(t) / 10.0),
        };
        if let (Some(h), Some(db)) = (&mut self.hearing, ratio) {
            h.readings.take(db);
        }
    }

    /// A transmission of this station was heard, and its turnaround if it answered.
    pub(super) fn note_reception(
        &mut self,
        now: Instant,
        from: u8,
        since: Instant,
        quality: Option<Quality>,
        after: Option<Duration>,
    ) {
        let Some(p) = self.peers.get_mut(&from) else { return };
        if let Some(after) = after {
            p.turnaround.take(after);
        }
        if let Some(quality) = quality {
            (p.incoming, p.incoming_db) = (Some(quality), Some(quality.db));
        }
        let Some(reach) = self.adapt.as_mut().and_then(|a| a.reaches.get_mut(&from)) else { return };
        reach.alive();
        if let Some(quality) = quality {
            reach.overheard(now, quality, now.since(since));
        }
    }

    /// What is to be told to a peer about its transmissions.
    pub(super) fn quality_for(&self, station: u8) -> Option<u8> {
        let p = self.peers.get(&station)?;
        p.incoming.filter(|_| p.asks || self.adapt.is_some()).map(Quality::emit)
    }

    /// Whether a peer should be asked what it measures.
    pub(super) fn asks(&self, station: u8) -> bool {
        let reach = self.adapt.as_ref().and_then(|a| a.reaches.get(&station));
        reach.is_some_and(|r| !r.is_told())
    }

    /// A peer's word on how it hears us.
    pub(super) fn take_quality(&mut self, now: Instant, from: u8, byte: Option<u8>) {
        let Some(p) = self.peers.get_mut(&from) else { return };
        let Some(byte) = byte else {
            p.asks = true;
            return;
        };
        let quality = Quality::parse(byte);
        p.told_quality = Some(quality);
        let air = p.sent.map_or(Duration::ZERO, |s| s.air);
        if let Some(reach) = self.adapt.as_mut().and_then(|a| a.reaches.get_mut(&from)) {
            reach.told(now, quality, air);
        }
    }

    /// A report says how many frames arrived of the transmission it answers.
    pub(super) fn learn_arrivals(&mut self, now: Instant, from: u8, heard: u16) {
        let Some(p) = self.peers.get_mut(&from) else { return };
        let told = p.told_quality.take();
        let Some(sent) = p.sent.take().filter(|s| s.frames > 0) else { return };
        p.unheard = None;
        let heard = if heard == MOST_HEARD { sent.frames } else { heard.into() };
        let Some(a) = &mut self.adapt else { return };
        if let Some(reach) = a.reaches.get_mut(&from) {
            reach.arrived(now, &a.palette, sent, heard, told);
        }
    }

    /// A transmission is out.
    pub(super) fn note_sent(&mut self, now: Instant, tx: &Transmission) {
        self.asked_at = (!tx.expects.is_empty()).then_some(now);
        let choice = self.adapt.as_ref().map_or(0, |a| a.choice);
        for station in &tx.expects {
            let frames = tx.frames.get(station).copied().unwrap_or(0);
            if let Some(p) = self.peers.get_mut(station) {
                p.sent = Some(Sent { choice, frames, air: now.since(tx.keyed) });
                p.frame_bytes = tx.layout.symbol_bytes;
            }
            let Some(a) = self.adapt.as_mut().filter(|_| frames > 0) else { continue };
            if let Some(reach) = a.reaches.get_mut(station) {
                reach.leaves(&a.palette, choice);
            }
        }
    }

    /// A peer asks. Where it was answered and has said nothing else since, it did not hear the answer.
    pub(super) fn note_question(&mut self, from: u8) {
        let answered = self.peers.get_mut(&from).is_some_and(|p| std::mem::take(&mut p.answered));
        let Some(a) = self.adapt.as_mut().filter(|_| answered) else { return };
        if let Some(reach) = a.reaches.get_mut(&from) {
            reach.asked_again(&a.palette);
        }
    }

    /// A turn was not answered.
    pub(super) fn note_silence(&mut self, station: u8) {
        self.asked_at = None;
        let of_station = self.outgoing.iter().filter(|(_, t)| t.station == station);
        let missing = of_station.map(|(id, t)| (id.clone(), t.missing())).collect();
        let Some(p) = self.peers.get_mut(&station) else { return };
        if let Some(sent) = p.sent.take().filter(|s| s.frames > 0) {
            p.unheard = Some(Unheard { sent, frame_bytes: p.frame_bytes, missing });
        }
        // Who answers, though it cannot be read, has heard. Somebody else may go on for ever.
        if p.spoke_garbled && p.garbled < BELIEVED {
            return;
        }
        let Some(a) = &mut self.adapt else { return };
        if let Some(reach) = a.reaches.get_mut(&station) {
            reach.silence(&a.palette);
        }
    }

    /// A later report shows what became of a transmission whose own report did not come.
    pub(super) fn settle_unheard(&mut self, now: Instant, station: u8) {
        let Some(unheard) = self.peers.get_mut(&station).and_then(|p| p.unheard.take()) else { return };
        let arrived = |(id, before): &(TransferId, u32)| match self.outgoing.get(id) {
            Some(t) => before.saturating_sub(t.missing()) as usize * t.geometry.symbol_bytes(),
            None => *before as usize * self.air.cut().unit(),
        };
        let bytes: usize = unheard.missing.iter().map(arrived).sum();
        let frames = (bytes.div_ceil(unheard.frame_bytes.max(1)) as u32).min(unheard.sent.frames);
        let Some(a) = &mut self.adapt else { return };
        if let Some(reach) = a.reaches.get_mut(&station) {
            reach.arrived(now, &a.palette, unheard.sent, frames, None);
        }
    }

    /// How long these stations may take until one of them is heard to answer, from the end of our carrier.
    pub(super) fn answer_within(&self, stations: Stations) -> Duration {
        let configured = self.config.waveform.turnaround;
        match &self.adapt {
            // Its report must be out, as far as a station without carrier detect can tell.
            None => self.air.turn() + self.config.waveform.block,
            Some(a) if !self.carrier_tells => configured * 2 + PATIENCE + a.palette.longest_answer(),
            Some(_) => {
                let of = self.peers.iter().filter(|(s, _)| stations.has(**s));
                of.map(|(_, p)| p.turnaround.within(configured)).max().unwrap_or(configured) + PATIENCE
            }
        }
    }

    /// What of the way to a peer is to outlive a restart.
    pub(super) fn learnt(&self, station: u8) -> Option<Learnt> {
        let a = self.adapt.as_ref()?;
        a.reaches.get(&station)?.learnt(&a.palette)
    }

    /// Takes what was learnt of the way to a peer before a restart.
    pub(super) fn remember_reach(&mut self, station: u8, learnt: Learnt) {
        let Some(a) = &mut self.adapt else { return };
        if let Some(reach) = a.reaches.get_mut(&station) {
            reach.remember(&a.palette, &learnt);
        }
    }

    /// How long a transmission of traffic to these may be while it is not known that anything arrives there.
    pub(super) fn trial(&self, stations: impl Iterator<Item = u8>) -> Option<Duration> {
        let a = self.adapt.as_ref()?;
        let mut reaches = stations.filter_map(|s| a.reaches.get(&s)).peekable();
        reaches.peek()?;
        reaches.all(|r| r.tries(&a.palette, a.choice)).then_some(TRIAL)
    }

    /// The longest block anybody may send here.
    pub(super) fn longest_block(&self) -> Duration {
        self.adapt.as_ref().map_or(self.config.waveform.block, |a| a.palette.longest_block())
    }

    /// The slowest waveform anybody may send here.
    pub(super) fn slowest(&self) -> &super::super::Waveform {
        self.adapt.as_ref().map_or(&self.config.waveform, |a| &a.palette.choice(0).waveform)
    }

    /// What a palette makes of the first choice.
    pub(super) fn first_air(config: &super::Config, adapt: Option<&Adapt>) -> Air {
        adapt.map_or_else(|| Air::new(config.waveform.clone()), |a| a.palette.air(a.choice).clone())
    }
}
