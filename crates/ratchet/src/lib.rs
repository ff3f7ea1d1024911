//! Double ratchets between devices, and the envelopes around them. The one crate that names vodozemac.
//!
//! Each pair of devices has a ratchet of its own (Olm: triple Diffie-Hellman, then a double ratchet), so that each message has a key that
//! nobody has any more once it was read, and a device that was broken into heals after an answer. A ratchet is begun with a
//! [`Prekey`](ahoy_protocol::mail::Prekey) that the other device left at its mailboxes, so that it need not be online.
//!
//! Around the ratchet's message is a seal to the device (HPKE): a mailbox does not see who writes. It binds the envelope's number and the
//! device, and pads, so that sizes say little.
//!
//! What this crate does not do: no I/O, no clock. It does take randomness from the system, as the ratchet must never be given the same twice.
//! What changed is given back by [`Ratchets::take_changes`] and is to be stored *before* an envelope is sent or deleted: a ratchet that is
//! turned back would use a key twice.

mod account;
mod envelope;
mod sessions;

pub use account::FALLBACK_LIFE;
pub use envelope::{EnvelopeError, open_envelope, seal_letter};
pub use sessions::{SESSIONS_MAX, UNREAD_KEYS_MAX};

use ahoy_identity::SigningKey;
use ahoy_protocol::ids::RatchetKey;
use ahoy_protocol::letter::{Letter, RatchetIdentity, Sender};
use ahoy_protocol::mail::Prekey;
use ahoy_protocol::message::Parcel;
use ahoy_protocol::{Blob, DeviceKey, Signed, Wire, WireError};
use sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use zeroize::Zeroizing;

/// Most devices with which there are ratchets. The one that was used longest ago makes room.
pub const DEVICES_MAX: usize = 16_384;

/// Why there is no ratchet for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RatchetError {
    /// There is no ratchet with this device: [`Ratchets::begin`] first.
    #[error("no ratchet with this device was begun")]
    NotBegun,
    /// The signature is not the device's, or it signed another device's key.
    #[error("the key is not signed by the device")]
    NotSigned,
    /// The key is no key.
    #[error("the key is malformed")]
    Key,
    /// The message is none of a ratchet.
    #[error("the message is malformed")]
    Malformed,
    /// No ratchet opens the message: it was opened before, or was made with keys that are gone.
    #[error("no ratchet opens this message")]
    Undecryptable,
    /// What was opened is no parcel.
    #[error(transparent)]
    Parcel(#[from] WireError),
    /// What was stored cannot be read.
    #[error("the stored ratchets cannot be read")]
    Stored,
}

/// One thing to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The account: the identity and the keys that others may begin with.
    Account(Zeroizing<Vec<u8>>),
    /// The ratchets with a device; `None`: it is to be forgotten.
    Device(DeviceKey, Option<Zeroizing<Vec<u8>>>),
}

/// All ratchets of this device.
#[derive(Debug)]
pub struct Ratchets {
    account: account::Account,
    devices: BTreeMap<DeviceKey, Sessions>,
    uses: u64,
    is_account_changed: bool,
    changed: BTreeSet<DeviceKey>,
}

impl Default for Ratchets {
    fn default() -> Self {
        Self::new()
    }
}

impl Ratchets {
    /// A new identity, and no ratchet.
    #[must_use]
    pub fn new() -> Self {
        Self { account: account::Account::new(), devices: BTreeMap::new(), uses: 0, is_account_changed: true, changed: BTreeSet::new() }
    }

