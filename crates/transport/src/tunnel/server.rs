//! The tunnels of a node, by the virtual addresses that stand for their clients, and the socket that QUIC sees of them.

use super::carry::{End, User, carry};
use crate::connection::Keep;
use crate::inbox::Inbox;
use crate::node_socket::{DatagramHandler, NodeSockets};
use crate::virtual_address::{VirtualAddresses, VirtualPrefix};
use ahoy_protocol::datagram::{Kind, Observed, classify};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

/// Tunnels from one address prefix (IPv4 /24, IPv6 /48), handshakes included: a company behind one address, not a flood. Loopback is free of
/// it. Each costs some tens of kilobytes with what TLS and the system hold for it.
const TUNNELS_PER_PREFIX_MAX: usize = 512;
/// TLS handshakes at once from one address prefix: a fraction of all that a node makes, so that a few prefixes cannot keep everybody else out.
const HANDSHAKES_PER_PREFIX_MAX: usize = 64;
/// A tunnel through which nobody has proved a key within this time is ended.
const UNUSED_MAX: Duration = Duration::from_secs(20);

/// Everything about a node's tunnels but the sockets that they come by.
#[derive(Debug)]
pub(crate) struct TunnelServer {
    prefix: VirtualPrefix,
    local: SocketAddr,
    addresses: Mutex<VirtualAddresses>,
    open: RwLock<HashMap<SocketAddr, Arc<ServedTunnel>>>,
    counts: Mutex<Counts>,
    tunnels_max: usize,
    handshakes_max: usize,
    /// Of tunnels that have ended.
    dropped: AtomicU64,
    handler: Arc<dyn DatagramHandler>,
    inbox: Inbox,
}

#[derive(Debug, Default)]
struct Counts {
    tunnels: usize,
    by_prefix: HashMap<IpPrefix, usize>,
    handshakes: usize,
    handshakes_by_prefix: HashMap<IpPrefix, usize>,
}

/// Takes one away from what is counted for a prefix.
fn uncount(by_prefix: &mut HashMap<IpPrefix, usize>, prefix: Option<IpPrefix>) {
    let Some(prefix) = prefix else { return };
    if let Some(here) = by_prefix.get_mut(&prefix) {
        *here -= 1;
        if *here == 0 {
            by_prefix.remove(&prefix);
        }
    }
}

/// The part of an address that whoever has it cannot easily change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum IpPrefix {
    V4([u8; 3]),
    V6([u16; 3]),
}

impl IpPrefix {
    /// `None` for this machine.
    fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Some(Self::V4([a, b, c]))
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                Some(Self::V6([a, b, c]))
            }
        }
    }
}

/// The node's end of a tunnel.
#[derive(Debug)]
pub(crate) struct ServedTunnel {
    client: SocketAddr,
    end: Arc<End>,
}

impl ServedTunnel {
    /// Where the client, or its proxy, connected from.
    pub(crate) fn client(&self) -> SocketAddr {
        self.client
    }

    /// A connection was made through the tunnel: it is closed when the tunnel ends, and must keep what comes back.
    pub(crate) fn carry(&self, quic: &quinn::Connection) -> CarriedBy {
        let user = self.end.user();
        user.carries(quic);
        CarriedBy { client: self.client, _user: user }
    }
}

/// What a connection through a tunnel keeps.
#[derive(Debug)]
pub(crate) struct CarriedBy {
    client: SocketAddr,
    _user: User,
}

impl Keep for CarriedBy {
    fn is_tunnel(&self) -> bool {
        true
    }

    fn client_ip(&self) -> Option<IpAddr> {
        Some(self.client.ip())
    }
}

/// A connection's place among those of the node and of its prefix. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    server: Arc<TunnelServer>,
    client: SocketAddr,
    prefix: Option<IpPrefix>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.server.counts();
        counts.tunnels -= 1;
        uncount(&mut counts.by_prefix, self.prefix);
    }
}

