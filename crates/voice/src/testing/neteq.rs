//! The rule by which libwebrtc's NetEq chooses its delay, as far as its description tells: a rival in benchmarks.
//!
//! It is written from the description of the rule and its constants, and is no copy of that library. Stretching is
//! simplified in its favour: it is smooth, costs nothing and finds a pitch everywhere.

use std::collections::VecDeque;

use super::{Price, Trace};

/// Arrivals are seen relative to the fastest of this long.
const HISTORY_MS: f64 = 2_000.0;

/// The histogram takes the greatest of this long.
const RESAMPLE_MS: f64 = 500.0;

const BUCKET_MS: f64 = 20.0;
const BUCKETS: usize = 100;

const UNDERRUN_QUANTILE: f64 = 0.95;
const UNDERRUN_FORGET: f64 = 0.983;
const REORDER_FORGET: f64 = 0.9993;
const START_FORGET_WEIGHT: f64 = 2.0;
const MS_PER_LOSS_PERCENT: f64 = 20.0;

const TARGET_START_MS: f64 = 80.0;
const TARGET_MAX_MS: f64 = 500.0;

/// Sound is asked for as often.
const TICK_MS: f64 = 10.0;
/// How much of each tick acceleration takes away, and expansion adds.
const ACCELERATE: f64 = 0.05;
const EXPAND: f64 = 0.2;

/// Delays in buckets, the old ones ever less.
#[derive(Debug)]
struct Histogram {
    shares: [f64; BUCKETS],
    forget: f64,
    count: u32,
}

impl Histogram {
    fn new(forget: f64) -> Self {
        Self { shares: [0.0; BUCKETS], forget, count: 0 }
    }

    fn add(&mut self, delay_ms: f64) {
        self.count += 1;
        // The first entries forget faster, until the factor has come up to its own.
        let forget = (1.0 - START_FORGET_WEIGHT / (f64::from(self.count) + 1.0)).clamp(0.0, self.forget);
        self.shares.iter_mut().for_each(|share| *share *= forget);
        let bucket = ((delay_ms / BUCKET_MS) as usize).min(BUCKETS - 1);
        self.shares[bucket] += 1.0 - forget;
    }

    fn quantile_ms(&self, part: f64) -> f64 {
        let mut sum = 0.0;
        let bucket = self.shares.iter().position(|share| {
            sum += share;
            sum >= part
        });
        (bucket.unwrap_or(BUCKETS - 1) + 1) as f64 * BUCKET_MS
    }

    /// Where the delay above `base_ms` and what is later than it cost least.
    fn cheapest_ms(&self, base_ms: f64) -> f64 {
        let (mut later, mut best) = (1.0, (f64::INFINITY, 0.0));
        for (bucket, share) in self.shares.iter().enumerate() {
            later -= share;
            let delay_ms = bucket as f64 * BUCKET_MS;
            let cost = (delay_ms - base_ms).max(0.0) + 100.0 * MS_PER_LOSS_PERCENT * f64::max(later, 0.0);
            if cost < best.0 {
                best = (cost, delay_ms);
            }
        }
        best.1 + BUCKET_MS
    }
}

/// The rule: packets in, target delay out.
#[derive(Debug)]
pub struct NetEqModel {
    /// Arrivals and transits.
    history: VecDeque<(f64, f64)>,
    underrun: Histogram,
    reorder: Histogram,
    greatest_ms: f64,
    resampled_ms: f64,
    newest_sent_ms: f64,
    target_ms: f64,
}

impl Default for NetEqModel {
    fn default() -> Self {
        Self {
            history: VecDeque::new(),
            underrun: Histogram::new(UNDERRUN_FORGET),
            reorder: Histogram::new(REORDER_FORGET),
            greatest_ms: 0.0,
            resampled_ms: 0.0,
            newest_sent_ms: f64::NEG_INFINITY,
            target_ms: TARGET_START_MS,
        }
    }
}

impl NetEqModel {
    /// Takes a packet.
    pub fn observe(&mut self, sent_ms: f64, arrival_ms: f64) {
        let transit_ms = arrival_ms - sent_ms;
        while self.history.front().is_some_and(|(at, _)| arrival_ms - at > HISTORY_MS) {
            self.history.pop_front();
        }
        self.history.push_back((arrival_ms, transit_ms));
        let relative_ms = transit_ms - self.base_ms();
        let is_reordered = sent_ms < self.newest_sent_ms;
        self.newest_sent_ms = self.newest_sent_ms.max(sent_ms);
        self.reorder.add(if is_reordered { relative_ms } else { 0.0 });
        self.greatest_ms = self.greatest_ms.max(relative_ms);
        if arrival_ms - self.resampled_ms >= RESAMPLE_MS {
            self.underrun.add(self.greatest_ms);
            (self.greatest_ms, self.resampled_ms) = (0.0, arrival_ms);
            let underrun_ms = self.underrun.quantile_ms(UNDERRUN_QUANTILE);
            self.target_ms = underrun_ms.max(self.reorder.cheapest_ms(underrun_ms)).min(TARGET_MAX_MS);
        }
    }

    fn base_ms(&self) -> f64 {
        self.history.iter().map(|(_, transit)| *transit).fold(f64::INFINITY, f64::min)
    }

    /// The transit to play at.
    #[must_use]
    pub fn transit_ms(&self) -> f64 {
        self.base_ms() + self.target_ms
    }
}

/// Plays a trace by the rule.
#[must_use]
pub fn play_neteq(trace: &Trace) -> Price {
    let mut model = NetEqModel::default();
    let mut arrivals: Vec<(f64, f64)> = trace.times_ms().collect();
    arrivals.sort_by(|one, other| one.1.total_cmp(&other.1));
    let (mut delay_ms, mut sum_ms, mut ticks, mut late) = (0.0_f64, 0.0, 0_u32, 0_usize);
    let mut next = 0;
    let last_ms = arrivals.last().map_or(0.0, |(_, arrival)| *arrival);
    while f64::from(ticks) * TICK_MS < last_ms {
        let now_ms = f64::from(ticks) * TICK_MS;
        while let Some((sent_ms, arrival_ms)) = arrivals.get(next).filter(|(_, arrival)| *arrival <= now_ms) {
            model.observe(*sent_ms, *arrival_ms);
            if next == 0 {
                delay_ms = model.transit_ms();
            }
            late += usize::from(arrival_ms - sent_ms > delay_ms);
            next += 1;
        }
        let goal_ms = if next > 0 { model.transit_ms() } else { delay_ms };
        delay_ms = goal_ms.clamp(delay_ms - TICK_MS * ACCELERATE, delay_ms + TICK_MS * EXPAND);
        sum_ms += delay_ms;
        ticks += 1;
    }
    Price {
        delay_ms: sum_ms / f64::from(ticks.max(1)) - trace.least_ms(),
        late_percent: 100.0 * late as f64 / arrivals.len().max(1) as f64,
    }
}
