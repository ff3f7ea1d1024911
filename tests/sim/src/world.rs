//! A call in virtual time: two hosts, the network between them, and what befalls it.

use crate::dice::Dice;
use crate::host::{CALLEE, CALLER, Host, HostPlan};
use crate::link::{Loss, Quality};
use crate::network::Network;
use crate::packet::Message;
use crate::place::{Addresses, Families, Ground, OBSERVERS};
use crate::server::Server;
use crate::topology::{Device, PortId, RouterId, SegmentId};
use std::time::{Duration, Instant};

/// When the callee answers: by then both know their addresses, and the first leg is up on both sides.
pub const ANSWER_AT: Duration = Duration::from_secs(3);
/// How long it takes a message through the supernodes.
const SIGNAL_TAKES: Duration = Duration::from_millis(120);
/// How soon a device notices that its network changed.
const CHANGE_NOTICED: Duration = Duration::from_millis(50);
/// Steps without time passing after which the simulation is stuck.
const STEPS_AT_ONCE_MAX: u32 = 200_000;

/// What befalls a call.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The cable of a host's first interface is pulled, or put back.
    Link {
        /// Whose.
        host: usize,
        /// Put back.
        is_up: bool,
    },
    /// By a host's first interface, over which all its ways lead, packets are lost from here on, in either direction.
    Losses {
        /// Whose.
        host: usize,
        /// Which packets.
        loss: Loss,
    },
    /// A router is switched off, or on; it forgets nothing.
    Router {
        /// Which.
        router: RouterId,
        /// On.
        is_up: bool,
    },
    /// A router forgets everything.
    Reboot(RouterId),
    /// The core carries nothing between the two hosts' homes, or does again; the way to servers is not touched.
    Cut(bool),
    /// The core loses this share of the packets between the two homes; the way to servers is not touched.
    CoreLoss(f64),
    /// A relay dies, or comes back without its legs.
    Relay {
        /// Which.
        relay: usize,
        /// Comes back.
        is_up: bool,
    },
    /// A host does nothing for so long.
    Sleep {
        /// Which.
        host: usize,
        /// How long.
        time: Duration,
    },
    /// A host goes to another network.
    Roam {
        /// Which.
        host: usize,
        /// Where to.
        segment: SegmentId,
        /// Which addresses it gets there.
        families: Families,
        /// Its link there.
        quality: Quality,
    },
    /// A host notices that its network changed; comes by itself after [`Fault::Link`] and [`Fault::Roam`].
    Noticed {
        /// Which.
        host: usize,
    },
}

/// A call in virtual time.
#[derive(Debug)]
pub struct World {
    now: Duration,
    /// What carries packets.
    pub network: Network,
    /// What gives addresses out.
    pub addresses: Addresses,
    /// Caller and callee.
    pub hosts: [Host; 2],
    servers: Vec<Server>,
    faults: Vec<(Duration, Fault)>,
    /// The first interface of each host, whether it has noticed or not.
    interfaces: [PortId; 2],
    signals: Vec<(Duration, usize, u32, Message)>,
}

/// How one side of a call is set up.
#[derive(Debug, Clone)]
pub struct SidePlan {
    /// Its interfaces, the one with the way out first.
    pub interfaces: Vec<PortId>,
    /// Its one port.
    pub port: u16,
    /// Whether it may guess ports.
    pub birthday: bool,
}

