//! A client's endpoint: one UDP port for supernodes, relays and the peers of calls.

use crate::check::{Check, Reached};
use crate::dial::{Dialer, UdpNews};
use crate::network::{self, Watcher};
use crate::path_socket::PathSocket;
use crate::peer::{Peer, PeerSetup};
use crate::shared::Shared;
use crate::switchboard::{PEERS_MAX, Switchboard};
use crate::virtual_address::VirtualAddresses;
use crate::{Connection, NetworkState, NodePlace, Reach, TransportError, UdpUse, config, interfaces, tls};
use ahoy_identity::{SigningKey, random};
use ahoy_protocol::NodeKey;
use ahoy_protocol::datagram::Observe;
use ahoy_protocol::peer::{ALPN, Candidate};
use quinn::{Endpoint, ServerConfig, TokioRuntime, VarInt};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, watch};

/// Before an observe request is sent again.
const OBSERVE_AGAIN_AFTER: Duration = Duration::from_millis(400);
/// Bytes kept for a caller whose handshake has not been looked at.
const INCOMING_BYTES_MAX: u64 = 16 * 1024;
/// How long a farewell may take.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// What a node saw of this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Where this client's packets come from, as the node sees them.
    pub address: SocketAddr,
    /// Time from the request to the answer.
    pub rtt: Duration,
    /// Share of the node's limit in use, in percent.
    pub load_percent: u8,
}

/// A client's endpoint. Clones are the same endpoint; it closes when the last of them is dropped.
#[derive(Debug, Clone)]
pub struct ClientEndpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    quic: Endpoint,
    device: SigningKey,
    reach: Mutex<Reach>,
    udp_news: Arc<UdpNews>,
    network: Arc<Network>,
    tasks: [tokio::task::AbortHandle; 3],
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quic.close(VarInt::from_u32(0), b"");
        for task in &self.tasks {
            task.abort();
        }
        self.shared.close_sides();
    }
}

impl ClientEndpoint {
    /// Binds `port`, or a free one, for IPv4 and, where the machine has it, IPv6, under the key of `device`. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::PortInUse`] if another program has the port.
    pub fn bind(port: Option<u16>, device: &SigningKey) -> Result<Self, TransportError> {
        let shared = Arc::new(Shared::bind(port, Switchboard::new(VirtualAddresses::new(random())))?);
        let socket = Arc::new(PathSocket::new(Arc::clone(&shared)));
        let server = server_config(device)?;
        let quic =
            Endpoint::new_with_abstract_socket(config::client_endpoint(), Some(server), Arc::clone(&socket) as _, Arc::new(TokioRuntime))
                .map_err(|error| TransportError::Setup(error.to_string()))?;
        let udp_news = Arc::<UdpNews>::default();
        let network = Arc::new(Network::new(&shared, &quic, socket, &udp_news));
        let driver = tokio::spawn(drive(Arc::clone(&shared))).abort_handle();
        let doorman = tokio::spawn(admit(quic.clone(), Arc::clone(&shared))).abort_handle();
        let watchman = tokio::spawn(watch_network(Arc::clone(&network))).abort_handle();
        let device = SigningKey::from_seed(*device.seed());
        let (reach, tasks) = (Mutex::default(), [driver, doorman, watchman]);
        Ok(Self { inner: Arc::new(Inner { shared, quic, device, reach, udp_news, network, tasks }) })
    }

