//! A client's endpoint: one UDP port for supernodes, relays and the peers of calls.

use crate::connection::Keep;
use crate::path_socket::{PathSocket, Shared};
use crate::peer::{Peer, PeerSetup};
use crate::switchboard::{PEERS_MAX, Switchboard};
use crate::virtual_address::VirtualAddresses;
use crate::{Connection, TransportError, config, interfaces, tls};
use ahoy_identity::{SigningKey, random};
use ahoy_protocol::NodeKey;
use ahoy_protocol::datagram::Observe;
use ahoy_protocol::peer::{ALPN, Candidate};
use quinn::{ClientConfig, Endpoint, ServerConfig, TokioRuntime, VarInt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A handshake with a node that takes longer is given up: it needs one round trip, and four repeats fit.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Before the next of a node's addresses is tried beside the last one (RFC 8305 recommends this).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Addresses of one node that are tried.
const NODE_ADDRESSES_MAX: usize = 8;
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
    tasks: [tokio::task::AbortHandle; 2],
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quic.close(VarInt::from_u32(0), b"");
        for task in &self.tasks {
            task.abort();
        }
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
        let quic = Endpoint::new_with_abstract_socket(config::client_endpoint(), Some(server), socket, Arc::new(TokioRuntime))
            .map_err(|error| TransportError::Setup(error.to_string()))?;
        let driver = tokio::spawn(drive(Arc::clone(&shared))).abort_handle();
        let doorman = tokio::spawn(admit(quic.clone(), Arc::clone(&shared))).abort_handle();
        let device = SigningKey::from_seed(*device.seed());
        Ok(Self { inner: Arc::new(Inner { shared, quic, device, tasks: [driver, doorman] }) })
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

    /// Addresses of this machine's interfaces at which this endpoint may be reached.
    #[must_use]
    pub fn host_candidates(&self) -> Vec<Candidate> {
        let shared = &self.inner.shared;
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

    /// Connects to `node` at whichever of `addresses` answers first. They are tried in order, each a little after the one before.
    ///
    /// # Errors
    /// [`TransportError::WrongKey`] if another answers, [`TransportError::TimedOut`] if nothing does: the last of the addresses' errors.
    pub async fn connect_node(&self, addresses: &[SocketAddr], node: &NodeKey, alpn: &[u8]) -> Result<Connection, TransportError> {
        let mut client = ClientConfig::new(tls::client(&self.inner.device, node.as_bytes(), alpn)?);
        client.transport_config(config::control_client(u64::from_le_bytes(random())));
        let mut attempts = JoinSet::new();
        let mut failure = TransportError::TimedOut { what: "any address of the node" };
        let reachable = |address: &&SocketAddr| self.inner.shared.reaches(**address);
        let mut after = Duration::ZERO;
        for address in addresses.iter().filter(reachable).take(NODE_ADDRESSES_MAX) {
            let attempt = Attempt { shared: Arc::clone(&self.inner.shared), quic: self.inner.quic.clone(), address: *address };
            attempts.spawn(attempt.connect(client.clone(), after));
            after += NEXT_ADDRESS_AFTER;
        }
        if let (true, Some(address)) = (attempts.is_empty(), addresses.first()) {
            failure = TransportError::NoSocket { address: *address };
        }
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failure = error,
                Err(error) => failure = TransportError::Setup(error.to_string()),
            }
        }
        Err(failure)
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
        tokio::time::timeout(timeout, ask).await.ok().flatten()
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

/// One attempt to connect to a node at one of its addresses.
struct Attempt {
    shared: Arc<Shared>,
    quic: Endpoint,
    address: SocketAddr,
}

impl Attempt {
    async fn connect(self, client: ClientConfig, after: Duration) -> Result<Connection, TransportError> {
        let Self { shared, quic, address } = self;
        tokio::time::sleep(after).await;
        let at = shared.board().add_node(Instant::now(), address)?;
        let keep = Box::new(NodeAddress { shared, at });
        let connecting = quic.connect_with(client, at, tls::SERVER_NAME).map_err(|error| TransportError::Setup(error.to_string()))?;
        let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, connecting).await;
        let quic = handshake.map_err(|_| TransportError::TimedOut { what: "the node's handshake" })??;
        Connection::new(quic, Some(address), Some(keep))
    }
}

/// Keeps a connection's virtual address.
#[derive(Debug)]
struct NodeAddress {
    shared: Arc<Shared>,
    at: SocketAddr,
}

impl Keep for NodeAddress {}

impl Drop for NodeAddress {
    fn drop(&mut self) {
        self.shared.with(|board, _, _| board.release_node(self.at));
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
