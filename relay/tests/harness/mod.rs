//! A relay in this process, an authority that signs what a login server would, and clients of the relay.

// Each test file uses a part of it.
#![allow(dead_code, unreachable_pub, missing_docs)]

use ahoy_identity::{SigningKey, network_id, random};
use ahoy_node::{ServeArgs, testing};
use ahoy_protocol::certificate::{NetworkDocument, NetworkStatement, NodeCertificate, NodeRole, RelayGrant};
use ahoy_protocol::datagram::{KIND_RELAY, parse_relay_frame, relay_frame};
use ahoy_protocol::ids::LegKey;
use ahoy_protocol::login::NodeCredentials;
use ahoy_protocol::relay::{ALPN, Join, LegEvent};
use ahoy_protocol::roster::{Roster, RosterNode, SaltPeriod};
use ahoy_protocol::time::{DAY, HOUR};
use ahoy_protocol::{CallId, DeviceKey, List, NetworkLink, NodeKey, Signed, UnixMillis};
use ahoy_relay::Relay;
use ahoy_transport::{Connection, DatagramHandler, NodeEndpoint, NodeLimits, RecvStream, SendStream, receive, send};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

/// Whatever is waited for comes long before.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn now() -> UnixMillis {
    SystemTime::now().into()
}

/// Signs what a login server would.
pub struct Authority {
    root: SigningKey,
    pub issuing: SigningKey,
}

impl Authority {
    pub fn new() -> Self {
        Self { root: SigningKey::generate(), issuing: SigningKey::generate() }
    }

    pub fn document(&self) -> NetworkDocument {
        let statement = NetworkStatement { issuing: List::first_of([self.issuing.issuing_key()]), issued: now() };
        NetworkDocument { root: self.root.root_key(), statement: self.root.sign(&statement).expect("fits") }
    }

    pub fn roster(&self, version: u64, nodes: Vec<RosterNode>) -> Signed<Roster> {
        let salt = SaltPeriod { salt: ahoy_protocol::ids::Salt(random()), since: now() };
        let roster = Roster {
            version,
            issued: now(),
            not_after: now().plus(8 * DAY),
            salts: List::first_of([salt]),
            nodes: List::first_of(nodes),
            revoked: List::default(),
        };
        self.issuing.sign(&roster).expect("fits")
    }

    fn certificate(&self, node: NodeKey) -> Signed<NodeCertificate> {
        let certificate = NodeCertificate { role: NodeRole::Relay, node, serial: 1, issued: now(), not_after: now().plus(DAY) };
        self.issuing.sign(&certificate).expect("fits")
    }

    pub fn grant(&self, device: DeviceKey) -> Signed<RelayGrant> {
        self.grant_until(device, now().plus(HOUR))
    }

    pub fn grant_until(&self, device: DeviceKey, not_after: UnixMillis) -> Signed<RelayGrant> {
        let grant = RelayGrant { device, kbit_per_s: 2000, issued: now().minus(HOUR), not_after };
        self.issuing.sign(&grant).expect("fits")
    }
}

/// A relay whose login server is away, and the authority it believes.
pub struct Lab {
    pub relay: Relay,
    pub authority: Authority,
    pub key: SigningKey,
    _folder: TempDir,
}

impl Lab {
    pub async fn new() -> Self {
        Self::with_supernodes(Vec::new()).await
    }

    pub async fn with_supernodes(supernodes: Vec<RosterNode>) -> Self {
        let (authority, key) = (Authority::new(), SigningKey::generate());
        let folder = tempfile::tempdir().expect("a folder");
        let credentials = NodeCredentials { certificate: authority.certificate(key.node_key()), roster: authority.roster(1, supernodes) };
        testing::leave_behind(folder.path(), "ahoy-relay", &key, &authority.document(), &credentials).expect("a fresh folder");
        let link = NetworkLink { host: "127.0.0.1".to_owned(), port: closed_port(), network: network_id(&authority.root.root_key()) };
        let args = ServeArgs {
            network: link.to_string(),
            token: None,
            data: folder.path().to_owned(),
            listen: vec![any_port()],
            tcp: Vec::new(),
            public: None,
            metrics: None,
        };
        let relay = Relay::start(&args).await.expect("the relay goes on with what its folder holds");
        Self { relay, authority, key, _folder: folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.relay.local_addresses()[0]
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address(), self.key.node_key()).await
    }

