//! What belongs to a call beyond the desk's view of it.

use crate::link::Link;
use crate::media::{Media, MediaOptions, MediaSummary};
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::ids::CallSecret;
use ahoy_protocol::invitation::{Invitation, RelayOffer};
use ahoy_protocol::{DeviceKey, NodeKey};
use ahoy_transport::{Connection, PathStatus};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What belongs to a call beyond the desk's view of it.
pub(super) struct Call {
    /// When it was placed, or came in; for a call that came in, then when it was answered.
    pub(super) since: Instant,
    pub(super) media_options: MediaOptions,
    pub(super) relay_only: bool,
    pub(super) relays: Vec<RelayOffer>,
    pub(super) supernodes_asked: u16,
    pub(super) found_at: Vec<String>,
    pub(super) look_up: Duration,
    pub(super) parties: BTreeMap<DeviceKey, Party>,
    /// Of a call that came in.
    pub(super) invitation: Option<Invitation>,
    /// The device with which sound is to flow, once the link stands.
    pub(super) media_with: Option<DeviceKey>,
    pub(super) media: Option<Media>,
    pub(super) summary: MediaSummary,
    pub(super) path_task: Option<AbortOnDrop>,
}

/// A task that ends when nobody waits for it any more.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A device on the other side.
pub(super) struct Party {
    pub(super) device: VerifiedDevice,
    pub(super) homes: Vec<NodeKey>,
    pub(super) secret: CallSecret,
    pub(super) inviting: Option<AbortOnDrop>,
    pub(super) link: Option<Link>,
    pub(super) connected: Option<(Connection, watch::Receiver<PathStatus>)>,
}

impl Call {
    pub(super) fn new(now: Instant, media_options: MediaOptions, relay_only: bool) -> Self {
        Self {
            since: now,
            media_options,
            relay_only,
            relays: Vec::new(),
            supernodes_asked: 0,
            found_at: Vec::new(),
            look_up: Duration::ZERO,
            parties: BTreeMap::new(),
            invitation: None,
            media_with: None,
            media: None,
            summary: MediaSummary::default(),
            path_task: None,
        }
    }

    pub(super) fn path(&self, device: Option<&DeviceKey>) -> Option<PathStatus> {
        Some(*self.parties.get(device?)?.connected.as_ref()?.1.borrow())
    }
}
