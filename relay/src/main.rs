//! The `ahoy-relay` program.

fn main() {}
