//! What strangers, and a peer that means ill, can do with probes: nothing.

use crate::call::{ALICE, BOB, Call, agent, keys};
use crate::network::{Arrival, Payload};
use crate::router::{Filtering, Kind, Mapping};
use ahoy_path::{Dropped, LegId, PathAgent, REMOTES_MAX, Refused, SocketId, TRANSMITS_PER_SECOND_MAX, Way};
use ahoy_protocol::datagram::{MAC_BYTES, Ping, Pong, Side};
use ahoy_protocol::peer::{Candidate, CandidateKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const HOME: Kind = Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

fn candidate(address: SocketAddr) -> Candidate {
    Candidate { address, kind: CandidateKind::Host }
}

/// PINGs that the callee's agent makes.
fn pings_of_bob(now: Instant, ports: std::ops::Range<u16>) -> Vec<Vec<u8>> {
    let mut bob = agent(Side::Callee, 99, now);
    bob.start_probing(now);
    let mut pings = Vec::new();
    for port in ports {
        let mut fresh = agent(Side::Callee, u64::from(port), now);
        fresh.start_probing(now);
        fresh.add_remote(now, &[candidate(address(port))]);
        pings.extend(std::iter::from_fn(|| fresh.poll_transmit()).map(|transmit| transmit.bytes));
    }
    pings
}

fn alice(now: Instant) -> PathAgent {
    let mut alice = agent(Side::Caller, 1, now);
    alice.set_leg(now, LegId(0), true);
    alice.start_probing(now);
    while alice.poll_transmit().is_some() {}
    alice
}

/// Checks that `datagram` is dropped for this reason and leaves no trace.
fn assert_dropped(alice: &mut PathAgent, now: Instant, from: SocketAddr, datagram: &[u8], why: Dropped) {
    let before = format!("{alice:?}");
    assert_eq!(alice.handle_datagram(now, Way::direct(from), datagram), Err(why));
    assert_eq!(format!("{alice:?}"), before, "{why}");
    assert!(alice.poll_transmit().is_none());
    assert!(!alice.is_peer_address(SocketId::MAIN, from));
}

#[test]
fn forged_foreign_and_reflected_probes_are_dropped() {
    let now = Instant::now();
    let mut alice = alice(now);
    let tag = keys().tag();
    let forge = |message: &[u8]| [message, &[7; MAC_BYTES]].concat();
    let ping = |tag, sender| forge(&Ping { tag, transaction: 1, sender }.encode());
    let pong = forge(&Pong { tag, transaction: 1, sender: Side::Callee, observed: address(1) }.encode());
    let genuine = pings_of_bob(now, 1..2).remove(0);
    let mut changed = genuine.clone();
    changed[10] ^= 1;

    assert_dropped(&mut alice, now, address(1), &ping(tag, Side::Callee), Dropped::Forged);
    assert_dropped(&mut alice, now, address(1), &ping([0; 8], Side::Callee), Dropped::OtherCall);
    assert_dropped(&mut alice, now, address(1), &ping(tag, Side::Caller), Dropped::Reflected);
    assert_dropped(&mut alice, now, address(1), &pong, Dropped::Forged);
    assert_dropped(&mut alice, now, address(1), &changed, Dropped::Forged);
    assert_dropped(&mut alice, now, address(1), &genuine[1..], Dropped::Malformed);
    assert_dropped(&mut alice, now, address(1), &[], Dropped::Malformed);
    assert_dropped(&mut alice, now, "[::ffff:192.0.2.1]:9".parse().expect("address"), &genuine, Dropped::Address(Refused::Mapped));
    assert_dropped(&mut alice, now, "127.0.0.1:9".parse().expect("address"), &genuine, Dropped::Address(Refused::Loopback));
}

#[test]
fn a_ping_of_mine_that_comes_back_is_dropped() {
    let now = Instant::now();
    let mut alice = alice(now);
    alice.add_remote(now, &[candidate(address(1))]);
    let mine = alice.poll_transmit().expect("a PING");
    assert_dropped(&mut alice, now, address(1), &mine.bytes, Dropped::Reflected);
}

#[test]
fn a_recorded_ping_is_answered_once() {
    let now = Instant::now();
    let mut alice = alice(now);
    let ping = pings_of_bob(now, 1..2).remove(0);
    assert_eq!(alice.handle_datagram(now, Way::direct(address(1)), &ping), Ok(()));
    while alice.poll_transmit().is_some() {}
    for port in 2..50 {
        assert_dropped(&mut alice, now + Duration::from_secs(1), address(port), &ping, Dropped::Replayed);
    }
}

#[test]
fn nothing_is_answered_before_probing_is_allowed() {
    let now = Instant::now();
    let mut alice = agent(Side::Caller, 1, now);
    alice.add_remote(now, &[candidate(address(1))]);
    assert!(alice.poll_transmit().is_none());
    assert_eq!(alice.poll_timeout(), None);
    let ping = pings_of_bob(now, 1..2).remove(0);
    assert_dropped(&mut alice, now, address(1), &ping, Dropped::NotProbing);
}

#[test]
fn refused_candidates_are_not_probed() {
    let now = Instant::now();
    let mut alice = alice(now);
    let bad =
        ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "192.0.2.1:0", "127.0.0.1:1", "[::1]:1", "[fe80::1]:1", "[fd5a:1b2c:3d4e::1]:1"];
    let bad: Vec<Candidate> = bad.iter().map(|address| candidate(address.parse().expect("address"))).collect();
    assert_eq!(alice.add_remote(now, &bad), 0);
    assert!(alice.poll_transmit().is_none());
}

