//! The relay's control plane: who is connected, and which leg each stream stands for.

use crate::data_plane::SharedForwarder;
use crate::forwarder::{JoinError, LegRequest};
use crate::leg;
use crate::limits::{ADDRESS_SWEEP_INTERVAL, BUSY_RETRY, CONNECTIONS_MAX, CONNECTIONS_PER_PREFIX_MAX};
use crate::standing::Standing;
use ahoy_identity::random;
use ahoy_node::{Admission, Node};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::ALTERNATIVES_MAX;
use ahoy_protocol::ids::LegKey;
use ahoy_protocol::relay::{Join, LegEvent};
use ahoy_protocol::{DeviceKey, List, NodeKey, Text};
use ahoy_transport::{Connection, Handshaking, NodeEndpoint};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{self, sleep_until};

/// Close code for a client that broke the protocol or was refused too often.
const CODE_MISBEHAVED: u32 = 2;
/// Close code for a connection that had no leg for too long.
const CODE_UNUSED: u32 = 3;

/// How a leg stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegState {
    /// The other leg is not there.
    Alone,
    /// It is joined with the other leg.
    Together,
    /// A later leg of the same device took its place.
    Replaced,
}

/// What all connections share.
pub(crate) struct Control {
    node: Arc<Node>,
    forwarder: SharedForwarder,
    /// Locked before the forwarder where both are, so that a leg that the forwarder knows is always found here.
    legs: Mutex<HashMap<u32, LegHandle>>,
    admission: Arc<Admission>,
}

/// A leg as others reach it.
struct LegHandle {
    state: watch::Sender<LegState>,
    connection: Connection,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) connection: Connection,
    /// Where the handshake came from. QUIC follows later packets elsewhere before it knows that the client is there.
    pub(crate) proved: SocketAddr,
}

impl Control {
    pub(crate) fn new(node: Arc<Node>, forwarder: SharedForwarder) -> Self {
        let admission = Admission::new(CONNECTIONS_MAX, CONNECTIONS_PER_PREFIX_MAX);
        Self { node, forwarder, legs: Mutex::default(), admission }
    }

