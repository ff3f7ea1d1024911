//! Who is connected with whom: segments, the ports on them, and routers between them.
//!
//! A segment is a network in which everybody reaches everybody: the core that stands for the internet, a home, the inside of a carrier, a
//! virtual private network. A port is a device's place on a segment, with a link in each direction; a router has one port inside and one
//! outside. The shape is a tree with the core at its root, so that the way to an address is always clear: to the port on this segment that
//! has it, else through the segment's gateway.

use crate::dice::Dice;
use crate::firewall::Firewall;
use crate::link::{Carrier, Link, Loss, Quality};
use crate::nat::{Behaviour, Filtering, Nat};
use crate::packet::Packet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Index of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentId(pub usize);

/// Index of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortId(pub usize);

/// Index of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouterId(pub usize);

/// The segment that stands for the internet.
pub const CORE: SegmentId = SegmentId(0);

/// What is at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// An interface of one of the call's two hosts.
    Host(usize),
    /// A server.
    Server(usize),
    /// The inside of a router.
    Inside(RouterId),
    /// The outside of a router.
    Outside(RouterId),
}

/// A device's place on a segment.
#[derive(Debug)]
pub struct Port {
    /// What is there.
    pub device: Device,
    /// On which segment.
    pub segment: SegmentId,
    /// Its IPv4 address there.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 addresses there: all that share so many bits with this one.
    pub v6: Option<(Ipv6Addr, u8)>,
    /// From the device to the segment.
    pub up: Link,
    /// From the segment to the device.
    pub down: Link,
}

impl Port {
    fn has(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4 == Some(ip),
            IpAddr::V6(ip) => self.v6.is_some_and(|(own, bits)| shares(own, ip, bits)),
        }
    }
}

