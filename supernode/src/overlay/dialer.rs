//! When to connect to which supernode. Decides only; who dials gives it `now` and chance.

use ahoy_identity::sha256;
use ahoy_node::Backoff;
use libp2p::PeerId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Most supernodes that one keeps a connection to by itself. Kademlia dials further ones when a walk comes past them.
const DIALLED_MAX: usize = 64;
/// First wait after a failure: a supernode that was just started again is found within a second.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait: what one of 64 dead supernodes costs in dials is then nothing.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Who is connected, and when to try the others.
#[derive(Debug)]
pub(super) struct Dialer {
    seed: [u8; 32],
    turn: u64,
    peers: BTreeMap<PeerId, Peer>,
}

#[derive(Debug)]
struct Peer {
    backoff: Backoff,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// To be dialled from then on.
    Due(Instant),
    Dialling,
    Connected,
    /// One too many; Kademlia dials it if it wants it.
    Spare,
}

impl Dialer {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed, turn: 0, peers: BTreeMap::new() }
    }

    /// Replaces the supernodes there are; those that are new are due at once.
    pub(super) fn set_peers(&mut self, now: Instant, peers: impl IntoIterator<Item = PeerId>) {
        let mut old = std::mem::take(&mut self.peers);
        // Each supernode picks others, so that the overlay stays in one piece.
        let mut ranked: Vec<_> = peers.into_iter().map(|peer| (sha256(&[&self.seed, &peer.to_bytes()]), peer)).collect();
        ranked.sort_unstable();
        for (rank, (_, peer)) in ranked.into_iter().enumerate() {
            let spare = rank >= DIALLED_MAX;
            let mut kept =
                old.remove(&peer).unwrap_or_else(|| Peer { backoff: Backoff::new(RETRY_FIRST, RETRY_MAX), state: State::Due(now) });
            kept.state = match kept.state {
                State::Due(_) if spare => State::Spare,
                State::Spare if !spare => State::Due(now),
                state => state,
            };
            self.peers.insert(peer, kept);
        }
    }

    /// The supernodes to dial at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Vec<PeerId> {
        let mut due = Vec::new();
        for (id, peer) in &mut self.peers {
            if matches!(peer.state, State::Due(at) if at <= now) {
                peer.state = State::Dialling;
                due.push(*id);
            }
        }
        due
    }

    pub(super) fn handle_connected(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.state = State::Connected;
            peer.backoff.after_success();
        }
    }

    /// A dial failed, or the last connection ended.
    pub(super) fn handle_lost(&mut self, now: Instant, peer: &PeerId) {
        self.turn += 1;
        let random = sha256(&[&self.seed, &self.turn.to_be_bytes()]);
        let random = u64::from_be_bytes(*random.first_chunk().expect("a hash has 32 bytes"));
        if let Some(peer) = self.peers.get_mut(peer).filter(|peer| peer.state != State::Spare) {
            peer.state = State::Due(now + peer.backoff.after_failure(random));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_dialled_once_and_again_only_after_they_are_lost() {
        let now = Instant::now();
        let mut dialer = Dialer::new([1; 32]);
        let peers = [PeerId::random(), PeerId::random()];
        dialer.set_peers(now, peers);
        assert_eq!(dialer.due(now).len(), 2);
        assert!(dialer.due(now).is_empty());
        dialer.handle_connected(&peers[0]);
        dialer.handle_lost(now, &peers[1]);
        assert_eq!(dialer.due(now + RETRY_FIRST), [peers[1]]);
        dialer.handle_lost(now, &peers[0]);
        assert_eq!(dialer.due(now + RETRY_FIRST), [peers[0]]);
    }

    #[test]
    fn a_dead_supernode_is_tried_for_ever_and_never_rarer_than_the_longest_wait() {
        let mut now = Instant::now();
        let mut dialer = Dialer::new([1; 32]);
        let peer = PeerId::random();
        dialer.set_peers(now, [peer]);
        for _ in 0..100 {
            assert_eq!(dialer.due(now), [peer]);
            dialer.handle_lost(now, &peer);
            now += RETRY_MAX;
        }
    }

    #[test]
    fn whoever_left_the_roster_is_forgotten_and_who_stays_is_not_dialled_anew() {
        let now = Instant::now();
        let mut dialer = Dialer::new([1; 32]);
        let peers = [PeerId::random(), PeerId::random()];
        dialer.set_peers(now, [peers[0]]);
        assert_eq!(dialer.due(now), [peers[0]]);
        dialer.handle_connected(&peers[0]);
        dialer.set_peers(now, peers);
        assert_eq!(dialer.due(now), [peers[1]]);
        dialer.set_peers(now, []);
        dialer.handle_lost(now, &peers[0]);
        assert!(dialer.due(now + RETRY_MAX).is_empty());
    }

    #[test]
    fn in_a_large_network_only_some_are_dialled() {
        let now = Instant::now();
        let mut dialer = Dialer::new([1; 32]);
        dialer.set_peers(now, (0..200).map(|_| PeerId::random()));
        assert_eq!(dialer.due(now).len(), DIALLED_MAX);
    }
}
