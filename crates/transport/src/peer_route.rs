//! Where the packets of one call go and come from. Sends nothing itself.

use crate::leg::Leg;
use crate::virtual_address::VirtualPrefix;
use crate::{LegTrouble, PathKind, PathStatus};
use ahoy_path::{AgentStats, Event, LegId, PathAgent, REPLAY_PACKETS_MAX, Selected, SocketId, Subnet, Way};
use ahoy_protocol::datagram::{Kind, Side, classify};
use ahoy_protocol::peer::{Candidate, LEGS_MAX, Mapping};
use quinn::Incoming;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How long a call's route outlives its owner, so that the connection's farewell still gets out.
const LINGER: Duration = Duration::from_secs(1);

/// What IPv4 and UDP put before a packet.
const IP_UDP_BYTES: usize = 28;

/// Takes datagrams away, by one of the sockets to a real address; says whether there was room for this one.
pub(crate) type Out<'a> = &'a mut dyn FnMut(SocketId, SocketAddr, &[u8]) -> bool;

/// Where the route tells what happens to it.
#[derive(Debug)]
pub(crate) struct Reports {
    pub(crate) status: watch::Sender<PathStatus>,
    pub(crate) legs: mpsc::Sender<LegTrouble>,
    /// Where the peer's attempts to connect go.
    pub(crate) incoming: mpsc::Sender<Incoming>,
}

/// What only the owner of the sockets can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Open so many more.
    Open(u16),
    /// Close this one.
    Close(SocketId),
}

/// One call's way.
#[derive(Debug)]
pub(crate) struct PeerRoute {
    agent: PathAgent,
    legs: [Option<Leg>; LEGS_MAX],
    prefix: VirtualPrefix,
    /// Before this, addresses of the peer count for nothing.
    probing: bool,
    /// The packets sent last.
    sent: VecDeque<Vec<u8>>,
    status: watch::Sender<PathStatus>,
    leg_trouble: mpsc::Sender<LegTrouble>,
    /// Where the peer's attempts to connect go; `None` on the side that connects itself.
    incoming: Option<mpsc::Sender<Incoming>>,
    wishes: Vec<Wish>,
    /// The extra sockets that are open for this call.
    sockets: BTreeSet<SocketId>,
    /// Whether [`addresses`](Self::addresses) may have changed.
    addresses_changed: bool,
    ends: Option<Instant>,
}

impl PeerRoute {
    pub(crate) fn new(agent: PathAgent, side: Side, prefix: VirtualPrefix, reports: Reports) -> Self {
        let incoming = match side {
            Side::Caller => None,
            Side::Callee => Some(reports.incoming),
        };
        Self {
            agent,
            legs: [None, None],
            prefix,
            probing: false,
            sent: VecDeque::with_capacity(REPLAY_PACKETS_MAX),
            status: reports.status,
            leg_trouble: reports.legs,
            incoming,
            wishes: Vec::new(),
            sockets: BTreeSet::new(),
            addresses_changed: false,
            ends: None,
        }
    }

    /// Whether packets of the call may come from `address` by `socket`.
    pub(crate) fn has_address(&self, socket: SocketId, address: SocketAddr) -> bool {
        self.probing && self.agent.is_peer_address(socket, address)
    }

    /// What the probes of this call begin with.
    pub(crate) fn tag(&self) -> [u8; 8] {
        self.agent.tag()
    }

    /// The leg, if there is one.
    pub(crate) fn leg(&self, id: LegId) -> Option<&Leg> {
        self.legs.get(usize::from(id.0))?.as_ref()
    }

