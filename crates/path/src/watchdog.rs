//! Signs in the call's own packets that a direct path died: they stop coming, or come through the relay again.
//!
//! Voice runs at 20 to 60 ms, so a fifth of a second without a packet says much; but a peer that falls silent, or that is not talking yet,
//! sends little, and that says nothing. The watchdog therefore learns the pace of what comes and is armed only while there is one.

use std::time::{Duration, Instant};

/// Pauses of the learned pace after which silence is a sign.
const PAUSES: u32 = 3;
/// Bounds of that: two lost packets are no sign, and a sign later than this is of no use to a listener.
const SILENCE_MIN: Duration = Duration::from_millis(160);
const SILENCE_MAX: Duration = Duration::from_millis(400);
/// Packets at a steady pace that arm the watchdog, and packets that came straight before the peer counts as settled there.
const STEADY_PACKETS: u32 = 8;
/// How long nothing but direct packets must have come before the peer counts as settled on the direct path: longer than the overlap of a move
/// and a slow relay together.
const RELAY_QUIET: Duration = Duration::from_millis(500);

/// Watches over the packets of the call that come in.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    direct: Option<Instant>,
    pause: Duration,
    steady: u32,
    /// When the first packet came straight after the last through the relay, and how many did.
    direct_alone_since: Option<Instant>,
    direct_alone: u32,
}

impl Watchdog {
    /// A packet came straight.
    pub(crate) fn direct(&mut self, now: Instant) {
        self.direct_alone_since.get_or_insert(now);
        self.direct_alone = self.direct_alone.saturating_add(1);
        let Some(last) = self.direct.replace(now) else { return };
        let pause = now.saturating_duration_since(last);
        if pause > SILENCE_MAX {
            self.disarm();
            return;
        }
        self.steady = self.steady.saturating_add(1);
        // Up at once, down slowly: acknowledgements right behind the voice must not make the pace look faster than it is.
        self.pause = pause.max(self.pause * 7 / 8 + pause / 8);
    }

    /// A packet came through the relay. `true`: the peer had settled on the direct path, so it has reason to doubt it.
    pub(crate) fn relay(&mut self, now: Instant) -> bool {
        let alone_since = self.direct_alone_since.take();
        let packets = std::mem::take(&mut self.direct_alone);
        packets >= STEADY_PACKETS && alone_since.is_some_and(|since| now.saturating_duration_since(since) >= RELAY_QUIET)
    }

    /// When silence becomes a sign; `None`: it would be none.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.steady >= STEADY_PACKETS).then_some(self.direct? + (self.pause * PAUSES).clamp(SILENCE_MIN, SILENCE_MAX))
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

    fn after_packets_every(pause_ms: u64, packets: u64) -> (Watchdog, Instant) {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        let mut now = start;
        for nth in 0..packets {
            now = start + Duration::from_millis(nth * pause_ms);
            watchdog.direct(now);
        }
        (watchdog, now)
    }

    #[test]
    fn silence_after_a_steady_pace_is_a_sign() {
        for (pause_ms, silence_ms) in [(20, 160), (40, 160), (60, 180), (100, 300)] {
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
        (1..=8).for_each(|nth| watchdog.direct(last + Duration::from_millis(20 * nth)));
        assert!(watchdog.deadline().is_some());
    }

    #[test]
    fn a_peer_back_on_the_relay_is_a_sign_once() {
        let (mut watchdog, last) = after_packets_every(20, 50);
        assert!(watchdog.relay(last));
        assert!(!watchdog.relay(last + Duration::from_millis(20)));
    }

    #[test]
    fn a_peer_on_both_paths_is_no_sign() {
        let (mut watchdog, last) = after_packets_every(20, 50);
        watchdog.relay(last);
        for nth in 1..50 {
            let now = last + Duration::from_millis(20 * nth);
            watchdog.direct(now);
            assert!(!watchdog.relay(now));
        }
    }
}
