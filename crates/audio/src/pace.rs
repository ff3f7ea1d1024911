//! When to look at a device again.

use std::time::{Duration, Instant};

use crate::BlockClock;
use crate::gauge::Gauge;

/// A device that moves nothing for this long is left to itself, and the clock gives the pace, until it does.
pub(crate) const STALL: Duration = Duration::from_millis(100);

/// A callback that is expected has surely run this long after.
const SLACK: Duration = Duration::from_micros(300);

/// How often a device is looked at whose callback is late.
const LATE_POLL: Duration = Duration::from_millis(1);

/// How often one is looked at that does not run, so that it is noticed when it does.
const IDLE_POLL: Duration = Duration::from_millis(10);

/// When the callback will have run with which so many more frames have gone through than so far; the next one, for none.
/// Without a gauge the device does not run.
pub(crate) fn next_wake(now: Instant, running: Option<(&Gauge, u64)>, clock: &BlockClock) -> Instant {
    let Some((gauge, ahead)) = running else { return clock.deadline().clamp(now, now + IDLE_POLL) };
    let expected = gauge.time_of(gauge.frames() + ahead).map_or(now, |at| at + SLACK);
    if expected > now { expected.min(now + IDLE_POLL) } else { now + LATE_POLL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_looked_at_when_its_callback_has_run() {
        let (gauge, now) = (Gauge::new(48_000), Instant::now());
        let clock = BlockClock::new(now);
        gauge.beat(now, 240, 240);
        let period = Duration::from_millis(5);
        assert_eq!(next_wake(now, Some((&gauge, 240)), &clock), now + period + SLACK);
        let late = now + period + SLACK;
        assert_eq!(next_wake(late, Some((&gauge, 240)), &clock), late + LATE_POLL);
        assert_eq!(next_wake(now, None, &BlockClock::new(now + STALL)), now + IDLE_POLL);
    }
}
