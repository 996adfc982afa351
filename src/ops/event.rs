//! Everything notable that happens at a node: one list, from which the log line, the counter and docs/events.md come.
//!
//! Levels: what happens per message is INFO, per transmission DEBUG, what an operator must act on WARN, what wakes somebody
//! ERROR. Addresses and Message-IDs are in an event for `track` and `watch`, and in a log line only at DEBUG.

use std::collections::BTreeMap;

use tracing::Level;

use serde_json::{Value, json};

use crate::mail::{BearerId, MessageId, PeerName, Precedence};
use crate::time::Wall;

/// One kind of event, as the catalogue lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventKind {
    /// Its name, as logs and counters show it.
    pub name: &'static str,
    /// What happened.
    pub about: &'static str,
    /// Its level.
    pub level: Level,
    /// Its fields' names.
    pub fields: &'static [&'static str],
}

macro_rules! events {
    ($( $(#[doc = $about:literal])+ $level:ident $variant:ident $name:literal { $( $(#[doc = $field_about:literal])+ $field:ident: $type:ty ),* $(,)? } )*) => {
        /// Something that happened.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Event {
            $( $(#[doc = $about])+ $variant { $( $(#[doc = $field_about])+ $field: $type ),* }, )*
        }

        impl Event {
            /// Every kind there is.
            pub const CATALOGUE: &'static [EventKind] = &[
                $( EventKind {
                    name: $name,
                    about: concat!($($about),+),
                    level: Level::$level,
                    fields: &[$(stringify!($field)),*],
                } ),*
            ];

            /// Its name, as logs and counters show it.
            pub const fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $name ),* }
            }

            /// Its level.
            pub const fn level(&self) -> Level {
                match self { $( Self::$variant { .. } => Level::$level ),* }
            }

            /// Its fields by name, in the order of the catalogue.
            fn values(&self) -> Vec<(&'static str, Value)> {
                match self { $( Self::$variant { $($field),* } => vec![$( (stringify!($field), $field.show()) ),*] ),* }
            }
        }
    };
}

