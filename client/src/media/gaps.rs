//! The longest time without a voice packet: what an outage is to the ear.

use std::time::{Duration, Instant};

/// Watches packets come.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    last: Option<Instant>,
    longest: Duration,
}

impl Gaps {
    pub(super) fn handle_packet(&mut self, at: Instant) {
        if let Some(last) = self.last {
            self.longest = self.longest.max(at.saturating_duration_since(last));
        }
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    /// The longest one since this was asked last, with the one that goes on.
    pub(super) fn take_longest(&mut self, now: Instant) -> Duration {
        let open = self.last.map(|last| now.saturating_duration_since(last)).unwrap_or_default();
        std::mem::take(&mut self.longest).max(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_told_once_and_one_that_goes_on_each_time() {
        let (mut gaps, start) = (Gaps::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(gaps.take_longest(at(500)), Duration::ZERO);
        for ms in [1_000, 1_020, 1_300, 1_320] {
            gaps.handle_packet(at(ms));
        }
        assert_eq!(gaps.take_longest(at(1_330)), Duration::from_millis(280));
        assert_eq!(gaps.take_longest(at(1_340)), Duration::from_millis(20));
        assert_eq!(gaps.take_longest(at(3_320)), Duration::from_millis(2_000));
    }
}
