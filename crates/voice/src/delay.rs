//! How long to wait for packets.
//!
//! Each frame that comes, by itself or as a copy, is an observation of its *transit*: when it came less when it was
//! captured, on clocks that need not agree. Sound is played at a fixed transit, and frames of a longer one are late. A
//! longer wait costs delay, late frames cost quality; the estimator seeks the transit at which
//! `delay + weight × percent late` is least over the last seconds. Lost frames that a copy repairs are thereby waited for
//! if that pays.

use std::collections::VecDeque;

/// How far back observations count. Shorter forgets the last burst before the next; longer keeps the delay of a
/// network that has become better.
const WINDOW_MS: f64 = 12_000.0;

/// Most observations kept: the window full of frames of 10 ms.
const OBSERVATIONS_MAX: usize = 1200;

/// Steps of the target, in milliseconds.
const STEP_MS: f64 = 2.5;

/// What one percent of late frames is worth, in milliseconds of delay. It is the same whether packets carry copies or
/// not: a frame is only late when no copy of it was in time either.
const LATE_PERCENT_MS: f64 = 20.0;

/// Until the window holds as much, the target does not fall below where it starts: a few seconds show little of a network.
const START_PERIOD_MS: f64 = 4_000.0;

/// Longest wait above the fastest frame's. Beyond this no conversation is possible.
const TARGET_MAX_MS: f64 = 800.0;

/// The bounds of the target delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DelaySettings {
    /// Where the target starts, in milliseconds above the fastest frame.
    pub start_ms: f64,
    /// What it never falls below.
    pub floor_ms: f64,
}

