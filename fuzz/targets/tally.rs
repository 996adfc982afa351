//! Says on standard error how many bytes a target has been given, each time another hundred million are full.

use std::sync::atomic::{AtomicU64, Ordering};

static BYTES: AtomicU64 = AtomicU64::new(0);
const STEP: u64 = 100_000_000;

/// Adds `bytes`.
pub fn add(bytes: usize) {
    let before = BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    let after = before + bytes as u64;
    if before / STEP < after / STEP {
        eprintln!("{after} bytes decoded");
    }
}
