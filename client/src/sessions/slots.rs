//! The slots: each keeps one session, with one supernode after the other in the order of rendezvous hashing, with back-off and full jitter.

use super::{Inner, REQUEST_TIME, Session, lock, random_u64, registered};
use crate::home::Account;
use ahoy_directory::homes_for;
use ahoy_protocol::NodeKey;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{ALPN, Push, Request, Response};
use ahoy_protocol::login::Credentials;
use ahoy_protocol::roster::{Roster, RosterNode};
use ahoy_resilience::{Backoff, share_of};
use ahoy_transport::{ClientEndpoint, Connection, NodePlace, Reached, TransportError, receive};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// How long a supernode has for a handshake or a registration.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// First and longest wait before a supernode that failed is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// A supernode that a slot has, or had.
#[derive(Debug)]
pub(super) struct Taken {
    /// The slot that has it.
    pub(super) by: Option<usize>,
    backoff: Backoff,
    until: Instant,
}

/// The supernodes in the order in which this device prefers them.
pub(super) fn supernodes_for(account: &Account, roster: &Roster) -> Vec<RosterNode> {
    let keys = roster.nodes_in(NodeRole::Supernode).map(|node| node.node);
    homes_for(&account.keys.signing.device_key(), keys)
        .into_iter()
        .filter_map(|key| roster.node(NodeRole::Supernode, &key).cloned())
        .collect()
}

/// Why a supernode did not register this device.
#[derive(Debug, Error)]
pub(super) enum RegisterError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the supernode is busy")]
    Busy,
    #[error("{0}")]
    Refused(String),
}

/// Connects to a supernode.
pub(super) async fn connect(endpoint: &ClientEndpoint, node: &RosterNode) -> Result<Connection, TransportError> {
    let place = NodePlace::from(node);
    let connecting = endpoint.connect_node(&place, &node.node, ALPN);
    timeout(CONNECT_TIME, connecting).await.map_err(|_| TransportError::TimedOut { what: "a supernode" })?
}

/// Registers there.
pub(super) async fn register(connection: &Connection, credentials: &Credentials) -> Result<(), RegisterError> {
    match connection.request::<Request, Response>(&registration(credentials), CONNECT_TIME).await? {
        Response::Done => Ok(()),
        Response::Refused(reason) => Err(RegisterError::Refused(reason.to_string())),
        _ => Err(RegisterError::Busy),
    }
}

fn registration(credentials: &Credentials) -> Request {
    Request::Register { user: credentials.user.clone(), device: credentials.device.clone() }
}

/// Keeps one session, with one supernode after the other.
pub(super) async fn keep_slot(inner: Arc<Inner>, slot: usize) {
    let mut rosters = inner.roster.subscribe();
    let mut unlisted = inner.roster.subscribe();
    loop {
        let Some(node) = inner.take_node(slot) else {
            // Every supernode is taken or resting: look again soon, or when there is a newer roster.
            let pause = share_of(RETRY_FIRST * 2, random_u64()) + RETRY_FIRST / 4;
            tokio::select! {
                () = sleep(pause) => {}
                _ = rosters.changed() => {}
            }
            continue;
        };
        match connect(&inner.endpoint, &node).await {
            Ok(connection) => {
                let mut next = Some(connection);
                while let Some(connection) = next {
                    next = inner.keep(slot, &node, connection, &mut unlisted).await;
                }
            }
            Err(error) => debug!(%error, slot, "cannot connect to a supernode"),
        }
        inner.give_back(&node.node);
    }
}

impl Inner {
    /// Registers at a supernode, and keeps the session until it ends. Gives back a connection with the same supernode that is to take its
    /// place, if there is one.
    async fn keep(
        self: &Arc<Self>,
        slot: usize,
        node: &RosterNode,
        connection: Connection,
        rosters: &mut watch::Receiver<Arc<Roster>>,
    ) -> Option<Connection> {
        let mut next = None;
        let address = connection.remote_address();
        let shown = if connection.is_tunnelled() { node.tcp.first().copied().unwrap_or(address) } else { address };
        let session = Session { node: node.node, address, shown, connection, is_registered: false, silent: Arc::default() };
        let credentials = lock(&self.account).credentials.clone();
        // Questions need not wait for the registration, so those who have some are told before it.
        self.set_slot(slot, Some(session.clone()));
        match register(&session.connection, &credentials).await {
            Ok(()) => {
                debug!(%address, slot, "registered at a supernode");
                self.set_registered(&session);
                self.succeeded(&node.node);
                if registered(&self.connected.borrow()).count() == 1 {
                    // Whoever was away for long, or is here for a moment only, hears of the newest roster by this.
                    let (inner, session) = (self.clone(), session.clone());
                    tokio::spawn(async move { inner.fetch_roster(&session).await });
                }
                let current = lock(&self.account).credentials.clone();
                if current != credentials {
                    session.register_again(&current).await;
                }
                tokio::select! {
                    () = self.listen(&session) => {}
                    _ = rosters.wait_for(|roster| roster.node(NodeRole::Supernode, &node.node).is_none()) => {
                        session.connection.close(0, "not in the roster");
                    }
                    tunnel = self.tunnel_instead(&session.connection, node) => {
                        session.connection.close(0, "another way");
                        next = Some(tunnel);
                    }
                }
                debug!(%address, slot, "lost a supernode");
            }
            Err(error) => {
                session.connection.close(0, "not registered");
                debug!(%error, slot, "cannot register at a supernode");
                if let RegisterError::Refused(reason) = error {
                    self.tell_refusal(reason);
                }
            }
        }
        self.set_slot(slot, None);
        next
    }

