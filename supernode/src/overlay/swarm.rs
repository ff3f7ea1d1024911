//! The task in which libp2p runs.

use super::dialer::Dialer;
use super::door::Door;
use super::kept::{KeptRecords, kept_until, new_record};
use super::{Answer, Command, KEEPERS, Member, OverlayError, multiaddr, socket_address};
use crate::shelf::{Copy, Shelf};
use ahoy_identity::SigningKey;
use ahoy_protocol::ids::RecordKey;
use ahoy_protocol::record::USER_RECORD_KEPT;
use futures::StreamExt;
use libp2p::allow_block_list::{self, AllowedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::kad::{self, GetClosestPeersError, GetRecordOk, QueryId, QueryResult, Quorum};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, ping, tcp, yamux};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

/// Name and version of the overlay's Kademlia.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/ahoy/kad/1");
/// Supernodes asked at a time in a walk, each on a path of its own, so that one that lies does not lead all of them astray.
const PARALLELISM: NonZeroUsize = NonZeroUsize::new(3).expect("not zero");
/// A walk is given up after this long; whoever waits for it has an answer for his client much sooner.
const WALK_TIME_MAX: Duration = Duration::from_secs(5);
/// A single question to a supernode is given up after this long.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(2);
/// The keepers of a key are searched for at most this long: a client waits for what is then stored there.
const KEEPERS_TIME_MAX: Duration = Duration::from_secs(1);
/// How often a supernode hands what it keeps to the keepers: a record whose keepers changed is whole again after this long. A
/// supernode that is handed a record skips its own turn, so that one of the keepers does it.
const REPLICATION_INTERVAL: Duration = Duration::from_secs(120);
/// How often a connection is tested, and how long the answer may take: a machine that vanished without a word is noticed within both.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// See [`PING_INTERVAL`].
const PING_TIME_MAX: Duration = Duration::from_secs(5);
/// A handshake is given up after this long: three round trips round the world, and a loss.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Connections with one supernode: each of the two may have dialled, and one of each may be about to close.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Connections in all: twice as many as a roster has nodes.
const CONNECTIONS_MAX: u32 = 1024;
/// Questions under way. Beyond this no more are begun, and their askers go on without an answer.
const QUERIES_MAX: usize = 4096;
/// How often connections, abandoned walks and hand-overs are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Copies on their way at a time to a supernode that has just connected: half of the questions that Kademlia has under way with
/// one, so that a hand-over does not hold up look-ups. A copy that is refused takes [`QUESTION_TIME_MAX`] of its place.
const HANDOVER_WINDOW: usize = 16;
/// Hand-overs that may go on at a time; others wait for the regular replication.
const HANDOVERS_MAX: usize = 8;

#[derive(NetworkBehaviour)]
pub(super) struct Plane {
    // First, so that whoever is not in the roster is turned away before any other protocol hears of him.
    members: allow_block_list::Behaviour<AllowedPeers>,
    door: Door,
    limits: connection_limits::Behaviour,
    kad: kad::Behaviour<KeptRecords>,
    ping: ping::Behaviour,
}

/// Makes the swarm and waits until it listens.
pub(super) async fn listen(key: &SigningKey, listen: SocketAddr, shelf: Arc<Shelf>) -> Result<(Swarm<Plane>, SocketAddr), OverlayError> {
    let mut swarm = build(key, shelf).map_err(OverlayError::Setup)?;
    let failed = |reason: String| OverlayError::Listen { address: listen, reason };
    swarm.listen_on(multiaddr(listen)).map_err(|error| failed(innermost(&error)))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let port = socket_address(&address).ok_or_else(|| failed(format!("{address} is no TCP address")))?.port();
                return Ok((swarm, SocketAddr::new(listen.ip(), port)));
            }
            SwarmEvent::ListenerError { error, .. } => return Err(failed(error.to_string())),
            SwarmEvent::ListenerClosed { reason, .. } => return Err(failed(format!("{reason:?}"))),
            _ => {}
        }
    }
}

