//! The envelope: everything about a message that is not its bytes. It crosses the air whole (link-rules A9).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Mailbox, MtPriority, PeerName, Precedence, Receipt, ReversePath, TransferId};
use crate::time::{Duration, Wall};

/// RFC 6152, 3030: what BODY= declared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum BodyKind {
    /// Nothing declared, or BODY=7BIT.
    #[default]
    SevenBit,
    /// BODY=8BITMIME.
    EightBitMime,
    /// BODY=BINARYMIME.
    BinaryMime,
}

/// RFC 3461 RET: how much of the message a DSN returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

/// RFC 3461 NOTIFY, when it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notify {
    /// SUCCESS was named.
    pub success: bool,
    /// FAILURE was named.
    pub failure: bool,
    /// DELAY was named.
    pub delay: bool,
}

impl Notify {
    /// NOTIFY=NEVER.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// Reads the value of a NOTIFY parameter (RFC 3461 4.1).
    pub fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Self::NEVER);
        }
        let mut out = Self::NEVER;
        for word in value.split(',') {
            match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => out.success = true,
                "FAILURE" => out.failure = true,
                "DELAY" => out.delay = true,
                _ => return None,
            }
        }
        Some(out)
    }

    /// The value of a NOTIFY parameter.
    pub fn words(self) -> String {
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let words: Vec<&str> = words.into_iter().filter_map(|(named, word)| named.then_some(word)).collect();
        if words.is_empty() { "NEVER".to_owned() } else { words.join(",") }
    }
}

/// RFC 2852 by-mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ByMode {
    /// Return the message when the deadline passes.
    Return,
    /// Notify of the delay and go on.
    Notify,
}

/// RFC 2852 BY with its deadline made absolute at receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeliverBy {
    /// The deadline.
    pub deadline: Wall,
    /// What happens then.
    pub mode: ByMode,
    /// The T flag: a "relayed" DSN at each hop.
    pub trace: bool,
}

/// RFC 4865: how a sender asked for a later release.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReleaseAsked {
    /// HOLDFOR, in seconds.
    For(u32),
    /// HOLDUNTIL
    Until(Wall),
}

/// RFC 4865: nothing of the message is sent before this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Release {
    /// When it may go.
    pub at: Wall,
    /// As it was asked for.
    pub asked: ReleaseAsked,
}

impl Release {
    /// The value of a report's Future-Release-Request field.
    pub fn field(self) -> String {
        match self.asked {
            ReleaseAsked::For(seconds) => format!("for;{seconds}"),
            ReleaseAsked::Until(at) => format!("until;{}", at.rfc3339_seconds()),
        }
    }
}

/// RFC 3885: what shows that whoever asks after a message is its sender.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tracking {
    /// The hash of the sender's secret in base64, without padding: the parameter's alphabet has none.
    pub certifier: String,
    /// How long the message is to be remembered, in seconds from its receipt, as far as the sender says.
    pub seconds: Option<u32>,
}

impl Tracking {
    /// The value of MTRK this long after receipt; `None` once its time is over.
    pub fn parameter(&self, age: Duration) -> Option<String> {
        match self.seconds {
            None => Some(self.certifier.clone()),
            Some(seconds) => {
                let left = u64::from(seconds).checked_sub(age.as_secs()).filter(|left| *left > 0)?;
                Some(format!("{}:{left}", self.certifier))
            }
        }
    }
}

/// What a sender asked of this node, beside the envelope: over the air it does not go on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// When the message may go.
    pub release: Option<Release>,
    /// Who may ask after it.
    pub tracking: Option<Tracking>,
}

/// One recipient with its DSN parameters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recipient {
    /// Where to.
    pub address: Mailbox,
    /// NOTIFY as given; `None` means not given, which is not the same as FAILURE,DELAY when relaying.
    pub notify: Option<Notify>,
    /// ORCPT as given, `type;xtext` byte for byte.
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without DSN parameters.
    pub fn plain(address: Mailbox) -> Self {
        Self { address, notify: None, orcpt: None }
    }
}