    /// A tunnel to a supernode, once another network lets nothing else through to it. The session before would look well until it times out,
    /// and nobody could call meanwhile.
    async fn tunnel_instead(&self, connection: &Connection, node: &RosterNode) -> Connection {
        let (mut network, place) = (self.endpoint.network(), NodePlace::from(node));
        while !connection.is_tunnelled() && network.changed().await.is_ok() {
            if let Ok(Reached::Tunnel(tunnel)) = self.endpoint.check_node(connection, &place, &node.node, ALPN).await {
                return tunnel;
            }
        }
        std::future::pending().await
    }

    /// The supernode that this slot tries next, marked as its own.
    fn take_node(&self, slot: usize) -> Option<RosterNode> {
        let account = lock(&self.account).clone();
        let roster = self.roster.borrow().clone();
        let now = Instant::now();
        let mut taken = lock(&self.taken);
        let is_free = |node: &RosterNode| taken.get(&node.node).is_none_or(|taken| taken.by.is_none() && taken.until <= now);
        let node = supernodes_for(&account, &roster).into_iter().find(is_free)?;
        let entry =
            taken.entry(node.node).or_insert_with(|| Taken { by: None, backoff: Backoff::new(RETRY_FIRST, RETRY_MOST), until: now });
        entry.by = Some(slot);
        Some(node)
    }

    /// A slot is done with a supernode, which rests for a while.
    fn give_back(&self, node: &NodeKey) {
        if let Some(taken) = lock(&self.taken).get_mut(node) {
            taken.by = None;
            taken.until = Instant::now() + taken.backoff.after_failure(random_u64());
        }
        // Who waits for this session waits for it no longer.
        self.connected.send_modify(|_| {});
    }

    fn succeeded(&self, node: &NodeKey) {
        if let Some(taken) = lock(&self.taken).get_mut(node) {
            taken.backoff.after_success();
        }
    }

    fn set_slot(&self, slot: usize, session: Option<Session>) {
        let mut slots = lock(&self.slots);
        match session {
            Some(session) => slots.insert(slot, session),
            None => slots.remove(&slot),
        };
        self.connected.send_replace(slots.values().cloned().collect());
    }

    /// The device is registered by this session, if it still stands.
    pub(super) fn set_registered(&self, session: &Session) {
        let mut slots = lock(&self.slots);
        let id = session.connection.id();
        if let Some(known) = slots.values_mut().find(|known| known.connection.id() == id && !known.is_registered) {
            known.is_registered = true;
            self.connected.send_replace(slots.values().cloned().collect());
        }
    }

    /// Takes what a supernode pushes, until the session ends.
    async fn listen(self: &Arc<Self>, session: &Session) {
        while let Ok(mut stream) = session.connection.accept_uni().await {
            match timeout(REQUEST_TIME, receive::<Push>(&mut stream)).await {
                Ok(Ok(Some(Push::Deliver(sealed)))) => {
                    // Full: more signals than anybody is called. Their senders try again.
                    let _ = self.signals.try_send(sealed);
                }
                Ok(Ok(Some(Push::RosterVersion(version)))) => {
                    // An invitation behind it must not wait.
                    let (inner, session) = (self.clone(), session.clone());
                    tokio::spawn(async move { inner.handle_version(&session, version).await });
                }
                Ok(Ok(Some(Push::Drain { within_ms }))) => {
                    debug!(within_ms, "a supernode is about to stop");
                    return;
                }
                // What this program does not read yet waits in the mailbox.
                Ok(Ok(Some(Push::Mail(_) | Push::VaultChanged))) => {}
                Ok(Ok(None) | Err(_)) | Err(_) => {}
            }
        }
    }
}

impl Session {
    /// Shows renewed certificates: a supernode ends a session when those that it began with lapse.
    pub(super) async fn register_again(&self, credentials: &Credentials) {
        if !matches!(self.request(&registration(credentials)).await, Some(Response::Done)) {
            self.connection.close(0, "not registered");
        }
    }
}
