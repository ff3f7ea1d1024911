//! QUIC over UDP sockets of our own: raw public keys, framed messages, virtual peers, relay frames, observation, probes.
//!
//! Nodes (supernodes and relays) have a [`NodeEndpoint`]: QUIC on real addresses, with every other datagram handed to a
//! [`DatagramHandler`]. Clients have a [`ClientEndpoint`]: one port for supernodes, relays and peers, under which each
//! connection has a virtual address, so that a connection to a [`Peer`] moves between the relay and a direct path
//! without QUIC taking part in it.
//!
//! Both ends of every connection prove an Ed25519 key (RFC 7250). Which key may do what is for the caller to decide.
//!
//! What this crate does not do: choose relays, speak the messages it carries, or decide which path is best
//! (`ahoy-path` does).

mod client_endpoint;
mod config;
mod connection;
mod controller;
mod error;
mod framing;
mod interfaces;
mod node_endpoint;
mod node_socket;
mod observe;
mod path_socket;
mod path_status;
mod peer;
mod peer_route;
mod switchboard;
mod tls;
mod udp;
mod virtual_address;

pub use client_endpoint::{ClientEndpoint, Observation};
pub use connection::Connection;
pub use error::TransportError;
pub use framing::{receive, send};
pub use node_endpoint::{Handshaking, NodeEndpoint, NodeLimits};
pub use node_socket::{DatagramHandler, NodeSender};
pub use observe::ObserveResponder;
pub use path_status::{PathKind, PathStatus};
pub use peer::{Peer, PeerSetup};
pub use quinn::{RecvStream, SendStream};