impl World {
    /// A call between two hosts on this ground. Both begin at once to prepare it.
    #[must_use]
    pub fn new(ground: Ground, sides: [SidePlan; 2], dice: &mut Dice) -> Self {
        // The one reading of the clock: agents want instants, and only their differences matter.
        let start = Instant::now();
        let Ground { topology, addresses, servers, observers, relays } = ground;
        let mut network = Network::new(topology);
        let servers = servers.into_iter().map(|port| Server::new(port, start)).collect();
        let [caller, callee] = sides;
        let mut host = |index, side: SidePlan, network: &Network| {
            let SidePlan { interfaces, port, birthday } = side;
            let plan = HostPlan { index, interfaces, port, birthday, observers: observers.clone(), relays: relays.clone() };
            Host::new(plan, start, dice, network)
        };
        let mut hosts = [host(CALLER, caller, &network), host(CALLEE, callee, &network)];
        hosts.iter_mut().for_each(|host| host.prepare(Duration::ZERO, &mut network));
        let interfaces = hosts.each_ref().map(|host| host.interfaces()[0]);
        Self { now: Duration::ZERO, network, addresses, hosts, servers, faults: Vec::new(), interfaces, signals: Vec::new() }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Lets time pass until the callee answers, and answers.
    pub fn answer(&mut self) {
        self.run_until(ANSWER_AT);
        self.hosts[CALLEE].answer(ANSWER_AT, &mut self.network);
    }

    /// Lets something happen then.
    pub fn schedule(&mut self, at: Duration, fault: Fault) {
        self.faults.push((at, fault));
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Lets time pass until then.
    ///
    /// # Panics
    /// If the simulation is stuck: something is due again and again without time passing.
    pub fn run_until(&mut self, until: Duration) {
        let mut at_once = 0;
        while let Some(next) = self.next_at().filter(|next| *next <= until) {
            at_once = if next > self.now { 0 } else { at_once + 1 };
            assert!(at_once < STEPS_AT_ONCE_MAX, "something is due for ever at {:?}", self.now);
            self.now = self.now.max(next);
            self.step();
        }
        self.now = until;
    }

    fn next_at(&self) -> Option<Duration> {
        let hosts = self.hosts.iter().filter_map(Host::next_at);
        let faults = self.faults.iter().map(|(at, _)| *at);
        let signals = self.signals.iter().map(|(at, ..)| *at);
        hosts.chain(self.network.next_at()).chain(faults).chain(signals).min()
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(due) = self.faults.iter().position(|(at, _)| *at <= now) {
            let (_, fault) = self.faults.remove(due);
            self.befall(fault);
        }
        while let Some((port, packet)) = self.network.receive(now) {
            match self.network.topology.port(port).device {
                Device::Host(host) => {
                    let _span = span(host).entered();
                    self.hosts[host].receive(now, packet, &mut self.network);
                }
                Device::Server(server) => self.servers[server].receive(now, packet, &mut self.network),
                Device::Inside(_) | Device::Outside(_) => unreachable!("routers send on what arrives at them"),
            }
        }
        for (index, host) in self.hosts.iter_mut().enumerate() {
            if host.next_at().is_some_and(|due| due <= now) {
                let _span = span(index).entered();
                host.handle_timeout(now, &mut self.network);
            }
        }
        self.carry_signals();
    }

    fn carry_signals(&mut self) {
        if self.signals.is_empty() && !self.hosts.iter().any(Host::has_signals) {
            return;
        }
        for host in [CALLER, CALLEE] {
            for (number, message) in self.hosts[host].take_signals() {
                if self.is_online(host) {
                    self.signals.push((self.now + SIGNAL_TAKES, 1 - host, number, message));
                }
            }
        }
        while let Some(due) = self.signals.iter().position(|(at, ..)| *at <= self.now) {
            let (_, host, number, message) = self.signals.remove(due);
            if self.is_online(host) {
                self.hosts[host].handle_signal(self.now, number, message, &mut self.network);
            }
        }
    }

    /// Whether a host is awake and has a way to the core.
    #[must_use]
    pub fn is_online(&self, host: usize) -> bool {
        let interface = self.hosts[host].interfaces().first();
        !self.hosts[host].is_asleep() && interface.is_some_and(|port| self.network.topology.is_online(*port))
    }

    /// Lets something happen at once.
    pub fn befall(&mut self, fault: Fault) {
        tracing::debug!(?fault, "fault");
        match fault {
            Fault::Link { host, is_up } => {
                self.network.topology.set_link(self.interfaces[host], is_up);
                if is_up {
                    self.schedule(self.now + CHANGE_NOTICED, Fault::Noticed { host });
                }
            }
            Fault::Losses { host, loss } => self.network.topology.set_loss(self.interfaces[host], loss),
            Fault::Router { router, is_up } => self.network.topology.set_router(router, is_up),
            Fault::Reboot(router) => self.network.topology.reboot(router),
            Fault::Cut(is_cut) => self.network.topology.set_core_cut(is_cut),
            Fault::CoreLoss(share) => self.network.topology.set_core_loss(share),
            Fault::Relay { relay, is_up } => {
                let server = &mut self.servers[OBSERVERS + relay];
                server.restart(self.now);
                self.network.topology.set_link(server.port(), is_up);
            }
            Fault::Sleep { host, time } => self.hosts[host].sleep(self.now + time),
            Fault::Roam { host, segment, families, quality } => {
                self.network.topology.detach(self.interfaces[host]);
                self.interfaces[host] = self.addresses.interface(&mut self.network.topology, host, segment, families, quality);
                self.schedule(self.now + CHANGE_NOTICED, Fault::Noticed { host });
            }
            Fault::Noticed { host } => {
                let mut interfaces = self.hosts[host].interfaces().to_vec();
                interfaces[0] = self.interfaces[host];
                self.hosts[host].roam(self.now, interfaces, &mut self.network);
            }
        }
    }

    /// When both sides' packets first went a direct way, after the answer.
    #[must_use]
    pub fn direct_since(&self) -> Option<Duration> {
        let first = |host: &Host| host.routes.iter().find(|(_, route)| route.ways().any(|way| way.is_direct())).map(|(at, _)| *at);
        Some(first(&self.hosts[CALLER])?.max(first(&self.hosts[CALLEE])?))
    }

    /// Whether the way that counts is a direct one for both sides.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.hosts.iter().all(|host| host.agent().route().ways().next().is_some_and(|way| way.is_direct()))
    }

    /// What the agents did that they must never do.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let of = |host: &Host| host.guard.violations().to_vec();
        let [caller, callee] = [CALLER, CALLEE].map(|host| of(&self.hosts[host]));
        caller.into_iter().map(|what| format!("caller: {what}")).chain(callee.into_iter().map(|what| format!("callee: {what}"))).collect()
    }
}

/// Says in logs whose agent speaks.
fn span(host: usize) -> tracing::Span {
    if host == CALLER { tracing::debug_span!("caller") } else { tracing::debug_span!("callee") }
}
