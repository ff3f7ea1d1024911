//! What the directory says about this device and its user.

use super::slots::{connect, register, supernodes_for};
use super::{Inner, REQUEST_TIME, Session, lock, random_u64, registered, unix_now};
use crate::home::Account;
use ahoy_directory::{Gate, choose_presence, choose_user};
use ahoy_identity::Network;
use ahoy_protocol::directory::{Request, Response};
use ahoy_protocol::record::{PRESENCE_LIFE, PresenceRecord, PresenceStatement, Record, UserRecord};
use ahoy_protocol::{DeviceKey, List, NodeKey};
use ahoy_resilience::share_of;
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
    let mut record_due = Instant::now();
    let mut salts = Vec::new();
    let mut known = BTreeSet::new();
    loop {
        sleep(SETTLE_TIME).await;
        let sessions = connected.borrow_and_update().clone();
        let homes: Vec<NodeKey> = registered(&sessions).map(|session| session.node).collect();
        // A supernode that has just begun may hold nothing, and there may be no other.
        let current = connections(&sessions);
        let is_news = !current.is_subset(&known) || inner.is_record_new.swap(false, Ordering::Relaxed);
        known = current;
        let mut pause = PRESENCE_REFRESH - share_of(PRESENCE_REFRESH / 10, random_u64());
        if !homes.is_empty() {
            let current_salts = rosters.borrow_and_update().salts_at(unix_now());
            if is_news || record_due <= Instant::now() || salts != current_salts {
                if inner.publish_record().await {
                    record_due = Instant::now() + RECORD_REFRESH - share_of(RECORD_REFRESH / 10, random_u64());
                    salts = current_salts;
                } else {
                    record_due = Instant::now();
                    pause = PUBLISH_RETRY;
                }
            }
            if inner.publish_presence(&homes).await {
                inner.presence_published.send_modify(|count| *count += 1);
            } else {
                pause = PUBLISH_RETRY;
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

    /// Writes the user record again. True once the directory has it, or a newer one.
    async fn publish_record(self: &Arc<Self>) -> bool {
        let account = lock(&self.account).clone();
        match self.request(Request::Publish(Record::User(account.record.clone()))).await {
            Some(Response::Published { .. }) => true,
            Some(Response::Superseded(Record::User(newer))) => {
                self.adopt_record(&account, newer);
                true
            }
            other => {
                debug!(?other, "the user record was not published");
                false
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
