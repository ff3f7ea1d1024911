//! Signals between devices that are not yet connected: sealed to the receiving device, signed inside by the sending one.

use crate::certificate::{DeviceCertificate, UserCertificate};
use crate::ids::{CallId, CallSecret, DeviceKey, NodeKey};
use crate::name::Name;
use crate::peer::{Candidate, EndReason, LegNews};
use crate::record::HOMES_MAX;
use crate::signed::{Signable, Signed};
use crate::time::UnixMillis;
use crate::wire::{List, Wire};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An invitation older than this is dropped.
pub const SIGNAL_AGE_MAX: Duration = Duration::from_secs(60);
/// Most relays offered for a call.
pub const RELAYS_OFFERED_MAX: usize = 6;
/// Most candidate addresses in one message.
pub const CANDIDATES_MAX: usize = 16;

/// What is sealed: the signed body, and the certificates by which a device that has never heard of the sender can check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Signed by the sending device.
    pub body: Signed<SignalBody>,
    /// The sender's user.
    pub user: Signed<UserCertificate>,
    /// The sending device.
    pub device: Signed<DeviceCertificate>,
}

impl Wire for Signal {
    const NAME: &'static str = "signal";
    const BYTES_MAX: usize = 3584;
}

/// What one device says to another about a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalBody {
    /// The call it is about.
    pub call: CallId,
    /// The device that signs.
    pub from: DeviceKey,
    /// The device it is for. Another drops it, so a supernode cannot redirect it.
    pub to: DeviceKey,
    /// When it was signed.
    pub issued: UnixMillis,
    /// What it says.
    pub kind: SignalKind,
}

impl Wire for SignalBody {
    const NAME: &'static str = "signal body";
    const BYTES_MAX: usize = 2048;
}

impl Signable for SignalBody {
    const CONTEXT: &'static str = "ahoy/signal/1";
}

/// What a signal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalKind {
    /// "I call you."
    Invite(Invitation),
    /// "I ring, and I join you at this relay." By the callee.
    Ringing {
        /// One of those that the invitation offered; `None` if none could be reached.
        relay: Option<NodeKey>,
    },
    /// "I do not take it": busy, declined, … By the callee.
    Reject(EndReason),
    /// "It is over": cancelled, missed, or answered elsewhere. By the caller.
    Cancel(EndReason),
    /// About a leg of the call, when no way of the call's own is left to say it on.
    Leg(LegNews),
}

/// A call to one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The caller's name, as in the certificate.
    pub caller: Name,
    /// The name that was called.
    pub callee: Name,
    /// The secret of the call with this device.
    pub secret: CallSecret,
    /// Where the caller's device can be answered.
    pub homes: List<NodeKey, HOMES_MAX>,
    /// Relays that the caller reaches.
    pub relays: List<RelayOffer, RELAYS_OFFERED_MAX>,
    /// The caller's addresses, only where it may give them already.
    pub candidates: List<Candidate, CANDIDATES_MAX>,
}

/// A relay, and how far it is from the one who offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayOffer {
    /// Its key; its addresses are in the roster.
    pub node: NodeKey,
    /// Round-trip time in milliseconds, `u16::MAX` if it was not measured.
    pub rtt_ms: u16,
}
