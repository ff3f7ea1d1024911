//! Networks that are not as one would wish: IPv6 alone, no UDP, nothing but a proxy.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Lab, Nat, Network, Proxy, Router, Spot, lab_or_skip, lab_or_skip_with};
use ahoy_netlab::{Case, servers, servers_v6, set};

#[test]
fn with_ipv6_alone_a_firewall_on_both_sides_is_crossed() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers_v6(&mut lab);
    let (alice, alice_router) = lab.behind_firewall_v6("alice");
    let (bob, bob_router) = lab.behind_firewall_v6("bob");
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.check_paths("direct", "direct");
}

#[test]
fn where_udp_is_blocked_on_one_side_the_call_goes_through_a_relay_by_tcp_on_that_side() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::PortPreserving);
    alice_router.block_udp();
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.check_paths("relay-tcp", "relay");
}

#[test]
fn where_udp_is_blocked_at_the_callee_he_is_reached_all_the_same() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::PortPreserving);
    bob_router.block_udp();
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.check_paths("relay", "relay-tcp");
}

#[test]
fn where_udp_is_blocked_on_both_sides_both_go_through_a_relay_by_tcp() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::PortPreserving);
    alice_router.block_udp();
    bob_router.block_udp();
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.check_paths("relay-tcp", "relay-tcp");
}

#[test]
fn an_http_proxy_from_the_settings_is_enough() {
    let Some(mut lab) = lab_or_skip_with(&["tinyproxy"]) else { return };
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = behind_closed_router(&mut lab);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::PortPreserving);
    let proxy = Proxy::http(&alice_router);
    let network = Network::start_at(plan);
    let alice = network.stranger("alice", "first", alice);
    set(&alice, "proxy", &proxy.url);
    let _ = alice.run(&["register", "alice", "--network", &network.link]).succeeded();
    let bob = network.person_at("bob", bob);
    let case = Case { network, alice, bob, routers: vec![alice_router, bob_router], lab };
    case.check_paths("relay-tcp", "relay");
}

#[test]
fn a_socks_proxy_from_the_environment_is_enough() {
    let Some(mut lab) = lab_or_skip_with(&["microsocks"]) else { return };
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
    let (mut bob, bob_router) = behind_closed_router(&mut lab);
    let proxy = Proxy::socks5(&bob_router);
    bob.environment.push(("ALL_PROXY".to_owned(), proxy.url.clone()));
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.check_paths("relay", "relay-tcp");
}

/// A client whose router forwards nothing.
fn behind_closed_router(lab: &mut Lab) -> (Spot, Router) {
    let (client, router) = lab.behind_nat("inside", Nat::PortPreserving);
    router.block_everything();
    (client, router)
}
