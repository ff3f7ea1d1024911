//! QUIC over UDP sockets of our own: raw public keys, framed messages, virtual peers, relay frames, observation, probes.
//!
//! Nodes (supernodes and relays) have a [`NodeEndpoint`]: QUIC on real addresses, with every other datagram handed to a
//! [`DatagramHandler`]. Clients have a [`ClientEndpoint`]: one port for supernodes, relays and peers, under which each
//! connection has a virtual address, so that a connection to a [`Peer`] moves between relays and direct paths, or takes several at once,
//! without QUIC taking part in it. Where UDP does not get through, or only a [`Proxy`] leads out, the same datagrams go through tunnels over
//! TCP; to all above, a tunnel is an address.
//!
//! A client's endpoint looks after itself: when this machine comes to another network or wakes up, nodes and relays hear from the new
//! address at once and calls look for their way anew ([`NetworkState`]); what strangers send is dropped at the price of a look-up.
//!
//! Both ends of every connection prove an Ed25519 key (RFC 7250). Which key may do what is for the caller to decide.
//!
//! What this crate does not do: choose relays, speak the messages it carries, or decide which path is best
//! (`ahoy-path` does).

mod check;
mod client_endpoint;
mod config;
mod connection;
mod controller;
mod dial;
mod error;
mod framing;
mod inbox;
mod interfaces;
mod leg;
mod network;
mod node_endpoint;
mod node_socket;
mod observe;
mod path_socket;
mod path_status;
mod peer;
mod peer_route;
mod reach;
mod shared;
mod side_sockets;
mod switchboard;
mod tls;
mod tunnel;
mod udp;
mod virtual_address;

pub use ahoy_path::AgentStats;
pub use check::Reached;
pub use client_endpoint::{ClientEndpoint, Observation};
pub use connection::Connection;
pub use error::TransportError;
pub use framing::{receive, receive_body, receive_length, send};
pub use network::NetworkState;
pub use node_endpoint::{Handshaking, NodeEndpoint, NodeLimits};
pub use node_socket::{DatagramHandler, NodeSender};
pub use observe::ObserveResponder;
pub use path_status::{LegTrouble, PathKind, PathStatus};
pub use peer::{Peer, PeerSetup};
pub use quinn::{RecvStream, SendStream};
pub use reach::{NodePlace, Reach, UdpUse};
pub use tunnel::frames::FrameReader;
pub use tunnel::proxy::{Proxy, ProxyError};
