//! The tables about the air: `[waveform]`, `[modem]` and `[channel]`. `docs/sim-channel.md` has every key.

use std::path::Path;
use std::sync::Arc;

use aldis::time::Duration;
use aldis::units::Bps;

use super::raw;
use super::reader::Reader;
use crate::channel::{Damage, Fading, Interference, Loss, Mean, PRESETS, Preset, Script, Sky, Wander, Wreck};
use crate::ether::LinkConfig;
use crate::modem::{ModemConfig, Noise};
use crate::waveform::{Family, LEVEL_SEGMENT, SUPERFRAME, Waveform};

/// Greatest script file, bytes.
const MOST_SCRIPT: u64 = 64 << 20;

impl Reader {
    pub(super) fn waveform(&mut self, place: &str, raw: &raw::Waveform) -> Waveform {
        let anything = crate::waveform::TABLE[0];
        if raw.rate == "auto" {
            if (raw.interleaver != "auto")
                || *raw
                    != (raw::Waveform {
                        rate: raw.rate.clone(),
                        interleaver: raw.interleaver.clone(),
                        ..raw::Waveform::default()
                    })
            {
                self.problem((), place, "rate = \"auto\" goes with interleaver = \"auto\" and with nothing else");
            }
            // What a profile begins with that says no more.
            return *Waveform::selected(300, "S").unwrap_or(&anything);
        }
        let family = raw.family.as_deref().map(Family::parse);
        if family == Some(None) {
            return self.problem(anything, place, "family is 110a, 4539, 4285, 4415 or wbhf");
        }
        let khz =
            raw.bandwidth.as_deref().map(|b| b.strip_suffix("kHz").and_then(|n| n.trim_end().parse::<u32>().ok()));
        let khz = match khz {
            None => 3,
            Some(Some(khz)) => khz,
            Some(None) => return self.problem(anything, place, "bandwidth is written like 24kHz"),
        };
        let found = Bps::parse(&raw.rate).and_then(|Bps(rate)| match family.flatten() {
            Some(family) => Waveform::choose(family, khz, rate, &raw.interleaver),
            None if khz == 3 => Waveform::find(rate, &raw.interleaver).copied(),
            None => None,
        });
        let Some(mut waveform) = found else {
            let known = "75bps to 2400bps with S or L (or Z from 150bps), 3200bps to 9600bps with US, VS, S, M, L or VL; \
                         with family = \"4285\" or \"4415\" S or L, with \"wbhf\" and a bandwidth of 3, 6, 12, 24 or 48kHz US, S, M or L";
            return self.problem(anything, place, &format!("no such rate and interleaver; known: {known}"));
        };
        match raw.level_segments {
            None => {}
            Some(n @ 0..=7) if waveform.family == Family::Stanag4539 => {
                waveform.preamble_symbols += u64::from(n) * LEVEL_SEGMENT;
            }
            Some(_) => {
                self.problem((), place, "level_segments is 0 to 7 and belongs to 3200bps to 9600bps of family 4539")
            }
        }
        match raw.superframes {
            None => {}
            Some(n @ 1..=32) if waveform.family == Family::Wideband => {
                waveform.preamble_symbols = u64::from(n) * SUPERFRAME;
            }
            Some(_) => self.problem((), place, "superframes is 1 to 32 and belongs to family wbhf"),
        }
        waveform
    }

