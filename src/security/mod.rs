//! Keys at work: what is authenticated and what is secret on the air (link-rules C1 to C3), and what certificates say.

pub mod certificate;
mod seal;

pub use seal::{SealError, open, overhead, seal};
