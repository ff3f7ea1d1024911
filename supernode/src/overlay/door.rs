//! Who may be in a handshake: strangers must not take the places of supernodes that want to connect.
//!
//! Until its handshake has ended nobody has a name, only an address. Addresses at which the roster has a supernode have
//! places of their own; all others share a few, and each address among them has fewer still.

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};
use thiserror::Error;

/// Handshakes at a time from addresses at which there is a supernode: each of a full roster may come at once.
const KNOWN_MAX: usize = 512;
/// Handshakes at a time from all other addresses. A supernode may come from another address than the one it listens at.
const UNKNOWN_MAX: usize = 64;
/// Handshakes at a time from one of those.
const UNKNOWN_PER_ADDRESS_MAX: usize = 8;

/// Turned away at the door.
#[derive(Debug, Error)]
#[error("too many handshakes at a time")]
struct Full;

/// Counts the handshakes of those who connect.
#[derive(Debug, Default)]
pub(super) struct Door {
    known: BTreeSet<IpAddr>,
    pending: BTreeMap<ConnectionId, Option<IpAddr>>,
}

impl Door {
    /// Replaces the addresses at which there are supernodes.
    pub(super) fn set_known<'a>(&mut self, addresses: impl IntoIterator<Item = &'a Multiaddr>) {
        self.known = addresses.into_iter().filter_map(ip).collect();
    }

    fn admits(&self, from: Option<IpAddr>) -> bool {
        let is_known = |ip: &Option<IpAddr>| ip.is_some_and(|ip| self.known.contains(&ip));
        let known = self.pending.values().filter(|ip| is_known(ip)).count();
        if is_known(&from) {
            return known < KNOWN_MAX;
        }
        let same = self.pending.values().filter(|ip| **ip == from).count();
        self.pending.len() - known < UNKNOWN_MAX && same < UNKNOWN_PER_ADDRESS_MAX
    }
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(&mut self, id: ConnectionId, _: &Multiaddr, from: &Multiaddr) -> Result<(), ConnectionDenied> {
        let from = ip(from);
        if !self.admits(from) {
            return Err(ConnectionDenied::new(Full));
        }
        self.pending.insert(id, from);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&id);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. })
            | FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.pending.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: usize) -> Multiaddr {
        format!("/ip4/198.51.100.{}/tcp/4000", n % 250).parse().expect("an address")
    }

    fn come(door: &mut Door, id: usize, from: &Multiaddr) -> bool {
        door.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), from, from).is_ok()
    }

    #[test]
    fn strangers_do_not_take_the_places_of_supernodes() {
        let mut door = Door::default();
        let supernode: Multiaddr = "/ip4/192.0.2.1/tcp/4000".parse().expect("an address");
        door.set_known([&supernode]);
        let admitted = (0..1000).filter(|n| come(&mut door, *n, &at(*n))).count();
        assert_eq!(admitted, UNKNOWN_MAX);
        assert!(come(&mut door, 1000, &supernode));
    }

    #[test]
    fn one_address_has_few_places_and_gets_them_back() {
        let mut door = Door::default();
        let admitted = (0..100).filter(|n| come(&mut door, *n, &at(7))).count();
        assert_eq!(admitted, UNKNOWN_PER_ADDRESS_MAX);
        assert!(come(&mut door, 100, &at(8)));
        let (id, peer) = (ConnectionId::new_unchecked(0), PeerId::random());
        assert!(door.handle_established_inbound_connection(id, peer, &at(7), &at(7)).is_ok());
        assert!(come(&mut door, 101, &at(7)));
    }
}
