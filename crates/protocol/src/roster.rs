//! The roster: which supernodes and relays serve the network, as the login server signed it.

use crate::certificate::NodeRole;
use crate::ids::{NodeKey, Salt};
use crate::signed::Signable;
use crate::time::UnixMillis;
use crate::wire::{List, Wire};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// Most nodes in a roster.
pub const ROSTER_NODES_MAX: usize = 512;
/// Most addresses of one kind that a node has.
pub const NODE_ADDRESSES_MAX: usize = 4;
/// Most revoked certificates in a roster; older ones have expired by themselves.
pub const REVOKED_MAX: usize = 4096;
/// How long a roster is good for: a day, and seven more while the login server is away, so that its absence never ends the network.
pub const ROSTER_LIFE: Duration = Duration::from_secs(8 * 24 * 3600);
/// For how long after a change the salt before it is still read and written.
pub const SALT_OVERLAP: Duration = Duration::from_secs(3600);

/// Who serves, at which addresses. Signed by an issuing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Counts up with every change; a lower version than one already seen is refused.
    pub version: u64,
    /// When it was made.
    pub issued: UnixMillis,
    /// Valid until.
    pub not_after: UnixMillis,
    /// Salts of record keys, the newest last. Nobody can know a later one, so nobody can grind a node key next to a name.
    pub salts: List<SaltPeriod, 2>,
    /// The nodes.
    pub nodes: List<RosterNode, ROSTER_NODES_MAX>,
    /// Serials of certificates that count no more although they have not expired.
    pub revoked: List<u64, REVOKED_MAX>,
}

/// A salt and the time from which it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaltPeriod {
    /// The salt.
    pub salt: Salt,
    /// In force from.
    pub since: UnixMillis,
}

/// A node as the roster lists it. A client accepts this key in this role at these addresses, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterNode {
    /// What the node does.
    pub role: NodeRole,
    /// Its key.
    pub node: NodeKey,
    /// Addresses for QUIC.
    pub udp: List<SocketAddr, NODE_ADDRESSES_MAX>,
    /// Addresses for TLS over TCP.
    pub tcp: List<SocketAddr, NODE_ADDRESSES_MAX>,
    /// Addresses of the overlay; supernodes only.
    pub overlay: List<SocketAddr, NODE_ADDRESSES_MAX>,
}

impl Wire for Roster {
    const NAME: &'static str = "roster";
    const BYTES_MAX: usize = 192 * 1024;
}

impl Signable for Roster {
    const CONTEXT: &'static str = "ahoy/roster/1";
}

impl Roster {
    /// The node with this key in this role.
    #[must_use]
    pub fn node(&self, role: NodeRole, node: &NodeKey) -> Option<&RosterNode> {
        self.nodes.iter().find(|listed| listed.role == role && listed.node == *node)
    }

    /// All nodes in this role.
    pub fn nodes_in(&self, role: NodeRole) -> impl Iterator<Item = &RosterNode> {
        self.nodes.iter().filter(move |listed| listed.role == role)
    }

    /// The salts to use at `now`, the one to write under first: one, or two for [`SALT_OVERLAP`] after a change.
    #[must_use]
    pub fn salts_at(&self, now: UnixMillis) -> Vec<Salt> {
        let mut salts = Vec::new();
        let mut newer_since = None;
        for period in self.salts.iter().rev() {
            match newer_since {
                // The newest counts even if its time has not come by our clock: there is nothing else to go by.
                None => salts.push(period.salt),
                Some(since) if now < UnixMillis::plus(since, SALT_OVERLAP) => salts.push(period.salt),
                Some(_) => {}
            }
            newer_since = Some(period.since);
        }
        salts
    }

    /// True if the certificate with this serial counts no more.
    #[must_use]
    pub fn is_revoked(&self, serial: u64) -> bool {
        self.revoked.contains(&serial)
    }
}