impl Default for DelaySettings {
    /// 40 ms to start with. The floor of 15 ms rides out one missed turn of a busy machine's scheduler without a late
    /// frame; packets on a quiet local network would allow 5 ms.
    fn default() -> Self {
        Self { start_ms: 40.0, floor_ms: 15.0 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Observation {
    at_ms: f64,
    transit_ms: f64,
}

/// Finds the best transit to play at.
#[derive(Debug)]
pub(crate) struct DelayEstimator {
    settings: DelaySettings,
    window: VecDeque<Observation>,
    /// When the oldest observation since the last restart was made.
    since_ms: f64,
    fastest_ms: f64,
    target_ms: f64,
}

impl DelayEstimator {
    pub(crate) fn new(settings: DelaySettings) -> Self {
        Self { settings, window: VecDeque::new(), since_ms: 0.0, fastest_ms: 0.0, target_ms: settings.start_ms }
    }

    /// Takes the transit of a frame that came for the first time.
    pub(crate) fn observe(&mut self, at_ms: f64, transit_ms: f64) {
        if self.window.is_empty() {
            self.since_ms = at_ms;
            self.fastest_ms = transit_ms;
            self.target_ms = self.settings.start_ms;
        }
        if self.window.len() == OBSERVATIONS_MAX {
            self.window.pop_front();
        }
        self.window.push_back(Observation { at_ms, transit_ms });
        // A faster frame counts at once, so that the target stays above the same moment.
        if transit_ms < self.fastest_ms {
            self.target_ms = (self.target_ms + self.fastest_ms - transit_ms).min(TARGET_MAX_MS);
            self.fastest_ms = transit_ms;
        }
    }

    /// Forgets what was observed before `at_ms`: the network has become another.
    pub(crate) fn restart(&mut self, at_ms: f64) {
        self.window.retain(|observation| observation.at_ms >= at_ms);
        self.since_ms = at_ms;
        self.fastest_ms = self.window.iter().map(|observation| observation.transit_ms).fold(f64::INFINITY, f64::min);
        if self.window.is_empty() {
            self.fastest_ms = 0.0;
        }
        self.target_ms = self.settings.start_ms;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.window.clear();
    }

    /// Seeks the target anew.
    pub(crate) fn evaluate(&mut self, now_ms: f64) {
        while self.window.len() > 1 && self.window.front().is_some_and(|oldest| now_ms - oldest.at_ms > WINDOW_MS) {
            self.window.pop_front();
        }
        let mut transits: Vec<f64> = self.window.iter().map(|observation| observation.transit_ms).collect();
        if transits.is_empty() {
            return;
        }
        transits.sort_by(f64::total_cmp);
        self.fastest_ms = transits[0];
        let floor_ms = if now_ms - self.since_ms < START_PERIOD_MS { self.settings.start_ms } else { self.settings.floor_ms };
        self.target_ms = cheapest(&transits, floor_ms);
    }

    /// The transit to play at.
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

/// The wait above the first of `transits`, which rise, that costs least.
fn cheapest(transits: &[f64], floor_ms: f64) -> f64 {
    let mut best = (f64::INFINITY, floor_ms);
    for (index, transit) in transits.iter().enumerate() {
        let wait_ms = (((transit - transits[0]) / STEP_MS).ceil() * STEP_MS).clamp(floor_ms, TARGET_MAX_MS);
        let late = transits.len() - 1 - index;
        let cost = wait_ms + LATE_PERCENT_MS * 100.0 * late as f64 / transits.len() as f64;
        // At the same wait the later of two has fewer late frames behind it.
        if cost < best.0 {
            best = (cost, wait_ms);
        }
    }
    best.1
}

/// Seconds over which the least one-way delay is remembered.
const LEAST_OVER_S: usize = 30;

/// How much longer than at best packets are under way, which is what stands in the network's queues.
#[derive(Debug, Default)]
pub(crate) struct Queueing {
    /// The least transit of each second, newest last.
    least_ms: VecDeque<(i64, f64)>,
    /// The least since the last report.
    recent_ms: Option<f64>,
    newest_ms: f64,
}

impl Queueing {
    pub(crate) fn observe(&mut self, at_ms: f64, transit_ms: f64) {
        let second = (at_ms / 1000.0) as i64;
        match self.least_ms.back_mut() {
            Some((last, least)) if *last == second => *least = least.min(transit_ms),
            _ => self.least_ms.push_back((second, transit_ms)),
        }
        while self.least_ms.len() > LEAST_OVER_S {
            self.least_ms.pop_front();
        }
        self.recent_ms = Some(self.recent_ms.map_or(transit_ms, |recent| recent.min(transit_ms)));
        self.newest_ms = transit_ms;
    }

    /// The queueing delay since the last call.
    pub(crate) fn take_ms(&mut self) -> f64 {
        let least = self.least_ms.iter().map(|(_, least)| *least).fold(f64::INFINITY, f64::min);
        (self.recent_ms.take().unwrap_or(self.newest_ms) - least).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(transits: impl Iterator<Item = f64>) -> f64 {
        let mut estimator = DelayEstimator::new(DelaySettings { start_ms: 40.0, floor_ms: 5.0 });
        let mut at_ms = 0.0;
        for transit in transits {
            estimator.observe(at_ms, 1_000.0 + transit);
            at_ms += 20.0;
        }
        estimator.evaluate(at_ms);
        estimator.target_ms()
    }

    #[test]
    fn a_quiet_network_is_played_at_the_floor_after_the_start() {
        assert!((estimate((0..50).map(|_| 0.0)) - 40.0).abs() < 1e-9);
        assert!((estimate((0..300).map(|_| 0.0)) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn rare_spikes_are_let_go_and_frequent_ones_waited_for() {
        let spikes = |every: usize| (0..600).map(move |index| if index % every == 0 { 60.0 } else { 0.0 });
        assert!(estimate(spikes(150)) < 10.0, "0.7 % late cost 13 ms, waiting costs 60");
        assert!((estimate(spikes(20)) - 60.0).abs() < 1e-9, "5 % late cost 100 ms");
    }

    #[test]
    fn after_a_restart_only_the_observations_since_count() {
        let mut estimator = DelayEstimator::new(DelaySettings::default());
        for step in 0..500 {
            estimator.observe(f64::from(step) * 20.0, if step < 490 { 0.0 } else { 300.0 });
        }
        estimator.restart(9_800.0);
        assert!((estimator.transit_ms() - 340.0).abs() < 1e-9);
    }

    #[test]
    fn queueing_is_above_the_least_of_the_last_half_minute() {
        let mut queueing = Queueing::default();
        for second in 0..60 {
            queueing.observe(f64::from(second) * 1000.0, if second < 10 { 20.0 } else { 50.0 });
            let expected = if (10..38).contains(&second) { 30.0 } else { 0.0 };
            if !(38..42).contains(&second) {
                assert!((queueing.take_ms() - expected).abs() < 1e-9, "second {second}");
            }
        }
    }
}
