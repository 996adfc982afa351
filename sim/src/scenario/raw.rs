//! The text of a scenario as TOML has it, to read and to write. Unknown keys are refused here; everything else is judged in `reader`.

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) duration: String,
    pub(crate) start: Option<String>,
    pub(crate) protection: Option<String>,
    pub(crate) waveform: Waveform,
    #[serde(default)]
    pub(crate) modem: Modem,
    #[serde(default)]
    pub(crate) channel: Channel,
    pub(crate) station: Vec<Station>,
    #[serde(default)]
    pub(crate) link: Vec<Link>,
    #[serde(default)]
    pub(crate) traffic: Vec<Traffic>,
    #[serde(default)]
    pub(crate) event: Vec<Event>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waveform {
    pub(crate) rate: String,
    pub(crate) interleaver: String,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Modem {
    pub(crate) key_delay: Option<String>,
    pub(crate) turnaround: Option<String>,
    pub(crate) detection_delay: Option<String>,
    pub(crate) abort_delay: Option<String>,
    pub(crate) can_abort: Option<bool>,
    pub(crate) buffer: Option<String>,
    pub(crate) waits_for_carrier: Option<bool>,
    pub(crate) max_key_down: Option<String>,
    pub(crate) noise_every: Option<String>,
    pub(crate) noise: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Channel {
    pub(crate) cell: Option<String>,
    pub(crate) cell_loss: Option<f64>,
    pub(crate) burst: Option<f64>,
    pub(crate) deleted: Option<bool>,
    pub(crate) bit_errors: Option<f64>,
    pub(crate) block_loss: Option<f64>,
    pub(crate) preamble_miss: Option<f64>,
    pub(crate) level_db: Option<f64>,
    pub(crate) delay: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Station {
    pub(crate) name: String,
    pub(crate) waveform: Option<Waveform>,
    pub(crate) modem: Option<Modem>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) absent: Option<bool>,
    pub(crate) channel: Option<Channel>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Traffic {
    pub(crate) at: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) size: String,
    pub(crate) precedence: Option<String>,
    pub(crate) count: Option<u32>,
    pub(crate) every: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) at: String,
    pub(crate) until: Option<String>,
    pub(crate) emcon: Option<String>,
    pub(crate) outage: Option<bool>,
    pub(crate) restart: Option<bool>,
    pub(crate) failure: Option<String>,
    pub(crate) station: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    // The mishaps of `mishap`.
    pub(crate) opens: Option<String>,
    pub(crate) length: Option<String>,
    pub(crate) power_cut: Option<String>,
    pub(crate) disk: Option<String>,
    pub(crate) operation: Option<u64>,
    pub(crate) room: Option<String>,
    pub(crate) clock: Option<String>,
    pub(crate) clock_set: Option<bool>,
    pub(crate) minimize: Option<String>,
    pub(crate) hand: Option<String>,
    pub(crate) message: Option<u64>,
    pub(crate) fade: Option<f64>,
}
