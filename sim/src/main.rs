//! The `aldis-sim` program.

fn main() {}
