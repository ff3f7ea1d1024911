//! Nodes, clients and things between them, for the tests.

use ahoy_identity::SigningKey;
use ahoy_protocol::datagram::{Move, Side, parse_relay_frame, relay_frame};
use ahoy_protocol::ids::{CallSecret, LegKey};
use ahoy_protocol::peer::{Candidate, CandidateKind};
use ahoy_protocol::wire::Text;
use ahoy_protocol::{CallId, NodeKey, Wire};
use ahoy_transport::{ClientEndpoint, Connection, DatagramHandler, NodeEndpoint, NodeLimits, ObserveResponder, PathKind, Peer, PeerSetup};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Protocol of the nodes.
pub(crate) const ALPN: &[u8] = b"test/1";
/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A message of these tests.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) text: Text<32>,
}

impl Wire for Note {
    const NAME: &'static str = "note";
    const BYTES_MAX: usize = 40;
}

pub(crate) fn note(text: &str) -> Note {
    Note { text: Text::fitting(text) }
}

pub(crate) struct Node {
    pub(crate) key: SigningKey,
    pub(crate) endpoint: NodeEndpoint,
}

impl Node {
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addresses()[0]
    }

    pub(crate) fn node_key(&self) -> NodeKey {
        self.key.node_key()
    }
}

pub(crate) fn node() -> Node {
    node_on(&["127.0.0.1:0"])
}

pub(crate) fn node_on(listen: &[&str]) -> Node {
    node_with(listen, observer(), NodeLimits::default())
}

pub(crate) fn node_with(listen: &[&str], handler: Arc<dyn DatagramHandler>, limits: NodeLimits) -> Node {
    let listen: Vec<_> = listen.iter().map(|address| address.parse().expect("an address")).collect();
    let key = SigningKey::generate();
    let endpoint = NodeEndpoint::bind(&listen, &[], &key, &[ALPN], handler, limits).expect("loopback has room");
    Node { key, endpoint }
}

pub(crate) fn observer() -> Arc<dyn DatagramHandler> {
    Arc::new(ObserveResponder::new(Arc::new(AtomicU8::new(33))))
}

/// Both ends of a connection between two nodes.
pub(crate) async fn meet(client: &Node, server: &Node) -> (Connection, Connection) {
    let key = server.node_key();
    let accept = async { server.endpoint.accept().await.expect("open").finish().await };
    let (there, here) = tokio::join!(client.endpoint.connect(server.address(), &key, ALPN), accept);
    (there.expect("connected"), here.expect("connected"))
}

/// A socket that speaks no QUIC.
pub(crate) fn stranger() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has room");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    socket
}

/// The next datagram that comes to `socket`.
pub(crate) async fn hear(socket: UdpSocket) -> (Vec<u8>, SocketAddr) {
    let hear = move || {
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
        (buffer[..length].to_vec(), from)
    };
    tokio::task::spawn_blocking(hear).await.expect("no panic")
}

/// Sends `count` datagrams of random kinds, lengths and contents, the same in every run.
pub(crate) fn noise(to: SocketAddr, count: u32) {
    let socket = stranger();
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for number in 0..count {
        let mut datagram: Vec<u8> = (0..random() % 1400).map(|_| random() as u8).collect();
        let firsts = [0x0f, 0x10, 0x11, 0x12, 0x13, 0x40, 0xc0, 0xe0, 0xff];
        if let (Some(first), true) = (datagram.first_mut(), number % 4 != 0) {
            *first = firsts[random() % firsts.len()];
        }
        socket.send_to(&datagram, to).expect("sent");
    }
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for {what} in vain"));
}

/// A client with a key of its own.
pub(crate) struct Client {
    pub(crate) key: SigningKey,
    pub(crate) endpoint: ClientEndpoint,
}

impl Client {
    /// Where it can be reached from this machine.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.endpoint.port()).into()
    }

    /// Its side of the call numbered `call` with `other`.
    pub(crate) fn peer(&self, call: u8, side: Side, other: &Client) -> Peer {
        self.peer_with(call, side, other, false)
    }

    /// The same, and it may open many sockets.
    pub(crate) fn eager_peer(&self, call: u8, side: Side, other: &Client) -> Peer {
        self.peer_with(call, side, other, true)
    }

    fn peer_with(&self, call: u8, side: Side, other: &Client, birthday: bool) -> Peer {
        let (call, secret) = (CallId([call; 16]), CallSecret([call; 32]));
        let (me, peer) = (self.key.device_key(), other.key.device_key());
        self.endpoint.peer(PeerSetup { call, secret, me, peer, side, birthday }).expect("room for a call")
    }
}

