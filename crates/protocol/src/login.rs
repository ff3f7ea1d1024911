//! What client and nodes say to the login server: request and answer bodies of the HTTPS interface.
//!
//! Every body is a [`Wire`] value. An answer with status 200 holds the answer type, any other status a [`LoginError`].

use crate::certificate::{DeviceCertificate, DeviceStatement, NodeCertificate, NodeRole, RelayGrant, UserCertificate};
use crate::ids::{DeviceKey, NetworkId, NodeKey, UserKey};
use crate::name::Name;
use crate::record::DEVICES_MAX;
use crate::roster::{NODE_ADDRESSES_MAX, Roster};
use crate::signed::{Signable, Signed};
use crate::time::UnixMillis;
use crate::wire::{Blob, List, Text, Wire};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use thiserror::Error;

/// Paths of the interface, below the server's root.
pub mod paths {
    /// GET: [`NetworkDocument`](crate::certificate::NetworkDocument).
    pub const NETWORK: &str = "/v1/network";
    /// POST [`RegisterStart`](super::RegisterStart): [`RegisterChallenge`](super::RegisterChallenge).
    pub const REGISTER_START: &str = "/v1/register/start";
    /// POST [`RegisterFinish`](super::RegisterFinish): [`Credentials`](super::Credentials).
    pub const REGISTER_FINISH: &str = "/v1/register/finish";
    /// POST [`SignInStart`](super::SignInStart): [`SignInChallenge`](super::SignInChallenge).
    pub const SIGN_IN_START: &str = "/v1/sign-in/start";
    /// POST [`SignInFinish`](super::SignInFinish): [`Account`](super::Account).
    pub const SIGN_IN_FINISH: &str = "/v1/sign-in/finish";
    /// POST [`AddDevice`](super::AddDevice): [`Credentials`](super::Credentials).
    pub const ADD_DEVICE: &str = "/v1/devices/add";
    /// POST [`Renew`](super::Renew): [`Credentials`](super::Credentials).
    pub const RENEW: &str = "/v1/devices/renew";
    /// GET with `?since=VERSION` and optional `&wait=SECONDS`: a signed roster ([`RosterReply`](super::RosterReply)).
    pub const ROSTER: &str = "/v1/roster";
    /// POST [`EnrolNode`](super::EnrolNode): [`NodeCredentials`](super::NodeCredentials).
    pub const ENROL_NODE: &str = "/v1/nodes/enrol";
    /// POST [`RenewNode`](super::RenewNode): [`NodeCredentials`](super::NodeCredentials).
    pub const RENEW_NODE: &str = "/v1/nodes/renew";
}

/// Longest OPAQUE message (RFC 9807 over ristretto255 and SHA-512; the largest, KE2, has 320 bytes).
pub const OPAQUE_BYTES_MAX: usize = 512;
/// Longest sealed backup of a user key.
pub const BACKUP_BYTES_MAX: usize = 512;
/// Longest ticket, which holds the login server's sealed state between two requests.
pub const TICKET_BYTES_MAX: usize = 1024;
/// Longest a client asks the login server to wait for a newer roster, in seconds.
pub const ROSTER_WAIT_S_MAX: u64 = 30;

/// An OPAQUE message.
pub type OpaqueBytes = Blob<OPAQUE_BYTES_MAX>;
/// A sealed backup of the user key, which only the password opens.
pub type Backup = Blob<BACKUP_BYTES_MAX>;
/// The login server's own sealed state, so that any login server of the network can go on.
pub type Ticket = Blob<TICKET_BYTES_MAX>;

macro_rules! wire {
    ($($type:ident, $name:literal, $max:expr;)*) => {
        $(impl Wire for $type {
            const NAME: &'static str = $name;
            const BYTES_MAX: usize = $max;
        })*
    };
}

wire! {
    RegisterStart, "registration", 1024;
    RegisterChallenge, "registration challenge", 1024;
    RegisterFinish, "end of registration", 4096;
    SignInStart, "sign-in", 1024;
    SignInChallenge, "sign-in challenge", 2048;
    SignInFinish, "end of sign-in", 2048;
    Account, "account", 16 * 1024;
    AddDevice, "new device", 4096;
    RenewRequest, "renewal request", 256;
    Renew, "renewal", 1024;
    Credentials, "credentials", 256 * 1024;
    RosterReply, "roster reply", 224 * 1024;
    NodeRequest, "node request", 1024;
    EnrolNode, "enrolment", 2048;
    RenewNode, "node renewal", 2048;
    NodeCredentials, "node credentials", 256 * 1024;
    LoginError, "login error", 512;
}

/// Begins a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterStart {
    /// The name to register.
    pub name: Name,
    /// OPAQUE `RegistrationRequest`.
    pub opaque: OpaqueBytes,
}

/// Answer to [`RegisterStart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterChallenge {
    /// OPAQUE `RegistrationResponse`.
    pub opaque: OpaqueBytes,
    /// The epoch of the key about to be registered: one for a new name, more for a name whose account was reset.
    pub epoch: u32,
}

/// Ends a registration: the name now has a password, a key and a first device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterFinish {
    /// The name to register.
    pub name: Name,
    /// OPAQUE `RegistrationRecord`.
    pub opaque: OpaqueBytes,
    /// The user's key.
    pub user: UserKey,
    /// The private half of `user`, sealed under OPAQUE's export key.
    pub backup: Backup,
    /// The first device, signed by `user`, which proves that the client holds it.
    pub device: Signed<DeviceStatement>,
}

