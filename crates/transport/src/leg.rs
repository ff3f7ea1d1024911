//! One of a call's legs: a channel at a relay.

use ahoy_identity::leg_code;
use ahoy_protocol::datagram::{MAC_BYTES, MOVE_BYTES, Move, relay_frame};
use ahoy_protocol::ids::LegKey;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A leg that was joined.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    /// The relay's address, or the tunnel's to it.
    pub(crate) relay: SocketAddr,
    /// This side's channel there.
    pub(crate) channel: u32,
    key: LegKey,
    /// Counts this leg's moves: microseconds since the Unix epoch when it was joined, and those that have passed since. Whoever joins again
    /// with what he had before still counts on, and sleep does not turn it back.
    joined: (Instant, Duration),
    last_count: u64,
}

impl Leg {
    /// A leg joined `now`, which is `since_epoch` after the Unix epoch.
    pub(crate) fn new(relay: SocketAddr, channel: u32, key: LegKey, now: Instant, since_epoch: Duration) -> Self {
        Self { relay, channel, key, joined: (now, since_epoch), last_count: 0 }
    }

    /// A datagram of the call in a frame of this leg.
    pub(crate) fn frame(&self, packet: &[u8]) -> Vec<u8> {
        relay_frame(self.channel, packet)
    }

    /// The next move: "this leg's device sends from here now".
    pub(crate) fn next_move(&mut self, now: Instant) -> [u8; MOVE_BYTES] {
        let (joined, since_epoch) = self.joined;
        let time = since_epoch + now.saturating_duration_since(joined);
        let counter = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(self.last_count.saturating_add(1));
        self.last_count = counter;
        let message = Move { channel: self.channel, counter }.encode();
        let mut sealed = [0; MOVE_BYTES];
        let (head, code) = sealed.split_at_mut(MOVE_BYTES - MAC_BYTES);
        head.copy_from_slice(&message);
        code.copy_from_slice(&leg_code(&self.key, &message));
        sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_identity::check_leg_code;

    fn leg(now: Instant) -> Leg {
        Leg::new(([192, 0, 2, 1], 4433).into(), 7, LegKey([9; 32]), now, Duration::from_micros(1_000_000))
    }

    #[test]
    fn a_move_names_the_channel_and_proves_the_key() {
        let now = Instant::now();
        let moved = leg(now).next_move(now + Duration::from_micros(5));
        assert_eq!(Move::decode(&moved), Ok(Move { channel: 7, counter: 1_000_005 }));
        assert!(check_leg_code(&LegKey([9; 32]), &moved));
        assert!(!check_leg_code(&LegKey([8; 32]), &moved));
    }

    #[test]
    fn moves_count_upwards_even_within_a_microsecond() {
        let now = Instant::now();
        let mut leg = leg(now);
        let mut counters = (0..3).map(|_| Move::decode(&leg.next_move(now)).expect("a move").counter);
        assert_eq!(counters.by_ref().collect::<Vec<_>>(), [1_000_000, 1_000_001, 1_000_002]);
    }
}