/// A message's envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Return path.
    pub from: ReversePath,
    /// Recipients, in the order they were given.
    pub recipients: Vec<Recipient>,
    /// ENVID as given, xtext byte for byte.
    pub envid: Option<String>,
    /// RET as given.
    pub ret: Option<Ret>,
    /// The exact MT-PRIORITY number this message carries on; `None` when nothing stated one.
    pub mt_priority: Option<MtPriority>,
    /// BODY.
    pub body: BodyKind,
    /// SMTPUTF8 was given.
    pub smtputf8: bool,
    /// REQUIRETLS was given (RFC 8689): it goes nowhere unprotected (link-rules C4).
    pub require_tls: bool,
    /// BY, absolute.
    pub deliver_by: Option<DeliverBy>,
    /// When the message ceases to be worth sending, whoever holds it. Set at the first Aldis node.
    pub expires: Wall,
    /// AUTH of MAIL (RFC 4954 5): who submitted it, as a peer says that may be believed. Xtext byte for byte; `<>` where it is not known.
    /// It does not go over the air.
    pub auth: Option<String>,
}

impl Envelope {
    /// One of which nothing but this was said: seven-bit text, no parameters.
    pub const fn plain(from: ReversePath, recipients: Vec<Recipient>, expires: Wall) -> Self {
        Self {
            from,
            recipients,
            envid: None,
            ret: None,
            mt_priority: None,
            body: BodyKind::SevenBit,
            smtputf8: false,
            require_tls: false,
            deliver_by: None,
            expires,
            auth: None,
        }
    }
}

/// Where a submission came from: decides trust, trace and loop checks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// A mail client or MTA on the LAN.
    Smtp {
        /// Name of the listener.
        listener: String,
        /// The peer's address; `None` on a Unix socket.
        address: Option<IpAddr>,
        /// The authenticated user.
        user: Option<String>,
    },
    /// A peer over a bearer.
    Bearer {
        /// The neighbour that handed it over (not always its origin).
        peer: PeerName,
        /// The transfer, key of duplicate detection.
        transfer: TransferId,
        /// The Aldis nodes the message has passed, first to last (A8).
        hops: Vec<PeerName>,
    },
    /// This switch itself (DSNs).
    Switch,
    /// This switch itself: a report that the neighbour the reported message came from can build as well.
    Receipts {
        /// That neighbour.
        peer: PeerName,
        /// The transfer that brought the message.
        transfer: TransferId,
        /// All that the report says beyond what the neighbour knows.
        receipts: Vec<Receipt>,
    },
}

impl Source {
    /// Whether the message was made here.
    pub const fn is_own(&self) -> bool {
        match self {
            Self::Switch | Self::Receipts { .. } => true,
            Self::Smtp { .. } | Self::Bearer { .. } => false,
        }
    }
}

/// A whole message offered to [`crate::queue`]: the only thing `accept` takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submission {
    /// The envelope, recipients already limited to those accepted.
    pub envelope: Envelope,
    /// Level of service at this switch.
    pub precedence: Precedence,
    /// Who offered it.
    pub source: Source,
    /// The bytes as they will be stored: trace field on top, CRLF line ends, no dot stuffing.
    pub body: std::sync::Arc<[u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_tracking_runs_down_on_the_way() {
        let tracking = |seconds| Tracking { certifier: "VheLhqV/rCKJmplkGFwsyW59pYk".into(), seconds };
        let at = |seconds, age| tracking(seconds).parameter(Duration::from_secs(age));
        assert_eq!(at(Some(100), 30).as_deref(), Some("VheLhqV/rCKJmplkGFwsyW59pYk:70"));
        assert_eq!((at(Some(100), 100), at(Some(100), 1000)), (None, None));
        assert_eq!(at(None, 1000).as_deref(), Some("VheLhqV/rCKJmplkGFwsyW59pYk"));
    }
}
