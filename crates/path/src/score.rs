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
/// Probes that tell whether a path loses too much to be used, how many of their fates must be known, and how many lost ones are too many.
/// At a tenth of loss each way eight of sixteen happen once in two hundred times; at half a loss, nine times in ten.
const RECENT: u32 = 16;
const RECENT_SAMPLES_MIN: u32 = 12;
const RECENT_LOST_MAX: u32 = 7;
/// How much less another way must lose, as a share of probes, to be better for its loss.
const LOSS_MARGIN: f64 = 0.25;
/// Share of lost probes up to which a path that recovers is well.
const WELL_LOSS: f64 = 0.2;
/// What a path through a virtual private network costs more: it leads through somebody else's server, and its round trip changes.
const VPN_COST_MS: f64 = 50.0;
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

    /// Whether so many of the last probes were lost that speech by this way is hard to follow.
    pub(crate) fn is_lossy(&self) -> bool {
        self.samples >= RECENT_SAMPLES_MIN && self.recent_lost() > RECENT_LOST_MAX
    }

    /// Whether this way clearly loses less than `other`.
    pub(crate) fn loses_less_than(&self, other: &Self) -> bool {
        self.samples >= LOSS_SAMPLES_MIN && self.recent_loss() + LOSS_MARGIN < other.recent_loss()
    }

    /// Whether the losses of the last probes are few.
    pub(crate) fn is_well(&self) -> bool {
        self.recent_loss() <= WELL_LOSS
    }

    fn recent_lost(&self) -> u32 {
        (self.lost & ((1 << RECENT) - 1)).count_ones()
    }

    fn recent_loss(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { f64::from(self.recent_lost()) / f64::from(self.samples.min(RECENT)) }
    }

    fn loss(&self) -> f64 {
        if self.samples < LOSS_SAMPLES_MIN { 0.0 } else { f64::from(self.lost.count_ones()) / f64::from(self.samples) }
    }
}

/// Where an address of the peer is, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a network that one of this device's interfaces is in.
    OnLink,
    /// Somewhere.
    Elsewhere,
    /// In a virtual private network.
    BehindVpn,
}

/// Place of a path in the order of paths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    on_link: bool,
    cost_ms: f64,
}

impl Score {
    pub(crate) fn new(remote: SocketAddr, place: Place, quality: &Quality) -> Self {
        let rtt = quality.rtt().unwrap_or(LATE_MAX);
        let bonus = if remote.is_ipv6() { IPV6_BONUS_MS } else { 0.0 };
        let (on_link, extra) = match place {
            Place::OnLink => (true, 0.0),
            Place::Elsewhere => (false, 0.0),
            Place::BehindVpn => (false, VPN_COST_MS),
        };
        Self { on_link, cost_ms: rtt.as_secs_f64() * 1000.0 + LOSS_WEIGHT_MS * quality.loss() + extra - bonus }
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
        let place = if on_link { Place::OnLink } else { Place::Elsewhere };
        Score::new(address.parse().expect("address"), place, &quality)
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
    fn a_private_network_ranks_below_a_path_of_a_similar_round_trip() {
        let mut quality = Quality::default();
        quality.answered(Duration::from_millis(20));
        let vpn = Score::new(V4.parse().expect("address"), Place::BehindVpn, &quality);
        assert!(score(V4, false, 40, 0).clearly_beats(&vpn));
        assert!(vpn.beats(&score(V4, false, 90, 0)));
    }

    #[test]
    fn a_path_that_loses_half_is_lossy_and_one_that_loses_a_little_is_not() {
        let lossy_with = |lost: u32| {
            let mut quality = Quality::default();
            (0..16).for_each(|nth| quality.count(nth < lost));
            quality
        };
        assert!(lossy_with(8).is_lossy() && !lossy_with(7).is_lossy());
        assert!(lossy_with(1).loses_less_than(&lossy_with(8)) && !lossy_with(5).loses_less_than(&lossy_with(8)));
        assert!(lossy_with(3).is_well() && !lossy_with(4).is_well());
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
