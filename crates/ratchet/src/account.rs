//! The identity of this device in ratchets, and the keys that others may begin with.

use crate::RatchetError;
use ahoy_identity::SigningKey;
use ahoy_protocol::ids::RatchetKey;
use ahoy_protocol::mail::{Prekey, PrekeyKind};
use ahoy_protocol::{Signed, UnixMillis};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use vodozemac::Curve25519PublicKey;
use vodozemac::olm::{AccountPickle, OlmMessage, Session, SessionConfig};
use zeroize::Zeroizing;

/// How long a fallback key is offered. Whoever records an opening made with it can read it if he gets hold of the device within twice that.
pub const FALLBACK_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) struct Account {
    olm: vodozemac::olm::Account,
    fallback: Option<Fallback>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account(of {:?})", self.identity())
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Fallback {
    key: RatchetKey,
    made: UnixMillis,
}

#[derive(Deserialize)]
struct Stored {
    olm: AccountPickle,
    fallback: Option<Fallback>,
}

#[derive(Serialize)]
struct Storing<'a> {
    olm: &'a AccountPickle,
    fallback: Option<Fallback>,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self { olm: vodozemac::olm::Account::new(), fallback: None }
    }

    pub(crate) fn identity(&self) -> RatchetKey {
        RatchetKey(self.olm.curve25519_key().to_bytes())
    }

    pub(crate) fn one_time_keys(&mut self, now: UnixMillis, device: &SigningKey, count: usize) -> Vec<Signed<Prekey>> {
        let made = self.olm.generate_one_time_keys(count).created;
        self.olm.mark_keys_as_published();
        made.into_iter().filter_map(|key| self.signed(device, RatchetKey(key.to_bytes()), PrekeyKind::OneTime, now)).collect()
    }

    /// Whether there is another now.
    pub(crate) fn renew_fallback(&mut self, now: UnixMillis) -> bool {
        if self.fallback.is_some_and(|fallback| now < fallback.made.plus(FALLBACK_LIFE)) {
            return false;
        }
        // The account keeps the one before, and forgets the one before that.
        self.olm.generate_fallback_key();
        let key = self.olm.fallback_key().into_values().next();
        self.olm.mark_keys_as_published();
        self.fallback = key.map(|key| Fallback { key: RatchetKey(key.to_bytes()), made: now });
        true
    }

    pub(crate) fn fallback_key(&self, device: &SigningKey) -> Option<Signed<Prekey>> {
        let Fallback { key, made } = self.fallback?;
        self.signed(device, key, PrekeyKind::Fallback, made)
    }

    fn signed(&self, device: &SigningKey, key: RatchetKey, kind: PrekeyKind, issued: UnixMillis) -> Option<Signed<Prekey>> {
        device.sign(&Prekey { device: device.device_key(), identity: self.identity(), key, kind, issued }).ok()
    }

    /// A ratchet towards whoever has these keys; `None` if one of them is no key.
    pub(crate) fn begin(&self, identity: RatchetKey, key: RatchetKey) -> Option<Session> {
        self.olm.create_outbound_session(SessionConfig::default(), public(identity), public(key)).ok()
    }

    /// A ratchet that another device began, and its first message.
    pub(crate) fn accept(&mut self, identity: RatchetKey, message: &[u8]) -> Result<(Session, Zeroizing<Vec<u8>>), RatchetError> {
        let Ok(OlmMessage::PreKey(message)) = OlmMessage::from_parts(OPENING, message) else { return Err(RatchetError::Malformed) };
        let made = self.olm.create_inbound_session(SessionConfig::default(), public(identity), &message);
        let made = made.map_err(|_| RatchetError::Undecryptable)?;
        Ok((made.session, Zeroizing::new(made.plaintext)))
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let stored = Storing { olm: &self.olm.pickle(), fallback: self.fallback };
        Zeroizing::new(serde_json::to_vec(&stored).expect("keys are JSON"))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RatchetError> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| RatchetError::Stored)?;
        Ok(Self { olm: vodozemac::olm::Account::from_pickle(stored.olm), fallback: stored.fallback })
    }
}

/// Olm's number of a message that begins a ratchet.
pub(crate) const OPENING: usize = 0;
/// And of any other.
pub(crate) const FURTHER: usize = 1;

fn public(key: RatchetKey) -> Curve25519PublicKey {
    Curve25519PublicKey::from_bytes(key.0)
}
