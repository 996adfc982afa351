//! Deliberate faults, to prove that the simulator's judges can fail. Exists only under the feature `mutations`, which is in no
//! default and in no dependency table; a release lists no features.
//!
//! A profile names one fault in `[node] mutation`; [`put_in_force`] is called with it when a node is built, and the hooks ask [`is`]
//! where the fault is. A process has one fault at a time: its nodes are all wrong in the same way.

use core::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

macro_rules! mutations {
    ($( $(#[doc = $about:literal])+ $variant:ident $name:literal )*) => {
        /// A deliberate fault.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Mutation {
            $( $(#[doc = $about])+ $variant, )*
        }

        impl Mutation {
            /// Every fault there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in a profile.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What is wrong with a node that has it.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($about),+)),* }
            }
        }
    };
}

mutations! {
    /// The store's file is never synced.
    SkipSync "skip-sync"
    /// A delivered file's name is not made durable.
    SkipDirectorySync "skip-directory-sync"
    /// A transfer that was accepted before is accepted again.
    DropDedupe "drop-dedupe"
    /// The client hears 250 before the commit.
    PromiseEarly "promise-early"
    /// A message from the air that could not be stored is confirmed all the same.
    ConfirmFailed "confirm-failed"
    /// The gate lets reports pass under an order of silence.
    KeyInSilence "key-in-silence"
    /// An order of silence is not stored.
    ForgetOrder "forget-order"
    /// A tightening order does not break off what is being sent.
    KeepKeyed "keep-keyed"
    /// A window is taken to close a minute later.
    OverrunWindow "overrun-window"
    /// An unset clock opens windows.
    TrustUnsetClock "trust-unset-clock"
    /// Symbols go out in turn, whatever their precedence.
    IgnorePrecedence "ignore-precedence"
    /// One bit of every hundredth symbol is wrong before it is sealed.
    FlipBit "flip-bit"
    /// Mail over the air lives an hour.
    ExpireEarly "expire-early"
    /// A peer that did not answer is never asked again.
    GiveUp "give-up"
    /// Counters of control frames begin anew with every start.
    ReuseCounter "reuse-counter"
    /// A transfer that ended stays in memory.
    KeepTransfer "keep-transfer"
    /// Mail is handed to a mailbox twice under two names.
    DeliverTwice "deliver-twice"
    /// The last byte of a received message is lost.
    CutShort "cut-short"
}

impl Mutation {
    /// The fault of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|m| m.name() == name)
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The fault in force plus one; 0 for none.
static FAULT: AtomicU8 = AtomicU8::new(0);

/// From now on nodes of this process have this fault, or none.
pub fn put_in_force(fault: Option<Mutation>) {
    FAULT.store(fault.map_or(0, |m| m as u8 + 1), Ordering::SeqCst);
}

/// Whether this fault is in force.
pub fn is(fault: Mutation) -> bool {
    FAULT.load(Ordering::SeqCst) == fault as u8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_read_back() {
        for fault in Mutation::ALL {
            assert_eq!(Mutation::parse(fault.name()), Some(*fault));
        }
    }
}
