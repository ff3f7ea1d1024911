//! Relays: which are near, and legs on them.
//!
//! Supernodes name the relays that are alive; this device measures how far each is, and offers those it reaches. The side that is
//! called chooses the one with the least sum of both distances.

use crate::sessions::Sessions;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{RELAYS_NAMED_MAX, Request, Response};
use ahoy_protocol::invitation::RelayOffer;
use ahoy_protocol::relay::{ALPN, Join, LegEvent};
use ahoy_protocol::{CallId, DeviceKey, NodeKey};
use ahoy_resilience::share_of;
use ahoy_transport::{ClientEndpoint, Connection, SendStream, TransportError, receive, send};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

/// How long a relay has to show how far it is.
const MEASURE_TIME: Duration = Duration::from_millis(700);
/// How long a measurement is good for: distances change when the network does, which a call notices by itself.
const MEASURED_FOR: Duration = Duration::from_secs(300);
/// How often relays are measured by a device that is online, so that a call need not wait for it.
const MEASURE_EVERY: Duration = Duration::from_secs(240);
/// How long a relay has for a handshake, and for joining a leg.
const JOIN_TIME: Duration = Duration::from_secs(4);

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

/// A relay that answered.
#[derive(Debug, Clone, Copy)]
struct Measured {
    address: SocketAddr,
    rtt: Duration,
    at: Instant,
}

/// What this device knows of relays. Clones share it.
#[derive(Debug, Clone)]
pub struct Relays {
    endpoint: ClientEndpoint,
    sessions: Sessions,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    measured: BTreeMap<NodeKey, Measured>,
    connections: BTreeMap<NodeKey, Connection>,
}

/// A leg: while it is held, the relay carries frames with its channel.
#[derive(Debug)]
pub struct Leg {
    /// Where the relay is.
    pub relay: SocketAddr,
    /// The leg's channel.
    pub channel: u32,
    /// True once the other side has joined.
    pub is_peer_present: bool,
    events: mpsc::Receiver<LegEvent>,
    /// The stream's end leaves, so it is held open.
    _stream: SendStream,
    _connection: Connection,
}

/// Events of a leg that wait: it has one or two in its life.
const LEG_EVENTS_MAX: usize = 8;

impl Relays {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(endpoint: ClientEndpoint, sessions: Sessions) -> Self {
        Self { endpoint, sessions, book: Arc::default() }
    }

    /// The relays that this device reaches, the nearest first.
    pub async fn offers(&self) -> Vec<RelayOffer> {
        let is_stale = |measured: &Measured| measured.at.elapsed() > MEASURED_FOR;
        let is_due = {
            let book = self.book.lock().await;
            book.measured.is_empty() || book.measured.values().any(is_stale)
        };
        if is_due {
            // Not under the lock: another call may want a relay that is known.
            let measured = self.measure(self.named().await).await;
            self.book.lock().await.measured = measured;
        }
        let book = self.book.lock().await;
        let mut offers: Vec<RelayOffer> =
            book.measured.iter().map(|(node, measured)| RelayOffer { node: *node, rtt_ms: in_millis(measured.rtt) }).collect();
        offers.sort_by_key(|offer| offer.rtt_ms);
        offers
    }

    /// Keeps the distances known, until it is dropped.
    pub async fn keep_measured(self) {
        loop {
            self.sessions.online().await;
            let measured = self.measure(self.named().await).await;
            self.book.lock().await.measured = measured;
            tokio::time::sleep(MEASURE_EVERY - share_of(MEASURE_EVERY / 10, u64::from_le_bytes(ahoy_identity::random()))).await;
        }
    }

    /// Connects to a relay that a call is likely to use, while it rings.
    pub async fn prepare(&self, node: &NodeKey) {
        if let Ok(Err(error)) = timeout(JOIN_TIME, self.connection(node)).await {
            debug!(%error, "a relay could not be prepared");
        }
    }

    /// Of relays that the other side offers, those that this device reaches too, the least sum of distances first.
    pub async fn choose(&self, offered: &[RelayOffer]) -> Vec<NodeKey> {
        let unknown: Vec<NodeKey> = {
            let book = self.book.lock().await;
            let is_fresh = |node: &NodeKey| book.measured.get(node).is_some_and(|measured| measured.at.elapsed() <= MEASURED_FOR);
            offered.iter().map(|offer| offer.node).filter(|node| !is_fresh(node)).collect()
        };
        let measured = self.measure(unknown).await;
        let mut book = self.book.lock().await;
        book.measured.extend(measured);
        let sum =
            |offer: &RelayOffer| Some((u32::from(in_millis(book.measured.get(&offer.node)?.rtt)) + u32::from(offer.rtt_ms), offer.node));
        let mut sums: Vec<(u32, NodeKey)> = offered.iter().filter_map(sum).collect();
        sums.sort();
        sums.into_iter().map(|(_, node)| node).collect()
    }

    /// Joins `peer` for `call` at a relay.
    ///
    /// # Errors
    /// See [`LegError`].
    pub async fn join(&self, node: &NodeKey, call: CallId, peer: DeviceKey) -> Result<Leg, LegError> {
        let kept = self.book.lock().await.connections.contains_key(node);
        let joined = self.try_join(node, call, peer).await;
        match joined {
            // The connection was there, and the relay was not: it may have begun anew since.
            Err(LegError::Transport(_)) if kept => self.try_join(node, call, peer).await,
            joined => joined,
        }
    }

