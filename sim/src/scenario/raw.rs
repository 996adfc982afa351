//! The text of a scenario as TOML has it, to read and to write. Unknown keys are refused here; everything else is judged in `reader`.

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) duration: String,
    pub(super) start: Option<String>,
    #[serde(default)]
    pub(super) waveform: Waveform,
    #[serde(default)]
    pub(super) modem: Modem,
    pub(super) codec2: Option<Codec2>,
    #[serde(default)]
    pub(super) channel: Channel,
    pub(super) station: Vec<Station>,
    #[serde(default)]
    pub(super) link: Vec<Link>,
    #[serde(default)]
    pub(super) traffic: Vec<Traffic>,
    #[serde(default)]
    pub(super) event: Vec<Event>,
    #[serde(default)]
    pub(super) port: Vec<Port>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Codec2 {
    pub(super) mode: String,
    pub(super) path: Option<String>,
    pub(super) snr_db: f64,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) station: String,
    pub(super) kind: String,
    pub(super) data: Option<String>,
    pub(super) control: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Waveform {
    pub(super) rate: String,
    pub(super) interleaver: String,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Modem {
    pub(super) kind: Option<String>,
    pub(super) key_delay: Option<String>,
    pub(super) turnaround: Option<String>,
    pub(super) detection_delay: Option<String>,
    pub(super) abort_delay: Option<String>,
    pub(super) can_abort: Option<bool>,
    pub(super) buffer: Option<String>,
    pub(super) waits_for_carrier: Option<bool>,
    pub(super) max_key_down: Option<String>,
    pub(super) noise_every: Option<String>,
    pub(super) noise: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    pub(super) cell: Option<String>,
    pub(super) cell_loss: Option<f64>,
    pub(super) burst: Option<f64>,
    pub(super) deleted: Option<bool>,
    pub(super) bit_errors: Option<f64>,
    pub(super) block_loss: Option<f64>,
    pub(super) preamble_miss: Option<f64>,
    pub(super) level_db: Option<f64>,
    pub(super) delay: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Station {
    pub(super) name: String,
    pub(super) waveform: Option<Waveform>,
    pub(super) modem: Option<Modem>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) absent: Option<bool>,
    pub(super) channel: Option<Channel>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Traffic {
    pub(super) at: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) size: String,
    pub(super) precedence: Option<String>,
    pub(super) count: Option<u32>,
    pub(super) every: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    pub(super) at: String,
    pub(super) until: Option<String>,
    pub(super) emcon: Option<String>,
    pub(super) outage: Option<bool>,
    pub(super) restart: Option<bool>,
    pub(super) failure: Option<String>,
    pub(super) station: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}
