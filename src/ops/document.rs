//! The documents a node answers with and `--json` prints: field names are a contract (docs/json.md). Additions are free.
//!
//! Times are RFC 3339 in UTC; a unit stands in the name (`_s`, `_bytes`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Effective, Problem, Sharing};
use crate::emcon::{Order, State, Window};
use crate::time::Wall;

macro_rules! schema {
    ($($type:ident = $name:literal),* $(,)?) => {
        $(impl $type {
            /// Value of the `schema` field.
            pub const SCHEMA: &'static str = $name;
        })*

        /// Every schema there is; docs/json.md has a section for each.
        pub const SCHEMAS: &[&str] = &[$($name),*];
    };
}

schema! {
    Check = "aldis.check/1",
    Explain = "aldis.explain/1",
    Route = "aldis.route/1",
    CodecExplain = "aldis.codec-explain/1",
    Status = "aldis.status/1",
    QueueList = "aldis.queue-list/1",
    QueueShow = "aldis.queue-show/1",
    QueueAction = "aldis.queue-action/1",
    QueueRead = "aldis.queue-read/1",
    QueueOriginal = "aldis.queue-original/1",
    Track = "aldis.track/1",
    Predictions = "aldis.predictions/1",
    Emcon = "aldis.emcon/1",
    WhatIf = "aldis.emcon-what-if/1",
    Minimize = "aldis.minimize/1",
    Peers = "aldis.peers/1",
    PasswordHash = "aldis.password-hash/1",
    DkimRecords = "aldis.dkim-records/1",
    Refusal = "aldis.refusal/1",
}

/// `aldis check`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Check {
    /// The schema's name.
    pub schema: &'static str,
    /// Whether the profile can be run.
    pub ok: bool,
    /// What must be mended.
    pub problems: Vec<Problem>,
    /// What is allowed but should be known.
    pub warnings: Vec<Problem>,
    /// Which peers of each bearer take one payload together; bearers with one peer are left out.
    pub sharing: Vec<Sharing>,
}

/// `aldis explain`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Explain {
    /// The schema's name.
    pub schema: &'static str,
    /// Every value in force.
    pub values: Vec<Effective>,
    /// Which peers of each bearer take one payload together; bearers with one peer are left out.
    pub sharing: Vec<Sharing>,
}

/// `aldis route`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Route {
    /// The schema's name.
    pub schema: &'static str,
    /// The recipient as given.
    pub address: String,
    /// The return path as it goes on, where one was given.
    pub sender: Option<String>,
    /// The listener it is taken to come by.
    pub listener: Option<String>,
    /// What RCPT is answered.
    pub answers: RouteAnswers,
    /// What happens to the address, in order.
    pub steps: Vec<RouteStep>,
    /// What goes on in the end.
    pub copies: Vec<RouteCopy>,
}

/// What RCPT is answered.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RouteAnswers {
    /// To whoever may relay: authenticated, or of a trusted network.
    pub relay: RouteAnswer,
    /// To everybody else.
    pub stranger: RouteAnswer,
}

/// One reply.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RouteAnswer {
    /// Its code.
    pub code: u16,
    /// Its enhanced code.
    pub status: String,
    /// Its words.
    pub text: String,
}

/// One thing that happens to an address.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RouteStep {
    /// `rewrite`, `postmaster`, `detail`, `alias`, `again`, `route`, `refused`.
    pub step: &'static str,
    /// The address.
    pub address: String,
    /// What of the profile says so.
    pub by: String,
    /// Where that stands: `FILE:LINE`, `--set` or `default`.
    pub place: String,
    /// What it becomes.
    pub to: Vec<String>,
}

/// One copy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RouteCopy {
    /// To whom.
    pub address: String,
    /// What its route matches, or null.
    pub route: Option<String>,
    /// Where that stands.
    pub place: Option<String>,
    /// The next hop as the profile writes it.
    pub hop: Option<String>,
    /// The mailbox here.
    pub mailbox: Option<String>,
    /// The recipient as it is handed to that hop.
    pub handed_as: Option<String>,
    /// Bearers that may carry it.
    pub bearers: Vec<String>,
    /// Level of service at least.
    pub min_precedence: Option<String>,
    /// Level of service at most.
    pub max_precedence: Option<String>,
    /// The owner of the list that sends it: the return path of this copy.
    pub owner: Option<String>,
    /// Whether it is one of several behind an alias, of which the sender hears "expanded".
    pub expanded: bool,
    /// Why it fails, if it does.
    pub refused: Option<RouteAnswer>,
}