    async fn try_join(&self, node: &NodeKey, call: CallId, peer: DeviceKey) -> Result<Leg, LegError> {
        let joining = self.join_without_limit(node, call, peer);
        let joined = timeout(JOIN_TIME, joining).await.unwrap_or(Err(LegError::Transport(TransportError::TimedOut { what: "a relay" })));
        if let Err(LegError::Transport(_)) = &joined {
            let mut book = self.book.lock().await;
            book.measured.remove(node);
            if let Some(connection) = book.connections.remove(node) {
                connection.close(0, "silent");
            }
        }
        joined
    }

    async fn join_without_limit(&self, node: &NodeKey, call: CallId, peer: DeviceKey) -> Result<Leg, LegError> {
        let (connection, relay) = self.connection(node).await?;
        let (mut stream, mut events) = connection.open_bi().await?;
        let grant = self.sessions.account().credentials.grant.clone();
        send(&mut stream, &Join { call, peer, grant }).await?;
        match receive(&mut events).await? {
            Some(LegEvent::Joined { channel, peer_present }) => {
                let (told, queue) = mpsc::channel(LEG_EVENTS_MAX);
                // Reading an event must not be given up half-way, so it has a task of its own. It ends with the stream or the leg.
                tokio::spawn(async move {
                    while let Ok(Some(event)) = receive(&mut events).await {
                        if told.send(event).await.is_err() {
                            return;
                        }
                    }
                });
                Ok(Leg { relay, channel, is_peer_present: peer_present, events: queue, _stream: stream, _connection: connection })
            }
            Some(LegEvent::Busy { .. }) => Err(LegError::Busy),
            Some(LegEvent::Refused(reason)) => Err(LegError::Refused(reason.to_string())),
            Some(LegEvent::PeerJoined | LegEvent::PeerLeft) | None => Err(LegError::Protocol),
        }
    }

    /// The connection with a relay, and where the relay is.
    async fn connection(&self, node: &NodeKey) -> Result<(Connection, SocketAddr), LegError> {
        let listed = self.sessions.roster().node(NodeRole::Relay, node).cloned().ok_or(LegError::Unknown)?;
        let (address, kept) = {
            let book = self.book.lock().await;
            let address = book.measured.get(node).map(|measured| measured.address).filter(|address| listed.udp.contains(address));
            let address = address.or_else(|| listed.udp.first().copied()).ok_or(LegError::Unknown)?;
            (address, book.connections.get(node).filter(|connection| !connection.is_closed()).cloned())
        };
        if let Some(connection) = kept {
            return Ok((connection, address));
        }
        let connection = self.endpoint.connect_node(&[address], node, ALPN).await?;
        let mut book = self.book.lock().await;
        book.connections.retain(|_, connection| !connection.is_closed());
        book.connections.insert(*node, connection.clone());
        Ok((connection, address))
    }

    /// The relays that a supernode says are alive, or else all in the roster.
    async fn named(&self) -> Vec<NodeKey> {
        if let Some(Response::Relays(relays)) = self.sessions.request(Request::Relays).await
            && !relays.is_empty()
        {
            return relays.iter().map(|relay| relay.node).collect();
        }
        self.sessions.roster().nodes_in(NodeRole::Relay).map(|node| node.node).take(RELAYS_NAMED_MAX).collect()
    }

    /// Asks each relay at each of its addresses; the first answer counts.
    async fn measure(&self, nodes: Vec<NodeKey>) -> BTreeMap<NodeKey, Measured> {
        let roster = self.sessions.roster();
        let mut asked = JoinSet::new();
        for node in nodes.into_iter().take(RELAYS_NAMED_MAX) {
            for address in roster.node(NodeRole::Relay, &node).map(|listed| listed.udp.to_vec()).unwrap_or_default() {
                let endpoint = self.endpoint.clone();
                asked.spawn(async move {
                    let observation = endpoint.observe(address, MEASURE_TIME).await?;
                    Some((node, Measured { address, rtt: observation.rtt, at: Instant::now() }))
                });
            }
        }
        let mut measured = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some((node, found))) = answer {
                measured.entry(node).or_insert(found);
            }
        }
        debug!(relays = measured.len(), "measured relays");
        measured
    }
}

impl Leg {
    /// What happens on the leg next; `None` once the relay has gone.
    pub async fn next_event(&mut self) -> Option<LegEvent> {
        let event = self.events.recv().await?;
        match event {
            LegEvent::PeerJoined => self.is_peer_present = true,
            LegEvent::PeerLeft => self.is_peer_present = false,
            LegEvent::Joined { .. } | LegEvent::Busy { .. } | LegEvent::Refused(_) => {}
        }
        Some(event)
    }

    /// Waits until the other side has joined. False if the relay went before that.
    pub async fn peer_joined(&mut self) -> bool {
        while !self.is_peer_present {
            if self.next_event().await.is_none() {
                return false;
            }
        }
        true
    }
}

fn in_millis(rtt: Duration) -> u16 {
    // Rounded up, so that a relay on this machine is not taken for one that was never measured by somebody who divides.
    u16::try_from(rtt.as_micros().div_ceil(1000)).unwrap_or(u16::MAX)
}
