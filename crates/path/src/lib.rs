//! The path agent: which way a call's packets go, without I/O.
//!
//! A call between two devices is one QUIC connection between two virtual addresses. Below it somebody must decide, packet by packet, where
//! the bytes really go: through a relay, straight to one of the peer's addresses, or by several ways at once. [`PathAgent`] is that somebody.
//! It gets `now`, datagrams and news; it gives back probes to send, a [`Route`], events and the next deadline. It reads no clock, no random
//! source and no socket, so that a test runs it against thousands of simulated routers a second.
//!
//! A way ([`Way`]) is a leg on a relay, of which a call has two, or a direct path: one of this device's sockets and one of the peer's
//! addresses. All are probed alike, with PING and PONG from one device to the other.
//!
//! # Bootstrap
//!
//! A call opens on its legs, because a relay that both sides joined works behind every router. Nothing is sent to an address of the peer,
//! and nothing from one is answered, before [`PathAgent::start_probing`]: an answer would tell a caller whom the callee never met where the
//! callee is. PINGs through legs show nobody's address, and need no permission. Then both sides send a PING to each of the peer's candidate
//! addresses, in a burst, since the first packets often only open the senders' own routers, and ever more slowly after that. A PING from an
//! address that no candidate names (a router chose a mapping for this destination alone) makes that address a path too.
//!
//! Probes carry a code made with a key that only the two devices have (`keys`). What does not check is dropped without a trace, so nobody
//! can talk an agent into sending a call's packets somewhere. The reverse must hold as well: a peer must not talk an agent into
//! flooding a stranger. Hence the table of paths, the probes that strangers get, and the packets of a second all have a bound (`paths`,
//! `budget`).
//!
//! # Selection
//!
//! The first authenticated PONG proves that packets get there and back, and makes a path usable; quinn need not validate it again. On-link
//! beats direct beats relay; within a tier the lower smoothed round trip and loss wins, with a margin against flapping (`score`). Of two legs
//! the nearer one carries the call (`legs`). There are no roles and no nomination: each side decides for its own packets, and receives on
//! every path that it has answered on.
//!
//! A move is make-before-break: packets go both ways for 200 ms, then one way. QUIC throws the second copy away.
//!
//! # Distress
//!
//! A way dies silently: a router forgets, a cable is pulled, a relay goes. Three signs make an agent doubt (`watchdog`): packets that came at
//! their steady pace stop coming by any way; answers to PINGs stay out; the peer, which had settled elsewhere, comes to a leg, which it does
//! when it no longer hears this side. Doubt is cheap: packets go by the path in use and both legs at once, the last ones are sent again over
//! the legs ([`Event::Replay`]), and PINGs ask. A PONG ends the doubt. Silence for a second ends the path: the call is on its legs, and the
//! addresses are probed anew. A path that answers again must do so for a while before it is trusted, longer each time it dies young. A path
//! that only loses too much is left in the same way.
//!
//! What made a way silent may be this device's own router, that gives it another port. So the owner tells each relay at the first sign
//! ([`Event::LegSilent`]), which brings a leg back within a round trip. One that stays silent should be replaced ([`Event::LegDead`]). When
//! nothing comes by any way, the owner is told that too ([`Event::Silence`]), and packets go by everything that ever worked until something
//! answers: an agent never gives up.
//!
//! # Hard routers
//!
//! [`nat::assess`] tells from what observers saw what this device's router does. Where one side's gives each destination another port, ports
//! are predicted and then guessed (`crossing`), within a budget, from further sockets that the owner opens ([`Event::OpenSockets`]). Where a
//! router drops mappings at an age (`lifetime`), a fresh socket takes over before it.
//!
//! # What the owner does
//!
//! It gives PINGs and PONGs whose tag is [`PathAgent::tag`] to [`PathAgent::handle_datagram`]. It accepts packets of the call from legs and
//! from addresses for which [`PathAgent::is_peer_address`] holds, tells each to [`PathAgent::handle_traffic`], and drops all others. It
//! sends along [`PathAgent::route`], tells [`PathAgent::handle_sent`], and keeps the last [`REPLAY_PACKETS_MAX`] packets for
//! [`Event::Replay`]. It keeps both legs joined for as long as the call lasts, also while the route is direct: only that makes the fall
//! back quick. After a leg fell silent it is worth asking observers again, and telling the peer of addresses that changed: a router that
//! restarted can be crossed directly only then.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test's time has to begin somewhere"))]

mod agent;
mod budget;
mod candidate;
mod crossing;
mod keys;
mod legs;
mod lifetime;
pub mod nat;
mod outstanding;
mod path;
mod paths;
mod prober;
mod random;
mod replay;
mod route;
mod schedule;
mod score;
mod silence;
mod state;
mod tally;
mod thrift;
mod types;
mod watchdog;

pub use agent::PathAgent;
pub use candidate::{AddressRules, REMOTES_MAX, Refused, Subnet};
pub use keys::ProbeKeys;
pub use route::{LegId, ROUTE_WAYS_MAX, Route, SocketId, Way};
pub use types::{
    AgentConfig, AgentStats, Dropped, Event, REPLAY_PACKETS_MAX, SILENCE_TOLD, SOCKETS_MAX, Selected, TRANSMITS_PER_SECOND_MAX, Transmit,
};
