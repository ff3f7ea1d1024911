//! A relay that can be started and stopped.

use crate::control::Control;
use crate::data_plane::{DataPlane, SharedForwarder};
use crate::forwarder::Counters;
use crate::limits::{ADDRESS_LOOKS_WAITING_MAX, CONNECTIONS_MAX};
use crate::reports::Reporter;
use ahoy_node::{Addresses, MetricsServer, Node, NodeError, ServeArgs};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::relay;
use ahoy_transport::{NodeEndpoint, NodeLimits, ObserveResponder, TransportError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The program's name in its data folder.
const PROGRAM: &str = "ahoy-relay";
/// How often the load is reckoned.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end waits for connections to drain.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// How often it looks whether they have.
const STOP_LOOK: Duration = Duration::from_millis(10);

/// Why a relay cannot start.
#[derive(Debug, Error)]
pub enum RelayError {
    /// It cannot join its network.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// It cannot listen.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A relay that serves. Dropping it stops it.
pub struct Relay {
    node: Arc<Node>,
    endpoint: Arc<NodeEndpoint>,
    forwarder: SharedForwarder,
    metrics_address: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("node", &self.node).field("at", &self.local_addresses()).finish_non_exhaustive()
    }
}

impl Relay {
    /// Listens, joins the network, and serves.
    ///
    /// # Errors
    /// See [`RelayError`].
    pub async fn start(args: &ServeArgs) -> Result<Self, RelayError> {
        let preparation = Node::prepare(args, NodeRole::Relay, PROGRAM).await?;
        let forwarder = SharedForwarder::new();
        let load_percent = Arc::new(AtomicU8::new(0));
        let (looks, wanted_looks) = mpsc::channel(ADDRESS_LOOKS_WAITING_MAX);
        let observe = ObserveResponder::new(load_percent.clone());
        let data_plane = Arc::new(DataPlane { forwarder: forwarder.clone(), observe, looks });
        let limits = NodeLimits { connections_max: CONNECTIONS_MAX, ..NodeLimits::default() };
        let endpoint = Arc::new(NodeEndpoint::bind(&args.listen, &args.tcp, preparation.key(), &[relay::ALPN], data_plane, limits)?);
        let metrics = match args.metrics {
            Some(address) => Some(MetricsServer::bind(address).await?),
            None => None,
        };
        let addresses =
            Addresses::of_client_plane(&endpoint.local_addresses(), &endpoint.local_tcp_addresses(), args.public.as_deref()).await?;
        let node = Arc::new(preparation.join(addresses).await?);

        let control = Arc::new(Control::new(node.clone(), forwarder.clone()));
        let reporter = Reporter { node: node.clone(), endpoint: endpoint.clone(), load_percent: load_percent.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(control.clone().accept(endpoint.clone()));
        tasks.spawn(control.look_at_addresses(wanted_looks));
        tasks.spawn(reporter.run());
        tasks.spawn(reckon_load(forwarder.clone(), load_percent.clone()));
        let metrics_address = metrics.as_ref().and_then(MetricsServer::local_address);
        if let Some(metrics) = metrics {
            let (forwarder, endpoint) = (forwarder.clone(), endpoint.clone());
            tasks.spawn(metrics.serve(move || metrics_page(&forwarder, &endpoint, &load_percent)));
        }
        Ok(Self { node, endpoint, forwarder, metrics_address, tasks })
    }

    /// Where it listens over UDP.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.local_addresses()
    }

    /// Where it listens over TCP.
    #[must_use]
    pub fn local_tcp_addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.local_tcp_addresses()
    }

    /// Where it serves its counters, if it does.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Its membership in the network.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.forwarder.lock().counters()
    }

    /// How many legs it has.
    #[must_use]
    pub fn legs(&self) -> usize {
        self.forwarder.lock().legs()
    }

    /// Tells all clients that it ends, and gives the data folder back; the port is free moments later.
    pub async fn stop(mut self) {
        self.endpoint.close();
        let told = async {
            while self.endpoint.connections() > 0 {
                sleep(STOP_LOOK).await;
            }
        };
        // Clients that do not hear it find out by themselves.
        let _ = timeout(STOP_WAIT, told).await;
        self.tasks.shutdown().await;
    }
}

/// The counters in the text format that Prometheus reads.
fn metrics_page(forwarder: &SharedForwarder, endpoint: &NodeEndpoint, load_percent: &AtomicU8) -> String {
    let (counters, legs) = {
        let forwarder = forwarder.lock();
        (forwarder.counters(), forwarder.legs())
    };
    let load_percent = load_percent.load(Ordering::Relaxed);
    let tunnels = endpoint.tunnels();
    let mut page = format!("ahoy_relay_legs {legs}\nahoy_relay_load_percent {load_percent}\nahoy_relay_tunnels {tunnels}\n");
    for (name, value) in [
        ("joined", counters.joined),
        ("refused", counters.refused),
        ("forwarded_frames", counters.forwarded_frames),
        ("forwarded_bytes", counters.forwarded_bytes),
        ("dropped_malformed", counters.malformed),
        ("dropped_unknown_channel", counters.unknown_channel),
        ("dropped_other_address", counters.other_address),
        ("dropped_not_joined", counters.not_joined),
        ("dropped_over_rate", counters.over_rate),
        ("moved", counters.moved),
        ("dropped_not_proved", counters.not_proved),
        ("dropped_by_tunnels", endpoint.dropped_by_tunnels()),
    ] {
        page.push_str(&format!("# TYPE ahoy_relay_{name}_total counter\nahoy_relay_{name}_total {value}\n"));
    }
    page
}

async fn reckon_load(forwarder: SharedForwarder, load_percent: Arc<AtomicU8>) {
    loop {
        let load = forwarder.lock().load_percent(Instant::now());
        load_percent.store(load, Ordering::Relaxed);
        sleep(LOAD_INTERVAL).await;
    }
}
