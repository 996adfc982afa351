//! Everything notable that happens at a node: one list, from which the log line, the counter and docs/events.md come.
//!
//! Levels: what happens per message is INFO, per transmission DEBUG, what an operator must act on WARN, what wakes somebody
//! ERROR. No event carries an address, a subject or a word of a message.

use std::collections::BTreeMap;

use tracing::Level;

use crate::emcon::{Purpose, Silence, State};
use crate::mail::{BearerId, MessageId, PeerName, Precedence, Status, TransferId};
use crate::time::Duration;

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
            pub fn fields(&self) -> Vec<(&'static str, String)> {
                match self { $( Self::$variant { $($field),* } => vec![$( (stringify!($field), $field.show()) ),*] ),* }
            }
        }
    };
}

events! {
    /// A message was committed and acknowledged.
    INFO MessageAccepted "message-accepted" {
        /// Its id here.
        id: MessageId,
        /// Level of service.
        precedence: Precedence,
        /// Bytes.
        size_bytes: u64,
        /// Listener, peer or switch.
        source: String,
    }
    /// A message was refused before it was taken.
    INFO MessageRefused "message-refused" {
        /// Listener or peer.
        source: String,
        /// The status given.
        status: Status,
        /// Why.
        why: String,
    }
    /// A message or recipient is kept for an operator.
    WARN MessageHeld "message-held" {
        /// Which.
        id: MessageId,
        /// Why.
        why: String,
    }
    /// An operator let a held message go.
    INFO MessageReleased "message-released" {
        /// Which.
        id: MessageId,
        /// Who.
        author: String,
    }
    /// An operator raised a message.
    INFO MessageExpedited "message-expedited" {
        /// Which.
        id: MessageId,
        /// To this level.
        precedence: Precedence,
        /// Who.
        author: String,
    }
    /// An operator ended a message.
    INFO MessageCancelled "message-cancelled" {
        /// Which.
        id: MessageId,
        /// Who.
        author: String,
    }
    /// A recipient's copy was taken by its next hop or mailbox.
    INFO MessageDelivered "message-delivered" {
        /// Which.
        id: MessageId,
        /// How many recipients.
        recipients: usize,
        /// Who took it.
        by: String,
    }
    /// A recipient's copy failed for the time being.
    INFO MessageDeferred "message-deferred" {
        /// Which.
        id: MessageId,
        /// Attempts so far.
        attempts: u32,
        /// Why.
        why: String,
    }
    /// A recipient's copy was refused for good.
    INFO MessageFailed "message-failed" {
        /// Which.
        id: MessageId,
        /// The status.
        status: Status,
        /// Why.
        why: String,
    }
    /// A recipient's time ran out.
    WARN MessageExpired "message-expired" {
        /// Which.
        id: MessageId,
    }
    /// A recipient was sent to blind and nobody could confirm in time.
    WARN MessageUnconfirmed "message-unconfirmed" {
        /// Which.
        id: MessageId,
        /// To whom it was sent.
        peer: PeerName,
    }
    /// A delivery report was queued.
    INFO ReportQueued "report-queued" {
        /// The report's id.
        id: MessageId,
        /// What about.
        about: MessageId,
    }
    /// A message went round: too many Received fields, or its own transfer came back.
    WARN LoopDetected "loop-detected" {
        /// Where it came from.
        source: String,
        /// How it was seen.
        how: String,
    }
    /// The bytes for the air were fixed and stored.
    INFO TransferFrozen "transfer-frozen" {
        /// Which message.
        id: MessageId,
        /// Its transfer.
        transfer: TransferId,
        /// On which bearer.
        bearer: BearerId,
        /// Bytes of the message.
        size_bytes: u64,
        /// Bytes frozen.
        payload_bytes: u64,
    }
    /// The far side told what it holds.
    DEBUG TransferProgress "transfer-progress" {
        /// Which.
        transfer: TransferId,
        /// Symbols it holds.
        have: u32,
        /// Symbols it needs.
        need: u32,
    }
    /// The far side has accepted a transfer.
    INFO TransferConfirmed "transfer-confirmed" {
        /// Which.
        transfer: TransferId,
        /// On which bearer.
        bearer: BearerId,
        /// Bytes on the air.
        bytes_on_air: u64,
        /// Own emission.
        air: Duration,
    }
    /// The far side will never take a transfer.
    WARN TransferRefused "transfer-refused" {
        /// Which.
        transfer: TransferId,
        /// Reason number.
        reason: u8,
    }
    /// A transfer came in whole and was accepted.
    INFO TransferReceived "transfer-received" {
        /// Which.
        transfer: TransferId,
        /// On which bearer.
        bearer: BearerId,
        /// Its id here.
        id: MessageId,
    }
    /// A transfer that was accepted before came again; answered alike, not taken twice.
    INFO TransferRepeated "transfer-repeated" {
        /// Which.
        transfer: TransferId,
    }
    /// A payload's seal did not fit: forged, or another key.
    WARN TransferForged "transfer-forged" {
        /// From whom it claims to be.
        peer: PeerName,
        /// On which bearer.
        bearer: BearerId,
    }
    /// The key went down.
    DEBUG KeyDown "key-down" {
        /// On which bearer.
        bearer: BearerId,
        /// Highest level in this transmission.
        precedence: Precedence,
        /// Transfers in it.
        transfers: usize,
    }
    /// The key went up.
    DEBUG KeyUp "key-up" {
        /// On which bearer.
        bearer: BearerId,
        /// How long it was down.
        air: Duration,
        /// Bytes fed.
        bytes: u64,
    }
    /// An order of silence, or its end, is in force and stored.
    WARN SilenceOrdered "silence-ordered" {
        /// On which bearer.
        bearer: BearerId,
        /// The state.
        state: State,
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
        purpose: Purpose,
        /// Why not.
        silence: Silence,
    }
    /// MINIMIZE was imposed or lifted.
    WARN MinimizeOrdered "minimize-ordered" {
        /// On which bearer.
        bearer: BearerId,
        /// What is ordered.
        order: String,
        /// Who.
        author: String,
    }
    /// A bearer needs an operator: stuck carrier, stuck key, wrong key, dead port.
    ERROR BearerAlarm "bearer-alarm" {
        /// Which.
        bearer: BearerId,
        /// What is wrong.
        why: String,
    }
    /// A bearer works again.
    INFO BearerReady "bearer-ready" {
        /// Which.
        bearer: BearerId,
    }
    /// Bytes from the air were no frame, or not one for us.
    TRACE FrameRejected "frame-rejected" {
        /// On which bearer.
        bearer: BearerId,
        /// Why.
        why: String,
    }
    /// The store could not make something durable; nothing was promised.
    ERROR StoreFailed "store-failed" {
        /// Why.
        why: String,
    }
    /// A stored record could not be read and was set aside.
    ERROR RecordDamaged "record-damaged" {
        /// Which.
        what: String,
    }
    /// The store is new or a restored copy: a new epoch began.
    WARN EpochBegun "epoch-begun" {
        /// The epoch.
        epoch: String,
    }
    /// The clock came to be trusted, or ceased to be.
    WARN ClockChanged "clock-changed" {
        /// Whether it is trusted now.
        set: bool,
    }
    /// A mail session was cut short: bound reached, protocol abused, wrong passwords.
    INFO SessionDropped "session-dropped" {
        /// On which listener.
        listener: String,
        /// Why.
        why: String,
    }
}

