//! One of the two devices of a call: a path agent, and around it what the client does with it, as far as it matters to the call's way.
//!
//! It asks two observers for its address, asks its router for a port, joins two legs, tells the peer its addresses once the call is answered,
//! speaks and listens, opens sockets when the agent asks for them, sends a move when a leg falls silent and replaces one that died. It has
//! no task, no clock and no socket: a [`Network`] carries what it sends.

use crate::control::Control;
use crate::dice::Dice;
use crate::gather::{self, Gather};
use crate::guard::Guard;
use crate::legs::{self, Legs};
use crate::link::Carrier;
use crate::network::Network;
use crate::packet::{Message, Packet, Payload, RelayId};
use crate::topology::PortId;
use crate::voice::{Ear, Voice};
use ahoy_path::nat::{Observation, assess};
use ahoy_path::{AddressRules, AgentConfig, Event, LegId, PathAgent, ProbeKeys, Route, SOCKETS_MAX, SocketId, Subnet, Way};
use ahoy_protocol::datagram::Side;
use ahoy_protocol::ids::{CallId, CallSecret, DeviceKey};
use ahoy_protocol::peer::{Candidate, CandidateKind, Mapping};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Index of the caller.
pub const CALLER: usize = 0;
/// Index of the callee.
pub const CALLEE: usize = 1;

const _: () = assert!(legs::LEGS <= ahoy_protocol::peer::LEGS_MAX, "the agent knows so many legs");

/// How long a port mapping protocol takes.
const PORT_MAPPING_TAKES: Duration = Duration::from_millis(30);
/// How often a port mapping is asked for again, so that a router that restarted has it again.
const PORT_MAPPING_RENEWED: Duration = Duration::from_secs(20);
/// A leg that was replaced is not replaced again before, so that both sides' complaints of one death lead to one replacement.
const REPLACED_PAUSE: Duration = Duration::from_secs(2);
/// How often the connection to a relay is kept alive.
const TENDED: Duration = Duration::from_secs(9);
/// A packet of voice on the wire.
const VOICE_BYTES: usize = 128;
/// First port of extra sockets.
const EXTRA_PORTS: u16 = 40_000;

/// Where a server is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// By IPv4.
    pub v4: SocketAddr,
    /// By IPv6.
    pub v6: SocketAddr,
}

impl Place {
    fn has(&self, address: SocketAddr) -> bool {
        self.v4 == address || self.v6 == address
    }
}

/// What a host knows when it starts.
#[derive(Debug, Clone)]
pub struct HostPlan {
    /// Caller or callee.
    pub index: usize,
    /// Its interfaces, the one with the way out first.
    pub interfaces: Vec<PortId>,
    /// Its one port.
    pub port: u16,
    /// Whether it may guess ports.
    pub birthday: bool,
    /// The observers.
    pub observers: Vec<Place>,
    /// The relays.
    pub relays: Vec<Place>,
}

/// A host.
#[derive(Debug)]
pub struct Host {
    index: usize,
    start: Instant,
    agent: PathAgent,
    interfaces: Vec<PortId>,
    main_port: u16,
    /// Ports of the extra sockets that are open.
    extra: BTreeMap<u16, SocketId>,
    ports: BTreeMap<SocketId, u16>,
    sockets_opened: u16,
    observers: Vec<Place>,
    relays: Vec<Place>,
    gather: Gather,
    observations: Vec<Observation>,
    udp_gets_out: bool,
    /// When its connections to relays say something again.
    tend_due: Duration,
    /// When observers that did not answer are asked anew.
    gather_due: Option<Duration>,
    /// Whether nothing is known of the network that it is in.
    is_elsewhere: bool,
    /// Whether anything of the peer's came since the observers were asked.
    is_heard: bool,
    port_mapped: Vec<SocketAddr>,
    port_mapping_due: Option<Duration>,
    told: (Vec<Candidate>, Mapping),
    legs: Legs,
    replaced_at: [Option<Duration>; legs::LEGS],
    control: Control,
    /// Messages whose coming is to be told.
    acknowledge: Vec<u32>,
    is_answered: bool,
    asleep_until: Option<Duration>,
    agent_due: Option<Duration>,
    signals: Vec<(u32, Message)>,
    /// What it says.
    pub voice: Voice,
    /// What it hears.
    pub ear: Ear,
    /// What its agent must not do.
    pub guard: Guard,
    /// Every route, from when on.
    pub routes: Vec<(Duration, Route)>,
    /// When nothing at all came, and when something did again.
    pub silences: Vec<(Duration, bool)>,
    /// Copies of its voice beyond the first of each packet: by further ways, and those sent again.
    pub copies: Vec<Duration>,
    /// Moves that it sent.
    pub moves: u32,
    /// Legs that its agent took for dead.
    pub legs_dead: u32,
}

