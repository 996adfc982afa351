//! The checked plan: what every other part of the node is built from. Low-level text became high-level values exactly once.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::Password;
use super::burl::BurlPlan;
use super::mx::MxPlan;
use super::smarthost::{SmarthostPlan, Waits};
use crate::bearer::pmul::{Checksum, Dynamic, EntrySource, NodeId, Ranges, Timers};
use crate::codec::mule::Tagging;
use crate::codec::reduce::Rule;
use crate::codec::site::SiteDictionary;
use crate::emcon::{State, Window};
use crate::mail::{BearerId, LinkKey, Mailbox, PeerName, Precedence, PriorityPolicy, Protection};
use crate::route::Directory;
use crate::security::dkim::Signer;
use crate::security::vet::{Bounds, Checks};
use crate::time::Duration;
use crate::units::Bps;

/// A whole checked profile.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// The node itself.
    pub node: NodePlan,
    /// Bounds on what peers may use.
    pub limits: Limits,
    /// SMTP listeners, in profile order.
    pub listeners: Vec<ListenerPlan>,
    /// Next hops with settings of their own.
    pub smarthosts: Vec<SmarthostPlan>,
    /// Users who may authenticate, by name.
    pub users: BTreeMap<String, UserPlan>,
    /// Addresses: routes, aliases, who has a mailbox.
    pub directory: Directory,
    /// Local mailboxes.
    pub local: LocalPlan,
    /// Attempt, warning and expiry times per precedence.
    pub retry: BTreeMap<Precedence, RetryPlan>,
    /// Precedence rules at this node.
    pub precedence: PrecedencePlan,
    /// How mail of each level goes to peers that keep silence.
    pub blind: BTreeMap<Precedence, BlindPlan>,
    /// Neighbours over the air.
    pub peers: Vec<PeerPlan>,
    /// Bearers on serial lines.
    pub bearers: Vec<BearerPlan>,
    /// Neighbours that speak MULE.
    pub mules: Vec<MulePeerPlan>,
    /// Bearers that speak P_MUL.
    pub pmul: Vec<PmulPlan>,
    /// Bearers in Aldis mode over IP multicast.
    pub multicast: Vec<MulticastPlan>,
    /// What may be left out where; the first rule that applies counts.
    pub reduce: Vec<ReducePlan>,
    /// How mail is coded.
    pub codec: CodecPlan,
    /// Who is asked for what the DNS knows.
    pub dns: DnsPlan,
    /// How mail goes to the hosts that the DNS names.
    pub mx: MxPlan,
    /// How mail is checked where a listener asks for it.
    pub checks: ChecksPlan,
    /// Keys that sign mail.
    pub dkim: Vec<Arc<Signer>>,
}

impl Plan {
    /// All neighbours, and when they keep silence.
    pub fn neighbours(&self) -> impl Iterator<Item = (&PeerName, &Silences)> {
        let aldis = self.peers.iter().map(|p| (&p.name, &p.silent));
        aldis.chain(self.mules.iter().map(|p| (&p.name, &p.silent)))
    }

    /// Whether any listener checks mail: then this node's word on it is nobody else's to give.
    pub fn checks_mail(&self) -> bool {
        self.listeners.iter().any(|l| l.vetting.checks.any())
    }

    /// The next hop of this name.
    pub fn smarthost(&self, name: &str) -> Option<&SmarthostPlan> {
        self.smarthosts.iter().find(|s| s.name == name)
    }

    /// Whether a bearer never radiates, whatever is ordered.
    pub fn only_receives(&self, bearer: &BearerId) -> bool {
        self.nets().any(|net| net.id == *bearer && net.receive_only)
    }

    /// All bearers on IP networks, whatever they speak.
    pub fn nets(&self) -> impl Iterator<Item = &NetPlan> {
        self.pmul.iter().map(|p| &p.net).chain(self.multicast.iter().map(|m| &m.net))
    }
}

