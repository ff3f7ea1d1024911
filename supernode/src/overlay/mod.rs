//! The overlay: Kademlia among the supernodes of the newest roster, over TCP, Noise and Yamux.
//!
//! libp2p runs in one task; an [`Overlay`] is the handle to it. A supernode's PeerId is its certified key, proved in the
//! Noise handshake, so that nobody outside the roster gets to send a Kademlia message. What comes in by the overlay is
//! stored through the same gate as what clients bring.

mod dialer;
mod door;
mod kept;
mod swarm;
#[cfg(test)]
mod tests;

use crate::shelf::{Copy, Shelf};
use ahoy_identity::SigningKey;
use ahoy_protocol::NodeKey;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::ids::RecordKey;
use ahoy_protocol::roster::Roster;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Supernodes that keep a record: with half of them gone at once, one in 256 records would be lost.
pub(crate) const KEEPERS: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");
/// Requests waiting for the overlay's task. It takes microseconds for each; when so many wait, further ones are dropped. A walk
/// says so; other askers see nobody answering.
const COMMANDS_MAX: usize = 1024;
/// Answers of one walk that wait for the asker: more than the supernodes that a walk asks.
const ANSWERS_MAX: usize = 64;

/// Why the overlay does not start.
#[derive(Debug, Error)]
pub enum OverlayError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address} for other supernodes: {reason}; end the program that has the port, or choose another with --overlay"
    )]
    Listen {
        /// Where one was to listen.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// libp2p could not be set up.
    #[error("cannot set up the overlay: {0}")]
    Setup(String),
}

/// A supernode of the overlay, as the roster lists it.
#[derive(Debug, Clone)]
struct Member {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
}

/// What another supernode returned.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) from: PeerId,
    pub(crate) copy: Copy,
}

/// A walk through the overlay for one key. It ends when the channel does, or when it is dropped.
pub(crate) struct Walk {
    pub(crate) answers: mpsc::Receiver<Answer>,
    /// Supernodes asked so far; `None` if it has not begun, which it never does where there is too much to do.
    pub(crate) asked: watch::Receiver<Option<u32>>,
}

enum Command {
    Members(Vec<Member>),
    Get { key: RecordKey, answers: mpsc::Sender<Answer>, asked: watch::Sender<Option<u32>> },
    Keepers { key: RecordKey, reply: oneshot::Sender<Vec<PeerId>> },
    Put { to: PeerId, key: RecordKey, copy: Copy, reply: Option<oneshot::Sender<bool>> },
}

/// A handle to the overlay.
#[derive(Clone)]
pub(crate) struct Overlay {
    commands: mpsc::Sender<Command>,
    connected: watch::Receiver<usize>,
}

impl Overlay {
    /// Starts to listen. Nobody is let in before [`Overlay::set_roster`]. The overlay ends with the task.
    pub(crate) async fn start(
        key: &SigningKey,
        listen: SocketAddr,
        shelf: Arc<Shelf>,
    ) -> Result<(Self, SocketAddr, JoinHandle<()>), OverlayError> {
        let (swarm, address) = swarm::listen(key, listen, shelf.clone()).await?;
        let (commands, incoming) = mpsc::channel(COMMANDS_MAX);
        let (connected, seen) = watch::channel(0);
        let task = tokio::spawn(swarm::Task::new(swarm, shelf, incoming, connected).run());
        Ok((Self { commands, connected: seen }, address, task))
    }

    /// Lets in, and connects to, the supernodes of this roster and nobody else.
    pub(crate) async fn set_roster(&self, roster: &Roster, own: &NodeKey) {
        let members = roster.nodes_in(NodeRole::Supernode).filter(|node| node.node != *own).filter_map(|node| {
            let addresses = node.overlay.iter().map(|address| multiaddr(*address)).collect();
            Some(Member { peer: peer_id(&node.node)?, addresses })
        });
        // The task ends only with the supernode.
        let _ = self.commands.send(Command::Members(members.collect())).await;
    }

    /// How many other supernodes are connected.
    pub(crate) fn connected(&self) -> usize {
        *self.connected.borrow()
    }

    /// Waits until `count` other supernodes are connected, or for `time_max`.
    pub(crate) async fn wait_for(&self, count: usize, time_max: Duration) {
        let mut connected = self.connected.clone();
        let _ = tokio::time::timeout(time_max, connected.wait_for(|connected| *connected >= count)).await;
    }

    /// Asks the supernodes nearest to a key for what lies under it.
    pub(crate) fn get(&self, key: RecordKey) -> Walk {
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let (asked, seen) = watch::channel(None);
        let _ = self.commands.try_send(Command::Get { key, answers, asked });
        Walk { answers: receiver, asked: seen }
    }

    /// The supernodes that should keep what lies under a key, beside this one; empty if that cannot be found out.
    pub(crate) async fn keepers(&self, key: RecordKey) -> Vec<PeerId> {
        let (reply, keepers) = oneshot::channel();
        let _ = self.commands.try_send(Command::Keepers { key, reply });
        keepers.await.unwrap_or_default()
    }

    /// Stores a copy at one supernode. False if it refuses or cannot be reached.
    pub(crate) async fn put(&self, to: PeerId, key: RecordKey, copy: Copy) -> bool {
        let (reply, stored) = oneshot::channel();
        let _ = self.commands.try_send(Command::Put { to, key, copy, reply: Some(reply) });
        stored.await.unwrap_or(false)
    }

    /// Brings a supernode that returned an old record up to date, in the background.
    pub(crate) fn repair(&self, to: PeerId, key: RecordKey, copy: Copy) {
        let _ = self.commands.try_send(Command::Put { to, key, copy, reply: None });
    }
}

/// The PeerId of a node's key. `None`: the key is not a point on the curve, and nobody can prove it.
fn peer_id(node: &NodeKey) -> Option<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    match (parts.next()?, parts.next()?) {
        (Protocol::Ip4(ip), Protocol::Tcp(port)) => Some((ip, port).into()),
        (Protocol::Ip6(ip), Protocol::Tcp(port)) => Some((ip, port).into()),
        _ => None,
    }
}
