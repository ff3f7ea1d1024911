//! A node's TCP sockets: whoever connects and makes a TLS handshake has a tunnel.

use super::HANDSHAKE_TIME_MAX;
use super::dial::tune;
use super::server::{Place, TunnelServer};
use crate::node_socket::NodeSockets;
use crate::{TransportError, tls};
use ahoy_identity::SigningKey;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Connections that the system holds for us while we are busy.
const BACKLOG: i32 = 1024;
/// Who connects has to begin the handshake within this time; a client of ours does it at once.
const FIRST_WORD_TIME_MAX: Duration = Duration::from_secs(3);
/// Before a socket is asked again that could give no connection, as happens when the process has too many files open.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A socket that listens on `address`. An IPv6 socket is for IPv6 alone, so that an IPv4 socket can have the same port.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, TransportError> {
    try_bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => TransportError::TcpPortInUse { address },
        _ => TransportError::bind(address, &error),
    })
}

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A node that begins anew must not wait for the last connections of the one before it. Elsewhere the option means something else.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What all tasks of a node's tunnels need.
#[derive(Clone)]
struct Service {
    server: Arc<TunnelServer>,
    sockets: Arc<NodeSockets>,
    tls: TlsAcceptor,
    tunnels: Arc<Mutex<JoinSet<()>>>,
}

/// The sockets that listen. Dropping it ends all tunnels.
pub(crate) struct Listeners {
    addresses: Vec<SocketAddr>,
    listening: Mutex<JoinSet<()>>,
    tunnels: Arc<Mutex<JoinSet<()>>>,
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listeners").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Listeners {
    /// Takes whoever connects to one of `listeners`.
    pub(crate) fn serve(
        listeners: Vec<TcpListener>,
        key: &SigningKey,
        server: &Arc<TunnelServer>,
        sockets: &Arc<NodeSockets>,
    ) -> Result<Self, TransportError> {
        let tunnels = Arc::new(Mutex::new(JoinSet::new()));
        let service = Service {
            server: Arc::clone(server),
            sockets: Arc::clone(sockets),
            tls: TlsAcceptor::from(tls::tunnel_server(key)?),
            tunnels: Arc::clone(&tunnels),
        };
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let mut listening = JoinSet::new();
        for listener in listeners {
            listening.spawn(service.clone().accept(listener));
        }
        Ok(Self { addresses, listening: Mutex::new(listening), tunnels })
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes nobody more. Those who are there stay until their connections have ended.
    pub(crate) fn close(&self) {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        // The tasks hold the set that holds them.
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Service {
    async fn accept(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    // Who finds no room is let go at once, which costs him nothing and us little.
                    let Some(place) = self.server.enter(from) else { continue };
                    let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
                    while tunnels.try_join_next().is_some() {}
                    tunnels.spawn(self.clone().tunnel(stream, place));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection over TCP could not be taken");
                    sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }

    async fn tunnel(self, stream: TcpStream, place: Place) {
        tune(&stream);
        // Who says nothing takes no place of those who do.
        if !matches!(timeout(FIRST_WORD_TIME_MAX, stream.readable()).await, Ok(Ok(()))) {
            return;
        }
        let Some(handshake) = self.server.begin_handshake(&place) else { return };
        match timeout(HANDSHAKE_TIME_MAX, self.tls.accept(stream)).await {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(ahoy_protocol::tunnel::ALPN) => {
                drop(handshake);
                self.server.carry(stream, place, &self.sockets).await;
            }
            Ok(Ok(_)) => tracing::debug!("a client over TCP speaks another protocol"),
            Ok(Err(error)) => tracing::debug!(%error, "a handshake over TCP failed"),
            Err(_) => tracing::debug!("a handshake over TCP took too long"),
        }
    }
}