/// `[node]`
#[derive(Clone, PartialEq, Debug)]
pub struct NodePlan {
    /// Short name, known to the peers; origin of transfers.
    pub name: PeerName,
    /// Name in SMTP greetings, Received fields and DSNs.
    pub hostname: String,
    /// Where everything durable lives.
    pub state_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Mode of the control socket, e.g. 0o600.
    pub socket_mode: u32,
    /// Takes what is addressed to postmaster, and reports about `<>` mail.
    pub postmaster: Mailbox,
    /// True when an operator vouches for the machine's clock; false asks the kernel (A7).
    pub clock_trusted: bool,
    /// A deliberate fault.
    #[cfg(feature = "mutations")]
    pub mutation: Option<crate::mutation::Mutation>,
}

/// `[limits]`
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// Largest message accepted.
    pub message_bytes: u64,
    /// Recipients per transaction.
    pub recipients: usize,
    /// SMTP sessions at once, all listeners.
    pub sessions: usize,
    /// Sessions at once from one address.
    pub sessions_per_address: usize,
    /// Idle time of a session before 421.
    pub session_idle: Duration,
    /// Longest session.
    pub session_total: Duration,
    /// Errors in one session before 421.
    pub session_errors: u32,
    /// Received fields before 554 5.4.6.
    pub received_fields: usize,
    /// Message bytes in flight in all sessions before 452.
    pub in_flight_bytes: u64,
    /// Messages kept in memory for the scheduler.
    pub active_messages: usize,
    /// Free disk space below which mail is answered 452.
    pub disk_floor_bytes: u64,
    /// Onward SMTP and LMTP connections at once.
    pub deliveries: usize,
    /// How long next hops are waited for that a route names and nothing more is said about.
    pub waits: Waits,
    /// How long finished messages stay for `track`, and duplicate keys beyond message expiry.
    pub keep_done: Duration,
    /// Messages that wait for the release their senders asked for.
    pub future_release: usize,
    /// Of these, of one user.
    pub future_release_per_user: usize,
    /// Bytes of messages that a payload may name to one peer; 0: none are kept.
    pub history_bytes: u64,
    /// How far aliases may lead.
    pub aliases: crate::route::Bounds,
}

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerKind {
    /// MTA to MTA.
    Relay,
    /// Mail client to MTA (RFC 6409).
    Submission,
    /// LMTP (RFC 2033).
    Lmtp,
}

/// TLS on a listener.
#[derive(Clone, PartialEq, Debug)]
pub struct TlsPlan {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// TLS from the first byte (465) instead of STARTTLS.
    pub implicit: bool,
    /// PEM of the authorities whose client certificates count; without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// One `[[listener]]`
#[derive(Clone, PartialEq, Debug)]
pub struct ListenerPlan {
    /// Its name, also its key on the ready line.
    pub name: String,
    /// What it speaks.
    pub kind: ListenerKind,
    /// Where.
    pub address: ListenerAddress,
    /// Mode bits of its socket, where it is one.
    pub socket_mode: u32,
    /// TLS, when offered.
    pub tls: Option<TlsPlan>,
    /// Whether AUTH is offered (inside TLS, or to loopback peers).
    pub auth: bool,
    /// Whether MAIL needs AUTH first (always true for untrusted peers of a submission listener).
    pub auth_required: bool,
    /// Networks whose peers may relay anywhere and set any precedence: address and prefix length.
    pub trust: Vec<(std::net::IpAddr, u8)>,
    /// Highest precedence honoured from an unauthenticated, untrusted peer (D6).
    pub max_precedence: Precedence,
    /// How far away a release may be that a sender asks for (RFC 4865); submission alone.
    pub future_release: Option<Duration>,
    /// What it fetches for its users (RFC 4468); submission alone.
    pub burl: Option<BurlPlan>,
    /// Whether MAIL needs TLS first.
    pub tls_required: bool,
    /// Largest message accepted here.
    pub message_bytes: u64,
    /// Recipients per transaction here.
    pub recipients: usize,
    /// Sessions at once from one address here.
    pub sessions_per_address: usize,
    /// Sessions a minute from one address, trusted networks not counted.
    pub sessions_per_minute: Option<u32>,
    /// Messages a minute from one address, trusted networks not counted.
    pub messages_per_minute: Option<u32>,
    /// What is checked and signed.
    pub vetting: VettingPlan,
    /// What the numbers of MT-PRIORITY mean here.
    pub mt_priority: PriorityPolicy,
    /// Largest message of a level, where it is less than `message_bytes`.
    pub precedence_bytes: BTreeMap<Precedence, u64>,
    /// Networks whose peers may send 8-bit octets in a header without SMTPUTF8.
    pub raw_header: Vec<(std::net::IpAddr, u8)>,
    /// Networks whose peers' bare CR and LF become line ends.
    pub normalize: Vec<(std::net::IpAddr, u8)>,
    /// Longest wait for an answer before a client is told to come again.
    pub answer: Duration,
    /// Least number of seconds of DELIVERBY in mode R.
    pub deliver_by_min: u32,
}

/// Where a listener listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ListenerAddress {
    /// At an address and port.
    Net(SocketAddr),
    /// At a socket of this machine.
    Path(PathBuf),
}

