//! A network in virtual time, in which the production path agents make their calls.
//!
//! Nothing here waits: an hour of a call takes a second. A [`world::World`] holds two [`host::Host`]s, each with a real
//! [`ahoy_path::PathAgent`] and around it what the client does with one, and the [`network::Network`] between them: [`link`]s with delay,
//! jitter, loss, a rate and a queue; [`nat`]s by RFC 4787, one behind another where a carrier has one too; [`firewall`]s; [`server`]s that
//! observe, and relay by the production relay's [`ahoy_relay::Forwarder`]. What befalls a call is a [`world::Fault`].
//!
//! What must come of a call is not asked of the agents: the [`oracle`] reads it off the topology, and the [`guard`] watches each packet that
//! an agent sends. Everything that chance decides comes from one seed, so that a failure can be played again.
//!
//! What is left out: QUIC itself (packets of the call are numbers, a control stream that says things until they are heard stands for it),
//! cryptography but for the probes', and the supernodes (a message through them takes its time and arrives if both are online).

pub mod control;
pub mod dice;
pub mod firewall;
pub mod gather;
pub mod guard;
pub mod host;
pub mod legs;
pub mod link;
pub mod matrix;
pub mod nat;
pub mod network;
pub mod oracle;
pub mod packet;
pub mod pair;
pub mod place;
pub mod scenario;
pub mod seeds;
pub mod server;
pub mod topology;
pub mod voice;
pub mod world;
