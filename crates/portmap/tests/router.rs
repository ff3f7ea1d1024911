//! The port mapper against a real router's daemon (miniupnpd), in network namespaces. Skipped, with a word about it, where these cannot be had.

use ahoy_lab::{Lab, Nat, PortMapper as RouterDaemon, Router, Spot, in_namespace, lab_or_skip_with};
use ahoy_portmap::{Mapped, PortMapper, Protocol};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use tokio::time::timeout;

const PORT: u16 = 45_551;
/// Far more than a round of all protocols takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_port_is_mapped_a_stranger_gets_through_and_the_router_gets_it_back() {
    let Some((mut lab, home, router)) = home() else { return };
    let stranger = lab.host("stranger");
    lab.switch_on();
    let daemon = RouterDaemon::start(&router);
    within(&home, async {
        let mapper = PortMapper::start(PORT, None, 1);
        let mapped = settled(&mapper).await;
        assert_eq!(mapped.addresses, [SocketAddr::new(router.ip, PORT)]);
        assert_eq!(mapped.protocol, Some(Protocol::Pcp));
        assert!(!mapped.is_double_nat && mapped.problem.is_none(), "{mapped:?}");
        assert!(!daemon.mappings().is_empty());

        let socket = tokio::net::UdpSocket::bind(("0.0.0.0", PORT)).await.expect("the port is free");
        send_from(&stranger, mapped.addresses[0]);
        let mut heard = [0; 16];
        let (length, from) = timeout(PATIENCE, socket.recv_from(&mut heard)).await.expect("it comes through").expect("it is read");
        assert_eq!((&heard[..length], from.ip()), (&b"ahoy"[..], stranger.ip));

        mapper.stop().await;
        assert_eq!(daemon.mappings(), Vec::<String>::new(), "what was mapped is taken back");
    });
}

#[test]
fn what_a_router_does_not_speak_is_followed_by_what_it_speaks() {
    // PCP and NAT-PMP come to the same port; the version is the first byte.
    for (silence, protocol) in [("udp dport 5351 @th,64,8 2 drop", Protocol::NatPmp), ("udp dport 5351 drop", Protocol::UpnpIgd)] {
        let Some((mut lab, home, router)) = home() else { return };
        lab.switch_on();
        let daemon = RouterDaemon::start(&router);
        let chain = format!("add table inet silence; add chain inet silence in {{ type filter hook input priority 0; {silence}; }}");
        nft(&router, &[&chain]);
        within(&home, async {
            let mapper = PortMapper::start(PORT, None, 1);
            let mapped = settled(&mapper).await;
            assert_eq!((mapped.protocol, mapped.addresses.as_slice()), (Some(protocol), &[SocketAddr::new(router.ip, PORT)][..]));
            mapper.stop().await;
            assert_eq!(daemon.mappings(), Vec::<String>::new(), "{protocol}");
        });
    }
}

#[test]
fn a_mapping_is_taken_back_when_its_owner_is_dropped() {
    let Some((lab, home, router)) = home() else { return };
    let mut lab = lab;
    lab.switch_on();
    let daemon = RouterDaemon::start(&router);
    within(&home, async {
        let mapper = PortMapper::start(PORT, None, 1);
        settled(&mapper).await;
        assert!(!daemon.mappings().is_empty());
        drop(mapper);
        let is_gone = async {
            while !daemon.mappings().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, is_gone).await.expect("the mapping goes");
    });
}

#[test]
fn a_router_that_begins_to_map_ports_is_found_when_the_network_changes() {
    let Some((mut lab, home, router)) = home() else { return };
    lab.switch_on();
    within(&home, async {
        let mapper = PortMapper::start(PORT, None, 1);
        let mapped = settled(&mapper).await;
        assert!(mapped.addresses.is_empty() && mapped.protocol.is_none());
        assert!(mapped.problem.is_some_and(|problem| problem.contains("router")));
        let _daemon = RouterDaemon::start(&router);
        mapper.renew_now();
        let mut addresses = mapper.addresses();
        let found = timeout(PATIENCE, addresses.wait_for(|mapped| !mapped.addresses.is_empty())).await.expect("it asks again");
        assert_eq!(found.expect("the mapper lives").problem, None);
        mapper.stop().await;
    });
}

#[test]
fn a_firewall_for_ipv6_gets_a_hole_and_is_closed_again() {
    let Some(mut lab) = lab_or_skip_with(&["miniupnpd"]) else { return };
    let (home, router) = lab.behind_firewall_v6("home");
    lab.switch_on();
    let _daemon = RouterDaemon::start(&router);
    within(&home, async {
        let mapper = PortMapper::start(PORT, Some(PORT), 1);
        let mapped = settled(&mapper).await;
        assert_eq!(mapped.addresses, [SocketAddr::new(home.ip, PORT)]);
        assert!(holes(&router).contains(&PORT.to_string()), "{}", holes(&router));
        mapper.stop().await;
        assert!(!holes(&router).contains(&PORT.to_string()), "{}", holes(&router));
    });
}

/// The rules by which the daemon lets packets pass.
fn holes(router: &Router) -> String {
    nft(router, &["list", "chain", "inet", "mapper", "miniupnpd"])
}

/// Asks or tells a router's firewall.
fn nft(router: &Router, arguments: &[&str]) -> String {
    let namespace = router.spot().namespace.expect("the router is in a namespace");
    let command = [&["netns", "exec", &namespace, "nft"], arguments].concat();
    let output = std::process::Command::new("ip").args(command).output().expect("the firewall answers");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A laboratory with a home whose router has a NAT that lets nobody in.
fn home() -> Option<(Lab, Spot, Router)> {
    let mut lab = lab_or_skip_with(&["miniupnpd"])?;
    let (home, router) = lab.behind_nat("home", Nat::RandomPorts);
    Some((lab, home, router))
}

async fn settled(mapper: &PortMapper) -> Mapped {
    let mut addresses = mapper.addresses();
    let settled = timeout(PATIENCE, addresses.wait_for(|mapped| mapped.is_settled)).await.expect("a round has an end");
    settled.expect("the mapper lives").clone()
}

fn send_from(spot: &Spot, to: SocketAddr) {
    in_namespace(spot, || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        socket.send_to(b"ahoy", to).expect("it can be sent");
    });
}

/// Runs `work` in a spot's namespace.
fn within(spot: &Spot, work: impl Future<Output = ()> + Send) {
    in_namespace(spot, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work);
    });
}
