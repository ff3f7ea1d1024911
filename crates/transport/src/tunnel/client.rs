//! The tunnels of a client's endpoint, by the virtual addresses that stand for them.

use super::carry::{End, User, carry};
use super::dial::dial;
use super::proxy::Proxy;
use crate::TransportError;
use ahoy_protocol::NodeKey;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// Tunnels open at once: three supernodes, the relays of a few calls, and attempts.
const TUNNELS_MAX: usize = 64;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    open: RwLock<BTreeMap<SocketAddr, Open>>,
}

#[derive(Debug)]
struct Open {
    end: Arc<End>,
    /// This machine's address, from which the tunnel goes out.
    local: Option<IpAddr>,
}

impl Tunnels {
    /// Opens a tunnel to `node` at its TCP address `tcp`, which is `at` from then on. What comes out of it goes to `receive`, which may not
    /// block.
    ///
    /// # Errors
    /// [`TransportError::WrongKey`] if another is there, [`TransportError::Tcp`] and [`TransportError::Proxy`] if nobody can be reached.
    pub(crate) async fn dial(
        self: &Arc<Self>,
        at: SocketAddr,
        tcp: SocketAddr,
        node: &NodeKey,
        proxy: Option<&Proxy>,
        mut receive: impl FnMut(SocketAddr, &[u8]) + Send + 'static,
    ) -> Result<Tunnel, TransportError> {
        let stream = dial(tcp, node, proxy).await?;
        let local = stream.get_ref().0.local_addr().ok().map(|local| local.ip());
        let (end, user) = self.add(at, local)?;
        let removal = Removal { tunnels: Arc::downgrade(self), at };
        tokio::spawn(async move {
            let _removal = removal;
            if let Err(error) = carry(stream, &end, |datagram| receive(at, datagram)).await {
                tracing::debug!(%error, "a tunnel broke");
            }
        });
        Ok(Tunnel { at, user })
    }

    fn add(&self, at: SocketAddr, local: Option<IpAddr>) -> Result<(Arc<End>, User), TransportError> {
        let mut open = self.write();
        if open.len() >= TUNNELS_MAX {
            return Err(TransportError::TooMany { what: "tunnels" });
        }
        let end = End::new();
        let user = end.user();
        open.insert(at, Open { end: Arc::clone(&end), local });
        Ok((end, user))
    }

    /// Sends a datagram into the tunnel that is `at`, or loses it; false if none ever was or is there.
    pub(crate) fn send(&self, at: SocketAddr, datagram: &[u8]) -> bool {
        match self.read().get(&at) {
            Some(open) => {
                open.end.send(datagram);
                true
            }
            None => false,
        }
    }

    /// Ends all tunnels.
    pub(crate) fn close(&self) {
        self.read().values().for_each(|open| open.end.finish());
    }

    /// This machine has these addresses and no others, or has slept. A tunnel from an address that is gone can only be opened again, and the
    /// sooner its connections know, the sooner that is; the others are to show that they still lead somewhere.
    pub(crate) fn handle_network_change(&self, addresses: &[IpAddr]) {
        for Open { end, local } in self.read().values() {
            if local.is_some_and(|local| !addresses.contains(&local)) {
                end.break_off();
            } else {
                end.doubt();
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<SocketAddr, Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<SocketAddr, Open>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a tunnel out of the table when its task ends, however that comes.
struct Removal {
    tunnels: Weak<Tunnels>,
    at: SocketAddr,
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some(tunnels) = self.tunnels.upgrade() {
            tunnels.write().remove(&self.at);
        }
    }
}

/// A tunnel of a client. It ends a while after this is dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    at: SocketAddr,
    user: User,
}

impl Tunnel {
    /// The address that stands for it.
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }

    /// This connection goes through it, and is closed when it ends.
    pub(crate) fn carries(&self, quic: &quinn::Connection) {
        self.user.carries(quic);
    }
}
