//! The text of a scenario as TOML has it, to read and to write. Unknown keys are refused here; everything else is judged in `reader`.

use std::collections::BTreeMap;

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
    #[serde(default)]
    pub(super) station: Vec<Station>,
    #[serde(default)]
    pub(super) link: Vec<Link>,
    #[serde(default)]
    pub(super) traffic: Vec<Traffic>,
    #[serde(default)]
    pub(super) event: Vec<Event>,
    #[serde(default)]
    pub(super) satcom: Vec<Satcom>,
    #[serde(default)]
    pub(super) path: Vec<Path>,
    #[serde(default)]
    pub(super) datagrams: Vec<Datagrams>,
    #[serde(default)]
    pub(super) contact: Vec<Contact>,
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
    pub(super) family: Option<String>,
    pub(super) bandwidth: Option<String>,
    pub(super) level_segments: Option<u32>,
    pub(super) superframes: Option<u32>,
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
    pub(super) detect: Option<String>,
    pub(super) output: Option<String>,
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
    pub(super) pattern: Option<String>,
    pub(super) script: Option<Vec<String>>,
    pub(super) script_file: Option<String>,
    pub(super) snr_db: Option<f64>,
    pub(super) snr_by_clock: Option<BTreeMap<String, f64>>,
    pub(super) preset: Option<String>,
    pub(super) path_delay: Option<String>,
    pub(super) doppler_hz: Option<f64>,
    pub(super) itv_db: Option<f64>,
    pub(super) itv_time: Option<String>,
    pub(super) ltv_db: Option<f64>,
    pub(super) ltv_time: Option<String>,
    pub(super) dead: Option<Vec<String>>,
    pub(super) interference: Option<Interference>,
    pub(super) failed_ber: Option<f64>,
    pub(super) truncated: Option<f64>,
    pub(super) preamble_miss: Option<f64>,
    pub(super) level_db: Option<f64>,
    pub(super) delay: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interference {
    pub(super) every: String,
    pub(super) last: String,
    pub(super) db: f64,
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
    pub(super) opens: Option<String>,
    pub(super) closes: Option<String>,
    pub(super) outage: Option<bool>,
    pub(super) restart: Option<bool>,
    pub(super) failure: Option<String>,
    pub(super) station: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Satcom {
    pub(super) name: String,
    pub(super) preset: Option<String>,
    pub(super) members: Vec<String>,
    pub(super) hub: Option<String>,
    pub(super) rate: Option<String>,
    pub(super) rate_from_hub: Option<String>,
    pub(super) bucket: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) mtu: Option<String>,
    pub(super) mtu_from_hub: Option<String>,
    pub(super) overhead: Option<String>,
    pub(super) delay: Option<String>,
    pub(super) jitter: Option<String>,
    pub(super) loss: Option<f64>,
    pub(super) burst: Option<f64>,
    pub(super) shared_loss: Option<f64>,
    pub(super) shared_burst: Option<f64>,
    pub(super) fade_every: Option<String>,
    pub(super) fade: Option<String>,
    pub(super) fade_at: Option<Vec<String>>,
    pub(super) half_duplex: Option<bool>,
    pub(super) turnaround: Option<String>,
    pub(super) frame: Option<String>,
    pub(super) setup: Option<String>,
    pub(super) hangs_up: Option<String>,
    pub(super) holds: Option<bool>,
    pub(super) ports: Option<Vec<u16>>,
    #[serde(default)]
    pub(super) groups: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Path {
    pub(super) satcom: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) absent: Option<bool>,
    pub(super) delay: Option<String>,
    pub(super) jitter: Option<String>,
    pub(super) loss: Option<f64>,
    pub(super) burst: Option<f64>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Datagrams {
    pub(super) satcom: String,
    pub(super) at: String,
    pub(super) from: String,
    pub(super) to: Option<String>,
    pub(super) group: Option<String>,
    pub(super) size: String,
    pub(super) count: Option<u32>,
    pub(super) every: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contact {
    pub(super) satcom: Option<String>,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) both: Option<bool>,
    pub(super) up: Option<Vec<(String, String)>>,
    pub(super) first: Option<String>,
    pub(super) every: Option<String>,
    pub(super) length: Option<String>,
    pub(super) rate: Option<String>,
    pub(super) delay: Option<String>,
    pub(super) loss: Option<f64>,
    pub(super) burst: Option<f64>,
}
