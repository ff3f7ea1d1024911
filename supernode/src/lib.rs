//! Hosts the directory and carries invitations.
//!
//! A supernode has two planes. Clients (and relays) speak QUIC to the [client plane](plane); supernodes speak Kademlia to
//! each other in the [overlay]. Between them lies the [shelf]: the records that this supernode keeps. They are soft state:
//! it can be killed at any moment, and what it kept is at others and is brought again by its owners.
//!
//! Beside that it is a [mailbox](mail) for the devices of some users. Mail is on its disk before anybody is told that it is kept.
//!
//! [`Supernode::start`] runs one within any Tokio runtime; dropping it stops it.

mod limits;
mod lookup;
mod mail;
mod metrics;
mod neighbours;
mod overlay;
mod plane;
mod relays;
mod sessions;
mod shelf;
mod supernode;
mod visitor;

pub use overlay::OverlayError;
pub use supernode::{Args, StartError, Supernode};
