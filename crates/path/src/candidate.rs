//! Which addresses may be probed at all, and which are on-link.
//!
//! A candidate is a claim of the peer's, and the peer may be anybody who was answered. So an address is refused where a probe could only do
//! harm or mislead: no host is there (unspecified, port 0), many are (multicast, broadcast), it is another way to write an address
//! (IPv4-mapped), it means something else on each machine (link-local, loopback), or it is one of the virtual addresses under QUIC.

use ahoy_protocol::invitation::CANDIDATES_MAX;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use thiserror::Error;

/// Addresses of the peer that one agent knows: all that a message may carry, and as many again that were learned from its PINGs, since a
/// router with a mapping for each destination shows one address for each of ours. Of those that are too many, the one that was silent for
/// longest goes.
pub const REMOTES_MAX: usize = 2 * CANDIDATES_MAX;

/// Length of the prefix of virtual addresses.
const VIRTUAL_PREFIX_BITS: u8 = 48;

/// A range of addresses at one of this device's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix_bits: u8,
}

impl Subnet {
    /// The range of all addresses that share their first `prefix_bits` with `address`; more bits than there are mean all of them.
    #[must_use]
    pub fn new(address: IpAddr, prefix_bits: u8) -> Self {
        Self { address, prefix_bits }
    }

    /// Whether `ip` is inside.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.leading_zeros() >= u32::from(self.prefix_bits.min(32))
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.leading_zeros() >= u32::from(self.prefix_bits.min(128))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Why an address is not probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Port 0 names no socket.
    #[error("port 0")]
    NoPort,
    /// 0.0.0.0/8 or ::.
    #[error("unspecified address")]
    Unspecified,
    /// Many hosts.
    #[error("multicast or broadcast address")]
    ManyHosts,
    /// An IPv4 address in an IPv6 one.
    #[error("IPv4-mapped address")]
    Mapped,
    /// Means nothing without an interface.
    #[error("link-local address")]
    LinkLocal,
    /// This machine.
    #[error("loopback address")]
    Loopback,
    /// One of the addresses that stand for connections and not for hosts.
    #[error("virtual address")]
    Virtual,
}

/// What decides on addresses. The socket that sends may ask the same rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressRules {
    /// Whether the peer may be on this machine.
    pub allow_loopback: bool,
    /// The /48 of virtual addresses, which no real peer may claim.
    pub virtual_prefix: Option<Ipv6Addr>,
}

impl AddressRules {
    /// Says whether `address` may be probed.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, address: SocketAddr) -> Result<(), Refused> {
        if address.port() == 0 {
            return Err(Refused::NoPort);
        }
        if address.ip().is_loopback() {
            return if self.allow_loopback { Ok(()) } else { Err(Refused::Loopback) };
        }
        match address.ip() {
            IpAddr::V4(ip) => check_v4(ip),
            IpAddr::V6(ip) => self.check_v6(ip),
        }
    }

    fn check_v6(&self, ip: Ipv6Addr) -> Result<(), Refused> {
        if ip.is_unspecified() {
            Err(Refused::Unspecified)
        } else if ip.is_multicast() {
            Err(Refused::ManyHosts)
        } else if ip.to_ipv4_mapped().is_some() {
            Err(Refused::Mapped)
        } else if ip.is_unicast_link_local() {
            Err(Refused::LinkLocal)
        } else if self.virtual_prefix.is_some_and(|prefix| Subnet::new(prefix.into(), VIRTUAL_PREFIX_BITS).contains(ip.into())) {
            Err(Refused::Virtual)
        } else {
            Ok(())
        }
    }
}

fn check_v4(ip: Ipv4Addr) -> Result<(), Refused> {
    if ip.octets()[0] == 0 {
        Err(Refused::Unspecified)
    } else if ip.is_multicast() || ip.is_broadcast() {
        Err(Refused::ManyHosts)
    } else {
        Ok(())
    }
}

/// `address` without what says nothing about the host: flow label and interface number, of which a received address may have other values.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> AddressRules {
        AddressRules { allow_loopback: false, virtual_prefix: Some("fd5a:1b2c:3d4e::".parse().expect("prefix")) }
    }

    fn verdict(address: &str) -> Result<(), Refused> {
        rules().check(address.parse().expect("address"))
    }

    #[test]
    fn addresses_of_hosts_are_probed() {
        for address in
            ["192.168.1.7:4000", "10.0.0.1:1", "100.64.3.3:9", "203.0.113.5:65535", "[2001:db8::1]:443", "[fd00::1]:443", "169.254.3.3:7"]
        {
            assert_eq!(verdict(address), Ok(()), "{address}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for (address, why) in [
            ("192.0.2.1:0", Refused::NoPort),
            ("0.0.0.0:9", Refused::Unspecified),
            ("[::]:9", Refused::Unspecified),
            ("224.0.0.251:5353", Refused::ManyHosts),
            ("255.255.255.255:9", Refused::ManyHosts),
            ("[ff02::fb]:5353", Refused::ManyHosts),
            ("[::ffff:192.0.2.1]:9", Refused::Mapped),
            ("[fe80::1]:9", Refused::LinkLocal),
            ("127.3.2.1:9", Refused::Loopback),
            ("[::1]:9", Refused::Loopback),
            ("[fd5a:1b2c:3d4e:ffff::1]:9", Refused::Virtual),
        ] {
            assert_eq!(verdict(address), Err(why), "{address}");
        }
    }

    #[test]
    fn loopback_is_probed_only_where_it_is_allowed() {
        let rules = AddressRules { allow_loopback: true, ..rules() };
        assert_eq!(rules.check("127.0.0.1:9".parse().expect("address")), Ok(()));
        assert_eq!(rules.check("[::1]:9".parse().expect("address")), Ok(()));
        assert_eq!(rules.check("127.0.0.1:0".parse().expect("address")), Err(Refused::NoPort));
    }

    #[test]
    fn a_subnet_ends_at_its_prefix() {
        let home = Subnet::new("192.168.4.9".parse().expect("ip"), 22);
        assert!(home.contains("192.168.7.1".parse().expect("ip")));
        assert!(!home.contains("192.168.8.1".parse().expect("ip")));
        assert!(!home.contains("::1".parse().expect("ip")));
        let all = Subnet::new("0.0.0.0".parse().expect("ip"), 0);
        assert!(all.contains("8.8.8.8".parse().expect("ip")));
        let one = Subnet::new("2001:db8::1".parse().expect("ip"), 200);
        assert!(one.contains("2001:db8::1".parse().expect("ip")) && !one.contains("2001:db8::2".parse().expect("ip")));
    }
}
