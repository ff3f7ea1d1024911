//! What a connection has to show for itself: when it had a leg, and how often it was refused one.

use crate::leg::LegEnd;
use crate::limits::{JOIN_TIMEOUT, LEGLESS_MAX, REFUSALS_PER_CONNECTION_MAX};
use tokio::time::Instant;

/// The standing of one connection.
#[derive(Debug)]
pub(crate) struct Standing {
    unused_until: Instant,
    refusals: u32,
}

impl Standing {
    /// Of a connection that begins.
    pub(crate) fn new(now: Instant) -> Self {
        Self { unused_until: now + LEGLESS_MAX, refusals: 0 }
    }

    /// Until when the connection may stay without a leg.
    pub(crate) fn unused_until(&self) -> Instant {
        self.unused_until
    }

    /// Takes note of a stream's end, or says why the connection has to end with it.
    pub(crate) fn stream_ended(&mut self, end: LegEnd, now: Instant) -> Result<(), &'static str> {
        match end {
            LegEnd::Left => self.unused_until = now + LEGLESS_MAX,
            LegEnd::Refused => {
                self.refusals += 1;
                // Time for the answer to arrive and no more: a refusal is no leg.
                self.unused_until = self.unused_until.max(now + JOIN_TIMEOUT);
            }
            LegEnd::Misbehaved => return Err("not a join"),
        }
        if self.refusals > REFUSALS_PER_CONNECTION_MAX { Err("refused too often") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_leg_gives_the_connection_time_and_a_refusal_does_not() {
        let start = Instant::now();
        let mut standing = Standing::new(start);
        standing.stream_ended(LegEnd::Refused, start + Duration::from_secs(1)).expect("one is nothing");
        assert_eq!(standing.unused_until(), start + LEGLESS_MAX);
        let later = start + Duration::from_secs(3600);
        standing.stream_ended(LegEnd::Left, later).expect("a leg is what it is for");
        assert_eq!(standing.unused_until(), later + LEGLESS_MAX);
    }

    #[test]
    fn an_answer_has_time_to_arrive() {
        let start = Instant::now();
        let mut standing = Standing::new(start);
        standing.stream_ended(LegEnd::Refused, start + LEGLESS_MAX).expect("one is nothing");
        assert_eq!(standing.unused_until(), start + LEGLESS_MAX + JOIN_TIMEOUT);
    }

    #[test]
    fn legs_in_between_do_not_make_refusals_forgotten() {
        let now = Instant::now();
        let mut standing = Standing::new(now);
        for _ in 0..REFUSALS_PER_CONNECTION_MAX {
            standing.stream_ended(LegEnd::Refused, now).expect("not yet");
            standing.stream_ended(LegEnd::Left, now).expect("not yet");
        }
        standing.stream_ended(LegEnd::Refused, now).expect_err("enough");
    }
}
