//! Chance for jitter, from a seed. Nothing secret is made from it.

use std::time::Duration;

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `base`, doubled `attempt` times, [`BACK_OFF_MAX`](crate::BACK_OFF_MAX) at most, and up to a fifth more, so that devices do not act in step.
    pub(crate) fn back_off(&mut self, base: Duration, attempt: u32) -> Duration {
        let wait = base.saturating_mul(1 << attempt.min(16)).min(crate::BACK_OFF_MAX);
        let fifth_ms = u64::try_from(wait.as_millis() / 5).unwrap_or(u64::MAX);
        wait + Duration::from_millis(self.next() % (fifth_ms + 1))
    }
}
