//! Which relays are alive, and how loaded they say they are.

use ahoy_directory::homes_for;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{RELAYS_NAMED_MAX, RelayLoad};
use ahoy_protocol::ids::{DeviceKey, NodeKey};
use ahoy_protocol::roster::Roster;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A relay that has said nothing for this long may be dead.
const STATUS_AGE_MAX: Duration = Duration::from_secs(30);

/// What relays said last. Only relays of the roster are entered, so a roster's limit bounds it.
#[derive(Debug, Default)]
pub(crate) struct Relays(BTreeMap<NodeKey, (u8, Instant)>);

impl Relays {
    /// A relay says how loaded it is.
    pub(crate) fn handle_status(&mut self, now: Instant, relay: NodeKey, load_percent: u8) {
        self.0.insert(relay, (load_percent.min(100), now));
    }

    /// Forgets relays that left the roster.
    pub(crate) fn set_roster(&mut self, roster: &Roster) {
        self.0.retain(|relay, _| roster.node(NodeRole::Relay, relay).is_some());
    }

    /// Relays for `asker`: those that are alive, the least loaded first; where none has said so, those of the roster, for
    /// the asker will find out by itself which of them answer.
    pub(crate) fn named(&self, now: Instant, roster: &Roster, asker: &DeviceKey) -> Vec<RelayLoad> {
        let alive = |relay: &NodeKey| self.0.get(relay).filter(|(_, said)| now.saturating_duration_since(*said) < STATUS_AGE_MAX);
        // Askers see relays of equal load in orders of their own, so that they spread.
        let ranked = homes_for(asker, roster.nodes_in(NodeRole::Relay).map(|relay| relay.node));
        let load = |relay: &NodeKey| alive(relay).map(|(load, _)| RelayLoad { node: *relay, load_percent: *load });
        let mut named: Vec<_> = ranked.iter().filter_map(load).collect();
        named.sort_by_key(|relay| relay.load_percent);
        if named.is_empty() {
            named = ranked.into_iter().map(|node| RelayLoad { node, load_percent: 0 }).collect();
        }
        named.truncate(RELAYS_NAMED_MAX);
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::roster::RosterNode;
    use ahoy_protocol::{List, UnixMillis};

    const ASKER: DeviceKey = DeviceKey([7; 32]);

    fn relay(n: u8) -> NodeKey {
        NodeKey([n; 32])
    }

    fn roster(count: u8) -> Roster {
        let node =
            |n| RosterNode { role: NodeRole::Relay, node: relay(n), udp: List::default(), tcp: List::default(), overlay: List::default() };
        Roster {
            version: 1,
            issued: UnixMillis(0),
            not_after: UnixMillis(1),
            salts: List::default(),
            nodes: List::first_of((0..count).map(node)),
            revoked: List::default(),
        }
    }

    #[test]
    fn the_least_loaded_relay_is_named_first() {
        let now = Instant::now();
        let mut relays = Relays::default();
        for (n, load) in [(0, 50), (1, 10), (2, 90)] {
            relays.handle_status(now, relay(n), load);
        }
        let named = relays.named(now, &roster(4), &ASKER);
        assert_eq!(named.iter().map(|named| named.node).collect::<Vec<_>>(), [relay(1), relay(0), relay(2)]);
    }

    #[test]
    fn a_relay_that_fell_silent_is_named_no_more() {
        let now = Instant::now();
        let mut relays = Relays::default();
        relays.handle_status(now, relay(0), 1);
        relays.handle_status(now + STATUS_AGE_MAX, relay(1), 99);
        let named = relays.named(now + STATUS_AGE_MAX, &roster(2), &ASKER);
        assert_eq!(named.iter().map(|named| named.node).collect::<Vec<_>>(), [relay(1)]);
    }

    #[test]
    fn where_no_relay_has_spoken_the_roster_is_given() {
        let named = Relays::default().named(Instant::now(), &roster(9), &ASKER);
        assert_eq!(named.len(), RELAYS_NAMED_MAX);
    }

    #[test]
    fn a_relay_that_left_the_roster_is_forgotten() {
        let now = Instant::now();
        let mut relays = Relays::default();
        relays.handle_status(now, relay(5), 1);
        assert_eq!(relays.named(now, &roster(1), &ASKER)[0].node, relay(0));
        relays.set_roster(&roster(1));
        assert!(relays.0.is_empty());
    }
}
