//! How often a call's ways are asked, in proportion to what the call itself sends.
//!
//! On a link that carries sixteen kilobits a second, ten probes a second are a third of it. So what is asked steadily gets a share of the
//! call's own rate, and what is asked in haste draws on a purse that fills slowly, whatever reasons for haste there are.

use crate::budget::{Budget, Rate};
use std::time::{Duration, Instant};

/// Over how long the call's rate is measured, and how much of what was known before goes into it; less where it falls, since a call that sends
/// less has a reason, and probes are not to fill what it has left.
const MEASURED_OVER: Duration = Duration::from_millis(500);
const KEPT: f64 = 0.85;
const KEPT_OF_MORE: f64 = 0.25;
/// A probe and its answer on the wire, in bits: 34 and 52 bytes, IPv4 and UDP headers, and a relay's header for some.
const EXCHANGE_BITS: f64 = 8.0 * (34.0 + 52.0 + 2.0 * 33.0);
/// Share of the call's rate that steady probes of the way in use may take, the answers to the peer's included. Half as much each is for ways
/// that stand by.
const SHARE: f64 = 0.05;
/// Share that probes in haste may take while there is something in the purse.
const HASTY_SHARE: f64 = 0.4;
/// Share of the call's rate that all its probes together may take, steady or in haste, once it goes directly; what they may take at once, as
/// time of the call's own packets, and as probes; and a rate that a call in a pause is taken to have.
const ALL_SHARE: f64 = 0.28;
const ALL_AT_ONCE_S: f64 = 0.25;
const ALL_AT_ONCE_MIN: f64 = 8.0 * EXCHANGE_BITS;
const RATE_MIN: f64 = 8_000.0;
/// The rate counts for no less than this share of what it was in the seconds before, since speech pauses.
const PAUSE_SHARE: f64 = 0.3;
/// For how long after the call became direct, and after its network changed, probes are as many as are wished.
const SETTLING: Duration = Duration::from_secs(1);
const NEW_NETWORK: Duration = Duration::from_secs(5);
/// Bounds of the wait for a probe that there was no room for.
const WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
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

/// What a probe is for: the less it matters, the more room there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// The way that the call takes.
    Carrying,
    /// One that would take its place.
    StandBy,
    /// One that may come to be of use.
    Search,
}

impl Use {
    /// Probes that there must be room for besides.
    fn reserve(self) -> f64 {
        match self {
            // What the two lose is compared, so neither may be asked at the other's expense.
            Self::Carrying | Self::StandBy => 0.0,
            Self::Search => 4.0,
        }
    }
}

/// The call's rate, and what follows from it.
#[derive(Debug)]
pub(crate) struct Thrift {
    since: Instant,
    bytes: usize,
    bits_per_s: Option<f64>,
    /// The newest measurement alone.
    latest_bits_per_s: f64,
    purse: Budget,
    /// From when on all probes together are bounded; `None`: the call does not go directly.
    bounded_from: Option<Instant>,
    /// Bits of probes that there was room for, and when.
    room: (f64, Instant),
    /// How much longer than usual an answer took, and when it came.
    queue: (Duration, Instant),
}