    pub(super) fn modem(&mut self, place: &str, mut modem: ModemConfig, raw: &raw::Modem) -> ModemConfig {
        let mut set = |slot: &mut Duration, text: &Option<String>| {
            if let Some(text) = text {
                *slot = self.duration(place, text);
            }
        };
        set(&mut modem.key_delay, &raw.key_delay);
        set(&mut modem.turnaround, &raw.turnaround);
        set(&mut modem.detection_delay, &raw.detection_delay);
        if let Some(text) = &raw.abort_delay {
            modem.abort_delay = Some(self.duration(place, text));
        }
        match (raw.can_abort, &raw.abort_delay) {
            (Some(false), Some(_)) => self.problem((), place, "abort_delay makes no sense with can_abort = false"),
            (Some(false), None) => modem.abort_delay = None,
            (Some(true) | None, _) => {}
        }
        if let Some(text) = &raw.max_key_down {
            modem.max_key_down = Some(self.duration(place, text));
        }
        if let Some(text) = &raw.buffer {
            modem.buffer_bytes = usize::try_from(self.size(place, text)).unwrap_or(usize::MAX);
        }
        if let Some(sigma) = raw.snr_error_db {
            if !(0.0..=20.0).contains(&sigma) {
                self.problem((), place, "snr_error_db is 0 to 20");
            }
            modem.snr_error_db = Some(sigma);
        }
        modem.waits_for_carrier = raw.waits_for_carrier.unwrap_or(modem.waits_for_carrier);
        match raw.detect.as_deref() {
            None => {}
            Some("sync") => modem.energy_detect = false,
            Some("energy") => modem.energy_detect = true,
            Some(_) => self.problem((), place, "detect is sync or energy"),
        }
        match raw.output.as_deref() {
            None => {}
            Some("fast") => modem.clocked_output = false,
            Some("clocked") => modem.clocked_output = true,
            Some(_) => self.problem((), place, "output is fast or clocked"),
        }
        match (&raw.noise_every, &raw.noise) {
            (Some(every), Some(bytes)) => {
                let every = self.duration(place, every);
                let bytes = u32::try_from(self.size(place, bytes)).unwrap_or(u32::MAX).max(1);
                if every < Duration::from_millis(1) {
                    self.problem((), place, "noise_every must be 1ms at least");
                }
                modem.noise = Some(Noise { every, bytes });
            }
            (None, None) => {}
            _ => self.problem((), place, "noise and noise_every go together"),
        }
        modem
    }

    pub(super) fn channel(&mut self, place: &str, mut link: LinkConfig, raw: &raw::Channel) -> LinkConfig {
        let models = [
            raw.cell_loss.is_some(),
            raw.pattern.is_some(),
            raw.bit_errors.is_some(),
            raw.block_loss.is_some(),
            raw.script.is_some(),
            raw.script_file.is_some(),
            raw.snr_db.is_some(),
            raw.snr_by_clock.is_some(),
        ];
        if models.iter().filter(|&&m| m).count() > 1 {
            let all = "cell_loss, pattern, bit_errors, block_loss, script, script_file, snr_db and snr_by_clock";
            self.problem((), place, &format!("only one of {all}"));
        }
        if let Some(loss) = self.cells(place, raw) {
            link.loss = loss;
        }
        if let Some(ber) = raw.bit_errors {
            link.loss = Loss::Bits { ber: self.share(place, ber) };
        }
        if let Some(p) = raw.block_loss {
            link.loss = Loss::Blocks { p: self.share(place, p) };
        }
        if let Some(script) = self.script(place, raw) {
            link.loss = Loss::Script { script: Arc::new(script), wreck: Wreck::default() };
        }
        link.loss = self.sky(place, link.loss, raw);
        self.wreck(place, &mut link.loss, raw);
        if let Some(p) = raw.preamble_miss {
            link.preamble_miss = self.share(place, p);
        }
        if let Some(level) = raw.level_db {
            link.level_db = self.decibels(place, "level_db", level);
        }
        if let Some(text) = &raw.delay {
            link.delay = self.duration(place, text);
        }
        link
    }

