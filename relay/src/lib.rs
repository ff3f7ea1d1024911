//! Joins two legs of a call that cannot reach each other.
//!
//! A relay forwards; it does not proxy. Two legs are joined only when each names the other and both hold a grant that
//! the login server signed; nothing is sent to an address that did not join, and never more than was received. What
//! passes is ciphertext, of which the relay has no key.
//!
//! Control is a QUIC connection per client with one stream a leg; data are frames on the same UDP port, whose way the
//! [`Forwarder`] decides. What this crate does not do: choose relays for calls, keep anything on disk beyond the node's
//! own credentials, or look into what it forwards.

mod bucket;
mod control;
mod data_plane;
mod forwarder;
mod leg;
pub mod limits;
mod relay;
mod reports;
mod standing;

pub use forwarder::{Counters, Forwarder, JoinError, Joined, LegRequest, Reason, Verdict};
pub use relay::{Relay, RelayError};