impl ListenerAddress {
    /// The address on a network, where it is one.
    pub const fn net(&self) -> Option<SocketAddr> {
        match self {
            Self::Net(address) => Some(*address),
            Self::Path(_) => None,
        }
    }

    /// The port, where there is one; 0: any.
    pub fn port(&self) -> Option<u16> {
        self.net().map(|address| address.port())
    }

    /// Whether only this machine can reach it.
    pub const fn is_loopback(&self) -> bool {
        match self {
            Self::Net(address) => address.ip().is_loopback(),
            Self::Path(_) => true,
        }
    }
}

impl std::fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Net(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// What a listener does about who vouches for mail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VettingPlan {
    /// What is checked of mail from peers that have not authenticated.
    pub checks: Checks,
    /// Mail whose author's domain wants it refused is refused.
    pub dmarc_reject: bool,
    /// Mail of peers that have authenticated or are trusted is signed.
    pub sign: bool,
    /// The name of the key that goes on with ARC chains.
    pub seal: Option<String>,
}

/// `[dns]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsPlan {
    /// Who is asked; `None`: whom the machine asks.
    pub servers: Option<Vec<SocketAddr>>,
    /// How long one try may take.
    pub timeout: Duration,
    /// Tries for one question.
    pub attempts: usize,
    /// Answers that are remembered.
    pub cache: u64,
}

/// `[checks]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChecksPlan {
    /// Who this node is in Authentication-Results.
    pub authserv_id: String,
    /// How long all checks of one message may take.
    pub within: Duration,
    /// How long nobody is asked after no server of the DNS answered.
    pub pause: Duration,
    /// Messages that are checked at once.
    pub at_once: usize,
    /// What one message may cost.
    pub bounds: Bounds,
}

/// One `[[user]]`
#[derive(Clone, PartialEq, Debug)]
pub struct UserPlan {
    /// What is kept of the password; a user without one has a certificate.
    pub password: Option<Password>,
    /// The name in the user's certificate, in lower case.
    pub certificate: Option<String>,
    /// Highest precedence this user may set.
    pub max_precedence: Precedence,
}

/// `[local]`
#[derive(Clone, PartialEq, Debug)]
pub struct LocalPlan {
    /// Maildirs live at `<maildir>/<local part>/`.
    pub maildir: PathBuf,
    /// Local parts that exist; empty accepts any.
    pub users: Vec<String>,
    /// What stands between a local part and its detail; empty: nothing does.
    pub separator: String,
}

/// `[retry.LEVEL]`
#[derive(Clone, PartialEq, Debug)]
pub struct RetryPlan {
    /// Waits between attempts; the last repeats.
    pub after: Vec<Duration>,
    /// When a delay DSN is due.
    pub warn: Duration,
    /// When the message expires, unless it says otherwise.
    pub expire: Duration,
}

