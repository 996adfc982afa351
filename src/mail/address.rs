//! Mailboxes as SMTP carries them.

use core::fmt;

use serde::{Deserialize, Serialize};

/// `local@domain` exactly as it arrived, or a bare `postmaster`; syntax is checked where it enters (smtp/).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Mailbox(String);

/// The envelope sender; `None` is the null path `<>`.
pub type ReversePath = Option<Mailbox>;

impl Mailbox {
    /// Wraps checked text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the last `@`, quotes included.
    pub fn local(&self) -> &str {
        self.0.rsplit_once('@').map_or(self.0.as_str(), |(local, _)| local)
    }

    /// The part after the last `@`; empty for a bare `postmaster`.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// Whether RFC 6531 is needed to carry it.
    pub fn is_utf8(&self) -> bool {
        !self.0.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_split_at_the_last_at_sign() {
        let m = Mailbox::new("\"a@b\"@ship.example");
        assert_eq!((m.local(), m.domain()), ("\"a@b\"", "ship.example"));
        assert_eq!(Mailbox::new("postmaster").domain(), "");
    }
}
