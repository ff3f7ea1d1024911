//! Rates: a token bucket that limits what one leg sends or costs, and a meter of what all of them send.

use std::time::{Duration, Instant};

/// Lets units, such as bytes, through at a rate, and a burst on top.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    per_s: u64,
    burst: u64,
    available: u64,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn new(per_s: u64, burst: u64, now: Instant) -> Self {
        Self { per_s, burst, available: burst, filled: now }
    }

    /// True if so many `units` may pass at `now`; then they are spent.
    pub(crate) fn take(&mut self, units: u64, now: Instant) -> bool {
        let micros = now.saturating_duration_since(self.filled).as_micros();
        let earned = u64::try_from(micros * u128::from(self.per_s) / 1_000_000).unwrap_or(u64::MAX);
        if earned > 0 {
            self.available = self.available.saturating_add(earned).min(self.burst);
            self.filled = now;
        }
        let enough = units <= self.available;
        if enough {
            self.available -= units;
        }
        enough
    }
}

/// Bytes in the last whole second.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    second_began: Instant,
    this_second_bytes: u64,
    last_second_bytes: u64,
}

const SECOND: Duration = Duration::from_secs(1);

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { second_began: now, this_second_bytes: 0, last_second_bytes: 0 }
    }

    pub(crate) fn count(&mut self, bytes: u64, now: Instant) {
        self.roll(now);
        self.this_second_bytes += bytes;
    }

    pub(crate) fn bytes_per_s(&mut self, now: Instant) -> u64 {
        self.roll(now);
        self.last_second_bytes
    }

    fn roll(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.second_began);
        if elapsed < SECOND {
            return;
        }
        // After a gap of two seconds or more, the last second was an empty one.
        self.last_second_bytes = if elapsed < 2 * SECOND { self.this_second_bytes } else { 0 };
        self.this_second_bytes = 0;
        self.second_began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1000, 500, start);
        assert!(bucket.take(500, start));
        assert!(!bucket.take(1, start));
        assert!(bucket.take(100, start + Duration::from_millis(100)));
        assert!(!bucket.take(1, start + Duration::from_millis(100)));
        assert!(!bucket.take(501, start + Duration::from_secs(60)), "no more than the burst is saved up");
    }

    #[test]
    fn time_that_runs_backwards_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(1000, 500, start);
        assert!(bucket.take(500, start));
        assert!(!bucket.take(1, start - Duration::from_secs(5)));
    }

    #[test]
    fn the_meter_shows_the_last_whole_second() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.count(700, start);
        assert_eq!(meter.bytes_per_s(start), 0);
        assert_eq!(meter.bytes_per_s(start + SECOND), 700);
        assert_eq!(meter.bytes_per_s(start + 2 * SECOND), 0);
        meter.count(5, start + 2 * SECOND);
        assert_eq!(meter.bytes_per_s(start + 60 * SECOND), 0);
    }
}
