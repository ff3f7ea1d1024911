//! The crate's promises, over loopback.

mod client;
mod node;
mod peer;
mod support;
