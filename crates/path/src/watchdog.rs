//! Signs in the call's own packets that a way died: they stop coming, or the peer begins to speak through a relay.
//!
//! Voice runs at 20 to 60 ms, so an eighth of a second without a packet says much; but a peer that falls silent, or that is not talking yet,
//! sends little, and that says nothing. The watchdog therefore learns the pace of what comes and is armed only while there is one. It counts
//! packets by whatever way they come: a peer that moved to another way has not fallen silent.
//!
//! Where packets are lost, there are silences all the time. The watchdog knows how long those of late were, and takes none for a sign that
//! chance brings about in minutes.

use crate::route::{LegId, Way};
use ahoy_protocol::peer::LEGS_MAX;
use std::time::{Duration, Instant};

/// Pauses of the learned pace after which silence is a sign.
const PAUSES: u32 = 3;
/// Bounds of that: four lost packets of 20 ms are no sign, and a sign later than this is of no use to a listener. The lower one, a relay of
/// 60 ms and a packet's pace together make the gap that a listener hears when a path dies.
const SILENCE_MIN: Duration = Duration::from_millis(120);
const SILENCE_MAX: Duration = Duration::from_millis(400);
/// The upper one where much is lost. A longer pause is no pace.
const SILENCE_LOSSY_MAX: Duration = Duration::from_millis(1200);
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
    last: Option<(Instant, Way)>,
    pause: Duration,
    pauses: Pauses,
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
        self.keep_pace(now, way);
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

    fn keep_pace(&mut self, now: Instant, way: Way) {
        let Some((last, last_way)) = self.last.replace((now, way)) else { return };
        let pause = now.saturating_duration_since(last);
        if pause > SILENCE_LOSSY_MAX {
            self.disarm();
            return;
        }
        // Packets right behind one another are one that was sent again, or acknowledged; they are no pace.
        self.steady = self.steady.saturating_add(u32::from(pause >= PACE_MIN));
        // A silence that ended with the peer coming another way was no loss.
        if way == last_way {
            self.pauses.add(pause);
        }
        // Up at once, down slowly: acknowledgements right behind the voice must not make the pace look faster than it is.
        self.pause = pause.min(SILENCE_MAX).max(self.pause * 15 / 16 + pause.min(SILENCE_MAX) / 16);
    }

    /// When silence becomes a sign; `None`: it would be none.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let silence = (self.pause * PAUSES).clamp(SILENCE_MIN, SILENCE_MAX).max(self.pauses.unlikely().min(SILENCE_LOSSY_MAX));
        (self.steady >= STEADY_PACKETS).then_some(self.last?.0 + silence)
    }

    /// Whether packets of the call were lost of late, now and then and not in one silence.
    pub(crate) fn sees_losses(&self) -> bool {
        self.pauses.long >= LONG_USUAL_MIN && self.pauses.long > LONG_USUAL * self.pauses.count
    }

    /// Waits for a steady pace again: one silence is one sign.
    pub(crate) fn disarm(&mut self) {
        self.steady = 0;
        self.pause = Duration::ZERO;
    }
}

/// Pauses up to this, or up to one and a half times the shortest, are the pace and not losses.
const LOSSY_FROM: Duration = Duration::from_millis(60);
/// How long the losses of a moment count: long enough for some bursts, short enough for a line that was lossy to be trusted again.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Long pauses that count for nothing: one or two are an interrupted radio or a busy machine, not a line that loses.
const LONG_IGNORED: f64 = 1.5;
/// Long pauses, and their share of all, from which on losses are usual. Bursts make fewer pauses than they lose packets.
const LONG_USUAL_MIN: f64 = 3.0;
const LONG_USUAL: f64 = 0.01;
/// A pause is unlikely that the losses of late explain once in so many packets: an hour of them.
const UNLIKELY: f64 = 1e-5;

/// Pauses between packets, and how long those get that losses make: about as long again with the same chance each time, as in a row of
/// losses of which each may be the last. The moments of what goes beyond the pace say how long that is; the second one sees bursts.
#[derive(Debug, Default)]
struct Pauses {
    shortest: Duration,
    count: f64,
    long: f64,
    excess_s: f64,
    excess_squared_s: f64,
}

