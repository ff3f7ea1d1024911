//! The `ahoy` program.

fn main() {}
