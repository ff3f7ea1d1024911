//! Whatever comes in, in whatever order: no panic, a bounded output, deadlines that move on.

use crate::call::agent;
use ahoy_path::{Event, LegId, PathAgent, Route, SOCKETS_MAX, SocketId, Subnet, TRANSMITS_PER_SECOND_MAX, Way};
use ahoy_protocol::datagram::Side;
use ahoy_protocol::peer::{Candidate, CandidateKind, Mapping};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Anything that may happen to an agent.
#[derive(Debug, Clone)]
enum Input {
    Wait(u64),
    Timeout,
    Bytes(Way, Vec<u8>),
    /// The peer's agent makes a probe, and it comes this way.
    PeerSpeaks(Way),
    /// The last probe of the peer's again.
    PeerRepeats(Way),
    Traffic(Way),
    Sent,
    Leg(LegId, bool),
    Candidates(Vec<SocketAddr>),
    OwnMapping(Mapping),
    PeerMapping(Mapping),
    NetworkChange,
    /// The owner opens so many of the sockets that it was asked for.
    Opens(u16),
    Start,
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let few = (0u8..4, 1u16..4).prop_map(|(host, port)| SocketAddr::from(([10, 9, 0, host], port)));
    let v4 = (any::<u32>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(ip)), port));
    let v6 = (any::<u128>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(ip)), port));
    prop_oneof![8 => few, 1 => v4, 1 => v6]
}

fn ways() -> impl Strategy<Value = Way> {
    let sockets = prop_oneof![6 => Just(0), 1 => 0u16..300].prop_map(SocketId);
    let direct = (sockets, addresses()).prop_map(|(socket, remote)| Way::Direct { socket, remote });
    prop_oneof![3 => direct, 1 => legs().prop_map(Way::Leg)]
}

fn legs() -> impl Strategy<Value = LegId> {
    prop_oneof![8 => (0u8..2).prop_map(LegId), 1 => any::<u8>().prop_map(LegId)]
}

fn mappings() -> impl Strategy<Value = Mapping> {
    prop_oneof![Just(Mapping::Unknown), Just(Mapping::Open), Just(Mapping::EndpointIndependent), Just(Mapping::EndpointDependent)]
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => (0u64..400).prop_map(Input::Wait),
        1 => (0u64..100_000).prop_map(Input::Wait),
        2 => Just(Input::Timeout),
        2 => (ways(), proptest::collection::vec(any::<u8>(), 0..80)).prop_map(|(way, bytes)| Input::Bytes(way, bytes)),
        8 => ways().prop_map(Input::PeerSpeaks),
        1 => ways().prop_map(Input::PeerRepeats),
        10 => ways().prop_map(Input::Traffic),
        2 => Just(Input::Sent),
        2 => (legs(), any::<bool>()).prop_map(|(leg, up)| Input::Leg(leg, up)),
        1 => proptest::collection::vec(addresses(), 0..40).prop_map(Input::Candidates),
        1 => mappings().prop_map(Input::OwnMapping),
        1 => mappings().prop_map(Input::PeerMapping),
        1 => Just(Input::NetworkChange),
        1 => (0u16..300).prop_map(Input::Opens),
        1 => Just(Input::Start),
    ]
}

struct Bench {
    start: Instant,
    now: Instant,
    mine: PathAgent,
    peer: PathAgent,
    last_of_peer: Vec<u8>,
    sent_at: Vec<Instant>,
    told: Route,
    legs: BTreeSet<LegId>,
    sockets: BTreeSet<SocketId>,
    next_socket: u16,
    asked: u16,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut peer = agent(Side::Callee, seed, now);
        peer.start_probing(now);
        (0..2).for_each(|leg| peer.set_leg(now, LegId(leg), true));
        Self {
            start: now,
            now,
            mine: agent(Side::Caller, seed, now),
            peer,
            last_of_peer: Vec::new(),
            sent_at: Vec::new(),
            told: Route::default(),
            legs: BTreeSet::new(),
            sockets: BTreeSet::new(),
            next_socket: 1,
            asked: 0,
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.now;
        match input {
            Input::Wait(ms) => self.now += Duration::from_millis(ms),
            Input::Timeout => self.mine.handle_timeout(now),
            Input::Bytes(way, bytes) => {
                let _ = self.mine.handle_datagram(now, way, &bytes);
            }
            Input::PeerSpeaks(way) => self.peer_speaks(way),
            Input::PeerRepeats(way) => {
                let _ = self.mine.handle_datagram(now, way, &self.last_of_peer);
            }
            Input::Traffic(way) => self.mine.handle_traffic(now, way),
            Input::Sent => self.mine.handle_sent(now, 128),
            Input::Leg(leg, up) => {
                self.mine.set_leg(now, leg, up);
                if up && leg.0 < 2 {
                    self.legs.insert(leg)
                } else {
                    self.legs.remove(&leg)
                };
            }
            Input::Candidates(addresses) => {
                let candidates: Vec<Candidate> =
                    addresses.into_iter().map(|address| Candidate { address, kind: CandidateKind::PeerReflexive }).collect();
                self.mine.add_remote(now, &candidates);
            }
            Input::OwnMapping(mapping) => self.mine.set_own_mapping(now, mapping),
            Input::PeerMapping(mapping) => self.mine.set_peer_mapping(now, mapping),
            Input::NetworkChange => self.mine.handle_network_change(now, vec![Subnet::new("10.9.0.0".parse().expect("ip"), 16)]),
            Input::Opens(most) => self.open_sockets(most),
            Input::Start => self.mine.start_probing(now),
        }
        self.drain();
    }

