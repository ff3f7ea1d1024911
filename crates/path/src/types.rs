//! What goes into an agent and what comes out of it.

use crate::candidate::{AddressRules, Refused, Subnet};
use crate::keys::ProbeKeys;
use crate::prober::TRANSMITS_MAX;
use ahoy_protocol::datagram::Side;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;

/// How many of the packets sent last a socket keeps for [`Event::Replay`]: what 20 ms frames lose until the death of a path is noticed, with
/// room for acknowledgements between them.
pub const REPLAY_PACKETS_MAX: usize = 24;

/// No agent sends more packets than this in any second, whatever the peer or the network does to it.
pub const TRANSMITS_PER_SECOND_MAX: usize = TRANSMITS_MAX;

/// What an agent is made with.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Which side of the call this is.
    pub side: Side,
    /// Keys of this call's probes.
    pub keys: ProbeKeys,
    /// Address ranges at this device's interfaces; a peer's address inside one is on-link.
    pub on_link: Vec<Subnet>,
    /// Which addresses may be probed.
    pub rules: AddressRules,
}

/// Where a packet of the call came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Through the relay.
    Relay,
    /// Straight from this address.
    Direct(SocketAddr),
}

/// Where packets of the call go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Nowhere yet; QUIC takes that for loss.
    None,
    /// Through the relay.
    Relay,
    /// Straight to this address.
    Direct(SocketAddr),
    /// Through the relay and straight to this address, a copy each.
    Both(SocketAddr),
}

/// What the socket has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// From here on packets go this way. Always the same as [`PathAgent::route`](crate::PathAgent::route).
    RouteChanged(Route),
    /// The last packets may not have arrived: send them (at most [`REPLAY_PACKETS_MAX`]) again through the relay. QUIC drops what it already has.
    Replay,
}

/// A probe to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// The direct path in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// The peer's address.
    pub address: SocketAddr,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Whether the address is on-link at one of this device's interfaces.
    pub on_link: bool,
}

/// Why a probe was dropped. Nothing changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Dropped {
    /// Neither a PING nor a PONG.
    #[error("malformed probe")]
    Malformed,
    /// Its tag is another call's.
    #[error("probe of another call")]
    OtherCall,
    /// Its authentication code is wrong.
    #[error("probe with a wrong code")]
    Forged,
    /// This side sent it.
    #[error("reflected probe")]
    Reflected,
    /// Probing is not allowed yet.
    #[error("probe before probing started")]
    NotProbing,
    /// It comes from an address that no peer can have.
    #[error("probe from a refused address: {0}")]
    Address(Refused),
    /// Its transaction was answered before.
    #[error("replayed probe")]
    Replayed,
    /// It answers no probe of this side's, or one that went elsewhere.
    #[error("answer to an unknown probe")]
    UnknownTransaction,
    /// More probes came than are answered.
    #[error("too many probes")]
    TooMany,
}
