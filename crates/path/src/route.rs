//! The ways of a call: which there are, and which of them each packet takes.

use std::net::SocketAddr;

/// Which of this device's UDP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u16);

impl SocketId {
    /// The device's one port. All others are extra sockets that the agent asked for.
    pub const MAIN: Self = Self(0);
}

/// Which of the call's legs on relays: below [`LEGS_MAX`](ahoy_protocol::peer::LEGS_MAX).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u8);

/// One way by which a packet of the call goes or came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Through a relay.
    Leg(LegId),
    /// Straight between one of this device's sockets and one of the peer's addresses.
    Direct {
        /// This device's socket.
        socket: SocketId,
        /// The peer's address, as this device sees it.
        remote: SocketAddr,
    },
}

impl Way {
    /// The way between the device's one port and `remote`.
    #[must_use]
    pub fn direct(remote: SocketAddr) -> Self {
        Self::Direct { socket: SocketId::MAIN, remote }
    }

    /// Whether no relay is on it.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        match self {
            Self::Direct { .. } => true,
            Self::Leg(_) => false,
        }
    }
}

/// Ways that one packet takes at most: a direct path in doubt and both legs.
pub const ROUTE_WAYS_MAX: usize = 3;

/// The ways that each packet of the call takes a copy of. None: it goes nowhere, which QUIC takes for loss.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Route {
    ways: [Option<Way>; ROUTE_WAYS_MAX],
}

impl Route {
    /// The first [`ROUTE_WAYS_MAX`] of these ways, each once.
    pub fn new(ways: impl IntoIterator<Item = Way>) -> Self {
        let mut route = Self::default();
        for way in ways {
            route.add(way);
        }
        route
    }

    /// Adds a way, if it is not in it and there is room.
    fn add(&mut self, way: Way) {
        if !self.contains(way)
            && let Some(free) = self.ways.iter_mut().find(|taken| taken.is_none())
        {
            *free = Some(way);
        }
    }

    /// Its ways, the most wanted first.
    pub fn ways(&self) -> impl Iterator<Item = Way> + use<> {
        self.ways.into_iter().flatten()
    }

    /// Whether packets go nowhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ways.iter().all(Option::is_none)
    }

    /// Whether packets go this way, perhaps among others.
    #[must_use]
    pub fn contains(&self, way: Way) -> bool {
        self.ways().any(|own| own == way)
    }

    /// Whether every copy goes straight to the peer.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        !self.is_empty() && self.ways().all(|way| way.is_direct())
    }

    /// Whether every copy goes through a relay.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        !self.is_empty() && self.ways().all(|way| !way.is_direct())
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.ways()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(port: u16) -> Way {
        Way::direct(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    #[test]
    fn a_route_holds_each_way_once_and_few_of_them() {
        let route = Route::new([direct(1), direct(1), Way::Leg(LegId(1)), Way::Leg(LegId(0)), direct(2)]);
        assert_eq!(route.ways().collect::<Vec<_>>(), [direct(1), Way::Leg(LegId(1)), Way::Leg(LegId(0))]);
    }

    #[test]
    fn a_route_of_one_kind_says_so() {
        assert!(Route::new([direct(1)]).is_direct());
        assert!(Route::new([Way::Leg(LegId(0))]).is_relayed());
        let both = Route::new([direct(1), Way::Leg(LegId(0))]);
        assert!(!both.is_direct() && !both.is_relayed());
        let none = Route::default();
        assert!(none.is_empty() && !none.is_direct() && !none.is_relayed());
    }
}
