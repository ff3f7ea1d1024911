//! What goes into an agent and what comes out of it.

use crate::candidate::{AddressRules, Refused, Subnet};
use crate::keys::ProbeKeys;
use crate::prober::TRANSMITS_MAX;
use crate::route::{LegId, Route, SocketId, Way};
use ahoy_protocol::datagram::Side;
use std::time::Duration;
use thiserror::Error;

/// How many of the packets sent last a socket keeps for [`Event::Replay`]: what 20 ms frames lose until the death of a path is noticed, with
/// room for acknowledgements between them.
pub const REPLAY_PACKETS_MAX: usize = 24;

/// No agent sends more packets than this in any second, whatever the peer or the network does to it.
pub const TRANSMITS_PER_SECOND_MAX: usize = TRANSMITS_MAX;

/// After how long without anything by any way the owner is told: long enough that a fall back to a relay never is.
pub const SILENCE_TOLD: Duration = Duration::from_secs(2);

/// Extra sockets that an agent asks for at once at most: with so many mappings at a router, of a thousand ports tried one at random is one of
/// them with 98 %.
pub const SOCKETS_MAX: u16 = 256;

/// What an agent is made with.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Which side of the call this is.
    pub side: Side,
    /// Keys of this call's probes.
    pub keys: ProbeKeys,
    /// Address ranges at this device's interfaces, without those of virtual private networks; a peer's address inside one is on-link.
    pub on_link: Vec<Subnet>,
    /// Which addresses may be probed.
    pub rules: AddressRules,
    /// Whether this device may try many ports to cross a router that gives each destination another one. It costs a few thousand packets
    /// and hundreds of mappings, so a device on battery had better not.
    pub birthday: bool,
}

/// What the owner has to know or do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// From here on packets go this way. Always the same as [`PathAgent::route`](crate::PathAgent::route).
    RouteChanged(Route),
    /// The last packets may not have arrived: send them (at most [`REPLAY_PACKETS_MAX`]) again over the legs of the route. QUIC drops what it
    /// already has.
    Replay,
    /// Nothing comes through this leg although the peer should have answered. The likeliest cause that can be mended is that this device's
    /// mapping at a router changed: send the leg's relay one move, before anything else. It is also a good time to ask observers for the
    /// device's address again.
    LegSilent(LegId),
    /// The leg has been silent for so long that it should be replaced. Comes once for each time that the leg was set up or fell silent.
    LegDead(LegId),
    /// Open so many sockets more, of the family of the device's IPv4 port, and answer with
    /// [`PathAgent::sockets_opened`](crate::PathAgent::sockets_opened).
    OpenSockets {
        /// How many, at most [`SOCKETS_MAX`].
        count: u16,
    },
    /// Close this extra socket.
    CloseSocket(SocketId),
    /// `true`: nothing has come by any way for [`SILENCE_TOLD`] although PINGs asked. `false`: something came again. The agent never gives
    /// up by itself.
    Silence(bool),
}

/// A probe to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// By which way. For a leg the owner wraps the datagram in a relay frame of that leg.
    pub way: Way,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// The way that counts as the call's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// Which.
    pub way: Way,
    /// Smoothed round trip between the two devices by that way, once known.
    pub rtt: Option<Duration>,
    /// Whether the peer's address is on-link at one of this device's interfaces.
    pub on_link: bool,
}

/// What an agent has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentStats {
    /// PINGs sent, guesses not counted.
    pub pings: u32,
    /// PONGs sent.
    pub pongs: u32,
    /// PINGs to ports that were guessed, and from sockets opened for that.
    pub guesses: u32,
    /// Times that the way in use was doubted.
    pub doubts: u32,
    /// Times that packets were to be sent again.
    pub replays: u32,
    /// Moves onto a direct path.
    pub moves: u32,
    /// Falls back from a direct path to the relays.
    pub falls_back: u32,
    /// Those of them because of loss.
    pub demotions: u32,
    /// Changes from one leg to the other.
    pub leg_changes: u32,
    /// Attempts to cross a router by guessing ports.
    pub attempts: u32,
    /// Fresh sockets asked for because a router's mappings live only so long.
    pub renewals: u32,
}

/// Why a probe was dropped. Nothing changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Dropped {
    /// Neither a PING nor a PONG.
    #[error("malformed probe")]
    Malformed,
    /// Its tag is another call's.
    #[error("probe of another call")]
    OtherCall,
    /// Its authentication code is wrong.
    #[error("probe with a wrong code")]
    Forged,
    /// This side sent it.
    #[error("reflected probe")]
    Reflected,
    /// It came through a leg that is not set up, or from a socket that is not open.
    #[error("probe by an unknown way")]
    UnknownWay,
    /// Probing is not allowed yet.
    #[error("probe before probing started")]
    NotProbing,
    /// It comes from an address that no peer can have.
    #[error("probe from a refused address: {0}")]
    Address(Refused),
    /// Its transaction was answered before.
    #[error("replayed probe")]
    Replayed,
    /// It answers no probe of this side's, or one that went elsewhere.
    #[error("answer to an unknown probe")]
    UnknownTransaction,
    /// More probes came than are answered.
    #[error("too many probes")]
    TooMany,
}
