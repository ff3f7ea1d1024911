//! How many control connections there are, in all and from one place.

use crate::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_PREFIX_MAX};
use std::collections::HashMap;
use std::net::IpAddr;

/// Counts connections by the prefix they come from.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    connections: usize,
    by_prefix: HashMap<Prefix, usize>,
}

/// The part of an address that whoever has it cannot easily change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Prefix {
    /// This machine: whoever is on it can do worse than connect.
    Loopback,
    /// A /24.
    V4([u8; 3]),
    /// A /48.
    V6([u16; 3]),
}

impl Prefix {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                Self::V6([a, b, c])
            }
        }
    }
}

impl Admission {
    /// Counts one more connection from `prefix`, if there is room for it. [`Admission::leave`] takes it back.
    pub(crate) fn enter(&mut self, prefix: Prefix) -> bool {
        let here = self.by_prefix.get(&prefix).copied().unwrap_or(0);
        let crowded = prefix != Prefix::Loopback && here >= CONNECTIONS_PER_PREFIX_MAX;
        if crowded || self.connections >= CONNECTIONS_MAX {
            return false;
        }
        self.connections += 1;
        self.by_prefix.insert(prefix, here + 1);
        true
    }

    /// One connection from `prefix` has gone.
    pub(crate) fn leave(&mut self, prefix: Prefix) {
        let Some(here) = self.by_prefix.get_mut(&prefix) else { return };
        *here -= 1;
        if *here == 0 {
            self.by_prefix.remove(&prefix);
        }
        self.connections -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(ip: &str) -> Prefix {
        Prefix::of(ip.parse().expect("an address"))
    }

    #[test]
    fn one_prefix_cannot_take_all_places() {
        let mut admission = Admission::default();
        for _ in 0..CONNECTIONS_PER_PREFIX_MAX {
            assert!(admission.enter(prefix("192.0.2.1")));
        }
        assert!(!admission.enter(prefix("192.0.2.200")), "the same /24 is one prefix");
        assert!(admission.enter(prefix("198.51.100.1")));
        admission.leave(prefix("192.0.2.7"));
        assert!(admission.enter(prefix("::ffff:192.0.2.9")));
    }

    #[test]
    fn there_is_an_end_even_on_loopback() {
        let mut admission = Admission::default();
        for _ in 0..CONNECTIONS_MAX {
            assert!(admission.enter(Prefix::Loopback));
        }
        assert!(!admission.enter(Prefix::Loopback));
        assert!(!admission.enter(prefix("2001:db8::1")));
        admission.leave(Prefix::Loopback);
        assert!(admission.enter(prefix("2001:db8::1")));
    }
}
