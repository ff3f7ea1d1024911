//! Whatever comes in, in whatever order: no panic, a bounded output, deadlines that move on.

use crate::call::agent;
use ahoy_path::{Event, PathAgent, Route, TRANSMITS_PER_SECOND_MAX, Via};
use ahoy_protocol::datagram::Side;
use ahoy_protocol::peer::{Candidate, CandidateKind};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Anything that may happen to an agent.
#[derive(Debug, Clone)]
enum Input {
    Wait(u64),
    Timeout,
    Bytes(SocketAddr, Vec<u8>),
    /// The peer's agent gets its next probe from this one and answers.
    PeerSpeaks(SocketAddr),
    /// The last probe of the peer's again.
    PeerRepeats(SocketAddr),
    Relayed,
    Direct(SocketAddr),
    Sent,
    Relay(bool),
    Candidates(Vec<SocketAddr>),
    Start,
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let few = (0u8..4, 1u16..4).prop_map(|(host, port)| SocketAddr::from(([10, 9, 0, host], port)));
    let v4 = (any::<u32>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(ip)), port));
    let v6 = (any::<u128>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(ip)), port));
    prop_oneof![8 => few, 1 => v4, 1 => v6]
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => (0u64..400).prop_map(Input::Wait),
        1 => (0u64..100_000).prop_map(Input::Wait),
        2 => Just(Input::Timeout),
        2 => (addresses(), proptest::collection::vec(any::<u8>(), 0..80)).prop_map(|(from, bytes)| Input::Bytes(from, bytes)),
        8 => addresses().prop_map(Input::PeerSpeaks),
        1 => addresses().prop_map(Input::PeerRepeats),
        4 => Just(Input::Relayed),
        6 => addresses().prop_map(Input::Direct),
        2 => Just(Input::Sent),
        1 => any::<bool>().prop_map(Input::Relay),
        1 => proptest::collection::vec(addresses(), 0..40).prop_map(Input::Candidates),
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
}

impl Bench {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut peer = agent(Side::Callee, seed, now);
        peer.start_probing(now);
        let mine = agent(Side::Caller, seed, now);
        Self { start: now, now, mine, peer, last_of_peer: Vec::new(), sent_at: Vec::new(), told: Route::None }
    }

    fn take(&mut self, input: Input) {
        let now = self.now;
        match input {
            Input::Wait(ms) => self.now += Duration::from_millis(ms),
            Input::Timeout => self.mine.handle_timeout(now),
            Input::Bytes(from, bytes) => {
                let _ = self.mine.handle_datagram(now, from, &bytes);
            }
            Input::PeerSpeaks(from) => self.peer_speaks(from),
            Input::PeerRepeats(from) => {
                let _ = self.mine.handle_datagram(now, from, &self.last_of_peer);
            }
            Input::Relayed => self.mine.handle_traffic(now, Via::Relay),
            Input::Direct(from) => self.mine.handle_traffic(now, Via::Direct(from)),
            Input::Sent => self.mine.handle_sent(now),
            Input::Relay(available) => self.mine.set_relay(now, available),
            Input::Candidates(addresses) => {
                let candidates: Vec<Candidate> =
                    addresses.into_iter().map(|address| Candidate { address, kind: CandidateKind::PeerReflexive }).collect();
                self.mine.add_remote(now, &candidates);
            }
            Input::Start => self.mine.start_probing(now),
        }
        self.drain();
    }

    fn peer_speaks(&mut self, from: SocketAddr) {
        self.peer.add_remote(self.now, &[Candidate { address: from, kind: CandidateKind::Host }]);
        self.peer.handle_timeout(self.now);
        if let Some(transmit) = self.peer.poll_transmit() {
            let _ = self.mine.handle_datagram(self.now, from, &transmit.bytes);
            self.last_of_peer = transmit.bytes;
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.mine.poll_transmit() {
            self.sent_at.push(self.now);
            // What reaches the peer is answered, from the address that it was sent to.
            let _ = self.peer.handle_datagram(self.now, transmit.to, &transmit.bytes);
        }
        for _ in 0..2 {
            match self.mine.poll_event() {
                Some(Event::RouteChanged(route)) => {
                    assert_ne!(route, self.told);
                    assert_eq!(route, self.mine.route());
                    self.told = route;
                }
                Some(Event::Replay) => assert!(self.mine.relay_available()),
                None => {}
            }
        }
        assert_eq!(self.mine.poll_event(), None, "at most two events follow an input");
    }

    fn check(&mut self) {
        self.mine.handle_timeout(self.now);
        self.drain();
        assert!(self.mine.poll_timeout().is_none_or(|at| at > self.now), "a deadline must move on when it is handled");
        let before = format!("{:?}", self.mine);
        self.mine.handle_timeout(self.now);
        assert_eq!(format!("{:?}", self.mine), before, "a second time-out does nothing");
        match self.mine.route() {
            Route::None => assert!(!self.mine.relay_available()),
            Route::Relay => assert!(self.mine.relay_available()),
            Route::Both(to) => assert!(self.mine.relay_available() && self.mine.is_peer_address(to)),
            Route::Direct(to) => {
                assert!(self.mine.is_peer_address(to) && self.mine.selected().is_some_and(|selected| selected.address == to))
            }
        }
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
