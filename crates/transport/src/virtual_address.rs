//! The addresses that stand for connections under a client's QUIC.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Port of every virtual address. It says nothing, but QUIC wants one.
const PORT: u16 = 1;
/// Length of the prefix.
const PREFIX_BITS: u32 = 48;

/// Number of the subnet that tunnels' addresses are in. Connections' are in number 0.
const TUNNEL_SUBNET: u16 = 1;
/// Bits after the subnet's number.
const INTERFACE_BITS: u32 = 64;

/// The /48 of unique local addresses (RFC 4193) that an endpoint's virtual addresses share, chosen at random, so that no peer can name one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtualPrefix(u128);

impl VirtualPrefix {
    /// The first address of the prefix.
    pub(crate) fn network(self) -> Ipv6Addr {
        Ipv6Addr::from(self.0)
    }

    /// Whether `address` is of the prefix.
    pub(crate) fn contains(self, address: SocketAddr) -> bool {
        match address.ip() {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => (ip.to_bits() ^ self.0).leading_zeros() >= PREFIX_BITS,
        }
    }

    /// Whether `address` is of the prefix and stands for the far end of a tunnel, to which datagrams go as to a real address.
    pub(crate) fn is_tunnel(self, address: SocketAddr) -> bool {
        match address.ip() {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => self.contains(address) && (ip.to_bits() >> INTERFACE_BITS) as u16 == TUNNEL_SUBNET,
        }
    }

    fn address(self, number: u128) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.0 | number).into(), PORT)
    }
}

/// Hands out virtual addresses, each once.
#[derive(Debug)]
pub(crate) struct VirtualAddresses {
    prefix: VirtualPrefix,
    last: u64,
}

impl VirtualAddresses {
    pub(crate) fn new(random: [u8; 5]) -> Self {
        let [a, b, c, d, e] = random;
        let octets = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // The first is what the endpoint calls its own address.
        Self { prefix: VirtualPrefix(u128::from_be_bytes(octets)), last: 1 }
    }

    /// What they share.
    pub(crate) fn prefix(&self) -> VirtualPrefix {
        self.prefix
    }

    /// The endpoint's own.
    pub(crate) fn local(&self) -> SocketAddr {
        self.prefix.address(1)
    }

    /// One that was never given before, for a connection.
    pub(crate) fn next(&mut self) -> SocketAddr {
        self.last += 1;
        self.prefix.address(self.last.into())
    }

    /// One that was never given before, for a tunnel.
    pub(crate) fn next_tunnel(&mut self) -> SocketAddr {
        self.last += 1;
        self.prefix.address(u128::from(TUNNEL_SUBNET) << INTERFACE_BITS | u128::from(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_another_and_of_the_prefix() {
        let mut addresses = VirtualAddresses::new([1, 2, 3, 4, 5]);
        let (local, first, second, tunnel) = (addresses.local(), addresses.next(), addresses.next(), addresses.next_tunnel());
        assert!(local != first && first != second);
        assert!([local, first, second, tunnel].into_iter().all(|address| addresses.prefix().contains(address)));
        assert_eq!(addresses.prefix().network(), "fd01:203:405::".parse::<Ipv6Addr>().expect("a prefix"));
    }

    #[test]
    fn addresses_beside_the_prefix_are_not_of_it() {
        let prefix = VirtualAddresses::new([1, 2, 3, 4, 5]).prefix();
        for other in ["[fd01:203:406::2]:1", "[fd01:203:406:1::2]:1", "[2001:db8::1]:1", "10.0.0.1:1"] {
            let other = other.parse().expect("an address");
            assert!(!prefix.contains(other) && !prefix.is_tunnel(other), "{other}");
        }
    }

    #[test]
    fn tunnels_are_told_from_connections() {
        let mut addresses = VirtualAddresses::new([1, 2, 3, 4, 5]);
        let (connection, tunnel) = (addresses.next(), addresses.next_tunnel());
        assert!(addresses.prefix().is_tunnel(tunnel));
        assert!(!addresses.prefix().is_tunnel("[fd01:203:405:9::2]:1".parse().expect("an address")));
        assert!(!addresses.prefix().is_tunnel(connection) && !addresses.prefix().is_tunnel(addresses.local()));
    }
}
