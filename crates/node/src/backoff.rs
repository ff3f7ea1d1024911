//! How long to wait before the next try: exponential, with full jitter, so that nodes that failed together do not come back together.

use std::time::Duration;

/// Waiting times between failed tries. The caller brings the randomness.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits up to `first` after the first failure, twice as long after each further one, and never longer than `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The time to wait after one more failure: anything between nothing and the bound, as `random` says.
    pub fn after_failure(&mut self, random: u64) -> Duration {
        let bound = self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        share_of(bound, random)
    }

    /// Forgets the failures.
    pub fn after_success(&mut self) {
        self.failures = 0;
    }
}

/// The part of `whole` that `random` is of the largest number.
pub(crate) fn share_of(whole: Duration, random: u64) -> Duration {
    let nanos = whole.as_nanos().min(u128::from(u64::MAX)) * u128::from(random) / u128::from(u64::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_most() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<u64> = (0..6).map(|_| backoff.after_failure(u64::MAX).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        backoff.after_success();
        assert_eq!(backoff.after_failure(u64::MAX).as_secs(), 1);
    }

    #[test]
    fn the_jitter_is_full() {
        let mut backoff = Backoff::new(Duration::from_secs(8), Duration::from_secs(8));
        assert_eq!(backoff.after_failure(0), Duration::ZERO);
        assert_eq!(backoff.after_failure(u64::MAX / 2).as_secs(), 3);
    }

    #[test]
    fn any_number_of_failures_is_survived() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        for _ in 0..100 {
            backoff.after_failure(u64::MAX);
        }
    }
}
