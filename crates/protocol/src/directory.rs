//! What clients, relays and other supernodes say to a supernode: one bidirectional stream a request, answered on the same stream.
//!
//! A supernode pushes to its registered clients on unidirectional streams, one [`Push`] each.

use crate::certificate::{DeviceCertificate, NodeRole, UserCertificate};
use crate::ids::{DeviceKey, NodeKey};
use crate::mail::{Envelope, MAIL_BYTES_MAX, MailForward, MailRequest, MailResponse};
use crate::name::Name;
use crate::record::{HOMES_MAX, PresenceRecord, Record, UserRecord};
use crate::roster::Roster;
use crate::signed::Signed;
use crate::wire::{Blob, List, Text, Wire};
use serde::{Deserialize, Serialize};

/// ALPN of the directory plane.
pub const ALPN: &[u8] = b"ahoy-directory/1";

/// Longest sealed signal, in bytes.
pub const SIGNAL_BYTES_MAX: usize = 4096;
/// Most different user records in an answer: stores that disagree are shown, the reader takes the highest.
pub const USER_RECORDS_MAX: usize = 3;
/// Most presence records in an answer.
pub const PRESENCE_RECORDS_MAX: usize = 24;
/// Most relays that a supernode names for a call.
pub const RELAYS_NAMED_MAX: usize = 6;
/// Most supernodes that an answer names as alternatives.
pub const ALTERNATIVES_MAX: usize = 3;

/// What is sealed to a device: an [`invitation::Signal`](crate::invitation::Signal).
pub type SealedSignal = Blob<SIGNAL_BYTES_MAX>;

/// A request to a supernode. The asker's key is the one it showed in the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A device says who it is. Needed before anything else but [`Request::Roster`].
    Register {
        /// Its user.
        user: Signed<UserCertificate>,
        /// Itself.
        device: Signed<DeviceCertificate>,
    },
    /// Stores a record in the directory.
    Publish(Record),
    /// Finds a user: the user record, and the presence of each device in it.
    Find(Name),
    /// Carries a signal to a device that is at one of these supernodes.
    Signal {
        /// The device it is sealed to.
        to: DeviceKey,
        /// Where the device says it is.
        homes: List<NodeKey, HOMES_MAX>,
        /// What to deliver.
        sealed: SealedSignal,
    },
    /// Asks for relays that are alive.
    Relays,
    /// Asks for the newest roster, if it is newer than this version.
    Roster {
        /// The version that the asker has.
        since: u64,
    },
    /// Another supernode hands on a signal for a device that is here.
    Forward {
        /// The device it is sealed to.
        to: DeviceKey,
        /// What to deliver.
        sealed: SealedSignal,
    },
    /// A relay says that it is alive, and how loaded.
    RelayStatus {
        /// Share of its limit in use, in percent.
        load_percent: u8,
    },
    /// About mail, by a registered device.
    Mail(Box<MailRequest>),
    /// Another supernode hands on mail.
    ForwardMail(Box<MailForward>),
}

impl Wire for Request {
    const NAME: &'static str = "directory request";
    const BYTES_MAX: usize = MAIL_BYTES_MAX + 16;
}

/// Longest request that is read from somebody who has not registered, in bytes.
pub const UNREGISTERED_BYTES_MAX: usize = 10 * 1024;

/// Answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done.
    Done,
    /// The record was stored.
    Published {
        /// Supernodes that hold it now.
        stored: u16,
    },
    /// A store holds a newer record, which stays.
    Superseded(Record),
    /// The answer to [`Request::Find`]. Nothing in it is to be believed before it is checked.
    Found(Found),
    /// The signal was handed to so many devices' connections (0: the device is at none of the supernodes named).
    Delivered {
        /// 0 or 1.
        devices: u8,
    },
    /// Relays that are alive, the least loaded first.
    Relays(List<RelayLoad, RELAYS_NAMED_MAX>),
    /// The newest roster, or nothing if the asker has it.
    Roster(Option<Signed<Roster>>),
    /// Not now.
    Busy {
        /// When to try again.
        retry_after_ms: u32,
        /// Who else may serve.
        alternatives: List<NodeKey, ALTERNATIVES_MAX>,
    },
    /// Never: why.
    Refused(Text<128>),
    /// About mail.
    Mail(Box<MailResponse>),
}

impl Wire for Response {
    const NAME: &'static str = "directory response";
    const BYTES_MAX: usize = 256 * 1024;
}

/// What the directory has on a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The different user records that stores returned; empty if nobody has that name.
    pub users: List<UserRecord, USER_RECORDS_MAX>,
    /// Presence of the devices in them.
    pub presence: List<PresenceRecord, PRESENCE_RECORDS_MAX>,
    /// How many supernodes were asked, the answering one included.
    pub supernodes_asked: u16,
}

/// A relay, and how loaded it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayLoad {
    /// Its key; its addresses are in the roster.
    pub node: NodeKey,
    /// Share of its limit in use, in percent.
    pub load_percent: u8,
}

/// What a supernode says to a registered client unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// A signal for this device.
    Deliver(SealedSignal),
    /// There is a newer roster.
    RosterVersion(u64),
    /// This supernode is about to stop: register elsewhere within that time.
    Drain {
        /// Time left.
        within_ms: u32,
    },
    /// An envelope for this device. It stays in the mailbox until the device deletes it, unless it was not to be kept.
    Mail(Box<Envelope>),
    /// Another device of the user changed the vault.
    VaultChanged,
}

impl Wire for Push {
    const NAME: &'static str = "push";
    const BYTES_MAX: usize = Envelope::BYTES_MAX + 16;
}

/// Which role a node of the roster needs to be allowed a request that clients may not make.
#[must_use]
pub fn role_needed(request: &Request) -> Option<NodeRole> {
    match request {
        Request::Forward { .. } | Request::ForwardMail(_) => Some(NodeRole::Supernode),
        Request::RelayStatus { .. } => Some(NodeRole::Relay),
        Request::Register { .. }
        | Request::Publish(_)
        | Request::Find(_)
        | Request::Signal { .. }
        | Request::Mail(_)
        | Request::Relays
        | Request::Roster { .. } => None,
    }
}