/// `[precedence]`
#[derive(Clone, PartialEq, Debug)]
pub struct PrecedencePlan {
    /// Level of a message that states none.
    pub default: Precedence,
    /// Whether MMHS-Primary-Precedence in the header counts when no parameter was given.
    pub mmhs: bool,
    /// From this level on mail goes on two bearers at once where two are open; `None`: it never does.
    pub two_bearers: Option<Precedence>,
}

/// `[blind.LEVEL]`
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BlindPlan {
    /// Chance that a receiver has the whole after one window, at the assumed loss.
    pub target: f64,
    /// How often it is sent in all.
    pub windows: u32,
    /// From the end of one window to the next.
    pub every: Duration,
}

/// When a peer keeps silence, by the profile.
#[derive(Clone, PartialEq, Debug)]
pub enum Silences {
    /// Never.
    Never,
    /// Always.
    Always,
    /// In these spans.
    Windows(Vec<Window>),
}

/// One `[[peer]]`
#[derive(Clone, PartialEq, Debug)]
pub struct PeerPlan {
    /// The peer's node name.
    pub name: PeerName,
    /// Its station number on the net: 0..=15 on a serial line, any on an IP network.
    pub station: u8,
    /// How traffic with it is protected.
    pub protection: Protection,
    /// One or two keys; empty only when protection is off. The first is used for sending.
    pub keys: Vec<LinkKey>,
    /// When it keeps silence.
    pub silent: Silences,
    /// Share of cells taken for lost towards it meanwhile.
    pub assumed_loss: f64,
    /// Reports that it can build itself go to it as receipts.
    pub takes_receipts: bool,
    /// It has this site's dictionary too.
    pub dictionary: bool,
}

/// What a bearer carries of one precedence (link-rules D5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CarryPlan {
    /// Largest encoded payload.
    pub payload_bytes: u64,
    /// Longest predicted time on the air.
    pub air: Duration,
}

/// What a payload costs on the air.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage {
    /// From key-down until the far side holds it.
    pub time: Duration,
    /// Of that, how long this station radiates.
    pub emission: Duration,
}

impl BearerPlan {
    /// What a payload of this size costs on a clean path with the waveform the profile names.
    pub fn predicted_air(&self, payload_bytes: u64) -> Duration {
        self.passage(&self.waveform, payload_bytes).time
    }

    /// What a payload of this size costs on a clean path: symbols in frames, whole interleaver blocks, preambles, and a report with its
    /// turnarounds after every full transmission.
    pub fn passage(&self, w: &Waveform, payload_bytes: u64) -> Passage {
        /// Frame overhead (docs/wire-serial.md).
        const OVERHEAD: u64 = 14;
        let cap = self.max_transmission_routine.max(w.preamble + w.block);
        let frame = u64::from(w.frame_bytes).max(OVERHEAD + 1);
        let on_air = payload_bytes + payload_bytes.div_ceil(frame - OVERHEAD) * OVERHEAD + u64::from(w.tail_bits / 8);
        let whole_blocks = |time: Duration| {
            let blocks = time.as_nanos().div_ceil(w.block.as_nanos().max(1));
            w.block.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX))
        };
        let data = w.rate.airtime(on_air);
        let each = cap - w.preamble;
        let full = u32::try_from(data.as_nanos() / each.as_nanos().max(1)).unwrap_or(u32::MAX);
        let rest = data.saturating_sub(each.saturating_mul(full));
        let report = w.preamble + w.block + w.turnaround * 2;
        let last = if rest.is_zero() { Duration::ZERO } else { w.preamble + whole_blocks(rest) };
        // The report after the last symbol brings nothing more to the far side.
        let reports = if rest.is_zero() { full.saturating_sub(1) } else { full };
        let emission = cap.saturating_mul(full) + last;
        Passage { time: emission + report.saturating_mul(reports), emission }
    }

    /// Facts of a waveform this bearer may transmit with, by rate and interleaver; those of the profile where it has no other.
    pub fn waveform_named(&self, rate: Bps, interleaver: &str) -> &Waveform {
        let mut choices = self.choices.iter().map(|c| &c.waveform);
        choices.find(|w| w.rate == rate && w.interleaver == interleaver).unwrap_or(&self.waveform)
    }

    /// Whether a payload of this size and level may go here; otherwise why not, in words for the sender.
    pub fn carries(&self, level: Precedence, payload_bytes: u64) -> Result<(), String> {
        let Some(carry) = self.carry.get(&level) else { return Ok(()) };
        within(&self.id, carry, level, payload_bytes, self.predicted_air(payload_bytes))
    }
}

