//! What belongs to a call beyond the desk's view of it.

use crate::calls::CallFigures;
use crate::link::{Connected, Link};
use crate::media::{Media, MediaOptions, MediaSummary, Prepared, Ring};
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::ids::CallSecret;
use ahoy_protocol::invitation::{Invitation, RelayOffer};
use ahoy_protocol::{DeviceKey, NodeKey, UnixMillis};
use ahoy_transport::PathStatus;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// What belongs to a call beyond the desk's view of it.
pub(super) struct Call {
    /// When it was placed, or came in; for a call that came in, then when it was answered.
    pub(super) since: Instant,
    /// When it was placed, or came in.
    pub(super) began: UnixMillis,
    pub(super) media_options: MediaOptions,
    /// Whether the user wants this call to stay on relays.
    pub(super) relay_only: bool,
    /// Whether this device had never seen the other side's key before.
    pub(super) is_stranger: bool,
    pub(super) relays: Vec<RelayOffer>,
    pub(super) supernodes_asked: u16,
    pub(super) found_at: Vec<String>,
    pub(super) look_up: Duration,
    pub(super) parties: BTreeMap<DeviceKey, Party>,
    /// Of a call that came in.
    pub(super) invitation: Option<Invitation>,
    /// The device with which sound is to flow, once the link stands.
    pub(super) media_with: Option<DeviceKey>,
    /// Sound that waits for the answer.
    pub(super) prepared: Option<Prepared>,
    pub(super) media: Option<Media>,
    pub(super) summary: MediaSummary,
    /// What its figures add up to.
    pub(super) figures: CallFigures,
    /// Whether the other side holds it.
    pub(super) is_held_there: bool,
    /// While it rings.
    pub(super) ring: Option<Ring>,
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
    pub(super) connected: Option<Connected>,
}

impl Party {
    /// Nothing is begun with it yet.
    pub(super) fn new(device: VerifiedDevice, homes: Vec<NodeKey>, secret: CallSecret) -> Self {
        Self { device, homes, secret, inviting: None, link: None, connected: None }
    }
}

impl Call {
    pub(super) fn new(now: Instant, media_options: MediaOptions, relay_only: bool) -> Self {
        Self {
            since: now,
            began: UnixMillis::from(SystemTime::now()),
            media_options,
            relay_only,
            is_stranger: false,
            relays: Vec::new(),
            supernodes_asked: 0,
            found_at: Vec::new(),
            look_up: Duration::ZERO,
            parties: BTreeMap::new(),
            invitation: None,
            media_with: None,
            prepared: None,
            media: None,
            summary: MediaSummary::default(),
            figures: CallFigures::default(),
            is_held_there: false,
            ring: None,
            path_task: None,
        }
    }

    /// What is known of the link with a device.
    pub(super) fn connected(&self, device: Option<&DeviceKey>) -> Option<&Connected> {
        self.parties.get(device?)?.connected.as_ref()
    }

    /// The way the packets go.
    pub(super) fn path(&self, device: Option<&DeviceKey>) -> Option<PathStatus> {
        Some(*self.connected(device)?.path.borrow())
    }
}