fn build(key: &SigningKey, shelf: Arc<Shelf>) -> Result<Swarm<Plane>, String> {
    let identity = libp2p::identity::Keypair::ed25519_from_bytes(*key.seed()).map_err(|error| error.to_string())?;
    let own = identity.public().to_peer_id();
    let swarm = SwarmBuilder::with_existing_identity(identity)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| error.to_string())?
        .with_behaviour(|_| plane(own, shelf))
        .map_err(|error| error.to_string())?
        // Supernodes stay connected; who is silent too long is found out by the ping.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(u64::MAX)))
        .with_connection_timeout(HANDSHAKE_TIME_MAX)
        .build();
    Ok(swarm)
}

fn plane(own: PeerId, shelf: Arc<Shelf>) -> Plane {
    let mut config = kad::Config::new(PROTOCOL);
    config
        .set_replication_factor(KEEPERS)
        .set_parallelism(PARALLELISM)
        .disjoint_query_paths(true)
        .set_query_timeout(WALK_TIME_MAX)
        .set_substreams_timeout(QUESTION_TIME_MAX)
        .set_record_ttl(Some(USER_RECORD_KEPT))
        .set_replication_interval(Some(REPLICATION_INTERVAL))
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        // The roster says who there is; nobody has to be discovered.
        .set_periodic_bootstrap_interval(None)
        .set_kbucket_inserts(kad::BucketInserts::Manual);
    let mut kad = kad::Behaviour::with_config(own, KeptRecords::new(shelf), config);
    kad.set_mode(Some(kad::Mode::Server));
    let limits = ConnectionLimits::default()
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
        .with_max_established(Some(CONNECTIONS_MAX));
    Plane {
        members: allow_block_list::Behaviour::default(),
        door: Door::default(),
        limits: connection_limits::Behaviour::new(limits),
        kad,
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIME_MAX)),
    }
}

/// What a running query is for.
enum Query {
    Get { answers: mpsc::Sender<Answer>, asked: watch::Sender<Option<u32>> },
    Keepers { key: RecordKey, reply: oneshot::Sender<Vec<PeerId>>, until: Instant },
    Put(Option<oneshot::Sender<bool>>),
    Handover(PeerId),
}

/// How far a supernode that has just connected was handed what it should keep.
#[derive(Debug, Default)]
struct Handover {
    /// The last key that was looked at.
    last: Option<RecordKey>,
    in_flight: usize,
}

pub(super) struct Task {
    swarm: Swarm<Plane>,
    shelf: Arc<Shelf>,
    commands: mpsc::Receiver<Command>,
    connected: watch::Sender<usize>,
    members: BTreeMap<PeerId, Vec<Multiaddr>>,
    dialer: Dialer,
    queries: HashMap<QueryId, Query>,
    handovers: BTreeMap<PeerId, Handover>,
}

impl Task {
    pub(super) fn new(swarm: Swarm<Plane>, shelf: Arc<Shelf>, commands: mpsc::Receiver<Command>, connected: watch::Sender<usize>) -> Self {
        let dialer = Dialer::new(ahoy_identity::random());
        Self { swarm, shelf, commands, connected, members: BTreeMap::new(), dialer, queries: HashMap::new(), handovers: BTreeMap::new() }
    }

