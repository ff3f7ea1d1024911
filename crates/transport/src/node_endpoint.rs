//! The endpoint of a supernode or relay: QUIC for whoever proves a key, on every address it listens on.

use crate::node_socket::{DatagramHandler, NodeSender, NodeSocket, NodeSockets};
use crate::udp::UdpSocket;
use crate::{Connection, TransportError, config, tls};
use ahoy_identity::SigningKey;
use ahoy_protocol::NodeKey;
use quinn::{ClientConfig, Connecting, Endpoint, Incoming, ServerConfig, TokioRuntime, VarInt};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

/// A handshake that takes longer is given up: it needs one round trip, and four repeats fit.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes kept for a client whose handshake has not been looked at: no client of ours sends more than two packets by then.
const INCOMING_BYTES_MAX: u64 = 4 * 1024;

/// How much a node takes on.
#[derive(Debug, Clone, Copy)]
pub struct NodeLimits {
    /// Handshakes at once. Further ones are refused before any cryptography, so that the client asks another node.
    pub handshakes_max: usize,
    /// Handshakes at once from which on a client must first show that it receives at its address, which costs it a
    /// round trip and a forger everything.
    pub handshakes_unproved_max: usize,
    /// Connections at once. Further ones are refused.
    pub connections_max: usize,
}

impl Default for NodeLimits {
    /// What a small machine carries: about 30 KB of memory a connection, and over a second of handshakes waiting.
    fn default() -> Self {
        Self { handshakes_max: 1024, handshakes_unproved_max: 128, connections_max: 8192 }
    }
}

/// QUIC on one or more addresses, under one key.
#[derive(Debug)]
pub struct NodeEndpoint {
    endpoints: Vec<Endpoint>,
    sockets: Arc<NodeSockets>,
    key: SigningKey,
    limits: NodeLimits,
    handshakes: Arc<AtomicUsize>,
}

impl NodeEndpoint {
    /// Listens on every one of `listen`, speaking `alpns`. What is not QUIC goes to `handler`. Must be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::PortInUse`] and [`TransportError::Bind`] name the address that could not be had.
    pub fn bind(
        listen: &[SocketAddr],
        key: &SigningKey,
        alpns: &[&[u8]],
        handler: Arc<dyn DatagramHandler>,
        limits: NodeLimits,
    ) -> Result<Self, TransportError> {
        let mut list = Vec::with_capacity(listen.len());
        for address in listen {
            list.push(Arc::new(UdpSocket::bind(*address).map_err(|error| TransportError::bind(*address, &error))?));
        }
        let sockets = Arc::new(NodeSockets::new(list.clone()));
        let server = server_config(key, alpns, limits)?;
        let mut endpoints = Vec::with_capacity(list.len());
        for (index, socket) in list.into_iter().enumerate() {
            let address = socket.address();
            let socket = NodeSocket { socket, index, all: Arc::clone(&sockets), handler: Arc::clone(&handler) };
            let endpoint = Endpoint::new_with_abstract_socket(
                config::node_endpoint(key, index),
                Some(server.clone()),
                Arc::new(socket),
                Arc::new(TokioRuntime),
            );
            endpoints.push(endpoint.map_err(|error| TransportError::bind(address, &error))?);
        }
        let key = SigningKey::from_seed(*key.seed());
        Ok(Self { endpoints, sockets, key, limits, handshakes: Arc::default() })
    }