/// Whether two addresses share their first `bits`.
fn shares(one: Ipv6Addr, other: Ipv6Addr, bits: u8) -> bool {
    (one.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(bits)
}

/// A network in which everybody reaches everybody.
#[derive(Debug, Default)]
pub struct Segment {
    ports: Vec<PortId>,
    gateway: Option<PortId>,
    /// Whether its members reach the gateway alone.
    is_isolating: bool,
    /// Whether it is a virtual private network.
    is_vpn: bool,
}

/// What a router is made with.
#[derive(Debug, Clone, Copy)]
pub struct RouterPlan {
    /// What it does to IPv4; `None`: it routes none.
    pub nat: Option<Behaviour>,
    /// Whom it lets in by IPv6; `None`: it routes none.
    pub firewall: Option<Filtering>,
    /// Whether it throws UDP between inside and outside away.
    pub blocks_udp: bool,
    /// Whether devices inside may ask it for ports.
    pub maps_ports: bool,
    /// Whether devices inside reach each other without it.
    pub isolates: bool,
}

impl RouterPlan {
    /// A router for IPv4 alone.
    #[must_use]
    pub fn nat(behaviour: Behaviour) -> Self {
        Self { nat: Some(behaviour), firewall: None, blocks_udp: false, maps_ports: false, isolates: false }
    }
}

/// A router between two segments.
#[derive(Debug)]
pub struct Router {
    /// Its port on the segment behind it.
    pub inside: PortId,
    /// Its port on the segment before it.
    pub outside: PortId,
    plan: RouterPlan,
    nat: Option<Nat>,
    /// Translates TCP, which it does in the kindest way.
    tcp: Option<Nat>,
    firewall: Option<Firewall>,
    is_up: bool,
}

impl Router {
    /// What it was made with.
    #[must_use]
    pub fn plan(&self) -> &RouterPlan {
        &self.plan
    }

    fn nat(&mut self, carrier: Carrier) -> Option<&mut Nat> {
        match carrier {
            Carrier::Udp => self.nat.as_mut(),
            Carrier::Tcp => self.tcp.as_mut(),
        }
    }

    fn drops(&self, carrier: Carrier) -> bool {
        !self.is_up || self.plan.blocks_udp && carrier == Carrier::Udp
    }
}

/// How far a packet got in one hop.
#[derive(Debug, Clone, Copy)]
pub struct Hop {
    /// The port at which it arrives.
    pub to: PortId,
    /// When, and when its copy does.
    pub at: [Option<Duration>; 2],
}

/// All segments, ports and routers.
#[derive(Debug)]
pub struct Topology {
    segments: Vec<Segment>,
    ports: Vec<Port>,
    routers: Vec<Router>,
    /// Whether the core carries nothing but packets from and to servers.
    is_core_cut: bool,
    /// Share of packets lost in the core that neither come from servers nor go to them.
    core_loss: f64,
    dice: Dice,
}

impl Topology {
    /// The core alone.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self { segments: vec![Segment::default()], ports: Vec::new(), routers: Vec::new(), is_core_cut: false, core_loss: 0.0, dice }
    }

    /// A segment of its own, without a way out: a virtual private network.
    pub fn add_vpn(&mut self) -> SegmentId {
        self.segments.push(Segment { is_vpn: true, ..Segment::default() });
        SegmentId(self.segments.len() - 1)
    }

    /// Gives a device a place on a segment, over a link of this quality in both directions.
    pub fn attach(
        &mut self,
        device: Device,
        segment: SegmentId,
        v4: Option<Ipv4Addr>,
        v6: Option<(Ipv6Addr, u8)>,
        quality: Quality,
    ) -> PortId {
        self.ports.push(Port { device, segment, v4, v6, up: Link::new(quality), down: Link::new(quality) });
        let port = PortId(self.ports.len() - 1);
        self.segments[segment.0].ports.push(port);
        port
    }

    /// Takes a port from its segment: nothing reaches it or leaves it.
    pub fn detach(&mut self, port: PortId) {
        let segment = self.ports[port.0].segment;
        self.segments[segment.0].ports.retain(|other| *other != port);
        self.set_link(port, false);
    }

    /// A router with a segment behind it. `v4` and `v6` are its outside addresses; inside it is the gateway.
    pub fn add_router(
        &mut self,
        before: SegmentId,
        v4: Option<Ipv4Addr>,
        v6: Option<(Ipv6Addr, u8)>,
        plan: RouterPlan,
        quality: Quality,
    ) -> (RouterId, SegmentId) {
        let id = RouterId(self.routers.len());
        self.segments.push(Segment { is_isolating: plan.isolates, ..Segment::default() });
        let behind = SegmentId(self.segments.len() - 1);
        let inside = self.attach(Device::Inside(id), behind, None, None, Quality::of_ms(0));
        self.segments[behind.0].gateway = Some(inside);
        let outside = self.attach(Device::Outside(id), before, v4, v6, quality);
        let nat = |behaviour, dice: &mut Dice| v4.map(|v4| Nat::new(behaviour, v4, dice.branch()));
        let tcp = Behaviour {
            idle: Duration::from_secs(7200),
            ..Behaviour::new(crate::nat::Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, crate::nat::Ports::Sequential)
        };
        self.routers.push(Router {
            inside,
            outside,
            plan,
            nat: plan.nat.and_then(|behaviour| nat(behaviour, &mut self.dice)),
            tcp: plan.nat.and_then(|_| nat(tcp, &mut self.dice)),
            firewall: plan.firewall.map(Firewall::new),
            is_up: true,
        });
        (id, behind)
    }

    /// A port.
    #[must_use]
    pub fn port(&self, port: PortId) -> &Port {
        &self.ports[port.0]
    }

    /// A router.
    #[must_use]
    pub fn router(&self, router: RouterId) -> &Router {
        &self.routers[router.0]
    }

    /// How many routers there are.
    #[must_use]
    pub fn routers(&self) -> usize {
        self.routers.len()
    }

    /// The router that is a segment's gateway.
    #[must_use]
    pub fn gateway(&self, segment: SegmentId) -> Option<RouterId> {
        match self.ports[self.segments[segment.0].gateway?.0].device {
            Device::Inside(router) => Some(router),
            Device::Host(_) | Device::Server(_) | Device::Outside(_) => None,
        }
    }

    /// Whether a segment is a virtual private network.
    #[must_use]
    pub fn is_vpn(&self, segment: SegmentId) -> bool {
        self.segments[segment.0].is_vpn
    }

    /// Whether the members of a segment reach each other.
    #[must_use]
    pub fn is_isolating(&self, segment: SegmentId) -> bool {
        self.segments[segment.0].is_isolating
    }

    /// Pulls a port's cable, or puts it back.
    pub fn set_link(&mut self, port: PortId, is_up: bool) {
        self.ports[port.0].up.set_up(is_up);
        self.ports[port.0].down.set_up(is_up);
    }

    /// Lets a port's link lose other packets from here on, in either direction.
    pub fn set_loss(&mut self, port: PortId, loss: Loss) {
        self.ports[port.0].up.set_loss(loss);
        self.ports[port.0].down.set_loss(loss);
    }

    /// Lets the core lose so many of the packets that neither come from servers nor go to them.
    pub fn set_core_loss(&mut self, share: f64) {
        self.core_loss = share;
    }

    /// Lets the core carry packets from and to servers alone, as where somebody between two carriers drops what they send each other; or
    /// everything again.
    pub fn set_core_cut(&mut self, is_cut: bool) {
        self.is_core_cut = is_cut;
    }

    /// Switches a router off, or on.
    pub fn set_router(&mut self, router: RouterId, is_up: bool) {
        self.routers[router.0].is_up = is_up;
    }

    /// Whether a router is on.
    #[must_use]
    pub fn is_router_up(&self, router: RouterId) -> bool {
        self.routers[router.0].is_up
    }

    /// A router forgets everything.
    pub fn reboot(&mut self, router: RouterId) {
        let router = &mut self.routers[router.0];
        router.nat.iter_mut().chain(router.tcp.iter_mut()).for_each(Nat::reboot);
        router.firewall.iter_mut().for_each(Firewall::reboot);
    }

    /// Asks a router for a port at which anybody reaches `inside`: the address of that, if it gives one.
    pub fn map_port(&mut self, router: RouterId, inside: SocketAddr) -> Option<SocketAddr> {
        let router = &mut self.routers[router.0];
        if !router.plan.maps_ports || !router.is_up {
            return None;
        }
        match inside {
            SocketAddr::V4(_) => router.nat.as_mut().map(|nat| nat.forward(inside)),
            SocketAddr::V6(_) => {
                router.firewall.as_mut()?.open(inside);
                Some(inside)
            }
        }
    }

    /// Sends a packet from a port into its segment; `None`: it does not get anywhere.
    pub fn send(&mut self, now: Duration, port: PortId, packet: &Packet) -> Option<Hop> {
        let to = self.next(port, packet.to.ip())?;
        if self.is_beside_servers(port, to) && self.dice.is_hit(self.core_loss) {
            return None;
        }
        let bytes = packet.bytes();
        let mut at = self.ports[port.0].up.carry(now, bytes, packet.carrier, &mut self.dice);
        // A copy that was made on the first link goes over the second without being copied again.
        let second = at[1].take();
        let first = at[0]?;
        let down = &mut self.ports[to.0].down;
        let mut at = down.carry(first, bytes, packet.carrier, &mut self.dice);
        if let Some(second) = second {
            at[1] = down.carry(second, bytes, packet.carrier, &mut self.dice)[0];
        }
        Some(Hop { to, at })
    }

    /// The port on the same segment that a packet from `port` to `ip` goes to.
    fn next(&self, port: PortId, ip: IpAddr) -> Option<PortId> {
        let segment = &self.segments[self.ports[port.0].segment.0];
        let others = segment.ports.iter().filter(|other| **other != port);
        let known = others.copied().find(|other| self.ports[other.0].has(ip));
        let to = known.or(segment.gateway.filter(|gateway| *gateway != port))?;
        if self.is_core_cut && self.is_beside_servers(port, to) {
            return None;
        }
        let crosses = segment.gateway == Some(to) || segment.gateway == Some(port);
        (crosses || !segment.is_isolating).then_some(to)
    }

    /// Whether a packet between these two ports crosses the core from home to home.
    fn is_beside_servers(&self, port: PortId, to: PortId) -> bool {
        self.ports[port.0].segment == CORE && ![port, to].iter().any(|end| self.is_server(*end))
    }

    fn is_server(&self, port: PortId) -> bool {
        matches!(self.ports[port.0].device, Device::Server(_))
    }

    /// What a router makes of a packet that arrived at one of its ports: from which port it goes on. `None`: it is dropped.
    pub fn translate(&mut self, now: Duration, port: PortId, packet: &mut Packet) -> Option<PortId> {
        match self.ports[port.0].device {
            Device::Inside(id) => self.outbound(now, id, packet),
            Device::Outside(id) => self.inbound(now, id, packet),
            Device::Host(_) | Device::Server(_) => None,
        }
    }

    fn outbound(&mut self, now: Duration, id: RouterId, packet: &mut Packet) -> Option<PortId> {
        let router = &mut self.routers[id.0];
        if router.drops(packet.carrier) {
            return None;
        }
        if packet.to.is_ipv6() {
            router.firewall.as_mut()?.outbound(now, packet.from, packet.to);
            return Some(router.outside);
        }
        let (inside, outside) = (router.inside, router.outside);
        let nat = router.nat(packet.carrier)?;
        if packet.to.ip() == IpAddr::V4(nat.outside()) {
            (packet.to, packet.from) = nat.hairpin(now, packet.from, packet.to)?;
            return Some(inside);
        }
        packet.from = nat.outbound(now, packet.from, packet.to);
        Some(outside)
    }

    fn inbound(&mut self, now: Duration, id: RouterId, packet: &mut Packet) -> Option<PortId> {
        let router = &mut self.routers[id.0];
        if router.drops(packet.carrier) {
            return None;
        }
        let inside = router.inside;
        if packet.to.is_ipv6() {
            let lets_in = packet.carrier == Carrier::Tcp || router.firewall.as_ref()?.lets_in(now, packet.to, packet.from);
            return lets_in.then_some(inside);
        }
        packet.to = router.nat(packet.carrier)?.inbound(now, packet.to.port(), packet.from)?;
        Some(inside)
    }

    /// Whether a host behind `port` has a way to the core: every link on it is up, and every router.
    #[must_use]
    pub fn is_online(&self, port: PortId) -> bool {
        let mut port = port;
        loop {
            let here = &self.ports[port.0];
            if !here.up.is_up() || !self.segments[here.segment.0].ports.contains(&port) {
                return false;
            }
            if here.segment == CORE {
                return true;
            }
            let Some(router) = self.gateway(here.segment) else { return false };
            if !self.routers[router.0].is_up {
                return false;
            }
            port = self.routers[router.0].outside;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{Mapping, Ports};
    use crate::packet::Payload;
    use crate::place::{Addresses, Families};

    const NOW: Duration = Duration::from_secs(1);

    fn cone(hairpin: bool) -> RouterPlan {
        let behaviour = Behaviour::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, Ports::Sequential);
        RouterPlan { firewall: Some(Filtering::AddressAndPortDependent), ..RouterPlan::nat(Behaviour { hairpin, ..behaviour }) }
    }

    fn packet(from: SocketAddr, to: SocketAddr) -> Packet {
        Packet { from, to, carrier: Carrier::Udp, channel: None, sender: None, payload: Payload::Voice(0) }
    }

    /// Carries a packet to its end: the port where it comes out, and its addresses there.
    fn carry(topology: &mut Topology, port: PortId, from: SocketAddr, to: SocketAddr) -> Option<(PortId, SocketAddr, SocketAddr)> {
        let (mut packet, mut port) = (packet(from, to), port);
        loop {
            let hop = topology.send(NOW, port, &packet)?;
            port = match topology.port(hop.to).device {
                Device::Host(_) | Device::Server(_) => return Some((hop.to, packet.from, packet.to)),
                Device::Inside(_) | Device::Outside(_) => topology.translate(NOW, hop.to, &mut packet)?,
            };
        }
    }

    struct Two {
        topology: Topology,
        ports: [PortId; 2],
    }

    impl Two {
        fn address(&self, host: usize, v6: bool) -> SocketAddr {
            let port = self.topology.port(self.ports[host]);
            let ip = if v6 { port.v6.expect("v6").0.into() } else { port.v4.expect("v4").into() };
            SocketAddr::new(ip, 5000)
        }

        fn carry(&mut self, host: usize, to: SocketAddr) -> Option<(PortId, SocketAddr, SocketAddr)> {
            let from = self.address(host, to.is_ipv6());
            carry(&mut self.topology, self.ports[host], from, to)
        }

        /// What the other host's packet to a third party shows.
        fn seen(&mut self, host: usize, third: (PortId, SocketAddr)) -> SocketAddr {
            let (port, seen, _) = self.carry(host, third.1).expect("the third party is public");
            assert_eq!(port, third.0);
            seen
        }
    }

    fn third(topology: &mut Topology, addresses: &mut Addresses) -> (PortId, SocketAddr) {
        let port = addresses.interface(topology, 9, CORE, Families::Both, Quality::of_ms(0));
        (port, SocketAddr::new(topology.port(port).v4.expect("v4").into(), 9))
    }

    /// Two hosts behind one carrier's router, each with a home of their own.
    fn neighbours(hairpin: bool) -> (Two, (PortId, SocketAddr)) {
        let (mut topology, mut addresses) = (Topology::new(Dice::new(1)), Addresses::new());
        let (_, carrier) = addresses.router(&mut topology, CORE, cone(hairpin), Quality::of_ms(1), [100, 64, 0]);
        let ports = [0, 1].map(|host| {
            let (_, home) = addresses.router(&mut topology, carrier, cone(false), Quality::of_ms(1), [192, 168, 1]);
            addresses.interface(&mut topology, host, home, Families::Both, Quality::of_ms(0))
        });
        let third = third(&mut topology, &mut addresses);
        (Two { topology, ports }, third)
    }

    #[test]
    fn a_double_nat_translates_twice_and_back() {
        let (mut two, third) = neighbours(false);
        let seen = two.seen(0, third);
        assert_eq!(seen.ip(), SocketAddr::from(([20, 0, 0, 1], 0)).ip());
        let back = carry(&mut two.topology, third.0, third.1, seen);
        assert_eq!(back, Some((two.ports[0], third.1, two.address(0, false))));
        assert_eq!(carry(&mut two.topology, third.0, SocketAddr::new(third.1.ip(), 10), seen), None);
    }

    #[test]
    fn neighbours_meet_at_a_router_that_turns_packets_back() {
        for hairpin in [false, true] {
            let (mut two, third) = neighbours(hairpin);
            let seen = [0, 1].map(|host| two.seen(host, third));
            assert_eq!(two.carry(0, seen[1]), None, "the other has to ask as well");
            let arrived = two.carry(1, seen[0]);
            assert_eq!(arrived, hairpin.then(|| (two.ports[0], seen[1], two.address(0, false))));
        }
    }

    #[test]
    fn ipv6_goes_through_untranslated_once_both_asked() {
        let (mut two, _) = neighbours(false);
        let [one, other] = [0, 1].map(|host| two.address(host, true));
        assert_eq!(two.carry(0, other), None);
        assert_eq!(two.carry(1, one), Some((two.ports[0], other, one)));
        assert_eq!(two.carry(0, other), Some((two.ports[1], one, other)));
    }

    #[test]
    fn a_router_that_is_off_or_blocks_carries_nothing() {
        let (mut two, third) = neighbours(true);
        let home = two.topology.gateway(two.topology.port(two.ports[0]).segment).expect("a router");
        assert!(two.topology.is_online(two.ports[0]));
        two.topology.set_router(home, false);
        assert!(!two.topology.is_online(two.ports[0]));
        assert_eq!(two.carry(0, third.1), None);
        two.topology.set_router(home, true);
        two.topology.detach(two.ports[0]);
        assert!(!two.topology.is_online(two.ports[0]));
        assert_eq!(two.carry(0, third.1), None);
    }

    #[test]
    fn a_cut_core_carries_what_servers_send_and_get() {
        let (mut topology, mut addresses) = (Topology::new(Dice::new(1)), Addresses::new());
        let ports = [0, 1].map(|host| addresses.interface(&mut topology, host, CORE, Families::V4, Quality::of_ms(1)));
        let (server, place) = addresses.server(&mut topology, 0, Quality::of_ms(1));
        let mut two = Two { topology, ports };
        two.topology.set_core_cut(true);
        assert_eq!(two.carry(0, two.address(1, false)), None);
        assert_eq!(two.carry(0, place.v4).map(|(port, ..)| port), Some(server));
        two.topology.set_core_cut(false);
        assert!(two.carry(0, two.address(1, false)).is_some());
    }
}
