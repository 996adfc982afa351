//! Keys at work: what is authenticated and what is secret on the air (link-rules C1 to C3).

mod seal;

pub use seal::{SealError, open, overhead, seal};
