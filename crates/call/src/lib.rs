//! The call state machine, without I/O.
//!
//! A [`Desk`] has at most one call: one that was placed, or one that came in. What happens to it goes in as `handle_…` and commands
//! (`place`, `answer`, `decline`, `hang_up`), each with `now`; what is to be done comes out of [`Desk::poll_effect`]; when to call
//! [`Desk::handle_timeout`] next, out of [`Desk::poll_timeout`].
//!
//! ```text
//! caller   place ─► look-up ─► inviting ─► ringing ─► connected ─► ended
//!                                 (each device of the callee on its own: invited, ringing, connected, gone)
//! callee            invitation ─► ringing ─► answered ─► connected ─► ended
//! ```
//! The rules: the first valid answer wins, and every other device is told that it was answered elsewhere. A second call while one runs is
//! told busy. When two people call each other, the call of the lower user key stands and both count as having answered. Each call
//! ends exactly once, for both sides, with a reason.
//!
//! What this crate does not do: check signatures (what goes in has been checked), seal, connect, or play.

mod desk;
mod incoming;
mod outgoing;
mod seen;

pub use desk::{Caller, Desk, Effect, Event, Identity, PlaceError};

use std::time::Duration;

/// How long a phone rings. As long as telephones do; then the call was missed.
pub const RING_TIME: Duration = Duration::from_secs(45);
/// How long a look-up may take: three attempts of a supernode.
pub const LOOK_UP_TIME: Duration = Duration::from_secs(10);
/// How long until at least one invited device says that it rings. Devices that are there answer within a second; a supernode that
/// has just died is noticed within a few.
pub const INVITE_TIME: Duration = Duration::from_secs(12);
/// How long an answered call may take to be confirmed by the caller before it counts as lost.
pub const CONFIRM_TIME: Duration = Duration::from_secs(15);
/// How long a device whose connection with the caller is lost goes on ringing, and the caller waits for one that is lost: the other side's word on
/// why comes through the supernodes.
pub const LAST_WORD_TIME: Duration = Duration::from_secs(2);
