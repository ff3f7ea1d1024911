//! A client's table of connections: which real addresses stand behind each virtual one, and which virtual ones a
//! datagram from a real address is for.
//!
//! It promises that nothing reaches QUIC but what comes from a node this client connected to, from an address at which
//! a call's peer has authenticated itself, or through a relay on a channel of a call. It sends through what it is given.
//!
//! Strangers send whatever they like, as fast as they can. So each kind of datagram has a table by which one that nobody waits for is
//! known as such in one look-up, before anything is computed, copied or written down. Only the addresses of peers change too often for a
//! table, so there each call that probes is asked, of which there are few.

use crate::leg::Leg;
use crate::peer_route::{ForQuic, Out, PeerRoute, Wish};
use crate::virtual_address::{VirtualAddresses, VirtualPrefix};
use crate::{Observation, TransportError};
use ahoy_path::{AddressRules, LegId, SocketId, Subnet, Way};
use ahoy_protocol::datagram::{Kind, Observed, PING_BYTES, PONG_BYTES, classify, parse_relay_frame};
use ahoy_protocol::peer::LEGS_MAX;
use quinn::Incoming;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// What has to be done with sockets, which the switchboard has none of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Open so many extra sockets for the call at `peer`.
    OpenSockets { peer: SocketAddr, count: u16 },
    /// Close these.
    CloseSockets(Vec<SocketId>),
    /// Have lines to these addresses and no others; `afresh`: not those that there were before.
    SetLines { wanted: BTreeSet<SocketAddr>, afresh: bool },
}

/// What a datagram's QUIC packet is handed on with: the virtual address it then comes from, and the packet.
pub(crate) type Deliver<'a, 'b> = &'a mut dyn FnMut(SocketAddr, &'b [u8]);

/// The table.
#[derive(Debug)]
pub(crate) struct Switchboard {
    addresses: VirtualAddresses,
    allow_loopback: bool,
    nodes: BTreeMap<SocketAddr, NodeRoute>,
    /// Nodes' connections by the node's address.
    nodes_at: HashMap<SocketAddr, Vec<SocketAddr>>,
    peers: BTreeMap<SocketAddr, PeerRoute>,
    /// Calls' legs by the relay's address and the channel there.
    legs_at: HashMap<(SocketAddr, u32), Vec<(SocketAddr, LegId)>>,
    /// Calls by the tag of their probes.
    tags: HashMap<[u8; 8], SocketAddr>,
    observations: BTreeMap<[u8; 8], Waiting>,
    dropped: u64,
    /// What is to be done because calls are over or the network changed.
    chores: Vec<Chore>,
    /// The addresses of the calls, as the last [`Chore::SetLines`] has them.
    lines: BTreeSet<SocketAddr>,
    /// The deadline that was told last: until then nobody looks at the clock.
    told: Option<Instant>,
}

impl Switchboard {
    pub(crate) fn new(addresses: VirtualAddresses) -> Self {
        Self {
            addresses,
            allow_loopback: false,
            nodes: BTreeMap::new(),
            nodes_at: HashMap::new(),
            peers: BTreeMap::new(),
            legs_at: HashMap::new(),
            tags: HashMap::new(),
            observations: BTreeMap::new(),
            dropped: 0,
            chores: Vec::new(),
            lines: BTreeSet::new(),
            told: None,
        }
    }

