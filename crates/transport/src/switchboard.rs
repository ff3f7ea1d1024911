//! A client's table of connections: which real addresses stand behind each virtual one, and which virtual ones a
//! datagram from a real address is for.
//!
//! It promises that nothing reaches QUIC but what comes from a node this client connected to, from an address at which
//! a call's peer has authenticated itself, or through a relay on a channel of a call. It sends through what it is given.

use crate::peer_route::{Out, PeerRoute};
use crate::virtual_address::VirtualAddresses;
use crate::{Observation, TransportError};
use ahoy_path::{AddressRules, Via};
use ahoy_protocol::datagram::{Kind, Observed, classify, parse_relay_frame};
use quinn::Incoming;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Connections to nodes at once, with those that have just ended: three supernodes, the relays of a few calls, and
/// attempts at each of their addresses.
const NODES_MAX: usize = 128;
/// Calls at once, with those that ring on several devices and those that have just ended.
pub(crate) const PEERS_MAX: usize = 64;
/// Observe requests under way.
const OBSERVATIONS_MAX: usize = 64;
/// A node's address is forgotten when its connection has no owner and this long no packet: longer than the keep-alive of
/// a connection of which only a stream is left.
const NODE_REST: Duration = Duration::from_secs(30);
/// Bytes before the tag of a probe, and with it.
const TAG: std::ops::Range<usize> = 1..9;

/// A node's connection.
#[derive(Debug)]
struct NodeRoute {
    address: SocketAddr,
    owned: bool,
    last_packet: Instant,
}

/// An observe request that waits for its answer.
#[derive(Debug)]
struct Waiting {
    address: SocketAddr,
    sent: Instant,
    answer: mpsc::Sender<Observation>,
}

/// What a datagram's QUIC packet is handed on with: the virtual address it then comes from, and the packet.
pub(crate) type Deliver<'a, 'b> = &'a mut dyn FnMut(SocketAddr, &'b [u8]);

/// The table.
#[derive(Debug)]
pub(crate) struct Switchboard {
    addresses: VirtualAddresses,
    allow_loopback: bool,
    nodes: BTreeMap<SocketAddr, NodeRoute>,
    peers: BTreeMap<SocketAddr, PeerRoute>,
    observations: BTreeMap<[u8; 8], Waiting>,
    dropped: u64,
    /// The deadline that was told last: until then nobody looks at the clock.
    told: Option<Instant>,
}

impl Switchboard {
    pub(crate) fn new(addresses: VirtualAddresses) -> Self {
        Self {
            addresses,
            allow_loopback: false,
            nodes: BTreeMap::new(),
            peers: BTreeMap::new(),
            observations: BTreeMap::new(),
            dropped: 0,
            told: None,
        }
    }

