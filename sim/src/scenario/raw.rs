//! The text of a scenario as TOML has it, to read and to write. Unknown keys are refused here; everything else is judged in `reader`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) duration: String,
    pub(crate) start: Option<String>,
    pub(crate) protection: Option<String>,
    pub(crate) coding: Option<String>,
    pub(crate) store: Option<String>,
    pub(crate) keys: Option<String>,
    #[serde(default)]
    pub(crate) waveform: Waveform,
    #[serde(default)]
    pub(crate) modem: Modem,
    pub(crate) codec2: Option<Codec2>,
    #[serde(default)]
    pub(crate) channel: Channel,
    #[serde(default)]
    pub(crate) station: Vec<Station>,
    #[serde(default)]
    pub(crate) bearer: Vec<Bearer>,
    #[serde(default)]
    pub(crate) link: Vec<Link>,
    #[serde(default)]
    pub(crate) traffic: Vec<Traffic>,
    #[serde(default)]
    pub(crate) event: Vec<Event>,
    #[serde(default)]
    pub(crate) satcom: Vec<Satcom>,
    #[serde(default)]
    pub(crate) path: Vec<Path>,
    #[serde(default)]
    pub(crate) datagrams: Vec<Datagrams>,
    #[serde(default)]
    pub(crate) contact: Vec<Contact>,
    #[serde(default)]
    pub(crate) port: Vec<Port>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Codec2 {
    pub(crate) mode: String,
    pub(crate) path: Option<String>,
    pub(crate) snr_db: f64,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    pub(crate) station: String,
    pub(crate) kind: String,
    pub(crate) data: Option<String>,
    pub(crate) control: Option<String>,
    pub(crate) unkey_after: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waveform {
    pub(crate) rate: String,
    pub(crate) interleaver: String,
    pub(crate) family: Option<String>,
    pub(crate) bandwidth: Option<String>,
    pub(crate) level_segments: Option<u32>,
    pub(crate) superframes: Option<u32>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Modem {
    pub(crate) kind: Option<String>,
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
    pub(crate) detect: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) snr_error_db: Option<f64>,
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
    pub(crate) pattern: Option<String>,
    pub(crate) script: Option<Vec<String>>,
    pub(crate) script_file: Option<String>,
    pub(crate) snr_db: Option<f64>,
    pub(crate) snr_by_clock: Option<BTreeMap<String, f64>>,
    pub(crate) preset: Option<String>,
    pub(crate) path_delay: Option<String>,
    pub(crate) doppler_hz: Option<f64>,
    pub(crate) itv_db: Option<f64>,
    pub(crate) itv_time: Option<String>,
    pub(crate) ltv_db: Option<f64>,
    pub(crate) ltv_time: Option<String>,
    pub(crate) dead: Option<Vec<String>>,
    pub(crate) interference: Option<Interference>,
    pub(crate) failed_ber: Option<f64>,
    pub(crate) truncated: Option<f64>,
    pub(crate) preamble_miss: Option<f64>,
    pub(crate) level_db: Option<f64>,
    pub(crate) delay: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interference {
    pub(crate) every: String,
    pub(crate) last: String,
    pub(crate) db: f64,
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
pub(crate) struct Bearer {
    pub(crate) name: String,
    pub(crate) waveform: Waveform,
    #[serde(default)]
    pub(crate) modem: Modem,
    #[serde(default)]
    pub(crate) channel: Channel,
    /// Who has it; all without it.
    pub(crate) stations: Option<Vec<String>>,
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
    pub(crate) also: Option<Vec<String>>,
    pub(crate) size: String,
    pub(crate) precedence: Option<String>,
    pub(crate) receipts: Option<bool>,
    pub(crate) count: Option<u32>,
    pub(crate) every: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) at: String,
    pub(crate) until: Option<String>,
    pub(crate) emcon: Option<String>,
    pub(crate) opens: Option<String>,
    pub(crate) closes: Option<String>,
    pub(crate) outage: Option<bool>,
    pub(crate) restart: Option<bool>,
    pub(crate) failure: Option<String>,
    pub(crate) station: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    /// Over which bearer; the first without it.
    pub(crate) bearer: Option<String>,
    // The mishaps of `mishap`.
    pub(crate) after: Option<String>,
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
    pub(crate) peers_silent: Option<Vec<String>>,
    pub(crate) history_lost: Option<bool>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Satcom {
    pub(crate) name: String,
    pub(crate) preset: Option<String>,
    pub(crate) members: Vec<String>,
    pub(crate) hub: Option<String>,
    pub(crate) rate: Option<String>,
    pub(crate) rate_from_hub: Option<String>,
    pub(crate) bucket: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) mtu: Option<String>,
    pub(crate) mtu_from_hub: Option<String>,
    pub(crate) overhead: Option<String>,
    pub(crate) delay: Option<String>,
    pub(crate) jitter: Option<String>,
    pub(crate) loss: Option<f64>,
    pub(crate) burst: Option<f64>,
    pub(crate) shared_loss: Option<f64>,
    pub(crate) shared_burst: Option<f64>,
    pub(crate) fade_every: Option<String>,
    pub(crate) fade: Option<String>,
    pub(crate) fade_at: Option<Vec<String>>,
    pub(crate) half_duplex: Option<bool>,
    pub(crate) turnaround: Option<String>,
    pub(crate) frame: Option<String>,
    pub(crate) setup: Option<String>,
    pub(crate) hangs_up: Option<String>,
    pub(crate) holds: Option<bool>,
    pub(crate) ports: Option<Vec<u16>>,
    #[serde(default)]
    pub(crate) groups: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Path {
    pub(crate) satcom: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) absent: Option<bool>,
    pub(crate) delay: Option<String>,
    pub(crate) jitter: Option<String>,
    pub(crate) loss: Option<f64>,
    pub(crate) burst: Option<f64>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Datagrams {
    pub(crate) satcom: String,
    pub(crate) at: String,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) size: String,
    pub(crate) count: Option<u32>,
    pub(crate) every: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contact {
    pub(crate) satcom: Option<String>,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) both: Option<bool>,
    pub(crate) up: Option<Vec<(String, String)>>,
    pub(crate) first: Option<String>,
    pub(crate) every: Option<String>,
    pub(crate) length: Option<String>,
    pub(crate) rate: Option<String>,
    pub(crate) delay: Option<String>,
    pub(crate) loss: Option<f64>,
    pub(crate) burst: Option<f64>,
}