    /// What [`take_changes`](Self::take_changes) gave out, the last of each kind.
    ///
    /// # Errors
    /// [`RatchetError::Stored`].
    pub fn restore<'a>(account: &[u8], devices: impl IntoIterator<Item = (DeviceKey, &'a [u8])>) -> Result<Self, RatchetError> {
        let mut ratchets = Self {
            account: account::Account::from_bytes(account)?,
            devices: BTreeMap::new(),
            uses: 0,
            is_account_changed: false,
            changed: BTreeSet::new(),
        };
        for (device, bytes) in devices {
            let sessions = Sessions::from_bytes(bytes)?;
            ratchets.uses = ratchets.uses.max(sessions.last_used());
            ratchets.devices.insert(device, sessions);
        }
        Ok(ratchets)
    }

    /// This device's identity key in ratchets.
    #[must_use]
    pub fn identity(&self) -> RatchetKey {
        self.account.identity()
    }

    /// Makes `count` one-time keys. Each is to be offered at one mailbox alone: two people who begin with the same one could not both be read.
    pub fn one_time_keys(&mut self, now: ahoy_protocol::UnixMillis, device: &SigningKey, count: usize) -> Vec<Signed<Prekey>> {
        self.is_account_changed = true;
        self.account.one_time_keys(now, device, count)
    }

    /// The key for when there are no one-time keys; a new one after [`FALLBACK_LIFE`]. The one before is read for as long again.
    pub fn fallback_key(&mut self, now: ahoy_protocol::UnixMillis, device: &SigningKey) -> Option<Signed<Prekey>> {
        self.is_account_changed |= self.account.renew_fallback(now);
        self.account.fallback_key(device)
    }

    /// Whether something can be written to this device without a key of its own.
    #[must_use]
    pub fn is_begun(&self, device: &DeviceKey) -> bool {
        self.devices.get(device).is_some_and(|sessions| !sessions.is_empty())
    }

    /// Begins a ratchet with the device that signed this key. The next letter to it is an [`Letter::Opening`].
    ///
    /// # Errors
    /// [`RatchetError::NotSigned`], [`RatchetError::Key`].
    pub fn begin(&mut self, device: &DeviceKey, key: &Signed<Prekey>) -> Result<(), RatchetError> {
        let key = ahoy_identity::verify(key, &device.0).map_err(|_| RatchetError::NotSigned)?;
        if key.device != *device {
            return Err(RatchetError::NotSigned);
        }
        let session = self.account.begin(key.identity, key.key).ok_or(RatchetError::Key)?;
        let used = self.next_use();
        self.entry(device).add(session, used);
        Ok(())
    }

    /// A letter with this parcel for a device. Until the device has answered it is an opening, which shows who `sender` is.
    ///
    /// # Errors
    /// [`RatchetError::NotBegun`]; [`RatchetError::Parcel`] for one that is too long.
    pub fn write(&mut self, to: &DeviceKey, signing: &SigningKey, sender: &Sender, parcel: &Parcel) -> Result<Letter, RatchetError> {
        let plain = Zeroizing::new(parcel.encode()?);
        let (used, own_identity) = (self.next_use(), self.identity());
        let sessions = self.devices.get_mut(to).ok_or(RatchetError::NotBegun)?;
        let (is_opening, message) = sessions.encrypt(&plain, used).ok_or(RatchetError::NotBegun)?;
        self.changed.insert(*to);
        let message = Blob::new(message).ok_or(RatchetError::Malformed)?;
        if !is_opening {
            return Ok(Letter::Sealed { from: signing.device_key(), message });
        }
        let identity = signing.sign(&RatchetIdentity { device: signing.device_key(), identity: own_identity })?;
        Ok(Letter::Opening { sender: Box::new(sender.clone()), identity, message })
    }

    /// What an opening says. `from` is the device that `identity` has to be signed by; that it counts is for the caller to check *before*.
    ///
    /// # Errors
    /// See [`RatchetError`]; then nothing changed.
    pub fn read_opening(&mut self, from: &DeviceKey, identity: &Signed<RatchetIdentity>, message: &[u8]) -> Result<Parcel, RatchetError> {
        let identity = ahoy_identity::verify(identity, &from.0).map_err(|_| RatchetError::NotSigned)?;
        if identity.device != *from {
            return Err(RatchetError::NotSigned);
        }
        let used = self.next_use();
        // Several openings of the same ratchet come before the answer; only the first makes one.
        if let Some(plain) = self.devices.get_mut(from).and_then(|sessions| sessions.decrypt_opening(message, used)) {
            self.changed.insert(*from);
            return Ok(Parcel::decode(&plain)?);
        }
        let (session, plain) = self.account.accept(identity.identity, message)?;
        self.is_account_changed = true;
        self.entry(from).add(session, used);
        Ok(Parcel::decode(&plain)?)
    }

    /// What a further letter says.
    ///
    /// # Errors
    /// See [`RatchetError`]; then nothing changed. After [`RatchetError::Undecryptable`] or [`RatchetError::NotBegun`] a ratchet begun anew
    /// lets the two devices understand each other again; what was in the letter is asked for by those who know that it is missing.
    pub fn read(&mut self, from: &DeviceKey, message: &[u8]) -> Result<Parcel, RatchetError> {
        let used = self.next_use();
        let sessions = self.devices.get_mut(from).ok_or(RatchetError::NotBegun)?;
        let plain = sessions.decrypt(message, used)?;
        self.changed.insert(*from);
        Ok(Parcel::decode(&plain)?)
    }

    /// Forgets a device: it was revoked.
    pub fn forget(&mut self, device: &DeviceKey) {
        if self.devices.remove(device).is_some() {
            self.changed.insert(*device);
        }
    }

    /// What has to be stored, each thing once.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if std::mem::take(&mut self.is_account_changed) {
            changes.push(Change::Account(self.account.to_bytes()));
        }
        for device in std::mem::take(&mut self.changed) {
            changes.push(Change::Device(device, self.devices.get(&device).map(Sessions::to_bytes)));
        }
        changes
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    fn entry(&mut self, device: &DeviceKey) -> &mut Sessions {
        if self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(device) {
            let oldest = self.devices.iter().min_by_key(|(_, sessions)| sessions.last_used()).map(|(device, _)| *device);
            if let Some(oldest) = oldest {
                self.forget(&oldest);
            }
        }
        self.changed.insert(*device);
        self.devices.entry(*device).or_default()
    }
}

#[cfg(test)]
mod tests;
