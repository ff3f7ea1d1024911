//! Which devices are here: one connection each, the newest.

use ahoy_protocol::certificate::DeviceCertificate;
use ahoy_protocol::directory::Push;
use ahoy_protocol::ids::{DeviceKey, UserKey};
use ahoy_protocol::roster::Roster;
use ahoy_protocol::{Signed, UnixMillis};
use ahoy_transport::{Connection, TransportError, send};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most devices here: as many as connections are let in, less room for other nodes.
const SESSIONS_MAX: usize = 8000;
/// A push that the device has not acknowledged after this long counts as not delivered: the one who waits for it has
/// other supernodes to try.
pub(crate) const PUSH_TIME_MAX: Duration = Duration::from_secs(1);
/// Pushes under way at a time when all devices are told something.
const PUSHES_MAX: usize = 64;

/// Close code for a connection whose device has registered by another one.
const CODE_REPLACED: u32 = 2;
/// Close code for a device that counts no more.
const CODE_UNCERTIFIED: u32 = 3;

/// A registered device.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// Its user.
    pub(crate) user: UserKey,
    /// The certificate with which it registered.
    pub(crate) certificate: Arc<Signed<DeviceCertificate>>,
    /// Serials of the certificates with which it registered.
    pub(crate) serials: [u64; 2],
    /// When the first of them lapses.
    pub(crate) not_after: UnixMillis,
}

/// The devices that are here.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<DeviceKey, Session>>);

impl Sessions {
    /// Enters a device; a session that it had by another connection ends. False if there is no room.
    pub(crate) fn enter(&self, device: DeviceKey, session: Session) -> bool {
        let mut table = self.table();
        if table.len() >= SESSIONS_MAX && !table.contains_key(&device) {
            return false;
        }
        let id = session.connection.id();
        if let Some(old) = table.insert(device, session)
            && old.connection.id() != id
        {
            old.connection.close(CODE_REPLACED, "registered again by another connection");
        }
        true
    }

    /// Forgets a device whose connection has ended, unless it has another one by then.
    pub(crate) fn leave(&self, device: &DeviceKey, connection: &Connection) {
        let mut table = self.table();
        if table.get(device).is_some_and(|session| session.connection.id() == connection.id()) {
            table.remove(device);
        }
    }

    /// Ends the sessions that a roster revokes.
    pub(crate) fn revoke(&self, roster: &Roster) {
        let revoked: BTreeSet<u64> = roster.revoked.iter().copied().collect();
        self.keep_if("the certificate was revoked", |session| !session.serials.iter().any(|serial| revoked.contains(serial)));
    }

    /// Ends the sessions whose certificates have lapsed. A client that renewed them has registered again, by the same connection.
    pub(crate) fn end_lapsed(&self, now: UnixMillis) {
        self.keep_if("the certificate has lapsed", |session| now < session.not_after);
    }

    fn keep_if(&self, else_because: &str, counts: impl Fn(&Session) -> bool) {
        self.table().retain(|_, session| {
            let counts = counts(session);
            if !counts {
                session.connection.close(CODE_UNCERTIFIED, else_because);
            }
            counts
        });
    }

    /// The session of a device, if it is here.
    pub(crate) fn get(&self, device: &DeviceKey) -> Option<Session> {
        self.table().get(device).cloned()
    }

    /// How many devices are here.
    pub(crate) fn len(&self) -> usize {
        self.table().len()
    }

    /// Pushes to one device. True once the device's end has acknowledged it.
    pub(crate) async fn push(&self, device: &DeviceKey, push: &Push) -> bool {
        match self.get(device) {
            Some(session) => push_to(&session.connection, push).await,
            None => false,
        }
    }

    /// Pushes to all devices.
    pub(crate) async fn push_to_all(&self, push: &Push) {
        let connections: Vec<_> = self.table().values().map(|session| session.connection.clone()).collect();
        futures::stream::iter(connections)
            .for_each_concurrent(PUSHES_MAX, async |connection| {
                let _ = push_to(&connection, push).await;
            })
            .await;
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<DeviceKey, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn push_to(connection: &Connection, push: &Push) -> bool {
    let exchange = async {
        let mut stream = connection.open_uni().await?;
        send(&mut stream, push).await?;
        let _ = stream.finish();
        // `None`: all was received. A device that stops the stream has not read it.
        Ok::<_, TransportError>(matches!(stream.stopped().await, Ok(None)))
    };
    matches!(tokio::time::timeout(PUSH_TIME_MAX, exchange).await, Ok(Ok(true)))
}
