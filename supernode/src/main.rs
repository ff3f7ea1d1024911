//! The `ahoy-supernode` program.

fn main() {}