/// `aldis codec explain`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CodecExplain {
    /// The schema's name.
    pub schema: &'static str,
    /// Bytes of the message.
    pub message_bytes: usize,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// How the payload is coded.
    pub coding: String,
    /// What it would cost otherwise.
    pub otherwise: Vec<CodecCost>,
    /// What the payload consists of.
    pub sections: Vec<CodecSection>,
    /// How long it takes.
    pub bearers: Vec<CodecAir>,
}

/// A coding and its length.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CodecCost {
    /// In words.
    pub coding: String,
    /// In bytes.
    pub bytes: usize,
}

/// A part of a payload.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CodecSection {
    /// What it is.
    pub name: String,
    /// Its bytes before it is coded, without transfer encoding.
    pub bytes: usize,
    /// Its bytes in the payload.
    pub payload_bytes: usize,
    /// How it is coded.
    pub coding: String,
    /// What it would cost otherwise.
    pub otherwise: Vec<CodecCost>,
}

/// A bearer or a rate, and the seconds a payload takes there.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CodecAir {
    /// Its name, or the rate.
    pub bearer: String,
    /// Seconds.
    pub air_s: f64,
}

/// `aldis hash-password`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PasswordHash {
    /// The schema's name.
    pub schema: &'static str,
    /// For `[[user]] password_hash`.
    pub password_hash: String,
}

/// `aldis dkim record`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DkimRecords {
    /// The schema's name.
    pub schema: &'static str,
    /// One of each key.
    pub records: Vec<DkimRecord>,
}

/// What publishes one key.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DkimRecord {
    /// The key's name in the profile.
    pub key: String,
    /// Where the record stands, with the final dot.
    pub name: String,
    /// Its type: `TXT`.
    pub kind: &'static str,
    /// What it says, in one piece.
    pub content: String,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The schema's name.
    pub schema: String,
    /// Why, in words for an operator.
    pub problem: String,
}

/// `aldis status`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The schema's name.
    pub schema: String,
    /// The node's name.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Cargo features of this build; a release has none.
    pub features: Vec<String>,
    /// What this build can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whether everything is bound and the store is open.
    pub ready: bool,
    /// Whether civil time is trusted.
    pub clock_set: bool,
    /// Listeners and where they are bound.
    pub listeners: Vec<ListenerStatus>,
    /// Next hops that the profile describes.
    #[serde(default)]
    pub smarthosts: Vec<SmarthostStatus>,
    /// Domains whose hosts the DNS names: those used last.
    #[serde(default)]
    pub mx: Vec<MxStatus>,
    /// Bearers.
    pub bearers: Vec<BearerStatus>,
    /// Peers that several bearers reach.
    pub paths: Vec<PathStatus>,
    /// The links of the bearers, one for each neighbour.
    #[serde(default)]
    pub links: Vec<LinkStatus>,
    /// The machines of bearers on IP networks.
    #[serde(default)]
    pub multicast: Vec<MulticastStatus>,
    /// Peers that are taken for silent.
    #[serde(default)]
    pub silent: Vec<PeerSilence>,
    /// The queue.
    pub queue: QueueStatus,
    /// The store.
    pub store: StoreStatus,
    /// Counts of events since the start, by name.
    #[serde(default)]
    pub events: BTreeMap<String, u64>,
}

/// The machine of a bearer on an IP network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MulticastStatus {
    /// The bearer.
    pub bearer: String,
    /// Its sockets work.
    pub up: bool,
    /// Messages of this node on their way; in Aldis mode payloads.
    pub sending: u64,
    /// Messages of others that are known, those accepted included.
    pub known: u64,
    /// Bytes held of messages that are not whole.
    pub held_bytes: u64,
    /// How often what happened that should not, or need not, by name.
    pub counts: BTreeMap<String, u64>,
}

/// One listener.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Address and port it is bound to.
    pub address: String,
    /// What it has refused since the start, by its bounds.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

/// A next hop that the profile describes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SmarthostStatus {
    /// Its name.
    pub name: String,
    /// Its hosts, in the order of the profile.
    pub hosts: Vec<HostStatus>,
}