pub(crate) fn client() -> Client {
    let key = SigningKey::generate();
    let endpoint = ClientEndpoint::bind(None, &key).expect("loopback has room");
    endpoint.allow_loopback(true);
    Client { key, endpoint }
}

/// A relay that joins pairs of legs as it is told, without asking who they are.
#[derive(Debug, Default)]
pub(crate) struct ToyRelay {
    legs: Mutex<Vec<[(SocketAddr, u32); 2]>>,
    pub(crate) forwarded: AtomicU64,
    /// By channel, the counter of the last move that was believed.
    moves: Mutex<BTreeMap<u32, u64>>,
    /// Whether it takes nothing and gives nothing.
    pub(crate) dead: AtomicBool,
}

impl ToyRelay {
    /// Joins two clients: channel `number` of the first to channel `number + 100` of the second.
    pub(crate) fn join(&self, one: &Client, other: &Client, number: u32) {
        self.join_at(one.address(), other.address(), number);
    }

    /// The same for clients who are seen at these addresses.
    pub(crate) fn join_at(&self, one: SocketAddr, other: SocketAddr, number: u32) {
        self.legs.lock().expect("no panic").push([(one, number), (other, number + 100)]);
    }

    /// The counter of a channel's last move; nothing before there was one.
    pub(crate) fn moved(&self, channel: u32) -> u64 {
        self.moves.lock().expect("no panic").get(&channel).copied().unwrap_or(0)
    }

    fn forward(&self, from: SocketAddr, channel: u32, payload: &[u8], out: &mut dyn FnMut(SocketAddr, &[u8])) {
        let legs = self.legs.lock().expect("no panic");
        let joined = legs.iter().flat_map(|[one, other]| [(one, other), (other, one)]).find(|(leg, _)| **leg == (from, channel));
        if let Some((_, (to, channel))) = joined {
            self.forwarded.fetch_add(1, Ordering::Relaxed);
            out(*to, &relay_frame(*channel, payload));
        }
    }

    fn take_move(&self, from: SocketAddr, moved: Move, sealed: &[u8]) {
        if moved.counter <= self.moved(moved.channel) || !ahoy_identity::check_leg_code(&leg_key(moved.channel), sealed) {
            return;
        }
        self.moves.lock().expect("no panic").insert(moved.channel, moved.counter);
        let mut legs = self.legs.lock().expect("no panic");
        for (address, _) in legs.iter_mut().flatten().filter(|(_, channel)| *channel == moved.channel) {
            *address = from;
        }
    }
}

impl DatagramHandler for ToyRelay {
    fn handle(&self, from: SocketAddr, datagram: &[u8], out: &mut dyn FnMut(SocketAddr, &[u8])) {
        if self.dead.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(moved) = Move::decode(datagram) {
            self.take_move(from, moved, datagram);
        } else if let Ok((channel, payload)) = parse_relay_frame(datagram) {
            self.forward(from, channel, payload, out);
        }
    }
}

/// A relay and its node.
pub(crate) fn relay() -> (Arc<ToyRelay>, Node) {
    let relay = Arc::new(ToyRelay::default());
    let node = node_with(&["127.0.0.1:0"], Arc::clone(&relay) as _, NodeLimits::default());
    (relay, node)
}

/// Puts the first leg of a call on channel `channel` of `node`.
pub(crate) fn join(peer: &Peer, node: &Node, channel: u32) {
    assert!(peer.set_leg(0, node.address(), channel, leg_key(channel)));
}

/// The key that a [`ToyRelay`] gives with a channel.
pub(crate) fn leg_key(channel: u32) -> LegKey {
    LegKey([channel as u8; 32])
}

/// Two clients in a call through a relay.
pub(crate) struct Call {
    pub(crate) relay: Arc<ToyRelay>,
    pub(crate) node: Node,
    pub(crate) alice: Client,
    pub(crate) bob: Client,
    pub(crate) caller: Peer,
    pub(crate) callee: Peer,
    pub(crate) there: Connection,
    pub(crate) here: Connection,
}

pub(crate) async fn call() -> Call {
    let (relay, node) = relay();
    let (alice, bob) = (client(), client());
    relay.join(&alice, &bob, 1);
    let (caller, callee) = (alice.peer(1, Side::Caller, &bob), bob.peer(1, Side::Callee, &alice));
    join(&caller, &node, 1);
    join(&callee, &node, 101);
    let (there, here) = tokio::join!(caller.connect(), callee.accept());
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    Call { relay, node, alice, bob, caller, callee, there, here }
}