    /// Where it listens, in the order of `listen`, with the ports that the system chose where `0` was given.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.local_addr().ok()).collect()
    }

    /// A handle that sends datagrams from this endpoint's sockets.
    #[must_use]
    pub fn sender(&self) -> NodeSender {
        self.sockets.sender()
    }

    /// Connections that are open or being made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.endpoints.iter().map(Endpoint::open_connections).sum()
    }

    /// Waits for somebody to connect; `None` once the endpoint is closed. The handshake is to be finished in a task of
    /// its own, so that a slow one keeps nobody waiting.
    pub async fn accept(&self) -> Option<Handshaking> {
        loop {
            let incoming = self.next_incoming().await?;
            if let Some(handshaking) = self.admit(incoming) {
                return Some(handshaking);
            }
        }
    }

    /// The next attempt on any of the sockets.
    async fn next_incoming(&self) -> Option<Incoming> {
        let mut accepts: Vec<_> = self.endpoints.iter().map(|endpoint| Box::pin(endpoint.accept())).collect();
        poll_fn(|cx| {
            let mut open = Vec::with_capacity(accepts.len());
            for mut accept in accepts.drain(..) {
                match accept.as_mut().poll(cx) {
                    Poll::Ready(Some(incoming)) => return Poll::Ready(Some(incoming)),
                    Poll::Ready(None) => {}
                    Poll::Pending => open.push(accept),
                }
            }
            accepts = open;
            if accepts.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// Begins a handshake if there is room for it.
    fn admit(&self, incoming: Incoming) -> Option<Handshaking> {
        let pending = self.handshakes.load(Ordering::Relaxed);
        if pending >= self.limits.handshakes_max || self.connections() >= self.limits.connections_max {
            incoming.refuse();
            return None;
        }
        if pending >= self.limits.handshakes_unproved_max && !incoming.remote_address_validated() {
            // An attempt that may not be asked to show its address is not admitted either.
            let _ = incoming.retry();
            return None;
        }
        let connecting = incoming.accept().ok()?;
        Some(Handshaking { connecting, _pending: Pending::count(&self.handshakes) })
    }

    /// Connects to the node at `address`, which must prove to be `node`.
    ///
    /// # Errors
    /// [`TransportError::WrongKey`] if it is another, [`TransportError::TimedOut`] if nothing answers.
    pub async fn connect(&self, address: SocketAddr, node: &NodeKey, alpn: &[u8]) -> Result<Connection, TransportError> {
        let of_family = |endpoint: &&Endpoint| endpoint.local_addr().is_ok_and(|local| local.is_ipv6() == address.is_ipv6());
        let endpoint = self.endpoints.iter().find(of_family).ok_or(TransportError::NoSocket { address })?;
        let mut client = ClientConfig::new(tls::client(&self.key, node.as_bytes(), alpn)?);
        client.transport_config(config::control_client(u64::from_le_bytes(ahoy_identity::random())));
        let connecting = endpoint.connect_with(client, address, tls::SERVER_NAME).map_err(|_| TransportError::BadAddress { address })?;
        finish(connecting, "the node's handshake").await
    }

    /// Closes all connections and takes no more.
    pub fn close(&self) {
        for endpoint in &self.endpoints {
            endpoint.close(VarInt::from_u32(0), b"");
        }
    }
}

impl Drop for NodeEndpoint {
    fn drop(&mut self) {
        self.close();
    }
}

fn server_config(key: &SigningKey, alpns: &[&[u8]], limits: NodeLimits) -> Result<ServerConfig, TransportError> {
    let mut server = ServerConfig::with_crypto(tls::server(key, alpns)?);
    let incoming_max = limits.handshakes_max.max(1);
    server
        .transport_config(config::control_server())
        .max_incoming(incoming_max)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX * incoming_max as u64);
    Ok(server)
}

async fn finish(connecting: Connecting, what: &'static str) -> Result<Connection, TransportError> {
    let quic = tokio::time::timeout(HANDSHAKE_TIME_MAX, connecting).await.map_err(|_| TransportError::TimedOut { what })??;
    Connection::new(quic, None, None)
}

/// A handshake that has begun.
#[derive(Debug)]
pub struct Handshaking {
    connecting: Connecting,
    _pending: Pending,
}

impl Handshaking {
    /// Waits for its end.
    ///
    /// # Errors
    /// If the other side proves no key, speaks another protocol, or takes too long.
    pub async fn finish(self) -> Result<Connection, TransportError> {
        let Self { connecting, _pending } = self;
        finish(connecting, "a client's handshake").await
    }

    /// Where it comes from.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.connecting.remote_address()
    }
}

/// Counts a handshake for as long as it lasts.
#[derive(Debug)]
struct Pending(Arc<AtomicUsize>);

impl Pending {
    fn count(handshakes: &Arc<AtomicUsize>) -> Self {
        handshakes.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(handshakes))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
