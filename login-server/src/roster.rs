//! Keeps the signed roster current, and wakes those who wait for the next one.

use crate::database::{Database, nodes, roster};
use crate::issuer::{CERTIFICATE_LIFE, Issuer, NODE_CERTIFICATE_LIFE};
use crate::state::Refusal;
use ahoy_identity::random;
use ahoy_protocol::ids::Salt;
use ahoy_protocol::roster::{ROSTER_LIFE, ROSTER_NODES_MAX, Roster, RosterNode, SaltPeriod};
use ahoy_protocol::time::DAY;
use ahoy_protocol::{List, Signed, UnixMillis};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a node stays listed after its certificate has lapsed: as long as others accept a lapsed one, while the login server is away.
const NODE_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a salt is in force.
const SALT_LIFE: Duration = DAY;

/// A signed roster and its version.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) version: u64,
    pub(crate) signed: Signed<Roster>,
}

/// The newest roster.
pub(crate) struct RosterKeeper {
    database: Database,
    issuer: Arc<Issuer>,
    current: watch::Sender<Option<Arc<Current>>>,
    /// One builds at a time; the others find it built.
    building: tokio::sync::Mutex<()>,
}

impl RosterKeeper {
    pub(crate) fn new(database: Database, issuer: Arc<Issuer>) -> Self {
        Self { database, issuer, current: watch::Sender::new(None), building: tokio::sync::Mutex::new(()) }
    }

    /// The newest roster that this process has heard of: no older than the last poll, and no work for the database.
    pub(crate) async fn current(&self, now: UnixMillis) -> Result<Arc<Current>, Refusal> {
        let current = self.current.borrow().clone();
        match current {
            Some(current) => Ok(current),
            None => self.newest(now).await,
        }
    }

    /// The newest roster, read from the database where another process may have changed it.
    pub(crate) async fn newest(&self, now: UnixMillis) -> Result<Arc<Current>, Refusal> {
        let _one = self.building.lock().await;
        let mut read = self.database.read().await?;
        let version = roster::version(&mut read).await?;
        if let Some(current) = self.current.borrow().as_ref().filter(|current| current.version == version) {
            return Ok(current.clone());
        }
        let roster = Roster {
            version,
            issued: now,
            not_after: now.plus(ROSTER_LIFE),
            salts: List::first_of(roster::salts(&mut read).await?),
            nodes: List::first_of(nodes::listed(&mut read).await?.into_iter().map(listing)),
            revoked: List::first_of(roster::revoked(&mut read).await?),
        };
        let current = Arc::new(Current { version, signed: self.issuer.roster(&roster)? });
        tracing::info!(version, nodes = roster.nodes.len(), revoked = roster.revoked.len(), "the roster changed");
        self.current.send_replace(Some(current.clone()));
        Ok(current)
    }

    /// Follows the roster. `None` until the first was made.
    pub(crate) fn follow(&self) -> watch::Receiver<Option<Arc<Current>>> {
        self.current.subscribe()
    }

    /// Does what time alone brings: a new salt each day, nodes that are gone, revoked certificates that have lapsed.
    pub(crate) async fn maintain(&self, now: UnixMillis) -> Result<(), sqlx::Error> {
        let mut write = self.database.write().await?;
        let mut changed = roster::forget_lapsed(&mut write, now).await? > 0;
        changed |= nodes::unlist(&mut write, now.minus(NODE_CERTIFICATE_LIFE + NODE_GRACE)).await? > 0;
        let newest_salt = roster::salts(&mut write).await?.last().map(|period| period.since);
        if newest_salt.is_none_or(|since| now >= since.plus(SALT_LIFE)) {
            // Drawn now and not before, so that nobody can have known it.
            roster::add_salt(&mut write, &SaltPeriod { salt: Salt(random()), since: now }).await?;
            changed = true;
        }
        if changed {
            roster::bump(&mut write, now).await?;
            write.commit().await?;
        }
        Ok(())
    }
}

/// Until when a serial revoked at `now` has to be told: all certificates issued before have lapsed by then.
pub(crate) fn revoked_until(now: UnixMillis) -> UnixMillis {
    now.plus(CERTIFICATE_LIFE)
}

/// True if the roster has room for one node more than `listed`.
pub(crate) fn has_room(listed: u64) -> bool {
    listed < ROSTER_NODES_MAX as u64
}

fn listing(node: nodes::Node) -> RosterNode {
    let request = node.request;
    RosterNode { role: request.role, node: request.node, udp: request.udp, tcp: request.tcp, overlay: request.overlay }
}
