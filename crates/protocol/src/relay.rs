//! What a client says to a relay on a stream of its connection, one stream a leg. Data goes in [`datagram`](crate::datagram) frames.

use crate::certificate::RelayGrant;
use crate::directory::ALTERNATIVES_MAX;
use crate::ids::{CallId, DeviceKey, LegKey, NodeKey};
use crate::signed::Signed;
use crate::wire::{List, Text, Wire};
use serde::{Deserialize, Serialize};

/// ALPN of the relay's control plane.
pub const ALPN: &[u8] = b"ahoy-relay/1";

/// "Join me with `peer`." The asker's device is the key it showed in the handshake; the stream's end leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The call.
    pub call: CallId,
    /// The device at the other leg. It must name the asker's in turn.
    pub peer: DeviceKey,
    /// The asker's grant.
    pub grant: Signed<RelayGrant>,
}

impl Wire for Join {
    const NAME: &'static str = "join";
    const BYTES_MAX: usize = 320;
}

/// What the relay says on the leg's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LegEvent {
    /// The leg exists: frames with this channel are for it.
    Joined {
        /// The leg's channel.
        channel: u32,
        /// For [`Move`](crate::datagram::Move)s of this leg.
        key: LegKey,
        /// True if the other leg is there already.
        peer_present: bool,
    },
    /// The other leg has come.
    PeerJoined,
    /// The other leg has gone.
    PeerLeft,
    /// Not now: the relay is full.
    Busy {
        /// When to try again.
        retry_after_ms: u32,
        /// Who else may serve.
        alternatives: List<NodeKey, ALTERNATIVES_MAX>,
    },
    /// Never: why.
    Refused(Text<128>),
}

impl Wire for LegEvent {
    const NAME: &'static str = "leg event";
    const BYTES_MAX: usize = 256;
}
