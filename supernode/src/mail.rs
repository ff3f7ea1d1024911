//! Mail: envelopes for devices that are away, or that are here and get them at once.
//!
//! The rules are in `ahoy-mailbox`, and the store behind them is at the [desk]. Here is what a supernode does with others: a device
//! posts at its home, which keeps what it is to keep and hands the rest on to the other mailboxes ([posting]); mailboxes of the same device
//! are compared now and then, and told to those that a newer roster chooses ([comparing]).

mod comparing;
mod desk;
mod forwarded;
mod posting;
mod requests;

pub(crate) use comparing::{compare, compare_urgent};
pub(crate) use desk::Desk;

use crate::plane::{Plane, now};
use ahoy_directory::mailboxes_for;
use ahoy_mailbox::{MailStore, Verdict};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::ids::{DeviceKey, NodeKey};
use ahoy_protocol::mail::MailboxTerms;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::MissedTickBehavior;

/// How often what has had its time is dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Devices whose mailboxes are to be compared at once. One that finds no room has its turn with all the others.
const URGENT_MAX: usize = 1024;

/// What a supernode has for mail.
pub(crate) struct Mail {
    pub(crate) desk: Desk,
    pub(crate) counters: Counters,
    urgent: mpsc::Sender<DeviceKey>,
    /// Taken by the one task that compares those.
    urgent_devices: Mutex<mpsc::Receiver<DeviceKey>>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    kept: AtomicU64,
    passed: AtomicU64,
    refused: AtomicU64,
    full: AtomicU64,
    pushed: AtomicU64,
    given: AtomicU64,
}

impl Counters {
    fn count(&self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Kept | Verdict::Taken => &self.kept,
            Verdict::Passed => &self.passed,
            Verdict::Full => &self.full,
            Verdict::NoMailbox | Verdict::NotPermitted => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Names and values.
    pub(crate) fn all(&self) -> [(&'static str, u64); 6] {
        [
            ("mail_kept", &self.kept),
            ("mail_passed", &self.passed),
            ("mail_refused", &self.refused),
            ("mail_full", &self.full),
            ("mail_pushed", &self.pushed),
            ("mail_given", &self.given),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

impl Mail {
    /// Serves from a store.
    pub(crate) fn start(store: MailStore) -> Self {
        let (urgent, urgent_devices) = mpsc::channel(URGENT_MAX);
        Self { desk: Desk::start(store), counters: Counters::default(), urgent, urgent_devices: urgent_devices.into() }
    }

    /// The other mailboxes of a device are told of it soon.
    fn hasten(&self, device: DeviceKey) {
        // When there is no room they are told with the next round.
        let _ = self.urgent.try_send(device);
    }
}

impl Plane {
    fn own_key(&self) -> NodeKey {
        self.node.key().node_key()
    }

    /// The supernodes that keep the mail of the user who said this.
    fn mailboxes_by(&self, terms: &MailboxTerms) -> Vec<NodeKey> {
        let view = self.roster();
        mailboxes_for(&terms.user, &terms.mailboxes, view.roster.nodes_in(NodeRole::Supernode).map(|node| node.node))
    }
}

/// Drops what has had its time.
pub(crate) async fn sweep(plane: Arc<Plane>) {
    let mut tick = tokio::time::interval(SWEEP_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match plane.mail.desk.ask(|store| store.sweep(now())).await {
            Ok(swept) => tracing::debug!(?swept, "mail that has had its time was dropped"),
            Err(error) => tracing::warn!(%error, "mail that has had its time could not be dropped"),
        }
    }
}
