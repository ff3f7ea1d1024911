//! Where devices are: addresses for routers and hosts, and the servers of a small network.

use crate::dice::Dice;
use crate::host::Place;
use crate::link::Quality;
use crate::server::SERVER_PORT;
use crate::topology::{CORE, Device, PortId, RouterId, RouterPlan, SegmentId, Topology};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Observers of a network.
pub const OBSERVERS: usize = 2;
/// Relays of a network: two for the two legs, and one to take the place of either.
pub const RELAYS: usize = 3;

/// Which kinds of addresses a host gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Both,
}

impl Families {
    fn has_v4(self) -> bool {
        self != Self::V6
    }

    fn has_v6(self) -> bool {
        self != Self::V4
    }
}

/// The addresses of one segment.
#[derive(Debug, Clone, Copy)]
struct Range {
    v4: [u8; 3],
    v6: Ipv6Addr,
    /// Bits of `v6` that all addresses of the segment share.
    v6_bits: u8,
    given: u8,
}

/// Gives addresses out.
#[derive(Debug, Default)]
pub struct Addresses {
    public: u16,
    ranges: BTreeMap<SegmentId, Range>,
}

impl Addresses {
    /// Nothing is given out yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A public IPv4 address, and an IPv6 prefix of 48 bits.
    fn public(&mut self) -> (Ipv4Addr, Ipv6Addr) {
        self.public += 1;
        let [high, low] = self.public.to_be_bytes();
        (Ipv4Addr::new(20, 0, high, low), Ipv6Addr::new(0x2001, 0xdb8, self.public, 0, 0, 0, 0, 0))
    }

    /// A router before a new segment, whose IPv4 addresses begin with `range`.
    pub fn router(
        &mut self,
        topology: &mut Topology,
        before: SegmentId,
        plan: RouterPlan,
        quality: Quality,
        range: [u8; 3],
    ) -> (RouterId, SegmentId) {
        let (v4, prefix, bits) = match self.ranges.get_mut(&before) {
            None => {
                let (v4, prefix) = self.public();
                (v4, prefix, 48)
            }
            Some(outer) => {
                outer.given += 1;
                let [a, b, c] = outer.v4;
                let mut segments = outer.v6.segments();
                segments[3] = u16::from(outer.given) << 8;
                (Ipv4Addr::new(a, b, c, outer.given), segments.into(), 56)
            }
        };
        let v4 = plan.nat.map(|_| v4);
        let v6 = plan.firewall.map(|_| (prefix, bits));
        let (router, behind) = topology.add_router(before, v4, v6, plan, quality);
        let mut inside = prefix.segments();
        // The carrier's own devices are beside the prefixes that it gives to customers.
        inside[3] |= 1;
        self.ranges.insert(behind, Range { v4: range, v6: inside.into(), v6_bits: 64, given: 9 });
        (router, behind)
    }

    /// A virtual private network.
    pub fn vpn(&mut self, topology: &mut Topology) -> SegmentId {
        let segment = topology.add_vpn();
        let v6 = Ipv6Addr::new(0xfd00, 7, 7, 0, 0, 0, 0, 0);
        self.ranges.insert(segment, Range { v4: [10, 8, 0], v6, v6_bits: 64, given: 0 });
        segment
    }

    /// A host's interface on a segment.
    pub fn interface(&mut self, topology: &mut Topology, host: usize, segment: SegmentId, families: Families, quality: Quality) -> PortId {
        let (v4, v6) = match self.ranges.get_mut(&segment) {
            None => {
                let (v4, prefix) = self.public();
                (v4, prefix)
            }
            Some(range) => {
                range.given += 1;
                let [a, b, c] = range.v4;
                let mut segments = range.v6.segments();
                segments[7] = u16::from(range.given);
                debug_assert_eq!(range.v6_bits, 64);
                (Ipv4Addr::new(a, b, c, range.given), segments.into())
            }
        };
        let v4 = families.has_v4().then_some(v4);
        let v6 = families.has_v6().then_some((v6, 128));
        topology.attach(Device::Host(host), segment, v4, v6, quality)
    }

    /// A server in the core.
    pub fn server(&mut self, topology: &mut Topology, number: usize, quality: Quality) -> (PortId, Place) {
        let (v4, v6) = self.public();
        let port = topology.attach(Device::Server(number), CORE, Some(v4), Some((v6, 128)), quality);
        let at = |ip: IpAddr| SocketAddr::new(ip, SERVER_PORT);
        (port, Place { v4: at(v4.into()), v6: at(v6.into()) })
    }
}

/// A network to build a world on: the core and its servers.
#[derive(Debug)]
pub struct Ground {
    /// Who is connected with whom.
    pub topology: Topology,
    /// What gives addresses out.
    pub addresses: Addresses,
    /// The observers and then the relays.
    pub servers: Vec<PortId>,
    /// Where the observers are.
    pub observers: Vec<Place>,
    /// Where the relays are.
    pub relays: Vec<Place>,
}

impl Ground {
    /// Observers behind links of this quality, and a relay behind each of those.
    #[must_use]
    pub fn new(dice: &mut Dice, observers: Quality, relays: [Quality; RELAYS]) -> Self {
        let mut topology = Topology::new(dice.branch());
        let mut addresses = Addresses::new();
        let qualities = std::iter::repeat_n(observers, OBSERVERS).chain(relays);
        let built: Vec<(PortId, Place)> =
            qualities.enumerate().map(|(number, quality)| addresses.server(&mut topology, number, quality)).collect();
        let (servers, places): (Vec<PortId>, Vec<Place>) = built.into_iter().unzip();
        let (observers, relays) = places.split_at(OBSERVERS);
        Self { observers: observers.to_vec(), relays: relays.to_vec(), topology, addresses, servers }
    }
}
