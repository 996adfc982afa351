//! Which next hop a recipient's address has. No I/O: a static table (link-rules A8).

mod table;

pub use table::{Pattern, Route, Table};
