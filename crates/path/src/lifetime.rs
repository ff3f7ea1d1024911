//! How long a router keeps a mapping, where it counts from the first packet and not from the last.
//!
//! Some carriers' routers drop every mapping at a fixed age, however busy it is. It shows in the address that the peer sees this device's
//! packets come from: it changes, and later changes again after about the same time. Once that has been seen, a fresh socket can take
//! over shortly before the next time.

use std::time::Duration;

/// Ages that count as a rule: below are routers that restart or map at random, above is nothing that a call waits for.
const AGE_MIN: Duration = Duration::from_secs(10);
const AGE_MAX: Duration = Duration::from_secs(900);
/// By how much two ages may differ and be the same: a change is noticed at the next PING.
const AGE_TOLERANCE: Duration = Duration::from_secs(3);

/// What is known of the age that mappings reach.
#[derive(Debug, Default)]
pub(crate) struct Lifetime {
    last: Option<Duration>,
    expected: Option<Duration>,
}

impl Lifetime {
    /// A mapping came to an end at this age.
    pub(crate) fn ended(&mut self, age: Duration) {
        let last = self.last.replace(age);
        let is_rule = |last: &Duration| (AGE_MIN..=AGE_MAX).contains(&age) && last.abs_diff(age) <= AGE_TOLERANCE.max(age / 8);
        self.expected = last.filter(is_rule).map(|last| last.min(age));
    }

    /// The age at which the next mapping ends, if there is a rule.
    pub(crate) fn expected(&self) -> Option<Duration> {
        self.expected
    }

    /// Forgets the rule, as in another network.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected_after(ages_s: &[u64]) -> Option<u64> {
        let mut lifetime = Lifetime::default();
        ages_s.iter().for_each(|age| lifetime.ended(Duration::from_secs(*age)));
        lifetime.expected().map(|age| age.as_secs())
    }

    #[test]
    fn two_ends_at_a_similar_age_are_a_rule() {
        assert_eq!(expected_after(&[60]), None);
        assert_eq!(expected_after(&[7, 60, 61]), Some(60));
        assert_eq!(expected_after(&[60, 61, 30]), None);
        assert_eq!(expected_after(&[2, 2]), None);
        assert_eq!(expected_after(&[5000, 5000]), None);
    }
}
