//! How long callbacks take: a histogram that counting costs a few nanoseconds, and that reading does not disturb.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four to each doubling, from a microsecond to 131 ms.
const BUCKETS: usize = 64;

/// Written by one callback.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    max_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), max_us: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub(crate) fn add(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> CallbackTimes {
        let buckets = std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed));
        CallbackTimes { buckets, max_us: self.max_us.load(Ordering::Relaxed) }
    }
}

/// How long the calls of a callback took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackTimes {
    buckets: [u64; BUCKETS],
    max_us: u64,
}

impl Default for CallbackTimes {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], max_us: 0 }
    }
}

impl CallbackTimes {
    /// How many calls there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    /// What this part of the calls (0.999, say) did not exceed, rounded up to a quarter of an octave.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count() as f64 * part).ceil() as u64;
        let mut count = 0;
        for (index, calls) in self.buckets.iter().enumerate() {
            count += calls;
            if count >= wanted && count > 0 {
                return Duration::from_micros(bound(index)).min(self.max());
            }
        }
        Duration::ZERO
    }

    /// Those of another device, or of the same one opened anew, beside these.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.max_us = self.max_us.max(other.max_us);
    }
}

fn bucket(us: u64) -> usize {
    if us < 4 {
        return us as usize;
    }
    let octave = us.ilog2() as usize;
    let quarter = (us >> (octave - 2)) as usize & 3;
    ((octave - 1) * 4 + quarter).min(BUCKETS - 1)
}

/// The least duration, in microseconds, that is too long for a bucket.
fn bound(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64 + 1;
    }
    (4 + bucket as u64 % 4 + 1) << (bucket / 4 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_below_the_bound_of_its_bucket_and_not_below_the_one_before() {
        for us in 0..131_072 {
            let bucket = bucket(us);
            assert!(us < bound(bucket) && (bucket == 0 || us >= bound(bucket - 1)), "{us}");
        }
    }

    #[test]
    fn one_slow_call_in_a_thousand_is_told_apart() {
        let histogram = Histogram::default();
        for _ in 0..9_990 {
            histogram.add(Duration::from_micros(9));
        }
        for _ in 0..10 {
            histogram.add(Duration::from_micros(3_000));
        }
        let times = histogram.read();
        assert_eq!((times.count(), times.max()), (10_000, Duration::from_millis(3)));
        assert_eq!(times.quantile(0.999), Duration::from_micros(10));
        assert_eq!(times.quantile(0.9999), Duration::from_millis(3));
    }
}
