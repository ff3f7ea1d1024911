//! Two hosts, the direct ways between them and a relay: who gets a packet, and when.

use crate::router::{Kind, Router};
use ahoy_path::{LegId, SocketId, Way};
use ahoy_protocol::peer::LEGS_MAX;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// One direction of a way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    /// Added at random, up to this.
    pub(crate) jitter: Duration,
    /// Share of packets that are lost.
    pub(crate) loss: f64,
    pub(crate) is_up: bool,
}

impl Link {
    pub(crate) fn of_ms(delay_ms: u64) -> Self {
        Self { delay: Duration::from_millis(delay_ms), jitter: Duration::ZERO, loss: 0.0, is_up: true }
    }
}

/// What a packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    Probe(Vec<u8>),
    /// A voice packet, by its number.
    Voice(u64),
}

/// A packet that arrives.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Index of the host.
    pub(crate) host: usize,
    pub(crate) way: Way,
    pub(crate) payload: Payload,
}

/// A socket of a host, behind its router.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) inside: SocketAddr,
    pub(crate) router: Router,
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Between 0 and 1.
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The world between the two hosts.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) interfaces: [Vec<Interface>; 2],
    /// Direct ways through the routers, by sender.
    pub(crate) direct: [Link; 2],
    /// Ways between the inside addresses, where both hosts are in one place.
    pub(crate) lan: Option<[Link; 2]>,
    /// Ways through each relay, by sender.
    pub(crate) legs: [[Link; 2]; LEGS_MAX],
    /// Restarts of each host's router that each relay knows of: before it is told of the last, it sends to where nobody is, and takes what
    /// comes for a stranger's.
    known_restarts: [[u32; 2]; LEGS_MAX],
    /// Moves that relays were told.
    pub(crate) moves: usize,
    dice: Dice,
    queue: BTreeMap<(Instant, u64), Arrival>,
    sent: u64,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            interfaces: [Vec::new(), Vec::new()],
            direct: [Link::of_ms(20); 2],
            lan: None,
            legs: [[Link::of_ms(60); 2]; LEGS_MAX],
            known_restarts: [[0; 2]; LEGS_MAX],
            moves: 0,
            dice: Dice::new(seed),
            queue: BTreeMap::new(),
            sent: 0,
        }
    }

    pub(crate) fn add_interface(&mut self, host: usize, kind: Kind, inside: SocketAddr, outside: IpAddr) {
        self.interfaces[host].push(Interface { inside, router: Router::new(kind, outside) });
    }

    /// What a host finds out about its addresses: those of its interfaces, and those that an observer sees.
    pub(crate) fn candidates(&mut self, host: usize) -> Vec<(SocketAddr, bool)> {
        let mut candidates = Vec::new();
        for interface in &mut self.interfaces[host] {
            let observer = if interface.inside.is_ipv4() { "198.51.100.53:4433" } else { "[2001:db8:53::1]:4433" };
            candidates.push((interface.inside, true));
            let seen = interface.router.outbound(interface.inside, observer.parse().expect("address"));
            candidates.extend(seen.filter(|seen| *seen != interface.inside).map(|seen| (seen, false)));
        }
        candidates
    }

    pub(crate) fn send(&mut self, now: Instant, sender: usize, way: Way, payload: Payload) {
        match way {
            Way::Leg(leg) => self.send_relayed(now, sender, leg, payload),
            Way::Direct { socket, remote } => self.send_direct(now, sender, socket, remote, payload),
        }
    }

    fn send_relayed(&mut self, now: Instant, sender: usize, leg: LegId, payload: Payload) {
        let nth = usize::from(leg.0);
        if [0, 1].into_iter().all(|host| self.known_restarts[nth][host] == self.restarts(host)) {
            self.carry(now, self.legs[nth][sender], Arrival { host: 1 - sender, way: Way::Leg(leg), payload });
        }
    }

    /// Tells a relay where a host is.
    pub(crate) fn send_move(&mut self, sender: usize, leg: LegId) {
        self.moves += 1;
        if self.legs[usize::from(leg.0)][sender].is_up {
            self.known_restarts[usize::from(leg.0)][sender] = self.restarts(sender);
        }
    }

    fn restarts(&self, host: usize) -> u32 {
        self.interfaces[host].iter().map(|interface| interface.router.restarts).sum()
    }

    fn send_direct(&mut self, now: Instant, sender: usize, socket: SocketId, to: SocketAddr, payload: Payload) {
        let host = 1 - sender;
        let lan_link = self.lan.filter(|_| self.is_behind_same_router(host, to)).map(|lan| lan[sender]);
        let Some(own) = self.interfaces[sender].iter_mut().find(|own| own.inside.is_ipv4() == to.is_ipv4()) else { return };
        let inside = SocketAddr::new(own.inside.ip(), own.inside.port() + socket.0);
        if let Some(link) = lan_link {
            return self.carry(now, link, Arrival { host, way: Way::direct(inside), payload });
        }
        own.router.expire(now);
        let Some(from) = own.router.outbound(inside, to) else { return };
        own.router.note(now, from.port());
        let Some(other) = self.interfaces[host].iter_mut().find(|other| other.router.outside() == to.ip()) else { return };
        other.router.expire(now);
        // The filter is asked when the packet is sent, not when it arrives: the difference is one delay, in the hard direction.
        if let Some(reached) = other.router.inbound(to.port(), from) {
            let socket = SocketId(reached.port() - other.inside.port());
            let link = self.direct[sender];
            self.carry(now, link, Arrival { host, way: Way::Direct { socket, remote: from }, payload });
        }
    }

    fn is_behind_same_router(&self, host: usize, to: SocketAddr) -> bool {
        let [alice, bob] = &self.interfaces;
        let to_host = self.interfaces[host].iter().find(|other| other.inside == to);
        to_host.is_some_and(|other| [alice, bob].iter().all(|host| host.iter().any(|own| own.router.outside() == other.router.outside())))
    }

    /// Puts a packet under way by hand, as somebody on the path could.
    pub(crate) fn inject(&mut self, now: Instant, arrival: Arrival) {
        self.carry(now, Link::of_ms(0), arrival);
    }

    fn carry(&mut self, now: Instant, link: Link, arrival: Arrival) {
        if !link.is_up || self.dice.roll() < link.loss {
            return;
        }
        self.sent += 1;
        let at = now + link.delay + link.jitter.mul_f64(self.dice.roll());
        self.queue.insert((at, self.sent), arrival);
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next packet that has arrived by `now`.
    pub(crate) fn receive(&mut self, now: Instant) -> Option<Arrival> {
        let entry = self.queue.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}
