//! How many packets may be sent in a second, whatever happens: a token bucket.

use std::time::{Duration, Instant};

/// Tokens that gather while nothing is sent: the first burst to all candidates.
const BURST: u32 = 64;
/// Tokens of a second. All 32 addresses may be probed in each of the four steps of a burst; voice never needs this.
const PER_SECOND: u32 = 96;
/// Most that one bucket gives out within any second.
pub(crate) const IN_ANY_SECOND_MAX: usize = (BURST + PER_SECOND) as usize;

const TOKEN: Duration = Duration::from_nanos(1_000_000_000 / PER_SECOND as u64);

/// A token bucket, kept as the time at which it would be full: no fractions, no rounding.
#[derive(Debug)]
pub(crate) struct Budget {
    full_at: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Whether there is no token.
    pub(crate) fn is_spent(&self, now: Instant) -> bool {
        self.full_at.max(now) + TOKEN > now + TOKEN * BURST
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.is_spent(now) {
            return false;
        }
        self.full_at = self.full_at.max(now) + TOKEN;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_gets_more_than_its_share() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let given: Vec<u64> = (0..5000).filter(|ms| budget.take(start + Duration::from_millis(*ms))).collect();
        for from in 0..4000 {
            let within = given.iter().filter(|ms| (from..from + 1000).contains(*ms)).count();
            assert!(within <= IN_ANY_SECOND_MAX, "{within} in the second from {from} ms on");
        }
        assert!(given.len() >= 4 * PER_SECOND as usize);
    }
}
