//! Starting and stopping the server.

use crate::clock::Clock;
use crate::connections::Bounded;
use crate::database::Database;
use crate::error::ServeError;
use crate::folder::{self, DatabaseAddress};
use crate::http;
use crate::issuer::Issuer;
use crate::keys::Keys;
use crate::metrics::{self, Metrics};
use crate::roster::RosterKeeper;
use crate::state::App;
use crate::throttle::Throttle;
use crate::tls;
use ahoy_protocol::NetworkLink;
use ahoy_store::FolderLock;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request, the pause since the last one included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests that are in work may take to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the database is asked whether another process changed the roster: one row, read from memory.
const ROSTER_POLL: Duration = Duration::from_secs(1);
/// How often the server does what time alone brings.
const MAINTENANCE: Duration = Duration::from_secs(60);

/// What a server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Where to listen. Port 0: the system chooses.
    pub listen: SocketAddr,
    /// The host in the network link, if another than the address listened on.
    pub public_host: Option<String>,
    /// Where accounts are kept, if not where the data folder remembers.
    pub database: Option<String>,
    /// Where to serve metrics over plain HTTP.
    pub metrics: Option<SocketAddr>,
    /// The time.
    pub clock: Clock,
}

impl Config {
    /// A server with everything at its default.
    #[must_use]
    pub fn new(data: PathBuf, listen: SocketAddr) -> Self {
        Self { data, listen, public_host: None, database: None, metrics: None, clock: Clock::default() }
    }
}

/// A running server. Dropping it stops it at once; [`Server::stop`] lets requests end first.
#[derive(Debug)]
pub struct Server {
    link: NetworkLink,
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    handle: Handle<SocketAddr>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    database: Database,
    _lock: FolderLock,
}

impl Server {
    /// Starts a server. When this returns, it serves.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let folder = folder::open(&config.data)?;
        let lock = folder.lock()?;
        let listener = listen("--listen", config.listen)?;
        let local_addr =
            listener.local_addr().map_err(|source| ServeError::Listen { option: "--listen", address: config.listen, source })?;
        let metrics_listener = config.metrics.map(|address| listen("--metrics", address)).transpose()?;
        let metrics_addr = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let keys = Keys::load_or_make(&folder, config.clock.now())?;
        let link = network_link(&config, local_addr, &keys)?;
        let named = config.database.as_deref().map(DatabaseAddress::parse).transpose()?;
        let database = Database::open(&named.clone().map_or_else(|| DatabaseAddress::remembered(&folder), Ok)?).await?;
        database.belong_to(&keys.network).await?;
        if let Some(address) = named {
            address.remember(&folder)?;
        }

        let stopping = watch::Sender::new(false);
        let app = Arc::new(app(keys, database.clone(), config.clock, stopping.subscribe()));
        app.roster.maintain(app.now()).await?;
        app.roster.newest(app.now()).await.map_err(|refusal| ServeError::Setup(refusal.0.to_string()))?;
        let handle = Handle::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, app.clone(), handle.clone())?);
        if let Some(listener) = metrics_listener {
            tasks.spawn(serve_metrics(listener, app.clone(), stopping.subscribe())?);
        }
        tasks.spawn(maintain(app, stopping.subscribe()));
        Ok(Self { link, local_addr, metrics_addr, handle, stopping, tasks, database, _lock: lock })
    }

    /// What a user or a node needs to join the network.
    #[must_use]
    pub fn link(&self) -> &NetworkLink {
        &self.link
    }

    /// Where the server listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Stops: takes no more connections, and lets requests that are in work end.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        self.handle.graceful_shutdown(Some(STOP_TIMEOUT));
        while self.tasks.join_next().await.is_some() {}
        self.database.close().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        self.handle.shutdown();
    }
}

fn listen(option: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).map_err(|source| ServeError::Listen { option, address, source })
}

fn network_link(config: &Config, local_addr: SocketAddr, keys: &Keys) -> Result<NetworkLink, ServeError> {
    let host = match (&config.public_host, local_addr.ip().is_unspecified()) {
        (Some(host), _) => host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        (None, false) => local_addr.ip().to_string(),
        (None, true) => {
            tracing::warn!("the network link names 127.0.0.1, which works on this machine alone; give --public-host for others");
            IpAddr::V4(Ipv4Addr::LOCALHOST).to_string()
        }
    };
    let link = NetworkLink { host, port: local_addr.port(), network: keys.network };
    let readable = link.to_string().parse::<NetworkLink>().is_ok_and(|read| read == link);
    if readable { Ok(link) } else { Err(ServeError::PublicHost(link.host)) }
}

fn app(keys: Keys, database: Database, clock: Clock, stopping: watch::Receiver<bool>) -> App {
    let issuer = Arc::new(Issuer::new(keys.issuing.clone()));
    App {
        roster: RosterKeeper::new(database.clone(), issuer.clone()),
        keys,
        issuer,
        database,
        clock,
        metrics: Metrics::default(),
        work: Semaphore::new(http::WORK_MAX),
        waiters: Semaphore::new(http::WAITERS_MAX),
        stopping,
        throttle: Mutex::new(Throttle::default()),
    }
}

fn serve(listener: TcpListener, app: Arc<App>, handle: Handle<SocketAddr>) -> Result<impl Future<Output = ()> + Send, ServeError> {
    let tls = RustlsConfig::from_config(tls::server_config(&app.keys.root)?);
    let acceptor = RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_TIMEOUT).acceptor(Bounded::default());
    let mut server = axum_server::from_tcp(listener).map_err(|error| ServeError::Setup(error.to_string()))?.http1_only();
    server.http_builder().http1().header_read_timeout(HEAD_TIMEOUT);
    let service = http::router(&app).into_make_service_with_connect_info::<SocketAddr>();
    Ok(async move {
        if let Err(error) = server.acceptor(acceptor).handle(handle).serve(service).await {
            tracing::error!(%error, "the server ended");
        }
    })
}

fn serve_metrics(
    listener: TcpListener,
    app: Arc<App>,
    mut stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send, ServeError> {
    let setup = |error: std::io::Error| ServeError::Setup(error.to_string());
    listener.set_nonblocking(true).map_err(setup)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(setup)?;
    Ok(async move {
        let server = axum::serve(listener, metrics::router(app));
        tokio::select! {
            _ = server => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    })
}

/// Follows what other processes and the passing of time change, until the server stops.
async fn maintain(app: Arc<App>, mut stopping: watch::Receiver<bool>) {
    let mut poll = tokio::time::interval(ROSTER_POLL);
    let mut maintained = app.now();
    loop {
        tokio::select! {
            _ = poll.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let now = app.now();
        if now.since(maintained) >= MAINTENANCE {
            maintained = now;
            if let Err(error) = app.roster.maintain(now).await {
                tracing::error!(%error, "the database failed");
            }
        }
        // A failure was logged where it happened; the next poll tries again.
        let _ = app.roster.newest(now).await;
    }
}
