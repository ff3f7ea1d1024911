//! What a device finds out about itself: which addresses to name to a peer, and what its NAT does, in the terms of RFC 4787.
//!
//! A router that translates shows in what others see: an address that is none of the device's own. Whether it is a kind one shows when two
//! observers are asked. If both see the same address and port, a peer will see it too (endpoint-independent mapping, RFC 4787 section 4.1);
//! if not, the address says nothing about what the peer will see, except perhaps that the port is near.

use ahoy_protocol::invitation::CANDIDATES_MAX;
use ahoy_protocol::peer::{Candidate, CandidateKind, Mapping};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What one observer saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Who looked: a supernode's or relay's address.
    pub observer: SocketAddr,
    /// Where this device's packet came from, to it.
    pub seen: SocketAddr,
}

/// What follows from all that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// Addresses to name to a peer, the best first, at most [`CANDIDATES_MAX`], each once.
    pub candidates: Vec<Candidate>,
    /// How the NAT maps. That of IPv4 where there are observations of it, since IPv6 is hardly ever translated.
    pub mapping: Mapping,
    /// Whether every observer saw the port that the device itself uses.
    pub preserves_port: bool,
    /// The outside addresses that observers saw, none of which is the device's own.
    pub reflexive: Vec<SocketAddr>,
}

/// Draws the conclusions. `hosts` are the device's own addresses with its port, [`CandidateKind::Host`] or [`CandidateKind::VpnHost`]; of an
/// observer's several observations the last counts; `port_mapped` are mappings that a router granted.
#[must_use]
pub fn assess(hosts: &[Candidate], observations: &[Observation], port_mapped: &[SocketAddr]) -> Assessment {
    let seen_by: BTreeMap<SocketAddr, SocketAddr> = observations.iter().map(|one| (one.observer, one.seen)).collect();
    let own: BTreeSet<SocketAddr> = hosts.iter().map(|host| host.address).collect();
    let reflexive: BTreeSet<SocketAddr> = seen_by.values().copied().filter(|seen| !own.contains(seen)).collect();
    let ports: BTreeSet<u16> = own.iter().map(SocketAddr::port).collect();
    Assessment {
        candidates: candidates(hosts, &reflexive, port_mapped),
        mapping: mapping(&own, &seen_by),
        preserves_port: !seen_by.is_empty() && seen_by.values().all(|seen| ports.contains(&seen.port())),
        reflexive: reflexive.into_iter().collect(),
    }
}

fn mapping(own: &BTreeSet<SocketAddr>, seen_by: &BTreeMap<SocketAddr, SocketAddr>) -> Mapping {
    let has_v4 = seen_by.values().any(SocketAddr::is_ipv4);
    let seen: Vec<SocketAddr> = seen_by.values().copied().filter(|seen| seen.is_ipv4() == has_v4).collect();
    match seen.as_slice() {
        [] => Mapping::Unknown,
        seen if seen.iter().all(|seen| own.contains(seen)) => Mapping::Open,
        [_] => Mapping::Unknown,
        [first, others @ ..] if others.iter().all(|other| other == first) => Mapping::EndpointIndependent,
        [..] => Mapping::EndpointDependent,
    }
}

fn candidates(hosts: &[Candidate], reflexive: &BTreeSet<SocketAddr>, port_mapped: &[SocketAddr]) -> Vec<Candidate> {
    let of_kind = |kind| move |address: &SocketAddr| Candidate { address: *address, kind };
    // A mapping that was asked for is also what observers see where it is the only one; then the better kind names it.
    let all = port_mapped.iter().map(of_kind(CandidateKind::PortMapped));
    let all = all.chain(hosts.iter().copied()).chain(reflexive.iter().map(of_kind(CandidateKind::ServerReflexive)));
    let mut named = BTreeSet::new();
    let mut candidates: Vec<Candidate> = all.filter(|candidate| named.insert(candidate.address)).collect();
    candidates.sort_by_key(|candidate| (place(candidate), candidate.address));
    candidates.truncate(CANDIDATES_MAX);
    candidates
}

/// Place in the order: what is likeliest to be reached from anywhere comes first, since only so many fit into a message.
fn place(candidate: &Candidate) -> u8 {
    match (candidate.kind, candidate.address.ip()) {
        (CandidateKind::PortMapped, _) => 0,
        (CandidateKind::ServerReflexive | CandidateKind::PeerReflexive, _) => 1,
        (CandidateKind::Host, IpAddr::V6(ip)) if is_global(ip) => 2,
        (CandidateKind::Host, IpAddr::V4(ip)) if !is_bridge(ip) && !ip.is_link_local() => 3,
        (CandidateKind::Host, IpAddr::V6(_)) => 4,
        (CandidateKind::VpnHost, _) => 5,
        (CandidateKind::Host, IpAddr::V4(_)) => 6,
    }
}

