//! Tunnels: datagrams inside TLS over TCP, for networks that block UDP or have only a proxy.
//!
//! Above it, a tunnel looks like an address: what is sent there goes through it, and what comes out of it comes from there. A client dials
//! tunnels ([`Tunnels`]), a node takes them ([`Listeners`]). Neither ever waits for a tunnel: what does not get out within a fifth of a
//! second is dropped ([`queue`]), as a network would, and QUIC above repeats what has to arrive.
//!
//! The outer TLS proves the node's key to the client, so that nobody between them can play with what passes; the client proves its own key
//! in QUIC's handshake inside. What this module leaves out: which way to try first, and who may connect.

mod carry;
mod client;
mod dial;
pub(crate) mod frames;
mod listen;
pub(crate) mod proxy;
mod queue;
mod server;

pub(crate) use client::{Tunnel, Tunnels};
pub(crate) use listen::{Listeners, bind};
pub(crate) use server::{ServedTunnel, TunnelServer, TunnelSocket};

use std::time::Duration;

/// How long a connection and its handshakes, a proxy's included, may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