    fn cells(&mut self, place: &str, raw: &raw::Channel) -> Option<Loss> {
        let damage = if raw.deleted == Some(true) { Damage::Deleted } else { Damage::Garbage };
        let counts = raw.cell_loss.is_some() || raw.pattern.is_some();
        let bytes = match &raw.cell {
            Some(text) => u32::try_from(self.size(place, text)).unwrap_or(u32::MAX),
            None => 0,
        };
        if counts != raw.cell.is_some() || (raw.cell.is_some() && bytes == 0) {
            self.problem((), place, "cell_loss and pattern need a cell of at least 1B, and cell needs one of them");
        }
        if (raw.cell_loss.is_none() && raw.burst.is_some()) || (!counts && raw.deleted.is_some()) {
            self.problem((), place, "burst belongs to cell_loss, deleted to cell_loss or pattern");
        }
        if let Some(pattern) = &raw.pattern {
            if pattern.is_empty() || pattern.chars().any(|c| !matches!(c, '.' | 'x')) {
                self.problem((), place, "pattern is made of . for a whole cell and x for a lost one");
            }
            return Some(Loss::Pattern { bytes, lost: pattern.chars().map(|c| c == 'x').collect(), damage });
        }
        let p = self.share(place, raw.cell_loss?);
        Some(match raw.burst {
            None => Loss::Cells { bytes, p, damage },
            Some(mean) if mean >= 1.0 && p < 1.0 => {
                // Mean burst 1/good; stationary share bad/(bad + good).
                let good = 1.0 / mean;
                Loss::Gilbert { bytes, bad: p * good / (1.0 - p), good, damage }
            }
            Some(_) => self.problem(Loss::Ideal, place, "burst is a mean number of cells, at least 1"),
        })
    }

    fn script(&mut self, place: &str, raw: &raw::Channel) -> Option<Script> {
        let read = match (&raw.script, &raw.script_file) {
            (Some(lines), _) => Script::parse(lines.iter().map(String::as_str)),
            (None, Some(name)) => self.text_of(name).and_then(|text| Script::parse(text.lines())),
            (None, None) => return None,
        };
        read.map_err(|why| self.problem((), place, &why)).ok()
    }

