//! Relays: which are near, and connections with them.
//!
//! The distances of all relays are measured when the program starts, when the network changes and now and then while it runs, so that no
//! call waits for that. What is not known yet is offered as unmeasured. The side that is called chooses the relay with the least sum of
//! both distances, from what both know at that time.

mod leg;
mod rank;

pub use leg::{Leg, LegError};
pub use rank::{Distance, rank};

use crate::sessions::Sessions;
use ahoy_protocol::certificate::{NodeRole, RelayGrant};
use ahoy_protocol::directory::{RELAYS_NAMED_MAX, Request, Response};
use ahoy_protocol::invitation::RelayOffer;
use ahoy_protocol::relay::ALPN;
use ahoy_protocol::roster::RosterNode;
use ahoy_protocol::{CallId, NodeKey, Signed};
use ahoy_resilience::share_of;
use ahoy_transport::{ClientEndpoint, Connection, NetworkState, NodePlace};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

/// How long a relay has to show how far it is.
const MEASURE_TIME: Duration = Duration::from_millis(700);
/// How long a relay that does not show it has for a handshake, over TCP if need be, before it counts as out of reach.
const REACH_TIME: Duration = Duration::from_secs(5);
/// How often relays are measured: distances change when the network does, which is noticed, and slowly otherwise.
const MEASURE_EVERY: Duration = Duration::from_secs(240);
/// Relays that answer so soon after the first one are as near.
const OTHERS_TIME: Duration = Duration::from_millis(10);
/// Relays to which a caller connects while nobody rings yet: the callee most likely chooses one of the nearest.
const PREPARED: usize = 2;

/// What this device knows of relays. Clones share it.
#[derive(Debug, Clone)]
pub struct Relays {
    endpoint: ClientEndpoint,
    sessions: Sessions,
    book: Arc<Mutex<Book>>,
    /// Counts changes of the distances.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Book {
    known: BTreeMap<NodeKey, Known>,
    connections: BTreeMap<NodeKey, Connection>,
    /// Held by whoever connects to a relay; others who want the same wait for him.
    connecting: BTreeMap<NodeKey, Arc<tokio::sync::Mutex<()>>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    distance: Distance,
    /// Where it answered first.
    address: Option<SocketAddr>,
}

impl Relays {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(endpoint: ClientEndpoint, sessions: Sessions) -> Self {
        Self { endpoint, sessions, book: Arc::default(), changes: watch::Sender::new(0) }
    }

    /// Relays for a call, the nearest first: those that were measured, and those that were not yet. Empty if there is none, or none answers.
    #[must_use]
    pub fn offers(&self) -> Vec<RelayOffer> {
        let book = self.book();
        let listed = self.listed();
        let mut offers: Vec<RelayOffer> = listed
            .iter()
            .filter_map(|node| {
                let distance = book.known.get(&node.node).map_or(Distance::Unmeasured, |known| known.distance);
                Some(RelayOffer { node: node.node, rtt_ms: distance.in_offer()? })
            })
            .collect();
        offers.sort_by_key(|offer| offer.rtt_ms);
        offers.truncate(RELAYS_NAMED_MAX);
        offers
    }

    /// The relays of this network that the other side offers, the best first.
    #[must_use]
    pub fn choose(&self, call: CallId, offered: &[RelayOffer]) -> Vec<NodeKey> {
        let (book, roster) = (self.book(), self.sessions.roster());
        let distance = |node: &NodeKey| {
            roster.node(NodeRole::Relay, node)?;
            Some(book.known.get(node).map_or(Distance::Unmeasured, |known| known.distance))
        };
        rank(call, offered, distance)
    }

    /// Changes whenever distances do.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Where a relay is, for people.
    #[must_use]
    pub fn address(&self, node: &NodeKey) -> Option<SocketAddr> {
        self.book().known.get(node).and_then(|known| known.address).or_else(|| self.place(node)?.udp.first().copied())
    }

