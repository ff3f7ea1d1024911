//! The crate's promises, over loopback.

mod client;
mod flood;
mod node;
mod peer;
mod proxies;
mod roaming;
mod support;
mod tunnel;
