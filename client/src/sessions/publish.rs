//! What the directory says about this device and its user.

use super::slots::{connect, register, supernodes_for};
use super::{Inner, REQUEST_TIME, Session, lock, random_u64, registered, unix_now};
use crate::home::Account;
use ahoy_directory::{Gate, choose_presence, choose_user};
use ahoy_identity::Network;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{Request, Response};
use ahoy_protocol::record::{PRESENCE_LIFE, PresenceRecord, PresenceStatement, Record, UserRecord};
use ahoy_protocol::{DeviceKey, List, NodeKey};
use ahoy_resilience::{Backoff, share_of};
use ahoy_transport::ClientEndpoint;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::{debug, warn};

/// Changes of the sessions within this time are told to the directory at once.
const SETTLE_TIME: Duration = Duration::from_millis(50);
/// A presence record lives 60 minutes and is written again well before, jitter included.
const PRESENCE_REFRESH: Duration = Duration::from_secs(25 * 60);
/// The user record is kept for 48 hours by stores that nobody refreshes.
const RECORD_REFRESH: Duration = Duration::from_secs(6 * 3600);
/// How soon a record that could not be published is tried again.
const PUBLISH_RETRY: Duration = Duration::from_secs(5);
/// Supernodes that are to hold the user record, as far as there are so many. Right after supernodes start they may not know each other
/// yet, and a record that only one of them has is gone with it.
const COPIES_MIN: usize = 3;
/// First and longest wait before a record that too few supernodes hold is written again.
const COPIES_RETRY_FIRST: Duration = Duration::from_secs(4);
const COPIES_RETRY_MOST: Duration = Duration::from_secs(900);

/// Publishes the user record by way of the first supernode that can be reached, without a lasting session.
pub async fn publish_once(endpoint: &ClientEndpoint, account: &Account) -> Option<Response> {
    let roster = account.network.verify_roster(&account.roster, unix_now()).ok()?;
    for node in supernodes_for(account, &roster) {
        let Ok(connection) = connect(endpoint, &node).await else { continue };
        if register(&connection, &account.credentials).await.is_err() {
            connection.close(0, "not registered");
            continue;
        }
        let publish = Request::Publish(Record::User(account.record.clone()));
        let response = connection.request::<Request, Response>(&publish, REQUEST_TIME).await;
        connection.close(0, "done");
        match response {
            Ok(Response::Busy { .. } | Response::Refused(_)) | Err(_) => {}
            Ok(response) => return Some(response),
        }
    }
    None
}

