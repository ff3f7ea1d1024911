//! Signs in the call's own packets that a way died: they stop coming, or the peer begins to speak through a relay.
//!
//! Voice runs at 20 to 60 ms, so an eighth of a second without a packet says much; but a peer that falls silent, or that is not talking yet,
//! sends little, and that says nothing. The watchdog therefore learns the pace of what comes and is armed only while there is one. It counts
//! packets by whatever way they come: a peer that moved to another way has not fallen silent.

use crate::route::{LegId, Way};
use ahoy_protocol::peer::LEGS_MAX;
use std::time::{Duration, Instant};

/// Pauses of the learned pace after which silence is a sign.
const PAUSES: u32 = 3;
/// Bounds of that: four lost packets of 20 ms are no sign, and a sign later than this is of no use to a listener. The lower one, a relay of
/// 60 ms and a packet's pace together make the gap that a listener hears when a path dies.
const SILENCE_MIN: Duration = Duration::from_millis(120);
const SILENCE_MAX: Duration = Duration::from_millis(400);
/// Packets at a steady pace that arm the watchdog, and packets that came by other ways before the peer counts as settled on them.
const STEADY_PACKETS: u32 = 8;
/// Pauses from which on packets have a pace. The shortest frames are 10 ms long.
const PACE_MIN: Duration = Duration::from_millis(5);
/// How long nothing must have come through a leg before the peer counts as settled elsewhere: longer than the overlap of a move and a slow
/// relay together.
const LEG_QUIET: Duration = Duration::from_millis(500);

/// Watches over the packets of the call that come in.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    last: Option<Instant>,
    pause: Duration,
    steady: u32,
    elsewhere: [Elsewhere; LEGS_MAX],
}

/// What came by other ways since the last packet through a leg.
#[derive(Debug, Clone, Copy, Default)]
struct Elsewhere {
    since: Option<Instant>,
    packets: u32,
}

impl Watchdog {
    /// A packet came. `true`: through a leg, and the peer had settled on other ways, so it has reason to doubt them.
    pub(crate) fn packet(&mut self, now: Instant, way: Way) -> bool {
        self.keep_pace(now);
        let own = match way {
            Way::Leg(LegId(leg)) => Some(usize::from(leg)),
            Way::Direct { .. } => None,
        };
        let mut is_sign = false;
        for (leg, elsewhere) in self.elsewhere.iter_mut().enumerate() {
            if own == Some(leg) {
                let was = std::mem::take(elsewhere);
                let has_been_quiet = was.since.is_some_and(|since| now.saturating_duration_since(since) >= LEG_QUIET);
                is_sign = was.packets >= STEADY_PACKETS && has_been_quiet;
            } else {
                elsewhere.since.get_or_insert(now);
                elsewhere.packets = elsewhere.packets.saturating_add(1);
            }
        }
        is_sign
    }

    fn keep_pace(&mut self, now: Instant) {
        let Some(last) = self.last.replace(now) else { return };
        let pause = now.saturating_duration_since(last);
        if pause > SILENCE_MAX {
            self.disarm();
            return;
        }
        // Packets right behind one another are one that was sent again, or acknowledged; they are no pace.
        self.steady = self.steady.saturating_add(u32::from(pause >= PACE_MIN));
        // Up at once, down slowly: acknowledgements right behind the voice must not make the pace look faster than it is.
        self.pause = pause.max(self.pause * 15 / 16 + pause / 16);
    }

    /// When silence becomes a sign; `None`: it would be none.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.steady >= STEADY_PACKETS).then_some(self.last? + (self.pause * PAUSES).clamp(SILENCE_MIN, SILENCE_MAX))
    }

    /// Waits for a steady pace again: one silence is one sign.
    pub(crate) fn disarm(&mut self) {
        self.steady = 0;
        self.pause = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const LEG: Way = Way::Leg(LegId(0));

    fn direct() -> Way {
        Way::direct(SocketAddr::from(([192, 0, 2, 1], 9)))
    }

    fn after_packets_every(pause_ms: u64, packets: u64) -> (Watchdog, Instant) {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        let mut now = start;
        for nth in 0..packets {
            now = start + Duration::from_millis(nth * pause_ms);
            assert!(!watchdog.packet(now, direct()));
        }
        (watchdog, now)
    }

    #[test]
    fn silence_after_a_steady_pace_is_a_sign() {
        for (pause_ms, silence_ms) in [(20, 120), (40, 120), (60, 180), (100, 300)] {
            let (watchdog, last) = after_packets_every(pause_ms, 50);
            assert_eq!(watchdog.deadline(), Some(last + Duration::from_millis(silence_ms)), "pace {pause_ms} ms");
        }
    }

    #[test]
    fn silence_without_a_pace_is_none() {
        assert_eq!(after_packets_every(20, 5).0.deadline(), None);
        assert_eq!(after_packets_every(2000, 50).0.deadline(), None);
    }

    #[test]
    fn one_silence_is_one_sign() {
        let (mut watchdog, last) = after_packets_every(20, 50);
        watchdog.disarm();
        assert_eq!(watchdog.deadline(), None);
        (1..=8).for_each(|nth| assert!(!watchdog.packet(last + Duration::from_millis(20 * nth), direct())));
        assert!(watchdog.deadline().is_some());
    }

    #[test]
    fn a_peer_that_begins_to_use_a_leg_is_a_sign_once() {
        let (mut watchdog, last) = after_packets_every(20, 50);
        assert!(watchdog.packet(last, LEG));
        assert!(!watchdog.packet(last + Duration::from_millis(20), LEG));
        for nth in 2..60 {
            watchdog.packet(last + Duration::from_millis(20 * nth), LEG);
        }
        assert!(watchdog.packet(last + Duration::from_secs(2), Way::Leg(LegId(1))), "the other leg too");
    }

    #[test]
    fn a_peer_on_both_ways_is_no_sign() {
        let (mut watchdog, last) = after_packets_every(20, 50);
        watchdog.packet(last, LEG);
        for nth in 1..50 {
            let now = last + Duration::from_millis(20 * nth);
            assert!(!watchdog.packet(now, direct()));
            assert!(!watchdog.packet(now, LEG));
        }
    }
}