/// Waits until the call goes one of `kinds` of ways.
pub(crate) async fn until_path(peer: &Peer, kinds: &[PathKind]) {
    let mut path = peer.path();
    let settled = path.wait_for(|status| kinds.contains(&status.kind));
    tokio::time::timeout(PATIENCE, settled).await.unwrap_or_else(|_| panic!("the call never went {kinds:?}")).expect("the call goes on");
}

/// An emulated link between two addresses, each of which sees the other at the link's. It can be cut.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    cut: Arc<AtomicBool>,
    carried: Arc<[AtomicU64; 2]>,
    task: tokio::task::JoinHandle<()>,
}

/// A router that translates one client's address towards one node, and can forget by which.
pub(crate) struct Nat {
    /// The node's address, as the client sees it.
    pub(crate) address: SocketAddr,
    inside: Arc<tokio::net::UdpSocket>,
    outside: tokio::sync::watch::Sender<Arc<tokio::net::UdpSocket>>,
    client: SocketAddr,
    tasks: Mutex<[tokio::task::AbortHandle; 2]>,
}

impl Nat {
    pub(crate) async fn new(client: &Client, node: SocketAddr) -> Self {
        let inside = Arc::new(bind().await);
        let (outside, outsides) = tokio::sync::watch::channel(Arc::new(bind().await));
        let address = inside.local_addr().expect("bound");
        let out = tokio::spawn(translate(Arc::clone(&inside), outsides, node)).abort_handle();
        let back = pass_back(&outside.borrow(), &inside, client.address());
        Self { address, inside, outside, client: client.address(), tasks: Mutex::new([out, back]) }
    }

    /// The client's address, as the node sees it.
    pub(crate) fn outside(&self) -> SocketAddr {
        self.outside.borrow().local_addr().expect("bound")
    }

    /// From here on the client is seen at another address, and nothing that is sent to the old one arrives.
    pub(crate) async fn forget(&self) {
        let outside = Arc::new(bind().await);
        let back = pass_back(&outside, &self.inside, self.client);
        self.outside.send_replace(outside);
        let mut tasks = self.tasks.lock().expect("no panic");
        std::mem::replace(&mut tasks[1], back).abort();
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.tasks.lock().expect("no panic").iter().for_each(tokio::task::AbortHandle::abort);
    }
}

async fn bind() -> tokio::net::UdpSocket {
    tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("loopback has room")
}

async fn translate(
    inside: Arc<tokio::net::UdpSocket>,
    outside: tokio::sync::watch::Receiver<Arc<tokio::net::UdpSocket>>,
    node: SocketAddr,
) {
    let mut buffer = [0; 2048];
    loop {
        let (length, _) = inside.recv_from(&mut buffer).await.expect("bound");
        let outside = Arc::clone(&outside.borrow());
        let _ = outside.send_to(&buffer[..length], node).await;
    }
}

fn pass_back(outside: &Arc<tokio::net::UdpSocket>, inside: &Arc<tokio::net::UdpSocket>, client: SocketAddr) -> tokio::task::AbortHandle {
    let (outside, inside) = (Arc::clone(outside), Arc::clone(inside));
    let pass = async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, _) = outside.recv_from(&mut buffer).await.expect("bound");
            let _ = inside.send_to(&buffer[..length], client).await;
        }
    };
    tokio::spawn(pass).abort_handle()
}

/// A link to `inside` that nothing passes which comes from `shut`; whoever else sends to it is seen at an address of his own.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Gate {
    pub(crate) async fn new(inside: SocketAddr, shut: SocketAddr) -> Self {
        let socket = Arc::new(bind().await);
        let address = socket.local_addr().expect("bound");
        Self { address, task: tokio::spawn(let_in(socket, inside, shut)) }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn let_in(socket: Arc<tokio::net::UdpSocket>, inside: SocketAddr, shut: SocketAddr) {
    let (mut seen, mut tasks) = (BTreeMap::new(), tokio::task::JoinSet::new());
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.expect("bound");
        if from == shut {
            continue;
        }
        if let std::collections::btree_map::Entry::Vacant(place) = seen.entry(from) {
            let outside = Arc::new(bind().await);
            place.insert(Arc::clone(&outside));
            let back = Arc::clone(&socket);
            tasks.spawn(async move {
                let mut buffer = [0; 2048];
                loop {
                    let (length, _) = outside.recv_from(&mut buffer).await.expect("bound");
                    let _ = back.send_to(&buffer[..length], from).await;
                }
            });
        }
        let _ = seen[&from].send_to(&buffer[..length], inside).await;
    }
}

