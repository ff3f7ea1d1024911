//! The round trip of the path itself: what is measured holds the queues too, which come and go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A path that has become longer without anybody having said so is believed after this.
const WINDOW: Duration = Duration::from_secs(10);
/// Measurements that can be the least from now on; rising, and so few.
const KEPT_MAX: usize = 64;
/// Round trips are believed up to here.
const RTT_MAX: Duration = Duration::from_secs(5);

/// The least of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    /// Each later and greater than the one before.
    rising: VecDeque<(Instant, Duration)>,
}

impl RoundTrip {
    /// What is measured of a path at `now`.
    pub(crate) fn handle(&mut self, now: Instant, rtt: Duration) {
        let rtt = rtt.min(RTT_MAX);
        while self.rising.back().is_some_and(|(_, last)| *last >= rtt) || self.rising.len() >= KEPT_MAX {
            self.rising.pop_back();
        }
        self.rising.push_back((now, rtt));
        while self.rising.len() > 1 && self.rising.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.rising.pop_front();
        }
    }

    /// Another path.
    pub(crate) fn clear(&mut self) {
        self.rising.clear();
    }

    /// The least there was lately; `None` before the first.
    pub(crate) fn least(&self) -> Option<Duration> {
        self.rising.front().map(|(_, rtt)| *rtt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_does_not_make_a_path_longer_until_it_has_lasted() {
        let (mut round_trip, start) = (RoundTrip::default(), Instant::now());
        let mut least = |s: u64, ms: u64| {
            round_trip.handle(start + Duration::from_secs(s), Duration::from_millis(ms));
            round_trip.least().map(|rtt| rtt.as_millis())
        };
        assert_eq!([least(0, 80), least(1, 50), least(2, 900), least(5, 700)], [Some(80), Some(50), Some(50), Some(50)]);
        assert_eq!([least(12, 800), least(13, 60)], [Some(700), Some(60)]);
    }
}
