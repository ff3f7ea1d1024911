//! How long to wait for packets.
//!
//! Each frame that comes, by itself or as a copy, is an observation of its *transit*: when it came less when it was
//! captured, on clocks that need not agree. Sound is played at a fixed transit, and frames of a longer one are late. A
//! longer wait costs delay, late frames cost quality; the estimator seeks the transit at which
//! `delay + weight × percent late` is least over the last seconds. Lost frames that a copy repairs are thereby waited for
//! if that pays.
//!
//! A frame can only be taken when sound is asked for, so of all waits only those a whole number of pulls apart can be
//! had: [`DelayEstimator::goal_ms`] chooses among these.

use std::collections::VecDeque;

/// How far back observations count. Shorter forgets the last burst before the next; longer keeps the delay of a
/// network that has become better.
const WINDOW_MS: f64 = 12_000.0;

/// Most observations kept: the window full of frames of 10 ms.
const OBSERVATIONS_MAX: usize = 1200;

/// Steps of the target, in milliseconds.
const STEP_MS: f64 = 2.5;

/// What one percent of late frames is worth, in milliseconds of delay.
const LATE_PERCENT_MS: f64 = 20.0;

/// The same for frames that only a copy brings. A late packet is an accident; frames that were lost on the way go on being
/// lost, and the sender pays for their copies. At this weight second copies are waited for from about 6 % of random loss on.
const LOST_PERCENT_MS: f64 = 60.0;

/// When so many percent of all frames come as copies only, the sender's copies are waited for: what is lost at this rate goes
/// on being lost, and a target that falls between two losses has to rise again in the middle of a word.
const REPAIRED_PERCENT_MIN: usize = 3;

/// Copies that are waited for on that ground. A third is waited for when it pays.
const COPIES_AWAITED: usize = 2;

/// How long the start holds the target up, in milliseconds: it comes down evenly, while what was observed takes over.
const START_PERIOD_MS: f64 = 2_000.0;

/// When all frames of this long were faster than nearly any before, or slower, the network has become another one.
const ANOTHER_AFTER_MS: f64 = 1_500.0;

/// Not fewer frames than these say so.
const ANOTHER_FRAMES_MIN: usize = 20;

/// Nor does a network that is slower by less than this: a queue on the way may have filled, and will empty.
const SLOWER_MS: f64 = 20.0;

/// A second packet that comes later than this after the first is not waited for at the start.
const SECOND_PACKET_MS: f64 = 40.0;

/// Longest wait above the fastest frame's. Beyond this no conversation is possible.
const TARGET_MAX_MS: f64 = 800.0;

/// A shorter wait must cost so much less than the present one: more than one late frame of 20 ms in the window does, so
/// that one more or less changes nothing.
const LOWER_GAIN_MS: f64 = 4.0;

/// A longer wait must cost so much less.
const RAISE_GAIN_MS: f64 = 2.0;

/// The bounds of the target delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DelaySettings {
    /// Where the target starts, in milliseconds above the fastest frame.
    pub start_ms: f64,
    /// What it never falls below.
    pub floor_ms: f64,
}

impl Default for DelaySettings {
    /// 20 ms to start with, a frame's worth of ignorance that is gone after two seconds. The floor is one step: what a
    /// machine and its network need above that is observed.
    fn default() -> Self {
        Self { start_ms: 20.0, floor_ms: STEP_MS }
    }
}

#[derive(Debug, Clone, Copy)]
struct Observation {
    at_ms: f64,
    transit_ms: f64,
    is_copy: bool,
}

impl Observation {
    /// What a percent of such frames costs when they are late.
    fn percent_ms(self) -> f64 {
        if self.is_copy { LOST_PERCENT_MS } else { LATE_PERCENT_MS }
    }
}

/// A transit, and what it costs to play at it, but for the wait: frames of longer ones are late.
#[derive(Debug, Clone, Copy)]
struct Ranked {
    transit_ms: f64,
    late_cost_ms: f64,
}

/// Finds the best transit to play at.
#[derive(Debug)]
pub(crate) struct DelayEstimator {
    settings: DelaySettings,
    /// Where the target starts, with the copies that the sender began with.
    start_ms: f64,
    /// What the copies of the newest packet reach back, as far as they are waited for.
    copies_ms: f64,
    window: VecDeque<Observation>,
    /// The window by transit, as of the last evaluation.
    ranked: Vec<Ranked>,
    /// When the oldest observation since the last restart was made.
    since_ms: f64,
    fastest_ms: f64,
    floor_ms: f64,
    target_ms: f64,
}

