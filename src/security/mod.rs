//! Keys at work: what is authenticated and what is secret on the air (link-rules C1 to C3), what certificates say, and who
//! vouches for a message: its signatures, and what the checks of it found.

pub mod certificate;
pub mod dane;
pub mod dkim;
pub mod results;
mod seal;
pub mod sts;
pub mod vet;

pub use seal::{SealError, open, overhead, seal};