/// How the key line reaches the modem.
#[derive(Clone, PartialEq, Debug)]
pub enum KeyingPlan {
    /// RTS keys, CTS clears to send, DCD is carrier.
    Lines,
    /// The simulated modem's side channel: a Unix socket.
    Socket(PathBuf),
}

/// One `[[bearer]]` of kind `serial`
#[derive(Clone, PartialEq, Debug)]
pub struct BearerPlan {
    /// Its name.
    pub id: BearerId,
    /// The tty.
    pub device: PathBuf,
    /// Line rate of the tty.
    pub baud: u32,
    /// Key line.
    pub keying: KeyingPlan,
    /// Waveform facts from the modem's sheet in hw/, for the chosen rate and interleaver.
    pub waveform: Waveform,
    /// What the rate may be chosen from, `waveform` among it; empty: it is fixed.
    pub choices: Vec<Choice>,
    /// Own station number on the net, 0..=15.
    pub station: u8,
    /// Peers heard here.
    pub peers: Vec<PeerName>,
    /// State at first start; afterwards the persisted order wins (B4).
    pub emcon: State,
    /// Cap of one transmission (D4).
    pub max_transmission: Duration,
    /// Cap when both ways hold ROUTINE or less.
    pub max_transmission_routine: Duration,
    /// Largest encoded payload of any message.
    pub max_payload_bytes: u64,
    /// What it carries by level (D5); every level has an entry.
    pub carry: BTreeMap<Precedence, CarryPlan>,
    /// What is beyond that and was accepted all the same is held for an operator instead of returned.
    pub hold_excess: bool,
    /// Whether mail that asks for protection may go here (C4).
    pub protected: bool,
    /// What a KiB here counts for in the choice between bearers, as if it took so much longer.
    pub cost: Duration,
    /// Name of the net, the same at all its stations; empty: it has none.
    pub net: String,
    /// Carrier present longer than this is an alarm (A6).
    pub carrier_stuck_after: Duration,
}

/// `[codec]`
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CodecPlan {
    /// The site's own dictionary, as it was when the profile was read; `None` where none is named, or it could not be read.
    pub dictionary: Option<Arc<SiteDictionary>>,
}

/// One `[[reduce]]`
#[derive(Clone, PartialEq, Debug)]
pub struct ReducePlan {
    /// Bearers it is for.
    pub bearers: Vec<BearerId>,
    /// Messages of at least so many bytes.
    pub over_bytes: u64,
    /// Highest level it applies to.
    pub up_to: Precedence,
    /// What is left out.
    pub rule: Arc<Rule>,
    /// Whoever got the copy may ask for its parts by mail.
    pub fetch_by_mail: bool,
}

impl ReducePlan {
    /// Whether it applies to a message of this size and level on this bearer.
    pub fn applies(&self, bearer: &BearerId, bytes: u64, level: Precedence) -> bool {
        bytes >= self.over_bytes && level <= self.up_to && self.bearers.contains(bearer)
    }

    /// Whether how big a message is says little of how big its copy will be.
    pub fn cuts_deep(&self) -> bool {
        self.rule.html || self.rule.attachments_over.is_some() || self.rule.images_over.is_some()
    }
}