/// Begins a sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInStart {
    /// The name to sign in with, known or not: the answers look alike.
    pub name: Name,
    /// OPAQUE `CredentialRequest` (KE1).
    pub opaque: OpaqueBytes,
}

/// Answer to [`SignInStart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInChallenge {
    /// OPAQUE `CredentialResponse` (KE2).
    pub opaque: OpaqueBytes,
    /// To be sent back with the next request.
    pub ticket: Ticket,
}

/// Proves that the password was right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInFinish {
    /// From the challenge.
    pub ticket: Ticket,
    /// OPAQUE `CredentialFinalization` (KE3).
    pub opaque: OpaqueBytes,
}

/// What somebody who knows the password gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Permits [`AddDevice`] for a short time.
    pub ticket: Ticket,
    /// Name and key of the user.
    pub certificate: Signed<UserCertificate>,
    /// The user key, sealed under OPAQUE's export key.
    pub backup: Backup,
    /// The devices that the user has already.
    pub devices: List<Signed<DeviceCertificate>, DEVICES_MAX>,
}

/// Adds the device that signs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddDevice {
    /// From the account.
    pub ticket: Ticket,
    /// Signed by the user key.
    pub device: Signed<DeviceStatement>,
}

/// A device asks for fresh certificates. Signed by the device key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The network, so that a request to one login server is worth nothing at another.
    pub network: NetworkId,
    /// The device that asks.
    pub device: DeviceKey,
    /// When it asked: more than five minutes off is refused.
    pub issued: UnixMillis,
}

impl Signable for RenewRequest {
    const CONTEXT: &'static str = "ahoy/renew-request/1";
}

/// Asks for fresh certificates and a fresh grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// Signed by the device.
    pub request: Signed<RenewRequest>,
}

/// All that a device needs to take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Name and key of the user.
    pub user: Signed<UserCertificate>,
    /// The device that asked.
    pub device: Signed<DeviceCertificate>,
    /// All devices of the user, that one included.
    pub devices: List<Signed<DeviceCertificate>, DEVICES_MAX>,
    /// Lets the device use relays.
    pub grant: Signed<RelayGrant>,
    /// The newest roster.
    pub roster: Signed<Roster>,
}

/// The newest roster, or nothing if the asker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterReply {
    /// `None`: what you have is the newest.
    pub roster: Option<Signed<Roster>>,
}

/// Longest token of a node, in bytes.
pub const NODE_TOKEN_BYTES_MAX: usize = 64;

/// What a node says of itself. Signed by the node key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// The network, so that a request to one login server is worth nothing at another.
    pub network: NetworkId,
    /// What the node does.
    pub role: NodeRole,
    /// The node's key.
    pub node: NodeKey,
    /// Addresses for QUIC.
    pub udp: List<SocketAddr, NODE_ADDRESSES_MAX>,
    /// Addresses for TLS over TCP.
    pub tcp: List<SocketAddr, NODE_ADDRESSES_MAX>,
    /// Addresses of the overlay; supernodes only.
    pub overlay: List<SocketAddr, NODE_ADDRESSES_MAX>,
    /// When it was signed: more than five minutes off is refused.
    pub issued: UnixMillis,
}

impl Signable for NodeRequest {
    const CONTEXT: &'static str = "ahoy/node-request/1";
}

/// Makes a node part of the network. A token is good for one node key; the same node may use it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolNode {
    /// From `ahoy-login node-token`.
    pub token: Text<NODE_TOKEN_BYTES_MAX>,
    /// Signed by the node key.
    pub request: Signed<NodeRequest>,
}

/// Renews a node's certificate, and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewNode {
    /// Signed by the node key.
    pub request: Signed<NodeRequest>,
}

/// All that a node needs to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCredentials {
    /// The node's certificate.
    pub certificate: Signed<NodeCertificate>,
    /// The newest roster, which lists the node.
    pub roster: Signed<Roster>,
}

/// Why the login server refuses. The texts are for the person who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum LoginError {
    /// The name is somebody's.
    #[error("the name {0} is taken; choose another, or sign in if it is yours")]
    NameTaken(Name),
    /// Wrong password or unknown name: which of them is not said.
    #[error("wrong name or password")]
    Credentials,
    /// Too many tries.
    #[error("too many tries; wait {retry_after_s} seconds and try again")]
    SlowDown {
        /// When to try again.
        retry_after_s: u32,
    },
    /// The account is disabled.
    #[error("this account is disabled; ask whoever runs the network")]
    Disabled,
    /// The ticket is too old, or not one of ours.
    #[error("the sign-in took too long; try again")]
    TicketExpired,
    /// As many devices as an account may have.
    #[error("this account has as many devices as it may have ({DEVICES_MAX}); remove one first")]
    TooManyDevices,
    /// The device was revoked, or never was.
    #[error("this device is not part of the account any more; sign in again")]
    UnknownDevice,
    /// A token that was never given, or that another node has used.
    #[error("this node token is not valid or another node has used it; ask whoever runs the network for a new one")]
    Token,
    /// A renewal by a node that never enrolled, or was removed.
    #[error("this node is not enrolled in the network; start it with a new token")]
    UnknownNode,
    /// A signature or a time in the request does not hold.
    #[error("the request was refused: {0}; if this machine's clock is wrong, set it right")]
    Refused(Text<128>),
    /// The request could not be read.
    #[error("the login server could not read the request: {0}; is one of the two programs older than the other?")]
    BadRequest(Text<128>),
    /// The server's own trouble.
    #[error("the login server has a problem of its own; try again in a minute")]
    Internal,
}
