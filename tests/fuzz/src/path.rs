//! What comes to a UDP port beside QUIC: frames, observations and probes; and the path agent behind it.

use crate::Target;
use crate::samples::samples;
use ahoy_path::{AddressRules, AgentConfig, Event, LegId, PathAgent, ProbeKeys, SocketId, Way};
use ahoy_protocol::datagram::{self, Move, Observe, Observed, Ping, Pong, Side};
use ahoy_protocol::ids::{CallId, CallSecret, DeviceKey};
use ahoy_protocol::peer::{Candidate, CandidateKind, Mapping};
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
    if let Ok(moved) = Move::decode(bytes) {
        assert_eq!(moved.encode(), bytes[..moved.encode().len()]);
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
        coded(&Move { channel: 7, counter: 1 }.encode()),
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

fn peer_way() -> Way {
    Way::Direct { socket: SocketId::MAIN, remote: peer_address() }
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
    let mut agent = PathAgent::new(AgentConfig { side, keys, on_link: Vec::new(), rules: rules(), birthday: true }, 1, start());
    agent.set_leg(start(), LegId(0), true);
    agent.add_remote(start(), &[Candidate { address: peer_address(), kind: CandidateKind::Host }]);
    agent.start_probing(start());
    agent
}

/// Lets `agent` act at `now`; what it sends goes where sending is allowed.
fn let_act(agent: &mut PathAgent, now: Instant) -> Vec<(Way, Vec<u8>)> {
    if agent.poll_timeout().is_some_and(|deadline| deadline <= now) {
        agent.handle_timeout(now);
    }
    let mut sent = Vec::new();
    while let Some(transmit) = agent.poll_transmit() {
        if let Way::Direct { remote, .. } = transmit.way {
            assert_eq!(rules().check(remote), Ok(()), "sent to an address that is never to be sent to");
        }
        sent.push((transmit.way, transmit.bytes));
        assert!(sent.len() <= ahoy_path::TRANSMITS_PER_SECOND_MAX, "more packets at one time than in a second");
    }
    while let Some(event) = agent.poll_event() {
        if let Event::OpenSockets { count } = event {
            let opened: Vec<SocketId> = (1..=count).map(SocketId).collect();
            agent.sockets_opened(now, &opened);
        }
    }
    sent
}

/// A stranger's datagram never gives the call a direct way; the peer's own does.
fn agent_datagram(bytes: &[u8]) {
    let mut agent = agent(Side::Caller);
    for (step, from) in [peer_address(), SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9)].into_iter().enumerate() {
        let now = start() + Duration::from_millis(20 * step as u64);
        let _ = agent.handle_datagram(now, Way::Direct { socket: SocketId::MAIN, remote: from }, bytes);
        let _ = agent.handle_datagram(now, Way::Leg(LegId(0)), bytes);
        let_act(&mut agent, now);
    }
    if Pong::decode(bytes).is_err() {
        assert!(agent.route().ways().all(|way| matches!(way, Way::Leg(_))), "a direct way without an answer to a probe of ours");
    }
}

/// Real probes of the other side.
fn probe_seeds() -> Vec<Vec<u8>> {
    let mut callee = agent(Side::Callee);
    let mut seeds = datagram_seeds();
    for step in 0..50 {
        seeds.extend(let_act(&mut callee, start() + Duration::from_millis(20 * step)).into_iter().map(|(_, probe)| probe));
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
            0 => caller.handle_sent(now, 128),
            1 => caller.handle_traffic(now, Way::Leg(LegId(0))),
            2 => caller.handle_traffic(now, peer_way()),
            3 => caller.set_leg(now, LegId(step >> 4 & 1), step & 8 != 0),
            4 => bring_news(&mut caller, now, *step),
            _ => {
                let sent = let_act(&mut caller, now);
                let answers = deliver(&mut callee, now, &sent);
                deliver(&mut caller, now, &answers);
            }
        }
        let_act(&mut caller, now);
    }
}

/// Something that an owner tells its agent now and then.
fn bring_news(agent: &mut PathAgent, now: Instant, step: u8) {
    let mapping = [Mapping::Unknown, Mapping::Open, Mapping::EndpointIndependent, Mapping::EndpointDependent][usize::from(step >> 5 & 3)];
    match step >> 3 & 3 {
        0 => agent.set_own_mapping(now, mapping),
        1 => agent.set_peer_mapping(now, mapping),
        2 => agent.handle_network_change(now, Vec::new()),
        _ => {
            let address = SocketAddr::new(peer_address().ip(), u16::from(step));
            agent.add_remote(now, &[Candidate { address, kind: CandidateKind::ServerReflexive }]);
        }
    }
}

/// Steps after which a script ends: as many as change anything.
const STEPS_MAX: usize = 400;

/// Brings packets to the other side: through the leg that they were sent through, or from the peer's one address.
fn deliver(to: &mut PathAgent, now: Instant, packets: &[(Way, Vec<u8>)]) -> Vec<(Way, Vec<u8>)> {
    for (way, packet) in packets {
        let came_by = if way.is_direct() { peer_way() } else { *way };
        let _ = to.handle_datagram(now, came_by, packet);
    }
    let_act(to, now)
}

fn script_seeds() -> Vec<Vec<u8>> {
    let talk = [0x0d, 0x10, 0x11].repeat(40);
    let moved = [[0x0d, 0x12].repeat(20), vec![0x03, 0x0d, 0x0b, 0x0d], [0xfd, 0xf8].repeat(20)].concat();
    let guessed = [vec![0x64, 0x4c, 0x1c], [0xfd, 0x0d].repeat(60), vec![0x14], [0x2d, 0x12].repeat(30)].concat();
    vec![talk, moved, guessed, samples().id().as_bytes().to_vec()]
}
