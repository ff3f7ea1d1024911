//! A whole supernode: started, kept up to date, stopped.

use crate::limits::{CONNECTIONS_PER_PREFIX_MAX, Guard, Work};
use crate::lookup::Directory;
use crate::mail::{self, Mail};
use crate::metrics;
use crate::neighbours::Neighbours;
use crate::overlay::{Overlay, OverlayError};
use crate::plane::Plane;
use crate::relays::Relays;
use crate::sessions::Sessions;
use crate::shelf::{Shelf, Trust};
use ahoy_identity::SigningKey;
use ahoy_mailbox::{Limits, MailStore, OpenError};
use ahoy_node::{Addresses, Admission, MetricsServer, Node, NodeError, Preparation, RosterView, ServeArgs};
use ahoy_protocol::NodeKey;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{ALPN, Push, Request, Response};
use ahoy_store::StoreError;
use ahoy_transport::{NodeEndpoint, NodeLimits, ObserveResponder, TransportError};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// What the data folder is marked with.
const PROGRAM: &str = "ahoy-supernode";
/// File in the data folder that holds the overlay's port.
const OVERLAY_FILE: &str = "overlay.json";
/// File in the data folder that holds the mail.
const MAIL_FILE: &str = "mail.sqlite";
/// How often what changes by time alone is looked at: salts, missing connections, load.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often some other supernode is asked for a newer roster, so that one gets round while the login server is away.
const ROSTER_INTERVAL: Duration = Duration::from_secs(60);
/// Clients are told to be gone within this time when the supernode stops.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// How long the packets that close the connections may take to go out.
const CLOSING_TIME: Duration = Duration::from_millis(50);
/// At its start a supernode waits this long for the others to be connected, before it says that it serves. Without them it serves
/// all the same.
const GATHERING_TIME_MAX: Duration = Duration::from_secs(1);

/// Flags of `ahoy-supernode serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    /// Those that all nodes have.
    pub serve: ServeArgs,
    /// Address for other supernodes; a free port, chosen once, if not given
    #[arg(long, value_name = "IP:PORT")]
    pub overlay: Option<SocketAddr>,
}

/// Why a supernode does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// It cannot join its network.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Its data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client plane cannot listen.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The overlay cannot listen.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The mail it keeps cannot be used.
    #[error(transparent)]
    Mail(#[from] OpenError),
}

/// A supernode that serves. Dropping it stops it at once.
pub struct Supernode {
    plane: Arc<Plane>,
    endpoint: Arc<NodeEndpoint>,
    overlay_address: SocketAddr,
    /// Dropping these ends all that runs.
    tasks: JoinSet<()>,
    overlay_task: AbortOnDrop,
}

