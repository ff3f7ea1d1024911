//! How good a path is, and when another is enough better to move to it.
//!
//! On-link beats direct; within a tier the lower cost wins: smoothed round trip, plus 200 ms times the share of lost probes, minus a little
//! for IPv6, whose way has no router that forgets. A path in use is left only for one that is better by a margin, since moving back and forth
//! costs more than a few milliseconds bring.

use crate::tally::Tally;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

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
/// How many standard errors of their loss two direct paths of one tier must be apart in cost.
const COST_ERRORS: f64 = 2.0;
/// Share of lost probes up to which a path that recovers is well.
const WELL_LOSS: f64 = 0.2;
/// Losses without which a way is not known to lose.
const KNOWN_LOST_MIN: u32 = 3;
/// Losses, and the share of probes, from which on losses are usual on a way.
const USUAL_LOST_MIN: u32 = 2;
const USUAL_LOSS: f64 = 0.05;
/// Probes lost in a row say nothing about a way that loses nearly all of them anyway; beyond this share they are taken to.
const LOSS_KNOWN_MAX: f64 = 0.8;
/// What a path through a virtual private network costs more: it leads through somebody else's server, and its round trip changes.
const VPN_COST_MS: f64 = 50.0;
/// Bounds of the time after which an answer is late, and the time while no round trip is known.
const LATE_MIN: Duration = Duration::from_millis(100);
const LATE_MAX: Duration = Duration::from_millis(2500);
const LATE_UNKNOWN: Duration = Duration::from_millis(500);
/// Added to the smoothed round trip at least: a device answers no faster than its radio wakes up.
pub(crate) const LATE_SLACK: Duration = Duration::from_millis(40);

/// How seldom chance alone, at the loss that a way showed before, loses so many probes in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odds {
    /// Once in twenty times: worth a closer look.
    Odd,
    /// Once in ten thousand: worth a doubt.
    Sign,
    /// Once in a hundred thousand: the way is dead.
    Dead,
}

impl Odds {
    fn chance(self) -> f64 {
        match self {
            Self::Odd => 0.05,
            Self::Sign => 1e-4,
            Self::Dead => 1e-5,
        }
    }
}

