//! The `ahoy-login` program.

fn main() {}
