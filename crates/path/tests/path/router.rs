//! What stands between a device and the network, in the terms of RFC 4787: how it maps addresses, and which packets it lets in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

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
    /// How often it was restarted.
    pub(crate) restarts: u32,
    /// Gives out ports at random instead of in a row.
    pub(crate) is_random: bool,
    /// Drops each mapping at this age.
    pub(crate) age_max: Option<Duration>,
    made_at: BTreeMap<u16, Instant>,
}

impl Router {
    pub(crate) fn new(kind: Kind, outside: IpAddr) -> Self {
        Self {
            kind,
            outside,
            first_port: 20_000,
            ports: BTreeMap::new(),
            insides: BTreeMap::new(),
            sent_to: BTreeSet::new(),
            restarts: 0,
            is_random: false,
            age_max: None,
            made_at: BTreeMap::new(),
        }
    }

    pub(crate) fn outside(&self) -> IpAddr {
        self.outside
    }

    /// Forgets every mapping, as after a restart; the ports that come next are others.
    pub(crate) fn forget(&mut self) {
        self.ports.clear();
        self.insides.clear();
        self.sent_to.clear();
        self.made_at.clear();
        self.first_port += 1000;
        self.restarts += 1;
    }

    /// Drops what has reached its age.
    pub(crate) fn expire(&mut self, now: Instant) {
        let Some(age_max) = self.age_max else { return };
        let old: Vec<u16> =
            self.made_at.iter().filter(|(_, at)| now.saturating_duration_since(**at) >= age_max).map(|(port, _)| *port).collect();
        for port in old {
            self.made_at.remove(&port);
            self.insides.remove(&port);
            self.ports.retain(|_, mapped| *mapped != port);
            self.sent_to.retain(|(from, _)| *from != port);
        }
    }

    /// Remembers when a mapping was made.
    pub(crate) fn note(&mut self, now: Instant, port: u16) {
        self.made_at.entry(port).or_insert(now);
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
        if let Some(port) = self.ports.get(&key) {
            return *port;
        }
        let mut port = self.first_port;
        while self.insides.contains_key(&port) {
            // Far apart, as if drawn from a hat, and never twice.
            port = if self.is_random { 1024 + ((u32::from(port) * 25_173 + 13_849) % 64_512) as u16 } else { port + 1 };
        }
        if !self.is_random {
            // A port that was given back is not given out again at once.
            self.first_port = port + 1;
        }
        self.ports.insert(key, port);
        port
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