/// Smoothed round trip (RFC 6298) and the fate of the last 64 probes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quality {
    round_trip: Option<RoundTrip>,
    /// The last one in the lowest bit; set: lost.
    lost: u64,
    samples: u32,
    tally: Tally,
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
    pub(crate) fn count(&mut self, now: Instant, lost: bool) {
        self.tally.count(now, lost);
        self.lost = self.lost << 1 | u64::from(lost);
        self.samples = (self.samples + 1).min(u64::BITS);
    }

    /// A probe that was counted as lost was answered after all: it stood in a queue.
    pub(crate) fn was_late(&mut self) {
        self.lost &= self.lost.wrapping_sub(1);
        self.tally.was_late();
    }

    /// Forgets losses: those of an address that did not answer yet say nothing about it.
    pub(crate) fn forget_losses(&mut self) {
        (self.lost, self.samples) = (0, 0);
    }

    /// Forgets the losses since the last answer: those of a dead path say nothing about it once it lives again, other than those before.
    pub(crate) fn forget_death(&mut self) {
        (self.lost, self.samples) = self.before_death();
    }

    /// Probes whose fate is known, at most 64.
    pub(crate) fn samples(&self) -> u32 {
        self.samples
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        Some(self.round_trip?.smoothed)
    }

    /// After how long an answer is late. `slack` is added to the round trip at least.
    pub(crate) fn late_after(&self, slack: Duration) -> Duration {
        match self.round_trip {
            None => LATE_UNKNOWN,
            Some(RoundTrip { smoothed, variation }) => (smoothed + (variation * 4).max(slack).max(LATE_SLACK)).clamp(LATE_MIN, LATE_MAX),
        }
    }

    /// Whether `missed` probes lost in a row, and no fewer than `least`, are more than the losses before them explain. On a way that loses
    /// every third probe three in a row are nothing; on one that lost none of late they are a sign.
    pub(crate) fn is_beyond_chance(&self, missed: u32, least: u32, odds: Odds) -> bool {
        let loss = self.loss_before();
        missed >= least && (loss == 0.0 || f64::from(missed) * loss.ln() <= odds.chance().ln())
    }

    /// Whether the probes before those that are missing were lost so often that losses are nothing to wonder at.
    pub(crate) fn is_known_to_lose(&self) -> bool {
        self.before_death().0.count_ones() >= KNOWN_LOST_MIN && self.loss_before() > WELL_LOSS
    }

    /// Whether the way loses some now and then: what is missing on it is rather lost than a sign of its death.
    pub(crate) fn is_used_to_losses(&self) -> bool {
        let (lost, samples) = self.before_death();
        lost.count_ones() >= USUAL_LOST_MIN && f64::from(lost.count_ones()) > USUAL_LOSS * f64::from(samples)
    }

    /// Whether so many of the last probes were lost that speech by this way is hard to follow.
    pub(crate) fn is_lossy(&self) -> bool {
        self.samples >= RECENT_SAMPLES_MIN && self.lost_of(RECENT) > RECENT_LOST_MAX
    }

    /// Whether this way clearly lost less than `other` in the same time, so that chance does not explain it.
    pub(crate) fn loses_less_than(&self, now: Instant, other: &Self) -> bool {
        self.tally.lost_less_than(now, &other.tally)
    }

    /// Whether the losses of the last probes are few, or no more than those of the ways that there are else.
    pub(crate) fn is_well(&self, tolerated: f64) -> bool {
        self.recent_loss() <= WELL_LOSS.max(tolerated)
    }

    /// Share of the last probes that were lost.
    pub(crate) fn recent_loss(&self) -> f64 {
        self.share_of(RECENT).0
    }

    /// The fates, and how many are known, without the losses since the last answer.
    fn before_death(&self) -> (u64, u32) {
        let run = self.lost.trailing_ones().min(self.samples);
        (self.lost.checked_shr(run).unwrap_or(0), self.samples - run)
    }

    fn lost_of(&self, last: u32) -> u32 {
        ones(self.lost, last)
    }

    /// The share lost of the last so many probes, and its standard error, which is never taken for nothing.
    fn share_of(&self, last: u32) -> (f64, f64) {
        let known = self.samples.min(last);
        if known == 0 {
            return (0.0, 1.0);
        }
        let (lost, known) = (f64::from(self.lost_of(known)), f64::from(known));
        let likely = (lost + 1.0) / (known + 2.0);
        (lost / known, (likely * (1.0 - likely) / known).sqrt())
    }

    /// The share lost of what was sent before the probes that are missing now, lately or in the longer run, whichever is more. A little
    /// more than was seen, unless nothing was: that few were counted is no proof that the way is good.
    fn loss_before(&self) -> f64 {
        let (lost, samples) = self.before_death();
        let share = |last: u32| {
            let known = samples.min(last);
            if known == 0 { 0.0 } else { f64::from(ones(lost, known) + 1) / f64::from(known + 2) }
        };
        if lost == 0 { 0.0 } else { share(RECENT).max(share(u64::BITS)).min(LOSS_KNOWN_MAX) }
    }

    fn loss(&self) -> (f64, f64) {
        if self.samples < LOSS_SAMPLES_MIN { (0.0, 0.0) } else { self.share_of(u32::BITS) }
    }
}

