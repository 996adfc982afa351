//! What goes into the switch and what comes out of it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::bearer::{self, ModemAction, ModemEvent};
use crate::codec::envelope::AirEnvelope;
use crate::codec::history::Name;
use crate::codec::mule::{self, MuleError, Tagging};
use crate::codec::receipts::Digest;
use crate::codec::reduce::{Reducer, Rule};
use crate::codec::repertoire::Repertoire;
use crate::codec::site::SiteDictionary;
use crate::emcon::Emission;
use crate::mail::{BearerId, Envelope, Hop, LinkKey, Precedence, Protection, Reliance, TransferId};
use crate::ops;
use crate::queue::maildir::DeliverError;
use crate::queue::{StoreCall, StoreResult};
use crate::security::sts::Stored;
use crate::security::vet::{Vet, Vetted};
use crate::smtp;
use crate::time::Wall;

/// Names one piece of work until its result comes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// Names one SMTP session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SessionId(pub u64);

/// Names one control request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RequestId(pub u64);

/// Everything that can happen to a switch.
#[derive(Debug)]
pub enum Input {
    /// An SMTP session wants a decision.
    Ask {
        /// Which session.
        session: SessionId,
        /// Which of its questions.
        ask: smtp::server::AskId,
        /// On which listener.
        listener: Arc<str>,
        /// What it wants to know.
        question: smtp::server::Question,
    },
    /// A modem spoke.
    Modem {
        /// Which bearer's.
        bearer: BearerId,
        /// What.
        event: ModemEvent,
    },
    /// A datagram came in on a bearer of an IP network.
    Datagram {
        /// Which bearer's.
        bearer: BearerId,
        /// From which address.
        from: Ipv4Addr,
        /// What it holds.
        bytes: Vec<u8>,
        /// Datagrams that were dropped since the one before, because this switch did not keep up.
        missed: u64,
    },
    /// The sockets of such a bearer work, or do not.
    Port {
        /// Which bearer's.
        bearer: BearerId,
        /// What is wrong; `None`: nothing.
        fault: Option<String>,
    },
    /// Work came back, in any order, perhaps after nobody wants it any more.
    Done {
        /// Which.
        ticket: Ticket,
        /// How it went.
        result: WorkResult,
    },
    /// An operator asks or orders something.
    Request {
        /// For the answer.
        id: RequestId,
        /// What.
        request: ops::Request,
        /// Who, as the socket tells.
        uid: u32,
    },
    /// The node is to stop: nothing new is started.
    Stop,
}

/// Everything a switch wants done.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Tell an SMTP session.
    Answer {
        /// Which session.
        session: SessionId,
        /// Which of its questions.
        ask: smtp::server::AskId,
        /// What to do.
        answer: smtp::server::Answer,
    },
    /// Do something that may take long.
    Work {
        /// For the result.
        ticket: Ticket,
        /// What.
        work: Work,
    },
    /// Key or feed a modem.
    Emit(Emission),
    /// Unkey or abort a modem.
    Act {
        /// Which bearer's.
        bearer: BearerId,
        /// What.
        action: ModemAction,
    },
    /// Answer an operator.
    Reply {
        /// To which request.
        id: RequestId,
        /// What.
        response: ops::Response,
    },
    /// Something notable happened.
    Event(ops::Event),
}

/// Work that leaves the switch's thread.
#[derive(Debug)]
pub enum Work {
    /// For the store's writer.
    Store(StoreCall),
    /// Make the sealed payload of one transfer.
    Encode(Box<Encode>),
    /// Open and decode a payload received whole.
    Decode(Box<Decode>),
    /// Make a MULE payload.
    MuleEncode(Box<MuleEncode>),
    /// Open a MULE payload.
    MuleDecode(Box<MuleDecode>),
    /// Spread or gather symbols.
    Job(bearer::Job),
    /// Put a message into a Maildir.
    Maildir(Box<Local>),
    /// Hand a message to an SMTP or LMTP next hop.
    Forward(Box<Forward>),
    /// Make a message of a part of one.
    Fetch(Box<Fetch>),
    /// Check a message that comes in, and sign it.
    Vet(Box<Vet>),
}

