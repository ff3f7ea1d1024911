//! What is mapped, put together from what the two IP versions have.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// How a router is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// The Internet Gateway Device of Universal Plug and Play.
    UpnpIgd,
}

impl Protocol {
    /// The word for it in events and scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::UpnpIgd => "upnp-igd",
        }
    }
}

impl fmt::Display for Protocol {
    /// The name that people know it by.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::UpnpIgd => "UPnP",
        })
    }
}

/// What the router lets through to this device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Addresses at which the port can be reached from the other side of the router, IPv4 first.
    pub addresses: Vec<SocketAddr>,
    /// How the router was asked. Where IPv4 and IPv6 differ, IPv4's.
    pub protocol: Option<Protocol>,
    /// True if an address is one that the internet does not know, such as 10.1.2.3 or 100.64.1.2: the router is behind a NAT of
    /// somebody else. The address still helps between two devices behind that one.
    pub is_double_nat: bool,
    /// True once every way has been tried after the start: what is missing will hardly come in the next minutes.
    pub is_settled: bool,
    /// Why nothing is mapped, in words.
    pub problem: Option<String>,
}

/// The two IP versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What one IP version has to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    pub(crate) mapped: Option<(SocketAddr, Protocol)>,
    pub(crate) is_settled: bool,
    pub(crate) problem: Option<String>,
}

/// Where the tasks of both IP versions write what they have.
#[derive(Debug)]
pub(crate) struct Board {
    /// IPv4's and IPv6's; `None` for one that is not asked for.
    parts: Mutex<[Option<Part>; 2]>,
    mapped: watch::Sender<Mapped>,
}

impl Board {
    pub(crate) fn new(families: impl Iterator<Item = Family>) -> Self {
        let mut parts = [None, None];
        for family in families {
            parts[family as usize] = Some(Part::default());
        }
        let (mapped, _) = watch::channel(merge(&parts));
        Self { parts: Mutex::new(parts), mapped }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Mapped> {
        self.mapped.subscribe()
    }

    pub(crate) fn write(&self, family: Family, part: Part) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[family as usize] = Some(part);
        let merged = merge(&parts);
        // Within the lock, so that of two writers the later one's stays. Only changes wake readers.
        self.mapped.send_if_modified(|mapped| {
            let is_changed = *mapped != merged;
            *mapped = merged;
            is_changed
        });
    }
}

fn merge(parts: &[Option<Part>; 2]) -> Mapped {
    let asked = || parts.iter().flatten();
    let mapped: Vec<(SocketAddr, Protocol)> = asked().filter_map(|part| part.mapped).collect();
    let addresses: Vec<SocketAddr> = mapped.iter().map(|(address, _)| *address).collect();
    Mapped {
        protocol: mapped.first().map(|(_, protocol)| *protocol),
        is_double_nat: addresses.iter().any(|address| is_behind_another_nat(address.ip())),
        is_settled: asked().all(|part| part.is_settled),
        // A missing pinhole is no problem where IPv4 is mapped: the calls have a way in.
        problem: if addresses.is_empty() { asked().find_map(|part| part.problem.clone()) } else { None },
        addresses,
    }
}

/// True for an outer address that is itself behind a NAT: private use (RFC 1918), shared by a provider's customers (RFC 6598), the inner side
/// of an IPv4 tunnel over IPv6 (RFC 6333).
fn is_behind_another_nat(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            ip.is_private() || (a == 100 && (64..128).contains(&b)) || (a == 192 && b == 0 && c == 0)
        }
        // A pinhole is to the device's own address, which is what it is on both sides.
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(address: &str, protocol: Protocol) -> Part {
        Part { mapped: Some((address.parse().expect("an address"), protocol)), is_settled: true, problem: None }
    }

    fn failed(problem: &str) -> Part {
        Part { mapped: None, is_settled: true, problem: Some(problem.to_owned()) }
    }

    #[test]
    fn a_mapped_port_makes_a_missing_pinhole_no_problem() {
        let board = Board::new([Family::V4, Family::V6].into_iter());
        let reader = board.subscribe();
        assert!(!reader.borrow().is_settled);
        board.write(Family::V6, failed("no pinhole"));
        assert_eq!(reader.borrow().problem.as_deref(), Some("no pinhole"));
        board.write(Family::V4, mapped("192.0.2.1:4000", Protocol::NatPmp));
        let seen = reader.borrow().clone();
        assert_eq!(seen.problem, None);
        assert_eq!(seen.protocol, Some(Protocol::NatPmp));
        assert!(seen.is_settled && !seen.is_double_nat);
    }

    #[test]
    fn outer_addresses_that_the_internet_does_not_know_are_marked() {
        for (address, is_double) in [
            ("10.1.2.3:1", true),
            ("192.168.178.20:1", true),
            ("172.16.0.1:1", true),
            ("100.64.0.1:1", true),
            ("100.127.255.1:1", true),
            ("192.0.0.2:1", true),
            ("100.128.0.1:1", false),
            ("198.51.100.7:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            let board = Board::new([Family::V4].into_iter());
            board.write(Family::V4, mapped(address, Protocol::Pcp));
            assert_eq!(board.subscribe().borrow().is_double_nat, is_double, "{address}");
        }
    }

    #[test]
    fn what_does_not_change_wakes_nobody() {
        let board = Board::new([Family::V4].into_iter());
        board.write(Family::V4, mapped("192.0.2.1:4000", Protocol::Pcp));
        let mut reader = board.subscribe();
        reader.mark_unchanged();
        board.write(Family::V4, mapped("192.0.2.1:4000", Protocol::Pcp));
        assert!(!reader.has_changed().expect("the board lives"));
    }
}