/// Counts a handshake for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Handshake {
    server: Arc<TunnelServer>,
    prefix: Option<IpPrefix>,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = self.server.counts();
        counts.handshakes -= 1;
        uncount(&mut counts.handshakes_by_prefix, self.prefix);
    }
}

impl TunnelServer {
    /// No tunnels yet. What comes out of them and is not QUIC goes to `handler`.
    pub(crate) fn new(handler: Arc<dyn DatagramHandler>, tunnels_max: usize, handshakes_max: usize) -> Arc<Self> {
        let addresses = VirtualAddresses::new(ahoy_identity::random());
        Arc::new(Self {
            prefix: addresses.prefix(),
            local: addresses.local(),
            addresses: Mutex::new(addresses),
            open: RwLock::default(),
            counts: Mutex::default(),
            tunnels_max,
            handshakes_max,
            dropped: AtomicU64::new(0),
            handler,
            inbox: Inbox::default(),
        })
    }

    /// A place for a client that connects from `client`, if there is room.
    pub(super) fn enter(self: &Arc<Self>, client: SocketAddr) -> Option<Place> {
        let prefix = IpPrefix::of(client.ip());
        let mut counts = self.counts();
        let here = prefix.and_then(|prefix| counts.by_prefix.get(&prefix).copied()).unwrap_or(0);
        if counts.tunnels >= self.tunnels_max || here >= TUNNELS_PER_PREFIX_MAX {
            return None;
        }
        counts.tunnels += 1;
        if let Some(prefix) = prefix {
            counts.by_prefix.insert(prefix, here + 1);
        }
        Some(Place { server: Arc::clone(self), client, prefix })
    }

    /// Begins the TLS handshake of `place`, if not too many are under way.
    pub(super) fn begin_handshake(self: &Arc<Self>, place: &Place) -> Option<Handshake> {
        let prefix = place.prefix;
        let mut counts = self.counts();
        let here = prefix.and_then(|prefix| counts.handshakes_by_prefix.get(&prefix).copied()).unwrap_or(0);
        if counts.handshakes >= self.handshakes_max || here >= HANDSHAKES_PER_PREFIX_MAX {
            return None;
        }
        counts.handshakes += 1;
        if let Some(prefix) = prefix {
            counts.handshakes_by_prefix.insert(prefix, here + 1);
        }
        Some(Handshake { server: Arc::clone(self), prefix })
    }