    /// Serves whoever connects, until the endpoint closes.
    pub(crate) async fn accept(self: Arc<Self>, endpoint: Arc<NodeEndpoint>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                handshaking = endpoint.accept() => match handshaking {
                    Some(handshaking) => { connections.spawn(self.clone().serve(handshaking)); }
                    None => return,
                },
                Some(ended) = connections.join_next() => {
                    if let Err(problem) = ended {
                        tracing::error!(%problem, "a connection's task failed");
                    }
                }
            }
        }
    }

    /// Looks from where connections come, so that legs follow QUIC's migration to a NAT's new mapping: at once for the
    /// channels that come in, and for all legs now and then.
    pub(crate) async fn look_at_addresses(self: Arc<Self>, mut looks: mpsc::Receiver<u32>) {
        let mut sweep = time::interval(ADDRESS_SWEEP_INTERVAL);
        loop {
            let seen: Vec<(u32, SocketAddr)> = tokio::select! {
                channel = looks.recv() => match channel {
                    Some(channel) => self.legs().get(&channel).map(|leg| (channel, leg.connection.remote_address())).into_iter().collect(),
                    None => return,
                },
                _ = sweep.tick() => self.legs().iter().map(|(channel, leg)| (*channel, leg.connection.remote_address())).collect(),
            };
            for (channel, address) in seen {
                // One lock for each, so that frames pass between them.
                self.forwarder.lock().set_address(Instant::now(), channel, address);
            }
        }
    }

    async fn serve(self: Arc<Self>, handshaking: Handshaking) {
        let Some(_place) = self.admission.enter(handshaking.client_ip()) else { return };
        match handshaking.finish().await {
            Ok(connection) => self.serve_connection(connection).await,
            Err(problem) => tracing::debug!(%problem, "a handshake failed"),
        }
    }

    /// Serves the legs of one client. Dropping the set of streams ends them all.
    async fn serve_connection(self: Arc<Self>, connection: Connection) {
        let client = Client { proved: connection.remote_address(), connection: connection.clone() };
        let mut streams = JoinSet::new();
        let mut standing = Standing::new(time::Instant::now());
        loop {
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok(stream) => { streams.spawn(leg::serve(self.clone(), client.clone(), stream)); }
                    Err(_) => return,
                },
                Some(end) = streams.join_next() => {
                    match end.map(|end| standing.stream_ended(end, time::Instant::now())) {
                        Ok(Ok(())) => {}
                        Ok(Err(why)) => return connection.close(CODE_MISBEHAVED, why),
                        Err(problem) => tracing::error!(%problem, "a leg's task failed"),
                    }
                }
                () = sleep_until(standing.unused_until()), if streams.is_empty() => return connection.close(CODE_UNUSED, "no leg"),
            }
        }
    }

    /// Gives the client the leg it asks for, or says why not.
    pub(crate) fn join(self: &Arc<Self>, client: &Client, join: &Join) -> Result<Leg, LegEvent> {
        let device = DeviceKey(client.connection.peer_key());
        let grant = self
            .node
            .network()
            .verify_grant(&join.grant, &device, SystemTime::now().into())
            .map_err(|problem| refused(&format!("the grant does not count: {problem}")))?;
        let request = LegRequest {
            call: join.call,
            device,
            peer: join.peer,
            address: client.connection.remote_address(),
            proved: client.proved,
            kbit_per_s: grant.kbit_per_s,
            key: LegKey(random()),
        };
        let mut legs = self.legs();
        let joined = self.forwarder.lock().join(Instant::now(), request, u32::from_be_bytes(random())).map_err(|error| match error {
            JoinError::Full => self.busy(),
            JoinError::DeviceFull | JoinError::Itself => refused(&error.to_string()),
        })?;
        if let Some(older) = joined.replaced.and_then(|older| legs.remove(&older)) {
            older.state.send_replace(LegState::Replaced);
        }
        if let Some(other) = joined.with.and_then(|other| legs.get(&other)) {
            other.state.send_replace(LegState::Together);
        }
        let state = watch::Sender::new(if joined.with.is_some() { LegState::Together } else { LegState::Alone });
        let leg = Leg { channel: joined.channel, key: request.key, state: state.subscribe(), control: self.clone() };
        legs.insert(joined.channel, LegHandle { state, connection: client.connection.clone() });
        Ok(leg)
    }

    fn leave(&self, channel: u32) {
        let mut legs = self.legs();
        let alone = self.forwarder.lock().leave(channel);
        legs.remove(&channel);
        if let Some(other) = alone.and_then(|other| legs.get(&other)) {
            other.state.send_replace(LegState::Alone);
        }
    }

    /// "Not now", with up to three other relays, beginning at a random one.
    fn busy(&self) -> LegEvent {
        let roster = self.node.roster().borrow().clone();
        let own = self.node.key().node_key();
        let mut others: Vec<NodeKey> =
            roster.roster.nodes_in(NodeRole::Relay).map(|relay| relay.node).filter(|relay| *relay != own).collect();
        if !others.is_empty() {
            let first = u32::from_be_bytes(random()) as usize % others.len();
            others.rotate_left(first);
        }
        others.truncate(ALTERNATIVES_MAX);
        let retry_after_ms = u32::try_from(BUSY_RETRY.as_millis()).unwrap_or(u32::MAX);
        LegEvent::Busy { retry_after_ms, alternatives: List::first_of(others) }
    }

    fn legs(&self) -> MutexGuard<'_, HashMap<u32, LegHandle>> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(why: &str) -> LegEvent {
    LegEvent::Refused(Text::fitting(why))
}

/// A leg in the hands of its stream. Dropping it leaves.
pub(crate) struct Leg {
    pub(crate) channel: u32,
    pub(crate) key: LegKey,
    pub(crate) state: watch::Receiver<LegState>,
    control: Arc<Control>,
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.control.leave(self.channel);
    }
}
