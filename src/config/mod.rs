//! The profile: TOML text -> raw profile -> checked [`Plan`]. Only the plan travels.

pub mod plan;

pub use plan::Plan;
