//! The few states that a call's way can be in.
//!
//! ```text
//!           usable path                200 ms                 a sign of death
//!  Relayed ─────────────▶ Moving ──────────────▶ Direct ───────────────────────▶ Doubtful
//!     ▲                     ▲                    │    ▲        PONG                │    │
//!     │                     └──── better path ───┘    └────────────────────────────┘    │
//!     └──────────────────────────────── silence for a second ───────────────────────────┘
//! ```

use crate::types::Route;
use std::net::SocketAddr;
use std::time::Instant;

/// Which state, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the relay, if there is one.
    Relayed,
    /// Onto a direct path: both ways until then.
    Moving { to: SocketAddr, until: Instant },
    /// On a direct path.
    Direct { to: SocketAddr, since: Instant },
    /// On a direct path that may be dead: both ways, at least until then.
    Doubtful { to: SocketAddr, since: Instant, until: Instant, searched: bool },
}

impl Way {
    /// The direct path in use.
    pub(crate) fn selected(&self) -> Option<SocketAddr> {
        match *self {
            Self::Relayed => None,
            Self::Moving { to, .. } | Self::Direct { to, .. } | Self::Doubtful { to, .. } => Some(to),
        }
    }

    /// Where packets go. Without a relay a doubtful path is better than none.
    pub(crate) fn route(&self, has_relay: bool) -> Route {
        match (*self, has_relay) {
            (Self::Relayed, true) => Route::Relay,
            (Self::Relayed, false) => Route::None,
            (Self::Moving { to, .. } | Self::Doubtful { to, .. }, true) => Route::Both(to),
            (Self::Moving { to, .. } | Self::Doubtful { to, .. }, false) | (Self::Direct { to, .. }, _) => Route::Direct(to),
        }
    }
}
