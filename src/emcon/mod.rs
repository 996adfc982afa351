//! Silence: who may radiate, on which bearer, and when.
//!
//! [`Gate`] is the only maker of [`AirPermit`]s, and an [`AirPermit`] is the only way to an [`Emission`], the only thing a
//! driver keys or writes. Default is silent: an unknown state, an unset clock inside a window, an unreadable order give none.
//! Implements link-rules B1, B4 and the state table of the bearer notes (open, restricted, window, ack-only, silent).

mod gate;
mod order;
mod permit;

pub use gate::{Gate, Purpose, Silence};
pub use order::{Order, State, Window, tightens};
pub use permit::{AirPermit, Emission, EpochWatch, FILTER_HOLDS, Keying};
