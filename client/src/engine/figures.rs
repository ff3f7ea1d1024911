//! The figures of a call beyond those of its sound.

use super::call::Call;
use super::rtt_ms;
use crate::events::{RelayFigures, Stats, mapping_word};
use crate::link::Shared;
use ahoy_portmap::Protocol;

/// Adds what is known of the ways that the call's packets take.
pub(super) fn complete(call: &Call, shared: &Shared, mut stats: Stats) -> Stats {
    let mapped = shared.port_mapped.borrow();
    let protocol = mapped.protocol.filter(|_| !mapped.addresses.is_empty());
    stats.port_mapping = protocol.map_or("none", Protocol::as_str).to_owned();
    let Some(connected) = call.connected(call.media_with.as_ref()) else { return stats };
    let path = *connected.path.borrow();
    stats.rtt_ms = rtt_ms(&path).or(stats.rtt_ms);
    stats.path = path.kind.as_str().to_owned();
    let figures = connected.figures.borrow();
    stats.mapping = mapping_word(figures.mapping).to_owned();
    stats.candidates = figures.candidates;
    stats.peer_candidates = figures.peer_candidates;
    let peer = connected.peer.upgrade();
    let in_millis = |rtt: std::time::Duration| rtt.as_secs_f64() * 1000.0;
    let relay = |(leg, address): &(u8, Option<std::net::SocketAddr>)| RelayFigures {
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        rtt_ms: peer.as_ref().and_then(|peer| peer.leg_rtt(*leg)).map(in_millis),
    };
    stats.relays = figures.relays.iter().map(relay).collect();
    stats
}