    /// The port, which IPv6 has too where it could be had.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.inner.shared.port_v4()
    }

    /// Says whether peers may be on this machine, so that loopback addresses are told and probed. Counts for calls that
    /// begin after it.
    pub fn allow_loopback(&self, allow: bool) {
        self.inner.shared.board().allow_loopback(allow);
    }

    /// Addresses of this machine's interfaces at which this endpoint may be reached; none where UDP is not to be used.
    #[must_use]
    pub fn host_candidates(&self) -> Vec<Candidate> {
        let shared = &self.inner.shared;
        if !shared.uses_udp() {
            return Vec::new();
        }
        let allow_loopback = shared.board().rules().allow_loopback;
        interfaces::candidates(&interfaces::all(), shared.port_v4(), shared.port_v6(), allow_loopback)
    }

    /// Datagrams that were dropped because nobody vouched for them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.inner.shared.board().dropped()
    }

    /// Handshakes that strangers or peers began here and that reached QUIC.
    #[must_use]
    pub fn handshakes_seen(&self) -> u64 {
        let stats = self.inner.quic.stats();
        stats.accepted_handshakes + stats.refused_handshakes + stats.ignored_handshakes
    }

    /// Says how the network may be reached. Counts for what is connected to after it; that UDP is not to be used, at once.
    pub fn set_reach(&self, reach: Reach) {
        self.inner.shared.use_udp(reach.udp != UdpUse::Never);
        *self.inner.reach.lock().unwrap_or_else(PoisonError::into_inner) = reach;
    }

    /// Whether UDP gets out of the network that this machine is in, as far as connections to nodes have shown.
    #[must_use]
    pub fn udp_gets_out(&self) -> Option<bool> {
        self.inner.udp_news.gets_out()
    }

    /// The state of this machine's network. The endpoint looks after its connections by itself when it changes: nodes hear from the
    /// new address at once, relays are told, and calls look for their way anew. What only its owner can do is to find out from where
    /// others see it, and to tell peers.
    #[must_use]
    pub fn network(&self) -> watch::Receiver<NetworkState> {
        self.inner.network.state.subscribe()
    }

    /// The machine is on another network, says somebody who knows before the endpoint notices.
    pub fn handle_network_change(&self) {
        self.inner.network.change(&interfaces::all());
    }

    /// Connects to `node` at whichever of its addresses answers first: those for UDP in order, each a little after the one before, and
    /// beside them tunnels over TCP, when UDP has been silent for a while or is known not to get out.
    ///
    /// # Errors
    /// [`TransportError::WrongKey`] if another answers, [`TransportError::TimedOut`] if nothing does: the last of the addresses' errors.
    pub async fn connect_node(&self, place: &NodePlace, node: &NodeKey, alpn: &[u8]) -> Result<Connection, TransportError> {
        self.dialer(node, alpn)?.connect(place, &self.inner.udp_news).await
    }

    /// Asks `node`, to which `connection` goes over UDP, whether it still hears that; where it does not answer and a tunnel gets there, gives
    /// that back. For when the network has changed, or nothing comes any more: time-outs tell the same much later.
    ///
    /// # Errors
    /// [`TransportError::TimedOut`] if nothing answers either way, or why there is no tunnel.
    pub async fn check_node(
        &self,
        connection: &Connection,
        place: &NodePlace,
        node: &NodeKey,
        alpn: &[u8],
    ) -> Result<Reached, TransportError> {
        let check = Check { shared: &self.inner.shared, news: &self.inner.udp_news, connection };
        check.run(self.dialer(node, alpn)?, place).await
    }

    fn dialer(&self, node: &NodeKey, alpn: &[u8]) -> Result<Dialer, TransportError> {
        let inner = &self.inner;
        let reach = inner.reach.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Dialer::new(&inner.shared, &inner.quic, &inner.device, node, alpn, reach)
    }

    /// Asks the node at `address` from where it sees this client; `None` if nothing comes within `timeout`.
    pub async fn observe(&self, address: SocketAddr, timeout: Duration) -> Option<Observation> {
        let shared = &self.inner.shared;
        if !shared.board().is_real(address) || !shared.reaches(address) {
            return None;
        }
        let (answer, mut answers) = mpsc::channel(1);
        let mut asked = Asked { shared, nonces: Vec::new() };
        let ask = async {
            loop {
                asked.ask(address, answer.clone())?;
                if let Ok(observation) = tokio::time::timeout(OBSERVE_AGAIN_AFTER, answers.recv()).await {
                    return observation;
                }
            }
        };
        let observation = tokio::time::timeout(timeout, ask).await.ok().flatten();
        if observation.is_some() && !shared.prefix().is_tunnel(address) {
            self.inner.udp_news.got_out();
        }
        observation
    }

    /// Makes a virtual address and a path agent for a call. Nothing is sent before the call is given a relay or told to probe.
    ///
    /// # Errors
    /// [`TransportError::TooMany`] calls.
    pub fn peer(&self, setup: PeerSetup) -> Result<Peer, TransportError> {
        let shared = Arc::clone(&self.inner.shared);
        Peer::new(shared, self.inner.quic.clone(), &self.inner.device, &setup, &interfaces::subnets(&interfaces::all()))
    }

    /// Closes all connections and takes no more.
    pub fn close(&self) {
        self.inner.quic.close(VarInt::from_u32(0), b"");
    }

    /// Waits until the other sides have been told that their connections are closed, or have been given up on. To be
    /// called after [`close`](Self::close), before the process ends.
    pub async fn closed(&self) {
        let _ = tokio::time::timeout(FAREWELL_TIME_MAX, self.inner.quic.wait_idle()).await;
    }
}