    /// The text of a file beside the scenario.
    fn text_of(&self, name: &str) -> Result<String, String> {
        let folder = self.folder.as_ref().ok_or("script_file needs a scenario that is a file itself")?;
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(format!("script_file {name:?}: only the name of a file beside the scenario"));
        }
        let file = folder.join(name);
        let too_long = std::fs::metadata(&file).is_ok_and(|m| m.len() > MOST_SCRIPT);
        if too_long {
            return Err(format!("script_file {name:?} is longer than 64 MiB"));
        }
        std::fs::read_to_string(&file).map_err(|e| format!("script_file {name:?}: {e}"))
    }

    fn sky(&mut self, place: &str, loss: Loss, raw: &raw::Channel) -> Loss {
        let before = match &loss {
            Loss::Sky { sky, wreck } => Some((Sky::clone(sky), *wreck)),
            _ => None,
        };
        let mean = match (raw.snr_db, &raw.snr_by_clock) {
            (Some(db), _) => Some(Mean::Fixed(self.decibels(place, "snr_db", db))),
            (None, Some(points)) => self.by_clock(place, points),
            (None, None) => None,
        };
        let (preset, pair) = (raw.preset.is_some(), [raw.path_delay.is_some(), raw.doppler_hz.is_some()]);
        let details = [raw.itv_db.is_some(), raw.ltv_db.is_some(), raw.dead.is_some(), raw.interference.is_some()];
        let changes = preset || pair.contains(&true) || details.contains(&true);
        let (mut sky, wreck) = match (before, &mean) {
            (Some(before), _) => before,
            (None, Some(_)) => (Sky::steady(0.0), Wreck::default()),
            (None, None) if changes => {
                let keys = "preset, path_delay, doppler_hz, itv_db, ltv_db, dead and interference";
                return self.problem(loss, place, &format!("{keys} belong to snr_db or snr_by_clock"));
            }
            (None, None) => return loss,
        };
        if mean.is_none() && !changes {
            return loss;
        }
        sky.clock = self.clock;
        sky.mean = mean.unwrap_or(sky.mean);
        if preset && pair.contains(&true) || pair[0] != pair[1] {
            self.problem((), place, "fading is either a preset or path_delay and doppler_hz together");
        }
        if let Some(name) = &raw.preset {
            sky.fading = match Preset::find(name) {
                Some(preset) => preset.fading(),
                None => {
                    let names: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
                    self.problem(None, place, &format!("no preset {name}; there are {}", names.join(", ")))
                }
            };
        }
        if let (Some(delay), Some(doppler_hz)) = (&raw.path_delay, raw.doppler_hz) {
            let delay = self.duration(place, delay);
            if !(0.001..=200.0).contains(&doppler_hz) {
                self.problem((), place, "doppler_hz is 0.001 to 200");
            }
            sky.fading = Some(Fading { delay, doppler_hz });
        }
        sky.itv = self.wander(place, "itv", sky.itv, Duration::from_secs(10), raw.itv_db, &raw.itv_time);
        sky.ltv = self.wander(place, "ltv", sky.ltv, Duration::from_secs(1800), raw.ltv_db, &raw.ltv_time);
        if let Some(spans) = &raw.dead {
            sky.dead = spans.iter().map(|span| self.clock_span(place, span)).collect();
        }
        if let Some(raw) = &raw.interference {
            let (every, last) = (self.duration(place, &raw.every), self.duration(place, &raw.last));
            if last.is_zero() || last > every || every < Duration::from_millis(10) {
                self.problem(
                    (),
                    place,
                    "interference lasts above 0s, comes every 10ms at least and lasts no longer than that",
                );
            }
            sky.interference = Some(Interference { every, last, db: self.decibels(place, "interference", raw.db) });
        }
        Loss::Sky { sky: Arc::new(sky), wreck }
    }

    fn wander(
        &mut self,
        place: &str,
        name: &str,
        before: Option<Wander>,
        usual: Duration,
        sigma_db: Option<f64>,
        time: &Option<String>,
    ) -> Option<Wander> {
        let Some(sigma_db) = sigma_db else {
            if time.is_some() {
                self.problem((), place, &format!("{name}_time belongs to {name}_db"));
            }
            return before;
        };
        let correlation = time.as_ref().map_or(usual, |text| self.duration(place, text));
        if !(0.0..=40.0).contains(&sigma_db) || correlation < Duration::from_millis(100) {
            self.problem((), place, &format!("{name}_db is 0 to 40 and {name}_time 100ms at least"));
        }
        (sigma_db > 0.0).then_some(Wander { sigma_db, correlation })
    }

    fn by_clock(&mut self, place: &str, points: &std::collections::BTreeMap<String, f64>) -> Option<Mean> {
        let mut read = Vec::new();
        for (time, db) in points {
            read.push((self.clock(place, time), self.decibels(place, "snr_by_clock", *db)));
        }
        read.sort_by_key(|p| p.0);
        if read.is_empty() || read.windows(2).any(|w| w[0].0 == w[1].0) {
            self.problem((), place, "snr_by_clock has one ratio for each of one or more different times");
        }
        Some(Mean::Daily(read))
    }

    fn clock_span(&mut self, place: &str, text: &str) -> (u32, u32) {
        match text.split_once('-') {
            Some((from, until)) => (self.clock(place, from), self.clock(place, until)),
            None => self.problem((0, 0), place, &format!("{text:?} is no span such as 22:00-04:30")),
        }
    }

    /// UTC second of the day.
    fn clock(&mut self, place: &str, text: &str) -> u32 {
        let digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        let read = text.split_once(':').filter(|(h, m)| digits(h) && digits(m));
        let read = read.and_then(|(h, m)| Some((h.parse::<u32>().ok()?, m.parse::<u32>().ok()?)));
        match read {
            Some((h, m)) if h < 24 && m < 60 => h * 3600 + m * 60,
            _ => self.problem(0, place, &format!("{text:?} is no UTC time such as 06:30")),
        }
    }

    fn wreck(&mut self, place: &str, loss: &mut Loss, raw: &raw::Channel) {
        let (ber, truncated) =
            (raw.failed_ber.map(|b| self.share(place, b)), raw.truncated.map(|t| self.share(place, t)));
        match loss {
            Loss::Script { wreck, .. } | Loss::Sky { wreck, .. } => {
                wreck.ber = ber.unwrap_or(wreck.ber);
                wreck.truncated = truncated.unwrap_or(wreck.truncated);
            }
            _ if ber.is_some() || truncated.is_some() => {
                self.problem((), place, "failed_ber and truncated belong to a script or a signal-to-noise ratio");
            }
            _ => {}
        }
    }

    fn decibels(&mut self, place: &str, key: &str, db: f64) -> f64 {
        if (-200.0..=200.0).contains(&db) { db } else { self.problem(0.0, place, &format!("{key} is -200 to 200 dB")) }
    }
}