/// A waveform that may be chosen.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// Its facts.
    pub waveform: Waveform,
    /// Signal-to-noise ratio, dB in 3 kHz, at which one block in ten is lost on a fading path.
    pub anchor_db: f64,
}

/// What a core must know of its modem's waveform.
#[derive(Clone, PartialEq, Debug)]
pub struct Waveform {
    /// Data rate.
    pub rate: Bps,
    /// Interleaver letter, for people.
    pub interleaver: String,
    /// Preamble.
    pub preamble: Duration,
    /// One interleaver block.
    pub block: Duration,
    /// Bits the modem adds at the end of a transmission (EOM and flush).
    pub tail_bits: u32,
    /// Best frame length at this rate, overhead included: the modem's unit of loss where known.
    pub frame_bytes: u32,
    /// Last symbol of one station to first preamble symbol of the other.
    pub turnaround: Duration,
    /// Bytes the modem buffers at most.
    pub buffer_bytes: u32,
    /// Whether the modem can abort at once; decides the figure `emcon set` states (B2).
    pub can_abort: bool,
}

/// One `[[peer]]` with `protocol = "mule"`
#[derive(Clone, PartialEq, Debug)]
pub struct MulePeerPlan {
    /// Its name in this profile.
    pub name: PeerName,
    /// Its node number.
    pub node: NodeId,
    /// Addresses its datagrams come from.
    pub addresses: Vec<Ipv4Addr>,
    /// The group mail to it goes to.
    pub group: PeerGroup,
    /// How lists of missing pieces are written to it.
    pub ranges: Ranges,
    /// What names the originator in entries to it.
    pub entry_source: EntrySource,
    /// When it keeps silence.
    pub silent: Silences,
}

/// The group mail to a MULE peer goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerGroup {
    /// The first of its bearer.
    First,
    /// This one.
    Agreed(Ipv4Addr),
    /// None is agreed: one is made for each message.
    Dynamic,
}

/// Who sees to it that a group's datagrams reach this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// Whoever set the interface up: the node itself says nothing to the network.
    Static,
    /// The node, by IGMP, once it may radiate.
    Igmp,
}

/// What a `[[bearer]]` on an IP network is, whatever it speaks there.
#[derive(Clone, PartialEq, Debug)]
pub struct NetPlan {
    /// Its name.
    pub id: BearerId,
    /// Own address on the interface.
    pub interface: Ipv4Addr,
    /// Groups it hears; the first is where messages go.
    pub groups: Vec<Ipv4Addr>,
    /// Ports it hears; everything leaves from the first.
    pub ports: Vec<u16>,
    /// Where dynamic groups are spoken of, and which there are; `None`: none.
    pub control: Option<ControlPlan>,
    /// Who joins the groups.
    pub join: Join,
    /// Hops a datagram may make.
    pub ttl: u8,
    /// Code point of datagrams by level; every level has an entry.
    pub dscp: BTreeMap<Precedence, u8>,
    /// Peers reached here.
    pub peers: Vec<PeerName>,
    /// State at first start; afterwards the persisted order wins (B4).
    pub emcon: State,
    /// It never radiates, whatever is ordered.
    pub receive_only: bool,
    /// What leaves stays below this.
    pub rate: Bps,
    /// Longest datagram, without UDP and IPv4.
    pub max_datagram: usize,
    /// Of that, what is no payload in a datagram that carries some.
    pub head: usize,
    /// Largest payload of any message.
    pub max_payload_bytes: u64,
    /// What it carries by level (D5); every level has an entry.
    pub carry: BTreeMap<Precedence, CarryPlan>,
    /// What is beyond that and was accepted all the same is held for an operator instead of returned.
    pub hold_excess: bool,
    /// Whether mail that asks for protection may go here (C4).
    pub protected: bool,
}

