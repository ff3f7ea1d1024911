//! When the way to a leg's relay is looked at. Decides only.
//!
//! A look costs a small packet where the relay answers, and an attempt at a tunnel where it does not. Each change of the network allows one
//! at once, and so does silence, as long as looks find something out; those that do not are followed by growing rests.

use ahoy_resilience::Backoff;
use std::time::{Duration, Instant};

/// First and longest rest after a look that found no way to the relay, on top of [`REST_MIN`]: a link that comes and goes does not load relays.
const REST_FIRST: Duration = Duration::from_secs(1);
const REST_MOST: Duration = Duration::from_secs(30);
/// A rest has no jitter below this.
const REST_MIN: Duration = Duration::from_millis(500);

/// The looks at one leg's way.
#[derive(Debug)]
pub(super) struct Pace {
    backoff: Backoff,
    not_before: Option<Instant>,
    is_looking: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { backoff: Backoff::new(REST_FIRST, REST_MOST), not_before: None, is_looking: false }
    }
}

impl Pace {
    /// Nothing comes through the leg. True if its way is to be looked at now.
    #[must_use]
    pub(super) fn handle_silence(&mut self, now: Instant) -> bool {
        let begins = !self.is_looking && self.not_before.is_none_or(|not_before| not_before <= now);
        self.is_looking |= begins;
        begins
    }

    /// The network is another: a look that goes on is one at the network before, and is to begin anew.
    pub(super) fn handle_network_change(&mut self) {
        self.is_looking = true;
        self.not_before = None;
    }

    /// A look has ended; `found`: a way is open, over UDP or through a tunnel.
    pub(super) fn handle_end(&mut self, now: Instant, found: bool, random: u64) {
        self.is_looking = false;
        self.not_before = if found {
            self.backoff.after_success();
            None
        } else {
            Some(now + REST_MIN + self.backoff.after_failure(random))
        };
    }

    /// The leg is another, or is no more.
    pub(super) fn handle_given_up(&mut self) {
        self.is_looking = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_that_goes_on_is_looked_at_once_at_a_time() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(pace.handle_silence(now) && !pace.handle_silence(now));
        pace.handle_end(now, true, 0);
        assert!(pace.handle_silence(now));
    }

    #[test]
    fn looks_that_find_nothing_become_rare() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let mut looks = 0;
        for ms in (0..600_000).step_by(100) {
            let now = begin + Duration::from_millis(ms);
            if pace.handle_silence(now) {
                looks += 1;
                pace.handle_end(now, false, u64::MAX);
            }
        }
        assert!((5..=25).contains(&looks), "{looks} in ten minutes");
    }

    #[test]
    fn another_network_is_looked_at_whatever_was_found_in_the_last() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(pace.handle_silence(now));
        pace.handle_end(now, false, u64::MAX);
        assert!(!pace.handle_silence(now));
        pace.handle_network_change();
        assert!(!pace.handle_silence(now), "it is looked at already");
        pace.handle_end(now, true, 0);
        assert!(pace.handle_silence(now));
    }
}