/// How many of the last so many fates are losses.
fn ones(fates: u64, last: u32) -> u32 {
    (fates & (u64::MAX >> (u64::BITS - last.clamp(1, u64::BITS)))).count_ones()
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
    /// How far chance may have made the cost what it is.
    error_ms: f64,
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
        let (loss, error) = quality.loss();
        let cost_ms = rtt.as_secs_f64() * 1000.0 + LOSS_WEIGHT_MS * loss + extra - bonus;
        // Where nothing was lost, the round trip decides.
        let error_ms = if loss == 0.0 { 0.0 } else { LOSS_WEIGHT_MS * error };
        Self { on_link, cost_ms, error_ms }
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
        let margin_ms = MARGIN_MS.max(MARGIN_SHARE * current.cost_ms).max(COST_ERRORS * self.error_ms.hypot(current.error_ms));
        self.on_link == current.on_link && self.cost_ms + margin_ms < current.cost_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(address: &str, on_link: bool, rtt_ms: u64, lost_of_20: u32) -> Score {
        let mut quality = Quality::default();
        quality.answered(Duration::from_millis(rtt_ms));
        (0..20).for_each(|nth| quality.count(Instant::now(), nth < lost_of_20));
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
            (0..16).for_each(|nth| quality.count(Instant::now(), nth < lost));
            quality
        };
        assert!(lossy_with(8).is_lossy() && !lossy_with(7).is_lossy());
        assert!(lossy_with(3).is_well(0.0) && !lossy_with(4).is_well(0.0) && lossy_with(4).is_well(0.3));
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
        assert_eq!(quality.late_after(Duration::ZERO), LATE_UNKNOWN);
        (0..50).for_each(|_| quality.answered(Duration::from_millis(1)));
        assert_eq!(quality.late_after(Duration::ZERO), LATE_MIN);
        (0..50).for_each(|_| quality.answered(Duration::from_millis(300)));
        assert!((300..500).contains(&quality.late_after(Duration::ZERO).as_millis()));
        (0..50).for_each(|_| quality.answered(Duration::from_secs(3600)));
        assert_eq!(quality.late_after(Duration::ZERO), LATE_MAX);
    }

    /// `lost` of `of` probes are lost, evenly, and the last is answered.
    fn losing(lost: u32, of: u32) -> Quality {
        let mut quality = Quality::default();
        (1..=64).for_each(|nth| quality.count(Instant::now(), nth * lost / of != (nth - 1) * lost / of && nth < 64));
        quality.count(Instant::now(), false);
        quality
    }

    #[test]
    fn losses_in_a_row_tell_the_less_the_more_were_lost_before() {
        let needed =
            |quality: Quality, odds| (1..100).find(|missed| quality.is_beyond_chance(*missed, 3, odds)).expect("there is a number");
        assert_eq!(needed(losing(0, 1), Odds::Sign), 3);
        let [few, many, most] = [losing(1, 10), losing(1, 2), losing(3, 4)].map(|quality| needed(quality, Odds::Sign));
        assert!((4..=7).contains(&few) && (12..=18).contains(&many) && (25..=45).contains(&most), "{few}, {many}, {most}");
        assert!(needed(losing(3, 4), Odds::Odd) < most && most < needed(losing(3, 4), Odds::Dead));
    }

    #[test]
    fn losses_of_a_death_are_forgotten_and_those_before_it_are_not() {
        let mut quality = losing(1, 2);
        let before = quality.loss_before();
        (0..20).for_each(|_| quality.count(Instant::now(), true));
        assert!((quality.loss_before() - before).abs() < 0.1);
        quality.forget_death();
        assert!(quality.recent_loss() < 0.7);
        (0..64).for_each(|_| quality.count(Instant::now(), true));
        quality.forget_death();
        assert_eq!((quality.samples(), quality.loss_before()), (0, 0.0));
    }

    #[test]
    fn an_answer_that_was_late_is_none_that_was_lost() {
        let mut quality = Quality::default();
        [false, true, true].into_iter().for_each(|lost| quality.count(Instant::now(), lost));
        quality.was_late();
        assert_eq!(quality.lost_of(3), 1);
    }

    #[test]
    fn losses_are_forgotten_on_demand_and_count_for_64_probes() {
        let mut quality = Quality::default();
        (0..100).for_each(|_| quality.count(Instant::now(), true));
        assert_eq!((quality.samples(), quality.loss().0), (64, 1.0));
        quality.forget_losses();
        assert_eq!((quality.samples(), quality.loss().0), (0, 0.0));
    }
}