/// Keys of all simulated calls: what they are matters to nobody here.
fn keys() -> ProbeKeys {
    ProbeKeys::derive(&CallSecret([1; 32]), &CallId([2; 16]), &DeviceKey([3; 32]), &DeviceKey([4; 32]))
}

impl Host {
    /// A host that does nothing yet.
    #[must_use]
    pub fn new(plan: HostPlan, start: Instant, dice: &mut Dice, network: &Network) -> Self {
        let rules = AddressRules { allow_loopback: false, virtual_prefix: Some("fd5a:1b2c:3d4e::".parse().expect("a prefix")) };
        let side = if plan.index == CALLER { Side::Caller } else { Side::Callee };
        let on_link = on_link(&plan.interfaces, network);
        let config = AgentConfig { side, keys: keys(), on_link, rules, birthday: plan.birthday };
        let agent = PathAgent::new(config, dice.number(), start);
        let agent_due = agent.poll_timeout().map(|at| at.saturating_duration_since(start));
        Self {
            index: plan.index,
            start,
            agent,
            interfaces: plan.interfaces,
            main_port: plan.port,
            extra: BTreeMap::new(),
            ports: BTreeMap::from([(SocketId::MAIN, plan.port)]),
            sockets_opened: 0,
            observers: plan.observers,
            relays: plan.relays,
            gather: Gather::new(dice.branch()),
            observations: Vec::new(),
            udp_gets_out: true,
            tend_due: TENDED,
            gather_due: None,
            is_elsewhere: true,
            is_heard: false,
            port_mapped: Vec::new(),
            port_mapping_due: None,
            told: (Vec::new(), Mapping::Unknown),
            legs: Legs::new(),
            replaced_at: [None; legs::LEGS],
            control: Control::default(),
            acknowledge: Vec::new(),
            is_answered: false,
            asleep_until: None,
            agent_due,
            signals: Vec::new(),
            voice: Voice::new(),
            ear: Ear::default(),
            guard: Guard::default(),
            routes: Vec::new(),
            silences: Vec::new(),
            copies: Vec::new(),
            moves: 0,
            legs_dead: 0,
        }
    }

    /// The agent, to be asked.
    #[must_use]
    pub fn agent(&self) -> &PathAgent {
        &self.agent
    }

    /// Its interfaces.
    #[must_use]
    pub fn interfaces(&self) -> &[PortId] {
        &self.interfaces
    }

    /// Its legs.
    #[must_use]
    pub fn legs(&self) -> &Legs {
        &self.legs
    }

    /// Its one port.
    #[must_use]
    pub fn main_port(&self) -> u16 {
        self.main_port
    }

    /// The addresses that it told the peer, and what it takes its NAT for.
    #[must_use]
    pub fn told(&self) -> &(Vec<Candidate>, Mapping) {
        &self.told
    }

    /// Begins to find out its addresses and joins the first leg, as devices do while it rings.
    pub fn prepare(&mut self, now: Duration, network: &mut Network) {
        self.begin_gathering(now, network);
        self.legs.join(now, 0, 0, Carrier::Udp);
        self.run(now, network);
    }

    /// The callee answers.
    pub fn answer(&mut self, now: Duration, network: &mut Network) {
        self.control.say(now, Message::Answer);
        self.begin_call(now);
        self.run(now, network);
    }