    /// The endpoint's own virtual address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.addresses.local()
    }

    /// Which addresses of peers may be probed.
    pub(crate) fn rules(&self) -> AddressRules {
        AddressRules { allow_loopback: self.allow_loopback, virtual_prefix: Some(self.addresses.prefix()) }
    }

    pub(crate) fn allow_loopback(&mut self, allow: bool) {
        self.allow_loopback = allow;
    }

    /// Datagrams that nobody vouched for.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a node or relay may be at `address`.
    pub(crate) fn is_real(&self, address: SocketAddr) -> bool {
        let ip = address.ip();
        address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !self.addresses.contains(address)
    }

    /// A virtual address for a connection to the node at `address`.
    pub(crate) fn add_node(&mut self, now: Instant, address: SocketAddr) -> Result<SocketAddr, TransportError> {
        if !self.is_real(address) {
            return Err(TransportError::BadAddress { address });
        }
        if self.nodes.len() >= NODES_MAX {
            self.forget_a_node()?;
        }
        let at = self.addresses.next();
        self.nodes.insert(at, NodeRoute { address, owned: true, last_packet: now });
        Ok(at)
    }

    fn forget_a_node(&mut self) -> Result<(), TransportError> {
        let unowned = self.nodes.iter().filter(|(_, node)| !node.owned).min_by_key(|(_, node)| node.last_packet);
        let Some(at) = unowned.map(|(at, _)| *at) else { return Err(TransportError::TooMany { what: "connections to nodes" }) };
        self.nodes.remove(&at);
        Ok(())
    }

    /// The owner of the connection at `at` has gone.
    pub(crate) fn release_node(&mut self, at: SocketAddr) {
        if let Some(node) = self.nodes.get_mut(&at) {
            node.owned = false;
        }
    }

    /// A virtual address for a call.
    pub(crate) fn add_peer(&mut self, peer: PeerRoute) -> Result<SocketAddr, TransportError> {
        if self.peers.len() >= PEERS_MAX {
            return Err(TransportError::TooMany { what: "calls" });
        }
        let at = self.addresses.next();
        self.peers.insert(at, peer);
        Ok(at)
    }

    /// The call at `at`.
    pub(crate) fn peer(&mut self, at: SocketAddr) -> Option<&mut PeerRoute> {
        self.peers.get_mut(&at)
    }

    /// Waits for the answer to an observe request that is sent to `address`.
    pub(crate) fn add_observation(&mut self, now: Instant, nonce: [u8; 8], address: SocketAddr, answer: mpsc::Sender<Observation>) -> bool {
        let room = self.observations.len() < OBSERVATIONS_MAX;
        if room {
            self.observations.insert(nonce, Waiting { address, sent: now, answer });
        }
        room
    }

    pub(crate) fn remove_observation(&mut self, nonce: [u8; 8]) {
        self.observations.remove(&nonce);
    }

    /// Hands an attempt to connect to the call it is for; gives it back where there is none.
    pub(crate) fn offer(&self, incoming: Incoming) -> Option<Incoming> {
        match self.peers.get(&incoming.remote_address()) {
            Some(peer) => peer.offer(incoming),
            None => Some(incoming),
        }
    }

    /// Sends a QUIC packet to the virtual address `to`; says whether there was room for it.
    pub(crate) fn send(&mut self, now: Instant, to: SocketAddr, packet: &[u8], out: Out<'_>) -> bool {
        if let Some(node) = self.nodes.get_mut(&to) {
            node.last_packet = now;
            out(node.address, packet)
        } else if let Some(peer) = self.peers.get_mut(&to) {
            peer.send(now, packet, out)
        } else {
            // The route has gone; QUIC takes it for a loss.
            true
        }
    }

    /// Takes what came from the real address `from`.
    pub(crate) fn receive<'a>(&mut self, now: Instant, from: SocketAddr, datagram: &'a [u8], deliver: Deliver<'_, 'a>, out: Out<'_>) {
        let taken = match classify(datagram) {
            Some(Kind::Quic) => self.receive_quic(now, from, datagram, deliver, out),
            Some(Kind::Relay) => self.receive_frame(now, from, datagram, deliver, out),
            Some(Kind::Ping | Kind::Pong) => self.receive_probe(now, from, datagram, out),
            Some(Kind::Observed) => self.receive_observed(now, from, datagram),
            Some(Kind::Observe) | None => false,
        };
        if !taken {
            self.dropped += 1;
        }
    }

    /// One address may stand behind several connections: two to one node, or two calls with one device. Which one a
    /// packet is for only QUIC can tell, so each gets it, and those it is not for throw it away.
    fn receive_quic<'a>(&mut self, now: Instant, from: SocketAddr, packet: &'a [u8], deliver: Deliver<'_, 'a>, out: Out<'_>) -> bool {
        let mut taken = false;
        for (at, node) in self.nodes.iter_mut().filter(|(_, node)| node.address == from) {
            node.last_packet = now;
            deliver(*at, packet);
            taken = true;
        }
        for (at, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.has_address(from)) {
            peer.handle_traffic(now, Via::Direct(from), out);
            deliver(*at, packet);
            taken = true;
        }
        taken
    }

    fn receive_frame<'a>(&mut self, now: Instant, from: SocketAddr, frame: &'a [u8], deliver: Deliver<'_, 'a>, out: Out<'_>) -> bool {
        let Ok((channel, packet)) = parse_relay_frame(frame) else { return false };
        if classify(packet) != Some(Kind::Quic) {
            return false;
        }
        let mut taken = false;
        for (at, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.has_relay(from, channel)) {
            peer.handle_traffic(now, Via::Relay, out);
            deliver(*at, packet);
            taken = true;
        }
        taken
    }

    fn receive_probe(&mut self, now: Instant, from: SocketAddr, probe: &[u8], out: Out<'_>) -> bool {
        let Some(tag) = probe.get(TAG) else { return false };
        match self.peers.values_mut().find(|peer| peer.has_tag(tag)) {
            Some(peer) => peer.handle_probe(now, from, probe, out),
            None => false,
        }
    }

    fn receive_observed(&mut self, now: Instant, from: SocketAddr, answer: &[u8]) -> bool {
        let Ok(observed) = Observed::decode(answer) else { return false };
        match self.observations.get(&observed.nonce) {
            Some(waiting) if waiting.address == from => {
                let rtt = now.saturating_duration_since(waiting.sent);
                let observation = Observation { address: observed.address, rtt, load_percent: observed.load_percent };
                // The first answer counts; a second one finds no room.
                let _ = waiting.answer.try_send(observation);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Tells when [`handle_timeout`](Self::handle_timeout) is due; `None`: not before something else happens.
    pub(crate) fn tell_deadline(&mut self) -> Option<Instant> {
        self.told = self.deadline();
        self.told
    }

    /// Whether the deadline has become an earlier one than was told.
    pub(crate) fn has_earlier_deadline(&self) -> bool {
        self.deadline().is_some_and(|deadline| self.told.is_none_or(|told| deadline < told))
    }

    fn deadline(&self) -> Option<Instant> {
        let nodes = self.nodes.values().filter(|node| !node.owned).map(|node| node.last_packet + NODE_REST);
        let peers = self.peers.values().filter_map(PeerRoute::deadline);
        nodes.chain(peers).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: Out<'_>) {
        self.nodes.retain(|_, node| node.owned || node.last_packet + NODE_REST > now);
        self.peers.retain(|_, peer| !peer.is_over(now));
        for peer in self.peers.values_mut() {
            peer.handle_timeout(now, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::datagram::{KIND_PING, relay_frame};

    const QUIC: &[u8] = &[0x40, 1, 2, 3];

    fn board() -> Switchboard {
        Switchboard::new(VirtualAddresses::new([1, 2, 3, 4, 5]))
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Which virtual addresses a datagram is handed on from. Nothing may be sent because of it.
    fn received(board: &mut Switchboard, from: &str, datagram: &[u8]) -> Vec<SocketAddr> {
        let mut delivered = Vec::new();
        let deliver = &mut |at, _: &[u8]| delivered.push(at);
        board.receive(Instant::now(), address(from), datagram, deliver, &mut |_, _| panic!("it was answered"));
        delivered
    }

    #[test]
    fn nothing_from_a_stranger_is_handed_on_or_answered() {
        let mut board = board();
        let ping = [&[KIND_PING][..], &[0; 33]].concat();
        for datagram in [QUIC, &relay_frame(1, QUIC), &ping, &ping[..3], &[0x10; 64], &[0x11; 29], &[], &[0x80]] {
            assert_eq!(received(&mut board, "192.0.2.1:4433", datagram), []);
        }
        assert_eq!(board.dropped(), 8);
    }

    #[test]
    fn a_nodes_packets_come_from_its_virtual_address_whatever_else_is_at_its_ip() {
        let mut board = board();
        let node = board.add_node(Instant::now(), address("192.0.2.1:4433")).expect("room");
        let other = board.add_node(Instant::now(), address("192.0.2.1:4434")).expect("room");
        assert_eq!(received(&mut board, "192.0.2.1:4433", QUIC), [node]);
        assert_eq!(received(&mut board, "192.0.2.1:4434", QUIC), [other]);
        assert_eq!(received(&mut board, "192.0.2.1:4435", QUIC), []);
    }

    #[test]
    fn no_node_is_at_a_virtual_address() {
        let mut board = board();
        for bad in ["[fd01:203:405::1]:4433", "[fd01:203:405:9::1]:4433", "0.0.0.0:4433", "[ff02::1]:4433"] {
            let address = address(bad);
            assert_eq!(board.add_node(Instant::now(), address), Err(TransportError::BadAddress { address }));
        }
    }

    #[test]
    fn a_released_node_is_forgotten_after_a_rest_and_an_owned_one_is_not() {
        let (mut board, now) = (board(), Instant::now());
        let released = board.add_node(now, address("192.0.2.1:1")).expect("room");
        board.add_node(now, address("192.0.2.2:1")).expect("room");
        board.release_node(released);
        let deadline = board.deadline().expect("one node rests");
        board.handle_timeout(deadline, &mut |_, _| true);
        assert_eq!(received(&mut board, "192.0.2.1:1", QUIC), []);
        assert_eq!(received(&mut board, "192.0.2.2:1", QUIC).len(), 1);
        assert_eq!(board.deadline(), None);
    }

    #[test]
    fn a_full_table_makes_room_only_at_the_cost_of_the_released() {
        let (mut board, now) = (board(), Instant::now());
        let nodes: Vec<_> = (0..NODES_MAX).map(|_| board.add_node(now, address("192.0.2.1:1")).expect("room")).collect();
        let full = TransportError::TooMany { what: "connections to nodes" };
        assert_eq!(board.add_node(now, address("192.0.2.2:1")), Err(full));
        board.release_node(nodes[5]);
        board.add_node(now, address("192.0.2.2:1")).expect("the released one's place");
    }

    #[test]
    fn an_observation_counts_only_from_the_address_that_was_asked() {
        let (mut board, now) = (board(), Instant::now());
        let (answer, mut answers) = mpsc::channel(1);
        assert!(board.add_observation(now, [9; 8], address("192.0.2.1:4433"), answer));
        let observed = Observed { nonce: [9; 8], load_percent: 1, address: address("198.51.100.1:5") }.encode();
        received(&mut board, "192.0.2.2:4433", &observed);
        assert!(answers.try_recv().is_err());
        received(&mut board, "192.0.2.1:4433", &observed);
        assert_eq!(answers.try_recv().expect("an answer").address, address("198.51.100.1:5"));
    }
}
