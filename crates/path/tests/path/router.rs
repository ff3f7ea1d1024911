//! What stands between a device and the network, in the terms of RFC 4787: how it maps addresses, and which packets it lets in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Which packets get one mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// All from one socket.
    EndpointIndependent,
    /// Those from one socket to one address and port.
    AddressAndPortDependent,
}

/// From whom packets are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filtering {
    /// Anybody.
    EndpointIndependent,
    /// Hosts that were sent something.
    AddressDependent,
    /// Sockets that were sent something.
    AddressAndPortDependent,
}

/// What a router does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the device has the outside address itself.
    Open,
    /// Lets packets in by a rule, and translates nothing; what stands before IPv6 hosts.
    Firewall(Filtering),
    /// Translates and filters.
    Nat(Mapping, Filtering),
    /// Throws all UDP between peers away.
    Blocked,
}

/// A router with one outside address.
#[derive(Debug)]
pub(crate) struct Router {
    kind: Kind,
    outside: IpAddr,
    first_port: u16,
    /// Outside ports by inside socket and, where the mapping depends on it, destination.
    ports: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    insides: BTreeMap<u16, SocketAddr>,
    /// Whom something was sent to, by outside port.
    sent_to: BTreeSet<(u16, SocketAddr)>,
}

impl Router {
    pub(crate) fn new(kind: Kind, outside: IpAddr) -> Self {
        Self { kind, outside, first_port: 20_000, ports: BTreeMap::new(), insides: BTreeMap::new(), sent_to: BTreeSet::new() }
    }

    pub(crate) fn outside(&self) -> IpAddr {
        self.outside
    }

    /// Forgets every mapping, as after a restart; the ports that come next are others.
    pub(crate) fn forget(&mut self) {
        self.ports.clear();
        self.insides.clear();
        self.sent_to.clear();
        self.first_port += 1000;
    }

    /// The address that a packet from `inside` to `to` shows.
    pub(crate) fn outbound(&mut self, inside: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let port = match self.kind {
            Kind::Blocked => return None,
            Kind::Open | Kind::Firewall(_) => inside.port(),
            Kind::Nat(mapping, _) => self.map(mapping, inside, to),
        };
        self.insides.insert(port, inside);
        self.sent_to.insert((port, to));
        Some(SocketAddr::new(self.outside, port))
    }

    fn map(&mut self, mapping: Mapping, inside: SocketAddr, to: SocketAddr) -> u16 {
        let key = match mapping {
            Mapping::EndpointIndependent => (inside, None),
            Mapping::AddressAndPortDependent => (inside, Some(to)),
        };
        let next = self.first_port + u16::try_from(self.ports.len()).expect("few mappings");
        *self.ports.entry(key).or_insert(next)
    }

    /// Whom a packet from `from` to the outside `port` goes to.
    pub(crate) fn inbound(&self, port: u16, from: SocketAddr) -> Option<SocketAddr> {
        let filtering = match self.kind {
            Kind::Blocked => return None,
            Kind::Open => Filtering::EndpointIndependent,
            Kind::Firewall(filtering) | Kind::Nat(_, filtering) => filtering,
        };
        let is_let_in = match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => self.sent_to.iter().any(|(sent_from, to)| *sent_from == port && to.ip() == from.ip()),
            Filtering::AddressAndPortDependent => self.sent_to.contains(&(port, from)),
        };
        self.insides.get(&port).copied().filter(|_| is_let_in)
    }
}