impl Pauses {
    fn add(&mut self, pause: Duration) {
        if pause < PACE_MIN {
            return;
        }
        self.shortest = if self.count == 0.0 { pause } else { pause.min(self.shortest + pause.saturating_sub(self.shortest) / 64) };
        let kept = 1.0 - pause.min(REMEMBERED).as_secs_f64() / REMEMBERED.as_secs_f64();
        for sum in [&mut self.count, &mut self.long, &mut self.excess_s, &mut self.excess_squared_s] {
            *sum *= kept;
        }
        self.count += 1.0;
        let excess_s = pause.saturating_sub(self.lossy_from()).as_secs_f64();
        if excess_s > 0.0 {
            self.long += 1.0;
            self.excess_s += excess_s;
            self.excess_squared_s += excess_s * excess_s;
        }
    }

    fn lossy_from(&self) -> Duration {
        LOSSY_FROM.max(self.shortest * 3 / 2)
    }

    /// How long a pause must be to be unlikely; zero where hardly anything is lost.
    fn unlikely(&self) -> Duration {
        let share = (self.long - LONG_IGNORED).max(0.0) / self.count.max(1.0);
        if share <= UNLIKELY {
            return Duration::ZERO;
        }
        let mean_s = (self.excess_s / self.long).max(self.excess_squared_s / (2.0 * self.excess_s));
        self.lossy_from() + Duration::from_secs_f64(mean_s * (share / UNLIKELY).ln())
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

    /// Silences that were signs in ten minutes of a line that loses a packet with one probability after one that came, and with another
    /// after one that was lost; and how long a silence has to be in the end.
    fn signs_at(pause_ms: u64, lost_after: [f64; 2]) -> (u32, Duration) {
        let start = Instant::now();
        let (mut watchdog, mut random, mut was_lost, mut signs) = (Watchdog::default(), crate::random::Random::new(7), false, 0);
        for nth in 0..600_000 / pause_ms {
            let now = start + Duration::from_millis(nth * pause_ms);
            if watchdog.deadline().is_some_and(|deadline| deadline <= now) {
                watchdog.disarm();
                // While losses are met for the first time they are unlikely.
                signs += u32::from(nth * pause_ms > 6_000);
            }
            was_lost = (random.next() >> 11) as f64 / (1u64 << 53) as f64 <= lost_after[usize::from(was_lost)];
            if !was_lost {
                watchdog.packet(now, direct());
            }
        }
        let last = watchdog.last.expect("packets came").0;
        (signs, watchdog.deadline().map_or(Duration::ZERO, |deadline| deadline - last))
    }

    #[test]
    fn steady_losses_are_no_sign() {
        for pause_ms in [20, 40, 60] {
            for lost_after in [[0.1; 2], [0.3; 2], [0.5; 2], [0.1, 0.6], [0.3, 0.7]] {
                let (signs, silence) = signs_at(pause_ms, lost_after);
                assert!(signs <= 5, "{signs} signs at a packet each {pause_ms} ms, of which {lost_after:?} are lost; {silence:?}");
            }
        }
    }

    #[test]
    fn losses_now_and_then_are_seen_and_one_silence_is_none_of_them() {
        let sees = |lost: &dyn Fn(u64) -> bool| {
            let (start, mut watchdog) = (Instant::now(), Watchdog::default());
            for nth in (0..500).filter(|nth| !lost(*nth)) {
                watchdog.packet(start + Duration::from_millis(20 * nth), direct());
            }
            watchdog.sees_losses()
        };
        assert!(!sees(&|_| false));
        assert!(!sees(&|nth| (400..425).contains(&nth)), "one silence of half a second");
        assert!(sees(&|nth| nth % 50 >= 45), "bursts of five");
    }

    #[test]
    fn what_is_unlikely_follows_the_losses() {
        let (_, clean) = signs_at(20, [0.0; 2]);
        let (_, some) = signs_at(20, [0.1; 2]);
        let (_, half) = signs_at(20, [0.5; 2]);
        assert_eq!(clean, SILENCE_MIN);
        assert!(some < Duration::from_millis(250) && half < Duration::from_millis(700), "{some:?}, {half:?}");
    }

    #[test]
    fn a_silence_that_ends_by_another_way_was_no_loss() {
        let (mut watchdog, mut last) = after_packets_every(20, 500);
        for nth in 0..20 {
            last += Duration::from_millis(200);
            watchdog.packet(last, if nth % 2 == 0 { LEG } else { direct() });
        }
        assert_eq!(watchdog.pauses.unlikely(), Duration::ZERO);
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