events! {
    /// A message was committed and acknowledged.
    INFO MessageAccepted "message-accepted" {
        /// Its id here.
        message: MessageId,
        /// Its Message-ID field.
        message_id: Option<String>,
        /// Level of service.
        precedence: Precedence,
        /// How many recipients.
        recipients: u64,
        /// Bytes.
        size_bytes: u64,
    }
    /// A message or recipient is kept for an operator.
    WARN MessageHeld "message-held" {
        /// Which.
        message: MessageId,
        /// Why.
        why: String,
    }
    /// A recipient's copy was taken by its next hop or mailbox.
    INFO MessageDelivered "message-delivered" {
        /// Which.
        message: MessageId,
        /// Whose copy.
        recipient: String,
        /// Who took it.
        by: String,
        /// The bearer that carried it.
        bearer: Option<BearerId>,
        /// Bytes on the air.
        bytes_on_air: u64,
        /// Own emission, seconds.
        air_s: f64,
    }
    /// A recipient's copy failed for the time being.
    INFO MessageDeferred "message-deferred" {
        /// Which.
        message: MessageId,
        /// Whose copy.
        recipient: String,
        /// In the other side's words.
        diagnostic: String,
    }
    /// A host of a next hop could not be reached, does not talk to us, or not as the profile wants it to; another may have taken the mail.
    INFO NextHopFailed "next-hop-failed" {
        /// The next hop as its route names it.
        next_hop: String,
        /// Which of its hosts.
        host: String,
        /// Why.
        why: String,
    }
    /// The DNS says more of a domain than the bounds of `[mx]` let the node look at; the rest was left out.
    INFO MxBounded "mx-bounded" {
        /// The domain.
        domain: String,
        /// `answers`, `hosts` or `addresses`.
        what: String,
        /// How many there are.
        count: u64,
    }
    /// A host does not keep the MTA-STS policy of its domain, which only tests it: the mail goes all the same.
    INFO MtaStsTesting "mta-sts-testing" {
        /// The domain.
        domain: String,
        /// The host.
        host: String,
        /// What is amiss.
        why: String,
    }
    /// A domain announces an MTA-STS policy that could not be had. What is remembered of it holds, and else nothing.
    INFO MtaStsFailed "mta-sts-failed" {
        /// The domain.
        domain: String,
        /// Why.
        why: String,
    }
    /// A recipient's copy was refused for good.
    INFO MessageFailed "message-failed" {
        /// Which.
        message: MessageId,
        /// Whose copy.
        recipient: String,
        /// Enhanced status code.
        status: String,
        /// In the other side's words.
        diagnostic: String,
    }
    /// A recipient's time ran out.
    WARN MessageExpired "message-expired" {
        /// Which.
        message: MessageId,
        /// Whose copy.
        recipient: String,
    }
    /// A recipient was sent to blind and nobody could confirm in time.
    WARN MessageUnconfirmed "message-unconfirmed" {
        /// Which.
        message: MessageId,
        /// Whose copy.
        recipient: String,
    }
    /// Aliases led round in a circle, or further than `[limits]` allows: the recipient was refused.
    WARN AliasRefused "alias-refused" {
        /// The recipient as it was given.
        address: String,
        /// `loop`, or the bound: `alias_depth`, `copies`.
        why: String,
    }
    /// A rule of the profile was about addresses of a message's header.
    INFO HeaderRewritten "header-rewritten" {
        /// Which.
        message: MessageId,
        /// Addresses that were changed.
        changed: u64,
        /// Addresses that were left as they are, because the message is signed.
        left: u64,
        /// Whether a signature was broken by it, as the rule allows.
        breaks: bool,
    }
    /// Mail was checked as it came in.
    INFO MailChecked "mail-checked" {
        /// On which listener.
        listener: String,
        /// What was found, by method.
        results: String,
        /// How long it took, milliseconds.
        took_ms: u64,
    }
    /// A check could not be done in time or for want of the DNS; the mail went on all the same.
    WARN ChecksIncomplete "checks-incomplete" {
        /// On which listener.
        listener: String,
        /// What was found, by method.
        results: String,
    }
    /// Mail was checked without asking the DNS, no server of which had answered a moment ago.
    INFO ChecksSkipped "checks-skipped" {
        /// On which listener.
        listener: String,
    }
    /// Mail met a bound of `[checks]`, and was checked no further.
    INFO CheckBounded "check-bounded" {
        /// On which listener.
        listener: String,
        /// Which key of the table.
        bound: String,
    }
    /// Mail was refused because the domain in From wants that.
    INFO DmarcRefused "dmarc-refused" {
        /// On which listener.
        listener: String,
        /// Whose policy; empty where the sender left it unclear who could be asked.
        domain: String,
    }
    /// Fields that claimed to be this node's own results were taken out of mail that came in.
    INFO ResultsRemoved "results-removed" {
        /// The listener, or the peer.
        from: String,
        /// How many.
        fields: u64,
    }
    /// A message was signed.
    INFO MessageSigned "message-signed" {
        /// Which.
        message: MessageId,
        /// For which domain.
        domain: String,
        /// With how many keys.
        signatures: u32,
    }
    /// A message was to be signed and could not be; it went on without.
    INFO MessageUnsigned "message-unsigned" {
        /// Which.
        message: MessageId,
        /// Why.
        why: String,
    }
    /// An ARC chain was sealed and goes on.
    INFO ChainSealed "chain-sealed" {
        /// Of which message.
        message: MessageId,
    }
    /// A key did not sign; the mail stayed with its sender.
    ERROR SigningFailed "signing-failed" {
        /// On which listener.
        listener: String,
        /// Which key, and why.
        why: String,
    }
    /// A transfer went round and came back to this node.
    WARN LoopDetected "loop-detected" {
        /// Who handed it over.
        peer: PeerName,
        /// Which transfer.
        transfer: String,
    }
    /// The bytes for the air were fixed and stored.
    INFO TransferFrozen "transfer-frozen" {
        /// Which message.
        message: MessageId,
        /// On which bearer.
        bearer: BearerId,
        /// Its transfer.
        transfer: String,
        /// Bytes frozen.
        payload_bytes: u64,
    }
    /// What goes on the air of a message lacks what a rule of the profile takes; the original is kept.
    INFO MessageReduced "message-reduced" {
        /// Which.
        message: MessageId,
        /// For which bearer.
        bearer: BearerId,
        /// Bytes of the original.
        from_bytes: u64,
        /// Bytes of the copy.
        to_bytes: u64,
        /// What it lacks.
        without: String,
    }
    /// A part that had been held back was sent as a message of its own.
    INFO PartFetched "part-fetched" {
        /// The new message.
        message: MessageId,
        /// Of which message.
        of: MessageId,
        /// Which part.
        part: u32,
        /// Who wanted it.
        author: String,
    }
    /// Another bearer goes on with a transfer.
    INFO TransferMoved "transfer-moved" {
        /// Which message.
        message: MessageId,
        /// The bearer that is left.
        from: BearerId,
        /// The bearer that goes on.
        to: BearerId,
        /// Why.
        why: String,
    }
    /// The far side told what it holds.
    DEBUG TransferProgress "transfer-progress" {
        /// Which message.
        message: MessageId,
        /// On which bearer.
        bearer: BearerId,
        /// Symbols it holds.
        have: u32,
        /// Symbols it needs.
        need: u32,
        /// Bytes on the air so far.
        bytes_on_air: u64,
        /// Own emission so far, seconds.
        air_s: f64,
    }
    /// The far side has accepted a transfer.
    INFO TransferConfirmed "transfer-confirmed" {
        /// Which message.
        message: MessageId,
        /// On which bearer.
        bearer: BearerId,
        /// Bytes on the air.
        bytes_on_air: u64,
        /// Own emission, seconds.
        air_s: f64,
    }
    /// A window towards a silent peer is over: what was meant to leave has left, and nobody has confirmed it.
    INFO TransferSentBlind "transfer-sent-blind" {
        /// Which message.
        message: MessageId,
        /// On which bearer.
        bearer: BearerId,
        /// To whom.
        peer: PeerName,
        /// Which window, from 1.
        window: u32,
        /// Of how many.
        of: u32,
        /// Its symbols were all spent: some were sent again.
        repeated: bool,
        /// Bytes on the air so far.
        bytes_on_air: u64,
        /// Own emission so far, seconds.
        air_s: f64,
    }
    /// A peer came to be taken for silent, or no longer is.
    WARN PeerSilence "peer-silence" {
        /// Which.
        peer: PeerName,
        /// Whether it is taken for silent now.
        silent: bool,
        /// Why.
        reason: String,
        /// Who says so.
        author: String,
    }
    /// The key went down.
    DEBUG KeyDown "key-down" {
        /// On which bearer.
        bearer: BearerId,
        /// Highest level in this transmission.
        precedence: Precedence,
        /// Messages in it.
        messages: Vec<MessageId>,
    }
    /// The key went up.
    DEBUG KeyUp "key-up" {
        /// On which bearer.
        bearer: BearerId,
        /// How long it was down, seconds.
        air_s: f64,
        /// Bytes fed.
        bytes: u64,
        /// Those of them that were symbols beyond what was owed: room that whole blocks, or the best length, left.
        fill_bytes: u64,
    }
    /// An order of silence, or its end, is in force and stored.
    WARN SilenceOrdered "silence-ordered" {
        /// On which bearer.
        bearer: BearerId,
        /// The state.
        state: String,
        /// Why.
        reason: String,
        /// Who.
        author: String,
    }
    /// Something would have radiated and did not.
    DEBUG EmissionSuppressed "emission-suppressed" {
        /// On which bearer.
        bearer: BearerId,
        /// What for.
        purpose: String,
        /// Why not.
        why: String,
    }
    /// A bearer needs an operator: stuck carrier, stuck key, wrong key, dead port.
    ERROR BearerAlarm "bearer-alarm" {
        /// Which.
        bearer: BearerId,
        /// What is wrong.
        text: String,
    }
    /// Bytes from the air were no frame, or not one for us.
    TRACE FrameRejected "frame-rejected" {
        /// On which bearer.
        bearer: BearerId,
        /// Why.
        why: String,
    }
    /// An operator let a held message go.
    INFO MessageReleased "message-released" {
        /// Which.
        message: MessageId,
        /// Who.
        author: String,
    }
    /// An operator gave a message another level of service, or another try at once.
    INFO MessageExpedited "message-expedited" {
        /// Which.
        message: MessageId,
        /// At this level.
        precedence: Precedence,
        /// Who.
        author: String,
    }
    /// An operator ended a message.
    INFO MessageCancelled "message-cancelled" {
        /// Which.
        message: MessageId,
        /// Who.
        author: String,
    }
    /// A report to the sender, or to the postmaster where there is none, was queued in the same commit as its cause.
    INFO ReportQueued "report-queued" {
        /// The report.
        message: MessageId,
        /// What it is about.
        about: MessageId,
    }
    /// A peer could not read a payload that relied on more than every node reads; the message is coded anew and goes again.
    INFO TransferCodedAnew "transfer-coded-anew" {
        /// Which.
        message: MessageId,
        /// Who could not.
        peer: PeerName,
        /// As which transfer it went.
        transfer: String,
        /// What it relied on, and what it relies on now.
        why: String,
    }
    /// A payload named earlier messages, or a dictionary, that this node does not have; its sender was told and codes it anew.
    INFO ContextUnknown "context-unknown" {
        /// Who sent it.
        peer: PeerName,
        /// Which transfer.
        transfer: String,
    }
    /// A payload did not carry its seal: wrong key, or forged.
    WARN TransferForged "transfer-forged" {
        /// From whom.
        peer: PeerName,
        /// On which bearer.
        bearer: BearerId,
    }
    /// A payload arrived whole and cannot be opened; nobody can be told but the operator.
    WARN PayloadUndecodable "payload-undecodable" {
        /// Who sent it.
        peer: PeerName,
        /// On which bearer.
        bearer: BearerId,
        /// Its node and number on the net.
        message: String,
        /// What is wrong with it.
        why: String,
        /// It was sent to the postmaster as an attachment; beyond a number in an hour it is not.
        kept: bool,
    }
    /// A dynamic group was announced to this node, and an order of silence forbids joining it: what goes there is not heard.
    WARN GroupNotJoined "group-not-joined" {
        /// On which bearer.
        bearer: BearerId,
        /// The group.
        group: String,
        /// What forbids it.
        why: String,
    }
    /// MINIMIZE was imposed or cleared.
    WARN MinimizeOrdered "minimize-ordered" {
        /// On which bearer.
        bearer: BearerId,
        /// What is still taken.
        order: String,
        /// Who.
        author: String,
    }
    /// The clock came to be trusted, or ceased to be.
    WARN ClockChanged "clock-changed" {
        /// Whether it is trusted now.
        set: bool,
    }
    /// The store had lost sight of what it has used: an old copy of it was put back. The node goes on under another epoch.
    WARN StoreRenewed "store-renewed" {
        /// What showed it, and what may be lost.
        text: String,
        /// Transfers frozen anew under new ids.
        refrozen: u64,
    }
    /// The store could not make something durable; nothing was promised.
    ERROR StoreFailed "store-failed" {
        /// Why.
        why: String,
    }
}

