//! The other device of a call: one virtual address, whatever way its packets take.

use crate::path_socket::Shared;
use crate::peer_route::PeerRoute;
use crate::{Connection, PathKind, PathStatus, TransportError, config, tls};
use ahoy_identity::{SigningKey, random};
use ahoy_path::{AgentConfig, PathAgent, ProbeKeys, Subnet};
use ahoy_protocol::datagram::Side;
use ahoy_protocol::ids::CallSecret;
use ahoy_protocol::peer::{ALPN, Candidate};
use ahoy_protocol::{CallId, DeviceKey};
use quinn::{ClientConfig, Endpoint, Incoming};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, watch};

/// How long a peer's handshake may take, from the first packet on. The callee may still be on its way to the relay.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long one that has reached the callee may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// While the handshake lasts, the last packet is repeated this often. QUIC's own repeats become rare within a second,
/// and a call should begin as soon as the other side is there to hear it.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
/// Handshakes that a callee lets fail: a relay may begin some in the caller's place, but cannot finish them.
const FAILED_HANDSHAKES_MAX: usize = 16;
/// Close code towards one who proved another key than the peer's.
const CODE_WRONG_KEY: u32 = 2;

/// Whom a call is with.
#[derive(Debug, Clone)]
pub struct PeerSetup {
    /// The call.
    pub call: CallId,
    /// Its secret, which only the two devices know.
    pub secret: CallSecret,
    /// This device.
    pub me: DeviceKey,
    /// The other device.
    pub peer: DeviceKey,
    /// Which side this device is.
    pub side: Side,
}

/// The other device of a call. Dropping it ends the call's routes, a moment later, so that a farewell still gets out.
#[derive(Debug)]
pub struct Peer {
    shared: Arc<Shared>,
    quic: Endpoint,
    /// The virtual address.
    at: SocketAddr,
    side: Side,
    device: DeviceKey,
    client: ClientConfig,
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    status: watch::Receiver<PathStatus>,
}

impl Peer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        quic: Endpoint,
        device: &SigningKey,
        setup: &PeerSetup,
        on_link: &[Subnet],
    ) -> Result<Self, TransportError> {
        let (caller, callee) = match setup.side {
            Side::Caller => (&setup.me, &setup.peer),
            Side::Callee => (&setup.peer, &setup.me),
        };
        let keys = ProbeKeys::derive(&setup.secret, &setup.call, caller, callee);
        let mut client = ClientConfig::new(tls::client(device, setup.peer.as_bytes(), ALPN)?);
        client.transport_config(config::call());
        let (offer, incoming) = mpsc::channel(1);
        let (report, status) = watch::channel(PathStatus { kind: PathKind::Relay, rtt: None });
        let mut board = shared.board();
        let config = AgentConfig { side: setup.side, keys, on_link: on_link.to_vec(), rules: board.rules() };
        let agent = PathAgent::new(config, u64::from_le_bytes(random()), Instant::now());
        let at = board.add_peer(PeerRoute::new(agent, setup.side, offer, report))?;
        drop(board);
        Ok(Self { shared, quic, at, side: setup.side, device: setup.peer, client, incoming: Mutex::new(incoming), status })
    }

    /// From here on packets may go through the relay at `relay`, where this side's channel is `channel`.
    pub fn set_relay(&self, relay: SocketAddr, channel: u32) {
        let reaches = self.shared.reaches(relay);
        self.shared.with(|board, now, out| {
            if reaches
                && board.is_real(relay)
                && let Some(peer) = board.peer(self.at)
            {
                peer.set_relay(now, Some((relay, channel)), out);
            }
        });
    }

    /// The relay can be used no longer.
    pub fn clear_relay(&self) {
        self.shared.with(|board, now, out| {
            if let Some(peer) = board.peer(self.at) {
                peer.set_relay(now, None, out);
            }
        });
    }

    /// Adds addresses at which the other device may be. Nothing is sent to them before [`start_probing`](Self::start_probing).
    pub fn add_remote_candidates(&self, candidates: &[Candidate]) {
        self.shared.with(|board, now, out| {
            if let Some(peer) = board.peer(self.at) {
                peer.add_remote(now, candidates, out);
            }
        });
    }

    /// From here on the other device's addresses are probed, and its probes answered, which shows it this device's addresses.
    pub fn start_probing(&self) {
        self.shared.with(|board, now, out| {
            if let Some(peer) = board.peer(self.at) {
                peer.start_probing(now, out);
            }
        });
    }

    /// Which way the call goes; changes when the kind of way does.
    #[must_use]
    pub fn path(&self) -> watch::Receiver<PathStatus> {
        self.status.clone()
    }

    /// Connects to the other device, which must prove its key: for the caller. May begin before there is a relay.
    ///
    /// # Errors
    /// [`TransportError::WrongKey`] if another answers, [`TransportError::TimedOut`] if none does within half a minute.
    pub async fn connect(&self) -> Result<Connection, TransportError> {
        if self.side != Side::Caller {
            return Err(TransportError::Setup("the caller connects".into()));
        }
        let connecting = self
            .quic
            .connect_with(self.client.clone(), self.at, tls::SERVER_NAME)
            .map_err(|error| TransportError::Setup(error.to_string()))?;
        let quic = tokio::select! {
            quic = connecting => quic?,
            () = self.repeat() => return Err(TransportError::TimedOut { what: "the peer's handshake" }),
        };
        self.checked(Connection::new(quic, None, None)?)
    }

    /// Sends the last packet again and again, for as long as a handshake may take.
    async fn repeat(&self) {
        for _ in 0..CONNECT_TIME_MAX.as_millis() / REPEAT_AFTER.as_millis() {
            tokio::time::sleep(REPEAT_AFTER).await;
            self.shared.with(|board, _, out| {
                if let Some(peer) = board.peer(self.at) {
                    peer.replay(1, out);
                }
            });
        }
    }

    /// Waits for the other device to connect and prove its key: for the callee. How long is the caller's to say.
    ///
    /// # Errors
    /// If the endpoint is closed, or too many others tried in its place.
    pub async fn accept(&self) -> Result<Connection, TransportError> {
        if self.side != Side::Callee {
            return Err(TransportError::Setup("the callee accepts".into()));
        }
        let mut incoming = self.incoming.lock().await;
        for _ in 0..FAILED_HANDSHAKES_MAX {
            let attempt = incoming.recv().await.ok_or(TransportError::ClosedHere)?;
            match self.shake_hands(attempt).await {
                Ok(connection) => return Ok(connection),
                Err(error) => tracing::debug!(%error, "a handshake in the peer's place failed"),
            }
        }
        Err(TransportError::TooMany { what: "failed handshakes" })
    }

    async fn shake_hands(&self, attempt: Incoming) -> Result<Connection, TransportError> {
        let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, attempt.accept()?).await;
        let quic = handshake.map_err(|_| TransportError::TimedOut { what: "the peer's handshake" })??;
        self.checked(Connection::new(quic, None, None)?)
    }

    fn checked(&self, connection: Connection) -> Result<Connection, TransportError> {
        if connection.peer_key() == *self.device.as_bytes() {
            return Ok(connection);
        }
        connection.close(CODE_WRONG_KEY, "wrong key");
        Err(TransportError::WrongKey)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.with(|board, now, _| {
            if let Some(peer) = board.peer(self.at) {
                peer.linger(now);
            }
        });
    }
}
