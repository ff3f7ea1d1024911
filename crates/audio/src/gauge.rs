//! What the callback of a device tells the rest of the program, without locks: how many frames went through it and when,
//! how far away the loudspeaker or the microphone is, what was missing, and how long the callback took.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::timing::{CallbackTimes, Histogram};

/// Callbacks come in bursts and late; the line through them moves by this part of each one's distance from it.
const SMOOTHING: i64 = 16;

/// A callback this far from the line begins another line: the device stood still, or was moved.
const JUMP: Duration = Duration::from_millis(30);

/// The line is not known yet.
const UNKNOWN: i64 = i64::MIN;

/// Written by a callback, read by anyone.
#[derive(Debug)]
pub(crate) struct Gauge {
    /// Times are told from here on.
    epoch: Instant,
    /// In hertz.
    pub(crate) rate: u32,
    frames: AtomicU64,
    /// When frame 0 went through the callback, by a line fitted to all callbacks, in nanoseconds since the epoch.
    origin_ns: AtomicI64,
    latency_us: AtomicU32,
    /// Most frames in one call lately.
    period: AtomicUsize,
    slipped: AtomicU64,
    /// Fewest frames that were left after a call, since that was asked last.
    spare_min: AtomicUsize,
    times: Histogram,
}

impl Gauge {
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            epoch: Instant::now(),
            rate,
            frames: AtomicU64::new(0),
            origin_ns: AtomicI64::new(UNKNOWN),
            latency_us: AtomicU32::new(0),
            period: AtomicUsize::new(0),
            slipped: AtomicU64::new(0),
            spare_min: AtomicUsize::new(usize::MAX),
            times: Histogram::default(),
        }
    }

    /// For the callback: `frames` went through it, and the frame with number `index` did so at `now`.
    pub(crate) fn beat(&self, now: Instant, frames: usize, index: u64) {
        let measured = self.nanos_at(now) - self.nanos_of(index);
        let origin = self.origin_ns.load(Ordering::Relaxed);
        let jump = i64::try_from(JUMP.as_nanos()).unwrap_or(i64::MAX);
        let smooth =
            if origin == UNKNOWN || (measured - origin).abs() > jump { measured } else { origin + (measured - origin) / SMOOTHING };
        self.origin_ns.store(smooth, Ordering::Relaxed);
        self.frames.fetch_add(frames as u64, Ordering::Release);
    }

    pub(crate) fn set_period(&self, frames: usize) {
        self.period.store(frames, Ordering::Relaxed);
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.latency_us.store(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(crate) fn slip(&self, frames: usize) {
        self.slipped.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn spare(&self, frames: usize) {
        self.spare_min.fetch_min(frames, Ordering::Relaxed);
    }

    pub(crate) fn took(&self, duration: Duration) {
        self.times.add(duration);
    }

    /// Frames that went through the callback.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Acquire)
    }

    /// When a frame went, or will go, through the callback. `None` before the first did.
    pub(crate) fn time_of(&self, frame: u64) -> Option<Instant> {
        let origin = self.origin_ns.load(Ordering::Relaxed);
        if origin == UNKNOWN {
            return None;
        }
        let nanos = origin.saturating_add(self.nanos_of(frame));
        let distance = Duration::from_nanos(nanos.unsigned_abs());
        if nanos < 0 { self.epoch.checked_sub(distance) } else { self.epoch.checked_add(distance) }
    }

    /// Between the callback and the loudspeaker or the microphone.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Ordering::Relaxed).into())
    }

    /// Most frames that one call took or gave lately.
    pub(crate) fn period(&self) -> usize {
        self.period.load(Ordering::Relaxed)
    }

    /// Frames that were wanted and not there, or there and had no room.
    pub(crate) fn slipped(&self) -> u64 {
        self.slipped.load(Ordering::Relaxed)
    }

    /// Fewest frames that were left after a call since this was asked last. `None`: there was no call.
    pub(crate) fn take_spare_min(&self) -> Option<usize> {
        let frames = self.spare_min.swap(usize::MAX, Ordering::Relaxed);
        (frames != usize::MAX).then_some(frames)
    }

    pub(crate) fn times(&self) -> CallbackTimes {
        self.times.read()
    }

    fn nanos_at(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(i64::MAX)
    }

    fn nanos_of(&self, frames: u64) -> i64 {
        i64::try_from(u128::from(frames) * 1_000_000_000 / u128::from(self.rate.max(1))).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_that_come_early_and_late_lie_on_a_line() {
        let gauge = Gauge::new(48_000);
        let start = gauge.epoch + Duration::from_secs(1);
        for period in 0..200_u64 {
            let jitter = Duration::from_micros((period * 7_919) % 2_000);
            gauge.beat(start + Duration::from_millis(5) * period as u32 + jitter, 240, period * 240);
        }
        let expected = start + Duration::from_millis(1_000);
        let at = gauge.time_of(gauge.frames()).unwrap();
        let distance = at.max(expected) - at.min(expected);
        assert!(distance < Duration::from_millis(2), "{distance:?}");
    }

    #[test]
    fn a_device_that_stood_still_goes_on_from_there() {
        let gauge = Gauge::new(48_000);
        let start = gauge.epoch;
        gauge.beat(start, 240, 0);
        gauge.beat(start + Duration::from_secs(3), 240, 240);
        assert_eq!(gauge.time_of(240), Some(start + Duration::from_secs(3)));
    }
}
