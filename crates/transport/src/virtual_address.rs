//! The addresses that stand for connections under a client's QUIC.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Port of every virtual address. It says nothing, but QUIC wants one.
const PORT: u16 = 1;
/// Length of the prefix.
const PREFIX_BITS: u32 = 48;

/// Hands out virtual addresses, each once. They share a /48 of unique local addresses (RFC 4193) chosen at random, so
/// that no peer can name one.
#[derive(Debug)]
pub(crate) struct VirtualAddresses {
    prefix: u128,
    last: u64,
}

impl VirtualAddresses {
    pub(crate) fn new(random: [u8; 5]) -> Self {
        let [a, b, c, d, e] = random;
        let octets = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // The first is what the endpoint calls its own address.
        Self { prefix: u128::from_be_bytes(octets), last: 1 }
    }

    /// The endpoint's own.
    pub(crate) fn local(&self) -> SocketAddr {
        self.address(1)
    }

    /// One that was never given before.
    pub(crate) fn next(&mut self) -> SocketAddr {
        self.last += 1;
        self.address(self.last)
    }

    /// The first address of the prefix.
    pub(crate) fn prefix(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.prefix)
    }

    /// Whether `address` is of the prefix.
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        match address.ip() {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => (ip.to_bits() ^ self.prefix).leading_zeros() >= PREFIX_BITS,
        }
    }

    fn address(&self, number: u64) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.prefix | u128::from(number)).into(), PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_another_and_of_the_prefix() {
        let mut addresses = VirtualAddresses::new([1, 2, 3, 4, 5]);
        let (local, first, second) = (addresses.local(), addresses.next(), addresses.next());
        assert!(local != first && first != second);
        assert!([local, first, second].into_iter().all(|address| addresses.contains(address)));
        assert_eq!(addresses.prefix(), "fd01:203:405::".parse::<Ipv6Addr>().expect("a prefix"));
    }

    #[test]
    fn addresses_beside_the_prefix_are_not_of_it() {
        let addresses = VirtualAddresses::new([1, 2, 3, 4, 5]);
        for other in ["[fd01:203:406::2]:1", "[2001:db8::1]:1", "10.0.0.1:1"] {
            assert!(!addresses.contains(other.parse().expect("an address")), "{other}");
        }
    }
}
