//! A connection whose other side has proved its key.

use crate::{TransportError, receive, send, tls};
use ahoy_protocol::Wire;
use bytes::Bytes;
use quinn::crypto::rustls::HandshakeData;
use quinn::{RecvStream, SendStream, VarInt};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Close code for a side that proved no key, or spoke no protocol of ours.
const CODE_NOT_OURS: u32 = 1;

/// A connection. Clones are the same connection; it closes when the last of them and of its streams is dropped.
#[derive(Debug, Clone)]
pub struct Connection {
    quic: quinn::Connection,
    proved: Arc<Proved>,
}

/// What the handshake settled.
#[derive(Debug)]
struct Proved {
    peer_key: [u8; 32],
    alpn: Vec<u8>,
    /// The address that stands for the other side, where quinn knows only a virtual one.
    remote: Option<SocketAddr>,
    /// Whatever must live as long as the connection.
    keep: Option<Box<dyn Keep>>,
}

/// Something that a connection keeps alive.
pub(crate) trait Keep: Send + Sync + std::fmt::Debug {
    /// Whether it is a tunnel, through which the connection goes.
    fn is_tunnel(&self) -> bool {
        false
    }

    /// Where the tunnel comes from, at the node that serves it.
    fn client_ip(&self) -> Option<IpAddr> {
        None
    }
}

impl Connection {
    /// Wraps a finished handshake.
    pub(crate) fn new(quic: quinn::Connection, remote: Option<SocketAddr>, keep: Option<Box<dyn Keep>>) -> Result<Self, TransportError> {
        let alpn = quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok()).and_then(|data| data.protocol);
        match (tls::peer_key(&quic), alpn) {
            (Some(peer_key), Some(alpn)) => Ok(Self { quic, proved: Arc::new(Proved { peer_key, alpn, remote, keep }) }),
            _ => {
                quic.close(VarInt::from_u32(CODE_NOT_OURS), b"no key");
                Err(TransportError::WrongKey)
            }
        }
    }

    /// The Ed25519 public key that the other side proved.
    #[must_use]
    pub fn peer_key(&self) -> [u8; 32] {
        self.proved.peer_key
    }

    /// The protocol both agreed on.
    #[must_use]
    pub fn alpn(&self) -> &[u8] {
        &self.proved.alpn
    }

    /// Where the other side is: a node's or client's real address; where it is reached through a tunnel, the address that stands for the
    /// tunnel; for a peer of a call a virtual one that stays the same whatever path the call takes.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.proved.remote.unwrap_or_else(|| self.quic.remote_address())
    }

    /// Whether it goes through a tunnel over TCP.
    #[must_use]
    pub fn is_tunnelled(&self) -> bool {
        self.proved.keep.as_ref().is_some_and(|keep| keep.is_tunnel())
    }

    /// At a node: where the client, or the proxy that it uses, really is.
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        let tunnel = self.proved.keep.as_ref().and_then(|keep| keep.client_ip());
        tunnel.unwrap_or_else(|| self.remote_address().ip())
    }

    /// Tells this connection from all others of this process.
    #[must_use]
    pub fn id(&self) -> usize {
        self.quic.stable_id()
    }

    /// The smoothed round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// Opens a stream for both directions. The other side sees it when something is sent.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), TransportError> {
        Ok(self.quic.open_bi().await?)
    }

    /// Lets the other side have this many streams for both directions open at a time. Fewer than before takes effect as
    /// streams end.
    pub fn allow_streams(&self, count: u32) {
        self.quic.set_max_concurrent_bi_streams(VarInt::from_u32(count));
    }

    /// Waits for the other side to open a stream for both directions.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), TransportError> {
        Ok(self.quic.accept_bi().await?)
    }

    /// Opens a stream for this direction.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn open_uni(&self) -> Result<SendStream, TransportError> {
        Ok(self.quic.open_uni().await?)
    }

    /// Waits for the other side to open a stream for its direction.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn accept_uni(&self) -> Result<RecvStream, TransportError> {
        Ok(self.quic.accept_uni().await?)
    }

    /// Asks one question on a stream of its own and waits for the answer, both within `timeout`.
    ///
    /// # Errors
    /// [`TransportError::NoAnswer`] if the other side ends the stream instead, [`TransportError::TimedOut`], or what
    /// sending and receiving may meet.
    pub async fn request<Q: Wire, A: Wire>(&self, request: &Q, timeout: Duration) -> Result<A, TransportError> {
        let exchange = async {
            let (mut sending, mut receiving) = self.open_bi().await?;
            send(&mut sending, request).await?;
            // The other side may have answered and stopped reading already.
            let _ = sending.finish();
            receive(&mut receiving).await?.ok_or(TransportError::NoAnswer)
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(TransportError::TimedOut { what: A::NAME }))
    }

    /// Queues a datagram. When the queue is full the oldest in it are dropped.
    ///
    /// # Errors
    /// [`TransportError::Datagram`] if it is too long or this connection carries none; others if the connection has ended.
    pub fn send_datagram(&self, datagram: Bytes) -> Result<(), TransportError> {
        Ok(self.quic.send_datagram(datagram)?)
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn read_datagram(&self) -> Result<Bytes, TransportError> {
        Ok(self.quic.read_datagram().await?)
    }

    /// The longest datagram that can be sent.
    #[must_use]
    pub fn datagram_bytes_max(&self) -> usize {
        self.quic.max_datagram_size().unwrap_or(0)
    }

    /// Ends the connection at once, and tells the other side why.
    pub fn close(&self, code: u32, reason: &str) {
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits for the connection's end, and says why it ended.
    pub async fn closed(&self) -> TransportError {
        self.quic.closed().await.into()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.quic.close_reason().is_some()
    }
}