/// Result of a [`Work`].
#[derive(Debug)]
pub enum WorkResult {
    /// Of `Store`.
    Store(StoreResult),
    /// Of `Encode`.
    Encoded(Result<Box<Coded>, String>),
    /// Of `Decode`.
    Decoded(Result<Box<Opened>, OpenError>),
    /// Of `MuleEncode`.
    Mule(Result<Vec<u8>, String>),
    /// Of `MuleDecode`.
    MuleOpened(Result<Box<mule::Opened>, MuleError>),
    /// Of `Decode`, where the payload tells of messages rather than being one.
    Receipts(Digest),
    /// Of `Job`.
    Job(bearer::JobDone),
    /// Of `Maildir`, in the order of its mailboxes.
    Maildir(Vec<Result<(), DeliverError>>),
    /// Of `Forward`.
    Forwarded(Box<Forwarded>),
    /// Of `Fetch`; why there is none, in words.
    Fetched(Result<Vec<u8>, String>),
    /// Of `Vet`.
    Vetted(Box<Vetted>),
    /// The executor could not take it (its queue is full, or it stops).
    Dropped,
}

/// What to encode.
#[derive(Debug)]
pub struct Encode {
    /// The envelope as it crosses the air.
    pub envelope: AirEnvelope,
    /// The message.
    pub body: Arc<[u8]>,
    /// The transfer it becomes.
    pub id: TransferId,
    /// How it is sealed.
    pub protection: Protection,
    /// With which key; unused when protection is off.
    pub key: LinkKey,
    /// What those who take it can read.
    pub repertoire: Repertoire,
    /// Earlier messages it may name, oldest first.
    pub known: Vec<(Name, Arc<[u8]>)>,
    /// Whether its text is wanted.
    pub keeps_text: bool,
    /// What is to be left out of it.
    pub reduction: Option<Reduction>,
    /// The site's dictionary, where those who take it have it too.
    pub site: Option<Arc<SiteDictionary>>,
}

/// What is to be left out of a message.
#[derive(Clone, Debug)]
pub struct Reduction {
    /// The rule of the profile.
    pub rule: Arc<Rule>,
    /// Who does it.
    pub by: Reducer,
}

/// What was left out of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Omission {
    /// Bytes of the original.
    pub from_bytes: u64,
    /// Bytes of the copy.
    pub to_bytes: u64,
    /// What the copy lacks, in words.
    pub without: String,
}

/// A payload that was made.
#[derive(Debug)]
pub struct Coded {
    /// Sealed.
    pub payload: Vec<u8>,
    /// What reading it relies on.
    pub reliance: Reliance,
    /// What is kept of the message when the far side has it; empty where that was not wanted.
    pub text: Arc<[u8]>,
    /// What it lacks; `None`: it is whole.
    pub omission: Option<Omission>,
}

/// What to decode.
#[derive(Debug)]
pub struct Decode {
    /// The sealed payload.
    pub payload: Arc<[u8]>,
    /// Its transfer.
    pub id: TransferId,
    /// How it should be sealed.
    pub protection: Protection,
    /// With one of which keys.
    pub keys: Vec<LinkKey>,
    /// Largest message taken.
    pub max_bytes: u64,
    /// Earlier messages it may name.
    pub known: Vec<(Name, Arc<[u8]>)>,
    /// Whether its text is wanted.
    pub keeps_text: bool,
    /// The site's dictionary.
    pub site: Option<Arc<SiteDictionary>>,
}

/// What becomes a MULE payload.
#[derive(Debug)]
pub struct MuleEncode {
    /// The envelope.
    pub envelope: Envelope,
    /// The message.
    pub body: Arc<[u8]>,
    /// How the structure around it is tagged.
    pub tagging: Tagging,
    /// When: a deadline is carried as the seconds that are left.
    pub now: Wall,
}

