//! The round trip of the path itself: what is measured holds the queues too, which come and go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A path that has become longer without anybody having said so is believed after this.
const WINDOW: Duration = Duration::from_secs(10);
/// What any path took within this is remembered, whichever is used now.
const ANY_WINDOW: Duration = Duration::from_secs(30);
/// Measurements that can be the least from now on; rising, and so few.
const KEPT_MAX: usize = 64;
/// Round trips are believed up to here.
const RTT_MAX: Duration = Duration::from_secs(5);

/// Measurements that are least from some time on: each later and greater than the one before.
#[derive(Debug, Default)]
struct Rising(VecDeque<(Instant, Duration)>);

impl Rising {
    fn handle(&mut self, now: Instant, rtt: Duration, window: Duration) {
        while self.0.back().is_some_and(|(_, last)| *last >= rtt) || self.0.len() >= KEPT_MAX {
            self.0.pop_back();
        }
        self.0.push_back((now, rtt));
        while self.0.len() > 1 && self.0.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > window) {
            self.0.pop_front();
        }
    }

    fn least(&self) -> Option<Duration> {
        self.0.front().map(|(_, rtt)| *rtt)
    }
}

/// The least of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    of_path: Rising,
    of_any: Rising,
    newest: Duration,
}

impl RoundTrip {
    /// What is measured of a path at `now`.
    pub(crate) fn handle(&mut self, now: Instant, rtt: Duration) {
        self.newest = rtt.min(RTT_MAX);
        self.of_path.handle(now, self.newest, WINDOW);
        self.of_any.handle(now, self.newest, ANY_WINDOW);
    }

    /// Another path.
    pub(crate) fn clear(&mut self) {
        self.of_path = Rising::default();
    }

    /// The least there was lately; `None` before the first.
    pub(crate) fn least(&self) -> Option<Duration> {
        self.of_path.least()
    }

    /// How much longer the newest took than the least of any path lately. A queue on this device's line is in the way of all paths.
    pub(crate) fn excess(&self) -> Duration {
        self.newest.saturating_sub(self.of_any.least().unwrap_or(self.newest))
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

    #[test]
    fn a_queue_that_another_path_has_too_is_seen() {
        let (mut round_trip, start) = (RoundTrip::default(), Instant::now());
        round_trip.handle(start, Duration::from_millis(50));
        round_trip.clear();
        round_trip.handle(start + Duration::from_secs(2), Duration::from_millis(900));
        assert_eq!(round_trip.least(), Some(Duration::from_millis(900)));
        assert_eq!(round_trip.excess(), Duration::from_millis(850));
        round_trip.handle(start + Duration::from_secs(33), Duration::from_millis(900));
        assert_eq!(round_trip.excess(), Duration::ZERO, "it is a long way, then");
    }
}