    /// Runs until the last handle is dropped.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.handle_event(event),
                _ = tick.tick() => self.handle_tick(Instant::now()),
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        if let Command::Members(members) = command {
            return self.set_members(members);
        }
        if self.queries.len() >= QUERIES_MAX {
            return;
        }
        match command {
            Command::Members(_) => {}
            Command::Get { key, answers, asked } => {
                let id = self.kad().get_record(kad::RecordKey::new(key.as_bytes()));
                asked.send_replace(Some(0));
                self.queries.insert(id, Query::Get { answers, asked });
            }
            Command::Keepers { key, reply } => self.find_keepers(&key, reply),
            Command::Put { to, key, copy, reply } => self.put(to, &key, copy, Query::Put(reply)),
        }
    }

    fn kad(&mut self) -> &mut kad::Behaviour<KeptRecords> {
        &mut self.swarm.behaviour_mut().kad
    }

    fn find_keepers(&mut self, key: &RecordKey, reply: oneshot::Sender<Vec<PeerId>>) {
        // Where there are no more supernodes than keepers, all are keepers, and no walk is needed to find them.
        if self.members.len() <= KEEPERS.get() {
            let _ = reply.send(self.swarm.connected_peers().copied().collect());
            return;
        }
        let id = self.kad().get_n_closest_peers(key.as_bytes().to_vec(), KEEPERS);
        self.queries.insert(id, Query::Keepers { key: *key, reply, until: Instant::now() + KEEPERS_TIME_MAX });
    }

    fn put(&mut self, to: PeerId, key: &RecordKey, copy: Copy, query: Query) {
        let record = new_record(SystemTime::now().into(), key, copy.bytes, copy.kept_until);
        let id = self.kad().put_record_to(record, std::iter::once(to), Quorum::One);
        self.queries.insert(id, query);
    }

    fn set_members(&mut self, members: Vec<Member>) {
        let old = std::mem::take(&mut self.members);
        self.members = members.into_iter().map(|member| (member.peer, member.addresses)).collect();
        for peer in old.keys().filter(|peer| !self.members.contains_key(*peer)) {
            self.swarm.behaviour_mut().members.disallow_peer(*peer);
            self.swarm.behaviour_mut().kad.remove_peer(peer);
            self.handovers.remove(peer);
        }
        for (peer, addresses) in &self.members {
            self.swarm.behaviour_mut().members.allow_peer(*peer);
            if old.get(peer) != Some(addresses) {
                self.swarm.behaviour_mut().kad.remove_peer(peer);
                for address in addresses {
                    self.swarm.behaviour_mut().kad.add_address(peer, address.clone());
                }
            }
        }
        self.swarm.behaviour_mut().door.set_known(self.members.values().flatten());
        self.dialer.set_peers(Instant::now(), self.members.keys().copied());
        self.dial_due(Instant::now());
    }

    fn dial_due(&mut self, now: Instant) {
        for peer in self.dialer.due(now) {
            if self.swarm.is_connected(&peer) {
                self.dialer.handle_connected(&peer);
                continue;
            }
            let addresses = self.members.get(&peer).cloned().unwrap_or_default();
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).addresses(addresses).build();
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%peer, %error, "a supernode cannot be dialled");
                self.dialer.handle_lost(now, &peer);
            }
        }
    }

    fn handle_event(&mut self, event: SwarmEvent<PlaneEvent>) {
        match event {
            SwarmEvent::Behaviour(PlaneEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, stats, step })) => {
                self.handle_progress(id, result, stats.num_requests(), step.last);
            }
            SwarmEvent::Behaviour(PlaneEvent::Ping(ping::Event { peer, connection, result: Err(error) })) => {
                tracing::debug!(%peer, %error, "a supernode does not answer");
                self.swarm.close_connection(connection);
            }
            SwarmEvent::ConnectionEstablished { peer_id, .. } => self.handle_connected(peer_id),
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => self.handle_lost(peer_id),
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } if !self.swarm.is_connected(&peer) => {
                tracing::debug!(%peer, %error, "a supernode cannot be reached");
                self.handle_lost(peer);
            }
            _ => {}
        }
    }

    fn handle_connected(&mut self, peer: PeerId) {
        let Some(addresses) = self.members.get(&peer) else { return };
        for address in addresses {
            self.swarm.behaviour_mut().kad.add_address(&peer, address.clone());
        }
        self.dialer.handle_connected(&peer);
        if self.handovers.len() < HANDOVERS_MAX {
            self.handovers.entry(peer).or_default();
        }
        self.count_connected();
    }

    /// A supernode that is gone leaves the routing table, so that no walk waits for it, and comes back when it is connected.
    fn handle_lost(&mut self, peer: PeerId) {
        self.kad().remove_peer(&peer);
        self.handovers.remove(&peer);
        self.dialer.handle_lost(Instant::now(), &peer);
        self.count_connected();
    }

    fn count_connected(&mut self) {
        let count = self.swarm.connected_peers().filter(|peer| self.members.contains_key(*peer)).count();
        self.connected.send_if_modified(|known| std::mem::replace(known, count) != count);
    }

    fn handle_progress(&mut self, id: QueryId, result: QueryResult, requests: u32, last: bool) {
        match (self.queries.get(&id), result) {
            (Some(Query::Get { answers, asked }), QueryResult::GetRecord(progress)) => {
                asked.send_replace(Some(requests));
                if let Ok(GetRecordOk::FoundRecord(kad::PeerRecord { peer: Some(from), record })) = progress {
                    let copy = Copy { kept_until: kept_until(SystemTime::now().into(), record.expires), bytes: record.value };
                    // A full queue means that the asker has far more answers than it needs.
                    let _ = answers.try_send(Answer { from, copy });
                }
            }
            (Some(Query::Keepers { .. }), QueryResult::GetClosestPeers(found)) if last => {
                let peers = match found {
                    Ok(found) => found.peers,
                    Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                if let Some(Query::Keepers { reply, .. }) = self.queries.remove(&id) {
                    let _ = reply.send(peers.into_iter().map(|peer| peer.peer_id).collect());
                }
            }
            (Some(Query::Put(_)), QueryResult::PutRecord(stored)) => {
                if let Some(Query::Put(Some(reply))) = self.queries.remove(&id) {
                    let _ = reply.send(stored.is_ok());
                }
            }
            _ => {}
        }
        if last && let Some(Query::Handover(peer)) = self.queries.remove(&id) {
            self.handed_over(peer);
        }
    }

    fn handle_tick(&mut self, now: Instant) {
        self.dial_due(now);
        self.answer_late(now);
        self.end_abandoned();
        self.hand_over();
    }

    /// Who has waited long enough for the keepers of a key is given the nearest that are known without a walk.
    fn answer_late(&mut self, now: Instant) {
        let is_late = |query: &Query| matches!(query, Query::Keepers { until, .. } if *until <= now);
        let late: Vec<_> = self.queries.iter().filter(|(_, query)| is_late(query)).map(|(id, _)| *id).collect();
        for id in late {
            let Some(Query::Keepers { key, reply, .. }) = self.queries.remove(&id) else { continue };
            let _ = reply.send(self.nearest(&key));
            if let Some(mut query) = self.kad().query_mut(&id) {
                query.finish();
            }
        }
    }

    fn nearest(&mut self, key: &RecordKey) -> Vec<PeerId> {
        let key = kad::KBucketKey::new(key.as_bytes().to_vec());
        self.kad().get_closest_local_peers(&key).take(KEEPERS.get()).map(|near| *near.preimage()).collect()
    }

    fn end_abandoned(&mut self) {
        let abandoned = |query: &Query| match query {
            Query::Get { answers, .. } => answers.is_closed(),
            Query::Keepers { reply, .. } => reply.is_closed(),
            Query::Put(_) | Query::Handover(_) => false,
        };
        let ids: Vec<_> = self.queries.iter().filter(|(_, query)| abandoned(query)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(mut query) = self.kad().query_mut(&id) {
                query.finish();
            }
        }
    }

    /// Gives supernodes that have just connected what they should keep, a few copies at a time.
    fn hand_over(&mut self) {
        for peer in self.handovers.keys().copied().collect::<Vec<_>>() {
            self.hand_over_to(peer);
        }
    }

    fn hand_over_to(&mut self, peer: PeerId) {
        let Some(handover) = self.handovers.get_mut(&peer) else { return };
        let room = HANDOVER_WINDOW.saturating_sub(handover.in_flight);
        if room == 0 || self.queries.len() >= QUERIES_MAX / 2 {
            return;
        }
        let page: Vec<_> = self.shelf.records().page(handover.last, room).map(|(key, stored)| (*key, Copy::from(stored))).collect();
        let Some((end, _)) = page.last() else {
            self.handovers.remove(&peer);
            return;
        };
        handover.last = Some(*end);
        for (key, copy) in page {
            if self.is_keeper(&peer, &key) {
                self.put(peer, &key, copy, Query::Handover(peer));
                if let Some(handover) = self.handovers.get_mut(&peer) {
                    handover.in_flight += 1;
                }
            }
        }
    }

    /// A copy has arrived, or was refused.
    fn handed_over(&mut self, peer: PeerId) {
        if let Some(handover) = self.handovers.get_mut(&peer) {
            handover.in_flight = handover.in_flight.saturating_sub(1);
            self.hand_over_to(peer);
        }
    }

    fn is_keeper(&mut self, peer: &PeerId, key: &RecordKey) -> bool {
        if self.members.len() <= KEEPERS.get() {
            return true;
        }
        self.nearest(key).contains(peer)
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
