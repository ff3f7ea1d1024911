//! This machine's own addresses: which ones a peer may be told, and which of a peer's are on-link.

use ahoy_path::Subnet;
use ahoy_protocol::invitation::CANDIDATES_MAX;
use ahoy_protocol::peer::{Candidate, CandidateKind};
use if_addrs::{IfAddr, IfOperStatus, Interface};
use std::net::SocketAddr;

/// How the interfaces of virtual private networks are named, by the programs that make them.
const VPN_NAMES: [&str; 9] = ["tun", "tap", "wg", "utun", "ppp", "tailscale", "zt", "ipsec", "nordlynx"];

/// The machine's interfaces as they are. Where the system does not say, there are none, and calls use what others see.
pub(crate) fn all() -> Vec<Interface> {
    if_addrs::get_if_addrs().unwrap_or_default()
}

/// Whether other machines may be reached from an interface's address. Link-local addresses mean nothing without the name of an interface,
/// which is another on each machine.
pub(crate) fn is_of_use(interface: &Interface) -> bool {
    interface.oper_status != IfOperStatus::Down && !interface.is_link_local() && !interface.is_loopback()
}

/// Length of the prefix of an interface's network.
pub(crate) fn prefix_bits(interface: &Interface) -> u8 {
    match &interface.addr {
        IfAddr::V4(address) => address.prefixlen,
        IfAddr::V6(address) => address.prefixlen,
    }
}

/// Whether an interface is one of a virtual private network, as far as its name and kind show.
fn is_vpn(interface: &Interface) -> bool {
    interface.is_p2p || VPN_NAMES.iter().any(|name| interface.name.to_ascii_lowercase().starts_with(name))
}

/// Candidates for a socket whose ports are `port_v4` and, where it has one, `port_v6`. Loopback is left out unless the peer may be on this
/// machine.
pub(crate) fn candidates(interfaces: &[Interface], port_v4: u16, port_v6: Option<u16>, allow_loopback: bool) -> Vec<Candidate> {
    let candidate = |interface: &Interface| {
        let port = if interface.ip().is_ipv4() { Some(port_v4) } else { port_v6 };
        let kind = if is_vpn(interface) { CandidateKind::VpnHost } else { CandidateKind::Host };
        port.map(|port| Candidate { address: SocketAddr::new(interface.ip(), port), kind })
    };
    interfaces
        .iter()
        .filter(|interface| is_of_use(interface) || (allow_loopback && interface.is_loopback()))
        .filter_map(candidate)
        .take(CANDIDATES_MAX)
        .collect()
}

/// The ranges of addresses that are on-link. What a virtual private network calls its link may be the other end of the world.
pub(crate) fn subnets(interfaces: &[Interface]) -> Vec<Subnet> {
    let subnet = |interface: &Interface| Subnet::new(interface.ip(), prefix_bits(interface));
    // A prefix of no bits is a missing netmask, not a link to everybody.
    interfaces.iter().filter(|interface| prefix_bits(interface) > 0 && !is_vpn(interface)).map(subnet).collect()
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

    #[test]
    fn a_private_networks_address_is_told_as_such_and_is_on_nobodys_link() {
        let mut interface = machine().swap_remove(1);
        interface.name = "wg0".into();
        let kinds = |interface: &Interface| candidates(std::slice::from_ref(interface), 1, None, false)[0].kind;
        assert_eq!(kinds(&interface), CandidateKind::VpnHost);
        assert!(subnets(std::slice::from_ref(&interface)).is_empty());
        interface.name = "eth0".into();
        assert_eq!(kinds(&interface), CandidateKind::Host);
        interface.is_p2p = true;
        assert_eq!(kinds(&interface), CandidateKind::VpnHost);
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
