//! When sound is asked for, without the tremble of the thread that asks.
//!
//! An audio clock asks at even intervals; the thread behind it comes late when the machine is busy, and then asks several
//! times at once. What is heard keeps to the even intervals, so the clock follows the earliest pulls of the last two
//! seconds. A packet's coming in time is judged by the pulls as they were ([`PullClock::last_ms`]): one that was handed
//! over after a pull was not there for it, whatever its time of arrival says.

use std::collections::VecDeque;

/// How long the earliest pull counts, in milliseconds: 200 ppm of drift are 0.4 ms in this time.
const REMEMBERED_MS: f64 = 2_000.0;

/// The earliest pull is remembered for each of these spans, in milliseconds.
const SPAN_MS: f64 = 100.0;

/// A pull that comes later than this is no late thread but a clock that stood still: beyond the 200 ms of blocks that
/// audio devices and pacers make up for.
const STANDSTILL_MS: f64 = 250.0;

#[derive(Debug, Clone, Copy)]
struct Span {
    begin_ms: f64,
    least_offset_ms: f64,
}

/// The moments of pulls, straightened.
#[derive(Debug, Default)]
pub(crate) struct PullClock {
    /// Sound that was asked for so far.
    asked_ms: f64,
    /// Each pull's moment less that of an ideal clock which began at zero: the least of each span, newest last. At most
    /// [`REMEMBERED_MS`] of them.
    offsets: VecDeque<Span>,
    last: Option<f64>,
    now_ms: f64,
}

impl PullClock {
    /// Takes a pull at `now_ms` of as many milliseconds of sound.
    pub(crate) fn tick(&mut self, now_ms: f64, length_ms: f64) {
        let ideal_ms = self.asked_ms;
        self.asked_ms += length_ms;
        let offset_ms = now_ms - ideal_ms;
        if self.last.is_some_and(|last| now_ms - last > STANDSTILL_MS) {
            self.offsets.clear();
        }
        match self.offsets.back_mut() {
            Some(span) if now_ms - span.begin_ms < SPAN_MS => span.least_offset_ms = span.least_offset_ms.min(offset_ms),
            _ => self.offsets.push_back(Span { begin_ms: now_ms, least_offset_ms: offset_ms }),
        }
        while self.offsets.front().is_some_and(|span| now_ms - span.begin_ms > REMEMBERED_MS) {
            self.offsets.pop_front();
        }
        self.last = Some(now_ms);
        self.now_ms = ideal_ms + self.offsets.iter().map(|span| span.least_offset_ms).fold(f64::INFINITY, f64::min);
    }

    /// The straightened moment of the last pull.
    pub(crate) fn now_ms(&self) -> f64 {
        self.now_ms
    }

    /// The moment of the last pull as it was.
    pub(crate) fn last_ms(&self) -> Option<f64> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_pulls_and_the_bursts_after_them_do_not_move_the_clock() {
        for length_ms in [2.5, 5.0, 10.0] {
            let mut clock = PullClock::default();
            for pull in 0..2_000_u32 {
                let due_ms = f64::from(pull) * length_ms + 5.0;
                // Every 20th to 23rd pull come together, at the moment of the last of them.
                let late_ms = if pull % 50 >= 20 && pull % 50 < 24 { f64::from(23 - pull % 50) * length_ms } else { 0.0 };
                clock.tick(due_ms + late_ms, length_ms);
                assert!((clock.now_ms() - due_ms).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_clock_that_stood_still_goes_on_from_where_it_is() {
        let mut clock = PullClock::default();
        clock.tick(0.0, 10.0);
        clock.tick(10.0, 10.0);
        clock.tick(5_000.0, 10.0);
        assert!((clock.now_ms() - 5_000.0).abs() < 1e-9);
    }

    #[test]
    fn a_clock_that_is_fast_or_slow_is_followed() {
        for drift in [-2e-4, 2e-4] {
            let mut clock = PullClock::default();
            for pull in 0..100_000_u32 {
                let due_ms = f64::from(pull) * 10.0 * (1.0 + drift);
                clock.tick(due_ms, 10.0);
                assert!((clock.now_ms() - due_ms).abs() < 0.5);
            }
        }
    }
}
