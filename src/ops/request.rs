//! Requests and responses of the control socket: newline-delimited JSON, one request, one response, any number per connection.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::document;
use crate::emcon::{State, Window};
use crate::mail::{BearerId, MessageId, Precedence};
use crate::time::Wall;

/// What an operator asks of a node. Who asks is not in it: the node takes the socket peer's uid.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the node is.
    Status,
    /// What is queued, highest precedence first.
    QueueList {
        /// Only this level.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        precedence: Option<Precedence>,
        /// Only messages that are held.
        #[serde(default)]
        held: bool,
        /// How many at most.
        #[serde(default = "default_limit")]
        limit: usize,
    },
    /// One message in full.
    QueueShow {
        /// Which.
        #[serde(with = "as_text")]
        id: MessageId,
    },
    /// Keeps a message until it is released.
    QueueHold {
        /// Which.
        #[serde(with = "as_text")]
        id: MessageId,
        /// Why.
        reason: String,
    },
    /// Lets a held message go.
    QueueRelease {
        /// Which.
        #[serde(with = "as_text")]
        id: MessageId,
    },
    /// Raises a message's level of service and tries it at once.
    QueueExpedite {
        /// Which.
        #[serde(with = "as_text")]
        id: MessageId,
        /// To which level; `None` keeps the level and only tries at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        precedence: Option<Precedence>,
    },
    /// Ends a message.
    QueueCancel {
        /// Which.
        #[serde(with = "as_text")]
        id: MessageId,
        /// Why; also the text of the report to its sender.
        reason: String,
    },
    /// Sends a part that was held back of a message, as a message of its own.
    QueueFetch {
        /// Of which.
        #[serde(with = "as_text")]
        id: MessageId,
        /// Which part, as the note in its place numbers it.
        part: u32,
    },
    /// A piece of a message as it was accepted, for as long as it is kept.
    QueueRead {
        /// Which.
        #[serde(with = "as_text")]
        id: MessageId,
        /// From which byte on.
        from: u64,
    },
    /// A message's history, also after delivery.
    Track {
        /// Queue id, Message-ID field or ENVID.
        key: String,
    },
    /// What is to be expected of a message that goes over the air and is not done.
    Predict {
        /// Which.
        #[serde(with = "as_text")]
        id: MessageId,
    },
    /// Orders of silence in force.
    EmconShow {
        /// Which bearers.
        #[serde(default)]
        bearer: BearerChoice,
    },
    /// Orders silence, or lifts it.
    EmconSet {
        /// Which bearers.
        bearer: BearerChoice,
        /// What is ordered.
        state: EmconWord,
        /// Why.
        reason: String,
        /// From when; before that the present order stands. `None` is now.
        #[serde(default, with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        from: Option<Wall>,
        /// Until when; then only what both this order and the one before allow. `None` is until the next order.
        #[serde(default, with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        until: Option<Wall>,
    },
    /// What would go if a state were ordered now; changes nothing.
    EmconWhatIf {
        /// Which bearers.
        #[serde(default)]
        bearer: BearerChoice,
        /// What is supposed.
        state: EmconWord,
        /// As with an order.
        #[serde(default, with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        from: Option<Wall>,
        /// As with an order.
        #[serde(default, with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        until: Option<Wall>,
    },
    /// MINIMIZE orders.
    MinimizeShow,
    /// Imposes MINIMIZE: mail below `minimum` is refused for these bearers (link-rules B6).
    MinimizeSet {
        /// Which bearers.
        bearer: BearerChoice,
        /// The lowest level still taken.
        minimum: Precedence,
        /// Why.
        reason: String,
        /// From when; `None` is now.
        #[serde(default, with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        from: Option<Wall>,
        /// Until when; `None` is until it is cleared.
        #[serde(default, with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        until: Option<Wall>,
    },
    /// Ends MINIMIZE.
    MinimizeClear {
        /// Which bearers.
        #[serde(default)]
        bearer: BearerChoice,
    },
    /// Which peers are taken for silent.
    PeerShow,
    /// Says that a peer keeps silence: what goes to it goes blind.
    PeerSilent {
        /// Which.
        peer: String,
        /// Why.
        reason: String,
        /// From when; `None` is now.
        #[serde(default, with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        from: Option<Wall>,
        /// Until when; `None` is until it is said to be heard.
        #[serde(default, with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        until: Option<Wall>,
    },
    /// Says that a peer may be spoken to again.
    PeerHeard {
        /// Which.
        peer: String,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// Every event from now on, one JSON line each, until the connection ends; there is no response besides.
    Watch,
}

const fn default_limit() -> usize {
    1000
}

/// One bearer or all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum BearerChoice {
    /// Every bearer of the node.
    #[default]
    All,
    /// This one.
    One(BearerId),
}

impl BearerChoice {
    /// Reads a bearer's name, or `all`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" => None,
            "all" => Some(Self::All),
            name => Some(Self::One(name.into())),
        }
    }
}

impl fmt::Display for BearerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::One(id) => id.fmt(f),
        }
    }
}

/// The word of an order; what is not a window stands for itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EmconWord {
    /// Radiate only between the order's `from` and `until`.
    Window,
    /// One of the other states.
    State(State),
}

