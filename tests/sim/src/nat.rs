//! A NAT in the terms of RFC 4787: how it maps addresses (section 4.1), chooses ports (4.2), forgets (4.3), filters (5) and hairpins (6).
//!
//! It translates IPv4 and knows nothing of links and delays: a packet's addresses go in, and where it goes and what it shows come out, or
//! `None` where it is dropped.

use crate::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Ports that are given out.
const PORTS: std::ops::RangeInclusive<u16> = 1024..=65_000;

/// Which packets of one inside socket get one mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mapping {
    /// All of them.
    EndpointIndependent,
    /// Those to one host.
    AddressDependent,
    /// Those to one socket.
    AddressAndPortDependent,
}

/// From whom packets to a mapping are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filtering {
    /// Anybody.
    EndpointIndependent,
    /// Hosts that were sent something.
    AddressDependent,
    /// Sockets that were sent something.
    AddressAndPortDependent,
}

/// Which outside port a mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// The inside one, unless another inside socket has it; then as [`Ports::Sequential`]. One inside socket keeps it towards everybody, so
    /// that a mapping which is dependent by its own rule looks independent for as long as the port is free (Linux does this).
    Preserving,
    /// The next.
    Sequential,
    /// Any.
    Random,
}

/// What a NAT is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// Which packets get one mapping.
    pub mapping: Mapping,
    /// From whom packets are let in.
    pub filtering: Filtering,
    /// Which port a mapping gets.
    pub ports: Ports,
    /// Whether a packet from inside to an outside address of one's own comes back in.
    pub hairpin: bool,
    /// How long a mapping, or a leave to send in, lasts after the last packet that went out.
    pub idle: Duration,
    /// How long a mapping lasts whatever is sent; `None`: for ever.
    pub lifetime: Option<Duration>,
}

impl Behaviour {
    /// A NAT that forgets what was idle for two minutes and nothing else, as RFC 4787 asks for.
    #[must_use]
    pub fn new(mapping: Mapping, filtering: Filtering, ports: Ports) -> Self {
        Self { mapping, filtering, ports, hairpin: false, idle: Duration::from_secs(120), lifetime: None }
    }
}

/// Inside socket, and the destination as far as the mapping depends on it.
type Key = (SocketAddr, Option<SocketAddr>);

#[derive(Debug)]
struct Entry {
    key: Key,
    born: Duration,
    last_out: Duration,
    /// Who may send in, as far as the filter looks at it, and when something was sent to them last.
    leave: BTreeMap<SocketAddr, Duration>,
}

/// A port that was asked for from inside: whoever sends there gets in.
#[derive(Debug)]
struct Forward {
    inside: SocketAddr,
    /// Who has sent something, so that answers show this port.
    senders: BTreeSet<SocketAddr>,
}

/// A NAT with one outside address.
#[derive(Debug)]
pub struct Nat {
    behaviour: Behaviour,
    outside: Ipv4Addr,
    entries: BTreeMap<u16, Entry>,
    ports: BTreeMap<Key, u16>,
    forwards: BTreeMap<u16, Forward>,
    next_port: u16,
    dice: Dice,
}

impl Nat {
    /// A NAT that has seen nothing yet.
    #[must_use]
    pub fn new(behaviour: Behaviour, outside: Ipv4Addr, mut dice: Dice) -> Self {
        let next_port = 20_000 + u16::try_from(dice.below(20_000)).expect("below 20,000");
        Self { behaviour, outside, entries: BTreeMap::new(), ports: BTreeMap::new(), forwards: BTreeMap::new(), next_port, dice }
    }