    /// Two clients with joined legs.
    pub async fn call(&self) -> (Client, Leg, Client, Leg) {
        let (alice, bob) = (self.client().await, self.client().await);
        let call = CallId(random());
        let mut for_alice = alice.join(&self.authority, call, bob.device()).await;
        let for_bob = bob.join(&self.authority, call, alice.device()).await;
        assert!(!for_alice.peer_present);
        assert!(for_bob.peer_present);
        assert_eq!(for_alice.event().await, LegEvent::PeerJoined);
        (alice, for_alice, bob, for_bob)
    }

    /// Waits until the relay's counters are as `condition` says.
    pub async fn until(&self, condition: impl Fn(&ahoy_relay::Counters) -> bool) {
        let waiting = async {
            while !condition(&self.relay.counters()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("the counters stay at {:?}", self.relay.counters()));
    }
}

/// A device: QUIC and frames on one port, as a real client has them.
pub struct Client {
    pub key: SigningKey,
    pub endpoint: NodeEndpoint,
    pub connection: Connection,
    relay: SocketAddr,
    frames: Mutex<mpsc::Receiver<(SocketAddr, Vec<u8>)>>,
}

impl Client {
    pub async fn connect(relay: SocketAddr, node: NodeKey) -> Self {
        Self::connect_as(SigningKey::generate(), relay, node).await
    }

    pub async fn connect_as(key: SigningKey, relay: SocketAddr, node: NodeKey) -> Self {
        let (collected, frames) = mpsc::channel(1024);
        let endpoint = NodeEndpoint::bind(&[any_port()], &[], &key, &[ALPN], Arc::new(Collector(collected)), NodeLimits::default())
            .expect("a free port");
        let connection = endpoint.connect(relay, &node, ALPN).await.expect("the relay answers");
        Self { key, endpoint, connection, relay, frames: Mutex::new(frames) }
    }

    pub fn device(&self) -> DeviceKey {
        self.key.device_key()
    }

    pub async fn ask(&self, join: &Join) -> (LegEvent, SendStream, RecvStream) {
        let (mut sending, mut receiving) = self.connection.open_bi().await.expect("a stream");
        send(&mut sending, join).await.expect("the relay reads");
        let answer = timeout(PATIENCE, receive(&mut receiving)).await.expect("in time").expect("an answer").expect("an answer");
        (answer, sending, receiving)
    }

    pub async fn join(&self, authority: &Authority, call: CallId, peer: DeviceKey) -> Leg {
        let join = Join { call, peer, grant: authority.grant(self.device()) };
        match self.ask(&join).await {
            (LegEvent::Joined { channel, key, peer_present }, sending, receiving) => Leg { channel, key, peer_present, sending, receiving },
            (other, ..) => panic!("not joined: {other:?}"),
        }
    }

    /// Sends a frame from the port that the connection has.
    pub fn send_frame(&self, channel: u32, payload: &[u8]) {
        self.endpoint.sender().send(self.relay, &relay_frame(channel, payload));
    }

    pub async fn next_frame(&self) -> (u32, Vec<u8>) {
        let (from, frame) = timeout(PATIENCE, self.frames.lock().await.recv()).await.expect("a frame in time").expect("a frame");
        assert_eq!(from, self.relay);
        let (channel, payload) = parse_relay_frame(&frame).expect("a frame");
        (channel, payload.to_vec())
    }
}

/// A leg, as its client holds it.
pub struct Leg {
    pub channel: u32,
    pub key: LegKey,
    pub peer_present: bool,
    pub sending: SendStream,
    pub receiving: RecvStream,
}

impl Leg {
    pub async fn event(&mut self) -> LegEvent {
        timeout(PATIENCE, receive(&mut self.receiving)).await.expect("an event in time").expect("an event").expect("an event")
    }

    pub fn leave(mut self) {
        self.sending.finish().expect("the stream is open");
    }
}

/// Keeps the frames that come to a client.
#[derive(Debug)]
struct Collector(mpsc::Sender<(SocketAddr, Vec<u8>)>);

impl DatagramHandler for Collector {
    fn handle(&self, from: SocketAddr, datagram: &[u8], _out: &mut dyn FnMut(SocketAddr, &[u8])) {
        if datagram.first() == Some(&KIND_RELAY) {
            let _ = self.0.try_send((from, datagram.to_vec()));
        }
    }
}

pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A port at which nobody listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind(any_port()).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Bytes that pass for a QUIC packet of a call.
pub fn packet(text: &str) -> Vec<u8> {
    [&[0x40], text.as_bytes()].concat()
}
