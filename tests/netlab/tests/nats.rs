//! Pairs of NATs: each call connects, and takes the best path that the pair allows.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Nat, PortMapper, lab_or_skip, lab_or_skip_with};
use ahoy_netlab::{Case, servers};

/// Alice and bob behind routers of these kinds.
fn pair(alice: Nat, bob: Nat) -> Option<Case> {
    let mut lab = lab_or_skip()?;
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", alice);
    let (bob, bob_router) = lab.behind_nat("bob", bob);
    Some(Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]))
}

#[test]
fn cones_that_keep_ports_are_crossed() {
    let Some(case) = pair(Nat::PortPreserving, Nat::PortPreserving) else { return };
    case.check_paths("direct", "direct");
}

#[test]
fn cones_with_ports_of_their_own_are_crossed() {
    let Some(case) = pair(Nat::OwnPorts, Nat::OwnPorts) else { return };
    case.check_paths("direct", "direct");
}

#[test]
fn random_ports_reach_a_cone_that_lets_everything_in() {
    let Some(case) = pair(Nat::RandomPorts, Nat::FullCone) else { return };
    case.check_paths("direct", "direct");
}

#[test]
fn a_cone_that_goes_by_addresses_is_reached_from_random_ports() {
    let Some(case) = pair(Nat::AddressRestricted, Nat::RandomPorts) else { return };
    case.check_paths("direct", "direct");
}

#[test]
fn between_a_cone_and_random_ports_the_relay_carries_the_call() {
    let Some(case) = pair(Nat::PortPreserving, Nat::RandomPorts) else { return };
    case.set("birthday", "off");
    case.check_paths("relay", "relay");
}

#[test]
fn between_random_ports_the_relay_carries_the_call() {
    let Some(case) = pair(Nat::RandomPorts, Nat::RandomPorts) else { return };
    case.check_paths("relay", "relay");
}

#[test]
fn a_router_that_maps_ports_makes_random_ports_reachable_from_a_cone() {
    let Some(mut lab) = lab_or_skip_with(&["miniupnpd"]) else { return };
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::RandomPorts);
    let mapper = PortMapper::start(&bob_router);
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.check_paths("direct", "direct");
    drop(case);
    assert!(mapper.mappings().is_empty(), "what was mapped is unmapped at the end: {:?}", mapper.mappings());
}

#[test]
fn a_router_that_maps_ports_on_one_side_is_enough_for_random_ports_on_both() {
    let Some(mut lab) = lab_or_skip_with(&["miniupnpd"]) else { return };
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", Nat::RandomPorts);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::RandomPorts);
    let _mapper = PortMapper::start(&alice_router);
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.check_paths("direct", "direct");
}

#[test]
fn neighbours_talk_on_their_own_network() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let (alice, mut router) = lab.behind_nat("alice", Nat::PortPreserving);
    let bob = lab.neighbour("bob", &mut router);
    let case = Case::start(lab, plan, alice, bob, vec![router]);
    case.check_paths("lan", "lan");
}

#[test]
fn homes_with_the_same_private_addresses_reach_each_other() {
    let Some(mut lab) = lab_or_skip() else { return };
    lab.make_networks_equal();
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::PortPreserving);
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.check_paths("direct", "direct");
}

#[test]
fn two_homes_of_one_provider_reach_each_other_where_it_turns_packets_back() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let mut carrier = lab.router("carrier", Nat::Carrier);
    let mut homes = ["alice-home", "bob-home"].map(|name| lab.router_behind(name, Nat::PortPreserving, &mut carrier));
    let (alice, bob) = (lab.neighbour("alice", &mut homes[0]), lab.neighbour("bob", &mut homes[1]));
    let [alice_home, bob_home] = homes;
    let case = Case::start(lab, plan, alice, bob, vec![alice_home, bob_home, carrier]);
    case.check_paths("direct", "direct");
}

#[test]
fn a_home_behind_two_routers_reaches_another() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let mut carrier = lab.router("carrier", Nat::OwnPorts);
    let mut home = lab.router_behind("alice-home", Nat::PortPreserving, &mut carrier);
    let alice = lab.neighbour("alice", &mut home);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::PortPreserving);
    let case = Case::start(lab, plan, alice, bob, vec![home, carrier, bob_router]);
    case.check_paths("direct", "direct");
}
