//! A leg on a relay: joined on a stream of the connection with it, held as long as the stream.

use super::Relays;
use ahoy_protocol::ids::LegKey;
use ahoy_protocol::relay::{ALPN, Join, LegEvent};
use ahoy_protocol::{CallId, DeviceKey, NodeKey};
use ahoy_transport::{Connection, NodePlace, Reached, SendStream, TransportError, receive, send};
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a relay has for a handshake and for joining a leg: three attempts of QUIC to be heard.
const JOIN_TIME: Duration = Duration::from_secs(3);
/// How long one has to which this device is connected already, or whose distance it knows, besides some round trips: it answers soon, or it is
/// not there any more.
const JOIN_TIME_OF_KNOWN: Duration = Duration::from_secs(1);
/// Round trips that a handshake and joining may take: two, and two that are lost.
const JOIN_ROUND_TRIPS: u32 = 4;
/// How long a relay that is reached through a tunnel has to answer a question over UDP, which is repeated in that time.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Events of a leg that wait: it has one or two in its life.
const LEG_EVENTS_MAX: usize = 8;

/// Why there is no leg.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LegError {
    /// The roster does not list the relay.
    #[error("the relay is not part of this network")]
    Unknown,
    /// The connection.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The relay is full.
    #[error("the relay is full")]
    Busy,
    /// The relay refused.
    #[error("the relay refused: {0}")]
    Refused(String),
    /// The relay said something else.
    #[error("the relay does not keep to the protocol")]
    Protocol,
}

/// A leg: while it is held, the relay carries frames with its channel.
#[derive(Debug)]
pub struct Leg {
    /// Where the relay is, or the pseudo-address of the tunnel to it.
    pub relay: SocketAddr,
    /// The leg's channel.
    pub channel: u32,
    /// For telling the relay that this device sends from elsewhere.
    pub key: LegKey,
    /// True if the other side had joined before.
    pub is_peer_present: bool,
    events: mpsc::Receiver<LegEvent>,
    /// The stream's end leaves, so it is held open.
    _stream: SendStream,
    connection: Connection,
}

impl Leg {
    /// What happens on the leg next; `None` once the relay has gone.
    pub async fn next_event(&mut self) -> Option<LegEvent> {
        self.events.recv().await
    }

    /// The connection with the relay, where it goes over UDP.
    pub fn over_udp(&self) -> Option<Connection> {
        (!self.connection.is_tunnelled()).then(|| self.connection.clone())
    }
}

impl Relays {
    /// Joins `peer` for `call` at a relay.
    ///
    /// # Errors
    /// See [`LegError`].
    pub async fn join(&self, node: &NodeKey, call: CallId, peer: DeviceKey) -> Result<Leg, LegError> {
        let is_kept = self.has_connection(node);
        let known = self.measured(node).map(|rtt| JOIN_TIME_OF_KNOWN + rtt * JOIN_ROUND_TRIPS);
        let limit = known.or(is_kept.then_some(JOIN_TIME_OF_KNOWN)).unwrap_or(JOIN_TIME);
        let mut joined = self.try_join(node, call, peer, limit).await;
        if is_kept && matches!(joined, Err(LegError::Transport(_))) {
            // The connection was there, and the relay was not: it may have begun anew since.
            joined = self.try_join(node, call, peer, JOIN_TIME).await;
        }
        if let Err(LegError::Transport(_)) = &joined {
            self.doubt(node);
        }
        joined
    }

    /// Asks a relay at which there is a leg over `connection` whether it still hears it; where it does not, and a tunnel gets there, joins
    /// again through that. `None`: it answers.
    ///
    /// # Errors
    /// See [`LegError`]; then neither way is open for now.
    pub async fn rejoin(&self, node: &NodeKey, call: CallId, peer: DeviceKey, connection: &Connection) -> Result<Option<Leg>, LegError> {
        let place = self.place(node).ok_or(LegError::Unknown)?;
        let tunnel = match self.endpoint.check_node(connection, &place, node, ALPN).await? {
            Reached::Udp => return Ok(None),
            Reached::Tunnel(tunnel) => tunnel,
        };
        self.keep_connection(node, &tunnel);
        let limit = JOIN_TIME_OF_KNOWN + tunnel.rtt() * JOIN_ROUND_TRIPS;
        let joining = timeout(limit, self.join_over(tunnel, call, peer));
        joining.await.unwrap_or(Err(LegError::Transport(TransportError::TimedOut { what: "a relay" }))).map(Some)
    }

    /// Asks a relay at which there is a leg through a tunnel whether it answers over UDP again; where it does, joins again over that. The leg
    /// through the tunnel is to be held until then. `None`: it does not.
    ///
    /// # Errors
    /// See [`LegError`]; then the relay answers over UDP and takes nobody, for now.
    pub async fn rejoin_over_udp(&self, node: &NodeKey, call: CallId, peer: DeviceKey) -> Result<Option<Leg>, LegError> {
        let place = self.place(node).ok_or(LegError::Unknown)?;
        for address in place.udp {
            if self.endpoint.observe(address, ANSWER_TIME).await.is_none() {
                continue;
            }
            let joining = async {
                let connection = self.endpoint.connect_node(&NodePlace::udp(&[address]), node, ALPN).await?;
                let leg = self.join_over(connection.clone(), call, peer).await?;
                self.keep_connection(node, &connection);
                Ok(leg)
            };
            let joined = timeout(JOIN_TIME, joining).await;
            return joined.unwrap_or(Err(LegError::Transport(TransportError::TimedOut { what: "a relay" }))).map(Some);
        }
        Ok(None)
    }

    async fn try_join(&self, node: &NodeKey, call: CallId, peer: DeviceKey, limit: Duration) -> Result<Leg, LegError> {
        let joining = self.join_without_limit(node, call, peer);
        let joined = timeout(limit, joining).await.unwrap_or(Err(LegError::Transport(TransportError::TimedOut { what: "a relay" })));
        if let Err(LegError::Transport(_)) = &joined {
            self.forget_connection(node);
        }
        joined
    }

    async fn join_without_limit(&self, node: &NodeKey, call: CallId, peer: DeviceKey) -> Result<Leg, LegError> {
        let connection = self.connection(node).await?;
        self.join_over(connection, call, peer).await
    }

    async fn join_over(&self, connection: Connection, call: CallId, peer: DeviceKey) -> Result<Leg, LegError> {
        let (mut stream, mut events) = connection.open_bi().await?;
        let grant = self.grant();
        send(&mut stream, &Join { call, peer, grant }).await?;
        match receive(&mut events).await? {
            Some(LegEvent::Joined { channel, key, peer_present }) => {
                let (told, queue) = mpsc::channel(LEG_EVENTS_MAX);
                // Reading an event must not be given up half-way, so it has a task of its own. It ends with the stream or the leg.
                tokio::spawn(async move {
                    while let Ok(Some(event)) = receive(&mut events).await {
                        if told.send(event).await.is_err() {
                            return;
                        }
                    }
                });
                let relay = connection.remote_address();
                Ok(Leg { relay, channel, key, is_peer_present: peer_present, events: queue, _stream: stream, connection })
            }
            Some(LegEvent::Busy { .. }) => Err(LegError::Busy),
            Some(LegEvent::Refused(reason)) => Err(LegError::Refused(reason.to_string())),
            Some(LegEvent::PeerJoined | LegEvent::PeerLeft) | None => Err(LegError::Protocol),
        }
    }
}
