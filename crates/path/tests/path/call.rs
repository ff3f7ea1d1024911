//! A call between two devices, with the clock in hand.

use crate::device::{Device, FRAME};
use crate::network::{Link, Network};
use crate::router::Kind;
use ahoy_path::{AddressRules, AgentConfig, LegId, PathAgent, ProbeKeys, Route, Subnet, Way};
use ahoy_protocol::datagram::Side;
use ahoy_protocol::ids::{CallId, CallSecret, DeviceKey};
use ahoy_protocol::peer::{Candidate, CandidateKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Index of the caller.
pub(crate) const ALICE: usize = 0;
/// Index of the callee.
pub(crate) const BOB: usize = 1;

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) network: Network,
    pub(crate) devices: [Device; 2],
}

/// Keys of all calls in these tests.
pub(crate) fn keys() -> ProbeKeys {
    ProbeKeys::derive(&CallSecret([1; 32]), &CallId([2; 16]), &DeviceKey([3; 32]), &DeviceKey([4; 32]))
}

/// An agent as a device makes it.
pub(crate) fn agent(side: Side, seed: u64, now: Instant) -> PathAgent {
    let home = match side {
        Side::Caller => "192.168.1.0",
        Side::Callee => "192.168.2.0",
    };
    let on_link = vec![Subnet::new(home.parse().expect("ip"), 24), Subnet::new("10.9.0.0".parse().expect("ip"), 16)];
    let rules = AddressRules { allow_loopback: false, virtual_prefix: Some("fd5a:1b2c:3d4e::".parse().expect("prefix")) };
    PathAgent::new(AgentConfig { side, keys: keys(), on_link, rules, birthday: true }, seed, now)
}

impl Call {
    /// Two devices without any interface, that know of no relay and no candidate.
    pub(crate) fn new(seed: u64) -> Self {
        let start = Instant::now();
        let caller = Device::new(ALICE, agent(Side::Caller, seed, start), start);
        let callee = Device::new(BOB, agent(Side::Callee, !seed, start), start + FRAME / 3);
        Self { start, now: start, network: Network::new(seed), devices: [caller, callee] }
    }

    /// Two devices, each behind its own router.
    pub(crate) fn behind(seed: u64, alice: Kind, bob: Kind) -> Self {
        let mut call = Self::new(seed);
        call.add_home(ALICE, alice);
        call.add_home(BOB, bob);
        call
    }

    fn add_home(&mut self, host: usize, kind: Kind) {
        let (inside, outside) = [("192.168.1.10:5000", "203.0.113.1"), ("192.168.2.20:6000", "203.0.113.2")][host];
        let outside = outside.parse().expect("ip");
        let inside: SocketAddr = inside.parse().expect("address");
        let inside = match kind {
            Kind::Open | Kind::Firewall(_) => SocketAddr::new(outside, inside.port()),
            Kind::Nat(..) | Kind::Blocked => inside,
        };
        self.network.add_interface(host, kind, inside, outside);
    }

    /// Gives both an IPv6 address as well.
    pub(crate) fn with_ipv6(mut self, kind: Kind) -> Self {
        for (host, address) in ["[2001:db8:a::1]:5000", "[2001:db8:b::1]:6000"].into_iter().enumerate() {
            let inside: SocketAddr = address.parse().expect("address");
            self.network.add_interface(host, kind, inside, inside.ip());
        }
        self
    }

    /// Puts both into one network, behind routers that let nothing through.
    pub(crate) fn in_one_place(seed: u64, routers: Kind) -> Self {
        let mut call = Self::new(seed);
        for (host, inside) in ["10.9.0.1:5000", "10.9.0.2:6000"].into_iter().enumerate() {
            call.network.add_interface(host, routers, inside.parse().expect("address"), "203.0.113.1".parse().expect("ip"));
        }
        call.network.lan = Some([Link::of_ms(1); 2]);
        call
    }

    /// Both join a relay.
    pub(crate) fn with_relay(mut self) -> Self {
        self.set_relay(true);
        self
    }

    pub(crate) fn set_relay(&mut self, available: bool) {
        self.set_leg(LegId(0), available);
    }

    pub(crate) fn set_leg(&mut self, leg: LegId, up: bool) {
        for device in &mut self.devices {
            device.agent.set_leg(self.now, leg, up);
            device.flush(self.now, &mut self.network);
        }
    }

    /// Tells one side the other's addresses.
    pub(crate) fn tell_candidates(&mut self, host: usize) {
        let known = self.network.candidates(1 - host).into_iter().map(|(address, is_host)| {
            let kind = if is_host { CandidateKind::Host } else { CandidateKind::ServerReflexive };
            Candidate { address, kind }
        });
        let candidates: Vec<Candidate> = known.collect();
        let device = &mut self.devices[host];
        device.agent.add_remote(self.now, &candidates);
        device.flush(self.now, &mut self.network);
    }

    pub(crate) fn start_probing(&mut self, host: usize) {
        let device = &mut self.devices[host];
        device.agent.start_probing(self.now);
        device.flush(self.now, &mut self.network);
    }

    /// Both know each other's addresses and probe.
    pub(crate) fn probe_both(&mut self) {
        for host in [ALICE, BOB] {
            self.tell_candidates(host);
        }
        for host in [ALICE, BOB] {
            self.start_probing(host);
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let devices = self.devices.iter().map(Device::next_at);
            let next = devices.chain(self.network.next_at()).min().expect("a frame is always due");
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            while let Some(arrival) = self.network.receive(self.now) {
                self.devices[arrival.host].receive(self.now, arrival, &mut self.network);
            }
            for device in &mut self.devices {
                device.handle_timeout(self.now, &mut self.network);
            }
        }
        self.now = until;
    }

    pub(crate) fn run_ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    pub(crate) fn route(&self, host: usize) -> Route {
        self.devices[host].agent.route()
    }

    pub(crate) fn is_direct(&self, host: usize) -> bool {
        self.route(host).is_direct()
    }

    pub(crate) fn are_direct(&self) -> bool {
        self.is_direct(ALICE) && self.is_direct(BOB)
    }

    pub(crate) fn are_relayed(&self) -> bool {
        self.route(ALICE).is_relayed() && self.route(BOB).is_relayed()
    }

    /// The direct path in use.
    pub(crate) fn direct_of(&self, host: usize) -> Option<Way> {
        self.devices[host].agent.selected().map(|selected| selected.way).filter(Way::is_direct)
    }

    /// Blocks or opens the direct ways by which this host's packets go.
    pub(crate) fn set_direct(&mut self, sender: usize, is_up: bool) {
        self.network.direct[sender].is_up = is_up;
        if let Some(lan) = &mut self.network.lan {
            lan[sender].is_up = is_up;
        }
    }

    pub(crate) fn set_direct_both(&mut self, is_up: bool) {
        self.set_direct(ALICE, is_up);
        self.set_direct(BOB, is_up);
    }

    /// Voice packets sent since `from`, except those still under way, that did not come, both ways together.
    pub(crate) fn missing_since(&self, from: Instant) -> usize {
        let until = self.now - Duration::from_millis(500);
        let [alice, bob] = &self.devices;
        alice.missing(bob, from, until).len() + bob.missing(alice, from, until).len()
    }

    /// The longest silence on either side since `from`.
    pub(crate) fn longest_gap_since(&self, from: Instant) -> Duration {
        self.devices.iter().map(|device| device.longest_gap(from, self.now)).max().unwrap_or_default()
    }
}
