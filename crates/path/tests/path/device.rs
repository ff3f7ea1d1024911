//! One side of a call: a path agent and the socket around it, which sends and receives numbered voice packets.

use crate::network::{Arrival, Network, Payload};
use ahoy_path::{Event, LegId, PathAgent, REPLAY_PACKETS_MAX, Route, SocketId, Way};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Voice packets come this often.
pub(crate) const FRAME: Duration = Duration::from_millis(20);

/// One side of a call.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) host: usize,
    pub(crate) agent: PathAgent,
    /// Whether it sends voice.
    pub(crate) is_talking: bool,
    next_frame: Instant,
    sent: Vec<Instant>,
    last_sent: VecDeque<u64>,
    received: BTreeSet<u64>,
    /// When a voice packet came that had not come before.
    arrivals: Vec<Instant>,
    /// Every route, from when on.
    pub(crate) routes: Vec<(Instant, Route)>,
    /// When a probe was sent.
    pub(crate) probes: Vec<Instant>,
    pub(crate) replays: usize,
    /// What the owner was told that concerns no route.
    pub(crate) told: Vec<(Instant, Event)>,
    /// Extra sockets that it has open.
    pub(crate) sockets: BTreeSet<SocketId>,
    last_socket: u16,
    /// Every probe that arrived, for those who record them.
    pub(crate) heard: Vec<Arrival>,
}

impl Device {
    pub(crate) fn new(host: usize, agent: PathAgent, first_frame: Instant) -> Self {
        Self {
            host,
            agent,
            is_talking: true,
            next_frame: first_frame,
            sent: Vec::new(),
            last_sent: VecDeque::new(),
            received: BTreeSet::new(),
            arrivals: Vec::new(),
            routes: Vec::new(),
            probes: Vec::new(),
            replays: 0,
            told: Vec::new(),
            sockets: BTreeSet::new(),
            last_socket: 0,
            heard: Vec::new(),
        }
    }

    /// When it has something to do.
    pub(crate) fn next_at(&self) -> Instant {
        self.agent.poll_timeout().map_or(self.next_frame, |timeout| timeout.min(self.next_frame))
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, network: &mut Network) {
        if self.agent.poll_timeout().is_some_and(|at| at <= now) {
            self.agent.handle_timeout(now);
            assert!(self.agent.poll_timeout().is_none_or(|at| at > now), "a deadline must move on when it is handled");
            self.flush(now, network);
        }
        if self.next_frame <= now {
            self.next_frame += FRAME;
            if self.is_talking {
                self.send_voice(now, network);
            }
        }
    }

    fn send_voice(&mut self, now: Instant, network: &mut Network) {
        let number = self.sent.len() as u64;
        self.sent.push(now);
        self.last_sent.push_back(number);
        if self.last_sent.len() > REPLAY_PACKETS_MAX {
            self.last_sent.pop_front();
        }
        let voice = Payload::Voice(number);
        self.agent.route().ways().for_each(|way| network.send(now, self.host, way, voice.clone()));
        self.agent.handle_sent(now, 128);
        self.flush(now, network);
    }

    pub(crate) fn receive(&mut self, now: Instant, arrival: Arrival, network: &mut Network) {
        if let Way::Direct { socket, .. } = arrival.way
            && socket != SocketId::MAIN
            && !self.sockets.contains(&socket)
        {
            return;
        }
        match &arrival.payload {
            Payload::Probe(bytes) => {
                let _ = self.agent.handle_datagram(now, arrival.way, bytes);
                if arrival.way.is_direct() {
                    self.heard.push(arrival);
                }
            }
            Payload::Voice(number) => {
                let is_accepted = match arrival.way {
                    Way::Leg(_) => true,
                    Way::Direct { socket, remote } => self.agent.is_peer_address(socket, remote),
                };
                if is_accepted {
                    self.agent.handle_traffic(now, arrival.way);
                    if self.received.insert(*number) {
                        self.arrivals.push(now);
                    }
                }
            }
        }
        self.flush(now, network);
    }

    /// Carries out what the agent wants.
    pub(crate) fn flush(&mut self, now: Instant, network: &mut Network) {
        while let Some(event) = self.agent.poll_event() {
            self.carry_out(now, event, network);
        }
        while let Some(transmit) = self.agent.poll_transmit() {
            if transmit.way.is_direct() {
                self.probes.push(now);
            }
            network.send(now, self.host, transmit.way, Payload::Probe(transmit.bytes));
        }
    }

    fn carry_out(&mut self, now: Instant, event: Event, network: &mut Network) {
        match event {
            Event::RouteChanged(route) => {
                assert_eq!(route, self.agent.route());
                self.routes.push((now, route));
                return;
            }
            Event::Replay => {
                self.replays += 1;
                for way in self.agent.route().ways().filter(|way| !way.is_direct()) {
                    self.last_sent.iter().for_each(|number| network.send(now, self.host, way, Payload::Voice(*number)));
                }
                return;
            }
            Event::LegSilent(leg) => network.send_move(self.host, leg),
            Event::OpenSockets { count } => {
                let opened: Vec<SocketId> = (self.last_socket + 1..=self.last_socket + count).map(SocketId).collect();
                self.last_socket += count;
                self.sockets.extend(&opened);
                self.agent.sockets_opened(now, &opened);
            }
            Event::CloseSocket(socket) => assert!(self.sockets.remove(&socket), "{socket:?} was not open"),
            Event::LegDead(_) | Event::Silence(_) => {}
        }
        self.told.push((now, event));
    }

    /// When it was told that a leg is dead.
    pub(crate) fn told_dead(&self, leg: LegId) -> Vec<Instant> {
        self.told.iter().filter(|(_, event)| *event == Event::LegDead(leg)).map(|(at, _)| *at).collect()
    }

    /// Numbers of the voice packets that `sender` sent between two times and that never came here.
    pub(crate) fn missing(&self, sender: &Self, from: Instant, until: Instant) -> Vec<u64> {
        let numbers = (0u64..).zip(&sender.sent).filter(|(_, at)| (from..until).contains(*at)).map(|(number, _)| number);
        numbers.filter(|number| !self.received.contains(number)).collect()
    }

    /// The longest time without a voice packet, between two times.
    pub(crate) fn longest_gap(&self, from: Instant, until: Instant) -> Duration {
        let within = self.arrivals.iter().copied().filter(|at| (from..until).contains(at));
        let times: Vec<Instant> = std::iter::once(from).chain(within).chain([until]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Routes taken between two times.
    pub(crate) fn route_changes(&self, from: Instant, until: Instant) -> usize {
        self.routes.iter().filter(|(at, _)| (from..until).contains(at)).count()
    }
}