/// What a link does to datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quality {
    /// Time that each takes.
    pub(crate) delay: Duration,
    /// Of a hundred, how many it loses: evenly, and the same in every run.
    pub(crate) loss_percent: u64,
}

impl Way {
    /// A link that loses nothing and takes no time.
    pub(crate) async fn between(one: &Client, other: &Client) -> Self {
        Self::new([one.address(), other.address()], Quality::default()).await
    }

    pub(crate) async fn new(ends: [SocketAddr; 2], quality: Quality) -> Self {
        let socket = Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("loopback has room"));
        let address = socket.local_addr().expect("bound");
        let (cut, carried) = (Arc::<AtomicBool>::default(), Arc::default());
        let task = tokio::spawn(carry(socket, ends, quality, Arc::clone(&cut), Arc::clone(&carried)));
        Self { address, cut, carried, task }
    }

    /// The other's address for either.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate { address: self.address, kind: CandidateKind::Host }
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }

    /// Datagrams that came from the one and from the other.
    pub(crate) fn carried(&self) -> [u64; 2] {
        [&self.carried[0], &self.carried[1]].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    socket: Arc<tokio::net::UdpSocket>,
    ends: [SocketAddr; 2],
    quality: Quality,
    cut: Arc<AtomicBool>,
    carried: Arc<[AtomicU64; 2]>,
) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.expect("bound");
        let Some(end) = ends.iter().position(|end| *end == from) else { continue };
        let number = carried[end].fetch_add(1, Ordering::Relaxed) + 1;
        let lost = number * quality.loss_percent / 100 != (number - 1) * quality.loss_percent / 100;
        if lost || cut.load(Ordering::Relaxed) {
            continue;
        }
        let (socket, datagram, to) = (Arc::clone(&socket), buffer[..length].to_vec(), ends[1 - end]);
        if quality.delay.is_zero() {
            let _ = socket.send_to(&datagram, to).await;
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(quality.delay).await;
                let _ = socket.send_to(&datagram, to).await;
            });
        }
    }
}

/// A stream of numbered datagrams, fifty a second, like voice.
pub(crate) struct Talk {
    stop: Arc<AtomicBool>,
    sending: tokio::task::JoinHandle<u32>,
    hearing: tokio::task::JoinHandle<Vec<u32>>,
}

/// Marks the end of a talk.
const LAST: u32 = u32::MAX;

impl Talk {
    pub(crate) fn begin(from: &Connection, to: &Connection) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sending = tokio::spawn(talk(from.clone(), Arc::clone(&stop)));
        let hearing = tokio::spawn(hear_out(to.clone()));
        Self { stop, sending, hearing }
    }

    /// Ends it; the numbers that were sent and did not arrive.
    pub(crate) async fn missing(self) -> Vec<u32> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sending.await.expect("no panic");
        let heard = tokio::time::timeout(PATIENCE, self.hearing).await.expect("the end is heard").expect("no panic");
        let mut once = heard.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), heard.len(), "a datagram came twice");
        (0..sent).filter(|number| once.binary_search(number).is_err()).collect()
    }
}

async fn talk(connection: Connection, stop: Arc<AtomicBool>) -> u32 {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    // After a pause of this machine's, frames that pile up would push the oldest out of the queue, as they should.
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0u32;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let mut frame = number.to_be_bytes().to_vec();
        frame.resize(100, 0);
        connection.send_datagram(frame.into()).expect("open");
        number += 1;
    }
    // Said several times, and after a moment, because datagrams may be lost and overtaken.
    for _ in 0..20 {
        pace.tick().await;
        connection.send_datagram(LAST.to_be_bytes().to_vec().into()).expect("open");
    }
    number
}

async fn hear_out(connection: Connection) -> Vec<u32> {
    let (mut heard, mut lasts) = (Vec::new(), 0);
    while lasts < 5 {
        let datagram = connection.read_datagram().await.expect("open");
        match u32::from_be_bytes(datagram[..4].try_into().expect("a number")) {
            LAST => lasts += 1,
            number => heard.push(number),
        }
    }
    heard
}