    /// What it is like.
    #[must_use]
    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// Its outside address.
    #[must_use]
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// How many mappings it holds, expired ones that nobody asked for included.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.entries.len()
    }

    /// Forgets everything, as after a restart; the ports that come next are others.
    pub fn reboot(&mut self) {
        self.entries.clear();
        self.ports.clear();
        self.forwards.clear();
        self.next_port = 20_000 + u16::try_from(self.dice.below(20_000)).expect("below 20,000");
    }

    /// Gets another outside address, as after a new dial-in; the mappings are gone.
    pub fn move_to(&mut self, outside: Ipv4Addr) {
        self.reboot();
        self.outside = outside;
    }

    /// The outside address at which packets for `inside` are let in from anybody, as a port mapping protocol gives it.
    pub fn forward(&mut self, inside: SocketAddr) -> SocketAddr {
        let known = self.forwards.iter().find(|(_, forward)| forward.inside == inside).map(|(port, _)| *port);
        let port = known.unwrap_or_else(|| {
            let port = self.free_port();
            self.forwards.insert(port, Forward { inside, senders: BTreeSet::new() });
            port
        });
        SocketAddr::new(self.outside.into(), port)
    }

    /// What a packet from `inside` to `to` shows as its source outside.
    pub fn outbound(&mut self, now: Duration, inside: SocketAddr, to: SocketAddr) -> SocketAddr {
        if let Some(port) = self.answering_port(inside, to) {
            return SocketAddr::new(self.outside.into(), port);
        }
        let port = self.map(now, inside, to);
        let seen = self.filtered(to);
        let entry = self.entries.get_mut(&port).expect("a port that was just mapped");
        entry.last_out = now;
        entry.leave.insert(seen, now);
        SocketAddr::new(self.outside.into(), port)
    }

    /// Whom a packet from `from` to the outside `port` goes to.
    pub fn inbound(&mut self, now: Duration, port: u16, from: SocketAddr) -> Option<SocketAddr> {
        if let Some(forward) = self.forwards.get_mut(&port) {
            forward.senders.insert(from);
            return Some(forward.inside);
        }
        if self.is_expired(now, port) {
            return None;
        }
        let sender = self.filtered(from);
        let entry = self.entries.get(&port)?;
        let is_let_in = match self.behaviour.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent | Filtering::AddressAndPortDependent => {
                entry.leave.get(&sender).is_some_and(|sent| now.saturating_sub(*sent) < self.behaviour.idle)
            }
        };
        is_let_in.then_some(entry.key.0)
    }

    /// A packet from inside to one of this NAT's own outside addresses: whom it goes to, and what it shows.
    pub fn hairpin(&mut self, now: Duration, inside: SocketAddr, to: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
        if !self.behaviour.hairpin {
            return None;
        }
        let shown = self.outbound(now, inside, to);
        Some((self.inbound(now, to.port(), shown)?, shown))
    }

    fn answering_port(&self, inside: SocketAddr, to: SocketAddr) -> Option<u16> {
        let mut own = self.forwards.iter().filter(|(_, forward)| forward.inside == inside);
        own.find(|(_, forward)| forward.senders.contains(&to)).map(|(port, _)| *port)
    }

    fn map(&mut self, now: Duration, inside: SocketAddr, to: SocketAddr) -> u16 {
        let key = self.key(now, inside, to);
        if let Some(port) = self.ports.get(&key).copied()
            && !self.is_expired(now, port)
        {
            return port;
        }
        let port = if self.keeps_port(now, inside) { inside.port() } else { self.free_port() };
        self.forget(port);
        self.ports.insert(key, port);
        self.entries.insert(port, Entry { key, born: now, last_out: now, leave: BTreeMap::new() });
        port
    }

    fn key(&self, now: Duration, inside: SocketAddr, to: SocketAddr) -> Key {
        if self.keeps_port(now, inside) {
            return (inside, None);
        }
        match self.behaviour.mapping {
            Mapping::EndpointIndependent => (inside, None),
            Mapping::AddressDependent => (inside, Some(SocketAddr::new(to.ip(), 0))),
            Mapping::AddressAndPortDependent => (inside, Some(to)),
        }
    }

    /// Whether an inside socket has its own port outside as well.
    fn keeps_port(&self, now: Duration, inside: SocketAddr) -> bool {
        let is_free = || match self.entries.get(&inside.port()) {
            None => !self.forwards.contains_key(&inside.port()),
            Some(entry) => entry.key == (inside, None) || self.is_expired(now, inside.port()),
        };
        // A socket that had to take another port keeps that one: its mapping lives on when the port becomes free.
        self.behaviour.ports == Ports::Preserving && is_free() && self.ports.get(&(inside, None)).is_none_or(|port| *port == inside.port())
    }

    fn free_port(&mut self) -> u16 {
        loop {
            let port = match self.behaviour.ports {
                Ports::Preserving | Ports::Sequential => {
                    self.next_port = if self.next_port >= *PORTS.end() { *PORTS.start() } else { self.next_port + 1 };
                    self.next_port
                }
                Ports::Random => {
                    let span = u64::from(PORTS.end() - PORTS.start()) + 1;
                    PORTS.start() + u16::try_from(self.dice.below(span)).expect("below the number of ports")
                }
            };
            if !self.entries.contains_key(&port) && !self.forwards.contains_key(&port) {
                return port;
            }
        }
    }

    fn is_expired(&self, now: Duration, port: u16) -> bool {
        let Behaviour { idle, lifetime, .. } = self.behaviour;
        self.entries.get(&port).is_some_and(|entry| {
            now.saturating_sub(entry.last_out) >= idle || lifetime.is_some_and(|lifetime| now.saturating_sub(entry.born) >= lifetime)
        })
    }

    fn forget(&mut self, port: u16) {
        if let Some(entry) = self.entries.remove(&port) {
            self.ports.remove(&entry.key);
        }
    }

    /// `address` as far as the filter looks at it.
    fn filtered(&self, address: SocketAddr) -> SocketAddr {
        match self.behaviour.filtering {
            Filtering::EndpointIndependent => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Filtering::AddressDependent => SocketAddr::new(address.ip(), 0),
            Filtering::AddressAndPortDependent => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Filtering as F;
    use Mapping as M;

    const NOW: Duration = Duration::from_secs(1000);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    fn inside() -> SocketAddr {
        address("192.168.1.2:5000")
    }

    fn nat(mapping: M, filtering: F, ports: Ports) -> Nat {
        Nat::new(Behaviour::new(mapping, filtering, ports), OUTSIDE, Dice::new(5))
    }

    /// The ports that one socket gets towards two ports of a host, and another host.
    fn ports_of(mut nat: Nat) -> [u16; 3] {
        ["198.51.100.1:1", "198.51.100.1:2", "198.51.100.9:1"].map(|to| nat.outbound(NOW, inside(), address(to)).port())
    }

    #[test]
    fn a_mapping_depends_on_what_it_says() {
        for ports in [Ports::Sequential, Ports::Random] {
            let [a, b, c] = ports_of(nat(M::EndpointIndependent, F::EndpointIndependent, ports));
            assert!(a == b && b == c);
            let [a, b, c] = ports_of(nat(M::AddressDependent, F::EndpointIndependent, ports));
            assert!(a == b && b != c);
            let [a, b, c] = ports_of(nat(M::AddressAndPortDependent, F::EndpointIndependent, ports));
            assert!(a != b && b != c && a != c);
        }
    }

    #[test]
    fn a_filter_looks_at_what_it_says() {
        let lets_in = |filtering| {
            let mut nat = nat(M::EndpointIndependent, filtering, Ports::Preserving);
            let port = nat.outbound(NOW, inside(), address("198.51.100.1:1")).port();
            let from = ["198.51.100.1:1", "198.51.100.1:2", "198.51.100.9:1"];
            from.map(|from| nat.inbound(NOW, port, address(from)) == Some(inside()))
        };
        assert_eq!(lets_in(F::EndpointIndependent), [true, true, true]);
        assert_eq!(lets_in(F::AddressDependent), [true, true, false]);
        assert_eq!(lets_in(F::AddressAndPortDependent), [true, false, false]);
    }

    #[test]
    fn a_port_is_kept_unless_another_has_it() {
        for mapping in [M::EndpointIndependent, M::AddressAndPortDependent] {
            let mut nat = nat(mapping, F::AddressAndPortDependent, Ports::Preserving);
            let to = [address("198.51.100.1:1"), address("198.51.100.9:1")];
            assert_eq!(to.map(|to| nat.outbound(NOW, inside(), to).port()), [5000; 2]);
            let neighbour = address("192.168.1.3:5000");
            let other = to.map(|to| nat.outbound(NOW, neighbour, to).port());
            assert!(other.iter().all(|port| *port != 5000));
            assert_eq!(other[0] == other[1], mapping == M::EndpointIndependent);
            assert_eq!(nat.inbound(NOW, other[0], to[0]), Some(neighbour));
        }
    }

    #[test]
    fn sequential_ports_follow_one_another() {
        let [a, b, c] = ports_of(nat(M::AddressAndPortDependent, F::AddressAndPortDependent, Ports::Sequential));
        assert_eq!((b, c), (a + 1, a + 2));
    }

    #[test]
    fn what_is_idle_is_forgotten_and_what_goes_out_keeps_it() {
        let mut nat = nat(M::EndpointIndependent, F::AddressAndPortDependent, Ports::Sequential);
        let (one, two) = (address("198.51.100.1:1"), address("198.51.100.9:1"));
        let later = NOW + Duration::from_secs(100);
        let port = nat.outbound(NOW, inside(), one).port();
        assert_eq!(nat.outbound(later, inside(), two).port(), port);
        let much_later = NOW + Duration::from_secs(130);
        assert_eq!(nat.inbound(much_later, port, one), None, "the leave for one is too old");
        assert_eq!(nat.inbound(much_later, port, two), Some(inside()));
        let too_late = later + Duration::from_secs(121);
        assert_eq!(nat.inbound(too_late, port, two), None);
        assert_ne!(nat.outbound(too_late, inside(), two).port(), port);
    }

    #[test]
    fn a_lifetime_ends_whatever_is_sent() {
        let behaviour = Behaviour {
            lifetime: Some(Duration::from_secs(50)),
            ..Behaviour::new(M::EndpointIndependent, F::AddressAndPortDependent, Ports::Sequential)
        };
        let mut nat = Nat::new(behaviour, OUTSIDE, Dice::new(1));
        let to = address("198.51.100.1:1");
        let ports: BTreeSet<u16> = (0..100).map(|second| nat.outbound(NOW + Duration::from_secs(second), inside(), to).port()).collect();
        assert_eq!(ports.len(), 2);
    }

    #[test]
    fn a_hairpin_needs_leave_like_any_other_way_in() {
        let both = |hairpin, filtering| {
            let behaviour = Behaviour { hairpin, ..Behaviour::new(M::EndpointIndependent, filtering, Ports::Sequential) };
            let mut nat = Nat::new(behaviour, OUTSIDE, Dice::new(1));
            let other = address("192.168.1.3:6000");
            let observer = address("198.51.100.1:1");
            let (mine, its) = (nat.outbound(NOW, inside(), observer), nat.outbound(NOW, other, observer));
            let first = nat.hairpin(NOW, inside(), its);
            let answer = nat.hairpin(NOW, other, mine);
            (first.map(|first| first == (other, mine)), answer.map(|answer| answer == (inside(), its)))
        };
        assert_eq!(both(true, F::EndpointIndependent), (Some(true), Some(true)));
        assert_eq!(both(true, F::AddressAndPortDependent), (None, Some(true)));
        assert_eq!(both(false, F::EndpointIndependent), (None, None));
    }

    #[test]
    fn a_forwarded_port_lets_anybody_in_and_answers_show_it() {
        let mut nat = nat(M::AddressAndPortDependent, F::AddressAndPortDependent, Ports::Random);
        let mapped = nat.forward(inside());
        assert_eq!(nat.forward(inside()), mapped);
        let stranger = address("198.51.100.77:7");
        assert_ne!(nat.outbound(NOW, inside(), stranger), mapped);
        assert_eq!(nat.inbound(NOW, mapped.port(), stranger), Some(inside()));
        assert_eq!(nat.outbound(NOW, inside(), stranger), mapped);
    }

    #[test]
    fn a_reboot_forgets_everything() {
        let mut nat = nat(M::EndpointIndependent, F::EndpointIndependent, Ports::Sequential);
        let to = address("198.51.100.1:1");
        let (before, mapped) = (nat.outbound(NOW, inside(), to).port(), nat.forward(inside()).port());
        nat.reboot();
        assert_eq!([before, mapped].map(|port| nat.inbound(NOW, port, to)), [None, None]);
        assert_eq!(nat.mappings(), 0);
        assert_ne!(nat.outbound(NOW, inside(), to).port(), before);
    }
}
