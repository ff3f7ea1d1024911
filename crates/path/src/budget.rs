//! How many packets may be sent in a second, whatever happens: a token bucket.

use std::time::{Duration, Instant};

/// What one bucket gives out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens that gather while nothing is sent.
    pub(crate) burst: u32,
    /// Tokens of a second.
    pub(crate) per_second: u32,
}

impl Rate {
    /// For PINGs to addresses: the first burst goes to all candidates, and all 32 addresses may be probed in each of the four steps of a
    /// search; voice never needs this. The same for PONGs.
    pub(crate) const PROBES: Self = Self { burst: 64, per_second: 96 };
    /// For PINGs through legs, at most ten a second through each, so that no search keeps a leg's death from being noticed.
    pub(crate) const LEGS: Self = Self { burst: 8, per_second: 24 };
    /// For guesses: 100 ports a second on one side, 256 sockets within two seconds on the other.
    pub(crate) const GUESSES: Self = Self { burst: 16, per_second: 144 };

    /// For PINGs to addresses that never answered, within those above: what the peer can have sent to strangers, a search on each of its
    /// addresses at first and then 34 bytes a second.
    pub(crate) const STRANGERS: Self = Self { burst: 512, per_second: 1 };

    /// For PINGs in haste, to a way that is in doubt or looked at closely, within those above: a doubt of two seconds and a comparison of three ways, and then
    /// what steady probes would take too. However much is lost, probes do not fill the line.
    pub(crate) const HASTE: Self = Self { burst: 64, per_second: 1 };

    /// For PINGs at once to addresses just learned, within those above. More than a few are a chase that leads nowhere.
    pub(crate) const LEARNED: Self = Self { burst: 8, per_second: 2 };

    /// Most that one bucket gives out within any second.
    pub(crate) const fn in_any_second_max(self) -> usize {
        (self.burst + self.per_second) as usize
    }

    fn token(self) -> Duration {
        Duration::from_nanos(1_000_000_000 / u64::from(self.per_second))
    }
}

/// A token bucket, kept as the time at which it would be full: no fractions, no rounding.
#[derive(Debug)]
pub(crate) struct Budget {
    rate: Rate,
    full_at: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant, rate: Rate) -> Self {
        Self { rate, full_at: now }
    }

    /// Whether there is no token.
    pub(crate) fn is_spent(&self, now: Instant) -> bool {
        self.full_at.max(now) + self.rate.token() > now + self.rate.token() * self.rate.burst
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.is_spent(now) {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.rate.token();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_gets_more_than_its_share() {
        for rate in [Rate::PROBES, Rate::LEGS, Rate::GUESSES, Rate::STRANGERS, Rate::LEARNED, Rate::HASTE] {
            let start = Instant::now();
            let mut budget = Budget::new(start, rate);
            let given: Vec<u64> = (0..5000).filter(|ms| budget.take(start + Duration::from_millis(*ms))).collect();
            for from in 0..4000 {
                let within = given.iter().filter(|ms| (from..from + 1000).contains(*ms)).count();
                assert!(within <= rate.in_any_second_max(), "{within} in the second from {from} ms on");
            }
            assert!(given.len() >= 4 * rate.per_second as usize);
        }
    }
}
