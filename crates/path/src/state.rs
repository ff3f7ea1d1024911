//! The few states that a call's way can be in.
//!
//! ```text
//!           usable path                200 ms                 a sign of death
//!  Relayed ─────────────▶ Moving ──────────────▶ Direct ───────────────────────▶ Doubtful
//!     ▲                     ▲                    │    ▲        PONG                │    │
//!     │                     └──── better path ───┘    └────────────────────────────┘    │
//!     └──────────────── silence for a second, while the peer answers through a leg ─────┘
//! ```
//!
//! Which leg carries a relayed call, and whether both do, is the legs' own affair.

use crate::path::Pair;
use std::time::Instant;

/// Which state, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Through the legs, if there are any.
    Relayed,
    /// Onto a direct path: until then also by the path before, or through a leg.
    Moving { from: Option<Pair>, to: Pair, until: Instant },
    /// On a direct path.
    Direct { to: Pair, since: Instant },
    /// On a direct path that may be dead: through the legs as well.
    Doubtful(Doubt),
}

/// A doubt about the direct path in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(crate) to: Pair,
    pub(crate) since: Instant,
    /// It lasts at least until then.
    pub(crate) until: Instant,
    /// Whether every other address is probed anew, since nothing answered.
    pub(crate) has_searched: bool,
    /// Whether the path is in doubt because the network changed and not for what it did.
    pub(crate) is_blameless: bool,
    /// Whether it is over when packets come by the path again: nothing but their absence raised it, and they are often absent.
    pub(crate) ends_with_traffic: bool,
}

impl State {
    /// The direct path in use.
    pub(crate) fn selected(&self) -> Option<Pair> {
        match *self {
            Self::Relayed => None,
            Self::Moving { to, .. } | Self::Direct { to, .. } | Self::Doubtful(Doubt { to, .. }) => Some(to),
        }
    }

    /// Whether packets go or went by this path a moment ago.
    pub(crate) fn uses(&self, pair: Pair) -> bool {
        let from = match *self {
            Self::Moving { from, .. } => from,
            Self::Relayed | Self::Direct { .. } | Self::Doubtful(_) => None,
        };
        self.selected() == Some(pair) || from == Some(pair)
    }
}
