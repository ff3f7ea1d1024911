//! Opens the connection that a tunnel goes over: TCP, a proxy where there is one, and TLS to the node.

use super::HANDSHAKE_TIME_MAX;
use super::proxy::Proxy;
use crate::{TransportError, tls};
use ahoy_protocol::NodeKey;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What the system may hold of what it has not sent: two packets. The rest waits in our queue, where it can be dropped.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOT_SENT_BYTES_MAX: u32 = 4 * 1024;
/// Data that stays unacknowledged for this long break the connection: the network has changed, or the other side is gone.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// Silence after which the system asks whether the other side is there. The connection inside is quicker; this is for the time before it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Connects to `node` at `tcp`.
pub(super) async fn dial(tcp: SocketAddr, node: &NodeKey, proxy: Option<&Proxy>) -> Result<TlsStream<TcpStream>, TransportError> {
    let connector = TlsConnector::from(tls::tunnel_client(node.as_bytes())?);
    let opening = async {
        let stream = match proxy {
            Some(proxy) => proxy.connect(tcp).await?,
            None => TcpStream::connect(tcp).await.map_err(|error| TransportError::tcp(tcp, &error))?,
        };
        tune(&stream);
        connector.connect(tls::server_name(), stream).await.map_err(|error| tls_error(tcp, &error))
    };
    timeout(HANDSHAKE_TIME_MAX, opening).await.map_err(|_| TransportError::TimedOut { what: "a connection over TCP" })?
}

fn tls_error(tcp: SocketAddr, error: &io::Error) -> TransportError {
    if tls::is_wrong_key(error) { TransportError::WrongKey } else { TransportError::tcp(tcp, error) }
}

/// Makes the connection send at once and hold little back. A system that cannot do it still carries calls, with more delay when it is full.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEP_ALIVE));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let _ = socket.set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX);
        let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    }
}
