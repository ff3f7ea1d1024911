//! Signals on their way: sealed, sent through the supernodes at which a device is, and sent again where it has moved meanwhile.

use crate::lookup::find;
use crate::sessions::Sessions;
use crate::signals;
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::directory::{Request, Response};
use ahoy_protocol::invitation::SignalKind;
use ahoy_protocol::record::HOMES_MAX;
use ahoy_protocol::{CallId, List, NodeKey, UnixMillis};
use std::time::{Duration, SystemTime};
use tracing::debug;

/// Time between two tries: a device that has lost its supernode is at the next one by then.
const TRY_PAUSE: Duration = Duration::from_millis(900);

/// Where signals of one call to one device go.
#[derive(Debug, Clone)]
pub struct Courier {
    sessions: Sessions,
    call: CallId,
    to: VerifiedDevice,
    /// The supernodes at which the device said it is.
    homes: Vec<NodeKey>,
}

impl Courier {
    /// Knows the device, and where it was last.
    #[must_use]
    pub fn new(sessions: Sessions, call: CallId, to: VerifiedDevice, homes: Vec<NodeKey>) -> Self {
        Self { sessions, call, to, homes }
    }

    /// Sends a signal to the device, and again to where it is by then if it has moved. False if it is nowhere.
    pub async fn deliver(mut self, kind: SignalKind, tries: usize) -> bool {
        for attempt in 0..tries {
            if attempt > 0 {
                tokio::time::sleep(TRY_PAUSE).await;
                if let Ok(person) = find(&self.sessions, self.to.name()).await
                    && let Some((_, newer)) = person.devices.into_iter().find(|(device, _)| device.device() == self.to.device())
                {
                    self.homes = newer;
                }
            }
            let (now, to) = (UnixMillis::from(SystemTime::now()), self.to.device());
            let account = self.sessions.account();
            let Some(sealed) = signals::seal(&account, now, self.call, to, &self.to.seal(), kind.clone()) else { return false };
            let homes = List::first_of(self.homes.iter().copied().take(HOMES_MAX));
            match self.sessions.request(Request::Signal { to, homes, sealed }).await {
                Some(Response::Delivered { devices }) if devices > 0 => return true,
                other => debug!(?other, attempt, "a signal was not delivered"),
            }
        }
        false
    }
}