#[test]
fn an_answer_counts_only_from_where_the_question_went_and_once() {
    let mut call = Call::behind(7, HOME, HOME).with_relay();
    call.probe_both();
    call.run_ms(2000);
    assert!(call.are_direct());
    let recorded: Vec<Arrival> = call.devices[ALICE].heard.clone();
    let route = call.route(ALICE);
    let probes = call.devices[ALICE].probes.len();
    for arrival in recorded {
        let Payload::Probe(bytes) = &arrival.payload else { unreachable!("only probes are recorded") };
        let dropped = call.devices[ALICE].agent.handle_datagram(call.now, Way::direct(address(666)), bytes);
        assert!(matches!(dropped, Err(Dropped::Replayed | Dropped::UnknownTransaction)), "{dropped:?}");
    }
    call.devices[ALICE].flush(call.now, &mut call.network);
    assert_eq!(call.devices[ALICE].probes.len(), probes);
    assert_eq!(call.route(ALICE), route);
    assert!(!call.devices[ALICE].agent.is_peer_address(SocketId::MAIN, address(666)));
}

#[test]
fn replayed_probes_and_strangers_voice_change_nothing_in_a_running_call() {
    let mut call = Call::behind(7, HOME, HOME).with_relay();
    call.probe_both();
    call.run_ms(3000);
    let from = call.now;
    for _ in 0..200 {
        let recorded = call.devices[ALICE].heard.clone();
        for (nth, arrival) in recorded.into_iter().rev().take(5).enumerate() {
            let way = Way::direct(address(700 + nth as u16));
            call.network.inject(call.now, Arrival { host: ALICE, way, payload: arrival.payload });
            call.network.inject(call.now, Arrival { host: ALICE, way, payload: Payload::Voice(1 << 40) });
        }
        call.run_ms(50);
    }
    assert!(call.are_direct());
    assert_eq!(call.devices[ALICE].route_changes(from, call.now), 0);
    assert_eq!(call.missing_since(call.start), 0);
    assert!(call.devices[ALICE].probes.iter().filter(|at| **at >= from).count() < 200);
}

#[test]
fn a_peer_cannot_make_an_agent_flood() {
    let start = Instant::now();
    let mut alice = alice(start);
    let many: Vec<Candidate> = (1..5000).map(|port| candidate(address(port))).collect();
    alice.add_remote(start, &many);
    let pings = pings_of_bob(start, 1..3000);
    let mut sent: Vec<u64> = Vec::new();
    for (ms, ping) in (0..).zip(&pings) {
        let now = start + Duration::from_millis(ms);
        let _ = alice.handle_datagram(now, Way::direct(address(10_000 + ms as u16)), ping);
        alice.handle_timeout(now);
        while alice.poll_transmit().is_some() {
            sent.push(ms);
        }
    }
    for from in (0..3000).step_by(100) {
        let within = sent.iter().filter(|ms| (from..from + 1000).contains(*ms)).count();
        assert!(within <= TRANSMITS_PER_SECOND_MAX, "{within}");
    }
    let known = (1..=u16::MAX).filter(|port| alice.is_peer_address(SocketId::MAIN, address(*port))).count();
    assert!(known <= REMOTES_MAX);
    assert!(alice.route().is_relayed());
}

#[test]
fn an_agent_that_probes_nobody_is_not_found() {
    let mut call = Call::behind(7, Kind::Open, Kind::Open).with_relay();
    call.tell_candidates(ALICE);
    call.start_probing(ALICE);
    call.run_ms(15_000);
    assert!(call.are_relayed());
    assert!(call.devices[BOB].probes.is_empty());
    assert!(call.devices[ALICE].heard.is_empty());
}