    fn open_sockets(&mut self, most: u16) {
        let count = std::mem::take(&mut self.asked).min(most);
        let opened: Vec<SocketId> = (self.next_socket..self.next_socket + count).map(SocketId).collect();
        self.next_socket += count;
        self.sockets.extend(&opened);
        self.mine.sockets_opened(self.now, &opened);
    }

    fn peer_speaks(&mut self, way: Way) {
        if let Way::Direct { remote, .. } = way {
            self.peer.add_remote(self.now, &[Candidate { address: remote, kind: CandidateKind::Host }]);
        }
        self.peer.handle_timeout(self.now);
        if let Some(transmit) = self.peer.poll_transmit() {
            let _ = self.mine.handle_datagram(self.now, way, &transmit.bytes);
            self.last_of_peer = transmit.bytes;
        }
    }

    fn drain(&mut self) {
        let mut events = 0;
        while let Some(event) = self.mine.poll_event() {
            events += 1;
            assert!(events <= 32 + usize::from(SOCKETS_MAX) + 2, "events without end");
            self.heed(event);
        }
        while let Some(transmit) = self.mine.poll_transmit() {
            self.sent_at.push(self.now);
            // What reaches the peer is answered, from the address that it was sent to.
            let _ = self.peer.handle_datagram(self.now, transmit.way, &transmit.bytes);
        }
    }

    fn heed(&mut self, event: Event) {
        match event {
            Event::RouteChanged(route) => {
                assert_ne!(route, self.told);
                assert_eq!(route, self.mine.route());
                self.told = route;
            }
            Event::Replay => assert!(!self.legs.is_empty()),
            Event::LegSilent(leg) | Event::LegDead(leg) => assert!(leg.0 < 2),
            Event::OpenSockets { count } => {
                assert!((1..=SOCKETS_MAX).contains(&count));
                self.asked = count;
            }
            Event::CloseSocket(socket) => assert!(self.sockets.remove(&socket), "{socket:?} is not open"),
            Event::Silence(_) => {}
        }
    }

    fn check(&mut self) {
        self.mine.handle_timeout(self.now);
        self.drain();
        assert!(self.mine.poll_timeout().is_none_or(|at| at > self.now), "a deadline must move on when it is handled");
        let before = format!("{:?}", self.mine);
        self.mine.handle_timeout(self.now);
        assert_eq!(format!("{:?}", self.mine), before, "a second time-out does nothing");
        for way in self.mine.route().ways() {
            match way {
                Way::Leg(leg) => assert!(self.legs.contains(&leg)),
                Way::Direct { socket, remote } => {
                    assert!(self.mine.is_peer_address(socket, remote));
                    assert!(socket == SocketId::MAIN || self.sockets.contains(&socket));
                }
            }
        }
        if !self.mine.route().is_empty() {
            assert!(self.mine.selected().is_some());
        }
        assert!(self.sockets.len() <= usize::from(SOCKETS_MAX) + 4);
    }

    fn check_rate(&self) {
        let mut from = 0;
        for (until, at) in self.sent_at.iter().enumerate() {
            while *at - self.sent_at[from] >= Duration::from_secs(1) {
                from += 1;
            }
            assert!(until + 1 - from <= TRANSMITS_PER_SECOND_MAX, "{} probes in a second, {:?} in", until + 1 - from, *at - self.start);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_input_makes_an_agent_panic_flood_or_spin(seed in any::<u64>(), inputs in proptest::collection::vec(inputs(), 1..200)) {
        let mut bench = Bench::new(seed);
        for input in inputs {
            bench.take(input);
            bench.check();
        }
        bench.check_rate();
    }
}