/// A MULE payload to open.
#[derive(Debug)]
pub struct MuleDecode {
    /// The payload.
    pub payload: Arc<[u8]>,
    /// Largest message taken.
    pub max_bytes: u64,
}

/// A decoded payload.
#[derive(Debug)]
pub struct Opened {
    /// Its envelope.
    pub envelope: AirEnvelope,
    /// The message.
    pub body: Vec<u8>,
    /// What is kept of it; empty where that was not wanted.
    pub text: Arc<[u8]>,
}

/// Why a payload could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The seal does not fit.
    Forged,
    /// The seal fits but the contents cannot be decoded here.
    Undecodable(String),
    /// The seal fits, and the contents name earlier messages that this node does not have.
    OtherContext,
    /// The seal fits, and the contents rely on a site's dictionary that this node does not have.
    OtherDictionary,
}

/// One mailbox of a delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalMailbox {
    /// Its Maildir.
    pub name: String,
    /// The address, for Delivered-To.
    pub delivered_to: String,
    /// The line Original-Recipient, where ORCPT was given; empty elsewhere.
    pub original: String,
}

/// A delivery into local mailboxes.
#[derive(Debug)]
pub struct Local {
    /// The mailboxes it goes into.
    pub mailboxes: Vec<LocalMailbox>,
    /// Unique part of the file name; the same at every attempt.
    pub unique: String,
    /// It may hold what is no text of lines (BODY=BINARYMIME).
    pub binary: bool,
    /// The return path, without angle brackets.
    pub return_path: String,
    /// The message.
    pub body: Arc<[u8]>,
}

/// What became of a [`Forward`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forwarded {
    /// What became of each recipient.
    pub report: smtp::client::Report,
    /// The host that said so; empty: none did.
    pub by: String,
    /// Hosts that failed before.
    pub faults: Vec<Fault>,
    /// What was noticed of its domain.
    pub notes: Vec<Note>,
}

impl Forwarded {
    /// What no host is to be named for.
    pub const fn alone(report: smtp::client::Report) -> Self {
        Self { report, by: String::new(), faults: Vec::new(), notes: Vec::new() }
    }
}

/// What was noticed of a domain whose hosts the DNS names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// It has more of these than the profile lets the node look at.
    Bounded {
        /// `answers`, `hosts` or `addresses`.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A host does not keep the policy of a domain that tests it.
    Untrue {
        /// The host.
        host: String,
        /// What is amiss.
        why: String,
    },
    /// A domain's policy was fetched, and is to be kept.
    Policy {
        /// The domain, which need not be the one the mail is for.
        domain: String,
        /// Its policy.
        policy: Box<Stored>,
    },
    /// The domain announces a policy that could not be had.
    NoPolicy {
        /// Why.
        why: String,
    },
}

/// A host of a next hop did not get as far as hearing about a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// `host:port`
    pub host: String,
    /// Why.
    pub why: String,
}

/// A delivery to an SMTP or LMTP server.
#[derive(Debug)]
pub struct Forward {
    /// Which: an SMTP or LMTP server, or a next hop that the profile describes.
    pub hop: Hop,
    /// Its level of service: what is higher goes first.
    pub precedence: Precedence,
    /// The envelope, recipients limited to those this delivery serves.
    pub envelope: Envelope,
    /// The value of MTRK for a hop that knows it.
    pub tracking: Option<String>,
    /// The message.
    pub body: Arc<[u8]>,
    /// Its sender would rather have it arrive in clear than not at all (RFC 8689 5).
    pub tls_optional: bool,
}

/// A part of a message that is to become a message of its own.
#[derive(Debug)]
pub struct Fetch {
    /// The message.
    pub body: Arc<[u8]>,
    /// Which part, as a reduced copy numbers them.
    pub part: usize,
    /// Address of whoever sends it.
    pub sender: String,
    /// The new message's id, without brackets.
    pub message_id: String,
    /// When.
    pub at: Wall,
}
