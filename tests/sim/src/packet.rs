//! What travels: a packet, from one socket to another.

use crate::link::Carrier;
use ahoy_protocol::peer::{Candidate, Mapping};
use std::net::SocketAddr;

/// Index of a relay.
pub type RelayId = usize;

/// Bytes of headers below the payload: IPv4 and UDP.
const HEADER_BYTES: u32 = 28;
/// Bytes of a voice packet: 80 of sound and what QUIC adds.
const VOICE_BYTES: u32 = 130;
/// Bytes of a message on the call's control stream, or to a node.
const MESSAGE_BYTES: u32 = 300;

/// A packet.
#[derive(Debug, Clone)]
pub struct Packet {
    /// What its source address shows where it is.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// What it is carried by.
    pub carrier: Carrier,
    /// The channel of the relay frame that it is in, if it is in one.
    pub channel: Option<u32>,
    /// Which host's call it belongs to as its sender; one's own packets may come back, and then mean nothing.
    pub sender: Option<usize>,
    /// What it carries.
    pub payload: Payload,
}

impl Packet {
    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        let payload = match &self.payload {
            Payload::Probe(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            Payload::Voice(_) => VOICE_BYTES,
            Payload::Message { .. } | Payload::Join { .. } => MESSAGE_BYTES,
            Payload::Received { .. }
            | Payload::Joined { .. }
            | Payload::Paired
            | Payload::Reset
            | Payload::Move { .. }
            | Payload::Tend { .. } => 60,
            Payload::Observe { .. } | Payload::Observed { .. } => 64,
        };
        HEADER_BYTES + payload
    }
}

/// What a packet carries.
#[derive(Debug, Clone)]
pub enum Payload {
    /// A PING or PONG.
    Probe(Vec<u8>),
    /// A voice packet, by its number.
    Voice(u32),
    /// On the call's control stream, by its number there.
    Message {
        /// Which.
        number: u32,
        /// What it says.
        message: Message,
    },
    /// Acknowledges a message.
    Received {
        /// Which.
        number: u32,
    },
    /// To an observer: "from where do you see me?"
    Observe {
        /// Comes back in the answer.
        nonce: u32,
    },
    /// "From here."
    Observed {
        /// From the question.
        nonce: u32,
        /// The source that the question showed.
        seen: SocketAddr,
    },
    /// To a relay, a round trip of opening a connection and joining a leg.
    Join {
        /// Which side of the call.
        side: usize,
        /// Round trips that are left after this one.
        rounds_left: u8,
    },
    /// The answer.
    Joined {
        /// From the request.
        rounds_left: u8,
        /// The leg's channel, in the last round.
        channel: u32,
        /// Whether the other side's leg is there.
        is_paired: bool,
    },
    /// From a relay: the other side's leg has come.
    Paired,
    /// From a relay: no connection is known by this channel. What TCP's reset is.
    Reset,
    /// To a relay: this leg's device sends from here.
    Move {
        /// The leg.
        channel: u32,
        /// Higher than in every move before.
        counter: u64,
    },
    /// To a relay, on a leg's connection: nothing but that.
    Tend {
        /// The leg.
        channel: u32,
    },
}

impl Payload {
    /// Whether this is a packet of the call's QUIC connection.
    #[must_use]
    pub fn is_of_the_call(&self) -> bool {
        matches!(self, Self::Voice(_) | Self::Message { .. } | Self::Received { .. })
    }
}

/// What the two devices say to each other on the control stream.
#[derive(Debug, Clone)]
pub enum Message {
    /// The callee answered.
    Answer,
    /// Where the sender may be reached.
    Network {
        /// Its addresses.
        candidates: Vec<Candidate>,
        /// What its NAT does.
        mapping: Mapping,
    },
    /// By the callee: "for this leg, join me at this relay".
    JoinLeg {
        /// Which leg.
        leg: usize,
        /// Where.
        relay: RelayId,
    },
    /// By the caller: "this leg is lost to me".
    LegGone {
        /// Which.
        leg: usize,
    },
}
