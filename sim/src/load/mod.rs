//! Loads on one link between two whole nodes, in virtual time: much mail, both ways at once, many small messages, and FLASH among them.
//! `aldis-sim bench bulk`, `two-way`, `texts` and `flash`; `docs/link-load.md` holds the figures.

pub mod bulk;
pub mod flash;
pub mod texts;
pub mod two_way;

use aldis::mail::Precedence;
use aldis::time::{Duration, Instant};

use crate::bench;
use crate::channel::{Damage, Loss};
use crate::ether::{EtherConfig, LinkConfig, StationId};
use crate::lab::{Lab, Setup};
use crate::limit;
use crate::modem::ModemConfig;
use crate::trace::Trace;
use crate::waveform::Waveform;

/// The station whose mail is measured.
pub const SHIP: StationId = StationId(0);
/// Its peer.
pub const SHORE: StationId = StationId(1);
/// Longest transmission of a measurement (D4: for ROUTINE alone).
const LONGEST: Duration = Duration::from_millis(127_500);

/// A link: waveform, turnaround of both modems, share of cells lost both ways.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Way {
    /// Data rate and interleaver.
    pub waveform: &'static Waveform,
    /// Seconds.
    pub turnaround_s: f64,
    /// Lost cells, of all.
    pub loss: f64,
}

impl Way {
    /// A link of this rate and interleaver.
    ///
    /// # Panics
    ///
    /// When the table of waveforms has no such one.
    pub fn new(rate: u32, interleaver: &str, turnaround_s: f64, loss: f64) -> Self {
        let waveform = Waveform::find(rate, interleaver)
            .unwrap_or_else(|| panic!("no waveform of {rate} bit/s with interleaver {interleaver}"));
        Self { waveform, turnaround_s, loss }
    }

    /// Reads `RATE,INTERLEAVER,TURNAROUND,LOSS`, e.g. `2400,S,2,0.05`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || "RATE,INTERLEAVER,TURNAROUND,LOSS such as 2400,S,2,0.05".to_owned();
        let parts: Vec<&str> = text.split(',').collect();
        let [rate, interleaver, turnaround, loss] = parts.as_slice() else { return Err(form()) };
        let rate = rate.parse().map_err(|_| form())?;
        let number = |text: &str, most: f64| text.parse().ok().filter(|x| (0.0..=most).contains(x)).ok_or_else(form);
        let (turnaround_s, loss) = (number(turnaround, 60.0)?, number(loss, 0.9)?);
        let waveform = Waveform::find(rate, interleaver)
            .ok_or_else(|| format!("{rate} bit/s with interleaver {interleaver} is not in the table"))?;
        Ok(Self { waveform, turnaround_s, loss })
    }

    /// Two nodes on it, open, with authenticated frames. `longest` is the longest transmission; `None` leaves it to the profile.
    pub fn lab(&self, seed: u64, longest: Option<Duration>) -> Lab {
        let turnaround = Duration::from_secs_f64(self.turnaround_s);
        let modem = ModemConfig { turnaround, ..ModemConfig::new(*self.waveform) };
        let bytes = (limit::frame_payload(self.waveform.rate) + limit::FRAME_OVERHEAD) as u32;
        let loss = match self.loss {
            0.0 => Loss::Ideal,
            p => Loss::Cells { bytes, p, damage: Damage::Garbage },
        };
        let ether = EtherConfig::net(seed, 2, &modem, LinkConfig { loss, ..LinkConfig::default() });
        Lab::new(&Setup { max_transmission: longest, ..Setup::new(seed, &["ship", "shore"], ether) }, Trace::hashed())
    }

    /// The limits of this link.
    pub fn limit(&self) -> limit::Link {
        limit::Link::new(self.waveform, self.turnaround_s, self.loss)
    }

    /// Bytes of a message whose frozen payload has `payload` bytes: found by freezing some.
    pub fn message_size(&self, payload: u64) -> u64 {
        let mut size = payload;
        for _ in 0..4 {
            let mut lab = Self { loss: 0.0, ..*self }.lab(1, None);
            let number = lab.submit(SHIP, SHORE, size, Precedence::Routine);
            lab.run_while(Instant::from_millis(60_000), |lab| lab.ledger()[number].fate.payload_bytes > 0);
            let frozen = lab.ledger()[number].fate.payload_bytes;
            if frozen == payload {
                break;
            }
            size = (size + payload).saturating_sub(frozen);
        }
        size
    }
}

/// From the first preamble symbol at or after `begun` to the last commit of everything handed in; `None` when something did not arrive.
fn whole_after(lab: &Lab, begun: Instant) -> Option<Duration> {
    let first = bench::first_symbol(lab.world().ether().antenna_log(), begun)?;
    let committed: Option<Vec<Instant>> = lab.ledger().iter().map(|entry| entry.fate.committed).collect();
    Some(committed?.into_iter().max()?.since(first))
}

fn rounded(x: f64, places: i32) -> f64 {
    let scale = (0..places).fold(1.0, |scale, _| scale * 10.0);
    (x * scale).round() / scale
}
