//! When blocks are asked for, without the tremble of the thread that asks.
//!
//! An audio clock asks every 10 ms; the thread behind it comes late when the machine is busy, and then asks several
//! times at once. What counts for a packet's coming in time is the earliest moment at which a block may be asked for,
//! so the clock follows the earliest of the last second.

use std::collections::VecDeque;

use crate::BLOCK_MS;

/// Pulls whose moments are remembered: one second, in which 200 ppm of drift are 0.2 ms.
const REMEMBERED: usize = 100;

/// A pull that comes later than this is no late thread but a clock that stood still: beyond the 200 ms of blocks that
/// audio devices and pacers make up for.
const STANDSTILL_MS: f64 = 250.0;

/// The moments of pulls, straightened.
#[derive(Debug, Default)]
pub(crate) struct PullClock {
    pulls: u64,
    /// Each pull's moment less that of an ideal clock which began at zero.
    offsets_ms: VecDeque<f64>,
    now_ms: f64,
}

impl PullClock {
    /// Takes a pull at `now_ms`.
    pub(crate) fn tick(&mut self, now_ms: f64) {
        let ideal_ms = self.pulls as f64 * BLOCK_MS;
        let offset_ms = now_ms - ideal_ms;
        self.pulls += 1;
        if self.offsets_ms.back().is_some_and(|last| offset_ms - last > STANDSTILL_MS) {
            self.offsets_ms.clear();
        }
        self.offsets_ms.push_back(offset_ms);
        if self.offsets_ms.len() > REMEMBERED {
            self.offsets_ms.pop_front();
        }
        self.now_ms = ideal_ms + self.offsets_ms.iter().copied().fold(f64::INFINITY, f64::min);
    }

    /// The straightened moment of the last pull.
    pub(crate) fn now_ms(&self) -> f64 {
        self.now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_pulls_and_the_bursts_after_them_do_not_move_the_clock() {
        let mut clock = PullClock::default();
        for pull in 0..500_u32 {
            let due_ms = f64::from(pull) * 10.0 + 5.0;
            // Every 20th to 23rd pull come together, at the moment of the last of them.
            let late_ms = if pull % 50 >= 20 && pull % 50 < 24 { f64::from(23 - pull % 50) * 10.0 } else { 0.0 };
            clock.tick(due_ms + late_ms);
            assert!((clock.now_ms() - due_ms).abs() < 1e-9);
        }
    }

    #[test]
    fn a_clock_that_stood_still_goes_on_from_where_it_is() {
        let mut clock = PullClock::default();
        clock.tick(0.0);
        clock.tick(10.0);
        clock.tick(5_000.0);
        assert!((clock.now_ms() - 5_000.0).abs() < 1e-9);
    }
}
