//! What comes to a UDP port beside QUIC: frames, observations and probes; and the path agent behind it.

use crate::Target;
use crate::samples::samples;
use ahoy_path::{AddressRules, AgentConfig, Event, PathAgent, ProbeKeys, Route, Via};
use ahoy_protocol::datagram::{self, Observe, Observed, Ping, Pong, Side};
use ahoy_protocol::ids::{CallId, CallSecret, DeviceKey};
use ahoy_protocol::peer::{Candidate, CandidateKind};
use ahoy_transport::{DatagramHandler, ObserveResponder};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target { name: "path_datagram", run: datagrams, seeds: datagram_seeds },
        Target { name: "path_observe_responder", run: observe_responder, seeds: datagram_seeds },
        Target { name: "path_agent_datagram", run: agent_datagram, seeds: probe_seeds },
        Target { name: "path_agent_script", run: agent_script, seeds: script_seeds },
    ]
}

/// Every decoder of a datagram on the same bytes; what decodes encodes to the bytes that it came from.
fn datagrams(bytes: &[u8]) {
    let _ = datagram::classify(bytes);
    if let Ok((channel, payload)) = datagram::parse_relay_frame(bytes) {
        assert_eq!(datagram::relay_frame(channel, payload), bytes);
    }
    if let Ok(observe) = Observe::decode(bytes) {
        assert_eq!(observe.encode(), bytes);
    }
    if let Ok(observed) = Observed::decode(bytes) {
        assert_eq!(observed.encode(), bytes);
    }
    if let Ok(ping) = Ping::decode(bytes) {
        assert_eq!(ping.encode(), bytes[..ping.encode().len()]);
    }
    if let Ok(pong) = Pong::decode(bytes) {
        assert_eq!(pong.encode(), bytes[..pong.encode().len()]);
    }
}

fn datagram_seeds() -> Vec<Vec<u8>> {
    let (tag, address) = ([1; 8], peer_address());
    let coded = |bytes: &[u8]| [bytes, &[9; datagram::MAC_BYTES]].concat();
    vec![
        Observe { nonce: [1; 8] }.encode().to_vec(),
        Observed { nonce: [1; 8], load_percent: 3, address }.encode().to_vec(),
        coded(&Ping { tag, transaction: 1, sender: Side::Caller }.encode()),
        coded(&Pong { tag, transaction: 1, sender: Side::Callee, observed: address }.encode()),
        datagram::relay_frame(7, &[0x40; 60]),
    ]
}

/// A node answers an observation with fewer bytes than it got, to where it came from, and nothing else at all.
fn observe_responder(bytes: &[u8]) {
    let responder = ObserveResponder::new(std::sync::Arc::default());
    let mut sent = 0;
    responder.handle(peer_address(), bytes, &mut |to, answer| {
        assert_eq!(to, peer_address());
        sent += answer.len();
    });
    assert!(sent <= bytes.len(), "an answer longer than its request");
}

fn peer_address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 5000)
}

/// The first instant of every run: what an agent does depends on differences alone.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn rules() -> AddressRules {
    AddressRules { allow_loopback: false, virtual_prefix: None }
}

fn agent(side: Side) -> PathAgent {
    let keys = ProbeKeys::derive(&CallSecret([5; 32]), &CallId([3; 16]), &DeviceKey([1; 32]), &DeviceKey([2; 32]));
    let mut agent = PathAgent::new(AgentConfig { side, keys, on_link: Vec::new(), rules: rules() }, 1, start());
    agent.set_relay(start(), true);
    agent.add_remote(start(), &[Candidate { address: peer_address(), kind: CandidateKind::Host }]);
    agent.start_probing(start());
    agent
}

/// Lets `agent` act at `now`; what it sends goes where sending is allowed.
fn let_act(agent: &mut PathAgent, now: Instant) -> Vec<Vec<u8>> {
    if agent.poll_timeout().is_some_and(|deadline| deadline <= now) {
        agent.handle_timeout(now);
    }
    let mut sent = Vec::new();
    while let Some(transmit) = agent.poll_transmit() {
        assert_eq!(rules().check(transmit.to), Ok(()), "sent to an address that is never to be sent to");
        sent.push(transmit.bytes);
        assert!(sent.len() <= ahoy_path::TRANSMITS_PER_SECOND_MAX, "more packets at one time than in a second");
    }
    while let Some(Event::RouteChanged(_) | Event::Replay) = agent.poll_event() {}
    sent
}

/// A stranger's datagram never gives the call a direct way; the peer's own does.
fn agent_datagram(bytes: &[u8]) {
    let mut agent = agent(Side::Caller);
    for (step, from) in [peer_address(), SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9)].into_iter().enumerate() {
        let now = start() + Duration::from_millis(20 * step as u64);
        let _ = agent.handle_datagram(now, from, bytes);
        let_act(&mut agent, now);
    }
    if Pong::decode(bytes).is_err() {
        assert!(matches!(agent.route(), Route::None | Route::Relay), "a direct way without an answer to a probe of ours");
    }
}

/// Real probes of the other side.
fn probe_seeds() -> Vec<Vec<u8>> {
    let mut callee = agent(Side::Callee);
    let mut seeds = datagram_seeds();
    for step in 0..50 {
        seeds.extend(let_act(&mut callee, start() + Duration::from_millis(20 * step)));
    }
    seeds.truncate(12);
    seeds
}

/// Each byte is a step of a call's life, with the caller's and the callee's agent connected by a network that loses some.
fn agent_script(bytes: &[u8]) {
    let (mut caller, mut callee) = (agent(Side::Caller), agent(Side::Callee));
    let mut now = start();
    for step in bytes.iter().take(STEPS_MAX) {
        now += Duration::from_millis(u64::from(step >> 3) * 8);
        match step & 7 {
            0 => caller.handle_sent(now),
            1 => caller.handle_traffic(now, Via::Relay),
            2 => caller.handle_traffic(now, Via::Direct(peer_address())),
            3 => caller.set_relay(now, step & 8 != 0),
            4 => {
                let port = u16::from(*step);
                caller.add_remote(
                    now,
                    &[Candidate { address: SocketAddr::new(peer_address().ip(), port), kind: CandidateKind::PeerReflexive }],
                );
            }
            _ => {
                let sent = let_act(&mut caller, now);
                let answers = deliver(&mut callee, now, &sent);
                deliver(&mut caller, now, &answers);
            }
        }
        let_act(&mut caller, now);
    }
}

/// Steps after which a script ends: as many as change anything.
const STEPS_MAX: usize = 400;

fn deliver(to: &mut PathAgent, now: Instant, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    for packet in packets {
        let _ = to.handle_datagram(now, peer_address(), packet);
    }
    let_act(to, now)
}

fn script_seeds() -> Vec<Vec<u8>> {
    let talk = [0x0d, 0x10, 0x11].repeat(40);
    let moved = [[0x0d, 0x12].repeat(20), vec![0x03, 0x0d, 0x0b, 0x0d], [0xfd, 0xf8].repeat(20)].concat();
    vec![talk, moved, samples().id().as_bytes().to_vec()]
}