    /// Carries the datagrams of one tunnel until it ends.
    pub(super) async fn carry<S: AsyncRead + AsyncWrite>(self: &Arc<Self>, stream: S, place: Place, sockets: &NodeSockets) {
        let at = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).next_tunnel();
        let tunnel = Arc::new(ServedTunnel { client: place.client, end: End::new() });
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(at, Arc::clone(&tunnel));
        let _removal = Removal { server: Arc::clone(self), at };
        let receive = |datagram: &[u8]| self.receive(at, &tunnel, datagram, sockets);
        let unused = async {
            sleep(UNUSED_MAX).await;
            if !tunnel.end.has_user() {
                tunnel.end.finish();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = carry(stream, &tunnel.end, receive) => if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel broke");
            },
            () = unused => {}
        }
    }

    fn receive(&self, at: SocketAddr, tunnel: &ServedTunnel, datagram: &[u8], sockets: &NodeSockets) {
        if classify(datagram) == Some(Kind::Quic) {
            self.inbox.push(at, datagram);
            return;
        }
        let mut out = |to: SocketAddr, bytes: &[u8]| match Observed::decode(bytes) {
            // The client learns where its connection comes from, and not what stands for it here.
            Ok(observed) if to == at => tunnel.end.send(&Observed { address: tunnel.client, ..observed }.encode()),
            _ => sockets.send(to, bytes),
        };
        self.handler.handle(at, datagram, &mut out);
    }

    /// Whether `address` stands for a tunnel of this node, one that has ended included.
    pub(crate) fn owns(&self, address: SocketAddr) -> bool {
        self.prefix.contains(address)
    }

    /// The tunnel that `address` stands for.
    pub(crate) fn tunnel(&self, address: SocketAddr) -> Option<Arc<ServedTunnel>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    /// Sends a datagram into the tunnel that `to` stands for, or loses it.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8]) {
        if let Some(tunnel) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&to) {
            tunnel.end.send(datagram);
        }
    }

    /// How many tunnels there are, with those whose handshake is under way.
    pub(crate) fn count(&self) -> usize {
        self.counts().tunnels
    }

    /// How many datagrams were lost so far because a tunnel did not take them in time.
    pub(crate) fn dropped(&self) -> u64 {
        let open: u64 = self.open.read().unwrap_or_else(PoisonError::into_inner).values().map(|tunnel| tunnel.end.dropped()).sum();
        open + self.dropped.load(Ordering::Relaxed)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a tunnel out of the table when its task ends, however that comes.
struct Removal {
    server: Arc<TunnelServer>,
    at: SocketAddr,
}

impl Drop for Removal {
    fn drop(&mut self) {
        let removed = self.server.open.write().unwrap_or_else(PoisonError::into_inner).remove(&self.at);
        let dropped = removed.map_or(0, |tunnel| tunnel.end.dropped());
        self.server.dropped.fetch_add(dropped, Ordering::Relaxed);
    }
}

/// All tunnels of a node, as quinn sees them: one socket.
#[derive(Debug)]
pub(crate) struct TunnelSocket(pub(crate) Arc<TunnelServer>);

impl AsyncUdpSocket for TunnelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.send(transmit.destination, transmit.contents);
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        match self.0.inbox.hand_over(cx, buffers, meta) {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local)
    }
}

/// There is always room in a tunnel's queue: it drops what is old.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl DatagramHandler for Nothing {
        fn handle(&self, _from: SocketAddr, _datagram: &[u8], _out: &mut dyn FnMut(SocketAddr, &[u8])) {}
    }

    fn client(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_prefix_cannot_take_all_places() {
        let server = TunnelServer::new(Arc::new(Nothing), 2 * TUNNELS_PER_PREFIX_MAX, 1);
        let enter = || server.enter(client("192.0.2.1:5"));
        let mut places: Vec<Place> = (0..TUNNELS_PER_PREFIX_MAX).map(|_| enter().expect("room")).collect();
        assert!(server.enter(client("192.0.2.200:5")).is_none(), "the same /24 is one prefix");
        assert!(server.enter(client("198.51.100.1:5")).is_some());
        places.pop();
        assert!(enter().is_some());
        drop(places);
        assert_eq!((server.count(), server.counts().by_prefix.len()), (0, 0), "nothing is remembered of who has gone");
    }

    #[test]
    fn there_is_an_end_to_places_and_to_handshakes() {
        let server = TunnelServer::new(Arc::new(Nothing), 2, 1);
        let places: Vec<_> = (0..3).map(|_| server.enter(client("127.0.0.1:5"))).collect();
        assert_eq!(places.iter().flatten().count(), 2);
        let place = places[0].as_ref().expect("there was room");
        let first = server.begin_handshake(place);
        assert!(first.is_some() && server.begin_handshake(place).is_none());
        drop(first);
        assert!(server.begin_handshake(place).is_some());
    }

    #[test]
    fn one_prefix_cannot_take_all_handshakes() {
        let server = TunnelServer::new(Arc::new(Nothing), 1000, 1000);
        let (crowd, other) = (server.enter(client("192.0.2.1:5")).expect("room"), server.enter(client("198.51.100.1:5")).expect("room"));
        let handshakes: Vec<_> = (0..HANDSHAKES_PER_PREFIX_MAX + 1).map(|_| server.begin_handshake(&crowd)).collect();
        assert_eq!(handshakes.iter().flatten().count(), HANDSHAKES_PER_PREFIX_MAX);
        assert!(server.begin_handshake(&other).is_some());
    }
}
