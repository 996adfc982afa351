//! `aldis-sim bench satcom`: one message to a group over a satellite, by Aldis mode and by MULE over P_MUL, against an ideal code.
//!
//! The very cores of the node (`aldis::bearer::multicast`, `aldis::bearer::pmul`) stand around one medium ([`medium`]) in virtual time: a
//! rate, a delay of 270 ms one way, and a weather that loses datagrams both ways. 102 400 random bytes are handed in for all receivers at
//! once, none of which was ever heard before. Counted are the seconds until the last of them has accepted it, and bytes with their UDP and
//! IPv4 headers. The limit is a code without loss of its own, in the datagrams of Aldis mode, whose sender knows when everybody has enough
//! ([`limit::multicast_parity`]), and one round trip.

mod aldis_end;
mod medium;
mod mule_end;

use std::sync::Arc;

use aldis::bearer::fec::Geometry;
use aldis::bearer::multicast::wire;
use aldis::mail::Cut;
use aldis::time::{Duration, Instant};
use aldis::units::Bps;
use serde::Serialize;

use crate::bench;
use crate::limit;
use crate::rng::Stream;
use medium::{Fades, Medium};

/// Bytes of the message.
pub const PAYLOAD: usize = 102_400;
/// One way.
const DELAY: Duration = Duration::from_millis(270);
/// Longest IPv4 packet.
const MTU: usize = 1500;
/// IPv4 and UDP.
const HEADERS: usize = 28;
/// What a commit of a store takes.
const COMMIT: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Bar: the limit's multiple that Aldis mode may take.
const BAR: f64 = 1.10;

/// What loses datagrams.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weather {
    /// Each on every single way by itself.
    Apart(f64),
    /// Each for all that would hear it.
    Together(f64),
    /// None, but for fades of [`medium::FADE`] on average, [`medium::CLEAR`] apart on average, in which nothing passes either way.
    Rain,
}

/// A case.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Cell {
    /// Bits per second.
    pub rate: u32,
    /// Receivers.
    pub receivers: u8,
    /// What is lost.
    pub weather: Weather,
}

/// One trial of one mode.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Trial {
    /// Seconds until the last receiver had accepted it.
    pub whole_s: f64,
    /// Bytes that the sender sent, until everybody was done.
    pub sent_bytes: u64,
    /// Those of them that are of the message: shards, or pieces.
    pub shard_bytes: u64,
    /// Datagrams of all receivers together.
    pub answers: u64,
}

/// Both modes, and the limit, under one seed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Pair {
    /// Its seed.
    pub seed: u64,
    /// Aldis mode.
    pub aldis: Trial,
    /// MULE over P_MUL.
    pub mule: Trial,
    /// Seconds that nothing is faster than on average, one round trip included. Under fades, under these very fades.
    pub limit_s: f64,
}

/// Means of one mode.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Means {
    /// Seconds until the last receiver had accepted it.
    pub whole_s: f64,
    /// The same over the limit.
    pub of_limit: f64,
    /// Bytes of the sender over those of the message.
    pub sent: f64,
    /// The same, headers and words left out.
    pub shards: f64,
    /// Datagrams of each receiver.
    pub answers: f64,
}

/// What a case came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The case.
    pub cell: Cell,
    /// Mean of the limit.
    pub limit_s: f64,
    /// Aldis mode.
    pub aldis: Means,
    /// MULE over P_MUL.
    pub mule: Means,
    /// Whether Aldis mode keeps within its bar.
    pub passed: bool,
    /// The trials.
    pub trials: Vec<Pair>,
}