/// Where dynamic groups are spoken of, and which there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlPlan {
    /// GG
    pub group: Ipv4Addr,
    /// TPORT and RPORT.
    pub ports: [u16; 2],
    /// Groups that may be joined and left.
    pub pool: Vec<Ipv4Addr>,
}

impl NetPlan {
    /// What UDP and IPv4 put before a datagram.
    pub const HEADERS: u64 = 28;

    /// How long one datagram takes at the rate, at most.
    pub fn datagram_air(&self) -> Duration {
        self.rate.airtime(self.max_datagram as u64 + Self::HEADERS)
    }

    /// How long a payload takes at the rate, sent once.
    pub fn airtime(&self, payload_bytes: u64) -> Duration {
        let piece = self.max_datagram.saturating_sub(self.head).max(1) as u64;
        // One more: the address, or the question.
        let datagrams = payload_bytes.div_ceil(piece).max(1) + 1;
        self.rate.airtime(payload_bytes + datagrams * (Self::HEADERS + self.head as u64))
    }

    /// Whether a payload of this size and level may go here; otherwise why not, in words for the sender.
    pub fn carries(&self, level: Precedence, payload_bytes: u64) -> Result<(), String> {
        let Some(carry) = self.carry.get(&level) else { return Ok(()) };
        within(&self.id, carry, level, payload_bytes, self.airtime(payload_bytes))
    }
}

/// One `[[bearer]]` of kind `pmul`
#[derive(Clone, PartialEq, Debug)]
pub struct PmulPlan {
    /// What it has in common with others.
    pub net: NetPlan,
    /// Own node number.
    pub node: NodeId,
    /// DPORT
    pub data_port: u16,
    /// APORT
    pub ack_port: u16,
    /// Which checksum is written.
    pub checksum: Checksum,
    /// How the structure around mail is tagged.
    pub tagging: Tagging,
    /// The waits.
    pub timers: Timers,
    /// Groups made for single messages.
    pub dynamic: Option<DynamicPlan>,
}

impl PmulPlan {
    /// The group that was agreed for a peer.
    pub fn agreed(&self, peer: &MulePeerPlan) -> Option<Ipv4Addr> {
        match peer.group {
            PeerGroup::First => self.net.groups.first().copied(),
            PeerGroup::Agreed(group) => Some(group),
            PeerGroup::Dynamic => None,
        }
    }
}

/// `[bearer.dynamic]`
#[derive(Clone, PartialEq, Debug)]
pub struct DynamicPlan {
    /// Messages go by a dynamic group even where an agreed one fits.
    pub always: bool,
    /// TPORT
    pub request_port: u16,
    /// RPORT
    pub announce_port: u16,
    /// The machine's part.
    pub machine: Dynamic,
}

/// One `[[bearer]]` of kind `multicast`
#[derive(Clone, PartialEq, Debug)]
pub struct MulticastPlan {
    /// What it has in common with others.
    pub net: NetPlan,
    /// Own station number, unique in the group.
    pub station: u8,
    /// One way.
    pub delay: Duration,
}

impl MulticastPlan {
    /// What its datagrams are authenticated as: the same at all nodes of the group.
    pub fn group(&self) -> String {
        let (group, port) = (self.net.groups.first().copied(), self.net.ports.first().copied());
        format!("{}:{}", group.unwrap_or(Ipv4Addr::UNSPECIFIED), port.unwrap_or(0))
    }
}

/// Whether a payload is within what a bearer carries of its level.
fn within(bearer: &BearerId, carry: &CarryPlan, level: Precedence, bytes: u64, air: Duration) -> Result<(), String> {
    if bytes > carry.payload_bytes {
        return Err(format!("{bytes} bytes when encoded; {bearer} takes {} of {level}", carry.payload_bytes));
    }
    if air > carry.air {
        let (air, most) = (air.as_secs(), carry.air.as_secs());
        return Err(format!("it would take {air} s on the air; {bearer} gives {level} {most} s"));
    }
    Ok(())
}
