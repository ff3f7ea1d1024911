//! When an address that does not answer is probed again: a burst, then each second, then now and then.
//!
//! The burst is for routers: the first PING of each side opens its own router and dies at the other's, so that both are open when the next
//! ones come. The seconds after it are for a peer that was late to start. After that only a change of the network can help.

use std::time::Duration;

/// Pauses after the first PINGs of a burst: they go out at 0, 100, 300 and 700 ms.
const BURST_PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
/// Pause after those.
const STEADY_PAUSE: Duration = Duration::from_secs(1);
/// How often that pause is taken.
const STEADY_STEPS: usize = 10;

/// How far the search on one address is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hunt {
    step: usize,
    is_short: bool,
}

impl Hunt {
    /// The burst alone: for an address that a whole search led nowhere on, or that is asked again whenever it asks.
    pub(crate) fn short() -> Self {
        Self { step: 0, is_short: true }
    }

    /// Whether it is a whole search that is not over.
    pub(crate) fn is_going_on(&self) -> bool {
        !self.is_short && self.step <= BURST_PAUSES.len() + STEADY_STEPS
    }

    /// The pause until the next PING, one having been sent. `None`: the search is over.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        let step = self.step;
        self.step = step.saturating_add(1);
        match BURST_PAUSES.get(step) {
            Some(pause) => Some(*pause),
            None if step < BURST_PAUSES.len() + STEADY_STEPS && !self.is_short => Some(STEADY_PAUSE),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_a_while_and_an_end() {
        let mut hunt = Hunt::default();
        let mut at_ms = vec![0];
        while let Some(pause) = hunt.pause() {
            at_ms.push(at_ms[at_ms.len() - 1] + pause.as_millis());
        }
        assert_eq!(at_ms, [0, 100, 300, 700, 1700, 2700, 3700, 4700, 5700, 6700, 7700, 8700, 9700, 10700]);
        assert_eq!(hunt.pause(), None);
    }

    #[test]
    fn a_short_search_is_the_burst() {
        let mut hunt = Hunt::short();
        assert_eq!(std::iter::from_fn(|| hunt.pause()).collect::<Vec<_>>(), BURST_PAUSES);
    }
}
