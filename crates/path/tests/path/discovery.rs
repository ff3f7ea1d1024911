//! Whether a direct path is found, for every pair of routers, and how soon.

use crate::call::{ALICE, BOB, Call, agent};
use crate::router::{Filtering, Kind, Mapping};
use ahoy_path::LegId;
use ahoy_protocol::datagram::Side;
use ahoy_protocol::invitation::CANDIDATES_MAX;
use ahoy_protocol::peer::{Candidate, CandidateKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const MAPPINGS: [Mapping; 2] = [Mapping::EndpointIndependent, Mapping::AddressAndPortDependent];
const FILTERINGS: [Filtering; 3] = [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];

fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::Open, Kind::Blocked];
    kinds.extend(FILTERINGS.map(Kind::Firewall));
    kinds.extend(MAPPINGS.into_iter().flat_map(|mapping| FILTERINGS.map(|filtering| Kind::Nat(mapping, filtering))));
    kinds
}

/// How a router looks from the other side: whether its mapping can be known beforehand, and whom it lets in.
fn seen(kind: Kind) -> Option<(Mapping, Filtering)> {
    match kind {
        Kind::Blocked => None,
        Kind::Open => Some((Mapping::EndpointIndependent, Filtering::EndpointIndependent)),
        Kind::Firewall(filtering) => Some((Mapping::EndpointIndependent, filtering)),
        Kind::Nat(mapping, filtering) => Some((mapping, filtering)),
    }
}

/// A mapping that depends on the destination cannot be guessed; it is learned from a PING, which the other side must let in although it
/// never sent anything there.
fn can_be_direct(alice: Kind, bob: Kind) -> bool {
    let (Some(alice), Some(bob)) = (seen(alice), seen(bob)) else { return false };
    match (alice, bob) {
        ((Mapping::EndpointIndependent, _), (Mapping::EndpointIndependent, _)) => true,
        ((Mapping::AddressAndPortDependent, _), (Mapping::EndpointIndependent, filtering))
        | ((Mapping::EndpointIndependent, filtering), (Mapping::AddressAndPortDependent, _)) => {
            filtering != Filtering::AddressAndPortDependent
        }
        ((Mapping::AddressAndPortDependent, _), (Mapping::AddressAndPortDependent, _)) => false,
    }
}

#[test]
fn a_direct_path_is_found_wherever_there_is_one() {
    for alice in kinds() {
        for bob in kinds() {
            let mut call = Call::behind(7, alice, bob).with_relay();
            assert!(call.are_relayed(), "a call is on the relay at once");
            call.probe_both();
            call.run_ms(3000);
            assert_eq!(
                call.are_direct(),
                can_be_direct(alice, bob),
                "{alice:?} and {bob:?}: {:?} {:?}",
                call.route(ALICE),
                call.route(BOB)
            );
            assert_eq!(call.missing_since(call.start), 0, "{alice:?} and {bob:?}");
            if !can_be_direct(alice, bob) {
                assert!(call.are_relayed(), "{alice:?} and {bob:?}");
            }
        }
    }
}

#[test]
fn ordinary_home_routers_are_crossed_within_half_a_second() {
    let home = Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    let mut call = Call::behind(7, home, home).with_relay();
    call.probe_both();
    call.run_ms(500);
    assert!(call.are_direct());
}

#[test]
fn a_side_that_starts_late_is_found_when_it_starts() {
    let home = Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    for late_ms in [50, 900, 5_000, 12_000, 40_000] {
        let mut call = Call::behind(7, home, home).with_relay();
        call.tell_candidates(ALICE);
        call.tell_candidates(BOB);
        call.start_probing(ALICE);
        call.run_ms(late_ms);
        assert!(call.are_relayed());
        assert!(call.devices[BOB].probes.is_empty(), "nothing is sent before it is allowed");
        call.start_probing(BOB);
        call.run_ms(1500);
        assert!(call.are_direct(), "{late_ms} ms late: {:?}", call.devices.each_ref().map(|device| &device.routes));
        assert_eq!(call.missing_since(call.start), 0);
    }
}

#[test]
fn an_address_that_no_candidate_names_is_learned_from_a_ping() {
    let mut call =
        Call::behind(7, Kind::Nat(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent), Kind::Open).with_relay();
    call.tell_candidates(ALICE);
    call.start_probing(ALICE);
    call.start_probing(BOB);
    call.run_ms(1000);
    assert!(call.are_direct());
}

#[test]
fn two_devices_in_one_place_use_the_local_network() {
    let hairpin_less = Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    let mut call = Call::in_one_place(7, hairpin_less).with_relay();
    call.probe_both();
    call.run_ms(1000);
    for host in [ALICE, BOB] {
        let selected = call.devices[host].agent.selected().expect("a direct path");
        assert!(selected.on_link);
        assert_eq!(selected.rtt.map(|rtt| rtt.as_millis()), Some(2));
    }
}

#[test]
fn of_two_equal_paths_ipv6_is_taken() {
    let home = Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    let mut call = Call::behind(7, home, home).with_ipv6(Kind::Firewall(Filtering::AddressAndPortDependent)).with_relay();
    call.probe_both();
    call.run_ms(20_000);
    assert!(call.are_direct());
    assert_eq!(call.devices[ALICE].route_changes(call.start, call.now), 3, "{:?}", call.devices[ALICE].routes);
}

#[test]
fn a_call_without_a_relay_becomes_direct() {
    let mut call = Call::behind(7, Kind::Open, Kind::Open);
    assert!(call.route(ALICE).is_empty());
    call.probe_both();
    call.run_ms(500);
    assert!(call.are_direct());
}

#[test]
fn strangers_get_a_bounded_number_of_probes() {
    let start = Instant::now();
    let mut alice = agent(Side::Caller, 7, start);
    alice.set_leg(start, LegId(0), true);
    let strangers = (1..=CANDIDATES_MAX as u16).map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
    let candidates: Vec<Candidate> = strangers.map(|address| Candidate { address, kind: CandidateKind::Host }).collect();
    alice.add_remote(start, &candidates);
    alice.start_probing(start);
    let mut sent = Vec::new();
    let mut now = start;
    while now < start + Duration::from_secs(1800) {
        sent.extend(std::iter::from_fn(|| alice.poll_transmit()).filter(|transmit| transmit.way.is_direct()).map(|_| now));
        now = alice.poll_timeout().expect("a leg is asked for ever");
        alice.handle_timeout(now);
    }
    let before = |seconds| sent.iter().filter(|at| **at - start < Duration::from_secs(seconds)).count();
    assert_eq!(before(11), 14 * CANDIDATES_MAX);
    assert!(before(1800) < 512 + 1800, "{} in half an hour", before(1800));
}
