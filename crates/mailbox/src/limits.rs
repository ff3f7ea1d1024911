//! How much of what is kept, and for how long.
//!
//! A user's room is divided evenly among his devices, so that one that never comes back does not take the others'. Of a device's room, one
//! pass may fill a quarter: it takes several contacts who mean harm before a further one finds no room.

use ahoy_protocol::time::DAY;
use std::time::Duration;

/// Most bytes of sealed content for one user.
pub const USER_BYTES_MAX: u64 = 20 * 1024 * 1024;
/// Most envelopes for one user. With the bytes above, this is 4 KiB each.
pub const USER_ENVELOPES_MAX: u64 = 5000;
/// One pass may fill this part of a device's room.
const PASS_PART: u64 = 4;
/// The user's other devices may fill this part. They write of everything that he writes to anybody.
const OWN_PART: u64 = 2;
/// Most requests by strangers that wait for one device. One that comes then is refused, and may be tried again.
pub const STRANGERS_MAX: u64 = 64;
/// Most envelopes that a device deleted and that are remembered, so that no other mailbox brings them back. When there are more, the oldest
/// are forgotten: one of those that came back would be known to the device.
pub const TAKEN_MAX: u64 = 4 * USER_ENVELOPES_MAX;
/// One-time keys of one device that one user is given in a day; further ones of his requests get the fallback key. All of his devices, and
/// some of them anew.
pub const KEYS_PER_ASKER_MAX: u32 = 16;
/// The time meant by [`KEYS_PER_ASKER_MAX`].
pub const ASKER_TIME: Duration = DAY;
/// Most keys that were given out and are remembered, so that the same is not given twice though its device, which had no answer, offers it
/// again.
pub const KEYS_GIVEN_MAX: u64 = 500;
/// A mailbox that its device has not opened for this long is closed: twice as long as an envelope waits.
pub const MAILBOX_LIFE: Duration = Duration::from_secs(60 * 24 * 3600);
/// The vault of a user of whom no device has been seen for this long is dropped: as long as the user key's word on his devices holds.
pub const VAULT_LIFE: Duration = Duration::from_secs(400 * 24 * 3600);
/// What was agreed on with another mailbox is gone through anew after this long, for that one may have lost something.
pub const AGREEMENT_LIFE: Duration = DAY;

/// What one supernode keeps in all.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most users. Further ones are refused, and have other supernodes to ask.
    pub users_max: u64,
    /// Most bytes of sealed content. Then nothing is taken until something is gone.
    pub bytes_max: u64,
}

impl Default for Limits {
    /// For a machine with a disk of some 50 GB. Most people have no mail waiting: this many users come to a tenth of it.
    fn default() -> Self {
        Self { users_max: 100_000, bytes_max: 32 * 1024 * 1024 * 1024 }
    }
}

/// Room for envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) envelopes: u64,
    pub(crate) bytes: u64,
}

impl Room {
    /// A user's.
    pub(crate) const USER: Self = Self { envelopes: USER_ENVELOPES_MAX, bytes: USER_BYTES_MAX };

    /// That of each of a user's devices, if he has so many.
    pub(crate) fn of_device(devices: u64) -> Self {
        Self::USER.part(devices.max(1))
    }

    /// What one pass may fill of a device's room.
    pub(crate) fn of_pass(self) -> Self {
        self.part(PASS_PART)
    }

    /// What the user's other devices may fill of a device's room.
    pub(crate) fn of_own(self) -> Self {
        self.part(OWN_PART)
    }

    /// Whether there is room for one more envelope beside those that are `used`.
    pub(crate) fn fits(self, used: Self, len: u64) -> bool {
        used.envelopes < self.envelopes && used.bytes.saturating_add(len) <= self.bytes
    }

    fn part(self, of: u64) -> Self {
        Self { envelopes: self.envelopes / of, bytes: self.bytes / of }
    }
}
