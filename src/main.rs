//! The `aldis` program.

fn main() {}
