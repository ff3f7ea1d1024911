//! How an endpoint may reach the network, and where a node is to be found.

use crate::Proxy;
use ahoy_protocol::roster::RosterNode;
use std::net::SocketAddr;

/// Whether an endpoint uses UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UdpUse {
    /// Wherever it gets through, and TCP where it does not.
    #[default]
    Prefer,
    /// Not at all: everything goes through tunnels over TCP.
    Never,
}

/// How an endpoint may reach the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// What tunnels go through; `None`: straight to the node.
    pub proxy: Option<Proxy>,
    /// Whether UDP is used.
    pub udp: UdpUse,
}

/// Where a node is to be found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePlace {
    /// Its addresses for QUIC over UDP, the best first.
    pub udp: Vec<SocketAddr>,
    /// Its addresses for the same in TLS over TCP.
    pub tcp: Vec<SocketAddr>,
}

impl NodePlace {
    /// A node that is reached over UDP alone.
    #[must_use]
    pub fn udp(addresses: &[SocketAddr]) -> Self {
        Self { udp: addresses.to_vec(), tcp: Vec::new() }
    }
}

impl From<&RosterNode> for NodePlace {
    fn from(node: &RosterNode) -> Self {
        Self { udp: node.udp.to_vec(), tcp: node.tcp.to_vec() }
    }
}