impl Thrift {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            bits_per_s: None,
            latest_bits_per_s: 0.0,
            purse: Budget::new(now, Rate::HASTE),
            bounded_from: None,
            room: (ALL_AT_ONCE_MIN, now),
            queue: (Duration::ZERO, now),
        }
    }

    /// The call sent a packet of so many bytes.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize) {
        self.bytes += bytes;
        let time = now.saturating_duration_since(self.since);
        if time >= MEASURED_OVER {
            let bits_per_s = self.bytes as f64 * 8.0 / time.as_secs_f64();
            self.bits_per_s = Some(self.bits_per_s.map_or(bits_per_s, |known| {
                let kept = if bits_per_s < known { KEPT_OF_MORE } else { KEPT };
                known * kept + bits_per_s * (1.0 - kept)
            }));
            self.latest_bits_per_s = bits_per_s;
            (self.since, self.bytes) = (now, 0);
        }
    }

    /// Whether the call goes directly.
    pub(crate) fn goes_directly(&mut self, now: Instant, is_direct: bool) {
        self.bounded_from = is_direct.then(|| self.bounded_from.unwrap_or(now + SETTLING));
    }

    /// This device's network is another.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        self.bounded_from = Some(now + NEW_NETWORK);
    }

    /// How long a probe has to wait until there is room for it; `None`: there is.
    pub(crate) fn wait(&self, now: Instant, what: Use) -> Option<Duration> {
        let per_s = self.rate().filter(|_| self.bounded_from.is_some_and(|from| from <= now))? * ALL_SHARE;
        let short = (1.0 + what.reserve()) * EXCHANGE_BITS - self.room_at(now);
        (short > 0.0).then(|| Duration::from_secs_f64(short / per_s).clamp(WAIT.0, WAIT.1))
    }

    /// A probe goes out.
    pub(crate) fn probed(&mut self, now: Instant) {
        self.room = ((self.room_at(now) - EXCHANGE_BITS).max(0.0), now);
    }

    fn room_at(&self, now: Instant) -> f64 {
        let (room, at) = self.room;
        let Some(rate) = self.rate() else { return ALL_AT_ONCE_MIN };
        let gained = rate * ALL_SHARE * now.saturating_duration_since(at).as_secs_f64();
        (room + gained).min(ALL_AT_ONCE_MIN.max(rate * ALL_AT_ONCE_S))
    }

    /// The rate of which probes may take a share.
    fn rate(&self) -> Option<f64> {
        self.bits_per_s.map(|known| self.latest_bits_per_s.min(known).max(known * PAUSE_SHARE).max(RATE_MIN))
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

    /// Probes of each second in ten, while as many are wished as may be.
    fn probes_of(thrift: &mut Thrift, start: Instant, what: Use) -> Vec<u32> {
        let mut seconds = vec![0; 10];
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            if thrift.wait(now, what).is_none() {
                thrift.probed(now);
                seconds[usize::try_from(ms / 1000).expect("few")] += 1;
            }
        }
        seconds
    }

    #[test]
    fn all_probes_of_a_direct_call_take_a_good_quarter_of_it_at_most() {
        for rate in [12_000, 24_000, 60_000] {
            let mut thrift = at_rate(rate);
            let start = thrift.since;
            thrift.goes_directly(start, true);
            assert_eq!(thrift.wait(start + SETTLING / 2, Use::Search), None, "while it settles");
            let seconds = probes_of(&mut thrift, start + SETTLING, Use::Carrying);
            let quarter = rate as f64 * ALL_SHARE / EXCHANGE_BITS;
            let at_once = (ALL_AT_ONCE_MIN / EXCHANGE_BITS).max(quarter);
            assert!(f64::from(seconds[0]) <= at_once + quarter, "{seconds:?} at {rate}");
            assert!(seconds[1..].iter().all(|probes| f64::from(*probes) <= quarter + 1.0), "{seconds:?} at {rate}");
            assert!(seconds[1..].iter().all(|probes| *probes > 0), "{seconds:?} at {rate}");
        }
    }

    #[test]
    fn the_way_in_use_is_asked_when_there_is_no_room_for_a_search() {
        let mut thrift = at_rate(24_000);
        let start = thrift.since + SETTLING;
        thrift.goes_directly(thrift.since, true);
        while thrift.wait(start, Use::Search).is_none() {
            thrift.probed(start);
        }
        assert_eq!((thrift.wait(start, Use::StandBy), thrift.wait(start, Use::Carrying)), (None, None));
    }

    #[test]
    fn without_a_direct_way_and_in_a_new_network_probes_are_as_many_as_are_wished() {
        let mut thrift = at_rate(12_000);
        let start = thrift.since + SETTLING;
        assert!(probes_of(&mut thrift, start, Use::Search).iter().all(|probes| *probes == 1000));
        thrift.goes_directly(thrift.since, true);
        assert!(thrift.wait(start + Duration::from_millis(9_999), Use::Search).is_some());
        thrift.network_changed(start);
        assert_eq!(thrift.wait(start + NEW_NETWORK / 2, Use::Search), None);
    }

    #[test]
    fn a_call_that_comes_to_send_less_leaves_less_room_within_seconds() {
        let mut thrift = at_rate(60_000);
        let start = thrift.since;
        thrift.goes_directly(start, true);
        (1..=20).for_each(|nth| thrift.sent(start + Duration::from_millis(100 * nth), 12_000 / 80));
        assert!(thrift.rate().is_some_and(|rate| rate <= 15_000.0), "{:?}", thrift.rate());
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