    fn begin_call(&mut self, now: Duration) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        self.voice.begin(now);
        self.agent.start_probing(self.at(now));
        self.tell_network(now);
        self.legs.join(now, 1, 1, if self.udp_gets_out { Carrier::Udp } else { Carrier::Tcp });
    }

    /// Whether anything is to go through the supernodes.
    #[must_use]
    pub fn has_signals(&self) -> bool {
        !self.signals.is_empty()
    }

    /// What is to go through the supernodes.
    pub fn take_signals(&mut self) -> Vec<(u32, Message)> {
        std::mem::take(&mut self.signals)
    }

    /// A message came through the supernodes.
    pub fn handle_signal(&mut self, now: Duration, number: u32, message: Message, network: &mut Network) {
        if self.is_asleep() {
            return;
        }
        if self.control.is_news(number) {
            self.handle_message(now, message);
        }
        self.run(now, network);
    }

    /// It does nothing until then.
    pub fn sleep(&mut self, until: Duration) {
        self.asleep_until = Some(until);
    }

    /// Whether it sleeps.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.asleep_until.is_some()
    }

    /// Its interfaces are others now, or have other addresses.
    pub fn roam(&mut self, now: Duration, interfaces: Vec<PortId>, network: &mut Network) {
        self.interfaces = interfaces;
        self.handle_network_change(now, network);
    }

    /// It notices that its network changed, or that it slept.
    pub fn handle_network_change(&mut self, now: Duration, network: &mut Network) {
        if self.is_asleep() {
            return;
        }
        self.is_elsewhere = true;
        self.tend_due = now;
        self.agent.handle_network_change(self.at(now), on_link(&self.interfaces, network));
        for leg in 0..legs::LEGS {
            match self.legs.up(leg) {
                Some(up) if up.carrier == Carrier::Udp => self.send_move(now, leg, network),
                Some(up) => {
                    self.agent.set_leg(self.at(now), LegId(leg as u8), false);
                    self.legs.join(now, leg, up.relay, Carrier::Udp);
                }
                None => {}
            }
        }
        self.begin_gathering(now, network);
        self.run(now, network);
    }

    /// When it has something to do.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        if self.asleep_until.is_some() {
            return self.asleep_until;
        }
        let parts = [
            self.agent_due,
            self.voice.next_at(),
            self.gather.next_at(),
            self.control.next_at(),
            self.legs.next_at(),
            self.port_mapping_due,
            self.gather_due,
            Some(self.tend_due),
        ];
        parts.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration, network: &mut Network) {
        if let Some(until) = self.asleep_until {
            if now < until {
                return;
            }
            self.asleep_until = None;
            return self.handle_network_change(now, network);
        }
        if self.agent_due.is_some_and(|due| due <= now) {
            self.agent.handle_timeout(self.at(now));
            if self.agent.poll_timeout().is_some_and(|due| due <= self.at(now)) {
                self.guard.violate(format!("at {now:?} a deadline did not move on when it was handled"));
                self.agent_due = None;
                return;
            }
        }
        if let Some(number) = self.voice.poll(now) {
            let route = self.agent.route();
            self.copies.extend(route.ways().skip(1).map(|_| now));
            self.send_along(now, route, &Payload::Voice(number), network);
            self.agent.handle_sent(self.at(now), VOICE_BYTES);
        }
        self.run(now, network);
    }

    /// Takes a packet that arrived at one of its interfaces.
    pub fn receive(&mut self, now: Duration, packet: Packet, network: &mut Network) {
        if self.is_asleep() {
            return;
        }
        if packet.channel.is_some() {
            self.receive_frame(now, packet);
        } else {
            self.receive_plain(now, packet);
        }
        self.run(now, network);
    }

    fn receive_frame(&mut self, now: Duration, packet: Packet) {
        let relay = self.relays.iter().position(|relay| relay.has(packet.from));
        let Some((relay, channel)) = relay.zip(packet.channel) else { return };
        if packet.to.port() != self.main_port {
            return;
        }
        let Some((leg, is_new)) = self.legs.handle_frame(relay, channel) else { return };
        if matches!(packet.payload, Payload::Reset) {
            self.agent.set_leg(self.at(now), LegId(leg as u8), false);
            self.legs.join(now, leg, relay, packet.carrier);
            return;
        }
        let leg = LegId(leg as u8);
        if is_new {
            tracing::debug!(?leg, relay, "paired");
            self.agent.set_leg(self.at(now), leg, true);
        }
        self.receive_call(now, Way::Leg(leg), packet.sender, packet.payload);
    }

    fn receive_plain(&mut self, now: Duration, packet: Packet) {
        match packet.payload {
            Payload::Observed { nonce, seen } => self.gather.handle_answer(nonce, packet.from, seen),
            Payload::Joined { rounds_left, channel, is_paired } => {
                let Some(relay) = self.relays.iter().position(|relay| relay.has(packet.from)) else { return };
                if let Some(leg) = self.legs.handle_joined(now, relay, packet.carrier, rounds_left, channel, is_paired) {
                    tracing::debug!(leg, relay, carrier = ?packet.carrier, "joined");
                    self.agent.set_leg(self.at(now), LegId(leg as u8), true);
                }
            }
            _ => {
                let known =
                    if packet.to.port() == self.main_port { Some(SocketId::MAIN) } else { self.extra.get(&packet.to.port()).copied() };
                let Some(socket) = known else { return };
                self.receive_call(now, Way::Direct { socket, remote: packet.from }, packet.sender, packet.payload);
            }
        }
    }

    fn receive_call(&mut self, now: Duration, way: Way, sender: Option<usize>, payload: Payload) {
        let at = self.at(now);
        if let Payload::Probe(bytes) = &payload {
            let taken = self.agent.handle_datagram(at, way, bytes);
            tracing::trace!(?way, kind = ?ahoy_protocol::datagram::classify(bytes), ?taken, "gets");
            let is_taken = taken.is_ok();
            self.is_heard |= is_taken;
            if let (true, Way::Direct { remote, .. }) = (is_taken, way) {
                self.guard.vouch(remote);
            }
            return;
        }
        let is_accepted = match way {
            Way::Leg(_) => true,
            Way::Direct { socket, remote } => self.agent.is_peer_address(socket, remote),
        };
        if !is_accepted || !payload.is_of_the_call() {
            return;
        }
        // Who told the agent does not know yet whether QUIC will make sense of the packet.
        self.agent.handle_traffic(at, way);
        if sender == Some(self.index) {
            return;
        }
        match payload {
            Payload::Voice(number) => {
                self.ear.hear(now, number);
            }
            Payload::Message { number, message } => {
                if self.control.is_news(number) {
                    self.handle_message(now, message);
                }
                self.acknowledge.push(number);
            }
            Payload::Received { number } => self.control.handle_received(number),
            _ => {}
        }
    }

    fn handle_message(&mut self, now: Duration, message: Message) {
        match message {
            Message::Answer => self.begin_call(now),
            Message::Network { candidates, mapping } => {
                tracing::debug!(?candidates, ?mapping, "the peer's addresses");
                self.guard.name(&candidates);
                self.agent.set_peer_mapping(self.at(now), mapping);
                self.agent.add_remote(self.at(now), &candidates);
            }
            Message::JoinLeg { leg, relay } => self.join_leg(now, leg, relay),
            Message::LegGone { leg } => self.replace_leg(now, leg),
        }
    }

    fn begin_gathering(&mut self, now: Duration, network: &Network) {
        let (has_v4, has_v6) = self.families(network);
        let v4 = self.observers.iter().map(|place| place.v4).filter(|_| has_v4);
        let v6 = self.observers.iter().map(|place| place.v6).filter(|_| has_v6);
        self.gather.begin(now, v4.chain(v6).collect());
        self.gather_due = None;
        self.is_heard = false;
        self.port_mapping_due = Some(now + PORT_MAPPING_TAKES);
    }

    fn families(&self, network: &Network) -> (bool, bool) {
        let ports =
            || self.interfaces.iter().map(|port| network.topology.port(*port)).filter(|port| !network.topology.is_vpn(port.segment));
        (ports().any(|port| port.v4.is_some()), ports().any(|port| port.v6.is_some()))
    }

    /// Its own addresses.
    fn hosts(&self, network: &Network) -> Vec<Candidate> {
        let mut hosts = Vec::new();
        for port in &self.interfaces {
            let port = network.topology.port(*port);
            let kind = if network.topology.is_vpn(port.segment) { CandidateKind::VpnHost } else { CandidateKind::Host };
            let ips = port.v4.map(IpAddr::from).into_iter().chain(port.v6.map(|(ip, _)| IpAddr::from(ip)));
            hosts.extend(ips.map(|ip| Candidate { address: SocketAddr::new(ip, self.main_port), kind }));
        }
        hosts
    }

    fn conclude(&mut self, now: Duration, observations: Vec<Observation>, ending: gather::Ending, network: &Network) {
        if let gather::Ending::Incomplete(pause) = ending {
            self.gather_due = Some(now + pause);
        }
        if !observations.is_empty() {
            self.udp_gets_out = true;
            self.is_elsewhere = false;
            self.observations = observations;
            return self.assess(now, network);
        }
        if ending == gather::Ending::Open {
            return;
        }
        // Who is offline learns nothing about itself by that; who is in another network knows nothing of it yet.
        self.udp_gets_out = false;
        if std::mem::take(&mut self.is_elsewhere) {
            self.observations.clear();
            self.assess(now, network);
        }
        for leg in 0..legs::LEGS {
            // A move got no answer either: the leg is lost, and TCP may get out.
            if let Some(up) = self.legs.up(leg).filter(|up| up.carrier == Carrier::Udp && !self.is_heard) {
                self.agent.set_leg(self.at(now), LegId(leg as u8), false);
                self.legs.join(now, leg, up.relay, Carrier::Tcp);
            }
        }
    }

    fn assess(&mut self, now: Duration, network: &Network) {
        let assessment = assess(&self.hosts(network), &self.observations, &self.port_mapped);
        let found = (assessment.candidates, assessment.mapping);
        if found == self.told {
            return;
        }
        tracing::debug!(?found, "addresses");
        self.agent.set_own_mapping(self.at(now), found.1);
        self.told = found;
        if self.is_answered {
            self.tell_network(now);
        }
    }

    fn tell_network(&mut self, now: Duration) {
        let (candidates, mapping) = self.told.clone();
        self.control.say(now, Message::Network { candidates, mapping });
    }

    fn ask_for_ports(&mut self, now: Duration, network: &mut Network) {
        self.port_mapping_due = None;
        let mut mapped = Vec::new();
        for host in self.hosts(network).into_iter().filter(|host| host.kind == CandidateKind::Host) {
            let Some(port) = self.interface_for(host.address.ip(), network) else { continue };
            let Some(router) = network.topology.gateway(network.topology.port(port).segment) else { continue };
            if network.topology.port(port).up.is_up() {
                mapped.extend(network.topology.map_port(router, host.address));
                self.port_mapping_due = Some(now + PORT_MAPPING_RENEWED);
            }
        }
        self.port_mapped = mapped;
        if !self.gather.is_busy() {
            self.assess(now, network);
        }
    }

    fn send_move(&mut self, now: Duration, leg: usize, network: &mut Network) {
        let Some(up) = self.legs.up(leg).filter(|up| up.carrier == Carrier::Udp) else { return };
        tracing::debug!(leg, "move");
        self.moves += 1;
        self.send_to_relay(
            now,
            up.relay,
            Carrier::Udp,
            None,
            Payload::Move { channel: up.channel, counter: u64::from(self.moves) },
            network,
        );
    }

    fn handle_leg_dead(&mut self, now: Duration, leg: usize) {
        tracing::debug!(leg, "leg dead");
        self.legs_dead += 1;
        if self.legs.up(leg).is_none() {
            return;
        }
        if self.index == CALLEE {
            self.replace_leg(now, leg);
        } else {
            self.control.say(now, Message::LegGone { leg });
        }
    }

    /// The callee chooses another relay for a leg: one that neither leg is at, if there is one.
    fn replace_leg(&mut self, now: Duration, leg: usize) {
        if self.index != CALLEE || self.replaced_at[leg].is_some_and(|at| now - at < REPLACED_PAUSE) {
            return;
        }
        let taken: Vec<RelayId> = (0..legs::LEGS).filter_map(|leg| self.legs.relay(leg)).collect();
        let other = self.legs.relay(1 - leg);
        let after = self.legs.relay(leg).map_or(0, |relay| relay + 1);
        let relays = self.relays.len();
        let mut choices = (0..relays).map(|nth| (after + nth) % relays);
        let relay = choices.clone().find(|relay| !taken.contains(relay)).or_else(|| choices.find(|relay| Some(*relay) != other));
        let Some(relay) = relay else { return };
        self.replaced_at[leg] = Some(now);
        self.control.say(now, Message::JoinLeg { leg, relay });
        self.join_leg(now, leg, relay);
    }

    fn join_leg(&mut self, now: Duration, leg: usize, relay: RelayId) {
        if leg >= legs::LEGS || relay >= self.relays.len() {
            return;
        }
        tracing::debug!(leg, relay, "joining");
        if self.legs.up(leg).is_some() {
            self.agent.set_leg(self.at(now), LegId(leg as u8), false);
        }
        self.legs.join(now, leg, relay, if self.udp_gets_out { Carrier::Udp } else { Carrier::Tcp });
    }

    /// Carries out all that is to be done, until there is nothing left.
    fn run(&mut self, now: Duration, network: &mut Network) {
        self.run_parts(now, network);
        for number in std::mem::take(&mut self.acknowledge) {
            let route = self.agent.route();
            self.send_along(now, route, &Payload::Received { number }, network);
        }
        self.flush(now, network);
        while let Some((number, message)) = self.control.poll(now) {
            let route = self.agent.route();
            self.send_along(now, route, &Payload::Message { number, message }, network);
        }
        while let Some(signal) = self.control.poll_signal(now) {
            self.signals.push(signal);
        }
        self.run_parts(now, network);
        self.flush(now, network);
        self.agent_due = self.agent.poll_timeout().map(|at| at.saturating_duration_since(self.start).max(now));
    }

    fn run_parts(&mut self, now: Duration, network: &mut Network) {
        if self.tend_due <= now {
            self.tend_due = now + TENDED;
            for up in (0..legs::LEGS).filter_map(|leg| self.legs.up(leg)) {
                self.send_to_relay(now, up.relay, up.carrier, None, Payload::Tend { channel: up.channel }, network);
            }
        }
        if self.port_mapping_due.is_some_and(|due| due <= now) {
            self.ask_for_ports(now, network);
        }
        if self.gather_due.is_some_and(|due| due <= now) {
            self.begin_gathering(now, network);
        }
        while let Some(step) = self.gather.poll(now) {
            match step {
                gather::Step::Ask(observers, nonce) => {
                    observers
                        .into_iter()
                        .for_each(|to| self.send(now, self.main_port, to, Carrier::Udp, None, Payload::Observe { nonce }, network));
                }
                gather::Step::Conclude(observations, ending) => self.conclude(now, observations, ending, network),
            }
        }
        while let Some((leg, step)) = self.legs.poll(now, self.udp_gets_out) {
            match step {
                legs::Step::Request(joining) => {
                    let join = Payload::Join { side: self.index, rounds_left: joining.rounds_left };
                    self.send_to_relay(now, joining.relay, joining.carrier, None, join, network);
                }
                legs::Step::GiveUp(_) if self.index == CALLEE => self.replace_leg(now, leg),
                legs::Step::GiveUp(_) => self.control.say(now, Message::LegGone { leg }),
            }
        }
    }

    fn flush(&mut self, now: Duration, network: &mut Network) {
        loop {
            while let Some(transmit) = self.agent.poll_transmit() {
                tracing::trace!(way = ?transmit.way, kind = ?ahoy_protocol::datagram::classify(&transmit.bytes), "sends");
                self.guard.check_transmit(now, &transmit);
                self.send_by(now, transmit.way, Payload::Probe(transmit.bytes), network);
            }
            let Some(event) = self.agent.poll_event() else { return };
            self.handle_event(now, event, network);
        }
    }

    fn handle_event(&mut self, now: Duration, event: Event, network: &mut Network) {
        match event {
            Event::RouteChanged(route) => {
                tracing::debug!(?route, "route");
                self.guard.check_route(now, route, self.legs.paired());
                if route != self.agent.route() {
                    self.guard.violate(format!("at {now:?} the route told is not the route"));
                }
                let was_direct = self.routes.last().is_some_and(|(_, last)| last.ways().any(|way| way.is_direct()));
                if was_direct && route.is_relayed() && !self.gather.is_busy() {
                    // Why the path died is not known; the router may have forgotten everything.
                    self.gather_due = Some(now);
                }
                self.routes.push((now, route));
            }
            Event::Replay => {
                let legs = Route::new(self.agent.route().ways().filter(|way| !way.is_direct()));
                let recent: Vec<u32> = self.voice.recent().collect();
                self.copies.extend(recent.iter().flat_map(|_| legs.ways().map(|_| now)));
                recent.into_iter().for_each(|number| self.send_along(now, legs, &Payload::Voice(number), network));
            }
            Event::LegSilent(leg) => {
                self.send_move(now, usize::from(leg.0), network);
                if !self.gather.is_busy() {
                    self.begin_gathering(now, network);
                    self.run_parts(now, network);
                }
            }
            Event::LegDead(leg) => self.handle_leg_dead(now, usize::from(leg.0)),
            Event::OpenSockets { count } => self.open_sockets(now, count),
            Event::CloseSocket(socket) => {
                if let Some(port) = self.ports.remove(&socket) {
                    self.extra.remove(&port);
                }
            }
            Event::Silence(is_silent) => {
                tracing::debug!(is_silent, "silence");
                if !is_silent {
                    self.gather_due = Some(now);
                }
                self.silences.push((now, is_silent));
            }
        }
    }

    fn open_sockets(&mut self, now: Duration, count: u16) {
        if count > SOCKETS_MAX {
            self.guard.violate(format!("at {now:?} {count} sockets were asked for"));
        }
        let opened: Vec<SocketId> = (0..count.min(SOCKETS_MAX)).map(|_| self.open_socket()).collect();
        self.agent.sockets_opened(self.at(now), &opened);
    }

    fn open_socket(&mut self) -> SocketId {
        self.sockets_opened = self.sockets_opened.wrapping_add(1).max(1);
        let socket = SocketId(self.sockets_opened);
        let port = EXTRA_PORTS + self.sockets_opened % 20_000;
        self.extra.insert(port, socket);
        self.ports.insert(socket, port);
        socket
    }

    fn send_along(&mut self, now: Duration, route: Route, payload: &Payload, network: &mut Network) {
        for way in route.ways() {
            self.send_by(now, way, payload.clone(), network);
        }
    }

    fn send_by(&self, now: Duration, way: Way, payload: Payload, network: &mut Network) {
        match way {
            Way::Leg(leg) => {
                let Some(up) = self.legs.up(usize::from(leg.0)) else { return };
                self.send_to_relay(now, up.relay, up.carrier, Some(up.channel), payload, network);
            }
            Way::Direct { socket, remote } => {
                let Some(port) = self.ports.get(&socket) else { return };
                self.send(now, *port, remote, Carrier::Udp, None, payload, network);
            }
        }
    }

    fn send_to_relay(
        &self,
        now: Duration,
        relay: RelayId,
        carrier: Carrier,
        channel: Option<u32>,
        payload: Payload,
        network: &mut Network,
    ) {
        let (has_v4, _) = self.families(network);
        let place = self.relays[relay];
        let to = if has_v4 { place.v4 } else { place.v6 };
        self.send(now, self.main_port, to, carrier, channel, payload, network);
    }

    #[allow(clippy::too_many_arguments, reason = "a packet has so many parts")]
    fn send(
        &self,
        now: Duration,
        port: u16,
        to: SocketAddr,
        carrier: Carrier,
        channel: Option<u32>,
        payload: Payload,
        network: &mut Network,
    ) {
        let Some(interface) = self.interface_for(to.ip(), network) else { return };
        let own = network.topology.port(interface);
        let ip = if to.is_ipv4() { own.v4.map(IpAddr::from) } else { own.v6.map(|(ip, _)| IpAddr::from(ip)) };
        let Some(ip) = ip else { return };
        let packet = Packet { from: SocketAddr::new(ip, port), to, carrier, channel, sender: Some(self.index), payload };
        if to.ip() == ip { network.loop_back(now, interface, packet) } else { network.send(now, interface, packet) }
    }

    /// The interface by which the system sends to an address: the one whose network it is in, else the first with its family.
    fn interface_for(&self, ip: IpAddr, network: &Network) -> Option<PortId> {
        let near = self.interfaces.iter().find(|port| subnets(**port, network).any(|subnet| subnet.contains(ip)));
        let has_family = |port: &&PortId| {
            let port = network.topology.port(**port);
            if ip.is_ipv4() { port.v4.is_some() } else { port.v6.is_some() }
        };
        near.or_else(|| self.interfaces.iter().find(has_family)).copied()
    }

    fn at(&self, now: Duration) -> Instant {
        self.start + now
    }
}

/// The address ranges at an interface.
fn subnets(port: PortId, network: &Network) -> impl Iterator<Item = Subnet> {
    let port = network.topology.port(port);
    let is_core = port.segment == crate::topology::CORE;
    let v4 = port.v4.map(|ip| Subnet::new(ip.into(), if is_core { 32 } else { 24 }));
    let v6 = port.v6.map(|(ip, _)| Subnet::new(ip.into(), if is_core { 128 } else { 64 }));
    v4.into_iter().chain(v6)
}

fn on_link(interfaces: &[PortId], network: &Network) -> Vec<Subnet> {
    let own = interfaces.iter().filter(|port| !network.topology.is_vpn(network.topology.port(**port).segment));
    own.flat_map(|port| subnets(*port, network)).collect()
}
