//! Why a recipient has to wait.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mail::Status;

/// The words of whoever put a recipient off, and what it is about where that is security: then the report at the end of the message's
/// life names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// The last number of a status of security, X.7.n, that is ours: something was not to be done unprotected.
    security: Option<u16>,
    words: String,
}

impl Reason {
    /// These words; of a matter of security also its number.
    pub fn new(status: Status, words: String) -> Self {
        Self { security: (status.1 == 7).then_some(status.2), words }
    }

    /// The status of a report of class `class`, if it is a matter of security.
    pub fn security(&self, class: u8) -> Option<Status> {
        self.security.map(|detail| Status(class, 7, detail))
    }

    /// The same with at most so many bytes of words.
    #[must_use]
    pub fn clipped(&self, most: usize) -> Self {
        let end = (0..=self.words.len().min(most)).rev().find(|at| self.words.is_char_boundary(*at));
        Self { words: self.words[..end.unwrap_or(0)].to_owned(), ..*self }
    }
}

impl From<&str> for Reason {
    fn from(words: &str) -> Self {
        words.to_owned().into()
    }
}

impl From<String> for Reason {
    fn from(words: String) -> Self {
        Self { security: None, words }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.security(4) {
            Some(status) => write!(f, "{status} {}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

/// A store has it as one text, the number before the words where there is one. Words without a number never begin with 4.7: those of peers begin
/// with the number of their reply.
impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let numbered = text.strip_prefix("4.7.").and_then(|rest| rest.split_once(' '));
        let read = numbered.and_then(|(detail, words)| Some((detail.parse().ok()?, words.to_owned())));
        Ok(match read {
            Some((detail, words)) => Self { security: Some(detail), words },
            None => text.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_stored_as_the_text_it_always_was() {
        for (reason, text, security) in [
            (Reason::new(Status(4, 7, 10), "TLS is required".into()), "4.7.10 TLS is required", Some(Status(5, 7, 10))),
            (Reason::new(Status(4, 4, 1), "connection lost".into()), "connection lost", None),
            ("451 4.7.1 says the peer".into(), "451 4.7.1 says the peer", None),
            ("4.7.x odd".into(), "4.7.x odd", None),
            ("".into(), "", None),
        ] {
            let stored = postcard::to_stdvec(&reason).expect("text");
            assert_eq!(postcard::from_bytes::<String>(&stored).as_deref(), Ok(text));
            assert_eq!(postcard::from_bytes(&stored), Ok(reason.clone()));
            assert_eq!((reason.security(5), reason.to_string()), (security, text.to_owned()));
        }
    }
}