    /// Keeps the distances known, until it is dropped: first of those in the roster, at once; then of those that supernodes say are alive.
    pub async fn keep_measured(self) {
        let mut network = self.endpoint.network();
        self.measure(self.listed()).await;
        self.sessions.online().await;
        loop {
            self.measure(self.named().await).await;
            let pause = MEASURE_EVERY - share_of(MEASURE_EVERY / 10, u64::from_le_bytes(ahoy_identity::random()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = network.changed() => self.measure(self.listed()).await,
            }
        }
    }

    /// Measures relays that have come since the last time.
    pub async fn measure_unknown(&self) {
        let unknown = {
            let book = self.book();
            self.listed().into_iter().filter(|node| !book.known.contains_key(&node.node)).collect()
        };
        self.measure(unknown).await;
    }

    /// Connects to the relays that a call is likely to use, before it is known which: as soon as the first have shown how far they are.
    pub async fn prepare(&self) {
        let mut changes = self.changes();
        let is_measured = |known: &Known| matches!(known.distance, Distance::Measured(_));
        let _ = timeout(MEASURE_TIME, changes.wait_for(|_| self.book().known.values().any(is_measured))).await;
        tokio::time::sleep(OTHERS_TIME).await;
        let mut connecting = JoinSet::new();
        for offer in self.offers().into_iter().take(PREPARED) {
            let relays = self.clone();
            connecting.spawn(async move {
                if let Ok(Err(error)) = timeout(REACH_TIME, relays.connection(&offer.node)).await {
                    debug!(%error, "a relay could not be prepared");
                }
            });
        }
        connecting.join_all().await;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic elsewhere leaves plain values behind that are whole; going on is better than a second panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self) -> Signed<RelayGrant> {
        self.sessions.account().credentials.grant.clone()
    }

    /// The relays in the roster.
    fn listed(&self) -> Vec<RosterNode> {
        self.sessions.roster().nodes_in(NodeRole::Relay).cloned().collect()
    }

    fn place(&self, node: &NodeKey) -> Option<NodePlace> {
        self.sessions.roster().node(NodeRole::Relay, node).map(NodePlace::from)
    }

    /// The relays that a supernode says are alive, or else those in the roster.
    async fn named(&self) -> Vec<RosterNode> {
        let listed = self.listed();
        if let Some(Response::Relays(relays)) = self.sessions.request(Request::Relays).await
            && !relays.is_empty()
        {
            return listed.into_iter().filter(|node| relays.iter().any(|relay| relay.node == node.node)).collect();
        }
        listed
    }

    /// How far a relay is, where that is known.
    fn measured(&self, node: &NodeKey) -> Option<Duration> {
        match self.book().known.get(node)?.distance {
            Distance::Measured(rtt) => Some(rtt),
            Distance::Unmeasured | Distance::Silent => None,
        }
    }

    fn has_connection(&self, node: &NodeKey) -> bool {
        self.book().connections.contains_key(node)
    }

    fn forget_connection(&self, node: &NodeKey) {
        // Not closed: legs of other calls may be on it, and it ends with the last of them.
        self.book().connections.remove(node);
    }

    /// A relay could not be joined: nothing is believed of it until it answers again.
    fn doubt(&self, node: &NodeKey) {
        if let Some(known) = self.book().known.get_mut(node) {
            known.distance = Distance::Unmeasured;
        }
        let Some(listed) = self.sessions.roster().node(NodeRole::Relay, node).cloned() else { return };
        let relays = self.clone();
        tokio::spawn(async move {
            if let Some(found) = relays.observe(&listed).await {
                relays.learn(listed.node, found);
            }
        });
    }

    /// The connection with a relay.
    async fn connection(&self, node: &NodeKey) -> Result<Connection, LegError> {
        let mut place = self.place(node).ok_or(LegError::Unknown)?;
        let turn = self.book().connecting.entry(*node).or_default().clone();
        let _turn = turn.lock().await;
        {
            let book = self.book();
            if let Some(connection) = book.connections.get(node).filter(|connection| !connection.is_closed()) {
                return Ok(connection.clone());
            }
            // Where it answered before is tried first.
            let known = book.known.get(node).and_then(|known| known.address);
            place.udp.sort_by_key(|address| Some(*address) != known);
        }
        let connection = self.endpoint.connect_node(&place, node, ALPN).await?;
        self.keep_connection(node, &connection);
        Ok(connection)
    }

    fn keep_connection(&self, node: &NodeKey, connection: &Connection) {
        let mut book = self.book();
        book.connections.retain(|_, connection| !connection.is_closed());
        book.connections.insert(*node, connection.clone());
    }

    /// The state of this machine's network.
    pub fn network(&self) -> watch::Receiver<NetworkState> {
        self.endpoint.network()
    }

    /// Asks all of these how far they are, all at once. What is found is known as soon as it comes.
    async fn measure(&self, nodes: Vec<RosterNode>) {
        let mut asked = JoinSet::new();
        for node in nodes.into_iter().take(RELAYS_NAMED_MAX) {
            self.book().known.entry(node.node).or_insert(Known { distance: Distance::Unmeasured, address: None });
            let relays = self.clone();
            asked.spawn(async move {
                let found = relays.distance(&node).await;
                relays.learn(node.node, found);
            });
        }
        asked.join_all().await;
    }

    /// How far a relay is; without an answer, by a connection, which also goes where UDP does not.
    async fn distance(&self, node: &RosterNode) -> Known {
        if let Some(known) = self.observe(node).await {
            return known;
        }
        match timeout(REACH_TIME, self.connection(&node.node)).await {
            Ok(Ok(connection)) => Known { distance: Distance::Measured(connection.rtt()), address: None },
            Ok(Err(_)) | Err(_) => Known { distance: Distance::Silent, address: None },
        }
    }

    /// How far a relay is, by the first of its addresses that answers.
    async fn observe(&self, node: &RosterNode) -> Option<Known> {
        let mut asked = JoinSet::new();
        for address in &node.udp {
            let (endpoint, address) = (self.endpoint.clone(), *address);
            asked.spawn(async move { Some((address, endpoint.observe(address, MEASURE_TIME).await?)) });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some((address, observation))) = answer {
                return Some(Known { distance: Distance::Measured(observation.rtt), address: Some(address) });
            }
        }
        None
    }

    fn learn(&self, node: NodeKey, found: Known) {
        let listed = self.listed();
        let mut book = self.book();
        // Those that left the network are forgotten, so that the book does not grow.
        let is_listed = |known: &NodeKey| listed.iter().any(|node| node.node == *known);
        book.known.retain(|known, _| is_listed(known));
        book.connecting.retain(|known, _| is_listed(known));
        book.known.insert(node, found);
        drop(book);
        debug!(?found, "measured a relay");
        self.changes.send_modify(|count| *count += 1);
    }
}
