//! How often a call's ways are asked, in proportion to what the call itself sends.
//!
//! On a link that carries sixteen kilobits a second, ten probes a second are a third of it. So what is asked steadily gets a share of the
//! call's own rate, and what is asked in haste draws on a purse that fills slowly, whatever reasons for haste there are.

use crate::budget::{Budget, Rate};
use std::time::{Duration, Instant};

/// Over how long the call's rate is measured, and how much of what was known before goes into it.
const MEASURED_OVER: Duration = Duration::from_secs(1);
const KEPT: f64 = 0.75;
/// A probe and its answer on the wire, in bits: 34 and 52 bytes, IPv4 and UDP headers, and a relay's header for some.
const EXCHANGE_BITS: f64 = 8.0 * (34.0 + 52.0 + 2.0 * 33.0);
/// Share of the call's rate that steady probes of the way in use may take, the answers to the peer's included. Half as much each is for ways
/// that stand by.
const SHARE: f64 = 0.05;
/// Share that probes in haste may take while there is something in the purse.
const HASTY_SHARE: f64 = 0.4;
/// Where probes share a thin link with voice, an answer waits behind a packet of it each way.
const PACKET_BITS: f64 = 1500.0;
const SLACK_MAX: Duration = Duration::from_millis(250);
/// An answer that stood in a queue tells of one for so long: all ways share this device's line.
const QUEUE_REMEMBERED: Duration = Duration::from_secs(8);
/// Bounds of the pause between steady probes of the way in use, and of one that stands by.
const IN_USE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
const STANDING_BY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(6));
/// Of the pause between hasty ones, beside what is asked for.
const HASTY_MAX: Duration = Duration::from_millis(400);

/// The call's rate, and what follows from it.
#[derive(Debug)]
pub(crate) struct Thrift {
    since: Instant,
    bytes: usize,
    bits_per_s: Option<f64>,
    purse: Budget,
    /// How much longer than usual an answer took, and when it came.
    queue: (Duration, Instant),
}

impl Thrift {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, bits_per_s: None, purse: Budget::new(now, Rate::HASTE), queue: (Duration::ZERO, now) }
    }

    /// The call sent a packet of so many bytes.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize) {
        self.bytes += bytes;
        let time = now.saturating_duration_since(self.since);
        if time >= MEASURED_OVER {
            let bits_per_s = self.bytes as f64 * 8.0 / time.as_secs_f64();
            self.bits_per_s = Some(self.bits_per_s.map_or(bits_per_s, |known| known * KEPT + bits_per_s * (1.0 - KEPT)));
            (self.since, self.bytes) = (now, 0);
        }
    }

    /// Between steady probes of the way in use.
    pub(crate) fn in_use(&self) -> Duration {
        self.time_of(EXCHANGE_BITS, SHARE).clamp(IN_USE.0, IN_USE.1)
    }

    /// Between steady probes of a way that stands by.
    pub(crate) fn standing_by(&self) -> Duration {
        self.time_of(EXCHANGE_BITS, SHARE / 2.0).clamp(STANDING_BY.0, STANDING_BY.1)
    }

    /// Between probes in haste, of which `wished` is the pause where nothing is short; `None`: the purse is empty.
    pub(crate) fn hasty(&self, now: Instant, wished: Duration) -> Option<Duration> {
        (!self.purse.is_spent(now)).then(|| wished.max(self.time_of(EXCHANGE_BITS, HASTY_SHARE).min(HASTY_MAX)))
    }

    /// A probe in haste goes out.
    pub(crate) fn spend(&mut self, now: Instant) {
        self.purse.take(now);
    }

    /// An answer came so much later than usual by some way.
    pub(crate) fn answered(&mut self, now: Instant, delay: Duration) {
        if delay >= self.queue(now) {
            self.queue = (delay, now);
        }
    }

    /// How much later than usual an answer may come: packets of the call go before it, and more where there is a queue.
    pub(crate) fn slack(&self, now: Instant) -> Duration {
        self.time_of(PACKET_BITS, 1.0).min(SLACK_MAX).max(self.queue(now))
    }

    /// How much longer than usual an answer took of late.
    pub(crate) fn queue(&self, now: Instant) -> Duration {
        let (queue, at) = self.queue;
        if now.saturating_duration_since(at) < QUEUE_REMEMBERED { queue } else { Duration::ZERO }
    }

    /// How long that share of the call's rate takes for so many bits; no time while nothing is known.
    fn time_of(&self, bits: f64, share: f64) -> Duration {
        /// Less than any call sends.
        const BITS_PER_S_MIN: f64 = 100.0;
        self.bits_per_s.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bits / (rate.max(BITS_PER_S_MIN) * share)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_rate(bits_per_s: usize) -> Thrift {
        let start = Instant::now();
        let mut thrift = Thrift::new(start);
        (1..=100).for_each(|nth| thrift.sent(start + Duration::from_millis(100 * nth), bits_per_s / 80));
        thrift
    }

    #[test]
    fn steady_probes_take_little_of_a_thin_call_and_the_usual_pace_of_another() {
        for rate in [12_000, 24_000] {
            let thrift = at_rate(rate);
            let asked = EXCHANGE_BITS / thrift.in_use().as_secs_f64() + EXCHANGE_BITS / thrift.standing_by().as_secs_f64();
            assert!(asked <= rate as f64 * 0.08, "{asked} of {rate}");
        }
        let rich = at_rate(200_000);
        assert_eq!((rich.in_use(), rich.standing_by()), (IN_USE.0, STANDING_BY.0));
        let unknown = Thrift::new(Instant::now());
        assert_eq!((unknown.in_use(), unknown.standing_by()), (IN_USE.0, STANDING_BY.0));
    }

    #[test]
    fn an_answer_that_stood_in_a_queue_gives_others_time() {
        let start = Instant::now();
        let mut thrift = Thrift::new(start);
        thrift.answered(start, Duration::from_millis(900));
        thrift.answered(start + Duration::from_secs(1), Duration::from_millis(100));
        assert_eq!(thrift.slack(start + Duration::from_secs(2)), Duration::from_millis(900));
        assert_eq!(thrift.slack(start + QUEUE_REMEMBERED), Duration::ZERO);
    }

    #[test]
    fn haste_ends_with_the_purse() {
        let start = Instant::now();
        let mut thrift = at_rate(12_000);
        let wished = Duration::from_millis(60);
        assert!(thrift.hasty(start, wished).is_some_and(|pause| pause > wished));
        let mut now = start;
        let mut sent = 0;
        while now < start + Duration::from_secs(10) {
            now += match thrift.hasty(now, wished) {
                Some(pause) => {
                    thrift.spend(now);
                    sent += 1;
                    pause
                }
                None => Duration::from_millis(50),
            };
        }
        assert!(sent <= Rate::HASTE.burst + 10 * Rate::HASTE.per_second, "{sent}");
    }
}