/// A domain whose hosts the DNS names.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MxStatus {
    /// The domain.
    pub domain: String,
    /// It is known so for mail that may go in clear rather than not at all.
    pub tls_optional: bool,
    /// Its hosts, in the order of preference, one for each address.
    pub hosts: Vec<HostStatus>,
    /// Why there are none.
    pub why: Option<String>,
}

/// One host of a next hop.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// Host and port; with its address between them where the DNS named it.
    pub host: String,
    /// What is done about TLS: `off`, `opportunistic`, `required` or `verified` as the profile has it; `dane` or `mta-sts` where its domain
    /// says how its certificate is checked; `barred` where it is not to be used.
    #[serde(default)]
    pub tls: String,
    /// `ok`; `failed`: it stands behind the others; `login-refused`: it is left alone.
    pub state: String,
    /// Why.
    pub why: Option<String>,
    /// Seconds until it is tried in its turn again.
    pub tried_after_s: Option<u64>,
    /// Deliveries it got as far as hearing about, since the start.
    pub served: u64,
    /// Times it failed, since the start.
    pub failures: u64,
}

/// One bearer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BearerStatus {
    /// Its name.
    pub name: String,
    /// Its peer; several are separated by commas.
    pub peer: String,
    /// The order in force.
    pub emcon: EmconState,
    /// Seconds of own emission since the start.
    pub air_s: f64,
    /// Bytes put on the air since the start.
    pub bytes_sent: u64,
    /// Emissions that were refused since the start.
    pub suppressed: u64,
}

/// Which bearer mail to a peer takes, where there is a choice.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PathStatus {
    /// The peer.
    pub peer: String,
    /// The bearer a ROUTINE message of 10 KiB would take now.
    pub bearer: String,
    /// What is to be said of each of them.
    pub why: String,
}

/// The link to one neighbour: what it does now and why.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The bearer.
    pub bearer: String,
    /// The neighbour.
    pub peer: String,
    /// Rate and interleaver of traffic to it.
    pub waveform: String,
    /// Why that: `fixed`, or what it was chosen by.
    pub why: String,
    /// Signal-to-noise ratio there in dB, where anything tells.
    pub snr_db: Option<f64>,
    /// Share of cells expected to be lost on the way there.
    pub loss: f64,
    /// Seconds from the end of a transmission to the first symbol of the answer, as measured.
    pub turnaround_s: Option<f64>,
    /// Seconds until a missing answer is given up.
    pub wait_s: f64,
    /// Transmissions of traffic since the start, where the rate is chosen.
    pub transmissions: u32,
    /// Changes of rate between them.
    pub rate_changes: u32,
    /// What the neighbour can read, as it last said.
    #[serde(default)]
    pub reads: Option<String>,
}

/// `aldis peer show`, `silent` and `heard`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Peers {
    /// The schema's name.
    pub schema: String,
    /// The peers asked for.
    pub peers: Vec<PeerSilence>,
}

/// Whether a neighbour is taken for silent, and who says so.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerSilence {
    /// Its name.
    pub peer: String,
    /// Whether what goes to it goes blind.
    pub silent: bool,
    /// Until when, where that ends by itself.
    #[serde(default)]
    pub until: Option<String>,
    /// The operator's mark that takes effect later.
    #[serde(default)]
    pub from: Option<String>,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub author: String,
    /// When it was last heard although it is taken for silent.
    #[serde(default)]
    pub heard: Option<String>,
    /// Transfers that were sent to it and are not confirmed.
    pub sent: u64,
    /// What it can read, as it last said.
    #[serde(default)]
    pub reads: Option<String>,
}

/// An order of silence.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EmconState {
    /// `open`, `silent`, `restricted:LEVEL`, `window`, `ack-only`.
    pub state: String,
    /// Since when.
    pub since: String,
    /// Until when, where it ends by itself.
    #[serde(default)]
    pub until: Option<String>,
    /// Under `window`: when the bearer may transmit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<EmconWindow>,
    /// Why.
    pub reason: String,
    /// Who gave it.
    pub author: String,
    /// The order that takes effect later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<EmconNext>,
}

/// A span of time in which a bearer may transmit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EmconWindow {
    /// From when.
    pub from: String,
    /// Until when; what is sent ends before.
    pub until: String,
}

/// An order of silence to come.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EmconNext {
    /// `open`, `silent`, `restricted:LEVEL`, `ack-only`.
    pub state: String,
    /// From when.
    #[serde(default)]
    pub from: Option<String>,
    /// Until when, where it ends by itself.
    #[serde(default)]
    pub until: Option<String>,
    /// Why.
    pub reason: String,
    /// Who gave it.
    pub author: String,
}

