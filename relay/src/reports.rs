//! Tells the supernodes of the roster, every few seconds, that this relay is alive and how loaded it is.

use crate::limits::{REPORT_INTERVAL, REPORT_TIMEOUT, SUPERNODES_TOLD_MAX};
use ahoy_identity::random;
use ahoy_node::{Backoff, Node};
use ahoy_protocol::NodeKey;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{self, Request, Response};
use ahoy_protocol::roster::{Roster, RosterNode};
use ahoy_transport::{Connection, NodeEndpoint, TransportError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Bound of the first wait after a report that failed.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Bound of any: a supernode that is back knows the relay within half a minute.
const RETRY_MOST: Duration = Duration::from_secs(30);
/// Longest that a busy supernode keeps the relay waiting.
const BUSY_MOST: Duration = Duration::from_secs(60);

/// What a report needs.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) node: Arc<Node>,
    pub(crate) endpoint: Arc<NodeEndpoint>,
    pub(crate) load_percent: Arc<AtomicU8>,
}

impl Reporter {
    /// Keeps one task for each supernode to be told, as the roster has them, for ever. Dropping the future ends them.
    pub(crate) async fn run(self) {
        let mut roster = self.node.roster();
        let own = self.node.key().node_key();
        let mut tasks = JoinSet::new();
        let mut running: BTreeMap<NodeKey, (RosterNode, AbortHandle)> = BTreeMap::new();
        loop {
            let view = roster.borrow_and_update().clone();
            let told = supernodes_to_tell(&view.roster, &own);
            running.retain(|_, (supernode, task)| {
                let stays = told.contains(supernode);
                if !stays {
                    task.abort();
                }
                stays
            });
            for supernode in told {
                running.entry(supernode.node).or_insert_with(|| {
                    let task = tasks.spawn(self.clone().tell(supernode.clone()));
                    (supernode, task)
                });
            }
            while tasks.try_join_next().is_some() {}
            if roster.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reports to one supernode for ever.
    async fn tell(self, supernode: RosterNode) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut connection = None;
        loop {
            let pause = match self.tell_once(&supernode, &mut connection).await {
                Ok(Response::Busy { retry_after_ms, .. }) => Duration::from_millis(retry_after_ms.into()).clamp(REPORT_INTERVAL, BUSY_MOST),
                Ok(Response::Refused(why)) => {
                    tracing::debug!(supernode = ?supernode.node, %why, "the supernode refuses reports");
                    // Its roster may not have this relay yet, and will in a second or two.
                    backoff.after_failure(random_number())
                }
                Ok(_) => {
                    backoff.after_success();
                    around(REPORT_INTERVAL, random_number())
                }
                Err(problem) => {
                    tracing::debug!(supernode = ?supernode.node, %problem, "the supernode was not told");
                    connection = None;
                    backoff.after_failure(random_number())
                }
            };
            match &connection {
                // A supernode that restarts has forgotten the relay: it is told as soon as the connection breaks.
                Some(connection) => drop(timeout(pause, connection.closed()).await),
                None => sleep(pause).await,
            }
        }
    }

    async fn tell_once(&self, supernode: &RosterNode, kept: &mut Option<Connection>) -> Result<Response, TransportError> {
        let connection = match kept.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.connect(supernode).await?,
        };
        let report = Request::RelayStatus { load_percent: self.load_percent.load(Ordering::Relaxed) };
        let answer = connection.request(&report, REPORT_TIMEOUT).await?;
        *kept = Some(connection);
        Ok(answer)
    }

    /// Tries the supernode's addresses in their order.
    async fn connect(&self, supernode: &RosterNode) -> Result<Connection, TransportError> {
        let mut outcome = Err(TransportError::NoAnswer);
        for address in &supernode.udp {
            outcome = self.endpoint.connect(*address, &supernode.node, directory::ALPN).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// The supernodes whose keys are nearest to the relay's own: with many of both, each supernode hears from some relays.
fn supernodes_to_tell(roster: &Roster, own: &NodeKey) -> Vec<RosterNode> {
    let mut supernodes: Vec<RosterNode> = roster.nodes_in(NodeRole::Supernode).filter(|node| !node.udp.is_empty()).cloned().collect();
    supernodes.sort_by_key(|supernode| distance(&supernode.node, own));
    supernodes.truncate(SUPERNODES_TOLD_MAX);
    supernodes
}

fn distance(one: &NodeKey, other: &NodeKey) -> [u8; 32] {
    std::array::from_fn(|at| one.0[at] ^ other.0[at])
}

/// Between nine and eleven tenths of `pause`.
fn around(pause: Duration, random: u64) -> Duration {
    let fifth_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX) / 5;
    pause - pause / 10 + Duration::from_millis(random % fifth_ms.max(1))
}

fn random_number() -> u64 {
    u64::from_be_bytes(random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_spread_around_their_interval() {
        for random in [0, 1, 1999, u64::MAX] {
            let pause = around(REPORT_INTERVAL, random);
            assert!(pause >= REPORT_INTERVAL * 9 / 10 && pause <= REPORT_INTERVAL * 11 / 10, "{pause:?}");
        }
    }
}
