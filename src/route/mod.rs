//! Where mail for an address goes, and under which addresses it goes on. No I/O: what the profile says, and nothing else (link-rules
//! A8).
//!
//! [`Directory::resolve`] follows one address as it was given: through aliases, past the detail of a plus address, to routes and
//! mailboxes. It tells each [`Step`] to whoever listens, so that `aldis route` shows what the switch does because it is what the switch
//! does.

mod alias;
mod directory;
mod fields;
mod resolve;
mod rewrite;
mod table;

pub use alias::{Alias, Aliases, Named, Target};
pub use directory::{Bounds, Directory};
pub use fields::{is_signed, rewritten};
pub use resolve::{Copied, Fault, Placed, Refusal, Resolved, Step, Told};
pub use rewrite::{Direction, Part, Passing, Replacement, Rewrite, Rewrites};
pub use table::{Pattern, Route, Table, same_address};