/// Fields that say who writes to whom, and what.
const PRIVATE: &[&str] = &["recipient", "message_id", "diagnostic", "without"];

impl Event {
    /// Its fields as an operator reads them, in the order of the catalogue; what is absent is left out.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        self.values().into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, text(v))).collect()
    }

    /// One line of `watch`: schema, time, name and every field.
    pub fn json(&self, at: Wall) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("schema".into(), Self::SCHEMA.into());
        object.insert("at".into(), at.rfc3339().into());
        object.insert("event".into(), self.name().into());
        object.extend(self.values().into_iter().map(|(k, v)| (k.to_string(), v)));
        Value::Object(object)
    }

    /// Value of the `schema` field of [`Event::json`].
    pub const SCHEMA: &'static str = "aldis.event/1";

    /// Writes the log line.
    pub fn log(&self) {
        let private = tracing::enabled!(target: "aldis", Level::DEBUG);
        let line = self.line(private);
        match self.level() {
            Level::ERROR => tracing::error!(target: "aldis", "{line}"),
            Level::WARN => tracing::warn!(target: "aldis", "{line}"),
            Level::INFO => tracing::info!(target: "aldis", "{line}"),
            Level::DEBUG => tracing::debug!(target: "aldis", "{line}"),
            Level::TRACE => tracing::trace!(target: "aldis", "{line}"),
        }
    }

    /// Name and fields; addresses only where `private` allows them. A peer's words cannot break the line.
    fn line(&self, private: bool) -> String {
        let mut line = self.name().to_string();
        for (key, value) in self.fields().into_iter().filter(|(k, _)| private || !PRIVATE.contains(k)) {
            let plain = !value.is_empty() && !value.contains(|c: char| c.is_control() || " \"=".contains(c));
            line += &if plain { format!(" {key}={value}") } else { format!(" {key}={value:?}") };
        }
        line
    }
}

