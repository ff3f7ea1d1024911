//! How much sound waits for a loudspeaker: what the device takes at once, and a cushion for the lateness of the threads
//! between, which is learned from what really happens.
//!
//! The cushion begins at half a period. Each time the device runs dry it grows by a step. When there always was more than
//! needed for a while, half of that is given up; the while doubles when that was wrong, and halves when it was right.

use std::time::{Duration, Instant};

use crate::gauge::Gauge;

/// By how much the cushion changes.
const STEP: Duration = Duration::from_micros(2_500);

/// Most that the device's period and the cushion may be together: more is delay for nothing.
const TARGET_MAX: Duration = Duration::from_millis(60);

/// Longer gaps come from a machine that stood still; no cushion of any use would have helped.
const GAP_MAX: Duration = Duration::from_millis(40);

/// After it grew the cushion does not grow again for the time that filling the queue may take: one gap is one lesson.
const LESSON: Duration = Duration::from_millis(50);

/// How long there must have been more than needed, at first and at most.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_MAX: Duration = Duration::from_secs(320);

#[derive(Debug)]
pub(crate) struct Cushion {
    size: Option<Duration>,
    slipped: u64,
    grew: Option<Instant>,
    /// Since when the fewest spare frames are counted.
    since: Instant,
    patience: Duration,
    /// Whether the last change was to less.
    is_trial: bool,
}

impl Cushion {
    pub(crate) fn new(now: Instant) -> Self {
        Self { size: None, slipped: 0, grew: None, since: now, patience: PATIENCE, is_trial: false }
    }

    /// Another device, or the same anew: what is known of the threads here stays, what was counted there does not.
    pub(crate) fn restart(&mut self, now: Instant) {
        (self.slipped, self.grew, self.since) = (0, Some(now), now);
    }

    /// How many frames should wait.
    pub(crate) fn target(&mut self, now: Instant, gauge: &Gauge) -> usize {
        let period = duration(gauge.period(), gauge.rate);
        let most = TARGET_MAX.saturating_sub(period);
        let size = self.size.unwrap_or((period / 2).max(STEP)).min(most);
        let size = self.learn(now, gauge, size).min(most);
        if gauge.period() > 0 {
            self.size = Some(size);
        }
        frames((period + size).min(TARGET_MAX), gauge.rate)
    }

    fn learn(&mut self, now: Instant, gauge: &Gauge, size: Duration) -> Duration {
        let slipped = gauge.slipped();
        let gap = duration(usize::try_from(slipped - self.slipped.min(slipped)).unwrap_or(usize::MAX), gauge.rate);
        self.slipped = slipped;
        if !gap.is_zero() {
            return self.grow(now, gap, size);
        }
        if now.saturating_duration_since(self.since) < self.patience {
            return size;
        }
        let spare = gauge.take_spare_min().map_or(Duration::ZERO, |frames| duration(frames, gauge.rate));
        self.since = now;
        // Half a step stays spare, so that one that was hardly enough is kept.
        if spare < STEP + STEP / 2 {
            return size;
        }
        if std::mem::replace(&mut self.is_trial, true) {
            self.patience = (self.patience / 2).max(PATIENCE);
        }
        size.saturating_sub((spare / 2).max(STEP))
    }

    fn grow(&mut self, now: Instant, gap: Duration, size: Duration) -> Duration {
        let is_same_lesson = self.grew.is_some_and(|grew| now.saturating_duration_since(grew) < LESSON);
        if is_same_lesson || gap > GAP_MAX {
            return size;
        }
        if std::mem::take(&mut self.is_trial) {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
        (self.grew, self.since) = (Some(now), now);
        size + STEP
    }
}

fn duration(frames: usize, rate: u32) -> Duration {
    Duration::from_secs_f64(frames as f64 / f64::from(rate.max(1)))
}

fn frames(duration: Duration, rate: u32) -> usize {
    (duration.as_secs_f64() * f64::from(rate)).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: usize = 48;

    fn device() -> (Gauge, Cushion, Instant) {
        let (gauge, now) = (Gauge::new(48_000), Instant::now());
        gauge.set_period(5 * MS);
        (gauge, Cushion::new(now), now)
    }

    #[test]
    fn it_begins_at_one_and_a_half_periods_and_grows_with_each_gap() {
        let (gauge, mut cushion, now) = device();
        assert_eq!(cushion.target(now, &gauge), 15 * MS / 2);
        gauge.slip(100);
        assert_eq!(cushion.target(now, &gauge), 10 * MS);
        gauge.slip(100);
        assert_eq!(cushion.target(now + LESSON / 2, &gauge), 10 * MS, "the same gap teaches once");
        gauge.slip(100);
        assert_eq!(cushion.target(now + LESSON, &gauge), 25 * MS / 2);
        gauge.slip(48_000);
        assert_eq!(cushion.target(now + LESSON * 2, &gauge), 25 * MS / 2, "a machine that slept teaches nothing");
    }

    #[test]
    fn it_shrinks_when_there_always_was_enough_and_waits_longer_after_a_mistake() {
        let (gauge, mut cushion, now) = device();
        cushion.target(now, &gauge);
        gauge.spare(5 * MS);
        assert_eq!(cushion.target(now + PATIENCE, &gauge), 5 * MS);
        gauge.slip(10);
        assert_eq!(cushion.target(now + PATIENCE * 2, &gauge), 15 * MS / 2);
        gauge.spare(5 * MS);
        assert_eq!(cushion.target(now + PATIENCE * 3, &gauge), 15 * MS / 2);
        gauge.spare(5 * MS);
        assert_eq!(cushion.target(now + PATIENCE * 4, &gauge), 5 * MS);
    }

    #[test]
    fn what_a_busy_minute_took_is_given_back_within_another() {
        let (gauge, mut cushion, now) = device();
        for second in 0..20 {
            gauge.slip(10);
            cushion.target(now + Duration::from_secs(second), &gauge);
        }
        let calm = now + Duration::from_secs(20);
        let mut target = 0;
        for second in 0..60 {
            // What is left over when a callback has run is the cushion, but for what the threads are late.
            gauge.spare(target.max(5 * MS) - 5 * MS);
            target = cushion.target(calm + Duration::from_secs(second), &gauge);
        }
        assert!(target < 15 * MS, "{target}");
    }

    #[test]
    fn it_has_an_end() {
        let (gauge, mut cushion, now) = device();
        for second in 0..100 {
            gauge.slip(10);
            cushion.target(now + Duration::from_secs(second), &gauge);
        }
        assert_eq!(cushion.target(now + Duration::from_secs(100), &gauge), 60 * MS);
    }
}
