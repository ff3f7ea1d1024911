//! Who vouches for which key: the network's root, the login server's issuing key, the user key, and what each signs.
//!
//! ```text
//! root key ──signs──► issuing key ──signs──► user certificate (name, user key)
//!                          │                      └─ user key ──signs──► device statement
//!                          ├──────signs──► device certificate (holds the device statement)
//!                          ├──────signs──► node certificate, relay grant, roster
//! ```
//! A device counts only if the user key *and* the login server signed it.

use crate::ids::{DeviceKey, IssuingKey, NodeKey, RootKey, SealKey, UserKey};
use crate::name::Name;
use crate::signed::{SIGNED_OVERHEAD_BYTES, Signable, Signed};
use crate::time::UnixMillis;
use crate::wire::{List, Text, Wire};
use serde::{Deserialize, Serialize};

/// Most issuing keys in force at one time: the one in use, its successor, and two on their way out.
pub const ISSUING_KEYS_MAX: usize = 4;

/// Which keys may issue. Signed by the root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatement {
    /// Keys whose signature on certificates, rosters and grants counts.
    pub issuing: List<IssuingKey, ISSUING_KEYS_MAX>,
    /// When the statement was made. A reader keeps the newest.
    pub issued: UnixMillis,
}

impl Wire for NetworkStatement {
    const NAME: &'static str = "network statement";
    const BYTES_MAX: usize = 256;
}

impl Signable for NetworkStatement {
    const CONTEXT: &'static str = "ahoy/network-statement/1";
}

/// The network's root key and what it signed: what a newcomer checks against the hash in the network link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDocument {
    /// Hashes to the key in the network link.
    pub root: RootKey,
    /// Signed by `root`.
    pub statement: Signed<NetworkStatement>,
}

impl Wire for NetworkDocument {
    const NAME: &'static str = "network document";
    const BYTES_MAX: usize = 512;
}

/// This name belongs to this key. Signed by an issuing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCertificate {
    /// The user's name.
    pub name: Name,
    /// The user's key.
    pub user: UserKey,
    /// Counts up when the user key is replaced; lower epochs are refused by store and reader.
    pub epoch: u32,
    /// Number of the certificate, by which a roster can revoke it.
    pub serial: u64,
    /// Valid from.
    pub issued: UnixMillis,
    /// Valid until.
    pub not_after: UnixMillis,
}

impl Wire for UserCertificate {
    const NAME: &'static str = "user certificate";
    const BYTES_MAX: usize = 256;
}

impl Signable for UserCertificate {
    const CONTEXT: &'static str = "ahoy/user-certificate/1";
}

/// Longest name that a user gives a device, in bytes.
pub const DEVICE_LABEL_BYTES_MAX: usize = 48;

/// This device is mine. Signed by the user key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatement {
    /// The user's name.
    pub name: Name,
    /// The epoch of the user key that signs.
    pub epoch: u32,
    /// The device's key.
    pub device: DeviceKey,
    /// The key to which one seals for the device.
    pub seal: SealKey,
    /// What the user calls the device.
    pub label: Text<DEVICE_LABEL_BYTES_MAX>,
    /// When the device was added.
    pub added: UnixMillis,
}

impl Wire for DeviceStatement {
    const NAME: &'static str = "device statement";
    const BYTES_MAX: usize = 320;
}

impl Signable for DeviceStatement {
    const CONTEXT: &'static str = "ahoy/device-statement/1";
}

/// The login server's consent to a device. Signed by an issuing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCertificate {
    /// The key that signed `statement`.
    pub user: UserKey,
    /// What the user says of the device.
    pub statement: Signed<DeviceStatement>,
    /// Number of the certificate, by which a roster can revoke it.
    pub serial: u64,
    /// Valid from.
    pub issued: UnixMillis,
    /// Valid until.
    pub not_after: UnixMillis,
}

impl Wire for DeviceCertificate {
    const NAME: &'static str = "device certificate";
    const BYTES_MAX: usize = DeviceStatement::BYTES_MAX + SIGNED_OVERHEAD_BYTES + 80;
}

impl Signable for DeviceCertificate {
    const CONTEXT: &'static str = "ahoy/device-certificate/1";
}

/// What a node does for the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeRole {
    /// Hosts the directory and carries invitations.
    Supernode,
    /// Joins two legs of a call.
    Relay,
}

impl std::fmt::Display for NodeRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Supernode => "supernode",
            Self::Relay => "relay",
        })
    }
}

/// This key may serve in this role. Signed by an issuing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCertificate {
    /// What the node does.
    pub role: NodeRole,
    /// The node's key, fixed at enrolment.
    pub node: NodeKey,
    /// Number of the certificate, by which a roster can revoke it.
    pub serial: u64,
    /// Valid from.
    pub issued: UnixMillis,
    /// Valid until: 24 hours later.
    pub not_after: UnixMillis,
}

impl Wire for NodeCertificate {
    const NAME: &'static str = "node certificate";
    const BYTES_MAX: usize = 128;
}

impl Signable for NodeCertificate {
    const CONTEXT: &'static str = "ahoy/node-certificate/1";
}

/// This device may use relays. Signed by an issuing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayGrant {
    /// The device, which proves its key in the handshake with the relay.
    pub device: DeviceKey,
    /// The rate that a relay grants the device at most, each way, in kilobits a second.
    pub kbit_per_s: u32,
    /// Valid from.
    pub issued: UnixMillis,
    /// Valid until.
    pub not_after: UnixMillis,
}

impl Wire for RelayGrant {
    const NAME: &'static str = "relay grant";
    const BYTES_MAX: usize = 96;
}

impl Signable for RelayGrant {
    const CONTEXT: &'static str = "ahoy/relay-grant/1";
}