    /// Addresses from which much of the call comes: its relays', and the peer's when it goes straight.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let relays = self.legs.iter().flatten().map(|leg| leg.relay);
        let peer = match self.agent.selected() {
            Some(Selected { way: Way::Direct { socket: SocketId::MAIN, remote }, .. }) => Some(remote),
            Some(_) | None => None,
        };
        relays.chain(peer).filter(|address| !self.prefix.is_tunnel(*address))
    }

    /// Whether the addresses may have changed since this was asked last.
    pub(crate) fn take_addresses_changed(&mut self) -> bool {
        std::mem::take(&mut self.addresses_changed)
    }

    /// What the owner of the sockets has to do.
    pub(crate) fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    /// Whether there is anything to take.
    pub(crate) fn wants_something(&self) -> bool {
        self.addresses_changed || !self.wishes.is_empty()
    }

    /// What the agent has done so far.
    pub(crate) fn stats(&self) -> AgentStats {
        self.agent.stats()
    }

    /// The round trip to the peer through a leg.
    pub(crate) fn leg_rtt(&self, id: LegId) -> Option<Duration> {
        self.agent.leg_rtt(id)
    }

    /// Hands on an attempt to connect; gives it back if this call takes none.
    pub(crate) fn offer(&self, incoming: Incoming) -> Option<Incoming> {
        match &self.incoming {
            Some(sender) => sender.try_send(incoming).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(incoming),
        }
    }

    /// From here on the call has this leg, or has it no longer.
    pub(crate) fn set_leg(&mut self, now: Instant, id: LegId, leg: Option<Leg>, out: Out<'_>) {
        let first = leg.is_some() && self.agent.route().is_empty();
        let is_up = leg.is_some();
        let Some(place) = self.legs.get_mut(usize::from(id.0)) else { return };
        if std::mem::replace(place, leg).is_some() && is_up {
            // Another relay's round trips and silences are not this one's.
            self.agent.set_leg(now, id, false);
        }
        self.agent.set_leg(now, id, is_up);
        self.addresses_changed = true;
        self.drive(now, out);
        // The route may be the same, and its leg another kind of way.
        self.report_way();
        if first {
            // What was sent while there was no way at all need not wait for QUIC to miss it.
            self.replay(out);
        }
    }

    pub(crate) fn set_peer_network(&mut self, now: Instant, candidates: &[Candidate], mapping: Mapping, out: Out<'_>) {
        self.agent.set_peer_mapping(now, mapping);
        self.agent.add_remote(now, candidates);
        self.drive(now, out);
    }

    pub(crate) fn set_own_mapping(&mut self, now: Instant, mapping: Mapping, out: Out<'_>) {
        self.agent.set_own_mapping(now, mapping);
        self.drive(now, out);
    }

    pub(crate) fn start_probing(&mut self, now: Instant, out: Out<'_>) {
        self.probing = true;
        self.agent.start_probing(now);
        self.drive(now, out);
    }

    /// This machine's addresses changed, or it slept.
    pub(crate) fn handle_network_change(&mut self, now: Instant, on_link: &[Subnet], out: Out<'_>) {
        // First of all, so that the relays know where to send the answers to what the agent asks.
        for id in 0..LEGS_MAX {
            self.send_move(now, LegId(id as u8), out);
        }
        self.agent.handle_network_change(now, on_link.to_vec());
        self.addresses_changed = true;
        self.drive(now, out);
    }

    /// The sockets that were wished for are open.
    pub(crate) fn sockets_opened(&mut self, now: Instant, sockets: &[SocketId], out: Out<'_>) {
        self.sockets.extend(sockets);
        self.agent.sockets_opened(now, sockets);
        self.drive(now, out);
    }

    /// All extra sockets, to be closed because the call is over.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = SocketId> {
        self.sockets.iter().copied()
    }

    /// A packet of the call came.
    pub(crate) fn handle_traffic(&mut self, now: Instant, way: Way, out: Out<'_>) {
        self.agent.handle_traffic(now, way);
        self.drive(now, out);
    }

    /// What came through a leg: says whether it is for QUIC, or `None` if it is nothing of this call.
    pub(crate) fn handle_frame(&mut self, now: Instant, id: LegId, payload: &[u8], out: Out<'_>) -> Option<ForQuic> {
        match classify(payload) {
            Some(Kind::Quic) => {
                self.handle_traffic(now, Way::Leg(id), out);
                Some(ForQuic::Yes)
            }
            Some(Kind::Ping | Kind::Pong) => self.handle_probe(now, Way::Leg(id), payload, out).then_some(ForQuic::No),
            Some(Kind::Move | Kind::Relay | Kind::Observe | Kind::Observed) | None => None,
        }
    }

    /// A probe came; says whether it was one of the peer's.
    pub(crate) fn handle_probe(&mut self, now: Instant, way: Way, probe: &[u8], out: Out<'_>) -> bool {
        if way.is_direct() && !self.probing {
            return false;
        }
        if let Err(reason) = self.agent.handle_datagram(now, way, probe) {
            tracing::trace!(%reason, "probe dropped");
            return false;
        }
        self.drive(now, out);
        true
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: Out<'_>) {
        self.agent.handle_timeout(now);
        self.drive(now, out);
    }

    /// Sends a packet of the call whichever way it goes; says whether there was room for it on any.
    pub(crate) fn send(&mut self, now: Instant, packet: &[u8], out: Out<'_>) -> bool {
        let room = self.send_along_route(packet, out);
        if room {
            if self.sent.len() >= REPLAY_PACKETS_MAX {
                self.sent.pop_front();
            }
            self.sent.push_back(packet.to_vec());
            self.agent.handle_sent(now, packet.len() + IP_UDP_BYTES);
            self.drive(now, out);
        }
        room
    }

    /// A packet that goes nowhere QUIC takes for lost.
    fn send_along_route(&self, packet: &[u8], out: Out<'_>) -> bool {
        let route = self.agent.route();
        let rooms = route.ways().filter(|way| self.send_by(*way, packet, out)).count();
        rooms > 0 || route.is_empty()
    }

    /// Sends the last packet once more.
    pub(crate) fn repeat(&self, out: Out<'_>) {
        if let Some(packet) = self.sent.back() {
            self.send_along_route(packet, out);
        }
    }

    /// Sends the last packets once more over the route's legs.
    fn replay(&self, out: Out<'_>) {
        let legs: Vec<Way> = self.agent.route().ways().filter(|way| !way.is_direct()).collect();
        for packet in &self.sent {
            for way in &legs {
                self.send_by(*way, packet, out);
            }
        }
    }

    fn send_by(&self, way: Way, packet: &[u8], out: Out<'_>) -> bool {
        match way {
            Way::Direct { socket, remote } => out(socket, remote, packet),
            Way::Leg(id) => match self.leg(id) {
                Some(leg) => out(SocketId::MAIN, leg.relay, &leg.frame(packet)),
                None => true,
            },
        }
    }

    /// Does what the agent wants done: what is to happen first, and only then what is to be asked.
    fn drive(&mut self, now: Instant, out: Out<'_>) {
        while let Some(event) = self.agent.poll_event() {
            self.handle_event(now, event, out);
        }
        while let Some(probe) = self.agent.poll_transmit() {
            self.send_by(probe.way, &probe.bytes, out);
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event, out: Out<'_>) {
        match event {
            Event::RouteChanged(route) => {
                tracing::debug!(?route, "the call's route changed");
                self.addresses_changed = true;
                self.report_way();
            }
            Event::Replay => self.replay(out),
            Event::LegSilent(id) => {
                self.send_move(now, id, out);
                // While the call goes straight and well there is no haste: looking for another way to the relay costs a thin link seconds.
                if !self.agent.route().is_direct() {
                    let _ = self.leg_trouble.try_send(LegTrouble::Silent(id.0));
                }
            }
            Event::LegDead(id) => {
                // An owner who does not listen replaces no legs.
                let _ = self.leg_trouble.try_send(LegTrouble::Dead(id.0));
            }
            Event::OpenSockets { count } => self.wishes.push(Wish::Open(count)),
            Event::CloseSocket(socket) => {
                self.sockets.remove(&socket);
                self.wishes.push(Wish::Close(socket));
            }
            Event::Silence(is_silent) => self.report(|status| status.is_silent = is_silent),
        }
    }

    /// Tells a leg's relay that this device sends from here. A tunnel tells its relay by being one.
    fn send_move(&mut self, now: Instant, id: LegId, out: Out<'_>) {
        let prefix = self.prefix;
        if let Some(leg) = self.legs.get_mut(usize::from(id.0)).and_then(Option::as_mut)
            && !prefix.is_tunnel(leg.relay)
        {
            out(SocketId::MAIN, leg.relay, &leg.next_move(now));
        }
    }

    fn report_way(&self) {
        let Some(Selected { way, rtt, on_link }) = self.agent.selected().or_else(|| self.leg_in_use()) else { return };
        let kind = match way {
            Way::Direct { .. } if on_link => PathKind::Lan,
            Way::Direct { .. } => PathKind::Direct,
            Way::Leg(id) if self.leg(id).is_some_and(|leg| self.prefix.is_tunnel(leg.relay)) => PathKind::RelayTcp,
            Way::Leg(_) => PathKind::Relay,
        };
        self.report(|status| (status.kind, status.rtt) = (kind, rtt));
    }

    /// While no way has been settled on, the leg that is used first.
    fn leg_in_use(&self) -> Option<Selected> {
        let route = self.agent.route();
        let way = if route.is_relayed() { route.ways().next() } else { None };
        way.map(|way| Selected { way, rtt: None, on_link: false })
    }

    /// Changes the status; tells only of another kind of way, or of silence.
    fn report(&self, change: impl FnOnce(&mut PathStatus)) {
        self.status.send_if_modified(|status| {
            let before = (status.kind, status.is_silent);
            change(status);
            before != (status.kind, status.is_silent)
        });
    }

    /// When [`handle_timeout`](Self::handle_timeout) or the end is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.agent.poll_timeout(), self.ends].into_iter().flatten().min()
    }

    /// Its owner has gone.
    pub(crate) fn linger(&mut self, now: Instant) {
        self.ends = Some(now + LINGER);
        self.incoming = None;
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// Whether a datagram of the call is to be handed on to QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForQuic {
    Yes,
    No,
}
