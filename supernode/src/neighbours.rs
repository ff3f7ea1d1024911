//! Connections to the other supernodes, by which signals are handed on: made before they are needed, and kept.

use crate::sessions::PUSH_TIME_MAX;
use ahoy_node::Backoff;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{ALPN, Request, Response};
use ahoy_protocol::ids::NodeKey;
use ahoy_protocol::roster::{Roster, RosterNode};
use ahoy_transport::{Connection, NodeEndpoint};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A neighbour that has not answered after this long is taken for dead: its connection is closed and made anew.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(2500);
// A neighbour that waits in vain for a device still answers, and must not be taken for dead.
const _: () = assert!(PUSH_TIME_MAX.as_millis() < ANSWER_TIME_MAX.as_millis());
/// Connecting takes at most this long: two round trips round the world, with a loss.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// Neighbours whose connections are kept warm; to others one is made when it is needed.
const WARM_MAX: usize = 64;
/// Attempts to connect at a time while connections are warmed.
const WARMING_MAX: usize = 8;
/// First wait after a neighbour could not be reached, during which signals for it fail at once.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The other supernodes of the roster.
pub(crate) struct Neighbours {
    endpoint: Arc<NodeEndpoint>,
    own: NodeKey,
    links: Mutex<BTreeMap<NodeKey, Arc<Link>>>,
}

struct Link {
    node: NodeKey,
    addresses: Vec<SocketAddr>,
    /// Held while connecting, so that one attempt serves all who wait for it.
    state: tokio::sync::Mutex<LinkState>,
}

struct LinkState {
    connection: Option<Connection>,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

impl Neighbours {
    pub(crate) fn new(endpoint: Arc<NodeEndpoint>, own: NodeKey) -> Self {
        Self { endpoint, own, links: Mutex::default() }
    }

    /// Goes by another roster. Connections to supernodes that are still in it, at the same addresses, stay.
    pub(crate) fn set_roster(&self, roster: &Roster) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *links);
        for node in roster.nodes_in(NodeRole::Supernode).filter(|node| node.node != self.own) {
            let kept = old.remove(&node.node).filter(|link| *link.addresses == *node.udp);
            links.insert(node.node, kept.unwrap_or_else(|| Arc::new(Link::new(node))));
        }
    }

    /// Asks another supernode. `None` if it is none of the roster, or does not answer in time.
    pub(crate) async fn ask(&self, node: &NodeKey, request: &Request) -> Option<Response> {
        let link = self.links.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()?;
        let connection = link.connection(&self.endpoint).await?;
        match connection.request(request, ANSWER_TIME_MAX).await {
            Ok(response) => Some(response),
            Err(error) => {
                tracing::debug!(node = %link.node, %error, "a supernode does not answer");
                link.lose(&connection).await;
                None
            }
        }
    }

    /// Makes the connections that are missing.
    pub(crate) async fn warm(&self) {
        let links: Vec<_> = self.links.lock().unwrap_or_else(PoisonError::into_inner).values().take(WARM_MAX).cloned().collect();
        futures::stream::iter(links).for_each_concurrent(WARMING_MAX, async |link| drop(link.connection(&self.endpoint).await)).await;
    }

    /// Any neighbour, as `chance` says.
    pub(crate) fn any(&self, chance: u64) -> Option<NodeKey> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let count = u64::try_from(links.len()).ok().filter(|count| *count > 0)?;
        links.keys().nth(usize::try_from(chance % count).ok()?).copied()
    }
}

impl Link {
    fn new(node: &RosterNode) -> Self {
        let state = LinkState { connection: None, backoff: Backoff::new(RETRY_FIRST, RETRY_MAX), retry_at: None };
        Self { node: node.node, addresses: node.udp.to_vec(), state: state.into() }
    }

    /// The connection, made if there is none; `None` if that failed just before or fails.
    async fn connection(&self, endpoint: &NodeEndpoint) -> Option<Connection> {
        let mut state = self.state.lock().await;
        if let Some(connection) = state.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Some(connection.clone());
        }
        if state.retry_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        state.connection = self.connect(endpoint).await;
        if state.connection.is_some() {
            state.backoff.after_success();
            state.retry_at = None;
        } else {
            let wait = state.backoff.after_failure(u64::from_le_bytes(ahoy_identity::random()));
            state.retry_at = Some(Instant::now() + wait);
        }
        state.connection.clone()
    }

    async fn connect(&self, endpoint: &NodeEndpoint) -> Option<Connection> {
        let attempts = self.addresses.iter().map(|address| Box::pin(endpoint.connect(*address, &self.node, ALPN)));
        let attempts: Vec<_> = attempts.collect();
        if attempts.is_empty() {
            return None;
        }
        match tokio::time::timeout(CONNECT_TIME_MAX, futures::future::select_ok(attempts)).await {
            Ok(Ok((connection, _))) => Some(connection),
            Ok(Err(error)) => {
                tracing::debug!(node = %self.node, %error, "a supernode cannot be reached");
                None
            }
            Err(_) => None,
        }
    }

    async fn lose(&self, connection: &Connection) {
        connection.close(0, "no answer");
        let mut state = self.state.lock().await;
        if state.connection.as_ref().is_some_and(|current| current.id() == connection.id()) {
            state.connection = None;
        }
    }
}
