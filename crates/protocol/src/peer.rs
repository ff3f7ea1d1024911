//! What the two devices of a call say to each other, end to end, on the first bidirectional stream of their connection.

use crate::certificate::{DeviceCertificate, UserCertificate};
use crate::ids::{CallId, NodeKey};
use crate::invitation::{CANDIDATES_MAX, RELAYS_OFFERED_MAX, RelayOffer};
use crate::signed::Signed;
use crate::wire::{List, Wire};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// ALPN of the peer plane.
pub const ALPN: &[u8] = b"ahoy-peer/1";

/// A message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// First from each side: who I am, and which call this connection is for.
    Hello {
        /// The call.
        call: CallId,
        /// My user.
        user: Signed<UserCertificate>,
        /// My device.
        device: Signed<DeviceCertificate>,
    },
    /// The callee answered.
    Answer,
    /// The caller took this answer: from here on both speak. Another device's later answer is refused.
    Confirm,
    /// Where the sender may be reached, as of now; takes the place of what was said before.
    Network {
        /// Its addresses.
        candidates: List<Candidate, CANDIDATES_MAX>,
        /// What its NAT makes of them.
        mapping: Mapping,
    },
    /// The relays that the sender reaches now, and how far they are: by the caller, when that has changed since the invitation.
    Relays(List<RelayOffer, RELAYS_OFFERED_MAX>),
    /// About a leg of this call.
    Leg(LegNews),
    /// The call is over.
    End(EndReason),
    /// The sender holds the call, or goes on with it: while it holds, it neither listens nor lets itself be heard.
    Hold(bool),
}

impl Wire for PeerMessage {
    const NAME: &'static str = "peer message";
    const BYTES_MAX: usize = 2048;
}

/// Why a call ended, or never began. The same word on both sides, each from its own point of view where that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndReason {
    /// One side hung up.
    HungUp,
    /// The callee said no.
    Declined,
    /// The callee is in another call.
    Busy,
    /// Nobody answered in time.
    Missed,
    /// No device of the callee could be reached.
    Unreachable,
    /// The caller gave up before an answer.
    Cancelled,
    /// Another device of the callee answered.
    AnsweredElsewhere,
    /// The connection was lost and did not come back.
    Lost,
    /// Something went wrong that the log says more about.
    Failed,
}

impl EndReason {
    /// The word in events and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HungUp => "hung-up",
            Self::Declined => "declined",
            Self::Busy => "busy",
            Self::Missed => "missed",
            Self::Unreachable => "unreachable",
            Self::Cancelled => "cancelled",
            Self::AnsweredElsewhere => "answered-elsewhere",
            Self::Lost => "lost",
            Self::Failed => "failed",
        }
    }
}

/// What the two sides say about the call's legs on relays. The callee chooses relays, since it knows both sides' distances; a call has at
/// most [`LEGS_MAX`] legs, of which the first is named by [`Ringing`](crate::invitation::SignalKind::Ringing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LegNews {
    /// By the callee: "for this leg, join me at this relay", in the place of the relay that it was on.
    Join {
        /// Below [`LEGS_MAX`].
        leg: u8,
        /// One of those that the caller reaches.
        relay: NodeKey,
    },
    /// By the caller: "this leg's relay is lost to me; choose another".
    Gone {
        /// Below [`LEGS_MAX`].
        leg: u8,
    },
}

/// Legs on relays that one call has at most: one that carries it, and one that stands by.
pub const LEGS_MAX: usize = 2;

/// How a device's NAT maps addresses (RFC 4787, section 4.1), as far as the device knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Mapping {
    /// Not known: fewer than two observers answered.
    #[default]
    Unknown,
    /// None: observers see an address of the device's own.
    Open,
    /// The same outside address whoever a packet is for.
    EndpointIndependent,
    /// Another outside port for each address, or address and port, that a packet is for.
    EndpointDependent,
}

/// An address at which a device may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// The address.
    pub address: SocketAddr,
    /// How it is known.
    pub kind: CandidateKind,
}

/// How a candidate address is known (RFC 8445's terms).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CandidateKind {
    /// An address of one of the device's interfaces.
    Host,
    /// The same, of a virtual private network: it may well lead to the peer, and hardly ever by the shortest way.
    VpnHost,
    /// What a supernode or relay saw the device's packets come from.
    ServerReflexive,
    /// A mapping that the device asked its router for.
    PortMapped,
    /// What the peer saw the device's packets come from.
    PeerReflexive,
}
