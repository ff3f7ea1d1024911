//! Which way a call goes, in the words that people are shown.

use std::time::Duration;

/// The kind of way a call's packets take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// Straight, to an address that is on-link at one of this machine's interfaces.
    Lan,
    /// Straight.
    Direct,
    /// Through a relay.
    Relay,
    /// Through a relay, to which this side speaks TCP.
    RelayTcp,
}

impl PathKind {
    /// The word in events and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::RelayTcp => "relay-tcp",
        }
    }
}

/// Which way a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathStatus {
    /// The kind of way. While packets go several ways, the one that was settled on before.
    pub kind: PathKind,
    /// The way's round-trip time between the two devices when the call moved there, where it was known.
    pub rtt: Option<Duration>,
    /// Whether nothing has come for a while by any way, though the peer was asked: the call is not over, and hears nobody.
    pub is_silent: bool,
}

/// What a call's owner has to do about its legs on relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegTrouble {
    /// Nothing has come through this leg for so long that another relay should take its place.
    Dead(u8),
    /// Nothing comes through this leg for now. This device's NAT may have forgotten it: then its addresses are others from here on.
    Silent(u8),
}