fn server_config(device: &SigningKey) -> Result<ServerConfig, TransportError> {
    let mut server = ServerConfig::with_crypto(tls::server(device, &[ALPN])?);
    server
        .transport_config(config::call())
        // The virtual address of a call never changes.
        .migration(false)
        .max_incoming(PEERS_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX * PEERS_MAX as u64);
    Ok(server)
}

/// Serves the deadlines of all path agents.
async fn drive(shared: Arc<Shared>) {
    loop {
        match shared.serve_deadlines() {
            Some(deadline) => {
                let _ = tokio::time::timeout_at(deadline.into(), shared.wake_driver.notified()).await;
            }
            None => shared.wake_driver.notified().await,
        }
    }
}

/// Hands attempts to connect to the calls they are for. Those for none are left without an answer.
async fn admit(quic: Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = quic.accept().await {
        let unwanted = shared.board().offer(incoming);
        if let Some(unwanted) = unwanted {
            unwanted.ignore();
        }
    }
}

/// What has to be told that the network changed.
#[derive(Debug)]
struct Network {
    shared: Arc<Shared>,
    quic: Endpoint,
    socket: Arc<PathSocket>,
    udp_news: Arc<UdpNews>,
    state: watch::Sender<NetworkState>,
}

impl Network {
    fn new(shared: &Arc<Shared>, quic: &Endpoint, socket: Arc<PathSocket>, udp_news: &Arc<UdpNews>) -> Self {
        let state = NetworkState { generation: 0, has_addresses: interfaces::all().iter().any(interfaces::is_of_use) };
        let (shared, quic, udp_news) = (Arc::clone(shared), quic.clone(), Arc::clone(udp_news));
        Self { shared, quic, socket, udp_news, state: watch::Sender::new(state) }
    }

    fn change(&self, interfaces: &[if_addrs::Interface]) {
        tracing::info!("the network changed");
        self.udp_news.forget();
        // The relays first: a call waits for them.
        self.shared.handle_network_change(&interfaces::subnets(interfaces));
        let addresses: Vec<_> = interfaces.iter().map(if_addrs::Interface::ip).collect();
        self.shared.tunnels.handle_network_change(&addresses);
        // The sockets are bound to no address and stay; that they are given anew makes QUIC speak on every connection at once, so that
        // nodes see where this machine is.
        if let Err(error) = self.quic.rebind_abstract(Arc::clone(&self.socket) as _) {
            tracing::warn!(%error, "connections were not told of another network");
        }
        let has_addresses = interfaces.iter().any(interfaces::is_of_use);
        self.state.send_modify(|state| *state = NetworkState { generation: state.generation + 1, has_addresses });
    }
}

/// Looks at the interfaces from time to time.
async fn watch_network(network: Arc<Network>) {
    let mut watcher = Watcher::new(Instant::now(), SystemTime::now(), &interfaces::all());
    loop {
        let every = if network.shared.board().is_idle() { network::LOOK_EVERY_IDLE } else { network::LOOK_EVERY };
        tokio::time::sleep(every).await;
        let interfaces = interfaces::all();
        if watcher.look(Instant::now(), SystemTime::now(), every, &interfaces) {
            network.change(&interfaces);
        }
    }
}

/// The requests of one [`ClientEndpoint::observe`], which are forgotten with it.
struct Asked<'a> {
    shared: &'a Shared,
    nonces: Vec<[u8; 8]>,
}

impl Asked<'_> {
    /// Each request has a nonce of its own, so that the answer tells which one it took so long for.
    fn ask(&mut self, address: SocketAddr, answer: mpsc::Sender<Observation>) -> Option<()> {
        let nonce = random();
        if !self.shared.board().add_observation(Instant::now(), nonce, address, answer) {
            return None;
        }
        self.nonces.push(nonce);
        self.shared.send(address, &Observe { nonce }.encode());
        Some(())
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut board = self.shared.board();
        for nonce in &self.nonces {
            board.remove_observation(*nonce);
        }
    }
}
