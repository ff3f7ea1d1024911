//! When the way to a leg's relay is looked at: because the leg is silent, or because it goes through a tunnel. Decides only.
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

/// First and longest wait before a leg through a tunnel is tried over UDP: a relay that began anew is there by the first, and a network that
/// blocks UDP is asked some packets in minutes.
const RETURN_FIRST: Duration = Duration::from_secs(5);
const RETURN_MOST: Duration = Duration::from_secs(300);

/// When a leg that came to run through a tunnel is tried over UDP again: voice over TCP waits for what was lost.
#[derive(Debug, Default)]
pub(super) struct ReturnPace {
    due: Option<Instant>,
    wait: Duration,
}

impl ReturnPace {
    /// The leg runs through a tunnel.
    pub(super) fn handle_tunnelled(&mut self, now: Instant) {
        if self.due.is_none() {
            (self.wait, self.due) = (RETURN_FIRST, Some(now + RETURN_FIRST));
        }
    }

    /// The leg runs over UDP, or is no more.
    pub(super) fn handle_over(&mut self) {
        self.due = None;
    }

    /// The network is another: UDP may get out of it.
    pub(super) fn handle_network_change(&mut self, now: Instant) {
        if self.due.is_some() {
            (self.wait, self.due) = (RETURN_FIRST, Some(now));
        }
    }

    /// When the leg is tried next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// True if the leg is to be tried now; the next time is twice as far.
    #[must_use]
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.wait = (self.wait * 2).min(RETURN_MOST);
            self.due = Some(now + self.wait);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_tried_over_udp_soon_and_then_ever_more_rarely() {
        let (mut pace, begin) = (ReturnPace::default(), Instant::now());
        assert!(!pace.handle_timeout(begin));
        pace.handle_tunnelled(begin);
        let mut tried = Vec::new();
        while tried.len() < 12 {
            let due = pace.poll_timeout().expect("it is tried for as long as the call lasts");
            assert!(!pace.handle_timeout(due - Duration::from_millis(1)) && pace.handle_timeout(due));
            pace.handle_tunnelled(due);
            tried.push((due - begin).as_secs());
        }
        assert_eq!(tried[..4], [5, 15, 35, 75]);
        assert_eq!(tried[11] - tried[10], RETURN_MOST.as_secs());
    }

    #[test]
    fn another_network_is_tried_at_once_and_a_leg_over_udp_never() {
        let (mut pace, now) = (ReturnPace::default(), Instant::now());
        pace.handle_network_change(now);
        assert_eq!(pace.poll_timeout(), None);
        pace.handle_tunnelled(now);
        pace.handle_network_change(now);
        assert!(pace.handle_timeout(now));
        pace.handle_over();
        assert_eq!(pace.poll_timeout(), None);
    }

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