impl From<&Window> for EmconWindow {
    fn from(window: &Window) -> Self {
        Self { from: window.from.rfc3339(), until: window.until.rfc3339() }
    }
}

impl EmconState {
    /// The order as it is shown; no order is silence.
    pub fn of(order: Option<&Order>, at: Option<Wall>) -> Self {
        match order.map(|order| order.shown(at)) {
            Some((order, next)) => Self {
                state: order.state.to_string(),
                since: order.from.unwrap_or(order.since).rfc3339(),
                until: order.until.filter(|until| at.is_none_or(|at| *until > at)).map(Wall::rfc3339),
                windows: match &order.state {
                    State::Window(windows) => windows.iter().map(EmconWindow::from).collect(),
                    _ => Vec::new(),
                },
                reason: order.reason.clone(),
                author: order.author.clone(),
                next: next.map(|order| EmconNext {
                    state: order.state.to_string(),
                    from: order.from.map(Wall::rfc3339),
                    until: order.until.map(Wall::rfc3339),
                    reason: order.reason.clone(),
                    author: order.author.clone(),
                }),
            },
            None => Self {
                state: "silent".into(),
                since: Wall::default().rfc3339(),
                until: None,
                windows: Vec::new(),
                reason: "no readable order".into(),
                author: "store".into(),
                next: None,
            },
        }
    }
}

/// The queue in figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct QueueStatus {
    /// By level, all six always present.
    pub by_precedence: BTreeMap<String, LevelStatus>,
}

/// One level of the queue.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LevelStatus {
    /// Messages not yet done.
    pub count: u64,
    /// Age of the oldest, in seconds; 0 when there is none.
    pub oldest_s: u64,
}

/// The store.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Whether mail can be accepted.
    pub healthy: bool,
    /// Free bytes on its disk.
    pub free_bytes: u64,
}

/// `aldis queue list`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QueueList {
    /// The schema's name.
    pub schema: String,
    /// In order of service.
    pub messages: Vec<QueueMessage>,
    /// Whether more were left off by the limit.
    #[serde(default)]
    pub more: bool,
}

/// One queued message.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QueueMessage {
    /// Its id at this node.
    pub id: String,
    /// Its Message-ID field.
    pub message_id: Option<String>,
    /// The return path, empty for `<>`.
    pub sender: String,
    /// Its recipients.
    pub recipients: Vec<QueueRecipient>,
    /// Level of service.
    pub precedence: String,
    /// The MT-PRIORITY number it carries on.
    pub mt_priority: Option<i8>,
    /// Bytes as accepted.
    pub size_bytes: u64,
    /// `checking`, `queued`, `held`, `done`.
    pub state: String,
    /// When it was accepted.
    pub accepted: String,
    /// When it expires.
    pub expires: String,
    /// What it is waiting for, in words.
    pub why: String,
}

/// One recipient of a queued message.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// The address.
    pub address: String,
    /// `due`, `on-air`, `sent` (to a silent peer, not confirmed), `held`, `delivered`, `failed`, `expired`, `cancelled`, `unconfirmed`.
    pub state: String,
    /// The bearer that carries it.
    pub bearer: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next.
    pub next_at: Option<String>,
    /// The last temporary failure, in the other side's words.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// `aldis queue show`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QueueShow {
    /// The schema's name.
    pub schema: String,
    /// The message.
    pub message: QueueMessage,
    /// Where it came from: listener and address, peer and transfer, or this switch.
    pub source: String,
    /// ENVID as given.
    pub envid: Option<String>,
    /// Recipients whose copy went on the air reduced.
    #[serde(default)]
    pub reduced: Vec<String>,
}

/// The answer to `queue-read`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QueueRead {
    /// The schema's name.
    pub schema: String,
    /// The message.
    pub id: String,
    /// Its bytes in all.
    pub size_bytes: u64,
    /// Where this piece begins.
    pub from: u64,
    /// The piece.
    pub base64: String,
}

/// `aldis queue original`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QueueOriginal {
    /// The schema's name.
    pub schema: String,
    /// The message.
    pub id: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// The file they were written to.
    pub file: String,
}

