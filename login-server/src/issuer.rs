//! What the login server signs, and for how long each lasts.
//!
//! The serial of a certificate names the key it certifies, not the single document: it stays through renewals, so that
//! one entry in the roster's list of revoked serials ends every certificate of that key.

use ahoy_identity::SigningKey;
use ahoy_protocol::certificate::{DeviceCertificate, DeviceStatement, NodeCertificate, NodeRole, RelayGrant, UserCertificate};
use ahoy_protocol::login::LoginError;
use ahoy_protocol::roster::{ROSTER_LIFE, Roster};
use ahoy_protocol::time::DAY;
use ahoy_protocol::{DeviceKey, Name, NodeKey, Signable, Signed, UnixMillis, UserKey};
use std::time::Duration;

/// Life of a user's and a device's certificate: long enough for a month away, short enough that what is not renewed ends.
pub(crate) const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Life of a node's certificate, which the node renews at half of it.
pub(crate) const NODE_CERTIFICATE_LIFE: Duration = DAY;
/// Life of a grant, which the device renews daily: that of a roster, so that calls go on over relays for as long as the network
/// can do without its login server.
pub(crate) const GRANT_LIFE: Duration = ROSTER_LIFE;
/// What a relay grants one device each way: 16 calls at the highest bitrate, or one file at a fair speed.
const GRANT_KBIT_PER_S: u32 = 4096;

/// Signs with the issuing key.
pub(crate) struct Issuer {
    key: SigningKey,
}

impl Issuer {
    pub(crate) fn new(key: SigningKey) -> Self {
        Self { key }
    }

    pub(crate) fn user(
        &self,
        name: &Name,
        user: UserKey,
        epoch: u32,
        serial: u64,
        now: UnixMillis,
    ) -> Result<Signed<UserCertificate>, LoginError> {
        let not_after = now.plus(CERTIFICATE_LIFE);
        self.sign(&UserCertificate { name: name.clone(), user, epoch, serial, issued: now, not_after })
    }

    pub(crate) fn device(
        &self,
        user: UserKey,
        statement: Signed<DeviceStatement>,
        serial: u64,
        now: UnixMillis,
    ) -> Result<Signed<DeviceCertificate>, LoginError> {
        self.sign(&DeviceCertificate { user, statement, serial, issued: now, not_after: now.plus(CERTIFICATE_LIFE) })
    }

    pub(crate) fn node(&self, role: NodeRole, node: NodeKey, serial: u64, now: UnixMillis) -> Result<Signed<NodeCertificate>, LoginError> {
        self.sign(&NodeCertificate { role, node, serial, issued: now, not_after: now.plus(NODE_CERTIFICATE_LIFE) })
    }

    pub(crate) fn grant(&self, device: DeviceKey, now: UnixMillis) -> Result<Signed<RelayGrant>, LoginError> {
        self.sign(&RelayGrant { device, kbit_per_s: GRANT_KBIT_PER_S, issued: now, not_after: now.plus(GRANT_LIFE) })
    }

    pub(crate) fn roster(&self, roster: &Roster) -> Result<Signed<Roster>, LoginError> {
        debug_assert_eq!(roster.not_after, roster.issued.plus(ROSTER_LIFE));
        self.sign(roster)
    }

    fn sign<T: Signable>(&self, value: &T) -> Result<Signed<T>, LoginError> {
        self.key.sign(value).map_err(|error| {
            tracing::error!(%error, "cannot sign");
            LoginError::Internal
        })
    }
}