impl Cell {
    /// Reads RATE,RECEIVERS,apart,LOSS or RATE,RECEIVERS,together,LOSS or RATE,RECEIVERS,rain.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = "RATE,RECEIVERS,apart,LOSS or RATE,RECEIVERS,together,LOSS or RATE,RECEIVERS,rain";
        let words: Vec<&str> = text.split(',').collect();
        let share = |word: &str| word.parse().ok().filter(|p| (0.0..=0.6).contains(p));
        let read = || {
            let (rate, receivers) = (words.first()?.parse().ok()?, words.get(1)?.parse().ok()?);
            let weather = match words.get(2..)? {
                ["apart", loss] => Weather::Apart(share(loss)?),
                ["together", loss] => Weather::Together(share(loss)?),
                ["rain"] => Weather::Rain,
                _ => return None,
            };
            let sensible = (300..=100_000_000).contains(&rate) && (1..=200).contains(&receivers);
            sensible.then_some(Self { rate, receivers, weather })
        };
        read().ok_or_else(|| format!("not {wanted}"))
    }

    /// The cells of the page: three rates, three groups, every weather.
    pub fn table() -> Vec<Self> {
        let mut weathers = vec![Weather::Apart(0.0)];
        weathers.extend([0.05, 0.2, 0.3].map(Weather::Apart));
        weathers.extend([0.05, 0.2, 0.3].map(Weather::Together));
        weathers.push(Weather::Rain);
        let mut cells = Vec::new();
        for rate in [4800, 64_000, 512_000] {
            for receivers in [3, 10, 50] {
                cells.extend(weathers.iter().map(|weather| Self { rate, receivers, weather: *weather }));
            }
        }
        cells
    }

    /// Runs every seed.
    pub fn measure(self, seeds: &[u64], jobs: usize) -> Report {
        let trials = bench::measure(seeds, jobs, |seed| self.pair(seed), |_| {});
        let n = trials.len().max(1) as f64;
        let limit_s = trials.iter().map(|t| t.limit_s).sum::<f64>() / n;
        let means = |of: fn(&Pair) -> &Trial| {
            let mean = |what: &dyn Fn(&Trial) -> f64| trials.iter().map(|t| what(of(t))).sum::<f64>() / n;
            let whole_s = mean(&|t| t.whole_s);
            Means {
                whole_s,
                of_limit: whole_s / limit_s,
                sent: mean(&|t| t.sent_bytes as f64 / PAYLOAD as f64),
                shards: mean(&|t| t.shard_bytes as f64 / PAYLOAD as f64),
                answers: mean(&|t| t.answers as f64 / f64::from(self.receivers)),
            }
        };
        let (aldis, mule) = (means(|t| &t.aldis), means(|t| &t.mule));
        Report { cell: self, limit_s, passed: aldis.of_limit <= BAR, aldis, mule, trials }
    }

    fn pair(self, seed: u64) -> Pair {
        let mut payload = vec![0; PAYLOAD];
        Stream::new(seed, "message of the satcom bench", 0).fill(&mut payload);
        let payload: Arc<[u8]> = payload.into();
        Pair {
            seed,
            aldis: Medium::new(self, seed, aldis_end::ends(self)).carry(&payload),
            mule: Medium::new(self, seed, mule_end::ends(self, seed)).carry(&payload),
            limit_s: self.limit(seed).as_secs_f64(),
        }
    }

    /// The limit under this seed.
    fn limit(self, seed: u64) -> Duration {
        let members = (1..=self.receivers).collect();
        let room = MTU - HEADERS - wire::SYMBOLS_OVERHEAD - wire::members_bytes(&members);
        let geometry = Geometry::of_payload(PAYLOAD, Cut::for_room(room)).expect("in range");
        let (symbol, overhead) = (geometry.symbol_bytes(), wire::symbols_overhead(1, geometry, 1000, &members));
        let shard = room / symbol * symbol;
        let datagrams = u32::try_from(PAYLOAD.div_ceil(shard)).expect("few");
        let each = Bps(self.rate).airtime((shard + overhead + HEADERS) as u64);
        let on_average = |receivers: u32, loss: f64| {
            let sent = limit::multicast_parity(receivers, loss, datagrams) * f64::from(datagrams);
            Duration::from_nanos((each.as_secs_f64() * sent * 1e9) as u64)
        };
        let air = match self.weather {
            Weather::Apart(loss) => on_average(self.receivers.into(), loss),
            // All lack the same.
            Weather::Together(loss) => on_average(1, loss),
            Weather::Rain => {
                let (mut fades, mut at, mut there) = (Fades::new(seed, Instant::ZERO), Instant::ZERO, 0);
                while there < datagrams {
                    there += u32::from(!fades.touch(at, at + each));
                    at += each;
                }
                at.since(Instant::ZERO)
            }
        };
        air + DELAY * 2
    }
}

impl Report {
    /// A line of the table.
    pub fn text(&self) -> String {
        let Cell { rate, receivers, weather } = self.cell;
        let weather = match weather {
            Weather::Apart(loss) => format!("{:.0} % each alone", loss * 100.0),
            Weather::Together(loss) => format!("{:.0} % all together", loss * 100.0),
            Weather::Rain => "rain".to_owned(),
        };
        let means = |m: &Means| format!("{:.2} | {:.3} | {:.3} | {:.2}", m.whole_s, m.of_limit, m.sent, m.answers);
        let failed = if self.passed { "" } else { " FAILED" };
        format!(
            "| {rate} | {receivers} | {weather} | {:.2} | {} | {} |{failed}",
            self.limit_s,
            means(&self.aldis),
            means(&self.mule)
        )
    }
}

/// The heading of the lines.
pub const HEADING: &str = "| bit/s | receivers | lost | limit, s | Aldis, s | of the limit | sent / message | answers of each \
                           | MULE, s | of the limit | sent / message | answers of each |\n\
                           |---|---|---|---|---|---|---|---|---|---|---|---|";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_read_and_nonsense_is_not() {
        let cell = Cell { rate: 64_000, receivers: 10, weather: Weather::Together(0.2) };
        assert_eq!(Cell::parse("64000,10,together,0.2"), Ok(cell));
        assert_eq!(Cell::parse("4800,3,rain"), Ok(Cell { rate: 4800, receivers: 3, weather: Weather::Rain }));
        for wrong in ["", "64000", "64000,0,rain", "64000,3,rain,0.1", "64000,3,apart,0.7", "64000,3,apart", "9,3,rain"]
        {
            assert!(Cell::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Cell::table().len(), 72);
    }

    #[test]
    fn fades_last_as_long_as_they_should_and_lengthen_the_limit() {
        let mut fades = Fades::new(1, Instant::ZERO);
        let second = Duration::from_secs(1);
        let faded = (0..200_000u32).filter(|s| {
            let at = Instant::ZERO + second * *s;
            fades.touch(at, at)
        });
        let share = faded.count() as f64 / 200_000.0;
        let wanted = medium::FADE.as_secs_f64() / (medium::FADE + medium::CLEAR).as_secs_f64();
        assert!((share - wanted).abs() < 0.02, "{share}");
        let cell = |weather| Cell { rate: 4800, receivers: 3, weather };
        let dry = cell(Weather::Apart(0.0)).limit(1);
        let mean = (0..200).map(|seed| cell(Weather::Rain).limit(seed).as_secs_f64()).sum::<f64>() / 200.0;
        assert!(mean > dry.as_secs_f64() * 1.1, "{mean}");
    }
}
