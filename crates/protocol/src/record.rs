//! Records of the directory. No address of a user is in any of them.
//!
//! The *user record* lies under the hash of the name: which devices the user has. Only the user key can write it. The
//! *presence record* lies under the hash of the device key: at which supernodes the device is. Only the device can write it.

use crate::certificate::{DeviceCertificate, UserCertificate};
use crate::ids::{DeviceKey, NodeKey};
use crate::name::Name;
use crate::signed::{Signable, Signed};
use crate::time::UnixMillis;
use crate::wire::{List, Wire};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most devices of one user.
pub const DEVICES_MAX: usize = 12;
/// Most supernodes at which a device is: its home and two standbys.
pub const HOMES_MAX: usize = 3;
/// Most mailboxes of a user.
pub const MAILBOXES_MAX: usize = 3;
/// How long a device says it will be there.
pub const PRESENCE_LIFE: Duration = Duration::from_secs(3600);
/// How long the user key's word on the device list holds. The certificates beside it are renewed far more often, by each device.
pub const USER_STATEMENT_LIFE: Duration = Duration::from_secs(400 * 24 * 3600);
/// How long a store keeps a record that nobody refreshes.
pub const USER_RECORD_KEPT: Duration = Duration::from_secs(48 * 3600);

/// The user's devices and mailboxes. Signed by the user key, which is at hand only when a device is added or revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStatement {
    /// The user's name.
    pub name: Name,
    /// Epoch of the user key that signs.
    pub epoch: u32,
    /// Counts up with every change within an epoch: Unix milliseconds, or one more than the last.
    pub seq: u64,
    /// The devices that count.
    pub devices: List<DeviceKey, DEVICES_MAX>,
    /// Supernodes that keep messages for the user.
    pub mailboxes: List<NodeKey, MAILBOXES_MAX>,
    /// When it was signed.
    pub issued: UnixMillis,
    /// Valid until.
    pub not_after: UnixMillis,
}

impl Wire for UserStatement {
    const NAME: &'static str = "user statement";
    const BYTES_MAX: usize = 768;
}

impl Signable for UserStatement {
    const CONTEXT: &'static str = "ahoy/user-statement/1";
}

/// What the directory holds under a name. Any device of the user may store it again, with renewed certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// Signed by an issuing key.
    pub certificate: Signed<UserCertificate>,
    /// Signed by the user key in `certificate`.
    pub statement: Signed<UserStatement>,
    /// One certificate for each device in `statement`, in that order.
    pub devices: List<Signed<DeviceCertificate>, DEVICES_MAX>,
}

/// Where a device can be reached. Signed by the device key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceStatement {
    /// The device.
    pub device: DeviceKey,
    /// Counts up with every refresh: Unix milliseconds, or one more than the last.
    pub seq: u64,
    /// Supernodes at which the device is registered, its home first. Empty when it has gone offline.
    pub homes: List<NodeKey, HOMES_MAX>,
    /// When it was signed.
    pub issued: UnixMillis,
    /// Valid until.
    pub not_after: UnixMillis,
}

impl Wire for PresenceStatement {
    const NAME: &'static str = "presence statement";
    const BYTES_MAX: usize = 192;
}

impl Signable for PresenceStatement {
    const CONTEXT: &'static str = "ahoy/presence-statement/1";
}

/// What the directory holds under a device key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRecord {
    /// Signed by the device key in `certificate`.
    pub statement: Signed<PresenceStatement>,
    /// Signed by an issuing key.
    pub certificate: Signed<DeviceCertificate>,
}

/// Whose record it is: with the roster's salt, this gives the key it lies under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// The user record of a name.
    User(Name),
    /// The presence record of a device.
    Device(DeviceKey),
}

/// A value in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A user record.
    User(UserRecord),
    /// A presence record.
    Presence(PresenceRecord),
}

impl Wire for Record {
    const NAME: &'static str = "record";
    /// Well under the 16 KiB of a Kademlia message.
    const BYTES_MAX: usize = 8 * 1024;
}