/// `aldis queue hold`, `release`, `expedite`, `cancel`, `fetch`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QueueAction {
    /// The schema's name.
    pub schema: String,
    /// `hold`, `release`, `expedite`, `cancel`, `fetch`.
    pub action: String,
    /// The message as it stands now; of `fetch` the one that carries the part.
    pub message: QueueMessage,
}

/// `aldis track`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Track {
    /// The schema's name.
    pub schema: String,
    /// The message's id at this node.
    pub id: String,
    /// Its history, oldest first.
    pub events: Vec<TrackEvent>,
    /// What is to be expected of the recipients that are not done and go over the air.
    #[serde(default)]
    pub predictions: Vec<Prediction>,
}

/// The answer to `predict` on the control socket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Predictions {
    /// The schema's name.
    pub schema: String,
    /// The message's id at this node.
    pub id: String,
    /// One for each peer that is still to have it.
    pub predictions: Vec<Prediction>,
}

/// What is to be expected of some recipients of a message.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Prediction {
    /// Whose.
    pub recipients: Vec<String>,
    /// The neighbour that takes it.
    pub peer: String,
    /// The bearer that is to carry it.
    pub bearer: Option<String>,
    /// Seconds of own emission still to come.
    pub air_s: f64,
    /// When the neighbour will have it; `None`: nobody can say.
    pub delivered_at: Option<String>,
    /// What that rests on, or why there is no time.
    pub why: String,
}

/// One line of a message's history.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrackEvent {
    /// When.
    pub at: String,
    /// What, in one word.
    pub event: String,
    /// Which recipient.
    pub recipient: Option<String>,
    /// On which bearer.
    pub bearer: Option<String>,
    /// Bytes on the air so far.
    pub bytes_on_air: u64,
    /// Seconds of own emission so far.
    pub air_s: f64,
    /// Anything more, in words.
    #[serde(default)]
    pub detail: Option<String>,
}

/// `aldis emcon show` and `set`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Emcon {
    /// The schema's name.
    pub schema: String,
    /// The bearers asked for.
    pub bearers: Vec<EmconBearer>,
}

/// One bearer under orders.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EmconBearer {
    /// Its name.
    pub name: String,
    /// The order in force.
    pub emcon: EmconState,
    /// Seconds until the carrier is surely off after an order of silence now (link-rules B2).
    pub carrier_off_s: f64,
    /// Emissions that were refused since the start.
    pub suppressed: u64,
}

/// `aldis emcon what-if`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WhatIf {
    /// The schema's name.
    pub schema: String,
    /// The state that is supposed.
    pub state: String,
    /// The bearers asked for, as they would be.
    pub bearers: Vec<WhatIfBearer>,
    /// What would wait all the same.
    pub stays: Vec<WhatIfStays>,
}

/// What one bearer would radiate.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WhatIfBearer {
    /// Its name.
    pub name: String,
    /// The order in force.
    pub emcon: EmconState,
    /// Messages that would go.
    pub messages: u64,
    /// Their bytes, coded, that are still missing at the far side.
    pub bytes: u64,
    /// Seconds of own emission for them.
    pub air_s: f64,
    /// When the last of them would be across; `None`: nothing goes, or nobody can say.
    pub done_at: Option<String>,
    /// The same by level, highest first; levels without a message are left out.
    pub levels: Vec<WhatIfLevel>,
    /// Peers that would be told what has been heard from them.
    pub reports: u64,
    /// Seconds of own emission for that.
    pub reports_air_s: f64,
}

/// What of one level would go.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WhatIfLevel {
    /// The level.
    pub precedence: String,
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Seconds of own emission.
    pub air_s: f64,
}

/// Messages of one level that would wait for one reason.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WhatIfStays {
    /// The level.
    pub precedence: String,
    /// Messages.
    pub messages: u64,
    /// Why, in words.
    pub why: String,
}

/// `aldis minimize show`, `set` and `clear`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Minimize {
    /// The schema's name.
    pub schema: String,
    /// The orders in force or to come.
    pub orders: Vec<MinimizeOrder>,
}

/// One MINIMIZE order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MinimizeOrder {
    /// The bearer.
    pub bearer: String,
    /// The lowest level still taken.
    pub minimum: String,
    /// From when.
    pub from: String,
    /// Until when; `None` is until it is cleared.
    pub until: Option<String>,
    /// Why.
    pub reason: String,
    /// Who gave it.
    pub author: String,
}
