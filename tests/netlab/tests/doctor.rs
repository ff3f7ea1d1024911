//! What the doctor says of networks whose routers are known.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Event, Nat, Network, Person, PortMapper, Proxy, lab_or_skip, lab_or_skip_with};
use ahoy_netlab::{LONG, servers, servers_v6, set};
use std::time::{Duration, Instant};

/// It promises ten seconds; a busy machine gets some more.
const DOCTOR_TIME: Duration = Duration::from_secs(20);

#[test]
fn each_kind_of_router_is_told_from_the_others() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let public = lab.host("public");
    let (cone, _cone_router) = lab.behind_nat("cone", Nat::PortPreserving);
    let (own_ports, _own_ports_router) = lab.behind_nat("own-ports", Nat::OwnPorts);
    let (random, _random_router) = lab.behind_nat("random", Nat::RandomPorts);
    let network = Network::start_at(plan);
    for (name, spot, mapping, preserves_port, calls) in [
        ("public", public, "open", true, "direct"),
        ("cone", cone, "endpoint-independent", true, "mostly-direct"),
        ("own-ports", own_ports, "endpoint-independent", false, "mostly-direct"),
        ("random", random, "endpoint-dependent", false, "often-relayed"),
    ] {
        let report = examine(&network.person_at(name, spot));
        assert_eq!((report.text("mapping"), report.text("calls")), (mapping, calls), "{name}: {}", report.0);
        assert_eq!(report.0["preserves_port"], preserves_port, "{name}: {}", report.0);
        assert_eq!(report.0["can_call"], true);
    }
}

#[test]
fn a_difficult_router_that_maps_ports_is_found_to_do_so() {
    let Some(mut lab) = lab_or_skip_with(&["miniupnpd"]) else { return };
    let plan = servers(&mut lab, 1);
    let (alice, router) = lab.behind_nat("alice", Nat::RandomPorts);
    let mapper = PortMapper::start(&router);
    let network = Network::start_at(plan);
    let alice = network.person_at("alice", alice);
    let report = examine(&alice);
    assert_eq!((report.text("mapping"), report.text("calls")), ("endpoint-dependent", "direct"), "{}", report.0);
    let mapped = &report.0["port_mapping"];
    assert_eq!((mapped["protocol"].as_str(), mapped["double_nat"].as_bool()), (Some("pcp"), Some(false)), "{mapped}");
    assert!(mapped["addresses"][0].as_str().unwrap().starts_with(&format!("{}:", router.ip)), "{mapped}");
    assert_eq!(mapper.mappings(), Vec::<String>::new(), "the doctor leaves nothing behind");
    set(&alice, "port-mapping", "off");
    assert_eq!(examine(&alice).text("calls"), "often-relayed");
}

#[test]
fn where_udp_is_blocked_it_is_said_and_where_nothing_goes_out_too() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let (alice, router) = lab.behind_nat("alice", Nat::PortPreserving);
    let network = Network::start_at(plan);
    let alice = network.person_at("alice", alice);
    router.block_udp();
    let report = examine(&alice);
    assert_eq!(report.text("calls"), "relayed-by-tcp", "{}", report.0);
    assert!(problems(&report).contains(&"udp".to_owned()), "{}", report.0);
    router.block_everything();
    let begun = Instant::now();
    let finished = alice.start(&["doctor", "--json"]).finish(LONG);
    println!("where everything is blocked it took {:?}", begun.elapsed());
    assert!(begun.elapsed() < DOCTOR_TIME, "it took {:?}", begun.elapsed());
    let report = finished.event("doctor");
    assert_eq!((report.text("calls"), &report.0["can_call"]), ("none", &false.into()), "{}", report.0);
    assert!(problems(&report).contains(&"supernodes".to_owned()), "{}", report.0);
    finished.failed_with(&["calls cannot be made"]);
}

#[test]
fn a_proxy_that_is_the_only_way_out_is_used_and_named() {
    let Some(mut lab) = lab_or_skip_with(&["microsocks"]) else { return };
    let plan = servers(&mut lab, 1);
    let (alice, router) = lab.behind_nat("alice", Nat::PortPreserving);
    let network = Network::start_at(plan);
    let alice = network.person_at("alice", alice);
    router.block_everything();
    let proxy = Proxy::socks5(&router);
    set(&alice, "proxy", &proxy.url);
    let report = examine(&alice);
    assert_eq!((report.text("calls"), report.text("proxy")), ("relayed-by-tcp", proxy.url.as_str()), "{}", report.0);
    assert!(!problems(&report).contains(&"proxy".to_owned()), "{}", report.0);
}

#[test]
fn with_ipv6_alone_there_is_no_router_to_cross() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers_v6(&mut lab);
    let (alice, _router) = lab.behind_firewall_v6("alice");
    let network = Network::start_at(plan);
    let report = examine(&network.person_at("alice", alice));
    assert_eq!((report.text("mapping"), &report.0["ipv6"]), ("open", &true.into()), "{}", report.0);
    assert_eq!(report.text("calls"), "direct", "{}", report.0);
}

fn examine(person: &Person) -> Event {
    person.start(&["doctor", "--json"]).finish(LONG).succeeded().event("doctor")
}

fn problems(report: &Event) -> Vec<String> {
    let findings = report.0["findings"].as_array().expect("findings").iter();
    let bad = findings.filter(|finding| finding["level"] == "problem");
    bad.map(|finding| finding["subject"].as_str().unwrap_or_default().to_owned()).collect()
}