impl DelayEstimator {
    pub(crate) fn new(settings: DelaySettings) -> Self {
        Self {
            settings,
            start_ms: settings.start_ms,
            copies_ms: 0.0,
            window: VecDeque::new(),
            ranked: Vec::new(),
            since_ms: 0.0,
            fastest_ms: 0.0,
            floor_ms: settings.start_ms,
            target_ms: settings.start_ms,
        }
    }

    /// Takes the transit of a frame that came for the first time.
    pub(crate) fn observe(&mut self, at_ms: f64, transit_ms: f64, is_copy: bool) {
        if self.window.is_empty() {
            self.begin(at_ms, transit_ms);
        }
        if self.window.len() == OBSERVATIONS_MAX {
            self.window.pop_front();
        }
        self.window.push_back(Observation { at_ms, transit_ms, is_copy });
        // A faster frame counts at once, so that the target stays above the same moment.
        if transit_ms < self.fastest_ms {
            self.target_ms = (self.target_ms + self.fastest_ms - transit_ms).min(TARGET_MAX_MS);
            self.fastest_ms = transit_ms;
        }
    }

    fn begin(&mut self, at_ms: f64, fastest_ms: f64) {
        self.ranked.clear();
        self.since_ms = at_ms;
        self.fastest_ms = fastest_ms;
        self.floor_ms = self.start_ms;
        self.target_ms = self.start_ms;
    }

    /// Forgets what was observed before `at_ms`: the network has become another.
    pub(crate) fn restart(&mut self, at_ms: f64) {
        self.window.retain(|observation| observation.at_ms >= at_ms);
        let fastest_ms = self.window.iter().map(|observation| observation.transit_ms).reduce(f64::min);
        self.begin(at_ms, fastest_ms.unwrap_or(0.0));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.window.clear();
        self.ranked.clear();
        self.start_ms = self.settings.start_ms;
    }

    /// A packet came of a frame as long, with as many copies.
    pub(crate) fn observe_copies(&mut self, frame_ms: f64, copies: usize) {
        self.copies_ms = frame_ms * copies.min(COPIES_AWAITED) as f64;
    }

    /// Nothing is played yet, and the newest packet is of a frame as long. At the start the second packet is waited for, which
    /// tells of copies; and the copies are: their sender knows of losses, and a start that leaves time for them needs no
    /// stretching later.
    pub(crate) fn expect(&mut self, at_ms: f64, frame_ms: f64) {
        if at_ms - self.since_ms > START_PERIOD_MS / 10.0 {
            return;
        }
        self.start_ms = self.start_ms.max(frame_ms.min(SECOND_PACKET_MS).max(self.copies_ms) + STEP_MS);
        self.floor_ms = self.start_ms;
        self.target_ms = self.target_ms.max(self.start_ms);
    }

    /// Seeks the target anew.
    pub(crate) fn evaluate(&mut self, now_ms: f64) {
        while self.window.len() > 1 && self.window.front().is_some_and(|oldest| now_ms - oldest.at_ms > WINDOW_MS) {
            self.window.pop_front();
        }
        if self.window.is_empty() {
            return;
        }
        if self.has_become_another(now_ms) {
            self.restart(now_ms - ANOTHER_AFTER_MS);
        }
        self.rank();
        self.fastest_ms = self.ranked[0].transit_ms;
        let rest = (1.0 - (now_ms - self.since_ms) / START_PERIOD_MS).clamp(0.0, 1.0);
        self.floor_ms = (self.start_ms * rest).max(self.settings.floor_ms);
        if self.are_copies_needed() {
            self.floor_ms = self.floor_ms.max(self.copies_ms + STEP_MS);
        }
        self.target_ms = self.cheapest();
    }

    fn are_copies_needed(&self) -> bool {
        let repaired = self.window.iter().filter(|observation| observation.is_copy).count();
        repaired * 100 >= REPAIRED_PERCENT_MIN * self.window.len()
    }