    /// The endpoint's own virtual address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.addresses.local()
    }

    /// What all virtual addresses share.
    pub(crate) fn prefix(&self) -> VirtualPrefix {
        self.addresses.prefix()
    }

    /// An address for a tunnel.
    pub(crate) fn next_tunnel_address(&mut self) -> SocketAddr {
        self.addresses.next_tunnel()
    }

    /// Which addresses of peers may be probed.
    pub(crate) fn rules(&self) -> AddressRules {
        AddressRules { allow_loopback: self.allow_loopback, virtual_prefix: Some(self.prefix().network()) }
    }

    pub(crate) fn allow_loopback(&mut self, allow: bool) {
        self.allow_loopback = allow;
    }

    /// Datagrams that nobody vouched for.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether nothing is connected or being connected to.
    pub(crate) fn is_idle(&self) -> bool {
        self.nodes.is_empty() && self.peers.is_empty()
    }

    /// Whether a node or relay may be at `address`: a real one, or the far end of a tunnel.
    pub(crate) fn is_real(&self, address: SocketAddr) -> bool {
        let (ip, prefix) = (address.ip(), self.prefix());
        let is_outside = !prefix.contains(address) || prefix.is_tunnel(address);
        address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && is_outside
    }

    /// A virtual address for a connection to the node at `address`.
    pub(crate) fn add_node(&mut self, now: Instant, address: SocketAddr) -> Result<SocketAddr, TransportError> {
        if !self.is_real(address) {
            return Err(TransportError::BadAddress { address });
        }
        if self.nodes.len() >= NODES_MAX {
            self.make_room_for_a_node()?;
        }
        let at = self.addresses.next();
        self.nodes.insert(at, NodeRoute { address, owned: true, last_packet: now });
        self.nodes_at.entry(address).or_default().push(at);
        Ok(at)
    }

    fn make_room_for_a_node(&mut self) -> Result<(), TransportError> {
        let unowned = self.nodes.iter().filter(|(_, node)| !node.owned).min_by_key(|(_, node)| node.last_packet);
        let Some(at) = unowned.map(|(at, _)| *at) else { return Err(TransportError::TooMany { what: "connections to nodes" }) };
        self.forget_node(at);
        Ok(())
    }

    fn forget_node(&mut self, at: SocketAddr) {
        if let Some(node) = self.nodes.remove(&at) {
            forget(&mut self.nodes_at, &node.address, |other| *other == at);
        }
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
        self.tags.insert(peer.tag(), at);
        self.peers.insert(at, peer);
        Ok(at)
    }

    /// The call at `at`.
    pub(crate) fn peer(&mut self, at: SocketAddr) -> Option<&mut PeerRoute> {
        self.peers.get_mut(&at)
    }

    /// Gives the call at `at` a leg, or takes it away.
    pub(crate) fn set_leg(&mut self, now: Instant, at: SocketAddr, id: LegId, leg: Option<Leg>, out: Out<'_>) {
        if leg.as_ref().is_some_and(|leg| !self.is_real(leg.relay)) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&at).filter(|_| usize::from(id.0) < LEGS_MAX) else { return };
        if let Some(old) = peer.leg(id) {
            forget(&mut self.legs_at, &(old.relay, old.channel), |other| *other == (at, id));
        }
        if let Some(new) = &leg {
            self.legs_at.entry((new.relay, new.channel)).or_default().push((at, id));
        }
        peer.set_leg(now, id, leg, out);
    }

    /// This machine's addresses changed, or it slept.
    pub(crate) fn handle_network_change(&mut self, now: Instant, on_link: &[Subnet], out: Out<'_>) {
        for peer in self.peers.values_mut() {
            peer.handle_network_change(now, on_link, out);
        }
        let wanted = self.line_addresses();
        self.lines.clone_from(&wanted);
        self.chores.push(Chore::SetLines { wanted, afresh: true });
    }

    /// The answer to [`Chore::OpenSockets`]; says whether the call is still there to take them.
    pub(crate) fn sockets_opened(&mut self, now: Instant, peer: SocketAddr, sockets: &[SocketId], out: Out<'_>) -> bool {
        let peer = self.peers.get_mut(&peer);
        let is_there = peer.is_some();
        if let Some(peer) = peer {
            peer.sockets_opened(now, sockets, out);
        }
        is_there
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
            out(SocketId::MAIN, node.address, packet)
        } else if let Some(peer) = self.peers.get_mut(&to) {
            peer.send(now, packet, out)
        } else {
            // The route has gone; QUIC takes it for a loss.
            true
        }
    }

    /// Takes what came from the real address `from` by `socket`; says whether anybody wanted it.
    pub(crate) fn receive<'a>(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        datagram: &'a [u8],
        deliver: Deliver<'_, 'a>,
        out: Out<'_>,
    ) -> bool {
        let taken = match classify(datagram) {
            Some(Kind::Quic) => self.receive_quic(now, socket, from, datagram, deliver, out),
            Some(Kind::Relay) => self.receive_frame(now, from, datagram, deliver, out),
            Some(Kind::Ping | Kind::Pong) => self.receive_probe(now, socket, from, datagram, out),
            Some(Kind::Observed) => self.receive_observed(now, from, datagram),
            Some(Kind::Move | Kind::Observe) | None => false,
        };
        if !taken {
            self.dropped += 1;
        }
        taken
    }

    /// One address may stand behind several connections: two to one node, or two calls with one device. Which one a
    /// packet is for only QUIC can tell, so each gets it, and those it is not for throw it away.
    fn receive_quic<'a>(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        packet: &'a [u8],
        deliver: Deliver<'_, 'a>,
        out: Out<'_>,
    ) -> bool {
        let mut taken = false;
        for at in self.nodes_at.get(&from).into_iter().flatten() {
            if let Some(node) = self.nodes.get_mut(at) {
                node.last_packet = now;
                deliver(*at, packet);
                taken = true;
            }
        }
        for (at, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.has_address(socket, from)) {
            peer.handle_traffic(now, Way::Direct { socket, remote: from }, out);
            deliver(*at, packet);
            taken = true;
        }
        taken
    }

    fn receive_frame<'a>(&mut self, now: Instant, from: SocketAddr, frame: &'a [u8], deliver: Deliver<'_, 'a>, out: Out<'_>) -> bool {
        let Ok((channel, payload)) = parse_relay_frame(frame) else { return false };
        let mut taken = false;
        for (at, id) in self.legs_at.get(&(from, channel)).into_iter().flatten() {
            let Some(peer) = self.peers.get_mut(at) else { continue };
            match peer.handle_frame(now, *id, payload, out) {
                Some(ForQuic::Yes) => {
                    deliver(*at, payload);
                    taken = true;
                }
                Some(ForQuic::No) => taken = true,
                None => {}
            }
        }
        taken
    }

    fn receive_probe(&mut self, now: Instant, socket: SocketId, from: SocketAddr, probe: &[u8], out: Out<'_>) -> bool {
        if probe.len() != PING_BYTES && probe.len() != PONG_BYTES {
            return false;
        }
        let tag = probe[1..].first_chunk().and_then(|tag| self.tags.get(tag));
        match tag.and_then(|at| self.peers.get_mut(at)) {
            Some(peer) => peer.handle_probe(now, Way::Direct { socket, remote: from }, probe, out),
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

    /// What is to be done with sockets. To be asked after everything that may have changed it, which
    /// [`has_earlier_deadline`](Self::has_earlier_deadline) tells.
    pub(crate) fn take_chores(&mut self) -> Vec<Chore> {
        let mut chores = std::mem::take(&mut self.chores);
        let mut addresses_changed = false;
        for (at, peer) in &mut self.peers {
            addresses_changed |= peer.take_addresses_changed();
            chores.extend(peer.take_wishes().into_iter().map(|wish| match wish {
                Wish::Open(count) => Chore::OpenSockets { peer: *at, count },
                Wish::Close(socket) => Chore::CloseSockets(vec![socket]),
            }));
        }
        if addresses_changed {
            let wanted = self.line_addresses();
            if wanted != self.lines {
                self.lines.clone_from(&wanted);
                chores.push(Chore::SetLines { wanted, afresh: false });
            }
        }
        chores
    }

    fn line_addresses(&self) -> BTreeSet<SocketAddr> {
        self.peers.values().flat_map(PeerRoute::addresses).collect()
    }

    /// Tells when [`handle_timeout`](Self::handle_timeout) is due; `None`: not before something else happens.
    pub(crate) fn tell_deadline(&mut self) -> Option<Instant> {
        self.told = self.deadline();
        self.told
    }

    /// Whether the deadline has become an earlier one than was told, or there is something to do at once.
    pub(crate) fn has_earlier_deadline(&self) -> bool {
        let has_chores = !self.chores.is_empty() || self.peers.values().any(PeerRoute::wants_something);
        has_chores || self.deadline().is_some_and(|deadline| self.told.is_none_or(|told| deadline < told))
    }

    fn deadline(&self) -> Option<Instant> {
        let nodes = self.nodes.values().filter(|node| !node.owned).map(|node| node.last_packet + NODE_REST);
        let peers = self.peers.values().filter_map(PeerRoute::deadline);
        nodes.chain(peers).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: Out<'_>) {
        let rested = |node: &NodeRoute| !node.owned && node.last_packet + NODE_REST <= now;
        let rested: Vec<_> = self.nodes.iter().filter(|(_, node)| rested(node)).map(|(at, _)| *at).collect();
        rested.into_iter().for_each(|at| self.forget_node(at));
        let over: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.is_over(now)).map(|(at, _)| *at).collect();
        over.into_iter().for_each(|at| self.forget_peer(at));
        for peer in self.peers.values_mut() {
            peer.handle_timeout(now, out);
        }
    }

    fn forget_peer(&mut self, at: SocketAddr) {
        let Some(mut peer) = self.peers.remove(&at) else { return };
        self.legs_at.retain(|_, legs| {
            legs.retain(|(other, _)| *other != at);
            !legs.is_empty()
        });
        self.tags.retain(|_, other| *other != at);
        let wished = peer.take_wishes().into_iter().filter_map(|wish| match wish {
            Wish::Open(_) => None,
            Wish::Close(socket) => Some(socket),
        });
        let sockets: Vec<_> = wished.chain(peer.sockets()).collect();
        if !sockets.is_empty() {
            self.chores.push(Chore::CloseSockets(sockets));
        }
        let wanted = self.line_addresses();
        if wanted != self.lines {
            self.lines.clone_from(&wanted);
            self.chores.push(Chore::SetLines { wanted, afresh: false });
        }
    }
}