/// Global unicast addresses (RFC 4291, section 2.4).
fn is_global(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xe000 == 0x2000
}

/// The address at which container programs put their bridge by default: `172.17.0.1` and its like, which lead nowhere from outside.
fn is_bridge(ip: Ipv4Addr) -> bool {
    let [a, b, c, d] = ip.octets();
    a == 172 && (17..32).contains(&b) && c == 0 && d == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(address: &str) -> Candidate {
        Candidate { address: address.parse().expect("address"), kind: CandidateKind::Host }
    }

    fn seen(observer: &str, seen: &str) -> Observation {
        Observation { observer: observer.parse().expect("address"), seen: seen.parse().expect("address") }
    }

    const ONE: &str = "198.51.100.1:4433";
    const TWO: &str = "198.51.100.2:4433";
    const HOME: &str = "192.168.1.10:5000";

    fn mapping_of(observations: &[Observation]) -> Mapping {
        assess(&[host(HOME), host("[2001:db8::7]:5000")], observations, &[]).mapping
    }

    #[test]
    fn two_observers_tell_the_mapping() {
        assert_eq!(mapping_of(&[]), Mapping::Unknown);
        assert_eq!(mapping_of(&[seen(ONE, "203.0.113.1:5000")]), Mapping::Unknown);
        assert_eq!(mapping_of(&[seen(ONE, "203.0.113.1:5000"), seen(TWO, "203.0.113.1:5000")]), Mapping::EndpointIndependent);
        assert_eq!(mapping_of(&[seen(ONE, "203.0.113.1:5000"), seen(TWO, "203.0.113.1:5001")]), Mapping::EndpointDependent);
        assert_eq!(mapping_of(&[seen(ONE, "203.0.113.1:5000"), seen(TWO, "203.0.113.9:5000")]), Mapping::EndpointDependent);
        assert_eq!(mapping_of(&[seen(ONE, HOME)]), Mapping::Open);
    }

    #[test]
    fn an_observer_asked_twice_is_one_observer() {
        assert_eq!(mapping_of(&[seen(ONE, "203.0.113.1:5000"), seen(ONE, "203.0.113.1:5001")]), Mapping::Unknown);
    }

    #[test]
    fn ipv4_tells_the_mapping_where_there_is_both() {
        let v6 = seen("[2001:db8:1::1]:9", "[2001:db8::7]:5000");
        assert_eq!(mapping_of(&[v6]), Mapping::Open);
        assert_eq!(mapping_of(&[v6, seen(ONE, "203.0.113.1:1"), seen(TWO, "203.0.113.1:2")]), Mapping::EndpointDependent);
    }

    #[test]
    fn a_port_that_observers_see_too_is_preserved() {
        assert!(assess(&[host(HOME)], &[seen(ONE, "203.0.113.1:5000")], &[]).preserves_port);
        assert!(!assess(&[host(HOME)], &[seen(ONE, "203.0.113.1:5001")], &[]).preserves_port);
        assert!(!assess(&[host(HOME)], &[], &[]).preserves_port);
    }

    #[test]
    fn candidates_are_named_once_with_the_best_first() {
        let vpn = Candidate { address: "10.8.0.2:5000".parse().expect("address"), kind: CandidateKind::VpnHost };
        let hosts = [host("172.17.0.1:5000"), vpn, host(HOME), host("[fd00::7]:5000"), host("[2001:db8::7]:5000"), host(HOME)];
        let mapped = "203.0.113.1:6000".parse().expect("address");
        let assessed = assess(&hosts, &[seen(ONE, "203.0.113.1:6000"), seen(TWO, "203.0.113.1:5000")], &[mapped]);
        let order: Vec<String> = assessed.candidates.iter().map(|candidate| candidate.address.to_string()).collect();
        assert_eq!(
            order,
            [
                "203.0.113.1:6000",
                "203.0.113.1:5000",
                "[2001:db8::7]:5000",
                "192.168.1.10:5000",
                "[fd00::7]:5000",
                "10.8.0.2:5000",
                "172.17.0.1:5000"
            ]
        );
        assert_eq!(assessed.candidates[0].kind, CandidateKind::PortMapped);
    }

    #[test]
    fn candidates_are_bounded() {
        let hosts: Vec<Candidate> = (1..=60).map(|port| host(&format!("192.168.1.10:{port}"))).collect();
        assert_eq!(assess(&hosts, &[], &[]).candidates.len(), CANDIDATES_MAX);
    }
}