/// Keeps the directory right about this device.
pub(super) async fn keep_published(inner: Arc<Inner>) {
    let mut connected = inner.connected.subscribe();
    let mut rosters = inner.roster.subscribe();
    let mut record = RecordPlan::new(Instant::now());
    let mut salts = Vec::new();
    let mut known = BTreeSet::new();
    loop {
        sleep(SETTLE_TIME).await;
        let sessions = connected.borrow_and_update().clone();
        let homes: Vec<NodeKey> = registered(&sessions).map(|session| session.node).collect();
        // A supernode that has just begun may hold nothing, and there may be no other.
        let current = connections(&sessions);
        let is_news = !current.is_subset(&known) || inner.is_record_new.swap(false, Ordering::Relaxed);
        // One of the few that hold it may be the one that has gone.
        let is_in_danger = record.has_few_copies() && current != known;
        known = current;
        let mut pause = PRESENCE_REFRESH - share_of(PRESENCE_REFRESH / 10, random_u64());
        if !homes.is_empty() {
            let (current_salts, supernodes) = {
                let roster = rosters.borrow_and_update();
                (roster.salts_at(unix_now()), roster.nodes_in(NodeRole::Supernode).count())
            };
            if is_news || is_in_danger || record.is_due(Instant::now()) || salts != current_salts {
                let copies = inner.publish_record().await;
                record.handle_published(Instant::now(), copies, supernodes, random_u64());
                if copies.is_some() {
                    salts = current_salts;
                }
            }
            pause = pause.min(record.due.saturating_duration_since(Instant::now()));
            if inner.publish_presence(&homes).await {
                inner.presence_published.send_modify(|count| *count += 1);
            } else {
                pause = pause.min(PUBLISH_RETRY);
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = async { drop(connected.wait_for(|sessions| connections(sessions) != known).await) } => {}
            _ = rosters.changed() => {}
            () = inner.republish.notified() => {}
        }
    }
}

/// When the user record is written again.
#[derive(Debug)]
struct RecordPlan {
    due: Instant,
    /// Of writing it again because few have it; without failures when enough do.
    backoff: Backoff,
    has_few_copies: bool,
}

impl RecordPlan {
    fn new(now: Instant) -> Self {
        Self { due: now, backoff: Backoff::new(COPIES_RETRY_FIRST, COPIES_RETRY_MOST), has_few_copies: true }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    fn has_few_copies(&self) -> bool {
        self.has_few_copies
    }

    /// The record was written, and so many of the network's `supernodes` have it; `None` if it was not.
    fn handle_published(&mut self, now: Instant, copies: Option<u16>, supernodes: usize, random: u64) {
        let enough = COPIES_MIN.min(supernodes);
        self.has_few_copies = copies.is_none_or(|copies| usize::from(copies) < enough);
        self.due = now
            + match copies {
                None => PUBLISH_RETRY,
                // Not at once: supernodes need a moment to find each other.
                Some(_) if self.has_few_copies => COPIES_RETRY_FIRST / 4 + self.backoff.after_failure(random),
                Some(_) => {
                    self.backoff.after_success();
                    RECORD_REFRESH - share_of(RECORD_REFRESH / 10, random)
                }
            };
    }
}

/// The connections by which this device is registered.
fn connections(sessions: &[Session]) -> BTreeSet<usize> {
    registered(sessions).map(|session| session.connection.id()).collect()
}

impl Inner {
    /// Writes the presence record. True once the directory has it.
    pub(super) async fn publish_presence(self: &Arc<Self>, homes: &[NodeKey]) -> bool {
        let account = lock(&self.account).clone();
        let Some(record) = self.presence_record(&account, homes) else { return false };
        match self.request(Request::Publish(Record::Presence(record))).await {
            Some(Response::Published { .. }) => true,
            Some(Response::Superseded(Record::Presence(newer))) => {
                self.step_over(&account.network, &newer);
                false
            }
            other => {
                debug!(?other, "the presence record was not published");
                false
            }
        }
    }

    fn presence_record(&self, account: &Account, homes: &[NodeKey]) -> Option<PresenceRecord> {
        let now = unix_now();
        let seq = {
            let mut seq = lock(&self.presence_seq);
            *seq = now.0.max(*seq + 1);
            *seq
        };
        let statement = PresenceStatement {
            device: account.keys.signing.device_key(),
            seq,
            homes: List::first_of(homes.iter().copied()),
            issued: now,
            not_after: now.plus(PRESENCE_LIFE),
        };
        let statement = account.keys.signing.sign(&statement).ok()?;
        Some(PresenceRecord { statement, certificate: account.credentials.device.clone() })
    }

    /// Our clock was ahead once: number the next record above what the directory holds.
    fn step_over(&self, network: &Network, newer: &PresenceRecord) {
        let roster = self.roster.borrow().clone();
        let gate = Gate { network, roster: &roster };
        let device = lock(&self.account).keys.signing.device_key();
        if let Some(known) = choose_presence(&gate, unix_now(), &device, [newer]) {
            let mut seq = lock(&self.presence_seq);
            *seq = (*seq).max(known.seq);
            drop(seq);
            self.republish.notify_one();
        }
    }

    /// Writes the user record again. Says how many supernodes hold it then; `None` if that failed. A newer one is taken over instead.
    async fn publish_record(self: &Arc<Self>) -> Option<u16> {
        let account = lock(&self.account).clone();
        match self.request(Request::Publish(Record::User(account.record.clone()))).await {
            Some(Response::Published { stored }) => Some(stored),
            Some(Response::Superseded(Record::User(newer))) => {
                self.adopt_record(&account, newer);
                // Nobody has counted who has that one.
                Some(1)
            }
            other => {
                debug!(?other, "the user record was not published");
                None
            }
        }
    }

    /// Another device of the user has written a newer record: it is ours from here on.
    fn adopt_record(&self, account: &Account, newer: UserRecord) {
        let roster = self.roster.borrow().clone();
        let gate = Gate { network: &account.network, roster: &roster };
        let Some(known) = choose_user(&gate, unix_now(), &account.name, [&newer]) else { return };
        let device = account.keys.signing.device_key();
        if !known.devices.iter().any(|listed| listed.device() == device) {
            let text = "this device was removed from the account; sign in again to use it".to_owned();
            let _ = self.warnings.try_send(text);
            return;
        }
        let before: BTreeSet<DeviceKey> =
            account.record.statement.claims().map(|own| own.devices.iter().copied().collect()).unwrap_or_default();
        let added: Vec<String> = known
            .devices
            .iter()
            .filter(|device| !before.contains(&device.device()))
            .map(|device| device.statement.label.to_string())
            .collect();
        if !added.is_empty() {
            let text = format!("a device was added to your account: {}; if that was not you, change your password", added.join(", "));
            let _ = self.warnings.try_send(text);
        }
        self.update_account(|account| account.record = newer.clone());
        if let Err(error) = self.home.save_record(&newer) {
            warn!(%error, "the user record could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_few_hold_is_written_again_soon_and_then_ever_more_rarely() {
        let now = Instant::now();
        let mut plan = RecordPlan::new(now);
        assert!(plan.is_due(now));
        let mut waits = Vec::new();
        for _ in 0..10 {
            plan.handle_published(now, Some(2), 5, u64::MAX);
            assert!(plan.has_few_copies());
            waits.push(plan.due - now);
        }
        assert!(waits.is_sorted());
        assert!(waits[0] <= COPIES_RETRY_FIRST * 2 && waits[9] >= COPIES_RETRY_MOST);
    }

    #[test]
    fn enough_copies_are_as_many_as_there_can_be() {
        let now = Instant::now();
        for (copies, supernodes, is_enough) in [(1, 1, true), (1, 2, false), (2, 2, true), (2, 3, false), (3, 3, true), (3, 1000, true)] {
            let mut plan = RecordPlan::new(now);
            plan.handle_published(now, Some(copies), supernodes, 0);
            assert_eq!(plan.has_few_copies(), !is_enough, "{copies} of {supernodes}");
            assert_eq!(plan.is_due(now + COPIES_RETRY_FIRST * 2), !is_enough);
        }
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_soon() {
        let now = Instant::now();
        let mut plan = RecordPlan::new(now);
        plan.handle_published(now, None, 3, 0);
        assert!(plan.has_few_copies() && plan.is_due(now + PUBLISH_RETRY));
    }
}