/// Takes entries out of the list at `key`, and the list if it is then empty.
fn forget<K: std::hash::Hash + Eq, V>(lists: &mut HashMap<K, Vec<V>>, key: &K, is_one: impl Fn(&V) -> bool) {
    if let Some(list) = lists.get_mut(key) {
        list.retain(|entry| !is_one(entry));
        if list.is_empty() {
            lists.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer_route::Reports;
    use crate::{PathKind, PathStatus};
    use ahoy_path::{AgentConfig, PathAgent, ProbeKeys};
    use ahoy_protocol::datagram::{KIND_PING, Move, Side, relay_frame};
    use ahoy_protocol::ids::{CallSecret, LegKey};
    use ahoy_protocol::{CallId, DeviceKey};
    use tokio::sync::watch;

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
        board.receive(Instant::now(), SocketId::MAIN, address(from), datagram, deliver, &mut |_, _, _| panic!("it was answered"));
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

    /// A call with nobody listening, which probes if that is asked.
    fn call(board: &mut Switchboard, number: u8, probes: bool) -> SocketAddr {
        let (caller, callee) = (DeviceKey([1; 32]), DeviceKey([2; 32]));
        let keys = ProbeKeys::derive(&CallSecret([number; 32]), &CallId([number; 16]), &caller, &callee);
        let config = AgentConfig { side: Side::Caller, keys, on_link: Vec::new(), rules: board.rules(), birthday: false };
        let agent = PathAgent::new(config, 1, Instant::now());
        let status = watch::Sender::new(PathStatus { kind: PathKind::Relay, rtt: None, is_silent: false });
        let reports = Reports { status, legs: mpsc::channel(1).0, incoming: mpsc::channel(1).0 };
        let at = board.add_peer(PeerRoute::new(agent, Side::Caller, board.prefix(), reports)).expect("room");
        if probes {
            board.peer(at).expect("a call").start_probing(Instant::now(), &mut |_, _, _| true);
        }
        at
    }

    fn set_leg(board: &mut Switchboard, at: SocketAddr, id: u8, leg: Option<(&str, u32)>) {
        let now = Instant::now();
        let leg = leg.map(|(relay, channel)| Leg::new(address(relay), channel, LegKey([3; 32]), now, Duration::ZERO));
        board.set_leg(now, at, LegId(id), leg, &mut |_, _, _| true);
    }

    #[test]
    fn frames_count_only_from_a_calls_relay_on_its_channel() {
        let mut board = board();
        let at = call(&mut board, 1, false);
        set_leg(&mut board, at, 0, Some(("192.0.2.1:1", 7)));
        set_leg(&mut board, at, 1, Some(("192.0.2.2:1", 8)));
        let cases = [("192.0.2.1:1", 7, true), ("192.0.2.2:1", 8, true), ("192.0.2.1:1", 8, false), ("192.0.2.1:2", 7, false)];
        for (relay, channel, is_ours) in cases {
            let expected = if is_ours { vec![at] } else { vec![] };
            assert_eq!(received(&mut board, relay, &relay_frame(channel, QUIC)), expected, "{relay} {channel}");
        }
        assert_eq!(received(&mut board, "192.0.2.1:1", &relay_frame(7, &[0x11; 29])), [], "nothing but QUIC and probes comes by a leg");
    }

    #[test]
    fn a_leg_that_was_replaced_or_cleared_brings_nothing() {
        let mut board = board();
        let at = call(&mut board, 1, false);
        set_leg(&mut board, at, 0, Some(("192.0.2.1:1", 7)));
        set_leg(&mut board, at, 0, Some(("192.0.2.2:1", 8)));
        assert_eq!(received(&mut board, "192.0.2.1:1", &relay_frame(7, QUIC)), []);
        assert_eq!(received(&mut board, "192.0.2.2:1", &relay_frame(8, QUIC)), [at]);
        set_leg(&mut board, at, 0, None);
        assert_eq!(received(&mut board, "192.0.2.2:1", &relay_frame(8, QUIC)), []);
        set_leg(&mut board, at, 9, Some(("192.0.2.3:1", 9)));
        assert_eq!(received(&mut board, "192.0.2.3:1", &relay_frame(9, QUIC)), [], "there is no such leg");
    }

    #[test]
    fn every_relay_of_every_call_is_to_have_a_line() {
        let mut board = board();
        let (one, other) = (call(&mut board, 1, false), call(&mut board, 2, false));
        set_leg(&mut board, one, 0, Some(("192.0.2.1:1", 7)));
        set_leg(&mut board, other, 0, Some(("192.0.2.1:1", 8)));
        set_leg(&mut board, other, 1, Some(("192.0.2.2:1", 9)));
        assert!(board.has_earlier_deadline());
        let wanted = BTreeSet::from([address("192.0.2.1:1"), address("192.0.2.2:1")]);
        assert_eq!(board.take_chores(), [Chore::SetLines { wanted: wanted.clone(), afresh: false }]);
        assert_eq!(board.take_chores(), []);
        board.handle_network_change(Instant::now(), &[], &mut |_, _, _| true);
        assert!(board.take_chores().contains(&Chore::SetLines { wanted, afresh: true }));
    }

    #[test]
    fn a_change_of_network_is_told_to_every_relay_of_a_call() {
        let mut board = board();
        let at = call(&mut board, 1, false);
        set_leg(&mut board, at, 0, Some(("192.0.2.1:1", 7)));
        set_leg(&mut board, at, 1, Some(("192.0.2.2:1", 8)));
        let mut moves = Vec::new();
        board.handle_network_change(Instant::now(), &[], &mut |_, to, bytes| {
            moves.extend(Move::decode(bytes).map(|moved| (to.to_string(), moved.channel)));
            true
        });
        assert!(moves.contains(&("192.0.2.1:1".into(), 7)) && moves.contains(&("192.0.2.2:1".into(), 8)), "{moves:?}");
    }

    #[test]
    fn a_call_that_is_over_leaves_nothing_behind() {
        let (mut board, now) = (board(), Instant::now());
        let at = call(&mut board, 1, true);
        set_leg(&mut board, at, 0, Some(("192.0.2.1:1", 7)));
        board.take_chores();
        assert!(board.sockets_opened(now, at, &[SocketId(5)], &mut |_, _, _| true));
        board.peer(at).expect("a call").linger(now);
        board.handle_timeout(now + Duration::from_secs(2), &mut |_, _, _| true);
        let chores = board.take_chores();
        assert!(chores.contains(&Chore::CloseSockets(vec![SocketId(5)])), "{chores:?}");
        assert!(chores.contains(&Chore::SetLines { wanted: BTreeSet::new(), afresh: false }), "{chores:?}");
        assert!(board.legs_at.is_empty() && board.tags.is_empty() && board.is_idle());
        assert!(!board.sockets_opened(now, at, &[SocketId(6)], &mut |_, _, _| true), "nobody is there to take them");
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
        board.handle_timeout(deadline, &mut |_, _, _| true);
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
