//! How many connections there are, in all and from one place, so that one place cannot take every place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lets connections in up to two bounds: in all, and for one address prefix (IPv4 /24, IPv6 /48). Loopback is free of the second.
#[derive(Debug)]
pub struct Admission {
    connections_max: usize,
    per_prefix_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    by_prefix: HashMap<Prefix, usize>,
}

/// A connection's place among those of its prefix. Dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    prefix: Prefix,
}

/// The part of an address that whoever has it cannot easily change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Prefix {
    /// This machine: whoever is on it can do worse than connect.
    Loopback,
    /// A /24.
    V4([u8; 3]),
    /// A /48.
    V6([u16; 3]),
}

impl Prefix {
    fn of(ip: IpAddr) -> Self {
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
    /// Nobody is in yet; at most `connections_max` in all and `per_prefix_max` from one prefix will be.
    #[must_use]
    pub fn new(connections_max: usize, per_prefix_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, per_prefix_max, counts: Mutex::default() })
    }

    /// A place for one more connection from `ip`, if there is room for it.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let prefix = Prefix::of(ip);
        let mut counts = self.counts();
        let here = counts.by_prefix.get(&prefix).copied().unwrap_or(0);
        let crowded = prefix != Prefix::Loopback && here >= self.per_prefix_max;
        if crowded || counts.connections >= self.connections_max {
            return None;
        }
        counts.connections += 1;
        counts.by_prefix.insert(prefix, here + 1);
        Some(Place { admission: self.clone(), prefix })
    }

    fn leave(&self, prefix: Prefix) {
        let mut counts = self.counts();
        let Some(here) = counts.by_prefix.get_mut(&prefix) else { return };
        *here -= 1;
        if *here == 0 {
            counts.by_prefix.remove(&prefix);
        }
        counts.connections -= 1;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.leave(self.prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_prefix_cannot_take_all_places() {
        let admission = Admission::new(10, 3);
        let mut places: Vec<Place> = (0..3).map(|_| admission.enter(ip("192.0.2.1")).expect("room")).collect();
        assert!(admission.enter(ip("192.0.2.200")).is_none(), "the same /24 is one prefix");
        let _elsewhere = admission.enter(ip("198.51.100.1")).expect("room for others");
        places.pop();
        assert!(admission.enter(ip("::ffff:192.0.2.9")).is_some());
    }

    #[test]
    fn there_is_an_end_even_on_loopback() {
        let admission = Admission::new(10, 3);
        let mut places: Vec<Place> = (0..10).map(|_| admission.enter(ip("127.0.0.1")).expect("room")).collect();
        assert!(admission.enter(ip("127.0.0.1")).is_none());
        assert!(admission.enter(ip("2001:db8::1")).is_none());
        places.pop();
        assert!(admission.enter(ip("2001:db8::1")).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_who_has_gone() {
        let admission = Admission::new(10, 3);
        drop(admission.enter(ip("192.0.2.1")));
        assert!(admission.counts().by_prefix.is_empty());
        assert_eq!(admission.counts().connections, 0);
    }
}
