//! What is inside an envelope, once the device it is for has opened it: who it is from, and a message of a double ratchet or a stranger's
//! request.

use crate::certificate::{DeviceCertificate, UserCertificate};
use crate::ids::{DeviceKey, NodeKey, RatchetKey};
use crate::mail::{ENVELOPE_BYTES_MAX, Pass};
use crate::name::Name;
use crate::record::MAILBOXES_MAX;
use crate::signed::{Signable, Signed};
use crate::time::UnixMillis;
use crate::wire::{Blob, List, Prose, Wire};
use serde::{Deserialize, Serialize};

/// Longest message of a ratchet, in bytes: an envelope less what seals it, and the certificates beside it.
pub const RATCHET_BYTES_MAX: usize = ENVELOPE_BYTES_MAX - 2 * 1024;
/// Longest text of a request, in bytes.
pub const REQUEST_TEXT_BYTES_MAX: usize = 300;

/// The sealed content of an envelope, followed by zeros.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Letter {
    /// The first messages of a ratchet, until one came back: with them the receiver begins its side.
    Opening {
        /// By which the receiver knows who the sender is.
        sender: Box<Sender>,
        /// The sender's identity key in ratchets, signed by its device.
        identity: Signed<RatchetIdentity>,
        /// A pre-key message, as the ratchet makes it.
        message: Blob<RATCHET_BYTES_MAX>,
    },
    /// A further message.
    Sealed {
        /// The device that sends.
        from: DeviceKey,
        /// A message, as the ratchet makes it.
        message: Blob<RATCHET_BYTES_MAX>,
    },
    /// Somebody asks to become a contact.
    Request {
        /// Who.
        sender: Box<Sender>,
        /// What is asked.
        request: Signed<ContactRequest>,
    },
}

impl Wire for Letter {
    const NAME: &'static str = "letter";
    const BYTES_MAX: usize = ENVELOPE_BYTES_MAX;
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The user.
    pub user: Signed<UserCertificate>,
    /// The device.
    pub device: Signed<DeviceCertificate>,
}

/// A device's key in ratchets. Signed by the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatchetIdentity {
    /// The device.
    pub device: DeviceKey,
    /// Its identity key in ratchets.
    pub identity: RatchetKey,
}

impl Wire for RatchetIdentity {
    const NAME: &'static str = "ratchet identity";
    const BYTES_MAX: usize = 80;
}

impl Signable for RatchetIdentity {
    const CONTEXT: &'static str = "ahoy/ratchet-identity/1";
}

/// "May I be one of your contacts?" Signed by the device that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRequest {
    /// The device that asks.
    pub from: DeviceKey,
    /// The name that is asked.
    pub to: Name,
    /// When.
    pub issued: UnixMillis,
    /// The asker's mailboxes, where the answer goes.
    pub mailboxes: List<NodeKey, MAILBOXES_MAX>,
    /// The right to answer there.
    pub pass: Pass,
    /// A few words.
    pub text: Prose<REQUEST_TEXT_BYTES_MAX>,
}

impl Wire for ContactRequest {
    const NAME: &'static str = "contact request";
    const BYTES_MAX: usize = 768;
}

impl Signable for ContactRequest {
    const CONTEXT: &'static str = "ahoy/contact-request/1";
}