/// How often each kind of event happened since the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Default for Counters {
    fn default() -> Self {
        Self(Event::CATALOGUE.iter().map(|k| (k.name, 0)).collect())
    }
}

impl Counters {
    /// Counts one event.
    pub fn count(&mut self, event: &Event) {
        *self.0.entry(event.name()).or_default() += 1;
    }

    /// All counters, those at zero included, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}

/// A field as JSON.
trait Show {
    fn show(&self) -> Value;
}

macro_rules! show {
    ($($type:ty => $show:expr),* $(,)?) => { $(impl Show for $type { fn show(&self) -> Value { $show(self) } })* };
}

show! {
    String => |v: &String| json!(v),
    Option<String> => |v: &Option<String>| json!(v),
    bool => |v: &bool| json!(v),
    u32 => |v: &u32| json!(v),
    u64 => |v: &u64| json!(v),
    f64 => |v: &f64| json!((v * 1000.0).round() / 1000.0),
    MessageId => |v: &MessageId| json!(v.to_string()),
    Vec<MessageId> => |v: &Vec<MessageId>| json!(v.iter().map(MessageId::to_string).collect::<Vec<_>>()),
    Precedence => |v: &Precedence| json!(v.name()),
    BearerId => |v: &BearerId| json!(&*v.0),
    Option<BearerId> => |v: &Option<BearerId>| json!(v.as_ref().map(|b| &*b.0)),
    PeerName => |v: &PeerName| json!(&*v.0),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deferred(diagnostic: &str) -> Event {
        Event::MessageDeferred { message: MessageId(26), recipient: "a@b".into(), diagnostic: diagnostic.into() }
    }

    #[test]
    fn name_level_fields_and_counter_come_from_one_list() {
        let event = Event::TransferConfirmed {
            message: MessageId(26),
            bearer: "hf1".into(),
            bytes_on_air: 524,
            air_s: 2.400_000_1,
        };
        let kind = Event::CATALOGUE.iter().find(|k| k.name == event.name()).expect("listed");
        assert_eq!(kind.level, event.level());
        let names: Vec<_> = event.fields().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, kind.fields);
        assert_eq!(event.line(false), "transfer-confirmed message=0000001A bearer=hf1 bytes_on_air=524 air_s=2.4");
        let mut counters = Counters::default();
        counters.count(&event);
        assert_eq!(counters.iter().find(|(n, _)| *n == "transfer-confirmed"), Some(("transfer-confirmed", 1)));
        assert_eq!(counters.iter().count(), Event::CATALOGUE.len());
    }

    #[test]
    fn addresses_are_in_the_json_but_in_no_line_above_debug() {
        let event = deferred("a@b is away");
        assert_eq!(event.line(false), "message-deferred message=0000001A");
        assert!(event.line(true).contains("recipient=a@b"), "{}", event.line(true));
        let json = event.json(Wall::from_seconds(0));
        assert_eq!((&json["schema"], &json["recipient"]), (&json!("aldis.event/1"), &json!("a@b")));
        assert_eq!(json["at"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_peers_words_cannot_forge_a_log_line() {
        let line = deferred("no\r\n2026 ERROR bearer-alarm \u{1b}[31m").line(true);
        assert!(!line.contains(char::is_control), "{line:?}");
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = Event::CATALOGUE.iter().map(|k| k.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Event::CATALOGUE.len());
    }
}