    fn has_become_another(&self, now_ms: f64) -> bool {
        let recent = self.window.partition_point(|observation| observation.at_ms < now_ms - ANOTHER_AFTER_MS);
        if recent == 0 || self.window.len() - recent < ANOTHER_FRAMES_MIN {
            return false;
        }
        let transits = |range: std::ops::Range<usize>| self.window.range(range).map(|observation| observation.transit_ms);
        let (fastest_ms, slowest_ms) = transits(recent..self.window.len())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(fastest, slowest), transit| (fastest.min(transit), slowest.max(transit)));
        // While the network changes, frames of the old and of the new one come side by side.
        let is_rare = |unlike: &dyn Fn(f64) -> bool| transits(0..recent).filter(|transit| !unlike(*transit)).count() <= recent / 10;
        is_rare(&|before_ms| before_ms > slowest_ms + STEP_MS) || is_rare(&|before_ms| before_ms + SLOWER_MS < fastest_ms)
    }

    fn rank(&mut self) {
        let each = 100.0 / self.window.len() as f64;
        self.ranked.clear();
        let ranked = self.window.iter().map(|one| Ranked { transit_ms: one.transit_ms, late_cost_ms: one.percent_ms() * each });
        self.ranked.extend(ranked);
        self.ranked.sort_unstable_by(|one, other| one.transit_ms.total_cmp(&other.transit_ms));
        let mut later_ms = 0.0;
        for one in self.ranked.iter_mut().rev() {
            // What was there is its own cost; what is wanted, that of all behind it.
            let own_ms = std::mem::replace(&mut one.late_cost_ms, later_ms);
            later_ms += own_ms;
        }
    }

    /// The wait above the fastest frame that costs least.
    fn cheapest(&self) -> f64 {
        let mut best = (f64::INFINITY, self.floor_ms);
        for one in &self.ranked {
            let wait_ms = (((one.transit_ms - self.fastest_ms) / STEP_MS).ceil() * STEP_MS).clamp(self.floor_ms, TARGET_MAX_MS);
            let cost_ms = wait_ms + one.late_cost_ms;
            // At the same wait the later of two has fewer late frames behind it.
            if cost_ms < best.0 {
                best = (cost_ms, wait_ms);
            }
        }
        best.1
    }

    /// What playing at a transit costs.
    fn cost_ms(&self, transit_ms: f64) -> f64 {
        let wait_ms = transit_ms - self.fastest_ms;
        if wait_ms < self.floor_ms {
            // No such wait is wanted; the nearer to the floor the better.
            return TARGET_MAX_MS * 100.0 - wait_ms;
        }
        let in_time = self.ranked.partition_point(|one| one.transit_ms <= transit_ms);
        wait_ms + in_time.checked_sub(1).map_or(0.0, |last| self.ranked[last].late_cost_ms)
    }

    /// The transit to play at, of those that are a whole number of `step_ms` from `taking_ms`, the present one; and how
    /// much less it costs.
    pub(crate) fn goal_ms(&self, taking_ms: f64, step_ms: f64) -> (f64, f64) {
        let above = taking_ms + ((self.transit_ms() - taking_ms) / step_ms).ceil() * step_ms;
        let (below_cost, above_cost) = (self.cost_ms(above - step_ms), self.cost_ms(above));
        let (goal_ms, cost_ms) = if below_cost < above_cost { (above - step_ms, below_cost) } else { (above, above_cost) };
        let gain_ms = self.cost_ms(taking_ms) - cost_ms;
        let gain_min = if goal_ms < taking_ms { LOWER_GAIN_MS } else { RAISE_GAIN_MS };
        if gain_ms < gain_min { (taking_ms, 0.0) } else { (goal_ms, gain_ms) }
    }

    /// The slowest frame's transit of those that came since `at_ms`.
    pub(crate) fn slowest_since_ms(&self, at_ms: f64) -> f64 {
        let recent = self.window.iter().rev().take_while(|observation| observation.at_ms >= at_ms);
        recent.map(|observation| observation.transit_ms).fold(f64::NEG_INFINITY, f64::max)
    }

    /// The transit to play at, if any can be had.
    pub(crate) fn transit_ms(&self) -> f64 {
        self.fastest_ms + self.target_ms
    }

    /// The wait above the fastest frame.
    pub(crate) fn target_ms(&self) -> f64 {
        self.target_ms
    }

    /// The fastest frame's transit.
    pub(crate) fn fastest_ms(&self) -> f64 {
        self.fastest_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimator(transits: impl Iterator<Item = (f64, bool)>) -> DelayEstimator {
        let mut estimator = DelayEstimator::new(DelaySettings::default());
        let mut at_ms = 0.0;
        for (transit, is_copy) in transits {
            estimator.observe(at_ms, 1_000.0 + transit, is_copy);
            at_ms += 20.0;
        }
        estimator.evaluate(at_ms);
        estimator
    }

    fn estimate(transits: impl Iterator<Item = f64>) -> f64 {
        estimator(transits.map(|transit| (transit, false))).target_ms()
    }

    fn spikes(every: usize, height: f64) -> impl Iterator<Item = f64> {
        (0..600).map(move |index| if index % every == 0 { height } else { 0.0 })
    }

    #[test]
    fn a_quiet_network_is_played_at_the_floor_after_the_start() {
        assert!((estimate((0..50).map(|_| 0.0)) - 10.0).abs() < 1e-9);
        assert!((estimate((0..300).map(|_| 0.0)) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn rare_spikes_are_let_go_and_frequent_ones_waited_for() {
        assert!(estimate(spikes(150, 60.0)) < 10.0, "0.7 % late cost 13 ms, waiting costs 60");
        assert!((estimate(spikes(20, 60.0)) - 60.0).abs() < 1e-9, "5 % late cost 100 ms");
    }

    #[test]
    fn copies_of_lost_frames_are_waited_for_when_that_pays() {
        // Each 20th frame comes with the next packet; some with the one after that.
        let transits = |second: usize| {
            (0..600).map(move |index| match index {
                _ if index % second == 0 => (40.0, true),
                _ if index % 20 == 1 => (20.0, true),
                _ => (0.0, false),
            })
        };
        assert!((estimator(transits(100)).target_ms() - 40.0).abs() < 1e-9, "1 % of all for 20 ms");
        assert!((estimator(transits(300)).target_ms() - 20.0).abs() < 1e-9, "a third of that is not worth it");
    }

    #[test]
    fn at_a_lasting_loss_all_copies_are_waited_for_even_while_none_of_the_second_ones_was_needed() {
        let mut estimator = estimator((0..600).map(|index| if index % 20 == 0 { (20.0, true) } else { (0.0, false) }));
        estimator.observe_copies(20.0, 2);
        estimator.evaluate(12_000.0);
        assert!((estimator.target_ms() - 42.5).abs() < 1e-9);
        estimator.observe_copies(20.0, 1);
        estimator.evaluate(12_000.0);
        assert!((estimator.target_ms() - 22.5).abs() < 1e-9);
    }

    #[test]
    fn the_goal_is_the_cheaper_of_the_transits_that_can_be_had() {
        let estimator = estimator(spikes(20, 60.0).map(|transit| (transit, false)));
        assert_eq!(estimator.goal_ms(1_003.0, 10.0).0, 1_063.0);
        assert_eq!(estimator.goal_ms(1_083.0, 10.0).0, 1_063.0);
        assert_eq!(estimator.goal_ms(1_063.0, 10.0), (1_063.0, 0.0));
    }

    #[test]
    fn a_single_late_frame_moves_nobody_from_where_he_is() {
        let estimator = estimator(spikes(600, 9.0).map(|transit| (transit, false)));
        assert_eq!(estimator.goal_ms(1_007.0, 5.0).0, 1_007.0);
        assert_eq!(estimator.goal_ms(1_010.0, 5.0).0, 1_010.0, "five milliseconds less for a late frame");
    }

    #[test]
    fn a_network_that_became_faster_is_learned_anew() {
        let transits = (0..600).map(|index| if index < 500 { 200.0 } else { 0.0 });
        let estimator = estimator(transits.map(|transit| (transit, false)));
        assert!((estimator.transit_ms() - 1_000.0).abs() < 20.0);
    }

    #[test]
    fn a_network_that_became_slower_is_learned_anew_and_a_queue_that_fills_is_none() {
        let transits = |more: f64| (0..600).map(move |index| if index < 500 { 0.0 } else { more });
        let target = |more| estimator(transits(more).map(|transit| (transit, false))).target_ms();
        assert!(target(100.0) < 20.0);
        assert!((target(15.0) - 15.0).abs() < 1e-9);
    }

    #[test]
    fn after_a_restart_only_the_observations_since_count() {
        let mut estimator = DelayEstimator::new(DelaySettings::default());
        for step in 0..500 {
            estimator.observe(f64::from(step) * 20.0, if step < 490 { 0.0 } else { 300.0 }, false);
        }
        estimator.restart(9_800.0);
        assert!((estimator.transit_ms() - 320.0).abs() < 1e-9);
    }
}
