//! The endpoint of a supernode or relay: QUIC for whoever proves a key, on every address it listens on, and through tunnels over TCP.

use crate::node_socket::{DatagramHandler, NodeSender, NodeSocket, NodeSockets};
use crate::tunnel::{self, Listeners, ServedTunnel, TunnelServer, TunnelSocket};
use crate::udp::UdpSocket;
use crate::{Connection, TransportError, config, tls};
use ahoy_identity::SigningKey;
use ahoy_protocol::NodeKey;
use quinn::{ClientConfig, Connecting, Endpoint, Incoming, ServerConfig, TokioRuntime, VarInt};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpListener;

/// A handshake that takes longer is given up: it needs one round trip, and four repeats fit.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes kept for a client whose handshake has not been looked at: no client of ours sends more than two packets by then.
const INCOMING_BYTES_MAX: u64 = 4 * 1024;
/// Ports tried for one that is free for UDP and for TCP, where any will do.
const PORT_ATTEMPTS: usize = 8;

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

/// QUIC on one or more addresses and through tunnels, under one key.
#[derive(Debug)]
pub struct NodeEndpoint {
    /// One for each UDP socket.
    endpoints: Vec<Endpoint>,
    /// For what comes through tunnels.
    tunnelled: Endpoint,
    tunnels: Arc<TunnelServer>,
    listeners: Listeners,
    sockets: Arc<NodeSockets>,
    key: SigningKey,
    limits: NodeLimits,
    handshakes: Arc<AtomicUsize>,
}

impl NodeEndpoint {
    /// Listens on every one of `listen`, over UDP and on the same ports over TCP for tunnels, and on every one of `tcp` for tunnels, speaking
    /// `alpns`. What is not QUIC goes to `handler`. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::PortInUse`], [`TransportError::TcpPortInUse`] and [`TransportError::Bind`] name the address that could not be had.
    pub fn bind(
        listen: &[SocketAddr],
        tcp: &[SocketAddr],
        key: &SigningKey,
        alpns: &[&[u8]],
        handler: Arc<dyn DatagramHandler>,
        limits: NodeLimits,
    ) -> Result<Self, TransportError> {
        let (mut list, mut listeners) = (Vec::with_capacity(listen.len()), Vec::with_capacity(listen.len() + tcp.len()));
        for address in listen {
            let (socket, listener) = bind_both(*address)?;
            list.push(Arc::new(socket));
            listeners.push(listener);
        }
        for address in tcp {
            let listened = |listener: &TcpListener| listener.local_addr().is_ok_and(|local| local == *address);
            if !listeners.iter().any(listened) {
                listeners.push(tunnel::bind(*address)?);
            }
        }
        let tunnels = TunnelServer::new(Arc::clone(&handler), limits.connections_max, limits.handshakes_max);
        let sockets = Arc::new(NodeSockets::new(list.clone(), Arc::clone(&tunnels)));
        let server = server_config(key, alpns, limits)?;
        let tunnelled = Endpoint::new_with_abstract_socket(
            config::node_endpoint(key, list.len()),
            Some(server.clone()),
            Arc::new(TunnelSocket(Arc::clone(&tunnels))),
            Arc::new(TokioRuntime),
        );
        let tunnelled = tunnelled.map_err(|error| TransportError::Setup(error.to_string()))?;
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
        let listeners = Listeners::serve(listeners, key, &tunnels, &sockets)?;
        let key = SigningKey::from_seed(*key.seed());
        Ok(Self { endpoints, tunnelled, tunnels, listeners, sockets, key, limits, handshakes: Arc::default() })
    }

    /// Where it listens over UDP, in the order of `listen`, with the ports that the system chose where `0` was given.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.local_addr().ok()).collect()
    }

    /// Where it listens over TCP: at the addresses of [`local_addresses`](Self::local_addresses), then at those of `tcp`.
    #[must_use]
    pub fn local_tcp_addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses().to_vec()
    }

    /// Tunnels that are open or being made.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.tunnels.count()
    }

    /// Datagrams that were lost so far because a tunnel did not take them in time.
    #[must_use]
    pub fn dropped_by_tunnels(&self) -> u64 {
        self.tunnels.dropped()
    }

    /// A handle that sends datagrams from this endpoint's sockets.
    #[must_use]
    pub fn sender(&self) -> NodeSender {
        self.sockets.sender()
    }

    /// Connections that are open or being made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.all().map(Endpoint::open_connections).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().chain([&self.tunnelled])
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
        let mut accepts: Vec<_> = self.all().map(|endpoint| Box::pin(endpoint.accept())).collect();
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
        let tunnel = self.tunnels.tunnel(incoming.remote_address());
        let connecting = incoming.accept().ok()?;
        Some(Handshaking { connecting, tunnel, _pending: Pending::count(&self.handshakes) })
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
        Connection::new(finish(connecting, "the node's handshake").await?, None, None)
    }

    /// Closes all connections and takes no more.
    pub fn close(&self) {
        self.listeners.close();
        for endpoint in self.all() {
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

/// A UDP socket on `address`, and a TCP socket on the same port.
fn bind_both(address: SocketAddr) -> Result<(UdpSocket, TcpListener), TransportError> {
    let bind_udp = || UdpSocket::bind(address).map_err(|error| TransportError::bind(address, &error));
    let mut attempts_left = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        let socket = bind_udp()?;
        attempts_left -= 1;
        match tunnel::bind(socket.address()) {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if attempts_left == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

async fn finish(connecting: Connecting, what: &'static str) -> Result<quinn::Connection, TransportError> {
    Ok(tokio::time::timeout(HANDSHAKE_TIME_MAX, connecting).await.map_err(|_| TransportError::TimedOut { what })??)
}

/// A handshake that has begun.
#[derive(Debug)]
pub struct Handshaking {
    connecting: Connecting,
    /// Through which it comes.
    tunnel: Option<Arc<ServedTunnel>>,
    _pending: Pending,
}

impl Handshaking {
    /// Waits for its end.
    ///
    /// # Errors
    /// If the other side proves no key, speaks another protocol, or takes too long.
    pub async fn finish(self) -> Result<Connection, TransportError> {
        let Self { connecting, tunnel, _pending } = self;
        let quic = finish(connecting, "a client's handshake").await?;
        match tunnel {
            None => Connection::new(quic, None, None),
            Some(tunnel) => {
                let keep = tunnel.carry(&quic);
                Connection::new(quic, None, Some(Box::new(keep)))
            }
        }
    }

    /// Where it comes from; through a tunnel, the address that stands for it.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.connecting.remote_address()
    }

    /// Where the client, or the proxy that it uses, really is.
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        self.tunnel.as_ref().map_or_else(|| self.remote_address().ip(), |tunnel| tunnel.client().ip())
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
