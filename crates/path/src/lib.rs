//! The path agent: which way a call's packets go, without I/O.
//!
//! A call between two devices is one QUIC connection between two virtual addresses. Below it somebody must decide, packet by packet, where
//! the bytes really go: through the relay, straight to one of the peer's addresses, or both at once. [`PathAgent`] is that somebody. It gets
//! `now`, datagrams and news; it gives back probes to send, a [`Route`], events and the next deadline. It reads no clock, no random source
//! and no socket, so that a test runs it against thousands of simulated routers a second.
//!
//! # Bootstrap
//!
//! A call opens on the relay, because a relay that both sides joined works behind every router. Nothing is sent to an address of the peer,
//! and nothing from one is answered, before [`PathAgent::start_probing`]: an answer would tell a caller whom the callee never met where the
//! callee is. Both sides then send a PING to each of the peer's candidate addresses, in a burst, since the first packets often only open
//! the senders' own routers, and ever more slowly after that. A PING from an address that no candidate names (a router chose a mapping for
//! this destination alone) makes that address a candidate too.
//!
//! Probes carry a code made with a key that only the two devices have (`keys`). What does not check is dropped without a trace, so nobody
//! can talk an agent into sending a call's packets somewhere. The reverse must hold as well: a peer must not talk an agent into
//! flooding a stranger. Hence the table of addresses, the probes that one address gets without answering, and the packets of a second
//! all have a bound (`candidate`, `remote`, `budget`).
//!
//! # Selection
//!
//! The first authenticated PONG proves that packets get there and back, and makes a path usable; quinn need not validate it again. On-link
//! beats direct beats relay; within a tier the lower smoothed round trip and loss wins, with a margin against flapping (`score`). There are
//! no roles and no nomination: each side decides for its own packets, and receives on every path that it has answered on.
//!
//! A move is make-before-break: packets go both ways ([`Route::Both`]) for 200 ms, then one way. QUIC throws the second copy away.
//!
//! # Distress
//!
//! A direct path dies silently: a router forgets, a cable is pulled. Three signs make an agent doubt (`watchdog`): media that ran at its
//! steady pace stops; answers to keep-alive PINGs stay out; the peer, which had settled on the direct path, speaks through the relay again,
//! which it does when it no longer hears this side. Doubt is cheap: packets go both ways at once, the last ones are sent again over the relay
//! ([`Event::Replay`]), and a PING asks. A PONG ends the doubt. Silence for a second ends the path: the call is on the relay, and the
//! addresses are probed anew. A path that answers again must do so for a while before it is trusted, longer each time it dies young.
//!
//! Without a relay there is nothing to fall back on: doubt then only asks questions, and the route stays direct. For the same reason a relay
//! that dies during a direct call changes nothing.
//!
//! # What the owner does
//!
//! It gives PINGs and PONGs whose tag is [`PathAgent::tag`] to [`PathAgent::handle_datagram`]. It accepts packets of the call from the relay and
//! from addresses for which [`PathAgent::is_peer_address`] holds, tells each to [`PathAgent::handle_traffic`], and drops all others. It
//! sends along [`PathAgent::route`], tells [`PathAgent::handle_sent`], and keeps the last [`REPLAY_PACKETS_MAX`] packets for
//! [`Event::Replay`]. It keeps the relay leg warm for as long as the call lasts, also while the route is direct: only that makes the fall
//! back quick.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test's time has to begin somewhere"))]

mod agent;
mod budget;
mod candidate;
mod keys;
mod outstanding;
mod prober;
mod random;
mod remote;
mod replay;
mod schedule;
mod score;
mod types;
mod watchdog;
mod way;

pub use agent::PathAgent;
pub use candidate::{AddressRules, REMOTES_MAX, Refused, Subnet};
pub use keys::ProbeKeys;
pub use types::{AgentConfig, Dropped, Event, REPLAY_PACKETS_MAX, Route, Selected, TRANSMITS_PER_SECOND_MAX, Transmit, Via};
