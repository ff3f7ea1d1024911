//! The other device of a call: one virtual address, whatever way its packets take.

use crate::leg::Leg;
use crate::peer_route::{Out, PeerRoute, Reports};
use crate::shared::Shared;
use crate::{Connection, LegTrouble, PathKind, PathStatus, TransportError, config, tls};
use ahoy_identity::{SigningKey, random};
use ahoy_path::{AgentConfig, AgentStats, LegId, PathAgent, ProbeKeys, Subnet};
use ahoy_protocol::datagram::Side;
use ahoy_protocol::ids::{CallSecret, LegKey};
use ahoy_protocol::peer::{ALPN, Candidate, LEGS_MAX, Mapping};
use ahoy_protocol::{CallId, DeviceKey};
use quinn::{ClientConfig, Endpoint, Incoming};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
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
/// News of legs that wait for their owner: as many as there are legs, twice over.
const LEG_TROUBLES_MAX: usize = 2 * LEGS_MAX;
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
    /// Whether this device may open hundreds of sockets and try a thousand ports where nothing less crosses the routers between the two:
    /// not on battery.
    pub birthday: bool,
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
    leg_troubles: std::sync::Mutex<Option<mpsc::Receiver<LegTrouble>>>,
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
        let (report, status) = watch::channel(PathStatus { kind: PathKind::Relay, rtt: None, is_silent: false });
        let (legs, leg_troubles) = mpsc::channel(LEG_TROUBLES_MAX);
        let mut board = shared.board();
        let config = AgentConfig { side: setup.side, keys, on_link: on_link.to_vec(), rules: board.rules(), birthday: setup.birthday };
        let agent = PathAgent::new(config, u64::from_le_bytes(random()), Instant::now());
        let reports = Reports { status: report, legs, incoming: offer };
        let prefix = board.prefix();
        let at = board.add_peer(PeerRoute::new(agent, setup.side, prefix, reports))?;
        drop(board);
        Ok(Self {
            shared,
            quic,
            at,
            side: setup.side,
            device: setup.peer,
            client,
            incoming: Mutex::new(incoming),
            status,
            leg_troubles: std::sync::Mutex::new(Some(leg_troubles)),
        })
    }

    /// From here on packets may go through the relay at `relay`, a real address or that of a tunnelled
    /// [`Connection`](Connection::remote_address), where this side's channel is `channel`. `leg` is below
    /// [`LEGS_MAX`]; a relay that it had before is replaced. `key` is what the relay gave with the channel.
    ///
    /// False if there is no longer a way to the relay, and so no leg: UDP was switched off, or its tunnel has ended.
    #[must_use]
    pub fn set_leg(&self, leg: u8, relay: SocketAddr, channel: u32, key: LegKey) -> bool {
        if !self.shared.reaches(relay) {
            return false;
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.shared.with(|board, now, out| {
            let joined = Leg::new(relay, channel, key, now, since_epoch);
            board.set_leg(now, self.at, LegId(leg), Some(joined), out);
        });
        true
    }

    /// The leg can be used no longer.
    pub fn clear_leg(&self, leg: u8) {
        self.shared.with(|board, now, out| board.set_leg(now, self.at, LegId(leg), None, out));
    }

    /// Where the other device may be, and what its NAT does. Nothing is sent to its addresses before
    /// [`start_probing`](Self::start_probing). Those that were named before and are not now stay only if
    /// they were heard from.
    pub fn set_peer_network(&self, candidates: &[Candidate], mapping: Mapping) {
        self.with_route(|peer, now, out| peer.set_peer_network(now, candidates, mapping, out));
    }

    /// What this device's own NAT does, as far as it is known.
    pub fn set_own_mapping(&self, mapping: Mapping) {
        self.with_route(|peer, now, out| peer.set_own_mapping(now, mapping, out));
    }

    /// From here on the other device's addresses are probed, and its probes answered, which shows it this device's addresses.
    pub fn start_probing(&self) {
        self.with_route(|peer, now, out| peer.start_probing(now, out));
    }

    /// Which way the call goes; changes when the kind of way does, and when the other device falls silent or is heard again.
    #[must_use]
    pub fn path(&self) -> watch::Receiver<PathStatus> {
        self.status.clone()
    }

    /// What becomes of the legs. For one listener: whoever asks again gets a receiver that has ended.
    #[must_use]
    pub fn leg_events(&self) -> mpsc::Receiver<LegTrouble> {
        let troubles = self.leg_troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        troubles.unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// What has been done to find and keep ways for this call.
    #[must_use]
    pub fn stats(&self) -> AgentStats {
        self.shared.board().peer(self.at).map(|peer| peer.stats()).unwrap_or_default()
    }

    /// The round trip to the other device through a leg, where it is known.
    #[must_use]
    pub fn leg_rtt(&self, leg: u8) -> Option<Duration> {
        self.shared.board().peer(self.at).and_then(|peer| peer.leg_rtt(LegId(leg)))
    }

    /// The route lives as long as its owner.
    fn with_route(&self, act: impl FnOnce(&mut PeerRoute, Instant, Out<'_>)) {
        self.shared.with(|board, now, out| {
            if let Some(peer) = board.peer(self.at) {
                act(peer, now, out);
            }
        });
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
            self.with_route(|peer, _, out| peer.repeat(out));
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
        self.with_route(|peer, now, _| peer.linger(now));
    }
}
