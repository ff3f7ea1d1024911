//! This machine's own addresses: which ones a peer may be told, and which of a peer's are on-link.

use ahoy_path::Subnet;
use ahoy_protocol::invitation::CANDIDATES_MAX;
use ahoy_protocol::peer::{Candidate, CandidateKind};
use if_addrs::{IfAddr, IfOperStatus, Interface};
use std::net::{IpAddr, SocketAddr};

/// The machine's interfaces as they are. Where the system does not say, there are none, and calls use what others see.
pub(crate) fn all() -> Vec<Interface> {
    if_addrs::get_if_addrs().unwrap_or_default()
}

/// Candidates for a socket whose ports are `port_v4` and, where it has one, `port_v6`.
///
/// Link-local addresses are left out, because they mean nothing without the name of an interface, which is another on
/// each machine. Loopback is left out unless the peer may be on this machine.
pub(crate) fn candidates(interfaces: &[Interface], port_v4: u16, port_v6: Option<u16>, allow_loopback: bool) -> Vec<Candidate> {
    let address = |interface: &Interface| match interface.ip() {
        ip @ IpAddr::V4(_) => Some(SocketAddr::new(ip, port_v4)),
        ip @ IpAddr::V6(_) => port_v6.map(|port| SocketAddr::new(ip, port)),
    };
    interfaces
        .iter()
        .filter(|interface| interface.oper_status != IfOperStatus::Down && !interface.is_link_local())
        .filter(|interface| allow_loopback || !interface.is_loopback())
        .filter_map(address)
        .map(|address| Candidate { address, kind: CandidateKind::Host })
        .take(CANDIDATES_MAX)
        .collect()
}

/// The ranges of addresses that are on-link.
pub(crate) fn subnets(interfaces: &[Interface]) -> Vec<Subnet> {
    let subnet = |interface: &Interface| match &interface.addr {
        IfAddr::V4(address) => Subnet::new(address.ip.into(), address.prefixlen),
        IfAddr::V6(address) => Subnet::new(address.ip.into(), address.prefixlen),
    };
    // A prefix of no bits is a missing netmask, not a link to everybody.
    let has_prefix = |interface: &&Interface| match &interface.addr {
        IfAddr::V4(address) => address.prefixlen > 0,
        IfAddr::V6(address) => address.prefixlen > 0,
    };
    interfaces.iter().filter(has_prefix).map(subnet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use if_addrs::{Ifv4Addr, Ifv6Addr};

    fn interface(addr: IfAddr) -> Interface {
        Interface { name: "test".into(), addr, index: None, oper_status: IfOperStatus::Up, is_p2p: false }
    }

    fn machine() -> Vec<Interface> {
        let v4 = |ip: &str, prefixlen| {
            let (ip, netmask) = (ip.parse().expect("v4"), [0, 0, 0, 0].into());
            interface(IfAddr::V4(Ifv4Addr { ip, netmask, prefixlen, broadcast: None }))
        };
        let v6 = |ip: &str, prefixlen| {
            let (ip, netmask) = (ip.parse().expect("v6"), [0; 16].into());
            interface(IfAddr::V6(Ifv6Addr { ip, netmask, prefixlen, broadcast: None }))
        };
        vec![v4("127.0.0.1", 8), v4("192.0.2.7", 24), v6("::1", 128), v6("fe80::1", 64), v6("2001:db8::7", 64)]
    }

    fn told(port_v6: Option<u16>, allow_loopback: bool) -> Vec<String> {
        candidates(&machine(), 4000, port_v6, allow_loopback).iter().map(|candidate| candidate.address.to_string()).collect()
    }

    #[test]
    fn peers_are_told_neither_loopback_nor_link_local_addresses() {
        assert_eq!(told(Some(4001), false), ["192.0.2.7:4000", "[2001:db8::7]:4001"]);
    }

    #[test]
    fn a_peer_on_this_machine_is_told_loopback_too() {
        assert_eq!(told(Some(4001), true), ["127.0.0.1:4000", "192.0.2.7:4000", "[::1]:4001", "[2001:db8::7]:4001"]);
    }

    #[test]
    fn without_an_ipv6_socket_no_ipv6_address_is_told() {
        assert_eq!(told(None, false), ["192.0.2.7:4000"]);
    }

    #[test]
    fn neighbours_are_on_link_and_others_are_not() {
        let subnets = subnets(&machine());
        let on_link = |ip: &str| subnets.iter().any(|subnet| subnet.contains(ip.parse().expect("an address")));
        assert!(on_link("192.0.2.200") && on_link("2001:db8::99") && on_link("127.0.0.1"));
        assert!(!on_link("192.0.3.1") && !on_link("2001:db8:1::1"));
    }
}
