//! Who has asked too often: token buckets, one or a bounded table of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// In the long run, times a second.
    pub per_s: f64,
    /// At once, after a pause.
    pub burst: u32,
}

/// Counts what may still happen.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst), filled: now }
    }

    /// Takes one, or says how long until there is one.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64((1.0 - self.tokens) / self.rate.per_s).unwrap_or(Duration::MAX))
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate.per_s).min(f64::from(self.rate.burst));
        self.filled = self.filled.max(now);
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= f64::from(self.rate.burst)
    }
}

/// A bucket for each of many keys. Full buckets are forgotten when room is needed, for they say nothing; when none is full,
/// a key that has no bucket is refused until one is.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    len_max: usize,
    buckets: BTreeMap<K, TokenBucket>,
    swept: Option<Instant>,
}

/// How often a full table is searched for buckets to forget: a search looks at all of them.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

impl<K: Ord> Buckets<K> {
    /// An empty table of at most `len_max` buckets.
    #[must_use]
    pub fn new(rate: Rate, len_max: usize) -> Self {
        Self { rate, len_max, buckets: BTreeMap::new(), swept: None }
    }

    /// Takes one of the key's, or says how long until there is one.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.take(now);
        }
        if self.buckets.len() >= self.len_max {
            self.sweep(now);
        }
        if self.buckets.len() >= self.len_max {
            return Err(SWEEP_INTERVAL);
        }
        self.buckets.entry(key).or_insert(TokenBucket::new(self.rate, now)).take(now)
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 2.0, burst: 3 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(RATE, start);
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(start + Duration::from_millis(500)), Ok(()));
        assert!(bucket.take(start + Duration::from_millis(500)).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(Rate { per_s: 1.0, burst: 1 }, start);
        assert!(bucket.take(start).is_ok());
        assert!(bucket.take(start - Duration::from_secs(5)).is_err());
        assert!(bucket.take(start).is_err());
    }

    #[test]
    fn keys_do_not_share() {
        let now = Instant::now();
        let mut buckets = Buckets::new(Rate { per_s: 1.0, burst: 1 }, 10);
        assert!(buckets.take("alice", now).is_ok());
        assert!(buckets.take("bob", now).is_ok());
        assert!(buckets.take("alice", now).is_err());
    }

    #[test]
    fn the_table_stays_bounded_and_forgets_only_who_is_idle() {
        let now = Instant::now();
        let mut buckets = Buckets::new(Rate { per_s: 1.0, burst: 1 }, 2);
        assert!(buckets.take(1, now).is_ok());
        assert!(buckets.take(2, now).is_ok());
        assert!(buckets.take(3, now).is_err(), "nobody is idle");
        let later = now + Duration::from_secs(2);
        assert!(buckets.take(3, later).is_ok());
        assert!(buckets.buckets.len() <= 2);
    }
}