impl std::fmt::Debug for Supernode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supernode").field("key", &self.key()).field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl Supernode {
    /// Joins the network and serves.
    ///
    /// # Errors
    /// See [`StartError`]; each says what to do.
    pub async fn start(args: &Args) -> Result<Self, StartError> {
        let preparation = Node::prepare(&args.serve, NodeRole::Supernode, PROGRAM).await?;
        let limits = NodeLimits::default();
        let load_percent = Arc::new(AtomicU8::new(0));
        let observer = Arc::new(ObserveResponder::new(load_percent.clone()));
        let endpoint = Arc::new(bind(args, preparation.key(), observer, limits)?);
        let shelf = Arc::new(Shelf::new());
        let (overlay, overlay_address, overlay_task) = start_overlay(args, &preparation, shelf.clone()).await?;
        let overlay_task = AbortOnDrop(overlay_task);
        let store = MailStore::open(&preparation.folder().path().join(MAIL_FILE), Limits::default())?;
        // Before it joins: a token is not used up by a start that fails.
        let metrics_server = match args.serve.metrics {
            Some(address) => Some(MetricsServer::bind(address).await?),
            None => None,
        };
        let addresses = addresses(args, &endpoint, overlay_address).await?;
        let node = Arc::new(preparation.join(addresses).await?);
        let own = node.key().node_key();
        let plane = Arc::new(Plane {
            node,
            directory: Directory { shelf, overlay },
            sessions: Sessions::default(),
            neighbours: Arc::new(Neighbours::new(endpoint.clone(), own)),
            mail: Mail::start(store),
            relays: Mutex::new(Relays::default()),
            guard: Mutex::new(Guard::new()),
            work: Work::new(),
            admission: Admission::new(limits.connections_max, CONNECTIONS_PER_PREFIX_MAX),
            load_percent,
        });
        let mut tasks = JoinSet::new();
        if let Some(server) = metrics_server {
            let (plane, endpoint) = (plane.clone(), endpoint.clone());
            tasks.spawn(server.serve(move || metrics::text(&plane, &endpoint)));
        }
        // Before the roster is applied, so that none that comes meanwhile is missed.
        let (rosters, versions) = (plane.node.roster(), plane.node.roster());
        apply_roster(&plane).await;
        tasks.spawn(follow_roster(plane.clone(), rosters));
        tasks.spawn(tell_of_rosters(plane.clone(), versions));
        tasks.spawn(keep_up(plane.clone(), endpoint.clone(), limits));
        tasks.spawn(pass_rosters_on(plane.clone()));
        tasks.spawn(mail::compare(plane.clone()));
        tasks.spawn(mail::compare_urgent(plane.clone()));
        tasks.spawn(mail::sweep(plane.clone()));
        tasks.spawn(plane.clone().serve(endpoint.clone()));
        let others = plane.roster().roster.nodes_in(NodeRole::Supernode).count().saturating_sub(1);
        plane.directory.overlay.wait_for(others, GATHERING_TIME_MAX).await;
        Ok(Self { plane, endpoint, overlay_address, tasks, overlay_task })
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        self.plane.node.key().node_key()
    }

    /// Where clients reach it over TCP.
    #[must_use]
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.local_tcp_addresses()
    }

    /// Where clients reach it over UDP.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.local_addresses()
    }

    /// Where other supernodes reach it.
    #[must_use]
    pub fn overlay_address(&self) -> SocketAddr {
        self.overlay_address
    }

    /// How many other supernodes it is connected to in the overlay.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.plane.directory.overlay.connected()
    }

    /// How many users and devices it keeps a record of.
    #[must_use]
    pub fn records(&self) -> usize {
        self.plane.directory.shelf.records().len()
    }

    /// How many devices it keeps mail for, and how many envelopes.
    #[must_use]
    pub fn mail(&self) -> (u64, u64) {
        let totals = self.plane.mail.desk.totals();
        (totals.mailboxes, totals.envelopes)
    }

    /// The version of the roster that it goes by.
    #[must_use]
    pub fn roster_version(&self) -> u64 {
        self.plane.roster().roster.version
    }

    /// Tells its clients to go, and stops. When this returns, ports and data folder are free.
    pub async fn stop(mut self) {
        let within_ms = u32::try_from(DRAIN_TIME.as_millis()).unwrap_or(u32::MAX);
        let drain = Push::Drain { within_ms };
        let telling = self.plane.sessions.push_to_all(&drain);
        // Whoever cannot be told in time finds out by the end of the connection.
        let _ = tokio::time::timeout(DRAIN_TIME, telling).await;
        self.endpoint.close();
        // The last packets are sent by a task of the endpoint, which ends with the runtime.
        tokio::time::sleep(CLOSING_TIME).await;
        self.tasks.shutdown().await;
        self.plane.mail.desk.close().await;
        self.overlay_task.0.abort();
        // An error says that it was aborted.
        let _ = (&mut self.overlay_task.0).await;
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the overlay at the address asked for; else at the port of last time, so that the roster stays true; else at any.
async fn start_overlay(
    args: &Args,
    preparation: &Preparation,
    shelf: Arc<Shelf>,
) -> Result<(Overlay, SocketAddr, tokio::task::JoinHandle<()>), StartError> {
    let key = preparation.key();
    if let Some(address) = args.overlay {
        return Ok(Overlay::start(key, address, shelf).await?);
    }
    let Some(first) = args.serve.listen.first() else { return Err(NodeError::Unspecified(([0, 0, 0, 0], 0).into()).into()) };
    if let Some(port) = preparation.folder().read_json::<u16>(OVERLAY_FILE)? {
        match Overlay::start(key, SocketAddr::new(first.ip(), port), shelf.clone()).await {
            Ok(started) => return Ok(started),
            Err(error) => tracing::warn!(%error, "the overlay moves to another port"),
        }
    }
    let started = Overlay::start(key, SocketAddr::new(first.ip(), 0), shelf).await?;
    preparation.folder().write_json(OVERLAY_FILE, &started.1.port())?;
    Ok(started)
}

/// Listens for clients.
fn bind(args: &Args, key: &SigningKey, observer: Arc<ObserveResponder>, limits: NodeLimits) -> Result<NodeEndpoint, TransportError> {
    NodeEndpoint::bind(&args.serve.listen, &args.serve.tcp, key, &[ALPN], observer, limits)
}

/// What the roster is to say about this supernode.
async fn addresses(args: &Args, endpoint: &NodeEndpoint, overlay: SocketAddr) -> Result<Addresses, NodeError> {
    let public = args.serve.public.as_deref();
    let told = Addresses::of_client_plane(&endpoint.local_addresses(), &endpoint.local_tcp_addresses(), public).await?;
    Ok(Addresses { overlay: Addresses::advertised_beside(&[overlay], public).await?, ..told })
}

/// Puts the newest roster in force everywhere.
async fn apply_roster(plane: &Plane) {
    let view = plane.roster();
    let trust = Trust { network: plane.node.network(), view: view.clone() };
    plane.directory.shelf.set_trust(SystemTime::now().into(), trust);
    plane.directory.overlay.set_roster(&view.roster, &plane.node.key().node_key()).await;
    plane.neighbours.set_roster(&view.roster);
    plane.relays.lock().unwrap_or_else(PoisonError::into_inner).set_roster(&view.roster);
    plane.sessions.revoke(&view.roster);
}

async fn follow_roster(plane: Arc<Plane>, mut rosters: watch::Receiver<Arc<RosterView>>) {
    while rosters.changed().await.is_ok() {
        apply_roster(&plane).await;
    }
}

/// Tells the clients of each new roster, beside [`follow_roster`]: clients that are slow to hear of one do not hold up the next.
async fn tell_of_rosters(plane: Arc<Plane>, mut rosters: watch::Receiver<Arc<RosterView>>) {
    while rosters.changed().await.is_ok() {
        let version = rosters.borrow_and_update().roster.version;
        plane.sessions.push_to_all(&Push::RosterVersion(version)).await;
    }
}

/// Does what is due as time passes.
async fn keep_up(plane: Arc<Plane>, endpoint: Arc<NodeEndpoint>, limits: NodeLimits) {
    let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        plane.update_load(endpoint.connections(), limits.connections_max);
        let now = SystemTime::now().into();
        plane.directory.shelf.tidy(now);
        plane.sessions.end_lapsed(now);
        if !goes_by_the_newest(&plane) {
            apply_roster(&plane).await;
        }
        plane.neighbours.warm().await;
    }
}

/// False if the issuing keys have changed, which no roster tells, or if an older roster was applied after a newer one.
fn goes_by_the_newest(plane: &Plane) -> bool {
    let newest = plane.roster().roster.version;
    let applied = |trust: Trust| Arc::ptr_eq(&trust.network, &plane.node.network()) && trust.view.roster.version == newest;
    plane.directory.shelf.trust().is_some_and(applied)
}

/// Asks other supernodes for newer rosters.
async fn pass_rosters_on(plane: Arc<Plane>) {
    let mut tick = tokio::time::interval(ROSTER_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(neighbour) = plane.neighbours.any(u64::from_le_bytes(ahoy_identity::random())) else { continue };
        let since = plane.roster().roster.version;
        if let Some(Response::Roster(Some(newer))) = plane.neighbours.ask(&neighbour, &Request::Roster { since }).await
            && let Err(refused) = plane.node.offer_roster(newer)
        {
            tracing::warn!(node = %neighbour, %refused, "another supernode handed on a roster that does not hold");
        }
    }
}