impl Event {
    /// Writes the log line.
    pub fn log(&self) {
        let name = self.name();
        let fields: Vec<String> =
            self.fields()
                .into_iter()
                .map(|(k, v)| {
                    if v.is_empty() || v.contains([' ', '"', '=']) { format!("{k}={v:?}") } else { format!("{k}={v}") }
                })
                .collect();
        let line = fields.join(" ");
        match self.level() {
            Level::ERROR => tracing::error!(target: "aldis", "{name} {line}"),
            Level::WARN => tracing::warn!(target: "aldis", "{name} {line}"),
            Level::INFO => tracing::info!(target: "aldis", "{name} {line}"),
            Level::DEBUG => tracing::debug!(target: "aldis", "{name} {line}"),
            Level::TRACE => tracing::trace!(target: "aldis", "{name} {line}"),
        }
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

/// A field's text.
trait Show {
    fn show(&self) -> String;
}

macro_rules! show_by {
    ($show:expr => $($type:ty),*) => { $(impl Show for $type { fn show(&self) -> String { $show(self) } })* };
}

show_by!(ToString::to_string => String, u8, u32, u64, usize, bool, MessageId, Precedence, Status, TransferId, BearerId, PeerName, State);
show_by!(|d: &Duration| format!("{:.3}s", d.as_secs_f64()) => Duration);
show_by!(|s: &Silence| match s {
    Silence::Ordered => "ordered",
    Silence::Unknown => "no-order",
    Silence::ClockUnset => "clock-unset",
    Silence::WindowTooShort => "window-too-short",
}.to_string() => Silence);
show_by!(|p: &Purpose| match p {
    Purpose::Traffic(level) => format!("traffic:{level}"),
    Purpose::Report(level) => format!("report:{level}"),
    Purpose::Probe => "probe".into(),
} => Purpose);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_level_fields_and_counter_come_from_one_list() {
        let event = Event::TransferConfirmed {
            transfer: TransferId { origin: "ship".into(), epoch: 1, counter: 2 },
            bearer: "hf1".into(),
            bytes_on_air: 524,
            air: Duration::from_millis(2400),
        };
        let kind = Event::CATALOGUE.iter().find(|k| k.name == event.name()).expect("listed");
        assert_eq!(kind.level, event.level());
        let names: Vec<_> = event.fields().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, kind.fields);
        assert_eq!(event.fields()[3], ("air", "2.400s".into()));
        let mut counters = Counters::default();
        counters.count(&event);
        assert_eq!(counters.iter().find(|(n, _)| *n == "transfer-confirmed"), Some(("transfer-confirmed", 1)));
        assert_eq!(counters.iter().count(), Event::CATALOGUE.len());
    }

    #[test]
    fn names_are_distinct_and_no_field_could_hold_an_address() {
        let mut names: Vec<_> = Event::CATALOGUE.iter().map(|k| k.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Event::CATALOGUE.len());
        for kind in Event::CATALOGUE {
            for field in kind.fields {
                assert!(!["sender", "recipient", "subject", "address", "from", "to"].contains(field), "{}", kind.name);
            }
        }
    }
}
