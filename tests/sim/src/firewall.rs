//! A stateful firewall that translates nothing: what stands before IPv6 hosts (RFC 6092).

use crate::nat::Filtering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a leave to send in lasts after the last packet that went out.
const IDLE: Duration = Duration::from_secs(120);

/// A firewall.
#[derive(Debug)]
pub struct Firewall {
    filtering: Filtering,
    /// Inside socket and who may send to it, as far as the filter looks at it.
    leave: BTreeMap<(SocketAddr, Option<SocketAddr>), Duration>,
    /// Sockets that asked to be reachable for everybody.
    pinholes: BTreeSet<SocketAddr>,
}

impl Firewall {
    /// A firewall that has seen nothing yet.
    #[must_use]
    pub fn new(filtering: Filtering) -> Self {
        Self { filtering, leave: BTreeMap::new(), pinholes: BTreeSet::new() }
    }

    /// Forgets everything.
    pub fn reboot(&mut self) {
        self.leave.clear();
        self.pinholes.clear();
    }

    /// Lets anybody reach `inside`, as a port mapping protocol asks for it.
    pub fn open(&mut self, inside: SocketAddr) {
        self.pinholes.insert(inside);
    }

    /// A packet goes out.
    pub fn outbound(&mut self, now: Duration, inside: SocketAddr, to: SocketAddr) {
        self.leave.insert((inside, self.filtered(to)), now);
    }

    /// Whether a packet comes in.
    #[must_use]
    pub fn lets_in(&self, now: Duration, inside: SocketAddr, from: SocketAddr) -> bool {
        self.pinholes.contains(&inside)
            || self.leave.get(&(inside, self.filtered(from))).is_some_and(|sent| now.saturating_sub(*sent) < IDLE)
    }

    fn filtered(&self, address: SocketAddr) -> Option<SocketAddr> {
        match self.filtering {
            Filtering::EndpointIndependent => None,
            Filtering::AddressDependent => Some(SocketAddr::new(address.ip(), 0)),
            Filtering::AddressAndPortDependent => Some(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn only_who_was_sent_something_gets_in_and_not_for_ever() {
        let mut firewall = Firewall::new(Filtering::AddressAndPortDependent);
        let (inside, peer, other) = (address("[2001:db8:1::1]:5"), address("[2001:db8:2::1]:6"), address("[2001:db8:2::1]:7"));
        assert!(!firewall.lets_in(NOW, inside, peer));
        firewall.outbound(NOW, inside, peer);
        assert!(firewall.lets_in(NOW, inside, peer) && !firewall.lets_in(NOW, inside, other));
        assert!(!firewall.lets_in(NOW + IDLE, inside, peer));
    }

    #[test]
    fn a_pinhole_lets_anybody_in_until_the_next_reboot() {
        let mut firewall = Firewall::new(Filtering::AddressAndPortDependent);
        let (inside, peer) = (address("[2001:db8:1::1]:5"), address("[2001:db8:2::1]:6"));
        firewall.open(inside);
        assert!(firewall.lets_in(NOW, inside, peer));
        firewall.reboot();
        assert!(!firewall.lets_in(NOW, inside, peer));
    }
}
