//! How good a path is, and when another is enough better to move to it.
//!
//! On-link beats direct; within a tier the lower cost wins: smoothed round trip, plus 200 ms times the share of lost probes, minus a little
//! for IPv6, whose way has no router that forgets. A path in use is left only for one that is better by a margin, since moving back and forth
//! costs more than a few milliseconds bring.

use std::net::SocketAddr;
use std::time::Duration;

/// What losing every probe adds to the cost. One percent of loss then weighs as much as 2 ms.
const LOSS_WEIGHT_MS: f64 = 200.0;
/// What IPv6 takes off the cost.
const IPV6_BONUS_MS: f64 = 3.0;
/// The least margin by which another path must be better.
const MARGIN_MS: f64 = 10.0;
/// The same as a share of the cost of the path in use.
const MARGIN_SHARE: f64 = 0.15;
/// Probes without which a share of lost ones says nothing.
const LOSS_SAMPLES_MIN: u32 = 8;
/// Bounds of the time after which an answer is late, and the time while no round trip is known.
const LATE_MIN: Duration = Duration::from_millis(100);
const LATE_MAX: Duration = Duration::from_secs(1);
const LATE_UNKNOWN: Duration = Duration::from_millis(500);
/// Added to the smoothed round trip at least: a device answers no faster than its radio wakes up.
const LATE_SLACK: Duration = Duration::from_millis(40);

/// Smoothed round trip (RFC 6298) and the fate of the last 32 probes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quality {
    round_trip: Option<RoundTrip>,
    lost: u32,
    samples: u32,
}

#[derive(Debug, Clone, Copy)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl Quality {
    /// A PONG came after `rtt`.
    pub(crate) fn answered(&mut self, rtt: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => RoundTrip { smoothed: rtt, variation: rtt / 2 },
            Some(RoundTrip { smoothed, variation }) => {
                RoundTrip { smoothed: smoothed * 7 / 8 + rtt / 8, variation: variation * 3 / 4 + smoothed.abs_diff(rtt) / 4 }
            }
        });
    }

    /// A probe was answered in time, or was not.
    pub(crate) fn count(&mut self, lost: bool) {
        self.lost = self.lost << 1 | u32::from(lost);
        self.samples = (self.samples + 1).min(u32::BITS);
    }

    /// Forgets losses: those of a dead path say nothing about it once it lives again.
    pub(crate) fn forget_losses(&mut self) {
        (self.lost, self.samples) = (0, 0);
    }

    /// Probes whose fate is known, at most 32.
    pub(crate) fn samples(&self) -> u32 {
        self.samples
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        Some(self.round_trip?.smoothed)
    }

    /// After how long an answer is late.
    pub(crate) fn late_after(&self) -> Duration {
        match self.round_trip {
            None => LATE_UNKNOWN,
            Some(RoundTrip { smoothed, variation }) => (smoothed + (variation * 4).max(LATE_SLACK)).clamp(LATE_MIN, LATE_MAX),
        }
    }

    fn loss(&self) -> f64 {
        if self.samples < LOSS_SAMPLES_MIN { 0.0 } else { f64::from(self.lost.count_ones()) / f64::from(self.samples) }
    }
}

/// Place of a path in the order of paths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    on_link: bool,
    cost_ms: f64,
}

impl Score {
    pub(crate) fn new(address: SocketAddr, on_link: bool, quality: &Quality) -> Self {
        let rtt = quality.rtt().unwrap_or(LATE_MAX);
        let bonus = if address.is_ipv6() { IPV6_BONUS_MS } else { 0.0 };
        Self { on_link, cost_ms: rtt.as_secs_f64() * 1000.0 + LOSS_WEIGHT_MS * quality.loss() - bonus }
    }

    /// Whether this is before `other` in the order.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        match (self.on_link, other.on_link) {
            (true, false) => true,
            (false, true) => false,
            (true, true) | (false, false) => self.cost_ms < other.cost_ms,
        }
    }

    /// Whether this is of a better tier than `other`, which no margin holds back.
    pub(crate) fn outranks(&self, other: &Self) -> bool {
        self.on_link && !other.on_link
    }

    /// Whether this is of the same tier and better than `current` by the margin.
    pub(crate) fn clearly_beats(&self, current: &Self) -> bool {
        let margin_ms = MARGIN_MS.max(MARGIN_SHARE * current.cost_ms);
        self.on_link == current.on_link && self.cost_ms + margin_ms < current.cost_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(address: &str, on_link: bool, rtt_ms: u64, lost_of_20: u32) -> Score {
        let mut quality = Quality::default();
        quality.answered(Duration::from_millis(rtt_ms));
        (0..20).for_each(|nth| quality.count(nth < lost_of_20));
        Score::new(address.parse().expect("address"), on_link, &quality)
    }

    const V4: &str = "192.0.2.1:9";
    const V6: &str = "[2001:db8::1]:9";

    #[test]
    fn on_link_beats_any_direct_path() {
        let (lan, direct) = (score(V4, true, 80, 2), score(V4, false, 5, 0));
        assert!(lan.beats(&direct) && lan.outranks(&direct));
        assert!(!direct.beats(&lan) && !direct.outranks(&lan) && !direct.clearly_beats(&lan));
    }

    #[test]
    fn within_a_tier_round_trip_and_loss_decide() {
        assert!(score(V4, false, 30, 0).beats(&score(V4, false, 40, 0)));
        assert!(score(V4, false, 40, 0).beats(&score(V4, false, 30, 2)));
        assert!(score(V6, false, 40, 0).beats(&score(V4, false, 38, 0)));
    }

    #[test]
    fn a_small_advantage_moves_nothing() {
        assert!(!score(V4, false, 91, 0).clearly_beats(&score(V4, false, 100, 0)));
        assert!(!score(V4, false, 180, 0).clearly_beats(&score(V4, false, 200, 0)));
        assert!(score(V4, false, 80, 0).clearly_beats(&score(V4, false, 100, 0)));
    }

    #[test]
    fn answers_are_late_by_what_the_path_showed() {
        let mut quality = Quality::default();
        assert_eq!(quality.late_after(), LATE_UNKNOWN);
        (0..50).for_each(|_| quality.answered(Duration::from_millis(1)));
        assert_eq!(quality.late_after(), LATE_MIN);
        (0..50).for_each(|_| quality.answered(Duration::from_millis(300)));
        assert!((300..500).contains(&quality.late_after().as_millis()));
        (0..50).for_each(|_| quality.answered(Duration::from_secs(3600)));
        assert_eq!(quality.late_after(), LATE_MAX);
    }

    #[test]
    fn losses_are_forgotten_on_demand_and_count_for_32_probes() {
        let mut quality = Quality::default();
        (0..100).for_each(|_| quality.count(true));
        assert_eq!((quality.samples(), quality.loss()), (32, 1.0));
        quality.forget_losses();
        assert_eq!((quality.samples(), quality.loss()), (0, 0.0));
    }
}