impl EmconWord {
    /// Reads `open`, `silent`, `restricted:LEVEL`, `window`, `ack-only`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "window" { Some(Self::Window) } else { State::parse(text).map(Self::State) }
    }

    /// The state to put in force; the words of a refusal when the times do not make sense.
    pub fn state(&self, from: Option<Wall>, until: Option<Wall>) -> Result<State, String> {
        if let (Some(from), Some(until)) = (from, until)
            && from >= until
        {
            return Err(format!("the order would end ({until}) before it begins ({from})"));
        }
        match (self, from, until) {
            (Self::Window, Some(from), Some(until)) => Ok(State::Window(vec![Window { from, until }])),
            (Self::Window, _, _) => Err("a window needs --from and --until".into()),
            (Self::State(state), _, _) => Ok(state.clone()),
        }
    }
}

impl fmt::Display for EmconWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window => f.write_str("window"),
            Self::State(state) => state.fmt(f),
        }
    }
}

/// A node's answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Response {
    /// Whether what was asked has been done.
    pub ok: bool,
    /// Exit status of a command line that asked: 0, or 1 when refused.
    pub exit: u8,
    /// The document, with its `schema`.
    pub document: serde_json::Value,
}

impl Response {
    /// What was asked has been done; `document` tells the result.
    pub fn done(document: impl Serialize) -> Self {
        match serde_json::to_value(&document) {
            Ok(document) => Self { ok: true, exit: 0, document },
            Err(e) => Self::refused(format!("the answer cannot be written: {e}")),
        }
    }

    /// It was not done, and why.
    pub fn refused(problem: impl Into<String>) -> Self {
        Self::failed(1, problem)
    }

    /// The request makes no sense, and why.
    pub fn usage(problem: impl Into<String>) -> Self {
        Self::failed(2, problem)
    }

    fn failed(exit: u8, problem: impl Into<String>) -> Self {
        let refusal = document::Refusal { schema: document::Refusal::SCHEMA.into(), problem: problem.into() };
        let document = serde_json::to_value(&refusal).unwrap_or(serde_json::Value::Null);
        Self { ok: false, exit, document }
    }

    /// The line on the socket, its end included.
    pub fn line(&self) -> String {
        let mut line =
            serde_json::to_string(self).unwrap_or_else(|_| "{\"ok\":false,\"exit\":1,\"document\":null}".into());
        line.push('\n');
        line
    }
}

/// Values that are words on the wire.
pub(super) trait Word: Sized {
    fn read(text: &str) -> Option<Self>;
    fn word(&self) -> String;
}

macro_rules! word {
    ($type:ty, $read:expr) => {
        impl Word for $type {
            fn read(text: &str) -> Option<Self> {
                $read(text)
            }
            fn word(&self) -> String {
                self.to_string()
            }
        }
    };
}

word!(MessageId, MessageId::parse);
word!(Wall, Wall::parse_rfc3339);
word!(BearerChoice, BearerChoice::parse);
word!(EmconWord, EmconWord::parse);

fn read_word<T: Word, E: serde::de::Error>(text: &str) -> Result<T, E> {
    T::read(text).ok_or_else(|| E::custom(format!("{text:?} makes no sense here")))
}

macro_rules! serde_by_word {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.word())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                read_word(&String::deserialize(d)?)
            }
        }
    };
}

serde_by_word!(BearerChoice);
serde_by_word!(EmconWord);

/// Ids and times as people write them.
pub(super) mod as_text {
    use super::*;

    pub fn serialize<T: Word, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&value.word())
    }

    pub fn deserialize<'de, T: Word, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        read_word(&String::deserialize(d)?)
    }
}

/// The same where there may be none.
pub(super) mod as_optional_text {
    use super::*;

    pub fn serialize<T: Word, S: Serializer>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => s.serialize_str(&value.word()),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, T: Word, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
        Option::<String>::deserialize(d)?.map(|text| read_word(&text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_and_write_as_documented() {
        let at = Wall::parse_rfc3339("2026-11-23T10:15:00Z");
        let cases = [
            (Request::Status, r#"{"command":"status"}"#),
            (Request::QueueShow { id: MessageId(26) }, r#"{"command":"queue-show","id":"0000001A"}"#),
            (
                Request::EmconSet {
                    bearer: BearerChoice::All,
                    state: EmconWord::State(State::Restricted(Precedence::Flash)),
                    reason: "drill".into(),
                    from: None,
                    until: at,
                },
                r#"{"command":"emcon-set","bearer":"all","state":"restricted:flash","reason":"drill","until":"2026-11-23T10:15:00.000Z"}"#,
            ),
        ];
        for (request, text) in cases {
            assert_eq!(serde_json::to_string(&request).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<Request>(text).expect("a request"), request);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_when_read() {
        for bad in [
            r#"{"command":"queue-show","id":"xyz"}"#,
            r#"{"command":"emcon-set","bearer":"all","state":"loud","reason":""}"#,
            r#"{"command":"emcon-set","bearer":"all","state":"silent","reason":"","until":"soon"}"#,
            r#"{"command":"queue-release","id":"1A","more":1}"#,
            r#"{"command":"reboot"}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_needs_both_ends_in_order() {
        let (early, late) = (Wall::from_seconds(1), Wall::from_seconds(2));
        let window = EmconWord::Window;
        assert!(window.state(None, Some(late)).is_err());
        assert!(window.state(Some(late), Some(early)).is_err());
        let state = window.state(Some(early), Some(late)).expect("a window");
        assert_eq!(state, State::Window(vec![Window { from: early, until: late }]));
        assert_eq!(EmconWord::parse("silent").expect("a word").state(None, None), Ok(State::Silent));
    }
}
